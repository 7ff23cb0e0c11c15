"""Django's header helpers (its tests' assertions, where RFC 9111 does not say otherwise), on every kind of headers."""

from __future__ import annotations

from collections.abc import Callable
from types import SimpleNamespace
from typing import Any
from wsgiref.headers import Headers as WsgirefHeaders

import httpx
import pytest
from hypothesis import given
from hypothesis import strategies as st
from starlette.datastructures import Headers as StarletteHeaders
from starlette.datastructures import MutableHeaders
from starlette.responses import Response as StarletteResponse
from werkzeug.datastructures import Headers
from werkzeug.wrappers import Response

from cachemw.headers import (
    add_never_cache_headers,
    check_directives,
    get_max_age,
    has_vary_header,
    patch_cache_control,
    patch_response_headers,
    patch_vary_headers,
)
from cachemw.rfc9111.fields import merge_vary, parse_cache_control

NOW = 784111777.0  # Sun, 06 Nov 1994 08:49:37 GMT, the date of RFC 9110 §5.6.7
NEVER = "max-age=0, no-cache, no-store, must-revalidate, private"

Pairs = list[tuple[str, str]]


def _starlette_headers(pairs: Pairs) -> MutableHeaders:
    return MutableHeaders(raw=[(name.lower().encode(), value.encode()) for name, value in pairs])


def _starlette_response(pairs: Pairs) -> StarletteResponse:
    response = StarletteResponse()
    response.raw_headers = [(name.lower().encode(), value.encode()) for name, value in pairs]
    return response


#: What a framework may hand us, made of pairs.
KINDS: dict[str, Callable[[Pairs], Any]] = {
    "list of pairs": list,
    "list of pairs of bytes": lambda pairs: [(n.lower().encode(), v.encode()) for n, v in [*pairs, ("X", "y")]],
    "werkzeug Headers": Headers,
    "werkzeug Response": lambda pairs: Response(headers=Headers(pairs)),
    "Starlette MutableHeaders": _starlette_headers,
    "Starlette Response": _starlette_response,
    "wsgiref Headers": WsgirefHeaders,
    "httpx Headers": httpx.Headers,
    "dict": lambda pairs: {name.upper(): value for name, value in pairs},
    "any object with headers": lambda pairs: SimpleNamespace(headers=list(pairs)),
}


def lines_of(target: Any, name: str) -> list[str]:
    """The lines of a field, by means that have nothing to do with the code under test."""
    headers = getattr(target, "headers", target)
    items = headers if isinstance(headers, list) else headers.raw if hasattr(headers, "raw") else headers.items()
    text = [[part.decode() if isinstance(part, bytes) else part for part in pair] for pair in items]
    return [value for key, value in text if key.lower() == name.lower()]


def patched(before: str | None, **directives: Any) -> str:
    """The Cache-Control field that `patch_cache_control` makes of this one."""
    headers: Pairs = [] if before is None else [("Cache-Control", before)]
    patch_cache_control(headers, **directives)
    [(name, value)] = headers
    assert name == "Cache-Control"
    return value


# -- every kind of headers ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", KINDS)
def test_the_helpers_work_on_the_headers_of_every_framework(kind: str) -> None:
    target = KINDS[kind]([("vary", "Cookie"), ("Cache-Control", "max-age=60")])
    patch_vary_headers(target, ["Accept-Language"])
    patch_cache_control(target, public=True, max_age=90)
    patch_response_headers(target, 30, now=NOW)
    assert lines_of(target, "Vary") == ["Cookie, Accept-Language"]
    assert lines_of(target, "Cache-Control") == ["max-age=30, public"]
    assert lines_of(target, "Expires") == ["Sun, 06 Nov 1994 08:50:07 GMT"]
    assert get_max_age(target) == 30
    assert has_vary_header(target, "cookie")
    assert not has_vary_header(target, "Accept")


