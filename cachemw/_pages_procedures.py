"""Procedures: what the page cache does to a store, step by step; threads and event loops carry the steps out.

Rule 1: whoever writes looks again at the mark of the URL afterwards, and takes back what a purge should have removed.
Rule 2: a procedure may end at any step. What is then in doubt (was it written? did a purge come?) goes to `_doubt`.
"""

from __future__ import annotations

import os
import secrets
from abc import ABC, abstractmethod
from collections import Counter
from collections.abc import Generator, Sequence
from dataclasses import replace
from typing import Any, Final, Literal, TypeVar

from cachemw._engine_tokens import token
from cachemw._times import INDEX_TIMEOUT, MARK_TIMEOUT, TAG_TIMEOUT
from cachemw.backends._records import decoded
from cachemw.codec import Codec
from cachemw.errors import BackendUnavailable
from cachemw.rfc9111.keys import head_key, mark_key, primary_key
from cachemw.rfc9111.messages import HitForMiss, Mark, Record, StoredResponse, VaryIndex

__all__ = ["Guard", "Kind", "Procedure", "Procedures", "Write"]

T = TypeVar("T")

SOFT_TIMEOUT: Final = 86_400.0  # seconds that a softly purged response waits for its validation
PROBE: Final = "\0P"  # the key that is written to know whether a store takes writes again

#: (key, record, seconds it is to be kept, None for ever)
Write = tuple[str, Record, float | None]

#: (key of the URL's mark, its token when the request began, when that was)
Guard = tuple[str, str, float]

#: What a procedure does to the store: it yields the name of an operation and its arguments, and is sent the result.
Procedure = Generator[tuple[str, tuple[Any, ...]], Any, T]

#: What a removal is about: resources to purge, resources to make stale, tags to purge, tags to make stale, everything.
Kind = Literal["purge", "soften", "purge tag", "soften tag", "everything"]


