"""The cache in Redis or Valkey: one server, a leader and replicas, Sentinels, or a Cluster.

Rule 1: every call has a deadline, and is one round trip.
Rule 2: connections belong to a process and to an event loop; a process that was forked makes its own.
redis-py connects (TLS, users, unix sockets, RESP2 and 3); commands and replies pass over its connections directly.
"""

from __future__ import annotations

import os
import weakref
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, ClassVar, Final

from cachemw._values import refuse
from cachemw.backends._keys import default_key_func, page_digest
from cachemw.backends._redis import operations
from cachemw.backends._redis.cluster import Cluster
from cachemw.backends._redis.node import arun, run
from cachemw.backends._redis.options import OPTION_NAMES, Deployment, read_deployment, without_passwords
from cachemw.backends._redis.patterns import literally, pattern_of
from cachemw.backends._redis.routes import Replicas, Routes, Sentinels, heed
from cachemw.backends._redis.tracking import Invalidations
from cachemw.backends._redis.wire import ReplyError, pack
from cachemw.backends.base import BaseCache, Entry
from cachemw.errors import BackendUnavailable, ImproperlyConfigured

__all__ = ["RedisCache"]

_INT64: Final = 2**63
#: Options that name files, which redis-py opens with the first connection.
_FILES: Final = frozenset({"ssl_ca_certs", "ssl_ca_path", "ssl_certfile", "ssl_keyfile"})

#: The caches of this process, for the child of a fork.
_caches: weakref.WeakSet[RedisCache] = weakref.WeakSet()


