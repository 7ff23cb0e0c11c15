"""The decorators on FastAPI's path operations, and `Depends(page(60))`."""

import asyncio
from collections.abc import AsyncIterator, Iterator
from typing import Annotated, Any

import pytest
from fastapi import (
    APIRouter,
    BackgroundTasks,
    Cookie,
    Depends,
    FastAPI,
    Header,
    HTTPException,
    Query,
    Request,
    Response,
    WebSocket,
)
from fastapi.responses import HTMLResponse, PlainTextResponse, StreamingResponse
from fastapi.testclient import TestClient
from pydantic import BaseModel, Field

from cachemw import ImproperlyConfigured
from cachemw import cache_page as cache_page_of_views
from cachemw.backends.base import BaseCache
from cachemw.backends.locmem import LocMemCache
from cachemw.integrations.fastapi import (
    CachedRoute,
    CacheMiddleware,
    apurge,
    cache_control,
    cache_page,
    conditional,
    lifespan,
    never_cache,
    vary_on_cookie,
    vary_on_headers,
)
from cachemw.integrations.fastapi import (
    page as page_for,
)
from tests.integrations.conftest import Counter, Visitor
from tests.scenarios.conftest import Clock


class Item(BaseModel):
    name: str
    price: float = 1
    secret: str = Field(default="hidden", exclude=True)


class PublicItem(BaseModel):
    title: str = Field(alias="Title")


def is_hit(response: Any) -> bool:
    return "; hit" in response.headers.get("Cache-Status", "")


@pytest.fixture(params=["coroutine", "function"])
def kind(request: pytest.FixtureRequest) -> str:
    return str(request.param)


# -- what FastAPI does stays what it is -------------------------------------------------------------------------------


def operations(app: FastAPI, kind: str, cached: Any, page: Counter) -> None:
    """The same operations, of either kind, decorated or not."""

    def item(item_id: int, q: Annotated[str | None, Query(max_length=5)] = None) -> Item:
        """One item."""
        return Item(name=f"{item_id} {q} {page()}")

    async def item_in_task(item_id: int, q: Annotated[str | None, Query(max_length=5)] = None) -> Item:
        """One item."""
        await asyncio.sleep(0)
        return Item(name=f"{item_id} {q} {page()}")

    async def renamed() -> dict[str, str]:
        return {"Title": page(), "more": "than the model has"}

    def created(response: Response) -> str:
        response.headers["X-Page"] = page()
        return response.headers["X-Page"]

    async def anything(**more: str) -> list[str]:
        return [page()]

    plain = item if kind == "function" else item_in_task
    app.get("/items/{item_id}", name="item")(cached(plain))
    app.get("/renamed", response_model=PublicItem, response_model_exclude_unset=True)(cached(renamed))
    app.get("/created", response_class=HTMLResponse)(cached(created))
    app.get("/text", response_class=PlainTextResponse)(cached(lambda: page()))


def test_answers_are_those_without_the_decorator(kind: str) -> None:
    bare, cached = FastAPI(), FastAPI()
    operations(bare, kind, lambda operation: operation, Counter())
    operations(cached, kind, cache_page(60), Counter())
    for path in ("/items/7?q=abc", "/renamed", "/created", "/text", "/items/7?q=too-long", "/items/x", "/missing"):
        expected = TestClient(bare).get(path)
        answers = [TestClient(cached).get(path) for _ in range(2)]
        for answer in answers:
            assert (answer.status_code, answer.text) == (expected.status_code, expected.text)
            assert answer.headers.get("Content-Type") == expected.headers.get("Content-Type")
        assert is_hit(answers[1]) is (expected.status_code == 200)


def test_the_openapi_document_is_the_same(kind: str) -> None:
    bare, cached = FastAPI(), FastAPI()
    operations(bare, kind, lambda operation: operation, Counter())
    operations(cached, kind, lambda operation: cache_page(60)(vary_on_cookie(operation)), Counter())
    assert cached.openapi() == bare.openapi()


