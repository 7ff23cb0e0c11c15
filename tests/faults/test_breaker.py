"""Breaker, recovery and what is owed to a store: each rule by itself, on a store that fails when it is told to."""

from __future__ import annotations

import asyncio
import logging
import os
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from itertools import pairwise
from pathlib import Path
from typing import Any
from wsgiref.util import setup_testing_defaults

import pytest
import werkzeug.test
from starlette.responses import PlainTextResponse
from starlette.testclient import TestClient

from cachemw import _pages_recovery as recovery
from cachemw import asgi, wsgi
from cachemw import pages as pages_module
from cachemw._asgi.replies import discard, no_body
from cachemw._pages_recovery import Breaker, Recovery
from cachemw.backends.filebased import FileBasedCache
from cachemw.backends.locmem import LocMemCache
from cachemw.backends.redis import RedisCache
from cachemw.errors import BackendUnavailable, InvalidCacheKey
from cachemw.pages import Pages
from cachemw.rfc9111.keys import lease_key, mark_key, primary_key, tag_keys
from cachemw.rfc9111.messages import Mark, StoredResponse
from tests.servers import until


class Store(LocMemCache):
    """Refuses what `down` names: primitives, such as "_get"; `meanwhile` is done before the next one of a name."""

    def __init__(self, name: str) -> None:
        super().__init__(name, {})
        self.asked = 0
        self.down: set[str] = set()
        self.meanwhile: dict[str, Any] = {}
        self.failure: Exception = BackendUnavailable("down")

    def _before(self, primitive: str) -> None:
        self.asked += 1
        if action := self.meanwhile.pop(primitive, None):
            action()
        if primitive in self.down:
            raise self.failure

    def _get(self, keys: Any) -> dict[str, Any]:
        self._before("_get")
        return super()._get(keys)

    def read_records(self, keys: Any) -> list[Any]:
        self._before("_get")
        return super().read_records(keys)

    def write_records(self, records: Any) -> list[str]:
        self._before("_set")
        return super().write_records(records)

    def add_record(self, key: str, payload: Any, timeout: float | None) -> bool:
        self._before("_add")
        return super().add_record(key, payload, timeout)

    def drop_records(self, keys: Any) -> int:
        self._before("_delete")
        return super().drop_records(keys)


def cache_status(interface: str, store: Store) -> Callable[[], str]:
    """Ask an application with one page, cached in this store, and tell what was done."""
    if interface == "wsgi":

        def wsgi_app(environ: Any, start_response: Any) -> list[bytes]:
            start_response("200 OK", [("Content-Type", "text/plain")])
            return [b"page"]

        visitor = werkzeug.test.Client(wsgi.CacheMiddleware(wsgi_app, cache=store))
        return lambda: visitor.get("/", buffered=True).headers["Cache-Status"]
    client = TestClient(asgi.CacheMiddleware(PlainTextResponse("page"), cache=store))
    return lambda: client.get("/").headers["Cache-Status"]


ALL = {"_get", "_set", "_add", "_delete"}
OF = "4:http7:example"
KEY = primary_key(OF)


def page(body: bytes = b"old", tags: tuple[str, ...] = (), key: str = KEY) -> StoredResponse:
    return StoredResponse(
        key=key, status=200, body=body, born=1.0, lifetime=100.0, began=1.0, fields=(("A", "b"),), tags=tags
    )


@pytest.fixture
def store(request: pytest.FixtureRequest) -> Iterator[Store]:
    store = Store(request.node.name)
    store.clear()
    yield store
    store.down = set()


@pytest.fixture
def pages(store: Store, monkeypatch: pytest.MonkeyPatch) -> Pages:
    monkeypatch.setattr(recovery, "PERIOD", 0.01)
    pages = Pages(store)
    pages.run(pages.commit([(KEY, page(), None)]), False)
    return pages


def settled(pages: Pages) -> bool:
    return not (pages.breaker.open or pages.write_breaker.open or pages._owed or pages._doubtful)


