"""What a store is told and what it has to do: settings, keys, timeouts and values, and the primitives of a backend."""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Iterable, Mapping, Sequence
from contextlib import suppress
from typing import Any, ClassVar, Final, cast

from cachemw._codec_compression import Compression
from cachemw._values import boolean, integer, number, refuse, text, unknown, without_password
from cachemw.backends._failopen import FailOpen, Reports
from cachemw.backends._keys import MEMCACHED_LENGTH, default_key_func, key_function, key_made_by, page_prefix, validate
from cachemw.backends._once import MISSING, Once
from cachemw.backends.serializers import PickleSerializer, Seal, make_serializer, secrets_from
from cachemw.errors import CacheKeyWarning, SerializationError, UnserializableValue

__all__ = ["DEFAULT_TIMEOUT", "FOREVER", "Entry", "Store", "Value", "unserializable"]

#: What a store keeps: bytes, or an integer of 64 bits that it can count.
Value = bytes | int
#: (made key, value, timeout in seconds or None for ever)
Entry = tuple[str, Any, float | None]

#: "The cache's own `TIMEOUT`", where an argument was left out; not None, which means for ever.
DEFAULT_TIMEOUT: Final[Any] = object()

#: Seconds (68 years) from which on a timeout means for ever: memcached, Redis and SQL all end somewhere beyond.
FOREVER: Final = 2.0**31

_INT64: Final = 2**63
_COMPRESSION: Final = frozenset(Compression().options)


def unserializable(key: str, error: Exception) -> UnserializableValue:
    """The error for a value that the serializer refuses; to be raised by the caller."""
    return UnserializableValue(f"The value for the cache key {key!r} cannot be serialized: {error!r}")


