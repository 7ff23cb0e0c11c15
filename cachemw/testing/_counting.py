"""incr and decr."""

from __future__ import annotations

from typing import Any

import pytest

from cachemw.testing._face import Contract, Face

__all__ = ["CountingContract"]


class CountingContract(Contract):
    def test_incr_and_decr_give_the_new_value(self, cache: Face) -> None:
        cache.set("answer", 41)
        assert cache.incr("answer") == 42
        assert cache.get("answer") == 42
        assert type(cache.get("answer")) is int
        assert cache.incr("answer", 10) == 52
        assert cache.incr("answer", -10) == 42
        assert cache.decr("answer") == 41
        assert cache.decr("answer", delta=11) == 30
        assert cache.decr("answer", -5) == 35
        assert cache.incr("answer", 0) == 35

    def test_below_zero_is_negative(self, cache: Face) -> None:
        cache.set("count", 1)
        assert cache.decr("count", 3) == -2
        assert cache.get("count") == -2
        assert cache.incr("count") == -1
        assert cache.incr("count") == 0
        assert cache.incr("count") == 1
        cache.set("negative", -(10**12))
        assert cache.decr("negative") == -(10**12) - 1

    def test_added_and_many_set_integers_count_too(self, cache: Face) -> None:
        cache.add("added", 9)
        cache.set_many({"many": 99})
        assert cache.incr("added") == 10
        assert cache.decr("added") == 9
        assert cache.incr("many") == 100
        assert cache.decr("many") == 99
        assert cache.get_many(["added", "many"]) == {"added": 9, "many": 99}

    @pytest.mark.parametrize("delta", [1, -1, 0])
    def test_a_missing_key_is_a_value_error_and_stays_missing(self, cache: Face, delta: int) -> None:
        with pytest.raises(ValueError, match="'missing' not found"):
            cache.incr("missing", delta)
        with pytest.raises(ValueError, match="'missing' not found"):
            cache.decr("missing", delta)
        assert "missing" not in cache

    @pytest.mark.parametrize("value", [None, "7", b"7", 1.5, True, [1], 2**63], ids=repr)
    def test_what_is_no_integer_is_a_type_error_and_stays(self, cache: Face, value: Any) -> None:
        cache.set("value", value)
        with pytest.raises(TypeError):
            cache.incr("value")
        with pytest.raises(TypeError):
            cache.decr("value")
        assert cache.get("value") == value
        assert type(cache.get("value")) is type(value)

    @pytest.mark.parametrize("delta", ["1", 1.5, None], ids=repr)
    def test_a_delta_that_is_no_integer_is_a_type_error(self, cache: Face, delta: Any) -> None:
        cache.set("count", 1)
        with pytest.raises(TypeError):
            cache.incr("count", delta)
        with pytest.raises(TypeError):
            cache.decr("count", delta)
        assert cache.get("count") == 1

    @pytest.mark.parametrize(("value", "delta"), [(2**63 - 1, 1), (-(2**63), -1), (1, 2**63), (0, -(2**64))])
    def test_beyond_64_bits_is_an_overflow_error_and_changes_nothing(self, cache: Face, value: int, delta: int) -> None:
        cache.set("count", value)
        with pytest.raises(OverflowError):
            cache.incr("count", delta)
        with pytest.raises(OverflowError):
            cache.decr("count", -delta)
        assert cache.get("count") == value

    def test_the_ends_of_64_bits_can_be_reached(self, cache: Face) -> None:
        cache.set_many({"top": 2**63 - 2, "bottom": -(2**63) + 1})
        assert cache.incr("top") == 2**63 - 1
        assert cache.decr("bottom") == -(2**63)

    def test_versions_count_apart(self, cache: Face) -> None:
        cache.set("count", 37, version=1)
        cache.set("count", 42, version=2)
        assert cache.incr("count", version=2) == 43
        assert cache.decr("count", 7, version=1) == 30
        assert cache.get("count", version=1) == 30
        assert cache.get("count", version=2) == 43
