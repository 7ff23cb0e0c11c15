"""The middlewares for ASGI: I/O only. What is to be done, `cachemw.exchange` says.

    UpdateCacheMiddleware      outermost: stores what leaves the stack, patches its headers
    FetchFromCacheMiddleware   innermost: answers from the cache
    CacheMiddleware            both at one place

Middlewares between the two halves may change what the key depends on (language, `Vary`, cookies): update first, fetch
last, as before hooks run in order and after hooks in reverse (`cachemw.hooks`). WebSockets and lifespan pass untouched.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Mapping
from functools import lru_cache
from typing import Any, Final

from cachemw._asgi.hooked import Hooked
from cachemw._asgi.passage import Passage
from cachemw._asgi.replies import discard, messages_of, no_body, send_stored
from cachemw._asgi.request import EXCHANGE, ASGIRequest, octets, sanitised
from cachemw._asgi.types import ASGIApp, Message, Receive, Scope, Send
from cachemw._users import USERS
from cachemw.activation import KEY as LOCALE
from cachemw.activation import Locale
from cachemw.caching import CachingMiddleware, Line
from cachemw.exchange import Exchange
from cachemw.exchange.plain import LookedUp, answer, ask
from cachemw.flights import TaskRefresher
from cachemw.locale import ASGILocaleMiddleware as LocaleMiddleware
from cachemw.locale import ASGITimezoneMiddleware as TimezoneMiddleware
from cachemw.paths import below

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


#: What the scope says of the URL's path and query, and what it is where a server says nothing.
_PLACE: Final = (("path", "/"), ("raw_path", None), ("query_string", b""), ("root_path", ""))


@lru_cache(64)
def _octets(special: frozenset[str]) -> frozenset[bytes]:
    return frozenset(map(octets, special))


@lru_cache(256)
def _names(special: frozenset[bytes]) -> frozenset[str]:
    return frozenset([name.decode("latin-1") for name in special])


_ASYNCIO_ALONE: Final = (
    "cachemw works on asyncio, and this server runs another event loop (trio, perhaps): choose its asyncio worker."
)


def _on_asyncio() -> bool:
    try:
        asyncio.get_running_loop()
    except RuntimeError:
        return False
    return True


def _special(request: ASGIRequest, telling: frozenset[bytes]) -> frozenset[str]:
    """The fields that the request carries of those in `telling`, and what else `Exchange.begin` has to know."""
    headers = request.headers
    special: frozenset[str] = frozenset()
    if not telling.isdisjoint(headers):
        special = _names(telling.intersection(headers))
    if len(headers) != len(request._fields):
        special |= {"host"}
    scope = request.scope
    state = scope.get("state")
    has_user = ("user" in scope or (type(state) is dict and not USERS.isdisjoint(state))) and request.user
    if has_user or ("session" in scope and request.session == "read"):  # which is as good as credentials
        special |= {"authorization"}
    return special


class _Middleware(CachingMiddleware):
    """What the three of this interface have in common."""

    app: ASGIApp
    _async_hooks = True
    _state: Mapping[str, Any] | None = None  # of the lifespan, if there is one

    def _prepare(self) -> None:
        self.refresher = TaskRefresher()
        self._special = _octets(self.caching.line.special)

    # each framework has types of its own for these three, which are not those of another
    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        if scope["type"] != "http":
            if scope["type"] == "lifespan":
                await self._live(scope, receive, send)
            else:
                await self.app(scope, receive, send)
            return
        if self.hooks is not None:
            await self._hooked(self._respond, scope, receive, send)
            return
        request = ASGIRequest(scope)
        line, looked_up = self._plain_line, None
        now = time.time()
        if line is not None and EXCHANGE not in scope and LOCALE not in scope:
            special = _special(request, self._special)
            asked = ask(line, request, special)
            if asked is not None:
                pages, wants = line.pages, asked[0]
                records = pages.at_once(wants)
                if records is None:
                    records = await pages.alookup(wants)
                answered = answer(line, request, special, now, asked, records)
                if answered is not None:
                    start, body = messages_of(answered)
                    await send(start)
                    await send(body)
                    return
                looked_up = wants, records
        await self._answer(self._exchange(request, now, looked_up), scope, receive, send)

    async def _live(self, scope: Scope, receive: Receive, send: Send) -> None:
        """From the application's start to its end."""
        if not _on_asyncio():
            await receive()
            await send({"type": "lifespan.startup.failed", "message": _ASYNCIO_ALONE})
            return
        self._state = scope.get("state")
        await self.app(scope, receive, self._closing(send))

    def _closing(self, send: Send) -> Send:
        """End the background refreshes of this loop before the application's shutdown is reported as complete."""

        async def closing(message: Message) -> None:
            if message["type"].startswith("lifespan.shutdown."):
                await self.refresher.aclose()
            await send(message)

        return closing

    async def _hooked(self, respond: ASGIApp, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer under the hooks for this path."""
        plan = self._plan(below(scope.get("root_path", ""), scope["path"]), scope)
        if plan is None:
            await respond(scope, receive, send)
        else:
            await Hooked(respond, plan, scope, receive, send).run()

    async def _respond(self, scope: Scope, receive: Receive, send: Send) -> None:
        await self._answer(self._exchange(ASGIRequest(scope), time.time()), scope, receive, send)

    def _exchange(self, request: ASGIRequest, now: float, looked_up: LookedUp | None = None) -> Exchange[Line]:
        """The exchange of this request, looked up already where that needs no waiting."""
        exchange = self._exchange_of(request, request.scope)
        if self.fetches:
            self.take_up(exchange, request, now, looked_up)
        else:
            exchange.request = request  # whatever is in between may answer without the inner half
        return exchange

    async def _answer(self, exchange: Exchange[Line], scope: Scope, receive: Receive, send: Send) -> None:
        if not self.fetches:
            scope[EXCHANGE] = exchange
            passage = Passage(self, scope, receive, send, exchange)
            passage.place = {name: scope.get(name, unsaid) for name, unsaid in _PLACE}
            exchange.outer_half = passage
            await passage.call()
            return
        if exchange.wants:
            await self._look_up(exchange)
        if exchange.hit is None and exchange.reply is None:
            self._mind_the_outer_half(exchange)
            await Passage(self, scope, receive, send, exchange).board()
            return
        if exchange.refresh and self.updates:
            self.refresh(scope, exchange)
        await send_stored(exchange, send, as_file=True)

    async def begin(self, exchange: Exchange[Line], request: ASGIRequest) -> None:
        """Look the request up."""
        self.take_up(exchange, request, time.time())
        await self._look_up(exchange)

    async def _look_up(self, exchange: Exchange[Line]) -> None:
        while exchange.wants:
            exchange.found(await exchange.engine.pages.alookup(exchange.wants))

    def take_up(
        self, exchange: Exchange[Line], request: ASGIRequest, now: float, looked_up: LookedUp | None = None
    ) -> None:
        """Begin with a request, and look it up where the store answers without waiting: a coroutine costs more.

        looked_up: what was by now.
        """
        locale = request.scope.get(LOCALE)
        if locale is not None:
            exchange.speak(locale)
        telling = self._special if self.updates else _octets(exchange.engine.special)
        special = _special(request, telling)
        before = request.before
        while type(before) is ASGIRequest:
            special |= _special(before, telling)
            before = before.before
        exchange.begin(request, now, special)
        if looked_up is not None:
            exchange.resume(looked_up)
        pages = exchange.engine.pages
        if pages.immediate:
            while exchange.wants:
                exchange.found(pages.lookup(exchange.wants))

    def refresh(self, scope: Scope, exchange: Exchange[Line]) -> None:
        """Fetch the page again in the background, for nobody in particular.

        Where the halves stand apart, this is the outer one's work: what is in between has its say about the new page.
        """
        plain = sanitised(scope)
        if self._state is not None:  # what there is since the start, and nothing that was found for the visitor
            plain["state"] = dict(self._state)
        if exchange.engine.properties:
            plain[LOCALE] = Locale.of(exchange.language, exchange.timezone)

        async def work() -> None:
            await self._hooked(self._refreshing, plain, no_body(), discard)

        self.refresher.start(exchange.primary, work, plain["path"])

    async def _refreshing(self, scope: Scope, receive: Receive, send: Send) -> None:
        request = ASGIRequest(scope)
        exchange = self._exchange_of(request, scope)
        exchange.refreshing = True
        passage = Passage(self, scope, receive, send, exchange)
        if self.fetches:
            await self.begin(exchange, request)
            await passage.board()
            return
        exchange.request = request
        exchange.outer_half = passage
        scope[EXCHANGE] = exchange
        await passage.call()


class CacheMiddleware(_Middleware):
    """Serve an application's pages from a cache: both halves at one place.

        app = CacheMiddleware(app, cache="redis://localhost:6379/0", seconds=60)

    Options and errors: see `cachemw.CacheMiddleware`. With the application alone, the default cache and the
    environment's settings are used.
    """


class UpdateCacheMiddleware(_Middleware):
    """The outer half: stores what leaves the stack, and patches its headers. Use it with `FetchFromCacheMiddleware`."""

    fetches = False


class FetchFromCacheMiddleware(_Middleware):
    """The inner half: answers from the cache. It stores nothing without an `UpdateCacheMiddleware` around it."""

    updates = False
