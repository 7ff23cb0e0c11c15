"""Decorators of views: mistakes are errors where they are written, and views keep their kind and their type."""

from __future__ import annotations

import asyncio
import functools
import inspect
import subprocess
import sys
from collections.abc import AsyncIterator, Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from flask import Flask
from flask.views import MethodView
from starlette.applications import Starlette
from starlette.endpoints import HTTPEndpoint
from starlette.requests import Request

from cachemw import (
    CacheMiddleware,
    ImproperlyConfigured,
    Rule,
    cache,
    cache_control,
    cache_page,
    cached,
    conditional,
    fragment,
    never_cache,
    vary_on_cookie,
    vary_on_headers,
)
from cachemw._views.page import Page

DECORATORS: dict[str, Callable[..., Any]] = {
    "cache_page": cache_page(60),
    "cache_control": cache_control(public=True),
    "never_cache": never_cache,
    "vary_on_headers": vary_on_headers("Accept-Language"),
    "vary_on_cookie": vary_on_cookie,
    "conditional": conditional(etag=lambda *args: "v1"),
}


def view() -> str:
    return "a page"


async def coroutine_view(request: Request) -> Any:
    return None


# -- what is decorated ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", DECORATORS)
def test_a_view_keeps_its_kind_and_its_name(name: str) -> None:
    decorate = DECORATORS[name]
    assert not inspect.iscoroutinefunction(decorate(view))
    assert inspect.iscoroutinefunction(decorate(coroutine_view))
    assert decorate(view).__name__ == "view"
    assert decorate(view).__wrapped__ is view


class NoView:
    """A class of something else."""


async def generating() -> AsyncIterator[str]:
    yield "x"


@pytest.mark.parametrize("name", DECORATORS)
@pytest.mark.parametrize("wrong", [5, None, "view", staticmethod(view), NoView, generating], ids=repr)
def test_what_is_no_view_is_an_error_at_once(name: str, wrong: Any) -> None:
    with pytest.raises(TypeError, match=name):
        DECORATORS[name](wrong)


def test_forgotten_parentheses_are_an_error_at_once() -> None:
    with pytest.raises(TypeError, match=r"a number of seconds; got <function view.*Write cache_page\(60\)"):
        cache_page(view)  # type: ignore[arg-type]
    with pytest.raises(TypeError, match="not the name of a request field"):
        vary_on_headers(view)  # type: ignore[arg-type]
    with pytest.raises(TypeError):
        cache_control(view)  # type: ignore[call-arg, arg-type]


def test_errors_name_the_view_and_its_file() -> None:
    line = inspect.getsourcelines(view)[1]
    for wrong in (view, functools.partial(functools.partial(view))):
        with pytest.raises(TypeError, match=rf"tests\.test_views\.view \(.*test_views\.py:{line}\)"):
            cache_page(60)(wrong)()


def test_an_object_that_is_no_application_is_named_as_it_is() -> None:
    class Callable3:
        def __call__(self, *, only_by_name: int) -> str:
            return "x"

        def __repr__(self) -> str:
            return "<my object>"

    with pytest.raises(TypeError, match="<my object> was called without a request"):
        cache_page(60)(Callable3())(only_by_name=1)


@pytest.mark.parametrize(
    "outer",
    [vary_on_cookie, vary_on_headers("X"), never_cache, cache_control(private=True), cache_control(no_store=True)],
)
@pytest.mark.parametrize("kind", [view, coroutine_view, MethodView, HTTPEndpoint, Flask("x"), Starlette()], ids=repr)
def test_what_decides_about_storing_belongs_inside_of_cache_page(outer: Any, kind: Any) -> None:
    def fresh() -> Any:
        return type("Own", (kind,), {}) if isinstance(kind, type) else kind

    with pytest.raises(TypeError, match=r"is outside of cache_page on .*Write cache_page above"):
        outer(cache_page(60)(fresh()))
    cache_page(60)(outer(fresh()))


def test_also_with_another_decorator_in_between() -> None:
    def between(function: Any) -> Any:
        @functools.wraps(function)
        def wrapper() -> Any:
            return function()

        return wrapper

    with pytest.raises(TypeError, match="vary_on_cookie is outside of cache_page"):
        vary_on_cookie(between(cache_page(60)(view)))


def test_another_lifetime_for_caches_downstream_may_stand_outside() -> None:
    cache_control(max_age=10, public=True)(cache_page(900)(view))


@pytest.mark.parametrize("given", [{}, {"headers": []}, {"headers": ((b"vary", b"Accept"),)}], ids=repr)
@pytest.mark.parametrize("name", ["cache_control", "never_cache", "vary_on_headers", "vary_on_cookie"])
def test_the_fields_of_an_asgi_application_stay_octets(name: str, given: dict[str, Any]) -> None:
    sent: list[Any] = []

    async def app(scope: Any, receive: Any, send: Any) -> None:
        await send({"type": "http.response.start", "status": 204, **given})
        await send({"type": "http.response.body"})

    async def send(message: Any) -> None:
        sent.append(message)

    scope = {"type": "http", "method": "GET", "path": "/", "headers": []}
    asyncio.run(DECORATORS[name](app)(scope, None, send))
    fields = sent[0]["headers"]
    assert fields
    assert all(type(one) is bytes and one == one.lower() for one, _ in fields)
    assert all(type(value) is bytes for _, value in fields)


