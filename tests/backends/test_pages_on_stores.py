"""The page cache over every store, on WSGI and on ASGI: hits, variants, tags, purges; and what a hit costs a server."""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterator
from contextlib import ExitStack, closing
from pathlib import Path
from typing import Any

import pytest

from cachemw import purge
from cachemw.backends.base import BaseCache
from cachemw.backends.db import DatabaseCache
from cachemw.backends.dummy import DummyCache
from cachemw.backends.filebased import FileBasedCache
from cachemw.backends.locmem import LocMemCache
from cachemw.backends.memcached import PyLibMCCache, PyMemcacheCache
from cachemw.backends.redis import RedisCache
from cachemw.backends.tiered import TieredCache
from tests.faults.site import INTERFACES, Site
from tests.faults.stores import NETWORKED, open_networked
from tests.faults.wire import Wire
from tests.servers import (
    MemcachedRing,
    RedisCluster,
    RedisReplication,
    RedisSentinel,
    Server,
    mariadb_url,
    postgresql_url,
    redis_info,
    shared,
    start_mariadb,
    start_memcached,
    start_postgresql,
    start_redis,
    until,
)

#: The machine may be busy, and these tests are not about deadlines.
PATIENT = {"socket_timeout": 5, "socket_connect_timeout": 5}
_replicated = functools.partial(RedisReplication, replicas=1)


def _redis(location: Any) -> BaseCache:
    return RedisCache(location, {"OPTIONS": PATIENT})


def _memcached(kind: Any, location: Any) -> BaseCache:
    cache: BaseCache = kind(location, {"OPTIONS": {"timeout": 5, "connect_timeout": 5}})
    return cache


def _database(url: str) -> BaseCache:
    return DatabaseCache(url, {"OPTIONS": {"create": True, "deadline": 5}})


def _tiered(scheme: str, url: str) -> BaseCache:
    return TieredCache(f"{scheme}{url}", {})


#: By name: opens the store, in a directory if it wants one.
STORES: dict[str, Callable[[Path], BaseCache]] = {
    "locmem": lambda path: LocMemCache(str(path), {}),
    "filebased": lambda path: FileBasedCache(str(path / "cache"), {}),
    "sqlite": lambda path: _database(f"sqlite:///{path}/cache.db"),
    "postgresql": lambda path: _database(postgresql_url(shared(start_postgresql))),
    "mariadb": lambda path: _database(mariadb_url(shared(start_mariadb))),
    "redis": lambda path: _redis(f"redis://{shared(start_redis).address}/0"),
    "redis, replica": lambda path: _redis(shared(_replicated).location),
    "redis, sentinel": lambda path: _redis(shared(RedisSentinel).url),
    "redis, cluster": lambda path: _redis(shared(RedisCluster).url),
    "memcached": lambda path: _memcached(PyMemcacheCache, shared(start_memcached).address),
    "memcached, ring": lambda path: _memcached(PyMemcacheCache, shared(MemcachedRing).location),
    "pylibmc": lambda path: _memcached(PyLibMCCache, shared(start_memcached).address),
    "pylibmc, ring": lambda path: _memcached(PyLibMCCache, shared(MemcachedRing).location),
    "tiered, redis": lambda path: _tiered("redis://", f"{shared(start_redis).address}/0"),
    "tiered, memcached": lambda path: _tiered("memcached://", shared(start_memcached).address),
}


#: By name: where replicas are read from, which lag.
REPLICATED: dict[str, Callable[[], RedisReplication]] = {
    "redis, replica": lambda: shared(_replicated),
    "redis, sentinel": lambda: shared(RedisSentinel),
}


def await_replicas(store: str) -> None:
    """Return when the replicas of a store, if it has any, have what was written."""
    if store not in REPLICATED:
        return
    servers = REPLICATED[store]()
    written = int(redis_info(servers.leader, "replication")["master_repl_offset"])
    for replica in servers.replicas:
        until(functools.partial(_has_read, replica, written), "the replica has what was written")


def _has_read(replica: Server, written: int) -> bool:
    return int(redis_info(replica, "replication")["slave_repl_offset"]) >= written


