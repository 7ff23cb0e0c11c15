"""Rules: a table that says how the pages of an application are cached; the first rule that matches holds.

    Rules([
        Rule("/account/*", never=True),
        Rule("*.css", lifetime=86400, tags=("static",)),
        Rule("/blog/*", content_types=("text/html",), lifetime=600, ignore_query=("utm_*",)),
    ])

A rule has conditions on the request (path, method) and may have conditions on the response (status, content type).
Whether a page is looked up, in which cache, and with which part of the query, must be known before there is a response:
this comes from the first matching rule without conditions on the response. Rules with such conditions decide only what
is done with the response.

Rule 1: pure; a table is compiled once, and a request costs a look-up.
Rule 2: in doubt nothing is cached. `never` holds if any spelling of the path matches; other rules hold only if every
        reading of the path matches: "/account/..%2Fstatic/a.css" is not "/static/*". A rule for "*.css" does not hold
        for an HTML page at "/account/a.css" ("Gotta cache 'em all", Doyhenard 2024).
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, fields
from difflib import get_close_matches
from functools import partial
from typing import TYPE_CHECKING, Any, Final, Literal, overload

from cachemw._values import number
from cachemw.errors import ImproperlyConfigured
from cachemw.paths import readings, spellings
from cachemw.rfc9111.fields import is_tag

__all__ = ["Rule", "Rules"]

#: How many requests have their candidates remembered, and the longest path of these: strangers choose the paths.
_MEMO_REQUESTS: Final = 1024
_MEMO_LENGTH: Final = 256

#: Endings of file names that CDNs cache by default, and the media types of pages.
_FILES: Final = re.compile(
    r"\.(?:7z|avif|bmp|bz2|css|csv|docx?|eot|exe|flac|gif|gz|ico|jar|jpe?g|js|m4a|mjs|mp[34]|og[gv]|otf|pdf|png|pptx?"
    r"|rar|svgz?|tar|tiff?|ttf|wav|web[mp]|woff2?|xlsx?|zip|zst)\Z",
    re.IGNORECASE,
)
_PAGES: Final = frozenset({"application/json", "application/xhtml+xml", "text/html"})


@dataclass(frozen=True, slots=True)
class Rule:
    """One rule of a table. A condition that is left out matches everything; an effect that is left out changes nothing.

        Rule("/blog/*", content_types=("text/html",), lifetime=600, ignore_query=("utm_*",))

    Conditions:

    path           compared with the path below the mount, without the query, percent-decoded, case-sensitive. A string
                   has to match the whole path; "*" in it matches any characters, "/" too; "/blog/*" also matches
                   "/blog". A string that begins with "^", or a compiled pattern, is a regular expression (`search`)
    methods        "GET" includes "HEAD"
    statuses       numbers, or classes such as "4xx"
    content_types  "text/html", "image/*"; parameters do not matter

    Effects:

    lifetime       freshness lifetime in seconds, in place of what the response says; 0: not stored
    cache          alias of the cache that holds these pages
    tags           names by which these pages can be purged, in addition to the tags in the response
    ignore_query   names of query parameters that are not part of the key; "utm_*": all that begin with "utm_"
    set_cookie     "strip": the page is stored without its cookies; only its first visitor gets them. None: as the
                   policy says; by default a page with a cookie is not stored
    never          neither looked up nor stored; with `statuses` or `content_types`: not stored. It leaves as the
                   application sent it

    Raises: ImproperlyConfigured for a wrong value.
    """

    path: str | re.Pattern[str] = "/*"
    methods: tuple[str, ...] = ()
    statuses: tuple[int | str, ...] = ()
    content_types: tuple[str, ...] = ()
    lifetime: float | None = None
    cache: str | None = None
    tags: tuple[str, ...] = ()
    ignore_query: tuple[str, ...] = ()
    set_cookie: Literal["strip"] | None = None
    never: bool = False
    _matches: Callable[[str], Any] = field(init=False, repr=False, compare=False)

    if TYPE_CHECKING:

        def __init__(
            self,
            path: str | re.Pattern[str] = "/*",
            methods: str | Iterable[str] = (),
            statuses: int | str | Iterable[int | str] = (),
            content_types: str | Iterable[str] = (),
            lifetime: float | None = None,
            cache: str | None = None,
            tags: str | Iterable[str] = (),
            ignore_query: str | Iterable[str] = (),
            set_cookie: Literal["strip"] | None = None,
            never: bool = False,
        ) -> None: ...

    def __post_init__(self) -> None:
        for name in _MEMBERS:
            object.__setattr__(self, name, _tuple(getattr(self, name)))
        object.__setattr__(self, "_matches", _matcher(self.path))
        if self.lifetime is not None:
            object.__setattr__(self, "lifetime", number("lifetime", self.lifetime, minimum=0))
        _check(self)
        object.__setattr__(self, "methods", tuple(method.upper() for method in self.methods))
        object.__setattr__(self, "content_types", tuple(kind.lower() for kind in self.content_types))

    @property
    def conditional(self) -> bool:
        """Has the rule a condition on the response?"""
        return bool(self.statuses or self.content_types)

    def matches_request(self, method: str, path: str) -> bool:
        """Do the conditions on the request hold? path: raw or decoded."""
        if self.methods and method not in self.methods and not (method == "HEAD" and "GET" in self.methods):
            return False
        if self.never:
            return any(map(self._matches, spellings(path)))
        return all(map(self._matches, readings(path)))

    def matches_response(self, status: int, content_type: str | None, path: str = "") -> bool:
        """Do the conditions on the response hold for this status and Content-Type, at this path?

        For an HTML or JSON page at a path such as "/account/a.css" they hold only if the rule names the media type, or
        says `never`: the page may be the account of one visitor.
        """
        if self.statuses and status not in self.statuses and f"{status // 100}xx" not in self.statuses:
            return False
        media_type = (content_type or "").partition(";")[0].strip(" \t").lower()
        if not self.content_types:
            return self.never or not _is_page_under_file_name(status, media_type, path)
        return media_type in self.content_types or f"{media_type.partition('/')[0]}/*" in self.content_types


class Rules(Sequence[Rule]):
    """A table of rules, in order: a sequence of `Rule`. The first rule that matches counts.

        Rules([Rule("/account/*", never=True), {"path": "*.css", "lifetime": 86400}])

    rules   `Rule` values, or mappings with the same names (from JSON, for example)
    source  the name of the setting, for errors

    Raises: ImproperlyConfigured for a wrong rule.
    """

    __slots__ = ("_memo", "_rules")

    def __init__(self, rules: Iterable[Rule | Mapping[str, Any]] = (), *, source: str = "rules") -> None:
        if isinstance(rules, str | bytes | Mapping) or not isinstance(rules, Iterable):
            raise ImproperlyConfigured(f"{source}: a list of rules is expected; got {rules!r}.")
        self._rules = tuple(_rule(rule, f"{source}[{number}]") for number, rule in enumerate(rules))
        self._memo: dict[tuple[str, str], tuple[Rule, ...] | None] = {}

    def __len__(self) -> int:
        return len(self._rules)

    @overload
    def __getitem__(self, index: int) -> Rule: ...
    @overload
    def __getitem__(self, index: slice) -> tuple[Rule, ...]: ...
    def __getitem__(self, index: int | slice) -> Rule | tuple[Rule, ...]:
        return self._rules[index]

    def __eq__(self, other: object) -> bool:
        return self._rules == other._rules if isinstance(other, Rules) else NotImplemented

    def __hash__(self) -> int:
        return hash(self._rules)

    def __repr__(self) -> str:
        return f"Rules({list(self._rules)!r})"

    def for_request(self, method: str, path: str) -> tuple[Rule, ...] | None:
        """The rules whose conditions on the request hold, up to the first without other conditions; None if none do.

        path: below the mount, raw or decoded.
        """
        if not self._rules:
            return None
        memo = self._memo
        request = (method, path)
        if request in memo:
            return memo[request]
        candidates = self._candidates(method, path)
        if len(path) + len(method) <= _MEMO_LENGTH:
            if len(memo) >= _MEMO_REQUESTS:
                self._memo = memo = {}
            memo[request] = candidates
        return candidates

    def _candidates(self, method: str, path: str) -> tuple[Rule, ...] | None:
        candidates = []
        for rule in self._rules:
            if rule.matches_request(method, path):
                candidates.append(rule)
                if not rule.conditional:
                    break
        return tuple(candidates) or None

    @staticmethod
    def for_lookup(candidates: Sequence[Rule] | None) -> Rule | None:
        """The candidate without conditions on the response; it decides `cache`, `ignore_query` and `never`."""
        return candidates[-1] if candidates and not candidates[-1].conditional else None

    @staticmethod
    def for_response(
        candidates: Sequence[Rule] | None, status: int, content_type: str | None, path: str = ""
    ) -> Rule | None:
        """The first candidate whose conditions on the response hold; None if there is none."""
        for rule in candidates or ():
            if rule.matches_response(status, content_type, path):
                return rule
        return None


_NAMES: Final = tuple(field.name for field in fields(Rule) if field.init)


def _rule(value: Rule | Mapping[str, Any], source: str) -> Rule:
    if isinstance(value, Rule):
        return value
    if not isinstance(value, Mapping):
        raise ImproperlyConfigured(f"{source}: a rule is an object with the names {', '.join(_NAMES)}; got {value!r}.")
    for name in value:
        if name not in _NAMES:
            near = get_close_matches(str(name), _NAMES, 1)
            hint = f"; did you mean {near[0]!r}?" if near else "."
            raise ImproperlyConfigured(f"{source}: unknown name {name!r}{hint} Allowed: {', '.join(_NAMES)}.")
    try:
        return Rule(**value)
    except ImproperlyConfigured as error:
        raise ImproperlyConfigured(f"{source}: {error}") from None


def _is_page_under_file_name(status: int, media_type: str, path: str) -> bool:
    return 200 <= status < 300 and media_type in _PAGES and any(map(_FILES.search, readings(path)))


def _tuple(value: Any) -> tuple[Any, ...]:
    """A tuple of the members; of one, for a text or a number: "GET" does not mean three letters."""
    return tuple(value) if isinstance(value, Iterable) and not isinstance(value, str | bytes) else (value,)


def _matcher(path: Any) -> Callable[[str], Any]:
    if isinstance(path, re.Pattern) and isinstance(path.pattern, str):
        return path.search
    if not isinstance(path, str) or not path.startswith(("/", "*", "^")):
        raise ImproperlyConfigured(
            f"path: {path!r} begins neither with '/' or '*' (a path, '*' being any run of characters) nor with '^' "
            "(a regular expression)."
        )
    if path.startswith("^"):
        try:
            return re.compile(path).search
        except (re.error, OverflowError, RecursionError) as error:
            raise ImproperlyConfigured(f"path: {path!r} is not a regular expression: {error}.") from None
    if "?" in path:
        raise ImproperlyConfigured(
            f"path: {path!r} has a query; rules do not see it (`ignore_query` names parameters)."
        )
    if "*" not in path:
        return path.__eq__
    return partial(_matches_glob, path.split("*"), "/" if path.endswith("/*") else "")


def _matches_glob(parts: Sequence[str], slash: str, path: str) -> bool:
    """Are the parts in the path in this order, the first at its start and the last at its end? In linear time.

    slash: added to the path, so that "/blog" matches "/blog/*".
    """
    if not path.endswith("/"):
        path += slash
    first, *middle, last = parts
    end = len(path) - len(last)
    if not (path.startswith(first) and path.endswith(last)):
        return False
    at = len(first)
    for part in middle:
        at = path.find(part, at, end)
        if at < 0:
            return False
        at += len(part)
    return at <= end


def _is_status(value: Any) -> bool:
    if isinstance(value, str):
        return value in ("1xx", "2xx", "3xx", "4xx", "5xx")
    return isinstance(value, int) and not isinstance(value, bool) and 100 <= value <= 599


def _texts(pattern: re.Pattern[str]) -> Callable[[Any], bool]:
    return lambda value: isinstance(value, str) and pattern.fullmatch(value) is not None


_MEMBERS: Final[Mapping[str, tuple[Callable[[Any], bool], str]]] = {
    "methods": (_texts(re.compile(r"[!#$%&'*+.^_`|~0-9A-Za-z-]+")), "a method such as 'GET'"),
    "statuses": (_is_status, "a number from 100 to 599, or a class such as '4xx'"),
    "content_types": (
        _texts(re.compile(r"[!#$%&'+.^_`|~0-9a-z-]+/(\*|[!#$%&'+.^_`|~0-9a-z-]+)", re.IGNORECASE | re.ASCII)),
        "a media type without parameters, such as 'text/html' or 'image/*'",
    ),
    "tags": (
        lambda value: isinstance(value, str) and is_tag(value),
        "a string without spaces and commas, of at most 1024 characters",
    ),
    "ignore_query": (_texts(re.compile(r"[^&=*\s]+\*?|\*")), "a parameter's name, or the start of it with '*'"),
}


def _check(rule: Rule) -> None:
    for name, (is_right, allowed) in _MEMBERS.items():
        for value in getattr(rule, name):
            if not is_right(value):
                raise ImproperlyConfigured(f"{name}: {value!r} is not {allowed}.")
    if rule.cache is not None and not (isinstance(rule.cache, str) and rule.cache):
        raise ImproperlyConfigured(f"cache: {rule.cache!r} is not the alias of a cache.")
    if rule.set_cookie not in ("strip", None):
        raise ImproperlyConfigured(f"set_cookie: {rule.set_cookie!r} is not 'strip'.")
    if not isinstance(rule.never, bool):
        raise ImproperlyConfigured(f"never: {rule.never!r} is neither true nor false.")
    if rule.never and (rule.lifetime or rule.cache or rule.tags or rule.ignore_query or rule.set_cookie):
        raise ImproperlyConfigured(
            "never: a page that is never stored has no lifetime, cache, tags, ignore_query or set_cookie."
        )
    if rule.conditional and (rule.cache or rule.ignore_query):
        raise ImproperlyConfigured(
            "cache and ignore_query are needed before there is a response, so a rule that asks for statuses or "
            "content_types cannot decide them: put them in a rule of their own, further down."
        )
