"""One name for both interfaces, and arguments that are refused before the first request."""

from __future__ import annotations

import functools
from typing import Any
from wsgiref.validate import validator

import pytest
import werkzeug
from flask import Flask
from werkzeug.test import Client

import cachemw
from cachemw import CacheMiddleware, ImproperlyConfigured, InvalidCacheBackendError, asgi, wsgi
from cachemw.backends.locmem import LocMemCache
from cachemw.integrations.flask import CacheMW
from cachemw.middleware import interface_of


def wsgi_app(environ: Any, start_response: Any) -> list[bytes]:
    return []


async def asgi_app(scope: Any, receive: Any, send: Any) -> None: ...


class WSGIClass:
    def __call__(self, environ: Any, start_response: Any) -> list[bytes]:
        return []

    def method(self, environ: Any, start_response: Any) -> list[bytes]:
        return []


class ASGIClass:
    async def __call__(self, scope: Any, receive: Any, send: Any) -> None: ...

    async def method(self, scope: Any, receive: Any, send: Any) -> None: ...


def asgi_by_hand(scope: Any, receive: Any, send: Any) -> Any:
    return asgi_app(scope, receive, send)


@functools.wraps(asgi_app)
def wrapped(*args: Any) -> Any:
    return asgi_app(*args)


@werkzeug.Request.application
def responder(request: werkzeug.Request) -> werkzeug.Response:
    return werkzeug.Response("a function of one argument, made a WSGI application by a decorator")


#: Written in C, and telling nobody what it takes.
builtin: Any = max


@pytest.mark.parametrize(
    "app",
    [wsgi_app, WSGIClass(), WSGIClass().method, functools.partial(wsgi_app), responder, builtin, validator(wsgi_app)],
)
def test_wsgi_applications_are_known(app: Any) -> None:
    assert interface_of(app) == "wsgi"
    assert isinstance(CacheMiddleware(app), wsgi.CacheMiddleware)
    assert isinstance(cachemw.UpdateCacheMiddleware(app), wsgi.UpdateCacheMiddleware)
    assert isinstance(cachemw.FetchFromCacheMiddleware(app), wsgi.FetchFromCacheMiddleware)


@pytest.mark.parametrize(
    "app", [asgi_app, ASGIClass(), ASGIClass().method, asgi_by_hand, wrapped, functools.partial(asgi_app)]
)
def test_asgi_applications_are_known(app: Any) -> None:
    assert interface_of(app) == "asgi"
    assert isinstance(CacheMiddleware(app), asgi.CacheMiddleware)


def test_frameworks_and_wrapped_frameworks_are_known() -> None:
    from flask import Flask
    from starlette.applications import Starlette

    assert interface_of(CacheMiddleware(Flask("x"))) == "wsgi"
    assert interface_of(CacheMiddleware(CacheMiddleware(Starlette()))) == "asgi"


@pytest.mark.parametrize("app", [None, "app", 5, object(), lambda: None, lambda a: None, WSGIClass])
def test_what_is_no_application_is_refused(app: Any) -> None:
    with pytest.raises(ImproperlyConfigured, match=r"WSGI application .* ASGI application"):
        CacheMiddleware(app)


def unnamed(*args: Any, **options: Any) -> Any:
    """What a decorator without `functools.wraps` has made of an application, of whichever kind."""
    return asgi_app(*args, **options)


class Unnamed:
    def __call__(self, *args: Any) -> Any:
        return asgi_app(*args)


@functools.wraps(unnamed)
def unnamed_twice(*args: Any) -> Any:
    return unnamed(*args)


def with_a_third(first: Any, second: Any, third: Any = None) -> list[bytes]:
    return []


@pytest.mark.parametrize(
    "app", [unnamed, Unnamed(), Unnamed().__call__, unnamed_twice, functools.partial(unnamed), with_a_third]
)
def test_what_may_be_either_is_not_guessed(app: Any) -> None:
    """Taken for the wrong one it would fail at its first request, by an error that names neither."""
    message = r"may be .* WSGI .* \(environ, start_response\) and .* ASGI .*: .* from cachemw\.wsgi or cachemw\.asgi\."
    with pytest.raises(ImproperlyConfigured, match=message):
        CacheMiddleware(app)
    assert wsgi.CacheMiddleware(app)
    assert asgi.CacheMiddleware(app)


