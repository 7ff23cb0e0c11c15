"""What the Memcached stores have in common: which server is asked, what if it fails, event loops and processes."""

from __future__ import annotations

import asyncio
import os
import threading
from abc import abstractmethod
from collections.abc import Awaitable, Callable, Iterable, Mapping, Sequence
from contextlib import suppress
from itertools import chain
from operator import itemgetter, methodcaller
from typing import Any, ClassVar, Final, TypeVar
from weakref import WeakSet, finalize

from cachemw._threads import begin
from cachemw._values import LONGEST_WAIT, boolean, integer, number, refuse
from cachemw.backends._loops import PerLoop
from cachemw.backends._memcached.clients import Pool
from cachemw.backends._memcached.pages import MemcachedPages
from cachemw.backends._memcached.ring import Node, Ring, parse_location
from cachemw.backends.base import Entry
from cachemw.errors import BackendUnavailable, ImproperlyConfigured, InvalidCacheKey

__all__ = ["COMMON", "MemcachedCache"]

Item = TypeVar("Item")
Ask = Callable[[Any, Sequence[Any]], Any]
#: Those of one event loop.
Clients = Mapping[Node, Any]

#: memcached's limit, in bytes of UTF-8.
_KEY_BYTES: Final = 250
#: Asked of a server that was away and has nothing to forget.
_PROBE: Final = "cachemw:are-you-there"
COMMON: Final = frozenset({"connect_timeout", "max_pool_size", "socket_timeout", "timeout"})

_GET: Final[Ask] = lambda client, keys: client.get(keys)  # noqa: E731
_SET: Final[Ask] = lambda client, entries: client.set(entries)  # noqa: E731
_ADD: Final[Ask] = lambda client, entries: client.add(entries[0])  # noqa: E731
_DELETE: Final[Ask] = lambda client, keys: client.delete(keys)  # noqa: E731
_TIME_LEFT: Final[Ask] = lambda client, keys: client.time_left(keys[0])  # noqa: E731

_caches: WeakSet[MemcachedCache] = WeakSet()
_key: Final[Callable[[Any], str]] = itemgetter(0)
_itself: Final[Callable[[str], str]] = str


