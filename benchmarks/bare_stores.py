# mypy: disable-error-code="import-untyped"
"""Stores of bytes at their barest, for the prototypes: `get(key)` and `put(key, packed, seconds)`."""

from __future__ import annotations

import asyncio
import os
import socket
import sqlite3
from collections import deque
from hashlib import blake2b
from time import time
from typing import Any

import hiredis

__all__ = ["AsyncRedis", "Files", "Memcached", "Redis", "Sqlite"]


def _command(*parts: bytes) -> bytes:
    return b"*%d\r\n" % len(parts) + b"".join(b"$%d\r\n%b\r\n" % (len(part), part) for part in parts)


class _Link(asyncio.Protocol):
    """One connection; replies come in the order of the commands."""

    def __init__(self) -> None:
        self.reader = hiredis.Reader()
        self.waiting: deque[asyncio.Future[Any]] = deque()
        self.loop = asyncio.get_running_loop()

    def connection_made(self, transport: Any) -> None:
        self.transport = transport

    def data_received(self, data: bytes) -> None:
        self.reader.feed(data)
        while (reply := self.reader.gets()) is not False:
            self.waiting.popleft().set_result(reply)

    def call(self, *parts: bytes) -> asyncio.Future[Any]:
        future = self.loop.create_future()
        self.waiting.append(future)
        self.transport.write(_command(*parts))
        return future


class AsyncRedis:
    """One connection to Redis over an asyncio Protocol."""

    def __init__(self, port: int) -> None:
        self.port = port
        self.link: _Link | None = None

    async def get(self, key: bytes) -> Any:
        if self.link is None:
            _, self.link = await asyncio.get_running_loop().create_connection(_Link, "127.0.0.1", self.port)
        return await self.link.call(b"GET", key)

    async def put(self, key: bytes, packed: bytes, seconds: int) -> None:
        assert self.link is not None
        await self.link.call(b"SET", key, packed, b"EX", b"%d" % seconds)


class Redis:
    """One blocking connection to Redis."""

    def __init__(self, port: int) -> None:
        self.socket = socket.create_connection(("127.0.0.1", port))
        self.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self.reader = hiredis.Reader()

    def call(self, *parts: bytes) -> Any:
        self.socket.sendall(_command(*parts))
        while (reply := self.reader.gets()) is False:
            self.reader.feed(self.socket.recv(65536))
        return reply

    def get(self, key: bytes) -> Any:
        return self.call(b"GET", key)

    def put(self, key: bytes, packed: bytes, seconds: int) -> None:
        self.call(b"SET", key, packed, b"EX", b"%d" % seconds)


class Memcached:
    """pymemcache."""

    def __init__(self, port: int) -> None:
        from pymemcache import Client

        self.client = Client(("127.0.0.1", port), no_delay=True)

    def get(self, key: bytes) -> Any:
        return self.client.get(key)

    def put(self, key: bytes, packed: bytes, seconds: int) -> None:
        self.client.set(key, packed, seconds, noreply=False)


class Files:
    """A file for each page, in one folder."""

    def __init__(self, folder: str) -> None:
        self.folder = folder
        os.makedirs(folder, exist_ok=True)

    def _path(self, key: bytes) -> str:
        return f"{self.folder}/{blake2b(key, digest_size=16).hexdigest()}"

    def get(self, key: bytes) -> Any:
        try:
            descriptor = os.open(self._path(key), os.O_RDONLY)
        except FileNotFoundError:
            return None
        try:
            return os.read(descriptor, os.fstat(descriptor).st_size)
        finally:
            os.close(descriptor)

    def put(self, key: bytes, packed: bytes, seconds: int) -> None:
        path = self._path(key)
        with open(path + ".new", "wb") as file:
            file.write(packed)
        os.replace(path + ".new", path)


class Sqlite:
    """One table."""

    def __init__(self, path: str) -> None:
        self.connection = sqlite3.connect(path, isolation_level=None)
        self.connection.execute("PRAGMA journal_mode = WAL")
        self.connection.execute("PRAGMA synchronous = NORMAL")
        self.connection.execute("CREATE TABLE IF NOT EXISTS pages (key BLOB PRIMARY KEY, packed BLOB, expires REAL)")

    def get(self, key: bytes) -> Any:
        found = self.connection.execute("SELECT packed FROM pages WHERE key = ?", (key,)).fetchone()
        return found and found[0]

    def put(self, key: bytes, packed: bytes, seconds: int) -> None:
        self.connection.execute("REPLACE INTO pages VALUES (?, ?, ?)", (key, packed, time() + seconds))
