"""A gateway to one origin server, as a WSGI and as an ASGI application: what the cache stands in front of.

It alters as little as its servers allow. Bodies are relayed as they come, field lines keep their order and repeat.
Fields of the hop to the origin are consumed, as RFC 9110 §7.6.1 asks of an intermediary; on WSGI all hop-by-hop fields
are (PEP 3333 forbids them to applications), on ASGI those that do not frame the message go on, for the cache to drop.
An origin that closes the connection without an answer is a 502.
"""

from __future__ import annotations

import asyncio
import http.client
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any, Final, TypeVar

__all__ = ["asgi_gateway", "wsgi_gateway"]

_CHUNK: Final = 64 * 1024
_HOP: Final = frozenset(
    {
        "connection",
        "keep-alive",
        "proxy-authenticate",
        "proxy-authorization",
        "proxy-connection",
        "te",
        "trailer",
        "transfer-encoding",
        "upgrade",
    }
)
_FRAMING: Final = frozenset({"transfer-encoding", "trailer", "upgrade"})
_BAD_GATEWAY: Final = b"The origin server did not answer.\n"

Fields = list[tuple[str, str]]
T = TypeVar("T")


class _Answer:
    """The origin's response, its body still to be read."""

    def __init__(self, port: int, method: str, target: str, fields: Iterable[tuple[str, str]], body: bytes) -> None:
        self._connection = http.client.HTTPConnection("127.0.0.1", port, timeout=30)
        try:
            self._connection.putrequest(method, target, skip_host=True, skip_accept_encoding=True)
            for name, value in fields:
                if name.lower() not in _HOP:
                    self._connection.putheader(name, value.encode("latin-1"))
            self._connection.putheader("Connection", "close")  # a new connection each: nothing of one test in the next
            self._connection.endheaders(body or None)
            self._response = self._connection.getresponse()
        except BaseException:
            self._connection.close()
            raise
        self.status = self._response.status
        self.reason = self._response.reason
        self.fields: Fields = self._response.getheaders()

    def read(self) -> bytes:
        return self._response.read1(_CHUNK)

    def close(self) -> None:
        self._response.close()
        self._connection.close()


class wsgi_gateway:  # noqa: N801  an application, called like one
    """The WSGI application in front of the origin at 127.0.0.1:`port`."""

    def __init__(self, port: int) -> None:
        self._port = port

    def __call__(self, environ: dict[str, Any], start_response: Any) -> Iterable[bytes]:
        target = environ["REQUEST_URI"] if "REQUEST_URI" in environ else environ["PATH_INFO"]
        if environ.get("QUERY_STRING") and "?" not in target:
            target += "?" + environ["QUERY_STRING"]
        fields = [(key[5:].replace("_", "-"), value) for key, value in environ.items() if key.startswith("HTTP_")]
        for key in ("CONTENT_TYPE", "CONTENT_LENGTH"):
            if environ.get(key):
                fields.append((key.replace("_", "-"), environ[key]))
        body = environ["wsgi.input"].read(int(environ.get("CONTENT_LENGTH") or 0))
        try:
            answer = _Answer(self._port, environ["REQUEST_METHOD"], target, fields, body)
        except (OSError, http.client.HTTPException):
            start_response(
                "502 Bad Gateway", [("Content-Type", "text/plain"), ("Content-Length", str(len(_BAD_GATEWAY)))]
            )
            return [_BAD_GATEWAY]
        nominated = _nominated(answer.fields)
        kept = [(n, v) for n, v in answer.fields if n.lower() not in _HOP and n.lower() not in nominated]
        start_response(f"{answer.status} {answer.reason or 'Unknown'}", kept)
        return _Body(answer)


class _Body:
    def __init__(self, answer: _Answer) -> None:
        self._answer = answer

    def __iter__(self) -> Iterator[bytes]:
        return iter(self._answer.read, b"")

    def close(self) -> None:
        self._answer.close()


class asgi_gateway:  # noqa: N801  an application, called like one
    """The ASGI application in front of the origin at 127.0.0.1:`port`."""

    def __init__(self, port: int) -> None:
        self._port = port
        # more threads than the suite has tests under way: none of them waits for another's
        self._threads = ThreadPoolExecutor(128)

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        if scope["type"] != "http":
            raise NotImplementedError(scope["type"])
        body = b""
        more = True
        while more:
            message = await receive()
            if message["type"] == "http.disconnect":
                return
            body += message.get("body", b"")
            more = message.get("more_body", False)
        target = (scope.get("raw_path") or scope["path"].encode()).decode("latin-1")
        if scope["query_string"]:
            target += "?" + scope["query_string"].decode("latin-1")
        fields = [(name.decode("latin-1"), value.decode("latin-1")) for name, value in scope["headers"]]
        try:
            answer = await self._in_thread(_Answer, self._port, scope["method"], target, fields, body)
        except (OSError, http.client.HTTPException):
            headers = [(b"content-type", b"text/plain"), (b"content-length", b"%d" % len(_BAD_GATEWAY))]
            await send({"type": "http.response.start", "status": 502, "headers": headers})
            await send({"type": "http.response.body", "body": _BAD_GATEWAY})
            return
        try:
            headers = [
                (name.lower().encode("latin-1"), value.encode("latin-1"))
                for name, value in answer.fields
                if not _consumed(name.lower(), value)
            ]
            await send({"type": "http.response.start", "status": answer.status, "headers": headers})
            while chunk := await self._in_thread(answer.read):
                await send({"type": "http.response.body", "body": chunk, "more_body": True})
            await send({"type": "http.response.body", "body": b""})
        finally:
            answer.close()

    async def _in_thread(self, function: Callable[..., T], *args: Any) -> T:
        return await asyncio.get_running_loop().run_in_executor(self._threads, function, *args)


def _nominated(fields: Fields) -> set[str]:
    return {
        token.strip().lower() for name, value in fields if name.lower() == "connection" for token in value.split(",")
    }


def _consumed(name: str, value: str) -> bool:
    """Framing belongs to this hop, and so does `Connection: close`."""
    return name in _FRAMING or (name == "connection" and value.lower() in ("close", "keep-alive"))
