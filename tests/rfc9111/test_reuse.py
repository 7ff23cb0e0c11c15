"""May a stored response be sent for this request (RFC 9111 §4)?"""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cachemw.rfc9111 import reuse
from cachemw.rfc9111.messages import Fields, StoredResponse
from cachemw.rfc9111.policy import Policy
from cachemw.rfc9111.requests import Request
from cachemw.rfc9111.reuse import (
    Reuse,
    may_reuse,
    may_serve_in_grace,
    may_serve_stale,
    may_serve_stale_on_error,
    may_serve_stale_while_revalidating,
    must_validate,
    only_if_cached,
)

NOW = 1_763_625_600.0
DEFAULT, STRICT, DJANGO = Policy(), Policy.rfc9111(), Policy.django()


def pairs(*lines: str) -> Fields:
    return tuple((name, value) for name, _, value in (line.partition(": ") for line in lines))


def request(*lines: str) -> Request:
    return Request(fields=pairs(*lines))


def stored(
    *lines: str, age: float = 0, lifetime: float = 60, chosen: bool = False, validate: bool = False
) -> StoredResponse:
    return StoredResponse(
        key="",
        status=200,
        body=b"",
        fields=pairs(*lines),
        born=NOW - age,
        lifetime=lifetime,
        began=NOW - age,
        chosen=chosen,
        validate=validate,
    )


PLAIN = request()


# §4.2: "response_is_fresh = (freshness_lifetime > current_age)"
@pytest.mark.parametrize("policy", [DEFAULT, STRICT, DJANGO])
@pytest.mark.parametrize(
    ("age", "lifetime", "verdict"),
    [
        (0, 60, Reuse.FRESH),
        (59.9, 60, Reuse.FRESH),
        (60, 60, Reuse.VALIDATE),
        (61, 60, Reuse.VALIDATE),
        (0, 0, Reuse.VALIDATE),
        (-5, 60, Reuse.FRESH),
    ],
)
def test_fresh_is_younger_than_its_lifetime(policy: Policy, age: float, lifetime: float, verdict: Reuse) -> None:
    assert may_reuse(PLAIN, stored(age=age, lifetime=lifetime), policy, NOW) is verdict


def test_what_must_be_validated() -> None:
    assert not must_validate(PLAIN, stored(age=0), DEFAULT, NOW)
    assert must_validate(PLAIN, stored(age=61), DEFAULT, NOW)
    assert must_validate(PLAIN, stored(age=0), DEFAULT, NOW, softened=True)
    assert must_validate(PLAIN, stored(validate=True), DEFAULT, NOW)
    assert must_validate(request("Cache-Control: no-cache"), stored(age=0), STRICT, NOW)
    assert not must_validate(request("Cache-Control: no-cache"), stored(age=0), DEFAULT, NOW)
    swr = stored("Cache-Control: max-age=60, stale-while-revalidate=60", age=61)
    assert not must_validate(PLAIN, swr, DEFAULT, NOW)


# §5.1: "The Age field value is a non-negative integer, representing time in seconds"
@pytest.mark.parametrize(("elapsed", "shown"), [(0, 0), (0.9, 0), (1, 1), (59.999, 59), (-5, 0)])
def test_the_age_that_is_told(elapsed: float, shown: int) -> None:
    assert reuse.age(stored(age=elapsed), NOW) == shown


# §4.2.4: "A cache MUST NOT generate a stale response if it is prohibited by an explicit in-protocol directive (e.g., by
# a no-cache response directive, a must-revalidate response directive, or an applicable s-maxage or proxy-revalidate
# response directive; see Section 5.2.2)."
@pytest.mark.parametrize(
    ("directives", "may"),
    [
        ("max-age=60", True),
        ("max-age=60, must-revalidate", False),
        ("max-age=60, proxy-revalidate", False),
        ("s-maxage=60", False),
        ("max-age=60, no-cache", False),
        ('max-age=60, no-cache="Set-Cookie"', True),
    ],
)
def test_what_forbids_stale_use_forbids_it_on_every_occasion(directives: str, may: bool) -> None:
    response = stored(f"Cache-Control: {directives}", age=70)
    assert may_serve_stale(response, DEFAULT) is may
    generous = Policy(stale_while_revalidate=60, stale_if_error=60, grace=60, disconnected=True)
    assert may_serve_stale_while_revalidating(response, generous, NOW) is may
    assert may_serve_stale_on_error(response, generous, NOW, status=None) is may
    assert may_serve_in_grace(response, generous, NOW) is may


