"""What the newer edition of http-cache-tests asks beyond the one on npm, in the same style, of `Policy.rfc9111()`.

The origin is scripted and the clock frozen: no test waits. Each row is a response and whether a second request, three
seconds later unless it says otherwise, is answered from the cache. Integers in place of dates are seconds from now.
Interim responses are in test_newer_suite_interim.py.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import pytest

from cachemw.rfc9111.fields import format_date
from cachemw.rfc9111.policy import Policy
from tests.scenarios.conftest import START, Asked, Script, Site
from tests.scenarios.test_staleness import wait_for_refreshes

Row = tuple[str, Any]

PAUSE = 3  # seconds, the suite's
CACHED, NOT_CACHED = True, False
HOUR = ("Cache-Control", "max-age=3600")
NOW = ("Date", 0)


@pytest.fixture
def strict(site: Site) -> Site:
    """A site whose cache is a strict general-purpose one."""
    return site.build(policy=Policy.rfc9111())


def script(rows: Sequence[Row], status: int = 200, body: bytes = b"page", **options: Any) -> Script:
    return Script(status, [(n, format_date(START + v) if isinstance(v, int) else v) for n, v in rows], body, **options)


def reused(site: Site, *rows: Row, status: int = 200, after: float = PAUSE) -> bool:
    """Is the second request answered without the origin?"""
    site.answers(script(rows, status))
    site.get()
    site.clock.advance(after)
    site.get()
    return len(site.calls) == 1


@pytest.mark.parametrize(
    ("age", "cached"),
    [
        (["abc"], CACHED),
        (["-7200"], CACHED),
        (["7200.0"], CACHED),
        (["2147483647"], NOT_CACHED),
        (["2147483648"], NOT_CACHED),
        (["2147483649"], NOT_CACHED),
        (["99999999999"], NOT_CACHED),
        (["7200, 0"], NOT_CACHED),
        (["0, 7200"], CACHED),
        (["7200", "0"], NOT_CACHED),
        (["0", "7200"], CACHED),
        (["0, 0"], CACHED),
        (["0", "0"], CACHED),
        (["3600, 3600"], NOT_CACHED),
        (["3600", "3600"], NOT_CACHED),
        (["7200;foo=bar"], CACHED),
        (["7200;foo=111"], CACHED),
    ],
)
def test_age_parse(strict: Site, age: list[str], cached: bool) -> None:
    """RFC 9111 §5.1: the first member counts; what is not a non-negative integer is ignored.

    The suite leaves open whether one with a parameter is.
    """
    assert reused(strict, HOUR, NOW, *[("Age", line) for line in age]) is cached


@pytest.mark.parametrize("age", [["3600, 3600"], ["3600", "3600"]])
def test_an_age_given_twice_is_not_added_up(strict: Site, age: list[str]) -> None:
    assert reused(strict, ("Cache-Control", "max-age=7000"), NOW, *[("Age", line) for line in age])


@pytest.mark.parametrize(
    ("expires", "cached"),
    [
        (["Tue, 19 Jan 2038 14:14:08 GMT"], CACHED),  # beyond 32 bits
        (["Sun, 21 Nov 2286 04:46:39 GMT"], CACHED),
        (["Thursday, 18-Aug-50 02:01:18 GMT"], CACHED),
        (["Thu Aug  8 02:01:18 2050"], CACHED),
        (["THU, 18 Aug 2050 02:01:18 GMT"], CACHED),
        (["Thu, 18 AUG 2050 02:01:18 GMT"], CACHED),
        (["Thu, 18 Aug 2050 02:01:18 gMT"], CACHED),
        (["Thu, 18 Aug 2050 02:01:18 UTC"], NOT_CACHED),
        (["Thu, 18 Aug 2050 02:01:18 AEST"], NOT_CACHED),
        (["Thu, 18 Aug 50 02:01:18 GMT"], NOT_CACHED),
        (["Thu 18 Aug 2050 02:01:18 GMT"], NOT_CACHED),
        (["Thu, 18  Aug  2050 02:01:18 GMT"], NOT_CACHED),
        (["Thu, 18-Aug-2050 02:01:18 GMT"], NOT_CACHED),
        (["Thu, 18 Aug 2050 02.01.18 GMT"], NOT_CACHED),
        (["Thu, 18 Aug 2050 2:01:18 GMT"], NOT_CACHED),
        (["Thu, 18 Aug 2050 02:01:18 GMT", "Thu, 18 Aug 2050 02:01:19 GMT"], NOT_CACHED),
        (["0"], NOT_CACHED),
        ([""], NOT_CACHED),
    ],
)
def test_expires_parse(strict: Site, expires: list[str], cached: bool) -> None:
    """RFC 9110 §5.6.7, RFC 9111 §5.3: three forms, names in any case; "0" and all else is in the past."""
    assert reused(strict, NOW, *[("Expires", line) for line in expires]) is cached


@pytest.mark.parametrize(
    ("rows", "cached"),
    [
        ([("Expires", 10), ("Date", 3600)], NOT_CACHED),  # older than a Date that is fast
        ([("Expires", 3600), ("Date", "foo")], CACHED),
        ([("Expires", 3600), ("Date", -3600), ("Age", "7201")], NOT_CACHED),  # Age over Expires - Date, slow Date
        ([("Expires", 3600), ("Date", 3000), ("Age", "601")], NOT_CACHED),  # the same, fast Date
        ([("Expires", 3600), ("Date", 3000), ("Age", "500")], CACHED),
    ],
)
def test_expires_against_a_wrong_clock(strict: Site, rows: list[Row], cached: bool) -> None:
    """RFC 9111 §4.2.1: the lifetime is Expires minus Date, by the origin's own clock."""
    assert reused(strict, *rows) is cached


