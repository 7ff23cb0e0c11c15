"""The decorators on Starlette's endpoints and applications, the lifespan, the templates."""

from __future__ import annotations

import asyncio
import gc
import inspect
import itertools
import threading
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import httpx
import pytest
from starlette.applications import Starlette
from starlette.background import BackgroundTask
from starlette.datastructures import URL
from starlette.endpoints import HTTPEndpoint
from starlette.exceptions import HTTPException
from starlette.middleware import Middleware
from starlette.middleware.sessions import SessionMiddleware
from starlette.requests import Request
from starlette.responses import FileResponse, JSONResponse, PlainTextResponse, Response, StreamingResponse
from starlette.routing import Mount, Route
from starlette.staticfiles import StaticFiles
from starlette.testclient import TestClient

from cachemw import (
    ImproperlyConfigured,
    Settings,
    activate_language,
    cache_control,
    cache_page,
    caches,
    conditional,
    get_language,
    never_cache,
    vary_on_cookie,
    vary_on_headers,
)
from cachemw.backends.base import BaseCache
from cachemw.backends.locmem import LocMemCache
from cachemw.integrations.starlette import CacheMiddleware, apurge, lifespan, purge, with_fragments
from tests.integrations.conftest import Counter, Visitor
from tests.scenarios.conftest import Clock


def client(*routes: Any, **options: Any) -> TestClient:
    return TestClient(Starlette(routes=list(routes), **options), raise_server_exceptions=True)


def is_hit(response: Any) -> bool:
    return "; hit" in response.headers.get("Cache-Status", "")


class OnLoop(LocMemCache):
    """A store that is asked by the event loop alone, as a networked one is."""

    by_reference = False
    shared = True


