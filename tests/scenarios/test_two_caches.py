"""Two caches in a row: the outer one obeys what the inner one says of a page, and each tells what it did (RFC 9211)."""

from __future__ import annotations

import itertools
from collections.abc import Callable
from typing import Any

import pytest
from flask import Flask, g, request
from starlette.applications import Starlette
from starlette.responses import PlainTextResponse
from starlette.testclient import TestClient
from werkzeug.test import Client
from werkzeug.wrappers import Response

from cachemw import Hooks, Policy, asgi, cache_page, never_cache, wsgi
from cachemw.backends.locmem import LocMemCache
from cachemw.purging import purge
from tests.scenarios.conftest import Answer, Script, Site

numbers = itertools.count()


class Caches:
    """A site behind two caches, each with a store of its own."""

    def __init__(self, site: Site, inner: Policy, outer: Policy, view: Callable[[Any], Any] | None = None) -> None:
        module: Any = wsgi if site.interface == "wsgi" else asgi
        self.inner, self.outer = (LocMemCache(f"two-caches-{next(numbers)}") for _ in range(2))

        def around(app: Any, interface: str) -> Any:
            app = view(app) if view else app
            self.within = module.CacheMiddleware(app, cache=self.inner, policy=inner)
            return module.CacheMiddleware(self.within, cache=self.outer, policy=outer)

        site.build(around=around)


def in_a_row(site: Site, view: Callable[[Any], Any] | None = None) -> Caches:
    return Caches(site, Policy(cache_status="inner"), Policy(cache_status="outer"), view)


def members(answer: Answer) -> list[str]:
    """Cache-Status member by member."""
    return (answer["Cache-Status"] or "").split(", ")


def test_each_adds_its_member_behind_those_before_it(site: Site) -> None:
    caches = in_a_row(site)
    site.page(cache_control="max-age=60")
    new = "fwd=uri-miss; fwd-status=200; stored; ttl=60"
    assert members(site.get()) == [f"inner; {new}", f"outer; {new}"]
    assert members(site.get()) == [f"inner; {new}", "outer; hit; ttl=60"]  # what was done when it was fetched
    caches.outer.clear()
    assert members(site.get())[0] == "inner; hit; ttl=60"
    assert len(site.calls) == 1


def test_members_of_caches_further_in_are_kept(site: Site) -> None:
    in_a_row(site)
    site.page(cache_control="max-age=60", cache_status="origin; hit")
    for _ in range(2):
        answer = site.get()
        assert [member.split(";")[0] for member in members(answer)] == ["origin", "inner", "outer"]
    assert answer.hit


def test_of_two_caches_with_one_name_each_speaks_of_itself(site: Site) -> None:
    Caches(site, Policy(), Policy())
    site.page(cache_control="max-age=60")
    assert [member.split(";")[0] for member in members(site.get())] == ["cachemw", "cachemw"]
    assert members(site.get()) == ["cachemw; hit; ttl=60"]  # which of them had it stored, nobody could tell


def test_a_page_that_was_50_of_60_seconds_in_the_inner_one_lives_for_10_in_the_outer_one(site: Site) -> None:
    caches = in_a_row(site)
    site.page(cache_control="max-age=60")
    site.get()
    caches.outer.clear()
    site.clock.advance(50)
    assert members(site.get())[-1] == "outer; fwd=uri-miss; fwd-status=200; stored; ttl=10"
    site.clock.advance(9)
    answer = site.get()
    assert (answer.hit, answer["Age"]) == (True, "59")
    site.clock.advance(1)
    assert not site.get().hit
    assert len(site.calls) == 2


def test_both_obey_cdn_cache_control(site: Site) -> None:
    in_a_row(site)
    site.page(cache_control="no-cache", cdn_cache_control="max-age=60")
    site.get()
    site.clock.advance(59)
    assert site.get().hit
    site.clock.advance(1)
    assert not site.get().hit


def test_the_outer_one_validates_with_the_store_of_the_inner_one(site: Site) -> None:
    caches = in_a_row(site)
    site.answers(Script(fields=[("Cache-Control", "max-age=60"), ("ETag", '"v1"')], body=b"page"))
    site.get()
    site.clock.advance(61)
    outer, site.middleware = site.middleware, caches.within
    site.get()  # another visitor of the inner one has made it fresh there
    site.middleware = outer
    answer = site.get()
    assert (answer.status, answer.body) == (200, b"page")
    assert members(answer)[-1] == "outer; fwd=stale; fwd-status=304; stored; ttl=60"
    assert len(site.calls) == 2


# -- what a view asks for ----------------------------------------------------------------------------------------------


