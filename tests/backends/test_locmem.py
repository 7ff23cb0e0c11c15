"""Local memory: recency, bounds, sharing, forks. What every store does is in the contract."""

from __future__ import annotations

import gc
import itertools
import math
import pickle
import signal
import sys
import threading
import tracemalloc
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from cachemw.backends import _memory
from cachemw.backends._footprint import footprint
from cachemw.backends.locmem import LocMemCache
from cachemw.errors import CacheKeyWarning, ImproperlyConfigured, InvalidCacheKey
from cachemw.rfc9111.messages import StoredResponse
from cachemw.testing._concurrency import in_processes, in_threads
from tests.servers import until

_names = itertools.count()


class Clock:
    now = 1000.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock() -> Clock:
    return Clock()


Make = Callable[..., LocMemCache]


@pytest.fixture
def make(clock: Clock) -> Make:
    """Caches of one store, with these OPTIONS."""
    name = f"locmem {next(_names)}"

    def make_cache(**options: Any) -> LocMemCache:
        return LocMemCache(name, {"OPTIONS": options}, clock=clock)

    return make_cache


def left(cache: LocMemCache, keys: Any) -> list[Any]:
    return [key for key in keys if key in cache]


# -- recency ---------------------------------------------------------------------------------------------------------


def _read(cache: LocMemCache, key: int) -> Any:
    return cache.get(key)


def _read_many(cache: LocMemCache, key: int) -> Any:
    return cache.get_many([key])


def _write(cache: LocMemCache, key: int) -> Any:
    return cache.set(key, key)


def _count(cache: LocMemCache, key: int) -> Any:
    return cache.incr(key)


@pytest.mark.parametrize("use", [_read, _read_many, _write, _count])
def test_at_the_limit_the_least_recently_used_third_goes(make: Make, use: Callable[[LocMemCache, int], Any]) -> None:
    cache = make(MAX_ENTRIES=9)
    for key in range(9):
        cache.set(key, key)
    for key in (8, 1, 2, 3, 7, 5):
        use(cache, key)
    cache.set(9, 9)
    assert left(cache, range(10)) == [1, 2, 3, 5, 7, 8, 9]


def _add(cache: LocMemCache, key: int) -> Any:
    return cache.add(key, "new")


@pytest.mark.parametrize("use", [LocMemCache.has_key, LocMemCache.touch, _add])
def test_looking_whether_a_key_is_there_does_not_keep_it(make: Make, use: Callable[[LocMemCache, int], Any]) -> None:
    cache = make(MAX_ENTRIES=9)
    for key in range(9):
        cache.set(key, key)
    for key in range(3):
        use(cache, key)
    cache.set(9, 9)
    assert left(cache, range(10)) == [3, 4, 5, 6, 7, 8, 9]


def test_pages_are_kept_by_use_as_values_are(make: Make) -> None:
    cache = make(MAX_ENTRIES=6)
    keys = [f"page{number}" for number in range(6)]
    cache.write_records([(key, key, None) for key in keys])
    cache.read_records(keys[:2])
    cache.write_records([("new", "new", None)])
    assert cache.read_records([*keys, "new"]) == ["page0", "page1", None, None, "page4", "page5", "new"]


def test_what_was_used_long_ago_goes_before_what_came_later(make: Make) -> None:
    cache = make(MAX_ENTRIES=6)
    for key in range(6):
        cache.set(key, key)
    cache.get(0)
    cache.get(1)
    cache.set(6, 6)  # 2 and 3 go; 0 and 1 have had their second chance
    cache.set(7, 7)
    cache.get(4)
    cache.get(5)
    cache.set(8, 8)  # 0 and 1 again, and nobody asked for them since
    assert left(cache, range(9)) == [4, 5, 6, 7, 8]


def test_reading_everything_evicts_the_oldest(make: Make) -> None:
    cache = make(MAX_ENTRIES=6)
    for key in range(6):
        cache.set(key, key)
    for key in reversed(range(6)):
        cache.get(key)
    cache.set(6, 6)
    assert left(cache, range(7)) == [2, 3, 4, 5, 6]


# -- bounds ----------------------------------------------------------------------------------------------------------


