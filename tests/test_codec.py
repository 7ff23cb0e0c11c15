"""What a store gives back is the record that was put there, or it is a counted miss; never anything third."""

from __future__ import annotations

import importlib
import pickle
import struct
import sys
import tracemalloc
import zlib
from math import inf, nan
from types import ModuleType
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from cachemw import _codec_compression
from cachemw._codec_compression import Compression
from cachemw.codec import Codec
from cachemw.errors import ImproperlyConfigured
from cachemw.rfc9111.messages import HitForMiss, Mark, Record, StoredResponse, VaryIndex

zstd: Any = importlib.import_module("compression.zstd" if sys.version_info >= (3, 14) else "backports.zstd")

KEY = "4:http11:example.com1:/\x00GET"
PREFIX = struct.Struct(">3sBBBIQQ")
STORED = ("key", "status", "reason", "body", "born", "lifetime", "began", "chosen", "validate", "tags")
PAGE_ATTRIBUTES = (*STORED, "fields", "raw", "fresh_until")


def packing(**options: Any) -> Codec:
    """A codec with these options of compression."""
    return Codec(compression=Compression(**options))


latin1 = st.text(st.characters(max_codepoint=0xFF), max_size=30)
text = st.text(st.characters(exclude_categories=["Cs"]), max_size=30)
times = st.floats(-1e12, 1e12)
fields = st.lists(st.tuples(latin1, latin1), max_size=6).map(tuple)
pages = st.builds(
    StoredResponse,
    key=text,
    status=st.integers(100, 999),
    reason=latin1,
    body=st.binary(max_size=200),
    born=times,
    lifetime=times,
    began=times,
    fields=fields,
    chosen=st.booleans(),
    validate=st.booleans(),
    tags=st.lists(text, max_size=3).map(tuple),
)
small_records = st.one_of(
    st.builds(VaryIndex, text, st.lists(text, max_size=4).map(tuple), text, times),
    st.builds(HitForMiss, text),
    st.builds(Mark, text, text, times, times),
)
codecs = st.sampled_from(
    [
        Codec(),
        Codec(raw=True),
        Codec([b"k"]),
        packing(compress="zlib", compress_above=20),
        Codec([b"new", b"old"], compression=Compression(compress="zstd", compress_above=20), raw=True),
    ]
)


def page(**changes: Any) -> StoredResponse:
    given: dict[str, Any] = {
        "key": KEY,
        "status": 200,
        "reason": "OK",
        "body": b"<p>hello</p>" * 10,
        "born": 1_700_000_000.25,
        "lifetime": 600.0,
        "began": 1_699_999_999.5,
        "fields": (("Content-Type", "text/html"), ("Set-Cookie", "a=1"), ("Set-Cookie", "b=\xe9")),
        "tags": ("blog",),
    }
    return StoredResponse(**given | changes)


def assert_same(read: Record | None, written: Record) -> None:
    assert type(read) is type(written)
    if isinstance(read, StoredResponse):
        for attribute in PAGE_ATTRIBUTES:
            assert getattr(read, attribute) == getattr(written, attribute), attribute
    else:
        assert read == written


def prefixed(payload: bytes, **changes: Any) -> bytes:
    """The payload with changes in its prefix, and a right checksum: what a foreign or hostile writer can put there."""
    names = ("magic", "version", "kind", "flags", "head", "kept", "size")
    values = dict(zip(names, PREFIX.unpack_from(payload), strict=True)) | changes
    content = PREFIX.pack(*values.values()) + payload[PREFIX.size : -4]
    return content + zlib.crc32(content).to_bytes(4, "big")


def made(kind: int, head: bytes, body: bytes = b"", *, flags: int = 0, size: int | None = None) -> bytes:
    """A payload with a right checksum and whatever else the writer liked."""
    content = PREFIX.pack(b"cmw", 1, kind, flags, len(head), len(body), len(body) if size is None else size)
    content += head + body
    return content + zlib.crc32(content).to_bytes(4, "big")


def page_head(**changes: Any) -> bytes:
    given = {"key": KEY, "status": 200, "reason": "", "born": 0.0, "lifetime": 1.0, "began": 0.0}
    return msgspec.msgpack.encode([*(given | changes).values(), False, False, [], []])


