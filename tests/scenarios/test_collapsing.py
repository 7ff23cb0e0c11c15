"""Many ask at once, the application answers once: collapsed forwarding, in threads and in tasks."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from itertools import count
from typing import Any
from wsgiref.util import setup_testing_defaults

import pytest

from cachemw import Policy, asgi, wsgi
from cachemw._asgi.replies import no_body
from cachemw.backends.dummy import DummyCache
from cachemw.backends.locmem import LocMemCache
from tests.scenarios.conftest import Asked, Clock, Script, Site
from tests.servers import until

names = count()
Fields = list[tuple[str, str]]


class Crowd:
    """So many clients at once, and an application that answers when all of them have arrived."""

    def __init__(self, size: int, policy: Policy) -> None:
        self.size = size
        self.policy = policy
        self.store = LocMemCache(f"crowd-{next(names)}")
        self.calls = 0
        self.bodies: list[Any] = []

    def run(
        self, answer: Callable[[int], tuple[Fields, bytes]], fields: Callable[[int], Fields] = lambda n: []
    ) -> None:
        raise NotImplementedError


class Threads(Crowd):
    def run(
        self, answer: Callable[[int], tuple[Fields, bytes]], fields: Callable[[int], Fields] = lambda n: []
    ) -> None:
        arrived = threading.Semaphore(0)
        lock = threading.Lock()

        def app(environ: Any, start_response: Any) -> Iterator[bytes]:
            with lock:
                self.calls += 1
                number = self.calls
            if number == 1:
                for _ in range(self.size):  # itself too
                    arrived.acquire()
            headers, body = answer(number)
            start_response("200 OK", [("Content-Type", "text/html"), *headers])
            yield body

        middleware = wsgi.CacheMiddleware(app, cache=self.store, policy=self.policy)
        flights = middleware.caching.line.flights
        join = flights.join

        here: set[int] = set()

        def counted(key: str) -> Any:
            joined = join(key)
            with lock:
                if threading.get_ident() not in here:  # who does not lead at once asks once more
                    here.add(threading.get_ident())
                    arrived.release()
            return joined

        flights.join = counted  # type: ignore[method-assign]

        def client(number: int) -> bytes:
            environ: dict[str, Any] = {
                "REQUEST_METHOD": "GET",
                "PATH_INFO": "/",
                "HTTP_HOST": "a",
                "wsgi.url_scheme": "http",
                **{"HTTP_" + name.upper().replace("-", "_"): value for name, value in fields(number)},
            }
            result = middleware(environ, lambda status, headers, exc_info=None: lambda data: None)
            body = b"".join(result)
            getattr(result, "close", lambda: None)()
            return body

        with ThreadPoolExecutor(self.size) as pool:
            futures = [pool.submit(client, number) for number in range(self.size)]
            self.bodies = [future.exception() or future.result() for future in futures]


class Tasks(Crowd):
    def run(
        self, answer: Callable[[int], tuple[Fields, bytes]], fields: Callable[[int], Fields] = lambda n: []
    ) -> None:
        asyncio.run(self._run(answer, fields))

    async def _run(self, answer: Any, fields: Any) -> None:
        async def app(scope: Any, receive: Any, send: Any) -> None:
            self.calls += 1
            number = self.calls
            if number == 1:
                for _ in range(20):  # everybody else has come to wait
                    await asyncio.sleep(0)
            headers, body = answer(number)
            raw = [(name.lower().encode(), value.encode()) for name, value in headers]
            await send({"type": "http.response.start", "status": 200, "headers": raw})
            await send({"type": "http.response.body", "body": body})

        middleware = asgi.CacheMiddleware(app, cache=self.store, policy=self.policy)

        async def client(number: int) -> bytes:
            raw = [(name.lower().encode(), value.encode()) for name, value in [("Host", "a"), *fields(number)]]
            scope = {
                "type": "http",
                "method": "GET",
                "path": "/",
                "raw_path": b"/",
                "query_string": b"",
                "headers": raw,
            }
            body = b""

            async def send(message: Any) -> None:
                nonlocal body
                body += message.get("body", b"")

            async def receive() -> Any:
                return {"type": "http.request", "body": b"", "more_body": False}

            await middleware(scope, receive, send)
            return body

        self.bodies = await asyncio.gather(*[client(number) for number in range(self.size)], return_exceptions=True)


@pytest.fixture(params=[Threads, Tasks])
def crowd(request: pytest.FixtureRequest) -> Crowd:
    """50 clients, threads or tasks."""
    made: Crowd = request.param(50, Policy())
    return made


def test_fifty_ask_and_the_application_answers_once(crowd: Crowd) -> None:
    crowd.run(lambda number: ([], f"page {number}".encode()))
    assert crowd.calls == 1
    assert crowd.bodies == [b"page 1"] * 50


def test_fifty_ask_and_one_answer_is_all_that_there_is_where_the_store_has_no_room(crowd: Crowd) -> None:
    crowd.store = LocMemCache(f"crowd-{next(names)}", {"OPTIONS": {"max_bytes": 1000}})
    crowd.run(lambda number: ([], f"page {number}".encode() * 1000))
    assert crowd.calls == 1
    assert crowd.bodies == [b"page 1" * 1000] * 50


def test_an_uncacheable_answer_is_shared_with_nobody_and_holds_nobody_up(crowd: Crowd) -> None:
    crowd.run(lambda number: ([("Cache-Control", "private")], f"for {number}".encode()))
    assert crowd.calls == 50
    assert sorted(crowd.bodies) == sorted(f"for {number}".encode() for number in range(1, 51))


@pytest.mark.parametrize(
    ("options", "fields"),
    [
        ({}, {"Authorization": "Basic Ym9iOg=="}),
        ({}, {"Range": "bytes=0-1"}),
        ({}, {"Cookie": "sessionid=bob"}),
        ({"policy": Policy(collapse=False)}, {}),
        ({"policy": Policy.django()}, {}),
        ({"cache": DummyCache()}, {}),
    ],
    ids=["credentials", "a part", "a session", "no collapsing", "Django", "no cache"],
)
def test_whoever_could_not_be_given_the_answer_does_not_wait_for_it(
    site: Site, options: dict[str, Any], fields: dict[str, str]
) -> None:
    site.build(**options)
    asked, answers = threading.Event(), threading.Event()

    def respond(request: Asked) -> Script:
        if len(site.calls) == 1:
            asked.set()
            assert answers.wait(10)
        return Script(body=b"call %d" % len(site.calls))

    site.respond = respond
    with ThreadPoolExecutor(2) as pool:
        first = pool.submit(site.get)
        assert asked.wait(10)
        second = pool.submit(site.get, "/", fields)
        try:
            assert second.result(5).body == b"call 2"
        finally:
            answers.set()
        assert first.result(10).body == b"call 2"  # which is how many there were


def test_nobody_gets_another_variant(crowd: Crowd) -> None:
    crowd.run(lambda number: ([("Vary", "X-User")], f"call {number}".encode()), lambda n: [("X-User", str(n % 2))])
    assert set(crowd.bodies[::2]).isdisjoint(crowd.bodies[1::2])
    assert crowd.calls == 2


def test_a_leader_that_fails_releases_its_followers(crowd: Crowd) -> None:
    def answer(number: int) -> tuple[Fields, bytes]:
        if number == 1:
            raise RuntimeError("the first fails")
        return [], b"page"

    crowd.run(answer)
    assert sum(isinstance(body, RuntimeError) for body in crowd.bodies) == 1
    assert crowd.bodies.count(b"page") == 49


class Stored(LocMemCache):
    """Local memory that other processes are said to see; `meanwhile` is what they do before a lease is taken."""

    shared = True
    meanwhile: Callable[[], object] | None = None
    leases: tuple[str, ...] = ()

    def add_record(self, key: str, payload: Any, timeout: float | None) -> bool:
        action, self.meanwhile = self.meanwhile, None
        if action is not None:
            action()
        self.leases += (key,)
        return super().add_record(key, payload, timeout)


def test_a_task_that_has_waited_for_another_s_page_looks_for_it_without_blocking_the_loop(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    async def app(scope: Any, receive: Any, send: Any) -> None:
        asked.append(scope)
        await go.wait()
        await send({"type": "http.response.start", "status": 200, "headers": []})
        await send({"type": "http.response.body", "body": b"page"})

    async def main() -> None:
        async def visit() -> None:
            bodies: list[bytes] = []

            async def send(message: Any) -> None:
                bodies.append(message.get("body", b""))

            await middleware({**scope}, no_body(), send)
            assert b"".join(bodies) == b"page"

        scope = {"type": "http", "method": "GET", "path": "/", "headers": [(b"host", b"a")]}
        async with asyncio.timeout(10), asyncio.TaskGroup() as visitors:
            for _ in range(3):
                visitors.create_task(visit())
                await asyncio.sleep(0.01)
            go.set()

    def blocks(keys: Any) -> Any:
        blocked.append(keys)
        return [None] * len(keys)

    asked: list[Any] = []
    blocked: list[Any] = []
    go = asyncio.Event()
    middleware = asgi.CacheMiddleware(app, cache=Stored(f"distant-{next(names)}"), policy=Policy(lease=0))
    monkeypatch.setattr(middleware.caching.line.pages, "lookup", blocks)
    asyncio.run(main())
    assert (len(asked), blocked) == (1, [])


def test_who_takes_a_lease_and_finds_the_page_gives_the_lease_back(site: Site) -> None:
    """Else other processes would wait for nobody, when the page is to be made anew."""
    store = Stored(f"stored meanwhile {site.interface}")
    other = Site(site.interface, site.clock).build(cache=store).page(b"of another process")
    site.build(cache=store).page(b"made once more")
    store.meanwhile = other.get if site.interface == "wsgi" else lambda: in_a_thread(other.get)
    answer = site.get()
    assert (answer.body, answer.hit, len(site.calls)) == (b"of another process", True, 0)
    assert len(store.leases) == 2
    assert list(store.read_records(store.leases)) == [None, None]


def in_a_thread(work: Callable[[], object]) -> None:
    """On a loop of its own: that of the request is at work."""
    with ThreadPoolExecutor(1) as threads:
        threads.submit(work).result()


def test_a_follower_that_has_waited_long_enough_goes_alone() -> None:
    from cachemw.flights import Flights

    flights: Flights[str] = Flights()
    with ThreadPoolExecutor(1) as leader:
        flight, leads = leader.submit(flights.join, "key").result()
    assert leads
    assert flights.join("key") == (flight, False)
    assert flight.wait(0.001) is False
    assert asyncio.run(flight.await_landing(0.001)) is False
    flight.land({"key": "record"})
    flight.land({})
    assert flight.wait(0)
    assert asyncio.run(flight.await_landing(0))
    assert flights.join("key")[0].records == {"key": "record"}
    flight.end()
    assert len(flights) == 0


def test_a_cancelled_leader_releases_its_followers() -> None:
    async def story() -> list[bytes]:
        started = asyncio.Event()
        calls = 0

        async def app(scope: Any, receive: Any, send: Any) -> None:
            nonlocal calls
            calls += 1
            if calls == 1:
                started.set()
                await asyncio.get_running_loop().create_future()
            await send({"type": "http.response.start", "status": 200, "headers": []})
            await send({"type": "http.response.body", "body": b"page"})

        middleware = asgi.CacheMiddleware(app, cache=LocMemCache("cancelled"))

        async def client() -> bytes:
            body = b""

            async def send(message: Any) -> None:
                nonlocal body
                body += message.get("body", b"")

            scope = {"type": "http", "method": "GET", "path": "/", "query_string": b"", "headers": [(b"host", b"a")]}
            await middleware(scope, lambda: asyncio.sleep(0, {"type": "http.request"}), send)
            return body

        leader = asyncio.create_task(client())
        await started.wait()
        followers = [asyncio.create_task(client()) for _ in range(3)]
        await asyncio.sleep(0)
        leader.cancel()
        return await asyncio.gather(*followers)

    assert asyncio.run(story()) == [b"page"] * 3


def test_who_waits_for_a_validation_does_not_wait_for_a_client_to_read_the_page(clock: Clock) -> None:
    async def story() -> None:
        asked, answers, reads = asyncio.Event(), asyncio.Event(), asyncio.Event()

        async def app(scope: Any, receive: Any, send: Any) -> None:
            fields = [(b"etag", b'"1"'), (b"cache-control", b"max-age=10")]
            known = (b"if-none-match", b'"1"') in scope["headers"]
            if known:
                asked.set()
                await answers.wait()
            await send({"type": "http.response.start", "status": 304 if known else 200, "headers": fields})
            await send({"type": "http.response.body", "body": b"" if known else b"page"})

        middleware: Any = asgi.CacheMiddleware(app, cache=LocMemCache(f"crowd-{next(names)}"))

        async def client(*, slow: bool = False) -> bytes:
            body = b""

            async def send(message: Any) -> None:
                nonlocal body
                if slow:
                    await reads.wait()
                body += message.get("body", b"")

            scope = {"type": "http", "method": "GET", "path": "/", "query_string": b"", "headers": [(b"host", b"a")]}
            await middleware(scope, no_body(), send)
            return body

        assert await client() == b"page"
        clock.advance(20)
        leader = asyncio.create_task(client(slow=True))
        await asked.wait()
        follower = asyncio.create_task(client())
        await asyncio.sleep(0)
        answers.set()
        async with asyncio.timeout(5):
            assert await follower == b"page"
        assert not leader.done()
        reads.set()
        assert await leader == b"page"

    asyncio.run(story())


def test_a_crowd_of_threads_does_not_pay_for_the_one_who_left() -> None:
    """The leader's client is gone, and so its server closes: one of those who wait takes its place."""
    calls = count(1)
    asked = 0

    def app(environ: Any, start_response: Any) -> Iterator[bytes]:
        nonlocal asked
        asked = next(calls)
        start_response("200 OK", [])
        yield b"pa"
        yield b"ge"

    middleware: Any = wsgi.CacheMiddleware(app, cache=LocMemCache(f"crowd-{next(names)}"))

    def ask() -> Any:
        environ: dict[str, Any] = {}
        setup_testing_defaults(environ)
        return middleware(environ, lambda status, headers: None)

    def body_of(result: Any) -> bytes:
        try:
            return b"".join(result)
        finally:
            getattr(result, "close", lambda: None)()

    leader = ask()
    assert next(leader) == b"pa"
    (flight,) = middleware.caching.line.flights._flying.values()
    with ThreadPoolExecutor(20) as pool:
        followers = [pool.submit(lambda: body_of(ask())) for _ in range(20)]
        until(lambda: len(flight._gates) == 20, "all wait", 10)
        leader.close()
        assert [follower.result(10) for follower in followers] == [b"page"] * 20
    assert asked == 2


