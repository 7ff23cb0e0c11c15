"""The file store's bounds: entries and bytes, kept without looking at more than a small part of the directory.

What the shards hold is added up once in a while, and before a bound can be reached. Over a bound, a sample of the
shards is looked through: what is expired goes, else the part of the sample that was written longest ago. A store no
larger than the sample is therefore culled exactly; a larger one nearly by age. A page whose body is in use is passed
over: it would free nothing for the time being.
"""

from __future__ import annotations

import fcntl
import os
import random
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from itertools import groupby
from operator import attrgetter
from typing import Final

from cachemw.backends._file.shards import Found, Shards
from cachemw.backends._file.usage import SHARDS

__all__ = ["Sweeper"]

#: Entries looked at in one go: about 4 ms, once in a hundred writes or more.
_SAMPLE: Final = 512
#: Samples in a row, should one not be enough: after that the next write goes on.
_ROUNDS: Final = 16
#: Of so many writes, one looks through a shard, so that what is expired or left over does not stay for ever.
_HOUSEKEEPING: Final = 64
#: Of the shards in which something was left, so many are looked through in one go.
_AT_ONCE: Final = 8
#: The store is added up after this part of its bounds was written, as other processes write too.
_PART: Final = 256


class Sweeper:
    """Keeps the shards within `max_entries` and `max_bytes` (None: no bound).

    frequency: Django's CULL_FREQUENCY: one in so many entries goes when the store is full; 0: all of them.
    """

    def __init__(self, shards: Shards, *, max_entries: int, max_bytes: int | None, frequency: int) -> None:
        self._shards = shards
        self._max_entries = max_entries
        self._max_bytes = max_bytes
        self._frequency = frequency
        # what may be written until the store is added up again; threads that race here only add it up once more
        self._entries_left = 0
        self._bytes_left = 0

    def admit(self, *, entries: int, size: int) -> bool:
        """Make room for so many entries and bytes more; to be called before they are stored, without a lock held.

        Returns: whether it had to cull.
        """
        self._entries_left -= entries
        self._bytes_left -= size
        full = (self._entries_left < 0 or self._bytes_left < 0) and not self.recount(entries, size)
        if full:
            self.cull(entries=entries, size=size)
        if self._shards.left:
            self._look_where_something_was_left()
        if random.randrange(_HOUSEKEEPING) == 0:  # noqa: S311  chooses a shard, guards no secret
            self._scan(random.randrange(SHARDS), time.time())  # noqa: S311
        return full

    def recount(self, entries: int, size: int) -> bool:
        """Add the store up, for what may be written until the next time; do so many more fit?"""
        held = self._shards.usage.totals()
        left = self._max_entries - held.entries - entries
        self._entries_left = min(left, self._max_entries // _PART)
        if self._max_bytes is None:
            self._bytes_left = 1 << 62
            return left >= 0
        bytes_left = self._max_bytes - held.size - size
        self._bytes_left = min(bytes_left, self._max_bytes // _PART)
        return left >= 0 and bytes_left >= 0

    def cull(self, *, entries: int = 0, size: int = 0, disk_full: bool = False) -> None:
        """Remove what is expired, else one in `frequency` of the oldest, unless another process is at it.

        disk_full: there is no room, whatever the bounds say.
        """
        with suppress(BlockingIOError), _only_one(self._shards.root):
            for _ in range(_ROUNDS):
                sample = [file for file in self._sample() if not file.is_in_use]
                if self.recount(entries, size) and not disk_full:  # what was expired is gone
                    return
                sample.sort(key=attrgetter("written"))
                self._remove(sample[: max(1, len(sample) // self._frequency)] if self._frequency else sample)
                if not sample or self.recount(entries, size):
                    return

    def _sample(self) -> list[Found]:
        now = time.time()
        sample: list[Found] = []
        for shard in self._shards.usage.occupied():
            sample += self._scan(shard, now)
            if len(sample) >= _SAMPLE and self._frequency:
                break
        return sample

    def _look_where_something_was_left(self) -> None:
        now = time.time()
        for shard in [shard for shard, due in self._shards.left.copy().items() if due <= now][:_AT_ONCE]:
            self._shards.left.pop(shard, None)
            self._scan(shard, now)

    def _scan(self, shard: int, now: float) -> list[Found]:
        try:
            with self._shards.locked(shard, wait=False) as directory:
                return self._shards.scan(directory, shard, now)
        except TimeoutError:  # someone works there: another time
            return []
        except FileNotFoundError:
            with self._shards.usage.opened() as slots:
                slots.state(shard, 0, 0)
            return []

    def _remove(self, victims: list[Found]) -> None:
        by_shard = attrgetter("shard")
        for shard, found in groupby(sorted(victims, key=by_shard), by_shard):
            with suppress(TimeoutError, FileNotFoundError), self._shards.locked(shard, wait=False) as directory:
                for file in found:
                    if self._shards.written(directory, file.name) == file.written:
                        self._shards.remove_entry(directory, file)


@contextmanager
def _only_one(root: str) -> Iterator[None]:
    """Hold the lock of the whole directory. Raises: BlockingIOError if another thread or process has it."""
    descriptor = os.open(root, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        try:
            yield
        finally:
            fcntl.flock(descriptor, fcntl.LOCK_UN)
    finally:
        os.close(descriptor)
