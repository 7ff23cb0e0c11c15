"""Flights: concurrent misses on one key wait for one call of the application; background refreshes, one per key.

A flight has one leader and any number of followers, threads or tasks. It lands exactly once, with the records that the
leader made (perhaps none); every follower is then released at the same time and looks again by itself. Nothing here
knows of HTTP, and nothing waits without a deadline.
"""

from __future__ import annotations

import asyncio
import logging
import threading
import time
from collections.abc import Awaitable, Callable, Mapping
from contextvars import ContextVar
from types import MappingProxyType
from typing import Any, Final, Generic, TypeVar

from cachemw._forks import Forkable
from cachemw._threads import begin

__all__ = ["LED", "Flight", "Flights", "TaskRefresher", "ThreadRefresher", "lead"]

T = TypeVar("T")

_log = logging.getLogger("cachemw")

#: Seconds that a background refresh may take where it can be ended (nginx: `proxy_read_timeout`, 60s).
_REFRESH: Final = 60.0

_NOTHING: Final[Mapping[str, Any]] = MappingProxyType({})

#: Seconds that followers give the leader's client to read what it is sent. One that never does would hold all up.
PATIENCE: Final = 1.0


class Flight(Generic[T]):
    """One call of the application on behalf of everybody who waits for it."""

    __slots__ = ("_flights", "_gates", "_waiters", "deserted", "key", "landed", "leader", "records", "sending_since")

    def __init__(self, flights: Flights[T], key: str) -> None:
        self.key = key
        self.records: Mapping[str, T] = _NOTHING
        self.landed = False
        self.deserted = False  # its leader's client has left: the application has not answered, nor failed
        self.leader = threading.get_ident()
        self.sending_since = 0.0  # by `time.monotonic`: since then it is for the leader's client to read, or to write
        self._flights = flights
        self._gates: list[Any] = []  # locks, each held by the thread that waits for it
        self._waiters: list[tuple[asyncio.AbstractEventLoop, asyncio.Future[None]]] = []

    def land(self, records: Mapping[str, T]) -> None:
        """The answer is complete: release the followers. Until the flight ends, others may still join, for the records.

        The first call counts.
        """
        with self._flights.lock:
            if self.landed:
                return
            self.landed = True
            self.records = records
        if self._gates or self._waiters:  # nobody comes to wait any more
            self._release()

    def _release(self) -> None:
        for gate in self._gates:
            gate.release()
        for loop, future in self._waiters:
            try:
                loop.call_soon_threadsafe(future.set_result, None)
            except RuntimeError:  # that loop was closed meanwhile: nobody waits there any more
                continue

    def end(self, records: Mapping[str, T] = _NOTHING) -> None:
        """Land, if that has not happened, and be forgotten: the next request leads a new flight."""
        self._flights.remove(self)
        self.land(records)

    def wait(self, timeout: float) -> bool:
        """Block the thread until the flight has landed; False after `timeout` seconds, or if it is held up.

        A thread that leads the flight itself does not wait: a test client asks again before it has read an answer.
        """
        if self.leader == threading.get_ident():
            return self.landed
        gate = threading.Lock()  # no Event: `end` may be called from `__del__`, while this thread is in Event.wait
        gate.acquire()
        with self._flights.lock:
            if self.landed:
                return True
            self._gates.append(gate)
        until = time.monotonic() + timeout
        while not gate.acquire(timeout=min(max(until - time.monotonic(), 0.0), PATIENCE)):
            if time.monotonic() >= until or self._desert_if_held_up():
                return self.landed
        return True

    async def await_landing(self, timeout: float) -> bool:
        """Suspend the task until the flight has landed; False after `timeout` seconds, or if it is held up.

        A task that works for its leader does not wait: an application may ask itself for a page.
        """
        if self in LED.get():
            return self.landed
        loop = asyncio.get_running_loop()
        future = loop.create_future()  # before it is asked: what allocates may have the garbage collector land this
        with self._flights.lock:
            if self.landed:
                return True
            self._waiters.append((loop, future))
        until = time.monotonic() + timeout
        while not future.done():
            await asyncio.wait((future,), timeout=min(max(until - time.monotonic(), 0.0), PATIENCE))
            if not future.done() and (time.monotonic() >= until or self._desert_if_held_up()):
                return self.landed
        return True

    def _desert_if_held_up(self) -> bool:
        """Give the leader up whose client lets the application wait: one of those who follow is to fetch the page."""
        since = self.sending_since
        if not since or time.monotonic() - since < PATIENCE:
            return False
        self.deserted = True
        return True


