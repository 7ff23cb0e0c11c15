"""A database with replicas: which of them answers, and what happens when one does not."""

from __future__ import annotations

import asyncio
import socket
import time
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from cachemw.backends._db.calls import Call, Outcome
from cachemw.backends.db import DatabaseCache
from cachemw.errors import BackendUnavailable
from tests.servers import free_port, postgresql_url, shared, start_postgresql


class Clock:
    now = 1000.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    clock = Clock()
    monkeypatch.setattr("cachemw.backends._db.replicas.monotonic", clock)
    return clock


@pytest.fixture
def urls(tmp_path: Path) -> list[str]:
    """The primary's and two replicas'; each holds its own name as "key"."""
    urls = []
    for name in ("primary", "one", "two"):
        urls.append(f"sqlite:///{tmp_path / name}")
        cache = DatabaseCache(urls[-1], {})
        cache.set("key", name)
        cache.write_records([("page", name.encode(), 100.0)])
        cache.close()
    return urls


@pytest.fixture
def open_cache(urls: list[str]) -> Iterator[Callable[..., DatabaseCache]]:
    made: list[DatabaseCache] = []

    def make(*readers: str) -> DatabaseCache:
        made.append(DatabaseCache(urls[0], {"OPTIONS": {"read": readers or urls[1:]}}))
        return made[-1]

    yield make
    for cache in made:
        cache.close()


def asked(cache: DatabaseCache, monkeypatch: pytest.MonkeyPatch) -> Counter[int]:
    """How often each replica was asked."""
    counts: Counter[int] = Counter()
    for number, store in enumerate(cache._replicas.stores):

        def run(call: Call, number: int = number, run: Callable[[Call], Outcome] = store.run) -> Outcome:
            counts[number] += 1
            return run(call)

        monkeypatch.setattr(store, "run", run)
    return counts


def both(cache: DatabaseCache) -> set[Any]:
    """What the two halves read."""
    return {cache.get("key"), asyncio.run(cache.aget("key"))}


def test_what_one_replica_cannot_say_another_says(
    open_cache: Callable[..., DatabaseCache], urls: list[str], tmp_path: Path
) -> None:
    cache = open_cache(f"sqlite:///{tmp_path}/absent/file", urls[1])
    for _ in range(10):
        assert both(cache) == {"one"}
    assert cache.get_many(["key"]) == {"key": "one"}
    assert cache.has_key("key")
    assert cache.read_records(["page"]) == [b"one"]
    assert asyncio.run(cache.aread_records(["page"])) == [b"one"]


def test_what_no_replica_can_say_the_primary_says(open_cache: Callable[..., DatabaseCache], tmp_path: Path) -> None:
    cache = open_cache(f"sqlite:///{tmp_path}/absent/file", f"sqlite:///{tmp_path}/absent/too")
    for _ in range(10):
        assert both(cache) == {"primary"}


def test_a_replica_without_the_table_does_not_answer_for_it(
    open_cache: Callable[..., DatabaseCache], tmp_path: Path
) -> None:
    cache = open_cache(f"sqlite:///{tmp_path}/empty")
    assert both(cache) == {"primary"}


def test_a_replica_still_answers_when_the_primary_does_not(urls: list[str], tmp_path: Path) -> None:
    cache = DatabaseCache(f"sqlite:///{tmp_path}/absent/file", {"OPTIONS": {"read": urls[1]}})
    assert both(cache) == {"one"}
    with pytest.raises(BackendUnavailable):
        cache.set("key", 1)
    cache.close()


def test_nothing_answers_where_nobody_does(tmp_path: Path) -> None:
    cache = DatabaseCache(f"sqlite:///{tmp_path}/absent/file", {"OPTIONS": {"read": f"sqlite:///{tmp_path}/absent/2"}})
    for _ in range(2):
        with pytest.raises(BackendUnavailable):
            cache.get("key")
        with pytest.raises(BackendUnavailable):
            asyncio.run(cache.aget("key"))


