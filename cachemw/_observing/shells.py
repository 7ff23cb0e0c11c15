"""The middlewares that watch what passes, for WSGI and ASGI: I/O only.

Rule 1: they change nothing that passes, but for the field that they are to hide.
Rule 2: each request counts once, when it is over: after its last octet, after an error, or when the visitor has left.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import TYPE_CHECKING, Any, Final

from cachemw._asgi.types import ASGIApp, Message
from cachemw._observing.counting import Metrics
from cachemw._observing.outcomes import ABORTED

if TYPE_CHECKING:
    from _typeshed.wsgi import StartResponse, WSGIApplication, WSGIEnvironment

__all__ = ["ASGIObserving", "WSGIObserving"]

_LENGTH: Final = len("cache-status")  # of a name that is worth a closer look
_DIGITS: Final = 18  # of a length; what has more is no length


class _Observing:
    """The options are those of `cachemw.ObservingMiddleware`."""

    def __init__(self, app: Any, *, metrics: Metrics | None = None, hide: bool = False) -> None:
        self.app = app
        self.metrics = Metrics() if metrics is None else metrics
        self.hide = hide


class _Passage:
    """What is known of one request's response; `fields` are as the interface has them."""

    names: tuple[str, str] | tuple[bytes, bytes]  # Cache-Status and Content-Length, as the interface has them

    # What holds until something else is known: attributes of the class, so that a request sets only a few.
    began = 0.0  # by the clock of the metrics
    answered: float | None = None  # the same
    fields: Sequence[tuple[Any, Any]] = ()
    line: str | None = None  # the last one of Cache-Status
    brief = False  # a 304
    octets = 0

    def __init__(self, metrics: Metrics, server: Any, hide: bool) -> None:
        self._metrics = metrics
        self._server = server
        self._hide = hide

    def end(self, unseen: bool, whole: bool = True) -> None:
        """Count it. unseen: its body is sent to nobody. whole: False if the application has not kept its part."""
        answered, began = self.answered, self.began
        if answered is not None and whole:
            octets = 0 if unseen else self.octets
            self._metrics.observe(self.line, answered - began, octets, self.brief, answered)
        else:
            self._metrics.observe(ABORTED, self._metrics.clock() - began, self.octets)

    def pass_file(self) -> None:
        """The server sends the body by itself: it is as long as is stated."""
        for name, value in self.fields:
            if name.lower() == self.names[1] and value.isascii() and value.isdigit() and len(value) <= _DIGITS:
                self.octets += int(value)

    def hidden(self) -> list[tuple[Any, Any]]:
        """The fields but for Cache-Status."""
        return [field for field in self.fields if field[0].lower() != self.names[0]]


def _last_line(fields: Sequence[tuple[Any, Any]], wanted: str | bytes) -> Any:
    """The last line of Cache-Status, None without one. It is mostly the last field of all."""
    for name, value in reversed(fields):
        if len(name) == _LENGTH and name.lower() == wanted:
            return value
    return None


# -- WSGI -----------------------------------------------------------------------------------------------------------


class WSGIObserving(_Observing):
    """Counts what the caches in a WSGI application do."""

    app: WSGIApplication

    def __call__(self, environ: WSGIEnvironment, start_response: StartResponse) -> Iterable[bytes]:
        metrics = self.metrics
        passage = _WSGIPassage(metrics, start_response, self.hide)
        unseen = environ["REQUEST_METHOD"] == "HEAD"
        passage.began = metrics.clock()
        try:
            result = self.app(environ, passage.start)
        except BaseException:
            passage.end(unseen, whole=False)
            raise
        if type(result) is tuple or type(result) is list:
            for piece in result:
                passage.octets += len(piece)
            passage.end(unseen)
            return result
        wrapper = environ.get("wsgi.file_wrapper")
        if isinstance(wrapper, type) and isinstance(result, wrapper):  # as it is: a server may send it by `sendfile`
            passage.pass_file()
            passage.end(unseen)
            return result
        return _Body(result, passage, unseen)


class _WSGIPassage(_Passage):
    names = ("cache-status", "content-length")
    _write: Callable[[bytes], object]

    def start(self, status: str, headers: list[tuple[str, str]], exc_info: Any = None, /) -> Callable[[bytes], object]:
        """PEP 3333's `start_response`; of several calls, the last one counts."""
        self.answered = self._metrics.clock()
        self.brief = status[:3] == "304"
        self.line = _last_line(headers, "cache-status")
        self.fields = headers
        if self._hide:
            headers = self.hidden()
        self._write = self._server(status, headers, exc_info) if exc_info else self._server(status, headers)
        return self.write

    def write(self, data: bytes) -> None:
        """PEP 3333's `write`, for old applications."""
        self.octets += len(data)
        self._write(data)


class _Body:
    """The body of a response that was not made at once, for the server to read and to close.

    It counts when it has ended, or when nobody holds it any more: test clients may never read or close it.
    """

    def __init__(self, result: Iterable[bytes], passage: _Passage, unseen: bool) -> None:
        self._result = result
        self._passage = passage
        self._unseen = unseen
        self._counted = False

    def __iter__(self) -> Iterator[bytes]:
        passage = self._passage
        for piece in self._result:
            passage.octets += len(piece)
            yield piece
        self._end()

    def close(self) -> None:
        try:
            close = getattr(self._result, "close", None)
            if close is not None:
                close()
        finally:
            self._end()

    def _end(self) -> None:
        if not self._counted:
            self._counted = True
            self._passage.end(self._unseen)

    __del__ = _end


# -- ASGI -----------------------------------------------------------------------------------------------------------


class ASGIObserving(_Observing):
    """Counts what the caches in an ASGI application do."""

    app: ASGIApp

    # `Any`: each framework has its own types for these three
    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        metrics = self.metrics
        passage = _ASGIPassage(metrics, send, self.hide)
        passage.began = metrics.clock()
        try:
            await self.app(scope, receive, passage.send)
        finally:
            passage.end(scope["method"] == "HEAD")


class _ASGIPassage(_Passage):
    names = (b"cache-status", b"content-length")

    async def send(self, message: Message) -> None:
        """ASGI's `send`."""
        kind = message["type"]
        if kind == "http.response.start":
            self.answered = self._metrics.clock()
            self.brief = message["status"] == 304
            headers = message.get("headers", ())
            if type(headers) is not list:  # it may be one that can be read only once
                message = {**message, "headers": (headers := [*headers])}
            line: bytes | None = _last_line(headers, b"cache-status")
            self.line = None if line is None else line.decode("latin-1")
            self.fields = headers
            if self._hide:
                message = {**message, "headers": self.hidden()}
        await self._server(message)
        if kind == "http.response.body":
            self.octets += len(message.get("body", b""))
        elif kind == "http.response.pathsend":
            self.pass_file()
