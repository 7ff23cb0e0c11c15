"""Frames: different values never look alike, equal values always do, and what has no identity has no key."""

from __future__ import annotations

import collections
import enum
import io
import os
import struct
import subprocess
import sys
from collections import OrderedDict
from datetime import UTC, date, datetime, time, timedelta, timezone, tzinfo
from decimal import Decimal
from pathlib import Path, PurePosixPath, PureWindowsPath
from typing import Any, NamedTuple
from uuid import UUID
from zoneinfo import ZoneInfo

import pytest
from hypothesis import given
from hypothesis import strategies as st
from markupsafe import Markup

from cachemw._memoize.keys import digest, frame, label


class Colour(enum.Enum):
    RED = 1
    BLUE = 2


class Shade(enum.Enum):
    RED = 1


class Size(enum.IntEnum):
    ONE = 1


class Right(enum.Flag):
    READ = 1
    WRITE = 2


class Point(NamedTuple):
    x: int
    y: int


class UserId(int):
    """Adds nothing but a name."""


class Noted(str):
    """Has room for more."""

    __slots__ = ("note",)


class User:
    def __str__(self) -> str:
        return "user"


PLAIN = (
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats(allow_nan=False)
    | st.text(max_size=6)
    | st.binary(max_size=6)
    | st.decimals(allow_nan=False)
    | st.dates()
    | st.datetimes()
    | st.timedeltas()
    | st.uuids()
    | st.sampled_from([*Colour, *Shade, *Size, Right.READ, Right.READ | Right.WRITE])
)
HASHABLE = st.recursive(PLAIN, lambda inner: st.tuples(inner, inner) | st.frozensets(inner, max_size=3), max_leaves=6)
VALUES = st.recursive(
    PLAIN,
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.tuples(inner, inner)
        | st.dictionaries(HASHABLE, inner, max_size=3)
        | st.sets(HASHABLE, max_size=3)
        | st.frozensets(HASHABLE, max_size=3)
    ),
    max_leaves=10,
)


def spelled(value: Any) -> Any:
    """What a value is, in a form that compares types too: 1, 1.0 and True are three things, 0.0 and -0.0 two."""
    if isinstance(value, list | tuple):
        return type(value), [spelled(one) for one in value]
    if isinstance(value, set | frozenset):
        return type(value), collections.Counter(repr(spelled(one)) for one in value)
    if isinstance(value, dict):
        return dict, collections.Counter(repr((spelled(key), spelled(one))) for key, one in value.items())
    return type(value), repr(value)


@given(VALUES, VALUES)
def test_two_values_share_a_frame_only_if_they_are_the_same(one: Any, other: Any) -> None:
    assert (frame(one) == frame(other)) == (spelled(one) == spelled(other))


@given(st.lists(VALUES, max_size=4), st.lists(VALUES, max_size=4))
def test_frames_in_a_row_cannot_be_read_in_two_ways(one: list[Any], other: list[Any]) -> None:
    same = [spelled(value) for value in one] == [spelled(value) for value in other]
    assert (b"".join(map(frame, one)) == b"".join(map(frame, other))) == same
    assert (digest(*map(frame, one)) == digest(*map(frame, other))) == same


@given(st.text(max_size=8), VALUES)
def test_a_text_that_looks_like_frames_is_a_text(text: str, value: Any) -> None:
    """Somebody who knows the format puts the next frame into his name."""
    inside = frame(value).decode("utf-8", "surrogateescape")
    assert frame([text + inside]) != frame([text, value])
    assert frame([inside + text]) != frame([value, text])
    for tag in "sblt":
        assert frame([f"{text}{tag}:{text}"]) != frame([text, text])
        assert frame([f"{text}{tag}{len(text)}:{text}"]) != frame([text, text])


ALIKE: list[list[Any]] = [
    [1, True, 1.0, "1", b"1", Decimal(1), Size.ONE, UserId(1), 1 + 0j, Decimal("1.0"), bytearray(b"1")],
    [["a:b"], ["a", "b"], ["ab"], ["a", "", "b"], "a:b", ("a", "b"), {"a", "b"}, frozenset({"a", "b"}), [["a", "b"]]],
    [None, "None", "", [], (), {}, set(), frozenset(), b"", ..., 0, False, [None], range(0)],
    [{"a": 1}, OrderedDict(a=1), [("a", 1)], {"a": "1"}, {"a": True}, {"a1": ""}],
    [OrderedDict([("a", 1), ("b", 2)]), OrderedDict([("b", 2), ("a", 1)]), {"a": 1, "b": 2}],
    [Colour.RED, Shade.RED, "RED", 1, Colour, Shade],
    [Point(1, 2), (1, 2), [1, 2], Point(2, 1)],
    ["<b>", Markup("<b>")],
    [0.0, -0.0, 0],
    [float("inf"), float("-inf"), float("nan"), "nan"],
    [10**5000, 10**5000 + 1, -(10**5000)],
    ["\ud800\udc00", "\U00010000", "\ud800", "?"],
    [date(2024, 1, 1), datetime(2024, 1, 1), "2024-01-01", datetime(2024, 1, 1, tzinfo=UTC)],
    [
        datetime(2024, 10, 27, 2, tzinfo=ZoneInfo("Europe/Berlin")),
        datetime(2024, 10, 27, 2, fold=1, tzinfo=ZoneInfo("Europe/Berlin")),
        datetime(2024, 10, 27, 2, tzinfo=ZoneInfo("Europe/Paris")),
        datetime(2024, 10, 27, 2, tzinfo=timezone(timedelta(hours=2))),
        datetime(2024, 10, 27, 2, tzinfo=timezone(timedelta(hours=2), "CEST")),
    ],
    [time(1, 2), time(1, 2, tzinfo=UTC), "01:02:00", timedelta(hours=1, minutes=2)],
    [UUID(int=1), str(UUID(int=1)), UUID(int=1).bytes],
    [Path("/a"), PurePosixPath("/a"), PureWindowsPath("/a"), "/a"],
    [range(3), range(0, 3, 2), [0, 1, 2], range(4)],
    [len, os.getcwd, os.path.join, Point, User, int, "len"],
    [Right.READ, Right.WRITE, Right.READ | Right.WRITE, Right(0)],
]


