"""What an enemy would try on the middlewares: flights that never land, halves around each other, odd calls."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable, Iterable, Iterator
from io import BytesIO
from itertools import count
from typing import Any
from wsgiref.util import FileWrapper

import pytest

from cachemw import Hooks, Policy, asgi, purge, wsgi
from cachemw.backends.locmem import LocMemCache
from cachemw.rfc9111.keys import lease_key, mark_key, primary_key
from cachemw.rfc9111.messages import HitForMiss, Mark
from tests.scenarios.conftest import Script, Site
from tests.scenarios.test_halves_hooks_locale import halves
from tests.scenarios.test_staleness import wait_for_refreshes

names = count()


def shell(site: Site) -> Any:
    return wsgi if site.interface == "wsgi" else asgi


def flights_of(middleware: Any) -> int:
    return sum(len(line.flights) for line in middleware.caching.lines)


class Shared(LocMemCache):
    """Local memory that other processes are said to see: leases, marks and hit-for-miss records are kept in it."""

    shared = True


def environ_of(path: str = "/", **variables: Any) -> dict[str, Any]:
    return {
        "REQUEST_METHOD": "GET",
        "SCRIPT_NAME": "",
        "PATH_INFO": path,
        "QUERY_STRING": "",
        "HTTP_HOST": "example.org",
        "wsgi.url_scheme": "http",
        "wsgi.input": BytesIO(),
        **variables,
    }


def scope_of(path: str = "/", **parts: Any) -> dict[str, Any]:
    return {
        "type": "http",
        "method": "GET",
        "scheme": "http",
        "path": path,
        "raw_path": path.encode(),
        "query_string": b"",
        "root_path": "",
        "headers": [(b"host", b"example.org")],
        **parts,
    }


class Sent(list[Any]):
    """The messages that an ASGI server got."""

    async def __call__(self, message: Any) -> None:
        self.append(message)

    @property
    def body(self) -> bytes:
        return b"".join(message.get("body", b"") for message in self)

    @property
    def trace(self) -> str:
        return next((v.decode() for n, v in reversed(self[0]["headers"]) if n == b"cache-status"), "")


async def no_body() -> Any:
    return {"type": "http.request", "body": b"", "more_body": False}


def ask_asgi(middleware: Any, receive: Any = no_body, **parts: Any) -> Sent:
    sent = Sent()
    asyncio.run(middleware(scope_of(**parts), receive, sent))
    return sent


def ask_wsgi(middleware: Any, path: str = "/", **variables: Any) -> tuple[str, dict[str, str], bytes]:
    head: list[Any] = []
    written: list[bytes] = []

    def start(status: str, headers: list[tuple[str, str]], exc_info: Any = None) -> Any:
        assert not head, "start_response was called twice"
        head[:] = status, dict(headers)
        return written.append

    result = middleware(environ_of(path, **variables), start)
    try:
        body = b"".join(result)
    finally:
        getattr(result, "close", bool)()
    return head[0], head[1], b"".join(written) + body


# -- flights --------------------------------------------------------------------------------------------------------


def test_an_after_hook_that_fails_does_not_hold_the_page_for_ever(site: Site) -> None:
    hooks = Hooks()
    failing = [True]

    @hooks.after_request
    def fails(response: Any) -> None:
        if failing:
            raise RuntimeError("the hook")

    site.build(hooks=hooks)
    site.page([b"a", b"b"])
    assert isinstance(site.get().error, RuntimeError)
    assert flights_of(site.middleware) == 0
    failing.clear()
    assert "stored" in site.get().trace


class TimeIsUp(BaseException):
    """What gevent and some servers throw into whoever takes too long."""


def test_whatever_ends_a_leader_that_waits_lands_its_flight(site: Site) -> None:
    """It may come out of nowhere, also while the leader waits for another process's answer."""
    site.build(cache=Shared(f"shell-{next(names)}"))

    def ended(*arguments: Any) -> Any:
        raise TimeIsUp

    site.middleware.caching.line.pages.take_lease = ended
    ask: Any = ask_wsgi if site.interface == "wsgi" else ask_asgi
    with pytest.raises(TimeIsUp) as reported:  # to somebody who keeps it, and so all that was under way
        ask(site.middleware)
    assert flights_of(site.middleware) == 0
    del reported


def test_a_flight_whose_leader_was_forgotten_holds_each_page_up_once(site: Site) -> None:
    """A server that never closes what it was given must not cost every later visitor the whole time-out."""
    site.build(policy=Policy(collapse_timeout=0.05))
    site.page([b"a", b"b"])
    line = site.middleware.caching.line
    join = line.flights.join
    joined: list[bool] = []

    def counted(key: str) -> Any:
        flight, leads = join(key)
        joined.append(leads)
        return flight, leads

    line.flights.join = counted
    key = next(iter(_keys_of(site)))
    joined.clear()
    join(key)  # a leader of whom nothing is heard any more
    site.get()
    assert joined
    assert not any(joined)
    joined.clear()
    site.cache.clear()
    site.get()
    assert joined == [True]
    assert len(line.flights) == 0


