"""The middlewares for ASGI: I/O only. What is to be done, `cachemw.exchange` says.

    UpdateCacheMiddleware      outermost: stores what leaves the stack, patches its headers
    FetchFromCacheMiddleware   innermost: answers from the cache
    CacheMiddleware            both at one place

Middlewares between the two halves may change what the key depends on (language, `Vary`, cookies): update first, fetch
last, as before hooks run in order and after hooks in reverse (`cachemw.hooks`). WebSockets and lifespan pass untouched.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Coroutine, Mapping, Sequence
from typing import Any, Final

from cachemw._asgi_hooked import Hooked
from cachemw._asgi_request import (
    EXCHANGE,
    ASGIApp,
    ASGIRequest,
    Message,
    Receive,
    Scope,
    Send,
    decoded,
    encoded,
    octets,
    sanitised,
    with_conditions,
)
from cachemw.activation import KEY as LOCALE
from cachemw.activation import Locale, enter, leave
from cachemw.caching import CachingMiddleware, Line
from cachemw.exchange import Exchange, Step
from cachemw.flights import Flight, TaskRefresher
from cachemw.locale import ASGILocaleMiddleware as LocaleMiddleware
from cachemw.locale import ASGITimezoneMiddleware as TimezoneMiddleware
from cachemw.pages import Pages
from cachemw.paths import below
from cachemw.rfc9111.messages import Head, Record

__all__ = [
    "ASGIRequest",
    "CacheMiddleware",
    "FetchFromCacheMiddleware",
    "LocaleMiddleware",
    "Message",
    "Receive",
    "Scope",
    "Send",
    "TimezoneMiddleware",
    "UpdateCacheMiddleware",
]


log = logging.getLogger("cachemw")

LEASE_POLL: Final = 0.02  # seconds between two looks for the answer that another process fetches


class _Middleware(CachingMiddleware):
    """What the three of this interface have in common."""

    app: ASGIApp
    _async_hooks = True

    def _prepare(self) -> None:
        self._refresher = TaskRefresher()
        self._writing: set[asyncio.Task[None]] = set()
        self._special = frozenset(octets(name) for name in self.caching.line.special)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            if scope["type"] == "lifespan":
                send = self._closing(send)
            await self.app(scope, receive, send)
            return
        hooks = self.hooks
        if hooks is not None:
            plan = hooks.plan(below(scope.get("root_path", ""), scope["path"]))
            if plan is not None:
                await Hooked(self._respond, plan, scope, receive, send).run()
                return
        await self._respond(scope, receive, send)

    def _closing(self, send: Send) -> Send:
        """End the background refreshes of this loop before the application's shutdown is reported as complete."""

        async def closing(message: Message) -> None:
            if message["type"].startswith("lifespan.shutdown."):
                await self._refresher.aclose()
            await send(message)

        return closing

    async def _respond(self, scope: Scope, receive: Receive, send: Send) -> None:
        outer = scope.get(EXCHANGE)
        request = ASGIRequest(scope)
        if self._updates or outer is None:
            exchange = self.caching.exchange(request)
            exchange.outer = outer
        else:
            exchange = outer
        if not self._fetches:
            exchange.request = request  # whatever is in between may answer without the inner half
            scope[EXCHANGE] = exchange
            passage = _Passage(self, scope, receive, send, exchange)
            passage.place = {name: scope[name] for name in ("path", "root_path") if name in scope}
            exchange.within = passage
            await passage.call()
            return
        await self._begin(exchange, request)
        if exchange.hit is None and exchange.reply is None:
            await _Passage(self, scope, receive, send, exchange).board()
            return
        if exchange.refresh and self._updates:
            self._refresh(scope, exchange)
        await _send(exchange, send)

    async def _begin(self, exchange: Exchange[Line], request: ASGIRequest) -> None:
        """Look the request up."""
        self._take_up(exchange, request)
        pages = exchange.engine.pages
        while exchange.wants:
            wants = exchange.wants
            exchange.found(pages.lookup(wants) if pages.immediate else await pages.alookup(wants))

    def _take_up(self, exchange: Exchange[Line], request: ASGIRequest) -> None:
        """Begin with a request; what the exchange wants is still to be looked up."""
        locale = request.scope.get(LOCALE)
        if locale is not None:
            exchange.language, exchange.timezone = locale.language, locale.timezone
        headers = request.headers
        special: Sequence[str] = ()
        if not headers.keys().isdisjoint(self._special):
            special = [name.decode("latin-1") for name in self._special.intersection(headers)]
        if len(headers) != len(request._fields):
            special = [*special, "host"]
        exchange.begin(request, time.time(), special)

    async def _finish(self, work: Coroutine[Any, Any, None]) -> None:
        """Do it to the end, also when the request is cancelled: a page half written is one that no purge was minded."""
        task = asyncio.ensure_future(work)
        self._writing.add(task)
        task.add_done_callback(self._writing.discard)
        await asyncio.shield(task)

    def _refresh(self, scope: Scope, exchange: Exchange[Line]) -> None:
        """Fetch the page again in the background, for nobody in particular.

        Where the halves stand apart, this is the outer one's work: what is in between has its say about the new page.
        """
        plain = sanitised(scope)
        if exchange.engine.properties:
            plain[LOCALE] = Locale.of(exchange.language, exchange.timezone)
        timeout = exchange.engine.policy.collapse_timeout

        async def work() -> None:
            request = ASGIRequest(plain)
            fresh = self.caching.exchange(request)
            fresh.refreshing = True
            passage = _Passage(self, plain, _no_body(), _discard, fresh)
            try:
                async with asyncio.timeout(timeout):
                    if self._fetches:
                        await self._begin(fresh, request)
                        await passage.board()
                    else:
                        fresh.request = request
                        fresh.within = passage
                        plain[EXCHANGE] = fresh
                        await passage.call()
            except Exception:
                log.exception("The background refresh of %s failed.", plain["path"])

        self._refresher.start(exchange.primary, work)


