"""The contract on the smallest store one can write, and what the base does when a store fails."""

from __future__ import annotations

import asyncio
import itertools
import logging
import threading
import time
import warnings
from collections.abc import Callable, Sequence
from typing import Any, ClassVar

import pytest

from cachemw.backends.base import BaseCache, BlockingCache, Entry, Value, offload
from cachemw.backends.locmem import LocMemCache
from cachemw.errors import BackendUnavailable, ImproperlyConfigured, InvalidCacheKey, SerializationError
from cachemw.testing import BackendContract, Face
from cachemw.testing._concurrency import in_threads
from cachemw.testing._face import MakeCache

_names = itertools.count()


class DictCache(BlockingCache):
    """Bytes and integers in a dictionary, as a server would keep them."""

    stores: ClassVar[dict[str, dict[str, tuple[Value, float | None]]]] = {}
    shared: ClassVar[bool] = False
    max_key_length: ClassVar[int | None] = 255
    clock: Callable[[], float] = staticmethod(time.monotonic)

    def __init__(self, location: str | Sequence[str], params: Any) -> None:
        super().__init__(location, params)
        self._data = self.stores.setdefault(str(location), {})
        self._lock = threading.RLock()

    def _alive(self, key: str) -> tuple[Value, float | None] | None:
        found = self._data.get(key)
        return None if found is None or (found[1] is not None and found[1] <= self.clock()) else found

    def _get(self, keys: Sequence[str]) -> dict[str, Value]:
        return {key: found[0] for key in keys if (found := self._alive(key)) is not None}

    def _set(self, entries: Sequence[Entry]) -> list[str]:
        for key, value, timeout in entries:
            assert type(value) in (bytes, int)
            assert timeout is None or (timeout > 0 and type(timeout) is float)
            self._data[key] = (value, None if timeout is None else self.clock() + timeout)
        return []

    def _add(self, key: str, value: Any, timeout: float | None) -> bool:
        with self._lock:
            return self._alive(key) is None and not self._set([(key, value, timeout)])

    def _touch(self, key: str, timeout: float | None) -> bool:
        found = self._alive(key)
        return found is not None and not self._set([(key, found[0], timeout)])

    def _delete(self, keys: Sequence[str]) -> int:
        return sum(self._alive(key) is not None and self._data.pop(key) is not None for key in keys)

    def _incr(self, key: str, delta: int) -> int:
        with self._lock:
            if (found := self._alive(key)) is None:
                raise KeyError(key)
            if not isinstance(found[0], int):
                raise TypeError(key)
            if not -(2**63) <= found[0] + delta < 2**63:
                raise OverflowError(key)
            self._data[key] = (found[0] + delta, found[1])
            return found[0] + delta

    def _timeout_left(self, key: str) -> float | None:
        ends = self._data[key][1]
        return None if ends is None else ends - self.clock()

    def _clear(self) -> None:
        self._data.clear()


class TestSmallestStore(BackendContract):
    now = 1000.0
    kind: ClassVar[type[DictCache]] = DictCache

    @pytest.fixture
    def make_cache(self) -> MakeCache:
        name = f"contract {next(_names)}"

        def make(**params: Any) -> BaseCache:
            cache = self.kind(name, params)
            cache._lock = DictCache.stores.setdefault(name + " lock", threading.RLock())  # type: ignore[arg-type,assignment]
            cache.clock = lambda: self.now
            return cache

        return make

    def pass_time(self, seconds: float) -> None:
        self.now += seconds


class StrictCache(DictCache):
    """Takes what memcached takes."""

    strict_keys: ClassVar[bool] = True
    max_key_length: ClassVar[int | None] = 250


class TestStrictStore(TestSmallestStore):
    kind = StrictCache

    def test_a_prefix_that_the_store_cannot_take_is_refused(self, make_cache: MakeCache) -> None:
        for prefix in ("two words", "tab\t", "x" * 200):
            with pytest.raises(ImproperlyConfigured, match="KEY_PREFIX"):
                make_cache(KEY_PREFIX=prefix)
        key = make_cache(KEY_PREFIX="x" * 170).page_key("resource\x00rest")
        assert len(key) <= 250

    def test_a_warning_is_an_error(self, make_cache: MakeCache) -> None:
        with pytest.raises(InvalidCacheKey, match="longer than 250"):
            make_cache().get("k" * 251)


# -- a store that cannot tell timeouts, and leaves every default in place ---------------------------------------------


class Forgetful(DictCache):
    def _timeout_left(self, key: str) -> float | None:
        return BaseCache._timeout_left(self, key)


def test_where_a_store_cannot_tell_another_version_has_the_default_timeout() -> None:
    cache = Forgetful(f"forgetful {next(_names)}", {"TIMEOUT": 50})
    cache.set("key", "value", 5)
    cache.incr_version("key")
    assert cache._data[":2:key"][1] == pytest.approx(time.monotonic() + 50, abs=5)


