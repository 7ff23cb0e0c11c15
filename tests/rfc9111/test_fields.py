"""Tokens, lists, delta-seconds, Vary, Age and tags."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cachemw.rfc9111.fields import (
    MAX_DELTA,
    has_bad_octets,
    is_token,
    parse_age,
    parse_delta_seconds,
    parse_list,
    parse_tags,
    parse_vary,
)
from cachemw.rfc9111.syntax import parse_dictionary

FIELD_TEXT = st.text(st.characters(max_codepoint=255)) | st.text(st.sampled_from(' \t,;="\\*-:W/a0\x85\xa0'))


# RFC 9111 §1.2.2: "A recipient parsing a delta-seconds value and converting it to binary form ought to use an
# arithmetic type of at least 31 bits of non-negative integer range. If a cache receives a delta-seconds value greater
# than the greatest integer it can represent, or if any of its subsequent calculations overflows, the cache MUST
# consider the value to be 2147483648 (2^31) or the greatest positive integer it can conveniently represent."
@pytest.mark.parametrize(
    ("text", "seconds"),
    [
        ("0", 0),
        ("60", 60),
        ("00060", 60),
        ("2147483647", 2147483647),
        ("2147483648", MAX_DELTA),
        ("2147483649", MAX_DELTA),
        ("99999999999", MAX_DELTA),
        ("9" * 5000, MAX_DELTA),  # int() refuses more than 4300 digits
        ("0" * 5000, 0),
        ("0" * 5000 + "7", 7),
        ("", None),
        ("-1", None),
        ("+1", None),
        ("1_0", None),
        ("1.0", None),
        ("1e3", None),
        (" 1", None),
        ("1 ", None),
        ("1\n", None),
        ("0x10", None),
        ("²", None),
        ("١٢", None),
        ("a3600", None),
        ("3600a", None),
    ],
)
def test_delta_seconds_are_ascii_digits_and_at_most_2_31(text: str, seconds: int | None) -> None:
    assert parse_delta_seconds(text) == seconds


@given(st.integers(0, 2**40))
def test_delta_seconds_round_trip(seconds: int) -> None:
    assert parse_delta_seconds(str(seconds)) == min(seconds, MAX_DELTA)


# RFC 9110 §5.6.1.2: "A recipient MUST parse and ignore a reasonable number of empty list elements"
@pytest.mark.parametrize(
    ("lines", "members"),
    [
        ([], []),
        ([""], []),
        (["a"], ["a"]),
        (["a, b", "c"], ["a", "b", "c"]),
        (["foo ,bar,"], ["foo", "bar"]),
        (["foo , ,bar,charlie"], ["foo", "bar", "charlie"]),
        ([",   ,", "\t,\t"], []),
        (["\ta b \t"], ["a b"]),
        (['a="x,y", b'], ['a="x,y"', "b"]),
        (['"a\\",b", c'], ['"a\\",b"', "c"]),
        (['"a\\\\", b'], ['"a\\\\"', "b"]),
        (['a="x,y";b="z,w",c'], ['a="x,y";b="z,w"', "c"]),
        (['""'], ['""']),
        (['a, "b, c'], ["a", '"b', "c"]),  # never closed: hides nothing
        (['a="x,y", "b, c'], ['a="x,y"', '"b', "c"]),
        (['a, b"c, d'], ["a", 'b"c', "d"]),
        (['"a" b"c, d'], ['"a" b"c', "d"]),
        (['"a",", d'], ['"a"', '"', "d"]),
        (['"a\\'], ['"a\\']),
        (['"a', 'b"'], ['"a', 'b"']),  # a quoted string does not go on in the next line
        (["\xa0a\x85"], ["\xa0a\x85"]),  # no OWS, although str.strip() thinks so
    ],
)
def test_a_list_runs_over_all_lines_and_respects_quoted_strings(lines: list[str], members: list[str]) -> None:
    assert parse_list(lines) == members


@given(FIELD_TEXT)
def test_a_parsed_list_parses_to_itself(line: str) -> None:
    members = parse_list([line])
    assert parse_list([", ".join(members)]) == members
    assert all(member and member == member.strip(" \t") for member in members)


@given(st.lists(st.from_regex(r'\A(?:[a-z;=]|"(?:[^"\\]|\\.)*")+\Z')))
def test_a_list_gives_back_the_members_it_was_made_of(members: list[str]) -> None:
    assert parse_list([" ,\t".join(members)]) == members
    assert parse_list(members) == members


@pytest.mark.parametrize("text", ["a", "Max-Age", "!#$%&'*+-.^_`|~09AZaz"])
def test_tokens(text: str) -> None:
    assert is_token(text)


@pytest.mark.parametrize("text", ["", "a b", "a,", '"a"', "a/b", "a\n", "ä", "a:b", "{a}", "\x7f", "a@b", "(", "\\"])
def test_no_tokens(text: str) -> None:
    assert not is_token(text)


# RFC 9110 §5.5: "Field values containing CR, LF, or NUL characters are invalid and dangerous"
@pytest.mark.parametrize(
    ("value", "bad"),
    [("", False), ("a\tb ä", False), ("a\rb", True), ("a\nb", True), ("a\0b", True), ("\x0b\x0c\x85", False)],
)
def test_octets_that_no_field_may_carry(value: str, bad: bool) -> None:
    assert has_bad_octets(value) is bad


# RFC 9110 §12.5.5: 'A list containing the member "*" signals that other aspects of the request might have played a
# role in selecting the response representation'
@pytest.mark.parametrize(
    ("lines", "names"),
    [
        ([], ()),
        ([""], ()),
        ([" , "], ()),
        (["Cookie"], ("cookie",)),
        (["Accept-Language, Cookie", "ACCEPT-LANGUAGE"], ("accept-language", "cookie")),
        (["b,a"], ("b", "a")),
        (["*"], ("*",)),
        (["*, *"], ("*",)),
        ([", *"], ("*",)),
        (["*, Foo"], ("*",)),
        (["Foo, *"], ("*",)),
        (["Foo", "*"], ("*",)),
        (["", "*"], ("*",)),
        (["Foo,\t*\t"], ("*",)),
        (["foo*"], ("foo*",)),  # a token like any other
        (["Foo Bar"], ("*",)),
        (['"Foo, Bar"'], ("*",)),
        (["Foo;Bar"], ("*",)),
        (["*\xa0"], ("*",)),
        (["Foo\r\n"], ("*",)),
        (["Fóo"], ("*",)),
    ],
)
def test_vary_names_fields_or_everything(lines: list[str], names: tuple[str, ...]) -> None:
    assert parse_vary(lines) == names


@given(st.lists(FIELD_TEXT))
def test_vary_gives_tokens_once_and_parses_to_itself(lines: list[str]) -> None:
    names = parse_vary(lines)
    assert len(set(names)) == len(names)
    assert all(is_token(name) and name == name.lower() for name in names)
    assert ("*" in names) == (names == ("*",))
    assert parse_vary([", ".join(names)]) == names


# RFC 9111 §5.1: "a cache encountering a message with a list-based Age field value SHOULD use the first member of the
# field value, discarding subsequent ones. If the field value (after discarding additional members, as per above) is
# invalid (e.g., it contains something other than a non-negative integer), a cache SHOULD ignore the field."
@pytest.mark.parametrize(
    ("lines", "age"),
    [
        ([], None),
        ([""], None),
        (["0"], 0),
        (["12"], 12),
        ([" 12\t"], 12),
        (["012"], 12),
        (["2147483647"], 2147483647),
        (["2147483648"], MAX_DELTA),
        (["99999999999"], MAX_DELTA),
        (["7200, 0"], 7200),
        (["0, 7200"], 0),
        (["7200", "0"], 7200),
        (["0", "7200"], 0),
        (["", "7200"], None),
        (["abc"], None),
        (["-1"], None),
        (["7200.0"], None),
        (["7200;foo=bar"], None),
        (['"7200"'], None),
    ],
)
def test_age_is_the_first_member_of_the_first_line(lines: list[str], age: int | None) -> None:
    assert parse_age(lines) == age


@given(st.lists(FIELD_TEXT))
def test_age_never_raises(lines: list[str]) -> None:
    age = parse_age(lines)
    assert age is None or 0 <= age <= MAX_DELTA


@pytest.mark.parametrize(
    ("cache_tag", "surrogate_key", "tags"),
    [
        ([], [], ()),
        (["a, b", "c"], [], ("a", "b", "c")),
        ([], ["a b", "c\td"], ("a", "b", "c", "d")),
        (["a,,b , a"], ["b  c "], ("a", "b", "c")),
        (["two words"], ["two words"], ("two words", "two", "words")),
        (["Case,case"], [], ("Case", "case")),
        (["a\xa0b"], ["a\xa0b"], ("a\xa0b",)),
        ([], ["a,b"], ("a,b",)),
        (["x" * 1025 + ",a"], ["y" * 1024], ("a", "y" * 1024)),
    ],
)
def test_tags_come_from_both_fields(cache_tag: list[str], surrogate_key: list[str], tags: tuple[str, ...]) -> None:
    assert parse_tags(cache_tag, surrogate_key) == tags


def test_tags_are_at_most_128_not_counting_repetitions() -> None:
    names = [f"t{n}" for n in range(200)]
    assert parse_tags([",".join(names)], names) == tuple(names[:128])
    assert parse_tags(["a," * 500 + "b"], []) == ("a", "b")


@given(st.lists(FIELD_TEXT), st.lists(FIELD_TEXT))
def test_tags_are_unique_and_bounded(cache_tag: list[str], surrogate_key: list[str]) -> None:
    tags = parse_tags(cache_tag, surrogate_key)
    assert len(set(tags)) == len(tags) <= 128
    assert all(0 < len(tag) <= 1024 and not {",", " "} <= set(tag) for tag in tags)


@pytest.mark.parametrize(
    ("lines", "members"),
    [
        ([], None),
        ([""], None),
        (["", ""], None),
        (["  "], None),
        (["a=1;p=2, b"], {"a": 1, "b": True}),
        (["a=1", "a=2"], {"a": 2}),  # RFC 9651 §4.2.2: the last one stands
        (['a=("x" y;q=1);r'], {"a": ["x", "y"]}),
        (["A=1"], None),
        (["a=1,"], None),
        (["a =1"], None),
        (["&&&&&"], None),
        (["ä=1"], None),
        (['a="ä"'], None),
        (["a=@99999999999999"], None),
        (["a" * 8192], {"a" * 8192: True}),
        (["a" * 8193], None),
    ],
)
def test_structured_dictionaries_are_read_strictly(lines: list[str], members: dict[str, object] | None) -> None:
    assert parse_dictionary(lines) == members
