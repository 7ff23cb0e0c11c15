"""Turns: whoever needs a connection to a server waits for it here, where it is known what for.

Rule 1: who waits for others of its own process does not wait for the server: as long as that answers one of them, it
is well. One that it did not answer in time speaks for all who wait: they give up with it.
Rule 2: connections are opened one after the other, and only while somebody waits: a crowd that comes upon an empty pool
would else have the server and itself make as many as the pool may have, and be done with none of them in time.
Rule 3: a time limit counts what was spent waiting, not what this process did meanwhile, or the machine with others.
"""

from __future__ import annotations

import asyncio
import threading
from abc import ABC, abstractmethod
from collections import deque
from time import monotonic
from types import TracebackType
from typing import Self

from cachemw.backends._dialling import PARTS

__all__ = ["Limit", "Line", "TaskTurn", "ThreadTurn"]


class Line:
    """The connections of one pool, and who waits for one of them.

    places: how many there may be; timeout: seconds after which the server has not answered; patience: seconds that a
    caller waits in line for the others.
    """

    def __init__(self, places: int, *, timeout: float, patience: float) -> None:
        self.patience = patience
        self._timeout = timeout
        self._lock = threading.Lock()
        self._waiting: deque[_Turn] = deque()
        self._idle = 0  # connections that are there, unused
        self._unopened = places
        self._opening = False
        self._heard = 0.0  # when the server answered anybody

    def enter(self, turn: _Turn) -> None:
        """Wait in line; `turn.wake` is called when it is `granted`, maybe now, or in vain."""
        with self._lock:
            self._waiting.append(turn)
            self._serve()

    def leave(self, turn: _Turn) -> None:
        """Wait no longer, unless it was granted at this moment."""
        with self._lock:
            if turn in self._waiting:
                self._waiting.remove(turn)

    def opened(self, turn: _Turn) -> None:
        """The turn's connection is there: the next one may be opened."""
        if turn.opens:
            with self._lock:
                turn.opens = self._opening = False
                self._heard = monotonic()
                self._serve()

    def end(self, turn: _Turn, error: BaseException | None = None) -> None:
        """The turn is over. What failed has cost its connection, as far as anybody knows."""
        now = monotonic()
        with self._lock:
            if turn.opens:
                self._opening = False
            if error or turn.opens:
                self._unopened += 1
            else:
                self._idle += 1
                self._heard = now
            late = now - turn.began >= self._timeout and self._heard < turn.began
            if late and isinstance(error, Exception):  # else it is the caller who has left
                while self._waiting:
                    self._waiting.popleft().wake()
            self._serve()

    def _serve(self) -> None:
        while self._waiting and (self._idle or (self._unopened and not self._opening)):
            turn = self._waiting.popleft()
            if self._idle:
                self._idle -= 1
            else:
                self._unopened -= 1
                turn.opens = self._opening = True
            turn.granted = True
            turn.began = monotonic()
            turn.wake()


class _Turn(ABC):
    """The use of a connection, a context: who has entered it may ask the pool for one. Raises: TimeoutError."""

    def __init__(self, line: Line) -> None:
        self._line = line
        self.granted = False
        self.opens = False  # there is none unused: it is to open one, and nobody else is meanwhile
        self.began = 0.0

    @abstractmethod
    def wake(self) -> None:
        """Let go on who waits."""

    def opened(self) -> None:
        """The connection is there."""
        self._line.opened(self)

    def _quit(self) -> None:
        """Leave the line, and give back what was granted."""
        self._line.leave(self)
        if self.granted:
            self._line.end(self)

    def _check(self) -> None:
        if not self.granted:
            raise TimeoutError("no answer in time to those who have the connections")


class ThreadTurn(_Turn):
    """A thread's turn."""

    def __init__(self, line: Line) -> None:
        super().__init__(line)
        self._gate = threading.Lock()
        self._gate.acquire()

    def wake(self) -> None:
        """See `_Turn.wake`."""
        self._gate.release()

    def __enter__(self) -> Self:
        self._line.enter(self)
        try:
            if not self._gate.acquire(timeout=self._line.patience):
                self._line.leave(self)
        except BaseException:  # a signal's handler may raise anything
            self._quit()
            raise
        self._check()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self._line.end(self, error)


class TaskTurn(_Turn):
    """A task's turn; all tasks of a line run in one event loop."""

    def __init__(self, line: Line) -> None:
        super().__init__(line)
        self._future: asyncio.Future[None] = asyncio.get_running_loop().create_future()

    def wake(self) -> None:
        """See `_Turn.wake`."""
        if not self._future.done():  # its task may have been cancelled at this moment
            self._future.set_result(None)

    async def __aenter__(self) -> Self:
        self._line.enter(self)
        try:
            if not self._future.done():
                async with Limit(self._line.patience):
                    await self._future
        except TimeoutError:
            self._line.leave(self)
        except BaseException:
            self._quit()
            raise
        self._check()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None
    ) -> None:
        self._line.end(self, error)


class Limit:
    """`asyncio.timeout` in parts: each counts once, however late the event loop notices that it is over.

    What has arrived while the loop was busy is read before the time is up. seconds: None for no limit.
    """

    def __init__(self, seconds: float | None) -> None:
        self._timeout = asyncio.timeout(None)
        self._timer: asyncio.TimerHandle | None = None
        self._seconds = seconds

    async def __aenter__(self) -> Self:
        await self._timeout.__aenter__()
        self.restart(self._seconds)
        return self

    def restart(self, seconds: float | None) -> None:
        """So many seconds from now."""
        self._stop()
        if seconds is not None:
            self._arm(seconds / PARTS, PARTS)

    def _arm(self, part: float, left: int) -> None:
        loop = asyncio.get_running_loop()
        if left:
            self._timer = loop.call_later(part, self._arm, part, left - 1)
        else:
            self._timeout.reschedule(loop.time())

    def _stop(self) -> None:
        if self._timer is not None:
            self._timer.cancel()

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None
    ) -> None:
        self._stop()
        await self._timeout.__aexit__(kind, error, at)
