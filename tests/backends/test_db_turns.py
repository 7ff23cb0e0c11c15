"""The line in which threads and tasks wait for a connection to a database, and its time limits."""

from __future__ import annotations

import asyncio
import socket
import threading
import time
from collections.abc import Callable
from concurrent.futures import Future
from typing import Any

import pytest

from cachemw.backends._db import turns as db_turns
from cachemw.backends._db.pymysql import QuickConnection
from cachemw.backends._db.turns import Limit, Line, TaskTurn, ThreadTurn
from cachemw.backends._dialling import await_result
from tests.backends.loop_clock import LoopClock

WORKS = None, None, None  # the end of a context
FAILS = OSError, OSError("no answer"), None


class Clock:
    """Stands still until it is told otherwise."""

    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    clock = Clock()
    monkeypatch.setattr(db_turns, "monotonic", clock)
    return clock


def a_line(places: int = 3, *, timeout: float = 0.1, patience: float = 30) -> Line:
    return Line(places, timeout=timeout, patience=patience)


class Waiting:
    """Threads that wait for their turn, one after the other; `ended` says what came of it."""

    def __init__(self, line: Line, count: int = 1) -> None:
        self.line = line
        self.ended: list[ThreadTurn | TimeoutError] = []
        self.threads = [threading.Thread(target=self._wait) for _ in range(count)]
        for number, thread in enumerate(self.threads):
            thread.start()
            while len(line._waiting) <= number:
                assert thread.is_alive(), "it had to wait"
                thread.join(0.001)

    def _wait(self) -> None:
        try:
            self.ended.append(ThreadTurn(self.line).__enter__())
        except TimeoutError as error:
            self.ended.append(error)

    def end(self) -> list[ThreadTurn | TimeoutError]:
        for thread in self.threads:
            thread.join(10)
        return self.ended

    def turn(self) -> ThreadTurn:
        [turn] = self.end()
        assert isinstance(turn, ThreadTurn)
        return turn


def test_connections_are_opened_one_after_the_other() -> None:
    line = a_line(2)
    first = ThreadTurn(line).__enter__()
    assert first.opens
    waiting = Waiting(line)
    first.opened()
    assert waiting.turn().opens


def test_who_waits_uses_what_is_given_back_instead_of_opening_one() -> None:
    line = a_line()
    first = ThreadTurn(line).__enter__()
    first.opened()
    first.opened()  # said twice it is no second one
    opening = ThreadTurn(line).__enter__()
    waiting = Waiting(line)
    first.__exit__(*WORKS)
    assert not waiting.turn().opens
    assert opening.opens


def test_no_more_connections_than_places() -> None:
    line = a_line(2)
    turns = [ThreadTurn(line).__enter__()]
    turns[0].opened()
    turns.append(ThreadTurn(line).__enter__())
    turns[1].opened()
    waiting = Waiting(line)
    turns[1].__exit__(*WORKS)
    assert not waiting.turn().opens


def test_one_that_the_server_did_not_answer_speaks_for_all_who_wait(clock: Clock) -> None:
    line = a_line(1)
    first = ThreadTurn(line).__enter__()
    waiting = Waiting(line, 3)
    clock.now += 0.2
    first.__exit__(*FAILS)
    assert [type(ended) for ended in waiting.end()] == [TimeoutError] * 3
    assert ThreadTurn(line).__enter__().opens, "who comes later asks anew"


def test_a_quick_refusal_leaves_the_next_its_own_attempt(clock: Clock) -> None:
    line = a_line(1)
    first = ThreadTurn(line).__enter__()
    waiting = Waiting(line)
    clock.now += 0.01
    first.__exit__(*FAILS)
    assert waiting.turn().opens


def test_one_unanswered_call_among_answered_ones_fails_alone(clock: Clock) -> None:
    line = a_line(2)
    slow = ThreadTurn(line).__enter__()
    slow.opened()
    quick = ThreadTurn(line).__enter__()
    quick.opened()
    waiting = Waiting(line, 2)
    clock.now += 0.05
    quick.__exit__(*WORKS)
    clock.now += 0.05
    slow.__exit__(*FAILS)
    assert [isinstance(ended, ThreadTurn) for ended in waiting.end()] == [True, True]


def test_a_caller_who_left_late_says_nothing_about_the_server(clock: Clock) -> None:
    line = a_line(1)
    first = ThreadTurn(line).__enter__()
    waiting = Waiting(line)
    clock.now += 0.2
    first.__exit__(KeyboardInterrupt, KeyboardInterrupt(), None)
    assert waiting.turn().opens


def test_nobody_waits_for_the_others_for_ever() -> None:
    line = a_line(1, patience=0.01)
    first = ThreadTurn(line).__enter__()
    with pytest.raises(TimeoutError, match="those who have the connections"), ThreadTurn(line):
        pass
    first.opened()
    first.__exit__(*WORKS)
    assert not ThreadTurn(line).__enter__().opens, "who gave up does not stand in the way"


