"""The blocking client libraries, each behind the same few calls: a pool of connections to one server.

Rule 1: a connection is used by one thread at a time. After anything but a complete reply it is closed, not reused:
an exception, an interrupt, a byte that nobody asked for.
Rule 2: whatever the library raises, and it raises much on a garbled reply, becomes BackendUnavailable here.
Rule 3: no connection is shared with a child process.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from operator import methodcaller
from select import POLLIN, poll
from time import monotonic
from typing import Any, Final, Generic, TypeVar

from pymemcache.client.base import Client  # type: ignore[import-untyped]

from cachemw.backends import _memcached_commands as commands
from cachemw.backends._memcached_commands import Reply, Talk, WireError
from cachemw.backends._memcached_ring import Node
from cachemw.backends._memcached_wire import Stored
from cachemw.backends.base import Value
from cachemw.errors import BackendUnavailable

__all__ = ["Pool", "PyMemcachePool"]

C = TypeVar("C")
T = TypeVar("T")

#: Bytes read at a time.
_CHUNK: Final = 65_536
#: The socket's time-out is set anew only if it is off by more than this part of it: each time is a system call.
_TOLERANCE: Final = 0.1


class Pool(ABC, Generic[C]):
    """Connections to one server; made when needed, and kept when idle, up to `size` of them."""

    def __init__(self, node: Node, *, size: int) -> None:
        self._node = node
        self._idle: deque[C] = deque()
        self._size = size

    @abstractmethod
    def get(self, keys: Sequence[str]) -> dict[str, Value]:
        """What is stored of them."""

    @abstractmethod
    def set(self, entries: Sequence[Stored]) -> list[str]:
        """Store them; returns the keys that the server refused, whose old values are gone."""

    @abstractmethod
    def add(self, entry: Stored) -> bool:
        """Store it if there is none; did it?"""

    @abstractmethod
    def touch(self, key: str, expiry: int) -> bool:
        """Give it another expiry; was there one?"""

    @abstractmethod
    def delete(self, keys: Sequence[str]) -> int:
        """Remove them; returns how many were there."""

    @abstractmethod
    def incr(self, key: str, delta: int) -> int:
        """Add to an integer. Raises: KeyError, TypeError, OverflowError as `BaseCache._incr`."""

    @abstractmethod
    def time_left(self, key: str) -> float | None:
        """Seconds it has left, None for ever. Raises: LookupError if there is none or the server cannot tell."""

    def commit(
        self, entries: Sequence[Stored], latest: Sequence[str], drops: Sequence[str]
    ) -> tuple[list[str], dict[str, Value]]:
        """`set`, then `get`, then `delete`, in one round trip where the client can."""
        refused = self.set(entries) if entries else []
        found = self.get(latest) if latest else {}
        if drops:
            self.delete(drops)
        return refused, found

    def add_and_get(self, entry: Stored, latest: Sequence[str]) -> tuple[bool, dict[str, Value]]:
        """`add`, then `get`, in one round trip where the client can."""
        return self.add(entry), self.get(latest) if latest else {}

    @abstractmethod
    def flush(self) -> None:
        """Remove everything."""

    def close(self) -> None:
        """Close the idle connections; the next calls make others."""
        with suppress(IndexError):  # another thread may take the last one
            while self._idle:
                self._drop(self._idle.pop())

    @abstractmethod
    def _connect(self) -> C:
        """A new client, with or without a connection yet."""

    @abstractmethod
    def _is_sound(self, client: C) -> bool:
        """May an idle client be used?"""

    @abstractmethod
    def _drop(self, client: C) -> None:
        """Close its connection."""

    def _run(self, work: Callable[[C], T]) -> T:
        client = self._take()
        try:
            result = work(client)
        except BaseException as error:  # an interrupt leaves a reply on the way, too
            self._drop(client)
            if isinstance(error, Exception):
                raise BackendUnavailable(f"memcached at {self._node.name}: {error!r}") from error
            raise
        if len(self._idle) < self._size:
            self._idle.append(client)
        else:
            self._drop(client)
        return result

    def _take(self) -> C:
        while True:
            try:
                client = self._idle.pop()
            except IndexError:
                return self._connect()
            if self._is_sound(client):
                return client
            self._drop(client)


class _Client(Client):  # type: ignore[misc]  # it has no types
    """A connection that pymemcache makes (addresses, TLS, keep-alive); payloads and replies pass over its socket.

    A reply has one deadline, however its bytes drip.
    """

    def _connect(self) -> None:
        super()._connect()
        self._patience = self.timeout
        self._input = poll()
        self._input.register(self.sock, POLLIN)

    def is_sound(self) -> bool:
        """Whether there is a connection without anything to read: neither its end nor a late reply."""
        return self.sock is not None and not self._input.poll(0)

    def ask(self, payload: bytes, reply: Reply) -> Any:
        """Send the payload; the reply's content. Raises: WireError, OSError."""
        if self.sock is None:
            self._connect()
        deadline = monotonic() + self.timeout
        self._wait_until(deadline)
        self.sock.sendall(payload)
        stream: bytes | bytearray = b""
        complete = False
        while not complete:
            self._wait_until(deadline)
            data = self.sock.recv(_CHUNK)
            if not data:
                raise WireError("closed the connection")
            if stream:
                stream += data
            else:
                stream = data
            at, complete = reply.take(stream, 0)
            if not complete:
                stream = bytearray(stream[at:]) if at or type(stream) is bytes else stream
        if at < len(stream):
            raise WireError("answered more than it was asked")
        return reply.content

    def _wait_until(self, deadline: float) -> None:
        left = deadline - monotonic()
        if left <= 0:
            raise TimeoutError("the reply did not end in time")
        if abs(left - self._patience) > _TOLERANCE * left:
            self.sock.settimeout(left)
            self._patience = left


