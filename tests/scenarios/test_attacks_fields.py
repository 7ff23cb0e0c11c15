"""Fields that are not what they seem: names that another reader takes for others, cookies of answers without a body."""

from __future__ import annotations

import pytest

from cachemw import Policy
from tests.scenarios.conftest import Asked, Clock, Script, Site

LONG_AGO = "Wed, 01 Jan 2020 00:00:00 GMT"
POLICIES = [Policy(), Policy.django(), Policy.rfc9111()]


@pytest.fixture
def asgi_site(clock: Clock) -> Site:
    return Site("asgi", clock)


# -- of the response ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("policy", POLICIES)
@pytest.mark.parametrize("field", [("Set-Cookie", "session=alice"), ("Cache-Control", "private"), ("Vary", "X-Who")])
@pytest.mark.parametrize("name", ["{} ", "{}\t", " {}", "{}:", "\xa0{}", "{}\x0b", ""])
def test_a_name_that_is_none_makes_no_page_for_all(
    asgi_site: Site, name: str, field: tuple[str, str], policy: Policy
) -> None:
    """Some servers pass it on, and some clients read "Set-Cookie : a=b" as the cookie that was meant."""
    says = [("Cache-Control", "public, max-age=60"), (name.format(field[0]), field[1])]
    asgi_site.build(policy=policy).answers(Script(fields=says, body=b"hello Alice"), Script(body=b"hello Bob"))
    assert asgi_site.get().body == b"hello Alice"
    assert asgi_site.get().body == b"hello Bob"


@pytest.mark.parametrize("policy", [Policy(), Policy(set_cookie="strip"), Policy.rfc9111()])
def test_a_cookie_that_comes_with_a_validation_is_for_whom_it_was_set(site: Site, policy: Policy) -> None:
    def respond(asked: Asked) -> Script:
        says = [("Cache-Control", 'max-age=60, private="Set-Cookie"'), ("ETag", '"1"')]
        if "if-none-match" not in asked.fields:
            return Script(fields=says)
        return Script(304, [*says, ("Set-Cookie", "session=bob")])

    site.build(policy=policy).respond = respond
    site.get()
    site.clock.advance(61)
    bob = site.get(fields={"If-None-Match": "*"} if policy.set_cookie == "strip" else {})
    assert (bob.status, bob.lines("set-cookie")) == (304 if policy.set_cookie == "strip" else 200, ["session=bob"])
    stranger = site.get()
    assert stranger.hit
    assert stranger["Set-Cookie"] is None


def test_a_cookie_is_shared_where_the_response_says_for_how_long_and_not_where_that_is_guessed(site: Site) -> None:
    cookie = ("Set-Cookie", "theme=dark")
    guessed = [("Last-Modified", LONG_AGO), ("ETag", '"1"')]  # the latter is stored, to be validated
    for says, shared in ((("Cache-Control", "max-age=60"), True), *((one, False) for one in guessed)):
        site.build(policy=Policy.rfc9111()).answers(Script(fields=[says, cookie]))
        site.get()
        assert site.get(fields={"Cache-Control": "max-stale"}).hit is shared


# -- of the request -------------------------------------------------------------------------------------------------


def as_wsgi_reads(asked: Asked, name: str) -> str:
    """A field as an application of WSGI reads it, behind one of the adapters that make an ASGI application of it."""
    return ",".join(value for key, value in asked.fields.items() if key.replace("_", "-") == name)


@pytest.mark.parametrize("policy", POLICIES)
@pytest.mark.parametrize("name", ["x-forwarded-host", "x-api-key", "x-tenant"])
def test_an_underscore_in_a_name_poisons_no_page(asgi_site: Site, name: str, policy: Policy) -> None:
    asgi_site.build(policy=policy).respond = lambda asked: Script(
        fields=[("Vary", "X-Tenant"), ("Cache-Control", "public, max-age=60")], body=as_wsgi_reads(asked, name).encode()
    )
    for spelt in (name.replace("-", "_"), name.replace("-", "_", 1)):
        assert asgi_site.get(fields={spelt: "evil"}).body == b"evil"
        assert asgi_site.request("HEAD", fields={spelt: "evil"}).status == 200
        assert asgi_site.get().body == b""
        asgi_site.clock.advance(3600)


def test_an_underscore_in_a_name_that_decides_nothing_does_not_matter(asgi_site: Site) -> None:
    asgi_site.page(vary="X-Tenant")
    asgi_site.get(fields={"x_trace_id": "1"})
    assert asgi_site.get(fields={"x_trace_id": "2"}).hit


@pytest.mark.parametrize("name", ["X-Forwarded-Prefix", "X-API-Key"])
def test_an_empty_override_is_not_what_none_is(site: Site, name: str) -> None:
    site.respond = lambda asked: Script(body=asked.fields.get(name.lower(), "/app").encode())
    assert site.get(fields={name: ""}).body == b""
    assert site.get().body == b"/app"
    assert site.get(fields={name: ""}).hit


# -- of the request -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "honest", "strange"),
    [
        ("Accept-Language", "de", "d e"),
        ("Accept-Language", "de, en;q=0.5", "de, en;q =0.5"),
        ("Accept", 'a/b;profile="https://example.org/A"', 'a/b;profile="https://example.org/a"'),
        ("Accept", 'a/b;profile="x y"', 'a/b;profile="xy"'),
        ("User-Agent", "Mozilla/5.0 (KHTML, like Gecko)", "Mozilla/5.0 (KHTML,like Gecko)"),
        ("Cookie", "theme=a, b", "theme=a,b"),
    ],
)
def test_a_strange_spelling_does_not_choose_the_page_of_others(
    site: Site, name: str, honest: str, strange: str
) -> None:
    """RFC 9111 §4.1: values match where they are "known to have identical semantics"; a slip of a stranger has none."""

    def respond(asked: Asked) -> Script:
        said = asked.fields[name.lower()]
        return Script(
            200, [("Cache-Control", "max-age=60"), ("Vary", name)], b"asked for" if said == honest else b"not"
        )

    site.build(policy=Policy.rfc9111()).respond = respond
    assert site.get(fields={name: strange}).body == b"not"
    assert site.get(fields={name: honest}).body == b"asked for"
    assert site.get(fields={name: honest}).hit
