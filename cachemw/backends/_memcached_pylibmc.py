"""pylibmc behind the calls of a `Pool`. An extra: `pip install pylibmc` needs libmemcached and its headers."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any, Final, TypeVar

import pylibmc  # type: ignore[import-untyped]

from cachemw.backends._memcached_clients import Pool
from cachemw.backends._memcached_ring import Address, Node
from cachemw.backends._memcached_wire import INTEGER, OFFSET, WRAP, Stored, from_wire
from cachemw.backends.base import Value
from cachemw.errors import BackendUnavailable

__all__ = ["PyLibMCPool"]

T = TypeVar("T")

#: pylibmc hands a C int to libmemcached.
_LARGEST_STEP: Final = 2**31 - 1
#: Seconds.
_RESTORED: Final = 300


class _Client(pylibmc.Client):  # type: ignore[misc]  # it has no types
    """pylibmc's client; values come and go as cachemw has them: nothing is unpickled, whatever the flags say."""

    def serialize(self, value: Stored) -> tuple[bytes, int]:
        return value.data, value.flags

    def deserialize(self, data: bytes | None, flags: int) -> Value:
        return from_wire(data or b"", flags)  # None: `get` of an empty value


class PyLibMCPool(Pool[_Client]):
    """Connections by pylibmc. options: keyword arguments of its `Client` (`binary`, `username`, `behaviors`, …).

    text: who does, over the text protocol, what libmemcached cannot: several sets or deletions in one round trip, steps
    of 2**31 and more, sums below zero (its `decr` stops there), telling the timeout, `touch` without a wait. None where
    SASL allows the binary protocol alone: then it has to do.
    """

    def __init__(self, node: Node, *, size: int, options: Mapping[str, Any], text: Pool[Any] | None) -> None:
        super().__init__(node, size=size)
        self._server = _server(node.address)
        self._options = options
        self._text = text
        self._late = options["behaviors"]["receive_timeout"] / 1e6 * 0.95
        self._idle.append(self._connect())  # no connection yet, but what pylibmc says of the options

    def get(self, keys: Sequence[str]) -> dict[str, Value]:
        try:
            return self._read(keys)
        except BackendUnavailable as failure:
            # what another program flagged as compressed, and is not: a damaged value, and no reason to leave the server
            if "decompress" not in str(failure.__cause__):
                raise
            return {} if self._text is None else self._text.get(keys)

    def _read(self, keys: Sequence[str]) -> dict[str, Value]:
        def read(client: _Client) -> dict[str, Value]:
            start = time.monotonic()
            if len(keys) > 1:
                found: dict[str, Value] = client.get_multi(keys)
            else:
                value = client.get(keys[0])
                found = {} if value is None else {keys[0]: value}
            # libmemcached says of a reply that was late that there is nothing
            if len(found) < len(keys) and time.monotonic() - start > self._late:
                raise TimeoutError("no answer in time")
            return found

        return self._run(read)

    def set(self, entries: Sequence[Stored]) -> list[str]:
        if self._text is not None and len(entries) > 1:
            return self._text.set(entries)
        refused = self._run(lambda client: [entry.key for entry in entries if not _stores(client.set, entry)])
        if refused:
            self.delete(refused)
        return refused

    def add(self, entry: Stored) -> bool:
        return self._run(lambda client: _stores(client.add, entry))

    def touch(self, key: str, expiry: int) -> bool:
        if self._text is not None:
            return self._text.touch(key, expiry)
        # libmemcached 1.0.18 waits for a second reply here, until it has no more time, and then is content
        touched: bool = self._run(lambda client: client.touch(key, expiry))
        return touched

    def delete(self, keys: Sequence[str]) -> int:
        if self._text is not None and len(keys) > 1:
            return self._text.delete(keys)
        return self._run(lambda client: [client.delete(key) for key in keys].count(True))

    def incr(self, key: str, delta: int) -> int:
        """As `BaseCache._incr`. With SASL also OverflowError for a step of 2**31 or more, and it cannot be taken back.

        What leaves the 64 bits is then stored again for 5 minutes, or is -2**63 if it went below that.
        """
        if self._text is not None:
            return self._text.incr(key, delta)
        if abs(delta) > _LARGEST_STEP:
            raise OverflowError(f"pylibmc counts in steps of at most {_LARGEST_STEP} with SASL, not {delta}")

        def count(client: _Client) -> int | None:
            try:
                total: int = client.incr(key, delta) if delta >= 0 else client.decr(key, -delta)
            except pylibmc.NotFound:
                return None
            return total

        try:
            total = self._run(count)
        except BackendUnavailable as failure:
            # the binary protocol's "non-numeric value" is an error that libmemcached does not know
            unknown = isinstance(failure.__cause__, pylibmc.UnknownReadFailure)
            if unknown and isinstance(self.get((key,)).get(key), bytes):
                raise TypeError(f"what is stored under {key!r} is no integer") from failure
            raise
        if total is None:
            raise KeyError(key)
        if delta > total:
            self.set((Stored(key, b"%d" % (total - delta + WRAP), INTEGER, _RESTORED),))
        elif total > 0 or delta == 0:
            return total - OFFSET
        raise OverflowError(f"{key!r} {delta:+} does not fit into 64 bits")

    def time_left(self, key: str) -> float | None:
        if self._text is None:
            raise LookupError("pylibmc has no command for it")
        return self._text.time_left(key)

    def close(self) -> None:
        super().close()
        if self._text is not None:
            self._text.close()

    def flush(self) -> None:
        self._run(lambda client: client.flush_all())

    def _run(self, work: Callable[[_Client], T]) -> T:
        try:
            return super()._run(work)
        except BackendUnavailable as failure:
            super().close()  # the idle ones have lost their connections too, and would each say so once
            if isinstance(failure.__cause__, pylibmc.ServerDown):
                return super()._run(work)  # one that knows does not even try for two seconds: nothing was sent
            if "FAILED TO SEND AUTHENTICATION" not in str(failure.__cause__):
                raise
        # libmemcached (1.0.18, sasl.cc) reads the server's SASL mechanisms into a buffer on the stack that it has not
        # cleared, and does not understand them if there was something: the command was not sent. A new thread has a
        # clean stack.
        with ThreadPoolExecutor(1) as executor:
            return executor.submit(super()._run, work).result()

    def _connect(self) -> _Client:
        return _Client([self._server], **self._options)

    def _is_sound(self, client: _Client) -> bool:
        return True  # libmemcached looks itself, and connects anew

    def _drop(self, client: _Client) -> None:
        client.disconnect_all()


def _stores(put: Callable[..., bool], entry: Stored) -> bool:
    """Whether it was stored; the server may refuse it."""
    try:
        return put(entry.key, entry, time=entry.expiry)
    except (pylibmc.TooBig, pylibmc.ServerError):
        return False


def _server(address: Address) -> str:
    """The address as pylibmc reads it."""
    if isinstance(address, str):
        return address
    host, port = address
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"
