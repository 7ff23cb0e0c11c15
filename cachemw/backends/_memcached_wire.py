"""What cachemw and a memcached server say to each other, whatever the client library: values, flags, expiry, sums.

Rule 1: an integer n stands on the server as the decimal n + 2**63, flagged: `incr` then counts it in place, below zero
too, atomically and without touching its expiry. memcached itself counts without a sign, and `decr` stops at zero.
Rule 2: an entry never outlives what was asked by more than the second that the server's clock is coarse.
"""

from __future__ import annotations

import math
import time
from typing import Final, NamedTuple

from cachemw.backends.base import Entry, Value

__all__ = ["INTEGER", "OFFSET", "WRAP", "Delta", "Stored", "expiry", "from_wire", "stored", "time_left"]

OFFSET: Final = 2**63
WRAP: Final = 2**64
#: pylibmc's flag for a Python int, and pymemcache's for a large one.
INTEGER: Final = 4

_MONTH: Final = 30 * 24 * 3600
_LAST_TIME: Final = 2**31 - 1


class Stored(NamedTuple):
    """An entry as the server keeps it; `expiry` is memcached's exptime."""

    key: str
    data: bytes
    flags: int
    expiry: int


def stored(entry: Entry) -> Stored:
    """The entry as the server keeps it."""
    key, value, timeout = entry
    if isinstance(value, int):
        return Stored(key, b"%d" % (value + OFFSET), INTEGER, expiry(timeout))
    return Stored(key, value, 0, expiry(timeout))


def from_wire(data: bytes, flags: int) -> Value:
    """The value again; what is flagged as an integer and is none of ours was put there by another program: bytes."""
    if flags == INTEGER:
        digits = data.rstrip(b" ")  # what has become shorter by counting is filled up with spaces
        if digits.isdigit() and len(digits) <= 20 and (number := int(digits)) < WRAP:
            return number - OFFSET
    return data


def expiry(timeout: float | None) -> int:
    """A timeout > 0 as memcached's exptime: whole seconds, above 30 days a point in time, 0 for ever.

    A fraction is rounded up: 0 would mean for ever. memcached counts the whole seconds of its own clock, so an entry
    may go up to 1 s early. The last point in time that it knows is in January 2038.
    """
    if timeout is None:
        return 0
    if timeout <= _MONTH:
        return math.ceil(timeout)
    return math.ceil(min(time.time() + timeout, _LAST_TIME))


def time_left(line: bytes) -> float | None:
    """Seconds left by the reply to `mg key t`, None for ever. Raises: LookupError if the server does not tell."""
    if not line.startswith(b"HD t"):  # EN: not there; ERROR: older than 1.6
        raise LookupError(line)
    seconds = int(line[4:])
    return None if seconds < 0 else max(float(seconds), 1.0)


class Delta:
    """An addition as the server is told it, and what its answer means.

    unsigned   the summand modulo 2**64: `incr` wraps around, and so subtracts too, where `decr` would stop at zero
    undo       the summand that takes it back
    """

    __slots__ = ("_delta", "undo", "unsigned")

    def __init__(self, delta: int) -> None:
        self._delta = delta
        self.unsigned = delta % WRAP
        self.undo = -delta % WRAP

    def total(self, answer: int) -> int | None:
        """The sum; None if it does not fit into 64 bits, and has to be taken back."""
        total = answer - OFFSET
        return total if -OFFSET <= total - self._delta < OFFSET else None
