"""What random stories have shown to be wrong, each in the fewest requests."""

from __future__ import annotations

import pytest

from cachemw import Policy, purge
from tests.scenarios.conftest import Script, Site

AT = "Fri, 15 Jan 2027 08:00:05 GMT"  # five seconds after the clock begins


@pytest.mark.parametrize(
    ("name", "value"), [("If-Match", '"other"'), ("If-Unmodified-Since", "Thu, 01 Jan 1970 00:00:00 GMT")]
)
def test_conditions_that_are_the_application_s_reach_it_beside_ours(site: Site, name: str, value: str) -> None:
    site.page(etag='"1"', cache_control="max-age=1")
    site.get()
    site.clock.advance(2)
    site.answers(Script(412))
    answer = site.get("/", {name: value})
    assert answer.status == 412  # RFC 9111 §4.3.2: "likely intended for some other (inbound) server"
    assert site.calls[-1].fields[name.lower()] == value
    assert site.calls[-1].fields["if-none-match"] == '"1"'


@pytest.mark.parametrize("policy", [Policy(), Policy.rfc9111(seconds=600, patch=True, heuristic_fraction=0)])
def test_a_lifetime_that_a_304_states_counts_before_the_one_that_was_chosen(site: Site, policy: Policy) -> None:
    site.build(policy=policy)
    site.answers(
        Script(fields=[("ETag", '"1"')]),
        Script(304, [("ETag", '"1"'), ("Expires", AT)]),
        Script(fields=[("ETag", '"2"')], body=b"new"),
    )
    site.get()
    site.clock.advance(601)
    site.answers(Script(304, [("ETag", '"1"'), ("Expires", "Fri, 15 Jan 2027 08:10:06 GMT")]), Script(body=b"new"))
    validated = site.get()
    assert validated.body == b"page"
    assert validated["expires"] == "Fri, 15 Jan 2027 08:10:06 GMT"
    assert validated["cache-control"] is None  # that was ours
    site.clock.advance(6)
    assert site.get().body == b"new"


@pytest.mark.parametrize("name", ["Cache-Control", "CDN-Cache-Control"])
def test_an_expires_of_ours_goes_when_a_304_states_a_lifetime(site: Site, name: str) -> None:
    site.answers(Script(fields=[("ETag", '"1"')]), Script(304, [("ETag", '"1"'), (name, "max-age=5")]))
    assert site.get()["expires"] is not None
    site.clock.advance(601)
    for answer in (site.get(), site.get()):
        assert answer["expires"] is None
        assert answer[name] == "max-age=5"
    assert len(site.calls) == 2


def test_directives_that_are_not_ours_stay_when_a_304_states_a_lifetime(site: Site) -> None:
    site.answers(
        Script(fields=[("ETag", '"1"'), ("Cache-Control", "public, no-transform")]),
        Script(304, [("ETag", '"1"'), ("CDN-Cache-Control", "max-age=5")]),
    )
    assert site.get()["cache-control"] == "public, no-transform, max-age=600"
    site.clock.advance(601)
    assert site.get()["cache-control"] == "public, no-transform"


def test_nothing_is_stored_of_the_304_to_a_request_that_said_no_store(site: Site) -> None:
    site.build(policy=Policy.rfc9111())
    site.page(etag='"1"', cache_control="max-age=5")
    site.get()
    site.clock.advance(6)
    site.answers(Script(304, [("ETag", '"1"'), ("Cache-Control", "max-age=5"), ("X-Private", "secret")]))
    answer = site.get("/", {"Cache-Control": "no-store"})
    assert (answer.body, answer["x-private"]) == (b"page", "secret")
    assert "stored" not in answer.trace  # RFC 9111 §5.2.1.5: "any response to it"
    site.answers(Script(304, [("ETag", '"1"'), ("Cache-Control", "max-age=5")]))
    answer = site.get()
    assert (answer.body, answer["x-private"]) == (b"page", None)
    assert "fwd=stale; fwd-status=304; stored" in answer.trace
    assert site.get().hit


@pytest.mark.parametrize("gone", ["purge", "POST"])
def test_a_purge_reaches_what_was_stored_when_another_no_vary_search_was_said(site: Site, gone: str) -> None:
    def say(search: str, body: bytes) -> None:
        site.page(body, cache_control="max-age=1000", no_vary_search=search)

    say("key-order", b"old")
    site.get("/a")
    site.get("/a?b=1&a=1")
    for search in ('params=("c")', 'params=("d")'):
        say(search, b"other")
        site.get("/a?c")
        purge("http://example.org/a", caching=site.middleware)
        site.get("/a")
    if gone == "POST":
        site.request("POST", "/a?b=1&a=1")
    else:
        purge("http://example.org/a?b=1&a=1", caching=site.middleware)
    purge("http://example.org/a", caching=site.middleware)
    say("key-order", b"new")
    site.get("/a")
    assert site.get("/a?b=1&a=1").body == b"new"


@pytest.mark.parametrize("name", ["Cache-Control", "Expires"])
def test_a_lifetime_that_the_application_has_stated_is_not_taken_for_one_of_ours(site: Site, name: str) -> None:
    site.build(policy=Policy.rfc9111())
    value = {"Cache-Control": "max-age=20", "Expires": "Fri, 15 Jan 2027 08:00:20 GMT"}[name]
    site.answers(
        Script(fields=[("ETag", '"1"'), (name, value)]),
        Script(304, [("ETag", '"1"'), ("CDN-Cache-Control", "no-cache")]),  # which states none
        Script(304, [("ETag", '"1"'), ("CDN-Cache-Control", "odd=")]),  # which is ignored
    )
    site.get()
    site.clock.advance(21)
    site.get()
    assert site.get()[name] == value


@pytest.mark.parametrize(
    ("policy", "stored", "told", "who"),
    [
        (Policy(), "public, max-age=5", "max-age=5", ("Authorization", "Basic YTpi")),
        (Policy.rfc9111(), "public, max-age=5", "max-age=5", ("Authorization", "Basic YTpi")),
        (Policy(), "max-age=5", "public", ("Cookie", "sessionid=1")),  # the lifetime is then chosen
    ],
)
def test_a_304_to_somebody_in_particular_makes_no_page_for_all(
    site: Site, policy: Policy, stored: str, told: str, who: tuple[str, str]
) -> None:
    site.build(policy=policy)
    site.page(etag='"1"', cache_control=stored)
    site.get()
    site.clock.advance(6)
    site.answers(
        Script(304, [("ETag", '"1"'), ("Cache-Control", told), ("X-Name", "Alice")]),
        Script(fields=[("ETag", '"1"')], body=b"page"),
    )
    assert site.get("/", [who])["x-name"] == "Alice"
    assert site.get()["x-name"] is None  # RFC 9111 §3.5
    assert len(site.calls) == 3


def test_the_answer_to_a_post_that_says_less_of_the_query_is_no_page_of_other_urls(site: Site) -> None:
    site.build(policy=Policy.rfc9111()).page(b"either", no_vary_search='params=("a")', cache_control="max-age=60")
    assert site.get("/?a=1").body == site.get("/").body == b"either"
    site.page(b"of this one", content_location="/?a=1", cache_control="max-age=60")
    site.request("POST", "/?a=1")
    site.page(b"made anew", cache_control="max-age=60")
    assert site.get("/").body == b"made anew"
    assert site.get("/?a=1").body == b"made anew"
