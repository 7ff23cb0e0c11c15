"""What the parts of the contract share: a cache, used by its synchronous or its asynchronous methods."""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import Callable, Coroutine, Iterator
from typing import Any, ClassVar

import pytest

from cachemw.backends.base import BaseCache

__all__ = ["Connect", "Contract", "Face", "MakeCache"]

MakeCache = Callable[..., BaseCache]


class Face:
    """A cache by the names of its synchronous methods; with `run`, `get` calls `aget` on an event loop, and so on."""

    def __init__(self, cache: BaseCache, run: Callable[[Coroutine[Any, Any, Any]], Any] | None) -> None:
        self.cache = cache
        self.run = run

    def __getattr__(self, name: str) -> Any:
        if self.run is None:
            return getattr(self.cache, name)
        run, method = self.run, getattr(self.cache, f"_a{name[1:]}" if name.startswith("_") else f"a{name}")
        return lambda *args, **kwargs: run(method(*args, **kwargs))

    def __contains__(self, key: Any) -> bool:
        return key in self.cache if self.run is None else bool(self.has_key(key))


Connect = Callable[..., Face]


class Contract:
    """The base of the contract's parts; its attributes and methods may be replaced for your store."""

    #: The shortest timeout that the store can hold, in seconds.
    shortest_timeout: ClassVar[float] = 0.05
    #: Does the store know the remaining timeout of an entry? Then `incr_version` keeps it.
    tells_timeout: ClassVar[bool] = True

    @pytest.fixture
    def make_cache(self) -> MakeCache:
        """Replace this: `make_cache(**params)` returns a cache, always on the same store."""
        raise NotImplementedError("a subclass of BackendContract has a fixture `make_cache`")

    @pytest.fixture(params=["sync", "async"])
    def connect(self, request: pytest.FixtureRequest, make_cache: MakeCache) -> Iterator[Connect]:
        """`connect(**params)` returns a `Face`, sync or async, on a store that was empty when the test began."""
        opened: list[BaseCache] = []
        with asyncio.Runner() as runner:
            run = runner.run if request.param == "async" else None

            def connect_one(**params: Any) -> Face:
                cache = make_cache(**params)
                opened.append(cache)
                return Face(cache, run)

            connect_one().clear()
            yield connect_one
            for cache in opened:
                runner.run(cache.aclose())
                cache.close()

    @pytest.fixture
    def cache(self, connect: Connect) -> Face:
        """A cache without params."""
        return connect()

    def pass_time(self, seconds: float) -> None:
        """Let time pass; replace this if the test has its own clock."""
        threading.Event().wait(seconds)

    def wait_until_gone(self, cache: Face, key: Any, timeout: float) -> None:
        """Wait until an entry has expired, which must happen soon after its timeout."""
        give_up = time.monotonic() + timeout + 2
        self.pass_time(timeout)
        while key in cache:
            assert time.monotonic() < give_up, f"{key!r} outlives its timeout of {timeout} s"
            self.pass_time(0.01)
