"""The connection to one Redis server for an event loop's tasks: one for all of them, each reply to its own call.

Rule 1: replies come in the order of the calls. A cancelled call keeps its place in the queue and its reply is thrown
away, so nobody gets another's reply, and the connection need not be dropped.
Rule 2: a call waits until its deadline; if nothing at all came since it was sent, the connection is dropped with
everything on it, else (a large reply before it is on its way) only that call fails; a reply that is later than ten
such times is given up with its connection.
redis-py connects, logs in and does TLS over asyncio's streams; then this protocol takes over the transport.
"""

from __future__ import annotations

import asyncio
import contextlib
from asyncio import AbstractEventLoop, Future, Task, TimerHandle
from collections import Counter, deque
from collections.abc import AsyncGenerator, Awaitable, Callable
from typing import Any, Final

from cachemw.backends._redis.wire import (
    CLIENT_ERRORS,
    INCOMPLETE,
    PushNotification,
    ReplyError,
    check_error,
    new_reader,
    unavailable,
)

__all__ = ["Channel", "Channels"]


#: Time-outs after which a reply that is still coming is waited for no longer.
_GIVEN_UP: Final = 9


class _Call:
    """One payload under way: how many replies it still wants, and who waits for them."""

    __slots__ = ("count", "deadline", "future", "replies")

    def __init__(self, future: Future[list[Any]], count: int, deadline: float) -> None:
        self.future = future
        self.count = count
        self.deadline = deadline
        self.replies: list[Any] = []


class Channel(asyncio.Protocol):
    """One connection, shared by all tasks of its loop."""

    def __init__(self, server: str, connection: Any, timeout: float) -> None:
        self.closed = False
        self._retired = False
        self._server = server
        self._timeout = timeout
        self._loop = asyncio.get_running_loop()
        self._calls: deque[_Call] = deque()
        self._unsent: list[bytes] = []
        self._reader = new_reader()
        self._heard = 0.0  # when bytes came last, in the loop's time
        self._timer: TimerHandle | None = None
        self._gone = asyncio.Event()
        self._writer = connection._writer  # its end would close the transport
        connection._writer = connection._reader = None  # so would the connection's
        self._transport = self._writer.transport
        self._transport.set_protocol(self)
        self._end = self._until_the_loop_ends()
        with contextlib.suppress(StopIteration):
            self._end.asend(None).send(None)  # up to its `yield`, without a task

    def call(self, payload: bytes, count: int) -> Future[list[Any]]:
        """Send, and give the future of `count` replies. It may fail with BackendUnavailable."""
        future: Future[list[Any]] = self._loop.create_future()
        if self.closed:
            future.set_exception(unavailable(self._server, "the connection was dropped"))
            return future
        deadline = self._loop.time() + self._timeout
        if not self._calls:
            self._transport.write(payload)
        else:  # others are waiting already: what this turn of the loop still adds leaves in one system call
            if not self._unsent:
                self._loop.call_soon(self._flush)
            self._unsent.append(payload)
        self._calls.append(_Call(future, count, deadline))
        if self._timer is None:
            self._timer = self._loop.call_at(deadline, self._look_at_clock)
        return future

    def _flush(self) -> None:
        if not self.closed:
            self._transport.writelines(self._unsent)
        self._unsent.clear()

    def data_received(self, data: bytes) -> None:
        """asyncio: bytes came."""
        self._heard = self._loop.time()
        try:
            self._reader.feed(data)
            self._settle()
        except CLIENT_ERRORS as error:
            self._fail(error)
        self._end_if_retired()

    def _settle(self) -> None:
        read, calls = self._reader.gets, self._calls
        while (reply := read()) is not INCOMPLETE:
            if type(reply) is PushNotification:
                continue
            if type(reply) is ReplyError:
                check_error(reply)
            if not calls:
                raise ConnectionResetError("the server sent more than was asked for")
            call = calls[0]
            call.replies.append(reply)
            if len(call.replies) == call.count:
                calls.popleft()
                if not call.future.done():
                    call.future.set_result(call.replies)

    def _look_at_clock(self) -> None:
        """Fail the calls whose time is over. One timer serves all calls: arming one per call costs 1.4 µs each."""
        self._timer = None
        now = self._loop.time()
        if self._calls and now > self._calls[0].deadline + _GIVEN_UP * self._timeout:
            self._fail(TimeoutError("no answer in time"))
            return
        for call in self._calls:
            if call.deadline > now:
                self._timer = self._loop.call_at(call.deadline, self._look_at_clock)
                return
            if not call.future.done():
                if self._heard < call.deadline - self._timeout:
                    self._fail(TimeoutError("no answer in time"))
                    return
                call.future.set_exception(unavailable(self._server, "no answer in time"))
        self._end_if_retired()

    def eof_received(self) -> None:
        """asyncio: the server closed its end."""
        self._fail(ConnectionResetError("the server closed the connection"))

    def connection_lost(self, exc: Exception | None) -> None:
        """asyncio: the connection is gone."""
        self._gone.set()
        self._fail(exc or ConnectionResetError("the server closed the connection"))

    def _fail(self, error: BaseException) -> None:
        self.closed = True
        self._transport.abort()
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        while self._calls:
            future = self._calls.popleft().future
            if not future.done():
                future.set_exception(unavailable(self._server, error))

    def retire(self) -> None:
        """Close it as soon as nobody waits for an answer any more."""
        self._retired = True
        self._end_if_retired()

    def _end_if_retired(self) -> None:
        if self._retired and all(call.future.done() for call in self._calls):
            self.abort()

    def abort(self) -> None:
        """Close it; calls under way fail."""
        self._fail(ConnectionAbortedError("the connection was dropped"))

    async def close(self) -> None:
        """Close it as soon as nobody waits for an answer any more, and wait until it is."""
        self.retire()
        await self._gone.wait()

    async def _until_the_loop_ends(self) -> AsyncGenerator[None, None]:
        """Closed when the loop shuts its generators down, as `asyncio.run` does: nobody could close it later."""
        try:
            yield
        finally:
            self.abort()
            await self._gone.wait()