def test_what_the_operation_sets_is_stored(page: Counter) -> None:
    app = FastAPI()

    @app.get("/")
    @cache_page(60)
    async def view(response: Response) -> dict[str, str]:
        response.headers["X-Page"] = page()
        response.status_code = 200
        return {"page": response.headers["X-Page"]}

    client = TestClient(app)
    assert client.get("/").headers["X-Page"] == client.get("/").headers["X-Page"] == "page 1"


def test_what_a_dependency_sets_goes_to_this_client_and_is_not_stored(kind: str, page: Counter) -> None:
    app = FastAPI()
    visits = Counter()

    async def visit(response: Response) -> None:
        response.headers["X-Visit"] = visits()
        response.set_cookie("visit", visits())

    def view(response: Response, visit: Annotated[None, Depends(visit)]) -> dict[str, str]:
        response.headers["X-Own"] = "yes"
        return {"page": page()}

    async def view_in_task(response: Response, visit: Annotated[None, Depends(visit)]) -> dict[str, str]:
        return view(response, visit)

    app.get("/")(cache_page(60)(view if kind == "function" else view_in_task))
    client = TestClient(app)
    answers = [client.get("/") for _ in range(3)]
    assert [answer.headers.get_list("X-Visit") for answer in answers] == [["page 1"], ["page 3"], ["page 5"]]
    assert all(answer.cookies for answer in answers)
    assert [answer.headers.get_list("X-Own") for answer in answers] == [["yes"]] * 3
    assert is_hit(answers[2])
    assert page.calls == 1


def test_an_operation_that_changes_what_a_dependency_set(page: Counter) -> None:
    app = FastAPI()

    async def before(response: Response) -> None:
        response.headers["X-Said"] = "by the dependency"

    @app.get("/", dependencies=[Depends(before)])
    @cache_page(60)
    async def view(response: Response) -> dict[str, str]:
        response.headers["X-Said"] = "by the operation"
        return {"page": page()}

    assert TestClient(app).get("/").headers.get_list("X-Said") == ["by the operation"]


def test_a_dependency_guards_stored_pages(kind: str, page: Counter) -> None:
    app = FastAPI()

    async def key(x_key: Annotated[str | None, Header()] = None) -> None:
        if x_key != "right":
            raise HTTPException(403)

    def view() -> dict[str, str]:
        return {"page": page()}

    async def view_in_task() -> dict[str, str]:
        return view()

    app.get("/", dependencies=[Depends(key)])(cache_page(60)(view if kind == "function" else view_in_task))
    client = TestClient(app)
    assert client.get("/", headers={"X-Key": "right"}).json() == {"page": "page 1"}
    assert is_hit(client.get("/", headers={"X-Key": "right"}))
    assert client.get("/").status_code == 403


def test_dependencies_with_an_end_last_as_long_as_the_operation(page: Counter) -> None:
    app = FastAPI()
    order: list[str] = []

    async def connection() -> AsyncIterator[str]:
        order.append("open")
        yield "connected"
        order.append("close")

    @app.get("/")
    @cache_page(60)
    async def view(connection: Annotated[str, Depends(connection)]) -> str:
        order.append(connection)
        return page()

    client = TestClient(app)
    client.get("/")
    assert order == ["open", "connected", "close"]
    assert is_hit(client.get("/"))


def test_background_tasks_run_for_each_call_of_the_operation(page: Counter) -> None:
    app = FastAPI()
    ran: list[int] = []

    @app.get("/")
    @cache_page(60)
    async def view(tasks: BackgroundTasks) -> str:
        tasks.add_task(ran.append, 1)
        return page()

    client = TestClient(app)
    client.get("/")
    assert is_hit(client.get("/"))
    assert ran == [1]


