"""Which memcached server has a key: one ring for every client, so that all workers of a site look in the same place.

Rule 1: the place depends on the servers' names and on the part of the key in braces (all of it if there is none), and
on nothing else: not on the client library, the process, or the order in which the servers are listed.
Rule 2: the keys of a server that failed go to the next one on the ring. It is asked again after 0.25, 0.5, 1, 1, …
seconds, by one caller, or a thread that it starts, while the others go on without it.
Rule 3: what was written elsewhere meanwhile is deleted everywhere before a server takes part again; else it would
answer with what was replaced or purged while it was away.
"""

from __future__ import annotations

import re
import time
from bisect import bisect
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager, suppress
from hashlib import blake2b
from struct import unpack
from typing import Final, TypeVar
from zlib import crc32

from cachemw._values import refuse
from cachemw.errors import BackendUnavailable

__all__ = ["Address", "Node", "Ring", "parse_location"]

#: (host, port), or the path of a unix socket
Address = tuple[str, int] | str

Item = TypeVar("Item")

_PORT: Final = 11211
_ALLOWED: Final = "host, host:port, [::1], [::1]:port, unix:/path or /path; several as a list or separated by ; or ,"
_INTERNET: Final = re.compile(
    r"(?:\[(?P<v6>[0-9A-Fa-f:.]+(?:%[\w.-]+)?)\]|(?P<host>[^\s:\[\]/]+))(?::(?P<port>[0-9]{1,5}))?"
)
#: Points per server: evens the shares out to some 10 %.
_POINTS: Final = 160
_FIRST_PAUSE: Final = 0.25
#: Shorter, with the time that an answer takes, than the second between two attempts of the page cache: each one asks.
_LONGEST_PAUSE: Final = 0.5
#: Keys remembered for a server that is away; beyond that it is emptied when it returns.
_MOST_MISSED: Final = 10_000


class Node:
    """One server: its name on the ring, its address, and what it missed if it is away."""

    __slots__ = ("_missed", "address", "failure", "name", "pause", "retry_at", "wipe")

    def __init__(self, address: Address) -> None:
        self.address = address
        self.name = address if isinstance(address, str) else f"{address[0]}:{address[1]}"
        self.failure: Exception | None = None  # why it is away; None: it is here
        self.retry_at = 0.0
        self.pause = _FIRST_PAUSE
        self.wipe = False  # it missed too much to remember, or a `clear`
        self._missed: deque[str] = deque()

    def miss(self, keys: Iterable[str]) -> None:
        """Remember keys that are written elsewhere, or that nobody knows whether it has written them."""
        self._missed.extend(keys)
        if self.wipe or len(self._missed) > _MOST_MISSED:
            self.wipe = True
            self._missed.clear()

    @property
    def missed(self) -> bool:
        """Has it something to forget?"""
        return self.wipe or bool(self._missed)

    def take_missed(self) -> list[str]:
        """The keys it has to forget; they are then no longer remembered here."""
        keys: set[str] = set()
        with suppress(IndexError):
            while True:  # popleft, so that no other thread's key is lost in between
                keys.add(self._missed.popleft())
        return list(keys)


