"""What cachemw and a memcached server say to each other, whatever the client library: values, flags, expiry, sums.

Rule 1: an integer n stands on the server as the decimal n + 2**63, flagged: `incr` then counts it in place, below zero
too, atomically and without touching its expiry. memcached itself counts without a sign, and `decr` stops at zero.
Rule 2: an entry never outlives what was asked by more than the second that the server's clock is coarse.
"""

from __future__ import annotations

import math
import time
from typing import Final

from cachemw.backends.base import Value

__all__ = ["INTEGER", "OFFSET", "WRAP", "expiry", "flagged", "from_wire", "time_left", "too_large", "total"]

OFFSET: Final = 2**63
WRAP: Final = 2**64
#: pylibmc's flag for a Python int, and pymemcache's for a large one.
INTEGER: Final = 4

_MONTH: Final = 30 * 24 * 3600
_LAST_TIME: Final = 2**31 - 1
#: A clock that says less (September 2020) was never set: to the server, a time by it would be long past.
_EARLIEST: Final = 1_600_000_000


def flagged(value: Value) -> tuple[bytes, int]:
    """The value as the server keeps it, and its flags."""
    return (b"%d" % (value + OFFSET), INTEGER) if isinstance(value, int) else (value, 0)


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
    now = time.time()
    return _MONTH if now < _EARLIEST else math.ceil(min(now + timeout, _LAST_TIME))


def time_left(line: bytes) -> float | None:
    """Seconds left by the reply to `mg key t`, None for ever, 0 if it is gone.

    Raises: LookupError if the server does not tell: it is older than 1.6.
    """
    if line == b"EN":
        return 0.0
    if not line.startswith(b"HD t"):
        raise LookupError(line)
    seconds = int(line[4:])
    return None if seconds < 0 else max(float(seconds), 1.0)


def total(answer: int, delta: int) -> int | None:
    """What the server's answer to `incr` by `delta % WRAP` means; None: it does not fit into 64 bits.

    `incr` wraps around, and so subtracts too, where `decr` would stop at zero; `-delta` takes it back.
    """
    number = answer - OFFSET
    return number if -OFFSET <= number - delta < OFFSET else None


def too_large(key: str, delta: int) -> OverflowError:
    """To be raised for a sum that does not fit."""
    return OverflowError(f"{key!r} {delta:+} does not fit into 64 bits")
