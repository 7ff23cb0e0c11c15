"""Memcached servers that die, hang, return and talk nonsense; forks, interrupts, and SASL."""

from __future__ import annotations

import asyncio
import ctypes
import gc
import os
import signal
import socket
import threading
import time
from collections.abc import Callable, Coroutine, Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest

from cachemw.backends._memcached.cache import MemcachedCache
from cachemw.backends._memcached.ring import Node
from cachemw.backends.base import BaseCache
from cachemw.backends.memcached import PyLibMCCache, PyMemcacheCache
from cachemw.errors import BackendUnavailable, ImproperlyConfigured
from cachemw.testing._concurrency import in_processes
from tests.servers import (
    MemcachedRing,
    Server,
    memcached_stats,
    new_directory,
    shared,
    start_memcached,
    until,
)

# The wheel of pylibmc has a libsasl2 of its own, which looks for plugins where its builder had them; it looks once,
# when pylibmc is imported.
for _plugin in Path("/usr/lib").glob("*/sasl2/libplain.so"):
    os.environ.setdefault("SASL_PATH", str(_plugin.parent))

Make = Callable[..., BaseCache]
Run = Callable[[Coroutine[Any, Any, Any]], Any]
Open = Callable[..., "Half"]
PATIENT = {"timeout": 5, "connect_timeout": 5}
BACK = 2.0  # seconds within which a server takes part again

KEYS = [f"key{number}" for number in range(60)]


class Half:
    """One half of a cache: the synchronous one, or with `run` the asynchronous one."""

    def __init__(self, cache: BaseCache, run: Run | None) -> None:
        self.cache = cache
        self._run = run

    def __getattr__(self, name: str) -> Any:
        run = self._run
        if run is None:
            return getattr(self.cache, name)
        return lambda *args: run(getattr(self.cache, f"a{name}")(*args))


@pytest.fixture(params=["pymemcache", "pylibmc", "asyncio"])
def opened(request: pytest.FixtureRequest) -> Iterator[Open]:
    """`opened(location, **options)`: a cache by each client."""
    made: list[BaseCache] = []
    make: Make = PyLibMCCache if request.param == "pylibmc" else PyMemcacheCache
    with asyncio.Runner() as runner:

        def open_one(location: Any, **options: Any) -> Half:
            made.append(make(location, {"OPTIONS": options}))
            return Half(made[-1], runner.run if request.param == "asyncio" else None)

        yield open_one
        for cache in made:
            runner.run(cache.aclose())
            cache.close()


def fails(call: Callable[[], Any], cache: Half) -> bool:
    """Whether it raises BackendUnavailable.

    libmemcached says of some broken replies that there is nothing, and does not look whose value it gets: the contents
    have to show that.
    """
    sloppy = isinstance(cache.cache, PyLibMCCache)
    try:
        answer = call()
    except BackendUnavailable:
        return True
    return sloppy and answer in (None, {}, False, True)  # and no value


def works(call: Callable[[], Any]) -> bool:
    try:
        call()
    except BackendUnavailable:
        return False
    return True


# -- one server -----------------------------------------------------------------------------------------------------


def test_a_server_that_is_restarted_is_used_again(opened: Open) -> None:
    with start_memcached() as server:
        cache = opened(server.address)
        cache.set("a", 1)
        server.kill()
        assert fails(lambda: cache.get("a"), cache)
        for _ in range(3):
            with pytest.raises(BackendUnavailable, match=server.address):
                cache.get("a")
            with pytest.raises(BackendUnavailable):
                cache.set("a", 1)
        server.start()
        until(lambda: works(lambda: cache.get("a")), "the cache uses the server again", BACK)
        assert cache.get("a") is None
        cache.set("a", 2)
        assert cache.incr("a") == 3


def test_a_server_that_was_restarted_between_two_calls_costs_no_failure(opened: Open) -> None:
    with start_memcached() as server:
        cache = opened(server.address, **PATIENT)
        cache.set_many({"a": 1, "b": 2})
        assert cache.incr("a") == 2
        server.kill()
        server.start()
        assert cache.get("a") is None
        assert cache.get_many(["a", "b"]) == {}
        assert cache.set_many({"a": 1, "b": 1}) == []
        assert cache.incr("a") == 2


