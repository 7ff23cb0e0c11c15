"""One call for many callers. What it means for caches is in the contract; here are its corners."""

from __future__ import annotations

import asyncio
import os
import sys
import threading
from typing import Any

import pytest

from cachemw.backends import _once
from cachemw.backends._once import MISSING, Once
from cachemw.testing._concurrency import in_processes


def nothing() -> Any:
    return MISSING


async def anothing() -> Any:
    return MISSING


def test_a_follower_returns_its_own_look_else_the_leaders_object() -> None:
    once = Once()
    started, finish = threading.Event(), threading.Event()
    found: list[Any] = []

    def make() -> list[int]:
        started.set()
        assert finish.wait(10)
        return [1]

    leader = threading.Thread(target=lambda: found.append(once.call("key", 0, nothing, make)))
    leader.start()
    assert started.wait(10)
    waits = threading.Event()
    done = once._calls["key"].done
    wait = done.wait

    def waiting(timeout: float) -> bool:
        waits.set()
        return bool(wait(timeout))

    done.wait = waiting
    looks: list[Any] = []

    def look() -> Any:
        looks.append(1)
        return MISSING

    follower = threading.Thread(target=lambda: found.append(once.call("key", 0, look, make)))
    follower.start()
    assert waits.wait(10)
    finish.set()
    leader.join()
    follower.join()
    assert found[0] is found[1]
    assert looks == [1]
    assert once.ended == 1
    assert once._calls == {}


