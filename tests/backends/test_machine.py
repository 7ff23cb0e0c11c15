"""Any order of operations on a store does what it does to a dictionary with a clock.

`store_machine(make, pass_time)` gives the test class for a store; other backends' tests use it too.
"""

from __future__ import annotations

import asyncio
import itertools
import math
from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, rule

from cachemw.backends.base import BaseCache
from cachemw.backends.locmem import LocMemCache
from cachemw.testing import Face
from tests.backends.test_contract_base import DictCache

KEYS = st.sampled_from(["a", "b", "c", "d"])
VERSIONS = st.sampled_from([None, 1, 2, 3])
VALUES = (
    st.none()
    | st.booleans()
    | st.integers(-5, 5)
    | st.sampled_from([2**63 - 1, -(2**63), 2**63])
    | st.text(max_size=3)
    | st.binary(max_size=3)
    | st.lists(st.integers(), max_size=2)
)
TIMEOUTS = st.sampled_from([None, 0, -1, 2, 4.5, 10, 1000])

Model = dict[tuple[str, int], tuple[Any, float]]


class Machine(RuleBasedStateMachine):
    """The rules; `make` and `pass_time` are the store's."""

    make: Callable[[], BaseCache]
    pass_time: Callable[[float], None]

    def __init__(self) -> None:
        super().__init__()
        self.now = 0.0
        self.model: Model = {}
        self.runner = asyncio.Runner()
        self.runner.__enter__()

    @initialize(asynchronous=st.booleans())
    def open(self, asynchronous: bool) -> None:
        cache = type(self).make()
        cache.clear()
        self.cache = Face(cache, self.runner.run if asynchronous else None)

    def teardown(self) -> None:
        if hasattr(self, "cache"):
            self.runner.run(self.cache.cache.aclose())
            self.cache.cache.close()
        self.runner.__exit__(None, None, None)

    # -- the model ---------------------------------------------------------------------------------------------------

    def alive(self, key: str, version: int | None) -> tuple[Any, float] | None:
        found = self.model.get((key, version or 1))
        return found if found is not None and found[1] > self.now else None

    def put(self, key: str, version: int | None, value: Any, timeout: float | None) -> None:
        self.model[key, version or 1] = (value, math.inf if timeout is None else self.now + timeout)

    # -- the rules ---------------------------------------------------------------------------------------------------

    @rule(seconds=st.sampled_from([1.0, 3.0, 11.0]))
    def wait(self, seconds: float) -> None:
        type(self).pass_time(seconds)
        self.now += seconds

    @rule(key=KEYS, version=VERSIONS)
    def get(self, key: str, version: int | None) -> None:
        found = self.alive(key, version)
        value = self.cache.get(key, "default", version)
        assert value == ("default" if found is None else found[0])
        assert found is None or type(value) is type(found[0])
        assert self.cache.has_key(key, version) is (found is not None)

    @rule(keys=st.lists(KEYS), version=VERSIONS)
    def get_many(self, keys: list[str], version: int | None) -> None:
        expected = {key: found[0] for key in keys if (found := self.alive(key, version)) is not None}
        assert self.cache.get_many(keys, version) == expected

    @rule(key=KEYS, value=VALUES, timeout=TIMEOUTS, version=VERSIONS)
    def set(self, key: str, value: Any, timeout: float | None, version: int | None) -> None:
        self.cache.set(key, value, timeout, version)
        self.put(key, version, value, timeout)

    @rule(data=st.dictionaries(KEYS, VALUES), timeout=TIMEOUTS, version=VERSIONS)
    def set_many(self, data: dict[str, Any], timeout: float | None, version: int | None) -> None:
        assert self.cache.set_many(data, timeout, version) == []
        for key, value in data.items():
            self.put(key, version, value, timeout)

    @rule(key=KEYS, value=VALUES, timeout=TIMEOUTS, version=VERSIONS)
    def add(self, key: str, value: Any, timeout: float | None, version: int | None) -> None:
        free = self.alive(key, version) is None
        assert self.cache.add(key, value, timeout, version) is free
        if free:
            self.put(key, version, value, timeout)

    @rule(key=KEYS, value=VALUES, timeout=TIMEOUTS, version=VERSIONS)
    def get_or_set(self, key: str, value: Any, timeout: float | None, version: int | None) -> None:
        found = self.alive(key, version)
        assert self.cache.get_or_set(key, lambda: value, timeout, version) == (value if found is None else found[0])
        if found is None:
            self.put(key, version, value, timeout)

    @rule(key=KEYS, timeout=TIMEOUTS, version=VERSIONS)
    def touch(self, key: str, timeout: float | None, version: int | None) -> None:
        found = self.alive(key, version)
        assert self.cache.touch(key, timeout, version) is (found is not None)
        if found is not None:
            self.put(key, version, found[0], timeout)

    @rule(key=KEYS, version=VERSIONS)
    def delete(self, key: str, version: int | None) -> None:
        assert self.cache.delete(key, version) is (self.alive(key, version) is not None)
        self.model.pop((key, version or 1), None)

    @rule(keys=st.lists(KEYS), version=VERSIONS)
    def delete_many(self, keys: list[str], version: int | None) -> None:
        self.cache.delete_many(keys, version)
        for key in keys:
            self.model.pop((key, version or 1), None)

    @rule(key=KEYS, delta=st.integers(-3, 3) | st.just(2**63), version=VERSIONS)
    def incr(self, key: str, delta: int, version: int | None) -> None:
        found = self.alive(key, version)
        if found is None:
            expected: type[Exception] | None = ValueError
        elif type(found[0]) is not int or not -(2**63) <= found[0] < 2**63:
            expected = TypeError
        elif not -(2**63) <= found[0] + delta < 2**63:
            expected = OverflowError
        else:
            expected = None
        if expected is not None:
            with pytest.raises(expected):
                self.cache.incr(key, delta, version)
        else:
            assert found is not None
            assert self.cache.incr(key, delta, version) == found[0] + delta
            self.model[key, version or 1] = (found[0] + delta, found[1])

    @rule(key=KEYS, delta=st.sampled_from([-1, 0, 1, 2]), version=VERSIONS)
    def incr_version(self, key: str, delta: int, version: int | None) -> None:
        source = version or 1
        found = self.alive(key, source)
        if found is None:
            with pytest.raises(ValueError, match="not found"):
                self.cache.incr_version(key, delta, version)
        else:
            assert self.cache.incr_version(key, delta, version) == source + delta
            del self.model[key, source]
            self.model[key, source + delta] = found

    @rule()
    def clear(self) -> None:
        self.cache.clear()
        self.model.clear()


