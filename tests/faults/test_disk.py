"""A cache on a disk that is full, gone, locked or spoiled: every page is still answered, and right."""

from __future__ import annotations

import errno
import os
import shutil
import signal
import sqlite3
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from cachemw.backends.base import BaseCache
from cachemw.backends.db import DatabaseCache
from cachemw.backends.filebased import FileBasedCache
from tests.faults.site import BACK, INTERFACES, Site
from tests.servers import until
from tests.serving import ROOT

STORES: dict[str, Callable[[Path], BaseCache]] = {
    "filebased": lambda path: FileBasedCache(str(path), {}),
    "sqlite": lambda path: DatabaseCache(f"sqlite:///{path}/cache.db", {}),
}


@pytest.fixture(params=INTERFACES)
def interface(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture(params=STORES)
def store(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture
def directory(tmp_path: Path) -> Path:
    (tmp_path / "cache").mkdir(mode=0o700)
    return tmp_path / "cache"


@pytest.fixture
def site(store: str, interface: str, directory: Path) -> Iterator[Site]:
    """A site with a page in its cache."""
    with Site(interface, STORES[store](directory)) as site:
        site.get("/")
        site.until_hit("/")
        yield site


def go_on(site: Site, rounds: int = 10) -> None:
    """Visitors and an author go on; `Site` checks what they get."""
    for number in range(rounds):
        site.get("/")
        site.get(f"/{number}")
        site.post("/")


def test_the_directory_is_removed(site: Site, directory: Path) -> None:
    shutil.rmtree(directory)
    go_on(site)
    directory.mkdir(exist_ok=True)
    site.get("/")
    site.until_hit("/", within=BACK)


def test_the_directory_is_replaced_by_a_file(site: Site, directory: Path) -> None:
    shutil.rmtree(directory)
    directory.write_text("a file")
    go_on(site)
    assert directory.read_text() == "a file"
    directory.unlink()
    directory.mkdir(mode=0o700)
    site.until_hit("/", within=BACK)


def test_the_disk_is_full(site: Site, store: str, monkeypatch: pytest.MonkeyPatch) -> None:
    full = threading.Event()
    if store == "filebased":
        real = os.write

        def write(descriptor: int, data: bytes) -> int:
            if full.is_set():
                raise OSError(errno.ENOSPC, "No space left on device")
            return real(descriptor, data)

        monkeypatch.setattr(os, "write", write)
        monkeypatch.setattr(os, "writev", lambda d, parts: write(d, b"".join(parts)), raising=False)
    else:
        primary: Any = site.cache._primary.connections  # type: ignore[attr-defined]
        connect = primary._connect

        def limited() -> sqlite3.Connection:
            connection: sqlite3.Connection = connect()
            pages = connection.execute("PRAGMA page_count").fetchone()[0]
            connection.execute(f"PRAGMA max_page_count={pages if full.is_set() else 1 << 30}")
            return connection

        monkeypatch.setattr(primary, "_connect", limited)
        primary.close()
    full.set()
    if store == "sqlite":
        primary.close()
    site.bodies.update({f"/{number}": b"x" * 200_000 for number in range(10)})
    go_on(site)
    assert site.pages.counts["store-error"] > 0
    full.clear()
    if store == "sqlite":
        primary.close()
    site.until_hit("/0", within=3)


def test_a_disk_that_takes_no_writes_still_gives_hits(site: Site, store: str, monkeypatch: pytest.MonkeyPatch) -> None:
    def refused(*args: Any) -> Any:
        raise OSError(errno.EROFS, "Read-only file system")

    if store == "sqlite":
        holder = sqlite3.connect(site.cache.location.removeprefix("sqlite:///"), isolation_level=None)  # type: ignore[union-attr]
        holder.execute("BEGIN IMMEDIATE")  # a lock that nobody lets go of
    else:
        monkeypatch.setattr(site.cache._shards, "create", refused)  # type: ignore[attr-defined]
    for number in range(20):
        site.get(f"/{number}")
    assert site.get("/").hit
    assert site.pages.write_breaker.open
    late = [call for call in site.calls if call.late]
    assert len(late) <= 2
    if store == "sqlite":
        holder.execute("ROLLBACK")
        holder.close()
    else:
        monkeypatch.undo()
    site.until_hit("/0", within=2.5)


@pytest.mark.parametrize("damage", [b"", b"garbage" * 1000])
def test_a_corrupt_database_file(interface: str, directory: Path, damage: bytes) -> None:
    file = directory / "cache.db"
    with Site(interface, STORES["sqlite"](directory)) as site:
        site.get("/")
        site.until_hit("/")
        site.cache.close()
        for left in directory.iterdir():
            left.unlink()
        file.write_bytes(damage)
        go_on(site)
        file.unlink()
        site.until_hit("/", within=3)


def test_permission_is_lost(store: str, directory: Path) -> None:
    """In a process without root's privileges."""
    (directory.parent / "imports").mkdir(mode=0o700)
    script = f"""
import os, sys
from pathlib import Path
from tests.faults.site import Site
from tests.faults.test_disk import STORES, go_on
with Site("wsgi", STORES[{store!r}](Path({str(directory.parent)!r}) / "imports")) as site:
    go_on(site, 1)  # what is imported late would not be found
os.setgid(65534); os.setuid(65534)
directory = Path({str(directory)!r})
with Site("wsgi", STORES[{store!r}](directory)) as site:
    site.get("/")
    site.until_hit("/")
    site.cache.close()
    directory.chmod(0)
    go_on(site)
    directory.chmod(0o700)
    site.until_hit("/", within=3)
"""
    if os.geteuid() != 0:
        script = script.replace("os.setgid(65534); os.setuid(65534)", "")
    else:
        for path in (directory, *directory.parents):
            if str(path).startswith("/tmp/") and path != Path("/tmp"):
                path.chmod(path.stat().st_mode | 0o055)
        os.chown(directory, 65534, 65534)
        directory.chmod(0o700)
    done = subprocess.run([sys.executable, "-c", script], cwd=ROOT, capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr


def test_a_writer_killed_at_any_moment_leaves_no_half_page(store: str, interface: str, directory: Path) -> None:
    script = f"""
from pathlib import Path
from tests.faults.site import Site
from tests.faults.test_disk import STORES
with Site("wsgi", STORES[{store!r}](Path({str(directory)!r}))) as site:
    print("begun", flush=True)
    while True:
        for number in range(5):
            path = f"/{{number}}"
            site.bodies[path] = path.encode() * 20_000
            site.get(path)
            site.cache.drop_records(list(site.asked))
"""
    for _ in range(2):
        writer = subprocess.Popen([sys.executable, "-c", script], cwd=ROOT, stdout=subprocess.PIPE)
        assert writer.stdout is not None
        assert writer.stdout.readline() == b"begun\n"
        until(lambda: any(directory.rglob("*")), "something is written")
        os.kill(writer.pid, signal.SIGKILL)
        writer.wait()
        writer.stdout.close()
        with Site(interface, STORES[store](directory)) as site:
            for number in range(5):
                path = f"/{number}"
                site.bodies[path] = path.encode() * 20_000
                site.get(path)  # `Site` compares the body
                site.until_hit(path)
