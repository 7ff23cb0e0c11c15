"""LocaleMiddleware and TimezoneMiddleware: they choose a request's language and time zone before the cache looks up.

They stand between the two halves of the cache, and write the choice into the request's `Locale`, which both halves read
(see `cachemw.activation`). An application that chooses by itself calls `activate_language` and `activate_timezone`.

Rule 1: a visitor can choose only from the site's own lists (see `cachemw.negotiation`).
Rule 2: Vary names each request field that the choice came from, unless the choice itself is part of the page's key.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Awaitable, Callable, Iterable, Iterator, Mapping, Sequence
from types import EllipsisType
from typing import Any, AnyStr, Final, Generic, Literal, TypeVar

from cachemw._asgi.types import Message, Receive, Scope, Send
from cachemw.activation import KEY, Entered, Locale, enter, leave
from cachemw.caching import settings_of
from cachemw.calling import call, is_async
from cachemw.errors import ImproperlyConfigured
from cachemw.negotiation import LanguageChoice, TimezoneChoice
from cachemw.paths import below
from cachemw.rfc9111.fields import merge_vary
from cachemw.settings import Settings

__all__ = ["ASGILocaleMiddleware", "ASGITimezoneMiddleware", "WSGILocaleMiddleware", "WSGITimezoneMiddleware"]

WSGIApp = Callable[..., Iterable[bytes]]
ASGIApp = Callable[..., Awaitable[None]]
AppT = TypeVar("AppT")

_NAMES: Final = ("Vary", "Content-Language")
_RAW_NAMES: Final = (b"vary", b"content-language")  # ASGI: names are in lower case


def _patched(
    fields: Iterable[tuple[AnyStr, AnyStr]],
    names: tuple[AnyStr, AnyStr],
    text: Callable[[str], AnyStr],
    language: str | None,
    vary: Sequence[str],
) -> list[tuple[AnyStr, AnyStr]]:
    """The fields of a response, with Content-Language unless it has one, and with the names `vary` in Vary.

    names: of the two fields; text: makes a value as WSGI (str) or ASGI (bytes) has it.
    """
    vary_name, language_name = names[0].lower(), names[1].lower()
    kept: list[tuple[AnyStr, AnyStr]] = []
    lines: list[str] = []
    for field in fields:
        name = field[0].lower()
        if name == vary_name:
            lines.append(_decoded(field[1]))
        else:
            kept.append(field)
            if name == language_name:
                language = None
    if language is not None:
        kept.append((names[1], text(language)))
    if lines or vary:
        kept.append((names[0], text(merge_vary(lines, vary))))
    return kept


def _decoded(value: str | bytes) -> str:
    return value if isinstance(value, str) else value.decode("latin-1")


class _Middleware(Generic[AppT]):
    """What the WSGI and the ASGI middlewares share."""

    _names_language = False

    def __init__(self, app: AppT) -> None:
        self.app = app


class _ByLanguage(_Middleware[AppT]):
    """The options of the LocaleMiddlewares: what was passed, else what the settings say."""

    _names_language = True

    def __init__(
        self,
        app: AppT,
        *,
        languages: Iterable[str | tuple[str, str]] | None = None,
        default: str | None = None,
        cookie: str | EllipsisType | None = ...,
        path_prefix: Literal["keep", "strip"] | None = None,
        settings: Settings | Mapping[str, Any] | None = None,
    ) -> None:
        super().__init__(app)
        if languages is None or cookie is ...:
            said = settings_of(settings)
            if languages is None:
                if not said.languages:
                    raise ImproperlyConfigured(
                        "languages: the site's languages are missing; pass them, or set CACHEMW_LANGUAGES."
                    )
                languages, default = said.languages, default or said.language_code
            if cookie is ...:
                cookie = said.language_cookie
        self._choice = LanguageChoice(languages, default, cookie, path_prefix)


class _ByTimezone(_Middleware[AppT]):
    """The options of the TimezoneMiddlewares, likewise."""

    _async_choose = False

    def __init__(
        self,
        app: AppT,
        *,
        choose: Callable[[Any], Any] | None = None,
        cookie: str | None = "timezone",
        default: str | None = None,
        settings: Settings | Mapping[str, Any] | None = None,
    ) -> None:
        super().__init__(app)
        self._choice = TimezoneChoice(choose, cookie, settings_of(settings).time_zone if default is None else default)
        if choose is not None and is_async(choose) and not self._async_choose:
            raise ImproperlyConfigured(f"choose: {choose!r} is async, and the application is WSGI.")


# -- WSGI ---------------------------------------------------------------------------------------------------------


class _WSGIMiddleware(_Middleware[WSGIApp], ABC):
    """A subclass chooses; the choice is active until the body is closed."""

    @abstractmethod
    def _choose(self, environ: dict[str, Any], locale: Locale) -> tuple[str, ...]:
        """Write the choice into `locale`; returns the names for Vary."""

    def __call__(self, environ: dict[str, Any], start_response: Callable[..., Any]) -> Iterable[bytes]:
        token = enter(environ)
        locale: Locale = environ[KEY]

        def start(status: str, fields: list[tuple[str, str]], *exc_info: Any) -> Any:
            language = locale.language if self._names_language else None
            return start_response(status, _patched(fields, _NAMES, str, language, vary), *exc_info)

        try:
            vary = self._choose(environ, locale)
            body = self.app(environ, start)
        except BaseException:
            leave(token)
            raise
        wrapper = environ.get("wsgi.file_wrapper")
        if isinstance(body, list | tuple) or (isinstance(wrapper, type) and isinstance(body, wrapper)):
            leave(token)  # the application is done
            return body
        return _Body(body, token)


class _Body:
    """The body of a WSGI response: the application may still run while the server reads it."""

    def __init__(self, body: Iterable[bytes], token: Entered) -> None:
        self._body = body
        self._token: Entered | None = token

    def __iter__(self) -> Iterator[bytes]:
        return iter(self._body)

    def close(self) -> None:
        """Close the application's body, and deactivate the choice."""
        try:
            close = getattr(self._body, "close", None)
            if close is not None:
                close()
        finally:
            token, self._token = self._token, None
            if token is not None:
                leave(token)


