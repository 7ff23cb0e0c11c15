"""Connections to one Redis server for threads: a thread takes one, has a conversation, and gives it back.

Rule 1: a connection goes back only after its last reply was read; any error, a time-out or a KeyboardInterrupt closes
it, so that no reply is left for the next caller.
Rule 2: a conversation ends by its deadline, give or take a millisecond, however the bytes drip.
Rule 3: who waits for a connection that others use, or open, is sure of none: after a moment he opens his own.
redis-py connects, logs in and does TLS; the packed commands and replies pass over its socket directly, which costs
17 µs where redis-py's own commands cost 29.
"""

from __future__ import annotations

import contextlib
import queue
import threading
from collections import deque
from collections.abc import Callable
from time import monotonic
from typing import Any, Final, NoReturn

from cachemw.backends._redis.wire import (
    CLIENT_ERRORS,
    INCOMPLETE,
    PushNotification,
    ReplyError,
    check_error,
    new_reader,
    unavailable,
)
from cachemw.backends._sending import send_at_once

__all__ = ["Link", "Pool", "PoolOfRedisPy"]

_BUFFER_SIZE: Final = 65536

#: A connection idle for longer (seconds) is looked at before it is used: the server may have closed it.
_FRESH: Final = 0.05

#: The socket's time-out is set anew only if it is off by more than this part of it: each time is a system call.
_TOLERANCE: Final = 0.1

#: Connections being opened at once; in a crowd's first moment one of them is free before the n-th is open.
_DIALS: Final = 4

#: Seconds for which a thread waits for that, but for a quarter of its call's time at most, before it opens its own.
_HESITATION: Final = 0.025

#: It waits for as long again after each that was opened meanwhile, but not longer than so many times in all.
_HESITATIONS: Final = 4

#: Seconds for a look at what may be there when the deadline is over: it may be this process that was not let run (a
#: container that has used its share of the processor), and then the server is not to blame.
_LATE: Final = 0.001


class Link:
    """One connection of redis-py's, connected; a conversation at a time."""

    __slots__ = ("_buffer", "_patience", "_reader", "_socket", "connection", "used_at")

    def __init__(self, connection: Any) -> None:
        self.connection = connection
        self._socket = connection._sock
        self._reader: Any = new_reader()  # typed without the buffers that it takes
        self._buffer = bytearray(_BUFFER_SIZE)
        self._patience = 0.0
        self.used_at = monotonic()

    def _wait_until(self, deadline: float) -> None:
        left = deadline - monotonic()
        if left <= 0:
            raise TimeoutError("no answer in time")
        if abs(left - self._patience) > _TOLERANCE * left:
            self._socket.settimeout(left)
            self._patience = left

    def send(self, payload: bytes, deadline: float) -> None:
        """Send all of it."""
        self._wait_until(deadline)
        sent = send_at_once(self._socket, payload)
        if sent < len(payload):
            self._wait_until(deadline)
            self._socket.sendall(memoryview(payload)[sent:])

    def receive(self, count: int, deadline: float) -> list[Any]:
        """Read `count` replies, one at least; an error reply is one of them."""
        replies: list[Any] = []
        read, reader, buffer = self._reader.gets, self._reader, self._buffer
        late = False
        while True:
            try:
                self._wait_until(deadline)
            except TimeoutError:
                if late:
                    raise
                late, deadline = True, monotonic() + _LATE
                self._wait_until(deadline)
            size = self._socket.recv_into(buffer)
            if not size:
                raise ConnectionResetError("the server closed the connection")
            reader.feed(buffer, 0, size)
            while (reply := read()) is not INCOMPLETE:
                if type(reply) is PushNotification:
                    continue
                if type(reply) is ReplyError:
                    check_error(reply)
                replies.append(reply)
                if len(replies) == count:
                    if reader.has_data():
                        raise ConnectionResetError("the server sent more than was asked for")
                    self.used_at = monotonic()
                    return replies

    def is_stale(self) -> bool:
        """Has the server closed it, or sent what nobody asked for?"""
        self._patience = 0.0  # some versions of redis-py set the socket's time-out to the connection's own
        try:
            return bool(self.connection.can_read(0))
        except CLIENT_ERRORS:
            return True

    def close(self) -> None:
        """Close it now."""
        self.connection.disconnect()

    def abandon(self) -> None:
        """Close this process's copy only: after a fork the connection itself is the parent's."""
        with contextlib.suppress(OSError):
            self._socket.close()


class _Permits:
    """One for each connection that there may be.

    No semaphore: a signal's handler or a finalizer that uses the cache may find its lock taken, by its own thread.
    """

    def __init__(self, limit: int) -> None:
        self._fresh = iter(range(limit))
        self._returned: queue.SimpleQueue[None] = queue.SimpleQueue()  # gevent's, if that has come by now

    def take(self, timeout: float) -> bool:
        if next(self._fresh, None) is not None:
            return True
        try:
            self._returned.get(timeout=timeout)
        except queue.Empty:
            return False
        return True

    def give(self) -> None:
        self._returned.put(None)


