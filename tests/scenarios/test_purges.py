"""Purges belong to a store: whoever makes them, with whatever settings, knows what its process has learnt."""

from __future__ import annotations

import asyncio
import gc
import threading
import weakref
from collections.abc import Callable, Coroutine, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from cachemw import Policy, caches, purge
from cachemw.backends.filebased import FileBasedCache
from cachemw.backends.locmem import LocMemCache
from cachemw.caching import Caching, pages_of
from tests.scenarios.conftest import Asked, Script, Site


@pytest.fixture
def default_site(site: Site) -> Iterator[Site]:
    """A site on the cache that the environment configures, as `CacheMiddleware(app)` is."""
    caches["default"].clear()
    yield site.build(cache=caches["default"])
    caches["default"].clear()


def test_a_purge_without_a_middleware_knows_what_responses_said_of_the_query(default_site: Site) -> None:
    site = default_site.page(no_vary_search="params", cache_control="max-age=100")
    site.get("/p?x=1")
    assert site.get("/p?x=1").hit
    assert site.get("/p?x=2").hit
    assert purge("http://example.org/p?x=1") == 1
    assert not site.get("/p?x=1").hit


def test_a_purge_without_a_middleware_knows_where_applications_are_mounted(default_site: Site) -> None:
    site, cached = default_site.page(), default_site.middleware

    def mounted_wsgi(environ: Any, start_response: Any) -> Any:
        environ["SCRIPT_NAME"], environ["PATH_INFO"] = "/shop", environ["PATH_INFO"].removeprefix("/shop")
        return cached(environ, start_response)

    async def mounted_asgi(scope: Any, receive: Any, send: Any) -> None:
        await cached({**scope, "root_path": "/shop"}, receive, send)

    site.middleware = mounted_wsgi if site.interface == "wsgi" else mounted_asgi
    site.get("/shop/p")
    assert site.get("/shop/p").hit
    assert purge("http://example.org/shop/p") == 1
    assert not site.get("/shop/p").hit


def test_what_one_middleware_hears_of_a_query_another_one_of_the_store_heeds(site: Site) -> None:
    first = site.middleware
    second = site.build(cache=site.cache).middleware
    site.page(b"first")
    assert site.get("/?a=1&ref=2").body == b"first"
    assert site.get("/?a=1&ref=2").hit
    site.middleware = first
    site.page(b"second", no_vary_search='params=("ref")')
    site.get("/?b=1&ref=2")
    site.middleware = second
    assert site.get("/?b=1&ref=3").hit
    site.get("/?a=1&ref=4")
    answer = site.get("/?a=1&ref=2")
    assert (answer.body, answer.hit) == (b"second", True)  # by the new key, though this middleware knew the old one


def test_a_policy_that_heeds_no_no_vary_search_does_not_heed_what_another_one_heard(site: Site) -> None:
    site.page(no_vary_search="params")
    site.get("/?x=1")
    assert site.get("/?x=2").hit
    site.build(cache=site.cache, policy=Policy(no_vary_search=False))
    assert not site.get("/?x=3").hit
    assert not site.get("/?x=4").hit
    assert purge("http://example.org/?x=3", caching=site.middleware.caching)
    assert not site.get("/?x=3").hit


def test_a_purge_of_nothing_says_what_to_give(site: Site) -> None:
    caching = site.middleware.caching
    with pytest.raises(TypeError, match="give absolute URLs, or tags"):
        purge(caching=caching)
    assert purge(*[], tags=[], caching=caching) == 0  # what a site made of nothing


@pytest.mark.parametrize("soft", [False, True])
def test_a_purge_by_tag_beats_a_clock_that_steps_back_whoever_purges(site: Site, soft: bool) -> None:
    site.page(cache_tag="news")
    site.get()
    assert site.get().hit
    site.clock.advance(-0.5)
    assert purge(tags=["news"], soft=soft, caching=Caching(cache=site.cache)) == 1
    assert not site.get().hit


