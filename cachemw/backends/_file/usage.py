"""How much the file store holds: the file `usage`, a slot with entries and bytes for each shard.

Rule 1: a shard's slot belongs to the shard's lock. A writer that is killed between its rename and its slot leaves the
slot wrong by one entry, until the shard is next looked through.
Rule 2: what cannot be right, or is not there, is counted anew from the files themselves.
"""

from __future__ import annotations

import os
import random
from array import array
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager, suppress
from struct import Struct
from typing import Final, NamedTuple

__all__ = ["SHARDS", "Slots", "Usage", "UsageFile", "make_directories", "write_all"]

SHARDS: Final = 1024
_SLOT: Final = Struct("=qq")
_OPEN: Final = os.O_RDWR | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
_CREATE: Final = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC


class Usage(NamedTuple):
    """How much the store holds; bytes are those of the files."""

    entries: int
    size: int


class Slots:
    """The open file."""

    def __init__(self, descriptor: int) -> None:
        self._descriptor = descriptor

    def add(self, shard: int, entries: int, size: int) -> None:
        """Count what came to a locked shard, or went; never below nothing, should the slot have been wrong."""
        data = os.pread(self._descriptor, _SLOT.size, shard * _SLOT.size)
        known = _SLOT.unpack(data.ljust(_SLOT.size, b"\0"))
        self.state(shard, max(0, known[0] + entries), max(0, known[1] + size))

    def state(self, shard: int, entries: int, size: int) -> None:
        """Say what a locked shard holds."""
        os.pwrite(self._descriptor, _SLOT.pack(entries, size), shard * _SLOT.size)

    def all(self) -> array[int]:
        """The numbers of all shards: entries, bytes, entries, …"""
        data = os.pread(self._descriptor, SHARDS * _SLOT.size, 0)
        return array("q", data[: len(data) // _SLOT.size * _SLOT.size])


class UsageFile:
    """The file at `path`. contents: (shard, entries, bytes) of every file of the store, to count anew."""

    def __init__(self, path: str, contents: Callable[[], Iterable[tuple[int, int, int]]]) -> None:
        self._path = path
        self._contents = contents

    @contextmanager
    def opened(self) -> Iterator[Slots]:
        """The file, opened for as long as one operation takes: it may be removed at any time, with its directory."""
        try:
            descriptor = os.open(self._path, _OPEN)
        except FileNotFoundError:
            self._begin()
            descriptor = os.open(self._path, _OPEN)
        try:
            yield Slots(descriptor)
        finally:
            os.close(descriptor)

    def totals(self) -> Usage:
        """What the whole store holds."""
        slots = self._all()
        return Usage(sum(slots[::2]), sum(slots[1::2]))

    def occupied(self) -> list[int]:
        """The shards that hold something, in random order."""
        slots = self._all()
        found = [shard for shard in range(SHARDS) if slots[2 * shard] > 0 or slots[2 * shard + 1] > 0]
        random.shuffle(found)
        return found

    def _all(self) -> array[int]:
        with self.opened() as file:
            slots = file.all()
        if len(slots) == 2 * SHARDS and min(slots) >= 0:
            return slots
        with suppress(FileNotFoundError):  # damaged
            os.unlink(self._path)
        with self.opened() as file:
            return file.all()

    def _begin(self) -> None:
        """Make the file, with what is there: it is the directory's first use, or someone removed the file."""
        make_directories(os.path.dirname(self._path))
        slots = array("q", bytes(SHARDS * _SLOT.size))
        for shard, entries, size in self._contents():
            slots[2 * shard] += entries
            slots[2 * shard + 1] += size
        temporary = f"{self._path}-{os.urandom(8).hex()}"
        descriptor = os.open(temporary, _CREATE, 0o600)
        try:
            with suppress(FileExistsError):  # another process was quicker; its count is as good
                write_all(descriptor, (slots.tobytes(), b""))
                os.link(temporary, self._path)
        finally:
            os.close(descriptor)
            os.unlink(temporary)


def make_directories(path: str) -> None:
    """Create the directory and every missing one above it, each of mode 0700 whatever the umask."""
    if os.path.isdir(path):
        return
    make_directories(os.path.dirname(path))
    with suppress(FileExistsError):
        os.mkdir(path, 0o700)
        os.chmod(path, 0o700)


def write_all(descriptor: int, parts: tuple[bytes, bytes]) -> None:
    """Write both, in one piece where the system takes it."""
    written = os.writev(descriptor, parts)
    rest = memoryview(b"".join(parts))[written:] if written < len(parts[0]) + len(parts[1]) else memoryview(b"")
    while rest:
        rest = rest[os.write(descriptor, rest) :]
