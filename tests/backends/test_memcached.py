"""The Memcached stores on real servers: one ring for all clients, what is memcached's own, options, processes."""

from __future__ import annotations

import asyncio
import itertools
import os
import pickle
import socket
import ssl
import subprocess
import threading
from collections.abc import Callable, Coroutine, Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest

from cachemw.backends.base import BaseCache
from cachemw.backends.memcached import PyLibMCCache, PyMemcacheCache
from cachemw.errors import BackendUnavailable, ImproperlyConfigured, InvalidCacheKey
from tests.servers import (
    MemcachedRing,
    Server,
    accepts,
    free_port,
    memcached_command,
    memcached_stats,
    require,
    require_ipv6,
    shared,
    start,
    start_memcached,
)

PATIENT = {"timeout": 5, "connect_timeout": 5}
Make = Callable[..., BaseCache]
CLASSES: list[Make] = [PyMemcacheCache, PyLibMCCache]
Run = Callable[[Coroutine[Any, Any, Any]], Any]


@pytest.fixture(params=CLASSES)
def make(request: pytest.FixtureRequest) -> Make:
    return request.param  # type: ignore[no-any-return]


@pytest.fixture
def server() -> Server:
    server = shared(start_memcached)
    memcached_command(server, b"flush_all")
    return server


@pytest.fixture
def ring() -> MemcachedRing:
    ring = shared(MemcachedRing)
    for server in ring:
        memcached_command(server, b"flush_all")
    return ring


@pytest.fixture
def run() -> Iterator[Run]:
    with asyncio.Runner() as runner:
        yield runner.run


def opened(make: Make, location: str | Sequence[str], **params: Any) -> BaseCache:
    return make(location, {**params, "OPTIONS": PATIENT | params.get("OPTIONS", {})})


def holders(servers: MemcachedRing, key: str) -> list[str]:
    """The addresses of the servers that have the key."""
    return [one.address for one in servers if len(memcached_command(one, b"get " + key.encode(), b"END\r\n")) > 5]


# -- one ring -------------------------------------------------------------------------------------------------------


def test_every_client_finds_what_another_stored(ring: MemcachedRing, run: Run) -> None:
    caches = [opened(make, location) for make in CLASSES for location in (ring.location, ring.location[::-1])]
    for number, writer in enumerate(caches):
        writer.set_many({f"sync{number}-{i}": [number, i] for i in range(30)})
        run(writer.aset_many({f"async{number}-{i}": [number, i] for i in range(30)}))
        writer.set(f"sync{number}-0", "alone")
        for kind in ("sync", "async"):
            for i in range(30):
                assert len(holders(ring, f":1:{kind}{number}-{i}")) == 1
    for reader in caches:
        for number in range(len(caches)):
            names = [f"{kind}{number}-{i}" for kind in ("sync", "async") for i in range(30)]
            expected = {name: [number, int(name.rpartition("-")[2])] for name in names} | {f"sync{number}-0": "alone"}
            assert reader.get_many(names) == expected
            assert run(reader.aget_many(names)) == expected
            assert {name: reader.get(name) for name in names} == expected
    for cache in caches:
        run(cache.aclose())
        cache.close()


def test_counters_are_common_to_all_clients(ring: MemcachedRing, run: Run) -> None:
    first, second = (opened(make, ring.location) for make in CLASSES)
    for number in range(6):
        key = f"count{number}"
        first.set(key, 5)
        assert second.incr(key) == 6
        assert run(first.adecr(key, 10)) == -4
        assert run(second.aget(key)) == second.get(key) == -4
        assert second.set_many({key: -7}) == []
        assert first.decr(key) == run(second.aget(key)) == -8
    for cache in (first, second):
        run(cache.aclose())
        cache.close()


def test_what_belongs_to_a_page_is_on_one_server(make: Make, ring: MemcachedRing) -> None:
    cache = opened(make, ring.location, KEY_PREFIX="site")
    used = set()
    for page in range(20):
        keys = [f"https://example.org/{page}", *(f"https://example.org/{page}\x00variant{i}" for i in range(4))]
        assert cache.write_records([(key, b"page", 60) for key in keys]) == []
        (home,) = {address for key in keys for address in holders(ring, cache.page_key(key))}
        used.add(home)
    assert len(used) == 3
    cache.close()


