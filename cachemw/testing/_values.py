"""Reading and writing values."""

from __future__ import annotations

import datetime
import decimal
import pickle
import zlib
from collections.abc import Callable
from typing import Any

import pytest

from cachemw.testing._face import Contract, Face

__all__ = ["ValueContract"]


class Unpicklable:
    """Raises what pickle raises."""

    def __reduce__(self) -> Any:
        raise pickle.PicklingError("not me")


class Counted:
    """Counts how often its constructor runs."""

    made = 0

    def __init__(self, name: str) -> None:
        type(self).made += 1
        self.name = name


VALUES = [
    "text",
    "",
    "ünïcödé ✓ \U0001f600",
    "7",
    b"bytes",
    b"",
    b"7",
    b"\x00\x80\xff",
    zlib.compress(b"compressed" * 50),
    0,
    -1,
    2**63 - 1,
    -(2**63),
    2**63,
    10**40,
    True,
    False,
    1.5,
    float("inf"),
    None,
    (1, "two", None),
    [1, [2, {"three": 3}]],
    {"a": {"b": (1, 2)}, 3: None},
    {1, 2, 3},
    datetime.datetime(2024, 2, 29, 12, 30, tzinfo=datetime.UTC),
    decimal.Decimal("1.10"),
    len,
    datetime.date,
]