# -- arguments --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("timeout", ["soon", None, True, [60], -1, float("nan"), float("inf"), 10**400], ids=repr)
def test_a_timeout_that_is_none(timeout: Any) -> None:
    with pytest.raises(ImproperlyConfigured, match=r"cache_page: timeout is .*; allowed: a number of at least 0"):
        cache_page(timeout)


@pytest.mark.parametrize(
    "make",
    [
        lambda value: cache_page(value),
        lambda value: cached(value),
        lambda value: fragment("sidebar", [], value),
        lambda value: Rule("/", lifetime=value),
        lambda value: CacheMiddleware(Flask("x"), seconds=value),
    ],
)
def test_a_wrong_timeout_is_the_same_error_wherever_it_is_given(make: Callable[[Any], Any]) -> None:
    for timeout in ("soon", True, float("nan")):
        with pytest.raises(ImproperlyConfigured, match=f"is {timeout!r}; allowed: a number"):
            make(timeout)
    make("60")


@pytest.mark.parametrize(
    "make",
    [
        lambda value: cache_page(60, cache=value),
        lambda value: cached(60, cache=value),
        lambda value: fragment("sidebar", [], using=value),
        lambda value: CacheMiddleware(Flask("x"), cache=value),
    ],
)
def test_what_is_no_store_is_the_same_error_wherever_it_is_given(make: Callable[[Any], Any]) -> None:
    with pytest.raises(ImproperlyConfigured, match=r"3.*allowed.* the alias of a configured cache, a URL"):
        make(3)


def test_options_of_the_wrong_type() -> None:
    with pytest.raises(ImproperlyConfigured, match="cache_page: key_prefix is 5; allowed: a string"):
        cache_page(60, key_prefix=5)  # type: ignore[arg-type]
    with pytest.raises(TypeError, match="a list of strings, or a function"):
        cache_page(60, tags="news")
    with pytest.raises(TypeError, match="a list of strings, or a function"):
        cache_page(60, tags=5)  # type: ignore[arg-type]
    for tag in ("two words", "a,b", ""):
        with pytest.raises(ValueError, match="without spaces and commas"):
            cache_page(60, tags=[tag])
    with pytest.raises(TypeError):
        cache_page(60, "default")  # type: ignore[call-arg]


def test_a_url_that_leads_to_no_store() -> None:
    with pytest.raises(ImproperlyConfigured, match="nowhere"):
        cache_page(60, cache="nowhere://x")


def test_a_function_of_arguments_that_an_application_does_not_have() -> None:
    for whole in (Flask("x"), Starlette(), type("Own", (HTTPEndpoint,), {})):
        with pytest.raises(TypeError, match="tags of a class or an application are a list"):
            cache_page(60, tags=lambda: ["x"])(whole)


@pytest.mark.parametrize(
    ("directives", "message"),
    [
        ({"max_aeg": 5}, "did you mean max-age"),
        ({"max_age": "5"}, "a whole number of seconds"),
        ({"public": 1}, "True or False"),
        ({"only_if_cached": True}, "a directive of requests"),
    ],
)
def test_an_unknown_directive_or_one_of_the_wrong_type(directives: Any, message: str) -> None:
    with pytest.raises(TypeError, match=message):
        cache_control(**directives)


def test_directives_that_exclude_each_other() -> None:
    with pytest.raises(ValueError, match="exclude each other"):
        cache_control(public=True, private=True)


def test_vary_on_nothing_or_on_what_is_no_field() -> None:
    with pytest.raises(TypeError, match="name the request fields"):
        vary_on_headers()
    for wrong in ("Accept Language", "", 5, "a:b"):
        with pytest.raises(TypeError, match="not the name of a request field"):
            vary_on_headers(wrong)  # type: ignore[arg-type]


async def coroutine_application(scope: Any, receive: Any, send: Any) -> None:
    """Never called."""


async def coroutine_etag() -> str:
    return "v1"


def test_conditional_wants_functions() -> None:
    with pytest.raises(TypeError, match="give etag=, last_modified= or both"):
        conditional()
    with pytest.raises(TypeError, match="a function of the view's arguments is expected; got 'v1'"):
        conditional(etag="v1")  # type: ignore[arg-type]
    with pytest.raises(TypeError, match="is a plain view, so its functions have to be plain"):
        conditional(etag=coroutine_etag)(view)
    for whole in (Flask("x"), Starlette(), type("Own", (HTTPEndpoint,), {})):
        with pytest.raises(TypeError, match="decorates a function"):
            conditional(etag=lambda: "v1")(whole)
    with pytest.raises(TypeError, match="decorates a function"):
        conditional(etag=lambda: "v1")(lambda environ, start_response: [])({"REQUEST_METHOD": "GET"}, print)
    with pytest.raises(TypeError, match="decorates a function"):
        asyncio.run(conditional(etag=lambda: "v1")(coroutine_application)({"type": "http"}, print, print))