# -- round trips ----------------------------------------------------------------------------------------------------


class CountingProxy:
    """Forwards a connection to memcached, and counts how often the client waited for a reply before it went on."""

    def __init__(self, server: Server) -> None:
        self.questions = 0
        self._server = server
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.address = f"127.0.0.1:{self._listener.getsockname()[1]}"
        threading.Thread(target=self._serve, daemon=True).start()

    def _serve(self) -> None:
        while True:
            try:
                client, _ = self._listener.accept()
            except OSError:
                return
            threading.Thread(target=self._forward, args=(client,), daemon=True).start()

    def _forward(self, client: socket.socket) -> None:
        with client, socket.create_connection((self._server.host, self._server.port)) as upstream:
            threading.Thread(target=self._back, args=(upstream, client), daemon=True).start()
            while question := client.recv(65536):
                client.settimeout(0.03)  # all that is sent without waiting for a reply is one question
                try:
                    while more := client.recv(65536):
                        question += more
                except TimeoutError:
                    client.settimeout(None)
                self.questions += 1
                upstream.sendall(question)

    @staticmethod
    def _back(upstream: socket.socket, client: socket.socket) -> None:
        try:
            while reply := upstream.recv(65536):
                client.sendall(reply)
        except OSError:
            pass

    def close(self) -> None:
        self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()


@pytest.fixture
def proxy(server: Server) -> Iterator[CountingProxy]:
    proxy = CountingProxy(server)
    yield proxy
    proxy.close()


def test_many_keys_are_one_round_trip(make: Make, proxy: CountingProxy, run: Run) -> None:
    cache = opened(make, proxy.address)
    data = {f"key{i}": f"value {i}" for i in range(100)}

    def trips(work: Callable[[], Any]) -> tuple[Any, int]:
        before = proxy.questions
        result = work()
        return result, proxy.questions - before

    assert trips(lambda: cache.set_many(data)) == ([], 1)
    assert trips(lambda: cache.get_many(data)) == (data, 1)
    assert trips(lambda: cache.delete_many(data)) == (None, 1)
    assert trips(lambda: run(cache.aset_many(data))) == ([], 1)
    assert trips(lambda: run(cache.aget_many(data))) == (data, 1)
    assert trips(lambda: run(cache.adelete_many(data))) == (None, 1)
    cache.write_records([("page", b"index", 60), ("page\x00variant", b"body", 60)])
    assert trips(lambda: cache.read_records(["page", "page\x00variant"])) == ([b"index", b"body"], 1)
    assert trips(lambda: run(cache.aread_records(["page", "page\x00variant"]))) == ([b"index", b"body"], 1)
    run(cache.aclose())
    cache.close()


def test_a_miss_takes_its_lease_and_is_stored_in_a_round_trip_each(make: Make, proxy: CountingProxy, run: Run) -> None:
    cache = opened(make, proxy.address)
    lease = ("u\0L", b"lease", 10.0)
    page = [("u\0G", b"page", 60.0)]
    cache.write_records([("u\0M", b"mark", 60.0)])
    run(cache.aread_records(["u\0M"]))
    before = proxy.questions
    assert run(cache.aadd_and_read(*lease, ["u\0G", "u\0M"])) == (True, [None, b"mark"])
    assert run(cache.acommit_records(page, ["u\0M"], ["u\0L"])) == ([], [b"mark"])
    assert proxy.questions - before == 2
    assert cache.read_records(["u\0G", "u\0L"]) == [b"page", None]
    if make is PyMemcacheCache:  # libmemcached's calls are a round trip each
        before = proxy.questions
        assert cache.add_and_read(*lease, ["u\0G", "u\0M"]) == (True, [b"page", b"mark"])
        assert cache.commit_records([("u\0G", b"new", 60.0)], ["u\0M"], ["u\0L"]) == ([], [b"mark"])
        assert proxy.questions - before == 2
        assert cache.read_records(["u\0G", "u\0L"]) == [b"new", None]
    run(cache.aclose())
    cache.close()


