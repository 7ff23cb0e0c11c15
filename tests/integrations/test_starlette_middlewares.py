"""Starlette's own middlewares around the cache, between its halves and inside of it: what they hide from it."""

from __future__ import annotations

import time
from collections.abc import AsyncIterator, Awaitable, Callable
from types import SimpleNamespace
from typing import Any

import pytest
from starlette.applications import Starlette
from starlette.authentication import AuthCredentials, AuthenticationBackend, SimpleUser
from starlette.background import BackgroundTask
from starlette.middleware import Middleware
from starlette.middleware.authentication import AuthenticationMiddleware
from starlette.middleware.base import BaseHTTPMiddleware
from starlette.middleware.sessions import SessionMiddleware
from starlette.requests import HTTPConnection, Request
from starlette.responses import PlainTextResponse, Response, StreamingResponse
from starlette.routing import Route
from starlette.testclient import TestClient

from cachemw.asgi import CacheMiddleware
from cachemw.backends.locmem import LocMemCache
from cachemw.views import cache_page

Next = Callable[[Request], Awaitable[Response]]


async def as_it_is(request: Request, call_next: Next) -> Response:
    """What FastAPI's `@app.middleware("http")` makes of a function."""
    return await call_next(request)


BETWEEN = Middleware(BaseHTTPMiddleware, dispatch=as_it_is)


def visitor(*middleware: Middleware, **views: Any) -> TestClient:
    routes = [Route(f"/{name}", view) for name, view in views.items()]
    return TestClient(Starlette(routes=routes, middleware=middleware), raise_server_exceptions=False)


def cached(name: str, **options: Any) -> Middleware:
    return Middleware(CacheMiddleware, cache=LocMemCache(name), **options)


def outcomes(client: TestClient, path: str, times: int = 2, **options: Any) -> list[str]:
    return [client.get(path, **options).text for _ in range(times)]


class Breaking:
    """A view whose body breaks off the first time."""

    def __init__(self) -> None:
        self.calls = 0

    async def __call__(self, request: Request) -> Response:
        self.calls += 1
        return StreamingResponse(self.body(self.calls))

    async def body(self, call: int) -> AsyncIterator[str]:
        yield "first half"
        if call == 1:
            raise ConnectionError("the database has gone")
        yield ", second half"


def test_a_body_that_broke_off_is_not_shown_again_although_a_middleware_has_ended_it() -> None:
    client = visitor(cached("broken"), BETWEEN, page=Breaking().__call__)
    assert outcomes(client, "/page", 3) == ["first half", *["first half, second half"] * 2]
    assert "; hit" in client.get("/page").headers["Cache-Status"]


@pytest.mark.parametrize("length", [True, False])
def test_a_page_whose_background_task_fails_is_stored_if_it_is_known_to_be_whole(length: bool) -> None:
    async def fail() -> None:
        raise ConnectionError("no mail today")

    async def page(request: Request) -> Response:
        response = PlainTextResponse("thank you", background=BackgroundTask(fail))
        if not length:
            del response.headers["Content-Length"]
        return response

    client = visitor(cached(f"background-{length}"), page=page)
    client.get("/page")
    assert ("; hit" in client.get("/page").headers["Cache-Status"]) is length


# A session further out than the cache, under a cookie that no list of names has. -----------------------------------

SESSIONS = Middleware(SessionMiddleware, secret_key="k", session_cookie="basket")


async def login(request: Request) -> Response:
    request.session["user"] = request.query_params["user"]
    return PlainTextResponse("welcome", headers=explicit(request))


async def logout(request: Request) -> Response:
    request.session.clear()
    return PlainTextResponse("good-bye", headers=explicit(request))


async def greeting(request: Request) -> Response:
    return PlainTextResponse(f"hello {request.session.get('user')}", headers=explicit(request))


async def streamed(request: Request) -> Response:
    async def body() -> AsyncIterator[str]:
        yield "hello "
        yield request.session.get("user") or "None"

    return StreamingResponse(body(), headers=explicit(request))


