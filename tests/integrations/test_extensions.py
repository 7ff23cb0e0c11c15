"""Extensions of Flask, Bottle and Pyramid: what they make pages depend on, and do not say in Vary."""

from __future__ import annotations

import asyncio
import itertools
from collections.abc import Callable, Iterable, Iterator
from http.cookies import SimpleCookie
from itertools import product
from types import MappingProxyType
from typing import Any

import httpx
import pytest
from flask import Blueprint, Flask, Response, g, request, session, stream_with_context
from flask.sessions import SecureCookieSession, SecureCookieSessionInterface, SessionInterface, SessionMixin
from werkzeug.datastructures import CallbackDict
from werkzeug.test import Client, run_wsgi_app
from werkzeug.wrappers import Request

from cachemw import CacheMiddleware, FetchFromCacheMiddleware, Hooks, Policy, UpdateCacheMiddleware, cache_page
from cachemw.backends.locmem import LocMemCache
from cachemw.integrations.flask import CacheMW

_numbers = itertools.count()
Around = Callable[[Any], Any]


def _store() -> LocMemCache:
    return LocMemCache(f"extensions-{next(_numbers)}")


def _halves(app: Any) -> Any:
    store = _store()
    return UpdateCacheMiddleware(FetchFromCacheMiddleware(app, cache=store), cache=store)


def _extended(app: Any, **options: Any) -> Any:
    CacheMW(app, cache=_store(), static=False, **options)
    return app


AROUND: dict[str, Around] = {
    "whole": lambda app: CacheMiddleware(app, cache=_store()),
    "halves": _halves,
}
AROUND_FLASK: dict[str, Around] = {
    **AROUND,
    "extension": _extended,
    "inside": lambda app: _extended(app, inside=True),
}


def ask(site: Any, path: str = "/", **fields: str) -> Any:
    headers = {name.replace("_", "-"): value for name, value in fields.items()}
    return Client(site, use_cookies=False).get(path, headers=headers, buffered=True)


def is_hit(response: Any) -> bool:
    return "; hit" in response.headers["Cache-Status"]


# -- what a visitor accepts -------------------------------------------------------------------------------------------

NEGOTIATED: dict[str, tuple[Callable[[], Any], list[str]]] = {
    "Accept-Language": (lambda: request.accept_languages.best_match(["en", "de"]), ["de", "en", "de-AT,en;q=0.1"]),
    "Accept": (lambda: request.accept_mimetypes.best_match(["text/html", "text/json"]), ["text/json", "text/html"]),
    "Accept-Charset": (lambda: request.accept_charsets.best_match(["utf-8", "latin-1"]), ["latin-1", "utf-8"]),
}


@pytest.mark.parametrize("said", ["", "public, max-age=60"])
@pytest.mark.parametrize("field", NEGOTIATED)
@pytest.mark.parametrize("around", AROUND_FLASK)
def test_what_was_chosen_by_what_a_visitor_accepts_is_for_who_accepts_it(around: str, field: str, said: str) -> None:
    """Flask-Babel's selectors, the representations of Flask-RESTful and Flask-RESTX."""
    app = Flask(__name__)
    choose, values = NEGOTIATED[field]

    @app.before_request
    def select() -> None:
        g.chosen = choose()

    @app.get("/")
    def page() -> Any:
        return str(g.chosen), {"Cache-Control": said} if said else {}

    site = AROUND_FLASK[around](app)
    for value in values * 2:
        response = ask(site, **{field: value})
        assert response.text == ask(app, **{field: value}).text
        assert response.headers["Vary"] == field
    assert is_hit(response)


@pytest.mark.parametrize("field", [*NEGOTIATED, "User-Agent"])
def test_so_it_is_in_one_view(field: str) -> None:
    app = Flask(__name__)
    choose, values = {**NEGOTIATED, "User-Agent": (lambda: request.user_agent.string, ["phone", "desk"])}[field]

    @app.get("/")
    @cache_page(60, cache=_store())
    def page() -> str:
        return str(choose())

    first = [ask(app, **{field: value}).text for value in values]
    again = [ask(app, **{field: value}) for value in values]
    assert [response.text for response in again] == first
    assert len(set(first)) > 1
    assert all(is_hit(response) for response in again)
    assert again[0].headers["Vary"] == field


