"""The file store's decoded pages: what is read over and over is remembered, and nobody can tell by the answers."""

from __future__ import annotations

import asyncio
import os
import time
from collections import Counter
from pathlib import Path
from typing import Any

import pytest

from cachemw.backends import filebased
from cachemw.backends._file.files import open_for_reading
from cachemw.backends._file.pages import clock
from cachemw.backends._file.reading import read_live
from cachemw.backends.filebased import FileBasedCache
from cachemw.errors import BackendUnavailable
from tests.backends.file_store import in_child

LATER = 60 * 10**9  # nanoseconds


def decode(key: str, payload: Any) -> Any:
    return None if payload == b"damaged" else (key, payload)


@pytest.fixture
def cache(tmp_path: Path) -> FileBasedCache:
    return FileBasedCache(tmp_path / "cache", {})


@pytest.fixture
def settled(monkeypatch: pytest.MonkeyPatch) -> None:
    """A minute has gone by since anything was written."""
    monkeypatch.setattr(filebased, "clock", lambda: clock() + LATER)


@pytest.fixture
def opened(monkeypatch: pytest.MonkeyPatch) -> Counter[str]:
    """How often the files were opened."""
    counts: Counter[str] = Counter()

    def count(path: str, **kwargs: bool) -> int | None:
        counts[path] += 1
        return open_for_reading(path, **kwargs)

    monkeypatch.setattr(filebased, "open_for_reading", count)
    return counts


def remembered(cache: FileBasedCache, key: str = "page", payload: bytes = b"old") -> Any:
    """A page that is read so often that its file is only looked at."""
    cache.write_records([(key, payload, 100.0)])
    for _ in range(3):
        (found,) = cache.read_decoded([key], decode)
    assert found == decode(key, payload)
    return found


@pytest.mark.usefixtures("settled")
def test_a_page_that_is_read_often_is_only_looked_at(cache: FileBasedCache, opened: Counter[str]) -> None:
    found = remembered(cache)
    before = opened.total()
    assert cache.known(["page"], decode) is None, "without a look"
    again = cache.read_decoded(["page", "absent"], decode)
    assert again[0] is found
    assert again[1] is None
    assert opened.total() == before + 1, "the absent one alone"


@pytest.mark.usefixtures("settled")
def test_tasks_share_what_is_remembered(cache: FileBasedCache) -> None:
    found = remembered(cache)
    assert asyncio.run(cache.aread_decoded(["page"], decode))[0] is found


@pytest.mark.usefixtures("settled")
def test_a_page_that_is_read_once_is_not_remembered(cache: FileBasedCache) -> None:
    cache.write_records([("page", b"page", 100.0)])
    first, second, third, fourth = (cache.read_decoded(["page"], decode)[0] for _ in range(4))
    assert first is not second
    assert second is third
    assert third is fourth


def test_what_was_written_a_moment_ago_is_read(cache: FileBasedCache, opened: Counter[str]) -> None:
    """Another change within the same tick of the file system's clock would look the same."""
    cache.write_records([("page", b"page", 100.0)])
    for _ in range(5):
        assert cache.read_decoded(["page"], decode) == [("page", b"page")]
    assert opened.total() == 5


@pytest.mark.usefixtures("settled")
@pytest.mark.parametrize("payload", [b"new", b"longer than before"])
def test_what_another_process_stores_is_read(cache: FileBasedCache, payload: bytes) -> None:
    remembered(cache)
    in_child(lambda: cache.write_records([("page", payload, 100.0)]))
    assert cache.read_decoded(["page"], decode) == [("page", payload)]


@pytest.mark.usefixtures("settled")
def test_what_another_process_removes_is_gone(cache: FileBasedCache) -> None:
    remembered(cache)
    in_child(lambda: cache.drop_records(["page"]))
    assert cache.read_decoded(["page"], decode) == [None]
    remembered(cache)
    in_child(cache.clear)
    assert cache.read_decoded(["page"], decode) == [None]


@pytest.mark.usefixtures("settled")
def test_another_directory_in_the_place_of_the_first(cache: FileBasedCache, tmp_path: Path) -> None:
    remembered(cache)
    (tmp_path / "cache").rename(tmp_path / "away")
    assert cache.read_decoded(["page"], decode) == [None]


