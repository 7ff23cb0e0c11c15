"""What an enemy would try where caches and their halves are around each other, with something else in between."""

from __future__ import annotations

from itertools import count
from typing import Any

import pytest

from cachemw import Policy, asgi
from cachemw.backends.locmem import LocMemCache
from tests.scenarios.conftest import Asked, Script, Site
from tests.scenarios.test_attacks_shells import (
    Sent,
    Shared,
    ask_asgi,
    ask_wsgi,
    flights_of,
    shell,
)
from tests.scenarios.test_halves_hooks_locale import halves

names = count()


def store() -> LocMemCache:
    return LocMemCache(f"attacked-between-{next(names)}")


# -- between the halves ---------------------------------------------------------------------------------------------


def swallowing(app: Any) -> Any:
    """It ends the body where the application broke off."""

    def between(environ: Any, start_response: Any) -> Any:
        result = app(environ, start_response)
        try:
            yield from result
        except ValueError:
            pass
        finally:
            result.close()

    async def between_async(scope: Any, receive: Any, send: Any) -> None:
        try:
            await app(scope, receive, send)
        except ValueError:
            await send({"type": "http.response.body", "body": b""})

    return between_async if isinstance(app, asgi.FetchFromCacheMiddleware) else between


def test_an_error_that_is_hidden_between_the_halves_is_none_the_less(site: Site) -> None:
    halves(site, swallowing)
    site.answers(Script(body=[b"half", b" of it"], error=ValueError("broken")), Script(body=b"whole"))
    assert site.get().body == b"half of it"
    assert site.get().body == b"whole"


def trying(app: Any) -> Any:
    """It asks for the page in a language, and for the one without if there is none."""

    def between(environ: Any, start_response: Any) -> Any:
        heads: list[Any] = []

        def start(*head: Any) -> Any:
            heads[:] = head
            return start_response

        for path in ("/en" + environ["PATH_INFO"], environ["PATH_INFO"]):
            result = app({**environ, "PATH_INFO": path}, start)
            body = list(result)
            getattr(result, "close", bool)()
            if not heads[0].startswith("404"):
                break
        start_response(*heads)
        return body

    async def between_async(scope: Any, receive: Any, send: Any) -> None:
        sent = Sent()
        for path in ("/en" + scope["path"], scope["path"]):
            sent.clear()
            await app({**scope, "path": path, "raw_path": path.encode()}, receive, sent)
            if sent[0]["status"] != 404:
                break
        for message in sent:
            await send(message)

    return between_async if isinstance(app, asgi.FetchFromCacheMiddleware) else between


@pytest.mark.parametrize("cache_control", ["max-age=60", "no-store"])
def test_who_asks_the_inner_half_twice_gets_two_answers(site: Site, cache_control: str) -> None:
    halves(site, trying)

    def respond(asked: Asked) -> Script:
        status = 404 if asked.path.startswith("/en") else 200
        return Script(
            status, [("Cache-Control", cache_control if status == 404 else "max-age=60")], asked.path.encode()
        )

    site.respond = respond
    site.get("/en/b")  # now it is known that /en/b is not there
    for _ in range(3):
        for path in (b"/a", b"/b"):
            answer = site.get(path.decode())
            assert (answer.status, answer.body) == (200, path)
    assert flights_of(site.middleware) == 0


def test_a_page_that_is_made_of_several_is_not_stored_as_the_first_of_them(site: Site) -> None:
    """Something between the halves sends a head, and then one fragment after the other."""

    def composing(app: Any) -> Any:
        def between(environ: Any, start_response: Any) -> Any:
            for path in ("/one", "/two"):
                result = app({**environ, "PATH_INFO": path}, start_response if path == "/one" else lambda *head: bool)
                yield from result
                getattr(result, "close", bool)()

        async def between_async(scope: Any, receive: Any, send: Any) -> None:
            for path in ("/one", "/two"):
                sent = Sent()
                await app({**scope, "path": path, "raw_path": path.encode()}, receive, sent)
                if path == "/one":
                    await send(sent[0])
                await send({"type": "http.response.body", "body": sent.body, "more_body": path == "/one"})

        return between_async if isinstance(app, asgi.FetchFromCacheMiddleware) else between

    halves(site, composing)
    site.respond = lambda asked: Script(body=asked.path.encode())
    for _ in range(3):
        assert site.get().body == b"/one/two"


