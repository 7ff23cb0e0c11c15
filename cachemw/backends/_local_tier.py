"""What a process keeps of a shared store: values and pages, and the certainty that none of them is old.

Rule 1: nothing enters that may have changed since it was read: a read that is under way hears of what is forgotten
meanwhile, and that does not get in.
Rule 2: nothing is answered while changes may go unheard (`usable`).
Rule 3: nothing outlives the shared entry, where the store tells its time, nor the limit.
That a key is absent is kept too: the marks that a page's hit looks for are absent nearly always.
"""

from __future__ import annotations

import itertools
import os
import threading
import time
import weakref
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from math import inf
from typing import Any, Final, Protocol

from cachemw.backends._memory import Item, Page, forget
from cachemw.backends._records import Decode
from cachemw.backends.locmem import LocMemCache

__all__ = ["Channel", "LocalTier", "Reading", "Timed"]

#: What the shared store has under a key, and the seconds it has left (None: for ever, or not told).
Timed = tuple[Any, float | None]

#: Seconds that an entry is kept where nobody tells of changes, and that a key counts as absent there: somebody may be
#: waiting for it to appear.
_BLIND: Final = 1.0
_BLIND_ABSENT: Final = 0.1

#: Kept for a key that the shared store does not have.
_ABSENT: Final = object()

_names = itertools.count()


class Channel(Protocol):
    """Tells of every change of the shared store's entries (`_redis.tracking.Invalidations`)."""

    ready: bool
    supported: bool | None

    def start(self) -> None: ...

    def stop(self) -> None: ...

    def end(self) -> None: ...

    def forget(self) -> None: ...


class Reading:
    """A read of the shared store under way, and what has changed since it began."""

    __slots__ = ("began", "changed", "era")

    def __init__(self, era: int, began: float) -> None:
        self.era = era
        self.began = began
        self.changed: set[str] = set()


class _Decoded:
    """A page's record, and who decoded it: several page caches may share a store."""

    __slots__ = ("decode", "record")

    def __init__(self, decode: Decode, record: Any) -> None:
        self.decode = decode
        self.record = record