def publish_module(environ: Any, start_response: Any, _publish: Any = None, _response: Any = None) -> list[bytes]:
    """As Zope's: the rest is for its tests."""
    start_response("200 OK", [("Content-Type", "text/plain")])
    return [f"by {_publish}".encode()]


def test_an_application_may_take_more_than_servers_give() -> None:
    assert interface_of(publish_module) == "wsgi"
    assert Client(CacheMiddleware(publish_module, cache="dummy://")).get("/", buffered=True).text == "by None"


@functools.wraps(unnamed)
def told_by_its_wrapper(environ: Any, start_response: Any) -> Any:
    return []


def test_a_wrapper_may_say_what_the_application_beneath_does_not() -> None:
    assert interface_of(told_by_its_wrapper) == "wsgi"


@pytest.mark.parametrize("app", [wsgi_app, asgi_app])
@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        ({"cache": 5}, ImproperlyConfigured, "cache is 5; allowed: the alias"),
        ({"cache": "nowhere"}, InvalidCacheBackendError, "nowhere"),
        ({"cache": "gopher://x"}, ImproperlyConfigured, "gopher"),
        ({"rules": [{"path": "nonsense"}]}, ImproperlyConfigured, "nonsense"),
        ({"seconds": "many"}, ImproperlyConfigured, "many"),
        ({"seconds": -1}, ImproperlyConfigured, "-1"),
        ({"policy": "strict"}, ImproperlyConfigured, "strict"),
        ({"key_prefix": 5}, ImproperlyConfigured, "key_prefix is 5"),
        ({"settings": 5}, ImproperlyConfigured, "settings"),
        ({"hooks": [print]}, ImproperlyConfigured, "hooks"),
    ],
)
def test_wrong_arguments_are_one_clear_error(app: Any, options: Any, error: Any, message: str) -> None:
    with pytest.raises(error, match=message):
        CacheMiddleware(app, **options)


def test_an_unknown_option_is_an_error() -> None:
    with pytest.raises(TypeError, match="secnods"):
        CacheMiddleware(wsgi_app, secnods=5)  # type: ignore[call-overload]


def test_a_cache_by_alias_url_and_store(monkeypatch: pytest.MonkeyPatch) -> None:
    assert CacheMiddleware(wsgi_app, cache="locmem://a").caching.line.pages.cache.location == "a"
    store = LocMemCache("b")
    first, second = (CacheMiddleware(wsgi_app, cache=store).caching.line.pages for _ in range(2))
    assert first is second
    settings = cachemw.Settings.from_mapping({"CACHES": {"default": "locmem://c", "pages": "locmem://d"}})
    made = CacheMiddleware(wsgi_app, cache="pages", settings=settings)
    assert made.caching.line.pages.cache.location == "d"


def test_the_application_may_be_given_by_name() -> None:
    """As Litestar's `DefineMiddleware` does."""
    made = [one(app=app) for app in (wsgi_app, asgi_app) for one in (CacheMiddleware, cachemw.UpdateCacheMiddleware)]
    assert [type(one).__module__ for one in made] == ["cachemw.wsgi"] * 2 + ["cachemw.asgi"] * 2


@pytest.mark.parametrize("cookie", ["session", "a_name_of_its_own"])
@pytest.mark.parametrize("around", [CacheMiddleware, CacheMW])
def test_rules_may_come_one_by_one(around: Any, cookie: str) -> None:
    """A name that the policy does not know makes another policy of it, and rules are read twice."""
    app = Flask("rules")
    app.config["SESSION_COOKIE_NAME"] = cookie
    app.add_url_rule("/account", view_func=lambda: "mine")
    site = around(app, cache="dummy://", rules=(rule for rule in [{"path": "/account", "never": True}]))
    answer = Client(site if around is CacheMiddleware else app).get("/account")
    assert answer.headers["Cache-Status"] == "cachemw; fwd=bypass; fwd-status=200"