def test_a_page_over_the_limit_is_not_committed_and_takes_the_old_one_with_it(
    make: Make, server: Server, run: Run
) -> None:
    cache = opened(make, server.address)
    big = b"x" * (1024 * 1024)
    for commit in (cache.commit_records, lambda *args: run(cache.acommit_records(*args))):
        cache.write_records([("u\0G", b"old", 60.0), ("u\0L", b"lease", 60.0)])
        assert commit([("u\0G", big, 60.0), ("u\0V", b"x", 60.0)], ["u\0M"], ["u\0L"]) == (["u\0G"], [None])
        assert cache.read_records(["u\0G", "u\0V", "u\0L"]) == [None, b"x", None]
    run(cache.aclose())
    cache.close()


def test_a_page_of_many_pieces_comes_back_whole(make: Make, server: Server, run: Run) -> None:
    cache = opened(make, server.address, OPTIONS={"timeout": 5})
    body = os.urandom(1_000_000)
    cache.write_records([("u\0G", body, 60.0), ("u\0V", b"END\r\n", 60.0)])
    assert cache.read_records(["u\0V", "u\0G"]) == [b"END\r\n", body]
    assert run(cache.aread_records(["u\0G", "u\0V"])) == [body, b"END\r\n"]
    assert cache.read_records(["u\0G" + "g" * 2_000]) == [None]  # a key that is not remembered
    run(cache.aclose())
    cache.close()


def test_nobody_is_asked_for_nothing(make: Make, server: Server, run: Run) -> None:
    cache = opened(make, server.address)
    assert cache.read_records([]) == run(cache.aread_records([])) == []
    assert cache.commit_records([], [], []) == run(cache.acommit_records([], [], [])) == ([], [])
    assert cache.get_many([]) == {}
    assert cache.set_many({}) == []
    cache.delete_many([])
    assert cache.get("absent") is run(cache.aget("absent")) is None  # the server has not been taken for a bad one
    run(cache.aclose())
    cache.close()


def test_a_hit_is_one_get_on_a_connection_that_stays(make: Make, server: Server, run: Run) -> None:
    cache = opened(make, server.address)
    cache.write_records([("page", b"body", 60)])
    run(cache.aread_records(["page"]))
    cache.read_records(["page"])
    before = memcached_stats(server)
    for _ in range(10):
        assert cache.read_records(["page"]) == run(cache.aread_records(["page"])) == [b"body"]
    after = memcached_stats(server)
    assert int(after["cmd_get"]) - int(before["cmd_get"]) == 20
    assert int(after["cmd_set"]) == int(before["cmd_set"])
    assert int(after["total_connections"]) - int(before["total_connections"]) == 1  # of `stats`
    run(cache.aclose())
    cache.close()


# -- what is memcached's own ----------------------------------------------------------------------------------------


def test_a_value_over_the_limit_is_reported_and_takes_the_old_one_with_it(make: Make, server: Server, run: Run) -> None:
    cache = opened(make, server.address)
    big = b"x" * (1024 * 1024)
    data = {"before": "1", "big": big, "after": "2"}
    for set_many, add in (
        (cache.set_many, cache.add),
        (lambda d: run(cache.aset_many(d)), lambda *a: run(cache.aadd(*a))),
    ):
        cache.set_many({"before": "0", "big": "0", "after": "0"})
        assert set_many(data) == ["big"]
        assert cache.get_many(data) == {"before": "1", "after": "2"}
        assert add("big", big) is False
        assert cache.get("big") is None
    cache.set("big", "small")
    cache.set("big", big)
    assert cache.get("big") is None
    cache.set("big", "small")
    run(cache.aset("big", big))
    assert cache.get("big") is None
    assert cache.write_records([("big page", big, 60), ("page", b"x", 60)]) == ["big page"]
    run(cache.aclose())
    cache.close()


def test_a_server_out_of_memory_loses_no_more_than_the_values_it_refused(make: Make, run: Run) -> None:
    with start_memcached("-M", "-m", "2") as server:  # errors instead of evictions
        cache = opened(make, server.address, SERIALIZER="json", TIMEOUT=None)
        data = {f"key{i}": "x" * 20_000 for i in range(400)}
        cache.set_many(dict.fromkeys(data, "old"))
        for set_many in (cache.set_many, lambda d: run(cache.aset_many(d))):
            failed = set_many(data)
            assert 0 < len(failed) < len(data)
            found = cache.get_many(data)
            assert set(found) == set(data) - set(failed)
            assert set(found.values()) == {"x" * 20_000}
            cache.clear()
        run(cache.aclose())
        cache.close()


