"""Pages in SQLite, which is asked directly: one statement for a hit, one transaction for a miss."""

from __future__ import annotations

import asyncio
import random
import sqlite3
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from cachemw.backends._db import connections as db_connections
from cachemw.backends.db import DatabaseCache
from cachemw.errors import BackendUnavailable
from cachemw.testing._concurrency import in_threads

Both = Callable[..., Any]


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "cache.sqlite3"


@pytest.fixture
def cache(path: Path) -> Iterator[DatabaseCache]:
    cache = DatabaseCache(f"sqlite:///{path}", {"OPTIONS": {"deadline": 0.1}})
    yield cache
    cache.close()


@pytest.fixture(params=["threads", "tasks"])
def call(request: pytest.FixtureRequest, cache: DatabaseCache) -> Both:
    """Calls a method, or its twin on an event loop."""
    if request.param == "threads":
        return lambda name, *arguments: getattr(cache, name)(*arguments)
    return lambda name, *arguments: asyncio.run(getattr(cache, f"a{name}")(*arguments))


def statements(cache: DatabaseCache) -> list[str]:
    """What SQLite is told from now on: the first words."""
    cache.get("warm")
    assert cache._sqlite is not None
    (connection,) = cache._sqlite.connections._idle
    seen: list[str] = []
    connection.set_trace_callback(lambda sql: seen.append(sql.split()[0]))
    return seen


def test_a_miss_is_one_transaction(cache: DatabaseCache, call: Both) -> None:
    cache.write_records([("mark", b"mark", 100.0), ("lease", b"lease", 100.0)])
    seen = statements(cache)
    records = [("index", b"index", 100.0), ("page", b"page", None)]
    assert call("commit_records", records, ["mark", "absent"], ["lease"]) == ([], [b"mark", None])
    assert seen == ["BEGIN", "INSERT", "INSERT", "SELECT", "DELETE", "COMMIT"]
    assert call("read_records", ["page", "lease", "index"]) == [b"page", None, b"index"]


def test_what_is_dropped_together_with_what_is_written(cache: DatabaseCache, call: Both) -> None:
    cache.write_records([("old", b"old", 100.0)])
    assert call("commit_records", [("old", b"new", 100.0)], ["old"], ["old"]) == ([], [b"new"])
    assert call("read_records", ["old"]) == [None]
    assert call("commit_records", [], ["old"], ["old"]) == ([], [None])
    cache.write_records([("ended", b"old", 100.0)])
    assert call("commit_records", [("ended", b"", 0.0), ("page", b"page", 9.0)], [], []) == ([], [])
    assert call("read_records", ["ended", "page"]) == [None, b"page"]


def test_many_pages_at_once(cache: DatabaseCache, call: Both) -> None:
    records = [(f"page{number}", b"%d" % number, 100.0) for number in range(600)]
    keys = [key for key, _, _ in records]
    assert call("commit_records", records, keys[:40], keys[590:]) == ([], [payload for _, payload, _ in records[:40]])
    assert call("read_records", keys) == [payload for _, payload, _ in records[:590]] + [None] * 10
    assert call("read_records", keys[:17]) == [payload for _, payload, _ in records[:17]]
    assert call("read_records", []) == []
    assert call("commit_records", records, keys, keys) == ([], [payload for _, payload, _ in records])


def test_a_number_is_no_page_and_keys_of_any_length_and_kind_are_told_apart(cache: DatabaseCache, call: Both) -> None:
    cache._set([(cache.page_key("number"), 7, None)])
    assert call("read_records", ["number"]) == [None]
    keys = ["k" * 5000, "k" * 5001, "\udce4", "ä", "A", "a", "a "]
    assert call("commit_records", [(key, key.encode("utf-8", "replace"), None) for key in keys], [], [])[0] == []
    assert call("read_records", keys) == [key.encode("utf-8", "replace") for key in keys]


def test_a_table_that_was_dropped_is_made_again(cache: DatabaseCache, call: Both, path: Path) -> None:
    for operation in (
        lambda: call("commit_records", [("page", b"page", None)], ["mark"], ["lease"]),
        lambda: (call("read_records", ["page"]), call("write_records", [("page", b"page", None)])),
    ):
        cache.set("there", 1)
        with closing(sqlite3.connect(path)) as other:
            other.execute("DROP TABLE cachemw")
        operation()
        assert call("read_records", ["page"]) == [b"page"]


@pytest.fixture
def small_values(monkeypatch: pytest.MonkeyPatch) -> None:
    """Connections that refuse values of 100 KB."""
    connect = sqlite3.connect

    def limited(*args: Any, **kwargs: Any) -> sqlite3.Connection:
        made: sqlite3.Connection = connect(*args, **kwargs)
        made.setlimit(sqlite3.SQLITE_LIMIT_LENGTH, 100_000)
        return made

    monkeypatch.setattr(sqlite3, "connect", limited)


