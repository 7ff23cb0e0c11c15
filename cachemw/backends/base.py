"""BaseCache: the whole public API once. A backend adds ten primitives, and their native async twins.

Rule 1: keys, versions, timeouts and serializing are settled here; a primitive gets made keys, raw values
(`bytes`, or an `int` that the store can count) and a timeout in seconds > 0, or None for ever.
Rule 2: a client library's errors never pass a primitive: it raises BackendUnavailable, in one place of its module.
Rule 3: a page's record is never serialized here: bytes in, bytes out (the very object where `by_reference`).

To write a backend: subclass `BlockingCache` (its work blocks), `InlineCache` (its work never waits) or `BaseCache`
(it has an async client of its own), write the abstract methods, and run `cachemw.testing.BackendContract` on it.
"""

from __future__ import annotations

import inspect
import math
import operator
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, ClassVar, Final, TypeVar

import anyio.to_thread
from anyio import CapacityLimiter
from anyio.lowlevel import RunVar

from cachemw._values import boolean, integer, number, refuse, without_password
from cachemw.backends._failopen import FailOpen
from cachemw.backends._keys import MEMCACHED_LENGTH, default_key_func, key_function, page_digest, page_prefix, validate
from cachemw.backends._once import MISSING, Once
from cachemw.backends.serializers import PickleSerializer, Seal, make_serializer, secrets_from
from cachemw.errors import SerializationError

__all__ = ["DEFAULT_TIMEOUT", "FOREVER", "BaseCache", "BlockingCache", "Entry", "InlineCache", "Value"]

#: What a store keeps: bytes, or an integer of 64 bits that it can count.
Value = bytes | int
#: (made key, value, timeout in seconds or None for ever)
Entry = tuple[str, Any, float | None]

T = TypeVar("T")

#: "The cache's own `TIMEOUT`", where an argument was left out; not None, which means for ever.
DEFAULT_TIMEOUT: Final[Any] = object()

#: Seconds (68 years) from which on a timeout means for ever: memcached, Redis and SQL all end somewhere beyond.
FOREVER: Final = 2.0**31

_INT64: Final = 2**63


