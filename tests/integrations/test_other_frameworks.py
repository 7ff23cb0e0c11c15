"""Quart, Litestar, Falcon, Bottle and Pyramid: the plain middleware around an application is all that they need.

Each application has a page, a page that says how long it may be kept, and a form whose POST changes the page. What the
cache does has to be the same in all of them.
"""

from __future__ import annotations

import asyncio
import itertools
from collections.abc import Callable
from typing import Annotated, Any

import httpx
import pytest
from litestar import Response as LitestarResponse
from litestar.di import NamedDependency, Provide
from litestar.params import CookieParameter, FromHeader, HeaderParameter
from werkzeug.test import Client

from cachemw import CacheMiddleware, Rule, cache_control, cache_page
from cachemw.backends.locmem import LocMemCache
from tests.integrations.conftest import Counter

Ask = Callable[..., tuple[int, dict[str, str], str]]


def quart_application(page: Counter) -> Any:
    from quart import Quart, Response

    app = Quart(__name__)

    @app.get("/")
    async def home() -> str:
        return page()

    @app.get("/short")
    @cache_control(max_age=5)
    async def short() -> Response:
        return Response(page())

    @app.post("/")
    async def change() -> str:
        return "changed"

    return app


def litestar_application(page: Counter) -> Any:
    from litestar import Litestar, MediaType, get, post

    @get("/", media_type=MediaType.TEXT)
    async def home() -> str:
        return page()

    @get("/short")
    async def short() -> LitestarResponse[str]:
        return LitestarResponse(page(), media_type=MediaType.TEXT, headers={"Cache-Control": "max-age=5"})

    @post("/", media_type=MediaType.TEXT)
    async def change() -> str:
        return "changed"

    return Litestar([home, short, change])


def _falcon_resources(page: Counter, coroutine: bool) -> dict[str, Any]:
    def home(request: Any, response: Any) -> None:
        response.text = page()

    def short(request: Any, response: Any) -> None:
        response.text = page()
        response.cache_control = ["max-age=5"]

    def change(request: Any, response: Any) -> None:
        response.text = "changed"

    def of_kind(function: Any) -> Any:
        async def in_task(self: Any, request: Any, response: Any) -> None:
            function(request, response)

        return in_task if coroutine else lambda self, request, response: function(request, response)

    home_resource = type("Home", (), {"on_get": of_kind(home), "on_post": of_kind(change)})()
    return {"/": home_resource, "/short": type("Short", (), {"on_get": of_kind(short)})()}


def falcon_application(page: Counter) -> Any:
    import falcon

    app = falcon.App()
    for path, resource in _falcon_resources(page, coroutine=False).items():
        app.add_route(path, resource)
    return app


def falcon_asgi_application(page: Counter) -> Any:
    import falcon.asgi

    app: Any = falcon.asgi.App()
    for path, resource in _falcon_resources(page, coroutine=True).items():
        app.add_route(path, resource)
    return app


def bottle_application(page: Counter) -> Any:
    import bottle  # type: ignore[import-untyped]

    app = bottle.Bottle()

    @app.get("/")  # type: ignore[untyped-decorator]
    def home() -> str:
        return page()

    @app.get("/short")  # type: ignore[untyped-decorator]
    def short() -> str:
        bottle.response.set_header("Cache-Control", "max-age=5")
        return page()

    @app.post("/")  # type: ignore[untyped-decorator]
    def change() -> str:
        return "changed"

    return app


def pyramid_application(page: Counter) -> Any:
    from pyramid.config import Configurator  # type: ignore[import-untyped]
    from pyramid.response import Response  # type: ignore[import-untyped]

    def short(request: Any) -> Any:
        return Response(page())

    with Configurator() as config:
        config.add_route("home", "/")
        config.add_route("short", "/short")
        config.add_view(lambda request: Response(page()), route_name="home", request_method="GET")
        config.add_view(lambda request: Response("changed"), route_name="home", request_method="POST")
        config.add_view(short, route_name="short", decorator=cache_control(max_age=5))
        return config.make_wsgi_app()


WSGI = {"falcon": falcon_application, "bottle": bottle_application, "pyramid": pyramid_application}
ASGI = {"quart": quart_application, "litestar": litestar_application, "falcon-asgi": falcon_asgi_application}
_numbers = itertools.count()


def asker(name: str, app: Any) -> Ask:
    if name in WSGI:
        client = Client(app)

        def ask(path: str, method: str = "GET", **headers: str) -> tuple[int, dict[str, str], str]:
            response = client.open(path, method=method, headers=headers, buffered=True)
            return response.status_code, {n.lower(): v for n, v in response.headers.items()}, response.text

    else:

        def ask(path: str, method: str = "GET", **headers: str) -> tuple[int, dict[str, str], str]:
            async def once() -> httpx.Response:
                transport = httpx.ASGITransport(app)
                async with httpx.AsyncClient(transport=transport, base_url="http://testserver") as http:
                    return await http.request(method, path, headers=headers)

            response = asyncio.run(once())
            return response.status_code, dict(response.headers), response.text

    return ask


