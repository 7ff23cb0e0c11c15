"""Decoded pages of SQLite: while nobody has written to the file, what was read is neither read nor decoded again.

Rule 1: the file is asked for every request whether anybody has written. What answers is its version as a connection
sees it: `PRAGMA data_version` for the writes of all others, `total_changes` for its own. It counts for that connection.
Rule 2: the version is asked for before the rows are read: what is written in between makes it an old one.
Rule 3: where somebody writes all the time the question is in vain: it is then asked less and less often.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Sequence
from typing import Any, Final, NamedTuple

from cachemw._codec_recent import Recent
from cachemw.backends._footprint import footprint
from cachemw.backends._records import Decode

__all__ = ["DecodedRows", "Version"]

#: Bytes of decoded pages that a process keeps, about.
_SIZE: Final = 8 * 1024 * 1024
#: Bytes that one takes beside its key and its record, about.
_OWN_SIZE: Final = 400
#: Look-ups without the question after it was in vain: one, twice as many each further time, and at most so many.
_MOST_SKIPPED: Final = 64


class Version(NamedTuple):
    """What a connection saw: it is the same as long as nobody wrote."""

    connection: sqlite3.Connection
    others: int
    own: int


class _Page(NamedTuple):
    version: Version
    expires: float
    decode: Decode
    record: Any


class DecodedRows:
    """What this process remembers of the keys that it reads over and over: the record, or that there is none."""

    def __init__(self) -> None:
        self._recent: Recent[_Page] = Recent(_SIZE)
        self._known = self._recent.known
        self._skip = 0  # look-ups from now on
        self._vain = 0  # how many were skipped after the last question in vain

    def get(
        self, connection: sqlite3.Connection, keys: Sequence[str], now: float, decode: Decode
    ) -> tuple[list[Any] | None, Version | None]:
        """The records of the keys, None if one is not known; and the version to learn with, None if not asked for.

        Raises: sqlite3.Error.
        """
        if self._skip > 0:
            self._skip -= 1
            return None, None
        known = self._known
        pages = [known.get(key) for key in keys]
        if None in pages:  # what comes for the first time is not kept, so that its version does not matter
            note = self._recent.note
            if [key for key, page in zip(keys, pages, strict=True) if page is None and not note(key, True)]:
                return None, None
        others = connection.execute("PRAGMA data_version").fetchone()[0]
        version = Version(connection, others, connection.total_changes)
        found = []
        for page in pages:
            if page is None:
                return None, version
            seen, expires, by, record = page
            if seen != version:
                self._vain = self._skip = min(2 * self._vain or 1, _MOST_SKIPPED)
                return None, version
            if by is not decode or expires <= now:
                return None, version
            found.append(record)
        self._vain = 0
        return found, version

    def learn(self, key: str, version: Version, expires: float, decode: Decode, record: Any) -> None:
        """Remember what was read at this version, or later; what is not there is worth remembering too."""
        self._recent.keep(key, _Page(version, expires, decode, record), _OWN_SIZE + len(key) + footprint(record))
