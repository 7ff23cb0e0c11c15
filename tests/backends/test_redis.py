"""What only Redis shows: round trips, Django's own entries, other applications' keys, TLS, users, sockets, pools."""

from __future__ import annotations

import asyncio
import gc
import pickle
import subprocess
import warnings
from hashlib import sha256
from pathlib import Path
from typing import Any, ClassVar

import hiredis
import pytest
import redis.connection

from cachemw.backends._redis import operations
from cachemw.backends._redis import wire as redis_wire
from cachemw.backends._redis.wire import ReplyError
from cachemw.backends.redis import RedisCache
from cachemw.errors import BackendUnavailable, CacheKeyWarning, ImproperlyConfigured, InvalidCacheKey
from tests.backends.redis_tools import BothHalves, FakeRedis, OpenCache
from tests.servers import Server, free_port, redis_command, redis_info, shared, start_redis


@pytest.fixture
def server() -> Server:
    server = shared(start_redis)
    redis_command(server, "FLUSHALL")
    return server


def url(server: Server) -> str:
    return f"redis://{server.address}/0"


def calls(server: Server) -> dict[str, int]:
    """How often each command was called since CONFIG RESETSTAT."""
    stats = redis_info(server, "commandstats")
    return {
        name.removeprefix("cmdstat_"): int(text.split(",")[0].removeprefix("calls="))
        for name, text in stats.items()
        if not name.startswith(("cmdstat_info", "cmdstat_config", "cmdstat_client", "cmdstat_hello"))
    }


def reads(server: Server) -> int:
    """How often the server has read from a connection, this question included."""
    return int(redis_info(server, "stats")["total_reads_processed"])


def test_only_what_can_be_a_page_is_read_as_one() -> None:
    values = [b"cmw", b"7", b"-7", b"9 lives", None, b"", 5, b"\xff"]
    assert operations.pages([values], 8) == [b"cmw", None, None, b"9 lives", None, b"", None, b"\xff"]
    for replies in ([values[:7]], [b"cmw"], [ReplyError("LOADING Redis is loading")]):
        with pytest.raises(BackendUnavailable):
            operations.pages(replies, 8)


def test_a_script_that_the_server_does_not_run_now_counts_nothing() -> None:
    class Full:
        def execute(self, *asked: Any, writes: bool) -> Any:
            yield from ()
            return [ReplyError("OOM command not allowed when used memory > 'maxmemory'.")]

    full: Any = Full()
    with pytest.raises(BackendUnavailable, match="OOM"):
        next(operations.incr(full, "key", 1))


