"""What a cache does, in Redis commands: each operation once, for threads and for tasks.

Rule 1: one operation is one round trip, but for `clear`, a write that found no memory, and the first `incr` of all.
Rule 2: whatever has to be atomic is one command or one script.
Rule 3: the operations that programs do most, on a server that is alone, are conversations without steps: a `payload`
that is sent, and replies that are understood or, should there be an error among them, the operation done in steps.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable, Sequence
from functools import lru_cache
from itertools import product
from typing import Any, Final

from cachemw.backends._redis.node import Ask, Steps
from cachemw.backends._redis.routes import Routes
from cachemw.backends._redis.wire import AFTER_DIGITS, Command, ReplyError, load, pack, pack_all
from cachemw.errors import BackendUnavailable

__all__ = [
    "add",
    "add_and_get_pages",
    "clear",
    "commit",
    "delete",
    "found",
    "get",
    "get_payload",
    "has",
    "incr",
    "incr_payload",
    "loaded",
    "pages",
    "put",
    "put_payload",
    "refused",
    "time_left",
    "time_left_and_get",
    "total",
    "touch",
]

#: INCRBY alone would make a missing key, without a timeout. Lua's numbers have 53 bits: a larger sum is read as text,
#: by MGET as all else is (were it forbidden, the error after the deed would have it done again). A summand of more than
#: 64 bits, which may well fit, comes in several; those that went before one too many go back.
_INCR: Final = """\
if redis.call('EXISTS', KEYS[1]) == 0 then return false end
local sum
for i, step in ipairs(ARGV) do
  sum = redis.pcall('INCRBY', KEYS[1], step)
  if type(sum) == 'table' then
    for j = 1, i - 1 do redis.call('DECRBY', KEYS[1], ARGV[j]) end
    return sum
  end
end
if sum > -9007199254740992 and sum < 9007199254740992 then return sum end
return redis.call('MGET', KEYS[1])[1]"""

#: By which a server knows the script that it has run before.
_INCR_NAME: Final = hashlib.sha1(_INCR.encode(), usedforsecurity=False).hexdigest()

#: What an ACL has to allow for it; without EVALSHA it takes two round trips each time.
_INCR_NEEDS: Final = "+eval +evalsha +exists +incrby +decrby +mget"

_INT64: Final = 2**63

#: Milliseconds: Redis refuses a timeout of zero.
_SHORTEST: Final = 1

_SCAN_COUNT: Final = "1000"

#: Error replies to SET that concern this value, not the server: no memory for it, or longer than the server takes.
_NOT_STORED: Final = ("OOM", "ERR string exceeds maximum allowed size")


def get(routes: Routes, keys: Sequence[str], *, latest: bool = False) -> Steps[dict[str, Any]]:
    """MGET: what is there, of the leader if it has to be the latest. A foreign key of another type counts as absent."""
    if not keys:
        return {}
    return found(keys, (yield from routes.execute(_gets(routes, keys), writes=latest)))


def found(keys: Sequence[str], replies: list[Any]) -> dict[str, Any]:
    """What the replies to MGET say is there."""
    stored = zip(keys, _values(replies, len(keys)), strict=True)
    return {key: load(value) for key, value in stored if type(value) is bytes}


def _gets(routes: Routes, keys: Sequence[str]) -> list[Command]:
    if routes.joined:
        return [(None, ("MGET", *keys))]
    return [(key, ("MGET", key)) for key in keys]


def _values(replies: list[Any], count: int) -> list[Any]:
    """The values in MGET's replies. Raises: BackendUnavailable if they are none: what speaks here is not Redis."""
    if len(replies) == 1 and type(replies[0]) is list:
        some: list[Any] = replies[0]
    else:
        some = [value for reply in _checked(replies) if type(reply) is list for value in reply]
    if len(some) != count:
        raise BackendUnavailable(f"Redis was asked for {count} values, and answered {replies!r:.100}")
    return some


def pages(replies: list[Any], count: int) -> list[Any]:
    """The payloads in the replies to one MGET of `count` keys; what is an integer is no page."""
    return [
        value if type(value) is bytes and (value >= AFTER_DIGITS or type(load(value)) is bytes) else None
        for value in _values(replies, count)
    ]


def _number(reply: Any) -> int:
    try:
        return int(reply)
    except (TypeError, ValueError):
        raise BackendUnavailable(f"Redis was asked for a number, and answered {reply!r:.100}") from None


def put(routes: Routes, entries: Sequence[tuple[str, Any, float | None]]) -> Steps[list[str]]:
    """SET each; the keys that the server had no room for, whose old values are gone."""
    if not entries:
        return []
    replies = yield from routes.execute(_sets(entries), writes=True)
    return (yield from _without(routes, _not_stored(entries, replies)))