def store_machine(make: Callable[[], BaseCache], pass_time: Callable[[float], None], *, examples: int = 60) -> Any:
    """The test class for the store that `make` opens, always the same one; `pass_time` moves its clock."""
    machine = type("StoreMachine", (Machine,), {"make": staticmethod(make), "pass_time": staticmethod(pass_time)})
    machine.TestCase.settings = settings(  # type: ignore[attr-defined]
        max_examples=examples, stateful_step_count=40, deadline=None, suppress_health_check=[HealthCheck.too_slow]
    )
    return machine.TestCase  # type: ignore[attr-defined]


class Clock:
    now = 100.0

    def __call__(self) -> float:
        return self.now

    def advance(self, seconds: float) -> None:
        self.now += seconds


clock = Clock()
_names = itertools.count()


def _locmem() -> BaseCache:
    return LocMemCache(f"machine {next(_names)}", {}, clock=clock)


def _bytes(**params: Any) -> BaseCache:
    cache = DictCache(f"machine {next(_names)}", params)
    cache.clock = clock
    return cache


TestLocMem = store_machine(_locmem, clock.advance)
TestBytes = store_machine(_bytes, clock.advance)
TestSealedBytes = store_machine(lambda: _bytes(SECRET="a secret"), clock.advance, examples=30)