def test_what_was_chosen_while_the_body_was_made_is_not_stored() -> None:
    app = Flask(__name__)

    @app.get("/")
    def page() -> Any:
        def body() -> Iterator[str]:
            yield "in "
            yield str(request.accept_languages.best)

        return app.response_class(stream_with_context(body()))

    site = CacheMiddleware(app, cache=_store())
    assert [ask(site, Accept_Language=language).text for language in ("de", "en")] == ["in de", "in en"]


# -- what a visitor brings along --------------------------------------------------------------------------------------


@pytest.mark.parametrize("where", ["before", "view"])
@pytest.mark.parametrize("around", ["extension", "inside"])
def test_a_page_made_by_a_cookie_that_nobody_knows_is_for_who_has_it(around: str, where: str) -> None:
    """A theme, a currency, a consent, a variant under test: Flask's session alone is no reason to vary on cookies."""
    app = Flask(__name__)
    app.secret_key = "k"

    @app.before_request
    def select() -> None:
        if where == "before" and request.path == "/":
            g.theme = request.cookies.get("theme", "light")

    @app.get("/")
    def page() -> str:
        return str(g.theme if where == "before" else request.cookies.get("theme", "light"))

    app.add_url_rule("/leaflet", view_func=lambda: "the same for all")
    site = AROUND_FLASK[around](app)
    for _ in range(2):
        for theme in ("dark", "light", "dark"):
            response = ask(site, Cookie=f"theme={theme}")
            assert response.text == theme
            assert response.headers["Vary"] == "Cookie"
    assert is_hit(response)
    ask(site, "/leaflet", Cookie="theme=dark")
    assert is_hit(ask(site, "/leaflet", Cookie="theme=light"))


def test_what_says_for_how_long_is_for_all_whatever_was_counted_before() -> None:
    app = Flask(__name__)
    app.before_request(
        lambda: g.setdefault("counted", (request.cookies.get("_ga"), request.user_agent.string)) and None
    )
    app.add_url_rule("/", view_func=lambda: ("page", {"Cache-Control": "max-age=60"}))
    app.add_url_rule("/timed", view_func=cache_page(60)(lambda: "page"), endpoint="timed")
    site = _extended(app)
    for path in ("/", "/timed"):
        ask(site, path, Cookie="_ga=1", User_Agent="a")
        assert is_hit(ask(site, path, Cookie="_ga=2", User_Agent="b"))


def test_a_log_of_browsers_makes_no_page_for_each() -> None:
    """Made of functions that come after the page; a view and a stream are pages for browsers as ever."""
    app = Flask(__name__)
    part = Blueprint("part", __name__)
    log: list[str] = []

    @app.after_request
    @part.after_request
    def note(response: Response) -> Response:
        log.append(request.user_agent.string)
        return response

    def stream() -> Iterator[str]:
        yield "on "
        yield request.user_agent.string

    views: dict[str, Callable[[], Any]] = {
        "all": lambda: "page",
        "own": lambda: f"on {request.user_agent.string}",
        "stream": lambda: Response(stream_with_context(stream())),
    }
    for name, view in views.items():
        app.add_url_rule(f"/{name}", name, view)
        part.add_url_rule(f"/part/{name}", name, view)
    app.register_blueprint(part)
    site = _extended(app)
    for under in ("", "/part"):
        assert ask(site, f"{under}/all", User_Agent="a").text == "page"
        assert is_hit(ask(site, f"{under}/all", User_Agent="b"))
        for browser, name in product("ab", ["own", "stream"]):
            assert ask(site, f"{under}/{name}", User_Agent=browser).text == f"on {browser}"
    assert set(log) == {"a", "b"}


def read_by_webob(environ: Any) -> Any:
    from webob import Request as WebObRequest  # type: ignore[import-untyped]

    return WebObRequest(environ).cookies.get("theme")


def read_by_bottle(environ: Any) -> Any:
    from bottle import BaseRequest  # type: ignore[import-untyped]

    return BaseRequest(environ).get_cookie("theme")


