"""Decorators of views: store the response, tell caches downstream what to do with it, answer a client's conditions.

    @app.get("/news")                                   Route("/news", cache_page(900)(news))
    @cache_page(900)
    @vary_on_headers("Accept-Language")                 app.add_url_rule("/news", view_func=cache_page(900)(news))
    def news(): ...                                     Mount("/shop", cache_page(900)(shop))

They decorate functions and coroutine functions, classes of views (Flask's `View`, Starlette's `HTTPEndpoint`) and their
methods, and whole WSGI or ASGI applications, in Flask, in Starlette, and in frameworks based on them. FastAPI's path
operations return plain values: for them the same names are in `cachemw.integrations.fastapi`. The decorators that only
set headers work in any framework whose views return responses with `.headers`.

Rule 1: `cache_page` is the first decorator below the route: it stores the response as the others have changed it.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterable, Mapping
from datetime import datetime
from inspect import isawaitable
from typing import Any, Final, Unpack

from cachemw._caching_here import project_of
from cachemw._views import asgi, wsgi
from cachemw._views.conditions import short_answer, validated, validators_of
from cachemw._views.kinds import PAGE, Call, ViewDecorator, ViewT, describe, in_flask
from cachemw._views.page import EXCHANGE, Page, Tags
from cachemw.asgi import ASGIRequest
from cachemw.backends.base import BaseCache
from cachemw.calling import is_async
from cachemw.headers import (
    Directives,
    RawFields,
    add_never_cache_headers,
    check_directives,
    patch_cache_control,
    patch_vary_headers,
)
from cachemw.rfc9111.fields import is_token
from cachemw.rfc9111.messages import Fields
from cachemw.rfc9111.requests import Request
from cachemw.wsgi import WSGIRequest

__all__ = ["cache_control", "cache_page", "conditional", "never_cache", "vary_on_cookie", "vary_on_headers"]


class CachePage(ViewDecorator):
    """See `cache_page`."""

    name = "cache_page"

    def __init__(self, timeout: float, cache: str | BaseCache | None, key_prefix: str | None, tags: Tags) -> None:
        self._options: Any = {"timeout": timeout, "cache": cache, "key_prefix": key_prefix, "tags": tags}
        self.page = Page(**self._options)

    def __call__(self, view: ViewT) -> ViewT:
        """The view, cached. Each view gets a page of its own, whose errors name the view."""
        own = CachePage(**self._options)
        own.page.name = describe(view)
        return super(CachePage, own).__call__(view)

    def check_whole(self, view: Any) -> None:
        if self.page.needs_arguments:
            raise TypeError(f"cache_page on {describe(view)}: tags of a class or an application are a list.")

    def mark(self, decorated: Any) -> None:
        setattr(decorated, PAGE, self.page)

    def around(self, call: Call) -> Any:
        if call.starlette is not None:
            return asgi.cached_view(self.page, call)
        if call.request is None and in_flask():
            return wsgi.cached_view(self.page, call)
        self._join(call)
        return call()

    async def around_async(self, call: Call) -> Any:
        if call.starlette is not None:
            return await asgi.cached_view_async(self.page, call)
        if call.request is None and in_flask():
            return await wsgi.cached_view_async(self.page, call)
        self._join(call)
        return await call()

    def _join(self, call: Call) -> None:
        """In other frameworks the site-wide middleware stores the page."""
        exchange = getattr(call.request, "META", {}).get(EXCHANGE)
        if not self.page.join(exchange, call.args, call.kwargs, site=project_of(call.request)):
            if exchange is not None:
                raise TypeError(
                    f"cache_page on {describe(call.view)}: in Django, all pages are in the store of the middleware, "
                    "under its key prefix; leave out cache and key_prefix here, or name those of the middleware."
                )
            if hasattr(call.request, "META"):
                raise TypeError(
                    f"cache_page on {describe(call.view)}: in Django, it only says for how long. Put "
                    "'cachemw.integrations.django.CacheMiddleware' into MIDDLEWARE; with CACHE_MIDDLEWARE_SECONDS = 0 "
                    "that stores no other pages than those of such views."
                )
            raise TypeError(
                f"cache_page: {describe(call.view)} was called without a request of Flask's or Starlette's. In "
                "FastAPI, take cache_page from cachemw.integrations.fastapi; elsewhere put CacheMiddleware around the "
                "application, with a Rule for this page."
            )

    async def asgi(self, app: Any, scope: Any, receive: Any, send: Any) -> None:
        await asgi.cached_application(self.page, app, scope, receive, send)

    def wsgi(self, app: Any, environ: Any, start_response: Any) -> Iterable[bytes]:
        return wsgi.cached_application(self.page, app, environ, start_response)


def cache_page(
    timeout: float, *, cache: str | BaseCache | None = None, key_prefix: str | None = None, tags: Tags = ()
) -> CachePage:
    """Store the view's responses for `timeout` seconds, whatever `max-age` they state; 0: do not store them.

        @app.get("/news")
        @cache_page(900)
        def news(): ...

    timeout     seconds
    cache       alias, URL or store; None: the site's, else the default of the environment
    key_prefix  a string that is part of the keys; None: the site's
    tags        names by which the pages can be purged: a list of strings, or a function of the view's arguments that
                returns one

    Under a `CacheMiddleware` with the same cache and key prefix, that middleware stores the page: before a hit, only
    what stands around the middleware runs. Otherwise the decorator stores it: login checks and before hooks that stand
    around the view run before each hit, too.

    A view whose pages are for some visitors only has to say so, by `vary_on_cookie`, `vary_on_headers("Authorization")`
    or `cache_control(private=True)`. A view that reads the session or the cookies varies on Cookie by itself. Responses
    with `no-store`, `private`, `Set-Cookie` or `Vary: *` are never stored.

    `stale-while-revalidate` has no effect where the decorator stores the page of a Starlette application that is
    mounted in another one: the next request fetches the page.

    Raises: ImproperlyConfigured for a wrong timeout, cache or key prefix; TypeError or ValueError for wrong tags;
    TypeError for an object that is not a view. For an unknown alias: ImproperlyConfigured at the first request, or at
    start-up with `CacheMW` or `lifespan`.
    """
    return CachePage(timeout, cache, key_prefix, tags)


# -- what headers say -------------------------------------------------------------------------------------------------


class Patching(ViewDecorator):
    """Changes the headers of every response of the view."""

    def __init__(self, name: str, patch: Callable[[Any], None], *, storing_depends: bool, doc: str = "") -> None:
        self.name = name
        self.__doc__ = doc or type(self).__doc__
        self.patch = patch
        self._storing_depends = storing_depends

    def check(self, view: Any) -> None:
        if self._storing_depends and hasattr(view, PAGE):
            raise TypeError(
                f"{self.name} is outside of cache_page on {describe(view)}: the page is stored before {self.name} has "
                f"its say. Write cache_page above {self.name}."
            )

    def around(self, call: Call) -> Any:
        response = call.response(call(), self.name)
        self.patch(response)
        return response

    async def around_async(self, call: Call) -> Any:
        response = call.response(await call(), self.name)
        self.patch(response)
        return response

    async def asgi(self, app: Any, scope: Any, receive: Any, send: Any) -> None:
        async def patched(message: Any) -> None:
            if message["type"] == "http.response.start":
                headers = RawFields((name, value) for name, value in message.get("headers", ()))
                self.patch(headers)
                message = {**message, "headers": [*headers]}
            await send(message)

        await app(scope, receive, patched)

    def wsgi(self, app: Any, environ: Any, start_response: Any) -> Iterable[bytes]:
        def start(status: str, headers: list[tuple[str, str]], *exc_info: Any) -> Any:
            headers = list(headers)
            self.patch(headers)
            return start_response(status, headers, *exc_info)

        return app(environ, start)  # type: ignore[no-any-return]


def cache_control(
    *, extensions: Mapping[str, str | int | bool] | None = None, **directives: Unpack[Directives]
) -> ViewDecorator:
    """Add directives to the Cache-Control field of the view's responses.

        @cache_control(max_age=60, public=True)
        def news(): ...

    Arguments: those of `patch_cache_control`. Raises: TypeError or ValueError for an unknown directive or a wrong
    value, when the view is decorated.
    """
    checked = dict(check_directives(directives, extensions))

    def patch(headers: Any) -> None:
        patch_cache_control(headers, extensions=extensions, **directives)

    forbids = any(checked.get(name) for name in ("no-store", "private", "no-cache"))
    return Patching("cache_control", patch, storing_depends=forbids)


never_cache: Final[ViewDecorator] = Patching(
    "never_cache",
    add_never_cache_headers,
    storing_depends=True,
    doc="Tell every cache not to store the view's responses; see `add_never_cache_headers`.",
)


def vary_on_headers(*names: str) -> ViewDecorator:
    """Add names of request fields to Vary: each value of these fields has a page of its own.

        @vary_on_headers("Accept-Language", "Authorization")
        def news(): ...

    Raises: TypeError without names, and for a name that cannot be a field's, when the view is decorated.
    """
    if not names:
        raise TypeError('vary_on_headers: name the request fields, as in vary_on_headers("Accept-Language").')
    for name in names:
        if not isinstance(name, str) or not is_token(name):
            raise TypeError(f"vary_on_headers: {name!r} is not the name of a request field, such as 'Accept-Language'.")

    def patch(headers: Any) -> None:
        patch_vary_headers(headers, names)

    return Patching("vary_on_headers", patch, storing_depends=True)


vary_on_cookie: Final[ViewDecorator] = Patching(
    "vary_on_cookie",
    lambda headers: patch_vary_headers(headers, ["Cookie"]),
    storing_depends=True,
    doc="Add Cookie to Vary: each value of the Cookie field has a page of its own.",
)


# -- the client's conditions ------------------------------------------------------------------------------------------

#: Functions of the view's arguments.
ETagFunction = Callable[..., str | Awaitable[str | None] | None]
LastModifiedFunction = Callable[..., datetime | float | Awaitable[datetime | float | None] | None]


class Conditional(ViewDecorator):
    """See `conditional`."""

    name = "conditional"

    def __init__(self, etag: ETagFunction | None, last_modified: LastModifiedFunction | None) -> None:
        self._etag = etag
        self._last_modified = last_modified
        self._is_async = any(function is not None and is_async(function) for function in (etag, last_modified))

    def check_whole(self, view: Any) -> None:
        raise _no_function(view)

    def check(self, view: Any) -> None:
        if self._is_async and not is_async(view):
            raise TypeError(f"conditional: {describe(view)} is a plain view, so its functions have to be plain, too.")

    def around(self, call: Call) -> Any:
        request, make = _asked(call)
        fields = self.validators(*call.args, **call.kwargs)
        short = short_answer(request, fields, make)
        return short or validated(request, call.response(call(), self.name), fields)

    async def around_async(self, call: Call) -> Any:
        request, make = _asked(call)
        fields = await self.avalidators(*call.args, **call.kwargs)
        short = short_answer(request, fields, make)
        return short or validated(request, call.response(await call(), self.name), fields)

    def validators(self, *args: Any, **kwargs: Any) -> Fields:
        """ETag and Last-Modified of the response that the view would return for these arguments."""
        return validators_of(
            self._etag and self._etag(*args, **kwargs), self._last_modified and self._last_modified(*args, **kwargs)
        )

    async def avalidators(self, *args: Any, **kwargs: Any) -> Fields:
        """`validators` for coroutine functions."""
        return validators_of(
            self._etag and await _awaited(self._etag(*args, **kwargs)),
            self._last_modified and await _awaited(self._last_modified(*args, **kwargs)),
        )

    async def asgi(self, app: Any, scope: Any, receive: Any, send: Any) -> None:
        raise _no_function(app)

    def wsgi(self, app: Any, environ: Any, start_response: Any) -> Iterable[bytes]:
        raise _no_function(app)


def _no_function(view: Any) -> TypeError:
    return TypeError(f"conditional decorates a function that returns a response; got {describe(view)}.")


def conditional(*, etag: ETagFunction | None = None, last_modified: LastModifiedFunction | None = None) -> Conditional:
    """Answer 304 or 412 without calling the view, if the client's conditions allow it (RFC 9110 §13).

        @conditional(etag=lambda id: str(version_of(id)))
        def article(id): ...

    etag           a function of the view's arguments; it returns an entity-tag ('"v1"', 'W/"v1"', or only the opaque
                   part, 'v1'), or None
    last_modified  a function of the view's arguments; it returns a datetime (without a time zone: UTC), seconds since
                   the epoch, or None

    Coroutine views may have coroutine functions. The responses to GET and HEAD get the values as ETag and
    Last-Modified, unless they have these fields. If all functions return None, the resource does not exist yet:
    `If-Match: *` fails then, and `If-None-Match: *` passes. For PUT and other methods that change something, If-Match
    and If-Unmodified-Since prevent lost updates.

    Raises: TypeError without a function, for anything that is not a function, and for coroutine functions on a plain
    view.
    """
    for function in (etag, last_modified):
        if function is not None and not callable(function):
            raise TypeError(f"conditional: a function of the view's arguments is expected; got {function!r}.")
    if etag is None and last_modified is None:
        raise TypeError("conditional: give etag=, last_modified= or both.")
    return Conditional(etag, last_modified)


async def _awaited(value: Any) -> Any:
    return await value if isawaitable(value) else value


def _asked(call: Call) -> tuple[Request, Any]:
    """The request, and the class of its framework's responses."""
    if call.starlette is not None:
        from starlette.responses import Response

        return ASGIRequest(call.starlette.scope), Response
    if call.request is None and in_flask():
        from flask import current_app
        from flask import request as flask_request

        return WSGIRequest(flask_request.environ), current_app.response_class
    raise TypeError(f"conditional: {describe(call.view)} was called without a request of Flask's or Starlette's.")