def test_nor_is_one_that_is_made_of_several_before_anything_is_sent(site: Site) -> None:
    def composing(app: Any) -> Any:
        def between(environ: Any, start_response: Any) -> Any:
            heads: list[Any] = []
            body: list[bytes] = []

            def start(*head: Any) -> Any:
                heads.append(head)
                return body.append

            for language in ("en", "de"):
                result = app({**environ, "HTTP_ACCEPT_LANGUAGE": language}, start)
                body.extend(result)
                getattr(result, "close", bool)()
            start_response(*heads[0])
            return body

        async def between_async(scope: Any, receive: Any, send: Any) -> None:
            sent = Sent(), Sent()
            for language, part in zip((b"en", b"de"), sent, strict=True):
                asked = {**scope, "headers": [*scope["headers"], (b"accept-language", language)]}
                await app(asked, receive, part)
            await send(sent[0][0])
            await send({"type": "http.response.body", "body": b"".join(part.body for part in sent)})

        return between_async if isinstance(app, asgi.FetchFromCacheMiddleware) else between

    halves(site, composing)
    vary = [("Vary", "Accept-Language")]
    site.respond = lambda asked: Script(fields=vary, body=asked.fields["accept-language"].encode())
    for _ in range(3):
        answer = site.get()
        assert answer.body == b"ende"
        assert not answer.hit


def test_the_inner_half_heeds_what_the_outer_one_is_told(site: Site) -> None:
    module, cache = shell(site), store()
    policy = Policy(keyed_fields=("x-tenant",), request_directives=True)

    def around(app: Any, interface: str) -> Any:
        return module.UpdateCacheMiddleware(
            module.FetchFromCacheMiddleware(app, cache=cache), cache=cache, policy=policy
        )

    site.build(around=around)
    site.respond = lambda asked: Script(body=asked.fields.get("x-tenant", "none").encode())
    for tenant in ("one", "two"):
        assert site.get("/", {"X-Tenant": tenant}).body == tenant.encode()
    assert site.get().body == b"none"
    site.get("/secret", {"Cache-Control": "no-store"})
    assert not site.get("/secret").hit


def test_a_request_that_is_made_again_in_its_environment_is_another_one(site: Site) -> None:
    """As by what asks for the page in another language if there is none in the first."""
    inside: list[Any] = []

    def around(app: Any, interface: str) -> Any:
        cached = shell(site).CacheMiddleware(app, cache=store())

        def again(environ: Any, start_response: Any) -> Any:
            result = cached(environ, lambda *head: bool)
            b"".join(result)
            getattr(result, "close", bool)()
            environ["HTTP_ACCEPT_LANGUAGE"] = "de"
            return cached(environ, start_response)

        async def again_async(scope: Any, receive: Any, send: Any) -> None:
            await cached(scope, receive, Sent())
            scope["headers"] = [*scope["headers"], (b"accept-language", b"de")]
            await cached(scope, receive, send)

        inside.append(cached)
        return again if interface == "wsgi" else again_async

    site.build(around=around)
    vary = [("Vary", "Accept-Language")]
    site.respond = lambda asked: Script(fields=vary, body=asked.fields.get("accept-language", "none").encode())
    assert site.get().body == b"de"
    site.middleware = inside[-1]
    answer = site.get("/", {"Accept-Language": "de"})
    assert (answer.body, answer.hit) == (b"de", True)


# -- caches in caches -----------------------------------------------------------------------------------------------


def test_a_validation_by_an_inner_cache_does_not_open_a_page_to_sessions(site: Site) -> None:
    module, inside, outside = shell(site), store(), store()
    policy = Policy(seconds=60)

    def around(app: Any, interface: str) -> Any:
        return module.CacheMiddleware(
            module.CacheMiddleware(app, cache=inside, policy=policy), cache=outside, policy=policy
        )

    site.build(around=around)
    site.page(b"anonymous", etag='"1"')
    site.get()
    site.clock.advance(61)
    site.answers(Script(304, [("ETag", '"1"')]))
    other = module.CacheMiddleware(site._wsgi if site.interface == "wsgi" else site._asgi, cache=inside, policy=policy)
    ask_wsgi(other) if site.interface == "wsgi" else ask_asgi(other)
    site.get()
    assert site.get().hit
    site.page(b"of Bob")
    assert site.get("/", {"Cookie": "session=bob"}).body == b"of Bob"