class Pool:
    """The idle connections of this process to one server, the last used first."""

    def __init__(
        self, server: str, connect: Callable[[float | None], Any], *, timeout: float, limit: int | None = None
    ) -> None:
        self.server = server
        self.timeout = timeout
        self._connect = connect  # it is told the seconds that each answer may take, if they are fewer
        self._idle: list[Link] = []
        self._dials: set[object] = set()  # one for each connection that is being opened
        self._opened_at = 0.0  # when the last one was, in monotonic time
        self._gates: deque[threading.Lock] = deque()  # each held by the thread that waits for it
        self._limit = limit
        self._permits = None if limit is None else _Permits(limit)

    def take(self) -> Link:
        """A connection of one's own, for one conversation. Raises: BackendUnavailable."""
        if self._permits is not None and not self._permits.take(self.timeout):
            raise unavailable(self.server, f"all {self._limit} connections (max_connections) are in use")
        try:
            return self._live() or self._opened()
        except BaseException:
            self._release()
            raise

    def _live(self) -> Link | None:
        while True:
            try:
                link = self._idle.pop()
            except IndexError:  # there is none, or another thread took the last one
                return None
            if monotonic() - link.used_at < _FRESH or not link.is_stale():
                return link
            link.close()

    def _opened(self) -> Link:
        """A new one, unless another thread gives one back while it is not yet this one's turn to open one.

        A crowd that opened all of its own at once would keep itself from hearing the server's answers in time.
        """
        hesitation, timeout = min(_HESITATION, self.timeout / 4), None
        began = monotonic()
        last = began + (_HESITATIONS - 1) * hesitation
        while len(self._dials) >= _DIALS:
            left = min(max(began, self._opened_at), last) + hesitation - monotonic()
            if left <= 0:
                break
            if (link := self._given_back(left)) is not None:
                return link
            # of a server that has let nobody in meanwhile, not more than a call's time in all
            timeout = None if self._opened_at > began else self.timeout - hesitation
        return self._dial(timeout)

    def _given_back(self, seconds: float) -> Link | None:
        """What there is when another thread has given one back, or has opened one, or after that time."""
        gate = threading.Lock()  # for itself: who rings may be a finalizer in this thread, in the midst of anything
        gate.acquire()
        try:
            self._gates.append(gate)
            link = self._live()  # given back before the gate was there
            if link is None:
                gate.acquire(timeout=seconds)
                link = self._live()
        finally:
            with contextlib.suppress(ValueError):  # it was rung
                self._gates.remove(gate)
            if self._idle:
                self._ring()
        return link

    def _ring(self) -> None:
        """Let the thread look that has waited longest."""
        with contextlib.suppress(IndexError):
            self._gates.popleft().release()

    def _dial(self, timeout: float | None = None) -> Link:
        dial = object()
        try:
            self._dials.add(dial)
            link = Link(self._connect(timeout))
            self._opened_at = link.used_at
            return link
        except CLIENT_ERRORS as error:
            raise unavailable(self.server, error) from error
        finally:
            self._dials.discard(dial)
            self._ring()

    def send(self, payload: bytes) -> tuple[Link, float]:
        """Begin a conversation, to be ended with `receive` by the deadline. Raises: BackendUnavailable."""
        link = self.take()
        try:
            deadline = monotonic() + self.timeout
            link.send(payload, deadline)
        except BaseException as error:
            self._fail(link, error)
        return link, deadline

    def receive(self, link: Link, count: int, deadline: float) -> list[Any]:
        """End it: the replies. Raises: BackendUnavailable."""
        try:
            replies = link.receive(count, deadline)
        except BaseException as error:
            self._fail(link, error)
        self.give(link)
        return replies

    def call(self, payload: bytes, count: int) -> list[Any]:
        """A whole conversation. Raises: BackendUnavailable."""
        link = self.take()
        try:
            deadline = monotonic() + self.timeout
            link.send(payload, deadline)
            replies = link.receive(count, deadline)
        except BaseException as error:
            self._fail(link, error)
        self.give(link)
        return replies

    def _fail(self, link: Link, error: BaseException) -> NoReturn:
        """Whatever interrupts a conversation ends its connection."""
        self.drop(link)
        if isinstance(error, CLIENT_ERRORS):
            raise unavailable(self.server, error) from error
        raise error

    def give(self, link: Link) -> None:
        """Back for the next one."""
        self._idle.append(link)
        if self._gates:
            self._ring()
        self._release()

    def drop(self, link: Link) -> None:
        """Not to be used again."""
        try:
            link.close()
        finally:
            self._release()

    def _release(self) -> None:
        if self._permits is not None:
            self._permits.give()

    def close(self) -> None:
        """Close the idle connections; those in use are given back and kept."""
        with contextlib.suppress(IndexError):
            while self._idle:
                self._idle.pop().close()

    def forget(self) -> None:
        """After a fork: the connections are the parent's, and so are the waiting threads."""
        idle, self._idle = self._idle, []
        for link in idle:
            link.abandon()
        self._dials = set()
        self._gates = deque()
        if self._limit is not None:
            self._permits = _Permits(self._limit)


class PoolOfRedisPy(Pool):
    """The same over a pool of redis-py's (`OPTIONS["pool_class"]`), which counts, waits and refuses in its own way."""

    def __init__(self, server: str, pool: Any, *, timeout: float) -> None:
        super().__init__(server, lambda _: pool.get_connection(), timeout=timeout)
        self._pool = pool

    def _opened(self) -> Link:
        return self._dial()

    def give(self, link: Link) -> None:
        self._pool.release(link.connection)

    def drop(self, link: Link) -> None:
        try:
            link.close()
        finally:
            self._pool.release(link.connection)

    def close(self) -> None:
        self._pool.disconnect()

    def forget(self) -> None:
        self._pool.reset()
