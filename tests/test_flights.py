"""Flights and refreshers where it hurts: garbage collection in the midst, closed loops, forks, no thread to be had."""

from __future__ import annotations

import asyncio
import gc
import os
import threading
import time
import weakref
from contextlib import suppress
from typing import Any

import pytest

from cachemw.flights import Flight, Flights, TaskRefresher, ThreadRefresher
from tests.servers import until


def test_a_flight_may_end_while_its_own_thread_holds_the_lock() -> None:
    """The garbage collector runs wherever something is allocated, and a forgotten leader ends its flight then."""
    flights: Flights[int] = Flights()
    flight, leads = flights.join("a")
    assert leads
    done = threading.Event()

    def collect() -> None:
        with flights.lock:
            flight.end()
        done.set()

    threading.Thread(target=collect, daemon=True).start()
    assert done.wait(5)
    assert len(flights) == 0


def test_a_flight_may_end_in_the_thread_that_is_about_to_wait_for_it() -> None:
    flights: Flights[int] = Flights()
    flight, _ = flights.join("a")
    flight.leader = -1
    flight.end()
    assert flight.wait(0)
    assert asyncio.run(flight.await_landing(0))


def test_nor_does_a_task_wait_for_what_ended_while_it_got_ready_to(monkeypatch: pytest.MonkeyPatch) -> None:
    """The garbage collector may run where the future is allocated."""

    async def main() -> None:
        flights: Flights[int] = Flights()
        flight, _ = flights.join("a")
        loop = asyncio.get_running_loop()
        create = loop.create_future

        def create_future() -> asyncio.Future[Any]:
            flight.end()
            return create()

        monkeypatch.setattr(loop, "create_future", create_future)
        assert await flight.await_landing(0)

    asyncio.run(main())


def test_all_who_wait_are_released_at_once_and_get_the_records() -> None:
    flights: Flights[int] = Flights()
    flight, _ = flights.join("a")
    landed: list[Any] = []

    def follow() -> None:
        joined, leads = flights.join("a")
        landed.append((leads, joined.wait(5), dict(joined.records)))

    threads = [threading.Thread(target=follow) for _ in range(5)]
    for thread in threads:
        thread.start()
    until(lambda: len(flight._gates) == 5, "all wait", 5)
    flight.land({"a": 1})
    flight.land({"b": 2})
    for thread in threads:
        thread.join(5)
    assert landed == [(False, True, {"a": 1})] * 5


def test_who_waited_too_long_is_told() -> None:
    flights: Flights[int] = Flights()
    flight, _ = flights.join("a")
    flight.leader = -1
    assert not flight.wait(0)
    assert not asyncio.run(flight.await_landing(0))
    flight.end()


