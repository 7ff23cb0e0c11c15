"""What becomes of a page that is no longer fresh: validation, stale answers, refreshes in the background."""

from __future__ import annotations

import threading
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest

from cachemw import Policy, Rule, purge
from cachemw.backends.locmem import LocMemCache
from tests.scenarios.conftest import Asked, Script, Site


def versions(site: Site, **fields: str) -> None:
    """An application with entity-tags, which answers 304 to the tag it would send."""

    def respond(asked: Asked) -> Script:
        pairs = [(name.replace("_", "-").title(), value) for name, value in fields.items()]
        if asked.fields.get("if-none-match") == fields["etag"]:
            return Script(304, pairs)
        return Script(200, pairs, b"page")

    site.respond = respond


def test_a_stale_page_is_validated_and_lives_again(site: Site) -> None:
    versions(site, etag='"1"', cache_control="max-age=10")
    site.get()
    site.clock.advance(11)
    validated = site.get()
    assert (validated.status, validated.body) == (200, b"page")
    assert site.calls[-1].fields["if-none-match"] == '"1"'
    assert "fwd=stale; fwd-status=304" in validated.trace
    assert validated["age"] == "0"
    site.clock.advance(9)
    assert site.get().hit
    assert len(site.calls) == 2


def test_the_client_s_own_conditions_are_answered_after_a_validation(site: Site) -> None:
    versions(site, etag='"1"', cache_control="max-age=10")
    site.get()
    site.clock.advance(11)
    answer = site.get("/", {"If-None-Match": '"1"'})
    assert answer.status == 304
    assert answer.body == b""


def test_a_304_updates_the_stored_fields(site: Site) -> None:
    site.answers(
        Script(fields=[("ETag", '"1"'), ("Cache-Control", "max-age=1"), ("X-A", "old"), ("Content-Encoding", "x")]),
        Script(304, fields=[("ETag", '"1"'), ("X-A", "new"), ("Cache-Control", "max-age=20")]),
    )
    site.get()
    site.clock.advance(2)
    for answer in (site.get(), site.get()):
        assert answer["x-a"] == "new"
        assert answer["content-encoding"] == "x"
    assert len(site.calls) == 2


def test_a_304_for_another_representation_asks_again_without_conditions(site: Site) -> None:
    site.answers(
        Script(fields=[("ETag", '"1"'), ("Cache-Control", "max-age=1")], body=b"old"),
        Script(304, fields=[("ETag", '"2"')]),
        Script(fields=[("ETag", '"2"'), ("Cache-Control", "max-age=1")], body=b"new"),
    )
    site.get()
    site.clock.advance(2)
    assert site.get().body == b"new"
    assert "if-none-match" not in site.calls[-1].fields
    assert site.get().body == b"new"
    assert len(site.calls) == 3


@pytest.mark.parametrize(("policy", "tag"), [(Policy(), None), (Policy(revalidate=False), '"old"')])
def test_a_304_to_the_client_s_own_conditions_says_nothing_of_a_stale_page(
    site: Site, policy: Policy, tag: str | None
) -> None:
    """What the client has may be another page than the one that is stored."""
    fields = [("Cache-Control", "max-age=10, stale-if-error=60"), *([("ETag", tag)] if tag else [])]
    site.build(policy=policy)
    site.answers(Script(fields=fields, body=b"old"), Script(304, [], b""))
    site.get()
    site.clock.advance(11)
    answer = site.get("/", {"If-None-Match": '"new"'})
    assert (answer.status, answer.body) == (304, b"")
    assert "fwd=stale" in answer.trace
    site.page(b"new")
    assert site.get().body == b"new"


def test_a_304_cannot_bring_a_cookie_into_the_cache(site: Site) -> None:
    site.answers(
        Script(fields=[("ETag", '"1"'), ("Cache-Control", "max-age=1")]),
        Script(304, fields=[("ETag", '"1"'), ("Set-Cookie", "id=1"), ("Cache-Control", "max-age=20")]),
        Script(fields=[("ETag", '"1"'), ("Cache-Control", "max-age=1")]),
    )
    site.get()
    site.clock.advance(2)
    site.get()
    assert site.get().lines("set-cookie") == []


