"""The stores that the page cache is put over: how each is opened, on a server's address or in a directory."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, Final

from cachemw.backends.base import BaseCache
from cachemw.backends.db import DatabaseCache
from cachemw.backends.memcached import PyLibMCCache, PyMemcacheCache
from cachemw.backends.redis import RedisCache
from cachemw.backends.tiered import TieredCache
from tests.servers import Server, start_mariadb, start_memcached, start_postgresql, start_redis

__all__ = ["NETWORKED", "Networked", "open_networked"]

#: By name: what starts the server, and what opens the store at "host:port".
Networked = tuple[Callable[[], Server], Callable[[str], BaseCache]]


def _database(url: str) -> Callable[[str], BaseCache]:
    return lambda address: DatabaseCache(url.format(address=address), {"OPTIONS": {"create": True}})


NETWORKED: Final[Mapping[str, Networked]] = {
    "redis": (start_redis, lambda address: RedisCache(f"redis://{address}/0", {})),
    "tiered": (start_redis, lambda address: TieredCache(f"redis://{address}/0", {})),
    "memcached": (start_memcached, lambda address: PyMemcacheCache(address, {})),
    "pylibmc": (start_memcached, lambda address: PyLibMCCache(address, {})),
    "postgresql": (start_postgresql, _database("postgresql://cachemw@{address}/cachemw")),
    "mariadb": (start_mariadb, _database("mariadb://cachemw:secret@{address}/cachemw")),
}


def open_networked(name: str, address: str, **params: Any) -> BaseCache:
    """The store `name` on the server at "host:port"."""
    return NETWORKED[name][1](address)
