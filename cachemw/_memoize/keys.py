"""Values as bytes, different for different values: the keys of fragments and memoized calls are made of them.

Rule 1: a frame is a tag for the type, a length, and the content; members of a container are frames. 1, True, 1.0 and
        "1" differ, and so do ["a:b"] and ["a", "b"].
Rule 2: all processes make the same frame of equal values: it has no address, no `hash()`, no order of a set.
Rule 3: other types have no frame, so no key. Nothing is guessed from `str` or `repr`: two users may have one name.
"""

from __future__ import annotations

import re
import sys
from collections import OrderedDict
from collections.abc import Callable, Iterable
from datetime import date, datetime, time, timedelta, timezone
from decimal import Decimal
from enum import Enum
from hashlib import blake2b
from pathlib import PosixPath, PurePosixPath, PureWindowsPath
from types import BuiltinFunctionType, FunctionType
from typing import Any, Final
from uuid import UUID
from zoneinfo import ZoneInfo

__all__ = ["digest", "frame", "label", "reference"]

_DIGEST_SIZE: Final = 16  # bytes, as in the keys of pages


def digest(*frames: bytes) -> str:
    """The frames in 32 hexadecimal digits."""
    return blake2b(b"".join(frames), digest_size=_DIGEST_SIZE).hexdigest()


def label(name: str) -> str:
    """The readable part of a key, with characters that any store allows; the digest has the exact name."""
    return re.sub(r"[^A-Za-z0-9_.-]", "_", name)[:100]


def frame(value: Any) -> bytes:
    """The value's type and content as bytes. Raises: TypeError if it cannot be part of a key."""
    try:
        return _frame(value)
    except RecursionError:
        raise TypeError(f"a {type(value).__name__} that contains itself, or too much, has no key") from None


def _frame(value: Any) -> bytes:
    return _EXACT.get(type(value), _other)(value)


def _framed(tag: bytes, content: bytes) -> bytes:
    return b"%b%d:%b" % (tag, len(content), content)


def _text(tag: bytes) -> Callable[[Any], bytes]:
    return lambda value: _framed(tag, str(value).encode("utf-8", "surrogatepass"))


def _members(tag: bytes) -> Callable[[Any], bytes]:
    return lambda value: _framed(tag, b"".join(map(_frame, value)))


def _unordered(tag: bytes) -> Callable[[Any], bytes]:
    return lambda value: _framed(tag, b"".join(sorted(map(_frame, value))))


def _pairs(pairs: Iterable[tuple[Any, Any]]) -> list[bytes]:
    return [_frame(key) + _frame(value) for key, value in pairs]


def _clock(tag: bytes) -> Callable[[Any], bytes]:
    """Times with their zone: one instant is on another day in another zone, or a day later has another offset."""

    def make(value: datetime | time) -> bytes:
        zone = value.tzinfo
        if zone is None or type(zone) is timezone or (type(zone) is ZoneInfo and zone.key):
            return _framed(tag, f"{value.isoformat()} {value.fold} {zone!r}".encode())
        raise TypeError(f"a {type(value).__name__} with a time zone of type {type(zone).__name__} has no key")

    return make


_EXACT: Final[dict[type, Callable[[Any], bytes]]] = {
    type(None): lambda value: b"N0:",
    type(...): lambda value: b"e0:",
    bool: lambda value: b"B1:1" if value else b"B1:0",
    int: lambda value: _framed(b"i", b"%x" % value),  # decimal digits have a limit, and cost the square of their number
    float: _text(b"f"),
    complex: _text(b"c"),
    str: lambda value: _framed(b"s", value.encode("utf-8", "surrogatepass")),
    bytes: lambda value: _framed(b"b", value),
    bytearray: lambda value: _framed(b"a", bytes(value)),
    tuple: _members(b"t"),
    list: _members(b"l"),
    set: _unordered(b"u"),
    frozenset: _unordered(b"z"),
    dict: lambda value: _framed(b"d", b"".join(sorted(_pairs(value.items())))),
    OrderedDict: lambda value: _framed(b"o", b"".join(_pairs(value.items()))),
    slice: lambda value: _framed(b"Y", b"".join(map(_frame, (value.start, value.stop, value.step)))),
    range: lambda value: _framed(b"r", b"".join(map(_frame, (value.start, value.stop, value.step)))),
    date: _text(b"D"),
    datetime: _clock(b"T"),
    time: _clock(b"C"),
    timedelta: lambda value: _framed(b"L", b"".join(map(_frame, (value.days, value.seconds, value.microseconds)))),
    Decimal: _text(b"M"),
    UUID: _text(b"U"),
    PurePosixPath: _text(b"P"),
    PosixPath: _text(b"p"),
    PureWindowsPath: _text(b"W"),
}

#: By base class, the plain value of a subclass that adds only a name (`Markup`, a named tuple, `class UserId(int)`).
_BASES: Final[dict[type, Callable[[Any], Any]]] = {
    str: str.__str__,
    bytes: lambda value: bytes.__getitem__(value, slice(None)),
    int: int.__int__,
    float: float.__float__,
    tuple: lambda value: tuple(tuple.__iter__(value)),
}


def _other(value: Any) -> bytes:
    kind = type(value)
    if isinstance(value, Enum):
        return _framed(b"E", reference(kind) + _frame(value.name or value.value))  # a Flag may have no name
    if isinstance(value, type | FunctionType | BuiltinFunctionType):
        return reference(value)
    for base, bare in _BASES.items():
        if isinstance(value, base) and not _has_state(value, base):
            return _framed(b"S", reference(kind) + _frame(bare(value)))
    raise TypeError(f"a {kind.__module__}.{kind.__qualname__} has no key")


def _has_state(value: Any, base: type) -> bool:
    """Has the instance attributes, which its base has not?"""
    classes = type(value).__mro__
    slots = [one.__dict__.get("__slots__", ()) for one in classes[: classes.index(base)]]
    return bool(getattr(value, "__dict__", None)) or any(slots)


def reference(value: Any) -> bytes:
    """A class or a function by its name. Raises: TypeError if it cannot be imported by this name."""
    name = value.__qualname__
    found: Any = sys.modules.get(value.__module__)
    for part in name.split("."):
        found = getattr(found, part, None)
    if found is not value:
        kind = "class" if isinstance(value, type) else "function"
        raise TypeError(f"the {kind} {name}, which cannot be imported by its name, has no key")
    return _framed(b"R", f"{value.__module__}:{name}".encode())
