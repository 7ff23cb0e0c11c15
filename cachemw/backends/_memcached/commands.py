"""What a memcached server is asked, in its text protocol; for threads and for tasks. Pure.

Rule 1: an operation is written once. Most ask one question, a `Step`; what asks several is a generator, a `Talk`: it
yields steps, is sent the content of their replies, and returns its own result. The clients carry the payloads.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Generator, Iterator, Mapping, Sequence
from typing import Any, Final, TypeVar

from cachemw.backends._memcached.replies import Line, Lines, Meaning, OneValue, Reply, Several, Values, WireError
from cachemw.backends._memcached.wire import WRAP, expiry, flagged
from cachemw.backends.base import Entry, Value

__all__ = [
    "AT_ONCE",
    "RECORD",
    "Step",
    "Talk",
    "add",
    "add_and_get",
    "commit",
    "counted",
    "delete",
    "delete_all",
    "flush",
    "get",
    "incr",
    "put",
    "put_all",
    "time_left",
    "touch",
]

T = TypeVar("T")

#: What to send, and what makes the reply that is expected: it is made when the payload is on its way.
Step = tuple[bytes, Callable[..., Reply], tuple[Any, ...]]
#: An operation of several steps, and a T.
Talk = Generator[Step, Any, T]

#: Commands sent before their replies are read: these fit into the buffers of two sockets, as nobody reads meanwhile.
_PIPELINE: Final = 1000
#: Bytes sent at once, but for one large value: each payload has a deadline of its own, and stands in memory twice.
AT_ONCE: Final = 1024 * 1024
#: The same over TLS: where a command ends inside a record of TLS, memcached (1.6) waits for another one before it reads
#: the rest of it. So a payload is one record, or one command.
RECORD: Final = 16_384
#: Digits of 2**64.
_LONGEST_SUM: Final = 20
#: Bytes of a command without its value, at most.
_COMMAND: Final = 300


_NOT_STORED: Final = re.compile(rb"NOT_STORED|SERVER_ERROR .*").fullmatch
_NO_INTEGER: Final = re.compile(rb"NOT_FOUND|CLIENT_ERROR .*").fullmatch
_TIME_LEFT: Final = re.compile(rb"HD t-?[0-9]{1,10}|EN|ERROR|CLIENT_ERROR .*").fullmatch


# -- what the server may answer, and what it means ------------------------------------------------------------------


def _nonsense(line: bytes) -> WireError:
    return WireError(f"answered {line[:60]!r}")


def _either(meanings: Mapping[bytes, bool]) -> Meaning:
    def meaning(line: bytes) -> bool:
        if line in meanings:
            return meanings[line]
        raise _nonsense(line)

    return meaning


_deleted: Final = _either({b"DELETED": True, b"NOT_FOUND": False})
_touched: Final = _either({b"TOUCHED": True, b"NOT_FOUND": False})
_flushed: Final = _either({b"OK": True})


def _stored(line: bytes) -> bool:
    if line == b"STORED":
        return True
    if _NOT_STORED(line):
        return False
    raise _nonsense(line)


def _sum(line: bytes) -> int | bytes:
    """The integer, or why there is none."""
    if line.isdigit() and len(line) <= _LONGEST_SUM:
        return int(line)
    if _NO_INTEGER(line):
        return line
    raise _nonsense(line)


def _life(line: bytes) -> bytes:
    if _TIME_LEFT(line):
        return line
    raise _nonsense(line)


# -- one question ---------------------------------------------------------------------------------------------------


def get(keys: Sequence[str]) -> Step:
    """What is stored of them: a dictionary."""
    if len(keys) == 1:
        return f"get {keys[0]}\r\n".encode(), OneValue, (keys,)
    return f"get {' '.join(keys)}\r\n".encode(), Values, (keys,)


def put(entry: Entry) -> Step:
    """Store it: was it? If the server has refused it, the old value may still be there."""
    return _store("set", entry), Line, (_stored,)


def add(entry: Entry) -> Step:
    """Store it if there is none: was it?"""
    return _store("add", entry), Line, (_stored,)


def touch(key: str, timeout: float | None) -> Step:
    """Give it another timeout: was there one?"""
    return f"touch {key} {expiry(timeout)}\r\n".encode(), Line, (_touched,)


def delete(key: str) -> Step:
    """Remove it: was there one?"""
    return f"delete {key}\r\n".encode(), Line, (_deleted,)


def incr(key: str, delta: int) -> Step:
    """Add to an integer: see `counted`."""
    return f"incr {key} {delta % WRAP}\r\n".encode(), Line, (_sum,)


def counted(key: str, answer: int | bytes) -> int:
    """The server's answer to `incr`, see `_memcached.wire.total`. Raises: KeyError, TypeError as `BaseCache._incr`."""
    if isinstance(answer, int):
        return answer
    if answer == b"NOT_FOUND":
        raise KeyError(key)
    raise TypeError(f"what is stored under {key!r} is not an integer")