@pytest.mark.parametrize("etag", ['a"b', "ü" * 3 + "\n", "a\x00"])
def test_an_entity_tag_that_cannot_be_one(etag: str) -> None:
    app = Flask("x")
    with app.test_request_context(), pytest.raises(ValueError, match="cannot be an entity-tag"):
        conditional(etag=lambda: etag)(view)()


@pytest.mark.parametrize(
    "moment",
    [
        1_700_000_000,
        1_700_000_000.9,
        datetime(2023, 11, 14, 22, 13, 20, tzinfo=UTC),
        datetime(2023, 11, 14, 22, 13, 20),
    ],
)
def test_kinds_of_dates(moment: Any) -> None:
    app = Flask("x")
    with app.test_request_context():
        response: Any = conditional(last_modified=lambda: moment)(view)()
    assert response.headers["Last-Modified"] == "Tue, 14 Nov 2023 22:13:20 GMT"


# -- outside of a request ---------------------------------------------------------------------------------------------


def test_a_view_called_outside_of_any_request_says_so() -> None:
    with pytest.raises(TypeError, match="without a request of Flask's or Starlette's"):
        cache_page(60)(view)()
    with pytest.raises(TypeError, match=r"never_cache: the view .*, which has no headers"):
        never_cache(view)()


def test_a_dictionary_as_first_argument_makes_no_request() -> None:
    for arguments in (({"a": 1},), ({"a": 1}, 2), ({"a": 1}, 2, 3)):
        with pytest.raises(TypeError, match="without a request of Flask's or Starlette's"):
            cache_page(60)(lambda *args: "x")(*arguments)


def test_the_default_cache_by_its_own_name() -> None:
    """`cachemw.cache` stands for the default store, and is no other."""
    app = Flask("x")
    app.add_url_rule("/", view_func=cache_page(60, cache=cache)(view))
    client = app.test_client()
    cache.clear()
    client.get("/")
    assert "; hit" in client.get("/").headers["Cache-Status"]
    cache.clear()


def test_a_page_whose_cache_another_thread_has_made_meanwhile() -> None:
    page = Page(60, cache=None, key_prefix=None, tags=())
    made: list[object] = []

    def make(**options: Any) -> object:
        mine = object()
        made.append(mine)
        if len(made) == 1:
            page.open(make)
        return mine

    assert page.open(make) is page.open(make) is made[1]
    assert len(made) == 2


# -- types ------------------------------------------------------------------------------------------------------------

TYPED = """
from typing import assert_type
from collections.abc import Awaitable, Callable
from starlette.endpoints import HTTPEndpoint
from starlette.requests import Request
from starlette.responses import Response
from cachemw import cache_control, cache_page, conditional, never_cache, vary_on_cookie, vary_on_headers
from cachemw.integrations import fastapi

def plain(number: int, name: str = "") -> str: return name
async def task(request: Request) -> Response: return Response()

@cache_page(60, tags=["a"])
@cache_control(max_age=60, private=False)
@vary_on_headers("A", "B")
def decorated(number: int) -> str: return str(number)

@cache_page(60)
@never_cache
@vary_on_cookie
@conditional(etag=lambda request: "x")
async def decorated_task(request: Request) -> Response: return Response()

@cache_page(60)
class Endpoint(HTTPEndpoint):
    own = 5

@fastapi.cache_page(60)
@fastapi.never_cache
@fastapi.cache_control(public=True)
@fastapi.vary_on_headers("A")
@fastapi.vary_on_cookie
async def operation(item_id: int) -> dict[str, int]: return {}

assert_type(decorated(1), str)
assert_type(cache_page(60)(plain)(1, "a"), str)
assert_type(Endpoint.own, int)
async def use() -> None:
    assert_type(await decorated_task(Request({})), Response)
    assert_type(await operation(1), dict[str, int])
"""


@pytest.mark.parametrize(
    "command",
    [["mypy", "--strict", "--follow-imports=silent"], ["pyright", "--pythonpath", sys.executable]],
    ids=["mypy", "pyright"],
)
def test_decorators_keep_the_views_type(command: list[str], tmp_path: Path) -> None:
    right, wrong = tmp_path / "right.py", tmp_path / "wrong.py"
    right.write_text(TYPED)
    wrong.write_text(TYPED + "\ndecorated('one')\ncache_control(max_aeg=5)\n")
    files = [str(right), str(wrong)]
    root = Path(__file__).parents[1]
    done = subprocess.run(
        [sys.executable, "-m", *command, *files], cwd=root, capture_output=True, text=True, timeout=300
    )
    assert "2 errors" in done.stdout, done.stdout + done.stderr
    assert "right.py" not in done.stdout
