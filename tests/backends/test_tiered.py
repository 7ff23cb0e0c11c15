"""The local tier: no round trip for what is known, and never an old answer once a change was heard of."""

from __future__ import annotations

import asyncio
import gc
import os
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from cachemw.backends import tiered
from cachemw.backends._local_tier import _after_fork
from cachemw.backends._redis import tracking as redis_tracking
from cachemw.backends.base import BaseCache
from cachemw.backends.redis import RedisCache
from cachemw.backends.registry import connect
from cachemw.backends.tiered import TieredCache
from cachemw.errors import BackendUnavailable, ImproperlyConfigured
from cachemw.testing import Face
from tests.backends.redis_tools import FakeRedis
from tests.servers import (
    RedisCluster,
    Server,
    redis_command,
    redis_info,
    shared,
    start_memcached,
    start_redis,
    start_valkey,
    until,
)

OpenTier = Callable[..., Face]


#: Threads of caches that nobody has closed, which end when those are collected.
_earlier: set[threading.Thread] = set()


@pytest.fixture(autouse=True)
def _know_earlier_threads() -> None:
    _earlier.clear()
    _earlier.update(threading.enumerate())


@pytest.fixture(params=["sync", "async"])
def open_tier(request: pytest.FixtureRequest) -> Iterator[OpenTier]:
    """`open_tier(url, **options)` opens a TieredCache, one half of it, whose channel is heard."""
    opened: list[TieredCache] = []
    with asyncio.Runner() as runner:
        run = runner.run if request.param == "async" else None

        def open_one(url: str, params: dict[str, Any] | None = None, *, wait: bool = True, **options: Any) -> Face:
            cache = TieredCache(url, {**(params or {}), "OPTIONS": options})
            opened.append(cache)
            face = Face(cache, run)
            if wait:
                face.get("starts-the-channel")
                until(lambda: tier_of(face).usable, "the channel is heard")
            return face

        yield open_one
        for cache in opened:
            runner.run(cache.aclose())
            cache.close()


@pytest.fixture
def server() -> Iterator[Server]:
    with start_redis() as server:
        yield server


@pytest.fixture
def other(server: Server) -> Iterator[RedisCache]:
    """The same entries, as another process sees and changes them."""
    cache = RedisCache(url(server), {})
    yield cache
    cache.close()


def url(server: Server) -> str:
    return f"redis://{server.address}/0"


def tier_of(face: Face) -> Any:
    assert isinstance(face.cache, TieredCache)
    return face.cache._tier


def trips(server: Server) -> int:
    """Reads of values that the server has done."""
    return int(redis_info(server, "commandstats").get("cmdstat_mget", "calls=0,").split(",")[0].removeprefix("calls="))


def decode(key: str, payload: bytes) -> Any:
    return None if payload == b"damaged" else (key, payload)


