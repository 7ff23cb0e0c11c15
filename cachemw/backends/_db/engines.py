"""SQLAlchemy's engines for PostgreSQL, MySQL and MariaDB: drivers, connections that are made in time, limits agreed on.

Rule 1: what a URL says is looked at when the engine is made, by the driver itself, which connects later.
Rule 2: an engine's connections do not keep the store alive that uses it.
"""

from __future__ import annotations

import math
import os
import threading
from collections.abc import Callable
from contextlib import suppress
from functools import partial
from typing import Any, Final

from sqlalchemy import URL, Engine, ExceptionContext, NullPool, create_engine, event
from sqlalchemy.engine import Dialect
from sqlalchemy.exc import DBAPIError, SQLAlchemyError
from sqlalchemy.ext.asyncio import AsyncEngine, create_async_engine

from cachemw._values import refuse
from cachemw.backends._db.calls import shown_url
from cachemw.backends._dialling import within
from cachemw.errors import ImproperlyConfigured

__all__ = ["DRIVERS", "PATIENCE", "EngineMaker", "error_code"]

#: Kind of database -> driver for threads, driver for event loops, what to install
DRIVERS: Final = {
    "postgresql": ("psycopg", "psycopg", "cachemw[postgresql]"),
    "mysql": ("pymysql", "asyncmy", "cachemw[mysql]"),
    "mariadb": ("pymysql", "asyncmy", "cachemw[mysql]"),
}
#: Seconds that clearing the table, or making it, may take.
PATIENCE: Final = 60.0
#: Connections are replaced after so many seconds: servers and balancers close old ones without a word.
_RECYCLE: Final = 600
#: What a URL says of files, which libpq may do without, and nobody verifies anything then.
_CERTIFICATES: Final = frozenset({"sslrootcert", "ssl_ca", "ssl_cert", "ssl_key"})


