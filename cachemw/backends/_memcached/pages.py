"""The pages' records on Memcached: the keys of one URL are on one server, so what is done with them is one round trip.

Should that server fail on the way, it is left out, and the same is done on the way that all other operations take.
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Iterable, Mapping, Sequence
from functools import lru_cache
from typing import Any, Final

from cachemw.backends._keys import page_digest
from cachemw.backends._memcached.clients import Pool
from cachemw.backends._memcached.ring import Node, Ring
from cachemw.backends._records import payloads
from cachemw.backends.base import BaseCache, Entry
from cachemw.errors import BackendUnavailable

__all__ = ["MemcachedPages"]

#: Digests of pages' keys are made once for those that are asked for again; a long key is a stranger's.
_DIGESTS: Final = 8_192
_LONGEST: Final = 1_024
_digest: Final = lru_cache(_DIGESTS)(page_digest)


class MemcachedPages(BaseCache):
    """See `MemcachedCache`."""

    _ring: Ring
    _pools: dict[Node, Pool[Any]]

    @abstractmethod
    def _here(self) -> Mapping[Node, Any]:
        """The clients of the running event loop."""

    @abstractmethod
    def _lost(self, node: Node, failure: BackendUnavailable, keys: Iterable[str]) -> None:
        """The server failed; nobody knows what it has under these keys."""

    def page_key(self, key: str) -> str:
        return self._page_prefix + (_digest(key) if len(key) <= _LONGEST else page_digest(key))

    def commit_records(
        self, records: Sequence[tuple[str, Any, float | None]], latest: Sequence[str], drops: Sequence[str]
    ) -> tuple[list[str], list[Any]]:
        commit = self._commit_of(records, latest, drops)
        if commit is None:
            return super().commit_records(records, latest, drops)
        node, keys, entries, looked, dropped = commit
        try:
            refused, found = self._pools[node].commit(entries, looked, dropped)
        except BackendUnavailable as failure:
            self._lost(node, failure, (*keys, *dropped))
            return super().commit_records(records, latest, drops)
        return [keys[key] for key in refused], payloads(looked, found)

    async def acommit_records(
        self, records: Sequence[tuple[str, Any, float | None]], latest: Sequence[str], drops: Sequence[str]
    ) -> tuple[list[str], list[Any]]:
        commit = self._commit_of(records, latest, drops)
        if commit is None:
            return await super().acommit_records(records, latest, drops)
        node, keys, entries, looked, dropped = commit
        try:
            refused, found = await self._here()[node].commit(entries, looked, dropped)
        except BackendUnavailable as failure:
            self._lost(node, failure, (*keys, *dropped))
            return await super().acommit_records(records, latest, drops)
        return [keys[key] for key in refused], payloads(looked, found)

    def _commit_of(
        self, records: Sequence[tuple[str, Any, float | None]], latest: Sequence[str], drops: Sequence[str]
    ) -> tuple[Node, dict[str, str], list[Entry], list[str], list[str]] | None:
        """What to ask of which server, and the full keys by made key; None if it is no question to one server."""
        keys, entries, ended = self._page_entries(records)
        looked, dropped = [self.page_key(key) for key in latest], [self.page_key(key) for key in drops]
        node = self._ring.lone((*keys, *looked, *dropped))
        if node is None or ended or not (keys or looked or dropped):
            return None
        return node, keys, entries, looked, dropped

    def add_and_read(
        self, key: str, payload: Any, timeout: float | None, latest: Sequence[str]
    ) -> tuple[bool, list[Any]]:
        made, looked = self.page_key(key), [self.page_key(one) for one in latest]
        node = self._ring.lone((made, *looked))
        if node is None or (timeout is not None and timeout <= 0):
            return super().add_and_read(key, payload, timeout, latest)
        try:
            added, found = self._pools[node].add_and_get((made, payload, timeout), looked)
        except BackendUnavailable as failure:
            self._lost(node, failure, (made,))
            return super().add_and_read(key, payload, timeout, latest)
        return added, payloads(looked, found)

    async def aadd_and_read(
        self, key: str, payload: Any, timeout: float | None, latest: Sequence[str]
    ) -> tuple[bool, list[Any]]:
        made, looked = self.page_key(key), [self.page_key(one) for one in latest]
        node = self._ring.lone((made, *looked))
        if node is None or (timeout is not None and timeout <= 0):
            return await super().aadd_and_read(key, payload, timeout, latest)
        try:
            added, found = await self._here()[node].add_and_get((made, payload, timeout), looked)
        except BackendUnavailable as failure:
            self._lost(node, failure, (made,))
            return await super().aadd_and_read(key, payload, timeout, latest)
        return added, payloads(looked, found)
