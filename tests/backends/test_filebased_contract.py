"""The file store keeps the contract of all stores."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from cachemw.backends.base import BaseCache
from cachemw.backends.filebased import FileBasedCache
from cachemw.testing import BackendContract
from cachemw.testing._face import MakeCache


class TestFiles(BackendContract):
    shortest_timeout = 0.02

    @pytest.fixture
    def make_cache(self, tmp_path: Path) -> MakeCache:
        def make(**params: Any) -> BaseCache:
            return FileBasedCache(tmp_path / "cache", params)

        return make