def test_what_libmemcached_says_of_a_restart_costs_no_failure_either(monkeypatch: pytest.MonkeyPatch) -> None:
    """1.1 says what 1.0 keeps to itself. The value is asked for again, once; what may have been done is not."""
    said = "CONNECTION FAILURE, ::rec() returned zero, server has disconnected"
    with start_memcached() as server:
        cache = PyLibMCCache(server.address, {"OPTIONS": PATIENT})
        cache.set("a", 1)
        client = pylibmc_client()
        get, failures = client.get, [said]

        def ended(self: Any, *args: Any) -> Any:
            if failures:
                raise RuntimeError(f"error 3 from memcached_get(a): {failures.pop()}")
            return get(self, *args)

        monkeypatch.setattr(client, "get", ended)
        assert cache.get("a") == 1
        failures += [said] * 2
        with pytest.raises(BackendUnavailable, match="disconnected"):
            cache.get("a")
        cache.close()


def test_a_server_that_hangs_costs_little_time(opened: Open) -> None:
    with start_memcached() as server:
        cache = opened(server.address)
        cache.set("a", 1)
        server.pause()
        start = time.monotonic()
        for _ in range(200):
            with pytest.raises(BackendUnavailable):
                cache.get("a")
        assert time.monotonic() - start < 2
        server.resume()
        until(lambda: works(lambda: cache.get("a")), "the cache uses the server again", BACK)
        assert cache.get("a") == 1


def test_what_was_not_deleted_on_a_server_that_hung_is_deleted_when_it_returns(opened: Open) -> None:
    with start_memcached() as server:
        cache = opened(server.address)
        cache.set_many({"purged": "old", "replaced": "old", "kept": "old"})
        server.pause()
        with pytest.raises(BackendUnavailable):
            cache.delete("purged")
        with pytest.raises(BackendUnavailable):
            cache.set("replaced", "new")
        with pytest.raises(BackendUnavailable):
            cache.get("kept")
        server.resume()
        until(lambda: works(lambda: cache.get("kept")), "the cache uses the server again", BACK)
        assert cache.get_many(["purged", "kept"]) == {"kept": "old"}
        assert cache.get("replaced") in (None, "new")


def test_clearing_a_server_that_hangs_fails_and_is_done_when_it_returns(opened: Open) -> None:
    with start_memcached() as server:
        cache = opened(server.address)
        cache.set("a", 1)
        server.pause()
        with pytest.raises(BackendUnavailable):
            cache.clear()
        server.resume()
        until(lambda: works(lambda: cache.get("a")), "the cache uses the server again", BACK)
        assert cache.get("a") is None


def test_with_fail_open_an_absent_server_holds_nothing(opened: Open) -> None:
    cache = opened("127.0.0.1:1", fail_open=True)
    cache.set("a", 1)
    assert cache.get("a", "default") == "default"
    assert cache.set_many({"a": 1}) == ["a"]
    assert cache.add("a", 1) is False


def belonging(cache: Half, server: Server) -> list[str]:
    """Those of KEYS that the server has when all are there."""
    assert isinstance(cache.cache, MemcachedCache)
    ring = cache.cache._ring
    return [key for key in KEYS if ring.home(f":1:{key}").name == server.address]


# -- three servers --------------------------------------------------------------------------------------------------


@pytest.fixture
def ring() -> Iterator[MemcachedRing]:
    with MemcachedRing() as ring:
        yield ring


def test_a_dead_server_is_left_out_and_taken_back(opened: Open, ring: MemcachedRing) -> None:
    cache = opened(ring.location)
    data = dict.fromkeys(KEYS, "old")
    assert cache.set_many(data) == []
    lost = ring.servers[0]
    own = belonging(cache, lost)
    assert 5 < len(own) < 50
    lost.kill()
    found = cache.get_many(KEYS)  # the first to notice does not fail either
    assert found == {key: "old" for key in KEYS if key not in own}
    assert cache.set_many(dict.fromkeys(KEYS, "new")) == []
    assert cache.get_many(KEYS) == dict.fromkeys(KEYS, "new")
    assert cache.add(own[0], "other") is False
    assert cache.delete(own[1]) is True
    lost.start()
    until(lambda: cache.get(own[0]) is None, "the server takes part again, without what it missed", BACK)
    cache.set_many(dict.fromkeys(own, "newest"))
    assert int(memcached_stats(lost)["curr_items"]) == len(own)
    assert cache.get_many(KEYS) == dict.fromkeys(KEYS, "new") | dict.fromkeys(own, "newest")


