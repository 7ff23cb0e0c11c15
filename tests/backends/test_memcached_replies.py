"""Replies of memcached: read at one look where that is safe, closely elsewhere, and the same by both ways."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from typing import Any

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from cachemw.backends._memcached import commands
from cachemw.backends._memcached.replies import Line, Lines, OneValue, Reply, Several, Values, WireError
from cachemw.backends._memcached.wire import flagged, from_wire

#: What values hold to be taken for something else.
TRAPS = [
    b"",
    b"\r\n",
    b"END\r\n",
    b"\r\nEND\r\n",
    b"\r\nVALUE k1 0 1\r\nx",
    b"x\r\nVALUE k2 0 0\r\n",
    b"\n",
    b"VALUE k0 0 3\r\nabc\r\nEND\r\n",
]
bodies = st.sampled_from(TRAPS) | st.binary(max_size=20) | st.integers(-5, 5)


def line_of(key: str, value: bytes | int) -> bytes:
    data, flags = flagged(value)
    return b"VALUE %b %d %d\r\n%b\r\n" % (key.encode(), flags, len(data), data)


def reply_of(values: Iterable[tuple[str, bytes | int]]) -> bytes:
    return b"".join(line_of(key, value) for key, value in values) + b"END\r\n"


def read(reply: Reply, pieces: Sequence[bytes]) -> tuple[Any, bytes]:
    """What comes of the pieces, one after the other as a connection hands them on, and what is left of the last."""
    rest: bytes | bytearray = b""
    for number, piece in enumerate(pieces):
        stream = bytearray(rest) + piece if rest else piece
        at, complete = reply.take(stream, 0)
        rest = stream[at:]
        if complete:
            return reply.content, bytes(rest) + b"".join(pieces[number + 1 :])
    return None, bytes(rest)


def closely(keys: Sequence[str], data: bytes) -> dict[str, bytes | int] | None:
    """The same by the protocol's text, without a thought of time; None if it is no complete reply and no more."""
    found: dict[str, bytes | int] = {}
    while data != b"END\r\n":
        head = re.match(rb"VALUE (\S+) (\d{1,10}) (\d{1,10})\r\n", data)
        if head is None or (key := head[1].decode("latin-1")) not in keys:
            return None
        start, stop = head.end(), head.end() + int(head[3])
        if data[stop : stop + 2] != b"\r\n":
            return None
        found[key] = from_wire(data[start:stop], int(head[2]))
        data = data[stop + 2 :]
    return found


def names(count: int) -> tuple[str, ...]:
    return tuple(f"k{number}" for number in range(count))


@given(st.lists(bodies | st.none(), min_size=1, max_size=12), st.lists(st.integers(1, 40), max_size=6))
@example([b"x", b"y"] * 6, [])
@example([b"\r\nVALUE k1 0 1\r\nx"] * 9, [])
@example([None, b"1"], [])
def test_values_come_as_they_are_stored_in_any_pieces(values: list[Any], cuts: list[int]) -> None:
    keys = names(len(values))
    stored = {key: value for key, value in zip(keys, values, strict=True) if value is not None}
    data = reply_of(stored.items())
    pieces, at = [], 0
    for cut in cuts:
        pieces.append(data[at : at + cut])
        at += cut
    for each in (Values, OneValue) if len(keys) == 1 else (Values,):
        assert read(each(keys), [data]) == (stored, b"")
        assert read(each(keys), [piece for piece in (*pieces, data[at:]) if piece]) == (stored, b"")
        assert read(each(keys), [data + b"END\r\n"]) == (stored, b"END\r\n")


@given(st.data())
def test_a_reply_that_has_suffered_is_read_as_it_says_or_not_at_all(data: st.DataObject) -> None:
    keys = names(data.draw(st.sampled_from([1, 2, 9])))
    good = reply_of((key, data.draw(bodies)) for key in keys if data.draw(st.integers(0, 5)))
    start = data.draw(st.integers(0, len(good)))
    stop = data.draw(st.integers(start, min(len(good), start + 9)))
    wrong = data.draw(
        st.sampled_from([b"", b"0", b"1", b" ", b"\r\n", b"_", b"+", b"VALUE k1 0 1\r\n", b"\xb2", b"END\r\n"])
    )
    bad = good[:start] + wrong + good[stop:]
    for each in (Values, OneValue) if len(keys) == 1 else (Values,):
        try:
            content, rest = read(each(keys), [bad])
        except WireError:
            assert closely(keys, bad) is None
        else:
            assert (content if rest == b"" else None) == closely(keys, bad)


