"""Many at once: threads, tasks and, where the store is shared, processes."""

from __future__ import annotations

import asyncio
import multiprocessing
import threading
import warnings
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import Any

import pytest

from cachemw.backends.base import BaseCache
from cachemw.testing._face import Connect, Contract, MakeCache

__all__ = ["ConcurrencyContract", "in_processes", "in_threads"]

CROWD = 8


def in_threads(count: int, work: Callable[[int], Any]) -> list[Any]:
    """What `work(number)` returns in each of `count` threads that begin together."""
    barrier = threading.Barrier(count)

    def begin(number: int) -> Any:
        barrier.wait(30)
        return work(number)

    with ThreadPoolExecutor(count) as pool:
        return list(pool.map(begin, range(count)))


def in_processes(count: int, work: Callable[[int], Any]) -> list[Any]:
    """What `work(number)` returns in each of `count` forked processes that begin together."""
    context = multiprocessing.get_context("fork")
    results: Any = context.SimpleQueue()
    barrier = context.Barrier(count)

    def begin(number: int) -> None:
        try:
            barrier.wait(30)
            results.put((number, work(number), None))
        except BaseException as error:
            results.put((number, None, repr(error)))
            raise

    children = [context.Process(target=begin, args=(number,), daemon=True) for number in range(count)]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)  # Python 3.12 warns of threads at a fork: that is the point
        for child in children:
            child.start()
    found = sorted(results.get() for _ in children)
    for child in children:
        child.join(30)
    errors = [f"process {number}: {error}" for number, _, error in found if error]
    assert not errors, "; ".join(errors)
    return [value for _, value, _ in found]


