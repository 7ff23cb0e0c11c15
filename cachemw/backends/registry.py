"""Caches: the stores of a process, by alias. Each is made when it is first used.

One store serves all threads and event loops of a process: it keeps its connections for each of them. (Django makes one
store for each thread, and for each asyncio task that is the first to use an alias.)
"""

from __future__ import annotations

import os
import threading
import weakref
from collections.abc import Iterator, Mapping
from importlib import import_module
from inspect import isabstract
from typing import Any, Final, cast

from cachemw._urls import cache_from_url
from cachemw._values import refuse, without_password
from cachemw.backends.base import BaseCache
from cachemw.errors import ImproperlyConfigured, InvalidCacheBackendError
from cachemw.settings import Settings

__all__ = ["NAMES", "Caches", "cache", "caches", "connect", "make_cache", "named", "opened", "resolve"]

#: How a store can be named, for errors.
NAMES: Final = (
    "the alias of a configured cache, a URL such as 'locmem://' or 'redis://localhost:6379/0', or a store (an instance "
    "of BaseCache)"
)

_DEFAULT: Final[Mapping[str, Any]] = {"default": {"BACKEND": "cachemw.backends.locmem.LocMemCache"}}

#: A Django project's `CACHES` works as it is: each of its stores has its counterpart here.
_DJANGO: Final = "django.core.cache.backends."

_EXAMPLE: Final = "cachemw.backends.redis.RedisCache"
_URL: Final = "a URL stands in the place of the whole mapping"


def make_cache(config: Mapping[str, Any]) -> BaseCache:
    """The store that one entry of `CACHES` describes.

    config: BACKEND (dotted path or class), LOCATION, and the settings that `BaseCache` documents. The paths of Django's
        own backends mean their counterparts here.
    Raises: InvalidCacheBackendError if there is no such backend, ImproperlyConfigured for wrong settings.
    """
    params = _params(config)
    backend = params.pop("BACKEND", None)
    kind = named(backend) if isinstance(backend, str) else backend
    if not isinstance(kind, type) or not issubclass(kind, BaseCache):
        raise InvalidCacheBackendError(
            f"BACKEND is {backend!r}; allowed: a subclass of BaseCache, or its dotted path, such as {_EXAMPLE!r}; "
            f"{_URL}"
        )
    if isabstract(kind):
        missing = ", ".join(sorted(kind.__abstractmethods__))
        raise InvalidCacheBackendError(
            f"BACKEND is {backend!r}, which is not a store by itself: it has no {missing}; allowed: a subclass of it"
        )
    location = params.pop("LOCATION", None)
    return kind("" if location is None else location, params)


def _params(config: Mapping[str, Any]) -> dict[str, Any]:
    """The entry, with its names in upper case."""
    params: dict[str, Any] = {}
    for given, value in config.items():
        name = str(given).upper()
        if name in params:
            raise ImproperlyConfigured(f"{name} is given twice, in upper and in lower case; leave one out")
        params[name] = value
    options = params.get("OPTIONS")
    if options is not None and not isinstance(options, Mapping):
        raise refuse("OPTIONS", "…", "a mapping")  # it may have a password
    return params


def named(path: str) -> Any:
    """The class at a dotted path. Raises: InvalidCacheBackendError, which names a package that is missing."""
    if path.startswith(_DJANGO):
        path = f"cachemw.backends.{path.removeprefix(_DJANGO)}"
    module, _, name = path.rpartition(".")
    try:
        if not module or not {":", "/"}.isdisjoint(path):
            raise ImportError(f"that is not a dotted path, such as {_EXAMPLE!r}; {_URL}")
        return getattr(import_module(module), name)
    except ModuleNotFoundError as error:
        if path.startswith("cachemw.backends.db.") and error.name in ("sqlalchemy", "greenlet"):
            raise InvalidCacheBackendError(
                f"{name} needs the package {error.name}: pip install 'cachemw[sql]', or 'cachemw[postgresql]' or "
                "'cachemw[mysql]' for a server"
            ) from error
        raise InvalidCacheBackendError(f"Could not find backend {path!r}: {error}") from error
    except (ImportError, AttributeError) as error:
        raise InvalidCacheBackendError(f"Could not find backend {without_password(path)!r}: {error}") from error