def test_one_that_failed_rests_longer_each_time_and_is_asked_by_one(
    open_cache: Callable[..., DatabaseCache], tmp_path: Path, clock: Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    cache = open_cache(f"sqlite:///{tmp_path}/absent/file")
    counts = asked(cache, monkeypatch)
    for rest in (1.0, 2.0, 4.0, 8.0, 16.0, 30.0, 30.0):
        for _ in range(3):
            assert cache.get("key") == "primary"
        assert counts[0] == 1, "the others passed it by"
        counts.clear()
        clock.now += rest - 0.01
        assert cache.get("key") == "primary"
        assert counts[0] == 0
        clock.now += 0.02


def test_while_one_asks_whether_it_is_back_the_others_pass_it_by(
    open_cache: Callable[..., DatabaseCache], tmp_path: Path, clock: Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    cache = open_cache(f"sqlite:///{tmp_path}/absent/file")
    assert cache.get("key") == "primary"
    clock.now += 1.1
    (store,) = cache._replicas.stores
    meanwhile: list[Any] = []
    run = store.run

    def slow(call: Call) -> Outcome:
        meanwhile.append(cache.get("key"))
        return run(call)

    monkeypatch.setattr(store, "run", slow)
    assert cache.get("key") == "primary"
    assert meanwhile == ["primary"]


def test_one_that_is_back_answers_again(
    open_cache: Callable[..., DatabaseCache], urls: list[str], tmp_path: Path, clock: Clock
) -> None:
    (tmp_path / "one").rename(tmp_path / "away")
    (tmp_path / "one").mkdir()
    cache = open_cache(urls[1])
    assert both(cache) == {"primary"}
    (tmp_path / "one").rmdir()
    (tmp_path / "away").rename(tmp_path / "one")
    assert both(cache) == {"primary"}, "it rests"
    clock.now += 1.1
    assert both(cache) == {"one"}
    assert cache._replicas._replicas[0].rest == 0


def test_what_decides_over_a_purge_is_read_from_the_primary(open_cache: Callable[..., DatabaseCache]) -> None:
    cache = open_cache()
    assert cache.read_latest(["page", "absent"]) == [b"primary", None]
    assert asyncio.run(cache.aread_latest(["page"])) == [b"primary"]
    record = [("new", b"new", 100.0)]
    assert cache.commit_records(record, ["page"], []) == ([], [b"primary"])
    assert asyncio.run(cache.acommit_records(record, ["page"], [])) == ([], [b"primary"])
    assert cache.add_and_read("lease", b"x", 10.0, ["page"]) == (True, [b"primary"])
    assert asyncio.run(cache.aadd_and_read("lease", b"x", 10.0, ["page"])) == (False, [b"primary"])


@pytest.fixture
def silent() -> Iterator[int]:
    """A port that takes connections and never says a word."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        yield listener.getsockname()[1]


def test_a_server_that_is_gone_or_hangs_costs_one_call_a_delay_and_none_an_answer(silent: int) -> None:
    url = postgresql_url(shared(start_postgresql))
    primary = DatabaseCache(url, {"OPTIONS": {"table": "replicated", "create": True, "deadline": 5}})
    primary.set("key", "primary")
    user, _, place = url.rpartition("@")
    base = place.partition("/")[2]
    for port in (silent, free_port()):
        reader = f"{user}@127.0.0.1:{port}/{base}"
        options = {"table": "replicated", "deadline": 0.3, "read": reader}
        cache = DatabaseCache(url, {"OPTIONS": options})
        began = time.monotonic()
        assert cache.get("key") == "primary"
        assert time.monotonic() - began < 3
        assert cache._replicas._replicas[0].rest == 1
        assert cache.get("key") == "primary"

        async def use(options: dict[str, Any] = options) -> None:
            cache = DatabaseCache(url, {"OPTIONS": options})
            assert await cache.aget("key") == "primary"
            assert cache._replicas._replicas[0].rest == 1
            await cache.aclose()

        asyncio.run(use())
        cache.close()
    primary.close()
