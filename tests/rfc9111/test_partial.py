"""Parts: storing a 206, serving ranges of it, completing and combining (RFC 9111 §3.3, §3.4)."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cachemw.rfc9111.messages import Fields, StoredResponse
from cachemw.rfc9111.partial import combine, missing, part_of, serves, slice_of, whole
from cachemw.rfc9111.policy import Policy
from cachemw.rfc9111.requests import Request
from cachemw.rfc9111.validation import Answered

NOW = 1_763_625_600.0
STRICT = Policy.rfc9111()
PAGE = b"0123456789"


def pairs(*lines: str) -> Fields:
    return tuple((name, value) for name, _, value in (line.partition(": ") for line in lines))


def request(*lines: str, method: str = "GET") -> Request:
    return Request(method, fields=pairs(*lines))


def part(
    first: int, last: int, length: int | str = 10, *lines: str, body: bytes | None = None, status: int = 206
) -> StoredResponse:
    fields = (*pairs(*(lines or ('ETag: "a"',))), ("Content-Range", f"bytes {first}-{last}/{length}"))
    return StoredResponse(
        key="k",
        status=status,
        body=PAGE[first : last + 1] if body is None else body,
        fields=fields,
        born=NOW - 10,
        lifetime=60,
        began=NOW - 10,
        tags=("t",),
    )


def joined(old: StoredResponse, new: StoredResponse) -> StoredResponse | None:
    return combine(old, new.head, bytes(new.body), STRICT, Answered(request_time=NOW, response_time=NOW, seconds=0))


# §3.3: "a cache that … stores incomplete responses … MUST NOT use an incomplete response to answer requests unless the
# response has been made complete, or the request is partial and specifies a range wholly within the incomplete
# response"
@pytest.mark.parametrize(
    ("stored", "asked", "span"),
    [
        (part(4, 9), "bytes=-6", (4, 9)),
        (part(4, 9), "bytes=-1", (9, 9)),
        (part(4, 9), "bytes=6-8", (6, 8)),
        (part(4, 9), "bytes=6-", (6, 9)),
        (part(4, 9), "bytes=6-99", (6, 9)),
        (part(4, 9), "bytes=4-9", (4, 9)),
        (part(4, 9), "bytes=3-9", None),
        (part(4, 9), "bytes=-7", None),
        (part(4, 9), "bytes=-0", None),
        (part(4, 9), "bytes=0-3", None),
        (part(4, 9), "bytes=10-", None),  # not satisfiable: the application says so
        (part(4, 9), "bytes=4-5,7-8", None),
        (part(4, 9), "bytes=x", None),
        (part(0, 4), "bytes=2-", None),
        (part(0, 4), "bytes=-2", None),
        (part(0, 4, "*"), "bytes=2-4", (2, 4)),
        (part(0, 4, "*"), "bytes=2-5", None),
        (part(0, 4, "*"), "bytes=2-", None),
        (part(0, 4, "*"), "bytes=-1", None),
    ],
)
def test_a_part_serves_the_ranges_within_it(stored: StoredResponse, asked: str, span: tuple[int, int] | None) -> None:
    assert serves(stored, request(f"Range: {asked}")) == span
    assert serves(stored, request(f"Range: {asked}", method="HEAD")) is None
    assert serves(stored, request(f"Range: {asked}", 'If-Range: "a"')) == span
    assert serves(stored, request(f"Range: {asked}", 'If-Range: "b"')) is None
    if span is not None:
        fields, body = slice_of(stored, span)
        assert body == PAGE[span[0] : span[1] + 1]
        length = 10 if part_of(stored) == (4, 9, 10) else "*"
        assert dict(fields)["Content-Range"] == f"bytes {span[0]}-{span[1]}/{length}"
        assert dict(fields)["Content-Length"] == str(len(body))
        assert dict(fields)["ETag"] == '"a"'


def test_a_part_is_not_the_whole() -> None:
    assert serves(part(0, 4), request()) is None
    assert serves(part(0, 9), request()) is None


@pytest.mark.parametrize(
    "stored",
    [
        part(4, 9, body=b"56789"),  # one octet short of what it says
        part(4, 9, body=PAGE),
        part(4, 9, 5),
        part(4, 9, "x"),
        part(9, 4, body=b""),
        part(4, 9, status=200),
        part(4, 9, 10, 'ETag: "a"', "Content-Range: bytes 4-9/10"),
        StoredResponse(key="k", status=206, body=PAGE, fields=(), born=NOW, lifetime=60, began=NOW),
    ],
)
def test_what_contradicts_itself_holds_nothing(stored: StoredResponse) -> None:
    assert part_of(stored) is None
    assert serves(stored, request("Range: bytes=5-6")) is None
    assert missing(stored, request()) == ()
    assert joined(stored, part(0, 4)) is None
    assert whole(stored) is stored


def test_a_whole_response_is_sliced_too() -> None:
    page = StoredResponse(key="k", status=200, body=PAGE, fields=(), born=NOW, lifetime=60, began=NOW)
    assert slice_of(page, (2, 3)) == (pairs("Content-Range: bytes 2-3/10", "Content-Length: 2"), b"23")


# §3.3: "A cache MAY complete a stored incomplete response by making a subsequent range request (Section 14.2 of [HTTP])
# and combining the successful response with the stored response, as defined in Section 3.4."
@pytest.mark.parametrize(
    ("stored", "asked", "lacking"),
    [
        (part(0, 4), None, "bytes=5-"),
        (part(0, 4, "*"), None, "bytes=5-"),
        (part(5, 9), None, "bytes=0-4"),
        (part(5, 9, "*"), None, None),  # nobody knows where the whole ends
        (part(3, 5), None, None),
        (part(0, 9), None, None),
        (part(4, 9), "bytes=2-5", "bytes=2-3"),
        (part(4, 9), "bytes=-8", "bytes=2-3"),
        (part(4, 9), "bytes=1-3", "bytes=1-3"),
        (part(4, 9), "bytes=1-2", None),  # a hole would stay between
        (part(2, 4), "bytes=3-7", "bytes=5-7"),
        (part(2, 4), "bytes=5-7", "bytes=5-7"),
        (part(2, 4), "bytes=3-", "bytes=5-"),
        (part(2, 4), "bytes=3-99", "bytes=5-"),
        (part(2, 4), "bytes=6-7", None),
        (part(2, 4), "bytes=1-7", None),
        (part(2, 4), "bytes=3-4", None),
        (part(2, 4, "*"), "bytes=3-", "bytes=5-"),
        (part(2, 4, "*"), "bytes=-3", None),
        (part(2, 4), "bytes=10-", None),
        (part(2, 4), "bytes=2-3,5-6", None),
    ],
)
def test_only_what_is_missing_is_asked_for(stored: StoredResponse, asked: str | None, lacking: str | None) -> None:
    lines = [] if asked is None else [f"Range: {asked}"]
    expected = () if lacking is None else pairs(f"Range: {lacking}", 'If-Range: "a"')
    assert missing(stored, request(*lines)) == expected
    assert missing(stored, request(*lines, method="HEAD")) == ()
    assert missing(stored, request(*lines, 'If-Range: "b"')) == ()


def test_without_a_strong_entity_tag_only_the_whole_is_completed() -> None:
    for lines in (("X: 1",), ('ETag: W/"a"',)):
        assert missing(part(0, 4, 10, *lines), request()) == pairs("Range: bytes=5-")
        assert missing(part(0, 4, 10, *lines), request("Range: bytes=2-7")) == ()


# §3.4: "A cache that has received and stored one or more partial responses … MAY combine them … if they all share the
# same strong validator … If the union consists of the entire range of the target resource, then the cache MUST
# process the combined response as if it were a complete 200 (OK) response … MUST use the header fields provided in the
# new response, aside from Content-Range, to replace all instances of the corresponding header fields"
@pytest.mark.parametrize(
    ("old", "new", "status", "content_range"),
    [
        (part(0, 4), part(5, 9), 200, None),
        (part(5, 9), part(0, 4), 200, None),
        (part(0, 6), part(3, 9), 200, None),
        (part(0, 9, "*"), part(2, 3), 200, None),
        (part(2, 3), part(0, 9), 200, None),
        (part(0, 4, "*"), part(5, 9), 200, None),
        (part(0, 4), part(5, 9, "*"), 200, None),
        (part(0, 4, "*"), part(5, 9, "*"), 206, "bytes 0-9/*"),
        (part(2, 4), part(5, 7), 206, "bytes 2-7/10"),
        (part(2, 4), part(4, 5), 206, "bytes 2-5/10"),
    ],
)
def test_parts_that_touch_become_one(
    old: StoredResponse, new: StoredResponse, status: int, content_range: str | None
) -> None:
    result = joined(old, new)
    assert result is not None
    first = min(int(dict(p.fields)["Content-Range"][6]) for p in (old, new))
    assert result.body == PAGE[first : first + len(result.body)]
    assert (result.status, dict(result.fields).get("Content-Range")) == (status, content_range)
    assert dict(result.fields)["Content-Length"] == str(len(result.body))
    assert (result.key, result.tags, result.began) == ("k", ("t",), NOW)


@pytest.mark.parametrize(
    ("old", "new"),
    [
        (part(0, 3), part(5, 9)),  # a hole
        (part(5, 9), part(0, 3)),
        (part(0, 4), part(5, 9, 10, 'ETag: "b"')),
        (part(0, 4), part(5, 9, 10, 'ETag: W/"a"')),
        (part(0, 4, 10, 'ETag: W/"a"'), part(5, 9, 10, 'ETag: W/"a"')),
        (part(0, 4, 10, "Last-Modified: x"), part(5, 9, 10, "Last-Modified: x")),
        (part(0, 4), part(5, 9, 10, "X: 1")),
        (part(0, 4), part(5, 9, 10, 'ETag: "a"', "Content-Encoding: br")),
        (part(0, 4), part(5, 9, 11)),
        (part(0, 4), part(5, 9, body=b"5678")),
        (part(0, 4), part(5, 9, status=200)),
        (part(0, 5), part(4, 9, body=b"45x789"[:1] + b"x6789")),  # the overlap differs
        (part(2, 5, "*"), part(0, 3, 5)),  # more octets than the whole has
    ],
)
def test_parts_that_do_not_belong_together_stay_apart(old: StoredResponse, new: StoredResponse) -> None:
    assert joined(old, new) is None


def test_the_combined_response_has_the_new_fields_and_a_new_age() -> None:
    old = part(0, 4, 10, 'ETag: "a"', "A: 1", "B: 1", "Content-Type: text/plain", "Cache-Control: max-age=5")
    new = part(5, 9, 10, 'ETag: "a"', "A: 2", "Cache-Control: max-age=50", "Set-Cookie: a=b", "Age: 3")
    result = combine(
        old,
        new.head,
        bytes(new.body),
        Policy.rfc9111(set_cookie="refuse"),
        Answered(request_time=NOW - 1, response_time=NOW, seconds=0),
    )
    assert result is not None
    assert result.fields == pairs(
        'ETag: "a"', "B: 1", "Content-Type: text/plain", "A: 2", "Cache-Control: max-age=50", "Content-Length: 10"
    )
    assert (result.reason, result.lifetime, result.born) == ("OK", 50, NOW - 4)


def test_a_part_that_is_all_is_the_whole() -> None:
    page = whole(part(0, 9))
    assert (page.status, page.reason, page.body) == (200, "OK", PAGE)
    assert page.fields == pairs('ETag: "a"', "Content-Length: 10")
    for stored in (part(0, 8), part(1, 9), part(0, 9, "*")):
        assert whole(stored) is stored


LENGTHS: st.SearchStrategy[int | str] = st.sampled_from([10, "*"])
PARTS = st.builds(
    lambda one, other, length: part(min(one, other), max(one, other), length),
    st.integers(0, 9),
    st.integers(0, 9),
    LENGTHS,
)


@given(PARTS, PARTS, st.text("0123456789-,bytes= \xe9") | st.just("bytes=2-5"))
def test_whatever_is_joined_or_served_are_the_octets_of_the_page(
    one: StoredResponse, two: StoredResponse, asked: str
) -> None:
    first, second = part_of(one), part_of(two)
    assert first is not None
    assert second is not None
    result = joined(one, two)
    assert (result is not None) is (second[0] <= first[1] + 1 and first[0] <= second[1] + 1)
    if result is not None and result.status == 206:
        found = part_of(result)
        assert found is not None
        assert result.body == PAGE[found[0] : found[1] + 1]
    elif result is not None:
        assert result.body == PAGE
    incoming = request(f"Range: {asked}")
    if (span := serves(one, incoming)) is not None:
        assert slice_of(one, span)[1] == PAGE[span[0] : span[1] + 1]
        assert missing(one, incoming) == ()
