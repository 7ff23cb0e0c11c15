"""Who asks may be said by a field that is neither Cookie nor Authorization, and no application thinks of Vary."""

from __future__ import annotations

import time
from typing import Any

import pytest

from cachemw import Policy, asgi, wsgi
from cachemw.backends.locmem import LocMemCache
from tests.scenarios.conftest import Script, Site

SAID = ["X-API-Key", "X-Auth-Token", "X-Token", "X-Forwarded-User", "X-Auth-Request-Email", "Client-Cert"]


@pytest.mark.parametrize("control", ["", "max-age=60", "public, max-age=60"])
@pytest.mark.parametrize("field", SAID)
def test_a_page_for_one_user_is_shown_to_no_other(site: Site, field: str, control: str) -> None:
    says = [("Cache-Control", control)] if control else []
    pages = {"alice": b"hello Alice", "bob": b"hello Bob", "": b"who are you?"}
    site.answers(*[Script(fields=says, body=body) for body in pages.values()])
    for _ in range(2):
        for name, body in pages.items():
            assert site.get("/", {field: name} if name else {}).body == body
    assert len(site.calls) == 3


@pytest.mark.parametrize("field", SAID)
def test_a_guarded_page_needs_the_key_each_time(site: Site, field: str) -> None:
    site.answers(Script(body=b"for customers"), Script(status=403, body=b"no"), Script(status=403, body=b"no"))
    assert site.get("/", {field: "right"}).status == 200
    assert site.get("/", {field: "wrong"}).status == 403
    assert site.get("/").status == 403
    assert site.get("/", {field: "right"}).hit


@pytest.mark.parametrize("field", SAID)
def test_what_is_for_everybody_is_not_what_a_user_is_shown(site: Site, field: str) -> None:
    site.answers(Script(body=b"log in"), Script(body=b"your account"))
    assert site.get().body == b"log in"
    assert site.get("/", {field: "alice"}).body == b"your account"


@pytest.mark.parametrize(
    "cookie",
    [
        "access_token",
        "access_token_cookie",
        "token",
        "auth_tkt",
        "fastapiusersauth",
        "_oauth2_proxy_0",
        "account",
        "identity",
        "sid",
        "sAccessToken",
        "wos-session",
        "MOIN_SESSION_443_ROOT",
        "ory_session_example",
        "session_token",
        "shop_session",
    ],
)
def test_a_token_in_a_cookie_makes_a_session(site: Site, cookie: str) -> None:
    site.answers(Script(body=b"hello Alice"), Script(body=b"who are you?"))
    assert site.get("/", {"Cookie": f"{cookie}=alice"}).body == b"hello Alice"
    assert site.get().body == b"who are you?"


#: What becomes known of a visitor while the application makes its 304; what the page says of its lifetime; who asks.
FOUND_OUT: dict[str, tuple[dict[str, Any], str, dict[str, str]]] = {
    "a user": ({"identified": True}, "max-age=5", {"X-Door-Card": "alice"}),
    "that a cookie was read": ({"reads": ("cookie",)}, "max-age=5", {"Cookie": "name=alice"}),
    "that one may have been": ({"suspected": ("cookie",)}, "", {"Cookie": "name=alice"}),
}


@pytest.mark.parametrize("which", FOUND_OUT)
def test_a_304_to_somebody_who_was_found_out_meanwhile_makes_no_page_for_all(site: Site, which: str) -> None:
    known, control, who = FOUND_OUT[which]
    says = [("ETag", '"1"'), *([("Cache-Control", control)] if control else [])]

    found: dict[str, Any] = {}
    _finding(site, lambda surroundings: vars(surroundings["cachemw.exchange"]).update(found))
    site.answers(
        Script(fields=says),
        Script(304, [*says, ("X-Name", "Alice")]),
        Script(fields=says),
    )
    site.get()
    site.clock.advance(601)
    found.update(known)
    assert site.get("/", who)["x-name"] == "Alice"
    found.clear()
    answer = site.get()
    assert (answer["x-name"], answer.body, len(site.calls)) == (None, b"page", 3)
    assert site.get().hit