def test_five_failures_in_a_row_open_it_and_a_success_starts_anew() -> None:
    breaker = Breaker("reading")
    for _ in range(2):
        for _ in range(4):
            breaker.failed(BackendUnavailable(), time.monotonic())
        assert not breaker.open
        breaker.succeeded()
    for _ in range(5):
        breaker.failed(BackendUnavailable(), time.monotonic())
    assert breaker.open


def test_one_late_failure_opens_it() -> None:
    breaker = Breaker("reading")
    breaker.failed(BackendUnavailable(), time.monotonic() - 0.06)
    assert breaker.open


def test_it_is_logged_once_a_minute_and_its_end_once(caplog: pytest.LogCaptureFixture) -> None:
    breaker = Breaker("reading")
    with caplog.at_level(logging.WARNING):
        for _ in range(3):
            for _ in range(10):
                breaker.failed(BackendUnavailable("why"), time.monotonic())
            breaker.succeeded()
    assert len(caplog.messages) == 2
    assert "why" in caplog.messages[0]
    assert "works again" in caplog.messages[1]


def test_no_password_is_logged(caplog: pytest.LogCaptureFixture) -> None:
    pages = Pages(RedisCache("redis://user:hunter2@127.0.0.1:1/0", {}))
    with caplog.at_level(logging.WARNING):
        pages.lookup([KEY])
    assert "127.0.0.1" in caplog.text
    assert "hunter2" not in caplog.text


def test_a_store_that_fails_is_a_miss_and_is_used_again_when_it_answers(store: Store, pages: Pages) -> None:
    store.down = {"_get"}
    assert [pages.lookup([KEY])[0] for _ in range(10)] == [None] * 10
    assert pages.counts["store-error"] >= 5
    store.down = set()
    until(lambda: pages.lookup([KEY])[0] is not None, "the page is found again", 2)


#: By the breaker that it minds.
OPERATIONS: dict[tuple[str, str], Callable[[Pages], object]] = {
    ("breaker", "sync"): lambda pages: pages.lookup([KEY]),
    ("breaker", "async"): lambda pages: asyncio.run(pages.alookup([KEY])),
    ("write_breaker", "sync"): lambda pages: pages.run(pages.take_lease("lease", 10.0), True),
    ("write_breaker", "async"): lambda pages: asyncio.run(pages.arun(pages.take_lease("lease", 10.0), True)),
}


