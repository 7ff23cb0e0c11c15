"""A hook that tells the browser what the cache did and how long it took, in the field `Server-Timing`.

The after hook runs for hits too, so it is the place for what must not be stored with the page. The pages show what it
says in their upper right corner; the browser's developer tools have it under "Timing".
"""

from __future__ import annotations

import time
from contextvars import ContextVar
from typing import Any

from cachemw import Hooks

__all__ = ["asgi_timing", "wsgi_timing"]

_began: ContextVar[float] = ContextVar("began")


def wsgi_timing() -> Hooks:
    """The hooks for a WSGI site: plain functions, which run in the request's thread."""
    hooks = Hooks()

    @hooks.before_request
    def begin(request: Any) -> None:
        _began.set(time.perf_counter())

    @hooks.after_request
    def tell(response: Any) -> None:
        response.headers["Server-Timing"] = _entry(response.headers.get("Cache-Status"))

    return hooks


def asgi_timing() -> Hooks:
    """The hooks for an ASGI site: they do not wait, so they are coroutine functions, which run on the event loop."""
    hooks = Hooks()

    @hooks.before_request
    async def begin(request: Any) -> None:
        _began.set(time.perf_counter())

    @hooks.after_request
    async def tell(response: Any) -> None:
        response.headers["Server-Timing"] = _entry(response.headers.get("Cache-Status"))

    return hooks


def _entry(cache_status: str | None) -> str:
    did = (cache_status or "").partition("; ")[2] or "passed by"
    return f'cache;desc="{did}";dur={(time.perf_counter() - _began.get()) * 1000:.2f}'