def test_a_server_that_hung_answers_nothing_old_when_it_returns(opened: Open, ring: MemcachedRing) -> None:
    cache = opened(ring.location)
    cache.set_many(dict.fromkeys(KEYS, "old"))
    hung = ring.servers[1]
    own = belonging(cache, hung)
    hung.pause()
    assert cache.get(own[0]) is None
    for key in own[:3]:
        cache.set(key, "new")
        assert cache.get(key) == "new"
    cache.delete(own[3])
    hung.resume()
    until(lambda: cache.get(own[-1]) == "old", "the server takes part again", BACK)
    assert cache.get_many(own[:4]) == {}
    # and when it fails again, what the others were given in its place is not there either
    hung.kill()
    assert cache.get_many(own) == {}


def test_a_page_whose_server_dies_is_stored_on_the_next_one(opened: Open, ring: MemcachedRing) -> None:
    pages = [f"url{number}" for number in range(20)]
    for call in ("read", "commit", "add"):
        cache = opened(ring.location, **PATIENT)
        lost = ring.servers[0]
        page = next(page for page in pages if cache.cache._ring.lone([cache.cache.page_key(page)]).name == lost.address)  # type: ignore[attr-defined]
        cache.write_records([(page, b"old", 60.0)])
        lost.kill()
        if call == "read":
            assert cache.read_records([page]) == [None]
        elif call == "commit":
            assert cache.commit_records([(page, b"new", 60.0)], [page], [page + "\0L"]) == ([], [b"new"])
        else:
            assert cache.add_and_read(page, b"new", 60.0, [page, page + "\0M"]) == (True, [b"new", None])
        if call != "read":
            assert cache.read_records([page]) == [b"new"]
            assert cache.add_and_read(page, b"other", 60.0, [page]) == (False, [b"new"])
        lost.start()
        until(lambda cache=cache, page=page: cache.read_records([page]) == [None], "the server takes part again", BACK)  # type: ignore[misc]


def test_of_the_servers_that_hang_each_costs_one_deadline(opened: Open, ring: MemcachedRing) -> None:
    cache = opened(ring.location)
    cache.set_many(dict.fromkeys(KEYS, "old"))
    for server in ring.servers[:2]:
        server.pause()
    start = time.monotonic()
    for key in KEYS * 3:
        cache.get(key)
    assert time.monotonic() - start < 2
    assert cache.set_many(dict.fromkeys(KEYS, "new")) == []


def test_nobody_waits_to_find_out_whether_a_server_still_hangs(
    opened: Open, ring: MemcachedRing, monkeypatch: pytest.MonkeyPatch
) -> None:
    cache = opened(ring.location, timeout=1, connect_timeout=1)
    cache.set_many(dict.fromkeys(KEYS, "old"))
    hung = ring.servers[1]
    own = belonging(cache, hung)
    hung.pause()
    cache.set(own[0], "new")
    servers = cache.cache._ring  # type: ignore[attr-defined]
    for pause in range(1, 4):
        monkeypatch.setattr(servers, "_clock", lambda pause=pause: time.monotonic() + pause)
        start = time.monotonic()
        assert cache.get(own[0]) == "new"
        assert time.monotonic() - start < 0.5
    hung.resume()
    until(lambda: cache.get(own[-1]) == "old", "the server takes part again", BACK)
    assert cache.get(own[0]) is None


def test_where_no_thread_can_be_had_the_caller_asks(
    opened: Open, ring: MemcachedRing, monkeypatch: pytest.MonkeyPatch
) -> None:
    cache = opened(ring.location)
    cache.set_many(dict.fromkeys(KEYS, "old"))
    lost = ring.servers[1]
    own = belonging(cache, lost)
    lost.kill()
    cache.set(own[0], "new")

    def none_left(self: threading.Thread) -> None:
        raise RuntimeError("can't start new thread")

    monkeypatch.setattr(threading.Thread, "start", none_left)
    lost.start()
    until(lambda: cache.get(own[0]) is None, "the server takes part again", BACK)


