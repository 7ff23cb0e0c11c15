"""Pages in SQLite, which is asked directly: one statement for a hit, one transaction for a miss."""

from __future__ import annotations

import asyncio
import sqlite3
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from cachemw.backends.db import DatabaseCache
from cachemw.errors import BackendUnavailable

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
    (connection,) = cache._sqlite._idle
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


def test_a_page_too_large_for_the_file_is_said_to_be(
    cache: DatabaseCache, call: Both, monkeypatch: pytest.MonkeyPatch
) -> None:
    cache.write_records([("large", b"old", None)])
    cache.close()
    records = [("large", b"x" * 200_000, None), ("small", b"small", None)]
    connect = sqlite3.connect

    def limited(*args: Any, **kwargs: Any) -> sqlite3.Connection:
        made: sqlite3.Connection = connect(*args, **kwargs)
        made.setlimit(sqlite3.SQLITE_LIMIT_LENGTH, 100_000)
        return made

    monkeypatch.setattr(sqlite3, "connect", limited)
    assert call("commit_records", records, [], []) == (["large"], [])
    assert call("read_records", ["large", "small"]) == [None, b"small"]


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
