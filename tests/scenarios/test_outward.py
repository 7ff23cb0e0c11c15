"""What leaves towards caches further out, a CDN or a browser: they keep what they are told, and look at no body."""

from __future__ import annotations

import asyncio
import sys
from collections.abc import Awaitable, Callable, Iterable, Iterator, Sequence
from typing import Any

import pytest
from asgiref.wsgi import WsgiToAsgi
from flask import Flask, Response, request, stream_with_context
from werkzeug.test import Client

from cachemw import Hooks, Policy, Rule, asgi, cache_page, wsgi
from cachemw.backends.locmem import LocMemCache
from tests.scenarios.conftest import Clock, Script, Site

bridge: Any = WsgiToAsgi  # it has no types

TOKEN = "alice.1-alicealicealice"
ALICE = {"Cookie": f"theme=dark; csrftoken={TOKEN}"}
FORM = f"<input value='{TOKEN}'>".encode()
PAGE = b"<p>everybody's page</p>"


def told(answer: Any) -> tuple[str | None, bool]:
    """For how long a cache further out is told to keep the response."""
    return answer["Cache-Control"], answer["Expires"] is not None


KEPT, UNTOLD = ("max-age=600", True), (None, False)

#: What is asked, what is answered, what leaves, and why the page is not stored (None: it is).
OUTWARD: dict[str, tuple[dict[str, str], Script, tuple[str | None, bool], str | None]] = {
    "a form of a length": (ALICE, Script(body=FORM, fields=[("Content-Length", str(len(FORM)))]), UNTOLD, "session"),
    "a page of a length": (ALICE, Script(body=PAGE, fields=[("Content-Length", str(len(PAGE)))]), KEPT, None),
    "a form in a stream": (ALICE, Script(body=[FORM[:9], FORM[9:]]), UNTOLD, None),
    "a page in a stream": (ALICE, Script(body=[PAGE[:9], PAGE[9:]]), UNTOLD, None),
    "a form in two parts": (
        ALICE,
        Script(body=[FORM[:9], FORM[9:]], fields=[("Content-Length", str(len(FORM)))]),
        UNTOLD,
        None,
    ),
    "a page in a stream without cookies": ({}, Script(body=[PAGE[:9], PAGE[9:]]), KEPT, None),
    "a form of another length": (ALICE, Script(body=FORM, fields=[("Content-Length", "5")]), UNTOLD, None),
    "a form that varies": (ALICE, Script(body=[FORM], fields=[("Vary", "Cookie")]), KEPT, None),
    "a form that says for how long": (
        ALICE,
        Script(body=[FORM], fields=[("Cache-Control", "max-age=5")]),
        ("max-age=5", False),
        None,
    ),
    "nothing": (ALICE, Script(body=[], fields=[("Content-Length", "0")]), KEPT, None),
}


@pytest.mark.parametrize("which", OUTWARD)
def test_the_lifetime_that_was_chosen_leaves_only_with_what_is_for_everybody(site: Site, which: str) -> None:
    asked, script, leaves, refused = OUTWARD[which]
    site.answers(script)
    answer = site.get("/", asked)
    assert (told(answer), answer.body) == (leaves, b"".join(script.chunks))
    assert ("; stored" in answer.trace, answer.trace.partition("detail=")[2] or None) == (refused is None, refused)


def test_what_was_stored_of_a_stream_leaves_with_its_lifetime(site: Site) -> None:
    site.page([PAGE[:9], PAGE[9:]])
    site.get("/", ALICE)
    for asked in ({}, ALICE):
        answer = site.get("/", asked)
        assert (answer.hit, told(answer)) == (True, KEPT)


def test_what_head_is_answered_is_not_known_to_be_everybody_s(site: Site) -> None:
    site.answers(Script(body=FORM, fields=[("Content-Length", str(len(FORM)))]))
    assert told(site.request("HEAD", "/", ALICE)) == UNTOLD
    assert told(site.request("HEAD", "/other")) == KEPT


