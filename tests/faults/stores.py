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

#: By name: what starts the server, and what opens the store at "host:port" with these OPTIONS.
Networked = tuple[Callable[[], Server], Callable[[str, Mapping[str, Any]], BaseCache]]


def _database(url: str) -> Callable[[str, Mapping[str, Any]], BaseCache]:
    return lambda address, options: DatabaseCache(url.format(address=address), {"OPTIONS": {"create": True, **options}})


def _tiered(address: str, options: Mapping[str, Any]) -> BaseCache:
    location = f"redis://{address}/0"
    shared = {"BACKEND": "cachemw.backends.redis.RedisCache", "LOCATION": location, "OPTIONS": options}
    return TieredCache("", {"OPTIONS": {"shared": shared}})


NETWORKED: Final[Mapping[str, Networked]] = {
    "redis": (start_redis, lambda address, options: RedisCache(f"redis://{address}/0", {"OPTIONS": options})),
    "tiered": (start_redis, _tiered),
    "memcached": (start_memcached, lambda address, options: PyMemcacheCache(address, {"OPTIONS": options})),
    "pylibmc": (start_memcached, lambda address, options: PyLibMCCache(address, {"OPTIONS": options})),
    "postgresql": (start_postgresql, _database("postgresql://cachemw@{address}/cachemw")),
    "mariadb": (start_mariadb, _database("mariadb://cachemw:secret@{address}/cachemw")),
}
#: Deadlines for tests that are not about them: the machine may be busy.
_PATIENT: Final[Mapping[str, Mapping[str, float]]] = {
    **{key: {"socket_timeout": 5, "socket_connect_timeout": 5} for key in ("redis", "tiered")},
    **{key: {"timeout": 5, "connect_timeout": 5} for key in ("memcached", "pylibmc")},
    **{key: {"deadline": 5} for key in ("postgresql", "mariadb")},
}


def open_networked(name: str, address: str, *, patient: bool = False) -> BaseCache:
    """The store `name` on the server at "host:port", with the deadlines that it has by itself unless `patient`."""
    return NETWORKED[name][1](address, _PATIENT[name] if patient else {})
