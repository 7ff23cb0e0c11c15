"""What a memcached server may answer in its text protocol, whoever reads it. Pure.

Rule 1: an answer that the command cannot have, or for a key that nobody asked for, is a WireError: what follows on
that connection is nobody's.
Rule 2: a reply that has come as a whole, as nearly all do, is read at one look, and only if its lengths say what it
is; all else is read piece by piece, closely.
"""

from __future__ import annotations

import re
from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from typing import Any, Final

from cachemw.backends._memcached_wire import from_wire
from cachemw.backends.base import Value

__all__ = ["Line", "Lines", "Meaning", "OneValue", "Reply", "Several", "Values", "WireError"]

#: What a line says. Raises: WireError if the command cannot have that answer.
Meaning = Callable[[bytes], Any]

#: The longest line that a server has reason to send; a longer one is no memcached's.
_LONGEST_LINE: Final = 2048
#: Bytes of a value, on average, up to which it is cheaper to copy it twice than to look for its beginning.
_SMALL: Final = 2048

_VALUE: Final = re.compile(rb"VALUE ([^ \r\n]{1,250}) ([0-9]{1,10}) ([0-9]{1,10})\r\n")
_VALUE_START: Final = b"VALUE "
_VALUES_END: Final = b"\r\nEND\r\n"
_NOTHING: Final = b"END\r\n"


class WireError(Exception):
    """The server closed the connection, was late, or did not speak memcached's protocol."""


class Reply(ABC):
    """What is expected; it takes itself from the stream. `content`: what has come of it."""

    __slots__ = ("content",)
    content: Any

    @abstractmethod
    def take(self, data: bytes | bytearray, at: int) -> tuple[int, bool]:
        """Read on from `at`; returns how far it got, and whether the reply is complete. Raises: WireError."""


class Line(Reply):
    """A line; what it means is the content."""

    __slots__ = ("_meaning",)

    def __init__(self, meaning: Meaning) -> None:
        self._meaning = meaning

    def take(self, data: bytes | bytearray, at: int) -> tuple[int, bool]:
        end = data.find(b"\r\n", at)
        if end < 0:
            _no_line(data, at)
            return at, False
        self.content = self._meaning(bytes(data[at:end]))
        return end + 2, True


class Lines(Reply):
    """A line for each of `count` commands; what they mean is the content."""

    __slots__ = ("_count", "_meaning")

    def __init__(self, count: int, meaning: Meaning) -> None:
        self._count = count
        self._meaning = meaning
        self.content: list[Any] = []

    def take(self, data: bytes | bytearray, at: int) -> tuple[int, bool]:
        *lines, rest = bytes(data[at:]).split(b"\r\n", self._count - len(self.content))
        meanings = {line: self._meaning(line) for line in dict.fromkeys(lines)}  # most are the same
        self.content += [meanings[line] for line in lines]
        complete = len(self.content) == self._count
        if not complete:
            _no_line(rest, 0)
        return len(data) - len(rest), complete


class Values(Reply):
    """`VALUE key flags size`, a line with the bytes, and so on until `END`; a dictionary."""

    __slots__ = ("_keys", "_names")

    def __init__(self, keys: Sequence[str]) -> None:
        self._keys = keys
        self._names: dict[bytes, str] | None = None
        self.content: dict[str, Value] = {}

    def take(self, data: bytes | bytearray, at: int) -> tuple[int, bool]:
        if at == 0 and type(data) is bytes and (data == _NOTHING or self._at_once(data)):
            return len(data), True
        return self._each(data, at)

    def _at_once(self, data: bytes) -> bool:
        """Take it, if it is the whole reply, and nothing else, of small values without flags.

        A value may have in it what looks like the beginning of the next; its part is then shorter than it says.
        """
        if not (data.startswith(_VALUE_START) and data.endswith(_VALUES_END)) or len(data) > _SMALL * len(self._keys):
            return False
        names = self._known()
        content: dict[str, Value] = {}
        for part in data[len(_VALUE_START) : -len(_VALUES_END)].split(b"\r\n" + _VALUE_START):
            head, _, value = part.partition(b"\r\n")
            name, _, size = head.partition(b" 0 ")
            if name not in names or size != b"%d" % len(value):
                return False
            content[names[name]] = value
        self.content |= content
        return True

    def _each(self, data: bytes | bytearray, at: int) -> tuple[int, bool]:
        names, content = self._known(), self.content
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

    def _known(self) -> dict[bytes, str]:
        """The keys by their names on the wire."""
        if self._names is None:
            self._names = dict(zip(map(str.encode, self._keys), self._keys, strict=True))
        return self._names


class OneValue(Values):
    """The same of one key."""

    __slots__ = ()

    def _at_once(self, data: bytes) -> bool:
        start = data.find(b"\r\n") + 2
        value = data[start : -len(_VALUES_END)]
        (key,) = self._keys
        if data.endswith(_VALUES_END) and data[:start] == f"VALUE {key} 0 {len(value)}\r\n".encode():
            self.content[key] = value
            return True
        return False


class Several(Reply):
    """The replies to commands that were sent at once, one after the other."""

    __slots__ = ("_left",)

    def __init__(self, *parts: Reply) -> None:
        self._left = list(reversed(parts))
        self.content: list[Any] = []

    def take(self, data: bytes | bytearray, at: int) -> tuple[int, bool]:
        while self._left:
            at, complete = self._left[-1].take(data, at)
            if not complete:
                return at, False
            self.content.append(self._left.pop().content)
        return at, True


def _line_end(data: bytes | bytearray, at: int) -> int:
    """Where the line that begins at `at` ends, -1 if its end has not come. Raises: WireError if it is too long."""
    end = data.find(b"\r\n", at, at + _LONGEST_LINE)
    if end < 0:
        _no_line(data, at)
    return end


def _no_line(data: bytes | bytearray, at: int) -> None:
    """There is no end of the line that begins at `at`. Raises: WireError if it is too long already."""
    if len(data) - at >= _LONGEST_LINE:
        raise WireError(f"answered {bytes(data[at : at + 60])!r}…")
