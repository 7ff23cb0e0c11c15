"""The database store when the server, the file or the network does not behave."""

from __future__ import annotations

import asyncio
import gc
import os
import resource
import signal
import socket
import sqlite3
import subprocess
import sys
import threading
import time
import warnings
from collections.abc import Callable, Iterator
from concurrent.futures import Future
from contextlib import closing, contextmanager
from dataclasses import dataclass
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from sqlalchemy import event

from cachemw.backends import _dialling
from cachemw.backends._db import connections as db_connections
from cachemw.backends._db import engines as db_engines
from cachemw.backends._db import server as db_server
from cachemw.backends._db.calls import Call
from cachemw.backends._db.connections import Connections
from cachemw.backends._db.server import ServerStore
from cachemw.backends._db.sqlite import SQLiteStore
from cachemw.backends._dialling import within
from cachemw.backends.db import DatabaseCache
from cachemw.errors import BackendUnavailable, ImproperlyConfigured
from cachemw.testing._concurrency import in_threads
from tests.backends.file_store import in_child
from tests.servers import (
    Server,
    free_port,
    mariadb_url,
    postgresql_url,
    start_mariadb,
    start_postgresql,
    until,
)

# SQLite


@pytest.fixture
def path(tmp_path: Path) -> Path:
    for directory in (tmp_path, *tmp_path.parents):  # an unprivileged process of these tests has to come this far
        if directory.owner() == Path.home().owner() and directory != Path("/"):
            directory.chmod(directory.stat().st_mode | 0o011)
    (tmp_path / "db").mkdir()
    return tmp_path / "db" / "cache.sqlite3"


@pytest.fixture
def lite(path: Path) -> Iterator[DatabaseCache]:
    cache = DatabaseCache(f"sqlite:///{path}", {"OPTIONS": {"deadline": 0.1}})
    yield cache
    cache.close()


def test_a_locked_file_is_backend_unavailable_in_time_and_readers_go_on(lite: DatabaseCache, path: Path) -> None:
    lite.set_many({"key": "value", "count": 1})
    with closing(sqlite3.connect(path, isolation_level=None)) as other:
        other.execute("BEGIN IMMEDIATE")
        assert lite.get("key") == "value"
        assert asyncio.run(lite.aget("key")) == "value"
        for operation in (
            lambda: lite.set("key", 1),
            lambda: lite.set_many({"a": 1, "b": 2}),
            lambda: lite.add("new", 1),
            lambda: lite.incr("count"),
            lambda: lite.delete("key"),
            lambda: lite.clear(),
            lambda: asyncio.run(lite.aset("key", 1)),
        ):
            began = time.monotonic()
            with pytest.raises(BackendUnavailable, match="locked"):
                operation()
            assert time.monotonic() - began < 1
        other.execute("ROLLBACK")
    assert lite.incr("count") == 2


def test_a_lock_is_waited_for(path: Path) -> None:
    cache = DatabaseCache(f"sqlite:///{path}", {"OPTIONS": {"deadline": 30}})
    cache.set("count", 1)
    done: list[int] = []
    with closing(sqlite3.connect(path, isolation_level=None)) as other:
        other.execute("BEGIN IMMEDIATE")
        thread = threading.Thread(target=lambda: done.append(cache.incr("count")))
        thread.start()
        thread.join(0.05)
        assert done == []
        other.execute("ROLLBACK")
    thread.join(30)
    assert done == [2]
    cache.close()


@pytest.mark.parametrize("damage", ["garbage", "cut", "text"])
def test_a_corrupt_file_is_backend_unavailable_until_it_is_gone(lite: DatabaseCache, path: Path, damage: str) -> None:
    lite.set_many({f"key{number}": "value" * 1000 for number in range(50)})
    lite.close()
    data = path.read_bytes()
    changed = {"garbage": os.urandom(50_000), "cut": data[:5000], "text": b"not a database" * 100}[damage]
    path.write_bytes(changed)
    for operation in (lambda: lite.get_many([f"key{n}" for n in range(50)]), lambda: lite.set("new", 1)):
        with pytest.raises(BackendUnavailable, match=str(path)):
            operation()
    for file in path.parent.iterdir():
        file.unlink()
    lite.set("key", "new")
    assert lite.get("key") == "new"


