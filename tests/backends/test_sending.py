"""What is sent without a look, and what then has to wait for room."""

from __future__ import annotations

import socket
import threading
import time
from collections.abc import Iterator
from types import SimpleNamespace

import pytest

from cachemw.backends._redis.threads import Link
from cachemw.backends._sending import send_at_once

LARGE = b"x" * 8_000_000


@pytest.fixture
def ends() -> Iterator[tuple[socket.socket, socket.socket]]:
    ours, theirs = socket.socketpair()
    ours.settimeout(20)
    with ours, theirs:
        yield ours, theirs


def test_what_fits_is_sent_and_counted(ends: tuple[socket.socket, socket.socket]) -> None:
    ours, theirs = ends
    assert send_at_once(ours, b"all of it") == 9
    assert theirs.recv(100) == b"all of it"
    sent = send_at_once(ours, LARGE)
    assert 0 < sent < len(LARGE)
    assert send_at_once(ours, LARGE) == 0
    assert len(theirs.recv(sent, socket.MSG_WAITALL)) == sent


def test_a_socket_of_another_kind_sends_in_its_own_way() -> None:
    class Encrypted(socket.socket):
        def send(self, data: object, flags: int = 0) -> int:
            return 3

    with Encrypted() as connection:
        assert send_at_once(connection, b"secret") == 3


def test_a_connection_that_was_closed_meanwhile_is_an_error(ends: tuple[socket.socket, socket.socket]) -> None:
    ours, theirs = ends
    theirs.close()
    with pytest.raises(BrokenPipeError):
        send_at_once(ours, b"to nobody")
    ours.close()  # its number may be another file's by now
    with pytest.raises(OSError, match="Bad file descriptor"):
        send_at_once(ours, b"to nobody")


def test_redis_is_sent_the_rest_as_it_reads(ends: tuple[socket.socket, socket.socket]) -> None:
    ours, theirs = ends
    received = bytearray()

    def read() -> None:
        while len(received) < len(LARGE):
            received.extend(theirs.recv(1_000_000))

    reader = threading.Thread(target=read)
    reader.start()
    Link(SimpleNamespace(_sock=ours)).send(LARGE, time.monotonic() + 20)
    reader.join()
    assert received == LARGE


def test_redis_that_does_not_read_costs_no_more_than_the_deadline(ends: tuple[socket.socket, socket.socket]) -> None:
    ours, _ = ends
    began = time.monotonic()
    with pytest.raises(TimeoutError):
        Link(SimpleNamespace(_sock=ours)).send(LARGE, began + 0.1)
    assert time.monotonic() - began < 5
