"""Host and Forwarded (RFC 3986 §3.2, RFC 7239)."""

from __future__ import annotations

from urllib.parse import urlsplit

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cachemw.rfc9111.fields import mark_forwarded, valid_host

HOSTILE = st.text(st.sampled_from("a1.-_:[]@/?#,% \t\\%zé\r\n\0")) | st.text(st.characters(max_codepoint=255))


@pytest.mark.parametrize(
    "host",
    [
        "example.com",
        "EXAMPLE.com.",
        "localhost:8000",
        "my_service:80",
        "127.0.0.1",
        "127.0.0.1:65535",
        "999.1.1.1",  # a registered name
        "example.com:",  # RFC 3986 §3.2.3: port = *DIGIT
        "example.com:00080",
        "[::1]",
        "[::1]:8000",
        "[::1]:",
        "[2001:DB8::1]",
        "[::ffff:192.0.2.1]:1",
        "xn--bcher-kva.example",
        "b%C3%BCcher.example",
        "a!$&'()*+;=~b",
        "a" * 255,
        "a" * 255 + ":65535",
    ],
)
def test_hosts(host: str) -> None:
    assert valid_host(host)


@pytest.mark.parametrize(
    "host",
    [
        "",
        ":80",
        "a b",
        " a",
        "a\t",
        "a\n",
        "a\0",
        "a,b",
        "user@a",
        "user:password@a",
        "a/b",
        "a?b",
        "a#b",
        "a\\b",
        'a"b',
        "<a>",
        "http://a",
        "a:b",
        "a:80:80",
        "a:65536",
        "a:99999",
        "a:000080",
        "a:+80",
        "a:٨",
        "é.example",
        "a%",
        "a%4",
        "a%zz",
        "[]",
        "[::1",
        "::1",
        "[::1]x",
        "[:::1]",
        "[1]",
        "[1:2:3]",
        "[::12345]",
        "[::1%25eth0]",
        "[::1%eth0]",
        "[v1.a]",
        "[127.0.0.1]",
        "a" * 262,
    ],
)
def test_no_hosts(host: str) -> None:
    assert not valid_host(host)


@given(HOSTILE | st.from_regex(r"\A\[?[0-9a-f:.]{0,20}\]?(:[0-9]{0,6})?\Z"))
def test_a_valid_host_is_the_whole_authority_of_a_url(host: str) -> None:
    if valid_host(host):
        parts = urlsplit(f"http://{host}/path")
        assert parts.netloc == host
        assert parts.username is None
        assert host.lower().startswith(parts.hostname or "?", host.startswith("["))
        assert parts.port is None or 0 <= parts.port <= 65535
        assert parts.path == "/path"


@pytest.mark.parametrize(
    ("value", "mark"),
    [
        ("", ""),
        ("for=192.0.2.60", ""),
        ('for="[2001:db8:cafe::17]:4711"', ""),
        ("for=192.0.2.43, for=198.51.100.17;by=203.0.113.60", ""),
        ("for=192.0.2.60;proto=http;by=203.0.113.43", 'proto="http"'),
        ("for=192.0.2.60;proto=http;host=a.example", 'host="a.example";proto="http"'),
        ("Host=a.example ;\tPROTO=http;", 'host="a.example";proto="http"'),
        ('host="a.example:8000"', 'host="a.example:8000"'),
        ("host=A", 'host="A"'),  # an application may repeat it as it is
        ('host=""', 'host=""'),
        ("host=a;host=b", 'host="a";host="b"'),
        ("host=b;host=a", 'host="b";host="a"'),
        ("host=a, host=b", 'host="a",host="b"'),
        ("for=x, host=a", ',host="a"'),  # which of the elements counts depends on the proxies trusted
        ("host=a, for=x", 'host="a",'),
        (",host=a", ',host="a"'),
        ("secret=x;host=a", 'host="a"'),
        # not plainly well-formed: its own mark
        ("host", "host"),
        ("host =a", "host =a"),
        ("host= a", "host= a"),
        ("for=x host=a", "for=x host=a"),
        ("host=a:80", "host=a:80"),
        ('for="x;host=a"', 'for="x;host=a"'),
        ('for="x, host=a"', 'for="x, host=a"'),
        ('for="\\"";host=a', 'for="\\"";host=a'),
        ('host="a', 'host="a'),
        ("for=x;host=é", "for=x;host=é"),
        ("for=" + "x" * 8192 + ";host=a", "for=" + "x" * 8192 + ";host=a"),
    ],
)
def test_the_mark_of_a_forwarded_field(value: str, mark: str) -> None:
    assert mark_forwarded(value) == mark


TOKENS = st.from_regex(r"\A[a-z0-9.]{1,5}\Z")
PAIRS = st.tuples(st.sampled_from(["for", "by", "Host", "proto"]), TOKENS, st.booleans())
ELEMENTS = st.lists(st.lists(PAIRS, max_size=3), max_size=3)


def write(elements: list[list[tuple[str, str, bool]]]) -> str:
    return ", ".join(
        ";".join(f'{name}="{value}"' if quoted else f"{name}={value}" for name, value, quoted in element)
        for element in elements
    )


def told(elements: list[list[tuple[str, str, bool]]]) -> list[dict[str, list[str]]]:
    """Of each element, the values of host and of proto; nothing if no element has any."""
    kept = [
        {kind: [value for name, value, _ in element if name.lower() == kind] for kind in ("host", "proto")}
        for element in elements
    ]
    return kept if any(any(values.values()) for values in kept) else []


@given(ELEMENTS, ELEMENTS)
def test_marks_are_equal_exactly_if_they_tell_the_same(
    one: list[list[tuple[str, str, bool]]], two: list[list[tuple[str, str, bool]]]
) -> None:
    assert (mark_forwarded(write(one)) == mark_forwarded(write(two))) is (told(one) == told(two))


@given(st.text(st.sampled_from('hostpr=;," \t\\fa')) | HOSTILE)
def test_a_mark_is_its_own_mark(value: str) -> None:
    mark = mark_forwarded(value)
    assert mark_forwarded(mark) == mark
