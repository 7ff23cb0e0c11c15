"""The values that cross boundaries: Head, StoredResponse, VaryIndex and the smaller records; see `requests`, too.

Rule 1: text is latin-1 `str`, exactly as the server gave it; field lines keep their order and their spelling.
Rule 2: nothing here changes after it was made, but for what is derived from it (a parsed or a rendered form).
Rule 3: a record is complete in itself: whoever reads it needs neither the request nor the settings that made it.
Rule 4: what is derived is a property: with `__getattr__`, CPython looks up every attribute of the class the slow way.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from operator import itemgetter
from typing import Any, Final, NamedTuple

from cachemw.rfc9111.bodies import Body
from cachemw.rfc9111.fields import CacheControl, is_token, parse_cache_control

__all__ = [
    "UNREAD",
    "EncodedFields",
    "Field",
    "Fields",
    "Head",
    "HitForMiss",
    "Layout",
    "Mark",
    "Record",
    "StoredResponse",
    "VaryIndex",
]

Field = tuple[str, str]
Fields = tuple[Field, ...]
EncodedFields = tuple[tuple[bytes, bytes], ...]

_NONE: Final[tuple[str, ...]] = ()
_NAME: Final = itemgetter(0)
#: Seconds by which the stamps of purges and requests, each later than the one before it, may be ahead of the clock.
_AHEAD: Final = 0.001

#: Bytes of a record without the parts whose length the application decides, and of a pair without its text (CPython).
_OWN_SIZE: Final = 480
_PAIR_SIZE: Final = 160


class Layout:
    """The names of a response's fields, in order. Most pages of a site have the same ones, so they are read once.

    names  in lower case
    where  the places of the lines of each
    sound  each is a token (RFC 9110 §5.1): nobody knows what "Set-Cookie " or "Cache-Control:" is to the next reader
    """

    __slots__ = ("names", "sound", "where")

    def __init__(self, names: Iterable[str]) -> None:
        self.names = tuple([name.lower() for name in names])
        self.sound = all(map(is_token, self.names))
        where: dict[str, list[int]] = {}
        for place, name in enumerate(self.names):
            where.setdefault(name, []).append(place)
        self.where: Mapping[str, tuple[int, ...]] = {name: tuple(places) for name, places in where.items()}


_layout: Final = lru_cache(maxsize=512)(Layout)


class Head:
    """Status and fields of a response, without its body. `layout`: which fields there are, and where."""

    __slots__ = ("_cache_control", "fields", "layout", "reason", "status")

    def __init__(self, status: int, fields: Fields = (), reason: str = "") -> None:
        self.status = status
        self.fields = fields
        self.reason = reason
        self.layout = _layout(tuple(map(_NAME, fields)))
        self._cache_control: CacheControl | None = None

    def lines(self, name: str) -> tuple[str, ...]:
        """All lines of the field `name` (lower case), in order; empty if the response does not have it."""
        places = self.layout.where.get(name)
        if places is None:
            return _NONE
        fields = self.fields
        return (fields[places[0]][1],) if len(places) == 1 else tuple([fields[place][1] for place in places])

    def value(self, name: str) -> str | None:
        """The lines of the field combined by ", " (RFC 9110 §5.3), or None if absent."""
        lines = self.lines(name)
        return ", ".join(lines) if lines else None

    @property
    def cache_control(self) -> CacheControl:
        """The parsed `Cache-Control`, empty if there is none."""
        if self._cache_control is None:
            self._cache_control = parse_cache_control(self.lines("cache-control"))
        return self._cache_control


class StoredResponse:
    """A complete stored response, and what reuse has to know of the moment it was stored.

    key        the full cache key it was stored under; a reader compares it (safety: a wrong shard is then a miss)
    born       the time, in seconds since the epoch, at which its age was 0: response time - corrected initial age
    lifetime   freshness lifetime in seconds, as decided when it was stored (RFC 9111 §4.2.1)
    began      when the request that it answers began; a tag purged later than this makes it unusable
    chosen     the lifetime came from the middleware, not from the response (it then guards session cookies)
    validate   it must be validated before every use (`no-cache` without arguments)
    tags       what it can be purged by, besides its URL
    """

    __slots__ = (
        "_fields",
        "_raw",
        "began",
        "body",
        "born",
        "brief",
        "chosen",
        "fresh_until",
        "key",
        "lifetime",
        "reason",
        "shown",
        "status",
        "tag",
        "tags",
        "validate",
    )

    def __init__(
        self,
        *,
        key: str,
        status: int,
        body: Body,
        born: float,
        lifetime: float,
        began: float,
        fields: Fields | None = None,
        raw: EncodedFields | None = None,
        reason: str = "",
        chosen: bool = False,
        validate: bool = False,
        tags: tuple[str, ...] = (),
    ) -> None:
        self.key = key
        self.status = status
        self.reason = reason
        self.body = body
        self.born = born
        self.lifetime = lifetime
        self.began = began
        self.chosen = chosen
        self.validate = validate
        self.tags = tags
        self._fields = fields
        self._raw = raw
        self.shown: tuple[int, object, tuple[Any, ...]] | None = None  # rendered for one age, by one cache
        self.tag: str | None = None  # its entity-tag, once a client's condition has asked for it; "" for none
        self.brief: tuple[object, Any] | None = None  # the 304 in its place, rendered by one cache
        # 0 if every use needs a validation: the path of a hit compares only this number with the clock
        self.fresh_until = 0.0 if validate else born + lifetime

    def __sizeof__(self) -> int:
        """Its bytes, with all that it holds; stores that limit their memory ask."""
        pairs: Sequence[tuple[Any, Any]] = self._fields if self._fields is not None else self._raw or ()
        size = _OWN_SIZE + len(self.body) + len(self.key) + _PAIR_SIZE * len(pairs)
        for name, value in pairs:  # quicker than a sum or a join over a chain of them
            size += len(name) + len(value)
        return size

    @property
    def fields(self) -> Fields:
        """The stored fields as text, in order and spelling of the application (WSGI's form)."""
        if self._fields is None:
            self._fields = tuple([(n.decode("latin-1"), v.decode("latin-1")) for n, v in self._raw or ()])
        return self._fields

    @property
    def raw(self) -> EncodedFields:
        """The stored fields as bytes, names in lower case (ASGI's form)."""
        if self._raw is None:
            self._raw = tuple([(n.lower().encode("latin-1"), v.encode("latin-1")) for n, v in self._fields or ()])
        return self._raw

    def replace(self, **changes: Any) -> StoredResponse:
        """A copy in which some of the maker's arguments have other values."""
        told = {name: getattr(self, name) for name in _TOLD}
        return StoredResponse(**{**told, **changes})

    def aged(self, now: float) -> StoredResponse:
        """The same response, stale since `now` at the latest; slightly earlier, as stamps may be ahead of the clock."""
        return self.replace(lifetime=min(self.lifetime, max(0.0, now - self.born - _AHEAD)))

    @property
    def head(self) -> Head:
        """Status and fields; made anew at each call, for code that has to look into it."""
        return Head(self.status, self.fields, self.reason)


#: What a `StoredResponse` is made of.
_TOLD: Final = ("key", "status", "reason", "fields", "body", "born", "lifetime", "began", "chosen", "validate", "tags")


class VaryIndex(NamedTuple):
    """What the primary key of a resource holds if its responses vary: the names, and where the variants are.

    Every secondary key contains `generation`, so all variants are gone when this record is. Names that begin with ":"
    are not fields but properties of the request that the shell knows (":language", ":timezone").
    """

    key: str
    names: tuple[str, ...]  # lower case, in the order learnt
    generation: str  # random
    stale_before: float = 0.0  # a soft purge: variants that began before this time count as stale
    tags: tuple[str, ...] = ()  # of the first variant: most likely those of all, to be looked up together with any

    def __sizeof__(self) -> int:
        """Its bytes, with all that it holds."""
        return _OWN_SIZE + len(self.key)


@dataclass(frozen=True, slots=True)
class HitForMiss:
    """The last answer was not cacheable: until this record expires, nobody waits for another's answer."""

    key: str


#: The beginning of the token of a mark that stands for one that could not be read.
UNREAD: Final = "unread "


@dataclass(frozen=True, slots=True)
class Mark:
    """What a purge leaves behind. Of a URL: `token` is new at each purge. Of a tag: the times of the last purges."""

    key: str
    token: str
    hard: float = 0.0  # records that began before are gone
    soft: float = 0.0  # records that began before are stale

    @property
    def is_unread(self) -> bool:
        """Does it stand for a mark that could not be read? Then what is made meanwhile is not stored."""
        return self.token.startswith(UNREAD)


Record = StoredResponse | VaryIndex | HitForMiss | Mark