def test_nor_is_what_is_too_large_to_be_looked_through(site: Site) -> None:
    site.build(policy=Policy(max_body=10))
    site.answers(Script(body=PAGE, fields=[("Content-Length", str(len(PAGE)))]))
    assert told(site.get("/", ALICE)) == UNTOLD
    assert told(site.get()) == KEPT


def test_django_says_for_how_long_whatever_it_shows(site: Site) -> None:
    site.build(policy=Policy.django())
    site.answers(Script(body=FORM, fields=[("Content-Length", str(len(FORM)))]))
    assert told(site.get("/", ALICE)) == KEPT
    assert site.get("/", ALICE).body == FORM


@pytest.mark.parametrize("varies", [[], [("Vary", "Cookie")]])
def test_nor_is_the_form_with_a_token_that_is_only_just_set(site: Site, varies: list[tuple[str, str]]) -> None:
    """A rule strips it, as others are not to have it, and the form has it all the same."""
    site.build(rules=[Rule(set_cookie="strip")])
    cookie = ("Set-Cookie", f"csrftoken={TOKEN}; Path=/; Secure")
    for path, body, leaves, hit in (("/form", FORM, UNTOLD, False), ("/page", PAGE, KEPT, True)):
        site.answers(Script(body=body, fields=[("Content-Length", str(len(body))), cookie, *varies]))
        answer = site.get(path)
        assert (told(answer), answer["Set-Cookie"]) == (leaves, cookie[1])
        assert site.get(path).hit is hit


def test_a_store_that_keeps_nothing_lets_the_same_leave(site: Site) -> None:
    site.build(cache="dummy://")
    site.respond = lambda asked: _measured(FORM if asked.path == "/form" else PAGE)
    assert told(site.get("/form", ALICE)) == UNTOLD
    assert told(site.get("/page", ALICE)) == KEPT


def test_an_application_that_fails_before_its_body_is_stood_in_for(site: Site) -> None:
    site.build(policy=Policy(stale_if_error=600))
    fields = [("Content-Length", str(len(PAGE)))]
    site.answers(Script(body=PAGE, fields=fields), Script(body=[], fields=fields, error=RuntimeError("no database")))
    site.get("/", ALICE)
    site.clock.advance(601)
    answer = site.get("/", ALICE)
    assert (answer.status, answer.body, answer.error) == (200, PAGE, None)
    assert "stored" not in answer.trace
    site.clock.advance(601)
    answer = site.get("/", ALICE)
    assert str(answer.error) == "no database"
    assert answer.body == b""


def test_two_caches_in_a_row_find_it_out_once_each(site: Site) -> None:
    module: Any = wsgi if site.interface == "wsgi" else asgi

    def around(app: Any, interface: str) -> Any:
        caches = [LocMemCache(f"outward-{interface}-{n}") for n in range(2)]
        return module.CacheMiddleware(module.CacheMiddleware(app, cache=caches[0]), cache=caches[1])

    site.build(around=around)
    site.respond = lambda asked: _measured(FORM if asked.path == "/form" else PAGE)
    assert told(site.get("/form", ALICE)) == UNTOLD
    assert told(site.get("/page", ALICE)) == KEPT


