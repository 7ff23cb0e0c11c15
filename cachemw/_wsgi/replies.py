"""Replies: a stored response, or what was made of one, as WSGI sends it."""

from __future__ import annotations

from collections.abc import Iterable
from functools import lru_cache
from http import HTTPStatus
from typing import TYPE_CHECKING, Final

from cachemw._wsgi.request import WSGIRequest
from cachemw.caching import Line
from cachemw.exchange import Exchange
from cachemw.exchange.state import Answer
from cachemw.rfc9111.bodies import LargeBody

if TYPE_CHECKING:
    from _typeshed.wsgi import StartResponse

__all__ = ["send_answer", "send_stored"]

_BLOCK: Final = 64 * 1024  # bytes that a server is to read at a time
_STATUS_LINES: Final = {status.value: f"{status.value} {status.phrase}" for status in HTTPStatus}


def send_stored(exchange: Exchange[Line], start_response: StartResponse) -> Iterable[bytes]:
    """Send what is stored, or what was made of it."""
    sent = send_answer(exchange.answer, start_response, exchange)
    # one empty piece would tell a server that the length of the body is 0 (PEP 3333), which HEAD may not say
    return () if exchange.request.method == "HEAD" else sent


def send_answer(
    answer: Answer, start_response: StartResponse, exchange: Exchange[Line] | None = None
) -> Iterable[bytes]:
    """Send a response; `exchange` has found it, where nobody may have its body in memory."""
    given, extra, body = answer
    start_response(_status_line(given.status, given.reason), [*given.fields, *extra])
    if isinstance(body, bytes):
        return (body,)
    assert exchange is not None
    return _blocks(exchange, body)


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
