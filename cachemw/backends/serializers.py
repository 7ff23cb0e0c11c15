"""How the low-level API turns values into bytes, and how bytes prove where they come from.

Rule 1: with a secret, nothing is decoded before its seal was checked; a pickle executes what it says.
Rule 2: what a serializer makes never looks like a decimal number: integers are stored as such, so that a store can
count, and a reader tells the two apart by their looks.
"""

from __future__ import annotations

import pickle
from collections.abc import Sequence
from hashlib import blake2b
from hmac import compare_digest
from typing import Any, Final, Protocol

import msgspec

from cachemw._values import imported, refuse
from cachemw.errors import SerializationError

__all__ = [
    "JSONSerializer",
    "MsgpackSerializer",
    "PickleSerializer",
    "Seal",
    "Serializer",
    "make_serializer",
    "secrets_from",
]


class Serializer(Protocol):
    """Two methods turn a value into bytes and back; `json`, `pickle`, `msgspec.json` shaped objects fit."""

    def dumps(self, value: Any, /) -> bytes:
        """The value as bytes; any exception is reported as SerializationError."""

    def loads(self, data: bytes, /) -> Any:
        """The value again; any exception means that there is none, and is logged."""


class PickleSerializer:
    """Python's own format at its highest protocol, for any picklable value, as in Django."""

    @staticmethod
    def dumps(value: Any, /) -> bytes:
        """Raises: PicklingError, TypeError, AttributeError: whatever pickle does."""
        return pickle.dumps(value, pickle.HIGHEST_PROTOCOL)

    #: Runs what the pickle says: with `SECRET`, only after its seal was checked.
    loads = staticmethod(pickle.loads)


class JSONSerializer:
    """JSON, readable by other languages; tuples come back as lists, dates and bytes as text."""

    def dumps(self, value: Any, /) -> bytes:
        return msgspec.json.encode(value)

    def loads(self, data: bytes, /) -> Any:
        return msgspec.json.decode(data)


class MsgpackSerializer:
    """MessagePack, small and fast, readable by other languages; tuples come back as lists, bytes stay bytes."""

    def dumps(self, value: Any, /) -> bytes:
        return msgspec.msgpack.encode(value)

    def loads(self, data: bytes, /) -> Any:
        return msgspec.msgpack.decode(data)


#: First bytes of what `int()` reads, and the escape itself.
_ESCAPE: Final = b"\x00"
_ESCAPED: Final = frozenset(b"\x00\t\n\v\f\r +-0123456789")


class _Unnumeric:
    """Puts a NUL before what begins like a number (`json` of 10**30 or of an IntEnum, see Rule 2)."""

    __slots__ = ("_serializer",)

    def __init__(self, serializer: Serializer) -> None:
        self._serializer = serializer

    def dumps(self, value: Any, /) -> bytes:
        data = self._serializer.dumps(value)
        if isinstance(data, str):  # the standard library's json
            data = data.encode()
        return _ESCAPE + data if data and data[0] in _ESCAPED else data

    def loads(self, data: bytes, /) -> Any:
        return self._serializer.loads(data[1:] if data[:1] == _ESCAPE else data)


_NAMED: Final[dict[str, type[Serializer]]] = {
    "json": JSONSerializer,
    "msgpack": MsgpackSerializer,
    "pickle": PickleSerializer,
}


def make_serializer(given: object) -> Serializer:
    """The serializer that the setting `SERIALIZER` describes.

    given: None or "pickle", "json", "msgpack"; a dotted path; a class; an object (or module) with `dumps` and `loads`.
    Raises: ImproperlyConfigured.
    """
    if given is None or given == "pickle":
        return PickleSerializer()
    found = given
    if isinstance(found, str) and (found in _NAMED or "." in found):
        found = _NAMED[found] if found in _NAMED else imported("SERIALIZER", found)
    if isinstance(found, type):
        found = found()
    if not callable(getattr(found, "dumps", None)) or not callable(getattr(found, "loads", None)):
        raise refuse(
            "SERIALIZER", given, f"{', '.join(sorted(_NAMED))}, or an object or dotted path with dumps and loads"
        )
    if isinstance(found, PickleSerializer):
        return found  # protocol 2 and later begin with 0x80
    return _Unnumeric(found)  # type: ignore[arg-type]


def secrets_from(given: object) -> tuple[bytes, ...]:
    """What the setting `SECRET` says: None, a text, or several, the newest first. Raises: ImproperlyConfigured."""
    if given is None:
        return ()
    secrets = [given] if isinstance(given, str | bytes) else given
    if (
        not isinstance(secrets, Sequence)
        or not secrets
        or not all(isinstance(one, str | bytes) and one.strip() for one in secrets)
    ):
        # the value is not repeated: it may be the right one in the wrong shape
        raise refuse("SECRET", "…", "a string that is not empty, or a list of such strings, the newest first")
    return tuple(one.encode(errors="surrogatepass") if isinstance(one, str) else one for one in secrets)


class Seal:
    """Authenticates what is stored, together with the key it is stored under, so that nothing can be moved either.

    secrets: the first one signs, all of them verify (to rotate: put the new one first, drop the old one later).
    Integers are not sealed: a store could not count them. Forging one executes nothing.
    """

    __slots__ = ("_secrets",)

    _MARK: Final = b"\x02"
    _SIZE: Final = 16
    _HEAD: Final = 1 + _SIZE

    def __init__(self, secrets: Sequence[bytes]) -> None:
        # a secret may be of any length, BLAKE2b takes keys of 64 bytes
        self._secrets = [blake2b(secret, person=b"cachemw value").digest() for secret in secrets]

    def _mac(self, secret: bytes, key: str, data: bytes) -> bytes:
        name = key.encode("utf-8", "surrogatepass")
        mac = blake2b(len(name).to_bytes(8, "big"), key=secret, digest_size=self._SIZE)
        mac.update(name)
        mac.update(data)
        return mac.digest()

    def seal(self, key: str, data: bytes) -> bytes:
        """The data with the seal before it."""
        return self._MARK + self._mac(self._secrets[0], key, data) + data

    def unseal(self, key: str, sealed: bytes) -> bytes:
        """The data again. Raises: SerializationError if it was not sealed by one of the secrets for this key."""
        data = sealed[self._HEAD :]
        given = sealed[1 : self._HEAD]
        if sealed[:1] == self._MARK and any(
            compare_digest(given, self._mac(secret, key, data)) for secret in self._secrets
        ):
            return data
        raise SerializationError("not sealed by any of the configured secrets for this key")
