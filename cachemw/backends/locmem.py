"""LocMemCache: the memory of this process. LRU, bounded by entries and by bytes. The rules are in `_memory`.

Recency is that of the CLOCK algorithm ("second chance"): what was read or written again since the last cull outlives
what was not, and within each of the two the older goes first. Expired entries go before both. It costs a reader
one attribute, where a true LRU list would cost a lock.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from itertools import chain
from math import inf
from pickle import HIGHEST_PROTOCOL, dumps
from sys import getsizeof
from typing import Any, ClassVar, Final

from cachemw._values import integer
from cachemw.backends._keys import MEMCACHED_LENGTH, default_key_func
from cachemw.backends._memory import ONE_STEP, SOUND, Item, Page, memory
from cachemw.backends._once import MISSING
from cachemw.backends._store import FOREVER, unserializable
from cachemw.backends.base import DEFAULT_TIMEOUT, Entry, InlineCache
from cachemw.backends.serializers import PickleSerializer

__all__ = ["LocMemCache"]

#: Values that cannot change are kept as they are; everything else as the 1-tuple of its serialized form.
_PLAIN: Final = frozenset({str, bytes, int, float, bool, type(None)})

#: Bytes that an entry costs beside its key and its value: the object, its numbers, its place in the dictionary.
_OVERHEAD: Final = 240

_INT64: Final = 2**63
_FOREVER: Final = int(FOREVER)


class LocMemCache(InlineCache):
    """Values in this process's memory, shared by all its threads and event loops.

    location: a name; caches with the same name share their entries.
    OPTIONS: MAX_ENTRIES (10 000; Django: 300, too few for pages), CULL_FREQUENCY (3: a third goes when the limit is
        reached; 0: all), MAX_BYTES (256 MiB, pages' bodies and fields included; None: no such limit).

    Strings, bytes, numbers, booleans and None are kept as they are. Other values are serialized, so that nobody can
    change what another one reads. Pages are kept as the objects that they are.
    """

    shared: ClassVar[bool] = False
    by_reference: ClassVar[bool] = True
    option_names: ClassVar[frozenset[str] | None] = frozenset({"max_entries", "cull_frequency", "max_bytes"})

    def __init__(
        self,
        location: str | Sequence[str] = "",
        params: Mapping[str, Any] | None = None,
        *,
        clock: Callable[[], float] | None = None,
    ) -> None:
        super().__init__(location, params or {})
        self._max_entries, self._cull_frequency = self._cull_options(max_entries=10_000)
        limit = self.options.get("max_bytes", 256 * 1024 * 1024)
        self._max_bytes: float = inf if limit is None else integer("MAX_BYTES", limit, minimum=1)
        self._store = memory(str(location))
        self._seal = None  # for stores that others can write to: what is here never left this process
        self._clock = clock
        self._plain = _PLAIN if self._pickles else frozenset({int})
        self._by_pickle = self._dumps is PickleSerializer.dumps  # which `set` then does itself
        # what an entry says whose key need not be looked at; no entry does where a subclass has a rule of its own
        self._sound = SOUND if ONE_STEP and self._short == MEMCACHED_LENGTH else object()

    def _now(self) -> float:
        """By default that of the wall clock, as in Django: asked for anew, so that who freezes it freezes this too."""
        return time.time() if self._clock is None else self._clock()

    # -- values --------------------------------------------------------------------------------------------------

    def _encode(self, key: str, value: Any) -> Any:
        if type(value) in self._plain:
            return value
        try:
            return (self._dumps(value),)
        except Exception as error:
            raise unserializable(key, error) from error

    def _decode(self, key: str, stored: Any, default: Any = MISSING) -> Any:
        if type(stored) is tuple:
            return super()._decode(key, stored[0], default)
        return stored if type(stored) in _PLAIN else default  # a page is no value

    # -- reading -------------------------------------------------------------------------------------------------

    def get(self, key: Any, default: Any = None, version: Any = None) -> Any:
        if version is None and self.key_func is default_key_func:
            made = f"{self._page_prefix}{key}"
        else:
            made = self.make_key(key, version)
        item = self._store.entries.get(made)
        if item is None or item.key_is is not self._sound:
            self._look_at(made, item)
            if item is None:
                return default
        if item.expires <= (time.time() if self._clock is None else self._clock()):
            return default
        item.seen = True
        value = item.value
        if type(value) is tuple:
            loads = self._loads
            try:
                return loads(value[0])
            except Exception:  # which `_decode` tells of, or fails open
                return self._decode(made, value, default)
        return value if type(value) in _PLAIN else default

    def _look_at(self, made: str, item: Item | None) -> None:
        """Validate a key, as `make_and_validate_key` does; once for an entry, if nothing is to be said against it."""
        if len(made) > self._short or not made.isprintable() or " " in made:
            self.validate_key(made)
        elif item.__class__ is Item:
            item.key_is = SOUND

    async def aget(self, key: Any, default: Any = None, version: Any = None) -> Any:
        return self.get(key, default, version)

    def get_many(self, keys: Iterable[Any], version: Any = None) -> dict[Any, Any]:
        given = list(keys)
        made = self._made_each(given, version)
        now, entries, loads = self._now(), self._store.entries, self._loads
        found: dict[Any, Any] = {}
        for name, key in zip(made, given, strict=True):
            item = entries.get(name)
            if item is None or item.expires <= now:
                continue
            item.seen = True
            value = item.value
            if type(value) is tuple:
                try:
                    value = loads(value[0])
                except Exception:  # as above
                    value = self._decode(name, value)
            elif type(value) not in _PLAIN:
                value = MISSING
            if value is not MISSING:
                found[key] = value
        return found

    async def aget_many(self, keys: Iterable[Any], version: Any = None) -> dict[Any, Any]:
        return self.get_many(keys, version)

    def _get(self, keys: Sequence[str]) -> dict[str, Any]:
        now = self._now()
        entries = self._store.entries
        found = {}
        for key in keys:
            item = entries.get(key)
            if item is not None and item.expires > now:
                item.seen = True
                found[key] = item.value
        return found

    def _has(self, key: str) -> bool:
        return self._alive(key) is not None

    def _timeout_left(self, key: str) -> float | None:
        item = self._alive(key)
        if item is None:
            return 0.0
        return None if item.expires == inf else item.expires - self._now()

    def _alive(self, key: str) -> Item | None:
        item = self._store.entries.get(key)
        return item if item is not None and item.expires > self._now() else None

    # -- writing -------------------------------------------------------------------------------------------------

    def set(self, key: Any, value: Any, timeout: Any = DEFAULT_TIMEOUT, version: Any = None) -> None:
        if version is None and self.key_func is default_key_func:
            made = f"{self._page_prefix}{key}"
        else:
            made = self.make_key(key, version)
        item = self._store.entries.get(made)
        if item is None or item.key_is is not self._sound:
            self._look_at(made, item)
            item = None
        if type(value) in self._plain:
            stored, held = value, getsizeof(value)
        else:
            try:
                data = dumps(value, HIGHEST_PROTOCOL) if self._by_pickle else self._dumps(value)
            except Exception as error:
                raise unserializable(made, error) from error
            stored, held = (data,), len(data)
        seconds = timeout if type(timeout) is int and 0 < timeout < _FOREVER else self._seconds(timeout)
        if seconds is None:
            expires = inf
        elif seconds > 0:
            expires = seconds + (time.time() if self._clock is None else self._clock())
        else:
            self._delete((made,))
            return
        size = len(made) + _OVERHEAD + held
        store = self._store
        if item is not None and item.size != size:  # from here on one step, as in `_put`
            if item.size and (total := store.size + size - item.size) <= self._max_bytes:
                store.size = total
                item.size = size
            else:
                item = None
        if item is not None:
            item.value = stored  # before its time: nobody finds the old value by the new time
            item.expires = expires
            item.seen = True
        else:
            with store.lock:
                self._put(Item, made, stored, expires, size)

    async def aset(self, key: Any, value: Any, timeout: Any = DEFAULT_TIMEOUT, version: Any = None) -> None:
        self.set(key, value, timeout, version)

    def _set(self, entries: Sequence[Entry]) -> list[str]:
        now = self._now()
        with self._store.lock:
            return [key for key, value, timeout in entries if not self._keep(Item, key, value, timeout, now)]

    def _add(self, key: str, value: Any, timeout: float | None) -> bool:
        with self._store.lock:
            now = self._now()
            return self._vacate(key, now) and self._keep(Item, key, value, timeout, now)

    def _touch(self, key: str, timeout: float | None) -> bool:
        with self._store.lock:
            if (item := self._alive(key)) is None:
                return False
            item.expires = inf if timeout is None else self._now() + timeout
            return True

    def _delete(self, keys: Sequence[str]) -> int:
        now = self._now()
        alive = 0
        with self._store.lock:
            for key in keys:
                if (item := self._store.take_out(key)) is not None:
                    alive += item.expires > now
        return alive

    def _incr(self, key: str, delta: int) -> int:
        with self._store.lock:
            if (item := self._alive(key)) is None:
                raise KeyError(key)
            value = item.value  # from here on one step
            if value.__class__ is not int or not -_INT64 <= value < _INT64:
                raise TypeError(f"The value under {key!r} is not a 64-bit integer")
            total = value + delta
            if not -_INT64 <= total < _INT64:
                raise OverflowError(f"{value} + {delta} has more than 64 bits")
            item.seen = True
            item.value = total
            return total

    def _clear(self) -> None:
        with self._store.lock:
            for key in list(self._store.entries):
                self._store.take_out(key)

    # The lock is held by whoever calls these.

    def _vacate(self, key: str, now: float) -> bool:
        """Make way for a value that is to be added; False if one is there that lives.

        What has expired is counted out in one step with the look at it, and left in place.
        """
        item = self._store.entries.get(key)
        if item is not None:
            if item.expires > now:
                return False
            self._store.size -= item.size
            item.size = 0
        return True

    def _keep(self, kind: type[Item], key: str, value: Any, timeout: float | None, now: float) -> bool:
        held = len(value[0]) if type(value) is tuple else getsizeof(value)
        expires = inf if timeout is None else now + timeout
        return self._put(kind, key, value, expires, len(key) + _OVERHEAD + held)

    def _put(self, kind: type[Item], key: str, value: Any, expires: float, size: int) -> bool:
        """Put one entry in place, making room before; False if it alone is beyond MAX_BYTES."""
        store = self._store
        item = store.entries.get(key)
        if (
            item is None
            or not item.size
            or item.__class__ is not kind
            or (total := store.size + size - item.size) > self._max_bytes
        ):
            return self._insert(kind(value, expires, size), key)
        store.size = total
        item.size = size
        item.value, _old = value, item.value  # whose finalizer, if it has one, runs when this is over
        item.expires = expires
        item.seen = True
        return True

    def _insert(self, item: Item, key: str) -> bool:
        """The same with an entry of its own."""
        store = self._store
        full = len(store.entries) >= self._max_entries or store.size + item.size > self._max_bytes
        if full and not self._make_room(key, item.size):
            return False
        # from here on one step: not even a call of `get`, after which a signal's handler may put another one there
        old = store.entries[key] if key in store.entries else None  # noqa: SIM401
        store.entries[key] = item
        store.size += item.size
        if old is not None:
            store.size -= old.size
            old.size = 0
            item.seen = True
        return True

    def _make_room(self, key: str, size: int) -> bool:
        """For one entry, which may take the place of another; False if there cannot be enough, and the old one went."""
        store = self._store
        old = store.entries.get(key)
        if old is None and len(store.entries) >= self._max_entries:
            self._cull(self._entries_to_leave(len(store.entries)), inf)
        if size > self._max_bytes - store.size + (0 if old is None else old.size):
            store.take_out(key)
            if size > self._max_bytes:
                return False
            self._cull(inf, self._max_bytes * 0.9 - size)  # a tenth more than needed: each cull looks at every entry
        return True

    def _entries_to_leave(self, count: int) -> int:
        if self._cull_frequency == 0:
            return 0
        return max(0, min(count - max(1, count // self._cull_frequency), self._max_entries - 1))

    def _cull(self, most: float, most_bytes: float) -> None:
        """Drop entries until at most `most`, of at most `most_bytes`, are left; see the order above."""
        now, store = self._now(), self._store
        expired: list[str] = []
        unseen: list[str] = []
        seen: list[str] = []
        for key, item in store.entries.copy().items():  # a finalizer may add others meanwhile
            (expired if item.expires <= now else seen if item.seen else unseen).append(key)
        for key in expired:
            store.take_out(key)
        for key in chain(unseen, seen):
            if len(store.entries) <= most and store.size <= most_bytes:
                break
            store.take_out(key)
        for item in store.entries.copy().values():
            item.seen = False

    # -- pages ---------------------------------------------------------------------------------------------------

    def read_records(self, keys: Sequence[str]) -> list[Any]:
        now = time.time() if self._clock is None else self._clock()
        entries = self._store.entries
        prefix = self._page_prefix
        found: list[Any] = []
        for key in keys:
            item = entries.get(prefix + key)
            if item is not None and item.expires > now and item.__class__ is Page:
                item.seen = True
                found.append(item.value)
            else:
                found.append(None)
        return found

    def write_records(self, records: Iterable[tuple[str, Any, float | None]]) -> list[str]:
        prefix, now = self._page_prefix, self._now()
        failed = []
        for key, record, timeout in records:
            made = prefix + key
            if timeout is not None and timeout <= 0:
                self._delete((made,))
                continue
            expires = inf if timeout is None or timeout >= FOREVER else now + timeout
            page = Page(record, expires, len(made) + _OVERHEAD + getsizeof(record))
            with self._store.lock:
                if not self._insert(page, made):
                    failed.append(key)
        return failed

    def add_record(self, key: str, payload: Any, timeout: float | None) -> bool:
        if timeout is not None and timeout <= 0:
            return False
        made = self._page_prefix + key
        with self._store.lock:
            now = self._now()
            return self._vacate(made, now) and self._keep(Page, made, payload, timeout, now)

    async def aread_records(self, keys: Sequence[str]) -> list[Any]:
        return self.read_records(keys)

    async def awrite_records(self, records: Iterable[tuple[str, Any, float | None]]) -> list[str]:
        return self.write_records(records)

    async def aadd_record(self, key: str, payload: Any, timeout: float | None) -> bool:
        return self.add_record(key, payload, timeout)
