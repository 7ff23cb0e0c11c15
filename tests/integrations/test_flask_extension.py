"""CacheMW: the extension around a Flask application."""

from __future__ import annotations

import subprocess
import sys
import threading
from pathlib import Path
from typing import Any

import pytest
from flask import (
    Blueprint,
    Flask,
    Response,
    flash,
    g,
    get_flashed_messages,
    render_template_string,
    request,
    session,
    url_for,
)
from flask.views import MethodView
from flask_babel import Babel, get_locale, get_timezone  # type: ignore[import-untyped]

from cachemw import (
    Hooks,
    ImproperlyConfigured,
    Policy,
    activate_language,
    cache_page,
    get_language,
    make_template_fragment_key,
)
from cachemw.backends.locmem import LocMemCache
from cachemw.integrations.flask import CacheMW
from tests.integrations.conftest import Counter
from tests.scenarios.conftest import Clock


@pytest.fixture
def app(store: LocMemCache) -> Flask:
    app = Flask(__name__)
    app.secret_key = "not secret at all"
    app.testing = True
    app.config["CACHES"] = {
        "default": {"BACKEND": "cachemw.backends.locmem.LocMemCache", "LOCATION": f"extension-{store.location}"},
        "slow": {"BACKEND": "cachemw.backends.locmem.LocMemCache", "LOCATION": f"extension-slow-{store.location}"},
    }
    return app


def get(app: Flask, path: str, **options: Any) -> Any:
    return app.test_client().get(path, buffered=True, **options)


def is_hit(response: Any) -> bool:
    return "; hit" in response.headers.get("Cache-Status", "")


# -- the site, and its settings ---------------------------------------------------------------------------------------


def test_the_whole_site_is_cached_by_the_settings_in_its_config(app: Flask, page: Counter) -> None:
    app.config["CACHE_MIDDLEWARE_SECONDS"] = 30
    app.config["CACHEMW_CACHE_STATUS"] = "front"
    app.add_url_rule("/", view_func=lambda: page())
    cachemw = CacheMW(app)
    first, second = get(app, "/"), get(app, "/")
    assert first.text == second.text == "page 1"
    assert first.headers["Cache-Control"] == "max-age=30"
    assert second.headers["Cache-Status"].startswith("front; hit")
    with app.app_context():
        cachemw.caches["default"].clear()
    assert get(app, "/").text == "page 2"