def test_what_needs_validation_is_never_fresh() -> None:
    response = stored("Cache-Control: no-cache, stale-while-revalidate=60, max-age=60", validate=True)
    assert may_reuse(PLAIN, response, STRICT, NOW) is Reuse.VALIDATE
    assert not may_serve_stale_on_error(response, STRICT, NOW, status=None)
    assert not may_serve_in_grace(response, Policy(grace=60), NOW)


def test_what_was_stored_for_validation_alone_is_never_sent_without() -> None:
    """Its fields forbid nothing: it said nothing of its life, and was kept for its entity-tag (`store_unusable`)."""
    response = stored('ETag: "1"', lifetime=0, validate=True)
    generous = Policy.rfc9111(stale_while_revalidate=60, stale_if_error=60, grace=60)
    assert may_reuse(PLAIN, response, generous, NOW) is Reuse.VALIDATE
    assert not may_serve_stale(response, generous)
    assert not may_serve_stale_while_revalidating(response, generous, NOW)
    assert not may_serve_stale_on_error(response, generous, NOW, status=None)
    assert not may_serve_in_grace(response, generous, NOW)


def test_a_soft_purge_makes_a_young_response_stale() -> None:
    assert may_reuse(PLAIN, stored(), DEFAULT, NOW, softened=True) is Reuse.VALIDATE
    swr = stored("Cache-Control: max-age=60, stale-while-revalidate=60")
    assert may_reuse(PLAIN, swr, DEFAULT, NOW, softened=True) is Reuse.STALE
    assert not may_serve_stale_on_error(stored(), DEFAULT, NOW, status=None)
    asked = request("Cache-Control: max-age=60")
    assert may_reuse(asked, swr, STRICT, NOW, softened=True) is Reuse.VALIDATE


# -- stale --------------------------------------------------------------------------------------------------------


# RFC 5861 §3: "the response … MAY [be served] after it becomes stale, up to the indicated number of seconds."
@pytest.mark.parametrize(
    ("directives", "policy", "staleness", "may"),
    [
        ("max-age=60, stale-while-revalidate=10", DEFAULT, 0, True),
        ("max-age=60, stale-while-revalidate=10", DEFAULT, 10, True),
        ("max-age=60, stale-while-revalidate=10", DEFAULT, 10.1, False),
        ("max-age=60, stale-while-revalidate=10", DJANGO, 0, False),
        ("max-age=60, stale-while-revalidate=x", DEFAULT, 0, False),
        ("max-age=60, stale-while-revalidate", DEFAULT, 0, False),
        ("max-age=60, stale-if-error=10", DEFAULT, 0, False),
        ("max-age=60", DEFAULT, 0, False),
        ("max-age=60", Policy(stale_while_revalidate=5), 5, True),
        ("max-age=60", Policy(stale_while_revalidate=5), 6, False),
        ("max-age=60, stale-while-revalidate=1", Policy(stale_while_revalidate=5), 5, False),
        ("max-age=60, stale-while-revalidate=0", Policy(stale_while_revalidate=5), 0, False),
        ("max-age=60, stale-while-revalidate=10, must-revalidate", DEFAULT, 5, False),
        ("max-age=60, stale-while-revalidate=10, proxy-revalidate", DEFAULT, 5, False),
        ("s-maxage=60, stale-while-revalidate=10", DEFAULT, 5, False),
        ("max-age=60, stale-while-revalidate=10, no-cache", DEFAULT, 5, False),
        ('max-age=60, stale-while-revalidate=10, no-cache="set-cookie"', DEFAULT, 5, True),
        ("max-age=60, must-revalidate", Policy(stale_while_revalidate=5), 1, False),
    ],
)
def test_stale_while_revalidate(directives: str, policy: Policy, staleness: float, may: bool) -> None:
    response = stored(f"Cache-Control: {directives}", age=60 + staleness)
    assert may_serve_stale_while_revalidating(response, policy, NOW) is may
    assert may_reuse(PLAIN, response, policy, NOW) is (Reuse.STALE if may else Reuse.VALIDATE)