@pytest.mark.parametrize("status", [500, 502, 503, 504])
def test_a_stale_page_stands_in_for_an_error(site: Site, status: int) -> None:
    good = Script(fields=[("Cache-Control", "max-age=1, stale-if-error=60")])
    site.answers(good, Script(status, body=b"oops"))
    site.get()
    site.clock.advance(30)
    answer = site.get()
    assert (answer.status, answer.body) == (200, b"page")
    assert f"fwd-status={status}" in answer.trace
    site.clock.advance(60)
    assert site.get().status == status


def test_a_stale_page_stands_in_for_an_application_that_raises(site: Site) -> None:
    site.answers(Script(fields=[("Cache-Control", "max-age=1, stale-if-error=60")]), Script(early=RuntimeError("down")))
    site.get()
    site.clock.advance(30)
    answer = site.get()
    assert answer.error is None
    assert answer.body == b"page"


def test_a_stale_page_stands_in_for_nothing_that_has_begun(site: Site) -> None:
    """The client has the head of the new one already."""
    begun = Script(fields=[("Cache-Control", "max-age=1")], body=[b"half of "], error=RuntimeError("down"))
    site.answers(Script(fields=[("Cache-Control", "max-age=1, stale-if-error=60")], body=b"old"), begun)
    site.get()
    site.clock.advance(30)
    answer = site.get()
    assert isinstance(answer.error, RuntimeError)
    assert (answer["cache-control"], answer.body) == ("max-age=1", b"half of ")


def test_must_revalidate_forbids_stale_answers(site: Site) -> None:
    site.answers(
        Script(fields=[("Cache-Control", "max-age=1, stale-if-error=60, must-revalidate"), ("ETag", '"1"')]),
        Script(503, body=b"oops"),
    )
    site.get()
    site.clock.advance(30)
    assert site.get().status == 503


def wait_for_refreshes(site: Site) -> None:
    for thread in threading.enumerate():
        if thread.name == "cachemw-refresh":
            thread.join(5)


def test_stale_while_revalidate_answers_at_once_and_refreshes_once(site: Site) -> None:
    fields = [("Cache-Control", "max-age=10, stale-while-revalidate=60")]
    site.answers(Script(fields=fields, body=b"old"), Script(fields=fields, body=b"new"))
    site.get()
    site.clock.advance(20)
    answer = site.get("/", {"Cookie": "theme=dark", "X-Request-Id": "1"})
    assert answer.body == b"old"
    wait_for_refreshes(site)
    assert len(site.calls) == 2
    assert "cookie" not in site.calls[-1].fields  # nobody's credentials go with it
    assert site.get().body == b"new"
    assert len(site.calls) == 2


class Shared(LocMemCache):
    """Local memory that other processes are said to see."""

    shared = True


@pytest.mark.parametrize("where", ["in the same process", "in another process"])
def test_in_grace_who_comes_while_another_fetches_has_the_stale_page_at_once(site: Site, where: str) -> None:
    site.build(policy=Policy(grace=30), cache=Shared(f"grace {site.interface} {where}"))
    other = site
    if where == "in another process":
        other = Site(site.interface, site.clock).build(policy=Policy(grace=30), cache=site.cache)
    site.page(b"old", cache_control="max-age=10")
    site.get()
    site.clock.advance(20)
    asked, answers = threading.Event(), threading.Event()

    def respond(request: Asked) -> Script:
        asked.set()
        assert answers.wait(10)
        return Script(fields=[("Cache-Control", "max-age=10")], body=b"new")

    site.respond = respond
    with ThreadPoolExecutor(2) as pool:
        first = pool.submit(site.get)
        assert asked.wait(10)
        second = pool.submit(other.get)
        try:
            answer = second.result(2)
        finally:
            answers.set()
        assert first.result(10).body == b"new"
    assert (answer.body, answer["age"]) == (b"old", "20")
    assert other.get().body == b"new"
    assert len(site.calls) + (len(other.calls) if other is not site else 0) == 2