class Bare(LocMemCache):
    """Natively async by the base's own defaults: `_ahas`, `_atimeout_left`, `_aclose`."""

    _ahas = BaseCache._ahas
    _atimeout_left = BaseCache._atimeout_left
    closed = 0

    def _has(self, key: str) -> bool:
        return BaseCache._has(self, key)

    def _close(self) -> None:
        self.closed += 1


def test_the_defaults_of_optional_primitives_work() -> None:
    async def main() -> None:
        cache = Bare(f"bare {next(_names)}", {})
        await cache.aset("key", 1)
        assert await cache.ahas_key("key") is True
        assert await cache.ahas_key("other") is False
        assert cache.has_key("key") is True
        assert await cache.aincr_version("key") == 2
        await cache.aclose()
        cache.close()
        assert cache.closed == 2

    asyncio.run(main())


def test_a_backend_that_lacks_a_primitive_cannot_be_made() -> None:
    class Unfinished(BlockingCache):
        def _get(self, keys: Sequence[str]) -> dict[str, Any]:
            return {}

    with pytest.raises(TypeError, match="_add"):
        Unfinished("", {})  # type: ignore[abstract]


# -- keys ------------------------------------------------------------------------------------------------------------


def test_a_warning_points_at_the_caller() -> None:
    cache = LocMemCache(f"warn {next(_names)}", {})
    for operation in (cache.get, cache.delete, cache.has_key, cache.touch):
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            operation("two words")
        assert [one.filename for one in caught] == [__file__]
    for several in (
        lambda: cache.get_or_set("two words", 1),
        lambda: cache.decr("two words"),
        lambda: cache.incr_version("two words"),
    ):
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            several()
        assert {one.filename for one in caught} == {__file__}


class Permissive(LocMemCache):
    def validate_key(self, key: str) -> None:
        pass


class Choosy(LocMemCache):
    def validate_key(self, key: str) -> None:
        if "x" in key:
            raise InvalidCacheKey(key)


def test_a_subclass_may_have_its_own_rule_for_keys() -> None:
    permissive = Permissive(f"permissive {next(_names)}", {})
    permissive.set("two words " + "k" * 300, 1)
    assert permissive.get("two words " + "k" * 300) == 1
    choosy = Choosy(f"choosy {next(_names)}", {})
    choosy.set("abc", 1)
    with pytest.raises(InvalidCacheKey):
        choosy.get("xyz")


def test_pages_of_one_url_share_the_part_in_braces() -> None:
    cache = DictCache(f"keys {next(_names)}", {"KEY_PREFIX": "site", "VERSION": 2})
    index, one, two, other = (cache.page_key(key) for key in ("url", "url\x00a", "url\x00b", "other\x00a"))

    def tag(key: str) -> str:
        return key[key.index("{") : key.index("}")]

    assert tag(index) == tag(one) == tag(two) != tag(other)
    assert len({index, one, two, other}) == 4
    assert all(key.startswith("site:2:{") and len(key) < 100 for key in (index, one, two, other))
    assert LocMemCache("readable", {"KEY_PREFIX": "site"}).page_key("url\x00a") == "site:1:url\x00a"


def test_prefix_and_version_cannot_be_changed_under_the_pages() -> None:
    cache = LocMemCache("fixed", {})
    with pytest.raises(AttributeError):
        cache.version = 3  # type: ignore[misc]
    with pytest.raises(AttributeError):
        cache.key_prefix = "other"  # type: ignore[misc]


# -- settings --------------------------------------------------------------------------------------------------------


def test_names_are_understood_in_any_case_and_django_fills_in_the_rest() -> None:
    cache = LocMemCache("", {"timeout": "none", "Key_Prefix": None, "VERSION": None, "OPTIONS": None, "BACKEND": "x"})
    assert (cache.default_timeout, cache.key_prefix, cache.version) == (None, "", 1)
    assert LocMemCache("", {"TIMEOUT": 2**40}).default_timeout is None


def test_a_repr_and_its_location_show_no_password() -> None:
    cache = DictCache(["redis://user:hidden@host:1/0?password=hidden&x=1", "unix:///socket"], {})
    assert "hidden" not in repr(cache)
    assert repr(cache) == "<DictCache redis://***@host:1/0?password=***&x=1, unix:///socket>"


# -- failure ---------------------------------------------------------------------------------------------------------


def _refused(self: Any, *args: Any) -> Any:
    raise BackendUnavailable("connection refused")


_PRIMITIVES = ("_get", "_set", "_add", "_touch", "_delete", "_incr", "_clear", "_has", "_timeout_left")

#: Every primitive fails as a networked store does.
Down: type[DictCache] = type("Down", (DictCache,), dict.fromkeys(_PRIMITIVES, _refused))


@pytest.fixture(params=["sync", "async"])
def half(request: pytest.FixtureRequest) -> Any:
    with asyncio.Runner() as runner:
        yield runner.run if request.param == "async" else None