def read_by_werkzeug(environ: Any) -> Any:
    seen = Request(environ)
    return seen.user_agent.string, seen.accept_languages.best


@pytest.mark.filterwarnings("ignore::DeprecationWarning")  # of the frameworks' own
@pytest.mark.parametrize("read", [read_by_webob, read_by_bottle, read_by_werkzeug])
@pytest.mark.parametrize("around", AROUND)
def test_what_was_read_further_out_the_page_was_not_chosen_by(around: str, read: Callable[[Any], Any]) -> None:
    """A log, say. Between the halves it counts: what is further in may go by it."""

    def app(environ: Any, start_response: Any) -> Any:
        start_response("200 OK", [("Content-Type", "text/plain")])
        return [b"page"]

    def reading(inner: Any) -> Any:
        def middleware(environ: Any, start_response: Any) -> Any:
            read(environ)
            return inner(environ, start_response)

        return middleware

    site = reading(AROUND[around](app))
    ask(site, Cookie="theme=dark", User_Agent="a", Accept_Language="de")
    answer = ask(site, Cookie="theme=light", User_Agent="b", Accept_Language="en")
    assert is_hit(answer)
    assert "Vary" not in answer.headers
    if around == "halves":
        store = _store()
        site = UpdateCacheMiddleware(reading(FetchFromCacheMiddleware(app, cache=store)), cache=store)
        assert "Vary" in ask(site, Cookie="theme=dark").headers


def test_what_a_hook_of_the_cache_looks_at_is_nothing_that_the_page_was_chosen_by() -> None:
    """It runs before each hit, too, whatever is further in."""
    hooks, calls = Hooks(), []

    @hooks.before_request
    def no_robots(request: Any) -> Any:
        if "robot" in request.user_agent.string or request.accept_mimetypes.best == "image/robot":
            return Response("none for robots", 403)
        return None

    def app(environ: Any, start_response: Any) -> Any:
        calls.append(environ)
        start_response("200 OK", [("Content-Type", "text/plain")])
        return [b"page"]

    site = CacheMiddleware(app, cache=_store(), hooks=hooks)
    for browser in "ab":
        assert ask(site, User_Agent=browser, Accept=f"text/{browser}").text == "page"
    assert ask(site, User_Agent="robot").status_code == 403
    assert len(calls) == 1


@pytest.mark.parametrize("around", AROUND_FLASK)
def test_a_page_for_phones_is_not_one_for_desks(around: str) -> None:
    app = Flask(__name__)
    app.add_url_rule("/", view_func=lambda: "narrow" if "Phone" in request.user_agent.string else "wide")
    site = AROUND_FLASK[around](app)
    for _ in range(2):
        assert ask(site, User_Agent="Phone").text == "narrow"
        assert ask(site, User_Agent="Desk").text == "wide"


def on_bottle() -> Any:
    import bottle

    app = bottle.Bottle()
    app.get("/", callback=lambda: f"hello {bottle.request.get_cookie('member', secret='k')}")
    app.get("/leaflet", callback=lambda: "the same for all")

    @app.get("/login")  # type: ignore[untyped-decorator]
    def login() -> str:
        bottle.response.set_cookie("member", bottle.request.query["name"], secret="k", path="/")
        return "welcome"

    return app


def on_pyramid() -> Any:
    from pyramid.config import Configurator  # type: ignore[import-untyped]
    from pyramid.response import Response  # type: ignore[import-untyped]
    from pyramid.session import SignedCookieSessionFactory  # type: ignore[import-untyped]

    def login(request: Any) -> Any:
        request.session["name"] = request.params["name"]
        return Response("welcome")

    views = {
        "": lambda request: Response(f"hello {request.session.get('name')}"),
        "leaflet": lambda request: Response("the same for all"),
        "login": login,
    }
    with Configurator() as config:
        config.set_session_factory(SignedCookieSessionFactory("k", cookie_name="biscuit", reissue_time=None))
        for name, view in views.items():
            config.add_route(name, f"/{name}")
            config.add_view(view, route_name=name)
        return config.make_wsgi_app()


