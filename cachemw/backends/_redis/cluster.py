"""A Redis Cluster: which node has a key's slot, learnt from the nodes themselves.

Rule 1: a command is sent again only where a node said that another one has the key (MOVED, ASK).
Rule 2: keys are never joined in one command: while a slot moves, its keys are on two nodes. Commands for several nodes
leave together, those for one node as one payload: one round trip, however many keys.
"""

from __future__ import annotations

import random
from collections.abc import Collection, Sequence
from time import monotonic
from typing import Any, ClassVar, Final

from redis.crc import key_slot

from cachemw.backends._redis.node import Ask, Node, Steps
from cachemw.backends._redis.options import Deployment
from cachemw.backends._redis.routes import Routes
from cachemw.backends._redis.wire import Command, ReplyError, pack
from cachemw.errors import BackendUnavailable

__all__ = ["Cluster"]

_SLOTS: Final = 16384

#: Seconds between two questions for the layout, however often it is doubted.
_DOUBT: Final = 0.25

#: Seconds for which a node that failed is not asked for the layout.
_REST: Final = 1.0

#: Times that one command follows a node's word to another.
_REDIRECTIONS: Final = 4

_ASKING: Final = pack(("ASKING",))


class Cluster(Routes):
    """Sends each command to the node that has its key's slot."""

    joined: ClassVar[bool] = False

    def __init__(self, deployment: Deployment) -> None:
        self._settings = deployment.settings
        self._known = {address: Node(address, settings) for address, settings in deployment.servers}
        self._seeds = tuple(self._known.values())
        self._owners: list[Node | None] = []
        self._doubted = True
        self._learnt_at = -_DOUBT

    def execute(self, commands: Sequence[Command], *, writes: bool) -> Steps[list[Any]]:
        if self._doubted:
            yield from self._learn()
        replies: list[Any] = [None] * len(commands)
        waiting = {index: (self._owner(key), False) for index, (key, _) in enumerate(commands)}
        for _ in range(_REDIRECTIONS + 1):
            places: dict[Node, list[tuple[int, bool]]] = {}
            for index, (node, asking) in waiting.items():
                places.setdefault(node, []).append((index, asking))
            answers = yield [_ask(node, commands, there) for node, there in places.items()]
            waiting = {}
            failure: BackendUnavailable | None = None
            for (node, there), answer in zip(places.items(), answers, strict=True):
                if isinstance(answer, BackendUnavailable):
                    self._failed(node)
                    failure = answer
                    continue
                stream = iter(answer)
                for index, asking in there:
                    if asking:
                        next(stream)  # the OK to ASKING
                    replies[index] = reply = next(stream)
                    if type(reply) is ReplyError and (target := self._redirected(str(reply), node)):
                        waiting[index] = target
            if failure is not None:
                raise failure
            if not waiting:
                return replies
        last = replies[next(iter(waiting))]
        raise BackendUnavailable(f"The Redis Cluster sent a command on more than {_REDIRECTIONS} times: {last}")

    def _owner(self, key: str | bytes | None) -> Node:
        slot = key_slot(key.encode(errors="surrogatepass") if isinstance(key, str) else key or b"")
        owner = self._owners[slot]
        if owner is None:
            self._doubted = True
            raise BackendUnavailable(f"No node of the Redis Cluster serves slot {slot}")
        return owner

    def _redirected(self, error: str, node: Node) -> tuple[Node, bool] | None:
        """Where the node says that the key is, and whether it has to be asked for out of turn."""
        word, *rest = error.split(" ")
        if word == "CLUSTERDOWN":
            self._doubted = True
        if word not in ("MOVED", "ASK"):
            return None
        host, _, port = rest[1].rpartition(":")
        target = self._node(host, int(port), node)
        if word == "ASK":
            return target, True
        self._owners[int(rest[0])] = target
        self._doubted = True
        return target, False

    def _failed(self, node: Node) -> None:
        node.rests_until = monotonic() + _REST
        self._doubted = True

    def _learn(self) -> Steps[None]:
        """Ask a node for the layout, unless that was done a moment ago."""
        now = monotonic()
        if self._owners and now - self._learnt_at < _DOUBT:
            return
        give_up = now + self._settings.timeout + self._settings.connect_timeout
        reasons = []
        for node in self._advisers(now):
            (answer,) = yield (Ask(node, pack(("CLUSTER", "SLOTS")), 1),)
            if isinstance(answer, BackendUnavailable):
                self._failed(node)
                reasons.append(str(answer))
            elif not isinstance(answer[0], list):
                reasons.append(f"{node.name} says {answer[0]}")
            else:
                self._adopt(answer[0], node)
                return
            if monotonic() > give_up:
                break
        if not self._owners:
            raise BackendUnavailable(f"No node told the layout of the Redis Cluster: {'; '.join(reasons)}")

    def _advisers(self, now: float) -> list[Node]:
        """All known nodes in random order, those that failed a moment ago last."""
        nodes = list(self._known.values())
        random.shuffle(nodes)
        return sorted(nodes, key=lambda node: node.rests_until > now)

    def _adopt(self, ranges: list[Any], adviser: Node) -> None:
        owners: list[Node | None] = [None] * _SLOTS
        for low, high, leader, *_ in ranges:
            node = self._node((leader[0] or b"").decode(), leader[1], adviser)
            owners[low : high + 1] = [node] * (high + 1 - low)
        self._owners = owners
        self._learnt_at = monotonic()
        self._doubted = False
        for address, node in list(self._known.items()):
            if node not in self._seeds and node not in owners:
                del self._known[address]
                node.retire()

    def _node(self, host: str, port: int, source: Node) -> Node:
        """The node at an address; one that does not know its own host name means the address it was asked at."""
        if host in ("", "?") and not isinstance(source.address, str):
            host = source.address[0]
        known = self._known.get((host, port))
        if known is None:
            known = self._known.setdefault((host, port), Node((host, port), self._settings))
        return known

    def leaders(self) -> Steps[list[Node]]:
        if self._doubted:
            yield from self._learn()
        return [node for node in dict.fromkeys(self._owners) if node is not None]

    def nodes(self) -> Collection[Node]:
        return list(self._known.values())


def _ask(node: Node, commands: Sequence[Command], places: Sequence[tuple[int, bool]]) -> Ask:
    parts = []
    for index, asking in places:
        if asking:
            parts.append(_ASKING)
        parts.append(pack(commands[index][1]))
    return Ask(node, b"".join(parts), len(parts))
