# mypy: disable-error-code="import-not-found,import-untyped,no-any-return,no-untyped-call"
"""Every way to use a store that is measured: the bare clients, ours and the peers'.

Two peers hand out the very object that was stored, which spares them what the others pickle: `by_reference`.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

from benchmarks.raw_clients import (
    TTL,
    VALUE,
    Client,
    address,
    raw_dict,
    raw_file,
    raw_pylibmc,
    raw_pymemcache,
    raw_redis,
    raw_redis_async,
    raw_sqlite,
)

__all__ = ["CLIENTS", "StoreSubject"]


@dataclass(frozen=True, slots=True)
class StoreSubject:
    """A way to use a store; `kind` is "raw", "own" or "peer".

    `asynchronous`: its functions are coroutine functions.
    `by_reference`: what is read is the object that was written, so that its figures compare with no other's.
    """

    name: str
    kind: str
    store: str
    url: str
    build: Callable[[str], Client]
    asynchronous: bool = False
    by_reference: bool = False


def own(url: str) -> Client:
    cache = _connected(url)
    return Client(
        cache.get,
        lambda key, value: cache.set(key, value, TTL),
        cache.get_many,
        lambda values: cache.set_many(values, TTL),
        cache.incr,
        VALUE,
    )


def own_text(url: str) -> Client:
    """Values that need no pickle, for they cannot change."""
    cache = _connected(url)
    return Client(
        cache.get,
        lambda key, value: cache.set(key, value, TTL),
        cache.get_many,
        lambda values: cache.set_many(values, TTL),
        cache.incr,
        "an immutable value, as fragments are",
    )


def own_async(url: str) -> Client:
    cache = _connected(url)
    return Client(
        cache.aget,
        lambda key, value: cache.aset(key, value, TTL),
        cache.aget_many,
        lambda values: cache.aset_many(values, TTL),
        cache.aincr,
        VALUE,
    )


def _connected(url: str) -> Any:
    from cachemw.backends.registry import connect

    cache = connect(url)
    if url.startswith("db+"):
        from cachemw.backends.db import DatabaseCache

        assert isinstance(cache, DatabaseCache)
        cache.create_table()
    return cache


def django(url: str) -> Client:
    from django.conf import settings

    scheme, _, place = url.partition("://")
    backend, location = {
        "locmem": ("locmem.LocMemCache", "bench"),
        "redis": ("redis.RedisCache", url),
        "memcached": ("memcached.PyMemcacheCache", place),
        "pylibmc": ("memcached.PyLibMCCache", place),
        "file": ("filebased.FileBasedCache", place),
        "db+sqlite": ("db.DatabaseCache", "cache"),
    }[scheme]
    config: dict[str, Any] = {"BACKEND": f"django.core.cache.backends.{backend}", "LOCATION": location}
    if scheme in ("locmem", "file", "db+sqlite"):
        config["OPTIONS"] = {"MAX_ENTRIES": 100_000}
    options = {"init_command": "PRAGMA journal_mode = WAL; PRAGMA synchronous = NORMAL"}
    database = {"ENGINE": "django.db.backends.sqlite3", "NAME": place[1:], "OPTIONS": options}
    settings.configure(CACHES={"default": config}, DATABASES={"default": database} if scheme == "db+sqlite" else {})
    import django as package

    package.setup()
    if scheme == "db+sqlite":
        from django.core.management import call_command

        call_command("createcachetable", verbosity=0)
    from django.core.cache import caches

    cache = caches["default"]
    return Client(
        cache.get,
        lambda key, value: cache.set(key, value, TTL),
        cache.get_many,
        lambda values: cache.set_many(values, TTL),
        cache.incr,
        VALUE,
    )


def cachelib(url: str) -> Client:
    import cachelib

    scheme, _, place = url.partition("://")
    cache: Any
    if scheme == "locmem":
        cache = cachelib.SimpleCache(threshold=100_000)
    elif scheme == "redis":
        cache = cachelib.RedisCache(*address(url))
    elif scheme == "pylibmc":
        cache = cachelib.MemcachedCache([place])
    else:
        cache = cachelib.FileSystemCache(place, threshold=100_000)
    return Client(
        cache.get,
        lambda key, value: cache.set(key, value, TTL),
        lambda keys: cache.get_many(*keys),
        lambda values: cache.set_many(values, TTL),
        cache.inc,
        VALUE,
    )


def aiocache(url: str) -> Client:
    from aiocache import Cache
    from aiocache.serializers import PickleSerializer

    if url.startswith("locmem"):
        cache = Cache(Cache.MEMORY)
    else:
        host, port = address(url)
        cache = Cache(Cache.REDIS, endpoint=host, port=port, serializer=PickleSerializer())
    return Client(
        cache.get,
        lambda key, value: cache.set(key, value, ttl=TTL),
        cache.multi_get,
        lambda values: cache.multi_set(list(values.items()), ttl=TTL),
        cache.increment,
        VALUE,
        number=None,
    )


def cashews(url: str) -> Client:
    from cashews import Cache

    cache = Cache()
    cache.setup("mem://?size=100000" if url.startswith("locmem") else url)
    return Client(
        cache.get,
        lambda key, value: cache.set(key, value, expire=TTL),
        lambda keys: cache.get_many(*keys),
        lambda values: cache.set_many(values, expire=TTL),
        cache.incr,
        VALUE,
        number=None,
    )


def diskcache(url: str) -> Client:
    import diskcache

    cache = diskcache.Cache(url.partition("///")[2] + ".d")

    def set_many(values: Mapping[str, Any]) -> None:
        with cache.transact():
            for key, value in values.items():
                cache.set(key, value, TTL)

    def get_many(keys: Sequence[str]) -> Any:
        with cache.transact():
            return {key: cache.get(key) for key in keys}

    return Client(cache.get, lambda key, value: cache.set(key, value, TTL), get_many, set_many, cache.incr, VALUE)


_REDIS: Final = "redis://127.0.0.1:{redis}/0"
_LOCMEM: Final = "locmem://?max_entries=100000"
_FILE: Final = "file://{folder}/entries?max_entries=100000"
_SQLITE: Final = "db+sqlite:///{folder}/entries.sqlite3?max_entries=100000"

#: The first of each store is what the others are held against.
CLIENTS: Final = {
    subject.name: subject
    for subject in (
        StoreSubject("raw-dict-pickle", "raw", "locmem", "", raw_dict),
        StoreSubject("cachemw-locmem", "own", "locmem", _LOCMEM, own),
        StoreSubject("cachemw-locmem-text", "own", "locmem", _LOCMEM, own_text),
        StoreSubject("cachemw-locmem-async", "own", "locmem", _LOCMEM, own_async, asynchronous=True),
        StoreSubject("django-locmem", "peer", "locmem", "locmem://", django),
        StoreSubject("cachelib-simple", "peer", "locmem", "locmem://", cachelib),
        StoreSubject("aiocache-mem", "peer", "locmem", "locmem://", aiocache, asynchronous=True, by_reference=True),
        StoreSubject("cashews-mem", "peer", "locmem", "locmem://", cashews, asynchronous=True, by_reference=True),
        StoreSubject("raw-redis-py", "raw", "redis", _REDIS, raw_redis),
        StoreSubject("raw-redis-py-async", "raw", "redis", _REDIS, raw_redis_async, asynchronous=True),
        StoreSubject("cachemw-redis", "own", "redis", _REDIS, own),
        StoreSubject("cachemw-redis-async", "own", "redis", _REDIS, own_async, asynchronous=True),
        StoreSubject("django-redis", "peer", "redis", _REDIS, django),
        StoreSubject("cachelib-redis", "peer", "redis", _REDIS, cachelib),
        StoreSubject("aiocache-redis", "peer", "redis", _REDIS, aiocache, asynchronous=True),
        StoreSubject("cashews-redis", "peer", "redis", _REDIS, cashews, asynchronous=True),
        StoreSubject("raw-pymemcache", "raw", "memcached", "memcached://127.0.0.1:{memcached}", raw_pymemcache),
        StoreSubject("raw-pylibmc", "raw", "memcached", "pylibmc://127.0.0.1:{memcached}", raw_pylibmc),
        StoreSubject("cachemw-pymemcache", "own", "memcached", "memcached://127.0.0.1:{memcached}", own),
        StoreSubject("cachemw-pylibmc", "own", "memcached", "memcached+pylibmc://127.0.0.1:{memcached}", own),
        StoreSubject(
            "cachemw-memcached-async",
            "own",
            "memcached",
            "memcached://127.0.0.1:{memcached}",
            own_async,
            asynchronous=True,
        ),
        StoreSubject("django-pymemcache", "peer", "memcached", "memcached://127.0.0.1:{memcached}", django),
        StoreSubject("django-pylibmc", "peer", "memcached", "pylibmc://127.0.0.1:{memcached}", django),
        StoreSubject("cachelib-pylibmc", "peer", "memcached", "pylibmc://127.0.0.1:{memcached}", cachelib),
        StoreSubject("raw-file", "raw", "file", "file://{folder}/entries", raw_file),
        StoreSubject("cachemw-file", "own", "file", _FILE, own),
        StoreSubject("django-file", "peer", "file", "file://{folder}/entries", django),
        StoreSubject("cachelib-file", "peer", "file", "file://{folder}/entries", cachelib),
        StoreSubject("raw-sqlite", "raw", "sqlite", "db+sqlite:///{folder}/entries.sqlite3", raw_sqlite),
        StoreSubject("cachemw-sqlite", "own", "sqlite", _SQLITE, own),
        StoreSubject("django-sqlite-wal", "peer", "sqlite", "db+sqlite:///{folder}/entries.sqlite3", django),
        StoreSubject("diskcache", "peer", "sqlite", "db+sqlite:///{folder}/entries", diskcache),
    )
}
