"""Entity-tags (RFC 9110 §8.8.3)."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cachemw.rfc9111.fields import ETag, parse_entity_tags, parse_etag

TAGS = st.builds(ETag, st.booleans(), st.from_regex(r"\A[\x21\x23-\x7e\x80-\xff]*\Z"))
HOSTILE = st.text(st.sampled_from('"W/w\\*, \tab\x80')) | st.text(st.characters(max_codepoint=255))


@pytest.mark.parametrize(
    ("text", "etag"),
    [
        ('"xyzzy"', ETag(weak=False, tag="xyzzy")),
        ('W/"xyzzy"', ETag(weak=True, tag="xyzzy")),
        ('""', ETag(weak=False, tag="")),
        (' "a"\t', ETag(weak=False, tag="a")),
        ('"a\\"', ETag(weak=False, tag="a\\")),  # no escapes in an entity-tag
        ('"a,b"', ETag(weak=False, tag="a,b")),
        ('"W/"', ETag(weak=False, tag="W/")),
        ('"é\x80"', ETag(weak=False, tag="é\x80")),
        ("", None),
        ("xyzzy", None),
        ('w/"xyzzy"', None),  # §8.8.3: 'weak = %s"W/"', case-sensitive
        ('W\\"xyzzy"', None),
        ('W"xyzzy"', None),
        ('W/ "xyzzy"', None),
        ("W/xyzzy", None),
        ("'xyzzy'", None),
        ('"a b"', None),
        ('"a"b"', None),
        ('"a\x7f"', None),
        ('"a', None),
        ('"a", "b"', None),
        ('"a"\n', None),
        ("*", None),
    ],
)
def test_one_entity_tag(text: str, etag: ETag | None) -> None:
    assert parse_etag(text) == etag


@pytest.mark.parametrize(
    ("lines", "tags"),
    [
        ([], None),
        ([""], None),
        ([", ,"], None),
        (["*"], "*"),
        ([" *\t"], "*"),
        (['*, "a"'], None),
        (["*", "*"], None),
        (['"*"'], (ETag(weak=False, tag="*"),)),
        (['"a"'], (ETag(weak=False, tag="a"),)),
        (['"a", W/"b"', '"c,d"'], (ETag(weak=False, tag="a"), ETag(weak=True, tag="b"), ETag(weak=False, tag="c,d"))),
        ([', "a" ,,\t"b",'], (ETag(weak=False, tag="a"), ETag(weak=False, tag="b"))),
        (['"a" "b"'], None),
        (['"a""b"'], None),
        (['"a", b'], None),  # one bad member spoils the list: a full answer is never wrong
        (['"a', 'b"'], None),
        (['"a', '"'], None),
        (['"\\", "a"'], (ETag(weak=False, tag="\\"), ETag(weak=False, tag="a"))),
    ],
)
def test_lists_of_entity_tags(lines: list[str], tags: tuple[ETag, ...] | str | None) -> None:
    assert parse_entity_tags(lines) == tags


def test_a_list_of_more_than_1024_is_not_read() -> None:
    assert parse_entity_tags(['"a"'] * 1024) == (ETag(weak=False, tag="a"),) * 1024
    assert parse_entity_tags(['"a"'] * 1025) is None


# RFC 9110 §8.8.3.2, table 3
@pytest.mark.parametrize(
    ("one", "two", "strong", "weak"),
    [
        ('W/"1"', 'W/"1"', False, True),
        ('W/"1"', 'W/"2"', False, False),
        ('W/"1"', '"1"', False, True),
        ('"1"', 'W/"1"', False, True),
        ('"1"', '"1"', True, True),
        ('"1"', '"2"', False, False),
    ],
)
def test_comparison(one: str, two: str, strong: bool, weak: bool) -> None:
    first, second = parse_etag(one), parse_etag(two)
    assert first is not None
    assert second is not None
    assert first.matches_strongly(second) is strong
    assert first.matches_weakly(second) is weak


@given(TAGS)
def test_an_entity_tag_round_trips(tag: ETag) -> None:
    assert parse_etag(str(tag)) == tag


@given(st.lists(TAGS, min_size=1))
def test_lists_round_trip(tags: list[ETag]) -> None:
    assert parse_entity_tags([" ,\t".join(map(str, tags))]) == tuple(tags)
    assert parse_entity_tags(list(map(str, tags))) == tuple(tags)


@given(st.lists(HOSTILE))
def test_entity_tags_never_raise(lines: list[str]) -> None:
    tags = parse_entity_tags(lines)
    assert tags is None or tags == "*" or parse_entity_tags(list(map(str, tags))) == tags
    for line in lines:
        tag = parse_etag(line)
        assert tag is None or str(tag) == line.strip(" \t")
