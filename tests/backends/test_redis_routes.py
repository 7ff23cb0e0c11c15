"""Several Redis servers: replicas that come and go, Sentinel's failover, a Cluster whose slots and nodes move."""

from __future__ import annotations

import asyncio
import contextlib
import threading
import time
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from redis.crc import key_slot

from cachemw.backends._redis import cluster as redis_cluster
from cachemw.backends._redis import routes as redis_routes
from cachemw.backends._redis import threads as redis_threads
from cachemw.backends._redis.node import Ask, Steps, arun, run
from cachemw.backends._redis.routes import Routes
from cachemw.backends._redis.wire import pack
from cachemw.backends.redis import RedisCache
from cachemw.errors import BackendUnavailable
from cachemw.testing import Face
from tests.backends.redis_tools import BothHalves, FakeRedis, OpenCache
from tests.servers import (
    RedisCluster,
    RedisReplication,
    RedisSentinel,
    Server,
    free_port,
    redis_command,
    redis_info,
    shared,
    start_redis,
    until,
)


def calls(server: Server, command: str) -> int:
    """How often the server has run the command since CONFIG RESETSTAT."""
    text = redis_info(server, "commandstats").get(f"cmdstat_{command}", "calls=0,")
    return int(text.split(",")[0].removeprefix("calls="))


def routes_of(cache: Face) -> Routes:
    assert isinstance(cache.cache, RedisCache)
    return cache.cache._routes


@pytest.mark.parametrize("half", ["sync", "async"])
def test_of_several_servers_that_are_asked_at_once_those_that_fail_cost_only_their_own_answers(half: str) -> None:
    ping = pack(("PING",))

    def steps() -> Steps[list[Any]]:
        return list((yield [Ask(node, ping, 1) for node in nodes]))

    with FakeRedis(lambda words: None) as silent:
        places = (f"redis://{shared(start_redis).address}/0", f"redis://127.0.0.1:{free_port()}/0", silent.url)
        caches = [RedisCache(place, {"OPTIONS": {"socket_timeout": 0.5}}) for place in places]
        nodes = [node for cache in caches for node in cache._routes.nodes()]
        alive, refused, late = run(steps()) if half == "sync" else asyncio.run(arun(steps()))
        assert alive == [b"PONG"]
        assert isinstance(refused, BackendUnavailable)
        assert isinstance(late, BackendUnavailable)
        for cache in caches:
            cache.close()


def works(call: Callable[[], Any]) -> bool:
    try:
        call()
    except BackendUnavailable:
        return False
    return True


def named(server: Server) -> bytes:
    """The reply of a Sentinel that takes the server for the leader."""
    return b"*2\r\n$9\r\n127.0.0.1\r\n$%d\r\n%d\r\n" % (len(str(server.port)), server.port)


def port(fake: FakeRedis) -> int:
    return int(address(fake).rpartition(":")[2])


def address(fake: FakeRedis) -> str:
    return fake.url.removeprefix("redis://").removesuffix("/0")