@pytest.mark.parametrize(
    ("config", "options", "side_by_side", "variable", "is_told"),
    [
        ({}, {}, False, None, True),
        ({"CACHEMW_URL": "locmem://pages"}, {}, False, None, False),
        ({"CACHES": {"default": "locmem://pages"}}, {}, False, None, False),
        ({}, {"cache": "locmem://pages"}, False, None, False),
        ({}, {}, True, None, False),
        ({}, {}, False, "locmem://pages", False),
    ],
    ids=["nothing else", "a URL", "stores", "a store in code", "Flask-Caching at work", "the environment"],
)
def test_settings_of_flask_caching_are_not_passed_over_in_silence(
    config: dict[str, Any],
    options: dict[str, Any],
    side_by_side: bool,
    variable: str | None,
    is_told: bool,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    if variable is not None:
        monkeypatch.setenv("CACHEMW_URL", variable)
    app = Flask(__name__)
    app.config.update({"CACHE_TYPE": "RedisCache", "CACHE_REDIS_URL": "redis://localhost"} | config)
    if side_by_side:
        app.extensions["cache"] = {}
    CacheMW(app, **options)
    assert caplog.text.count("CACHE_TYPE in app.config is a setting of Flask-Caching") == is_told


@pytest.mark.parametrize("made", [False, True], ids=["environment yet to be made", "environment made"])
def test_templates_know_the_tag_of_fragments(app: Flask, page: Counter, made: bool) -> None:
    if made:
        app.jinja_env.globals["page"] = page
    cachemw = CacheMW(app, site=False)
    app.jinja_env.globals["page"] = page
    app.add_url_rule("/", view_func=lambda: render_template_string("{% cache 60 sidebar %}{{ page() }}{% endcache %}"))
    assert get(app, "/").text == get(app, "/").text == "page 1"
    with app.app_context():
        cachemw.caches["default"].delete(make_template_fragment_key("sidebar"))
    assert get(app, "/").text == "page 2"
    assert "extensions" not in Flask.jinja_options  # other applications' are their own


def test_config_comes_before_the_environment_and_code_before_both(
    app: Flask, monkeypatch: pytest.MonkeyPatch, page: Counter
) -> None:
    monkeypatch.setenv("CACHEMW_SECONDS", "10")
    monkeypatch.setenv("CACHEMW_KEY_PREFIX", "from the environment")
    app.config["CACHEMW_SECONDS"] = 20
    app.add_url_rule("/", view_func=lambda: page())
    CacheMW(app)
    assert get(app, "/").headers["Cache-Control"] == "max-age=20"
    site = app.extensions["cachemw"]
    assert site.caching.key_prefix == "from the environment"

    other = Flask("other")
    other.config["CACHEMW_SECONDS"] = 20
    other.add_url_rule("/", view_func=lambda: page())
    CacheMW(other, seconds=30, cache="locmem://extension-code")
    assert get(other, "/").headers["Cache-Control"] == "max-age=30"


@pytest.mark.parametrize(
    ("config", "options", "seconds"),
    [
        ({"CACHE_MIDDLEWARE_SECONDS": 600, "CACHEMW_POLICY": "rfc9111"}, {}, 600),
        ({"CACHEMW_POLICY": "rfc9111"}, {}, 0),
        ({"CACHEMW_SECONDS": 60}, {"policy": Policy(seconds=5)}, 5),
        ({"CACHEMW_SECONDS": 60}, {"policy": Policy.rfc9111(), "seconds": 7}, 7),
        ({}, {}, 600),
    ],
)
def test_what_is_said_for_the_site_comes_before_what_a_preset_says(
    app: Flask, config: dict[str, Any], options: dict[str, Any], seconds: float
) -> None:
    app.config.update(config)
    CacheMW(app, **options)
    assert app.extensions["cachemw"].caching.seconds == seconds


def test_init_app_for_several_applications(app: Flask, page: Counter) -> None:
    cachemw = CacheMW()
    other = Flask("other")
    for one in (app, other):
        one.add_url_rule("/", view_func=lambda: page())
        cachemw.init_app(one)
    assert app.extensions["cachemw"] is not other.extensions["cachemw"]
    assert is_hit(get(app, "/")) is False
    assert is_hit(get(app, "/"))


def test_twice_on_one_application_is_an_error(app: Flask) -> None:
    CacheMW(app)
    with pytest.raises(ImproperlyConfigured, match="has a CacheMW already"):
        CacheMW(app)


def test_what_is_not_flasks_is_an_error() -> None:
    with pytest.raises(TypeError, match=r"takes a Flask application; got.*CacheMiddleware"):
        CacheMW(Flask("site").wsgi_app)  # type: ignore[arg-type]
    with pytest.raises(TypeError, match="takes a Blueprint; got 'blog'"):
        CacheMW().blueprint("blog", timeout=60)  # type: ignore[type-var]


def test_a_wrong_setting_is_an_error_at_once(app: Flask) -> None:
    app.config["CACHEMW_SECONDS"] = "soon"
    with pytest.raises(ImproperlyConfigured, match=r"CACHEMW_SECONDS.*soon"):
        CacheMW(app)


def test_without_init_app_the_error_says_so(app: Flask) -> None:
    cachemw = CacheMW()
    with app.app_context(), pytest.raises(ImproperlyConfigured, match=r"call init_app\(app\) first"):
        cachemw.purge("/")


def test_an_unknown_alias_is_an_error_at_start_up(app: Flask, page: Counter) -> None:
    app.add_url_rule("/early", endpoint="early", view_func=cache_page(60, cache="typo")(lambda: page()))
    with pytest.raises(ImproperlyConfigured, match=r"cache is 'typo'.*allowed: default, slow;"):
        CacheMW(app)

    late = Flask("late")
    CacheMW(late)
    late.add_url_rule("/other", view_func=lambda: page())
    late.add_url_rule("/late", endpoint="late", view_func=cache_page(60, cache="typo")(lambda: page()))
    for _ in range(2):  # no request hides it from the next
        with pytest.raises(ImproperlyConfigured, match="cache is 'typo'"):
            get(late, "/other")


def test_an_alias_of_the_applications_own(app: Flask, page: Counter) -> None:
    cachemw = CacheMW(app, site=False)
    app.add_url_rule("/", view_func=cache_page(60, cache="slow")(lambda: page()))
    get(app, "/")
    assert is_hit(get(app, "/"))
    with app.app_context():
        cachemw.caches["slow"].clear()
    assert not is_hit(get(app, "/"))


def test_without_the_site_only_what_asks_is_cached(app: Flask, page: Counter) -> None:
    CacheMW(app, site=False)
    app.add_url_rule("/plain", endpoint="plain", view_func=lambda: page())
    app.add_url_rule("/cached", view_func=cache_page(60)(lambda: page()))
    for path in ("/plain", "/cached"):
        get(app, path)
    assert "Cache-Status" not in get(app, "/plain").headers
    assert is_hit(get(app, "/cached"))


def test_without_the_site_too_what_one_view_writes_removes_what_another_has_stored(app: Flask, page: Counter) -> None:
    CacheMW(app, site=False)
    app.add_url_rule("/news", "news", cache_page(60)(lambda: page()))
    app.add_url_rule("/news", "change", lambda: ("", 403 if request.args else 200), methods=["POST"])
    app.add_url_rule("/elsewhere", "elsewhere", lambda: ("", 303, {"Location": "/news"}), methods=["POST"])
    client = app.test_client()
    for path in ("/news", "/elsewhere"):
        client.get("/news")
        assert is_hit(client.get("/news"))
        assert client.post("/news?x=1").status_code == 403
        assert is_hit(client.get("/news"))
        assert "Cache-Status" not in client.post(path).headers
        assert not is_hit(client.get("/news"))


def test_hooks_of_cachemw(app: Flask, page: Counter) -> None:
    hooks = Hooks()
    seen = []
    hooks.before_request(lambda request: seen.append(request.path))
    app.add_url_rule("/", view_func=lambda: page())
    CacheMW(app, hooks=hooks)
    get(app, "/")
    get(app, "/")
    assert seen == ["/", "/"]


@pytest.mark.parametrize("given", [{"hooks": Hooks()}, {"rules": [{"path": "/*", "never": True}]}])
def test_what_is_of_the_whole_site_is_an_error_without_it(app: Flask, given: dict[str, Any]) -> None:
    with pytest.raises(ImproperlyConfigured, match=r"hooks and rules.*site=False.*before_request"):
        CacheMW(app, site=False, **given)


def test_the_sessions_cookie_is_known_by_the_name_it_has_here(app: Flask, page: Counter) -> None:
    """A page of chosen lifetime is neither stored from nor given to a request with a session."""
    app.config["SESSION_COOKIE_NAME"] = "biscuit"
    app.add_url_rule("/", view_func=lambda: page())
    CacheMW(app)
    known = app.test_client()
    known.set_cookie("biscuit", "abc")
    assert [known.get("/", buffered=True).text for _ in range(2)] == ["page 1", "page 2"]
    assert get(app, "/").text == get(app, "/").text == "page 3"
    assert known.get("/", buffered=True).text == "page 4"


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"policy": "django"}, "policy is 'django'; allowed: a Policy"),
        ({"site": "perhaps"}, "site is 'perhaps'; allowed: true or false"),
        ({"inside": "x"}, "inside is 'x'; allowed: true or false"),
        ({"static": "x"}, "static is 'x'; allowed: true or false"),
    ],
)
def test_an_option_that_cannot_be_used_is_named(app: Flask, options: dict[str, Any], message: str) -> None:
    with pytest.raises(ImproperlyConfigured, match=message):
        CacheMW(app, **options)


