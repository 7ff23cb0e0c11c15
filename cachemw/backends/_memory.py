"""The entries of local memory, by LOCATION, for all threads of this process, and what makes each of them whole.

Rule 1: readers take no lock. They read one dictionary, whose operations the interpreter makes atomic, and mark the
entry as seen; an entry is replaced, not taken out and put back (unless it grows where bytes are short), so that no
reader misses what is there. They look at its time before its value, and writers write the value before the time: so an
old value is never read by a new one's time.
Rule 2: writers hold the store's lock.
Rule 3: only what changes an entry that is in the dictionary may do without the lock, in one step: code without a call
and without a loop, in which CPython changes no threads and handles no signal (but under a debugger that traces, where
a write may be lost or miscounted). Whoever takes an entry out says so in it (`size` is then 0), and whoever makes a
value of the old one does that in one step too. Without a global lock every writer takes the store's.
Rule 4: what two threads may lose to one another is a mark, that is, recency; never a value.
"""

from __future__ import annotations

import os
import sys
import threading
from typing import Any, Final

__all__ = ["ONE_STEP", "SOUND", "Item", "Memory", "Page", "forget", "memory"]

#: In an entry: its key was looked at, and there is nothing to say against it.
SOUND: Final = object()

#: Is what contains no call and no loop one step?
ONE_STEP: Final[bool] = sys.implementation.name == "cpython" and getattr(sys, "_is_gil_enabled", lambda: True)()


class Item:
    """A value of the low-level API. expires: by the cache's clock, inf for never. size: 0 if it was taken out."""

    __slots__ = ("expires", "key_is", "seen", "size", "value")

    def __init__(self, value: Any, expires: float, size: int) -> None:
        self.value = value
        self.expires = expires
        self.size = size
        self.seen = False
        self.key_is: object = None


class Page(Item):
    """A page's record. A class of its own, so that neither API ever reads what the other one stored."""

    __slots__ = ()


class Memory:
    """The entries that all caches of one LOCATION share, and their sum of bytes."""

    __slots__ = ("entries", "lock", "size")

    def __init__(self) -> None:
        self.entries: dict[str, Item] = {}
        self.size = 0
        # reentrant: a finalizer or a signal handler may use the cache at any point of this thread's own work
        self.lock = threading.RLock()

    def take_out(self, key: str) -> Item | None:
        """Remove an entry, with the lock held."""
        item = self.entries.pop(key, None)
        if item is not None:
            self.size -= item.size
            item.size = 0
        return item


#: The stores of this process by LOCATION, as in Django.
_stores: dict[str, Memory] = {}
_stores_lock = threading.RLock()


def memory(name: str) -> Memory:
    """The one of this name, made if need be."""
    with _stores_lock:
        return _stores.setdefault(name, Memory())


def forget(name: str) -> None:
    """Nobody will ask for this one again. No lock: a finalizer may call it under a store's, for which a fork waits."""
    _stores.pop(name, None)


#: The stores whose locks are held for a fork: others may come and go meanwhile, by the handlers of other libraries.
_held: list[Memory] = []


def _before_fork() -> None:
    """A child must not inherit a lock that another thread holds, nor what is half done under it."""
    _stores_lock.acquire()
    for store in _stores.copy().values():
        store.lock.acquire()
        _held.append(store)


def _after_fork() -> None:
    while _held:
        _held.pop().lock.release()
    _stores_lock.release()


os.register_at_fork(before=_before_fork, after_in_parent=_after_fork, after_in_child=_after_fork)