@pytest.mark.parametrize(
    "reply",
    [
        b"XALUE k0 0 1\r\nx\r\nEND\r\n",
        b"VALUE k1 0 1\r\nx\r\nEND\r\n",
        b"VALUE k0 0 +1\r\nx\r\nEND\r\n",
        b"VALUE k0 0 1_0\r\nxxxxxxxxxx\r\nEND\r\n",
        b"VALUE k0 0 " + b"1" * 5000 + b"\r\nx\r\nEND\r\n",
        b"VALUE k0 0 " + b"1" * 1500 + b"\r\nx\r\nEND\r\n",
        b"VALUE k0 0 1\r\nxx\r\nEND\r\n",
        b"VALUE k0 0\r\nx\r\nEND\r\n",
        b"VALUE k0 0 0\r\nEND\r\n",
        b"VALUE k0 0 -2\r\nEND\r\n",
        b"VALUE k0 0 -7\r\nEND\r\n",
    ],
    ids=lambda reply: repr(reply[:30]),
)
@pytest.mark.parametrize("each", [Values, OneValue])
def test_a_value_that_is_not_framed_as_it_says_is_refused(each: type[Values], reply: bytes) -> None:
    with pytest.raises(WireError):
        each(("k0",)).take(reply, 0)


@pytest.mark.parametrize("count", [2, 8])
@pytest.mark.parametrize("wrong", range(8))
def test_a_value_without_its_end_is_refused(count: int, wrong: int) -> None:
    """Also an empty one, whose line of nothing is missing: what follows may be taken for it."""
    lines = [line_of(key, b"") for key in names(count)]
    lines[wrong % count] = lines[wrong % count][:-2]
    with pytest.raises(WireError):
        Values(names(count)).take(b"".join(lines) + b"END\r\n", 0)


def test_the_beginnings_of_two_values_are_two_lines() -> None:
    lines = [b"VALUE k0 0 0\nk1 0 0\r\n\r\n", b"VALUE \r\n", *[line_of(key, b"") for key in names(8)[2:]]]
    with pytest.raises(WireError):
        Values(names(8)).take(b"".join(lines) + b"END\r\n", 0)


def test_many_values_may_come_in_another_order() -> None:
    keys = names(20)
    values = {key: key.encode() for key in reversed(keys)}
    assert read(Values(keys), [reply_of(values.items())]) == (values, b"")


def test_large_values_are_read_beside_small_ones() -> None:
    keys = names(10)
    values = {key: b"\r\nVALUE k1 0 1\r\n" * (1 + 3000 * (key == "k4")) for key in keys}
    assert read(Values(keys), [reply_of(values.items())]) == (values, b"")


# -- lines ----------------------------------------------------------------------------------------------------------


def meaning(line: bytes) -> bytes:
    if line.startswith(b"bad"):
        raise WireError("bad")
    return line


@given(st.lists(st.sampled_from([b"a", b"bb", b""]), max_size=5), st.binary(max_size=3), st.data())
def test_lines_are_taken_in_any_pieces_and_not_one_more(lines: list[bytes], more: bytes, data: st.DataObject) -> None:
    text = b"".join(line + b"\r\n" for line in lines) + more
    cut = data.draw(st.integers(0, len(text)))
    assert read(Lines(len(lines), meaning), [text]) == (lines, more)
    if lines:
        assert read(Lines(len(lines), meaning), [text[:cut], text[cut:]]) == (lines, more)


@pytest.mark.parametrize("make", [lambda: Line(meaning), lambda: Lines(2, meaning)])
@pytest.mark.parametrize("text", [b"bad\r\n", b"x" * 3000])
def test_a_line_that_cannot_be_is_refused(make: Any, text: bytes) -> None:
    with pytest.raises(WireError):
        make().take(text, 0)