def _sets(entries: Sequence[tuple[str, Any, float | None]]) -> list[Command]:
    return [
        (key, ("SET", key, str(value) if type(value) is int else value, *_expiry(timeout)))
        for key, value, timeout in entries
    ]


def _not_stored(entries: Sequence[tuple[str, Any, float | None]], replies: Sequence[Any]) -> list[str]:
    """The keys of the SETs that the server had no room for. Raises: BackendUnavailable if it refused one otherwise."""
    failed = []
    for (key, _, _), reply in zip(entries, replies, strict=True):
        if type(reply) is ReplyError:
            if not str(reply).startswith(_NOT_STORED):
                raise _refused(reply)
            failed.append(key)
    return failed


def _without(routes: Routes, failed: list[str]) -> Steps[list[str]]:
    """The same keys; their old values are gone."""
    if failed:
        yield from delete(routes, failed)
    return failed


def commit(
    routes: Routes, entries: Sequence[tuple[str, Any, float | None]], latest: Sequence[str], drops: Sequence[str]
) -> Steps[tuple[list[str], list[Any]]]:
    """`put`, `get` of pages and `delete`, which one server does in this order; not for a Cluster, which has several."""
    commands = _sets(entries)
    if latest:
        commands.append((None, ("MGET", *latest)))
    if drops:
        commands.append((None, ("UNLINK", *drops)))
    if not commands:
        return [], []
    replies = yield from routes.execute(commands, writes=True)
    count = len(entries)
    failed = yield from _without(routes, _not_stored(entries, replies[:count]))
    rest = _checked(replies[count:])
    return failed, pages(rest[:1], len(latest)) if latest else []


def add(routes: Routes, key: str, value: Any, timeout: float | None) -> Steps[bool]:
    """SET NX; was it absent?"""
    (reply,) = yield from _executed(routes, [_adding(key, value, timeout)], writes=True)
    return reply is not None


def _adding(key: str, value: Any, timeout: float | None) -> Command:
    ((_, words),) = _sets([(key, value, timeout)])
    return key, (*words, "NX")


def add_and_get_pages(
    routes: Routes, key: str, value: Any, timeout: float | None, latest: Sequence[str]
) -> Steps[tuple[bool, list[Any]]]:
    """`add`, and then `get` of pages, of the leader."""
    commands = [_adding(key, value, timeout), *(_gets(routes, latest) if latest else ())]
    added, *rest = yield from _executed(routes, commands, writes=True)
    return added is not None, pages(rest, len(latest))


def touch(routes: Routes, key: str, timeout: float | None) -> Steps[bool]:
    """PEXPIRE, or PERSIST, which does not tell a missing key from one that has no timeout; was it there?"""
    if timeout is None:
        commands: list[Command] = [(key, ("PERSIST", key)), (key, ("EXISTS", key))]
    else:
        commands = [(key, ("PEXPIRE", key, _milliseconds(timeout)))]
    replies = yield from _executed(routes, commands, writes=True)
    return _number(replies[-1]) > 0


def delete(routes: Routes, keys: Sequence[str | bytes]) -> Steps[int]:
    """UNLINK; how many were there."""
    if not keys:
        return 0
    commands: list[Command] = [(None, ("UNLINK", *keys))]
    if not routes.joined:
        commands = [(key, ("UNLINK", key)) for key in keys]
    replies = yield from _executed(routes, commands, writes=True)
    return sum(map(_number, replies))


def incr(routes: Routes, key: str, delta: int) -> Steps[int]:
    """Add, if there is an integer; its timeout stays.

    Raises: KeyError, TypeError, OverflowError.
    """
    (reply,) = yield from routes.execute([(key, ("EVAL", _INCR, "1", key, *_steps(delta)))], writes=True)
    if type(reply) is ReplyError:
        message = str(reply)
        if "would overflow" in message:
            raise OverflowError(f"{key!r} plus {delta} has more than 64 bits")
        if "not an integer" in message or "WRONGTYPE" in message:
            raise TypeError(f"The value of {key!r} is not an integer")
        if "permission" in message or "can't run" in message:
            raise BackendUnavailable(f"Redis refused: {reply} (incr() is a script; its user needs {_INCR_NEEDS})")
        raise _refused(reply)
    return total(key, reply)


def total(key: str, reply: Any) -> int:
    """The sum that the script tells. Raises: KeyError if there was nothing to add to."""
    if reply is None:
        raise KeyError(key)
    return _number(reply)


