"""Where a cookie's value is looked for in a body."""

from __future__ import annotations

import gzip
import zlib

import pytest

from cachemw.rfc9111.echoes import shows_cookie
from cachemw.rfc9111.messages import Head

VALUE = "0123456789abcdef0123"


@pytest.mark.parametrize("name", ["csrftoken", "theme"])
@pytest.mark.parametrize(
    ("coding", "body"),
    [
        ("gzip", b"no gzip at all"),
        ("gzip", gzip.compress(b"page")[:10] + bytes(20)),
        ("gzip", gzip.compress(b"page") + gzip.compress(VALUE.encode())),
        ("deflate", zlib.compress(b"page")[2:-4]),
        ("br", b"brotli"),
    ],
    ids=["nonsense", "damaged", "two in a row", "raw deflate", "unknown"],
)
def test_what_cannot_be_read_may_show_a_token(name: str, coding: str, body: bytes) -> None:
    head = Head(200, (("Content-Encoding", coding),))
    assert shows_cookie([f"{name}={VALUE}"], head, body, most=1000) is (name == "csrftoken")


@pytest.mark.parametrize("shown", [VALUE, "another"])
def test_what_can_be_read_is_looked_through(shown: str) -> None:
    head = Head(200, (("Content-Encoding", "x-gzip"),))
    assert shows_cookie([f"theme={VALUE}"], head, gzip.compress(shown.encode()), most=1000) is (shown == VALUE)


@pytest.mark.parametrize(
    ("kind", "shows"),
    [
        ("text/html", True),
        ("application/json", True),
        ("image/svg+xml", True),
        ("image/png", False),
        ("Video/mp4", False),
    ],
)
def test_pictures_and_sounds_show_nothing(kind: str, shows: bool) -> None:
    assert (
        shows_cookie([f"csrftoken={VALUE}"], Head(200, (("Content-Type", kind),)), VALUE.encode(), most=1000) is shows
    )


@pytest.mark.parametrize(("values", "shows"), [(3, False), (5, True)])
def test_what_would_take_too_long_to_look_through_may_show_a_cookie(values: int, shows: bool) -> None:
    cookies = "; ".join(f"c{number}={VALUE}{number}" for number in range(values))
    body = bytes(8 * 1024 * 1024)
    assert shows_cookie([cookies], Head(200, ()), body, most=len(body)) is shows
