"""A cache that nobody closed leaves nothing open: neither when it is collected nor when the process ends."""

from __future__ import annotations

import subprocess
import sys

import pytest

from tests.servers import shared, start_memcached, start_redis
from tests.serving import ROOT

SCRIPT = """
import asyncio, gc, sys
import cachemw

async def both(cache):
    await cache.aset("b", 2)
    return await cache.aget("b")

cache = cachemw.connect(sys.argv[1])
cache.set("a", 1)
assert (cache.get("a"), asyncio.run(both(cache))) == (1, 2)
if sys.argv[2] == "collected":
    cache.itself = cache
    del cache
    gc.collect()
    print("collected", flush=True)
"""


@pytest.mark.parametrize("end", ["collected", "at the exit"])
@pytest.mark.parametrize("scheme", ["redis", "tiered+redis", "memcached", "memcached+pylibmc"])
def test_no_connection_is_left_to_the_interpreter(scheme: str, end: str) -> None:
    server = shared(start_redis if "redis" in scheme else start_memcached)
    url = f"{scheme}://{server.address}" + ("/0" if "redis" in scheme else "")
    url += "?socket_timeout=5&connect_timeout=5" if "memcached" in scheme else "?socket_timeout=5"
    argv = [sys.executable, "-W", "error", "-X", "dev", "-c", SCRIPT, url, end]
    ended = subprocess.run(argv, cwd=ROOT, capture_output=True, text=True, timeout=60, check=False)
    assert (ended.returncode, ended.stderr) == (0, "")
