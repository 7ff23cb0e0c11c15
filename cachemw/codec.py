"""Records of the page cache as bytes, and back: what a store keeps is one framed, checked block, never a pickle.

    prefix   magic "cmw", version, kind of record, flags, then three lengths: head, body as kept, body as sent
    head     MessagePack of the typed fields, the full cache key first
    body     as the application sent it, or compressed; nothing where a store keeps it apart, and checks it itself
    check    CRC-32 of all the above; with a secret a keyed BLAKE2b of 128 bits instead

Rule 1: nothing is decoded before the lengths add up and the check agrees; with secrets nothing unsigned is read.
Rule 2: whatever is odd is a miss with a reason in `Codec.refused`; `decode` never raises.
Rule 3: no length that stands in a payload is trusted with an allocation.
Rule 4: what was decoded lately is remembered, and used again only for a payload that is the same in every byte.
A change of any record's fields or of this layout is a new version: the entries of the old one are then misses.
"""

from __future__ import annotations

import zlib
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from hashlib import blake2b
from hmac import compare_digest
from itertools import chain
from math import isfinite
from struct import Struct
from typing import Any, Final, Literal, NamedTuple

import msgspec

from cachemw._codec_compression import PLAIN, Compression, unfolded
from cachemw._codec_recent import Recent
from cachemw.errors import ImproperlyConfigured
from cachemw.rfc9111.bodies import Body
from cachemw.rfc9111.messages import EncodedFields, Fields, HitForMiss, Mark, Record, StoredResponse, VaryIndex

__all__ = ["REFUSALS", "Apart", "Codec", "Refusal"]

#: Why a payload was not used.
Refusal = Literal["foreign", "version", "length", "checksum", "secret", "head", "compression", "size", "key", "body"]
REFUSALS: Final[Mapping[Refusal, str]] = {
    "foreign": "it was not written by cachemw",
    "version": "another version of cachemw has written it",
    "length": "its lengths do not add up",
    "checksum": "its checksum is wrong, or it was signed with another secret",
    "secret": "it is signed and no secret is set, or the reverse",
    "head": "what it says of the response cannot be read",
    "compression": "its body cannot be decompressed",
    "size": "its body would be larger than max_decompressed",
    "key": "it belongs to another key",
    "body": "its body, which is kept apart, is missing or damaged",
}

_MAGIC: Final = b"cmw"
_VERSION: Final = 1
_PREFIX: Final = Struct(">3sBBBIQQ")
_CRC: Final = Struct(">I")
_MAC_SIZE: Final = 16

_TEXT_PAGE, _RAW_PAGE, _INDEX, _HIT_FOR_MISS, _MARK = range(1, 6)  # a page keeps its fields as text or as bytes
_UNCOMPRESSED: Final = Compression()
_SIGNED: Final = 0x80  # flags: this bit, and in the others how the body is compressed,
_APART: Final = 0x40  # or this alone, if it is kept apart


def _plain(value: Any) -> Any:
    """What an application gave as a subclass, such as a `Markup` in a field, as what it is. Raises: TypeError."""
    if isinstance(value, str):
        return str.__str__(value)
    if isinstance(value, int):
        return int.__int__(value)
    return float.__float__(value)


_pack = msgspec.msgpack.Encoder(enc_hook=_plain).encode
# key, status, reason, born, lifetime, began, chosen, validate, tags, fields
_TextPage = tuple[str, int, str, float, float, float, bool, bool, tuple[str, ...], Fields]
_RawPage = tuple[str, int, str, float, float, float, bool, bool, tuple[str, ...], EncodedFields]
_UNPACK: Final[dict[int, Callable[[memoryview], tuple[Any, ...]]]] = {
    _TEXT_PAGE: msgspec.msgpack.Decoder(_TextPage).decode,
    _RAW_PAGE: msgspec.msgpack.Decoder(_RawPage).decode,
    _INDEX: msgspec.msgpack.Decoder(tuple[str, tuple[str, ...], str, float, tuple[str, ...]]).decode,
    _HIT_FOR_MISS: msgspec.msgpack.Decoder(tuple[str]).decode,
    _MARK: msgspec.msgpack.Decoder(tuple[str, str, float, float]).decode,
}
_SMALL: Final[dict[int, Callable[..., Record]]] = {_INDEX: VaryIndex, _HIT_FOR_MISS: HitForMiss, _MARK: Mark}
_SMALL_VALUES: Final[dict[type[Record], tuple[int, tuple[str, ...]]]] = {
    kind: (number, tuple(kind.__annotations__))
    for number, kind in ((_INDEX, VaryIndex), (_HIT_FOR_MISS, HitForMiss), (_MARK, Mark))
}


