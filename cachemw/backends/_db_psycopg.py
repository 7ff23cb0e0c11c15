"""psycopg's connections with a time limit on everything that the server is waited for.

libpq has none, and TCP does not help: the kernel of a frozen server still acknowledges. What exceeds the limit, or is
cancelled, closes the connection: its reply must not reach the next user of it.
"""

from __future__ import annotations

from typing import Any, TypeVar

from psycopg import AsyncConnection, Connection, Error, waiting
from psycopg.abc import PQGen

__all__ = ["limited_async_connection", "limited_connection"]

T = TypeVar("T")

#: Seconds between two looks at signals while waiting; psycopg's own.
_INTERVAL = 0.1


def limited_connection(seconds: float) -> type[Connection[Any]]:
    """A class of connections of which every statement may take so long."""

    class LimitedConnection(Connection[Any]):
        def wait(self, gen: PQGen[T], interval: float = _INTERVAL, timeout: float | None = None) -> T:
            try:
                return waiting.wait(gen, self.pgconn.socket, interval=interval, timeout=timeout or seconds)
            except BaseException as error:
                if _is_in_doubt(error):
                    self.pgconn.finish()
                raise

    return LimitedConnection


def limited_async_connection(seconds: float) -> type[AsyncConnection[Any]]:
    """The same for event loops."""

    class LimitedAsyncConnection(AsyncConnection[Any]):
        async def wait(self, gen: PQGen[T], interval: float = _INTERVAL, timeout: float | None = None) -> T:
            try:
                return await waiting.wait_async(gen, self.pgconn.socket, interval=interval, timeout=timeout or seconds)
            except BaseException as error:
                if _is_in_doubt(error):
                    self.pgconn.finish()
                raise

    return LimitedAsyncConnection


def _is_in_doubt(error: BaseException) -> bool:
    """Is anything but a complete reply the cause? What the server itself says has an SQLSTATE."""
    return not isinstance(error, Error) or error.sqlstate is None
