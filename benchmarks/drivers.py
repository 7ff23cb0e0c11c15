"""Servers without a socket: they call an application many times and keep the last response."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Coroutine, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from time import perf_counter
from typing import Any

from benchmarks import traffic

__all__ = ["AsgiDriver", "Driver", "Received", "WsgiDriver"]


@dataclass(slots=True)
class Received:
    """The last response of a batch."""

    status: int
    fields: list[tuple[str, str]]
    body: bytes

    def value(self, name: str) -> str | None:
        return next((value for key, value in self.fields if key.lower() == name), None)


class WsgiDriver:
    """Calls a WSGI application as a server does: iterates over the body and closes it."""

    def __init__(self, app: Any) -> None:
        self.app = app

    def run(self, paths: Sequence[str], fields: Iterable[tuple[str, str]] = ()) -> tuple[float, Received]:
        """Seconds for one request after the other, one for each path, and the last response."""
        app = self.app
        copy = traffic.environ(fields).copy
        head: tuple[str, list[tuple[str, str]]] = ("", [])
        chunks: list[bytes] = []

        def start_response(status: str, fields: list[tuple[str, str]], exc_info: object = None) -> Any:
            nonlocal head
            head = status, fields
            return chunks.append

        started = perf_counter()
        for path in paths:
            environ = copy()
            environ["PATH_INFO"] = path
            chunks = []
            result = app(environ, start_response)
            for chunk in result:
                chunks.append(chunk)
            if hasattr(result, "close"):
                result.close()
        seconds = perf_counter() - started
        return seconds, Received(int(head[0][:3]), list(head[1]), b"".join(chunks))

    def together(self, path: str, requests: int) -> tuple[float, list[Received | BaseException]]:
        """As many requests for one page at the same time, each in a thread of its own; seconds, and the responses."""
        started = 0.0

        def start() -> None:
            nonlocal started
            started = perf_counter()

        gate = threading.Barrier(requests, start)  # the threads are there before the clock starts

        def one(_: int) -> Received | BaseException:
            gate.wait()
            try:
                return self.run([path])[1]
            except Exception as error:
                return error

        with ThreadPoolExecutor(requests) as pool:
            answers = list(pool.map(one, range(requests)))
            return perf_counter() - started, answers


class _Connection:
    """What a request receives: its empty body, and after that nothing, as from a client that waits."""

    __slots__ = ("chunks", "start", "told")

    def __init__(self) -> None:
        self.told = False
        self.start: dict[str, Any] = {}
        self.chunks: list[bytes] = []

    async def receive(self) -> dict[str, Any]:
        if self.told:
            await asyncio.get_running_loop().create_future()
        self.told = True
        return {"type": "http.request", "body": b"", "more_body": False}

    async def send(self, message: dict[str, Any]) -> None:
        if message["type"] == "http.response.body":
            self.chunks.append(message.get("body", b""))
        else:
            self.start = message


class AsgiDriver:
    """Calls an ASGI application in one event loop, one request after the other."""

    def __init__(self, app: Any, *, startup: Coroutine[Any, Any, None] | None = None) -> None:
        self.app = app
        self.loop = asyncio.new_event_loop()
        if startup is not None:
            self.loop.run_until_complete(startup)

    def run(self, paths: Sequence[str], fields: Iterable[tuple[str, str]] = ()) -> tuple[float, Received]:
        """Seconds for one request after the other, one for each path, and the last response."""
        return self.loop.run_until_complete(self._run(paths, fields))

    def together(self, path: str, requests: int) -> tuple[float, list[Received | BaseException]]:
        """As many requests for one page at the same time, each in a task of its own; seconds, and the responses."""

        async def one() -> Received:
            return (await self._run([path], ()))[1]

        async def every() -> list[Received | BaseException]:
            return await asyncio.gather(*(one() for _ in range(requests)), return_exceptions=True)

        started = perf_counter()
        answers = self.loop.run_until_complete(every())
        return perf_counter() - started, answers

    async def _run(self, paths: Sequence[str], fields: Iterable[tuple[str, str]]) -> tuple[float, Received]:
        app = self.app
        copy = traffic.scope(fields).copy
        targets = [(path, path.encode()) for path in paths]
        connection = _Connection()
        receive, send = connection.receive, connection.send
        started = perf_counter()
        for path, raw_path in targets:
            scope = copy()
            scope["path"] = path
            scope["raw_path"] = raw_path
            connection.told = False
            connection.chunks = []
            await app(scope, receive, send)
        seconds = perf_counter() - started
        fields = [(name.decode("latin-1"), value.decode("latin-1")) for name, value in connection.start["headers"]]
        return seconds, Received(connection.start["status"], fields, b"".join(connection.chunks))


Driver = WsgiDriver | AsgiDriver