def test_a_policy_without_sessions_stays_so(app: Flask, page: Counter) -> None:
    app.config["SESSION_COOKIE_NAME"] = "biscuit"
    app.add_url_rule("/", view_func=lambda: page())
    CacheMW(app, policy=Policy(session_cookies=()))
    known = app.test_client()
    known.set_cookie("biscuit", "abc")
    known.get("/", buffered=True)
    assert is_hit(known.get("/", buffered=True))


def test_a_session_is_never_shown_to_a_stranger(app: Flask) -> None:
    @app.get("/login/<name>")
    def login(name: str) -> str:
        session["name"] = name
        flash(f"hello {name}")
        return "welcome"

    @app.get("/")
    @cache_page(60)
    def home() -> str:
        return f"{session.get('name')} {get_flashed_messages()}"

    CacheMW(app)
    anne, stranger = app.test_client(), app.test_client()
    anne.get("/login/anne", buffered=True)
    assert anne.get("/", buffered=True).text == "anne ['hello anne']"
    assert anne.get("/", buffered=True).text == "anne []"
    assert stranger.get("/", buffered=True).text == "None []"
    assert anne.get("/", buffered=True).text == "anne []"


# -- blueprints -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("site", [True, False], ids=["in a cached site", "alone"])
def test_a_blueprint_has_its_own_time(app: Flask, page: Counter, site: bool, clock: Clock) -> None:
    blog = Blueprint("blog", __name__, url_prefix="/blog")
    blog.add_url_rule("/<int:number>", view_func=lambda number: page(), endpoint="entry")
    app.add_url_rule("/", view_func=lambda: page())
    cachemw = CacheMW(app, site=site, seconds=10)
    assert cachemw.blueprint(blog, timeout=60) is blog
    app.register_blueprint(blog)
    assert get(app, "/blog/1").headers["Cache-Control"] == "max-age=60"
    get(app, "/")
    clock.advance(30)
    assert is_hit(get(app, "/blog/1"))
    assert not is_hit(get(app, "/"))
    assert not is_hit(get(app, "/blog/2"))