async def hit_counter(request: Request) -> Response:
    async def body() -> AsyncIterator[str]:
        request.session["seen"] = True
        yield "seen"

    return StreamingResponse(body(), headers=explicit(request))


async def leaflet(request: Request) -> Response:
    return PlainTextResponse("the same for all", headers=explicit(request))


def explicit(request: Request) -> dict[str, str]:
    return {"Cache-Control": request.query_params["says"]} if "says" in request.query_params else {}


@pytest.fixture
def three(request: pytest.FixtureRequest) -> tuple[TestClient, TestClient, TestClient]:
    """Alice and Bob, who have logged in, and somebody who has not."""
    views = {view.__name__: view for view in (login, logout, greeting, streamed, hit_counter, leaflet)}
    site = visitor(SESSIONS, cached(request.node.name), **views)
    clients = TestClient(site.app), TestClient(site.app), TestClient(site.app)
    for client, name in zip(clients, ("Alice", "Bob"), strict=False):
        client.get("/login", params={"user": name})
    return clients


@pytest.mark.parametrize("query", ["", "?says=max-age=60", "?says=public,+max-age=60"])
@pytest.mark.parametrize("path", ["/greeting", "/streamed"])
def test_a_page_made_from_a_session_further_out_is_for_its_visitor(
    three: tuple[TestClient, ...], path: str, query: str
) -> None:
    alice, bob, stranger = three
    for _ in range(2):
        assert alice.get(path + query).text == "hello Alice"
        assert bob.get(path + query).text == "hello Bob"
        assert stranger.get(path + query).text == "hello None"


@pytest.mark.parametrize("query", ["?user=Eve", "?user=Eve&says=public,+max-age=60"])
def test_a_page_that_changes_a_session_further_out_is_not_stored(three: tuple[TestClient, ...], query: str) -> None:
    alice, bob, stranger = three
    for client in (stranger, bob):
        response = client.get("/login" + query)
        assert response.headers["Cache-Status"].endswith(f"; detail={'set-cookie' if 'public' in query else 'session'}")
        assert client.get("/greeting").text == "hello Eve"
    for client in (bob, alice):
        assert client.get("/logout" + query).text == "good-bye"
        assert client.get("/greeting").text == "hello None"


def test_nor_is_one_that_does_so_while_its_body_is_made(three: tuple[TestClient, ...]) -> None:
    for client in three * 2:
        assert "; hit" not in client.get("/hit_counter?says=public,+max-age=60").headers["Cache-Status"]


def test_a_view_that_changes_the_session_says_why_it_is_not_stored() -> None:
    site = Starlette(
        routes=[Route("/", cache_page(60, cache=LocMemCache("changes the session"))(login))], middleware=[SESSIONS]
    )
    for user in ("Alice", "Bob"):
        answer = TestClient(site).get("/", params={"user": user})
        assert answer.headers["Cache-Status"].endswith("; detail=set-cookie")


def test_a_page_that_does_not_look_at_the_session_is_shared_if_it_says_so(three: tuple[TestClient, ...]) -> None:
    alice, bob, stranger = three
    assert "stored" in alice.get("/leaflet?says=max-age=60").headers["Cache-Status"]
    assert "; hit" in bob.get("/leaflet?says=max-age=60").headers["Cache-Status"]
    assert alice.get("/leaflet").headers["Cache-Status"].endswith("; detail=session")
    assert "stored" in stranger.get("/leaflet").headers["Cache-Status"]
    assert "; hit" not in alice.get("/leaflet").headers["Cache-Status"]  # what of it is for nobody in particular?
    assert "; hit" in stranger.get("/leaflet").headers["Cache-Status"]


# A user whom a middleware further out knows by something that no cache knows of. -----------------------------------


class ByName(AuthenticationBackend):
    async def authenticate(self, conn: HTTPConnection) -> tuple[AuthCredentials, SimpleUser] | None:
        name = conn.headers.get("X-Member")
        return None if name is None else (AuthCredentials(["authenticated"]), SimpleUser(name))


async def account(request: Request) -> Response:
    return PlainTextResponse(f"hello {request.user.display_name}", headers=explicit(request))


