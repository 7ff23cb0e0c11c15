"""Django: the stores for its CACHES, and the page cache as its middleware.

    CACHES = {"default": {"BACKEND": "cachemw.integrations.django.RedisCache", "LOCATION": "redis://localhost:6379/0"}}

    MIDDLEWARE = [
        "cachemw.integrations.django.UpdateCacheMiddleware",
        …,  # sessions, locale, gzip
        "cachemw.integrations.django.FetchFromCacheMiddleware",
    ]

or `CacheMiddleware` for both at one place. Settings are Django's own (CACHES, CACHE_MIDDLEWARE_ALIAS, …_SECONDS,
…_KEY_PREFIX, USE_I18N, USE_TZ) and CACHEMW_…; what the project says comes before the environment. A page has the same
key as behind the other middlewares, so a Django site and, say, a Flask site that share a store, the key prefix and
these switches answer from each other's pages under one host. On Django's views, `cache_page` of cachemw tells this
cache how long.
`purge(request.build_absolute_uri(reverse("news")))` removes what is stored.

Rule 1: what Django's middlewares make of a response is what is stored; the client's conditions and range reach the
        views.
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
from django.http import HttpRequest, HttpResponse  # type: ignore[import-untyped]
from django.urls import get_script_prefix  # type: ignore[import-untyped]
from django.utils import timezone, translation  # type: ignore[import-untyped]
from django.utils.functional import LazyObject  # type: ignore[import-untyped]

from cachemw import asgi, purging, wsgi
from cachemw._asgi.passage import no_body, send_stored
from cachemw._asgi.request import sanitised
from cachemw._users import is_user
from cachemw._views.asgi import ViewPassage
from cachemw._views.page import EXCHANGE
from cachemw.activation import KEY as LOCALE
from cachemw.activation import Locale
from cachemw.asgi import ASGIRequest, Message
from cachemw.caching import Caching, log
from cachemw.headers import patch_vary_headers
from cachemw.integrations._django_backends import BACKENDS, django_cache, named
from cachemw.integrations._django_settings import options

__all__ = ["CacheMiddleware", "FetchFromCacheMiddleware", "UpdateCacheMiddleware", "apurge", "django_cache", "purge"]

_UNDER_WAY = "cachemw.django"  # the visitor's request, and what was given for it; `sanitised` leaves it out
_REFRESHING = "cachemw.refreshing"


def __getattr__(name: str) -> Any:
    """The stores: made when Django imports one, so that nobody needs the clients of the others."""
    if name not in BACKENDS:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    backend = globals()[name] = named(name)
    return backend


@lru_cache(maxsize=1)
def _caching(project: Any) -> Caching:
    """What the project's middlewares cache with; another one, as in a test, has settings of its own."""
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
    """The URLs; and as an ASGI server tells of them behind a proxy that takes FORCE_SCRIPT_NAME away."""
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
        self._too_early = False  # the language is chosen further in
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
        """A page that was looked up before LocaleMiddleware chose its language is found by those of another one."""
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
        environ = {**_environ(request), _UNDER_WAY: (request, given)}
        _tell_locale(request, environ)
        head: list[Any] = []

        def start(status: str, headers: list[tuple[str, str]], exc_info: Any = None, /) -> Callable[[bytes], object]:
            head[:] = int(status[:3]), status[4:], headers
            return _unused

        body = self._cache(environ, start)
        if given and not given[1].settled:
            return _patched(given[0], head[2], body)
        status, reason, fields = head
        try:
            return _made(status, reason, fields, b"".join(body))
        finally:
            getattr(body, "close", bool)()

    def _call_view(self, environ: dict[str, Any], start_response: Any) -> Iterable[bytes]:
        """The application of the middleware. A background refresh, for nobody in particular, has its own request."""
        request, given = environ.get(_UNDER_WAY) or (WSGIRequest(environ), [])
        exchange = request.META[EXCHANGE] = environ[EXCHANGE]
        knew_language = hasattr(request, "LANGUAGE_CODE")
        response = self.get_response(request)
        self._mind_language(request, exchange, knew_language)
        _tell_locale(request, environ)
        _mind_visitor(request, response, exchange)
        given[:] = response, exchange
        if response.streaming and response.is_async:  # not ours to wait for
            exchange.cannot_copy()
        start_response(f"{response.status_code} {response.reason_phrase}", _fields(response))
        if not response.streaming:
            return (response.content,)
        return () if response.is_async else response.streaming_content

    # -- tasks ------------------------------------------------------------------------------------------------------

    async def _answer_in_task(self, request: Any) -> Any:
        scope = dict(request.scope)
        if isinstance(scope.get("query_string"), str):  # as Django's own test client has it
            scope["query_string"] = scope["query_string"].encode()
        cache, asked = self._cache, ASGIRequest(scope)
        exchange = request.META.get(EXCHANGE) if not cache.updates else None
        if exchange is None or not exchange.admit(asked):
            exchange = cache.caching.exchange(asked)
        exchange.request = asked
        exchange.refreshing = _REFRESHING in request.META
        request.META[EXCHANGE] = exchange
        sent: list[Message] = []

        async def send(message: Message) -> None:
            sent.append(message)

        passage = ViewPassage(cache, scope, no_body(), send, exchange)
        passage.sent = sent
        _tell_locale(request, scope)
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
                return _from_messages(sent)
        knew_language = hasattr(request, "LANGUAGE_CODE")
        try:
            response = await self.get_response(request)
            self._mind_language(request, exchange, knew_language)
            _tell_locale(request, scope)
            _mind_visitor(request, response, exchange)
            if cache.updates and exchange.refresh:  # the inner half has answered
                self.refresh(request, scope, exchange)
            return await self._sent(passage, response)
        except BaseException as error:
            await passage.stand_in_for(error)
            return _from_messages(sent)

    def refresh(self, request: Any, scope: Any, exchange: Any) -> None:
        """Have a stale page made again in the background, for nobody in particular, by all that is further in."""
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
        headers = [(name.lower().encode("latin-1"), value.encode("latin-1")) for name, value in _fields(response)]
        if response.streaming and not response.is_async:  # Django reads it, later, in a thread
            passage.exchange.cannot_copy()
        await passage._sending({"type": "http.response.start", "status": response.status_code, "headers": headers})
        if passage._replaced:
            await passage._settle()
            return _from_messages(passage.sent)
        _set_fields(response, [(n.decode("latin-1"), v.decode("latin-1")) for n, v in passage.sent[0]["headers"]])
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