@pytest.mark.usefixtures("small_values")
def test_a_page_too_large_for_the_file_is_said_to_be(cache: DatabaseCache, call: Both) -> None:
    cache.write_records([("large", b"old", None)])
    records = [("large", b"x" * 200_000, None), ("small", b"small", None)]
    assert call("commit_records", records, [], []) == (["large"], [])
    assert call("read_records", ["large", "small"]) == [None, b"small"]


def test_what_the_driver_refuses_is_too_large_too(cache: DatabaseCache, call: Both) -> None:
    """It raises OverflowError, of 2 GiB; zeros that nobody touches take no memory."""
    huge = bytes(2**31)
    cache.write_records([("large", b"old", None), ("there", b"old", None)])
    assert call("commit_records", [("large", huge, None), ("small", b"small", None)], [], []) == (["large"], [])
    assert call("write_records", [("there", huge, None)]) == ["there"]
    assert call("add_record", "lease", huge, None) is False
    assert call("read_records", ["large", "small", "there", "lease"]) == [None, b"small", None, None]


@pytest.mark.usefixtures("small_values")
def test_what_is_too_large_to_be_stored_is_returned_all_the_same(call: Both) -> None:
    large = "x" * 200_000
    assert call("get_or_set", "key", large) == large
    assert call("add", "key", large) is False
    assert call("get", "key") is None


def test_a_writer_that_never_ends_is_given_up_and_nothing_is_half_done(
    cache: DatabaseCache, call: Both, path: Path
) -> None:
    cache.write_records([("lease", b"lease", None)])
    with closing(sqlite3.connect(path, isolation_level=None)) as other:
        other.execute("BEGIN IMMEDIATE")
        with pytest.raises(BackendUnavailable, match="locked"):
            call("commit_records", [("page", b"page", None)], [], ["lease"])
        assert call("read_records", ["page", "lease"]) == [None, b"lease"]
        other.execute("ROLLBACK")
    assert call("commit_records", [("page", b"page", None)], [], ["lease"]) == ([], [])
    assert call("read_records", ["page", "lease"]) == [b"page", None]
    assert call("add_and_read", "lease", b"mine", 10.0, ["page"]) == (True, [b"page"])
    assert call("add_and_read", "lease", b"mine", 10.0, []) == (False, [])


# What is read over and over


def decode(key: str, payload: Any) -> Any:
    return None if payload == b"damaged" else (key, payload)


@pytest.fixture
def other(path: Path) -> Iterator[DatabaseCache]:
    """Another process's cache, as far as SQLite can tell."""
    cache = DatabaseCache(f"sqlite:///{path}", {})
    yield cache
    cache.close()


def remembered(cache: DatabaseCache, key: str = "page") -> Any:
    """A page that is read so often that only the file's version is asked for."""
    cache.write_records([(key, b"old", 100.0)])
    for _ in range(4):
        (found,) = cache.read_decoded([key], decode)
    assert found == (key, b"old")
    return found


def test_a_page_that_is_read_often_costs_one_question(cache: DatabaseCache, call: Both) -> None:
    found = remembered(cache)
    assert cache.known(["page"], decode) is None, "without asking"
    seen = statements(cache)
    seen.clear()
    assert call("read_decoded", ["page"], decode)[0] is found
    assert seen == ["PRAGMA"]
    seen.clear()
    for _ in range(4):
        assert call("read_decoded", ["page", "absent"], decode) == [found, None]
    assert seen == ["SELECT", "PRAGMA", "SELECT", "PRAGMA", "PRAGMA"], "what is not there is remembered, too"


def test_what_comes_once_is_not_asked_for_again(cache: DatabaseCache) -> None:
    seen = statements(cache)
    cache.read_decoded(["one"], decode)
    cache.read_decoded(["two"], decode)
    assert seen == ["SELECT", "SELECT"]


def test_what_comes_to_where_nothing_was_is_noticed(cache: DatabaseCache, other: DatabaseCache, call: Both) -> None:
    for number, writer in enumerate((cache, other)):
        for _ in range(4):
            assert call("read_decoded", [f"page{number}"], decode) == [None]
        writer.write_records([(f"page{number}", b"new", None)])
        assert call("read_decoded", [f"page{number}"], decode) == [(f"page{number}", b"new")]


CHANGES: dict[str, tuple[Callable[[DatabaseCache], Any], Any]] = {
    "written": (lambda cache: cache.write_records([("page", b"new", 100.0)]), ("page", b"new")),
    "committed": (lambda cache: cache.commit_records([("page", b"new", 100.0)], (), ()), ("page", b"new")),
    "dropped": (lambda cache: cache.drop_records(["page"]), None),
    "cleared": (lambda cache: cache.clear_records(), None),
    "culled": (lambda cache: cache._drive(cache._plans._cull(1, 1, 1)), None),
    "counted": (lambda cache: cache._set([(cache.page_key("page"), 7, None)]), None),
}


@pytest.mark.parametrize("by", ["itself", "another"])
@pytest.mark.parametrize("change", CHANGES)
def test_what_changes_is_noticed_at_once(
    cache: DatabaseCache, other: DatabaseCache, call: Both, change: str, by: str
) -> None:
    remembered(cache)
    act, expected = CHANGES[change]
    act(cache if by == "itself" else other)
    for _ in range(4):
        assert call("read_decoded", ["page"], decode) == [expected]


