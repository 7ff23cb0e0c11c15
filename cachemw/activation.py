"""The language and the time zone that are active for a request, and who gets to know of them.

Both may be part of a page's key (`use_i18n`, `use_tz`), so the two halves of the cache and the application have to see
the same choice, although the application may run in another context or thread. What travels is therefore one `Locale`
per request, a value that can change: it stands in `environ` or `scope` under `KEY`, and a context variable points to
it. `FetchFromCacheMiddleware` reads it when it looks a page up, `UpdateCacheMiddleware` when the response leaves.

Rule 1: nothing of one request's choice is left in the thread that serves the next: the choice stands in the request.
        Where none is known (a script, a worker of a queue) it is the context's, until it is taken back.
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
    """What was chosen for one request; None where nobody chose.

    `keyed` says which of the two the cache has in its keys: ":language", ":timezone" (`VaryIndex` names them so). The
    update half sets it; where it does not, the middlewares that choose name in Vary what decided.
    `settled` says that there is no choice: a background refresh is for whoever had these two.
    `entered` is 0 when its request is over.
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
        """A locale that is settled."""
        locale = cls()
        locale.language, locale.timezone, locale.settled = language, timezone, True
        return locale


#: Of the request that was entered, and of who is in none. A request never has the choice of those.
_current: Final[ContextVar[Locale | None]] = ContextVar("cachemw.locale", default=None)
_apart: Final[ContextVar[Locale | None]] = ContextVar("cachemw.locale.apart", default=None)
_was_apart = False  # anybody, ever, in this process


def is_awaited(keyed: Sequence[str]) -> bool:
    """Has a request to be entered: are these properties in its key, or may a choice be left from another request?"""
    return bool(keyed) or _was_apart


class Entered(NamedTuple):
    """What `leave` has to know."""

    locale: Locale
    token: Token[Locale | None]


def enter(state: MutableMapping[str, Any]) -> Entered:
    """Make the locale in this `environ` or `scope` the current one, putting a new one there if there is none.

    Whoever calls this calls `leave` with the answer when the request is over.
    """
    locale = state.get(KEY)
    if locale is None:
        state[KEY] = locale = Locale()
    locale.entered += 1
    return Entered(locale, _current.set(locale))


def leave(entered: Entered) -> None:
    """End what `enter` began, wherever that was: a server may close a body in another thread, or the outer one first.

    What then becomes the current locale again, or stays it, is over, and counts for nothing.
    """
    entered.locale.entered -= 1
    with suppress(ValueError):
        _current.reset(entered.token)


def _of_flask() -> MutableMapping[str, Any] | None:
    """The `environ` of Flask's request, which before functions have though nobody entered it; None without one."""
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
    """Make `tag` ("de", "pt-BR"; also "pt_BR", as Babel writes it) the language of the current request.

    With `use_i18n` it is part of the key under which the page is stored. Raises `ValueError` for what is no tag.
    """
    text = tag.replace("_", "-") if isinstance(tag, str) else ""
    if not LANGUAGE_TAG.fullmatch(text):
        raise ValueError(f"{tag!r} is no language tag such as 'de' or 'pt-BR' (RFC 5646).")
    _locale().language = text


def activate_timezone(zone: str | tzinfo) -> None:
    """Make `zone`, a name of the time zone database or a `tzinfo`, the time zone of the current request.

    With `use_tz` it is part of the key under which the page is stored. Raises `ValueError` for an unknown name.
    """
    if not isinstance(zone, tzinfo):
        try:
            zone = ZoneInfo(zone)
        except (ValueError, OSError, KeyError, TypeError):  # ZoneInfoNotFoundError is a KeyError
            raise ValueError(f"{zone!r} is no time zone such as 'Europe/Berlin'.") from None
    _locale().timezone = str(zone)


def deactivate_language() -> None:
    """Take the choice of a language back."""
    locale = _known()
    if locale is not None:
        locale.language = None


def deactivate_timezone() -> None:
    """Take the choice of a time zone back."""
    locale = _known()
    if locale is not None:
        locale.timezone = None


def get_language() -> str | None:
    """The tag of the current request's language, None if nobody chose one."""
    locale = _known()
    return None if locale is None else locale.language


def get_timezone() -> str | None:
    """The name of the current request's time zone, None if nobody chose one."""
    locale = _known()
    return None if locale is None else locale.timezone
