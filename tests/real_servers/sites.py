"""One site as a Flask and as a Starlette application, behind the cache with its defaults; `/calls` counts their calls.

Every body says how often its page was made, so that a test sees which making it got.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import AsyncIterator, Iterator
from typing import Any, Final

from flask import Flask, Response, request
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import PlainTextResponse, StreamingResponse
from starlette.routing import Route

from cachemw import CacheMiddleware, Policy
from tests.real_servers.gates import apass_gate, pass_gate

__all__ = ["asgi_app", "wsgi_app"]

LARGE: Final = 400  # chunks of 64 KB: 25 MB, more than any server or socket takes at once

#: By path: content type, chunks ("…" is a gate of the path's name), further fields.
PAGES: Final[dict[str, tuple[str, list[str], dict[str, str]]]] = {
    "/page": ("text/plain", ["page"], {}),
    "/cold": ("text/plain", ["…", "cold"], {}),
    "/private": ("text/plain", ["…", "private"], {"Cache-Control": "private"}),
    "/stream": ("text/plain", ["first\n", "…", "last\n"], {}),
    "/events": ("text/event-stream", ["data: 1\n\n", "…", "data: 2\n\n"], {}),
    "/large": ("text/plain", ["first\n", "…", *["x" * 65536] * LARGE], {}),
    "/short": ("text/plain", ["only this"], {"Content-Length": "100"}),
    "/breaks": ("text/plain", ["first\n", "!"], {}),
    # stale as soon as it is stored: its freshness has gone by on its way here (RFC 9111 §4.2.3)
    "/stale": ("text/plain", ["…", "stale"], {"Cache-Control": "max-age=5, stale-while-revalidate=60", "Age": "10"}),
}

wsgi_calls: Counter[str] = Counter()
asgi_calls: Counter[str] = Counter()


def _chunk(text: str, calls: int) -> str:
    if text == "!":
        raise RuntimeError("the application breaks off")
    return f"{calls} {text}" if len(text) < 100 else text


# -- Flask -------------------------------------------------------------------------------------------------------------

flask = Flask(__name__)


@flask.get("/calls")
def calls() -> Response:
    return Response(str(wsgi_calls[request.args["of"]]), headers={"Cache-Control": "no-store"})


@flask.get("/<name>")
def show(name: str) -> Response:
    path = f"/{name}"
    kind, chunks, fields = PAGES[path]
    wsgi_calls[path] += 1

    def body(calls: int) -> Iterator[str]:
        for text in chunks:
            if text == "…":
                pass_gate(name)
            else:
                yield _chunk(text, calls)

    return Response(body(wsgi_calls[path]), content_type=kind, headers=fields)


# -- Starlette ---------------------------------------------------------------------------------------------------------


async def acalls(request: Request) -> PlainTextResponse:
    return PlainTextResponse(str(asgi_calls[request.query_params["of"]]), headers={"Cache-Control": "no-store"})


async def ashow(request: Request) -> StreamingResponse:
    path = request.url.path
    kind, chunks, fields = PAGES[path]
    asgi_calls[path] += 1

    async def body(calls: int) -> AsyncIterator[str]:
        for text in chunks:
            if text == "…":
                await apass_gate(path[1:])
            else:
                yield _chunk(text, calls)

    return StreamingResponse(body(asgi_calls[path]), media_type=kind, headers=fields)


starlette = Starlette(routes=[Route("/calls", acalls), Route("/{name}", ashow)])

policy = Policy(max_body=64 * 1024 * 1024)  # so that it is not the size that keeps /large from being stored
wsgi_app: Any = CacheMiddleware(flask, cache="locmem://wsgi", policy=policy)
asgi_app: Any = CacheMiddleware(starlette, cache="locmem://asgi", policy=policy)
