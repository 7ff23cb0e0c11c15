"""Redis that is absent, dies, hangs, lies or is full: an error in time, and never another caller's reply."""

from __future__ import annotations

import asyncio
import contextlib
import gc
import os
import re
import select
import socket
import sys
import threading
import time
import warnings
from collections.abc import Iterator, Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any, ClassVar, NoReturn

import pytest

from cachemw.backends._redis import threads as redis_threads
from cachemw.backends._redis.wire import pack
from cachemw.backends.redis import RedisCache, _after_fork
from cachemw.errors import BackendUnavailable
from tests.backends.redis_tools import BothHalves, FakeRedis, OpenCache
from tests.servers import Server, free_port, redis_command, redis_info, start_redis, until

#: Seconds that a busy machine may add to a deadline.
SLACK = 0.4


@pytest.fixture
def server() -> Iterator[Server]:
    with start_redis() as server:
        yield server


def url(server: Server) -> str:
    return f"redis://{server.address}/0"


class TestAbsence(BothHalves):
    def test_a_server_that_is_not_there_is_unavailable_at_once(self, open_cache: OpenCache) -> None:
        port = free_port()
        cache = open_cache(f"redis://user:secret@127.0.0.1:{port}/0")
        began = time.monotonic()
        with pytest.raises(BackendUnavailable, match=f"127.0.0.1:{port} is not available: ConnectionError") as caught:
            cache.get("key")
        assert time.monotonic() - began < 0.1 + SLACK
        assert "secret" not in str(caught.value)
        for call in (
            lambda: cache.set("key", 1),
            lambda: cache.incr("key"),
            lambda: cache.get_many(["a", "b"]),
            lambda: cache.read_records(["resource\0"]),
            cache.clear,
        ):
            with pytest.raises(BackendUnavailable):
                call()

    def test_a_name_that_dns_cannot_take_is_unavailable_too(self, open_cache: OpenCache) -> None:
        with pytest.raises(BackendUnavailable):
            open_cache(f"redis://{'x' * 80}.invalid:1/0").get("key")

    def test_with_fail_open_nothing_is_stored_and_nothing_is_raised(
        self, open_cache: OpenCache, caplog: pytest.LogCaptureFixture
    ) -> None:
        cache = open_cache(f"redis://user:secret@127.0.0.1:{free_port()}/0", fail_open=True)
        assert cache.get("key", "default") == "default"
        assert cache.set_many({"a": 1}) == ["a"]
        assert "127.0.0.1" in caplog.text
        assert "secret" not in caplog.text

    def test_a_restarted_server_is_used_without_an_error(
        self, open_cache: OpenCache, server: Server, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(redis_threads, "_FRESH", 0)  # the restart is quicker than connections count as idle
        cache = open_cache(url(server))
        cache.set("key", 1)
        server.kill()
        with pytest.raises(BackendUnavailable):
            cache.get("key")
        server.start()
        assert cache.get("key", "gone") == "gone"
        cache.set("key", 2)
        server.kill()
        server.start()
        if cache.run is not None:  # a loop that runs has seen the end of the connection by now
            cache.run(asyncio.sleep(0))
        assert cache.get("key", "gone") == "gone"

    def test_a_connection_that_closes_in_the_middle_of_a_reply_is_unavailable(self, open_cache: OpenCache) -> None:
        with FakeRedis(lambda words: b"*1\r\n$100\r\nhalf a rep") as fake:
            cache = open_cache(fake.url, socket_timeout=5)

            def hang_up() -> None:
                until(lambda: [b"MGET", b":1:key"] in fake.commands, "it is asked", 5)
                fake.hang_up()

            hanging_up = threading.Thread(target=hang_up)
            hanging_up.start()
            with pytest.raises(BackendUnavailable, match="closed"):
                cache.get("key")
            hanging_up.join()
            fake.answer = lambda words: b"*1\r\n$1\r\n7\r\n"
            assert cache.get("key") == 7


class TestHanging(BothHalves):
    def test_a_frozen_server_is_unavailable_by_the_deadline_and_right_when_it_is_back(
        self, open_cache: OpenCache, server: Server
    ) -> None:
        cache = open_cache(url(server))
        cache.set_many({"a": 1, "b": 2})
        server.pause()
        for _ in range(2):
            began = time.monotonic()
            with pytest.raises(BackendUnavailable, match="Timeout"):
                cache.get("a")
            assert 0.09 < time.monotonic() - began < 0.1 + SLACK
        server.resume()
        assert [cache.get("b") for _ in range(20)] == [2] * 20
        assert cache.get("a") == 1

    def test_the_deadline_is_the_option_socket_timeout(self, open_cache: OpenCache, server: Server) -> None:
        cache = open_cache(url(server), socket_timeout="0.3")
        cache.set("a", 1)
        server.pause()
        began = time.monotonic()
        with pytest.raises(BackendUnavailable):
            cache.get("a")
        assert 0.29 < time.monotonic() - began < 0.3 + SLACK
        server.resume()

    def test_a_reply_that_drips_in_ends_at_the_deadline(self, open_cache: OpenCache) -> None:
        def drip(words: list[bytes]) -> bytes | None:
            fake._connections[-1].sendall(b"*1\r\n$1000\r\n")
            while not fake.ending.wait(0.02):
                fake._connections[-1].sendall(b"x")
            return None

        with FakeRedis(drip) as fake:
            cache = open_cache(fake.url)
            began = time.monotonic()
            with pytest.raises(BackendUnavailable):
                cache.get("key")
            assert 0.09 < time.monotonic() - began < 0.1 + SLACK

    def test_a_server_that_accepts_and_says_nothing_is_unavailable_by_the_deadline(self, open_cache: OpenCache) -> None:
        with FakeRedis(lambda words: None) as fake:
            fake.HANDSHAKE = {b"HELLO": b""}
            cache = open_cache(fake.url)
            began = time.monotonic()
            with pytest.raises(BackendUnavailable):
                cache.get("key")
            assert time.monotonic() - began < 0.35 + SLACK


class TestLies(BothHalves):
    patience: ClassVar = {"socket_timeout": 2}

    @pytest.mark.parametrize(
        "reply",
        [
            b"HTTP/1.1 400 Bad Request\r\n\r\n",
            b"\x00" * 100,
            b"*1\r\n$-7\r\n",
            b"$99999999999999999999\r\n",
            b"+7\r\n",
            b"$1\r\n7\r\n",
            b":7\r\n",
            b"*-1\r\n",
            b"*0\r\n",
            b"*2\r\n$1\r\n7\r\n$1\r\n7\r\n",
            b"%1\r\n+a\r\n+b\r\n",
        ],
        ids=repr,
    )
    def test_garbage_is_unavailable_and_the_next_answer_is_right(self, open_cache: OpenCache, reply: bytes) -> None:
        with FakeRedis(lambda words: reply) as fake:
            cache = open_cache(fake.url)
            with pytest.raises(BackendUnavailable):
                cache.get("key")
            with pytest.raises(BackendUnavailable):
                cache.get_many(["key"])
            fake.answer = lambda words: b"*1\r\n$1\r\n1\r\n"
            assert cache.get("key") == 1
            assert cache.get_many(["key"]) == {"key": 1}

    def test_whatever_is_no_error_says_that_a_value_was_stored(self, open_cache: OpenCache) -> None:
        with FakeRedis(lambda words: b"+Fine\r\n") as fake:
            assert open_cache(fake.url).set_many({"a": 1, "b": 2}) == []
            assert [words[0] for words in fake.commands[-2:]] == [b"SET", b"SET"]

    def test_garbage_in_place_of_a_value_is_a_miss(self, open_cache: OpenCache) -> None:
        with FakeRedis(lambda words: b"*2\r\n:7\r\n*1\r\n$1\r\nx\r\n") as fake:
            assert open_cache(fake.url).get_many(["a", "b"]) == {}

    def test_garbage_in_place_of_a_number_is_unavailable(self, open_cache: OpenCache) -> None:
        with FakeRedis(lambda words: b"$3\r\nten\r\n") as fake:
            cache = open_cache(fake.url)
            for operation, *arguments in (
                ("delete", "key"),
                ("touch", "key", 5),
                ("has_key", "key"),
                ("incr", "key"),
                ("_timeout_left", "key"),
            ):
                with pytest.raises(BackendUnavailable, match="asked for a number, and answered b'ten'"):
                    getattr(cache, operation)(*arguments)

    def test_one_reply_too_many_never_becomes_the_next_calls(self, open_cache: OpenCache) -> None:
        with FakeRedis(lambda words: b"*1\r\n$1\r\n7\r\n*1\r\n$1\r\n8\r\n") as fake:
            cache = open_cache(fake.url)
            for _ in range(5):
                with contextlib.suppress(BackendUnavailable):
                    assert cache.get("key") == 7

    def test_a_new_connection_costs_its_greeting_and_nothing_else(self, open_cache: OpenCache) -> None:
        with FakeRedis(lambda words: b"*1\r\n$-1\r\n") as fake:
            assert open_cache(fake.url).get("key") is None
        assert [words[0] for words in fake.commands] == [b"HELLO", b"MGET"]

    def test_push_messages_are_nobodys_reply(self, open_cache: OpenCache) -> None:
        with FakeRedis(lambda words: b">2\r\n+message\r\n+hello\r\n*1\r\n$1\r\n7\r\n") as fake:
            cache = open_cache(fake.url)
            assert [cache.get("key") for _ in range(3)] == [7, 7, 7]


class TestRefusals(BothHalves):
    patience: ClassVar = {"socket_timeout": 5}

    def test_a_value_that_memory_has_no_room_for_is_reported_and_its_old_value_is_gone(
        self, open_cache: OpenCache
    ) -> None:
        with start_redis("--maxmemory", "3mb", "--maxmemory-policy", "noeviction") as server:
            cache = open_cache(url(server))
            cache.set_many({"small": "old", "large": "old"})
            failed = {}
            for number in range(50):
                failed = cache.set_many({"large": b"x" * 100_000, f"filler{number}": b"x" * 100_000})
                if failed:
                    break
            assert "large" in failed or cache.set_many({"large": b"x" * 100_000}) == ["large"]
            assert cache.get("large", "gone") == "gone"
            assert cache.get("small") == "old"
            for number in range(50):
                page = (f"r\0{number}", b"x" * 100_000, None)
                unstored, found = cache.commit_records([page], ["r\0M"], ["r\0lease"])
                assert found == [None]
                if unstored:
                    break
            assert unstored == [page[0]]
            assert cache.read_records(unstored) == [None]

    def test_a_replica_that_refuses_writes_is_unavailable_for_them(self, open_cache: OpenCache, server: Server) -> None:
        with start_redis("--replicaof", server.host, str(server.port)) as replica:
            cache = open_cache(url(replica))
            with pytest.raises(BackendUnavailable, match="READONLY"):
                cache.set("key", 1)
            with pytest.raises(BackendUnavailable, match="READONLY"):
                cache.add("key", 1)
            assert cache.get("key") is None

    def test_too_many_clients_are_unavailable(self, open_cache: OpenCache, server: Server) -> None:
        redis_command(server, "CONFIG", "SET", "maxclients", 1)
        first, second = open_cache(url(server)), open_cache(url(server))
        first.set("key", 1)
        with pytest.raises(BackendUnavailable, match="max number of clients"):
            second.get("key")
        assert first.get("key") == 1

    def test_a_wrong_password_is_unavailable_and_not_told(self, open_cache: OpenCache) -> None:
        with start_redis("--requirepass", "right one") as server:
            with pytest.raises(BackendUnavailable) as caught:
                open_cache(f"redis://:wrong%20one@{server.address}").get("key")
            assert "wrong one" not in str(caught.value)
            with pytest.raises(BackendUnavailable, match="AuthenticationError"):
                open_cache(url(server)).get("key")
            cache = open_cache(f"redis://:right%20one@{server.address}")
            cache.set("key", 1)
            assert cache.get("key") == 1
            assert "right" not in str(cache.cache.location)

    def test_a_forbidden_command_is_unavailable(self, open_cache: OpenCache, server: Server) -> None:
        redis_command(server, "ACL", "SETUSER", "reader", "on", ">pass", "~*", "+mget", "+hello")
        cache = open_cache(f"redis://reader:pass@{server.address}")
        assert cache.get("key") is None
        with pytest.raises(BackendUnavailable, match="NOPERM"):
            cache.set("key", 1)
        with pytest.raises(BackendUnavailable, match=r"NOPERM.* its user needs \+eval \+evalsha"):
            cache.incr("key")

    def test_who_may_run_scripts_but_not_what_is_in_them_is_told_so(
        self, open_cache: OpenCache, server: Server
    ) -> None:
        redis_command(server, "ACL", "SETUSER", "runner", "on", ">pass", "~*", "+eval", "+evalsha")
        with pytest.raises(BackendUnavailable, match=r"its user needs .*\+exists \+incrby \+decrby \+mget"):
            open_cache(f"redis://runner:pass@{server.address}").incr("key")

    def test_these_commands_are_all_that_a_user_needs(self, open_cache: OpenCache, server: Server) -> None:
        text = (Path(__file__).parents[2] / "docs" / "stores.md").read_text()
        always, counting, _ = re.split("[;.]", text.partition("With ACLs, the server's user needs")[2])[:3]
        allowed = re.findall(r"\+\w+", always + counting)
        redis_command(server, "ACL", "SETUSER", "least", "on", ">pass", "~*", *allowed)
        cache = open_cache(f"redis://least:pass@{server.address}")
        cache.set_many({"number": -(2**62), "text": "text"}, 60)
        assert cache.add("other", 1)
        assert cache.touch("text")
        assert cache.touch("text", None)
        assert cache.has_key("text")
        assert cache.incr("number") == 1 - 2**62
        assert cache.decr("number", -(2**63)) == 2**62 + 1
        with pytest.raises(OverflowError):
            cache.incr("number", 2**63)
        assert cache.get("number") == 2**62 + 1
        assert cache.incr_version("text") == 2
        cache.commit_records([("r\0G", b"page", 60.0)], ["r\0M"], ["r\0L"])
        assert cache.add_and_read("r\0L", b"lease", 60.0, ["r\0G"]) == (True, [b"page"])
        cache.clear()
        assert cache.get_many(["number", "other"]) == {}

    @pytest.mark.parametrize("also", ["+evalsha +eval", "+eval", "+evalsha"])
    def test_counting_is_allowed_to_whom_its_commands_are_and_never_done_twice(
        self, open_cache: OpenCache, server: Server, also: str
    ) -> None:
        allowed = f"+hello +client +select +mget +set +exists +incrby {also}"
        redis_command(server, "ACL", "SETUSER", "counter", "on", ">pass", "~*", *allowed.split())
        open_cache(url(server)).set_many({"count": 1, "huge": 2**60})
        for key in ("count", "huge"):
            open_cache(url(server)).incr(key)  # the server knows the script
        cache = open_cache(f"redis://counter:pass@{server.address}")
        assert cache.incr("count") == 3
        assert cache.incr("huge") == 2**60 + 2
        assert cache.get_many(["count", "huge"]) == {"count": 3, "huge": 2**60 + 2}


class TestThreads:
    def test_what_interrupts_a_conversation_closes_its_connection(
        self, server: Server, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        cache = RedisCache(url(server), {})
        cache.set_many({"a": 1, "b": 2})

        def interrupted(*_: Any) -> None:
            raise KeyboardInterrupt

        with monkeypatch.context() as patch:
            patch.setattr(redis_threads.Link, "receive", interrupted)
            with pytest.raises(KeyboardInterrupt):
                cache.get("a")
        assert [cache.get("b") for _ in range(5)] == [2] * 5
        with monkeypatch.context() as patch:
            patch.setattr(redis_threads.Link, "send", interrupted)
            with pytest.raises(KeyboardInterrupt):
                cache.get("a")
        assert cache.get("b") == 2
        cache.close()

    def test_threads_never_get_each_others_values(self, server: Server) -> None:
        cache = RedisCache(url(server), {"OPTIONS": {"socket_timeout": 5}})
        cache.set_many({str(number): number for number in range(8)})
        wrong: list[Any] = []

        def work(number: int) -> None:
            wrong.extend(value for _ in range(200) if (value := cache.get(str(number))) != number)

        threads = [threading.Thread(target=work, args=(number,)) for number in range(8)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert wrong == []
        cache.close()

    def test_max_connections_are_shared_by_waiting_and_told_when_none_gets_free(self, server: Server) -> None:
        cache = RedisCache(url(server), {"OPTIONS": {"max_connections": "2", "socket_timeout": 5}})
        threads = [threading.Thread(target=lambda: [cache.get("key") for _ in range(50)]) for _ in range(8)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert int(redis_info(server, "stats")["total_connections_received"]) <= 2 + 3  # and those of these tests
        cache.close()
        cache = RedisCache(url(server), {"OPTIONS": {"max_connections": 1}})
        (node,) = cache._routes.nodes()
        link = node.threads.take()
        with pytest.raises(BackendUnavailable, match=r"all 1 connections \(max_connections\) are in use"):
            cache.get("key")
        node.threads.give(link)
        assert cache.get("key") is None
        cache.close()

    def test_a_finalizer_may_use_the_cache_in_the_midst_of_a_conversation(self, server: Server) -> None:
        cache = RedisCache(url(server), {"OPTIONS": {"max_connections": 2, "socket_timeout": 5}})
        cache.set_many({"a": 1, "b": 2})
        found: list[Any] = []

        def interrupt(frame: Any, event: str, argument: object) -> Any:
            if not frame.f_code.co_filename.endswith(("_redis/threads.py", "threading.py")):
                return None
            found.append(cache.get("b"))
            return interrupt

        def work() -> None:
            sys.settrace(interrupt)
            found.append(cache.get("a"))
            sys.settrace(None)

        thread = threading.Thread(target=work, daemon=True)
        thread.start()
        thread.join(30)
        assert not thread.is_alive()
        assert found[-1] == 1
        assert found[:-1] == [2] * (len(found) - 1) != []
        cache.close()

    def test_what_interrupts_a_thread_as_it_begins_to_open_a_connection_leaves_the_others_their_turns(self) -> None:
        class Interrupted(set[object]):
            def add(self, element: object) -> None:
                super().add(element)
                raise KeyboardInterrupt

        pool = redis_threads.Pool("server", lambda timeout: None, timeout=5)
        pool._dials = Interrupted()
        with pytest.raises(KeyboardInterrupt):
            pool.take()
        assert pool._dials == set()

    def test_what_interrupts_a_waiting_thread_leaves_the_connection_to_the_next_one(
        self, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        pool = redis_threads.Pool("server", lambda timeout: None, timeout=5)
        pool._dials = {1, 2, 3, 4}
        next_one = threading.Lock()
        next_one.acquire()

        def interrupted() -> NoReturn:
            pool._gates.popleft().release()  # it is given a connection, and does not live to take it
            pool._gates.append(next_one)
            pool._idle.append(Crowd.spare())
            raise KeyboardInterrupt

        looks: list[Any] = [lambda: None, interrupted]
        monkeypatch.setattr(pool, "_live", lambda: looks.pop(0)())
        with pytest.raises(KeyboardInterrupt):
            pool.take()
        assert next_one.acquire(blocking=False)

    def test_a_deadline_that_is_over_before_anything_was_sent_is_one(self, server: Server) -> None:
        cache = RedisCache(url(server), {"OPTIONS": {"max_connections": 1, "socket_timeout": 5}})
        cache.set("key", "value")
        (node,) = cache._routes.nodes()
        for _ in range(3):
            node.threads.timeout = 0.0
            for call in (lambda: cache.get("key"), lambda: node.threads.send(b"PING\r\n")):
                with pytest.raises(BackendUnavailable, match="no answer in time"):
                    call()
            node.threads.timeout = 5.0
            assert cache.get("key") == "value"  # the only connection was given back
        cache.close()

    def test_a_look_at_an_idle_connection_leaves_the_next_call_its_time(
        self, server: Server, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        (node,) = RedisCache(url(server), {})._routes.nodes()
        link = redis_threads.Link(node.connect())

        def can_read(timeout: float) -> bool:  # as in redis-py 6.2
            link.connection._sock.settimeout(link.connection.socket_timeout)
            return False

        monkeypatch.setattr(link.connection, "can_read", can_read)
        for _ in range(2):
            link.send(pack(("PING",)), time.monotonic() + 5)
            assert link.connection._sock.gettimeout() > 4
            assert link.receive(1, time.monotonic() + 5) == [b"PONG"]
            assert not link.is_stale()
        link.close()

    def test_an_answer_that_waits_for_this_process_is_taken_though_the_deadline_is_over(self, server: Server) -> None:
        cache = RedisCache(url(server), {"OPTIONS": {"socket_timeout": 5}})
        cache.get("key")
        (node,) = cache._routes.nodes()
        link, _ = node.threads.send(pack(("ECHO", "here")))
        assert select.select([link.connection._sock], [], [], 5)[0]
        assert node.threads.receive(link, 1, time.monotonic() - 1) == [b"here"]
        link, _ = node.threads.send(pack(("ECHO", "one of two")))
        with pytest.raises(BackendUnavailable, match=r"no answer in time|timed out"):
            node.threads.receive(link, 2, time.monotonic() - 1)
        assert cache.get("key") is None
        cache.close()

    def test_a_failed_connection_does_not_count_against_max_connections(self) -> None:
        cache = RedisCache(f"redis://127.0.0.1:{free_port()}", {"OPTIONS": {"max_connections": 1}})
        for _ in range(3):
            with pytest.raises(BackendUnavailable, match="Connection refused"):
                cache.get("key")


class Crowd:
    """Threads that take a connection each from a pool whose server opens none before it is told to."""

    def __init__(self, timeout: float, size: int) -> None:
        self.timeouts: list[float | None] = []  # of each connection that is, or was, being opened
        self.taken: list[Any] = []  # by the threads; or why they have none
        self.opening = threading.Semaphore(0)
        self.fails = False
        self.pool = redis_threads.Pool("server", self._connect, timeout=timeout)
        self.threads = [threading.Thread(target=self._take) for _ in range(size)]
        for thread in self.threads:
            thread.start()
        until(lambda: len(self.timeouts) == 4 and len(self.pool._gates) == size - 4, "four are being opened", 5)

    def _connect(self, timeout: float | None) -> Any:
        self.timeouts.append(timeout)
        assert self.opening.acquire(timeout=30)
        if self.fails:
            raise ConnectionRefusedError("no")
        return SimpleNamespace(_sock=None, can_read=lambda seconds: False)

    def _take(self) -> None:
        try:
            self.taken.append(self.pool.take())
        except BackendUnavailable as error:
            self.taken.append(error)

    def end(self) -> None:
        self.opening.release(len(self.threads))
        for thread in self.threads:
            thread.join(30)
            assert not thread.is_alive()

    @staticmethod
    def spare() -> Any:
        return redis_threads.Link(SimpleNamespace(_sock=None, can_read=lambda seconds: False))


class TestCrowds:
    @pytest.fixture(autouse=True)
    def patient(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(redis_threads, "_HESITATION", 30.0)

    def test_a_connection_that_is_given_back_is_sooner_there_than_the_fifth_new_one(self) -> None:
        crowd = Crowd(timeout=100, size=7)
        spares: list[Any] = []
        for _ in range(3):
            spares.append(crowd.spare())
            crowd.pool.give(spares[-1])
            until(lambda: crowd.taken == spares, "it is taken", 5)
        assert crowd.timeouts == [None] * 4
        crowd.end()

    def test_of_two_that_are_given_back_at_once_each_is_taken(self) -> None:
        crowd = Crowd(timeout=100, size=6)
        crowd.pool._idle += [crowd.spare(), crowd.spare()]
        crowd.pool._ring()
        until(lambda: len(crowd.taken) == 2, "both are taken", 5)
        assert len(crowd.timeouts) == 4
        crowd.end()

    def test_one_that_is_given_back_just_before_somebody_waits_is_seen(self, monkeypatch: pytest.MonkeyPatch) -> None:
        crowd = Crowd(timeout=100, size=4)
        spare = crowd.spare()
        looks: list[Any] = [lambda: None, crowd.pool._live]
        crowd.pool._idle.append(spare)
        monkeypatch.setattr(crowd.pool, "_live", lambda: looks.pop(0)())
        assert crowd.pool.take() is spare
        assert not crowd.pool._gates
        crowd.end()

    @pytest.mark.parametrize("fails", [False, True])
    def test_when_one_is_open_or_cannot_be_it_is_the_next_ones_turn(self, fails: bool) -> None:
        crowd = Crowd(timeout=100, size=6)
        crowd.fails = fails
        crowd.opening.release()
        until(lambda: len(crowd.timeouts) == 5, "the fifth is being opened", 5)
        assert len(crowd.taken) == len(crowd.pool._gates) == 1
        assert isinstance(crowd.taken[0], BackendUnavailable) is fails
        assert crowd.timeouts == [None] * 4 + [75.0 if fails else None]
        crowd.end()
        assert len(crowd.taken) == 6

    @pytest.mark.parametrize(
        ("opened", "waits", "limit"),
        [
            ((), [25], 75),
            ((1005,), [25, 5], None),
            ((1020, 1040), [25, 20, 20], None),
            (range(1000, 1200), [25] * 4, None),
        ],
    )
    def test_it_waits_longer_while_the_server_lets_others_in(
        self, monkeypatch: pytest.MonkeyPatch, opened: Sequence[int], waits: list[int], limit: int | None
    ) -> None:
        now = 1000.0
        waited: list[float] = []
        limits: list[float | None] = []

        def connect(timeout: float | None) -> Any:
            limits.append(timeout)
            return SimpleNamespace(_sock=None)

        pool = redis_threads.Pool("server", connect, timeout=100)

        def nothing_given_back(seconds: float) -> None:
            nonlocal now
            waited.append(seconds)
            now += seconds
            pool._opened_at = max((moment for moment in opened if moment <= now), default=0)

        monkeypatch.setattr(redis_threads, "monotonic", lambda: now)
        pool._dials = {1, 2, 3, 4}
        monkeypatch.setattr(pool, "_given_back", nothing_given_back)
        pool.take()
        assert (waited, limits) == (waits, [limit])

    @pytest.mark.parametrize(("timeout", "hesitation", "left"), [(100, 0.5, 99.5), (2.0, 30.0, 1.5)])
    def test_a_server_that_hangs_keeps_nobody_longer_than_its_time(
        self, monkeypatch: pytest.MonkeyPatch, timeout: float, hesitation: float, left: float
    ) -> None:
        """Who has waited a moment opens one of his own, and waits for the server as much less."""
        monkeypatch.setattr(redis_threads, "_HESITATION", hesitation)
        crowd = Crowd(timeout=timeout, size=6)
        until(lambda: len(crowd.timeouts) == 6, "all are being opened", 5)
        assert crowd.timeouts == [None] * 4 + [left] * 2
        assert not crowd.pool._gates
        assert crowd.taken == []
        crowd.end()

    def test_in_a_forked_child_nobody_waits_for_what_the_parent_opens(self) -> None:
        crowd = Crowd(timeout=100, size=4)
        crowd.pool.forget()
        crowd.opening.release()
        crowd.pool.take()
        assert crowd.timeouts == [None] * 5
        crowd.end()


class TestProcesses:
    def test_after_a_fork_parent_and_child_have_their_own_connections(self, server: Server) -> None:
        cache = RedisCache(url(server), {"OPTIONS": {"socket_timeout": 5, "max_connections": 1}})
        cache.set_many({"parent": "parent", "child": "child"})
        child = os.fork()
        if child == 0:
            right = all(cache.get("child") == "child" for _ in range(300))
            os._exit(0 if right else 1)
        assert all(cache.get("parent") == "parent" for _ in range(300))
        assert os.waitpid(child, 0)[1] == 0
        assert cache.get("parent") == "parent"
        cache.close()

    def test_what_was_connected_before_a_fork_is_not_used_after_it(self, server: Server) -> None:
        async def scenario() -> None:
            before = str(redis_command(server, "CLIENT", "LIST"))
            await cache.aset("key", 1)
            cache.get("key")
            connected = clients() - ids(before)
            _after_fork()
            assert await cache.aget("key") == 1
            assert cache.get("key") == 1
            assert len(clients() - connected - ids(before)) == 2
            await cache.aclose()

        def ids(clients: str) -> set[str]:
            return {line.split(" ")[0] for line in clients.splitlines() if "cmd=client" not in line}

        def clients() -> set[str]:
            return ids(str(redis_command(server, "CLIENT", "LIST")))

        cache = RedisCache(url(server), {"OPTIONS": {"socket_timeout": 5}})
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", ResourceWarning)  # in a child the parent's loop is never looked at again
            asyncio.run(scenario())
            gc.collect()


class TestTasks:
    def test_a_loop_that_ended_without_closing_is_forgotten(self, server: Server) -> None:
        cache = RedisCache(url(server), {"OPTIONS": {"socket_timeout": 5}})
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", ResourceWarning)  # as of any client that is not closed
            for _ in range(3):
                asyncio.run(cache.aset("key", 1))
            (node,) = cache._routes.nodes()
            assert len(node.tasks._channels) == 1
            asyncio.run(cache.aclose())
            assert asyncio.run(cache.aget("key")) == 1
            del node
            cache._forget()
            gc.collect()

    def test_closing_leaves_a_connection_that_is_being_made_to_who_waits_for_it(self, server: Server) -> None:
        async def scenario(cache: RedisCache) -> None:
            reading = asyncio.create_task(cache.aget("key", "nothing"))
            await asyncio.sleep(0)
            await cache.aclose()
            assert await reading == "nothing"
            (node,) = cache._routes.nodes()
            assert node.tasks._channels
            await cache.aclose()
            assert not node.tasks._channels

        asyncio.run(scenario(RedisCache(url(server), {"OPTIONS": {"socket_timeout": 5}})))

    def test_closing_waits_for_a_connection_that_nobody_waits_for_any_more(self, server: Server) -> None:
        async def scenario(cache: RedisCache) -> None:
            reading = asyncio.create_task(cache.aget("key"))
            await asyncio.sleep(0)
            reading.cancel()
            await asyncio.sleep(0)
            (node,) = cache._routes.nodes()
            assert node.tasks._dials
            await cache.aclose()
            assert not node.tasks._dials
            assert not node.tasks._channels

        asyncio.run(scenario(RedisCache(url(server), {"OPTIONS": {"socket_timeout": 5}})))

    def test_closing_waits_for_answers_and_not_for_those_that_nobody_waits_for(self) -> None:
        async def scenario(cache: RedisCache) -> None:
            reading = asyncio.create_task(cache.aget("key", "nothing"))
            await asyncio.to_thread(asked.wait, 5)
            closing = asyncio.create_task(cache.aclose())
            await asyncio.sleep(0)
            assert not closing.done()
            answered.set()
            await closing
            assert await reading == "nothing"

            answered.clear()
            asked.clear()
            reading = asyncio.create_task(cache.aget("key"))
            await asyncio.to_thread(asked.wait, 5)
            reading.cancel()
            await asyncio.sleep(0)
            await asyncio.wait_for(cache.aclose(), 5)  # the answer never comes
            answered.set()

        def answer(words: list[bytes]) -> bytes:
            asked.set()
            answered.wait(20)
            return b"*1\r\n$-1\r\n"

        asked, answered = threading.Event(), threading.Event()
        with FakeRedis(answer) as fake:
            asyncio.run(scenario(RedisCache(fake.url, {"OPTIONS": {"socket_timeout": 20}})))

    def test_a_dropped_connection_takes_no_more_calls_and_fails_those_not_yet_sent(self, server: Server) -> None:
        async def scenario(cache: RedisCache) -> None:
            await cache.aget("key")
            (node,) = cache._routes.nodes()
            (channel,) = node.tasks._channels.values()
            calls = [channel.call(b"PING\r\n", 1) for _ in range(3)]  # one sent, two about to be
            channel.abort()
            await asyncio.sleep(0)
            for call in (*calls, channel.call(b"PING\r\n", 1)):
                with pytest.raises(BackendUnavailable, match="was dropped"):
                    await call
            assert await cache.aget("key") is None
            await cache.aclose()

        asyncio.run(scenario(RedisCache(url(server), {})))

    def test_a_loop_may_end_while_a_connection_is_being_made(self) -> None:
        async def scenario(cache: RedisCache) -> None:
            reading = asyncio.create_task(cache.aget("key"))
            await asyncio.to_thread(until, lambda: bool(fake.commands), "the handshake is there", 5)
            assert not reading.done()

        with FakeRedis(lambda words: None) as fake:
            fake.HANDSHAKE = {}
            asyncio.run(scenario(RedisCache(fake.url, {"OPTIONS": {"socket_timeout": 5}})))

    def test_a_reply_that_never_ends_takes_its_connection_with_it(self) -> None:
        def drip(words: list[bytes]) -> bytes | None:
            fake._connections[-1].sendall(b"*1\r\n$100000\r\n")
            while not fake.ending.wait(0.005):
                fake._connections[-1].sendall(b"x")
            return None

        async def scenario(cache: RedisCache) -> None:
            give_up = time.monotonic() + 10
            while sum(words[0] == b"HELLO" for words in fake.commands) < 2:
                assert time.monotonic() < give_up
                with pytest.raises(BackendUnavailable):
                    await cache.aget("key")
            await cache.aclose()

        with FakeRedis(drip) as fake:
            asyncio.run(scenario(RedisCache(fake.url, {"OPTIONS": {"socket_timeout": 0.02}})))

    def test_a_cancelled_task_leaves_its_reply_to_nobody(self) -> None:
        replies = threading.Event()

        def answer(words: list[bytes]) -> bytes | None:
            replies.wait(30)
            return b"*1\r\n$%d\r\n%s\r\n" % (len(words[1]), words[1])

        async def scenario(cache: RedisCache) -> None:
            first = asyncio.create_task(cache._aget(("first",)))
            second = asyncio.create_task(cache._aget(("second",)))
            await asyncio.to_thread(
                until, lambda: [b"MGET", b"first"] in fake.commands, "one of the two is asked for", 5
            )
            first.cancel()
            with pytest.raises(asyncio.CancelledError):
                await first
            replies.set()
            assert await second == {"second": b"second"}
            assert await cache._aget(("third",)) == {"third": b"third"}
            assert sum(words[0] == b"HELLO" for words in fake.commands) == 1
            await cache.aclose()

        with FakeRedis(answer) as fake:
            asyncio.run(scenario(RedisCache(fake.url, {"OPTIONS": {"socket_timeout": 5}})))

    def test_tasks_cancelled_at_any_moment_leave_the_others_right(self, server: Server) -> None:
        async def scenario(cache: RedisCache) -> None:
            await cache.aset_many({str(number): number for number in range(100)})
            tasks = []
            for turn in range(20):
                tasks = [asyncio.create_task(cache.aget(str(number))) for number in range(100)]
                for _ in range(turn):
                    await asyncio.sleep(0)
                for task in tasks[turn % 3 :: 3]:
                    task.cancel()
                values = await asyncio.gather(*tasks, return_exceptions=True)
                for number, value in enumerate(values):
                    assert value == number or isinstance(value, asyncio.CancelledError)
            await cache.aclose()

        asyncio.run(scenario(RedisCache(url(server), {"OPTIONS": {"socket_timeout": 5}})))

    def test_a_task_cancelled_while_connecting_leaves_the_connection_to_the_others(self, server: Server) -> None:
        async def scenario(cache: RedisCache) -> None:
            first, second = (asyncio.create_task(cache.aget("key")) for _ in range(2))
            await asyncio.sleep(0)
            first.cancel()
            assert await second is None
            assert first.cancelled()
            await cache.aclose()

        asyncio.run(scenario(RedisCache(url(server), {})))

    def test_all_tasks_of_a_loop_share_one_connection(self, server: Server) -> None:
        async def scenario(cache: RedisCache) -> None:
            await asyncio.gather(*(cache.aget(str(number)) for number in range(50)))
            await cache.aclose()

        before = int(redis_info(server, "stats")["total_connections_received"])
        asyncio.run(scenario(RedisCache(url(server), {"OPTIONS": {"socket_timeout": 5}})))
        assert int(redis_info(server, "stats")["total_connections_received"]) == before + 2  # this question's own

    def test_a_late_reply_costs_its_own_call_if_the_connection_is_alive(self) -> None:
        """The rest of a long reply is on its way: the connection is not dropped with everything on it."""
        rest = threading.Event()

        def answer(words: list[bytes]) -> bytes | None:
            if words[1] == b"short":
                return b"*1\r\n$5\r\nshort\r\n"
            fake._connections[-1].sendall(b"*1\r\n$4\r\nlo")
            rest.wait()
            return b"ng\r\n"

        async def scenario(cache: RedisCache) -> None:
            with pytest.raises(BackendUnavailable):
                await cache._aget(("long",))
            rest.set()
            assert await cache._aget(("short",)) == {"short": b"short"}
            assert sum(words[0] == b"HELLO" for words in fake.commands) == 1
            await cache.aclose()

        with FakeRedis(answer) as fake:
            asyncio.run(scenario(RedisCache(fake.url, {})))

    def test_loops_of_several_threads_have_their_own_connections(self, server: Server) -> None:
        cache = RedisCache(url(server), {"OPTIONS": {"socket_timeout": 5}})
        cache.set_many({str(number): number for number in range(4)})
        wrong: list[Any] = []

        async def work(number: int) -> None:
            for _ in range(100):
                if (value := await cache.aget(str(number))) != number:
                    wrong.append(value)
            await cache.aclose()

        threads = [threading.Thread(target=lambda number=number: asyncio.run(work(number))) for number in range(4)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert wrong == []
        cache.close()


def test_a_reply_in_pieces_is_not_waited_for_when_its_time_is_over(monkeypatch: pytest.MonkeyPatch) -> None:
    """What is there by then is taken, but not for longer than that takes."""
    moments = iter(range(1000))
    monkeypatch.setattr(redis_threads, "monotonic", lambda: 100 + next(moments) * redis_threads._LATE * 0.6)
    server, client = socket.socketpair()
    with server, client:
        link = redis_threads.Link(SimpleNamespace(_sock=client))
        server.sendall(b"$5\r\nhe")
        with pytest.raises(TimeoutError, match="no answer in time"):
            link.receive(1, 0.0)
        assert not select.select([client], [], [], 0)[0]
