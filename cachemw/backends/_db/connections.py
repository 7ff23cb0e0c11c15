"""Connections to a file of SQLite.

Rule 1: a connection is used by one thread at a time and waits in a list meanwhile; none crosses a fork: SQLite counts
its locks in memory, and a child would believe to have its parent's, and spoil the file. All are closed before one,
which waits for those in use; a child that was forked in the middle of a call nevertheless leaves the file alone.
Rule 2: write-ahead log, so that readers and the writer do not wait for one another; every statement is a transaction.
Rule 3: waiting for another writer ends in time; any other error, but that the table is missing, closes the connection,
and the next call opens a new one (the file may have been replaced).
"""

from __future__ import annotations

import os
import random
import sqlite3
import threading
import weakref
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from functools import partial
from os import getpid
from time import monotonic, sleep
from typing import Any, Final, TypeVar

from cachemw.backends._db.calls import MissingTable
from cachemw.backends._db.sql import Connection
from cachemw.errors import BackendUnavailable

__all__ = ["BusyError", "Connections"]

#: Seconds after which it is made sure again that the file is still there.
_LOOK_AGAIN: Final = 1.0
#: Deadlines that a connection may take, the log included that the first one has to make.
_OPENING: Final = 2
_BUSY: Final = frozenset({sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED})
_PRAGMAS: Final = (
    "PRAGMA journal_mode=WAL",
    "PRAGMA synchronous=NORMAL",  # a crash of the machine may lose the last writes, never the file
    # The log is moved into the file, and the disk waited for, when it has so many pages (16 MB): a quarter as often as
    # SQLite does by itself. Readers find up to 4062 of them by one look into the log's index.
    "PRAGMA wal_autocheckpoint=4000",
    "PRAGMA journal_size_limit=67108864",
)

#: Connections that a parent process opened: kept, as SQLite allows nothing to be done with them here, not even closing.
_inherited: Final[list[list[Connection]]] = []

#: Seconds that a fork waits for the calls under way.
_FORK_PATIENCE: Final = 2.0
#: Files in use at the last fork all the same, and those that the parent of this process was using when it forked it.
_in_use: set[str] = set()
_spoiled: Final[set[str]] = set()

#: Held by who makes a file or opens one, for no connection of this process is to have locks on a file that is made
#: before that is closed; and by who forks.
_connecting = threading.RLock()

T = TypeVar("T")


class BusyError(Exception):
    """Something has to be waited for, another connection's lock maybe, and it is not to be waited for here."""


