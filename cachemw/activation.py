"""The language and the time zone that are active for a request.

Both may be part of a page's key (`use_i18n`, `use_tz`), so the two halves of the cache and the application must see the
same choice, although the application may run in another context or thread. Therefore each request has one `Locale`, an
object that can change: it is in `environ` or `scope` under `KEY`, and a context variable points to it.
`FetchFromCacheMiddleware` reads it when it looks a page up, `UpdateCacheMiddleware` when the response leaves.

Rule 1: the choice belongs to the request, so the next request in the same thread does not see it. Without a request (in
        a script, or in a worker of a queue) it belongs to the context, until it is deactivated.
"""

from __future__ import annotations

import sys
from collections.abc import MutableMapping, Sequence
from contextlib import suppress
from contextvars import ContextVar, Token
from datetime import tzinfo
from typing import Any, Final, NamedTuple, Self
from zoneinfo import ZoneInfo

from cachemw.negotiation import LANGUAGE_TAG

__all__ = [
    "KEY",
    "Entered",
    "Locale",
    "activate_language",
    "activate_timezone",
    "deactivate_language",
    "deactivate_timezone",
    "enter",
    "get_language",
    "get_timezone",
    "is_awaited",
    "leave",
]

KEY: Final = "cachemw.locale"


class Locale:
    """The language and the time zone of one request; None: not chosen.

    keyed    which of the two are part of the cache's keys: ":language", ":timezone" (the names that `VaryIndex` uses).
             The update half sets it; the others are named in Vary by the middlewares that choose
    settled  true for a background refresh: it has the choice of the page, so the middlewares do not choose
    entered  how often the request is entered; 0: it is over
    """

    __slots__ = ("entered", "keyed", "language", "settled", "timezone")

    def __init__(self) -> None:
        self.language: str | None = None
        self.timezone: str | None = None
        self.keyed: Sequence[str] = ()
        self.settled = False
        self.entered = 0

    @classmethod
    def of(cls, language: str | None, timezone: str | None) -> Self:
        """A settled locale."""
        locale = cls()
        locale.language, locale.timezone, locale.settled = language, timezone, True
        return locale


#: The locale of the request that was entered, and that of code outside of requests. No request sees the latter.
_current: Final[ContextVar[Locale | None]] = ContextVar("cachemw.locale", default=None)
_apart: Final[ContextVar[Locale | None]] = ContextVar("cachemw.locale.apart", default=None)
_was_apart = False  # has code outside of requests ever chosen, in this process?


def is_awaited(keyed: Sequence[str]) -> bool:
    """Must requests be entered: are these properties in their keys, or has code outside of requests chosen?"""
    return bool(keyed) or _was_apart


class Entered(NamedTuple):
    """What `leave` needs."""

    locale: Locale
    token: Token[Locale | None]


def enter(state: MutableMapping[str, Any]) -> Entered:
    """Make the locale in this `environ` or `scope` the current one; without one, a new one is put there.

    The caller calls `leave` with the result when the request is over.
    """
    locale = state.get(KEY)
    if locale is None:
        state[KEY] = locale = Locale()
    locale.entered += 1
    return Entered(locale, _current.set(locale))


def leave(entered: Entered) -> None:
    """Undo `enter`, in any thread and any order: a server may close a body in another thread, or the outer one first.

    If the context variable then still points to the locale, that does no harm: the locale is over.
    """
    entered.locale.entered -= 1
    with suppress(ValueError):
        _current.reset(entered.token)


def _of_flask() -> MutableMapping[str, Any] | None:
    """The `environ` of Flask's current request, which may not be entered yet in before functions; None without one."""
    flask = sys.modules.get("flask")
    if flask is None or not flask.has_request_context():
        return None
    environ: MutableMapping[str, Any] = flask.request.environ
    return environ


def _known() -> Locale | None:
    environ = _of_flask()
    if environ is not None:
        return environ.get(KEY)
    current = _current.get()
    return _apart.get() if current is None or not current.entered else current


def _locale() -> Locale:
    global _was_apart
    locale = _known()
    if locale is None:
        locale = Locale()
        environ = _of_flask()
        if environ is not None:
            environ[KEY] = locale
        else:
            _was_apart = True
            _apart.set(locale)
    return locale


def activate_language(tag: str) -> None:
    """Make `tag` the language of the current request: "de", "pt-BR", or "pt_BR" as Babel writes it.

    With the setting `use_i18n` it is part of the page's key. Raises: ValueError if it is not a language tag.
    """
    text = tag.replace("_", "-") if isinstance(tag, str) else ""
    if not LANGUAGE_TAG.fullmatch(text):
        raise ValueError(f"{tag!r} is not a language tag such as 'de' or 'pt-BR' (RFC 5646).")
    _locale().language = text


def activate_timezone(zone: str | tzinfo) -> None:
    """Make `zone`, such as "Europe/Berlin" or a `tzinfo`, the time zone of the current request.

    With the setting `use_tz` it is part of the page's key. Raises: ValueError for an unknown name.
    """
    if not isinstance(zone, tzinfo):
        try:
            zone = ZoneInfo(zone)
        except (ValueError, OSError, KeyError, TypeError):  # ZoneInfoNotFoundError is a KeyError
            raise ValueError(f"{zone!r} is not a time zone such as 'Europe/Berlin'.") from None
    _locale().timezone = str(zone)


def deactivate_language() -> None:
    """Undo `activate_language`: the current request has no language then."""
    locale = _known()
    if locale is not None:
        locale.language = None


def deactivate_timezone() -> None:
    """Undo `activate_timezone`: the current request has no time zone then."""
    locale = _known()
    if locale is not None:
        locale.timezone = None


def get_language() -> str | None:
    """The tag of the current request's language; None if none was chosen."""
    locale = _known()
    return None if locale is None else locale.language


def get_timezone() -> str | None:
    """The name of the current request's time zone; None if none was chosen."""
    locale = _known()
    return None if locale is None else locale.timezone
