"""The one request, the one response, and the bare applications that every subject stands in front of."""

from __future__ import annotations

import asyncio
import io
import sys
import time
from collections.abc import Callable, Iterable
from typing import Any, Final

__all__ = ["ETAG", "KINDS", "REQUEST_FIELDS", "Origin", "bare_asgi", "bare_wsgi", "environ", "scope"]

#: Pages by the first segment of their path, and the bytes of their body.
KINDS: Final = {"s": 1024, "p": 4096, "m": 32 * 1024, "l": 1024 * 1024}
ETAG: Final = '"5f3c9a1e7b2d"'

#: Twelve fields, as a browser sends them for a page that it has a cookie for.
REQUEST_FIELDS: Final = (
    ("host", "www.example.org"),
    ("user-agent", "Mozilla/5.0 (X11; Linux x86_64; rv:128.0) Gecko/20100101 Firefox/128.0"),
    ("accept", "text/html,application/xhtml+xml,application/xml;q=0.9,image/avif,image/webp,*/*;q=0.8"),
    ("accept-language", "de,en-US;q=0.7,en;q=0.3"),
    ("accept-encoding", "gzip, deflate, br, zstd"),
    ("referer", "https://www.example.org/articles/"),
    ("connection", "keep-alive"),
    ("cookie", "_ga=GA1.1.123456789.1700000000; theme=dark; consent=yes"),
    ("upgrade-insecure-requests", "1"),
    ("sec-fetch-dest", "document"),
    ("sec-fetch-mode", "navigate"),
    ("sec-fetch-site", "same-origin"),
)


class Origin:
    """The content behind all subjects, and how often it was asked for.

    The path is "/KIND/NAME": NAME tells pages apart, KIND is one of `KINDS`.
    """

    def __init__(self) -> None:
        self.calls = 0
        self.delay = 0.0  # seconds that the application takes
        self.distinct = False  # each response has a body and fields of its own, as when they are rendered
        self._bodies = {kind: (b"<p>paragraph</p>\n" * (size // 16))[:size] for kind, size in KINDS.items()}
        self._fields = {kind: tuple(self._make_fields(size)) for kind, size in KINDS.items()}
        self._raw = {
            kind: tuple((name.lower().encode(), value.encode()) for name, value in fields)
            for kind, fields in self._fields.items()
        }

    @staticmethod
    def _make_fields(size: int) -> Iterable[tuple[str, str]]:
        """Nine fields, of a page that says how long it is good for."""
        yield "Content-Type", "text/html; charset=utf-8"
        yield "Content-Length", str(size)
        yield "Cache-Control", "public, max-age=3600"
        yield "ETag", ETAG
        yield "Last-Modified", "Tue, 14 Nov 2023 22:13:20 GMT"
        yield "Vary", "Accept-Encoding"
        yield "Content-Language", "de"
        yield "X-Content-Type-Options", "nosniff"
        yield "Referrer-Policy", "strict-origin-when-cross-origin"

    def body(self, kind: str) -> bytes:
        """The body, and one call more; sleeps for `delay`."""
        self.calls += 1
        if self.delay:
            time.sleep(self.delay)
        return self._content(kind)

    async def abody(self, kind: str) -> bytes:
        """The same, for an application that waits in the event loop."""
        self.calls += 1
        if self.delay:
            await asyncio.sleep(self.delay)
        return self._content(kind)

    def _content(self, kind: str) -> bytes:
        body = self._bodies[kind]
        return b"%08d%b" % (self.calls, body[8:]) if self.distinct else body

    def fields(self, kind: str) -> list[tuple[str, str]]:
        """The response's fields as WSGI has them; a list of its own, as an application makes one for each response."""
        if self.distinct:
            return [(_copy(name), _copy(value)) for name, value in self._fields[kind]]
        return list(self._fields[kind])

    def raw(self, kind: str) -> list[tuple[bytes, bytes]]:
        """The response's fields as ASGI has them."""
        if self.distinct:
            return [(bytes(bytearray(name)), bytes(bytearray(value))) for name, value in self._raw[kind]]
        return list(self._raw[kind])


def _copy(text: str) -> str:
    return text.encode().decode()


def bare_wsgi(origin: Origin) -> Callable[..., Iterable[bytes]]:
    """The application alone."""

    def application(environ: dict[str, Any], start_response: Any) -> Iterable[bytes]:
        kind = environ["PATH_INFO"][1]
        start_response("200 OK", origin.fields(kind))
        return [origin.body(kind)]

    return application


def bare_asgi(origin: Origin) -> Callable[..., Any]:
    """The application alone."""

    async def application(scope: Any, receive: Any, send: Any) -> None:
        kind = scope["path"][1]
        await send({"type": "http.response.start", "status": 200, "headers": origin.raw(kind)})
        await send({"type": "http.response.body", "body": await origin.abody(kind)})

    return application


def environ(fields: Iterable[tuple[str, str]] = ()) -> dict[str, Any]:
    """A WSGI environment as gunicorn makes it, without a path."""
    template: dict[str, Any] = {
        "REQUEST_METHOD": "GET",
        "SCRIPT_NAME": "",
        "PATH_INFO": "/",
        "QUERY_STRING": "",
        "SERVER_NAME": "www.example.org",
        "SERVER_PORT": "80",
        "SERVER_PROTOCOL": "HTTP/1.1",
        "REMOTE_ADDR": "127.0.0.1",
        "wsgi.version": (1, 0),
        "wsgi.url_scheme": "http",
        "wsgi.input": io.BytesIO(),
        "wsgi.errors": sys.stderr,
        "wsgi.multithread": True,
        "wsgi.multiprocess": True,
        "wsgi.run_once": False,
    }
    for name, value in (*REQUEST_FIELDS, *fields):
        template["HTTP_" + name.upper().replace("-", "_")] = value
    return template


def scope(fields: Iterable[tuple[str, str]] = ()) -> dict[str, Any]:
    """An ASGI scope as uvicorn makes it, without a path."""
    return {
        "type": "http",
        "asgi": {"version": "3.0", "spec_version": "2.3"},
        "http_version": "1.1",
        "method": "GET",
        "scheme": "http",
        "path": "/",
        "raw_path": b"/",
        "query_string": b"",
        "root_path": "",
        "headers": [(name.encode(), value.encode()) for name, value in (*REQUEST_FIELDS, *fields)],
        "server": ("127.0.0.1", 80),
        "client": ("127.0.0.1", 50000),
        "state": {},
    }