class TestRoundTrips(BothHalves):
    @pytest.fixture
    def cache(self, open_cache: OpenCache, server: Server) -> Any:
        cache = open_cache(url(server), socket_timeout=5)
        cache.get("connects")
        redis_command(server, "CONFIG", "RESETSTAT")
        return cache

    def test_pages_and_their_marks_are_one_mget(self, cache: Any, server: Server) -> None:
        cache.read_records(["resource\0index", "resource\0variant", "tag\0"])
        assert calls(server) == {"mget": 1}

    def test_a_hundred_values_are_read_by_one_mget(self, cache: Any, server: Server) -> None:
        cache.get_many(range(100))
        assert calls(server) == {"mget": 1}

    def test_a_hundred_values_are_written_in_one_trip(self, cache: Any, server: Server) -> None:
        before = reads(server)
        question = reads(server) - before
        before = reads(server)
        cache.set_many(dict.fromkeys(range(100), "value"), 60)
        trips = reads(server) - before - question
        assert calls(server) == {"set": 100}
        assert trips == 1

    def test_a_page_is_committed_in_one_trip(self, cache: Any, server: Server) -> None:
        question = -reads(server) + reads(server)
        before = reads(server)
        cache.commit_records([("r\0index", b"i", 60), ("r\0page", b"p", None)], ["r\0mark"], ["r\0lease"])
        assert reads(server) - before - question == 1
        assert calls(server) == {"set": 2, "mget": 1, "unlink": 1}

    def test_each_operation_is_one_trip(self, cache: Any, server: Server) -> None:
        cache.set("number", 1)
        cache.incr("number")  # of which a server may hear for the first time
        question = -reads(server) + reads(server)
        for operation, *arguments in (
            ("get", "number"),
            ("set", "number", 2, 60),
            ("add", "number", 3),
            ("touch", "number"),
            ("touch", "number", None),
            ("has_key", "number"),
            ("incr", "number"),
            ("decr", "number", 5),
            ("delete_many", ["number", "other"]),
        ):
            before = reads(server)
            getattr(cache, operation)(*arguments)
            assert reads(server) - before - question == 1, operation

    def test_no_number_is_left_to_the_packer(self, cache: Any, server: Server, monkeypatch: pytest.MonkeyPatch) -> None:
        """hiredis crashes if a signal's handler raises while it writes one."""
        words: list[Any] = []

        def pack(command: tuple[Any, ...]) -> Any:
            words.extend(command)
            return hiredis.pack_command(command)

        monkeypatch.setattr(redis_wire, "_pack", pack)
        cache.set("number", 1, 60)
        cache.set_many({"number": 2, "text": "text"}, None)
        cache.add("another", 3, 60)
        cache.touch("number", 60)
        cache.incr("number")
        cache.set("number", -4)
        cache.incr("number", 2**63)
        cache.commit_records([("r\0index", b"i", 60), ("r\0page", b"p", None)], ["r\0mark"], ["r\0lease"])
        cache.add_and_read("r\0lease", b"l", 60, ["r\0mark"])
        assert cache.get_many(["number", "another"]) == {"number": 2**63 - 4, "another": 3}
        cache.clear()
        assert {type(word) for word in words} == {str, bytes}

    def test_a_server_that_forgot_the_script_counts_once(self, cache: Any, server: Server) -> None:
        cache.set("number", 1)
        assert cache.incr("number") == 2
        redis_command(server, "SCRIPT", "FLUSH")
        assert cache.incr("number", 5) == 7
        assert cache.incr("number", 2**60) == 2**60 + 7
        assert cache.get("number") == 2**60 + 7
        with pytest.raises(ValueError, match="absent"):
            cache.incr("absent")


class Counted:
    """Counts how often it is unpickled."""

    built = 0

    def __setstate__(self, state: Any) -> None:
        Counted.built += 1

    def __getstate__(self) -> Any:
        return {"a": 1}


