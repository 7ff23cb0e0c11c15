"""One entry of the file store as bytes: a header that can be replaced in place, the key, the value.

    header   magic, kind, expiry, number, lengths of key and value, CRC-32 of the value, CRC-32 of all this and the key
    key      the whole made key: a file that stands under another name is no entry
    value    the bytes given; nothing where the value is a number, which the header holds

Rule 1: a file that is empty, cut, damaged, foreign or another key's is no entry; nothing here raises on one.
Rule 2: expiry and number change by one write of the header, so that `touch` and `incr` move no value. A reader that
catches such a write half done sees a wrong CRC, never a wrong number.
"""

from __future__ import annotations

import math
import zlib
from struct import Struct
from typing import Final, NamedTuple

__all__ = ["BLOCK", "FOREVER", "HEADER_SIZE", "Header", "checksum", "expiry", "pack", "parse"]

_LAYOUT: Final = Struct("<4sIdqQII")
_CRC: Final = Struct("<I")
_MAGIC: Final = b"cmf1"
_BYTES, _NUMBER = 0, 1

HEADER_SIZE: Final = _LAYOUT.size + _CRC.size
#: Bytes that the first read asks for: the whole of most small entries, the header and the key of nearly all others.
BLOCK: Final = 4096
#: The expiry of an entry that has none.
FOREVER: Final = math.inf


class Header(NamedTuple):
    """What stands before a value. `expires`: seconds since the epoch; `number`: None where the value is bytes."""

    expires: float
    number: int | None
    size: int  # of the value, in bytes
    crc: int  # of the value
    offset: int  # of the value in the file


def checksum(value: bytes) -> int:
    """What `Header.crc` has to be for this value."""
    return zlib.crc32(value)


def pack(key: bytes, *, expires: float, number: int | None, size: int, crc: int) -> bytes:
    """Header and key; what stands before the value in the file."""
    kind = _BYTES if number is None else _NUMBER
    fields = _LAYOUT.pack(_MAGIC, kind, expires, number or 0, size, len(key), crc)
    return b"".join((fields, _CRC.pack(zlib.crc32(key, zlib.crc32(fields))), key))


def parse(block: bytes, key: bytes) -> Header | None:
    """The header of the entry that `block` begins, if it is one and this key's."""
    if len(block) < HEADER_SIZE:
        return None
    magic, kind, expires, number, size, key_size, crc = _LAYOUT.unpack_from(block)
    offset = HEADER_SIZE + key_size
    if magic != _MAGIC or key_size != len(key) or block[HEADER_SIZE:offset] != key:
        return None
    if _CRC.unpack_from(block, _LAYOUT.size)[0] != zlib.crc32(key, zlib.crc32(block[: _LAYOUT.size])):
        return None
    return Header(expires, number if kind == _NUMBER else None, size, crc, offset)


def expiry(header: bytes, file_size: int) -> float | None:
    """When the entry in a file of this size that begins with `header` expires; None if it is no entry."""
    if len(header) < HEADER_SIZE:
        return None
    magic, _, expires, _, size, key_size, _ = _LAYOUT.unpack_from(header)
    return expires if magic == _MAGIC and file_size == HEADER_SIZE + key_size + size else None
