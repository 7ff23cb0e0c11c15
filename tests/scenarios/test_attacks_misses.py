"""What an enemy would try on a miss and on a validation: what changes between the request and its answer."""

from __future__ import annotations

from collections.abc import Callable
from itertools import count
from typing import Any

import pytest

from cachemw import Policy, asgi, purge, wsgi
from cachemw.backends.locmem import LocMemCache
from cachemw.rules import Rule
from tests.scenarios.conftest import Asked, Script, Site
from tests.scenarios.test_attacks_shells import (
    ask,
    ask_asgi,
    ask_wsgi,
    environ_of,
    flights_of,
    in_a_thread,
    other_process,
    shell,
    twin_of,
)

names = count()


def store() -> LocMemCache:
    return LocMemCache(f"misses-{next(names)}")


# -- an application that changes what it was given ------------------------------------------------------------------


def changing(site: Site, change: Callable[[Any], None], **options: Any) -> None:
    """An application behind something that changes the environment or the scope in place, as PEP 3333 lets it."""

    def around(app: Any, interface: str) -> Any:
        def between(environ: Any, start_response: Any) -> Any:
            change(environ)
            return app(environ, start_response)

        async def between_async(scope: Any, receive: Any, send: Any) -> None:
            change(scope)
            await app(scope, receive, send)

        inner: Any = between if interface == "wsgi" else between_async
        return shell(site).CacheMiddleware(inner, cache=store(), **options)

    site.build(around=around)


def without(name: str, *, another_list: bool) -> Callable[[Any], None]:
    def change(given: Any) -> None:
        given.pop("HTTP_" + name.upper(), None)
        if "headers" in given:
            kept = [field for field in given["headers"] if field[0] != name.encode()]
            if another_list:
                given["headers"] = kept
            else:
                given["headers"][:] = kept

    return change


@pytest.mark.parametrize("another_list", [True, False])
@pytest.mark.parametrize("field", ["cookie", "authorization"])
def test_credentials_that_the_application_takes_out_of_the_request_were_in_it(
    site: Site, field: str, another_list: bool
) -> None:
    changing(site, without(field, another_list=another_list))
    site.page(b"of Bob")
    site.get("/", {field: "session=bob"})
    site.page(b"anonymous")
    assert site.get().body == b"anonymous"


@pytest.mark.parametrize("another_list", [True, False])
def test_a_field_that_the_application_takes_out_of_the_request_selects_its_page(site: Site, another_list: bool) -> None:
    changing(site, without("cookie", another_list=another_list))
    site.page(b"of Bob", vary="Cookie", cache_control="max-age=60")
    site.get("/", {"Cookie": "a=bob"})
    site.page(b"anonymous", vary="Cookie", cache_control="max-age=60")
    assert site.get().body == b"anonymous"
    assert site.get("/", {"Cookie": "a=bob"}).body == b"of Bob"


def mount(given: Any) -> None:
    """As Werkzeug's DispatcherMiddleware and Starlette's Mount do."""
    if "headers" in given:
        given["root_path"] = "/shop"
    else:
        given["SCRIPT_NAME"], given["PATH_INFO"] = "/shop", given["PATH_INFO"].removeprefix("/shop")


def route(given: Any) -> None:
    """As Litestar does below a mount: it leaves `root_path` as it is."""
    if "headers" in given:
        given["path"] = given["path"].removeprefix("/shop")
    else:
        given["PATH_INFO"] = "/cart"


@pytest.mark.parametrize("change", [mount, route])
def test_a_purge_by_post_is_for_the_url_that_came_in(site: Site, change: Callable[[Any], None]) -> None:
    changing(site, change)
    if change is route and site.interface == "asgi":
        inner = site.middleware

        async def mounted(scope: Any, receive: Any, send: Any) -> None:
            await inner({**scope, "root_path": "/shop"}, receive, send)

        site.middleware = mounted
    site.get("/shop/cart")
    assert site.get("/shop/cart").hit
    site.request("POST", "/shop/cart")
    assert not site.get("/shop/cart").hit


# -- a client that leaves -------------------------------------------------------------------------------------------


def test_what_is_answered_to_nobody_is_not_stored() -> None:
    async def app(scope: Any, receive: Any, send: Any) -> None:
        gone = (await receive())["type"] == "http.disconnect"
        await send({"type": "http.response.start", "status": 200, "headers": []})
        await send({"type": "http.response.body", "body": b"" if gone else b"page"})

    middleware = asgi.CacheMiddleware(app, cache=store())

    async def disconnect() -> Any:
        return {"type": "http.disconnect"}

    ask_asgi(middleware, disconnect)
    assert ask_asgi(middleware).body == b"page"
    assert "hit" in ask_asgi(middleware).trace