def test_more_entries_than_fit_into_the_sockets_buffers_are_set_and_deleted(make: Make, server: Server) -> None:
    cache = opened(make, server.address)
    data = {f"{'k' * 150}{i}": "v" * 50 for i in range(15_000)}
    assert cache.set_many(data) == []
    assert len(cache.get_many(data)) == 15_000
    cache.delete_many(data)
    assert cache.get_many(data) == {}
    cache.close()


def test_many_large_values_are_not_sent_at_once(make: Make, proxy: CountingProxy, run: Run) -> None:
    cache = opened(make, proxy.address)
    data = {f"key{i}": b"x" * 300_000 for i in range(6)}
    for set_many in (cache.set_many, lambda data: run(cache.aset_many(data))):
        before = proxy.questions
        assert set_many(data) == []
        assert proxy.questions - before == 2
        assert cache.get_many(data) == data
        cache.clear()
    run(cache.aclose())
    cache.close()


def test_nothing_that_another_wrote_is_unpickled(make: Make, server: Server, run: Run) -> None:
    cache = opened(make, server.address, SERIALIZER="json")
    evil = pickle.dumps(pytest.fail)
    for flags in (1, 2, 4, 8, 16, 17, 2**32 - 1):
        memcached_command(server, b"set :1:a %d 0 %d\r\n%b" % (flags, len(evil), evil))
        assert cache.get("a", "default") == "default"
        assert cache.get_many(["a", "b"]) == {}
        assert run(cache.aget("a", "default")) == "default"
    run(cache.aclose())
    cache.close()


def test_numbers_of_another_program_do_not_become_ours(make: Make, server: Server) -> None:
    cache = opened(make, server.address, SERIALIZER="json")
    memcached_command(server, b"set :1:n 4 0 2\r\n-5")
    with pytest.raises(TypeError):
        cache.incr("n")
    memcached_command(server, b"set :1:n 2 0 1\r\n5")
    assert cache.get("n") == 5  # json's
    cache.close()


@pytest.mark.parametrize("timeout", [0.01, 0.5])
def test_a_timeout_below_a_second_is_not_for_ever(make: Make, server: Server, run: Run, timeout: float) -> None:
    cache = opened(make, server.address, SERIALIZER="json")
    cache.set("a", 1, timeout)
    run(cache.aset("b", 1, timeout))
    for key in (b":1:a", b":1:b"):
        assert memcached_command(server, b"mg %b t" % key) in (b"HD t1\r\n", b"HD t0\r\n", b"EN\r\n")
    run(cache.aclose())
    cache.close()


def test_another_version_keeps_the_time_it_has_left(make: Make, server: Server, run: Run) -> None:
    cache = opened(make, server.address)
    for key, timeout in (("short", 50), ("endless", None), ("long", 40 * 86400)):
        cache.set(key, 1, timeout)
        cache.incr_version(key)
        run(cache.aincr_version(key, version=2))
    assert memcached_command(server, b"mg :3:endless t") == b"HD t-1\r\n"
    assert memcached_command(server, b"mg :3:short t") in (b"HD t49\r\n", b"HD t50\r\n")
    assert memcached_command(server, b"mg :3:long t")[:5] in (b"HD t3",)
    run(cache.aclose())
    cache.close()


# -- keys -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("key", ["k" * 248, "a b", "a\n", "a\x00", "\x7f", "é" * 124, "\ud800"])
def test_a_key_that_memcached_refuses_never_reaches_it(make: Make, run: Run, key: str) -> None:
    cache = make(f"127.0.0.1:{free_port()}", {})  # nobody is there: a call would be BackendUnavailable
    calls: list[Callable[[], Any]] = [
        lambda: cache.get(key),
        lambda: cache.set(key, 1),
        lambda: cache.add(key, 1),
        lambda: cache.touch(key),
        lambda: cache.delete(key),
        lambda: cache.incr(key),
        lambda: cache.decr(key),
        lambda: cache.has_key(key),
        lambda: cache.get_many(["fine", key]),
        lambda: cache.set_many({"fine": 1, key: 1}),
        lambda: cache.delete_many(["fine", key]),
        lambda: run(cache.aget(key)),
        lambda: run(cache.aset_many({"fine": 1, key: 1})),
    ]
    for call in calls:
        with pytest.raises(InvalidCacheKey):
            call()


