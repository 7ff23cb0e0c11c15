"""psycopg's connections with a time limit on everything that the server is waited for.

libpq has none, and TCP does not help: the kernel of a frozen server still acknowledges. What exceeds the limit, or is
cancelled, closes the connection: its reply must not reach the next user of it. And the server is asked to stop: it
would not notice that nobody waits any more, and keep its process, a lock that it waits for, and its intention.
"""

from __future__ import annotations

import os
import threading
from contextlib import suppress
from traceback import clear_frames
from typing import Any, Final, Self, TypeVar

from psycopg import AsyncConnection, Connection, Error, capabilities, generators, waiting
from psycopg.abc import PQGen
from psycopg.pq import ConnStatus
from psycopg.pq.abc import PGcancelConn, PGconn

from cachemw._threads import begin

__all__ = ["limited_async_connection", "limited_connection"]

T = TypeVar("T")

#: Seconds between two looks at signals while waiting; psycopg's own.
_INTERVAL = 0.1
#: Servers that are asked to stop, at a time. In an outage most of them do not listen.
_REQUESTS: Final = 4
_requests = threading.BoundedSemaphore(_REQUESTS)


def limited_connection(seconds: float) -> type[Connection[Any]]:
    """A class of connections of which every statement may take so long."""

    class LimitedConnection(Connection[Any]):
        def wait(self, gen: PQGen[T], interval: float = _INTERVAL, timeout: float | None = None) -> T:
            try:
                return waiting.wait(gen, self.pgconn.socket, interval=interval, timeout=timeout or seconds)
            except BaseException as error:
                if _is_in_doubt(error):
                    _give_up(self.pgconn, seconds)
                raise

    return LimitedConnection


def limited_async_connection(seconds: float) -> type[AsyncConnection[Any]]:
    """The same for event loops."""

    class LimitedAsyncConnection(AsyncConnection[Any]):
        @classmethod
        async def connect(cls, *args: Any, **options: Any) -> Self:
            try:
                return await super().connect(*args, **options)
            except BaseException as error:
                clear_frames(error.__traceback__)  # they hold the socket, and the error may live as long as a cycle
                raise

        async def wait(self, gen: PQGen[T], interval: float = _INTERVAL, timeout: float | None = None) -> T:
            try:
                return await waiting.wait_async(gen, self.pgconn.socket, interval=interval, timeout=timeout or seconds)
            except BaseException as error:
                if _is_in_doubt(error):
                    _give_up(self.pgconn, seconds)
                raise

    return LimitedAsyncConnection


def _is_in_doubt(error: BaseException) -> bool:
    """Is anything but a complete reply the cause? What the server itself says has an SQLSTATE."""
    return not isinstance(error, Error) or error.sqlstate is None


def _give_up(connection: PGconn, seconds: float) -> None:
    """Close the connection, and have the server told to stop, in a thread: the caller has waited long enough."""
    request = None
    if connection.status == ConnStatus.OK and capabilities.has_cancel_safe():
        request = connection.cancel_conn()
    connection.finish()
    if request is not None and _requests.acquire(blocking=False):
        try:
            begin(threading.Thread(target=_stop, args=(request, seconds), daemon=True, name="cachemw-cancel"))
        except RuntimeError:  # no thread is to be had, or the interpreter shuts down
            _requests.release()


def _stop(request: PGcancelConn, seconds: float) -> None:
    try:
        with suppress(Error):  # it was an attempt: the server may be gone, or hang
            request.start()
            waiting.wait_conn(generators.cancel(request), interval=_INTERVAL, timeout=seconds)
    finally:
        request.finish()
        _requests.release()


def _after_fork() -> None:
    """The threads that would give theirs back are not in the child."""
    global _requests
    _requests = threading.BoundedSemaphore(_REQUESTS)


os.register_at_fork(after_in_child=_after_fork)
