"""What is stored, and what is not."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any
from urllib.parse import quote, unquote, unquote_to_bytes

import pytest

from cachemw import Policy, Rule, purge
from cachemw.backends.dummy import DummyCache
from cachemw.backends.locmem import LocMemCache
from tests.scenarios.conftest import Asked, Script, Site


def test_the_second_request_does_not_reach_the_application(site: Site) -> None:
    first, second = site.get("/a"), site.get("/a")
    assert len(site.calls) == 1
    assert (first.status, first.body) == (second.status, second.body) == (200, b"page")
    assert "fwd=uri-miss" in first.trace
    assert "stored" in first.trace
    assert second.hit


def test_a_chosen_lifetime_is_written_into_the_response(site: Site) -> None:
    site.build(seconds=60)
    first, second = site.get(), site.get()
    assert first["cache-control"] == second["cache-control"] == "max-age=60"
    assert first["expires"] == second["expires"] == "Fri, 15 Jan 2027 08:01:00 GMT"
    assert first["age"] is None
    assert second["age"] == "0"


def test_a_page_that_says_how_long_it_lives_leaves_as_it_is(site: Site) -> None:
    site.page(cache_control="public, max-age=60")
    answer = site.get()
    assert "stored" in answer.trace
    assert (answer["cache-control"], answer["expires"]) == ("public, max-age=60", None)


def test_what_is_chosen_is_not_told_where_the_policy_says_so(site: Site) -> None:
    site.build(policy=Policy(patch=False)).page()
    assert "ttl=600" in site.get().trace
    answer = site.get()
    assert answer.hit
    assert (answer["cache-control"], answer["expires"]) == (None, None)


def test_a_cache_that_is_switched_off_says_so_and_leaves_the_fields_as_ever(site: Site) -> None:
    site.build(cache=DummyCache()).page()
    first, second = site.get(), site.get()
    assert first.trace == second.trace == "cachemw; fwd=uri-miss; fwd-status=200; detail=dummy"
    assert first["cache-control"] == "max-age=600"
    assert len(site.calls) == 2


@pytest.mark.parametrize(("said", "told"), [(60, 60), (900, 300)])
def test_of_a_rule_s_lifetime_and_the_page_s_own_the_shorter_one_is_told(site: Site, said: int, told: int) -> None:
    """A cache further out may keep the page as long as that (as Django has it)."""
    site.build(rules=[{"path": "/", "lifetime": 300}]).page(cache_control=f"public, max-age={said}")
    assert site.get()["cache-control"] == f"public, max-age={told}"


def test_age_grows_and_the_page_expires(site: Site) -> None:
    site.build(seconds=60).page()
    site.get()
    site.clock.advance(59)
    assert site.get()["age"] == "59"
    site.clock.advance(1)
    assert not site.get().hit
    assert len(site.calls) == 2


def test_what_the_response_says_of_its_life_is_believed(site: Site) -> None:
    site.page(cache_control="max-age=5")
    site.get()
    site.clock.advance(4)
    assert site.get().hit
    site.clock.advance(1)
    assert not site.get().hit


@pytest.mark.parametrize(
    ("fields", "stored"),
    [
        ({}, True),
        ({"cache_control": "private"}, False),
        ({"cache_control": "Private"}, False),
        ({"cache_control": "no-store"}, False),
        ({"cache_control": "no-cache"}, False),
        ({"cache_control": "max-age=0"}, False),
        ({"cache_control": "x-private-ok"}, True),
        ({"cache_control": 'no-cache="Set-Cookie", max-age=60'}, True),
        ({"vary": "*"}, False),
        ({"vary": " * "}, False),
        ({"vary": "Accept, *"}, False),
        ({"set_cookie": "session=secret"}, False),
        ({"set_cookie": "a=b", "cache_control": "public, max-age=60"}, False),
        ({"cdn_cache_control": "max-age=60", "cache_control": "no-store"}, True),
        ({"expires": "Thu, 01 Jan 1970 00:00:00 GMT"}, False),
        ({"expires": "0"}, False),
    ],
)
def test_which_pages_are_stored(site: Site, fields: dict[str, Any], stored: bool) -> None:
    site.page(**fields)
    site.get()
    assert site.get().hit is stored


@pytest.mark.parametrize("status", [201, 301, 302, 404, 410, 500, 503])
def test_other_statuses_are_stored_only_when_they_say_how_long(site: Site, status: int) -> None:
    site.page(status=status)
    site.get("/silent")
    assert not site.get("/silent").hit
    site.page(status=status, cache_control="max-age=60")
    site.get("/speaking")
    again = site.get("/speaking")
    assert again.hit
    assert again.status == status


def test_a_client_s_cookie_is_never_replayed(site: Site) -> None:
    site.answers(Script(fields=[("Set-Cookie", "id=1"), ("Set-Cookie", "b=2")]), Script(body=b"other"))
    assert site.get().lines("set-cookie") == ["id=1", "b=2"]
    assert site.get().body == b"other"


@pytest.mark.parametrize("cookie", ["session=x", "a=b; sessionid=y", "PHPSESSID=1"])
def test_a_session_neither_fills_nor_uses_a_page_that_said_nothing(site: Site, cookie: str) -> None:
    assert not site.get(fields={"Cookie": cookie}).hit
    assert not site.get().hit  # it was not stored
    assert site.get().hit
    assert not site.get(fields={"Cookie": cookie}).hit  # it is not served
    assert site.get(fields={"Cookie": "theme=dark"}).hit


def test_a_session_shares_pages_that_say_so_themselves(site: Site) -> None:
    site.page(cache_control="public, max-age=60")
    site.get(fields={"Cookie": "session=x"})
    assert site.get(fields={"Cookie": "session=y"}).hit


def test_a_page_that_varies_on_cookie_is_kept_for_each(site: Site) -> None:
    site.respond = lambda asked: Script(fields=[("Vary", "Cookie")], body=asked.fields.get("cookie", "none").encode())
    for _ in range(2):
        assert site.get(fields={"Cookie": "session=x"}).body == b"session=x"
        assert site.get(fields={"Cookie": "session=y"}).body == b"session=y"
        assert site.get().body == b"none"
    assert len(site.calls) == 3


@pytest.mark.parametrize(
    ("cache_control", "stored"),
    [("max-age=60", False), ("public, max-age=60", True), ("s-maxage=60", True), ("must-revalidate, max-age=60", True)],
)
def test_credentials_keep_a_page_out_unless_it_is_for_all(site: Site, cache_control: str, stored: bool) -> None:
    site.page(cache_control=cache_control)
    site.get(fields={"Authorization": "Basic x"})
    assert site.get().hit is stored


def test_unsafe_methods_pass_and_invalidate(site: Site) -> None:
    site.get("/a")
    assert site.get("/a").hit
    assert site.request("POST", "/a").status == 200
    assert not site.get("/a").hit


def test_a_refused_unsafe_request_is_no_purge_button(site: Site) -> None:
    site.respond = lambda asked: Script(status=403 if asked.method == "POST" else 200)
    site.get("/a")
    site.request("POST", "/a")
    assert site.get("/a").hit


def test_location_is_invalidated_in_the_key_that_a_rule_makes_of_it(site: Site) -> None:
    site.build(rules=[Rule("/list", ignore_query=("created",), lifetime=60)])
    site.get("/list?created=4")
    assert site.get("/list?created=5").hit
    site.page(status=303, location="/list?created=5")
    site.request("POST", "/new")
    site.page()
    assert not site.get("/list?created=5").hit


def test_a_rule_for_other_answers_leaves_this_one_as_it_is(site: Site) -> None:
    site.build(
        rules=[
            {"path": "/a", "statuses": [404], "lifetime": 5},
            {"path": "/a", "content_types": ["image/*"], "never": True},
        ]
    )
    assert "max-age=600" in str(site.get("/a")["cache-control"])
    assert site.get("/a").hit


def test_location_and_content_location_are_invalidated_on_this_origin_only(site: Site) -> None:
    fields = [("Location", "/b"), ("Content-Location", "http://elsewhere.org/c")]
    site.respond = lambda asked: Script(fields=fields) if asked.method == "POST" else Script()
    for path in ("/b", "/c"):
        site.get(path)
    site.request("POST", "/a")
    assert not site.get("/b").hit
    assert site.get("/c").hit


def test_location_is_invalidated_with_its_query_and_not_without(site: Site) -> None:
    fields = [("Location", "/news?page=2")]
    site.respond = lambda asked: Script(fields=fields) if asked.method == "POST" else Script()
    pages = ("/news?page=1", "/news?page=2", "/news")
    for path in pages:
        site.get(path)
    site.request("POST", "/comments")
    assert [site.get(path).hit for path in pages] == [True, False, True]


@pytest.mark.parametrize("mount", ["/shop", "/shop/", "/Straße", "/Stra%C3%9Fe", "/stra%c3%9fe/7"])
def test_a_purge_from_elsewhere_says_where_the_application_is_mounted(site: Site, mount: str) -> None:
    """By a command, say: its process has seen no request."""
    from cachemw.caching import Caching

    cached, root = site.middleware, mount.rstrip("/")

    def mounted_wsgi(environ: Any, start_response: Any) -> Any:
        script = unquote_to_bytes(root).decode("latin-1")
        environ["SCRIPT_NAME"], environ["PATH_INFO"] = script, environ["PATH_INFO"].removeprefix(script)
        return cached(environ, start_response)

    async def mounted_asgi(scope: Any, receive: Any, send: Any) -> None:
        await cached({**scope, "root_path": unquote(root)}, receive, send)

    site.middleware = mounted_wsgi if site.interface == "wsgi" else mounted_asgi
    elsewhere = Caching(cache=LocMemCache(str(site.cache.location)))
    cart, news = (quote(unquote(f"{root}/{page}")) for page in ("cart", "news"))  # as browsers send them
    site.get(cart)
    site.get(news)
    purge(f"http://example.org{root}/cart", caching=elsewhere)
    purge(f"http://example.org{root}/cart", caching=elsewhere, mounts=["/blog", f"{root}/cart/of", "/"])
    assert site.get(cart).hit is (site.interface == "wsgi")  # ASGI has the mount in the path
    purge(f"http://example.org{root}/cart", caching=elsewhere, mounts=["/blog", mount])
    assert not site.get(cart).hit
    assert site.get(news).hit
    with pytest.raises(TypeError, match="a list of paths"):
        purge(f"http://example.org{root}/cart", caching=elsewhere, mounts=mount)


def test_a_purge_removes_every_variant(site: Site) -> None:
    site.page(vary="Accept-Language")
    for language in ("de", "en"):
        site.get("/", {"Accept-Language": language})
        assert site.get("/", {"Accept-Language": language}).hit
    site.request("DELETE", "/")
    for language in ("de", "en"):
        assert not site.get("/", {"Accept-Language": language}).hit


@pytest.mark.parametrize("body", [b"", b"x", [b"a", b"b", b"c"], [b"", b"a", b""]])
@pytest.mark.parametrize("told", [False, True])
def test_bodies_come_back_whole(site: Site, body: Any, told: bool) -> None:
    whole = body if isinstance(body, bytes) else b"".join(body)
    site.answers(Script(200, [("Content-Length", str(len(whole)))] if told else [], body))
    assert site.get().body == whole
    again = site.get()
    assert again.hit
    assert again.body == whole
    assert again.lines("content-length") == [str(len(whole))]


@pytest.mark.parametrize("fields", [[], [("Content-Length", "4")]], ids=["unknown", "told"])
@pytest.mark.parametrize(("limit", "stored"), [(3, False), (4, True)])
def test_a_body_over_the_limit_passes_and_is_not_stored(
    site: Site, limit: int, stored: bool, fields: list[tuple[str, str]]
) -> None:
    site.build(policy=Policy(max_body=limit)).answers(Script(200, fields, [b"ab", b"cd"]))
    assert site.get().body == b"abcd"
    again = site.get()
    assert (again.body, again.hit) == (b"abcd", stored)


def test_a_body_cut_short_is_not_stored(site: Site) -> None:
    site.answers(Script(fields=[("Content-Length", "10")], body=b"short"), Script(body=b"whole"))
    site.get()
    assert site.get().body == b"whole"


def test_an_application_that_breaks_off_stores_nothing(site: Site) -> None:
    site.answers(Script(body=[b"half"], error=RuntimeError("broken")), Script(body=b"whole"))
    assert isinstance(site.get().error, RuntimeError)
    assert site.get().body == b"whole"


def test_an_application_that_raises_is_seen_as_it_is(site: Site) -> None:
    site.answers(Script(early=LookupError("no such thing")), Script())
    assert isinstance(site.get().error, LookupError)
    assert not site.get().hit
    assert site.get().hit


def test_a_client_that_leaves_stores_nothing(site: Site) -> None:
    site.page([b"a", b"b", b"c"])
    assert site.get(stop_after=1).body == b"a"
    assert not site.get().hit
    assert site.get().hit


def test_head_is_answered_from_a_stored_get_and_never_the_reverse(site: Site) -> None:
    site.get("/a")
    head = site.request("HEAD", "/a")
    assert head.hit
    assert head.body == b""
    assert head["content-length"] == "4"
    site.request("HEAD", "/b")
    assert site.request("HEAD", "/b").hit
    assert site.get("/b").body == b"page"
    assert site.calls[-1].method == "GET"


@pytest.mark.parametrize(
    "fields",
    [
        [("Host", "example.org"), ("Host", "evil.org")],
        [("Host", "a b")],
        [("Host", "user@example.org")],
        [("Host", "example.org,evil.org")],
        [("Content-Length", "5")],
        [("Transfer-Encoding", "chunked")],
        [("Upgrade", "websocket")],
        [("Range", "bytes=0-1")],
    ],
)
def test_requests_that_are_for_the_application_alone(site: Site, fields: list[tuple[str, str]]) -> None:
    assert site.get("/", fields).body == b"page"
    again = site.get("/", fields)
    assert not again.hit
    assert "; fwd=bypass" in again.trace or fields[0][0] in ("Host", "Range")
    assert len(site.calls) == 2


@pytest.mark.parametrize("length", ["abc", "\xb2", "9" * 25, "-4", "4.0", "4, 4", "0x4", "5", "3", "4X", ""])
def test_a_length_that_is_not_the_bodys_fails_nothing_and_keeps_the_page_from_being_stored(
    site: Site, length: str
) -> None:
    site.page(content_length=length)
    for _ in range(2):
        answer = site.get()
        assert (answer.error, answer.body, answer.hit) == (None, b"page", False)
    assert len(site.calls) == 2


@pytest.mark.parametrize("hosts", [("example.org", "evil.org"), ("evil.org", "example.org"), ("evil.org", "evil.org")])
def test_a_request_with_two_hosts_gets_the_stored_page_of_neither(site: Site, hosts: tuple[str, str]) -> None:
    """Nobody knows which of them the application goes by, or a cache on the way has gone by."""
    for host in {*hosts}:
        site.get("/", {"Host": host})
        assert site.get("/", {"Host": host}).hit
    assert not site.get("/", [("Host", host) for host in hosts]).hit


@pytest.mark.parametrize("name", ["X-Forwarded-Host", "X-Original-URL", "X-HTTP-Method-Override", "X-Forwarded-Proto"])
def test_override_fields_select_pages_of_their_own(site: Site, name: str) -> None:
    site.respond = lambda asked: Script(body=asked.fields.get(name.lower(), "plain").encode())
    for _ in range(2):
        assert site.get("/", {name: "evil.org"}).body == b"evil.org"
        assert site.get("/", {name: "other"}).body == b"other"
        assert site.get("/").body == b"plain"
    assert len(site.calls) == 3
    site.request("POST", "/")
    assert not site.get("/", {name: "evil.org"}).hit


def test_ordinary_proxy_fields_do_not_matter(site: Site) -> None:
    site.get("/", {"X-Forwarded-For": "1.2.3.4", "Via": "1.1 a", "Forwarded": "for=1.2.3.4"})
    assert site.get("/", {"X-Forwarded-For": "5.6.7.8", "X-Real-IP": "5.6.7.8", "Forwarded": "for=5.6.7.8"}).hit


def test_queries_and_hosts_are_different_pages(site: Site) -> None:
    site.respond = lambda asked: Script(body=f"{asked.fields['host']}{asked.path}?{asked.query}".encode())
    targets = ["/a", "/a?", "/a?b=1", "/a?b=2", "/a?b=1&c=2", "/a?c=2&b=1", "/a/", "/A", "/%61?b", "/a;b", "/a%3Fb"]
    bodies = {target: site.get(target).body for target in targets}
    for target in targets:
        assert site.get(target).body == bodies[target]
    assert site.get("/a", {"Host": "other.org"}).body == b"other.org/a?"


def test_query_parameters_may_be_ignored_and_sorted(site: Site) -> None:
    site.build(policy=Policy(ignore_query=("utm_*", "fbclid"), sort_query=True))
    site.get("/a?b=1&utm_source=x&a=2")
    assert site.get("/a?a=2&fbclid=7&b=1").hit
    assert not site.get("/a?a=2&b=2").hit


@pytest.mark.parametrize("fields", [(), (("Cache-Control", "public, max-age=60"),), (("Vary", "Accept"),)])
def test_a_rule_has_pages_stored_without_their_cookies(site: Site, fields: Any) -> None:
    site.build(rules=[{"path": "/shared/*", "set_cookie": "strip"}])
    cookies = [("Set-Cookie", "a=1"), ("X-Other", "kept"), ("set-cookie", "b=2")]
    site.respond = lambda asked: Script(fields=[*cookies, *fields])
    first = site.get("/shared/page")
    assert (first.lines("set-cookie"), first["x-other"]) == (["a=1", "b=2"], "kept")
    second = site.get("/shared/page")
    assert second.hit
    assert (second.lines("set-cookie"), second["x-other"]) == ([], "kept")
    assert "set-cookie" in site.get("/own").trace
    assert not site.get("/own").hit


def test_a_stripped_page_is_still_not_for_everybody_where_it_says_so(site: Site) -> None:
    site.build(rules=[{"set_cookie": "strip"}])
    site.page(set_cookie="a=1", cache_control="private")
    assert site.get()["set-cookie"] == "a=1"
    assert not site.get().hit


def test_no_vary_search_is_for_its_own_path(site: Site) -> None:
    site.page(no_vary_search='params=("utm")')
    site.get("/a?utm=1")
    site.page()
    site.get("/b?utm=1")
    assert site.get("/b?utm=1").hit
    assert not site.get("/b?utm=2").hit
    assert site.get("/a?utm=2").hit


def test_no_vary_search_joins_queries(site: Site) -> None:
    site.page(no_vary_search='params=("utm")')
    assert "stored" in site.get("/a?utm=1").trace
    assert site.get("/a?utm=2").hit
    assert site.get("/a").hit
    assert not site.get("/a?id=3").hit
    assert len(site.calls) == 2


@pytest.mark.parametrize(
    ("search", "first", "same", "other"),
    [
        ("params", "?a=1", "?b=2", "b"),
        ('params, except=("q")', "?a=1&q=1", "?q=1&b=2", "?q=2"),
        ("key-order", "?b=2&a=1", "?a=1&b=2", "?a=1&b=3"),
        ('key-order, params=("utm")', "?b=2&utm=1&a=1", "?a=1&b=2", "?b=2"),
    ],
)
@pytest.mark.parametrize("vary", [(), (("Vary", "Accept"),)])
def test_the_first_page_that_says_what_does_not_matter_answers_for_all(
    site: Site, search: str, first: str, same: str, other: str, vary: Any
) -> None:
    site.respond = lambda asked: Script(fields=[("No-Vary-Search", search), *vary], body=asked.query.encode())
    body = site.get(f"/{first}").body
    for query in (same, first, same):
        answer = site.get(f"/{query}")
        assert answer.hit
        assert answer.body == body
    assert not site.get(f"/{other}").hit


def test_what_does_not_matter_in_a_query_may_be_left_to_the_policy(site: Site) -> None:
    site.build(policy=Policy(no_vary_search=False)).page(no_vary_search='params=("utm")')
    for query in ("/?utm=1", "/?utm=2"):
        assert not site.get(query).hit
        assert site.get(query).hit


def test_a_page_that_does_not_say_so_any_more_answers_its_own_query(site: Site) -> None:
    site.page(cache_control="max-age=60", no_vary_search='params=("utm")')
    site.get("/?utm=1")
    site.clock.advance(70)
    site.page(cache_control="max-age=60")
    assert "stored" in site.get("/?utm=2").trace
    assert site.get("/?utm=2").hit
    assert not site.get("/?utm=3").hit


def test_a_query_that_begins_to_matter_is_not_answered_with_the_page_of_another(site: Site) -> None:
    """Though this process has looked it up before, where the page of all queries is still fresh."""
    site.respond = lambda asked: Script(fields=[("No-Vary-Search", 'params=("shop")')], body=asked.query.encode())
    site.get("/?shop=1")
    for _ in range(2):
        assert site.get("/?shop=2").body == b"shop=1"
    site.respond = lambda asked: Script(body=asked.query.encode())
    site.get("/?new=1&shop=2")
    assert site.get("/?shop=2").body == b"shop=2"


@pytest.mark.parametrize("purged", ["/?utm=1", "/"])
def test_a_purge_wins_against_the_page_that_says_what_does_not_matter(site: Site, purged: str) -> None:
    caching = site.middleware.caching

    def respond(asked: Asked) -> Script:
        if len(site.calls) == 1:
            purge(f"http://example.org{purged}", caching=caching)
        return Script(fields=[("No-Vary-Search", 'params=("utm")')])

    site.respond = respond
    site.get("/?utm=1")
    assert not site.get("/?utm=1").hit
    assert site.get("/?utm=2").hit


def variants_kept(site: Site, values: Iterable[int]) -> list[int]:
    """Which of these variants are stored; asking stores none."""
    asked = {number: {"Accept": str(number), "Cache-Control": "only-if-cached"} for number in values}
    return [number for number, fields in asked.items() if site.get("/", fields).status == 200]


def test_variants_of_a_url_are_bounded(site: Site) -> None:
    site.build(policy=Policy(max_variants=3, request_directives=True)).page(vary="Accept")
    for number in range(20):
        assert site.get("/", {"Accept": str(number)}).status == 200
        assert number in variants_kept(site, [number]), "the newest is stored, whoever came first"
    kept = variants_kept(site, range(20))
    assert len(kept) == 3
    assert kept[0] == 0, "where the others are to be found"


def test_a_page_that_varies_on_more_than_can_be_told_apart_is_not_stored(site: Site) -> None:
    site.page(vary=", ".join(f"X-{number}" for number in range(200)))
    for _ in range(2):
        answer = site.get()
        assert (answer.error, answer.status, answer.body) == (None, 200, b"page")
    assert len(site.calls) == 2


def test_fields_that_are_long_take_the_place_of_nothing_else(site: Site) -> None:
    """Whoever sends new ones all day takes nobody else's page."""
    site.build(policy=Policy(max_variants=3, request_directives=True)).page(vary="Accept")
    for number in range(3):
        site.get("/", {"Accept": str(number)})
    for number in range(5):
        assert site.get("/", {"Accept": f"{number:02000}"}).status == 200
    assert variants_kept(site, range(3)) == [0, 1, 2]