class BaseCache(ABC):
    """A store of values by key.

    location: where the store is; what it may be is the backend's.
    params: Django's: TIMEOUT (seconds, default 300, None: for ever), KEY_PREFIX (""), VERSION (1), KEY_FUNCTION
        (callable or dotted path), OPTIONS (the backend's); and SERIALIZER ("pickle", "json", "msgpack", or an object
        with dumps and loads), SECRET (a text, or several, the newest first: stored values are then authenticated).
    OPTIONS has `fail_open` for every backend: the low-level API answers as if nothing were stored, instead of
        raising BackendUnavailable.

    Raises: ImproperlyConfigured, which names the setting, the value and what is allowed.
    """

    #: Do other processes see the entries?
    shared: ClassVar[bool] = True
    #: Are pages kept as the objects given, not as bytes?
    by_reference: ClassVar[bool] = False
    #: The longest made key that the store takes, in characters; None: any, and pages then have readable keys.
    max_key_length: ClassVar[int | None] = None
    #: Does the store refuse the keys that memcached refuses? They then raise InvalidCacheKey instead of warning.
    strict_keys: ClassVar[bool] = False
    #: The names in OPTIONS, in lower case (any case is understood); None: the backend checks its options itself.
    option_names: ClassVar[frozenset[str] | None] = frozenset()

    def __init__(self, location: str | Sequence[str], params: Mapping[str, Any]) -> None:
        known = {"timeout", "key_prefix", "version", "key_function", "options", "serializer", "secret"}
        given = {str(name).lower(): value for name, value in params.items()}
        # Django takes these two beside OPTIONS too
        loose: dict[str, Any] = {name: given.pop(name) for name in ("max_entries", "cull_frequency") if name in given}
        for name in ("backend", "location"):
            given.pop(name, None)
        if unknown := sorted(given.keys() - known):
            raise refuse("A cache's setting", unknown[0].upper(), ", ".join(sorted(known)).upper())
        self.location = location
        self.options = self._options({**loose, **(given.get("options") or {})})
        self.default_timeout = self._default_timeout(given.get("timeout", 300))
        self._key_prefix = str(given.get("key_prefix") or "")
        version = given.get("version")
        self._version: Any = 1 if version is None else version
        #: May be replaced at run time.
        self.key_func = key_function(given.get("key_function"))
        serializer = make_serializer(given.get("serializer"))
        self._dumps, self._loads = serializer.dumps, serializer.loads
        self._pickles = isinstance(serializer, PickleSerializer)
        #: What authenticates this store's records, the newest first; empty: nothing does.
        self.secrets = secrets_from(given.get("secret"))
        self._seal = Seal(self.secrets) if self.secrets else None
        self._page_prefix = page_prefix(
            self._key_prefix, self._version, strict=self.strict_keys, limit=self.max_key_length
        )
        # longer keys are looked at closely; all of them where a subclass has its own idea of a key
        own_rule = type(self).validate_key is not BaseCache.validate_key
        self._short = -1 if own_rule else min(MEMCACHED_LENGTH, self.max_key_length or MEMCACHED_LENGTH)
        self._once = Once()
        opens = boolean("OPTIONS['fail_open']", self.options.pop("fail_open", False))
        self._fail_open = FailOpen(self) if opens else None

    def __repr__(self) -> str:
        places = [self.location] if isinstance(self.location, str) else self.location
        return f"<{type(self).__name__} {', '.join(without_password(str(place)) for place in places)}>"

    @property
    def key_prefix(self) -> str:
        """KEY_PREFIX; fixed, as every page's key was made with it."""
        return self._key_prefix

    @property
    def version(self) -> Any:
        """VERSION; fixed, as every page's key was made with it."""
        return self._version

    def _options(self, given: Mapping[str, Any]) -> dict[str, Any]:
        if self.option_names is None:
            return dict(given)
        allowed = self.option_names | {"fail_open"}
        options: dict[str, Any] = {}
        for name, value in given.items():
            if str(name).lower() not in allowed:
                raise refuse(f"An option of {type(self).__name__}", name, ", ".join(sorted(allowed)))
            options[str(name).lower()] = value
        return options

    @staticmethod
    def _default_timeout(given: object) -> float | None:
        if given is None or (isinstance(given, str) and given.strip().lower() == "none"):
            return None
        seconds = number("TIMEOUT", given)
        return seconds if seconds < FOREVER else None

    def _cull_options(self, *, max_entries: int) -> tuple[int, int]:
        """MAX_ENTRIES and CULL_FREQUENCY for the stores that bound themselves."""
        return (
            integer("MAX_ENTRIES", self.options.get("max_entries", max_entries)),
            integer("CULL_FREQUENCY", self.options.get("cull_frequency", 3), minimum=0),
        )

    # -- primitives ----------------------------------------------------------------------------------------------

    @abstractmethod
    def _get(self, keys: Sequence[str]) -> dict[str, Any]:
        """What is stored and alive of `keys`. Integers come back as int, all else as bytes."""

    @abstractmethod
    def _set(self, entries: Sequence[Entry]) -> list[str]:
        """Store all of them; returns the keys that could not be stored, whose old values are gone."""

    @abstractmethod
    def _add(self, key: str, value: Any, timeout: float | None) -> bool:
        """Store if absent or expired, atomically; did it?"""

    @abstractmethod
    def _touch(self, key: str, timeout: float | None) -> bool:
        """Give a live entry a new timeout; was there one?"""

    @abstractmethod
    def _delete(self, keys: Sequence[str]) -> int:
        """Remove them; returns how many were there, alive."""

    @abstractmethod
    def _incr(self, key: str, delta: int) -> int:
        """Add to an integer, atomically, leaving its timeout alone; the sum, negative ones too.

        Raises: KeyError if absent, TypeError if it is no integer, OverflowError if the sum has more than 64 bits;
        nothing is changed then.
        """

    @abstractmethod
    def _clear(self) -> None:
        """Remove all entries of this store (not other applications' where it can tell)."""

    def _has(self, key: str) -> bool:
        return key in self._get((key,))

    def _timeout_left(self, key: str) -> float | None:
        """Seconds a live entry has left, None for ever; the default timeout where the store cannot tell."""
        return self.default_timeout

    def _close(self) -> None:  # noqa: B027  most stores have nothing to close
        """Let go of connections and files; the cache may be used again afterwards."""

    @abstractmethod
    async def _aget(self, keys: Sequence[str]) -> dict[str, Any]:
        """`_get` without blocking the event loop; so the others below."""

    @abstractmethod
    async def _aset(self, entries: Sequence[Entry]) -> list[str]: ...

    @abstractmethod
    async def _aadd(self, key: str, value: Any, timeout: float | None) -> bool: ...

    @abstractmethod
    async def _atouch(self, key: str, timeout: float | None) -> bool: ...

    @abstractmethod
    async def _adelete(self, keys: Sequence[str]) -> int: ...

    @abstractmethod
    async def _aincr(self, key: str, delta: int) -> int: ...

    @abstractmethod
    async def _aclear(self) -> None: ...

    async def _ahas(self, key: str) -> bool:
        return key in await self._aget((key,))

    async def _atimeout_left(self, key: str) -> float | None:
        return self.default_timeout

    async def _aclose(self) -> None:
        self._close()

    # -- keys, timeouts, values ----------------------------------------------------------------------------------

    def make_key(self, key: Any, version: Any = None) -> str:
        """The key in the store: `key_func(key, key_prefix, version)`, by default "prefix:version:key"."""
        return self.key_func(key, self._key_prefix, self._version if version is None else version)

    def validate_key(self, key: str) -> None:
        """Warn (CacheKeyWarning) about a made key that memcached would refuse, or raise InvalidCacheKey."""
        validate(key, strict=self.strict_keys, limit=self.max_key_length)

    def make_and_validate_key(self, key: Any, version: Any = None) -> str:
        """Both; every operation begins with it."""
        if version is None and self.key_func is default_key_func:
            made = f"{self._page_prefix}{key}"
        else:
            made = self.make_key(key, version)
        # printable text (U+007F is not) without a space has no control character: the answer for nearly every key
        if len(made) > self._short or not made.isprintable() or " " in made:
            self.validate_key(made)
        return made

    def _seconds(self, timeout: Any) -> float | None:
        """The timeout in seconds, maybe <= 0; None for ever."""
        if timeout is DEFAULT_TIMEOUT:
            return self.default_timeout
        if timeout is None:
            return None
        try:
            seconds: float = timeout + 0.0
        except OverflowError:
            return None if timeout > 0 else 0.0
        except TypeError:
            seconds = math.nan
        if seconds != seconds:
            raise TypeError(f"timeout is {timeout!r}; allowed: seconds as a number, or None for ever")
        return seconds if seconds < FOREVER else None

    def _encode(self, key: str, value: Any) -> Any:
        if type(value) is int and -_INT64 <= value < _INT64:
            return value
        data = self._serialized(key, value)
        return data if self._seal is None else self._seal.seal(key, data)

    def _serialized(self, key: str, value: Any) -> bytes:
        try:
            return self._dumps(value)
        except Exception as error:
            error.add_note(f"The value for the cache key {key!r} cannot be serialized.")
            raise

    def _decode(self, key: str, stored: Any) -> Any:
        """The value again, or MISSING if it is damaged and the cache fails open."""
        if type(stored) is int:
            return stored
        try:
            return self._loads(stored if self._seal is None else self._seal.unseal(key, stored))
        except Exception as error:
            refusal = SerializationError(f"The value stored under the cache key {key!r} cannot be decoded: {error!r}")
            if self._fail_open is None:
                raise refusal from error
            self._fail_open.report(refusal)
            return MISSING

    def _found(self, made: str, stored: Mapping[str, Any], default: Any) -> Any:
        if made not in stored:
            return default
        value = self._decode(made, stored[made])
        return default if value is MISSING else value

    def _made_all(self, keys: Iterable[Any], version: Any) -> dict[str, Any]:
        """The caller's keys by made key, all valid."""
        return {self.make_and_validate_key(key, version): key for key in keys}

    def _all_found(self, keys: Mapping[str, Any], stored: Mapping[str, Any]) -> dict[Any, Any]:
        values = {key: self._decode(made, stored[made]) for made, key in keys.items() if made in stored}
        return {key: value for key, value in values.items() if value is not MISSING}

    def _entries(
        self, data: Mapping[Any, Any], seconds: float | None, version: Any
    ) -> tuple[dict[str, Any], list[Entry]]:
        keys = self._made_all(data, version)
        return keys, [(made, self._encode(made, data[key]), seconds) for made, key in keys.items()]

    def _rekeyed(self, old: str, new: str, stored: Any) -> Any:
        """A stored value as it has to look under another key: a seal covers the key."""
        if self._seal is None or type(stored) is int:
            return stored
        return self._seal.seal(new, self._seal.unseal(old, stored))

    # -- the public API ------------------------------------------------------------------------------------------

    def get(self, key: Any, default: Any = None, version: Any = None) -> Any:
        """The stored value, else `default`. A stored None is a value.

        Raises: BackendUnavailable; SerializationError if what is stored is damaged, foreign or not sealed.
        """
        made = self.make_and_validate_key(key, version)
        return self._found(made, self._get((made,)), default)

    def set(self, key: Any, value: Any, timeout: Any = DEFAULT_TIMEOUT, version: Any = None) -> None:
        """Store a value. timeout: seconds, None for ever, <= 0 removes it; left out: the cache's TIMEOUT.

        Raises: what the serializer raises, with a note that names the key; BackendUnavailable.
        """
        made = self.make_and_validate_key(key, version)
        stored = self._encode(made, value)
        seconds = self._seconds(timeout)
        if seconds is not None and seconds <= 0:
            self._delete((made,))
        else:
            self._set(((made, stored, seconds),))

    def add(self, key: Any, value: Any, timeout: Any = DEFAULT_TIMEOUT, version: Any = None) -> bool:
        """Store a value unless there is one, atomically; True if it was stored."""
        made = self.make_and_validate_key(key, version)
        stored = self._encode(made, value)
        seconds = self._seconds(timeout)
        if seconds is not None and seconds <= 0:
            return not self._has(made)
        return self._add(made, stored, seconds)

    def touch(self, key: Any, timeout: Any = DEFAULT_TIMEOUT, version: Any = None) -> bool:
        """Give a stored value a new timeout (<= 0 removes it); True if there was one."""
        made = self.make_and_validate_key(key, version)
        seconds = self._seconds(timeout)
        if seconds is not None and seconds <= 0:
            return self._delete((made,)) > 0
        return self._touch(made, seconds)

    def delete(self, key: Any, version: Any = None) -> bool:
        """Remove a value; True if there was one."""
        return self._delete((self.make_and_validate_key(key, version),)) > 0

    def get_many(self, keys: Iterable[Any], version: Any = None) -> dict[Any, Any]:
        """What is stored of `keys`, by the caller's keys; one round trip where the store can."""
        made = self._made_all(keys, version)
        return self._all_found(made, self._get(tuple(made))) if made else {}

    def set_many(self, data: Mapping[Any, Any], timeout: Any = DEFAULT_TIMEOUT, version: Any = None) -> list[Any]:
        """Store several values; returns the keys that could not be stored, where the store can tell."""
        keys, entries = self._entries(data, seconds := self._seconds(timeout), version)
        if not entries:
            return []
        if seconds is not None and seconds <= 0:
            self._delete(tuple(keys))
            return []
        return [keys[made] for made in self._set(entries)]

    def delete_many(self, keys: Iterable[Any], version: Any = None) -> None:
        """Remove several values."""
        if made := self._made_all(keys, version):
            self._delete(tuple(made))

    def has_key(self, key: Any, version: Any = None) -> bool:
        """Is there a value?"""
        return self._has(self.make_and_validate_key(key, version))

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

        def look() -> Any:
            return self.get(key, MISSING, version)

        def make() -> Any:
            fresh = default() if callable(default) else default
            self.add(key, fresh, timeout, version)
            return self.get(key, fresh, version)  # another's, should `add` have lost to it

        return self._once.call(self.make_key(key, version), seen, look, make)

    def incr(self, key: Any, delta: int = 1, version: Any = None) -> int:
        """Add to a stored integer, atomically, leaving its timeout alone; returns the sum.

        Raises: ValueError if the key is missing, TypeError if its value (or delta) is no integer, OverflowError if
        the sum has more than 64 bits.
        """
        made = self.make_and_validate_key(key, version)
        try:
            return self._incr(made, operator.index(delta))
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
        stored = self._get((old,))
        if old not in stored:
            raise ValueError(f"Key {key!r} not found")
        if new != old:
            self._set(((new, self._rekeyed(old, new, stored[old]), self._timeout_left(old)),))
            self._delete((old,))
        return target

    def decr_version(self, key: Any, delta: int = 1, version: Any = None) -> Any:
        """Move a value to an earlier version of its key."""
        return self.incr_version(key, -delta, version)

    def _versions(self, key: Any, delta: int, version: Any) -> tuple[str, str, Any]:
        source = self._version if version is None else version
        target = source + delta
        return self.make_and_validate_key(key, source), self.make_and_validate_key(key, target), target

    def clear(self) -> None:
        """Remove everything of this store."""
        self._clear()

    def close(self) -> None:
        """Let go of connections; the cache may be used again."""
        self._close()

    # -- the same, natively async --------------------------------------------------------------------------------

    async def aget(self, key: Any, default: Any = None, version: Any = None) -> Any:
        """`get` without blocking the event loop; so all that begin with an "a"."""
        made = self.make_and_validate_key(key, version)
        return self._found(made, await self._aget((made,)), default)

    async def aset(self, key: Any, value: Any, timeout: Any = DEFAULT_TIMEOUT, version: Any = None) -> None:
        """See `set`."""
        made = self.make_and_validate_key(key, version)
        stored = self._encode(made, value)
        seconds = self._seconds(timeout)
        if seconds is not None and seconds <= 0:
            await self._adelete((made,))
        else:
            await self._aset(((made, stored, seconds),))

    async def aadd(self, key: Any, value: Any, timeout: Any = DEFAULT_TIMEOUT, version: Any = None) -> bool:
        """See `add`."""
        made = self.make_and_validate_key(key, version)
        stored = self._encode(made, value)
        seconds = self._seconds(timeout)
        if seconds is not None and seconds <= 0:
            return not await self._ahas(made)
        return await self._aadd(made, stored, seconds)

    async def atouch(self, key: Any, timeout: Any = DEFAULT_TIMEOUT, version: Any = None) -> bool:
        """See `touch`."""
        made = self.make_and_validate_key(key, version)
        seconds = self._seconds(timeout)
        if seconds is not None and seconds <= 0:
            return await self._adelete((made,)) > 0
        return await self._atouch(made, seconds)

    async def adelete(self, key: Any, version: Any = None) -> bool:
        """See `delete`."""
        return await self._adelete((self.make_and_validate_key(key, version),)) > 0

    async def aget_many(self, keys: Iterable[Any], version: Any = None) -> dict[Any, Any]:
        """See `get_many`."""
        made = self._made_all(keys, version)
        return self._all_found(made, await self._aget(tuple(made))) if made else {}

    async def aset_many(
        self, data: Mapping[Any, Any], timeout: Any = DEFAULT_TIMEOUT, version: Any = None
    ) -> list[Any]:
        """See `set_many`."""
        keys, entries = self._entries(data, seconds := self._seconds(timeout), version)
        if not entries:
            return []
        if seconds is not None and seconds <= 0:
            await self._adelete(tuple(keys))
            return []
        return [keys[made] for made in await self._aset(entries)]

    async def adelete_many(self, keys: Iterable[Any], version: Any = None) -> None:
        """See `delete_many`."""
        if made := self._made_all(keys, version):
            await self._adelete(tuple(made))

    async def ahas_key(self, key: Any, version: Any = None) -> bool:
        """See `has_key`."""
        return await self._ahas(self.make_and_validate_key(key, version))

    async def aget_or_set(self, key: Any, default: Any, timeout: Any = DEFAULT_TIMEOUT, version: Any = None) -> Any:
        """`get_or_set` for tasks; `default` may also be a coroutine function."""
        seen = self._once.ended
        value = await self.aget(key, MISSING, version)
        if value is not MISSING:
            return value

        async def look() -> Any:
            return await self.aget(key, MISSING, version)

        async def make() -> Any:
            fresh = default() if callable(default) else default
            if inspect.isawaitable(fresh):
                fresh = await fresh
            await self.aadd(key, fresh, timeout, version)
            return await self.aget(key, fresh, version)

        return await self._once.acall(self.make_key(key, version), seen, look, make)

    async def aincr(self, key: Any, delta: int = 1, version: Any = None) -> int:
        """See `incr`."""
        made = self.make_and_validate_key(key, version)
        try:
            return await self._aincr(made, operator.index(delta))
        except KeyError:
            raise ValueError(f"Key {key!r} not found") from None

    async def adecr(self, key: Any, delta: int = 1, version: Any = None) -> int:
        """See `decr`."""
        return await self.aincr(key, -operator.index(delta), version)

    async def aincr_version(self, key: Any, delta: int = 1, version: Any = None) -> Any:
        """See `incr_version`."""
        old, new, target = self._versions(key, delta, version)
        stored = await self._aget((old,))
        if old not in stored:
            raise ValueError(f"Key {key!r} not found")
        if new != old:
            await self._aset(((new, self._rekeyed(old, new, stored[old]), await self._atimeout_left(old)),))
            await self._adelete((old,))
        return target

    async def adecr_version(self, key: Any, delta: int = 1, version: Any = None) -> Any:
        """See `decr_version`."""
        return await self.aincr_version(key, -delta, version)

    async def aclear(self) -> None:
        """See `clear`."""
        await self._aclear()

    async def aclose(self) -> None:
        """See `close`."""
        await self._aclose()

    # -- pages ---------------------------------------------------------------------------------------------------
    # `type(self)._get`, not `self._get`: a failure has to reach the page cache's breaker, `fail_open` or not.

    def page_key(self, key: str) -> str:
        """The store's key for a page's full key "RESOURCE\\x00REST": readable, or digests where keys have a limit."""
        return self._page_prefix + (key if self.max_key_length is None else page_digest(key))

    def read_records(self, keys: Sequence[str]) -> list[Any]:
        """The pages' records in the order of `keys`, None where there is none. Raises: BackendUnavailable."""
        made = [self.page_key(key) for key in keys]
        return _payloads(made, type(self)._get(self, made))

    def write_records(self, records: Iterable[tuple[str, Any, float | None]]) -> list[str]:
        """Store (key, payload, timeout) each; returns the keys that could not be stored.

        One without time to live only replaces: what was there is gone.
        """
        keys, entries, ended = self._page_entries(records)
        if ended:
            type(self)._delete(self, ended)
        return [keys[made] for made in type(self)._set(self, entries)] if entries else []

    def drop_records(self, keys: Sequence[str]) -> int:
        """Remove pages; returns how many were there."""
        return type(self)._delete(self, [self.page_key(key) for key in keys]) if keys else 0

    def add_record(self, key: str, payload: Any, timeout: float | None) -> bool:
        """Store a record unless there is one, atomically (a lease); True if it was stored."""
        if timeout is not None and timeout <= 0:
            return False
        return type(self)._add(self, self.page_key(key), payload, _bounded(timeout))

    async def aread_records(self, keys: Sequence[str]) -> list[Any]:
        """See `read_records`."""
        made = [self.page_key(key) for key in keys]
        return _payloads(made, await type(self)._aget(self, made))

    async def awrite_records(self, records: Iterable[tuple[str, Any, float | None]]) -> list[str]:
        """See `write_records`."""
        keys, entries, ended = self._page_entries(records)
        if ended:
            await type(self)._adelete(self, ended)
        return [keys[made] for made in await type(self)._aset(self, entries)] if entries else []

    async def adrop_records(self, keys: Sequence[str]) -> int:
        """See `drop_records`."""
        return await type(self)._adelete(self, [self.page_key(key) for key in keys]) if keys else 0

    async def aadd_record(self, key: str, payload: Any, timeout: float | None) -> bool:
        """See `add_record`."""
        if timeout is not None and timeout <= 0:
            return False
        return await type(self)._aadd(self, self.page_key(key), payload, _bounded(timeout))

    def _page_entries(
        self, records: Iterable[tuple[str, Any, float | None]]
    ) -> tuple[dict[str, str], list[Entry], list[str]]:
        """The full keys by made key; what to store; the made keys of what has no time to live."""
        keys: dict[str, str] = {}
        entries: list[Entry] = []
        ended: list[str] = []
        for key, payload, timeout in records:
            made = self.page_key(key)
            keys[made] = key
            if timeout is not None and timeout <= 0:
                ended.append(made)
            else:
                entries.append((made, payload, _bounded(timeout)))
        return keys, entries, ended


