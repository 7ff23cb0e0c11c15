"""The dummy store: everything is answered, nothing is kept."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Iterator
from typing import Any

import pytest

from cachemw.backends.dummy import DummyCache
from cachemw.errors import CacheKeyWarning
from cachemw.testing import Face


@pytest.fixture(params=["sync", "async"])
def cache(request: pytest.FixtureRequest) -> Iterator[Face]:
    with asyncio.Runner() as runner:
        yield Face(DummyCache("", {}), runner.run if request.param == "async" else None)


def test_nothing_is_ever_stored(cache: Face) -> None:
    cache.set("key", "value")
    assert cache.get("key") is None
    assert cache.get("key", "default") == "default"
    assert cache.set_many({"a": 1, "b": 2}) == []
    assert cache.get_many(["a", "b"]) == {}
    assert cache.add("key", "value") is True
    assert cache.add("key", "value") is True
    assert cache.has_key("key") is False
    assert "key" not in cache
    assert cache.touch("key") is False
    assert cache.delete("key") is False
    assert cache.delete_many(["key"]) is None


def test_there_is_nothing_to_count_or_move(cache: Face) -> None:
    cache.set("key", 1)
    for operation in (cache.incr, cache.decr, cache.incr_version, cache.decr_version):
        with pytest.raises(ValueError, match="'key' not found"):
            operation("key")


def test_get_or_set_makes_the_default_each_time(cache: Face) -> None:
    made: list[int] = []

    def default() -> int:
        made.append(1)
        return len(made)

    assert cache.get_or_set("key", "plain") == "plain"
    assert cache.get_or_set("key", None) is None
    assert [cache.get_or_set("key", default) for _ in range(3)] == [1, 2, 3]


def test_values_need_not_be_picklable(cache: Face) -> None:
    cache.set("key", threading.Lock())
    assert cache.set_many({"key": threading.Lock()}) == []


def test_keys_are_checked_as_elsewhere(cache: Face) -> None:
    operations: list[Any] = [
        lambda: cache.set("a b", 1),
        lambda: cache.get_many(["a b"]),
        lambda: cache.set_many({"a b": 1}),
        lambda: cache.delete_many(["a b"]),
    ]
    for operation in operations:
        with pytest.warns(CacheKeyWarning, match="characters that will cause errors"):
            operation()


def test_pages_are_not_kept_either(cache: Face) -> None:
    assert cache.write_records([("page", b"body", None)]) == []
    assert cache.read_records(["page", "other"]) == [None, None]
    assert cache.add_record("page", b"body", 10.0) is True
    assert cache.drop_records(["page"]) == 0


def test_it_can_be_cleared_and_closed(cache: Face) -> None:
    cache.clear()
    cache.close()


def test_it_stands_in_for_any_other_with_its_options() -> None:
    assert DummyCache("redis://host", {"OPTIONS": {"socket_timeout": 1}, "KEY_PREFIX": "a"}).get("key") is None