@pytest.mark.parametrize("leaving", ["cancelled", "told by receive", "told by send"])
def test_a_crowd_does_not_pay_for_the_one_who_left(leaving: str) -> None:
    """The leader's client is gone: one of those who wait takes its place, and the others go on waiting."""

    async def story() -> None:
        gone, started, over = asyncio.Event(), asyncio.Event(), asyncio.Event()
        calls = 0

        async def app(scope: Any, receive: Any, send: Any) -> None:
            nonlocal calls
            calls += 1
            leads = calls == 1
            await send({"type": "http.response.start", "status": 200, "headers": []})
            if leads:
                started.set()
                await gone.wait()
                await receive()
                await receive()
            for part in (b"pa", b"ge"):
                await send({"type": "http.response.body", "body": part, "more_body": True})
                await asyncio.sleep(0)
            await send({"type": "http.response.body", "body": b""})
            over.set()

        middleware = asgi.CacheMiddleware(app, cache=LocMemCache(f"left-{leaving}"))

        async def client(*, leaves: bool = False) -> bytes:
            body = b""
            messages = [{"type": "http.request"}]
            if leaves and leaving == "told by receive":
                messages.append({"type": "http.disconnect"})
            messages *= 2

            async def receive() -> Any:
                return messages.pop(0)

            async def send(message: Any) -> None:
                nonlocal body
                if leaves and leaving == "told by send" and message.get("body"):
                    raise OSError("the client is gone")
                body += message.get("body", b"")

            scope = {"type": "http", "method": "GET", "path": "/", "query_string": b"", "headers": [(b"host", b"a")]}
            await middleware(scope, receive, send)
            return body

        leader = asyncio.create_task(client(leaves=True))
        await started.wait()
        followers = [asyncio.create_task(client()) for _ in range(20)]
        await asyncio.sleep(0)
        if leaving == "cancelled":
            leader.cancel()
        gone.set()
        assert await asyncio.gather(*followers) == [b"page"] * 20
        await asyncio.gather(leader, return_exceptions=True)
        assert calls == 2

    asyncio.run(story())