def test_a_child_of_a_fork_waits_for_no_thread_of_its_parent(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(_once, "_PATIENCE", 5)
    once = Once()
    started, finish = threading.Event(), threading.Event()

    def make() -> str:
        with once._lock:  # no thread of the child would ever release it
            started.set()
            assert finish.wait(10)
        return "the parent's"

    leader = threading.Thread(target=once.call, args=("key", 0, nothing, make))
    leader.start()
    assert started.wait(10)

    def child(number: int) -> list[str]:
        made: list[str] = []
        thread = threading.Thread(
            target=lambda: made.append(once.call("key", once.ended, nothing, lambda: "the child's")), daemon=True
        )
        thread.start()
        thread.join(4)
        return made

    try:
        assert in_processes(1, child) == [["the child's"]]
    finally:
        finish.set()
        leader.join()


@pytest.mark.filterwarnings("ignore:.*multi-threaded:DeprecationWarning")
def test_a_child_that_is_forked_in_the_midst_of_a_call_ends_it() -> None:
    once = Once()
    parent = os.getpid()
    try:
        child = once.call("key", 0, nothing, os.fork)
    finally:
        if os.getpid() != parent:
            os._exit(once._calls != {} or sys.exc_info()[0] is not None)
    assert os.waitpid(child, 0)[1] == 0
    assert once._calls == {}


def test_who_looked_before_another_call_ended_looks_again() -> None:
    once = Once()
    seen = once.ended
    assert once.call("key", seen, nothing, lambda: "first") == "first"
    assert once.call("key", seen, lambda: "stored", lambda: "second") == "stored"
    assert once.call("key", once.ended, lambda: "not asked", lambda: "third") == "third"


def test_a_task_that_looked_before_another_call_ended_looks_again() -> None:
    async def main() -> None:
        once = Once()

        async def make() -> str:
            return "made"

        async def stored() -> str:
            return "stored"

        assert await once.acall("key", 0, anothing, make) == "made"
        assert await once.acall("key", 0, stored, make) == "stored"
        assert await once.acall("key", once.ended, stored, make) == "made"

    asyncio.run(main())


@pytest.mark.parametrize("error", [KeyboardInterrupt, SystemExit])
def test_a_leader_that_is_stopped_hands_over_to_one_follower(error: type[BaseException]) -> None:
    once = Once()
    started, finish = threading.Event(), threading.Event()
    calls: list[str] = []

    def stopped() -> Any:
        started.set()
        assert finish.wait(10)
        raise error

    def lead() -> None:
        with pytest.raises(error):
            once.call("key", 0, nothing, stopped)

    leader = threading.Thread(target=lead)
    leader.start()
    assert started.wait(10)
    stored: list[str] = []

    def make() -> str:
        calls.append("made")
        stored.append("value")
        return "value"

    found: list[Any] = []

    def follow() -> None:
        found.append(once.call("key", 0, lambda: stored[0] if stored else MISSING, make))

    followers = [threading.Thread(target=follow) for _ in range(4)]
    for follower in followers:
        follower.start()
    finish.set()
    for thread in (leader, *followers):
        thread.join()
    assert found == ["value"] * 4
    assert calls == ["made"]


def test_followers_of_a_failed_leader_do_not_queue() -> None:
    once = Once()
    started, finish = threading.Event(), threading.Event()
    together = threading.Barrier(3)

    def fails() -> Any:
        started.set()
        assert finish.wait(10)
        raise ZeroDivisionError

    def lead() -> None:
        with pytest.raises(ZeroDivisionError):
            once.call("key", 0, nothing, fails)

    leader = threading.Thread(target=lead)
    leader.start()
    assert started.wait(10)
    running = once._calls["key"]
    found: list[int] = []

    def make() -> int:
        return together.wait(10)  # all three at the same time, or never

    followers = [threading.Thread(target=lambda: found.append(once.call("key", 0, nothing, make))) for _ in range(3)]
    waiting = running.done
    waited = threading.Semaphore(0)
    wait = waiting.wait

    def counted(timeout: float) -> Any:
        waited.release()
        return wait(timeout)

    waiting.wait = counted
    for follower in followers:
        follower.start()
    for _ in followers:
        assert waited.acquire(timeout=10)
    finish.set()
    for thread in (leader, *followers):
        thread.join()
    assert sorted(found) == [0, 1, 2]


def test_two_leaders_that_need_each_other_do_not_wait_for_each_other() -> None:
    once = Once()
    both = threading.Barrier(2)

    def lead(own: str, other: str) -> Any:
        def make() -> str:
            both.wait(10)
            return str(once.call(other, once.ended, nothing, lambda: f"{other} by {own}"))

        return once.call(own, 0, nothing, make)

    found: list[Any] = []
    threads = [threading.Thread(target=lambda a=a, b=b: found.append(lead(a, b))) for a, b in ("xy", "yx")]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(10)
    assert sorted(found) == ["x by y", "y by x"]


def test_patience_ends(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(_once, "_PATIENCE", 0.01)
    once = Once()
    started, finish = threading.Event(), threading.Event()

    def slow() -> str:
        started.set()
        assert finish.wait(10)
        return "slow"

    leader = threading.Thread(target=lambda: once.call("key", 0, nothing, slow))
    leader.start()
    assert started.wait(10)
    assert once.call("key", 0, nothing, lambda: "own") == "own"
    finish.set()
    leader.join()


def test_a_tasks_patience_ends_and_its_failures_are_not_shared(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(_once, "_PATIENCE", 0.01)

    async def main() -> None:
        once = Once()
        finish = asyncio.Event()

        async def slow() -> str:
            await finish.wait()
            raise ZeroDivisionError

        async def quick() -> str:
            return "own"

        leader = asyncio.create_task(once.acall("key", 0, anothing, slow))
        await asyncio.sleep(0)
        assert await once.acall("key", 0, anothing, quick) == "own"
        monkeypatch.setattr(_once, "_PATIENCE", 30)
        follower = asyncio.create_task(once.acall("key", 0, anothing, quick))
        await asyncio.sleep(0)
        finish.set()
        with pytest.raises(ZeroDivisionError):
            await leader
        assert await follower == "own"

    asyncio.run(main())


def test_tasks_of_two_loops_do_not_wait_for_each_other() -> None:
    once = Once()
    inside, finish = threading.Event(), threading.Event()

    async def slow() -> str:
        inside.set()
        assert await asyncio.to_thread(finish.wait, 10)
        return "slow"

    async def quick() -> str:
        return "quick"

    found: list[str] = []
    other = threading.Thread(target=lambda: found.append(asyncio.run(once.acall("key", 0, anothing, slow))))
    other.start()
    assert inside.wait(10)
    assert asyncio.run(once.acall("key", 0, anothing, quick)) == "quick"
    finish.set()
    other.join()
    assert found == ["slow"]
