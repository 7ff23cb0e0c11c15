"""Pages: the one place between the middlewares and a store, and the one place where a failing store becomes a miss.

Rule 1: nothing here raises because of the store. What cannot be read is not there; what cannot be written is not kept.
Rule 2: a store that fails is left alone: after a few failures, or one that took long, the breaker opens, and requests
        pass it by; once a second a thread asks whether it is back. A store that only refuses writes is still read.
Rule 3: whoever writes looks again at the mark of the URL afterwards, and takes back what a purge should have removed.
Rule 4: a purge that does not reach the store is owed to it, and until that is paid this process does not read it.
        What was written, perhaps, and could not be looked at again (rule 3) is removed as soon as the store answers.
"""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Sequence
from itertools import islice
from typing import Final, TypeVar

from cachemw._engine_common import Common
from cachemw._pages_procedures import Kind, Procedure, Procedures
from cachemw._pages_recovery import Breaker, Recovery
from cachemw._values import shown
from cachemw.backends._failopen import Reports
from cachemw.backends.base import BaseCache, InlineCache
from cachemw.codec import REFUSALS, Codec, Refusal
from cachemw.errors import InvalidCacheKey, SerializationError
from cachemw.rfc9111.keys import lease_key, mark_key
from cachemw.rfc9111.messages import UNREAD, Mark, Record

__all__ = ["Breaker", "Kind", "Pages", "Procedure"]

T = TypeVar("T")
Default = TypeVar("Default")

OWED: Final = 100_000  # removals, and doubts, remembered while the store is down; were there more, all of it goes
BATCH: Final = 200  # URLs or tags removed at a time: an operation has a deadline
_LEASE: Final = lease_key("")
_MARK: Final = mark_key("")
_EVERYTHING: Final[tuple[Kind, str]] = ("everything", "")