@pytest.mark.parametrize("values", ALIKE, ids=range(len(ALIKE)))
def test_what_looks_alike_is_told_apart(values: list[Any]) -> None:
    assert len({frame(value) for value in values}) == len(values)


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ({"a": 1, "b": 2}, {"b": 2, "a": 1}),
        ({3, 1, 2}, {2, 3, 1}),
        (frozenset("abc"), frozenset("cba")),
        ([{"x": {"y"}}], [{"x": {"y"}}]),
        (Point(1, 2), Point(1, 2)),
        (Markup("x"), Markup("x")),
        (UserId(7), UserId(7)),
        (float("nan"), float("nan")),
    ],
)
def test_what_is_equal_has_one_frame(one: Any, other: Any) -> None:
    assert frame(one) == frame(other)


class Nowhere(tzinfo):
    def utcoffset(self, when: datetime | None) -> timedelta:
        return timedelta(0)

    def tzname(self, when: datetime | None) -> str:
        return "UTC"

    def dst(self, when: datetime | None) -> None:
        return None


def nameless_zone() -> ZoneInfo:
    """A time zone of half an hour, from a file of its own (RFC 8536 §3)."""
    header = b"TZif" + bytes(16) + struct.pack(">6l", 0, 0, 0, 0, 1, 4)
    return ZoneInfo.from_file(io.BytesIO(header + struct.pack(">lbb", 1800, 0, 0) + b"HAL\0"))


def local_class() -> type:
    class Local:
        pass

    return Local


def noted() -> Noted:
    text = Noted("x")
    text.note = "y"  # type: ignore[attr-defined]
    return text


def described() -> UserId:
    user = UserId(1)
    user.name = "x"  # type: ignore[attr-defined]
    return user


def circle() -> list[Any]:
    circle: list[Any] = []
    circle.append(circle)
    return circle


@pytest.mark.parametrize(
    "value",
    [
        User(),
        object(),
        [1, {"a": User()}],
        iter([]),
        (one for one in [1]),
        memoryview(b""),
        os,
        lambda: None,
        local_class(),
        local_class()(),
        noted(),
        described(),
        collections.Counter("a"),
        collections.defaultdict(list),
        circle(),
        datetime(2024, 1, 1, tzinfo=Nowhere()),
        time(1, tzinfo=Nowhere()),
        datetime(2024, 1, 1, tzinfo=nameless_zone()),
    ],
    ids=lambda value: type(value).__name__,
)
def test_what_has_no_identity_has_no_key(value: Any) -> None:
    with pytest.raises(TypeError, match="no key"):
        frame(value)


def test_a_function_that_passes_for_another_has_no_key() -> None:
    def getcwd() -> str:
        return "elsewhere"

    getcwd.__module__, getcwd.__qualname__ = "os", "getcwd"
    with pytest.raises(TypeError, match="function getcwd, which cannot be imported by its name"):
        frame(getcwd)
    getcwd.__module__ = "no.such.module"
    with pytest.raises(TypeError, match="cannot be imported"):
        frame(getcwd)


def test_another_process_makes_the_same_frames() -> None:
    """Sets and texts have another order and another hash there."""
    program = (
        "from cachemw._memoize.keys import digest, frame\n"
        "print(digest(frame({'a', 'b', 'c', ('d', 1)}), frame({'x': {'y', 'z'}, 'w': b'1'}), frame(len)))"
    )
    seen = {
        subprocess.run(
            [sys.executable, "-c", program],
            env={**os.environ, "PYTHONHASHSEED": seed, "PYTHONPATH": str(Path(__file__).parent.parent)},
            capture_output=True,
            text=True,
            check=True,
        ).stdout
        for seed in ("1", "2")
    }
    assert len(seen) == 1


@given(st.text())
def test_a_label_stands_in_every_stores_key(name: str) -> None:
    made = label(name)
    assert made.isascii()
    assert made.isprintable()
    assert " " not in made
    assert len(made) <= 100
