"""Who asks may be said by a field that is neither Cookie nor Authorization, and no application thinks of Vary."""

from __future__ import annotations

import pytest

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
    ],
)
def test_a_token_in_a_cookie_makes_a_session(site: Site, cookie: str) -> None:
    site.answers(Script(body=b"hello Alice"), Script(body=b"who are you?"))
    assert site.get("/", {"Cookie": f"{cookie}=alice"}).body == b"hello Alice"
    assert site.get().body == b"who are you?"
