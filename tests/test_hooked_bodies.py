"""Bodies under hooks: what a hook reads of the request the application reads too, and a hook may read the response."""

from __future__ import annotations

import asyncio
import sys
from collections.abc import Callable, Iterable
from io import BytesIO
from typing import Any
from wsgiref.validate import validator

import pytest
from hypothesis import given
from hypothesis import strategies as st
from starlette.applications import Starlette
from starlette.responses import PlainTextResponse
from starlette.routing import Route
from starlette.testclient import TestClient
from werkzeug import Request, Response
from werkzeug.test import Client, EnvironBuilder, run_wsgi_app

from cachemw import Hooks, Policy, asgi, wsgi

Read = tuple[str, int]
READS = st.lists(st.tuples(st.sampled_from(["read", "readline"]), st.integers(-1, 9)), max_size=6)


def echo(environ: Any, start_response: Any) -> Iterable[bytes]:
    start_response("200 OK", [("Content-Type", "text/plain")])
    return [environ["wsgi.input"].read(int(environ.get("CONTENT_LENGTH") or 0))]


def cached(app: Any, hooks: Hooks, **options: Any) -> Any:
    return wsgi.CacheMiddleware(app, cache="dummy://", hooks=hooks, **options)


def before(hook: Callable[[Any], object]) -> Hooks:
    """Hooks that look at the request, and answer nothing."""
    hooks = Hooks()
    hooks.before_request(lambda request: (hook(request), None)[1])
    return hooks


@pytest.mark.parametrize(
    "hook",
    [
        lambda request: request.get_data(),
        lambda request: request.get_data(cache=False),
        lambda request: request.form["a"],
        lambda request: request.stream.read(3),
        lambda request: request.environ["wsgi.input"].readline(),
        lambda request: request.environ["wsgi.input"].read(2) + request.environ["wsgi.input"].readline(1),
        lambda request: request.headers,
    ],
)
def test_a_form_that_a_hook_has_read_reaches_the_application(hook: Callable[[Any], object]) -> None:
    app = validator(cached(validator(echo), before(hook)))
    answer = Client(app).post("/", data={"a": "1", "b": "2"}, buffered=True)
    assert answer.data == b"a=1&b=2"


def test_nothing_stands_between_the_application_and_a_body_that_no_hook_has_read() -> None:
    seen: list[Any] = []

    def app(environ: Any, start_response: Any) -> Iterable[bytes]:
        seen.append(environ["wsgi.input"])
        return echo(environ, start_response)

    environ = EnvironBuilder(method="POST", data=b"body").get_environ()
    given = environ["wsgi.input"]
    body, _, _ = run_wsgi_app(cached(app, before(lambda request: request.method)), environ, buffered=True)
    assert b"".join(body) == b"body"
    assert seen == [given]


def test_a_body_that_is_too_large_for_memory() -> None:
    upload = bytes(range(256)) * 20_000
    app = cached(echo, before(lambda request: request.get_data()))
    assert Client(app).post("/", data=upload, buffered=True).data == upload


def test_a_body_of_unknown_length() -> None:
    def app(environ: Any, start_response: Any) -> Iterable[bytes]:
        start_response("200 OK", [("Content-Type", "text/plain")])
        return environ["wsgi.input"].readlines()  # type: ignore[no-any-return]

    environ = EnvironBuilder(method="POST").get_environ()
    environ.pop("CONTENT_LENGTH", None)
    environ |= {
        "wsgi.input": BytesIO(b"one\ntwo\nthree"),
        "wsgi.input_terminated": True,
        "HTTP_TRANSFER_ENCODING": "chunked",
    }
    hooks = before(lambda request: request.stream.read(5))
    body, _, _ = run_wsgi_app(cached(app, hooks), environ, buffered=True)
    assert list(body) == [b"one\n", b"two\n", b"three"]


@given(st.binary(max_size=30).map(lambda data: data.replace(b"\0", b"\n")), READS, READS)
def test_in_whatever_pieces_both_read(data: bytes, first: list[Read], second: list[Read]) -> None:
    def read(stream: Any, reads: list[Read]) -> bytes:
        return b"".join(getattr(stream, how)(size) for how, size in reads)

    plain, got = BytesIO(data), []

    def app(environ: Any, start_response: Any) -> Iterable[bytes]:
        stream = environ["wsgi.input"]
        got.append((read(stream, second), stream.read(-1)))
        start_response("204 No Content", [])
        return []

    hooks = before(lambda request: read(request.environ["wsgi.input"], first))
    environ = EnvironBuilder(method="POST", data=data).get_environ()
    run_wsgi_app(cached(app, hooks), environ, buffered=True)
    assert got == [(read(plain, second), plain.read(-1))]


@pytest.mark.parametrize("answer", [None, Response("no", 403)])
def test_what_was_kept_is_let_go_of(answer: Response | None) -> None:
    kept: list[Any] = []

    def hook(request: Request) -> Response | None:
        kept.append(request.environ["wsgi.input"])
        request.get_data()
        return answer

    hooks = Hooks()
    hooks.before_request(hook)
    Client(cached(echo, hooks)).post("/", data=b"body", buffered=True)
    with pytest.raises(ValueError, match="closed file"):
        kept[0].read(1)


