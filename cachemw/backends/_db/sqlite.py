"""SQLite, by its own driver, without the detours that a plan takes.

Rule 1: what a hit and a miss are made of is one statement, or one transaction, over one connection (`_db.connections`).
Rule 2: keys are text (`_db.keys`), the SQL is SQLAlchemy's (`_db.sql`).
"""

from __future__ import annotations

import os
import sqlite3
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from math import inf
from typing import Any, Final

from sqlalchemy import URL
from sqlalchemy.exc import ArgumentError

from cachemw._values import refuse, unknown
from cachemw.backends._db.calls import Call, MissingTable, Outcome, ValueTooLarge, shown_url
from cachemw.backends._db.connections import BusyError, Connections
from cachemw.backends._db.keys import ColumnKey
from cachemw.backends._db.pages import DecodedRows
from cachemw.backends._db.schema import Statements
from cachemw.backends._db.sql import DIALECT, SQL, Connection, NewRow, filled_up
from cachemw.backends._records import Decode
from cachemw.backends.base import offload
from cachemw.errors import BackendUnavailable, ImproperlyConfigured

__all__ = ["Row", "SQLiteStore"]

#: RETURNING
_OLDEST: Final = (3, 35, 0)
#: Keys up to which a statement has a part for each.
_FEW: Final = 16
#: What a URL may say of a file: the driver's, and with `uri=true` SQLite's own, which ignores all others.
#: Not the driver's `timeout`: here it would seem to be that of the entries.
_DRIVERS_OWN: Final = frozenset({"cached_statements", "check_same_thread", "detect_types", "isolation_level", "uri"})
_LIBRARYS_OWN: Final = frozenset({"cache", "immutable", "mode", "modeof", "nolock", "psow", "vfs"})

#: Key, number, value and expiry.
Row = tuple[ColumnKey, int | None, bytes | None, float | None]

#: Makes the keys in the table.
ColumnsOf = Callable[[Sequence[str]], Sequence[ColumnKey]]


