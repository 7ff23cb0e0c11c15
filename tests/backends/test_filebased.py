"""The file store beyond the contract: its directory, its files, and what else may stand there."""

from __future__ import annotations

import os
import shutil
import socket
import stat
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from cachemw import connect
from cachemw.backends._file.reading import read_entry
from cachemw.backends.filebased import FileBasedCache
from cachemw.errors import BackendUnavailable, ImproperlyConfigured
from tests.backends.file_store import entry, state, temporaries

BIG = b"b" * 100_000


@pytest.fixture
def directory(tmp_path: Path) -> Path:
    return tmp_path / "cache"


@pytest.fixture
def cache(directory: Path) -> FileBasedCache:
    return FileBasedCache(directory, {})


# The directory


@pytest.mark.parametrize("url", ["file:///", "file:////", "file:///tmp/.."])
def test_the_root_directory_is_no_store(url: str) -> None:
    with pytest.raises(ImproperlyConfigured, match="not the root directory"):
        connect(url)


@pytest.mark.parametrize("location", ["relative/path", "", "nul\0", b"/bytes", ["/a", "/b"], None, 7], ids=repr)
def test_a_location_that_is_no_absolute_path_is_refused(location: Any) -> None:
    with pytest.raises(ImproperlyConfigured, match=r"LOCATION is .*absolute path"):
        FileBasedCache(location, {})


def test_a_file_in_the_directorys_place_is_refused(directory: Path) -> None:
    directory.write_text("mine")
    for location in (directory, directory / "below"):
        with pytest.raises(ImproperlyConfigured, match="LOCATION"):
            FileBasedCache(location, {})
    assert directory.read_text() == "mine"


def test_every_created_directory_is_for_the_owner_alone(tmp_path: Path) -> None:
    old = os.umask(0o077)
    try:
        for umask in (0o000, 0o022, 0o277):
            os.umask(umask)
            top = tmp_path / f"{umask:o}"
            cache = FileBasedCache(top / "a" / "b", {})
            cache.set("key", "value")
            assert cache.get("key") == "value"
            made = [top, top / "a", *(path for path in (top / "a").rglob("*") if path.is_dir())]
            assert len(made) == 5
            assert {stat.S_IMODE(path.stat().st_mode) for path in made} == {0o700}
            assert all(path.stat().st_mode & 0o077 == 0 for path in top.rglob("*"))
    finally:
        os.umask(old)


def test_a_directory_that_everybody_may_write_to_needs_a_secret(directory: Path) -> None:
    directory.mkdir()
    directory.chmod(0o777)
    with pytest.raises(ImproperlyConfigured, match="SECRET"):
        FileBasedCache(directory, {})
    cache = FileBasedCache(directory, {"SECRET": "s3cret"})
    cache.set("key", ["value"])
    assert cache.get("key") == ["value"]


def test_a_removed_directory_is_created_again(cache: FileBasedCache, directory: Path) -> None:
    cache.set("key", 1)
    shutil.rmtree(directory)
    assert cache.get("key") is None
    assert cache.delete("key") is False
    assert cache.touch("key") is False
    with pytest.raises(ValueError, match="not found"):
        cache.incr("key")
    cache.clear()
    cache.set("key", 2)
    assert cache.get("key") == 2
    assert stat.S_IMODE(directory.stat().st_mode) == 0o700
    shutil.rmtree(directory)
    assert cache.add("key", 3) is True
    assert cache._shards.usage.totals().entries == 1