@pytest.mark.parametrize("end", ["time", "clear"])
def test_a_tag_purged_by_a_clock_that_is_ahead_is_not_cached_until_the_others_are_as_far(
    site: Site, end: str, tmp_path: Path
) -> None:
    """Another process's, an hour ahead: nobody can tell what began before that purge."""
    site.build(cache=FileBasedCache(str(tmp_path)))
    site.page(cache_tag="news")
    site.clock.advance(3600)
    purge(tags=["news"], caching=Caching(cache=FileBasedCache(str(tmp_path))))
    site.clock.advance(-3600)
    site.get()
    assert not site.get().hit
    if end == "time":
        site.clock.advance(3602)
    else:
        site.cache.clear()
    site.get()
    assert site.get().hit


# -- everything -----------------------------------------------------------------------------------------------------


def in_a_thread(work: Coroutine[Any, Any, None]) -> None:
    """On a loop of its own: that of the request is at work."""
    with ThreadPoolExecutor(1) as threads:
        threads.submit(asyncio.run, work).result()


def while_it_is_made(site: Site, act: Callable[[], object]) -> None:
    """The application answers with what it saw before `act`; from then on with what is new."""

    def respond(asked: Asked) -> Script:
        site.page(b"new")
        act()
        return Script(body=b"old")

    site.respond = respond


def purge_and_clear(site: Site, *urls: str, tags: Iterable[str] = ()) -> None:
    """What removes everything removes the marks of purges, too."""
    purge(*urls, tags=tags, caching=site.middleware.caching)
    site.cache.clear()


CLEARINGS: dict[str, Callable[[Site], Any]] = {
    "clear": lambda site: site.cache.clear(),
    "aclear": lambda site: in_a_thread(site.cache.aclear()),
    "owed": lambda site: pages_of(site.cache).remove("everything", ["all"]),
    "after a purge": lambda site: purge_and_clear(site, "http://example.org/"),
    "after a purge by tag": lambda site: purge_and_clear(site, tags=["news"]),
}


@pytest.mark.parametrize("clearing", CLEARINGS)
def test_what_is_made_while_everything_is_removed_is_not_stored(site: Site, clearing: str) -> None:
    while_it_is_made(site, lambda: CLEARINGS[clearing](site))
    assert site.get().body == b"old"
    assert site.get().body == b"new"
    assert site.get().hit


class Shared(LocMemCache):
    """Local memory that other processes are said to see."""

    shared = True


def test_what_is_made_while_another_process_removes_everything_is_not_stored(site: Site) -> None:
    """The lease of whoever makes it is gone with the rest."""
    site.build(cache=Shared(f"cleared elsewhere {site.interface}"))
    elsewhere = LocMemCache(site.cache.location)
    while_it_is_made(site, elsewhere.clear)
    assert site.get().body == b"old"
    assert site.get().body == b"new"
    assert site.get().hit


def test_what_is_validated_while_everything_is_removed_is_not_stored(site: Site) -> None:
    site.page(b"old", etag='"1"', cache_control="max-age=10")
    site.get()
    site.clock.advance(11)

    def respond(asked: Asked) -> Script:
        site.page(b"new")
        site.cache.clear()
        return Script(304, fields=[("ETag", '"1"')])

    site.respond = respond
    assert site.get().body == b"old"
    assert site.get().body == b"new"


def test_who_asks_after_everything_was_removed_does_not_join_those_who_asked_before(site: Site) -> None:
    inside, go = threading.Event(), threading.Event()

    def respond(asked: Asked) -> Script:
        site.page(b"new")
        inside.set()
        assert go.wait(10)
        return Script(body=b"old")

    site.respond = respond
    with ThreadPoolExecutor(1) as threads:
        before = threads.submit(site.get)
        assert inside.wait(10)
        site.cache.clear()
        try:
            assert site.get().body == b"new"
        finally:
            go.set()
        assert before.result().body == b"old"
    assert site.get().body == b"new"


def test_a_store_that_nobody_has_any_more_goes_with_its_pages() -> None:
    store = LocMemCache("gone")
    assert Caching(cache=store).line.pages is pages_of(store)
    gone = weakref.ref(store)
    del store
    gc.collect()
    assert gone() is None
