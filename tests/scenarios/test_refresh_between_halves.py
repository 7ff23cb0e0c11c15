"""A page is stale, and the cache's two halves stand apart: the refresh goes the way that a request goes."""

from __future__ import annotations

import threading
from itertools import count
from typing import Any

from cachemw import Settings, asgi, get_language, get_timezone, wsgi
from cachemw.backends.locmem import LocMemCache
from cachemw.locale import (
    ASGILocaleMiddleware,
    ASGITimezoneMiddleware,
    WSGILocaleMiddleware,
    WSGITimezoneMiddleware,
)
from tests.scenarios.conftest import Asked, Script, Site

names = count()
SWR = [("Cache-Control", "max-age=10, stale-while-revalidate=100")]


def build(site: Site, path_prefix: Any = None) -> None:
    """Language and time zone are chosen between the halves; the page says which they are, and its number."""
    options: dict[str, Any] = {
        "cache": LocMemCache(f"between-{next(names)}"),
        "settings": Settings(use_i18n=True, use_tz=True),
    }
    is_wsgi = site.interface == "wsgi"
    timezone: Any = WSGITimezoneMiddleware if is_wsgi else ASGITimezoneMiddleware
    locale: Any = WSGILocaleMiddleware if is_wsgi else ASGILocaleMiddleware

    def around(app: Any, interface: str) -> Any:
        module: Any = wsgi if is_wsgi else asgi
        inner = module.FetchFromCacheMiddleware(app, **options)
        localized = locale(timezone(inner), languages=["en", "de"], cookie="lang", path_prefix=path_prefix)
        return module.UpdateCacheMiddleware(localized, **options)

    def respond(asked: Asked) -> Script:
        return Script(fields=SWR, body=f"{get_language()} {get_timezone()} {len(site.calls)}".encode())

    site.build(around=around)
    site.respond = respond


def wait_for_refreshes() -> None:
    for thread in threading.enumerate():
        if thread.name == "cachemw-refresh":
            thread.join(5)


def test_a_stale_page_is_served_once_more_and_refreshed(site: Site) -> None:
    build(site)
    assert site.get().body == b"en UTC 1"
    site.clock.advance(11)
    stale = site.get()
    assert (stale.body, stale.hit) == (b"en UTC 1", True)
    wait_for_refreshes()
    fresh = site.get()
    assert (fresh.body, fresh.hit, fresh["age"]) == (b"en UTC 2", True, "0")
    assert fresh["content-language"] == "en"
    assert len(site.calls) == 2


def test_the_refresh_is_for_the_language_and_zone_of_the_stale_page_and_for_nobody_in_particular(site: Site) -> None:
    build(site)
    german = {"Cookie": "lang=de; timezone=Asia/Tokyo", "Accept-Language": "en"}
    site.get()
    assert site.get("/", german).body == b"de Asia/Tokyo 2"
    site.clock.advance(11)
    site.get("/", german)
    wait_for_refreshes()
    assert site.get("/", german).body == b"de Asia/Tokyo 3"
    assert "cookie" not in site.calls[-1].fields
    assert site.get().body == b"en UTC 1"


def test_the_refresh_begins_with_the_path_that_came_in(site: Site) -> None:
    build(site, path_prefix="strip")
    assert site.get("/de/news").body == b"de UTC 1"
    site.clock.advance(11)
    site.get("/de/news")
    wait_for_refreshes()
    assert site.get("/de/news").body == b"de UTC 2"
    assert site.calls[-1].path == site.calls[0].path


def test_the_inner_half_alone_refreshes_nothing(site: Site) -> None:
    module: Any = wsgi if site.interface == "wsgi" else asgi
    cache = LocMemCache(f"between-{next(names)}")
    site.build(around=lambda app, interface: module.CacheMiddleware(app, cache=cache))
    site.answers(Script(fields=SWR))
    site.get()
    site.build(around=lambda app, interface: module.FetchFromCacheMiddleware(app, cache=cache))
    site.clock.advance(11)
    assert site.get().hit
    wait_for_refreshes()
    assert len(site.calls) == 1


def test_the_refresh_goes_where_the_request_came_in_and_not_where_it_was_sent_on_to(site: Site) -> None:
    """Also where what is between the halves has rewritten path and query in place."""
    options: dict[str, Any] = {"cache": LocMemCache(f"between-{next(names)}")}

    def around(app: Any, interface: str) -> Any:
        module: Any = wsgi if interface == "wsgi" else asgi
        inner = module.FetchFromCacheMiddleware(app, **options)

        def rewriting_environ(environ: Any, start_response: Any) -> Any:
            environ["PATH_INFO"] = "/v2" + environ["PATH_INFO"]
            environ["QUERY_STRING"] += "&v=2"
            return inner(environ, start_response)

        async def rewriting_scope(scope: Any, receive: Any, send: Any) -> None:
            scope["path"] = "/v2" + scope["path"]
            scope["raw_path"] = b"/v2" + scope["raw_path"]
            scope["query_string"] += b"&v=2"
            await inner(scope, receive, send)

        rewriting: Any = rewriting_environ if interface == "wsgi" else rewriting_scope
        return module.UpdateCacheMiddleware(rewriting, **options)

    site.build(around=around)
    site.respond = lambda asked: Script(fields=SWR, body=f"{asked.path}?{asked.query} {len(site.calls)}".encode())
    assert site.get("/a?b=1").body == b"/v2/a?b=1&v=2 1"
    site.clock.advance(11)
    assert site.get("/a?b=1").body == b"/v2/a?b=1&v=2 1"
    wait_for_refreshes()
    fresh = site.get("/a?b=1")
    assert (fresh.body, fresh.hit) == (b"/v2/a?b=1&v=2 2", True)
    assert len(site.calls) == 2