class EngineMaker:
    """Makes engines, for one database and process. timeout: seconds for a call; connecting may take twice as long."""

    def __init__(self, url: URL, kind: str, *, timeout: float, pool_size: int) -> None:
        self._url = url
        self._kind = kind
        self._timeout = timeout
        self._pool_size = pool_size
        self._driver, self._async_driver, self._package = DRIVERS[kind]
        self._is_mysql = self._driver == "pymysql"
        #: Bytes of a statement that MySQL takes, as it has said to the first connection.
        self.max_packet: float = math.inf
        #: Does the driver itself see to it that an asynchronous statement ends in time?
        self.limits_async = self._async_driver == "psycopg"
        self.start_anew()
        # Imported now: a process that is forked in the middle of another thread's import waits for its end for ever.
        with suppress(ImportError):  # which the first call of that half tells of
            self._async_url().get_dialect().import_dbapi()

    def start_anew(self) -> None:
        """In this process, from now on."""
        self.owner = os.getpid()
        #: Held by who makes a connection.
        self.opening = threading.Lock()

    def _engine_options(self, seconds: float) -> dict[str, Any]:
        options: dict[str, Any] = {
            "isolation_level": "AUTOCOMMIT",
            # SQLAlchemy's ROLLBACK after each statement would be a second round trip, and one without a deadline
            "skip_autocommit_rollback": True,
            "pool_reset_on_return": None,
            "execution_options": {"preserve_rowcount": True},  # of INSERT too: it says what `add` did
            "hide_parameters": True,  # values are nobody's business, and may be megabytes
        }
        if not self._is_mysql:
            options["use_native_hstore"] = False  # it is asked for in a transaction, which not every pooler lets pass
        if seconds == PATIENCE:
            return {**options, "poolclass": NullPool}
        return {
            **options,
            "pool_size": self._pool_size,
            # `_db.turns` bounds them: to the pool, what an interrupt has left in use stays so until it is collected
            "max_overflow": -1,
            "pool_recycle": _RECYCLE,
            "pool_use_lifo": True,
        }

    def make(self, seconds: float) -> Engine:
        """An engine for threads, of which every statement may take so long. Raises: ImproperlyConfigured."""
        url = self._url.set(drivername=f"{self._kind}+{self._driver}")
        limits = {} if self._driver == "psycopg" else {"read_timeout": seconds, "write_timeout": seconds}
        try:
            engine = create_engine(url, connect_args=limits, **self._engine_options(seconds))
        except (ImportError, SQLAlchemyError, ValueError) as error:
            raise self._unusable(error) from error
        connect: Callable[..., Any]
        if self._driver == "psycopg":
            from psycopg.conninfo import make_conninfo

            from cachemw.backends._db.psycopg import limited_connection

            connect = limited_connection(seconds).connect
            self._check_url(engine.dialect, make_conninfo)
        else:
            from cachemw.backends._db.pymysql import QuickConnection

            connect = QuickConnection
            self._check_url(engine.dialect, partial(QuickConnection, defer_connect=True))

        def connect_in_time(_dialect: Any, _record: Any, arguments: Any, parameters: Any) -> Any:
            # the line grants one at a time, but who is quick may take what was given back to another, who then opens
            opening, seconds = self.opening, 2 * self._timeout
            # the driver's own limit ends the attempt that nobody waits for any more: psycopg's is two minutes
            parameters.setdefault("connect_timeout", math.ceil(seconds))
            if not opening.acquire(timeout=seconds):
                raise TimeoutError(f"no connection within {seconds:g} s: others are being made")
            try:
                return within(seconds, partial(connect, *arguments, **parameters), _close)
            finally:
                opening.release()

        event.listen(engine, "do_connect", connect_in_time)
        self._listen(engine, seconds)
        return engine

    def _listen(self, engine: Engine, seconds: float) -> None:
        event.listen(engine, "handle_error", _drop_what_is_broken)
        if self._is_mysql:
            self._agree_on_limits(engine, seconds)
        else:
            event.listen(engine, "connect", _prepare_nothing_behind_a_pooler)

    def _agree_on_limits(self, engine: Engine, seconds: float) -> None:
        """Ask new connections for MySQL's limit: a larger statement costs the connection, and no reason is given.

        And tell it ours: it would wait for a lock for 50 s, and then do what nobody wants any more.
        """

        def agree(connection: Any, _record: Any) -> None:
            cursor = connection.cursor()
            cursor.execute(f"SET SESSION innodb_lock_wait_timeout = {math.ceil(seconds)}")
            cursor.execute("SELECT @@max_allowed_packet")
            self.max_packet = int(cursor.fetchone()[0])
            cursor.close()

        event.listen(engine, "connect", agree)

    def make_async(self, seconds: float) -> AsyncEngine:
        """The same for the running event loop."""
        url = self._async_url()
        arguments: dict[str, Any] = {}
        if self._async_driver == "psycopg":
            from cachemw.backends._db.psycopg import limited_async_connection

            arguments["async_creator_fn"] = limited_async_connection(seconds).connect
        try:
            engine = create_async_engine(url, connect_args=arguments, **self._engine_options(seconds))
        except (ImportError, ValueError, SQLAlchemyError) as error:  # ValueError: no greenlet
            raise self._unusable(error) from error
        if self._async_driver == "asyncmy":
            from asyncmy.connection import Connection

            self._check_url(engine.dialect, Connection)
        self._listen(engine.sync_engine, seconds)
        return engine

    def _async_url(self) -> URL:
        return self._url.set(drivername=f"{self._kind}+{self._async_driver}")

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
        url = shown_url(self._url)
        hint = f" (pip install '{self._package}')" if isinstance(error, ImportError) else ""
        return ImproperlyConfigured(f"The database {url!r} cannot be used: {str(error).strip()}{hint}")


def _close(connection: Any) -> None:
    connection.close()


def _prepare_nothing_behind_a_pooler(connection: Any, _record: Any) -> None:
    """Where the server's process is not the one that greeted us, somebody like PgBouncer is in between.

    It may hand the next statement to a process that knows ours by another client's name for it, and do what that meant.
    """
    greeted = connection.driver_connection if hasattr(connection, "driver_connection") else connection
    cursor = connection.cursor()
    cursor.execute("SELECT pg_backend_pid()")
    if cursor.fetchone()[0] != greeted.info.backend_pid:
        greeted.prepare_threshold = None
    cursor.close()


def _drop_what_is_broken(context: ExceptionContext) -> None:
    """What no server has said may have left half a reply on its connection: asyncmy goes on with it."""
    if _said(context.original_exception) is None:
        context.is_disconnect = True


def error_code(error: Exception) -> object:
    """PostgreSQL's SQLSTATE or MySQL's error number; None if the server said nothing."""
    return _said(error.orig) if isinstance(error, DBAPIError) else None


def _said(origin: BaseException | None) -> object:
    number = next(iter(getattr(origin, "args", ())), None)
    return number if isinstance(number, int) else getattr(origin, "sqlstate", None)
