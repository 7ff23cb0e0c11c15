"""PostgreSQL, MySQL and MariaDB: a pool of connections for threads, and one for each event loop.

Rule 1: every call has a deadline, and so has the wait for a connection (`_db.turns`); a call that exceeds it costs its
connection, so that its reply never reaches the next one. The server is told as far as its driver can: PostgreSQL to
stop, MySQL how long to wait for locks. It may still do what it was asked, a moment before it hears that, or when it
wakes up.
Rule 2: each statement is its own transaction (autocommit): one round trip, nothing to roll back.
Rule 3: a connection serves the process, and the event loop, that opened it.
"""

from __future__ import annotations

import asyncio
import os
import random
import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Final
from weakref import finalize

from sqlalchemy import URL, CursorResult, Engine, inspect
from sqlalchemy.exc import DBAPIError, SQLAlchemyError
from sqlalchemy.ext.asyncio import AsyncEngine
from sqlalchemy.util import greenlet_spawn

from cachemw.backends._db.calls import Call, MissingTable, Outcome, ValueTooLarge, shown_url
from cachemw.backends._db.engines import PATIENCE, EngineMaker, error_code
from cachemw.backends._db.schema import Statements
from cachemw.backends._db.turns import Limit, Line, TaskTurn, ThreadTurn
from cachemw.backends._loops import PerLoop
from cachemw.errors import BackendUnavailable

__all__ = ["ServerStore"]

#: Deadlines that a call may wait for the others of its process, as long as the server answers them.
_IN_LINE: Final = 5
#: SQLSTATE of PostgreSQL, error numbers of MySQL
_NO_TABLE: Final = frozenset({"42P01", 1146})
_TOO_LARGE: Final = frozenset({"54000", 1153})
_DEADLOCK: Final = frozenset({"40001", "40P01", 1213})
_ATTEMPTS: Final = 5
#: What drivers and pools raise, the deadlines included.
_FAILURES: Final = (SQLAlchemyError, OSError)


@dataclass
class _OnLoop:
    """What an event loop has: the engines, for calls and for patient ones, and the line at each."""

    engines: tuple[AsyncEngine, AsyncEngine]
    lines: tuple[Line, Line]

    async def dispose(self) -> None:
        """Close the connections: the event loop ends."""
        for engine in self.engines:
            await engine.dispose()

    async def let_go(self) -> None:
        """Close the connections that nobody uses; see `ServerStore.close`."""
        for engine in self.engines:
            await greenlet_spawn(engine.sync_engine.pool.dispose)


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
        self._maker = EngineMaker(url, statements.kind, timeout=timeout, pool_size=pool_size)
        self._engines = self._maker.make(timeout), self._maker.make(PATIENCE)
        self._lines = self._make_lines()
        finalize(self, _dispose, self._maker, self._engines)
        self._loops: PerLoop[_OnLoop] = PerLoop(_OnLoop.dispose)

    def _make_lines(self) -> tuple[Line, Line]:
        """Who waits for a connection of each of two engines."""
        quick = Line(self._pool_size, timeout=self._timeout, patience=_IN_LINE * self._timeout)
        return quick, Line(self._pool_size, timeout=PATIENCE, patience=PATIENCE)

    def _check_process(self) -> None:
        """In a forked process: the parent's connections are neither used nor closed here."""
        if self._maker.owner == os.getpid():
            return
        for engine in self._engines:
            engine.dispose(close=False)
        self._lines = self._make_lines()
        self._loops.forget()
        self._maker.start_anew()

    def _on_loop(self) -> _OnLoop:
        engines = self._maker.make_async(self._timeout), self._maker.make_async(PATIENCE)
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
                if error_code(error) not in _DEADLOCK or attempt == _ATTEMPTS:
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
                if error_code(error) not in _DEADLOCK or attempt == _ATTEMPTS:
                    raise self._mapped(error) from error
            await asyncio.sleep(_pause(attempt))
            attempt += 1

    def _check_size(self, call: Call) -> None:
        """Raises: ValueTooLarge, if a value would not fit into MySQL's packets; connected, one knows their size."""
        if call.statement in ("set", "add"):
            rows = call.parameters if isinstance(call.parameters, Sequence) else (call.parameters,)
            for row in rows:
                # the drivers write two characters for a byte, at most, and the statement around it
                if row["value"] is not None and 2 * len(row["value"]) + 1024 > self._maker.max_packet:
                    raise ValueTooLarge(f"{len(row['value'])} bytes are more than MySQL's max_allowed_packet allows")

    def _limit(self, call: Call) -> float | None:
        """Seconds that a statement may take; psycopg's connections see to it."""
        if self._maker.limits_async:
            return None
        return PATIENCE if call.patient else self._timeout

    def _outcome(self, result: CursorResult[Any]) -> Outcome:
        if result.returns_rows:
            return Outcome(result.fetchall())
        return Outcome((), result.rowcount, result.lastrowid if self._statements.counts_by_last_id else 0)

    def _mapped(self, error: Exception) -> BackendUnavailable:
        """The one place where the drivers' errors become BackendUnavailable."""
        code = error_code(error)
        if code in _NO_TABLE:
            return MissingTable(self._statements.table, self._url)
        reason = error.orig if isinstance(error, DBAPIError) else error
        url = shown_url(self._url)
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
        """See `Store.close`.

        Only the pool is told: an engine that is disposed of takes another, and connections that are in use at that
        moment would be left to the garbage collector.
        """
        self._check_process()
        for engine in self._engines:
            engine.pool.dispose()
        self._lines = self._make_lines()

    async def aclose(self) -> None:
        """See `Store.aclose`."""
        self.close()
        if (here := self._loops.known()) is not None:
            here.lines = self._make_lines()
            await here.let_go()


def _dispose(maker: EngineMaker, engines: Sequence[Engine]) -> None:
    """Nobody uses them any more."""
    if maker.owner == os.getpid():
        for engine in engines:
            engine.dispose()


def _pause(attempt: int) -> float:
    return random.uniform(0, 0.005 * attempt)  # noqa: S311  spreads those who collided, guards no secret