def test_a_response_of_the_operations_own_and_a_stream(page: Counter) -> None:
    app = FastAPI()

    @app.get("/own")
    @cache_page(60)
    async def own() -> Response:
        return PlainTextResponse(page(), headers={"X-Own": "yes"})

    @app.get("/stream")
    @cache_page(60)
    async def stream() -> StreamingResponse:
        async def parts() -> AsyncIterator[str]:
            yield page()
            yield " and more"

        return StreamingResponse(parts())

    client = TestClient(app)
    for path in ("/own", "/stream"):
        assert client.get(path).text == client.get(path).text
        assert is_hit(client.get(path))


def test_an_error_about_the_value_names_the_operation(page: Counter) -> None:
    from fastapi.exceptions import ResponseValidationError

    app = FastAPI()

    @app.get("/", response_model=Item)
    @cache_page(60)
    async def broken_operation() -> Any:
        return {"no": page()}

    with pytest.raises(ResponseValidationError, match="broken_operation"):
        TestClient(app).get("/")
    with pytest.raises(ResponseValidationError):
        TestClient(app).get("/")
    assert page.calls == 2


@pytest.mark.parametrize("status", [204, 404])
def test_a_status_that_is_not_stored(page: Counter, status: int) -> None:
    app = FastAPI()

    @app.get("/", status_code=status)
    @cache_page(60)
    async def view() -> None:
        page()

    assert [TestClient(app).get("/").status_code for _ in range(2)] == [status, status]
    assert page.calls == 2


def test_in_an_included_router(page: Counter) -> None:
    app, router = FastAPI(), APIRouter()

    @router.get("/{number}")
    @cache_page(60)
    async def view(number: int) -> Any:
        return f"{number} {page()}"

    app.include_router(router, prefix="/a", default_response_class=PlainTextResponse)
    app.include_router(router, prefix="/b")
    client = TestClient(app)
    for path in ("/b/1", "/a/2", "/b/2"):  # one operation, at two places that answer in different ways
        assert client.get(path).text == client.get(path).text
    assert client.get("/a/2").headers["Content-Type"].startswith("text/plain")
    assert client.get("/b/2").headers["Content-Type"] == "application/json"


def test_an_included_operation_with_its_model(page: Counter) -> None:
    app, router = FastAPI(), APIRouter()

    @router.get("/{number}")
    @cache_page(60)
    async def view(number: int) -> PublicItem:
        return PublicItem(Title=f"{number} {page()}")

    app.include_router(router, prefix="/b")
    client = TestClient(app)
    assert client.get("/b/1").json() == client.get("/b/1").json() == {"Title": "1 page 1"}
    assert client.get("/b/2").json() == {"Title": "2 page 2"}


def test_a_stale_answer_stands_in_for_an_operation_that_fails(kind: str, page: Counter, clock: Clock) -> None:
    app = FastAPI()

    def view(response: Response) -> str:
        response.headers["Cache-Control"] = "stale-if-error=300"
        if page() != "page 1":
            raise OSError("the database is gone")
        return "well"

    async def view_in_task(response: Response) -> str:
        return view(response)

    app.get("/")(cache_page(60)(view if kind == "function" else view_in_task))
    client = TestClient(app)
    assert client.get("/").json() == "well"
    clock.advance(61)
    assert client.get("/").json() == "well"
    clock.advance(1000)
    with pytest.raises(OSError, match="the database is gone"):
        client.get("/")