def test_forty_nine_sets_into_thirty_places_leave_twenty_nine(make: Make) -> None:
    cache = make(MAX_ENTRIES=30)
    for key in range(49):
        cache.set(key, key)
    assert len(left(cache, range(49))) == 29


def test_a_cull_frequency_of_zero_empties_the_store(make: Make) -> None:
    cache = make(MAX_ENTRIES=30, CULL_FREQUENCY=0)
    for key in range(49):
        cache.set(key, key)
    assert left(cache, range(49)) == list(range(30, 49))


def test_max_entries_may_stand_beside_options_as_in_django(clock: Clock) -> None:
    cache = LocMemCache(f"beside {next(_names)}", {"MAX_ENTRIES": 3, "CULL_FREQUENCY": "1"}, clock=clock)
    for key in range(4):
        cache.set(key, key)
    assert left(cache, range(4)) == [3]


@pytest.mark.parametrize("limit", [-1, 0, 1])
def test_even_the_smallest_limit_stores_the_newest(make: Make, limit: int) -> None:
    cache = make(MAX_ENTRIES=limit)
    for key in range(3):
        cache.set(key, key)
        assert left(cache, range(3)) == [key]


@pytest.mark.parametrize("limit", [2, 3, 4, 5, 7, 10, 100])
@pytest.mark.parametrize("frequency", [0, 1, 2, 3, 50])
def test_the_number_of_entries_is_never_beyond_the_limit(make: Make, limit: int, frequency: int) -> None:
    cache = make(MAX_ENTRIES=limit, CULL_FREQUENCY=frequency)
    for key in range(3 * limit):
        cache.set(key, key)
        assert key in cache
        assert len(cache._store.entries) <= limit


def test_a_smaller_limit_on_the_same_store_is_reached_at_once(make: Make) -> None:
    wide, narrow = make(MAX_ENTRIES=100), make(MAX_ENTRIES=10)
    for key in range(100):
        wide.set(key, key)
    narrow.set("new", 1)
    assert len(wide._store.entries) <= 10
    assert "new" in wide


def test_overwriting_at_the_limit_evicts_nothing(make: Make) -> None:
    cache = make(MAX_ENTRIES=9)
    for key in range(9):
        cache.set(key, key)
    for key in range(9):
        cache.set(key, "new")
        cache.set_many({key: "newer"})
    assert left(cache, range(9)) == list(range(9))


def test_expired_entries_go_first(make: Make, clock: Clock) -> None:
    cache = make(MAX_ENTRIES=9)
    for key in range(9):
        cache.set(key, key, timeout=1 if key % 2 else 1000)
        cache.get(key)
    clock.now += 2
    cache.set(9, 9)
    assert left(cache, range(10)) == [0, 2, 4, 6, 8, 9]
    assert len(cache._store.entries) == 6


def test_bytes_are_bounded_and_the_oldest_go(make: Make) -> None:
    cache = make(MAX_BYTES=100_000)
    for key in range(300):
        cache.set(key, b"x" * 1000)
        assert cache._store.size <= 100_000
    kept = left(cache, range(300))
    assert kept == list(range(kept[0], 300))
    assert len(kept) > 50


def test_pages_count_with_their_bodies_and_fields(make: Make) -> None:
    cache = make(MAX_BYTES=100_000)
    for number in range(100):
        cache.write_records([(f"page{number}", page(f"page{number}", 10_000), None)])
    kept = [record for record in cache.read_records([f"page{number}" for number in range(100)]) if record]
    assert 5 <= len(kept) <= 9
    assert kept[-1].key == "page99"


def page(key: str, size: int) -> StoredResponse:
    # strings and bytes of its own, as a real page has them
    fields = tuple((f"x-field-{number}-{key}", f"value {number} of {key}") for number in range(9))
    return StoredResponse(
        key=key, status=200, body=bytes(bytearray(size)), born=0.0 + size, lifetime=60.0, began=1.0, fields=fields
    )


