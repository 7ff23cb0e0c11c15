"""What the newer edition of http-cache-tests asks about interim responses.

ASGI has a message for 103 alone, WSGI has none; hypercorn sends it over HTTP/2 and HTTP/3.
"""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from cachemw import asgi
from cachemw._asgi.replies import no_body
from cachemw.backends.locmem import LocMemCache
from cachemw.rfc9111.policy import Policy
from tests.scenarios.conftest import Clock

HINT = {"type": "http.response.early_hint", "links": [b"</styles.css>; rel=preload; as=style"]}


def hinting(clock: Clock, policy: Policy, etag: str, *waits: float, break_off: bool = False) -> list[list[Any]]:
    """What each of several requests is sent by an application that hints before it answers; `waits` in seconds.

    break_off: it answers only the first, and raises after the hint of every other.
    """
    calls = 0

    async def app(scope: Any, receive: Any, send: Any) -> None:
        nonlocal calls
        calls += 1
        await send(HINT)
        if break_off and calls > 1:
            raise ConnectionError("the origin closed the connection")
        status = 304 if (b"if-none-match", etag.encode()) in scope["headers"] else 200
        fields = [(b"cache-control", b"max-age=100, stale-if-error=1000"), (b"etag", etag.encode())]
        await send({"type": "http.response.start", "status": status, "headers": fields})
        await send({"type": "http.response.body", "body": b"page" if status == 200 else b""})

    site = asgi.CacheMiddleware(app, cache=LocMemCache(f"hints-{etag}-{id(app)}"), policy=policy)
    scope = {"type": "http", "method": "GET", "path": "/", "headers": [(b"host", b"example.org")]}
    heard: list[list[Any]] = []

    async def send(message: Any) -> None:
        heard[-1].append(message)

    async def story() -> None:
        for seconds in (0, *waits):
            clock.advance(seconds)
            heard.append([])
            await site(dict(scope), no_body(), send)

    asyncio.run(story())
    return heard


def final(messages: list[Any]) -> tuple[int, dict[bytes, bytes], bytes]:
    """The response to which every message belongs."""
    assert [message["type"] for message in messages] == ["http.response.start", "http.response.body"]
    start, body = messages
    return start["status"], dict(start["headers"]), body["body"]


@pytest.mark.parametrize("policy", [Policy(), Policy.rfc9111()], ids=["default", "rfc9111"])
def test_an_early_hint_passes_and_the_final_response_is_stored_without_it(clock: Clock, policy: Policy) -> None:
    """RFC 9110 §15.2, RFC 8297 §2: an interim response is no part of the final one."""
    (hint, *cold), hot = hinting(clock, policy, '"1"', 3)
    assert hint == HINT
    for messages in (cold, hot):
        status, fields, body = final(messages)
        assert (status, body) == (200, b"page")
        assert b"link" not in fields
    assert b"; hit" in dict(hot[0]["headers"])[b"cache-status"]


def test_an_early_hint_before_a_304_passes_before_what_is_stored(clock: Clock) -> None:
    _, (hint, *validated), hot = hinting(clock, Policy(), '"1"', 101, 3)
    assert hint == HINT
    assert final(validated)[::2] == (200, b"page")
    assert final(hot)[::2] == (200, b"page")
    assert final(hot)[1][b"age"] == b"3"


def test_an_application_that_fails_after_its_early_hint_has_not_answered(clock: Clock) -> None:
    _, (hint, *stale) = hinting(clock, Policy(), '"1"', 101, break_off=True)
    assert hint == HINT
    assert final(stale)[::2] == (200, b"page")
