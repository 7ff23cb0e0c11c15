"""Hooks: Flask's order, scopes, and who may not be walked around."""

from __future__ import annotations

import asyncio
import logging
import threading
from collections.abc import Callable
from contextvars import ContextVar
from functools import partial
from typing import Any

import flask
import pytest
from hypothesis import given
from hypothesis import strategies as st
from starlette.responses import PlainTextResponse

from cachemw.asgi import CacheMiddleware
from cachemw.backends.locmem import LocMemCache
from cachemw.calling import (
    HookPlan,
    arun_after,
    arun_before,
    arun_teardown,
    run_after,
    run_before,
    run_teardown,
)
from cachemw.errors import ImproperlyConfigured
from cachemw.hooks import Hooks, HookScope
from cachemw.paths import below, decoded, readings, spellings


class Site:
    """A site with hooks everywhere, each of which writes its name into a log."""

    def __init__(self) -> None:
        self.log: list[str] = []
        self.hooks = Hooks()
        self.api = self.hooks.scope("/api", name="api")
        self.v1 = self.api.scope("/v1", name="v1")
        self.shop = self.hooks.scope("/shop/", name="shop")
        for place, name in ((self.v1, "v1"), (self.shop, "shop"), (self.hooks, "all"), (self.api, "api")):
            for number in (1, 2):
                self.register(place, f"{name}{number}")

    def register(self, place: Hooks | HookScope, name: str) -> None:
        place.before_request(lambda request: self.log.append(f"before {name}"))
        place.after_request(lambda response: self.log.append(f"after {name}"))
        place.teardown_request(lambda error: self.log.append(f"teardown {name}"))

    def visit(self, path: str) -> list[str]:
        """The log of one request."""
        self.log.clear()
        plan = self.hooks.plan(path)
        assert plan is not None
        run_before(plan, "request")
        run_after(plan, "request", "response")
        run_teardown(plan, None)
        return list(self.log)

    def names(self, path: str) -> list[str]:
        """The before hooks of one request."""
        return [line.removeprefix("before ") for line in self.visit(path) if line.startswith("before ")]


@pytest.fixture
def site() -> Site:
    return Site()


def plan_of(hooks: Hooks, path: str = "/") -> HookPlan:
    plan = hooks.plan(path)
    assert plan is not None
    return plan


# -- order --------------------------------------------------------------------------------------------------------


def test_the_order_is_the_one_that_flask_has_for_nested_blueprints(site: Site) -> None:
    log: list[str] = []
    app = flask.Flask("site")
    api = flask.Blueprint("api", __name__, url_prefix="/api")
    v1 = flask.Blueprint("v1", __name__, url_prefix="/v1")

    def after(name: str, response: Any) -> Any:
        log.append(f"after {name}")
        return response

    place: Any
    for place, name in ((v1, "v1"), (app, "all"), (api, "api")):
        for number in (1, 2):
            place.before_request(partial(log.append, f"before {name}{number}"))
            place.after_request(partial(after, f"{name}{number}"))
            place.teardown_request(lambda error, name=name, number=number: log.append(f"teardown {name}{number}"))

    v1.add_url_rule("/page", view_func=lambda: "page")
    api.register_blueprint(v1)
    app.register_blueprint(api)
    app.test_client().get("/api/v1/page")
    assert site.visit("/api/v1/page") == log


def test_the_first_response_of_a_before_hook_ends_the_chain() -> None:
    hooks = Hooks()
    asked: list[str] = []
    hooks.before_request(lambda request: None)
    hooks.before_request(lambda request: f"login for {request}")
    hooks.before_request(asked.append)
    assert run_before(plan_of(hooks), "alice") == "login for alice"
    assert asked == []


def test_a_falsy_response_is_a_response() -> None:
    hooks = Hooks()
    hooks.before_request(lambda request: "")
    assert run_before(plan_of(hooks), "request") == ""


def test_each_after_hook_gets_what_the_one_before_it_made() -> None:
    hooks = Hooks()
    hooks.after_request(lambda response: response + " last")
    hooks.after_request(lambda response: None)  # patched in place
    hooks.after_request(lambda response: response + " first")
    assert run_after(plan_of(hooks), "request", "page") == "page first last"


def test_without_hooks_the_response_stays_what_it_was() -> None:
    hooks = Hooks()
    hooks.teardown_request(lambda error: None)
    assert run_before(plan_of(hooks), "request") is None
    assert run_after(plan_of(hooks), "request", "page") == "page"


