"""The stores of some caches, and how they are: what the dashboard shows of each."""

from __future__ import annotations

from collections.abc import Iterable
from typing import NamedTuple

from cachemw.backends._memory import memory
from cachemw.backends.locmem import LocMemCache
from cachemw.caching import Caching
from cachemw.pages import Pages

__all__ = ["State", "states_of"]


class State(NamedTuple):
    """A store: what and where it is, its entries and octets if it knows them by itself, and what is wrong."""

    kind: str
    place: str
    entries: int | None
    octets: int | None
    reading_since: float | None  # it fails, by `time.time`
    writing_since: float | None
    owes: bool  # a purge has not reached it
    failures: dict[str, int]


def states_of(cachings: Iterable[Caching]) -> list[State]:
    """The state of each of their stores, once."""
    return [_state(pages) for pages in dict.fromkeys(pages for one in cachings for pages in one.stores)]


def _state(pages: Pages) -> State:
    cache = pages.cache
    held = memory(str(cache.location)) if isinstance(cache, LocMemCache) else None
    kind, _, place = repr(cache).strip("<>").partition(" ")
    reading, writing = pages.breaker, pages.write_breaker
    return State(
        kind,
        place,
        None if held is None else len(held.entries),
        None if held is None else held.size,
        reading.opened if reading.open else None,
        writing.opened if writing.open else None,
        pages.owes,
        dict(pages.failures),
    )
