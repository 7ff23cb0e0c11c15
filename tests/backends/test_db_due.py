"""SQLite's rows are found by when they are due: one that is stored again stays in its place, and goes in time."""

from __future__ import annotations

import random
import sqlite3
import time
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from cachemw.backends._db import sql as db_sql
from cachemw.backends._db.calls import Call
from cachemw.backends._db.sql import DIALECT
from cachemw.backends.db import DatabaseCache


class Clock:
    """The time, which passes when it is told to."""

    def __init__(self) -> None:
        self.now = 1_000_000.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    clock = Clock()
    monkeypatch.setattr(time, "time", clock)
    return clock


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "cache.sqlite3"


@pytest.fixture
def make(path: Path) -> Iterator[Callable[..., DatabaseCache]]:
    made: list[DatabaseCache] = []

    def make_one(**options: Any) -> DatabaseCache:
        made.append(DatabaseCache(f"sqlite:///{path}", {"OPTIONS": options}))
        return made[-1]

    yield make_one
    for cache in made:
        cache.close()


Make = Callable[..., DatabaseCache]


def asked(path: Path, sql: str) -> list[tuple[Any, ...]]:
    with closing(sqlite3.connect(path)) as connection:
        return connection.execute(sql).fetchall()


def due(path: Path) -> dict[str, tuple[float | None, float | None]]:
    """When each row is due, and when it expires."""
    rows = asked(path, "SELECT cache_key, due, expires FROM cachemw")
    return {key.removeprefix(":1:"): (due, expires) for key, due, expires in rows}


def look(cache: DatabaseCache, limit: int = 1000) -> int:
    """Remove what has expired; how many rows that were."""
    return cache._primary.run(Call("drop_expired", {"now": time.time(), "limit": limit})).changed


def test_what_is_stored_again_leaves_the_index_alone(make: Make, path: Path, clock: Clock) -> None:
    cache = make()
    began = clock.now
    cache.set_many({"one": 0, **{f"many{number}": 0 for number in range(234)}}, 50)
    cache.add("added", 0, 50)
    for _ in range(3):
        clock.now += 10
        cache.set("one", 1, 50)
        cache.set_many({f"many{number}": 1 for number in range(234)}, 50)
    clock.now += 60
    cache.add("added", 1, 50)
    expected = {f"many{number}": (began + 50, began + 80) for number in range(234)}
    assert due(path) == {**expected, "one": (began + 50, began + 80), "added": (began + 50, began + 140)}


@pytest.mark.parametrize(
    ("rows", "value", "inserts"),
    [(2, 1, 2), (10, 1, 1), (100, "x", 1), (123, 1, 6), (250, 1, 7), (100, "x" * 1000, 1), (110, "x" * 10_000, 101)],
    ids=lambda given: str(given)[:9],
)
def test_many_rows_take_few_statements(make: Make, rows: int, value: object, inserts: int) -> None:
    """But a connection keeps what it was given in one statement, so that there is not to be much in it."""
    cache = make()
    data = dict.fromkeys([f"key{number}" for number in range(rows)], value)
    cache.set_many(data)
    seen: list[str] = []
    [connection] = cache._primary.connections._idle  # type: ignore[attr-defined]
    connection.set_trace_callback(lambda sql: seen.append(sql.split(None, 1)[0]))
    cache.set_many(data)
    assert seen == ["BEGIN", *["INSERT"] * inserts, "COMMIT"]
    assert cache.get_many(data) == data


