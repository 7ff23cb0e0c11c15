"""Lower bounds: the whole decision of a hit in plain code, with nothing around it.

Request Cache-Control, Pragma, Range and Authorization, If-None-Match with 304, HEAD, Vary, Age and the touch of an LRU
are there; eviction, locks, statistics, time-outs, reconnection and every other rule are not. No one should deploy them.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Iterable
from time import time
from typing import Any

__all__ = [
    "DictOfPages",
    "ProtoAsgi",
    "ProtoAsgiPacked",
    "ProtoWsgi",
    "ProtoWsgiPacked",
]

Raw = list[tuple[bytes, bytes]]
_BARRIERS_ASGI = (b"cache-control", b"pragma", b"range", b"authorization")
_BARRIERS_WSGI = ("HTTP_CACHE_CONTROL", "HTTP_PRAGMA", "HTTP_RANGE", "HTTP_AUTHORIZATION")


class ProtoAsgi:
    """Local memory, ASGI."""

    def __init__(self, app: Any) -> None:
        self.app = app
        self.store: OrderedDict[bytes, tuple[float, float, tuple[tuple[bytes, bytes | None], ...], bytes, Raw, Any]] = (
            OrderedDict()
        )

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        headers = dict(scope["headers"])
        key = b"%b://%b%b?%b" % (
            scope["scheme"].encode(),
            headers.get(b"host", b""),
            scope["raw_path"],
            scope["query_string"],
        )
        method = scope["method"]
        if method not in ("GET", "HEAD") or any(name in headers for name in _BARRIERS_ASGI):
            await self.app(scope, receive, send)
            return
        entry = self.store.get(key)
        if entry is not None:
            born, expires, vary, etag, fields, message = entry
            now = time()
            if now < expires:
                for name, value in vary:
                    if headers.get(name) != value:
                        break
                else:
                    self.store.move_to_end(key)
                    fields = [*fields, (b"age", b"%d" % (now - born))]
                    if b"if-none-match" in headers and etag in headers[b"if-none-match"]:
                        await send({"type": "http.response.start", "status": 304, "headers": fields})
                        await send({"type": "http.response.body", "body": b""})
                        return
                    await send({"type": "http.response.start", "status": 200, "headers": fields})
                    await send(message if method == "GET" else {"type": "http.response.body", "body": b""})
                    return
        start: Any = None
        body: list[bytes] = []

        async def keep(message: Any) -> None:
            nonlocal start
            if message["type"] == "http.response.start":
                start = message
            else:
                body.append(message.get("body", b""))
            await send(message)

        await self.app(scope, receive, keep)
        answered = dict(start["headers"])
        max_age = float(answered[b"cache-control"].partition(b"max-age=")[2])
        names = [name.strip().lower() for name in answered.get(b"vary", b"").split(b",") if name]
        vary = tuple((name, headers.get(name)) for name in names)
        message = {"type": "http.response.body", "body": b"".join(body)}
        now = time()
        self.store[key] = (now, now + max_age, vary, answered.get(b"etag", b""), start["headers"], message)


class ProtoWsgi:
    """Local memory, WSGI."""

    def __init__(self, app: Any) -> None:
        self.app = app
        self.store: OrderedDict[tuple[str, ...], tuple[Any, ...]] = OrderedDict()

    def __call__(self, environ: dict[str, Any], start_response: Any) -> Iterable[bytes]:
        method = environ["REQUEST_METHOD"]
        if method not in ("GET", "HEAD") or any(name in environ for name in _BARRIERS_WSGI):
            return self.app(environ, start_response)  # type: ignore[no-any-return]
        get = environ.get
        key = (
            environ["wsgi.url_scheme"],
            get("HTTP_HOST", ""),
            environ["SCRIPT_NAME"],
            environ["PATH_INFO"],
            environ["QUERY_STRING"],
        )
        entry = self.store.get(key)
        if entry is not None:
            born, expires, vary, etag, fields, body = entry
            now = time()
            if now < expires:
                for name, value in vary:
                    if get(name) != value:
                        break
                else:
                    self.store.move_to_end(key)
                    fields = [*fields, ("Age", str(int(now - born)))]
                    if "HTTP_IF_NONE_MATCH" in environ and etag in environ["HTTP_IF_NONE_MATCH"]:
                        start_response("304 Not Modified", fields)
                        return ()
                    start_response("200 OK", fields)
                    return () if method == "HEAD" else body
        return _Kept(self, key, environ, start_response)


class _Kept:
    def __init__(self, proto: ProtoWsgi, key: tuple[str, ...], environ: dict[str, Any], start_response: Any) -> None:
        self.proto, self.key, self.environ = proto, key, environ
        self.fields: list[tuple[str, str]] = []
        self.body: list[bytes] = []

        def keep(status: str, fields: list[tuple[str, str]], *rest: Any) -> Any:
            self.fields = fields
            return start_response(status, fields, *rest)

        self.chunks = proto.app(environ, keep)

    def __iter__(self) -> Any:
        for chunk in self.chunks:
            self.body.append(chunk)
            yield chunk

    def close(self) -> None:
        answered = {name.lower(): value for name, value in self.fields}
        max_age = float(answered["cache-control"].partition("max-age=")[2])
        names = ["HTTP_" + name.strip().upper().replace("-", "_") for name in answered.get("vary", "").split(",")]
        vary = tuple((name, self.environ.get(name)) for name in names)
        now = time()
        body = (b"".join(self.body),)
        self.proto.store[self.key] = (now, now + max_age, vary, answered.get("etag", ""), self.fields, body)


def _pack(now: float, max_age: float, vary: str, value: str | None, fields: Iterable[tuple[str, str]]) -> bytes:
    head = [f"{now} {now + max_age}", vary, "-" if value is None else "+" + value]
    for name, text in fields:
        head += (name, text)
    packed = "\n".join(head).encode("latin-1")
    return b"%08d%b" % (len(packed), packed)


class ProtoAsgiPacked:
    """A store of bytes, ASGI."""

    def __init__(self, app: Any, store: Any) -> None:
        self.app = app
        self.store = store

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        headers = dict(scope["headers"])
        if scope["method"] != "GET" or any(name in headers for name in _BARRIERS_ASGI):
            await self.app(scope, receive, send)
            return
        key = b"proto:%b%b?%b" % (headers.get(b"host", b""), scope["raw_path"], scope["query_string"])
        packed = await self.store.get(key)
        now = time()
        if packed is not None:
            end = 8 + int(packed[:8])
            times, vary, value, *rest = packed[8:end].split(b"\n")
            born, expires = times.split()
            present = headers.get(vary)
            if now < float(expires) and value == (b"-" if present is None else b"+" + present):
                fields = list(zip(rest[::2], rest[1::2], strict=True))
                fields.append((b"age", b"%d" % (now - float(born))))
                tags = headers.get(b"if-none-match")
                status = 304 if tags is not None and dict(fields)[b"etag"] in tags else 200
                await send({"type": "http.response.start", "status": status, "headers": fields})
                await send({"type": "http.response.body", "body": packed[end:] if status == 200 else b""})
                return
        start: Any = None
        body: list[bytes] = []

        async def keep(message: Any) -> None:
            nonlocal start
            if message["type"] == "http.response.start":
                start = message
            else:
                body.append(message.get("body", b""))
            await send(message)

        await self.app(scope, receive, keep)
        fields = [(name.decode(), text.decode()) for name, text in start["headers"]]
        answered = dict(fields)
        vary = answered["vary"].lower()
        value = headers.get(vary.encode())
        max_age = float(answered["cache-control"].partition("max-age=")[2])
        head = _pack(now, max_age, vary, None if value is None else value.decode(), fields)
        await self.store.put(key, head + b"".join(body), int(max_age))


class ProtoWsgiPacked:
    """A store of bytes, WSGI."""

    def __init__(self, app: Any, store: Any) -> None:
        self.app = app
        self.store = store

    def __call__(self, environ: dict[str, Any], start_response: Callable[..., Any]) -> Iterable[bytes]:
        if environ["REQUEST_METHOD"] != "GET" or any(name in environ for name in _BARRIERS_WSGI):
            return self.app(environ, start_response)  # type: ignore[no-any-return]
        key = f"proto:{environ.get('HTTP_HOST')}{environ['PATH_INFO']}?{environ['QUERY_STRING']}".encode("latin-1")
        packed = self.store.get(key)
        now = time()
        if packed is not None:
            end = 8 + int(packed[:8])
            times, vary, value, *rest = packed[8:end].decode("latin-1").split("\n")
            born, expires = times.split()
            present = environ.get(vary)
            if now < float(expires) and value == ("-" if present is None else "+" + present):
                fields = list(zip(rest[::2], rest[1::2], strict=True))
                fields.append(("Age", str(int(now - float(born)))))
                tags = environ.get("HTTP_IF_NONE_MATCH")
                if tags is not None and dict(fields)["ETag"] in tags:
                    start_response("304 Not Modified", fields)
                    return ()
                start_response("200 OK", fields)
                return (packed[end:],)
        answered: list[tuple[str, str]] = []

        def keep(status: str, fields: list[tuple[str, str]], *rest: Any) -> Any:
            answered.extend(fields)
            return start_response(status, fields, *rest)

        body = b"".join(self.app(environ, keep))
        found = dict(answered)
        vary = "HTTP_" + found["Vary"].upper().replace("-", "_")
        max_age = float(found["Cache-Control"].partition("max-age=")[2])
        head = _pack(now, max_age, vary, environ.get(vary), answered)
        self.store.put(key, head + body, int(max_age))
        return (body,)


class DictOfPages:
    """A dictionary of bodies, and of fields too with `fields`: what the memory of a page is held against."""

    def __init__(self, app: Any, *, fields: bool) -> None:
        self.app = app
        self.keep_fields = fields
        self.store: dict[str, Any] = {}

    def __call__(self, environ: dict[str, Any], start_response: Callable[..., Any]) -> Iterable[bytes]:
        path = environ["PATH_INFO"]
        kept: Any = self.store.get(path)
        if kept is None:
            answered: list[tuple[str, str]] = []

            def keep(status: str, fields: list[tuple[str, str]], *rest: Any) -> None:
                answered.extend(fields)

            body = b"".join(self.app(environ, keep))
            kept = self.store[path] = (tuple(answered), body) if self.keep_fields else body
        start_response("200 OK", list(kept[0]) if self.keep_fields else [])
        return (kept[1] if self.keep_fields else kept,)