class TestEntries(BothHalves):
    patience: ClassVar = {"socket_timeout": 5}

    def test_entries_look_like_those_of_djangos_redis_cache(self, open_cache: OpenCache, server: Server) -> None:
        cache = open_cache(url(server), {"KEY_PREFIX": "site"})
        cache.set_many({"number": -42, "list": [1]}, 60)
        cache.set("forever", None, None)
        assert redis_command(server, "GET", "site:1:number") == "-42"
        assert 59_000 < int(str(redis_command(server, "PTTL", "site:1:list"))) <= 60_000
        assert redis_command(server, "PTTL", "site:1:forever") == -1
        with redis.Redis(host=server.host, port=server.port) as client:
            assert client.get("site:1:list") == pickle.dumps([1], pickle.HIGHEST_PROTOCOL)
            client.set("site:1:theirs", pickle.dumps({"a": 1}))
        assert cache.get("theirs") == {"a": 1}

    @pytest.mark.parametrize("options", [{}, {"fail_open": True}])
    def test_values_of_all_sorts_are_found_together(
        self, open_cache: OpenCache, server: Server, caplog: pytest.LogCaptureFixture, options: dict[str, Any]
    ) -> None:
        cache = open_cache(url(server), **options)
        values = {"list": [1], "text": "9 lives", "bytes": b"12", "none": None}
        counts = {"count": -7, "zero": 0, "large": 2**63 - 1}
        cache.set_many({**values, **counts})
        assert cache.get_many(values) == values
        assert cache.get_many(counts) == counts
        assert cache.get_many(["absent", *values, *counts, "gone"]) == {**values, **counts}
        assert cache.get_many(["absent"]) == cache.get_many([]) == {}
        assert cache.get_many(["list", "list"]) == {"list": [1]}
        assert not caplog.messages
        for damaged in ("\x80damaged", "9 lives", "", ":"):
            redis_command(server, "SET", ":1:damaged", damaged)
            assert cache.get_many([*values, "damaged", *counts]) == {**values, **counts}, damaged
            assert cache.get_many(["damaged", *values]) == values, damaged
        assert [":1:damaged" in line for line in caplog.messages] == [True]

    def test_each_value_of_many_is_built_once(self, open_cache: OpenCache, server: Server) -> None:
        cache = open_cache(url(server))
        cache.set_many({"one": Counted(), "two": Counted()})
        Counted.built = 0
        assert len(cache.get_many(["one", "two"])) == 2
        assert Counted.built == 2

    def test_parts_of_a_second_are_kept(self, open_cache: OpenCache, server: Server) -> None:
        cache = open_cache(url(server))
        cache.set("key", 1, 0.25)
        assert 0 < int(str(redis_command(server, "PTTL", ":1:key"))) <= 250
        cache.touch("key", 0.75)
        assert 250 < int(str(redis_command(server, "PTTL", ":1:key"))) <= 750
        cache.set("key", 1, 0.0001)  # Redis refuses a time of zero

    def test_a_permanent_entry_can_be_made_permanent_again(self, open_cache: OpenCache, server: Server) -> None:
        cache = open_cache(url(server))
        cache.set("key", 1, None)
        assert cache.touch("key", None) is True
        assert cache.touch("missing", None) is False

    def test_foreign_entries_of_other_types_are_absent_or_no_integer(
        self, open_cache: OpenCache, server: Server
    ) -> None:
        redis_command(server, "RPUSH", ":1:list", "x")
        redis_command(server, "SET", ":1:padded", "007x")
        cache = open_cache(url(server))
        assert cache.get("list") is None
        with pytest.raises(TypeError):
            cache.incr("list")
        with pytest.raises(TypeError):
            cache.incr("padded")
        cache.set("list", 1)
        assert cache.get("list") == 1

    @pytest.mark.parametrize("text", ["-", "--1", "1_0", " 1", "1.5", "9" * 5000, ""])
    def test_foreign_text_is_never_read_as_a_number(self, open_cache: OpenCache, server: Server, text: str) -> None:
        redis_command(server, "SET", "key", text)
        assert open_cache(url(server))._get(("key",)) == {"key": text.encode()}

    @pytest.mark.filterwarnings("ignore::cachemw.errors.CacheKeyWarning")
    def test_keys_are_any_text_but_lone_surrogates(self, open_cache: OpenCache, server: Server) -> None:
        cache = open_cache(url(server))
        for key in ("ключ", "a b\r\nFLUSHALL\r\n", "x" * 10_000, "\0", "{"):
            cache.set(key, key)
            assert cache.get(key) == key
        for operation, *arguments in (("get", "\ud800"), ("set", "\ud800", 1), ("get_many", ["a", "\ud800"])):
            with pytest.raises(InvalidCacheKey, match="UTF-8"):
                getattr(cache, operation)(*arguments)
        assert redis_command(server, "DBSIZE") == 5

    def test_a_value_above_the_servers_limit_is_reported_and_nothing_else_is_touched(
        self, open_cache: OpenCache
    ) -> None:
        with start_redis("--proto-max-bulk-len", "1mb") as small:
            cache = open_cache(url(small), socket_timeout=5)
            cache.set("other", 1)
            with pytest.raises(BackendUnavailable):
                cache.set("large", b"x" * 2_000_000)
            assert cache.get_many(["other", "large"]) == {"other": 1}


