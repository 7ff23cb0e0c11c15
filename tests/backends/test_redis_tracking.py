"""Hearing of a Redis server's changes, on a connection whose other end is the test's."""

from __future__ import annotations

import gc
import socket
import threading
from collections.abc import Iterator

import pytest

from cachemw.backends._redis.tracking import Invalidations
from tests.servers import until

KEY = b">2\r\n$10\r\ninvalidate\r\n*1\r\n$3\r\nkey\r\n"
OTHER = b">2\r\n$16\r\nserver-cpu-usage\r\n$3\r\nkey\r\n"
ALL = b">2\r\n$10\r\ninvalidate\r\n_\r\n"

Ends = tuple[socket.socket, socket.socket]


class Listener:
    """Notes what it hears."""

    def __init__(self) -> None:
        self.heard: list[list[str] | str] = []

    def on_keys(self, keys: list[str]) -> None:
        self.heard.append(keys)

    def on_flush(self) -> None:
        self.heard.append("all")


class Connection:
    """As redis-py's."""

    def __init__(self, channel: socket.socket) -> None:
        self._sock = channel

    def get_protocol(self) -> int:
        return 3

    def disconnect(self) -> None:
        self._sock.close()


@pytest.fixture
def ends() -> Iterator[Ends]:
    """The server's end and the client's."""
    server, client = socket.socketpair()
    with server, client:
        server.settimeout(5)
        yield server, client


def listening(ends: Ends, listener: Listener) -> tuple[Invalidations, threading.Thread]:
    server, client = ends
    invalidations = Invalidations(
        lambda: Connection(client), "", on_keys=listener.on_keys, on_flush=listener.on_flush, timeout=5
    )
    invalidations.start()
    assert invalidations._thread is not None
    assert b"TRACKING" in server.recv(1000)
    server.sendall(b"+OK\r\n")
    until(lambda: invalidations.ready, "the subscription is confirmed", 5)
    return invalidations, invalidations._thread


def test_changes_are_told_in_their_order_and_nothing_else(ends: Ends) -> None:
    listener = Listener()
    invalidations, _ = listening(ends, listener)
    ends[0].sendall(KEY + OTHER + ALL + KEY)
    until(lambda: len(listener.heard) == 4, "they are heard", 5)
    assert listener.heard == ["all", ["key"], "all", ["key"]]
    invalidations.stop()
    assert listener.heard[4:] == ["all"]
    assert not invalidations.ready


def test_a_finalizer_that_uses_the_cache_while_it_begins_to_listen(ends: Ends, monkeypatch: pytest.MonkeyPatch) -> None:
    listener = Listener()
    server, client = ends
    invalidations = Invalidations(
        lambda: Connection(client), "", on_keys=listener.on_keys, on_flush=listener.on_flush, timeout=5
    )
    begin = threading.Thread.start
    listeners: list[threading.Thread] = []

    def start(thread: threading.Thread) -> None:
        if thread.name == "cachemw-redis-invalidations":
            listeners.append(thread)
            invalidations.start()
        begin(thread)

    monkeypatch.setattr(threading.Thread, "start", start)
    starting = threading.Thread(target=invalidations.start, daemon=True)
    starting.start()
    starting.join(5)
    assert not starting.is_alive()
    assert b"TRACKING" in server.recv(1000)
    assert len(listeners) == 1
    invalidations.stop()


def test_two_who_begin_to_listen_at_the_same_time_have_one_thread(ends: Ends) -> None:
    listener = Listener()
    server, client = ends
    invalidations = Invalidations(
        lambda: Connection(client), "", on_keys=listener.on_keys, on_flush=listener.on_flush, timeout=5
    )
    lock = invalidations._lock
    begun: list[threading.Thread | None] = []

    class Meanwhile:
        """The lock, which somebody else has had just before."""

        def __enter__(self) -> None:
            invalidations._lock = lock
            invalidations.start()
            begun.append(invalidations._thread)

        def __exit__(self, *error: object) -> None:
            """It is free again."""

    invalidations._lock = Meanwhile()  # type: ignore[assignment]
    invalidations.start()
    assert [invalidations._thread] == begun != [None]
    assert b"TRACKING" in server.recv(1000)
    invalidations.stop()


def test_where_no_thread_is_to_be_had_nothing_is_heard_until_one_is(
    ends: Ends, monkeypatch: pytest.MonkeyPatch
) -> None:
    listener = Listener()
    server, client = ends
    invalidations = Invalidations(
        lambda: Connection(client), "", on_keys=listener.on_keys, on_flush=listener.on_flush, timeout=5
    )

    def refuse(thread: threading.Thread) -> None:
        raise RuntimeError("can't start new thread")

    with monkeypatch.context() as patch:
        patch.setattr(threading.Thread, "start", refuse)
        invalidations.start()
    assert not invalidations.ready
    invalidations.start()
    assert b"TRACKING" in server.recv(1000)
    invalidations.stop()


def test_when_nobody_listens_any_more_the_thread_ends_without_a_word(ends: Ends) -> None:
    """What comes before the connection ends is for nobody; an error in a thread would fail this test."""
    listener = Listener()
    _, thread = listening(ends, listener)
    del listener
    gc.collect()
    ends[0].sendall(KEY + ALL)
    ends[0].shutdown(socket.SHUT_WR)
    thread.join(5)
    assert not thread.is_alive()
