"""The file store's bodies of large pages: files of their own, which come before their records and go after them.

What is small here is large enough: whoever writes an `Apart` decides that its body has a file of its own.
"""

from __future__ import annotations

import asyncio
import errno
import os
import shutil
import signal
import socket
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pytest

from cachemw.backends._file import entry, large, sweep
from cachemw.backends._file.files import GRACE
from cachemw.backends._file.large import FiledBody
from cachemw.backends.filebased import FileBasedCache
from cachemw.codec import Apart
from cachemw.errors import BackendUnavailable
from tests.backends.file_store import bodies, entries, in_child, open_to_others, state, temporaries

BODY = b"the body of a page" * 1000


@dataclass
class Record:
    """What the page cache would make of it."""

    head: bytes
    body: Any

    def replace(self, **changes: Any) -> Record:
        return replace(self, **changes)


def decode(key: str, payload: Any) -> Record | None:
    return None if payload.body is None else Record(payload.payload, payload.body)


@pytest.fixture
def directory(tmp_path: Path) -> Path:
    return open_to_others(tmp_path) / "cache"


@pytest.fixture
def cache(directory: Path) -> FileBasedCache:
    return FileBasedCache(directory, {})


@pytest.fixture
def later(monkeypatch: pytest.MonkeyPatch) -> Callable[[float], None]:
    """Let so many seconds go by."""

    def go_by(seconds: float) -> None:
        now = time.time() + seconds
        monkeypatch.setattr(time, "time", lambda: now)

    return go_by


def store(cache: FileBasedCache, key: str = "page", body: Any = BODY, timeout: float | None = 1000.0) -> Path:
    """Store a page; returns its body's file, which nobody has read."""
    before = bodies(Path(str(cache.location)))
    assert cache.write_records([(key, Apart(b"head", body), timeout)]) == []
    (file,) = set(bodies(Path(str(cache.location)))) - set(before)
    return file


def rest(file: Path) -> Path:
    """As if nobody had read it: some systems note that, others do not."""
    written = file.stat().st_mtime_ns
    os.utime(file, ns=(written, written))
    return file


def read(cache: FileBasedCache, key: str = "page") -> Record | None:
    (found,) = cache.read_decoded([key], decode)
    assert found is None or isinstance(found, Record)
    return found


def lend(cache: FileBasedCache, key: str = "page") -> str:
    """A server is told the path."""
    found = read(cache, key)
    assert found is not None
    path: str | None = found.body.path()
    assert path is not None
    return path


def look_everywhere(cache: FileBasedCache) -> None:
    """What the housekeeping does, shard by shard."""
    for shard in cache._shards.existing():
        cache._sweeper._scan(shard, time.time())


def held(cache: FileBasedCache) -> tuple[int, int]:
    """Entries, and bytes of all files, as they themselves say."""
    directory = Path(str(cache.location))
    found = entries(directory)
    return len(found), sum(path.stat().st_size for path in [*found, *bodies(directory)])


# What is stored


def test_a_body_has_a_file_to_itself(cache: FileBasedCache, directory: Path) -> None:
    file = store(cache)
    (entry,) = entries(directory)
    assert file.parent == entry.parent
    assert file.read_bytes() == BODY
    assert file.stat().st_mode & 0o777 == 0o600
    assert file.stat().st_ino != entry.stat().st_ino
    found = read(cache)
    assert found is not None
    assert (found.head, bytes(found.body), len(found.body)) == (b"head", BODY, len(BODY))
    assert cache._shards.usage.totals() == held(cache)
    assert not temporaries(directory)


def test_no_name_is_used_twice(cache: FileBasedCache) -> None:
    assert len({rest(store(cache)).name for _ in range(20)}) == 20


def test_tasks_read_it_too(cache: FileBasedCache) -> None:
    store(cache)
    for _ in range(3):
        (found,) = asyncio.run(cache.aread_decoded(["page"], decode))
        assert bytes(found.body) == BODY


def test_a_body_is_read_for_the_first_time_in_a_thread(cache: FileBasedCache, monkeypatch: pytest.MonkeyPatch) -> None:
    """Megabytes would hold up the event loop."""
    readers: list[threading.Thread] = []
    reader = FiledBody.reader

    def noted(body: FiledBody) -> Any:
        readers.append(threading.current_thread())
        return reader(body)

    monkeypatch.setattr(FiledBody, "reader", noted)
    store(cache)
    for _ in range(3):
        asyncio.run(cache.aread_decoded(["page"], decode))
    assert len(readers) == 1, "it is known by then"
    assert readers[0] is not threading.main_thread()


