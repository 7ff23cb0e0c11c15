"""One Redis server: how it is connected to, its connections, and conversations with several servers at once.

An algorithm that has to ask servers (`_redis.routes`, `_redis.operations`) is written once, as a generator: it yields
what to ask of whom, all at the same time, and is sent what they answered. `run` and `arun` do the asking.
"""

from __future__ import annotations

import asyncio
import inspect
from collections.abc import Generator, Sequence
from functools import partial
from typing import Any, Final, NamedTuple, TypeVar

import redis.asyncio.connection as redis_tasks
import redis.connection as redis_threads
from redis.exceptions import RedisError, ResponseError

from cachemw.backends._dialling import is_looked_up, within
from cachemw.backends._redis.options import Address, Settings
from cachemw.backends._redis.tasks import Channels
from cachemw.backends._redis.threads import Link, Pool, PoolOfRedisPy
from cachemw.errors import BackendUnavailable, ImproperlyConfigured

__all__ = ["Answer", "Ask", "Node", "Steps", "arun", "run"]

T = TypeVar("T")

#: redis-py would tell the server its own name and version, in two round trips, and look the version up in its package's
#: files each time: four fifths of the processor time that a connection costs. Older versions have two options for it.
_UNNAMED: Final = (
    {"driver_info": None}
    if "driver_info" in inspect.signature(redis_threads.AbstractConnection.__init__).parameters
    else {"lib_name": None, "lib_version": None}
)


class Node:
    """One server, and this process's connections to it."""

    def __init__(self, address: Address, settings: Settings, pool_class: Any = None) -> None:
        self.address = address
        self.name = address if isinstance(address, str) else f"{address[0]}:{address[1]}"
        self.settings = settings
        self._is_looked_up = not isinstance(address, str) and is_looked_up(address[0])
        #: Until then (monotonic time) it is left alone, as it has just failed.
        self.rests_until = 0.0
        self._protocol = settings.connection.get("protocol", 3)
        self._connection()  # what redis-py refuses, it is to refuse now
        timeout = settings.timeout
        if pool_class is None:
            self.threads = Pool(self.name, self.connect, timeout=timeout, limit=settings.max_connections)
        else:
            self.threads = PoolOfRedisPy(self.name, self._redis_pool(pool_class), timeout=timeout)
        self.tasks = Channels(self.name, self.aconnect, timeout=timeout, patience=settings.connect_timeout + timeout)

    def retire(self) -> None:
        """Drop all its connections: they lead to where the leader has been."""
        self.threads.close()
        self.tasks.retire()

    def forget(self) -> None:
        """After a fork, in the child."""
        self.threads.forget()
        self.tasks.forget()

    def _arguments(self, timeout: float | None = None) -> dict[str, Any]:
        where = (
            {"path": self.address}
            if isinstance(self.address, str)
            else dict(zip(("host", "port"), self.address, strict=True))
        )
        return {
            **_UNNAMED,
            **self.settings.connection,
            **where,
            "protocol": self._protocol,
            "socket_timeout": self.settings.timeout if timeout is None else timeout,
            "socket_connect_timeout": self.settings.connect_timeout,
        }

    def _class(self, of: Any) -> Any:
        if isinstance(self.address, str):
            return of.UnixDomainSocketConnection
        return of.SSLConnection if self.settings.tls else of.Connection

    def _connection(self, timeout: float | None = None) -> Any:
        try:
            return self._class(redis_threads)(**self._arguments(timeout))
        except (RedisError, TypeError) as error:
            raise ImproperlyConfigured(f"An option of RedisCache does not fit {self.name}: {error}") from error

    def _redis_pool(self, pool_class: Any) -> Any:
        arguments = self._arguments()
        if (limit := self.settings.max_connections) is not None:
            arguments["max_connections"] = limit
        if isinstance(pool_class, type) and issubclass(pool_class, redis_threads.BlockingConnectionPool):
            arguments["timeout"] = self.settings.timeout
        return pool_class(connection_class=self._class(redis_threads), **arguments)

    def connect(self, timeout: float | None = None) -> Any:
        """A connection of redis-py's, connected. timeout: seconds for each answer. Raises: `CLIENT_ERRORS`."""
        if not self._is_looked_up:
            return self._connected(timeout)
        settings = self.settings
        seconds = settings.connect_timeout + (settings.timeout if timeout is None else timeout)
        return within(seconds, partial(self._connected, timeout), lambda made: made.disconnect())

    def _connected(self, timeout: float | None) -> Any:
        connection = self._connection(timeout)
        try:
            connection.connect()
        except ResponseError as error:
            if not self._fall_back(error):
                raise
            return self._connected(timeout)
        except BaseException:
            connection.disconnect()
            raise
        return connection

    async def aconnect(self) -> Any:
        """The same of the running loop's."""
        arguments = self._arguments()
        arguments.pop("parser_class", None)  # it is one for threads
        connection = self._class(redis_tasks)(**arguments)
        try:
            await connection.connect()
        except ResponseError as error:
            if not self._fall_back(error):
                raise
            return await self.aconnect()
        except BaseException:
            await connection.disconnect(nowait=True)
            raise
        return connection

    def _fall_back(self, error: ResponseError) -> bool:
        """Redis before 6, and some proxies, do not know HELLO: speak RESP2 to this server from now on; was it that?"""
        refused = self._protocol == 3 and ("HELLO" in str(error).upper() or "NOPROTO" in str(error))
        if refused:
            self._protocol = 2
        return refused