def test_an_after_hook_may_read_and_rewrite_the_body() -> None:
    hooks = Hooks()

    @hooks.after_request
    def shout(response: Response) -> None:
        response.set_data(response.get_data().upper())

    calls = []

    def app(environ: Any, start_response: Any) -> Iterable[bytes]:
        calls.append(environ)
        start_response("200 OK", [("Content-Type", "text/plain")])
        yield b""
        yield b"in two "
        yield b"parts"

    visitor = Client(wsgi.CacheMiddleware(app, cache="locmem://shouting", hooks=hooks))
    for _ in range(2):
        answer = visitor.get("/", buffered=True)
        assert (answer.data, answer.headers["Content-Length"]) == (b"IN TWO PARTS", "12")
    assert len(calls) == 1


@pytest.mark.parametrize(
    ("status", "fields"),
    [
        ("204 No Content", []),
        ("204 No Content", [("Cache-Control", "max-age=60"), ("X-Own", "1")]),
        ("304 Not Modified", [("ETag", '"1"')]),
        ("303 See Other", [("Location", "http://[::bad/x"), ("Content-Type", "text/plain")]),
        ("200 Fine", [("Content-Type", "text/plain"), ("Content-Location", "//[/"), ("Link", "<a>"), ("Link", "<b>")]),
    ],
)
def test_hooks_leave_the_fields_of_the_application_alone(status: str, fields: list[tuple[str, str]]) -> None:
    def app(environ: Any, start_response: Any) -> Iterable[bytes]:
        start_response(status, fields)
        return []

    hooks = Hooks()
    hooks.after_request(lambda response: response.headers.add("X-Hook", "1"))
    environ = EnvironBuilder().get_environ()
    _, told, headers = run_wsgi_app(validator(cached(app, hooks, policy=Policy(cache_status=None))), environ, True)
    own = [(name, value) for name, value in headers.to_wsgi_list() if name not in ("Expires", "Cache-Control")]
    assert told == status
    assert own == [(name, value) for name, value in fields if name != "Cache-Control"] + [("X-Hook", "1")]


def test_an_error_after_the_first_byte_is_the_servers() -> None:
    def app(environ: Any, start_response: Any) -> Iterable[bytes]:
        start_response("200 OK", [("Content-Type", "text/plain")])
        yield b"the first part"
        try:
            raise LookupError("late")
        except LookupError:
            start_response("500 Internal Server Error", [("Content-Type", "text/plain")], sys.exc_info())
        yield b"no page"

    seen: list[BaseException | None] = []
    hooks = Hooks()
    hooks.teardown_request(seen.append)
    result = cached(app, hooks)(EnvironBuilder().get_environ(), lambda *head: print)
    parts = iter(result)
    assert next(parts) == b"the first part"
    with pytest.raises(LookupError, match="late"):
        next(parts)
    result.close()
    assert [type(error) for error in seen] == [LookupError]


# -- ASGI -----------------------------------------------------------------------------------------------------------

PARTS = [
    {"type": "http.request", "body": b"a=1", "more_body": True},
    {"type": "http.request", "body": b"&b=2", "more_body": False},
    {"type": "http.disconnect"},
]


async def read_one(request: Any) -> None:
    async for _ in request.stream():
        break


async def read_form(request: Any) -> None:
    assert (await request.form())["a"] == "1"


async def read_body(request: Any) -> None:
    assert await request.body() == b"a=1&b=2"


async def read_nothing(request: Any) -> None: ...


@pytest.mark.parametrize("hook", [read_body, read_form, read_one, read_nothing])
def test_messages_that_a_hook_has_read_reach_the_application(hook: Any) -> None:
    got: list[Any] = []

    async def app(scope: Any, receive: Any, send: Any) -> None:
        got.extend([await receive() for _ in PARTS])
        await send({"type": "http.response.start", "status": 200, "headers": []})
        await send({"type": "http.response.body", "body": b""})

    hooks = Hooks()
    hooks.before_request(hook)
    sent: list[Any] = []

    async def request() -> None:
        messages = list(PARTS)

        async def receive() -> Any:
            return messages.pop(0)

        async def send(message: Any) -> None:
            sent.append(message)

        kind = (b"content-type", b"application/x-www-form-urlencoded")
        scope = {"type": "http", "method": "POST", "path": "/", "query_string": b"", "headers": [kind]}
        await asgi.CacheMiddleware(app, cache="dummy://", hooks=hooks)(scope, receive, send)

    asyncio.run(request())
    assert got == PARTS
    assert sent[0]["status"] == 200


def answered(hook: Any) -> Any:
    """What a visitor gets where this is the after hook."""
    hooks = Hooks()
    hooks.after_request(hook)
    app = Starlette(routes=[Route("/", lambda request: PlainTextResponse("a page"))])
    return TestClient(asgi.CacheMiddleware(app, cache="dummy://", hooks=hooks)).get("/")


def test_the_body_of_a_response_that_is_still_to_come_cannot_be_set() -> None:
    async def replace(response: Any) -> None:
        assert response.body == b""
        response.body = b"another page"

    with pytest.raises(AttributeError, match="return another response from the hook"):
        answered(replace)


def test_a_hook_changes_status_and_fields_or_returns_another_response() -> None:
    def change(response: Any) -> None:
        assert response.media_type is None
        response.status_code = 203
        response.set_cookie("seen", "1")
        response.headers["X-Hook"] = "was here"

    changed = answered(change)
    assert (changed.status_code, changed.text, changed.headers["X-Hook"]) == (203, "a page", "was here")
    assert changed.cookies["seen"] == "1"
    assert answered(lambda response: PlainTextResponse("another page", response.status_code)).text == "another page"