@pytest.mark.parametrize("inside", [False, True])
def test_a_page_for_an_authenticated_user_is_stored_only_if_it_says_that_it_is_public(inside: bool) -> None:
    users = Middleware(AuthenticationMiddleware, backend=ByName())
    cache = cached(f"users-{inside}")
    client = visitor(*((cache, users) if inside else (users, cache)), account=account)

    def ask(name: str, query: str = "") -> str:
        return client.get("/account" + query, headers={"X-Member": name} if name else {}).text

    for query in ("", "?says=max-age=60"):
        assert ask("alice", query) == "hello alice"
        assert ask("bob", query) == "hello bob"
    assert ask("") == ask("") == "hello "
    if not inside:
        assert ask("alice") == "hello alice"
    assert ask("alice", "?says=public,+max-age=60") == ask("bob", "?says=public,+max-age=60") == "hello alice"
    assert ask("", "?says=max-age=61") == ask("", "?says=max-age=61") == "hello "
    if not inside:
        assert ask("alice", "?says=max-age=61") == "hello alice"


@pytest.mark.parametrize("name", ["user", "current_user", "user_id"])
@pytest.mark.parametrize("around", ["outside", "inside", "view"])
def test_a_user_whom_a_function_of_the_applications_own_has_found_is_one(around: str, name: str) -> None:
    async def find(request: Request, call_next: Next) -> Response:
        setattr(request.state, name, request.headers.get("X-Member"))
        return await call_next(request)

    async def hello(request: Request) -> Response:
        return PlainTextResponse(f"hello {getattr(request.state, name)}")

    found, cache = Middleware(BaseHTTPMiddleware, dispatch=find), cached(f"state-{around}-{name}")
    order = {"outside": (found, cache), "inside": (cache, found), "view": (found,)}[around]
    store = LocMemCache(f"state-view-{name}")
    client = visitor(*order, hello=cache_page(60, cache=store)(hello) if around == "view" else hello)
    for member in ("alice", "bob"):
        for _ in range(2):
            assert client.get("/hello", headers={"X-Member": member}).text == f"hello {member}"
    assert outcomes(client, "/hello") == ["hello None"] * 2
    assert "; hit" in client.get("/hello").headers["Cache-Status"]
    if around != "inside":
        assert client.get("/hello", headers={"X-Member": "alice"}).text == "hello alice"


@pytest.mark.parametrize(
    "state",
    [None, object(), SimpleNamespace(user="alice"), {"database": 1}, {"user": None}, {"user": {}, "user_id": ""}],
)
def test_a_state_that_tells_of_no_user_is_left_alone(state: Any) -> None:
    async def app(scope: Any, receive: Any, send: Any) -> None:
        await PlainTextResponse("hello")(scope, receive, send)

    site = CacheMiddleware(app, cache=LocMemCache(f"state {state!r:.12}"))

    async def stating(scope: Any, receive: Any, send: Any) -> None:
        await site({**scope, "state": state}, receive, send)

    client = TestClient(stating)
    client.get("/")
    assert "; hit" in client.get("/").headers["Cache-Status"]


@pytest.mark.parametrize("known_by", ["user", "session"])
@pytest.mark.parametrize("inside", [False, True])
def test_nor_does_a_validation_make_their_page_everybody_s(
    monkeypatch: pytest.MonkeyPatch, inside: bool, known_by: str
) -> None:
    """The application is then called with a scope of its own."""

    async def page(request: Request) -> Response:
        said = {"Cache-Control": "max-age=60", "ETag": '"1"'}
        name = request.user.display_name if known_by == "user" else ""
        if "if-none-match" not in request.headers and not name:
            return PlainTextResponse("hello", headers=said)
        name = name or request.session.get("user")
        return PlainTextResponse(f"hello {name}", headers=said)

    now = time.time()
    monkeypatch.setattr("cachemw.asgi.time.time", lambda: now)
    further = Middleware(AuthenticationMiddleware, backend=ByName()) if known_by == "user" else SESSIONS
    cache = cached(f"validated-{now}")
    client = visitor(*((cache, further) if inside else (further, cache)), page=page, login=login)
    client.get("/login", params={"user": "alice"})
    assert client.get("/page").text == "hello"
    now += 61
    assert client.get("/page", headers={"X-Member": "alice"}).text == "hello alice"
    client.cookies.clear()
    assert client.get("/page").text != "hello alice"