class Connections:
    """Those of this process to the file at a path.

    options: of `sqlite3.connect`; timeout: seconds to wait for another process's write; mapped: makes the error that is
    raised of SQLite's.
    """

    def __init__(
        self,
        path: str,
        options: Mapping[str, Any],
        *,
        timeout: float,
        mapped: Callable[[Exception], BackendUnavailable],
    ) -> None:
        self.path = path
        # autocommit; closing comes from other threads; waiting is ours, as SQLite's own pauses starve writers
        own = {"isolation_level": None, "check_same_thread": False, "timeout": 0, "detect_types": 0}
        self._options = {**options, **own, "factory": Connection}
        self._timeout = timeout
        self._mapped = mapped
        self._idle: list[Connection] = []
        self._open: weakref.WeakSet[Connection] = weakref.WeakSet()
        self._opening = threading.Lock()
        self._owner = getpid()
        self._file: tuple[int, int] | None = None
        self._look_again = 0.0
        with _connecting:  # who forks looks at all
            _all.add(self)

    def use(self, work: Callable[..., T], *arguments: Any, patient: bool = True) -> T:
        """`work(connection, *arguments)` with a connection that nobody else uses meanwhile.

        While another writer is at it, that is done again. Raises: BackendUnavailable; BusyError where something had to
        be waited for, and it is not to be `patient`.
        """
        if monotonic() >= self._look_again or self._owner != getpid():
            self._look()
        idle = self._idle
        try:
            connection = idle.pop()
        except IndexError:
            connection = self._another(idle, patient=patient)
        try:
            result = work(connection, *arguments)
        except sqlite3.Error as error:
            return self._again(partial(work, connection, *arguments), connection, idle, error, patient=patient)
        except BaseException as error:
            connection.close()
            if isinstance(error, OverflowError):  # the driver's, of a value of 2 GiB
                raise self._mapped(error) from error
            raise
        if idle is self._idle:
            idle.append(connection)
        else:  # it is of a file that was replaced, or of a parent process
            connection.close()
        return result

    def _again(
        self,
        action: Callable[[], T],
        connection: Connection,
        idle: list[Connection],
        error: sqlite3.Error,
        *,
        patient: bool,
    ) -> T:
        """What to do after an error: go on while it is another writer, and find out whether the connection is sound."""
        sound = False
        try:
            if not _is_busy(error):
                raise self._mapped(error) from error
            if not patient:
                raise BusyError from error
            result = self._patiently(action)
            sound = True
            return result
        except (BusyError, MissingTable):
            sound = True
            raise
        finally:
            if sound and idle is self._idle:
                idle.append(connection)
            else:
                connection.close()

    def transact(self, steps: Callable[..., T], *arguments: Any) -> T:
        """`steps(connection, *arguments)` in one transaction: one commit instead of one for each."""
        result: T = self.use(_in_transaction, steps, arguments)
        return result

    def _look(self) -> None:
        """Are those that nobody uses of this process, and of the file that stands at the path now?"""
        if self._owner != getpid():  # forked: the parent's must neither be used nor closed here
            _inherited.append(self._idle)
            self._idle = []
            self._open = weakref.WeakSet()
            self._opening = threading.Lock()
            self._owner = getpid()
        self._look_again = monotonic() + _LOOK_AGAIN
        found = self._identity()
        if found != self._file:
            self.close()
            self._idle = []
            self._file = found

    def _identity(self) -> tuple[int, int] | None:
        """Which file it is: SQLite does not notice that it was removed, and goes on in what nobody else sees."""
        try:
            status = os.stat(self.path)
        except OSError:
            return None
        return status.st_dev, status.st_ino

    def _another(self, idle: list[Connection], *, patient: bool) -> Connection:
        """One that was given back meanwhile, or a new one. Raises: as `use`.

        One thread at a time: while the log is not there yet, those that open the file keep one another from making it.
        """
        if not patient:
            raise BusyError
        patience = _OPENING * self._timeout
        began = monotonic()
        if not self._opening.acquire(timeout=patience):
            raise self._mapped(TimeoutError(f"no connection within {patience:g} s"))

        def take() -> Connection:
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
            deadline = monotonic() + self._timeout
        pause = 0.0002
        while True:
            try:
                return action()
            except sqlite3.Error as error:
                if not _is_busy(error) or monotonic() >= deadline:
                    raise self._mapped(error) from error
            sleep(pause * random.random())  # noqa: S311  spreads the waiters, guards no secret
            pause = min(pause * 2, 0.005)

    def _connect(self) -> Connection:
        """A new one. Raises: sqlite3.Error."""
        if self.path in _spoiled:
            raise sqlite3.OperationalError("another thread was using it when this process was forked")
        connecting = _connecting
        if not connecting.acquire(timeout=self._timeout):
            raise sqlite3.OperationalError("another thread opens a file, or forks")
        try:
            return self._open_file()
        finally:
            connecting.release()

    def _open_file(self) -> Connection:
        if not self._options.get("uri"):
            self._create_file()
        if self._file is None:
            self._file = self._identity()
        connection: Connection = sqlite3.connect(self.path, **self._options)
        self._open.add(connection)
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
        with suppress(OSError):  # SQLite reports what is wrong here
            os.close(os.open(self.path, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600))

    def close(self) -> None:
        """Close those that nobody uses at this moment."""
        if self._owner == getpid():
            _close_all(self._idle)

    def withdraw(self) -> Callable[[], bool]:
        """Before a fork, while nobody can open a connection: close all. Gives what says whether some are in use yet."""
        if self._owner != getpid():
            return lambda: False
        idle, self._idle = self._idle, []  # so that those in use are closed by who uses them

        def are_in_use() -> bool:
            _close_all(idle)
            return not all(connection.is_closed for connection in list(self._open))

        return are_in_use


def _close_all(connections: list[Connection]) -> None:
    with suppress(IndexError):  # threads may take them meanwhile
        while True:
            connections.pop().close()


def _is_busy(error: sqlite3.Error) -> bool:
    return _code(error) in _BUSY


def _code(error: sqlite3.Error) -> int:
    """SQLite's code without its details; 0 for errors of the driver's own."""
    code: int = getattr(error, "sqlite_errorcode", 0)
    return code & 0xFF


def _in_transaction(connection: Connection, steps: Callable[..., T], arguments: Sequence[Any]) -> T:
    connection.execute("BEGIN IMMEDIATE")
    try:
        result = steps(connection, *arguments)
        connection.execute("COMMIT")
    except BaseException:
        if connection.in_transaction:
            connection.execute("ROLLBACK")
        raise
    return result


_all: Final[weakref.WeakSet[Connections]] = weakref.WeakSet()


def _before_fork() -> None:
    global _in_use
    _connecting.acquire()
    until = monotonic() + _FORK_PATIENCE
    withdrawn = [(connections.path, connections.withdraw()) for connections in list(_all)]
    while _in_use := {path for path, are_in_use in withdrawn if are_in_use()}:
        if monotonic() >= until:
            return
        sleep(0.0005)


def _after_fork_in_child() -> None:
    global _connecting
    _connecting = threading.RLock()
    _spoiled.update(_in_use)


os.register_at_fork(
    before=_before_fork, after_in_parent=lambda: _connecting.release(), after_in_child=_after_fork_in_child
)
