"""The Memcached clients of an event loop, which end with it."""

from __future__ import annotations

from collections.abc import AsyncGenerator
from contextlib import suppress
from typing import Any

from cachemw.backends._memcached_ring import Node

__all__ = ["LoopClients"]


class LoopClients(dict[Node, Any]):
    """The clients of one event loop; they are closed when it shuts its generators down, as `asyncio.run` does."""

    def watch(self) -> None:
        """Begin to wait for the end of the running event loop."""
        self._end = self._until_the_end()
        with suppress(StopIteration):
            self._end.asend(None).send(None)  # up to its `yield`, without a task

    def close(self) -> None:
        """Close the connections when nobody waits on them; the next calls make others."""
        for client in self.values():
            client.close()

    async def _until_the_end(self) -> AsyncGenerator[None, None]:
        try:
            yield
        finally:
            for client in self.values():
                client.abort()
