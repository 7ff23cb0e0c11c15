"""Messages of ASGI that only some servers and clients know."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import anyio
import pytest

from cachemw import asgi
from cachemw.backends.locmem import LocMemCache


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
            await site(dict(scope), None, send)  # type: ignore[arg-type]

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

            await site(dict(scope), None, send)  # type: ignore[arg-type]
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
