"""Common: what all engines of one store have in common in this process, whatever the middlewares that made them.

Rule: a purge is of a store, not of a middleware. Whatever it needs to know of the pages, or of the order of things,
stands here, and whoever purges has it.
"""

from __future__ import annotations

import weakref
from typing import TYPE_CHECKING

from cachemw.rfc9111.fields import NoVarySearch

if TYPE_CHECKING:
    from cachemw.engine import Engine

__all__ = ["Common"]


class Common:
    """What was learnt of the URLs of one store, and its clock.

    search   resource without query -> what a response said of its query
    said     the same of what responses said before, which purges have to know
    mounts   space -> where applications were seen mounted
    """

    def __init__(self) -> None:
        self.search: dict[str, NoVarySearch] = {}
        self.said: dict[str, tuple[NoVarySearch, ...]] = {}
        self.mounts: dict[str, set[str]] = {}
        self._engines: weakref.WeakValueDictionary[int, Engine] = weakref.WeakValueDictionary()
        self._stamp = 0.0

    def join(self, engine: Engine) -> None:
        """This one has it in common with the others, as long as somebody uses it."""
        self._engines[id(engine)] = engine

    def unsee(self) -> None:
        """Every engine is to ask anew by which key a URL goes."""
        for known in self._engines.valuerefs():  # a list of its own: other threads make engines meanwhile
            engine = known()
            if engine is not None:
                engine.seen.clear()

    def stamp(self, now: float) -> float:
        """`now`, but later than every stamp before it: what began after a purge is told from what began before."""
        self._stamp = now if now > self._stamp else self._stamp + 1e-6
        return self._stamp