class WSGILocaleMiddleware(_ByLanguage[WSGIApp], _WSGIMiddleware):
    """Choose the language of each request: from the path, a cookie, Accept-Language, or the default, in this order.

        app = UpdateCacheMiddleware(LocaleMiddleware(FetchFromCacheMiddleware(app), languages=["en", "pt-BR"]))

    languages    tags of the site's languages, or Django's pairs of tag and name; left out: the setting `languages`
    default      the language if the request asks for none of them; left out: the setting `language_code` if `languages`
                 is left out, too, else the first of `languages`
    cookie       name of the cookie that holds a visitor's choice; None: no cookie; left out: the setting
                 `language_cookie`
    path_prefix  "keep": the first segment of the path may be a language; the application routes it. "strip": the
                 segment is moved from `PATH_INFO` to `SCRIPT_NAME`; the application does not route it, and its URLs
                 have it. None: the path does not choose
    settings     a `Settings`, or a mapping in Django's shape; None: the environment's

    It stands between the two halves of the cache. It sets Content-Language unless the application does. Vary gets
    Accept-Language, and Cookie, too, unless the cache's key has the language (`use_i18n`); neither if the path has
    chosen.

    Raises: ImproperlyConfigured for options that cannot be used.
    """

    def _choose(self, environ: dict[str, Any], locale: Locale) -> tuple[str, ...]:
        choice = self._choice
        found = choice.in_path(environ.get("PATH_INFO", ""))
        if found is None:
            if not locale.settled:
                cookies, accepted = environ.get("HTTP_COOKIE", ""), environ.get("HTTP_ACCEPT_LANGUAGE", "")
                locale.language = choice.in_fields(cookies, accepted)
            return choice.vary(locale.keyed)
        locale.language, segment = found
        if choice.path_prefix == "strip":
            environ["SCRIPT_NAME"] = environ.get("SCRIPT_NAME", "") + segment
            environ["PATH_INFO"] = environ["PATH_INFO"][len(segment) :] or "/"
        return ()


