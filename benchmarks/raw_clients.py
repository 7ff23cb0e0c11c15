# mypy: disable-error-code="import-untyped,no-any-return,no-untyped-call"
"""The bare clients of the stores under five names: get, set, get_many, set_many, incr.

They keep pickled bytes as they are, for a client's work ends there; the dictionary pickles, for a store of this process
has to, lest two callers share a value that one of them changes.
"""

from __future__ import annotations

import pickle
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

__all__ = [
    "TTL",
    "VALUE",
    "Client",
    "address",
    "raw_dict",
    "raw_file",
    "raw_pylibmc",
    "raw_pymemcache",
    "raw_redis",
    "raw_redis_async",
    "raw_sqlite",
]

TTL: Final = 300
VALUE: Final = {"id": 12345, "name": "Ada Lovelace", "tags": ["a", "b", "c"], "active": True, "score": 3.14}
_PICKLED: Final = pickle.dumps(VALUE, pickle.HIGHEST_PROTOCOL)


@dataclass(frozen=True, slots=True)
class Client:
    """Five operations; `value` is what is written and read again, `number` what makes a counter (None: nothing)."""

    get: Callable[[str], Any]
    set: Callable[[str, Any], Any]
    get_many: Callable[[Sequence[str]], Any] | None
    set_many: Callable[[Mapping[str, Any]], Any] | None
    incr: Callable[[str], Any]
    value: Any = None
    number: Any = 1  # what makes a counter


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


def address(url: str) -> tuple[str, int]:
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

    client = Memcache(address(url), no_delay=True, default_noreply=False)
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

    client = pylibmc.Client([":".join(map(str, address(url)))], binary=True, behaviors={"tcp_nodelay": True})
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
