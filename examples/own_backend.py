"""A store of your own: ten primitives, here over a dictionary and a lock.

    python -m examples.own_backend       then http://127.0.0.1:8000/

Keys come ready made, values as bytes (or as integers that the store can count), timeouts as seconds or None. All of
Django's API, the serializers, the pages and the async half follow from these. `BackendContract` proves it; the test of
this file is what a test of yours looks like:

    class TestDictCache(BackendContract):
        @pytest.fixture
        def make_cache(self):
            return lambda **params: DictCache("contract", params)
"""

from __future__ import annotations

import threading
import time
from collections.abc import Mapping, Sequence
from typing import Any, ClassVar, Final

from cachemw import CacheMiddleware, Settings
from cachemw.backends.base import Entry, InlineCache
from examples.plain import wsgi_app

__all__ = ["DictCache", "app"]

_dictionaries: Final[dict[str, dict[str, tuple[Any, float | None]]]] = {}


class DictCache(InlineCache):
    """Keeps its entries in a dictionary of this process, which LOCATION names, with the time at which each expires.

    OPTIONS: `limit`, how many entries there may be (default 1000); the oldest go first.
    """

    shared: ClassVar[bool] = False  # no other process sees the entries
    option_names: ClassVar[frozenset[str] | None] = frozenset({"limit"})  # any other name is an error

    def __init__(self, location: str, params: Mapping[str, Any]) -> None:
        super().__init__(location, params)
        self._limit = int(self.options.get("limit", 1000))
        self._data = _dictionaries.setdefault(location, {})
        self._lock = threading.Lock()

    def _alive(self, key: str) -> tuple[Any, float | None] | None:
        """A live entry: the value, and when it expires. The lock is held."""
        entry = self._data.get(key)
        if entry is not None and entry[1] is not None and entry[1] <= time.time():
            del self._data[key]
            return None
        return entry

    def _put(self, key: str, value: Any, timeout: float | None) -> None:
        self._data.pop(key, None)  # the dictionary's order is the age of its entries
        while len(self._data) >= self._limit:
            del self._data[next(iter(self._data))]
        self._data[key] = value, None if timeout is None else time.time() + timeout

    def _get(self, keys: Sequence[str]) -> dict[str, Any]:
        with self._lock:
            found = {key: self._alive(key) for key in keys}
        return {key: entry[0] for key, entry in found.items() if entry is not None}

    def _set(self, entries: Sequence[Entry]) -> list[str]:
        with self._lock:
            for entry in entries:
                self._put(*entry)
        return []  # the keys of what could not be stored

    def _add(self, key: str, value: Any, timeout: float | None) -> bool:
        with self._lock:
            if self._alive(key) is not None:
                return False
            self._put(key, value, timeout)
            return True

    def _touch(self, key: str, timeout: float | None) -> bool:
        with self._lock:
            entry = self._alive(key)
            if entry is None:
                return False
            self._put(key, entry[0], timeout)
            return True

    def _delete(self, keys: Sequence[str]) -> int:
        with self._lock:
            return sum(self._alive(key) is not None and self._data.pop(key) is not None for key in keys)

    def _incr(self, key: str, delta: int) -> int:
        with self._lock:
            entry = self._alive(key)
            if entry is None:
                raise KeyError(key)
            value, expires = entry
            if type(value) is not int:
                raise TypeError(f"the value of {key!r} is not an integer")
            if not -(2**63) <= value + delta < 2**63:
                raise OverflowError(f"the sum under {key!r} has more than 64 bits")
            self._data[key] = value + delta, expires
            return value + delta

    def _timeout_left(self, key: str) -> float | None:
        with self._lock:
            entry = self._alive(key)
        return None if entry is None or entry[1] is None else entry[1] - time.time()

    def _clear(self) -> None:
        with self._lock:
            self._data.clear()


settings = Settings.from_mapping(
    {"CACHES": {"default": {"BACKEND": "examples.own_backend.DictCache", "LOCATION": "pages", "TIMEOUT": 60}}}
)
app = CacheMiddleware(wsgi_app, settings=settings)


if __name__ == "__main__":
    from examples.serving import run

    run(app)