class Session(dict[str, Any]):
    """Of Beaker: it knows whether it was looked at."""

    opened = False

    def accessed(self) -> bool:
        return self.opened

    def get(self, *arguments: Any) -> Any:
        self.opened = True
        return super().get(*arguments)


def on_ombott() -> Any:
    """What py4web stands on: a session in a cookie by a name of one's own, read where a page uses it."""

    def app(environ: Any, start_response: Any) -> Iterable[bytes]:
        fields = [("Content-Type", "text/plain")]
        if environ["PATH_INFO"] == "/login":
            fields.append(("Set-Cookie", f"shopper={environ['QUERY_STRING'].partition('=')[2]}"))
        if environ["PATH_INFO"] == "/":
            kept = environ["ombott.request.cookies"] = SimpleCookie(environ.get("HTTP_COOKIE", ""))
            body = f"hello {kept['shopper'].value if kept else None}"
        else:
            body = "the same for all"
        start_response("200 OK", fields)
        return [body.encode()]

    return app


def on_beaker() -> Any:
    """Its middleware, in ten lines."""

    def app(environ: Any, start_response: Any) -> Iterable[bytes]:
        kept = environ["beaker.session"] = Session(name=environ.get("HTTP_COOKIE", "").partition("=")[2] or None)
        fields = [("Content-Type", "text/plain")]
        if environ["PATH_INFO"] == "/login":
            fields.append(("Set-Cookie", f"biscuit={environ['QUERY_STRING'].partition('=')[2]}"))
        start_response("200 OK", fields)
        return [b"the same for all" if environ["PATH_INFO"] != "/" else f"hello {kept.get('name')}".encode()]

    return app


def on_werkzeug() -> Any:
    """By its requests alone."""

    @Request.application
    def app(asked: Request) -> Any:
        body = "the same for all" if asked.path != "/" else f"hello {asked.cookies.get('shopper')}"
        response = Response(body, content_type="text/plain")
        if asked.path == "/login":
            response.set_cookie("shopper", asked.args["name"])
        return response

    return app


def on_flask_without_sessions() -> Any:
    """Without a key there are none, and Flask looks at no cookie itself."""
    app = Flask(__name__)
    app.add_url_rule("/", view_func=lambda: f"hello {request.cookies.get('shopper')}")
    app.add_url_rule("/leaflet", "leaflet", lambda: "the same for all")

    @app.get("/login")
    def login() -> Any:
        response = Response("welcome")
        response.set_cookie("shopper", request.args["name"])
        return response

    return app


@pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::UserWarning")  # of the frameworks' own
@pytest.mark.parametrize("around", AROUND)
@pytest.mark.parametrize("make", [on_bottle, on_ombott, on_pyramid, on_beaker, on_werkzeug, on_flask_without_sessions])
def test_a_page_that_read_cookies_is_another_one_for_each(make: Callable[[], Any], around: str) -> None:
    """Signed cookies and sessions by a name that nobody could know."""
    site = AROUND[around](make())
    visitors = {name: Client(site) for name in ("alice", "bobby", "None")}
    for name in ("alice", "bobby"):
        visitors[name].get("/login", query_string={"name": name})
    for _ in range(2):
        for name, visitor in visitors.items():
            response = visitor.get("/", buffered=True)
            assert response.text == f"hello {name}"
            assert "Cookie" in response.headers["Vary"]
    assert is_hit(response)
    visitors["alice"].get("/leaflet", buffered=True)
    assert is_hit(visitors["bobby"].get("/leaflet", buffered=True))


@pytest.mark.parametrize("late", [False, True])
@pytest.mark.parametrize("own", [False, True])
def test_flask_reads_cookies_itself_where_it_has_sessions(own: bool, late: bool) -> None:
    """Which says nothing about the page, wherever it begins: a middleware further in may hold its head back."""
    app = Flask(__name__)
    app.add_url_rule("/", view_func=lambda: "the same for all")
    if own:
        app.session_interface = Interface()
    else:
        app.secret_key = "k"

    def holding(environ: Any, start_response: Any) -> Any:
        body, status, headers = run_wsgi_app(app, environ, buffered=True)
        start_response(status, list(headers))
        return body

    site = CacheMiddleware(holding if late else app, cache=_store())
    for theme in ("dark", "light"):
        answer = ask(site, Cookie=f"theme={theme}")
    assert is_hit(answer)


