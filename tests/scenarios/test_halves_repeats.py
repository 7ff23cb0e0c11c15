"""What is between the halves adds its fields to every response, also to one that was stored with them in it."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import pytest

from cachemw import Policy, asgi, wsgi
from cachemw.backends.locmem import LocMemCache
from tests.scenarios.conftest import Clock, Script, Site

Add = Callable[[list[tuple[str, str]]], list[tuple[str, str]]]


def with_halves(site: Site, add: Add, **options: Any) -> Site:
    """The site between its halves, which have a middleware between them that does this to the fields."""
    options["cache"] = LocMemCache(f"repeats-{site.interface}")
    options["cache"].clear()
    module: Any = wsgi if site.interface == "wsgi" else asgi
    between = _on_wsgi if site.interface == "wsgi" else _on_asgi

    def around(app: Any, interface: str) -> Any:
        inner = module.FetchFromCacheMiddleware(app, **options)
        return module.UpdateCacheMiddleware(between(inner, add), **options)

    return site.build(around=around)


def _on_wsgi(app: Any, add: Add) -> Any:
    def wrapped(environ: Any, start_response: Any) -> Any:
        return app(environ, lambda status, headers, *error: start_response(status, add(headers), *error))

    return wrapped


def _on_asgi(app: Any, add: Add) -> Any:
    async def wrapped(scope: Any, receive: Any, send: Any) -> None:
        async def sending(message: Any) -> None:
            if message["type"] == "http.response.start":
                fields = add([(name.decode("latin-1"), value.decode("latin-1")) for name, value in message["headers"]])
                message = {**message, "headers": [(name.lower().encode(), value.encode()) for name, value in fields]}
            await send(message)

        await app(scope, receive, sending)

    return wrapped


def appending(*more: tuple[str, str]) -> Add:
    return lambda fields: [*fields, *more]


def joining(name: str) -> Add:
    """Vary as Starlette's middlewares add to it."""

    def add(fields: list[tuple[str, str]]) -> list[tuple[str, str]]:
        said = [value for field, value in fields if field.lower() == "vary"]
        return [*[field for field in fields if field[0].lower() != "vary"], ("Vary", ", ".join([*said, name]))]

    return add


CORS = (("Access-Control-Allow-Origin", "*"), ("Link", "</a.css>; rel=preload"), ("Link", "</b.css>; rel=preload"))


@pytest.mark.parametrize(
    ("condition", "status"),
    [({}, 200), ({"If-None-Match": '"v1"'}, 304), ({"Range": "bytes=0-1"}, 206)],
)
def test_a_line_that_is_added_to_every_response_is_not_said_twice(
    site: Site, condition: dict[str, str], status: int
) -> None:
    with_halves(site, appending(*CORS, ("Vary", "Origin"))).page(b"page", ETag='"v1"')
    first = site.get()
    again = site.get("/", condition)
    assert (again.status, again.hit) == (status, True)
    for name in ("Access-Control-Allow-Origin", "Link", "Vary"):
        assert again.lines(name) == first.lines(name)


@pytest.mark.parametrize("vary", [[], [("Vary", "Accept-Encoding")], [("Vary", "Accept-Encoding"), ("Vary", "Cookie")]])
def test_vary_names_a_field_once(site: Site, vary: Sequence[tuple[str, str]]) -> None:
    with_halves(site, joining("Origin")).answers(Script(fields=vary))
    first, again = site.get(), site.get()
    assert again.hit
    assert again.lines("Vary") == first.lines("Vary")


def test_a_line_that_the_application_says_twice_is_said_twice(site: Site) -> None:
    links = [("Link", "<a>"), ("Link", "<a>"), ("Link", "<b>")]
    with_halves(site, appending(("Link", "<b>"))).answers(Script(fields=links))
    assert site.get().lines("Link") == site.get().lines("Link") == ["<a>", "<a>", "<b>", "<b>"]


def test_what_is_different_each_time_is_added(site: Site) -> None:
    numbers = iter("12")
    with_halves(site, lambda fields: [*fields, ("X-Number", next(numbers))]).page()
    assert site.get().lines("X-Number") == ["1"]
    assert site.get().lines("X-Number") == ["1", "2"]


def test_a_validated_page_does_not_grow(site: Site, clock: Clock) -> None:
    with_halves(site, joining("Origin"), policy=Policy()).answers(
        Script(fields=[("ETag", '"v1"'), ("Cache-Control", "max-age=9")]), Script(304, [("ETag", '"v1"')], b"")
    )
    for _ in range(4):
        assert site.get().lines("Vary") == ["Origin"]
        clock.advance(10)
