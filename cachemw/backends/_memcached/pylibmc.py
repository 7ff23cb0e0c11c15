"""pylibmc behind the calls of a `Pool`. An extra: `pip install pylibmc` needs libmemcached and its headers."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from math import inf
from threading import RLock
from time import monotonic
from typing import Any, Final, TypeVar

import pylibmc  # type: ignore[import-untyped]

from cachemw.backends._memcached.clients import Pool, PyMemcachePool
from cachemw.backends._memcached.ring import Address, Node
from cachemw.backends._memcached.wire import OFFSET, WRAP, expiry, from_wire, too_large
from cachemw.backends.base import Entry, Value
from cachemw.errors import BackendUnavailable

__all__ = ["PyLibMCPool"]

T = TypeVar("T")

#: pylibmc hands a C int to libmemcached.
_LARGEST_STEP: Final = 2**31 - 1
#: Seconds.
_RESTORED: Final = 300.0
#: Seconds after which a connection may have been ended by the server; memcached's shortest `idle_timeout` is 1.
_PAUSE: Final = 0.9

#: Held while a connection is laid aside, and during a fork: the child would say "quit" on what it finds there, and the
#: parent still uses it.
_aside: Final = RLock()
os.register_at_fork(before=_aside.acquire, after_in_parent=_aside.release, after_in_child=_aside.release)


class _Client(pylibmc.Client):  # type: ignore[misc]  # it has no types
    """pylibmc's client; values come back as cachemw has them: nothing is unpickled, whatever the flags say.

    Going there, bytes and integers are all that there is, and pylibmc flags them as `_memcached.wire` has them.
    """

    used_at = inf  # never: there is no connection yet

    def deserialize(self, data: bytes | None, flags: int) -> Value:
        return data if data and not flags else from_wire(data or b"", flags)  # None: `get` of an empty value


class PyLibMCPool(Pool[_Client]):
    """Connections by pylibmc. options: keyword arguments of its `Client` (`binary`, `username`, `behaviors`, …).

    text: who does, over the text protocol, what libmemcached cannot: several operations in one round trip (its Python
    half also takes longer to read several values), steps of 2**31 and more, sums below zero (its `decr` stops there),
    telling the timeout, `touch` without a wait, looking whether the server has ended the connection: on such a one its
    `get` finds nothing (1.1: fails) and the others fail. None where SASL allows the binary protocol alone.
    """

    def __init__(self, node: Node, *, size: int, options: Mapping[str, Any], text: PyMemcachePool | None) -> None:
        super().__init__(node, size=size)
        self._server = _server(node.address)
        self._options = options
        self._text = text
        self._late = options["behaviors"]["receive_timeout"] / 1e6 * 0.95
        self._idle.append(self._connect())  # no connection yet, but what pylibmc says of the options
        self._used_at = monotonic()

    def get(self, keys: Sequence[str]) -> dict[str, Value]:
        if (text := self._instead(len(keys))) is not None:
            return text.get(keys)
        try:
            return self._run(_get, keys, self._used_at + self._late)
        except BackendUnavailable as failure:
            said = str(failure.__cause__)
            if "has disconnected" in said:  # libmemcached 1.1 says so where 1.0 finds nothing: the server was restarted
                return self._run(_get, keys, self._used_at + self._late)
            # what another program flagged as compressed, and is not: a damaged value, and no reason to leave the server
            if "decompress" not in said:
                raise
            return {} if self._text is None else self._text.get(keys)

    def set(self, entries: Sequence[Entry]) -> list[str]:
        if (text := self._instead(len(entries))) is not None:
            return text.set(entries)
        refused = []
        for entry in entries:
            if not self._run(_set, entry):
                refused.append(entry[0])
        if refused:
            self.delete(refused)
        return refused

    def add(self, entry: Entry) -> bool:
        text = self._instead(1)
        return self._run(_add, entry) if text is None else text.add(entry)

    def touch(self, key: str, timeout: float | None) -> bool:
        if self._text is not None:
            return self._text.touch(key, timeout)
        # libmemcached 1.0.18 waits for a second reply here, until it has no more time, and then is content
        touched: bool = self._run(lambda client: client.touch(key, expiry(timeout)))
        return touched

    def delete(self, keys: Sequence[str]) -> int:
        text = self._instead(len(keys))
        return self._run(_delete, keys) if text is None else text.delete(keys)

    def incr(self, key: str, delta: int) -> int:
        """As `BaseCache._incr`. With SASL also OverflowError for a step of 2**31 or more, and it cannot be taken back.

        What leaves the 64 bits is then stored again for 5 minutes, or is -2**63 if it went below that.
        """
        if (text := self._instead(1 if 0 <= delta <= _LARGEST_STEP else 2)) is not None:
            return text.incr(key, delta)
        if abs(delta) > _LARGEST_STEP:
            raise OverflowError(f"pylibmc counts in steps of at most {_LARGEST_STEP} with SASL, not {delta}")
        answer = self._count(key, delta)
        if answer >= delta and (answer > 0 or delta == 0):
            return answer - OFFSET
        if answer < delta:  # it has wrapped around
            if self._text is not None:
                self._text.count(key, -delta)
            else:
                self.set(((key, answer - delta + WRAP - OFFSET, _RESTORED),))
        raise too_large(key, delta)

    def _count(self, key: str, delta: int) -> int:
        """The server's answer. Raises: KeyError, TypeError."""
        try:
            answer = self._run(_count, key, delta)
        except BackendUnavailable as failure:
            # libmemcached does not know the binary protocol's "non-numeric value", and does not pass on the text's
            refused = isinstance(failure.__cause__, pylibmc.ClientError | pylibmc.UnknownReadFailure)
            if refused and isinstance(self.get((key,)).get(key), bytes):
                raise TypeError(f"what is stored under {key!r} is not an integer") from failure
            raise
        if answer is None:
            raise KeyError(key)
        return answer

    def time_left(self, key: str) -> float | None:
        if self._text is None:
            raise LookupError("pylibmc has no command for it")
        return self._text.time_left(key)

    def close(self) -> None:
        super().close()
        self._used_at = monotonic()  # what comes next has a new connection
        if self._text is not None:
            self._text.close()

    def flush(self) -> None:
        if (text := self._instead(1)) is not None:
            text.flush()
        else:
            self._run(lambda client: client.flush_all())

    def _instead(self, commands: int) -> PyMemcachePool | None:
        """Who is to do it instead, if it takes so many commands: several, or one after a pause, are not for pylibmc."""
        now, before = monotonic(), self._used_at
        self._used_at = now
        return self._text if commands > 1 or now - before > _PAUSE else None

    def _run(self, work: Callable[..., T], *args: Any) -> T:
        """`work(client, *args)`, again where the first attempt sent nothing."""
        client = self._take()
        try:
            result = work(client, *args)
        except Exception as error:  # an interrupt comes between two calls, and ends a client that is not given back
            self._drop(client)
            return self._again(error, work, args)
        client.used_at = self._used_at
        self._give(client)
        return result

    def _again(self, error: Exception, work: Callable[..., T], args: tuple[Any, ...]) -> T:
        super().close()  # the idle ones have lost their connections too, and would each say so once
        if isinstance(error, pylibmc.ServerDown):
            return self._anew(work, args)  # one that knows does not even try for two seconds: nothing was sent
        if "FAILED TO SEND AUTHENTICATION" in str(error):
            # libmemcached (1.0.18, sasl.cc) reads the server's SASL mechanisms into a buffer on the stack that it has
            # not cleared, and does not understand them if there was something: the command was not sent. A new thread
            # has a clean stack.
            with ThreadPoolExecutor(1) as executor:
                return executor.submit(self._anew, work, args).result()
        raise self._unavailable(error) from error

    def _anew(self, work: Callable[..., T], args: tuple[Any, ...]) -> T:
        client = self._connect()
        try:
            result = work(client, *args)
        except Exception as error:
            self._drop(client)
            raise self._unavailable(error) from error
        client.used_at = self._used_at
        self._give(client)
        return result

    def _is_sound(self, client: _Client) -> bool:
        return self._text is None or self._used_at - client.used_at <= _PAUSE

    def _connect(self) -> _Client:
        return _Client([self._server], **self._options)

    def _give(self, client: _Client) -> None:
        """Back for the next caller."""
        with _aside:
            if len(self._idle) < self._size:
                self._idle.append(client)
                return
        self._drop(client)

    def _drop(self, client: _Client) -> None:
        client.disconnect_all()