class RedisCache(BaseCache):
    """Values and pages in Redis (5 or later) or Valkey.

    location: one URL, or several (a list, or one string separated by `;` or `,`): the first takes the writes, a random
        other one each read. redis://[user:password@]host[:port][/db], rediss:// (TLS), unix:///path?db=0,
        redis+sentinel://[user:password@]h1[:port],h2/service[/db], redis+cluster://[user:password@]h1[:port],h2
        (and rediss+…).
    OPTIONS: those of redis-py's connections: db, username, password, credential_provider, client_name, protocol (3,
        with fall-back to 2), parser_class (while connecting), retry_on_timeout (likewise), socket_timeout (seconds for
        a whole call, 0.1), socket_connect_timeout (0.25), socket_keepalive, ssl, ssl_ca_certs, ssl_certfile, …;
        max_connections (of threads, to one server; then they wait), pool_class (a pool of redis-py's for threads),
        sentinel_kwargs (options for the Sentinels' connections), serializer (as SERIALIZER).

    Each thread takes a connection from a stack; the tasks of an event loop share one. As in Django's own Redis cache,
    integers are stored as Redis counts them, everything else as the serializer writes it.

    Raises: ImproperlyConfigured for an unknown option, URL or value; BackendUnavailable when a server does not answer.
    """

    option_names: ClassVar[frozenset[str] | None] = OPTION_NAMES

    def __init__(self, location: str | Sequence[str], params: Mapping[str, Any] | None = None) -> None:
        super().__init__(without_passwords(location), _with_serializer(params or {}))
        deployment = read_deployment(location, self.options)
        _check_files(deployment)
        self._routes = _routes_to(deployment)
        self._settings = deployment.settings
        self._is_cluster = deployment.kind == "cluster"
        _caches.add(self)
        weakref.finalize(self, _close_threads, self._routes)

    def page_key(self, key: str) -> str:
        """Readable; in a Cluster digests, the part of the URL in braces: all keys of one URL are on one node."""
        return self._page_prefix + (page_digest(key) if self._is_cluster else key)

    def _get(self, keys: Sequence[str]) -> dict[str, Any]:
        node = self._routes.lone
        if node is None or not keys:
            return run(operations.get(self._routes, keys))
        return operations.found(keys, node.threads.call(operations.get_payload(keys), 1))

    def _get_latest(self, keys: Sequence[str]) -> dict[str, Any]:
        return run(operations.get(self._routes, keys, latest=True))

    def _set(self, entries: Sequence[Entry]) -> list[str]:
        node = self._routes.lone
        if node is not None and entries:
            replies = node.threads.call(operations.put_payload(entries), len(entries))
            if replies.count(b"OK") == len(entries):
                return []
            heed(node, replies)
            entries = operations.refused(entries, replies)
        return run(operations.put(self._routes, entries))

    def _add(self, key: str, value: Any, timeout: float | None) -> bool:
        return run(operations.add(self._routes, key, value, timeout))

    def _touch(self, key: str, timeout: float | None) -> bool:
        return run(operations.touch(self._routes, key, timeout))

    def _delete(self, keys: Sequence[str]) -> int:
        return run(operations.delete(self._routes, keys))

    def _incr(self, key: str, delta: int) -> int:
        node = self._routes.lone
        if node is not None and -_INT64 < delta < _INT64:
            (reply,) = node.threads.call(operations.incr_payload(key, delta), 1)
            if type(reply) is not ReplyError:
                return operations.total(key, reply)
            heed(node, (reply,))
        return run(operations.incr(self._routes, key, delta))

    def get_many(self, keys: Iterable[Any], version: Any = None) -> dict[Any, Any]:
        node = self._routes.lone
        if node is None or self._seal is not None or self._fail_open is not None:
            return super().get_many(keys, version)
        given = list(keys)
        if not (made := self._made_each(given, version)):
            return {}
        return self._found(given, made, node.threads.call(operations.get_payload(made), 1))

    async def aget_many(self, keys: Iterable[Any], version: Any = None) -> dict[Any, Any]:
        node = self._routes.lone
        if node is None or self._seal is not None or self._fail_open is not None:
            return await super().aget_many(keys, version)
        given = list(keys)
        if not (made := self._made_each(given, version)):
            return {}
        return self._found(given, made, await node.tasks.call(operations.get_payload(made), 1))

    def _found(self, keys: Sequence[Any], made: Sequence[str], replies: list[Any]) -> dict[Any, Any]:
        try:
            return operations.loaded(keys, replies, self._loads)
        except BackendUnavailable:
            raise
        except Exception:  # one of them is damaged: which is told of, and the others are found
            return self._all_found(keys, made, [*map(operations.found(made, replies).get, made)])

    def _has(self, key: str) -> bool:
        return run(operations.has(self._routes, key))

    def _timeout_left(self, key: str) -> float | None:
        return run(operations.time_left(self._routes, key))

    def _clear(self) -> None:
        run(operations.clear(self._routes, self._patterns()))

    def _close(self) -> None:
        _close_threads(self._routes)

    async def _aget(self, keys: Sequence[str]) -> dict[str, Any]:
        node = self._routes.lone
        if node is None or not keys:
            return await arun(operations.get(self._routes, keys))
        return operations.found(keys, await node.tasks.call(operations.get_payload(keys), 1))

    async def _aget_latest(self, keys: Sequence[str]) -> dict[str, Any]:
        return await arun(operations.get(self._routes, keys, latest=True))

    async def _aset(self, entries: Sequence[Entry]) -> list[str]:
        node = self._routes.lone
        if node is not None and entries:
            replies = await node.tasks.call(operations.put_payload(entries), len(entries))
            if replies.count(b"OK") == len(entries):
                return []
            heed(node, replies)
            entries = operations.refused(entries, replies)
        return await arun(operations.put(self._routes, entries))

    async def _aadd(self, key: str, value: Any, timeout: float | None) -> bool:
        return await arun(operations.add(self._routes, key, value, timeout))

    async def _atouch(self, key: str, timeout: float | None) -> bool:
        return await arun(operations.touch(self._routes, key, timeout))

    async def _adelete(self, keys: Sequence[str]) -> int:
        return await arun(operations.delete(self._routes, keys))

    async def _aincr(self, key: str, delta: int) -> int:
        node = self._routes.lone
        if node is not None and -_INT64 < delta < _INT64:
            (reply,) = await node.tasks.call(operations.incr_payload(key, delta), 1)
            if type(reply) is not ReplyError:
                return operations.total(key, reply)
            heed(node, (reply,))
        return await arun(operations.incr(self._routes, key, delta))

    async def _ahas(self, key: str) -> bool:
        return await arun(operations.has(self._routes, key))

    async def _atimeout_left(self, key: str) -> float | None:
        return await arun(operations.time_left(self._routes, key))

    async def _aclear(self) -> None:
        await arun(operations.clear(self._routes, self._patterns()))

    async def _aclose(self) -> None:
        for node in self._routes.nodes():
            await node.tasks.close()
        self._close()

    def read_records(self, keys: Sequence[str]) -> list[Any]:
        node = self._routes.lone
        if node is None or not keys:
            return super().read_records(keys)
        return operations.pages(node.threads.call(self._mget(keys), 1), len(keys))

    async def aread_records(self, keys: Sequence[str]) -> list[Any]:
        node = self._routes.lone
        if node is None or not keys:
            return await super().aread_records(keys)
        return operations.pages(await node.tasks.call(self._mget(keys), 1), len(keys))

    def _mget(self, keys: Sequence[str]) -> bytes:
        prefix = self._page_prefix
        return pack(("MGET", *[prefix + key for key in keys]))

    def commit_records(
        self, records: Sequence[tuple[str, Any, float | None]], latest: Sequence[str], drops: Sequence[str]
    ) -> tuple[list[str], list[Any]]:
        keys, entries, ended = self._page_entries(records)
        if ended or self._is_cluster:
            return super().commit_records(records, latest, drops)
        failed, found = run(operations.commit(self._routes, entries, self._made(latest), self._made(drops)))
        return [keys[made] for made in failed], found

    async def acommit_records(
        self, records: Sequence[tuple[str, Any, float | None]], latest: Sequence[str], drops: Sequence[str]
    ) -> tuple[list[str], list[Any]]:
        keys, entries, ended = self._page_entries(records)
        if ended or self._is_cluster:
            return await super().acommit_records(records, latest, drops)
        failed, found = await arun(operations.commit(self._routes, entries, self._made(latest), self._made(drops)))
        return [keys[made] for made in failed], found

    def add_and_read(
        self, key: str, payload: Any, timeout: float | None, latest: Sequence[str]
    ) -> tuple[bool, list[Any]]:
        if timeout is not None and timeout <= 0:
            return super().add_and_read(key, payload, timeout, latest)
        made, *found = self._made((key, *latest))
        return run(operations.add_and_get_pages(self._routes, made, payload, timeout, found))

    async def aadd_and_read(
        self, key: str, payload: Any, timeout: float | None, latest: Sequence[str]
    ) -> tuple[bool, list[Any]]:
        if timeout is not None and timeout <= 0:
            return await super().aadd_and_read(key, payload, timeout, latest)
        made, *found = self._made((key, *latest))
        return await arun(operations.add_and_get_pages(self._routes, made, payload, timeout, found))

    def _made(self, keys: Sequence[str]) -> list[str]:
        return [self.page_key(key) for key in keys]

    # -- for a local tier before this store (`tiered.TieredCache`) -----------------------------------------------

    def get_with_time_left(self, keys: Sequence[str]) -> dict[str, tuple[Any, float | None]]:
        """What the leader has under made keys, each with the seconds it has left, None for ever; one round trip."""
        return run(operations.time_left_and_get(self._routes, keys))

    async def aget_with_time_left(self, keys: Sequence[str]) -> dict[str, tuple[Any, float | None]]:
        """See `get_with_time_left`."""
        return await arun(operations.time_left_and_get(self._routes, keys))

    def invalidations(self, on_keys: Callable[[list[str]], None], on_flush: Callable[[], None]) -> Invalidations | None:
        """A channel that tells of every change of this cache's keys by anybody; None in a Cluster, which has many."""
        if self._is_cluster:
            return None
        prefix = f"{self.key_prefix}:" if self.key_func is default_key_func else ""
        return Invalidations(
            self._connect_to_leader, prefix, on_keys=on_keys, on_flush=on_flush, timeout=self._settings.timeout
        )

    def _connect_to_leader(self) -> Any:
        (leader,) = run(self._routes.leaders())
        return leader.connect()

    def clear_records(self) -> None:
        run(operations.clear(self._routes, [self._pages_pattern()]))

    def _pages_pattern(self) -> str:
        """What matches the pages' keys in every version; as globs are written in Redis."""
        return literally(f"{self.key_prefix}:") + "*"

    def _patterns(self) -> list[str]:
        """What matches all made keys of this cache, in every version.

        Raises: ImproperlyConfigured if a KEY_FUNCTION leaves nothing to tell them by.
        """
        if self.key_func is default_key_func:
            return [self._pages_pattern()]
        pattern = pattern_of(self.key_func, self.key_prefix)
        if pattern is None:
            raise ImproperlyConfigured(
                "clear() cannot tell this cache's keys from others': its KEY_FUNCTION gives them nothing in common;"
                " allowed: keys that begin with the same text, or that contain KEY_PREFIX"
            )
        return [self._pages_pattern(), pattern]

    def _forget(self) -> None:
        for node in self._routes.nodes():
            node.forget()


def _with_serializer(params: Mapping[str, Any]) -> dict[str, Any]:
    """Django has the serializer of its Redis cache in OPTIONS."""
    given = {str(name).upper(): value for name, value in params.items()}
    options = {str(name).lower(): value for name, value in (given.get("OPTIONS") or {}).items()}
    if "serializer" in options:
        given["SERIALIZER"] = options.pop("serializer")
    return {**given, "OPTIONS": options}


def _check_files(deployment: Deployment) -> None:
    for settings in (deployment.settings, deployment.sentinel_settings):
        for name in sorted(_FILES & settings.connection.keys()):
            file = settings.connection[name]
            if file is not None and not os.access(str(file), os.R_OK):
                raise refuse(f"OPTIONS[{name!r}]", file, "the path of what this process may read")


def _routes_to(deployment: Deployment) -> Routes:
    if deployment.kind == "sentinel":
        return Sentinels(deployment)
    return Cluster(deployment) if deployment.kind == "cluster" else Replicas(deployment)


def _close_threads(routes: Routes) -> None:
    for node in routes.nodes():
        node.threads.close()


def _after_fork() -> None:
    for cache in _caches:
        cache._forget()


os.register_at_fork(after_in_child=_after_fork)