@given(pages | small_records, codecs)
def test_what_was_stored_is_what_is_read(record: Record, codec: Codec) -> None:
    payload = codec.encode(record)
    read = codec.decode(record.key, payload)
    if isinstance(record, StoredResponse) and codec._raw:
        # ASGI's form has no spelling of names to give back
        assert isinstance(read, StoredResponse)
        assert read.raw == record.raw
        record = page(**{name: getattr(record, name) for name in STORED}, fields=read.fields)
    assert_same(read, record)
    assert not codec.refused


@pytest.mark.parametrize("name", ["born", "lifetime", "began"])
@pytest.mark.parametrize("moment", [inf, -inf, nan])
def test_a_page_of_no_time_at_all_is_a_miss(name: str, moment: float) -> None:
    codec = Codec()
    assert codec.decode(KEY, codec.encode(page(**{name: moment}))) is None
    assert codec.refused["head"] == 1


def test_repeated_fields_order_spelling_and_latin1_survive() -> None:
    read = Codec().decode(KEY, Codec().encode(page()))
    assert isinstance(read, StoredResponse)
    assert read.fields == (("Content-Type", "text/html"), ("Set-Cookie", "a=1"), ("Set-Cookie", "b=\xe9"))
    assert read.raw == ((b"content-type", b"text/html"), (b"set-cookie", b"a=1"), (b"set-cookie", b"b=\xe9"))


@pytest.mark.parametrize("writer", [Codec(), Codec(raw=True)])
@pytest.mark.parametrize("reader", [Codec(), Codec(raw=True)])
def test_wsgi_and_asgi_workers_read_each_others_pages(writer: Codec, reader: Codec) -> None:
    read = reader.decode(KEY, writer.encode(page()))
    assert isinstance(read, StoredResponse)
    assert read.raw == page().raw
    assert [(name.lower(), value) for name, value in page().fields] == [(n.lower(), v) for n, v in read.fields]


def test_a_page_made_from_raw_fields_is_stored_as_text_too() -> None:
    record = page(fields=None, raw=((b"x-name", b"\xff"),))
    read = Codec().decode(KEY, Codec().encode(record))
    assert isinstance(read, StoredResponse)
    assert read.fields == (("x-name", "\xff"),)


@pytest.mark.parametrize("codec", [Codec(), Codec(raw=True)])
@pytest.mark.parametrize("field", [("X", "\u20ac"), ("\u0130", "x"), ("X", "\udc80")])
def test_text_that_http_cannot_carry_is_refused_at_the_writer(codec: Codec, field: tuple[str, str]) -> None:
    with pytest.raises(ValueError, match="latin-1"):
        codec.encode(page(fields=(field,)))


def test_a_page_whose_every_use_needs_validation_stays_so() -> None:
    read = Codec().decode(KEY, Codec().encode(page(validate=True, chosen=True)))
    assert isinstance(read, StoredResponse)
    assert (read.validate, read.chosen, read.fresh_until) == (True, True, 0.0)


# -- damage ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("codec", [Codec(), Codec([b"secret"])])
@pytest.mark.parametrize("record", [page(), VaryIndex(KEY, ("accept",), "g"), HitForMiss(KEY), Mark(KEY, "t", 1.0)])
def test_no_changed_byte_goes_unnoticed(codec: Codec, record: Record) -> None:
    payload = codec.encode(record)
    for at in range(len(payload)):
        for mask in (0x01, 0x20, 0x80, 0xFF):
            damaged = bytearray(payload)
            damaged[at] ^= mask
            assert codec.decode(KEY, bytes(damaged)) is None, (at, mask)


@pytest.mark.parametrize("codec", [Codec(), Codec([b"secret"])])
def test_no_truncated_or_extended_payload_is_used(codec: Codec) -> None:
    payload = codec.encode(page())
    for end in range(len(payload)):
        assert codec.decode(KEY, payload[:end]) is None, end
    assert codec.decode(KEY, payload + b"\x00") is None
    assert codec.decode(KEY, payload + payload) is None
    assert set(codec.refused) <= {"foreign", "length"}


@given(st.binary(max_size=300), st.integers(0, 5))
def test_garbage_is_a_miss(garbage: bytes, kept: int) -> None:
    codec = Codec()
    assert codec.decode(KEY, b"cmw\x01"[:kept] + garbage) is None
    assert codec.refused.total() == 1