@pytest.mark.parametrize(
    "vary",
    [["*"], ["*, *"], ["*", "*"], [", *"], ["", "*"], ["*, Foo"], ["Foo, *"], ["Foo", "*"], ["\t*\t"]],
)
def test_vary_parse(strict: Site, vary: list[str]) -> None:
    """RFC 9111 §4.1: a member "*" always fails to match."""
    assert not reused(strict, HOUR, NOW, *[("Vary", line) for line in vary])


def test_a_language_is_no_reason_to_share_what_was_chosen_by_a_list_of_languages(strict: Site) -> None:
    """RFC 9111 §4.1: lists match where they mean the same. Here they share the first choice, and Content-Language.

    The application takes what is not translated from the next language, as `gettext.translation(languages=…)` does.
    """
    lists = {"de;q=1.0, fr;q=0.5": b"Titel, sous-titre", "de, en;q=0.5": b"Titel, subtitle"}

    def respond(asked: Asked) -> Script:
        rows = [HOUR, NOW, ("Vary", "Accept-Language"), ("Content-Language", "de")]
        return script(rows, body=lists[asked.fields["accept-language"]])

    strict.respond = respond
    for _ in range(2):
        for languages, body in lists.items():
            assert strict.get(fields={"Accept-Language": languages}).body == body
    assert len(strict.calls) == len(lists)


