"""Collecting garbage for certain."""

from __future__ import annotations

import gc
import time
import weakref

__all__ = ["collect"]


class _Cycle:
    def __init__(self) -> None:
        self.itself = self


def collect() -> None:
    """Collect all that is garbage now.

    `gc.collect` does nothing, and does not say so, while another thread is at it: one that an earlier test has left
    behind, and that lets this thread run in the midst of it, as closing a socket does.
    """
    mark = weakref.ref(_Cycle())
    while mark() is not None:
        gc.collect()
        time.sleep(0.001)