def test_other_pages_are_read_beside_it(cache: FileBasedCache) -> None:
    store(cache)
    cache.write_records([("small", b"small", 100.0)])
    found = cache.read_decoded(["small", "page", "absent"], lambda key, payload: payload)
    assert found[0] == b"small"
    assert bytes(found[1].body) == BODY
    assert found[2] is None


def test_who_reads_the_records_themselves_gets_the_body_with_them(cache: FileBasedCache) -> None:
    """As a soft purge does, which stores them again."""
    store(cache)
    (found,) = cache.read_latest(["page"])
    assert (found.payload, bytes(found.body)) == (b"head", BODY)


def test_a_page_of_the_form_from_before_is_read(cache: FileBasedCache) -> None:
    cache.write_records([("page", BODY, 100.0)])
    assert cache.read_decoded(["page"], lambda key, payload: payload) == [BODY]


def test_touching_leaves_the_body_where_it_is(cache: FileBasedCache) -> None:
    store(cache)
    made = cache.page_key("page")
    assert cache._touch(made, 5000.0)
    found = read(cache)
    assert found is not None
    assert bytes(found.body) == BODY
    assert cache._has(made)
    with pytest.raises(TypeError, match="not an integer"):
        cache._incr(made, 1)


def test_a_body_that_is_stored_again_is_not_written_again(cache: FileBasedCache, directory: Path) -> None:
    first = store(cache)
    found = read(cache)
    assert found is not None
    rest(first)
    second = store(cache, body=found.body)
    assert not first.exists()
    assert second.stat().st_ino == os.fstat(found.body._descriptor).st_ino
    assert bytes(read(cache).body) == BODY  # type: ignore[union-attr]
    assert cache._shards.usage.totals() == held(cache)
    store(cache, "another", found.body)  # in another shard
    second.unlink()
    assert bytes(read(cache, "another").body) == BODY  # type: ignore[union-attr]
    assert not temporaries(directory)