# -- requests and responses -------------------------------------------------------------------------------------------


def _environ(request: Any) -> dict[str, Any]:
    """The request's environment; made from its scope, if an ASGI request goes through plain middlewares."""
    scope = getattr(request, "scope", None)
    if scope is None:
        return dict(request.META)
    path = request.META["PATH_INFO"].encode().decode("latin-1")
    return {**request.META, "PATH_INFO": path, "wsgi.url_scheme": scope.get("scheme", "http")}


def _tell_locale(request: Any, state: Any) -> None:
    """Write down what is active; LocaleMiddleware leaves the language in the request."""
    locale = state.get(LOCALE)
    if locale is None:
        locale = state[LOCALE] = Locale()
    code = getattr(request, "LANGUAGE_CODE", None) or translation.get_language()
    locale.language = None if code is None else _tag(code)
    locale.timezone = timezone.get_current_timezone_name()


def _mind_visitor(request: Any, response: Any, exchange: Any) -> None:
    """Where sessions, messages, tokens and nonces are further out, they say too late that the page has them."""
    session, messages = getattr(request, "session", None), getattr(request, "_messages", None)
    if getattr(session, "modified", False) or request.META.get("CSRF_COOKIE_NEEDS_UPDATE"):
        exchange.never, exchange.detail = True, "set-cookie"
    user = vars(request).get("user")
    if not isinstance(user, LazyObject) and is_user(user):  # not by way of the session
        exchange.identified = True
    if getattr(request, "_csp_nonce", None):  # made, as the page has it: further out it is allowed, this time alone
        exchange.never, exchange.detail = True, "nonce"
    if "accepted_types" in vars(request):
        patch_vary_headers(response, ["Accept"])
    if getattr(messages, "added_new", False) or getattr(messages, "_loaded_data", None):
        exchange.never, exchange.detail = True, "session"
    if getattr(session, "accessed", False) or (session is not None and response.streaming):  # which may still read it
        patch_vary_headers(response, ["Cookie"])


