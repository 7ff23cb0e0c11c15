"""One passage: from a key to its value, in the store, or made by the function (or template).

Rule 1: the steps are generators, written once; `Passage` carries them out, for threads and for tasks.
Rule 2: of all callers in this process that miss a key at the same time, one makes the value. The others wait, but not
        for ever; not if they make a value themselves (so waits never form a circle), and not in a thread that runs an
        event loop.
Rule 3: the maker of a value reads the key's mark, makes and stores the value, then reads the mark again. `invalidate`
        writes the mark, then removes the value. In every order one of the two removes an old value.
Rule 4: an error of the function is raised to its caller, unless an old value may be returned.
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

#: Seconds that a caller waits for another's value before it makes the value itself.
_PATIENCE: Final = 30.0

#: Is this thread or task making a value?
_leading: ContextVar[bool] = ContextVar("cachemw.making", default=False)


class Held(NamedTuple):
    """A value from the store. fresh_until: by the wall clock, inf: for ever; cost: seconds that it took to make."""

    value: Any
    fresh_until: float = math.inf
    cost: float = 0.0


class Made(NamedTuple):
    """The result of the call, and the seconds that it took."""

    value: Any
    cost: float


class Failed(NamedTuple):
    """The error of the call."""

    error: Exception


class _Landing(NamedTuple):
    """How a flight ended. copy: the value, pickled, if the store could not keep it."""

    failed: bool = False
    copy: bytes | None = None


class Recipe(NamedTuple):
    """How values of one kind are kept.

    name     for the log
    timeout  seconds that a value is fresh, as stores take it
    pack     a function of a value and its cost that returns what is stored
    unpack   a function of what is stored that returns a `Held`; None if it was not written by `pack`
    stale    seconds after the timeout in which a value is used if a new one cannot be made
    beta     how early a value is made again before its timeout, in multiples of its cost; 0: never
    marked   can the value be invalidated, by a mark (Rule 3)?
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


#: A step is one of: CALL, make the value; a flight, wait for it; a tuple, call the store (operation, arguments, and the
#: result if the store does not answer).
CALL: Final[Any] = object()
Steps = Generator[Any, Any, Any]


#: Seconds; longer than any call takes: a mark is for the calls under way.
MARK_TIMEOUT: Final = 3_600.0


def new_mark() -> str:
    """A mark that differs from all others."""
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
    """Is the value to be made again before its timeout? By chance: more likely the later, and the higher its cost.

    So one of many processes is early, and the others find its value ("XFetch": Vattani, Chierichetti, Lowenstein:
    Optimal Probabilistic Cache Stampede Prevention, VLDB 2015).
    """
    if not recipe.beta or held.fresh_until == math.inf:
        return False
    ahead = -held.cost * recipe.beta * math.log(1.0 - random.random())  # noqa: S311  no secret
    return time.time() + ahead >= held.fresh_until


def passage(keeper: Keeper, key: str, recipe: Recipe) -> Steps:
    """The steps to the value for a key, or to a `Failed` call."""
    seen = keeper.ended
    held = yield from _read(key, recipe)
    fresh = _is_fresh(held)
    if held is not None and fresh and not _is_due(held, recipe):
        return held.value
    if held is not None and time.time() >= held.fresh_until + recipe.stale:
        held = None  # too old; the store's clock is slow
    while True:
        flight, leads = keeper.flights.join(key)
        if leads:
            return (yield from _lead(keeper, recipe, flight, held, seen))
        if held is not None and fresh:
            return held.value  # another caller renews it
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
    """The value that another caller has made; MISSING if that caller was stopped, so that a waiting one takes over."""
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
    """The steps to a new value, whatever is stored. Calls that began earlier do not replace it."""
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
    _leading.set(True)  # no token: a fragment may begin and end in two contexts (a stream, in threads)
    try:
        return (yield CALL)
    finally:
        _leading.set(before)


def _pickled(packed: Any) -> bytes | None:
    """The value for the callers that wait: each unpickles its own copy, as from the store."""
    try:
        return pickle.dumps(packed, pickle.HIGHEST_PROTOCOL)
    except Exception:  # then each makes its own value
        return None


# -- carried out --------------------------------------------------------------------------------------------------


class Ended(NamedTuple):
    """The end of a passage: the value, or a `Failed` call."""

    answer: Any

    def result(self) -> Any:
        """The value. Raises: the error of a call that failed."""
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