@pytest.mark.parametrize("asynchronous", [False, True])
def test_the_last_server_may_fail_with_what_it_took_over(asynchronous: bool) -> None:
    cache = PyMemcacheCache(["127.0.0.1:1", "127.0.0.1:2"], {})
    asked: list[Sequence[str]] = []

    def ask(client: Any, keys: Sequence[str]) -> str:
        asked.append(keys)
        if len(asked) == 2:
            return "an answer"
        raise BackendUnavailable("it is gone")

    async def aask(client: Any, keys: Sequence[str]) -> str:
        return ask(client, keys)

    def call() -> Any:
        return asyncio.run(cache._aeach(aask, KEYS, str)) if asynchronous else cache._each(ask, KEYS, str)

    with pytest.raises(BackendUnavailable, match="it is gone"):
        call()
    assert sorted([*asked[0], *asked[1]]) == sorted(KEYS)
    assert asked[2] == asked[0], "what the first one did not take"
    assert len(asked) == 3


def test_with_all_servers_dead_the_error_names_them(opened: Open, ring: MemcachedRing) -> None:
    cache = opened(ring.location)
    cache.set_many(dict.fromkeys(KEYS, "old"))
    for server in ring.servers:
        server.kill()
    fails(lambda: cache.get_many(KEYS), cache)  # libmemcached may have to learn it
    for call in (lambda: cache.get_many(KEYS), lambda: cache.set("a", 1), lambda: cache.incr("a"), cache.clear):
        with pytest.raises(BackendUnavailable, match="memcached"):
            call()
    with pytest.raises(BackendUnavailable) as caught:
        cache.get("a")
    assert all(server.address in str(caught.value) for server in ring.servers)


def away(cache: Half, server: Server) -> None:
    """Let the cache notice that the server hangs, and wait until it is time to ask it again."""
    assert isinstance(cache.cache, MemcachedCache)
    server.pause()
    fails(lambda: cache.get("a"), cache)
    with pytest.raises(BackendUnavailable):
        cache.get("a")
    server.resume()
    node = cache.cache._ring.nodes[0]
    until(lambda: node.retry_at <= time.monotonic(), "the pause is over")


def test_what_is_deleted_while_a_server_forgets_is_forgotten_too() -> None:
    with start_memcached() as server:

        async def main() -> None:
            cache = PyMemcacheCache(server.address, {})
            await cache.aset("a", "old")
            await asyncio.to_thread(away, Half(cache, None), server)
            results = await asyncio.gather(cache.aget("b"), cache.adelete("a"), return_exceptions=True)
            assert results[0] is None  # this one has asked the server to come back
            assert isinstance(results[1], BackendUnavailable)  # and this one was too early
            assert await cache.aget("a") is None
            await cache.aclose()

        asyncio.run(main())
        cache = PyMemcacheCache(server.address, {})
        cache.set("a", "old")
        away(Half(cache, None), server)
        node, pool = cache._ring.nodes[0], cache._pools[cache._ring.nodes[0]]
        forget = pool.delete

        def delete(keys: Sequence[str]) -> int:
            pool.delete = forget  # type: ignore[method-assign]
            node.miss([":1:a"])  # another thread's deletion, just now
            return forget(keys)

        pool.delete = delete  # type: ignore[method-assign]
        assert cache.get("a") is None
        cache.close()


@pytest.mark.parametrize("call", ["delete", "clear"])
def test_a_server_that_is_back_at_once_still_forgets_what_it_missed(call: str) -> None:
    with start_memcached() as server:
        cache = PyMemcacheCache(server.address, {})
        cache.set("a", "old")
        ring, pool = cache._ring, cache._pools[cache._ring.nodes[0]]
        failed, name = ring.failed, "flush" if call == "clear" else call
        does = getattr(pool, name)

        def fail(*args: Any) -> None:
            setattr(pool, name, does)
            raise BackendUnavailable("the connection ended")

        def failed_and_back(node: Node, failure: Exception) -> None:
            failed(node, failure)
            cache._welcome(node)  # another thread, just now

        setattr(pool, name, fail)
        ring.failed = failed_and_back  # type: ignore[method-assign]
        with pytest.raises(BackendUnavailable):
            getattr(cache, call)(*"a" if call == "delete" else ())
        assert cache.get("a") is None
        cache.close()