def test_the_timeout_of_a_view_is_obeyed_by_both(site: Site) -> None:
    in_a_row(site, cache_page(60))
    assert site.get()["Cache-Control"] == "max-age=60"
    site.clock.advance(59)
    assert site.get().hit
    site.clock.advance(1)
    site.get()
    assert len(site.calls) == 2


def test_the_timeout_of_a_view_is_obeyed_for_a_validated_page_too(site: Site) -> None:
    in_a_row(site, cache_page(60))
    site.answers(Script(fields=[("ETag", '"v1"')]), Script(304, [("ETag", '"v1"')], b""))
    site.get()
    for calls in (2, 3):
        site.clock.advance(61)
        assert site.get().body == b"page"
        assert len(site.calls) == calls


def test_a_view_that_is_not_to_be_stored_is_stored_by_neither(site: Site) -> None:
    in_a_row(site, cache_page(0))
    for _ in range(3):
        assert not site.get().hit
    assert len(site.calls) == 3


def test_what_an_integration_keeps_from_the_store_is_kept_from_both(site: Site) -> None:
    def seldom(app: Any) -> Any:
        def plain(environ: Any, start_response: Any) -> Any:
            environ["cachemw.exchange"].never = True
            return app(environ, start_response)

        async def coroutine(scope: Any, receive: Any, send: Any) -> None:
            scope["cachemw.exchange"].never = True
            await app(scope, receive, send)

        return plain if site.interface == "wsgi" else coroutine

    in_a_row(site, seldom)
    for _ in range(3):
        assert not site.get().hit
    assert len(site.calls) == 3


def test_a_lifetime_that_the_inner_one_chose_is_no_word_of_the_page(site: Site) -> None:
    """The page is too large for the inner one to look whether it is for one visitor."""
    Caches(site, Policy(cache_status="inner", max_body=10), Policy(cache_status="outer"))
    token = "0123456789abcdef0123"
    site.answers(*[Script(body=token.encode(), fields=[("Content-Length", "20")])] * 2)
    for _ in range(2):
        answer = site.get(fields={"Cookie": f"csrftoken={token}"})
        assert answer["Cache-Control"] is None
        assert members(answer)[0].endswith("detail=too-large")
    assert len(site.calls) == 2


def test_nor_is_it_where_a_cache_in_between_stores_nothing(site: Site) -> None:
    module: Any = wsgi if site.interface == "wsgi" else asgi

    def around(app: Any, interface: str) -> Any:
        app = module.CacheMiddleware(app, cache=LocMemCache(f"two-caches-{next(numbers)}"))
        for never in (False, True):
            halves: dict[str, Any] = {"cache": LocMemCache(f"two-caches-{next(numbers)}")}
            halves["rules"] = [{"path": "/", "never": never}]
            app = module.UpdateCacheMiddleware(module.FetchFromCacheMiddleware(app, **halves), **halves)
        return module.CacheMiddleware(app, cache=LocMemCache(f"two-caches-{next(numbers)}"))

    site.build(around=around).page(b"for nobody")
    site.get(), site.get()
    site.page(b"for alice")
    assert site.get("/", {"Cookie": "session=alice"}).body == b"for alice"


@pytest.mark.parametrize("apart", [False, True])
@pytest.mark.parametrize("never", [False, True])
def test_who_was_found_out_further_in_is_known_to_both(apart: bool, never: bool) -> None:
    app = Flask("two caches")

    @app.before_request
    def know() -> None:
        g.user = request.headers.get("X-Door-Card")

    @app.get("/")
    def view() -> str:
        return f"for {g.user}"

    inside: dict[str, Any] = {"cache": LocMemCache(f"two-caches-{next(numbers)}")}
    inside["rules"] = [{"path": "/", "never": never}]
    if apart:
        within: Any = wsgi.UpdateCacheMiddleware(wsgi.FetchFromCacheMiddleware(app.wsgi_app, **inside), **inside)
    else:
        within = wsgi.CacheMiddleware(app.wsgi_app, **inside)
    client = Client(wsgi.CacheMiddleware(within, cache=LocMemCache(f"two-caches-{next(numbers)}")))
    assert client.get("/", headers={"X-Door-Card": "alice"}).text == "for alice"
    assert client.get("/").text == "for None"


