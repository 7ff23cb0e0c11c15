"""The blocking client libraries, each behind the same few calls: a pool of connections to one server.

Rule 1: a connection is used by one thread at a time. After anything but a complete reply it is closed, not reused:
an exception, an interrupt, a byte that nobody asked for.
Rule 2: whatever the library raises, and it raises much on a garbled reply, becomes BackendUnavailable here.
Rule 3: no connection is shared with a child process.
"""

from __future__ import annotations

import socket
from abc import ABC, abstractmethod
from collections import deque
from collections.abc import Mapping, Sequence
from contextlib import suppress
from functools import partial
from time import monotonic
from typing import Any, Generic, TypeVar

from pymemcache.client.base import Client  # type: ignore[import-untyped]

from cachemw.backends._dialling import is_looked_up, within
from cachemw.backends._memcached import commands
from cachemw.backends._memcached.commands import Step, Talk
from cachemw.backends._memcached.link import Link
from cachemw.backends._memcached.ring import Node
from cachemw.backends._memcached.wire import time_left, too_large, total
from cachemw.backends.base import Entry, Value
from cachemw.errors import BackendUnavailable

__all__ = ["Pool", "PyMemcachePool"]

C = TypeVar("C")
T = TypeVar("T")


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
    def set(self, entries: Sequence[Entry]) -> list[str]:
        """Store them; returns the keys that the server refused, whose old values are gone."""

    @abstractmethod
    def add(self, entry: Entry) -> bool:
        """Store it if there is none; did it?"""

    @abstractmethod
    def touch(self, key: str, timeout: float | None) -> bool:
        """Give it another timeout; was there one?"""

    @abstractmethod
    def delete(self, keys: Sequence[str]) -> int:
        """Remove them; returns how many were there."""

    @abstractmethod
    def incr(self, key: str, delta: int) -> int:
        """Add to an integer. Raises: KeyError, TypeError, OverflowError as `BaseCache._incr`."""

    @abstractmethod
    def time_left(self, key: str) -> float | None:
        """Seconds it has left, None for ever, 0 if it is gone. Raises: LookupError if the server cannot tell."""

    def commit(
        self, entries: Sequence[Entry], latest: Sequence[str], drops: Sequence[str]
    ) -> tuple[list[str], dict[str, Value]]:
        """`set`, then `get`, then `delete`, in one round trip where the client can."""
        refused = self.set(entries) if entries else []
        found = self.get(latest) if latest else {}
        if drops:
            self.delete(drops)
        return refused, found

    def add_and_get(self, entry: Entry, latest: Sequence[str]) -> tuple[bool, dict[str, Value]]:
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

    def _take(self) -> C:
        """A connection that can be used: an idle one, or a new one."""
        while True:
            try:
                client = self._idle.pop()
            except IndexError:
                return self._connect()
            if self._is_sound(client):
                return client
            self._drop(client)

    @abstractmethod
    def _connect(self) -> C:
        """A new connection. Raises: whatever the library does."""

    @abstractmethod
    def _is_sound(self, client: C) -> bool:
        """May it be used again, as far as that can be told without asking the server?"""

    @abstractmethod
    def _drop(self, client: C) -> None:
        """Close its connection."""

    def _unavailable(self, error: Exception) -> BackendUnavailable:
        return BackendUnavailable(f"memcached at {self._node.name}: {error!r}")


class _OneAddress:
    """The module `socket` where a name has one address: pymemcache tries no other; "localhost" is often ::1 first."""

    def __init__(self, found: object) -> None:
        self._found = found

    def getaddrinfo(self, *_: object) -> list[object]:
        return [self._found]

    def __getattr__(self, name: str) -> Any:
        return getattr(socket, name)


class PyMemcachePool(Pool[Link]):
    """Connections that pymemcache makes. options: keyword arguments of its `Client`."""

    def __init__(self, node: Node, *, size: int, options: Mapping[str, Any]) -> None:
        super().__init__(node, size=size)
        self._options = {"no_delay": True, **options}
        self._most = commands.AT_ONCE if options.get("tls_context") is None else commands.RECORD

    def get(self, keys: Sequence[str]) -> dict[str, Value]:
        found: dict[str, Value] = self._ask(commands.get(keys))
        return found

    def set(self, entries: Sequence[Entry]) -> list[str]:
        if len(entries) > 1:
            return self._talk(commands.put_all(entries, self._most))
        (entry,) = entries
        if self._ask(commands.put(entry)):
            return []
        self.delete(entry[:1])
        return [entry[0]]

    def add(self, entry: Entry) -> bool:
        added: bool = self._ask(commands.add(entry))
        return added

    def touch(self, key: str, timeout: float | None) -> bool:
        touched: bool = self._ask(commands.touch(key, timeout))
        return touched

    def delete(self, keys: Sequence[str]) -> int:
        if len(keys) > 1:
            return self._talk(commands.delete_all(keys, self._most))
        return int(self._ask(commands.delete(keys[0])))

    def incr(self, key: str, delta: int) -> int:
        sum_ = total(self.count(key, delta), delta)
        if sum_ is None:
            self.count(key, -delta)
            raise too_large(key, delta)
        return sum_

    def count(self, key: str, delta: int) -> int:
        """Add to an integer; the server's answer, see `_memcached.wire.total`. Raises: KeyError, TypeError."""
        return commands.counted(key, self._ask(commands.incr(key, delta)))

    def time_left(self, key: str) -> float | None:
        return time_left(self._ask(commands.time_left(key)))

    def commit(
        self, entries: Sequence[Entry], latest: Sequence[str], drops: Sequence[str]
    ) -> tuple[list[str], dict[str, Value]]:
        return self._talk(commands.commit(entries, latest, drops, self._most))

    def add_and_get(self, entry: Entry, latest: Sequence[str]) -> tuple[bool, dict[str, Value]]:
        return self._talk(commands.add_and_get(entry, latest, self._most))

    def flush(self) -> None:
        self._ask(commands.flush())

    def _talk(self, talk: Talk[T]) -> T:
        try:
            step = next(talk)
            while True:
                step = talk.send(self._ask(step))
        except StopIteration as end:
            result: T = end.value
            return result

    def _ask(self, step: Step) -> Any:
        link = None
        try:
            link = self._take()
            content = link.ask(*step)
        except BaseException as error:  # an interrupt leaves a reply on the way, too
            if link is not None:
                self._drop(link)
            if isinstance(error, Exception):
                raise self._unavailable(error) from error
            raise
        if len(self._idle) < self._size:
            self._idle.append(link)
        else:
            self._drop(link)
        return content

    def _is_sound(self, link: Link) -> bool:
        return not link.readable(0)

    def _connect(self) -> Link:
        address = self._node.address
        if isinstance(address, str):
            return self._connect_by(socket)
        seconds = self._options["connect_timeout"]
        look_up = partial(socket.getaddrinfo, *address, type=socket.SOCK_STREAM)
        found = within(seconds, look_up, len) if is_looked_up(address[0]) else look_up()
        deadline = monotonic() + seconds
        for one in found[:-1]:
            try:
                return self._connect_by(_OneAddress(one))
            except OSError:
                if monotonic() > deadline:
                    raise
        return self._connect_by(_OneAddress(found[-1]))

    def _connect_by(self, module: object) -> Link:
        client = Client(self._node.address, socket_module=module, **self._options)
        client._connect()
        return Link(client)

    def _drop(self, link: Link) -> None:
        link.close()
