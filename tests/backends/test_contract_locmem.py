"""Local memory keeps the contract of all stores."""

from __future__ import annotations

import itertools
from typing import Any

import pytest

from cachemw.backends.base import BaseCache
from cachemw.backends.locmem import LocMemCache
from cachemw.testing import BackendContract
from cachemw.testing._face import MakeCache

_names = itertools.count()


class TestLocMem(BackendContract):
    now = 1000.0

    @pytest.fixture
    def make_cache(self) -> MakeCache:
        name = f"contract {next(_names)}"

        def make(**params: Any) -> BaseCache:
            return LocMemCache(name, params, clock=lambda: self.now)

        return make

    def pass_time(self, seconds: float) -> None:
        self.now += seconds