def test_the_tags_of_a_view_purge_the_page_from_a_cache_around_the_halves_too(site: Site) -> None:
    module: Any = wsgi if site.interface == "wsgi" else asgi
    made: list[Any] = []

    def around(app: Any, interface: str) -> Any:
        cache = LocMemCache(f"two-caches-{next(numbers)}")
        within = module.FetchFromCacheMiddleware(cache_page(60, tags=["news"])(app), cache=cache)
        made.append(module.UpdateCacheMiddleware(within, cache=cache))
        made.append(module.CacheMiddleware(made[0], cache=LocMemCache(f"two-caches-{next(numbers)}")))
        return made[1]

    site.build(around=around).page(b"old")
    site.get(), site.get()
    site.page(b"new")
    for one in made:
        purge(tags=["news"], caching=one)
    assert site.get().body == b"new"


@pytest.mark.parametrize("never", [False, True])
def test_what_a_view_was_seen_to_read_is_known_to_both(never: bool) -> None:
    """The halves that it was told to may store nothing, and then say nothing of it in Vary."""

    @cache_page(60)
    async def view(request: Any) -> PlainTextResponse:
        return PlainTextResponse(request.cookies.get("theme", "no theme"))

    app = Starlette()
    app.add_route("/", view)
    inside: dict[str, Any] = {"cache": LocMemCache(f"two-caches-{next(numbers)}")}
    inside["rules"] = [{"path": "/", "never": never}]
    within = asgi.UpdateCacheMiddleware(asgi.FetchFromCacheMiddleware(app, **inside), **inside)
    client = TestClient(asgi.CacheMiddleware(within, cache=LocMemCache(f"two-caches-{next(numbers)}")))
    assert client.get("/", headers={"Cookie": "theme=dark"}).text == "dark"
    assert client.get("/").text == "no theme"


@pytest.mark.parametrize("apart", [False, True])
@pytest.mark.parametrize("control", ["", "max-age=60"])
def test_a_page_behind_a_login_check_further_in_is_stored_where_that_is_made(
    site: Site, apart: bool, control: str
) -> None:
    """The outer one answers without it. What states its lifetime is for whoever gets it."""
    module: Any = wsgi if site.interface == "wsgi" else asgi
    hooks = Hooks()

    @hooks.before_request
    def check(request: Any) -> Any:
        if "x-door-card" in request.headers:
            return None
        return Response("no") if site.interface == "wsgi" else PlainTextResponse("no")

    def around(app: Any, interface: str) -> Any:
        inside: dict[str, Any] = {"cache": LocMemCache(f"two-caches-{next(numbers)}"), "hooks": hooks}
        if apart:
            app = module.FetchFromCacheMiddleware(app, cache=inside["cache"])
            app = module.UpdateCacheMiddleware(app, **inside)
        else:
            app = module.CacheMiddleware(app, **inside)
        for _ in range(2):
            app = module.CacheMiddleware(app, cache=LocMemCache(f"two-caches-{next(numbers)}"))
        return app

    site.build(around=around).answers(
        Script(body=b"for members", fields=[("Cache-Control", control)] if control else [])
    )
    member = {"X-Door-Card": "1"}
    for _ in range(2):
        assert site.get("/", member).body == b"for members"
        assert site.get().body == (b"for members" if control else b"no")
    assert len(site.calls) == 1
    site.clock.advance(601)
    assert site.get().body == b"no"
    assert site.get("/", member).body == b"for members"  # nor is the answer of the check stored


def test_never_cache_is_obeyed_by_both(site: Site) -> None:
    in_a_row(site, never_cache)
    site.get()
    assert [member.split("; ")[-1] for member in members(site.get())] == ["detail=no-store"] * 2


def test_the_tags_of_a_view_purge_the_page_from_both(site: Site) -> None:
    caches = in_a_row(site, cache_page(60, tags=["news"]))
    site.get()
    for cache in (caches.within, site.middleware):  # from the inside out
        assert purge(tags=["news"], caching=cache.caching) == 1
    site.get()
    assert len(site.calls) == 2


@pytest.mark.parametrize("interface", ["wsgi", "asgi"])
def test_a_url_that_is_given_at_two_places_is_one_cache(interface: str) -> None:
    """The view only says how long the page may be kept; around it there is no second cache of it."""
    url = f"locmem://two-places-{interface}"
    app: Any = Flask(__name__) if interface == "wsgi" else Starlette()
    view = cache_page(60, cache=url)
    if interface == "wsgi":
        app.get("/")(view(lambda: "a page"))
        told = Client(wsgi.CacheMiddleware(app, cache=url)).get("/", buffered=True).headers["Cache-Status"]
    else:
        app.add_route("/", view(plain_page))
        told = TestClient(asgi.CacheMiddleware(app, cache=url)).get("/").headers["Cache-Status"]
    assert told == "cachemw; fwd=uri-miss; fwd-status=200; stored; ttl=60"


def plain_page(request: Any) -> Any:
    return PlainTextResponse("a page")