def test_a_lifetime_that_a_cache_further_in_chose_leaves_only_if_this_one_agrees(site: Site) -> None:
    """It knows more names of sessions, more rules, and what is written into a page on its way out."""
    module: Any = wsgi if site.interface == "wsgi" else asgi
    pages = {"/": b"a page", "/cart": b"a page", "/form": FORM}

    def around(app: Any, interface: str) -> Any:
        inner = module.CacheMiddleware(app, cache=LocMemCache(f"outward-less-{interface}"), policy=Policy(patch=True))
        options: dict[str, Any] = {
            "policy": Policy(session_cookies=("membership",)),
            "rules": [Rule("/cart", never=True)],
        }
        return module.CacheMiddleware(
            written_on(inner, interface), cache=LocMemCache(f"outward-more-{interface}"), **options
        )

    def written_on(app: Any, interface: str) -> Any:
        """As by a middleware that hides the cookies from what is further in, and writes one of them into forms."""

        def plain(environ: Any, start_response: Any) -> Any:
            environ.pop("HTTP_COOKIE", None)
            return app(environ, start_response)

        async def coroutine(scope: Any, receive: Any, send: Any) -> None:
            await app({**scope, "headers": [pair for pair in scope["headers"] if pair[0] != b"cookie"]}, receive, send)

        return plain if interface == "wsgi" else coroutine

    site.build(around=around)
    site.respond = lambda asked: _measured(pages[asked.path])
    assert told(site.get("/", {"Cookie": "membership=1"})) == UNTOLD
    assert told(site.get("/", ALICE)) == KEPT
    assert told(site.get("/form", ALICE)) == UNTOLD
    assert told(site.get("/cart")) == UNTOLD
    assert told(site.get("/form")) == KEPT
    site.page(cache_control="max-age=60", cdn_cache_control="public")  # what browsers are told is not chosen
    assert told(site.get("/cdn", {"Cookie": "membership=1"})) == ("max-age=60", False)


def test_halves_apart_find_it_out(site: Site) -> None:
    module: Any = wsgi if site.interface == "wsgi" else asgi

    def around(app: Any, interface: str) -> Any:
        cache = LocMemCache(f"outward-halves-{interface}")
        return module.UpdateCacheMiddleware(module.FetchFromCacheMiddleware(app, cache=cache), cache=cache)

    site.build(around=around)
    site.respond = lambda asked: _measured(FORM if asked.path == "/form" else PAGE)
    assert told(site.get("/form", ALICE)) == UNTOLD
    assert told(site.get("/page", ALICE)) == KEPT


def _measured(body: bytes) -> Script:
    return Script(body=body, fields=[("Content-Length", str(len(body)))])


def test_what_is_said_to_browsers_beside_a_targeted_field_leaves_as_it_is(site: Site) -> None:
    """The lifetime is chosen, as CDN-Cache-Control states none, and Cache-Control is none of this cache's business."""
    fields = [("CDN-Cache-Control", "public"), ("Cache-Control", "max-age=60"), ("ETag", '"a"')]
    site.answers(Script(fields=fields), Script(304, [("CDN-Cache-Control", "&"), ("ETag", '"a"')], b""))
    answer = site.get()
    assert (told(answer), answer.trace[-7:]) == (("max-age=60", False), "ttl=600")
    site.clock.advance(601)
    assert site.get().trace.endswith("ttl=60")  # now nothing is targeted


@pytest.mark.parametrize("kind", ["before_request", "after_request", "teardown_request"])
def test_a_page_that_hooks_may_guard_leaves_with_no_lifetime_that_nobody_asked_for(site: Site, kind: str) -> None:
    """A login check guards what is stored here; a CDN would show it to everybody."""
    hooks = Hooks()
    getattr(hooks.scope("/members", name="members"), kind)(lambda what: None)
    site.build(hooks=hooks)
    site.respond = lambda asked: _measured(PAGE)
    for _ in range(2):
        assert told(site.get("/members/only", ALICE)) == (KEPT if kind == "teardown_request" else UNTOLD)
        assert told(site.get("/members/whoever")) == told(site.get("/elsewhere", ALICE)) == KEPT
    assert site.get("/members/only", ALICE).hit
    site.page(cache_control="public, max-age=60")
    assert told(site.get("/members/for-all", ALICE)) == ("public, max-age=60", False)


@pytest.mark.parametrize("rule", [Rule("/*", never=True), Rule(content_types="text/html", never=True)])
@pytest.mark.parametrize("says", [None, "no-transform", "max-age=60"])
def test_what_a_rule_never_stores_leaves_as_it_is(site: Site, says: str | None, rule: Rule) -> None:
    site.build(rules=[rule]).answers(Script(fields=[("Cache-Control", says)] if says else []))
    for method in ("GET", "HEAD", "POST"):
        assert told(site.request(method)) == (says, False)