def _get(client: _Client, keys: Sequence[str], deadline: float) -> dict[str, Value]:
    """What is stored of them. libmemcached says of a reply that was late that there is nothing."""
    if len(keys) > 1:
        found: dict[str, Value] = client.get_multi(keys)
        if len(found) == len(keys):
            return found
    else:
        value = client.get(keys[0])
        if value is not None:
            return {keys[0]: value}
        found = {}
    if monotonic() > deadline:
        raise TimeoutError("no answer in time")
    return found


def _set(client: _Client, entry: Entry) -> bool:
    """Whether it was stored; the server may refuse it."""
    key, value, timeout = entry
    try:
        stored: bool = client.set(key, value if type(value) is bytes else _sent(value), expiry(timeout))
    except (pylibmc.TooBig, pylibmc.ServerError):
        return False
    return stored


def _add(client: _Client, entry: Entry) -> bool:
    key, value, timeout = entry
    try:
        added: bool = client.add(key, _sent(value), expiry(timeout))
    except (pylibmc.TooBig, pylibmc.ServerError):
        return False
    return added


def _sent(value: Value) -> Value:
    return value + OFFSET if isinstance(value, int) else bytes(value)  # what else it may be, pylibmc would pickle


def _delete(client: _Client, keys: Sequence[str]) -> int:
    return [client.delete(key) for key in keys].count(True)


def _count(client: _Client, key: str, delta: int) -> int | None:
    """The counter as it is on the server; None if there is none."""
    try:
        counter: int = client.incr(key, delta) if delta >= 0 else client.decr(key, -delta)
    except pylibmc.NotFound:
        return None
    return counter


def _server(address: Address) -> str:
    """The address as pylibmc reads it."""
    if isinstance(address, str):
        return address
    host, port = address
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"
