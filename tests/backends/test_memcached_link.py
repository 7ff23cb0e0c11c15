"""A blocking connection to memcached whose payload does not fit, or whose reply takes its time."""

from __future__ import annotations

import signal
import socket
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from types import SimpleNamespace
from typing import Any

import pytest

from cachemw.backends._memcached import commands
from cachemw.backends._memcached.link import Link
from cachemw.backends._memcached.replies import WireError
from cachemw.backends._sending import send_at_once
from cachemw.backends.memcached import PyLibMCCache
from tests.servers import shared, start_memcached

LARGE = ("large", b"x" * 8_000_000, None)


@contextmanager
def linked(serve: Callable[[socket.socket], object], *, timeout: float) -> Iterator[Link]:
    """A link to a server in a thread."""
    ours, theirs = socket.socketpair()
    ours.settimeout(timeout)
    client = SimpleNamespace(sock=ours, timeout=timeout, close=ours.close)
    thread = threading.Thread(target=serve, args=(theirs,))
    with ours, theirs:
        thread.start()
        try:
            yield Link(client)
        finally:
            ours.close()
            thread.join()


def read(server: socket.socket, size: int) -> bytes:
    data = bytearray()
    while len(data) < size and (piece := server.recv(65536)):
        data += piece
    return bytes(data)


def fill(connection: socket.socket) -> None:
    """Send until no more goes."""
    connection.setblocking(False)
    with suppress(BlockingIOError):
        while True:
            connection.send(b"\n")
    connection.settimeout(20)


def test_a_payload_larger_than_the_buffers_is_sent_whole() -> None:
    step = commands.put(LARGE)
    seen: list[bytes] = []

    def serve(server: socket.socket) -> None:
        for _ in range(2):
            seen.append(read(server, len(step[0])))
            server.sendall(b"STORED\r\n")

    with linked(serve, timeout=20) as link:
        assert link.ask(*step) is True
        assert link.ask(*step) is True
    assert seen == [step[0]] * 2


def test_a_payload_that_nobody_reads_has_one_deadline() -> None:
    done = threading.Event()
    with linked(lambda server: done.wait(20), timeout=0.1) as link:
        start = time.monotonic()
        with pytest.raises(TimeoutError):
            link.ask(*commands.put(LARGE))
        assert time.monotonic() - start < 5
        done.set()


def test_signals_do_not_put_the_deadline_off() -> None:
    done = threading.Event()
    ticks: list[int] = []
    handler = signal.signal(signal.SIGALRM, lambda number, _: ticks.append(number))
    try:
        with linked(lambda server: done.wait(10), timeout=0.3) as link:
            signal.setitimer(signal.ITIMER_REAL, 0.01, 0.01)  # as a profiler does
            start = time.monotonic()
            with pytest.raises(TimeoutError):
                link.ask(*commands.get(("a",)))
            assert time.monotonic() - start < 5
            assert ticks
            done.set()
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, handler)


def test_a_connection_without_any_room_is_waited_for() -> None:
    room = threading.Event()

    def serve(server: socket.socket) -> None:
        room.wait(20)
        with server.makefile("rb") as lines:
            while line := lines.readline():
                if line == b"get a\r\n":
                    server.sendall(b"END\r\n")

    with linked(serve, timeout=20) as link:
        fill(link._socket)
        assert send_at_once(link._socket, b"\n") == 0
        threading.Timer(0.05, room.set).start()
        assert link.ask(*commands.get(("a",))) == {}


def test_a_reply_in_pieces_leaves_the_next_one_its_whole_time() -> None:
    pause = threading.Event()

    def serve(server: socket.socket) -> None:
        server.recv(100)
        for piece in (b"VALUE a 0 4\r\n", b"ab", b"cd\r\n", b"END\r\n"):
            pause.wait(0.1)
            server.sendall(piece)
        server.recv(100)
        pause.wait(0.5)
        server.sendall(b"END\r\n")

    with linked(serve, timeout=0.8) as link:
        assert link.ask(*commands.get(("a",))) == {"a": b"abcd"}
        assert link.ask(*commands.get(("a",))) == {}


@pytest.mark.parametrize("pieces", [[b""], [b"EN", b""], [b"END\r\nx"], [b"EN", b"D\r\nx"]])
def test_an_end_and_what_is_too_much_are_no_reply(pieces: list[bytes]) -> None:
    def serve(server: socket.socket) -> None:
        server.recv(100)
        for piece in pieces:
            if not piece:
                server.shutdown(socket.SHUT_RDWR)
                return
            server.sendall(piece)
            time_to_read.wait(0.02)

    time_to_read = threading.Event()
    with linked(serve, timeout=20) as link, pytest.raises(WireError):
        link.ask(*commands.get(("a",)))


# -- pylibmc, whose connections cannot be looked at -----------------------------------------------------------------


class Clock:
    """The seconds that pylibmc's pool sees."""

    def __init__(self) -> None:
        self.ahead = 0.0

    def __call__(self) -> float:
        return time.monotonic() + self.ahead


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    clock = Clock()
    monkeypatch.setattr("cachemw.backends._memcached.pylibmc.monotonic", clock)
    return clock


PATIENT = {"OPTIONS": {"timeout": 5, "connect_timeout": 5}}


@pytest.mark.parametrize(
    ("call", "result"),
    [
        (lambda cache: cache.set("a", 3), None),
        (lambda cache: cache.add("b", 3), True),
        (lambda cache: cache.incr("a"), 3),
        (lambda cache: cache.delete("a"), True),
        (lambda cache: cache.get("a"), 2),
        (lambda cache: cache.clear(), None),
    ],
    ids=["set", "add", "incr", "delete", "get", "clear"],
)
def test_a_connection_that_ended_in_a_pause_is_not_used(
    clock: Clock, call: Callable[[Any], Any], result: object
) -> None:
    with start_memcached() as server:
        cache = PyLibMCCache(server.address, PATIENT)
        cache.set("a", 1)
        assert cache.incr("a") == 2
        server.kill()
        server.start()
        other = PyLibMCCache(server.address, PATIENT)
        other.set("a", 2)
        clock.ahead += 1
        assert call(cache) == result  # pylibmc's own would be refused, or find nothing
        for _ in range(2):
            cache.set("c", [1])
            assert cache.get("c") == [1]
        cache.close()
        other.close()


@pytest.mark.parametrize("binary", [False, True])
def test_a_counter_that_is_busy_keeps_within_64_bits(binary: bool) -> None:
    cache = PyLibMCCache(shared(start_memcached).address, {"OPTIONS": {**PATIENT["OPTIONS"], "binary": binary}})
    cache.delete("busy")
    with pytest.raises(ValueError, match="not found"):
        cache.incr("busy")
    cache.set("busy", 2**63 - 3)
    assert cache.incr("busy", 2) == 2**63 - 1
    for _ in range(3):
        with pytest.raises(OverflowError):
            cache.incr("busy")
        assert cache.incr("busy", 0) == 2**63 - 1
    cache.set("busy", "text")
    for _ in range(2):
        with pytest.raises(TypeError):
            cache.incr("busy")
    assert cache.get("busy") == "text"
    cache.set("busy", -(2**63))
    assert cache.incr("busy", 0) == -(2**63)
    cache.close()