def test_a_file_that_is_removed_or_replaced_while_in_use_is_opened_again(
    lite: DatabaseCache, path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(db_connections, "_LOOK_AGAIN", 0)
    lite.set("key", "old")
    for file in path.parent.iterdir():
        file.unlink()
    assert lite.get("key") is None
    lite.set("key", "new")
    assert lite.get("key") == "new"
    with closing(DatabaseCache(f"sqlite:///{path}", {})) as other:
        assert other.get("key") == "new"


def test_a_directory_that_is_missing_at_first_may_come(lite: DatabaseCache, path: Path) -> None:
    path.parent.rmdir()
    for operation in (lambda: lite.get("key"), lambda: lite.set("key", 1), lite.clear):
        with pytest.raises(BackendUnavailable, match="unable to open"):
            operation()
    path.parent.mkdir()
    lite.set("key", 1)
    assert lite.get("key") == 1


def test_lost_permission_is_backend_unavailable(lite: DatabaseCache, path: Path) -> None:
    lite.set("key", 1)
    lite.close()

    def use() -> None:
        for operation in (lambda: lite.get("key"), lambda: lite.set("key", 2)):
            with pytest.raises(BackendUnavailable):
                operation()

    in_child(use, user="nobody")
    assert lite.get("key") == 1


def test_a_full_disk_is_backend_unavailable(lite: DatabaseCache) -> None:
    lite.set("key", "old")
    lite.close()

    def use() -> None:
        resource.setrlimit(resource.RLIMIT_FSIZE, (200_000, 200_000))
        with pytest.raises(BackendUnavailable):
            lite.set("key", os.urandom(500_000))
        assert lite.get("key") == "old"
        lite.set("small", 1)
        assert lite.get("small") == 1

    in_child(use)


def test_a_value_that_sqlite_does_not_take_is_named_and_gone(
    lite: DatabaseCache, monkeypatch: pytest.MonkeyPatch
) -> None:
    lite.set_many({"key": "old", "other": "stays"})
    lite.close()
    connect = sqlite3.connect

    def limited(*args: Any, **kwargs: Any) -> sqlite3.Connection:
        connection: sqlite3.Connection = connect(*args, **kwargs)
        connection.setlimit(sqlite3.SQLITE_LIMIT_LENGTH, 10_000)
        return connection

    monkeypatch.setattr(sqlite3, "connect", limited)
    assert lite.set_many({"fits": 1}) == []
    assert lite.set_many({"key": b"x" * 20_000}) == ["key"]
    assert lite.get_many(["key", "other", "fits"]) == {"other": "stays", "fits": 1}


WRITER = """
import sys
from cachemw.backends.db import DatabaseCache
cache = DatabaseCache(sys.argv[1], {"OPTIONS": {"deadline": 10}})
print("ready", flush=True)
while True:
    for number in range(20):
        cache.set_many({f"key{number}": bytes([97 + number]) * 50_000, f"twin{number}": number}, None)
        cache.add("count", 0, None)
        cache.incr("count")
"""


def test_a_writer_killed_at_any_moment_leaves_a_whole_file(path: Path) -> None:
    cache = DatabaseCache(f"sqlite:///{path}", {"OPTIONS": {"deadline": 10}})

    def wait_for_counts(count: int) -> None:
        seen = cache.get("count", 0)
        until(lambda: cache.get("count", 0) >= seen + count, "the writer writes")

    for turn in range(4):
        with subprocess.Popen([sys.executable, "-c", WRITER, f"sqlite:///{path}"], stdout=subprocess.PIPE) as writer:
            assert writer.stdout is not None
            assert writer.stdout.readline() == b"ready\n"
            wait_for_counts(1 + 5 * turn)
            writer.send_signal(signal.SIGKILL)
        for number in range(20):
            found = cache.get_many([f"key{number}", f"twin{number}"])
            assert found in ({}, {f"key{number}": bytes([97 + number]) * 50_000, f"twin{number}": number})
        assert cache.incr("count") > 0
    cache.close()
    with closing(sqlite3.connect(path)) as connection:
        assert connection.execute("PRAGMA integrity_check").fetchone() == ("ok",)


_NOBODY_HAS_IT = """
import fcntl, sys
with open(sys.argv[1], "rb+") as file:
    try:
        fcntl.lockf(file, fcntl.LOCK_EX | fcntl.LOCK_NB, 510, 0x40000002)  # what SQLite's readers share
    except OSError:
        sys.exit(1)
"""


def is_free(path: Path) -> bool:
    """Has no process any lock on it?"""
    return subprocess.run([sys.executable, "-c", _NOBODY_HAS_IT, str(path)], timeout=30).returncode == 0


def test_a_connection_that_is_made_does_not_take_the_locks_of_another(lite: DatabaseCache, path: Path) -> None:
    """Without them, the next process to end takes the log away: "malformed", "disk I/O error"."""
    lite.set("key", "value")
    assert not is_free(path)
    others = [DatabaseCache(f"sqlite:///{path}", {}) for _ in range(2)]
    assert [other.get("key") for other in others] == ["value"] * 2
    assert not is_free(path)
    for cache in (lite, *others):
        cache.close()
    assert is_free(path)


def test_a_forked_process_has_locks_of_its_own(lite: DatabaseCache, path: Path) -> None:
    """SQLite counts its locks in memory, which a child has a copy of: it would believe to have its parent's."""
    lite.set("key", "value")
    opened, done = os.pipe(), os.pipe()

    def use() -> None:
        assert lite.get("key") == "value"
        os.write(opened[1], b"x")
        os.read(done[0], 1)

    child = threading.Thread(target=in_child, args=(use,))
    child.start()
    assert os.read(opened[0], 1)
    lite.close()
    free = is_free(path)
    os.write(done[1], b"x")
    child.join()
    for descriptor in (*opened, *done):
        os.close(descriptor)
    assert not free


@contextmanager
def in_use(cache: DatabaseCache, enough: Callable[[], bool]) -> Iterator[None]:
    """Another thread is in the middle of a write until it is enough."""
    begun = threading.Event()

    def work(connection: sqlite3.Connection) -> None:
        connection.execute("BEGIN IMMEDIATE")
        connection.execute("UPDATE cachemw SET number = 2 WHERE cache_key = ':1:key'")
        begun.set()
        until(enough, "it is enough")
        connection.execute("COMMIT")

    thread = threading.Thread(target=lambda: connections_of(cache).use(work))
    thread.start()
    assert begun.wait(30)
    yield
    thread.join(30)
    assert not thread.is_alive()


def test_a_fork_waits_for_calls_under_way_and_others_for_the_fork(lite: DatabaseCache, path: Path) -> None:
    """Else the child has the lock of a thread that it does not have, and writes without one of its own."""
    lite.set("key", 1)
    connections = connections_of(lite)
    idle = connections._idle
    found: list[Any] = []
    other = threading.Thread(target=lambda: found.append(lite.get("key")))

    def forking() -> bool:
        if connections._idle is idle:
            return False
        if other.ident is None:
            other.start()
        return True

    with in_use(lite, forking):
        in_child(lambda: lite.incr("key", 10))
    other.join(30)
    assert found in ([1], [2], [12])
    assert lite.get("key") == 12
    with closing(sqlite3.connect(path)) as connection:
        assert connection.execute("PRAGMA integrity_check").fetchall() == [("ok",)]


def test_a_process_forked_in_the_middle_of_a_call_leaves_the_file_alone(
    lite: DatabaseCache, path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(db_connections, "_FORK_PATIENCE", 0.01)
    lite.set("key", 1)
    forked = threading.Event()

    def refused() -> None:
        for cache in (lite, DatabaseCache(f"sqlite:///{path}", {})):
            with pytest.raises(BackendUnavailable, match="when this process was forked"):
                cache.get("key")
            with pytest.raises(BackendUnavailable, match="when this process was forked"):
                cache.set("key", 3)

    def use() -> None:
        refused()
        with closing(DatabaseCache(f"sqlite:///{path}.another", {})) as another:
            another.set("key", 1)
            in_child(lambda: another.incr("key"))  # where nobody was in the middle of anything
            assert another.get("key") == 2
        in_child(refused)

    with in_use(lite, forked.is_set):
        in_child(use)
        forked.set()
    assert lite.get("key") == 2


def test_a_file_is_opened_in_time_while_another_thread_forks(lite: DatabaseCache) -> None:
    held, done = threading.Event(), threading.Event()

    def hold() -> None:
        with db_connections._connecting:
            held.set()
            done.wait(30)

    thread = threading.Thread(target=hold)
    thread.start()
    assert held.wait(30)
    with pytest.raises(BackendUnavailable, match="or forks"):
        lite.get("key")
    done.set()
    thread.join(30)
    assert lite.get("key") is None


_COLD = """
import sys, threading
from cachemw.backends.db import DatabaseCache
cache = DatabaseCache(f"sqlite:///{sys.argv[1]}", {})
threads = [threading.Thread(target=lambda: [cache.incr("count") for _ in range(20)]) for _ in range(8)]
sys.stdin.readline()
cache.add("count", 0)
for thread in threads: thread.start()
for thread in threads: thread.join()
"""


def test_many_processes_and_threads_may_make_one_file(path: Path) -> None:
    command = [sys.executable, "-c", _COLD, str(path)]
    workers = [subprocess.Popen(command, stdin=subprocess.PIPE, stderr=subprocess.PIPE) for _ in range(4)]
    for worker in workers:
        assert worker.stdin is not None
        worker.stdin.write(b"go\n")
        worker.stdin.flush()
    assert [worker.communicate(timeout=60)[1] for worker in workers] == [b""] * 4
    with closing(DatabaseCache(f"sqlite:///{path}", {})) as cache:
        assert cache.get("count") == 4 * 8 * 20


def test_a_connection_that_broke_in_the_middle_is_not_used_again(lite: DatabaseCache) -> None:
    lite.set("key", 1)
    connections = connections_of(lite)
    with pytest.raises(KeyboardInterrupt):
        connections.use(_interrupt)
    assert connections._idle == []
    assert lite.get("key") == 1
    [connection] = connections._idle
    connection.ask = lambda *args: _interrupt(connection)  # type: ignore[assignment]
    with pytest.raises(KeyboardInterrupt):
        lite.get("key")
    assert connections._idle == []
    assert lite.incr("key") == 2


@pytest.mark.parametrize("operation", ["get", "set", "set_many"])
def test_a_connection_to_a_file_that_is_replaced_meanwhile_is_not_kept(
    lite: DatabaseCache, path: Path, monkeypatch: pytest.MonkeyPatch, operation: str
) -> None:
    monkeypatch.setattr(db_connections, "_LOOK_AGAIN", 0)
    lite.set("key", "old")
    connections = connections_of(lite)
    [connection] = connections._idle
    ask, execute = connection.ask, connection.execute

    def replace_and(do: Callable[..., Any]) -> Callable[..., Any]:
        def both(*args: Any) -> Any:
            for file in path.parent.iterdir():
                file.unlink()
            connection.ask, connection.execute = ask, execute  # type: ignore[method-assign]
            lite.set("key", "new")
            return do(*args)

        return both

    connection.ask, connection.execute = replace_and(ask), replace_and(execute)  # type: ignore[method-assign]
    works: dict[str, Callable[[], Any]] = {
        "get": lambda: lite.get("key"),
        "set": lambda: lite.set("key", "lost"),
        "set_many": lambda: lite.set_many({"key": "lost", "other": 1}),
    }
    works[operation]()
    assert connection not in connections._idle
    with pytest.raises(sqlite3.ProgrammingError, match="closed"):
        connection.execute("SELECT 1")
    assert lite.get("key") == "new"


def _interrupt(connection: sqlite3.Connection) -> None:
    connection.execute("BEGIN IMMEDIATE")
    raise KeyboardInterrupt


def test_a_failed_transaction_is_rolled_back(lite: DatabaseCache) -> None:
    lite.set("count", 1)
    row = {"key": b"a", "expires": None, "number": 1, "value": None}
    with pytest.raises(BackendUnavailable):
        lite._primary.run(Call("set", [row, {**row, "key": b"b", "value": object()}]))
    assert lite.get("count") == 1
    assert lite.incr("count") == 2
    assert lite.get("a") is None


def test_what_sqlite_rolled_back_by_itself_is_not_rolled_back_twice(lite: DatabaseCache, path: Path) -> None:
    lite.set("key", 1)
    with closing(sqlite3.connect(path, isolation_level=None)) as other:
        other.execute(
            "CREATE TRIGGER refuse BEFORE INSERT ON cachemw WHEN new.number = 13"
            " BEGIN SELECT RAISE(ROLLBACK, 'no'); END"
        )
    with pytest.raises(BackendUnavailable, match="no"):
        lite.set_many({"a": 1, "b": 13})
    assert lite.get_many(["a", "b", "key"]) == {"key": 1}


def test_a_forked_process_leaves_its_parents_connections_alone(lite: DatabaseCache) -> None:
    lite.set("key", 1)
    connections = connections_of(lite)
    [parents] = connections._idle
    connections._owner = -1  # as a child sees it
    lite.close()
    assert connections._idle == [parents]
    assert lite.get("key") == 1
    assert parents not in connections._idle
    assert parents.execute("SELECT 1").fetchone() == (1,)
    parents.close()


def connections_of(cache: DatabaseCache) -> Connections:
    store = cache._primary
    assert isinstance(store, SQLiteStore)
    return store.connections


def test_a_lock_is_waited_for_whatever_sqlite_calls_it(lite: DatabaseCache, path: Path) -> None:
    lite.set("key", 1)
    attempts: list[int] = []
    with closing(sqlite3.connect(path, isolation_level=None)) as other:

        def work(connection: sqlite3.Connection) -> str:
            attempts.append(len(attempts))
            connection.execute("BEGIN")
            try:
                connection.execute("SELECT * FROM cachemw").fetchall()
                if len(attempts) == 1:
                    other.execute("UPDATE cachemw SET number = 2")  # what was read is old: SQLITE_BUSY_SNAPSHOT
                connection.execute("UPDATE cachemw SET number = number + 1")
                connection.execute("COMMIT")
            except sqlite3.OperationalError:
                connection.execute("ROLLBACK")
                raise
            return "done"

        assert connections_of(lite).use(work) == "done"
    assert attempts == [0, 1]
    assert lite.get("key") == 3


def test_threads_open_connections_one_at_a_time(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    cache = DatabaseCache(f"sqlite:///{path}", {"OPTIONS": {"deadline": 30}})
    connections = connections_of(cache)
    connect, at_once, most = connections._connect, [0], [0]

    def counted() -> sqlite3.Connection:
        at_once[0] += 1
        most[0] = max(most[0], at_once[0])
        try:
            return connect()
        finally:
            at_once[0] -= 1

    monkeypatch.setattr(connections, "_connect", counted)
    assert in_threads(20, lambda number: cache.get("key")) == [None] * 20
    assert most == [1]
    cache.close()


def test_who_waits_to_open_a_connection_takes_one_that_is_given_back(path: Path) -> None:
    with closing(DatabaseCache(f"sqlite:///{path}", {"OPTIONS": {"deadline": 30}})) as cache:
        cache.set("key", 1)
        connections = connections_of(cache)
        [connection] = connections._idle
        found: list[Any] = []
        with connections._opening:
            connections._idle.clear()
            thread = threading.Thread(target=lambda: found.append(cache.get("key")))
            thread.start()
            thread.join(0.05)
            assert found == []
            connections._idle.append(connection)
        thread.join(30)
        assert found == [1]
        assert connections._idle == [connection]


def test_a_connection_that_another_thread_fails_to_open_is_not_waited_for_long(lite: DatabaseCache) -> None:
    connections = connections_of(lite)
    with connections._opening:
        began = time.monotonic()
        with pytest.raises(BackendUnavailable, match=r"no connection within 0\.2 s"):
            lite.get("key")
        assert time.monotonic() - began < 1
        connections._owner = -1  # as a child sees it that was forked meanwhile
        assert lite.get("key") is None


def test_a_connection_that_another_thread_takes_while_all_are_closed(lite: DatabaseCache) -> None:
    lite.set("key", 1)
    connections = connections_of(lite)
    [taken] = connections._idle

    class Raced(list[Any]):
        def pop(self, *args: Any) -> Any:
            self.clear()  # the other thread was quicker
            return super().pop(*args)

    connections._idle = Raced([taken])
    lite.close()
    assert taken.execute("SELECT 1").fetchone() == (1,)
    taken.close()


def test_who_does_not_want_to_wait_for_a_lock_keeps_the_connection(lite: DatabaseCache, path: Path) -> None:
    lite.set("key", 1)
    connections = connections_of(lite)
    [connection] = connections._idle
    with closing(sqlite3.connect(path, isolation_level=None)) as other:
        other.execute("BEGIN IMMEDIATE")
        with pytest.raises(db_connections.BusyError):
            connections.use(lambda it: it.execute("BEGIN IMMEDIATE"), patient=False)
    assert connections._idle == [connection]
    assert lite.incr("key") == 2


def test_a_missing_table_costs_no_connection(path: Path) -> None:
    with closing(DatabaseCache(f"sqlite:///{path}", {"OPTIONS": {"create": False}})) as cache:
        with pytest.raises(BackendUnavailable, match="createcachetable"):
            cache.get("key")
        [connection] = connections_of(cache)._idle
        with pytest.raises(BackendUnavailable, match="createcachetable"):
            asyncio.run(cache.aget("key"))
        assert connections_of(cache)._idle == [connection]


# Servers


@dataclass
class Kind:
    start: Callable[..., Server]
    url: Callable[[Server], str]


KINDS = {"postgresql": Kind(start_postgresql, postgresql_url), "mariadb": Kind(start_mariadb, mariadb_url)}


@pytest.fixture(params=KINDS, scope="module")
def kind(request: pytest.FixtureRequest) -> Kind:
    return KINDS[request.param]


@pytest.fixture(scope="module")
def server(kind: Kind) -> Iterator[Server]:
    """A server of this module's own: its tests stop, freeze and kill it, and start it again."""
    with kind.start() as server:
        yield server


Make = Callable[..., DatabaseCache]


@pytest.fixture
def make(kind: Kind, server: Server) -> Iterator[Make]:
    made: list[DatabaseCache] = []

    def make_one(**options: Any) -> DatabaseCache:
        defaults = {"table": "faults", "create": True, "deadline": 0.3}
        made.append(DatabaseCache(kind.url(server), {"OPTIONS": {**defaults, **options}}))
        return made[-1]

    patient = make_one(deadline=10)
    patient.clear()
    yield make_one
    for cache in made:
        cache.close()


@contextmanager
def frozen(server: Server) -> Iterator[None]:
    """The server and all its processes do nothing meanwhile."""
    server.pause()
    try:
        yield
    finally:
        server.resume()


OPERATIONS: dict[str, Callable[[DatabaseCache], Any]] = {
    "get": lambda cache: cache.get("key"),
    "get_many": lambda cache: cache.get_many(["key", "other"]),
    "has_key": lambda cache: cache.has_key("key"),
    "set": lambda cache: cache.set("key", 2),
    "add": lambda cache: cache.add("new", 2),
    "incr": lambda cache: cache.incr("key"),
    "touch": lambda cache: cache.touch("key"),
    "delete": lambda cache: cache.delete("key"),
    "read_records": lambda cache: cache.read_records(["page"]),
}


def test_a_server_that_is_absent_at_first_may_come(kind: Kind, server: Server, make: Make) -> None:
    server.kill()
    cache = make()
    try:
        for operation in OPERATIONS.values():
            with pytest.raises(BackendUnavailable, match="does not work"):
                operation(cache)
        with pytest.raises(BackendUnavailable, match="does not work"):
            cache.has_table()
        with pytest.raises(BackendUnavailable, match="does not work"):
            cache.create_table()
    finally:
        server.start()
    patiently(lambda: cache.set("key", 1))
    assert cache.get("key") == 1


def patiently(action: Callable[[], Any]) -> None:
    """Until it works: a server that was just started may still refuse a connection or two."""

    def works() -> bool:
        try:
            action()
        except BackendUnavailable:
            return False
        return True

    until(works, "the server works again")


def test_a_server_that_is_killed_and_comes_back_works_again(server: Server, make: Make) -> None:
    cache = make()
    cache.set("key", 1)
    server.kill()
    try:
        for _ in range(3):
            began = time.monotonic()
            with pytest.raises(BackendUnavailable):
                cache.get("key")
            assert time.monotonic() - began < 1
    finally:
        server.start()
    patiently(lambda: cache.set("key", 2))
    assert cache.get("key") == 2


def test_a_frozen_server_is_given_up_in_time(server: Server, make: Make) -> None:
    cache, cold = make(), make()
    cache.set_many({"key": 1, "other": 1})
    with frozen(server):
        for name, operation in OPERATIONS.items():
            began = time.monotonic()
            with pytest.raises(BackendUnavailable):
                operation(cache)
            assert time.monotonic() - began < 1.2, name
        began = time.monotonic()
        with pytest.raises(BackendUnavailable):
            cold.get("key")
        assert time.monotonic() - began < 1.2
        for thread in threading.enumerate():
            if thread.name == "cachemw-connect":  # an outage of hours must not cost a thread and a socket each second
                thread.join(10)
                assert not thread.is_alive()
    patiently(lambda: cache.set("key", 7))
    for _ in range(20):
        assert cache.get_many(["key", "other"]) == {"key": 7, "other": 1}


def test_a_frozen_server_is_given_up_in_time_on_an_event_loop(server: Server, make: Make) -> None:
    async def main() -> None:
        cache = make()
        await cache.aset_many({"key": 1, "other": 1})
        with frozen(server):
            began = time.monotonic()
            results = await asyncio.gather(*(cache.aget("key") for _ in range(5)), return_exceptions=True)
            results += await asyncio.gather(*(cache.aincr("key") for _ in range(3)), return_exceptions=True)
            assert {type(result) for result in results} == {BackendUnavailable}
            assert time.monotonic() - began < 3
        for _ in range(100):
            try:
                await cache.aset("key", 7)
                break
            except BackendUnavailable:
                continue
        found = await asyncio.gather(*(cache.aget_many(["key", "other"]) for _ in range(20)))
        assert found == [{"key": 7, "other": 1}] * 20
        await cache.aclose()

    asyncio.run(main())


def test_a_cancelled_task_leaves_no_reply_to_the_next(make: Make) -> None:
    async def main() -> None:
        cache = make(deadline=5, pool_size=3)
        await cache.aset_many({f"key{number}": number for number in range(10)})
        for turn in range(60):
            tasks = [asyncio.create_task(cache.aget(f"key{number}")) for number in range(6)]
            await asyncio.sleep(0.0002 * (turn % 12))
            for task in tasks[::2]:
                task.cancel()
            results = await asyncio.gather(*tasks, return_exceptions=True)
            for number, result in enumerate(results):
                assert result == number or isinstance(result, asyncio.CancelledError), (number, result)
        assert [await cache.aget(f"key{number}") for number in range(10)] == list(range(10))
        await cache.aclose()

    asyncio.run(main())


def test_a_statement_that_waits_too_long_is_given_up(kind: Kind, make: Make) -> None:
    cache, other = make(), make(deadline=30)
    cache.set("key", 1)
    store = other._primary
    assert isinstance(store, ServerStore)
    with store._engines[0].connect() as connection:
        lock = connection.execution_options(isolation_level="READ COMMITTED")
        lock.execute(store._statements.clear)  # holds the rows until it is rolled back
        try:
            began = time.monotonic()
            with pytest.raises(BackendUnavailable):
                cache.incr("key")
            with pytest.raises(BackendUnavailable):
                asyncio.run(_and_close(cache, cache.aincr("key")))
            assert time.monotonic() - began < 2
            assert cache.get("key") == 1
        finally:
            lock.rollback()
    if kind is KINDS["postgresql"]:
        assert cache.incr("key") == 2, "the server was asked to stop"
    else:
        assert cache.incr("key") in (2, 3, 4), "what was given up may still have been done"


async def _and_close(cache: DatabaseCache, work: Any) -> Any:
    try:
        return await work
    finally:
        await cache.aclose()


def test_more_threads_than_connections_share_them(make: Make) -> None:
    cache = make(deadline=10, pool_size=2)
    cache.set("count", 0)
    threads = [threading.Thread(target=lambda: [cache.incr("count") for _ in range(20)]) for _ in range(12)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    assert cache.get("count") == 240


def test_a_crowd_opens_connections_one_after_the_other(make: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    at_once, opened = [0], [0]

    def counted(seconds: float, connect: Callable[[], Any], end: Callable[[Any], object]) -> Any:
        at_once[0] += 1
        opened.append(at_once[0])
        try:
            return within(seconds, connect, end)
        finally:
            at_once[0] -= 1

    monkeypatch.setattr(db_engines, "within", counted)
    cache = make(deadline=10)
    assert in_threads(50, lambda number: cache.get("nothing")) == [None] * 50
    assert max(opened) == 1
    assert len(opened) <= 11


def test_a_connection_that_another_thread_cannot_make_is_not_waited_for_long(make: Make) -> None:
    cache = make()
    store = cache._primary
    assert isinstance(store, ServerStore)
    with store._maker.opening:
        began = time.monotonic()
        with pytest.raises(BackendUnavailable, match="others are being made"):
            cache.get("key")
        assert time.monotonic() - began < 2
        store._maker.owner = -1  # as a child sees it that was forked meanwhile
        assert cache.get("key") is None


def test_a_crowd_before_a_frozen_server_gives_up_together(server: Server, make: Make) -> None:
    cache = make(pool_size=2)
    cache.set("key", 1)

    def ask(number: int) -> float:
        began = time.monotonic()
        with pytest.raises(BackendUnavailable):
            cache.get("key")
        return time.monotonic() - began

    async def ask_all() -> list[Any]:
        found = await asyncio.gather(*(cache.aget("key") for _ in range(20)), return_exceptions=True)
        await cache.aclose()
        return found

    with frozen(server):
        assert max(in_threads(20, ask)) < 1.2, "not one after the other"
        began = time.monotonic()
        assert {type(error) for error in asyncio.run(ask_all())} == {BackendUnavailable}
        assert time.monotonic() - began < 3


def test_a_server_with_too_many_clients_is_backend_unavailable(kind: Kind) -> None:
    options = ["-c", "max_connections=4", "-c", "superuser_reserved_connections=0"]
    if kind is KINDS["mariadb"]:
        options = ["--max-connections=10"]  # its least
    with kind.start(*options) as server:
        caches = [DatabaseCache(kind.url(server), {"OPTIONS": {"create": True, "deadline": 5}}) for _ in range(12)]
        refusals: list[str] = []
        for cache in caches:
            try:
                cache.set("key", 1)
            except BackendUnavailable as error:
                refusals.append(str(error).lower())
        assert 1 <= len(refusals) <= 9
        assert all("too many" in refusal for refusal in refusals)
        for cache in caches:
            cache.close()
        patiently(lambda: caches[-1].set("key", 2))
        caches[-1].close()


@pytest.mark.parametrize("reply", [b"", b"\x00", b"garbage" * 1000, b"\xff" * 300], ids=["none", "nul", "text", "ones"])
def test_garbage_on_the_wire_is_backend_unavailable(kind: Kind, reply: bytes) -> None:
    port = free_port()
    with socket.create_server(("127.0.0.1", port)) as listener:
        stop = threading.Event()
        listener.settimeout(0.05)

        def serve() -> None:
            while not stop.is_set():
                try:
                    client, _ = listener.accept()
                except TimeoutError:
                    continue
                with client:
                    client.sendall(reply)
                    client.settimeout(0.2)
                    try:
                        client.recv(1000)
                        client.sendall(reply)
                    except OSError:
                        continue

        thread = threading.Thread(target=serve)
        thread.start()
        fake = Server(
            [], port=port, ready=lambda server: True, directory=Path("/nonexistent"), user=None, environ=None,
            stop_signal=signal.SIGTERM,
        )  # fmt: skip
        cache = DatabaseCache(kind.url(fake), {"OPTIONS": {"deadline": 0.3}})
        try:
            with pytest.raises(BackendUnavailable):
                cache.get("key")
            with pytest.raises(BackendUnavailable):
                asyncio.run(_and_close(cache, cache.aget("key")))
        finally:
            cache.close()
            stop.set()
            thread.join(10)


def test_deadlocks_are_tried_again(make: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    cache = make(deadline=5)
    cache.set("count", 1)
    store = cache._primary
    assert isinstance(store, ServerStore)
    attempts: list[int] = []
    code = db_engines.error_code

    def pretend(error: Exception) -> object:
        attempts.append(1)
        return "40P01" if len(attempts) < 4 else code(error)

    monkeypatch.setattr(db_server, "error_code", pretend)
    failing = make(deadline=5, table="not there", create=False)
    with pytest.raises(BackendUnavailable, match="createcachetable"):
        failing.incr("count")
    assert len(attempts) == 5  # three deadlocks, then the truth, which is looked at twice
    attempts.clear()
    monkeypatch.setattr(db_server, "error_code", lambda error: "40P01")
    with pytest.raises(BackendUnavailable):
        failing.incr("count")
    attempts.clear()
    monkeypatch.setattr(db_server, "error_code", pretend)
    with pytest.raises(BackendUnavailable, match="createcachetable"):
        asyncio.run(_and_close(failing, failing.aincr("count")))
    assert len(attempts) == 5


def test_writers_of_the_same_rows_in_other_orders_do_not_block_each_other(make: Make) -> None:
    cache = make(deadline=10)
    keys = [f"key{number}" for number in range(30)]
    errors: list[Exception] = []

    def write(turn: int) -> None:
        order = keys if turn % 2 else keys[::-1]
        try:
            for _ in range(10):
                cache.set_many(dict.fromkeys(order, turn))
                cache.delete_many(order[:5])
        except Exception as error:
            errors.append(error)

    threads = [threading.Thread(target=write, args=(turn,)) for turn in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(120)
    assert errors == []


def test_a_cull_that_fails_does_not_keep_a_value_from_being_stored(make: Make) -> None:
    cache = make(max_entries=3, deadline=5)
    cache.set_many({"a": 1, "b": 2, "c": 3})
    store = cache._primary
    assert isinstance(store, ServerStore)

    def fail(connection: Any, cursor: Any, sql: str, parameters: Any, context: Any, many: bool) -> None:
        if sql.startswith("DELETE"):
            raise OSError("no")

    event.listen(store._engines[0], "before_cursor_execute", fail)
    cache.set("d", 4)
    event.remove(store._engines[0], "before_cursor_execute", fail)
    assert cache.get_many("abcd") == {"a": 1, "b": 2, "c": 3, "d": 4}


def test_what_an_interrupt_left_in_use_is_not_waited_for(make: Make) -> None:
    """SQLAlchemy's pool has it back when it is collected, which may be never."""
    cache = make(pool_size=2, deadline=0.5)
    cache.set("key", 1)
    store = cache._primary
    assert isinstance(store, ServerStore)
    left = [store._engines[0].raw_connection() for _ in range(2)]
    assert cache.get("key") == 1
    for one in left:
        one.close()
    assert cache.get("key") == 1


def test_a_forked_process_leaves_its_parents_server_connections_alone(make: Make) -> None:
    cache = make(deadline=5)
    cache.set("key", 1)
    store = cache._primary
    assert isinstance(store, ServerStore)
    with store._engines[0].connect() as connection:
        driver_connection = connection.connection.dbapi_connection
        store._maker.owner = -1  # as a child sees it
        assert cache.get("key") == 1
        assert connection.exec_driver_sql("SELECT 1").scalar() == 1
        with store._engines[0].connect() as another:
            assert another.connection.dbapi_connection is not driver_connection
        connection.invalidate()


def test_both_halves_of_a_forked_process_may_begin(make: Make) -> None:
    cache = make(deadline=5)
    store = cache._primary
    assert isinstance(store, ServerStore)
    store._maker.owner = -1  # as a child sees it

    async def use() -> None:
        await cache.aset("key", 1)
        here = store._loops.known()
        assert cache.get("key") == 1
        assert store._loops.known() is here is not None
        assert await cache.aget("key") == 1
        await cache.aclose()

    asyncio.run(use())


def connections(cache: DatabaseCache) -> int:
    """How many the server has."""
    store = cache._primary
    assert isinstance(store, ServerStore)
    postgresql = store._statements.kind == "postgresql"
    table = "pg_stat_activity WHERE usename" if postgresql else "information_schema.processlist WHERE user"
    with store._engines[0].connect() as connection:
        return int(connection.exec_driver_sql(f"SELECT count(*) FROM {table} = 'cachemw'").scalar_one())


def test_connections_end_with_their_event_loop(make: Make) -> None:
    cache, looks_on = make(deadline=5), make(deadline=5)
    before = connections(looks_on)

    async def use(expected: int) -> None:
        await cache.aset("key", 1)
        assert connections(looks_on) == expected

    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        for _ in range(3):
            asyncio.run(use(before + 1))
            until(lambda: connections(looks_on) == before, "the server has seen the connection end")
        gc.collect()
    assert [str(warning.message) for warning in caught] == []


# What only one of them does


def test_a_value_over_max_allowed_packet_is_named_and_gone() -> None:
    with start_mariadb("--max-allowed-packet=1M") as server:
        cache = DatabaseCache(mariadb_url(server), {"OPTIONS": {"create": True, "deadline": 5}})
        large = os.urandom(3_000_000)
        cache.set_many({"key": "old", "other": "stays"})
        assert cache.set_many({"key": large, "fits": 1}) == ["key"]
        assert cache.get_many(["key", "other", "fits"]) == {"other": "stays", "fits": 1}
        assert cache.write_records([("page", large, None)]) == ["page"]

        async def main() -> None:
            assert await cache.aset_many({"other": large, "fits": 2}) == ["other"]
            assert await cache.aget_many(["other", "fits"]) == {"fits": 2}
            await cache.aclose()

        asyncio.run(main())
        cache.close()


@pytest.mark.parametrize(("kind", "module"), [("mysql", "asyncmy.connection"), ("postgresql", "psycopg")])
def test_both_drivers_are_there_before_anybody_forks(kind: str, module: str) -> None:
    """A child would wait for ever for the end of an import that another thread of its parent had begun."""
    script = f"import sys; from cachemw import connect; connect('db+{kind}://h/db'); print({module!r} in sys.modules)"
    ended = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, timeout=60, check=True)
    assert ended.stdout == "True\n"


@pytest.mark.parametrize("missing", ["at first", "later"])
def test_a_missing_async_driver_is_named_with_its_package(monkeypatch: pytest.MonkeyPatch, missing: str) -> None:
    if missing == "at first":
        monkeypatch.setitem(sys.modules, "asyncmy", None)
    cache = DatabaseCache("mysql://127.0.0.1:1/db", {})
    monkeypatch.setitem(sys.modules, "asyncmy", None)
    with pytest.raises(ImproperlyConfigured, match=r"cachemw\[mysql\]"):
        asyncio.run(cache.aget("key"))
    cache.close()


def test_a_connection_that_comes_too_late_is_closed() -> None:
    released, closed = threading.Event(), threading.Event()

    class Late:
        def close(self) -> None:
            closed.set()

    def connect() -> Late:
        released.wait(30)
        return Late()

    with pytest.raises(TimeoutError, match="no connection"):
        within(0.01, connect, Late.close)
    released.set()
    assert closed.wait(30)


def test_a_connection_that_fails_too_late_is_forgotten() -> None:
    released, failed = threading.Event(), threading.Event()

    def connect() -> None:
        released.wait(30)
        failed.set()
        raise OSError("refused")

    with pytest.raises(TimeoutError, match="no connection"):
        within(0.01, connect, print)
    released.set()
    assert failed.wait(30)


def test_where_no_thread_is_to_be_had_the_database_is_unavailable(make: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    cache = make()
    start = threading.Thread.start

    def full(thread: threading.Thread) -> None:
        if thread.name == "cachemw-connect":
            raise RuntimeError("can't start new thread")
        start(thread)

    with monkeypatch.context() as patch:
        patch.setattr(threading.Thread, "start", full)
        with pytest.raises(BackendUnavailable, match="can't start new thread"):
            cache.get("key")
    assert cache.get("key") is None


def test_a_connection_that_comes_just_in_time_is_used(monkeypatch: pytest.MonkeyPatch) -> None:
    class JustInTime(Future[Any]):
        def result(self, timeout: float | None = None) -> Any:
            found = super().result(30)
            if timeout is None:
                return found
            raise TimeoutError  # it came after the wait had ended, and before it could be called off

    monkeypatch.setattr(_dialling, "Future", JustInTime)
    assert within(0.01, lambda: "connection", print) == "connection"


def test_a_child_of_a_fork_whose_cache_goes_leaves_the_connections_to_its_parent() -> None:
    class Opened:
        def dispose(self) -> None:
            pytest.fail("the parent may be using them")

    maker: Any = SimpleNamespace(owner=os.getppid())
    engine: Any = Opened()
    db_server._dispose(maker, [engine])
