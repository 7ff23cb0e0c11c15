"""Reads of a local disk, which take microseconds where a thread takes fifty, done on the event loop.

Rule 1: only while they are quick. One that was slow sends all others to threads for a while, so that a disk that is
busy, asleep or cold holds the event loop up once in that time, not with every request.
Rule 2: nothing that waits for another process is done here: no lock, no connection, no write.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Final, TypeVar

from cachemw.backends.base import offload

__all__ = ["QuickReads"]

T = TypeVar("T")

#: Seconds that a read may take on the event loop, and for which threads read after one that took longer.
_SLOW: Final = 0.005
_PAUSE: Final = 1.0


class QuickReads:
    """Where a store's reads are done. allowed: False for threads alone."""

    def __init__(self, *, allowed: bool, clock: Callable[[], float] = time.perf_counter) -> None:
        self._clock = clock
        self._threads_until = 0.0 if allowed else float("inf")

    async def run(self, read: Callable[..., T], *args: object, at_once: Callable[..., T | None] | None = None) -> T:
        """What `read` gives, in a thread if need be. at_once: the same on the loop; None if it would have to wait."""
        began = self._clock()
        if began >= self._threads_until:
            try:
                found = (at_once or read)(*args)
            finally:
                ended = self._clock()
                if ended - began > _SLOW:
                    self._threads_until = ended + _PAUSE
            if found is not None:
                return found
        return await offload(read, *args)