class TestHits:
    def test_what_was_read_before_costs_no_round_trip(
        self, open_tier: OpenTier, server: Server, other: RedisCache
    ) -> None:
        other.set_many({"value": ["x"], "number": 7, "none": None})
        other.write_records([("resource\0page", b"page", 60)])
        cache = open_tier(url(server))
        for _ in range(2):
            before = trips(server)
            for _ in range(3):
                assert cache.get("value") == ["x"]
                assert cache.get_many(["number", "none", "absent"]) == {"number": 7, "none": None}
                assert cache.has_key("value")
                assert not cache.has_key("absent")
                assert cache.read_records(["resource\0page", "tag\0mark"]) == [b"page", None]
        assert trips(server) == before

    def test_values_are_copies(self, open_tier: OpenTier, server: Server) -> None:
        cache = open_tier(url(server))
        cache.set("list", [1])
        cache.get("list").append(2)
        assert cache.get("list") == [1]

    def test_pages_are_decoded_once_for_each_decoder(
        self, open_tier: OpenTier, server: Server, other: RedisCache
    ) -> None:
        other.write_records([("r\0a", b"a", 60), ("r\0b", b"b", 60), ("r\0damaged", b"damaged", 60)])
        cache = open_tier(url(server))
        first = cache.read_decoded(["r\0a", "r\0b", "r\0absent"], decode)
        assert first == [("r\0a", b"a"), ("r\0b", b"b"), None]
        again = cache.read_decoded(["r\0b", "r\0a"], decode)
        assert again[0] is first[1]
        assert again[1] is first[0]
        assert cache.read_decoded(["r\0a"], lambda key, payload: payload) == [b"a"], "another page cache's"
        before = trips(server)
        assert cache.read_decoded(["r\0damaged"], decode) == [None]
        assert cache.read_decoded(["r\0damaged"], decode) == [None]
        assert trips(server) == before + 2, "so that damage is met, and counted, each time"

    def test_the_local_tier_is_bounded(self, open_tier: OpenTier, server: Server, other: RedisCache) -> None:
        other.set_many({str(number): number for number in range(50)})
        cache = open_tier(url(server), local_max_entries="10")
        assert cache.get_many(map(str, range(50))) == {str(number): number for number in range(50)}
        assert len(tier_of(cache)._memory._store.entries) <= 10

    def test_what_is_known_needs_nothing_of_the_store(
        self, open_tier: OpenTier, server: Server, other: RedisCache
    ) -> None:
        other.write_records([("page", b"page", 60)])
        cache = open_tier(url(server))
        assert isinstance(cache.cache, TieredCache)
        known = cache.cache.known
        assert known(["page"], decode) is None

        def kept() -> bool:
            cache.read_decoded(["page", "none"], decode)
            return known(["page", "none"], decode) is not None

        until(kept, "they are kept", 1)  # the channel may still tell of the write
        before = trips(server)
        assert known(["page", "none"], decode) == [("page", b"page"), None]
        assert known(["page"], lambda key, payload: payload) is None
        assert known(["page", "unknown"], decode) is None
        assert trips(server) == before
        tier_of(cache).channel.stop()
        assert known(["page"], decode) is None

    def test_values_and_pages_are_never_taken_for_one_another(
        self, open_tier: OpenTier, server: Server, other: RedisCache
    ) -> None:
        other.write_records([("page", b"\x80page", 60)])
        cache = open_tier(url(server))
        assert cache.read_decoded(["page"], decode) == [("page", b"\x80page")]
        assert cache._get((":1:page",)) == {":1:page": b"\x80page"}
        assert cache.read_decoded(["page"], decode) == [("page", b"\x80page")]
        other.set("number", 7)
        assert cache.read_decoded(["number"], decode) == [None]