#: Who makes the cache ask whether a page still holds, and is none whose answer others may have.
STRANGERS: dict[str, dict[str, str]] = {
    "one with a password": {"Authorization": "Basic eDp5"},
    "one with a session": {"Cookie": "session=x"},
}


@pytest.mark.parametrize("which", STRANGERS)
@pytest.mark.parametrize("method", ["GET", "HEAD"])
def test_a_304_to_a_stranger_is_no_purge_button(site: Site, which: str, method: str) -> None:
    site.build(policy=Policy(request_directives=True, freshen_by_head=True, stale_while_revalidate=60))
    says = [("ETag", '"1"'), *([] if "session" in which else [("Cache-Control", "max-age=600")])]
    site.respond = lambda asked: Script(304 if "if-none-match" in asked.fields else 200, says)
    site.get()
    assert site.request(method, "/", {**STRANGERS[which], "Cache-Control": "no-cache"}).status == 200
    assert site.get().hit
    assert len(site.calls) == 2


@pytest.mark.parametrize("status", [200, 404])
def test_nor_is_what_a_user_is_told_by_head_of_a_page_of_their_own(site: Site, status: int) -> None:
    found: dict[str, Any] = {}
    _finding(
        site,
        lambda surroundings: vars(surroundings["cachemw.exchange"]).update(found),
        policy=Policy(request_directives=True, freshen_by_head=True),
    )
    says = ("Cache-Control", "max-age=600")
    page = Script(fields=[("ETag", '"1"'), says])
    site.respond = lambda asked: page if asked.method == "GET" else Script(status, [("ETag", '"2"'), says])
    site.get()
    for identified in (True, False):
        found["identified"] = identified
        site.request("HEAD", "/", {"X-Door-Card": "alice", "Cache-Control": "no-cache"})
        assert site.get().hit is identified


def test_a_304_after_which_the_page_varies_as_before_is_stored(site: Site) -> None:
    """It does not name again by what the page was seen to differ."""

    def read(surroundings: Any) -> None:
        surroundings["cachemw.exchange"].reads = ("accept-language",)

    _finding(site, read)
    says = [("ETag", '"1"'), ("Cache-Control", "max-age=5")]
    site.answers(Script(fields=says), Script(304, says))
    for _ in range(3):
        assert site.get("/", {"Accept-Language": "de"})["Vary"] == "Accept-Language"
        site.clock.advance(6)
    assert [call.fields.get("if-none-match") for call in site.calls] == [None, '"1"', '"1"']


def test_a_304_to_a_request_in_disguise_tells_nothing_to_others(site: Site) -> None:
    """A WSGI application behind a bridge takes x_forwarded_host for X-Forwarded-Host, and may repeat it."""
    says = [("ETag", '"1"'), ("Cache-Control", "max-age=5")]
    site.answers(Script(fields=says))
    site.get()
    site.clock.advance(6)
    site.answers(Script(304, [*says, ("Link", "<https://evil.example/>; rel=canonical")]), Script(fields=says))
    site.get("/", {"x_forwarded_host": "evil.example"})
    for _ in range(2):
        assert site.get()["link"] is None


def _finding(site: Site, find_out: Any, **options: Any) -> None:
    """Put an application in place that does this to its environment or scope."""

    def around(app: Any, interface: str) -> Any:
        def plain(environ: Any, start_response: Any) -> Any:
            find_out(environ)
            return app(environ, start_response)

        async def coroutine(scope: Any, receive: Any, send: Any) -> None:
            find_out(scope)
            await app(scope, receive, send)

        module: Any = wsgi if interface == "wsgi" else asgi
        found = plain if interface == "wsgi" else coroutine
        return module.CacheMiddleware(
            found, cache=LocMemCache(f"found-out-{id(site)}-{time.perf_counter_ns()}"), **options
        )

    site.build(around=around)