def test_keys_up_to_the_limit_and_in_any_script_work(make: Make, server: Server, run: Run) -> None:
    cache = opened(make, server.address)
    for key in ("k" * 247, "é" * 123, "日本", "a\u2028b", "a\u00a0b"):
        cache.set(key, key)
        assert cache.get(key) == run(cache.aget(key)) == key
    run(cache.aclose())
    cache.close()


def test_unicode_keys_can_be_forbidden() -> None:
    cache = PyMemcacheCache("localhost", {"OPTIONS": {"allow_unicode_keys": "no"}})
    for ask in (lambda: cache.get("é"), lambda: cache.get_many(["e", "é"]), lambda: cache.set_many({"e": 1, "é": 2})):
        with pytest.raises(InvalidCacheKey, match="allow_unicode_keys"):
            ask()


def test_a_subclass_has_the_last_word_on_keys() -> None:
    class Picky(PyMemcacheCache):
        def validate_key(self, key: str) -> None:
            super().validate_key(key)
            if key.endswith("short"):
                raise InvalidCacheKey("as its author wants it")

    cache = Picky("localhost")
    for ask in (lambda: cache.get("short"), lambda: cache.get_many(["other", "short"])):
        with pytest.raises(InvalidCacheKey, match="as its author"):
            ask()


def test_a_prefix_that_leaves_no_room_is_refused_at_once(make: Make) -> None:
    for prefix in ("p" * 190, "é" * 100, "a b"):
        with pytest.raises(ImproperlyConfigured, match="KEY_PREFIX"):
            make("localhost", {"KEY_PREFIX": prefix})


# -- options --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("options", "match"),
    [
        ({"timeout": 0}, "timeout"),
        ({"socket_timeout": "soon"}, "timeout"),
        ({"socket_timeout": 1e20}, "timeout"),
        ({"connect_timeout": "1e20"}, "connect_timeout"),
        ({"connect_timeout": -1}, "connect_timeout"),
        ({"max_pool_size": "many"}, "max_pool_size"),
        ({"no_such": 1}, "no_such"),
    ],
)
def test_a_wrong_option_is_named(make: Make, options: dict[str, Any], match: str) -> None:
    with pytest.raises(ImproperlyConfigured, match=match):
        make("localhost", {"OPTIONS": options})


@pytest.mark.parametrize(
    ("make_one", "options", "match"),
    [
        (PyMemcacheCache, {"default_noreply": True}, "default_noreply"),
        (PyMemcacheCache, {"behaviors": {}}, "behaviors"),
        (PyMemcacheCache, {"no_delay": "perhaps"}, "no_delay"),
        (PyLibMCCache, {"behaviors": {"no_such": 1}}, "no_such"),
        (PyLibMCCache, {"behaviors": "ketama"}, "behaviors"),
        (PyLibMCCache, {"behaviors": {"verify_keys": True}, "binary": True}, "verify_keys"),
        (PyLibMCCache, {"username": "user", "password": "secret"}, "SASL requires"),
        (PyLibMCCache, {"tls_context": None}, "tls_context"),
    ],
)
def test_a_wrong_option_of_one_client_is_named(make_one: Make, options: dict[str, Any], match: str) -> None:
    with pytest.raises(ImproperlyConfigured, match=match) as caught:
        make_one("localhost", {"OPTIONS": options})
    assert "secret" not in str(caught.value)


