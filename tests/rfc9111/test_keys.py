"""Keys: different requests never share one."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cachemw.rfc9111 import keys
from cachemw.rfc9111.requests import Request

# RFC 9111 §2: "The 'cache key' is the information a cache uses to choose a response and is composed from, at a minimum,
# the request method and target URI used to retrieve the stored response"

text = st.text(st.characters(max_codepoint=255), max_size=12)
parts = st.fixed_dictionaries({"scheme": text, "host": text, "mount": text, "path": text, "query": text})


def resource(given: dict[str, str], space: str = "s") -> str:
    return keys.resource(space, **given)


@given(parts, parts)
def test_two_urls_share_a_key_only_if_they_are_one(one: dict[str, str], other: dict[str, str]) -> None:
    assert (resource(one) == resource(other)) is (one == other)


@given(st.lists(text), st.lists(text))
def test_two_namespaces_are_one_only_if_their_parts_are(one: list[str], other: list[str]) -> None:
    assert (keys.namespace(*one) == keys.namespace(*other)) is (one == other)


values = st.lists(st.lists(text, max_size=3), max_size=3)


@given(values, values)
def test_variants_are_one_only_if_every_line_of_every_field_is(one: Any, other: Any) -> None:
    made = [keys.secondary_key("of", "g", lines) for lines in (one, other)]
    assert (made[0] == made[1]) is (one == other)


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ([("x",), ("yz",)], [("xy",), ("z",)]),  # Django hashes these without a separator
        ([()], [("",)]),
        ([("a", "b")], [("a, b",)]),
        ([("1:a",)], [("1:a", "")]),
    ],
)
def test_near_misses(one: Any, other: Any) -> None:
    assert keys.secondary_key("of", "g", one) != keys.secondary_key("of", "g", other)


@given(text, text)
def test_quoting_a_path_never_joins_two(one: str, other: str) -> None:
    assert (keys.quote_path(one) == keys.quote_path(other)) is (one == other)
    assert "\0" not in keys.quote_path(one)


@pytest.mark.parametrize(
    ("query", "ignore", "sort", "expected"),
    [
        ("", ("a",), True, ""),
        ("a=1&b=2", ("a",), False, "b=2"),
        ("utm_a=1&utmb=2&utm_=3", ("utm_*",), False, "utmb=2"),
        ("b=1&a=2&b=0", (), True, "a=2&b=1&b=0"),
        ("a=1&%61=2", (), True, "a=1&%61=2"),  # the application may take the first of them, or the last
        ("%61=2&a=1", (), True, "%61=2&a=1"),
        ("b+c=1&%62%20c=2&a=3", (), True, "a=3&b+c=1&%62%20c=2"),
        ("a=1;b=2", ("a",), True, "a=1;b=2"),
        ("%61=1&a=2", ("a",), False, "%61=1"),
        ("a&a=&=a", ("a",), False, "=a"),
        ("a=1&&b=2", ("z",), False, "a=1&&b=2"),
    ],
)
def test_canonical_query(query: str, ignore: tuple[str, ...], sort: bool, expected: str) -> None:
    assert keys.canonical_query(query, ignore, sort) == expected


def test_override_fields_count_with_all_their_lines() -> None:
    def part(*fields: tuple[str, str]) -> str:
        return keys.keyed_part(Request(fields=fields), ("x-forwarded-host", "forwarded", "x-host"))

    assert part() == part(("Via", "1.1 a")) == part(("Forwarded", "for=1.2.3.4")) == ""
    different = [
        part(("X-Forwarded-Host", "a")),
        part(("X-Forwarded-Host", "a"), ("X-Forwarded-Host", "b")),
        part(("X-Forwarded-Host", "a, b")),
        part(("X-Host", "a")),
        part(("X-Host", "")),
        part(("Forwarded", "for=1;host=a")),
    ]
    assert len(set(different)) == len(different)
    assert part(("Forwarded", "for=1;host=a")) == part(("Forwarded", "for=2;host=a"))


def test_kinds_of_keys_never_meet() -> None:
    of = keys.resource("s", *Request().url)
    made = [keys.primary_key(of), keys.head_key(of), keys.mark_key(of), keys.lease_key(of + "\0G")]
    made += [keys.secondary_key(of, "g", []), *keys.tag_keys("s", ["t", "u"])]
    assert len(set(made)) == len(made)
    assert {key.partition("\0")[0] for key in made[:5]} == {of}


@pytest.mark.parametrize(
    ("name", "one", "other", "same"),
    [
        ("foo", ["1, 2"], ["1,  2"], True),
        ("foo", ["1", "2"], ["1, 2"], True),
        ("foo", ["1, 2"], ["2, 1"], False),
        ("foo", ["a"], ["A"], False),
        *[(f"accept{of}", ["en, de"], ["de , EN"], True) for of in ("", "-charset", "-encoding", "-language")],
        ("accept-language", ["en;q=0.5"], ["en; q=0.5"], True),
        ("accept-language", ["en;q=0.5"], ["en;q=0.4"], False),
        ("foo", ['"a, b"'], ["a, b"], False),
        # an application may take "dark," for another theme than "dark", and a stranger may have sent it
        *[
            ("foo", ["1, 2"], lines, False)
            for lines in (["1, 2,"], ["1,, 2"], [" ,1, 2"], ["1, 2", ""], ["1", " ", "2"])
        ],
        ("foo", ["1,,2"], ["1,,,2"], False),
        ("foo", ["1", ""], ["1, "], True),
        ("accept-language", ["en, de"], [",en,, de,", ""], True),
        ("accept-language", ["en;q=0.5"], ["en\t;\tQ=0.5"], True),
        # what is malformed means something else to an application, or nothing, and a stranger may have sent it
        *[("accept-language", ["de"], [line], False) for line in ("d e", "de q=1", "de;", "de; q", "de;q =1", 'de"')],
        ("accept-language", ["d e, en"], ["en, d e"], False),
        ("accept-language", ["d e", "en"], ["d e, en"], True),
        # RFC 9110 §8.3.1: names in any case; "parameter values might or might not be case-sensitive"
        ("accept", ['Text/HTML; Level="1, 2";q=0.5'], ['text/html;level="1, 2" ; q=0.5'], True),
        ("accept", ['a/b;profile="x#A"'], ['a/b;profile="x#a"'], False),
        ("accept", ['a/b;profile="x y"'], ['a/b;profile="xy"'], False),
        ("accept", ['a/b;profile="x;y"'], ['a/b;profile="x; y"'], False),
        ("accept", ['a/b;p="x, y"'], ['a/b;p="x,y"'], False),
        # no lists, so that white space at a comma is not "allowed in the header field's syntax"
        ("user-agent", ["Z/1 (KHTML, like Gecko)"], ["Z/1 (KHTML,like Gecko)"], False),
        ("cookie", ["id=a,b"], ["id=a, b"], False),
        ("cookie", ["id=a", "b"], ["id=a, b"], False),
        ("authorization", ["Digest a=b,c=d"], ["Digest a=b, c=d"], False),
        ("accept-language", ["en," * 3000], ["EN," * 3000], False),  # no longer taken apart
    ],
)
def test_normalized_lines(name: str, one: list[str], other: list[str], same: bool) -> None:
    # RFC 9111 §4.1: "normalizing both header field values in a way that is known to have identical semantics,
    # according to the header field's specification (e.g., reordering field values when order is not significant)"
    assert (keys.normalized(name, one) == keys.normalized(name, other)) is same
