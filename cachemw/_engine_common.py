"""Common: what all engines of one store have in common in this process, whichever middlewares made them.

Rule: a purge concerns a store, not a middleware. Whatever it has to know about the pages, or about the order of events,
is kept here, where every purge finds it.
"""

from __future__ import annotations

import weakref
from typing import TYPE_CHECKING

from cachemw.rfc9111.fields import NoVarySearch

if TYPE_CHECKING:
    from cachemw.engine import Engine

__all__ = ["Common"]


class Common:
    """What was learnt about the URLs of one store, and its clock.

    search   resource without query -> what a response said about its query
    said     resource without query -> what earlier responses said, which purges have to know
    mounts   space -> the paths where applications were seen mounted
    """

    def __init__(self) -> None:
        self.search: dict[str, NoVarySearch] = {}
        self.said: dict[str, tuple[NoVarySearch, ...]] = {}
        self.mounts: dict[str, set[str]] = {}
        self._engines: weakref.WeakValueDictionary[int, Engine] = weakref.WeakValueDictionary()
        self._stamp = 0.0

    def join(self, engine: Engine) -> None:
        """Count this engine among those that share it, for as long as somebody uses it."""
        self._engines[id(engine)] = engine

    def unsee(self) -> None:
        """Have every engine work out again which key a URL has."""
        for known in self._engines.valuerefs():  # a copy: other threads make engines meanwhile
            engine = known()
            if engine is not None:
                engine.seen.clear()

    def stamp(self, now: float) -> float:
        """`now`, but later than every earlier stamp: what began before a purge must differ from what began after it."""
        self._stamp = now if now > self._stamp else self._stamp + 1e-6
        return self._stamp
