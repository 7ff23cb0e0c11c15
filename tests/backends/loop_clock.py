"""An event loop's clock that a test puts forward, so that nobody waits for a time-out."""

from __future__ import annotations

import asyncio
from typing import Final

__all__ = ["LoopClock"]

#: Seconds that the clock goes on at once: less than what tells a busy event loop from a late server.
_STEP: Final = 0.005


class LoopClock:
    """The clock of the running event loop; `loop.time()` is what it shows. Made within the loop."""

    def __init__(self) -> None:
        loop = asyncio.get_running_loop()
        self._real = loop.time
        self._ahead = 0.0
        loop.time = self  # type: ignore[method-assign]

    def __call__(self) -> float:
        return self._real() + self._ahead

    def jump(self, seconds: float) -> None:
        """So much passes, and the event loop has no turn meanwhile."""
        self._ahead += seconds

    async def advance(self, seconds: float) -> None:
        """So much passes, and the event loop does what there is to do in time."""
        for _ in range(round(seconds / _STEP)):
            self.jump(_STEP)
            await asyncio.sleep(0)
