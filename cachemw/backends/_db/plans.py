"""Plans: what each operation of the database cache does, step by step; threads and event loops carry the steps out.

Rule 1: each operation is one statement, which is atomic (`_db.schema`); what takes several steps is written once, as a
generator that yields calls and is sent their outcomes, or thrown their errors.
Rule 2: the bound is looked at after a part of it was written, never with every write; the expired rows go first, then
those that expire first.
"""

from __future__ import annotations

import time
from collections.abc import Awaitable, Callable, Generator, Sequence
from operator import itemgetter
from typing import Any, Final, TypeVar

from cachemw.backends._db.calls import Call, MissingTable, Outcome, ValueTooLarge
from cachemw.backends._db.keys import ColumnKey
from cachemw.backends._db.schema import KEYS_AT_ONCE, Statements
from cachemw.backends._store import Entry
from cachemw.errors import BackendUnavailable

__all__ = ["MAX_DELTA", "Plan", "Plans", "adrive", "drive"]

T = TypeVar("T")
#: Steps of an operation; returns the answer.
Plan = Generator[Call, Outcome, T]

#: The rows are counted after this part of MAX_ENTRIES was written, but at least once in so many writes.
_PART: Final = 64
_MAX_PART: Final = 1000
#: Rows to remove in one statement, and in one go, and seconds after which it is enough: a cull must not hold up the
#: write that comes upon it, nor, in SQLite with its one writer, those of others until they give up.
_CULL_STEP: Final = 1000
_SMALL_STEP: Final = 200
_CULL_LIMIT: Final = 5000
_CULL_TIME: Final = 0.05
_INT64: Final = range(-(2**63), 2**63)
#: The largest number whose halves have 64 bits.
MAX_DELTA: Final = 2**64 - 2