def test_stale_directives_of_a_targeted_field_count_alone() -> None:
    lines = "CDN-Cache-Control: max-age=60, stale-while-revalidate=10", "Cache-Control: must-revalidate"
    assert may_serve_stale_while_revalidating(stored(*lines, age=65), DEFAULT, NOW)
    lines = "CDN-Cache-Control: max-age=60", "Cache-Control: stale-while-revalidate=10"
    assert not may_serve_stale_while_revalidating(stored(*lines, age=65), DEFAULT, NOW)


# RFC 5861 §4: "an error is any situation that would result in a 500, 502, 503, or 504 HTTP response status code being
# returned."
@pytest.mark.parametrize("status", [None, 500, 502, 503, 504, 400, 404, 501, 599])
@pytest.mark.parametrize(
    ("directives", "policy", "staleness", "may"),
    [
        ("max-age=60, stale-if-error=10", DEFAULT, 10, True),
        ("max-age=60, stale-if-error=10", DEFAULT, 11, False),
        ("max-age=60, stale-if-error=10", DJANGO, 5, False),
        ("max-age=60, stale-while-revalidate=10", DEFAULT, 5, False),
        ("max-age=60", DEFAULT, 0, False),
        ("max-age=60", Policy(stale_if_error=5), 5, True),
        ("max-age=60, stale-if-error=0", Policy(stale_if_error=5), 0, False),
        ("max-age=60, stale-if-error=10, must-revalidate", DEFAULT, 5, False),
        ("max-age=60, stale-if-error=10, proxy-revalidate", DEFAULT, 5, False),
        ("s-maxage=60, stale-if-error=10", DEFAULT, 5, False),
    ],
)
def test_stale_if_error(directives: str, policy: Policy, staleness: float, may: bool, status: int | None) -> None:
    response = stored(f"Cache-Control: {directives}", age=60 + staleness)
    is_error = status in (None, 500, 502, 503, 504)
    assert may_serve_stale_on_error(response, policy, NOW, status=status) is (may and is_error)


# RFC 9111 §4.2.4: "A cache MUST NOT generate a stale response unless it is disconnected or doing so is explicitly
# permitted by the client or origin server"
@pytest.mark.parametrize(
    ("status", "stands_in"), [(None, True), (502, True), (504, True), (500, False), (503, False), (404, False)]
)
def test_a_disconnected_cache_serves_stale(status: int | None, stands_in: bool) -> None:
    response = stored("Cache-Control: max-age=60", age=5000)
    assert may_serve_stale_on_error(response, STRICT, NOW, status=status) is stands_in
    assert not may_serve_stale_on_error(response, DEFAULT, NOW, status=status)
    for directive in ("must-revalidate", "proxy-revalidate", "s-maxage=60", "no-cache"):
        forbidden = stored(f"Cache-Control: max-age=60, {directive}", age=5000)
        assert not may_serve_stale_on_error(forbidden, STRICT, NOW, status=status)


@pytest.mark.parametrize(
    ("directives", "policy", "staleness", "may"),
    [
        ("max-age=60", Policy(grace=10), 10, True),
        ("max-age=60", Policy(grace=10), 11, False),
        ("max-age=60", DEFAULT, 0, False),
        ("max-age=60, must-revalidate", Policy(grace=10), 5, False),
        ("max-age=60", Policy.django(grace=10), 5, False),
    ],
)
def test_grace_while_another_fetches(directives: str, policy: Policy, staleness: float, may: bool) -> None:
    assert may_serve_in_grace(stored(f"Cache-Control: {directives}", age=60 + staleness), policy, NOW) is may