# -- nonsense on the wire -------------------------------------------------------------------------------------------


class Nonsense:
    """A server that answers every line with the same pieces, `pause` seconds apart, and then hangs up or waits."""

    def __init__(self, *pieces: bytes, pause: float = 0, hang_up: bool = False) -> None:
        self.connections = 0
        self._pieces = pieces
        self._pause = threading.Event(), pause
        self._hang_up = hang_up
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.address = f"127.0.0.1:{self._listener.getsockname()[1]}"
        threading.Thread(target=self._serve, daemon=True).start()

    def _serve(self) -> None:
        while True:
            try:
                client, _ = self._listener.accept()
            except OSError:
                return
            self.connections += 1
            threading.Thread(target=self._answer, args=(client,), daemon=True).start()

    def _answer(self, client: socket.socket) -> None:
        stop, pause = self._pause
        try:
            with client:
                while client.recv(65536):
                    for piece in self._pieces:
                        client.sendall(piece)
                        stop.wait(pause)
                    if self._hang_up:
                        return
        except OSError:
            pass

    def __enter__(self) -> Nonsense:
        return self

    def __exit__(self, *exc_info: object) -> None:
        self._pause[0].set()
        self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()


@pytest.mark.parametrize(
    "reply",
    [
        b"\x00\xff\x00\xff\r\n",
        b"HTTP/1.1 400 Bad Request\r\n\r\n",
        b"VALUE :1:other 0 1\r\nx\r\nEND\r\n",
        b"VALUE :1:a 0 x\r\nx\r\nEND\r\n",
        b"VALUE :1:a 0\r\n",
        b"SERVER_ERROR out of memory writing get response\r\n",
        b"ERROR\r\n",
    ],
    ids=repr,
)
def test_nonsense_is_unavailable_and_no_value(opened: Open, reply: bytes) -> None:
    with Nonsense(reply) as server:
        cache = opened(server.address)
        assert fails(lambda: cache.get("a"), cache)
        assert fails(lambda: cache.get_many(["a", "b"]), cache)
        assert fails(lambda: cache.delete("a"), cache)
        # and so it is to a write, on a cache that knows nothing of it yet
        with pytest.raises(BackendUnavailable):
            opened(server.address).touch("a", 10)


@pytest.mark.parametrize("opened", ["pymemcache", "asyncio"], indirect=True)
def test_a_server_that_comes_back_for_one_answer_only_is_unavailable(opened: Open) -> None:
    with Nonsense(b"NOT_FOUND\r\n") as server:
        cache = opened(server.address, **PATIENT)
        with pytest.raises(BackendUnavailable):
            cache.get("a")
        cache.cache._ring._clock = lambda: time.monotonic() + 10  # type: ignore[attr-defined]
        with pytest.raises(BackendUnavailable, match="answered"):
            cache.get("a")
        assert server.connections == 2  # the second one answered, and was asked for the value


def test_more_than_the_reply_is_unavailable() -> None:
    with Nonsense(b"END\r\nEND\r\n") as server:
        cache = PyMemcacheCache(server.address, {})
        with pytest.raises(BackendUnavailable, match="more than it was asked"):
            cache.get("a")


def test_a_time_that_is_too_short_for_anything_is_a_time() -> None:
    with Nonsense(b"END", b"\r\n", pause=0.01) as server:
        cache = PyMemcacheCache(server.address, {"OPTIONS": {"timeout": 1e-9, "connect_timeout": 5}})
        with pytest.raises(BackendUnavailable):
            cache.get("a")


def test_a_reply_cut_in_the_middle_is_no_value(opened: Open) -> None:
    with Nonsense(b"VALUE :1:a 0 10\r\nabc", hang_up=True) as server:
        cache = opened(server.address)
        assert fails(lambda: cache.get("a"), cache)


@pytest.mark.parametrize("opened", ["pymemcache", "asyncio"], indirect=True)  # libmemcached's time is for each piece
def test_a_reply_that_dribbles_has_one_deadline(opened: Open) -> None:
    with Nonsense(b"VALUE :1:a 0 100\r\n", *[b"x"] * 100, pause=0.05) as server:
        cache = opened(server.address, timeout=0.1)
        start = time.monotonic()
        with pytest.raises(BackendUnavailable):
            cache.get("a")
        assert time.monotonic() - start < 2.5  # in all it would be 5