@pytest.mark.parametrize("kind", [kind for kind in KINDS if kind not in ("dict", "wsgiref Headers")])
def test_several_lines_become_one(kind: str) -> None:
    pairs = [
        ("Vary", "A"),
        ("X-Before", "1"),
        ("vary", "B"),
        ("Cache-Control", "public"),
        ("cache-control", "no-store"),
    ]
    target = KINDS[kind](pairs)
    patch_vary_headers(target, ["C"])
    patch_cache_control(target, max_age=1)
    assert lines_of(target, "vary") == ["A, B, C"]
    assert lines_of(target, "cache-control") == ["public, no-store, max-age=1"]
    assert lines_of(target, "x-before") == ["1"]


def test_a_list_keeps_its_order() -> None:
    headers = [("A", "1"), ("Vary", "X"), ("B", "2"), ("VARY", "Y"), ("C", "3")]
    patch_vary_headers(headers, [])
    assert headers == [("A", "1"), ("Vary", "X, Y"), ("B", "2"), ("C", "3")]


def test_a_dict_has_the_field_once_whatever_its_case() -> None:
    headers = {"VARY": "Cookie", "vary": "Accept"}
    patch_vary_headers(headers, ["Origin"])
    assert headers == {"Vary": "Cookie, Accept, Origin"}


def test_the_headers_of_a_request_can_be_read_and_not_changed() -> None:
    headers = StarletteHeaders({"Vary": "Cookie"})
    assert has_vary_header(headers, "Cookie")
    with pytest.raises(TypeError):
        patch_vary_headers(headers, ["Accept"])
    assert has_vary_header((("Vary", "Cookie"),), "Cookie")


# -- Vary ---------------------------------------------------------------------------------------------------------

# Django 5.2, CacheUtils.test_patch_vary_headers, and what it leaves out
VARY: list[tuple[str | None, tuple[str, ...], str]] = [
    (None, ("Accept-Encoding",), "Accept-Encoding"),
    ("Accept-Encoding", ("accept-encoding",), "Accept-Encoding"),
    ("Accept-Encoding", ("ACCEPT-ENCODING",), "Accept-Encoding"),
    ("Cookie", ("Accept-Encoding",), "Cookie, Accept-Encoding"),
    ("Cookie, Accept-Encoding", ("Accept-Encoding",), "Cookie, Accept-Encoding"),
    ("Cookie, Accept-Encoding", ("Accept-Encoding", "cookie"), "Cookie, Accept-Encoding"),
    ("Cookie    ,     Accept-Encoding", ("Accept-Encoding", "cookie"), "Cookie, Accept-Encoding"),
    (None, ("Accept-Encoding", "COOKIE"), "Accept-Encoding, COOKIE"),
    ("*", ("Accept-Language", "Cookie"), "*"),
    ("Cookie, Accept-Encoding", ("*",), "*"),
    ("*, Cookie", ("Accept",), "*"),
    (" * ", (), "*"),
    (" * ", ("A",), "*"),
    (" ,\t*,", ("A",), "*"),
    ("", ("A",), "A"),
    (", Cookie,, ", ("A",), "Cookie, A"),
    (None, ("A", "a", "A"), "A"),
    ("not a name", ("A",), "not a name, A"),
]


@pytest.mark.parametrize(("before", "names", "after"), VARY)
def test_vary_names_each_field_once(before: str | None, names: tuple[str, ...], after: str) -> None:
    headers: Pairs = [] if before is None else [("Vary", before)]
    patch_vary_headers(headers, names)
    assert headers == [("Vary", after)]
    assert merge_vary([] if before is None else [before], names) == after


def test_nothing_added_to_nothing_is_nothing() -> None:
    headers: Pairs = []
    patch_vary_headers(headers, ())
    assert headers == []


