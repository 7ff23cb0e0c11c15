"""get_cache_key and learn_cache_key: Django's assertions (django_semantics D), for the requests of any framework."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from typing import Any

import pytest
from flask import Flask
from starlette.requests import Request as StarletteRequest
from werkzeug.test import Client, EnvironBuilder
from werkzeug.wrappers import Request as WerkzeugRequest
from werkzeug.wrappers import Response

from cachemw import (
    activate_language,
    activate_timezone,
    asgi,
    caches,
    get_cache_key,
    learn_cache_key,
    patch_response_headers,
    wsgi,
)
from cachemw.activation import KEY, Locale, deactivate_language, deactivate_timezone
from cachemw.backends.locmem import LocMemCache
from cachemw.integrations.flask import CacheMW


@pytest.fixture(autouse=True)
def _empty(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    caches["default"].clear()
    yield
    caches["default"].clear()
    deactivate_language()
    deactivate_timezone()


def environ(path: str = "/cache/test/", **headers: str) -> dict[str, Any]:
    return EnvironBuilder(
        path, headers=[(name.replace("_", "-"), value) for name, value in headers.items()]
    ).get_environ()


def scope(path: str = "/cache/test/", **headers: str) -> dict[str, Any]:
    path, _, query = path.partition("?")
    fields = [
        (b"host", b"localhost"),
        *((n.lower().replace("_", "-").encode(), v.encode()) for n, v in headers.items()),
    ]
    return {
        "type": "http",
        "method": "GET",
        "scheme": "http",
        "path": path,
        "raw_path": path.encode(),
        "query_string": query.encode(),
        "root_path": "",
        "headers": fields,
    }


class Headers:
    """A response that varies on these."""

    def __init__(self, *vary: str) -> None:
        self.headers = [("Vary", name) for name in vary]


KINDS: dict[str, Any] = {
    "environ": environ,
    "werkzeug": lambda *args, **headers: WerkzeugRequest(environ(*args, **headers)),
    "scope": scope,
    "starlette": lambda *args, **headers: StarletteRequest(scope(*args, **headers)),
}


@pytest.fixture(params=KINDS)
def request_of(request: pytest.FixtureRequest) -> Any:
    return KINDS[request.param]


def test_nothing_is_known_before_it_was_learnt(request_of: Any) -> None:
    assert get_cache_key(request_of()) is None
    learnt = learn_cache_key(request_of(), Headers())
    assert get_cache_key(request_of()) == learnt
    assert get_cache_key(request_of("/other")) is None


def test_scheme_host_path_and_query_are_in_the_key(request_of: Any) -> None:
    requests = [request_of("/a"), request_of("/b"), request_of("/a?x=1"), request_of("/a?x=2")]
    keys = [learn_cache_key(one, Headers()) for one in requests]
    assert len(set(keys)) == 4
    assert [get_cache_key(one) for one in requests] == keys


def test_the_fields_that_the_response_varies_on_are_in_the_key(request_of: Any) -> None:
    learn_cache_key(request_of(), Headers("X-A, X-B"))
    keys = [
        get_cache_key(request_of(**headers))
        for headers in ({}, {"X_A": ""}, {"X_A": "x", "X_B": "yz"}, {"X_A": "xy", "X_B": "z"}, {"X_A": "x", "X_C": "1"})
    ]
    assert None not in keys
    assert len(set(keys)) == 5
    assert get_cache_key(request_of(X_C="1")) == keys[0]


def test_what_one_response_varies_on_the_next_one_does_not_forget(request_of: Any) -> None:
    learn_cache_key(request_of(), Headers("X-A"))
    before = get_cache_key(request_of(X_A="1"))
    learn_cache_key(request_of(), Headers())
    assert get_cache_key(request_of(X_A="1")) == before
    learn_cache_key(request_of(), Headers("X-B"))
    assert get_cache_key(request_of(X_A="1")) != get_cache_key(request_of(X_A="2"))


def test_what_is_learnt_for_no_time_is_not_known(request_of: Any) -> None:
    assert learn_cache_key(request_of(), Headers("X-A"), 0)
    assert get_cache_key(request_of()) is None
    learnt = learn_cache_key(request_of(), Headers("X-A"), 0.5)
    assert get_cache_key(request_of()) == learnt


def test_prefix_and_cache(request_of: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    store = LocMemCache("views-keys", {})
    store.clear()
    plain = learn_cache_key(request_of(), Headers())
    prefixed = learn_cache_key(request_of(), Headers(), key_prefix="p", cache=store)
    assert plain != prefixed
    assert get_cache_key(request_of(), key_prefix="p") is None
    assert get_cache_key(request_of(), "p", cache=store) == prefixed
    monkeypatch.setenv("CACHEMW_KEY_PREFIX", "p")
    assert get_cache_key(request_of(), cache=store) == prefixed


def test_what_head_learns_serves_get(request_of: Any) -> None:
    asked = request_of()
    key = learn_cache_key(asked, Headers())
    assert get_cache_key(asked, method="HEAD") == get_cache_key(asked) == key


def test_language_and_time_zone_where_they_are_part_of_the_key(
    request_of: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    activate_language("de")
    bare = learn_cache_key(request_of(), Headers("Accept-Language"))
    activate_language("en")
    assert get_cache_key(request_of()) == bare

    caches["default"].clear()
    monkeypatch.setenv("CACHEMW_USE_I18N", "1")
    monkeypatch.setenv("CACHEMW_USE_TZ", "1")
    keys = {learn_cache_key(request_of(), Headers("Accept-Language, Cookie"))}
    assert get_cache_key(request_of(Accept_Language="de")) in keys  # the language decides, not the field
    activate_language("de")
    keys.add(str(get_cache_key(request_of())))
    activate_timezone("Europe/Berlin")
    keys.add(str(get_cache_key(request_of())))
    assert len(keys) == 3


def test_the_language_of_the_request_itself(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CACHEMW_USE_I18N", "1")
    activate_language("en")
    given = environ()
    given[KEY] = Locale()
    given[KEY].language = "de"
    assert learn_cache_key(given, Headers()) == get_cache_key(given) != get_cache_key(environ())


def test_an_override_that_frameworks_honour_is_another_page() -> None:
    learn_cache_key(environ(), Headers())
    learn_cache_key(environ(X_Forwarded_Host="evil.example"), Headers())
    assert get_cache_key(environ(X_Forwarded_Host="evil.example")) != get_cache_key(environ())


@pytest.mark.parametrize("vary", ["", "X-A"])
@pytest.mark.parametrize("method", ["GET", "HEAD"])
def test_the_key_is_that_of_the_middlewares(vary: str, method: str) -> None:
    """What they say is in the store, is there."""

    def app(environ: Any, start_response: Any) -> Any:
        start_response("200 OK", [("Content-Type", "text/plain"), *([("Vary", vary)] if vary else [])])
        return [b"" if environ["REQUEST_METHOD"] == "HEAD" else b"page"]

    store = LocMemCache("views-keys-pages", {})
    store.clear()
    client = Client(wsgi.CacheMiddleware(app, cache=store))
    client.open("/cache/test/", method=method, headers={"X-A": "1"}, buffered=True)
    key = get_cache_key(environ(X_A="1"), method=method, cache=store)
    assert key is not None
    (record,) = store.read_records([key])
    assert record.status == 200
    assert learn_cache_key(environ(X_A="1"), Headers(*([vary] if vary else [])), cache=store) == (
        key if method == "GET" else get_cache_key(environ(X_A="1"), cache=store)
    )
    store.drop_records([key])
    assert "; hit" not in client.open("/cache/test/", headers={"X-A": "1"}, buffered=True).headers["Cache-Status"]


def test_what_was_learnt_helps_the_middlewares() -> None:
    learn_cache_key(environ(), Headers("X-A"))
    calls = []

    def app(environ: Any, start_response: Any) -> Any:
        calls.append(1)
        start_response("200 OK", [("Content-Type", "text/plain"), ("Vary", "X-A")])
        return [b"page"]

    client = Client(wsgi.CacheMiddleware(app))
    for value in ("1", "2", "1", "2"):
        client.get("/cache/test/", headers={"X-A": value}, buffered=True)
    assert len(calls) == 2


@pytest.mark.parametrize("wrong", [None, 5, {}, "GET /"])
def test_what_is_no_request(wrong: Any) -> None:
    with pytest.raises(TypeError, match="A request, a WSGI environ or an ASGI scope is expected"):
        get_cache_key(wrong)


def test_a_request_with_djangos_environment() -> None:
    class DjangoRequest:
        META = environ()
        LANGUAGE_CODE = "de"

    key = learn_cache_key(DjangoRequest(), Headers())
    assert get_cache_key(environ()) == key


# -- of which cache ---------------------------------------------------------------------------------------------------


def test_left_out_it_is_the_cache_that_the_request_came_through() -> None:
    seen: list[str | None] = []

    def application(environ: dict[str, Any], start_response: Any) -> list[bytes]:
        seen.append(get_cache_key(environ))
        start_response("200 OK", [("Content-Type", "text/plain"), ("Cache-Control", "no-store")])
        return [b""]

    def page(environ: dict[str, Any], start_response: Any) -> list[bytes]:
        start_response("200 OK", [("Content-Type", "text/plain"), ("Vary", "X-A")])
        return [b""]

    store = LocMemCache("keys-came-through", {})
    Client(wsgi.CacheMiddleware(page, cache=store, key_prefix="site")).get("/", buffered=True)
    other = wsgi.CacheMiddleware(application, cache=store, key_prefix="site")
    Client(other).get("/", headers={"X-A": "another variant"}, buffered=True)
    assert seen[0] is not None
    assert seen == [get_cache_key(environ("/", X_A="another variant"), key_prefix="site", cache=store)]


def test_in_a_flask_application_it_is_that_of_the_extension() -> None:
    app = Flask("site")
    app.config["CACHES"] = {"default": "locmem://keys-flask", "other": "locmem://keys-flask-other"}
    app.config["CACHEMW_KEY_PREFIX"] = "site"
    app.config["CACHEMW_SECONDS"] = 7
    CacheMW(app)
    app.add_url_rule("/", view_func=lambda: "x")
    app.test_client().get("/", buffered=True)
    request = environ("/")
    assert get_cache_key(request) is None
    with app.app_context():
        key = get_cache_key(request)
        assert key is not None
        assert key == get_cache_key(request, cache="default") == get_cache_key(request, key_prefix="site")
        assert get_cache_key(request, cache="other") is None
        assert get_cache_key(request, cache="locmem://keys-flask") == key
        assert get_cache_key(request, key_prefix="other") is None
        response = Response()
        patch_response_headers(response)
        assert response.headers["Cache-Control"] == "max-age=7"


def _stored(app_of: Any, key: str | None) -> bool:
    return key is not None and app_of.caching.line.pages.lookup((key,))[0] is not None


def _varying(*fields: tuple[str, str]) -> Any:
    def app(environ: Any, start_response: Any) -> list[bytes]:
        start_response("200 OK", [("Content-Type", "text/plain"), *fields])
        return [b"page"]

    return app


def test_query_parameters_that_a_rule_ignores_are_not_in_the_key(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CACHEMW_RULES", '[{"path": "/*", "ignore_query": ["utm"]}, {"path": "/never", "never": true}]')
    middleware = wsgi.CacheMiddleware(_varying(("Vary", "X-A")))
    Client(middleware).get("/a?utm=1", headers={"X-A": "1"}, buffered=True)
    key = get_cache_key(environ("/a?utm=2", X_A="1"))
    assert _stored(middleware, key)
    assert learn_cache_key(environ("/a?utm=3", X_A="1"), Headers("X-A")) == key
    assert get_cache_key(environ("/a?x=1", X_A="1")) is None
    assert get_cache_key(environ("/never")) is None


def test_they_are_not_where_the_request_is_under_way() -> None:
    seen: list[str | None] = []

    def app(environ: Any, start_response: Any) -> list[bytes]:
        seen.append(get_cache_key(environ))
        start_response("200 OK", [("Content-Type", "text/plain"), ("Vary", "X-A")])
        return [b"page"]

    store = LocMemCache("views-keys-ignored", {})
    middleware = wsgi.CacheMiddleware(app, cache=store, rules=[{"path": "/*", "ignore_query": ["utm"]}])
    for number in range(2):
        Client(middleware).get(f"/a?utm={number}", headers={"X-A": str(number)}, buffered=True)
    assert seen[0] is None
    assert seen[1] is not None
    assert _stored(middleware, seen[1])


def test_without_a_language_accept_language_stays_in_the_key(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CACHEMW_USE_I18N", "1")
    learn_cache_key(environ(), Headers("Accept-Language"))
    keys = {get_cache_key(environ(Accept_Language=language)) for language in ("de", "en")}
    assert len(keys) == 2


def test_the_pages_of_a_rule_with_a_cache_of_its_own_are_in_that(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CACHEMW_URL", "locmem://")
    monkeypatch.setenv("CACHEMW_URL_OTHER", "locmem://views-keys-other")
    monkeypatch.setenv("CACHEMW_RULES", '[{"path": "/a", "cache": "other"}]')
    middleware = wsgi.CacheMiddleware(_varying())
    Client(middleware).get("/a", buffered=True)
    key = get_cache_key(environ("/a"))
    assert key is not None
    assert key == get_cache_key(environ("/a"), cache="other")
    assert get_cache_key(environ("/a"), cache="default") is None


def test_a_path_that_somebody_has_rewritten_is_in_the_key() -> None:
    async def app(scope: Any, receive: Any, send: Any) -> None:
        await send({"type": "http.response.start", "status": 200, "headers": [(b"content-type", b"text/plain")]})
        await send({"type": "http.response.body", "body": b"page"})

    async def nothing(message: Any = None) -> Any:
        return {"type": "http.request", "body": b""}

    store = LocMemCache("views-keys-rewritten", {})
    middleware = asgi.CacheMiddleware(app, cache=store)
    rewritten = {**scope("/a"), "path": "/of-somebody"}
    asyncio.run(middleware(dict(rewritten), nothing, nothing))
    key = get_cache_key(rewritten, cache=store)
    assert _stored(middleware, key)
    assert get_cache_key(scope("/a"), cache=store) != key


# -- what the page does not hang on -----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "fields",
    [
        {"Content-Length": "3", "Content-Type": "text/plain"},
        {"Transfer-Encoding": "chunked"},
        {"Expect": "100-continue"},
        {"Upgrade": "h2c"},
    ],
    ids=["length", "chunked", "expect", "upgrade"],
)
@pytest.mark.parametrize("method", ["GET", "POST"])
@pytest.mark.parametrize("keyed", [{}, {"X-Requested-With": "XMLHttpRequest"}], ids=["plain", "ajax"])
def test_the_key_is_that_of_a_get_without_a_body(
    request_of: Any, method: str, keyed: dict[str, str], fields: dict[str, str]
) -> None:
    """Whoever has just handled a form may ask for the page of its URL."""
    asked = request_of(**keyed, **fields)
    inner = getattr(asked, "environ", None) or getattr(asked, "scope", asked)
    inner["REQUEST_METHOD" if "REQUEST_METHOD" in inner else "method"] = method
    before = dict(inner)
    learnt = learn_cache_key(asked, Headers("X-A"))
    assert get_cache_key(asked) == learnt == get_cache_key(request_of(**keyed))
    assert inner == before


def test_a_request_that_no_page_answers_has_no_key() -> None:
    learn_cache_key(scope(X_Requested_With="XMLHttpRequest"), Headers())
    asked = scope(X_Requested_With="XMLHttpRequest")
    asked["headers"].append((b"host", b"other.example"))
    assert get_cache_key(asked) is None
    with pytest.raises(ValueError, match="No page answers this request: it has several Host fields"):
        learn_cache_key(asked, Headers())


@pytest.mark.parametrize(("timeout", "known"), [(None, True), (1, True), (0.5, True), (0, False), (-1, False)])
def test_how_long_it_is_known(request_of: Any, timeout: float | None, known: bool) -> None:
    key = learn_cache_key(request_of(), Headers("X-A"), timeout)
    assert get_cache_key(request_of()) == (key if known else None)