def _steps(delta: int) -> list[str]:
    """Summands that Redis takes. What is beyond 2**64 fits nowhere, as little as 2**64."""
    left = min(max(delta, -2 * _INT64), 2 * _INT64)
    steps: list[int] = []
    while not steps or left:
        steps.append(min(max(left, 1 - _INT64), _INT64 - 1))
        left -= steps[-1]
    return [str(step) for step in steps]


def incr_payload(key: str, delta: int) -> bytes:
    """What `incr` sends if the server has run its script before and delta has 63 bits."""
    return pack(("EVALSHA", _INCR_NAME, "1", key, str(delta)))


def put_payload(entries: Sequence[tuple[str, Any, float | None]]) -> bytes:
    """What `put` sends."""
    return pack_all(_sets(entries))


def refused(entries: Sequence[tuple[str, Any, float | None]], replies: list[Any]) -> list[Any]:
    """Those that were not stored; `put` finds out why."""
    return [entry for entry, reply in zip(entries, replies, strict=True) if type(reply) is ReplyError]


def loaded(keys: Sequence[Any], replies: list[Any], loads: Callable[[bytes], Any]) -> dict[Any, Any]:
    """What the reply to MGET says is there, deserialized, by the caller's keys, in whose order it was asked.

    Raises: what `loads` raises.
    """
    stored = _values(replies, len(keys))
    try:
        plain = min(stored) >= AFTER_DIGITS
    except TypeError:  # some are absent
        plain = False
    if plain:  # nor is one an integer: no need to look at each
        return dict(zip(keys, map(loads, stored), strict=True))
    return {
        key: loads(value) if value >= AFTER_DIGITS or type(number := load(value)) is not int else number
        for key, value in zip(keys, stored, strict=True)
        if value is not None
    }


def get_payload(keys: Iterable[str]) -> bytes:
    """What `get` sends."""
    return pack(("MGET", *keys))


def has(routes: Routes, key: str) -> Steps[bool]:
    """EXISTS."""
    (reply,) = yield from _executed(routes, [(key, ("EXISTS", key))], writes=False)
    return _number(reply) > 0


def time_left(routes: Routes, key: str) -> Steps[float | None]:
    """PTTL in seconds; None: for ever, 0: it is gone."""
    (reply,) = yield from _executed(routes, [(key, ("PTTL", key))], writes=True)
    return _seconds(_number(reply))


def time_left_and_get(routes: Routes, keys: Sequence[str]) -> Steps[dict[str, tuple[Any, float | None]]]:
    """What is there, and for how many seconds, of the leader.

    The time is asked for first: should the key be written in between, a new value gets the shorter time of the old one.
    """
    commands: list[Command] = [(key, ("PTTL", key)) for key in keys]
    replies = yield from _executed(routes, commands + _gets(routes, keys), writes=True)
    times = map(_number, replies[: len(keys)])
    return {
        key: (load(value), _seconds(time))
        for key, time, value in zip(keys, times, _values(replies[len(keys) :], len(keys)), strict=True)
        if type(value) is bytes and time != _ABSENT
    }


_ABSENT: Final = -2
_FOR_EVER: Final = -1


def _seconds(reply: int) -> float | None:
    return None if reply == _FOR_EVER else max(reply, 0) / 1000


def clear(routes: Routes, patterns: Sequence[str]) -> Steps[None]:
    """Remove all keys that match, on all leaders, a thousand at a time: other applications' stay."""
    for node, pattern in product((yield from routes.leaders()), patterns):
        cursor = b"0"
        while True:
            scan = pack(("SCAN", cursor, "MATCH", pattern, "COUNT", _SCAN_COUNT))
            (answer,) = yield (Ask(node, scan, 1),)
            if isinstance(answer, BackendUnavailable):
                raise answer
            cursor, keys = _checked(answer)[0]
            yield from delete(routes, keys)
            if cursor == b"0":
                break


@lru_cache(maxsize=64)  # a program has few time-outs
def _expiry(timeout: float | None) -> tuple[Any, ...]:
    return () if timeout is None else ("PX", _milliseconds(timeout))


def _milliseconds(timeout: float) -> str:
    return str(max(_SHORTEST, round(timeout * 1000)))


def _executed(routes: Routes, commands: Sequence[Command], *, writes: bool) -> Steps[list[Any]]:
    return _checked((yield from routes.execute(commands, writes=writes)))


def _checked(replies: list[Any]) -> list[Any]:
    """The replies, if none is an error."""
    for reply in replies:
        if type(reply) is ReplyError:
            raise _refused(reply)
    return replies


def _refused(reply: Exception) -> BackendUnavailable:
    return BackendUnavailable(f"Redis refused: {reply}")