def test_a_failed_refresh_leaves_the_stale_page(site: Site) -> None:
    fields = [("Cache-Control", "max-age=10, stale-while-revalidate=60")]
    site.answers(Script(fields=fields, body=b"old"), Script(early=RuntimeError("down")))
    site.get()
    site.clock.advance(20)
    for _ in range(2):
        assert site.get().body == b"old"
        wait_for_refreshes(site)


def test_a_stale_page_beyond_every_window_is_fetched_anew(site: Site) -> None:
    fields = [("Cache-Control", "max-age=10, stale-while-revalidate=5")]
    site.answers(Script(fields=fields, body=b"old"), Script(fields=fields, body=b"new"))
    site.get()
    site.clock.advance(20)
    assert site.get().body == b"new"


def test_client_conditions_on_a_fresh_page(site: Site) -> None:
    site.page(etag='"1"', cache_control="max-age=60", last_modified="Fri, 01 Jan 2027 00:00:00 GMT")
    site.get()
    answer = site.get("/", {"If-None-Match": 'W/"1"'})
    assert (answer.status, answer.body) == (304, b"")
    assert answer["etag"] == '"1"'
    assert answer["content-type"] is None
    assert site.get("/", {"If-Modified-Since": "Sat, 02 Jan 2027 00:00:00 GMT"}).status == 304
    assert site.get("/", {"If-Modified-Since": "Thu, 31 Dec 2026 00:00:00 GMT"}).status == 200
    assert site.get("/", {"If-None-Match": '"2"'}).status == 200
    assert site.get("/", {"If-Match": '"2"'}).status == 412
    assert len(site.calls) == 1


@pytest.mark.parametrize(
    ("asked", "status", "body"),
    [
        ("bytes=0-1", 206, b"pa"),
        ("bytes=1-", 206, b"age"),
        ("bytes=-2", 206, b"ge"),
        ("bytes=4-", 416, b""),
        ("bytes=0-0,2-2", 200, b"page"),
        ("lines=1-2", 200, b"page"),
        ("bytes=²-", 200, b"page"),
        ("bytes=" + "9" * 5000 + "-", 416, b""),
    ],
)
def test_ranges_of_a_stored_page(site: Site, asked: str, status: int, body: bytes) -> None:
    site.page(etag='"1"', cache_control="max-age=60")
    site.get()
    answer = site.get("/", {"Range": asked})
    assert (answer.status, answer.body) == (status, body)
    assert len(site.calls) == 1


def test_partial_responses_under_the_strict_policy(site: Site) -> None:
    site.build(policy=Policy.rfc9111())
    fields = [
        ("Cache-Control", "max-age=60"),
        ("ETag", '"1"'),
        ("Content-Range", "bytes 0-3/10"),
        ("Content-Length", "4"),
    ]
    site.answers(Script(206, fields=fields, body=b"0123"))
    assert site.get("/", {"Range": "bytes=0-3"}).status == 206
    again = site.get("/", {"Range": "bytes=1-2"})
    assert (again.status, again.body) == (206, b"12")
    assert again.hit
    assert len(site.calls) == 1


def parts(site: Site, whole: bytes = b"0123456789", tag: str = '"1"') -> None:
    """An application that answers single ranges by the book."""

    def respond(asked: Asked) -> Script:
        fields = [("Cache-Control", "max-age=60"), ("ETag", tag)]
        asked_range = asked.fields.get("range")
        if asked_range is None or asked.fields.get("if-range", tag) != tag:
            return Script(200, fields, whole)
        first, _, last = asked_range.removeprefix("bytes=").partition("-")
        start, end = int(first), min(int(last or len(whole)), len(whole) - 1)
        part = whole[start : end + 1]
        return Script(206, [*fields, ("Content-Range", f"bytes {start}-{end}/{len(whole)}")], [part[:1], part[1:]])

    site.respond = respond