def test_a_session_that_cannot_be_asked_may_have_been_read() -> None:
    class Broken:
        def accessed(self) -> bool:
            raise ConnectionError

    def app(environ: Any, start_response: Any) -> Iterable[bytes]:
        environ["beaker.session"] = Broken()
        start_response("200 OK", [("Content-Type", "text/plain")])
        return [b"page"]

    assert ask(CacheMiddleware(app, cache=_store())).headers["Vary"] == "Cookie"


QUART_APPLICATION: dict[str, Around] = {
    "itself": lambda app: CacheMiddleware(app, cache=_store()),
    "what it calls": lambda app: CacheMiddleware(app.asgi_app, cache=_store()),
}


@pytest.mark.parametrize("around", QUART_APPLICATION)
def test_the_session_of_quart_is_known_by_the_name_it_has(around: str) -> None:
    """It says Vary of a session that holds something alone, and so nothing to those who have none yet."""
    import quart

    app = quart.Quart("extensions")
    app.secret_key, app.config["SESSION_COOKIE_NAME"] = "k", "biscuit"

    @app.get("/login")
    async def login() -> str:
        quart.session["name"] = quart.request.args["name"]
        return "welcome"

    @app.get("/")
    async def home() -> str:
        return f"hello {quart.session.get('name')}"

    site = QUART_APPLICATION[around](app)

    async def visit() -> list[str]:
        seen = []
        for name in ("None", "Alice", "Bob"):
            async with httpx.AsyncClient(transport=httpx.ASGITransport(site), base_url="http://example") as client:
                if name != "None":
                    await client.get("/login", params={"name": name})
                seen += [(await client.get("/")).text for _ in range(2)]
        return seen

    assert asyncio.run(visit()) == [f"hello {name}" for name in ("None", "Alice", "Bob") for _ in range(2)]


def test_a_policy_that_minds_no_sessions_is_left_alone() -> None:
    app = Flask(__name__)
    app.config["JWT_ACCESS_COOKIE_NAME"] = "biscuit"
    app.add_url_rule("/", view_func=lambda: "page")
    site = CacheMiddleware(app.wsgi_app, cache=_store())
    assert "detail=session" in ask(site, Cookie="biscuit=1").headers["Cache-Status"]
    site = CacheMiddleware(app, cache=_store(), policy=Policy(session_cookies=(), seconds=7), seconds=5)
    assert "stored; ttl=5" in ask(site, Cookie="biscuit=1").headers["Cache-Status"]


def test_what_is_no_config_has_no_names() -> None:
    class Odd:
        config: Any = MappingProxyType({"SESSION_COOKIE_NAME": 7, "REMEMBER_COOKIE_NAME": ""})

        def __call__(self, environ: Any, start_response: Any) -> Iterable[bytes]:
            start_response("200 OK", [("Content-Type", "text/plain")])
            return [b"page"]

    assert "stored" in ask(CacheMiddleware(Odd(), cache=_store())).headers["Cache-Status"]
    Odd.config = "none"
    assert "stored" in ask(CacheMiddleware(Odd(), cache=_store())).headers["Cache-Status"]


class Member:
    def __init__(self, is_authenticated: bool = True) -> None:
        self.is_authenticated = is_authenticated


def by_jwt(name: str) -> None:
    """Flask-JWT-Extended, which has read a cookie or another field by now."""
    g._jwt_extended_jwt = {"sub": name} if name else {}


def by_httpauth(name: str) -> None:
    """Flask-HTTPAuth, with a header of one's own."""
    if name:
        g.flask_httpauth_user = name


def by_loader(name: str) -> None:
    """Flask-Login, with a `request_loader`."""
    g._login_user = Member(bool(name))


def by_hand(name: str) -> None:
    g.user = name or None


