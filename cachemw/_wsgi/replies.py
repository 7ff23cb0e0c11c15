"""Replies: a stored response, or what was made of one, as WSGI sends it."""

from __future__ import annotations

from collections.abc import Iterable
from functools import lru_cache
from http import HTTPStatus
from typing import TYPE_CHECKING, Final

from cachemw._wsgi.request import WSGIRequest
from cachemw.caching import Line
from cachemw.exchange import Exchange
from cachemw.rfc9111.bodies import LargeBody

if TYPE_CHECKING:
    from _typeshed.wsgi import StartResponse

__all__ = ["send_stored"]

_BLOCK: Final = 64 * 1024  # bytes that a server is to read at a time
_STATUS_LINES: Final = {status.value: f"{status.value} {status.phrase}" for status in HTTPStatus}


def send_stored(exchange: Exchange[Line], start_response: StartResponse) -> Iterable[bytes]:
    """Send what is stored, or what was made of it."""
    hit = exchange.hit
    if hit is not None:
        if hit.chosen and exchange.outer is not None:
            exchange.outer.chosen_within = True
        start_response(_status_line(hit.status, hit.reason), [*hit.fields, *exchange.extra])
        if exchange.request.method != "GET":
            return ()
        body = hit.body
        return (body,) if isinstance(body, bytes) else _blocks(exchange, body)
    reply = exchange.reply
    assert reply is not None
    start_response(_status_line(reply.status, reply.reason), [*reply.fields, *exchange.extra])
    return (reply.body,)


def _blocks(exchange: Exchange[Line], body: LargeBody) -> Iterable[bytes]:
    """A body that nobody has in memory: as a file, where nobody but the server sees it (PEP 3333), else in pieces."""
    reader, request = body.reader(), exchange.request
    wrapper = request.environ.get("wsgi.file_wrapper") if isinstance(request, WSGIRequest) else None
    if wrapper is None or exchange.outer is not None or exchange.outer_half is not None:
        return reader
    file: Iterable[bytes] = wrapper(reader, _BLOCK)
    return file


@lru_cache(maxsize=128)
def _status_line(status: int, reason: str) -> str:
    if reason:
        return f"{status} {reason}"
    return _STATUS_LINES.get(status) or f"{status} Unknown"
