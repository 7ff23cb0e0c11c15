"""Pages: the one place between the middlewares and a store, and the one place where a failing store becomes a miss.

Rule 1: nothing here raises because of the store. What cannot be read is not there; what cannot be written is not kept.
Rule 2: a store that fails is left alone: after a few failures, or one that took long, the breaker opens, and requests
        pass it by; one a second asks whether it is back.
Rule 3: whoever writes looks again at the mark of the URL afterwards, and takes back what a purge should have removed.
"""

from __future__ import annotations

import logging
import secrets
import threading
import time
from collections import Counter
from collections.abc import Generator, Sequence
from dataclasses import replace
from typing import Any, TypeVar

from cachemw.backends.base import BaseCache
from cachemw.codec import Codec
from cachemw.rfc9111.keys import head_key, primary_key
from cachemw.rfc9111.messages import HitForMiss, Mark, Record, StoredResponse, VaryIndex

__all__ = ["Breaker", "Pages"]

log = logging.getLogger("cachemw")

T = TypeVar("T")
Default = TypeVar("Default")

MARK_TIMEOUT = 3_600.0  # seconds; longer than any request takes: only those under way have to see a URL's mark
OWED = 100_000  # purges remembered while the store is down
TAG_TIMEOUT = 366 * 86_400.0  # seconds; longer than any response is kept
INDEX_TIMEOUT = 86_400.0  # seconds a `VaryIndex` stays, at least: it is small, and with it go all its variants
SOFT_TIMEOUT = 86_400.0  # seconds that a softly purged response waits for its validation

#: (key, record, seconds it is to be kept, None for ever)
Write = tuple[str, Record, float | None]

#: What a procedure does to the store: it yields the name of an operation and its arguments, and is sent the result.
Procedure = Generator[tuple[str, tuple[Any, ...]], Any, T]

_FAILURES = 5  # in a row; then the breaker opens
_SLOW = 0.05  # seconds; a failure that took longer (a time-out) opens it at once
_PROBE = 1.0  # seconds between two attempts while it is open
_WINDOW = 60.0  # seconds; one log record per store and window


class Breaker:
    """Lets requests pass a store by while it is down, so that an outage costs a visitor nothing."""

    def __init__(self, name: str) -> None:
        self.name = name
        self.open = False
        self.failures = 0
        self._next_probe = 0.0
        self._next_log = 0.0
        self._unlogged = 0
        self._lock = threading.Lock()

    def admits(self) -> bool:
        """May the store be asked? While the breaker is open: once a second, by one request."""
        if not self.open:
            return True
        now = time.monotonic()
        with self._lock:
            if now < self._next_probe:
                return False
            self._next_probe = now + _PROBE
            return True

    def succeeded(self) -> None:
        """The store answered."""
        if self.failures or self.open:
            with self._lock:
                was_open, self.open, self.failures = self.open, False, 0
            if was_open:
                log.warning("cache %s answers again", self.name)

    def failed(self, error: BaseException, began: float) -> None:
        """The store did not answer, or refused; `began` is when it was asked (`time.monotonic`)."""
        now = time.monotonic()
        with self._lock:
            self.failures += 1
            self._unlogged += 1
            if self.failures >= _FAILURES or now - began > _SLOW:
                self.open = True
                self._next_probe = now + _PROBE
            if now < self._next_log:
                return
            self._next_log = now + _WINDOW
            count, self._unlogged = self._unlogged, 0
        log.warning(
            "cache %s failed, %d time(s) since the last report; pages are served without it: %r",
            self.name,
            count,
            error,
        )


