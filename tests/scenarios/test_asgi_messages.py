"""Messages of ASGI that only some servers and clients know."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import anyio
import pytest

from cachemw import asgi
from cachemw._asgi.replies import no_body
from cachemw.backends.locmem import LocMemCache
from tests.scenarios.conftest import Clock


def test_an_application_may_send_its_fields_as_lists() -> None:
    """JSON has no tuples: a message that came through a queue, say."""

    async def app(scope: Any, receive: Any, send: Any) -> None:
        await send({"type": "http.response.start", "status": 200, "headers": [[b"etag", b'"1"'], [b"link", b"<a>"]]})
        await send({"type": "http.response.body", "body": b"page"})

    site = asgi.CacheMiddleware(app, cache=LocMemCache("lists"))
    scope = {"type": "http", "method": "GET", "path": "/", "headers": [(b"host", b"example.org")]}
    sent: list[Any] = []

    async def send(message: Any) -> None:
        sent.append(message)

    async def twice() -> None:
        for _ in range(2):
            await site(dict(scope), None, send)

    anyio.run(twice)
    cold, _, hot, body = sent
    for start in (cold, hot):
        assert [tuple(field) for field in start["headers"]][:2] == [(b"etag", b'"1"'), (b"link", b"<a>")]
    assert b"hit" in dict(hot["headers"])[b"cache-status"]
    assert body["body"] == b"page"


def ask(extra: Mapping[str, Any]) -> list[list[str]]:
    """What two requests for one page were sent, the application sending `extra` between its head and its body."""

    async def app(scope: Any, receive: Any, send: Any) -> None:
        await send({"type": "http.response.start", "status": 200, "headers": []})
        await send(extra)
        await send({"type": "http.response.body", "body": b"page"})

    site = asgi.CacheMiddleware(app, cache=LocMemCache(f"messages-{extra['type']}"))
    scope = {"type": "http", "method": "GET", "path": "/", "headers": [(b"host", b"example.org")]}

    async def twice() -> list[list[str]]:
        kinds: list[list[str]] = []
        for _ in range(2):
            kinds.append([])

            async def send(message: Any) -> None:
                kinds[-1].append(message["type"])

            await site(dict(scope), None, send)
        return kinds

    return anyio.run(twice)


def test_what_a_template_was_rendered_with_reaches_a_test_client_and_does_not_keep_the_page_from_being_stored() -> None:
    cold, hot = ask({"type": "http.response.debug", "info": {"template": "page.html"}})
    assert cold == ["http.response.start", "http.response.debug", "http.response.body"]
    assert hot == ["http.response.start", "http.response.body"]


@pytest.mark.parametrize("kind", ["http.response.push", "http.response.unheard-of"])
def test_a_message_that_nobody_knows_passes_and_nothing_is_stored(kind: str) -> None:
    cold, hot = ask({"type": kind})
    assert cold == hot == ["http.response.start", kind, "http.response.body"]


def test_a_refresh_has_an_empty_body_and_nobody_who_could_leave(clock: Clock) -> None:
    """Who listens for the client's end, as a stream of Starlette's does, waits; it does not go round in circles."""
    heard: list[Any] = []

    async def app(scope: Any, receive: Any, send: Any) -> None:
        listening = anyio.Event()

        async def listen() -> None:
            while (message := await receive())["type"] != "http.disconnect":
                heard.append(message)
                assert len(heard) <= 3
                listening.set()

        async with anyio.create_task_group() as group:
            group.start_soon(listen)
            await listening.wait()
            for _ in range(5):
                await anyio.sleep(0)
            fields = [(b"cache-control", b"max-age=10, stale-while-revalidate=60")]
            await send({"type": "http.response.start", "status": 200, "headers": fields})
            await send({"type": "http.response.body", "body": b"%d" % len(pages)})
            pages.append(b"")
            group.cancel_scope.cancel()

    pages: list[bytes] = []
    site = asgi.CacheMiddleware(app, cache=LocMemCache("refreshed"))
    scope = {"type": "http", "method": "GET", "path": "/", "headers": [(b"host", b"example.org")]}
    bodies: list[bytes] = []

    async def send(message: Any) -> None:
        if message["type"] == "http.response.body":
            bodies.append(message["body"])

    async def story() -> None:
        for seconds in (0, 20, 0):
            clock.advance(seconds)
            await site(dict(scope), no_body(), send)
            for _ in range(20):
                await anyio.sleep(0)

    anyio.run(story)
    assert bodies == [b"0", b"0", b"1"]
    assert heard == [{"type": "http.request", "body": b"", "more_body": False}] * 2  # the third was a hit