class TestClear(BothHalves):
    patience: ClassVar = {"socket_timeout": 5}

    def test_only_this_caches_keys_go_in_every_version(self, open_cache: OpenCache, server: Server) -> None:
        for key in ("other", "site", "sites:1:a", "xsite:1:a", ":1:a"):
            redis_command(server, "SET", key, "theirs")
        cache = open_cache(url(server), {"KEY_PREFIX": "site"}, socket_timeout=5)
        cache.set_many({str(number): number for number in range(2500)}, version=1)
        cache.set("a", 1, version=2)
        cache.write_records([("resource\0rest", b"page", None)])
        cache.clear()
        assert sorted(redis_command(server, "KEYS", "*")) == [":1:a", "other", "site", "sites:1:a", "xsite:1:a"]  # type: ignore[call-overload]

    @pytest.mark.parametrize("prefix", ["*", "a?", "[ab]", "a\\", "^a-[", "ü"])
    def test_a_prefix_is_no_pattern(self, open_cache: OpenCache, server: Server, prefix: str) -> None:
        for key in ("a:1:x", "ab:1:x", "b:1:x", "\\:1:x", "^:1:x", "zz:1:x"):
            redis_command(server, "SET", key, "theirs")
        cache = open_cache(url(server), {"KEY_PREFIX": prefix})
        cache.set("key", 1)
        cache.clear()
        assert cache.get("key") is None
        assert redis_command(server, "DBSIZE") == 6

    def test_keys_that_are_no_text_go_too(self, open_cache: OpenCache, server: Server) -> None:
        redis_command(server, "SET", b":1:\xff\xfe", "x")
        open_cache(url(server)).clear()
        assert redis_command(server, "DBSIZE") == 0

    def test_other_databases_are_left_alone(self, open_cache: OpenCache, server: Server) -> None:
        second = open_cache(f"redis://{server.address}/2")
        second.set("key", "second")
        open_cache(url(server)).clear()
        assert second.get("key") == "second"
        second.clear()

    def test_a_key_function_is_understood_by_what_its_keys_have_in_common(
        self, open_cache: OpenCache, server: Server
    ) -> None:
        redis_command(server, "SET", "theirs", "x")
        cache = open_cache(
            url(server),
            {"KEY_PREFIX": "site", "KEY_FUNCTION": lambda key, prefix, version: f"app/{prefix}/{version}/{key}"},
        )
        cache.set("key", 1)
        cache.clear()
        assert redis_command(server, "KEYS", "*") == ["theirs"]

    @pytest.mark.parametrize(
        "key_function",
        [
            lambda key, prefix, version: f"v{version}/{prefix}/{key}",
            lambda key, prefix, version: f"{version}/{prefix}/{key}",
            lambda key, prefix, version: f"{key}@{version}@{prefix}",
            lambda key, prefix, version: f"{prefix}/{sha256(f'{version}{key}'.encode()).hexdigest()}",
            lambda key, prefix, version: f"{sha256(f'{version}{key}'.encode()).hexdigest()}/{prefix}",
        ],
        ids=["a letter first", "the version first", "the key first", "a digest last", "a digest first"],
    )
    def test_a_key_function_is_understood_by_where_it_puts_what_it_is_given(
        self, open_cache: OpenCache, server: Server, key_function: Any
    ) -> None:
        theirs = ["theirs", "v", "visits", "v1/other/a", "1/other/a", "a@1@other", "site:1"]
        for key in theirs:
            redis_command(server, "SET", key, "x")
        cache = open_cache(url(server), {"KEY_PREFIX": "site", "KEY_FUNCTION": key_function})
        cache.set_many({"a": 1, "b/*": 2})
        cache.set("a", 3, version=2)
        cache.write_records([("u\0G", b"page", None)])
        cache.clear()
        assert sorted(redis_command(server, "KEYS", "*")) == sorted({*theirs} - {"site:1"})  # type: ignore[call-overload]

    @pytest.mark.parametrize(
        "key_function",
        [
            lambda key, prefix, version: f"{key}{version}",
            lambda key, prefix, version: f"{key}:{version}:{prefix}",
            lambda key, prefix, version: sha256(f"{version}{key}".encode()).hexdigest(),
        ],
        ids=["both", "both with separators", "a digest"],
    )
    def test_keys_that_nothing_tells_from_others_are_not_guessed(
        self, open_cache: OpenCache, server: Server, key_function: Any
    ) -> None:
        cache = open_cache(url(server), {"KEY_FUNCTION": key_function})
        cache.set("key", 1)
        cache.write_records([("u\0G", b"page", None)])
        with pytest.raises(ImproperlyConfigured, match="KEY_FUNCTION"):
            cache.clear()
        assert cache.get("key") == 1
        cache.cache.clear_records()
        assert cache.get("key") == 1
        assert cache.read_records(["u\0G"]) == [None]