# -- nothing is held back ----------------------------------------------------------------------------------------------


def ask_wsgi(app: Any, left: list[Any], *, cache: Any = None) -> None:
    """Ask as a server does that sends what it has."""
    environ = {"REQUEST_METHOD": "GET", "PATH_INFO": "/", "SERVER_NAME": "localhost", "SERVER_PORT": "80"}
    environ |= {"wsgi.url_scheme": "http", "HTTP_COOKIE": ALICE["Cookie"]}

    def start(status: str, headers: list[tuple[str, str]], exc_info: Any = None) -> Callable[[bytes], None]:
        left.append(("head", dict(headers).get("Cache-Control")))
        return left.append

    body = wsgi.CacheMiddleware(app, cache=cache or LocMemCache(f"outward-{id(left)}"))(environ, start)
    left.extend(body)
    body.close()  # type: ignore[attr-defined]


def in_a_list(parts: Sequence[bytes]) -> Any:
    def app(environ: Any, start_response: Any) -> Iterable[bytes]:
        start_response("200 OK", [("Content-Type", "text/html")])
        return list(parts)

    return app


@pytest.mark.parametrize(("body", "leaves"), [(FORM, None), (PAGE, "max-age=600")])
def test_a_list_is_the_whole_body(body: bytes, leaves: str | None) -> None:
    for parts in ([body], [body[:5], b"", body[5:]]):
        left: list[Any] = []
        ask_wsgi(in_a_list(parts), left)
        assert left == [("head", leaves), *parts]


@pytest.mark.parametrize(("body", "leaves"), [(FORM, None), (PAGE, "max-age=600")])
@pytest.mark.parametrize("way", ["late", "write", "write, and then more"])
def test_the_ways_of_old_applications_to_say_the_same(body: bytes, leaves: str | None, way: str) -> None:
    fields = [("Content-Type", "text/html"), ("Content-Length", str(len(body)))]

    def late(environ: Any, start_response: Any) -> Iterator[bytes]:
        start_response("200 OK", fields)
        yield body

    def writing(environ: Any, start_response: Any) -> Iterable[bytes]:
        write = start_response("200 OK", fields)
        for part in [body] if way == "write" else [body[:5], body[5:]]:
            write(part)
        return []

    left: list[Any] = []
    ask_wsgi(late if way == "late" else writing, left)
    assert left[0] == ("head", None if way == "write, and then more" else leaves)
    assert b"".join(left[1:]) == body


def test_an_application_that_thinks_better_of_its_head_sends_the_other() -> None:
    left: list[Any] = []
    error = b"something went wrong"

    def app(environ: Any, start_response: Any) -> Iterable[bytes]:
        start_response("200 OK", [("Content-Type", "text/html"), ("Content-Length", str(len(error)))])
        return parts(start_response)

    def parts(start_response: Any) -> Iterator[bytes]:
        try:
            raise RuntimeError("no database")
        except RuntimeError:
            start_response("500 Sorry", [("Content-Type", "text/plain"), ("Cache-Control", "no-store")], sys.exc_info())
        yield error

    cache = LocMemCache("outward-anew")
    ask_wsgi(app, left, cache=cache)
    assert left == [("head", "no-store"), error]
    ask_wsgi(in_a_list([PAGE]), left := [], cache=cache)
    assert left == [("head", "max-age=600"), PAGE]


def test_a_stale_page_stands_in_for_an_application_that_thinks_better_of_its_head(clock: Clock) -> None:
    site = Site("wsgi", clock)
    anew: list[bool] = []

    def around(app: Any, interface: str) -> Any:
        def failing(environ: Any, start_response: Any) -> Iterable[bytes]:
            start_response("200 OK", [("Content-Type", "text/html"), ("Content-Length", "4")])
            return parts(start_response) if anew else [b"page"]

        def parts(start_response: Any) -> Iterator[bytes]:
            start_response("503 Sorry", [("Content-Type", "text/plain")], (RuntimeError, RuntimeError(), None))
            yield b"busy"

        return wsgi.CacheMiddleware(failing, cache=LocMemCache("outward-stand-in"), policy=Policy(stale_if_error=60))

    site.build(around=around)
    site.get("/", ALICE)
    site.clock.advance(601)
    anew.append(True)
    answer = site.get("/", ALICE)
    assert (answer.status, answer.body) == (200, b"page")


