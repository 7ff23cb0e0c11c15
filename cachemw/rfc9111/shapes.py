"""Shapes: what the rules of storing say of responses that differ only in what no rule reads.

A site has many pages and few shapes, so what the rules say is worked out once for each.

Rule 1: a shape has every field that a rule of storing reads: by value, or, where that is all that counts, as present.
Rule 2: the rules are shown the shape, never the response that had it: what is not in a shape cannot decide.
Rule 3: a response whose lifetime depends on the clock (Expires, a heuristic) has no shape.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from cachemw.rfc9111.messages import Head
from cachemw.rfc9111.policy import Policy
from cachemw.rfc9111.storing import Storing, has_bad_octets_in, judge, nominated, unstorable_names

__all__ = ["Shapes", "Verdict"]

_MOST: Final = 256  # shapes that are remembered; a site that has more works some out again

_BY_VALUE: Final = ("cache-control", "connection", "content-type", "pragma", "vary")
_BY_PRESENCE: Final = frozenset({"etag", "last-modified", "set-cookie"})
#: Fields that make a response one of its own: of time, or of caches before us.
_OWN: Final = frozenset({"cache-status", "expires"})


@dataclass(frozen=True, slots=True)
class Verdict:
    """What the rules say of all responses of one shape.

    storing    see `judge`
    nominated  the request fields that `Vary` names
    dropped    the names of the fields that are not stored, in lower case
    """

    storing: Storing
    nominated: tuple[str, ...]
    dropped: frozenset[str]


class Shapes:
    """The verdicts of one cache: on its policy, and its `seconds` for responses that state no lifetime."""

    def __init__(self, policy: Policy, seconds: float) -> None:
        self._policy = policy
        self._seconds = seconds
        self._by_value = (*_BY_VALUE, *policy.targeted)
        self._own = _OWN | {"last-modified"} if policy.heuristic_fraction > 0 else _OWN
        self._verdicts: dict[object, Verdict] = {}

    def __len__(self) -> int:
        """How many shapes are remembered."""
        return len(self._verdicts)

    def verdict(self, head: Head, timeout: float | None, named: bool) -> Verdict | None:
        """What the rules say of this response; None if that has to be asked of it alone. Arguments: see `judge`."""
        lines = head.index
        if not self._own.isdisjoint(lines) or has_bad_octets_in(head):
            return None
        present = _BY_PRESENCE.intersection(lines)
        shape = (head.status, timeout, named, present, *map(lines.get, self._by_value))
        verdict = self._verdicts.get(shape)
        if verdict is None:
            if len(self._verdicts) >= _MOST:
                self._verdicts.clear()
            fields = [(name, value) for name in self._by_value for value in lines.get(name, ())]
            fields += [(name, "") for name in present]
            verdict = self._verdicts[shape] = self._work_out(Head(head.status, tuple(fields)), timeout, named)
        return verdict

    def _work_out(self, shape: Head, timeout: float | None, named: bool) -> Verdict:
        policy = self._policy
        storing = judge(shape, policy, seconds=self._seconds, timeout=timeout, now=0.0, named=named)
        return Verdict(storing, nominated(shape), unstorable_names(shape, policy))
