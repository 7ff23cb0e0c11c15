"""What an operation of FastAPI declares that it reads is what its page depends on, whether or not it says Vary."""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterator
from types import SimpleNamespace
from typing import Annotated, Any

import pytest
from fastapi import APIRouter, Cookie, Depends, FastAPI, Header, Request, Response, Security
from fastapi.security import APIKeyCookie, APIKeyHeader, APIKeyQuery, OAuth2PasswordBearer
from pydantic import BaseModel, Field
from starlette.requests import HTTPConnection
from starlette.testclient import TestClient

from cachemw._asgi.declared import declared
from cachemw.backends.locmem import LocMemCache
from cachemw.integrations.fastapi import CachedRoute, CacheMiddleware, cache_page, page


class Client(BaseModel):
    x_member: str = ""
    device: str = Field("", alias="X-Device")


Named = Annotated[str, Header(alias="X-Member")]
Said = Annotated[str, Cookie()]


def by_header(x_member: Annotated[str, Header()] = "") -> str:
    return x_member


def by_alias(name: Named = "") -> str:
    return name


def by_cookie(member: Said = "") -> str:
    return member


def by_model(client: Annotated[Client, Header()]) -> str:
    return client.x_member + client.device


def by_dependency(name: Annotated[str, Depends(by_header)]) -> str:
    return name


def by_key(name: Annotated[str, Security(APIKeyHeader(name="X-Member", auto_error=False))]) -> str:
    return name or ""


def by_key_in_a_cookie(name: Annotated[str, Security(APIKeyCookie(name="member", auto_error=False))]) -> str:
    return name or ""


WAYS = [
    (by_header, "X-Member", ""),
    (by_alias, "X-Member", ""),
    (by_cookie, "Cookie", "member="),
    (by_model, "X-Member", ""),
    (by_model, "X-Device", ""),
    (by_dependency, "X-Member", ""),
    (by_key, "X-Member", ""),
    (by_key_in_a_cookie, "Cookie", "member="),
]


@pytest.mark.parametrize("whole_site", [False, True])
@pytest.mark.parametrize("is_async", [False, True])
def test_an_operation_that_asks_the_request_for_cookies_has_declared_nothing_and_is_noticed(
    whole_site: bool, is_async: bool
) -> None:
    app = FastAPI()
    store = LocMemCache(f"cookies {whole_site} {is_async}")

    def greet(request: Request) -> str:
        return f"hello {request.cookies['member']}"

    async def greet_async(request: Request) -> str:
        return greet(request)

    app.get("/")(cache_page(60, cache=store)(greet_async if is_async else greet))
    app.get("/all")(cache_page(60, cache=store)(lambda: "hello"))
    if whole_site:
        app.add_middleware(CacheMiddleware, cache=store)
    client = TestClient(app)
    for name in ("alice", "bob"):
        answers = [client.get("/", headers={"Cookie": f"member={name}"}) for _ in range(2)]
        assert [answer.json() for answer in answers] == [f"hello {name}"] * 2
        assert "; hit" in answers[1].headers["Cache-Status"]
        assert "Vary" not in client.get("/all", headers={"Cookie": f"member={name}"}).headers


class BearerInCookie(OAuth2PasswordBearer):
    """As many guides have it."""

    async def __call__(self, request: HTTPConnection) -> str | None:
        return request.cookies.get("access_token")


def member(request: Request) -> str | None:
    return request.cookies.get("access_token")


def customer(connection: HTTPConnection) -> str | None:
    return connection.cookies.get("access_token")


def through_another(who: Annotated[str | None, Depends(member)]) -> str | None:
    return who


