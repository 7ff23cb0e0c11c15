"""A cache that nobody closed leaves nothing open: neither when it is collected nor when the process ends."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.servers import (
    mariadb_url,
    postgresql_url,
    shared,
    start_mariadb,
    start_memcached,
    start_postgresql,
    start_redis,
)
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


def _memcached(scheme: str) -> str:
    return f"{scheme}://{shared(start_memcached).address}?socket_timeout=5&connect_timeout=5"


#: By name: the URL of a store, in a directory if it wants one.
URLS: dict[str, Callable[[Path], str]] = {
    "redis": lambda path: f"redis://{shared(start_redis).address}/0?socket_timeout=5",
    "tiered+redis": lambda path: f"tiered+redis://{shared(start_redis).address}/0?socket_timeout=5",
    "memcached": lambda path: _memcached("memcached"),
    "memcached+pylibmc": lambda path: _memcached("memcached+pylibmc"),
    "sqlite": lambda path: f"db+sqlite:///{path}/cache.sqlite3",
    "postgresql": lambda path: f"db+{postgresql_url(shared(start_postgresql))}?deadline=5&create=1&table=endings",
    "mariadb": lambda path: f"db+{mariadb_url(shared(start_mariadb))}?deadline=5&create=1&table=endings",
}


@pytest.mark.parametrize("end", ["collected", "at the exit"])
@pytest.mark.parametrize("store", URLS)
def test_no_connection_is_left_to_the_interpreter(store: str, end: str, tmp_path: Path) -> None:
    url = URLS[store](tmp_path)
    argv = [sys.executable, "-W", "error", "-X", "dev", "-c", SCRIPT, url, end]
    ended = subprocess.run(argv, cwd=ROOT, capture_output=True, text=True, timeout=60, check=False)
    assert (ended.returncode, ended.stderr) == (0, "")


FINALIZER = """
import builtins, sys
import cachemw

stale = [("Cache-Control", "max-age=5, stale-while-revalidate=60"), ("Age", "10")]
said = []

def application(environ, start_response):
    start_response("200 OK", stale)
    return [b"page"]

def ask(site):
    environ = {"REQUEST_METHOD": "GET", "PATH_INFO": "/", "HTTP_HOST": "example.org", "wsgi.url_scheme": "http"}
    answer = site(environ, lambda status, headers, exc_info=None: said.append(dict(headers)["Cache-Status"]))
    b"".join(answer)
    if hasattr(answer, "close"):
        answer.close()

class Last:
    def __del__(self):
        for site in sites:
            ask(site)
        assert "; hit; ttl=-" in said[-1], said
        print("asked")

sites = [cachemw.CacheMiddleware(application, cache=url) for url in sys.argv[1:]]
ask(sites[-1])
builtins.last = Last()  # collected when hardly anything is left
"""


def test_a_finalizer_that_uses_a_cache_at_the_very_end_does_not_keep_the_process() -> None:
    """The stores are not there, and the page is stale: each has a thread begin, and Python lets none run any more."""
    stores = ["redis://127.0.0.1:1/0", "db+postgresql://user@127.0.0.1:1/name", "locmem://"]
    argv = [sys.executable, "-X", "dev", "-c", FINALIZER, *stores]
    ended = subprocess.run(argv, cwd=ROOT, capture_output=True, text=True, timeout=60, check=False)
    assert (ended.returncode, ended.stdout) == (0, "asked\n"), ended.stderr