@pytest.mark.parametrize(("name", "half"), OPERATIONS)
def test_a_store_is_asked_until_it_has_failed_five_times_in_a_row(
    store: Store, pages: Pages, name: str, half: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(recovery, "SLOW", 5)  # on a busy machine
    monkeypatch.setattr(pages.recovery, "wanted", lambda **options: None)
    operation, breaker = OPERATIONS[name, half], getattr(pages, name)
    for _ in range(2):
        store.down = ALL
        for _ in range(4):
            operation(pages)
        store.down = set()
        operation(pages)
    assert not breaker.open
    store.down = ALL
    for _ in range(5):
        operation(pages)
    assert breaker.open
    asked = store.asked
    for _ in range(5):
        operation(pages)
    assert store.asked == asked
    assert pages.counts["store-error"] == 13


@pytest.mark.parametrize(("name", "half"), OPERATIONS)
def test_whoever_passes_a_store_by_has_it_asked_whether_it_is_back(
    store: Store, pages: Pages, name: str, half: str
) -> None:
    breaker = getattr(pages, name)
    for _ in range(5):
        breaker.failed(BackendUnavailable(), time.monotonic(), [KEY])
    assert breaker.open
    OPERATIONS[name, half](pages)
    until(lambda: not breaker.open, "it is used again", 2)


@pytest.mark.parametrize("half", ["sync", "async"])
def test_a_store_that_refuses_writes_is_read(store: Store, pages: Pages, half: str) -> None:
    store.down = {"_set", "_add", "_delete"}
    for _ in range(6):  # with the last of which somebody is interested in when it takes them again
        OPERATIONS["write_breaker", half](pages)
    assert pages.write_breaker.open
    found = pages.lookup([KEY])[0]
    assert isinstance(found, StoredResponse)
    store.down = set()
    until(lambda: settled(pages), "it is written to again", 2)


def test_an_attempt_that_fails_counts_and_is_made_again(
    store: Store, pages: Pages, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(pages.recovery, "wanted", lambda **options: None)
    store.down = ALL
    pages.run_purge([OF])
    before = pages.counts["store-error"]
    assert pages._recover() is True
    assert pages.counts["store-error"] == before + 1
    store.down = set()
    assert pages._recover() is False
    assert pages.lookup([KEY]) == [None]


def test_a_key_that_the_store_cannot_take_does_not_close_it_to_others(store: Store, pages: Pages) -> None:
    store.down, store.failure = {"_get"}, InvalidCacheKey("no")
    for _ in range(10):
        assert pages.lookup(["\ud800"]) == [None]
    store.down = set()
    assert pages.lookup([KEY])[0] is not None


@pytest.mark.parametrize("kind", ["purge", "soften", "purge tag", "soften tag"])
@pytest.mark.parametrize("half", ["sync", "async"])
def test_a_removal_that_fails_is_made_up_for_before_the_store_is_read(
    store: Store, pages: Pages, kind: Any, half: str
) -> None:
    of, began = mark_key("tag") if "tag" in kind else OF, time.time()
    store.down = {"_set"}
    done = pages.remove(kind, [of], 5.0) if half == "sync" else asyncio.run(pages.aremove(kind, [of], 5.0))
    assert done == 0
    assert pages.lookup([KEY]) == [None]  # read it could be
    assert asyncio.run(pages.alookup([KEY])) == [None]
    store.down = set()
    until(lambda: settled(pages), "it is made up for", 2)
    found, mark = pages.lookup([KEY, of if "tag" in kind else mark_key(of)])
    assert isinstance(mark, Mark)
    if kind == "purge":
        assert found is None
    elif kind == "soften":
        assert isinstance(found, StoredResponse)
        assert found.fresh_until <= 5.0
    else:
        # as of when it was made up for: another process may have purged the tag since
        said, other = (mark.hard, mark.soft) if kind == "purge tag" else (mark.soft, mark.hard)
        assert (said > began, other) == (True, 0.0)


@pytest.mark.parametrize("first", ["hard", "soft"])
def test_a_hard_and_a_soft_purge_of_a_tag_at_once_lose_neither(store: Store, pages: Pages, first: str) -> None:
    """Both look before either has written, and the one that is `first` writes last."""
    hard, soft = tag_keys("", ["t"])
    purges = {"hard": pages.removal("purge tag", [hard], 5.0), "soft": pages.removal("soften tag", [soft], 6.0)}
    writes = {}
    for name, purge in purges.items():
        operation, arguments = next(purge)
        writes[name] = purge.send(getattr(store, operation)(*arguments))
    for name in sorted(purges, key=lambda name: name == first):
        operation, arguments = writes[name]
        assert operation == "write_records"
        with pytest.raises(StopIteration):
            purges[name].send(store.write_records(*arguments))
    one, other = pages.lookup([hard, soft])
    assert isinstance(one, Mark)
    assert isinstance(other, Mark)
    assert (one.hard, other.soft) == (5.0, 6.0)


def test_a_mark_that_is_not_stored_is_no_purge(store: Store, pages: Pages, monkeypatch: pytest.MonkeyPatch) -> None:
    full = True
    write = store.write_records
    monkeypatch.setattr(
        store, "write_records", lambda records: [key for key, _, _ in records] if full else write(records)
    )
    pages.remove("purge tag", [mark_key("tag")], 5.0)
    assert pages.lookup([KEY]) == [None]
    full = False
    until(lambda: pages.lookup([KEY])[0] is not None, "the mark is stored", 2)


def test_more_than_can_be_remembered_is_everything(store: Store, pages: Pages, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pages_module, "OWED", 10)
    store.down = ALL
    for number in range(4):
        pages.run_purge([f"{number}:{one}" for one in range(4)])
    assert len(pages._owed) <= 10
    store.down = set()
    until(lambda: settled(pages), "the store is empty", 2)
    assert pages.lookup([KEY]) == [None]


def test_what_was_perhaps_written_and_not_compared_with_the_mark_goes(store: Store, pages: Pages) -> None:
    def down() -> None:
        store.down = {"_get"}

    store.meanwhile["_get"] = down
    assert pages.run(pages.commit([(KEY, page(b"new"), None)], (), (mark_key(OF), "", 1.0)), False) is False
    store.down = set()
    until(lambda: settled(pages), "the doubt is over", 2)
    assert pages.lookup([KEY]) == [None]


@pytest.mark.parametrize("failing", ["breaker", "write_breaker"])
def test_a_page_that_broke_off_goes_though_that_is_found_out_in_an_outage(
    store: Store, monkeypatch: pytest.MonkeyPatch, failing: str
) -> None:
    """A middleware has ended it as if it were whole, so it was stored; then the store went away for a moment."""
    monkeypatch.setattr(recovery, "PERIOD", 0.01)
    calls = 0

    async def app(scope: Any, receive: Any, send: Any) -> None:
        nonlocal calls
        calls += 1
        await send({"type": "http.response.start", "status": 200, "headers": []})
        await send({"type": "http.response.body", "body": b"half"})
        for _ in range(5):
            getattr(pages, failing).failed(BackendUnavailable("down"), time.monotonic(), [KEY])
        raise ValueError("the other half")

    middleware = asgi.CacheMiddleware(app, cache=store)
    pages = middleware.caching.line.pages
    for _ in range(2):
        scope = {"type": "http", "method": "GET", "path": "/", "headers": [(b"host", b"a")]}
        with pytest.raises(ValueError, match="other half"):
            asyncio.run(middleware(scope, no_body(), discard))
        until(lambda: settled(pages), "the store is used again", 2)
    assert calls == 2


@pytest.mark.parametrize("half", ["sync", "async"])
@pytest.mark.parametrize("failing", ["breaker", "write_breaker"])
def test_what_was_to_go_goes_when_the_store_that_was_passed_by_is_back(
    store: Store, pages: Pages, failing: str, half: str
) -> None:
    store.down = ALL
    for _ in range(5):
        getattr(pages, failing).failed(BackendUnavailable("down"), time.monotonic(), [KEY])
    dropping = pages.commit([], [KEY])
    if half == "sync":
        assert pages.run(dropping, None, [KEY]) is None
    else:
        assert asyncio.run(pages.arun(dropping, None, [KEY])) is None
    assert LocMemCache.read_records(store, [KEY]) != [None]
    store.down = set()
    until(lambda: settled(pages), "the store is used again", 2)
    assert pages.lookup([KEY]) == [None]


def test_more_doubts_than_can_be_remembered_are_about_everything(
    store: Store, pages: Pages, monkeypatch: pytest.MonkeyPatch
) -> None:
    def down() -> None:
        store.down = {"_get"}

    with monkeypatch.context() as patch:
        patch.setattr(pages_module, "OWED", 2)
        patch.setattr(pages.recovery, "wanted", lambda **options: None)  # not yet
        for number in range(3):
            of = f"{OF}{number}"
            store.down, store.meanwhile["_get"] = set(), down
            written = page(b"new", key=primary_key(of))
            assert pages.run(pages.commit([(written.key, written, None)], (), (mark_key(of), "", 1.0)), False) is False
            assert len(pages._doubtful) <= 2
    store.down = set()
    assert None not in store.read_records([primary_key(f"{OF}{number}") for number in range(3)])
    pages.recovery.wanted()
    until(lambda: settled(pages), "the doubts are over", 2)
    assert pages.lookup([primary_key(f"{OF}{number}") for number in range(3)]) == [None] * 3


@pytest.mark.parametrize("due", ["a doubt", "a purge"])
def test_what_was_written_once_more_while_it_was_removed_goes_too(store: Store, pages: Pages, due: str) -> None:
    drop = store.drop_records

    def ask() -> None:
        if due == "a doubt":
            pages._doubt([KEY])
        else:
            pages._owe("purge", [OF], 1.0)

    def drop_and_be_overtaken(keys: Any) -> int:
        gone = drop(keys)
        store.drop_records = drop  # type: ignore[method-assign]
        store.write_records([(KEY, page(b"older than the purge"), None)])
        ask()
        return gone

    store.drop_records = drop_and_be_overtaken  # type: ignore[method-assign]
    ask()
    until(lambda: settled(pages), "nothing is due", 2)
    assert store.drop_records == drop
    assert pages.lookup([KEY]) == [None]


def test_what_the_store_did_not_hear_was_to_go_goes_when_it_is_back(store: Store, pages: Pages) -> None:
    """Without anything to be written in its place."""
    store.down = {"_delete"}
    pages.run(pages.commit([], (KEY,)), None)
    store.down = set()
    until(lambda: settled(pages), "it was told", 2)
    assert pages.lookup([KEY]) == [None]


def test_a_soft_purge_of_what_is_not_stored_is_for_what_is_under_way(store: Store, pages: Pages) -> None:
    store.clear()
    assert pages.remove("soften", [OF], 5.0) == 0
    assert pages.run(pages.commit([(KEY, page(b"begun before"), None)], (), (mark_key(OF), "", 1.0)), None) is False
    assert pages.lookup([KEY]) == [None]


def test_a_purge_while_a_page_is_made_stale_wins(store: Store, pages: Pages) -> None:
    store.meanwhile["_get"] = lambda: store.meanwhile.update(_set=lambda: pages.run_purge([OF]))
    pages.remove("soften", [OF], 5.0)
    assert pages.lookup([KEY]) == [None]
    assert not pages.failures


def test_who_asks_after_a_purge_does_not_join_those_who_asked_before(store: Store, pages: Pages) -> None:
    """A flight's key ends with the token of the URL's mark, also where that cannot be read."""
    store.down = ALL

    def token() -> str:
        found, mark = pages.lookup([KEY, mark_key(OF)])
        assert found is None
        assert isinstance(mark, Mark)
        return mark.token

    before = token()
    assert token() == before
    pages.run_purge([OF])
    assert token() != before
    after = token()
    asyncio.run(pages.aremove("purge tag", [mark_key("tag")], 5.0))
    assert token() not in (before, after)
    # and what was made without knowing the last purge is not kept
    store.down = set()
    until(lambda: settled(pages), "the store is back", 2)
    assert pages.run(pages.commit([(KEY, page(), None)], (), (mark_key(OF), after, 1.0)), True) is False
    assert pages.lookup([KEY]) == [None]


@pytest.mark.parametrize("value", ["\u20ac", None, b"bytes"])
def test_what_no_message_can_carry_is_not_stored_and_no_failure(tmp_path: Any, value: Any) -> None:
    from cachemw.backends.filebased import FileBasedCache

    pages = Pages(FileBasedCache(str(tmp_path), {}))
    odd = StoredResponse(key=KEY, status=200, body=b"", born=1.0, lifetime=1.0, began=1.0, fields=(("A", value),))
    for _ in range(6):
        assert pages.run(pages.commit([(KEY, odd, None)], (), (mark_key(OF), "", 1.0)), True) is False
    assert not pages.write_breaker.open
    assert pages.counts["not-stored"] == 6


def test_where_no_thread_runs_a_request_makes_the_attempt(
    store: Store, pages: Pages, monkeypatch: pytest.MonkeyPatch
) -> None:
    def no_thread(thread: threading.Thread) -> None:
        raise RuntimeError("can't start new thread")

    monkeypatch.setattr(threading.Thread, "start", no_thread)
    monkeypatch.setattr(recovery, "PATIENCE", 0.0)
    store.down = ALL
    pages.run_purge([OF])
    assert pages.lookup([KEY]) == [None]
    store.down = set()
    until(lambda: pages.lookup([KEY]) == [None] and settled(pages), "a request has seen to it", 2)


def test_attempts_end_when_nobody_asks_and_begin_again_when_somebody_does(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(recovery, "PERIOD", 0.02)
    attempts: list[float] = []

    def attempt() -> bool:
        attempts.append(time.monotonic())
        return len(attempts) < 3

    one = Recovery(attempt)
    one.wanted()
    until(lambda: one._thread is None, "the thread has ended", 2)
    assert len(attempts) == 3
    assert min(later - earlier for earlier, later in pairwise(attempts)) >= 0.02, "a store that is down is left alone"
    one.wanted()
    until(lambda: len(attempts) == 4 and one._thread is None, "one more was made", 2)


def test_requests_make_no_attempt_while_a_thread_makes_them(monkeypatch: pytest.MonkeyPatch) -> None:
    """A visitor would wait for a store that does not answer."""
    attempts: list[float] = []
    one = Recovery(lambda: bool(attempts.append(0.0)))  # type: ignore[func-returns-value]
    monkeypatch.setattr(one, "_start", lambda: None)  # it has been started, and is about to run
    monkeypatch.setattr(one, "_next", time.monotonic() + 60)
    one.wanted(may_block=True)
    assert attempts == []


def test_a_request_does_not_wait_for_the_attempt_of_another(monkeypatch: pytest.MonkeyPatch) -> None:
    """Where threads do not run (uWSGI), requests make them."""
    monkeypatch.setattr(recovery, "PERIOD", 0.0)
    monkeypatch.setattr(recovery, "PATIENCE", 0.0)
    asked, answered = threading.Event(), threading.Event()
    attempts: list[bool] = []

    def attempt() -> bool:
        asked.set()
        attempts.append(answered.wait(10))
        return False

    one = Recovery(attempt)
    monkeypatch.setattr(one, "_start", lambda: None)
    request = threading.Thread(target=one.wanted, kwargs={"may_block": True})
    request.start()
    assert asked.wait(10)
    one.wanted(may_block=True)
    assert attempts == []
    answered.set()
    request.join(10)
    assert attempts == [True]


def test_nobody_waits_for_who_is_about_to_start_the_thread(monkeypatch: pytest.MonkeyPatch) -> None:
    """A greenlet that starts one lets others run, in the same thread: who waited for a lock would stop them all."""
    one = Recovery(lambda: False)
    start = threading.Thread.start
    came: list[bool] = []

    def start_late(thread: threading.Thread) -> None:
        monkeypatch.setattr(threading.Thread, "start", start)
        other = threading.Thread(target=one.wanted, daemon=True)
        other.start()
        other.join(5)
        came.append(not other.is_alive())
        thread.start()

    monkeypatch.setattr(threading.Thread, "start", start_late)
    one.wanted()
    assert came == [True]
    until(lambda: one._thread is None, "the thread has ended", 5)


def test_two_who_notice_an_outage_at_once_start_one_thread(monkeypatch: pytest.MonkeyPatch) -> None:
    one = Recovery(lambda: False)
    started: list[threading.Thread] = []
    came: list[None] = []

    class Thread(threading.Thread):
        def __init__(self, **options: Any) -> None:
            if not came:
                came.append(None)
                one.wanted()  # while the first one makes ready to start it
            super().__init__(**options)

        def start(self) -> None:
            started.append(self)

    monkeypatch.setattr(threading, "Thread", Thread)
    one.wanted()
    assert len(started) == 1


def test_a_process_ends_though_its_store_is_down() -> None:
    program = "from cachemw._pages_recovery import Recovery; Recovery(lambda: True).wanted()"
    subprocess.run([sys.executable, "-c", program], check=True, timeout=20)


def test_where_no_thread_is_to_be_had_the_next_one_tries_again(monkeypatch: pytest.MonkeyPatch) -> None:
    attempts: list[bool] = []
    one = Recovery(lambda: bool(attempts.append(True)))  # type: ignore[func-returns-value]

    def refuse(thread: threading.Thread) -> None:
        raise RuntimeError("can't start new thread")

    with monkeypatch.context() as patch:
        patch.setattr(threading.Thread, "start", refuse)
        one.wanted()
    assert attempts == []
    one.wanted()
    until(lambda: bool(attempts) and one._thread is None, "it was made", 5)


def _leased(pages: Pages, half: str, *wants: str) -> tuple[bool | None, Any]:
    if half == "sync":
        return pages.lease("lease", 10.0, wants)
    return asyncio.run(pages.alease("lease", 10.0, wants))


@pytest.mark.parametrize("half", ["sync", "async"])
def test_who_takes_a_lease_or_not_learns_what_is_stored_by_then(store: Store, pages: Pages, half: str) -> None:
    store.meanwhile["_add"] = lambda: pages.run(pages.commit([(KEY, page(b"new"), 60.0)]), None)
    taken, (record, other) = _leased(pages, half, KEY, "other")
    assert (taken, record.body, other) == (True, b"new", None)
    taken, (record,) = _leased(pages, half, KEY)
    assert (taken, record.body) == (False, b"new")


@pytest.mark.parametrize("half", ["sync", "async"])
def test_who_takes_a_lease_is_not_given_what_a_purge_was_to_remove(store: Store, pages: Pages, half: str) -> None:
    store.down = {"_set"}
    pages.run_purge([OF])
    _, (record, mark) = _leased(pages, half, KEY, mark_key(OF))
    assert record is None
    assert isinstance(mark, Mark)
    assert mark.token.startswith("unread")


@pytest.mark.parametrize("half", ["sync", "async"])
def test_a_store_that_gives_no_lease_is_read(store: Store, pages: Pages, half: str) -> None:
    store.down = {"_add"}
    taken, (record,) = _leased(pages, half, KEY)
    assert (taken, record.body) == (None, b"old")


@pytest.mark.parametrize("half", ["sync", "async"])
def test_a_lease_that_the_store_refuses_keeps_nobody_waiting(
    store: Store, pages: Pages, half: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A full memcached that evicts nothing says of `add` no more than that it did not store it."""
    monkeypatch.setattr(store, "add_record", lambda key, payload, timeout: False)
    taken, (record,) = _leased(pages, half, KEY)
    assert (taken, record.body) == (None, b"old")


def test_a_lease_is_not_left_to_nobody(store: Store, pages: Pages) -> None:
    added = store.add_record

    def added_and_lost(key: str, payload: Any, timeout: float | None) -> bool:
        added(key, payload, timeout)
        raise BackendUnavailable("no answer in time")

    store.add_record = added_and_lost  # type: ignore[method-assign]
    assert pages.run(pages.take_lease("lease", 100.0), None) is None
    store.add_record = added  # type: ignore[method-assign]
    until(lambda: settled(pages), "it was dropped", 2)
    assert pages.run(pages.take_lease("lease", 100.0), None) == (True, [])
    assert isinstance(store.read_records(["lease"])[0], Mark)


def test_a_lease_that_another_process_has_by_now_is_left_to_it(store: Store, pages: Pages) -> None:
    key = lease_key(KEY)
    store.down = ALL
    for _ in range(5):
        assert pages.lease(key, 100.0, ()) == (None, [])
    store.down = set()
    other = Pages(LocMemCache(store.location))
    assert other.lease(key, 100.0, ()) == (True, [])
    pages._doubt([key, KEY])
    until(lambda: settled(pages), "what is in doubt was removed", 2)
    assert pages.lookup([KEY]) == [None]
    assert other.run(other.commit([(KEY, page(), None)], (key,), (mark_key(OF), "", 1.0), key), None) is True
    assert pages.lookup([key]) == [None]
    assert pages.lease(key, 100.0, ()) == (True, [])
    store.clear()
    assert pages.run(pages.commit([(KEY, page(), None)], (key,), (mark_key(OF), "", 1e12), key), None) is False
    assert pages.lookup([KEY]) == [None]


def test_a_lease_of_a_fork_with_a_similar_number_is_not_taken_for_ones_own(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    key, cache = lease_key(KEY), FileBasedCache(tmp_path)
    pages = Pages(cache)
    numbers = {"child": 123, "other child": 1234}

    def commits(process: str) -> object:
        monkeypatch.setattr(os, "getpid", lambda: numbers[process])
        return pages.run(pages.commit([(KEY, page(), None)], (), (mark_key(OF), "", 1.0), key), None)

    monkeypatch.setattr(os, "getpid", lambda: numbers["other child"])
    assert pages.lease(key, 100.0, ()) == (True, [])
    assert commits("child") is False
    assert commits("other child") is True


@pytest.mark.parametrize("half", ["sync", "async"])
def test_a_lease_that_is_given_back_is_there_for_the_next_process_at_once(
    store: Store, pages: Pages, half: str
) -> None:
    assert _leased(pages, half) == (True, [])
    other = Pages(LocMemCache(store.location))
    assert _leased(other, half)[0] is False
    if half == "sync":
        pages.run(pages.drop_lease("lease"), None, ("lease",))
    else:
        asyncio.run(pages.arun(pages.drop_lease("lease"), None, ("lease",)))
    assert _leased(other, half) == (True, [])
    assert not pages.failures


def test_a_lease_whose_end_the_store_did_not_hear_of_ends_when_it_is_back(store: Store, pages: Pages) -> None:
    assert pages.run(pages.take_lease("lease", 100.0), None) == (True, [])
    store.down = {"_delete"}
    pages.run(pages.drop_lease("lease"), None)
    assert store.read_records(["lease"]) != [None]
    store.down = set()
    until(lambda: settled(pages), "it was dropped", 2)
    assert store.read_records(["lease"]) == [None]


@pytest.mark.parametrize("failing", ["breaker", "write_breaker"])
@pytest.mark.parametrize("interface", ["wsgi", "asgi"])
def test_a_lease_of_before_an_outage_is_not_left_to_nobody(
    store: Store, monkeypatch: pytest.MonkeyPatch, interface: str, failing: str
) -> None:
    """When the application answers, the store is passed by: others would wait for the lease as long as it lasts."""
    monkeypatch.setattr(recovery, "PERIOD", 0.01)
    monkeypatch.setattr(Store, "shared", True)
    taken: list[str] = []
    held: list[Any] = []
    add = store.add_record

    def noted(key: str, *rest: Any) -> bool:
        taken.append(key)
        return add(key, *rest)

    def outage() -> None:
        held.extend(store.read_records(taken))
        for _ in range(5):
            getattr(middleware.caching.line.pages, failing).failed(BackendUnavailable(), time.monotonic(), [KEY])

    monkeypatch.setattr(store, "add_record", noted)

    def app(environ: Any, start_response: Any) -> list[bytes]:
        outage()
        start_response("200 OK", [("Cache-Control", "max-age=60")])
        return [b"page"]

    async def async_app(scope: Any, receive: Any, send: Any) -> None:
        outage()
        await send({"type": "http.response.start", "status": 200, "headers": [(b"cache-control", b"max-age=60")]})
        await send({"type": "http.response.body", "body": b"page"})

    middleware: Any
    if interface == "wsgi":
        middleware = wsgi.CacheMiddleware(app, cache=store)
        environ: dict[str, Any] = {}
        setup_testing_defaults(environ)
        response = middleware(environ, lambda status, headers: None)
        assert b"".join(response) == b"page"
        response.close()
    else:
        middleware = asgi.CacheMiddleware(async_app, cache=store)
        scope = {"type": "http", "method": "GET", "path": "/", "headers": [(b"host", b"a")]}
        asyncio.run(middleware(scope, no_body(), discard))
    assert [type(record) for record in held] == [Mark]
    until(lambda: settled(middleware.caching.line.pages), "the store is used again", 2)
    assert store.read_records(taken) == [None]


@pytest.mark.parametrize("interface", ["wsgi", "asgi"])
def test_a_page_that_the_store_cannot_take_is_not_said_to_be_stored(interface: str) -> None:
    store = Store(f"honest-{interface}")
    visit = cache_status(interface, store)
    store.down = ALL
    assert [visit(), visit()] == ["cachemw; fwd=uri-miss; fwd-status=200; detail=store"] * 2
    store.down = set()
    until(lambda: "hit" in visit(), what="a hit")
    assert visit().startswith("cachemw; hit")