def test_several_replies_follow_each_other_and_may_be_none() -> None:
    parts = Lines(0, meaning), Line(meaning), Several(), Values(("k0",))
    data = b"a\r\n" + reply_of([("k0", b"x")])
    assert read(Several(*parts), [data]) == ([[], b"a", [], {"k0": b"x"}], b"")
    parts = Lines(0, meaning), Line(meaning), Several(), Values(("k0",))
    assert read(Several(*parts), [data[:5], data[5:]]) == ([[], b"a", [], {"k0": b"x"}], b"")


# -- commands -------------------------------------------------------------------------------------------------------


def carried(talk: commands.Talk[Any], line: bytes) -> tuple[list[bytes], Any]:
    """What is sent if every command is answered with the line, and what comes of it."""
    payloads: list[bytes] = []
    answer = None
    while True:
        try:
            payload, make, given_ = talk.send(answer)
        except StopIteration as end:
            return payloads, end.value
        payloads.append(payload)
        answer, _ = read(make(*given_), [line * payload.count(b"\r\n")])


def test_commands_of_many_entries_are_sent_in_bounded_payloads() -> None:
    entries = [(f"k{number}", b"x" * 600_000, None) for number in range(3)]
    payloads, refused = carried(commands.put_all(entries, commands.AT_ONCE), b"STORED\r\n")
    assert [payload.count(b"set ") for payload in payloads] == [1, 1, 1]
    assert refused == []
    keys = [f"k{number}" for number in range(2500)]
    payloads, deleted = carried(commands.delete_all(keys, commands.AT_ONCE), b"DELETED\r\n")
    assert [payload.count(b"\r\n") for payload in payloads] == [1000, 1000, 500]
    assert deleted == 2500
    assert carried(commands.delete_all([], commands.AT_ONCE), b"DELETED\r\n") == ([], 0)


@pytest.mark.parametrize("most", [commands.AT_ONCE, 1])
def test_what_a_server_refuses_to_commit_is_deleted(most: int) -> None:
    talk = commands.commit([("a", b"x", None), ("b", b"y", None)], (), ("c",), most)
    asked, answer = b"", None
    while True:
        try:
            payload, make, given_ = talk.send(answer)
        except StopIteration as end:
            result = end.value
            break
        asked += payload
        lines = b"SERVER_ERROR no memory\r\n" * payload.count(b"set ") + b"DELETED\r\n" * payload.count(b"delete ")
        answer, _ = read(make(*given_), [lines])
    assert result == (["a", "b"], {})
    assert asked.count(b"delete a") == asked.count(b"delete b") == asked.count(b"delete c") == 1


@given(st.lists(st.integers(0, 20_000), max_size=30), st.sampled_from(["k", "ключ" * 20, "k" * 240]))
def test_over_tls_a_payload_is_one_record_or_one_command(sizes: list[int], key: str) -> None:
    entries: list[Any] = [(f"{key}{number}", b"x" * size, 5e8) for number, size in enumerate(sizes)]
    payloads, _ = carried(commands.put_all(entries, commands.RECORD), b"STORED\r\n")
    assert b"".join(payloads).count(b"set ") == len(entries)
    assert all(len(payload) <= commands.RECORD or payload.count(b"set ") == 1 for payload in payloads)
    payloads, deleted = carried(
        commands.delete_all([name for name, _, _ in entries] * 40, commands.RECORD), b"DELETED\r\n"
    )
    assert deleted == len(entries) * 40
    assert all(len(payload) <= commands.RECORD for payload in payloads)


def test_the_expiry_of_each_entry_is_its_own() -> None:
    payload, _, _ = next(
        commands.put_all([("a", b"", None), ("b", b"", 5.0), ("c", b"", 5.0), ("d", 7, None)], commands.AT_ONCE)
    )
    assert payload.splitlines()[::2] == [b"set a 0 0 0", b"set b 0 5 0", b"set c 0 5 0", b"set d 4 0 19"]
