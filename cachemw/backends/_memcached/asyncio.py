"""memcached for asyncio: one connection per server and event loop, on which the calls of all tasks follow each other.

Rule 1: replies are taken in the order of the calls. A cancelled call still takes its reply, and throws it away: no
other task can get it.
Rule 2: a connection with anything odd about it (late, cut, garbage, a key nobody asked for) is dropped, and every call
on it fails at once.
"""

from __future__ import annotations

import asyncio
import ssl
from collections import deque
from collections.abc import Awaitable, Callable, Sequence
from select import POLLIN, poll
from typing import Any, Final, TypeVar, cast

from cachemw.backends._memcached import commands
from cachemw.backends._memcached.commands import Step, Talk
from cachemw.backends._memcached.replies import Reply, WireError
from cachemw.backends._memcached.ring import Node
from cachemw.backends._memcached.wire import time_left, too_large, total
from cachemw.backends.base import Entry, Value
from cachemw.errors import BackendUnavailable

__all__ = ["AsyncClient"]

T = TypeVar("T")

#: Seconds by which an event loop that is not busy may be late.
_BUSY: Final = 0.01


class _Call:
    """What a task waits for. granted: the event loop was busy once, and it was given the time again."""

    __slots__ = ("deadline", "future", "granted", "reply")

    def __init__(self, reply: Reply, future: asyncio.Future[Any], deadline: float) -> None:
        self.reply = reply
        self.future = future
        self.deadline = deadline
        self.granted = False


class _Connection(asyncio.Protocol):
    """One connection: a queue of calls, and the clock that the oldest of them runs against."""

    def __init__(self, node: Node, timeout: float) -> None:
        self.lost: str | None = None  # why it cannot be used any more
        self._node = node
        self._retired = False
        self._loop = asyncio.get_running_loop()
        self._timeout = timeout
        self._calls: deque[_Call] = deque()
        self._rest = bytearray()  # the part of a reply that has come
        self._timer: asyncio.TimerHandle | None = None
        self._transport: asyncio.Transport
        self._input: poll

    def ask(self, payload: bytes, make: Callable[..., Reply], given: tuple[Any, ...]) -> asyncio.Future[Any]:
        """Send the payload; the future content of the reply that `make(*given)` expects. Both: BackendUnavailable."""
        if self.lost is not None:
            raise _unavailable(self._node, WireError(self.lost))
        try:
            self._transport.write(payload)
            loop = self._loop
            future, deadline = loop.create_future(), loop.time() + self._timeout
            self._calls.append(_Call(make(*given), future, deadline))
            # one timer for all calls: they all have the same time, so the oldest is always the first to be late
            if self._timer is None:
                self._timer = loop.call_at(deadline, self._look_at_the_clock)
        except BaseException:  # a reply may be on its way that is nobody's
            self.drop("was interrupted")
            raise
        return future

    def is_sound(self) -> bool:
        """Whether a command can be sent: nothing is there to be read that nobody asked for, not even its end."""
        if self.lost is None and not self._calls and self._input.poll(0):
            self.drop("ended")  # the event loop has not come to it yet
        return self.lost is None

    def retire(self) -> None:
        """Close it as soon as nobody waits for a reply."""
        self._retired = True
        if not self._calls:
            self.drop("was closed here")

    def drop(self, reason: str) -> None:
        """Close it at once; every call on it fails."""
        if self.lost is not None:
            return
        self.lost = reason
        if self._timer is not None:
            self._timer.cancel()
        self._transport.abort()
        while self._calls:
            call = self._calls.popleft()
            if not call.future.done():
                call.future.set_exception(_unavailable(self._node, WireError(reason)))

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast("asyncio.Transport", transport)
        self._input = poll()
        self._input.register(transport.get_extra_info("socket"), POLLIN)

    def connection_lost(self, exc: Exception | None) -> None:
        self.drop(f"closed the connection ({exc})" if exc else "closed the connection")

    def data_received(self, data: bytes) -> None:
        stream: bytes | bytearray = data
        if self._rest:
            self._rest += data
            stream = self._rest
        at, complete = 0, True
        try:
            while self._calls and complete:
                at, complete = self._calls[0].reply.take(stream, at)
                if complete:
                    call = self._calls.popleft()
                    if not call.future.done():  # cancelled: nobody waits for it any more
                        call.future.set_result(call.reply.content)
            if complete and at < len(stream):
                raise WireError("answered without a question")
            if stream is self._rest:
                del self._rest[:at]
            elif at < len(data):
                self._rest += data[at:]
        except WireError as error:
            self.drop(str(error))
        except BaseException:
            self.drop("was interrupted")
            raise
        if self._retired and not self._calls:
            self.drop("was closed here")

    def _look_at_the_clock(self) -> None:
        if not self._calls:
            self._timer = None
            return
        oldest, now = self._calls[0], self._loop.time()
        if now > oldest.deadline + _BUSY and not oldest.granted:
            # it is not the server that is late but this event loop: give it the time again, once
            oldest.deadline, oldest.granted = now + self._timeout, True
        if now >= oldest.deadline:
            self.drop(f"did not answer within {self._timeout * 1000:g} ms")
        else:
            self._timer = self._loop.call_at(oldest.deadline, self._look_at_the_clock)