@pytest.mark.parametrize("way", [by_jwt, by_httpauth, by_loader, by_hand])
@pytest.mark.parametrize("around", [*AROUND_FLASK, "view", "view on a site"])
def test_a_page_for_whom_an_extension_let_in_is_shown_to_no_other(around: str, way: Callable[[str], None]) -> None:
    """The guard stands outside of `cache_page`, so that it guards what is stored, and only it has read the request."""
    app = Flask(__name__)
    says = ""

    def guarded(view: Callable[[], Any]) -> Callable[[], Any]:
        def guard() -> Any:
            g.who = request.headers.get("X-Member", "")
            way(g.who)
            return view()

        return guard

    def page() -> Any:
        return f"hello {g.who}", {"Cache-Control": says} if says else {}

    on_view = cache_page(60, cache=_store()) if around == "view" else cache_page(60)
    app.add_url_rule("/", view_func=guarded(on_view(page) if "view" in around else page))
    site = app if around == "view" else AROUND_FLASK.get(around, _extended)(app)
    for name in ("Alice", "Bob"):
        response = ask(site, X_Member=name)
        assert response.text == f"hello {name}"
        assert response.headers["Cache-Status"].endswith("detail=authorization") or around == "inside"
    assert ask(site).text == ask(site).text == "hello "
    assert is_hit(ask(site))
    says = "public"
    ask(site, "/?all", X_Member="Alice")
    assert is_hit(ask(site, "/?all", X_Member="Bob"))


def test_a_user_who_cannot_be_asked_may_be_anybody() -> None:
    class Detached:
        @property
        def is_authenticated(self) -> bool:
            raise LookupError

    app = Flask(__name__)

    @app.get("/")
    def page() -> str:
        g.user = Detached()
        return "page"

    assert ask(CacheMiddleware(app, cache=_store())).headers["Cache-Status"].endswith("detail=authorization")


def test_a_session_that_cannot_be_asked_may_be_anybodys() -> None:
    class Lost(SecureCookieSession):
        def __contains__(self, name: object) -> bool:
            raise LookupError

    class Interface(SecureCookieSessionInterface):
        session_class = Lost

    app = Flask(__name__)
    app.secret_key = "secret"
    app.session_interface = Interface()

    @app.get("/")
    def page() -> str:
        g._login_user = object()
        return "page"

    assert ask(CacheMiddleware(app, cache=_store())).headers["Cache-Status"].endswith("detail=authorization")


def test_a_request_of_somebody_else_s_is_left_alone() -> None:
    def app(environ: Any, start_response: Any) -> Iterable[bytes]:
        environ["werkzeug.request"] = object()
        start_response("200 OK", [("Content-Type", "text/plain")])
        return [b"page"]

    site = CacheMiddleware(app, cache=_store())
    ask(site)
    assert is_hit(ask(site))


def test_cookies_that_were_read_beside_a_session_were_read() -> None:
    def app(environ: Any, start_response: Any) -> Iterable[bytes]:
        environ["beaker.session"], environ["bottle.request.cookies"] = Session(), {}
        start_response("200 OK", [("Content-Type", "text/plain")])
        return [b"page"]

    assert ask(CacheMiddleware(app, cache=_store())).headers["Vary"] == "Cookie"


@pytest.mark.parametrize("field", ["Cookie", "X-Member"])
def test_it_is_stored_where_it_says_by_what_they_are_told_apart(field: str) -> None:
    app = Flask(__name__)

    @app.get("/")
    @cache_page(60, cache=_store())
    def page() -> Any:
        by_jwt("Alice")
        return request.headers.get(field, ""), {"Vary": f"Accept, {field}"}

    for name in ("Alice", "Bob", "Alice", "Bob"):
        response = ask(app, **{field: name})
        assert response.text == name
    assert is_hit(response)