@pytest.mark.parametrize("in_its_place", ["nothing", "another file", "links are refused"])
def test_a_body_whose_file_is_gone_is_written_again(
    cache: FileBasedCache, in_its_place: str, directory: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = store(cache)
    found = read(cache)
    assert found is not None
    if in_its_place == "links are refused":

        def refused(*args: Any, **kwargs: Any) -> None:
            raise OSError(errno.EPERM, "no links here")

        monkeypatch.setattr(os, "link", refused)
    else:
        file.unlink()
    if in_its_place == "another file":
        file.write_bytes(b"?" * len(BODY))
    store(cache, "again", found.body)
    assert bytes(read(cache, "again").body) == BODY  # type: ignore[union-attr]
    assert not temporaries(directory)


# Bodies that are not there, or not what was stored


def _delete(file: Path) -> None:
    file.unlink()


def _truncate(file: Path) -> None:
    os.truncate(file, len(BODY) - 1)


def _append(file: Path) -> None:
    with file.open("ab") as end:
        end.write(b"more")


def _spoil(file: Path) -> None:
    with file.open("r+b") as begin:
        begin.write(b"T")


def _symlink(file: Path) -> None:
    file.rename(file.with_name("elsewhere"))
    file.symlink_to("elsewhere")


def _folder(file: Path) -> None:
    file.unlink()
    file.mkdir()
    (file / "somebody's").write_text("file")


def _pipe(file: Path) -> None:
    file.unlink()
    os.mkfifo(file)


def _socket(file: Path) -> None:
    file.unlink()
    here = os.getcwd()
    os.chdir(file.parent)  # the path may be longer than a socket's
    try:
        socket.socket(socket.AF_UNIX).bind(file.name)
    finally:
        os.chdir(here)


FAULTS = [_delete, _truncate, _append, _spoil, _symlink, _folder, _pipe, _socket]


@pytest.mark.filterwarnings("ignore::ResourceWarning")  # of the socket
@pytest.mark.parametrize("known", [False, True], ids=["never seen", "seen before"])
@pytest.mark.parametrize("fault", FAULTS, ids=lambda fault: fault.__name__[1:])
def test_a_page_without_its_body_is_missing(
    cache: FileBasedCache, directory: Path, fault: Callable[[Path], None], known: bool
) -> None:
    file = store(cache)
    if known:
        for _ in range(3):
            assert read(cache) is not None
    os.utime(file, ns=(0, file.stat().st_mtime_ns))
    fault(file)
    told: list[Any] = []
    assert cache.read_decoded(["page"], lambda key, payload: told.append(payload)) == [None]
    assert [payload.body for payload in told] == [None], "the page cache counts it"
    assert not entries(directory), "nor does anybody come across it again"
    assert read(cache) is None
    before = state(directory)
    store(cache)
    assert bytes(read(cache).body) == BODY  # type: ignore[union-attr]
    look_everywhere(cache)
    if fault in (_symlink, _folder):
        untouched = {name: data for name, data in before.items() if not name.endswith("usage")}
        assert untouched.items() <= state(directory).items(), "nothing is removed that is no file of ours"


@pytest.mark.parametrize("fault", FAULTS[:3], ids=lambda fault: fault.__name__[1:])
def test_housekeeping_finds_pages_without_their_bodies(
    cache: FileBasedCache, directory: Path, fault: Callable[[Path], None]
) -> None:
    fault(rest(store(cache)))
    cache.write_records([("small", b"small", 100.0)])
    look_everywhere(cache)
    assert len(entries(directory)) == 1
    assert cache._shards.usage.totals() == held(cache)
    assert cache.read_records(["page", "small"]) == [None, b"small"]


def test_a_body_that_may_not_be_read_is_missing(directory: Path) -> None:
    def use() -> None:
        cache = FileBasedCache(directory.parent / "theirs", {})
        file = store(cache)
        file.chmod(0o000)
        assert cache.read_decoded(["page"], lambda key, payload: payload.body) == [None]
        store(cache)
        assert bytes(read(cache).body) == BODY  # type: ignore[union-attr]

    directory.parent.chmod(0o777)
    in_child(use, user="nobody")


def test_a_disk_that_cannot_read_it_is_no_store_that_does_not_work(
    cache: FileBasedCache, monkeypatch: pytest.MonkeyPatch
) -> None:
    store(cache)
    real = os.pread

    def broken(descriptor: int, size: int, offset: int) -> bytes:
        if size > 1000:
            raise OSError(errno.EIO, "Input/output error")
        return real(descriptor, size, offset)

    with monkeypatch.context() as patch:
        patch.setattr(os, "pread", broken)
        assert cache.read_decoded(["page"], lambda key, payload: payload.body) == [None]


def test_too_many_open_files_cost_no_page(cache: FileBasedCache, monkeypatch: pytest.MonkeyPatch) -> None:
    store(cache)
    real = os.open

    def crowded(path: Any, *args: Any, **kwargs: Any) -> int:
        if str(path).endswith("-body"):
            raise OSError(errno.EMFILE, "Too many open files")
        return real(path, *args, **kwargs)

    with monkeypatch.context() as patch:
        patch.setattr(os, "open", crowded)
        with pytest.raises(BackendUnavailable, match="Too many open files"):
            read(cache)
    assert read(cache) is not None


def test_a_record_that_is_damaged_leads_nowhere(cache: FileBasedCache, directory: Path) -> None:
    store(cache)
    (entry,) = entries(directory)
    data = entry.read_bytes()
    for damaged in (data[:-1] + b"?", data[:-5]):
        entry.write_bytes(damaged)
        assert read(cache) is None
        assert not entry.exists()
        store(cache)
    look_everywhere(cache)
    assert len(bodies(directory)) == 1


def test_a_record_that_names_no_body_is_none(cache: FileBasedCache, directory: Path) -> None:
    """Whatever its checksums say."""
    place = cache._shards.place(cache.page_key("page"))
    for value in (b"", b"too short"):
        store(cache)
        head = entry.pack(
            place.key, expires=1e12, number=None, size=len(value), crc=entry.checksum(value), is_filed=True
        )
        Path(place.path).write_bytes(head + value)
        assert read(cache) is None
        assert not entries(directory)
        look_everywhere(cache)
        assert not bodies(directory)


def test_what_is_known_of_many_bodies_is_bounded(cache: FileBasedCache, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(large, "_MOST", 3)
    for number in range(8):
        store(cache, f"page{number}", b"body")
        assert read(cache, f"page{number}") is not None
        assert len(cache._bodies._verified) <= 3
    assert bytes(read(cache, "page0").body) == b"body"  # type: ignore[union-attr]


def test_a_page_is_added_where_none_is(directory: Path) -> None:
    cache = bounded(directory, 3 * len(BODY))
    assert cache.add_record("page", Apart(b"head", BODY), 100.0)
    assert not cache.add_record("page", Apart(b"new", BODY), 100.0)
    assert len(bodies(directory)) == 1
    assert not temporaries(directory)
    lend(cache)
    store(cache, "other")
    lend(cache, "other")
    assert not cache.add_record("no room", Apart(b"head", BODY), 100.0)
    assert read(cache, "page") is not None


def test_a_page_that_is_stored_anew_between_two_looks_is_found(
    cache: FileBasedCache, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A body that is not in use goes at once, and whoever has read its record comes too late."""
    rest(store(cache))
    real = cache._bodies.open
    replaced: list[Path] = []

    def open_late(*args: Any, **kwargs: Any) -> Any:
        if not replaced:
            replaced.append(store(cache, body=BODY[::-1]))
        return real(*args, **kwargs)

    monkeypatch.setattr(cache._bodies, "open", open_late)
    found = read(cache)
    assert found is not None
    assert bytes(found.body) == BODY[::-1]
    assert found.body.path() is None, "nobody looked whether its record is still there"


@pytest.mark.parametrize("meanwhile", ["gone", "small"])
def test_a_page_that_goes_between_two_looks_is_missing(
    cache: FileBasedCache, monkeypatch: pytest.MonkeyPatch, meanwhile: str
) -> None:
    file = rest(store(cache))
    real = cache._bodies.open

    def open_late(*args: Any, **kwargs: Any) -> Any:
        file.unlink(missing_ok=True)
        cache.drop_records(["page"])
        if meanwhile == "small":
            cache.write_records([("page", b"small", 100.0)])
        return real(*args, **kwargs)

    monkeypatch.setattr(cache._bodies, "open", open_late)
    assert read(cache) is None
    if meanwhile == "small":
        assert cache.read_records(["page"]) == [b"small"]


# What a server is told


def test_a_server_is_told_a_path_that_stays_for_a_minute(
    cache: FileBasedCache, directory: Path, later: Callable[[float], None]
) -> None:
    store(cache)
    path = lend(cache)
    assert os.path.isabs(path)
    assert Path(path).read_bytes() == BODY
    assert cache.drop_records(["page"]) == 1
    assert Path(path).read_bytes() == BODY
    later(GRACE - 1)
    look_everywhere(cache)
    assert Path(path).exists()
    assert cache._shards.usage.totals() == held(cache), "and is counted"
    later(2)
    cache.set("another", 1)  # any write of this process sees to it
    assert not Path(path).exists()
    assert cache._shards.usage.totals() == held(cache)


def test_many_that_were_left_go_little_by_little(
    cache: FileBasedCache, directory: Path, later: Callable[[float], None]
) -> None:
    """A write that did it all would take long."""
    for number in range(3 * sweep._AT_ONCE):
        store(cache, f"page{number}")
        lend(cache, f"page{number}")
    cache.clear()
    later(GRACE + 1)
    before = len(bodies(directory))
    cache.set("value", 1)
    assert before - 2 * sweep._AT_ONCE <= len(bodies(directory)) < before
    for _ in range(3):
        cache.set("value", 1)
    assert not bodies(directory)


@pytest.mark.parametrize("change", ["deleted", "replaced", "replaced by a small one", "cleared", "expired"])
@pytest.mark.parametrize("lent", [False, True], ids=["at rest", "in use"])
def test_what_is_not_in_use_goes_with_its_record(
    cache: FileBasedCache, directory: Path, later: Callable[[float], None], change: str, lent: bool
) -> None:
    file = rest(store(cache, timeout=10.0))
    if lent:
        lend(cache)
    match change:
        case "deleted":
            cache.drop_records(["page"])
        case "replaced":
            cache.write_records([("page", Apart(b"head", b"new"), 100.0)])
        case "replaced by a small one":
            cache.write_records([("page", b"small", 100.0)])
            assert file.exists(), "nobody looks what a small one replaces"
            look_everywhere(cache)
        case "cleared":
            cache.clear()
        case "expired":
            later(11)
            assert read(cache) is None
    assert file.exists() == lent
    assert cache._shards.usage.totals() == held(cache)
    later(GRACE + 1)
    look_everywhere(cache)
    assert not file.exists()
    assert cache._shards.usage.totals() == held(cache)
    if change == "replaced":
        assert bytes(read(cache).body) == b"new"  # type: ignore[union-attr]


def test_what_another_process_leaves_goes_too(
    cache: FileBasedCache, directory: Path, later: Callable[[float], None]
) -> None:
    store(cache)
    lend(cache)
    in_child(cache.clear)
    assert len(bodies(directory)) == 1
    later(GRACE + 1)
    assert cache._shards.usage.occupied(), "a cull would look there"
    look_everywhere(cache)
    assert not bodies(directory)
    assert cache._shards.usage.totals() == (0, 0)


def test_whoever_removes_the_record_and_whoever_tells_the_path_see_each_other(
    cache: FileBasedCache, monkeypatch: pytest.MonkeyPatch
) -> None:
    """In every order: either the path is not told, or the file stays."""
    rest(store(cache))
    found = read(cache)
    assert found is not None
    rest(bodies(Path(str(cache.location)))[0])
    cache.drop_records(["page"])
    assert found.body.path() is None, "removed before it was noted"

    file = rest(store(cache))
    found = read(cache)
    assert found is not None
    real = os.lstat
    removed: list[bool] = []

    def remove_then_look(path: Any) -> os.stat_result:
        if not removed:
            removed.append(True)
            cache.drop_records(["page"])
        return real(path)

    with monkeypatch.context() as patch:
        patch.setattr(os, "lstat", remove_then_look)
        assert found.body.path() is None, "removed after it was noted, before the second look"
    assert file.exists(), "whoever removed it saw that it is in use"
    assert bytes(found.body) == BODY


def test_no_path_is_told_of_what_stands_in_its_place(cache: FileBasedCache) -> None:
    for fault in (_delete, _symlink, _truncate, _spoil):
        file = store(cache, fault.__name__)
        found = read(cache, fault.__name__)
        assert found is not None
        fault(file)
        assert found.body.path() is None
        assert read(cache, fault.__name__) is None


def test_no_path_is_told_where_the_time_of_use_cannot_be_noted(
    cache: FileBasedCache, monkeypatch: pytest.MonkeyPatch
) -> None:
    """On a file system without such times, or one that is read only, it could go at any time."""
    rest(store(cache))
    found = read(cache)
    assert found is not None
    rest(bodies(Path(str(cache.location)))[0])
    with monkeypatch.context() as patch:
        patch.setattr(os, "utime", lambda *args, **kwargs: None)
        assert found.body.path() is None

    def refused(*args: Any, **kwargs: Any) -> None:
        raise OSError(errno.EROFS, "Read-only file system")

    with monkeypatch.context() as patch:
        patch.setattr(os, "utime", refused)
        assert found.body.path() is None
    assert found.body.path() is not None


def test_a_clock_that_went_back_leaves_nothing_for_ever(
    cache: FileBasedCache, directory: Path, later: Callable[[float], None]
) -> None:
    store(cache, timeout=None)
    later(7200)
    lend(cache)
    later(-7200)
    cache.clear()
    assert not bodies(directory)


# A file for servers that read by themselves


def test_a_descriptor_is_of_its_own(cache: FileBasedCache) -> None:
    store(cache)
    found = read(cache)
    assert found is not None
    one, other = found.body.reader(), found.body.reader()
    assert one.fileno() == one.fileno() != other.fileno()
    assert os.read(one.fileno(), 3) == os.read(other.fileno(), 3) == BODY[:3]
    assert one.read(3) == BODY[:3], "which moves nothing for those who read otherwise"
    descriptor = one.fileno()
    one.close()
    with pytest.raises(OSError, match="Bad file descriptor"):
        os.fstat(descriptor)
    with pytest.raises(OSError, match="closed"):
        one.fileno()
    os.fstat(other.fileno())


@pytest.mark.parametrize("fault", [_delete, _symlink, _folder])
def test_without_its_file_a_body_is_read(cache: FileBasedCache, fault: Callable[[Path], None]) -> None:
    file = store(cache)
    found = read(cache)
    assert found is not None
    fault(file)
    reader = found.body.reader()
    with pytest.raises(OSError, match="by `read` alone"):
        reader.fileno()
    assert reader.read() == BODY
    reader.close()


# Bounds


def bounded(directory: Path, size: int, **options: Any) -> FileBasedCache:
    return FileBasedCache(directory, {"OPTIONS": {"max_bytes": size, **options}})


def test_bodies_count(directory: Path) -> None:
    cache = bounded(directory, 10 * len(BODY))
    for number in range(30):
        rest(store_over(cache, f"page{number}"))
        assert held(cache)[1] <= 10 * len(BODY)
        assert cache._shards.usage.totals() == held(cache)
    assert read(cache, "page29") is not None
    assert read(cache, "page0") is None


def store_over(cache: FileBasedCache, key: str) -> Path:
    """As `store`, where others go for it."""
    before = set(bodies(Path(str(cache.location))))
    assert cache.write_records([(key, Apart(b"head", BODY), 1000.0)]) == []
    (file,) = set(bodies(Path(str(cache.location)))) - before
    return file


def test_a_body_over_the_bound_is_not_stored_and_what_was_there_is_gone(directory: Path) -> None:
    cache = bounded(directory, len(BODY))
    cache.write_records([("page", b"small", 100.0)])
    assert cache.write_records([("page", Apart(b"head", BODY), 100.0)]) == ["page"]
    assert cache.read_records(["page"]) == [None]
    assert state(directory).keys() == {str(directory / "usage")}


def test_what_is_in_use_is_not_culled_and_what_finds_no_room_is_not_stored(
    directory: Path, later: Callable[[float], None]
) -> None:
    """Its record would go in vain: the body stays for a minute."""
    cache = bounded(directory, 4 * len(BODY))
    for number in range(3):
        store(cache, f"page{number}")
        lend(cache, f"page{number}")
    assert cache.write_records([("new", Apart(b"head", BODY), 100.0), ("page0", Apart(b"new", BODY), 100.0)]) == [
        "new",
        "page0",
    ]
    assert [read(cache, f"page{number}") is not None for number in range(3)] == [False, True, True]
    assert held(cache)[1] <= 4 * len(BODY)
    cache.write_records([("small", b"small", 100.0)])
    assert cache.read_records(["small"]) == [b"small"]
    later(GRACE + 1)
    store_over(cache, "new")
    assert read(cache, "new") is not None
    assert held(cache)[1] <= 4 * len(BODY)


@pytest.mark.parametrize("owned", [True, False])
def test_what_was_read_alone_makes_way(directory: Path, monkeypatch: pytest.MonkeyPatch, owned: bool) -> None:
    """Who reads has it open. Otherwise the pages of a minute would keep out those of the next."""
    cache = bounded(directory, 4 * len(BODY))
    if not owned:  # by this user: reading is then noted, and nothing fails
        real = os.open

        def guarded(path: Any, flags: int, *args: Any, **kwargs: Any) -> int:
            if flags & os.O_NOATIME:
                raise PermissionError(errno.EPERM, "not the owner", path)
            return real(path, flags, *args, **kwargs)

        monkeypatch.setattr(os, "open", guarded)
    for number in range(3):
        file = store(cache, f"page{number}")
        known = read(cache, f"page{number}")
        assert known is not None
        assert bytes(known.body) == BODY
        if owned:
            assert file.stat().st_atime_ns <= file.stat().st_mtime_ns
    if owned:
        assert cache.write_records([("new", Apart(b"head", BODY), 100.0)]) == []
        assert held(cache)[1] <= 4 * len(BODY)


def test_what_the_store_holds_is_counted_anew_with_its_bodies(cache: FileBasedCache, directory: Path) -> None:
    store(cache)
    store(cache, "another")
    cache.set("value", 1)
    known = cache._shards.usage.totals()
    assert known == held(cache)
    (directory / "usage").unlink()
    assert cache._shards.usage.totals() == known


def test_nothing_is_touched_that_has_no_name_of_ours(cache: FileBasedCache, directory: Path) -> None:
    file = store(cache)
    foreign = [file.with_name(name) for name in ("notes.cmw-body", f"{'A' * 32}.cmw-body", f"{'a' * 31}.cmw-body")]
    for path in foreign:
        path.write_text("somebody's")
    rest(file)
    cache.clear()
    look_everywhere(cache)
    assert [path.read_text() for path in foreign] == ["somebody's"] * 3
    assert not file.exists()


# Writers that do not come to their end


@pytest.fixture
def full_disk(cache: FileBasedCache, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """It takes half of a body."""
    real = os.write
    assert cache._shards.usage.totals() == (0, 0)

    def write(descriptor: int, data: Any) -> int:
        if len(data) > 1000:
            return real(descriptor, bytes(data)[: len(data) // 2 + 1])
        raise OSError(errno.ENOSPC, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(os, "write", write)
        patch.setattr(os, "writev", lambda descriptor, parts: write(descriptor, b"".join(parts)))
        yield


@pytest.mark.usefixtures("full_disk")
def test_a_disk_that_is_full_in_the_middle_of_a_body_leaves_nothing(cache: FileBasedCache, directory: Path) -> None:
    with pytest.raises(BackendUnavailable, match="No space left"):
        cache.write_records([("page", Apart(b"head", BODY), 100.0)])
    assert not [*entries(directory), *bodies(directory), *temporaries(directory)]
    assert cache._shards.usage.totals() == (0, 0)


def test_a_record_that_cannot_be_put_in_its_place_takes_its_body_along(cache: FileBasedCache, directory: Path) -> None:
    file = store(cache)
    (entry,) = entries(directory)
    entry.unlink()
    file.unlink()
    entry.mkdir()  # somebody's
    with pytest.raises(BackendUnavailable, match="directory"):
        cache.write_records([("page", Apart(b"head", BODY), 100.0)])
    assert not [*bodies(directory), *temporaries(directory)]


@pytest.mark.parametrize("renames", [0, 1], ids=["before its body is in place", "between body and record"])
def test_a_writer_that_is_killed_leaves_nothing_for_ever(
    cache: FileBasedCache, directory: Path, later: Callable[[float], None], renames: int
) -> None:
    file = rest(store(cache))
    child = os.fork()
    if child == 0:
        real, left = os.rename, [renames]

        def rename(*args: Any, **kwargs: Any) -> None:
            if not left[0]:
                os.kill(os.getpid(), signal.SIGKILL)
            left[0] -= 1
            real(*args, **kwargs)

        os.rename = rename
        cache.write_records([("page", Apart(b"new", BODY), 100.0)])
        os._exit(0)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == -signal.SIGKILL
    found = read(cache)
    assert found is not None
    assert (found.head, bytes(found.body)) == (b"head", BODY), "what was there before, whole"
    assert len(bodies(directory)) == 1 + renames
    later(1000 - 600)
    look_everywhere(cache)
    assert bodies(directory) == [file]
    assert not temporaries(directory)
    assert cache._shards.usage.totals() == held(cache)


def test_the_directory_goes_while_a_body_is_written(
    cache: FileBasedCache, directory: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = os.rename
    removed: list[bool] = []

    def rename(*args: Any, **kwargs: Any) -> None:
        if not removed:
            removed.append(True)
            shutil.rmtree(directory)
        real(*args, **kwargs)

    monkeypatch.setattr(os, "rename", rename)
    store(cache)
    assert bytes(read(cache).body) == BODY  # type: ignore[union-attr]


def test_two_writers_and_readers_at_once(cache: FileBasedCache, directory: Path) -> None:
    """Two processes that store, remove and read one page: whoever finds it finds all of one of them."""
    versions = [bytes([65 + number]) * 30_000 for number in range(4)]
    store(cache, body=versions[0])
    begin, ready = os.pipe()

    def work() -> None:
        os.read(begin, 1)
        for number in range(150):
            version = versions[(number + os.getpid()) % 4]
            cache.write_records([("page", Apart(version[:1], version), 100.0)])
            found = read(cache)
            if found is not None:
                whole = bytes(found.body)
                assert whole in versions
                assert found.head in (whole[:1], b"head")
                path = found.body.path()
                assert path is None or Path(path).read_bytes() == whole
            if number % 10 == 0:
                cache.drop_records(["page"])

    children = []
    for _ in range(2):
        children.append(os.fork())
        if children[-1] == 0:
            status = 1
            try:
                work()
                status = 0
            finally:
                os._exit(status)
    os.write(ready, b"..")
    assert [os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) for child in children] == [0, 0]
    look_everywhere(cache)
    assert cache._shards.usage.totals() == held(cache)
    for file in bodies(directory):
        rest(file)
    look_everywhere(cache)
    assert len(bodies(directory)) == len(entries(directory))
    assert not temporaries(directory)