def test_djangos_options_work(server: Server) -> None:
    cache = opened(
        PyMemcacheCache, server.address, OPTIONS={"no_delay": True, "default_noreply": False, "use_pooling": True}
    )
    cache.set("a", 1)
    assert cache.get("a") == 1
    cache.close()
    for binary in (False, True):
        behaviors = {"ketama": True, "tcp_nodelay": True}
        cache = opened(PyLibMCCache, server.address, OPTIONS={"binary": binary, "behaviors": behaviors})
        cache.set("b", 2)
        assert cache.get_many(["a", "b"]) == {"a": 1, "b": 2}
        assert cache.incr("b") == 3
        cache.close()


def test_pymemcaches_ignore_exc_is_fail_open() -> None:
    nobody = f"127.0.0.1:{free_port()}"
    cache = opened(PyMemcacheCache, nobody, OPTIONS={"ignore_exc": True, "max_pool_size": 4, "use_pooling": True})
    assert cache.get("key", "nothing") == "nothing"
    assert cache.get_many(["key"]) == {}
    for options in ({"ignore_exc": False}, {"ignore_exc": True, "fail_open": False}):
        with pytest.raises(BackendUnavailable):
            opened(PyMemcacheCache, nobody, OPTIONS=options).get("key")


def test_without_pylibmc_its_cache_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(__import__("sys").modules, "cachemw.backends._memcached.pylibmc", None)
    with pytest.raises(ImproperlyConfigured, match=r"pip install 'cachemw\[pylibmc\]'"):
        PyLibMCCache("localhost", {})


