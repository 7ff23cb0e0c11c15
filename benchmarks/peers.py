# mypy: disable-error-code="import-not-found,import-untyped,untyped-decorator,no-any-return"
"""The peers, each set up as its documentation says, in front of the same content.

They are imported where they are built: each lives in its own process, in an environment of its own (two of them pin
Starlette below 1), so that neither this project nor another peer decides what they run on.
"""

from __future__ import annotations

from typing import Any

from benchmarks.drivers import AsgiDriver, WsgiDriver
from benchmarks.traffic import KINDS, Origin, bare_asgi

__all__ = [
    "aiocache_decorator",
    "asgi_caches",
    "cashews_decorator",
    "cashews_middleware",
    "django_asgi",
    "django_wsgi",
    "fastapi_cache2",
    "flask_caching",
    "starlette_caches",
]

_ENTRIES = 1_000_000
_SECONDS = 3600


def _django(origin: Origin, url: str) -> None:
    import django
    from django.conf import settings
    from django.http import HttpResponse
    from django.urls import path

    def page(request: Any, kind: str, name: str) -> Any:
        return HttpResponse(origin.body(kind), headers=dict(origin.fields(kind)))

    backends = {
        "locmem": "django.core.cache.backends.locmem.LocMemCache",
        "redis": "django.core.cache.backends.redis.RedisCache",
        "memcached": "django.core.cache.backends.memcached.PyMemcacheCache",
        "file": "django.core.cache.backends.filebased.FileBasedCache",
    }
    scheme, _, place = url.partition("://")
    location = {"locmem": "bench", "redis": url, "memcached": place, "file": place}[scheme]
    cache: dict[str, Any] = {"BACKEND": backends[scheme], "LOCATION": location}
    if scheme in ("locmem", "file"):
        cache["OPTIONS"] = {"MAX_ENTRIES": _ENTRIES}
    settings.configure(
        ALLOWED_HOSTS=["*"],
        CACHES={"default": cache},
        MIDDLEWARE=[
            "django.middleware.cache.UpdateCacheMiddleware",
            "django.middleware.cache.FetchFromCacheMiddleware",
        ],
        ROOT_URLCONF=type("urls", (), {"urlpatterns": [path("<str:kind>/<str:name>", page)]}),
        USE_I18N=False,
        USE_TZ=False,
        LOGGING_CONFIG=None,
    )
    django.setup()


def django_wsgi(origin: Origin, url: str) -> WsgiDriver:
    _django(origin, url)
    from django.core.wsgi import get_wsgi_application

    return WsgiDriver(get_wsgi_application())


def django_asgi(origin: Origin, url: str) -> AsgiDriver:
    _django(origin, url)
    from django.core.asgi import get_asgi_application

    return AsgiDriver(get_asgi_application())


def flask_caching(origin: Origin, url: str) -> WsgiDriver:
    from flask import Flask, Response
    from flask_caching import Cache

    scheme, _, place = url.partition("://")
    host, _, port = place.partition("/")[0].partition(":")
    types: dict[str, dict[str, Any]] = {
        "locmem": {"CACHE_TYPE": "SimpleCache", "CACHE_THRESHOLD": _ENTRIES},
        "redis": {"CACHE_TYPE": "RedisCache", "CACHE_REDIS_HOST": host, "CACHE_REDIS_PORT": port},
        "memcached": {"CACHE_TYPE": "MemcachedCache", "CACHE_MEMCACHED_SERVERS": [place]},
        "file": {"CACHE_TYPE": "FileSystemCache", "CACHE_DIR": place, "CACHE_THRESHOLD": _ENTRIES},
    }
    app = Flask("bench")
    cache = Cache(app, config=types[scheme])

    @app.get("/<kind>/<name>")
    @cache.cached(timeout=_SECONDS)
    def page(kind: str, name: str) -> Any:
        return Response(origin.body(kind), headers=origin.fields(kind))

    return WsgiDriver(app)


