"""Django: the stores for its CACHES, and the page cache as its middleware.

    CACHES = {"default": {"BACKEND": "cachemw.integrations.django.RedisCache", "LOCATION": "redis://localhost:6379/0"}}

    MIDDLEWARE = [
        "cachemw.integrations.django.UpdateCacheMiddleware",
        …,  # sessions, locale, gzip
        "cachemw.integrations.django.FetchFromCacheMiddleware",
    ]

or `CacheMiddleware` for both at one place. Settings are Django's own (CACHES, CACHE_MIDDLEWARE_ALIAS, …_SECONDS,
…_KEY_PREFIX, USE_I18N, USE_TZ) and CACHEMW_…; the project's settings come before the environment. On Django's views,
`cache_page` of cachemw tells this cache how long to keep the page. `purge(request.build_absolute_uri(reverse("news")))`
removes a stored page.

The keys of pages are those of the other middlewares. So a Django site and a Flask site under one host answer from each
other's pages if they share the store, the key prefix and the two switches.

Rule 1: the response is stored as it is when it has passed Django's middlewares; the views get the client's conditions
        and range.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Iterable, Sequence
from functools import lru_cache
from io import BytesIO
from typing import Any
from urllib.parse import urlsplit

from asgiref.sync import ThreadSensitiveContext, iscoroutinefunction, markcoroutinefunction
from django.conf import settings as django_settings  # type: ignore[import-untyped]
from django.core.handlers.wsgi import WSGIRequest  # type: ignore[import-untyped]
from django.http import HttpRequest  # type: ignore[import-untyped]
from django.urls import get_script_prefix  # type: ignore[import-untyped]

from cachemw import asgi, purging, wsgi
from cachemw._asgi.replies import no_body, send_stored
from cachemw._asgi.request import decoded, encoded, own_copy, sanitised
from cachemw._views.asgi import ViewPassage
from cachemw._views.page import EXCHANGE
from cachemw.activation import KEY as LOCALE
from cachemw.activation import Locale
from cachemw.asgi import ASGIRequest, Message
from cachemw.caching import Caching, log
from cachemw.integrations._django_backends import BACKENDS, django_cache, named
from cachemw.integrations._django_messages import (
    environ_of,
    fields_of,
    from_messages,
    mind_visitor,
    patched,
    set_fields,
    stored_response,
    tell_locale,
)
from cachemw.integrations._django_settings import options

__all__ = ["CacheMiddleware", "FetchFromCacheMiddleware", "UpdateCacheMiddleware", "apurge", "django_cache", "purge"]

_UNDER_WAY = "cachemw.django"  # the visitor's request, and the view's answer; a refresh does not get it
_REFRESHING = "cachemw.refreshing"


def __getattr__(name: str) -> Any:
    """The stores: each is imported when Django asks for it, so that the others' client libraries are not needed."""
    if name not in BACKENDS:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    backend = globals()[name] = named(name)
    return backend


@lru_cache(maxsize=1)
def _caching(project: Any) -> Caching:
    """What the project's middlewares cache with. `project` is the settings object, another one where a test sets it."""
    return Caching(**options())


def purge(*urls: str, tags: Iterable[str] | None = None, soft: bool = False) -> int:
    """Remove stored pages of the project by absolute URL or by tag; see `cachemw.purge`.

    purge(request.build_absolute_uri(reverse("news")))
    """
    caching = _caching(django_settings._wrapped)
    return purging.purge(*_spellings(urls), tags=tags, soft=soft, caching=caching, mounts=_mounts())


async def apurge(*urls: str, tags: Iterable[str] | None = None, soft: bool = False) -> int:
    """`purge` for coroutine views."""
    caching = _caching(django_settings._wrapped)
    return await purging.apurge(*_spellings(urls), tags=tags, soft=soft, caching=caching, mounts=_mounts())


def _spellings(urls: Sequence[str]) -> list[str]:
    """The URLs, and the same without FORCE_SCRIPT_NAME: as an ASGI server sees them behind a proxy that removes it."""
    forced = (django_settings.FORCE_SCRIPT_NAME or "").rstrip("/")
    parts = [urlsplit(url) for url in urls if forced]
    within = [one for one in parts if one.path.startswith(f"{forced}/")]
    return [*urls, *(one._replace(path=one.path.removeprefix(forced)).geturl() for one in within)]