@pytest.mark.parametrize("placed", ["decorator", "dependency", "on a site"])
@pytest.mark.parametrize("asked", [member, customer, through_another, BearerInCookie("token")])
def test_who_asks_the_request_before_the_operation_does_asks_for_its_cookies(asked: Any, placed: str) -> None:
    """Dependencies have run before the page is looked up, and FastAPI itself has parsed the cookies by then."""
    app, store = FastAPI(), LocMemCache(f"asked {asked} {placed}")

    def greet(who: str | None = Depends(asked)) -> str:
        return f"hello {who}"

    if placed == "dependency":
        app.get("/", dependencies=[Depends(page(60, cache=store))])(greet)
    else:
        app.get("/")(cache_page(60, cache=store)(greet))
    if placed == "on a site":
        app.add_middleware(CacheMiddleware, cache=store)
    client = TestClient(app)
    for _ in range(2):
        for name in ("alice", "bob", "None"):
            answer = client.get("/", headers={"Cookie": f"access_token={name}"} if name != "None" else {})
            assert answer.json() == f"hello {name}"
            assert answer.headers["Vary"] == "Cookie"
    assert "; hit" in answer.headers["Cache-Status"]


def in_a_table(request: Request, *, key: str = "page") -> Any:
    return request.app.state.pages[request.query_params.get(key, request.url.path)]


def for_a_while(connection: HTTPConnection) -> Iterator[str]:
    yield connection.app.state.pages["/"]


async def in_a_task(request: Request) -> Any:
    return await get_pages(1, request.app)


async def get_pages(number: int, app: Any) -> Any:
    return app.state.pages["/"]


class Site:
    def page(self, request: Request) -> Any:
        return request.app.state.pages["/"]


def in_its_state(request: Request) -> Any:
    request.state.name = request.cookies.get("access_token")
    return "page"


def by_another_name(request: Request) -> Any:
    asked = request
    return asked.cookies.get("page", "page")


def by_another_function(request: Request) -> Any:
    return member(request) or "page"


def by_a_function_within(request: Request) -> Any:
    def ask() -> str:
        return request.cookies.get("page", "page")

    return ask()


@functools.wraps(in_a_table)
def decorated(*args: Any, **kwargs: Any) -> Any:
    return in_a_table(*args, **kwargs)


def bound_anew(request: Any, other: str = "") -> Any:
    request = request.app if other else request
    return "page"


bound_anew.__annotations__["request"] = Request


@pytest.mark.parametrize("asked", [in_a_table, for_a_while, in_a_task, Site().page])
def test_who_asks_for_the_application_alone_asks_for_no_cookies(asked: Any) -> None:
    client = TestClient(depending_on(asked))
    assert client.get("/", headers={"Cookie": "_ga=1"}).json() == "page"
    answer = client.get("/", headers={"Cookie": "_ga=2"})
    assert "; hit" in answer.headers["Cache-Status"]
    assert "Vary" not in answer.headers


@pytest.mark.parametrize(
    "asked", [in_its_state, by_another_name, by_another_function, by_a_function_within, decorated, bound_anew]
)
def test_who_may_ask_for_more_is_taken_to_ask_for_cookies(asked: Any) -> None:
    assert TestClient(depending_on(asked)).get("/").headers["Vary"] == "Cookie"


def depending_on(asked: Any) -> FastAPI:
    app = FastAPI()
    app.state.pages = {"/": "page"}

    def operation(given: str = Depends(asked)) -> str:
        return given

    app.get("/")(cache_page(60, cache=LocMemCache(f"depending on {asked}"))(operation))
    return app


def site_wide(way: Callable[..., str], store: LocMemCache) -> FastAPI:
    app = FastAPI()
    app.add_middleware(CacheMiddleware, cache=store)
    app.get("/")(way)
    return app


def one_view(way: Callable[..., str], store: LocMemCache) -> FastAPI:
    app = FastAPI()
    app.get("/")(cache_page(60, cache=store)(way))
    return app


def one_view_on_a_site(way: Callable[..., str], store: LocMemCache) -> FastAPI:
    app = FastAPI()
    app.add_middleware(CacheMiddleware, cache=store)
    app.get("/")(cache_page(60, cache=store)(way))
    return app


def a_router(way: Callable[..., str], store: LocMemCache) -> FastAPI:
    router = APIRouter(route_class=CachedRoute, dependencies=[Depends(page(60, cache=store))])
    router.get("/")(way)
    app = FastAPI()
    app.include_router(router)
    return app