@pytest.mark.parametrize("count", [1, 12])
def test_numbers_and_values_are_stored_together(make: Make, path: Path, clock: Clock, count: int) -> None:
    cache = make()
    numbers = {f"number{index}": index for index in range(count)}
    values = {
        f"{kind}{index}": value for index in range(count) for kind, value in (("small", "x"), ("large", "y" * 9000))
    }
    kinds = "SELECT substr(cache_key, 4, 5), typeof(number), typeof(value), count(*) FROM cachemw GROUP BY 1, 2, 3"
    stored = [
        ("large", "null", "blob", count),
        ("numbe", "integer", "null", count),
        ("small", "null", "blob", count),
    ]
    for timeout in (100, 150, 50):  # new, again, and sooner than they are due
        assert cache.set_many({**numbers, **values}, timeout) == []
        assert cache.get_many([*numbers, *values]) == {**numbers, **values}
        assert asked(path, kinds) == stored
        assert {expires for _, expires in due(path).values()} == {clock.now + timeout}
    assert {is_due for is_due, _ in due(path).values()} == {clock.now + 50}
    swapped = {**dict.fromkeys(numbers, "a value"), **dict.fromkeys(values, 7)}
    cache.set_many(swapped, 60)
    assert cache.get_many(swapped) == swapped


def test_what_is_due_but_lives_on_is_put_off(make: Make, path: Path, clock: Clock) -> None:
    cache = make()
    began = clock.now
    cache.set_many({"again": 0, "lasting": 0, "once": 0}, 50)
    clock.now += 40
    cache.set("again", 1, 50)
    cache.set("lasting", 1, None)
    clock.now += 20
    assert look(cache) == 1
    assert due(path) == {"again": (began + 90, began + 90), "lasting": (None, None)}
    clock.now += 40
    assert look(cache) == 1
    assert cache.get_many(["again", "lasting", "once"]) == {"lasting": 1}


@pytest.mark.parametrize("first", [1000, None])
@pytest.mark.parametrize(
    "store",
    [
        lambda cache: cache.set("key", 2, 50),
        lambda cache: cache.set_many({"key": 2, "other": 2}, 50),
        lambda cache: cache.set_many({**{f"key{number}": 2 for number in range(150)}, "key": 2}, 50),
        lambda cache: cache.touch("key", 50),
        lambda cache: cache._primary.run(Call("set", {"key": ":1:key", "expires": time.time() + 50, "number": 2,
                                                      "value": None})),
    ],
    ids=["set", "set_many", "set_very_many", "touch", "plan"],
)  # fmt: skip
def test_what_is_to_expire_earlier_than_before_does(
    make: Make, clock: Clock, first: float | None, store: Callable[[DatabaseCache], object]
) -> None:
    cache = make()
    cache.set_many({"key": 1, "key7": 1, "lasting": 1}, first)
    store(cache)
    assert cache.get("key") in (1, 2)
    clock.now += 51
    assert look(cache) >= 1
    held = cache._primary.run(Call("count", {"keys": [":1:key", ":1:lasting"]})).rows[0][1]
    assert held == 1
    assert cache.get("lasting") == 1


def test_who_is_stored_often_stays_and_who_expires_first_goes(make: Make, clock: Clock) -> None:
    cache = make(max_entries=40)
    cache.set_many({f"often{number}": 0 for number in range(20)}, 1000)
    clock.now += 10
    cache.set_many({f"once{number}": 0 for number in range(20)}, 1000)
    clock.now += 10
    for number in range(20):
        cache.set(f"often{number}", 1, 1000)
    for number in range(12):
        cache.set(f"new{number}", 1, 1000)
    found = cache.get_many([f"{name}{number}" for name in ("often", "once", "new") for number in range(20)])
    assert len([name for name in found if name.startswith("often")]) == 20
    assert len([name for name in found if name.startswith("new")]) == 12
    assert len(found) <= 40


def test_a_look_ends_in_time_however_much_lives_on(make: Make, clock: Clock, monkeypatch: pytest.MonkeyPatch) -> None:
    cache = make()
    names = [f"key{number}" for number in range(900)]
    cache.set_many(dict.fromkeys(names, 1), 50)
    cache.set_many(dict.fromkeys(names, 2), 500)
    cache.set_many({"late1": 1, "late2": 1}, 51)
    clock.now += 60
    monkeypatch.setattr(db_sql, "_ENOUGH", 0)
    looks = 0
    while look(cache) == 0:
        looks += 1
    assert looks == 4, "two hundred at a time"
    assert cache.get_many(["late1", "late2", *names[:5]]) == dict.fromkeys(names[:5], 2)