@pytest.mark.parametrize(
    ("rows", "cached"),
    [
        ([("CDN-Cache-Control", "max-age=3600")], CACHED),
        ([("CDN-Cache-Control", "max-age=2147483648")], CACHED),
        ([("CDN-Cache-Control", "max-age=99999999999")], CACHED),
        ([("CDN-Cache-Control", "max-age=3600"), ("Age", "12000")], NOT_CACHED),
        ([("CDN-Cache-Control", "max-age=0"), HOUR], NOT_CACHED),
        ([("CDN-Cache-Control", "foobar, max-age=3600")], CACHED),
        ([("CDN-Cache-Control", "foobar=baz, max-age=3600")], CACHED),
        ([("CDN-Cache-Control", "max-age=3600"), ("Expires", -10000)], CACHED),
        ([("CDN-Cache-Control", "max-age=3600"), ("Cache-Control", "max-age=1"), ("Expires", "0")], CACHED),
        ([("CDN-Cache-Control", "max-age=0"), ("Expires", 10000)], NOT_CACHED),
        ([("CDN-Cache-Control", "max-age=10000"), ("Cache-Control", "max-age=1")], CACHED),
        ([("CDN-Cache-Control", "max-age=1"), ("Cache-Control", "max-age=10000")], NOT_CACHED),
        ([("CDN-Cache-Control", "private"), HOUR], NOT_CACHED),
        ([("CDN-Cache-Control", "no-cache"), HOUR], NOT_CACHED),
        ([("CDN-Cache-Control", "no-store"), HOUR], NOT_CACHED),
        ([("CDN-Cache-Control", "max-age=3600"), ("Cache-Control", "no-store")], CACHED),
        ([("CDN-Cache-Control", "max-age=10000, &&&&&"), ("Cache-Control", "no-store")], NOT_CACHED),
        ([("CDN-Cache-Control", "&&&&&"), HOUR], CACHED),
        ([("CDN-Cache-Control", 'max-age="10000"')], NOT_CACHED),
        ([("CDN-Cache-Control", "max-age =3600")], NOT_CACHED),
        ([("CDN-Cache-Control", "max-age =100"), ("Cache-Control", "max-age=1")], NOT_CACHED),
        ([("CDN-Cache-Control", "max-age= 100"), ("Cache-Control", "max-age=1")], NOT_CACHED),
        ([("CDN-Cache-Control", "max-age= 3600")], NOT_CACHED),
        ([("CDN-Cache-Control", "MaX-aGe=3600")], NOT_CACHED),
    ],
)
def test_cdn_cache_control(strict: Site, rows: list[Row], cached: bool) -> None:
    """RFC 9213 §2.1, §2.2: a strict structured field; where valid, Cache-Control and Expires do not count."""
    assert reused(strict, NOW, *rows) is cached


def test_cdn_cache_control_and_what_it_overrules_are_passed_on(strict: Site) -> None:
    """RFC 9213 §3: a cache downstream decides for itself."""
    strict.answers(
        script([("CDN-Cache-Control", "max-age=3600"), ("Cache-Control", "max-age=1"), ("Expires", 1), ("Date", 0)])
    )
    strict.get()
    strict.clock.advance(PAUSE)
    hit = strict.get()
    assert hit.hit
    assert hit["cdn-cache-control"] == "max-age=3600"
    assert hit["cache-control"] == "max-age=1"
    assert hit["expires"] == format_date(START + 1)
    assert hit["date"] == format_date(START)
    assert hit["age"] == str(PAUSE)


def test_a_cdn_cache_control_without_a_directive_we_know_is_passed_on(strict: Site) -> None:
    strict.answers(script([("CDN-Cache-Control", "foo"), ("Cache-Control", "max-age=10000"), ("Expires", 10000), NOW]))
    assert strict.get()["cdn-cache-control"] == "foo"


# -- stale -------------------------------------------------------------------------------------------------------------


def failing(site: Site, cache_control: str, failure: Script, *, after: float) -> Any:
    """The response to a request when the stored one is stale and the origin fails."""
    site.answers(script([("Cache-Control", cache_control), NOW], body=b"stored"), failure)
    site.get()
    site.clock.advance(after)
    return site.get()


CLOSED = Script(early=ConnectionError("the origin closed the connection"))
BAD_GATEWAY = Script(502, [], b"gateway")
UNAVAILABLE = Script(503, [], b"unavailable")


@pytest.mark.parametrize("failure", [CLOSED, BAD_GATEWAY, Script(504, [], b"gateway")], ids=["raised", "502", "504"])
def test_stale_when_the_origin_is_gone(strict: Site, failure: Script) -> None:
    """RFC 9111 §4.2.4: a disconnected cache may answer with what is stale."""
    answer = failing(strict, "max-age=2", failure, after=PAUSE)
    assert (answer.status, answer.body) == (200, b"stored")


