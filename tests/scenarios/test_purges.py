"""Purges belong to a store: whoever makes them, with whatever settings, knows what its process has learnt."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any
from urllib.parse import unquote_to_bytes

import pytest

from cachemw import Policy, caches, purge
from cachemw.caching import Caching
from tests.scenarios.conftest import Site


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
        script = unquote_to_bytes("/shop").decode("latin-1")
        environ["SCRIPT_NAME"], environ["PATH_INFO"] = script, environ["PATH_INFO"].removeprefix(script)
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
    assert site.get("/?a=1&ref=2").hit  # by the new key, though this middleware knew the old one


def test_a_policy_that_heeds_no_no_vary_search_does_not_heed_what_another_one_heard(site: Site) -> None:
    site.page(no_vary_search="params")
    site.get("/?x=1")
    assert site.get("/?x=2").hit
    site.build(cache=site.cache, policy=Policy(no_vary_search=False))
    assert not site.get("/?x=3").hit
    assert not site.get("/?x=4").hit
    assert purge("http://example.org/?x=3", caching=site.middleware.caching)
    assert not site.get("/?x=3").hit


@pytest.mark.parametrize("soft", [False, True])
def test_a_purge_by_tag_beats_a_clock_that_steps_back_whoever_purges(site: Site, soft: bool) -> None:
    site.page(cache_tag="news")
    site.get()
    assert site.get().hit
    site.clock.advance(-0.5)
    assert purge(tags=["news"], soft=soft, caching=Caching(cache=site.cache)) == 1
    assert not site.get().hit
