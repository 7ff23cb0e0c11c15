"""TieredCache: a local tier before a shared store. What this process has read lately costs no network at all.

Rule 1: the shared store is the truth: all writes go there, and the local entry is dropped before and after; those
of all tiers that this process has before the same LOCATION.
Rule 2: on Redis a change by anybody reaches this process in about a tenth of a millisecond (RESP3 client tracking);
while that channel is down, nothing local is answered. Elsewhere an entry is at most `local_timeout` old.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any, ClassVar

from cachemw._urls import cache_from_url
from cachemw._values import number, refuse
from cachemw.backends._local_tier import LocalTier, Reading, Timed
from cachemw.backends._records import Decode
from cachemw.backends.base import BaseCache, Entry
from cachemw.backends.redis import RedisCache
from cachemw.backends.registry import make_cache

__all__ = ["TieredCache"]

_LOCAL: tuple[str, ...] = ("max_entries", "max_bytes", "cull_frequency")


def _payload(key: str, payload: Any) -> Any:
    return payload


class TieredCache(BaseCache):
    """A local tier before a shared store.

    location: the shared store's URL ("redis://…"), unless OPTIONS has `shared`.
    params: those of the shared store (TIMEOUT, KEY_PREFIX, SERIALIZER, …).
    OPTIONS: shared (an entry as in CACHES, or a URL), local_timeout (seconds that an entry is kept locally at
        most; default: on Redis as long as the shared one, else 1), local_max_entries, local_max_bytes,
        local_cull_frequency (as `LocMemCache`).

    In a Redis Cluster, which has a channel per node, and on a server without client tracking (before Redis 6),
    `local_timeout` is 1 by default, as on the other stores.

    Raises: ImproperlyConfigured, also for a shared store that other processes do not see.
    """

    option_names: ClassVar[frozenset[str] | None] = frozenset(
        {"shared", "local_timeout", *(f"local_{name}" for name in _LOCAL)}
    )

    def __init__(self, location: str | Sequence[str], params: Mapping[str, Any] | None = None) -> None:
        given = {str(name).upper(): value for name, value in (params or {}).items()}
        options = {str(name).lower(): value for name, value in (given.pop("OPTIONS", None) or {}).items()}
        config = {**_described(location, options.pop("shared", None)), **given}
        self._shared = shared = make_cache(config)
        if not shared.shared or shared.by_reference or isinstance(shared, TieredCache):
            raise refuse("OPTIONS['shared']", type(shared).__name__, "a store that other processes see, without a tier")
        # its keys are the shared store's, and so are their limits
        vars(self).update(strict_keys=shared.strict_keys, max_key_length=shared.max_key_length)
        # "fail_open" of the shared store, from its URL too: its primitives raise, and it is asked nothing else
        options.setdefault("fail_open", shared._fail_open is not None)
        options = {**shared.compression.options, **options}
        super().__init__(shared.location, {**config, "OPTIONS": options})
        if type(self).validate_key is TieredCache.validate_key:
            self._short, self._any_script = shared._short, shared._any_script
        vars(shared)["key_warning"] = self.key_warning
        limit = self.options.get("local_timeout")
        self._tier = LocalTier(
            {name: self.options[f"local_{name}"] for name in _LOCAL if f"local_{name}" in self.options},
            store=f"{type(shared).__name__} {shared.location}",
            limit=None if limit is None else number("OPTIONS['local_timeout']", limit, minimum=0),
        )
        self._redis = shared if isinstance(shared, RedisCache) else None
        if self._redis is not None:
            channel = self._redis.invalidations(self._tier.forget, self._tier.flush)
            if channel is not None:
                self._tier.listen_to(channel)

    def validate_key(self, key: str) -> None:
        """As the shared store does, which takes what it takes whatever is before it."""
        self._shared.validate_key(key)

    # -- values --------------------------------------------------------------------------------------------------

    def _get(self, keys: Sequence[str]) -> dict[str, Any]:
        found, missing = self._tier.values(keys)
        if missing:
            with self._tier.reading() as reading:
                fetched = self._fetch(missing)
                self._tier.keep_values(reading, missing, fetched)
            found.update((key, value) for key, (value, _) in fetched.items())
        return found

    async def _aget(self, keys: Sequence[str]) -> dict[str, Any]:
        found, missing = self._tier.values(keys)
        if missing:
            with self._tier.reading() as reading:
                fetched = await self._afetch(missing)
                self._tier.keep_values(reading, missing, fetched)
            found.update((key, value) for key, (value, _) in fetched.items())
        return found

    def _get_latest(self, keys: Sequence[str]) -> dict[str, Any]:
        return self._shared._get_latest(keys)

    async def _aget_latest(self, keys: Sequence[str]) -> dict[str, Any]:
        return await self._shared._aget_latest(keys)

    def _fetch(self, made: Sequence[str]) -> Mapping[str, Timed]:
        if self._redis is not None:
            return self._redis.get_with_time_left(made)
        return {key: (value, None) for key, value in self._shared._get(made).items()}

    async def _afetch(self, made: Sequence[str]) -> Mapping[str, Timed]:
        if self._redis is not None:
            return await self._redis.aget_with_time_left(made)
        return {key: (value, None) for key, value in (await self._shared._aget(made)).items()}

    def _has(self, key: str) -> bool:
        found, missing = self._tier.values((key,))
        return self._shared._has(key) if missing else key in found

    async def _ahas(self, key: str) -> bool:
        found, missing = self._tier.values((key,))
        return await self._shared._ahas(key) if missing else key in found

    def _timeout_left(self, key: str) -> float | None:
        return self._shared._timeout_left(key)

    async def _atimeout_left(self, key: str) -> float | None:
        return await self._shared._atimeout_left(key)

    def _set(self, entries: Sequence[Entry]) -> list[str]:
        with self._tier.changing([key for key, _, _ in entries]):
            return self._shared._set(entries)

    async def _aset(self, entries: Sequence[Entry]) -> list[str]:
        with self._tier.changing([key for key, _, _ in entries]):
            return await self._shared._aset(entries)

    def _add(self, key: str, value: Any, timeout: float | None) -> bool:
        with self._tier.changing((key,)):
            return self._shared._add(key, value, timeout)

    async def _aadd(self, key: str, value: Any, timeout: float | None) -> bool:
        with self._tier.changing((key,)):
            return await self._shared._aadd(key, value, timeout)

    def _touch(self, key: str, timeout: float | None) -> bool:
        with self._tier.changing((key,)):
            return self._shared._touch(key, timeout)

    async def _atouch(self, key: str, timeout: float | None) -> bool:
        with self._tier.changing((key,)):
            return await self._shared._atouch(key, timeout)

    def _delete(self, keys: Sequence[str]) -> int:
        with self._tier.changing(keys):
            return self._shared._delete(keys)

    async def _adelete(self, keys: Sequence[str]) -> int:
        with self._tier.changing(keys):
            return await self._shared._adelete(keys)

    def _incr(self, key: str, delta: int) -> int:
        with self._tier.changing((key,)):
            return self._shared._incr(key, delta)

    async def _aincr(self, key: str, delta: int) -> int:
        with self._tier.changing((key,)):
            return await self._shared._aincr(key, delta)

    def _clear(self) -> None:
        with self._tier.changing_all():
            self._shared._clear()

    async def _aclear(self) -> None:
        with self._tier.changing_all():
            await self._shared._aclear()

    def _close(self) -> None:
        self._tier.close()
        self._shared._close()

    async def _aclose(self) -> None:
        self._tier.close()
        await self._shared._aclose()

    # -- pages: kept by their readable keys, which on Redis are the shared store's too -----------------------------

    def page_key(self, key: str) -> str:
        return self._shared.page_key(key)

    def read_records(self, keys: Sequence[str]) -> list[Any]:
        """The payloads, as on any store. To keep decoded pages locally, use `read_decoded`."""
        return self.read_decoded(keys, _payload)

    async def aread_records(self, keys: Sequence[str]) -> list[Any]:
        """See `read_records`."""
        return await self.aread_decoded(keys, _payload)

    def known(self, keys: Sequence[str], decode: Decode) -> list[Any] | None:
        """What `read_decoded` gives, if it needs nothing of the shared store; else None."""
        return self._tier.known(self._page_prefix, keys, decode)

    def read_decoded(self, keys: Sequence[str], decode: Decode) -> list[Any]:
        """The pages' records in the order of `keys`, None where there is none, each decoded once and kept so.

        decode: (key, payload) -> record, None for a damaged one; the same function (it is compared) at each call.
        Raises: BackendUnavailable.
        """
        found, places = self._tier.pages(self._page_prefix, keys, decode)
        if places:
            missing = [keys[place] for place in places]
            with self._tier.reading() as reading:
                fetched = self._fetch([self.page_key(key) for key in missing])
                self._complete(found, places, missing, fetched, decode, reading)
        return found

    async def aread_decoded(self, keys: Sequence[str], decode: Decode) -> list[Any]:
        """See `read_decoded`."""
        found, places = self._tier.pages(self._page_prefix, keys, decode)
        if places:
            missing = [keys[place] for place in places]
            with self._tier.reading() as reading:
                fetched = await self._afetch([self.page_key(key) for key in missing])
                self._complete(found, places, missing, fetched, decode, reading)
        return found

    def _complete(
        self,
        found: list[Any],
        places: Sequence[int],
        missing: Sequence[str],
        fetched: Mapping[str, Timed],
        decode: Decode,
        reading: Reading,
    ) -> None:
        """Put what was fetched into its places, and keep it."""
        kept: list[tuple[str, Any, float | None]] = []
        for place, key in zip(places, missing, strict=True):
            payload, seconds = fetched.get(self.page_key(key), (None, None))
            if payload is not None and type(payload) is not int:  # an integer is the low-level API's
                found[place] = record = decode(key, payload)
                if record is None:  # damaged: counted each time it is met
                    continue
            kept.append((self._page_prefix + key, found[place], seconds))
        self._tier.keep_pages(reading, decode, kept)

    def write_records(self, records: Iterable[tuple[str, Any, float | None]]) -> list[str]:
        records = list(records)
        with self._tier.changing([self._page_prefix + key for key, _, _ in records]):
            return self._shared.write_records(records)

    async def awrite_records(self, records: Iterable[tuple[str, Any, float | None]]) -> list[str]:
        records = list(records)
        with self._tier.changing([self._page_prefix + key for key, _, _ in records]):
            return await self._shared.awrite_records(records)

    def commit_records(
        self, records: Sequence[tuple[str, Any, float | None]], latest: Sequence[str], drops: Sequence[str]
    ) -> tuple[list[str], list[Any]]:
        with self._tier.changing([self._page_prefix + key for key in (*[key for key, _, _ in records], *drops)]):
            return self._shared.commit_records(records, latest, drops)

    async def acommit_records(
        self, records: Sequence[tuple[str, Any, float | None]], latest: Sequence[str], drops: Sequence[str]
    ) -> tuple[list[str], list[Any]]:
        with self._tier.changing([self._page_prefix + key for key in (*[key for key, _, _ in records], *drops)]):
            return await self._shared.acommit_records(records, latest, drops)

    def clear_records(self) -> None:
        with self._tier.changing_all():
            self._shared.clear_records()

    def drop_records(self, keys: Sequence[str]) -> int:
        with self._tier.changing([self._page_prefix + key for key in keys]):
            return self._shared.drop_records(keys)

    async def adrop_records(self, keys: Sequence[str]) -> int:
        with self._tier.changing([self._page_prefix + key for key in keys]):
            return await self._shared.adrop_records(keys)

    def add_record(self, key: str, payload: Any, timeout: float | None) -> bool:
        with self._tier.changing((self._page_prefix + key,)):
            return self._shared.add_record(key, payload, timeout)

    async def aadd_record(self, key: str, payload: Any, timeout: float | None) -> bool:
        with self._tier.changing((self._page_prefix + key,)):
            return await self._shared.aadd_record(key, payload, timeout)

    def add_and_read(
        self, key: str, payload: Any, timeout: float | None, latest: Sequence[str]
    ) -> tuple[bool, list[Any]]:
        with self._tier.changing((self._page_prefix + key,)):
            return self._shared.add_and_read(key, payload, timeout, latest)

    async def aadd_and_read(
        self, key: str, payload: Any, timeout: float | None, latest: Sequence[str]
    ) -> tuple[bool, list[Any]]:
        with self._tier.changing((self._page_prefix + key,)):
            return await self._shared.aadd_and_read(key, payload, timeout, latest)


def _described(location: str | Sequence[str], shared: Any) -> dict[str, Any]:
    """The entry of CACHES for the shared store."""
    described = location if shared is None else shared
    if isinstance(described, str):
        described = cache_from_url(described)
    if not isinstance(described, Mapping):
        raise refuse("OPTIONS['shared']", shared, "an entry as in CACHES, or a URL; or a URL as LOCATION")
    return {str(name).upper(): value for name, value in described.items()}
