"""Starlette's own middlewares around the cache, between its halves and inside of it: what they hide from it."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any

import pytest
from starlette.applications import Starlette
from starlette.background import BackgroundTask
from starlette.middleware import Middleware
from starlette.middleware.base import BaseHTTPMiddleware
from starlette.requests import Request
from starlette.responses import PlainTextResponse, Response, StreamingResponse
from starlette.routing import Route
from starlette.testclient import TestClient

from cachemw.asgi import CacheMiddleware
from cachemw.backends.locmem import LocMemCache

Next = Callable[[Request], Awaitable[Response]]


async def as_it_is(request: Request, call_next: Next) -> Response:
    """What FastAPI's `@app.middleware("http")` makes of a function."""
    return await call_next(request)


BETWEEN = Middleware(BaseHTTPMiddleware, dispatch=as_it_is)


def visitor(*middleware: Middleware, **views: Any) -> TestClient:
    routes = [Route(f"/{name}", view) for name, view in views.items()]
    return TestClient(Starlette(routes=routes, middleware=middleware), raise_server_exceptions=False)


def cached(name: str, **options: Any) -> Middleware:
    return Middleware(CacheMiddleware, cache=LocMemCache(name), **options)


def outcomes(client: TestClient, path: str, times: int = 2, **options: Any) -> list[str]:
    return [client.get(path, **options).text for _ in range(times)]


class Breaking:
    """A view whose body breaks off the first time."""

    def __init__(self) -> None:
        self.calls = 0

    async def __call__(self, request: Request) -> Response:
        self.calls += 1
        return StreamingResponse(self.body(self.calls))

    async def body(self, call: int) -> AsyncIterator[str]:
        yield "first half"
        if call == 1:
            raise ConnectionError("the database has gone")
        yield ", second half"


def test_a_body_that_broke_off_is_not_shown_again_although_a_middleware_has_ended_it() -> None:
    client = visitor(cached("broken"), BETWEEN, page=Breaking().__call__)
    assert outcomes(client, "/page", 3) == ["first half", *["first half, second half"] * 2]
    assert "; hit" in client.get("/page").headers["Cache-Status"]


@pytest.mark.parametrize("length", [True, False])
def test_a_page_whose_background_task_fails_is_stored_if_it_is_known_to_be_whole(length: bool) -> None:
    async def fail() -> None:
        raise ConnectionError("no mail today")

    async def page(request: Request) -> Response:
        response = PlainTextResponse("thank you", background=BackgroundTask(fail))
        if not length:
            del response.headers["Content-Length"]
        return response

    client = visitor(cached(f"background-{length}"), page=page)
    client.get("/page")
    assert ("; hit" in client.get("/page").headers["Cache-Status"]) is length
