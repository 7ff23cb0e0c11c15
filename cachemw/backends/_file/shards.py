"""The file store's directories: 32 x 32 shards, a lock on each, and how much each holds.

Rule 1: whatever changes an entry holds its shard's lock, `flock` on the directory itself: no lock files to leave
behind, and it excludes threads as well as processes. Reading takes no lock: an entry comes and goes by rename.
Rule 2: only regular files with a name of ours are removed; only directories of ours are entered; no link is followed.
Rule 3: the file of a large page's body goes when no entry of its shard names it; not while it is in use (`GRACE`).
"""

from __future__ import annotations

import errno
import fcntl
import os
import random
import stat
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from functools import lru_cache
from hashlib import blake2b
from typing import Final, NamedTuple

from cachemw.backends._file.entry import Reference
from cachemw.backends._file.files import (
    BODY_NAME,
    CREATE,
    ENTRY_NAME,
    ENTRY_SUFFIX,
    GRACE,
    TEMPORARY_NAME,
    body_of,
    is_in_use,
    live_entry,
    status_of,
    temporary_name,
)
from cachemw.backends._file.usage import SHARDS, UsageFile, make_directories, write_all

__all__ = ["Found", "Place", "Shards"]

_NAMES: Final = tuple(f"{shard >> 5:02x}/{shard & 31:02x}" for shard in range(SHARDS))
#: Seconds after which a temporary file is taken for the leftover of a killed writer.
_ORPHAN_AGE: Final = 300.0
#: Seconds to wait for a shard's lock. It is held for one rename, but a rename waits for a disk that is busy.
_LOCK_TIMEOUT: Final = 1.0

#: Keys of which it is remembered where they are; a long one is a stranger's.
_KEYS: Final = 2_048
_LONGEST: Final = 1_024

_DIRECTORY: Final = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC


class Place(NamedTuple):
    """Where the entry of a key is."""

    key: bytes
    shard: int
    name: str
    path: str


def _placed(key: str) -> tuple[bytes, int, str]:
    """A made key as bytes, its shard, and its file's name."""
    data = key.encode("utf-8", "surrogatepass")
    digest = blake2b(data, digest_size=20).digest()
    return data, digest[0] << 2 | digest[1] >> 6, digest.hex() + ENTRY_SUFFIX


#: A miss needs each of its places three times.
_known: Final = lru_cache(_KEYS)(_placed)


class Found(NamedTuple):
    """A live entry that a scan came by. `written`: its modification time, in nanoseconds."""

    written: int
    shard: int
    name: str
    is_in_use: bool  # it has a body that would stay if it were removed


