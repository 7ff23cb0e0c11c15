"""A site to tell stories about: one scripted application, one frozen clock, one cache, on WSGI and on ASGI.

Every scenario runs twice. The WSGI side runs under `wsgiref.validate`, inside and outside of the cache.
"""

from __future__ import annotations

import asyncio
import time
import warnings
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from io import BytesIO
from typing import Any
from urllib.parse import unquote_to_bytes
from wsgiref.validate import WSGIWarning, validator

import pytest

from cachemw import asgi, wsgi
from cachemw.backends.base import BaseCache
from cachemw.backends.locmem import LocMemCache

Pairs = Sequence[tuple[str, str]]

START = 1_800_000_000.0


class Clock:
    """The time, which passes only when a scenario says so."""

    def __init__(self) -> None:
        self.now = START

    def __call__(self) -> float:
        return self.now

    def advance(self, seconds: float) -> None:
        self.now += seconds


@dataclass
class Asked:
    """A request as the application got it."""

    method: str
    path: str
    query: str
    fields: dict[str, str]


@dataclass
class Script:
    """What the application answers: status, fields, body (in chunks), and an exception at the end if there is one."""

    status: int = 200
    fields: Pairs = ()
    body: bytes | Sequence[bytes] = b"page"
    error: Exception | None = None
    early: Exception | None = None  # raised before anything is sent

    @property
    def chunks(self) -> Sequence[bytes]:
        return [self.body] if isinstance(self.body, bytes) else self.body


@dataclass
class Answer:
    """A response as the client got it."""

    status: int
    fields: list[tuple[str, str]]
    body: bytes
    error: BaseException | None = None

    def lines(self, name: str) -> list[str]:
        return [value for key, value in self.fields if key.lower() == name.lower()]

    def __getitem__(self, name: str) -> str | None:
        lines = self.lines(name)
        return ", ".join(lines) if lines else None

    @property
    def trace(self) -> str:
        return self.lines("cache-status")[-1] if self.lines("cache-status") else ""

    @property
    def hit(self) -> bool:
        return "; hit" in self.trace


Respond = Callable[[Asked], Script]