def test_hooks_of_the_blueprint_guard_and_see_its_stored_pages(app: Flask, page: Counter) -> None:
    """Whether they are registered before the cache is told of the blueprint or after."""
    api = Blueprint("api", __name__, url_prefix="/api")
    api.add_url_rule("/", view_func=lambda: page(), endpoint="view")
    cachemw = CacheMW(site=False)
    cachemw.blueprint(api, timeout=60)
    ended = []

    @api.before_request
    def guard() -> Any:
        return None if request.headers.get("X-Key") == "right" else ("no", 403)

    @api.after_request
    def mark(response: Response) -> Response:
        response.headers.add("X-Mark", "1")
        return response

    @api.teardown_request
    def end(error: BaseException | None) -> None:
        ended.append(error)

    app.register_blueprint(api)
    cachemw.init_app(app)

    @app.before_request
    def also_guard() -> Any:
        return None if request.headers.get("X-Other-Key") == "right" else ("no", 401)

    keys = {"X-Key": "right", "X-Other-Key": "right"}
    assert get(app, "/api/", headers=keys).text == "page 1"
    hit = get(app, "/api/", headers=keys)
    assert is_hit(hit)
    assert hit.headers.getlist("X-Mark") == ["1"]
    assert get(app, "/api/", headers={"X-Other-Key": "right"}).status_code == 403
    assert get(app, "/api/", headers={"X-Key": "right"}).status_code == 401
    assert ended == [None] * 4


def test_nested_blueprints_are_their_parents_unless_told_otherwise(app: Flask, page: Counter) -> None:
    outer, inner, own = (Blueprint(name, __name__, url_prefix=f"/{name}") for name in ("outer", "inner", "own"))
    for one in (outer, inner, own):
        one.add_url_rule("/", view_func=lambda: page(), endpoint="view")

    @inner.before_request
    def guard() -> Any:
        return None if request.headers.get("X-Key") == "right" else ("no", 403)

    cachemw = CacheMW(app, site=False)
    cachemw.blueprint(outer, timeout=60)
    cachemw.blueprint(own, timeout=5)
    outer.register_blueprint(inner)
    outer.register_blueprint(own)
    app.register_blueprint(outer)
    key = {"X-Key": "right"}
    assert get(app, "/outer/inner/", headers=key).headers["Cache-Control"] == "max-age=60"
    assert is_hit(get(app, "/outer/inner/", headers=key))
    assert get(app, "/outer/inner/").status_code == 403
    assert get(app, "/outer/own/").headers["Cache-Control"] == "max-age=5"


