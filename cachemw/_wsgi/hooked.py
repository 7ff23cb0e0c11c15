"""Hooked: one WSGI request under hooks. Before the look-up, after every response, teardown when the body has ended."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from functools import cache
from itertools import chain
from tempfile import SpooledTemporaryFile
from typing import TYPE_CHECKING, Any, Final

from cachemw._wsgi.request import WSGIRequest
from cachemw.calling import HookPlan, run_after, run_before, run_teardown
from cachemw.exchange.state import BEFORE

if TYPE_CHECKING:
    from _typeshed.wsgi import StartResponse, WSGIApplication, WSGIEnvironment
    from werkzeug.datastructures import Headers
    from werkzeug.wrappers import Request as WerkzeugRequest
    from werkzeug.wrappers import Response as WerkzeugResponse

__all__ = ["Hooked"]

_IN_MEMORY: Final = 1 << 20  # bytes of a body that are kept in memory for the application when hooks have read them


class Hooked:
    """One request; `respond` is what answers it without hooks, from the cache or by the application."""

    def __init__(
        self, respond: WSGIApplication, plan: HookPlan, environ: WSGIEnvironment, start_response: StartResponse
    ) -> None:
        self._respond = respond
        self._plan = plan
        self._environ = environ
        self._server = start_response
        self._result: Iterable[bytes] = ()
        self._error: BaseException | None = None
        self._input: _Input | None = None
        self._finish: Callable[[], None] = _nothing  # read on what is sent to nobody, but stored
        self._begun = False  # the head has left the application for good: an error cannot replace it any more

    def run(self) -> Iterable[bytes]:
        """Answer the request; the iterable's `close` runs the teardown."""
        from werkzeug.wrappers import Request as WerkzeugRequest
        from werkzeug.wsgi import ClosingIterator

        environ, plan = self._environ, self._plan
        given = None
        try:
            request = WerkzeugRequest(environ, populate_request=False)  # it is not the one of the application
            response = self._before(request)
            if response is None:
                response = given = self._called()
            elif not callable(response):
                raise TypeError(f"A before_request hook returned {response!r}; allowed: a werkzeug Response, or None.")
            response = run_after(plan, request, response)
            if not callable(response):
                raise TypeError(f"An after_request hook returned {response!r}; allowed: a werkzeug Response, or None.")
            if given is not None and response is not given:
                self._finish()
                given.close()
            self._result = response(environ, self._server)
        except BaseException as error:
            try:
                if given is not None:
                    given.close()
            finally:
                self._end(error)
            raise
        return ClosingIterator(self._watched(self._result), self._close)

    def _before(self, request: WerkzeugRequest) -> Any:
        """Run the before hooks. What they read of the body is there for the application once more."""
        environ = self._environ
        came = WSGIRequest(environ)
        came.hold()
        environ[BEFORE] = came
        page = came.method in ("GET", "HEAD") and "wsgi.input" in environ  # HTTP/2 does not announce a body
        if not page and environ.get("CONTENT_LENGTH", "0") in ("", "0") and "HTTP_TRANSFER_ENCODING" not in environ:
            return run_before(self._plan, request)
        given = environ["wsgi.input"]
        environ["wsgi.input"] = self._input = _Input(given)
        response = run_before(self._plan, request)
        if not self._input.rewind():
            environ["wsgi.input"] = given
        elif page:
            came.note_body()
        return response

    def _called(self) -> WerkzeugResponse:
        """The response of cache or application as werkzeug's, its body still to be iterated over."""
        from werkzeug.wsgi import ClosingIterator

        head: list[Any] = []
        written: list[bytes] = []

        def start(status: str, headers: list[tuple[str, str]], exc_info: Any = None, /) -> Callable[[bytes], object]:
            if exc_info is not None and self._begun:
                try:
                    raise exc_info[1].with_traceback(exc_info[2])
                finally:
                    exc_info = None
            head[:] = [status, headers]
            return written.append

        result = self._respond(self._environ, start)
        self._finish = getattr(result, "finish", _nothing)
        close = getattr(result, "close", _nothing)
        iterator = iter(result)
        try:
            for chunk in iterator:
                written.append(chunk)
                if head and chunk:
                    break
        except BaseException:
            close()
            raise
        if not head:
            close()
            raise AssertionError("the application has not called start_response (PEP 3333)")
        self._begun = True
        body = ClosingIterator(chain(written, iterator), close)
        return _relayed()(body, status=head[0], headers=head[1])

    def _watched(self, result: Iterable[bytes]) -> Iterator[bytes]:
        """The body; an exception in it is what teardown gets."""
        try:
            yield from result
        except Exception as error:
            self._error = error
            raise

    def _close(self) -> None:
        try:
            getattr(self._result, "close", _nothing)()
        finally:
            self._end(self._error)

    def _end(self, error: BaseException | None) -> None:
        if self._input is not None:
            self._input.close()
        run_teardown(self._plan, error)


@cache
def _relayed() -> type[WerkzeugResponse]:
    """The class of responses whose fields are the application's, which sends what it likes, and those of the hooks."""
    from werkzeug.wrappers import Response

    class Relayed(Response):
        default_mimetype = None

        def get_wsgi_headers(self, environ: WSGIEnvironment) -> Headers:
            return self.headers  # werkzeug's own would correct them, and raise for a Location that is no URL

    return Relayed


class _Input:
    """`wsgi.input` that can be read once more from its start, after `rewind`."""

    def __init__(self, stream: Any) -> None:
        self._stream = stream
        self._kept: Any = SpooledTemporaryFile(_IN_MEMORY)  # noqa: SIM115
        self._again = False

    def rewind(self) -> bool:
        """From now on what was read comes first; False if nothing was."""
        self._again = True
        read: bool = self._kept.tell() > 0
        self._kept.seek(0)
        return read

    def close(self) -> None:
        """Forget what was read."""
        self._kept.close()

    def read(self, size: int = -1, /) -> bytes:
        data: bytes = self._kept.read(size) if self._again else b""
        return data if len(data) == size else data + self._more(self._stream.read, size, data)

    def readline(self, size: int = -1, /) -> bytes:
        line: bytes = self._kept.readline(size) if self._again else b""
        whole = len(line) == size or line.endswith(b"\n")
        return line if whole else line + self._more(self._stream.readline, size, line)

    def _more(self, read: Callable[[int], bytes], size: int, before: bytes) -> bytes:
        data = read(size if size < 0 else size - len(before))
        if not self._again:
            self._kept.write(data)
        return data

    def readlines(self, hint: int = -1, /) -> list[bytes]:
        return list(self)

    def __iter__(self) -> Iterator[bytes]:
        return iter(self.readline, b"")


def _nothing() -> None:
    """For iterables without `close`, or without `finish`."""
