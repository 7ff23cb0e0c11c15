"""Passage: one call of a WSGI application, whose answer is passed on as it comes. I/O only.

Rule 1: the server gets what PEP 3333 promises it: `close` is called once, an error is raised where the application
        raised it, and bytes wait for nothing but the head.
Rule 2: a body is stored only if the application's `close` raises nothing.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from itertools import chain
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, Final

from cachemw._wsgi.copying import Copying
from cachemw._wsgi.noticed import Witness, forget_others
from cachemw._wsgi.replies import send_stored
from cachemw._wsgi.request import CALL, EXCHANGE, watch_input, with_conditions
from cachemw.activation import KEY as LOCALE
from cachemw.activation import Entered, enter, is_awaited, leave
from cachemw.caching import CachingMiddleware, Line, log
from cachemw.exchange import Exchange, Step
from cachemw.rfc9111.messages import Fields, Head

if TYPE_CHECKING:
    from _typeshed.wsgi import StartResponse, WSGIEnvironment

__all__ = ["Passage"]

_LISTS: Final = (list, tuple)
_BYTES: Final = frozenset({bytes})


class Passage(Copying):
    """One call of the application: the iterable that the server reads the body from, and closes."""

    # What holds until something else is known: attributes of the class, so that a passage sets only a few.
    _entered: Mapping[str, Any] = MappingProxyType({})  # the environment that the application was given
    _locale: Entered | None = None
    _status: str | None = None  # None: the application has not called start_response yet
    _headers: Fields = ()
    _exc_info: Any = None
    _sent = False  # the head went to the server
    _write: Callable[[bytes], object] | None = None
    _written: Sequence[bytes] = ()  # before it was known whether anything of this response is sent
    _listed = -1  # the same, if it returned it in a list
    _error = False
    _iterator: Iterator[bytes] = iter(())
    _close: Callable[[], object] | None = None

    def __init__(
        self,
        middleware: CachingMiddleware,
        environ: WSGIEnvironment,
        start_response: StartResponse,
        exchange: Exchange[Line],
    ) -> None:
        self.environ = environ
        self.exchange = exchange
        self._middleware = middleware
        self._server = start_response

    # -- waiting ----------------------------------------------------------------------------------------------------

    def board(self) -> Iterable[bytes]:
        """Wait for another request that fetches this page already, or fetch it."""
        exchange = self.exchange
        try:
            at_once = self._lead_at_once()
            if not at_once:
                self._carry_out(self._boarding())
        except BaseException:  # a worker's time-out is a SystemExit out of nowhere
            self._settle()
            raise
        if at_once or not exchange.settled:
            return self.call()
        self._land(exchange.known)
        self._land()
        return send_stored(exchange, self._server)

    # -- the application --------------------------------------------------------------------------------------------

    def call(self) -> Iterable[bytes]:
        """Call the application; the result is what the server iterates over and closes."""
        exchange = self.exchange
        environ = self.environ
        exchange.request.hold()  # the application may change its environment (PEP 3333)
        environ.setdefault(EXCHANGE, exchange)
        if self._middleware.updates:
            watch_input(environ, exchange)
            if exchange.outer is None and CALL not in environ:  # a view's request was made for it
                forget_others(environ)
        if is_awaited(exchange.engine.properties):
            self._locale = enter(environ)
            environ[LOCALE].keyed = exchange.engine.properties
        if exchange.conditions is not None:
            environ = with_conditions(environ, exchange.conditions)
        try:
            result = self._enter(environ)
        except BaseException as error:
            if isinstance(error, Exception) and self._stand_in(error):
                return self
            self.close()  # no server will: it gets no iterable
            raise
        try:
            wrapper = environ.get("wsgi.file_wrapper")
            if isinstance(wrapper, type) and isinstance(result, wrapper) and self._status is not None:
                return self._pass_file(result)
            if self._status is not None and not self._sent:
                self._send_head_or_replace()
        except BaseException:
            self.close()
            raise
        return self

    def _enter(self, environ: WSGIEnvironment) -> Iterable[bytes]:
        self._entered = environ
        result: Iterable[bytes] = self._middleware.app(environ, self._start)
        self._close = getattr(result, "close", None)
        if self._written:
            self._iterator = chain(self._written, result)
        else:
            self._iterator = iter(result)
            if isinstance(result, _LISTS) and set(map(type, result)) <= _BYTES:
                self._listed = sum(map(len, result))
        return result

    def _stand_in(self, error: Exception) -> bool:
        """The application raised an error: send a stale response in its place; False if there is none that may be."""
        self.exchange.abandoned()
        if not self._sent and self.exchange.serve_on_error(time.time()):
            log.error("The application failed; a stale response stands in for it.", exc_info=error)
            self._replace()
            return True
        self._error = True
        self._abandon()
        self._land()
        return False

    def _pass_file(self, result: Iterable[bytes]) -> Iterable[bytes]:
        """Hand the server the file as it is, so that it may send it by `sendfile` (PEP 3333, `wsgi.file_wrapper`)."""
        self.exchange.cannot_copy()
        self._send_head_or_replace()
        if not self._sent or self._close is None:
            return self
        self._finished = True
        self._settle()
        return result

    def _start(self, status: str, headers: list[tuple[str, str]], exc_info: Any = None, /) -> Callable[[bytes], object]:
        """The application's `start_response`. The head is sent with the first byte, so that an error may replace it."""
        if exc_info is not None and self._sent:
            self._error = True
            self._abandon()
            try:
                self._server(status, headers, exc_info)  # raises
            finally:
                exc_info = None
        elif exc_info is None and self._status is not None:
            raise AssertionError("start_response was called twice without exc_info (PEP 3333)")
        self._witness = Witness(self._entered)
        self._status = status
        self._headers = tuple(map(tuple, headers))  # type: ignore[arg-type]  # some send lists, which could change later
        self._exc_info = exc_info
        return self._write_through

    def _write_through(self, data: bytes) -> None:
        """The `write` of PEP 3333, for old applications."""
        if not self._sent:
            if self.exchange.stale is not None:  # it may be sent in place of this one; the application may still fail
                self._written = [*self._written, data]
                return
            self._send_head_or_replace(data)
        assert self._write is not None
        self._keep(data)
        self._hand_over()
        self._write(data)
        self._go_on()

    def _send_head_or_replace(self, read: bytes | None = None) -> bool:
        """Send the head, or another response in its place; True: then the body, and `read` of it, are not sent."""
        exchange = self.exchange
        if self._broken:
            exchange.never = True  # the server reads on after an error
        status, witness = self._status, self._witness
        assert status is not None
        assert witness is not None
        now = time.time()
        code = status[:3]
        fields = self._headers
        head = Head(int(code) if code.isdecimal() and code.isascii() else 0, fields, status[4:])
        middleware = self._middleware
        witness.tell(exchange)
        if middleware.fetches and exchange.stale is not None and self._answers_otherwise(head, read, now):
            return True
        if middleware.updates:
            locale = self.environ.get(LOCALE)
            if locale is not None:
                exchange.language, exchange.timezone = locale.language, locale.timezone
            fields = exchange.leaving(head, now)
            if exchange.purges or exchange.wants:
                self._carry_out(self._minding_purges())
            if exchange.undecided:
                try:
                    body = self._in_hand(read)
                except Exception as error:
                    if self._stand_in(error):
                        return True
                    raise
                if self._witness is not witness or self._sent:  # the application thought better of its head
                    return self._begin_anew(read)
                if body is not None:
                    witness.tell(exchange)
                    fields = exchange.seen(body)
            if exchange.keep:
                self._copy = []
                self._length = self._listed if exchange.length is None else exchange.length
            else:
                self._land()
        self._sent = True
        exc_info, self._exc_info = self._exc_info, None
        left = list(fields)
        if self._listed >= 0 and self._tells_length(head):
            left.append(("Content-Length", str(self._listed)))
        self._write = self._server(status, left, exc_info) if exc_info else self._server(status, left)
        return False

    def _answers_otherwise(self, head: Head, read: bytes | None, now: float) -> bool:
        """Do what this head means for the stale response, if it is more than to relay it; True: then it is not sent."""
        step = self.exchange.answered(head, now)
        if step is Step.HOLD:
            step = self._hold(head, read)
        if step is Step.REPLY:
            self._replace()
        elif step is Step.RETRY:
            self._call_again()
        return step is not Step.RELAY

    def _begin_anew(self, read: bytes | None) -> bool:
        """Send the head that the application has given in place of the first one, as nothing that is stored."""
        exchange = self.exchange
        exchange.cannot_copy()
        exchange.abandoned()
        exchange.undecided = False
        exchange.forward_status = 0
        return False if self._sent else self._send_head_or_replace(read)

    def _in_hand(self, read: bytes | None) -> bytes | None:
        """The whole body, where that is in one list, or in one part of the length that was stated; else None.

        read: the first part, if it was read. Reading it here holds nothing back: servers send no head before they have
        a part of the body (PEP 3333).
        """
        if self._listed >= 0:
            parts = list(self._iterator)
            self._iterator = iter(parts)
            return b"".join(parts)
        length = self.exchange.length
        if read is None and length is not None:
            read = next(self._iterator, b"")
            self._iterator = chain((read,), self._iterator)
        return read if type(read) is bytes and len(read) == length else None

    def _tells_length(self, head: Head) -> bool:
        """May Content-Length be added for a body in one list, as servers do themselves (PEP 3333)?

        Not before hooks, nor before middlewares between the halves, which may still replace the body.
        """
        middleware = self._middleware
        if middleware.hooks is not None or not middleware.updates or self.exchange.request.method == "HEAD":
            return False
        return head.status >= 200 and head.status not in (204, 304) and "content-length" not in head.layout.where

    def _hold(self, head: Head, read: bytes | None) -> Step:
        """Read the part that completes a stored part, if it is not too long to be stored."""
        body = [read or b""]
        left = self.exchange.engine.policy.max_body - len(body[0])
        for chunk in self._iterator:
            body.append(chunk)
            left -= len(chunk)
            if left < 0:
                return Step.RETRY
        return self.exchange.combined(head, b"".join(body), time.time())

    def _call_again(self) -> None:
        """The answer does not fit the stored response: call again with the client's own fields (RFC 9111 §4.3.3)."""
        self._close_application()
        self._status = None
        self._written = ()
        self._listed = -1
        self._enter(self.environ)
        if self._status is not None and not self._sent:
            self._send_head_or_replace()

    def _replace(self) -> None:
        """Send the exchange's reply instead of what the application gave."""
        self._close_application()
        self._sent = self._finished = True
        self._land(self.exchange.records)
        self._iterator = iter(send_stored(self.exchange, self._server))

    # -- the server's side ------------------------------------------------------------------------------------------

    def __iter__(self) -> Iterator[bytes]:
        return self

    def __next__(self) -> bytes:
        self._go_on()
        try:
            chunk = next(self._iterator)
        except StopIteration:
            if not self._sent and self._status is not None and self._send_head_or_replace(b""):  # an empty body
                return self.__next__()
            self._complete()
            raise
        except Exception as error:
            if self._stand_in(error):
                return next(self._iterator)
            raise
        except BaseException:  # a worker's time-out may be one, and whoever catches it may read on
            self._abandon()
            raise
        if not self._sent and self._status is not None and self._send_head_or_replace(chunk):
            return self.__next__()
        if self._copy is not None:
            self._keep(chunk)
            if self._copied == self._length and self._copy is not None and not self._made:
                self._make()
        self._hand_over()
        return chunk

    def finish(self) -> None:
        """The rest of the body is not sent: read it all the same, to store the page, if its length is known."""
        if self._length < 0:
            return
        try:
            while self._copy is not None:
                next(self)
        except StopIteration:
            pass
        except Exception:
            log.exception("The application failed in a body that is sent to nobody.")

    def close(self) -> None:
        """Close the application's iterable, then write to the store: the last byte has been sent."""
        waiting = self._close is not None or self._locale is not None or self.exchange.outer_half is not None
        if self._finished and self._stored and not waiting:
            return  # stored with the last byte, as most pages in local memory are
        try:
            self._close_application()
        except BaseException:
            self._error = True
            raise
        finally:
            if not self._finished:
                if self.exchange.request.method == "HEAD" and self._sent and not self._error:
                    self._complete()  # a server need not iterate over the body of a HEAD
                elif self._error or not self._stored:
                    if not self._error:
                        self._desert()
                    self._abandon()
            self._finished = True
            self._copy = None
            self._settle()

    def _close_application(self) -> None:
        close, self._close = self._close, None
        if close is not None:
            close()

    def _settle(self) -> None:
        """Deactivate the locale, and write to the store what is not written yet."""
        if self._locale is not None:
            token, self._locale = self._locale, None
            leave(token)
        self._commit()
        if self.exchange.outer_half is self:
            self.exchange.outer_half = None  # no cycle for the garbage collector
