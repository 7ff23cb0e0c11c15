"""PostgreSQL, MySQL and MariaDB: a pool of connections for threads, and one for each event loop.

Rule 1: every call has a deadline, and so has the wait for a connection (`_db_turns`); a call that exceeds it costs its
connection, so that its reply never reaches the next one. The server is told as far as its driver can: PostgreSQL to
stop, MySQL how long to wait for locks. It may still do what it was asked, a moment before it hears that, or when it
wakes up.
Rule 2: each statement is its own transaction (autocommit): one round trip, nothing to roll back.
Rule 3: a connection serves the process, and the event loop, that opened it.
"""

from __future__ import annotations

import asyncio
import math
import os
import random
import threading
import time
from collections.abc import Callable, Sequence
from concurrent.futures import Future
from dataclasses import dataclass
from functools import partial
from typing import Any, Final

from sqlalchemy import URL, CursorResult, Engine, ExceptionContext, NullPool, create_engine, event, inspect
from sqlalchemy.engine import Dialect
from sqlalchemy.exc import DBAPIError, SQLAlchemyError
from sqlalchemy.ext.asyncio import AsyncEngine, create_async_engine

from cachemw._values import refuse
from cachemw.backends._db_calls import Call, MissingTable, Outcome, ValueTooLarge
from cachemw.backends._db_schema import Statements
from cachemw.backends._db_turns import Limit, Line, TaskTurn, ThreadTurn, await_result
from cachemw.backends._loops import PerLoop
from cachemw.errors import BackendUnavailable, ImproperlyConfigured

__all__ = ["ServerStore"]

#: Kind of database -> driver for threads, driver for event loops, what to install
DRIVERS: Final = {
    "postgresql": ("psycopg", "psycopg", "cachemw[postgresql]"),
    "mysql": ("pymysql", "asyncmy", "cachemw[mysql]"),
    "mariadb": ("pymysql", "asyncmy", "cachemw[mysql]"),
}
#: Seconds that clearing the table, or making it, may take.
_PATIENCE: Final = 60.0
#: Deadlines that a call may wait for the others of its process, as long as the server answers them.
_IN_LINE: Final = 5
#: Connections are replaced after so many seconds: servers and balancers close old ones without a word.
_RECYCLE: Final = 600
#: SQLSTATE of PostgreSQL, error numbers of MySQL
_NO_TABLE: Final = frozenset({"42P01", 1146})
_TOO_LARGE: Final = frozenset({"54000", 1153})
_DEADLOCK: Final = frozenset({"40001", "40P01", 1213})
_ATTEMPTS: Final = 5
#: What a URL says of files, which libpq may do without, and nobody verifies anything then.
_CERTIFICATES: Final = frozenset({"sslrootcert", "ssl_ca", "ssl_cert", "ssl_key"})
#: What drivers and pools raise, the deadlines included.
_FAILURES: Final = (SQLAlchemyError, OSError)


@dataclass
class _OnLoop:
    """What an event loop has: the engines, for calls and for patient ones, and the line at each."""

    engines: tuple[AsyncEngine, AsyncEngine]
    lines: tuple[Line, Line]

    async def dispose(self) -> None:
        """Close the connections; the next calls open others."""
        for engine in self.engines:
            await engine.dispose()


