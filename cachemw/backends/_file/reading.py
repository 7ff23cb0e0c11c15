"""Reading one entry's file, and writing its header anew. What stands in an entry's place and is none is not there.

Rule 1: a descriptor that was opened here is closed here.
"""

from __future__ import annotations

import os
from typing import Any, Final

from cachemw.backends._file import entry
from cachemw.backends._file.files import open_for_reading
from cachemw.backends._file.shards import Place

__all__ = ["SPOILED", "file_size", "live_header", "peek", "read_entry", "read_live", "rewrite"]

#: What is read where there is a file and no live entry in it.
SPOILED: Final = object()


def read_entry(place: Place, now: float, *, verify: bool) -> Any:
    """The value of a live entry, None if there is no file of ours, SPOILED if it is expired or damaged."""
    descriptor = open_for_reading(place.path)
    if descriptor is None:
        return None
    try:
        found = read_live(descriptor, place, now, verify=verify)
    finally:
        os.close(descriptor)
    return found[0] if type(found) is tuple else found


def read_live(descriptor: int, place: Place, now: float, *, verify: bool) -> Any:
    """(value, expiry) of a live entry, of a file opened just now; else as `read_entry`.

    Of a page whose body has a file of its own the value is a `Filed`, always verified: it is no larger than its head.
    """
    try:
        block = os.read(descriptor, max(entry.BLOCK, entry.HEADER_SIZE + len(place.key)))
    except (IsADirectoryError, BlockingIOError):  # a directory, or a pipe, in the entry's place
        return None
    header = entry.parse(block, place.key)
    if header is None or not header.expires > now:  # "not >": an expiry that is no number is over too
        return SPOILED
    if header.number is not None:
        return header.number, header.expires
    end = header.offset + header.size
    if end <= len(block):
        value = block[header.offset : end]
    elif os.fstat(descriptor).st_size == end:
        value = os.pread(descriptor, header.size, header.offset)
    else:
        return SPOILED
    if header.is_filed:
        filed = entry.filed(value) if entry.checksum(value) == header.crc else None
        return SPOILED if filed is None else (filed, header.expires)
    return SPOILED if verify and entry.checksum(value) != header.crc else (value, header.expires)


def live_header(descriptor: int, place: Place, now: float) -> entry.Header | None:
    """The header of a live entry, of a file opened just now; its value is not read."""
    try:
        block = os.read(descriptor, entry.HEADER_SIZE + len(place.key))
    except (IsADirectoryError, BlockingIOError):  # a directory, or a pipe, in the entry's place
        return None
    header = entry.parse(block, place.key)
    return header if header is not None and header.expires > now else None


def peek(place: Place, now: float) -> entry.Header | None:
    """The header of a key's live entry, if there is one."""
    descriptor = open_for_reading(place.path)
    if descriptor is None:
        return None
    try:
        return live_header(descriptor, place, now)
    finally:
        os.close(descriptor)


def rewrite(descriptor: int, place: Place, header: entry.Header) -> None:
    """Replace the header of an entry in place; its shard's lock is held."""
    expires, number, size, crc, _, is_filed = header
    packed = entry.pack(place.key, expires=expires, number=number, size=size, crc=crc, is_filed=is_filed)
    os.pwrite(descriptor, packed[: entry.HEADER_SIZE], 0)


def file_size(path: str) -> int | None:
    """Bytes of what stands there, None if nothing does."""
    try:
        return os.lstat(path).st_size
    except FileNotFoundError:
        return None
