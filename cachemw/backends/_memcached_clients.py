"""The blocking client libraries, each behind the same few calls: a pool of connections to one server.

Rule 1: a connection is used by one thread at a time. After anything but a complete reply it is closed, not reused:
an exception, an interrupt, a byte that nobody asked for.
Rule 2: whatever the library raises, and it raises much on a garbled reply, becomes BackendUnavailable here.
Rule 3: no connection is shared with a child process.
"""

from __future__ import annotations

import socket
import time
from abc import ABC, abstractmethod
from collections import deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import suppress
from itertools import chain
from operator import methodcaller
from select import POLLIN, poll
from types import SimpleNamespace
from typing import Any, Final, Generic, TypeVar, cast

from pymemcache.client.base import Client  # type: ignore[import-untyped]
from pymemcache.exceptions import (  # type: ignore[import-untyped]
    MemcacheClientError,
    MemcacheServerError,
    MemcacheUnexpectedCloseError,
    MemcacheUnknownError,
)

from cachemw.backends._memcached_ring import Node
from cachemw.backends._memcached_wire import Delta, Stored, from_wire, time_left
from cachemw.backends.base import Value
from cachemw.errors import BackendUnavailable

__all__ = ["Pool", "PyMemcachePool"]

C = TypeVar("C")
T = TypeVar("T")

#: Bytes from which on a value travels alone: what a server refuses for its size then spoils no other's reply.
_LARGE: Final = 512 * 1024
_DELETED: Final = frozenset({b"DELETED", b"NOT_FOUND"})
_TOUCHED: Final = frozenset({b"TOUCHED", b"NOT_FOUND"})
_FLUSHED: Final = frozenset({b"OK"})
#: Commands sent before their replies are read.
_PIPELINE: Final = 1000


class Pool(ABC, Generic[C]):
    """Connections to one server; made when needed, and kept when idle, up to `size` of them."""

    def __init__(self, node: Node, *, size: int) -> None:
        self._node = node
        self._idle: deque[C] = deque()
        self._size = size

    @abstractmethod
    def get(self, keys: Sequence[str]) -> dict[str, Value]:
        """What is stored of them."""

    def set(self, entries: Sequence[Stored]) -> list[str]:
        """Store them; returns the keys that the server refused, whose old values are gone."""
        alike: dict[int, list[Stored]] = {}
        refused: list[str] = []
        for entry in entries:
            if len(entry.data) < _LARGE:
                alike.setdefault(entry.expiry, []).append(entry)
            else:
                refused += self._store((entry,))
        for several in chain.from_iterable(map(_pipelines, alike.values())):
            failed = self._store(several)
            if len(several) > 1:  # some of them may have been stored: ask for each
                failed = [key for entry in several if entry.key in failed for key in self._store((entry,))]
            refused += failed
        if refused:
            self.delete(refused)
        return refused

    @abstractmethod
    def _store(self, entries: Sequence[Stored]) -> list[str]:
        """Store entries of the same expiry; returns the keys that may not be stored."""

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


class _Deadline(socket.socket):
    """A socket whose timeout bounds a whole reply, not each piece: a server that dribbles is late, too."""

    _late_at = 0.0

    def sendall(self, *args: Any) -> None:
        self._late_at = time.monotonic() + (self.gettimeout() or 0.0)
        super().sendall(*args)

    def recv(self, *args: Any) -> bytes:
        if time.monotonic() > self._late_at:
            raise TimeoutError("the reply did not end in time")
        return super().recv(*args)


_sockets: Final = SimpleNamespace(**{**vars(socket), "socket": _Deadline})


class _Serde:
    """Values come and go as cachemw has them: nothing is pickled, whatever the flags say."""

    def serialize(self, key: str, value: Stored) -> tuple[bytes, int]:
        return value.data, value.flags

    def deserialize(self, key: str, data: bytes, flags: int) -> Value:
        return from_wire(data, flags)


