"""A local tier keeps the contract of the store behind it: on Redis, which tells of changes, and in a Cluster.

Before Memcached its keys are Memcached's.
"""

from __future__ import annotations

from typing import Any

import pytest

from cachemw.backends.base import BaseCache
from cachemw.backends.tiered import TieredCache
from cachemw.testing import BackendContract
from cachemw.testing._face import Contract, MakeCache
from cachemw.testing._keys import KeyContract
from tests.servers import RedisCluster, redis_command, shared, start_memcached, start_redis


class OnTiers(Contract):
    @pytest.fixture
    def shared_store(self) -> dict[str, Any]:
        server = shared(start_redis)
        redis_command(server, "FLUSHALL")
        options = {"socket_timeout": 5, "socket_connect_timeout": 5}
        location = f"redis://{server.address}/0"
        return {"BACKEND": "cachemw.backends.redis.RedisCache", "LOCATION": location, "OPTIONS": options}

    @pytest.fixture
    def make_cache(self, shared_store: dict[str, Any]) -> MakeCache:
        made: list[TieredCache] = []

        def make(**params: Any) -> BaseCache:
            cache = TieredCache("", {**params, "OPTIONS": {"shared": shared_store, **params.pop("OPTIONS", {})}})
            if made:  # a change reaches another tier only a moment later; the contract's caches share one
                cache._tier = made[0]._tier
            made.append(cache)
            return cache

        return make


class TestOnRedis(OnTiers, BackendContract):
    pass


class TestKeysBeforeMemcached(OnTiers, KeyContract):
    @pytest.fixture
    def shared_store(self) -> dict[str, Any]:
        options = {"timeout": 5, "connect_timeout": 5}
        location = shared(start_memcached).address
        return {"BACKEND": "cachemw.backends.memcached.PyMemcacheCache", "LOCATION": location, "OPTIONS": options}


class TestInACluster(OnTiers, BackendContract):
    @pytest.fixture
    def shared_store(self) -> dict[str, Any]:
        for server in shared(RedisCluster).leaders:
            redis_command(server, "FLUSHALL")
        options = {"socket_timeout": 5, "socket_connect_timeout": 5}
        return {
            "BACKEND": "cachemw.backends.redis.RedisCache",
            "LOCATION": shared(RedisCluster).url,
            "OPTIONS": options,
        }
