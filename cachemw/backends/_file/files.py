"""The file store's files: what they are called, how they are opened, and what one can tell without knowing a key.

Rule 1: what has no name of ours, or is no regular file, is not ours.
"""

from __future__ import annotations

import errno
import os
import re
import stat
from typing import Final, NamedTuple

from cachemw.backends._file import entry
from cachemw.backends._file.entry import Reference

__all__ = [
    "BODY_NAME",
    "CREATE",
    "ENTRY_NAME",
    "ENTRY_SUFFIX",
    "GRACE",
    "TEMPORARY_NAME",
    "Body",
    "body_of",
    "is_in_use",
    "live_entry",
    "open_body",
    "open_for_reading",
    "status_of",
    "temporary_name",
]

#: What follows an entry's name.
ENTRY_SUFFIX: Final = ".cmw"
ENTRY_NAME: Final = re.compile(r"[0-9a-f]{40}\.cmw")
BODY_NAME: Final = re.compile(r"[0-9a-f]{32}\.cmw-body")
TEMPORARY_NAME: Final = re.compile(r"\.[0-9a-f]{16}\.cmw-new")

#: Seconds for which a body that was in use stays: its path was told to a server, which opens it as soon as it comes to
#: it, or another user has read it. A minute is for one that is swapped out, or waits for a slow disk.
GRACE: Final = 60.0

# A FIFO that stands where an entry should be must not block whoever opens it: O_NONBLOCK.
_READ: Final = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
_UNNOTED: Final = getattr(os, "O_NOATIME", 0)
_UPDATE: Final = os.O_RDWR | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
CREATE: Final = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC


def is_in_use(status: os.stat_result, now: float) -> bool:
    """Was the body in this file used of late: after it was written, and less than `GRACE` seconds ago?"""
    return status.st_atime_ns > status.st_mtime_ns and abs(now - status.st_atime) < GRACE


def temporary_name() -> str:
    """What a file is called until it is complete."""
    return f".{os.urandom(8).hex()}.cmw-new"


def open_for_reading(path: str, *, update: bool = False) -> int | None:
    """A descriptor of the entry's file; None if there is none, or a link in its place."""
    return _opened(path, _UPDATE if update else _READ)


def open_body(path: str) -> int | None:
    """The same of a body's file, by which reading it is no use of it that `is_in_use` could see: it is open."""
    try:
        return _opened(path, _READ | _UNNOTED)
    except PermissionError:  # that is for the owner of the file to decide
        return _opened(path, _READ)


def _opened(path: str, flags: int) -> int | None:
    try:
        return os.open(path, flags)
    except FileNotFoundError:
        return None
    except OSError as error:
        # ELOOP: a symlink; ENXIO: a socket; EISDIR: a directory opened for writing. None of them is ours
        if error.errno in (errno.ELOOP, errno.ENXIO, errno.EISDIR):
            return None
        raise


class Body(NamedTuple):
    """A body's file."""

    name: str
    status: os.stat_result


def live_entry(directory: int, name: str, now: float) -> tuple[os.stat_result, Body | None] | None:
    """The status of a live entry's file, and its body's if it has one; None if it is expired or damaged."""
    try:
        descriptor = os.open(name, _READ, dir_fd=directory)
    except FileNotFoundError:
        return None
    try:
        status = os.fstat(descriptor)
        life = entry.life(os.pread(descriptor, entry.HEADER_SIZE, 0), status.st_size)
        if life is None or not life.expires > now:
            return None
        reference = _reference(descriptor, life)
    finally:
        os.close(descriptor)
    if life.body_at is None:
        return status, None
    body = None if reference is None else status_of(directory, reference.file)
    if reference is None or body is None or body.st_size != reference.size:
        return None
    return status, Body(reference.file, body)


def body_of(directory: int, name: str) -> Reference | None:
    """The body that an entry names, whether it is there or not."""
    try:
        descriptor = os.open(name, _READ, dir_fd=directory)
    except OSError:  # there is no entry, or something in its place; should it name a body, a scan finds that
        return None
    try:
        life = entry.life(os.pread(descriptor, entry.HEADER_SIZE, 0), os.fstat(descriptor).st_size)
        return None if life is None else _reference(descriptor, life)
    except OSError:
        return None
    finally:
        os.close(descriptor)


def _reference(descriptor: int, life: entry.Life) -> Reference | None:
    if life.body_at is None:
        return None
    value = entry.filed(os.pread(descriptor, entry.REFERENCE_SIZE, life.body_at))
    return None if value is None else value.reference


def status_of(directory: int, name: str) -> os.stat_result | None:
    """The status of the regular file of this name; None if there is none."""
    try:
        found = os.stat(name, dir_fd=directory, follow_symlinks=False)
    except FileNotFoundError:
        return None
    return found if stat.S_ISREG(found.st_mode) else None
