"""Any order of operations on files and databases does what it does to a dictionary with a clock."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from cachemw.backends.base import BaseCache
from cachemw.backends.db import DatabaseCache
from cachemw.backends.filebased import FileBasedCache
from tests.backends.test_machine import store_machine
from tests.servers import mariadb_url, postgresql_url, shared, start_mariadb, start_postgresql


def database(url: str) -> BaseCache:
    return DatabaseCache(url, {"OPTIONS": {"table": "machine", "create": True, "deadline": 10}})


STORES: dict[str, Callable[[Path], BaseCache]] = {
    "files": lambda path: FileBasedCache(path, {}),
    "sqlite": lambda path: database(f"sqlite:///{path / 'cache.sqlite3'}"),
    "postgresql": lambda path: database(postgresql_url(shared(start_postgresql))),
    "mariadb": lambda path: database(mariadb_url(shared(start_mariadb))),
}


@pytest.fixture
def pass_time(monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[[float], None]]:
    """The clock of the stores stands still but for this."""
    now = time.time()

    def advance(seconds: float) -> None:
        nonlocal now
        now += seconds

    with monkeypatch.context() as patch:
        patch.setattr(time, "time", lambda: now)
        yield advance


@pytest.mark.parametrize("store", STORES)
def test_any_order_of_operations(store: str, tmp_path: Path, pass_time: Callable[[float], None]) -> None:
    store_machine(lambda: STORES[store](tmp_path), pass_time, examples=25)().runTest()