def test_a_server_that_hangs_up_while_it_is_asked_to_count_is_unavailable(opened: Open) -> None:
    with Nonsense(b"", hang_up=True) as server:
        with pytest.raises(BackendUnavailable):
            opened(server.address).incr("a")
        with pytest.raises(BackendUnavailable):
            opened(server.address).add("a", 1)
        with pytest.raises(BackendUnavailable):
            opened(server.address).set_many({"a": 1, "b": 1})


def test_a_server_without_meta_commands_does_not_tell_the_time_left() -> None:
    with Nonsense(b"ERROR\r\n") as server, asyncio.Runner() as runner:
        for make in (PyMemcacheCache, PyLibMCCache):
            cache = make(server.address, {"TIMEOUT": 77})
            assert cache._timeout_left("a") == 77
            assert runner.run(cache._atimeout_left("a")) == 77
            runner.run(cache.aclose())


# -- connections ----------------------------------------------------------------------------------------------------


def test_a_connection_that_the_server_ended_is_not_used(opened: Open) -> None:
    with start_memcached("-o", "idle_timeout=1") as server:
        cache = opened(server.address, **PATIENT)
        cache.set("a", 1)
        assert cache.incr("a") == 2
        until(lambda: int(memcached_stats(server)["idle_kicks"]) > 0, "the server ends idle connections")
        assert cache.incr("a") == 3


def test_a_reply_that_nobody_asked_for_is_not_taken_for_one() -> None:
    with Nonsense(b"END\r\n", b"VALUE :1:a 0 1\r\nx\r\nEND\r\n", pause=0.02) as server:
        cache = PyMemcacheCache(server.address, {"OPTIONS": PATIENT})
        for turn in range(1, 4):
            assert cache.get("a") is None
            until(lambda: bool(cache._pools[cache._ring.nodes[0]]._idle[0].readable(0)), "the second reply has come")
            assert server.connections == turn
        cache.close()


class Interrupted(BaseException):
    """As a signal handler or a green thread's timeout may raise in the middle of a call."""


def test_an_interrupted_call_leaves_its_reply_to_nobody() -> None:
    # of pymemcache: libmemcached cannot be interrupted, a signal waits for its deadline
    with start_memcached() as server:
        cache = PyMemcacheCache(server.address, {"OPTIONS": PATIENT})
        cache.set_many({"a": "a", "b": "b"})
        cache.get("a")

        def interrupt(*_: object) -> None:
            server.resume()
            raise Interrupted

        handler = signal.signal(signal.SIGALRM, interrupt)
        try:
            for _ in range(3):
                server.pause()
                signal.setitimer(signal.ITIMER_REAL, 0.05)
                with pytest.raises(Interrupted):
                    cache.get("a")
                assert cache.get("b") == "b"
        finally:
            signal.setitimer(signal.ITIMER_REAL, 0)
            signal.signal(signal.SIGALRM, handler)
        cache.close()


@pytest.mark.parametrize("make", [PyMemcacheCache, PyLibMCCache])
def test_children_do_not_share_the_parents_connections(make: Make) -> None:
    server = shared(start_memcached)
    parent = make(server.address, {"OPTIONS": PATIENT})
    parent.clear()

    async def use(name: str) -> list[Any]:
        await asyncio.gather(*(parent.aset(f"{name}{i}", [name, i]) for i in range(20)))
        return await asyncio.gather(*(parent.aget(f"{name}{i}") for i in range(20)))

    async def main() -> None:
        assert await use("before") == [["before", i] for i in range(20)]
        for i in range(20):
            parent.set(f"sync{i}", i)

        def child(number: int) -> list[Any]:
            # in a child of a running event loop: a thread of its own has a loop of its own
            results: list[Any] = []
            thread = threading.Thread(target=lambda: results.append(asyncio.run(use(f"child{number}-"))))
            thread.start()
            thread.join()
            results.append([parent.get(f"sync{i}") for i in range(20)])
            gc.collect()
            parent.close()
            return results

        before = int(memcached_stats(server)["total_connections"])
        results = in_processes(3, child)
        # each child has made one for its loop and one for itself; the seventh is that of `stats`
        assert int(memcached_stats(server)["total_connections"]) == before + 7
        for number, (own, seen) in enumerate(results):
            assert own == [[f"child{number}-", i] for i in range(20)]
            assert seen == list(range(20))
        # the children's end has not touched the connections of this loop, nor those of this process
        before = int(memcached_stats(server)["total_connections"])
        assert await use("after") == [["after", i] for i in range(20)]
        assert int(memcached_stats(server)["total_connections"]) == before + 1
        assert [parent.get(f"sync{i}") for i in range(20)] == list(range(20))
        await parent.aclose()

    asyncio.run(main())
    parent.close()


