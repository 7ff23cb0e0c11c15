"""A resolver that does not answer: it would keep who asks it for many seconds, and no option of a client ends that."""

from __future__ import annotations

import asyncio
import socket
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import Future
from contextlib import closing
from typing import Any

import pytest

import cachemw
from cachemw.backends import _dialling
from cachemw.backends.base import BaseCache
from cachemw.errors import BackendUnavailable
from tests.servers import shared, start_memcached, start_redis, until

NAME = "cache.example"

URLS: dict[str, Callable[[], str]] = {
    "redis": lambda: f"redis://{NAME}:{shared(start_redis).port}/0",
    "memcached": lambda: f"memcached://{NAME}:{shared(start_memcached).port}",
}


@pytest.fixture
def answers(monkeypatch: pytest.MonkeyPatch) -> Iterator[threading.Event]:
    """Set it, and the resolver answers."""
    answers, look_up = threading.Event(), socket.getaddrinfo

    def resolve(host: Any, *arguments: Any, **options: Any) -> Any:
        if host == NAME:
            answers.wait(30)
            host = "127.0.0.1"
        return look_up(host, *arguments, **options)

    monkeypatch.setattr(socket, "getaddrinfo", resolve)
    yield answers
    answers.set()


@pytest.fixture(params=URLS)
def cache(request: pytest.FixtureRequest) -> Iterator[BaseCache]:
    with closing(cachemw.connect(URLS[request.param]())) as cache:
        yield cache


def works(cache: BaseCache) -> bool:
    try:
        cache.set("key", 1)
    except BackendUnavailable:
        return False
    return bool(cache.get("key") == 1)


def test_a_name_that_is_not_found_in_time_costs_no_more_than_a_server_that_hangs(
    cache: BaseCache, answers: threading.Event
) -> None:
    began = time.monotonic()
    with pytest.raises(BackendUnavailable):
        cache.get("key")
    assert time.monotonic() - began < 2

    async def ask() -> None:
        began = time.monotonic()
        with pytest.raises(BackendUnavailable):
            await cache.aget("key")
        assert time.monotonic() - began < 2
        answers.set()

    asyncio.run(ask())
    until(lambda: works(cache), "the store is used again")
    asyncio.run(cache.aset("other", 2))
    assert cache.get("other") == 2


def test_a_connection_that_comes_when_nobody_waits_any_more_is_closed(
    cache: BaseCache, answers: threading.Event
) -> None:
    with pytest.raises(BackendUnavailable):
        cache.get("key")
    answers.set()
    until(lambda: not any(thread.name == "cachemw-connect" for thread in threading.enumerate()), "the thread ends")
    until(lambda: works(cache), "the store is used again")


class _Left(BaseException):
    """What a signal's handler raises, or a greenlet's time-out."""


@pytest.mark.parametrize("made", [True, False])
def test_who_is_interrupted_leaves_no_connection_open(made: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    goes_on, ended = threading.Event(), threading.Event()

    def make() -> str:
        goes_on.wait(30)
        return "connection"

    def interrupted(future: Future[str], seconds: float) -> None:
        if made:
            goes_on.set()
            future.result(30)
        raise _Left

    monkeypatch.setattr(_dialling, "await_result", interrupted)
    with pytest.raises(_Left):
        _dialling.within(30, make, lambda connection: ended.set())
    goes_on.set()
    assert ended.wait(30)


def test_what_fails_is_not_ended() -> None:
    def fail() -> str:
        raise ConnectionRefusedError("refused")

    with pytest.raises(ConnectionRefusedError, match="refused"):
        _dialling.within(30, fail, lambda connection: pytest.fail(f"there is no {connection}"))
