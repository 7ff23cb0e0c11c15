"""What SQLite is given: SQLAlchemy writes the SQL, once, and is not asked again.

Rule 1: a statement is written for few numbers of keys or rows, as that takes milliseconds: other numbers of keys are
filled up with NULL, which no row has, and other numbers of rows take several statements.
"""

from __future__ import annotations

import sqlite3
import time
from bisect import bisect_left
from collections.abc import Callable, Mapping, Sequence
from functools import cache, cached_property
from itertools import chain
from math import inf
from operator import itemgetter
from typing import Any, Final, NamedTuple

from sqlalchemy.dialects.sqlite.pysqlite import dialect as make_dialect

from cachemw.backends._db.keys import ColumnKey, text_key
from cachemw.backends._db.schema import KEYS_AT_ONCE, Statements
from cachemw.backends._store import Entry

__all__ = ["DIALECT", "SQL", "Connection", "NewRow", "Prepared", "filled_up", "row_of"]

DIALECT: Final = make_dialect(paramstyle="qmark")

#: Key, expires, due, number or value.
NewRow = tuple[ColumnKey, float | None, float | None, Any]

#: Numbers of keys that there are statements for.
_SIZES: Final = (*range(1, 17), 20, 25, 32, 40, 50, 64, 80, 100, 125, 160, 200, 250, 320, 400, KEYS_AT_ONCE)
#: Rows that are stored by one statement, the largest number first; each that is left takes one more.
_BATCHES: Final = (100, 10)
#: Bytes of values in one statement, which a connection keeps until the statement is used again.
_BATCH_SIZE: Final = 128 * 1024
#: Bytes up to which a value is copied into a bytearray: what is `bytes`, or None, sqlite3 looks for an adapter of each
#: time, which takes longer.
_SMALL: Final = 4096
#: Rows that have expired, or are put off, in one statement, and seconds after which it is enough: who comes upon it
#: must not be held up, nor another writer be kept waiting until it gives up.
_STEP: Final = 200
_ENOUGH: Final = 0.05


class Prepared(NamedTuple):
    """A statement, and what puts its parameters in their order."""

    sql: str
    arguments: Callable[[Mapping[str, Any]], tuple[Any, ...]]


def filled_up(keys: Sequence[ColumnKey]) -> Sequence[ColumnKey | None]:
    """As many keys, up to `KEYS_AT_ONCE`, as there is a statement for."""
    missing = _SIZES[bisect_left(_SIZES, len(keys))] - len(keys)
    return [*keys, *[None] * missing] if missing else keys


def row_of(entry: Entry, now: float) -> NewRow:
    """What is stored for an entry."""
    key, value, timeout = entry
    expires = None if timeout is None else now + timeout
    if type(value) is bytes and len(value) <= _SMALL:
        value = bytearray(value)
    return text_key(key), expires, expires, value


def _by_columns(row: NewRow) -> tuple[Any, ...]:
    """The same with a number and a value, one of them None."""
    *rest, stored = row
    return (*rest, stored, None) if type(stored) is int else (*rest, None, stored)


class Connection(sqlite3.Connection):
    """A connection that knows whether it was closed, and is when nobody has it any more."""

    is_closed = True

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        #: `execute`, without a new cursor each time: all rows have to be fetched.
        self.ask = self.cursor().execute
        self.is_closed = False

    def rows(self, sql: str, arguments: Sequence[Any]) -> list[Any]:
        """The rows that a statement gives."""
        return self.ask(sql, arguments).fetchall()

    def close(self) -> None:
        """Close it, and the cursor first: its statement would keep the file open, and the locks on it."""
        self.__dict__.pop("ask", None)
        super().close()
        self.is_closed = True

    def __del__(self) -> None:
        """Nobody forgets to close a cache that is dropped: from Python 3.13 on, that would be a ResourceWarning."""
        if not self.is_closed:
            self.close()


