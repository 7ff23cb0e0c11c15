"""One process that serves WSGI and ASGI from one store: each is given what its own server can send."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable
from typing import Any

import pytest
from werkzeug.test import Client

from cachemw import asgi, wsgi
from cachemw.backends.locmem import LocMemCache

TAG = '"v1"'
FIELDS = [("ETag", TAG), ("Cache-Control", "max-age=60"), ("Content-Type", "text/plain")]
BASE = "http://example.org"


def application(environ: Any, start_response: Any) -> Iterable[bytes]:
    start_response("200 OK", FIELDS)
    return [b"page"]


async def unreachable(scope: Any, receive: Any, send: Any) -> None:
    raise AssertionError("the page is stored")


async def get(app: Any, headers: dict[str, str]) -> list[Any]:
    """The messages that the ASGI server gets for GET /."""
    sent: list[Any] = []

    async def receive() -> Any:
        return {"type": "http.request", "body": b"", "more_body": False}

    async def send(message: Any) -> None:
        sent.append(message)

    fields = [(name.lower().encode(), value.encode()) for name, value in headers.items()]
    scope = {"type": "http", "method": "GET", "scheme": "http", "path": "/", "raw_path": b"/", "root_path": ""}
    await app({**scope, "query_string": b"", "headers": fields}, receive, send)
    return sent


@pytest.mark.parametrize("wsgi_first", [True, False])
def test_a_304_of_one_interface_is_none_of_the_other(wsgi_first: bool) -> None:
    store = LocMemCache(f"both interfaces {wsgi_first}")
    site = Client(wsgi.CacheMiddleware(application, cache=store))
    site.get("/", base_url=BASE, buffered=True)
    twin = asgi.CacheMiddleware(unreachable, cache=store)
    for of_wsgi in (wsgi_first, not wsgi_first, wsgi_first):
        if of_wsgi:
            response = site.get("/", base_url=BASE, headers={"If-None-Match": TAG})
            assert (response.status_code, response.headers["ETag"]) == (304, TAG)
        else:
            start, _ = asyncio.run(get(twin, {"Host": "example.org", "If-None-Match": TAG}))
            assert start["status"] == 304
            assert (b"etag", TAG.encode()) in start["headers"]
            assert all(type(part) is bytes for field in start["headers"] for part in field)