@pytest.mark.usefixtures("settled")
def test_a_new_timeout_counts(cache: FileBasedCache, monkeypatch: pytest.MonkeyPatch) -> None:
    remembered(cache)
    assert cache._touch(cache.page_key("page"), 1000.0)
    now = time.time() + 101
    monkeypatch.setattr(time, "time", lambda: now)
    assert cache.read_decoded(["page"], decode) == [("page", b"old")]


@pytest.mark.usefixtures("settled")
def test_what_is_remembered_expires(cache: FileBasedCache, monkeypatch: pytest.MonkeyPatch) -> None:
    remembered(cache)
    now = time.time() + 101
    monkeypatch.setattr(time, "time", lambda: now)
    assert cache.read_decoded(["page"], decode) == [None]
    assert not Path(cache._shards.place(cache.page_key("page")).path).exists(), "and its file goes"


@pytest.mark.usefixtures("settled")
def test_a_file_that_is_damaged_later_is_read(cache: FileBasedCache) -> None:
    remembered(cache)
    path = Path(cache._shards.place(cache.page_key("page")).path)
    whole = path.read_bytes()
    path.write_bytes(whole[:-1])
    assert cache.read_decoded(["page"], decode) == [None]
    assert not path.exists()
    os.mkdir(path)
    assert cache.read_decoded(["page"], decode) == [None]


@pytest.mark.usefixtures("settled")
def test_a_link_is_not_followed(cache: FileBasedCache, tmp_path: Path) -> None:
    remembered(cache)
    path = Path(cache._shards.place(cache.page_key("page")).path)
    path.rename(tmp_path / "entry")
    path.symlink_to(tmp_path / "entry")
    assert cache.read_decoded(["page"], decode) == [None]


@pytest.mark.usefixtures("settled")
def test_another_page_cache_decodes_for_itself(cache: FileBasedCache) -> None:
    remembered(cache)
    assert cache.read_decoded(["page"], lambda key, payload: payload) == [b"old"]


@pytest.mark.usefixtures("settled")
def test_what_cannot_be_decoded_is_none_and_not_remembered(cache: FileBasedCache, opened: Counter[str]) -> None:
    cache.write_records([("page", b"damaged", 100.0)])
    for _ in range(4):
        assert cache.read_decoded(["page"], decode) == [None]
    assert opened.total() == 4


def test_a_number_is_no_page(cache: FileBasedCache) -> None:
    cache._set([(cache.page_key("number"), 7, None)])
    assert cache.read_decoded(["number"], decode) == [None]


def test_a_header_caught_half_written_is_read_again(cache: FileBasedCache, monkeypatch: pytest.MonkeyPatch) -> None:
    cache.write_records([("page", b"page", 100.0)])
    cache._set([(cache.page_key("number"), 7, None)])
    live = read_live
    for key, expected in (("page", ("page", b"page")), ("number", None)):
        path = Path(cache._shards.place(cache.page_key(key)).path)
        whole = path.read_bytes()
        path.write_bytes(whole[:16] + b"\xff" + whole[17:])

        def mend(*args: Any, path: Path = path, whole: bytes = whole, **kwargs: Any) -> Any:
            found = live(*args, **kwargs)
            path.write_bytes(whole)  # as the one who rewrites it goes on
            return found

        monkeypatch.setattr(filebased, "read_live", mend)
        assert cache.read_decoded([key], decode) == [expected]


@pytest.mark.usefixtures("settled")
def test_a_directory_that_does_not_work_is_backend_unavailable(cache: FileBasedCache, tmp_path: Path) -> None:
    remembered(cache)
    shard = Path(cache._shards.place(cache.page_key("page")).path).parent
    shard.rename(tmp_path / "away")
    shard.write_text("no directory")
    with pytest.raises(BackendUnavailable, match="does not work"):
        cache.read_decoded(["page"], decode)


@pytest.mark.usefixtures("settled")
def test_a_page_that_would_push_out_all_others_is_read_each_time(cache: FileBasedCache, opened: Counter[str]) -> None:
    cache.write_records([("large", b"x" * 3_000_000, 100.0)])
    for _ in range(4):
        cache.read_decoded(["large"], decode)
    assert opened.total() == 4