class SQL:
    """The statements on one table."""

    def __init__(self, statements: Statements) -> None:
        self._table = statements.table
        self.prepared = cache(self._prepare)

    def ddl(self) -> list[str]:
        """What makes the table."""
        return Statements(self._table, "sqlite").create(DIALECT)

    def _prepare(self, statement: str, how_many: int = 0) -> Prepared:
        """A statement of `Statements`, for so many keys or rows."""
        compiled = getattr(Statements(self._table, "sqlite", how_many=how_many), statement).compile(dialect=DIALECT)
        order = compiled.positiontup
        fixed = {name: value for name, value in compiled.params.items() if value is not None}  # LIMIT's offset

        def arguments(parameters: Mapping[str, Any]) -> tuple[Any, ...]:
            return tuple([parameters[name] if name in parameters else fixed[name] for name in order])

        simple = len(order) > 1 and not fixed
        return Prepared(str(compiled), itemgetter(*order) if simple else arguments)

    @cached_property
    def get_one(self) -> str:
        """See `Statements.get_one`."""
        return self.prepared("get_one").sql

    @cached_property
    def _set(self) -> str:
        return self.prepared("set").sql

    @cached_property
    def _set_again(self) -> str:
        return self.prepared("set_again", 1).sql

    @cached_property
    def _set_number_again(self) -> str:
        return self.prepared("set_number_again", 1).sql

    def store_one(self, connection: Connection, row: NewRow) -> None:
        """Store a row; in two statements where one that expires later, or never, is replaced."""
        sql = self._set_number_again if type(row[3]) is int else self._set_again
        if connection.ask(sql, row).rowcount <= 0:
            connection.ask(self._set, _by_columns(row))

    def store(self, connection: Connection, rows: Sequence[NewRow]) -> None:
        """Store several rows. The caller has begun a transaction."""
        numbers = [row for row in rows if type(row[3]) is int]
        values = [row for row in rows if type(row[3]) is not int] if numbers else rows
        stored = self._store_again(connection, "set_number_again", numbers)
        stored += self._store_again(connection, "set_again", values)
        if stored < len(rows):
            connection.executemany(self._set, [_by_columns(row) for row in rows])

    def _store_again(self, connection: Connection, statement: str, rows: Sequence[NewRow]) -> int:
        """Store rows by one of the statements that leave `due` alone; how many were."""
        stored = start = 0
        for size in _BATCHES:
            while len(rows) - start >= size:
                batch = rows[start : start + size]
                start += size
                if sum([len(row[3]) for row in batch if type(row[3]) is not int]) > _BATCH_SIZE:
                    stored += connection.executemany(self.prepared(statement, 1).sql, batch).rowcount
                else:
                    arguments = list(chain.from_iterable(batch))
                    stored += connection.execute(self.prepared(statement, size).sql, arguments).rowcount
        if start < len(rows):
            stored += connection.executemany(self.prepared(statement, 1).sql, rows[start:]).rowcount
        return stored

    def drop_expired(self, connection: Connection, now: float, limit: int) -> int:
        """Remove expired rows, and put off those that are due but live on; how many were removed."""
        dropped = 0
        until = time.monotonic() + _ENOUGH
        while True:
            gone = self._changed(connection, "drop_expired", now=now, limit=min(limit - dropped, _STEP))
            put_off = self._changed(connection, "put_off", until=now, limit=_STEP)
            dropped += gone
            if gone + put_off <= 0 or dropped >= limit or time.monotonic() >= until:
                return dropped

    def drop_first(self, connection: Connection, limit: int) -> int:
        """Remove rows that expire before all others; how many.

        Where very many are due earlier than they expire, others are removed in the end: it would take too long.
        """
        until = time.monotonic() + _ENOUGH
        while True:
            put_off = self._changed(connection, "put_off", until=inf, limit=_STEP)
            dropped = self._changed(connection, "drop_due", limit=limit)
            if dropped > 0 or put_off <= 0:
                return dropped
            if time.monotonic() >= until:
                return self._changed(connection, "drop_first", limit=limit)

    def _changed(self, connection: Connection, statement: str, **parameters: float) -> int:
        prepared = self.prepared(statement)
        return connection.execute(prepared.sql, prepared.arguments(parameters)).rowcount
