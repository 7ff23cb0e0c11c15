"""Which server gets which command: one leader with or without replicas, or a leader that Sentinels name.

Rule 1: a command that writes is sent again only if the server said that it did not do it (READONLY).
"""

from __future__ import annotations

import random
import threading
from abc import ABC, abstractmethod
from collections.abc import Collection, Sequence
from contextlib import suppress
from time import monotonic
from typing import Any, ClassVar, Final

from cachemw._threads import begin
from cachemw.backends._redis.node import Answer, Ask, Node, Steps
from cachemw.backends._redis.options import Deployment
from cachemw.backends._redis.wire import Command, ReplyError, pack, pack_all
from cachemw.errors import BackendUnavailable

__all__ = ["Replicas", "Routes", "Sentinels", "heed"]

#: Seconds for which a replica that failed is left alone.
_REST: Final = 1.0
_PING: Final = pack(("PING",))


class Routes(ABC):
    """Knows the servers, and sends commands to the right ones."""

    #: May one command name several keys?
    joined: ClassVar[bool] = True
    #: The server that every read goes to, where there is no choice: a page's hit then asks it directly.
    lone: Node | None = None

    @abstractmethod
    def execute(self, commands: Sequence[Command], *, writes: bool) -> Steps[list[Any]]:
        """The replies, in the order of the commands; an error reply is one of them. Raises: BackendUnavailable."""

    @abstractmethod
    def leaders(self) -> Steps[list[Node]]:
        """The servers that hold the keys, one for each part of them."""

    @abstractmethod
    def nodes(self) -> Collection[Node]:
        """All servers that may be connected to."""


def _got(answer: Answer) -> list[Any]:
    if isinstance(answer, BackendUnavailable):
        raise answer
    return answer


def _is_refused(answer: Sequence[Any] | BackendUnavailable, *codes: str) -> bool:
    """Did the server answer, but with one of these errors?"""
    if not isinstance(answer, BackendUnavailable):
        for reply in answer:
            if type(reply) is ReplyError and _without_place(str(reply)).startswith(codes):
                return True
    return False


def _without_place(message: str) -> str:
    """Before Redis 7 an error within a script begins with its place: "@user_script: 6: -READONLY …"."""
    return message.rpartition(": -")[2]


def heed(node: Node, answer: Sequence[Any]) -> None:
    """Before a server is asked again: its name may lead to another one by now (a managed service's failover)."""
    if _is_refused(answer, "READONLY"):
        node.retire()


class Replicas(Routes):
    """The first server takes the writes, a random one of the others the reads; the first takes all if it is alone."""

    def __init__(self, deployment: Deployment) -> None:
        self._nodes = [Node(address, settings, deployment.pool_class) for address, settings in deployment.servers]
        self._leader, *self._replicas = self._nodes
        self._away: set[Node] = set()  # the replicas that failed
        if not self._replicas:
            self.lone = self._leader

    def execute(self, commands: Sequence[Command], *, writes: bool) -> Steps[list[Any]]:
        payload, count = pack_all(commands), len(commands)
        if self._replicas and not writes and (replica := self._awake()):
            began = monotonic()
            (answer,) = yield (Ask(replica, payload, count),)
            if not isinstance(answer, BackendUnavailable) and not _is_refused(answer, "LOADING", "MASTERDOWN"):
                return answer
            replica.rests_until = monotonic() + _REST
            self._away.add(replica)
            if monotonic() - began > replica.settings.timeout / 2:
                return _got(answer)  # no time left to ask the leader
        (answer,) = yield (Ask(self._leader, payload, count),)
        if _is_refused(answer, "READONLY"):  # its name leads to another server by now (a managed service's failover)
            self._leader.retire()
            (answer,) = yield (Ask(self._leader, payload, count),)
        return _got(answer)

    def _awake(self) -> Node | None:
        now = monotonic()
        for node in self._away.copy():
            if node.rests_until <= now:
                node.rests_until = now + _REST + node.settings.timeout
                self._look_for(node)
        awake = [node for node in self._replicas if node not in self._away]
        return random.choice(awake) if awake else None  # noqa: S311  spreads load, keeps no secret

    def _look_for(self, node: Node) -> None:
        """Find out whether a replica is back, in a thread: one that hangs would cost a visitor a whole deadline."""

        def look() -> None:
            with suppress(BackendUnavailable):
                node.threads.call(_PING, 1)
                self._away.discard(node)

        try:
            begin(threading.Thread(target=look, name="cachemw-redis", daemon=True))
        except RuntimeError:  # no thread is to be had, or the interpreter shuts down
            self._away.discard(node)

    def leaders(self) -> Steps[list[Node]]:
        return [self._leader]
        yield

    def nodes(self) -> Collection[Node]:
        return self._nodes


class Sentinels(Routes):
    """The leader is whom the first Sentinel that answers names, and who says so itself."""

    def __init__(self, deployment: Deployment) -> None:
        self._service = deployment.service
        self._settings = deployment.settings
        self._sentinels = [Node(address, settings) for address, settings in deployment.servers]
        self._known: dict[tuple[str, int], Node] = {}
        self._leader: Node | None = None

    def execute(self, commands: Sequence[Command], *, writes: bool) -> Steps[list[Any]]:
        ask = pack_all(commands), len(commands)
        leader = self._leader or (yield from self._discover())
        (answer,) = yield (Ask(leader, *ask),)
        if _is_refused(answer, "READONLY"):
            leader.retire()
            leader = yield from self._discover()
            (answer,) = yield (Ask(leader, *ask),)
        if isinstance(answer, BackendUnavailable) and self._leader is leader:
            self._leader = None
        return _got(answer)

    def _discover(self) -> Steps[Node]:
        give_up = monotonic() + self._settings.timeout + self._settings.connect_timeout
        question = pack(("SENTINEL", "GET-MASTER-ADDR-BY-NAME", self._service))
        reasons = []
        for sentinel in tuple(self._sentinels):
            (answer,) = yield (Ask(sentinel, question, 1),)
            if isinstance(answer, BackendUnavailable):
                reasons.append(str(answer))
            elif not isinstance(answer[0], list):
                reasons.append(f"the Sentinel at {sentinel.name} says {answer[0]}")
            else:
                leader = self._node(answer[0][0].decode(), int(answer[0][1]))
                (answer,) = yield (Ask(leader, pack(("ROLE",)), 1),)
                if not isinstance(answer, BackendUnavailable) and answer[0][:1] == [b"master"]:
                    self._sentinels.sort(key=lambda node: node is not sentinel)
                    self._leader = leader
                    return leader
                reasons.append(f"{leader.name}, which the Sentinel at {sentinel.name} names, is not a leader")
            if monotonic() > give_up:
                break
        raise BackendUnavailable(f"No Sentinel led to the leader of {self._service!r}: {'; '.join(reasons)}")

    def _node(self, host: str, port: int) -> Node:
        return self._known.setdefault((host, port), Node((host, port), self._settings))

    def leaders(self) -> Steps[list[Node]]:
        return [self._leader or (yield from self._discover())]

    def nodes(self) -> Collection[Node]:
        return [*self._sentinels, *self._known.values()]