class _Client(Client):  # type: ignore[misc]  # it has no types
    """pymemcache's client; it can tell whether its connection is idle, and believes no line that it does not know."""

    def _connect(self) -> None:
        super()._connect()
        self._input = poll()
        self._input.register(self.sock, POLLIN)

    def is_sound(self) -> bool:
        """Whether there is a connection without anything to read: neither its end nor a late reply."""
        return self.sock is not None and not self._input.poll(0)

    def lines(self, commands: Sequence[bytes], expected: frozenset[bytes]) -> list[bytes]:
        """Send the commands in one round trip; their replies, all of them expected ones."""
        lines: list[bytes] = self._misc_cmd(commands, b"command", False)
        for line in lines:
            if line not in expected:
                self.close()
                raise MemcacheUnknownError(line[:60])
        return lines


class PyMemcachePool(Pool[_Client]):
    """Connections by pymemcache. options: keyword arguments of its `Client`."""

    def __init__(self, node: Node, *, size: int, options: Mapping[str, Any]) -> None:
        super().__init__(node, size=size)
        self._options = {
            "no_delay": True,
            **options,
            "allow_unicode_keys": True,  # keys have been checked
            "default_noreply": False,
            "serde": _Serde(),
            "socket_module": _sockets,
        }

    def get(self, keys: Sequence[str]) -> dict[str, Value]:
        return cast("dict[str, Value]", self._run(lambda client: client.get_many(keys)))

    def _store(self, entries: Sequence[Stored]) -> list[str]:
        def store(client: _Client) -> list[str]:
            try:
                failed: list[str] = client.set_many({entry.key: entry for entry in entries}, expire=entries[0].expiry)
            except MemcacheServerError as error:
                return _unless_closed(error, [entry.key for entry in entries])
            return failed

        return self._run(store)

    def add(self, entry: Stored) -> bool:
        def add(client: _Client) -> bool:
            try:
                added: bool = client.add(entry.key, entry, expire=entry.expiry)
            except MemcacheServerError as error:
                return _unless_closed(error, False)
            return added

        return self._run(add)

    def touch(self, key: str, expiry: int) -> bool:
        command = b"touch %b %d\r\n" % (key.encode(), expiry)
        return self._run(lambda client: client.lines((command,), _TOUCHED)) == [b"TOUCHED"]

    def delete(self, keys: Sequence[str]) -> int:
        deleted = 0
        for some in _pipelines(keys):
            commands = [b"delete %b\r\n" % key.encode() for key in some]
            deleted += self._run(methodcaller("lines", commands, _DELETED)).count(b"DELETED")
        return deleted

    def incr(self, key: str, delta: int) -> int:
        addition = Delta(delta)
        total = addition.total(self._count(key, addition.unsigned))
        if total is None:
            self._count(key, addition.undo)
            raise OverflowError(f"{key!r} {delta:+} does not fit into 64 bits")
        return total

    def _count(self, key: str, delta: int) -> int:
        def count(client: _Client) -> int | MemcacheClientError | None:
            try:
                return cast("int | None", client.incr(key, delta))
            except MemcacheClientError as error:
                return error

        answer = self._run(count)
        if answer is None:
            raise KeyError(key)
        if not isinstance(answer, int):
            raise TypeError(f"what is stored under {key!r} is no integer") from answer
        return answer

    def time_left(self, key: str) -> float | None:
        def ask(client: _Client) -> bytes:
            try:
                return cast("bytes", client.raw_command(b"mg %b t\r\n" % key.encode()))
            except MemcacheClientError:
                return b"ERROR"

        return time_left(self._run(ask))

    def flush(self) -> None:
        self._run(lambda client: client.lines((b"flush_all\r\n",), _FLUSHED))

    def _connect(self) -> _Client:
        return _Client(self._node.address, **self._options)

    def _is_sound(self, client: _Client) -> bool:
        return client.is_sound()

    def _drop(self, client: _Client) -> None:
        client.close()


def _pipelines(items: Sequence[T]) -> Iterator[Sequence[T]]:
    """The items in pieces whose replies fit into the buffers of two sockets: nobody reads while they are sent."""
    for start in range(0, len(items), _PIPELINE):
        yield items[start : start + _PIPELINE]


def _unless_closed(error: Exception, answer: T) -> T:
    """The answer where the server refused; pymemcache counts a closed connection among its refusals."""
    if isinstance(error, MemcacheUnexpectedCloseError):
        raise error
    return answer
