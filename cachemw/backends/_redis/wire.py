"""What goes over a connection to Redis: commands packed, replies told from errors, integers from bytes. Pure."""

from __future__ import annotations

import ssl
from collections.abc import Callable, Sequence
from typing import Any, Final

import hiredis
from redis.exceptions import RedisError

from cachemw.errors import BackendUnavailable, InvalidCacheKey

__all__ = [
    "AFTER_DIGITS",
    "CLIENT_ERRORS",
    "INCOMPLETE",
    "Command",
    "PushNotification",
    "Reader",
    "ReplyError",
    "check_error",
    "load",
    "new_reader",
    "pack",
    "pack_all",
    "unavailable",
]

#: A key, by which a Cluster finds the node (None: any node), and the words of the command. Numbers are text: hiredis
#: (3.5) crashes if a signal's handler raises while it writes one.
Command = tuple[str | bytes | None, tuple[Any, ...]]

Reader = hiredis.Reader
ReplyError = hiredis.ReplyError
PushNotification = hiredis.PushNotification

#: "More bytes are needed"; None and False are replies.
INCOMPLETE: Final = object()

#: All that redis-py, hiredis, sockets and TLS raise; UnicodeError is a host name that DNS cannot take.
CLIENT_ERRORS: Final = (RedisError, OSError, ssl.SSLError, hiredis.HiredisError, EOFError, UnicodeError)

#: What begins with a digit, or a minus, is less.
AFTER_DIGITS: Final = b":"

_INT64_DIGITS: Final = 19

_pack: Callable[[tuple[Any, ...]], bytes] = hiredis.pack_command


def pack(words: tuple[Any, ...]) -> bytes:
    """The bytes of one command; text is UTF-8. Raises: InvalidCacheKey for a key with a lone surrogate."""
    try:
        return _pack(words)
    except UnicodeEncodeError as error:
        raise _unspeakable(error) from error


def pack_all(commands: Sequence[Command]) -> bytes:
    """The bytes of several commands, to be sent at once. Raises: as `pack`."""
    try:
        return b"".join([_pack(words) for _, words in commands])
    except UnicodeEncodeError as error:
        raise _unspeakable(error) from error


def _unspeakable(error: UnicodeEncodeError) -> InvalidCacheKey:
    return InvalidCacheKey(f"Redis takes keys in UTF-8, and this is not UTF-8: {error.object!r}")


def new_reader() -> Reader:
    """A parser of replies; an error reply comes as a `ReplyError`, which is not raised."""
    return hiredis.Reader(notEnoughData=INCOMPLETE)


def check_error(reply: ReplyError) -> None:
    """Raises: ConnectionResetError for the error reply after which Redis closes the connection: a value too large."""
    if str(reply).startswith("ERR Protocol error"):
        raise ConnectionResetError(f"the server closed the connection: {reply}")


def load(stored: bytes) -> bytes | int:
    """A value: decimal digits are an integer that Redis counts (the base class stores no bytes that look like one)."""
    if stored >= AFTER_DIGITS:
        return stored
    digits = stored.removeprefix(b"-")
    return int(stored) if digits.isdigit() and len(digits) <= _INT64_DIGITS else stored


def unavailable(server: str, error: BaseException | str) -> BackendUnavailable:
    """The one error that a caller of the store sees, whatever the client raised."""
    reason = error if isinstance(error, str) else f"{type(error).__name__}: {error}".rstrip(": ")
    return BackendUnavailable(f"Redis at {server} is not available: {reason}")