class Project:
    """What those who are told of no cache ask of a request of the project: decorators, `get_cache_key` and the like."""

    def __init__(self, request: Any) -> None:
        self._request = request

    @property
    def exchange(self) -> Any:
        """The request's passage through one of our middlewares, if it came through one."""
        return self._request.META.get(EXCHANGE)

    @property
    def locale(self) -> Locale:
        """What is active."""
        state: dict[str, Locale] = {}
        _tell_locale(self._request, state)
        return state[LOCALE]

    @property
    def caching(self) -> Caching:
        """What the project's middlewares cache with. Raises: InvalidCacheBackendError if nothing can hold pages."""
        return _caching(django_settings._wrapped)


def project_of(request: Any) -> Project | None:
    """The project, if this is one of Django's requests, or one that Django REST framework made of it."""
    return Project(request) if isinstance(getattr(request, "_request", request), HttpRequest) else None


def _tag(code: str) -> str:
    """Django's "pt-br" and "zh-hans" as tags are usually written (RFC 5646 §2.1.1): "pt-BR", "zh-Hans"."""
    first, *rest = code.replace("_", "-").split("-")
    sizes = {2: str.upper, 4: str.title}
    return "-".join((first.lower(), *(sizes.get(len(part), str.lower)(part) for part in rest)))


def _fields(response: Any) -> list[tuple[str, str]]:
    cookies = (("Set-Cookie", cookie.output(header="").strip()) for cookie in response.cookies.values())
    return [*response.items(), *cookies]


def _set_fields(response: Any, fields: Iterable[tuple[str, str]]) -> None:
    """Make these the fields of the response; cookies are where Django keeps them."""
    combined: dict[str, tuple[str, str]] = {}
    for name, value in fields:
        known = combined.get(name.lower())
        combined[name.lower()] = (name, value if known is None else f"{known[1]}, {value}")
    combined.pop("set-cookie", None)
    for name in list(response.headers):
        if name.lower() not in combined:
            del response.headers[name]
    for name, value in combined.values():
        response.headers[name] = value


def _patched(response: Any, fields: Iterable[tuple[str, str]], body: Any) -> Any:
    """Django's response with the fields that left the cache, its body passing through it."""
    _set_fields(response, fields)
    if response.streaming and not response.is_async:
        response.streaming_content = body
        return response
    if not response.streaming:
        for _ in body:  # the content, which is copied aside
            pass
    getattr(body, "close", bool)()
    return response


def _made(status: int, reason: str, fields: Iterable[tuple[str, str]], content: bytes) -> HttpResponse:
    """A stored response as Django's."""
    response = HttpResponse(content, status=status, reason=reason or None)
    fields = list(fields)
    _set_fields(response, fields)
    for name, value in fields:
        if name.lower() == "set-cookie":
            response.cookies.load(value)
    return response


def _from_messages(sent: list[Message]) -> HttpResponse:
    fields = [(name.decode("latin-1"), value.decode("latin-1")) for name, value in sent[0]["headers"]]
    return _made(sent[0]["status"], "", fields, b"".join(message.get("body", b"") for message in sent[1:]))
