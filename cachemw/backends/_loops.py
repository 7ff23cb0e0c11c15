"""What a store has for each event loop, its connections there above all, which end with that loop.

Rule 1: what was made for a loop is ended by it when it shuts its generators down, as `asyncio.run` does: nobody could
close a connection later.
Rule 2: the loops of several threads begin and end at the same time. One that ended without shutting anything down is
forgotten when another one begins.
"""

from __future__ import annotations

import asyncio
from asyncio import AbstractEventLoop
from collections.abc import AsyncGenerator, Awaitable, Callable
from contextlib import suppress
from typing import Final, Generic, TypeVar

__all__ = ["PerLoop"]

T = TypeVar("T")


class PerLoop(Generic[T]):
    """A T for each event loop that asks for one. end: ends it, in its loop."""

    def __init__(self, end: Callable[[T], Awaitable[None]]) -> None:
        self._end: Final = end
        #: What each loop has, and what notices the loop's end.
        self._known: dict[AbstractEventLoop, tuple[T, AsyncGenerator[None, None]]] = {}
        self._latest: tuple[AbstractEventLoop, T] | None = None
        self._inherited: list[object] = []

    def here(self, make: Callable[[], T]) -> T:
        """The running loop's, which is made if it has none yet."""
        loop = asyncio.get_running_loop()
        latest = self._latest  # nearly always the same loop asks
        if latest is None or latest[0] is not loop:
            known = self._known.get(loop)
            latest = self._latest = loop, self._begin(loop, make()) if known is None else known[0]
        return latest[1]

    def _begin(self, loop: AbstractEventLoop, value: T) -> T:
        for ended in [one for one in list(self._known) if one.is_closed()]:
            self._known.pop(ended, None)  # another thread may be at it too
        watch = _until_the_end(value, self._end)
        with suppress(StopIteration):
            watch.asend(None).send(None)  # up to its `yield`, without a task
        self._known[loop] = value, watch
        return value

    def known(self) -> T | None:
        """The running loop's, if it has one."""
        found = self._known.get(asyncio.get_running_loop())
        return None if found is None else found[0]

    def open(self) -> list[tuple[AbstractEventLoop, T]]:
        """Those of the loops that are not closed."""
        return [(loop, value) for loop, (value, _) in list(self._known.items()) if not loop.is_closed()]

    def forget(self) -> None:
        """In a forked process: the loops are the parent's.

        What they have is kept, unused: closing it would take the parent's sockets out of the selector that both have.
        """
        self._inherited.append(self._known)
        self._known = {}
        self._latest = None


async def _until_the_end(value: T, end: Callable[[T], Awaitable[None]]) -> AsyncGenerator[None, None]:
    try:
        yield
    finally:
        await end(value)
