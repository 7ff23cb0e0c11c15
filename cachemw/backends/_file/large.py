"""Large bodies of the file store: parts of a file that stays open, read as they are sent.

Rule 1: what is open stays as it is, whatever is stored in its place meanwhile: values are never changed in place.
Rule 2: what several responses are made of has no position of its own; each has its reader.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from typing import Final

__all__ = ["BLOCK", "FiledBody"]

#: Bytes that a reader has in memory at a time, unless it is asked for others.
BLOCK: Final = 64 * 1024


class FiledBody:
    """`size` bytes of a file, from `offset` on; closes the descriptor in the end. See `cachemw.rfc9111.bodies`.

    What cannot be read raises OSError: a response must break off rather than end early.
    """

    __slots__ = ("_descriptor", "_offset", "_size")

    def __init__(self, descriptor: int, offset: int, size: int) -> None:
        self._descriptor = descriptor
        self._offset = offset
        self._size = size

    def __len__(self) -> int:
        return self._size

    def __bytes__(self) -> bytes:
        return self[:]

    def __getitem__(self, part: slice) -> bytes:
        at, end, _ = part.indices(self._size)
        pieces = []
        while at < end:
            piece = os.pread(self._descriptor, end - at, self._offset + at)
            if not piece:
                raise OSError(f"A stored body ended at {at} of {self._size} bytes")
            pieces.append(piece)
            at += len(piece)
        return pieces[0] if len(pieces) == 1 else b"".join(pieces)

    def reader(self) -> FiledBodyReader:
        """One response's way through it."""
        return FiledBodyReader(self)

    def __del__(self) -> None:
        os.close(self._descriptor)


class FiledBodyReader:
    """A body as a file to read from its beginning, and as an iterable of blocks."""

    __slots__ = ("_at", "_body")

    def __init__(self, body: FiledBody) -> None:
        self._body: FiledBody | None = body
        self._at = 0

    def read(self, size: int = -1) -> bytes:
        """The next `size` bytes at most, all that are left if it is negative; b"" at the end, and once closed."""
        if self._body is None:
            return b""
        data = self._body[self._at : len(self._body) if size < 0 else self._at + size]
        self._at += len(data)
        return data

    def __iter__(self) -> Iterator[bytes]:
        while data := self.read(BLOCK):
            yield data

    def close(self) -> None:
        """Let go of the file."""
        self._body = None