def test_the_decorators_return_the_function() -> None:
    hooks = Hooks()
    scope = hooks.scope("/api", name="api")

    def hook(argument: Any) -> None: ...

    for place in (hooks, scope):
        assert place.before_request(hook) is hook
        assert place.after_request(hook) is hook
        assert place.teardown_request(hook) is hook


# -- teardown -----------------------------------------------------------------------------------------------------


def test_every_teardown_hook_gets_the_exception_though_others_fail(caplog: pytest.LogCaptureFixture) -> None:
    hooks = Hooks()
    seen: list[BaseException | None] = []
    hooks.teardown_request(seen.append)

    @hooks.teardown_request
    def breaks(error: BaseException | None) -> None:
        raise RuntimeError("broken")

    hooks.teardown_request(seen.append)
    error = ValueError("page")
    run_teardown(plan_of(hooks), error)
    assert seen == [error, error]
    [record] = caplog.records
    assert record.levelno == logging.ERROR
    assert "breaks" in record.getMessage()
    assert "RuntimeError: broken" in (record.exc_text or "")


def test_what_ends_the_process_leaves_after_the_last_teardown_hook() -> None:
    hooks = Hooks()
    seen: list[object] = []
    hooks.teardown_request(seen.append)

    def stop(error: object) -> None:
        raise SystemExit(3)

    def interrupt(error: object) -> None:
        raise KeyboardInterrupt

    hooks.teardown_request(stop)
    hooks.teardown_request(interrupt)  # runs first
    with pytest.raises(KeyboardInterrupt):
        run_teardown(plan_of(hooks), None)
    assert seen == [None]


# -- scopes -------------------------------------------------------------------------------------------------------

APPLIES = [
    ("/", []),
    ("", []),
    ("*", []),  # OPTIONS *
    ("/api", ["api"]),
    ("/api/", ["api"]),
    ("/api/users", ["api"]),
    ("/apix", []),
    ("/API", []),
    ("/x/api", []),
    ("/api/v1", ["api", "v1"]),
    ("/api/v1/users", ["api", "v1"]),
    ("/api/v10", ["api"]),
    ("/v1", []),
    ("/shop", ["shop"]),
    ("/shop/cart", ["shop"]),
    # other spellings of the same paths
    ("/%61pi", ["api"]),
    ("/api%2Fusers", ["api"]),
    ("/%2fapi", ["api"]),
    ("//api/users", ["api"]),
    ("/api//v1", ["api", "v1"]),
    ("/x/../api", ["api"]),
    ("/./api", ["api"]),
    ("/api/./v1", ["api", "v1"]),
    ("/x/%2e%2e/api", ["api"]),
    ("/../api", ["api"]),
    ("/api/../shop", ["api", "shop"]),  # whoever does not resolve it is in the one, whoever does in the other
    ("/api%", []),
    ("/api/%ff", ["api"]),
]


@pytest.mark.parametrize(("path", "scopes"), APPLIES)
def test_a_scope_is_a_path_prefix_that_ends_at_a_slash(site: Site, path: str, scopes: list[str]) -> None:
    expected = [f"{name}{number}" for name in ("all", *scopes) for number in (1, 2)]
    assert site.names(path) == expected
    assert site.names(path) == expected  # and from memory


def test_a_scope_for_the_whole_site_comes_after_the_hooks_of_the_site() -> None:
    hooks, log = Hooks(), []
    hooks.scope("/", name="whole").before_request(lambda request: log.append("scope"))
    hooks.before_request(lambda request: log.append("site"))
    run_before(plan_of(hooks, "/any"), "request")
    assert log == ["site", "scope"]


def test_scopes_of_one_prefix_run_in_the_order_in_which_they_were_made() -> None:
    hooks, log = Hooks(), []
    outer = hooks.scope("/api", name="outer")
    inner = outer.scope("/", name="inner")
    inner.before_request(lambda request: log.append("inner"))
    outer.before_request(lambda request: log.append("outer"))
    run_before(plan_of(hooks, "/api/x"), "request")
    assert log == ["outer", "inner"]
    assert (inner.prefix, inner.name) == ("/api", "outer.inner")


