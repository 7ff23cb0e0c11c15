"""What carries an application elsewhere than a server of its own interface does: bridges, CGI, functions on demand."""

from __future__ import annotations

import asyncio
import os
import subprocess
import sys
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from asgiref.wsgi import WsgiToAsgi
from flask import Flask, Response
from starlette.requests import Request
from starlette.responses import PlainTextResponse
from starlette.routing import Route, Router
from starlette.testclient import TestClient

from cachemw import asgi, wsgi
from cachemw.backends.locmem import LocMemCache
from tests.serving import ROOT

bridge: Any = WsgiToAsgi  # it has no types

BRIDGED: dict[str, Callable[[Any], Any]] = {
    "the cache inside": lambda app: bridge(wsgi.CacheMiddleware(app, cache=LocMemCache("bridge-inside"))),
    "the cache outside": lambda app: asgi.CacheMiddleware(bridge(app), cache=LocMemCache("bridge-outside")),
}


@pytest.mark.parametrize("order", BRIDGED)
def test_an_application_that_asgiref_turns_into_an_asgi_one_is_cached_on_either_side(order: str) -> None:
    flask, calls = Flask("bridged"), Counter[str]()

    @flask.get("/<name>")
    def page(name: str) -> Response:
        calls[name] += 1
        return Response((f"{name} {calls[name]} {part}\n" for part in range(3)), headers={"ETag": f'"{name}"'})

    LocMemCache("bridge-inside").clear()
    LocMemCache("bridge-outside").clear()
    client = TestClient(BRIDGED[order](flask))
    whole = "a 1 0\na 1 1\na 1 2\n"
    assert [client.get("/a").text for _ in range(2)] == [whole, whole]
    hit = client.get("/a", headers={"If-None-Match": '"other"'})
    assert "; hit" in hit.headers["cache-status"]
    assert client.get("/a", headers={"If-None-Match": '"a"'}).status_code == 304
    head = client.head("/a")
    assert (head.content, head.headers["content-length"]) == (b"", str(len(whole)))
    assert client.get("/a", headers={"Range": "bytes=0-1"}).text == "a "
    assert calls == {"a": 1}


CGI = """
import os
from wsgiref.handlers import CGIHandler
from cachemw import CacheMiddleware

def application(environ, start_response):
    start_response("200 OK", [("Content-Type", "text/plain")])
    return [b"made by %d" % os.getpid()]

CGIHandler().run(CacheMiddleware(application))
"""


def test_cgi_has_pages_from_the_processes_before(tmp_path: Path) -> None:
    environ = {
        "REQUEST_METHOD": "GET",
        "PATH_INFO": "/page",
        "SERVER_NAME": "example.org",
        "SERVER_PORT": "80",
        "SERVER_PROTOCOL": "HTTP/1.0",
        "GATEWAY_INTERFACE": "CGI/1.1",
        "CACHEMW_URL": f"file://{tmp_path}",
    }
    argv = [sys.executable, "-W", "error", "-c", CGI]
    answers = [
        subprocess.run(argv, cwd=ROOT, env={**os.environ, **environ}, capture_output=True, text=True, check=True)
        for _ in range(2)
    ]
    assert [answer.stderr for answer in answers] == ["", ""]
    (cold, made), (hot, served) = [answer.stdout.split("\n\n") for answer in answers]
    assert "fwd=uri-miss" in cold
    assert "; hit" in hot
    assert served == made


def test_a_refresh_goes_on_with_the_next_request_where_the_process_stands_still_between_them() -> None:
    """As functions on demand do: their event loop runs while there is a request."""
    calls = Counter[str]()

    async def page(request: Request) -> PlainTextResponse:
        calls["page"] += 1
        made = calls["page"]
        for _ in range(made * 5):  # the second time, for longer than a hit takes
            await asyncio.sleep(0)
        fields = {"Cache-Control": "max-age=5, stale-while-revalidate=60", "Age": "10" if made == 1 else "0"}
        return PlainTextResponse(f"page {made}", headers=fields)

    app = asgi.CacheMiddleware(Router([Route("/", page)]), cache=LocMemCache("stands-still"))
    LocMemCache("stands-still").clear()
    loop = asyncio.new_event_loop()

    async def receive() -> dict[str, Any]:
        return {"type": "http.request"}

    def ask() -> str:
        body = bytearray()

        async def send(message: Any) -> None:
            body.extend(message.get("body", b""))

        scope = {"type": "http", "method": "GET", "path": "/", "raw_path": b"/", "query_string": b"", "headers": []}
        loop.run_until_complete(app(scope, receive, send))
        return body.decode()

    try:
        assert ask() == "page 1"
        answers = [ask() for _ in range(30)]
        loop.run_until_complete(app.refresher.aclose())
    finally:
        loop.close()
    assert answers[0] == "page 1"
    assert answers[-1] == "page 2"
    assert calls["page"] == 2
