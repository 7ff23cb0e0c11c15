"""incr_version on every store: what ends while it is moved has ended, and is not kept for ever."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from cachemw.backends.locmem import LocMemCache
from cachemw.errors import BackendUnavailable
from tests.backends.test_contract_base import Forgetful
from tests.backends.test_pages_on_stores import STORES


@pytest.mark.parametrize("store", STORES)
def test_what_ends_while_it_is_moved_has_ended(store: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    cache = STORES[store](tmp_path)
    get, aget = cache._get_latest, cache._aget_latest

    def get_the_last(keys: Sequence[str]) -> dict[str, Any]:
        found = get(keys)
        cache._delete(keys)
        return found

    async def aget_the_last(keys: Sequence[str]) -> dict[str, Any]:
        found = await aget(keys)
        await cache._adelete(keys)
        return found

    async def move() -> None:
        assert await cache.aincr_version("moved") == 2
        await cache.aclose()

    for half in (lambda: cache.incr_version("moved"), lambda: asyncio.run(move())):
        cache.set("moved", "value", 60)
        cache.set("moved", "what was there", version=2)
        with monkeypatch.context() as patch:
            patch.setattr(cache, "_get_latest", get_the_last)
            patch.setattr(cache, "_aget_latest", aget_the_last)
            half()
        assert [cache.get("moved", version=version) for version in (1, 2)] == [None, None]
    cache.close()


def test_where_nobody_can_tell_and_nothing_is_kept_by_default_nothing_is_kept() -> None:
    """A timeout of 0 means for ever to memcached."""
    cache = Forgetful("moving", {"TIMEOUT": 0})
    cache.set("key", "value", 60)
    assert cache.incr_version("key") == 2
    assert [cache.get("key", version=version) for version in (1, 2)] == [None, None]


def test_a_store_that_fails_while_a_value_is_moved_keeps_it_no_longer(monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(self: Any, key: str) -> float:
        raise BackendUnavailable("just now")

    monkeypatch.setattr(LocMemCache, "_timeout_left", fail)
    cache = LocMemCache("moving", {"OPTIONS": {"fail_open": True}})
    cache.set("key", "value", 60)
    assert cache.incr_version("key") == 2
    assert cache.get("key", version=2) is None
