"""One passage: from a key to its value, through the store, or through the function (or template) that makes it.

Rule 1: what happens is decided here, once; a driver, of threads or of tasks, carries out what is yielded.
Rule 2: of all who miss a key at the same time in this process, one makes the value. Nobody waits for it who makes a
        value himself (no circle of waits can arise), nor on a thread that has an event loop to run, nor for ever.
Rule 3: whoever makes a value reads the key's mark before and after. An invalidation writes the mark and then removes
        the value; this writes the value and then reads the mark: in every order one of the two removes it.
Rule 4: a function's error is its caller's, unless there is a value to fall back on.
"""

from __future__ import annotations

import asyncio
import logging
import math
import pickle
import random
import secrets
import time
from collections.abc import Awaitable, Callable, Generator
from contextlib import closing
from contextvars import ContextVar
from typing import Any, Final, NamedTuple, TypeGuard

from cachemw._memoize.stores import Keeper, keeper_of
from cachemw.backends._once import MISSING
from cachemw.backends.base import BaseCache
from cachemw.flights import Flight

__all__ = [
    "MARK_TIMEOUT",
    "Ended",
    "Failed",
    "Held",
    "Made",
    "Passage",
    "Recipe",
    "Steps",
    "mark_of",
    "new_mark",
    "passage",
    "remade",
]

log = logging.getLogger("cachemw")

#: Seconds that a follower waits before it makes the value itself.
_PATIENCE: Final = 30.0

#: Is this thread or task making a value?
_leading: ContextVar[bool] = ContextVar("cachemw.making", default=False)


class Held(NamedTuple):
    """A value as it was found in the store. fresh_until: the wall clock's, inf for ever; cost: seconds it took."""

    value: Any
    fresh_until: float = math.inf
    cost: float = 0.0


class Made(NamedTuple):
    """What the call gave, and the seconds that it took."""

    value: Any
    cost: float


class Failed(NamedTuple):
    """What the call raised."""

    error: Exception


class _Landing(NamedTuple):
    """How a flight ended. copy: what the store could not keep, pickled."""

    failed: bool = False
    copy: bytes | None = None


class Recipe(NamedTuple):
    """How values of one kind are kept.

    name     what the log calls it
    timeout  seconds that a value is fresh, as stores take it
    pack     a value that took so many seconds, as it is stored
    unpack   what is stored, as a `Held`; None if it is nothing of ours
    stale    seconds after the timeout in which a value may replace one that could not be made
    beta     how eagerly a value is made anew before its time, in its own cost; 0: never
    marked   is there a mark to be read (Rule 3)?
    """

    name: str
    timeout: Any
    pack: Callable[[Any, float], Any]
    unpack: Callable[[Any], Held | None]
    stale: float = 0.0
    beta: float = 0.0
    marked: bool = False

    @property
    def kept_for(self) -> Any:
        """Seconds that the store keeps a value."""
        return self.timeout + self.stale if self.stale and self.timeout is not None else self.timeout


#: A step of a passage: make the value; wait for a flight; or (operation of the store, arguments, what it is if the
#: store does not answer).
CALL: Final[Any] = object()
Steps = Generator[Any, Any, Any]


#: Seconds; longer than any call takes: only those under way have to see a mark.
MARK_TIMEOUT: Final = 3_600.0


def new_mark() -> str:
    """Unlike any other."""
    return secrets.token_hex(8)


def mark_of(key: str) -> str:
    """The key of a key's mark."""
    return f"{key}.mark"


def _read(key: str, recipe: Recipe) -> Generator[Any, Any, Held | None]:
    stored = yield "get", (key, MISSING), MISSING
    return None if stored is MISSING else recipe.unpack(stored)


def _is_fresh(held: Held | None) -> TypeGuard[Held]:
    return held is not None and time.time() < held.fresh_until


def _is_due(held: Held, recipe: Recipe) -> bool:
    """Shall it be made anew, a little before it has to be? The later and the dearer, the likelier.

    Vattani, Chierichetti, Lowenstein: Optimal Probabilistic Cache Stampede Prevention (VLDB 2015), "XFetch": of many
    processes, one is early, and the others find what it made.
    """
    if not recipe.beta or held.fresh_until == math.inf:
        return False
    ahead = -held.cost * recipe.beta * math.log(1.0 - random.random())  # noqa: S311  no secret
    return time.time() + ahead >= held.fresh_until


def passage(keeper: Keeper, key: str, recipe: Recipe) -> Steps:
    """The value, or the `Failed` call for it."""
    seen = keeper.ended
    held = yield from _read(key, recipe)
    fresh = _is_fresh(held)
    if held is not None and fresh and not _is_due(held, recipe):
        return held.value
    if held is not None and time.time() >= held.fresh_until + recipe.stale:
        held = None  # the store's clock is behind ours
    while True:
        flight, leads = keeper.flights.join(key)
        if leads:
            return (yield from _lead(keeper, recipe, flight, held, seen))
        if held is not None and fresh:
            return held.value  # somebody else makes it anew
        value = yield from _follow(recipe, flight, held)
        if value is not MISSING:
            return value