def test_a_view_knows_better_than_its_blueprint(app: Flask, page: Counter) -> None:
    blog = Blueprint("blog", __name__)
    blog.add_url_rule("/", view_func=cache_page(5)(lambda: page()), endpoint="view")
    CacheMW(app, site=False).blueprint(blog, timeout=60)
    app.register_blueprint(blog)
    assert get(app, "/").headers["Cache-Control"] == "max-age=5"
    assert is_hit(get(app, "/"))


def test_errors_and_writes_of_a_blueprint(app: Flask, page: Counter) -> None:
    blog = Blueprint("blog", __name__)

    @blog.route("/<int:number>", methods=["GET", "POST"])
    def entry(number: int) -> Any:
        return (page(), 201) if request.method == "POST" else 1 // number and page()

    @app.errorhandler(ZeroDivisionError)
    def sorry(error: Exception) -> Any:
        return "sorry", 503

    cachemw = CacheMW(app, site=False)
    cachemw.blueprint(blog, timeout=60, tags=lambda number: [f"entry:{number}"])
    app.register_blueprint(blog)
    assert [get(app, "/0").status_code for _ in range(2)] == [503, 503]
    assert get(app, "/1").text == get(app, "/1").text == "page 1"
    app.test_client().post("/1")
    assert get(app, "/1").text == "page 3"
    with app.app_context():
        cachemw.purge(tags=["entry:1"])
    assert get(app, "/1").text == "page 4"


def test_a_blueprint_with_an_unknown_alias_is_an_error_at_start_up(app: Flask) -> None:
    blog = Blueprint("blog", __name__)
    CacheMW(app).blueprint(blog, timeout=60, cache="typo")
    app.register_blueprint(blog)
    with pytest.raises(ImproperlyConfigured, match=r"the blueprint 'blog'.*'typo'"):
        get(app, "/")


