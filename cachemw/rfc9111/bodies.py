"""Bodies of stored responses: bytes, or an object in their place if they are too many to be held in memory."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Protocol

__all__ = ["Body", "BodyReader", "LargeBody"]


class BodyReader(Protocol):
    """One response's way through a body, from its beginning: a file for whoever reads it, and its blocks to iterate."""

    def read(self, size: int = -1, /) -> bytes: ...

    def close(self) -> None: ...

    def __iter__(self) -> Iterator[bytes]: ...


class LargeBody(Protocol):
    """A body whose parts are read when they are asked for. It never changes; several readers may read it at once."""

    def __len__(self) -> int: ...

    def __bytes__(self) -> bytes: ...

    def __getitem__(self, part: slice, /) -> bytes: ...

    def reader(self) -> BodyReader: ...

    def path(self) -> str | None:
        """The absolute path of a file that holds only the body, for a server that opens it within the next minute.

        None if there is no such file, or if it may be gone by then.
        """
        ...


Body = bytes | LargeBody
