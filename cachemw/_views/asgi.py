"""Pages on ASGI: Starlette's views, and whole applications.

A view returns its response before it is sent, and decorators around it may still change the response. So there are two
steps: `open_page` looks up, and waits, before the view is called; `keep` decides about the view's response. The body is
copied while the response is sent.

Rule 1: the response is stored as the view returned it. Decorators further out change it afterwards, for hits too.
Rule 2: the page of a view that reads the session or the cookies varies on Cookie; that of a view that changes the
        session is not stored. SessionMiddleware would set the cookie later.
Rule 3: a stale page is renewed by a request to the whole application, without a visitor: the guards of the view guard
        the new page, too. The view is not called with this client's request.
Rule 4: a plain view runs in the worker thread that it was called in; only the cache's work goes to the event loop.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from contextlib import contextmanager
from functools import cache
from typing import TYPE_CHECKING, Any, Final

from anyio import from_thread

from cachemw import asgi
from cachemw._asgi.passage import Passage
from cachemw._asgi.replies import discard, no_body
from cachemw._asgi.request import sanitised
from cachemw._views.kinds import Call
from cachemw._views.page import EXCHANGE, Page, noticing
from cachemw.activation import KEY as LOCALE
from cachemw.activation import enter, leave
from cachemw.asgi import ASGIRequest, Message, Receive, Scope, Send
from cachemw.caching import Line, log
from cachemw.exchange import Exchange
from cachemw.flights import LED, lead
from cachemw.headers import patch_vary_headers

if TYPE_CHECKING:
    from collections.abc import Iterator

    from starlette.responses import Response

__all__ = [
    "READ",
    "ViewPassage",
    "cached_application",
    "cached_view",
    "cached_view_async",
    "make_middleware",
    "open_page",
    "open_page_in_thread",
]

_VIEW: Final = "cachemw.view"

_COOKIES: Final = "_cookies"
#: The request fields by the attributes in which Starlette's request keeps what it has parsed of them.
READ: Final = {_COOKIES: "cookie"}
_RENEWING: Final = "cachemw.renewing"

#: What routing writes into a scope; a refresh is routed again.
_ROUTED: Final = frozenset({"app", "app_root_path", "endpoint", "path_params", "route", "router", _VIEW})


async def _call_view(scope: Scope, receive: Receive, send: Send) -> None:
    """The application of every page's middleware: it calls the function in the scope."""
    await scope[_VIEW](scope, receive, send)


def make_middleware(**options: Any) -> asgi.CacheMiddleware:
    """The middleware for a page; what it calls is in the scope of each request."""
    return asgi.CacheMiddleware(_call_view, **options)


async def cached_application(page: Page, app: Any, scope: Scope, receive: Receive, send: Send) -> None:
    """Answer a request to a whole application from the cache, or join the cache around it."""
    if page.join(scope.get(EXCHANGE)):
        await app(scope, receive, send)
        return

    async def call(scope: Scope, receive: Receive, send: Send) -> None:
        page.tell(scope[EXCHANGE])
        await app(scope, receive, send)

    inner = {**scope, _VIEW: call}
    inner.pop(EXCHANGE, None)
    await page.open(make_middleware)(inner, receive, send)


# -- views ------------------------------------------------------------------------------------------------------------


async def cached_view_async(page: Page, call: Call) -> Any:
    """Answer from the cache, or by calling the coroutine view, which returns a response."""
    request = call.starlette
    if page.join(outer := request.scope.get(EXCHANGE), call.args, call.kwargs):
        with noticing(request, READ, outer):
            return await call()
    passage = await open_page(page, request, call.args, call.kwargs)
    if not isinstance(passage, ViewPassage):
        return passage
    try:
        with passage.current():
            response = call.response(await call(), "cache_page")
        return await passage.keep(response)
    except BaseException as error:
        return await passage.stand_in_for(error)


