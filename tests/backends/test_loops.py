"""What belongs to an event loop is made once for each, and ends with it."""

from __future__ import annotations

import asyncio
import gc
import threading
import weakref
from typing import Any

import pytest

from cachemw.backends._loops import PerLoop
from cachemw.testing._concurrency import in_threads


class Thing:
    """What a loop has."""

    def __init__(self) -> None:
        self.loop = asyncio.get_running_loop()
        self.ended_in: Any = None


async def end(thing: Thing) -> None:
    await asyncio.sleep(0)
    thing.ended_in = asyncio.get_running_loop()


@pytest.fixture
def things() -> PerLoop[Thing]:
    return PerLoop(end)


async def here(things: PerLoop[Thing]) -> Thing:
    return things.here(Thing)


def test_a_loop_has_one_and_another_loop_another(things: PerLoop[Thing]) -> None:
    async def three_times() -> list[Thing]:
        assert things.known() is None
        found = [things.here(Thing), await asyncio.create_task(here(things)), things.here(Thing)]
        assert things.known() is found[0]
        return found

    first, second = asyncio.run(three_times()), asyncio.run(three_times())
    assert len({*first}) == len({*second}) == 1
    assert first[0] is not second[0]


def test_loops_that_take_turns_keep_their_own(things: PerLoop[Thing]) -> None:
    loops = [asyncio.new_event_loop() for _ in range(2)]
    found = [loop.run_until_complete(here(things)) for loop in (*loops, *loops)]
    assert found[:2] == found[2:]
    assert things.open() == [*zip(loops, found[:2], strict=True)]
    loops[0].close()
    assert things.open() == [(loops[1], found[1])]
    loops[1].close()


def test_it_ends_in_its_own_loop(things: PerLoop[Thing]) -> None:
    thing = asyncio.run(here(things))
    assert thing.ended_in is thing.loop


def test_it_ends_too_when_nobody_has_it_any_more() -> None:
    async def main() -> None:
        things = PerLoop(end)
        thing = things.here(Thing)
        del things
        gc.collect()
        while thing.ended_in is None:
            await asyncio.sleep(0)

    asyncio.run(asyncio.wait_for(main(), 10))


def test_loops_that_ended_are_forgotten(things: PerLoop[Thing]) -> None:
    loops = [weakref.ref(asyncio.run(here(things)).loop) for _ in range(5)]
    gc.collect()
    assert [loop() for loop in loops[:-1]] == [None] * 4


def test_two_threads_may_forget_the_same_loop(things: PerLoop[Thing], monkeypatch: pytest.MonkeyPatch) -> None:
    """As where each request has a thread and a loop of its own."""
    ended = asyncio.run(here(things)).loop
    both = threading.Barrier(2)
    monkeypatch.setattr(ended, "is_closed", lambda: both.wait(10) >= 0)  # both have seen it before one forgets it
    found = in_threads(2, lambda _: asyncio.run(here(things)))
    assert len({*found}) == 2
    assert all(thing.ended_in is thing.loop for thing in found)


def test_in_a_forked_process_the_parents_are_left_alone(things: PerLoop[Thing]) -> None:
    async def main() -> tuple[Thing, Thing]:
        parents = things.here(Thing)
        things.forget()  # as the child does, whose loop may be a copy of the parent's
        assert things.known() is None
        assert things.open() == []
        gc.collect()
        await asyncio.sleep(0)
        assert parents.ended_in is None
        return parents, things.here(Thing)

    parents, childs = asyncio.run(main())
    assert childs is not parents
