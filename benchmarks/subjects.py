"""Everything that is measured behind a page: by name, with how to build it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Final, Literal

from benchmarks.drivers import AsgiDriver, Driver, WsgiDriver
from benchmarks.traffic import Origin, bare_asgi, bare_wsgi

__all__ = ["SUBJECTS", "Subject"]

Kind = Literal["bare", "prototype", "limit", "own", "peer"]
Interface = Literal["wsgi", "asgi"]


@dataclass(frozen=True, slots=True)
class Subject:
    """`build(origin, url)` makes the driver; in `url`, "{redis}", "{memcached}" and "{folder}" are filled in."""

    name: str
    kind: Kind
    interface: Interface
    store: str
    url: str
    build: Callable[[Origin, str], Driver]


URLS: Final = {
    "-": "",
    "locmem": "locmem://?max_entries=1000000&max_bytes=1000000000",  # as every subject: nothing is evicted meanwhile
    "redis": "redis://127.0.0.1:{redis}/0",
    "memcached": "memcached://127.0.0.1:{memcached}",
    "file": "file://{folder}/pages",
    "sqlite": "db+sqlite:///{folder}/pages.sqlite3",
    "tiered": "tiered+redis://127.0.0.1:{redis}/0",
}


def _own_wsgi(origin: Origin, url: str) -> Driver:
    from cachemw.wsgi import CacheMiddleware

    return WsgiDriver(CacheMiddleware(bare_wsgi(origin), cache=url))


def _own_asgi(origin: Origin, url: str) -> Driver:
    from cachemw.asgi import CacheMiddleware

    return AsgiDriver(CacheMiddleware(bare_asgi(origin), cache=url))


def _proto_asgi(origin: Origin, url: str) -> Driver:
    from benchmarks.prototypes import ProtoAsgi

    return AsgiDriver(ProtoAsgi(bare_asgi(origin)))


def _proto_wsgi(origin: Origin, url: str) -> Driver:
    from benchmarks.prototypes import ProtoWsgi

    return WsgiDriver(ProtoWsgi(bare_wsgi(origin)))


def _dictionary(fields: bool) -> Callable[[Origin, str], Driver]:
    def build(origin: Origin, url: str) -> Driver:
        from benchmarks.prototypes import DictOfPages

        return WsgiDriver(DictOfPages(bare_wsgi(origin), fields=fields))

    return build


def _port(url: str) -> int:
    return int(url.rpartition(":")[2].partition("/")[0])


def _proto_asgi_redis(origin: Origin, url: str) -> Driver:
    from benchmarks.bare_stores import AsyncRedis
    from benchmarks.prototypes import ProtoAsgiPacked

    return AsgiDriver(ProtoAsgiPacked(bare_asgi(origin), AsyncRedis(_port(url))))


def _proto_wsgi_packed(origin: Origin, url: str) -> Driver:
    from benchmarks import bare_stores
    from benchmarks.prototypes import ProtoWsgiPacked

    scheme, _, place = url.partition("://")
    store: Any
    if scheme == "redis":
        store = bare_stores.Redis(_port(url))
    elif scheme == "memcached":
        store = bare_stores.Memcached(_port(url))
    else:
        store = bare_stores.Files(place) if scheme == "file" else bare_stores.Sqlite(place[1:])
    return WsgiDriver(ProtoWsgiPacked(bare_wsgi(origin), store))


def _peer(function: str) -> Callable[[Origin, str], Any]:
    def build(origin: Origin, url: str) -> Any:
        from benchmarks import peers

        return getattr(peers, function)(origin, url)

    return build


def _subjects() -> list[Subject]:
    found = [
        Subject("bare-asgi", "bare", "asgi", "-", "", lambda origin, url: AsgiDriver(bare_asgi(origin))),
        Subject("bare-wsgi", "bare", "wsgi", "-", "", lambda origin, url: WsgiDriver(bare_wsgi(origin))),
        Subject("proto-asgi-full", "prototype", "asgi", "locmem", "", _proto_asgi),
        Subject("proto-wsgi-full", "prototype", "wsgi", "locmem", "", _proto_wsgi),
        Subject("proto-asgi-rawredis", "prototype", "asgi", "redis", URLS["redis"], _proto_asgi_redis),
        Subject("proto-wsgi-rawredis", "prototype", "wsgi", "redis", URLS["redis"], _proto_wsgi_packed),
        Subject("proto-wsgi-memcached", "prototype", "wsgi", "memcached", URLS["memcached"], _proto_wsgi_packed),
        Subject("proto-wsgi-file", "prototype", "wsgi", "file", URLS["file"], _proto_wsgi_packed),
        Subject("proto-wsgi-sqlite", "prototype", "wsgi", "sqlite", URLS["sqlite"], _proto_wsgi_packed),
    ]
    found += [
        Subject("dict-bodies", "limit", "wsgi", "dict", "", _dictionary(fields=False)),
        Subject("dict-pages", "limit", "wsgi", "dict", "", _dictionary(fields=True)),
    ]
    for store in ("locmem", "redis", "memcached", "file", "sqlite", "tiered"):
        found.append(Subject(f"cachemw-asgi-{store}", "own", "asgi", store, URLS[store], _own_asgi))
        found.append(Subject(f"cachemw-wsgi-{store}", "own", "wsgi", store, URLS[store], _own_wsgi))
    peers: list[tuple[str, Interface, str, tuple[str, ...]]] = [
        ("django-wsgi", "wsgi", "django_wsgi", ("locmem", "redis", "memcached", "file")),
        ("django-asgi", "asgi", "django_asgi", ("locmem", "redis", "memcached")),
        ("flask-caching", "wsgi", "flask_caching", ("locmem", "redis", "memcached", "file")),
        ("starlette-caches", "asgi", "starlette_caches", ("locmem", "redis")),
        ("asgi-caches", "asgi", "asgi_caches", ("locmem",)),
        ("fastapi-cache2", "asgi", "fastapi_cache2", ("locmem", "redis")),
        ("aiocache", "asgi", "aiocache_decorator", ("locmem", "redis")),
        ("cashews", "asgi", "cashews_decorator", ("locmem", "redis")),
        ("cashews-mw", "asgi", "cashews_middleware", ("locmem", "redis")),
    ]
    for name, interface, function, stores in peers:
        for store in stores:
            found.append(Subject(f"{name}-{store}", "peer", interface, store, URLS[store], _peer(function)))
    return found


SUBJECTS: Final = {subject.name: subject for subject in _subjects()}