# -- what the request says ----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("asked", "response", "verdict"),
    [
        # §5.2.1.4: "the client prefers [a] stored response not be used to satisfy the request without successful
        # validation on the origin server"
        ("Cache-Control: no-cache", stored(), Reuse.VALIDATE),
        ("Cache-Control: No-Cache, max-stale", stored(), Reuse.VALIDATE),
        ("Pragma: no-cache", stored(), Reuse.VALIDATE),
        ("Pragma: unrecognised-extension", stored(), Reuse.FRESH),
        # §5.2.1.1: "the client prefers a response whose age is less than or equal to the specified number of seconds"
        ("Cache-Control: max-age=0", stored(), Reuse.VALIDATE),
        ("Cache-Control: max-age=10", stored(age=10), Reuse.FRESH),
        ("Cache-Control: max-age=10", stored(age=10.5), Reuse.VALIDATE),
        ("Cache-Control: max-age=600", stored(age=1800, lifetime=3600), Reuse.VALIDATE),
        ("Cache-Control: max-age=abc", stored(), Reuse.VALIDATE),
        ("Cache-Control: max-age", stored(), Reuse.VALIDATE),
        ("Cache-Control: max-age=100", stored(age=61), Reuse.VALIDATE),
        # §5.2.1.3: "the client prefers a response whose freshness lifetime is no less than its current age plus the
        # specified time in seconds"
        ("Cache-Control: min-fresh=30", stored(age=30), Reuse.FRESH),
        ("Cache-Control: min-fresh=31", stored(age=30), Reuse.VALIDATE),
        ("Cache-Control: min-fresh=2000", stored(lifetime=1500), Reuse.VALIDATE),
        ("Cache-Control: min-fresh=x", stored(age=30), Reuse.FRESH),
        # §5.2.1.2: "the client will accept a response that has exceeded its freshness lifetime. If a value is present,
        # … by no more than the specified number of seconds"
        ("Cache-Control: max-stale", stored(age=99999), Reuse.STALE),
        ("Cache-Control: max-stale=40", stored(age=100), Reuse.STALE),
        ("Cache-Control: max-stale=39", stored(age=100), Reuse.VALIDATE),
        ("Cache-Control: max-stale=x", stored(age=100), Reuse.VALIDATE),
        ("Cache-Control: max-stale=1000", stored(age=2000, lifetime=1500), Reuse.STALE),
        ("Cache-Control: max-age=1000, max-stale=40", stored(age=100), Reuse.STALE),
        ("Cache-Control: max-age=99, max-stale=400", stored(age=100), Reuse.VALIDATE),
        ("Cache-Control: max-stale", stored("Cache-Control: max-age=60, must-revalidate", age=61), Reuse.VALIDATE),
        ("Cache-Control: max-stale", stored(validate=True), Reuse.VALIDATE),
        ("Cache-Control: max-stale=1", stored("Cache-Control: stale-while-revalidate=99", age=65), Reuse.VALIDATE),
        # not about stale: the response's own permission holds, unless the client asked for an age
        ("Cache-Control: no-transform", stored("Cache-Control: stale-while-revalidate=9", age=65), Reuse.STALE),
        ("Cache-Control: max-age=99", stored("Cache-Control: stale-while-revalidate=9", age=65), Reuse.VALIDATE),
        ("Cache-Control: no-store", stored(), Reuse.FRESH),  # speaks of storing (§5.2.1.5)
        ("Cache-Control: only-if-cached", stored(), Reuse.FRESH),
    ],
)
def test_request_directives_are_obeyed_where_the_policy_says(
    asked: str, response: StoredResponse, verdict: Reuse
) -> None:
    assert may_reuse(request(asked), response, STRICT, NOW) is verdict


@pytest.mark.parametrize("asked", ["Cache-Control: no-cache", "Cache-Control: max-age=0", "Pragma: no-cache"])
@pytest.mark.parametrize("policy", [DEFAULT, DJANGO])
def test_a_reload_does_not_hammer_the_application(policy: Policy, asked: str) -> None:
    assert may_reuse(request(asked), stored(), policy, NOW) is Reuse.FRESH


def test_pragma_counts_only_without_cache_control() -> None:
    assert may_reuse(request("Pragma: no-cache", "Cache-Control: no-transform"), stored(), STRICT, NOW) is Reuse.FRESH


