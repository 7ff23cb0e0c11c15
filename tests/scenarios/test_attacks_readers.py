"""A client that asks first and reads nothing: whoever waits for the answer that it was given must not wait for it."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from itertools import count
from typing import Any

import pytest

from cachemw import asgi, wsgi
from cachemw._asgi.replies import discard, no_body
from cachemw.backends.locmem import LocMemCache
from tests.scenarios.test_attacks_shells import ask_wsgi, environ_of, scope_of

names = count()


@pytest.fixture(autouse=True)
def patience(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("cachemw.flights.PATIENCE", 0.05)


def with_halves(module: Any, app: Any, halves: bool) -> Any:
    cache = LocMemCache(f"readers-{next(names)}")
    if not halves:
        return module.CacheMiddleware(app, cache=cache)
    return module.UpdateCacheMiddleware(module.FetchFromCacheMiddleware(app, cache=cache), cache=cache)


@pytest.mark.parametrize("halves", [True, False])
@pytest.mark.parametrize("refused", ["http.response.start", "http.response.body"])
def test_tasks_do_not_wait_for_a_client_that_reads_nothing(refused: str, halves: bool) -> None:
    async def story() -> None:
        calls, reads, stuck = count(1), asyncio.Event(), asyncio.Event()
        called = 0

        async def app(scope: Any, receive: Any, send: Any) -> None:
            nonlocal called
            called = next(calls)
            await send({"type": "http.response.start", "status": 200, "headers": []})
            await send({"type": "http.response.body", "body": b"pa", "more_body": True})
            await send({"type": "http.response.body", "body": b"ge"})

        middleware = with_halves(asgi, app, halves)

        async def client(*, reading: bool = True) -> bytes:
            body = b""

            async def send(message: Any) -> None:
                nonlocal body
                if not reading and message["type"] == refused:
                    stuck.set()
                    await reads.wait()
                body += message.get("body", b"")

            await middleware(scope_of(), no_body(), send)
            return body

        leader = asyncio.create_task(client(reading=False))
        await stuck.wait()
        async with asyncio.timeout(10):  # a third of what they would wait at most
            assert await asyncio.gather(*[client() for _ in range(20)]) == [b"page"] * 20
        assert called == 2
        assert not leader.done()
        reads.set()
        assert await leader == b"page"

    asyncio.run(story())


def test_nor_for_one_that_does_not_end_its_request() -> None:
    """HTTP/2 lets a GET have a body without a word about it, and some applications ask for one."""

    async def story() -> None:
        calls, ends, stuck = count(1), asyncio.Event(), asyncio.Event()
        called = 0

        async def app(scope: Any, receive: Any, send: Any) -> None:
            nonlocal called
            called = next(calls)
            while (await receive()).get("more_body", False):
                pass
            await send({"type": "http.response.start", "status": 200, "headers": []})
            await send({"type": "http.response.body", "body": b"page"})

        middleware = with_halves(asgi, app, False)
        parts = [{"type": "http.request", "body": b"", "more_body": more} for more in (True, False)]

        async def receive() -> Any:
            if len(parts) == 1:
                stuck.set()
                await ends.wait()
            return parts.pop(0)

        async def client(receive: Any) -> bytes:
            body = b""

            async def send(message: Any) -> None:
                nonlocal body
                body += message.get("body", b"")

            await middleware(scope_of(), receive, send)
            return body

        leader = asyncio.create_task(client(receive))
        await stuck.wait()
        async with asyncio.timeout(10):
            assert await asyncio.gather(*[client(no_body()) for _ in range(20)]) == [b"page"] * 20
        assert called == 2
        ends.set()
        assert await leader == b"page"

    asyncio.run(story())


def test_who_listens_for_a_client_that_leaves_is_waited_for() -> None:
    """As Starlette's StreamingResponse does while it sends."""

    async def story() -> None:
        calls = 0

        async def app(scope: Any, receive: Any, send: Any) -> None:
            nonlocal calls
            calls += 1
            await receive()
            listening = asyncio.create_task(receive())
            await asyncio.sleep(0.3)
            await send({"type": "http.response.start", "status": 200, "headers": []})
            await send({"type": "http.response.body", "body": b"page"})
            listening.cancel()

        middleware = with_halves(asgi, app, False)
        await asyncio.gather(*[middleware(scope_of(), no_body(), discard) for _ in range(20)])
        assert calls == 1

    asyncio.run(story())


@pytest.mark.parametrize("way", ["pulled", "written"])
@pytest.mark.parametrize("halves", [True, False])
def test_threads_do_not_either(way: str, halves: bool) -> None:
    calls = count(1)
    called = 0

    def app(environ: Any, start_response: Any) -> Any:
        nonlocal called
        called = next(calls)
        write = start_response("200 OK", [])
        if way == "written":
            write(b"pa")
            return [b"ge"]
        return pulled()

    def pulled() -> Iterator[bytes]:
        yield b"pa"
        yield b"ge"

    middleware = with_halves(wsgi, app, halves)
    with ThreadPoolExecutor(21) as pool:
        if way == "pulled":
            leader = middleware(environ_of(), lambda status, headers: bytes)
            assert next(iter(leader)) == b"pa"
            followers = [pool.submit(ask_wsgi, middleware) for _ in range(20)]
            assert [follower.result(10)[2] for follower in followers] == [b"page"] * 20
            leader.close()
        else:
            read: list[Any] = []

            def write(data: bytes) -> None:
                read.extend(pool.submit(ask_wsgi, middleware) for _ in range(20))
                assert [follower.result(10)[2] for follower in read] == [b"page"] * 20

            leader = middleware(environ_of(), lambda status, headers: write)
            assert b"".join(leader) == b"ge"
            leader.close()
    assert called == 2


def test_an_application_that_takes_its_time_is_waited_for() -> None:
    """However often they look whether it is the client who does."""

    async def story() -> None:
        calls = 0

        async def app(scope: Any, receive: Any, send: Any) -> None:
            nonlocal calls
            calls += 1
            await send({"type": "http.response.start", "status": 200, "headers": []})
            await send({"type": "http.response.body", "body": b"pa", "more_body": True})
            await asyncio.sleep(0.3)
            await send({"type": "http.response.body", "body": b"ge"})

        middleware = with_halves(asgi, app, False)

        async def client() -> bytes:
            body = b""

            async def send(message: Any) -> None:
                nonlocal body
                body += message.get("body", b"")

            await middleware(scope_of(), no_body(), send)
            return body

        assert await asyncio.gather(*[client() for _ in range(20)]) == [b"page"] * 20
        assert calls == 1

    asyncio.run(story())
