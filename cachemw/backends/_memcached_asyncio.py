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
from collections.abc import Callable, Sequence
from select import POLLIN, poll
from typing import Any, Final, TypeVar

from cachemw.backends import _memcached_commands as commands
from cachemw.backends._memcached_commands import Step, Talk
from cachemw.backends._memcached_replies import Reply, WireError
from cachemw.backends._memcached_ring import Node
from cachemw.backends._memcached_wire import time_left, too_large, total
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

    def __init__(self, timeout: float) -> None:
        self.lost: WireError | None = None
        self._retired = False
        self._loop = asyncio.get_running_loop()
        self._timeout = timeout
        self._calls: deque[_Call] = deque()
        self._rest = bytearray()  # the part of a reply that has come
        self._timer: asyncio.TimerHandle | None = None
        self._transport: asyncio.Transport
        self._input: poll

    def ask(self, payload: bytes, make: Callable[..., Reply], given: tuple[Any, ...]) -> asyncio.Future[Any]:
        """Send the payload; the future of the content of the reply that `make(*given)` expects. Both: WireError."""
        if self.lost is not None:
            raise WireError(str(self.lost))
        self._transport.write(payload)
        future = self._loop.create_future()
        call = _Call(make(*given), future, self._loop.time() + self._timeout)
        self._calls.append(call)
        # one timer for all calls: they all have the same time, so the oldest is always the first to be late
        if self._timer is None:
            self._timer = self._loop.call_at(call.deadline, self._look_at_the_clock)
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
        self.lost = WireError(reason)
        if self._timer is not None:
            self._timer.cancel()
        self._transport.abort()
        while self._calls:
            call = self._calls.popleft()
            if not call.future.done():
                call.future.set_exception(WireError(reason))

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = transport  # type: ignore[assignment]
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
        except WireError as error:
            self.drop(str(error))
            return
        if stream is self._rest:
            del self._rest[:at]
        else:
            self._rest += data[at:]
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
        self._connection: _Connection | None = None
        self._connecting: asyncio.Task[_Connection] | None = None

    async def get(self, keys: Sequence[str]) -> dict[str, Value]:
        """What is stored of them."""
        return await self._ask(commands.get(keys))  # type: ignore[no-any-return]

    async def set(self, entries: Sequence[Entry]) -> list[str]:
        """Store them; returns the keys that the server refused, whose old values are gone."""
        if len(entries) > 1:
            return await self._talk(commands.put_all(entries))
        (entry,) = entries
        if await self._ask(commands.put(entry)):
            return []
        await self.delete(entry[:1])
        return [entry[0]]

    async def add(self, entry: Entry) -> bool:
        """Store it if there is none; did it?"""
        return await self._ask(commands.add(entry))  # type: ignore[no-any-return]

    async def touch(self, key: str, timeout: float | None) -> bool:
        """Give it another timeout; was there one?"""
        return await self._ask(commands.touch(key, timeout))  # type: ignore[no-any-return]

    async def delete(self, keys: Sequence[str]) -> int:
        """Remove them; returns how many were there."""
        if len(keys) > 1:
            return await self._talk(commands.delete_all(keys))
        return int(await self._ask(commands.delete(keys[0])))

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
        """Seconds it has left, None for ever. Raises: LookupError if there is none or the server cannot tell."""
        return time_left(await self._ask(commands.time_left(key)))

    async def commit(
        self, entries: Sequence[Entry], latest: Sequence[str], drops: Sequence[str]
    ) -> tuple[list[str], dict[str, Value]]:
        """`set`, then `get`, then `delete`, in one round trip."""
        return await self._talk(commands.commit(entries, latest, drops))

    async def add_and_get(self, entry: Entry, latest: Sequence[str]) -> tuple[bool, dict[str, Value]]:
        """`add`, then `get`, in one round trip."""
        return await self._talk(commands.add_and_get(entry, latest))

    async def flush(self) -> None:
        """Remove everything."""
        await self._ask(commands.flush())

    def close(self) -> None:
        """Close the connection when the calls on it have their replies; the next call makes another."""
        if self._connection is not None:
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
            return end.value  # type: ignore[no-any-return]

    async def _ask(self, step: Step) -> Any:
        try:
            connection = self._connection
            if connection is None or not connection.is_sound():
                connection = await self._connected()
            return await connection.ask(*step)
        except (WireError, OSError) as error:
            raise BackendUnavailable(f"memcached at {self._node.name}: {error!r}") from error

    async def _connected(self) -> _Connection:
        if self._connecting is None:
            self._connecting = asyncio.create_task(self._connect())
        return await asyncio.shield(self._connecting)  # others may wait for the same connection

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
        return _Connection(self._timeout)