@pytest.mark.parametrize("directive", ["must-revalidate", "proxy-revalidate", "no-cache", "s-maxage=2"])
def test_never_stale_where_it_is_forbidden(strict: Site, directive: str) -> None:
    """RFC 9111 §4.2.4, §5.2.2.2, §5.2.2.8, §5.2.2.10: the failure is passed on."""
    answer = failing(strict, f"max-age=2, {directive}", BAD_GATEWAY, after=PAUSE)
    assert (answer.status, answer.body) == (502, b"gateway")


@pytest.mark.parametrize("directive", ["must-revalidate", "proxy-revalidate", "no-cache", "s-maxage=2"])
def test_never_stale_where_it_is_forbidden_and_the_application_raises(strict: Site, directive: str) -> None:
    answer = failing(strict, f"max-age=2, {directive}", CLOSED, after=PAUSE)
    assert isinstance(answer.error, ConnectionError)
    assert answer.body == b""


@pytest.mark.parametrize("failure", [CLOSED, UNAVAILABLE], ids=["raised", "503"])
def test_stale_if_error(strict: Site, failure: Script) -> None:
    """RFC 5861 §4."""
    answer = failing(strict, "max-age=2, stale-if-error=60", failure, after=PAUSE)
    assert (answer.status, answer.body) == (200, b"stored")


def test_stale_if_error_ends(strict: Site) -> None:
    answer = failing(strict, "max-age=2, stale-if-error=60", UNAVAILABLE, after=63)
    assert (answer.status, answer.body) == (503, b"unavailable")


def test_stale_while_revalidate(strict: Site) -> None:
    fields = [("Cache-Control", "max-age=1, stale-while-revalidate=3600"), ("ETag", '"abc"')]
    strict.answers(script(fields, body=b"old"), script(fields, body=b"new"))
    strict.get()
    strict.clock.advance(PAUSE)
    assert strict.get().body == b"old"


def test_what_a_refresh_brought_is_used_as_it_says(strict: Site) -> None:
    """The window is the stored response's own, and what must be validated has none."""
    strict.answers(
        script([("Cache-Control", "max-age=1, stale-while-revalidate=4"), ("ETag", '"abc"')], body=b"first"),
        script([("Cache-Control", "no-cache"), ("ETag", '"def"')], body=b"refreshed"),
        script([("Cache-Control", "no-cache"), ("ETag", '"ghi"')], body=b"third"),
    )
    strict.get()
    strict.clock.advance(PAUSE)
    assert strict.get().body == b"first"
    wait_for_refreshes(strict)
    strict.clock.advance(PAUSE)
    assert strict.get().body == b"third"


def test_stale_while_revalidate_ends(strict: Site) -> None:
    """RFC 5861 §3: not beyond its window."""
    fields = [("Cache-Control", "max-age=1, stale-while-revalidate=1"), NOW]
    strict.answers(script(fields, body=b"old"), script(fields, body=b"new"))
    strict.get()
    strict.clock.advance(PAUSE)
    assert strict.get().body == b"new"


# -- storing -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("status", "cache_control", "cached"),
    [
        (200, "max-age=3600, no-store, must-understand", CACHED),
        (200, "max-age=3600, no-store", NOT_CACHED),
        (599, "max-age=3600, must-understand", NOT_CACHED),
        (599, "max-age=3600, no-store, must-understand", NOT_CACHED),
        (599, "max-age=3600", CACHED),
    ],
)
def test_must_understand(strict: Site, status: int, cache_control: str, cached: bool) -> None:
    """RFC 9111 §5.2.2.3: it takes the place of no-store where the status is understood."""
    assert reused(strict, ("Cache-Control", cache_control), NOW, status=status) is cached


@pytest.mark.parametrize(
    ("status", "extra", "cached"),
    [
        *[(status, None, CACHED) for status in (200, 203, 204, 404, 405, 410, 414, 501)],
        *[(status, None, NOT_CACHED) for status in (201, 202, 403, 502, 503, 504, 599)],
        (599, ("Cache-Control", "public"), CACHED),
    ],
)
def test_heuristic_freshness(strict: Site, status: int, extra: Row | None, cached: bool) -> None:
    """RFC 9111 §4.2.2: for statuses that allow it, and for any that is marked public."""
    rows: list[Row] = [("Last-Modified", -100_000), NOW]
    assert reused(strict, *rows, *([extra] if extra else []), status=status) is cached


