"""Waiting: a head that the application has sent, and that is held back until the first part of the body is there.

Rule: it waits for a moment only. An application may send its head long before its body, and a client may wait for that.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
from typing import Any, Final

from cachemw._asgi.types import Message
from cachemw.rfc9111.messages import Fields

__all__ = ["PATIENCE", "Waiting"]

PATIENCE: Final = 0.1  # seconds; frameworks send the first part at once


class Waiting:
    """The head's message, its fields as the application gave them, and as they leave; `depart` sends it with these."""

    def __init__(
        self, message: Message, given: Fields, fields: Fields, depart: Callable[..., Coroutine[Any, Any, None]]
    ) -> None:
        self._head = message, given
        self._fields = fields
        self._depart = depart
        self._departure: asyncio.Task[None] | None = None
        self._timer = asyncio.get_running_loop().call_later(PATIENCE, self._set_off)

    def _set_off(self) -> None:
        self._departure = asyncio.ensure_future(self._depart(*self._head, self._fields))

    async def end(self, fields: Fields | None = None) -> None:
        """Have it leave now, with these fields if others are known by now; or wait until it has left."""
        self._timer.cancel()
        await (self._departure or self._depart(*self._head, self._fields if fields is None else fields))

    def give_up(self) -> None:
        """It is not to be sent any more."""
        self._timer.cancel()
        if self._departure is not None:
            self._departure.cancel()
