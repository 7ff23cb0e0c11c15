"""Which language and which time zone a request gets: from the path, a cookie, Accept-Language, a function, a default.

Rule 1: total: whatever a request carries, the answer is a member of a list that the site has: a configured language, in
        the configured spelling, or a zone of the time zone database.
Rule 2: linear, and bounded: of a long Accept-Language its first kilobyte counts.
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
    """The tag of a language that is one, or Django's pair of tag and name."""
    return language[0] if isinstance(language, list | tuple) and len(language) == 2 else language


class Languages:
    """The languages that a site has, the first or `default` being its default.

    A default that is more special than a language in the list stands for that one ("en-us" for "en", as in Django).
    Raises `ImproperlyConfigured` for an empty list, for what is no language tag, and for a default not in the list.
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
            raise ImproperlyConfigured(f"default: {default!r} is none of the languages {', '.join(self.tags)}.")
        self.default = self._tags[found.lower()]
        self._memo: dict[str, str] = {}

    def exactly(self, text: str) -> str | None:
        """The language with this tag, in whatever case."""
        return self._tags.get(text.lower())

    def best_for(self, text: str) -> str | None:
        """The language for one tag or range, by lookup: "de-AT-1996" falls back to "de-AT", then to "de"."""
        return self._lookup(text.lower(), frozenset()) if LANGUAGE_TAG.fullmatch(text) else None

    def accepted(self, accept_language: str) -> str:
        """The language for an Accept-Language field.

        By lookup (RFC 4647 §3.4) over the ranges in the order of their weights. Where that finds nothing, and the
        standard leaves the choice to the site, a language more special than a range is better than the default
        ("zh" gets "zh-Hans"), and the default better than a language that the request refuses by "q=0".
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
        """RFC 4647 §3.4: cut subtags off the end, a single letter with the one before which it stood."""
        while text:
            if text in self._tags and text not in refused:
                return self._tags[text]
            text = text.rpartition("-")[0]
            if text[-2:-1] == "-":
                text = text[:-2]
        return None


def _weights(accept_language: str) -> dict[str, float]:
    """Ranges in lower case with their weights, in order; what is no range is not there."""
    if len(accept_language) > _MAX_FIELD:
        accept_language = accept_language[:_MAX_FIELD].rpartition(",")[0]
    weights: dict[str, float] = {}
    for member in accept_language.split(","):
        if match := _RANGE.fullmatch(member):
            weights.setdefault(match[1].lower(), float(match[2] or 1))
    return weights


def _weight(tag: str, weights: dict[str, float]) -> float:
    """The weight of the most special range that a tag is in."""
    while tag:
        if tag in weights:
            return weights[tag]
        tag = tag.rpartition("-")[0]
    return weights.get("*", 1.0)


class Cookie:
    """Reads one cookie from a Cookie field: the first of this name, as browsers send the most special one first.

    Raises `ImproperlyConfigured` for what is no name of a cookie (a token, RFC 6265 §4.1.1).
    """

    __slots__ = ("_search", "name")

    def __init__(self, name: str) -> None:
        if not isinstance(name, str) or not is_token(name):
            raise ImproperlyConfigured(f"cookie: {name!r} cannot be the name of a cookie.")
        self.name = name
        self._search = re.compile(rf"(?:\A|;)[ \t]*+{re.escape(name)}=([^;]*+)").search

    def value(self, field: str) -> str | None:
        """The value in the Cookie field, without quotes and percent-encoding; None if the cookie is not there."""
        match = self._search(field) if field else None
        return unquote(match[1].strip(' \t"')) if match else None


class LanguageChoice:
    """What the two LocaleMiddlewares decide; their options are explained there."""

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
        """The language that the request's fields ask for."""
        if self.cookie is not None and (value := self.cookie.value(cookies)):
            language = self.languages.best_for(value)
            if language is not None:
                return language
        return self.languages.accepted(accept_language)

    def vary(self, keyed: Sequence[str]) -> tuple[str, ...]:
        """What a response depends on if the path did not decide.

        Caches further out know nothing of our keys, so Accept-Language is named anyhow, as in Django; the cache whose
        key has the language leaves it out of the key. Cookie would cost that cache nearly all its hits.
        """
        if len(self.languages.tags) == 1:
            return ()
        if self.cookie is None or ":language" in keyed:
            return ("Accept-Language",)
        return ("Accept-Language", "Cookie")


class TimezoneChoice:
    """What the two TimezoneMiddlewares decide; their options are explained there."""

    def __init__(self, choose: Callable[[Any], Any] | None, cookie: str | None, default: str) -> None:
        self.zones = frozenset(available_timezones())
        if default not in self.zones:
            known = "is no time zone such as 'Europe/Berlin'" if self.zones else "is not found: install tzdata"
            raise ImproperlyConfigured(f"default: {default!r} {known}.")
        if choose is not None and not callable(choose):
            raise ImproperlyConfigured(f"choose: {choose!r} is not a function of the request.")
        self.choose = choose
        self.cookie = None if cookie is None else Cookie(cookie)
        self.default = default

    def zone(self, chosen: Any, cookies: str) -> str:
        """The zone: what the function chose, or the cookie, or the default; what is no zone counts as not said."""
        for name in (chosen, self.cookie.value(cookies) if self.cookie else None):
            if isinstance(name, tzinfo | str) and str(name) in self.zones:
                return str(name)
        return self.default

    def vary(self, keyed: Sequence[str]) -> tuple[str, ...]:
        """A function has the zone from the session, as a rule, and with it from a cookie."""
        if ":timezone" in keyed or (self.cookie is None and self.choose is None):
            return ()
        return ("Cookie",)
