"""LocaleMiddleware and TimezoneMiddleware: the language and the time zone of a request, known before the cache looks.

They stand between the two halves of the cache, and tell them by the request's `Locale` (see `cachemw.activation`);
applications that choose by themselves call `activate_language` and `activate_timezone` instead.

Rule 1: a visitor's text never chooses anything but a member of a list that the site has (see `cachemw.negotiation`).
Rule 2: a response that depends on a field of the request says so in Vary, unless the key has what the field decides.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Awaitable, Callable, Iterable, Iterator, Mapping, Sequence
from datetime import tzinfo
from types import EllipsisType
from typing import Any, AnyStr, Final, Literal

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

_NAMES: Final = ("Vary", "Content-Language")
_RAW_NAMES: Final = (b"vary", b"content-language")  # ASGI: names are in lower case


def _patched(
    fields: Iterable[tuple[AnyStr, AnyStr]],
    names: tuple[AnyStr, AnyStr],
    text: Callable[[str], AnyStr],
    language: str | None,
    vary: Sequence[str],
) -> list[tuple[AnyStr, AnyStr]]:
    """The fields of a response with Content-Language, unless it has one, and with these names in Vary.

    `names` are those of Vary and Content-Language, `text` makes a value of the kind that WSGI or ASGI wants.
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


def _language_choice(
    languages: Iterable[str | tuple[str, str]] | None,
    default: str | None,
    cookie: str | EllipsisType | None,
    path_prefix: Literal["keep", "strip"] | None,
    settings: Settings | Mapping[str, Any] | None,
) -> LanguageChoice:
    """What was passed, and what the settings say where something was left out."""
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
    return LanguageChoice(languages, default, cookie, path_prefix)


def _timezone_choice(
    choose: Callable[[Any], Any] | None,
    cookie: str | None,
    default: str | None,
    settings: Settings | Mapping[str, Any] | None,
) -> TimezoneChoice:
    """The same for time zones."""
    return TimezoneChoice(choose, cookie, settings_of(settings).time_zone if default is None else default)


# -- WSGI ---------------------------------------------------------------------------------------------------------


class _WSGIMiddleware(ABC):
    """Has a subclass choose, and keeps the choice current until the body is closed."""

    _names_language = False

    def __init__(self, app: Callable[..., Iterable[bytes]]) -> None:
        self.app = app

    @abstractmethod
    def _choose(self, environ: dict[str, Any], locale: Locale) -> tuple[str, ...]:
        """Put the choice into `locale`; returns what to name in Vary."""

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
            leave(token)  # nothing of the application runs any more
            return body
        return _Body(body, token)


class _Body:
    """The body of a WSGI response that may still be in the making."""

    def __init__(self, body: Iterable[bytes], token: Entered) -> None:
        self._body = body
        self._token: Entered | None = token

    def __iter__(self) -> Iterator[bytes]:
        return iter(self._body)

    def close(self) -> None:
        """Close the application's body, and end the request's locale."""
        try:
            close = getattr(self._body, "close", None)
            if close is not None:
                close()
        finally:
            token, self._token = self._token, None
            if token is not None:
                leave(token)


class WSGILocaleMiddleware(_WSGIMiddleware):
    """Chooses the language of each request: from the path, a cookie, Accept-Language, or the default, in this order.

    Stands between the two halves of the cache. Sets Content-Language where the application does not, and names in Vary
    what decided.

    languages    the tags of the site's languages, such as ["en", "pt-BR"], or Django's pairs of tag and name; left out:
                 the settings' `languages`
    default      the one for everybody else; left out: the settings' `language_code` if the languages are theirs too,
                 else the first of `languages`
    cookie       name of the cookie that a language switch sets; left out: the settings' `language_cookie`; None: no
                 cookie
    path_prefix  "keep": the first segment of the path may be a language, and the application routes it; "strip": the
                 same, and the segment goes from `PATH_INFO` to `SCRIPT_NAME`, so that the application's own URLs have
                 it; None: paths say nothing
    settings     a `Settings`, or a mapping in Django's shape; None: the environment's

    Caches further out, which have no key but the URL and Vary, are told of Accept-Language alone where our key has the
    language, as by Django; with `path_prefix` they need not be told. Raises `ImproperlyConfigured`.
    """

    _names_language = True

    def __init__(
        self,
        app: Callable[..., Iterable[bytes]],
        *,
        languages: Iterable[str | tuple[str, str]] | None = None,
        default: str | None = None,
        cookie: str | EllipsisType | None = ...,
        path_prefix: Literal["keep", "strip"] | None = None,
        settings: Settings | Mapping[str, Any] | None = None,
    ) -> None:
        super().__init__(app)
        self._choice = _language_choice(languages, default, cookie, path_prefix, settings)

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