def test_a_directory_removed_while_an_entry_is_written_is_created_again(
    cache: FileBasedCache, directory: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    publish = cache._shards.publish
    calls = []

    def remove_first(*args: Any) -> None:
        calls.append(args)
        if len(calls) == 1:
            shutil.rmtree(directory)
        publish(*args)

    monkeypatch.setattr(cache._shards, "publish", remove_first)
    cache.set("key", "value")
    assert cache.get("key") == "value"
    assert len(calls) == 2


OPERATIONS: dict[str, Callable[[FileBasedCache], Any]] = {
    "get": lambda cache: cache.get("key"),
    "get_many": lambda cache: cache.get_many(["key", "other"]),
    "has_key": lambda cache: cache.has_key("key"),
    "set": lambda cache: cache.set("key", 2),
    "add": lambda cache: cache.add("new", 2),
    "incr": lambda cache: cache.incr("key"),
    "touch": lambda cache: cache.touch("key"),
    "delete": lambda cache: cache.delete("key"),
    "clear": lambda cache: cache.clear(),
    "read_records": lambda cache: cache.read_records(["page"]),
}


@pytest.mark.parametrize("operation", OPERATIONS)
def test_a_directory_replaced_by_a_file_is_backend_unavailable(
    cache: FileBasedCache, directory: Path, operation: str
) -> None:
    cache.set("key", 1)
    shutil.rmtree(directory)
    directory.write_text("mine")
    with pytest.raises(BackendUnavailable, match=str(directory)):
        OPERATIONS[operation](cache)
    assert directory.read_text() == "mine"
    directory.unlink()
    cache.set("key", 3)
    assert cache.get("key") == 3


def test_the_low_level_api_may_fail_open(directory: Path) -> None:
    cache = FileBasedCache(directory, {"OPTIONS": {"fail_open": True}})
    shutil.rmtree(directory)
    directory.write_text("mine")
    cache.set("key", 1)
    assert cache.get("key", "default") == "default"
    with pytest.raises(BackendUnavailable):
        cache.read_records(["page"])  # the page cache has a breaker, which has to see it


# Damaged files


def cut(path: Path, size: int) -> None:
    path.write_bytes(path.read_bytes()[:size])


def flip(path: Path, offset: int) -> None:
    data = bytearray(path.read_bytes())
    data[offset] ^= 0x40
    path.write_bytes(data)


def fill(path: Path, data: bytes) -> None:
    path.write_bytes(data)


DAMAGES: dict[str, Callable[[Path], None]] = {
    "empty": lambda path: cut(path, 0),
    "one byte": lambda path: cut(path, 1),
    "header cut": lambda path: cut(path, 43),
    "key cut": lambda path: cut(path, 46),
    "value cut": lambda path: cut(path, -1),
    "garbage": lambda path: fill(path, os.urandom(200)),
    "zeros": lambda path: fill(path, bytes(300)),
    "other version": lambda path: flip(path, 3),
    "expiry flipped": lambda path: flip(path, 15),
    "length flipped": lambda path: flip(path, 30),
    "key flipped": lambda path: flip(path, 45),
    "value flipped": lambda path: flip(path, -2),
    "pickle": lambda path: fill(path, b"\x80\x04cos\nsystem\n(S'false'\ntR."),
}


@pytest.mark.parametrize("value", ["small", BIG], ids=["small", "large"])
@pytest.mark.parametrize("damage", DAMAGES)
def test_a_damaged_file_is_a_miss_and_removed(cache: FileBasedCache, damage: str, value: Any) -> None:
    cache.set("key", value)
    DAMAGES[damage](entry(cache, "key"))
    assert cache.get("key", "default") == "default"
    assert not entry(cache, "key").exists()
    assert cache._shards.usage.totals().entries == 0
    assert cache.add("key", value) is True
    assert cache.get("key") == value


@pytest.mark.parametrize("damage", [damage for damage in DAMAGES if damage != "value flipped"])
def test_a_damaged_page_is_a_miss_too(cache: FileBasedCache, damage: str) -> None:
    # (a flipped byte in a page's value is its own checksum's business)
    cache.write_records([("page", BIG, None)])
    DAMAGES[damage](Path(cache._shards.place(cache.page_key("page")).path))
    assert cache.read_records(["page"]) == [None]


@pytest.mark.parametrize("damage", ["empty", "garbage", "zeros", "length flipped", "key flipped"])
def test_a_damaged_file_cannot_be_counted_or_touched(cache: FileBasedCache, damage: str) -> None:
    cache.set("key", 7)
    DAMAGES[damage](entry(cache, "key"))
    assert cache.has_key("key") is False
    assert cache.touch("key") is False
    with pytest.raises(ValueError, match="not found"):
        cache.incr("key")
    assert cache.delete("key") is False
    assert not entry(cache, "key").exists()


def test_an_entry_copied_under_another_keys_name_is_a_miss(cache: FileBasedCache) -> None:
    cache.set("mine", "secret")
    cache.set("yours", "public")
    shutil.copy(entry(cache, "mine"), entry(cache, "yours"))
    assert cache.get("yours") is None
    assert cache.get("mine") == "secret"


def test_no_length_in_a_file_is_trusted_with_an_allocation(cache: FileBasedCache) -> None:
    from cachemw.backends._file import entry as file_entry

    cache.set("key", "value")
    place = cache._shards.place(cache.make_key("key"))
    header = file_entry.pack(place.key, expires=file_entry.FOREVER, number=None, size=2**62, crc=0)
    Path(place.path).write_bytes(header + b"short")
    assert cache.get("key") is None


def test_an_expired_file_is_removed_when_it_is_read(cache: FileBasedCache, monkeypatch: pytest.MonkeyPatch) -> None:
    cache.set("key", "value", 100)
    now = time.time() + 101
    monkeypatch.setattr(time, "time", lambda: now)
    assert cache.has_key("key") is False
    assert entry(cache, "key").exists()
    assert cache.get("key") is None
    assert not entry(cache, "key").exists()


def test_a_reader_does_not_wait_to_remove_what_is_expired(
    cache: FileBasedCache, monkeypatch: pytest.MonkeyPatch
) -> None:
    cache.set("key", "value", 100)
    now = time.time() + 101
    monkeypatch.setattr(time, "time", lambda: now)
    with cache._shards.locked(cache._shards.place(cache.make_key("key")).shard):
        began = time.monotonic()
        assert cache.get("key") is None
        assert time.monotonic() - began < 0.5
    assert entry(cache, "key").exists()


def test_a_header_caught_half_written_is_read_again(cache: FileBasedCache, monkeypatch: pytest.MonkeyPatch) -> None:
    from cachemw.backends import filebased

    cache.set("key", 7)
    path, whole = entry(cache, "key"), entry(cache, "key").read_bytes()
    flip(path, 16)
    read = read_entry

    def read_then_mend(*args: Any, **kwargs: Any) -> Any:
        value = read(*args, **kwargs)
        path.write_bytes(whole)  # as the one who rewrites it goes on
        return value

    monkeypatch.setattr(filebased, "read_entry", read_then_mend)
    assert cache.get("key") == 7
    assert cache._shards.usage.totals().entries == 1


# What is not ours


def plant_link(path: Path, target: Path) -> None:
    path.symlink_to(target)


def plant_pipe(path: Path, target: Path) -> None:
    os.mkfifo(path)


def plant_socket(path: Path, target: Path) -> None:
    here = os.getcwd()
    os.chdir(path.parent)  # a socket's path is short
    try:
        with socket.socket(socket.AF_UNIX) as listener:
            listener.bind(path.name)
    finally:
        os.chdir(here)


def plant_directory(path: Path, target: Path) -> None:
    path.mkdir()


PLANTED: dict[str, Callable[[Path, Path], None]] = {
    "link": plant_link,
    "pipe": plant_pipe,
    "socket": plant_socket,
    "directory": plant_directory,
}


@pytest.mark.parametrize("kind", PLANTED)
def test_what_is_no_file_in_an_entrys_place_is_a_miss_and_stays(
    cache: FileBasedCache, tmp_path: Path, kind: str
) -> None:
    other = FileBasedCache(tmp_path / "other", {})
    other.set("key", 7)
    target = entry(other, "key")
    before = target.read_bytes()
    cache.set("key", 1)
    path = entry(cache, "key")
    path.unlink()
    PLANTED[kind](path, target)
    planted = path.lstat()
    assert cache.get("key") is None
    assert cache.has_key("key") is False
    assert cache.touch("key") is False
    assert cache.delete("key") is False
    with pytest.raises(ValueError, match="not found"):
        cache.incr("key")
    cache.clear()
    assert path.lstat().st_ino == planted.st_ino
    assert target.read_bytes() == before
    if kind == "directory":
        with pytest.raises(BackendUnavailable):
            cache.set("key", 2)
        assert not temporaries(tmp_path / "cache")
    else:  # the name is the store's: what stood there is replaced, never followed
        cache.set("key", 2)
        assert cache.get("key") == 2
    assert target.read_bytes() == before


def test_a_pipe_that_somebody_writes_to_is_a_miss(cache: FileBasedCache) -> None:
    cache.set("key", 1)
    path = entry(cache, "key")
    path.unlink()
    os.mkfifo(path)
    end = os.open(path, os.O_RDWR | os.O_NONBLOCK)
    try:
        assert cache.get("key") is None
        assert cache.has_key("key") is False
        assert cache.touch("key") is False
    finally:
        os.close(end)


@pytest.mark.parametrize("level", [1, 2])
def test_a_link_in_a_shards_place_is_not_written_through(cache: FileBasedCache, tmp_path: Path, level: int) -> None:
    cache.set("key", 1)
    shard = entry(cache, "key").parents[2 - level]
    elsewhere = tmp_path / "elsewhere"
    shard.rename(elsewhere)
    shard.symlink_to(elsewhere)
    before = state(elsewhere)
    for operation in (
        lambda: cache.set("key", 2),
        lambda: cache.incr("key"),
        lambda: cache.touch("key", 0.001),
        lambda: cache.delete("key"),
    ):
        with pytest.raises(BackendUnavailable):
            operation()
    cache.clear()
    assert state(elsewhere) == before


def test_foreign_files_are_never_touched(cache: FileBasedCache, directory: Path) -> None:
    cache.set("key", 1)
    shard = entry(cache, "key").parent
    foreign = [
        directory / "README",
        directory / "00.cmw",
        shard / "notes.txt",
        shard / "0123.cmw",
        shard / ("x" * 40 + ".cmw"),
        shard / ".hidden.cmw-new",
        shard / ("a" * 40 + ".cmw.bak"),
    ]
    for path in foreign:
        path.write_text("mine")
        os.utime(path, (0, 0))
    (directory / "zz").mkdir()
    (directory / "zz" / ("a" * 40 + ".cmw")).write_text("mine")
    cache.clear()
    cache._sweeper.cull(disk_full=True)
    assert {path.read_text() for path in foreign} == {"mine"}
    assert (directory / "zz" / ("a" * 40 + ".cmw")).read_text() == "mine"
    assert not entry(cache, "key").exists()


# Pages and values


def test_a_page_never_reads_a_number(cache: FileBasedCache) -> None:
    cache._set([(cache.page_key("number"), 7, None)])
    assert cache.read_records(["number"]) == [None]