class TestChanges:
    def test_ones_own_changes_are_seen_at_once(self, open_tier: OpenTier, server: Server) -> None:
        cache = open_tier(url(server))
        for number in range(20):
            cache.set("key", number)
            assert cache.get("key") == number
            assert cache.incr("key") == number + 1
            assert cache.get("key") == number + 1
            cache.delete("key")
            assert cache.get("key") is None
            assert cache.add("key", 1)
            assert cache.get("key") == 1
            cache.write_records([("page", b"page %d" % number, 60)])
            assert cache.read_records(["page"]) == [b"page %d" % number]
            cache.drop_records(["page"])
            assert cache.read_records(["page"]) == [None]
            assert cache.add_record("page", b"lease", 60)
            assert cache.read_records(["page"]) == [b"lease"]
            cache.drop_records(["page"])
        cache.write_records([("page", b"page", 60)])
        assert cache.read_records(["page"]) == [b"page"]
        cache.cache.clear_records()
        assert cache.read_records(["page"]) == [None]
        cache.get("key")
        cache.clear()
        assert cache.get("key") is None

    def test_valkey_tells_of_changes_too(self, open_tier: OpenTier) -> None:
        where = url(shared(start_valkey))
        cache, other = open_tier(where), RedisCache(where, {})
        other.write_records([("page", b"old", 60)])

        def kept() -> bool:
            assert cache.read_records(["page"]) == [b"old"]
            known: bool = tier_of(cache).pages(other._page_prefix, ["page"], tiered._payload) == ([b"old"], [])
            return known

        until(kept, "the page is kept", 1)  # the channel may still tell of the write
        other.write_records([("page", b"new", 60)])
        until(lambda: cache.read_records(["page"]) == [b"new"], "the change is heard of", 1)
        other.close()

    def test_anothers_changes_arrive(self, open_tier: OpenTier, server: Server, other: RedisCache) -> None:
        cache = open_tier(url(server))
        changes: list[tuple[Callable[[], object], object]] = [
            (lambda: other.set("key", 1), 1),
            (lambda: other.incr("key"), 2),
            (lambda: other.delete("key"), None),
            (lambda: other.add("key", 3), 3),
            (lambda: other.clear(), None),
            (lambda: other.set("key", 4), 4),
            (lambda: redis_command(server, "FLUSHALL"), None),
        ]
        for change, expected in changes:
            cache.get("key")
            change()
            until(lambda expected=expected: cache.get("key") == expected, f"{expected} has arrived", 5)  # type: ignore[misc]
        assert cache.read_records(["page"]) == [None]
        other.write_records([("page", b"page", 60)])
        until(lambda: cache.read_records(["page"]) == [b"page"], "the page has arrived", 5)
        other.drop_records(["page"])
        until(lambda: cache.read_records(["page"]) == [None], "that it is gone has arrived", 5)

    def test_anothers_change_of_the_time_arrives(self, open_tier: OpenTier, server: Server, other: RedisCache) -> None:
        cache = open_tier(url(server))
        other.set("key", 1, None)
        until(lambda: cache.get("key") == 1, "it is there")
        other.touch("key", 0.05)
        until(lambda: cache.get("key") is None, "it has expired", 5)

    def test_a_read_that_a_change_overtakes_is_not_kept(
        self, open_tier: OpenTier, server: Server, other: RedisCache, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        other.set("key", "old")
        other.write_records([("page", b"old", 60)])
        cache = open_tier(url(server))
        tier = tier_of(cache)
        forget, keep = tier.forget, tier._keep
        heard: list[str] = []

        def listen(keys: list[str]) -> None:
            forget(keys)
            heard.extend(keys)

        def overtaken(*args: Any) -> None:
            """The reply is here, and not yet kept: now comes the change."""
            if not heard:
                other.set("key", "new")
                other.write_records([("page", b"new", 60)])
                until(lambda: {":1:key", ":1:page"} <= {*heard}, "the change is heard of")
            keep(*args)

        monkeypatch.setattr(tier.channel, "_on_keys", lambda: listen)
        monkeypatch.setattr(tier, "_keep", overtaken)
        assert cache.get("key") == "old", "it was there when it was asked for"
        assert cache.get("key") == "new"
        heard.clear()
        other.write_records([("page", b"old", 60)])
        until(lambda: ":1:page" in heard, "that is heard of")
        heard.clear()
        assert cache.read_decoded(["page"], decode) == [("page", b"old")]
        assert cache.read_decoded(["page"], decode) == [("page", b"new")]

    def test_a_read_that_ones_own_write_overtakes_is_not_kept(self, server: Server, other: RedisCache) -> None:
        other.set("key", "old")
        cache = TieredCache(url(server), {"OPTIONS": {}})
        cache.get("key")
        until(lambda: cache._tier.usable, "the channel is heard")
        with cache._tier.reading() as reading:
            cache.set("key", "new")
            cache._tier.keep_values(reading, [":1:key"], {":1:key": (b"old", None)})
        assert cache.get("key") == "new"
        cache.close()

    def test_the_latest_records_come_from_the_store_itself(
        self, open_tier: OpenTier, server: Server, other: RedisCache
    ) -> None:
        cache = open_tier(url(server))
        cache.read_records(["mark"])
        before = trips(server)
        assert cache.read_latest(["mark"]) == [None]
        assert trips(server) == before + 1


class TestTime:
    @pytest.mark.parametrize("seconds", [10, None])
    def test_nothing_outlives_the_shared_entry(
        self, open_tier: OpenTier, server: Server, other: RedisCache, monkeypatch: pytest.MonkeyPatch, seconds: Any
    ) -> None:
        other.set("key", "value", seconds)
        other.write_records([("page", b"page", seconds)])
        cache = open_tier(url(server))
        now = time.monotonic()
        memory = tier_of(cache)._memory
        for holder in (tier_of(cache), memory):
            monkeypatch.setattr(holder, "_clock", lambda: now)
        cache.get("key")
        cache.read_decoded(["page"], decode)
        entries = memory._store.entries
        for key in (":1:key", ":1:page"):
            left = entries[key].expires - now
            assert 9 < left <= 10 if seconds else left == float("inf")
        before = trips(server)
        now += 1000
        cache.get("key")
        cache.read_decoded(["page"], decode)
        assert trips(server) == (before + 2 if seconds else before)

    def test_the_time_that_the_read_took_counts(self, server: Server) -> None:
        cache = TieredCache(url(server), {})
        tier = cache._tier
        cache.get("starts-the-channel")
        until(lambda: tier.usable, "the channel is heard")
        with tier.reading() as reading:
            reading.began -= 8
            tier.keep_values(reading, ["a", "b"], {"a": (1, 10.0), "b": (2, 7.0)})
        assert 1 < tier._memory._store.entries["a"].expires - time.monotonic() <= 2
        assert tier.values(["b"]) == ({}, ["b"])
        cache.close()

    def test_local_timeout_is_the_most(self, open_tier: OpenTier, server: Server, other: RedisCache) -> None:
        other.set("key", 1, None)
        cache = open_tier(url(server), local_timeout="0.05")
        before = trips(server)
        assert cache.get("key") == 1
        until(lambda: cache.get("key") == 1 and trips(server) > before + 1, "it is asked for again", 5)


class TestTheChannel:
    @pytest.fixture
    def unheard(self) -> Iterator[tuple[TieredCache, Callable[[], None]]]:
        """A tier whose channel is heard when the test says so, and not before."""
        allowed = threading.Event()

        def answer(words: list[bytes]) -> bytes:
            assert words[:2] != [b"CLIENT", b"TRACKING"] or allowed.wait(20)
            return b"+OK\r\n"

        with FakeRedis(answer) as fake:
            fake.HANDSHAKE = {b"HELLO": fake.HANDSHAKE[b"HELLO"]}
            cache = TieredCache(f"{fake.url}?socket_timeout=20", {})

            def hear() -> None:
                allowed.set()
                until(lambda: cache._tier.usable, "the channel is heard")

            yield cache, hear
            allowed.set()
            cache.close()

    def test_nothing_local_is_answered_before_the_channel_is_heard(
        self, unheard: tuple[TieredCache, Callable[[], None]]
    ) -> None:
        cache, hear = unheard
        with cache._tier.reading() as reading:
            cache._tier.keep_values(reading, ["key"], {"key": (b"never heard of a change", None)})
        assert cache._tier.values(["key"]) == ({}, ["key"])
        hear()
        assert cache._tier.values(["key"]) == ({}, ["key"])

    def test_a_read_from_before_the_channel_is_not_kept_after_its_begin(
        self, unheard: tuple[TieredCache, Callable[[], None]]
    ) -> None:
        cache, hear = unheard
        with cache._tier.reading() as reading:
            hear()
            cache._tier.keep_values(reading, ["key"], {"key": (b"old", None)})
        assert cache._tier.values(["key"]) == ({}, ["key"])

    def test_when_it_breaks_nothing_local_is_answered_until_it_is_back(
        self, open_tier: OpenTier, server: Server, other: RedisCache
    ) -> None:
        cache = open_tier(url(server))
        other.set("key", "old")
        until(lambda: cache.get("key") == "old", "it is there")
        server.kill()
        until(lambda: not tier_of(cache).usable, "the break is noticed", 5)
        with pytest.raises(BackendUnavailable):
            cache.get("key")
        server.start()
        until(lambda: tier_of(cache).usable, "the channel is back", 5)
        assert cache.get("key") is None
        other.set("key", "new")
        until(lambda: cache.get("key") == "new", "it is heard again", 5)

    def test_a_silent_server_is_no_channel(
        self, open_tier: OpenTier, server: Server, other: RedisCache, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(redis_tracking, "_HEARTBEAT", 0.05)
        cache = open_tier(url(server))
        other.set("key", "old")
        until(lambda: cache.get("key") == "old", "it is there")
        sign_of_life = redis_info(server, "commandstats").get("cmdstat_ping")
        until(lambda: redis_info(server, "commandstats").get("cmdstat_ping") != sign_of_life, "it is asked for signs")
        assert tier_of(cache).usable
        server.pause()
        until(lambda: not tier_of(cache).usable, "the silence is noticed", 5)
        server.resume()
        until(lambda: tier_of(cache).usable, "the channel is back", 5)

    def test_a_closed_cache_listens_no_longer_and_may_be_used_again(self, open_tier: OpenTier, server: Server) -> None:
        cache = open_tier(url(server))
        cache.set("key", 1)
        cache.cache.close()
        assert listeners() == []
        assert cache.get("key") == 1
        until(lambda: tier_of(cache).usable, "it listens again", 5)

    def test_a_forgotten_cache_ends_its_thread(self, server: Server) -> None:
        def use() -> threading.Thread:
            cache = TieredCache(url(server), {})
            cache.get("key")
            until(lambda: cache._tier.usable, "the channel is heard")
            cache._shared.close()
            (thread,) = listeners()
            return thread

        thread = use()
        gc.collect()
        thread.join(5)
        assert not thread.is_alive()

    def test_closing_while_the_server_does_not_answer_ends(self) -> None:
        with FakeRedis(lambda words: None) as fake:
            cache = TieredCache(fake.url, {})
            with pytest.raises(BackendUnavailable):
                cache.get("key")
            assert listeners()
            cache.close()
            assert listeners() == []

    def test_a_loading_server_is_asked_again(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(redis_tracking, "_PAUSE", 0.01)
        replies = iter([b"-LOADING Redis is loading\r\n", b"-MASTERDOWN no\r\n", b"+OK\r\n"])

        def answer(words: list[bytes]) -> bytes:
            if words[:2] == [b"CLIENT", b"TRACKING"]:
                return next(replies)
            return b"*1\r\n$-1\r\n" if words[0] == b"MGET" else b":-2\r\n"

        with FakeRedis(answer) as fake:
            fake.HANDSHAKE = {b"HELLO": fake.HANDSHAKE[b"HELLO"], b"CLIENT": b""}
            cache = TieredCache(fake.url, {})
            fake.answer = lambda words: b"+OK\r\n" if words[:2] == [b"CLIENT", b"SETINFO"] else answer(words)
            fake.HANDSHAKE = {b"HELLO": fake.HANDSHAKE[b"HELLO"]}
            cache.get("key")
            until(lambda: cache._tier.usable, "the third answer is heard", 5)
            assert next(replies, None) is None
            cache.close()

    def test_after_a_fork_the_child_listens_for_itself(self, server: Server, other: RedisCache) -> None:
        cache = TieredCache(url(server), {})
        other.set("key", "old")
        cache.get("key")
        until(lambda: cache._tier.usable and cache.get("key") == "old", "the channel is heard")
        ready, told = os.pipe()
        child = os.fork()
        if child == 0:
            status = 1
            try:
                assert cache.get("key") == "old"
                until(lambda: cache._tier.usable, "the child's own channel is heard", 5)
                assert cache.get("key") == "old"
                os.write(told, b"x")
                until(lambda: cache.get("key") == "new", "the change is heard of", 5)
                status = 0
            finally:
                os._exit(status)
        os.read(ready, 1)
        other.set("key", "new")
        assert os.waitpid(child, 0)[1] == 0
        until(lambda: cache.get("key") == "new", "the parent hears too", 5)
        os.close(ready)
        os.close(told)
        cache.close()

    def test_what_was_kept_and_listened_to_before_a_fork_is_not_trusted_after_it(
        self, server: Server, other: RedisCache
    ) -> None:
        cache = TieredCache(url(server), {})
        other.set("key", "old")
        cache.get("key")
        until(lambda: cache._tier.usable and cache.get("key") == "old", "the channel is heard")
        (theirs,) = listeners()
        with cache._tier.reading() as reading:
            _after_fork()
            cache._tier.keep_values(reading, [":1:key"], {":1:key": (b"old", None)})
        assert not cache._tier.usable
        assert cache._tier.values([":1:key"]) == ({}, [":1:key"])
        assert cache.get("key") == "old"
        until(lambda: cache._tier.usable, "a channel of its own is heard")
        assert len(listeners()) == 2
        redis_command(server, "CLIENT", "KILL", "TYPE", "normal")
        cache.close()
        cache._tier.channel._ending.set()  # type: ignore[union-attr]
        until(lambda: listeners() in ([], [theirs]), "ours has ended")


def listeners() -> list[threading.Thread]:
    """Those that began with this test."""
    return [one for one in threading.enumerate() if one.name == "cachemw-redis-invalidations" and one not in _earlier]


class TestWithoutAChannel:
    """Stores that tell nothing: an entry is at most `local_timeout` old."""

    def check(self, cache: Face, change: Callable[[], Any]) -> None:
        cache.set("key", "old")
        assert cache.get("key") == "old"
        assert tier_of(cache).usable
        item = tier_of(cache)._memory._store.entries[":1:key"]
        assert 0 < item.expires - time.monotonic() <= 1
        assert cache.get("absent") is None
        assert tier_of(cache)._memory._store.entries[":1:absent"].expires - time.monotonic() <= 0.1
        change()
        until(lambda: cache.get("key") == "new", "the local entry has ended", 5)

    def test_a_server_that_allows_no_tracking(self, open_tier: OpenTier, server: Server, other: RedisCache) -> None:
        redis_command(server, "ACL", "SETUSER", "limited", "on", ">pass", "~*", "+@all", "-client|tracking")
        cache = open_tier(f"redis://limited:pass@{server.address}/0")
        self.check(cache, lambda: other.set("key", "new"))
        until(lambda: not listeners(), "the listener has given up")

    def test_a_server_that_speaks_resp2(self, open_tier: OpenTier, server: Server, other: RedisCache) -> None:
        cache = open_tier(f"{url(server)}?protocol=2")
        self.check(cache, lambda: other.set("key", "new"))

    def test_a_cluster(self, open_tier: OpenTier) -> None:
        other = RedisCache(shared(RedisCluster).url, {"OPTIONS": {"socket_timeout": 5}})
        cache = open_tier(f"{shared(RedisCluster).url}?socket_timeout=5")
        self.check(cache, lambda: other.set("key", "new"))
        other.clear()
        other.close()

    def test_memcached(self, open_tier: OpenTier) -> None:
        address = shared(start_memcached).address
        other = TieredCache(f"memcached://{address}", {"OPTIONS": {"shared": f"memcached://{address}?timeout=5"}})
        cache = open_tier(f"memcached://{address}?timeout=5&connect_timeout=5")
        self.check(cache, lambda: other.set("key", "new"))
        cache.write_records([("page", b"page", 60)])
        first = cache.read_decoded(["page"], decode)
        assert cache.read_decoded(["page"], decode)[0] is first[0]
        other.clear()
        other.close()


class TestConfiguration:
    def test_the_shared_store_may_be_an_entry_of_caches(self) -> None:
        entry = {
            "BACKEND": "cachemw.backends.redis.RedisCache",
            "LOCATION": "redis://:secret@h/0",
            "KEY_PREFIX": "site",
            "TIMEOUT": 7,
            "SECRET": "secret",
        }
        cache = TieredCache("", {"VERSION": 3, "OPTIONS": {"SHARED": entry, "local_max_bytes": 10_000}})
        assert cache.make_key("key") == cache._shared.make_key("key") == "site:3:key"
        assert cache.default_timeout == 7
        assert cache.secrets == cache._shared.secrets
        assert "secret" not in repr(cache)

    @pytest.mark.parametrize(
        ("location", "options", "message"),
        [
            ("", {}, "URL"),
            (["redis://h"], {}, "OPTIONS"),
            ("", {"shared": 7}, "shared"),
            ("locmem://", {}, "LocMemCache"),
            ("tiered+redis://h", {}, "TieredCache"),
            ("redis://h", {"local_timeout": -1}, "local_timeout"),
            ("redis://h", {"local_timeout": "soon"}, "local_timeout"),
            ("redis://h", {"local_max_entries": "many"}, "MAX_ENTRIES"),
            ("redis://h", {"max_entries": 7}, "max_entries"),
            ("redis://h?no_such_option=1", {}, "no_such_option"),
        ],
    )
    def test_what_is_wrong_is_named(self, location: Any, options: dict[str, Any], message: str) -> None:
        with pytest.raises(ImproperlyConfigured, match=message):
            TieredCache(location, {"OPTIONS": options})

    def test_all_keys_are_listened_to_where_a_key_function_makes_them(self, server: Server, other: RedisCache) -> None:
        cache = TieredCache(url(server), {"KEY_FUNCTION": lambda key, prefix, version: f"{key}-{version}"})
        cache.get("key")
        until(lambda: cache._tier.usable, "the channel is heard")
        assert cache.get("key") is None
        redis_command(server, "SET", "key-1", "7")
        until(lambda: cache.get("key") == 7, "the change is heard of", 5)
        cache.close()

    @pytest.mark.parametrize(
        "make",
        [
            lambda: TieredCache("redis://127.0.0.1:1/0", {"OPTIONS": {"fail_open": True}}),
            lambda: TieredCache("", {"OPTIONS": {"shared": "redis://127.0.0.1:1/0?fail_open=yes"}}),
            lambda: connect("tiered+redis://127.0.0.1:1/0?fail_open=1"),
        ],
    )
    def test_with_fail_open_an_absent_store_holds_nothing(self, make: Callable[[], BaseCache]) -> None:
        cache = make()
        assert cache.get("key", "default") == "default"
        with pytest.raises(BackendUnavailable):
            cache.read_records(["page"])
        cache.close()


class TestTiersOfOneProcess:
    """Elsewhere than on Redis nobody tells a process of changes; of its own it need not be told."""

    @pytest.fixture
    def both(self, tmp_path: Path) -> Iterator[tuple[BaseCache, BaseCache]]:
        one, other = (connect(f"tiered+file://{tmp_path}/shared?local_timeout=600") for _ in range(2))
        yield one, other
        one.close()
        other.close()

    def test_what_one_changes_no_other_one_remembers(self, both: tuple[BaseCache, BaseCache]) -> None:
        one, other = both
        changes: list[tuple[Callable[[], object], object]] = [
            (lambda: one.set("key", 2), 2),
            (lambda: one.incr("key"), 3),
            (lambda: one.set_many({"key": 4}), 4),
            (lambda: one.delete("key"), None),
            (lambda: one.add("key", 5), 5),
            (lambda: one.touch("key", -1), None),
            (lambda: one.set("key", 6), 6),
            (lambda: one.clear(), None),
        ]
        for change, value in changes:
            other.get("key")  # is kept, or that there is none
            change()
            assert other.get("key") == value

    def test_a_page_dropped_by_one_is_gone_for_the_others(self, both: tuple[BaseCache, BaseCache]) -> None:
        one, other = both
        one.write_records([("page", b"record", 60)])
        assert other.read_records(["page"]) == [b"record"]
        one.drop_records(["page"])
        assert other.read_records(["page"]) == [None]

    def test_tiers_before_another_store_keep_what_they_have(
        self, both: tuple[BaseCache, BaseCache], tmp_path: Path
    ) -> None:
        elsewhere = connect(f"tiered+file://{tmp_path}/elsewhere?local_timeout=600")
        elsewhere.set("key", 1)
        assert elsewhere.get("key") == 1
        connect(f"file://{tmp_path}/elsewhere").set("key", 2)
        both[0].set("key", 3)
        assert elsewhere.get("key") == 1

    def test_a_tier_that_nobody_uses_is_let_go(self, both: tuple[BaseCache, BaseCache], tmp_path: Path) -> None:
        tiers = both[0]._tier._neighbours  # type: ignore[attr-defined]
        assert len(tiers.tiers) == 2
        third = connect(f"tiered+file://{tmp_path}/shared")
        assert len(tiers.tiers) == 3
        third.close()
        del third
        gc.collect()
        both[0].set("key", 1)
        fourth = connect(f"tiered+file://{tmp_path}/shared")
        assert len(tiers.tiers) == 3
        fourth.close()