@pytest.mark.parametrize(
    ("vary", "name", "has"),
    [
        ("*", "Accept-Language", False),
        ("*", "*", True),
        (" * ", "*", True),
        ("Cookie, *", "*", True),
        ("Cookie, Accept", "ACCEPT", True),
        ("Cookie ,Accept\t", "accept", True),
        ("Accept-Encoding", "Accept", False),
        ("", "", False),
    ],
)
def test_has_vary_header(vary: str, name: str, has: bool) -> None:
    assert has_vary_header({"Vary": vary}, name) is has


def test_a_lone_text_is_no_list_of_names() -> None:
    with pytest.raises(TypeError, match=r"write \['Cookie'\]"):
        patch_vary_headers({}, "Cookie")


@pytest.mark.parametrize("name", ["", "Accept Language", "A,B", "A\r\nSet-Cookie: x=1", None, b"Cookie"])
def test_what_is_no_field_name_is_refused(name: Any) -> None:
    headers: dict[str, str] = {}
    with pytest.raises(ValueError, match="names of request fields"):
        patch_vary_headers(headers, ["Cookie", name])
    assert headers == {}


# -- Cache-Control ------------------------------------------------------------------------------------------------

CACHE_CONTROL: list[tuple[str | None, dict[str, Any], str]] = [
    # C4: names in lower case, "_" is "-", what is there stays
    (None, {"private": True}, "private"),
    (None, {"must_revalidate": True, "MAX_AGE": 3}, "must-revalidate, max-age=3"),
    (None, {"stale-while-revalidate": 5, "s_maxage": 60}, "stale-while-revalidate=5, s-maxage=60"),
    ('ext="a, b", Foo=1', {"immutable": True}, 'ext="a, b", foo=1, immutable'),
    # C5: public and private exclude each other, the newer wins
    ("private", {"private": True}, "private"),
    ("private", {"public": True}, "public"),
    ("public", {"public": True}, "public"),
    ("public", {"private": True}, "private"),
    ("public, PRIVATE", {"max_age": 1}, "public, private, max-age=1"),
    ("must-revalidate,max-age=60,private", {"public": True}, "must-revalidate, max-age=60, public"),
    ("must-revalidate,max-age=60,public", {"private": True}, "must-revalidate, max-age=60, private"),
    ("must-revalidate,max-age=60", {"public": True}, "must-revalidate, max-age=60, public"),
    # of some fields only, private does not exclude public
    ('private="Set-Cookie"', {"public": True}, 'private="Set-Cookie", public'),
    ("public", {"private": "Set-Cookie"}, 'public, private="Set-Cookie"'),
    ("x-private-ok", {"public": True}, "x-private-ok, public"),  # H20
    # C6: names of fields add up, and a directive without names takes them all in
    (None, {"no_cache": "Set-Cookie"}, 'no-cache="Set-Cookie"'),
    (None, {"no-cache": ["Set-Cookie", "X-A"]}, 'no-cache="Set-Cookie, X-A"'),
    ("no-cache=Set-Cookie", {"no_cache": "Link"}, 'no-cache="Set-Cookie, Link"'),
    ('no-cache="Set-Cookie", no-cache=A', {"no_cache": ("set-cookie", "B")}, 'no-cache="Set-Cookie, A, B"'),
    ("no-cache=Set-Cookie", {"no_cache": True}, "no-cache"),
    ("no-cache=Set-Cookie,no-cache=Link", {"no_cache": True}, "no-cache"),
    ("no-cache", {"no_cache": "Set-Cookie"}, "no-cache"),
    ('no-cache, no-cache="A"', {"no_cache": "Set-Cookie"}, 'no-cache, no-cache="A"'),
    # C7: the smaller max-age, and the newer of anything else
    ("max-age=60", {"max_age": 30}, "max-age=30"),
    ("max-age=30", {"max_age": 60}, "max-age=30"),
    ("max-age=90, max-age=70", {"max_age": 80}, "max-age=70"),
    ('max-age="5"', {"max_age": 60}, "max-age=5"),
    ("s-maxage=30", {"s_maxage": 60}, "s-maxage=60"),
    # H21: bad values that are there
    ("max-age=abc", {"max_age": 60}, "max-age=60"),
    ("max-age", {"max_age": 60}, "max-age=60"),
    ("max-age=-5", {"max_age": 60}, "max-age=60"),
    ("max-age=" + "9" * 5000, {"max_age": 60}, "max-age=60"),
    ("public, ", {"max_age": 60}, "public, max-age=60"),
    (",,", {"max_age": 60}, "max-age=60"),
    ('no-store="', {"max_age": 60}, 'no-store="=\\"", no-store, max-age=60'),
    # False takes out, None leaves
    ("no-store, public", {"no_store": False}, "public"),
    ("max-age=5, public", {"max_age": False, "public": None}, "public"),
    ('private="A"', {"private": False, "s_maxage": None}, ""),
    # C8
    (None, {}, ""),
]


