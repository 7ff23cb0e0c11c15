"""Redis keeps the contract of all stores: alone, behind Sentinels, and as a Cluster; and Valkey does."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import pytest

from cachemw.backends.base import BaseCache
from cachemw.backends.redis import RedisCache
from cachemw.testing import BackendContract
from cachemw.testing._face import MakeCache
from tests.servers import RedisCluster, RedisSentinel, Server, redis_command, shared, start_redis, start_valkey


class OnRedis(BackendContract):
    @pytest.fixture
    def location(self) -> str | Sequence[str]:
        return f"redis://{shared(start_redis).address}/0"

    @pytest.fixture
    def leaders(self) -> list[Server]:
        return [shared(start_redis)]

    @pytest.fixture
    def make_cache(self, location: str | Sequence[str], leaders: list[Server]) -> MakeCache:
        for server in leaders:  # `clear` leaves what has other prefixes
            redis_command(server, "FLUSHALL")

        def make(**params: Any) -> BaseCache:
            # the machine may be busy, and these tests are not about deadlines
            options = {"socket_timeout": 5, "socket_connect_timeout": 5, **params.pop("OPTIONS", {})}
            return RedisCache(location, {**params, "OPTIONS": options})

        return make


class TestOneServer(OnRedis):
    pass


class TestValkey(OnRedis):
    @pytest.fixture
    def location(self) -> str | Sequence[str]:
        return f"redis://{shared(start_valkey).address}/0"

    @pytest.fixture
    def leaders(self) -> list[Server]:
        return [shared(start_valkey)]


class TestSentinel(OnRedis):
    @pytest.fixture
    def location(self) -> str | Sequence[str]:
        return shared(RedisSentinel).url

    @pytest.fixture
    def leaders(self) -> list[Server]:
        return [shared(RedisSentinel).leader]


class TestCluster(OnRedis):
    @pytest.fixture
    def location(self) -> str | Sequence[str]:
        return shared(RedisCluster).url

    @pytest.fixture
    def leaders(self) -> list[Server]:
        return shared(RedisCluster).leaders