class SQLiteStore:
    """The table in a file. timeout: seconds to wait for another process's write.

    Raises: ImproperlyConfigured if the library is too old, or the URL names no file or says what is not understood.
    """

    def __init__(self, url: URL, statements: Statements, *, timeout: float) -> None:
        if sqlite3.sqlite_version_info < _OLDEST:
            raise ImproperlyConfigured(f"SQLite is {sqlite3.sqlite_version}; allowed: 3.35 or newer")
        self._path, options = _read_url(url)
        self._is_uri = options.get("uri", False)
        self._url = url
        self._statements = statements
        self._sql = SQL(statements)
        self.connections = Connections(self._path, options, timeout=timeout, mapped=self._mapped)
        self._use = self.connections.use
        self._transact = self.connections.transact
        self._decoded = DecodedRows()

    def _mapped(self, error: Exception) -> BackendUnavailable:
        """The one place where the driver's errors become BackendUnavailable."""
        if isinstance(error, sqlite3.OperationalError) and "no such table" in str(error):
            return MissingTable(self._statements.table, self._url)
        is_too_large = isinstance(error, OverflowError) or (
            getattr(error, "sqlite_errorcode", None) == sqlite3.SQLITE_TOOBIG
        )
        kind = ValueTooLarge if is_too_large else BackendUnavailable
        return kind(f"The cache database {self._path!r} does not work: {error}")

    # -- calls -----------------------------------------------------------------------------------------------------

    def run(self, call: Call) -> Outcome:
        """See `Store.run`."""
        parameters = call.parameters
        if not isinstance(parameters, Mapping):
            prepared = self._sql.prepared(call.statement)
            return self._transact(_execute_many, prepared.sql, [prepared.arguments(one) for one in parameters])
        if call.statement in ("drop_expired", "drop_first"):
            return Outcome(changed=self._use(partial(getattr(self._sql, call.statement), **parameters)))
        keys = filled_up(parameters["keys"]) if "keys" in parameters else ()
        named = {**parameters, **{f"key_{number}": key for number, key in enumerate(keys)}}
        prepared = self._sql.prepared(call.statement, len(keys))
        return self._use(_execute, prepared.sql, prepared.arguments(named))

    async def arun(self, call: Call) -> Outcome:
        """See `Store.arun`: in a thread, as SQLite waits for the disk."""
        return await offload(self.run, call)

    def get_one(self, key: ColumnKey, now: float) -> list[tuple[Any]]:
        """What is stored under a key, if it is there."""
        return self._use(Connection.rows, self._sql.get_one, (key, now))

    def get_one_at_once(self, key: ColumnKey, now: float) -> list[tuple[Any]] | None:
        """The same over a connection that is there; None if there is none, or if another has the lock."""
        try:
            return self._use(Connection.rows, self._sql.get_one, (key, now), patient=False)
        except BusyError:
            return None

    def values(self, keys: Sequence[ColumnKey], now: float) -> list[tuple[Any]]:
        """What is stored under each of the keys, None where there is nothing; there may be more rows than keys."""
        return self._use(Connection.rows, *self._asking(keys, now))

    def values_at_once(self, keys: Sequence[ColumnKey], now: float) -> list[tuple[Any]] | None:
        """The same over a connection that is there; None if there is none, or if another has the lock."""
        try:
            return self._use(Connection.rows, *self._asking(keys, now), patient=False)
        except BusyError:
            return None

    def _asking(self, keys: Sequence[ColumnKey], now: float) -> tuple[str, Sequence[Any]]:
        asked = filled_up(keys)
        return self._sql.prepared("get_values", len(asked)).sql, (*asked, now)

    def set(self, rows: Sequence[NewRow]) -> None:
        """Store one row, or several in one transaction."""
        if len(rows) == 1:
            self._use(self._sql.store_one, rows[0])
        else:
            self._transact(self._sql.store, rows)

    def incr(self, key: ColumnKey, now: float, delta: int) -> int | None:
        """The sum, which is stored; None if the plan has to find out why there is none."""
        prepared = self._sql.prepared("incr")
        arguments = prepared.arguments({"key": key, "now": now, **self._statements.addends(delta)})
        rows = self._use(Connection.rows, prepared.sql, arguments)
        return rows[0][0] if rows else None

    # -- pages -----------------------------------------------------------------------------------------------------

    def get(self, keys: Sequence[ColumnKey], now: float) -> list[Row]:
        """The rows of the statement `get`."""
        return self._use(Connection.rows, *self._reading(keys, now))

    def get_at_once(self, keys: Sequence[ColumnKey], now: float) -> list[Row] | None:
        """The same over a connection that is there; None if there is none, or if another has the lock."""
        try:
            return self._use(Connection.rows, *self._reading(keys, now), patient=False)
        except BusyError:
            return None

    def pages(self, keys: Sequence[str], columns: ColumnsOf, now: float, decode: Decode) -> list[Any]:
        """The records that are stored as these pages, None where there is none; what is remembered is not read again.

        columns: makes the keys in the table of the pages'.
        """
        return self._use(self._pages, keys, columns, now, decode)

    def pages_at_once(self, keys: Sequence[str], columns: ColumnsOf, now: float, decode: Decode) -> list[Any] | None:
        """The same over a connection that is there; None if there is none, or if another has the lock."""
        try:
            return self._use(self._pages, keys, columns, now, decode, patient=False)
        except BusyError:
            return None

    def _pages(
        self, connection: Connection, keys: Sequence[str], columns: ColumnsOf, now: float, decode: Decode
    ) -> list[Any]:
        found, version = self._decoded.get(connection, keys, now, decode)
        if found is not None:
            return found
        made = columns(keys)
        sql, arguments = self._reading(made, now)
        rows = {row[0]: row for row in connection.execute(sql, arguments).fetchall()}
        records = []
        for key, column in zip(keys, made, strict=True):
            row = rows.get(column)
            record = None if row is None or row[2] is None else decode(key, row[2])
            records.append(record)
            if version is not None:
                expires = inf if row is None or row[3] is None else row[3]
                self._decoded.learn(key, version, expires, decode, record)
        return records

    def _reading(self, keys: Sequence[ColumnKey], now: float) -> tuple[str, Sequence[Any]]:
        if 1 < len(keys) <= _FEW:
            return self._sql.prepared("get_few", len(keys)).sql, [part for key in keys for part in (key, now)]
        asked = filled_up(keys)
        return self._sql.prepared("get", len(asked)).sql, (*asked, now)

    def commit(
        self, rows: Sequence[NewRow], latest: Sequence[ColumnKey], drops: Sequence[ColumnKey], now: float
    ) -> list[Row]:
        """Store rows, then read those of other keys, then delete keys, in one transaction; returns what was read."""
        read, reading = self._reading(latest, now) if latest else ("", ())
        gone = filled_up(drops)
        delete = self._sql.prepared("delete", len(gone)).sql

        def steps(connection: Connection) -> list[Row]:
            self._sql.store(connection, rows)
            found = connection.execute(read, reading).fetchall() if latest else []
            if drops:
                connection.execute(delete, (*gone, now))
            return found

        return self._transact(steps)

    # -- the table ---------------------------------------------------------------------------------------------------

    def has_table(self) -> bool:
        """See `Store.has_table`."""
        if not self._is_uri and not os.path.exists(self._path):
            return False  # asking would create the file
        sql = "SELECT 1 FROM sqlite_master WHERE type = 'table' AND name = ?"
        name = str(self._statements.table.name)
        return bool(self._use(Connection.rows, sql, (name,)))

    def ddl(self) -> list[str]:
        """See `Store.ddl`."""
        return self._sql.ddl()

    def create(self) -> None:
        """See `Store.create`."""
        self._use(_make_table, self._sql.ddl())

    # -- the end -----------------------------------------------------------------------------------------------------

    def close(self) -> None:
        """See `Store.close`; a connection in use at this moment is kept."""
        self.connections.close()

    async def aclose(self) -> None:
        """See `Store.aclose`."""
        self.close()


def _read_url(url: URL) -> tuple[str, dict[str, Any]]:
    """The path that a URL names, and the options of `sqlite3.connect`."""
    name, shown = "The database URL", shown_url(url)
    allowed = _DRIVERS_OWN | _LIBRARYS_OWN if "uri" in url.query else _DRIVERS_OWN
    if strange := sorted(url.query.keys() - allowed):
        raise unknown(f"An unknown option of the database URL {shown!r}", strange[0], allowed)
    try:
        (path,), options = DIALECT.create_connect_args(url)
    except (ArgumentError, ValueError) as error:
        raise refuse(name, shown, f"sqlite:////path/of/file ({str(error).partition(chr(10))[0]})") from error
    if not url.database or ":memory:" in path or "mode=memory" in path:
        raise refuse(name, shown, "the path of a file; to cache in memory use locmem://")
    return path, dict(options)


def _execute(connection: Connection, sql: str, arguments: Sequence[Any]) -> Outcome:
    cursor = connection.execute(sql, arguments)
    return Outcome(cursor.fetchall(), cursor.rowcount)


def _execute_many(connection: Connection, sql: str, rows: Sequence[Sequence[Any]]) -> Outcome:
    connection.executemany(sql, rows)
    return Outcome(changed=len(rows))


def _make_table(connection: Connection, ddl: Sequence[str]) -> None:
    for sql in ddl:
        connection.execute(sql)
