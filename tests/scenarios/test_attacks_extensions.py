"""What extensions put into pages that are for one visitor, or for one response, without a word about it in Vary."""

from __future__ import annotations

import gzip
import zlib
from collections.abc import Callable

import pytest

from cachemw import Policy, asgi, wsgi
from cachemw.backends.locmem import LocMemCache
from tests.scenarios.conftest import Asked, Script, Site

NONCES = [
    [("Content-Security-Policy", "default-src 'self'; script-src 'self' 'nonce-cmFuZG9t'")],
    [("content-security-policy", "default-src 'self'"), ("CONTENT-SECURITY-POLICY", "script-src 'NONCE-cmFuZG9t'")],
    [("Content-Security-Policy-Report-Only", "script-src 'nonce-cmFuZG9t'")],
]


@pytest.mark.parametrize("fields", NONCES)
def test_a_number_used_once_is_not_used_again(site: Site, fields: list[tuple[str, str]]) -> None:
    """Flask-Talisman, django-csp, NWebsec: whoever has seen it once could have his script run by everybody."""
    site.answers(Script(fields=fields))
    assert [site.get().trace for _ in range(2)] == ["cachemw; fwd=uri-miss; fwd-status=200; detail=nonce"] * 2


def test_a_number_used_once_is_stored_where_the_page_says_for_how_long(site: Site) -> None:
    site.answers(Script(fields=[*NONCES[0], ("Cache-Control", "max-age=60")]))
    site.get()
    assert site.get().hit


def test_other_content_security_policies_are_stored(site: Site) -> None:
    site.answers(Script(fields=[("Content-Security-Policy", "script-src 'self' https://cdn.example/nonce-a.js")]))
    site.get()
    assert site.get().hit


MEASURED = [
    "text/plain; version=0.0.4; charset=utf-8",
    "Text/Plain ;VERSION=1.0.0",
    "application/openmetrics-text; version=1.0.0",
]


@pytest.mark.parametrize("kind", MEASURED)
def test_measurements_are_those_of_now(site: Site, kind: str) -> None:
    site.answers(Script(fields=[("Content-Type", kind)]), Script(fields=[("Content-Type", kind)], body=b"later"))
    assert site.get().trace == "cachemw; fwd=uri-miss; fwd-status=200; detail=metrics"
    assert site.get().body == b"later"


@pytest.mark.parametrize("query", ["EIO=4&transport=polling", "room=1&transport=polling&EIO=3", "EIO=4&sid=a&t=b"])
def test_what_one_client_of_socket_io_is_told_is_told_to_no_other(site: Site, query: str) -> None:
    """The first answer is the number of a connection: who has it reads and writes as the one whom it was given to."""
    site.answers(Script(body=b'0{"sid":"alice"}'), Script(body=b'0{"sid":"bobby"}'))
    assert site.get(f"/socket.io/?{query}").trace == "cachemw; fwd=uri-miss; fwd-status=200; detail=polling"
    assert site.get(f"/socket.io/?{query}").body == b'0{"sid":"bobby"}'


@pytest.mark.parametrize("query", ["q=EIO=4", "EIO", "EIO=x&transport=polling", "OLEIO=4", ""])
def test_pages_that_are_none_of_socket_io_are_stored(site: Site, query: str) -> None:
    site.get(f"/oils?{query}")
    assert site.get(f"/oils?{query}").hit


@pytest.mark.parametrize(
    "fields",
    [
        [("Content-Type", MEASURED[0]), ("Cache-Control", "max-age=5")],
        [],
        [("Content-Type", "text/plain; charset=utf-8")],
    ],
)
def test_other_texts_and_measurements_for_some_seconds_are_stored(site: Site, fields: list[tuple[str, str]]) -> None:
    site.answers(Script(fields=fields))
    site.get()
    assert site.get().hit


@pytest.mark.parametrize("fields", [NONCES[0], [("Content-Type", MEASURED[0])]])
def test_django_stores_what_it_stores(site: Site, fields: list[tuple[str, str]]) -> None:
    site.build(policy=Policy.django())
    site.answers(Script(fields=fields))
    site.get()
    site.get()
    assert len(site.calls) == 1


TOKENS = {name: f"{name}.1-{name * 4}" for name in ("alice", "bobby")}
CODINGS: dict[str, Callable[[bytes], bytes]] = {
    "": bytes,
    "identity": bytes,
    "gzip": gzip.compress,
    "deflate": zlib.compress,
    "br": bytes.swapcase,
}


