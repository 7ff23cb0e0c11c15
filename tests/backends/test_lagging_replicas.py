"""What is read in order to change it is read where it is written: a replica that lags decides over nothing."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from cachemw.backends.base import BaseCache
from cachemw.backends.db import DatabaseCache
from cachemw.backends.redis import RedisCache
from cachemw.backends.tiered import TieredCache
from tests.backends.test_pages_on_stores import PATIENT
from tests.servers import shared, start_redis

REDIS = {"BACKEND": "cachemw.backends.redis.RedisCache", "OPTIONS": PATIENT}


def _late() -> Any:
    """A server that hears of nothing."""
    return start_redis()


def _redis_urls() -> str:
    return ";".join(f"redis://{shared(server).address}/0" for server in (start_redis, _late))


def _sqlite(path: Path) -> BaseCache:
    urls = [f"sqlite:///{path / name}" for name in ("primary", "late")]
    DatabaseCache(urls[1]).create_table()
    return DatabaseCache(urls[0], {"OPTIONS": {"read": urls[1]}})


#: By name: opens a store whose replica stays empty.
STORES: dict[str, Callable[[Path], BaseCache]] = {
    "redis": lambda path: RedisCache(_redis_urls(), {"OPTIONS": PATIENT}),
    "sqlite": _sqlite,
    "tiered": lambda path: TieredCache("", {"OPTIONS": {"shared": {**REDIS, "LOCATION": _redis_urls()}}}),
}


@pytest.fixture(params=STORES)
def cache(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[BaseCache]:
    cache = STORES[request.param](tmp_path)
    cache.clear()
    yield cache
    cache.close()


@pytest.fixture(params=["sync", "async"])
def call(request: pytest.FixtureRequest, cache: BaseCache) -> Callable[..., Any]:
    """Calls a method of the cache by its synchronous name."""

    async def acall(name: str, *args: Any) -> Any:
        try:
            return await getattr(cache, f"a{name}")(*args)
        finally:
            await cache.aclose()

    if request.param == "sync":
        return lambda name, *args: getattr(cache, name)(*args)
    return lambda name, *args: asyncio.run(acall(name, *args))


def latest(cache: BaseCache, key: str, version: int = 1) -> Any:
    made = cache.make_key(key, version)
    stored = cache._get_latest((made,))
    return cache._decode(made, stored[made]) if stored else None


def test_a_value_is_moved_that_no_replica_has_yet(cache: BaseCache, call: Callable[..., Any]) -> None:
    cache.set("key", "value", 60)
    assert call("incr_version", "key") == 2
    assert (latest(cache, "key"), latest(cache, "key", 2)) == (None, "value")
    left = cache._timeout_left(cache.make_key("key", 2))
    assert left is not None
    assert 50 < left <= 60


def test_a_value_that_another_has_just_stored_is_not_replaced(cache: BaseCache, call: Callable[..., Any]) -> None:
    cache.set("key", "another's", 60)
    assert call("get_or_set", "key", "mine") == "another's"
    assert latest(cache, "key") == "another's"