def test_nor_does_a_crowd_of_threads() -> None:
    calls: list[int] = []
    arrived = threading.Semaphore(0)

    def app(environ: Any, start_response: Any) -> Iterator[bytes]:
        calls.append(1)
        start_response("200 OK", [("Content-Type", "text/plain")])
        yield b"pa"
        yield b"ge"

    middleware = wsgi.CacheMiddleware(app, cache=LocMemCache("threads whose leader left"))
    flights = middleware.caching.line.flights
    join = flights.join

    def counted(key: str) -> Any:
        joined = join(key)
        arrived.release()
        return joined

    flights.join = counted  # type: ignore[method-assign]

    def ask() -> Any:
        environ = {"REQUEST_METHOD": "GET", "PATH_INFO": "/", "HTTP_HOST": "a", "wsgi.url_scheme": "http"}
        return middleware(environ, lambda status, headers, exc_info=None: lambda data: None)

    def client() -> bytes:
        result = ask()
        body = b"".join(result)
        getattr(result, "close", lambda: None)()
        return body

    leader = ask()
    assert next(iter(leader)) == b"pa"
    with ThreadPoolExecutor(10) as pool:
        futures = [pool.submit(client) for _ in range(10)]
        for _ in range(11):
            assert arrived.acquire(timeout=10)
        leader.close()
        assert [future.result() for future in futures] == [b"page"] * 10
    assert len(calls) == 2


