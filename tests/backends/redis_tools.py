"""What the Redis tests share: a cache through both of its halves, and a server that says what a test wants said."""

from __future__ import annotations

import asyncio
import contextlib
import socket
import socketserver
import threading
from collections.abc import Callable, Iterator, Mapping
from typing import Any, ClassVar, Self

import hiredis
import pytest

from cachemw.backends.redis import RedisCache
from cachemw.testing import Face

__all__ = ["BothHalves", "FakeRedis", "OpenCache"]

#: (location, params) -> the half of a cache that is under test
OpenCache = Callable[..., Face]


class BothHalves:
    """Each test of a subclass runs on the synchronous and on the asynchronous half of its caches.

    `patience` are options for a machine that is busy, where the tests are not about deadlines.
    """

    patience: ClassVar[Mapping[str, Any]] = {}

    @pytest.fixture(params=["sync", "async"])
    def open_cache(self, request: pytest.FixtureRequest) -> Iterator[OpenCache]:
        """`open_cache(location, **options)` opens a cache, which is closed after the test."""
        opened: list[RedisCache] = []
        with asyncio.Runner() as runner:
            run = runner.run if request.param == "async" else None

            def open_one(location: Any, params: dict[str, Any] | None = None, **options: Any) -> Face:
                cache = RedisCache(location, {**(params or {}), "OPTIONS": {**self.patience, **options}})
                opened.append(cache)
                return Face(cache, run)

            yield open_one
            for cache in opened:
                runner.run(cache.aclose())
                cache.close()


class FakeRedis:
    """Listens like Redis, and answers each command with what `answer(words)` returns (None: nothing).

    `commands` is what it was told, the handshake included.
    """

    HANDSHAKE = {  # noqa: RUF012
        b"HELLO": b"%1\r\n$5\r\nproto\r\n:3\r\n",
        b"CLIENT": b"+OK\r\n",
        b"SELECT": b"+OK\r\n",
    }

    def __init__(self, answer: Callable[[list[bytes]], bytes | None]) -> None:
        self.answer = answer
        self.commands: list[list[bytes]] = []
        self.ending = threading.Event()
        self._connections: list[socket.socket] = []
        fake = self

        class Handler(socketserver.BaseRequestHandler):
            def handle(self) -> None:
                fake._connections.append(self.request)
                with contextlib.suppress(OSError):
                    fake._serve(self.request)

        class Listener(socketserver.ThreadingTCPServer):
            daemon_threads = True
            block_on_close = True

        self._listener = Listener(("127.0.0.1", 0), Handler)
        self._thread = threading.Thread(target=self._listener.serve_forever, kwargs={"poll_interval": 0.01})

    def _serve(self, connection: socket.socket) -> None:
        reader = hiredis.Reader()
        while data := connection.recv(65536):
            reader.feed(data)
            while (words := reader.gets()) is not False:
                self.commands.append(words)
                reply = self.HANDSHAKE.get(words[0].upper()) or self.answer(words)
                if reply is not None:
                    connection.sendall(reply)

    @property
    def url(self) -> str:
        """Where it listens."""
        host, port = self._listener.server_address[:2]
        return f"redis://{host!s}:{port}/0"

    def hang_up(self) -> None:
        """Close all connections."""
        for connection in self._connections:
            with contextlib.suppress(OSError):
                connection.shutdown(socket.SHUT_RDWR)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *exc_info: object) -> None:
        self.ending.set()
        self._listener.shutdown()
        self.hang_up()
        self._listener.server_close()
        self._thread.join()