def test_overrides_that_are_long_fill_no_store(site: Site) -> None:
    """What is not remembered of them could not be removed for the next."""
    site.build(policy=Policy(max_variants=3)).page()
    for number in range(12):
        assert site.get("/", {"X-Forwarded-Host": f"{number:02000}"}).status == 200
    kept = [site.get("/", {"X-Forwarded-Host": f"{number:02000}"}).hit for number in range(12)]
    assert sum(kept) <= 3
    for number in range(4):
        site.get("/", {"X-Forwarded-Host": f"{number}.example"})
    assert site.get("/", {"X-Forwarded-Host": "3.example"}).hit, "one that is not long has its turn"


def test_a_variant_that_has_expired_goes_before_one_that_has_not(site: Site) -> None:
    site.build(policy=Policy(max_variants=4, request_directives=True))
    site.page(vary="Accept", cache_control="max-age=60")
    for number in (0, 1, 2):
        site.get("/", {"Accept": str(number)})
    site.clock.advance(50)
    site.get("/", {"Accept": "3"})
    site.clock.advance(20)
    for number in (4, 5):
        site.get("/", {"Accept": str(number)})
    assert variants_kept(site, range(6)) == [3, 4, 5]


def test_what_overrides_led_to_takes_the_place_of_nothing_else(site: Site) -> None:
    site.build(policy=Policy(max_variants=4, request_directives=True)).page(vary="Accept")
    for number in range(3):
        site.get("/", {"Accept": str(number)})
    site.get("/", {"Accept": "3", "X-Forwarded-Host": "a.example"})  # a new index, and so new variants
    for number in range(3):
        site.get("/", {"Accept": str(number)})
    assert not site.get("/", {"Accept": "0", "X-Forwarded-Host": "b.example"}).hit
    assert variants_kept(site, range(3)) == [0, 1, 2]


