"""The stores as classes for Django's CACHES.

Rule 1: one store for a process. Django makes a cache for each thread, and for each task that is the first to use an
        alias; here equal configurations are one store, with connections for all threads and tasks.
Rule 2: Django closes its caches after every request; the connections of the store stay open.
"""

from __future__ import annotations

import os
import threading
from abc import ABCMeta
from collections.abc import Mapping, Sequence
from typing import Any, Final, cast

from django.core.cache.backends import base as django_base  # type: ignore[import-untyped]

from cachemw.backends import registry
from cachemw.backends.base import DEFAULT_TIMEOUT, BaseCache
from cachemw.errors import CacheKeyWarning, InvalidCacheKey

__all__ = ["BACKENDS", "django_cache", "named"]

#: The modules of the stores, by the names of their classes, which are Django's names.
BACKENDS: Final[Mapping[str, str]] = {
    "DatabaseCache": "db",
    "DummyCache": "dummy",
    "FileBasedCache": "filebased",
    "LocMemCache": "locmem",
    "PyLibMCCache": "memcached",
    "PyMemcacheCache": "memcached",
    "RedisCache": "redis",
    "TieredCache": "tiered",
}


class _Shared(ABCMeta):
    """Equal arguments give the same instance."""

    _lock = threading.RLock()  # reentrant: a local tier makes the store behind it

    def __init__(cls, *args: Any) -> None:
        super().__init__(*args)
        cls._shared_stores: list[tuple[Any, Mapping[str, Any], BaseCache]] = []

    def __call__(cls, location: str | Sequence[str] = "", params: Mapping[str, Any] | None = None) -> BaseCache:
        given = dict(params or {})
        with _Shared._lock:
            for known_location, known, store in cls._shared_stores:
                if (known_location, known) == (location, given):
                    return store
            made: BaseCache = super().__call__(location, dict(given))
            cls._shared_stores.append((location, given, made))
            return made


def _after_fork() -> None:
    """A thread that may have held the lock is not in the child."""
    _Shared._lock = threading.RLock()


os.register_at_fork(after_in_child=_after_fork)


class _KeyWarning(CacheKeyWarning, django_base.CacheKeyWarning):  # type: ignore[misc]
    """Django's, and ours."""


class _InvalidKey(InvalidCacheKey, django_base.InvalidCacheKey):  # type: ignore[misc]
    """Django's, and ours."""


class _Face:
    """What Django expects of its caches: its mark for a left-out timeout, its warnings and errors, its `close`."""

    key_warning = _KeyWarning

    def _seconds(self, timeout: Any) -> float | None:
        timeout = DEFAULT_TIMEOUT if timeout is django_base.DEFAULT_TIMEOUT else timeout
        return super()._seconds(timeout)  # type: ignore[misc, no-any-return]

    def validate_key(self, key: str) -> None:
        """The store's own check, with Django's error."""
        try:
            super().validate_key(key)  # type: ignore[misc]
        except InvalidCacheKey as error:
            raise _InvalidKey(str(error)) from error

    def close(self, **kwargs: Any) -> None:
        """Nothing: Django calls this at the end of every request, and the connections stay open."""

    async def aclose(self, **kwargs: Any) -> None:
        """See `close`."""


def django_cache(backend: type[BaseCache]) -> type[BaseCache]:
    """Make a store's class usable as BACKEND in Django's CACHES.

        MyCache = django_cache(mypackage.stores.MyCache)

    LOCATION, TIMEOUT, KEY_PREFIX, VERSION, KEY_FUNCTION and OPTIONS mean what they mean for the store itself. Equal
    configurations share one instance in the process. Django calls `close()` at the end of every request; it leaves the
    connections open.
    """
    names = {"__module__": backend.__module__, "__doc__": backend.__doc__}
    return cast(type[BaseCache], _Shared(backend.__name__, (_Face, backend), names))


def named(name: str) -> type[BaseCache]:
    """The class for Django of one of our stores, by its name in `BACKENDS`."""
    return django_cache(registry.named(f"cachemw.backends.{BACKENDS[name]}.{name}"))