def _keys_of(site: Site) -> Iterator[str]:
    """The key on which the next request for "/" would board."""
    seen: list[str] = []
    line = site.middleware.caching.line
    join = line.flights.join

    def told(key: str) -> Any:
        seen.append(key)
        return join(key)

    line.flights.join = told
    site.get()
    line.flights.join = join
    site.clock.advance(3_600)
    yield from seen


@pytest.mark.parametrize("why", ["too large", "a rule", "a file", "broken"])
def test_what_is_never_stored_is_not_waited_for_twice(site: Site, why: str) -> None:
    """Each visitor waiting for the head of another's answer, which is of no use to him, doubles all times."""
    fields = [("Content-Length", "7")] if why == "broken" else []
    site.build(policy=Policy(max_body=2), rules=[{"statuses": [200], "never": True}] if why == "a rule" else [])
    site.answers(Script(fields=fields, body=b"body" if why != "broken" else b"x"))
    if why == "a file":
        if site.interface == "wsgi":

            def app(environ: Any, start_response: Any) -> Iterable[bytes]:
                start_response("200 OK", [])
                wrapped: Iterable[bytes] = environ["wsgi.file_wrapper"](BytesIO(b"file"))
                return wrapped

            site.middleware.app = app
            wrapper: Any = {"wsgi.file_wrapper": FileWrapper}
            ask: Callable[[], Any] = lambda: ask_wsgi(site.middleware, **wrapper)  # noqa: E731
        else:

            async def sends_file(scope: Any, receive: Any, send: Any) -> None:
                await send({"type": "http.response.start", "status": 200, "headers": []})
                await send({"type": "http.response.pathsend", "path": "/a"})

            site.middleware.app = sends_file
            ask = lambda: ask_asgi(site.middleware)  # noqa: E731
    else:
        ask = site.get
    ask()
    line = site.middleware.caching.line
    line.flights.join = None  # who boards now fails
    assert getattr(ask(), "error", None) is None


# -- halves and caches around each other ----------------------------------------------------------------------------


def test_a_validated_page_is_not_stored_again_by_the_outer_half(site: Site) -> None:
    """The stored copy carries our own max-age; taken for the application's it would be shared with sessions."""
    halves(site)
    site.answers(Script(fields=[("ETag", '"1"')], body=b"anonymous"), Script(304, [("ETag", '"1"')]))
    site.get()
    site.clock.advance(700)
    assert site.get().body == b"anonymous"
    site.page(b"of Bob")
    assert site.get("/", {"Cookie": "session=bob"}).body == b"of Bob"
    assert site.get().body == b"anonymous"


def test_the_outer_half_refreshes_a_stale_page_in_the_background(site: Site) -> None:
    halves(site)
    site.page(b"old", cache_control="max-age=10, stale-while-revalidate=60")
    site.get()
    site.clock.advance(20)
    site.page(b"new", cache_control="max-age=10, stale-while-revalidate=60")
    assert site.get("/", {"Cookie": "session=bob"}).body == b"old"
    wait_for_refreshes(site)
    assert site.get().body == b"new"
    assert site.get().hit
    assert [call.fields.get("cookie") for call in site.calls] == [None, None]