class PyMemcachePool(Pool[_Client]):
    """Connections by pymemcache. options: keyword arguments of its `Client`."""

    def __init__(self, node: Node, *, size: int, options: Mapping[str, Any]) -> None:
        super().__init__(node, size=size)
        self._options = {"no_delay": True, **options}

    def get(self, keys: Sequence[str]) -> dict[str, Value]:
        found: dict[str, Value] = self._ask(*commands.get(keys))
        return found

    def set(self, entries: Sequence[Stored]) -> list[str]:
        return self._talk(commands.put(entries))

    def add(self, entry: Stored) -> bool:
        return self._talk(commands.add(entry))

    def touch(self, key: str, expiry: int) -> bool:
        return self._talk(commands.touch(key, expiry))

    def delete(self, keys: Sequence[str]) -> int:
        return self._talk(commands.delete(keys))

    def incr(self, key: str, delta: int) -> int:
        return self._talk(commands.incr(key, delta))

    def time_left(self, key: str) -> float | None:
        return self._talk(commands.time_left(key))

    def commit(
        self, entries: Sequence[Stored], latest: Sequence[str], drops: Sequence[str]
    ) -> tuple[list[str], dict[str, Value]]:
        return self._talk(commands.commit(entries, latest, drops))

    def add_and_get(self, entry: Stored, latest: Sequence[str]) -> tuple[bool, dict[str, Value]]:
        return self._talk(commands.add_and_get(entry, latest))

    def flush(self) -> None:
        self._talk(commands.flush())

    def _talk(self, talk: Talk[T]) -> T:
        try:
            step = next(talk)
            while True:
                step = talk.send(self._ask(*step))
        except StopIteration as end:
            return end.value  # type: ignore[no-any-return]

    def _ask(self, payload: bytes, reply: Reply) -> Any:
        return self._run(methodcaller("ask", payload, reply))

    def _connect(self) -> _Client:
        return _Client(self._node.address, **self._options)

    def _is_sound(self, client: _Client) -> bool:
        return client.is_sound()

    def _drop(self, client: _Client) -> None:
        client.close()
