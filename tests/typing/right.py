"""What type checkers make of the public names. Nobody runs this: `test_typing.py` has it checked."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any, assert_type

from fastapi import FastAPI
from flask import Flask
from starlette.applications import Starlette
from starlette.middleware import Middleware

from cachemw import (
    CacheMiddleware,
    FetchFromCacheMiddleware,
    LocaleMiddleware,
    Policy,
    Rule,
    Rules,
    Settings,
    TimezoneMiddleware,
    UpdateCacheMiddleware,
    asgi,
    connect,
    locale,
    page_failures,
    purge,
    wsgi,
)


def wsgi_app(environ: dict[str, Any], start_response: Callable[..., Any]) -> Iterable[bytes]:
    return []


async def asgi_app(scope: Any, receive: Any, send: Any) -> None: ...


# -- middlewares: the application's interface is that of what comes back ----------------------------------------------

assert_type(CacheMiddleware(wsgi_app), wsgi.CacheMiddleware)
assert_type(CacheMiddleware(asgi_app), asgi.CacheMiddleware)
assert_type(CacheMiddleware(Flask("x")), wsgi.CacheMiddleware)
assert_type(CacheMiddleware(Flask("x").wsgi_app, seconds=60, cache="redis://localhost"), wsgi.CacheMiddleware)
assert_type(CacheMiddleware(Starlette()), asgi.CacheMiddleware)
assert_type(CacheMiddleware(app=FastAPI()), asgi.CacheMiddleware)
assert_type(CacheMiddleware(CacheMiddleware(asgi_app), cache=connect("locmem://")), asgi.CacheMiddleware)
assert_type(UpdateCacheMiddleware(FetchFromCacheMiddleware(wsgi_app)), wsgi.UpdateCacheMiddleware)
assert_type(UpdateCacheMiddleware(FetchFromCacheMiddleware(asgi_app)), asgi.UpdateCacheMiddleware)
assert_type(LocaleMiddleware(wsgi_app, languages=["de", ("en", "English")]), locale.WSGILocaleMiddleware)
assert_type(LocaleMiddleware(asgi_app, cookie=None), locale.ASGILocaleMiddleware)
assert_type(TimezoneMiddleware(wsgi_app, choose=lambda request: "UTC"), locale.WSGITimezoneMiddleware)
assert_type(TimezoneMiddleware(asgi_app, default="UTC"), locale.ASGITimezoneMiddleware)

Starlette(middleware=[Middleware(CacheMiddleware, seconds=60), Middleware(LocaleMiddleware, languages=["de", "en"])])
FastAPI().add_middleware(CacheMiddleware, cache="locmem://")
Starlette(middleware=[Middleware(asgi.CacheMiddleware, seconds=60)])
purge("http://localhost/", caching=CacheMiddleware(wsgi_app).caching)
assert_type(page_failures(CacheMiddleware(asgi_app).caching), dict[str, int])


# -- values of settings: what is documented to work ------------------------------------------------------------------

assert_type(Policy(statuses={200}, session_cookies=["a"]).statuses, frozenset[int])
assert_type(Policy.django(conditions=True, statuses=[200, 404]), Policy)
assert_type(Policy.rfc9111(seconds=None, targeted=("a", "b"), ignore_query="utm_*,ref").ignore_query, tuple[str, ...])
assert_type(Rule("/x", methods="GET", statuses=[404, "5xx"], tags={"a"}).statuses, tuple[int | str, ...])
assert_type(Rule("/x", statuses=404, content_types="text/html").methods, tuple[str, ...])
assert_type(Rules([Rule("/x"), {"path": "/y", "never": True}])[0], Rule)
settings = Settings(
    seconds=60,
    languages=[("en", "English"), "de"],
    secret=["a", "b"],
    rules=[Rule("/x"), {"path": "/y"}],
    caches={"default": "locmem://", "other": {"BACKEND": "cachemw.backends.dummy.DummyCache"}},
    policy_options={"grace": 10},
)
assert_type(settings.languages, tuple[str, ...])
assert_type(settings.secret, tuple[str, ...] | None)
assert_type(settings.rules, tuple[Rule, ...] | None)
assert_type(settings.policy(), Policy)
Settings(languages={"en", "de"}, secret="one", rules='[{"path": "/x"}]', preset="django")
CacheMiddleware(wsgi_app, policy=Policy(), settings={"CACHES": {}}, rules=[{"path": "/x"}], key_prefix="a")