class MemcachedCache(MemcachedPages):
    """What both have in common: servers, failures, connections.

    location: servers as host:port, [::1]:port or unix:/path, in a list or separated by `;` or `,`.

    OPTIONS of both: `timeout` (or `socket_timeout`) and `connect_timeout`, in seconds (0.1, 0.25); `max_pool_size`, how
    many idle connections to a server are kept (64).
    """

    max_key_length: ClassVar[int | None] = _KEY_BYTES
    strict_keys: ClassVar[bool] = True

    def __init__(self, location: str | Sequence[str], params: Mapping[str, Any] | None = None) -> None:
        super().__init__(location, params)
        options = self.options
        self._timeout = _seconds("OPTIONS['timeout']", options.get("socket_timeout", options.get("timeout", 0.1)))
        self._connect_timeout = _seconds("OPTIONS['connect_timeout']", options.get("connect_timeout", 0.25))
        self._pool_size = integer("OPTIONS['max_pool_size']", options.get("max_pool_size", 64), minimum=0)
        self._unicode_keys = boolean("OPTIONS['allow_unicode_keys']", options.get("allow_unicode_keys", True))
        if type(self).validate_key is MemcachedCache.validate_key:  # the rule below concerns other keys than ASCII only
            self._short, self._any_script = _KEY_BYTES, False
        self._ring = Ring(parse_location(location))
        self._pools: dict[Node, Pool[Any]] = {node: self._make_pool(node) for node in self._ring.nodes}
        self._loops: PerLoop[Clients] = PerLoop(_abort)
        try:
            self.validate_key(self.page_key("\x00"))
        except InvalidCacheKey as error:
            raise ImproperlyConfigured(f"KEY_PREFIX {self.key_prefix!r} makes keys that memcached refuses") from error
        _caches.add(self)
        finalize(self, _close_pools, self._pools)

    def validate_key(self, key: str) -> None:
        """Raise InvalidCacheKey for a made key that memcached refuses."""
        super().validate_key(key)
        if key.isascii():
            return
        try:
            size = len(key.encode())
        except UnicodeEncodeError as error:
            raise InvalidCacheKey(f"Cache key cannot be encoded as UTF-8: {key!r}") from error
        if not self._unicode_keys:
            raise InvalidCacheKey(f"Cache key is not ASCII, and OPTIONS['allow_unicode_keys'] is false: {key!r}")
        if size > _KEY_BYTES:
            raise InvalidCacheKey(f"memcached takes keys of at most {_KEY_BYTES} bytes, and this has {size}: {key!r}")

    @abstractmethod
    def _make_pool(self, node: Node) -> Pool[Any]:
        """The blocking connections to one server."""

    @abstractmethod
    def _make_client(self, node: Node) -> Any:
        """The same calls for asyncio."""

    # -- primitives: each says what to ask of one server; `_each` and `_aeach` say of which, and what if it fails ------

    def _get(self, keys: Sequence[str]) -> dict[str, Any]:
        node = self._ring.sole or self._ring.lone(keys)
        if node is not None and keys:  # a server that is asked for nothing says that this is an error
            try:
                return self._pools[node].get(keys)
            except BackendUnavailable as failure:
                self._lost(node, failure, ())
        return _merged(self._each(_GET, keys, _itself))

    async def _aget(self, keys: Sequence[str]) -> dict[str, Any]:
        node = self._ring.sole or self._ring.lone(keys)
        if node is not None and keys:
            try:
                found: dict[str, Any] = await self._here()[node].get(keys)
            except BackendUnavailable as failure:
                self._lost(node, failure, ())
            else:
                return found
        return _merged(await self._aeach(_GET, keys, _itself))

    def _set(self, entries: Sequence[Entry]) -> list[str]:
        node = self._ring.sole or self._ring.lone(map(_key, entries))
        if node is not None:
            try:
                return self._pools[node].set(entries)
            except BackendUnavailable as failure:
                self._lost(node, failure, map(_key, entries))
        return [*chain(*self._each(_SET, entries, _key, write=True))]

    async def _aset(self, entries: Sequence[Entry]) -> list[str]:
        node = self._ring.sole or self._ring.lone(map(_key, entries))
        if node is not None:
            try:
                refused: list[str] = await self._here()[node].set(entries)
            except BackendUnavailable as failure:
                self._lost(node, failure, map(_key, entries))
            else:
                return refused
        return [*chain(*await self._aeach(_SET, entries, _key, write=True))]

    def _add(self, key: str, value: Any, timeout: float | None) -> bool:
        return any(self._each(_ADD, ((key, value, timeout),), _key, write=True))

    async def _aadd(self, key: str, value: Any, timeout: float | None) -> bool:
        return any(await self._aeach(_ADD, ((key, value, timeout),), _key, write=True))

    def _touch(self, key: str, timeout: float | None) -> bool:
        ask = methodcaller("touch", key, timeout)
        return any(self._each(lambda client, _: ask(client), (key,), _itself, write=True))

    async def _atouch(self, key: str, timeout: float | None) -> bool:
        ask = methodcaller("touch", key, timeout)
        return any(await self._aeach(lambda client, _: ask(client), (key,), _itself, write=True))

    def _delete(self, keys: Sequence[str]) -> int:
        return sum(self._each(_DELETE, keys, _itself, write=True))

    async def _adelete(self, keys: Sequence[str]) -> int:
        return sum(await self._aeach(_DELETE, keys, _itself, write=True))

    def _incr(self, key: str, delta: int) -> int:
        node = self._ring.sole or self._ring.lone((key,))
        if node is not None:
            try:
                return self._pools[node].incr(key, delta)
            except BackendUnavailable as failure:
                self._lost(node, failure, (key,))
        return sum(self._each(lambda client, _: client.incr(key, delta), (key,), _itself, write=True))

    async def _aincr(self, key: str, delta: int) -> int:
        node = self._ring.sole or self._ring.lone((key,))
        if node is not None:
            try:
                number: int = await self._here()[node].incr(key, delta)
            except BackendUnavailable as failure:
                self._lost(node, failure, (key,))
            else:
                return number
        return sum(await self._aeach(lambda client, _: client.incr(key, delta), (key,), _itself, write=True))

    def _timeout_left(self, key: str) -> float | None:
        try:
            left: float | None = self._each(_TIME_LEFT, (key,), _itself)[0]
        except LookupError:
            return self.default_timeout
        return left

    async def _atimeout_left(self, key: str) -> float | None:
        try:
            left: float | None = (await self._aeach(_TIME_LEFT, (key,), _itself))[0]
        except LookupError:
            return self.default_timeout
        return left

    def _clear(self) -> None:
        failures: list[BackendUnavailable] = []
        for node, pool in self._pools.items():
            try:
                pool.flush()
            except BackendUnavailable as failure:
                self._clear_later(node, failure)
                failures.append(failure)
        if failures:
            raise failures[0]

    async def _aclear(self) -> None:
        failures: list[BackendUnavailable] = []
        for node, client in self._here().items():
            try:
                await client.flush()
            except BackendUnavailable as failure:
                self._clear_later(node, failure)
                failures.append(failure)
        if failures:
            raise failures[0]

    def _clear_later(self, node: Node, failure: BackendUnavailable) -> None:
        node.wipe = True
        self._ring.failed(node, failure)

    def _close(self) -> None:
        _close_pools(self._pools)
        for loop, clients in self._loops.open():
            with suppress(RuntimeError):  # it has ended just now
                loop.call_soon_threadsafe(_close_clients, clients)

    async def _aclose(self) -> None:
        if (clients := self._loops.known()) is not None:
            _close_clients(clients)
        _close_pools(self._pools)

    # -- servers ---------------------------------------------------------------------------------------------------

    def _each(
        self,
        ask: Callable[[Any, Sequence[Item]], Any],
        items: Sequence[Item],
        key: Callable[[Item], str],
        *,
        write: bool = False,
    ) -> list[Any]:
        """Ask every server for its share of the items; the share of one that fails goes to the next on the ring."""
        for node in self._returning():
            self._welcome(node)
        answers: list[Any] = []
        for _ in self._ring.nodes:
            failed: list[Item] = []
            for node, share in self._ring.shares(items, key, write=write):
                try:
                    answers.append(ask(self._pools[node], share))
                except BackendUnavailable as failure:
                    self._lost(node, failure, map(key, share) if write else ())
                    failed.extend(share)
            if not failed:
                return answers
            items = failed
        raise self._ring.unavailable()

    async def _aeach(
        self,
        ask: Callable[[Any, Sequence[Item]], Awaitable[Any]],
        items: Sequence[Item],
        key: Callable[[Item], str],
        *,
        write: bool = False,
    ) -> list[Any]:
        clients = self._here()
        for node in self._returning():
            await self._awelcome(node, clients)
        answers: list[Any] = []
        failed: list[Item]

        async def attempt(node: Node, share: Sequence[Item]) -> None:
            try:
                answers.append(await ask(clients[node], share))
            except BackendUnavailable as failure:
                self._lost(node, failure, map(key, share) if write else ())
                failed.extend(share)

        for _ in self._ring.nodes:
            shares, failed = self._ring.shares(items, key, write=write), []
            if len(shares) == 1:
                await attempt(*shares[0])
            else:
                await asyncio.gather(*(attempt(*share) for share in shares))
            if not failed:
                return answers
            items = failed
        raise self._ring.unavailable()

    def _lost(self, node: Node, failure: BackendUnavailable, keys: Iterable[str]) -> None:
        node.miss(keys)  # before it is away: it may return at any time, and has to know them then
        self._ring.failed(node, failure)

    def _returning(self) -> Sequence[Node]:
        """The servers that the caller has to ask whether they are back: none, as long as it can do without them.

        One that hangs would cost a visitor a whole deadline at every attempt; a thread of its own can wait.
        """
        due = self._ring.returning()
        if due and self._ring.present():
            thread = threading.Thread(target=lambda: [*map(self._welcome, due)], name="cachemw-memcached", daemon=True)
            with suppress(RuntimeError):  # no thread is to be had, or the interpreter shuts down
                begin(thread)
                return ()
        return due

    def _welcome(self, node: Node) -> None:
        """Let a server take part again, if it answers and has forgotten what it missed.

        It is asked first: while it does not answer, the others keep what they hold in its place. And last: what was on
        the way to a server that hung it may do beside our first question.
        """
        while True:
            with self._ring.forgetting(node) as keys:
                if keys is None:
                    self._pools[node].flush()
                    self._pools[node].flush()
                elif not keys:
                    self._pools[node].delete((_PROBE,))
                else:
                    for one in (node, *self._ring.present(), node):
                        self._pools[one].delete(keys)
            if node.failure is not None or not node.missed:
                return

    async def _awelcome(self, node: Node, clients: Clients) -> None:
        while True:
            with self._ring.forgetting(node) as keys:
                if keys is None:
                    await clients[node].flush()
                    await clients[node].flush()
                elif not keys:
                    await clients[node].delete((_PROBE,))
                else:
                    for one in (node, *self._ring.present(), node):
                        await clients[one].delete(keys)
            if node.failure is not None or not node.missed:
                return

    # -- event loops and processes ---------------------------------------------------------------------------------

    def _here(self) -> Clients:
        """The clients of the running event loop."""
        return self._loops.here(self._make_clients)

    def _make_clients(self) -> Clients:
        return {node: self._make_client(node) for node in self._ring.nodes}

    def _before_fork(self) -> None:
        """Nothing to do where closing a copied connection does not touch the original."""

    def _after_fork(self) -> None:
        """In the child: leave the parent's connections alone, and connect anew when needed."""
        for pool in self._pools.values():
            pool.close()
        self._loops.forget()


def _close_pools(pools: Mapping[Node, Pool[Any]]) -> None:
    for pool in pools.values():
        pool.close()


def _close_clients(clients: Clients) -> None:
    """Close their connections when nobody waits on them; the next calls make others."""
    for client in clients.values():
        client.close()


async def _abort(clients: Clients) -> None:
    for client in clients.values():
        client.abort()


def _merged(answers: Sequence[dict[str, Any]]) -> dict[str, Any]:
    return answers[0] if len(answers) == 1 else {key: value for answer in answers for key, value in answer.items()}


def _seconds(name: str, given: object) -> float:
    seconds = number(name, given)
    if not 0 < seconds <= LONGEST_WAIT:
        raise refuse(name, given, f"a number of seconds above 0, at most {LONGEST_WAIT}")
    return seconds


def _before_fork() -> None:
    for cache in list(_caches):
        cache._before_fork()


def _after_fork() -> None:
    for cache in list(_caches):
        cache._after_fork()


os.register_at_fork(before=_before_fork, after_in_child=_after_fork)
