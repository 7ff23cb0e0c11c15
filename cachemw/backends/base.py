"""BaseCache: the whole public API once. A backend adds ten primitives, and their native async twins.

Rule 1: keys, versions, timeouts and serializing are settled here; a primitive gets made keys, raw values
(`bytes`, or an `int` that the store can count) and a timeout in seconds > 0, or None for ever.
Rule 2: a client library's errors never pass a primitive: it raises BackendUnavailable, in one place of its module.
Rule 3: a page's record is never serialized here: bytes in, bytes out (the very object where `by_reference`).

To write a backend: subclass `BlockingCache` (its work blocks), `InlineCache` (its work never waits) or `BaseCache`
(it has an async client of its own), write the abstract methods, and run `cachemw.testing.BackendContract` on it.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, Final, TypeVar

import anyio.to_thread
from anyio import CapacityLimiter
from anyio.lowlevel import RunVar

from cachemw.backends._lowlevel import LowLevel
from cachemw.backends._records import Records
from cachemw.backends._store import DEFAULT_TIMEOUT, FOREVER, Entry, Value

__all__ = ["DEFAULT_TIMEOUT", "FOREVER", "BaseCache", "BlockingCache", "Entry", "InlineCache", "Value", "offload"]

T = TypeVar("T")


class BaseCache(LowLevel, Records):
    """A store of values by key.

        cache = LocMemCache("", {"TIMEOUT": 60, "KEY_PREFIX": "shop"})
        cache.set("key", {"any": "value"})

    location  where the store is; each backend says what it may be
    params    a mapping:

        TIMEOUT       seconds, default 300; None: for ever
        KEY_PREFIX    a string, default ""
        VERSION       default 1
        KEY_FUNCTION  a function of key, prefix and version, or its dotted path
        SERIALIZER    "pickle" (the default), "json", "msgpack", or an object with `dumps` and `loads`
        SECRET        a string, or several, the newest first; stored values are authenticated with it
        OPTIONS       a mapping of the backend's own options, and of these:

            fail_open         True: if the store does not answer, the low-level API behaves as if nothing were stored;
                              default: it raises BackendUnavailable
            compress          compress the bodies of pages: "zlib", or "zstd" from the extra `zstd`; default: do not. A
                              process without this option can read them, too. Values are not compressed
            compress_above    bytes, default 16384; smaller bodies are not compressed
            max_decompressed  bytes, default 64 MiB; a body that would grow larger is a miss

    Local memory does not have the last three options: it does not keep pages as bytes.

    Raises: ImproperlyConfigured, which names the setting, the value and what is allowed.
    """


class InlineCache(BaseCache):
    """A store that never waits: its primitives answer directly on the event loop."""

    async def _aget(self, keys: Sequence[str]) -> dict[str, Any]:
        return self._get(keys)

    async def _aget_latest(self, keys: Sequence[str]) -> dict[str, Any]:
        return self._get_latest(keys)

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

    def read_latest(self, keys: Sequence[str]) -> list[Any]:
        return self.read_records(keys)  # what never waits has no replica

    async def aread_latest(self, keys: Sequence[str]) -> list[Any]:
        return self.read_records(keys)


#: Threads per event loop that wait for disks and blocking clients; apart from the application's own, which a slow
#: view may fill up.
_THREADS: Final = 16
_limiter: RunVar[CapacityLimiter] = RunVar("cachemw.limiter")


async def offload(work: Callable[..., T], *args: Any) -> T:
    """Run blocking work in a thread; the one place that does. Work that has begun ends, whoever is cancelled."""
    limiter = _limiter.get(None)
    if limiter is None:
        limiter = CapacityLimiter(_THREADS)
        _limiter.set(limiter)
    return await anyio.to_thread.run_sync(work, *args, limiter=limiter)


class BlockingCache(BaseCache):
    """A store whose work blocks (disks, blocking clients): the async half runs it in threads."""

    async def _aget(self, keys: Sequence[str]) -> dict[str, Any]:
        return await offload(self._get, keys)

    async def _aget_latest(self, keys: Sequence[str]) -> dict[str, Any]:
        return await offload(self._get_latest, keys)

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

    async def acommit_records(
        self, records: Sequence[tuple[str, Any, float | None]], latest: Sequence[str], drops: Sequence[str]
    ) -> tuple[list[str], list[Any]]:
        """See `commit_records`: in one thread what would else be several."""
        return await offload(self.commit_records, records, latest, drops)

    async def aadd_and_read(
        self, key: str, payload: Any, timeout: float | None, latest: Sequence[str]
    ) -> tuple[bool, list[Any]]:
        """See `add_and_read`: in one thread too."""
        return await offload(self.add_and_read, key, payload, timeout, latest)
