"""What a server does that nobody waits for any more: it is told to stop, where its driver can say so."""

from __future__ import annotations

import asyncio
import gc
import os
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import pytest

from cachemw.backends._db import psycopg as db_psycopg
from cachemw.backends._db.server import ServerStore
from cachemw.backends.db import DatabaseCache
from cachemw.errors import BackendUnavailable
from tests.backends.file_store import in_child
from tests.servers import mariadb_url, postgresql_url, shared, start_mariadb, start_postgresql, until

URLS: dict[str, Callable[[], str]] = {
    "postgresql": lambda: postgresql_url(shared(start_postgresql)),
    "mariadb": lambda: mariadb_url(shared(start_mariadb)),
}


@contextmanager
def opened(kind: str, deadline: float) -> Iterator[DatabaseCache]:
    cache = DatabaseCache(URLS[kind](), {"OPTIONS": {"table": "late", "create": True, "deadline": deadline}})
    yield cache
    cache.close()


@contextmanager
def locked(cache: DatabaseCache) -> Iterator[None]:
    """Meanwhile another connection holds all rows."""
    store = cache._primary
    assert isinstance(store, ServerStore)
    with store._engines[0].connect() as connection:
        lock = connection.execution_options(isolation_level="READ COMMITTED")
        lock.execute(store._statements.clear)
        try:
            yield
        finally:
            lock.rollback()


def requests() -> list[threading.Thread]:
    """The threads that ask a server to stop."""
    return [thread for thread in threading.enumerate() if thread.name == "cachemw-cancel"]


@pytest.mark.parametrize("half", ["threads", "tasks"])
@pytest.mark.parametrize("kind", URLS)
def test_what_was_given_up_is_not_done_later(kind: str, half: str) -> None:
    with opened(kind, 10) as other, opened(kind, 0.3) as cache:
        other.set("count", 1)

        async def use() -> None:
            with pytest.raises(BackendUnavailable):
                await cache.aincr("count")
            await cache.aclose()

        with locked(other):
            if half == "tasks":
                asyncio.run(use())
            else:
                with pytest.raises(BackendUnavailable):
                    cache.incr("count")
            until(lambda: waiting(other, kind) == 0, "the server has stopped waiting for the lock")
        assert other.get("count") == 1


def waiting(cache: DatabaseCache, kind: str) -> int:
    """How many statements on the server wait for the lock."""
    store = cache._primary
    assert isinstance(store, ServerStore)
    sql = {
        "postgresql": "SELECT count(*) FROM pg_locks WHERE NOT granted",
        "mariadb": "SELECT variable_value FROM information_schema.global_status"
        " WHERE variable_name = 'Innodb_row_lock_current_waits'",
    }[kind]
    with store._engines[0].connect() as connection:
        return int(connection.exec_driver_sql(sql).scalar_one())


def test_a_clear_may_wait_for_a_lock_as_long_as_it_may_take() -> None:
    with opened("mariadb", 10) as other, opened("mariadb", 0.3) as cache:
        other.set("key", 1)
        with locked(other):
            thread = threading.Thread(target=cache.clear)
            thread.start()
            thread.join(2)
            assert thread.is_alive()
        thread.join(30)
        assert other.get("key") is None


def test_no_more_than_a_few_requests_are_under_way(monkeypatch: pytest.MonkeyPatch) -> None:
    """In an outage most of those who would be asked do not listen."""
    hold = threading.Event()

    def hang(_: object) -> Iterator[Any]:
        hold.wait(30)
        return iter(())

    monkeypatch.setattr("psycopg.generators.cancel", hang)
    with opened("postgresql", 10) as other, opened("postgresql", 0.1) as cache:
        other.set("count", 1)
        with locked(other):
            for _ in range(6):
                with pytest.raises(BackendUnavailable):
                    cache.incr("count")
            assert len(requests()) == 4
            hold.set()
            until(lambda: not requests(), "they are over")
            monkeypatch.undo()
            with pytest.raises(BackendUnavailable):
                cache.incr("count")
            until(lambda: not requests(), "this one too")


@pytest.mark.parametrize("reason", ["no thread", "no request"])
def test_a_call_is_given_up_in_time_where_nobody_can_be_told(monkeypatch: pytest.MonkeyPatch, reason: str) -> None:
    def fail(*_: Any) -> None:
        raise RuntimeError("can't start new thread")

    key = reason.replace(" ", "-")  # a test's own: what nobody could be told to leave is done when the lock is gone
    with opened("postgresql", 10) as other, opened("postgresql", 0.1) as cache:
        other.set(key, 1)
        assert cache.get(key) == 1
        with locked(other), monkeypatch.context() as patch:
            if reason == "no thread":
                patch.setattr(threading.Thread, "start", fail)
            else:
                patch.setattr("psycopg.capabilities.has_cancel_safe", lambda: False)
            began = time.monotonic()
            with pytest.raises(BackendUnavailable):
                cache.incr(key)
            assert time.monotonic() - began < 2
            assert not requests()
            assert [db_psycopg._requests.acquire(blocking=False) for _ in range(5)] == [True] * 4 + [False]
            for _ in range(4):
                db_psycopg._requests.release()


def test_a_forked_process_may_tell_servers_to_stop(monkeypatch: pytest.MonkeyPatch) -> None:
    """Whatever the threads of its parent were at, they are not there to finish it."""
    monkeypatch.setattr(db_psycopg, "_requests", threading.BoundedSemaphore(4))
    for _ in range(4):
        assert db_psycopg._requests.acquire(blocking=False)

    def use() -> None:
        assert db_psycopg._requests.acquire(blocking=False)

    in_child(use)
    assert not db_psycopg._requests.acquire(blocking=False)


@pytest.mark.parametrize("kind", URLS)
def test_a_cancelled_attempt_to_connect_leaves_no_socket_behind(kind: str) -> None:
    """Not even until the garbage collector comes: servers have room for few."""

    def sockets() -> int:
        links = [os.path.join("/proc/self/fd", one) for one in os.listdir("/proc/self/fd")]
        return sum(os.path.islink(link) and os.readlink(link).startswith("socket:") for link in links)

    async def use() -> int:
        cache = DatabaseCache(URLS[kind](), {"OPTIONS": {"create": True, "deadline": 10}})
        assert await cache.aget("key") is None
        store = cache._primary
        assert isinstance(store, ServerStore)
        before = sockets()
        for number in range(40):
            await store.aclose()
            task = asyncio.create_task(cache.aget("key"))
            for _ in range(number):
                await asyncio.sleep(0)
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)
        await store.aclose()
        return sockets() - before

    gc.disable()
    try:
        assert asyncio.run(use()) <= 2
    finally:
        gc.enable()
