"""Forks: what the child of a fork begins anew.

The threads that would end what is under way stay behind in the parent, and a lock that one of them held during the fork
is held for ever in the child.
"""

from __future__ import annotations

import os
import weakref
from abc import ABC, abstractmethod

__all__ = ["Forkable"]


class Forkable(ABC):
    """State of one process: `_reset` makes it, and makes it once more in the child of a fork."""

    __slots__ = ("__weakref__",)

    def __init__(self) -> None:
        self._reset()
        _all.add(self)

    @abstractmethod
    def _reset(self) -> None:
        """Begin as if nothing were under way, and nobody held a lock."""


_all: weakref.WeakSet[Forkable] = weakref.WeakSet()


def _after_fork() -> None:
    for forkable in list(_all):
        forkable._reset()


os.register_at_fork(after_in_child=_after_fork)