def test_a_newer_response_that_is_not_stored_leaves_the_older_one(strict: Site) -> None:
    """A no-store response in between does not invalidate what is stored."""
    strict.answers(
        script([("Cache-Control", "max-age=10000"), NOW], body=b"stored"),
        script([("Cache-Control", "no-store"), NOW], body=b"not stored"),
    )
    strict.get()
    assert strict.get(fields={"Cache-Control": "no-cache"}).body == b"not stored"
    assert strict.get().body == b"stored"


@pytest.mark.parametrize("directive", ["no-cache", "private"])
def test_fields_that_a_directive_lists_are_not_reused(strict: Site, directive: str) -> None:
    """RFC 9111 §5.2.2.4, §5.2.2.7, in their qualified form."""
    rows = [("Cache-Control", f'{directive}="a, B", max-age=3600'), ("A", "1"), ("B", "2"), ("C", "3"), NOW]
    strict.answers(script(rows))
    first, second = strict.get(), strict.get()
    assert (first["a"], first["b"], first["c"]) == ("1", "2", "3")
    assert second.hit
    assert (second["a"], second["b"], second["c"]) == (None, None, "3")


@pytest.mark.filterwarnings("ignore:Unknown REQUEST_METHOD")  # wsgiref.validate knows the methods of RFC 9110 alone
@pytest.mark.parametrize("method", ["POST", "PUT", "DELETE", "M-SEARCH"])
@pytest.mark.parametrize(("status", "kept"), [(200, False), (302, False), (404, True), (500, True)])
def test_invalidation(strict: Site, method: str, status: int, kept: bool) -> None:
    """RFC 9111 §4.4: by unsafe and unknown methods, where they succeed."""
    page = script([HOUR, NOW])
    strict.respond = lambda asked: page if asked.method == "GET" else Script(status)
    strict.get()
    strict.request(method)
    strict.get()
    assert [asked.method for asked in strict.calls].count("GET") == (1 if kept else 2)


# -- updates -----------------------------------------------------------------------------------------------------------


def head_answers(site: Site, answer: Script) -> None:
    page = script([("Cache-Control", "max-age=2"), ("ETag", '"1"'), ("Template-A", "1"), NOW])
    site.respond = lambda asked: page if asked.method == "GET" else answer


@pytest.mark.parametrize("length", [[], [("Content-Length", "4")]], ids=["no length", "the same length"])
def test_a_head_freshens_the_stored_get(strict: Site, length: list[Row]) -> None:
    """RFC 9111 §4.3.5: same validator, and same length if there is one."""
    rows = [("Cache-Control", "max-age=1000"), ("ETag", '"1"'), ("Template-A", "2"), *length]
    head_answers(strict, script(rows))
    strict.get()
    strict.clock.advance(PAUSE)
    strict.request("HEAD")
    hit = strict.get()
    assert hit.hit
    assert (hit.body, hit["template-a"]) == (b"page", "2")


@pytest.mark.parametrize(
    "answer",
    [
        script([("ETag", '"2"'), HOUR]),
        script([("ETag", '"1"'), ("Content-Length", "5"), HOUR]),
        Script(410, []),
    ],
    ids=["other validator", "other length", "gone"],
)
def test_a_head_that_tells_of_another_page_ends_the_stored_get(strict: Site, answer: Script) -> None:
    head_answers(strict, answer)
    strict.get()
    strict.clock.advance(PAUSE)
    strict.request("HEAD")
    strict.get()
    assert [asked.method for asked in strict.calls] == ["GET", "HEAD", "GET"]
    assert "if-none-match" not in strict.calls[-1].fields


