"""Hooked: one WSGI request under hooks. Before the look-up, after every response, teardown when the body has ended."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from itertools import chain
from typing import TYPE_CHECKING, Any

from cachemw.hooks import HookPlan, run_after, run_before, run_teardown

if TYPE_CHECKING:
    from _typeshed.wsgi import StartResponse, WSGIApplication, WSGIEnvironment
    from werkzeug.wrappers import Response as WerkzeugResponse

__all__ = ["Hooked"]


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

    def run(self) -> Iterable[bytes]:
        """Answer the request; the iterable's `close` runs the teardown."""
        from werkzeug.wrappers import Request as WerkzeugRequest
        from werkzeug.wsgi import ClosingIterator

        environ, plan = self._environ, self._plan
        given = None
        try:
            request = WerkzeugRequest(environ)
            response = run_before(plan, request)
            if response is None:
                response = given = self._called()
            elif not callable(response):
                raise TypeError(f"A before_request hook returned {response!r}; allowed: a werkzeug Response, or None.")
            response = run_after(plan, request, response)
            if given is not None and response is not given:
                given.close()
            self._result = response(environ, self._server)
        except BaseException as error:
            try:
                if given is not None:
                    given.close()
            finally:
                run_teardown(plan, error)
            raise
        return ClosingIterator(self._watched(self._result), self._close)

    def _called(self) -> WerkzeugResponse:
        """The response of cache or application as werkzeug's, its body still to be iterated over."""
        from werkzeug.wrappers import Response as WerkzeugResponse
        from werkzeug.wsgi import ClosingIterator

        head: list[Any] = []
        written: list[bytes] = []

        def start(status: str, headers: list[tuple[str, str]], exc_info: Any = None, /) -> Callable[[bytes], object]:
            head[:] = [status, headers]
            return written.append

        result = self._respond(self._environ, start)
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
        body = ClosingIterator(chain(written, iterator), close)
        return WerkzeugResponse(body, status=head[0], headers=head[1], direct_passthrough=True)

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
            run_teardown(self._plan, self._error)


def _nothing() -> None:
    """For iterables without `close`."""