def connect(url: str) -> BaseCache:
    """Make a new store from a URL.

        cache = connect("redis://localhost:6379/0?timeout=300&key_prefix=shop")

    url  the URL of a store of cachemw's, or "package.module.Class://location" for a class of your own

    Raises: ImproperlyConfigured for a wrong URL; InvalidCacheBackendError if the class cannot be imported.
    """
    return make_cache(cache_from_url(url))


#: The stores that were named by URLs (in arguments of middlewares and decorators), as long as they are in use.
_opened: weakref.WeakValueDictionary[str, BaseCache] = weakref.WeakValueDictionary()
_opening = threading.Lock()


def opened(url: str) -> BaseCache:
    """The store that a URL names; the same one at each call in this process. Raises: as `connect`.

    So two middlewares with the same URL share one store and its breaker, and keep a page once.
    """
    with _opening:
        store = _opened.get(url)
        if store is None:
            store = _opened[url] = connect(url)
        return store


class Caches:
    """Stores by alias; each is made when it is first used.

        caches = Caches({"default": "redis://localhost:6379/0", "sessions": "locmem://"})
        caches["sessions"].set("key", 1)

    settings  a `Settings`, a mapping as for `Settings.from_mapping`, or only the part of it under CACHES; None: the
              environment, which is read when the first store is needed. Without any setting there is one store,
              "default", in local memory

    Raises: ImproperlyConfigured and InvalidCacheBackendError when a store is made.
    """

    def __init__(self, settings: Settings | Mapping[str, Any] | None = None) -> None:
        self._settings = settings
        self._configs: dict[str, Mapping[str, Any]] | None = None
        self._environ: dict[str, str] = {}  # what the configurations were read from, where that is the environment
        self._made: dict[str, BaseCache] = {}
        self._lock = threading.RLock()
        _all.add(self)

    def __getitem__(self, alias: str) -> BaseCache:
        """The store; the same one at each call. Raises: InvalidCacheBackendError, ImproperlyConfigured."""
        made = self._made.get(alias)
        if made is not None:
            return made
        with self._lock:
            if alias not in self._made:
                configs = self._known()
                if alias not in configs:
                    raise InvalidCacheBackendError(
                        f"The connection '{alias}' doesn't exist; allowed: {', '.join(configs) or 'none'}; add more by "
                        "CACHES or CACHEMW_URL_<ALIAS>."
                    )
                self._made[alias] = self._make(alias, configs[alias])
            return self._made[alias]

    def _make(self, alias: str, config: Mapping[str, Any]) -> BaseCache:
        try:
            return make_cache(config)
        except ImproperlyConfigured as error:
            if self._settings is None:
                place = "CACHEMW_URL" if alias == "default" else f"CACHEMW_URL_{alias.upper()}"
            elif isinstance(error, InvalidCacheBackendError):
                raise  # names BACKEND, in Django's words
            else:
                place = f"CACHES[{alias!r}]"
            raise type(error)(f"{place}: {error}") from error

    def __contains__(self, alias: object) -> bool:
        """Is there a store of this name? It is not made."""
        return alias in self._known()

    def __iter__(self) -> Iterator[str]:
        return iter(self._known())

    def all(self, initialized_only: bool = False) -> list[BaseCache]:
        """Every store; with `initialized_only`, those that are made already."""
        if initialized_only:
            return list(self._made.values())
        return [self[alias] for alias in self._known()]

    def reread(self) -> None:
        """Read the environment again, if the stores come from there; every new middleware calls this.

        A store whose URL has changed is made anew when it is next used.
        """
        if self._settings is not None:
            return
        with self._lock:
            before = self._configs
            if before is None or self._environ == _named_stores():
                return
            self._configs = None
            now = self._known()
            self._made = {alias: made for alias, made in self._made.items() if now.get(alias) == before[alias]}

    def close_all(self) -> None:
        """Close the stores that are made; they may be used again. The first error is raised after all are tried."""
        errors: list[Exception] = []
        for made in self.all(initialized_only=True):
            try:
                made.close()
            except Exception as error:
                errors.append(error)
        if errors:
            raise errors[0]

    async def aclose_all(self) -> None:
        """See `close_all`."""
        errors: list[Exception] = []
        for made in self.all(initialized_only=True):
            try:
                await made.aclose()
            except Exception as error:
                errors.append(error)
        if errors:
            raise errors[0]

    def _known(self) -> dict[str, Mapping[str, Any]]:
        with self._lock:
            if self._configs is None:
                self._environ = _named_stores()
                self._configs = _configs(self._settings)
            return self._configs