@pytest.mark.parametrize("asynchronous", [False, True])
def test_who_waits_looks_now_and_then_whether_the_leader_is_held_up(
    asynchronous: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("cachemw.flights.PATIENCE", 0.01)
    flights: Flights[int] = Flights()
    flight, _ = flights.join("a")
    flight.leader = -1
    looks: list[bool] = []
    held_up = flight._desert_if_held_up

    def look(self: Any) -> bool:
        looks.append(held_up())
        if len(looks) == 3:
            flight.land({"a": 1})
        return looks[-1]

    monkeypatch.setattr(Flight, "_desert_if_held_up", look)
    assert asyncio.run(flight.await_landing(5)) if asynchronous else flight.wait(5)
    assert looks == [False] * 3
    assert flight.records == {"a": 1}


def test_a_thread_does_not_wait_for_itself() -> None:
    """A test client asks again before it has read, or closed, the answer to what it asked before."""
    flights: Flights[int] = Flights()
    flight, _ = flights.join("a")
    began = time.monotonic()
    assert not flight.wait(5.0)
    assert time.monotonic() - began < 4.0
    flight.end()
    assert flight.wait(5.0)


def test_a_late_leader_leaves_the_next_flight_alone() -> None:
    flights: Flights[int] = Flights()
    late, _ = flights.join("a")
    flights.remove(late)
    follower, leads = flights.join("a")
    assert leads
    late.end()
    assert flights.join("a") == (follower, False)


def test_a_loop_that_was_closed_meanwhile_does_not_keep_others_from_landing() -> None:
    flights: Flights[int] = Flights()
    flight, _ = flights.join("a")
    loop = asyncio.new_event_loop()
    flight._waiters.append((loop, loop.create_future()))
    loop.close()
    flight.land({"a": 1})
    assert flight.landed


def test_a_follower_that_was_cancelled_is_not_woken_twice() -> None:
    async def main() -> None:
        flights: Flights[int] = Flights()
        flight, _ = flights.join("a")
        task = asyncio.create_task(flight.await_landing(5))
        await asyncio.sleep(0)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        flight.land({})
        await asyncio.sleep(0)

    asyncio.run(main())


def test_after_a_fork_nothing_is_under_way_and_no_lock_is_held() -> None:
    flights: Flights[int] = Flights()
    refresher = ThreadRefresher()
    flight, _ = flights.join("a")
    held, forked = threading.Event(), threading.Event()

    def hold() -> None:
        with flights.lock:
            held.set()
            forked.wait(10)

    thread = threading.Thread(target=hold)
    thread.start()
    assert held.wait(5)
    child = os.fork()
    if not child:  # pytest must not go on in here
        try:
            flight.end()
            right = len(flights) == len(refresher) == 0 and flights.join("a")[1]
            os._exit(0 if right else 1)
        finally:
            os._exit(2)
    forked.set()
    thread.join()
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
    assert len(flights) == 1
    flight.end()


@pytest.fixture
def no_threads(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(self: threading.Thread) -> None:
        raise RuntimeError("can't start new thread")

    monkeypatch.setattr(threading.Thread, "start", refuse)


@pytest.mark.usefixtures("no_threads")
def test_a_refresh_without_a_thread_is_left_out_and_may_be_tried_again() -> None:
    refresher = ThreadRefresher()
    assert not refresher.start("a", bool)
    assert len(refresher) == 0


def test_refreshes_are_one_per_key_and_bounded() -> None:
    refresher = ThreadRefresher(limit=2)
    goes_on = threading.Event()
    ended = threading.Semaphore(0)

    def work() -> None:
        assert goes_on.wait(5)
        ended.release()

    started = [refresher.start(key, work) for key in ("a", "a", "b", "c")]
    assert started == [True, False, True, False]
    goes_on.set()
    for _ in range(2):
        assert ended.acquire(timeout=5)


def test_a_refresh_in_a_thread_that_fails_gives_its_place_back(caplog: pytest.LogCaptureFixture) -> None:
    refresher = ThreadRefresher(limit=1)

    def fails() -> None:
        raise RuntimeError("the application is down")

    for number in range(1, 4):
        assert refresher.start("a", fails, "/page")
        until(lambda: len(refresher) == 0, "it has given its place back", 5)
        assert caplog.messages == ["The background refresh of /page failed."] * number


def test_a_refresh_that_has_ended_is_held_by_nobody() -> None:
    """A process makes refreshes for as long as it lives."""
    refresher = TaskRefresher()

    async def main() -> weakref.ref[Any]:
        async def work() -> None:
            ended.set()

        ended = asyncio.Event()
        assert refresher.start("a", work)
        (task,) = [weakref.ref(task) for task in asyncio.all_tasks() if task.get_name() == "cachemw-refresh"]
        await ended.wait()
        return task

    task = asyncio.run(main())
    gc.collect()
    assert task() is None


def test_a_refresh_in_a_task_that_fails_gives_its_place_back(caplog: pytest.LogCaptureFixture) -> None:
    async def main() -> None:
        refresher = TaskRefresher(limit=1)

        async def never_ends() -> None:
            await asyncio.get_running_loop().create_future()

        assert refresher.start("a", never_ends)
        assert not refresher.start("b", never_ends)
        await refresher.aclose()
        await asyncio.sleep(0)
        assert len(refresher) == 0
        await refresher.aclose()
        assert refresher.start("b", never_ends)
        await refresher.aclose()

    asyncio.run(main())


def test_a_refresh_in_a_task_that_takes_too_long_gives_its_place_back(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr("cachemw.flights._REFRESH", 0.01)

    async def main() -> None:
        refresher = TaskRefresher(limit=1)

        async def never_ends() -> None:
            await asyncio.get_running_loop().create_future()

        assert refresher.start("a", never_ends, "/page")
        await asyncio.wait(refresher._tasks)
        await asyncio.sleep(0)
        assert len(refresher) == 0
        assert refresher.start("b", never_ends)
        await refresher.aclose()

    asyncio.run(main())
    assert caplog.messages == ["The background refresh of /page failed."]


def test_the_end_of_an_application_does_not_wait_for_a_refresh_that_will_not_end() -> None:
    async def main() -> None:
        refresher = TaskRefresher()
        begun, end = asyncio.Event(), asyncio.Event()

        async def goes_on() -> None:
            begun.set()
            while not end.is_set():
                with suppress(asyncio.CancelledError):
                    await end.wait()

        assert refresher.start("a", goes_on)
        await begun.wait()
        try:
            async with asyncio.timeout(5):
                await refresher.aclose(timeout=0.01)
            assert len(refresher) == 1
        finally:
            end.set()
        await refresher.aclose()

    asyncio.run(main())


def test_what_is_under_way_in_another_loop_is_left_to_that() -> None:
    refresher = TaskRefresher()
    begun, end = threading.Event(), threading.Event()

    async def elsewhere() -> None:
        over = asyncio.Event()

        async def waits() -> None:
            begun.set()
            assert await asyncio.to_thread(end.wait, 5)
            over.set()

        refresher.start("a", waits)
        await over.wait()

    thread = threading.Thread(target=lambda: asyncio.run(elsewhere()))
    thread.start()
    assert begun.wait(5)
    asyncio.run(refresher.aclose())
    assert len(refresher) == 1
    end.set()
    thread.join(5)
    assert len(refresher) == 0
