"""One entry of the file store as bytes: a header that can be replaced in place, the key, the value.

    header   magic, kind, expiry, number, lengths of key and value, CRC-32 of the value, CRC-32 of all this and the key
    key      the whole made key: a file that stands under another name is no entry
    value    the bytes given; nothing where the value is a number, which the header holds. Of a page whose body has a
             file of its own: which file that is, and the page without it

Rule 1: a file that is empty, cut, damaged, foreign or another key's is no entry; nothing here raises on one.
Rule 2: expiry and number change by one write of the header, so that `touch` and `incr` move no value. A reader that
catches such a write half done sees a wrong CRC, never a wrong number.
"""

from __future__ import annotations

import math
import zlib
from struct import Struct
from typing import Final, NamedTuple

__all__ = [
    "BLOCK",
    "FOREVER",
    "HEADER_SIZE",
    "REFERENCE_SIZE",
    "Filed",
    "Header",
    "Life",
    "Reference",
    "checksum",
    "filed",
    "life",
    "pack",
    "pack_filed",
    "parse",
]

_LAYOUT: Final = Struct("<4sIdqQII")
_CRC: Final = Struct("<I")
_REFERENCE: Final = Struct("<16sQI")
_MAGIC: Final = b"cmf1"
_BYTES, _NUMBER, _FILED = 0, 1, 2

HEADER_SIZE: Final = _LAYOUT.size + _CRC.size
#: Bytes before the page in the value of one whose body has a file of its own.
REFERENCE_SIZE: Final = _REFERENCE.size
#: Bytes that the first read asks for: the whole of most small entries, the header and the key of nearly all others.
BLOCK: Final = 4096
#: The expiry of an entry that has none.
FOREVER: Final = math.inf


class Reference(NamedTuple):
    """The file that a page's body has to itself, and what is in it."""

    name: str  # 32 hexadecimal digits, chosen at random
    size: int  # bytes
    crc: int

    @property
    def file(self) -> str:
        """What the file is called."""
        return f"{self.name}.cmw-body"


class Filed(NamedTuple):
    """The value of a page whose body has a file of its own. `page`: without the body."""

    reference: Reference
    page: bytes


class Header(NamedTuple):
    """What stands before a value. `expires`: seconds since the epoch; `number`: None where the value is bytes."""

    expires: float
    number: int | None
    size: int  # of the value, in bytes
    crc: int  # of the value
    offset: int  # of the value in the file
    is_filed: bool  # the value is a `Filed`


class Life(NamedTuple):
    """What an entry's first bytes tell whoever does not know its key."""

    expires: float
    body_at: int | None  # where in the file the `Reference` of a `Filed` value is


def checksum(value: bytes) -> int:
    """What `Header.crc` has to be for this value."""
    return zlib.crc32(value)


def pack(key: bytes, *, expires: float, number: int | None, size: int, crc: int, is_filed: bool = False) -> bytes:
    """Header and key; what stands before the value in the file."""
    kind = _FILED if is_filed else _BYTES if number is None else _NUMBER
    fields = _LAYOUT.pack(_MAGIC, kind, expires, number or 0, size, len(key), crc)
    return b"".join((fields, _CRC.pack(zlib.crc32(key, zlib.crc32(fields))), key))


def pack_filed(value: Filed) -> bytes:
    """The value as bytes."""
    name, size, crc = value.reference
    return _REFERENCE.pack(bytes.fromhex(name), size, crc) + value.page


def filed(value: bytes) -> Filed | None:
    """The value that these bytes are; None if they are too few. A reference alone is one of an empty page."""
    if len(value) < REFERENCE_SIZE:
        return None
    name, size, crc = _REFERENCE.unpack_from(value)
    return Filed(Reference(name.hex(), size, crc), value[REFERENCE_SIZE:])


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
    return Header(expires, number if kind == _NUMBER else None, size, crc, offset, kind == _FILED)


def life(header: bytes, file_size: int) -> Life | None:
    """How long the entry in a file of this size that begins with `header` lives; None if it is no entry."""
    if len(header) < HEADER_SIZE:
        return None
    magic, kind, expires, _, size, key_size, _ = _LAYOUT.unpack_from(header)
    if magic != _MAGIC or file_size != HEADER_SIZE + key_size + size:
        return None
    return Life(expires, HEADER_SIZE + key_size if kind == _FILED else None)