def test_an_application_that_writes_while_its_body_is_made_has_one_head() -> None:
    """PEP 3333 forbids it, and some do it."""
    left: list[Any] = []

    def app(environ: Any, start_response: Any) -> Iterable[bytes]:
        return parts(start_response("200 OK", [("Content-Type", "text/html"), ("Content-Length", "9")]))

    def parts(write: Callable[[bytes], object]) -> Iterator[bytes]:
        write(b"first")
        yield b"last"

    ask_wsgi(app, left)
    assert left == [("head", None), b"first", b"last"]


def test_a_slow_stream_of_wsgi_leaves_as_it_is_made() -> None:
    left: list[Any] = []

    def app(environ: Any, start_response: Any) -> Iterable[bytes]:
        start_response("200 OK", [("Content-Type", "text/html")])
        assert not left
        return parts()

    def parts() -> Iterator[bytes]:
        assert left == [("head", None)], "the head of a stream without a length waits for nothing"
        yield b"first"
        assert left[1:] == [b"first"]
        yield b"last"

    ask_wsgi(app, left)
    assert left[1:] == [b"first", b"last"]


def test_a_slow_stream_of_wsgi_with_a_length_does_too() -> None:
    left: list[Any] = []

    def app(environ: Any, start_response: Any) -> Iterator[bytes]:
        start_response("200 OK", [("Content-Type", "text/html"), ("Content-Length", "9")])
        yield b"first"
        assert left == [("head", None), b"first"]
        yield b"last"

    ask_wsgi(app, left)
    assert left[1:] == [b"first", b"last"]


def scope_of_alice() -> dict[str, Any]:
    cookie = (b"cookie", ALICE["Cookie"].encode())
    return {"type": "http", "method": "GET", "scheme": "http", "path": "/", "query_string": b"", "headers": [cookie]}


async def receive_nothing() -> dict[str, Any]:
    return {"type": "http.request", "body": b"", "more_body": False}


def ask_asgi(app: Any, left: list[Any]) -> BaseException | None:
    """Ask as a server does that sends each message as it comes."""

    async def send(message: Any) -> None:
        if message["type"] == "http.response.start":
            left.append(("head", dict(message["headers"]).get(b"cache-control")))
        else:
            left.append(message.get("body", message["type"]))

    try:
        cached = asgi.CacheMiddleware(app, cache=LocMemCache(f"outward-{id(left)}"))
        asyncio.run(cached(scope_of_alice(), receive_nothing, send))
    except RuntimeError as error:
        return error
    return None


Sending = Callable[[Any], Awaitable[None]]


def head(*, length: int | None = None, kind: bytes = b"text/html", **more: Any) -> dict[str, Any]:
    fields = [(b"content-type", kind)]
    fields += [] if length is None else [(b"content-length", str(length).encode())]
    return {"type": "http.response.start", "status": 200, "headers": fields, **more}


def body_of(part: bytes, *, more: bool = False) -> dict[str, Any]:
    return {"type": "http.response.body", "body": part, "more_body": more}


@pytest.mark.parametrize("kind", [b"text/html", b"text/event-stream"])
def test_a_slow_stream_of_asgi_leaves_as_it_is_made(kind: bytes) -> None:
    left: list[Any] = []

    async def app(scope: Any, receive: Any, send: Sending) -> None:
        await send(head(kind=kind))
        assert left == [("head", None)]
        for part in (b"first", b"second"):
            await send(body_of(part, more=True))
            assert left[-1] == part
        await send(body_of(b""))

    assert ask_asgi(app, left) is None
    assert left[1:] == [b"first", b"second", b""]


