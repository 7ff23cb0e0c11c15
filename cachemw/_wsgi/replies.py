"""Replies: a stored response, or what was made of one, as WSGI sends it."""

from __future__ import annotations

from collections.abc import Iterable
from functools import lru_cache
from http import HTTPStatus
from typing import TYPE_CHECKING, Final

from cachemw.caching import Line
from cachemw.exchange import Exchange

if TYPE_CHECKING:
    from _typeshed.wsgi import StartResponse

__all__ = ["send_stored"]

_STATUS_LINES: Final = {status.value: f"{status.value} {status.phrase}" for status in HTTPStatus}


def send_stored(exchange: Exchange[Line], start_response: StartResponse) -> Iterable[bytes]:
    """Send what is stored, or what was made of it."""
    hit = exchange.hit
    if hit is not None:
        if hit.chosen and exchange.outer is not None:
            exchange.outer.chosen_within = True
        start_response(_status_line(hit.status, hit.reason), [*hit.fields, *exchange.extra])
        return (hit.body,) if exchange.request.method == "GET" else ()
    reply = exchange.reply
    assert reply is not None
    start_response(_status_line(reply.status, reply.reason), [*reply.fields, *exchange.extra])
    return (reply.body,)


@lru_cache(maxsize=128)
def _status_line(status: int, reason: str) -> str:
    if reason:
        return f"{status} {reason}"
    return _STATUS_LINES.get(status) or f"{status} Unknown"