class Pages:
    """The records of one store, for the middlewares.

    Synchronous and asynchronous twins do the same. `counts` says how often what happened; `immediate` that the store
    answers without waiting, so that a task may use the synchronous half.
    """

    def __init__(self, cache: BaseCache, *, codec: Codec | None = None) -> None:
        self.cache = cache
        self.codec = None if cache.by_reference else codec or Codec()
        self.shared = cache.shared
        self.immediate = cache.by_reference and not cache.shared
        self.breaker = Breaker(f"{type(cache).__name__}({cache.location!r})")
        self.counts: Counter[str] = Counter()
        self._owed: dict[str, None] = {}  # resources whose purge did not reach the store

    # -- look-up: the path of a hit, so twice by hand ---------------------------------------------------------------

    def lookup(self, keys: Sequence[str]) -> Sequence[Record | None]:
        """The record of each key, None where there is none."""
        breaker = self.breaker
        if self._owed:
            self.run_purge(())
        if self._owed or (breaker.open and not breaker.admits()):
            return [None] * len(keys)
        began = time.monotonic()
        try:
            payloads = self.cache.read_records(keys)
        except Exception as error:  # whatever a store raises is a miss
            self._failed(error, began)
            return [None] * len(keys)
        if breaker.failures:
            breaker.succeeded()
        return payloads if self.codec is None else self._decoded(self.codec, keys, payloads)

    async def alookup(self, keys: Sequence[str]) -> Sequence[Record | None]:
        """The record of each key, None where there is none."""
        breaker = self.breaker
        if self._owed:
            await self.arun_purge(())
        if self._owed or (breaker.open and not breaker.admits()):
            return [None] * len(keys)
        began = time.monotonic()
        try:
            payloads = await self.cache.aread_records(keys)
        except Exception as error:
            self._failed(error, began)
            return [None] * len(keys)
        if breaker.failures:
            breaker.succeeded()
        return payloads if self.codec is None else self._decoded(self.codec, keys, payloads)

    @staticmethod
    def _decoded(codec: Codec, keys: Sequence[str], payloads: Sequence[Any]) -> list[Record | None]:
        decode = codec.decode
        return [None if payload is None else decode(key, payload) for key, payload in zip(keys, payloads, strict=True)]

    def _failed(self, error: Exception, began: float) -> None:
        self.counts["store-error"] += 1
        self.breaker.failed(error, began)

    # -- everything else: written once, run by either driver --------------------------------------------------------

    def run(self, procedure: Procedure[T], otherwise: Default) -> T | Default:
        """Carry out a procedure; `otherwise` if the store is passed by, or fails on the way."""
        if not self.breaker.admits():
            return otherwise
        began = time.monotonic()
        try:
            name, arguments = next(procedure)
            while True:
                result = getattr(self.cache, name)(*arguments)
                name, arguments = procedure.send(result)
        except StopIteration as end:
            self.breaker.succeeded()
            return end.value  # type: ignore[no-any-return]
        except Exception as error:
            self._failed(error, began)
            return otherwise

    async def arun(self, procedure: Procedure[T], otherwise: Default) -> T | Default:
        """Carry out a procedure; `otherwise` if the store is passed by, or fails on the way."""
        if not self.breaker.admits():
            return otherwise
        began = time.monotonic()
        try:
            name, arguments = next(procedure)
            while True:
                result = await getattr(self.cache, f"a{name}")(*arguments)
                name, arguments = procedure.send(result)
        except StopIteration as end:
            self.breaker.succeeded()
            return end.value  # type: ignore[no-any-return]
        except Exception as error:
            self._failed(error, began)
            return otherwise

    def _encoded(self, key: str, record: Record, timeout: float | None) -> tuple[str, Any, float | None]:
        return key, record if self.codec is None else self.codec.encode(record), timeout

    def commit(
        self, writes: Sequence[Write], drops: Sequence[str] = (), guard: tuple[str, str] | None = None
    ) -> Procedure[bool]:
        """Write and drop records; False if a purge that came meanwhile has taken the writes back.

        guard: the key of the URL's mark and its token when the request began. A purge writes the mark and then
        removes the record; this writes the record and then reads the mark: in every order one of the two removes it.
        """
        if writes:
            failed = yield "write_records", ([self._encoded(*write) for write in writes] if self.codec else writes,)
            if failed:
                self.counts["not-stored"] += len(failed)
        if drops:
            yield "drop_records", (drops,)
        if writes and guard is not None:
            key, token = guard
            (payload,) = yield "read_latest", ((key,),)
            mark = self._decoded(self.codec, (key,), (payload,))[0] if self.codec else payload
            if (mark.token if type(mark) is Mark else "") != token:
                yield "drop_records", ([written for written, _, _ in writes],)
                return False
        return True

    def purge(self, resources: Sequence[str]) -> Procedure[int]:
        """Remove every response of these resources, also those that are still under way; how many records went.

        The marks go first: whoever writes after them sees them, and whoever wrote before them is removed after them.
        """
        token = secrets.token_hex(8)
        marks = [(f"{of}\0M", Mark(f"{of}\0M", token), MARK_TIMEOUT) for of in resources]
        yield "write_records", ([self._encoded(*mark) for mark in marks],)
        removed: int = yield "drop_records", ([key for of in resources for key in (primary_key(of), head_key(of))],)
        return removed

    def run_purge(self, resources: Sequence[str]) -> int:
        """Purge; what does not reach the store is owed to it, and until it is paid the store is not read."""
        owed = self._owe(resources)
        removed = self.run(self.purge(owed), None)
        return self._paid(owed, removed)

    async def arun_purge(self, resources: Sequence[str]) -> int:
        """Purge; what does not reach the store is owed to it, and until it is paid the store is not read."""
        owed = self._owe(resources)
        removed = await self.arun(self.purge(owed), None)
        return self._paid(owed, removed)

    def _owe(self, resources: Sequence[str]) -> Sequence[str]:
        return [*self._owed, *resources] if self._owed else resources

    def _paid(self, owed: Sequence[str], removed: int | None) -> int:
        if removed is None:
            for of in owed[:OWED]:
                self._owed[of] = None
            return 0
        for of in owed:
            self._owed.pop(of, None)
        return removed

    def soften(self, resources: Sequence[str], now: float) -> Procedure[int]:
        """Make every response of these resources stale, to be validated or served while a new one is fetched.

        One that is under way is not stored at all: its application may have seen what was before the purge.
        """
        token = secrets.token_hex(8)
        marks = [(f"{of}\0M", Mark(f"{of}\0M", token), MARK_TIMEOUT) for of in resources]
        yield "write_records", ([self._encoded(*mark) for mark in marks],)
        keys = [key for of in resources for key in (primary_key(of), head_key(of))]
        payloads = yield "read_latest", (keys,)
        stale: list[Write] = []
        for record in payloads if self.codec is None else self._decoded(self.codec, keys, payloads):
            if type(record) is VaryIndex:
                stale.append((record.key, replace(record, stale_before=now), INDEX_TIMEOUT))
            elif type(record) is StoredResponse:
                stale.append((record.key, record.aged(now), SOFT_TIMEOUT))
        if stale:
            yield "write_records", ([self._encoded(*write) for write in stale],)
        return len(stale)

    def purge_tags(self, marks: Sequence[str], at: float, *, soft: bool) -> Procedure[int]:
        """Note under each tag's mark that everything that began before `at` is gone, or stale; how many tags."""
        payloads = yield "read_latest", (marks,)
        found = payloads if self.codec is None else self._decoded(self.codec, marks, payloads)
        writes: list[Write] = []
        for key, before in zip(marks, found, strict=True):
            old = before if type(before) is Mark else Mark(key, "")
            new = replace(old, soft=max(at, old.soft)) if soft else replace(old, hard=max(at, old.hard))
            writes.append((key, new, TAG_TIMEOUT))
        yield "write_records", ([self._encoded(*write) for write in writes],)
        return len(writes)

    def take_lease(self, key: str, timeout: float) -> Procedure[bool]:
        """Become the one who fetches this page, for all processes; False if somebody else is."""
        taken: bool = yield "add_record", (*self._encoded(key, HitForMiss(key), timeout),)
        return taken

    def drop_lease(self, key: str) -> Procedure[None]:
        """Let the next one fetch."""
        yield "drop_records", ((key,),)
