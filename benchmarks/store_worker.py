"""One client of a store in a process of its own: `python -m benchmarks.store_worker NAME URL`."""

from __future__ import annotations

import asyncio
import gc
import inspect
import sys
from collections.abc import Callable
from time import perf_counter
from typing import Any

from benchmarks.raw_clients import Client
from benchmarks.store_subjects import CLIENTS
from benchmarks.worker import answer

__all__ = ["StoreBench"]

_KEYS = 1000
_MANY = 100


class StoreBench:
    """A client with a thousand entries, a thousand keys to write, and a counter."""

    def __init__(self, name: str, url: str) -> None:
        self.loop = asyncio.new_event_loop()
        self.asynchronous = CLIENTS[name].asynchronous
        self.client: Client = self._wait(self._build(name, url)) if self.asynchronous else CLIENTS[name].build(url)
        self.keys = [f"{name}-{number}" for number in range(_KEYS)]
        self.counter = f"{name}-counter"
        client, value = self.client, self.client.value
        for key in self.keys:
            self._wait(client.set(key, value))
        if client.number is not None:
            self._wait(client.set(self.counter, client.number))
        if self._wait(client.get(self.keys[7])) != value:
            raise RuntimeError("get does not return what set was given")
        if client.get_many is not None and len(self._wait(client.get_many(self.keys[:_MANY]))) != _MANY:
            raise RuntimeError("get_many does not return every entry")
        gc.collect()
        gc.freeze()

    async def _build(self, name: str, url: str) -> Client:
        return CLIENTS[name].build(url)

    def _wait(self, result: Any) -> Any:
        """The result, of a coroutine too."""
        return self.loop.run_until_complete(result) if inspect.isawaitable(result) else result

    def run(self, operation: str, times: int) -> float | None:
        """µs of one operation; None where the client does not have it."""
        client = self.client
        function = getattr(client, operation)
        if function is None:
            return None
        arguments = self._arguments(operation, times)
        if self.asynchronous:
            return self.loop.run_until_complete(self._timed(function, arguments))
        started = perf_counter()
        for given in arguments:
            function(*given)
        return (perf_counter() - started) / times * 1e6

    async def _timed(self, function: Callable[..., Any], arguments: list[tuple[Any, ...]]) -> float:
        started = perf_counter()
        for given in arguments:
            await function(*given)
        return (perf_counter() - started) / len(arguments) * 1e6

    def _arguments(self, operation: str, times: int) -> list[tuple[Any, ...]]:
        keys, value = self.keys, self.client.value
        if operation == "get":
            return [(keys[number % _KEYS],) for number in range(times)]
        if operation == "set":
            return [(keys[number % _KEYS], value) for number in range(times)]
        if operation == "incr":
            return [(self.counter,)] * times
        chosen = keys[:_MANY]
        return [(chosen,)] * times if operation == "get_many" else [(dict.fromkeys(chosen, value),)] * times


if __name__ == "__main__":
    answer(lambda: StoreBench(*sys.argv[1:]))
