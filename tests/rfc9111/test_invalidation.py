"""Which requests invalidate, and what (RFC 9111 §4.4)."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cachemw.rfc9111.invalidation import invalidates, is_unsafe, own_target, target_uris
from cachemw.rfc9111.messages import Fields, Head
from cachemw.rfc9111.requests import Request


def request(host: str = "example.com", scheme: str = "http", path: str = "/a/b", query: str = "q=1") -> Request:
    return Request("POST", scheme=scheme, host=host, mount="/m", path=path, query=query)


# §4.4: "Because unsafe request methods (Section 9.2.1 of [HTTP]) such as PUT, POST, or DELETE have the potential for
# changing state on the origin server, intervening caches are required to invalidate stored responses to keep their
# contents up to date. … A cache MUST invalidate the target URI (…) when it receives a non-error status code in response
# to an unsafe request method (including methods whose safety is unknown)." … "a "non-error response" is one with a 2xx
# (Successful) or 3xx (Redirection) status code."
@pytest.mark.parametrize("method", ["POST", "PUT", "DELETE", "PATCH", "M-SEARCH", "PURGE", "get", "Head", "", "FOO"])
def test_unsafe_and_unknown_methods_invalidate_when_they_succeed(method: str) -> None:
    assert is_unsafe(method)
    for status in (200, 201, 204, 302, 303, 304, 399):
        assert invalidates(method, status)
    for status in (100, 199, 400, 401, 403, 404, 500, 503, 999):
        assert not invalidates(method, status)


@pytest.mark.parametrize("method", ["GET", "HEAD", "OPTIONS", "TRACE", "PROPFIND", "REPORT", "SEARCH", "QUERY"])
def test_safe_methods_do_not(method: str) -> None:
    assert not is_unsafe(method)
    assert not invalidates(method, 200)


# §4.4: "A cache MAY invalidate other URIs when it receives a non-error status code in response to an unsafe request
# method … In particular, the URI(s) in the Location and Content-Location response header fields (if present) are
# candidates for invalidation … However, a cache MUST NOT trigger an invalidation under these conditions if the origin
# (Section 4.3.1 of [HTTP]) of the URI to be invalidated differs from that of the target URI."
@pytest.mark.parametrize(
    ("reference", "target"),
    [
        ("/c", "/c"),
        ("/c?d=1", "/c?d=1"),
        ("/c?d=1#e?f", "/c?d=1"),
        (" /c\t", "/c"),
        ("/c?", "/c"),
        ("c", "/m/a/c"),
        ("./c", "/m/a/c"),
        ("../c", "/m/c"),
        ("../../../../c", "/c"),
        ("..", "/m/"),
        (".", "/m/a/"),
        ("/x/../c/.", "/c/"),
        ("/x//c", "/x//c"),
        ("/c/..d/.e", "/c/..d/.e"),
        ("?d=1", "/m/a/b?d=1"),
        ("#e", "/m/a/b?q=1"),
        ("", "/m/a/b?q=1"),
        ("http://example.com/c", "/c"),
        ("HTTP://EXAMPLE.COM:80/c", "/c"),
        ("http://example.com", "/"),
        ("http://example.com?x", "/?x"),
        ("http://example.com:/c", "/c"),
        ("//example.com/c", "/c"),
        ("//example.com", "/"),
        ("/%7ec", "/%7ec"),
        ("/" + "c" * 8191, "/" + "c" * 8191),
        ("/\xc3\xa9", "/%C3%A9"),  # octets that should have been encoded
        ("/c d", "/c%20d"),
        ("/c?\xe9 ", "/c?%E9"),
        ("/c\\..\\d", "/c%5C..%5Cd"),
        ("/\u20ac", "/&%238364;"),  # no octets at all: no server sends this
    ],
)
def test_targets_on_the_same_origin(reference: str, target: str) -> None:
    for name in ("Location", "content-location"):
        assert target_uris(request(), Head(201, ((name, reference),))) == (target,)


@pytest.mark.parametrize(
    "reference",
    [
        "http://example.org/c",
        "http://example.com.evil.example/c",
        "http://example.com:8080/c",
        "http://user@example.com/c",
        "http://example.com@evil.example/c",
        "https://example.com/c",
        "//example.org/c",
        "///c",
        "http:c",
        "http:/c",
        "mailto:a@example.com",
        "javascript:alert(1)",
        "data:,c",
        "http://[::1/c",
        "http://[::1]:x/c",
        "/" + "c" * 8192,
    ],
)
def test_other_origins_are_left_alone(reference: str) -> None:
    assert target_uris(request(), Head(201, (("Location", reference),))) == ()


@pytest.mark.parametrize(
    ("host", "scheme", "reference", "same"),
    [
        ("example.com:80", "http", "http://example.com/c", True),
        ("example.com:443", "https", "https://EXAMPLE.com/c", True),
        ("example.com:443", "http", "http://example.com/c", False),
        ("example.com:8000", "http", "http://example.com:8000/c", True),
        ("example.com:8000", "http", "http://example.com/c", False),
        ("[::1]:80", "http", "http://[::1]/c", True),
        ("[::1]", "http", "http://[::1]:80/c", True),
        ("[::1]:8000", "http", "http://[::1]:8001/c", False),
        ("", "http", "/c", True),
        ("", "http", "http://example.com/c", False),
    ],
)
def test_an_origin_is_scheme_host_and_port(host: str, scheme: str, reference: str, same: bool) -> None:
    found = target_uris(request(host, scheme), Head(201, (("Location", reference),)))
    assert found == (("/c",) if same else ())


def test_all_lines_count_each_target_once() -> None:
    fields = (("Location", "/c"), ("Content-Location", "c"), ("Location", "http://example.org/"), ("location", "/c"))
    assert target_uris(request(), Head(201, fields)) == ("/c", "/m/a/c")
    assert target_uris(request(), Head(201)) == ()


def test_relative_to_an_application_at_the_root() -> None:
    bare = Request("POST", path="", host="example.com")
    assert own_target(bare) == "/"
    assert target_uris(bare, Head(201, (("Location", "c"), ("Content-Location", "")))) == ("/c", "/")
    assert own_target(request()) == "/m/a/b?q=1"


@given(
    st.text(st.characters(max_codepoint=255)) | st.text("/.:?#%[]@\\ htpexamlco"),
    st.text(st.characters(max_codepoint=255)),
    st.text("/.%ab"),
)
def test_nothing_raises_and_a_target_is_a_path_on_this_host(reference: str, host: str, path: str) -> None:
    fields: Fields = (("Location", reference), ("Content-Location", reference))
    for target in target_uris(request(host, path=path), Head(201, fields)):
        assert target.startswith("/")
        assert target.isascii()
        assert not set(target) & set(" \r\n\0#")


def test_more_steps_up_than_there_are_segments() -> None:
    assert target_uris(request(), Head(201, (("Location", "/c" + "/.." * 2500 + "/d"),))) == ("/d",)
