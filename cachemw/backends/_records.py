"""The pages' records, in both halves: full keys of any length, payloads that are never serialized."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, ClassVar

from cachemw.backends._keys import page_digest
from cachemw.backends._store import FOREVER, Entry, Store

__all__ = ["Decode", "Records", "decoded", "payloads"]

#: Makes a record of a key and its payload; None of one that cannot be read.
Decode = Callable[[str, Any], Any]


class Records(Store):
    """What the page cache needs of a store.

    It calls the primitives themselves: a failure has to reach the page cache's breaker, `fail_open` or not.
    """

    #: In bytes: the body of a page that has more is given, and given back, as a `cachemw.codec.Apart`. None: none is.
    bodies_apart: ClassVar[int | None] = None

    def page_key(self, key: str) -> str:
        """The store's key for a page's full key "RESOURCE\\x00REST": readable, or digests where keys have a limit."""
        return self._page_prefix + (key if self.max_key_length is None else page_digest(key))

    def read_records(self, keys: Sequence[str]) -> list[Any]:
        """The pages' records in the order of `keys`, None where there is none. Raises: BackendUnavailable."""
        made = [self.page_key(key) for key in keys]
        return payloads(made, self._get(made))

    def known(self, keys: Sequence[str], decode: Decode) -> list[Any] | None:
        """What `read_decoded` gives, where that is known without a look at the store; None where it is not."""
        return None

    def read_decoded(self, keys: Sequence[str], decode: Decode) -> list[Any]:
        """The records that `decode(key, payload)` makes of the payloads, None where there is none: a page's hit.

        A store may remember them, so that what is asked for often is not decoded each time. Raises: BackendUnavailable.
        """
        return decoded(keys, self.read_records(keys), decode)

    def read_latest(self, keys: Sequence[str]) -> list[Any]:
        """The same for one who has just written, where a replica or a local tier could still tell what was before."""
        made = [self.page_key(key) for key in keys]
        return payloads(made, self._get_latest(made))

    def write_records(self, records: Iterable[tuple[str, Any, float | None]]) -> list[str]:
        """Store (key, payload, timeout) each; returns the keys that could not be stored.

        One without time to live only replaces: what was there is gone.
        """
        keys, entries, ended = self._page_entries(records)
        if ended:
            self._delete(ended)
        return [keys[made] for made in self._set(entries)] if entries else []

    def drop_records(self, keys: Sequence[str]) -> int:
        """Remove pages; returns how many were there."""
        return self._delete([self.page_key(key) for key in keys]) if keys else 0

    def add_record(self, key: str, payload: Any, timeout: float | None) -> bool:
        """Store a record unless there is one, atomically (a lease); True if it was stored."""
        if timeout is not None and timeout <= 0:
            return False
        return self._add(self.page_key(key), payload, _bounded(timeout))

    def commit_records(
        self, records: Sequence[tuple[str, Any, float | None]], latest: Sequence[str], drops: Sequence[str]
    ) -> tuple[list[str], list[Any]]:
        """`write_records`, then `read_latest`, then `drop_records`: in one round trip where the store can.

        Returns the keys that could not be stored, and what was read. Raises: BackendUnavailable; it is then not known
        how much of it was done.
        """
        failed = self.write_records(records) if records else []
        found = self.read_latest(latest) if latest else []
        if drops:
            self.drop_records(drops)
        return failed, found

    def add_and_read(
        self, key: str, payload: Any, timeout: float | None, latest: Sequence[str]
    ) -> tuple[bool, list[Any]]:
        """`add_record`, then `read_latest`: in one round trip where the store can. Raises: as `commit_records`."""
        return self.add_record(key, payload, timeout), self.read_latest(latest) if latest else []

    def clear_records(self) -> None:
        """Remove everything of this store."""
        self._clear()

    async def aread_records(self, keys: Sequence[str]) -> list[Any]:
        """See `read_records`."""
        made = [self.page_key(key) for key in keys]
        return payloads(made, await self._aget(made))

    async def aread_decoded(self, keys: Sequence[str], decode: Decode) -> list[Any]:
        """See `read_decoded`."""
        return decoded(keys, await self.aread_records(keys), decode)

    async def aread_latest(self, keys: Sequence[str]) -> list[Any]:
        """See `read_latest`."""
        made = [self.page_key(key) for key in keys]
        return payloads(made, await self._aget_latest(made))

    async def awrite_records(self, records: Iterable[tuple[str, Any, float | None]]) -> list[str]:
        """See `write_records`."""
        keys, entries, ended = self._page_entries(records)
        if ended:
            await self._adelete(ended)
        return [keys[made] for made in await self._aset(entries)] if entries else []

    async def adrop_records(self, keys: Sequence[str]) -> int:
        """See `drop_records`."""
        return await self._adelete([self.page_key(key) for key in keys]) if keys else 0

    async def aadd_record(self, key: str, payload: Any, timeout: float | None) -> bool:
        """See `add_record`."""
        if timeout is not None and timeout <= 0:
            return False
        return await self._aadd(self.page_key(key), payload, _bounded(timeout))

    async def acommit_records(
        self, records: Sequence[tuple[str, Any, float | None]], latest: Sequence[str], drops: Sequence[str]
    ) -> tuple[list[str], list[Any]]:
        """See `commit_records`."""
        failed = await self.awrite_records(records) if records else []
        found = await self.aread_latest(latest) if latest else []
        if drops:
            await self.adrop_records(drops)
        return failed, found

    async def aadd_and_read(
        self, key: str, payload: Any, timeout: float | None, latest: Sequence[str]
    ) -> tuple[bool, list[Any]]:
        """See `add_and_read`."""
        added = await self.aadd_record(key, payload, timeout)
        return added, await self.aread_latest(latest) if latest else []

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


def payloads(made: Sequence[str], stored: Mapping[str, Any]) -> list[Any]:
    """What is stored, in the order of the keys. Only what can be a page: an integer is the low-level API's."""
    return [None if type(payload := stored.get(key)) is int else payload for key in made]


def decoded(keys: Sequence[str], payloads: Sequence[Any], decode: Decode) -> list[Any]:
    """What `decode` makes of these payloads, None where there is none."""
    return [None if payload is None else decode(key, payload) for key, payload in zip(keys, payloads, strict=True)]