def test_strangers_cannot_keep_a_page_from_being_stored(site: Site) -> None:
    """By variants that only they ask for, as many as there may be."""
    site.build(policy=Policy(max_variants=4)).page()
    site.get()
    for number in range(20):
        site.get("/", {"X-Forwarded-Host": f"{number}.example"})
    calls = len(site.calls)
    assert [site.get().hit for _ in range(4)] == [False, True, True, True]
    for number in range(20):
        site.get("/", {"X-Forwarded-Host": f"{number}.example"})
    assert site.get().hit
    assert len(site.calls) <= calls + 1 + 20


def test_absent_and_empty_fields_are_different_variants(site: Site) -> None:
    site.respond = lambda asked: Script(fields=[("Vary", "X-A")], body=repr(asked.fields.get("x-a")).encode())
    for _ in range(2):
        assert site.get("/").body == b"None"
        assert site.get("/", {"X-A": ""}).body == b"''"


def test_a_page_that_begins_to_vary_is_not_shared(site: Site) -> None:
    site.respond = lambda asked: (
        Script(fields=[("Vary", "X-User")], body=b"for " + asked.fields["x-user"].encode())
        if "x-user" in asked.fields
        else Script(body=b"nobody", fields=[("Cache-Control", "max-age=1")])
    )
    assert site.get("/").body == b"nobody"
    site.clock.advance(2)
    assert site.get("/", {"X-User": "ann"}).body == b"for ann"
    assert site.get("/", {"X-User": "bob"}).body == b"for bob"
    assert site.get("/").body == b"nobody"
    assert site.get("/", {"X-User": "ann"}).hit


