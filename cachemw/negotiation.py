"""Chooses the language and the time zone of a request: by path, cookie, Accept-Language, a function, or a default.

Rule 1: for every request the choice is from the site's lists: a configured language, in its configured spelling, or a
        zone of the time zone database.
Rule 2: the time is linear and bounded: of a long Accept-Language only the first kilobyte is read.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Sequence
from datetime import tzinfo
from typing import Any, Final, Literal
from urllib.parse import unquote
from zoneinfo import available_timezones

from cachemw.errors import ImproperlyConfigured
from cachemw.rfc9111.fields import is_token

__all__ = ["LANGUAGE_TAG", "Cookie", "LanguageChoice", "Languages", "TimezoneChoice", "tag_of"]

LANGUAGE_TAG: Final = re.compile(r"[A-Za-z]{1,8}(?:-[A-Za-z0-9]{1,8}){0,7}")
_RANGE: Final = re.compile(
    r"""[ \t]*+(\*|[A-Za-z]{1,8}(?:-[A-Za-z0-9]{1,8}){0,7})   # language-range, RFC 4647 §2.1
        (?:[ \t]*+;[ \t]*+[qQ]=(0(?:\.[0-9]{0,3})?|1(?:\.0{0,3})?))?[ \t]*+""",  # weight, RFC 9110 §12.4.2
    re.VERBOSE,
)
_MAX_FIELD: Final = 1000  # characters of Accept-Language that count (Django: 500)
_MEMO: Final = 1024  # field values whose answers are remembered


def tag_of(language: Any) -> Any:
    """The tag, given as itself or in Django's pair of tag and name."""
    return language[0] if isinstance(language, list | tuple) and len(language) == 2 else language


class Languages:
    """The languages of a site. The default language is `default`, or the first one.

    A more special default means the language in the list: "en-us" means "en", as in Django.

    Raises: ImproperlyConfigured for an empty list, for a text that is no language tag, and for a default that is not in
    the list.
    """

    __slots__ = ("_memo", "_tags", "default", "tags")

    def __init__(self, languages: Iterable[str | tuple[str, str]], default: str | None = None) -> None:
        tags: tuple[str, ...] = () if isinstance(languages, str) else tuple(map(tag_of, languages))
        if not tags or not all(isinstance(tag, str) and LANGUAGE_TAG.fullmatch(tag) for tag in tags):
            raise ImproperlyConfigured(
                f"languages: a list of tags such as ['en', 'pt-BR'] is expected; got {languages!r}."
            )
        self._tags = {tag.lower(): tag for tag in tags}
        self.tags = tuple(self._tags.values())
        found = tags[0] if default is None else self.best_for(str(default))
        if found is None:
            raise ImproperlyConfigured(f"default: {default!r} is not one of the languages {', '.join(self.tags)}.")
        self.default = self._tags[found.lower()]
        self._memo: dict[str, str] = {}

    def exactly(self, text: str) -> str | None:
        """The language with this tag, in any case; None if there is none."""
        return self._tags.get(text.lower())

    def best_for(self, text: str) -> str | None:
        """The language for a tag or range; "de-AT-1996" falls back to "de-AT", then to "de"; None if there is none."""
        return self._lookup(text.lower(), frozenset()) if LANGUAGE_TAG.fullmatch(text) else None

    def accepted(self, accept_language: str) -> str:
        """The language for an Accept-Language field.

        The ranges are looked up in the order of their weights (RFC 4647 §3.4). If none is found, which the standard
        leaves to the site: first a language that is more special than a range ("zh-Hans" for "zh"), then the default
        unless the request refuses it by "q=0", then the first language that is not refused, then the default.
        """
        answer = self._memo.get(accept_language)
        if answer is None:
            answer = self._accepted(accept_language)
            if len(accept_language) <= _MAX_FIELD:
                if len(self._memo) >= _MEMO:
                    self._memo = {}
                self._memo[accept_language] = answer
        return answer

    def _accepted(self, accept_language: str) -> str:
        weights = _weights(accept_language)
        ranges = [each for each, weight in sorted(weights.items(), key=lambda item: -item[1]) if weight and each != "*"]
        refused = frozenset(tag for tag in self._tags if _weight(tag, weights) == 0)
        for each in ranges:
            if (tag := self._lookup(each, refused)) is not None:
                return tag
        welcome = [tag for tag in self._tags if tag not in refused]
        for each in ranges:
            for tag in welcome:
                if tag.startswith(each + "-"):
                    return self._tags[tag]
        return self.default if self.default.lower() in welcome or not welcome else self._tags[welcome[0]]

    def _lookup(self, text: str, refused: frozenset[str]) -> str | None:
        """Look up by RFC 4647 §3.4: remove subtags from the end; a single letter goes with the subtag after it."""
        while text:
            if text in self._tags and text not in refused:
                return self._tags[text]
            text = text.rpartition("-")[0]
            if text[-2:-1] == "-":
                text = text[:-2]
        return None