class CacheMiddleware(_Middleware):
    """Serve an application's pages from a cache: both halves at one place.

        app = CacheMiddleware(app, cache="redis://localhost:6379/0", seconds=60)

    Arguments: see `cachemw.caching.Caching`. With the application alone, the default cache and the environment's
    settings are used. Raises: ImproperlyConfigured for a wrong setting.
    """


class UpdateCacheMiddleware(_Middleware):
    """The outer half: stores what leaves the stack, and patches its headers. Of use with `FetchFromCacheMiddleware`."""

    _fetches = False


class FetchFromCacheMiddleware(_Middleware):
    """The inner half: answers from the cache. Stores nothing without an `UpdateCacheMiddleware` around it."""

    _updates = False


async def _send(exchange: Exchange[Line], send: Send) -> None:
    hit = exchange.hit
    if hit is not None:
        if hit.chosen and exchange.outer is not None:
            exchange.outer.chosen_within = True
        await send({"type": "http.response.start", "status": hit.status, "headers": [*hit.raw, *exchange.extra]})
        await send({"type": "http.response.body", "body": hit.body if exchange.request.method == "GET" else b""})
        return
    reply = exchange.reply
    assert reply is not None
    headers = [*reply.fields, *exchange.extra]
    await send({"type": "http.response.start", "status": reply.status, "headers": headers})
    await send({"type": "http.response.body", "body": reply.body})


async def _discard(message: Message) -> None:
    """Where a background refresh sends its response."""


def _no_body() -> Receive:
    """An empty request body; after it nothing comes: nobody is there who could disconnect."""
    given = False

    async def receive() -> Message:
        nonlocal given
        if given:
            await asyncio.get_running_loop().create_future()
        given = True
        return {"type": "http.request", "body": b"", "more_body": False}

    return receive