def cached_view(page: Page, call: Call) -> Any:
    """`cached_view_async` for a plain view, in the worker thread in which Starlette calls it."""
    request = call.starlette
    if page.join(outer := request.scope.get(EXCHANGE), call.args, call.kwargs):
        with noticing(request, READ, outer):
            return call()
    passage = open_page_in_thread(page, request, call.args, call.kwargs)
    if not isinstance(passage, ViewPassage):
        return passage
    try:
        with passage.current():
            response = call.response(call(), "cache_page")
        return from_thread.run(passage.keep, response)
    except BaseException as error:
        return from_thread.run(passage.stand_in_for, error)


async def open_page(
    page: Page, request: Any, args: tuple[Any, ...], kwargs: Mapping[str, Any]
) -> ViewPassage | Response:
    """Look a page up. Returns: the stored response, or the passage of the response that the view has to make."""
    middleware = page.open(make_middleware)
    exchange = _taken_up(page, middleware, request, args, kwargs)
    pages = exchange.engine.pages
    while exchange.wants:
        wants = exchange.wants
        exchange.found(pages.lookup(wants) if pages.immediate else await pages.alookup(wants))
    if exchange.settled:
        if exchange.refresh:
            _renew(middleware, request.scope, exchange)
        return _stored(exchange)
    sent: list[Message] = []
    passage = ViewPassage(middleware, request.scope, request.receive, _into(sent), exchange)
    passage.sent, passage.asked = sent, request
    await passage.board()
    return _as_response(sent) if sent else passage


def open_page_in_thread(
    page: Page, request: Any, args: tuple[Any, ...], kwargs: Mapping[str, Any]
) -> ViewPassage | Response:
    """`open_page` in a worker thread. For a hit in local memory it does not use the event loop, which is faster.

    After a miss the event loop looks up again, so that no other page is stored between look-up and flight.
    """
    middleware = page.open(make_middleware)
    pages = middleware.caching.line.pages
    if pages.immediate:
        exchange = _taken_up(page, middleware, request, args, kwargs)
        if exchange.settled and not exchange.refresh:
            return _stored(exchange)
    return from_thread.run(open_page, page, request, args, kwargs)


def _taken_up(
    page: Page, middleware: asgi.CacheMiddleware, request: Any, args: tuple[Any, ...], kwargs: Mapping[str, Any]
) -> Exchange[Line]:
    asked = ASGIRequest(request.scope)
    exchange = middleware.caching.exchange(asked)
    scope = request.scope
    exchange.refreshing = _RENEWING in scope or not _can_renew(scope)
    page.tell(exchange, args, kwargs)
    middleware.take_up(exchange, asked, time.time())
    return exchange


def _can_renew(scope: Scope) -> bool:
    """Can the whole application be called again? Not if it is mounted in another one."""
    router = scope.get("router")
    return router is not None and getattr(scope.get("app"), "router", None) is router


def _renew(middleware: asgi.CacheMiddleware, scope: Scope, exchange: Exchange[Line]) -> None:
    """Request the stale page again in the background; the new page is stored on its way as any other."""
    plain = {name: value for name, value in sanitised(scope).items() if name not in _ROUTED and name[:7] != "fastapi"}
    plain["root_path"] = scope.get("app_root_path", scope.get("root_path", ""))
    plain[_RENEWING] = True

    async def work() -> None:
        await scope["app"](plain, no_body(), discard)

    middleware.refresher.start(exchange.primary, work, plain["path"])


def _stored(exchange: Exchange[Line]) -> Response:
    """The stored response, or the one made of it, as a response of Starlette's."""
    from starlette.responses import Response, StreamingResponse

    given, extra, body = exchange.answer
    if isinstance(body, bytes):
        response = Response(body, given.status)
    else:
        response = StreamingResponse(body.reader(), given.status)
    response.raw_headers = [*given.raw, *extra]
    return response


def _into(messages: list[Message]) -> Send:
    async def send(message: Message) -> None:
        messages.append(message)

    return send


def _as_response(messages: list[Message]) -> Response:
    """The whole response that these messages are."""
    from starlette.responses import Response

    start = messages[0]
    response = Response(b"".join(message.get("body", b"") for message in messages[1:]), start["status"])
    response.raw_headers = list(start["headers"])
    return response