@pytest.mark.filterwarnings("ignore::DeprecationWarning")  # of the frameworks' own
@pytest.mark.filterwarnings("ignore::UserWarning")  # pyramid imports pkg_resources
@pytest.mark.parametrize("name", [*WSGI, *ASGI])
class TestFramework:
    def make(self, name: str, page: Counter, **options: Any) -> Ask:
        bare = (WSGI | ASGI)[name](page)
        store = LocMemCache(f"framework-{name}-{next(_numbers)}", {})
        return asker(name, CacheMiddleware(bare, cache=store, **options))

    def test_a_page_is_stored_and_head_answered_from_it(self, name: str, page: Counter) -> None:
        ask = self.make(name, page)
        (status, _, text), (again, headers, same) = ask("/"), ask("/")
        assert (status, again) == (200, 200)
        assert text == same == "page 1"
        assert "; hit" in headers["cache-status"]
        assert headers["cache-control"] == "max-age=600"
        assert ask("/", "HEAD")[1]["content-length"] == "6"
        assert ask("/?other")[2] == "page 2"

    def test_what_the_response_says_of_its_lifetime_counts(self, name: str, page: Counter) -> None:
        ask = self.make(name, page)
        assert ask("/short")[1]["cache-control"] == "max-age=5"
        assert "ttl=5" in ask("/short")[1]["cache-status"]

    def test_a_post_invalidates_the_page(self, name: str, page: Counter) -> None:
        ask = self.make(name, page)
        ask("/")
        assert ask("/", "POST")[2] == "changed"
        assert ask("/")[2] == "page 2"

    def test_an_error_is_the_frameworks_own(self, name: str, page: Counter) -> None:
        ask = self.make(name, page)
        assert [ask("/missing")[0] for _ in range(2)] == [404, 404]

    def test_rules_from_outside(self, name: str, page: Counter) -> None:
        ask = self.make(name, page, rules=[Rule("/", never=True), Rule("/*", lifetime=60)])
        assert ask("/")[2] != ask("/")[2]
        ask("/short")
        assert "ttl=60" in ask("/short")[1]["cache-status"]

    def test_cache_page_around_the_whole_application(self, name: str, page: Counter) -> None:
        app = cache_page(60, cache=f"locmem://framework-{name}-{next(_numbers)}")((WSGI | ASGI)[name](page))
        ask = asker(name, app)
        ask("/short")
        assert "ttl=60" in ask("/short")[1]["cache-status"]
        assert page.calls == 1


# -- what a handler of Litestar declares that it reads ----------------------------------------------------------------


def _litestar_ways() -> dict[str, Any]:
    from litestar import MediaType, Router, get

    def who(name: Annotated[str, HeaderParameter(name="X-Member")] = "") -> str:
        return name

    def whose(who: NamedDependency[str]) -> str:
        return who

    def handler(path: str, function: Any, **options: Any) -> Any:
        return get(path, media_type=MediaType.TEXT, sync_to_thread=False, **options)(function)

    def by_header(name: Annotated[str, HeaderParameter(name="X-Member")] = "") -> str:
        return name

    def by_name(member: FromHeader[str] = "") -> str:
        return member

    def by_cookie(name: Annotated[str, CookieParameter(name="member")] = "") -> str:
        return name

    def by_dependency(whose: NamedDependency[str]) -> str:
        return whose

    def by_router(name: str) -> str:
        return name

    provided = {"who": Provide(who, sync_to_thread=False), "whose": Provide(whose, sync_to_thread=False)}
    above = {"name": HeaderParameter(name="X-Member", annotation=str, default="", required=False)}
    return {
        "header": handler("/", by_header),
        "name": handler("/", by_name),
        "cookie": handler("/", by_cookie),
        "dependency": handler("/", by_dependency, dependencies=provided),
        "router": Router("/", route_handlers=[handler("/", by_router)], parameters=above),
    }


@pytest.mark.parametrize("way", ["header", "name", "cookie", "dependency", "router"])
def test_a_page_of_litestar_depends_on_what_its_handler_declares_to_read(way: str) -> None:
    from litestar import Litestar

    site = CacheMiddleware(Litestar([_litestar_ways()[way]]), cache=LocMemCache(f"litestar-declared-{way}"))
    field, before = ("Cookie", "member=") if way.startswith("cookie") else ("X-Member", "")
    field = "Member" if way == "name" else field

    async def ask(name: str) -> httpx.Response:
        async with httpx.AsyncClient(transport=httpx.ASGITransport(site), base_url="http://example.org") as client:
            return await client.get("/", headers={field: before + name} if name else {})

    for _ in range(2):
        for name in ("Alice", "Bob", ""):
            response = asyncio.run(ask(name))
            assert response.text == name
            assert response.headers["Vary"] == field
    assert "; hit" in response.headers["Cache-Status"]
