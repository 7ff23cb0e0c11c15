"""Whatever stands under a page's keys that is not this cache's own record is a miss, is replaced, and is never run."""

from __future__ import annotations

import os
import pickle
import random
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from cachemw.backends.base import BaseCache
from cachemw.backends.db import DatabaseCache
from cachemw.backends.filebased import FileBasedCache
from tests.faults.site import INTERFACES, Site
from tests.faults.stores import NETWORKED, open_networked
from tests.servers import shared


def _networked(name: str) -> Callable[[Path], BaseCache]:
    return lambda path: open_networked(name, shared(NETWORKED[name][0]).address, patient=True)


STORES: dict[str, Callable[[Path], BaseCache]] = {
    "filebased": lambda path: FileBasedCache(str(path / "cache"), {}),
    "sqlite": lambda path: DatabaseCache(f"sqlite:///{path}/cache.db", {}),
    **{name: _networked(name) for name in NETWORKED},
}


class Bomb:
    """Makes a directory when it is unpickled."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> Any:
        return os.mkdir, (str(self.path),)


def _other_version(payload: bytes) -> bytes:
    return payload[:3] + bytes([payload[3] + 1]) + payload[4:]


def _bit_flipped(payload: bytes) -> bytes:
    middle = len(payload) // 2
    return payload[:middle] + bytes([payload[middle] ^ 1]) + payload[middle + 1 :]


#: From a record's own bytes and the path of the bomb, what stands in its place.
SPOILS: dict[str, Callable[[bytes, Path], bytes]] = {
    "random": lambda payload, bomb: random.Random(1).randbytes(len(payload)),
    "empty": lambda payload, bomb: b"",
    "cut": lambda payload, bomb: payload[:-1],
    "longer": lambda payload, bomb: payload + b"\0",
    "bit flipped": lambda payload, bomb: _bit_flipped(payload),
    "other version": lambda payload, bomb: _other_version(payload),
    "pickle": lambda payload, bomb: pickle.dumps(Bomb(bomb)),
    "pickle of Django's": lambda payload, bomb: pickle.dumps(("Wed", Bomb(bomb)), 2),
    "text": lambda payload, bomb: b"<html>not a record</html>",
}


@pytest.fixture(params=STORES)
def site(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Site]:
    cache = STORES[request.param](tmp_path)
    cache.clear()
    with Site("wsgi", cache) as site:
        yield site


def spoil(site: Site, how: Callable[[bytes, Path], bytes], bomb: Path) -> int:
    """Put something else under every key that the site has asked for; how many there were."""
    keys = sorted(site.asked)
    found = site.cache.read_latest(keys)
    for key, payload in zip(keys, found, strict=True):
        site.cache.write_records([(key, how(payload or b"cmw\x01" * 9, bomb), 60.0)])
    return len(keys)


@pytest.mark.parametrize("how", SPOILS)
def test_garbage_under_every_key_is_a_miss_and_is_replaced(site: Site, how: str, tmp_path: Path) -> None:
    site.fields["/vary"] = [("Vary", "Accept-Language")]
    site.fields["/tags"] = [("Cache-Tag", "news")]
    paths = ("/plain", "/vary", "/tags")
    for path in paths:
        site.get(path)
        site.until_hit(path)
    bomb = tmp_path / "bomb"
    assert spoil(site, SPOILS[how], bomb) >= 8
    if hasattr(site.cache, "_tier"):
        site.cache._tier.flush()  # this process may still know better
    began = time.monotonic()
    for path in paths:
        site.get(path)
        site.post(path)
        site.get(path)
        site.until_hit(path)
    assert time.monotonic() - began < 5  # no lease of nobody's was waited for
    assert not bomb.exists()
    assert site.pages.codec is not None
    assert site.pages.codec.refused.total() >= 3
    assert not site.pages.breaker.open


@pytest.mark.parametrize("interface", INTERFACES)
def test_garbage_under_the_lease_is_not_waited_for(interface: str) -> None:
    with Site(interface, STORES["redis"](Path())) as site:
        site.cache.clear()
        taken: list[str] = []
        add, aadd = site.cache.add_and_read, site.cache.aadd_and_read

        def spoiled(key: str, payload: Any, timeout: float | None, latest: Any) -> tuple[bool, list[Any]]:
            taken.append(key)
            site.cache.write_records([(key, b"garbage", None)])
            return add(key, payload, timeout, latest)

        async def aspoiled(key: str, payload: Any, timeout: float | None, latest: Any) -> tuple[bool, list[Any]]:
            taken.append(key)
            site.cache.write_records([(key, b"garbage", None)])
            return await aadd(key, payload, timeout, latest)

        site.cache.add_and_read, site.cache.aadd_and_read = spoiled, aspoiled  # type: ignore[method-assign]
        assert site.get("/").seconds < 1
        assert len(taken) == 1
        site.until_hit("/")


def test_pages_of_another_secret_or_of_none_are_not_used(tmp_path: Path) -> None:
    def opened(**params: Any) -> Site:
        return Site("wsgi", FileBasedCache(str(tmp_path), params))

    with opened() as unsigned:
        unsigned.get("/")
        unsigned.until_hit("/")
    with opened(SECRET="new") as signed:
        assert not signed.get("/").hit  # whoever may write to the directory may not forge a page
        signed.until_hit("/")
    with opened(SECRET=["newer", "new"]) as rotated:
        assert rotated.get("/").hit
    with opened(SECRET="other") as other:
        assert not other.get("/").hit
    with opened() as unsigned:
        assert not unsigned.get("/").hit
