"""Cache-Control and targeted fields (RFC 9111 §5.2, RFC 9213)."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cachemw.rfc9111.fields import (
    MAX_DELTA,
    CacheControl,
    dump_cache_control,
    is_token,
    parse_cache_control,
    parse_targeted,
)

WORDS = [
    "no-store",
    "private",
    "max-age",
    "foo",
    "60",
    '"',
    "\\",
    ",",
    ", ",
    "=",
    ";",
    " ",
    "\t",
    "\r\n",
    "(",
    "?0",
    "ä",
]
DIRECTIVES = st.lists(st.sampled_from(WORDS)).map("".join) | st.text(st.characters(max_codepoint=255))
FORBIDDING = {"no-store", "private", "no-cache", "must-revalidate", "proxy-revalidate"}


def directives(*lines: str) -> list[tuple[str, str | None]]:
    return list(parse_cache_control(lines).directives)


@pytest.mark.parametrize(
    ("lines", "expected"),
    [
        ((), []),
        (("",), []),
        ((" ,, \t",), []),
        (("public, max-age=60",), [("public", None), ("max-age", "60")]),
        (("PUBLIC,Max-Age=60",), [("public", None), ("max-age", "60")]),  # §5.2: "case-insensitive"
        (("public", "max-age=60"), [("public", None), ("max-age", "60")]),
        (('max-age="60"',), [("max-age", "60")]),
        (('foo="a,b", bar',), [("foo", "a,b"), ("bar", None)]),
        (('foo="a\\"b\\\\", bar',), [("foo", 'a"b\\'), ("bar", None)]),
        (('foo=""',), [("foo", "")]),
        (("Foo=BAR",), [("foo", "BAR")]),
        (("max-age=1, foo, max-age=2",), [("max-age", "1"), ("max-age", "2"), ("foo", None)]),
    ],
)
def test_directives_of_all_lines(lines: tuple[str, ...], expected: list[tuple[str, str | None]]) -> None:
    assert directives(*lines) == expected


def test_it_reads_as_a_container_of_names() -> None:
    cache_control = parse_cache_control(["no-cache, MAX-AGE=5, foo=1, foo=2, bar=1, bar"])
    assert list(cache_control) == ["no-cache", "max-age", "foo", "bar"]
    assert "max-age" in cache_control
    assert "no-store" not in cache_control
    assert cache_control
    assert not parse_cache_control([])
    assert cache_control.get("max-age") == "5"
    assert cache_control.get("no-cache") is None
    assert cache_control.get("no-store") is None
    assert cache_control.get("foo") == "1"
    assert cache_control.get("bar") is None
    assert repr(cache_control) == "<CacheControl no-cache, max-age=5, foo=1, foo=2, bar=1, bar>"


def test_equal_directives_in_equal_order_are_equal() -> None:
    one, two = parse_cache_control(["a, b=1"]), CacheControl([("a", None), ("b", "1")])
    assert one == two
    assert hash(one) == hash(two)
    assert one != parse_cache_control(["b=1, a"])
    assert one != "a, b=1"


# RFC 9111 §4.2.1: "When there is more than one value present for a given directive (e.g., two Expires header field
# lines or multiple Cache-Control: max-age directives), either the first occurrence should be used or the response
# should be considered stale." "Caches are encouraged to consider responses that have invalid freshness information
# (e.g., a max-age directive with non-integer content) to be stale."
# RFC 9111 §5.2: "recipients ought to accept both forms", token and quoted-string.
@pytest.mark.parametrize(
    ("line", "seconds"),
    [
        ("", None),
        ("max-age", None),
        ("max-age=0", 0),
        ("max-age=3600", 3600),
        ('max-age="3600"', 3600),
        ("max-age=0003600", 3600),
        ("max-age=2147483647", 2147483647),
        ("max-age=2147483649", MAX_DELTA),
        ("max-age=" + "9" * 5000, MAX_DELTA),
        ("max-age='3600'", 0),
        ("max-age=-3600", 0),
        ("max-age=3600.5", 0),
        ("max-age=3600,5", 3600),
        ("max-age=a3600", 0),
        ("max-age=3600a", 0),
        ("max-age=", 0),
        ('max-age=""', 0),
        ('max-age=" 3600"', 0),
        ("max-age =3600", 0),
        ("max-age= 3600", 0),
        ("max-age = 3600", 0),
        ('max-age= "3600"', 0),
        ("max-age 3600", 0),
        ("max-age=3600;foo", 0),
        ('max-age="3600"0', 0),
        ('max-age="3600', 0),
        ("max-age=60, max-age=3600", 60),
        ("max-age=3600, max-age=60", 60),
        ("max-age=3600, max-age=x", 0),
        ("max-age=3600, max-age", 3600),
        ("foo=max-age=3600", None),
        ('foo="max-age=3600", max-age=1', 1),
        ('max-age=1, foo="max-age=3600"', 1),
        ('foo=", max-age=3600", max-age=1', 1),
        ('foo="\\", max-age=3600", max-age=1', 1),
        ("s-max-age=3600", None),
        ("xmax-age=3600", None),
        ("max-age\xa0=3600", 0),
        ("max-age=3600\xa0", 0),
        ("max-age=3600\r\n", 3600),  # RFC 9110 §5.5: as if each of them were a space
        ("max-age=\r3600", 0),
        ("max-age=60" + ", a" * 100, 60),  # longer than what is remembered
    ],
)
def test_seconds(line: str, seconds: int | None) -> None:
    assert parse_cache_control([line]).seconds("max-age") == seconds


# A directive that forbids is seen, whatever stands around it.
@pytest.mark.parametrize(
    "line",
    [
        "private",
        "PRIVATE",
        "\tprivate\t",
        ",,private,,",
        "max-age=60,private",
        "private=",
        "private=1",
        'private=""',
        "private;max-age=60",
        "max-age=60;private",
        "public private",
        "private max-age=60",
        "private = x",
        ' private="Set-Cookie',
        'foo="bar, private',
        'foo="bar private',
        'foo=5", private, bar=6"',
        'foo="a"b, private',
        'foo="a" private',
        "foo=a private",
        "\nprivate",
        "private\0",
        "=private",
        ";private",
        '"private"',
        "foo=(private)",
        "max-age=60" + ", a" * 100 + "; private",
    ],
)
def test_what_forbids_is_not_missed(line: str) -> None:
    cache_control = parse_cache_control([line])
    assert "private" in cache_control
    assert cache_control.field_names("private") in ((), ("1",))


@pytest.mark.parametrize("line", ['foo="private"', 'foo="a, private"', "foo=private", "not-private", "x-private=1"])
def test_well_formed_arguments_forbid_nothing(line: str) -> None:
    assert "private" not in parse_cache_control([line])


def test_a_field_beyond_all_measure_counts_as_no_store() -> None:
    most = "max-age=60" + ", aaaaaa" * 1022
    assert len(most) <= 8192
    assert parse_cache_control([most]).seconds("max-age") == 60
    assert directives(most, "and a bit more") == [("no-store", None)]


# RFC 9111 §5.2.2.4: "The qualified form of the no-cache response directive, with an argument that lists one or more
# field names"; "This directive uses the quoted-string form of the argument syntax."
@pytest.mark.parametrize(
    ("lines", "names"),
    [
        ((), ()),
        (("private",), ()),
        (('private="Set-Cookie"',), ("set-cookie",)),
        (('private="A, b,,\tC "',), ("a", "b", "c")),
        (("private=A",), ("a",)),
        (('private="a", private="b, A"',), ("a", "b")),
        (('private="a"', "private"), ()),
        (("private", 'private="a"'), ()),
        (('private=""',), ()),
        (('private=" , "',), ()),
        (('private="a b"',), ()),
        (('private="a", private="b;c"',), ()),
        (('private= "a"',), ()),
        (('private="a',), ()),
        (('no-cache="a"',), ()),
    ],
)
def test_field_names_of_a_qualified_directive(lines: tuple[str, ...], names: tuple[str, ...]) -> None:
    assert parse_cache_control(lines).field_names("private") == names


# RFC 9111 §5.2.2.1: "This directive uses the token form of the argument syntax: e.g., 'max-age=5' not 'max-age="5"'.
# A sender MUST NOT generate the quoted-string form."  §5.2.2.4: "A sender SHOULD NOT generate the token form (even if
# quoting appears not to be needed for single-entry lists)."
@pytest.mark.parametrize(
    ("line", "dumped"),
    [
        ('Public ,max-age="5"', "public, max-age=5"),
        ("private=Set-Cookie,no-cache=a", 'private="Set-Cookie", no-cache="a"'),
        ('foo="a,b\\"\\\\"', 'foo="a,b\\"\\\\"'),
        ('foo=""', 'foo=""'),
        ("stale-while-revalidate=30, immutable, vendor=x", "stale-while-revalidate=30, immutable, vendor=x"),
        ("", ""),
    ],
)
def test_dump(line: str, dumped: str) -> None:
    assert dump_cache_control(parse_cache_control([line])) == dumped


def test_dump_lets_no_line_break_out() -> None:
    assert dump_cache_control(CacheControl([("foo", "a\r\nSet-Cookie: b\0")])) == 'foo="a  Set-Cookie: b "'


@given(st.lists(DIRECTIVES))
def test_whatever_comes_is_parsed_and_dumped_and_parsed_the_same(lines: list[str]) -> None:
    cache_control = parse_cache_control(lines)
    assert parse_cache_control([dump_cache_control(cache_control)]) == cache_control
    assert all(is_token(name) and name == name.lower() for name in cache_control)
    for name in cache_control:
        assert 0 <= (cache_control.seconds(name) or 0) <= MAX_DELTA
        assert all(map(is_token, cache_control.field_names(name)))


@given(DIRECTIVES, st.sampled_from(sorted(FORBIDDING)), DIRECTIVES)
def test_a_member_that_forbids_counts_after_a_line_without_quotes(before: str, name: str, after: str) -> None:
    assert name in parse_cache_control([before.replace('"', "") + "," + name + "," + after])


NAMES = st.from_regex(r"\A[a-z][a-z0-9-]{0,8}\Z")
ARGUMENTS = st.none() | st.text(st.characters(min_codepoint=32, max_codepoint=255, exclude_characters="\x7f"))


@given(st.dictionaries(NAMES, ARGUMENTS))
def test_any_directives_survive_dump_and_parse(given_directives: dict[str, str | None]) -> None:
    cache_control = CacheControl(given_directives.items())
    assert parse_cache_control([dump_cache_control(cache_control)]) == cache_control


# RFC 9213 §2.1: "Targeted fields are Dictionary Structured Fields"; "Parameters received on directives are to be
# ignored"; "If a targeted field in a given response is empty, or a parsing error is encountered, that field MUST be
# ignored by the cache (i.e., it behaves as if the field were not present …)"
@pytest.mark.parametrize(
    ("lines", "expected"),
    [
        ((), None),
        (("",), None),
        (("max-age=60",), {"max-age": "60"}),
        (("max-age=60", "no-transform"), {"max-age": "60", "no-transform": None}),
        (("max-age=60;foo=bar",), {"max-age": "60"}),
        (("foobar, max-age=3600",), {"foobar": None, "max-age": "3600"}),
        (("max-age=1, max-age=60",), {"max-age": "60"}),
        (("private",), {"private": None}),
        (('private="set-cookie"',), {"private": "set-cookie"}),
        (('private=("set-cookie")',), {"private": None}),
        (("no-store=?0",), {"no-store": None}),
        (("public=?0, must-understand=?0, a",), {"a": None}),
        (("public=?0",), None),  # nothing is left
        (("max-age=-1",), {"max-age": "-1"}),
        (("foo=tok, bar=1.5",), {"foo": "tok", "bar": "1.5"}),
        # no structured field
        (("&&&&&",), None),
        (("max-age=10000, &&&&&",), None),
        (("MaX-aGe=3600",), None),
        (("max-age =100",), None),
        (("max-age= 100",), None),
        (("max-age=60,",), None),
        (('max-age="60',), None),
        (("max-age=60, foo=ä",), None),
        # no lifetime
        (('max-age="10000"',), None),
        (("max-age=60.5",), None),
        (("max-age",), None),
        (("max-age=?1",), None),
        (("max-age=60, s-maxage=x",), None),
        (("max-age=60, stale-if-error=(1)",), None),
        (("max-age=9999999999999999999",), None),
        # broken, and yet not to be taken as leave to store
        (("Private",), {"no-store": None}),
        (("No-Store, max-age=60,",), {"no-store": None}),
        (("max-age=60; no-cache",), {"max-age": "60"}),  # a parameter, to be ignored like every other
        (('no-cache, max-age="60"',), {"no-store": None}),
        (("max-age=x", "no-store"), {"no-store": None}),
        (("must-revalidate, &",), None),
        (("no-store" + ", a" * 4000,), {"no-store": None}),
        (("max-age=60" + ", a" * 4000,), None),
    ],
)
def test_targeted(lines: tuple[str, ...], expected: dict[str, str | None] | None) -> None:
    parsed = parse_targeted(lines)
    assert (None if parsed is None else dict(parsed.directives)) == expected


def test_targeted_lifetimes_count_in_seconds() -> None:
    def seconds(line: str) -> Any:
        parsed = parse_targeted([line])
        return parsed and parsed.seconds("max-age")

    assert seconds("max-age=60") == 60
    assert seconds("max-age=99999999999") == MAX_DELTA
    assert seconds("max-age=-1") == 0
    assert seconds("no-store") is None


@given(st.lists(DIRECTIVES))
def test_targeted_never_raises(lines: list[str]) -> None:
    parsed = parse_targeted(lines)
    assert parsed is None or parsed
