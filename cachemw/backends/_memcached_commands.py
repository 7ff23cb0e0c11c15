"""What a memcached server is asked, in its text protocol, and what it may answer; for threads and for tasks. Pure.

Rule 1: an answer that the command cannot have, or for a key that nobody asked for, is a WireError: what follows on
that connection is nobody's.
Rule 2: an operation is written once, as a generator: it yields a payload and the reply that it expects, is sent the
reply's content, and returns its own result. The clients carry the payloads.
"""

from __future__ import annotations

import re
from abc import ABC, abstractmethod
from collections.abc import Callable, Generator, Iterator, Sequence
from typing import Any, Final, TypeVar

from cachemw.backends import _memcached_wire as wire
from cachemw.backends._memcached_wire import Delta, Stored, from_wire
from cachemw.backends.base import Value

__all__ = [
    "Reply",
    "Talk",
    "Values",
    "WireError",
    "add",
    "add_and_get",
    "commit",
    "delete",
    "flush",
    "get",
    "incr",
    "put",
    "time_left",
    "touch",
]

T = TypeVar("T")

#: The longest line that a server has reason to send; a longer one is no memcached's.
_LONGEST_LINE: Final = 2048
#: Commands sent before their replies are read: these fit into the buffers of two sockets, as nobody reads meanwhile.
_PIPELINE: Final = 1000
#: Bytes sent at once, but for one large value: each payload has a deadline of its own, and stands in memory twice.
_PIPELINE_BYTES: Final = 1024 * 1024

_VALUE: Final = re.compile(rb"VALUE ([^ \r\n]{1,250}) ([0-9]{1,10}) ([0-9]{1,10})\r\n")
_STORED: Final = re.compile(rb"STORED|NOT_STORED|SERVER_ERROR .*")
_DELETED: Final = re.compile(rb"DELETED|NOT_FOUND")
_TOUCHED: Final = re.compile(rb"TOUCHED|NOT_FOUND")
_COUNTED: Final = re.compile(rb"[0-9]{1,20}|NOT_FOUND|CLIENT_ERROR .*")
_FLUSHED: Final = re.compile(rb"OK")
_TIME_LEFT: Final = re.compile(rb"HD t-?[0-9]{1,10}|EN|ERROR|CLIENT_ERROR .*")


class WireError(Exception):
    """The server closed the connection, was late, or did not speak memcached's protocol."""


class Reply(ABC):
    """What is expected; it takes itself from the stream. `content`: what has come of it."""

    __slots__ = ("content",)
    content: Any

    @abstractmethod
    def take(self, data: bytes | bytearray, at: int) -> tuple[int, bool]:
        """Read on from `at`; returns how far it got, and whether the reply is complete. Raises: WireError."""


#: An operation: (payload, expected reply) again and again, and a T.
Talk = Generator[tuple[bytes, Reply], Any, T]


class Lines(Reply):
    """A line for each of `count` commands, and only such as the command can have."""

    __slots__ = ("_count", "_expected")

    def __init__(self, count: int, expected: re.Pattern[bytes]) -> None:
        self._count = count
        self._expected = expected
        self.content: list[bytes] = []

    def take(self, data: bytes | bytearray, at: int) -> tuple[int, bool]:
        while len(self.content) < self._count:
            end = _line_end(data, at)
            if end < 0:
                return at, False
            line = bytes(data[at:end])
            if not self._expected.fullmatch(line):
                raise WireError(f"answered {line[:60]!r}")
            self.content.append(line)
            at = end + 2
        return at, True


class Values(Reply):
    """`VALUE key flags size`, a line with the bytes, and so on until `END`."""

    __slots__ = ("_names",)

    def __init__(self, names: dict[bytes, str]) -> None:
        self._names = names
        self.content: dict[str, Value] = {}

    def take(self, data: bytes | bytearray, at: int) -> tuple[int, bool]:
        names, content = self._names, self.content
        while (header := _VALUE.match(data, at)) is not None:
            name, flags, size = header.groups()
            if name not in names:
                raise WireError(f"answered {header.group()!r}")
            start = header.end()
            stop = start + int(size)
            if len(data) < stop + 2:
                return at, False
            if data[stop : stop + 2] != b"\r\n":
                raise WireError("sent a value that does not end where it says")
            value = data[start:stop] if type(data) is bytes else bytes(memoryview(data)[start:stop])
            content[names[name]] = value if flags == b"0" else from_wire(value, int(flags))
            at = stop + 2
        end = _line_end(data, at)
        if end < 0:
            return at, False
        if data[at:end] == b"END":
            return end + 2, True
        raise WireError(f"answered {bytes(data[at : min(end, at + 60)])!r}")


class Several(Reply):
    """The replies to commands that were sent at once, one after the other."""

    __slots__ = ("_left",)

    def __init__(self, parts: Sequence[Reply]) -> None:
        self.content = [part.content for part in parts]  # which the parts fill
        self._left = list(reversed(parts))

    def take(self, data: bytes | bytearray, at: int) -> tuple[int, bool]:
        while self._left:
            at, complete = self._left[-1].take(data, at)
            if not complete:
                return at, False
            self._left.pop()
        return at, True