class WSGITimezoneMiddleware(_ByTimezone[WSGIApp], _WSGIMiddleware):
    """Choose the time zone of each request: by a function, a cookie, or the default, in this order.

        app = UpdateCacheMiddleware(TimezoneMiddleware(FetchFromCacheMiddleware(app), default="Europe/Berlin"))

    choose    a function of werkzeug's `Request` that returns a zone's name, a `tzinfo`, or None: then the cookie counts
    cookie    name of the cookie that holds a zone's name, such as "Europe/Berlin"; None: no cookie
    default   name of the zone for other requests; left out: the setting `time_zone`
    settings  a `Settings`, or a mapping in Django's shape; None: the environment's

    It stands between the two halves of the cache. A name that is not a zone is ignored.
    Vary gets Cookie, unless the cache's key has the time zone (`use_tz`).

    Raises: ImproperlyConfigured for options that cannot be used, and for a coroutine function as `choose`.
    """

    def _choose(self, environ: dict[str, Any], locale: Locale) -> tuple[str, ...]:
        chosen = None
        if locale.settled:
            return self._choice.vary(locale.keyed)
        if self._choice.choose is not None:
            from werkzeug import Request

            chosen = self._choice.choose(Request(environ, populate_request=False, shallow=True))
        locale.timezone = self._choice.zone(chosen, environ.get("HTTP_COOKIE", ""))
        return self._choice.vary(locale.keyed)


# -- ASGI ---------------------------------------------------------------------------------------------------------


class _ASGIMiddleware(_Middleware[ASGIApp], ABC):
    """A subclass chooses; the choice is active while the application runs."""

    @abstractmethod
    async def _choose(self, scope: Scope, locale: Locale) -> tuple[Scope, tuple[str, ...]]:
        """Write the choice into `locale`; returns the scope for the application, and the names for Vary."""

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] not in ("http", "websocket"):
            await self.app(scope, receive, send)
            return
        token = enter(scope)
        locale: Locale = scope[KEY]
        try:
            scope, vary = await self._choose(scope, locale)

            async def patched(message: Message) -> None:
                if message["type"] == "http.response.start":
                    language = locale.language if self._names_language else None
                    fields = _patched(message.get("headers", ()), _RAW_NAMES, _raw, language, vary)
                    message = {**message, "headers": fields}
                await send(message)

            await self.app(scope, receive, patched)
        finally:
            leave(token)


def _raw(text: str) -> bytes:
    return text.encode("latin-1")


def _fields(scope: Scope) -> tuple[str, str]:
    """The values of Cookie and Accept-Language; several lines of one field are joined."""
    cookies, accepted = "", ""
    for name, value in scope["headers"]:
        if name == b"cookie":
            cookies = f"{cookies}; {value.decode('latin-1')}" if cookies else value.decode("latin-1")
        elif name == b"accept-language":
            accepted = f"{accepted}, {value.decode('latin-1')}" if accepted else value.decode("latin-1")
    return cookies, accepted


class ASGILocaleMiddleware(_ByLanguage[ASGIApp], _ASGIMiddleware):
    """`WSGILocaleMiddleware` for ASGI; `path_prefix="strip"` moves the segment to `root_path`."""

    async def _choose(self, scope: Scope, locale: Locale) -> tuple[Scope, tuple[str, ...]]:
        choice = self._choice
        root = scope.get("root_path", "").rstrip("/")
        within = below(root, scope["path"])
        found = choice.in_path(within)
        if found is None:
            if not locale.settled:
                locale.language = choice.in_fields(*_fields(scope))
            return scope, choice.vary(locale.keyed)
        locale.language, segment = found
        if choice.path_prefix == "strip":
            scope = {**scope, "root_path": root + segment}
            scope["path"] = root + within
        return scope, ()


class ASGITimezoneMiddleware(_ByTimezone[ASGIApp], _ASGIMiddleware):
    """`WSGITimezoneMiddleware` for ASGI; `choose` gets Starlette's `HTTPConnection`, and may be async."""

    _async_choose = True

    async def _choose(self, scope: Scope, locale: Locale) -> tuple[Scope, tuple[str, ...]]:
        chosen = None
        if locale.settled:
            return scope, self._choice.vary(locale.keyed)
        if self._choice.choose is not None:
            from starlette.requests import HTTPConnection

            chosen = await call(self._choice.choose, HTTPConnection(scope))
        locale.timezone = self._choice.zone(chosen, _fields(scope)[0])
        return scope, self._choice.vary(locale.keyed)