class ViewPassage(Passage):
    """A passage through the cache whose response is made between `board` and `keep`, and sent later."""

    _sends_files = False
    _waits = False  # whoever made the response reads the fields at once
    sent: list[Message]
    asked: Any  # the framework's request, if it is known

    async def call(self) -> None:
        """The caller of `board` calls the view, which may change the scope: so the request's URL is read now."""
        self.exchange.request.hold()

    @contextmanager
    def current(self) -> Iterator[None]:
        """While the view runs: decorators inside of it join this exchange, and it may activate a language."""
        scope, exchange = self.scope, self.exchange
        outer = scope.get(EXCHANGE)
        scope[EXCHANGE] = exchange
        token = None
        if exchange.engine.properties:
            token = enter(scope)
            scope[LOCALE].keyed = exchange.engine.properties
        led = lead(self._flight)
        try:
            with noticing(self.asked, READ, exchange):
                yield
        finally:
            LED.set(led)
            if token is not None:
                leave(token)
            if outer is None:
                del scope[EXCHANGE]
            else:
                scope[EXCHANGE] = outer

    async def keep(self, response: Response) -> Response:
        """Decide about the view's response. Returns: the response to send."""
        self._mind_session(response)
        self._started_at_once = hasattr(response, "body") or hasattr(response, "body_iterator")
        if self._started_at_once:  # the fields of a file are known only when it is sent
            start = {"type": "http.response.start", "status": response.status_code}
            self._ahead = bytes(response.body) if hasattr(response, "body") else None
            await self._sending({**start, "headers": list(response.raw_headers)})
            if self._replaced:
                await self._settle()
                return _as_response(self.sent)
            response.raw_headers = list(self.sent[0]["headers"])
            response.__dict__.pop("_headers", None)
        return _kept()(response, self)

    async def stand_in_for(self, error: BaseException) -> Response:
        """The view raised an error. Returns: a stale response to send in its place. Raises: the error, without one."""
        exchange = self.exchange
        if isinstance(error, Exception) and exchange.serve_on_error(time.time()):
            log.error("The view failed; a stale response stands in for it.", exc_info=error)
            await self._replace()
            await self._settle()
            return _as_response(self.sent)
        exchange.abandoned()
        await self._settle()
        raise error

    async def relay(self, response: Any, scope: Scope, receive: Receive, send: Send) -> None:
        """Send the view's response, and store it when its last byte has left."""
        self._receive, self._send = receive, send
        kept = vars(self.asked)
        kept.pop(_COOKIES, None)

        async def sending(message: Message) -> None:
            if self._started_at_once and message["type"] == "http.response.start":
                await send(message)
                return
            if _COOKIES in kept and "cookie" not in self.exchange.reads:  # read by a stream, after its head was sent
                self._drop()
            await self._sending(message)

        try:
            await response(scope, self._receiving, sending)
        finally:
            if not self._complete:
                self.exchange.abandoned()
            await self._settle()

    def _mind_session(self, response: Any) -> None:
        known = self.exchange.request.session
        if known == "changed":
            self.exchange.never, self.exchange.detail = True, "set-cookie"
        later = not hasattr(response, "body")  # a stream may still read it
        if known == "read" or (known == "held" and (later or _is_silent(self.scope["session"]))):
            patch_vary_headers(response, ["Cookie"])


def _is_silent(session: Any) -> bool:
    """Has the session no `accessed`? Then it counts as read; so does a session that raises an error."""
    try:
        return not hasattr(session, "accessed")
    except Exception:
        return True


@cache
def _kept() -> Callable[[Any, ViewPassage], Response]:
    """The class of the responses that are sent through a passage, made when Starlette is there."""
    from starlette.responses import Response

    class Kept(Response):
        """The view's response: it shares the attributes, so a change here changes that response, too."""

        __slots__ = ("_passage", "_response")

        def __init__(self, response: Response, passage: ViewPassage) -> None:
            self.__dict__ = response.__dict__
            self._response = response
            self._passage = passage

        async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
            await self._passage.relay(self._response, scope, receive, send)

    return Kept
