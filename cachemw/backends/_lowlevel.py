"""The low-level API, Django's, in both halves. They do the same; what they decide stands in `Store`."""

from __future__ import annotations

import inspect
import operator
from collections.abc import Iterable, Mapping
from typing import Any

from cachemw.backends._once import MISSING
from cachemw.backends._store import DEFAULT_TIMEOUT, Store

__all__ = ["LowLevel"]


class LowLevel(Store):
    """`get set add …` and `aget aset aadd …`."""

    def get(self, key: Any, default: Any = None, version: Any = None) -> Any:
        """The stored value, else `default`. A stored None is a value; what is damaged, foreign or not sealed is none.

        Raises: BackendUnavailable.
        """
        made = self.make_and_validate_key(key, version)
        stored = self._primitives._get((made,))
        return self._decode(made, stored[made], default) if made in stored else default

    def set(self, key: Any, value: Any, timeout: Any = DEFAULT_TIMEOUT, version: Any = None) -> None:
        """Store a value. timeout: seconds, None for ever, <= 0 removes it; left out: the cache's TIMEOUT.

        Raises: SerializationError, which names the key, if the value cannot be stored; BackendUnavailable.
        """
        made = self.make_and_validate_key(key, version)
        stored = self._encode(made, value)
        seconds = self._seconds(timeout)
        if seconds is not None and seconds <= 0:
            self._primitives._delete((made,))
        else:
            self._primitives._set(((made, stored, seconds),))

    def add(self, key: Any, value: Any, timeout: Any = DEFAULT_TIMEOUT, version: Any = None) -> bool:
        """Store a value unless there is one, atomically; True if it was stored."""
        made = self.make_and_validate_key(key, version)
        stored = self._encode(made, value)
        seconds = self._seconds(timeout)
        if seconds is not None and seconds <= 0:
            return not self._primitives._has(made)
        return self._primitives._add(made, stored, seconds)

    def touch(self, key: Any, timeout: Any = DEFAULT_TIMEOUT, version: Any = None) -> bool:
        """Give a stored value a new timeout (<= 0 removes it); True if there was one."""
        made = self.make_and_validate_key(key, version)
        seconds = self._seconds(timeout)
        if seconds is not None and seconds <= 0:
            return self._primitives._delete((made,)) > 0
        return self._primitives._touch(made, seconds)

    def delete(self, key: Any, version: Any = None) -> bool:
        """Remove a value; True if there was one."""
        return self._primitives._delete((self.make_and_validate_key(key, version),)) > 0

    def get_many(self, keys: Iterable[Any], version: Any = None) -> dict[Any, Any]:
        """What is stored of `keys`, by the caller's keys; one round trip where the store can."""
        given = list(keys)
        if not (made := self._made_each(given, version)):
            return {}
        stored = self._primitives._get(tuple(dict.fromkeys(made)))
        return self._all_found(given, made, [*map(stored.get, made)])

    def set_many(self, data: Mapping[Any, Any], timeout: Any = DEFAULT_TIMEOUT, version: Any = None) -> list[Any]:
        """Store several values; returns the keys that could not be stored, where the store can tell."""
        keys, entries = self._entries(data, seconds := self._seconds(timeout), version)
        if not entries:
            return []
        if seconds is not None and seconds <= 0:
            self._primitives._delete(tuple(keys))
            return []
        return [keys[made] for made in self._primitives._set(entries)]

    def delete_many(self, keys: Iterable[Any], version: Any = None) -> None:
        """Remove several values."""
        if made := self._made_all(keys, version):
            self._primitives._delete(tuple(made))

    def has_key(self, key: Any, version: Any = None) -> bool:
        """Is there a value?"""
        return self._primitives._has(self.make_and_validate_key(key, version))

    def __contains__(self, key: Any) -> bool:
        return self.has_key(key)

    def get_or_set(self, key: Any, default: Any, timeout: Any = DEFAULT_TIMEOUT, version: Any = None) -> Any:
        """The stored value, else `default` (called if callable), which is stored.

        However many threads miss a key at the same time, `default` is called once; if it fails, its error is the
        caller's own, and the others call theirs.
        """
        seen = self._once.ended
        value = self.get(key, MISSING, version)
        if value is not MISSING:
            return value
        made = self.make_key(key, version)

        def look() -> Any:
            stored = self._primitives._get_latest((made,))
            return self._decode(made, stored[made]) if made in stored else MISSING

        def make() -> Any:
            fresh = default() if callable(default) else default
            added = self.add(key, fresh, timeout, version)
            value = look()  # another's, should `add` have lost to it
            if value is not MISSING:
                return value
            if not added:  # what is in the way cannot be read
                self.set(key, fresh, timeout, version)
            return fresh

        return self._once.call(made, seen, look, make)

    def incr(self, key: Any, delta: int = 1, version: Any = None) -> int:
        """Add to a stored integer, atomically, leaving its timeout alone; returns the sum.

        Raises: ValueError if the key is missing, TypeError if its value (or delta) is not an integer, OverflowError if
        the sum has more than 64 bits.
        """
        made = self.make_and_validate_key(key, version)
        try:
            return self._primitives._incr(made, operator.index(delta))
        except KeyError:
            raise ValueError(f"Key {key!r} not found") from None

    def decr(self, key: Any, delta: int = 1, version: Any = None) -> int:
        """Subtract, as `incr` adds; the result may be negative."""
        return self.incr(key, -operator.index(delta), version)

    def incr_version(self, key: Any, delta: int = 1, version: Any = None) -> Any:
        """Move a value to another version of its key, keeping its timeout; returns the new version.

        Raises: ValueError if the key is missing.
        """
        old, new, target = self._versions(key, delta, version)
        moved = self._rekeyed(key, old, new, self._primitives._get_latest((old,)))
        if new != old:
            seconds = self._primitives._timeout_left(old)
            if seconds is not None and seconds <= 0:  # it has ended meanwhile
                self._primitives._delete((old, new))
            else:
                self._primitives._set(((new, moved, seconds),))
                self._primitives._delete((old,))
        return target

    def decr_version(self, key: Any, delta: int = 1, version: Any = None) -> Any:
        """Move a value to an earlier version of its key."""
        return self.incr_version(key, -delta, version)

    def _versions(self, key: Any, delta: int, version: Any) -> tuple[str, str, Any]:
        source = self._version if version is None else version
        target = source + delta
        return self.make_and_validate_key(key, source), self.make_and_validate_key(key, target), target

    def clear(self) -> None:
        """Remove everything of this store, and pages that are being made by this process, too."""
        self._before_clear()
        self._primitives._clear()

    def _before_clear(self) -> None:
        if self.page_cache is not None:
            self.page_cache.clearing()

    def close(self) -> None:
        """Let go of connections; the cache may be used again."""
        self._close()

    # -- the same, natively async --------------------------------------------------------------------------------

    async def aget(self, key: Any, default: Any = None, version: Any = None) -> Any:
        """`get` without blocking the event loop; so all that begin with an "a"."""
        made = self.make_and_validate_key(key, version)
        stored = await self._primitives._aget((made,))
        return self._decode(made, stored[made], default) if made in stored else default

    async def aset(self, key: Any, value: Any, timeout: Any = DEFAULT_TIMEOUT, version: Any = None) -> None:
        """See `set`."""
        made = self.make_and_validate_key(key, version)
        stored = self._encode(made, value)
        seconds = self._seconds(timeout)
        if seconds is not None and seconds <= 0:
            await self._primitives._adelete((made,))
        else:
            await self._primitives._aset(((made, stored, seconds),))

    async def aadd(self, key: Any, value: Any, timeout: Any = DEFAULT_TIMEOUT, version: Any = None) -> bool:
        """See `add`."""
        made = self.make_and_validate_key(key, version)
        stored = self._encode(made, value)
        seconds = self._seconds(timeout)
        if seconds is not None and seconds <= 0:
            return not await self._primitives._ahas(made)
        return await self._primitives._aadd(made, stored, seconds)

    async def atouch(self, key: Any, timeout: Any = DEFAULT_TIMEOUT, version: Any = None) -> bool:
        """See `touch`."""
        made = self.make_and_validate_key(key, version)
        seconds = self._seconds(timeout)
        if seconds is not None and seconds <= 0:
            return await self._primitives._adelete((made,)) > 0
        return await self._primitives._atouch(made, seconds)

    async def adelete(self, key: Any, version: Any = None) -> bool:
        """See `delete`."""
        return await self._primitives._adelete((self.make_and_validate_key(key, version),)) > 0

    async def aget_many(self, keys: Iterable[Any], version: Any = None) -> dict[Any, Any]:
        """See `get_many`."""
        given = list(keys)
        if not (made := self._made_each(given, version)):
            return {}
        stored = await self._primitives._aget(tuple(dict.fromkeys(made)))
        return self._all_found(given, made, [*map(stored.get, made)])

    async def aset_many(
        self, data: Mapping[Any, Any], timeout: Any = DEFAULT_TIMEOUT, version: Any = None
    ) -> list[Any]:
        """See `set_many`."""
        keys, entries = self._entries(data, seconds := self._seconds(timeout), version)
        if not entries:
            return []
        if seconds is not None and seconds <= 0:
            await self._primitives._adelete(tuple(keys))
            return []
        return [keys[made] for made in await self._primitives._aset(entries)]

    async def adelete_many(self, keys: Iterable[Any], version: Any = None) -> None:
        """See `delete_many`."""
        if made := self._made_all(keys, version):
            await self._primitives._adelete(tuple(made))

    async def ahas_key(self, key: Any, version: Any = None) -> bool:
        """See `has_key`."""
        return await self._primitives._ahas(self.make_and_validate_key(key, version))

    async def aget_or_set(self, key: Any, default: Any, timeout: Any = DEFAULT_TIMEOUT, version: Any = None) -> Any:
        """`get_or_set` for tasks; `default` may also be a coroutine function."""
        seen = self._once.ended
        value = await self.aget(key, MISSING, version)
        if value is not MISSING:
            return value
        made = self.make_key(key, version)

        async def look() -> Any:
            stored = await self._primitives._aget_latest((made,))
            return self._decode(made, stored[made]) if made in stored else MISSING

        async def make() -> Any:
            fresh = default() if callable(default) else default
            if inspect.isawaitable(fresh):
                fresh = await fresh
            added = await self.aadd(key, fresh, timeout, version)
            value = await look()
            if value is not MISSING:
                return value
            if not added:
                await self.aset(key, fresh, timeout, version)
            return fresh

        return await self._once.acall(made, seen, look, make)

    async def aincr(self, key: Any, delta: int = 1, version: Any = None) -> int:
        """See `incr`."""
        made = self.make_and_validate_key(key, version)
        try:
            return await self._primitives._aincr(made, operator.index(delta))
        except KeyError:
            raise ValueError(f"Key {key!r} not found") from None

    async def adecr(self, key: Any, delta: int = 1, version: Any = None) -> int:
        """See `decr`."""
        return await self.aincr(key, -operator.index(delta), version)

    async def aincr_version(self, key: Any, delta: int = 1, version: Any = None) -> Any:
        """See `incr_version`."""
        old, new, target = self._versions(key, delta, version)
        moved = self._rekeyed(key, old, new, await self._primitives._aget_latest((old,)))
        if new != old:
            seconds = await self._primitives._atimeout_left(old)
            if seconds is not None and seconds <= 0:  # it has ended meanwhile
                await self._primitives._adelete((old, new))
            else:
                await self._primitives._aset(((new, moved, seconds),))
                await self._primitives._adelete((old,))
        return target

    async def adecr_version(self, key: Any, delta: int = 1, version: Any = None) -> Any:
        """See `decr_version`."""
        return await self.aincr_version(key, -delta, version)

    async def aclear(self) -> None:
        """See `clear`."""
        self._before_clear()
        await self._primitives._aclear()

    async def aclose(self) -> None:
        """See `close`."""
        await self._aclose()
