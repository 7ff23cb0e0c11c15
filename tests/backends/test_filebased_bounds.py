"""The file store's bounds: how many entries and bytes it holds, what goes first, and who counts."""

from __future__ import annotations

import os
import random
import shutil
import time
from pathlib import Path
from typing import Any

import pytest

from cachemw.backends._file import shards as file_shards
from cachemw.backends._file import sweep as file_sweep
from cachemw.backends._file.entry import Header
from cachemw.backends._file.files import live_entry
from cachemw.backends._file.reading import peek
from cachemw.backends._file.shards import Place
from cachemw.backends.filebased import FileBasedCache
from cachemw.errors import ImproperlyConfigured
from tests.backends.file_store import entries, entry, in_child, temporaries


@pytest.fixture
def directory(tmp_path: Path) -> Path:
    return tmp_path / "cache"


def held(cache: FileBasedCache) -> tuple[int, int]:
    """Entries and bytes, as the files themselves say."""
    files = entries(Path(str(cache.location)))
    return len(files), sum(path.stat().st_size for path in files)


def age(cache: FileBasedCache, key: str, seconds: float) -> None:
    """Let an entry seem to have been written so long ago."""
    path = entry(cache, key)
    written = path.stat().st_mtime - seconds
    os.utime(path, (written, written))


@pytest.mark.parametrize(("frequency", "left"), [(3, 29), (2, 19), (0, 19), (1, 19), (100, 30)])
def test_a_full_store_drops_one_in_so_many(directory: Path, frequency: int, left: int) -> None:
    cache = FileBasedCache(directory, {"OPTIONS": {"max_entries": 30, "cull_frequency": frequency}})
    for number in range(49):
        cache.set(f"key{number}", number)
        assert held(cache)[0] <= 30
    assert held(cache)[0] == left
    assert cache._shards.usage.totals() == held(cache)


def test_a_bound_below_zero_still_stores_the_new_entry(directory: Path) -> None:
    cache = FileBasedCache(directory, {"OPTIONS": {"max_entries": -1}})
    cache.set("key", "value")
    assert cache.get("key") == "value"


@pytest.mark.parametrize("options", [{"max_bytes": 0}, {"max_bytes": "much"}, {"max_entries": "many"}], ids=str)
def test_a_bound_that_is_no_number_is_refused(directory: Path, options: dict[str, Any]) -> None:
    with pytest.raises(ImproperlyConfigured, match=next(iter(options)).upper()):
        FileBasedCache(directory, {"OPTIONS": options})


def test_overwriting_touching_and_counting_drop_nothing(directory: Path) -> None:
    cache = FileBasedCache(directory, {"OPTIONS": {"max_entries": 9}})
    for number in range(9):
        cache.set(f"key{number}", number)
    for number in range(9):
        cache.set(f"key{number}", number)
        cache.incr(f"key{number}")
        cache.touch(f"key{number}")
        assert cache.add(f"key{number}", 0) is False
    assert len(cache.get_many([f"key{number}" for number in range(9)])) == 9


