"""Freshness lifetime and age (RFC 9111 §4.2)."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cachemw.rfc9111.fields import MAX_DELTA, format_date, parse_cache_control
from cachemw.rfc9111.freshness import (
    born,
    control,
    corrected_initial_age,
    current_age,
    explicit_lifetime,
    forbids_stale,
    freshness_lifetime,
    heuristic_lifetime,
    targeted_control,
)
from cachemw.rfc9111.messages import Fields, Head, StoredResponse
from cachemw.rfc9111.policy import Policy

NOW = 1_763_625_600.0  # Thu, 20 Nov 2025 08:00:00 GMT
DEFAULT, STRICT, DJANGO = Policy(), Policy.rfc9111(), Policy.django()

FIELD_NAMES = ["Cache-Control", "CDN-Cache-Control", "Expires", "Date", "Age", "Pragma", "Last-Modified", "X"]
PIECES = ["max-age=", "s-maxage", "60", "-1", '"', ",", ";", " ", "no-cache", "public", "Thu, 20 Nov 2025 08:00:00 GMT"]
VALUES = st.lists(st.sampled_from(PIECES)).map("".join) | st.text(st.characters(max_codepoint=255))
HEADS = st.builds(
    Head,
    st.integers(100, 999),
    st.lists(st.tuples(st.sampled_from(FIELD_NAMES), VALUES)).map(tuple),
)


def at(delta: float) -> str:
    return format_date(NOW + delta)


def head(*fields: str, status: int = 200) -> Head:
    pairs: Fields = tuple((name, value) for name, _, value in (line.partition(": ") for line in fields))
    return Head(status, pairs)


# §4.2.1: "A cache can calculate the freshness lifetime (denoted as freshness_lifetime) of a response by evaluating the
# following rules and using the first match: if the cache is shared and the s-maxage response directive is present, use
# its value, or if the max-age response directive is present, use its value, or if the Expires response header field is
# present, use its value minus the value of the Date response header field (using the time the message was received if
# it is not present …), or otherwise, no explicit expiration time is present in the response."
@pytest.mark.parametrize(
    ("fields", "lifetime"),
    [
        ([], None),
        (["Cache-Control: public"], None),
        (["Cache-Control: max-age=60"], 60),
        (["Cache-Control: MAX-AGE=60"], 60),
        (["Cache-Control: max-age=60, s-maxage=5"], 5),
        (["Cache-Control: s-maxage=5", "Cache-Control: max-age=60"], 5),
        (["Cache-Control: max-age=60", f"Expires: {at(5)}"], 60),
        (["Cache-Control: s-maxage=60", f"Expires: {at(-5)}", f"Date: {at(0)}"], 60),
        (["Cache-Control: max-age=60", "Expires: 0"], 60),
        (["Cache-Control: max-age=2147483648"], MAX_DELTA),
        (["Cache-Control: max-age=99999999999"], MAX_DELTA),
        (['Cache-Control: max-age="60"'], 60),
        (["Cache-Control: foo=bar, max-age=60"], 60),
        ([f"Expires: {at(60)}", f"Date: {at(0)}"], 60),
        ([f"Expires: {at(300)}", f"Date: {at(400)}"], 0),  # both fast, and expired when made
        ([f"Expires: {at(60)}", f"Date: {at(-10)}"], 70),  # a slow clock makes both of them
        ([f"Expires: {at(60)}"], 60),
        ([f"Expires: {at(60)}", "Date: foo"], 60),
        ([f"Expires: {at(60)}", f"Date: {at(-9)}", f"Date: {at(0)}"], 60),  # two Dates are none
        ([f"Expires: {at(0)}", f"Date: {at(0)}"], 0),
        ([f"Expires: {at(-60)}"], 0),
    ],
)
def test_the_first_match_is_the_lifetime(fields: list[str], lifetime: float | None) -> None:
    assert explicit_lifetime(head(*fields), DEFAULT, NOW) == lifetime


@pytest.mark.parametrize(
    ("fields", "policy", "lifetime"),
    [
        (["Cache-Control: max-age=60", f"Last-Modified: {at(-1000)}"], STRICT, 60),
        (["Cache-Control: max-age=0", f"Last-Modified: {at(-1000)}"], STRICT, 0),
        ([f"Last-Modified: {at(-1000)}"], STRICT, 100),
        ([f"Last-Modified: {at(-1000)}"], DEFAULT, None),
        ([], STRICT, None),
    ],
)
def test_what_a_response_states_comes_before_heuristics(
    fields: list[str], policy: Policy, lifetime: float | None
) -> None:
    assert freshness_lifetime(head(*fields), policy, NOW) == lifetime


# §4.2.1: "When there is more than one value present for a given directive (e.g., two Expires header field lines or
# multiple Cache-Control: max-age directives), either the first occurrence should be used or the response should be
# considered stale. … Caches are encouraged to consider responses that have invalid freshness information (e.g., a
# max-age directive with non-integer content) to be stale."
@pytest.mark.parametrize(
    "fields",
    [
        ["Cache-Control: max-age=-1"],
        ["Cache-Control: max-age=abc"],
        ["Cache-Control: max-age=3600.5"],
        ["Cache-Control: max-age='3600'"],
        ["Cache-Control: max-age"],
        ["Cache-Control: max-age="],
        ["Cache-Control: s-maxage, max-age=60"],
        ["Cache-Control: max-age=60, max-age=0"],
        ["Expires: 0"],
        ["Expires: "],
        ["Expires: Thu, 20 Nov 2099 08:00:00 UTC"],
        ["Expires: Thu, 20 Nov 99 08:00:00 GMT"],
        ["Expires: Thu 20 Nov 2099 08:00:00 GMT"],
        ["Expires: Thu, 20 Nov 2099 8:00:00 GMT"],
        ["Expires: Thu, 20 Nov 2099 08.00.00 GMT"],
        [f"Expires: {at(60)}", f"Expires: {at(60)}"],
        [f"Expires: {at(60)}, {at(60)}"],
    ],
)
def test_what_cannot_be_read_is_stale(fields: list[str]) -> None:
    assert explicit_lifetime(head(*fields), DEFAULT, NOW) == 0


# RFC 9213 §2.2: the cache "MUST select the first (in target-list order) field with a valid, non-empty value and use
# its value to determine the caching policy for the response, and it MUST ignore the Cache-Control and Expires header
# fields in that response, unless no valid, non-empty value is available from the listed header fields."
@pytest.mark.parametrize(
    ("fields", "lifetime"),
    [
        (["CDN-Cache-Control: max-age=60", "Cache-Control: max-age=5"], 60),
        (["CDN-Cache-Control: max-age=60", "Cache-Control: no-store", "Expires: 0"], 60),
        (["CDN-Cache-Control: max-age=0", "Cache-Control: max-age=60"], 0),
        (["CDN-Cache-Control: max-age=60, s-maxage=5"], 5),
        (["CDN-Cache-Control: public", "Cache-Control: max-age=5", f"Expires: {at(9)}"], None),
        (["CDN-Cache-Control: &&&&&", "Cache-Control: max-age=5"], 5),
        (['CDN-Cache-Control: max-age="10000"', "Cache-Control: max-age=5"], 5),
        (["CDN-Cache-Control: ", "Cache-Control: max-age=5"], 5),
        (["CDN-Cache-Control: ", f"Expires: {at(9)}"], 9),
    ],
)
def test_a_valid_targeted_field_decides_alone(fields: list[str], lifetime: float | None) -> None:
    assert explicit_lifetime(head(*fields), DEFAULT, NOW) == lifetime


def test_the_target_list_is_the_policys() -> None:
    response = head("CDN-Cache-Control: max-age=60", "My-Cache-Control: max-age=7", "Cache-Control: max-age=5")
    assert explicit_lifetime(response, Policy(targeted=()), NOW) == 5
    assert explicit_lifetime(response, Policy(targeted=("my-cache-control", "cdn-cache-control")), NOW) == 7
    assert targeted_control(response, Policy(targeted=("your-cache-control",))) is None


def test_django_knows_max_age_only() -> None:
    assert explicit_lifetime(head("Cache-Control: s-maxage=60", f"Expires: {at(60)}"), DJANGO, NOW) is None
    assert explicit_lifetime(head("Cache-Control: s-maxage=60, max-age=5"), DJANGO, NOW) == 5


# §5.4: "Because the meaning of "Pragma: no-cache" in responses was never specified, it does not provide a reliable
# replacement for "Cache-Control: no-cache" in them." Not reliable for who sends it; we take it in doubt.
@pytest.mark.parametrize(
    ("policy", "fields", "forbids"),
    [
        (DEFAULT, ["Pragma: no-cache"], True),
        (DEFAULT, ["Pragma: No-Cache, foo"], True),
        (DEFAULT, ["Pragma: no-cache", "Cache-Control: "], True),
        (DEFAULT, ["Pragma: unrecognised-extension"], False),
        (DEFAULT, ["Pragma: no-cache", "Cache-Control: max-age=60"], False),
        (DEFAULT, ["Pragma: no-cache", "CDN-Cache-Control: max-age=60"], False),
        (DEFAULT, [], False),
        (DJANGO, ["Pragma: no-cache"], False),
    ],
)
def test_pragma_speaks_where_cache_control_is_silent(policy: Policy, fields: list[str], forbids: bool) -> None:
    assert ("no-cache" in control(head(*fields), policy)) is forbids


# §4.2.2: "If the response has a Last-Modified header field, caches are encouraged to use a heuristic expiration value
# that is no more than some fraction of the interval since that time. A typical setting of this fraction might be 10%."
@pytest.mark.parametrize(
    ("fields", "status", "lifetime"),
    [
        ([f"Last-Modified: {at(-1000)}", f"Date: {at(0)}"], 200, 100),
        ([f"Last-Modified: {at(-1000)}"], 200, 100),
        ([f"Last-Modified: {at(-1000)}", f"Date: {at(-500)}"], 200, 50),
        # RFC 9110 §15.1: "200, 203, 204, 206, 300, 301, 308, 404, 405, 410, 414, and 501"
        *[([f"Last-Modified: {at(-1000)}"], status, 100) for status in (203, 204, 206, 300, 301, 308)],
        *[([f"Last-Modified: {at(-1000)}"], status, 100) for status in (404, 405, 410, 414, 501)],
        ([f"Last-Modified: {at(-1000)}"], 201, None),
        ([f"Last-Modified: {at(-1000)}"], 302, None),
        ([f"Last-Modified: {at(-1000)}"], 403, None),
        ([f"Last-Modified: {at(-1000)}"], 503, None),
        ([f"Last-Modified: {at(-1000)}"], 599, None),
        ([f"Last-Modified: {at(-1000)}", "Cache-Control: public"], 599, 100),
        ([f"Last-Modified: {at(1000)}"], 200, 0),
        (["Last-Modified: yesterday"], 200, None),
        ([f"Last-Modified: {at(-1000)}", f"Last-Modified: {at(-1000)}"], 200, None),
        ([f"Last-Modified: {at(-1e9)}"], 200, 86400),
        ([], 200, None),
    ],
)
def test_a_heuristic_lifetime_is_a_tenth(fields: list[str], status: int, lifetime: float | None) -> None:
    assert heuristic_lifetime(head(*fields, status=status), STRICT, NOW) == lifetime


def test_there_are_no_heuristics_unless_asked_for() -> None:
    assert heuristic_lifetime(head(f"Last-Modified: {at(-1000)}"), DEFAULT, NOW) is None


# §4.2.3: "apparent_age = max(0, response_time - date_value); response_delay = response_time - request_time;
# corrected_age_value = age_value + response_delay; corrected_initial_age = max(apparent_age, corrected_age_value);"
@pytest.mark.parametrize(
    ("fields", "delay", "age"),
    [
        ([], 0, 0),
        ([], 2, 2),
        ([], -2, 0),  # the clock was set back meanwhile
        ([f"Date: {at(0)}"], 0, 0),
        ([f"Date: {at(-30)}"], 0, 30),
        ([f"Date: {at(30)}"], 0, 0),
        (["Date: foo"], 0, 0),
        (["Age: 100"], 2, 102),
        (["Age: 100", f"Date: {at(-30)}"], 0, 100),
        (["Age: 10", f"Date: {at(-30)}"], 0, 30),
        (["Age: abc"], 1, 1),
        (["Age: -5"], 0, 0),
        (["Age: 1.5"], 0, 0),
        (["Age: 100, 0"], 0, 100),
        (["Age: 0, 100"], 0, 0),
        (["Age: 0", "Age: 100"], 0, 0),
        (["Age: 2147483648"], 0, MAX_DELTA),
        (["Age: 99999999999"], 0, MAX_DELTA),
    ],
)
def test_the_age_on_arrival(fields: list[str], delay: float, age: float) -> None:
    response = head(*fields)
    assert corrected_initial_age(response, request_time=NOW - delay, response_time=NOW) == age
    assert born(response, request_time=NOW - delay, response_time=NOW) == NOW - age


def test_age_grows_with_the_clock_and_is_never_negative() -> None:
    stored = StoredResponse(key="", status=200, body=b"", fields=(), born=NOW, lifetime=60, began=NOW)
    assert [current_age(stored, NOW + later) for later in (-5, 0, 59.5)] == [0, 0, 59.5]


# §4.2.4: "A cache MUST NOT generate a stale response if it is prohibited by an explicit in-protocol directive (e.g.,
# by a no-cache response directive, a must-revalidate response directive, or an applicable s-maxage or
# proxy-revalidate response directive; see Section 5.2.2)."
@pytest.mark.parametrize(
    ("directives", "forbids"),
    [
        ("max-age=1", False),
        ("must-revalidate", True),
        ("Must-Revalidate", True),
        ("proxy-revalidate", True),
        ("s-maxage=1", True),
        ("no-cache", True),
        ('no-cache="set-cookie"', False),
        ('no-cache="set-cookie", no-cache', True),
        ('foo="must-revalidate"', False),
        ("stale-while-revalidate=5", False),
    ],
)
def test_what_forbids_stale_use(directives: str, forbids: bool) -> None:
    assert forbids_stale(parse_cache_control([directives])) is forbids


@given(HEADS, st.floats(0, 1e11))
def test_no_field_raises_and_no_lifetime_or_age_is_negative(response: Head, now: float) -> None:
    for policy in (DEFAULT, STRICT, DJANGO):
        explicit = explicit_lifetime(response, policy, now)
        heuristic = heuristic_lifetime(response, policy, now)
        assert explicit is None or explicit >= 0
        assert heuristic is None or 0 <= heuristic <= policy.heuristic_max
    assert corrected_initial_age(response, request_time=now, response_time=now) >= 0