@pytest.mark.parametrize("later", ["Accept-Encoding", ""])
def test_a_page_that_varies_on_less_by_now_is_shared_no_sooner(site: Site, later: str) -> None:
    """Each has what was last said to them; what was said to ann while it varied is shown to nobody else."""

    def page(asked: Asked) -> Script:
        who = asked.fields.get("x-user", "nobody")
        varies = "X-User, Accept-Encoding" if who == "ann" else later
        return Script(fields=[("Vary", varies)] if varies else [], body=who.encode())

    site.respond = page
    everybody: list[dict[str, str]] = [{"X-User": "ann"}, {}, {"X-User": "bob"}]
    for hits in (False, True, True):
        for asked in everybody:
            answer = site.get("/", asked)
            assert (answer.body, answer.hit) == (asked.get("X-User", "nobody").encode(), hits)
    site.clock.advance(601)
    for asked in reversed(everybody):  # nobody's page first, which names no user
        assert site.get("/", asked).body == asked.get("X-User", "nobody").encode()
    assert len(site.calls) == 6


@pytest.mark.parametrize(
    "name", ["Connection", "Keep-Alive", "Proxy-Authenticate", "TE", "Trailer", "Upgrade", "Proxy-Authentication-Info"]
)
def test_hop_by_hop_fields_are_not_stored(site: Site, name: str, request: pytest.FixtureRequest) -> None:
    if site.interface == "wsgi":
        return  # PEP 3333 forbids them to the application, and the validator holds it to that
    site.answers(Script(fields=[(name, "x"), ("X-Kept", "y")]))
    site.get()
    again = site.get()
    assert again[name] is None
    assert again["x-kept"] == "y"


def test_seconds_0_stores_only_what_says_how_long(site: Site) -> None:
    site.build(seconds=0)
    site.get("/silent")
    assert not site.get("/silent").hit
    site.page(cache_control="max-age=60")
    site.get("/speaking")
    assert site.get("/speaking").hit