class Pages(Procedures):
    """The records of one store, for the middlewares.

    Synchronous and asynchronous twins do the same. `counts` says how often what happened; `immediate` that the store
    answers without waiting, so that a task may use the synchronous half; `inline` that a thread never waits for it.
    """

    def __init__(self, cache: BaseCache) -> None:
        super().__init__(None if cache.by_reference else _codec_of(cache), apart=cache.bodies_apart)
        self.cache = cache
        self.shared = cache.shared
        self.immediate = cache.by_reference and not cache.shared
        self.inline = isinstance(cache, InlineCache)
        self.breaker = Breaker(f"reading pages from {cache!r}")
        self.write_breaker = Breaker(f"writing pages to {cache!r}")
        self.recovery = Recovery(self._recover)
        self.common = Common()  # to all engines of the store
        self.purges = 0  # begun by this process, whether the store heard of them or not
        self._removals = 0  # by this process
        self._owed: dict[tuple[Kind, str], tuple[object, float]] = {}  # -> (which time it was owed, since when)
        self._doubtful: dict[str, object] = {}  # keys whose records may be there, and may be older than a purge

    @property
    def failures(self) -> Counter[str]:
        """How often a page was not read or not stored, by reason: `counts`, and what the codec has refused."""
        refused = {} if self.codec is None else dict(self.codec.refused)  # copies: others go on counting
        return Counter(dict(self.counts)) + Counter[str](refused)

    # -- look-up: the path of a hit, so twice by hand ---------------------------------------------------------------

    def lookup(self, keys: Sequence[str]) -> Sequence[Record | None]:
        """The record of each key, None where there is none."""
        breaker = self.breaker
        if breaker.open or self._owed:
            self.recovery.wanted(may_block=True)
            if breaker.open or self._owed:
                return self._unread(keys)
        began = time.monotonic()
        try:
            found: Sequence[Record | None]
            cache, decode = self.cache, self._decode
            if decode is None:
                found = cache.read_records(keys)
            else:
                found = cache.known(keys, decode) or cache.read_decoded(keys, decode)
        except Exception as error:  # whatever a store raises is a miss
            self._failed(breaker, error, began, keys)
            return self._unread(keys)
        if breaker.failures:
            breaker.succeeded()
        return found

    async def alookup(self, keys: Sequence[str]) -> Sequence[Record | None]:
        """The record of each key, None where there is none."""
        breaker = self.breaker
        if breaker.open or self._owed:
            self.recovery.wanted()
            return self._unread(keys)
        began = time.monotonic()
        try:
            found: Sequence[Record | None]
            cache, decode = self.cache, self._decode
            if decode is None:
                found = await cache.aread_records(keys)
            else:
                found = await cache.aread_decoded(keys, decode)
        except Exception as error:
            self._failed(breaker, error, began, keys)
            return self._unread(keys)
        if breaker.failures:
            breaker.succeeded()
        return found

    def at_once(self, keys: Sequence[str]) -> Sequence[Record | None] | None:
        """What `lookup` gives, where nothing has to be waited for; None where that is not known."""
        if self.immediate:
            return self.lookup(keys)
        decode = self._decode
        if decode is None or self.breaker.open or self._owed:
            return None
        try:
            return self.cache.known(keys, decode)
        except Exception:  # `alookup` asks the store, and counts what that raises
            return None

    def _unread(self, keys: Sequence[str]) -> list[Record | None]:
        """What is said of keys that could not be looked up: nothing is there, and nobody knows which purge came last.

        The token sees to it that who asks after a purge by this process does not wait for an answer begun before it,
        and that what is made meanwhile is not stored: it may be older than a purge by another process.
        """
        token = f"{UNREAD}{self._removals}"
        return [Mark(key, token) if key.endswith(_MARK) else None for key in keys]

    def _failed(self, breaker: Breaker, error: Exception, began: float, asked: Sequence[str] = ()) -> None:
        self.counts["store-error"] += 1
        if not isinstance(error, InvalidCacheKey):  # which is a visitor's doing, and must not cost the others
            breaker.failed(error, began, asked)

    def lease(self, key: str, timeout: float, wants: Sequence[str]) -> tuple[bool | None, Sequence[Record | None]]:
        """Take this lease and then look `wants` up, in one round trip where the store can; is it ours, and the records.

        None if the store fails: nobody knows, and nobody is to wait for nobody.
        """
        read = () if self.breaker.open or self._owed else wants
        taken, found = self.run(self.take_lease(key, timeout, read), (None, ()))
        return taken, found or self.lookup(wants)

    async def alease(
        self, key: str, timeout: float, wants: Sequence[str]
    ) -> tuple[bool | None, Sequence[Record | None]]:
        """See `lease`."""
        read = () if self.breaker.open or self._owed else wants
        taken, found = await self.arun(self.take_lease(key, timeout, read), (None, ()))
        return taken, found or await self.alookup(wants)

    # -- everything else: written once, run by either driver --------------------------------------------------------

    def run(self, procedure: Procedure[T], otherwise: Default, drops: Sequence[str] = ()) -> T | Default:
        """Carry out a procedure; `otherwise` if the store is passed by, or fails on the way.

        drops: what the procedure removes; should it not be begun, that is done as soon as the store is back.
        """
        if self.breaker.open or self.write_breaker.open:
            self._doubt(drops)
            return otherwise
        began = time.monotonic()
        try:
            name, arguments = next(procedure)
            while True:
                began = time.monotonic()
                result = getattr(self.cache, name)(*arguments)
                name, arguments = procedure.send(result)
        except StopIteration as end:
            if self.write_breaker.failures:
                self.write_breaker.succeeded()
            answer: T = end.value
            return answer
        except Exception as error:
            self._failed(self.write_breaker, error, began)
            return otherwise
        finally:
            procedure.close()

    async def arun(self, procedure: Procedure[T], otherwise: Default, drops: Sequence[str] = ()) -> T | Default:
        """See `run`."""
        if self.breaker.open or self.write_breaker.open:
            self._doubt(drops)
            return otherwise
        began = time.monotonic()
        try:
            name, arguments = next(procedure)
            while True:
                began = time.monotonic()
                result = await getattr(self.cache, f"a{name}")(*arguments)
                name, arguments = procedure.send(result)
        except StopIteration as end:
            if self.write_breaker.failures:
                self.write_breaker.succeeded()
            answer: T = end.value
            return answer
        except Exception as error:
            self._failed(self.write_breaker, error, began)
            return otherwise
        finally:
            procedure.close()

    # -- purging ----------------------------------------------------------------------------------------------------

    def remove(self, kind: Kind, of: Sequence[str], at: float = 0.0) -> int:
        """Purge resources or marks of tags, or make their responses stale at this time; how many were touched."""
        self.purges += 1
        total = 0
        for start in range(0, len(of), BATCH):
            done = None
            try:
                done = self.run(self.removal(kind, of[start : start + BATCH], at), None)
            finally:
                self._removals += 1
                if done is None:
                    self._owe(kind, of[start:], at)
            if done is None:
                break
            total += done
        return total

    async def aremove(self, kind: Kind, of: Sequence[str], at: float = 0.0) -> int:
        """See `remove`."""
        self.purges += 1
        total = 0
        for start in range(0, len(of), BATCH):
            done = None
            try:
                done = await self.arun(self.removal(kind, of[start : start + BATCH], at), None)
            finally:
                self._removals += 1
                if done is None:
                    self._owe(kind, of[start:], at)
            if done is None:
                break
            total += done
        return total

    def clearing(self) -> None:
        """The store is about to lose everything: nothing that has begun before is to be stored after it.

        Beforehand: what was written by then goes with the rest, and what is written later is compared with this.
        """
        self.purges += 1
        self.cleared = self.common.stamp(time.time())

    def run_purge(self, resources: Sequence[str]) -> int:
        """Remove every response of these resources, also those under way; how many records went."""
        return self.remove("purge", resources)

    async def arun_purge(self, resources: Sequence[str]) -> int:
        """See `run_purge`."""
        return await self.aremove("purge", resources)

    @property
    def owes(self) -> bool:
        """Was something to be removed that the store has not heard of yet?"""
        return bool(self._owed)

    # -- after a failure ----------------------------------------------------------------------------------------------

    def _owe(self, kind: Kind, of: Sequence[str], at: float) -> None:
        """The store is not read until it has been told."""
        if len(self._owed) + len(of) > OWED:
            self._owed[_EVERYTHING] = (object(), at)
        else:
            self._owed.update({(kind, one): (object(), at) for one in of})
        self.recovery.wanted()

    def _doubt(self, keys: Sequence[str]) -> None:
        """Nobody knows whether these were written: to be removed, as nobody compared them with the marks."""
        if len(self._doubtful) + len(keys) > OWED:
            self._owed[_EVERYTHING] = (object(), 0.0)
        else:
            self._doubtful.update(dict.fromkeys(keys, object()))
        self.recovery.wanted()

    def _recover(self) -> bool:
        """Ask the store whether it is back, and tell it what it is owed; True if something is left to be told.

        In a thread of its own, with the synchronous half.
        """
        breaker, began = self.breaker, time.monotonic()
        try:
            if breaker.open:
                self.cache.read_latest(breaker.asked)  # of the store itself: a local tier would always answer
                breaker.succeeded()
            breaker, began = self.write_breaker, time.monotonic()
            self._pay()
            if breaker.open:
                self._do(self.probe())
                breaker.succeeded()
        except Exception as error:
            self._failed(breaker, error, began, breaker.asked)
        return bool(self._owed or self._doubtful)

    def _pay(self) -> None:
        while owed := self._owed.copy():
            kind = "everything" if _EVERYTHING in owed else next(iter(owed))[0]
            if kind != "everything":
                owed = dict(islice(((due, since) for due, since in owed.items() if due[0] == kind), BATCH))
            at = max(at for _, at in owed.values())
            if kind in ("purge tag", "soften tag"):
                # as of now: a mark of long ago could take the place of one that another process leaves at this moment
                at = max(at, time.time())
            self._do(self.removal(kind, [of for _, of in owed], at))
            for due, since in owed.items():
                if self._owed.get(due) == since:  # else it was purged once more meanwhile
                    self._owed.pop(due, None)
        while doubtful := dict(islice(self._doubtful.copy().items(), BATCH)):
            self.cache.drop_records(self._without_others(list(doubtful)))
            for key, doubt in doubtful.items():
                if self._doubtful.get(key) is doubt:  # else it was written once more meanwhile
                    self._doubtful.pop(key, None)

    def _without_others(self, keys: Sequence[str]) -> list[str]:
        """The keys but for those of leases that another process has by now."""
        leases = [key for key in keys if key.endswith(_LEASE)]
        found = map(self._token_of, leases, self.cache.read_latest(leases) if leases else ())
        others = {key for key, token in zip(leases, found, strict=True) if token not in ("", self._own)}
        return [key for key in keys if key not in others]

    def _do(self, procedure: Procedure[object]) -> None:
        """Carry out a procedure, whatever the breakers say. Raises: what the store raises."""
        try:
            name, arguments = next(procedure)
            while True:
                name, arguments = procedure.send(getattr(self.cache, name)(*arguments))
        except StopIteration:
            return
        finally:
            procedure.close()


def _codec_of(cache: BaseCache) -> Codec:
    """What turns the records of this store into bytes; the log hears of those that cannot be read."""
    reports = Reports(cache, "A page of %r counts as missing, it cannot be read: %s")

    def report(key: str, why: Refusal) -> None:
        reports.report(SerializationError(f"{shown(key)}: {REFUSALS[why]}"))

    return Codec(cache.secrets, compression=cache.compression, report=report)