def _lead(keeper: Keeper, recipe: Recipe, flight: Flight[Any], held: Held | None, seen: int) -> Steps:
    landing: _Landing | None = None
    try:
        if keeper.ended != seen and _is_fresh(found := (yield from _read(flight.key, recipe))):
            landing = _Landing()
            return found.value
        value, landing = yield from _make(flight.key, recipe, held)
        return value
    finally:
        keeper.end()
        if landing is not None:
            flight.land({flight.key: landing})
        flight.end()


def _follow(recipe: Recipe, flight: Flight[Any], held: Held | None) -> Steps:
    """What somebody else has made; MISSING if he was stopped, and one of those who waited has to take over."""
    if not _leading.get() and (yield flight):
        landing = flight.records.get(flight.key)
        if landing is None:
            return MISSING
        if landing.failed and held is not None:
            return held.value
        if landing.copy is not None:
            found = recipe.unpack(pickle.loads(landing.copy))  # noqa: S301  made in this process a moment ago
        else:
            found = None if landing.failed else (yield from _read(flight.key, recipe))
        if _is_fresh(found):
            return found.value
    value, _ = yield from _make(flight.key, recipe, held)
    return value


def remade(keeper: Keeper, key: str, recipe: Recipe) -> Steps:
    """A new value, whatever is stored; who has begun earlier, stores nothing over it."""
    yield "set", (mark_of(key), new_mark(), MARK_TIMEOUT), None
    value, _ = yield from _make(key, recipe, None)
    return value


def _make(key: str, recipe: Recipe, held: Held | None) -> Generator[Any, Any, tuple[Any, _Landing]]:
    mark = (yield "get", (mark_of(key),), None) if recipe.marked else None
    made = yield from _call()
    if type(made) is Failed:
        if held is None:
            return made, _Landing(failed=True)
        log.warning("%s failed; its last value stands in", recipe.name, exc_info=made.error)
        return held.value, _Landing(failed=True)
    packed = recipe.pack(made.value, made.cost)
    if (yield "set_many", ({key: packed}, recipe.kept_for), (key,)):  # the keys that were not stored
        return made.value, _Landing(copy=_pickled(packed))
    if recipe.marked and (yield "get", (mark_of(key),), None) != mark:
        yield "delete", (key,), False
    return made.value, _Landing()


def _call() -> Steps:
    before = _leading.get()
    _leading.set(True)  # and back without a token: a fragment may begin and end in two contexts (streams in threads)
    try:
        return (yield CALL)
    finally:
        _leading.set(before)


def _pickled(packed: Any) -> bytes | None:
    """For those who wait: their own copy, as they would have had it from the store."""
    try:
        return pickle.dumps(packed, pickle.HIGHEST_PROTOCOL)
    except Exception:  # then they make their own
        return None


# -- the two drivers --------------------------------------------------------------------------------------------------


class Ended(NamedTuple):
    """What a passage ended with."""

    answer: Any

    def result(self) -> Any:
        """The value; raises the error of a call that failed."""
        if type(self.answer) is Failed:
            raise self.answer.error
        return self.answer


class Passage:
    """One passage through a store. `begin` is `passage`, or `remade` for a new value whatever is stored."""

    __slots__ = ("_cache", "_keeper", "steps")

    def __init__(
        self, cache: BaseCache, key: str, recipe: Recipe, begin: Callable[[Keeper, str, Recipe], Steps] = passage
    ) -> None:
        self._cache = cache
        self._keeper = keeper_of(cache)
        self.steps = begin(self._keeper, key, recipe)

    def proceed(self, answer: Made | Failed | None = None) -> Ended | None:
        """Carry out the steps to the end; None: up to a CALL, whose answer the caller brings."""
        result: Any = answer
        try:
            while (step := self.steps.send(result)) is not CALL:
                result = _wait(step) if type(step) is Flight else self._keeper.attempt(self._cache, *step)
        except StopIteration as end:
            return Ended(end.value)
        return None

    async def aproceed(self, answer: Made | Failed | None = None) -> Ended | None:
        """`proceed` without blocking the event loop."""
        result: Any = answer
        try:
            while (step := self.steps.send(result)) is not CALL:
                if type(step) is Flight:
                    result = await step.await_landing(_PATIENCE)
                else:
                    result = await self._keeper.aattempt(self._cache, *step)
        except StopIteration as end:
            return Ended(end.value)
        return None

    def run(self, call: Callable[[], Any]) -> Any:
        """The value, from the store or from `call`. Raises: what the call raises."""
        with closing(self.steps):
            end = self.proceed()
            if end is None:
                began = time.monotonic()
                try:
                    made: Made | Failed = Made(call(), time.monotonic() - began)
                except Exception as error:
                    made = Failed(error)
                end = self.proceed(made)
        assert end is not None  # one call, and it was made
        return end.result()

    async def arun(self, call: Callable[[], Awaitable[Any]]) -> Any:
        """`run` for tasks."""
        with closing(self.steps):
            end = await self.aproceed()
            if end is None:
                began = time.monotonic()
                try:
                    made: Made | Failed = Made(await call(), time.monotonic() - began)
                except Exception as error:
                    made = Failed(error)
                end = await self.aproceed(made)
        assert end is not None
        return end.result()


def _wait(flight: Flight[Any]) -> bool:
    """Wait for a flight; False at once in a thread with an event loop to run."""
    try:
        asyncio.get_running_loop()
    except RuntimeError:
        return flight.wait(_PATIENCE)
    return False
