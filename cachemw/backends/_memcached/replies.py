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

from cachemw.backends._memcached.wire import from_wire
from cachemw.backends.base import Value

__all__ = ["Line", "Lines", "Meaning", "OneValue", "Reply", "Several", "Values", "WireError"]

#: What a line says. Raises: WireError if the command cannot have that answer.
Meaning = Callable[[bytes], Any]

#: The longest line that a server has reason to send; a longer one is no memcached's.
_LONGEST_LINE: Final = 2048
#: Keys from which on, and bytes of a value, on average, up to which it is cheaper to copy the values twice than to look
#: for the beginning of each.
_MANY: Final = 8
_SMALL: Final = 2048
#: Digits of a value's size.
_LONGEST_SIZE: Final = 10

_VALUE: Final = re.compile(rb"VALUE ([^ \r\n]{1,250}) ([0-9]{1,10}) ([0-9]{1,10})\r\n")
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
        if at == 0 and type(data) is bytes and (data == _NOTHING or self._take_whole(data)):
            return len(data), True
        return self._each(data, at)

    def _take_whole(self, data: bytes) -> bool:
        """Take it, if it is the whole reply, and nothing else, in the order of the keys, without flags."""
        keys = self._keys
        content = _every(keys, data) if len(keys) >= _MANY and len(data) <= _SMALL * len(keys) else None
        if content is None:
            content = _in_order(keys, data)
        if content is None:
            return False
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
            self._names = {key.encode(): key for key in self._keys}
        return self._names


class OneValue(Values):
    """The same of one key."""

    __slots__ = ()

    def take(self, data: bytes | bytearray, at: int) -> tuple[int, bool]:
        if at == 0 and type(data) is bytes and data.endswith(_VALUES_END):
            start, stop = data.find(b"\r\n") + 2, len(data) - len(_VALUES_END)
            (key,) = self._keys
            if start <= stop and data[:start] == f"VALUE {key} 0 {stop - start}\r\n".encode():
                self.content[key] = data[start:stop]
                return len(data), True
        return super().take(data, at)


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


def _in_order(keys: Sequence[str], data: bytes) -> dict[str, Value] | None:
    """The values if they come in the order of the keys, not necessarily of all of them, and then the end."""
    content: dict[str, Value] = {}
    lead, at = "VALUE ", 0
    for key in keys:
        head = f"{lead}{key} 0 ".encode()
        if data.startswith(head, at):
            begin = at + len(head)
            end = data.find(b"\r\n", begin)
            size = data[begin:end]
            if not size.isdigit() or len(size) > _LONGEST_SIZE:
                return None
            at = end + 2 + int(size)
            content[key] = data[end + 2 : at]
            lead = "\r\nVALUE "
    return content if content and data[at:] == _VALUES_END else None


def _every(keys: Sequence[str], data: bytes) -> dict[str, Value] | None:
    """The values if there is one of each key, in their order.

    A value may have in it what looks like the beginning of the next; its part is then shorter than it says.
    """
    parts = [part.partition(b"\r\n") for part in data[len(b"VALUE ") : -len(_VALUES_END)].split(b"\r\nVALUE ")]
    values = [value for _, _, value in parts]
    if len(values) != len(keys) or not (data.startswith(b"VALUE ") and data.endswith(_VALUES_END)):
        return None
    heads = "\r\n".join([f"{key} 0 {size}" for key, size in zip(keys, map(len, values), strict=True)])
    if b"\r\n".join([head for head, end, _ in parts if end]) != heads.encode():
        return None
    return dict(zip(keys, values, strict=True))


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