@pytest.mark.parametrize(("make_one", "most"), [(PyMemcacheCache, 2), (PyLibMCCache, 2 + 2)])  # it has two kinds
def test_idle_connections_are_kept_up_to_a_number(make_one: Make, most: int, server: Server) -> None:
    cache = opened(make_one, server.address, OPTIONS={"max_pool_size": 2})
    before = int(memcached_stats(server)["curr_connections"])
    barrier = threading.Barrier(8)

    def work() -> None:
        barrier.wait(30)
        for _ in range(50):
            cache.set("a", 1)

    threads = [threading.Thread(target=work) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert int(memcached_stats(server)["curr_connections"]) - before <= most
    cache.close()


# -- sockets, TLS, SASL -----------------------------------------------------------------------------------------------


def test_unix_sockets(make: Make, tmp_path: Path, run: Run) -> None:
    path = tmp_path / "memcached.sock"
    port = free_port()
    argv = [require("memcached"), "-s", str(path), "-u", "root"]  # it listens to nothing else then
    with start(argv, port=port, ready=lambda _: accepts(str(path))):
        cache = opened(make, f"unix:{path}")
        cache.set("a", 1)
        assert cache.incr("a") == 2
        assert run(cache.aget("a")) == 2
        run(cache.aclose())
        cache.close()


@pytest.fixture(scope="module")
def certificate(tmp_path_factory: pytest.TempPathFactory) -> Path:
    directory = tmp_path_factory.mktemp("tls")
    subprocess.run(
        ["openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "2", "-subj", "/CN=localhost",
         "-addext", "subjectAltName=DNS:localhost,IP:127.0.0.1",
         "-keyout", directory / "key.pem", "-out", directory / "cert.pem"],
        check=True, capture_output=True,
    )  # fmt: skip
    return directory


def test_what_libmemcached_does_not_find_is_said_where_nothing_else_could_ask_it() -> None:
    login = {"binary": True, "username": "user", "password": "secret"}
    with pytest.raises(ImproperlyConfigured, match=r"LOCATION is '::1:11211'; allowed: .*IPv4") as caught:
        PyLibMCCache(["127.0.0.1", "[::1]"], {"OPTIONS": login})
    assert "secret" not in str(caught.value)
    PyLibMCCache(["localhost", "127.0.0.1", "/run/memcached.sock"], {"OPTIONS": login})


def test_ipv6(make: Make, run: Run) -> None:
    host, port = require_ipv6(), free_port()
    argv = [require("memcached"), "-l", host, "-p", str(port), "-U", "0", "-u", "root"]
    with start(argv, port=port, ready=lambda one: answers_at(host, port)):
        cache = opened(make, f"[{host}]:{port}")
        cache.set("a", 1)
        assert cache.incr("a") == run(cache.aincr("a")) - 1 == 2
        assert cache.get("a") == run(cache.aget("a")) == 3
        run(cache.aclose())
        cache.close()


def answers_at(host: str, port: int) -> bool:
    try:
        socket.create_connection((host, port), 1).close()
    except OSError:
        return False
    return True


def test_each_address_of_a_name_is_tried(make: Make, server: Server, run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    """As on Debian, where "localhost" is ::1 first, and memcached listens on 127.0.0.1 alone."""
    resolve = socket.getaddrinfo

    def both(host: Any, *args: Any, **kwargs: Any) -> list[Any]:
        hosts = ("::1", "127.0.0.1") if host == "localhost" else (host,)
        return [found for one in hosts for found in resolve(one, *args, **kwargs)]

    monkeypatch.setattr(socket, "getaddrinfo", both)
    cache = opened(make, f"localhost:{server.port}")
    cache.set_many({"a": 1, "b": 2})
    assert cache.get_many(["a", "b"]) == run(cache.aget_many(["a", "b"])) == {"a": 1, "b": 2}
    nowhere = opened(make, f"localhost:{free_port()}")
    with pytest.raises(BackendUnavailable, match="refused"):
        nowhere.get_many(["a", "b"])
    monkeypatch.setattr("cachemw.backends._memcached.clients.monotonic", itertools.count(step=10).__next__)
    late = opened(make, f"localhost:{server.port}")
    with pytest.raises(BackendUnavailable, match="refused"):  # the first has taken all the time
        late.get_many(["a", "b"])
    run(cache.aclose())
    cache.close()


@pytest.fixture
def guarded(certificate: Path) -> Iterator[Server]:
    options = f"ssl_chain_cert={certificate}/cert.pem,ssl_key={certificate}/key.pem"
    port = free_port()
    argv = [require("memcached"), "-l", "127.0.0.1", "-p", str(port), "-U", "0", "-u", "root", "-Z", "-o", options]
    with start(argv, port=port, ready=lambda one: accepts((one.host, one.port))) as server:
        yield server


def trusting(certificate: Path) -> ssl.SSLContext:
    context = ssl.create_default_context(cafile=certificate / "cert.pem")
    context.check_hostname = False
    return context


def test_tls(guarded: Server, certificate: Path, run: Run) -> None:
    cache = opened(PyMemcacheCache, guarded.address, OPTIONS={"tls_context": trusting(certificate)})
    for number in range(3):
        cache.set("a", [number])
        assert run(cache.aget("a")) == cache.get("a") == [number]
    run(cache.aclose())
    cache.close()
    stranger = opened(PyMemcacheCache, guarded.address, OPTIONS={"tls_context": ssl.create_default_context()})
    with pytest.raises(BackendUnavailable, match="CERTIFICATE_VERIFY_FAILED"):
        stranger.get("a")


def test_tls_carries_what_is_larger_than_its_records(guarded: Server, certificate: Path, run: Run) -> None:
    async def together(*calls: Coroutine[Any, Any, Any]) -> list[Any]:
        return await asyncio.gather(*calls)

    cache = opened(PyMemcacheCache, guarded.address, OPTIONS={"tls_context": trusting(certificate)})
    for size in (100, 16_000, 16_384, 20_000, 50_000):
        page = b"x" * size
        pages = [("url", page, 60.0), ("url\0a", page, 60.0)]
        assert cache.commit_records(pages, ["url"], ["url\0b"]) == ([], [page])
        assert cache.add_and_read(f"{size}", page, 60.0, ["url"]) == (True, [page])
        assert run(cache.acommit_records(pages, ["url\0a", "url"], ["url"])) == ([], [page, page])
        assert run(cache.aadd_and_read(f"{size}\0a", page, 60.0, ["url"])) == (True, [None])
    data = {f"k{number}": "x" * number * 50 for number in range(600)}
    for _ in range(2):
        assert cache.set_many(data) == []
        assert cache.get_many(data) == data
        cache.delete_many(data)
        assert run(cache.aset_many(data)) == []
        assert run(together(*(cache.aset(key, value) for key, value in data.items()))) == [None] * 600
        assert run(cache.aget_many(data)) == data
        run(cache.adelete_many(data))
        assert cache.get_many(data) == {}
    run(cache.aclose())
    cache.close()