@given(
    st.integers(0, 255), st.binary(max_size=60), st.binary(max_size=60), st.integers(0, 127), st.integers(0, 2**64 - 1)
)
def test_garbage_with_a_right_checksum_never_raises(kind: int, head: bytes, body: bytes, flags: int, size: int) -> None:
    assert packing(max_decompressed=1000).decode(KEY, made(kind, head, body, flags=flags, size=size)) is None


@pytest.mark.parametrize("foreign", [b"", b"c", b"cmx\x01" + bytes(60), pickle.dumps("page"), 17, None, "cmw"])
def test_what_others_put_under_the_key_is_foreign(foreign: Any) -> None:
    codec = Codec()
    assert codec.decode(KEY, foreign) is None
    assert codec.refused == {"foreign": 1}


@pytest.mark.parametrize(
    ("payload", "reason"),
    [
        (prefixed(Codec().encode(page()), version=2), "version"),
        (prefixed(Codec().encode(page()), head=2**32 - 1), "length"),
        (prefixed(Codec().encode(page()), kept=2**64 - 1), "length"),
        (prefixed(Codec().encode(page()), size=0), "compression"),
        (prefixed(Codec().encode(page()), size=2**64 - 1), "compression"),
        (prefixed(Codec().encode(page()), kind=9), "head"),
        (prefixed(Codec().encode(page()), kind=5), "head"),
        (prefixed(Codec().encode(page()), flags=3), "compression"),
        (made(1, page_head(key="\xe9")[:1] + b"\xa1\xff" + page_head()[1:]), "head"),
        (made(1, page_head() + b"\xc0"), "head"),
        (made(2, b"\x9a\xdd\xff\xff\xff\xff"), "head"),
        (made(1, page_head(status="200")), "head"),
        (made(4, b"\x91\xdb\xff\xff\xff\xff"), "head"),
        (made(4, b"\x91" * 100_000), "head"),
        (b"cmw\x01" + bytes(10), "length"),
        (Codec().encode(page(key=KEY + "x")), "key"),
        (Codec().encode(Mark("", "t")), "key"),
    ],
)
def test_each_refusal_says_why(payload: bytes, reason: str) -> None:
    codec = Codec()
    assert codec.decode(KEY, payload) is None
    assert codec.refused == {reason: 1}


def test_lengths_in_a_payload_allocate_nothing() -> None:
    hostile = [
        prefixed(Codec().encode(page()), head=2**32 - 1, kept=2**63),
        made(2, b"\x9a\xdd\xff\xff\xff\xff"),
        made(4, b"\x91\xdb\xff\xff\xff\xff"),
        made(1, page_head(), zlib.compress(b"x"), flags=1, size=2**63),
        made(1, page_head(), zlib.compress(b"x"), flags=1, size=10**9),
    ]
    codec = packing(max_decompressed=10**9)
    tracemalloc.start()
    try:
        for payload in hostile:
            assert codec.decode(KEY, payload) is None
        assert tracemalloc.get_traced_memory()[1] < 300_000
    finally:
        tracemalloc.stop()


# -- secrets --------------------------------------------------------------------------------------------------------


def test_a_secret_refuses_what_is_unsigned_or_signed_by_another() -> None:
    codec = Codec([b"mine"])
    assert codec.decode(KEY, Codec().encode(page())) is None
    assert codec.decode(KEY, Codec([b"theirs"]).encode(page())) is None
    assert codec.refused == {"secret": 1, "checksum": 1}


def test_an_attacker_cannot_take_the_signature_off() -> None:
    signed = Codec([b"mine"]).encode(page(body=b"true"))
    content = bytes(signed[:-16]).replace(b"true", b"lies")
    codec = Codec([b"mine"])
    assert codec.decode(KEY, content + zlib.crc32(content).to_bytes(4, "big")) is None
    plain = content[:5] + b"\x00" + content[6:]
    assert codec.decode(KEY, plain + zlib.crc32(plain).to_bytes(4, "big")) is None
    assert codec.decode(KEY, signed) is not None


def test_without_a_secret_signed_pages_are_not_trusted() -> None:
    codec = Codec()
    assert codec.decode(KEY, Codec([b"mine"]).encode(page())) is None
    assert codec.refused == {"secret": 1}


def test_secrets_rotate_without_losing_a_page() -> None:
    old, both, new = Codec([b"old"]), Codec([b"new", b"old"]), Codec([b"new"])
    assert both.decode(KEY, old.encode(page())) is not None
    assert new.decode(KEY, both.encode(page())) is not None
    assert old.decode(KEY, both.encode(page())) is None
    assert new.decode(KEY, old.encode(page())) is None