@pytest.mark.parametrize("path", ["/café/menu", "/caf%C3%A9/menu", "/café/menu".encode().decode("latin-1")])
@pytest.mark.parametrize("prefix", ["/café", "/caf%C3%A9"])
def test_a_prefix_beyond_ascii_is_found_in_every_servers_spelling(prefix: str, path: str) -> None:
    hooks = Hooks()
    hooks.scope(prefix, name="cafe").before_request(lambda request: "inside")
    assert run_before(plan_of(hooks, path), "request") == "inside"


def test_latin_1_that_is_no_utf_8_stays_as_it_is() -> None:
    assert decoded("/caf\xe9") == "/caf\xe9"
    assert decoded("/\u20ac") == "/\u20ac"


@pytest.mark.parametrize(
    ("mount", "path", "rest"),
    [
        ("", "/api", "/api"),
        ("/site", "/site/api", "/api"),
        ("/site", "/site", ""),
        ("/site", "/site/", "/"),
        ("/site/", "/site/api", "/api"),
        ("/site", "/sitemap", "/sitemap"),
        ("/site", "/api", "/api"),  # a server that leaves the mount out
        ("/", "/api", "/api"),
    ],
)
def test_a_path_is_taken_below_its_mount(mount: str, path: str, rest: str) -> None:
    assert below(mount, path) == rest


@pytest.mark.parametrize("mount", ["", "/site", "/site/"])
def test_a_mount_does_not_hide_a_scope_on_asgi(mount: str) -> None:
    """RFC 3986 knows no mounts, ASGI has them in the path: a guard that forgets it lets everybody in."""
    hooks = Hooks()

    @hooks.scope("/admin", name="admin").before_request
    async def login(request: Any) -> PlainTextResponse:
        return PlainTextResponse("login", 401)

    async def app(scope: Any, receive: Any, send: Any) -> None:
        pytest.fail("nobody has logged in")

    statuses: list[int] = []

    async def send(message: Any) -> None:
        statuses.append(message.get("status"))

    async def receive() -> Any:
        return {"type": "http.request"}

    path = mount.rstrip("/") + "/admin/users"
    scope = {"type": "http", "method": "GET", "path": path, "root_path": mount, "query_string": b"", "headers": []}
    asyncio.run(CacheMiddleware(app, cache=LocMemCache("mounted"), hooks=hooks)(scope, receive, send))
    assert statuses[0] == 401


@given(st.text(max_size=50))
def test_any_text_has_spellings(path: str) -> None:
    assert set(readings(path)) <= set(spellings(path))
    assert path in spellings(path)
    assert decoded(path) in readings(path)


@given(st.text(alphabet="/.%2fFaA", max_size=30))
def test_no_spelling_of_a_guarded_path_escapes(rest: str) -> None:
    hooks = Hooks()
    hooks.scope("/admin", name="admin").before_request(lambda request: "login")
    assert run_before(plan_of(hooks, "/%61dmin/" + rest), "request") == "login"


@pytest.mark.parametrize("prefix", ["", "api", "/a//b", "/a/../b", "/users/<id>", "/users/{id}", "/a/*", "/a?b", None])
def test_a_prefix_that_is_no_literal_path_is_refused(prefix: Any) -> None:
    with pytest.raises(ImproperlyConfigured, match="literal path such as '/api'"):
        Hooks().scope(prefix, name="api")


@pytest.mark.parametrize("name", ["", "api.v1", None])
def test_a_name_with_a_dot_would_look_like_a_nested_scope(name: Any) -> None:
    with pytest.raises(ImproperlyConfigured, match="without dots"):
        Hooks().scope("/api", name=name)


def test_a_name_is_given_once(site: Site) -> None:
    with pytest.raises(ImproperlyConfigured, match=r"There is a scope 'api.v1' already, for '/api/v1'"):
        site.api.scope("/v2", name="v1")


# -- what is registered -------------------------------------------------------------------------------------------


def test_what_is_registered_can_be_read_and_extended_as_in_flask(site: Site) -> None:
    def first(request: Any) -> str:
        return "first"

    functions = site.hooks.before_request_funcs
    assert list(functions) == [None, "api", "api.v1", "shop"]
    assert len(functions) == 4
    assert len(functions[None]) == 2
    functions.setdefault(None, []).insert(0, first)
    assert functions[None][0] is first
    assert functions[None][:1] == [first]
    assert functions[None] != functions["api"]
    assert run_before(plan_of(site.hooks), "request") == "first"
    assert "first" in repr(functions[None])
    assert "api.v1" in repr(functions)