class Site:
    """An application behind the cache. `calls` are the requests that reached the application."""

    def __init__(self, interface: str, clock: Clock) -> None:
        self.interface = interface
        self.clock = clock
        self.calls: list[Asked] = []
        self.respond: Respond = lambda asked: Script()
        self.middleware: Any = None
        self.closed = 0
        self.host = "example.org"
        self.build()

    def build(self, *, around: Callable[[Any, str], Any] | None = None, **options: Any) -> Site:
        """Put the cache around the application (`around` says how, if not by CacheMiddleware)."""
        options.setdefault("cache", LocMemCache(f"scenario-{id(self)}-{len(self.calls)}-{time.perf_counter_ns()}"))
        app: Any = validator(self._wsgi) if self.interface == "wsgi" else self._asgi
        module: Any = wsgi if self.interface == "wsgi" else asgi
        self.cache: BaseCache = options["cache"]
        self.middleware = around(app, self.interface) if around else module.CacheMiddleware(app, **options)
        return self

    def answers(self, *scripts: Script) -> Site:
        """Answer with these, one after the other, the last one for ever."""
        left = list(scripts)
        self.respond = lambda asked: left.pop(0) if len(left) > 1 else left[0]
        return self

    def page(self, body: bytes | Sequence[bytes] = b"page", status: int = 200, **fields: str) -> Site:
        """Answer everything with this one response; `cache_control="…"` and so on are its fields."""
        pairs = [(name.replace("_", "-").title(), value) for name, value in fields.items()]
        return self.answers(Script(status, pairs, body))

    # -- asking -----------------------------------------------------------------------------------------------------

    def get(self, target: str = "/", fields: Mapping[str, str] | Pairs = (), **options: Any) -> Answer:
        return self.request("GET", target, fields, **options)

    def request(
        self, method: str, target: str = "/", fields: Mapping[str, str] | Pairs = (), *, stop_after: int | None = None
    ) -> Answer:
        """Send a request; `stop_after`: the client leaves after so many chunks."""
        pairs = list(fields.items()) if isinstance(fields, Mapping) else list(fields)
        if not any(name.lower() == "host" for name, _ in pairs):
            pairs.insert(0, ("Host", self.host))
        if self.interface == "wsgi":
            return self._ask_wsgi(method, target, pairs, stop_after)
        return asyncio.run(self._ask_asgi(method, target, pairs, stop_after))

    def _ask_wsgi(self, method: str, target: str, pairs: Pairs, stop_after: int | None) -> Answer:
        path, _, query = target.partition("?")
        environ: dict[str, Any] = {
            "REQUEST_METHOD": method,
            "SCRIPT_NAME": "",
            "PATH_INFO": unquote_to_bytes(path).decode("latin-1"),
            "QUERY_STRING": query,
            "SERVER_NAME": "testserver",
            "SERVER_PORT": "80",
            "SERVER_PROTOCOL": "HTTP/1.1",
            "wsgi.version": (1, 0),
            "wsgi.url_scheme": "http",
            "wsgi.input": BytesIO(),
            "wsgi.errors": _Errors(),
            "wsgi.multithread": True,
            "wsgi.multiprocess": False,
            "wsgi.run_once": False,
        }
        for name, value in pairs:
            variable = "HTTP_" + name.upper().replace("-", "_")
            if variable in ("HTTP_CONTENT_TYPE", "HTTP_CONTENT_LENGTH"):
                variable = variable[5:]
            environ[variable] = f"{environ[variable]}, {value}" if variable in environ else value
        answer = Answer(0, [], b"")

        def start_response(status: str, headers: list[tuple[str, str]], exc_info: Any = None) -> Callable[[bytes], Any]:
            if exc_info is not None and answer.body:
                raise exc_info[1].with_traceback(exc_info[2])
            answer.status, answer.fields = int(status[:3]), list(headers)
            return lambda data: setattr(answer, "body", answer.body + data)

        result: Any = ()
        try:
            with warnings.catch_warnings():
                warnings.filterwarnings("ignore", "Unknown REQUEST_METHOD", WSGIWarning)
                result = validator(self.middleware)(environ, start_response)
            for count, chunk in enumerate(result, 1):
                answer.body += chunk
                if count == stop_after:
                    break
        except Exception as error:
            answer.error = error
        finally:
            close = getattr(result, "close", None)
            if close is not None:
                close()
        return answer

    async def _ask_asgi(self, method: str, target: str, pairs: Pairs, stop_after: int | None) -> Answer:
        path, _, query = target.partition("?")
        scope = {
            "type": "http",
            "asgi": {"version": "3.0"},
            "http_version": "1.1",
            "method": method,
            "scheme": "http",
            "path": unquote_to_bytes(path).decode("utf-8", "replace"),
            "raw_path": path.encode("latin-1"),
            "query_string": query.encode("latin-1"),
            "root_path": "",
            "headers": [(name.lower().encode("latin-1"), value.encode("latin-1")) for name, value in pairs],
            "server": ("testserver", 80),
        }
        answer = Answer(0, [], b"")
        count = 0

        async def receive() -> dict[str, Any]:
            return {"type": "http.request", "body": b"", "more_body": False}

        async def send(message: Mapping[str, Any]) -> None:
            nonlocal count
            if message["type"] == "http.response.start":
                answer.status = message["status"]
                answer.fields = [(n.decode("latin-1"), v.decode("latin-1")) for n, v in message["headers"]]
            elif message["type"] == "http.response.body":
                if stop_after is not None and count >= stop_after:
                    raise OSError("the client has left")
                count += 1
                answer.body += message.get("body", b"")

        try:
            await self.middleware(scope, receive, send)
        except Exception as error:
            answer.error = error
        if refreshes := [task for task in asyncio.all_tasks() if task.get_name() == "cachemw-refresh"]:
            await asyncio.wait(refreshes, timeout=5)
        return answer

    # -- the application --------------------------------------------------------------------------------------------

    def _wsgi(self, environ: dict[str, Any], start_response: Callable[..., Any]) -> Iterable[bytes]:
        fields = {name[5:].replace("_", "-").lower(): value for name, value in environ.items() if name[:5] == "HTTP_"}
        asked = Asked(environ["REQUEST_METHOD"], environ["PATH_INFO"], environ["QUERY_STRING"], fields)
        self.calls.append(asked)
        script = self.respond(asked)
        if script.early is not None:
            raise script.early
        fields_out = list(script.fields)
        if script.status not in (204, 304) and not any(n.lower() == "content-type" for n, _ in fields_out):
            fields_out.append(("Content-Type", "text/html"))
        start_response(f"{script.status} Scripted", fields_out)
        return _Body([] if script.status in (204, 304) or asked.method == "HEAD" else script.chunks, script.error, self)

    async def _asgi(self, scope: Any, receive: Any, send: Any) -> None:
        fields: dict[str, str] = {}
        for name, value in scope["headers"]:
            key, text = name.decode("latin-1"), value.decode("latin-1")
            fields[key] = f"{fields[key]}, {text}" if key in fields else text
        asked = Asked(scope["method"], scope["path"], scope["query_string"].decode("latin-1"), fields)
        self.calls.append(asked)
        script = self.respond(asked)
        if script.early is not None:
            raise script.early
        fields_out = list(script.fields)
        if script.status not in (204, 304) and not any(n.lower() == "content-type" for n, _ in fields_out):
            fields_out.append(("Content-Type", "text/html"))
        headers = [(n.lower().encode("latin-1"), v.encode("latin-1")) for n, v in fields_out]
        await send({"type": "http.response.start", "status": script.status, "headers": headers})
        if script.status not in (204, 304) and asked.method != "HEAD":
            for chunk in script.chunks:
                await send({"type": "http.response.body", "body": chunk, "more_body": True})
        if script.error is not None:
            raise script.error
        await send({"type": "http.response.body", "body": b"", "more_body": False})


class _Body:
    """A WSGI body that may break off, and that says when it was closed."""

    def __init__(self, chunks: Sequence[bytes], error: Exception | None, site: Site) -> None:
        self._chunks = iter(chunks)
        self._error = error
        self._site = site

    def __iter__(self) -> Iterator[bytes]:
        return self

    def __next__(self) -> bytes:
        try:
            return next(self._chunks)
        except StopIteration:
            if self._error is not None:
                raise self._error from None
            raise

    def close(self) -> None:
        self._site.closed += 1


class _Errors:
    """`wsgi.errors`, as wsgiref.validate wants it."""

    def write(self, text: str) -> None: ...

    def writelines(self, lines: Iterable[str]) -> None: ...

    def flush(self) -> None: ...


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    """The clock of the site, frozen."""
    clock = Clock()
    monkeypatch.setattr("cachemw.wsgi.time.time", clock)
    return clock


@pytest.fixture(params=["wsgi", "asgi"])
def site(request: pytest.FixtureRequest, clock: Clock) -> Site:
    """A site on either interface."""
    return Site(request.param, clock)