#: Bytes of a remembered record beside its payload, about.
_OWN_SIZE: Final = 2_048
_LONGEST: Final = 1_024  # characters of a key that is remembered: strangers make longer ones


class _Known(NamedTuple):
    """A record, and the payload that it was decoded from in three parts: a page's body is kept in the record alone."""

    size: int
    start: bytes
    kept: bytes
    check: bytes
    record: Record

    def is_in(self, payload: bytes) -> bool:
        return (
            len(payload) == self.size
            and payload.startswith(self.start)
            and payload.startswith(self.kept, len(self.start))
            and payload.endswith(self.check)
        )


class Apart(NamedTuple):
    """A page in two parts: all but its body, encoded, and that; None for one that is missing or damaged."""

    payload: bytes
    body: Body | None


class Codec:
    """Turns records into bytes and back; safe to share between threads.

    secrets       sign and verify with these keys (any length but zero): the first signs, all verify, so that a key
                  can be replaced without losing the cache. None given: a checksum, against accidents only
    compression   how bodies are compressed, and how large one may become that was
    raw           keep the fields as ASGI wants them (lower-case bytes) instead of as WSGI does (text). Either is read;
                  the other form is made from it when somebody asks for it
    remember      in bytes, about: how much is kept of what was decoded last. A page that is read over and over is then
                  compared with the one before, which takes a sixth of the time of a checksum. 0: nothing
    report        is told of each payload that `decode` did not use: its key, and why

    `refused` counts them, by reason.
    """

    __slots__ = (
        "_compression",
        "_known",
        "_macs",
        "_raw",
        "_recent",
        "_report",
        "_signed",
        "refused",
    )

    def __init__(
        self,
        secrets: Sequence[bytes] = (),
        *,
        compression: Compression = _UNCOMPRESSED,
        raw: bool = False,
        remember: int = 8 * 1024 * 1024,
        report: Callable[[str, Refusal], object] | None = None,
    ) -> None:
        if isinstance(secrets, bytes | str) or not all(isinstance(s, bytes) and s for s in secrets):
            raise ImproperlyConfigured("`secrets` is a sequence of bytes, none of them empty; 32 random ones are best.")
        self._macs = tuple(map(_mac, secrets))
        self._signed = _SIGNED if secrets else 0
        self._compression = compression
        self._raw = raw
        self._report = report
        self._recent: Recent[_Known] = Recent(remember)
        self._known = self._recent.known
        self.refused: Counter[Refusal] = Counter()

    def encode(self, record: Record) -> bytes:
        """The record as one block of bytes; ValueError if it holds text that no HTTP message can carry."""
        if not isinstance(record, StoredResponse):
            kind, values = _SMALL_VALUES[type(record)]
            return self._sealed(kind, _pack([getattr(record, name) for name in values]), b"", PLAIN, 0)
        kind, head = self._head(record)
        whole = bytes(record.body)
        body, how = self._compression.folded(whole)
        return self._sealed(kind, head, body, how, len(whole))

    def encode_apart(self, record: Record, *, above: int) -> bytes | Apart:
        """The same, with a body of more bytes than that apart, unless it is signed or was compressed; as `encode`."""
        if not isinstance(record, StoredResponse) or len(record.body) <= above or self._signed:
            return self.encode(record)
        kind, head = self._head(record)
        body, size = record.body, len(record.body)
        if self._compression.compress is not None:
            folded, how = self._compression.folded(bytes(body))
            if how != PLAIN:
                return self._sealed(kind, head, folded, how, size)
        return Apart(self._sealed(kind, head, b"", _APART, size), body)

    def _head(self, record: StoredResponse) -> tuple[int, bytes]:
        """The kind of a page, and its head as bytes."""
        fields: Fields | EncodedFields
        if self._raw:
            kind, fields = _RAW_PAGE, record.raw
        else:
            kind, fields = _TEXT_PAGE, record.fields
            "".join(chain.from_iterable(fields)).encode("latin-1")  # else the visitor of a hit would find it out
        head = (
            record.key,
            record.status,
            record.reason,
            record.born,
            record.lifetime,
            record.began,
            record.chosen,
            record.validate,
            record.tags,
            fields,
        )
        return kind, _pack(head)

    def decode(self, key: str, payload: bytes | Apart) -> Record | None:
        """The record that was stored under `key`; None, and counted, if the payload is anything else."""
        known = self._known.get(key)
        if known is not None and type(payload) is bytes and known.is_in(payload):
            return known.record
        read = self._read(key, payload)
        if isinstance(read, str):
            self.refused[read] += 1
            if self._report is not None:
                self._report(key, read)
            return None
        return read

    def _read(self, key: str, payload: bytes | Apart) -> Record | Refusal:
        apart: Body | None = None
        is_apart = isinstance(payload, Apart)
        if isinstance(payload, Apart):
            payload, apart = payload
        if not isinstance(payload, bytes) or payload[:3] != _MAGIC:  # a store may hold numbers too
            return "foreign"
        if len(payload) < _PREFIX.size:
            return "length"
        _, version, kind, flags, head_size, body_size, size = _PREFIX.unpack_from(payload)
        if version != _VERSION:
            return "version"
        if flags & _SIGNED != self._signed:
            return "secret"
        body_at = _PREFIX.size + head_size
        end = body_at + body_size
        if len(payload) != end + (_MAC_SIZE if self._signed else _CRC.size):
            return "length"
        view = memoryview(payload)
        if not self._verified(view[:end], payload[end:]):
            return "checksum"
        try:
            head = _UNPACK[kind](view[_PREFIX.size : body_at])
        except (KeyError, msgspec.DecodeError, UnicodeDecodeError):
            return "head"
        if head[0] != key:
            return "key"
        how = flags & ~_SIGNED
        if is_apart != (how == _APART):
            return "body"
        if kind in _SMALL:
            return self._learn(key, payload, b"", b"", _SMALL[kind](*head))
        _, _, _, born, lifetime, began, *_ = head
        if not isfinite(born + lifetime + began):  # no age can be told of it
            return "head"
        if is_apart:
            return "body" if apart is None or len(apart) != size else _page(head, apart, raw=kind == _RAW_PAGE)
        kept = payload[body_at:end]
        body: bytes | None = kept
        if how:
            if size > self._compression.max_decompressed:
                return "size"
            body = unfolded(view[body_at:end], how, size)
        if body is None or len(body) != size:
            return "compression"
        return self._learn(key, payload[:body_at], kept, payload[end:], _page(head, body, raw=kind == _RAW_PAGE))

    def _learn(self, key: str, start: bytes, kept: bytes, check: bytes, record: Record) -> Record:
        """Remember what these bytes are, the second time that they come."""
        if len(key) <= _LONGEST and self._recent.note(key, check or start[-_MAC_SIZE:]):
            size = len(start) + len(kept) + len(check)
            cost = _OWN_SIZE + size
            if type(record) is StoredResponse and record.body is not kept:  # decompressed
                cost += len(record.body)
            self._recent.keep(key, _Known(size, start, kept, check, record), cost)
        return record

    def _sealed(self, kind: int, head: bytes, body: bytes, how: int, size: int) -> bytes:
        prefix = _PREFIX.pack(_MAGIC, _VERSION, kind, self._signed | how, len(head), len(body), size)
        if not self._signed:
            check = _CRC.pack(zlib.crc32(body, zlib.crc32(prefix + head)))
            return b"".join((prefix, head, body, check))
        mac = self._macs[0].copy()
        mac.update(prefix + head)
        mac.update(body)
        return b"".join((prefix, head, body, mac.digest()))

    def _verified(self, content: memoryview, check: bytes) -> bool:
        if not self._signed:
            return _CRC.pack(zlib.crc32(content)) == check
        for mac in self._macs:
            mac = mac.copy()
            mac.update(content)
            if compare_digest(mac.digest(), check):
                return True
        return False


def _page(head: tuple[Any, ...], body: Body, *, raw: bool) -> StoredResponse:
    key, status, reason, born, lifetime, began, chosen, validate, tags, fields = head
    return StoredResponse(
        key=key,
        status=status,
        body=body,
        born=born,
        lifetime=lifetime,
        began=began,
        fields=None if raw else fields,
        raw=fields if raw else None,
        reason=reason,
        chosen=chosen,
        validate=validate,
        tags=tags,
    )


def _mac(secret: bytes) -> blake2b:
    """The MAC to copy for each record: a secret of any length makes a key, of use for pages only."""
    key = blake2b(secret, person=b"cachemw page key").digest()
    return blake2b(key=key, digest_size=_MAC_SIZE)
