"""Any order of operations on Redis and memcached does what it does to a dictionary with a clock: the servers' own."""

from __future__ import annotations

import socket
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from functools import partial

import pytest

from cachemw.backends.base import BaseCache
from cachemw.backends.memcached import PyLibMCCache, PyMemcacheCache
from cachemw.backends.redis import RedisCache
from tests.backends.test_machine import store_machine
from tests.downstream.servers import Clock
from tests.servers import memcached_stats, start_memcached, start_redis, until

Store = tuple[Callable[[], BaseCache], Callable[[float], None]]


def redis(stack: ExitStack, clock: Clock) -> Store:
    server = stack.enter_context(start_redis(environ={**clock.environ, "TEST_CLOCK_STANDS": "wall"}))
    options = {"socket_timeout": 5, "socket_connect_timeout": 5}

    def pass_time(seconds: float) -> None:
        clock.advance(seconds + 0.001)  # a key lives to the end of its last millisecond

    return lambda: RedisCache(f"redis://{server.address}/0", {"OPTIONS": options}), pass_time


def memcached(stack: ExitStack, clock: Clock, make: type[PyMemcacheCache | PyLibMCCache]) -> Store:
    server = stack.enter_context(start_memcached(environ={**clock.environ, "TEST_CLOCK_STANDS": "all"}))
    stack.callback(server.kill)  # asked to end, it would wait for time to pass
    options = {"timeout": 5, "connect_timeout": 5}
    now = int(memcached_stats(server)["time"])

    def pass_time(seconds: float) -> None:
        nonlocal now
        now += int(seconds)
        clock.advance(seconds)
        with socket.create_connection((server.host, server.port)):  # which wakes the thread that looks at the clock
            until(lambda: int(memcached_stats(server)["time"]) == now, "it has seen the time")

    return lambda: make(server.address, {"OPTIONS": options}), pass_time


STORES: dict[str, Callable[[ExitStack, Clock], Store]] = {
    "redis": redis,
    "pymemcache": partial(memcached, make=PyMemcacheCache),
    "pylibmc": partial(memcached, make=PyLibMCCache),
}


@pytest.fixture(params=STORES)
def store(request: pytest.FixtureRequest) -> Iterator[Store]:
    with ExitStack() as stack:
        yield STORES[request.param](stack, stack.enter_context(Clock()))


def test_any_order_of_operations(store: Store) -> None:
    make, pass_time = store
    store_machine(make, pass_time, examples=50)().runTest()