class Plans:
    """The operations on one table. max_entries, frequency: the bound, and Django's CULL_FREQUENCY."""

    def __init__(self, statements: Statements, *, max_entries: int, frequency: int) -> None:
        self._counts_by_last_id = statements.counts_by_last_id
        self._column_key = statements.column_key
        self._column_keys = statements.column_keys
        self._step = _SMALL_STEP if statements.kind == "sqlite" else _CULL_STEP
        self.max_entries = max_entries
        self._frequency = frequency
        #: Rows that may be written until they are counted again; threads that race here only count once more.
        self._room = 0

    def get(self, keys: Sequence[str], *, latest: bool = False) -> Plan[dict[str, Any]]:
        """What is stored of the keys. latest: no replica is asked."""
        found: dict[str, Any] = {}
        if len(keys) == 1:
            [key] = keys
            asked = {"key": self._column_key(key), "now": time.time()}
            for number, value in (yield Call("get_row", asked, reads=not latest)).rows:
                found[key] = value if number is None else number
            return found
        for part in _parts(keys):
            by_column = dict(zip(self._column_keys(part), part, strict=True))
            outcome = yield Call("get", {"keys": list(by_column), "now": time.time()}, reads=not latest)
            for column, number, value, *_ in outcome.rows:
                found[by_column[column]] = value if number is None else number
        return found

    def peek(self, key: str, *, latest: bool = False) -> Plan[Sequence[Any] | None]:
        """(number, expiry) of a live row. latest: no replica is asked."""
        outcome = yield Call("peek", {"key": self._column_key(key), "now": time.time()}, reads=not latest)
        return outcome.rows[0] if outcome.rows else None

    def set(self, entries: Sequence[Entry]) -> Plan[list[str]]:
        now = time.time()
        # in order of keys, so that two writers of the same rows do not wait for one another
        rows = [self._row_of(entry, now) for entry in sorted(entries, key=itemgetter(0))]
        if not self.take_room(len(rows)):
            yield from self.look_for_room([row["key"] for row in rows])
        try:
            yield Call("set", rows[0] if len(rows) == 1 else rows)
        except ValueTooLarge:
            if len(entries) == 1:
                yield from self.delete([entries[0][0]])
                return [entries[0][0]]
            failed = []
            for entry in entries:
                failed += yield from self.set([entry])
            return failed
        return []

    def _row_of(self, entry: Entry, now: float) -> dict[str, Any]:
        """The parameters of `set` for an entry."""
        key, value, timeout = entry
        number, data = (value, None) if type(value) is int else (None, value)
        expires = None if timeout is None else now + timeout
        return {"key": self._column_key(key), "expires": expires, "number": number, "value": data}

    def add(self, entry: Entry) -> Plan[bool]:
        now = time.time()
        row = self._row_of(entry, now)
        if not self.take_room(1):
            yield from self.look_for_room([row["key"]])
        try:
            outcome = yield Call("add", {**row, "now": now})
        except ValueTooLarge:
            return False
        return outcome.last_id == 0 if self._counts_by_last_id else outcome.changed > 0

    def touch(self, key: str, timeout: float | None) -> Plan[bool]:
        now = time.time()
        until = None if timeout is None else now + timeout
        outcome = yield Call("touch", {"key": self._column_key(key), "now": now, "until": until})
        return outcome.changed > 0

    def delete(self, keys: Sequence[str]) -> Plan[int]:
        deleted = 0
        for part in _parts(keys):
            columns = self._column_keys(part)
            deleted += (yield Call("delete", {"keys": columns, "now": time.time()})).changed
        return deleted

    def incr(self, key: str, delta: int) -> Plan[int]:
        while True:  # again only if the row changed between two statements
            here = {"key": self._column_key(key), "now": time.time()}
            if abs(delta) <= MAX_DELTA:
                outcome = yield Call("incr", {**here, **Statements.addends(delta)})
                if outcome.rows:
                    return int(outcome.rows[0][0])
                if outcome.changed > 0 and self._counts_by_last_id:
                    return _signed(outcome.last_id)
            rows = (yield Call("peek", here)).rows
            if not rows:
                raise KeyError(key)
            if rows[0][0] is None:
                raise TypeError(f"the value of {key!r} is not an integer")
            if abs(delta) > MAX_DELTA or rows[0][0] + delta not in _INT64:
                raise OverflowError(f"{rows[0][0]} + {delta} has more than 64 bits")

    def clear(self) -> Plan[None]:
        yield Call("clear", {}, patient=True)

    def take_room(self, rows: int) -> bool:
        """Count so many rows as written; False if the table is to be looked at before they are."""
        self._room -= rows
        return self._room >= 0

    def look_for_room(self, keys: Sequence[ColumnKey]) -> Plan[None]:
        """Look at the table, and cull if rows of these keys would be too many.

        A cull that fails is left to a later write.
        """
        self._room = min(max(self.max_entries, 0) // _PART, _MAX_PART)
        try:
            yield Call("drop_expired", {"now": time.time(), "limit": _CULL_STEP})
            total, known = (yield Call("count", {"keys": keys[:KEYS_AT_ONCE]})).rows[0]
            new = len(keys) - known
            left = self.max_entries - total - new
            if left < 0:
                yield from self._cull(total, -left, new)
            self._room = min(self._room, max(left, 0))
        except MissingTable:
            raise
        except BackendUnavailable:
            return

    def _cull(self, total: int, excess: int, new: int) -> Plan[None]:
        if self._frequency == 0:
            yield from self.clear()
            return
        wanted = min(max(total // self._frequency, excess), max(_CULL_LIMIT, new))
        until = time.monotonic() + _CULL_TIME
        while True:
            limit = {"limit": min(wanted, self._step)}
            dropped = (yield Call("drop_first", limit)).changed or (yield Call("drop_any", limit)).changed
            wanted -= dropped
            new -= dropped
            if wanted <= 0 or dropped <= 0 or (new <= 0 and time.monotonic() >= until):
                return


def drive(plan: Plan[T], run: Callable[[Call], Outcome]) -> T:
    """Carry the steps of a plan out. Raises: what `run` does, unless the plan goes on all the same."""
    try:
        call = next(plan)
        while True:
            try:
                outcome = run(call)
            except BackendUnavailable as error:
                call = plan.throw(error)
            else:
                call = plan.send(outcome)
    except StopIteration as stop:
        answer: T = stop.value
        return answer


async def adrive(plan: Plan[T], run: Callable[[Call], Awaitable[Outcome]]) -> T:
    """The same on an event loop."""
    try:
        call = next(plan)
        while True:
            try:
                outcome = await run(call)
            except BackendUnavailable as error:
                call = plan.throw(error)
            else:
                call = plan.send(outcome)
    except StopIteration as stop:
        answer: T = stop.value
        return answer


def _parts(keys: Sequence[str]) -> list[Sequence[str]]:
    return [keys[start : start + KEYS_AT_ONCE] for start in range(0, len(keys), KEYS_AT_ONCE)]


def _signed(unsigned: int) -> int:
    """MySQL's LAST_INSERT_ID() of 64 bits, as the number that it was."""
    return unsigned - 2**64 if unsigned >= 2**63 else unsigned