class WSGITimezoneMiddleware(_WSGIMiddleware):
    """Chooses the time zone of each request: by a function of the werkzeug `Request`, a cookie, or the default.

    Stands between the two halves of the cache.

    choose   a function of the request that returns a name, a `tzinfo`, or None to leave it to the cookie
    cookie   name of the cookie that has the name of a zone, such as "Europe/Berlin"; None: no cookie
    default  the name for everybody else; left out: the settings' `time_zone`
    settings a `Settings`, or a mapping in Django's shape; None: the environment's

    What is no zone counts as not said. Where the key does not have the zone, Vary names Cookie. Raises
    `ImproperlyConfigured`.
    """

    def __init__(
        self,
        app: Callable[..., Iterable[bytes]],
        *,
        choose: Callable[[Any], str | tzinfo | None] | None = None,
        cookie: str | None = "timezone",
        default: str | None = None,
        settings: Settings | Mapping[str, Any] | None = None,
    ) -> None:
        super().__init__(app)
        self._choice = _timezone_choice(choose, cookie, default, settings)
        if choose is not None and is_async(choose):
            raise ImproperlyConfigured(f"choose: {choose!r} is async, and the application is WSGI.")

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


class _ASGIMiddleware(ABC):
    """Has a subclass choose, and keeps the choice current while the application runs."""

    _names_language = False

    def __init__(self, app: Callable[..., Awaitable[None]]) -> None:
        self.app = app

    @abstractmethod
    async def _choose(self, scope: Scope, locale: Locale) -> tuple[Scope, tuple[str, ...]]:
        """Put the choice into `locale`; returns the scope for the application, and what to name in Vary."""

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
    """Cookie and Accept-Language, each of which may come in several lines."""
    cookies, accepted = "", ""
    for name, value in scope["headers"]:
        if name == b"cookie":
            cookies = f"{cookies}; {value.decode('latin-1')}" if cookies else value.decode("latin-1")
        elif name == b"accept-language":
            accepted = f"{accepted}, {value.decode('latin-1')}" if accepted else value.decode("latin-1")
    return cookies, accepted


class ASGILocaleMiddleware(_ASGIMiddleware):
    """`WSGILocaleMiddleware` for ASGI; with `path_prefix="strip"` the language goes to `root_path`."""

    _names_language = True

    def __init__(
        self,
        app: Callable[..., Awaitable[None]],
        *,
        languages: Iterable[str | tuple[str, str]] | None = None,
        default: str | None = None,
        cookie: str | EllipsisType | None = ...,
        path_prefix: Literal["keep", "strip"] | None = None,
        settings: Settings | Mapping[str, Any] | None = None,
    ) -> None:
        super().__init__(app)
        self._choice = _language_choice(languages, default, cookie, path_prefix, settings)

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


class ASGITimezoneMiddleware(_ASGIMiddleware):
    """`WSGITimezoneMiddleware` for ASGI; the function gets Starlette's connection, and may be async."""

    def __init__(
        self,
        app: Callable[..., Awaitable[None]],
        *,
        choose: Callable[[Any], Any] | None = None,
        cookie: str | None = "timezone",
        default: str | None = None,
        settings: Settings | Mapping[str, Any] | None = None,
    ) -> None:
        super().__init__(app)
        self._choice = _timezone_choice(choose, cookie, default, settings)

    async def _choose(self, scope: Scope, locale: Locale) -> tuple[Scope, tuple[str, ...]]:
        chosen = None
        if locale.settled:
            return scope, self._choice.vary(locale.keyed)
        if self._choice.choose is not None:
            from starlette.requests import HTTPConnection

            chosen = await call(self._choice.choose, HTTPConnection(scope))
        locale.timezone = self._choice.zone(chosen, _fields(scope)[0])
        return scope, self._choice.vary(locale.keyed)