class Shards:
    """The directories below `root`, an absolute path."""

    def __init__(self, root: str) -> None:
        self.root = root
        self.usage = UsageFile(f"{root}/usage", self._contents)
        #: The shards in which this process has left bodies that were in use, and when they may go (seconds).
        self.left: dict[int, float] = {}
        self._prefixes = tuple(f"{root}/{name}/" for name in _NAMES)

    def place(self, key: str) -> Place:
        """Where the entry of the made key is."""
        data, shard, name = _known(key) if len(key) <= _LONGEST else _placed(key)
        return Place(data, shard, name, self._prefixes[shard] + name)

    @contextmanager
    def opened(self, shard: int, *, create: bool = False) -> Iterator[int]:
        """A descriptor of the shard's directory.

        Raises: FileNotFoundError if there is no such directory (and not `create`), other OSErrors of a broken disk.
        """
        directory = self._open(shard, create=create)
        try:
            yield directory
        finally:
            os.close(directory)

    @contextmanager
    def lock(self, directory: int, *, wait: bool = True) -> Iterator[None]:
        """Hold the lock of an opened shard.

        Raises: TimeoutError if it is not to be had within a second (or at once, if not `wait`).
        """
        _lock(directory, self.root, _LOCK_TIMEOUT if wait else 0.0)
        try:
            yield
        finally:
            # closing would not do: a process forked meanwhile has a copy of the descriptor, and so of the lock
            fcntl.flock(directory, fcntl.LOCK_UN)

    @contextmanager
    def locked(self, shard: int, *, wait: bool = True) -> Iterator[int]:
        """Both: a descriptor of the shard's directory, whose lock is held. Raises: as they do."""
        with self.opened(shard) as directory, self.lock(directory, wait=wait):
            yield directory

    def _open(self, shard: int, *, create: bool) -> int:
        path = self._prefixes[shard][:-1]
        try:
            return _open_own(path)
        except FileNotFoundError:
            if not create:
                raise
        make_directories(path)
        return _open_own(path)

    def create(self, directory: int, parts: tuple[bytes, bytes], *, allocate: bool) -> str:
        """Write a temporary file into the shard; returns its name. It is removed again on any error.

        allocate: it is to be renamed over another; see `_allocate`.
        """
        name = temporary_name()
        descriptor = os.open(name, CREATE, 0o600, dir_fd=directory)
        try:
            try:
                if allocate:
                    _allocate(descriptor, len(parts[0]) + len(parts[1]))
                write_all(descriptor, parts)
            finally:
                os.close(descriptor)
        except BaseException:
            self.remove(directory, name)
            raise
        return name

    @staticmethod
    def remove(directory: int, *names: str) -> None:
        """Remove files of the shard that are there."""
        for name in names:
            with suppress(FileNotFoundError):
                os.unlink(name, dir_fd=directory)

    def publish(
        self, directory: int, temporary: str, place: Place, size: int, body: tuple[str, Reference] | None = None
    ) -> None:
        """Rename a complete file of `size` bytes over the entry's, in a locked shard, and count that.

        body: the temporary file of the body that it names, which comes before it, and its reference.
        """
        with self.usage.opened() as slots:
            old = self.size(directory, place.name)
            size -= old or 0
            before = None
            if body is not None:
                before = body_of(directory, place.name)  # else it is left for a scan: to look costs another file
                self._rename(directory, body[0], body[1].file)
                size += body[1].size
            try:
                self._rename(directory, temporary, place.name)
            except BaseException:
                if body is not None:
                    self.remove(directory, body[1].file)
                raise
            if before is not None:
                size -= self._remove_body(directory, place.shard, before.file)
            slots.add(place.shard, 1 if old is None else 0, size)

    @staticmethod
    def _rename(directory: int, old: str, new: str) -> None:
        os.rename(old, new, src_dir_fd=directory, dst_dir_fd=directory)

    @staticmethod
    def size(directory: int, name: str) -> int | None:
        """Bytes of the regular file of this name; None if there is none."""
        found = status_of(directory, name)
        return None if found is None else found.st_size

    @staticmethod
    def written(directory: int, name: str) -> int | None:
        """When a file of the shard was last written, as `Found.written`; None if there is none."""
        try:
            return os.stat(name, dir_fd=directory, follow_symlinks=False).st_mtime_ns
        except FileNotFoundError:
            return None

    def remove_entry(self, directory: int, place: Place | Found, *, has_body: bool = True) -> None:
        """Remove the regular file of this name from a locked shard, with the body that it names, and count that.

        has_body: False if it is known to name none.
        """
        with self.usage.opened() as slots:
            size = self.size(directory, place.name)
            if size is not None:
                body = body_of(directory, place.name) if has_body else None
                self.remove(directory, place.name)
                if body is not None:
                    size += self._remove_body(directory, place.shard, body.file)
                slots.add(place.shard, -1, -size)

    def _remove_body(self, directory: int, shard: int, name: str) -> int:
        """Remove a body that no record names, unless it is in use; returns the bytes that this frees."""
        found = status_of(directory, name)
        if found is None:
            return 0
        if is_in_use(found, time.time()):
            due = found.st_atime + GRACE
            self.left[shard] = min(self.left.get(shard, due), due)
            return 0
        self.remove(directory, name)
        return found.st_size

    def scan(self, directory: int, shard: int, now: float) -> list[Found]:
        """Look through a locked shard: what is expired, damaged or left over goes; returns what lives, and counts it.

        `now`: the time in seconds since the epoch that expiries are compared with.
        """
        found: list[Found] = []
        named: set[str] = set()
        size = 0
        with os.scandir(directory) as files:
            names = [file.name for file in files if file.is_file(follow_symlinks=False)]
        for name in names:
            if ENTRY_NAME.fullmatch(name):
                live = live_entry(directory, name, now)
                if live is None:
                    self.remove(directory, name)
                    continue
                status, body = live
                size += status.st_size
                in_use = False
                if body is not None:
                    size += body.status.st_size
                    named.add(body.name)
                    in_use = is_in_use(body.status, time.time())
                found.append(Found(status.st_mtime_ns, shard, name, in_use))
            elif TEMPORARY_NAME.fullmatch(name):
                self._remove_orphan(directory, name)
        for name in names:
            if BODY_NAME.fullmatch(name) and name not in named:
                left = self.size(directory, name) or 0
                size += left - self._remove_body(directory, shard, name)
        with self.usage.opened() as slots:
            slots.state(shard, len(found), size)
        return found

    def _remove_orphan(self, directory: int, name: str) -> None:
        found = status_of(directory, name)
        # a second name of a stored body is as old as that, and takes no room
        if found is not None and found.st_nlink == 1 and abs(time.time() - found.st_mtime) > _ORPHAN_AGE:
            self.remove(directory, name)

    def existing(self) -> list[int]:
        """The shards that have a directory, in random order."""
        names = {
            f"{above}/{name}" for above in _directories(self.root) for name in _directories(f"{self.root}/{above}")
        }
        found = [shard for shard, name in enumerate(_NAMES) if name in names]
        random.shuffle(found)
        return found

    def _contents(self) -> Iterator[tuple[int, int, int]]:
        """(shard, entries, bytes) of every entry's and body's file: a look through the whole store."""
        for shard in self.existing():
            with suppress(FileNotFoundError), os.scandir(self._prefixes[shard]) as files:
                for file in files:
                    is_entry = ENTRY_NAME.fullmatch(file.name) is not None
                    if (is_entry or BODY_NAME.fullmatch(file.name)) and file.is_file(follow_symlinks=False):
                        yield shard, int(is_entry), file.stat(follow_symlinks=False).st_size