# -- parts ----------------------------------------------------------------------------------------------------------

PART = [("ETag", '"1"'), ("Cache-Control", "max-age=60, stale-if-error=600"), ("Content-Range", "bytes 0-3/10")]


@pytest.mark.parametrize("asked", [{}, {"Range": "bytes=2-8"}])
@pytest.mark.parametrize("after", [Script(500), Script(early=ValueError("broken"))])
@pytest.mark.parametrize("age", [0, 90])
def test_a_stored_part_does_not_stand_in_for_what_it_lacks(
    site: Site, asked: dict[str, str], after: Script, age: int
) -> None:
    site.build(policy=Policy.rfc9111())
    site.answers(Script(206, PART, b"0123"))
    site.get("/", {"Range": "bytes=0-3"})
    site.clock.advance(age)
    site.answers(after)
    answer = site.get("/", asked)
    assert answer.status == 500 or answer.error is after.early


def test_a_file_that_completes_a_part_is_asked_for_as_a_whole() -> None:
    """An application that has the server send its files: it tells the head, and the name of the file."""

    async def app(scope: Any, receive: Any, send: Any) -> None:
        headers = [(b"etag", b'"1"'), (b"cache-control", b"max-age=60")]
        asked = dict(scope["headers"]).get(b"range")
        if asked is None:
            await send({"type": "http.response.start", "status": 200, "headers": headers})
            await send({"type": "http.response.pathsend", "path": "/whole"})
            return
        part = b"bytes 0-3/10" if asked == b"bytes=0-3" else b"bytes 4-9/10"
        headers.append((b"content-range", part))
        await send({"type": "http.response.start", "status": 206, "headers": headers})
        if asked == b"bytes=0-3":
            await send({"type": "http.response.body", "body": b"0123"})
        else:
            await send({"type": "http.response.pathsend", "path": "/part"})

    middleware = asgi.CacheMiddleware(app, cache=store(), policy=Policy.rfc9111())
    ask_asgi(middleware, headers=[(b"host", b"example.org"), (b"range", b"bytes=0-3")])
    start, file = ask_asgi(middleware)
    assert (start["status"], file["path"]) == (200, "/whole")


# -- methods --------------------------------------------------------------------------------------------------------


def test_a_post_does_not_poison_the_page(site: Site) -> None:
    site.build(policy=Policy.rfc9111())

    def respond(asked: Asked) -> Script:
        body = asked.fields.get("x-forwarded-host", "example.org").encode()
        return Script(fields=[("Cache-Control", "max-age=60"), ("Content-Location", "/")], body=body)

    site.respond = respond
    site.request("POST", "/", {"X-Forwarded-Host": "evil.example"})
    assert site.get().body == b"example.org"
    assert site.get("/", {"X-Forwarded-Host": "evil.example"}).body == b"evil.example"


@pytest.mark.parametrize("way", ["url", "tag"])
@pytest.mark.parametrize("purged", [True, False])
def test_a_purge_while_a_post_is_answered_beats_what_it_stores(site: Site, way: str, purged: bool) -> None:
    site.build(policy=Policy.rfc9111())
    fields = [("Cache-Control", "max-age=60"), ("Content-Location", "/"), ("Cache-Tag", "news")]

    def respond(asked: Asked) -> Script:
        if asked.method == "POST" and purged:
            urls, tags = ([], ["news"]) if way == "tag" else (["http://example.org/"], [])
            purge(*urls, tags=tags, caching=site.middleware.caching)
        return Script(fields=fields, body=asked.method.encode())

    site.respond = respond
    site.request("POST")
    assert site.get().body == (b"GET" if purged else b"POST")


@pytest.mark.parametrize("target", ["/shop/cart", "/shop/cart?utm=2", "/orders"])
def test_a_post_reaches_the_pages_that_a_rule_keeps_elsewhere(site: Site, target: str) -> None:
    """The rule speaks of GET; the POST is of another line, or to another URL, which it tells the changed one of."""
    names_of = [f"locmem://misses-{next(names)}" for _ in range(2)]
    caches = {"default": {"LOCATION": names_of[0]}, "shop": {"LOCATION": names_of[1]}}
    backends = {alias: {"BACKEND": "cachemw.backends.locmem.LocMemCache", **given} for alias, given in caches.items()}
    rule = Rule("/shop/*", methods=("GET",), cache="shop", ignore_query=("utm",))
    site.build(cache="default", settings={"CACHES": backends}, rules=[rule])
    site.answers(Script(fields=[("Content-Location", "/shop/cart")] if target == "/orders" else []))
    site.get("/shop/cart?utm=1" if "utm" in target else "/shop/cart")
    site.request("POST", target)
    assert not site.get("/shop/cart").hit