class _Passage:
    """One call of the application: relays its messages and copies aside the body that is kept."""

    __slots__ = (
        "_complete",
        "_copied",
        "_copy",
        "_flight",
        "_held",
        "_lease",
        "_middleware",
        "_receive",
        "_replaced",
        "_retry",
        "_send",
        "_started",
        "exchange",
        "place",
        "scope",
    )

    def __init__(
        self, middleware: _Middleware, scope: Scope, receive: Receive, send: Send, exchange: Exchange[Line]
    ) -> None:
        self.scope = scope
        self.exchange = exchange
        self.place: Mapping[str, Any] = {}  # what the scope said of the path before anybody else had the request
        self._middleware = middleware
        self._receive = receive
        self._send = send
        self._flight: Flight[Record | None] | None = None
        self._lease: str | None = None
        self._started = False  # a head was sent
        self._replaced = False  # a reply of ours was sent: what the application sends is dropped
        self._retry = False  # the same, because the application is to be called once more
        self._complete = False
        self._held: Head | None = None  # of a part that is read whole before anything of it is sent
        self._copy: list[bytes] | None = None  # the body so far, where it is kept
        self._copied = 0

    # -- waiting ----------------------------------------------------------------------------------------------------

    async def board(self) -> None:
        """Wait for whoever fetches this page already, or fetch it."""
        exchange = self.exchange
        waited: set[str] = set()
        try:
            while not exchange.settled and exchange.flight is not None and exchange.flight not in waited:
                waited.add(exchange.flight)
                flight, leads = exchange.engine.flights.join(exchange.flight)
                if leads:
                    self._holder._flight = flight
                    if exchange.lease is None or await self._take_lease(exchange.lease):
                        break
                elif not exchange.in_grace():
                    if not await flight.await_landing(exchange.engine.policy.collapse_timeout):
                        exchange.engine.flights.remove(flight)
                    await self._look_again(flight)
        except BaseException:
            await self._settle()
            raise
        if not exchange.settled:
            await self.call()
            return
        self._land(exchange.known)
        await _send(exchange, self._send)

    @property
    def _holder(self) -> _Passage:
        """The passage that lands the flight and drops the lease: of the half that stores, where they stand apart."""
        return self if self._middleware._updates else self.exchange.within or self

    async def _look_again(self, flight: Flight[Record | None]) -> None:
        exchange = self.exchange
        exchange.again(time.time())
        pages = exchange.engine.pages
        while wants := exchange.wants:
            records = pages.lookup(wants) if pages.immediate else await pages.alookup(wants)
            if flight.records:
                records = [flight.records.get(key) or record for key, record in zip(wants, records, strict=True)]
            exchange.found(records)

    async def _take_lease(self, key: str) -> bool:
        """Fetch for all processes; if another one does, look for its answer until it has had its time."""
        exchange = self.exchange
        if exchange.outer is not None and exchange.outer.leased:
            return True
        pages, timeout = exchange.engine.pages, exchange.engine.policy.lease
        deadline = time.monotonic() + timeout
        waited = exchange.collapsed
        while True:
            exchange.again(time.time())
            taken, records = await pages.alease(key, timeout, exchange.wants)
            self._holder._lease = key if taken else None
            exchange.found(records)  # who had the lease may have stored it between our look-up and now
            while exchange.wants:
                exchange.found(await pages.alookup(exchange.wants))
            if exchange.settled:
                if taken:
                    await pages.arun(pages.drop_lease(key), None)
                    self._holder._lease = None
                return False
            if taken:
                exchange.collapsed = waited
                exchange.leased = True
                return True
            if exchange.lease is None or time.monotonic() > deadline:  # its answer was not cacheable: nobody waits
                return True
            waited = True
            await asyncio.sleep(LEASE_POLL)

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

    async def call(self) -> None:
        """Call the application and relay what it sends."""
        exchange = self.exchange
        scope = self.scope
        scope.setdefault(EXCHANGE, exchange)
        token = None
        if exchange.engine.properties:
            token = enter(scope)
            scope[LOCALE].keyed = exchange.engine.properties
        if exchange.conditions is not None:
            scope = with_conditions(scope, exchange.conditions)
        try:
            await self._middleware.app(scope, self._receiving, self._sending)
            if self._retry:  # what came does not fit what is stored (RFC 9111 §4.3.3)
                self._retry = False
                self._receive = _no_body()
                await self._middleware.app(self.scope, self._receiving, self._sending)
        except Exception as error:
            if self._started or self._replaced or not exchange.failed(time.time()):
                raise
            log.error("The application failed; a stale response stands in for it.", exc_info=error)
            await self._replace()
        finally:
            if token is not None:
                leave(token)
            if not self._complete:
                exchange.abandoned()
            await self._settle()

    async def _receiving(self) -> Message:
        message = await self._receive()
        if message["type"] == "http.disconnect":
            if not self._complete:
                self._drop()
        elif message.get("body") and self.exchange.request.method in ("GET", "HEAD"):
            self.exchange.never = True  # HTTP/2 does not announce a body, and the answer may depend on it
            self._drop()
        return message

    async def _sending(self, message: Message) -> None:
        if self._replaced or self._retry:
            return
        kind = message["type"]
        if kind == "http.response.body":
            await self._send_body(message)
        elif kind == "http.response.start":
            await self._send_head(message)
        elif kind == "http.response.debug":  # what a template was rendered with, for a test client: no part of it
            await self._send(message)
        else:  # a file, a push, trailers, or something we do not know: it passes, and nothing is stored
            self.exchange.cannot_copy()
            self._drop()
            await self._send(message)

    async def _send_head(self, message: Message) -> None:
        exchange = self.exchange
        if self._started:  # the server will say that this is one head too many
            exchange.cannot_copy()
            self._drop()
            await self._send(message)
            return
        headers = message.get("headers", ())
        if not isinstance(headers, list | tuple):  # any iterable is allowed, also one that can be read once
            message = {**message, "headers": (headers := list(headers))}
        given = Head(message["status"], decoded(headers))
        now = time.time()
        middleware = self._middleware
        if message.get("trailers"):
            exchange.cannot_copy()
        if middleware._fetches and exchange.stale is not None:
            step = exchange.answered(given, now)
            if step is Step.HOLD:
                self._held = given
                self._copy, self._copied = [], 0
                return
            if step is Step.REPLY:
                await self._replace()
                return
            if step is Step.RETRY:
                self._retry = True
                return
        head = given
        if middleware._updates:
            locale = self.scope.get(LOCALE)
            if locale is not None:
                exchange.language, exchange.timezone = locale.language, locale.timezone
            head = exchange.leaving(given, now)
        if exchange.purges and middleware._updates:
            pages = exchange.engine.pages
            await pages.arun_purge(exchange.purges)
            if exchange.keep:
                exchange.purged(await pages.alookup(exchange.wants))
        if exchange.keep:
            self._copy, self._copied = [], 0
        elif middleware._updates:
            self._land()
        self._started = True
        if head is not given:
            message = {**message, "headers": [encoded(*field) for field in head.fields]}
        await self._send(message)

    async def _replace(self) -> None:
        """Send the exchange's reply instead of what the application gave."""
        self._replaced = self._complete = True
        self._land(self.exchange.records)
        await _send(self.exchange, self._send)
        await self._settle()  # the application may go on for long, and everybody would validate again until then

    async def _send_body(self, message: Message) -> None:
        if self._copy is not None:
            chunk = message.get("body", b"")
            self._copied += len(chunk)
            if self._copied > self.exchange.engine.policy.max_body:
                self.exchange.cannot_copy()
                self._drop()
            else:
                self._copy.append(bytes(chunk))
        if self._held is not None:
            if not message.get("more_body", False):
                await self._release(self._held)
            return
        if message.get("more_body", False):
            try:
                await self._send(message)
            except BaseException:  # whoever sends it again sends it twice, to us alone
                self._drop()
                raise
            return
        if not self._started or self._complete:  # out of order: the server will say so
            await self._send(message)
            return
        if self._copy is not None:
            self._land(self.exchange.completed(b"".join(self._copy), time.time()))
            self._copy = None
        self._complete = True
        await self._send(message)
        await self._settle()

    async def _release(self, head: Head) -> None:
        """The part that completes a stored one has come."""
        self._held = None
        body, self._copy = self._copy, None
        if body is not None and self.exchange.combined(head, b"".join(body), time.time()) is Step.REPLY:
            await self._replace()
        else:
            self._retry = True

    def _drop(self) -> None:
        """Nothing of this response is stored; whoever waits for it goes on alone."""
        self._copy = None
        self.exchange.abandoned()
        self._land()

    async def _settle(self) -> None:
        """Do what is left to do: the client has had its last byte. Until then, who asks gets it from the flight."""
        exchange = self.exchange
        try:
            if exchange.writes or exchange.drops or self._lease is not None:
                work = self._commit(exchange.engine.pages)
                if exchange.engine.pages.immediate:
                    await work
                else:
                    await self._middleware._finish(work)
        finally:
            self._land()
            if exchange.within is self:
                exchange.within = None  # no cycle for the garbage collector
            if exchange.refresh and self.place:
                exchange.refresh = False
                self._middleware._refresh({**self.scope, **self.place}, exchange)

    async def _commit(self, pages: Pages) -> None:
        exchange = self.exchange
        lease, self._lease = self._lease, None
        if exchange.writes or exchange.drops or lease is not None:
            procedure = pages.commit(exchange.writes, exchange.drops, exchange.guard, lease)
            exchange.writes = exchange.drops = ()
            if pages.immediate:
                pages.run(procedure, False)
            else:
                await pages.arun(procedure, False)