@pytest.mark.parametrize("by", ["decorator", "dependency"])
def test_a_stale_answer_is_served_while_the_application_makes_a_new_one(
    kind: str, by: str, page: Counter, clock: Clock
) -> None:
    """Whole: an operation's dependencies are asked again, as nobody in particular asks them."""
    app, router = FastAPI(), APIRouter()
    users: list[str | None] = []

    def user(authorization: Annotated[str | None, Header()] = None) -> str | None:
        users.append(authorization)
        return authorization

    def view(number: int, response: Response, user: Annotated[str | None, Depends(user)]) -> str:
        response.headers["Cache-Control"] = "public, stale-while-revalidate=300"
        return f"{number} {page()} for {user}"

    async def view_in_task(number: int, response: Response, user: Annotated[str | None, Depends(user)]) -> str:
        return view(number, response, user)

    operation = view if kind == "function" else view_in_task
    if by == "decorator":
        router.get("/{number}")(cache_page(60)(operation))
    else:
        router.get("/{number}", dependencies=[Depends(page_for(60))])(operation)
    app.include_router(router, prefix="/items")
    visitor = Visitor(app)
    assert visitor.get("/items/7")[0].json() == "7 page 1 for None"
    clock.advance(61)
    answers = [one.json() for one in visitor.get("/items/7", "/items/7", authorization="Basic eDp5")]
    assert answers == ["7 page 1 for None", "7 page 2 for None"]
    assert users == [None, "Basic eDp5", None, "Basic eDp5"]


# -- headers ----------------------------------------------------------------------------------------------------------


def test_header_decorators_in_any_number(kind: str, page: Counter) -> None:
    app = FastAPI()

    def view(x_kind: Annotated[str | None, Header()] = None) -> dict[str, str]:
        return {"page": page()}

    async def view_in_task(x_kind: Annotated[str | None, Header()] = None) -> dict[str, str]:
        return view()

    decorated = cache_control(public=True, stale_if_error=30)(
        vary_on_headers("X-Kind")(vary_on_cookie(view if kind == "function" else view_in_task))
    )
    app.get("/")(decorated)
    app.get("/cached")(cache_page(60)(decorated))
    client = TestClient(app)
    response = client.get("/")
    assert response.headers["Vary"] == "Cookie, X-Kind"
    assert set(response.headers["Cache-Control"].split(", ")) == {"public", "stale-if-error=30"}
    client.get("/cached", headers={"X-Kind": "a"})
    assert is_hit(client.get("/cached", headers={"X-Kind": "a"}))
    assert not is_hit(client.get("/cached", headers={"X-Kind": "b"}))


def test_never_cache_on_a_value_and_on_a_response(page: Counter) -> None:
    app = FastAPI()

    @app.get("/value")
    @cache_page(60)
    @never_cache
    async def value() -> str:
        return page()

    @app.get("/response")
    @never_cache
    def response() -> Response:
        return PlainTextResponse(page())

    client = TestClient(app)
    for path in ("/value", "/response"):
        assert client.get(path).text != client.get(path).text
        assert "no-store" in client.get(path).headers["Cache-Control"]


# -- with a cache around the application ------------------------------------------------------------------------------


def test_under_the_sites_cache_an_operation_only_says_how_long(
    kind: str, page: Counter, store: LocMemCache, clock: Clock
) -> None:
    app = FastAPI(lifespan=lifespan())
    app.add_middleware(CacheMiddleware, cache=store, seconds=600)

    def view() -> str:
        return page()

    async def view_in_task() -> str:
        return page()

    app.get("/")(cache_page(10)(view if kind == "function" else view_in_task))
    with TestClient(app) as client:
        assert client.get("/").headers["Cache-Status"].count("cachemw") == 1
        assert is_hit(client.get("/"))
        clock.advance(11)
        assert client.get("/").json() == "page 2"


