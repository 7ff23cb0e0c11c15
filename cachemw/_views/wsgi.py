"""Pages on WSGI: Flask's views, and whole applications, each inside of the middleware.

A view's value becomes a response of Flask's, and a response is a WSGI application. So a view is cached as an
application is, and the result becomes a response again, for the decorators and after hooks around the view.

Rule 1: the response is stored as the view returned it. Decorators further out change it afterwards, for hits too.
Rule 2: the page of a view that reads the session or the cookies varies on Cookie; that of a view that changes the
        session is not stored. Flask would set the cookie later (`SessionInterface.save_session`). A page that reads a
        session on the server is not stored either: the session may change while its cookie stays the same.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable, Iterator
from typing import TYPE_CHECKING, Any, Final

from cachemw import wsgi
from cachemw._views.kinds import Call
from cachemw._views.page import EXCHANGE, Page, Site, noticing
from cachemw._wsgi.request import CALL
from cachemw.activation import KEY as LOCALE
from cachemw.activation import Locale
from cachemw.headers import patch_vary_headers

if TYPE_CHECKING:
    from flask import Flask, Response

__all__ = [
    "FLASK_EXTENSION",
    "cached_application",
    "cached_view",
    "cached_view_async",
    "make_inner_half",
    "make_middleware",
    "respond",
]

#: Where the extension keeps its state, in `app.extensions`.
FLASK_EXTENSION = "cachemw"

#: The request fields by the attributes in which Flask's request keeps what it has parsed of them. Before the view is
#: called, Flask has opened the session, from the cookies, and functions that log may have read User-Agent.
_READ: Final = {"cookies": "cookie", "user_agent": "user-agent"}


def _call_view(environ: dict[str, Any], start_response: Any) -> Iterable[bytes]:
    """The application of every view's middleware: it calls the function in the environment."""
    return environ[CALL](environ, start_response)  # type: ignore[no-any-return]


def make_middleware(**options: Any) -> wsgi.CacheMiddleware:
    """The middleware for a page; what it calls is in the environment of each request."""
    return wsgi.CacheMiddleware(_call_view, **options)


def make_inner_half(**options: Any) -> wsgi.FetchFromCacheMiddleware:
    """The inner half of a cache, likewise; its outer half is around the application."""
    return wsgi.FetchFromCacheMiddleware(_call_view, **options)


def cached_application(page: Page, app: Any, environ: dict[str, Any], start_response: Any) -> Iterable[bytes]:
    """Answer a request to a whole application from the cache, or join the cache around it."""
    if page.join(environ.get(EXCHANGE)):
        return app(environ, start_response)  # type: ignore[no-any-return]

    def call(environ: dict[str, Any], start_response: Any) -> Iterable[bytes]:
        page.tell(environ[EXCHANGE])
        return app(environ, start_response)  # type: ignore[no-any-return]

    inner = {**environ, CALL: call}
    inner.pop(EXCHANGE, None)
    return page.open(make_middleware)(inner, start_response)


# -- Flask ----------------------------------------------------------------------------------------------------------


def cached_view(page: Page, call: Call, invoke: Callable[[], Any] | None = None) -> Any:
    """Answer Flask's current request from the cache, or by calling the view (`invoke`, if given)."""
    from flask import current_app, request

    invoke = invoke or call
    site: Site | None = current_app.extensions.get(FLASK_EXTENSION)
    if page.join(outer := request.environ.get(EXCHANGE), call.args, call.kwargs, site=site):
        with noticing(_current(), _READ, outer):
            return invoke()

    def tell(exchange: Any) -> None:
        page.tell(exchange, call.args, call.kwargs)

    return respond(page.open(make_middleware, site), invoke, tell)


async def cached_view_async(page: Page, call: Call) -> Any:
    """`cached_view` for a coroutine view, which Flask runs on an event loop for this call.

    The look-up may block, so it runs in a thread; the view runs on the loop.
    """
    from flask import current_app, request

    site: Site | None = current_app.extensions.get(FLASK_EXTENSION)
    if page.join(outer := request.environ.get(EXCHANGE), call.args, call.kwargs, site=site):
        with noticing(_current(), _READ, outer):
            return await call()
    loop = asyncio.get_running_loop()

    def invoke() -> Any:
        return asyncio.run_coroutine_threadsafe(call(), loop).result()

    return await asyncio.to_thread(cached_view, page, call, invoke)