def _named_stores() -> dict[str, str]:
    """The variables of the environment that name stores, or files with their names."""
    return {name: value for name, value in os.environ.items() if name.startswith(("CACHEMW_URL", "CACHEMW_SECRET"))}


def _configs(settings: Settings | Mapping[str, Any] | None) -> dict[str, Mapping[str, Any]]:
    if settings is None:
        settings = Settings.from_environ(dict(os.environ))
    elif not isinstance(settings, Settings | Mapping):
        raise refuse("settings", settings, "a Settings, a mapping in Django's shape, or None for the environment's")
    elif not isinstance(settings, Settings):
        settings = Settings.from_mapping({"CACHES": settings} if _names_stores(settings) else settings)
    configs = dict(_DEFAULT if settings.caches is None else settings.caches)
    for alias, config in configs.items():
        if settings.secret is not None and "SECRET" not in map(str.upper, map(str, config)):
            configs[alias] = {**config, "SECRET": settings.secret}
    return configs


def _names_stores(mapping: Mapping[str, Any]) -> bool:
    """Is this the part under CACHES? Read as settings it would name no store: all would go to local memory."""
    if "CACHES" in mapping or not mapping:
        return False
    return "default" in mapping or all(
        isinstance(config, Mapping) and "BACKEND" in config for config in mapping.values()
    )


#: For new locks after a `fork`: another thread may have held the old one.
_all: weakref.WeakSet[Caches] = weakref.WeakSet()


def _after_fork() -> None:
    global _opening
    _opening = threading.Lock()
    for one in _all:
        one._lock = threading.RLock()


os.register_at_fork(after_in_child=_after_fork)

#: The stores of this process, from the environment.
caches = Caches()


class _Default:
    """Stands for `caches["default"]`, which is made when it is first used."""

    def __getattr__(self, name: str) -> Any:
        return getattr(caches["default"], name)

    def __setattr__(self, name: str, value: Any) -> None:
        setattr(caches["default"], name, value)

    def __contains__(self, key: Any) -> bool:
        return key in caches["default"]

    def __repr__(self) -> str:
        return repr(caches["default"])

    @property  # type: ignore[misc]  # so that it passes for a BaseCache
    def __class__(self) -> Any:
        return type(caches["default"])


#: The default store of this process.
cache = cast(BaseCache, _Default())


def resolve(name: str, given: object, known: Caches) -> BaseCache:
    """The store that is given by an alias of `known`, by a URL, or itself; for `cachemw.cache`, the default store.

    name: of the argument or setting, for errors. Raises: InvalidCacheBackendError for an unknown alias,
    ImproperlyConfigured for another object, and the errors of making the store.
    """
    if given is cache:
        return caches["default"]
    if isinstance(given, BaseCache):
        return given
    if not isinstance(given, str):
        raise refuse(name, given, NAMES)
    if "://" in given:
        return opened(given)
    try:
        return known[given]
    except InvalidCacheBackendError as error:
        if given in known:
            raise
        url = "A URL names a store, too, such as redis://localhost:6379/0."
        raise InvalidCacheBackendError(f"{name} is {given!r}: {error} {url}") from None
