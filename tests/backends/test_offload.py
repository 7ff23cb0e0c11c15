"""`offload`: blocking work of tasks, in threads that come and go with their event loop."""

from __future__ import annotations

import asyncio
import gc
import os
import threading
from contextvars import ContextVar
from typing import Any

import anyio
import pytest

from cachemw.backends import _offload
from cachemw.backends.base import offload
from tests.servers import until

_name: ContextVar[str] = ContextVar("name", default="nobody")


def ours() -> set[threading.Thread]:
    return {thread for thread in threading.enumerate() if thread.name == "cachemw-offload"}


def raise_(error: BaseException) -> None:
    raise error


def test_work_is_given_its_arguments_and_the_context_of_its_task() -> None:
    async def main() -> tuple[Any, ...]:
        _name.set("task")
        return await offload(lambda *given: (*given, _name.get()), 1, 2), _name.get()

    assert asyncio.run(main()) == ((1, 2, "task"), "task")


@pytest.mark.parametrize("error", [ValueError("no"), SystemExit(3), StopIteration(1)])
def test_what_work_raises_is_raised_to_who_waits(error: BaseException) -> None:
    async def main() -> tuple[BaseException, int]:
        try:
            await offload(raise_, error)
        except BaseException as raised:
            return raised, await offload(int, "1")  # and its thread goes on
        raise AssertionError

    raised, after = asyncio.run(main())
    assert after == 1
    assert raised.__cause__ is error if isinstance(error, StopIteration) else raised is error


def test_one_thread_serves_one_piece_of_work_after_the_other() -> None:
    async def main() -> set[int]:
        return {await offload(threading.get_ident) for _ in range(5)}

    assert len(asyncio.run(main())) == 1


@pytest.mark.parametrize("shuts_down", [True, False])
def test_the_threads_end_with_their_loop(shuts_down: bool) -> None:
    before = ours()

    async def main() -> None:
        await asyncio.gather(*(offload(int) for _ in range(5)))
        assert ours() - before

    loop = asyncio.new_event_loop()
    loop.run_until_complete(main())
    if shuts_down:
        loop.run_until_complete(loop.shutdown_asyncgens())
    loop.close()
    if not shuts_down:  # then it is noticed when another one begins
        del loop
        asyncio.run(offload(int))
        gc.collect()
    until(lambda: not ours() - before, "the threads have ended")


def test_a_loop_may_go_on_after_its_end() -> None:
    loop = asyncio.new_event_loop()
    for _ in range(_offload._THREADS + 1):
        assert loop.run_until_complete(offload(int, "7")) == 7
        loop.run_until_complete(loop.shutdown_asyncgens())
    loop.close()


def test_work_that_has_begun_ends_whoever_is_cancelled_and_what_has_not_is_not_begun() -> None:
    begun, release = threading.Semaphore(0), threading.Event()
    done: list[int] = []

    def work(number: int) -> None:
        begun.release()
        assert release.wait(10)
        done.append(number)

    async def main() -> None:
        tasks = [asyncio.create_task(offload(work, number)) for number in range(_offload._THREADS + 2)]
        for _ in range(_offload._THREADS):
            assert await asyncio.to_thread(begun.acquire, timeout=10)
        tasks[0].cancel()
        tasks[-2].cancel()  # these two wait for a thread
        await asyncio.wait(tasks[:1] + tasks[-2:-1])
        release.set()
        await asyncio.wait(tasks)
        assert [task.cancelled() for task in tasks].count(True) == 2
        assert await offload(int, "1") == 1

    asyncio.run(main())
    assert sorted(done) == [number for number in range(_offload._THREADS + 2) if number != _offload._THREADS]


def test_a_cancelled_scope_waits_for_work_that_has_begun() -> None:
    cancelled = threading.Event()
    done: list[bool] = []

    def work(loop: asyncio.AbstractEventLoop, scope: anyio.CancelScope) -> None:
        loop.call_soon_threadsafe(scope.cancel)
        loop.call_soon_threadsafe(cancelled.set)
        done.append(cancelled.wait(10))

    async def main() -> list[bool]:
        with anyio.CancelScope() as scope:
            await offload(work, asyncio.get_running_loop(), scope)
            await asyncio.sleep(0)
            raise AssertionError("it was cancelled")
        return done.copy()

    assert asyncio.run(main()) == [True]


def test_where_no_thread_is_to_be_had_others_do_the_work(monkeypatch: pytest.MonkeyPatch) -> None:
    release = threading.Event()

    async def main() -> list[object]:
        first = asyncio.create_task(offload(release.wait, 10))
        await asyncio.sleep(0)
        monkeypatch.setattr(_offload, "begin", lambda thread: raise_(RuntimeError("can't start new thread")))
        second = asyncio.create_task(offload(int, "2"))
        await asyncio.sleep(0)
        release.set()
        return [await first, await second]

    assert asyncio.run(main()) == [True, 2]
    with pytest.raises(RuntimeError, match="can't start"):
        asyncio.run(offload(int))


def test_the_child_of_a_fork_has_threads_of_its_own() -> None:
    before = ours()
    asyncio.run(offload(int))
    until(lambda: not ours() - before, "a fork finds one thread")
    child = os.fork()
    if child == 0:
        os._exit(asyncio.run(offload(int, "42")))
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 42


def test_a_thread_ends_that_comes_back_to_a_closed_loop() -> None:
    before, release = ours(), threading.Event()
    loop = asyncio.new_event_loop()
    task = loop.create_task(offload(release.wait, 10))
    loop.run_until_complete(asyncio.sleep(0))
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        loop.run_until_complete(task)
    loop.close()
    release.set()
    until(lambda: not ours() - before, "the thread has ended")