class TestReplicas(BothHalves):
    @pytest.fixture
    def servers(self) -> Iterator[RedisReplication]:
        with RedisReplication(replicas=2) as servers:
            yield servers

    def test_the_first_takes_writes_and_the_others_reads(
        self, open_cache: OpenCache, servers: RedisReplication
    ) -> None:
        cache = open_cache(servers.location, socket_timeout=5)
        cache.set("key", 1)
        cache.incr("key")
        for replica in servers.replicas:
            until(lambda replica=replica: redis_command(replica, "GET", ":1:key") == "2", "the replica has it")  # type: ignore[misc]
        for server in servers:
            redis_command(server, "CONFIG", "RESETSTAT")
        assert [cache.get("key") for _ in range(30)] == [2] * 30
        assert cache.has_key("key")
        read = [calls(replica, "mget") for replica in servers.replicas]
        assert sum(read) == 30
        assert all(read), "chosen at random"
        assert calls(servers.leader, "mget") == 0
        cache.set("key", 3)
        assert calls(servers.leader, "set") == 1

    def test_a_dead_replica_is_passed_by_and_comes_back(
        self, open_cache: OpenCache, servers: RedisReplication, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        cache = open_cache(servers.location, socket_timeout=5)
        cache.set("key", 1)
        for replica in servers.replicas:
            replica.kill()
        assert [cache.get("key") for _ in range(10)] == [1] * 10
        assert calls(servers.leader, "mget") == 10
        monkeypatch.setattr(redis_routes, "_REST", 0.0)
        for node in routes_of(cache).nodes():
            node.rests_until = 0.0
        replica = servers.replicas[0].start()
        until(lambda: redis_command(replica, "GET", ":1:key") == "1", "the replica is back")
        redis_command(replica, "CONFIG", "RESETSTAT")
        until(lambda: cache.get("key") == 1 and calls(replica, "mget") > 0, "the replica is read from")

    def test_a_frozen_replica_costs_one_call(
        self, open_cache: OpenCache, servers: RedisReplication, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        cache = open_cache(servers.location, socket_timeout=0.5)
        cache.set("key", 1)
        for replica in servers.replicas:
            replica.pause()
        failures = [not works(lambda: cache.get("key")) for _ in range(20)]
        assert sum(failures) == 2
        for later in (2, 4, 6):  # nobody waits to find out whether it is still frozen
            monkeypatch.setattr(redis_routes, "monotonic", lambda later=later: time.monotonic() + later)
            began = time.monotonic()
            assert cache.get("key") == 1
            assert time.monotonic() - began < 0.4
        for replica in servers.replicas:
            replica.resume()
            redis_command(replica, "CONFIG", "RESETSTAT")
        monkeypatch.undo()
        for node in routes_of(cache).nodes():
            node.rests_until = 0.0
        for replica in servers.replicas:
            until(
                lambda replica=replica: cache.get("key") == 1 and calls(replica, "mget") > 0,  # type: ignore[misc]
                "the replica is read from",
            )

    def test_where_no_thread_can_be_had_a_caller_asks_a_dead_replica(
        self, open_cache: OpenCache, servers: RedisReplication, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        cache = open_cache(servers.location, socket_timeout=5)
        cache.set("key", 1)
        for replica in servers.replicas:
            replica.kill()
        assert [cache.get("key") for _ in range(4)] == [1] * 4

        def none_left(self: threading.Thread) -> None:
            raise RuntimeError("can't start new thread")

        monkeypatch.setattr(threading.Thread, "start", none_left)
        for node in routes_of(cache).nodes():
            node.rests_until = 0.0
        assert [cache.get("key") for _ in range(4)] == [1] * 4
        replica = servers.replicas[0].start()
        until(lambda: redis_command(replica, "GET", ":1:key") == "1", "the replica is back")
        redis_command(replica, "CONFIG", "RESETSTAT")
        monkeypatch.setattr(redis_routes, "_REST", 0.0)
        for node in routes_of(cache).nodes():
            node.rests_until = 0.0
        until(lambda: cache.get("key") == 1 and calls(replica, "mget") > 0, "the replica is read from")

    def test_a_replica_without_its_leaders_data_is_not_read_from(self, open_cache: OpenCache) -> None:
        with (
            FakeRedis(lambda words: b"-MASTERDOWN Link with MASTER is down\r\n") as replica,
            FakeRedis(lambda words: b"*1\r\n$1\r\n1\r\n") as leader,
        ):
            assert open_cache([leader.url, replica.url], socket_timeout=5).get("key") == 1


class TestManagedFailover(BothHalves):
    def test_a_leader_that_has_become_read_only_is_looked_up_again(self, open_cache: OpenCache) -> None:
        """Behind a managed service's name another server answers by now; only new connections reach it."""
        told: list[bytes] = []

        def answer(words: list[bytes]) -> bytes:
            told.append(words[0])
            return b"+OK\r\n" if len(fake._connections) > 1 else b"-READONLY You can't write\r\n"

        with FakeRedis(answer) as fake:
            cache = open_cache(fake.url)
            assert cache.set_many({"a": 1, "b": 2}) == []
            assert told == [b"SET", b"SET", b"SET", b"SET"]

    @pytest.mark.parametrize("place", ["", "@user_script: 6: -"], ids=["since Redis 7", "before"])
    def test_a_script_is_told_so_too(self, open_cache: OpenCache, place: str) -> None:
        told: list[bytes] = []

        def answer(words: list[bytes]) -> bytes:
            told.append(words[0])
            return b":2\r\n" if len(fake._connections) > 1 else f"-{place}READONLY You can't write\r\n".encode()

        with FakeRedis(answer) as fake:
            cache = open_cache(fake.url)
            assert cache.incr("a") == 2
            assert told == [b"EVALSHA", b"EVAL"]

    @pytest.mark.parametrize("silent", [False, True])
    def test_those_who_are_under_way_meanwhile_get_their_answers(self, silent: bool) -> None:
        """One task has heard it, and had the name looked up, before the others' answers came."""
        sent = threading.Event()  # all three
        told: set[bytes] = set()

        def answer(words: list[bytes]) -> bytes | None:
            if words[0] != b"SET":
                return b"*1\r\n$1\r\n7\r\n"
            if words[1] in told:
                return b"+OK\r\n"
            told.add(words[1])
            if len(told) == 3:
                sent.set()
            return None if silent and words[1].endswith(b"last") else b"-READONLY You can't write\r\n"

        async def work() -> list[Any]:
            cache = RedisCache(fake.url, {})
            assert await cache.aget("key") == 7  # connected
            writes = [cache.aset(key, 1) for key in ("first", "second", "last")]
            (node,) = cache._routes.nodes()

            def retire() -> None:
                assert sent.wait(5)
                node.tasks.retire()

            done = await asyncio.gather(*writes, asyncio.to_thread(retire), return_exceptions=True)
            await cache.aclose()
            return done

        with FakeRedis(answer) as fake:
            *done, last, _ = asyncio.run(work())
        assert done == [None, None]
        assert isinstance(last, BackendUnavailable) is silent


class TestSentinel(BothHalves):
    def test_the_leader_is_asked_for_once(self, open_cache: OpenCache) -> None:
        leader = shared(start_redis)
        with FakeRedis(lambda words: named(leader)) as sentinel:
            cache = open_cache(f"redis+sentinel://{address(sentinel)}/service", socket_timeout=5)
            cache.set("key", 1)
            assert [cache.get("key") for _ in range(5)] == [1] * 5
            questions = [words for words in sentinel.commands if words[0] == b"SENTINEL"]
            assert questions == [[b"SENTINEL", b"GET-MASTER-ADDR-BY-NAME", b"service"]]

    def test_dead_sentinels_are_passed_by(self, open_cache: OpenCache) -> None:
        sentinels = shared(RedisSentinel)
        dead = f"127.0.0.1:{free_port()}"
        live = sentinels.sentinels[0].address
        cache = open_cache(f"redis+sentinel://{dead},{live}/{sentinels.service}", socket_timeout=5)
        cache.set("key", 1)
        assert cache.get("key") == 1

    def test_an_unknown_service_is_unavailable_and_says_who_does_not_know_it(self, open_cache: OpenCache) -> None:
        sentinels = shared(RedisSentinel)
        url = f"redis+sentinel://{sentinels.sentinels[0].address}/nobody"
        with pytest.raises(BackendUnavailable, match=f"leader of 'nobody'.*{sentinels.sentinels[0].address}"):
            open_cache(url, socket_timeout=5).get("key")

    def test_whom_a_sentinel_names_has_to_say_so_itself(self, open_cache: OpenCache) -> None:
        sentinels = shared(RedisSentinel)
        replica = sentinels.replicas[0]
        with FakeRedis(lambda words: named(replica)) as liar:
            url = f"redis+sentinel://{address(liar)}/service"
            with pytest.raises(BackendUnavailable, match=f"{replica.address}, which .* names, is not a leader"):
                open_cache(url, socket_timeout=5).get("key")

    def test_frozen_sentinels_are_given_up_in_time(self, open_cache: OpenCache) -> None:
        with FakeRedis(lambda words: None) as silent:
            began = time.monotonic()
            with pytest.raises(BackendUnavailable):
                open_cache(f"redis+sentinel://{','.join([address(silent)] * 20)}/service").get("key")
            assert time.monotonic() - began < 1

    def test_a_leader_that_follows_by_now_is_left_for_the_new_one(self, open_cache: OpenCache) -> None:
        with start_redis() as old, start_redis() as new:
            leaders = [old]
            with FakeRedis(lambda words: named(leaders[-1])) as sentinel:
                cache = open_cache(f"redis+sentinel://{address(sentinel)}/service", socket_timeout=5)
                cache.set("key", 1)
                redis_command(old, "REPLICAOF", new.host, new.port)
                leaders.append(new)
                cache.set("key", 2)
                assert cache.incr("key") == 3
                assert redis_command(new, "GET", ":1:key") == "3"


class TestSentinelFailover:
    def test_after_the_leaders_death_the_new_one_is_used(self) -> None:
        with RedisSentinel() as sentinels, asyncio.Runner() as runner:
            cache = RedisCache(sentinels.url, {"OPTIONS": {"socket_timeout": 1}})
            halves = Face(cache, None), Face(cache, runner.run)
            for half in halves:
                half.set("key", 1)
            until(lambda: redis_command(sentinels.replicas[0], "GET", ":1:key") == "1", "the replica has it")
            sentinels.leader.kill()
            for half in halves:
                with pytest.raises(BackendUnavailable):
                    half.get("key")
            for half in halves:
                until(lambda half=half: works(lambda: half.get("key")), "the new leader is used")  # type: ignore[misc]
                assert half.incr("key") > 1
            assert redis_command(sentinels.replicas[0], "GET", ":1:key") == "3"
            runner.run(cache.aclose())
            cache.close()


def keys_of(cluster: RedisCluster, server: Server, count: int) -> list[str]:
    """Keys whose slots the server has, by the layout that the cluster was started with."""
    index = cluster.leaders.index(server)
    found = (str(number) for number in range(10**6) if key_slot(f":1:{number}".encode()) * 3 // 16384 == index)
    return [next(found) for _ in range(count)]


class SlotMove:
    """A slot's way from one leader to another, as `redis-cli --cluster reshard` goes it."""

    def __init__(self, cluster: RedisCluster, slot: int, source: Server, target: Server) -> None:
        self.cluster, self.slot, self.source, self.target = cluster, slot, source, target
        self.source_id, self.target_id = cluster.node_id(source), cluster.node_id(target)

    def begin(self) -> None:
        redis_command(self.target, "CLUSTER", "SETSLOT", self.slot, "IMPORTING", self.source_id)
        redis_command(self.source, "CLUSTER", "SETSLOT", self.slot, "MIGRATING", self.target_id)

    def send_key(self, key: str) -> None:
        redis_command(self.source, "MIGRATE", self.target.host, self.target.port, key, 0, 1000)

    def end(self) -> None:
        others = [server for server in self.cluster.leaders if server not in (self.source, self.target)]
        for server in (self.target, self.source, *others):
            redis_command(server, "CLUSTER", "SETSLOT", self.slot, "NODE", self.target_id)


class TestCluster(BothHalves):
    @pytest.fixture
    def cluster(self) -> RedisCluster:
        cluster = shared(RedisCluster)
        for server in cluster.leaders:
            redis_command(server, "FLUSHALL")
        return cluster

    def test_many_keys_are_one_read_of_each_node(self, open_cache: OpenCache, cluster: RedisCluster) -> None:
        cache = open_cache(cluster.url, socket_timeout=5)
        data = {str(number): number for number in range(100)}
        cache.set_many(data)
        reads = [int(redis_info(server, "stats")["total_reads_processed"]) for server in cluster.leaders]
        assert cache.get_many(data) == data
        after = [int(redis_info(server, "stats")["total_reads_processed"]) for server in cluster.leaders]
        # the two questions, and some of the nodes' own talk
        assert all(new - old < 20 for old, new in zip(reads, after, strict=True)), "not one for each key"

    def test_all_records_of_a_url_are_on_one_node(self, open_cache: OpenCache, cluster: RedisCluster) -> None:
        cache = open_cache(cluster.url, socket_timeout=5)
        cache.write_records([(f"https://host/path\0{number}", b"page", 60) for number in range(20)])
        sizes = sorted(int(str(redis_command(server, "DBSIZE"))) for server in cluster.leaders)
        assert sizes == [0, 0, 20]

    def test_one_live_node_of_those_named_is_enough(self, open_cache: OpenCache, cluster: RedisCluster) -> None:
        dead = f"127.0.0.1:{free_port()}"
        cache = open_cache(f"redis+cluster://{dead},{cluster.leaders[2].address}", socket_timeout=5)
        cache.set_many({str(number): number for number in range(30)})
        assert cache.get_many(map(str, range(30))) == {str(number): number for number in range(30)}

    def test_a_slot_that_moves_is_followed(self, open_cache: OpenCache, cluster: RedisCluster) -> None:
        first, second, _ = cluster.leaders
        cache = open_cache(cluster.url, socket_timeout=5)
        # a slot of its own for each half: nodes that hear late of the first move disagree about one that comes at once
        ours, *keys = keys_of(cluster, first, 3)
        key = keys[cache.run is None]
        slot = key_slot(f":1:{key}".encode())
        cache.set_many({ours: 1, key: 1})
        move = SlotMove(cluster, slot, first, second)
        move.begin()
        assert cache.get(key) == 1, "still there"
        move.send_key(f":1:{key}")
        assert cache.get_many([ours, key]) == {ours: 1, key: 1}, "on its way: ASK"
        assert cache.incr(key) == 2
        move.end()
        assert cache.get_many([ours, key]) == {ours: 1, key: 2}, "arrived: MOVED"
        assert cache.incr(key) == 3
        before = calls(first, "mget")
        assert cache.get(key) == 3
        assert calls(first, "mget") == before, "and that was learnt"

    def test_a_server_that_is_no_cluster_is_unavailable(self, open_cache: OpenCache) -> None:
        url = f"redis+cluster://{shared(start_redis).address}"
        with pytest.raises(BackendUnavailable, match="cluster support disabled"):
            open_cache(url, socket_timeout=5).get("key")

    def test_nodes_that_send_a_command_in_a_circle_are_unavailable(self, open_cache: OpenCache) -> None:
        def answer(words: list[bytes]) -> bytes:
            if words[0] == b"CLUSTER":
                return b"*1\r\n*3\r\n:0\r\n:16383\r\n*2\r\n$0\r\n\r\n:%d\r\n" % port(fake)
            return b"-MOVED 1 :%d\r\n" % port(fake)

        with (
            FakeRedis(answer) as fake,
            pytest.raises(BackendUnavailable, match="more than 4 times"),
        ):
            open_cache(f"redis+cluster://{address(fake)}").get("key")

    def test_a_slot_that_nobody_serves_is_unavailable(self, open_cache: OpenCache) -> None:
        with FakeRedis(lambda words: b"*0\r\n") as fake, pytest.raises(BackendUnavailable, match="serves slot"):
            open_cache(f"redis+cluster://{address(fake)}").get("key")

    def test_silent_nodes_are_given_up_in_time(self, open_cache: OpenCache) -> None:
        with contextlib.ExitStack() as stack:
            silent = [address(stack.enter_context(FakeRedis(lambda words: None))) for _ in range(6)]
            began = time.monotonic()
            with pytest.raises(BackendUnavailable, match="layout"):
                open_cache(f"redis+cluster://{','.join(silent)}").get("key")
            assert time.monotonic() - began < 1

    def test_nodes_that_have_left_are_forgotten_and_a_known_layout_outlives_its_advisers(
        self, open_cache: OpenCache, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(redis_cluster, "_DOUBT", 0.0)

        def answer(words: list[bytes]) -> bytes:
            if words[0] != b"CLUSTER":
                return b"-CLUSTERDOWN no\r\n"
            if told is None:
                return b"-LOADING no\r\n"
            return b"*1\r\n*3\r\n:0\r\n:16383\r\n*2\r\n$9\r\n127.0.0.1\r\n:%d\r\n" % port(told)

        with FakeRedis(answer) as seed, FakeRedis(answer) as first, FakeRedis(answer) as second:
            cache = open_cache(f"redis+cluster://{address(seed)}")
            for told in (first, second, None):
                with pytest.raises(BackendUnavailable, match="CLUSTERDOWN"):
                    cache.get("key")
                known = {node.name for node in routes_of(cache).nodes()}
                assert known == {address(seed), address(told or second)}

    def test_lone_surrogates_are_refused_here_too(self, open_cache: OpenCache, cluster: RedisCluster) -> None:
        with pytest.raises(ValueError, match="UTF-8"):
            open_cache(cluster.url, socket_timeout=5).get("\ud800")


class TestInterruptedCluster:
    def test_what_interrupts_a_conversation_with_several_nodes_closes_all_of_its_connections(
        self, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        cache = RedisCache(shared(RedisCluster).url, {"OPTIONS": {"socket_timeout": 5}})
        data = {str(number): number for number in range(50)}
        cache.set_many(data)

        def interrupted(*_: Any) -> None:
            raise KeyboardInterrupt

        with monkeypatch.context() as patch:
            patch.setattr(redis_threads.Link, "receive", interrupted)
            with pytest.raises(KeyboardInterrupt):
                cache.get_many(map(str, range(25)))
        assert cache.get_many(map(str, range(25, 50))) == {str(number): number for number in range(25, 50)}
        cache.clear()
        cache.close()


class TestClusterFailover:
    def test_a_dead_nodes_keys_are_unavailable_until_its_replica_leads(self) -> None:
        with RedisCluster(node_timeout=1000) as cluster, asyncio.Runner() as runner:
            cache = RedisCache(cluster.url, {"OPTIONS": {"socket_timeout": 1}})
            halves = Face(cache, None), Face(cache, runner.run)
            dead = cluster.leaders[1]
            (lost,) = keys_of(cluster, dead, 1)
            (kept,) = keys_of(cluster, cluster.leaders[0], 1)
            cache.set_many({lost: 1, kept: 2})
            assert runner.run(cache.aget_many([lost, kept])) == {lost: 1, kept: 2}
            replica = cluster.replicas[1]
            until(lambda: redis_command(replica, "DBSIZE") == 1, "the replica has it")
            dead.kill()
            for half in halves:
                with pytest.raises(BackendUnavailable, match=dead.address):
                    half.get(lost)
                with pytest.raises(BackendUnavailable, match=dead.address):
                    half.get_many([lost, kept])
                assert half.get(kept) == 2
            for half in halves:
                until(lambda half=half: works(lambda: half.get(lost)), "the replica leads")  # type: ignore[misc]
                assert half.get_many([lost, kept]) == {lost: 1, kept: 2}
            cache.clear()
            assert cache.get_many([lost, kept]) == {}
            runner.run(cache.aclose())
            cache.close()

    def test_a_layout_that_is_doubted_is_asked_for_at_most_four_times_a_second(
        self, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        asked: list[float] = []

        def answer(words: list[bytes]) -> bytes:
            if words[0] == b"CLUSTER":
                asked.append(clock)
                return b"*1\r\n*3\r\n:0\r\n:16383\r\n*2\r\n$0\r\n\r\n:%d\r\n" % port(fake)
            return b"-CLUSTERDOWN The cluster is down\r\n"

        clock = 0.0
        monkeypatch.setattr(redis_cluster, "monotonic", lambda: clock)
        with FakeRedis(answer) as fake:
            cache = RedisCache(f"redis+cluster://{address(fake)}", {})
            for now in [0.0, 0.1, 0.2, 0.3, 0.4, 0.5]:
                clock = now
                with pytest.raises(BackendUnavailable, match="CLUSTERDOWN"):
                    cache.get("key")
            assert asked == [0.0, 0.3]
            cache.close()