@pytest.fixture(params=["coroutine", "function"])
def kind(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture(params=["immediate", "awaited"])
def cache(request: pytest.FixtureRequest, store: LocMemCache) -> BaseCache:
    return store if request.param == "immediate" else OnLoop(f"on-loop-{store.location}", {})


def view_of(kind: str, answer: Any) -> Any:
    """A view of either kind that answers with what `answer(request)` returns."""

    async def coroutine(request: Request) -> Any:
        await asyncio.sleep(0)
        return answer(request)

    def function(request: Request) -> Any:
        return answer(request)

    return coroutine if kind == "coroutine" else function


# -- endpoints --------------------------------------------------------------------------------------------------------


def test_an_endpoint_in_the_table_of_routes(kind: str, page: Counter, cache: BaseCache) -> None:
    view = view_of(kind, lambda request: JSONResponse({"id": request.path_params["id"], "page": page()}))
    site = client(Route("/foo/{id}", cache_page(900, cache=cache)(view)))
    first, second = site.get("/foo/1"), site.get("/foo/1")
    assert first.json() == second.json() == {"id": "1", "page": "page 1"}
    assert is_hit(second)
    assert first.headers["Cache-Control"] == second.headers["Cache-Control"] == "max-age=900"
    assert site.get("/foo/2").json()["page"] == "page 2"
    assert site.head("/foo/1").headers["Content-Length"] == first.headers["Content-Length"]


def test_a_coroutine_function_stays_one_and_a_function_a_function(kind: str) -> None:
    decorated = cache_page(60)(vary_on_cookie(view_of(kind, lambda request: Response())))
    assert inspect.iscoroutinefunction(decorated) is (kind == "coroutine")
    assert decorated.__name__ == kind


def test_a_stream_is_relayed_as_it_comes_and_stored_at_its_end(kind: str, page: Counter, cache: BaseCache) -> None:
    async def parts() -> AsyncIterator[bytes]:
        yield page().encode()
        yield b" and more"

    view = view_of(kind, lambda request: StreamingResponse(parts(), media_type="text/plain"))
    site = client(Route("/", cache_page(60, cache=cache)(view)))
    assert site.get("/").text == site.get("/").text == "page 1 and more"
    assert is_hit(site.get("/"))
    assert site.get("/").headers["Content-Length"] == "15"


def test_the_first_part_of_a_stream_is_sent_before_the_last_is_made(page: Counter) -> None:
    sent: list[Any] = []
    first_sent = asyncio.Event()

    async def parts() -> AsyncIterator[bytes]:
        yield b"first"
        await asyncio.wait_for(first_sent.wait(), 5)
        yield b"last"

    async def view(request: Request) -> Response:
        return StreamingResponse(parts())

    async def send(message: Any) -> None:
        sent.append(message)
        if message.get("body") == b"first":
            first_sent.set()

    async def receive() -> Any:
        await asyncio.Event().wait()

    asyncio.run(Starlette(routes=[Route("/", cache_page(60)(view))])(scope(), receive, send))
    assert [message.get("body") for message in sent] == [None, b"first", b"last", b""]


def scope(path: str = "/", **more: Any) -> dict[str, Any]:
    return {
        "type": "http",
        "asgi": {"version": "3.0"},
        "http_version": "1.1",
        "method": "GET",
        "scheme": "http",
        "path": path,
        "raw_path": path.encode(),
        "query_string": b"",
        "root_path": "",
        "headers": [(b"host", b"testserver")],
        "server": ("testserver", 80),
        **more,
    }


def test_a_stream_that_breaks_off_is_not_stored(kind: str, page: Counter, cache: BaseCache) -> None:
    async def parts() -> AsyncIterator[bytes]:
        yield page().encode()
        if page.calls == 1:
            raise OSError("the disk is gone")

    site = client(Route("/", cache_page(60, cache=cache)(view_of(kind, lambda request: StreamingResponse(parts())))))
    with pytest.raises(OSError, match="the disk is gone"):
        site.get("/")
    assert site.get("/").text == "page 2"
    assert is_hit(site.get("/"))


def test_a_file(kind: str, page: Counter, cache: BaseCache, tmp_path: Any) -> None:
    file = tmp_path / "report.txt"
    file.write_text("the report")

    def answer(request: Request) -> Response:
        page()
        return FileResponse(file)

    site = client(Route("/", cache_page(60, cache=cache)(view_of(kind, answer))))
    first, second = site.get("/"), site.get("/")
    assert first.text == second.text == "the report"
    assert is_hit(second)
    assert first.headers["ETag"] == second.headers["ETag"]
    part = site.get("/", headers={"Range": "bytes=4-5"})
    assert (part.status_code, part.text, page.calls) == (206, "re", 1)


def test_a_part_of_a_file_is_not_stored_as_the_whole(page: Counter, tmp_path: Any) -> None:
    file = tmp_path / "report.txt"
    file.write_text("the report")
    site = client(Route("/", cache_page(60)(view_of("coroutine", lambda request: FileResponse(file)))))
    assert site.get("/", headers={"Range": "bytes=4-5"}).text == "re"
    assert site.get("/").text == "the report"


def test_background_tasks_run_once_for_each_call_of_the_view(kind: str, page: Counter, cache: BaseCache) -> None:
    ran = []
    view = view_of(
        kind, lambda request: PlainTextResponse(page(), background=BackgroundTask(lambda: ran.append(page.calls)))
    )
    site = client(Route("/", cache_page(60, cache=cache)(view)))
    site.get("/")
    assert is_hit(site.get("/"))
    assert ran == [1]


def test_decorators_further_out_see_and_change_the_response(page: Counter) -> None:
    """What they change goes to the client and not into the store: it will be changed again on a hit."""

    def signed(view: Any) -> Any:
        async def wrapper(request: Request) -> Response:
            response: Response = await view(request)
            assert response.status_code == 200
            assert response.body == b"page 1"
            response.headers.append("X-Signed", "once")
            response.set_cookie("seen", "yes")
            return response

        return wrapper

    site = client(Route("/", signed(cache_page(60)(view_of("coroutine", lambda r: PlainTextResponse(page()))))))
    for _ in range(3):
        response = site.get("/")
        assert response.headers.get_list("X-Signed") == ["once"]
        assert response.cookies == {"seen": "yes"}
    assert is_hit(response)


def test_header_decorators_on_endpoints(kind: str, page: Counter) -> None:
    view = cache_page(60)(
        cache_control(public=True)(
            vary_on_headers("Accept-Language")(view_of(kind, lambda r: PlainTextResponse(page())))
        )
    )
    site = client(Route("/", view), Route("/never", never_cache(view_of(kind, lambda r: PlainTextResponse(page())))))
    response = site.get("/")
    assert response.headers["Vary"] == "Accept-Language"
    assert response.headers["Cache-Control"] == "public, max-age=60"
    assert not is_hit(site.get("/", headers={"Accept-Language": "de"}))
    assert is_hit(site.get("/", headers={"Accept-Language": "de"}))
    assert "no-store" in site.get("/never").headers["Cache-Control"]


def test_a_field_that_the_view_takes_out_of_the_request_selects_its_page(kind: str, cache: BaseCache) -> None:
    def answer(request: Request) -> Response:
        fields = request.scope["headers"]
        user = dict(fields).get(b"x-user", b"you").decode()
        fields[:] = [field for field in fields if field[0] != b"x-user"]
        return PlainTextResponse(f"hello {user}", headers={"Vary": "X-User"})

    site = client(Route("/", cache_page(60, cache=cache)(view_of(kind, answer))))
    for _ in range(2):
        assert site.get("/", headers={"X-User": "alice"}).text == "hello alice"
        assert site.get("/").text == "hello you"


def test_conditional(kind: str, page: Counter) -> None:
    view = conditional(etag=lambda request: f"v{request.path_params['n']}")(
        view_of(kind, lambda r: PlainTextResponse(page()))
    )
    site = client(Route("/{n}", view, methods=["GET", "DELETE"]))
    assert site.get("/1").headers["ETag"] == '"v1"'
    response = site.get("/1", headers={"If-None-Match": 'W/"v1"'})
    assert (response.status_code, response.content, response.headers["ETag"]) == (304, b"", '"v1"')
    assert site.delete("/1", headers={"If-Match": '"v2"'}).status_code == 412
    assert page.calls == 1


def test_conditional_with_coroutine_functions(page: Counter) -> None:
    async def etag(request: Request) -> str:
        await asyncio.sleep(0)
        return 'W/"weak"'

    view = conditional(etag=etag, last_modified=lambda request: None)(
        view_of("coroutine", lambda r: PlainTextResponse(page()))
    )
    site = client(Route("/", view))
    assert site.get("/").headers["ETag"] == 'W/"weak"'
    assert site.get("/", headers={"If-None-Match": 'W/"weak"'}).status_code == 304


def test_errors_are_starlettes(kind: str, page: Counter, cache: BaseCache) -> None:
    def answer(request: Request) -> Response:
        page()
        raise HTTPException(418)

    site = client(Route("/", cache_page(60, cache=cache)(view_of(kind, answer))))
    assert [site.get("/").status_code for _ in range(2)] == [418, 418]
    assert page.calls == 2


def test_a_stale_page_stands_in_for_a_view_that_fails(kind: str, page: Counter, clock: Clock, cache: BaseCache) -> None:
    def answer(request: Request) -> Response:
        if page() == "page 2":
            raise OSError("the database is gone")
        status = 200 if page.calls == 1 else 503
        return PlainTextResponse(f"answer {page.calls}", status, headers={"Cache-Control": "stale-if-error=300"})

    site = client(Route("/", cache_page(60, cache=cache)(view_of(kind, answer))))
    assert site.get("/").text == "answer 1"
    clock.advance(61)
    for _ in range(2):  # an exception, then a 503
        response = site.get("/")
        assert (response.status_code, response.text) == (200, "answer 1")
    assert page.calls == 3
    clock.advance(1000)
    assert site.get("/").status_code == 503


STALE = {"Cache-Control": "public, stale-while-revalidate=300"}


def test_a_stale_page_is_served_while_the_application_makes_a_new_one(
    kind: str, page: Counter, clock: Clock, cache: BaseCache
) -> None:
    asked: list[Request] = []

    def answer(request: Request) -> Response:
        asked.append(request)
        assert "session" in request.scope
        return PlainTextResponse(f"{request.path_params['number']} {page()}", headers=STALE)

    app = Starlette(
        routes=[Route("/{number:int}", cache_page(60, cache=cache)(view_of(kind, answer)))],
        middleware=[Middleware(SessionMiddleware, secret_key="only a test")],
    )
    visitor = Visitor(app)
    first = visitor.get("/7")[0]
    clock.advance(61)
    second, third = visitor.get("/7", "/7")
    assert [one.text for one in (first, second, third)] == ["7 page 1", "7 page 1", "7 page 2"]
    assert "; hit" in second.headers["Cache-Status"]
    clock.advance(61)
    visitor.get("/7", authorization="Basic eDp5", range="bytes=0-1")
    assert page.calls == 3
    assert not {"authorization", "range"} & set(asked[-1].headers)


def test_what_guards_a_page_guards_its_new_one(kind: str, page: Counter, clock: Clock, cache: BaseCache) -> None:
    """A refresh is for nobody in particular, who is not let in: the stale page stays until its time is over."""
    guarded: list[str | None] = []

    def answer(request: Request) -> Response:
        return PlainTextResponse(page(), headers=STALE)

    cached = cache_page(60, cache=cache)(view_of("coroutine", answer))

    async def guard(request: Request) -> Response:
        guarded.append(request.headers.get("X-Member"))
        if "Authorization" not in request.headers:
            raise HTTPException(401)
        return await cached(request)  # type: ignore[no-any-return]

    visitor = Visitor(Starlette(routes=[Route("/", guard)]))
    visitor.get("/", authorization="Basic eDp5")
    clock.advance(61)
    answers = visitor.get("/", "/", authorization="Basic eDp5")
    assert [one.text for one in answers] == ["page 1", "page 1"]
    assert page.calls == 1
    assert len(guarded) == 1 + 2 * 2


def test_a_refresh_that_fails_is_logged_and_costs_nobody_anything(
    kind: str, page: Counter, clock: Clock, cache: BaseCache, caplog: pytest.LogCaptureFixture
) -> None:
    def answer(request: Request) -> Response:
        if page() == "page 2":
            raise OSError("the database is gone")
        return PlainTextResponse(f"answer {page.calls}", headers=STALE)

    visitor = Visitor(Starlette(routes=[Route("/", cache_page(60, cache=cache)(view_of(kind, answer)))]))
    visitor.get("/")
    clock.advance(61)
    assert [one.text for one in visitor.get("/", "/", "/")] == ["answer 1", "answer 1", "answer 3"]
    assert "The background refresh of / failed." in caplog.text


def test_below_a_mount_of_routes_a_stale_page_is_served_too(page: Counter, clock: Clock) -> None:
    app = Starlette(
        routes=[
            Mount(
                "/shop",
                routes=[Route("/{x}", cache_page(60)(lambda request: PlainTextResponse(page(), headers=STALE)))],
            )
        ]
    )
    visitor = Visitor(app)
    visitor.get("/shop/a")
    clock.advance(61)
    assert [one.text for one in visitor.get("/shop/a", "/shop/a")] == ["page 1", "page 2"]


def test_in_an_application_within_another_a_stale_page_is_fetched_anew(page: Counter, clock: Clock) -> None:
    """How the outer one is called again, nobody knows."""
    view = cache_page(60)(lambda request: PlainTextResponse(page(), headers=STALE))
    visitor = Visitor(Starlette(routes=[Mount("/shop", Starlette(routes=[Route("/", view)]))]))
    visitor.get("/shop/")
    clock.advance(61)
    assert [one.text for one in visitor.get("/shop/", "/shop/")] == ["page 2", "page 2"]


def test_a_value_that_is_no_response_names_the_view(kind: str, cache: BaseCache) -> None:
    site = client(Route("/", cache_page(60, cache=cache)(view_of(kind, lambda request: {"a": 1}))))
    with pytest.raises(TypeError, match=rf"{kind} .*test_starlette.py:\d+.*no headers.*cachemw.integrations.fastapi"):
        site.get("/")


def test_concurrent_misses_call_the_view_once(kind: str, page: Counter, cache: BaseCache) -> None:
    """More of them than Starlette has threads."""
    arrived, everybody = itertools.count(1), threading.Event()

    def answer(request: Request) -> Response:
        if kind == "function":  # a coroutine does not hold the event loop up
            assert everybody.wait(10)
        return PlainTextResponse(page())

    app = Starlette(routes=[Route("/", cache_page(60, cache=cache)(view_of(kind, answer)))])

    async def counted(scope: Any, receive: Any, send: Any) -> None:
        if next(arrived) == 100:
            everybody.set()
        await app(scope, receive, send)

    async def crowd() -> list[str]:
        async with httpx.AsyncClient(transport=httpx.ASGITransport(counted), base_url="http://testserver") as http:
            answers = await asyncio.gather(*(http.get("/") for _ in range(100)))
        return [answer.text for answer in answers]

    assert asyncio.run(crowd()) == ["page 1"] * 100
    assert page.calls == 1


def test_a_response_that_is_never_sent_keeps_nobody_waiting(page: Counter, store: LocMemCache) -> None:
    cached = cache_page(60, cache=store)(view_of("coroutine", lambda r: PlainTextResponse(page())))

    async def replacing(request: Request) -> Response:
        await cached(request)
        gc.collect()
        return PlainTextResponse("something else")

    app = Starlette(routes=[Route("/", replacing), Route("/kept", cached)])

    async def twice() -> list[str]:
        async with httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://testserver") as http:
            async with asyncio.timeout(5):
                return [(await http.get("/")).text for _ in range(2)]

    assert asyncio.run(twice()) == ["something else"] * 2
    assert page.calls == 2


def test_a_cancelled_view_keeps_nobody_waiting(page: Counter, store: LocMemCache) -> None:
    begun = asyncio.Event()

    async def view(request: Request) -> Response:
        if page() == "page 1":
            begun.set()
            await asyncio.Event().wait()
        return PlainTextResponse("answered")

    app = Starlette(routes=[Route("/", cache_page(60, cache=store)(view))])

    async def leave_and_come_back() -> str:
        async with httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://testserver") as http:
            first = asyncio.create_task(http.get("/"))
            await begun.wait()
            second = asyncio.create_task(http.get("/"))
            await asyncio.sleep(0)
            first.cancel()
            async with asyncio.timeout(5):
                return (await second).text

    assert asyncio.run(leave_and_come_back()) == "answered"


# -- whose page it is -------------------------------------------------------------------------------------------------


def test_a_page_that_read_the_session_is_for_this_cookie_alone(kind: str, page: Counter, cache: BaseCache) -> None:
    def login(request: Request) -> Response:
        request.session["name"] = request.path_params["name"]
        return PlainTextResponse("welcome")

    def home(request: Request) -> Response:
        return PlainTextResponse(f"{request.session.get('name')} {page()}")

    app = Starlette(
        routes=[
            Route("/login/{name}", cache_page(60, cache=cache)(view_of(kind, login))),
            Route("/", cache_page(60, cache=cache)(view_of(kind, home))),
        ],
        middleware=[Middleware(SessionMiddleware, secret_key="not secret at all")],
    )
    anne, bob, stranger = TestClient(app), TestClient(app), TestClient(app)
    for name, one in (("Anne", anne), ("Bob", bob)):
        one.get(f"/login/{name}")
        assert one.get("/").text == one.get("/").text
        assert one.get("/").text.startswith(name)
    assert stranger.get("/").text == "None page 3"
    assert "Cookie" in anne.get("/").headers["Vary"]
    assert TestClient(app).get("/login/Anne").cookies  # it was not answered from the store


def test_a_stream_may_read_the_session_while_it_is_sent(page: Counter) -> None:
    async def login(request: Request) -> Response:
        request.session["name"] = request.path_params["name"]
        return Response()

    async def home(request: Request) -> Response:
        async def parts() -> AsyncIterator[str]:
            yield f"{request.session.get('name')} {page()}"

        return StreamingResponse(parts())

    app = Starlette(
        routes=[Route("/login/{name}", login), Route("/", cache_page(60)(home))],
        middleware=[Middleware(SessionMiddleware, secret_key="not secret at all")],
    )
    for name in ("Anne", "Bob"):
        one = TestClient(app)
        one.get(f"/login/{name}")
        assert one.get("/").text == one.get("/").text
        assert one.get("/").text.startswith(name)
    assert page.calls == 2


def test_a_session_of_another_kind_is_taken_to_have_been_read(page: Counter) -> None:
    class OtherSessions:
        def __init__(self, app: Any) -> None:
            self.app = app

        async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
            scope["session"] = {"name": "Anne"} if b"who" in dict(scope["headers"]) else {}
            await self.app(scope, receive, send)

    site = client(
        Route("/", cache_page(60)(view_of("coroutine", lambda r: PlainTextResponse(page())))),
        middleware=[Middleware(OtherSessions)],
    )
    assert "Vary" not in site.get("/").headers
    site = client(
        Route("/other", cache_page(60)(view_of("coroutine", lambda r: PlainTextResponse(page())))),
        middleware=[Middleware(OtherSessions)],
    )
    assert site.get("/other", headers={"Who": "Anne"}).headers["Vary"] == "Cookie"


@pytest.mark.parametrize("site_wide", [False, True])
def test_a_page_that_read_the_cookies_is_another_one_for_each(
    kind: str, page: Counter, cache: BaseCache, site_wide: bool
) -> None:
    """What stands around it may have read them, too: that says nothing of the page."""

    def guarded(view: Any) -> Any:
        async def guard_async(request: Request) -> Any:
            return await view(request) if request.cookies["who"] else None

        def guard(request: Request) -> Any:
            return view(request) if request.cookies["who"] else None

        return guard_async if kind == "coroutine" else guard

    def greeting(request: Request) -> Response:
        return PlainTextResponse(f"hello {request.cookies['who']} {page()}")

    stored = cache_page(60, cache=cache)
    middleware = [Middleware(CacheMiddleware, cache=cache)] if site_wide else []
    site = client(
        Route("/greeting", stored(view_of(kind, greeting))),
        Route("/leaflet", guarded(stored(view_of(kind, lambda request: PlainTextResponse(page()))))),
        middleware=middleware,
    )
    for who in ("Anne", "Bob"):
        greetings = [site.get("/greeting", headers={"Cookie": f"who={who}"}) for _ in range(2)]
        assert greetings[0].text == greetings[1].text
        assert greetings[0].text.startswith(f"hello {who}")
        assert greetings[1].headers["Vary"] == "Cookie"
    leaflets = [site.get("/leaflet", headers={"Cookie": f"who={who}"}) for who in ("Anne", "Bob")]
    assert leaflets[0].text == leaflets[1].text
    assert "Vary" not in leaflets[1].headers


def test_a_stream_may_read_the_cookies_while_it_is_sent(kind: str, page: Counter, cache: BaseCache) -> None:
    def stream(request: Request) -> Response:
        async def parts() -> AsyncIterator[str]:
            yield page()
            yield f" for {request.cookies['who']}" if request.path_params["late"] else ""

        return StreamingResponse(parts())

    site = client(Route("/{late:int}", cache_page(60, cache=cache)(view_of(kind, stream))))
    for who in ("Anne", "Bob"):
        assert site.get("/1", headers={"Cookie": f"who={who}"}).text.endswith(f" for {who}")
        assert site.get("/0", headers={"Cookie": f"who={who}"}).text == "page 2"


class _Unloaded:
    """A session of somebody else's making that is not to be asked before it is loaded."""

    def __bool__(self) -> bool:
        raise RuntimeError("load it first")


class _Untold(_Unloaded):
    @property
    def accessed(self) -> bool:
        raise RuntimeError("load it first")


@pytest.mark.parametrize("session", [_Unloaded, _Untold])
def test_a_session_that_cannot_be_asked_does_not_fail_the_page(
    kind: str, page: Counter, cache: BaseCache, session: type
) -> None:
    class OtherSessions:
        def __init__(self, app: Any) -> None:
            self.app = app

        async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
            scope["session"] = session()
            await self.app(scope, receive, send)

    view = cache_page(60, cache=cache)(view_of(kind, lambda r: PlainTextResponse(f"{r.headers['cookie']} {page()}")))
    site = client(Route("/", view), middleware=[Middleware(OtherSessions)])
    for who in ("who=Anne", "who=Bob"):
        pages = [site.get("/", headers={"Cookie": who}) for _ in range(2)]
        assert {one.text.partition(" ")[0] for one in pages} == {who}
        assert pages[0].text == pages[1].text
        assert pages[0].headers["Vary"] == "Cookie"


def test_a_language_that_the_view_activates_is_part_of_the_key(
    kind: str, page: Counter, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It is known too late for a hit, and in time for no wrong page."""
    monkeypatch.setenv("CACHEMW_USE_I18N", "1")

    def answer(request: Request) -> Response:
        activate_language(request.headers["x-language"])
        return PlainTextResponse(f"{get_language()} {page()}")

    site = client(Route("/", cache_page(60)(view_of(kind, answer))))
    for language in ("de", "en", "de"):
        assert site.get("/", headers={"X-Language": language}).text.startswith(language)


# -- classes and whole applications -----------------------------------------------------------------------------------


def test_on_an_endpoint_class(page: Counter, cache: BaseCache) -> None:
    @cache_page(60, cache=cache)
    @vary_on_headers("X-Kind")
    class Entries(HTTPEndpoint):
        """The entries."""

        async def get(self, request: Request) -> Response:
            return PlainTextResponse(page())

        def post(self, request: Request) -> Response:
            return PlainTextResponse("noted")

    assert (Entries.__name__, Entries.__doc__) == ("Entries", "The entries.")
    site = client(Route("/", Entries))
    assert site.get("/").headers["Vary"] == "X-Kind"
    assert is_hit(site.get("/"))
    assert site.post("/").text == "noted"
    assert site.get("/").text == "page 2"
    assert site.put("/").status_code == 405


def test_on_one_method_of_an_endpoint_class(page: Counter) -> None:
    class Entries(HTTPEndpoint):
        @cache_page(60)
        async def get(self, request: Request) -> Response:
            return PlainTextResponse(page())

    site = client(Route("/", Entries))
    assert site.get("/").text == site.get("/").text == "page 1"


def test_on_mounts_and_applications(page: Counter, cache: BaseCache) -> None:
    shop = Starlette(routes=[Route("/{item}", view_of("coroutine", lambda r: PlainTextResponse(page())))])
    decorated = cache_page(60, cache=cache)(cache_control(public=True)(shop))
    site = client(Mount("/shop", decorated), Route("/as-endpoint", decorated))
    assert site.get("/shop/a").text == site.get("/shop/a").text == "page 1"
    assert site.get("/shop/a").headers["Cache-Control"] == "public, max-age=60"
    assert site.get("/shop/b").text == "page 2"
    assert site.get("/as-endpoint").text == "page 3"


def test_a_function_that_is_an_application(page: Counter) -> None:
    @cache_page(60)
    @never_cache
    async def never(scope: Any, receive: Any, send: Any) -> None:
        await PlainTextResponse(page())(scope, receive, send)

    @cache_page(60)
    def plain(scope: Any, receive: Any, send: Any) -> Any:
        return PlainTextResponse(page())(scope, receive, send)

    assert [TestClient(never).get("/").text for _ in range(2)] == ["page 1", "page 2"]
    assert [asyncio.run(get_once(plain)) for _ in range(2)] == ["page 3", "page 3"]


async def get_once(app: Any) -> str:
    async with httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://testserver") as http:
        return (await http.get("/")).text


def test_websockets_of_an_application_pass(page: Counter) -> None:
    from starlette.routing import WebSocketRoute
    from starlette.websockets import WebSocket

    async def echo(socket: WebSocket) -> None:
        await socket.accept()
        await socket.send_text(await socket.receive_text())
        await socket.close()

    with TestClient(cache_page(60)(Starlette(routes=[WebSocketRoute("/", echo)]))).websocket_connect("/") as socket:
        socket.send_text("hello")
        assert socket.receive_text() == "hello"


# -- with a cache around the site -------------------------------------------------------------------------------------


def test_under_the_sites_own_cache_a_view_only_says_how_long(
    kind: str, page: Counter, cache: BaseCache, clock: Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    written: list[Any] = []
    write = cache.write_records

    def noted(records: Any) -> Any:
        written.append(records)
        return write(records)

    monkeypatch.setattr(cache, "write_records", noted)
    view = view_of(kind, lambda request: PlainTextResponse(page()))
    shop = Starlette(routes=[Route("/", view)])
    site = client(
        Route("/short", cache_page(10)(view)),
        Route("/long", view),
        Mount("/shop", cache_page(10)(shop)),
        middleware=[Middleware(CacheMiddleware, cache=cache, seconds=600)],
    )
    for path in ("/short", "/long", "/shop/"):
        assert site.get(path).headers["Cache-Status"].count("cachemw") == 1
        assert is_hit(site.get(path))
    assert len(written) == 3
    clock.advance(11)
    assert [is_hit(site.get(path)) for path in ("/short", "/long", "/shop/")] == [False, True, False]


def test_under_the_sites_cache_a_view_in_another_one_is_stored_there_alone(
    kind: str, page: Counter, store: LocMemCache, cache: BaseCache
) -> None:
    own = LocMemCache(f"own-{store.location}", {})
    view = view_of(kind, lambda request: PlainTextResponse(page()))
    site = client(
        Route("/", cache_page(60, cache=own)(view)), middleware=[Middleware(CacheMiddleware, cache=cache, seconds=600)]
    )
    site.get("/")
    assert is_hit(site.get("/"))
    own.clear()
    assert site.get("/").text == "page 2"


# -- purging ----------------------------------------------------------------------------------------------------------


def purging_site(page: Counter, store: LocMemCache, *, whole: bool, plain: bool) -> Starlette:
    """One process of a site: with or without a cache of the whole, with views of all kinds."""

    async def answer(request: Request) -> Response:
        return PlainTextResponse(page(), headers={"Cache-Tag": "news"})

    async def change(request: Request) -> Response:
        name = request.query_params["name"]
        url: Any = request.url_for(name)
        if "path" in request.query_params:
            url = url.path
        if plain:
            return PlainTextResponse(str(await asyncio.to_thread(purge, request, url)))
        return PlainTextResponse(str(await apurge(request, url)))

    slow = LocMemCache(f"slow-{store.location}", {})
    shop = [
        Route("/", answer, name="in"),
        Route("/own", cache_page(60, cache=slow)(answer), name="in-own"),
    ]
    return Starlette(
        routes=[
            Route("/top", answer if whole else cache_page(60)(answer), name="top"),
            Route("/prefix", cache_page(60, key_prefix="p")(answer), name="prefix"),
            Mount("/shop", routes=shop, name="shop"),
            Mount("/{kind}/app", cache_page(60, key_prefix="p")(Starlette(routes=[Route("/", answer)])), name="app"),
            Mount("/static", StaticFiles(directory="."), name="static"),
            Route("/change", change, methods=["POST"]),
        ],
        middleware=[Middleware(CacheMiddleware, cache=store, key_prefix="site")] if whole else [],
    )


@pytest.mark.parametrize("plain", [False, True], ids=["apurge", "purge"])
@pytest.mark.parametrize("root_path", ["", "/mounted"])
@pytest.mark.parametrize("whole", [True, False], ids=["whole site", "views alone"])
@pytest.mark.parametrize("name", ["top", "prefix", "shop:in-own"])
def test_purging_what_url_for_gives_in_another_process(
    page: Counter, store: LocMemCache, whole: bool, name: str, root_path: str, plain: bool
) -> None:
    site, other = (
        TestClient(purging_site(page, store, whole=whole, plain=plain), root_path=root_path) for _ in range(2)
    )
    ends = {"top": "/top", "prefix": "/prefix", "shop:in-own": "/shop/own"}
    paths = {one: root_path + end for one, end in ends.items()}
    for path in paths.values():
        site.get(path)
        assert is_hit(site.get(path))
    for how in ("", "&path"):
        assert int(other.post(f"{root_path}/change?name={name}{how}").text) > 0
        assert [is_hit(site.get(path)) for path in paths.values()] == [one != name for one in paths]


@pytest.mark.parametrize("url", ["http://testserver/", URL("http://testserver/")])
def test_purging_without_saying_whose_pages_is_a_mistake(url: Any) -> None:
    with pytest.raises(TypeError, match="cannot purge of 'http://testserver/': the request, or the application, comes"):
        purge(url)
    with pytest.raises(TypeError, match="comes first, then the URLs"):
        asyncio.run(apurge(url))


def test_purging_an_application(page: Counter, store: LocMemCache) -> None:
    """Outside of a request: by absolute URL or by tag, also of a cache around the application."""
    app = purging_site(page, store, whole=False, plain=False)
    site = TestClient(CacheMiddleware(app, cache=store))
    paths = ("/top", "/prefix", "/shop/", "/shop/own", "/x/app/")

    def hits() -> list[bool]:
        return [is_hit(site.get(path)) for path in paths]

    hits()
    assert hits() == [True] * 5
    around = CacheMiddleware(purging_site(page, store, whole=False, plain=False), cache=store)
    assert purge(around, "http://testserver/x/app/", URL("http://testserver/shop/")) > 0
    assert hits() == [True, True, False, True, False]
    assert asyncio.run(apurge(around, tags=iter(["news"]))) > 0
    assert hits() == [False] * 5
    with pytest.raises(ValueError, match="absolute URL"):
        purge(app, "/top")
    with pytest.raises(TypeError, match="a list of tags"):
        purge(app, tags="news")


# -- lifespan and templates -------------------------------------------------------------------------------------------


class Closing(LocMemCache):
    """A store that notes when it is closed."""

    closed = 0

    async def _aclose(self) -> None:
        self.closed += 1


def test_the_lifespan_closes_the_stores_after_the_applications_own(page: Counter, store: LocMemCache) -> None:
    site_wide, of_view, unused = (Closing(f"{name}-{store.location}", {}) for name in ("site", "view", "unused"))
    order = []

    @asynccontextmanager
    async def own(app: Any) -> AsyncIterator[dict[str, Any]]:
        yield {"ready": True}
        order.append((site_wide.closed, of_view.closed))

    view = view_of("coroutine", lambda request: PlainTextResponse(f"{request.state.ready} {page()}"))
    app = Starlette(
        routes=[
            Mount("/in", routes=[Route("/", cache_page(60, cache=of_view)(view))]),
            Route("/other", cache_page(60, cache=unused)(view)),
        ],
        middleware=[Middleware(CacheMiddleware, cache=site_wide)],
        lifespan=lifespan(own),
    )
    with TestClient(app) as site:
        assert site.get("/in/").text == "True page 1"
    assert order == [(0, 0)]
    assert (site_wide.closed, of_view.closed, unused.closed) == (1, 1, 0)


def test_the_lifespan_gives_up_what_goes_on_in_the_background(page: Counter, clock: Clock) -> None:
    events: list[str] = []
    begun = threading.Event()

    @asynccontextmanager
    async def own(app: Any) -> AsyncIterator[None]:
        yield
        events.append("the application ends")

    async def view(request: Request) -> Response:
        if page() != "page 1":
            begun.set()
            try:
                await asyncio.Event().wait()
            finally:
                events.append("the refresh ends")
        return PlainTextResponse("x", headers=STALE)

    with TestClient(Starlette(routes=[Route("/", cache_page(60)(view))], lifespan=lifespan(own))) as site:
        site.get("/")
        clock.advance(61)
        assert site.get("/").text == "x"
        assert begun.wait(5)
    assert events == ["the refresh ends", "the application ends"]


def test_what_is_no_lifespan_is_refused_when_it_is_given() -> None:
    with pytest.raises(TypeError, match="a function of the application; got 'own'"):
        lifespan("own")  # type: ignore[arg-type]
    app = Starlette(lifespan=lifespan)  # type: ignore[arg-type]
    with pytest.raises(TypeError, match=r"Starlette\(lifespan=lifespan\(\)\)"), TestClient(app):
        pass


def test_the_lifespan_alone() -> None:
    with TestClient(Starlette(lifespan=lifespan())) as site:
        assert site.get("/").status_code == 404


def test_an_unknown_alias_is_an_error_at_start_up() -> None:
    view = cache_page(60, cache="typo")(view_of("coroutine", lambda request: Response()))
    app = Starlette(routes=[Mount("/in", routes=[Route("/", view)])], lifespan=lifespan())
    with pytest.raises(ImproperlyConfigured, match=r"coroutine .*cache is 'typo'.*allowed: default"), TestClient(app):
        pass


def test_the_middleware_with_settings(page: Counter) -> None:
    settings = Settings(
        seconds=30, caches={"default": {"BACKEND": "cachemw.backends.locmem.LocMemCache", "LOCATION": "starlette"}}
    )
    site = client(
        Route("/", view_of("coroutine", lambda request: PlainTextResponse(page()))),
        middleware=[Middleware(CacheMiddleware, settings=settings)],
    )
    assert site.get("/").headers["Cache-Control"] == "max-age=30"
    assert is_hit(site.get("/"))


def test_caches_of_ones_own_are_closed(page: Counter) -> None:
    from cachemw import Caches

    own = Caches(Settings(caches={"default": {"BACKEND": Closing, "LOCATION": "own-caches"}}))
    store = own["default"]
    with TestClient(Starlette(lifespan=lifespan(caches=own))):
        pass
    assert isinstance(store, Closing)
    assert store.closed == 1
    assert caches is not own


def test_fragments_in_templates(page: Counter, tmp_path: Any) -> None:
    from starlette.templating import Jinja2Templates

    (tmp_path / "home.html").write_text("{% cache 60 starlette_home %}{{ page() }}{% endcache %}")
    templates = with_fragments(Jinja2Templates(tmp_path))
    site = client(
        Route(
            "/", view_of("function", lambda request: templates.TemplateResponse(request, "home.html", {"page": page}))
        )
    )
    assert site.get("/").text == site.get("/").text == "page 1"