class Ask(NamedTuple):
    """What to send to a server, and how many replies it will give."""

    node: Node
    payload: bytes
    replies: int


#: What a server answered: its replies, or why there are none.
Answer = list[Any] | BackendUnavailable

#: An algorithm that yields what to ask (all of it at the same time), is sent the answers, and returns a T.
Steps = Generator[Sequence[Ask], Sequence[Answer], T]


def run(steps: Steps[T]) -> T:
    """Run it in this thread."""
    try:
        asks = next(steps)
        while True:
            asks = steps.send(_ask_all(asks) if len(asks) != 1 else (_ask_one(*asks[0]),))
    except StopIteration as end:
        return end.value  # type: ignore[no-any-return]


def _ask_one(node: Node, payload: bytes, replies: int) -> Answer:
    try:
        return node.threads.call(payload, replies)
    except BackendUnavailable as error:
        return error


def _ask_all(asks: Sequence[Ask]) -> list[Answer]:
    """Send to all before reading from any: several servers, one round trip."""
    answers: list[Any] = [None] * len(asks)
    begun: dict[int, tuple[Link, float]] = {}
    try:
        for index, (node, payload, _) in enumerate(asks):
            try:
                begun[index] = node.threads.send(payload)
            except BackendUnavailable as error:
                answers[index] = error
        for index in tuple(begun):
            node, _, count = asks[index]
            link, deadline = begun.pop(index)
            try:
                answers[index] = node.threads.receive(link, count, deadline)
            except BackendUnavailable as error:
                answers[index] = error
    finally:
        for index, (link, _) in begun.items():  # left in the middle: KeyboardInterrupt, a greenlet's time-out
            asks[index].node.threads.drop(link)
    return answers


async def arun(steps: Steps[T]) -> T:
    """Run it in this task."""
    try:
        asks = next(steps)
        while True:
            if len(asks) == 1:
                answers = [await _aask_one(*asks[0])]
            else:
                answers = await asyncio.gather(*(_aask_one(*ask) for ask in asks))
            asks = steps.send(answers)
    except StopIteration as end:
        return end.value  # type: ignore[no-any-return]


async def _aask_one(node: Node, payload: bytes, replies: int) -> Answer:
    try:
        return await node.tasks.call(payload, replies)
    except BackendUnavailable as error:
        return error
