"""Passage: one call of a WSGI application, relayed as it comes and copied aside. I/O only.

Rule 1: the server sees what PEP 3333 promises it: `close` once, an error where the application raised it, no byte held
        back for longer than it takes to know the head.
Rule 2: only a body that ended as it should is stored, and what the application's `close` says counts, too.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from itertools import chain
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, Final

from cachemw._relay_carriers import ThreadRelay
from cachemw._wsgi.noticed import Witness, forget_others
from cachemw._wsgi.replies import send_stored
from cachemw._wsgi.request import CALL, EXCHANGE, watch_input, with_conditions
from cachemw.activation import KEY as LOCALE
from cachemw.activation import Entered, enter, is_awaited, leave
from cachemw.caching import CachingMiddleware, Line, log
from cachemw.exchange import Exchange, Step
from cachemw.rfc9111.messages import Fields, Head, Record

if TYPE_CHECKING:
    from _typeshed.wsgi import StartResponse, WSGIEnvironment

__all__ = ["Passage"]

_LISTS: Final = (list, tuple)
_BYTES: Final = frozenset({bytes})


class Passage(ThreadRelay):
    """One call of the application: an iterable that relays its body, copies aside what is kept, and closes once."""

    # What holds until something else is known: attributes of the class, so that a passage sets only a few.
    place: Mapping[str, str] = MappingProxyType({})  # the path's variables, before anybody else had the request
    _entered: Mapping[str, Any] = MappingProxyType({})  # the environment that the application was given
    _witness: Witness | None = None
    _locale: Entered | None = None
    _status: str | None = None  # None: the application has not called start_response yet
    _headers: Fields = ()
    _exc_info: Any = None
    _sent = False  # the head went to the server
    _write: Callable[[bytes], object] | None = None
    _written: Sequence[bytes] = ()  # before it was known whether anything of this response is sent
    _copy: list[bytes] | None = None  # the body so far, where it is kept
    _copied = 0
    _length = -1  # of the whole body, if the application says it
    _listed = -1  # the same, if it returned it in a list
    _made = False  # its record is made
    _stored: Sequence[tuple[str, Record, float | None]] = ()  # before the body has ended
    _finished = False
    _error = False
    _broken = False
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
        """Wait for whoever fetches this page already, or fetch it."""
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
        self._land()  # nothing is left to be written that others would have to have from the flight
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
        """The application raised: send a stale response in its place, if there is one that may be; was there?"""
        if not self._sent and self.exchange.serve_on_error(time.time()):
            log.error("The application failed; a stale response stands in for it.", exc_info=error)
            self._replace()
            return True
        self._error = True
        self._abandon()
        self._land()
        return False

    def _abandon(self) -> None:
        """Something is wrong with this answer: nothing of it is stored, and what is stored already is taken back."""
        self._broken = True
        self.exchange.abandoned()
        self.exchange.drops = (*self.exchange.drops, *[key for key, _, _ in self._stored])
        self._stored = ()

    def _pass_file(self, result: Iterable[bytes]) -> Iterable[bytes]:
        """A file goes to the server as it is, which may send it without reading it (PEP 3333)."""
        self.exchange.cannot_copy()
        self._send_head_or_replace()
        if not self._sent or self._close is None:
            return self
        self._finished = True
        self._settle()
        return result

    def _start(self, status: str, headers: list[tuple[str, str]], exc_info: Any = None, /) -> Callable[[bytes], object]:
        """The `start_response` of the application. The head waits for the first byte, so an error may replace it."""
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
        """The `write` of PEP 3333, for applications from before iterables."""
        if not self._sent:
            if self.exchange.stale is not None:  # it may stand in for this one; the application is not done yet
                self._written = [*self._written, data]
                return
            self._send_head_or_replace()
        assert self._write is not None
        self._keep(data)
        self._hand_over()
        self._write(data)
        self._go_on()

    def _send_head_or_replace(self, read: bytes = b"") -> bool:
        """Decide about the head, and send it or another; True: so is the body, and what was read of it is void."""
        exchange = self.exchange
        if self._broken:
            exchange.never = True  # somebody reads on after an error
        status, witness = self._status, self._witness
        assert status is not None
        assert witness is not None
        now = time.time()
        code = status[:3]
        fields = self._headers
        head = Head(int(code) if code.isdecimal() and code.isascii() else 0, fields, status[4:])
        middleware = self._middleware
        witness.tell(exchange)
        if middleware.fetches and exchange.stale is not None:
            step = exchange.answered(head, now)
            if step is Step.HOLD:
                step = self._hold(head, read)
            if step is Step.REPLY:
                self._replace()
                return True
            if step is Step.RETRY:
                self._call_again()
                return True
        if middleware.updates:
            locale = self.environ.get(LOCALE)
            if locale is not None:
                exchange.language, exchange.timezone = locale.language, locale.timezone
            fields = exchange.leaving(head, now)
            if exchange.purges or exchange.wants:
                self._carry_out(self._minding_purges())
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

    def _tells_length(self, head: Head) -> bool:
        """Is the length to be said that a server would have said itself of a body in one piece (PEP 3333)?

        Not to hooks, nor to middlewares between the halves: they may still replace the body.
        """
        middleware = self._middleware
        if middleware.hooks is not None or not middleware.updates or self.exchange.request.method == "HEAD":
            return False
        return head.status >= 200 and head.status not in (204, 304) and "content-length" not in head.layout.where

    def _hold(self, head: Head, read: bytes) -> Step:
        """Read the part that completes a stored one, if it is not too long to be stored."""
        body = [read]
        left = self.exchange.engine.policy.max_body - len(read)
        for chunk in self._iterator:
            body.append(chunk)
            left -= len(chunk)
            if left < 0:
                return Step.RETRY
        return self.exchange.combined(head, b"".join(body), time.time())

    def _call_again(self) -> None:
        """What came does not fit what is stored: ask once more, with the client's own fields (RFC 9111 §4.3.3)."""
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

    def _keep(self, chunk: bytes) -> None:
        if self._copy is not None:
            self._copied += len(chunk)
            if (
                self._copied > self.exchange.engine.policy.max_body
                or (self._made and chunk)
                or type(chunk) is not bytes
            ):
                self._copy = None
                self.exchange.cannot_copy()
                self._abandon()
                self._land()
            else:
                self._copy.append(chunk)

    # -- the server's side ------------------------------------------------------------------------------------------

    def __iter__(self) -> Iterator[bytes]:
        return self

    def __next__(self) -> bytes:
        self._go_on()
        try:
            chunk = next(self._iterator)
        except StopIteration:
            if not self._sent and self._status is not None and self._send_head_or_replace():  # an empty body
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
        """Nobody is sent the rest: read it all the same if the page is then stored, and if it is known to end."""
        if self._length < 0:
            return
        try:
            while self._copy is not None:
                next(self)
        except StopIteration:
            pass
        except Exception:
            log.exception("The application failed in a body that is sent to nobody.")

    def _make(self) -> None:
        """The body is as long as it is to be: what waits for it may have it at once; it is stored when it has ended.

        Where nobody has to wait for the store it is stored now: some clients, test clients first, never ask what comes
        after the last byte, and never close. An answer that goes on after all is taken back.
        """
        assert self._copy is not None
        self._made = True
        exchange = self.exchange
        body = b"".join(self._copy)
        assert self._witness is not None
        self._witness.tell(exchange)  # of what was read for the body alone
        if self._witness.recognises_nonce(body):
            exchange.abandoned()
        records = exchange.completed(body, time.time())
        if exchange.engine.pages.inline:
            self._stored = exchange.writes
            self._commit(records)
        else:
            self._land(records)

    def _complete(self) -> None:
        """The body has ended as it should, and the client has had its last byte: store it."""
        if self._finished:
            return
        self._finished = True
        if self._copy is not None and not self._made:
            self._make()
        self._copy = None
        if not self._stored:
            self._commit()

    def close(self) -> None:
        """Close the application's iterable, then write to the store: the client has had its last byte."""
        waiting = self._close is not None or self._locale is not None or self.exchange.outer_half is not None
        if self._finished and self._stored and not waiting:
            return  # as nearly all that is kept in memory: it is there since the last byte, and nothing is left to do
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
        """Do what is left to do when all is over."""
        if self._locale is not None:
            token, self._locale = self._locale, None
            leave(token)
        self._commit()
        if self.exchange.outer_half is self:
            self.exchange.outer_half = None  # no cycle for the garbage collector

    def _commit(self, records: Mapping[str, Record | None] | None = None) -> None:
        """Write to the store; until that is done, who asks for this page gets it from the flight, or these records."""
        exchange = self.exchange
        try:
            committing = self._committing()
            if committing is not None:
                exchange.engine.pages.run(*committing)
        finally:
            self._end_flight(records)
        if exchange.refresh and self.place:
            exchange.refresh = False
            self._middleware.refresh({**self.environ, **self.place}, exchange)
