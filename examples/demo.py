"""Both example sites on free ports, and for each request what the cache did and how long it took.

python -m examples.demo          requests of its own to begin with, then yours, until Ctrl-C
python -m examples.demo --once   its own alone
"""

from __future__ import annotations

import argparse
import http.client
import os
import sys
import threading
import time
from collections.abc import Awaitable, Callable, Iterable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from email.message import Message
from typing import Any
from urllib.parse import urlencode

import http_sf

from examples import flask_site, starlette_site
from examples.serving import listen, serve_asgi, serve_wsgi

__all__ = ["Passed", "explain", "main"]


# -- what the cache did ------------------------------------------------------------------------------------------------


@dataclass
class Passed:
    """One request, as it was seen from outside of the site. Times are in seconds since it came in."""

    site: str
    method: str
    target: str
    began: float = field(default_factory=time.perf_counter)
    status: int = 0
    cache_status: str | None = None
    first: float = 0.0
    ended: float = 0.0

    def head(self, status: int, fields: Iterable[tuple[str, str]]) -> None:
        """The head of the response leaves."""
        self.status = status
        lines = [value for name, value in fields if name.lower() == "cache-status"]
        self.cache_status = lines[-1] if lines else None
        self.first = time.perf_counter() - self.began

    def end(self) -> None:
        """The last byte has left."""
        self.ended = time.perf_counter() - self.began
        say_passed(self)


def explain(cache_status: str | None, status: int) -> tuple[str, str]:
    """What a Cache-Status field (RFC 9211) says, as a colour and in words."""
    if cache_status is None:
        return "dim", "not the cache's business"
    members: Any = http_sf.parse(cache_status.encode(), tltype="list")
    said: Mapping[str, Any] = members[-1][1]
    ttl, reason = said.get("ttl"), said.get("detail")
    if said.get("hit"):
        left = f"fresh for {ttl} s more" if ttl is not None and ttl >= 0 else "stale, being fetched again"
        how = "shared with whoever came first" if said.get("collapsed") else "hit"
        how += ", the browser has it already" if status == 304 else ""
        return "green", f"{how}; {left}"
    if str(said.get("fwd")) == "method":
        return "cyan", "passed on; what was stored for this URL is dropped" if status < 400 else "passed on"
    found = {"uri-miss": "miss", "vary-miss": "miss, another variant is stored", "stale": "stale"}
    how = found.get(str(said.get("fwd")), "passed by")
    if said.get("stored"):
        return "yellow", f"{how}; stored for {ttl} s"
    if status == 304:
        return "dim", f"{how}; the application says that the browser has it already"
    return "dim", f"{how}; not stored" + (f": {reason}" if reason is not None else "")


_COLOURS: Mapping[str, str] = {"green": "32", "yellow": "33", "cyan": "36", "dim": "2", "bold": "1"}
_quiet = threading.Lock()
_told = threading.Semaphore(0)  # once per line: a request's line stands below what announced it


def say(text: str, colour: str = "") -> None:
    """Print a line, in colour on a terminal (see no-color.org)."""
    if colour and sys.stdout.isatty() and "NO_COLOR" not in os.environ:
        text = f"\x1b[{_COLOURS[colour]}m{text}\x1b[0m"
    with _quiet:
        print(text, flush=True)


def say_passed(passed: Passed) -> None:
    """Print the line of one request."""
    colour, words = explain(passed.cache_status, passed.status)
    if passed.ended - passed.first > 0.05:
        words += f"; first byte after {passed.first * 1000:.1f} ms"
    request = f"{passed.method:4} {passed.target}"
    say(f"  {passed.site:9} {request:24} {passed.status}  {passed.ended * 1000:7.1f} ms   {words}", colour)
    _told.release()


# -- the sites, watched ------------------------------------------------------------------------------------------------