def test_every_change_reaches_the_next_request() -> None:
    hooks = Hooks()
    scope = hooks.scope("/api", name="api")
    functions = hooks.before_request_funcs["api"]

    def answer(text: str) -> Callable[[Any], str]:
        return lambda request: text

    def asked() -> Any:
        plan = hooks.plan("/api")
        return None if plan is None else run_before(plan, "request")

    assert asked() is None
    scope.before_request(answer("registered"))
    assert asked() == "registered"
    functions[0] = answer("replaced")
    assert asked() == "replaced"
    functions += [answer("ignored")]
    functions.reverse()
    assert asked() == "ignored"
    del functions[0]
    assert asked() == "replaced"
    hooks.before_request_funcs["api"] += [answer("more")]
    assert [hook("request") for hook in functions] == ["replaced", "more"]
    hooks.before_request_funcs["api"] = [answer("new")]
    assert asked() == "new"
    functions.clear()
    assert asked() is None


def test_a_hook_for_a_scope_that_nobody_made_is_an_error_and_no_silence(site: Site) -> None:
    with pytest.raises(KeyError, match="No scope is named 'admin'"):
        site.hooks.before_request_funcs["admin"].append(print)
    with pytest.raises(KeyError, match="No scope is named 'admin'"):
        site.hooks.before_request_funcs.setdefault("admin", []).append(print)
    with pytest.raises(KeyError, match="No scope is named 'admin'"):
        site.hooks.before_request_funcs["admin"] = [print]


def test_a_request_keeps_the_hooks_with_which_it_began() -> None:
    hooks = Hooks()
    hooks.before_request(lambda request: None)
    plan = plan_of(hooks)
    hooks.teardown_request(lambda error: pytest.fail("registered later"))
    run_teardown(plan, None)


def test_there_is_no_plan_where_nothing_applies() -> None:
    hooks = Hooks()
    assert hooks.plan("/") is None
    hooks.scope("/api", name="api").after_request(lambda response: response)
    assert hooks.plan("/") is None
    assert hooks.plan("/api") is not None


def test_the_paths_of_strangers_do_not_fill_the_memory(site: Site) -> None:
    for number in range(3000):
        assert site.hooks.plan(f"/api/{number}") is not None
    assert site.hooks.plan("/api/" + "x" * 10_000) is not None
    compiled = site.hooks._compiled
    assert compiled is not None
    assert 0 < len(compiled.memo) <= 1024
    assert max(map(len, compiled.memo)) <= 256


