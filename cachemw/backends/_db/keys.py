"""Keys as they stand in the table.

Rule 1: keys are bytes, as collations compare text: without case, without trailing blanks. SQLite alone compares text
as it is, and quicker than bytes: there a key is text, if it is ASCII. Of other text, a file in UTF-16 changes some.
Rule 2: a key that does not fit is cut and ends in its digest; such a key is always one byte longer than any other may
be.
"""

from __future__ import annotations

from collections.abc import Sequence
from hashlib import blake2b
from typing import Final

__all__ = ["KEY_SIZE", "ColumnKey", "column_key", "column_keys", "text_key", "text_keys"]

#: Bytes.
KEY_SIZE: Final = 255

ColumnKey = bytes | str


def column_key(key: str) -> bytes:
    """A made key as it stands in the table."""
    try:
        data = key.encode()
    except UnicodeEncodeError:
        data = key.encode("utf-8", "surrogatepass")
    if len(data) < KEY_SIZE:
        return data
    digest = blake2b(data, digest_size=32).hexdigest().encode()
    return data[: KEY_SIZE - len(digest)] + digest


def column_keys(keys: Sequence[str]) -> list[bytes]:
    """Several made keys, as `column_key` gives them."""
    try:
        columns = [key.encode() for key in keys]
    except UnicodeEncodeError:
        columns = []
    return columns if columns and max(map(len, columns)) < KEY_SIZE else [column_key(key) for key in keys]


def text_key(key: str) -> ColumnKey:
    """A made key as it stands in SQLite's table: text, which equals no bytes, unless it is too long or not ASCII."""
    return key if len(key) < KEY_SIZE and key.isascii() else column_key(key)


def text_keys(keys: Sequence[str]) -> Sequence[ColumnKey]:
    """Several made keys, as `text_key` gives them."""
    if "".join(keys).isascii() and len(max(keys, key=len, default="")) < KEY_SIZE:
        return keys
    return [text_key(key) for key in keys]
