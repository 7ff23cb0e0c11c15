"""gevent's greenlets share connections, locks and flights as threads do, and are interrupted anywhere."""

from __future__ import annotations

import json
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

STORES: dict[str, Callable[[Path], str]] = {
    "locmem": lambda path: "locmem://",
    "redis": lambda path: f"redis://{shared(start_redis).address}/0?socket_timeout=5&socket_connect_timeout=5",
    "tiered": lambda path: f"tiered+redis://{shared(start_redis).address}/0?socket_timeout=5&socket_connect_timeout=5",
    "memcached": lambda path: f"memcached://{shared(start_memcached).address}?socket_timeout=5&connect_timeout=5",
    "file": lambda path: f"file://{path}/cache",
    "sqlite": lambda path: f"db+sqlite:///{path}/cache.sqlite?deadline=5",
    "postgresql": lambda path: f"db+{postgresql_url(shared(start_postgresql))}?deadline=5&create=1&table=greenlets",
    "mariadb": lambda path: f"db+{mariadb_url(shared(start_mariadb))}?deadline=5&create=1&table=greenlets",
}


@pytest.mark.parametrize("patched", ["early", "late"])
@pytest.mark.parametrize("store", STORES)
def test_no_greenlet_gets_what_another_asked_for_nor_waits_for_ever(store: str, patched: str, tmp_path: Path) -> None:
    argv = [sys.executable, "-m", "tests.real_servers.greenlets", patched, STORES[store](tmp_path)]
    ended = subprocess.run(argv, cwd=ROOT, capture_output=True, text=True, timeout=60, check=False)
    assert ended.returncode == 0, ended.stderr
    outcomes = json.loads(ended.stdout)
    assert not outcomes.keys() & {"wrong", "failed", "hung"}, (outcomes, ended.stderr)
    assert outcomes["interrupted"]  # local memory is quick: it is a few there
    assert outcomes["right"] > 900
    assert outcomes["hit"] == 20, "whoever was interrupted has left nothing that the others wait for"
