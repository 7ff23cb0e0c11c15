"""Validation both ways, and ranges out of a complete response (RFC 9111 §4.3, RFC 9110 §13 and §14)."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cachemw.rfc9111.fields import ETag, format_date
from cachemw.rfc9111.messages import Fields, Head, StoredResponse
from cachemw.rfc9111.policy import Policy
from cachemw.rfc9111.requests import Request
from cachemw.rfc9111.validation import (
    Answered,
    answer_conditions,
    conditions,
    content_range,
    freshen,
    freshen_by_head,
    not_modified_fields,
    partial_fields,
    select_range,
    unsatisfied_fields,
    validators,
)

NOW = 1_763_625_600.0
DEFAULT, STRICT = Policy(), Policy.rfc9111()


def at(delta: float) -> str:
    return format_date(NOW + delta)


def pairs(*lines: str) -> Fields:
    return tuple((name, value) for name, _, value in (line.partition(": ") for line in lines))


def head(*lines: str, status: int = 200) -> Head:
    return Head(status, pairs(*lines))


def request(*lines: str, method: str = "GET") -> Request:
    return Request(method, fields=pairs(*lines))


def stored(*lines: str, status: int = 200, body: bytes = b"hello", **options: Any) -> StoredResponse:
    options.setdefault("born", NOW - 100)
    return StoredResponse(
        key="k", status=status, reason="Fine", body=body, fields=pairs(*lines), lifetime=60, began=NOW - 100, **options
    )


def freshened(
    old: StoredResponse,
    new: Head,
    policy: Policy = STRICT,
    *,
    seconds: float = 600,
    timeout: float | None = None,
    by_head: bool = False,
) -> StoredResponse | None:
    how = freshen_by_head if by_head else freshen
    return how(old, new, policy, Answered(request_time=NOW, response_time=NOW + 1, seconds=seconds, timeout=timeout))


def updated(old: StoredResponse, *lines: str, policy: Policy = STRICT, **options: Any) -> StoredResponse:
    result = freshened(old, head(*lines, status=304), policy, **options)
    assert result is not None
    return result


# -- our conditions towards the application ---------------------------------------------------------------------------


# §4.3.1: "When generating a conditional request for validation, a cache … updates that request with one or more
# precondition header fields. … MUST send the relevant entity tags (using If-Match, If-None-Match, or If-Range) if the
# entity tags were provided in the stored response(s) being validated. … SHOULD send the Last-Modified value (using
# If-Modified-Since) if the request is not for a subrange"
@pytest.mark.parametrize(
    ("lines", "expected"),
    [
        (['ETag: "a"'], [("If-None-Match", '"a"')]),
        (['ETag: W/"a"'], [("If-None-Match", 'W/"a"')]),
        (['ETag:  "a" '], [("If-None-Match", '"a"')]),
        ([f"Last-Modified: {at(-9)}"], [("If-Modified-Since", at(-9))]),
        ([f"Last-Modified: {at(-9)}", 'ETag: "a"'], [("If-None-Match", '"a"'), ("If-Modified-Since", at(-9))]),
        (["Last-Modified: Sunday, 06-Nov-94 08:49:37 GMT"], [("If-Modified-Since", "Sunday, 06-Nov-94 08:49:37 GMT")]),
        (["ETag: a"], []),
        (['ETag: w/"a"'], []),
        (['ETag: "a"', 'ETag: "b"'], []),
        (["Last-Modified: yesterday"], []),
        (["Content-Type: text/plain"], []),
    ],
)
def test_conditions_are_the_stored_validators(lines: list[str], expected: list[tuple[str, str]]) -> None:
    assert conditions(stored(*lines)) == tuple(expected)


@pytest.mark.parametrize(
    ("lines", "expected"),
    [
        (['ETag: "a"', f"Last-Modified: {at(-9)}"], (ETag(False, "a"), int(NOW) - 9)),
        (['ETag: W/"a"'], (ETag(True, "a"), None)),
        (["ETag: a", "Last-Modified: yesterday"], (None, None)),
        (['ETag: "a"', 'ETag: "a"', f"Last-Modified: {at(-9)}", f"Last-Modified: {at(-9)}"], (None, None)),
        ([], (None, None)),
    ],
)
def test_validators_are_those_that_can_be_read(lines: list[str], expected: tuple[ETag | None, int | None]) -> None:
    assert validators(stored(*lines).head, NOW) == expected


# -- 304: is it about our response? -----------------------------------------------------------------------------------


# §4.3.4: "If the new response contains one or more "strong validators" …, then each of those strong validators
# identifies a selected representation for update. … If none of the stored responses in the initial set contains at
# least one of the same strong validators, then the cache MUST NOT use the new response to update any stored responses."
@pytest.mark.parametrize(
    ("old", "new", "accepted"),
    [
        (['ETag: "a"'], ['ETag: "a"'], True),
        (['ETag: "a"'], ['ETag: "b"'], False),
        (['ETag: W/"a"'], ['ETag: "a"'], False),
        (['ETag: "a"'], ['ETag: W/"a"'], True),
        (['ETag: W/"a"'], ['ETag: W/"a"'], True),
        (['ETag: W/"a"'], ['ETag: W/"b"'], False),
        ([f"Last-Modified: {at(-9)}"], ['ETag: "a"'], False),
        ([f"Last-Modified: {at(-9)}"], ['ETag: W/"a"', f"Last-Modified: {at(-9)}"], False),
        (["ETag: a"], ["ETag: a"], True),  # malformed, and still the same
        (["ETag: a"], ["ETag: b"], False),
        (['ETag: "a"'], ["ETag: a"], False),
        (['ETag: "a"'], ['ETag: "a"', 'ETag: "a"'], False),
        (['ETag: "a"'], [], True),
        ([f"Last-Modified: {at(-9)}"], [f"Last-Modified: {at(-9)}"], True),
        ([f"Last-Modified: {at(-9)}"], [f"Last-Modified: {at(-5)}"], False),
        ([f"Last-Modified: {at(-9)}"], [], True),
        (['ETag: "a"'], [f"Last-Modified: {at(-5)}"], True),
        (['ETag: "a"', f"Last-Modified: {at(-9)}"], ['ETag: "a"', f"Last-Modified: {at(-5)}"], True),
    ],
)
def test_a_304_updates_what_it_corresponds_to(old: list[str], new: list[str], accepted: bool) -> None:
    assert (freshened(stored(*old), head(*new, status=304)) is not None) is accepted


# -- 304: what it changes ---------------------------------------------------------------------------------------------


# §3.2: "the cache MUST add each header field in the provided response to the stored response, replacing field values
# that are already present, with the following exceptions: Header fields excluded from storage in Section 3.1, Header
# fields that the cache's stored response depends upon, as described below, Header fields that are automatically
# processed and removed by the recipient, as described below, and The Content-Length header field."
def test_a_304_replaces_fields_line_by_line() -> None:
    old = stored('ETag: "a"', "Link: </a>", "Test: 1", "link: </b>", "Cache-Control: max-age=1", "Kept: yes")
    new = updated(old, "TEST: 2", "Link: </c>", "Link: </d>", "Cache-Control: max-age=3600", "New: 3")
    assert new.fields == pairs(
        'ETag: "a"', "Kept: yes", "TEST: 2", "Link: </c>", "Link: </d>", "Cache-Control: max-age=3600", "New: 3"
    )
    assert (new.key, new.status, new.reason, new.body) == ("k", 200, "Fine", b"hello")
    assert (new.lifetime, new.chosen, new.validate) == (3600, False, False)


@pytest.mark.parametrize(
    "name", ["Content-Length", "Content-Encoding", "Content-Range", "Content-Type", "Content-MD5", "Content-Digest"]
)
def test_a_304_does_not_touch_what_describes_the_body(name: str) -> None:
    assert updated(stored(f"{name}: A"), f"{name}: B").fields == ((name, "A"),)
    assert updated(stored("X: 1"), f"{name}: B").fields == (("X", "1"),)


@pytest.mark.parametrize(
    "name", ["Content-Foo", "Content-Location", "Content-Security-Policy", "X-Frame-Options", "Vary"]
)
def test_a_304_updates_everything_else(name: str) -> None:
    assert updated(stored(f"{name}: A"), f"{name}: B").fields == ((name, "B"),)


@pytest.mark.parametrize("name", ["Connection", "Keep-Alive", "Transfer-Encoding", "Age", "Proxy-Authenticate"])
def test_a_304_brings_no_fields_of_its_hop(name: str) -> None:
    assert updated(stored("X: 1"), f"{name}: B").fields == (("X", "1"),)


def test_a_304_that_nominates_a_field_does_not_bring_it() -> None:
    assert updated(stored("X: 1"), "Connection: x", "X: 2").fields == (("X", "1"),)


def test_a_304_may_withhold_fields_that_are_stored() -> None:
    new = updated(stored("X-User: 7", "Y: 1"), 'Cache-Control: max-age=60, private="x-user"')
    assert [name for name, _ in new.fields] == ["Y", "Cache-Control"]


# Safety: "Another client's Set-Cookie … never reach[es] a second client …, and not through a 304".
@pytest.mark.parametrize(("policy", "cookies"), [(DEFAULT, []), (Policy(set_cookie="strip"), []), (STRICT, ["a=c"])])
def test_a_304_brings_a_cookie_only_where_cookies_are_stored(policy: Policy, cookies: list[str]) -> None:
    new = updated(stored('ETag: "a"', "Cache-Control: max-age=60"), "Set-Cookie: a=c", policy=policy)
    assert [value for name, value in new.fields if name == "Set-Cookie"] == cookies


def test_a_weak_spelling_does_not_cost_the_strong_entity_tag() -> None:
    assert updated(stored('ETag: "a"'), 'ETag: W/"a"').fields == (("ETag", '"a"'),)


def test_age_is_counted_from_the_304() -> None:
    assert updated(stored("X: 1")).born == NOW  # a second on its way
    assert updated(stored("X: 1"), "Age: 20").born == NOW - 20
    assert updated(stored("X: 1"), f"Date: {at(-50)}").born == NOW - 50
    assert updated(stored("X: 1", born=NOW - 5000), "Cache-Control: max-age=60").began == NOW


# RFC 9110 §6.6.1: "A recipient with a clock that receives a response message without a Date header field MUST record
# the time it was received and append a corresponding Date header field"
def test_an_old_date_does_not_lengthen_a_new_expires() -> None:
    old = stored(f"Date: {at(-5000)}", f"Expires: {at(-4000)}", 'ETag: "a"')
    new = updated(old, f"Expires: {at(61)}")
    assert dict(new.fields)["Date"] == at(1)
    assert new.lifetime == 60
    assert updated(old, f"Date: {at(0)}", f"Expires: {at(61)}").lifetime == 61
    assert updated(old).lifetime == 0  # the stored Expires still counts, and is long past
    assert "Date" not in dict(updated(stored("X: 1"), "Cache-Control: max-age=60").fields)


# -- 304: lifetimes that this cache chose -----------------------------------------------------------------------------


def test_a_chosen_lifetime_is_chosen_again() -> None:
    patched = stored("Cache-Control: public, max-age=600", f"Expires: {at(500)}", 'ETag: "a"', chosen=True)
    new = updated(patched, 'ETag: "a"', policy=DEFAULT, seconds=300)
    assert (new.lifetime, new.chosen) == (300, True)
    assert new.fields == pairs("Cache-Control: public, max-age=600", f"Expires: {at(301)}", 'ETag: "a"')
    bare = updated(stored('ETag: "a"', chosen=True), policy=DEFAULT, seconds=300)
    assert (bare.lifetime, bare.chosen, bare.fields) == (300, True, pairs('ETag: "a"'))


def test_what_the_304_states_replaces_a_chosen_lifetime() -> None:
    patched = stored("Cache-Control: max-age=600", f"Expires: {at(500)}", chosen=True)
    new = updated(patched, "Cache-Control: max-age=7", policy=DEFAULT)
    assert (new.lifetime, new.chosen, new.fields) == (7, False, pairs("Cache-Control: max-age=7"))
    new = updated(
        stored("Cache-Control: public, max-age=600", f"Expires: {at(500)}", chosen=True),
        f"Expires: {at(9)}",
        policy=DEFAULT,
    )
    assert (new.lifetime, new.chosen, dict(new.fields)["Cache-Control"]) == (8, False, "public")


OURS = ("Cache-Control: max-age=600", f"Expires: {at(500)}", 'ETag: "a"')
THEIRS = ("CDN-Cache-Control: public", "Cache-Control: max-age=60", f"Expires: {at(61)}", 'ETag: "a"')
#: What is stored under a chosen lifetime, the 304s that come; the lifetime then, is it chosen, what is left of ours?
TARGETED: dict[str, tuple[tuple[str, ...], list[str], tuple[float, bool, list[str]]]] = {
    "theirs counts as soon as nothing is targeted": (THEIRS, ["CDN-Cache-Control: &"], (60, False, [])),
    "theirs stands as long as something is": (THEIRS, ["X: 1"], (600, True, [])),
    "also where that says no more": (THEIRS, ["CDN-Cache-Control: must-revalidate"], (600, True, [])),
    "ours is no word for others": (OURS, ["CDN-Cache-Control: public"], (600, True, [])),
    "nor when nothing is targeted any more": (
        OURS,
        ["CDN-Cache-Control: public", "CDN-Cache-Control: &"],
        (600, True, []),
    ),
    "ours stands beside what cannot be read": (OURS, ["CDN-Cache-Control: &"], (600, True, ["max-age=600", at(601)])),
    "what is targeted replaces ours": (OURS, ["CDN-Cache-Control: max-age=9"], (9, False, [])),
}


@pytest.mark.parametrize("which", TARGETED)
def test_a_chosen_lifetime_beside_a_targeted_field(which: str) -> None:
    """RFC 9213 §2.2: where there is a valid one, Cache-Control and Expires are for others."""
    lines, answers, (lifetime, chosen, left) = TARGETED[which]
    record = stored(*lines, chosen=True)
    for answer in answers:
        record = updated(record, answer, policy=DEFAULT)
    assert (record.lifetime, record.chosen) == (lifetime, chosen)
    if lines is OURS:
        assert [value for name, value in record.fields if name in ("Cache-Control", "Expires")] == left


def test_a_heuristic_lifetime_that_was_told_is_guessed_again() -> None:
    old = stored("Cache-Control: max-age=50", f"Expires: {at(50)}", f"Last-Modified: {at(-999)}", chosen=True)
    new = updated(old, policy=Policy(heuristic_fraction=0.1))
    assert (new.lifetime, new.chosen, dict(new.fields)["Expires"]) == (100, True, at(101))


def test_a_views_timeout_holds_after_validation() -> None:
    new = updated(stored("Cache-Control: max-age=600", f"Expires: {at(500)}"), policy=DEFAULT, timeout=30)
    assert (new.lifetime, new.chosen, dict(new.fields)["Expires"]) == (30, False, at(500))
    missing = updated(stored("Cache-Control: max-age=5", status=404), policy=DEFAULT, timeout=30)
    assert missing.lifetime == 5  # it never spoke of errors


def test_a_heuristic_lifetime_grows_with_the_response() -> None:
    old = stored(f"Last-Modified: {at(-999)}", chosen=True)
    assert updated(old, seconds=0).lifetime == 100


@pytest.mark.parametrize("directives", ["private", "no-store", "no-cache"])
def test_what_a_304_forbids_to_store_needs_validation_ever_after(directives: str) -> None:
    new = updated(stored("Cache-Control: max-age=60", chosen=True), f"Cache-Control: {directives}", policy=DEFAULT)
    assert (new.lifetime, new.validate, new.chosen) == (0, True, False)
    assert new.fresh_until == 0


def test_tags_accumulate() -> None:
    new = updated(stored("Cache-Tag: a", tags=("a", "rule")), "Cache-Tag: b, a", "Surrogate-Key: c")
    assert new.tags == ("a", "rule", "b", "c")


# -- 200 to HEAD ------------------------------------------------------------------------------------------------------


# §4.3.5: "if the stored response and HEAD response have matching values for any received validator fields (Section 8.8
# of [HTTP]) and, if the HEAD response has a Content-Length header field, the value of Content-Length matches that of
# the stored response, the cache SHOULD update the stored response with the header fields …; otherwise, the cache
# SHOULD consider the stored response to be stale."
@pytest.mark.parametrize(
    ("old", "new", "accepted"),
    [
        (['ETag: "a"'], ['ETag: "a"'], True),
        (['ETag: "a"'], ['ETag: "a"', "Content-Length: 5"], True),
        (["X: 1"], ["Content-Length: 5"], True),
        (["X: 1"], ["Content-Length: 6"], False),
        (["X: 1"], ["Content-Length: 0"], False),
        (['ETag: "a"'], ['ETag: "a"', "Content-Length: 6"], False),
        (['ETag: "a"'], ['ETag: "b"'], False),
        (['ETag: "a"'], ['ETag: W/"a"'], False),
        (["X: 1"], ['ETag: "a"'], False),
        ([f"Last-Modified: {at(-9)}"], [f"Last-Modified: {at(-9)}"], True),
        ([f"Last-Modified: {at(-9)}"], [f"Last-Modified: {at(-8)}"], False),
        (['ETag: "a"'], ["X: 1"], False),  # nothing says that the body is still the same
    ],
)
def test_head_updates_what_it_is_the_head_of(old: list[str], new: list[str], accepted: bool) -> None:
    assert (freshened(stored(*old), head(*new), by_head=True) is not None) is accepted


def test_head_updates_fields_and_freshness() -> None:
    old = stored("Cache-Control: max-age=2", "A: 1", "B: 1", "Content-Type: text/plain")
    new = freshened(old, head("Content-Length: 5", "A: 2", "Cache-Control: max-age=1000"), by_head=True)
    assert new is not None
    assert new.fields == pairs("B: 1", "Content-Type: text/plain", "A: 2", "Cache-Control: max-age=1000")
    assert (new.body, new.lifetime, new.born) == (b"hello", 1000, NOW)


@pytest.mark.parametrize(("old", "new"), [(200, 410), (200, 304), (404, 200), (206, 200)])
def test_head_speaks_of_a_200_by_a_200(old: int, new: int) -> None:
    assert freshened(stored('ETag: "a"', status=old), head('ETag: "a"', status=new), by_head=True) is None


# -- the client's conditions ------------------------------------------------------------------------------------------

PAGE = head('ETag: "a"', f"Last-Modified: {at(-3000)}", f"Date: {at(0)}")


@pytest.mark.parametrize(
    ("lines", "status"),
    [
        ([], 0),
        # RFC 9110 §13.1.2: "A recipient MUST use the weak comparison function"
        (['If-None-Match: "a"'], 304),
        (['If-None-Match: W/"a"'], 304),
        (['If-None-Match: "b"'], 0),
        (['If-None-Match: "a", "b", "c"'], 304),
        (['If-None-Match: "b", "a", "c"'], 304),
        (['If-None-Match: "b"', 'If-None-Match: "a"'], 304),
        (["If-None-Match: *"], 304),
        (["If-None-Match: a"], 0),
        (['If-None-Match: "a'], 0),
        (['If-None-Match: "A"'], 0),
        # RFC 9110 §13.1.3: "A recipient MUST ignore If-Modified-Since if the request contains an If-None-Match"
        (['If-None-Match: "a"', f"If-Modified-Since: {at(-9999)}"], 304),
        (['If-None-Match: "b"', f"If-Modified-Since: {at(0)}"], 0),
        (["If-None-Match: a", f"If-Modified-Since: {at(0)}"], 0),
        ([f"If-Modified-Since: {at(-3000)}"], 304),
        ([f"If-Modified-Since: {at(-2000)}"], 304),
        ([f"If-Modified-Since: {at(9999)}"], 304),
        ([f"If-Modified-Since: {at(-3001)}"], 0),
        (["If-Modified-Since: Thursday, 20-Nov-25 07:59:00 GMT"], 304),
        # "A recipient MUST ignore the … header field if the received field value is not a valid HTTP-date [or] the
        # field value has more than one member"
        (["If-Modified-Since: Thu, 20 Nov 2025 07:59:00 UTC"], 0),
        ([f"If-Modified-Since: {at(0)}", f"If-Modified-Since: {at(0)}"], 0),
        ([f"If-Modified-Since: {at(0)}, {at(0)}"], 0),
        # RFC 9110 §13.1.1: strong comparison; §13.1.4
        (['If-Match: "a"'], 0),
        (['If-Match: W/"a"'], 412),
        (['If-Match: "b"'], 412),
        (['If-Match: "b", "a"'], 0),
        (["If-Match: *"], 0),
        (["If-Match: a"], 0),
        (['If-Match: "b"', 'If-None-Match: "a"'], 412),
        (['If-Match: "a"', 'If-None-Match: "a"'], 304),
        ([f"If-Unmodified-Since: {at(-3000)}"], 0),
        ([f"If-Unmodified-Since: {at(-3001)}"], 412),
        (["If-Unmodified-Since: never"], 0),
        (
            ['If-Match: "a"', f"If-Unmodified-Since: {at(-3001)}"],
            0,
        ),  # "MUST ignore if the request contains an If-Match"
    ],
)
@pytest.mark.parametrize("method", ["GET", "HEAD"])
def test_the_clients_conditions(method: str, lines: list[str], status: int) -> None:
    asked = request(*lines, method=method)
    assert answer_conditions(asked, PAGE, NOW) == status
    assert answer_conditions(asked, Head(404, PAGE.fields), NOW) == 0
    assert answer_conditions(asked, Head(206, PAGE.fields), NOW) == 0
    assert answer_conditions(request(*lines, method="POST"), PAGE, NOW) == 0


@pytest.mark.parametrize(
    ("lines", "page", "status"),
    [
        (['If-None-Match: "a"'], ["X: 1"], 0),
        (["If-None-Match: *"], ["X: 1"], 304),
        (['If-Match: "a"'], ["X: 1"], 412),
        (['If-Match: W/"a"'], ['ETag: W/"a"'], 412),
        (['If-None-Match: W/"a"'], ['ETag: W/"a"'], 304),
        ([f"If-Unmodified-Since: {at(-3000)}"], ["X: 1"], 0),
        (['If-None-Match: "a"'], ['ETag: "a"', 'ETag: "a"'], 0),
        (['If-None-Match: ""'], ['ETag: ""'], 304),
        # RFC 9111 §4.3.2: without Last-Modified, "a cache SHOULD use the Date field value of the stored response"
        ([f"If-Modified-Since: {at(0)}"], [f"Date: {at(0)}"], 304),
        ([f"If-Modified-Since: {at(-1)}"], [f"Date: {at(0)}"], 0),
        ([f"If-Modified-Since: {at(0)}"], ["X: 1"], 0),
        ([f"If-Modified-Since: {at(0)}"], ["Last-Modified: 0", f"Date: {at(-9)}"], 0),
    ],
)
def test_conditions_on_what_a_page_does_not_say(lines: list[str], page: list[str], status: int) -> None:
    assert answer_conditions(request(*lines), head(*page), NOW) == status


# RFC 9110 §15.4.5: "The server generating a 304 response MUST generate any of the following header fields that would
# have been sent in a 200 (OK) response to the same request: Content-Location, Date, ETag, and Vary; Cache-Control and
# Expires. … a sender SHOULD NOT generate representation metadata other than the above listed fields"
def test_a_304_has_no_metadata_of_the_content() -> None:
    kept = pairs("Content-Location: /", "Date: x", 'etag: "a"', "Vary: A", "Cache-Control: x", "Expires: y", "CSP: z")
    gone = pairs(
        "Content-Type: a", "content-length: 5", "Content-Encoding: br", "Content-Language: de", "Content-MD5: x"
    )
    modified = (("Last-Modified", "x"),)
    assert not_modified_fields(gone + kept + modified) == kept
    assert not_modified_fields(modified + gone) == modified


# -- ranges -----------------------------------------------------------------------------------------------------------


# RFC 9110 §14.1.2: "A client can limit the number of bytes requested without knowing the size"; "If the selected
# representation is shorter than the specified suffix-length, the entire representation is used."
@pytest.mark.parametrize(
    ("text", "length", "expected"),
    [
        ("bytes=0-1", 11, (0, 1)),
        ("bytes=1-", 11, (1, 10)),
        ("bytes=-1", 11, (10, 10)),
        ("bytes=-99", 11, (0, 10)),
        ("bytes=0-99", 11, (0, 10)),
        ("bytes=10-10", 11, (10, 10)),
        ("BYTES= 0-1 ", 11, (0, 1)),
        ("bytes=11-", 11, "unsatisfiable"),
        ("bytes=11-12", 11, "unsatisfiable"),
        ("bytes=-0", 11, "unsatisfiable"),
        ("bytes=0-", 0, "unsatisfiable"),
        ("bytes=-5", 0, None),
        ("bytes=99999999999999999999999999-", 11, "unsatisfiable"),
        ("bytes=0-1,3-4", 11, None),
        ("bytes=1-0", 11, None),
        ("bytes=a-b", 11, None),
        ("lines=0-1", 11, None),
        ("bytes", 11, None),
        ("", 11, None),
    ],
)
def test_one_range_is_selected(text: str, length: int, expected: object) -> None:
    asked = request(f"Range: {text}")
    assert select_range(asked, PAGE, length) == expected
    assert select_range(asked, Head(404), length) is None
    assert select_range(request(f"Range: {text}", method="HEAD"), PAGE, length) is None
    assert select_range(request(f"Range: {text}", f"Range: {text}"), PAGE, length) is None


def test_no_range_is_no_range() -> None:
    assert select_range(request(), PAGE, 11) is None


# RFC 9110 §13.1.5: "A client MUST NOT generate an If-Range header field containing an entity tag that is marked as
# weak"; "If the HTTP-date validator provided is not a strong validator in the sense defined by Section 8.8.2.2, the
# condition is false … [if it] exactly matches the Last-Modified field value …, the condition is true."
@pytest.mark.parametrize(
    ("if_range", "page", "holds"),
    [
        (['"a"'], ['ETag: "a"'], True),
        (['"b"'], ['ETag: "a"'], False),
        (['W/"a"'], ['ETag: "a"'], False),
        (['"a"'], ['ETag: W/"a"'], False),
        (['W/"a"'], ['ETag: W/"a"'], False),
        (['"a"'], ["X: 1"], False),
        (['"a"', '"a"'], ['ETag: "a"'], False),
        (["a"], ["ETag: a"], False),
        ([at(-9)], [f"Last-Modified: {at(-9)}", f"Date: {at(0)}"], True),
        ([at(-8)], [f"Last-Modified: {at(-9)}", f"Date: {at(0)}"], False),
        ([at(-9)], [f"Last-Modified: {at(-9)}", f"Date: {at(-9)}"], False),  # it may have changed within that second
        ([at(-9)], [f"Last-Modified: {at(-9)}"], False),
        ([at(-9)], [f"Date: {at(-9)}"], False),
        (["x"], ["Last-Modified: x", f"Date: {at(0)}"], False),
        ([at(-9)], [f"Last-Modified: {at(-9)}", "Date: x"], False),
        ([""], ["X: 1"], False),
    ],
)
def test_a_range_is_obeyed_where_the_client_has_the_rest(if_range: list[str], page: list[str], holds: bool) -> None:
    asked = request("Range: bytes=0-1", *(f"If-Range: {line}" for line in if_range))
    assert select_range(asked, head(*page), 11) == ((0, 1) if holds else None)


# RFC 9110 §6.6.1: "A recipient with a clock that receives a response message without a Date header field MUST record
# the time it was received". Servers add Date only when the response is sent.
@pytest.mark.parametrize(("age", "holds"), [(0.0, False), (0.9, False), (1.0, True), (60.0, True)])
def test_where_the_server_says_the_date_the_time_counts_at_which_a_response_came(age: float, holds: bool) -> None:
    asked = request("Range: bytes=0-1", f"If-Range: {at(-9)}")
    page = head(f"Last-Modified: {at(-9)}")
    assert select_range(asked, page, 11, NOW - 9 + age) == ((0, 1) if holds else None)
    assert select_range(asked, head(f"Last-Modified: {at(-9)}", "Date: x"), 11, NOW) is None


def test_the_fields_of_parts() -> None:
    fields = pairs("Content-Type: a", "Content-Length: 11", 'ETag: "a"', "Content-Digest: x", "Content-MD5: y")
    assert partial_fields(fields, 2, 4, 11) == pairs(
        "Content-Type: a", 'ETag: "a"', "Content-Range: bytes 2-4/11", "Content-Length: 3"
    )
    assert content_range(0, 4, None) == "bytes 0-4/*"
    assert unsatisfied_fields(11) == pairs("Content-Range: bytes */11", "Content-Length: 0")


# -- all of it --------------------------------------------------------------------------------------------------------

TEXT = st.text(st.characters(max_codepoint=255)) | st.sampled_from(['"a"', "*", at(0), at(-9), "bytes=0-1", "bytes=-9"])
NAMES = [
    *("If-Match", "If-None-Match", "If-Range", "If-Modified-Since", "If-Unmodified-Since", "Range", "ETag"),
    *("Last-Modified", "Date", "Content-Length", "Connection", "Cache-Control", "Cache-Tag"),
]
FIELDS = st.lists(st.tuples(st.sampled_from(NAMES), TEXT), max_size=8).map(tuple)


@given(FIELDS, FIELDS, st.integers(0, 20), st.sampled_from([DEFAULT, STRICT, Policy.django()]), st.booleans())
def test_nothing_raises_and_a_range_lies_within(
    asked: Fields, fields: Fields, length: int, policy: Policy, by_head: bool
) -> None:
    page, old = Head(200, fields), stored(body=bytes(length))
    incoming = Request(fields=asked)
    assert answer_conditions(incoming, page, NOW) in (0, 304, 412)
    span = select_range(incoming, page, length)
    if isinstance(span, tuple):
        assert 0 <= span[0] <= span[1] < length
    conditions(StoredResponse(key="", status=200, body=b"", born=NOW, lifetime=1, began=NOW, fields=fields))
    new = freshened(old, Head(200 if by_head else 304, asked), policy, by_head=by_head)
    assert new is None or new.body == old.body