def test_rules_may_name_another_cache() -> None:
    settings = cachemw.Settings.from_mapping({"CACHES": {"default": "locmem://e", "big": "locmem://f"}})
    made = CacheMiddleware(wsgi_app, settings=settings, rules=[cachemw.Rule("/big/*", cache="big")])
    assert [line.pages.cache.location for line in made.caching.lines] == ["e", "f"]
    with pytest.raises(
        InvalidCacheBackendError,
        match=r"^cache of a rule is 'gone': .* allowed: default, big; .* A URL names a store, too",
    ):
        CacheMiddleware(wsgi_app, settings=settings, rules=[cachemw.Rule("/", cache="gone")])


@pytest.mark.parametrize(
    ("name", "value", "message"),
    [
        (
            "CACHEMW_ALIAS",
            "gone",
            r"CACHEMW_ALIAS.* is 'gone'.* allowed: default; .* CACHEMW_URL_<ALIAS>. A URL names a store",
        ),
        ("CACHEMW_URL", "redis://user:word@host:port/0", r"^CACHEMW_URL: LOCATION is 'redis://\*\*\*@host:port/0'"),
        ("CACHEMW_URL", "locmem://?max_entries=many", "^CACHEMW_URL: MAX_ENTRIES is 'many'"),
    ],
)
def test_a_wrong_variable_is_named_before_the_first_request(
    name: str, value: str, message: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(name, value)
    monkeypatch.setattr("cachemw.caching.caches", cachemw.Caches())
    with pytest.raises(ImproperlyConfigured, match=message):
        CacheMiddleware(wsgi_app)


def test_a_wrong_variable_of_another_cache_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CACHEMW_URL_PAGES", "locmem://?nonsense=1")
    with pytest.raises(ImproperlyConfigured, match=r"^CACHEMW_URL_PAGES: An unknown option of LocMemCache is 'non"):
        cachemw.Caches()["pages"]
    with pytest.raises(
        ImproperlyConfigured,
        match=r"^CACHES\['a'\]: Cache URL 'locmem://\?timeout=x': timeout is 'x'; allowed: a number",
    ):
        cachemw.Caches({"CACHES": {"a": "locmem://?timeout=x"}})["a"]


@pytest.mark.parametrize("app", [wsgi_app, asgi_app], ids=["wsgi", "asgi"])
@pytest.mark.parametrize("name", ["CacheMiddleware", "UpdateCacheMiddleware", "FetchFromCacheMiddleware"])
def test_an_option_that_there_is_not_is_named_with_those_that_there_are(name: str, app: Any) -> None:
    message = f"{name} has no option 'timeout'; allowed: cache, policy, seconds, key_prefix, rules, hooks, settings"
    with pytest.raises(TypeError, match=f"^{message}$"):
        getattr(cachemw, name)(app, timeout=60, ttl=1)


def test_in_the_place_of_a_middleware_of_django_s_the_right_one_is_named() -> None:
    from django.core.handlers.base import BaseHandler  # type: ignore[import-untyped]

    with pytest.raises(
        ImproperlyConfigured, match=r"In Django's MIDDLEWARE, name those of cachemw.integrations.django"
    ):
        CacheMiddleware(BaseHandler()._get_response)


def test_the_environment_s_settings_reach_the_middleware(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CACHEMW_SECONDS", "42")
    monkeypatch.setenv("CACHEMW_KEY_PREFIX", "site")
    monkeypatch.setenv("CACHEMW_POLICY", "rfc9111")
    caching = CacheMiddleware(wsgi_app).caching
    assert caching.line.seconds == 42
    assert caching.key_prefix == "site"
    assert caching.policy.request_directives
    assert CacheMiddleware(wsgi_app, seconds=7).caching.line.seconds == 7


@pytest.mark.parametrize("name", [name for name in cachemw.middleware.__all__ if name.endswith("Middleware")])
def test_each_interface_has_its_own_under_the_same_name(name: str) -> None:
    either = functools.partial(getattr(cachemw, name), settings=cachemw.Settings(languages=["en"]))
    assert type(either(wsgi_app)) is getattr(cachemw.wsgi, name)
    assert type(either(asgi_app)) is getattr(cachemw.asgi, name)
