"""The file store when the disk, the system or another process does not behave."""

from __future__ import annotations

import errno
import fcntl
import multiprocessing
import os
import resource
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest

from cachemw.backends._file import shards as file_shards
from cachemw.backends.filebased import FileBasedCache
from cachemw.errors import BackendUnavailable, ImproperlyConfigured
from tests.backends.file_store import entries, entry, in_child, open_to_others, temporaries
from tests.servers import until


@pytest.fixture
def directory(tmp_path: Path) -> Path:
    return open_to_others(tmp_path) / "cache"


@pytest.fixture
def cache(directory: Path) -> FileBasedCache:
    return FileBasedCache(directory, {})


# Permissions


def test_a_directory_that_cannot_be_written_is_refused(directory: Path) -> None:
    directory.mkdir()
    directory.chmod(0o555)

    def configure() -> None:
        for location in (directory, directory / "below"):
            with pytest.raises(ImproperlyConfigured, match="create, read and write"):
                FileBasedCache(location, {})

    in_child(configure, user="nobody")


def test_lost_permission_is_backend_unavailable(cache: FileBasedCache, directory: Path) -> None:
    cache.set("key", 1)
    directory.chmod(0o000)

    def use() -> None:
        for operation in (
            lambda: cache.get("key"),
            lambda: cache.set("key", 2),
            lambda: cache.add("new", 2),
            lambda: cache.incr("key"),
            lambda: cache.delete("key"),
            lambda: cache.read_records(["page"]),
        ):
            with pytest.raises(BackendUnavailable, match="Permission denied"):
                operation()

    try:
        in_child(use, user="nobody")
    finally:
        directory.chmod(0o700)
    assert cache.get("key") == 1


# A full disk


def test_a_file_that_may_not_grow_so_large_is_backend_unavailable(cache: FileBasedCache, directory: Path) -> None:
    cache.set("key", "old")

    def use() -> None:
        resource.setrlimit(resource.RLIMIT_FSIZE, (50_000, 50_000))
        with pytest.raises(BackendUnavailable, match="File too large"):
            cache.set("key", b"x" * 100_000)
        assert cache.get("key") == "old"
        cache.set("small", 1)
        assert cache.get("small") == 1

    in_child(use)
    assert temporaries(directory) == []


