"""One call for many callers: what `get_or_set` and `aget_or_set` promise under concurrency.

Rule 1: a caller that leads a call never waits for another's: no circle of waits can arise.
Rule 2: a failed call wakes its followers, who make their own at once, not one after the other; a cancelled one is
taken over by one of them.
"""

from __future__ import annotations

import threading
from collections.abc import Awaitable, Callable
from contextvars import ContextVar
from typing import Any, Final

import anyio
from anyio.lowlevel import RunVar

from cachemw._forks import Forkable

__all__ = ["MISSING", "Once"]

#: Not a value: nothing was found.
MISSING: Final[Any] = object()

#: Seconds that a follower waits before it makes the call itself.
_PATIENCE: Final = 30.0

_leading: ContextVar[bool] = ContextVar("cachemw.leading", default=False)


class _Call:
    """One running call: its event, and how it ended."""

    __slots__ = ("done", "failed", "value")

    def __init__(self, done: Any) -> None:
        self.done = done
        self.failed = False
        self.value: Any = MISSING


#: The calls that run in this event loop, by cache and key.
_tasks: RunVar[dict[tuple[Once, str], _Call]] = RunVar("cachemw.once")


class Once(Forkable):
    """The running calls of one cache, by key: those of threads here, those of tasks beside their event loop."""

    __slots__ = ("_calls", "_lock", "ended")

    def __init__(self) -> None:
        #: Grows with each call that ended: who looked before that has to look again.
        self.ended = 0
        super().__init__()

    def _reset(self) -> None:
        # reentrant: a finalizer or a signal handler may use the cache at any point of this thread's own work
        self._lock = threading.RLock()
        self._calls: dict[str, _Call] = {}

    def call(self, key: str, seen: int, look: Callable[[], Any], make: Callable[[], Any]) -> Any:
        """The value that `make` returns, called by one thread at a time for each key.

        seen: `ended` before the caller looked; look: the stored value or MISSING; make: makes and stores it.
        """
        while True:
            with self._lock:
                running = self._calls.get(key)
                if running is None:
                    mine = self._calls[key] = _Call(threading.Event())
                    missed = self.ended != seen
            if running is None:
                return self._lead(key, mine, look if missed else None, make)
            if _leading.get() or not running.done.wait(_PATIENCE) or running.failed:
                return make()
            if (value := self._outcome(running, look())) is not MISSING:
                return value

    def _lead(self, key: str, mine: _Call, look: Callable[[], Any] | None, make: Callable[[], Any]) -> Any:
        token = _leading.set(True)
        try:
            value = MISSING if look is None else look()
            mine.value = make() if value is MISSING else value
            return mine.value
        except Exception:
            mine.failed = True
            raise
        finally:
            _leading.reset(token)
            with self._lock:
                self._calls.pop(key, None)  # not there in a child that `make` forked
                self.ended += 1
            mine.done.set()

    @staticmethod
    def _outcome(running: _Call, stored: Any) -> Any:
        """What a follower returns: its own copy from the store, else (timeout 0) the leader's own object."""
        return running.value if stored is MISSING else stored

    async def acall(
        self, key: str, seen: int, look: Callable[[], Awaitable[Any]], make: Callable[[], Awaitable[Any]]
    ) -> Any:
        """The same for the tasks of one event loop."""
        calls = _tasks.get(None)
        if calls is None:
            calls = {}
            _tasks.set(calls)
        name = (self, key)
        while True:
            running = calls.get(name)
            if running is None:
                calls[name] = mine = _Call(anyio.Event())
                return await self._alead(calls, name, mine, look if self.ended != seen else None, make)
            if _leading.get() or not await _wait_for(running.done) or running.failed:
                return await make()
            if (value := self._outcome(running, await look())) is not MISSING:
                return value

    async def _alead(
        self,
        calls: dict[tuple[Once, str], _Call],
        name: tuple[Once, str],
        mine: _Call,
        look: Callable[[], Awaitable[Any]] | None,
        make: Callable[[], Awaitable[Any]],
    ) -> Any:
        token = _leading.set(True)
        try:
            value = MISSING if look is None else await look()
            mine.value = await make() if value is MISSING else value
            return mine.value
        except Exception:
            mine.failed = True
            raise
        finally:
            _leading.reset(token)
            del calls[name]
            self.ended += 1
            mine.done.set()


async def _wait_for(done: anyio.Event) -> bool:
    with anyio.move_on_after(_PATIENCE):
        await done.wait()
    return done.is_set()