class TestCounting(BothHalves):
    patience: ClassVar = {"socket_timeout": 5}

    def test_a_summand_of_more_than_64_bits_counts_if_the_sum_fits(self, open_cache: OpenCache, server: Server) -> None:
        cache = open_cache(url(server))
        with pytest.raises(ValueError, match="not found"):
            cache.incr("key", 2**70)
        cache.set("key", -(2**63), None)
        assert cache.incr("key", 2**64 - 1) == 2**63 - 1
        assert cache.decr("key", 2**64 - 1) == -(2**63)
        assert cache.incr("key", 2**63) == 0
        for delta in (2**63, -(2**63) - 1, 2**64, -(2**80)):
            with pytest.raises(OverflowError):
                cache.incr("key", delta)
            assert cache.get("key") == 0
        cache.set("key", "text")
        with pytest.raises(TypeError):
            cache.incr("key", 2**70)


class TestConnecting(BothHalves):
    patience: ClassVar = {"socket_timeout": 5}

    def test_a_unix_socket(self, open_cache: OpenCache, tmp_path: Path) -> None:
        path = tmp_path / "redis socket"
        with start_redis("--unixsocket", str(path)):
            cache = open_cache(f"unix://{path}?db=3")
            cache.set("key", "value")
            assert cache.get("key") == "value"

    def test_users_with_passwords_of_any_characters(self, open_cache: OpenCache, server: Server) -> None:
        redis_command(server, "ACL", "SETUSER", "us:er", "on", ">p@s/s:w%?", "~*", "+@all")
        cache = open_cache(f"redis://us%3Aer:p%40s%2Fs%3Aw%25%3F@{server.address}/0")
        cache.set("key", 1)
        assert cache.get("key") == 1
        cache = open_cache(url(server), username="us:er", password="p@s/s:w%?", client_name="cachemw-test")
        assert cache.get("key") == 1
        assert "name=cachemw-test" in str(redis_command(server, "CLIENT", "LIST"))

    def test_tls_with_the_servers_certificate_verified(self, open_cache: OpenCache, tmp_path: Path) -> None:
        certificate, key = tmp_path / "certificate.pem", tmp_path / "key.pem"
        subprocess.run(
            f"openssl req -x509 -newkey rsa:2048 -nodes -keyout {key} -out {certificate} -days 1 -subj /CN=localhost"
            " -addext subjectAltName=IP:127.0.0.1".split(),
            check=True,
            capture_output=True,
        )
        options = f"--tls-auth-clients no --tls-cert-file {certificate} --tls-key-file {key} --tls-port".split()
        with start_redis(*options, str(port := free_port())):
            cache = open_cache(f"rediss://127.0.0.1:{port}/0", ssl_ca_certs=str(certificate), socket_timeout=5)
            large = b"x" * 3_000_000
            cache.set("large", large)
            assert cache.get("large") == large
            assert [cache.get("key") for _ in range(3)] == [None] * 3
            with pytest.raises(BackendUnavailable, match="certificate verify failed"):
                open_cache(f"rediss://127.0.0.1:{port}/0").get("key")
            with pytest.raises(BackendUnavailable):
                open_cache(f"redis://127.0.0.1:{port}/0").get("key")

    @pytest.mark.parametrize(
        "refusal", [b"-ERR unknown command `HELLO`, with args beginning with: `3`\r\n", b"-NOPROTO sorry\r\n"]
    )
    def test_a_server_without_resp3_is_spoken_to_in_resp2_from_then_on(
        self, open_cache: OpenCache, refusal: bytes
    ) -> None:
        with FakeRedis(lambda words: b"*1\r\n$1\r\n1\r\n") as fake:
            fake.HANDSHAKE = {**fake.HANDSHAKE, b"HELLO": refusal}
            cache = open_cache(fake.url)
            assert cache.get("key") == 1
            fake.hang_up()
            cache.close()
            if cache.run is not None:
                cache.run(cache.cache.aclose())
            assert cache.get("key") == 1
            assert sum(words[0] == b"HELLO" for words in fake.commands) == 1

    def test_a_database_that_is_not_there_is_unavailable(self, open_cache: OpenCache, server: Server) -> None:
        with pytest.raises(BackendUnavailable, match="DB index is out of range"):
            open_cache(f"redis://{server.address}/99").get("key")

    def test_a_closed_cache_may_be_used_again(self, open_cache: OpenCache, server: Server) -> None:
        cache = open_cache(url(server))
        cache.set("key", 1)
        cache.close()
        cache.close()
        assert cache.get("key") == 1