def _weights(accept_language: str) -> dict[str, float]:
    """The ranges in lower case, in order, with their weights; other members are left out."""
    if len(accept_language) > _MAX_FIELD:
        accept_language = accept_language[:_MAX_FIELD].rpartition(",")[0]
    weights: dict[str, float] = {}
    for member in accept_language.split(","):
        if match := _RANGE.fullmatch(member):
            weights.setdefault(match[1].lower(), float(match[2] or 1))
    return weights


def _weight(tag: str, weights: dict[str, float]) -> float:
    """The weight of the most special range that matches the tag."""
    while tag:
        if tag in weights:
            return weights[tag]
        tag = tag.rpartition("-")[0]
    return weights.get("*", 1.0)


class Cookie:
    """Reads a cookie from a Cookie field; of several with this name the first, which is the most special one.

    Raises: ImproperlyConfigured for a text that cannot be a cookie's name (a token, RFC 6265 §4.1.1).
    """

    __slots__ = ("_search", "name")

    def __init__(self, name: str) -> None:
        if not isinstance(name, str) or not is_token(name):
            raise ImproperlyConfigured(f"cookie: {name!r} cannot be the name of a cookie.")
        self.name = name
        self._search = re.compile(rf"(?:\A|;)[ \t]*+{re.escape(name)}=([^;]*+)").search

    def value(self, field: str) -> str | None:
        """The cookie's value, without quotes and percent-encoding; None if the field does not have the cookie."""
        match = self._search(field) if field else None
        return unquote(match[1].strip(' \t"')) if match else None


class LanguageChoice:
    """How a LocaleMiddleware chooses; for the options see there."""

    def __init__(
        self,
        languages: Iterable[str | tuple[str, str]],
        default: str | None,
        cookie: str | None,
        path_prefix: Literal["keep", "strip"] | None,
    ) -> None:
        if path_prefix not in ("keep", "strip", None):
            raise ImproperlyConfigured(f"path_prefix: {path_prefix!r} is neither 'keep' nor 'strip' nor None.")
        self.languages = Languages(languages, default)
        self.cookie = None if cookie is None else Cookie(cookie)
        self.path_prefix = path_prefix

    def in_path(self, path: str) -> tuple[str, str] | None:
        """The language in the first segment of the path, and this segment with its slash."""
        if self.path_prefix is None:
            return None
        segment = path[1:].partition("/")[0]
        language = self.languages.exactly(segment)
        return None if language is None else (language, "/" + segment)

    def in_fields(self, cookies: str, accept_language: str) -> str:
        """The language by the Cookie and Accept-Language fields."""
        if self.cookie is not None and (value := self.cookie.value(cookies)):
            language = self.languages.best_for(value)
            if language is not None:
                return language
        return self.languages.accepted(accept_language)

    def vary(self, keyed: Sequence[str]) -> tuple[str, ...]:
        """The names for Vary if the path has not chosen. keyed: the properties in the key of our cache.

        Accept-Language is always named, as in Django, for the caches further out; our cache leaves it out of a key that
        has the language. Cookie is not named then: it would cost our cache nearly all hits.
        """
        if len(self.languages.tags) == 1:
            return ()
        if self.cookie is None or ":language" in keyed:
            return ("Accept-Language",)
        return ("Accept-Language", "Cookie")


class TimezoneChoice:
    """How a TimezoneMiddleware chooses; for the options see there."""

    def __init__(self, choose: Callable[[Any], Any] | None, cookie: str | None, default: str) -> None:
        self.zones = frozenset(available_timezones())
        if default not in self.zones:
            known = "is not a time zone such as 'Europe/Berlin'" if self.zones else "is not found: install tzdata"
            raise ImproperlyConfigured(f"default: {default!r} {known}.")
        if choose is not None and not callable(choose):
            raise ImproperlyConfigured(f"choose: {choose!r} is not a function of the request.")
        self.choose = choose
        self.cookie = None if cookie is None else Cookie(cookie)
        self.default = default

    def zone(self, chosen: Any, cookies: str) -> str:
        """The zone that the function chose, else the cookie's, else the default; a name that is no zone is ignored."""
        for name in (chosen, self.cookie.value(cookies) if self.cookie else None):
            if isinstance(name, tzinfo | str) and str(name) in self.zones:
                return str(name)
        return self.default

    def vary(self, keyed: Sequence[str]) -> tuple[str, ...]:
        """The names for Vary: a function usually reads the session, and so a cookie."""
        if ":timezone" in keyed or (self.cookie is None and self.choose is None):
            return ()
        return ("Cookie",)
