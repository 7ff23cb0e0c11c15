"""Bodies of large pages: files of their own, so that a server can send one without anybody reading it.

Rule 1: a body's file never changes and its name is never used again; what is open stays as it is, whatever is stored
in its place meanwhile.
Rule 2: it is there before its record and goes after it. That it was used of late (`st_atime` says when) keeps it for
`GRACE` seconds more: a server opens it a while after it was told the path.
Rule 3: what several responses are made of has no position of its own; each has its reader.
"""

from __future__ import annotations

import errno
import io
import os
import stat
import time
import zlib
from collections.abc import Iterator
from enum import Enum
from typing import Any, Final

from cachemw.backends._file.entry import Reference
from cachemw.backends._file.files import is_in_use, open_body, temporary_name
from cachemw.backends._file.shards import Shards

__all__ = ["BLOCK", "UNVERIFIED", "Bodies", "FiledBody", "NewBody", "Signature", "Unverified", "signature"]

#: Bytes that a reader has in memory at a time, unless it is asked for others.
BLOCK: Final = 64 * 1024
#: Bodies of which it is remembered that they are what was stored; all are forgotten when there are more.
_MOST: Final = 4_096
#: What befalls one file, and is no sign of a store that does not work.
_SPOILT: Final = frozenset({errno.EACCES, errno.EPERM, errno.EIO})

#: What tells a file from any other, and from itself after a change.
Signature = tuple[int, int, int]


class Unverified(Enum):
    """What is said of a body that has to be read first, to whom that would hold up."""

    UNVERIFIED = "unverified"


UNVERIFIED: Final = Unverified.UNVERIFIED


def signature(status: os.stat_result) -> Signature:
    """Of an entry: `st_ctime` is a time that no program can set."""
    return status.st_ino, status.st_ctime_ns, status.st_size


def _body_signature(status: os.stat_result) -> Signature:
    """Of a body: noting that it was used changes its `st_ctime`. What is no file is of no size."""
    return status.st_ino, status.st_mtime_ns, status.st_size if stat.S_ISREG(status.st_mode) else -1


class FiledBody:
    """The whole of an open file, which is closed in the end. See `cachemw.rfc9111.bodies`.

    stands: the file's signature, when it was opened.
    entry: the file of the record that names it, and its signature, where they are known.
    What cannot be read raises OSError: a response must break off rather than end early.
    """

    __slots__ = ("_descriptor", "_entry", "_file", "reference", "stands")

    def __init__(
        self, descriptor: int, file: str, reference: Reference, entry: tuple[str, Signature] | None = None
    ) -> None:
        self._descriptor = descriptor
        self._file = file
        self.reference = reference
        self._entry = entry
        self.stands = _body_signature(os.fstat(descriptor))

    def __len__(self) -> int:
        return self.reference.size

    def __bytes__(self) -> bytes:
        return self[:]

    def __getitem__(self, part: slice) -> bytes:
        size = self.reference.size
        at, end, _ = part.indices(size)
        pieces = []
        while at < end:
            piece = os.pread(self._descriptor, end - at, at)
            if not piece:
                raise OSError(f"A stored body ended at {at} of {size} bytes")
            pieces.append(piece)
            at += len(piece)
        return pieces[0] if len(pieces) == 1 else b"".join(pieces)

    def reader(self) -> FiledBodyReader:
        """One response's way through it."""
        return FiledBodyReader(self)

    def path(self) -> str | None:
        """The path of the file, for a server that opens it within `GRACE` seconds; None if it may not be there then.

        Whoever removes a record looks afterwards whether its body is in use; here that is noted first, and then it is
        looked whether the record is still there: in every order one of the two sees the other.
        """
        if self._entry is None:
            return None
        try:
            if _body_signature(os.fstat(self._descriptor)) != self.stands:
                return None
            written = self.stands[1]
            os.utime(self._descriptor, ns=(max(int(time.time() * 1e9), written + 1), written))
            found = os.lstat(self._file)
            entry, stands = self._entry
            named = signature(os.lstat(entry)) == stands
        except OSError:  # it is gone, or may not be touched
            return None
        return self._file if named and _body_signature(found) == self.stands and is_in_use(found, time.time()) else None

    def reopened(self) -> int:
        """A descriptor of its own for whoever reads by one, as its position is moved. Raises: OSError."""
        descriptor = open_body(self._file)
        if descriptor is not None:
            if _body_signature(os.fstat(descriptor)) == self.stands:
                return descriptor
            os.close(descriptor)
        raise io.UnsupportedOperation("The file is to be had by `read` alone: another one stands in its place")

    def link(self, directory: int) -> str | None:
        """A further name of the file: that of a temporary one, in a shard of the same store; None if that fails."""
        name = temporary_name()
        try:
            os.link(self._file, name, dst_dir_fd=directory)
            if _body_signature(os.stat(name, dir_fd=directory, follow_symlinks=False)) == self.stands:
                return name
            os.unlink(name, dir_fd=directory)
        except OSError:  # it is gone, the file system has no links, or this one no more
            pass
        return None

    def __del__(self) -> None:
        os.close(self._descriptor)