def time_left(key: str) -> Step:
    """Ask for the seconds that it has left: a line, see `_memcached.wire.time_left`."""
    return f"mg {key} t\r\n".encode(), Line, (_life,)


def flush() -> Step:
    """Remove everything."""
    return b"flush_all\r\n", Line, (_flushed,)


# -- several --------------------------------------------------------------------------------------------------------
# `most`: bytes sent at once, AT_ONCE or RECORD.


def put_all(entries: Sequence[Entry], most: int) -> Talk[list[str]]:
    """Store them; the keys that the server refused, whose old values are gone."""
    refused: list[str] = []
    for some in _pipelines(entries, _storing_size, most):
        stored = yield b"".join(_storing("set", some)), Lines, (len(some), _stored)
        refused += _refused(some, stored)
    if refused:
        yield from delete_all(refused, most)
    return refused


def delete_all(keys: Sequence[str], most: int) -> Talk[int]:
    """Remove them; how many were there."""
    deleted = 0
    for some in _pipelines(keys, _deleting_size, most):
        deleted += sum((yield _deleting(some), Lines, (len(some), _deleted)))
    return deleted


def commit(
    entries: Sequence[Entry], latest: Sequence[str], drops: Sequence[str], most: int
) -> Talk[tuple[list[str], dict[str, Value]]]:
    """`put_all`, then `get`, then `delete_all`: a server takes the commands of one connection in their order."""
    asked, values = _looking(latest)
    payload = b"".join([*_storing("set", entries), asked, _deleting(drops)])
    if len(payload) > most:
        refused = yield from put_all(entries, most)
        found = (yield get(latest)) if latest else {}
        yield from delete_all(drops, most)
        return refused, found
    parts = Lines(len(entries), _stored), values, Lines(len(drops), _deleted)
    stored, found, _ = yield payload, Several, parts
    if refused := _refused(entries, stored):
        yield from delete_all(refused, most)
    return refused, found or {}


def add_and_get(entry: Entry, latest: Sequence[str], most: int) -> Talk[tuple[bool, dict[str, Value]]]:
    """`add`, then `get`."""
    asked, values = _looking(latest)
    payload = b"".join([*_storing("add", (entry,)), asked])
    if len(payload) > most:
        added = yield add(entry)
        return added, (yield get(latest)) if latest else {}
    added, found = yield payload, Several, (Line(_stored), values)
    return added, found or {}


def _looking(keys: Sequence[str]) -> tuple[bytes, Reply]:
    """`get` as a part of several commands, maybe of no keys."""
    if not keys:
        return b"", Several()
    payload, reply, given = get(keys)
    return payload, reply(*given)


def _store(command: str, entry: Entry) -> bytes:
    key, value, timeout = entry
    data, flags = (value, 0) if type(value) is bytes else flagged(value)
    return b"".join((f"{command} {key} {flags} {expiry(timeout)} {len(data)}\r\n".encode(), data, b"\r\n"))


def _storing(command: str, entries: Sequence[Entry]) -> list[bytes]:
    """The parts of the commands, to be joined once, with all that goes along: a page may be large."""
    parts: list[bytes] = []
    before, exptime = None, 0
    for key, value, timeout in entries:
        if timeout != before:  # most have the same
            before, exptime = timeout, expiry(timeout)
        data, flags = (value, 0) if type(value) is bytes else flagged(value)
        parts += (f"{command} {key} {flags} {exptime} {len(data)}\r\n".encode(), data, b"\r\n")
    return parts


def _deleting(keys: Sequence[str]) -> bytes:
    return "".join([f"delete {key}\r\n" for key in keys]).encode()


def _refused(entries: Sequence[Entry], stored: Sequence[bool]) -> list[str]:
    return [] if all(stored) else [key for (key, _, _), was in zip(entries, stored, strict=True) if not was]


def _storing_size(entry: Entry) -> int:
    _, value, _ = entry
    return _COMMAND if isinstance(value, int) else _COMMAND + len(value)


def _deleting_size(key: str) -> int:
    return len(key) + len("delete \r\n") if key.isascii() else _COMMAND


def _pipelines(items: Sequence[T], size: Callable[[T], int], most: int) -> Iterator[Sequence[T]]:
    if 0 < len(items) <= _PIPELINE and sum(map(size, items)) <= most:
        yield items
        return
    some: list[T] = []
    taken = 0
    for item in items:
        taken += size(item)
        if some and (len(some) == _PIPELINE or taken > most):
            yield some
            some, taken = [], size(item)
        some.append(item)
    if some:
        yield some