class Channels:
    """This process's channels to one server, one per event loop, made when first used."""

    def __init__(self, server: str, connect: Callable[[], Awaitable[Any]], *, timeout: float, patience: float) -> None:
        self._server = server
        self._connect = connect
        self._timeout = timeout
        self._patience = patience
        self._channels: dict[AbstractEventLoop, Channel] = {}
        self._dials: dict[AbstractEventLoop, Task[Channel]] = {}
        self._waiting: Counter[AbstractEventLoop] = Counter()  # tasks that are about to use what is dialled for them

    async def call(self, payload: bytes, count: int) -> list[Any]:
        """One conversation. Raises: BackendUnavailable."""
        channel = self._channels.get(asyncio.get_running_loop())
        if channel is None or channel.closed:
            channel = await self._dialled()
        return await channel.call(payload, count)

    async def _dialled(self) -> Channel:
        """Wait for the one dial of all tasks that find no channel; a cancelled one leaves it to the others."""
        loop = asyncio.get_running_loop()
        dial = self._dials.get(loop)
        if dial is None:
            self._forget_ended_loops()
            dial = self._dials[loop] = loop.create_task(self._dial(loop))
            dial.add_done_callback(_retrieve)
        self._waiting[loop] += 1
        try:
            return await asyncio.shield(dial)
        finally:
            self._waiting[loop] -= 1
            if not self._waiting[loop]:
                del self._waiting[loop]

    async def _dial(self, loop: AbstractEventLoop) -> Channel:
        try:
            async with asyncio.timeout(self._patience):
                connection = await self._connect()
            channel = self._channels[loop] = Channel(self._server, connection, self._timeout)
            return channel
        except CLIENT_ERRORS as error:
            raise unavailable(self._server, error) from error
        finally:
            self._dials.pop(loop, None)

    def _forget_ended_loops(self) -> None:
        for loop in list(self._channels):
            if loop.is_closed():
                self._channels.pop(loop, None)

    async def close(self) -> None:
        """Close the running loop's channel; one that a task is waiting for stays, to be used."""
        loop = asyncio.get_running_loop()
        if loop not in self._waiting and (dial := self._dials.get(loop)) is not None:
            await asyncio.wait((dial,))
        if loop not in self._waiting and (channel := self._channels.pop(loop, None)) is not None:
            await channel.close()

    def retire(self) -> None:
        """Close every loop's channel when its calls are answered, from any thread; the next call has a new one."""
        retired, self._channels = self._channels, {}
        for loop, channel in retired.items():
            with contextlib.suppress(RuntimeError):  # the loop has ended
                loop.call_soon_threadsafe(channel.retire)

    def forget(self) -> None:
        """After a fork: the loops and their connections are the parent's."""
        self._channels = {}
        self._dials = {}
        self._waiting = Counter()


def _retrieve(dial: Task[Channel]) -> None:
    """Nobody may be left to see why a dial failed; asyncio would complain."""
    if not dial.cancelled():
        dial.exception()
