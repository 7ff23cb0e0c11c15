"""Replicas: which of them answers a read, and which is left alone because it did not answer one.

Rule 1: one that fails rests, the longer the more often it fails; then one call finds out whether it is back, while
the others still pass it by.
"""

from __future__ import annotations

import random
from collections.abc import Iterator, Sequence
from time import monotonic
from typing import Final

from cachemw.backends._db.calls import Store

__all__ = ["Replica", "Replicas"]

#: Seconds that a replica rests after its first failure; twice as long after each further one, up to the second number.
_REST: Final = 1.0
_LONGEST_REST: Final = 30.0


class Replica:
    """A store that answers reads, and what is known of its health."""

    def __init__(self, store: Store) -> None:
        self.store = store
        self.rests_until = 0.0
        self.rest = 0.0  # seconds; 0 while it is well

    def failed(self) -> None:
        """It did not answer."""
        self.rest = min(max(2 * self.rest, _REST), _LONGEST_REST)
        self.rests_until = monotonic() + self.rest

    def answered(self) -> None:
        """It did."""
        if self.rest:
            self.rest = self.rests_until = 0.0


class Replicas:
    """Chooses among replicas at random."""

    def __init__(self, stores: Sequence[Store]) -> None:
        self._replicas = [Replica(store) for store in stores]

    @property
    def stores(self) -> list[Store]:
        """All of them."""
        return [replica.store for replica in self._replicas]

    def candidates(self, seconds: float) -> Iterator[Replica]:
        """Replicas to ask, one after the other, until one answers or so much time has gone by."""
        give_up = monotonic() + seconds
        while (now := monotonic()) <= give_up:
            awake = [replica for replica in self._replicas if replica.rests_until <= now]
            if not awake:
                return
            chosen = random.choice(awake)  # noqa: S311  spreads load, guards no secret
            if chosen.rest:
                chosen.rests_until = now + chosen.rest
            yield chosen
