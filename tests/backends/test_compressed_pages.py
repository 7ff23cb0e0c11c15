"""The options of compression, from a store's URL to what stands in the store, and what becomes of pages like that."""

from __future__ import annotations

import logging
import zlib
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any
from weakref import WeakValueDictionary

import pytest

from cachemw import (
    Caches,
    ImproperlyConfigured,
    _codec_compression,
    caches,
    connect,
    page_failures,
)
from cachemw._codec_compression import Compression
from cachemw.backends.base import BaseCache
from cachemw.backends.db import DatabaseCache
from cachemw.codec import Codec
from cachemw.rfc9111.messages import StoredResponse
from tests.backends.file_store import in_child
from tests.faults.site import INTERFACES, Site
from tests.servers import shared, start_memcached, start_redis

BOMB = zlib.compress(bytes(50_000_000))
BODY = b"<li>an entry of a list</li>\n" * 2_000

_PATIENT = "socket_timeout=5&socket_connect_timeout=5"

#: By name: the URL of the store, to which further options can be added.
URLS: dict[str, Callable[[Path], str]] = {
    "files": lambda path: f"file://{path}/cache?timeout=60",
    "sqlite": lambda path: f"db+sqlite:///{path}/cache.db?deadline=5",
    "redis": lambda path: f"redis://{shared(start_redis).address}/0?{_PATIENT}",
    "memcached": lambda path: f"memcached://{shared(start_memcached).address}?socket_timeout=5&connect_timeout=5",
    "tiered": lambda path: f"tiered+redis://{shared(start_redis).address}/0?{_PATIENT}",
}


