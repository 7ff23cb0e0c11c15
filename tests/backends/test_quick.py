"""Reads on the event loop: only while they are quick, and never where something would be waited for."""

from __future__ import annotations

import asyncio
import sqlite3
import threading
from collections.abc import Callable
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from cachemw import connect
from cachemw.backends._quick import QuickReads
from cachemw.backends.base import BaseCache
from cachemw.backends.filebased import FileBasedCache
from cachemw.errors import ImproperlyConfigured


class Disk:
    """A disk and a clock: a read takes `latency` seconds, and tells in which thread it was done."""

    def __init__(self) -> None:
        self.now = 100.0
        self.latency = 0.0
        self.error: Exception | None = None

    def clock(self) -> float:
        return self.now

    def read(self) -> int:
        self.now += self.latency
        if self.error is not None:
            raise self.error
        return threading.get_ident()


def test_a_quick_disk_is_read_on_the_event_loop() -> None:
    disk = Disk()
    reads = QuickReads(allowed=True, clock=disk.clock)
    assert asyncio.run(reads.run(disk.read)) == threading.get_ident()


@pytest.mark.parametrize("error", [None, OSError("damaged")])
def test_a_slow_disk_holds_the_event_loop_up_once_a_second(error: Exception | None) -> None:
    disk = Disk()
    reads = QuickReads(allowed=True, clock=disk.clock)
    here = threading.get_ident()

    async def story() -> None:
        disk.latency, disk.error = 0.2, error
        if error is None:
            assert await reads.run(disk.read) == here
        else:
            with pytest.raises(OSError, match="damaged"):
                await reads.run(disk.read)
        disk.error = None
        for _ in range(5):
            assert await reads.run(disk.read) != here
        disk.latency = 0.0
        disk.now += 1.0
        assert await reads.run(disk.read) == here
        assert await reads.run(disk.read) == here

    asyncio.run(story())


def test_what_would_have_to_wait_goes_to_a_thread() -> None:
    disk = Disk()
    reads = QuickReads(allowed=True, clock=disk.clock)
    assert asyncio.run(reads.run(disk.read, at_once=lambda: None)) != threading.get_ident()
    assert asyncio.run(reads.run(disk.read, at_once=lambda: 7)) == 7


def url(kind: str, folder: Path, **options: object) -> str:
    query = "&".join(f"{name}={value}" for name, value in options.items())
    return f"{'file://' if kind == 'file' else 'db+sqlite:///'}{folder / 'cache'}?{query}"


def reading_threads(cache: Any, monkeypatch: pytest.MonkeyPatch) -> set[int]:
    """The threads that the store reads in from now on."""
    threads: set[int] = set()

    def watched(read: Callable[..., Any]) -> Callable[..., Any]:
        def reading(*args: Any) -> Any:
            threads.add(threading.get_ident())
            return read(*args)

        return reading

    store = cache if isinstance(cache, FileBasedCache) else cache._sqlite
    names = ("read_records", "_get") if store is cache else ("get", "get_at_once")
    for name in names:
        monkeypatch.setattr(store, name, watched(getattr(store, name)))
    return threads


@pytest.mark.parametrize("kind", ["file", "sqlite"])
@pytest.mark.parametrize("inline", [True, False])
def test_the_option_says_whether_a_store_is_read_there(
    kind: str, inline: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    cache = connect(url(kind, tmp_path, inline_reads=str(inline).lower()))
    cache.set("key", "value")
    threads = reading_threads(cache, monkeypatch)

    async def read() -> None:
        assert await cache.aread_records(["page"]) == [None]
        assert await cache.aget("key") == "value"

    asyncio.run(read())
    assert (threads == {threading.get_ident()}) is inline
    cache.close()


@pytest.mark.parametrize("kind", ["file", "sqlite"])
def test_an_option_that_is_neither_yes_nor_no_is_refused(kind: str, tmp_path: Path) -> None:
    with pytest.raises(ImproperlyConfigured, match="inline_reads"):
        connect(url(kind, tmp_path, inline_reads="perhaps"))


def test_a_locked_sqlite_file_does_not_hold_the_event_loop_up(tmp_path: Path) -> None:
    """The event loop itself unlocks it: it could not while it waited for that."""
    cache: BaseCache = connect(url("sqlite", tmp_path, deadline=20))
    cache.set("key", "value")

    async def read_locked() -> None:
        cache.close()  # else the other one cannot have it for itself
        with closing(sqlite3.connect(tmp_path / "cache", isolation_level=None)) as lock:
            lock.execute("PRAGMA locking_mode=EXCLUSIVE")
            lock.execute("BEGIN IMMEDIATE")
            lock.execute("DELETE FROM cachemw")
            reading = asyncio.ensure_future(cache.aget("key"))
            for _ in range(20):
                await asyncio.sleep(0.001)
            assert not reading.done()
            lock.execute("ROLLBACK")
        assert await reading == "value"

    for _ in range(2):
        asyncio.run(read_locked())
    cache.close()


@pytest.mark.parametrize("keys", [["key"], ["key", "other"]])
def test_a_connection_that_finds_the_lock_taken_waits_in_a_thread(tmp_path: Path, keys: list[str]) -> None:
    cache: Any = connect(url("sqlite", tmp_path, deadline=5))
    cache.set("key", "value")
    store = cache._sqlite
    released = threading.Event()

    class Busy:
        """A connection whose lock another one has."""

        def __init__(self, connection: Any) -> None:
            self.connection = connection

        def ask(self, *args: Any) -> Any:
            if not released.is_set():
                error = sqlite3.OperationalError("database is locked")
                error.sqlite_errorcode = sqlite3.SQLITE_BUSY
                released.set()
                raise error
            return self.connection.ask(*args)

        def close(self) -> None:
            self.connection.close()

    store.connections._idle[:] = [Busy(store.connections._idle[0])]
    assert asyncio.run(cache.aget_many(keys)) == {"key": "value"}
    assert released.is_set()
    cache.close()