@pytest.mark.parametrize("status", [206, 301, 400, 401, 403, 405, 406, 412, 416, 429, 503])
def test_a_refused_head_leaves_the_stored_get(strict: Site, status: int) -> None:
    """RFC 9111 §4.3.5 knows a 200 alone. What is said of one request, or of HEAD as such, is nothing about the page."""
    page = script([HOUR, ("ETag", '"1"'), NOW])
    strict.respond = lambda asked: page if asked.method == "GET" else Script(status)
    strict.get()
    strict.request("HEAD", fields={"Cache-Control": "no-cache"})
    assert [asked.method for asked in strict.calls] == ["GET", "HEAD"]
    assert strict.get().hit


@pytest.mark.parametrize("status", [404, 410])
def test_a_head_that_finds_nothing_ends_the_stored_get(strict: Site, status: int) -> None:
    page = script([HOUR, ("ETag", '"1"'), NOW])
    strict.respond = lambda asked: page if asked.method == "GET" else Script(status)
    strict.get()
    strict.request("HEAD", fields={"Cache-Control": "no-cache"})
    assert not strict.get().hit


# -- parts -------------------------------------------------------------------------------------------------------------

DIGITS = b"0123456789"


def parts(asked: Asked) -> Script:
    """An origin that answers ranges of ten digits, with one validator for all of them."""
    rows: list[Row] = [HOUR, ("ETag", '"digits"'), NOW]
    requested = asked.fields.get("range")
    if requested is None:
        return script(rows, body=DIGITS)
    first, _, last = requested.removeprefix("bytes=").partition("-")
    begin = int(first) if first else len(DIGITS) - int(last)
    end = int(last) if first and last else len(DIGITS) - 1
    return script([*rows, ("Content-Range", f"bytes {begin}-{end}/10")], 206, DIGITS[begin : end + 1])


@pytest.mark.parametrize(
    ("again", "body", "content_range"),
    [
        ("bytes=-5", b"56789", "bytes 5-9/10"),
        ("bytes=5-9", b"56789", "bytes 5-9/10"),
        ("bytes=6-8", b"678", "bytes 6-8/10"),
        ("bytes=6-", b"6789", "bytes 6-9/10"),
        ("bytes=-1", b"9", "bytes 9-9/10"),
    ],
)
def test_a_stored_part_answers_ranges_within_it(strict: Site, again: str, body: bytes, content_range: str) -> None:
    """RFC 9111 §3.3: what an incomplete response holds may be given out as 206."""
    strict.respond = parts
    assert strict.get(fields={"Range": "bytes=-5"}).status == 206
    hit = strict.get(fields={"Range": again})
    assert (hit.status, hit.body, hit["content-range"]) == (206, body, content_range)
    assert len(strict.calls) == 1


def test_a_range_outside_of_the_stored_part_is_fetched(strict: Site) -> None:
    strict.respond = parts
    strict.get(fields={"Range": "bytes=-5"})
    answer = strict.get(fields={"Range": "bytes=0-2"})
    assert (answer.status, answer.body) == (206, b"012")
    assert len(strict.calls) == 2


def test_a_part_is_never_given_out_as_the_whole(strict: Site) -> None:
    strict.respond = parts
    strict.get(fields={"Range": "bytes=0-4"})
    answer = strict.get()
    assert (answer.status, answer.body) == (200, DIGITS)
    assert answer["content-range"] is None


@pytest.mark.parametrize("content_range", ["bytes 4-9/10", "bytes 0-9/5", "bytes 9-5/10", "bytes */10", "items 0-4/10"])
def test_a_part_that_is_not_what_it_says_is_not_stored(strict: Site, content_range: str) -> None:
    """Five octets cannot be 4-9; what contradicts itself is passed on and forgotten."""
    strict.answers(script([HOUR, ("Content-Range", content_range), NOW], 206, b"01234"))
    first = strict.get(fields={"Range": "bytes=-5"})
    assert (first.status, first.body) == (206, b"01234")
    strict.get(fields={"Range": "bytes=-5"})
    assert len(strict.calls) == 2