class ServerStore:
    """The table on a server. timeout: seconds for a call; connecting may take twice as long.

    Raises: ImproperlyConfigured if the driver is not installed, or does not understand the URL. So does the first call
    of the async half, for a driver of its own.
    """

    def __init__(self, url: URL, statements: Statements, *, timeout: float, pool_size: int) -> None:
        self._url = url
        self._statements = statements
        self._timeout = timeout
        self._pool_size = pool_size
        self._driver, self._async_driver, self._package = DRIVERS[statements.kind]
        self._max_packet: float = math.inf
        self._engines = self._make_engine(timeout), self._make_engine(_PATIENCE)
        self._lines = self._make_lines()
        self._opening = threading.Lock()
        self._owner = os.getpid()
        self._loops: PerLoop[_OnLoop] = PerLoop(_OnLoop.dispose)

    def _make_lines(self) -> tuple[Line, Line]:
        """Who waits for a connection of each of two engines."""
        quick = Line(self._pool_size, timeout=self._timeout, patience=_IN_LINE * self._timeout)
        return quick, Line(self._pool_size, timeout=_PATIENCE, patience=_PATIENCE)

    # -- engines -------------------------------------------------------------------------------------------------

    def _engine_options(self, seconds: float) -> dict[str, Any]:
        options: dict[str, Any] = {
            "isolation_level": "AUTOCOMMIT",
            # SQLAlchemy's ROLLBACK after each statement would be a second round trip, and one without a deadline
            "skip_autocommit_rollback": True,
            "pool_reset_on_return": None,
            "execution_options": {"preserve_rowcount": True},  # of INSERT too: it says what `add` did
            "hide_parameters": True,  # values are nobody's business, and may be megabytes
        }
        if seconds == _PATIENCE:
            return {**options, "poolclass": NullPool}
        return {
            **options,
            "pool_size": self._pool_size,
            "max_overflow": 0,
            "pool_timeout": 2 * self._timeout,
            "pool_recycle": _RECYCLE,
            "pool_use_lifo": True,
        }

    def _make_engine(self, seconds: float) -> Engine:
        url = self._url.set(drivername=f"{self._statements.kind}+{self._driver}")
        limits = {} if self._driver == "psycopg" else {"read_timeout": seconds, "write_timeout": seconds}
        try:
            engine = create_engine(url, connect_args=limits, **self._engine_options(seconds))
        except (ImportError, SQLAlchemyError, ValueError) as error:
            raise self._unusable(error) from error
        connect: Callable[..., Any]
        if self._driver == "psycopg":
            from psycopg.conninfo import make_conninfo

            from cachemw.backends._db_psycopg import limited_connection

            connect = limited_connection(seconds).connect
            self._check_url(engine.dialect, make_conninfo)
        else:
            from cachemw.backends._db_pymysql import QuickConnection

            connect = QuickConnection
            self._check_url(engine.dialect, partial(QuickConnection, defer_connect=True))

        def connect_in_time(_dialect: Any, _record: Any, arguments: Any, parameters: Any) -> Any:
            # the line grants one at a time, but who is quick may take what was given back to another, who then opens
            if not self._opening.acquire(timeout=2 * self._timeout):
                raise TimeoutError(f"no connection within {2 * self._timeout:g} s: others are being made")
            try:
                return _within(2 * self._timeout, lambda: connect(*arguments, **parameters))
            finally:
                self._opening.release()

        event.listen(engine, "do_connect", connect_in_time)
        event.listen(engine, "handle_error", _drop_what_is_broken)
        self._agree_on_limits(engine, seconds)
        return engine

    def _agree_on_limits(self, engine: Engine, seconds: float) -> None:
        """Ask new connections for MySQL's limit: a larger statement costs the connection, and no reason is given.

        And tell it ours: it would wait for a lock for 50 s, and then do what nobody wants any more.
        """

        def agree(connection: Any, _record: Any) -> None:
            cursor = connection.cursor()
            cursor.execute(f"SET SESSION innodb_lock_wait_timeout = {math.ceil(seconds)}")
            cursor.execute("SELECT @@max_allowed_packet")
            self._max_packet = int(cursor.fetchone()[0])
            cursor.close()

        if self._statements.counts_by_last_id:
            event.listen(engine, "connect", agree)

    def _make_async_engine(self, seconds: float) -> AsyncEngine:
        url = self._url.set(drivername=f"{self._statements.kind}+{self._async_driver}")
        arguments: dict[str, Any] = {}
        if self._async_driver == "psycopg":
            from cachemw.backends._db_psycopg import limited_async_connection

            arguments["async_creator_fn"] = limited_async_connection(seconds).connect
        try:
            engine = create_async_engine(url, connect_args=arguments, **self._engine_options(seconds))
        except (ImportError, ValueError, SQLAlchemyError) as error:  # ValueError: no greenlet
            raise self._unusable(error) from error
        if self._async_driver == "asyncmy":
            from asyncmy.connection import Connection

            self._check_url(engine.dialect, Connection)
        event.listen(engine.sync_engine, "handle_error", _drop_what_is_broken)
        self._agree_on_limits(engine.sync_engine, seconds)
        return engine

    def _check_url(self, dialect: Dialect, look_at: Callable[..., object]) -> None:
        """What a connection would be told, told to what the driver has to look at it without connecting."""
        for name in sorted(_CERTIFICATES & self._url.query.keys()):
            file = self._url.query[name]
            if file != "system" and not os.access(str(file), os.R_OK):  # "system": libpq's word for all of them
                raise refuse(f"{name!r} in the database URL", file, "a file that this process may read")
        _, parameters = dialect.create_connect_args(self._url)
        parameters.pop("context", None)  # SQLAlchemy's own
        try:
            look_at(**parameters)
        except Exception as error:
            raise self._unusable(error) from error

    def _unusable(self, error: Exception) -> ImproperlyConfigured:
        url = self._url.render_as_string(hide_password=True)
        hint = f" (pip install '{self._package}')" if isinstance(error, ImportError) else ""
        return ImproperlyConfigured(f"The database {url!r} cannot be used: {str(error).strip()}{hint}")

    def _check_process(self) -> None:
        """In a forked process: the parent's connections are neither used nor closed here."""
        if self._owner == os.getpid():
            return
        for engine in self._engines:
            engine.dispose(close=False)
        self._lines = self._make_lines()
        self._opening = threading.Lock()
        self._loops.forget()
        self._owner = os.getpid()

    def _on_loop(self) -> _OnLoop:
        engines = self._make_async_engine(self._timeout), self._make_async_engine(_PATIENCE)
        return _OnLoop(engines, self._make_lines())

    # -- calls ---------------------------------------------------------------------------------------------------

    def run(self, call: Call) -> Outcome:
        """See `Store.run`."""
        self._check_process()
        statement = getattr(self._statements, call.statement)
        engine = self._engines[call.patient]
        attempt = 1
        while True:
            try:
                with ThreadTurn(self._lines[call.patient]) as turn, engine.connect() as connection:
                    turn.opened()
                    self._check_size(call)
                    return self._outcome(connection.execute(statement, call.parameters))
            except _FAILURES as error:
                if _code(error) not in _DEADLOCK or attempt == _ATTEMPTS:
                    raise self._mapped(error) from error
            time.sleep(_pause(attempt))
            attempt += 1

    async def arun(self, call: Call) -> Outcome:
        """See `Store.arun`."""
        self._check_process()
        statement = getattr(self._statements, call.statement)
        here = self._loops.here(self._on_loop)
        engine, line = here.engines[call.patient], here.lines[call.patient]
        attempt = 1
        while True:
            try:
                async with TaskTurn(line) as turn, Limit(2 * self._timeout) as limit, engine.connect() as connection:
                    turn.opened()
                    limit.restart(self._limit(call))
                    self._check_size(call)
                    return self._outcome(await connection.execute(statement, call.parameters))
            except _FAILURES as error:
                if _code(error) not in _DEADLOCK or attempt == _ATTEMPTS:
                    raise self._mapped(error) from error
            await asyncio.sleep(_pause(attempt))
            attempt += 1

    def _check_size(self, call: Call) -> None:
        """Raises: ValueTooLarge, if a value would not fit into MySQL's packets; connected, one knows their size."""
        if call.statement in ("set", "add"):
            rows = call.parameters if isinstance(call.parameters, Sequence) else (call.parameters,)
            for row in rows:
                # the drivers write two characters for a byte, at most, and the statement around it
                if row["value"] is not None and 2 * len(row["value"]) + 1024 > self._max_packet:
                    raise ValueTooLarge(f"{len(row['value'])} bytes are more than MySQL's max_allowed_packet allows")

    def _limit(self, call: Call) -> float | None:
        """Seconds that a statement may take; psycopg's connections see to it."""
        if self._async_driver == "psycopg":
            return None
        return _PATIENCE if call.patient else self._timeout

    def _outcome(self, result: CursorResult[Any]) -> Outcome:
        if result.returns_rows:
            return Outcome(result.fetchall())
        return Outcome((), result.rowcount, result.lastrowid if self._statements.counts_by_last_id else 0)

    def _mapped(self, error: Exception) -> BackendUnavailable:
        """The one place where the drivers' errors become BackendUnavailable."""
        code = _code(error)
        if code in _NO_TABLE:
            return MissingTable(self._statements.table, self._url)
        reason = error.orig if isinstance(error, DBAPIError) else error
        url = self._url.render_as_string(hide_password=True)
        kind = ValueTooLarge if code in _TOO_LARGE else BackendUnavailable
        return kind(f"The cache database {url!r} does not work: {str(reason) or 'no answer in time'}")

    # -- the table -----------------------------------------------------------------------------------------------

    def has_table(self) -> bool:
        """See `Store.has_table`."""
        self._check_process()
        table = self._statements.table
        try:
            with self._engines[True].connect() as connection:
                return inspect(connection).has_table(table.name, schema=table.schema)
        except _FAILURES as error:
            raise self._mapped(error) from error

    def ddl(self) -> list[str]:
        """See `Store.ddl`."""
        return self._statements.create(self._engines[True].dialect)

    def create(self) -> None:
        """See `Store.create`."""
        self._check_process()
        try:
            with self._engines[True].connect() as connection:
                for sql in self.ddl():
                    connection.exec_driver_sql(sql)
        except _FAILURES as error:
            if not self.has_table():  # else another process was quicker
                raise self._mapped(error) from error

    # -- the end -------------------------------------------------------------------------------------------------

    def close(self) -> None:
        """See `Store.close`."""
        self._check_process()
        for engine in self._engines:
            engine.dispose()
        self._lines = self._make_lines()

    async def aclose(self) -> None:
        """See `Store.aclose`."""
        self.close()
        if (here := self._loops.known()) is not None:
            here.lines = self._make_lines()
            await here.dispose()