#: The flights that this task leads, or one on whose behalf it works.
LED: Final[ContextVar[tuple[Flight[Any], ...]]] = ContextVar("cachemw.led", default=())


def lead(flight: Flight[Any] | None) -> tuple[Flight[Any], ...]:
    """Note that this task leads this flight, too; what `LED` is to be set to when that is over."""
    before = LED.get()
    if flight is not None:
        LED.set((*before, flight))
    return before


class Flights(Forkable, Generic[T]):
    """The flights under way in this process, by key."""

    def _reset(self) -> None:
        self.lock = threading.RLock()  # a leader that is garbage may end its flight while this very thread holds it
        self._flying: dict[str, Flight[T]] = {}

    def join(self, key: str) -> tuple[Flight[T], bool]:
        """The flight on `key`, and whether the caller is its leader, who then has to `end` it whatever happens."""
        flight = self._flying.get(key)
        if flight is not None:
            return flight, False
        fresh = Flight(self, key)
        flight = self._flying.setdefault(key, fresh)  # one of those who do this at the same time
        return flight, flight is fresh

    def remove(self, flight: Flight[T]) -> None:
        """Forget a flight that ends, or whose leader is late: the next request leads a new one."""
        with self.lock:
            if self._flying.get(flight.key) is flight:
                del self._flying[flight.key]

    def __len__(self) -> int:
        return len(self._flying)


class _Refresher(Forkable):
    """At most `limit` refreshes at once, one per key; what comes on top is left out, the next request tries again."""

    def __init__(self, limit: int = 8) -> None:
        super().__init__()
        self.limit = limit

    def _reset(self) -> None:
        self._lock = threading.Lock()
        self._keys: set[str] = set()

    def _begin(self, key: str) -> bool:
        with self._lock:
            if key in self._keys or len(self._keys) >= self.limit:
                return False
            self._keys.add(key)
            return True

    def _end(self, key: str) -> None:
        with self._lock:
            self._keys.discard(key)

    def __len__(self) -> int:
        return len(self._keys)


def _failed(path: str) -> None:
    _log.exception("The background refresh of %s failed.", path)


class ThreadRefresher(_Refresher):
    """Refreshes in threads. They are daemons: the end of the process never waits for one."""

    def start(self, key: str, work: Callable[[], object], path: str = "") -> bool:
        """Run `work` in the background unless one for `key` is under way or all places are taken.

        path: by which the log speaks of what has failed. A thread cannot be ended: one that hangs keeps its place.
        """
        if not self._begin(key):
            return False

        def run() -> None:
            try:
                work()
            except Exception:
                _failed(path)
            finally:
                self._end(key)

        try:
            begin(threading.Thread(target=run, name="cachemw-refresh", daemon=True))
        except RuntimeError:  # the interpreter shuts down, or no thread is to be had
            self._end(key)
            return False
        return True


class TaskRefresher(_Refresher):
    """Refreshes in tasks of the running loop; `aclose` cancels them."""

    def _reset(self) -> None:
        super()._reset()
        self._tasks: set[asyncio.Task[Any]] = set()

    def start(self, key: str, work: Callable[[], Awaitable[object]], path: str = "") -> bool:
        """Run `work` in the background unless one for `key` is under way or all places are taken.

        What takes longer than a minute is ended.
        path: by which the log speaks of what has failed.
        """
        if not self._begin(key):
            return False

        async def run() -> None:
            try:
                async with asyncio.timeout(_REFRESH):
                    await work()
            except Exception:
                _failed(path)

        task = asyncio.get_running_loop().create_task(run(), name="cachemw-refresh")
        self._tasks.add(task)

        def done(task: asyncio.Task[Any]) -> None:
            self._tasks.discard(task)
            self._end(key)

        task.add_done_callback(done)
        return True

    async def aclose(self, timeout: float = 1.0) -> None:
        """Cancel what is under way in this loop and wait for its end, at most `timeout` seconds."""
        loop = asyncio.get_running_loop()
        tasks = [task for task in self._tasks if task.get_loop() is loop]
        for task in tasks:
            task.cancel()
        if tasks:
            await asyncio.wait(tasks, timeout=timeout)