def test_an_inner_half_without_an_outer_one_does_not_wait_for_a_cache_around_it(site: Site) -> None:
    module, cache = shell(site), store()

    def around(app: Any, interface: str) -> Any:
        return module.CacheMiddleware(module.FetchFromCacheMiddleware(app, cache=cache), cache=cache)

    site.build(around=around)
    waited: list[Any] = []
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("cachemw.flights.Flight.wait", lambda *given: waited.append(given))

        async def await_landing(*given: Any) -> bool:
            waited.append(given)
            return False

        patch.setattr("cachemw.flights.Flight.await_landing", await_landing)
        site.get()
    assert not waited
    assert site.get().hit


@pytest.mark.parametrize("shared", [False, True])
def test_an_inner_half_alone_has_nobody_wait_for_what_is_never_stored(site: Site, shared: bool) -> None:
    """Nor for a stream that never ends, nor in another process."""
    cache: Any = Shared(f"alone-{next(names)}", {}) if shared else store()
    site.build(around=lambda app, interface: shell(site).FetchFromCacheMiddleware(app, cache=cache))
    under_way: list[Any] = []

    def respond(asked: Asked) -> Script:
        under_way.append((flights_of(site.middleware), [key for key in cache._store.entries if key.endswith("L")]))
        return Script()

    site.respond = respond
    for _ in range(2):
        assert site.get().body == b"page"
    assert under_way == [(0, [])] * 2


def test_three_caches_on_one_store_do_not_wait_for_one_another(site: Site) -> None:
    module, cache = shell(site), Shared(f"attacked-between-{next(names)}")

    def around(app: Any, interface: str) -> Any:
        second = module.CacheMiddleware(module.CacheMiddleware(app, cache=cache), cache=cache)
        return module.CacheMiddleware(second, cache=store())

    site.build(around=around)
    paused: list[float] = []
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("cachemw._relay_carriers.time.sleep", paused.append)

        async def pause(seconds: float) -> None:
            paused.append(seconds)

        patch.setattr("cachemw._relay_carriers.TaskRelay._pause", lambda self, seconds: pause(seconds))
        ticks = count()
        patch.setattr("cachemw._relay.time.monotonic", lambda: next(ticks))
        site.get()
    assert not paused


def test_a_page_does_not_inherit_what_was_asked_for_the_one_before(site: Site) -> None:
    """Something outside asks for another page with the same environment: an error's page, say."""
    module = shell(site)

    def around(app: Any, interface: str) -> Any:
        cached = module.CacheMiddleware(app, cache=store())

        def outside(environ: Any, start_response: Any) -> Any:
            result = cached(environ, lambda *head: bool)
            list(result)
            getattr(result, "close", bool)()
            environ["PATH_INFO"] = "/error"
            return cached(environ, start_response)

        async def outside_async(scope: Any, receive: Any, send: Any) -> None:
            await cached(scope, receive, Sent())
            await cached({**scope, "path": "/error", "raw_path": b"/error"}, receive, send)

        return outside if interface == "wsgi" else outside_async

    def view(app: Any) -> Any:
        def respond(environ: Any, start_response: Any) -> Any:
            if environ["PATH_INFO"] == "/":
                environ["cachemw.exchange"].timeout = 3600
            return app(environ, start_response)

        async def respond_async(scope: Any, receive: Any, send: Any) -> None:
            if scope["path"] == "/":
                scope["cachemw.exchange"].timeout = 3600
            await app(scope, receive, send)

        return respond if site.interface == "wsgi" else respond_async

    site.build(around=lambda app, interface: around(view(app), interface))
    site.page(b"old", cache_control="max-age=5")
    site.get()
    site.clock.advance(6)
    site.page(b"new", cache_control="max-age=5")
    assert site.get().body == b"new"