def test_a_full_disk_is_backend_unavailable_and_makes_room(
    cache: FileBasedCache, directory: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    cache.set_many({f"key{number}": number for number in range(30)})
    write = os.writev

    def full_while_there_are_many(descriptor: int, parts: Sequence[bytes]) -> int:
        if len(entries(directory)) > 20:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        return write(descriptor, parts)

    monkeypatch.setattr(os, "writev", full_while_there_are_many)
    with pytest.raises(BackendUnavailable, match="No space left"):
        cache.set("new", 1)
    assert temporaries(directory) == []
    cache.set("new", 1)
    assert cache.get("new") == 1
    assert len(entries(directory)) == 21


@pytest.mark.parametrize("failure", [errno.EIO, errno.EROFS, errno.ENODEV])
def test_any_error_of_the_disk_is_backend_unavailable(
    cache: FileBasedCache, directory: Path, monkeypatch: pytest.MonkeyPatch, failure: int
) -> None:
    cache.set("key", "old")

    def fail(*args: Any, **kwargs: Any) -> None:
        raise OSError(failure, os.strerror(failure))

    with monkeypatch.context() as patch:
        patch.setattr(os, "rename", fail)
        with pytest.raises(BackendUnavailable, match=os.strerror(failure)):
            cache.set("new", "value")
    with monkeypatch.context() as patch:
        patch.setattr(os, "writev", fail)
        with pytest.raises(BackendUnavailable, match=os.strerror(failure)):
            cache.set("new", "value")
    assert temporaries(directory) == []
    with monkeypatch.context() as patch:
        patch.setattr(os, "pread", fail)
        patch.setattr(os, "read", fail)
        with pytest.raises(BackendUnavailable, match=os.strerror(failure)):
            cache.get("key")
        with pytest.raises(BackendUnavailable, match=os.strerror(failure)):
            cache.has_key("key")


def test_no_descriptor_is_lost(cache: FileBasedCache, monkeypatch: pytest.MonkeyPatch) -> None:
    cache.set("key", b"x" * 10_000)
    cache.write_records([("page", b"x" * 10_000, None)])
    before = len(os.listdir("/proc/self/fd"))

    def fail(*args: Any, **kwargs: Any) -> Any:
        raise OSError(errno.EIO, "broken")

    for name in ("read", "pread", "pwrite", "fstat", "writev", "rename", "unlink"):
        with monkeypatch.context() as patch:
            patch.setattr(os, name, fail)
            for operation in (
                lambda: cache.get("key"),
                lambda: cache.set("key", 1),
                lambda: cache.add("new", 1),
                lambda: cache.touch("key"),
                lambda: cache.delete("key"),
                lambda: cache.read_records(["page"]),
            ):
                with suppress(BackendUnavailable):
                    operation()
    assert len(os.listdir("/proc/self/fd")) == before


@pytest.mark.parametrize("failure", [errno.EOPNOTSUPP, errno.EINVAL, None], ids=str)
def test_a_file_system_that_cannot_allocate_ahead_does_without(
    cache: FileBasedCache, monkeypatch: pytest.MonkeyPatch, failure: int | None
) -> None:
    if failure is None:
        monkeypatch.delattr(os, "posix_fallocate")
    else:

        def refuse(*args: Any) -> None:
            raise OSError(failure, os.strerror(failure))

        monkeypatch.setattr(os, "posix_fallocate", refuse)
    cache.set("key", "old")
    cache.set("key", b"x" * 10_000)
    assert cache.get("key") == b"x" * 10_000


def test_a_file_that_replaces_another_finds_out_before_the_rename_that_the_disk_is_full(
    cache: FileBasedCache, directory: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A new one gets its blocks when the system writes it out, if it lives so long: most leases do not."""

    def full(*args: Any) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    cache.set_many({"key": "old", "other": "older"})
    monkeypatch.setattr(os, "posix_fallocate", full)
    cache.set("new", 1)
    with pytest.raises(BackendUnavailable, match="No space left"):
        cache.set("new", 2)
    assert temporaries(directory) == []
    left = {"key": "old", "other": "older", "new": 1}
    assert len(entries(directory)) == 2  # one of them made room for what comes next
    assert cache.get_many(left).items() <= left.items()


@pytest.mark.parametrize("at_once", [1, 50, 60_000])
def test_a_write_may_come_in_pieces(cache: FileBasedCache, monkeypatch: pytest.MonkeyPatch, at_once: int) -> None:
    write = os.write
    monkeypatch.setattr(os, "writev", lambda descriptor, parts: write(descriptor, b"".join(parts)[:at_once]))
    monkeypatch.setattr(os, "write", lambda descriptor, data: write(descriptor, bytes(data[:30_000])))
    value = os.urandom(100_000)
    cache.set("key", value)
    assert cache.get("key") == value


def test_a_temporary_file_that_somebody_removed_is_written_again(
    cache: FileBasedCache, monkeypatch: pytest.MonkeyPatch
) -> None:
    create = cache._shards.create
    calls: list[str] = []

    def lose_the_first(directory: int, parts: tuple[bytes, bytes], **options: Any) -> str:
        name = create(directory, parts, **options)
        calls.append(name)
        if len(calls) == 1:
            os.unlink(name, dir_fd=directory)
        return name

    monkeypatch.setattr(cache._shards, "create", lose_the_first)
    cache.set("key", "value")
    assert cache.get("key") == "value"
    assert len(calls) == 2


# Locks and other processes


def test_a_lock_that_is_never_let_go_ends_the_wait(cache: FileBasedCache, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(file_shards, "_LOCK_TIMEOUT", 0.05)
    cache.set("key", 1)
    shard = cache._shards.place(cache.make_key("key")).shard
    held, release = threading.Event(), threading.Event()

    def hold() -> None:
        with cache._shards.locked(shard):
            held.set()
            release.wait(30)

    holder = threading.Thread(target=hold)
    holder.start()
    held.wait(30)
    try:
        assert cache.get("key") == 1
        for operation in (lambda: cache.set("key", 2), lambda: cache.incr("key"), lambda: cache.delete("key")):
            with pytest.raises(BackendUnavailable, match="another process holds the lock"):
                operation()
    finally:
        release.set()
        holder.join()
    assert cache.incr("key") == 2
    assert temporaries(Path(str(cache.location))) == []


def test_a_lock_is_waited_for(cache: FileBasedCache) -> None:
    cache.set("key", 1)
    place = cache._shards.place(cache.make_key("key"))
    waiting = threading.Event()
    done: list[int] = []

    def count() -> None:
        waiting.set()
        done.append(cache.incr("key"))

    with cache._shards.locked(place.shard):
        thread = threading.Thread(target=count)
        thread.start()
        waiting.wait(30)
        assert done == []
    thread.join(30)
    assert done == [2]


def test_a_process_forked_while_a_lock_is_held_does_not_keep_it(cache: FileBasedCache) -> None:
    cache.set("key", 1)
    place = cache._shards.place(cache.make_key("key"))
    read_end, write_end = os.pipe()
    with cache._shards.locked(place.shard):
        child = os.fork()
        if child == 0:  # holds a copy of the descriptor until told to end
            os.close(write_end)
            os.read(read_end, 1)
            os._exit(0)
    try:
        assert cache.incr("key") == 2
    finally:
        os.close(write_end)
        os.close(read_end)
        os.waitpid(child, 0)


WRITER = """
import sys
from cachemw.backends.filebased import FileBasedCache
cache = FileBasedCache(sys.argv[1], {})
print("ready", flush=True)
while True:
    for number in range(20):
        letter = bytes([97 + number])
        cache.set(f"key{number}", letter * 200_000, None)
        cache.add("count", 0, None)
        cache.incr("count")
"""


def wait_for_counts(cache: FileBasedCache, count: int) -> None:
    seen = cache.get("count", 0)
    until(lambda: cache.get("count", 0) >= seen + count, "the writer writes")


def test_a_writer_killed_at_any_moment_leaves_whole_entries(cache: FileBasedCache, directory: Path) -> None:
    for turn in range(6):
        with subprocess.Popen([sys.executable, "-c", WRITER, str(directory)], stdout=subprocess.PIPE) as writer:
            assert writer.stdout is not None
            assert writer.stdout.readline() == b"ready\n"
            wait_for_counts(cache, 1 + 7 * turn)
            writer.send_signal(signal.SIGKILL)
        for number in range(20):
            value = cache.get(f"key{number}")
            assert value is None or value == bytes([97 + number]) * 200_000
        assert cache.incr("count") > 0
    for leftover in temporaries(directory):
        os.utime(leftover, (0, 0))
    held = len(entries(directory))
    assert abs(cache._shards.usage.totals().entries - held) <= 6
    cache.clear()
    assert temporaries(directory) == []
    assert (entries(directory), cache._shards.usage.totals()) == ([], (0, 0))


def test_a_frozen_writer_does_not_hold_up_readers(cache: FileBasedCache, directory: Path) -> None:
    with subprocess.Popen([sys.executable, "-c", WRITER, str(directory)], stdout=subprocess.PIPE) as writer:
        assert writer.stdout is not None
        assert writer.stdout.readline() == b"ready\n"
        until(lambda: "key0" in cache, "the writer has written")
        writer.send_signal(signal.SIGSTOP)
        try:
            began = time.monotonic()
            assert cache.get("key0") == b"a" * 200_000
            assert time.monotonic() - began < 1
        finally:
            writer.send_signal(signal.SIGKILL)


def _count(directory: str, results: Any) -> None:
    cache = FileBasedCache(directory, {})
    for turn in range(200):
        cache.incr("count")
        cache.touch("count", 1000 + turn)
        if turn % 10 == 0:
            cache.set("page", bytes([turn % 256]) * 50_000)
    results.put("done")


def test_counting_touching_and_reading_in_two_processes_lose_nothing(cache: FileBasedCache, directory: Path) -> None:
    cache.set("count", 0, 1000)
    context = multiprocessing.get_context("spawn")
    results = context.SimpleQueue()
    children = [context.Process(target=_count, args=(str(directory), results)) for _ in range(2)]
    for child in children:
        child.start()
    torn = 0
    while any(child.is_alive() for child in children):
        count, page = cache.get("count"), cache.get("page")
        torn += count is None or (page is not None and len(set(page)) != 1)
    for child in children:
        child.join(60)
    assert [results.get(), results.get()] == ["done", "done"]
    assert torn == 0
    assert cache.get("count") == 400
    assert 900 < (cache._timeout_left(cache.make_key("count")) or 0) <= 1199


def test_the_directorys_own_lock_is_not_the_shards(cache: FileBasedCache, directory: Path) -> None:
    descriptor = os.open(directory, os.O_RDONLY)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX)
        cache.set("key", 1)
        assert cache.incr("key") == 2
    finally:
        os.close(descriptor)
    assert entry(cache, "key").exists()