def starlette_caches(origin: Origin, url: str) -> AsgiDriver:
    from aiocache import Cache
    from starlette_caches.middleware import CacheMiddleware

    cache = Cache.from_url("memory://" if url.startswith("locmem") else url)
    return AsgiDriver(CacheMiddleware(bare_asgi(origin), cache=cache))


def asgi_caches(origin: Origin, url: str) -> AsgiDriver:
    from asgi_caches.middleware import CacheMiddleware
    from caches import Cache

    cache = Cache("locmem://bench", ttl=_SECONDS)
    return AsgiDriver(CacheMiddleware(bare_asgi(origin), cache=cache), startup=cache.connect())


def fastapi_cache2(origin: Origin, url: str) -> AsgiDriver:
    from fastapi import FastAPI
    from fastapi_cache import FastAPICache
    from fastapi_cache.backends.inmemory import InMemoryBackend
    from fastapi_cache.decorator import cache

    app = FastAPI()

    @app.get("/{kind}/{name}")
    @cache(expire=_SECONDS)
    async def page(kind: str, name: str) -> str:  # it keeps values, not responses: the body as JSON
        return (await origin.abody(kind)).decode()

    if url.startswith("redis"):
        from fastapi_cache.backends.redis import RedisBackend
        from redis import asyncio as aioredis

        FastAPICache.init(RedisBackend(aioredis.from_url(url)), prefix="bench")
    else:
        FastAPICache.init(InMemoryBackend(), prefix="bench")
    return AsgiDriver(app)


def _starlette(origin: Origin, page: Any) -> Any:
    from starlette.applications import Starlette
    from starlette.responses import Response
    from starlette.routing import Route

    headers = {kind: dict(origin.fields(kind)) for kind in KINDS}

    async def endpoint(request: Any) -> Response:
        kind = request.path_params["kind"]
        return Response(await page(kind, request.path_params["name"]), headers=headers[kind])

    return Starlette(routes=[Route("/{kind}/{name}", endpoint)])


def aiocache_decorator(origin: Origin, url: str) -> AsgiDriver:
    from aiocache import Cache, cached

    scheme, _, place = url.partition("://")
    host, _, port = place.partition("/")[0].partition(":")
    where: dict[str, Any] = {"cache": Cache.MEMORY}
    if scheme == "redis":
        from aiocache.serializers import PickleSerializer

        where = {"cache": Cache.REDIS, "endpoint": host, "port": int(port), "serializer": PickleSerializer()}

    @cached(ttl=_SECONDS, key_builder=lambda function, kind, name: f"{kind}/{name}", **where)
    async def page(kind: str, name: str) -> bytes:
        return await origin.abody(kind)

    return AsgiDriver(_starlette(origin, page))


def _cashews(url: str) -> Any:
    from cashews import Cache

    cache = Cache()
    cache.setup("mem://?size=1000000&check_interval=3600" if url.startswith("locmem") else url)
    return cache


def cashews_decorator(origin: Origin, url: str) -> AsgiDriver:
    cache = _cashews(url)

    @cache(ttl=_SECONDS, key="page:{kind}:{name}")
    async def page(kind: str, name: str) -> bytes:
        return await origin.abody(kind)

    return AsgiDriver(_starlette(origin, page), startup=cache.init())


def cashews_middleware(origin: Origin, url: str) -> AsgiDriver:
    from cashews.contrib.fastapi import CacheEtagMiddleware, CacheRequestControlMiddleware

    cache = _cashews(url)

    @cache(ttl=_SECONDS, key="page:{kind}:{name}")
    async def page(kind: str, name: str) -> bytes:
        return await origin.abody(kind)

    app = _starlette(origin, page)
    app.add_middleware(CacheEtagMiddleware, cache_instance=cache)
    app.add_middleware(CacheRequestControlMiddleware, cache_instance=cache)
    return AsgiDriver(app, startup=cache.init())
