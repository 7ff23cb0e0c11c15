"""Many at once, and stores that fail: one call for all who wait, no circles, and nothing fails with a store."""

from __future__ import annotations

import asyncio
import functools
import gc
import os
import threading
import weakref
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any, Final

import pytest

from cachemw import BackendUnavailable, caches
from cachemw._memoize import passage as passages
from cachemw._memoize.stores import keeper_of
from cachemw.backends.locmem import LocMemCache
from cachemw.backends.redis import RedisCache
from cachemw.flights import Flight
from cachemw.memoize import cached
from tests.memoize_tools import Clock, FailingCache, Memoize, memoizing
from tests.servers import start_redis

STORE: Final = LocMemCache("memoize-together")
MANY: Final = 20


@pytest.fixture(autouse=True)
def _empty() -> Iterator[None]:
    yield
    STORE.clear()


@pytest.fixture(params=["sync", "async"])
def memoize(request: pytest.FixtureRequest) -> Iterator[Memoize]:
    with asyncio.Runner() as runner:
        yield functools.partial(memoizing(request.param, runner), cache=STORE)


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    return Clock(monkeypatch)


class Waiting:
    """Tells when so many threads or tasks wait for flights."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, count: int) -> None:
        self.all_there = threading.Event()
        self._left = count
        self._lock = threading.Lock()
        wait, await_landing = Flight.wait, Flight.await_landing

        def waiting(flight: Any, timeout: float) -> bool:
            self._arrived()
            return wait(flight, timeout)

        async def awaiting(flight: Any, timeout: float) -> bool:
            self._arrived()
            return await await_landing(flight, timeout)

        monkeypatch.setattr(Flight, "wait", waiting)
        monkeypatch.setattr(Flight, "await_landing", awaiting)

    def _arrived(self) -> None:
        with self._lock:
            self._left -= 1
            if self._left <= 0:
                self.all_there.set()

    async def for_all(self) -> None:
        """Let the other tasks come to where they wait."""
        assert await asyncio.to_thread(self.all_there.wait, 10)


def in_threads(function: Callable[[], Any], count: int = MANY) -> list[Any]:
    """What the calls returned, or raised."""

    def call(_: int) -> Any:
        try:
            return function()
        except Exception as error:
            return error

    with ThreadPoolExecutor(count) as pool:
        return list(pool.map(call, range(count)))


# -- one call ---------------------------------------------------------------------------------------------------------


def test_of_many_threads_one_calls_the_function(monkeypatch: pytest.MonkeyPatch) -> None:
    waiting = Waiting(monkeypatch, MANY - 1)
    calls: list[int] = []

    @cached(60, cache=STORE)
    def report() -> list[int]:
        calls.append(1)
        assert waiting.all_there.wait(10)
        return [len(calls)]

    results = in_threads(report)
    assert results == [[1]] * MANY
    assert len(calls) == 1
    assert len({id(result) for result in results}) == MANY  # nobody can change another's


def test_of_many_tasks_one_calls_the_function(monkeypatch: pytest.MonkeyPatch) -> None:
    async def main() -> None:
        waiting = Waiting(monkeypatch, MANY - 1)
        calls: list[int] = []

        @cached(60, cache=STORE)
        async def report() -> list[int]:
            calls.append(1)
            await waiting.for_all()
            return [len(calls)]

        results = await asyncio.gather(*[report() for _ in range(MANY)])
        assert results == [[1]] * MANY
        assert len(calls) == 1

    asyncio.run(main())


def test_whoever_comes_just_too_late_looks_again() -> None:
    """He missed, then the other's call ended: he finds what it made."""
    store = FailingCache("too-late")
    calls: list[int] = []

    @cached(60, cache=store)
    def report() -> int:
        calls.append(1)
        return len(calls)

    def meanwhile() -> None:
        store.hook = None
        missed.set()
        in_threads(report, 1)

    missed = threading.Event()
    get = store.get

    def late_get(key: Any, default: Any = None, version: Any = None) -> Any:
        value = get(key, default, version)
        if not missed.is_set():
            meanwhile()
        return value

    store.get = late_get  # type: ignore[method-assign]
    assert report() == 1
    assert calls == [1]
    store.clear()