def test_a_stored_part_is_completed_by_what_it_lacks(site: Site) -> None:
    site.build(policy=Policy.rfc9111())
    parts(site)
    site.get("/", {"Range": "bytes=0-3"})
    whole = site.get()
    assert (whole.status, whole.body) == (200, b"0123456789")
    assert site.calls[-1].fields["range"] == "bytes=4-"
    assert site.get().hit
    assert site.get("/", {"Range": "bytes=2-8"}).body == b"2345678"
    assert len(site.calls) == 2


def test_a_part_of_another_representation_is_not_joined(site: Site) -> None:
    site.build(policy=Policy.rfc9111())
    parts(site)
    site.get("/", {"Range": "bytes=0-3"})
    parts(site, b"abcdefghij", '"2"')
    whole = site.get()
    assert (whole.status, whole.body) == (200, b"abcdefghij")
    assert site.get().body == b"abcdefghij"


def test_a_part_that_is_too_long_to_be_stored_is_asked_for_again(site: Site) -> None:
    site.build(policy=Policy.rfc9111(max_body=5))
    parts(site)
    site.get("/", {"Range": "bytes=0-3"})
    whole = site.get()
    assert (whole.status, whole.body, whole["Content-Range"]) == (200, b"0123456789", None)
    assert "range" not in site.calls[-1].fields
    assert not site.get().hit


def test_a_part_that_does_not_join_is_asked_for_again(site: Site) -> None:
    site.build(policy=Policy.rfc9111())
    parts(site)
    site.get("/", {"Range": "bytes=0-3"})
    wrong = [("ETag", '"2"'), ("Content-Range", "bytes 4-9/10")]
    whole = Script(fields=[("ETag", '"2"'), ("Cache-Control", "max-age=60")], body=b"abcdefghij")
    site.answers(Script(206, wrong, b"efghij"), whole)
    assert site.get().body == b"abcdefghij"
    assert "range" not in site.calls[-1].fields


def test_a_post_may_answer_a_later_get_under_the_strict_policy(site: Site) -> None:
    site.build(policy=Policy.rfc9111())
    site.page(cache_control="max-age=60", content_location="/")
    site.request("POST")
    assert site.get().hit


def test_a_rule_s_lifetime_holds_after_a_validation_too(site: Site) -> None:
    site.build(rules=[Rule("/", lifetime=100)])
    versions(site, etag='"1"')
    site.get()
    for _ in range(2):
        site.clock.advance(101)
        assert "fwd-status=304" in site.get().trace
        site.clock.advance(99)
        assert site.get().hit


def test_a_rule_s_lifetime_for_a_status_holds_after_a_validation_too(site: Site) -> None:
    site.build(rules=[Rule("/", statuses=(404,), lifetime=100)], policy=Policy(patch=False))

    def respond(asked: Asked) -> Script:
        fields = [("ETag", '"1"')]
        return Script(304, fields, b"") if "if-none-match" in asked.fields else Script(404, fields, b"none")

    site.respond = respond
    site.get()
    for _ in range(2):
        site.clock.advance(101)
        assert "fwd-status=304" in site.get().trace
        site.clock.advance(99)
        answer = site.get()
        assert (answer.hit, answer.status, answer.body) == (True, 404, b"none")


@pytest.mark.parametrize(("tag", "hit"), [('"1"', True), ('"2"', False)])
def test_the_answer_to_head_tells_whether_the_stored_page_is_still_that(site: Site, tag: str, hit: bool) -> None:
    """RFC 9111 §4.3.5: if they differ, it is to be considered stale."""
    site.build(policy=Policy.rfc9111()).page(b"first", etag='"1"', cache_control="max-age=60")
    site.get()
    site.page(b"other", etag=tag, cache_control="max-age=60")
    assert "fwd=" in site.request("HEAD", "/", {"Cache-Control": "no-cache"}).trace
    answer = site.get()
    assert (answer.body, answer.hit) == (b"first" if hit else b"other", hit)


