"""Versions in the URLs that Flask, Starlette, FastAPI and Jinja build, without a change to a template."""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import Any

import flask
import pytest
from fastapi import FastAPI
from jinja2 import DictLoader, Environment
from starlette.applications import Starlette
from starlette.middleware import Middleware
from starlette.requests import Request
from starlette.responses import PlainTextResponse
from starlette.routing import Host, Mount, NoMatchFound, Route, Router
from starlette.staticfiles import StaticFiles
from starlette.templating import Jinja2Templates
from starlette.testclient import TestClient

from cachemw import CacheMiddleware, ImproperlyConfigured
from cachemw.backends.locmem import LocMemCache
from cachemw.busting import (
    StaticFolder,
    StaticVersionWarning,
    static_url,
    version_flask,
    version_jinja,
    version_starlette,
)
from cachemw.integrations.flask import CacheMW

IMMUTABLE = "public, max-age=31536000, immutable"
TEMPLATE = '<link rel="stylesheet" href="{{ url_for("static", %s="style.css") }}">'


def version(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()[:12]


V = version(b"red")


@pytest.fixture
def root(tmp_path: Path) -> Path:
    for name, content in [("static/style.css", b"red"), ("shop/style.css", b"tan"), ("templates/x.html", b"")]:
        path = tmp_path / name
        path.parent.mkdir(exist_ok=True)
        path.write_bytes(content)
    (tmp_path / "templates" / "flask.html").write_text(TEMPLATE % "filename")
    (tmp_path / "templates" / "starlette.html").write_text(TEMPLATE % "path")
    return tmp_path


class Client:
    """Flask's test client, which reads each body to its end and closes it, as a server does."""

    def __init__(self, app: flask.Flask) -> None:
        self._client = app.test_client()

    def get(self, url: str, **options: Any) -> Any:
        return self._client.get(url, buffered=True, **options)

    def post(self, url: str) -> Any:
        return self._client.post(url, buffered=True)


# -- Flask ----------------------------------------------------------------------------------------------------------


@pytest.fixture
def app(root: Path) -> flask.Flask:
    app = flask.Flask("site", root_path=str(root))
    app.secret_key = "k"
    version_flask(app)
    app.add_url_rule("/", view_func=lambda: flask.render_template("flask.html"), endpoint="index")
    return app


def url_in(app: flask.Flask, endpoint: str = "static", **values: Any) -> str:
    with app.test_request_context():
        return flask.url_for(endpoint, **values)


def test_flask_templates_stay_as_they_are(app: flask.Flask) -> None:
    client = Client(app)
    page = client.get("/").text
    assert page == f'<link rel="stylesheet" href="/static/style.css?v={V}">'
    response = client.get(f"/static/style.css?v={V}")
    assert (response.data, response.headers["Cache-Control"]) == (b"red", IMMUTABLE)
    assert response.content_type.startswith("text/css")


def test_flask_other_versions_and_files_live_as_they_should(app: flask.Flask) -> None:
    client = Client(app)
    assert client.get("/static/style.css?v=old").headers["Cache-Control"] == "public, max-age=60"
    assert client.get("/static/style.css").headers["Cache-Control"] == "no-cache"
    assert client.get(f"/static/style.css?v={V}", headers={"If-None-Match": f'"{V}"'}).status_code == 304
    part = client.get(f"/static/style.css?v={V}", headers={"Range": "bytes=0-0"})
    assert (part.status_code, part.data, part.headers["Cache-Control"]) == (206, b"r", IMMUTABLE)
    assert client.get(f"/static/none.css?v={V}").status_code == 404
    assert client.post("/static/style.css").status_code == 405
    assert client.get("/none").status_code == 404


def test_flask_a_version_by_hand_wins(app: flask.Flask) -> None:
    assert url_in(app, filename="style.css", v="7") == "/static/style.css?v=7"
    assert url_in(app, filename="style.css", v=None) == "/static/style.css"
    with pytest.warns(StaticVersionWarning):
        assert url_in(app, filename="style.css", v=1700000000) == "/static/style.css?v=1700000000"


def test_flask_a_missing_file_does_not_break_the_page(app: flask.Flask, caplog: pytest.LogCaptureFixture) -> None:
    assert url_in(app, filename="none.png") == "/static/none.png"
    assert url_in(app, filename="../site.py") == "/static/../site.py"
    assert "no static file 'none.png'" in caplog.text


def test_flask_the_rest_of_a_url_stays(app: flask.Flask) -> None:
    url = url_in(app, filename="style.css", _anchor="top", _external=True, theme="dark")
    assert url == f"http://localhost/static/style.css?theme=dark&v={V}#top"
    assert url_in(app, "index") == "/"


def test_flask_blueprints_have_their_own_folders_also_later_and_nested_ones(app: flask.Flask, root: Path) -> None:
    shop = flask.Blueprint("shop", "shop", root_path=str(root), static_folder="shop", url_prefix="/shop")
    cart = flask.Blueprint("cart", "cart", root_path=str(root), static_folder="shop", url_prefix="/cart")
    bare = flask.Blueprint("bare", "bare", root_path=str(root), url_prefix="/bare")
    bare.add_url_rule("/x/<filename>", view_func=lambda filename: filename, endpoint="static")
    shop.register_blueprint(cart)
    app.register_blueprint(shop)
    app.register_blueprint(bare)
    tan = version(b"tan")
    assert url_in(app, "shop.static", filename="style.css") == f"/shop/shop/style.css?v={tan}"
    assert url_in(app, "shop.cart.static", filename="style.css") == f"/shop/cart/shop/style.css?v={tan}"
    assert url_in(app, "bare.static", filename="a") == "/bare/x/a"
    client = Client(app)
    for url in [f"/shop/shop/style.css?v={tan}", f"/shop/cart/shop/style.css?v={tan}"]:
        assert client.get(url).headers["Cache-Control"] == IMMUTABLE
    assert client.get(f"/shop/shop/style.css?v={V}").headers["Cache-Control"] == "public, max-age=60"
    assert client.get(f"/bare/x/a?v={V}").text == "a"


def test_flask_names_that_lead_out_are_not_found(app: flask.Flask, root: Path) -> None:
    (root / "static" / "link").symlink_to(root / "templates" / "flask.html")
    client = Client(app)
    for path in [
        "link",
        "../templates/flask.html",
        "%2e%2e/templates/flask.html",
        "%00",
        "style.css%00",
        "%2Fetc/passwd",
    ]:
        assert client.get(f"/static/{path}").status_code in (404, 308)
    assert client.get("/static/link", follow_redirects=True).status_code == 404
    assert client.get("/static/%2Fetc/passwd", follow_redirects=True).status_code == 404


def test_flask_links_may_be_allowed(root: Path) -> None:
    (root / "static" / "link").symlink_to(root / "shop" / "style.css")
    app = flask.Flask("site", root_path=str(root))
    version_flask(app, follow_symlinks=True)
    assert Client(app).get(f"/static/link?v={version(b'tan')}").headers["Cache-Control"] == IMMUTABLE


def test_flask_a_guard_still_guards(app: flask.Flask) -> None:
    @app.before_request
    def guard() -> Any:
        return None if flask.request.authorization else flask.abort(401)

    client = Client(app)
    refused = client.get(f"/static/style.css?v={V}")
    assert refused.status_code == 401
    assert "Cache-Control" not in refused.headers
    allowed = client.get(f"/static/style.css?v={V}", auth=("a", "b"))
    assert allowed.headers["Cache-Control"] == "private, max-age=31536000, immutable"


def test_flask_a_session_cookie_on_a_static_file_is_never_public(app: flask.Flask) -> None:
    """Flask refreshes a permanent session's cookie on every response, after everything else has run."""

    @app.get("/login")
    def login() -> str:
        flask.session.permanent = True
        flask.session["user"] = "a"
        return ""

    client = Client(app)
    client.get("/login")
    response = client.get(f"/static/style.css?v={V}")
    assert "Set-Cookie" in response.headers
    assert "public" not in response.headers["Cache-Control"]


def test_flask_urls_follow_edits_in_development_and_are_fixed_in_production(app: flask.Flask, root: Path) -> None:
    debug = flask.Flask("debug", root_path=str(root))
    debug.debug = True
    version_flask(debug)
    for one in (app, debug):
        assert url_in(one, filename="style.css").endswith(V)
    (root / "static" / "style.css").write_bytes(b"blue")
    assert url_in(debug, filename="style.css").endswith(version(b"blue"))
    assert url_in(app, filename="style.css").endswith(V)
    assert "immutable" not in Client(app).get(f"/static/style.css?v={V}").headers["Cache-Control"]


def test_flask_hashed_names_of_a_build(root: Path) -> None:
    (root / "static" / f"style.{V}.css").write_bytes(b"red")
    (root / "static" / "static-manifest.json").write_text(
        f'{{"format": 1, "files": {{"style.css": "style.{V}.css"}}, "contents": {{}}}}'
    )
    app = flask.Flask("site", root_path=str(root))
    version_flask(app, fixed=True)
    assert url_in(app, filename="style.css") == f"/static/style.{V}.css"
    assert Client(app).get(f"/static/style.{V}.css").headers["Cache-Control"] == IMMUTABLE


def test_flask_a_folder_that_comes_later_or_never(tmp_path: Path) -> None:
    app = flask.Flask("site", root_path=str(tmp_path))
    version_flask(app)
    assert url_in(app, filename="style.css") == "/static/style.css"
    (tmp_path / "static").mkdir()
    (tmp_path / "static" / "style.css").write_bytes(b"red")
    assert url_in(app, filename="style.css") == f"/static/style.css?v={V}"
    without = flask.Flask("site", root_path=str(tmp_path), static_folder=None)
    version_flask(without)
    assert Client(without).get("/static/style.css").status_code == 404


def test_flask_twice_is_an_error(app: flask.Flask) -> None:
    with pytest.raises(ImproperlyConfigured, match="already"):
        version_flask(app)


def test_flask_the_extension_gives_versions_by_itself(root: Path) -> None:
    app = flask.Flask("site", root_path=str(root))
    app.add_url_rule("/", view_func=lambda: flask.render_template("flask.html"))
    blueprint = flask.Blueprint("shop", "shop", root_path=str(root), static_folder="shop", url_prefix="/shop")
    CacheMW(app, cache=LocMemCache("extension-gives", {}))
    app.register_blueprint(blueprint)
    client = Client(app)
    assert f"/static/style.css?v={V}" in client.get("/").text
    assert client.get(f"/static/style.css?v={V}").headers["Cache-Control"] == IMMUTABLE
    with app.test_request_context():
        assert flask.url_for("shop.static", filename="style.css").endswith(f"?v={version(b'tan')}")


def test_flask_the_extension_may_leave_static_files_to_flask(root: Path) -> None:
    app = flask.Flask("site", root_path=str(root))
    CacheMW(app, cache=LocMemCache("extension-leaves", {}), static=False)
    with app.test_request_context():
        assert flask.url_for("static", filename="style.css") == "/static/style.css"
    assert Client(app).get(f"/static/style.css?v={V}").headers["Cache-Control"] == "no-cache"


@pytest.mark.parametrize("first", [True, False])
def test_flask_what_is_asked_for_comes_before_what_the_extension_does_by_itself(root: Path, first: bool) -> None:
    app = flask.Flask("site", root_path=str(root))
    if first:
        version_flask(app, fixed=False)
    CacheMW(app, cache=LocMemCache(f"extension-before-{first}", {}))
    if not first:
        with app.test_request_context():
            flask.url_for("static", filename="style.css")
        version_flask(app, fixed=False)
    with app.test_request_context():
        assert flask.url_for("static", filename="style.css") == f"/static/style.css?v={V}"
        (root / "static" / "style.css").write_bytes(b"blue")
        assert flask.url_for("static", filename="style.css") == f"/static/style.css?v={version(b'blue')}"
    assert Client(app).get(f"/static/style.css?v={version(b'blue')}").headers["Cache-Control"] == IMMUTABLE
    with pytest.raises(ImproperlyConfigured, match="once is enough"):
        version_flask(app)


def test_flask_under_the_page_cache(app: flask.Flask) -> None:
    app.wsgi_app = CacheMiddleware(app.wsgi_app, cache=LocMemCache("busting-flask", {}))  # type: ignore[method-assign]
    client = Client(app)
    for _ in range(2):
        assert client.get(f"/static/style.css?v={V}").headers["Cache-Control"] == IMMUTABLE
    assert "Age" in client.get(f"/static/style.css?v={V}").headers


def test_flask_without_the_passage_in_the_environment_serves_as_before(root: Path) -> None:
    """A middleware further in may hand on an environment of its own making."""
    app = flask.Flask("site", root_path=str(root))
    inner = app.wsgi_app
    app.wsgi_app = lambda environ, start: inner(  # type: ignore[method-assign, assignment]
        {name: value for name, value in environ.items() if name != "cachemw.static"}, start
    )
    version_flask(app)
    assert Client(app).get(f"/static/style.css?v={V}").headers["Cache-Control"] == "no-cache"


def test_flask_a_request_that_comes_while_another_is_the_first(app: flask.Flask) -> None:
    versions = app.extensions["cachemw.static"]
    views: list[Any] = []

    class Meanwhile:
        """The lock, of which the other one has just let go."""

        def __enter__(self) -> None:
            versions._prefixes = versions._prepared()
            views.append(app.view_functions["static"])

        def __exit__(self, *exc_info: object) -> None:
            views.append(app.view_functions["static"])

    versions._lock = Meanwhile()
    assert Client(app).get(f"/static/style.css?v={V}").headers["Cache-Control"] == IMMUTABLE
    assert views[0] is views[1]


@pytest.mark.parametrize("path", ["", "/für alle", "/a/b/"])
def test_flask_wherever_the_files_are(root: Path, path: str) -> None:
    app = flask.Flask("site", root_path=str(root), static_url_path=path)
    version_flask(app)
    app.add_url_rule("/page/", view_func=lambda: "a page")
    client = Client(app)
    with app.test_request_context():
        url = flask.url_for("static", filename="style.css")
    assert client.get(url).headers["Cache-Control"] == IMMUTABLE
    assert client.get("/page/").text == "a page"


# -- Starlette and FastAPI ------------------------------------------------------------------------------------------


def pages(root: Path) -> Route:
    templates = Jinja2Templates(root / "templates")

    def index(request: Request) -> Any:
        return templates.TemplateResponse(request, "starlette.html")

    return Route("/", index, name="index")


def mount(root: Path, name: str = "static", folder: str = "static", **options: Any) -> Mount:
    return Mount(f"/{name}", StaticFiles(directory=root / folder, **options), name=name)


def test_starlette_templates_stay_as_they_are(root: Path) -> None:
    app = Starlette(routes=[pages(root), mount(root)])
    version_starlette(app)
    client = TestClient(app)
    url = f"http://testserver/static/style.css?v={V}"
    assert client.get("/").text == f'<link rel="stylesheet" href="{url}">'
    response = client.get(url)
    assert (response.text, response.headers["cache-control"]) == ("red", IMMUTABLE)
    assert client.get(url, headers={"If-None-Match": f'"{V}"'}).status_code == 304
    assert client.get("/static/style.css?v=7").headers["cache-control"] == "public, max-age=60"
    assert client.get("/static/style.css").headers["cache-control"] == "no-cache"
    assert client.get("/static/none.css").status_code == 404


def test_starlette_a_version_by_hand_wins(root: Path) -> None:
    app = Starlette(routes=[mount(root), pages(root)])
    version_starlette(app)
    assert app.url_path_for("static", path="style.css", v="a b") == "/static/style.css?v=a%20b"
    assert app.url_path_for("static", path="/style.css", v=None) == "/static/style.css"
    request = Request(
        {"type": "http", "router": app.router, "headers": [(b"host", b"h")], "path": "/", "scheme": "http"}
    )
    assert str(request.url_for("static", path="style.css").include_query_params(v=7)) == "http://h/static/style.css?v=7"
    assert app.url_path_for("static", path="none") == "/static/none"
    assert app.url_path_for("index") == "/"
    with pytest.raises(NoMatchFound):
        app.url_path_for("static")
    with pytest.raises(NoMatchFound):
        app.url_path_for("static", path="style.css", theme="dark")


def test_starlette_every_mount_however_deep_is_found(root: Path) -> None:
    inner = Starlette(routes=[mount(root, "own", "shop")])
    app = Starlette(
        routes=[
            mount(root),
            Mount("/admin", routes=[mount(root, "deep", "shop")], name="admin"),
            Mount("/app", inner, name="app"),
            Mount("/plain", PlainTextResponse("x")),
            Host("cdn.example", Router([mount(root, "cdn")]), name="cdn"),
        ]
    )
    version_starlette(app)
    tan = version(b"tan")
    assert app.url_path_for("admin:deep", path="style.css") == f"/admin/deep/style.css?v={tan}"
    assert app.url_path_for("app:own", path="style.css") == f"/app/own/style.css?v={tan}"
    assert app.url_path_for("cdn:cdn", path="style.css") == f"/cdn/style.css?v={V}"
    client = TestClient(app)
    for path in ["/admin/deep/style.css", "/app/own/style.css"]:
        assert client.get(f"{path}?v={tan}").headers["cache-control"] == IMMUTABLE
        assert client.get(f"{path}?v={V}").headers["cache-control"] == "public, max-age=60"
    assert client.get("/plain").text == "x"


def test_starlette_middleware_of_the_mount_still_runs(root: Path) -> None:
    class Refuse:
        def __init__(self, app: Any) -> None:
            self.app = app

        async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
            await PlainTextResponse("no", 403)(scope, receive, send)

    guarded = Mount("/static", StaticFiles(directory=root / "static"), name="static", middleware=[Middleware(Refuse)])
    app = Starlette(routes=[guarded])
    version_starlette(app)
    response = TestClient(app).get(f"/static/style.css?v={V}")
    assert (response.status_code, "cache-control" in response.headers) == (403, False)


def test_starlette_names_that_lead_out_are_not_found(root: Path) -> None:
    (root / "static" / "link").symlink_to(root / "shop" / "style.css")
    app = Starlette(routes=[mount(root), mount(root, "open", follow_symlink=True)])
    version_starlette(app)
    client = TestClient(app)
    for path in ["link", "%2e%2e/shop/style.css", "%00", "style.css%00", "/etc/passwd", "%5C..%5Cshop"]:
        assert client.get(f"/static/{path}").status_code == 404
    tan = version(b"tan")
    assert client.get(f"/open/link?v={tan}").headers["cache-control"] == IMMUTABLE


def test_starlette_urls_follow_edits_in_debug_mode(root: Path) -> None:
    apps = [Starlette(routes=[mount(root)], debug=debug) for debug in (True, False)]
    for app in apps:
        version_starlette(app)
        assert app.url_path_for("static", path="style.css").endswith(V)
    (root / "static" / "style.css").write_bytes(b"blue")
    assert [app.url_path_for("static", path="style.css")[-12:] for app in apps] == [version(b"blue"), V]


def test_starlette_a_site_below_a_root_path(root: Path) -> None:
    app = Starlette(routes=[pages(root), mount(root)])
    version_starlette(app)
    client = TestClient(app, root_path="/sub")
    url = f"http://testserver/sub/static/style.css?v={V}"
    assert url in client.get("/sub/").text
    assert client.get(url).headers["cache-control"] == IMMUTABLE


def test_starlette_without_static_files_is_an_error(root: Path) -> None:
    with pytest.raises(ImproperlyConfigured, match="mounts no StaticFiles"):
        version_starlette(Starlette(routes=[pages(root)]))
    missing = Starlette(routes=[Mount("/s", StaticFiles(directory=root / "none", check_dir=False), name="s")])
    with pytest.raises(ImproperlyConfigured, match="none' is not a directory"):
        version_starlette(missing)


def test_fastapi(root: Path) -> None:
    app = FastAPI()
    app.mount("/static", StaticFiles(directory=root / "static"), name="static")
    app.routes.append(pages(root))
    version_starlette(app)
    client = TestClient(app)
    assert f"/static/style.css?v={V}" in client.get("/").text
    assert client.get(f"/static/style.css?v={V}").headers["cache-control"] == IMMUTABLE
    assert client.get("/openapi.json").json()["paths"] == {}


# -- Jinja ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("argument", ["filename", "path"])
def test_jinja_templates_stay_as_they_are(root: Path, argument: str) -> None:
    env = Environment(loader=DictLoader({"a": TEMPLATE % argument}), autoescape=True)
    version_jinja(env, StaticFolder(root / "static"))
    assert env.get_template("a").render() == f'<link rel="stylesheet" href="/static/style.css?v={V}">'
    assert env.from_string("{{ static_url('style.css') }}").render() == f"/static/style.css?v={V}"
    assert env.from_string("{{ url_for('static', path='style.css', v=3) }}").render() == "/static/style.css?v=3"


def test_jinja_other_endpoints_and_folders_go_on(root: Path) -> None:
    env = Environment(autoescape=True)
    env.globals["url_for"] = lambda name, **values: f"/{name}{values or ''}"
    version_jinja(env, StaticFolder(root / "static"))
    version_jinja(env, StaticFolder(root / "shop", url="/shop/"), endpoint="shop.static")

    def render(text: str) -> str:
        return env.from_string(text).render()

    assert render("{{ url_for('index') }}") == "/index"
    assert render("{{ url_for('static', filename='style.css') }}") == f"/static/style.css?v={V}"
    assert render("{{ url_for('shop.static', filename='style.css') }}") == f"/shop/style.css?v={version(b'tan')}"
    assert "theme" in render("{{ url_for('static', filename='style.css', theme=1) }}")


def test_jinja_an_endpoint_that_nobody_knows_is_an_error(root: Path) -> None:
    env = Environment(autoescape=True)
    version_jinja(env, StaticFolder(root / "static"))
    for text in ["{{ url_for('index') }}", "{{ url_for('static', file='x') }}"]:
        with pytest.raises(LookupError, match="url_for knows 'static'"):
            env.from_string(text).render()
    with pytest.raises(ImproperlyConfigured, match=r"no static file 'none\.css'"):
        env.from_string("{{ static_url('none.css') }}").render()


# -- static_url -------------------------------------------------------------------------------------------------------


def test_static_url_of_the_directory_static(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(root)
    assert static_url("style.css") == f"/static/style.css?v={V}"
    assert static_url("style.css", v="7") == "/static/style.css?v=7"
    assert static_url("style.css", v=None) == "/static/style.css"
    with pytest.raises(ImproperlyConfigured, match=r"no static file 'stile.css'.* did you mean 'style.css'"):
        static_url("stile.css")


def test_static_url_without_a_folder_says_which_is_not_there(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(ImproperlyConfigured, match=r"static' is not a directory"):
        static_url("style.css")


def test_static_url_of_a_folder_that_is_given(root: Path) -> None:
    assert static_url("style.css", folder=root / "shop") == f"/static/style.css?v={version(b'tan')}"
    folder = StaticFolder(root / "shop", url="https://cdn.example/shop/")
    assert static_url("style.css", folder=folder) == f"https://cdn.example/shop/style.css?v={version(b'tan')}"


@pytest.mark.parametrize("installed", [True, False])
def test_static_url_is_of_the_flask_application_at_work(root: Path, installed: bool) -> None:
    app = flask.Flask("site", root_path=str(root), static_folder="shop", static_url_path="/files")
    if installed:
        version_flask(app)
    tan = version(b"tan")
    with app.app_context():
        assert static_url("style.css") == f"/files/style.css?v={tan}"
    with app.test_request_context("/", environ_overrides={"SCRIPT_NAME": "/mounted"}):
        assert static_url("style.css") == f"/mounted/files/style.css?v={tan}"
        assert static_url("style.css", v=None) == "/mounted/files/style.css"
        assert flask.url_for("static", filename="style.css").endswith(f"?v={tan}") is installed
        with pytest.raises(ImproperlyConfigured, match="no static file 'nothing'"):
            static_url("nothing")


def test_static_url_of_a_flask_application_without_static_files(root: Path) -> None:
    app = flask.Flask("site", root_path=str(root), static_folder=None)
    with app.app_context(), pytest.raises(ImproperlyConfigured, match=r"no static folder that could hold 'style.css'"):
        static_url("style.css")