class Interrupted:
    """A gate at which a signal's handler raises."""

    def __init__(self, before: Callable[[], object]) -> None:
        self.before = before

    def acquire(self, timeout: float) -> bool:
        self.before()
        raise SystemExit

    def release(self) -> None:
        """Let go on."""


@pytest.mark.parametrize("granted", [False, True])
def test_an_interrupted_thread_takes_no_place_with_it(granted: bool) -> None:
    line = a_line(1)
    first = ThreadTurn(line).__enter__()
    first.opened()
    turn: Any = ThreadTurn(line)
    turn._gate = Interrupted((lambda: first.__exit__(*WORKS)) if granted else (lambda: None))
    with pytest.raises(SystemExit):
        turn.__enter__()
    if not granted:
        first.__exit__(*WORKS)
    assert not ThreadTurn(line).__enter__().opens


@pytest.mark.parametrize("granted", [False, True])
def test_a_cancelled_task_takes_no_place_with_it(granted: bool) -> None:
    async def main() -> None:
        line = a_line(1)
        async with TaskTurn(line) as first:
            first.opened()
            waiting = asyncio.create_task(TaskTurn(line).__aenter__())
            while not line._waiting:
                await asyncio.sleep(0)
            if not granted:
                waiting.cancel()
        waiting.cancel()
        with pytest.raises(asyncio.CancelledError):
            await waiting
        async with TaskTurn(line) as last:
            assert not last.opens

    asyncio.run(main())


def test_a_task_that_was_cancelled_before_it_noticed_is_passed_by() -> None:
    async def main() -> None:
        line = a_line(1)
        turn = TaskTurn(line)
        async with TaskTurn(line):
            waiting = asyncio.create_task(turn.__aenter__())
            while not line._waiting:
                await asyncio.sleep(0)
            waiting.cancel()
            turn._future.cancel()
        with pytest.raises(asyncio.CancelledError):
            await waiting
        async with TaskTurn(line) as last:
            assert last.opens

    asyncio.run(main())


def test_tasks_wait_for_each_other_and_not_for_ever() -> None:
    async def main() -> None:
        line = a_line(1, patience=0.02)
        async with TaskTurn(line) as first:
            first.opened()
            with pytest.raises(TimeoutError, match="those who have the connections"):
                await TaskTurn(line).__aenter__()
        order: list[int] = []

        async def use(number: int) -> None:
            async with TaskTurn(line):
                order.append(number)
                await asyncio.sleep(0)

        await asyncio.gather(*(use(number) for number in range(5)))
        assert order == [0, 1, 2, 3, 4]

    asyncio.run(main())


def test_a_limit_does_not_count_what_the_loop_did_meanwhile() -> None:
    async def main() -> None:
        ours, theirs = socket.socketpair()
        with ours, theirs:
            ours.setblocking(False)
            loop = asyncio.get_running_loop()
            loop.call_soon(time.sleep, 0.15)  # the loop is busy for longer than the limit
            loop.call_soon(theirs.send, b"reply")
            async with Limit(0.1):
                assert await loop.sock_recv(ours, 10) == b"reply"

    asyncio.run(main())


def test_a_limit_ends_and_begins_anew() -> None:
    async def wait_for_nothing(seconds: float | None) -> None:
        async with Limit(seconds) as limit:
            limit.restart(0.01)
            await asyncio.Event().wait()

    async def main() -> None:
        for seconds in (0.02, None):
            began = time.monotonic()
            with pytest.raises(TimeoutError):
                await wait_for_nothing(seconds)
            assert time.monotonic() - began >= 0.01
        clock = LoopClock()
        async with Limit(10) as limit:
            limit.restart(None)
            await clock.advance(20)

    asyncio.run(main())


def test_a_result_is_waited_for_in_time() -> None:
    future: Future[str] = Future()
    began = time.monotonic()
    with pytest.raises(TimeoutError):
        await_result(future, 0.02)
    assert 0.02 <= time.monotonic() - began < 5
    future.set_result("here")
    assert await_result(future, 0.02) == "here"


def test_an_error_that_is_a_time_out_is_not_waited_for_again() -> None:
    future: Future[str] = Future()
    future.set_exception(TimeoutError("the driver's own"))
    with pytest.raises(TimeoutError, match="the driver's own"):
        await_result(future, 1)


def test_pymysql_reads_the_authorities_of_the_machine_once() -> None:
    one, other, own = (QuickConnection(defer_connect=True, ssl=ssl) for ssl in (None, None, {"check_hostname": False}))
    assert one.ctx is other.ctx
    assert own.ctx is not one.ctx
    assert (one._ssl_required, own._ssl_required) == (False, True)
