"""What the tests of fragments and of memoized functions share: a clock, a store that fails, and both halves as one."""

from __future__ import annotations

import asyncio
import functools
from collections.abc import Callable, Sequence
from typing import Any

import pytest

from cachemw.backends.base import Entry, InlineCache
from cachemw.backends.locmem import LocMemCache
from cachemw.errors import BackendUnavailable
from cachemw.memoize import cached

__all__ = ["Clock", "FailingCache", "MemoFace", "Memoize", "memoizing"]


class Clock:
    """The time of the wall and of the stopwatch, which stands still until it is moved."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.now = 1_700_000_000.0
        monkeypatch.setattr("time.time", lambda: self.now)
        monkeypatch.setattr("time.monotonic", lambda: self.now)

    def move(self, seconds: float) -> None:
        self.now += seconds


class FailingCache(LocMemCache):
    """Local memory that raises `error`, if there is one, and counts how often it was asked."""

    error: Exception | None = None
    asked = 0
    #: Called before each answer.
    hook: Callable[[], None] | None = None

    def _ask(self) -> None:
        self.asked += 1
        if self.hook is not None:
            self.hook()
        if self.error is not None:
            raise self.error

    def fail(self) -> None:
        self.error = BackendUnavailable("nobody answers")

    get = InlineCache.get
    aget = InlineCache.aget
    set = InlineCache.set
    aset = InlineCache.aset

    def _get(self, keys: Sequence[str]) -> dict[str, Any]:
        self._ask()
        return super()._get(keys)

    def _set(self, entries: Sequence[Entry]) -> list[str]:
        self._ask()
        return super()._set(entries)

    def _delete(self, keys: Sequence[str]) -> int:
        self._ask()
        return super()._delete(keys)


class MemoFace:
    """A memoized function by the names of its plain form; an async one runs on an event loop."""

    def __init__(self, memoized: Any, run: Callable[[Any], Any]) -> None:
        self.memoized = memoized
        self._run = run
        self.cache_key = memoized.cache_key

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        return self._run(self.memoized(*args, **kwargs))

    def invalidate(self, *args: Any, **kwargs: Any) -> Any:
        return self._run(self.memoized.invalidate(*args, **kwargs))

    def refresh(self, *args: Any, **kwargs: Any) -> Any:
        return self._run(self.memoized.refresh(*args, **kwargs))


#: memoize(function, timeout, **options)
Memoize = Callable[..., MemoFace]


def memoizing(half: str, runner: asyncio.Runner) -> Memoize:
    """`cached` for plain functions, in one of its halves."""

    def memoize(function: Callable[..., Any], timeout: float | None = 60, **options: Any) -> MemoFace:
        if half == "sync":
            return MemoFace(cached(timeout, **options)(function), lambda value: value)

        @functools.wraps(function)
        async def twin(*args: Any, **kwargs: Any) -> Any:
            return function(*args, **kwargs)

        return MemoFace(cached(timeout, **options)(twin), runner.run)

    return memoize
