"""What type checkers make of the public names. Nobody runs this: `test_typing.py` has it checked."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any, assert_type

import falcon
import falcon.asgi
from django.core.wsgi import get_wsgi_application  # type: ignore[import-untyped]
from fastapi import FastAPI
from flask import Flask
from litestar import Litestar
from quart import Quart
from starlette.applications import Starlette
from starlette.middleware import Middleware
from starlette.middleware.gzip import GZipMiddleware
from werkzeug.middleware.proxy_fix import ProxyFix

import cachemw
from cachemw import (
    BaseCache,
    CacheMiddleware,
    Caches,
    Caching,
    FetchFromCacheMiddleware,
    Hooks,
    LocaleMiddleware,
    Metrics,
    ObservingMiddleware,
    Policy,
    Rule,
    Rules,
    Settings,
    StaticFolder,
    StaticMiddleware,
    TimezoneMiddleware,
    UpdateCacheMiddleware,
    activate_language,
    activate_timezone,
    add_never_cache_headers,
    apurge,
    asgi,
    cache,
    cache_control,
    cache_page,
    cached,
    caches,
    conditional,
    connect,
    deactivate_language,
    deactivate_timezone,
    fragment,
    get_cache_key,
    get_language,
    get_max_age,
    get_timezone,
    has_vary_header,
    learn_cache_key,
    locale,
    make_template_fragment_key,
    never_cache,
    page_failures,
    patch_cache_control,
    patch_response_headers,
    patch_vary_headers,
    purge,
    static_url,
    vary_on_cookie,
    vary_on_headers,
    wsgi,
)
from cachemw._observing.shells import WSGIObserving
from cachemw.dashboard import Dashboard


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
assert_type(CacheMiddleware(GZipMiddleware(FastAPI())), asgi.CacheMiddleware)
assert_type(CacheMiddleware(ProxyFix(Flask("x").wsgi_app)), wsgi.CacheMiddleware)
assert_type(CacheMiddleware(Litestar([])), asgi.CacheMiddleware)
assert_type(CacheMiddleware(falcon.App()), wsgi.CacheMiddleware)
assert_type(CacheMiddleware(falcon.asgi.App()), asgi.CacheMiddleware)
CacheMiddleware(get_wsgi_application(), seconds=60)
CacheMiddleware(StaticMiddleware(wsgi_app, StaticFolder("static")))
flask_app, quart_app = Flask("x"), Quart("x")
flask_app.wsgi_app = CacheMiddleware(flask_app.wsgi_app)  # type: ignore[method-assign]
quart_app.asgi_app = CacheMiddleware(quart_app.asgi_app)  # type: ignore[method-assign]
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
purge("http://localhost/", caching=CacheMiddleware(asgi_app))
purge("http://localhost/", caching=Caching(cache="locmem://", key_prefix="site"))
assert_type(page_failures(CacheMiddleware(asgi_app).caching), dict[str, int])
assert_type(page_failures(CacheMiddleware(wsgi_app)), dict[str, int])
metrics = Metrics()
assert_type(ObservingMiddleware(CacheMiddleware(wsgi_app), metrics=metrics), WSGIObserving)
assert_type(ObservingMiddleware(CacheMiddleware(asgi_app), hide=True).metrics, Metrics)
assert_type(metrics.snapshot().hit_ratio, float | None)
Starlette(middleware=[Middleware(ObservingMiddleware, metrics=metrics), Middleware(CacheMiddleware)])
dashboard = Dashboard(metrics, CacheMiddleware(asgi_app), allow=lambda request: request.user.is_authenticated)
CacheMiddleware(ObservingMiddleware(dashboard.wsgi))


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


# -- decorators of views: the view keeps its type --------------------------------------------------------------------


@cache_page(60, tags=lambda number: [f"number-{number}"])
@cache_control(max_age=60, public=True)
@vary_on_headers("Accept")
def view(number: int, *, name: str = "") -> str:
    return name


@cache_page(60, cache="default", key_prefix="x")
@never_cache
@vary_on_cookie
@conditional(etag=lambda request: "x")
async def task(number: int) -> bytes:
    return b""


assert_type(view(1, name="a"), str)


# -- functions and methods whose results are kept --------------------------------------------------------------------


@cached(60)
def price(article: int, currency: str = "EUR") -> float:
    return 1.0


@cached(60, stale=5, cache="redis://localhost")
async def stock(article: int) -> list[int]:
    return []


class Shop:
    @cached(60, key=lambda self, article: article)
    def price(self, article: int) -> float:
        return 1.0

    @cached(60, key=lambda self, article: article)
    async def stock(self, article: int) -> int:
        return 1

    @cached(60)
    @classmethod
    def below(cls, article: int) -> float:
        return 1.0

    @classmethod
    @cached(60)
    def above(cls, article: int) -> float:
        return 1.0

    @cached(60)
    @staticmethod
    def plain(article: int) -> float:
        return 1.0

    @staticmethod
    @cached(60)
    def plainer(article: int) -> float:
        return 1.0

    @cached(60)
    @staticmethod
    async def later(article: int) -> float:
        return 1.0

    @property
    @cached(60, key=lambda self: 1)
    def sold(self) -> int:
        return 1


assert_type(price(1), float)
assert_type(price(article=1, currency="USD"), float)
assert_type(price.refresh(1), float)
assert_type(price.invalidate(1, "EUR"), bool)
assert_type(price.cache_key(1), str)
assert_type(Shop().price(1), float)
assert_type(Shop().price.refresh(article=1), float)
assert_type(Shop.price(Shop(), 1), float)
assert_type(Shop().sold, int)
for shop in (Shop, Shop()):
    assert_type(shop.below(1), float)
    assert_type(shop.above(1), float)
    assert_type(shop.plain(1), float)
    assert_type(shop.plainer(1), float)
assert_type(Shop.below.invalidate(1), bool)
assert_type(Shop.plain.invalidate(1), bool)


@fragment("sidebar", lambda user: [user], 60)
def sidebar(user: str) -> str:
    return user


assert_type(sidebar("a"), str)
assert_type(make_template_fragment_key("sidebar", ["a"]), str)


# -- hooks: a function stays what it is -------------------------------------------------------------------------------

hooks = Hooks()


@hooks.before_request
def before(request: Any) -> None: ...


@hooks.scope("/admin", name="admin").after_request
def after(response: Any) -> Any:
    return response


assert_type(before(1), None)
CacheMiddleware(wsgi_app, hooks=hooks)


# -- everything else -------------------------------------------------------------------------------------------------


async def use() -> None:
    assert_type(await task(1), bytes)
    assert_type(await stock(1), list[int])
    assert_type(await stock.refresh(1), list[int])
    assert_type(await stock.invalidate(1), bool)
    assert_type(await Shop().stock(1), int)
    assert_type(await Shop.later(1), float)
    assert_type(await apurge(tags=["a"]), int)
    assert_type(await connect("locmem://").aincr("a"), int)


assert_type(cachemw.cache, BaseCache)
assert_type(cache, BaseCache)
assert_type(caches["default"], BaseCache)
assert_type(Caches({"CACHES": {}}).all(), list[BaseCache])
assert_type(cache.incr("a"), int)
assert_type(cache.add("a", 1, timeout=None), bool)
assert_type(purge("http://localhost/", tags=("a",), soft=True), int)
assert_type(get_cache_key({}), str | None)
assert_type(learn_cache_key({}, {}), str)
assert_type(get_max_age([]), int | None)
assert_type(has_vary_header([], "Cookie"), bool)
assert_type(get_language(), str | None)
assert_type(get_timezone(), str | None)
assert_type(static_url("style.css", folder=StaticFolder("static")), str)
StaticMiddleware(wsgi_app, StaticFolder("static"))
activate_language("de")
deactivate_language()
activate_timezone("UTC")
deactivate_timezone()
patch_cache_control([], max_age=5, private=True)
patch_response_headers([], 60)
patch_vary_headers([], ["Cookie"])
add_never_cache_headers([])