def _line_end(data: bytes | bytearray, at: int) -> int:
    """Where the line that begins at `at` ends, -1 if its end has not come. Raises: WireError if it is too long."""
    end = data.find(b"\r\n", at, at + _LONGEST_LINE)
    if end < 0 and len(data) - at >= _LONGEST_LINE:
        raise WireError(f"answered {bytes(data[at : at + 60])!r}…")
    return end


def get(keys: Sequence[str]) -> tuple[bytes, Values]:
    """What is stored of them: one step, which a page's hit takes without a generator."""
    names = {key.encode(): key for key in keys}
    return b"get %b\r\n" % b" ".join(names), Values(names)


def put(entries: Sequence[Stored]) -> Talk[list[str]]:
    """Store them; the keys that the server refused, whose old values are gone."""
    refused: list[str] = []
    for some in _pipelines(entries, lambda entry: len(entry.data)):
        lines = yield b"".join(_storing(b"set", some)), Lines(len(some), _STORED)
        refused += _refused(some, lines)
    if refused:
        yield from delete(refused)
    return refused


def add(entry: Stored) -> Talk[bool]:
    """Store it if there is none; was it?"""
    lines: list[bytes] = yield b"".join(_storing(b"add", (entry,))), Lines(1, _STORED)
    return lines == [b"STORED"]


def touch(key: str, expiry: int) -> Talk[bool]:
    """Give it another expiry; was there one?"""
    lines: list[bytes] = yield b"touch %b %d\r\n" % (key.encode(), expiry), Lines(1, _TOUCHED)
    return lines == [b"TOUCHED"]


def delete(keys: Sequence[str]) -> Talk[int]:
    """Remove them; how many were there."""
    deleted = 0
    for some in _pipelines(keys, len):
        lines: list[bytes] = yield b"".join(_deleting(some)), Lines(len(some), _DELETED)
        deleted += lines.count(b"DELETED")
    return deleted


def incr(key: str, delta: int) -> Talk[int]:
    """Add to an integer. Raises: KeyError, TypeError, OverflowError as `BaseCache._incr`."""
    addition = Delta(delta)
    total = addition.total((yield from _count(key, addition.unsigned)))
    if total is None:
        yield from _count(key, addition.undo)
        raise OverflowError(f"{key!r} {delta:+} does not fit into 64 bits")
    return total


def _count(key: str, delta: int) -> Talk[int]:
    (line,) = yield b"incr %b %d\r\n" % (key.encode(), delta), Lines(1, _COUNTED)
    if line == b"NOT_FOUND":
        raise KeyError(key)
    if not line.isdigit():
        raise TypeError(f"what is stored under {key!r} is no integer")
    return int(line)


def time_left(key: str) -> Talk[float | None]:
    """Seconds it has left, None for ever. Raises: LookupError if there is none or the server cannot tell."""
    (line,) = yield b"mg %b t\r\n" % key.encode(), Lines(1, _TIME_LEFT)
    return wire.time_left(line)


def flush() -> Talk[None]:
    """Remove everything."""
    yield b"flush_all\r\n", Lines(1, _FLUSHED)


def commit(
    entries: Sequence[Stored], latest: Sequence[str], drops: Sequence[str]
) -> Talk[tuple[list[str], dict[str, Value]]]:
    """`put`, then `get`, then `delete`: a server takes the commands of one connection in their order."""
    asked, values = get(latest) if latest else (b"", Several(()))
    parts = [Lines(len(entries), _STORED), values, Lines(len(drops), _DELETED)]
    lines, found, _ = yield b"".join([*_storing(b"set", entries), asked, *_deleting(drops)]), Several(parts)
    if refused := _refused(entries, lines):
        yield from delete(refused)
    return refused, found or {}


def add_and_get(entry: Stored, latest: Sequence[str]) -> Talk[tuple[bool, dict[str, Value]]]:
    """`add`, then `get`."""
    asked, values = get(latest) if latest else (b"", Several(()))
    lines, found = yield b"".join([*_storing(b"add", (entry,)), asked]), Several((Lines(1, _STORED), values))
    return lines == [b"STORED"], found or {}


def _storing(command: bytes, entries: Sequence[Stored]) -> list[bytes]:
    parts: list[bytes] = []  # joined once, with all that goes along: a page may be large
    for key, data, flags, expiry in entries:
        parts += (b"%b %b %d %d %d\r\n" % (command, key.encode(), flags, expiry, len(data)), data, b"\r\n")
    return parts


def _deleting(keys: Sequence[str]) -> list[bytes]:
    return [b"delete %b\r\n" % key.encode() for key in keys]


def _refused(entries: Sequence[Stored], lines: Sequence[bytes]) -> list[str]:
    return [entry.key for entry, line in zip(entries, lines, strict=True) if line != b"STORED"]


def _pipelines(items: Sequence[T], size: Callable[[T], int]) -> Iterator[Sequence[T]]:
    some: list[T] = []
    taken = 0
    for item in items:
        taken += size(item)
        if some and (len(some) == _PIPELINE or taken > _PIPELINE_BYTES):
            yield some
            some, taken = [], size(item)
        some.append(item)
    if some:
        yield some