OPERATIONS: dict[str, tuple[Callable[[Face], Any], Any]] = {
    "get": (lambda cache: cache.get("key", "default"), "default"),
    "set": (lambda cache: cache.set("key", 1), None),
    "set nothing": (lambda cache: cache.set("key", 1, 0), None),
    "add": (lambda cache: cache.add("key", 1), False),
    "touch": (lambda cache: cache.touch("key"), False),
    "delete": (lambda cache: cache.delete("key"), False),
    "get_many": (lambda cache: cache.get_many(["key", "b"]), {}),
    "set_many": (lambda cache: cache.set_many({"key": 1, 2: 3}), ["key", 2]),
    "delete_many": (lambda cache: cache.delete_many(["key"]), None),
    "has_key": (lambda cache: cache.has_key("key"), False),
    "in": (lambda cache: "key" in cache, False),
    "get_or_set": (lambda cache: cache.get_or_set("key", lambda: "made"), "made"),
    "clear": (lambda cache: cache.clear(), None),
}


@pytest.mark.parametrize("name", OPERATIONS)
def test_a_store_that_is_down_raises(half: Any, name: str) -> None:
    with pytest.raises(BackendUnavailable, match="connection refused"):
        OPERATIONS[name][0](Face(Down("down", {}), half))


@pytest.mark.parametrize("name", OPERATIONS)
def test_or_holds_nothing_where_it_fails_open(half: Any, name: str) -> None:
    operation, expected = OPERATIONS[name]
    assert operation(Face(Down("down", {"OPTIONS": {"FAIL_OPEN": True}}), half)) == expected


def test_where_it_fails_open_there_is_nothing_to_count(half: Any) -> None:
    cache = Face(Down("down", {"OPTIONS": {"fail_open": "yes"}}), half)
    for operation in (cache.incr, cache.decr, cache.incr_version):
        with pytest.raises(ValueError, match="'key' not found"):
            operation("key")


def test_pages_see_the_failure_even_where_values_fail_open(half: Any) -> None:
    cache = Face(Down("down", {"OPTIONS": {"fail_open": True}}), half)
    operations: list[Callable[[], Any]] = [
        lambda: cache.read_records(["page"]),
        lambda: cache.write_records([("page", b"body", 1.0)]),
        lambda: cache.write_records([("page", b"body", 0)]),
        lambda: cache.drop_records(["page"]),
        lambda: cache.add_record("page", b"body", 1.0),
    ]
    for operation in operations:
        with pytest.raises(BackendUnavailable):
            operation()


@pytest.mark.parametrize("options", [5, "max_entries", ["max_entries"]], ids=repr)
def test_options_are_a_mapping(options: Any) -> None:
    with pytest.raises(ImproperlyConfigured, match="OPTIONS is '…'"):
        LocMemCache("options", {"OPTIONS": options})


def test_only_unavailability_fails_open() -> None:
    cache = LocMemCache(f"open {next(_names)}", {"OPTIONS": {"fail_open": True}})
    cache.set("key", "text")
    with pytest.raises(TypeError):
        cache.incr("key")
    with pytest.raises(SerializationError, match="key"):
        cache.set("key", lambda: None)
    assert cache.get("key") == "text"


def test_failing_open_is_logged_once_a_minute(
    caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    now = 5.0
    monkeypatch.setattr("cachemw.backends._failopen.time.monotonic", lambda: now)
    cache = Down("redis://user:hidden@host", {"OPTIONS": {"fail_open": True}})
    with caplog.at_level(logging.WARNING, "cachemw"):
        for _ in range(50):
            cache.get("key")
        assert len(caplog.records) == 1
        now += 61
        cache.get("key")
        cache.get("key")
    assert len(caplog.records) == 2
    assert "connection refused" in caplog.text
    assert "hidden" not in caplog.text


@pytest.mark.parametrize("value", ["perhaps", 2, None])
def test_fail_open_is_yes_or_no(value: Any) -> None:
    with pytest.raises(ImproperlyConfigured, match="fail_open"):
        LocMemCache("", {"OPTIONS": {"fail_open": value}})


# -- offloading ------------------------------------------------------------------------------------------------------


def test_blocking_work_leaves_the_loop_free_and_is_bounded() -> None:
    running = 0
    most = 0
    lock = threading.Lock()
    full, release = threading.Event(), threading.Event()

    def work() -> str:
        nonlocal running, most
        with lock:
            running += 1
            most = max(most, running)
            if most == 16:
                full.set()
        assert release.wait(10)
        with lock:
            running -= 1
        return threading.current_thread().name

    async def main() -> None:
        tasks = [asyncio.create_task(offload(work)) for _ in range(40)]
        assert await asyncio.to_thread(full.wait, 10)
        release.set()
        assert threading.current_thread().name not in await asyncio.gather(*tasks)

    asyncio.run(main())
    assert most == 16


def test_every_event_loop_has_its_own_bound() -> None:
    cache = DictCache(f"loops {next(_names)}", {})

    def loop(number: int) -> Any:
        async def main() -> Any:
            await cache.aset(number, number)
            return await cache.aget(number)

        return [asyncio.run(main()) for _ in range(3)]

    assert in_threads(4, loop) == [[number] * 3 for number in range(4)]
