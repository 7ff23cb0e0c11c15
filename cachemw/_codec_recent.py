"""Recent: what was decoded lately, so that a page that is read over and over is not decoded each time."""

from __future__ import annotations

from typing import Final, Generic, TypeVar

__all__ = ["Recent"]

V = TypeVar("V")

_SHARE: Final = 4  # the part of the memory that one value may take
_SEEN: Final = 1_024  # keys of which is known that they came once


class Recent(Generic[V]):
    """Values by key, about `size` bytes of them; it begins anew when it is full. 0: nothing is kept.

    What comes for the first time is not kept: most of many pages come once, and would only push out those that do not.
    `known` is for reading alone. Threads that race in here may lose one another's value, never mix two.
    """

    __slots__ = ("_costs", "_seen", "_size", "_taken", "known")

    def __init__(self, size: int) -> None:
        self._size = size
        self.known: dict[str, V] = {}
        self._costs: dict[str, int] = {}
        self._taken = 0
        self._seen: dict[str, object] = {}

    def note(self, key: str, sign: object) -> bool:
        """Note that the key came with this sign; True if it did so lately."""
        seen = self._seen
        if seen.get(key) == sign:
            return True
        if len(seen) >= _SEEN:
            seen.clear()
        seen[key] = sign
        return False

    def takes(self, cost: int) -> bool:
        """Is a value that takes so many bytes kept?"""
        return cost * _SHARE <= self._size

    def keep(self, key: str, value: V, cost: int) -> None:
        """Keep a value that takes `cost` bytes, unless it is too large."""
        self.forget(key)
        if not self.takes(cost):
            return
        if self._taken + cost > self._size:
            self.known.clear()
            self._costs.clear()
            self._taken = 0
        self._taken += cost
        self._costs[key] = cost
        self.known[key] = value

    def forget(self, key: str) -> None:
        """Let go of a key's value, if there is one."""
        self.known.pop(key, None)
        self._taken -= self._costs.pop(key, 0)
