"""The database store keeps the contract of all stores, on every kind of database."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from cachemw.backends.base import BaseCache
from cachemw.backends.db import DatabaseCache
from cachemw.testing import BackendContract
from cachemw.testing._face import MakeCache
from tests.servers import mariadb_url, postgresql_url, shared, start_mariadb, start_postgresql


def maker(url: str) -> MakeCache:
    """Makes caches with a deadline that a busy machine keeps."""

    def make(**params: Any) -> BaseCache:
        options = {"table": "the contract", "create": True, "deadline": 5}
        return DatabaseCache(url, {**params, "OPTIONS": {**options, **params.get("OPTIONS", {})}})

    return make


class TestSQLite(BackendContract):
    @pytest.fixture
    def make_cache(self, tmp_path: Path) -> MakeCache:
        return maker(f"sqlite:///{tmp_path / 'cache.sqlite3'}")


class TestPostgreSQL(BackendContract):
    shortest_timeout = 0.3  # two calls of a busy server fit into it

    @pytest.fixture
    def make_cache(self) -> MakeCache:
        return maker(postgresql_url(shared(start_postgresql)))


class TestMariaDB(BackendContract):
    shortest_timeout = 0.3

    @pytest.fixture
    def make_cache(self) -> MakeCache:
        return maker(mariadb_url(shared(start_mariadb)))