def test_a_crowd_before_two_halves_calls_the_application_once() -> None:
    """The inner half leads, the outer half stores: who waits is told when the page is there, not before."""
    cache = LocMemCache(f"shell-{next(names)}")
    arrived = threading.Semaphore(0)
    calls = count(1)
    size = 8

    def app(environ: Any, start_response: Any) -> Iterator[bytes]:
        if next(calls) == 1:
            for _ in range(size - 1):
                assert arrived.acquire(timeout=10)
        start_response("200 OK", [("Content-Type", "text/html")])
        yield b"page"

    outer = wsgi.UpdateCacheMiddleware(wsgi.FetchFromCacheMiddleware(app, cache=cache), cache=cache)
    join = outer.caching.line.flights.join

    def counted(key: str) -> Any:
        joined = join(key)
        arrived.release()
        return joined

    outer.caching.line.flights.join = counted  # type: ignore[method-assign]
    bodies: list[bytes] = []
    threads = [threading.Thread(target=lambda: bodies.append(ask_wsgi(outer)[2])) for _ in range(size)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(20)
    assert bodies == [b"page"] * size
    assert next(calls) == 2


def test_an_uncacheable_stream_before_two_halves_holds_nobody_up() -> None:
    """The flight lands with the head, not with the last byte."""
    cache = LocMemCache(f"shell-{next(names)}")

    async def main() -> None:
        goes_on = asyncio.Event()
        calls = count()

        async def app(scope: Any, receive: Any, send: Any) -> None:
            headers = [(b"cache-control", b"private")]
            await asyncio.sleep(0)
            await send({"type": "http.response.start", "status": 200, "headers": headers})
            if next(calls) == 0:
                await goes_on.wait()
            await send({"type": "http.response.body", "body": b"x"})

        stack = asgi.UpdateCacheMiddleware(asgi.FetchFromCacheMiddleware(app, cache=cache), cache=cache)
        first = asyncio.create_task(stack(scope_of(), no_body, Sent()))
        second = asyncio.create_task(stack(scope_of(), no_body, Sent()))
        await asyncio.wait_for(second, 5)
        goes_on.set()
        await first

    asyncio.run(main())


def test_one_cache_around_itself_does_not_wait_for_its_own_lease(site: Site) -> None:
    """An application that wraps itself, wrapped again from the environment: the same store, the same keys."""
    cache = Shared(f"shell-{next(names)}")
    module = shell(site)

    def around(app: Any, interface: str) -> Any:
        return module.CacheMiddleware(module.CacheMiddleware(app, cache=cache), cache=cache, policy=Policy(lease=1))

    site.build(around=around)
    waited: list[float] = []
    monkey = pytest.MonkeyPatch()

    def slept(seconds: float) -> Any:
        waited.append(seconds)
        return asyncio.to_thread(bool)

    with monkey.context() as patch:
        patch.setattr("cachemw._relay.LEASE_POLL", 0.0)
        patch.setattr(site.middleware.app.caching.line.pages, "take_lease", _spy(site, waited))
        site.get()
    assert len(waited) <= 1
    assert site.get().hit


def _spy(site: Site, taken: list[float]) -> Any:
    take = site.middleware.caching.line.pages.take_lease

    def spied(key: str, timeout: float, wants: Any) -> Any:
        taken.append(timeout)
        return take(key, timeout, wants)

    return spied


def test_a_cache_around_another_one_knows_whose_lifetime_it_stores(site: Site) -> None:
    """The inner one writes its max-age into a page that said nothing; the outer one must not share it with sessions."""
    module = shell(site)
    inside, outside = LocMemCache(f"shell-{next(names)}"), LocMemCache(f"shell-{next(names)}")

    def around(app: Any, interface: str) -> Any:
        return module.CacheMiddleware(module.CacheMiddleware(app, cache=inside), cache=outside)

    site.build(around=around)
    site.page(b"anonymous")
    for _ in range(2):
        site.get()
        assert site.get().hit
        site.page(b"of Bob")
        assert site.get("/", {"Cookie": "session=bob"}).body == b"of Bob"
        outside.clear()  # now the outer one stores what is a hit of the inner one


def test_halves_the_wrong_way_round_serve_and_store_nothing(site: Site) -> None:
    module = shell(site)
    cache = LocMemCache(f"shell-{next(names)}")

    def around(app: Any, interface: str) -> Any:
        return module.FetchFromCacheMiddleware(module.UpdateCacheMiddleware(app, cache=cache), cache=cache)

    site.build(around=around)
    site.page(b"page")
    for _ in range(2):
        answer = site.get()
        assert (answer.body, answer.hit) == (b"page", False)
    assert flights_of(site.middleware) == 0


# -- WSGI -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("matches", [True, False])
def test_a_page_that_is_written_and_validated_comes_whole(monkeypatch: pytest.MonkeyPatch, matches: bool) -> None:
    """`write` (PEP 3333) asks for the head before the application has returned, and the head is a 304."""
    now = [1_800_000_000.0]
    monkeypatch.setattr("cachemw.wsgi.time.time", lambda: now[0])
    calls = count()

    def app(environ: Any, start_response: Any) -> Iterable[bytes]:
        if next(calls) == 0 or "HTTP_IF_NONE_MATCH" not in environ:
            write = start_response("200 OK", [("ETag", '"1"'), ("Cache-Control", "max-age=10")])
            write(b"written, ")
            return [b"returned"]
        write = start_response("304 Not Modified", [("ETag", '"1"' if matches else '"2"')])
        write(b"")
        return []

    middleware = wsgi.CacheMiddleware(app, cache=LocMemCache(f"shell-{next(names)}"))
    for _ in range(3):
        status, headers, body = ask_wsgi(middleware)
        assert (status[:3], body) == ("200", b"written, returned")
        assert headers.get("Content-Length", "17") == "17"
        now[0] += 20


def test_a_chunk_that_is_no_bytes_is_the_server_s_affair() -> None:
    """A buffer that the application fills anew for each chunk would be stored as its last content, again and again."""
    buffer = bytearray(b"1")

    def app(environ: Any, start_response: Any) -> Iterator[Any]:
        start_response("200 OK", [])
        yield buffer
        buffer[:] = b"2"
        yield buffer

    middleware = wsgi.CacheMiddleware(app, cache=LocMemCache(f"shell-{next(names)}"))
    for _ in range(2):
        result: Any = middleware(environ_of(), lambda status, headers, exc_info=None, /: bool)
        assert [bytes(chunk) for chunk in result] in ([b"1", b"2"], [b"2", b"2"])
        result.close()
        buffer[:] = b"1"
    assert middleware.caching.line.pages.cache.get_many([]) == {}
    assert "hit" not in ask_wsgi(middleware)[1]["Cache-Status"]


def test_teardown_runs_though_the_application_s_close_fails() -> None:
    torn: list[Any] = []
    hooks = Hooks()
    hooks.teardown_request(torn.append)

    class Body:
        def __iter__(self) -> Iterator[bytes]:
            return iter([b"x"])

        def close(self) -> None:
            raise OSError("close")

    def app(environ: Any, start_response: Any) -> Iterable[bytes]:
        start_response("200 OK", [])
        return Body()

    middleware = wsgi.CacheMiddleware(app, hooks=hooks, cache=LocMemCache(f"shell-{next(names)}"))
    with pytest.raises(OSError, match="close"):
        ask_wsgi(middleware)
    assert len(torn) == 1


def test_paths_that_no_server_may_give_are_not_one_page() -> None:
    """A middleware that puts text into PATH_INFO (PEP 3333 wants latin-1) must not make all of it one page."""

    def app(environ: Any, start_response: Any) -> Iterable[bytes]:
        start_response("200 OK", [])
        return [environ["PATH_INFO"].encode("utf-8", "surrogatepass")]

    middleware = wsgi.CacheMiddleware(app, cache=LocMemCache(f"shell-{next(names)}"))
    for path in (
        "/\u20ac",
        "/\u2713",
        "/?",
        "/\udc80",
        "/\udcff",
        "/\\u20ac",
        "/%u20ac",
        "/%E2%82%AC",
        "/\xe2\x82\xac",
    ):
        assert ask_wsgi(middleware, path)[2] == path.encode("utf-8", "surrogatepass")
        assert "hit" in ask_wsgi(middleware, path)[1]["Cache-Status"]


def test_a_reason_of_two_lines_is_not_stored() -> None:
    def app(environ: Any, start_response: Any) -> Iterable[bytes]:
        start_response("200 OK\r\nSet-Cookie: session=evil", [])
        return [b"x"]

    middleware = wsgi.CacheMiddleware(app, cache=LocMemCache(f"shell-{next(names)}"))
    for _ in range(2):
        assert "hit" not in ask_wsgi(middleware)[1]["Cache-Status"]


# -- ASGI -----------------------------------------------------------------------------------------------------------


def asgi_site(app: Any, **options: Any) -> Any:
    return asgi.CacheMiddleware(app, cache=LocMemCache(f"shell-{next(names)}"), **options)


@pytest.mark.parametrize("early", [True, False], ids=["body read before the head", "after it"])
def test_a_get_with_a_body_is_not_stored(early: bool) -> None:
    """HTTP/2 announces no body. An application that reads it answers something that is for nobody else."""

    async def app(scope: Any, receive: Any, send: Any) -> None:
        start = {"type": "http.response.start", "status": 200, "headers": []}
        if not early:
            await send(start)
        body = (await receive())["body"]
        if early:
            await send(start)
        await send({"type": "http.response.body", "body": b"you sent " + body})

    async def poison() -> Any:
        return {"type": "http.request", "body": b"poison", "more_body": False}

    middleware = asgi_site(app)
    assert ask_asgi(middleware, poison).body == b"you sent poison"
    assert ask_asgi(middleware).body == b"you sent "
    assert "hit" in ask_asgi(middleware).trace


def readinto(body: Any) -> bytes:
    octets = bytearray(100)
    return bytes(octets[: body.readinto(octets)])


@pytest.mark.parametrize("early", [True, False], ids=["body read before the head", "after it"])
@pytest.mark.parametrize("halves", [True, False])
@pytest.mark.parametrize(
    "read",
    [
        lambda body: body.read(),
        lambda body: body.read(100),
        lambda body: body.readline(),
        lambda body: b"".join(body.readlines()),
        lambda body: b"".join(body),
        readinto,
    ],
)
def test_a_get_with_a_body_that_no_length_announces_is_not_stored(
    early: bool, halves: bool, read: Callable[[Any], bytes]
) -> None:
    """The same behind servers that speak HTTP/2 and WSGI: `wsgi.input` ends by itself."""

    def app(environ: Any, start_response: Any) -> Any:
        body = read(environ["wsgi.input"]) if early else b""
        start_response("200 OK", [("Content-Type", "text/plain")])
        yield b"you sent "
        yield body if early else read(environ["wsgi.input"])

    cache = LocMemCache(f"shell-{next(names)}")
    middleware: Any = wsgi.CacheMiddleware(app, cache=cache)
    if halves:
        middleware = wsgi.UpdateCacheMiddleware(wsgi.FetchFromCacheMiddleware(app, cache=cache), cache=cache)
    with_body: dict[str, Any] = {"wsgi.input_terminated": True, "wsgi.input": BytesIO(b"poison")}
    without: dict[str, Any] = {"wsgi.input_terminated": True, "wsgi.input": BytesIO()}
    assert ask_wsgi(middleware, **with_body)[2] == b"you sent poison"
    assert ask_wsgi(middleware, **without)[2] == b"you sent "
    assert "hit" in ask_wsgi(middleware, **without)[1]["Cache-Status"]


def test_what_a_server_s_input_can_do_besides_it_can_do_behind_the_cache() -> None:
    def app(environ: Any, start_response: Any) -> Any:
        start_response("200 OK", [("Content-Type", "text/plain")])
        return [str(environ["wsgi.input"].tell()).encode()]

    assert ask_wsgi(wsgi.CacheMiddleware(app, cache=LocMemCache(f"shell-{next(names)}")))[2] == b"0"


def test_a_path_that_a_middleware_rewrote_is_another_page() -> None:
    """`raw_path` is what the client sent; a middleware further out has chosen a page by a cookie, say."""

    async def app(scope: Any, receive: Any, send: Any) -> None:
        await send({"type": "http.response.start", "status": 200, "headers": []})
        await send({"type": "http.response.body", "body": scope["path"].encode()})

    middleware = asgi_site(app)
    for _ in range(2):
        for path in ("/a", "/b", "/ä"):
            assert ask_asgi(middleware, path=path, raw_path=b"/a").body == path.encode()
    assert "hit" in ask_asgi(middleware, path="/b", raw_path=b"/a").trace
    assert purge("http://example.org/a", caching=middleware.caching) == 1
    for path in ("/a", "/b", "/ä"):
        assert "hit" not in ask_asgi(middleware, path=path, raw_path=b"/a").trace


def test_what_a_post_to_a_rewritten_path_gives_is_that_page_alone() -> None:
    """RFC 9110 §9.3.3 lets the answer to a POST stand for GET; not for GET of what somebody else is led to."""
    fields = [(b"content-location", b"/a"), (b"cache-control", b"max-age=60")]

    async def app(scope: Any, receive: Any, send: Any) -> None:
        await send({"type": "http.response.start", "status": 200, "headers": fields})
        await send({"type": "http.response.body", "body": scope["path"].encode()})

    middleware = asgi_site(app, policy=Policy.rfc9111())
    assert ask_asgi(middleware, method="POST", path="/b", raw_path=b"/a").body == b"/b"
    assert ask_asgi(middleware, path="/a", raw_path=b"/a").body == b"/a"
    led = ask_asgi(middleware, path="/b", raw_path=b"/a")
    assert led.body == b"/b"
    assert "hit" in led.trace


def test_a_mount_is_no_prefix_of_a_word() -> None:
    """Below /ap, where the server gives the path without the mount, /apple is not the site's own /apple."""

    async def app(scope: Any, receive: Any, send: Any) -> None:
        await send({"type": "http.response.start", "status": 200, "headers": []})
        await send({"type": "http.response.body", "body": scope["root_path"].encode()})

    middleware = asgi_site(app)
    for _ in range(2):
        assert ask_asgi(middleware, path="/apple").body == b""
        assert ask_asgi(middleware, path="/apple", root_path="/ap").body == b"/ap"


def test_field_names_in_capitals_hide_nothing() -> None:
    """A server that breaks the rule of ASGI (names in lower case) must not hide credentials from the cache."""

    async def app(scope: Any, receive: Any, send: Any) -> None:
        fields = {name.lower(): value for name, value in scope["headers"]}
        await send({"type": "http.response.start", "status": 200, "headers": []})
        await send({"type": "http.response.body", "body": fields[b"host"] + fields.get(b"authorization", b"")})

    middleware = asgi_site(app)
    for host in (b"a", b"b"):
        for secret in (b" bob", b" eve"):
            fields = [(b"Host", host), (b"Authorization", secret)]
            assert ask_asgi(middleware, headers=fields).body == host + secret
        for _ in range(2):
            assert ask_asgi(middleware, headers=[(b"Host", host)]).body == host


def test_headers_that_can_be_read_once_reach_the_client() -> None:
    """ASGI: "headers (Iterable[[byte string, byte string]])"."""

    async def app(scope: Any, receive: Any, send: Any) -> None:
        headers = ((n, v) for n, v in [(b"cache-control", b"no-store"), (b"x-a", b"1")])
        await send({"type": "http.response.start", "status": 200, "headers": headers})
        await send({"type": "http.response.body", "body": b"x"})

    middleware = asgi_site(app, policy=Policy(cache_status=None))
    for _ in range(2):
        assert (b"x-a", b"1") in list(ask_asgi(middleware)[0]["headers"])


def test_a_second_start_stores_nothing() -> None:
    """The server will complain; an application that does not mind must not get two halves stored as one page."""

    async def app(scope: Any, receive: Any, send: Any) -> None:
        start = {"type": "http.response.start", "status": 200, "headers": []}
        await send(start)
        await send({"type": "http.response.body", "body": b"half", "more_body": True})
        await send(start)
        await send({"type": "http.response.body", "body": b"other half"})

    middleware = asgi_site(app)
    for _ in range(2):
        assert "hit" not in ask_asgi(middleware).trace


def test_a_chunk_that_could_not_be_sent_is_not_stored_twice() -> None:
    """An application that tries again after an error of the connection has sent the same chunk twice, to us alone."""
    failures = [True]

    async def app(scope: Any, receive: Any, send: Any) -> None:
        await send({"type": "http.response.start", "status": 200, "headers": []})
        chunk = {"type": "http.response.body", "body": b"chunk", "more_body": True}
        try:
            await send(chunk)
        except OSError:
            await send(chunk)
        await send({"type": "http.response.body", "body": b""})

    class Flaky(Sent):
        async def __call__(self, message: Any) -> None:
            if message.get("body") and failures:
                failures.clear()
                raise OSError("busy")
            self.append(message)

    middleware = asgi_site(app)
    flaky = Flaky()
    asyncio.run(middleware(scope_of(), no_body, flaky))
    assert ask_asgi(middleware).body == b"chunk"


def test_a_write_that_is_cancelled_still_minds_a_purge() -> None:
    """The client is gone when its page is being stored: a purge that came meanwhile removes the page all the same."""
    gates: dict[str, asyncio.Event] = {}

    class Slow(Shared):
        async def awrite_records(self, writes: Any) -> Any:
            failed = await super().awrite_records(writes)
            if any(key.endswith("\0G") for key, _, _ in writes):
                gates["written"].set()
                await gates["goes on"].wait()
            return failed

    async def app(scope: Any, receive: Any, send: Any) -> None:
        await send({"type": "http.response.start", "status": 200, "headers": []})
        await send({"type": "http.response.body", "body": b"old"})

    async def main() -> None:
        gates.update({"written": asyncio.Event(), "goes on": asyncio.Event()})
        middleware = asgi.CacheMiddleware(app, cache=Slow(f"shell-{next(names)}"))
        task = asyncio.create_task(middleware(scope_of(), no_body, Sent()))
        await gates["written"].wait()
        # the purge's mark is there, its removal came before the write
        mark = mark_key(middleware.caching.line.resource(asgi.ASGIRequest(scope_of())))
        middleware.caching.line.pages.cache.write_records([(mark, Mark(mark, "purged"), 60)])
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        gates["goes on"].set()
        for _ in range(10):
            await asyncio.sleep(0)
        sent = Sent()
        await middleware(scope_of(), no_body, sent)
        assert "hit" not in sent.trace

    asyncio.run(main())


# -- leases: other processes ----------------------------------------------------------------------------------------


def other_process(
    site: Site, monkeypatch: pytest.MonkeyPatch, polls: list[Callable[[], object]], **options: Any
) -> Any:
    """The lease of "/" is another process's; what that does, poll by poll, is in `polls`, and then its time is over."""
    cache = Shared(f"shell-{next(names)}")
    site.build(cache=cache, policy=Policy(**options))
    key = next(iter(_keys_of(site)))
    taken = [site.middleware.caching.line.pages.take_lease(lease_key(key), 60)]
    assert site.middleware.caching.line.pages.run(taken[0], None) == (True, [])
    at_every_pause(site, monkeypatch, polls)
    return cache


def at_every_pause(site: Site, monkeypatch: pytest.MonkeyPatch, polls: list[Callable[[], object]]) -> None:
    """Nobody sleeps: a second passes, and the next of `polls` is done."""
    now = [0.0]

    def pause(seconds: float) -> None:
        now[0] += 1
        if polls:
            polls.pop(0)()

    async def pause_in_task(seconds: float) -> None:
        pause(seconds)

    monkeypatch.setattr(f"cachemw.{site.interface}.time.monotonic", lambda: now[0])
    monkeypatch.setattr("cachemw.wsgi.time.sleep", pause)
    monkeypatch.setattr("cachemw.asgi.asyncio.sleep", pause_in_task)


def ask(site: Site) -> tuple[bytes, str]:
    answer = site.get()
    return answer.body, answer.trace


def twin_of(site: Site, policy: Policy) -> Any:
    """The same application in another process, on the same store, that does not mind leases."""
    app = site._wsgi if site.interface == "wsgi" else site._asgi
    return shell(site).CacheMiddleware(app, cache=site.cache, policy=policy)


def test_the_answer_of_another_process_is_waited_for(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    polls: list[Callable[[], object]] = [bool]
    other_process(site, monkeypatch, polls)
    site.page(b"of the other")
    twin = twin_of(site, Policy(lease=0))

    def answers() -> None:
        environ_or_scope: Any = ask_wsgi if site.interface == "wsgi" else in_a_thread
        environ_or_scope(twin)

    polls.append(answers)
    body, trace = ask(site)
    assert (body, "hit" in trace, "collapsed" in trace) == (b"of the other", True, True)
    assert len(site.calls) == 2  # one was to find the key out
    assert flights_of(site.middleware) == 0


def test_the_inner_of_two_caches_waits_for_other_processes_if_the_outer_one_sees_none(
    site: Site, monkeypatch: pytest.MonkeyPatch
) -> None:
    cache, module = Shared(f"shell-{next(names)}"), shell(site)

    def around(app: Any, interface: str) -> Any:
        inner = module.CacheMiddleware(app, cache=cache)
        return module.CacheMiddleware(inner, cache=LocMemCache(f"shell-{next(names)}"))

    site.build(around=around)
    site.cache = cache
    twin, line = twin_of(site, Policy(lease=0)), site.middleware.app.caching.line
    primary = primary_key(line.resource(asgi.ASGIRequest(scope_of())))
    assert line.pages.run(line.pages.take_lease(lease_key(primary), 60), None) == (True, [])

    def answers() -> None:
        site.page(b"of the other")
        environ_or_scope: Any = ask_wsgi if site.interface == "wsgi" else in_a_thread
        environ_or_scope(twin)

    site.page(b"mine")
    at_every_pause(site, monkeypatch, [bool, answers])
    assert ask(site)[0] == b"of the other"
    assert len(site.calls) == 1


def in_a_thread(middleware: Any) -> None:
    thread = threading.Thread(target=lambda: ask_asgi(middleware))
    thread.start()
    thread.join(10)


def test_a_process_that_died_with_its_lease_costs_its_time_once(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    polls: list[Callable[[], object]] = []
    other_process(site, monkeypatch, polls, lease=3)
    site.page(b"mine")
    assert ask(site)[0] == b"mine"
    assert "hit" in ask(site)[1]


def test_nobody_waits_for_what_another_process_found_uncacheable(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    polls: list[Callable[[], object]] = []
    cache = other_process(site, monkeypatch, polls, lease=1000)
    primary = primary_key(site.middleware.caching.line.resource(asgi.ASGIRequest(scope_of())))
    waits: list[int] = []
    polls += [lambda: cache.write_records([(primary, HitForMiss(primary), 60)]), lambda: waits.append(1)]
    site.respond = lambda asked: Script(fields=[("Cache-Control", "private")], body=b"late" if waits else b"mine")
    assert ask(site)[0] == b"mine"


# -- what else the shells promise -----------------------------------------------------------------------------------


@pytest.mark.parametrize("interface", ["wsgi", "asgi"])
def test_a_request_has_no_other_attributes_than_its_own(interface: str) -> None:
    made: Any = {"wsgi": lambda: wsgi.WSGIRequest(environ_of()), "asgi": lambda: asgi.ASGIRequest(scope_of())}
    request = made[interface]()
    assert (request.scheme, request.host, request.mount, request.path, request.query) == request.url
    with pytest.raises(AttributeError):
        _ = request.cookies


def test_lines_in_another_order_or_number_are_other_variants() -> None:
    async def app(scope: Any, receive: Any, send: Any) -> None:
        lines = b"|".join(value for name, value in scope["headers"] if name == b"accept")
        await send({"type": "http.response.start", "status": 200, "headers": [(b"vary", b"accept")]})
        await send({"type": "http.response.body", "body": lines})

    middleware = asgi_site(app)
    host = (b"host", b"example.org")
    for _ in range(3):
        for lines in ([b"a", b"b"], [b"b", b"a"], [b"a, b"], [b"a"], [b""], [], [b"", b""]):
            sent = ask_asgi(middleware, headers=[host, *[(b"accept", line) for line in lines]])
            assert sent.body == b"|".join(lines)
    assert "hit" in sent.trace


def test_an_application_that_never_starts_is_seen_as_it_is() -> None:
    hooks = Hooks()
    torn: list[Any] = []
    hooks.teardown_request(torn.append)
    middleware = wsgi.CacheMiddleware(lambda environ, start: [], hooks=hooks, cache=LocMemCache(f"shell-{next(names)}"))
    with pytest.raises(AssertionError, match="start_response"):
        ask_wsgi(middleware)
    assert len(torn) == 1
    assert flights_of(middleware) == 0


@pytest.mark.parametrize("where", ["before the first byte", "in start_response", "in the body"])
def test_errors_under_hooks_reach_the_server_and_the_teardown(where: str) -> None:
    hooks = Hooks()
    torn: list[Any] = []
    hooks.teardown_request(torn.append)

    def app(environ: Any, start_response: Any) -> Iterator[bytes]:
        if where == "before the first byte":
            raise OSError(where)
        start_response("200 OK", [])
        yield b"x"
        if where == "in the body":
            raise OSError(where)

    def start(status: str, headers: list[tuple[str, str]], exc_info: Any = None) -> Any:
        if where == "in start_response":
            raise OSError(where)

    middleware = wsgi.CacheMiddleware(app, hooks=hooks, cache=LocMemCache(f"shell-{next(names)}"))
    with pytest.raises(OSError, match=where):  # noqa: PT012  the body is read where the server reads it
        result: Any = middleware(environ_of(), start)
        try:
            list(result)
        finally:
            result.close()
    assert [str(error) for error in torn] == [where]
    assert flights_of(middleware) == 0


@pytest.mark.parametrize("length", [[], [("Content-Length", "2")]], ids=["no length", "length"])
def test_an_after_hook_s_own_response_takes_the_place_of_a_stream(site: Site, length: list[tuple[str, str]]) -> None:
    """What the application goes on to send is sent to nobody; the page is stored as a whole, or not at all."""
    hooks = Hooks()
    site.build(hooks=hooks)
    site.answers(Script(200, length, [b"a", b"b"]))
    hooks.after_request(another_one(site))
    for _ in range(2):
        assert site.get().body == b"another"
    hooks.after_request_funcs[None].clear()
    known = (
        bool(length) or site.interface == "asgi"
    )  # ASGI pushes: whether a WSGI body ends, only reading it would tell
    after = site.get()
    assert (after.body, after.hit) == (b"ab", known)
    assert site.closed == (len(site.calls) if site.interface == "wsgi" else 0)


@pytest.mark.parametrize("length", ["200", "10"], ids=["too large", "longer than it says"])
def test_what_is_not_stored_either_is_not_read_to_its_end_for_nobody(length: str) -> None:
    from werkzeug.wrappers import Response as WerkzeugResponse

    hooks, read = Hooks(), count()

    def app(environ: Any, start_response: Any) -> Iterator[bytes]:
        start_response("200 OK", [("Content-Length", length)])
        for _ in range(100):
            next(read)
            yield b"xx"

    hooks.after_request(lambda response: WerkzeugResponse("another"))
    middleware = wsgi.CacheMiddleware(
        app, hooks=hooks, policy=Policy(max_body=50), cache=LocMemCache(f"shell-{next(names)}")
    )
    for _ in range(2):
        assert ask_wsgi(middleware)[2] == b"another"
    assert next(read) < 20
    assert flights_of(middleware) == 0


def test_a_body_that_fails_when_nobody_is_sent_it_fails_for_nobody(
    site: Site, caplog: pytest.LogCaptureFixture
) -> None:
    hooks = Hooks()
    site.build(hooks=hooks)
    site.answers(Script(200, [("Content-Length", "2")], [b"a"], error=LookupError("late")), Script(body=b"whole"))
    hooks.after_request(another_one(site))
    answer = site.get()
    assert answer.body == b"another"
    pulled = site.interface == "wsgi"  # who pushes on ASGI raises to the server, after the answer
    assert (answer.error is None, "sent to nobody" in caplog.text) == (pulled, pulled)
    hooks.after_request_funcs[None].clear()
    assert site.get().body == b"whole"


def another_one(site: Site) -> Callable[[Any], Any]:
    def another(response: Any) -> Any:
        if site.interface == "wsgi":
            from werkzeug.wrappers import Response as WerkzeugResponse

            return WerkzeugResponse("another")
        from starlette.responses import Response as StarletteResponse

        return StarletteResponse("another")

    return another


def test_a_body_without_a_chunk_or_a_close_is_a_body() -> None:
    class Empty:
        def __iter__(self) -> Iterator[bytes]:
            return iter(())

    def app(environ: Any, start_response: Any) -> Iterable[bytes]:
        start_response("200 OK", [("Cache-Control", "max-age=10, stale-while-revalidate=60")])
        return Empty()

    middleware = wsgi.CacheMiddleware(app, cache=LocMemCache(f"shell-{next(names)}"))
    assert ask_wsgi(middleware)[2] == b""
    assert "hit" in ask_wsgi(middleware)[1]["Cache-Status"]


def test_a_server_that_refuses_the_head_gets_its_error_and_nothing_is_held() -> None:
    closed: list[bool] = []

    class Body:
        def __iter__(self) -> Iterator[bytes]:
            return iter([b"x"])

        def close(self) -> None:
            closed.append(True)

    def app(environ: Any, start_response: Any) -> Iterable[bytes]:
        start_response("200 OK", [])
        return Body()

    def refuses(status: str, headers: list[tuple[str, str]], exc_info: Any = None) -> Any:
        raise TimeIsUp

    middleware = wsgi.CacheMiddleware(app, cache=LocMemCache(f"shell-{next(names)}"))
    with pytest.raises(TimeIsUp):
        list(middleware(environ_of(), refuses))
    assert closed == [True]
    assert flights_of(middleware) == 0
