"""Two applications that know nothing of any cache: their page is the time at which it was made."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterable
from datetime import UTC, datetime
from typing import Any

__all__ = ["asgi_app", "wsgi_app"]


def _page() -> bytes:
    return f"This page was made at {datetime.now(UTC):%H:%M:%S.%f}.\n".encode()


def wsgi_app(environ: dict[str, Any], start_response: Callable[..., Any]) -> Iterable[bytes]:
    """The application for WSGI."""
    start_response("200 OK", [("Content-Type", "text/plain; charset=utf-8")])
    return [_page()]


async def asgi_app(scope: Any, receive: Any, send: Callable[[Any], Awaitable[None]]) -> None:
    """The application for ASGI."""
    if scope["type"] == "http":
        await send({"type": "http.response.start", "status": 200, "headers": [(b"content-type", b"text/plain")]})
        await send({"type": "http.response.body", "body": _page()})