def test_a_look_takes_all_that_there_is_time_for(make: Make, clock: Clock, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(db_sql, "_ENOUGH", 60)
    cache = make()
    for timeout in (50, 500):
        cache.set_many({f"key{number}": number for number in range(1500)}, timeout)
    cache.set_many({f"gone{number}": number for number in range(1500)}, 51)
    clock.now += 60
    assert look(cache, limit=1000) == 1000
    assert look(cache, limit=1000) == 500
    assert look(cache, limit=1000) == 0
    assert len(cache.get_many([f"key{number}" for number in range(1500)])) == 1500


def test_all_may_live_on_where_there_has_to_be_room(make: Make, clock: Clock) -> None:
    cache = make(max_entries=100)
    for round_ in range(5):
        for number in range(100):
            clock.now += 1
            cache.set(f"key{number}", round_, 10_000)
    for number in range(60):
        clock.now += 1
        cache.set(f"new{number}", 1, 10_000)
    found = cache.get_many([*(f"key{number}" for number in range(100)), *(f"new{number}" for number in range(60))])
    left = [int(name.removeprefix("key")) for name in found if name.startswith("key")]
    assert left == list(range(100 - len(left), 100)), "the oldest went"
    assert len([name for name in found if name.startswith("new")]) == 60
    assert len(found) <= 100


@pytest.mark.parametrize("seconds", [0, 60])
def test_room_is_made_even_where_very_many_live_on(
    make: Make, path: Path, monkeypatch: pytest.MonkeyPatch, seconds: float
) -> None:
    monkeypatch.setattr(db_sql, "_ENOUGH", seconds)
    filled, cache = make(), make(max_entries=6000)
    for number in range(2):
        filled.set_many({f"key{key}": number for key in range(6000)}, 1000)
    cache.set("new", 1, 1000)
    assert len(asked(path, "SELECT 1 FROM cachemw")) <= 6000
    assert cache.get("new") == 1


def test_nothing_is_due_later_than_it_expires_in_any_order_of_operations(make: Make, path: Path, clock: Clock) -> None:
    cache, dice = make(max_entries=40), random.Random(7)
    for _ in range(600):
        keys = dice.sample([f"key{number}" for number in range(60)], dice.randrange(1, 30))
        timeout = dice.choice((0.001, 5.0, 50.0, 500.0, None))
        operations: list[Callable[[], object]] = [
            lambda: cache.set(keys[0], 1, timeout),  # noqa: B023  called in this round
            lambda: cache.set_many(dict.fromkeys(keys, 2), timeout),  # noqa: B023
            lambda: cache.add(keys[0], 3, timeout),  # noqa: B023
            lambda: cache.touch(keys[0], timeout),  # noqa: B023
            lambda: cache.commit_records([(key, b"page", timeout) for key in keys], (), keys[:1]),  # noqa: B023
            lambda: look(cache),
        ]
        dice.choice(operations)()
        clock.now += dice.choice((0, 1, 10, 100, -50))
        wrong = "SELECT count(*) FROM cachemw WHERE expires IS NOT NULL AND (due IS NULL OR due > expires)"
        assert asked(path, wrong) == [(0,)]
    clock.now += 1000
    look(cache)
    assert asked(path, "SELECT count(*) FROM cachemw WHERE due IS NOT NULL") == [(0,)]


@pytest.mark.parametrize("statement", ["drop_expired", "put_off", "drop_due", "drop_first", "drop_any"])
def test_rows_to_remove_are_found_by_the_index(make: Make, path: Path, statement: str) -> None:
    cache = make()
    cache.create_table()
    sql = str(getattr(cache._statements, statement).compile(dialect=DIALECT))
    with closing(sqlite3.connect(path)) as connection:
        steps = [row[3] for row in connection.execute(f"EXPLAIN QUERY PLAN {sql}", [1] * sql.count("?"))]
    assert [step for step in steps if "cachemw_expires" in step]
    assert not [step for step in steps if step.startswith("SCAN cachemw")]