def test_a_long_secret_counts_to_its_last_byte() -> None:
    secret = b"s" * 200
    payload = Codec([secret]).encode(page())
    assert Codec([secret]).decode(KEY, payload) is not None
    assert Codec([secret[:-1]]).decode(KEY, payload) is None


@pytest.mark.parametrize("secrets", [[b""], [b"good", b""], b"bare", "text", b"", "", ["text"]])
def test_useless_secrets_are_an_error(secrets: Any) -> None:
    with pytest.raises(ImproperlyConfigured, match="secrets"):
        Codec(secrets)


# -- compression ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("compress", ["zlib", "zstd"])
def test_a_large_body_is_kept_small_and_any_reader_unfolds_it(compress: Any) -> None:
    record = page(body=b"<li>entry</li>\n" * 5000)
    payload = packing(compress=compress).encode(record)
    assert len(payload) < 2000
    assert_same(Codec().decode(KEY, payload), record)


@pytest.mark.parametrize("compress", ["zlib", "zstd"])
def test_bodies_that_are_short_or_do_not_shrink_are_kept_as_they_are(compress: Any) -> None:
    codec = packing(compress=compress, compress_above=100)
    short, noise = b"a" * 100, bytes(hash((1.5, i)) & 0xFF for i in range(101))
    for body in (short, noise, zlib.compress(noise * 3)):
        assert body in codec.encode(page(body=body))
    assert b"a" * 101 not in codec.encode(page(body=b"a" * 101))


@pytest.mark.parametrize("compress", ["zlib", "zstd"])
def test_the_bound_on_decompressed_bodies_is_exact(compress: Any) -> None:
    record = page(body=b"a" * 50_000)
    payload = packing(compress=compress).encode(record)
    assert_same(packing(max_decompressed=50_000).decode(KEY, payload), record)
    refusing = packing(max_decompressed=49_999)
    assert refusing.decode(KEY, payload) is None
    assert refusing.refused == {"size": 1}


def test_a_codec_never_writes_what_it_would_refuse_to_read() -> None:
    codec = packing(compress="zlib", max_decompressed=30_000)
    record = page(body=b"a" * 30_001)
    assert_same(codec.decode(KEY, codec.encode(record)), record)


@pytest.mark.parametrize(("flags", "compress"), [(1, zlib.compress), (2, zstd.compress)])
def test_a_bomb_that_lies_about_its_size_is_not_unfolded(flags: int, compress: Any) -> None:
    bomb = compress(bytes(50_000_000))
    codec = Codec()
    tracemalloc.start()
    try:
        for size in (0, 1, 1000):
            assert codec.decode(KEY, made(1, page_head(), bomb, flags=flags, size=size)) is None
        assert tracemalloc.get_traced_memory()[1] < 1_000_000
    finally:
        tracemalloc.stop()
    assert codec.refused == {"compression": 3}


def test_a_zstd_frame_with_a_huge_window_is_refused_before_it_is_allocated() -> None:
    options = {zstd.CompressionParameter.window_log: 27, zstd.CompressionParameter.content_size_flag: 0}
    compressor = zstd.ZstdCompressor(options=options)
    frame = compressor.compress(b"a" * 1000) + compressor.flush()
    codec = Codec()
    assert codec.decode(KEY, made(1, page_head(), frame, flags=2, size=1000)) is None
    assert codec.refused == {"compression": 1}


@pytest.mark.parametrize(("flags", "compress"), [(1, zlib.compress), (2, zstd.compress)])
def test_a_damaged_compressed_body_is_a_miss(flags: int, compress: Any) -> None:
    packed = compress(b"a" * 1000)
    codec = Codec()
    for body, size in (
        (packed[:-1], 1000),  # its end is missing
        (packed + b"\x00", 1000),  # something follows
        (packed, 999),
        (packed, 1001),
        (b"", 0),
        (b"\xff" * 20, 1000),
    ):
        assert codec.decode(KEY, made(1, page_head(), body, flags=flags, size=size)) is None
    assert codec.refused == {"compression": 6}


@pytest.mark.parametrize("options", [{"compress_above": -1}, {"max_decompressed": 0}])
def test_a_size_that_is_none_is_an_error(options: dict[str, Any]) -> None:
    smallest = {name: size + 1 for name, size in options.items()}
    assert packing(**smallest)
    with pytest.raises(ImproperlyConfigured, match=next(iter(options))):
        packing(**options)