def test_a_connection_that_another_thread_lays_aside_during_a_fork_stays_the_parents() -> None:
    server = shared(start_memcached)
    cache = PyLibMCCache(server.address, {"OPTIONS": PATIENT})
    pool: Any = cache._pools[cache._ring.nodes[0]]
    first, second = pool._take(), pool._connect()
    for client in (first, second):
        assert client.set("a", b"1")
    pool._give(first)
    drop, other = pool._drop, threading.Thread(target=pool._give, args=(second,))

    def meanwhile(client: Any) -> None:
        pool._drop = drop
        drop(client)
        other.start()
        other.join(0.2)

    pool._drop = meanwhile
    assert in_processes(1, lambda number: cache.get("absent")) == [None]
    other.join()
    assert list(pool._idle) == [second]
    assert second.set("b", b"2")  # the child has not ended it
    assert second.get("b") == b"2"
    cache.close()


# -- SASL -----------------------------------------------------------------------------------------------------------


def sasl_user(directory: Path, name: str, password: str) -> None:
    """Write a database of one user, as `saslpasswd2` does, which not every machine has."""
    (directory / "memcached.conf").write_text(f"mech_list: plain\nsasldb_path: {directory}/users\n")
    library = ctypes.CDLL("libsasl2.so.2")
    option = ctypes.CFUNCTYPE(
        ctypes.c_int,
        ctypes.c_void_p,
        ctypes.c_char_p,
        ctypes.c_char_p,
        ctypes.POINTER(ctypes.c_char_p),
        ctypes.c_void_p,
    )

    class Callback(ctypes.Structure):
        _fields_ = (("id", ctypes.c_ulong), ("function", option), ("context", ctypes.c_void_p))

    path = str(directory / "users").encode()

    def getopt(_context: Any, _plugin: Any, wanted: bytes, result: Any, _length: Any) -> int:
        if wanted != b"sasldb_path":
            return -1
        result[0] = path
        return 0

    callbacks = (Callback * 2)(Callback(1, option(getopt), None), Callback(0, option(), None))
    connection = ctypes.c_void_p()
    host = socket.gethostname().encode()
    assert library.sasl_server_init(callbacks, b"memcached") == 0
    new = library.sasl_server_new(b"memcached", host, None, None, None, None, 0, ctypes.byref(connection))
    assert new == 0
    secret = password.encode()
    assert library.sasl_setpass(connection, name.encode(), secret, len(secret), None, 0, 1) == 0


@pytest.fixture(scope="module")
def guarded() -> Iterator[Server]:
    directory = new_directory()
    child = os.fork()  # libsasl2 keeps what it was told for the life of a process
    if child == 0:
        try:
            sasl_user(directory, "user", "secret")
        except BaseException:
            os._exit(1)
        os._exit(0)
    assert os.waitpid(child, 0)[1] == 0
    with start_memcached("-S", environ={"SASL_CONF_PATH": str(directory)}) as server:
        yield server


def pylibmc_client() -> Any:
    """The class; imported late, as pylibmc looks for SASL_PATH when it is imported."""
    from cachemw.backends._memcached.pylibmc import _Client

    return _Client


LOGIN = {**PATIENT, "binary": True, "username": "user", "password": "secret"}


@pytest.fixture(params=["sync", "async"])
def member(request: pytest.FixtureRequest, guarded: Server) -> Iterator[Half]:
    cache = PyLibMCCache(guarded.address, {"OPTIONS": LOGIN})
    cache.clear()
    with asyncio.Runner() as runner:
        yield Half(cache, runner.run if request.param == "async" else None)
        runner.run(cache.aclose())
    cache.close()


