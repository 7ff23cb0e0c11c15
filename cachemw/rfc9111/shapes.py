"""Shapes: what the rules of storing say about responses that differ only in what no rule reads.

A site has many pages and few shapes, so the rules are applied once for each shape.

Rule 1: a shape has the names of all fields, and the value of every field that a rule of storing reads, unless only its
        presence counts.
Rule 2: the rules get the shape, never the response: what is not in a shape cannot decide.
Rule 3: a response whose lifetime depends on the clock (Expires, a heuristic) has no shape.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from operator import itemgetter
from typing import Final

from cachemw.rfc9111.fields import has_bad_octets
from cachemw.rfc9111.messages import Head, Layout
from cachemw.rfc9111.policy import Policy
from cachemw.rfc9111.storing import Storing, judge, nominated, unstorable_names

__all__ = ["Shapes", "Verdict", "kept_places"]

_VALUE: Final = itemgetter(1)
_MOST: Final = 256  # shapes that are remembered; for more, the rules are applied again

_BY_VALUE: Final = ("cache-control", "connection", "content-type", "pragma", "vary")
_BY_PRESENCE: Final = frozenset({"etag", "last-modified", "set-cookie"})
#: Fields that make each response unique: of time, or of caches before this one.
_OWN: Final = frozenset({"cache-status", "expires"})


@dataclass(frozen=True, slots=True)
class Verdict:
    """What the rules say about all responses of one shape.

    storing    see `judge`
    nominated  the request fields that `Vary` names
    dropped    the names of the fields that are not stored, in lower case
    """

    storing: Storing
    nominated: tuple[str, ...]
    dropped: frozenset[str]


@lru_cache(maxsize=_MOST)
def kept_places(layout: Layout, dropped: frozenset[str]) -> tuple[int, ...]:
    """The places of the fields that are stored."""
    return tuple([place for place, name in enumerate(layout.names) if name not in dropped])


class Shapes:
    """The verdicts of one cache: on its policy, and its `seconds` for responses that state no lifetime."""

    def __init__(self, policy: Policy, seconds: float) -> None:
        self._policy = policy
        self._seconds = seconds
        self._by_value = (*_BY_VALUE, *policy.targeted)
        self._own = _OWN | {"last-modified"} if policy.heuristic_fraction > 0 else _OWN
        self._read: dict[Layout, tuple[int, ...] | None] = {}  # the places of the values that are part of a shape
        self._verdicts: dict[object, Verdict] = {}

    def __len__(self) -> int:
        """How many shapes are remembered."""
        return len(self._verdicts)

    def verdict(self, head: Head, timeout: float | None, named: bool) -> Verdict | None:
        """What the rules say about this response; None if it has no shape. Arguments: see `judge`."""
        layout = head.layout
        try:
            places = self._read[layout]
        except KeyError:
            places = self._look_at(layout)
        if places is None:
            return None
        values = list(map(_VALUE, head.fields))
        if has_bad_octets(head.reason + "".join(values)):
            return None
        shape = (layout, head.status, timeout, named, *map(values.__getitem__, places))
        verdict = self._verdicts.get(shape)
        if verdict is None:
            if len(self._verdicts) >= _MOST:
                self._verdicts.clear()
            verdict = self._verdicts[shape] = self._work_out(head, places, timeout, named)
        return verdict

    def _look_at(self, layout: Layout) -> tuple[int, ...] | None:
        """The places of the values that decide; None if one of the fields makes the response unique."""
        if len(self._read) >= _MOST:
            self._read.clear()
        where = layout.where
        own = not layout.sound or not self._own.isdisjoint(where)
        places = None if own else tuple([place for name in self._by_value for place in where.get(name, ())])
        self._read[layout] = places
        return places

    def _work_out(self, head: Head, places: tuple[int, ...], timeout: float | None, named: bool) -> Verdict:
        names, policy = head.layout.names, self._policy
        fields = [(names[place], head.fields[place][1]) for place in places]
        fields += [(name, "") for name in names if name in _BY_PRESENCE]
        shape = Head(head.status, tuple(fields))
        storing = judge(shape, policy, seconds=self._seconds, timeout=timeout, now=0.0, named=named)
        return Verdict(storing, nominated(shape), unstorable_names(shape, policy))
