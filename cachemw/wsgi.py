"""The middlewares for WSGI (PEP 3333): I/O only. What is to be done, `cachemw.exchange` says.

    UpdateCacheMiddleware      outermost: stores what leaves the stack, patches its headers
    FetchFromCacheMiddleware   innermost: answers from the cache
    CacheMiddleware            both at one place

Middlewares between the two halves may change what the key depends on (language, `Vary`, cookies): update first, fetch
last, as before hooks run in order and after hooks in reverse (`cachemw.hooks`).
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextvars import Token
from http import HTTPStatus
from itertools import chain
from typing import TYPE_CHECKING, Any, Final

from cachemw._wsgi_hooked import Hooked
from cachemw._wsgi_request import EXCHANGE, WSGIRequest, sanitised, variable, with_conditions
from cachemw.activation import KEY as LOCALE
from cachemw.activation import Locale, enter, leave
from cachemw.backends.base import InlineCache
from cachemw.caching import CachingMiddleware, Line
from cachemw.calling import is_async
from cachemw.errors import ImproperlyConfigured
from cachemw.exchange import Exchange, Step
from cachemw.flights import Flight, ThreadRefresher
from cachemw.locale import WSGILocaleMiddleware as LocaleMiddleware
from cachemw.locale import WSGITimezoneMiddleware as TimezoneMiddleware
from cachemw.rfc9111.messages import Fields, Head, Record

if TYPE_CHECKING:
    from _typeshed.wsgi import StartResponse, WSGIApplication, WSGIEnvironment

__all__ = [
    "CacheMiddleware",
    "FetchFromCacheMiddleware",
    "LocaleMiddleware",
    "TimezoneMiddleware",
    "UpdateCacheMiddleware",
    "WSGIRequest",
]

log = logging.getLogger("cachemw")


_STATUS_LINES: Final = {status.value: f"{status.value} {status.phrase}" for status in HTTPStatus}
_NO_BODY: Final = (None, "", "0")
LEASE_POLL: Final = 0.02  # seconds between two looks for the answer that another process fetches


class _Middleware(CachingMiddleware):
    """What the three of this interface have in common."""

    app: WSGIApplication

    def _prepare(self) -> None:
        if is_async(self.app):
            raise ImproperlyConfigured(
                f"{self.app!r} is asynchronous, which no WSGI application is. If it is an ASGI application, take the "
                "middleware from cachemw or cachemw.asgi."
            )
        self._refresher = ThreadRefresher()
        self._names = {variable(name): name for name in self.caching.line.special}
        self._special = frozenset(self._names) - {"CONTENT_LENGTH"}

    def __call__(self, environ: WSGIEnvironment, start_response: StartResponse) -> Iterable[bytes]:
        hooks = self.hooks
        if hooks is not None:
            plan = hooks.plan(environ.get("PATH_INFO", ""))
            if plan is not None:
                return Hooked(self._respond, plan, environ, start_response).run()
        return self._respond(environ, start_response)

    def _respond(self, environ: WSGIEnvironment, start_response: StartResponse) -> Iterable[bytes]:
        outer = environ.get(EXCHANGE)
        request = WSGIRequest(environ)
        if self._updates or outer is None:
            exchange = self.caching.exchange(request)
            exchange.outer = outer
        else:
            exchange = outer
        if not self._fetches:
            exchange.request = request  # whatever is in between may answer without the inner half
            environ[EXCHANGE] = exchange
            passage = _Passage(self, environ, start_response, exchange)
            passage.place = {name: environ.get(name, "") for name in ("SCRIPT_NAME", "PATH_INFO")}
            exchange.within = passage
            return passage.call()
        self._begin(exchange, request, environ)
        if exchange.hit is None and exchange.reply is None:
            return _Passage(self, environ, start_response, exchange).board()
        if exchange.refresh and self._updates:
            self._refresh(environ, exchange)
        return _send(exchange, start_response)

    def _begin(self, exchange: Exchange[Line], request: WSGIRequest, environ: WSGIEnvironment) -> None:
        """Look the request up."""
        locale = environ.get(LOCALE)
        if locale is not None:
            exchange.language, exchange.timezone = locale.language, locale.timezone
        special: Sequence[str] = ()
        if not environ.keys().isdisjoint(self._special) or environ.get("CONTENT_LENGTH") not in _NO_BODY:
            special = [name for variable, name in self._names.items() if variable in environ]
        exchange.begin(request, time.time(), special)
        lookup = exchange.engine.pages.lookup
        while exchange.wants:
            exchange.found(lookup(exchange.wants))

    def _refresh(self, environ: WSGIEnvironment, exchange: Exchange[Line]) -> None:
        """Fetch the page again in the background, for nobody in particular.

        Where the halves stand apart, this is the outer one's work: what is in between has its say about the new page.
        """
        plain = sanitised(environ)
        if exchange.engine.properties:
            plain[LOCALE] = Locale.of(exchange.language, exchange.timezone)

        def work() -> None:
            try:
                _drain(self._refreshing(plain))
            except Exception:
                log.exception("The background refresh of %s failed.", plain.get("PATH_INFO"))

        self._refresher.start(exchange.primary, work)

    def _refreshing(self, environ: WSGIEnvironment) -> Iterable[bytes]:
        request = WSGIRequest(environ)
        exchange = self.caching.exchange(request)
        exchange.refreshing = True
        passage = _Passage(self, environ, _no_start, exchange)
        if self._fetches:
            self._begin(exchange, request, environ)
            return passage.board()
        exchange.request = request
        exchange.within = passage
        environ[EXCHANGE] = exchange
        return passage.call()


class CacheMiddleware(_Middleware):
    """Serve an application's pages from a cache: both halves at one place.

        app.wsgi_app = CacheMiddleware(app.wsgi_app, cache="redis://localhost:6379/0", seconds=60)

    Arguments: see `cachemw.caching.Caching`. With the application alone, the default cache and the environment's
    settings are used. Raises: ImproperlyConfigured for a wrong setting, TypeError for an async hook.
    """


class UpdateCacheMiddleware(_Middleware):
    """The outer half: stores what leaves the stack, and patches its headers. Of use with `FetchFromCacheMiddleware`."""

    _fetches = False


class FetchFromCacheMiddleware(_Middleware):
    """The inner half: answers from the cache. Stores nothing without an `UpdateCacheMiddleware` around it."""

    _updates = False


def _enter_locale(environ: WSGIEnvironment, exchange: Exchange[Line]) -> Token[Locale | None]:
    """Where language and time zone are part of the key, make the place where whoever chooses them writes them down."""
    token = enter(environ)
    environ[LOCALE].keyed = exchange.engine.properties
    return token


def _status_line(status: int, reason: str) -> str:
    if reason:
        return f"{status} {reason}"
    return _STATUS_LINES.get(status) or f"{status} Unknown"


def _send(exchange: Exchange[Line], start_response: StartResponse) -> Iterable[bytes]:
    hit = exchange.hit
    if hit is not None:
        if hit.chosen and exchange.outer is not None:
            exchange.outer.chosen_within = True
        start_response(_status_line(hit.status, hit.reason), [*hit.fields, *exchange.extra])
        return (hit.body,) if exchange.request.method == "GET" else ()
    reply = exchange.reply
    assert reply is not None
    start_response(_status_line(reply.status, reply.reason), [*reply.fields, *exchange.extra])
    return (reply.body,)


def _no_start(status: str, headers: list[tuple[str, str]], exc_info: Any = None, /) -> Callable[[bytes], object]:
    return _no_write


def _no_write(data: bytes) -> None:
    return None


def _drain(result: Iterable[bytes]) -> None:
    try:
        for _ in result:
            pass
    finally:
        close = getattr(result, "close", None)
        if close is not None:
            close()


class _Passage:
    """One call of the application: an iterable that relays its body, copies aside what is kept, and closes once."""

    __slots__ = (
        "_close",
        "_copied",
        "_copy",
        "_error",
        "_exc_info",
        "_finished",
        "_flight",
        "_headers",
        "_iterator",
        "_lease",
        "_length",
        "_listed",
        "_locale",
        "_made",
        "_middleware",
        "_sent",
        "_server",
        "_status",
        "_stored",
        "_write",
        "_written",
        "environ",
        "exchange",
        "place",
    )

    def __init__(
        self,
        middleware: _Middleware,
        environ: WSGIEnvironment,
        start_response: StartResponse,
        exchange: Exchange[Line],
    ) -> None:
        self.environ = environ
        self.exchange = exchange
        self.place: Mapping[str, str] = {}  # the path's variables, as they were before anybody else had the request
        self._middleware = middleware
        self._server = start_response
        self._flight: Flight[Record | None] | None = None
        self._lease: str | None = None
        self._locale: Token[Locale | None] | None = None
        self._status: str | None = None  # None: the application has not called start_response yet
        self._headers: Fields = ()
        self._exc_info: Any = None
        self._sent = False  # the head went to the server
        self._write: Callable[[bytes], object] | None = None
        self._written: list[bytes] = []  # before it was known whether anything of this response is sent
        self._copy: list[bytes] | None = None  # the body so far, where it is kept
        self._copied = 0
        self._length = -1  # of the whole body, if the application says it
        self._listed = -1  # the same, if it returned it in a list
        self._made = False  # its record is made
        self._stored: tuple[str, ...] = ()  # under these keys, before the body has ended
        self._finished = False
        self._error = False
        self._iterator: Iterator[bytes] = iter(())
        self._close: Callable[[], object] | None = None

    # -- waiting ----------------------------------------------------------------------------------------------------

    def board(self) -> Iterable[bytes]:
        """Wait for whoever fetches this page already, or fetch it."""
        exchange = self.exchange
        try:
            self._wait()
        except BaseException:  # a worker's time-out is a SystemExit out of nowhere
            self._settle()
            raise
        if exchange.settled:
            self._land(exchange.known)
            return _send(exchange, self._server)
        return self.call()

    def _wait(self) -> None:
        """Until it is this request's turn to fetch the page, or it has it."""
        exchange = self.exchange
        flights, timeout = exchange.engine.flights, exchange.engine.policy.collapse_timeout
        waited: set[str] = set()
        while not exchange.settled and exchange.flight is not None and exchange.flight not in waited:
            waited.add(exchange.flight)
            flight, leads = flights.join(exchange.flight)
            if leads:
                self._holder._flight = flight
                if exchange.lease is None or self._take_lease(exchange.lease):
                    break
            elif not exchange.in_grace():
                if not flight.wait(timeout):
                    flights.remove(flight)
                self._look_again(flight)

    @property
    def _holder(self) -> _Passage:
        """The passage that lands the flight and drops the lease: of the half that stores, where they stand apart."""
        return self if self._middleware._updates else self.exchange.within or self

    def _look_again(self, flight: Flight[Record | None]) -> None:
        exchange = self.exchange
        exchange.again(time.time())
        pages = exchange.engine.pages
        while wants := exchange.wants:
            records = pages.lookup(wants)
            if flight.records:
                records = [flight.records.get(key) or record for key, record in zip(wants, records, strict=True)]
            exchange.found(records)

    def _take_lease(self, key: str) -> bool:
        """Fetch for all processes; if another one does, look for its answer until it has had its time."""
        exchange = self.exchange
        if exchange.outer is not None and exchange.outer.leased:
            return True
        pages, timeout = exchange.engine.pages, exchange.engine.policy.lease
        deadline = time.monotonic() + timeout
        waited = exchange.collapsed
        while True:
            exchange.again(time.time())
            taken, records = pages.lease(key, timeout, exchange.wants)
            self._holder._lease = key if taken else None
            exchange.found(records)  # who had the lease may have stored it between our look-up and now
            while exchange.wants:
                exchange.found(pages.lookup(exchange.wants))
            if exchange.settled:
                if taken:
                    pages.run(pages.drop_lease(key), None)
                    self._holder._lease = None
                return False
            if taken:
                exchange.collapsed = waited
                exchange.leased = True
                return True
            if exchange.lease is None or time.monotonic() > deadline:  # its answer was not cacheable: nobody waits
                return True
            waited = True
            time.sleep(LEASE_POLL)

    def _land(self, records: Mapping[str, Record | None] | None = None) -> None:
        """Release who waits: with records that they may use, or, without any, to go on by themselves."""
        holder = self._holder
        flight = holder._flight
        if flight is None:
            return
        if records:
            flight.land(records)
        elif holder is self:
            self._flight = None
            flight.end()

    # -- the application --------------------------------------------------------------------------------------------

    def call(self) -> Iterable[bytes]:
        """Call the application; the result is what the server iterates over and closes."""
        exchange = self.exchange
        environ = self.environ
        environ.setdefault(EXCHANGE, exchange)
        if exchange.engine.properties:
            self._locale = _enter_locale(environ, exchange)
        if exchange.conditions is not None:
            environ = with_conditions(environ, exchange.conditions)
        try:
            result = self._enter(environ)
        except BaseException as error:
            if isinstance(error, Exception) and self._raised(error):
                return self
            self.close()  # no server will: it gets no iterable
            raise
        try:
            wrapper = environ.get("wsgi.file_wrapper")
            if isinstance(wrapper, type) and isinstance(result, wrapper) and self._status is not None:
                return self._pass_file(result)
            if self._status is not None and not self._sent:
                self._send_head()
        except BaseException:
            self.close()
            raise
        return self

    def _enter(self, environ: WSGIEnvironment) -> Iterable[bytes]:
        result = self._middleware.app(environ, self._start)
        self._close = getattr(result, "close", None)
        self._iterator = chain(self._written, result) if self._written else iter(result)
        if isinstance(result, list | tuple) and not self._written and all(type(chunk) is bytes for chunk in result):
            self._listed = sum(map(len, result))
        return result

    def _raised(self, error: Exception) -> bool:
        """The application raised: True if a stale response stands in for what it could not give."""
        if not self._sent and self.exchange.failed(time.time()):
            log.error("The application failed; a stale response stands in for it.", exc_info=error)
            self._replace()
            return True
        self._error = True
        self._abandon()
        self._land()
        return False

    def _abandon(self) -> None:
        """Something is wrong with this answer: nothing of it is stored, and what is stored already is taken back."""
        self.exchange.abandoned()
        self.exchange.drops = (*self.exchange.drops, *self._stored)
        self._stored = ()

    def _pass_file(self, result: Iterable[bytes]) -> Iterable[bytes]:
        """A file goes to the server as it is, which may send it without reading it (PEP 3333)."""
        self.exchange.cannot_copy()
        self._send_head()
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
        self._status = status
        self._headers = tuple(headers)
        self._exc_info = exc_info
        return self._write_through

    def _write_through(self, data: bytes) -> None:
        """The `write` of PEP 3333, for applications from before iterables."""
        if not self._sent:
            if self.exchange.stale is not None:  # it may stand in for this one; the application is not done yet
                self._written.append(data)
                return
            self._send_head()
        assert self._write is not None
        self._keep(data)
        self._write(data)

    def _send_head(self, read: bytes = b"") -> bool:
        """Decide about the head and send it; True if the body is another now, and what was read of it is void."""
        exchange = self.exchange
        status = self._status
        assert status is not None
        now = time.time()
        code = status[:3]
        head = Head(int(code) if code.isdecimal() and code.isascii() else 0, self._headers, status[4:])
        middleware = self._middleware
        if middleware._fetches and exchange.stale is not None:
            step = exchange.answered(head, now)
            if step is Step.HOLD:
                step = self._hold(head, read)
            if step is Step.REPLY:
                self._replace()
                return True
            if step is Step.RETRY:
                return self._call_again()
        if middleware._updates:
            locale = self.environ.get(LOCALE)
            if locale is not None:
                exchange.language, exchange.timezone = locale.language, locale.timezone
            head = exchange.leaving(head, now)
            if exchange.purges:
                pages = exchange.engine.pages
                pages.run_purge(exchange.purges)
                if exchange.keep:
                    exchange.purged(pages.lookup(exchange.wants))
            if exchange.keep:
                self._copy = []
                self._length = self._listed if exchange.length is None else exchange.length
            else:
                self._land()
        self._sent = True
        exc_info, self._exc_info = self._exc_info, None
        fields = list(head.fields)
        self._write = self._server(status, fields, exc_info) if exc_info else self._server(status, fields)
        return False

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

    def _call_again(self) -> bool:
        """What came does not fit what is stored: ask once more, with the client's own fields (RFC 9111 §4.3.3)."""
        self._close_application()
        self._status = None
        self._written = []
        self._enter(self.environ)
        if self._status is not None:
            self._send_head()
        return True

    def _replace(self) -> None:
        """Send the exchange's reply instead of what the application gave."""
        self._close_application()
        self._sent = self._finished = True
        self._land(self.exchange.records)
        self._iterator = iter(_send(self.exchange, self._server))

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
        try:
            chunk = next(self._iterator)
        except StopIteration:
            if not self._sent and self._status is not None and self._send_head():  # an empty body
                return self.__next__()
            self._complete()
            raise
        except Exception as error:
            if self._raised(error):
                return next(self._iterator)
            raise
        if not self._sent and self._status is not None and self._send_head(chunk):
            return self.__next__()
        if self._copy is not None:
            self._keep(chunk)
            if self._copied == self._length and self._copy is not None and not self._made:
                self._make()
        return chunk

    def _make(self) -> None:
        """The body is as long as it is to be: what waits for it may have it at once; it is stored when it has ended.

        Where nobody has to wait for the store it is stored now: some clients, test clients first, never ask what comes
        after the last byte, and never close. An answer that goes on after all is taken back.
        """
        assert self._copy is not None
        self._made = True
        exchange = self.exchange
        self._land(exchange.completed(b"".join(self._copy), time.time()))
        if isinstance(exchange.engine.pages.cache, InlineCache):
            self._stored = tuple(key for key, _, _ in exchange.writes)
            self._commit()

    def _complete(self) -> None:
        """The body has ended as it should, and the client has had its last byte: store it."""
        if self._finished:
            return
        self._finished = True
        if self._copy is not None and not self._made:
            self._make()
        self._copy = None
        self._commit()

    def __del__(self) -> None:
        """An answer that nobody read and nobody closed: at least nobody waits for it."""
        if self._flight is not None:
            self._flight.end()

    def close(self) -> None:
        """Close the application's iterable, then write to the store: the client has had its last byte."""
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
        token, self._locale = self._locale, None
        if token is not None:
            leave(token)
        self._commit()
        if self.exchange.within is self:
            self.exchange.within = None  # no cycle for the garbage collector

    def _commit(self) -> None:
        """Write to the store; until that is done, who asks for this page gets it from the flight."""
        exchange = self.exchange
        pages = exchange.engine.pages
        try:
            lease, self._lease = self._lease, None
            if exchange.writes or exchange.drops or lease is not None:
                procedure = pages.commit(exchange.writes, exchange.drops, exchange.guard, lease)
                exchange.writes = exchange.drops = ()
                pages.run(procedure, False)
        finally:
            self._land()
        if exchange.refresh and self.place:
            exchange.refresh = False
            self._middleware._refresh({**self.environ, **self.place}, exchange)