class LocalTier:
    """The entries, by key.

    options: those of `LocMemCache`, by which it is bounded.
    store: which store it stands before: what one tier of this process changes there, the others forget too.
    limit: seconds that an entry is kept at most; None: as long as the shared one while a channel tells of changes,
        else one second.
    """

    def __init__(
        self,
        options: Mapping[str, Any],
        *,
        store: str,
        limit: float | None = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        name = f"local tier {next(_names)}"
        self._memory = LocMemCache(name, {"OPTIONS": dict(options)}, clock=clock)
        weakref.finalize(self, forget, name)
        self._clock = clock
        self._limit = limit
        self._lock = threading.RLock()
        self._readings: set[Reading] = set()
        self._era = 0
        self.channel: Channel | None = None
        self._neighbours = _neighbours(store, self)
        _tiers.add(self)

    def listen_to(self, channel: Channel) -> None:
        """Trust what is kept while this channel tells of changes; before the first use."""
        self.channel = channel
        weakref.finalize(self, channel.end)

    @property
    def usable(self) -> bool:
        """May it answer? Not while there is a channel that is not heard."""
        channel = self.channel
        return channel is None or channel.ready or channel.supported is False

    # -- answering -----------------------------------------------------------------------------------------------

    def values(self, keys: Sequence[str]) -> tuple[dict[str, Any], list[str]]:
        """What is kept of `keys`, and which of them the shared store has to be asked for."""
        if not self.usable:
            return {}, list(keys)
        now = self._clock()
        entries = self._memory._store.entries
        found = {}
        missing = []
        for key in keys:
            item = entries.get(key)
            if item is None or item.expires <= now or item.__class__ is not Item:
                missing.append(key)
                continue
            item.seen = True
            if (kept := item.value) is not _ABSENT:
                found[key] = kept
        return found, missing

    def known(self, prefix: str, keys: Sequence[str], decode: Decode) -> list[Any] | None:
        """The records of the keys, None for those that are absent; None if one is not known: the path of a hit."""
        channel = self.channel
        if channel is not None and not channel.ready and channel.supported is not False:
            return None
        now = self._clock()
        entries = self._memory._store.entries
        found: list[Any] = []
        for key in keys:
            item = entries.get(prefix + key)
            if item is None or item.expires <= now or item.__class__ is not Page:
                return None
            kept = item.value
            if kept is _ABSENT:
                found.append(None)
            elif kept.decode is decode or kept.decode == decode:
                found.append(kept.record)
            else:
                return None
            item.seen = True
        return found

    def pages(self, prefix: str, keys: Sequence[str], decode: Decode) -> tuple[list[Any], list[int]]:
        """The records of the keys, None for those that are absent, and the places of those that are not known."""
        if not self.usable:
            return [None] * len(keys), list(range(len(keys)))
        now = self._clock()
        entries = self._memory._store.entries
        found: list[Any] = []
        missing: list[int] = []
        for place, key in enumerate(keys):
            item = entries.get(prefix + key)
            record = None
            if item is None or item.expires <= now or item.__class__ is not Page:
                missing.append(place)
            else:
                item.seen = True
                kept = item.value
                if kept is not _ABSENT:
                    if kept.decode == decode:
                        record = kept.record
                    else:
                        missing.append(place)
            found.append(record)
        return found, missing

    # -- filling -------------------------------------------------------------------------------------------------

    @contextmanager
    def reading(self) -> Iterator[Reading]:
        """While the shared store is read: what is forgotten meanwhile is noted."""
        if self.channel is not None:
            self.channel.start()
        with self._lock:
            reading = Reading(self._era, self._clock())
            self._readings.add(reading)
        try:
            yield reading
        finally:
            with self._lock:
                self._readings.discard(reading)

    def keep_values(self, reading: Reading, keys: Iterable[str], fetched: Mapping[str, Timed]) -> None:
        """Keep what was read, and what was found absent."""
        self._keep(Item, reading, ((key, *fetched.get(key, (_ABSENT, None))) for key in keys))

    def keep_pages(self, reading: Reading, decode: Decode, records: Iterable[tuple[str, Any, float | None]]) -> None:
        """Keep decoded records, and None for what was found absent: (key, record, seconds left)."""
        self._keep(
            Page,
            reading,
            (
                (key, _ABSENT if record is None else _Decoded(decode, record), seconds)
                for key, record, seconds in records
            ),
        )

    def _keep(self, kind: type[Any], reading: Reading, entries: Iterable[tuple[str, Any, float | None]]) -> None:
        with self._lock:
            if reading.era != self._era or not self.usable:
                return
            passed = self._clock() - reading.began
            limit = absent = inf if self._limit is None else self._limit
            if self.channel is None or not self.channel.ready:
                limit = _BLIND if self._limit is None else limit
                absent = min(limit, _BLIND_ABSENT)
            memory = self._memory
            for key, value, seconds in entries:
                left = min(inf if seconds is None else seconds - passed, absent if value is _ABSENT else limit)
                if left > 0 and key not in reading.changed:
                    with memory._store.lock:
                        memory._keep(kind, key, value, None if left == inf else left, memory._now())

    # -- forgetting ----------------------------------------------------------------------------------------------

    def forget(self, keys: Sequence[str]) -> None:
        """The shared entries have changed, or are about to."""
        with self._lock:
            self._memory._delete(keys)
            for reading in self._readings:
                reading.changed.update(keys)

    @contextmanager
    def changing(self, keys: Sequence[str]) -> Iterator[None]:
        """While this process writes to the shared store: forgotten before, and afterwards what was read meanwhile."""
        for tier in self._together():
            tier.forget(keys)
        try:
            yield
        finally:
            for tier in self._together():
                tier.forget(keys)

    @contextmanager
    def changing_all(self) -> Iterator[None]:
        """The same for all entries."""
        for tier in self._together():
            tier.flush()
        try:
            yield
        finally:
            for tier in self._together():
                tier.flush()

    def _together(self) -> Iterator[LocalTier]:
        """The tiers of this process before the same store, this one among them."""
        for reference in self._neighbours.tiers:
            if (tier := reference()) is not None:
                yield tier

    def flush(self) -> None:
        """Everything may have changed."""
        with self._lock:
            self._era += 1
            self._memory._clear()

    def close(self) -> None:
        """Listen no longer; keep nothing."""
        if self.channel is not None:
            self.channel.stop()
        self.flush()

    def _after_fork(self) -> None:
        self._lock = threading.RLock()
        self._readings = set()
        if self.channel is not None:
            self.channel.forget()
        self.flush()


class _Neighbours:
    """The tiers before one store. The tuple is replaced, never changed: whoever goes through it takes no lock."""

    __slots__ = ("__weakref__", "tiers")

    def __init__(self) -> None:
        self.tiers: tuple[weakref.ref[LocalTier], ...] = ()


_by_store: weakref.WeakValueDictionary[str, _Neighbours] = weakref.WeakValueDictionary()
_by_store_lock = threading.RLock()


def _neighbours(store: str, tier: LocalTier) -> _Neighbours:
    with _by_store_lock:
        neighbours = _by_store.setdefault(store, _Neighbours())
        alive = [reference for reference in neighbours.tiers if reference() is not None]
        neighbours.tiers = (*alive, weakref.ref(tier))
        return neighbours


#: The tiers of this process, for the child of a fork.
_tiers: weakref.WeakSet[LocalTier] = weakref.WeakSet()


def _after_fork() -> None:
    global _by_store_lock
    _by_store_lock = threading.RLock()
    for tier in _tiers:
        tier._after_fork()


os.register_at_fork(after_in_child=_after_fork)