@pytest.fixture(params=STORES)
def store(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture(params=INTERFACES)
def interface(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture
def site(store: str, interface: str, tmp_path: Path) -> Iterator[Site]:
    """A site over the store, which is empty."""
    cache = STORES[store](tmp_path)
    cache.clear()
    await_replicas(store)
    with Site(interface, cache) as site:
        yield site


def test_a_page_is_made_once(site: Site) -> None:
    cold = site.get("/page")
    site.until_hit("/page")
    hot = site.get("/page")
    assert not cold.hit
    assert hot.hit
    assert hot.body == cold.body == b"/page 0"
    assert hot.fields["age"] == "0"
    assert hot.fields["content-type"] == "text/plain"
    assert site.line.pages.counts["store-error"] == 0


def test_a_body_of_any_octets_and_a_large_one_come_back(site: Site) -> None:
    for path, body in (("/octets", bytes(range(256)) * 2), ("/large", b"\r\nEND\r\n" * 100_000)):
        site.bodies[path] = body
        site.get(path)
        site.until_hit(path)


def test_variants_are_apart(site: Site) -> None:
    site.fields["/"] = [("Vary", "Accept-Language")]
    for language in ("de", "fr", "de", "fr"):
        site.get("/", {"Accept-Language": language})
    for language in ("de", "fr"):
        until_variant = functools.partial(site.get, "/", {"Accept-Language": language})
        while not until_variant().hit:
            continue
    assert not site.get("/", {"Accept-Language": "it"}).hit
    assert not site.get("/", {}).hit


def test_an_unsafe_request_removes_the_page_in_all_variants(site: Site, store: str) -> None:
    site.fields["/"] = [("Vary", "Accept-Language")]
    for language in ("de", "fr", "de", "fr"):
        site.get("/", {"Accept-Language": language})
    site.post("/")  # `Site` checks that nobody gets an older version
    await_replicas(store)
    for language in ("de", "fr"):
        assert site.get("/", {"Accept-Language": language}).version == 1


def test_a_purge_by_url_and_by_tag(site: Site, store: str) -> None:
    site.fields["/a"] = [("Cache-Tag", "shop, news")]
    site.fields["/b"] = [("Cache-Tag", "shop")]
    for path in ("/a", "/b", "/c"):
        site.get(path)
        site.until_hit(path)
    purge("http://example.org/c", caching=site.app.caching)
    await_replicas(store)
    site.versions["/c"] += 1
    assert site.get("/c").version == 1
    purge(tags=["news"], caching=site.app.caching)
    await_replicas(store)
    site.versions["/a"] += 1
    assert site.get("/a").version == 1
    assert site.get("/b").hit


def test_a_soft_purge_serves_the_old_page_no_longer_as_fresh(site: Site, store: str) -> None:
    site.get("/")
    site.until_hit("/")
    assert purge("http://example.org/", soft=True, caching=site.app.caching) == 1
    await_replicas(store)
    site.versions["/"] += 1
    assert site.get("/").version == 1


def test_a_purge_wins_over_a_page_that_is_being_made(site: Site, store: str) -> None:
    def purged_meanwhile(path: str) -> None:
        site.before = lambda path: None
        site.pages.run_purge([site.line.resource(_request(path))])

    site.before = purged_meanwhile
    site.get("/slow")
    site.before = lambda path: None
    await_replicas(store)
    assert not site.get("/slow").hit
    site.until_hit("/slow")


def test_another_process_that_removes_everything_wins_over_a_page_that_is_being_made(
    site: Site, store: str, tmp_path: Path
) -> None:
    with closing(STORES[store](tmp_path)) as other:

        def cleared_meanwhile(path: str) -> None:
            site.before = lambda path: None
            (other if other.shared else site.cache).clear()  # what is not shared another process cannot reach

        site.before = cleared_meanwhile
        site.get("/slow")
        await_replicas(store)
        assert not site.get("/slow").hit
        site.until_hit("/slow")


def _request(path: str) -> Any:
    from cachemw.rfc9111.requests import Request

    return Request(host="example.org", path=path)


@pytest.mark.parametrize("interface", INTERFACES)
def test_nothing_stays_in_a_dummy_and_nothing_waits(interface: str) -> None:
    with Site(interface, DummyCache("", {})) as site:
        assert [site.get("/").hit for _ in range(3)] == [False, False, False]
        site.post("/")
        assert site.get("/").version == 1
        assert site.made["/"] == 4


# -- what a hit costs --------------------------------------------------------------------------------------------------


def _redis_commands(leader: Server, *replicas: Server) -> int:
    """Commands that clients had carried out; of replicas the reads alone, as they repeat what the leader wrote."""
    own = ("info", "replconf", "ping", "client", "hello", "select", "role", "sentinel", "cluster", "publish")
    return sum(
        int(line.split("=")[1].split(",")[0])
        for server in (leader, *replicas)
        for name, line in redis_info(server, "commandstats").items()
        if (name == "cmdstat_mget" if server in replicas else not name.removeprefix("cmdstat_").startswith(own))
    )


#: By store: what its servers say they were asked so far.
COUNTERS: dict[str, Callable[[], int]] = {
    "redis": lambda: _redis_commands(shared(start_redis)),
    "redis, replica": lambda: _redis_commands(*shared(_replicated).servers),
    "redis, sentinel": lambda: _redis_commands(shared(RedisSentinel).leader, *shared(RedisSentinel).replicas),
}
HITS = 20
KINDS = ["plain", "vary", "tags", "both"]
BOTH = [("Vary", "Accept-Language"), ("Cache-Tag", "shop, news")]


@pytest.mark.parametrize("store", COUNTERS)
@pytest.mark.parametrize(
    ("fields", "first"),
    [([], 1), ([("Vary", "Accept-Language")], 2), ([("Cache-Tag", "shop, news")], 2), (BOTH, 2)],
    ids=KINDS,
)
def test_a_hit_on_redis_is_one_command(
    site: Site, store: str, interface: str, fields: list[tuple[str, str]], first: int, tmp_path: Path
) -> None:
    count = COUNTERS[store]
    site.fields["/"] = fields
    request = {"Accept-Language": "de"}
    while not site.get("/", request).hit:
        continue
    await_replicas(store)
    assert site.get("/", request).hit
    before = count()
    for _ in range(HITS):
        assert site.get("/", request).hit
    assert count() - before == HITS
    # a process that has not seen the page
    with Site(interface, STORES[store](tmp_path)) as other:
        other.fields["/"] = fields
        before = count()
        assert other.get("/", request).hit
        assert count() - before == first


def _catch_up(cache: BaseCache) -> None:
    """Return when a tier has heard of all changes so far, by the one channel that tells of them in their order."""
    if not isinstance(cache, TieredCache):
        return
    channel = cache._tier.channel
    if channel is not None:
        until(lambda: channel.ready, "the tier hears of changes")
        cache._shared.set("news", "old")
        assert cache.get("news") == "old"
        cache._shared.set("news", "new")
        until(lambda: cache.get("news") == "new", "the tier has heard of the last change")


@pytest.mark.parametrize("store", NETWORKED)
@pytest.mark.parametrize("fields", [[], [("Vary", "Accept-Language")], [("Cache-Tag", "shop, news")], BOTH], ids=KINDS)
def test_a_hit_is_one_round_trip(store: str, interface: str, fields: list[tuple[str, str]]) -> None:
    request = {"Accept-Language": "de"}
    server = shared(NETWORKED[store][0])
    with Wire((server.host, server.port)) as wire:
        with Site(interface, open_networked(store, wire.address, patient=True)) as site:
            site.cache.clear()
            site.fields["/"] = fields
            for _ in range(10):  # psycopg prepares a statement that it has seen a few times
                site.get("/", request)
            _catch_up(site.cache)
            site.get("/", request)
            before = wire.turns
            for _ in range(HITS):
                assert site.get("/", request).hit
            assert wire.turns - before == (0 if store == "tiered" else HITS)
        with Site(interface, open_networked(store, wire.address, patient=True)) as other:
            other.fields["/"] = fields
            other.get("/another")  # connects
            _catch_up(other.cache)
            before = wire.turns
            assert other.get("/", request).hit
            assert wire.turns - before <= 2


def test_a_miss_on_redis_is_three_round_trips(interface: str) -> None:
    """The look-up; the lease, and a second look; the page, a look for purges, and the end of the lease."""
    server = shared(NETWORKED["redis"][0])
    with (
        Wire((server.host, server.port)) as wire,
        Site(interface, open_networked("redis", wire.address, patient=True)) as site,
    ):
        site.cache.clear()
        site.get("/another")  # connects
        before, asked = wire.turns, _redis_commands(server)
        assert not site.get("/").hit
        assert wire.turns - before == 3
        assert _redis_commands(server) - asked == 1 + 2 + 3
        assert site.get("/").hit


def test_a_hit_on_a_ring_asks_one_of_its_servers(interface: str) -> None:
    request = {"Accept-Language": "de"}
    with ExitStack() as stack:
        wires = [stack.enter_context(Wire((s.host, s.port))) for s in shared(MemcachedRing).servers]
        cache = _memcached(PyMemcacheCache, [wire.address for wire in wires])
        with Site(interface, cache) as site:
            site.fields["/"] = [("Vary", "Accept-Language")]
            while not site.get("/", request).hit:
                continue
            before = [wire.turns for wire in wires]
            for _ in range(HITS):
                assert site.get("/", request).hit
            assert sorted(wire.turns - b for wire, b in zip(wires, before, strict=True)) == [0, 0, HITS]