@pytest.mark.parametrize("field", ["", "Accept"])
def test_who_is_in_the_session_is_told_apart_by_it(field: str) -> None:
    app = Flask(__name__)
    app.secret_key = "k"
    app.add_url_rule("/login", view_func=lambda: session.update(_user_id=request.args["name"]) or "welcome")

    @app.get("/")
    @cache_page(60, cache=_store())
    def page() -> Any:
        g._login_user = Member()
        return f"hello {session['_user_id']}", {"Vary": field} if field else {}

    visitors = {name: app.test_client() for name in ("Alice", "Bob")}
    for name, visitor in visitors.items():
        visitor.get("/login", query_string={"name": name})
    for _ in range(2):
        answers = {name: visitor.get("/") for name, visitor in visitors.items()}
        assert {name: answer.text for name, answer in answers.items()} == {n: f"hello {n}" for n in visitors}
    assert all(map(is_hit, answers.values()))


@pytest.mark.parametrize("streams", [False, True])
def test_a_view_is_not_stored_with_a_number_that_is_allowed_further_out(streams: bool) -> None:
    """Flask-Talisman, in a few lines: a browser would run no script of the stored page."""
    app = Flask(__name__)
    numbers = itertools.count(1)

    @app.before_request
    def make() -> None:
        request.csp_nonce = f"random{next(numbers)}"  # type: ignore[attr-defined]

    @app.after_request
    def allow(response: Any) -> Any:
        response.headers["Content-Security-Policy"] = f"script-src 'nonce-{request.csp_nonce}'"  # type: ignore[attr-defined]
        return response

    @app.get("/")
    @cache_page(60, cache=_store())
    def page() -> Any:
        parts = ["<script nonce=", request.csp_nonce, ">"]  # type: ignore[attr-defined]
        return app.response_class(iter(parts) if streams else "".join(parts))

    app.add_url_rule("/plain", view_func=cache_page(60, cache=_store())(lambda: "<p>"))
    for _ in range(3):
        response = ask(app)
        assert response.text[14:-1] in response.headers["Content-Security-Policy"]
    ask(app, "/plain")
    assert is_hit(ask(app, "/plain"))


# -- sessions that are kept on the server -----------------------------------------------------------------------------


class OnServer(CallbackDict[str, Any], SessionMixin):
    """Of Flask-Session: the cookie has a number, and what is in the session is elsewhere."""

    accessed = modified = False

    def __init__(self, kept: dict[str, Any]) -> None:
        super().__init__(kept, lambda session: setattr(session, "modified", True))

    def get(self, key: str, default: Any = None) -> Any:
        self.accessed = True
        return super().get(key, default)


class Interface(SessionInterface):
    def __init__(self) -> None:
        self.kept: dict[str, dict[str, Any]] = {}

    def open_session(self, app: Flask, request: Any) -> OnServer:
        return OnServer(self.kept.get(request.cookies.get("session"), {}))

    def save_session(self, app: Flask, session: Any, response: Any) -> None:
        number = request.cookies.get("session") or f"number-{len(self.kept)}"
        if session or number in self.kept:
            self.kept[number] = dict(session)
            if number not in request.cookies.values():
                response.set_cookie("session", number)
        if session.accessed:
            response.vary.add("Cookie")


@pytest.mark.parametrize("streams", [False, True])
@pytest.mark.parametrize("extended", [False, True])
def test_who_logs_in_under_the_same_number_is_greeted_at_once(extended: bool, streams: bool) -> None:
    app = Flask(__name__)
    app.session_interface = Interface()
    store = None if extended else _store()

    @app.get("/")
    @cache_page(60, cache=store)
    def home() -> Any:
        def body() -> Iterator[str]:
            yield f"hello {session.get('name')}"

        return app.response_class(stream_with_context(body())) if streams else "".join(body())

    @app.post("/login")
    def login() -> str:
        session["name"] = request.form["name"]
        return "welcome"

    if extended:
        _extended(app, site=False)
    visitor, stranger = app.test_client(), app.test_client()
    visitor.post("/login", data={"name": "nobody"})
    for name in ("Alice", "Anne"):
        visitor.post("/login", data={"name": name})
        assert visitor.get("/").text == visitor.get("/").text == f"hello {name}"
    assert streams or visitor.get("/").headers["Cache-Status"].endswith("; detail=session")
    assert stranger.get("/").text == stranger.get("/").text == "hello None"
    assert streams or is_hit(stranger.get("/"))
