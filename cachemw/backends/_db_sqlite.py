"""SQLite, by its own driver: SQLAlchemy writes the SQL, once, and is not asked again.

Rule 1: a connection is used by one thread at a time and waits in a list meanwhile; none crosses a fork, and those
that wait are closed before one: SQLite counts its locks in memory, and a child would believe to have its parent's.
Rule 2: write-ahead log, so that readers and the writer do not wait for one another; every statement is a transaction.
Rule 3: waiting for another writer ends in time; any other error, but that the table is missing, closes the connection,
and the next call opens a new one (the file may have been replaced).
"""

from __future__ import annotations

import os
import random
import sqlite3
import threading
import time
import weakref
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from functools import cached_property, lru_cache
from math import inf
from operator import itemgetter
from typing import Any, Final, NamedTuple, TypeVar

from sqlalchemy import URL
from sqlalchemy.dialects.sqlite.pysqlite import dialect as make_dialect

from cachemw._values import refuse
from cachemw.backends._db_calls import Call, Columns, MissingTable, Outcome, ValueTooLarge
from cachemw.backends._db_pages import Decode, DecodedRows
from cachemw.backends._db_schema import Statements
from cachemw.backends.base import offload
from cachemw.errors import BackendUnavailable, ImproperlyConfigured

__all__ = ["Row", "SQLiteStore"]

#: RETURNING
_OLDEST: Final = (3, 35, 0)
#: Keys up to which a statement has a part for each.
_FEW: Final = 16
#: Seconds after which it is made sure again that the file is still there.
_LOOK_AGAIN: Final = 1.0
#: Deadlines that a connection may take, the log included that the first one has to make.
_OPENING: Final = 2
_BUSY: Final = frozenset({sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED})
_PRAGMAS: Final = (
    "PRAGMA journal_mode=WAL",
    "PRAGMA synchronous=NORMAL",  # a crash of the machine may lose the last writes, never the file
    "PRAGMA journal_size_limit=67108864",
)


#: Connections that a parent process opened: kept, as SQLite allows nothing to be done with them here, not even closing.
_inherited: Final[list[list[sqlite3.Connection]]] = []

#: Held while a file is made: no connection of this process is to have locks on it before it is closed.
_creating = threading.Lock()

T = TypeVar("T")


#: Key, number, value and expiry.
Row = tuple[bytes, int | None, bytes | None, float | None]


#: Makes the keys in the table.
ColumnsOf = Callable[[Sequence[str]], list[bytes]]


class _BusyError(Exception):
    """Another connection has the lock, and nobody wants to wait for it."""


class _Prepared(NamedTuple):
    sql: str
    arguments: Callable[[Mapping[str, Any]], tuple[Any, ...]]


