"""Range and Content-Range (RFC 9110 §14)."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cachemw.rfc9111.fields import ByteRange, parse_content_range, parse_range

HOSTILE = st.lists(st.sampled_from(["bytes", "=", "-", ",", " ", "\t", "0", "99", "/", "*", "é"])).map("".join)
POSITIONS = st.integers(0, 10**17)


# RFC 9110 §14.1.2: "The first 500 bytes (byte offsets 0-499, inclusive): bytes=0-499", and so on
@pytest.mark.parametrize(
    ("text", "ranges"),
    [
        ("bytes=0-499", ((0, 499),)),
        ("bytes=500-999", ((500, 999),)),
        ("bytes=-500", ((None, 500),)),
        ("bytes=9500-", ((9500, None),)),
        ("bytes=0-0,-1", ((0, 0), (None, 1))),
        ("bytes= 0-999, 4500-5499\t, -1000", ((0, 999), (4500, 5499), (None, 1000))),
        ("BYTES=0-1", ((0, 1),)),  # §14.1: "All range unit names are case-insensitive"
        (" bytes=0-1 ", ((0, 1),)),
        ("bytes=,0-1,,", ((0, 1),)),
        ("bytes=-0", ((None, 0),)),
        ("bytes=007-010", ((7, 10),)),
        (f"bytes={7:050}-{10:050}", ((7, 10),)),
        ("bytes=0-" + "9" * 5000, ((0, 10**18),)),
        ("bytes=" + "9" * 5000 + "-", ((10**18, None),)),
        ("", None),
        ("bytes", None),
        ("bytes=", None),
        ("bytes=,", None),
        ("bytes=-", None),
        ("bytes=5-4", None),  # "An int-range is invalid if the last-pos value is present and less than first-pos"
        ("bytes=0-1,5-4", None),
        ("bytes=a-b", None),
        ("bytes=0 - 1", None),
        ("bytes=0-1-2", None),
        ("bytes=+0-1", None),
        ("bytes=--1", None),
        ("bytes=1", None),
        ("bytes=0-1;", None),
        ("bytes=²-3", None),
        ("bytes =0-1", None),
        ("lines=0-1", None),
        ("=0-1", None),
        ("bytes==0-1", None),
    ],
)
def test_ranges(text: str, ranges: tuple[ByteRange, ...] | None) -> None:
    assert parse_range(text) == ranges


def test_more_than_200_ranges_are_ignored() -> None:
    assert parse_range("bytes=" + ",".join(["0-0"] * 200)) == ((0, 0),) * 200
    assert parse_range("bytes=" + ",".join(["0-0"] * 201)) is None


@given(st.lists(st.tuples(st.none(), POSITIONS) | st.tuples(POSITIONS, st.none()), min_size=1, max_size=20))
def test_ranges_round_trip(ranges: list[ByteRange]) -> None:
    specs = ["-".join("" if position is None else str(position) for position in pair) for pair in ranges]
    assert parse_range("bytes=" + ",".join(specs)) == tuple(ranges)


@given(HOSTILE)
def test_ranges_never_raise(text: str) -> None:
    for first, last in parse_range(text) or ():
        assert first is not None or last is not None
        assert first is None or last is None or first <= last


@pytest.mark.parametrize(
    ("text", "parsed"),
    [
        ("bytes 42-1233/1234", (42, 1233, 1234)),
        ("bytes 42-1233/*", (42, 1233, None)),
        ("Bytes 0-0/1", (0, 0, 1)),
        ("\tbytes 0-0/1 ", (0, 0, 1)),
        ("bytes */1234", None),
        ("bytes 1-0/5", None),
        ("bytes 0-4/4", None),
        ("bytes 0-5/4", None),
        ("bytes 0-/4", None),
        ("bytes -3/4", None),
        ("bytes 0-1", None),
        ("bytes 0-1/", None),
        ("bytes=0-1/2", None),
        ("bytes  0-1/2", None),
        ("bytes 0-1/2, bytes 0-1/2", None),
        ("bytes 0 - 1/2", None),
        ("bytes 0-1/ 2", None),
        ("bytes 0-" + "9" * 19 + "/*", None),
        ("lines 0-1/2", None),
        ("", None),
    ],
)
def test_content_range(text: str, parsed: tuple[int, int, int | None] | None) -> None:
    assert parse_content_range(text) == parsed


@given(POSITIONS, POSITIONS, POSITIONS, st.booleans())
def test_content_range_round_trips(first: int, more: int, beyond: int, known: bool) -> None:
    last, complete = first + more, first + more + beyond + 1
    text = f"bytes {first}-{last}/{complete if known else '*'}"
    assert parse_content_range(text) == (first, last, complete if known else None)


@given(HOSTILE)
def test_content_range_never_raises(text: str) -> None:
    parsed = parse_content_range(text)
    assert parsed is None or parsed[0] <= parsed[1] < (parsed[2] or parsed[1] + 1)
