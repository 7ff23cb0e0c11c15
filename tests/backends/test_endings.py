"""A cache that nobody closed leaves nothing open: neither when it is collected nor when the process ends."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.servers import (
    mariadb_url,
    postgresql_url,
    shared,
    start_mariadb,
    start_memcached,
    start_postgresql,
    start_redis,
)
from tests.serving import ROOT

SCRIPT = """
import asyncio, gc, sys
import cachemw

async def both(cache):
    await cache.aset("b", 2)
    return await cache.aget("b")

cache = cachemw.connect(sys.argv[1])
cache.set("a", 1)
assert (cache.get("a"), asyncio.run(both(cache))) == (1, 2)
if sys.argv[2] == "collected":
    cache.itself = cache
    del cache
    gc.collect()
    print("collected", flush=True)
"""


def _memcached(scheme: str) -> str:
    return f"{scheme}://{shared(start_memcached).address}?socket_timeout=5&connect_timeout=5"


#: By name: the URL of a store, in a directory if it wants one.
URLS: dict[str, Callable[[Path], str]] = {
    "redis": lambda path: f"redis://{shared(start_redis).address}/0?socket_timeout=5",
    "tiered+redis": lambda path: f"tiered+redis://{shared(start_redis).address}/0?socket_timeout=5",
    "memcached": lambda path: _memcached("memcached"),
    "memcached+pylibmc": lambda path: _memcached("memcached+pylibmc"),
    "sqlite": lambda path: f"db+sqlite:///{path}/cache.sqlite3",
    "postgresql": lambda path: f"db+{postgresql_url(shared(start_postgresql))}?deadline=5&create=1&table=endings",
    "mariadb": lambda path: f"db+{mariadb_url(shared(start_mariadb))}?deadline=5&create=1&table=endings",
}


@pytest.mark.parametrize("end", ["collected", "at the exit"])
@pytest.mark.parametrize("store", URLS)
def test_no_connection_is_left_to_the_interpreter(store: str, end: str, tmp_path: Path) -> None:
    url = URLS[store](tmp_path)
    argv = [sys.executable, "-W", "error", "-X", "dev", "-c", SCRIPT, url, end]
    ended = subprocess.run(argv, cwd=ROOT, capture_output=True, text=True, timeout=60, check=False)
    assert (ended.returncode, ended.stderr) == (0, "")