def test_who_comes_after_a_purge_that_the_store_did_not_hear_of_waits_for_nobody(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """The flight began before the purge: what it brings is what the purge was to remove."""
    from cachemw import _pages_recovery, purge

    monkeypatch.setattr(_pages_recovery, "PERIOD", 0.01)
    down = True

    def while_it_is_up(name: str) -> Callable[..., Any]:
        method = getattr(LocMemCache, name)

        def call(store: LocMemCache, *args: Any) -> Any:
            if down:
                raise OSError("down")
            return method(store, *args)

        return call

    class Down(LocMemCache):
        read_records = while_it_is_up("read_records")
        write_records = while_it_is_up("write_records")
        drop_records = while_it_is_up("drop_records")
        add_record = while_it_is_up("add_record")

    started, purged = threading.Event(), threading.Event()
    calls: list[int] = []

    def app(environ: Any, start_response: Any) -> Iterator[bytes]:
        number = len(calls)
        calls.append(number)
        if number == 0:
            started.set()
            assert purged.wait(5)
        start_response("200 OK", [("Content-Type", "text/plain")])
        yield f"version {number}".encode()

    middleware = wsgi.CacheMiddleware(app, cache=Down(f"crowd-{next(names)}"))

    def client() -> bytes:
        environ: dict[str, Any] = {
            "REQUEST_METHOD": "GET",
            "PATH_INFO": "/",
            "HTTP_HOST": "a",
            "wsgi.url_scheme": "http",
        }
        result: Any = middleware(environ, lambda status, headers, exc_info=None: lambda data: None)
        body = b"".join(result)
        getattr(result, "close", lambda: None)()
        return body

    with ThreadPoolExecutor(2) as pool:
        first = pool.submit(client)
        assert started.wait(5)
        purge("http://a/", caching=middleware.caching)
        second = pool.submit(client)
        assert second.result(5) == b"version 1"
        purged.set()
        assert first.result(5) == b"version 0"
    down = False
    recovery = middleware.caching.line.pages.recovery
    until(lambda: recovery._thread is None, "nobody tries again", 5)


def _asking_itself(site: dict[str, Any]) -> Any:
    """An application whose page contains another answer of its own to the same URL: it asks for it in process."""

    async def app(scope: Any, receive: Any, send: Any) -> None:
        inner: list[bytes] = []
        if (b"x-part", b"1") not in scope["headers"]:
            request = {**scope, "headers": [*scope["headers"], (b"x-part", b"1")]}

            async def keep(message: Any) -> None:
                inner.append(message.get("body", b""))

            for name in [name for name in request if name.startswith("cachemw")]:
                del request[name]
            await asyncio.gather(site["app"](request, no_body(), keep))  # in a task of its own
        await send({"type": "http.response.start", "status": 200, "headers": []})
        await send({"type": "http.response.body", "body": b"(" + b"".join(inner) + b")"})

    return app


@pytest.mark.parametrize("halves", ["together", "apart"])
def test_an_application_that_asks_itself_for_the_page_does_not_wait_for_itself(halves: str) -> None:
    site: dict[str, Any] = {}
    options: dict[str, Any] = {"cache": LocMemCache(f"crowd-{next(names)}"), "policy": Policy(collapse_timeout=3600)}
    app = _asking_itself(site)
    if halves == "together":
        site["app"] = asgi.CacheMiddleware(app, **options)
    else:
        site["app"] = asgi.UpdateCacheMiddleware(asgi.FetchFromCacheMiddleware(app, **options), **options)
    scope = {"type": "http", "method": "GET", "path": "/", "headers": [(b"host", b"site")]}
    bodies: list[bytes] = []

    async def keep(message: Any) -> None:
        bodies.append(message.get("body", b""))

    async def ask() -> None:
        await asyncio.wait_for(site["app"](scope, no_body(), keep), 30)

    asyncio.run(ask())
    assert b"".join(bodies) == b"(())"