@pytest.fixture(params=URLS)
def url(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    url = URLS[request.param](tmp_path)
    connect(url).clear()
    return url


def stored(site: Site) -> int:
    """How many bytes stand in the store, under the keys that the site has asked for."""
    return sum(len(payload) for payload in site.cache.read_latest(sorted(site.asked)) if payload is not None)


def fill(interface: str, cache: BaseCache) -> int:
    """Have a page stored, and see that it is a hit; what it takes in the store, in bytes."""
    with Site(interface, cache) as site:
        site.bodies["/"] = BODY
        site.get()
        site.until_hit()
        answer = site.get()
        assert answer.hit
        assert answer.body == BODY + b" 0"
        return stored(site)


def read(interface: str, cache: BaseCache) -> tuple[bool, dict[str, int]]:
    """Ask another site for the page: was it a hit, and what has failed?"""
    with Site(interface, cache) as site:
        site.bodies["/"] = BODY
        hit = site.get().hit
        return hit, page_failures(site.app.caching)


# -- through a whole site --------------------------------------------------------------------------------------------


@pytest.mark.parametrize("interface", INTERFACES)
@pytest.mark.parametrize("how", ["zlib", "zstd"])
def test_a_page_takes_less_room_and_is_the_same_page(url: str, how: str, interface: str) -> None:
    taken = fill(interface, connect(url))
    connect(url).clear()
    assert fill(interface, connect(f"{url}&compress={how}")) < taken / 10


@pytest.mark.parametrize("how", ["zlib", "zstd"])
def test_a_process_that_does_not_compress_reads_what_others_have_compressed(url: str, how: str) -> None:
    fill("wsgi", connect(f"{url}&compress={how}"))

    def elsewhere() -> None:
        hit, failures = read("wsgi", connect(url))
        assert hit
        assert failures == {}

    in_child(elsewhere)


def test_small_pages_are_left_as_they_are(url: str) -> None:
    taken = fill("wsgi", connect(f"{url}&compress=zlib&compress_above={len(BODY) + 2}"))
    assert taken > len(BODY)
    connect(url).clear()
    assert fill("wsgi", connect(f"{url}&compress=zlib&compress_above={len(BODY) + 1}")) < taken / 10


def test_a_body_that_would_become_too_large_is_a_counted_miss(url: str, caplog: pytest.LogCaptureFixture) -> None:
    fill("asgi", connect(f"{url}&compress=zstd"))
    with caplog.at_level(logging.WARNING, "cachemw"):
        hit, failures = read("asgi", connect(f"{url}&max_decompressed={len(BODY)}"))
    assert not hit
    assert failures == {"size": failures["size"]}
    (line,) = [one.getMessage() for one in caplog.records]
    assert "its body would be larger than max_decompressed" in line
    assert "example.org" in line


class Bomb(Compression):
    """Says of a bomb that it is as large as the body in whose place it stands."""

    def folded(self, body: bytes) -> tuple[bytes, int]:
        return BOMB, 1


def test_a_bomb_in_the_store_is_a_counted_miss(url: str) -> None:
    with Site("wsgi", connect(url)) as site:
        site.bodies["/"] = BODY
        site.get()
        site.until_hit()
        keys = sorted(site.asked)
        records = [
            Codec().decode(key, payload) for key, payload in zip(keys, site.cache.read_latest(keys), strict=True)
        ]
        bombs = [
            (record.key, Codec(compression=Bomb()).encode(record), 60.0)
            for record in records
            if isinstance(record, StoredResponse)
        ]
        assert len(bombs) == 1
        site.cache.write_records(bombs)
    hit, failures = read("wsgi", connect(url))
    assert not hit
    assert failures == {"compression": failures["compression"]}


def test_pages_signed_with_another_secret_are_counted_and_told_of(url: str, caplog: pytest.LogCaptureFixture) -> None:
    fill("wsgi", connect(f"{url}&secret=ours"))
    with caplog.at_level(logging.WARNING, "cachemw"):
        hit, failures = read("wsgi", connect(f"{url}&secret=theirs"))
    assert not hit
    assert failures == {"checksum": failures["checksum"]}
    assert len(caplog.records) == 1
    assert "another secret" in caplog.text


# -- what may be set -------------------------------------------------------------------------------------------------


def test_the_options_are_those_of_djangos_dictionary_too(tmp_path: Path) -> None:
    config = {
        "BACKEND": "cachemw.backends.filebased.FileBasedCache",
        "LOCATION": str(tmp_path),
        "OPTIONS": {"compress": "zstd", "COMPRESS_ABOVE": 100, "max_decompressed": "1000"},
    }
    cache = Caches({"CACHES": {"default": config}})["default"]
    assert cache.compression.options == {"compress": "zstd", "compress_above": 100, "max_decompressed": 1000}


def test_nothing_is_compressed_unless_somebody_says_so(url: str) -> None:
    assert connect(url).compression.compress is None
    assert connect(f"{url}&compress=none").compression.compress is None


def test_another_table_of_the_same_database_compresses_alike(tmp_path: Path) -> None:
    cache = connect(f"db+sqlite:///{tmp_path}/cache.db?compress=zlib&compress_above=7")
    assert isinstance(cache, DatabaseCache)
    assert cache.for_table("another").compression == cache.compression


@pytest.mark.parametrize(
    ("given", "named"),
    [
        ("compress=brotli", r"OPTIONS\['compress'\] is 'brotli'; allowed: zlib, zstd"),
        ("compress=", r"OPTIONS\['compress'\] is ''; allowed: zlib, zstd"),
        ("compress=zlib&compress_above=-1", r"OPTIONS\['compress_above'\] is '-1'; allowed: a whole number"),
        ("compress_above=1k", r"OPTIONS\['compress_above'\] is '1k'; allowed: a whole number"),
        ("max_decompressed=0", r"OPTIONS\['max_decompressed'\] is '0'; allowed: a whole number"),
        ("max_decompressed=none", r"OPTIONS\['max_decompressed'\] is None; allowed: a whole number"),
    ],
)
def test_what_cannot_be_is_refused_when_the_cache_is_made(url: str, given: str, named: str) -> None:
    with pytest.raises(ImproperlyConfigured, match=named):
        connect(f"{url}&{given}")


def test_a_missing_package_is_named_when_the_cache_is_made(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def without(name: str) -> ModuleType:
        raise ImportError(name)

    monkeypatch.setattr(_codec_compression, "import_module", without)
    _codec_compression._zstd.cache_clear()
    try:
        with pytest.raises(ImproperlyConfigured, match=r"backports\.zstd: pip install 'cachemw\[zstd\]'"):
            connect(f"file://{tmp_path}?compress=zstd")
    finally:
        _codec_compression._zstd.cache_clear()


def test_local_memory_keeps_pages_as_they_are_and_says_so() -> None:
    with pytest.raises(ImproperlyConfigured, match=r"LocMemCache is 'compress'; allowed: .*max_bytes"):
        connect("locmem://?compress=zstd")


def test_the_dummy_takes_the_options_of_the_cache_that_it_stands_in_for() -> None:
    assert fill_nothing(connect("dummy://?compress=zstd")) == {}


def fill_nothing(cache: BaseCache) -> dict[str, int]:
    with Site("wsgi", cache) as site:
        site.get()
        assert not site.get().hit
        return page_failures(site.app.caching)


# -- what has failed -------------------------------------------------------------------------------------------------


def test_without_a_middleware_it_is_the_environments_pages_that_are_told_of(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("CACHEMW_URL", f"file://{tmp_path}/cache?secret=new")
    with Site("wsgi", connect(f"file://{tmp_path}/cache?secret=old")) as site:
        site.get()
    with Site("wsgi", caches["default"]) as site:
        assert page_failures() == {}
        site.get()
    assert page_failures() == page_failures(site.app) == {"checksum": page_failures()["checksum"]}
    monkeypatch.setattr("cachemw.caching._at_work", WeakValueDictionary())
    assert page_failures() == page_failures(site.app)


def test_failures_of_what_has_no_pages_are_an_error() -> None:
    alias: Any = "default"
    with pytest.raises(TypeError, match="a middleware or its `caching`"):
        page_failures(alias)