class ConcurrencyContract(Contract):
    @pytest.fixture
    def one(self, connect: Connect) -> BaseCache:
        return connect().cache

    def test_one_of_many_adding_threads_wins(self, one: BaseCache) -> None:
        for turn in range(5):
            key = f"key{turn}"
            won = in_threads(CROWD, partial(one.add, key))
            assert won.count(True) == 1
            assert one.get(key) == won.index(True)

    def test_no_increment_of_many_threads_is_lost(self, one: BaseCache) -> None:
        one.set("count", 0)
        in_threads(CROWD, lambda number: [one.incr("count") for _ in range(25)])
        assert one.get("count") == CROWD * 25

    def test_get_or_set_calls_the_default_once_for_many_threads(self, one: BaseCache) -> None:
        calls: list[int] = []
        everybody_asks = threading.Event()

        def default() -> list[str]:
            calls.append(1)
            everybody_asks.wait(0.2)
            return ["made"]

        found = in_threads(CROWD, lambda number: one.get_or_set("key", default))
        assert found == [["made"]] * CROWD
        assert calls == [1]
        assert len({id(value) for value in found}) == CROWD

    def test_a_default_that_fails_is_every_callers_own(self, one: BaseCache) -> None:
        def attempt(number: int) -> str:
            def default() -> str:
                raise ZeroDivisionError(number)

            try:
                one.get_or_set("key", default)
            except ZeroDivisionError as error:
                return "own" if error.args == (number,) else "another's"
            return "none"

        assert in_threads(CROWD, attempt) == ["own"] * CROWD
        assert one.get_or_set("key", "fine") == "fine"

    def test_tasks_share_a_cache(self, make_cache: MakeCache) -> None:
        async def main() -> None:
            cache = make_cache()
            await cache.aclear()
            calls: list[int] = []

            async def default() -> list[str]:
                calls.append(1)
                await asyncio.sleep(0.02)
                return ["made"]

            assert await asyncio.gather(*(cache.aget_or_set("made", default) for _ in range(20))) == [["made"]] * 20
            assert calls == [1]
            won = await asyncio.gather(*(cache.aadd("added", number) for number in range(20)))
            assert won.count(True) == 1
            await cache.aset("count", 0)
            await asyncio.gather(*(cache.aincr("count") for _ in range(100)))
            assert await cache.aget("count") == 100
            await asyncio.gather(*(cache.aset(f"key{number}", number) for number in range(50)))
            values = await asyncio.gather(*(cache.aget(f"key{number}") for number in range(50)))
            assert values == list(range(50))
            await cache.aclose()

        asyncio.run(main())

    def test_closing_takes_nothing_from_who_uses_the_cache(self, make_cache: MakeCache) -> None:
        """As at the end of one request, while others are answered."""

        async def main() -> None:
            cache = make_cache()
            await cache.aclear()

            async def use(number: int) -> None:
                for value in range(20):
                    await cache.aset(f"key{number}", [value])
                    assert await cache.aget(f"key{number}") == [value]

            async def close() -> None:
                for _ in range(20):
                    await cache.aclose()
                    await asyncio.sleep(0)

            await asyncio.gather(*(use(number) for number in range(5)), close())
            await cache.aclose()

        asyncio.run(main())

    def test_closing_takes_nothing_from_the_threads_that_use_the_cache(self, one: BaseCache) -> None:
        def use(number: int) -> None:
            for value in range(20):
                one.set(f"key{number}", [value])
                assert one.get(f"key{number}") == [value]
                if number == 0:
                    one.close()

        in_threads(5, use)

    def test_a_cancelled_task_leaves_its_default_to_another(self, make_cache: MakeCache) -> None:
        async def main() -> None:
            cache = make_cache()
            await cache.aclear()
            started = asyncio.Event()
            never: asyncio.Future[str] = asyncio.get_running_loop().create_future()
            calls: list[str] = []

            async def slow() -> str:
                calls.append("slow")
                started.set()
                return await never

            async def quick() -> str:
                calls.append("quick")
                return "made"

            leader = asyncio.create_task(cache.aget_or_set("key", slow))
            await started.wait()
            followers = [asyncio.create_task(cache.aget_or_set("key", quick)) for _ in range(5)]
            await asyncio.sleep(0)
            leader.cancel()
            assert await asyncio.gather(*followers) == ["made"] * 5
            assert calls == ["slow", "quick"]
            with pytest.raises(asyncio.CancelledError):
                await leader
            await cache.aclose()

        asyncio.run(main())

    def test_one_cache_serves_several_event_loops_and_threads(self, make_cache: MakeCache) -> None:
        cache = make_cache()
        cache.clear()
        cache.set("count", 0)

        def loop(number: int) -> None:
            async def main() -> None:
                for _ in range(10):
                    await cache.aincr("count")
                await cache.aclose()

            asyncio.run(main())

        in_threads(4, loop)
        assert cache.get("count") == 40
        cache.close()

    def test_processes_share_a_store(self, make_cache: MakeCache) -> None:
        parent = make_cache()
        parent.clear()
        if not parent.shared:
            return
        parent.set("count", 0)
        sizes = (1, 100, 5_000)

        def child(number: int) -> list[bool]:
            cache = parent if number % 2 else make_cache()  # a cache used before the fork, and one of its own
            won = [cache.add(f"key{turn}", number) for turn in range(10)]
            for turn in range(25):
                cache.incr("count")
                cache.set("page", chr(97 + number) * sizes[turn % 3])
                assert len(set(cache.get("page"))) == 1, "a torn read"
            cache.close()
            return won

        results = in_processes(4, child)
        assert [sum(won) for won in zip(*results, strict=True)] == [1] * 10
        assert parent.get("count") == 100
        parent.close()

    def test_an_event_loop_after_a_fork_has_its_own_connections(self, make_cache: MakeCache) -> None:
        parent = make_cache()
        if not parent.shared:
            return
        asyncio.run(self._use(parent, "parent"))

        def child(number: int) -> None:
            asyncio.run(self._use(parent, f"child{number}"))

        in_processes(3, child)
        asyncio.run(self._use(parent, "again"))
        parent.close()

    @staticmethod
    async def _use(cache: BaseCache, name: str) -> None:
        for turn in range(20):
            await cache.aset(name, [name, turn])
            assert await cache.aget(name) == [name, turn]
        await cache.aclose()