class AsyncClient:
    """One server, on one event loop.

    timeout, connect_timeout: seconds for a command and its reply, and to connect.
    Every method raises BackendUnavailable if the server does not answer.
    """

    def __init__(
        self, node: Node, *, timeout: float, connect_timeout: float, tls: ssl.SSLContext | None = None
    ) -> None:
        self._node = node
        self._timeout = timeout
        self._connect_timeout = connect_timeout
        self._tls = tls
        self._most = commands.AT_ONCE if tls is None else commands.RECORD
        self._connection: _Connection | None = None
        self._connecting: asyncio.Task[_Connection] | None = None
        self._waiting = 0  # tasks that are about to use the connection that is being made

    def get(self, keys: Sequence[str]) -> Awaitable[dict[str, Value]]:
        """What is stored of them."""
        return self._ask(commands.get(keys))

    async def set(self, entries: Sequence[Entry]) -> list[str]:
        """Store them; returns the keys that the server refused, whose old values are gone."""
        if len(entries) > 1:
            return await self._talk(commands.put_all(entries, self._most))
        (entry,) = entries
        if await self._ask(commands.put(entry)):
            return []
        await self.delete(entry[:1])
        return [entry[0]]

    def add(self, entry: Entry) -> Awaitable[bool]:
        """Store it if there is none; did it?"""
        return self._ask(commands.add(entry))

    def touch(self, key: str, timeout: float | None) -> Awaitable[bool]:
        """Give it another timeout; was there one?"""
        return self._ask(commands.touch(key, timeout))

    def delete(self, keys: Sequence[str]) -> Awaitable[int]:
        """Remove them; returns how many were there."""
        return (
            self._talk(commands.delete_all(keys, self._most)) if len(keys) > 1 else self._ask(commands.delete(keys[0]))
        )

    async def incr(self, key: str, delta: int) -> int:
        """Add to an integer. Raises: KeyError, TypeError, OverflowError as `BaseCache._incr`."""
        sum_ = total(await self._count(key, delta), delta)
        if sum_ is None:
            await self._count(key, -delta)
            raise too_large(key, delta)
        return sum_

    async def _count(self, key: str, delta: int) -> int:
        return commands.counted(key, await self._ask(commands.incr(key, delta)))

    async def time_left(self, key: str) -> float | None:
        """Seconds it has left, None for ever, 0 if it is gone. Raises: LookupError if the server cannot tell."""
        return time_left(await self._ask(commands.time_left(key)))

    def commit(
        self, entries: Sequence[Entry], latest: Sequence[str], drops: Sequence[str]
    ) -> Awaitable[tuple[list[str], dict[str, Value]]]:
        """`set`, then `get`, then `delete`, in one round trip."""
        return self._talk(commands.commit(entries, latest, drops, self._most))

    def add_and_get(self, entry: Entry, latest: Sequence[str]) -> Awaitable[tuple[bool, dict[str, Value]]]:
        """`add`, then `get`, in one round trip."""
        return self._talk(commands.add_and_get(entry, latest, self._most))

    def flush(self) -> Awaitable[bool]:
        """Remove everything."""
        return self._ask(commands.flush())

    def close(self) -> None:
        """Close the connection when the calls on it have their replies; the next call makes another.

        One that somebody is waiting for stays: who closes the cache meanwhile is no failure of the server's.
        """
        if self._connection is not None and not self._waiting:
            self._connection.retire()
            self._connection = None

    def abort(self) -> None:
        """Close the connection now: the event loop ends."""
        if self._connection is not None:
            self._connection.drop("was closed with its event loop")
            self._connection = None

    async def _talk(self, talk: Talk[T]) -> T:
        try:
            step = next(talk)
            while True:
                step = talk.send(await self._ask(step))
        except StopIteration as end:
            result: T = end.value
            return result

    def _ask(self, step: Step) -> Awaitable[Any]:
        connection = self._connection
        if connection is not None and connection.is_sound():
            return connection.ask(*step)  # a future: no coroutine more than it needs
        return self._ask_anew(step)

    async def _ask_anew(self, step: Step) -> Any:
        try:
            connection = await self._connected()
        except OSError as error:
            raise _unavailable(self._node, error) from error
        return await connection.ask(*step)

    async def _connected(self) -> _Connection:
        if self._connecting is None:
            self._connecting = asyncio.create_task(self._connect())
        self._waiting += 1
        try:
            return await asyncio.shield(self._connecting)  # others may wait for the same connection
        finally:
            self._waiting -= 1

    async def _connect(self) -> _Connection:
        loop = asyncio.get_running_loop()
        address = self._node.address
        try:
            async with asyncio.timeout(self._connect_timeout):
                if isinstance(address, str):
                    _, connection = await loop.create_unix_connection(self._protocol, address)
                else:
                    _, connection = await loop.create_connection(self._protocol, *address, ssl=self._tls)
        finally:
            self._connecting = None
        self._connection = connection
        return connection

    def _protocol(self) -> _Connection:
        return _Connection(self._node, self._timeout)


def _unavailable(node: Node, error: Exception) -> BackendUnavailable:
    failure = BackendUnavailable(f"memcached at {node.name}: {error!r}")
    failure.__cause__ = error
    return failure
