"""Memcached: `PyMemcacheCache` and `PyLibMCCache`, with an asyncio client of their own, all on one ring of servers.

Rule 1: which server has a key does not depend on the client: WSGI and ASGI workers, whatever they are configured with,
find each other's entries. The servers have to be named alike everywhere ("localhost" and "127.0.0.1" are two).
Rule 2: a server that does not answer is left out, its keys go to the next one, and it is back within 2 seconds
(see `_memcached.ring`); BackendUnavailable is raised when none is left.
Rule 3: what memcached cannot do is said here: integers count within 64 bits, timeouts have whole seconds (a fraction
is rounded up), `clear` empties the servers, other applications' entries included.
"""

from __future__ import annotations

import ssl
from collections.abc import Awaitable, Callable, Mapping, Sequence
from functools import partial
from typing import Any, ClassVar

from cachemw._values import boolean, refuse
from cachemw.backends._memcached.asyncio import AsyncClient
from cachemw.backends._memcached.cache import COMMON, MemcachedCache
from cachemw.backends._memcached.clients import Pool, PyMemcachePool
from cachemw.backends._memcached.ring import Node
from cachemw.backends.base import offload
from cachemw.errors import ImproperlyConfigured

__all__ = ["PyLibMCCache", "PyMemcacheCache"]


class PyMemcacheCache(MemcachedCache):
    """Memcached by pymemcache, and by cachemw's own client for asyncio.

    OPTIONS, besides those of every Memcached cache: `allow_unicode_keys` (true), `no_delay` (true),
    `socket_keepalive` (pymemcache's `KeepaliveOpts`), `tls_context` (an `ssl.SSLContext`), `use_pooling` (connections
    are always pooled), `ignore_exc` (pymemcache's name for `fail_open`) and `default_noreply` (only false: results have
    to be real).
    """

    option_names: ClassVar[frozenset[str] | None] = COMMON | {
        "allow_unicode_keys",
        "default_noreply",
        "ignore_exc",
        "no_delay",
        "socket_keepalive",
        "tls_context",
        "use_pooling",
    }

    def __init__(self, location: str | Sequence[str], params: Mapping[str, Any] | None = None) -> None:
        super().__init__(location, params)
        if boolean("OPTIONS['default_noreply']", self.options.get("default_noreply", False)):
            raise refuse("OPTIONS['default_noreply']", True, "false: nobody would learn that a value was not stored")

    def _options(self, given: object) -> dict[str, Any]:
        options = super()._options(given)
        if "ignore_exc" in options:
            ignores = boolean("OPTIONS['ignore_exc']", options.pop("ignore_exc"))
            options.setdefault("fail_open", ignores)
        return options

    def _make_pool(self, node: Node) -> Pool[Any]:
        options: dict[str, Any] = {
            name: self.options[name] for name in ("socket_keepalive", "tls_context") if name in self.options
        }
        options["no_delay"] = boolean("OPTIONS['no_delay']", self.options.get("no_delay", True))
        options["timeout"] = self._timeout
        options["connect_timeout"] = self._connect_timeout
        return PyMemcachePool(node, size=self._pool_size, options=options)

    def _make_client(self, node: Node) -> Any:
        tls: ssl.SSLContext | None = self.options.get("tls_context")
        return AsyncClient(node, timeout=self._timeout, connect_timeout=self._connect_timeout, tls=tls)


class PyLibMCCache(MemcachedCache):
    """Memcached by pylibmc (`pip install 'cachemw[pylibmc]'`), and by cachemw's own client for asyncio.

    OPTIONS, besides those of every Memcached cache: `binary`, `username` and `password` (SASL, which has only the
    binary protocol: asyncio then waits for pylibmc in threads) and `behaviors`, by pylibmc's names. Those that choose
    among servers (`distribution`, `hash`, `ketama`, …) have no effect, see Rule 1 of the module.

    Without SASL, the servers have to understand the text protocol, as they do unless they were started with `-B
    binary`. It is used by asyncio, for several keys at once, and for servers that are named by an IPv6 address, which
    libmemcached does not find. With SASL, such an address is refused, and integers count in steps below 2**31.
    """

    option_names: ClassVar[frozenset[str] | None] = COMMON | {"behaviors", "binary", "password", "username"}

    def _make_pool(self, node: Node) -> Pool[Any]:
        try:
            import pylibmc  # type: ignore[import-untyped]

            from cachemw.backends._memcached.pylibmc import PyLibMCPool
        except ImportError as error:
            raise ImproperlyConfigured(
                "PyLibMCCache needs the package pylibmc: pip install 'cachemw[pylibmc]'"
            ) from error
        options: dict[str, Any] = {
            name: self.options[name] for name in ("username", "password") if name in self.options
        }
        is_ipv6 = isinstance(node.address, tuple) and ":" in node.address[0]  # which libmemcached does not look for
        if is_ipv6 and "username" in options:
            raise refuse("LOCATION", node.name, "IPv4 addresses and host names: with SASL there is libmemcached alone")
        options["binary"] = boolean("OPTIONS['binary']", self.options.get("binary", False))
        behaviors = self.options.get("behaviors") or {}
        if not isinstance(behaviors, Mapping):
            raise refuse("OPTIONS['behaviors']", behaviors, "a mapping of pylibmc's names to values")
        options["behaviors"] = {
            "tcp_nodelay": True,
            "connect_timeout": round(self._connect_timeout * 1000),
            "send_timeout": round(self._timeout * 1_000_000),
            "receive_timeout": round(self._timeout * 1_000_000),
            "_poll_timeout": round(self._timeout * 1000),
            **behaviors,
        }
        times = {"timeout": self._timeout, "connect_timeout": self._connect_timeout}
        text = None if "username" in options else PyMemcachePool(node, size=self._pool_size, options=times)
        try:
            pool = PyLibMCPool(node, size=self._pool_size, options=options, text=text)
        except (ValueError, TypeError, pylibmc.Error) as error:
            raise ImproperlyConfigured(f"pylibmc does not take these OPTIONS: {error}") from error
        return text if text is not None and is_ipv6 else pool

    def _make_client(self, node: Node) -> Any:
        if "username" in self.options:
            return _InThreads(self._pools[node])
        return AsyncClient(node, timeout=self._timeout, connect_timeout=self._connect_timeout)

    def _before_fork(self) -> None:
        # a copied pylibmc client says "quit" when it is freed, on the connection that the parent still uses
        for pool in self._pools.values():
            pool.close()


class _InThreads:
    """A pool's calls for asyncio, where no client of our own can speak to the server."""

    def __init__(self, pool: Pool[Any]) -> None:
        self._pool = pool

    def __getattr__(self, name: str) -> Callable[..., Awaitable[Any]]:
        return partial(offload, getattr(self._pool, name))

    def close(self) -> None:
        """The pool is not of this event loop alone."""

    abort = close