def test_sasl_lets_the_user_in(member: Half) -> None:
    assert member.set_many({"a": [1], "b": "2", "c": 3}) == []
    assert member.get_many(["a", "b", "c", "d"]) == {"a": [1], "b": "2", "c": 3}
    assert member.get_many(["a", "b"]) == {"a": [1], "b": "2"}
    assert member.get("a") == [1]
    assert member.add("a", 1) is False
    assert member.touch("d", 100) is False
    assert member.delete_many(["a", "b"]) is None
    assert member.get_many(["a", "b", "c"]) == {"c": 3}
    member.set("c", b"x" * 2_000_000)
    assert member.get("c") is None
    assert member.add("c", b"x" * 2_000_000) is False
    member.set("c", 1)
    assert member.incr_version("c") == 2
    member.clear()
    assert member.get("c") is None


def test_sasl_keeps_others_out(guarded: Server) -> None:
    cache = PyLibMCCache(guarded.address, {"OPTIONS": {**LOGIN, "password": "wrong"}})
    with pytest.raises(BackendUnavailable, match="AUTHENTICATION"):
        cache.get("a")
    with pytest.raises(ImproperlyConfigured, match="binary"):
        PyLibMCCache(guarded.address, {"OPTIONS": {**LOGIN, "binary": False}})


def test_sasl_counts_with_the_binary_protocol(member: Half) -> None:
    member.set("n", 1)
    assert member.incr("n", 5) == 6
    assert member.decr("n", 10) == -4
    assert member.incr("n", 0) == member.get("n") == -4
    with pytest.raises(ValueError, match="not found"):
        member.incr("missing")
    member.set("text", "7")
    for _ in range(2):
        with pytest.raises(TypeError):
            member.incr("text")
        with pytest.raises(TypeError):
            member.decr("text")
    assert member.get("text") == "7"
    with pytest.raises(OverflowError, match="steps"):
        member.incr("n", 2**31)
    for value, delta in ((2**63 - 2, 3), (-(2**63) + 2, -3)):
        member.set("edge", value)
        with pytest.raises(OverflowError):
            member.incr("edge", delta)
        assert member.get("edge") in (value, -(2**63))


def test_sasl_server_that_dies_is_unavailable_and_not_a_type_error(guarded: Server) -> None:
    cache = PyLibMCCache(guarded.address, {"OPTIONS": {**LOGIN, "timeout": 0.2}})
    cache.set("text", "7")
    guarded.pause()
    try:
        with pytest.raises(BackendUnavailable):
            cache.incr("text")
    finally:
        guarded.resume()
    cache.close()


def test_a_value_wrongly_flagged_as_compressed_is_absent_with_sasl(
    guarded: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(pylibmc_client(), "serialize", lambda self, value: (value, 8))
    another = PyLibMCCache(guarded.address, {"OPTIONS": LOGIN})
    another.set("a", "not compressed")
    another.close()
    monkeypatch.undo()
    cache = PyLibMCCache(guarded.address, {"OPTIONS": LOGIN})
    assert cache.get("a") is None
    cache.set("b", 1)
    assert cache.get("b") == 1
    cache.close()


def test_a_log_in_that_libmemcached_bungles_is_tried_again(guarded: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    cache = PyLibMCCache(guarded.address, {"OPTIONS": LOGIN})
    client = pylibmc_client()
    get, failures = client.get, ["FAILED TO SEND AUTHENTICATION TO SERVER"]

    def bungle(self: Any, *args: Any) -> Any:
        if failures:
            raise RuntimeError(f"error 40 from memcached_get: {failures.pop()}")
        return get(self, *args)

    monkeypatch.setattr(client, "get", bungle)
    cache.set("a", 1)
    assert cache.get("a") == 1
    failures += ["FAILED TO SEND AUTHENTICATION TO SERVER"] * 2
    with pytest.raises(BackendUnavailable, match="AUTHENTICATION"):
        cache.get("a")
    cache.close()


def test_sasl_touches_within_the_deadline(guarded: Server) -> None:
    cache = PyLibMCCache(guarded.address, {"OPTIONS": {**LOGIN, "timeout": 0.1}})
    cache.set("a", 1, timeout=1)
    assert cache.touch("a", 100) is True
    assert cache.get("a") == 1
    cache.close()