def test_concurrent_first_requests_register_once(app: Flask, page: Counter) -> None:
    blog = Blueprint("blog", __name__)
    blog.add_url_rule("/", view_func=lambda: page(), endpoint="view")
    CacheMW(app, site=False).blueprint(blog, timeout=60)
    app.register_blueprint(blog)
    threads = [threading.Thread(target=get, args=(app, "/")) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(10)
    assert page.calls == 1
    assert len(app.before_request_funcs["blog"]) == 1


def test_a_request_that_comes_while_another_starts_the_application(app: Flask, page: Counter) -> None:
    CacheMW(app, site=False)
    app.add_url_rule("/", view_func=lambda: page())
    start: Any = app.wsgi_app
    begun = []

    class Meanwhile:
        """The lock, of which the other one has just let go."""

        def __enter__(self) -> None:
            begun.append(1)
            start._started = True

        def __exit__(self, *exc_info: object) -> None:
            begun.append(2)

    start._lock = Meanwhile()
    start._start = None
    assert get(app, "/").text == "page 1"
    assert begun == [1, 2]


# -- purging ----------------------------------------------------------------------------------------------------------


@pytest.fixture
def shop(app: Flask, page: Counter) -> tuple[Flask, CacheMW]:
    app.add_url_rule("/site", view_func=lambda: page(), endpoint="site")
    app.add_url_rule("/own", view_func=cache_page(60, cache="slow")(lambda: page()), endpoint="own")
    app.add_url_rule("/prefix", view_func=cache_page(60, key_prefix="p")(lambda: page()), endpoint="prefix")
    cachemw = CacheMW(app)

    @app.post("/change/<name>")
    def change(name: str) -> str:
        return str(cachemw.purge(url_for(name)))

    return app, cachemw


@pytest.mark.parametrize("name", ["site", "own", "prefix"])
@pytest.mark.parametrize("base", ["http://localhost", "https://shop.example:8443", "http://localhost/mounted"])
def test_purging_what_url_for_gives(shop: tuple[Flask, CacheMW], name: str, base: str) -> None:
    app, _ = shop
    for other in ("site", "own", "prefix"):
        get(app, f"/{other}", base_url=base)
        assert is_hit(get(app, f"/{other}", base_url=base))
    assert int(app.test_client().post(f"/change/{name}", base_url=base).text) > 0
    assert {other: is_hit(get(app, f"/{other}", base_url=base)) for other in ("site", "own", "prefix")} == {
        other: other != name for other in ("site", "own", "prefix")
    }


def test_purging_outside_of_a_request(shop: tuple[Flask, CacheMW]) -> None:
    app, cachemw = shop
    get(app, "/site", base_url="http://shop.example")
    with app.app_context():
        with pytest.raises(ValueError, match=r"'/site'.*SERVER_NAME"):
            cachemw.purge("/site")
        app.config["SERVER_NAME"] = "shop.example"
        assert cachemw.purge("/site") > 0
    assert not is_hit(get(app, "/site", base_url="http://shop.example"))
    with app.app_context():
        app.config["PREFERRED_URL_SCHEME"] = "https"
        cachemw.purge("/site")
    assert is_hit(get(app, "/site", base_url="http://shop.example"))
    with app.app_context():
        cachemw.purge("//shop.example/site", "http://shop.example/site")
    assert not is_hit(get(app, "/site", base_url="http://shop.example"))


def test_purging_where_no_application_is_at_work(shop: tuple[Flask, CacheMW]) -> None:
    """In a script or a shell it is that of the constructor."""
    app, cachemw = shop
    get(app, "/site", base_url="http://shop.example")
    assert cachemw.caches["default"] is app.extensions["cachemw"].caches["default"]
    with pytest.raises(ValueError, match=r"'/site'.*SERVER_NAME"):
        cachemw.purge("/site")
    assert cachemw.purge("http://shop.example/site") > 0
    assert not is_hit(get(app, "/site", base_url="http://shop.example"))
    with pytest.raises(RuntimeError, match="application context"):
        CacheMW().purge("http://shop.example/site")


def test_purging_in_a_process_that_has_served_nothing_yet(store: LocMemCache, page: Counter) -> None:
    """One of several workers, or a job: pages that have a cache or a key prefix of their own go, too."""

    def process() -> tuple[Flask, CacheMW]:
        app = Flask("site")
        app.config["CACHES"] = {
            alias: {"BACKEND": "cachemw.backends.locmem.LocMemCache", "LOCATION": f"{alias}-{store.location}"}
            for alias in ("default", "slow")
        }
        cachemw = CacheMW(app, site=False)

        class Methods(MethodView):
            @cache_page(60, key_prefix="methods")
            def get(self) -> str:
                return page()

        blueprint = Blueprint("blog", "blog", url_prefix="/blog")
        blueprint.add_url_rule("/entry", view_func=lambda: page(), endpoint="entry")
        cachemw.blueprint(blueprint, timeout=60, cache="slow")
        app.register_blueprint(blueprint)
        app.add_url_rule("/own", view_func=cache_page(60, cache="slow")(lambda: page()), endpoint="own")
        app.add_url_rule("/prefix", view_func=cache_page(60, key_prefix="p")(lambda: page()), endpoint="prefix")
        app.add_url_rule("/methods", view_func=Methods.as_view("methods"))
        return app, cachemw

    (app, _), (_, elsewhere) = process(), process()
    paths = ("/own", "/prefix", "/blog/entry", "/methods")
    for path in paths:
        get(app, path)
        assert is_hit(get(app, path))
    assert elsewhere.purge(*(f"http://localhost{path}" for path in paths)) >= len(paths)
    assert not any(is_hit(get(app, path)) for path in paths)


def test_purging_behind_a_proxy_fix_that_the_cache_is_around(shop: tuple[Flask, CacheMW], page: Counter) -> None:
    from werkzeug.middleware.proxy_fix import ProxyFix

    app = Flask("behind")
    app.wsgi_app = ProxyFix(app.wsgi_app, x_host=1, x_proto=1)  # type: ignore[method-assign]
    app.add_url_rule("/site", view_func=lambda: page(), endpoint="site")
    cachemw = CacheMW(app, cache="locmem://extension-proxy-fix")
    app.add_url_rule("/change", view_func=lambda: str(cachemw.purge(url_for("site"))), methods=["POST"])
    sent = {"X-Forwarded-Host": "shop.example", "X-Forwarded-Proto": "https"}
    get(app, "/site", headers=sent)
    assert is_hit(get(app, "/site", headers=sent))
    app.test_client().post("/change", headers=sent)
    assert not is_hit(get(app, "/site", headers=sent))


def test_what_cannot_be_purged(shop: tuple[Flask, CacheMW]) -> None:
    app, cachemw = shop
    with app.test_request_context():
        with pytest.raises(ValueError, match="begins with '/'"):
            cachemw.purge("site")
        with pytest.raises(TypeError, match="a list of tags"):
            cachemw.purge(tags="site")


async def _apurge(cachemw: CacheMW) -> int:
    return await cachemw.apurge("/own", tags=iter(["t"]))


def test_purging_in_a_coroutine(shop: tuple[Flask, CacheMW]) -> None:
    app, cachemw = shop
    get(app, "/own")
    with app.test_request_context():
        assert app.ensure_sync(_apurge)(cachemw) > 0
    assert not is_hit(get(app, "/own"))


def test_a_soft_purge_keeps_the_page_as_a_stale_one(app: Flask, page: Counter) -> None:
    @app.get("/")
    @cache_page(60)
    def view() -> Any:
        if page.calls == 1:
            page()
            raise OSError("the database is gone")
        return page(), {"Cache-Control": "stale-if-error=60"}

    cachemw = CacheMW(app)
    get(app, "/")
    with app.test_request_context():
        cachemw.purge("/", soft=True)
    assert get(app, "/").text == "page 1"
    assert page.calls == 2
    assert get(app, "/").text == "page 3"


# -- languages and time zones -----------------------------------------------------------------------------------------


@pytest.fixture(params=["said", "not said"])
def babel(app: Flask, request: pytest.FixtureRequest) -> Flask:
    if request.param == "said":
        app.config["USE_I18N"] = app.config["USE_TZ"] = True
    return with_babel(app)


def with_babel(app: Flask) -> Flask:
    Babel(
        app,
        locale_selector=lambda: request.accept_languages.best_match(["en", "de", "pt_BR"]),
        timezone_selector=lambda: g.get("zone"),
    )

    @app.before_request
    def choose() -> None:
        g.zone = request.cookies.get("zone")

    return app


LANGUAGES = [{"Accept-Language": "de"}, {"Accept-Language": "en"}, {"Accept-Language": "pt-BR"}]


@pytest.mark.parametrize("how", ["site", "view", "blueprint"])
def test_the_language_that_babel_chooses_is_part_of_the_key(babel: Flask, page: Counter, how: str) -> None:
    cachemw = CacheMW(babel, site=how == "site")

    def view() -> str:
        return f"{get_locale()} {get_timezone()} {page()}"

    blog = Blueprint("blog", __name__)
    blog.add_url_rule("/", view_func=cache_page(60)(view) if how == "view" else view)
    if how == "blueprint":
        cachemw.blueprint(blog, timeout=60)
    babel.register_blueprint(blog)
    for headers in LANGUAGES:
        first, second = get(babel, "/", headers=headers), get(babel, "/", headers=headers)
        assert is_hit(second)
        assert first.text == second.text
        assert first.text.startswith(headers["Accept-Language"].replace("-", "_"))
    assert page.calls == 3
    assert is_hit(get(babel, "/", headers={"Accept-Language": "de-AT, de;q=0.9"}))
    client = babel.test_client()
    client.set_cookie("zone", "Europe/Berlin")
    assert client.get("/", headers=LANGUAGES[0], buffered=True).text == "de Europe/Berlin page 4"
    assert is_hit(client.get("/", headers=LANGUAGES[0], buffered=True))


@pytest.mark.parametrize(
    ("config", "variables"),
    [({"USE_I18N": False, "CACHEMW_USE_TZ": "no"}, {}), ({"USE_TZ": 0}, {"CACHEMW_USE_I18N": "0"})],
)
def test_who_says_that_all_are_shown_one_language_is_obeyed(
    app: Flask, page: Counter, monkeypatch: pytest.MonkeyPatch, config: dict[str, Any], variables: dict[str, str]
) -> None:
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    app.config.update(config)
    app.add_url_rule("/", view_func=lambda: page())
    CacheMW(with_babel(app))
    get(app, "/", headers=LANGUAGES[0])
    assert is_hit(get(app, "/", headers=LANGUAGES[1]))


@pytest.mark.parametrize("site", [True, False])
def test_a_babel_that_comes_after_the_cache_is_an_error(app: Flask, page: Counter, site: bool) -> None:
    app.config["USE_TZ"] = False
    app.add_url_rule("/", view_func=lambda: page())
    CacheMW(app, site=site)
    with_babel(app)
    with pytest.raises(ImproperlyConfigured, match=r"locale_selector.*after Babel\(app\), or set USE_I18N"):
        get(app, "/")


def test_a_babel_that_chooses_nothing_changes_nothing(app: Flask, page: Counter) -> None:
    Babel(app)
    app.add_url_rule("/", view_func=lambda: page())
    assert CacheMW(app).caches
    assert app.extensions["cachemw"].caching.line.properties == ()


def test_a_language_that_a_before_function_activates(app: Flask, page: Counter) -> None:
    app.config["CACHEMW_USE_I18N"] = True

    @app.before_request
    def choose() -> None:
        activate_language(request.args.get("lang", "en") if "lang" in request.args else "en")

    @app.get("/")
    def view() -> str:
        return f"{get_language()} {page()}"

    CacheMW(app)
    assert get(app, "/?lang=de").text == get(app, "/?lang=de").text == "de page 1"
    assert get(app, "/").text == "en page 2"


def test_inside_every_before_function_guards_the_site(app: Flask, page: Counter) -> None:
    """The application's, whenever it was registered, and the blueprint's."""
    blog = Blueprint("blog", __name__, url_prefix="/blog")
    for one in (app, blog):
        one.add_url_rule("/", view_func=lambda: page(), endpoint="view")
    CacheMW(app, inside=True)

    @app.before_request
    def guard() -> Any:
        return None if request.headers.get("X-Key") == "right" else ("no", 401)

    @blog.before_request
    def guard_blog() -> Any:
        return None if request.headers.get("X-Blog-Key") == "right" else ("no", 403)

    app.register_blueprint(blog)
    key, both = {"X-Key": "right"}, {"X-Key": "right", "X-Blog-Key": "right"}
    assert get(app, "/", headers=key).text == get(app, "/", headers=key).text == "page 1"
    assert get(app, "/").status_code == 401
    assert get(app, "/blog/", headers=both).text == get(app, "/blog/", headers=both).text == "page 2"
    assert get(app, "/blog/", headers=key).status_code == 403
    assert get(app, "/missing", headers=key).status_code == 404


# -- the command line -------------------------------------------------------------------------------------------------


def test_the_commands_work_on_the_applications_own_stores(app: Flask, page: Counter, tmp_path: Path) -> None:
    app.config["CACHES"] = {"default": f"file://{tmp_path}/pages"}
    app.add_url_rule("/", view_func=lambda: page())
    CacheMW(app)
    get(app, "/")
    assert is_hit(get(app, "/"))
    result = app.test_cli_runner().invoke(args=["cachemw", "clear", "--yes", "default"])
    assert result.exit_code == 0, result.output
    assert not is_hit(get(app, "/"))
    result = app.test_cli_runner().invoke(args=["cachemw", "clear", "--yes", "typo"])
    assert result.exit_code == 1
    assert "typo" in result.output
    assert "Look after this application" in app.test_cli_runner().invoke(args=["cachemw", "--help"]).output


def test_the_core_needs_no_flask() -> None:
    code = "import sys; sys.modules['flask'] = None; import cachemw; cachemw.cache_page(60)(lambda: None)"
    assert subprocess.run([sys.executable, "-c", code], timeout=60).returncode == 0
