"""Servers that answer, and refuse: no memory, read-only, too many clients, values too large; leaders that change."""

from __future__ import annotations

import random
import socket
from collections.abc import Callable
from functools import partial
from typing import Any

import pytest

from cachemw.backends.memcached import PyLibMCCache, PyMemcacheCache
from cachemw.backends.redis import RedisCache
from tests.faults.site import BACK, INTERFACES, Site
from tests.servers import (
    MemcachedRing,
    RedisCluster,
    RedisReplication,
    RedisSentinel,
    redis_command,
    start_memcached,
    start_redis,
    until,
)


@pytest.fixture(params=INTERFACES)
def interface(request: pytest.FixtureRequest) -> str:
    return str(request.param)


def go_on(site: Site, rounds: int = 10) -> None:
    """Visitors and an author go on; `Site` checks what they get."""
    for number in range(rounds):
        site.get("/")
        site.get(f"/{number}")
        site.post("/")


def test_redis_without_memory(interface: str) -> None:
    with start_redis() as server, Site(interface, RedisCache(f"redis://{server.address}/0", {})) as site:
        site.get("/")
        site.get("/hot")
        site.until_hit("/")
        redis_command(server, "CONFIG", "SET", "maxmemory", "1")
        for number in range(10):
            site.get(f"/cold/{number}")
        assert site.get("/hot").hit  # what is there may be read
        go_on(site)  # a purge that leaves no mark is none: the store is not read until it does
        redis_command(server, "CONFIG", "SET", "maxmemory", "0")
        site.until_hit("/", within=BACK)
        go_on(site)


def test_a_leader_that_becomes_a_read_only_replica(interface: str) -> None:
    with (
        start_redis() as other,
        start_redis() as server,
        Site(interface, RedisCache(f"redis://{server.address}/0", {})) as site,
    ):
        site.get("/")
        site.until_hit("/")
        redis_command(server, "REPLICAOF", other.host, other.port)
        go_on(site)
        redis_command(server, "REPLICAOF", "NO", "ONE")
        site.until_hit("/", within=BACK)
        assert not site.pages.write_breaker.open


def test_too_many_clients(interface: str) -> None:
    with start_redis() as server, Site(interface, RedisCache(f"redis://{server.address}/0", {})) as site:
        with socket.create_connection((server.host, server.port)) as only:
            only.sendall(b"CONFIG SET maxclients 1\r\n")
            assert only.recv(100) == b"+OK\r\n"
            go_on(site)
            assert site.pages.counts["store-error"] > 0
            only.sendall(b"CONFIG SET maxclients 100\r\n")
            assert only.recv(100) == b"+OK\r\n"
        site.until_hit("/", within=BACK)


def test_a_page_over_the_item_limit_is_not_kept_and_its_old_version_is_gone(interface: str) -> None:
    with (
        start_memcached("-I", "512k", "-m", "64") as server,
        Site(interface, PyMemcacheCache(server.address, {})) as site,
    ):
        site.bodies["/large"] = random.Random(1).randbytes(600_000)
        for _ in range(8):
            assert not site.get("/large").hit
        assert site.pages.counts["not-stored"] == 8
        assert not site.pages.write_breaker.open
        site.get("/small")
        site.until_hit("/small")


def test_memcached_that_is_full_forgets_and_goes_on(interface: str) -> None:
    with start_memcached("-m", "2") as server, Site(interface, PyMemcacheCache(server.address, {})) as site:
        for number in range(40):
            site.bodies[f"/{number}"] = b"%d" % number * 50_000
            site.get(f"/{number}")
        go_on(site)
        assert site.pages.counts["store-error"] == 0


@pytest.mark.parametrize("make", [PyMemcacheCache, PyLibMCCache])
@pytest.mark.parametrize("how", ["kill", "pause"])
def test_a_server_of_a_ring_goes_away_and_comes_back(interface: str, how: str, make: Any) -> None:
    with MemcachedRing() as ring, Site(interface, make(ring.location, {})) as site, site.load() as load:
        load.await_hits(50, within=10)
        getattr(ring.servers[0], how)()
        load.await_answers(100)
        load.await_hits(400, within=10)  # the others go on
        load.await_unnoticed(0.005)
        getattr(ring.servers[0], "start" if how == "kill" else "resume")()
        load.await_hits(100, within=4)
        until(lambda: not site.cache._ring._away, "the server takes part again", 2)  # type: ignore[attr-defined]


@pytest.mark.parametrize("how", ["kill", "pause"])
def test_a_replica_goes_away_and_comes_back(interface: str, how: str) -> None:
    with (
        RedisReplication(1) as servers,
        Site(interface, RedisCache(servers.location, {})) as site,
        site.load() as load,
    ):
        load.await_answers(50)
        getattr(servers.replicas[0], how)()
        load.await_hits(50, within=4)
        getattr(servers.replicas[0], "start" if how == "kill" else "resume")()
        load.await_answers(100)


@pytest.mark.parametrize(
    "deployment", [RedisSentinel, partial(RedisCluster, node_timeout=1000)], ids=["sentinel", "cluster"]
)
def test_a_leader_dies_and_another_takes_over(
    interface: str, deployment: Callable[[], RedisSentinel | RedisCluster]
) -> None:
    with deployment() as servers, Site(interface, RedisCache(servers.url, {})) as site, site.load() as load:
        load.await_hits(50, within=10)
        leader = servers.leader if isinstance(servers, RedisSentinel) else servers.leaders[0]
        leader.kill()
        load.await_answers(100)
        load.await_hits(100, within=20)
    assert max(load.late().values(), default=0) <= 2