class TestEventLoops:
    def test_a_loop_that_ends_takes_its_connections_with_it(self, server: Server) -> None:
        cache = RedisCache(url(server), {})

        async def use(value: int) -> None:
            await cache.aset("loop", value)
            assert await asyncio.gather(*(cache.aget("loop") for _ in range(5))) == [value] * 5

        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            for value in range(3):
                asyncio.run(use(value))
            gc.collect()
        assert [str(one.message) for one in caught if issubclass(one.category, ResourceWarning)] == []
        cache.close()


class CountingPool(redis.connection.BlockingConnectionPool):
    taken = 0

    def get_connection(self, *args: Any, **kwargs: Any) -> Any:
        CountingPool.taken += 1
        return super().get_connection(*args, **kwargs)  # type: ignore[no-untyped-call]


class TestPoolClass:
    @pytest.mark.parametrize("pool_class", [CountingPool, f"{__name__}.CountingPool"])
    def test_threads_take_their_connections_from_a_pool_of_redis_pys(self, server: Server, pool_class: Any) -> None:
        cache = RedisCache(url(server), {"OPTIONS": {"pool_class": pool_class, "max_connections": 1}})
        before = CountingPool.taken
        cache.set("key", 1)
        assert [cache.get("key") for _ in range(5)] == [1] * 5
        assert CountingPool.taken - before == 6
        (node,) = cache._routes.nodes()
        link = node.threads.take()
        with pytest.raises(BackendUnavailable, match="No connection available"):  # by the deadline, not redis-py's 20 s
            cache.get("key")
        node.threads.drop(link)
        assert cache.get("key") == 1
        cache._forget()
        assert cache.get("key") == 1
        cache.close()

    def test_a_pool_that_does_not_wait_has_no_waiting_time(self, server: Server) -> None:
        cache = RedisCache(url(server), {"OPTIONS": {"pool_class": "redis.ConnectionPool", "socket_timeout": 5}})
        cache.set("key", 1)
        assert cache.get("key") == 1
        cache.close()

    def test_a_parser_class_is_for_threads_and_tasks_have_their_own(self, server: Server) -> None:
        async def scenario() -> None:
            cache = RedisCache(url(server), {"OPTIONS": {"parser_class": "redis.connection._RESP2Parser"}})
            cache.set("key", 1)
            assert cache.get("key") == 1
            assert await cache.aget("key") == 1
            await cache.aclose()

        asyncio.run(scenario())


class TestPageKeys:
    def test_pages_have_readable_keys(self, server: Server) -> None:
        cache = RedisCache(url(server), {"KEY_PREFIX": "site"})
        assert cache.page_key("https://host/a b\0rest") == "site:1:https://host/a b\0rest"

    def test_keys_warn_as_in_django(self, server: Server) -> None:
        cache = RedisCache(url(server), {})
        with pytest.warns(CacheKeyWarning, match="memcached"):
            cache.get("a b")
        cache.close()