def test_what_is_remembered_expires(cache: DatabaseCache, monkeypatch: pytest.MonkeyPatch) -> None:
    remembered(cache)
    now = time.time() + 99
    monkeypatch.setattr(time, "time", lambda: now)
    assert cache.read_decoded(["page"], decode) == [("page", b"old")]
    now += 2
    assert cache.read_decoded(["page"], decode) == [None]
    cache.write_records([("for ever", b"old", None)])
    for _ in range(4):
        assert cache.read_decoded(["for ever"], decode) == [("for ever", b"old")]
    now += 10**9
    assert cache.read_decoded(["for ever"], decode) == [("for ever", b"old")]


def test_another_file_in_the_place_of_the_first(
    cache: DatabaseCache, path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(db_connections, "_LOOK_AGAIN", 0.0)
    remembered(cache)
    for name in ("", "-wal", "-shm"):
        path.with_name(path.name + name).unlink(missing_ok=True)
    assert cache.read_decoded(["page"], decode) == [None]


def test_what_is_decoded_otherwise_or_not_at_all(cache: DatabaseCache) -> None:
    remembered(cache)
    assert cache.read_decoded(["page"], lambda key, payload: payload) == [b"old"]
    cache.write_records([("damaged", b"damaged", None)])
    for _ in range(4):
        assert cache.read_decoded(["damaged"], decode) == [None]
    cache.write_records([("large", b"x" * 3_000_000, None)])
    assert cache.read_decoded([], decode) == []


def test_the_question_is_not_asked_where_somebody_writes_all_the_time(
    cache: DatabaseCache, other: DatabaseCache
) -> None:
    remembered(cache)
    seen = statements(cache)
    for number in range(1000):
        other.set("key", number)
        assert cache.read_decoded(["page"], decode) == [("page", b"old")]
    assert seen.count("PRAGMA") < 30
    for _ in range(2 * 64 + 2):
        cache.read_decoded(["page"], decode)
    seen.clear()
    for _ in range(10):
        cache.read_decoded(["page"], decode)
    assert seen == ["PRAGMA"] * 10, "now that nobody writes"


def test_no_order_of_reading_and_writing_shows_what_was(
    cache: DatabaseCache, other: DatabaseCache, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Against what a cache that remembers nothing finds."""
    dice = random.Random(7)
    now = 1_000_000.0
    monkeypatch.setattr(time, "time", lambda: now)
    keys = [f"page{number}" for number in range(5)]
    for step in range(1500):
        writer = dice.choice((cache, other))
        match dice.randrange(12):
            case 0:
                writer.write_records([(dice.choice(keys), b"%d" % step, dice.choice((5.0, 50.0, None)))])
            case 1:
                writer.drop_records([dice.choice(keys)])
            case 2:
                writer._touch(writer.page_key(dice.choice(keys)), dice.choice((5.0, None)))
            case 3:
                now += dice.random() * 10
            case _:
                asked = dice.sample(keys, dice.randrange(1, 4))
                found = cache.read_decoded(asked, decode)
                assert [record and record[1] for record in found] == other.read_records(asked), step


def test_threads_that_read_while_another_connection_writes_never_go_back(
    cache: DatabaseCache, other: DatabaseCache
) -> None:
    other.write_records([("page", b"0", None)])
    done = threading.Event()

    def write() -> None:
        for number in range(1, 400):
            other.write_records([("page", b"%d" % number, None)])
        done.set()

    def read(_: int) -> bool:
        last = 0
        while not done.is_set():
            (found,) = cache.read_decoded(["page"], decode)
            assert int(found[1]) >= last
            last = int(found[1])
        return bool(cache.read_decoded(["page"], decode) == [("page", b"399")])

    writer = threading.Thread(target=write)
    writer.start()
    assert in_threads(3, read) == [True] * 3
    writer.join()


def test_a_database_with_replicas_reads_each_time(path: Path, call: Both, cache: DatabaseCache) -> None:
    cache.write_records([("page", b"old", None)])
    replicated = DatabaseCache(f"sqlite:///{path}", {"OPTIONS": {"read": f"sqlite:///{path}"}})
    for _ in range(3):
        assert replicated.read_decoded(["page", "absent"], decode) == [("page", b"old"), None]
        assert asyncio.run(replicated.aread_decoded(["page"], decode)) == [("page", b"old")]
    cache.write_records([("page", b"new", None)])
    assert replicated.read_decoded(["page"], decode) == [("page", b"new")]
    replicated.close()


def test_a_page_is_looked_for_in_a_table_that_is_not_there_yet(cache: DatabaseCache, call: Both) -> None:
    assert call("read_decoded", ["page"], decode) == [None]


def test_a_connection_that_is_not_there_yet_or_busy_is_waited_for_in_a_thread(cache: DatabaseCache, path: Path) -> None:
    remembered(cache)
    cache.close()
    assert asyncio.run(cache.aread_decoded(["page"], decode)) == [("page", b"old")]