def _directories(path: str) -> list[str]:
    """The names of the directories there, links not counted."""
    try:
        with os.scandir(path) as found:
            return [one.name for one in found if one.is_dir(follow_symlinks=False)]
    except FileNotFoundError:
        return []


def _open_own(path: str) -> int:
    above = os.path.dirname(path)
    if not stat.S_ISDIR(os.lstat(above).st_mode):
        raise NotADirectoryError(errno.ENOTDIR, "not a directory of the cache's own", above)
    return os.open(path, _DIRECTORY)


def _lock(directory: int, path: str, timeout: float) -> None:
    """Take the lock. Polled, as a wait in the kernel has no time limit and a frozen process may hold the lock."""
    deadline = time.monotonic() + timeout
    pause = 0.0001
    while True:
        try:
            fcntl.flock(directory, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            if time.monotonic() >= deadline:
                raise TimeoutError(errno.ETIMEDOUT, "another process holds the lock", path) from None
        else:
            return
        time.sleep(pause * random.random())  # noqa: S311  spreads the waiters, guards no secret
        pause = min(pause * 2, 0.005)


def _allocate(descriptor: int, size: int) -> None:
    """Give the file its blocks now.

    ext4 writes blocks that it has not yet allocated out to the disk when a file is renamed over another (auto_da_alloc,
    for programs that rely on it instead of fsync): 0.15 to 0.9 ms, measured. A cache rather loses the entry in a crash
    of the machine; the checksums tell. A file that replaces none needs no such thing: 12 µs less.
    """
    try:
        os.posix_fallocate(descriptor, 0, size)
    except AttributeError:  # macOS has no such call
        return
    except OSError as error:
        if error.errno not in (errno.EOPNOTSUPP, errno.EINVAL, errno.ENODEV):
            raise
