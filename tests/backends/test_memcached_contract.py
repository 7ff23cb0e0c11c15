"""Memcached keeps the contract of all stores: each client library, alone and on a ring of three servers."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, ClassVar

import pytest

from cachemw.backends.base import BaseCache
from cachemw.backends.memcached import PyLibMCCache, PyMemcacheCache
from cachemw.testing import BackendContract
from cachemw.testing._concurrency import ConcurrencyContract
from cachemw.testing._counting import CountingContract
from cachemw.testing._face import Contract, MakeCache
from cachemw.testing._keys import KeyContract
from cachemw.testing._pages import PageContract
from cachemw.testing._values import ValueContract
from tests.servers import MemcachedRing, shared, start_memcached


class OnMemcached(Contract):
    shortest_timeout = 1.0  # memcached counts whole seconds
    make: ClassVar[type[BaseCache]]

    @pytest.fixture
    def location(self) -> Sequence[str]:
        return [shared(start_memcached).address]

    @pytest.fixture
    def make_cache(self, location: Sequence[str]) -> MakeCache:
        def make(**params: Any) -> BaseCache:
            # the machine may be busy, and these tests are not about deadlines
            options = {"timeout": 5, "connect_timeout": 5} | params.pop("OPTIONS", {})
            return self.make(location, {**params, "OPTIONS": options})

        return make


class TestPyMemcache(OnMemcached, BackendContract):
    make = PyMemcacheCache


class TestPyLibMC(OnMemcached, BackendContract):
    make = PyLibMCCache


class OnThreeServers(OnMemcached, ValueContract, CountingContract, KeyContract, PageContract, ConcurrencyContract):
    """Without what is one server's own affair and takes seconds: timeouts."""

    @pytest.fixture
    def location(self) -> Sequence[str]:
        return shared(MemcachedRing).location


class TestPyMemcacheOnThreeServers(OnThreeServers):
    make = PyMemcacheCache


class TestPyLibMCOnThreeServers(OnThreeServers):
    make = PyLibMCCache
