"""Bodies that cannot be read, where a cookie's value is looked for in them."""

from __future__ import annotations

import gzip
import zlib

import pytest

from cachemw.rfc9111.echoes import shows_cookie
from cachemw.rfc9111.messages import Head
from cachemw.rfc9111.requests import Request

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
    request = Request(fields=[("Cookie", f"{name}={VALUE}")])
    assert shows_cookie(request, Head(200, (("Content-Encoding", coding),)), body, most=1000) is (name == "csrftoken")


@pytest.mark.parametrize("shown", [VALUE, "another"])
def test_what_can_be_read_is_looked_through(shown: str) -> None:
    request = Request(fields=[("Cookie", f"theme={VALUE}")])
    head = Head(200, (("Content-Encoding", "x-gzip"),))
    assert shows_cookie(request, head, gzip.compress(shown.encode()), most=1000) is (shown == VALUE)
