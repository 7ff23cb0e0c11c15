"""The stores as Django's CACHES wants them.

Rule 1: one store for a process. Django makes a cache for each thread and each task that is first to use an alias;
        equal configurations are one store here, whose connections serve them all.
Rule 2: Django closes its caches after every request; a store's connections outlive it.
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

#: The stores by the name that they have in Django, too.
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
    """Calling the class with a configuration that was seen before gives the store that was made then."""

    _lock = threading.RLock()  # a local tier makes the store behind it, which may be one of these

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
    """The thread that may have held it is not in the child."""
    _Shared._lock = threading.RLock()


os.register_at_fork(after_in_child=_after_fork)


class _KeyWarning(CacheKeyWarning, django_base.CacheKeyWarning):  # type: ignore[misc]
    """Django's, and ours."""


class _InvalidKey(InvalidCacheKey, django_base.InvalidCacheKey):  # type: ignore[misc]
    """Django's, and ours."""


class _Face:
    """What Django expects to be its own: the mark for a left-out timeout, warnings, errors, the end of a request."""

    key_warning = _KeyWarning

    def _seconds(self, timeout: Any) -> float | None:
        timeout = DEFAULT_TIMEOUT if timeout is django_base.DEFAULT_TIMEOUT else timeout
        return super()._seconds(timeout)  # type: ignore[misc, no-any-return]

    def validate_key(self, key: str) -> None:
        """The store's own rule: what it says of a key that it cannot take, or none of memcached's could."""
        try:
            super().validate_key(key)  # type: ignore[misc]
        except InvalidCacheKey as error:
            raise _InvalidKey(str(error)) from error

    def close(self, **kwargs: Any) -> None:
        """The end of a request is not the end of the store's connections."""

    async def aclose(self, **kwargs: Any) -> None:
        """See `close`."""


def django_cache(backend: type[BaseCache]) -> type[BaseCache]:
    """A store as a class for the BACKEND of Django's CACHES.

        MyCache = django_cache(mypackage.stores.MyCache)

    LOCATION, TIMEOUT, KEY_PREFIX, VERSION, KEY_FUNCTION and OPTIONS are what they are for the store itself. Equal
    configurations share one instance for the whole process, and `close()`, which Django calls at the end of every
    request, leaves its connections open.
    """
    names = {"__module__": backend.__module__, "__doc__": backend.__doc__}
    return cast(type[BaseCache], _Shared(backend.__name__, (_Face, backend), names))


def named(name: str) -> type[BaseCache]:
    """The class of a store of ours for Django."""
    return django_cache(registry.named(f"cachemw.backends.{BACKENDS[name]}.{name}"))