class WatchedWSGI:
    """A WSGI application whose requests are reported."""

    def __init__(self, app: Any, name: str) -> None:
        self.app, self.name = app, name

    def __call__(self, environ: dict[str, Any], start_response: Callable[..., Any]) -> Iterator[bytes]:
        passed = Passed(self.name, environ["REQUEST_METHOD"], environ["PATH_INFO"])

        def start(status: str, fields: list[tuple[str, str]], *exc_info: Any) -> Any:
            passed.head(int(status[:3]), fields)
            return start_response(status, fields, *exc_info)

        body = self.app(environ, start)
        try:
            yield from body
        finally:
            getattr(body, "close", lambda: None)()
            passed.end()


class WatchedASGI:
    """An ASGI application whose requests are reported."""

    def __init__(self, app: Any, name: str) -> None:
        self.app, self.name = app, name

    async def __call__(self, scope: Any, receive: Any, send: Callable[[Any], Awaitable[None]]) -> None:
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        passed = Passed(self.name, scope["method"], scope["path"])

        async def sending(message: Any) -> None:
            if message["type"] == "http.response.start":
                fields = [(name.decode("latin-1"), value.decode("latin-1")) for name, value in message["headers"]]
                passed.head(message["status"], fields)
            await send(message)

        try:
            await self.app(scope, receive, sending)
        finally:
            passed.end()


# -- a few requests to begin with --------------------------------------------------------------------------------------


class Visitor:
    """Somebody who asks the site on this port."""

    def __init__(self, port: int) -> None:
        self.port = port

    def ask(self, method: str, target: str, form: Mapping[str, str] | None = None, **fields: str) -> Message:
        """The fields of the response; `if_none_match="…"` is a field of the request."""
        sent = {name.replace("_", "-"): value for name, value in fields.items()}
        if form is not None:
            sent["Content-Type"] = "application/x-www-form-urlencoded"
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=30)
        try:
            connection.request(method, target, urlencode(form) if form else None, sent)
            response = connection.getresponse()
            response.read()
        finally:
            connection.close()
        _told.acquire(timeout=5)
        return response.headers

    def get(self, target: str = "/", **fields: str) -> Message:
        """See `ask`."""
        return self.ask("GET", target, None, **fields)

    def crowd(self, count: int, target: str = "/") -> None:
        """So many at the same time."""
        with ThreadPoolExecutor(count) as pool:
            list(pool.map(self.get, [target] * count))


def tour(flask: Visitor, starlette: Visitor) -> None:
    """What there is to see."""
    say("\nThe first visitor waits for the query, the next one does not; English and German are two pages:", "bold")
    etag = flask.get()["ETag"]
    flask.get()
    flask.get(accept_language="de")
    say("\nA browser that has the page already is told so, without a body:", "bold")
    flask.get(if_none_match=etag)
    say("\nWho posts a notice sees it, and so does everybody else:", "bold")
    flask.ask("POST", "/", {"text": "The harbour master is back at three."})
    flask.get()
    say("\nA page for one visitor is kept by nobody:", "bold")
    flask.get("/you")
    flask.get("/you")
    say("\nEight visitors come at once, and the query runs once:", "bold")
    before = starlette_site.board.queries
    starlette.crowd(8)
    say(f"  queries: {starlette_site.board.queries - before}")
    say("\nA stream is not held back, and stored when it is complete:", "bold")
    starlette.get("/log")
    starlette.get("/log")


def main(arguments: Iterable[str] | None = None) -> None:
    """Run the demo."""
    parser = argparse.ArgumentParser(prog="python -m examples.demo", description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--once", action="store_true", help="make a few requests, then end")
    options = parser.parse_args(None if arguments is None else list(arguments))
    sockets = [listen(), listen()]
    ports = [one.getsockname()[1] for one in sockets]
    serve_wsgi(WatchedWSGI(flask_site.app, "flask"), sockets[0])
    serve_asgi(WatchedASGI(starlette_site.app, "starlette"), sockets[1])
    say(f"Flask, served by waitress:      http://127.0.0.1:{ports[0]}/")
    say(f"Starlette, served by uvicorn:   http://127.0.0.1:{ports[1]}/")
    tour(Visitor(ports[0]), Visitor(ports[1]))
    if options.once:
        return
    say("\nNow open one of the two addresses. Ctrl-C ends the demo.", "bold")
    try:
        threading.Event().wait()
    except KeyboardInterrupt:
        say("")


if __name__ == "__main__":
    main()