def _bounded(timeout: float | None) -> float | None:
    return None if timeout is None or timeout >= FOREVER else timeout


def _payloads(made: Sequence[str], stored: Mapping[str, Any]) -> list[Any]:
    """Only what can be a page: an integer is the low-level API's."""
    return [None if type(payload := stored.get(key)) is int else payload for key in made]


class InlineCache(BaseCache):
    """A store that never waits: its primitives answer directly on the event loop."""

    async def _aget(self, keys: Sequence[str]) -> dict[str, Any]:
        return self._get(keys)

    async def _aset(self, entries: Sequence[Entry]) -> list[str]:
        return self._set(entries)

    async def _aadd(self, key: str, value: Any, timeout: float | None) -> bool:
        return self._add(key, value, timeout)

    async def _atouch(self, key: str, timeout: float | None) -> bool:
        return self._touch(key, timeout)

    async def _adelete(self, keys: Sequence[str]) -> int:
        return self._delete(keys)

    async def _aincr(self, key: str, delta: int) -> int:
        return self._incr(key, delta)

    async def _ahas(self, key: str) -> bool:
        return self._has(key)

    async def _atimeout_left(self, key: str) -> float | None:
        return self._timeout_left(key)

    async def _aclear(self) -> None:
        self._clear()


#: Threads per event loop that wait for disks and blocking clients; apart from the application's own, which a slow
#: view may fill up.
_THREADS: Final = 16
_limiter: RunVar[CapacityLimiter] = RunVar("cachemw.limiter")