@pytest.mark.parametrize("within", [False, True], ids=["alone", "in cache_page"])
@pytest.mark.parametrize("plain", [True, False], ids=["a plain value", "a response"])
def test_what_the_client_has_already(page: Counter, store: LocMemCache, kind: str, within: bool, plain: bool) -> None:
    app = FastAPI()

    def function(n: int) -> Any:
        return {"page": page()} if plain else PlainTextResponse(page(), headers={"Last-Modified": "its own"})

    async def coroutine(n: int) -> Any:
        return function(n)

    condition = conditional(etag=lambda n: f"v{n}", last_modified=lambda n: 1_700_000_000 + n)
    view: Any = condition(function if kind == "function" else coroutine)
    app.get("/{n}", response_model=None)(cache_page(60, cache=store)(view) if within else view)
    client = TestClient(app)
    first = client.get("/1")
    assert first.status_code == 200
    assert first.headers["ETag"] == '"v1"'
    assert first.headers["Last-Modified"] == ("Tue, 14 Nov 2023 22:13:21 GMT" if plain else "its own")
    again = client.get("/1", headers={"If-None-Match": '"v1"'})
    assert (again.status_code, again.content, again.headers["ETag"]) == (304, b"", '"v1"')
    assert client.get("/2", headers={"If-None-Match": '"v1"'}).status_code == 200
    assert client.get("/1", headers={"If-Match": '"other"'}).status_code == 412
    assert page() == "page 3"
    app.put("/{n}", response_model=None)(view)
    assert "ETag" not in client.put("/1", headers={"If-Match": '"v1"'}).headers  # of what was there before
    assert [one["name"] for one in app.openapi()["paths"]["/{n}"]["get"]["parameters"]] == ["n"]


def test_validators_may_be_awaited_by_coroutines_alone() -> None:
    async def etag() -> str:
        return "v1"

    app = FastAPI()

    @app.get("/")
    @conditional(etag=etag)
    async def view() -> str:
        return "page"

    assert TestClient(app).get("/", headers={"If-None-Match": '"v1"'}).status_code == 304
    with pytest.raises(TypeError, match="its functions have to be plain"):
        conditional(etag=etag)(lambda: "page")


# -- Depends(page(60)) ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("where", ["route", "router", "parameter", "annotation"])
@pytest.mark.parametrize("site", [True, False], ids=["in a cached site", "alone"])
def test_as_a_dependency(page: Counter, store: LocMemCache, where: str, site: bool) -> None:
    depends = Depends(page_for(60, cache=store, tags=lambda number, **more: [f"item:{number}"]))
    app = FastAPI()
    router = APIRouter(dependencies=[depends] if where == "router" else [], route_class=CachedRoute)

    async def view(number: int) -> dict[str, str]:
        return {"page": page()}

    async def with_default(number: int, cached: None = depends) -> dict[str, str]:
        return {"page": page()}

    async def with_annotation(number: int, cached: Annotated[None, depends]) -> dict[str, str]:
        return {"page": page()}

    view = {"parameter": with_default, "annotation": with_annotation}.get(where, view)  # type: ignore[assignment]
    router.get("/{number}", dependencies=[depends] if where == "route" else [])(view)
    app.include_router(router)
    if site:
        app.add_middleware(CacheMiddleware, cache=store, seconds=5)
    client = TestClient(app)
    assert client.get("/1").headers["Cache-Control"] == "max-age=60"
    assert is_hit(client.get("/1"))
    assert client.get("/2").json() == {"page": "page 2"}
    assert list(app.openapi()["paths"]) == ["/{number}"]
    assert [one["name"] for one in app.openapi()["paths"]["/{number}"]["get"]["parameters"]] == ["number"]


def test_the_operations_own_page_counts_most(page: Counter) -> None:
    app = FastAPI()
    router = APIRouter(dependencies=[Depends(page_for(60)), Depends(Counter())], route_class=CachedRoute)

    @router.get("/")
    async def view(cached: Annotated[None, Depends(page_for(5))]) -> str:
        return page()

    app.include_router(router)
    assert TestClient(app).get("/").headers["Cache-Control"] == "max-age=5"