def test_registering_while_requests_are_planned_loses_nothing() -> None:
    hooks = Hooks()
    scope = hooks.scope("/api", name="api")

    def register() -> None:
        for _ in range(100):
            scope.before_request(lambda request: None)
            plan_of(hooks, "/api")

    threads = [threading.Thread(target=register) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(plan_of(hooks, "/api").before) == 400


def test_only_functions_are_hooks() -> None:
    def generator(request: Any) -> Any:
        yield

    async def async_generator(request: Any) -> Any:
        yield

    for wrong in ("login", None, generator, async_generator):
        with pytest.raises(TypeError, match="A before_request hook is a function"):
            Hooks().before_request(wrong)  # type: ignore[type-var]


# -- plain functions and coroutines -------------------------------------------------------------------------------


async def login(request: Any) -> None: ...


class AsyncObject:
    async def __call__(self, request: Any) -> None: ...


ASYNC = [login, partial(partial(login)), AsyncObject(), partial(AsyncObject())]


@pytest.mark.parametrize("hook", ASYNC)
def test_an_async_hook_under_wsgi_is_an_error_that_names_it(hook: Any) -> None:
    hooks = Hooks()
    hooks.scope("/api", name="api").after_request(hook)
    hooks.check(async_allowed=True)
    with pytest.raises(ImproperlyConfigured, match=r"after_request hook \S+\.(login|AsyncObject) is async.*WSGI"):
        hooks.check(async_allowed=False)
    assert not hooks.sync_only


@pytest.mark.parametrize("hook", ASYNC)
def test_an_async_hook_is_refused_when_it_is_registered_later_too(hook: Any) -> None:
    hooks = Hooks()
    hooks.check(async_allowed=False)
    hooks.before_request(lambda request: None)
    for register in (hooks.teardown_request, hooks.teardown_request_funcs[None].append):
        with pytest.raises(ImproperlyConfigured, match="teardown_request hook"):
            register(hook)
    assert not hooks.teardown_request_funcs[None]


def test_a_coroutine_is_never_taken_for_a_response() -> None:
    hooks = Hooks()
    hooks.before_request(lambda request: login(request))
    hooks.after_request(lambda response: login(response))
    hooks.check(async_allowed=False)
    with pytest.raises(TypeError, match="returned an awaitable"):
        run_before(plan_of(hooks), "request")
    with pytest.raises(TypeError, match="returned an awaitable"):
        run_after(plan_of(hooks), "request", "response")


class Awaitable:
    def __await__(self) -> Any:
        yield


def test_nor_is_any_other_awaitable() -> None:
    hooks = Hooks()
    hooks.before_request(lambda request: Awaitable())
    with pytest.raises(TypeError, match="returned an awaitable"):
        run_before(plan_of(hooks), "request")


def test_on_asgi_too_a_plain_hook_may_set_context_variables() -> None:
    user: ContextVar[str] = ContextVar("user")
    seen: list[str] = []
    hooks = Hooks()
    hooks.before_request(lambda request: user.set("alice") and None)
    hooks.after_request(lambda response: seen.append(user.get()))
    hooks.teardown_request(lambda error: seen.append(user.get()))

    async def request() -> str:
        plan = plan_of(hooks)
        await arun_before(plan, "request")
        seen.append(user.get())
        await arun_after(plan, "request", "response")
        await arun_teardown(plan, None)
        return user.get()

    assert asyncio.run(request()) == "alice"
    assert seen == ["alice"] * 3


def test_on_asgi_coroutines_run_on_the_loop_and_functions_beside_it() -> None:
    hooks = Hooks()
    threads: dict[str, int] = {}

    @hooks.before_request
    def plain(request: Any) -> None:
        threads["plain"] = threading.get_ident()

    @hooks.before_request
    async def coroutine(request: Any) -> None:
        threads["async"] = threading.get_ident()

    @hooks.before_request
    def returns_coroutine(request: Any) -> Any:
        async def answer() -> str:
            return f"answer to {request}"

        return answer()

    hooks.after_request(lambda response: response + " last")

    @hooks.after_request
    async def patch(response: str) -> None: ...

    @hooks.after_request
    async def first(response: str) -> str:
        return response + " first"

    seen: list[object] = []
    hooks.teardown_request(seen.append)

    async def request() -> str:
        plan = plan_of(hooks)
        response = await arun_before(plan, "request")
        response = await arun_after(plan, "request", response)
        await arun_teardown(plan, None)
        return str(response)

    assert asyncio.run(request()) == "answer to request first last"
    assert threads["async"] == threading.get_ident() != threads["plain"]
    assert seen == [None]


def test_on_asgi_too_nobody_may_answer() -> None:
    hooks = Hooks()
    hooks.before_request(login)
    assert asyncio.run(arun_before(plan_of(hooks), "request")) is None


def test_teardown_on_asgi_survives_failures_and_the_cancellation_of_the_request(
    caplog: pytest.LogCaptureFixture,
) -> None:
    hooks = Hooks()
    done: list[str] = []

    @hooks.teardown_request
    async def last(error: object) -> None:
        await asyncio.sleep(0)
        done.append(f"last {type(error).__name__}")

    @hooks.teardown_request
    async def fails(error: object) -> None:
        raise RuntimeError("broken")

    @hooks.teardown_request
    async def cancelled(error: object) -> None:
        task = asyncio.current_task()
        assert task is not None
        task.cancel()
        await asyncio.sleep(0)
        done.append("not reached")

    async def request() -> None:
        with pytest.raises(asyncio.CancelledError):
            await arun_teardown(plan_of(hooks), ValueError())

    asyncio.run(request())
    assert done == ["last ValueError"]
    assert "fails" in caplog.text
    assert len(caplog.records) == 1


def test_a_cancelled_scope_does_not_cut_teardown_short() -> None:
    import anyio

    hooks = Hooks()
    done: list[str] = []

    @hooks.teardown_request
    async def close(error: object) -> None:
        await anyio.sleep(0)
        done.append("closed")

    async def request() -> None:
        with anyio.CancelScope() as scope:
            scope.cancel()
            try:
                await anyio.sleep(1)
            finally:
                await arun_teardown(plan_of(hooks), None)

    anyio.run(request)
    assert done == ["closed"]
