"""The stores of fragments and memoized values, and what happens if one does not answer.

Rule 1: a store that fails raises nothing: the fragment is rendered, the function is called.
Rule 2: a store that fails is not called for a second, so that a page of ten fragments waits once, not ten times. The
        breaker is that of pages, but no thread tests in the background whether the store is back.
Rule 3: a store that is not configured is a mistake in the program, and an error.
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
    """The stores by alias: of the current Flask application, if it has the extension, else of the process."""
    site = site_here()
    return caches if site is None else site.caches


def check_store(name: str, cache: object) -> str | BaseCache | None:
    """The argument that names a store, checked when it is given: a URL is opened, an alias is looked up at each use.

    name: of the argument, for errors. Raises: ImproperlyConfigured for a wrong type, and for a wrong URL.
    """
    if isinstance(cache, str) and "://" in cache:
        return opened(cache)
    if cache is None or isinstance(cache, str | BaseCache):
        return cache
    raise refuse(name, cache, NAMES)


def store_of(cache: str | BaseCache | None, known: Caches | None, *defaults: str) -> BaseCache:
    """The store for an alias, or the store itself; None: the first of `defaults` that is configured, else "default".

    known: the stores by alias; None: see `caches_here`. Raises: InvalidCacheBackendError, which lists the aliases.
    """
    if isinstance(cache, BaseCache):
        return cache
    known = known or caches_here()
    if cache is None:
        cache = next((alias for alias in defaults if alias in known), "default")
    return known[cache]


class Keeper:
    """Calls of a store that may fail, and the flights of values that are made for it in this process."""

    def __init__(self, name: str) -> None:
        self.flights: Flights[Any] = Flights()
        #: The number of flights that have ended. If it grows after a look-up, the look-up is repeated.
        self.ended = 0
        self._ends = itertools.count(1)
        self._breaker = Breaker(f"cache {name}", "fragments and memoized values")
        self._rests_until = 0.0

    def end(self) -> None:
        """A flight is about to land."""
        self.ended = next(self._ends)

    def attempt(self, cache: BaseCache, operation: str, arguments: tuple[Any, ...], otherwise: Any) -> Any:
        """Call an operation of the store. Returns: its result, or `otherwise` if the store does not answer."""
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
        """May this caller call the store? Each may while it works; one in a second while it does not."""
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
    """The keeper of a store: one for all its users in this process."""
    keeper = _keepers.get(cache)
    if keeper is None:  # or `cache` is `cachemw.cache`, which stands for another store
        keeper = _keepers.setdefault(resolve("cache", cache, caches), Keeper(repr(cache)))
    return keeper