def test_the_expired_go_first(directory: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    cache = FileBasedCache(directory, {"OPTIONS": {"max_entries": 10}})
    for number in range(10):
        cache.set(f"key{number}", number, 50 if number in (4, 7) else 500)
    now = time.time() + 60
    monkeypatch.setattr(time, "time", lambda: now)
    cache.set("new", 1)
    assert held(cache)[0] == 9
    assert len(cache.get_many([f"key{number}" for number in range(10)])) == 8
    cache.set("newer", 1)
    assert held(cache)[0] == 10


def test_of_the_others_the_oldest_go_first(directory: Path) -> None:
    cache = FileBasedCache(directory, {"OPTIONS": {"max_entries": 30, "cull_frequency": 3}})
    for number in range(30):
        cache.set(f"key{number}", number)
        age(cache, f"key{number}", 1000 - number)
    cache.set("key0", "written again")
    cache.touch("key1")
    cache.set("new", 1)
    gone = {number for number in range(30) if f"key{number}" not in cache}
    assert gone == set(range(2, 12))


def test_a_store_larger_than_the_sample_loses_a_part_of_the_sample(
    directory: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(file_sweep, "_SAMPLE", 20)
    cache = FileBasedCache(directory, {"OPTIONS": {"max_entries": 200, "max_bytes": None}})
    for number in range(230):
        cache.set(f"key{number}", number)
        assert held(cache)[0] <= 200
    assert held(cache)[0] > 190
    assert cache._shards.usage.totals() == held(cache)


def test_bytes_are_bounded_too(directory: Path) -> None:
    cache = FileBasedCache(directory, {"OPTIONS": {"max_bytes": 100_000}})
    for number in range(60):
        cache.set(f"key{number}", b"x" * 4000)
        age(cache, f"key{number}", 1000 - number)
        assert held(cache)[1] <= 100_000
    assert held(cache)[1] > 60_000
    assert cache.get("key59") is not None
    assert cache.get("key0") is None
    cache.set("large", b"x" * 90_000)
    assert cache.get("large") is not None
    assert held(cache)[1] <= 100_000


def test_growing_by_overwriting_is_bounded(directory: Path) -> None:
    cache = FileBasedCache(directory, {"OPTIONS": {"max_bytes": 100_000}})
    for size in (10, 10_000, 20_000):
        for number in range(8):
            cache.set(f"key{number}", b"x" * size)
            assert held(cache)[1] <= 100_000


def test_an_entry_over_the_bound_is_not_stored_and_its_old_value_is_gone(directory: Path) -> None:
    cache = FileBasedCache(directory, {"OPTIONS": {"max_bytes": 10_000}})
    cache.set_many({"key": "old", "other": "stays"})
    assert cache.set_many({"key": b"x" * 10_000, "fits": 1}) == ["key"]
    assert cache.get_many(["key", "other", "fits"]) == {"other": "stays", "fits": 1}
    assert cache.write_records([("page", b"x" * 10_000, None)]) == ["page"]
    assert cache.add("key", b"x" * 10_000) is False
    assert "key" not in cache
    assert cache._shards.usage.totals() == held(cache)


def test_adding_an_entry_over_the_bound_leaves_alone_what_another_added_meanwhile(
    directory: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    cache = FileBasedCache(directory, {"OPTIONS": {"max_bytes": 10_000}})

    def peek_before_another(place: Place, now: float) -> Header | None:
        found = peek(place, now)
        monkeypatch.undo()
        cache.set("key", "another's")
        return found

    monkeypatch.setattr("cachemw.backends.filebased.peek", peek_before_another)
    assert cache.add("key", b"x" * 10_000) is False
    assert cache.get("key") == "another's"


def test_what_other_processes_write_counts(directory: Path) -> None:
    cache = FileBasedCache(directory, {"OPTIONS": {"max_entries": 30}})

    def fill(name: str) -> None:
        for number in range(25):
            cache.set(f"{name}{number}", number)

    fill("parent")
    in_child(lambda: fill("child"))
    assert held(cache)[0] <= 30
    assert cache._shards.usage.totals() == held(cache)
    fill("again")
    assert held(cache)[0] <= 30


def test_a_second_cache_finds_what_is_there(directory: Path) -> None:
    first = FileBasedCache(directory, {"OPTIONS": {"max_entries": 30}})
    first.set_many({f"key{number}": number for number in range(30)})
    second = FileBasedCache(directory, {"OPTIONS": {"max_entries": 30}})
    second.set("new", 1)
    assert held(second)[0] == 21


@pytest.mark.parametrize("damage", ["removed", "empty", "short", "wrong", "negative"])
def test_a_lost_or_damaged_count_is_made_again(directory: Path, damage: str) -> None:
    cache = FileBasedCache(directory, {"OPTIONS": {"max_entries": 40}})
    cache.set_many({f"key{number}": number for number in range(40)})
    usage = directory / "usage"
    if damage == "removed":
        usage.unlink()
        (next(iter(directory.glob("*/*"))) / "foreign.cmw").write_text("x")
    else:
        usage.write_bytes(
            {"empty": b"", "short": b"\0" * 100, "wrong": b"\x01" * 16384, "negative": b"\xff" * 16384}[damage]
        )
    for number in range(200):
        cache.set(f"new{number}", number)
    shards = cache._shards
    for shard in shards.existing():
        with shards.locked(shard) as descriptor:
            shards.scan(descriptor, shard, time.time())
    cache.set("last", 1)
    assert cache._shards.usage.totals() == held(cache)
    assert held(cache)[0] <= 40


def test_nothing_is_lost_where_two_begin_the_count(directory: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    cache = FileBasedCache(directory, {})
    other = FileBasedCache(directory, {})
    link = os.link

    def quicker(*args: Any) -> None:
        monkeypatch.setattr(os, "link", link)
        other.set("other", 1)
        link(*args)

    monkeypatch.setattr(os, "link", quicker)
    cache.set("key", 1)
    assert cache._shards.usage.totals() == held(cache) == (2, held(cache)[1])
    assert not list(directory.glob("usage-*"))


def test_one_write_in_many_looks_after_some_shard(directory: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    cache = FileBasedCache(directory, {})
    cache.set("key", 1, 50)
    shard = cache._shards.place(cache.make_key("key")).shard
    now = time.time() + 60
    monkeypatch.setattr(time, "time", lambda: now)
    monkeypatch.setattr(file_sweep, "SHARDS", 1)  # of all shards, the one in question
    monkeypatch.setattr(random, "randrange", lambda stop: 0 if stop == 64 else shard)
    cache.set("another", 1)
    assert not entry(cache, "key").exists()
    cache.delete("another")
    shutil.rmtree(directory)
    cache.set("another", 1)  # there is no such shard now
    assert cache._shards.usage.totals() == held(cache)


def test_two_do_not_cull_at_once(directory: Path) -> None:
    cache = FileBasedCache(directory, {"OPTIONS": {"max_entries": 3}})
    with file_sweep._only_one(str(directory)):
        cache.set_many({f"key{number}": number for number in range(6)})
        assert held(cache)[0] == 6
    cache.set("new", 1)
    assert held(cache)[0] <= 3


def test_a_shard_in_use_is_left_for_another_time(directory: Path) -> None:
    cache = FileBasedCache(directory, {"OPTIONS": {"max_entries": 1, "cull_frequency": 1}})
    cache.set("key", 1)
    with cache._shards.locked(cache._shards.place(cache.make_key("key")).shard):
        cache._sweeper.cull(entries=1)
        assert entry(cache, "key").exists()
    cache._sweeper.cull(entries=1)
    assert not entry(cache, "key").exists()


def test_what_changed_since_it_was_looked_at_is_not_culled(directory: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    cache = FileBasedCache(directory, {"OPTIONS": {"max_entries": 3, "cull_frequency": 1}})
    cache.set_many({"a": 1, "b": 2, "c": 3})
    remove = cache._sweeper._remove

    def change_first(victims: list[Any]) -> None:
        age(cache, "a", 10)
        cache.delete("b")
        remove(victims)

    monkeypatch.setattr(cache._sweeper, "_remove", change_first)
    monkeypatch.setattr(file_sweep, "_ROUNDS", 1)
    cache.set("new", 4)
    assert cache.get_many(["a", "b", "c", "new"]) == {"a": 1, "new": 4}
    assert cache._shards.usage.totals() == held(cache)


@pytest.mark.parametrize("age", [3600, -3600], ids=["old", "of a clock that was ahead"])
def test_leftovers_of_killed_writers_go_and_those_of_living_ones_stay(directory: Path, age: int) -> None:
    cache = FileBasedCache(directory, {})
    cache.set("key", 1)
    shard = entry(cache, "key").parent
    old, new = shard / f".{'0' * 16}.cmw-new", shard / f".{'1' * 16}.cmw-new"
    for path in (old, new):
        path.write_bytes(b"half")
    os.utime(old, (time.time() - age,) * 2)
    cache.clear()
    assert temporaries(directory) == [new]
    assert cache._shards.usage.totals() == (0, 0)


@pytest.mark.parametrize("size", [0, 10, 60])
def test_damaged_files_that_nobody_reads_go_too(directory: Path, size: int) -> None:
    cache = FileBasedCache(directory, {"OPTIONS": {"max_entries": 5}})
    cache.set_many({f"key{number}": number for number in range(5)})
    path = entry(cache, "key3")
    path.write_bytes(path.read_bytes().ljust(100, b"x")[:size])
    cache.set("new", 1)
    assert not path.exists()
    assert len(cache.get_many([f"key{number}" for number in range(5)])) == 4
    assert cache._shards.usage.totals() == held(cache)


def test_files_that_somebody_removes_meanwhile_are_not_counted(
    directory: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    cache = FileBasedCache(directory, {"OPTIONS": {"max_entries": 5}})
    cache.set_many({f"key{number}": number for number in range(5)})

    def remove_then_look(*args: Any) -> Any:
        for one in entries(directory):
            one.unlink()
        return live_entry(*args)

    with monkeypatch.context() as patch:
        patch.setattr(file_shards, "live_entry", remove_then_look)
        cache.set("new", 1)
    assert cache._shards.usage.totals() == held(cache) == (1, held(cache)[1])


def test_a_store_far_over_its_bound_is_cut_down_in_several_goes(
    directory: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    large = FileBasedCache(directory, {})
    large.set_many({f"key{number}": number for number in range(200)})
    monkeypatch.setattr(file_sweep, "_SAMPLE", 6)
    monkeypatch.setattr(file_sweep, "_ROUNDS", 10)
    small = FileBasedCache(directory, {"OPTIONS": {"max_entries": 20}})
    small.set("new", 1)
    assert 100 < held(small)[0] < 200
    for number in range(15):
        small.set(f"new{number}", number)
    assert held(small)[0] <= 20