def test_request_directives_are_for_the_strict_policy(site: Site) -> None:
    site.page(cache_control="max-age=60")
    site.get()
    reload: dict[str, Any] = {"Cache-Control": "no-cache", "Pragma": "no-cache"}
    assert site.get("/", reload).hit
    site.build(policy=Policy.rfc9111())
    site.get()
    assert site.get().hit
    assert not site.get("/", reload).hit
    assert site.get("/nowhere", {"Cache-Control": "only-if-cached"}).status == 504


def test_soft_purge(site: Site) -> None:
    site.build(policy=Policy(stale_while_revalidate=600))
    site.answers(Script(body=b"old"), Script(body=b"new"))
    site.get()
    site.clock.advance(1)
    assert purge("http://example.org/", soft=True, caching=site.middleware.caching) == 1
    assert site.get().body == b"old"
    wait_for_refreshes(site)
    assert site.get().body == b"new"


@pytest.mark.parametrize(("urls", "tags"), [((), ["news"]), (("http://example.org/",), None)])
@pytest.mark.parametrize("vary", [{}, {"vary": "Accept"}], ids=str)
def test_a_page_that_was_purged_softly_is_said_to_be_stale(
    site: Site, urls: tuple[str, ...], tags: list[str] | None, vary: dict[str, Any]
) -> None:
    """RFC 9211 §2.6: `ttl` is not above 0 for a response that is stale."""
    site.build(policy=Policy(stale_while_revalidate=600)).page(cache_tag="news", **vary)
    site.get()
    site.clock.advance(1)
    assert site.get().trace == "cachemw; hit; ttl=599"
    purge(*urls, tags=tags, soft=True, caching=site.middleware.caching)
    assert site.get().trace in ("cachemw; hit; ttl=0", "cachemw; hit; ttl=-1")
    wait_for_refreshes(site)
    assert site.get().trace == "cachemw; hit; ttl=600"


@pytest.mark.parametrize("vary", [{}, {"vary": "Accept"}])
@pytest.mark.parametrize("before", [1, 5])
def test_a_soft_purge_in_the_moment_of_storing(site: Site, before: int, vary: dict[str, Any]) -> None:
    site.page(cache_control="max-age=60", **vary)
    site.get()
    for _ in range(before):
        site.get("/others")
    purge("http://example.org/", soft=True, caching=site.middleware.caching)
    assert "fwd=stale" in site.get().trace
    assert site.get().hit


def test_purge_by_url_and_tag(site: Site) -> None:
    caching = site.middleware.caching
    site.page(cache_tag="news, sport")
    for path in ("/a", "/b%20c?d=e", "/ä"):
        path = path.encode().decode("latin-1")
        site.get(path)
        assert site.get(path).hit
    assert purge("http://example.org/a", caching=caching) == 1
    assert not site.get("/a").hit
    assert purge("http://example.org/b%20c?d=e", caching=caching) == 1
    assert not site.get("/b%20c?d=e").hit
    assert site.get("/a").hit
    assert purge(tags=["sport"], caching=caching) == 1
    assert not site.get("/a").hit
    assert site.get("/a").hit
    with pytest.raises(ValueError, match="absolute"):
        purge("/a", caching=caching)


def test_a_purge_while_the_page_is_made_wins(site: Site) -> None:
    caching = site.middleware.caching

    def respond(asked: Asked) -> Script:
        if len(site.calls) == 1:
            purge("http://example.org/", caching=caching)
        if len(site.calls) == 2:
            purge(tags=["t"], caching=caching)
        return Script(body=str(len(site.calls)).encode(), fields=[("Cache-Tag", "t")])

    site.respond = respond
    assert [site.get().body for _ in range(4)] == [b"1", b"2", b"3", b"3"]
