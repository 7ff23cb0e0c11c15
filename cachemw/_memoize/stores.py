"""Where fragments and memoized values are kept, and what happens when that place does not answer.

Rule 1: nothing is raised because of a store that fails: the fragment is rendered, the function is called.
Rule 2: a store that fails is left alone for a second at a time, so that a page of ten fragments waits once, not ten
        times; by the breaker that pages have, but here nobody waits for a thread that asks whether it is back.
Rule 3: a store that is not configured is a mistake in the program, and is raised.
"""

from __future__ import annotations

import itertools
import time
import weakref
from typing import Any

from cachemw._caching_here import site_here
from cachemw._pages_recovery import PERIOD, Breaker
from cachemw._values import refuse
from cachemw.backends.base import BaseCache
from cachemw.backends.registry import NAMES, Caches, caches, opened, resolve
from cachemw.errors import BackendUnavailable
from cachemw.flights import Flights

__all__ = ["Keeper", "caches_here", "check_store", "keeper_of", "store_of"]


def caches_here() -> Caches:
    """The stores by alias: of the Flask application whose context this is, if it has our extension; else the
    process's."""
    site = site_here()
    return caches if site is None else site.caches


def check_store(name: str, cache: object) -> str | BaseCache | None:
    """What a store was named by, where that is written: a URL is opened, an alias is looked up at each use.

    Raises: ImproperlyConfigured for what can be neither, and for a wrong URL.
    """
    if isinstance(cache, str) and "://" in cache:
        return opened(cache)
    if cache is None or isinstance(cache, str | BaseCache):
        return cache
    raise refuse(name, cache, NAMES)


def store_of(cache: str | BaseCache | None, known: Caches | None, *defaults: str) -> BaseCache:
    """The store that is meant; None: the first of the aliases `defaults` that is configured, else "default".

    Raises: InvalidCacheBackendError, which lists the aliases that are known.
    """
    if isinstance(cache, BaseCache):
        return cache
    known = known or caches_here()
    if cache is None:
        cache = next((alias for alias in defaults if alias in known), "default")
    return known[cache]


class Keeper:
    """A store as those see it who can do without it, and the values that are being made for it in this process."""

    def __init__(self, name: str) -> None:
        self.flights: Flights[Any] = Flights()
        #: Grows with each flight that ended: who looked before that has to look again.
        self.ended = 0
        self._ends = itertools.count(1)
        self._breaker = Breaker(f"cache {name}", "fragments and memoized values")
        self._rests_until = 0.0

    def end(self) -> None:
        """A flight is about to land."""
        self.ended = next(self._ends)

    def attempt(self, cache: BaseCache, operation: str, arguments: tuple[Any, ...], otherwise: Any) -> Any:
        """What the store answers, or `otherwise` if it does not."""
        if not self._take_turn():
            return otherwise
        began = time.monotonic()
        try:
            answer = getattr(cache, operation)(*arguments)
        except Exception as error:  # whatever a store raises
            self._failed(error, began)
            return otherwise
        self._breaker.succeeded()
        return answer

    async def aattempt(self, cache: BaseCache, operation: str, arguments: tuple[Any, ...], otherwise: Any) -> Any:
        """`attempt`, without blocking the event loop."""
        if not self._take_turn():
            return otherwise
        began = time.monotonic()
        try:
            answer = await getattr(cache, f"a{operation}")(*arguments)
        except Exception as error:
            self._failed(error, began)
            return otherwise
        self._breaker.succeeded()
        return answer

    def _take_turn(self) -> bool:
        """Be the one who asks the store, as all may while it works, and one a second while it does not."""
        if not self._breaker.open:
            return True
        now = time.monotonic()
        if now < self._rests_until:
            return False
        self._rests_until = now + PERIOD
        return True

    def _failed(self, error: Exception, began: float) -> None:
        self._rests_until = time.monotonic() + PERIOD
        self._breaker.failed(error, began, blameless=not isinstance(error, BackendUnavailable))


_keepers: weakref.WeakKeyDictionary[BaseCache, Keeper] = weakref.WeakKeyDictionary()


def keeper_of(cache: BaseCache) -> Keeper:
    """The keeper of a store: one for all who use it in this process."""
    keeper = _keepers.get(cache)
    if keeper is None:  # or it is `cachemw.cache`, which stands for another one
        keeper = _keepers.setdefault(resolve("cache", cache, caches), Keeper(repr(cache)))
    return keeper