def _within(seconds: float, connect: Callable[[], Any]) -> Any:
    """A new connection, or TimeoutError: the drivers' own limits are whole seconds, or leave the name look-up out."""
    future: Future[Any] = Future()

    def work() -> None:
        try:
            connection = connect()
        except BaseException as error:
            if future.set_running_or_notify_cancel():
                future.set_exception(error)
        else:
            if future.set_running_or_notify_cancel():
                future.set_result(connection)
            else:
                connection.close()  # too late

    threading.Thread(target=work, daemon=True, name="cachemw-connect").start()
    try:
        return await_result(future, seconds)
    except TimeoutError:
        if future.cancel():
            raise TimeoutError(f"no connection within {seconds:g} s") from None
        return future.result()


def _drop_what_is_broken(context: ExceptionContext) -> None:
    """What no server has said may have left half a reply on its connection: asyncmy goes on with it."""
    if _said(context.original_exception) is None:
        context.is_disconnect = True


def _code(error: Exception) -> object:
    """PostgreSQL's SQLSTATE or MySQL's error number; None if the server said nothing."""
    return _said(error.orig) if isinstance(error, DBAPIError) else None


def _said(origin: BaseException | None) -> object:
    number = next(iter(getattr(origin, "args", ())), None)
    return number if isinstance(number, int) else getattr(origin, "sqlstate", None)


def _pause(attempt: int) -> float:
    return random.uniform(0, 0.005 * attempt)  # noqa: S311  spreads those who collided, guards no secret
