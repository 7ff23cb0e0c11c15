"""Threads of our own: daemons, for whom the end of the process does not wait."""

from __future__ import annotations

import sys
from threading import Thread

__all__ = ["begin"]


def begin(thread: Thread) -> None:
    """Start it. Raises: RuntimeError if no thread is to be had, or if the interpreter shuts down.

    Python before 3.12 would wait for ever there, in a finalizer, for a thread that may not run any more.
    """
    if sys.is_finalizing():
        raise RuntimeError("can't start a thread: the interpreter shuts down")
    thread.start()