class Procedures(ABC):
    """Written once, for both halves of a store.

    codec: None where the store keeps the records themselves. apart: see `Records.bodies_apart`.
    `counts` says how often what happened; `cleared` when this process has last removed everything.
    """

    def __init__(self, codec: Codec | None, *, apart: int | None = None) -> None:
        self.codec = codec
        self._apart = apart
        self.counts: Counter[str] = Counter()
        self.cleared = 0.0
        self._name = token()
        self._decode = None if codec is None else codec.decode

    @abstractmethod
    def clearing(self) -> None:
        """Everything is about to go, and what began before is not to come after it."""

    @abstractmethod
    def _doubt(self, keys: Sequence[str]) -> None:
        """Nobody knows whether these were written, and nobody compared them with the marks: they have to go."""

    def _decoded(self, keys: Sequence[str], payloads: Sequence[Any]) -> Sequence[Record | None]:
        return payloads if self._decode is None else decoded(keys, payloads, self._decode)

    def _encoded(self, writes: Sequence[Write]) -> Sequence[tuple[str, Any, float | None]]:
        codec = self.codec
        if codec is None:
            return writes
        apart = self._apart
        if apart is None:
            return [(key, codec.encode(record), timeout) for key, record, timeout in writes]
        return [(key, codec.encode_apart(record, above=apart), timeout) for key, record, timeout in writes]

    def commit(
        self,
        writes: Sequence[Write],
        drops: Sequence[str] = (),
        guard: Guard | None = None,
        lease: str | None = None,
    ) -> Procedure[bool]:
        """Write and drop records; False if a purge that came meanwhile has taken the writes back.

        guard: what may have changed since the request began. A purge writes the mark and then removes the record; this
        writes the record and then reads the mark: in every order one of the two removes it.
        lease: the key of one that cannot have ended by itself. It is gone only if some process has removed everything.
        """
        try:
            encoded = writes if self.codec is None else self._encoded(writes)
        except (TypeError, ValueError):  # what no HTTP message can carry: the page's fault, not the store's
            self.counts["not-stored"] += len(writes)
            encoded = []
        stays = bool(encoded)
        settled = guard is None and not drops
        try:
            if encoded or drops:
                marks: tuple[str, ...] = ()
                if encoded and guard is not None:
                    marks = (guard[0],) if lease is None else (guard[0], lease)
                failed, found = yield "commit_records", (encoded, marks, drops)
                if failed:
                    self.counts["not-stored"] += len(failed)
                if guard is not None and marks and self._was_purged(guard, marks, found):
                    yield "drop_records", (_keys_of(encoded),)
                    stays = False
            settled = True
        finally:
            if not settled:
                self._doubt([*(_keys_of(encoded) if stays else ()), *drops])
        return stays or not writes

    def _was_purged(self, guard: Guard, marks: Sequence[str], found: Sequence[Any]) -> bool:
        _, token, began = guard
        if began <= self.cleared or self._token_of(marks[0], found[0]) != token:
            return True
        return any(not self._is_own(lease, payload) for lease, payload in zip(marks[1:], found[1:], strict=True))

    def _is_own(self, key: str, payload: Any) -> bool:
        """Is what stands at the key a lease of this process? Nothing else has its token in it: no need to decode it."""
        own = self._own
        return own.encode() in payload if type(payload) is bytes else self._token_of(key, payload) == own

    @property
    def _own(self) -> str:
        """The token of the leases of this process, maybe a fork of the one that made this. It is in no other's."""
        return f"{self._name}.{os.getpid()}."

    def _tokens(self, marks: Sequence[str]) -> Procedure[list[str]]:
        """The tokens of the last purges that left these marks, "" where there was none."""
        return list(map(self._token_of, marks, (yield "read_latest", (marks,))))

    def _token_of(self, key: str, payload: Any) -> str:
        """The token in what stands at the key of a mark."""
        mark = payload if payload is None or self._decode is None else self._decode(key, payload)
        return mark.token if type(mark) is Mark else ""

    def take_lease(
        self, key: str, timeout: float, wants: Sequence[str] = ()
    ) -> Procedure[tuple[bool | None, Sequence[Record | None]]]:
        """Become the one who fetches this page, for all processes; False if somebody else is, None if nobody may be.

        And the records of `wants`, which whoever had the lease may have stored since they were looked up.
        """
        settled = False
        (lease,) = self._encoded([(key, Mark(key, self._own), timeout)])
        try:
            taken, (holder, *payloads) = yield "add_and_read", (*lease, (key, *wants))
            held: bool | None = taken
            if not taken and holder is None:
                held = None  # the store has refused it, or its holder is done: there is nobody to wait for
            elif not taken and self._decoded((key,), (holder,)) == [None]:
                yield "write_records", ((lease,),)  # garbage holds no lease
                held = True
            settled = True
        finally:
            if not settled:  # it may be taken, by nobody: others would wait for its end
                self._doubt((key,))
        return held, self._decoded(wants, payloads)

    def drop_lease(self, key: str) -> Procedure[None]:
        """Let the next one fetch."""
        settled = False
        try:
            yield "drop_records", ((key,),)
            settled = True
        finally:
            if not settled:
                self._doubt((key,))

    def probe(self) -> Procedure[None]:
        """Write something small. Raises: BackendUnavailable if it was not stored."""
        yield from self._written(self._encoded([(PROBE, HitForMiss(PROBE), 1.0)]))

    # -- removing ---------------------------------------------------------------------------------------------------

    def removal(self, kind: Kind, of: Sequence[str], at: float) -> Procedure[int]:
        """Purge, or make stale, what began before `at`; how many records or tags were touched."""
        match kind:
            case "purge":
                return self._purge(of)
            case "soften":
                return self._soften(of, at)
            case "everything":
                return self._clear()
            case _:
                return self._purge_tags(of, at, soft=kind == "soften tag")

    def _purge(self, resources: Sequence[str]) -> Procedure[int]:
        """The marks go first: whoever writes after them sees them, and whoever wrote before is removed after them."""
        _, removed = yield from self._mark(resources)
        gone: int = yield "drop_records", ([key for of in resources for key in _keys(of)],)
        return removed + gone

    def _mark(self, resources: Sequence[str]) -> Procedure[tuple[str, int]]:
        """Leave new marks; their token, and how many records had to go to make room for them."""
        token = secrets.token_hex(8)
        marks = self._encoded([(key, Mark(key, token), MARK_TIMEOUT) for key in map(mark_key, resources)])
        removed = 0
        if (yield "write_records", (marks,)):
            removed = yield "drop_records", ([key for of in resources for key in _keys(of)],)
            yield from self._written(marks)
        return token, removed

    def _soften(self, resources: Sequence[str], at: float) -> Procedure[int]:
        """Write every response again as one that was stale at this time, to be validated or served meanwhile.

        One that is under way is not stored at all: its application may have seen what was before the purge.
        """
        token, _ = yield from self._mark(resources)
        keys = [key for of in resources for key in _keys(of)]
        stale: list[Write] = []
        for record in self._decoded(keys, (yield "read_latest", (keys,))):
            if type(record) is VaryIndex:
                stale.append((record.key, record._replace(stale_before=at), INDEX_TIMEOUT))
            elif type(record) is StoredResponse:
                stale.append((record.key, record.aged(at), SOFT_TIMEOUT))
        if stale:
            yield "write_records", (self._encoded(stale),)
            tokens = yield from self._tokens([mark_key(of) for of in resources])
            purged = [of for of, found in zip(resources, tokens, strict=True) if found != token]
            if purged:  # by somebody else meanwhile: what was read here must not come back
                yield "drop_records", ([key for of in purged for key in _keys(of)],)
        return len(stale)

    def _purge_tags(self, marks: Sequence[str], at: float, *, soft: bool) -> Procedure[int]:
        """Note under each tag's mark that everything that began before `at` is gone, or stale.

        Of two that do this at the same moment the earlier may win: `Engine.skew` covers so little.
        """
        found = self._decoded(marks, (yield "read_latest", (marks,)))
        writes: list[Write] = []
        for key, before in zip(marks, found, strict=True):
            old = before if type(before) is Mark else Mark(key, "")
            new = replace(old, soft=max(at, old.soft)) if soft else replace(old, hard=max(at, old.hard))
            writes.append((key, new, TAG_TIMEOUT))
        yield from self._written(self._encoded(writes))
        return len(writes)

    @staticmethod
    def _written(records: Sequence[tuple[str, Any, float | None]]) -> Procedure[None]:
        """Write records without which a purge is none. Raises: BackendUnavailable if one was not stored."""
        if failed := (yield "write_records", (records,)):
            raise BackendUnavailable(f"{len(failed)} records that tell of a purge were not stored")

    def _clear(self) -> Procedure[int]:
        self.clearing()
        yield "clear_records", ()
        return 0


def _keys_of(records: Sequence[tuple[str, Any, float | None]]) -> list[str]:
    return [key for key, _, _ in records]


def _keys(of: str) -> tuple[str, str]:
    """The keys at which the responses of a resource begin; with them go all variants."""
    return primary_key(of), head_key(of)