class ValueContract(Contract):
    def test_a_missing_key_gives_none_or_the_default(self, cache: Face) -> None:
        assert cache.get("missing") is None
        assert cache.get("missing", "default") == "default"
        assert cache.get("missing", default=7) == 7

    def test_none_is_a_value(self, cache: Face) -> None:
        cache.set("none", None)
        assert cache.get("none", "default") is None
        assert cache.get_many(["none", "other"]) == {"none": None}
        assert cache.has_key("none") is True
        assert "none" in cache
        assert cache.get_or_set("none", "default") is None
        assert cache.add("none", "other") is False
        assert cache.incr_version("none") == 2
        assert cache.get("none", "default", version=2) is None

    @pytest.mark.parametrize("value", VALUES, ids=repr)
    def test_a_value_comes_back_as_it_was(self, cache: Face, value: Any) -> None:
        cache.set("value", value)
        assert cache.get("value") == value
        assert type(cache.get("value")) is type(value)
        assert cache.delete("value") is True
        assert cache.add("value", value) is True
        assert cache.get_many(["value"]) == {"value": value}
        cache.set_many({"value": "other", "second": value})
        assert cache.get("second") == value

    def test_a_megabyte_less_a_little_comes_back(self, cache: Face) -> None:
        value = bytes(range(256)) * 3900
        cache.set("big", value)
        assert cache.get("big") == value

    def test_a_value_is_a_copy(self, cache: Face) -> None:
        value = {"list": [1]}
        cache.set("copy", value)
        value["list"].append(2)
        first = cache.get("copy")
        assert first == {"list": [1]}
        first["list"].append(3)
        assert cache.get("copy") == {"list": [1]}

    def test_unpickling_does_not_run_the_constructor(self, cache: Face) -> None:
        cache.set("object", Counted("name"))
        before = Counted.made
        assert cache.get("object").name == "name"
        assert Counted.made == before

    def test_a_value_that_was_read_can_be_stored_again(self, cache: Face) -> None:
        cache.set("first", {"cookies": ["a=1", "b=2"]})
        cache.set("second", cache.get("first"))
        assert cache.get("second") == {"cookies": ["a=1", "b=2"]}

    def test_a_value_that_cannot_be_pickled_raises_pickles_error_and_names_the_key(self, cache: Face) -> None:
        cache.set("spoiled", "old")
        calls: tuple[Callable[[], Any], ...] = (
            lambda: cache.set("spoiled", Unpicklable()),
            lambda: cache.add("spoiled", Unpicklable()),
            lambda: cache.set_many({"fine": 1, "spoiled": Unpicklable()}),
        )
        for call in calls:
            with pytest.raises(pickle.PicklingError, match="spoiled"):
                call()
        assert cache.get("spoiled") == "old"
        assert cache.get("fine") is None

    def test_set_replaces_and_returns_nothing(self, cache: Face) -> None:
        assert cache.set("key", "old") is None
        cache.set("key", "new")
        assert cache.get("key") == "new"

    def test_add_stores_only_what_is_absent(self, cache: Face) -> None:
        assert cache.add("key", "first") is True
        assert cache.add("key", "second") is False
        assert cache.get("key") == "first"

    def test_delete_says_whether_there_was_something(self, cache: Face) -> None:
        cache.set_many({"one": 1, "two": 2})
        assert cache.delete("one") is True
        assert cache.delete("one") is False
        assert cache.get("one") is None
        assert cache.get("two") == 2

    def test_has_key_gives_booleans(self, cache: Face) -> None:
        cache.set("there", "")
        assert cache.has_key("there") is True
        assert cache.has_key("elsewhere") is False
        assert "there" in cache
        assert "elsewhere" not in cache

    def test_get_many_gives_what_is_there_by_the_callers_keys(self, cache: Face) -> None:
        cache.set_many({"a": 1, "b": 2, 3: "three"})
        assert cache.get_many(["a", "c", 3]) == {"a": 1, 3: "three"}
        assert cache.get_many(iter(["a", "b"])) == {"a": 1, "b": 2}
        assert cache.get_many(["a", "a"]) == {"a": 1}
        assert cache.get_many([3, "3"]) == {3: "three", "3": "three"}
        assert cache.get_many([]) == {}
        assert cache.get_many(iter(())) == {}

    def test_set_many_stores_all_and_returns_no_failures(self, cache: Face) -> None:
        assert cache.set_many({"a": 1, "b": [2]}) == []
        assert cache.get_many(["a", "b"]) == {"a": 1, "b": [2]}
        assert cache.set_many({}) == []

    def test_many_at_once(self, cache: Face) -> None:
        data = {f"key{number}": f"value {number}" for number in range(250)}
        assert cache.set_many(data) == []
        assert cache.get_many(data) == data
        cache.delete_many(data)
        assert cache.get_many(data) == {}

    def test_delete_many_returns_nothing(self, cache: Face) -> None:
        cache.set_many({"a": 1, "b": 2, "c": 3})
        assert cache.delete_many(iter(["a", "b", "missing"])) is None
        assert cache.get_many(["a", "b", "c"]) == {"c": 3}
        assert cache.delete_many([]) is None
        assert cache.delete_many(iter(())) is None

    def test_clear_empties_the_store(self, cache: Face) -> None:
        cache.set_many({"a": 1, "b": 2})
        assert cache.clear() is None
        assert cache.get_many(["a", "b"]) == {}
        cache.clear()

    def test_a_closed_cache_can_be_used_again(self, cache: Face) -> None:
        assert cache.close() is None
        cache.set("a", 1)
        cache.close()
        cache.close()
        assert cache.get("a") == 1

    def test_get_or_set_gives_what_is_there_else_stores_the_default(self, cache: Face) -> None:
        assert cache.get_or_set("key", "default") == "default"
        assert cache.get("key") == "default"
        assert cache.get_or_set("key", "other") == "default"

    def test_get_or_set_calls_a_callable_only_on_a_miss(self, cache: Face) -> None:
        calls: list[int] = []

        def default() -> str:
            calls.append(1)
            return "made"

        assert cache.get_or_set("key", default) == "made"
        assert cache.get_or_set("key", default) == "made"
        assert calls == [1]

    def test_get_or_set_stores_a_callables_none(self, cache: Face) -> None:
        assert cache.get_or_set("key", lambda: None) is None
        assert "key" in cache

    def test_get_or_set_hands_on_an_exception_and_stores_nothing(self, cache: Face) -> None:
        def default() -> str:
            raise ZeroDivisionError

        with pytest.raises(ZeroDivisionError):
            cache.get_or_set("key", default)
        assert "key" not in cache
        assert cache.get_or_set("key", "now") == "now"

    def test_get_or_set_without_time_gives_the_default_and_stores_nothing(self, cache: Face) -> None:
        assert cache.get_or_set("key", lambda: ["made"], timeout=0) == ["made"]
        assert "key" not in cache

    def test_get_or_set_that_lost_a_race_gives_what_won(self, cache: Face) -> None:
        def default() -> str:
            cache.cache.set("key", "winner")
            return "loser"

        assert cache.get_or_set("key", default) == "winner"

    def test_get_or_set_needs_a_default(self, cache: Face) -> None:
        with pytest.raises(TypeError, match="missing 1 required positional argument: 'default'"):
            cache.get_or_set("key")

    def test_get_or_set_within_its_own_default_does_not_wait_for_itself(self, cache: Face) -> None:
        inner = cache.cache

        async def deep() -> Any:
            return await inner.aget_or_set("key", "deep")

        assert cache.get_or_set("key", deep if cache.run else lambda: inner.get_or_set("key", "deep")) == "deep"