def _mounts() -> tuple[str, ...]:
    prefix = get_script_prefix().rstrip("/")
    return (prefix,) if prefix else ()


class _Middleware:
    """A Django middleware around one of ours, for both of its interfaces."""

    sync_capable = async_capable = True
    _wsgi: type[Any]
    _asgi: type[Any]

    def __init__(self, get_response: Callable[[Any], Any]) -> None:
        self.get_response = get_response
        self._in_tasks = iscoroutinefunction(get_response)
        self._cache: Any = (
            self._asgi(_call_view_in_task, **options()) if self._in_tasks else self._wsgi(self._call_view, **options())
        )
        self._too_early = False  # this middleware stands before LocaleMiddleware, and does nothing
        if self._in_tasks:
            markcoroutinefunction(self)

    def __call__(self, request: Any) -> Any:
        if self._too_early:
            return self.get_response(request)
        return self._answer_in_task(request) if self._in_tasks else self._answer(request)

    @property
    def caching(self) -> Caching:
        """What pages are cached with, for `purge(caching=…)`."""
        caching: Caching = self._cache.caching
        return caching

    def _mind_language(self, request: Any, exchange: Any, knew: bool) -> None:
        """Do not store a page that was looked up before LocaleMiddleware chose its language, and switch off."""
        if knew or not hasattr(request, "LANGUAGE_CODE") or not self._cache.fetches or not exchange.engine.i18n:
            return
        exchange.never, exchange.detail = True, "language"
        self._too_early = True
        log.error(
            "%s caches nothing: it comes before LocaleMiddleware, and cannot know the language of a page. Put it after "
            "that in MIDDLEWARE, or UpdateCacheMiddleware first and FetchFromCacheMiddleware last.",
            type(self).__name__,
        )

    # -- threads ----------------------------------------------------------------------------------------------------

    def _answer(self, request: Any) -> Any:
        given: list[Any] = []
        environ = {**environ_of(request), _UNDER_WAY: (request, given)}
        tell_locale(request, environ)
        head: list[Any] = []

        def start(status: str, headers: list[tuple[str, str]], exc_info: Any = None, /) -> Callable[[bytes], object]:
            head[:] = int(status[:3]), status[4:], headers
            return _unused

        body = self._cache(environ, start)
        if given and not given[1].settled:
            return patched(given[0], head[2], body)
        status, reason, fields = head
        try:
            return stored_response(status, reason, fields, b"".join(body))
        finally:
            getattr(body, "close", bool)()

    def _call_view(self, environ: dict[str, Any], start_response: Any) -> Iterable[bytes]:
        """The application of the middleware. A background refresh has no visitor, and gets a request of its own."""
        request, given = environ.get(_UNDER_WAY) or (WSGIRequest(environ), [])
        exchange = request.META[EXCHANGE] = environ[EXCHANGE]
        knew_language = hasattr(request, "LANGUAGE_CODE")
        response = self.get_response(request)
        self._mind_language(request, exchange, knew_language)
        tell_locale(request, environ)
        mind_visitor(request, response, exchange)
        given[:] = response, exchange
        if response.streaming and response.is_async:  # not ours to wait for
            exchange.cannot_copy()
        start_response(f"{response.status_code} {response.reason_phrase}", fields_of(response))
        if not response.streaming:
            return (response.content,)
        return () if response.is_async else response.streaming_content

    # -- tasks ------------------------------------------------------------------------------------------------------

    async def _answer_in_task(self, request: Any) -> Any:
        scope = own_copy(request.scope)
        cache, asked = self._cache, ASGIRequest(scope)
        exchange = request.META.get(EXCHANGE) if not cache.updates else None
        if exchange is None or not exchange.admit(asked):
            exchange = cache.caching.exchange(asked)
            exchange.outer = outer = request.META.get(EXCHANGE) or scope.get(EXCHANGE)
            if outer is not None and cache.updates:
                asked.first.before = outer.request
        exchange.request = asked
        exchange.refreshing = _REFRESHING in request.META
        request.META[EXCHANGE] = exchange
        sent: list[Message] = []

        async def send(message: Message) -> None:
            sent.append(message)

        passage = ViewPassage(cache, scope, no_body(), send, exchange)
        passage.sent = sent
        tell_locale(request, scope)
        if not cache.fetches:
            exchange.outer_half = passage  # which lands the flights of the inner half
        else:
            await cache.begin(exchange, asked)
            if not exchange.settled:
                await passage.board()
            if exchange.settled:
                if not sent:
                    await send_stored(exchange, send)
                if cache.updates and exchange.refresh:
                    self.refresh(request, scope, exchange)
                return from_messages(sent)
        knew_language = hasattr(request, "LANGUAGE_CODE")
        try:
            response = await self.get_response(request)
            self._mind_language(request, exchange, knew_language)
            tell_locale(request, scope)
            told = exchange
            while told is not None:  # a cache around this one may store what this one refuses
                mind_visitor(request, response, told)
                told = told.outer
            if cache.updates and exchange.refresh:  # the inner half has answered
                self.refresh(request, scope, exchange)
            return await self._sent(passage, response)
        except BaseException as error:
            await passage.stand_in_for(error)
            return from_messages(sent)

    def refresh(self, request: Any, scope: Any, exchange: Any) -> None:
        """Make a stale page again in the background, without a visitor, by the middlewares and the view further in."""
        exchange.refresh = False
        plain = sanitised(scope)

        async def work() -> None:
            asked = type(request)(plain, BytesIO())
            asked.META[_REFRESHING] = True
            async with ThreadSensitiveContext():
                response = await self._answer_in_task(asked)
                if response.streaming:
                    async for _ in response:
                        pass

        self._cache.refresher.start(exchange.primary, work, plain["path"])

    async def _sent(self, passage: ViewPassage, response: Any) -> Any:
        headers = [encoded(*field) for field in fields_of(response)]
        if response.streaming and not response.is_async:  # Django reads it later, in a thread
            passage.exchange.cannot_copy()
        passage._ahead = None if response.streaming else response.content
        await passage._sending({"type": "http.response.start", "status": response.status_code, "headers": headers})
        if passage._replaced:
            await passage._settle()
            return from_messages(passage.sent)
        set_fields(response, decoded(passage.sent[0]["headers"]))
        if not response.streaming:
            await passage._sending({"type": "http.response.body", "body": response.content})
        elif response.is_async:
            response.streaming_content = _relayed(passage, response.streaming_content)
        else:
            passage._drop()
            await passage._settle()
        return response