class Ring:
    """The servers of one cache. Shared by threads and tasks: a race costs a second try, never a wrong place.

    clock: seconds, for the pauses.
    """

    def __init__(self, addresses: Sequence[Address], *, clock: Callable[[], float] = time.monotonic) -> None:
        self.nodes = tuple(Node(address) for address in addresses)
        #: The server that has every key, if it is the only one and here.
        self.sole = self.nodes[0] if len(self.nodes) == 1 else None
        self._clock = clock
        self._away: set[Node] = set()
        points = [(point, node) for node in self.nodes for point in _points(node.name)]
        points.sort(key=lambda place: (place[0], place[1].name))
        self._points = [point for point, _ in points]
        self._owners = [node for _, node in points]

    def home(self, key: str) -> Node:
        """The server that has the key when all are here."""
        return self._owners[self._position(key)]

    def lone(self, keys: Iterable[str]) -> Node | None:
        """The one server that all of these keys are on, if there is one and no server is away."""
        if self._away or self.sole is not None:
            return self.sole
        common = None
        for key in keys:
            tag = _tag(key)
            if common is None:
                common = tag
            elif tag != common:
                return None
        return None if common is None else self.home(common)

    def shares(
        self, items: Sequence[Item], key: Callable[[Item], str], *, write: bool
    ) -> list[tuple[Node, Sequence[Item]]]:
        """The items by the server that has their key now. write: they may change what is stored.

        Raises: BackendUnavailable if no server is left.
        """
        shares: dict[Node, list[Item]] = {}
        for item in items:
            shares.setdefault(self._present(key(item), write=write), []).append(item)
        return list(shares.items())

    def failed(self, node: Node, failure: Exception) -> None:
        """The server did not answer: leave it out for a while."""
        if node.failure is not None:
            node.pause = min(node.pause * 2, _LONGEST_PAUSE)
        node.failure = failure
        node.retry_at = self._clock() + node.pause
        self._away.add(node)
        self.sole = None

    def returning(self) -> Sequence[Node]:
        """The servers to be asked again, by this caller alone."""
        if not self._away:
            return ()
        now = self._clock()
        due = [node for node in self._away.copy() if node.retry_at <= now]
        for node in due:
            node.retry_at = now + _LONGEST_PAUSE
        return due

    @contextmanager
    def forgetting(self, node: Node) -> Iterator[list[str] | None]:
        """For the time in which a returning server is told the keys that it has to forget; None: all.

        It takes part again if that succeeds. If it does not answer it stays away, and nothing is raised.
        """
        wipe, node.wipe = node.wipe, False
        keys = node.take_missed()
        try:
            yield None if wipe else keys
        except BaseException as failure:
            node.wipe = node.wipe or wipe
            node.miss(keys)
            if not isinstance(failure, BackendUnavailable):
                raise
            self.failed(node, failure)
        else:
            self._away.discard(node)  # first: one that fails for another just now is away, or is here, but not neither
            node.failure = None
            node.pause = _FIRST_PAUSE
            self.sole = node if len(self.nodes) == 1 else None

    def present(self) -> list[Node]:
        """The servers that are here."""
        return [node for node in self.nodes if node.failure is None]

    def unavailable(self) -> BackendUnavailable:
        """What to raise when no server is left."""
        reasons = "; ".join(str(node.failure) for node in self.nodes if node.failure is not None)
        return BackendUnavailable(f"No memcached server answers: {reasons}")

    def _position(self, key: str) -> int:
        return bisect(self._points, crc32(_tag(key).encode("utf-8", "surrogatepass"))) % len(self._points)

    def _present(self, key: str, *, write: bool) -> Node:
        first = self._position(key)
        home = self._owners[first]
        if home.failure is None:
            return home
        if write:
            home.miss((key,))  # and only then the look whether it is back: what it does on its return comes later
        for owner in (*self._owners[first:], *self._owners[:first]):
            if owner.failure is None:
                return owner
        raise self.unavailable()


def parse_location(location: object) -> list[Address]:
    """The addresses in a cache's LOCATION. Raises: ImproperlyConfigured."""
    members = re.split(r"[;,]", location) if isinstance(location, str) else location
    if not isinstance(members, Sequence) or not members:
        raise refuse("LOCATION", location, _ALLOWED)
    addresses = [_parse_address(member, location) for member in members]
    if len(set(addresses)) != len(addresses):
        raise refuse("LOCATION", location, "each server once")
    return addresses


def _parse_address(member: object, location: object) -> Address:
    if not isinstance(member, str):
        raise refuse("LOCATION", location, _ALLOWED)
    member = member.strip()
    if (path := member.removeprefix("unix:")).startswith("/"):
        return path
    found = _INTERNET.fullmatch(member)
    if found is None:
        raise refuse("LOCATION", location, _ALLOWED)
    port = int(found["port"] or _PORT)
    if not 0 < port < 65536:
        raise refuse("LOCATION", location, "ports from 1 to 65535")
    return (found["v6"] or found["host"], port)


def _points(name: str) -> list[int]:
    points: list[int] = []
    for i in range(_POINTS // 16):
        points.extend(unpack(">16I", blake2b(f"{name}#{i}".encode()).digest()))
    return points


def _tag(key: str) -> str:
    """The part that chooses the place, as in Redis Cluster: what stands in the first braces, unless that is empty."""
    start = key.find("{") + 1
    if start:
        end = key.find("}", start)
        if end > start:
            return key[start:end]
    return key
