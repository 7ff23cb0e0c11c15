"""Replies: a stored response as ASGI sends it, and stand-ins for the client of a background refresh."""

from __future__ import annotations

import asyncio
from contextlib import closing
from typing import Final

from cachemw._asgi.request import ASGIRequest
from cachemw._asgi.types import Message, Receive, Send
from cachemw.backends.base import offload
from cachemw.caching import Line
from cachemw.exchange import Exchange
from cachemw.exchange.state import Answer

__all__ = ["discard", "messages_of", "no_body", "send_stored"]

_BLOCK: Final = 256 * 1024  # bytes of a large stored body that are in memory at a time


def messages_of(answer: Answer) -> tuple[Message, Message]:
    """A response as it is sent, where its body is in memory."""
    given, extra, body = answer
    return (
        {"type": "http.response.start", "status": given.status, "headers": [*given.raw, *extra]},
        {"type": "http.response.body", "body": body},
    )


async def send_stored(exchange: Exchange[Line], send: Send, *, as_file: bool = False) -> None:
    """Send what is stored, or what was made of it; a body that nobody has in memory in pieces, or, if allowed, a file.

    as_file: `send` is the server's, or leads to it.
    """
    start, end = messages_of(exchange.answer)
    await send(start)
    body = end["body"]
    if not isinstance(body, bytes):
        path = body.path() if as_file and _takes_files(exchange) else None
        if path is not None:
            await send({"type": "http.response.pathsend", "path": path})
            return
        with closing(body.reader()) as reader:  # the thread that has read remembers it for a while
            while block := await offload(reader.read, _BLOCK):
                await send({"type": "http.response.body", "body": block, "more_body": True})
        end["body"] = b""
    await send(end)


def _takes_files(exchange: Exchange[Line]) -> bool:
    """Does the server take the path of a file for a body? Another cache around this one could not store it."""
    request = exchange.request
    extensions = request.scope.get("extensions") if isinstance(request, ASGIRequest) else None
    return exchange.outer is None and "http.response.pathsend" in (extensions or ())


def no_body() -> Receive:
    """An empty request body; after it nothing comes: nobody is there who could disconnect."""
    given = False

    async def receive() -> Message:
        nonlocal given
        if given:
            await asyncio.get_running_loop().create_future()
        given = True
        return {"type": "http.request", "body": b"", "more_body": False}

    return receive


async def discard(message: Message) -> None:
    """Where a background refresh sends its response."""