def hello(response: Any) -> str:
    return str(response.headers.get("X-Hello", response.text.strip('"')))


@pytest.mark.parametrize("make", [site_wide, one_view, one_view_on_a_site, a_router])
@pytest.mark.parametrize(("way", "field", "before"), WAYS)
def test_who_says_another_thing_is_shown_another_page(
    make: Callable[..., FastAPI], way: Callable[..., str], field: str, before: str
) -> None:
    client = TestClient(make(way, LocMemCache(f"declared-{make.__name__}-{way.__name__}-{field}")))
    for _ in range(2):
        for name in ("Alice", "Bob", ""):
            response = client.get("/", headers={field: before + name} if name else {})
            assert hello(response) == name
            assert field in response.headers["Vary"].split(", ")
    assert "; hit" in response.headers["Cache-Status"]


@pytest.mark.parametrize(("way", "field", "before"), WAYS)
def test_what_dependencies_of_a_router_read_counts_too(way: Callable[..., str], field: str, before: str) -> None:
    store = LocMemCache(f"declared-router-{way.__name__}-{field}")
    app = FastAPI()
    app.add_middleware(CacheMiddleware, cache=store)

    def leave(response: Response, name: str = Depends(way)) -> None:
        response.headers["X-Hello"] = name

    router = APIRouter(dependencies=[Depends(leave)])

    @router.get("/")
    def nothing_of_its_own() -> str:
        return ""

    app.include_router(router)
    client = TestClient(app)
    for name in ("Alice", "Bob", ""):
        assert hello(client.get("/", headers={field: before + name} if name else {})) == name


def test_a_key_is_asked_for_each_time() -> None:
    app = FastAPI()
    app.add_middleware(CacheMiddleware, cache=LocMemCache("declared-guard"))

    @app.get("/")
    def guarded(key: Annotated[str, Security(APIKeyHeader(name="X-Customer"))]) -> str:
        return "for customers"

    client = TestClient(app)
    assert client.get("/", headers={"X-Customer": "7"}).status_code == 200
    assert client.get("/").status_code in (401, 403)
    assert "; hit" in client.get("/", headers={"X-Customer": "7"}).headers["Cache-Status"]


def test_what_makes_no_other_page_or_has_rules_of_its_own_is_not_varied_on() -> None:
    app = FastAPI()
    app.add_middleware(CacheMiddleware, cache=LocMemCache("declared-besides"))

    @app.get("/")
    def traced(
        x_request_id: Annotated[str, Header()] = "",
        if_none_match: Annotated[str, Header()] = "",
        odd: Annotated[str, Header(alias="no token")] = "",
        key: Annotated[str | None, Security(APIKeyQuery(name="key", auto_error=False))] = None,
        token: Annotated[str | None, Security(OAuth2PasswordBearer("token", auto_error=False))] = None,
    ) -> str:
        return "the same for all"

    client = TestClient(app)
    assert "Vary" not in client.get("/", headers={"X-Request-Id": "1"}).headers
    assert "; hit" in client.get("/", headers={"X-Request-Id": "2"}).headers["Cache-Status"]
    assert "authorization" in client.get("/?key=7", headers={"Authorization": "Bearer a"}).headers["Cache-Status"]


def test_a_page_that_says_vary_itself_says_it_once() -> None:
    app = FastAPI()
    app.add_middleware(CacheMiddleware, cache=LocMemCache("declared-said"))

    @app.get("/")
    def polite(response: Response, x_member: Annotated[str, Header()] = "") -> str:
        response.headers["Vary"] = "Accept, x-member"
        return x_member

    assert TestClient(app).get("/", headers={"X-Member": "Alice"}).headers["Vary"] == "Accept, x-member"


@pytest.mark.parametrize(
    "scope", [{}, {"route": SimpleNamespace(path="/")}, {"route": SimpleNamespace(dependant=7)}, {"fastapi": None}]
)
def test_other_routes_declare_nothing(scope: dict[str, Any]) -> None:
    assert declared(scope) == ()