def test_events_with_a_length_wait_for_nothing() -> None:
    left: list[Any] = []

    async def app(scope: Any, receive: Any, send: Sending) -> None:
        await send(head(kind=b"text/event-stream", length=6))
        assert left == [("head", None)]
        await send(body_of(b"data:\n"))

    assert ask_asgi(app, left) is None


@pytest.mark.parametrize(("body", "leaves"), [(FORM, None), (PAGE, b"max-age=600")])
@pytest.mark.parametrize("ends", [True, False])
def test_a_head_with_a_length_leaves_with_the_first_part_of_the_body(
    body: bytes, leaves: bytes | None, ends: bool
) -> None:
    left: list[Any] = []

    async def app(scope: Any, receive: Any, send: Sending) -> None:
        await send(head(length=len(body)))
        await send(body_of(body, more=not ends))
        assert left == [("head", leaves), body]
        if not ends:
            await send(body_of(b""))

    assert ask_asgi(app, left) is None


@pytest.mark.parametrize("more", [None, RuntimeError("no database")])
def test_a_head_waits_for_a_moment_only(more: Exception | None) -> None:
    """The application waits for what the client does when it has got the head."""
    left: list[Any] = []
    arrived = asyncio.Event()

    class Left(list[Any]):
        def append(self, what: Any) -> None:
            left.append(what)
            arrived.set()

    async def app(scope: Any, receive: Any, send: Sending) -> None:
        await send(head(length=len(PAGE)))
        await asyncio.wait_for(arrived.wait(), 10)
        assert left == [("head", None)]
        if more is not None:
            raise more
        await send(body_of(PAGE))

    assert ask_asgi(app, Left()) is more
    assert left == [("head", None), *([PAGE] if more is None else [])]


def test_a_head_that_leaves_while_the_body_comes_leaves_before_it() -> None:
    """The server takes a while for it: its buffer is full."""
    left: list[Any] = []
    taking, taken = asyncio.Event(), asyncio.Event()

    async def app(scope: Any, receive: Any, send: Sending) -> None:
        await send(head(length=len(PAGE)))
        await taking.wait()
        asyncio.get_running_loop().call_soon(taken.set)
        await send(body_of(PAGE))

    async def send(message: Any) -> None:
        if message["type"] == "http.response.start":
            taking.set()
            await taken.wait()
        left.append(message["type"])

    async def ask() -> None:
        cached = asgi.CacheMiddleware(app, cache=LocMemCache("outward-slow-server"))
        await cached(scope_of_alice(), receive_nothing, send)

    asyncio.run(ask())
    assert left == ["http.response.start", "http.response.body"]


@pytest.mark.parametrize("failing", [False, True])
def test_an_application_that_is_stopped_leaves_no_head_behind(failing: bool) -> None:
    """Stopped by who has called it, or by an error of its own, while the server has not taken the head."""
    taking = asyncio.Event()

    async def app(scope: Any, receive: Any, send: Sending) -> None:
        await send(head(length=len(PAGE)))
        await taking.wait()
        if failing:
            raise RuntimeError("no database")
        await asyncio.Event().wait()

    async def send(message: Any) -> None:
        taking.set()
        await asyncio.Event().wait()

    async def ask() -> set[Any]:
        cached = asgi.CacheMiddleware(app, cache=LocMemCache(f"outward-stopped-{failing}"))
        task = asyncio.ensure_future(cached(scope_of_alice(), receive_nothing, send))
        await taking.wait()
        if not failing:
            task.cancel()
        await asyncio.wait([task])
        assert task.cancelled() is not failing
        await asyncio.sleep(0)
        return asyncio.all_tasks() - {asyncio.current_task()}

    assert asyncio.run(ask()) == set()


def test_a_head_that_waits_is_the_one_that_was_given() -> None:
    left: list[Any] = []

    async def app(scope: Any, receive: Any, send: Sending) -> None:
        message = head(length=len(PAGE))
        await send(message)
        message["headers"].insert(0, (b"cache-control", b"public, max-age=86400"))  # for the next one, perhaps
        await send(body_of(PAGE))

    assert ask_asgi(app, left) is None
    assert left[0] == ("head", b"max-age=600")