async def _relayed(passage: ViewPassage, parts: AsyncIterator[bytes]) -> AsyncIterator[bytes]:
    """The parts of a stream, copied aside as they pass."""
    try:
        async for part in parts:
            await passage._sending({"type": "http.response.body", "body": part, "more_body": True})
            passage.sent.clear()
            yield part
        await passage._sending({"type": "http.response.body"})
    finally:
        if not passage._complete:
            passage.exchange.abandoned()
        await passage._settle()


async def _call_view_in_task(scope: Any, receive: Any, send: Any) -> None:
    """Django calls its views itself."""


def _unused(data: bytes) -> None:
    """The `write` of PEP 3333, which no response of Django's calls."""


class CacheMiddleware(_Middleware):
    """Both halves of the cache at one place of MIDDLEWARE."""

    _wsgi, _asgi = wsgi.CacheMiddleware, asgi.CacheMiddleware


class UpdateCacheMiddleware(_Middleware):
    """The outer half: the first of MIDDLEWARE."""

    _wsgi, _asgi = wsgi.UpdateCacheMiddleware, asgi.UpdateCacheMiddleware


class FetchFromCacheMiddleware(_Middleware):
    """The inner half: the last of MIDDLEWARE."""

    _wsgi, _asgi = wsgi.FetchFromCacheMiddleware, asgi.FetchFromCacheMiddleware


class Project:
    """A request of the project, for functions that are not told which cache to use, such as `get_cache_key`."""

    def __init__(self, request: Any) -> None:
        self._request = request

    @property
    def exchange(self) -> Any:
        """The request's passage through one of our middlewares, if it came through one."""
        return self._request.META.get(EXCHANGE)

    @property
    def locale(self) -> Locale:
        """The active language and time zone."""
        state: dict[str, Locale] = {}
        tell_locale(self._request, state)
        return state[LOCALE]

    @property
    def caching(self) -> Caching:
        """What the project's middlewares cache with. Raises: InvalidCacheBackendError if nothing can hold pages."""
        return _caching(django_settings._wrapped)


def project_of(request: Any) -> Project | None:
    """The project, if this is a request of Django's or of Django REST framework's; else None."""
    return Project(request) if isinstance(getattr(request, "_request", request), HttpRequest) else None