@pytest.mark.parametrize(("before", "directives", "after"), CACHE_CONTROL)
def test_patch_cache_control(before: str | None, directives: dict[str, Any], after: str) -> None:
    assert patched(before, **directives) == after


def test_a_directive_that_is_no_standard_one_is_an_extension() -> None:
    value = patched("max-age=1", extensions={"Edge-TTL": 60, "community": 'a "b"', "fast": True, "slow": False})
    assert value == 'max-age=1, edge-ttl=60, community="a \\"b\\"", fast'
    assert patched("fast, slow=1", extensions={"slow": False}) == "fast"


WRONG: list[tuple[dict[str, Any], type[Exception], str]] = [
    ({"max_agee": 1}, TypeError, "unknown directive 'max-agee'; did you mean max-age"),
    ({"smaxage": 1}, TypeError, "did you mean s-maxage"),
    ({"qqqq": 1}, TypeError, "unknown directive 'qqqq'. Pass other directives in `extensions`"),
    ({"only_if_cached": True}, TypeError, "only-if-cached is a directive of requests"),
    ({"max_age": "60"}, TypeError, "max-age is a whole number of seconds; got '60'"),
    ({"max_age": 60.0}, TypeError, "whole number"),
    ({"max_age": True}, TypeError, "whole number"),
    ({"s_maxage": -1}, ValueError, "s-maxage is 0 seconds or more; got -1"),
    ({"no_store": "yes"}, TypeError, "no-store is True or False; got 'yes'"),
    ({"public": 1}, TypeError, "public is True or False"),
    ({"no_cache": ""}, TypeError, "no-cache is True, False, or names of response fields"),
    ({"no_cache": 1}, TypeError, "no-cache is True"),
    ({"private": ["Set Cookie"]}, TypeError, "private is True"),
    ({"private": [1]}, TypeError, "private is True"),
    ({"private": True, "public": True}, ValueError, "public and private exclude each other"),
    ({"extensions": {"max-age": 5}}, TypeError, "max-age is a standard directive; pass it as a keyword"),
    ({"extensions": {"a b": 5}}, ValueError, "'a b' cannot be the name"),
    ({"extensions": {7: 5}}, ValueError, "7 cannot be the name"),
    ({"extensions": {"a": 5.5}}, TypeError, "the extension a is a string, a number"),
    ({"extensions": {"a": "x\r\nSet-Cookie: y"}}, ValueError, "the extension a is printable ASCII"),
]


@pytest.mark.parametrize(("directives", "error", "message"), WRONG)
def test_a_wrong_directive_is_an_error_and_changes_nothing(
    directives: dict[str, Any], error: type[Exception], message: str
) -> None:
    headers = {"Cache-Control": "no-store"}
    with pytest.raises(error, match=message):
        patch_cache_control(headers, **directives)
    assert headers == {"Cache-Control": "no-store"}


def test_directives_can_be_checked_before_there_is_a_response() -> None:
    checked = check_directives({"max_age": 5, "no_store": False, "no_cache": "A, B", "public": None}, {"x": "y"})
    assert checked == (("max-age", "5"), ("no-store", False), ("no-cache", ("A", "B")), ("x", "y"))