@pytest.mark.parametrize("inside", [False, True])
@pytest.mark.parametrize("says", ["", "max-age=60", "public, s-maxage=60"])
def test_a_session_that_does_not_say_what_became_of_it_was_read(says: str, inside: bool) -> None:
    """starsessions and Litestar put a dictionary into the scope."""

    def sessions(app: Any) -> Any:
        async def with_session(scope: Any, receive: Any, send: Any) -> None:
            if scope["type"] == "http":
                cookie = dict(scope["headers"]).get(b"cookie", b"").decode()
                scope["session"] = {"user": cookie.removeprefix("mine=")} if cookie else {}
            await app(scope, receive, send)

        return with_session

    cache = cached(f"plain sessions {inside} {says}")
    client = visitor(*((cache, Middleware(sessions)) if inside else (Middleware(sessions), cache)), greeting=greeting)
    query = f"?says={says}" if says else ""
    for _ in range(2):
        for name in ("alice", "bob"):
            assert client.get(f"/greeting{query}", headers={"Cookie": f"mine={name}"}).text == f"hello {name}"
    assert client.get(f"/greeting{query}").text == "hello None"


@pytest.mark.parametrize(("says", "shared"), [("", False), ("max-age=60", False), ("public, max-age=60", True)])
@pytest.mark.parametrize("on_view", [False, True])
def test_who_has_such_a_session_is_not_shown_what_was_made_for_who_has_none(
    on_view: bool, says: str, shared: bool
) -> None:
    """starsessions, under a name of one's own: the login shows at once."""

    def sessions(app: Any) -> Any:
        async def with_session(scope: Any, receive: Any, send: Any) -> None:
            cookie = dict(scope["headers"]).get(b"cookie", b"").decode()
            scope["session"] = {"user": cookie.removeprefix("mine=")} if cookie else {}
            await app(scope, receive, send)

        return with_session

    name = f"such {on_view} {says}"
    view = cache_page(60, cache=LocMemCache(f"{name} view"))(greeting) if on_view else greeting
    client = visitor(Middleware(sessions), *([] if on_view else [cached(name)]), greeting=view)
    path = f"/greeting?says={says}" if says else "/greeting"
    assert outcomes(client, path) == ["hello None"] * 2
    assert "; hit" in client.get(path).headers["Cache-Status"]
    for who in ("alice", "bob"):
        seen = outcomes(client, path, headers={"Cookie": f"mine={who}"})
        assert seen == ["hello None" if shared else f"hello {who}"] * 2
    assert client.get(path).text == "hello None"


class Unloaded:
    """A user, or a session, that has not been fetched yet."""

    @property
    def is_authenticated(self) -> bool:
        raise NotImplementedError

    def __bool__(self) -> bool:
        raise NotImplementedError


@pytest.mark.parametrize(
    ("known_by", "detail"),
    [
        ({"user": Unloaded()}, "authorization"),
        ({"state": {"user": Unloaded()}}, "authorization"),
        ({"session": Unloaded()}, "session"),
    ],
)
def test_who_cannot_be_asked_may_be_anybody(known_by: dict[str, Any], detail: str) -> None:
    async def app(scope: Any, receive: Any, send: Any) -> None:
        await PlainTextResponse("hello")(scope, receive, send)

    site = CacheMiddleware(app, cache=LocMemCache(f"odd {known_by!r}"))

    async def knowing(scope: Any, receive: Any, send: Any) -> None:
        await site({**scope, **known_by}, receive, send)

    client = TestClient(knowing)
    assert [client.get("/").headers["Cache-Status"] for _ in range(2)] == [
        f"cachemw; fwd=uri-miss; fwd-status=200; detail={detail}"
    ] * 2
