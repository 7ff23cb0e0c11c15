"""A background refresh is made for nobody, though it comes of somebody's request, whom others further out may know."""

from __future__ import annotations

import threading
from typing import Any

import pytest

from cachemw import Policy, asgi, wsgi
from cachemw.backends.locmem import LocMemCache
from tests.scenarios.conftest import Asked, Clock, Script, Site

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
        cache = LocMemCache(f"greeting-{id(site)}")
        return knowing(module.CacheMiddleware(app, cache=cache, policy=Policy(request_directives=True)), interface)

    return site.build(around=around)


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