@given(st.text(st.characters(max_codepoint=255, exclude_characters="\r\n\0"), max_size=60))
def test_whatever_is_there_patching_never_raises_and_never_allows_more(before: str) -> None:
    after = parse_cache_control([patched(before, max_age=60)])
    present = parse_cache_control([before])
    assert 0 <= (after.seconds("max-age") or 0) <= 60
    for forbidding in ("no-store", "private", "no-cache", "must-revalidate"):
        assert (forbidding in after) == (forbidding in present)
    add_never_cache_headers({"Cache-Control": before})


# -- max-age, Expires, never --------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("value", "seconds"),
    [
        ("max-age=5", 5),
        ("public, MAX-AGE=5", 5),
        ('max-age="5"', 5),  # RFC 9111 §5.2: recipients "ought to support both forms"
        ("max-age=7, max-age=5", 5),
        ("max-age=x, max-age=5", 5),
        ("max-age=99999999999", 2**31),
        ("", None),
        ("s-maxage=5", None),
        ("max-age", None),
        ("max-age=abc", None),
        ("max-age=-5", None),
        ("max-age=1.5", None),
        ("max-age=٣", None),
        ('ext="max-age=5"', None),
    ],
)
def test_get_max_age(value: str, seconds: int | None) -> None:
    assert get_max_age({"Cache-Control": value}) == seconds
    assert get_max_age({}) is None


def test_patch_response_headers_takes_the_settings_seconds(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("CACHEMW_SECONDS", raising=False)
    by_default: dict[str, str] = {}
    patch_response_headers(by_default)
    monkeypatch.setenv("CACHEMW_SECONDS", "90")
    by_environment: dict[str, str] = {}
    patch_response_headers(by_environment, cache_timeout=None)
    assert [by_default["Cache-Control"], by_environment["Cache-Control"]] == ["max-age=600", "max-age=90"]


def test_patch_response_headers_leaves_an_expires_that_is_there() -> None:
    headers = {"Expires": "Thu, 01 Dec 1994 16:00:00 GMT"}
    patch_response_headers(headers, 60, now=NOW)
    assert headers == {"Expires": "Thu, 01 Dec 1994 16:00:00 GMT", "Cache-Control": "max-age=60"}


@pytest.mark.parametrize("timeout", [-10, 0, 0.9])
def test_a_timeout_that_is_over_is_now(timeout: float) -> None:
    headers: dict[str, str] = {}
    patch_response_headers(headers, timeout, now=NOW)
    assert headers == {"Expires": "Sun, 06 Nov 1994 08:49:37 GMT", "Cache-Control": "max-age=0"}


def test_the_clock_is_the_systems_unless_it_is_given(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("cachemw.headers.time.time", lambda: NOW)
    headers: dict[str, str] = {}
    patch_response_headers(headers, 60)
    assert headers["Expires"] == "Sun, 06 Nov 1994 08:50:37 GMT"


def test_never_cache_says_so_to_everybody() -> None:
    headers: dict[str, str] = {}
    add_never_cache_headers(headers, now=NOW)
    assert headers == {"Expires": "Sun, 06 Nov 1994 08:49:37 GMT", "Cache-Control": NEVER}


def test_never_cache_overrides_what_was_allowed() -> None:
    headers = [
        ("Cache-Control", 'public, max-age=600, private="Set-Cookie", no-cache="A"'),
        ("CDN-Cache-Control", "max-age=600"),
        ("Surrogate-Control", "max-age=600"),
        ("Expires", "Thu, 01 Dec 1994 16:00:00 GMT"),
    ]
    add_never_cache_headers(headers, now=NOW)
    assert headers == [
        ("Cache-Control", "max-age=0, private, no-cache, no-store, must-revalidate"),
        ("CDN-Cache-Control", "no-store"),
        ("Surrogate-Control", "no-store"),
        ("Expires", "Thu, 01 Dec 1994 16:00:00 GMT"),
    ]
