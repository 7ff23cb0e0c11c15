"""What may be stored, for how long, and which fields (RFC 9111 §3)."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cachemw.rfc9111.fields import format_date
from cachemw.rfc9111.messages import Fields, Head
from cachemw.rfc9111.policy import Policy
from cachemw.rfc9111.policy_names import SESSION_COOKIES
from cachemw.rfc9111.requests import Request
from cachemw.rfc9111.session_cookies import has_session_cookie
from cachemw.rfc9111.storing import (
    Storing,
    has_session,
    may_store,
    needs_vary_authorization,
    storable_fields,
)

NOW = 1_763_625_600.0
DEFAULT, STRICT, DJANGO = Policy(), Policy.rfc9111(), Policy.django()

CHARACTERS = st.text(st.characters(max_codepoint=255))
FIELDS = st.lists(
    st.tuples(
        st.sampled_from(
            [
                "Cache-Control",
                "CDN-Cache-Control",
                "Vary",
                "Set-Cookie",
                "Connection",
                "Cookie",
                "Authorization",
                "Range",
                "Content-Range",
                "Content-Location",
                "Cache-Status",
                "Expires",
                "ETag",
                "Pragma",
            ]
        ),
        st.sampled_from(["*", "max-age=60", 'private="a"', "no-cache", "/", "bytes=0-1", "session=1"]) | CHARACTERS,
    )
).map(tuple)


def at(delta: float) -> str:
    return format_date(NOW + delta)


def pairs(*lines: str) -> Fields:
    return tuple((name, value) for name, _, value in (line.partition(": ") for line in lines))


def head(*lines: str, status: int = 200) -> Head:
    return Head(status, pairs(*lines))


def request(*lines: str, method: str = "GET") -> Request:
    return Request(method, host="example.com", mount="/m", path="/p", query="q=1", fields=pairs(*lines))


def storing(
    response: Head,
    policy: Policy = DEFAULT,
    asked: Request | None = None,
    *,
    seconds: float = 600,
    timeout: float | None = None,
    plain: bool = False,
) -> Storing:
    return may_store(asked or request(), response, policy, seconds=seconds, timeout=timeout, now=NOW, plain=plain)


# -- the method ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("method", ["GET", "HEAD"])
def test_get_and_head_are_stored(method: str) -> None:
    assert storing(head(), asked=request(method=method)).ok


@pytest.mark.parametrize("method", ["POST", "PUT", "DELETE", "OPTIONS", "get", "M-SEARCH", ""])
@pytest.mark.parametrize("policy", [DEFAULT, STRICT, DJANGO])
def test_other_methods_are_not(policy: Policy, method: str) -> None:
    answer = storing(head("Cache-Control: max-age=60"), policy, request(method=method))
    assert (answer.ok, answer.reason) == (False, "method")


def test_the_method_to_judge_by_may_be_given() -> None:
    asked = request(method="POST")
    assert may_store(asked, head(), DEFAULT, seconds=600, timeout=None, now=NOW, method="GET").ok
    assert may_store(request(), head(), DEFAULT, seconds=600, timeout=None, now=NOW, method="PATCH").reason == "method"


# RFC 9110 §9.3.3: "Responses to POST requests are only cacheable when they include explicit freshness information
# (see Section 4.2.1 of [CACHING]) and a Content-Location header field that has the same value as the POST's target
# URI (Section 8.7)."
@pytest.mark.parametrize(
    ("lines", "status", "ok"),
    [
        (["Content-Location: /m/p?q=1", "Cache-Control: max-age=60"], 200, True),
        (["Content-Location: http://EXAMPLE.com:80/m/p?q=1", f"Expires: {at(60)}"], 200, True),
        (["Content-Location: ", f"Expires: {at(60)}"], 200, True),  # RFC 3986 §5.2.2: the empty reference is this URI
        (["Content-Location: /m/p?q=1"], 200, False),
        (["Content-Location: /m/p?q=1", f"Last-Modified: {at(-9999)}"], 200, False),
        (["Content-Location: /m/p", "Cache-Control: max-age=60"], 200, False),
        (["Content-Location: http://example.org/m/p?q=1", "Cache-Control: max-age=60"], 200, False),
        (["Content-Location: /m/p?q=1", "Content-Location: /m/p?q=1", "Cache-Control: max-age=60"], 200, False),
        (["Content-Location: /m/p?q=1", "Cache-Control: max-age=60"], 201, False),
        (["Cache-Control: max-age=60"], 200, False),
    ],
)
def test_an_answer_to_post_that_says_what_get_gives(lines: list[str], status: int, ok: bool) -> None:
    asked = request(method="POST")
    assert storing(head(*lines, status=status), STRICT, asked).ok is ok
    assert storing(head(*lines, status=status), DEFAULT, asked).reason == "method"
    assert storing(head(*lines, status=status), STRICT, request(method="PUT")).reason == "method"


# -- the status ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "status", [201, 204, 299, 301, 302, 303, 307, 308, 400, 404, 410, 499, 500, 502, 503, 504, 599]
)
def test_other_statuses_are_stored_when_they_say_how_long(status: int) -> None:
    for line in ("Cache-Control: max-age=60", "Cache-Control: s-maxage=60", f"Expires: {at(60)}"):
        answer = storing(head(line, status=status))
        assert (answer.ok, answer.lifetime, answer.chosen) == (True, 60, False)
    assert storing(head("CDN-Cache-Control: max-age=60", status=status)).lifetime == 60
    assert storing(head(status=status)).reason == "status"
    assert storing(head("Cache-Control: public", status=status)).reason == "status"
    assert storing(head("Cache-Control: max-age=60", status=status), DJANGO).reason == "status"


# Safety: "A client's own 206, 304, 412 or 416 is never stored as the page."
@pytest.mark.parametrize("policy", [DEFAULT, STRICT, DJANGO, Policy.rfc9111(set_cookie="strip")])
@pytest.mark.parametrize("status", [100, 101, 103, 199, 304, 412, 416, 600, 999, 0])
def test_what_is_no_page_is_never_stored(policy: Policy, status: int) -> None:
    assert storing(head("Cache-Control: max-age=60", status=status), policy, timeout=60).reason == "status"


def test_django_does_not_store_errors_however_marked() -> None:
    marked = head("Cache-Control: public, max-age=60", f"Last-Modified: {at(-9999)}", status=500)
    assert storing(marked, DJANGO).reason == "status"
    assert storing(marked, Policy.django(heuristic_fraction=0.1)).reason == "status"


# §5.2.2.3: "the cache SHOULD NOT store the response, unless it understands and conforms to the requirements for that
# status code"; "A cache that implements [it] SHOULD ignore the no-store directive if it also contains must-understand".
@pytest.mark.parametrize(
    ("status", "directives", "policy", "reason"),
    [
        (599, "max-age=60, must-understand", STRICT, "status"),
        (299, "max-age=60, must-understand, no-store", STRICT, "status"),
        (200, "max-age=60, must-understand, no-store", STRICT, ""),
        (404, "max-age=60, must-understand, no-store", STRICT, ""),
        (200, "max-age=60, must-understand, no-store, private", STRICT, "private"),
        (200, "max-age=60, no-store", STRICT, "no-store"),
        (200, "max-age=60, must-understand, no-store", DJANGO, "no-store"),
    ],
)
def test_must_understand(status: int, directives: str, policy: Policy, reason: str) -> None:
    assert storing(head(f"Cache-Control: {directives}", status=status), policy).reason == reason


# -- parts --------------------------------------------------------------------------------------------------------

PART = head("Cache-Control: max-age=60", "Content-Range: bytes 0-4/10", status=206)
RANGE = request("Range: bytes=0-4")


@pytest.mark.parametrize(
    ("response", "policy", "asked", "reason"),
    [
        (PART, DEFAULT, RANGE, "partial"),
        (PART, DJANGO, RANGE, "partial"),
        (PART, STRICT, RANGE, ""),
        (PART, STRICT, request(), "partial"),  # nobody asked for a part
        (PART, STRICT, request("Range: bytes=0-4", method="HEAD"), "partial"),
        (head("Cache-Control: max-age=60", status=206), STRICT, RANGE, "partial"),
        (head(*["Content-Range: bytes 0-4/10"] * 2, "Cache-Control: max-age=60", status=206), STRICT, RANGE, "partial"),
        (head("Cache-Control: max-age=60"), STRICT, RANGE, ""),  # the application ignored the range
        (head("Cache-Control: max-age=60"), DEFAULT, RANGE, "partial"),
        (head("Cache-Control: max-age=60", "Content-Range: bytes 0-4/10"), STRICT, RANGE, "partial"),
        # RFC 9110 §14.4: Content-Range on another status has no meaning, and is kept like any field
        (head("Cache-Control: max-age=60", "Content-Range: bytes 0-4/10"), DEFAULT, request(), ""),
    ],
)
def test_a_part_is_never_taken_for_the_page(response: Head, policy: Policy, asked: Request, reason: str) -> None:
    assert storing(response, policy, asked).reason == reason


# -- directives ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("timeout", [None, 60])
@pytest.mark.parametrize(
    ("lines", "reason"),
    [
        (["Cache-Control: no-store"], "no-store"),
        (["Cache-Control: No-Store, max-age=60"], "no-store"),
        (["Cache-Control: max-age=60", "Cache-Control: no-store"], "no-store"),
        (["Cache-Control: no-store", f"Expires: {at(60)}"], "no-store"),
        (["Cache-Control: private"], "private"),
        (["Cache-Control: PRIVATE, max-age=60"], "private"),
        (['Cache-Control: private="a", private'], "private"),
        (["Cache-Control: public, private"], "private"),
        (["Cache-Control: no-cache"], "no-cache"),
        (["Cache-Control: NO-CACHE, max-age=60"], "no-cache"),
        (["Cache-Control: no-cache=, max-age=60"], "no-cache"),
        (["Pragma: no-cache"], "no-cache"),
        (["CDN-Cache-Control: no-store", "Cache-Control: max-age=60"], "no-store"),
        (["CDN-Cache-Control: private", "Cache-Control: max-age=60"], "private"),
        (["Vary: *"], "vary-star"),
        (["Vary: *, *"], "vary-star"),
        (["Vary: , *"], "vary-star"),
        (["Vary: Foo,\t* "], "vary-star"),
        (["Vary: *, Foo", "Cache-Control: max-age=60"], "vary-star"),
        (["Vary: Foo", "Vary: *"], "vary-star"),
        (["Vary: ", "Vary: *"], "vary-star"),
        (["Vary: Foo Bar"], "vary-star"),  # no field name: nobody knows what it varies on
        (["Set-Cookie: a=b"], "set-cookie"),
        (["Set-Cookie: a=b", "Cache-Control: public, max-age=60"], "set-cookie"),
        (["SET-COOKIE: ", "Cache-Control: public, s-maxage=60"], "set-cookie"),
        (["Content-Type: text/event-stream"], "event-stream"),
        (["Content-Type: Text/Event-Stream ; charset=utf-8", "Cache-Control: max-age=60"], "event-stream"),
    ],
)
def test_what_forbids_to_store_forbids_it_whatever_the_lifetime(
    lines: list[str], reason: str, timeout: float | None
) -> None:
    answer = storing(head(*lines), timeout=timeout)
    assert answer == Storing(False, reason, 0.0, False, False, 0.0)


# Safety: "One real tokenizer over all field lines … No substring tests." Those find these, a tokenizer does not.
@pytest.mark.parametrize(
    "directives", ["x-private-ok, max-age=60", 'foo="private, no-store", max-age=60', "max-age=60, x-no-cache=no-store"]
)
@pytest.mark.parametrize("policy", [DEFAULT, STRICT, DJANGO])
def test_names_are_compared_whole(policy: Policy, directives: str) -> None:
    assert storing(head(f"Cache-Control: {directives}"), policy).lifetime == 60


def test_a_targeted_field_overrules_cache_control() -> None:
    lines = "CDN-Cache-Control: max-age=60", "Cache-Control: no-store, private", "Pragma: no-cache"
    assert storing(head(*lines)).lifetime == 60
    assert storing(head(*lines), DJANGO).reason == "no-store"


# §5.2.2.7: "If a qualified private response directive is present, with an argument that lists one or more field names,
# then only the listed header fields are limited to a single user"; likewise no-cache, §5.2.2.4.
@pytest.mark.parametrize("directive", ["private", "no-cache"])
@pytest.mark.parametrize("policy", [DEFAULT, DJANGO])
def test_a_qualified_directive_withholds_fields_only(policy: Policy, directive: str) -> None:
    response = head(
        f'Cache-Control: max-age=60, {directive}="X-User, set-cookie"', "x-user: 7", "Set-Cookie: a=b", "B: 1"
    )
    answer = storing(response, policy)
    assert (answer.ok, answer.lifetime, answer.validate) == (True, 60, False)
    assert [name for name, _ in storable_fields(response, policy)] == ["Cache-Control", "B"]


@pytest.mark.parametrize("octet", ["\r", "\n", "\0", "\r\nSet-Cookie: a=b"])
@pytest.mark.parametrize("policy", [DEFAULT, STRICT, DJANGO])
def test_fields_that_could_split_a_response_are_refused(policy: Policy, octet: str) -> None:
    assert storing(Head(200, (("X", f"a{octet}b"),)), policy).reason == "field"
    assert storing(Head(200, ((f"X{octet}", "a"),)), policy).reason == "field"


# -- lifetimes ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("lines", "timeout", "lifetime", "chosen"),
    [
        ([], None, 600, True),
        (["Cache-Control: public"], None, 600, True),
        (["Cache-Control: max-age=60"], None, 60, False),
        (["Cache-Control: max-age=60, s-maxage=5"], None, 5, False),
        ([f"Expires: {at(9)}"], None, 9, False),
        (["CDN-Cache-Control: max-age=7", "Cache-Control: max-age=60"], None, 7, False),
        ([], 30, 30, False),
        (["Cache-Control: max-age=60, s-maxage=5"], 30, 30, False),
        (["CDN-Cache-Control: max-age=7"], 30, 30, False),
        (["Cache-Control: max-age=0"], 30, 30, False),
        (["Expires: 0"], 0.5, 0.5, False),
    ],
)
def test_the_lifetime_is_the_views_then_the_responses_then_ours(
    lines: list[str], timeout: float | None, lifetime: float, chosen: bool
) -> None:
    answer = storing(head(*lines), timeout=timeout)
    assert (answer.ok, answer.lifetime, answer.chosen) == (True, lifetime, chosen)


@pytest.mark.parametrize(
    ("lines", "timeout", "seconds"),
    [
        (["Cache-Control: max-age=0"], None, 600),
        (["Cache-Control: max-age=-1"], None, 600),
        (["Cache-Control: max-age=abc"], None, 600),
        (["Expires: 0"], None, 600),
        ([f"Expires: {at(-1)}"], None, 600),
        (["CDN-Cache-Control: max-age=0", "Cache-Control: max-age=60"], None, 600),
        ([], None, 0),
        ([], None, -1),
        ([], 0, 600),
        (["Cache-Control: max-age=60"], 0, 600),
        (["Cache-Control: max-age=60"], -1, 600),
        (["Cache-Control: max-age=0, must-revalidate, stale-while-revalidate=60"], None, 600),
        (["Cache-Control: max-age=0, stale-while-revalidate=0, stale-if-error=x"], None, 600),
    ],
)
def test_what_is_stale_at_once_is_not_stored(lines: list[str], timeout: float | None, seconds: float) -> None:
    assert storing(head(*lines), timeout=timeout, seconds=seconds).reason == "no-lifetime"


def test_a_views_timeout_does_not_speak_of_its_errors() -> None:
    assert storing(head(status=404), timeout=3600).reason == "status"
    assert storing(head("Cache-Control: max-age=5", status=404), timeout=3600).lifetime == 5
    assert storing(head("Cache-Control: max-age=5", status=404), timeout=0).reason == "no-lifetime"
    assert storing(head(status=404), Policy(statuses=frozenset({200, 404})), timeout=3600).lifetime == 3600


def test_a_timeout_may_be_given_for_a_status_by_name() -> None:
    def named(*lines: str, status: int, timeout: float | None) -> Storing:
        response = head(*lines, status=status)
        return may_store(request(), response, DEFAULT, seconds=600, timeout=timeout, now=NOW, named=True)

    assert named(status=404, timeout=10).lifetime == 10
    assert named("Cache-Control: max-age=60", status=404, timeout=10).lifetime == 10
    assert named("Cache-Control: no-store", status=404, timeout=10).reason == "no-store"
    assert named(status=404, timeout=None).reason == "status"  # a name alone is no lifetime
    assert named(status=304, timeout=10).reason == "status"


# RFC 5861 §3: the directive "indicates that caches MAY serve the response in which it appears after it becomes stale,
# up to the indicated number of seconds". A lifetime of 0 with it is a wish to be stored.
@pytest.mark.parametrize("directive", ["stale-while-revalidate", "stale-if-error"])
def test_stale_from_the_start_but_of_use(directive: str) -> None:
    response = head(f"Cache-Control: max-age=0, {directive}=60")
    assert storing(response) == Storing(True, "", 0, False, False, 60)
    assert storing(response, DJANGO).reason == "no-lifetime"


@pytest.mark.parametrize("validator", ['ETag: "a"', f"Last-Modified: {at(-99)}"])
@pytest.mark.parametrize(
    ("lines", "validate"),
    [
        (["Cache-Control: no-cache"], True),
        (["Cache-Control: no-cache, max-age=60"], True),
        (["Cache-Control: max-age=0"], False),
        (["Expires: 0"], False),
    ],
)
def test_the_strict_cache_stores_what_it_can_validate(lines: list[str], validate: bool, validator: str) -> None:
    answer = storing(head(*lines, validator), STRICT, seconds=0)
    assert (answer.ok, answer.validate, answer.keep) == (True, validate, 86400)
    assert not storing(head(*lines), STRICT, seconds=0).ok
    assert not storing(head(*lines, validator), seconds=0).ok


def test_the_strict_cache_chooses_no_lifetime_but_by_heuristics() -> None:
    assert storing(head(), STRICT, seconds=0).reason == "no-lifetime"
    answer = storing(head(f"Last-Modified: {at(-1000)}", f"Date: {at(0)}"), STRICT, seconds=0)
    assert (answer.lifetime, answer.chosen) == (100, True)
    assert storing(head("Cache-Control: public", f"Last-Modified: {at(-1000)}", status=599), STRICT).lifetime == 100
    assert storing(head(f"Last-Modified: {at(-1000)}", status=599), STRICT).reason == "status"


@pytest.mark.parametrize(
    ("lines", "policy", "keep"),
    [
        ([], DEFAULT, 0),
        (['ETag: "a"'], DEFAULT, 3600),
        ([f"Last-Modified: {at(-9)}"], DEFAULT, 3600),
        (['ETag: "a"'], Policy(revalidate=False), 0),
        (['ETag: "a"'], DJANGO, 0),
        (["Cache-Control: max-age=60, stale-while-revalidate=7, stale-if-error=9"], DEFAULT, 9),
        (["Cache-Control: max-age=60, stale-while-revalidate=7"], DEFAULT, 7),
        (["Cache-Control: max-age=60, stale-if-error=9"], DJANGO, 0),
        (["Cache-Control: max-age=60, stale-if-error=0"], Policy(stale_if_error=5), 0),
        (["Cache-Control: max-age=60, stale-if-error=9, must-revalidate"], DEFAULT, 0),
        (["Cache-Control: s-maxage=60, stale-if-error=9"], DEFAULT, 0),
        (["Cache-Control: max-age=60, stale-if-error=9, must-revalidate", 'ETag: "a"'], DEFAULT, 3600),
        ([], Policy(stale_while_revalidate=3, stale_if_error=4, grace=5), 5),
        ([], Policy(stale_while_revalidate=3, stale_if_error=4), 4),
        (["Cache-Control: max-age=60"], STRICT, 86400),  # for when the application is disconnected
        (["Cache-Control: max-age=60, must-revalidate"], STRICT, 0),
    ],
)
def test_how_long_a_stale_response_is_kept(lines: list[str], policy: Policy, keep: float) -> None:
    assert storing(head(*lines), policy).keep == keep


# -- what the request brings along --------------------------------------------------------------------------------

AUTHORIZED = request("Authorization: Bearer x")


# §3.5: "A shared cache MUST NOT use a cached response to a request with an Authorization header field to satisfy any
# subsequent request unless the response contains a Cache-Control field with a response directive that allows it to be
# stored by a shared cache and the cache conforms to the requirements of that directive for that response. In this
# specification, the following response directives have such an effect: must-revalidate, public, and s-maxage."
@pytest.mark.parametrize(
    ("lines", "reason"),
    [
        (["Cache-Control: max-age=60"], "authorization"),
        ([f"Expires: {at(60)}", f"Date: {at(0)}"], "authorization"),
        ([], "authorization"),
        (["Cache-Control: max-age=60, public"], ""),
        (["Cache-Control: max-age=60, must-revalidate"], ""),
        (["Cache-Control: s-maxage=60"], ""),
        (["Cache-Control: max-age=60, x-public, proxy-revalidate"], "authorization"),
        (["CDN-Cache-Control: max-age=60", "Cache-Control: public"], "authorization"),
        (["Cache-Control: max-age=60", "Vary: Authorization"], "authorization"),
    ],
)
@pytest.mark.parametrize("policy", [DEFAULT, STRICT])
def test_answers_to_credentials_are_stored_where_they_say_so(policy: Policy, lines: list[str], reason: str) -> None:
    assert storing(head(*lines), policy, AUTHORIZED, seconds=600).reason == reason
    assert storing(head(*lines), policy, AUTHORIZED, timeout=60).reason == reason


@pytest.mark.parametrize(
    ("lines", "asked", "needed"),
    [
        ([], AUTHORIZED, True),
        (["Vary: Accept"], AUTHORIZED, True),
        (["Vary: Accept, authorization"], AUTHORIZED, False),
        (["Cache-Control: public"], AUTHORIZED, False),
        (["Cache-Control: x-public-x"], AUTHORIZED, True),
        ([], request("Authorization: "), False),
        ([], request(), False),
    ],
)
def test_djangos_way_varies_on_the_credentials(lines: list[str], asked: Request, needed: bool) -> None:
    assert needs_vary_authorization(asked, head(*lines), DJANGO) is needed
    assert not needs_vary_authorization(asked, head(*lines), DEFAULT)
    assert storing(head(*lines), DJANGO, asked).reason == ("authorization" if needed else "")


@pytest.mark.parametrize(
    ("policy", "cookie_line", "vary", "reason"),
    [
        ("refuse", "Set-Cookie: a=b", "", "set-cookie"),
        ("strip", "Set-Cookie: a=b", "", ""),
        ("strip", "Set-Cookie: a=b", "Vary: Cookie", ""),
        ("store", "Set-Cookie: a=b", "", ""),
        ("store", "Set-Cookie: a=b", "Vary: Accept, COOKIE", "set-cookie"),  # Django: test_sensitive_cookie_not_cached
        ("store", "Set-Cookie2: a=b", "Vary: Cookie", ""),
    ],
)
def test_set_cookie_as_the_policy_says(policy: Any, cookie_line: str, vary: str, reason: str) -> None:
    lines = ["Cache-Control: public, max-age=60", cookie_line, *([vary] if vary else [])]
    assert storing(head(*lines), Policy.rfc9111(set_cookie=policy)).reason == reason


@pytest.mark.parametrize(
    ("lines", "timeout", "reason"),
    [
        ([], None, "session"),
        (["Vary: Accept-Encoding"], None, "session"),
        (["Cache-Control: public"], None, "session"),  # public, but the lifetime is our guess
        (["Vary: accept,cookie"], None, ""),
        (["Cache-Control: max-age=60"], None, ""),
        ([f"Expires: {at(60)}"], None, ""),
        ([], 60, ""),
    ],
)
def test_a_session_keeps_pages_of_chosen_lifetime_out(lines: list[str], timeout: float | None, reason: str) -> None:
    asked = request("Cookie: a=b; session=xyz")
    assert storing(head(*lines), asked=asked, timeout=timeout).reason == reason
    assert storing(head(*lines), asked=request("Cookie: a=b; theme=dark"), timeout=timeout).ok
    assert storing(head(*lines), DJANGO, asked, timeout=timeout).ok


class Known(Request):
    """Of somebody whom a server or a middleware knows by what is in no field."""

    user = True


@pytest.mark.parametrize(
    ("lines", "reason"),
    [
        ([], "authorization"),
        (["Cache-Control: max-age=60"], "authorization"),
        (["Cache-Control: max-age=60", "Vary: Cookie"], "authorization"),
        (["Cache-Control: public, max-age=60"], ""),
        (["Cache-Control: s-maxage=60"], ""),
    ],
)
@pytest.mark.parametrize("plain", [False, True])
def test_who_was_authenticated_by_other_means_is_as_good_as_authorized(
    lines: list[str], reason: str, plain: bool
) -> None:
    assert storing(head(*lines), asked=Known(), plain=plain).reason == reason
    assert storing(head(*lines), DJANGO, Known(), plain=plain).ok


@pytest.mark.parametrize(
    "cookies",
    [
        ["session=x"],
        ["a=b; session=x"],
        ["a=b;session=x"],
        ["a=b ;\t session =x"],
        ["a=b", "session=x"],  # HTTP/2 splits the field (RFC 9113 §8.2.3)
        ["session="],
        ["session"],
        ["\xa0session=x"],  # str.strip(), which frameworks use, takes this for white space
        ["a=b;\x85session\x85=x"],
        ['a="b; session=x"'],  # a quote that the application may not honour
        ["a=b, session=x"],
        ["a=b,session=x"],  # as servers join two lines of a field
        ["a=b session=x"],  # http.cookies, and with it Bottle and Beaker, takes white space for the end of a cookie
        ['a="b"\tsession=x'],
        ["a=b; c=d\x0bsession=x"],
        ["$Path session=x"],
        ["$Version;session =x; a=b"],
        ["sessionid=x"],
        ["session_id=x"],
        ["PHPSESSID=x"],
        ["JSESSIONID=x"],
        [".AspNetCore.Cookies=x"],
        ["remember_token=x"],
        ["access_token=x"],
        ["access_token_cookie=x"],
        ["auth_tkt=x"],
        ["auth_token=x"],
        ["fastapiusersauth=x"],
        ["id_token=x"],
        ["jwt=x"],
        ["token=x"],
        ["beaker.session.id=x"],
        ["laravel_session=x"],
        ["__Secure-session=x"],
        ["_oauth2_proxy=x"],
        ["_oauth2_proxy_0=x"],
        ["mod_auth_openidc_session=x"],
        ["authelia_session=x"],
        ["CF_Authorization=x"],
        ["AWSELBAuthSessionCookie-0=x"],
        ["__Secure-sessionid=x"],
        ["__Host-access_token=x"],
        ["__Host-Http-jwt=x"],
        ["a=b; __Http-remember_token=x"],
        ["access-token=x"],
        ["access-token-unsecure-ab12=x"],
        ["QUART_AUTH=x"],
        ["__ac=x"],
        ["ds_actor=x"],
        ["__session=x"],
        ["__Secure-next-auth.session-token.0=x"],
        ["authjs.session-token=x"],
        ["sb-abc-auth-token=x"],
        ["jupyterhub-user-alice=x"],
        ["__Host-GCP_IAP_AUTH_TOKEN_12=x"],
        ["username=x"],
        ["connect.sid=x"],
        ["ASP.NET_SessionId=x"],
        [".AspNetCore.Session=x"],
        ["wordpress_logged_in_0123=x"],
        ["__Host-session=x"],
        ["__Host-session_id=x"],
        ["_session=x"],
        ["shop_session=x"],
        ["a=b; my-session =x"],
        ["user_session_id=x"],
        ["__Host-session_token=x"],
        ['"app-session-token"=x'],
        ["ai_session=x; shop_session=y"],
    ],
)
def test_session_cookies_are_seen(cookies: list[str]) -> None:
    asked = Request(fields=[("Cookie", line) for line in cookies])
    assert has_session_cookie(asked, DEFAULT)
    assert not has_session_cookie(asked, STRICT)


@pytest.mark.parametrize(
    "cookies",
    [
        [],
        [""],
        ["a=session"],
        ["a=session=x"],
        ["mysession=x"],
        ["Session=x"],  # names are case-sensitive (RFC 6265)
        ["phpsessid=x"],
        ["sessions=x"],
        ["session.id=x"],
        ["connectXsid=x"],
        ["ai_session=x; rl_session=y"],  # of Application Insights and RudderStack, which count visits by them
        ["a=my_session"],
        ["a=my_session=x"],
        ["my_sessions=x"],
        ["_hjSession_1234=x; _hjSessionUser_1234=y"],
        ["_ga=GA1.2.3; _gid=GA1.2; theme=dark; csrftoken=abc"],
    ],
)
def test_other_cookies_do_not_matter(cookies: list[str]) -> None:
    assert not has_session_cookie(Request(fields=[("Cookie", line) for line in cookies]), DEFAULT)


@pytest.mark.parametrize(
    ("user", "session", "somebody"),
    [(False, "", False), (True, "", True), (False, "held", True), (False, "read", True), (True, "changed", True)],
)
def test_somebody_who_is_known_further_out_has_a_session(user: bool, session: str, somebody: bool) -> None:
    """An empty session of a framework, or a REMOTE_USER without a name, is nobody."""
    kind = type("Known", (Request,), {"known": True, "user": user, "session": session})
    assert has_session(kind(), DEFAULT) is somebody
    assert has_session(kind(fields=[("Cookie", "sessionid=x")]), DEFAULT)
    assert not has_session(kind(), STRICT)


def test_the_names_of_session_cookies_are_the_policys() -> None:
    policy = Policy(session_cookies=("a+b", "app*"))
    assert has_session_cookie(request("Cookie: a+b=1"), policy)
    assert has_session_cookie(request("Cookie: app=1"), policy)
    assert has_session_cookie(request("Cookie: apple=1"), policy)
    assert not has_session_cookie(request("Cookie: aab=1; session=1; ap=1; apricot=1"), policy)
    assert not has_session_cookie(request("Cookie: =1; "), Policy(session_cookies=()))
    for names, cookies, known in [
        (("]^-x", "-"), "a=1; ]^-x=1", True),
        (("]^-x", "-"), "-=1", True),
        (("^x",), "ax=1", False),
        (("*",), "a=1", True),
        (("",), "a=1", False),
        (("", "b"), "a=1; b=2", True),
        (("", "b"), "=1", True),
        (("mine",), "__Host-mine=1", True),
        (("mine",), "__Other-mine=1", False),
        (("a*", "ab"), "ab=1", True),
        (("*-id",), "shop-id=1", True),
        (("*-id",), "a=1;\tshop-id\t=1", True),
        (("*-id",), "shop-ids=1; id=1; a=b-id", False),
        (("*_session", "ai_session"), "ai_session=1", True),
    ]:
        assert has_session_cookie(request(f"Cookie: {cookies}"), Policy(session_cookies=names)) is known


@pytest.mark.parametrize("space", ["\x85", "\xa0", "\u1680", "\u2003", "\u2028", "\u202f", "\u205f", "\u3000", "\x1c"])
def test_white_space_that_a_framework_takes_off_a_name_hides_no_session(space: str) -> None:
    for cookies in (f"{space}sessionid=x", f"a=1;{space}sessionid{space}=x", f"sessionid{space}=x"):
        assert cookies.split(";")[-1].partition("=")[0].strip() == "sessionid"  # as Django reads it
        for octets in {cookies.encode("utf-8"), cookies.encode("latin-1", "ignore")}:
            assert has_session_cookie(Request(fields=[("Cookie", octets.decode("latin-1"))]), DEFAULT)


@given(st.sampled_from([name.strip("*") for name in SESSION_COOKIES]), CHARACTERS, CHARACTERS)
def test_no_neighbour_hides_a_session_cookie(name: str, before: str, value: str) -> None:
    asked = Request(fields=[("Cookie", f"{before};{name}={value}")])
    assert has_session_cookie(asked, DEFAULT)


# §5.2.1.5: "The no-store request directive indicates that a cache MUST NOT store any part of either this request or
# any response to it."
def test_a_requests_no_store_counts_where_request_directives_do() -> None:
    asked = request("Cache-Control: max-age=9, No-Store")
    assert storing(head("Cache-Control: max-age=60"), STRICT, asked).reason == "no-store"
    assert storing(head("Cache-Control: max-age=60"), DEFAULT, asked).ok


# -- fields -------------------------------------------------------------------------------------------------------


# §3.1: "Caches MUST include all received response header fields -- including unrecognized ones -- when storing a
# response … However, the following exceptions are made: The Connection header field and fields whose names are listed
# in it are required by Section 7.6.1 of [HTTP] to be removed before forwarding the message. … Header fields that are
# specific to the proxy that a cache uses when forwarding a request MUST NOT be stored"
def test_fields_keep_order_spelling_and_repetition() -> None:
    lines = [
        "content-TYPE: text/plain",
        "Link: </a>",
        "X-Latin: \xe9",
        "Link: </b>",
        "Content-Range: bytes 0-4/5",
        "Content-Foo: ",
        "Public-Key-Pins: x",
        "Warning: 199 - x",
        "Date: today",
    ]
    for policy in (DEFAULT, STRICT, DJANGO):
        assert storable_fields(head(*lines), policy) == pairs(*lines)


@pytest.mark.parametrize(
    "name",
    [
        "Connection",
        "keep-alive",
        "Proxy-Authenticate",
        "Proxy-Authentication-Info",
        "Proxy-Authorization",
        "Proxy-Connection",
        "TE",
        "Trailer",
        "Transfer-Encoding",
        "UPGRADE",
        "Age",
    ],
)
def test_fields_of_one_hop_are_dropped(name: str) -> None:
    for policy in (DEFAULT, STRICT, DJANGO):
        assert storable_fields(Head(200, (("A", "1"), (name, "garbage"), ("B", "2"))), policy) == (
            ("A", "1"),
            ("B", "2"),
        )


def test_fields_that_connection_nominates_are_dropped() -> None:
    response = head("Connection: a, B ,, close", "connection: D", "A: 1", "b: 2", "C: 3", "d: 4")
    assert storable_fields(response, STRICT) == (("C", "3"),)


@pytest.mark.parametrize(("set_cookie", "kept"), [("refuse", False), ("strip", False), ("store", True)])
def test_cookies_are_stored_where_the_policy_stores_them(set_cookie: Any, kept: bool) -> None:
    cookies = pairs("Set-Cookie: a=b", "set-cookie: c=d", "Set-Cookie2: e=f")
    fields = storable_fields(Head(200, (*cookies, ("A", "1"))), Policy.rfc9111(set_cookie=set_cookie))
    assert fields == ((*cookies, ("A", "1")) if kept else (("A", "1"),))


# RFC 9211 §2: "The list is ordered … Caches append"
def test_of_cache_status_only_our_own_member_is_dropped() -> None:
    origin, own = ("Cache-Status", "Origin; hit"), ("cache-status", "cachemw; fwd=uri-miss")
    assert storable_fields(Head(200, (origin, own)), DEFAULT) == (origin,)
    assert storable_fields(Head(200, (origin, own)), Policy(cache_status=None)) == (origin, own)
    assert storable_fields(Head(200, (origin, own)), Policy(cache_status="Origin")) == (own,)
    named = ("Server", "cachemw"), ("Via", "cachemw; fwd=uri-miss")
    assert storable_fields(Head(200, (*named, own)), DEFAULT) == named


# -- all of it ----------------------------------------------------------------------------------------------------


@given(FIELDS, FIELDS, st.integers(0, 999), st.sampled_from(["GET", "HEAD", "POST", "X"]))
def test_nothing_raises_and_no_cookie_of_another_is_shared(
    asked: Fields, answered: Fields, status: int, method: str
) -> None:
    incoming = Request(method, fields=asked)
    response = Head(status, answered)
    for policy in (DEFAULT, STRICT, DJANGO):
        answer = storing(response, policy, incoming)
        fields = storable_fields(response, policy)
        assert answer.ok is (answer.reason == "")
        assert answer.ok or answer.keep == answer.lifetime == 0
        if policy is DEFAULT:
            assert "set-cookie" not in {name.lower() for name, _ in fields}
        if answer.ok:
            assert not any(octet in text for field in fields for text in field for octet in "\r\n\0")
