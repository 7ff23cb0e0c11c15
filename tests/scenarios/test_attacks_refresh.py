"""A background refresh is made for nobody, though it comes of somebody's request, whom others further out may know."""

from __future__ import annotations

import threading
from contextvars import ContextVar
from itertools import count
from typing import Any

import pytest
from starlette.responses import Response as StarletteResponse
from werkzeug.wrappers import Response as WerkzeugResponse

from cachemw import Hooks, Policy, asgi, wsgi
from cachemw.backends.locmem import LocMemCache
from tests.scenarios.conftest import Asked, Clock, Script, Site

names = count()
STALE_A_WHILE = ("Cache-Control", "public, max-age=10, stale-while-revalidate=100")


def knowing(app: Any, interface: str) -> Any:
    """A middleware that reads a cookie, or Authorization, and leaves in the request whose it is."""

    def with_name(environ: Any, start_response: Any) -> Any:
        cookie = environ.get("HTTP_COOKIE", environ.get("HTTP_AUTHORIZATION"))
        return app({**environ, "HTTP_X_WHO": cookie} if cookie else environ, start_response)

    async def with_name_async(scope: Any, receive: Any, send: Any) -> None:
        who = [(b"x-who", value) for name, value in scope["headers"] if name in (b"cookie", b"authorization")]
        await app({**scope, "headers": [*scope["headers"], *who]}, receive, send)

    return with_name if interface == "wsgi" else with_name_async


@pytest.fixture
def greeting(site: Site) -> Site:
    def around(app: Any, interface: str) -> Any:
        module: Any = wsgi if interface == "wsgi" else asgi
        cache = LocMemCache(f"greeting-{next(names)}")
        return knowing(module.CacheMiddleware(app, cache=cache, policy=Policy(request_directives=True)), interface)

    return site.build(around=around)


def refusal(interface: str) -> Any:
    return WerkzeugResponse(status=401) if interface == "wsgi" else StarletteResponse(status_code=401)


def wait_for_refreshes() -> None:
    for thread in threading.enumerate():
        if thread.name == "cachemw-refresh":
            thread.join(5)


@pytest.mark.parametrize("asking", [{}, {"Cache-Control": "max-stale"}])
@pytest.mark.parametrize("field", ["Cookie", "Authorization"])
def test_a_page_of_somebodys_is_not_refreshed_as_one_of_nobodys(
    greeting: Site, clock: Clock, field: str, asking: dict[str, str]
) -> None:
    greeting.respond = lambda asked: Script(
        fields=[STALE_A_WHILE, ("Vary", field)], body=f"hello {asked.fields.get('x-who')}".encode()
    )
    alice = {field: "who=alice", **asking}
    for _ in range(3):
        assert greeting.get(fields=alice).body == b"hello who=alice"
        wait_for_refreshes()
        clock.advance(11)
    assert greeting.get().body == b"hello None"
    clock.advance(11)
    stale = greeting.get()
    assert (stale.body, stale.hit) == (b"hello None", True)
    wait_for_refreshes()
    assert greeting.get()["Age"] == "0"


def test_a_page_that_begins_to_be_somebodys_is_not_stored_by_a_refresh(greeting: Site, clock: Clock) -> None:
    """Many an application says `Vary: Cookie` only where it has found somebody."""

    def respond(asked: Asked) -> Script:
        who = asked.fields.get("x-who") if len(greeting.calls) > 1 else None
        return Script(fields=[STALE_A_WHILE, *([("Vary", "Cookie")] if who else [])], body=f"hello {who}".encode())

    greeting.respond = respond
    assert greeting.get().body == b"hello None"
    clock.advance(11)
    assert greeting.get(fields={"Cookie": "who=alice"}).hit
    wait_for_refreshes()
    assert len(greeting.calls) == 2
    assert greeting.get().body == b"hello None"


def test_a_refresh_brings_nothing_along_that_was_opened_or_found_for_the_visitor(site: Site) -> None:
    """Their teardown closes it while the refresh goes on; and a session without its cookie looks like nobody's."""
    found: list[str] = []

    def around(app: Any, interface: str) -> Any:
        module: Any = wsgi if interface == "wsgi" else asgi
        cached = module.CacheMiddleware(app, cache=LocMemCache(f"visitors-{next(names)}"))

        def with_session(environ: Any, start_response: Any) -> Any:
            found.extend(sorted(name for name in environ if name in ("beaker.session", "SSL_CLIENT_S_DN", "AUTH_TYPE")))
            return app(environ, start_response)

        def opening(environ: Any, start_response: Any) -> Any:
            theirs = {"beaker.session": {"who": "alice"}, "SSL_CLIENT_S_DN": "CN=alice", "AUTH_TYPE": "Basic"}
            return wsgi_cached({**environ, **theirs}, start_response)

        async def with_state(scope: Any, receive: Any, send: Any) -> None:
            found.extend(sorted(name for name in scope if name in ("session", "user", "auth", "extensions")))
            await app(scope, receive, send)

        async def opening_scope(scope: Any, receive: Any, send: Any) -> None:
            await asgi_cached({**scope, "auth": ["admin"], "extensions": {"http.response.push": {}}}, receive, send)

        wsgi_cached = asgi_cached = cached
        cached.app = with_session if interface == "wsgi" else with_state
        return opening if interface == "wsgi" else opening_scope

    site.build(around=around)
    site.page(cache_control="max-age=10, stale-while-revalidate=100")
    site.get()
    assert found, "which the visitor's own request has"
    found.clear()
    site.clock.advance(11)
    assert site.get().hit
    wait_for_refreshes()
    assert len(site.calls) == 2
    assert found == []


def test_a_refresh_runs_under_the_hooks_as_every_request(site: Site) -> None:
    hooks = Hooks()
    ran: list[str] = []
    opened: ContextVar[str] = ContextVar("opened", default="closed")

    @hooks.before_request
    def open_it(request: Any) -> None:
        ran.append("before")
        opened.set("open")

    @hooks.teardown_request
    def close_it(error: BaseException | None) -> None:
        ran.append(f"teardown {error}")

    site.build(hooks=hooks)
    site.respond = lambda asked: Script(fields=[STALE_A_WHILE], body=f"{opened.get()} {len(site.calls)}".encode())
    assert site.get().body == b"open 1"
    site.clock.advance(11)
    ran.clear()
    assert site.get().body == b"open 1"
    wait_for_refreshes()
    assert sorted(ran) == ["before"] * 2 + ["teardown None"] * 2
    fresh = site.get()
    assert (fresh.body, fresh.hit) == (b"open 2", True)


def test_a_hook_that_refuses_nobody_in_particular_leaves_the_stale_page(site: Site) -> None:
    hooks = Hooks()

    @hooks.before_request
    def ask_for_a_name(request: Any) -> Any:
        return None if request.headers.get("authorization") else refusal(site.interface)

    site.build(hooks=hooks)
    site.page(cache_control="public, max-age=10, stale-while-revalidate=100")
    somebody = {"Authorization": "Basic YTpi"}
    site.get(fields=somebody)
    site.clock.advance(11)
    for _ in range(2):
        answer = site.get(fields=somebody)
        assert (answer.status, answer.body, answer.hit) == (200, b"page", True)
        wait_for_refreshes()
    assert len(site.calls) == 1
    assert site.get().status == 401