async def offload(work: Callable[..., T], *args: Any) -> T:
    """Run blocking work in a thread; the one place that does. A cancelled caller waits for it: nothing is torn."""
    limiter = _limiter.get(None)
    if limiter is None:
        limiter = CapacityLimiter(_THREADS)
        _limiter.set(limiter)
    return await anyio.to_thread.run_sync(work, *args, limiter=limiter)


class BlockingCache(BaseCache):
    """A store whose work blocks (disks, blocking clients): the async half runs it in threads."""

    async def _aget(self, keys: Sequence[str]) -> dict[str, Any]:
        return await offload(self._get, keys)

    async def _aset(self, entries: Sequence[Entry]) -> list[str]:
        return await offload(self._set, entries)

    async def _aadd(self, key: str, value: Any, timeout: float | None) -> bool:
        return await offload(self._add, key, value, timeout)

    async def _atouch(self, key: str, timeout: float | None) -> bool:
        return await offload(self._touch, key, timeout)

    async def _adelete(self, keys: Sequence[str]) -> int:
        return await offload(self._delete, keys)

    async def _aincr(self, key: str, delta: int) -> int:
        return await offload(self._incr, key, delta)

    async def _ahas(self, key: str) -> bool:
        return await offload(self._has, key)

    async def _atimeout_left(self, key: str) -> float | None:
        return await offload(self._timeout_left, key)

    async def _aclear(self) -> None:
        await offload(self._clear)

    async def _aclose(self) -> None:
        await offload(self._close)