OTHERS = [
    {"type": "http.response.early_hint", "links": [b"</a.css>; rel=preload"]},
    {"type": "http.response.debug", "info": {}},
    {"type": "http.response.pathsend", "path": "/nowhere"},
    {"type": "http.response.zerocopysend", "file": 1},
    {"type": "http.response.start", "status": 500, "headers": []},
    {"type": "http.response.unheard-of"},
]


@pytest.mark.parametrize("message", OTHERS, ids=lambda message: str(message["type"]))
def test_a_head_waits_for_no_other_message(message: dict[str, Any]) -> None:
    left: list[Any] = []

    async def app(scope: Any, receive: Any, send: Sending) -> None:
        await send(head(length=9))
        await send(message)
        assert left[0] == ("head", None)
        assert len(left) == 2

    ask_asgi(app, left)


def test_a_head_leaves_of_an_application_that_ends_without_a_body() -> None:
    left: list[Any] = []

    async def app(scope: Any, receive: Any, send: Sending) -> None:
        await send(head(length=9))

    assert ask_asgi(app, left) is None
    assert left == [("head", None)]


def test_a_head_of_an_application_that_fails_first_is_not_sent_so_that_an_error_can_be() -> None:
    left: list[Any] = []

    async def app(scope: Any, receive: Any, send: Sending) -> None:
        await send(head(length=9))
        raise RuntimeError("no database")

    assert str(ask_asgi(app, left)) == "no database"
    assert left == []


# -- what is seen of an application -----------------------------------------------------------------------------------


NONCE = "cmFuZG9tbHkgY2hvc2Vu"


@pytest.mark.parametrize("timeout", [None, 60])
def test_a_number_used_once_leaves_with_no_lifetime_of_ours(timeout: int | None) -> None:
    """Flask-Talisman makes it when the request comes, and names it in a field further out."""
    app = Flask("outward")

    @app.before_request
    def choose() -> None:
        request.csp_nonce = NONCE  # type: ignore[attr-defined]

    pages: dict[str, Callable[[], Any]] = {
        "/script": lambda: f"<script nonce={NONCE}>",
        "/plain": lambda: "no script",
        "/stream": lambda: Response(iter(["<script ", f"nonce={NONCE}>"])),
    }
    for path, page in pages.items():
        page.__name__ = path
        app.add_url_rule(path, path[1:], cache_page(timeout)(page) if timeout else page)
    app.wsgi_app = wsgi.CacheMiddleware(app.wsgi_app, cache=LocMemCache(f"outward-nonce-{timeout}"))  # type: ignore[method-assign]
    leaves = {path: app.test_client().get(path, buffered=True).headers.get("Cache-Control") for path in pages}
    assert leaves == {"/script": None, "/plain": f"max-age={timeout or 600}", "/stream": None}
    again = {path: app.test_client().get(path, buffered=True).headers["Cache-Status"] for path in pages}
    assert [path for path, trace in again.items() if "; hit" in trace] == ["/plain"]


def test_what_was_read_for_the_body_is_known_before_the_head_leaves() -> None:
    app = Flask("outward")

    @app.get("/")
    def view() -> Response:
        def parts() -> Iterator[str]:
            yield request.accept_languages.best_match(["de", "en"]) or "no"

        return Response(stream_with_context(parts()), headers={"Content-Length": "2"})

    client = Client(wsgi.CacheMiddleware(app.wsgi_app, cache=LocMemCache("outward-read")), use_cookies=False)
    answer = client.get("/", headers={"Accept-Language": "de", "Cookie": "theme=dark"}, buffered=True)
    assert (answer.headers.get("Cache-Control"), answer.headers["Cache-Status"][-6:]) == (None, "l=late")
    assert client.get("/", headers={"Accept-Language": "en"}).text == "en"