# §5.2.1.7: "the client only wishes to obtain a stored response. Caches that honor this request directive SHOULD, upon
# receiving it, respond with either a stored response … or a 504 (Gateway Timeout) status code."
def test_only_if_cached() -> None:
    asked = request("Cache-Control: Only-If-Cached")
    assert only_if_cached(asked, STRICT)
    assert not only_if_cached(asked, DEFAULT)
    assert not only_if_cached(PLAIN, STRICT)


# -- who asks -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("response", "guarded"),
    [
        (stored(chosen=True), True),
        (stored("Cache-Control: public", chosen=True), True),
        (stored("Vary: Accept", chosen=True), True),
        (stored("Vary: Accept, COOKIE", chosen=True), False),
        (stored(), False),
        (stored(chosen=True, age=61), True),
        (stored(chosen=True, validate=True), True),
    ],
)
def test_a_session_is_not_given_pages_of_chosen_lifetime(response: StoredResponse, guarded: bool) -> None:
    asked = request("Cookie: a=b; session=x")
    assert (may_reuse(asked, response, DEFAULT, NOW) is Reuse.GUARDED) is guarded
    assert may_reuse(request("Cookie: a=b"), response, DEFAULT, NOW) is not Reuse.GUARDED
    for policy in (STRICT, DJANGO):
        assert may_reuse(asked, response, policy, NOW) is not Reuse.GUARDED


@pytest.mark.parametrize(
    ("lines", "policy", "guarded"),
    [
        ([], DEFAULT, True),
        (["Cache-Control: max-age=60"], STRICT, True),
        (["Vary: Authorization"], DEFAULT, True),
        (["Cache-Control: public"], DEFAULT, False),
        (["Cache-Control: s-maxage=60"], STRICT, False),
        (["Cache-Control: max-age=60, must-revalidate"], STRICT, False),
        (["Cache-Control: x-public"], STRICT, True),
        ([], DJANGO, True),  # what was shown to nobody is not what is shown to somebody
        (["Vary: Cookie, Authorization"], DJANGO, False),
        (["Cache-Control: public"], DJANGO, False),
    ],
)
def test_credentials_get_what_they_may_share(lines: list[str], policy: Policy, guarded: bool) -> None:
    asked = request("Authorization: Bearer x")
    assert may_reuse(asked, stored(*lines), policy, NOW) is (Reuse.GUARDED if guarded else Reuse.FRESH)


def test_a_guard_comes_before_what_the_client_would_accept() -> None:
    asked = request("Authorization: x", "Cache-Control: max-stale")
    assert may_reuse(asked, stored(age=61), STRICT, NOW) is Reuse.GUARDED


# -- all of it ----------------------------------------------------------------------------------------------------

VALUES = st.text(st.characters(max_codepoint=255)) | st.lists(
    st.sampled_from(["max-age=", "max-stale", "min-fresh=5", "no-cache", "=", '"', ",", "60", "session="])
).map("".join)
NAMES = st.sampled_from(["Cache-Control", "CDN-Cache-Control", "Pragma", "Cookie", "Authorization", "Vary"])
FIELDS = st.lists(st.tuples(NAMES, VALUES)).map(tuple)


@given(FIELDS, FIELDS, st.floats(-100, 200), st.booleans(), st.booleans(), st.sampled_from([None, 200, 503, 504]))
def test_nothing_raises_and_a_stale_response_is_never_fresh(
    asked: Fields, answered: Fields, age: float, chosen: bool, softened: bool, status: int | None
) -> None:
    response = StoredResponse(
        key="", status=200, body=b"", fields=answered, born=NOW - age, lifetime=60, began=NOW, chosen=chosen
    )
    for policy in (DEFAULT, STRICT, DJANGO):
        verdict = may_reuse(Request(fields=asked), response, policy, NOW, softened=softened)
        if softened or age >= 60:
            assert verdict is not Reuse.FRESH
        if may_serve_stale_on_error(response, policy, NOW, status=status):
            assert status != 200
        assert policy.request_directives or not only_if_cached(Request(fields=asked), policy)