@pytest.mark.parametrize("site", [True, False], ids=["beside the site's cache", "alone"])
def test_as_a_dependency_of_a_plain_application(page: Counter, store: LocMemCache, site: bool, kind: str) -> None:
    depends = Depends(page_for(60, cache=store))
    app, router = FastAPI(dependencies=[Depends(page_for(5, cache=store))]), APIRouter()

    async def coroutine(n: int, request: Request) -> dict[str, str]:
        return {"page": page(), "n": str(n), "path": request.url.path}

    def function(n: int, response: Response) -> dict[str, str]:
        response.headers["X-N"] = str(n)
        return {"page": page(), "n": str(n)}

    view: Any = {"coroutine": coroutine, "function": function}[kind]
    app.get("/items/{n}", dependencies=[depends])(view)
    router.get("/x/{n}")(view)
    app.include_router(router, prefix="/in", dependencies=[depends])
    if site:
        app.add_middleware(CacheMiddleware, cache=LocMemCache(f"beside {store.location}"))
    client = TestClient(app)
    for path in ("/items/1", "/in/x/1"):
        first, second = client.get(path), client.get(path)
        assert first.json() == second.json()
        assert second.headers.get("X-N") == first.headers.get("X-N") == (None if kind == "coroutine" else "1")
        assert second.headers["Cache-Control"] == "max-age=60"
        assert client.get(path[:-1] + "2").json()["n"] == "2"
        assert client.get(path[:-1] + "two").status_code == 422
    assert page() == "page 5"
    parameters = app.openapi()["paths"]["/items/{n}"]["get"]["parameters"]
    assert [one["name"] for one in parameters] == ["n"]


def test_a_decorators_page_counts_more_than_a_dependencys(page: Counter, store: LocMemCache) -> None:
    app = FastAPI(dependencies=[Depends(page_for(60, cache=store))])

    @app.get("/")
    @cache_page(5, cache=store)
    async def view() -> str:
        return page()

    client = TestClient(app)
    assert client.get("/").headers["Cache-Control"] == "max-age=5"
    assert client.get("/").json() == "page 1"


def test_a_cached_route_that_depends_on_no_page_is_a_plain_one(page: Counter) -> None:
    app, router = FastAPI(), APIRouter(route_class=CachedRoute)
    router.get("/")(lambda: page())
    app.include_router(router)
    assert [TestClient(app).get("/").json() for _ in range(2)] == ["page 1", "page 2"]


# -- purging ----------------------------------------------------------------------------------------------------------


def test_purging_in_another_process(page: Counter, store: BaseCache) -> None:
    def process() -> TestClient:
        app, router = FastAPI(), APIRouter(dependencies=[Depends(page_for(60, cache=store))])
        app.get("/decorated")(cache_page(60, key_prefix="own")(lambda: page()))
        app.get("/route", dependencies=[Depends(page_for(60, cache=store))])(lambda: page())
        router.get("/router")(lambda: page())
        app.include_router(router)

        @app.post("/change")
        async def change(request: Request, path: str) -> int:
            return await apurge(request, path)

        return TestClient(app)

    site, other = process(), process()
    for path in ("/decorated", "/route", "/router"):
        site.get(path)  # from the next request on, by what `Depends` has put in place
        site.get(path)
        assert is_hit(site.get(path))
        assert other.post("/change", params={"path": path}).json() > 0
        assert not is_hit(site.get(path))


# -- mistakes ---------------------------------------------------------------------------------------------------------


def test_what_is_no_path_operation() -> None:
    def generator() -> Iterator[str]:
        yield "x"

    for wrong, message in ((5, "got 5"), (Item, "got <class"), (generator, "generator.*StreamingResponse")):
        with pytest.raises(TypeError, match=message):
            cache_page(60)(wrong)  # type: ignore[type-var]
        with pytest.raises(TypeError, match=message):
            never_cache(wrong)  # type: ignore[type-var]


TAGGED = conditional(etag=lambda **arguments: "a")


async def talk(socket: WebSocket) -> None:
    """Annotated by a name, as `from __future__ import annotations` has it."""


talk.__annotations__["socket"] = "WebSocket"