@pytest.mark.parametrize("coding", CODINGS)
@pytest.mark.parametrize("form", ["<input value='{}'>", "{}"])
def test_the_token_in_a_form_is_that_of_its_visitor(site: Site, coding: str, form: str) -> None:
    """starlette-csrf, Pyramid, Litestar: the form repeats a cookie that is set once, and nothing varies on it."""
    encode = CODINGS[coding]

    def page(asked: Asked) -> Script:
        token = asked.fields.get("cookie", "theme=dark; csrf_token=none").partition("csrf_token=")[2]
        fields = [("Content-Encoding", coding)] if coding else []
        return Script(fields=fields, body=encode(form.format(token.strip('"')).encode()))

    site.respond = page
    for written in ("{}", '"{}"'):
        for token in TOKENS.values():
            cookie = f"theme=dark; csrf_token={written.format(token)}"
            for _ in range(2):
                assert site.get("/", {"Cookie": cookie}).body == encode(form.format(token).encode())
    assert site.get().body == encode(form.format("none").encode())
    assert site.get().hit


def test_nobody_waits_for_the_form_of_somebody_else(site: Site) -> None:
    site.answers(Script(body=TOKENS["alice"].encode()))
    line = site.middleware.caching.line
    assert not line.passing
    site.get("/", {"Cookie": f"csrftoken={TOKENS['alice']}"})
    assert line.passing
    site.clock.advance(20)
    site.get("/other")
    assert site.get("/other").hit


def test_nor_is_one_stored_that_writes_it_in_another_way(site: Site) -> None:
    site.answers(Script(body=b"cart a/b+c d=e f/g+h i=j"), Script(body=b"no cart"))
    site.get("/", {"Cookie": "cart=a%2Fb%2Bc%20d%3De%20f/g%2Bh%20i%3Dj"})
    assert site.get().body == b"no cart"


@pytest.mark.parametrize("fields", [[("Content-Encoding", "gzip")], [("Content-Encoding", "gzip, gzip")]])
def test_what_cannot_be_read_may_have_the_token(site: Site, fields: list[tuple[str, str]]) -> None:
    site.answers(Script(fields=fields, body=gzip.compress(b"page")[:-9]))
    site.get("/", {"Cookie": f"XSRF-TOKEN={TOKENS['alice']}"})
    assert not site.get("/", {"Cookie": f"XSRF-TOKEN={TOKENS['alice']}"}).hit
    site.get("/", {"Cookie": "_ga=GA1.2.1234567890.1234567890"})
    assert site.get("/", {"Cookie": f"XSRF-TOKEN={TOKENS['alice']}"}).hit


def test_nor_what_is_longer_than_it_seems(site: Site) -> None:
    site.build(policy=Policy(max_body=1000))
    site.answers(Script(fields=[("Content-Encoding", "gzip")], body=gzip.compress(bytes(2000))))
    site.get("/", {"Cookie": f"csrftoken={TOKENS['alice']}"})
    assert not site.get().hit
    assert site.get().hit


def test_nor_is_more_looked_for_than_anybody_has(site: Site) -> None:
    site.get("/", {"Cookie": f"a={'x' * 20_000}"})
    assert not site.get().hit
    assert site.get().hit


def test_a_page_without_the_token_is_everybody_s(site: Site) -> None:
    site.page(b"csrftoken")
    site.get("/", {"Cookie": f"csrftoken={TOKENS['alice']}; theme=dark"})
    assert site.get("/", {"Cookie": f"csrftoken={TOKENS['bobby']}"}).hit
    assert site.get().hit


def test_what_says_for_how_long_or_varies_on_cookie_has_the_token_that_it_has(site: Site) -> None:
    asked = {"Cookie": f"csrftoken={TOKENS['alice']}"}
    for path, field in (("/says", ("Cache-Control", "max-age=60")), ("/varies", ("Vary", "Cookie"))):
        site.answers(Script(fields=[field], body=TOKENS["alice"].encode()))
        site.get(path, asked)
        assert site.get(path, asked).hit


def test_a_cache_around_this_one_does_not_store_it_either(site: Site) -> None:
    module = wsgi if site.interface == "wsgi" else asgi
    inner, outer = (LocMemCache(f"echo-{site.interface}-{n}") for n in range(2))
    site.build(around=lambda app, _: module.CacheMiddleware(module.CacheMiddleware(app, cache=inner), cache=outer))
    site.respond = lambda asked: Script(body=asked.fields.get("cookie", "none").encode())
    for token in TOKENS.values():
        assert site.get("/", {"Cookie": f"csrftoken={token}"}).body == f"csrftoken={token}".encode()


def test_a_message_for_one_visitor_is_not_held_back_by_what_others_were_shown(site: Site) -> None:
    """Django keeps what it has to say at the next page in a cookie."""
    site.respond = lambda asked: Script(body=asked.fields.get("cookie", "nothing new").encode())
    assert site.get().body == b"nothing new"
    assert site.get("/", {"Cookie": "messages=saved"}).body == b"messages=saved"
    assert site.get().body == b"nothing new"
