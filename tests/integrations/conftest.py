"""What the tests of the integrations share: empty stores, a frozen clock, and a count of the views' calls."""

from __future__ import annotations

import itertools
from collections.abc import Iterator

import pytest

from cachemw import caches
from cachemw.backends.locmem import LocMemCache
from tests.scenarios.conftest import Clock

_numbers = itertools.count()


class Counter:
    """How often views were called: each call makes another page."""

    def __init__(self) -> None:
        self.calls = 0

    def __call__(self) -> str:
        self.calls += 1
        return f"page {self.calls}"


@pytest.fixture(autouse=True)
def _empty_default() -> Iterator[None]:
    """Views that are told of no cache use the default one of the process."""
    caches["default"].clear()
    yield
    caches["default"].clear()


@pytest.fixture
def store() -> LocMemCache:
    """A store of the test's own."""
    return LocMemCache(f"integration-{next(_numbers)}", {})


@pytest.fixture
def page() -> Counter:
    return Counter()


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    """The time of the cache, which passes only when a test says so."""
    clock = Clock()
    monkeypatch.setattr("cachemw.wsgi.time.time", clock)
    return clock