@pytest.mark.parametrize("decorator", [cache_page(60), cache_control(public=True), never_cache, TAGGED])
def test_a_websocket_is_no_page(decorator: Any) -> None:
    with pytest.raises(TypeError, match=r"test_fastapi\.talk .* answers a WebSocket, which is not a page"):
        decorator(talk)


@pytest.mark.parametrize(
    ("name", "decorator"),
    [("cache_page", cache_page(60)), ("never_cache", never_cache), ("conditional", TAGGED)],
)
def test_an_operation_called_by_somebody_else_than_fastapi_says_so(name: str, decorator: Any) -> None:
    async def read(number: int) -> int:
        return number

    def read_in_thread(number: int) -> int:
        return number

    message = rf"^{name}: .*read.* was not called by FastAPI, .* its __wrapped__\.$"
    with pytest.raises(TypeError, match=message):
        asyncio.run(decorator(read)(3))
    with pytest.raises(TypeError, match=message):
        decorator(read_in_thread)(number=3)
    assert decorator(read_in_thread).__wrapped__(3) == 3


def test_mistakes_in_arguments_are_errors_where_they_are_written() -> None:
    with pytest.raises(ImproperlyConfigured, match="allowed: a number of at least 0"):
        cache_page("soon")  # type: ignore[arg-type]
    with pytest.raises(TypeError, match="did you mean max-age"):
        cache_control(max_aeg=5)  # type: ignore[call-arg]
    with pytest.raises(ImproperlyConfigured, match="allowed: a number of at least 0"):
        page_for(-1)


def test_vary_outside_of_cache_page() -> None:
    async def view() -> str:
        return "x"

    with pytest.raises(TypeError, match="vary_on_cookie is outside of cache_page"):
        vary_on_cookie(cache_page(60)(view))


def test_the_decorator_for_views_says_where_the_right_one_is() -> None:
    app = FastAPI()

    @app.get("/")
    @cache_page_of_views(60)
    async def view() -> str:
        return "x"

    @app.get("/with-request")
    @cache_page_of_views(60)
    async def with_request(request: Request) -> str:
        return "x"

    for path in ("/", "/with-request"):
        with pytest.raises(TypeError, match=r"cachemw\.integrations\.fastapi"):
            TestClient(app).get(path)


@pytest.mark.parametrize("where", ["decorator", "route", "router"])
def test_an_unknown_alias_is_an_error_at_start_up(page: Counter, where: str) -> None:
    depends = [Depends(page_for(60, cache="typo"))]
    app, router = FastAPI(lifespan=lifespan()), APIRouter(dependencies=depends if where == "router" else [])
    if where == "decorator":
        router.get("/")(cache_page(60, cache="typo")(lambda: page()))
    else:
        router.get("/", dependencies=depends if where == "route" else [])(lambda: page())
    app.include_router(router)
    with pytest.raises(ImproperlyConfigured, match="cache is 'typo'"), TestClient(app):
        pass


def test_the_page_of_one_cookie_is_not_anothers(page: Counter) -> None:
    app = FastAPI()

    @app.get("/")
    @cache_page(60)
    @vary_on_cookie
    async def view(who: Annotated[str | None, Cookie()] = None) -> str:
        return f"{who} {page()}"

    assert TestClient(app, cookies={"who": "Anne"}).get("/").json() == "Anne page 1"
    assert TestClient(app, cookies={"who": "Bob"}).get("/").json() == "Bob page 2"
    assert TestClient(app, cookies={"who": "Anne"}).get("/").json() == "Anne page 1"


def test_a_store_of_its_own(page: Counter, store: BaseCache) -> None:
    app = FastAPI()
    app.get("/")(cache_page(60, cache=store)(lambda: page()))
    client = TestClient(app)
    client.get("/")
    assert is_hit(client.get("/"))
    store.clear()
    assert not is_hit(client.get("/"))