def test_others_have_the_old_value_while_one_renews_it_early(clock: Clock, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("random.random", lambda: 0.999)
    results: list[int] = []
    calls: list[int] = []

    @cached(60, cache=STORE)
    def report() -> int:
        calls.append(1)
        clock.move(3)
        if len(calls) == 2:
            results.extend(in_threads(report, 3))
        return len(calls)

    assert report() == 1
    clock.move(50)
    assert report() == 2
    assert results == [1, 1, 1]
    assert len(calls) == 2


@pytest.mark.parametrize("stale", [0, 600])
def test_a_failure_is_not_waited_for_twice(clock: Clock, monkeypatch: pytest.MonkeyPatch, stale: float) -> None:
    """With a stale value nobody else tries; without one, each has his own error."""
    waiting = Waiting(monkeypatch, 4)
    calls: list[int] = []

    @cached(60, cache=STORE, stale=stale)
    def report() -> int:
        calls.append(1)
        if len(calls) == 1:
            return 1
        assert waiting.all_there.wait(10)
        raise ConnectionError("down")

    assert report() == 1
    clock.move(100)
    results = in_threads(report, 5)
    if stale:
        assert results == [1] * 5
        assert len(calls) == 2
    else:
        assert [type(result) for result in results] == [ConnectionError] * 5
        assert len(calls) == 6


def test_a_leader_that_is_cancelled_is_replaced_by_one_of_those_who_wait(monkeypatch: pytest.MonkeyPatch) -> None:
    async def main() -> None:
        waiting = Waiting(monkeypatch, MANY - 1)
        calls: list[int] = []
        never = asyncio.Event()

        @cached(60, cache=STORE)
        async def report() -> int:
            calls.append(1)
            if len(calls) == 1:
                await never.wait()
            return len(calls)

        tasks = [asyncio.create_task(report()) for _ in range(MANY)]
        await waiting.for_all()
        tasks[0].cancel()
        results = await asyncio.gather(*tasks, return_exceptions=True)
        assert isinstance(results[0], asyncio.CancelledError)
        assert results[1:] == [2] * (MANY - 1)
        assert len(calls) == 2

    asyncio.run(main())


def test_a_leader_that_is_stopped_lets_the_others_go_on(monkeypatch: pytest.MonkeyPatch) -> None:
    waiting = Waiting(monkeypatch, 1)
    begun = threading.Event()
    calls: list[int] = []

    @cached(60, cache=STORE)
    def report() -> int:
        calls.append(1)
        if len(calls) == 1:
            begun.set()
            assert waiting.all_there.wait(10)
            raise SystemExit
        return len(calls)

    def stopped() -> str:
        try:
            report()
        except SystemExit:
            return "stopped"
        return "not stopped"

    with ThreadPoolExecutor(2) as pool:
        first = pool.submit(stopped)
        assert begun.wait(10)
        second = pool.submit(report)
        assert first.result(10) == "stopped"
        assert second.result(10) == 2


# -- no circles, nobody is held up ------------------------------------------------------------------------------------


def test_who_makes_a_value_does_not_wait_for_another() -> None:
    """Each of two threads makes one value, and needs the other's for it."""
    both = threading.Barrier(2)
    inside = threading.local()

    @cached(60, cache=STORE)
    def value(name: str, other: str) -> str:
        if hasattr(inside, "name"):
            return name
        inside.name = name
        both.wait(10)
        needed = value(other, name)
        both.wait(10)
        return name + needed

    with ThreadPoolExecutor(2) as pool:
        results = [one.result(10) for one in (pool.submit(value, "a", "b"), pool.submit(value, "b", "a"))]
    assert results == ["ab", "ba"]


def test_a_thread_with_an_event_loop_does_not_stand_still_for_another_thread() -> None:
    begun, finish = threading.Event(), threading.Event()
    calls: list[int] = []

    @cached(60, cache=STORE)
    def report() -> int:
        calls.append(1)
        if len(calls) == 1:
            begun.set()
            assert finish.wait(10)
        return len(calls)

    async def main() -> int:
        return report()

    with ThreadPoolExecutor(1) as pool:
        other = pool.submit(report)
        assert begun.wait(10)
        assert asyncio.run(main()) == 2
        finish.set()
        assert other.result(10) == 2


@pytest.mark.parametrize("half", ["threads", "tasks"])
def test_patience_ends(monkeypatch: pytest.MonkeyPatch, half: str) -> None:
    monkeypatch.setattr(passages, "_PATIENCE", 0.01)
    calls: list[int] = []
    begun, finish = threading.Event(), threading.Event()

    def first() -> bool:
        calls.append(1)
        begun.set()
        return len(calls) == 1

    @cached(60, cache=STORE)
    def report() -> int:
        if first():
            assert finish.wait(10)
        return len(calls)

    @cached(60, cache=STORE)
    async def areport() -> int:
        if first():
            assert await asyncio.to_thread(finish.wait, 10)
        return len(calls)

    def threads() -> None:
        with ThreadPoolExecutor(1) as pool:
            slow = pool.submit(report)
            assert begun.wait(10)
            assert report() == 2
            finish.set()
            assert slow.result(10) == 2

    async def tasks() -> None:
        slow = asyncio.create_task(areport())
        assert await asyncio.to_thread(begun.wait, 10)
        assert await areport() == 2
        finish.set()
        assert await slow == 2

    threads() if half == "threads" else asyncio.run(tasks())


def test_what_cannot_be_stored_is_shared_with_those_who_wait(monkeypatch: pytest.MonkeyPatch) -> None:
    """A store that is down, or a value beyond its limit: still one call, and to each his own copy."""
    store = FailingCache("shares")
    store.fail()
    for broken in (store, LocMemCache("tiny", {"OPTIONS": {"MAX_BYTES": 10}})):
        waiting = Waiting(monkeypatch, 4)
        calls: list[int] = []

        @cached(60, cache=broken)
        def report(waiting: Waiting = waiting, calls: list[int] = calls) -> list[int]:
            calls.append(1)
            assert waiting.all_there.wait(10)
            return [len(calls)]

        monkeypatch.setattr(report._function, "key", lambda args, kwargs: "report")
        results = in_threads(report, 5)
        assert results == [[1]] * 5
        assert len({id(result) for result in results}) == 5
        monkeypatch.undo()


def test_what_can_neither_be_stored_nor_copied_each_makes_for_himself(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    waiting = Waiting(monkeypatch, 4)
    calls: list[int] = []

    @cached(60, cache=STORE)
    def report() -> Any:
        calls.append(1)
        if len(calls) == 1:
            assert waiting.all_there.wait(10)
        return lambda: "cannot be pickled"

    results = in_threads(report, 5)
    assert [result() for result in results] == ["cannot be pickled"] * 5
    assert len(calls) == 5
    assert "cannot be serialized" in caplog.text
    assert "report" in caplog.text


def test_a_value_that_was_invalidated_meanwhile_is_not_handed_on(monkeypatch: pytest.MonkeyPatch) -> None:
    waiting = Waiting(monkeypatch, 1)
    rows = ["old"]

    @cached(60, cache=STORE)
    def read() -> str:
        row = rows[0]
        if row == "old":
            begun.set()
            assert waiting.all_there.wait(10)
        return row

    begun = threading.Event()
    with ThreadPoolExecutor(2) as pool:
        first = pool.submit(read)
        assert begun.wait(10)
        rows[0] = "new"
        read.invalidate()
        second = pool.submit(read)
        assert first.result(10) == "old"
        assert second.result(10) == "new"
    assert read() == "new"


def test_a_fork_in_the_middle_of_a_call_leaves_the_child_free() -> None:
    """The thread that makes the value stays behind in the parent."""
    begun, finish = threading.Event(), threading.Event()

    @cached(60, cache=STORE)
    def report() -> int:
        if not begun.is_set():
            begun.set()
            assert finish.wait(10)
        return 1

    with ThreadPoolExecutor(1) as pool:
        other = pool.submit(report)
        assert begun.wait(10)
        child = os.fork()
        if child == 0:
            os._exit(0 if report() == 1 else 1)
        status = os.waitpid(child, 0)[1]
        finish.set()
        assert other.result(10) == 1
    assert os.waitstatus_to_exitcode(status) == 0


# -- stores that fail -------------------------------------------------------------------------------------------------


def test_a_store_that_fails_is_passed_by(memoize: Memoize, clock: Clock, caplog: pytest.LogCaptureFixture) -> None:
    store = FailingCache("fails")
    store.fail()
    calls: list[int] = []

    def count() -> int:
        calls.append(1)
        return len(calls)

    memoized = memoize(count, cache=store)
    assert [memoized() for _ in range(100)] == list(range(1, 101))
    assert store.asked == 5  # then it is left alone
    assert caplog.text.count("cache <FailingCache fails> fails (1 times since the last report); fragments and mem") == 1
    clock.move(1.1)
    assert [memoized() for _ in range(100)][-1] == 200
    assert store.asked == 6  # one looks whether it is back
    clock.move(60)
    memoized()
    assert "cache <FailingCache fails> fails (6 times since the last report)" in caplog.text
    store.error = None
    clock.move(1.1)
    assert memoized() == 202
    assert memoized() == 202
    assert [record.message for record in caplog.records[2:]] == ["cache <FailingCache fails> works again"]
    store.clear()


def test_while_one_looks_whether_a_store_is_back_the_others_do_not_wait(clock: Clock) -> None:
    store = FailingCache("probed")
    store.fail()
    report = cached(60, cache=store)(lambda number: number)
    for number in range(10):
        report(number)
    clock.move(1.1)
    asked = store.asked

    def others() -> None:
        store.hook = None
        assert in_threads(lambda: report(2), 5) == [2] * 5

    store.hook = others
    assert report(1) == 1
    assert store.asked == asked + 1
    clock.move(0.9)
    assert report(1) == 1
    assert store.asked == asked + 1


def test_values_that_are_at_fault_do_not_count_against_the_store() -> None:
    """However many of them there are."""
    store = FailingCache("at-fault", {"SERIALIZER": "json"})
    keeper = keeper_of(store)
    for _ in range(20):
        assert keeper.attempt(store, "set", ("no-json", object()), "not stored") == "not stored"
    assert keeper.attempt(store, "has_key", ("no-json",), "not asked") is False
    store.clear()


def test_a_store_that_hangs_is_waited_for_once(memoize: Memoize, clock: Clock) -> None:
    store = FailingCache("hangs")
    store.error = TimeoutError()
    store.hook = lambda: clock.move(0.1)
    memoized = memoize(lambda: 1, cache=store)
    assert [memoized() for _ in range(10)] == [1] * 10
    assert store.asked == 1


def test_a_damaged_value_is_made_anew_and_does_not_count_against_the_store(memoize: Memoize) -> None:
    store = FailingCache("damaged", {"SERIALIZER": "json"})
    memoized = memoize(lambda number: [number], cache=store)
    for number in range(20):
        LocMemCache("damaged", {"SERIALIZER": Garbage()}).set(memoized.cache_key(number), "x")
        assert store.get(memoized.cache_key(number)) is None
        assert memoized(number) == [number]
    asked = store.asked
    assert memoized(19) == [19]
    assert store.asked == asked + 1
    store.clear()


class Garbage:
    def dumps(self, value: Any) -> bytes:
        return b"{garbage"

    def loads(self, data: bytes) -> Any:
        raise AssertionError(data)


def test_only_invalidate_tells_that_a_store_fails(memoize: Memoize) -> None:
    store = FailingCache("tells")
    memoized = memoize(lambda: 1, cache=store)
    memoized()
    store.fail()
    with pytest.raises(BackendUnavailable):
        memoized.invalidate()
    assert memoized.refresh() == 1
    store.error = None
    store.clear()


def test_a_value_written_while_the_store_begins_to_fail_is_returned(memoize: Memoize) -> None:
    store = FailingCache("begins")

    def report() -> str:
        store.fail()
        return "made"

    assert memoize(report, cache=store)() == "made"
    store.error = None
    store.clear()


def test_stores_that_are_gone_leave_nothing_behind() -> None:
    store = LocMemCache("gone")
    cached(60, cache=store)(lambda: 1)()
    keeper = weakref.ref(keeper_of(store))
    assert keeper() is keeper_of(store) is not keeper_of(caches["default"])
    del store
    gc.collect()
    assert keeper() is None


def test_redis_keeps_results_and_its_loss_is_not_noticed(caplog: pytest.LogCaptureFixture) -> None:
    """Both halves on a real server: a miss, a hit, an invalidation in a race, and the server gone."""
    with start_redis() as server:
        store = RedisCache(f"redis://127.0.0.1:{server.port}/0", {"SERIALIZER": "msgpack"})
        calls: list[int] = []

        @cached(60, cache=store)
        def report(number: int) -> dict[str, int]:
            calls.append(number)
            return {"number": number}

        @cached(60, cache=store)
        async def areport(number: int) -> dict[str, int]:
            calls.append(number)
            return {"number": number}

        async def tasks() -> None:
            results = await asyncio.gather(*[areport(1) for _ in range(MANY)])
            assert results == [{"number": 1}] * MANY
            assert await areport.invalidate(1) is True
            assert await areport(1) == {"number": 1}
            server.kill()
            assert await areport(1) == {"number": 1}
            with pytest.raises(BackendUnavailable):
                await areport.invalidate(1)
            await store.aclose()

        assert in_threads(lambda: report(2)) == [{"number": 2}] * MANY
        assert calls == [2]
        asyncio.run(tasks())
        assert calls == [2, 1, 1, 1]
        assert report(2) == {"number": 2}
        store.close()
