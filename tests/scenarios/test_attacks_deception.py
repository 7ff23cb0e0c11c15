"""Web cache deception, and poisoning by what scripts send (Kettle 2018, Doyhenard 2024), as an attacker would do it."""

from __future__ import annotations

import re

import pytest

from cachemw import Policy, Rule
from tests.scenarios.conftest import Asked, Script, Site

PARTS = ["X-Requested-With", "HX-Request", "Turbo-Frame", "X-PJAX", "Origin", "X-Inertia-Partial-Data", "HX-Target"]
POLICIES = [Policy(), Policy.django(), Policy.rfc9111()]


def account(asked: Asked) -> Script:
    """An application that answers whatever stands behind /account with the account."""
    who = asked.fields.get("cookie", "nobody")
    return Script(fields=[("Content-Type", "text/html; charset=utf-8")], body=f"the account of {who}".encode())


@pytest.mark.parametrize(
    "path",
    ["/account/a.css", "/account;a.css", "/account%2Fa.css", "/account%3Fa.css", "/account%23a.css", "/account%00.css"],
)
@pytest.mark.parametrize("pattern", ["*.css", re.compile(r"\.css$")])
def test_a_victim_who_is_sent_to_a_file_that_is_none_leaves_nothing_behind(
    site: Site, pattern: str | re.Pattern[str], path: str
) -> None:
    site.build(rules=[Rule(pattern, lifetime=86400)])
    site.respond = account
    site.get(path, {"Cookie": "session=alice"})
    assert site.get(path).body == b"the account of nobody"
    assert site.get(path, {"Cookie": "session=bob"}).body == b"the account of session=bob"


def test_cookies_are_not_stripped_from_a_page_for_its_name(site: Site) -> None:
    site.build(rules=[Rule("*.css", lifetime=86400, set_cookie="strip")])
    site.respond = lambda asked: Script(fields=[("Content-Type", "text/html"), ("Set-Cookie", "a=b")], body=b"for one")
    assert "set-cookie" in site.get("/account/a.css").trace
    assert not site.get("/account/a.css").hit


@pytest.mark.parametrize("name", PARTS)
@pytest.mark.parametrize("policy", POLICIES)
def test_the_part_that_a_script_is_sent_does_not_stand_in_for_the_page(site: Site, name: str, policy: Policy) -> None:
    """Flask's and Django's guides look at X-Requested-With; Starlette's CORSMiddleware names Origin if there is one."""
    site.build(policy=policy)

    def respond(asked: Asked) -> Script:
        part = asked.fields.get(name.lower(), "the whole page")
        return Script(
            fields=[("Cache-Control", "max-age=60"), ("Access-Control-Allow-Origin", part)], body=part.encode()
        )

    site.respond = respond
    for _ in range(2):
        for value in ("https://evil.example", "true", ""):
            assert site.get("/", {name: value} if value else {}).body == (value or "the whole page").encode()
    assert len(site.calls) == 3
