"""memcached for asyncio: one connection per server and event loop, on which the calls of all tasks follow each other.

Rule 1: replies are taken in the order of the calls. A cancelled call still takes its reply, and throws it away: no
other task can get it.
Rule 2: a connection with anything odd about it (late, cut, garbage, a key nobody asked for) is dropped, and every call
on it fails at once.
"""

from __future__ import annotations

import asyncio
import re
import ssl
from abc import ABC, abstractmethod
from collections import deque
from collections.abc import Sequence
from select import POLLIN, poll
from typing import Any, Final

from cachemw.backends._memcached_ring import Node
from cachemw.backends._memcached_wire import Delta, Stored, from_wire, time_left
from cachemw.backends.base import Value
from cachemw.errors import BackendUnavailable

__all__ = ["AsyncClient"]

#: The longest line that a server has reason to send; a longer one is no memcached's.
_LONGEST_LINE: Final = 2048

#: Seconds by which an event loop that is not busy may be late.
_BUSY: Final = 0.01

_STORED: Final = re.compile(rb"STORED|NOT_STORED|SERVER_ERROR .*")
_DELETED: Final = re.compile(rb"DELETED|NOT_FOUND")
_TOUCHED: Final = re.compile(rb"TOUCHED|NOT_FOUND")
_COUNTED: Final = re.compile(rb"[0-9]{1,20}|NOT_FOUND|CLIENT_ERROR .*")
_FLUSHED: Final = re.compile(rb"OK")
_TIME_LEFT: Final = re.compile(rb"HD t-?[0-9]{1,10}|EN|ERROR|CLIENT_ERROR .*")


class WireError(Exception):
    """The server closed the connection, was late, or did not speak memcached's protocol."""


class _Call(ABC):
    """What a task waits for; it takes its own reply from the stream."""

    __slots__ = ("deadline", "future", "granted", "reply")
    deadline: float
    granted: bool
    future: asyncio.Future[Any]
    reply: Any

    @abstractmethod
    def take(self, data: bytes | bytearray, at: int) -> tuple[int, bool]:
        """Read on from `at`; returns how far it got, and whether the reply is complete. Raises: WireError."""


def _line_end(data: bytes | bytearray, at: int) -> int:
    """Where the line that begins at `at` ends, -1 if its end has not come. Raises: WireError if it is too long."""
    end = data.find(b"\r\n", at, at + _LONGEST_LINE)
    if end < 0 and len(data) - at >= _LONGEST_LINE:
        raise WireError(f"answered {bytes(data[at : at + 60])!r}…")
    return end


class _Lines(_Call):
    """A line for each of `count` commands, and only such as the command can have."""

    __slots__ = ("_count", "_expected")

    def __init__(self, count: int, expected: re.Pattern[bytes]) -> None:
        self._count = count
        self._expected = expected
        self.reply: list[bytes] = []

    def take(self, data: bytes | bytearray, at: int) -> tuple[int, bool]:
        while len(self.reply) < self._count:
            end = _line_end(data, at)
            if end < 0:
                return at, False
            line = bytes(data[at:end])
            if not self._expected.fullmatch(line):
                raise WireError(f"answered {line[:60]!r}")
            self.reply.append(line)
            at = end + 2
        return at, True


