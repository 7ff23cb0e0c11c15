"""Pages on WSGI: views of Flask, and whole applications, each behind the middleware's own machinery.

A view's value becomes Flask's response, and a response is a WSGI application: so a view is cached as an application is,
and what comes out becomes a response again, for the decorators and after hooks further out.

Rule 1: what a view returned is what is stored, before anything further out changes it: that will happen to hits too.
Rule 2: a view that read the session, or the cookies, varies on Cookie, one that changed the session is not stored,
        though Flask says so only when the response leaves (`SessionInterface.save_session`). Nor is one that read a
        session which is not in its cookie: what is in it tomorrow goes by the same cookie.
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

#: Where its request keeps what it has parsed: the cookies, of which a session is opened before the view is called, and
#: what may have been counted before it.
_READ: Final = {"cookies": "cookie", "user_agent": "user-agent"}


def _call_view(environ: dict[str, Any], start_response: Any) -> Iterable[bytes]:
    """The application of every view's middleware: the request brings along what is to be called."""
    return environ[CALL](environ, start_response)  # type: ignore[no-any-return]


def make_middleware(**options: Any) -> wsgi.CacheMiddleware:
    """The machinery for calls that requests bring along."""
    return wsgi.CacheMiddleware(_call_view, **options)


def make_inner_half(**options: Any) -> wsgi.FetchFromCacheMiddleware:
    """The same for the inner half of a cache whose outer half is elsewhere."""
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
    """Answer the current request of Flask's from the cache, or by calling the view, whose value may be any."""
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
    """`cached_view` for a coroutine view, which Flask runs on an event loop of its own.

    The look-up may wait, so it runs in a thread; the view is called back on the loop.
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
    """The response to Flask's current request that a middleware makes around the call of a view.

    inner_half: the middleware is a `FetchFromCacheMiddleware`, whose other half is further out.
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
    """A stream: what has read the cookies by its end is not stored, for its head has left."""
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
    """What the page is to nobody in particular: after the before hooks, which may refuse it."""
    exchange = environ[EXCHANGE]
    tell(exchange)
    value = app.preprocess_request()
    with noticing(_current(), _READ, exchange):
        response = app.make_response(invoke() if value is None else value)
    exchange.never = exchange.never or value is not None
    _mind_session(exchange, response)
    return list(response(environ, start_response))


def _as_response(app: Flask, head: list[Any], body: Iterable[bytes], given: Response | None) -> Response:
    """What left the cache as a response of the application's own class; a stream stays one."""
    from werkzeug.datastructures import Headers

    status, headers = head
    if given is not None and given.is_streamed:  # werkzeug closes its iterable
        response = app.response_class(body, status=status, direct_passthrough=given.direct_passthrough)
    else:
        try:
            response = app.response_class([b"".join(body)], status=status)
        finally:  # now: an after hook may put another response in the place of this one
            close = getattr(body, "close", None)
            if close is not None:
                close()
    response.headers = Headers(headers)
    return response


def _mind_session(exchange: Any, response: Response) -> None:
    from flask.globals import request_ctx

    context = request_ctx._get_current_object()  # type: ignore[attr-defined]
    # not by its property, nor by the proxy: to ask would count as reading it
    session = context._session if hasattr(context, "_session") else context.session
    if getattr(session, "modified", False):
        exchange.never = True
    if getattr(session, "accessed", False) or (session and response.is_streamed):  # a stream may still read it
        patch_vary_headers(response, ["Cookie"])
        exchange.never = exchange.never or _is_kept_elsewhere(session)


def _is_kept_elsewhere(session: Any) -> bool:
    """Is there more in the session than its cookie says: may it change, and the cookie stay the same?"""
    from flask import current_app, request
    from flask.sessions import SecureCookieSession

    if isinstance(session, SecureCookieSession):
        return False
    return current_app.session_interface.get_cookie_name(current_app) in request.cookies


def _tell_locale(app: Flask, locale: Locale) -> None:
    """Write down what Flask-Babel has chosen for the current request; without it, what was activated stays."""
    if "babel" not in app.extensions:
        return
    from flask_babel import get_locale, get_timezone  # type: ignore[import-untyped]

    language, zone = get_locale(), get_timezone()
    locale.language = None if language is None else str(language).replace("_", "-")
    locale.timezone = None if zone is None else str(zone)
