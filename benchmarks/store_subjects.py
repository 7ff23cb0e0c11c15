# mypy: disable-error-code="import-not-found,import-untyped,no-any-return,no-untyped-call"
"""The stores' clients, ours, the peers' and the bare ones, under five names: get, set, get_many, set_many, incr.

The bare ones keep pickled bytes as they are, for a client's work ends there; "raw-dict-pickle" pickles, for a store of
this process has to, lest two callers share a value that one of them changes. Two peers share it all the same.
"""

from __future__ import annotations

import pickle
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

__all__ = ["CLIENTS", "TTL", "VALUE", "Client", "StoreSubject"]

TTL: Final = 300
VALUE: Final = {"id": 12345, "name": "Ada Lovelace", "tags": ["a", "b", "c"], "active": True, "score": 3.14}
_PICKLED: Final = pickle.dumps(VALUE, pickle.HIGHEST_PROTOCOL)


@dataclass(frozen=True, slots=True)
class Client:
    """Five operations. `kept` is what `get` returns of what `set` was given."""

    get: Callable[[str], Any]
    set: Callable[[str, Any], Any]
    get_many: Callable[[Sequence[str]], Any] | None
    set_many: Callable[[Mapping[str, Any]], Any] | None
    incr: Callable[[str], Any]
    value: Any = None
    number: Any = 1  # what makes a counter


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


def raw_dict(url: str) -> Client:
    kept: dict[str, Any] = {}

    def set_(key: str, value: Any) -> None:
        kept[key] = pickle.dumps(value, pickle.HIGHEST_PROTOCOL)

    def get(key: str) -> Any:
        stored = kept[key]
        return stored if type(stored) is int else pickle.loads(stored)

    def incr(key: str) -> int:
        stored = kept[key]
        value: int = (stored if type(stored) is int else pickle.loads(stored)) + 1
        kept[key] = value
        return value

    def set_many(values: Mapping[str, Any]) -> None:
        for key, value in values.items():
            set_(key, value)

    return Client(get, set_, lambda keys: {key: get(key) for key in keys}, set_many, incr, VALUE)


def _address(url: str) -> tuple[str, int]:
    host, _, port = url.partition("://")[2].partition("/")[0].partition(":")
    return host, int(port)


def raw_redis(url: str) -> Client:
    import redis

    client = redis.Redis.from_url(url)

    def set_many(values: Mapping[str, Any]) -> None:
        pipeline = client.pipeline(transaction=False)
        for key, value in values.items():
            pipeline.set(key, value, ex=TTL)
        pipeline.execute()

    return Client(
        client.get, lambda key, value: client.set(key, value, ex=TTL), client.mget, set_many, client.incr, _PICKLED
    )


def raw_redis_async(url: str) -> Client:
    from redis import asyncio

    client = asyncio.Redis.from_url(url)

    async def set_many(values: Mapping[str, Any]) -> None:
        pipeline = client.pipeline(transaction=False)
        for key, value in values.items():
            pipeline.set(key, value, ex=TTL)
        await pipeline.execute()

    return Client(
        client.get,
        lambda key, value: client.set(key, value, ex=TTL),
        client.mget,
        set_many,
        client.incr,
        _PICKLED,
    )


def raw_pymemcache(url: str) -> Client:
    from pymemcache import Client as Memcache

    client = Memcache(_address(url), no_delay=True, default_noreply=False)
    return Client(
        client.get,
        lambda key, value: client.set(key, value, TTL),
        client.get_many,
        lambda values: client.set_many(values, TTL),
        lambda key: client.incr(key, 1),
        _PICKLED,
        number=b"1",
    )


def raw_pylibmc(url: str) -> Client:
    import pylibmc

    client = pylibmc.Client([":".join(map(str, _address(url)))], binary=True, behaviors={"tcp_nodelay": True})
    return Client(
        client.get,
        lambda key, value: client.set(key, value, TTL),
        client.get_multi,
        lambda values: client.set_multi(values, TTL),
        lambda key: client.incr(key, 1),
        _PICKLED,
    )


def raw_file(url: str) -> Client:
    import os
    import tempfile

    folder = url.partition("://")[2]
    os.makedirs(folder, exist_ok=True)

    def get(key: str) -> bytes:
        with open(f"{folder}/{key}", "rb") as file:
            return file.read()

    def set_(key: str, value: Any) -> None:
        descriptor, path = tempfile.mkstemp(dir=folder)
        with open(descriptor, "wb") as file:
            file.write(value)
        os.replace(path, f"{folder}/{key}")

    def incr(key: str) -> None:
        set_(key, b"%d" % (int(get(key)) + 1))

    def set_many(values: Mapping[str, Any]) -> None:
        for key, value in values.items():
            set_(key, value)

    return Client(get, set_, lambda keys: [get(key) for key in keys], set_many, incr, _PICKLED, number=b"1")


def raw_sqlite(url: str) -> Client:
    import sqlite3
    from time import time

    connection = sqlite3.connect(url.partition("///")[2], isolation_level=None)
    connection.execute("PRAGMA journal_mode = WAL")
    connection.execute("PRAGMA synchronous = NORMAL")
    connection.execute("CREATE TABLE cache (key TEXT PRIMARY KEY, value, expires REAL)")
    upsert = (
        "INSERT INTO cache VALUES (?, ?, ?) ON CONFLICT (key) DO UPDATE "
        "SET value = excluded.value, expires = excluded.expires"
    )

    def get(key: str) -> Any:
        query = "SELECT value FROM cache WHERE key = ? AND expires > ?"
        return connection.execute(query, (key, time())).fetchone()[0]

    def get_many(keys: Sequence[str]) -> Any:
        marks = ", ".join("?" * len(keys))
        query = f"SELECT key, value FROM cache WHERE key IN ({marks}) AND expires > ?"
        return dict(connection.execute(query, (*keys, time())).fetchall())

    def set_many(values: Mapping[str, Any]) -> None:
        expires = time() + TTL
        connection.execute("BEGIN")
        connection.executemany(upsert, [(key, value, expires) for key, value in values.items()])
        connection.execute("COMMIT")

    def incr(key: str) -> Any:
        return connection.execute("UPDATE cache SET value = value + 1 WHERE key = ? RETURNING value", (key,)).fetchone()

    def set_(key: str, value: Any) -> None:
        connection.execute(upsert, (key, value, time() + TTL))

    return Client(get, set_, get_many, set_many, incr, _PICKLED)


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
        cache = cachelib.RedisCache(*_address(url))
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
        host, port = _address(url)
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