class Store(ABC):
    """See `BaseCache`, which documents the parameters."""

    #: Do other processes see the entries?
    shared: ClassVar[bool] = True
    #: Is it on this machine, so that a read costs by the key, where others cost by the round trip?
    near: bool = False
    #: Is anything that is stored there afterwards?
    keeps: ClassVar[bool] = True
    #: Are pages kept as the objects given, not as bytes?
    by_reference: ClassVar[bool] = False
    #: The longest made key that the store takes, in characters; None: any, and pages then have readable keys.
    max_key_length: ClassVar[int | None] = None
    #: Does the store refuse the keys that memcached refuses? They then raise InvalidCacheKey instead of warning.
    strict_keys: ClassVar[bool] = False
    #: What a key that is fine here, and would not be on memcached, is warned of by.
    key_warning: ClassVar[type[CacheKeyWarning]] = CacheKeyWarning
    #: The names in OPTIONS, in lower case (any case is understood); None: the backend checks its options itself.
    option_names: ClassVar[frozenset[str] | None] = frozenset()
    #: What the page cache keeps of this store (`cachemw.pages.Pages`), as soon as there is one.
    page_cache: Any = None

    def __init__(self, location: str | Sequence[str] = "", params: Mapping[str, Any] | None = None) -> None:
        known = {"timeout", "key_prefix", "version", "key_function", "options", "serializer", "secret"}
        given = {str(name).lower(): value for name, value in (params or {}).items()}
        # Django takes these two beside OPTIONS too
        loose: dict[str, Any] = {name: given.pop(name) for name in ("max_entries", "cull_frequency") if name in given}
        for name in ("backend", "location"):
            given.pop(name, None)
        if strange := sorted(given.keys() - known):
            allowed = {name.upper() for name in (*known, "backend", "location")}
            raise unknown("An unknown setting of the cache", strange[0].upper(), allowed)
        self.location = location
        self.options = {**self._options(loose), **self._options(given.get("options") or {})}
        self.default_timeout = self._default_timeout(given.get("timeout", 300))
        self._key_prefix = str(self._part_of_keys("KEY_PREFIX", given.get("key_prefix"), ""))
        self._version: Any = self._part_of_keys("VERSION", given.get("version"), 1)
        #: May be replaced at run time.
        self.key_func = key_function(given.get("key_function"))
        serializer = make_serializer(given.get("serializer"))
        self._dumps, self._loads = serializer.dumps, serializer.loads
        self._pickles = isinstance(serializer, PickleSerializer)
        #: What authenticates this store's records, the newest first; empty: nothing does.
        self.secrets = secrets_from(given.get("secret"))
        self._seal = Seal(self.secrets) if self.secrets else None
        self._damaged = Reports(self, "An entry of %r counts as missing, it cannot be decoded: %s")
        self._page_prefix = page_prefix(
            self._key_prefix, self._version, strict=self.strict_keys, limit=self.max_key_length
        )
        # longer keys are looked at closely; all of them where a subclass has its own idea of a key
        own_rule = type(self).validate_key is not Store.validate_key
        self._short = -1 if own_rule else min(MEMCACHED_LENGTH, self.max_key_length or MEMCACHED_LENGTH)
        #: False: so are those that are not ASCII.
        self._any_script = True
        self._once = Once()
        packs = () if self.by_reference else _COMPRESSION & self.options.keys()
        #: What becomes of the bodies of pages.
        self.compression = Compression(**{name: self.options.pop(name) for name in packs})
        opens = boolean("OPTIONS['fail_open']", self.options.pop("fail_open", False))
        self._fail_open = FailOpen(self) if opens else None

    def __repr__(self) -> str:
        given = self.location if isinstance(self.location, list | tuple) else [self.location]
        places = ", ".join(without_password(str(place)) for place in given)
        return f"<{type(self).__name__} {places}>" if places else f"<{type(self).__name__}>"

    @property
    def _primitives(self) -> Store:
        """Where the low-level API finds the primitives: here, or guarded by `fail_open`."""
        return self if self._fail_open is None else cast("Store", self._fail_open)

    @property
    def key_prefix(self) -> str:
        """KEY_PREFIX; fixed, as every page's key was made with it."""
        return self._key_prefix

    @property
    def version(self) -> Any:
        """VERSION; fixed, as every page's key was made with it."""
        return self._version

    def _options(self, given: object) -> dict[str, Any]:
        if not isinstance(given, Mapping):
            raise refuse("OPTIONS", "…", "a mapping")  # it may have a password
        if self.option_names is None:
            return dict(given)
        allowed = {*self.option_names, "fail_open"} | (frozenset() if self.by_reference else _COMPRESSION)
        options: dict[str, Any] = {}
        for name, value in given.items():
            if str(name).lower() not in allowed:
                raise unknown(f"An unknown option of {type(self).__name__}", name, allowed)
            options[str(name).lower()] = value
        return options

    @staticmethod
    def _part_of_keys(name: str, given: object, default: str | int) -> str | float:
        if given is None or given == "":
            return default
        if not isinstance(given, str | int | float):  # bytes would stand in keys as "b'…'"
            raise refuse(name, given, "a string or a number")
        return text(name, given) if isinstance(given, str) else given

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

    def _get_latest(self, keys: Sequence[str]) -> dict[str, Any]:
        """`_get` for what is about to change: no replica or local tier answers, which could tell what was before."""
        return self._get(keys)

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

        Raises: KeyError if absent, TypeError if it is not an integer, OverflowError if the sum has more than 64 bits;
        nothing is changed then.
        """

    @abstractmethod
    def _clear(self) -> None:
        """Remove all entries of this store (not other applications' where it can tell)."""

    def _has(self, key: str) -> bool:
        return key in self._get((key,))

    def _timeout_left(self, key: str) -> float | None:
        """Seconds it has left, None for ever, 0 if it is gone; the default timeout where the store cannot tell."""
        return self.default_timeout

    def _close(self) -> None:  # noqa: B027  most stores have nothing to close
        """Let go of connections and files; the cache may be used again afterwards."""

    @abstractmethod
    async def _aget(self, keys: Sequence[str]) -> dict[str, Any]:
        """`_get` without blocking the event loop; so the others below."""

    async def _aget_latest(self, keys: Sequence[str]) -> dict[str, Any]:
        return await self._aget(keys)

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
        return key_made_by(self.key_func, key, self._key_prefix, self._version if version is None else version)

    def validate_key(self, key: str) -> None:
        """Warn (CacheKeyWarning) about a made key that memcached would refuse, or raise InvalidCacheKey."""
        validate(key, strict=self.strict_keys, limit=self.max_key_length, warning=self.key_warning)

    def make_and_validate_key(self, key: Any, version: Any = None) -> str:
        """Both; every operation begins with it."""
        if version is None and self.key_func is default_key_func:
            made = f"{self._page_prefix}{key}"
        else:
            made = self.make_key(key, version)
        # printable text (U+007F is not) without a space has no control character: the answer for nearly every key
        if len(made) > self._short or not made.isprintable() or " " in made or not (self._any_script or made.isascii()):
            self.validate_key(made)
        return made

    def _seconds(self, timeout: Any) -> float | None:
        """The timeout in seconds, maybe <= 0; None for ever."""
        if timeout is DEFAULT_TIMEOUT:
            return self.default_timeout
        if timeout is None:
            return None
        try:
            seconds = float(timeout + 0.0)  # of a number alone: "5" is none, and what NumPy adds up may be an array
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
        try:
            data = self._dumps(value)
        except Exception as error:
            raise unserializable(key, error) from error
        return data if self._seal is None else self._seal.seal(key, data)

    def _decode(self, key: str, stored: Any, default: Any = MISSING) -> Any:
        """The value again, or `default` if it is damaged, foreign or not sealed: as good as evicted, and logged."""
        if type(stored) is int:
            return stored
        try:
            return self._loads(stored if self._seal is None else self._seal.unseal(key, stored))
        except Exception as error:
            self._damaged.report(SerializationError(f"{key!r}: {error!r}"))
            return default

    def _made_each(self, keys: Sequence[Any], version: Any) -> list[str]:
        """The made keys of the caller's, in their order, all valid."""
        if version is not None or self.key_func is not default_key_func or self._short < 0:
            return [self.make_and_validate_key(key, version) for key in keys]
        prefix = self._page_prefix
        made = [f"{prefix}{key}" for key in keys]
        together = "".join(made)  # one look at all of them
        if (
            max(map(len, made), default=0) > self._short
            or not together.isprintable()
            or " " in together
            or not (self._any_script or together.isascii())
        ):
            for key in keys:
                self.make_and_validate_key(key)
        return made

    def _made_all(self, keys: Iterable[Any], version: Any) -> dict[str, Any]:
        """The caller's keys by made key, all valid."""
        given = list(keys)
        return dict(zip(self._made_each(given, version), given, strict=True))

    def _all_found(self, keys: Sequence[Any], made: Sequence[str], stored: Sequence[Any]) -> dict[Any, Any]:
        """The values by the caller's keys, from what is stored under each, None where there is nothing."""
        if self._seal is None:
            loads = self._loads
            with suppress(Exception):  # of one that is damaged, which is told of below, where the others are found
                return {
                    key: value if type(value) is int else loads(value)
                    for key, value in zip(keys, stored, strict=True)
                    if value is not None
                }
        each = zip(keys, made, stored, strict=True)
        values = {key: self._decode(name, value) for key, name, value in each if value is not None}
        return {key: value for key, value in values.items() if value is not MISSING}

    def _entries(
        self, data: Mapping[Any, Any], seconds: float | None, version: Any
    ) -> tuple[dict[str, Any], list[Entry]]:
        keys = self._made_all(data, version)
        return keys, [(made, self._encode(made, data[key]), seconds) for made, key in keys.items()]

    def _rekeyed(self, key: Any, old: str, new: str, found: Mapping[str, Any]) -> Any:
        """What was found under `old` as it has to look under `new`: a seal covers the key. Raises: ValueError."""
        if old in found:
            stored = found[old]
            if self._seal is None or type(stored) is int:
                return stored
            try:
                return self._seal.seal(new, self._seal.unseal(old, stored))
            except SerializationError as error:
                self._damaged.report(SerializationError(f"{old!r}: {error}"))
        raise ValueError(f"Key {key!r} not found")