class FiledBodyReader:
    """A body as a file to read from its beginning, and as an iterable of blocks."""

    __slots__ = ("_at", "_body", "_descriptor")

    def __init__(self, body: FiledBody) -> None:
        self._body: FiledBody | None = body
        self._at = 0
        self._descriptor: int | None = None

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

    def fileno(self) -> int:
        """A descriptor for servers that have the kernel send the file; nobody else moves its position, nor `read`.

        Raises: OSError if the file is to be had by `read` alone.
        """
        if self._descriptor is None:
            if self._body is None:
                raise io.UnsupportedOperation("The file was closed")
            self._descriptor = self._body.reopened()
        return self._descriptor

    def close(self) -> None:
        """Let go of the file."""
        self._body = None
        descriptor, self._descriptor = self._descriptor, None
        if descriptor is not None:
            os.close(descriptor)

    def __del__(self) -> None:
        self.close()


class NewBody:
    """A body that is to have a file of its own."""

    def __init__(self, body: Any) -> None:
        self._filed = body if isinstance(body, FiledBody) else None
        self._bytes = b"" if self._filed else bytes(body)
        crc = zlib.crc32(self._bytes) if self._filed is None else self._filed.reference.crc
        self.reference: Final = Reference(os.urandom(16).hex(), len(body), crc)

    def create(self, shards: Shards, directory: int) -> str:
        """Write it to a temporary file of the shard, or link the one that has it already; returns its name."""
        if self._filed is None:
            return shards.create(directory, (self._bytes, b""), allocate=False)
        linked = self._filed.link(directory)
        return linked or shards.create(directory, (bytes(self._filed), b""), allocate=False)


class Bodies:
    """Opens the bodies that records name, and remembers which of them it has seen to be what was stored."""

    def __init__(self) -> None:
        self._verified: dict[str, Signature] = {}

    def open(
        self, entry: str, stands: Signature | None, reference: Reference, *, wait: bool = True
    ) -> FiledBody | Unverified | None:
        """The body, verified; None if it is not there, or not what was stored.

        entry, stands: the file of the record that names it, and its signature, if that is known.
        wait: read the whole file if this process never did; else UNVERIFIED is said of such a one.

        Raises: OSError.
        """
        file = os.path.join(os.path.dirname(entry), reference.file)
        try:
            descriptor = open_body(file)
            if descriptor is None:
                return None
            body = FiledBody(descriptor, file, reference, None if stands is None else (entry, stands))  # who closes it
            if body.stands[2] != reference.size:
                return None
            if self._verified.get(file) == body.stands:
                return body
            if not wait:
                return UNVERIFIED
            crc = 0
            for block in body.reader():
                crc = zlib.crc32(block, crc)
        except OSError as error:
            if error.errno in _SPOILT:
                return None
            raise
        if crc != reference.crc:
            return None
        if len(self._verified) >= _MOST:
            self._verified.clear()
        self._verified[file] = body.stands
        return body