@pytest.mark.parametrize("size", [0, 400, 4000])
def test_memory_stays_within_the_limit_and_a_fifth(make: Make, size: int) -> None:
    limit = 2_000_000
    cache = make(MAX_BYTES=limit, MAX_ENTRIES=10**9)
    for number in range(50):
        cache.write_records([(f"warm{number}", page(f"warm{number}", 10), None)])
    cache.clear()
    gc.collect()
    tracemalloc.start()
    before = tracemalloc.get_traced_memory()[0]
    for number in range(2 * limit // (size + 1500)):
        cache.write_records([(f"page{number}", page(f"page{number}", size), 100.0)])
        cache.set(f"value{number}", [number] * (size // 40))
        cache.set(f"text{number}", "t" * (size // 2))
    gc.collect()
    used = tracemalloc.get_traced_memory()[0] - before
    tracemalloc.stop()
    assert used <= limit * 1.2
    assert used <= cache._store.size * 1.2
    assert used >= cache._store.size * 0.5, "the limit is reached long before the memory is used"


def test_the_sum_of_bytes_follows_every_change(make: Make, clock: Clock) -> None:
    cache = make(MAX_BYTES=50_000, MAX_ENTRIES=20)

    def agrees() -> bool:
        return cache._store.size == sum(item.size for item in cache._store.entries.values())

    for turn in range(200):
        cache.set(turn % 30, "x" * (turn * 37 % 3000), timeout=turn % 7 + 1)
        assert agrees()
        if turn % 3 == 0:
            cache.delete_many([turn % 11, turn % 13])
        if turn % 5 == 0:
            cache.add(turn % 17, [turn], timeout=3)
            cache.write_records([(f"page{turn % 4}", b"x" * turn, None)])
        clock.now += 0.3
        assert agrees()
    cache.clear()
    assert cache._store.size == 0


def test_a_value_beyond_the_limit_is_not_stored_and_the_old_one_is_gone(make: Make) -> None:
    cache = make(MAX_BYTES=10_000)
    cache.set_many({"key": "old", "other": "stays"})
    assert cache.set_many({"key": "x" * 20_000, "small": 1}) == ["key"]
    assert cache.get_many(["key", "other", "small"]) == {"other": "stays", "small": 1}
    assert cache.add("large", "x" * 20_000) is False
    cache.write_records([("page", b"old", None)])
    assert cache.write_records([("page", b"x" * 20_000, None)]) == ["page"]
    assert cache.read_records(["page"]) == [None]
    assert cache._store.size == sum(item.size for item in cache._store.entries.values())


def test_a_value_that_grows_makes_room_among_the_others(make: Make) -> None:
    cache = make(MAX_BYTES=10_000)
    for key in range(10):
        cache.set(key, "x" * 500)
    cache.set(0, "x" * 8000)
    assert cache.get(0) == "x" * 8000
    assert cache._store.size <= 10_000


def test_max_bytes_may_be_none(make: Make) -> None:
    cache = make(MAX_BYTES=None)
    cache.set("key", b"x" * 1_000_000)
    assert len(cache.get("key")) == 1_000_000


@pytest.mark.parametrize(
    ("option", "value"),
    [("MAX_BYTES", 0), ("MAX_BYTES", "much"), ("MAX_ENTRIES", "many"), ("MAX_ENTRIES", 1.5), ("CULL_FREQUENCY", -1)],
)
def test_a_bad_bound_is_named(make: Make, option: str, value: Any) -> None:
    with pytest.raises(ImproperlyConfigured, match=option):
        make(**{option: value})


# -- sharing ---------------------------------------------------------------------------------------------------------


def test_caches_of_one_location_share_and_of_others_do_not() -> None:
    name = f"shared {next(_names)}"
    one, same, other = LocMemCache(name, {}), LocMemCache(name, {}), LocMemCache(name + "'", {})
    one.set("key", "value")
    assert same.get("key") == "value"
    assert other.get("key") is None
    same.clear()
    assert one.get("key") is None


def test_immutable_values_are_the_very_objects_and_others_copies(make: Make) -> None:
    cache = make()
    for value in ("a text", b"some bytes", 10**50, 1.25, None, True):
        cache.set("key", value)
        assert cache.get("key") is value
    record: list[int] = []
    cache.set("key", record)
    assert cache.get("key") is not cache.get("key")


def test_what_changes_under_a_subclass_is_not_kept_by_reference(make: Make) -> None:
    class Text(str):
        """Might hold anything."""

    cache = make()
    cache.set("key", (1, [2]))
    assert cache.get("key") is not cache.get("key")
    with pytest.raises(pickle.PicklingError, match="key"):
        cache.set("key", Text("local classes cannot be pickled"))


@pytest.mark.parametrize("version", [None, 1])
def test_many_values_are_found_beside_what_is_none(make: Make, caplog: pytest.LogCaptureFixture, version: Any) -> None:
    cache = make()
    cache.set_many({"list": [1], "text": "immutable", "count": 7})
    cache._set([(cache.make_key("damaged"), (b"garbage",), None)])
    cache.write_records([("page", page("page", 10), None)])
    keys = ["list", "damaged", "text", "page", "absent", "count"]
    assert cache.get_many(keys, version) == {"list": [1], "text": "immutable", "count": 7}
    assert [cache.get(key, "none", version) for key in keys] == [[1], "none", "immutable", "none", "none", 7]
    assert ["damaged" in line for line in caplog.messages] == [True]


def test_pages_are_the_very_objects(make: Make) -> None:
    cache = make()
    record = page("page", 10)
    cache.write_records([("page", record, 10.0)])
    assert cache.read_records(["page"])[0] is record


def test_a_value_whose_class_cannot_be_loaded_is_a_miss_and_is_logged(
    make: Make, caplog: pytest.LogCaptureFixture
) -> None:
    cache = make()
    cache.set("key", Fragile())
    assert cache.get("key", "default") == "default"
    assert cache.get_or_set("key", "another") == "another"
    assert cache.get("key") == "another"
    [line] = caplog.messages
    assert "':1:key'" in line
    assert "no longer" in line


class Fragile:
    def __setstate__(self, state: Any) -> None:
        raise RuntimeError("no longer")

    def __getstate__(self) -> Any:
        return {"a": 1}


def test_values_are_pickled_outside_the_lock(make: Make) -> None:
    cache = make()
    seen: list[bool] = []

    def try_lock() -> None:
        seen.append(cache._store.lock.acquire(timeout=5))
        cache._store.lock.release()

    class Asks:
        def __reduce__(self) -> Any:
            thread = threading.Thread(target=try_lock)
            thread.start()
            thread.join()
            return (str, ())

    cache.set("key", Asks())
    assert cache.add("another", Asks()) is True
    assert seen == [True, True]


def test_records_are_made_outside_the_lock(make: Make) -> None:
    cache = make()
    seen: list[bool] = []

    def try_lock(number: int) -> None:
        seen.append(cache._store.lock.acquire(timeout=5))
        cache._store.lock.release()

    def records() -> Iterator[tuple[str, Any, float | None]]:
        for key in ("one", "other"):
            in_threads(1, try_lock)
            yield key, page(key, 10), None

    assert cache.write_records(records()) == []
    assert seen == [True, True]


def test_readers_never_miss_what_is_there_while_writers_cull(make: Make) -> None:
    cache = make(MAX_ENTRIES=50)
    cache.write_records([("hot page", "page", None)])
    cache.set("hot", "value")
    stop = threading.Event()

    def misses() -> int:
        return int(cache.read_records(["hot page"]) != ["page"]) + int(cache.get("hot") != "value")

    def work(number: int) -> int:
        missed = 0
        if number < 2:
            for turn in range(4000):
                missed += misses()  # in use between any two culls: never among the third that goes
                cache.set(f"cold{number}-{turn}", turn)
            stop.set()
        while not stop.is_set():
            missed += misses()
        return missed

    assert in_threads(4, work) == [0, 0, 0, 0]


def test_threads_that_do_everything_leave_a_sound_store(make: Make) -> None:
    cache = make(MAX_ENTRIES=40, MAX_BYTES=100_000)

    def work(number: int) -> None:
        for turn in range(600):
            key = turn * (number + 7) % 60
            cache.set(key, "x" * (turn % 900))
            cache.get(key + 1)
            cache.delete(key + 2)
            cache.add(key + 3, [turn])
            cache.touch(key + 4, 5)
            cache.read_records([str(key)])
            cache.write_records([(str(key), b"x" * turn, 1.0)])
            if turn % 200 == 0:
                cache.clear()

    in_threads(4, work)
    assert cache._store.size == sum(item.size for item in cache._store.entries.values())
    assert len(cache._store.entries) <= 40


@pytest.fixture
def restless() -> Iterator[None]:
    """Threads change wherever the interpreter lets them."""
    before = sys.getswitchinterval()
    sys.setswitchinterval(1e-6)
    yield
    sys.setswitchinterval(before)


@pytest.mark.usefixtures("restless")
def test_eight_threads_that_write_all_sizes_stay_within_the_bytes(make: Make) -> None:
    limit = 60_000
    cache = make(MAX_BYTES=limit)

    def work(number: int) -> int:
        most = 0
        for turn in range(400):
            key = (turn * 7 + number) % 40
            cache.set(key, "x" * (turn * (number + 3) % 5000))
            if turn % 5 == number % 5:
                cache.delete(key + 1)
            most = max(most, sum(item.size for item in cache._store.entries.copy().values()))
        return most

    assert max(in_threads(8, work)) <= limit * 1.2
    assert cache._store.size == sum(item.size for item in cache._store.entries.values()) <= limit


@pytest.mark.usefixtures("restless")
def test_counting_and_prolonging_lose_nothing_that_another_thread_writes(make: Make) -> None:
    cache = make()
    cache.set_many({"count": 0, "text": 0})

    def work(number: int) -> bool:
        kept = True
        for turn in range(1, 15_000):
            if number == 0:
                cache.set("count", turn * 10_000)
                kept = kept and cache.get("count") >= turn * 10_000
            elif number == 1:
                cache.set("text", str(turn))
                kept = kept and cache.get("text") == str(turn)
            elif number == 2:
                cache.incr("count")
            else:
                cache.touch("text", turn)
        return kept

    assert in_threads(4, work) == [True] * 4


@pytest.mark.parametrize(
    "meanwhile",
    [
        lambda cache: cache.delete("key"),
        lambda cache: cache.clear(),
        lambda cache: cache.set("key", "another, of another size"),
        lambda cache: cache.write_records([("key", b"a page", None)]),
        lambda cache: cache.set_many({f"other{number}": number for number in range(20)}),  # which evicts it
        lambda cache: cache.incr("count"),
    ],
)
def test_a_value_is_stored_whatever_happened_while_it_was_pickled(
    make: Make, meanwhile: Callable[[LocMemCache], Any]
) -> None:
    cache = make(MAX_ENTRIES=9)
    cache.set("count", 1)

    class Disturbs:
        def __reduce__(self) -> Any:
            meanwhile(cache)
            return (str, ("pickled",))

    for turn in range(3):
        cache.set("key", Disturbs(), 10)
        assert cache.get("key") == "pickled", turn
        assert cache._store.size == sum(item.size for item in cache._store.entries.values())


def test_a_key_that_was_found_good_is_written_without_the_lock(make: Make) -> None:
    cache = make()
    for value in ("first", "second"):
        cache.set("key", value)
    with cache._store.lock:
        in_threads(1, lambda number: cache.set("key", "third, of another size"))
    assert cache.get("key") == "third, of another size"


def test_a_key_that_memcached_would_refuse_warns_whenever_it_is_used(make: Make) -> None:
    cache = make()
    for _ in range(3):
        with pytest.warns(CacheKeyWarning, match="characters"):
            cache.set("a key", "value")
        with pytest.warns(CacheKeyWarning, match="characters"):
            assert cache.get("a key") == "value"


def test_a_subclass_with_a_rule_of_its_own_looks_at_every_key(make: Make) -> None:
    class Choosy(LocMemCache):
        def validate_key(self, key: str) -> None:
            if "forbidden" in key:
                raise InvalidCacheKey(key)

    cache = make()
    choosy = Choosy(cache.location, {})
    for value in (1, 2):
        cache.set("forbidden", value)
        assert cache.get("forbidden") == value
    for _ in range(2):
        with pytest.raises(InvalidCacheKey):
            choosy.get("forbidden")
        with pytest.raises(InvalidCacheKey):
            choosy.set("forbidden", 3)
    assert cache.get("forbidden") == 2


def test_a_child_of_a_fork_inherits_no_held_lock_and_its_own_copy(make: Make) -> None:
    cache = make()
    cache.set("key", "parent")
    stop = threading.Event()

    def busy() -> None:
        turn = 0
        while not stop.is_set():
            cache.set(turn % 50, [turn])
            turn += 1

    thread = threading.Thread(target=busy)
    thread.start()
    try:

        def child(number: int) -> Any:
            sound = cache._store.size == sum(item.size for item in cache._store.entries.values())
            inherited = cache.get("key")
            cache.set("key", number)
            return sound, inherited, cache.get("key")

        assert in_processes(4, child) == [(True, "parent", number) for number in range(4)]
    finally:
        stop.set()
        thread.join()
    assert cache.get("key") == "parent"


def test_a_subclass_with_shorter_keys_looks_at_every_key(make: Make) -> None:
    class Brief(LocMemCache):
        max_key_length = 100

    cache, key = make(), "k" * 150
    brief = Brief(cache.location, {})
    for _ in range(2):
        cache.set(key, "value")
    with pytest.raises(InvalidCacheKey):
        brief.get(key)
    with pytest.raises(InvalidCacheKey):
        brief.set(key, "another")


def test_a_fork_lets_go_of_what_it_held_whatever_came_and_went_meanwhile(make: Make) -> None:
    cache = make()
    _memory._before_fork()
    _memory.forget(str(cache.location))
    late = make()  # as another library's handler may make one
    _memory._after_fork()

    def use(number: int) -> Any:
        with cache._store.lock, late._store.lock:
            return make() is not None

    assert in_threads(1, use) == [True]


def test_a_fork_and_a_finalizer_under_a_lock_do_not_wait_for_one_another(make: Make) -> None:
    cache = make()
    cache.write_records([("page", Ends(lambda: _memory.forget(str(cache.location))), None)])

    def fork() -> None:
        _memory._before_fork()
        _memory._after_fork()

    with cache._store.lock:
        thread = threading.Thread(target=fork)
        thread.start()
        until(lambda: not _is_free(_memory._stores_lock), "the fork waits for the store")
        cache.drop_records(["page"])
    thread.join()


class Ends:
    def __init__(self, act: Callable[[], Any]) -> None:
        self.act = act

    def __del__(self) -> None:
        self.act()


def _is_free(lock: Any) -> bool:
    if free := lock.acquire(blocking=False):
        lock.release()
    return bool(free)


def test_a_finalizer_may_use_the_cache_in_the_midst_of_a_write(make: Make) -> None:
    cache = make()

    class Finalized:
        def __del__(self) -> None:
            cache.set("from the finalizer".replace(" ", "-"), 1)

    cache.write_records([("page", Finalized(), None)])
    cache.write_records([("page", "next", None)])  # the old one dies under the lock
    gc.collect()
    assert cache.get("from-the-finalizer") == 1
    assert cache._store.size == sum(item.size for item in cache._store.entries.values())


@pytest.mark.parametrize(
    ("write", "read"),
    [
        (lambda cache: cache.set("key", "new", 10), lambda cache: cache.get("key")),
        (lambda cache: cache.set("key", "new, of another size", 10), lambda cache: cache.get("key")),
        (lambda cache: cache.set_many({"key": "new"}, 10), lambda cache: cache.get("key")),
        (lambda cache: cache.add("key", "new", 10), lambda cache: cache.get("key")),
        (lambda cache: cache.write_records([("page", "new", 10)]), lambda cache: cache.read_records(["page"])[0]),
        (lambda cache: cache.add_record("page", "new", 10), lambda cache: cache.read_records(["page"])[0]),
    ],
)
def test_wherever_a_write_is_interrupted_a_value_whose_time_is_over_stays_unread(
    make: Make, clock: Clock, write: Callable[[LocMemCache], Any], read: Callable[[LocMemCache], Any]
) -> None:
    cache = make()
    cache.set("key", "old", 1)
    cache.set("key", "old", 1)  # found good: the next one is without the lock
    cache.write_records([("page", "old", 1)])
    clock.now += 5
    seen = []

    def look(frame: Any, event: str, argument: object) -> Any:
        frame.f_trace_opcodes = True
        seen.append(read(cache))
        return look

    def traced(number: int) -> None:
        sys.settrace(look)
        write(cache)
        sys.settrace(None)

    in_threads(1, traced)
    assert {value and value[:3] for value in seen} == {None, "new"}


class Interrupted(dict[str, Any]):
    """Runs a signal's handler after a look for a key, once that many others were made."""

    handler: Callable[[], Any] | None = None
    others = 0

    def get(self, key: str, default: Any = None) -> Any:
        found = super().get(key, default)
        if self.others:
            self.others -= 1
        elif self.handler is not None:
            handler, self.handler = self.handler, None
            handler()
        return found


@pytest.mark.parametrize("others", range(4))
@pytest.mark.parametrize(
    "write",
    [
        lambda cache: cache.set("key", "new"),
        lambda cache: cache.add("key", "new"),
        lambda cache: cache.add_record("key", "new", None),
        lambda cache: cache.write_records([("key", "new", None)]),
    ],
)
def test_a_handler_that_writes_between_two_looks_for_a_key_leaves_the_sum_of_bytes_right(
    make: Make, write: Callable[[LocMemCache], Any], others: int
) -> None:
    cache = make()
    cache._store.entries = entries = Interrupted()
    entries.others, entries.handler = others, lambda: cache.set("key", "of another size")
    write(cache)
    assert cache._store.size == sum(item.size for item in entries.values())


def test_signals_in_the_midst_of_writes_leave_the_sum_of_bytes_right(make: Make) -> None:
    cache = make(MAX_ENTRIES=30, MAX_BYTES=60_000)
    turns = itertools.count()

    def write() -> None:
        turn = next(turns)
        cache.set(turn % 39, "x" * (turn % 900))
        cache.add(turn % 38, "y" * (turn % 500))
        cache.write_records([(str(turn % 37), b"z" * (turn % 700), None)])
        cache.delete(turn % 31)

    before = signal.signal(signal.SIGALRM, lambda *args: write())
    try:
        for turn in range(8000):
            signal.setitimer(signal.ITIMER_REAL, 1e-6 + turn % 40 * 1e-6)
            write()
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)
    assert cache._store.size == sum(item.size for item in cache._store.entries.values())


def test_a_clock_that_stands_still_keeps_everything(make: Make, clock: Clock) -> None:
    cache = make()
    cache.set("key", "value", 0.001)
    assert cache.get("key") == "value"
    clock.now = math.nextafter(clock.now + 0.001, math.inf)
    assert cache.get("key") is None


# -- footprint -------------------------------------------------------------------------------------------------------


def test_a_footprint_counts_what_a_value_holds() -> None:
    class Slotted:
        __slots__ = ("body", "missing")

        def __init__(self, body: bytes) -> None:
            self.body = body

    class Derived(Slotted):
        __slots__ = "one"

    class Plain:
        def __init__(self, body: bytes) -> None:
            self.body = body

    class Frank:
        def __sizeof__(self) -> int:
            return 12_345

    body = bytes(10_000)
    for value in (body, [body], (body,), {body}, {"key": body}, {body: 1}, Slotted(body), Derived(body), Plain(body)):
        assert 10_000 < footprint(value) < 11_500, value
    assert 12_345 <= footprint(Frank()) < 12_400


@pytest.mark.parametrize("raw", [False, True])
def test_the_footprint_of_a_page_counts_its_fields_too(raw: bool) -> None:
    def size(count: int) -> int:
        fields = [("x-name", "y" * 1000)] * count
        octets = [(name.encode(), value.encode()) for name, value in fields]
        given: Any = {"raw": octets, "fields": None} if raw else {"fields": fields}
        return footprint(StoredResponse(key="k", status=200, body=b"", born=1.0, lifetime=60.0, began=1.0, **given))

    assert 10_000 < size(10) - size(0) < 20_000


def test_a_footprint_of_what_holds_itself_ends() -> None:
    circle: list[Any] = [b"x" * 100]
    circle.append(circle)
    assert footprint(circle) < 10_000