class _Values(_Call):
    """`VALUE key flags size`, a line with the bytes, and so on until `END`."""

    __slots__ = ("_names",)

    def __init__(self, names: dict[bytes, str]) -> None:
        self._names = names
        self.reply: dict[str, Value] = {}

    def take(self, data: bytes | bytearray, at: int) -> tuple[int, bool]:
        while (end := _line_end(data, at)) >= 0:
            line = bytes(data[at:end])
            if line == b"END":
                return end + 2, True
            key, flags, size = self._header(line)
            stop = end + 2 + size
            if len(data) < stop + 2:
                break
            if data[stop : stop + 2] != b"\r\n":
                raise WireError("sent a value that does not end where it says")
            self.reply[key] = from_wire(bytes(data[end + 2 : stop]), flags)
            at = stop + 2
        return at, False

    def _header(self, line: bytes) -> tuple[str, int, int]:
        words = line.split(b" ")
        if len(words) == 4 and words[0] == b"VALUE" and words[1] in self._names:
            flags, size = words[2:]
            if flags.isdigit() and size.isdigit() and len(flags) <= 10 and len(size) <= 10:
                return self._names[words[1]], int(flags), int(size)
        raise WireError(f"answered {line[:60]!r}")


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

    async def ask(self, command: bytes, call: _Call) -> Any:
        """Send the command and wait for its reply. Raises: WireError."""
        if self.lost is not None:
            raise WireError(str(self.lost))
        call.future = self._loop.create_future()
        call.deadline, call.granted = self._loop.time() + self._timeout, False
        self._calls.append(call)
        # one timer for all calls: they all have the same time, so the oldest is always the first to be late
        if self._timer is None:
            self._timer = self._loop.call_at(call.deadline, self._look_at_the_clock)
        self._transport.write(command)
        return await call.future

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
                at, complete = self._calls[0].take(stream, at)
                if complete:
                    call = self._calls.popleft()
                    if not call.future.done():  # cancelled: nobody waits for it any more
                        call.future.set_result(call.reply)
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
        names = {key.encode(): key for key in keys}
        reply: dict[str, Value] = await self._ask(b"get %b\r\n" % b" ".join(names), _Values(names))
        return reply

    async def set(self, entries: Sequence[Stored]) -> list[str]:
        """Store them; returns the keys that the server refused, whose old values are gone."""
        commands = b"".join([_store(b"set", entry) for entry in entries])
        reply = await self._ask(commands, _Lines(len(entries), _STORED))
        refused = [entry.key for entry, line in zip(entries, reply, strict=True) if line != b"STORED"]
        if refused:
            await self.delete(refused)
        return refused

    async def add(self, entry: Stored) -> bool:
        """Store it if there is none; did it?"""
        return await self._line(_store(b"add", entry), _STORED) == b"STORED"

    async def touch(self, key: str, expiry: int) -> bool:
        """Give it another expiry; was there one?"""
        return await self._line(b"touch %b %d\r\n" % (key.encode(), expiry), _TOUCHED) == b"TOUCHED"

    async def delete(self, keys: Sequence[str]) -> int:
        """Remove them; returns how many were there."""
        commands = b"".join([b"delete %b\r\n" % key.encode() for key in keys])
        reply: list[bytes] = await self._ask(commands, _Lines(len(keys), _DELETED))
        return reply.count(b"DELETED")

    async def incr(self, key: str, delta: int) -> int:
        """Add to an integer. Raises: KeyError, TypeError, OverflowError as `BaseCache._incr`."""
        addition = Delta(delta)
        total = addition.total(await self._count(key, addition.unsigned))
        if total is None:
            await self._count(key, addition.undo)
            raise OverflowError(f"{key!r} {delta:+} does not fit into 64 bits")
        return total

    async def time_left(self, key: str) -> float | None:
        """Seconds it has left, None for ever. Raises: LookupError if there is none or the server cannot tell."""
        return time_left(await self._line(b"mg %b t\r\n" % key.encode(), _TIME_LEFT))

    async def flush(self) -> None:
        """Remove everything."""
        await self._line(b"flush_all\r\n", _FLUSHED)

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

    async def _count(self, key: str, delta: int) -> int:
        line = await self._line(b"incr %b %d\r\n" % (key.encode(), delta), _COUNTED)
        if line == b"NOT_FOUND":
            raise KeyError(key)
        if not line.isdigit():
            raise TypeError(f"what is stored under {key!r} is no integer")
        return int(line)

    async def _line(self, command: bytes, expected: re.Pattern[bytes]) -> bytes:
        reply: list[bytes] = await self._ask(command, _Lines(1, expected))
        return reply[0]

    async def _ask(self, command: bytes, call: _Call) -> Any:
        try:
            connection = self._connection
            if connection is None or not connection.is_sound():
                connection = await self._connected()
            return await connection.ask(command, call)
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


def _store(command: bytes, entry: Stored) -> bytes:
    key, data, flags, expiry = entry
    return b"%b %b %d %d %d\r\n%b\r\n" % (command, key.encode(), flags, expiry, len(data), data)
