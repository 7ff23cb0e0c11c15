"""Whose pages a purge means, what it can name, and what it says of what it cannot."""

from __future__ import annotations

import asyncio
import gc
import itertools
from collections.abc import Callable
from typing import Any
from weakref import WeakValueDictionary

import pytest
from flask import Flask, url_for
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import PlainTextResponse
from starlette.routing import Route
from starlette.testclient import TestClient
from werkzeug.test import Client

from cachemw import (
    CacheMiddleware,
    Caching,
    FetchFromCacheMiddleware,
    UpdateCacheMiddleware,
    apurge,
    cache_page,
    caches,
    page_failures,
    purge,
)
from cachemw.caching import CachingMiddleware, cachings_of
from cachemw.integrations import starlette
from cachemw.integrations.flask import CacheMW
from cachemw.rfc9111.fields import is_tag, parse_tags

PAGE = "http://localhost/"

#: What two purges of one thing do, whoever counts: the first one removes it.
WAYS: dict[str, Callable[[], int]] = {
    "url": lambda: purge(PAGE),
    "tag": lambda: purge(tags=["t"]),
    "url, in a task": lambda: asyncio.run(apurge(PAGE)),
    "tag, in a task": lambda: asyncio.run(apurge(tags=["t"])),
}


@pytest.fixture
def numbered() -> Callable[[Any, Any], list[bytes]]:
    """An application whose pages are all different, with the tag "t"."""
    numbers = itertools.count()

    def app(environ: Any, start_response: Any) -> list[bytes]:
        start_response("200 OK", [("Content-Type", "text/plain"), ("Cache-Tag", environ.get("HTTP_TAGS", "t"))])
        return [b"%d" % next(numbers)]

    return app


def get(app: Any, **options: Any) -> str:
    return Client(app).get("/", buffered=True, **options).text


# -- whose pages ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("way", WAYS)
def test_a_purge_reaches_the_cache_that_a_middleware_was_given_in_code(numbered: Any, way: str) -> None:
    site = CacheMiddleware(numbered, cache="locmem://purged in code")
    assert (get(site), get(site)) == ("0", "0")
    assert WAYS[way]() == 1
    assert get(site) == "1"


@pytest.mark.parametrize("way", WAYS)
def test_a_purge_reaches_every_middleware_of_the_process(numbered: Any, way: str) -> None:
    sites = [CacheMiddleware(numbered, cache=f"locmem://purged {name}", key_prefix=name) for name in ("a", "b")]
    assert [get(site) for site in sites] == ["0", "1"]
    assert WAYS[way]() == 2
    assert [get(site) for site in sites] == ["2", "3"]


@pytest.mark.parametrize("way", WAYS)
def test_two_halves_are_one_cache_and_two_prefixes_are_two(numbered: Any, way: str) -> None:
    options: Any = {"cache": "locmem://purged halves", "key_prefix": "halves"}
    halves = UpdateCacheMiddleware(FetchFromCacheMiddleware(numbered, **options), **options)
    other = CacheMiddleware(numbered, cache="locmem://purged halves", key_prefix="other")
    assert (get(halves), get(other)) == ("0", "1")
    assert WAYS[way]() == 2
    assert (get(halves), get(other)) == ("2", "3")


def test_a_purge_reaches_views_without_a_middleware() -> None:
    numbers = itertools.count()

    async def view(request: Request) -> PlainTextResponse:
        return PlainTextResponse(str(next(numbers)))

    site = TestClient(Starlette(routes=[Route("/", cache_page(60, cache="locmem://purged view")(view))]))
    assert (site.get("/").text, site.get("/").text) == ("0", "0")
    assert purge("http://testserver/") == 1
    assert site.get("/").text == "1"


def test_a_view_of_starlettes_purges_the_cache_around_its_application() -> None:
    """It is no middleware of the application, which does not know of it."""
    numbers = itertools.count()

    async def view(request: Request) -> PlainTextResponse:
        if request.method == "POST":
            return PlainTextResponse(str(await starlette.apurge(request, "/", tags=["t"])))
        return PlainTextResponse(str(next(numbers)), headers={"Cache-Tag": "t"})

    app = Starlette(routes=[Route("/", view), Route("/change", view, methods=["POST"])])
    site = TestClient(CacheMiddleware(app, cache="locmem://around starlette"))
    assert (site.get("/").text, site.get("/").text) == ("0", "0")
    assert site.post("/change").text == "2"
    assert site.get("/").text == "1"