class SQLiteStore:
    """The table in a file. timeout: seconds to wait for another process's write.

    Raises: ImproperlyConfigured if the library is too old, or the URL names no file.
    """

    def __init__(self, url: URL, statements: Statements, *, timeout: float) -> None:
        if sqlite3.sqlite_version_info < _OLDEST:
            raise ImproperlyConfigured(f"SQLite is {sqlite3.sqlite_version}; allowed: 3.35 or newer")
        self._dialect = make_dialect(paramstyle="qmark")
        (self._path,), options = self._dialect.create_connect_args(url)
        if not url.database or ":memory:" in self._path or "mode=memory" in self._path:
            raise refuse("The database URL", str(url), "the path of a file; to cache in memory use locmem://")
        # autocommit; closing comes from other threads; waiting is ours, as SQLite's own pauses starve writers
        self._options = {**options, "isolation_level": None, "check_same_thread": False, "timeout": 0}
        self._url = url
        self._statements = statements
        self._timeout = timeout
        self._prepared = lru_cache(maxsize=1024)(self._prepare)
        self._idle: list[sqlite3.Connection] = []
        self._opening = threading.Lock()
        self._owner = os.getpid()
        self._file: tuple[int, int] | None = None
        self._look_again = 0.0
        self._decoded = DecodedRows()
        _stores.add(self)

    # -- calls -----------------------------------------------------------------------------------------------------

    def run(self, call: Call) -> Outcome:
        """See `Store.run`."""
        parameters = call.parameters
        if not isinstance(parameters, Mapping):
            prepared = self._prepared(call.statement, 0)
            rows = [prepared.arguments(one) for one in parameters]

            def write(connection: sqlite3.Connection) -> Outcome:
                connection.executemany(prepared.sql, rows)
                return Outcome(changed=len(rows))

            return self._use(lambda connection: _in_transaction(connection, write))
        keys = parameters.get("keys", ())
        prepared = self._prepared(call.statement, len(keys))
        if keys:
            parameters = {**parameters, **{f"key_{number}": key for number, key in enumerate(keys)}}
        arguments = prepared.arguments(parameters)

        def execute(connection: sqlite3.Connection) -> Outcome:
            cursor = connection.execute(prepared.sql, arguments)
            return Outcome(cursor.fetchall(), cursor.rowcount)

        return self._use(execute)

    def get(self, keys: Sequence[bytes], now: float) -> list[Row]:
        """The rows of the statement `get`: what a hit is made of, without the detours."""
        sql, arguments = self._reading(keys, now)
        return self._use(lambda connection: connection.execute(sql, arguments).fetchall())

    def get_one(self, key: bytes, now: float) -> tuple[int | None, bytes | None] | None:
        """The number and the value of one row, None if there is none."""
        sql = self._one
        row: tuple[int | None, bytes | None] | None = self._use(
            lambda connection: connection.execute(sql, (key, now)).fetchone()
        )
        return row

    def values(self, keys: Sequence[bytes], now: float) -> list[tuple[int, Any]]:
        """Of each key that is there, its place among them and what is stored."""
        sql = self._prepared("get_values", len(keys)).sql
        return self._use(lambda connection: connection.execute(sql, (*keys, now)).fetchall())

    def values_at_once(self, keys: Sequence[bytes], now: float) -> list[tuple[int, Any]] | None:
        """The same over a connection that is there; None if there is none, or if another has the lock."""
        sql = self._prepared("get_values", len(keys)).sql
        try:
            return self._use(lambda connection: connection.execute(sql, (*keys, now)).fetchall(), patient=False)
        except _BusyError:
            return None

    def get_at_once(self, keys: Sequence[bytes], now: float) -> list[Row] | None:
        """The same over a connection that is there; None if there is none, or if another has the lock."""
        sql, arguments = self._reading(keys, now)
        try:
            return self._use(lambda connection: connection.execute(sql, arguments).fetchall(), patient=False)
        except _BusyError:
            return None

    def pages(self, keys: Sequence[str], columns: ColumnsOf, now: float, decode: Decode) -> list[Any]:
        """The records that are stored as these pages, None where there is none; what is remembered is not read again.

        columns: makes the keys in the table of the pages'.
        """
        return self._use(lambda connection: self._pages(connection, keys, columns, now, decode))

    def pages_at_once(self, keys: Sequence[str], columns: ColumnsOf, now: float, decode: Decode) -> list[Any] | None:
        """The same over a connection that is there; None if there is none, or if another has the lock."""
        try:
            return self._use(lambda connection: self._pages(connection, keys, columns, now, decode), patient=False)
        except _BusyError:
            return None

    def _pages(
        self, connection: sqlite3.Connection, keys: Sequence[str], columns: ColumnsOf, now: float, decode: Decode
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

    def _reading(self, keys: Sequence[bytes], now: float) -> tuple[str, Sequence[Any]]:
        if 1 < len(keys) <= _FEW:
            return self._prepared("get_few", len(keys)).sql, [part for key in keys for part in (key, now)]
        return self._prepared("get", len(keys)).sql, (*keys, now)

    @cached_property
    def _one(self) -> str:
        return self._prepared("get_one", 0).sql

    @cached_property
    def _upsert(self) -> str:
        return self._prepared("set", 0).sql

    def set(self, rows: Sequence[Columns]) -> None:
        """Store one row, or several in one transaction, without the detours."""
        sql = self._upsert
        if len(rows) == 1:
            self._use(lambda connection: connection.execute(sql, rows[0]))
        else:
            self._use(lambda connection: _in_transaction(connection, lambda it: it.executemany(sql, rows)))

    def incr(self, key: bytes, now: float, delta: int) -> int | None:
        """The sum, which is stored; None if the plan has to find out why there is none."""
        prepared = self._prepared("incr", 0)
        arguments = prepared.arguments({"key": key, "now": now, **self._statements.addends(delta)})
        row: tuple[int] | None = self._use(lambda connection: connection.execute(prepared.sql, arguments).fetchone())
        return row and row[0]

    def commit(self, rows: Sequence[Columns], latest: Sequence[bytes], drops: Sequence[bytes], now: float) -> list[Row]:
        """Store rows, then read those of other keys, then delete keys, in one transaction; returns what was read."""
        sql = self._upsert
        read, reading = self._reading(latest, now) if latest else ("", ())
        delete = self._prepared("delete", len(drops)).sql

        def steps(connection: sqlite3.Connection) -> list[Row]:
            connection.executemany(sql, rows)
            found = connection.execute(read, reading).fetchall() if latest else []
            if drops:
                connection.execute(delete, (*drops, now))
            return found

        return self._use(lambda connection: _in_transaction(connection, steps))

    def _prepare(self, statement: str, keys: int) -> _Prepared:
        """The SQL of a statement for so many keys, and what puts its parameters in their order."""
        statements = Statements(self._statements.table, "sqlite", how_many=keys)
        compiled = getattr(statements, statement).compile(dialect=self._dialect)
        order = compiled.positiontup
        fixed = {name: value for name, value in compiled.params.items() if value is not None}  # LIMIT's offset

        def arguments(parameters: Mapping[str, Any]) -> tuple[Any, ...]:
            return tuple([parameters[name] if name in parameters else fixed[name] for name in order])

        simple = len(order) > 1 and not fixed
        return _Prepared(str(compiled), itemgetter(*order) if simple else arguments)

    # -- the table ---------------------------------------------------------------------------------------------------

    def has_table(self) -> bool:
        """See `Store.has_table`."""
        if not self._options.get("uri") and not os.path.exists(self._path):
            return False  # asking would create the file
        sql = "SELECT 1 FROM sqlite_master WHERE type = 'table' AND name = ?"
        name = str(self._statements.table.name)
        return self._use(lambda connection: connection.execute(sql, (name,)).fetchone()) is not None

    def ddl(self) -> list[str]:
        """See `Store.ddl`."""
        return self._statements.create(self._dialect)

    def create(self) -> None:
        """See `Store.create`."""

        def execute(connection: sqlite3.Connection) -> None:
            for sql in self.ddl():
                connection.execute(sql)

        self._use(execute)

    # -- connections ---------------------------------------------------------------------------------------------

    def _use(self, work: Callable[[sqlite3.Connection], T], *, patient: bool = True) -> T:
        """Do the work with a connection that nobody else uses meanwhile, again while another writer is at it.

        Raises: BackendUnavailable; _BusyError where something had to be waited for, and it is not to be `patient`.
        """
        idle = self._connections()
        try:
            connection = idle.pop()
        except IndexError:
            if not patient:
                raise _BusyError from None
            connection = self._another(idle)
        sound = False
        try:
            try:
                result = work(connection)
            except sqlite3.Error as error:
                if not _is_busy(error):
                    raise self._mapped(error) from error
                if not patient:
                    raise _BusyError from error
                result = self._patiently(lambda: work(connection))
            sound = True
            return result
        except (_BusyError, MissingTable):
            sound = True
            raise
        finally:
            if sound and idle is self._idle:
                idle.append(connection)
            else:
                connection.close()

    def _connections(self) -> list[sqlite3.Connection]:
        """Those that nobody uses, of this process and of the file that stands at the path now."""
        if self._owner != os.getpid():  # forked: the parent's must neither be used nor closed here
            _inherited.append(self._idle)
            self._idle = []
            self._opening = threading.Lock()
            self._owner = os.getpid()
        now = time.monotonic()
        if now >= self._look_again:
            self._look_again = now + _LOOK_AGAIN
            found = self._identity()
            if found != self._file:
                self.close()
                self._idle = []
                self._file = found
        return self._idle

    def _identity(self) -> tuple[int, int] | None:
        """Which file it is: SQLite does not notice that it was removed, and goes on in what nobody else sees."""
        try:
            status = os.stat(self._path)
        except OSError:
            return None
        return status.st_dev, status.st_ino

    def _another(self, idle: list[sqlite3.Connection]) -> sqlite3.Connection:
        """One that was given back meanwhile, or a new one.

        One thread at a time: while the log is not there yet, those that open the file keep one another from making it.
        """
        patience = _OPENING * self._timeout
        began = time.monotonic()
        if not self._opening.acquire(timeout=patience):
            raise self._mapped(TimeoutError(f"no connection within {patience:g} s"))

        def take() -> sqlite3.Connection:
            try:
                return idle.pop()
            except IndexError:
                return self._connect()

        try:
            return self._patiently(take, began + patience)
        finally:
            self._opening.release()

    def _patiently(self, action: Callable[[], T], deadline: float | None = None) -> T:
        """Do it, again and again while another connection has the lock, until time is up."""
        if deadline is None:
            deadline = time.monotonic() + self._timeout
        pause = 0.0002
        while True:
            try:
                return action()
            except sqlite3.Error as error:
                if not _is_busy(error) or time.monotonic() >= deadline:
                    raise self._mapped(error) from error
            time.sleep(pause * random.random())  # noqa: S311  spreads the waiters, guards no secret
            pause = min(pause * 2, 0.005)

    def _mapped(self, error: Exception) -> BackendUnavailable:
        """The one place where the driver's errors become BackendUnavailable."""
        if isinstance(error, sqlite3.OperationalError) and "no such table" in str(error):
            return MissingTable(self._statements.table, self._url)
        kind = (
            ValueTooLarge if getattr(error, "sqlite_errorcode", None) == sqlite3.SQLITE_TOOBIG else BackendUnavailable
        )
        return kind(f"The cache database {self._path!r} does not work: {error}")

    def _connect(self) -> sqlite3.Connection:
        if not self._options.get("uri"):
            self._create_file()
        connection: sqlite3.Connection = sqlite3.connect(self._path, **self._options)
        try:
            for pragma in _PRAGMAS:
                connection.execute(pragma).close()
        except BaseException:
            connection.close()
            raise
        return connection

    def _create_file(self) -> None:
        """Make the file if there is none, for nobody else to read: what is stored is nobody else's business.

        One that is there is not opened: closing it again would let go of all locks that this process has on it
        (POSIX), and another process would then take the log away under SQLite's feet.
        """
        with _creating, suppress(OSError):  # SQLite reports what is wrong here
            os.close(os.open(self._path, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600))

    async def arun(self, call: Call) -> Outcome:
        """See `Store.arun`: in a thread, as SQLite waits for the disk."""
        return await offload(self.run, call)

    async def aclose(self) -> None:
        """See `Store.aclose`."""
        self.close()

    def close(self) -> None:
        """See `Store.close`; a connection in use at this moment is kept."""
        if self._owner == os.getpid():
            while self._idle:
                self._idle.pop().close()


def _is_busy(error: sqlite3.Error) -> bool:
    return getattr(error, "sqlite_errorcode", 0) & 0xFF in _BUSY  # the rest says what it is busy with


def _in_transaction(connection: sqlite3.Connection, steps: Callable[[sqlite3.Connection], T]) -> T:
    """Several writes at once: one commit instead of one for each."""
    connection.execute("BEGIN IMMEDIATE")
    try:
        result = steps(connection)
        connection.execute("COMMIT")
    except BaseException:
        if connection.in_transaction:
            connection.execute("ROLLBACK")
        raise
    return result


_stores: Final[weakref.WeakSet[SQLiteStore]] = weakref.WeakSet()


def _before_fork() -> None:
    for store in list(_stores):
        store.close()


def _after_fork() -> None:
    global _creating
    _creating = threading.Lock()


os.register_at_fork(before=_before_fork, after_in_child=_after_fork)
