"""The asyncio client of memcached against servers that misbehave, and its connections on event loops."""

from __future__ import annotations

import asyncio
import gc
import itertools
import warnings
import weakref
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine, Iterator
from contextlib import asynccontextmanager
from types import SimpleNamespace
from typing import Any

import pytest

from cachemw.backends._memcached import commands
from cachemw.backends._memcached.asyncio import AsyncClient
from cachemw.backends._memcached.replies import Line, Values
from cachemw.backends._memcached.ring import Node
from cachemw.backends.memcached import PyMemcacheCache
from cachemw.errors import BackendUnavailable
from tests.backends.loop_clock import LoopClock
from tests.servers import Server, memcached_stats, start_memcached, until

Serve = Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]


@asynccontextmanager
async def scripted(serve: Serve, *, timeout: float = 5.0) -> AsyncIterator[AsyncClient]:
    """A client of a server that does what the test says; all connections end with the block."""
    handlers: set[asyncio.Task[Any]] = set()

    async def handle(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        handlers.add(task)
        try:
            await serve(reader, writer)
        except (ConnectionError, asyncio.IncompleteReadError):
            pass
        finally:
            writer.close()

    server = await asyncio.start_server(handle, "127.0.0.1", 0)
    client = AsyncClient(Node(server.sockets[0].getsockname()), timeout=timeout, connect_timeout=5)
    try:
        yield client
    finally:
        client.abort()
        server.close()
        for task in handlers:
            task.cancel()
        await asyncio.gather(*handlers, return_exceptions=True)
        await server.wait_closed()


def answering(*replies: bytes) -> Serve:
    """A server that sends these pieces, each in a packet of its own, after the first line that it reads."""

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readline()
        for reply in replies:
            writer.write(reply)
            await writer.drain()
            for _ in range(2):  # the other end is in this event loop: it has read the packet then
                await asyncio.sleep(0)
        await reader.read()

    return serve


async def get_from(*replies: bytes, keys: tuple[str, ...] = ("a", "b")) -> dict[str, Any]:
    async with scripted(answering(*replies)) as client:
        return await client.get(keys)


@pytest.mark.parametrize(
    "pieces",
    [
        [b"VALUE a 0 3\r\nabc\r\nVALUE b 4 19\r\n9223372036854775809\r\nEND\r\n"],
        [bytes([byte]) for byte in b"VALUE a 0 3\r\nabc\r\nVALUE b 4 19\r\n9223372036854775809\r\nEND\r\n"],
        [b"VALUE a 0 3\r\nabc\r", b"\nVALUE b 4 19\r", b"\n9223372036854775809\r\nEN", b"D\r\n"],
    ],
    ids=["at once", "byte by byte", "in the middle of line ends"],
)
def test_a_reply_may_come_in_any_pieces(pieces: list[bytes]) -> None:
    assert asyncio.run(get_from(*pieces)) == {"a": b"abc", "b": 1}


def test_a_value_may_look_like_the_protocol() -> None:
    data = b"END\r\nVALUE b 0 1\r\nx\r\n"
    assert asyncio.run(get_from(b"VALUE a 0 %d\r\n%b\r\nEND\r\n" % (len(data), data))) == {"a": data}


@pytest.mark.parametrize(
    "reply",
    [
        b"HTTP/1.1 400 Bad Request\r\n",
        b"ERROR\r\n",
        b"SERVER_ERROR out of memory\r\n",
        b"VALUE c 0 1\r\nx\r\nEND\r\n",  # of a key that nobody asked for: another's reply
        b"VALUE a 0 1 2 3\r\n",
        b"VALUE a 0 -1\r\n",
        b"VALUE a 0 1_0\r\n",
        b"VALUE a 0 99999999999999999999\r\n",
        b"VALUE a x 1\r\nx\r\n",
        b"VALUE a 0 1\r\nxEND\r\n",
        b"VALUE  a 0 1\r\n",
        b"STORED\r\n",
        b"\x00" * 5000,
        b"VALUE a 0 1" + b"x" * 5000,
    ],
    ids=repr,
)
def test_a_reply_that_is_none_drops_the_connection(reply: bytes) -> None:
    async def main() -> None:
        async with scripted(answering(reply), timeout=30) as client:
            calls = [asyncio.ensure_future(client.get(("a", "b"))) for _ in range(2)]
            for call in calls:
                with pytest.raises(BackendUnavailable, match=r"127\.0\.0\.1"):
                    await call

    asyncio.run(main())


def test_bytes_without_a_question_drop_the_connection() -> None:
    connections = 0

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        nonlocal connections
        connections += 1
        while await reader.readline():
            writer.write(b"END\r\n" if connections > 1 else b"END\r\nVALUE a 0 5\r\nwrong\r\nEND\r\n")

    async def main() -> None:
        async with scripted(serve) as client:
            for _ in range(5):
                assert await client.get(("a",)) == {}
            assert connections == 2

    asyncio.run(main())


@pytest.mark.parametrize("reply", [b"", b"VALUE a 0 10\r\nabc", b"VALUE a 0 3\r\nabc\r\n"])
def test_a_reply_that_is_cut_fails_at_once(reply: bytes) -> None:
    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readline()
        writer.write(reply)

    async def main() -> None:
        async with scripted(serve, timeout=60) as client:
            with pytest.raises(BackendUnavailable, match="closed the connection"):
                await asyncio.wait_for(client.get(("a",)), 20)

    asyncio.run(main())


def test_a_reset_connection_says_so() -> None:
    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readline()
        writer.transport.get_extra_info("socket").setsockopt(1, 13, b"\x01\x00\x00\x00\x00\x00\x00\x00")  # SO_LINGER
        writer.transport.abort()

    async def main() -> None:
        async with scripted(serve, timeout=60) as client:
            with pytest.raises(BackendUnavailable, match="reset"):
                await client.get(("a",))

    asyncio.run(main())


def test_a_late_reply_fails_all_who_wait_and_is_nobodys() -> None:
    connections = 0

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        nonlocal connections
        connections += 1
        if connections == 1:
            await reader.read()  # never answers; the client goes away
        else:
            while line := await reader.readline():
                key = line.split()[1]
                writer.write(b"VALUE %b 0 %d\r\n%b\r\nEND\r\n" % (key, len(key), key))

    async def main() -> None:
        loop = asyncio.get_running_loop()
        async with scripted(serve, timeout=0.1) as client:
            start = loop.time()
            results = await asyncio.gather(*(client.get((f"k{i}",)) for i in range(5)), return_exceptions=True)
            assert 0.09 < loop.time() - start < 2
            assert [type(result) for result in results] == [BackendUnavailable] * 5
            assert "within 100 ms" in str(results[0])
            assert await client.get(("new",)) == {"new": b"new"}

    asyncio.run(main())


def test_a_reply_that_dribbles_is_late_too() -> None:
    async def main() -> None:
        clock = LoopClock()

        async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            await reader.readline()
            writer.write(b"VALUE a 0 1000\r\n")
            while True:
                writer.write(b"x")
                await writer.drain()
                await clock.advance(1)

        async with scripted(serve, timeout=10) as client:
            start = clock()
            with pytest.raises(BackendUnavailable, match="within 10000 ms"):
                await client.get(("a",))
            assert 10 <= clock() - start < 15

    asyncio.run(main())


def test_the_clock_runs_for_each_call_and_not_for_the_connection() -> None:
    async def main() -> None:
        clock = LoopClock()

        async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            while await reader.readline():
                await clock.advance(4)
                writer.write(b"END\r\n")

        async with scripted(serve, timeout=10) as client:
            for _ in range(5):  # longer in all than one call may take
                assert await client.get(("a",)) == {}

    asyncio.run(main())


def test_a_cancelled_call_leaves_its_reply_to_nobody() -> None:
    everybody_asked = asyncio.Event()

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        held = b""
        while line := await reader.readline():
            key = line.split()[1]
            if key == b"k9":
                everybody_asked.set()
            held += b"VALUE %b 0 %d\r\n%b\r\nEND\r\n" % (key, len(key), key)
            if key == b"last":
                writer.write(held)

    async def main() -> None:
        async with scripted(serve) as client:
            calls = [asyncio.ensure_future(client.get((f"k{i}",))) for i in range(10)]
            await everybody_asked.wait()
            for call in calls[::2]:
                call.cancel()
            assert await client.get(("last",)) == {"last": b"last"}
            for number, call in enumerate(calls):
                if number % 2:
                    assert await call == {f"k{number}": b"k%d" % number}
                else:
                    assert call.cancelled()

    asyncio.run(main())


class Interrupted(BaseException):
    pass


def interrupt(*_: object) -> None:
    raise Interrupted


@pytest.mark.parametrize("where", ["asking", "answered"])
def test_an_interrupted_call_leaves_its_reply_to_nobody(where: str) -> None:
    """A signal handler may raise at any place, and some event loops go on after it."""

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        held = b""
        for number in itertools.count(1):
            await reader.readuntil(b"\n")
            held += b"%d\r\n" % (2**63 + number)
            if number != 2:
                writer.write(held)
                held = b""

    async def main() -> None:
        async with scripted(serve) as client:
            assert await client.incr("a", 1) == 1
            connection = client._connection
            assert connection is not None
            if where == "asking":
                connection._loop = SimpleNamespace(create_future=interrupt)  # type: ignore[assignment]
                with pytest.raises(Interrupted):
                    client._ask(commands.incr("a", 1))
            else:
                asked = client._ask((b"incr a 1\r\n", Line, (interrupt,)))
                with pytest.raises(Interrupted):
                    connection.data_received(b"9\r\n")
                assert isinstance(asked.exception(), BackendUnavailable)  # type: ignore[attr-defined]
            assert await client.incr("b", 1) == 1  # on another connection

    asyncio.run(main())


def test_a_caller_that_gives_up_while_connecting_does_not_take_the_connection_with_it() -> None:
    connections = 0

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        nonlocal connections
        connections += 1
        while await reader.readline():
            writer.write(b"END\r\n")

    async def main() -> None:
        async with scripted(serve) as client:
            first = asyncio.ensure_future(client.get(("a",)))
            second = asyncio.ensure_future(client.get(("b",)))
            await asyncio.sleep(0)
            first.cancel()
            assert await second == {}
            assert first.cancelled()
            assert connections == 1

    asyncio.run(main())


def test_closing_lets_those_finish_who_wait() -> None:
    asked = asyncio.Event()
    goes_on = asyncio.Event()
    ends: asyncio.Queue[bytes] = asyncio.Queue()

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readline()
        asked.set()
        await goes_on.wait()
        writer.write(b"END\r\n")
        await ends.put(await reader.read())

    async def main() -> None:
        async with scripted(serve) as client:
            call = asyncio.ensure_future(client.get(("a",)))
            await asked.wait()
            client.close()
            client.close()
            goes_on.set()
            assert await call == {}
            assert await asyncio.wait_for(ends.get(), 5) == b""  # the server sees the end

    asyncio.run(main())


def test_a_call_that_was_cancelled_does_not_mind_that_the_connection_ends() -> None:
    asked = asyncio.Event()

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readline()
        asked.set()
        await reader.readline()

    async def main() -> None:
        async with scripted(serve) as client:
            first = asyncio.ensure_future(client.get(("a",)))
            await asked.wait()
            first.cancel()
            with pytest.raises(BackendUnavailable, match="closed the connection"):
                await client.get(("b",))

    asyncio.run(main())


def test_a_connection_that_is_lost_before_it_is_used_fails_at_once() -> None:
    async def main() -> None:
        async with scripted(answering(b"END\r\n"), timeout=60) as client:
            connection = await client._connected()
            connection.drop("ended meanwhile")
            with pytest.raises(BackendUnavailable, match="ended meanwhile"):
                await connection.ask(b"get a\r\n", Values, (("a",),))

    asyncio.run(main())


def test_an_idle_connection_has_no_clock_running() -> None:
    async def main() -> None:
        clock = LoopClock()
        async with scripted(answering(b"END\r\n"), timeout=0.02) as client:
            assert await client.get(("a",)) == {}
            connection = client._connection
            assert connection is not None
            await clock.advance(0.1)
            assert connection._timer is None
            assert connection.is_sound()
            client.close()
            assert not connection.is_sound()

    asyncio.run(main())


def test_a_busy_event_loop_does_not_make_the_server_late() -> None:
    asked = asyncio.Event()
    value = b"x" * 1_000_000

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while await reader.readline():
            asked.set()
            writer.write(b"VALUE large 0 %d\r\n%b\r\nEND\r\n" % (len(value), value))
            await writer.drain()

    async def main() -> None:
        clock = LoopClock()
        async with scripted(serve, timeout=10) as client:
            for _ in range(5):
                asked.clear()
                call = asyncio.ensure_future(client.get(("large",)))
                await asked.wait()  # some of it has come, the rest finds no room yet
                clock.jump(25)  # while some view computes
                assert await call == {"large": value}

    asyncio.run(main())


def test_an_event_loop_that_stays_busy_does_not_wait_for_ever() -> None:
    asked = asyncio.Event()

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readline()
        asked.set()
        await reader.read()

    async def main() -> None:
        clock = LoopClock()
        async with scripted(serve, timeout=10) as client:
            call = asyncio.ensure_future(client.get(("a",)))
            await asked.wait()
            for _ in range(2):
                assert not call.done()
                clock.jump(25)
                for _ in range(3):  # the timer, the call, its error
                    await asyncio.sleep(0)
            with pytest.raises(BackendUnavailable, match="within 10000 ms"):
                await asyncio.wait_for(call, 5)

    asyncio.run(main())


def test_a_server_that_refuses_or_does_not_exist_is_unavailable() -> None:
    async def main() -> None:
        for address in (("127.0.0.1", 1), "/nonexistent/memcached.sock", ("no-such-host.invalid", 11211)):
            client = AsyncClient(Node(address), timeout=1, connect_timeout=5)
            with pytest.raises(BackendUnavailable, match="memcached at"):
                await client.get(("a",))

    asyncio.run(main())


def test_connecting_has_its_own_deadline(monkeypatch: pytest.MonkeyPatch) -> None:
    async def main() -> None:
        loop = asyncio.get_running_loop()

        async def never(*args: Any, **kwargs: Any) -> Any:
            await asyncio.Event().wait()

        monkeypatch.setattr(loop, "create_connection", never)
        client = AsyncClient(Node(("127.0.0.1", 11211)), timeout=30, connect_timeout=0.05)
        with pytest.raises(BackendUnavailable, match="TimeoutError"):
            await client.get(("a",))

    asyncio.run(main())


@pytest.mark.parametrize(
    ("call", "reply"),
    [
        (lambda client: client.set([("a", b"x", None)]), b"CLIENT_ERROR bad data chunk\r\n"),
        (lambda client: client.add(("a", b"x", None)), b"END\r\n"),
        (lambda client: client.touch("a", 1), b"STORED\r\n"),
        (lambda client: client.delete(["a"]), b"TOUCHED\r\n"),
        (lambda client: client.incr("a", 1), b"-5\r\n"),
        (lambda client: client.incr("a", 1), b"9" * 21 + b"\r\n"),
        (lambda client: client.flush(), b"NOPE\r\n"),
        (lambda client: client.time_left("a"), b"HD tx\r\n"),
    ],
)
def test_a_reply_of_another_command_is_refused(
    call: Callable[[AsyncClient], Coroutine[Any, Any, Any]], reply: bytes
) -> None:
    async def main() -> None:
        async with scripted(answering(reply)) as client:
            with pytest.raises(BackendUnavailable, match="answered"):
                await call(client)

    asyncio.run(main())


def test_what_the_server_refuses_is_deleted_and_reported() -> None:
    lines: list[bytes] = []

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while line := await reader.readline():
            lines.append(line)
            if line.startswith(b"set"):
                await reader.readline()
                writer.write(b"STORED\r\n" if b" b " in line else b"SERVER_ERROR out of memory storing object\r\n")
            else:
                writer.write(b"DELETED\r\n")

    async def main() -> None:
        async with scripted(serve) as client:
            assert await client.set([(key, b"x", 60) for key in "abc"]) == ["a", "c"]
            assert lines[3:] == [b"delete a\r\n", b"delete c\r\n"]

    asyncio.run(main())


# -- event loops ----------------------------------------------------------------------------------------------------


@pytest.fixture
def server() -> Iterator[Server]:
    with start_memcached() as server:  # of which nobody else has a connection
        yield server


def connections(server: Server) -> int:
    return int(memcached_stats(server)["curr_connections"])


def test_a_connection_ends_with_its_event_loop(server: Server) -> None:
    cache = PyMemcacheCache(server.address, {})
    before = connections(server)

    async def main() -> None:
        await cache.aset("a", 1)
        assert connections(server) == before + 1

    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        for _ in range(3):
            asyncio.run(main())
            until(lambda: connections(server) == before, "the server has seen the connection end")
        gc.collect()
    assert [str(warning.message) for warning in caught] == []


def test_event_loops_that_ended_are_forgotten(server: Server) -> None:
    cache = PyMemcacheCache(server.address, {})
    loops = []

    async def main() -> None:
        loops.append(weakref.ref(asyncio.get_running_loop()))
        await cache.aset("a", 1)

    for _ in range(5):
        asyncio.run(main())
    gc.collect()
    assert [loop() for loop in loops[:-1]] == [None] * 4


def test_an_event_loop_makes_one_connection_for_many_tasks(server: Server) -> None:
    cache = PyMemcacheCache(server.address, {})

    async def main() -> None:
        before = int(memcached_stats(server)["total_connections"])
        await asyncio.gather(*(cache.aset(f"k{i}", [i]) for i in range(100)))
        found = await asyncio.gather(*(cache.aget(f"k{i}") for i in range(100)))
        assert found == [[i] for i in range(100)]
        assert int(memcached_stats(server)["total_connections"]) == before + 2  # this one, and `stats`
        await cache.aclose()

    asyncio.run(main())


def test_close_from_a_thread_closes_an_event_loops_connection(server: Server) -> None:
    cache = PyMemcacheCache(server.address, {})
    before = connections(server)

    async def main() -> None:
        await cache.aset("a", 1)
        await asyncio.to_thread(cache.close)
        while connections(server) > before:
            await asyncio.sleep(0.01)
        assert await cache.aget("a") == 1

    asyncio.run(main())
    cache.close()  # with a loop that is closed