def test_without_any_middleware_it_is_the_environments_pages(numbered: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    site = CacheMiddleware(numbered)
    assert get(site) == "0"
    monkeypatch.setattr("cachemw.caching._at_work", WeakValueDictionary())
    assert purge(PAGE) == 1
    assert get(site) == "1"


def test_the_store_that_the_environment_names_is_purged_also_by_who_has_a_cache_of_another_kind(
    numbered: Any, monkeypatch: pytest.MonkeyPatch, tmp_path: Any
) -> None:
    """A service that purges the pages of a site: its own middlewares are not the ones that are meant."""
    monkeypatch.setenv("CACHEMW_URL", f"file://{tmp_path}/site")
    site = CacheMiddleware(numbered)
    assert get(site) == "0"
    monkeypatch.setattr("cachemw.caching._at_work", WeakValueDictionary())
    own = CacheMiddleware(numbered, cache="locmem://of the service")
    assert get(own) == "1"
    assert purge(PAGE) == 2
    assert (get(site), get(own)) == ("2", "3")
    caches["default"].close()


def test_a_middleware_that_nobody_has_any_more_is_not_purged(numbered: Any) -> None:
    kept = CacheMiddleware(numbered, cache="locmem://kept")
    CacheMiddleware(numbered, cache="locmem://dropped")
    gc.collect()
    assert list(cachings_of(None)) == [kept.caching]


@pytest.fixture
def shop() -> tuple[Flask, CacheMW]:
    """An application with stores of its own, one of them of a single view; it purges by the functions of the core."""
    numbers = itertools.count()
    app = Flask("shop")
    app.config["CACHES"] = {"default": "locmem://purged shop", "views": "locmem://purged views"}
    app.add_url_rule("/news", "news", lambda: str(next(numbers)))
    app.add_url_rule("/own", "own", cache_page(60, cache="views", tags=["t"])(lambda: str(next(numbers))))

    @app.post("/change/<name>")
    def change(name: str) -> str:
        return str(purge(url_for(name, _external=True)))

    @app.post("/tags")
    def change_all() -> str:
        return str(purge(tags=["t"]))

    return app, CacheMW(app)


def test_in_a_view_of_flasks_it_is_the_applications_pages(shop: tuple[Flask, CacheMW]) -> None:
    app, _ = shop
    client, elsewhere = app.test_client(), CacheMiddleware(Flask("another"), cache="locmem://another")

    def texts() -> tuple[str, str]:
        return client.get("/news", buffered=True).text, client.get("/own", buffered=True).text

    assert texts() == texts() == ("0", "1")
    assert client.post("/change/news", buffered=True).text == "1"
    assert texts() == ("2", "1")
    assert client.post("/change/own", buffered=True).text == "1"
    assert texts() == ("2", "3")
    assert client.post("/tags", buffered=True).text == "2"  # of both stores
    assert texts() == ("2", "4")
    with app.app_context():
        assert elsewhere.caching not in cachings_of(None)
        assert page_failures() == {}


def test_in_flask_also_the_pages_of_views_that_only_other_processes_were_asked_for(
    shop: tuple[Flask, CacheMW], numbered: Any
) -> None:
    app, _ = shop
    assert app.test_client().get("/own", buffered=True).text == "0"
    numbers = itertools.count()
    twin = Flask("shop")
    twin.config["CACHES"] = app.config["CACHES"]
    twin.add_url_rule("/own", "own", cache_page(60, cache="views", tags=["t"])(lambda: str(next(numbers))))
    twin.config["APPLICATION_ROOT"] = "/shop"
    CacheMW(twin)
    assert app.test_client().get("/own", "http://localhost/shop", buffered=True).text == "1"
    with twin.app_context():
        assert purge("http://localhost/own", "http://localhost/shop/own") == 2
    assert app.test_client().get("/own", buffered=True).text == "2"
    assert app.test_client().get("/own", "http://localhost/shop", buffered=True).text == "3"


@pytest.mark.parametrize("given", [lambda site: site, lambda site: site.caching], ids=["middleware", "caching"])
def test_a_middleware_says_whose_pages_as_well_as_its_caching(
    numbered: Any, given: Callable[[CachingMiddleware], Any]
) -> None:
    site = CacheMiddleware(numbered, cache="locmem://given")
    other = CacheMiddleware(numbered, cache="locmem://not given")
    assert (get(site), get(other)) == ("0", "1")
    assert purge(PAGE, caching=given(site)) == 1
    assert (get(site), get(other)) == ("2", "1")
    assert page_failures(given(site)) == {}


def test_a_script_names_the_pages_by_a_caching_of_its_own(numbered: Any) -> None:
    site = CacheMiddleware(numbered, cache="locmem://by a script", key_prefix="script")
    assert get(site) == "0"
    assert purge(PAGE, caching=Caching(cache="locmem://by a script", key_prefix="script")) == 1
    assert get(site) == "1"


# -- what --------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("tag", ["", None, b"t", "a, b", " t", "t ", "x" * 1025, "\t"], ids=repr)
def test_a_tag_that_no_page_can_have_is_not_purged_in_silence(numbered: Any, tag: Any) -> None:
    site = CacheMiddleware(numbered, cache="locmem://tags")
    assert get(site) == "0"
    for arguments in ([tag], ["t", tag]):
        with pytest.raises(ValueError, match=r"cannot purge the tag .*: no page can have it"):
            purge(tags=arguments, caching=site)
        with pytest.raises(ValueError, match="no page can have it"):
            asyncio.run(apurge(PAGE, tags=arguments, caching=site))
    assert get(site) == "0"


@pytest.mark.parametrize(("said", "tag"), [("two words, x", "two words"), ("7", 7), ("a\xa0b", "a\xa0b")])
def test_every_tag_that_a_page_has_can_be_purged(numbered: Any, said: str, tag: Any) -> None:
    site = CacheMiddleware(numbered, cache="locmem://tags")
    assert (get(site, headers={"Tags": said}), get(site)) == ("0", "0")
    assert purge(tags=[tag], caching=site) == 1
    assert get(site) == "1"


@pytest.mark.parametrize(
    ("text", "answer"),
    [("a", True), ("a:1/~!", True), ("x" * 1024, True), ("x" * 1025, False)]
    + [(text, False) for text in ("", "a b", "a,b", "a\n", "é", "a\t", "\x7f")],
)
def test_what_rules_and_views_take_for_a_tag_both_fields_can_carry(text: str, answer: bool) -> None:
    assert is_tag(text) is answer
    if answer:
        assert parse_tags([text], []) == parse_tags([], [text]) == (text,)


def test_a_purge_of_nothing_is_the_same_error_wherever_it_is_asked_for(shop: tuple[Flask, CacheMW]) -> None:
    app, cachemw = shop
    asgi = CacheMiddleware(Starlette(), cache="locmem://nothing")
    nothing: list[Callable[[], int]] = [
        lambda: purge(),
        lambda: cachemw.purge(),
        lambda: asyncio.run(cachemw.apurge()),
        lambda: starlette.purge(asgi),
        lambda: asyncio.run(starlette.apurge(asgi)),
    ]
    with app.app_context():
        for way in nothing:
            with pytest.raises(TypeError, match="nothing to purge"):
                way()
        assert cachemw.purge(tags=[]) == 0
    assert starlette.purge(asgi, tags=iter(())) == 0


def test_behind_a_proxy_that_ends_tls_the_scheme_is_the_applications(numbered: Any) -> None:
    site = CacheMiddleware(numbered, cache="locmem://tls")
    assert get(site) == "0"
    assert purge("https://localhost/", caching=site) == 0
    assert get(site) == "0"
    assert purge("http://localhost/", caching=site) == 1
    assert get(site, base_url="https://localhost/") == "1"
    assert purge("https://localhost/", caching=site) == 1