def test_a_post_reaches_them_by_what_they_said_of_their_query(site: Site) -> None:
    rule = Rule("/*", methods=("GET",), cache=f"locmem://misses-{next(names)}")
    site.build(rules=[rule])
    site.page(no_vary_search="params")
    site.get("/cart?x=1")
    assert site.get("/cart?x=2").hit
    site.request("POST", "/cart?x=3")
    assert not site.get("/cart?x=1").hit


def test_a_rule_that_names_the_store_of_its_site_has_one_cache_with_it(site: Site) -> None:
    caches = {alias: {"BACKEND": "cachemw.backends.locmem.LocMemCache"} for alias in ("default", "other")}
    site.build(cache="default", settings={"CACHES": caches}, rules=[Rule("/a", cache="default")])
    assert site.middleware.caching.lines == (site.middleware.caching.line,)
    site.build(cache="default", settings={"CACHES": caches}, rules=[Rule("/a", cache="other")])
    assert [line.pages for line in site.middleware.caching.lines] == list(site.middleware.caching.stores)
    assert len(site.middleware.caching.lines) == 2


# -- rules ----------------------------------------------------------------------------------------------------------


def test_a_rule_for_the_stored_page_does_not_speak_of_the_error_after_it(site: Site) -> None:
    site.build(rules=[Rule("/*", statuses=(200,), lifetime=60)])
    site.answers(
        Script(fields=[("ETag", '"1"')], body=b"page"),
        Script(304, fields=[("ETag", '"2"')]),
        Script(404, body=b"gone"),
        Script(body=b"back"),
    )
    site.get()
    site.clock.advance(61)
    assert site.get().status == 404
    assert site.get().body == b"back"


@pytest.mark.parametrize("method", ["GET", "HEAD"])
def test_a_rule_strips_the_cookies_of_a_validation_too(site: Site, method: str) -> None:
    site.build(policy=Policy.rfc9111(), rules=[Rule("/*", set_cookie="strip")])
    fields = [("ETag", '"1"'), ("Cache-Control", "max-age=60")]
    bobs = [*fields, ("Set-Cookie", "session=bob")]
    status = 304 if method == "GET" else 200
    site.answers(Script(fields=bobs), Script(status, bobs), Script(fields=fields))
    assert site.get()["Set-Cookie"] == "session=bob"
    site.clock.advance(61)
    site.request(method)
    stranger = site.get()
    assert stranger.hit
    assert stranger["Set-Cookie"] is None


# -- other processes ------------------------------------------------------------------------------------------------


def test_the_flight_of_who_got_the_answer_of_another_process_is_over(
    site: Site, monkeypatch: pytest.MonkeyPatch
) -> None:
    polls: list[Callable[[], object]] = [bool]
    other_process(site, monkeypatch, polls)
    site.page(b"of the other", cache_tag="news", cache_control="max-age=600")
    twin = twin_of(site, Policy(lease=0))
    polls.append(lambda: ask_wsgi(twin) if site.interface == "wsgi" else in_a_thread(twin))
    assert ask(site)[0] == b"of the other"
    assert flights_of(site.middleware) == 0
    purge(tags=["news"], caching=twin.caching)
    site.page(b"new")
    assert ask(site)[0] == b"new"


# -- fields ---------------------------------------------------------------------------------------------------------


def test_fields_that_are_lists_are_fields() -> None:
    def app(environ: Any, start_response: Any) -> Any:
        start_response("200 OK", [["Content-Type", "text/html"], ["X-One", "1"]])
        return [b"page"]

    middleware = wsgi.CacheMiddleware(app, cache=store())
    for _ in range(2):
        assert ask_wsgi(middleware)[2] == b"page"


def test_two_threads_that_hear_at_once_that_the_query_matters_again() -> None:
    class Forgotten(dict[str, Any]):
        """Another thread was faster."""

        def get(self, key: str, default: Any = None) -> Any:
            value = super().get(key, default)
            self.clear()
            return value

    middleware = wsgi.CacheMiddleware(wsgi_page, cache=store())
    line = middleware.caching.line
    line.search = Forgotten({line.resource(wsgi.WSGIRequest(environ_of())): object()})
    assert ask_wsgi(middleware)[2] == b"page"


def wsgi_page(environ: Any, start_response: Any) -> Any:
    start_response("200 OK", [("Content-Type", "text/html")])
    return [b"page"]
