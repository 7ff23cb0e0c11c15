"""A site that several worker processes serve; each call of the application leaves a line in the file $CALLS."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Callable, Iterable
from typing import Any

from cachemw import Policy, asgi, wsgi
from tests.real_servers.gates import apass_gate, pass_gate

__all__ = ["asgi_app", "wsgi_app"]


def _called(path: str) -> bytes:
    with open(os.environ["CALLS"], "a") as file:
        file.write(f"{os.getpid()} {path}\n")
    return f"{path} by {os.getpid()}".encode()


def _wsgi(environ: dict[str, Any], start_response: Callable[..., Any]) -> Iterable[bytes]:
    body = _called(environ["PATH_INFO"])
    if environ["PATH_INFO"] == "/cold":
        pass_gate("cold")
    start_response("200 OK", [("Content-Type", "text/plain"), ("Content-Length", str(len(body)))])
    return [body]


async def _asgi(scope: Any, receive: Any, send: Any) -> None:
    if scope["type"] != "http":
        return
    body = _called(scope["path"])
    if scope["path"] == "/cold":
        await apass_gate("cold")
    await asyncio.sleep(0)
    headers = [(b"content-type", b"text/plain"), (b"content-length", b"%d" % len(body))]
    await send({"type": "http.response.start", "status": 200, "headers": headers})
    await send({"type": "http.response.body", "body": body})


# the machine may be busy, and these tests are not about deadlines
_cache = os.environ["STORE"]
_policy = Policy(lease=float(os.environ.get("LEASE", "10")))
wsgi_app: Any = wsgi.CacheMiddleware(_wsgi, cache=_cache, policy=_policy)
asgi_app: Any = asgi.CacheMiddleware(_asgi, cache=_cache, policy=_policy)