def test_an_unknown_compression_is_an_error() -> None:
    with pytest.raises(ImproperlyConfigured, match="'brotli'"):
        packing(compress="brotli")


def test_without_zstd_its_pages_are_misses_and_asking_for_it_says_what_to_install(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    payload = packing(compress="zstd").encode(page(body=b"a" * 50_000))

    def no_zstd(name: str) -> ModuleType:
        raise ImportError(name)

    monkeypatch.setattr(_codec_compression, "import_module", no_zstd)
    _codec_compression._zstd.cache_clear()
    try:
        with pytest.raises(ImproperlyConfigured, match=r"backports\.zstd"):
            packing(compress="zstd")
        codec = packing(compress="zlib")
        assert codec.decode(KEY, payload) is None
        assert codec.refused == {"compression": 1}
        assert len(codec.encode(page(body=b"a" * 50_000))) < 5_000, "it does without"
    finally:
        _codec_compression._zstd.cache_clear()


def test_the_standard_library_goes_before_the_backport(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[str] = []

    def standard(name: str) -> ModuleType:
        asked.append(name)
        module: ModuleType = zstd
        return module

    monkeypatch.setattr(_codec_compression, "import_module", standard)
    _codec_compression._zstd.cache_clear()
    try:
        assert Codec().decode(KEY, packing(compress="zstd").encode(page(body=b"a" * 50_000))) is not None
    finally:
        _codec_compression._zstd.cache_clear()
    assert asked == ["compression.zstd"]


# -- what is remembered ---------------------------------------------------------------------------------------------


def twice(codec: Codec, key: str, payload: bytes) -> Record | None:
    """What is remembered, if anything is: a payload that comes once is not."""
    codec.decode(key, payload)
    return codec.decode(key, payload)


def test_what_comes_once_is_not_remembered() -> None:
    codec = Codec()
    payload = codec.encode(page())
    assert codec.decode(KEY, payload) is not codec.decode(KEY, payload)
    assert codec.decode(KEY, payload) is codec.decode(KEY, payload)


@pytest.mark.parametrize(
    "codec", [Codec(), Codec([b"k"]), packing(compress="zlib", compress_above=20), Codec(raw=True)], ids=repr
)
def test_the_same_bytes_are_the_same_record_and_no_others_are(codec: Codec) -> None:
    payload = codec.encode(page())
    first = twice(codec, KEY, payload)
    assert first is not None
    assert codec.decode(KEY, bytes(bytearray(payload))) is first
    for at in range(len(payload)):
        damaged = bytearray(payload)
        damaged[at] ^= 0x20
        assert codec.decode(KEY, bytes(damaged)) is None, at
    for end in range(len(payload)):
        assert codec.decode(KEY, payload[:end]) is None, end
    for at in range(len(payload) + 1):
        assert codec.decode(KEY, payload[:at] + b"\x17" + payload[at:]) is None, at
    assert codec.decode(KEY, payload) is first


def test_what_was_written_since_is_what_is_read() -> None:
    codec = Codec()
    records = (page(), page(born=1.0), page(body=b"other"), Mark(KEY, "a"), Mark(KEY, "b"), page())
    for record in records:
        for _ in range(3):
            assert_same(codec.decode(KEY, codec.encode(record)), record)


def test_a_page_that_is_remembered_is_not_found_under_another_key() -> None:
    codec = Codec()
    payload = codec.encode(page())
    assert twice(codec, KEY, payload) is not None
    assert codec.decode(KEY + "x", payload) is None
    assert codec.refused == {"key": 1}


def test_a_number_in_the_place_of_a_remembered_page_is_none() -> None:
    codec = Codec()
    assert twice(codec, KEY, codec.encode(page())) is not None
    assert codec.decode(KEY, 7) is None  # type: ignore[arg-type]  # the low-level API may have written it


@pytest.mark.parametrize("compress", [None, "zlib"])
@pytest.mark.parametrize("body", [b"", b"x" * 10_000])
def test_what_is_remembered_is_bounded(body: bytes, compress: Any) -> None:
    codec, many = Codec(remember=200_000, compression=Compression(compress=compress, compress_above=20)), 2_000
    payloads = {f"{KEY}{n}": codec.encode(page(key=f"{KEY}{n}", body=body + b"%d" % n)) for n in range(many)}
    tracemalloc.start()
    for key, payload in payloads.items():
        assert twice(codec, key, payload) is not None
    held, _ = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert held < 400_000
    last = f"{KEY}{many - 1}"
    assert twice(codec, last, payloads[last]) is codec.decode(last, payloads[last])


def test_pages_that_are_read_in_turn_are_all_remembered() -> None:
    codec = Codec()
    payloads = {f"{KEY}{number}": codec.encode(page(key=f"{KEY}{number}")) for number in range(50)}
    rounds = [{key: codec.decode(key, payload) for key, payload in payloads.items()} for _ in range(3)]
    assert all(rounds[1][key] is rounds[2][key] for key in payloads)


def test_a_memory_that_was_full_has_room_for_all_that_is_read_from_then_on() -> None:
    codec = Codec(remember=60_000)
    payloads = {f"{KEY}{number}": codec.encode(page(key=f"{KEY}{number}")) for number in range(100)}
    for key, payload in payloads.items():
        twice(codec, key, payload)
    latest = {key: twice(codec, key, payload) for key, payload in list(payloads.items())[:10]}
    kept = [codec.decode(key, payloads[key]) is record for key, record in latest.items()]
    assert sum(kept) >= 5, "it may begin anew once more"


def test_what_came_long_ago_came_never() -> None:
    """Else what is known of the keys that came once would grow with their number."""
    codec, payload = Codec(), Codec().encode(page())
    codec.decode(KEY, payload)
    for number in range(2_000):
        codec.decode(f"{KEY}{number}", Codec().encode(Mark(f"{KEY}{number}", "a")))
    assert codec.decode(KEY, payload) is not codec.decode(KEY, payload)


def test_a_page_that_has_become_too_large_leaves_nothing_of_what_it_was() -> None:
    codec = Codec(remember=40_000)
    small, large = codec.encode(page()), codec.encode(page(body=b"x" * 20_000))
    first = twice(codec, KEY, small)
    assert codec.decode(KEY, small) is first
    twice(codec, KEY, large)
    assert codec.decode(KEY, small) is not first


class Text(str):
    """As frameworks put into fields: Markup, a translation, a header value with a memory."""

    def __str__(self) -> str:
        return "something else"


class Status(int):
    pass


class Seconds(float):
    pass


def test_a_subclass_is_stored_as_what_it_is() -> None:
    for index in (False, True):
        record: Any = VaryIndex(KEY, (Text("accept"),), "1", Seconds(2.5), (Text("tag"),))
        if not index:
            fields = ((Text("X"), Text("text")), (Text("Content-Type"), Text("text/plain")))
            record = page(fields=fields, status=Status(200), reason=Text("Fine"), lifetime=Seconds(60.0))
        found = decoded = Codec().decode(KEY, Codec().encode(record))
        assert_same(decoded, record)
        if isinstance(found, StoredResponse):
            kinds = {type(part) for field in found.fields for part in field}
            assert (kinds, type(found.status), type(found.lifetime)) == ({str}, int, float)


def test_keys_that_strangers_have_made_long_are_not_remembered() -> None:
    codec = Codec()
    tracemalloc.start()
    for number in range(300):
        key = f"{KEY}{number:08192}"
        payload = codec.encode(Mark(key, "a"))
        assert twice(codec, key, payload) is not None
    held, _ = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert held < 400_000


def test_one_page_does_not_push_out_all_others() -> None:
    codec = Codec(remember=40_000)
    small, large = codec.encode(page()), codec.encode(page(key="large", body=b"x" * 20_000))
    first = twice(codec, KEY, small)
    assert twice(codec, "large", large) is not codec.decode("large", large)
    assert codec.decode(KEY, small) is first


def test_writing_one_page_again_and_again_does_not_fill_the_memory() -> None:
    codec = Codec(remember=50_000)
    other = codec.encode(page(key="other"))
    first = twice(codec, "other", other)
    for number in range(1_000):
        twice(codec, KEY, codec.encode(page(born=float(number))))
    assert codec.decode("other", other) is first


def test_nothing_is_remembered_where_that_is_not_wanted() -> None:
    codec = Codec(remember=0)
    payload = codec.encode(page())
    assert twice(codec, KEY, payload) is not codec.decode(KEY, payload)
    assert codec.decode(KEY, payload) is not codec.decode(KEY, payload)
