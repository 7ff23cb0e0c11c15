"""Keys: prefixes, versions, key functions, and keys that a store cannot take."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from contextlib import suppress
from typing import Any

import pytest

from cachemw.errors import CacheKeyWarning, ImproperlyConfigured, InvalidCacheKey
from cachemw.testing._face import Connect, Contract, Face

__all__ = ["KeyContract", "reversed_key"]


def reversed_key(key: Any, key_prefix: str, version: Any) -> str:
    """A key function for the tests, which is found by its dotted path too."""
    return f"CUSTOM-{key_prefix}-{version}-{str(key)[::-1]}"


#: Every operation, on one bad key.
OPERATIONS: dict[str, Callable[[Face, str], Any]] = {
    "add": lambda cache, key: cache.add(key, 1),
    "decr": lambda cache, key: cache.decr(key),
    "delete": lambda cache, key: cache.delete(key),
    "delete_many": lambda cache, key: cache.delete_many([key, "fine"]),
    "get": lambda cache, key: cache.get(key),
    "get_many": lambda cache, key: cache.get_many([key, "fine"]),
    "get_or_set": lambda cache, key: cache.get_or_set(key, 1),
    "has_key": lambda cache, key: cache.has_key(key),
    "incr": lambda cache, key: cache.incr(key),
    "incr_version": lambda cache, key: cache.incr_version(key),
    "set": lambda cache, key: cache.set(key, 1),
    "set_many": lambda cache, key: cache.set_many({key: 1, "fine": 2}),
    "touch": lambda cache, key: cache.touch(key),
}

BAD_KEYS = {
    "space": "key with spaces",
    "newline": "line\r\nfeed",
    "nul": "nul\x00character",
    "delete": "delete\x7fcharacter",
    "control": "control\x01character",
    "long": "k" * 248,  # 251 characters with ":1:"
}


class KeyContract(Contract):
    def test_a_key_is_prefix_version_key(self, connect: Connect) -> None:
        assert connect().cache.make_key("key") == ":1:key"
        cache = connect(KEY_PREFIX="site", VERSION=3).cache
        assert cache.make_key("key") == "site:3:key"
        assert cache.make_key(7, version=9) == "site:9:7"
        assert (cache.key_prefix, cache.version) == ("site", 3)

    def test_keys_need_not_be_text(self, cache: Face) -> None:
        cache.set(7, "seven")
        assert cache.get(7) == "seven"
        assert cache.get("7") == "seven"
        assert cache.get_many([7]) == {7: "seven"}

    def test_text_of_any_language_is_a_key(self, cache: Face) -> None:
        for key in ("ключ", "鍵", "clé", "\U0001f511", "ke'y\"`;--", "%s{}*?[a]\\", "a:b", "ß", "é", "É"):
            if not cache.cache.strict_keys or key.isascii():
                cache.set(key, f"value of {key}")
                assert cache.get(key) == f"value of {key}"

    def test_keys_differ_by_case_accents_and_trailing_characters(self, cache: Face) -> None:
        keys = ["key", "Key", "KEY", "key.", "key/", "ke", "key0"]
        assert cache.set_many({key: key for key in keys}) == []
        assert cache.get_many(keys) == {key: key for key in keys}
        assert cache.delete("KEY") is True
        assert cache.get_many(keys) == {key: key for key in keys if key != "KEY"}

    def test_a_prefix_separates_equal_keys(self, connect: Connect) -> None:
        one, other = connect(KEY_PREFIX="one"), connect(KEY_PREFIX="other")
        one.set("key", 1)
        assert "key" not in other
        other.set("key", 2)
        assert (one.get("key"), other.get("key")) == (1, 2)
        other.delete("key")
        assert one.get("key") == 1

    def test_versions_are_apart_and_can_be_addressed(self, connect: Connect) -> None:
        first, second = connect(VERSION=1), connect(VERSION=2)
        first.set("key", 1)
        assert second.get("key") is None
        assert second.get("key", version=1) == 1
        assert second.add("key", 2) is True
        assert second.add("key", 3, version=1) is False
        assert first.get_many(["key"], version=2) == {"key": 2}
        assert first.set_many({"a": 10, "b": 20}, version=2) == []
        assert second.get_many(["a", "b"]) == {"a": 10, "b": 20}
        assert first.has_key("a") is False
        assert first.has_key("a", version=2) is True
        assert first.touch("a", version=2) is True
        assert first.touch("a") is False
        assert first.delete("a") is False
        assert first.delete("a", version=2) is True
        first.delete_many(["b"], version=2)
        assert second.get("b") is None
        assert first.get_or_set("c", "see", version=2) == "see"
        assert (first.get("c"), second.get("c")) == (None, "see")
        first.set("d", "text", version="draft")
        assert second.get("d", version="draft") == "text"

    def test_incr_version_moves_a_value(self, cache: Face) -> None:
        cache.set("key", [42], version=2)
        cache.set("count", 42, version=2)
        assert cache.incr_version("key", version=2) == 3
        assert cache.incr_version("count", version=2) == 3
        assert cache.get("key", version=2) is None
        assert cache.get("key", version=3) == [42]
        assert cache.incr("count", version=3) == 43
        assert cache.decr_version("key", version=3) == 2
        assert cache.get("key", version=3) is None
        assert cache.get("key", version=2) == [42]
        assert cache.decr_version("key", version=2) == 1
        assert cache.incr_version("key", delta=4) == 5
        assert cache.incr_version("key", delta=0, version=5) == 5
        assert cache.get("key", version=5) == [42]

    def test_incr_version_of_a_missing_key_is_a_value_error(self, cache: Face) -> None:
        with pytest.raises(ValueError, match="'missing' not found"):
            cache.incr_version("missing")
        with pytest.raises(ValueError, match="'missing' not found"):
            cache.decr_version("missing")

    def test_a_key_function_may_be_a_callable_or_its_path(self, connect: Connect) -> None:
        plain = connect()
        by_value = connect(KEY_FUNCTION=reversed_key)
        by_path = connect(KEY_FUNCTION="cachemw.testing._keys.reversed_key")
        assert by_value.cache.make_key("key", 2) == "CUSTOM--2-yek"
        plain.set("key", "plain")
        assert by_value.get("key") is None
        by_value.set("key", "custom")
        assert by_path.get("key") == "custom"
        assert plain.get("key") == "plain"
        plain.cache.key_func = reversed_key
        assert plain.get("key") == "custom"

    def test_a_key_function_that_cannot_be_used_is_refused(self, connect: Connect) -> None:
        for function in ("no.such.module.function", "nodots", 7, lambda key: key):
            with pytest.raises(ImproperlyConfigured, match="KEY_FUNCTION"):
                connect(KEY_FUNCTION=function)

    @pytest.mark.parametrize("made", [b"key", None])
    def test_a_key_function_that_makes_no_text_is_an_error_that_names_it(self, connect: Connect, made: Any) -> None:
        cache = connect(KEY_FUNCTION=lambda key, key_prefix, version: made)
        for operation in OPERATIONS.values():
            with pytest.raises(
                ImproperlyConfigured, match=r"^The key that KEY_FUNCTION makes of '.*; allowed: a string$"
            ):
                operation(cache, "key")

    @pytest.mark.parametrize("operation", OPERATIONS)
    @pytest.mark.parametrize("bad", BAD_KEYS)
    def test_a_key_that_memcached_refuses_warns_or_is_refused(self, cache: Face, operation: str, bad: str) -> None:
        key = BAD_KEYS[bad]
        if cache.cache.strict_keys:
            with pytest.raises(InvalidCacheKey, match="memcached"):
                OPERATIONS[operation](cache, key)
            assert cache.get("fine") is None
            return
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always", CacheKeyWarning)
            with suppress(ValueError):  # "not found", of incr and incr_version
                OPERATIONS[operation](cache, key)
        messages = {str(one.message) for one in caught if one.category is CacheKeyWarning}
        made = cache.cache.make_key(key)
        expected = (
            f"Cache key will cause errors if used with memcached: {made!r} (longer than 250)"
            if bad == "long"
            else f"Cache key contains characters that will cause errors if used with memcached: {made!r}"
        )
        assert expected in messages

    @pytest.mark.filterwarnings("ignore::cachemw.errors.CacheKeyWarning")
    @pytest.mark.parametrize("bad", BAD_KEYS)
    def test_a_key_that_was_warned_about_works(self, cache: Face, bad: str) -> None:
        if not cache.cache.strict_keys:
            key = BAD_KEYS[bad]
            cache.set(key, "value")
            assert cache.get(key) == "value"
            assert cache.get_many([key, "other"]) == {key: "value"}
            assert cache.delete(key) is True

    @pytest.mark.filterwarnings("ignore::cachemw.errors.CacheKeyWarning")
    def test_a_key_of_ten_thousand_characters_works_or_is_one_clear_error(self, cache: Face) -> None:
        long = "k" * 10_000
        if cache.cache.max_key_length is None or cache.cache.max_key_length > 20_000:
            cache.set(long, "value")
            assert cache.get(long) == "value"
            assert cache.get(long[:-1]) is None
        else:
            for operation in OPERATIONS.values():
                with pytest.raises(InvalidCacheKey, match=r"k{100}"):
                    operation(cache, long)

    @pytest.mark.parametrize("bad", ["é" * 200, "\ud800"], ids=["many bytes", "half a pair"])
    def test_a_key_that_cannot_be_written_is_refused_and_costs_the_others_nothing(self, cache: Face, bad: str) -> None:
        """What a visitor has written may be part of it; a server that complained must not count as broken."""
        refused = []
        for name, operation in OPERATIONS.items():
            try:
                operation(cache, bad)
            except InvalidCacheKey:
                refused.append(name)
        assert refused in ([], list(OPERATIONS))
        cache.set("fine", "value")
        assert cache.get("fine") == "value"

    def test_250_characters_are_not_too_many(self, cache: Face) -> None:
        cache.set("k" * 247, "value")
        assert cache.get("k" * 247) == "value"

    def test_an_unknown_setting_or_option_is_refused(self, connect: Connect) -> None:
        with pytest.raises(ImproperlyConfigured, match="TIMEOUTS"):
            connect(TIMEOUTS=3)
        with pytest.raises(ImproperlyConfigured, match="no_such_option"):
            connect(OPTIONS={"no_such_option": 1})
        for timeout in ("soon", "", True, float("nan")):
            with pytest.raises(ImproperlyConfigured, match="TIMEOUT"):
                connect(TIMEOUT=timeout)