def respond(
    middleware: Any, invoke: Callable[[], Any], tell: Callable[[Any], None], *, inner_half: bool = False
) -> Response:
    """The response of a middleware, around the call of a view, to Flask's current request.

    invoke: calls the view; tell: called with the exchange before; inner_half: the middleware is a
    `FetchFromCacheMiddleware`, with its outer half around the application.
    """
    from flask import current_app, request

    app: Flask = current_app._get_current_object()  # type: ignore[attr-defined]
    given: list[Response] = []

    def call(environ: dict[str, Any], start_response: Any) -> Iterable[bytes]:
        from flask import has_request_context

        if not has_request_context():  # a background refresh, in a thread of its own
            with app.request_context(environ):
                return _refreshed(app, invoke, tell, environ, start_response)
        exchange = environ[EXCHANGE]
        outer = request.environ.get(EXCHANGE)
        request.environ[EXCHANGE] = exchange  # decorators further in join this cache
        try:
            tell(exchange)
            with noticing(_current(), _READ, exchange):
                response = app.make_response(invoke())
        finally:
            if outer is None:
                del request.environ[EXCHANGE]
            else:
                request.environ[EXCHANGE] = outer
        if middleware.caching.line.properties:
            _tell_locale(app, environ[LOCALE])
        _mind_session(exchange, response)
        given.append(response)
        if response.is_streamed and not response.direct_passthrough:
            response.response = _watched(response, _current(), exchange)
        return response(environ, start_response)

    if middleware.caching.line.properties:
        _tell_locale(app, request.environ.setdefault(LOCALE, Locale()))
    environ = {**request.environ, CALL: call}
    if not inner_half:
        environ.pop(EXCHANGE, None)
    head: list[Any] = []

    def start(status: str, headers: list[tuple[str, str]], exc_info: Any = None, /) -> Callable[[bytes], object]:
        head[:] = status, headers
        return _unused

    body = middleware(environ, start)
    return _as_response(app, head, body, given[-1] if given else None)


def _watched(response: Response, request: Any, exchange: Any) -> Iterable[bytes]:
    """The parts of a stream. If it reads the cookies it is not stored: its head was sent without Vary."""
    from werkzeug.wsgi import ClosingIterator

    parts: Any = response.response

    def relayed() -> Iterator[Any]:
        yield from parts
        if not {field for name, field in _READ.items() if name in vars(request)}.issubset(exchange.reads):
            exchange.abandoned()

    return ClosingIterator(relayed(), getattr(parts, "close", None))


def _current() -> Any:
    from flask import request

    return request._get_current_object()  # type: ignore[attr-defined]


def _unused(data: bytes) -> None:
    """The `write` of PEP 3333; a response of werkzeug's never calls it."""


def _refreshed(app: Flask, invoke: Any, tell: Any, environ: dict[str, Any], start_response: Any) -> Iterable[bytes]:
    """The page for a background refresh, without a visitor. The before functions run first, and may refuse it."""
    exchange = environ[EXCHANGE]
    tell(exchange)
    value = app.preprocess_request()
    with noticing(_current(), _READ, exchange):
        response = app.make_response(invoke() if value is None else value)
    exchange.never = exchange.never or value is not None
    _mind_session(exchange, response)
    return list(response(environ, start_response))


def _as_response(app: Flask, head: list[Any], body: Iterable[bytes], given: Response | None) -> Response:
    """The response that the cache sends, as one of the application's class; a stream stays a stream."""
    from werkzeug.datastructures import Headers

    status, headers = head
    if given is not None and given.is_streamed:  # werkzeug closes its iterable
        response = app.response_class(body, status=status, direct_passthrough=given.direct_passthrough)
    else:
        try:
            response = app.response_class([b"".join(body)], status=status)
        finally:  # now, because an after hook may return another response
            close = getattr(body, "close", None)
            if close is not None:
                close()
    response.headers = Headers(headers)
    return response


def _mind_session(exchange: Any, response: Response) -> None:
    from flask.globals import request_ctx

    context = request_ctx._get_current_object()  # type: ignore[attr-defined]
    # the attribute: the property and the proxy would count as reading the session
    session = context._session if hasattr(context, "_session") else context.session
    if getattr(session, "modified", False):
        exchange.never, exchange.detail = True, "set-cookie"
    if getattr(session, "accessed", False) or (session and response.is_streamed):  # a stream may read it later
        patch_vary_headers(response, ["Cookie"])
        if not exchange.never and _is_kept_elsewhere(session):
            exchange.never, exchange.detail = True, "session"


def _is_kept_elsewhere(session: Any) -> bool:
    """Is the session kept on the server, so that it may change while its cookie stays the same?"""
    from flask import current_app, request
    from flask.sessions import SecureCookieSession

    if isinstance(session, SecureCookieSession):
        return False
    return current_app.session_interface.get_cookie_name(current_app) in request.cookies


def _tell_locale(app: Flask, locale: Locale) -> None:
    """Write what Flask-Babel has chosen for the current request into `locale`; without Flask-Babel change nothing."""
    if "babel" not in app.extensions:
        return
    from flask_babel import get_locale, get_timezone  # type: ignore[import-untyped]

    language, zone = get_locale(), get_timezone()
    locale.language = None if language is None else str(language).replace("_", "-")
    locale.timezone = None if zone is None else str(zone)
