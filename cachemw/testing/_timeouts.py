"""How long entries live."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import pytest

from cachemw.testing._face import Connect, Contract, Face

__all__ = ["TimeoutContract"]


class Several:
    """Adds up as an array does: to what compares with numbers, and is none."""

    def __add__(self, other: object) -> Several:
        return self

    def __lt__(self, other: object) -> bool:
        return True

    def __le__(self, other: object) -> bool:
        return False


class TimeoutContract(Contract):
    def test_the_default_timeout_is_five_minutes(self, connect: Connect) -> None:
        assert connect().cache.default_timeout == 300
        assert connect(TIMEOUT=None).cache.default_timeout is None
        assert connect(TIMEOUT="12.5").cache.default_timeout == 12.5

    def test_an_entry_lives_for_its_timeout(self, cache: Face) -> None:
        short = self.shortest_timeout
        cache.set("short", "value", short * 10)
        cache.set("shorter", [1], timeout=short)
        cache.add("added", 1, short)
        cache.set_many({"many1": 1, "many2": "2"}, short)
        cache.set("long", "value")
        assert "short" in cache
        self.wait_until_gone(cache, "many2", short)
        for key in ("shorter", "added", "many1", "many2"):
            self.wait_until_gone(cache, key, 0)
            assert cache.get(key, "default") == "default"
        assert cache.get_many(["shorter", "added", "many1", "long"]) == {"long": "value"}
        assert cache.get("long") == "value"

    def test_what_expired_counts_as_absent(self, cache: Face) -> None:
        short = self.shortest_timeout
        cache.set_many({"one": "old", "two": 1, "three": 1}, short)
        self.wait_until_gone(cache, "three", short)
        for key in ("one", "two"):
            self.wait_until_gone(cache, key, 0)
        assert cache.touch("one") is False
        assert cache.get("one") is None
        assert cache.delete("one") is False
        with pytest.raises(ValueError, match="two"):
            cache.incr("two")
        with pytest.raises(ValueError, match="three"):
            cache.incr_version("three")
        assert cache.add("one", "new") is True
        assert cache.get("one") == "new"

    def test_the_caches_own_timeout_applies_where_none_is_given(self, connect: Connect) -> None:
        cache = connect(TIMEOUT=self.shortest_timeout)
        cache.set("key", "value")
        cache.set("for ever".replace(" ", "-"), "value", None)
        self.wait_until_gone(cache, "key", self.shortest_timeout)
        assert cache.get("for-ever") == "value"

    def test_a_timeout_can_be_replaced(self, cache: Face) -> None:
        short = self.shortest_timeout
        cache.set("key", "value", short)
        assert cache.touch("key", 1000) is True
        cache.set("other", "value", 1000)
        assert cache.touch("other", timeout=short) is True
        cache.set("third", "value", short)
        assert cache.touch("third") is True
        cache.set("fourth", "value", short)
        assert cache.touch("fourth", None) is True
        cache.set("fifth", "value", short)
        cache.set("fifth", "value", 1000)
        self.wait_until_gone(cache, "other", short)
        for key in ("key", "third", "fourth", "fifth"):
            assert cache.get(key) == "value", key

    def test_touch_says_whether_there_was_something(self, cache: Face) -> None:
        assert cache.touch("missing") is False
        assert cache.touch("missing", None) is False
        assert cache.touch("missing", 0) is False
        assert cache.get("missing") is None

    @pytest.mark.parametrize("timeout", [0, -1, -0.5, 0.0, -math.inf, -(10**400)])
    def test_no_time_means_not_stored(self, cache: Face, timeout: Any) -> None:
        cache.set_many({"old": 1, "older": 1, "touched": 1})
        cache.set("old", 2, timeout)
        cache.set("new", 2, timeout)
        assert cache.set_many({"older": 2, "newer": 2}, timeout) == []
        assert cache.touch("touched", timeout) is True
        assert cache.get_many(["old", "new", "older", "newer", "touched"]) == {}

    def test_add_without_time_stores_nothing_and_changes_nothing(self, cache: Face) -> None:
        assert cache.add("free", 1, timeout=0) is True
        assert cache.get("free") is None
        cache.set("taken", 1)
        assert cache.add("taken", 2, timeout=0) is False
        assert cache.get("taken") == 1

    @pytest.mark.parametrize("timeout", [None, math.inf, 10**400, 60 * 60 * 24 * 30 + 1, 2**31, 2**40, 0.5 + 2**25])
    def test_long_and_endless_timeouts_count_from_now(self, cache: Face, timeout: Any) -> None:
        cache.set("set", "value", timeout)
        cache.add("added", 1, timeout)
        cache.set_many({"many": "value"}, timeout)
        cache.set("touched", "value")
        cache.touch("touched", timeout)
        assert set(cache.get_many(["set", "added", "many", "touched"])) == {"set", "added", "many", "touched"}

    @pytest.mark.parametrize("timeout", ["5", math.nan, [], object(), 5j, Several()], ids=lambda it: type(it).__name__)
    def test_what_is_no_time_is_refused_before_anything_happens(self, cache: Face, timeout: Any) -> None:
        cache.set("key", "old")
        calls: tuple[Callable[[], Any], ...] = (
            lambda: cache.set("key", "new", timeout),
            lambda: cache.add("other", "new", timeout),
            lambda: cache.set_many({"key": "new"}, timeout),
            lambda: cache.touch("key", timeout),
        )
        for call in calls:
            with pytest.raises(TypeError, match="timeout is"):
                call()
        assert cache.get_many(["key", "other"]) == {"key": "old"}

    def test_incr_leaves_the_timeout_alone(self, cache: Face) -> None:
        some_calls = self._time_for_some_calls()
        cache.set("counted", 1, some_calls)
        assert cache.incr("counted") == 2
        assert cache.decr("counted", 5) == -3
        self.wait_until_gone(cache, "counted", some_calls)
        cache.set("endless", 1, None)
        assert cache.incr("endless") == 2

    def test_another_version_keeps_the_timeout(self, connect: Connect) -> None:
        if self.tells_timeout:
            some_calls = self._time_for_some_calls()
            first, second = connect(VERSION=1), connect(VERSION=2)
            first.set("key", "value", some_calls)
            first.set("endless", "value", None)
            assert first.incr_version("key") == 2
            assert first.incr_version("endless") == 2
            assert second.get("key") == "value"
            self.wait_until_gone(second, "key", some_calls)
            assert second.get("endless") == "value"

    def _time_for_some_calls(self) -> float:
        return min(self.shortest_timeout * 4, self.shortest_timeout + 1)
