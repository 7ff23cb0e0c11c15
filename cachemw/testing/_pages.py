"""Pages' records: full keys of any length, payloads that are never serialized."""

from __future__ import annotations

from typing import Any

import pytest

from cachemw.testing._face import Connect, Contract, Face

__all__ = ["PageContract"]

RESOURCE = "s4:httph11:example.orgp5:/page" + "q" * 3000
INDEX = RESOURCE
VARIANT = f"{RESOURCE}\x00accept-language: dé\r\n\x00generation"
OTHER = "s4:httph11:example.orgp1:/"


class Record:
    """Stands for a decoded page."""

    def __init__(self, body: bytes) -> None:
        self.body = body


def payload(cache: Face, body: bytes) -> Any:
    """What a page's record is in this store."""
    return Record(body) if cache.cache.by_reference else body


def same(cache: Face, found: Any, stored: Any) -> bool:
    """The very object where records are kept by reference, else equal bytes."""
    return found is stored if cache.cache.by_reference else type(found) is bytes and found == stored


class PageContract(Contract):
    def test_records_come_back_in_the_order_of_their_keys(self, cache: Face) -> None:
        index, variant = payload(cache, b"\x00index\xff"), payload(cache, b"variant" * 1000)
        assert cache.write_records([(INDEX, index, 100.0), (VARIANT, variant, None)]) == []
        found = cache.read_records([VARIANT, OTHER, INDEX, VARIANT])
        assert found[1] is None
        assert same(cache, found[0], variant)
        assert same(cache, found[2], index)
        assert same(cache, found[3], variant)
        assert cache.read_records([]) == []
        assert cache.write_records([]) == []

    def test_records_that_look_like_numbers_or_nothing_stay_bytes(self, cache: Face) -> None:
        if not cache.cache.by_reference:
            for body in (b"\x00", bytes(range(256)), b"\r\nEND\r\n"):
                cache.write_records([(OTHER, body, 10.0)])
                assert cache.read_records([OTHER]) == [body]

    def test_dropping_says_how_many_there_were(self, cache: Face) -> None:
        cache.write_records([(INDEX, payload(cache, b"1x"), None), (VARIANT, payload(cache, b"2x"), None)])
        assert cache.drop_records([INDEX, OTHER]) == 1
        assert cache.read_records([INDEX])[0] is None
        assert cache.read_records([VARIANT])[0] is not None
        assert cache.drop_records([INDEX]) == 0
        assert cache.drop_records([]) == 0

    def test_a_commit_writes_then_looks_then_drops(self, cache: Face) -> None:
        old, index, variant, mark = (payload(cache, body) for body in (b"old", b"index", b"variant", b"mark"))
        cache.write_records([(OTHER, old, None), (INDEX, old, None)])
        writes = [(INDEX, index, 100.0), (VARIANT, variant, None), (OTHER + "\x00ended", mark, 0)]
        failed, found = cache.commit_records(writes, [OTHER, INDEX, OTHER + "\x00M"], [OTHER])
        assert failed == []
        assert same(cache, found[0], old)
        assert same(cache, found[1], index)
        assert found[2] is None
        found = cache.read_records([VARIANT, INDEX, OTHER])
        assert same(cache, found[0], variant)
        assert same(cache, found[1], index)
        assert found[2] is None
        assert cache.commit_records([(OTHER, old, 5.0)], [], []) == ([], [])
        assert cache.commit_records([], [OTHER + "\x00M"], [INDEX, VARIANT]) == ([], [None])
        assert cache.commit_records([], [], []) == ([], [])
        found = cache.read_records([OTHER, INDEX, VARIANT])
        assert same(cache, found[0], old)
        assert found[1:] == [None, None]

    def test_adding_is_for_the_first(self, cache: Face) -> None:
        first, second = payload(cache, b"first"), payload(cache, b"second")
        assert cache.add_record(VARIANT, first, 100.0) is True
        assert cache.add_record(VARIANT, second, 100.0) is False
        assert same(cache, cache.read_records([VARIANT])[0], first)
        assert cache.add_record(OTHER, second, None) is True

    def test_who_adds_may_look_in_the_same_trip(self, cache: Face) -> None:
        lease, page = payload(cache, b"lease"), payload(cache, b"page")
        cache.write_records([(INDEX, page, None)])
        added, found = cache.add_and_read(VARIANT, lease, 100.0, [OTHER, INDEX, VARIANT])
        assert added is True
        assert found[0] is None
        assert same(cache, found[1], page)
        assert same(cache, found[2], lease)
        added, found = cache.add_and_read(VARIANT, page, 100.0, [VARIANT])
        assert added is False
        assert same(cache, found[0], lease)
        assert cache.add_and_read(OTHER, page, None, []) == (True, [])
        assert cache.add_and_read(OTHER + "\x00ended", page, 0, [INDEX, OTHER + "\x00ended"])[0] is False
        assert cache.read_records([OTHER + "\x00ended"]) == [None]

    def test_records_expire(self, cache: Face) -> None:
        short = self.shortest_timeout
        cache.write_records([(INDEX, payload(cache, b"short"), short), (OTHER, payload(cache, b"long"), 2.0**33)])
        cache.add_record(VARIANT, payload(cache, b"lease"), short)
        self.pass_time(short)
        for _ in range(200):
            if cache.read_records([INDEX, VARIANT]) == [None, None]:
                break
            self.pass_time(0.01)
        assert cache.read_records([INDEX, VARIANT]) == [None, None]
        assert cache.read_records([OTHER])[0] is not None
        assert cache.add_record(VARIANT, payload(cache, b"next"), 100.0) is True

    @pytest.mark.parametrize("timeout", [0, -1.5])
    def test_a_record_without_time_replaces_and_is_not_kept(self, cache: Face, timeout: float) -> None:
        cache.write_records([(OTHER, payload(cache, b"old"), None)])
        assert cache.write_records([(OTHER, payload(cache, b"new"), timeout)]) == []
        assert cache.read_records([OTHER]) == [None]
        assert cache.add_record(OTHER, payload(cache, b"new"), timeout) is False
        assert cache.read_records([OTHER]) == [None]

    def test_full_keys_that_share_a_beginning_are_apart(self, cache: Face) -> None:
        keys = [RESOURCE, RESOURCE + "\x00", RESOURCE + "\x00a", RESOURCE + "\x00a\x00", RESOURCE[:-1], ""]
        records = [payload(cache, b"body of %d" % number) for number in range(len(keys))]
        assert cache.write_records([(key, record, None) for key, record in zip(keys, records, strict=True)]) == []
        found = cache.read_records(keys)
        # a key without a second part and one with an empty one may be one place: the record holds its full key
        for number in (2, 3, 4, 5):
            assert same(cache, found[number], records[number])

    def test_prefixes_and_versions_separate_pages_too(self, connect: Connect) -> None:
        plain, prefixed, second = connect(), connect(KEY_PREFIX="site"), connect(VERSION=2)
        plain.write_records([(OTHER, payload(plain, b"plain"), None)])
        assert prefixed.read_records([OTHER]) == [None]
        assert second.read_records([OTHER]) == [None]
        prefixed.write_records([(OTHER, payload(prefixed, b"site"), None)])
        plain.drop_records([OTHER])
        assert prefixed.read_records([OTHER])[0] is not None

    @pytest.mark.filterwarnings("ignore::cachemw.errors.CacheKeyWarning")
    def test_pages_and_values_are_never_taken_for_one_another(self, connect: Connect) -> None:
        cache = connect(KEY_FUNCTION=lambda key, prefix, version: str(key))
        made = cache.cache.page_key(OTHER)
        cache.set(made, 7)
        assert cache.read_records([OTHER]) == [None]
        if cache.cache.by_reference:
            cache.write_records([(OTHER, payload(cache, b"page"), None)])
            assert cache.get(made, "default") == "default"
            assert cache.get_many([made]) == {}
            cache.set(made, "value")
            assert cache.read_records([OTHER]) == [None]

    def test_clear_takes_the_pages_too(self, cache: Face) -> None:
        cache.write_records([(OTHER, payload(cache, b"page"), None)])
        cache.clear()
        assert cache.read_records([OTHER]) == [None]

    def test_the_latest_is_what_was_just_written(self, cache: Face) -> None:
        for number in range(10):
            record = payload(cache, b"write %d" % number)
            cache.write_records([(VARIANT, record, 100.0)])
            latest = cache.read_latest([OTHER, VARIANT])
            assert latest[0] is None
            assert same(cache, latest[1], record)
        cache.drop_records([VARIANT])
        assert cache.read_latest([VARIANT]) == [None]

    def test_both_halves_see_the_same(self, cache: Face) -> None:
        record = payload(cache, b"by the synchronous half")
        cache.cache.write_records([(OTHER, record, None)])
        cache.cache.set("key", ["value"])
        assert same(cache, cache.read_records([OTHER])[0], record)
        assert cache.get("key") == ["value"]
