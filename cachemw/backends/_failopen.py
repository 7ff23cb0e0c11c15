"""`OPTIONS: {"fail_open": True}`: a store that does not answer holds nothing. The one place for it, and for its log.

The page cache fails open by itself, behind a breaker that has to see the failures: it passes this by.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Awaitable, Callable
from functools import wraps
from typing import TYPE_CHECKING, Any, Final

from cachemw.errors import BackendUnavailable

if TYPE_CHECKING:
    from cachemw.backends._store import Store

__all__ = ["FailOpen", "Reports"]

_log = logging.getLogger("cachemw.backends")

#: Seconds between two log lines about one store.
_WINDOW: Final = 60.0


def _absent(key: str, *_: Any) -> Any:
    raise KeyError(key)


#: What each primitive says of a store that holds nothing and takes nothing.
_ANSWERS: Final[dict[str, Callable[..., Any]]] = {
    "_get": lambda keys: {},
    "_get_latest": lambda keys: {},
    "_set": lambda entries: [key for key, _, _ in entries],
    "_add": lambda *_: False,
    "_touch": lambda *_: False,
    "_delete": lambda keys: 0,
    "_incr": _absent,
    "_has": lambda key: False,
    "_timeout_left": lambda key: 0.0,
    "_clear": lambda: None,
}


class Reports:
    """What the log is told of one store: the first of each minute.

    message: takes the store and the error.
    """

    def __init__(self, cache: Store, message: str) -> None:
        self._cache = cache
        self._message = message
        self._quiet_until = -_WINDOW

    def report(self, error: Exception) -> None:
        """Log the first error of a window."""
        now = time.monotonic()
        if now >= self._quiet_until:
            self._quiet_until = now + _WINDOW
            _log.warning(self._message, self._cache, error)


class FailOpen:
    """A cache's primitives, by the same names, that never raise BackendUnavailable; it is logged once a minute."""

    def __init__(self, cache: Store) -> None:
        self._report = Reports(cache, "%r fails, its entries count as missing: %s").report
        for name, answer in _ANSWERS.items():
            twin = f"_a{name[1:]}"
            setattr(self, name, self._guarded(getattr(cache, name), answer))
            setattr(self, twin, self._aguarded(getattr(cache, twin), answer))

    def _guarded(self, primitive: Callable[..., Any], answer: Callable[..., Any]) -> Callable[..., Any]:
        @wraps(primitive)
        def guarded(*args: Any) -> Any:
            try:
                return primitive(*args)
            except BackendUnavailable as error:
                self._report(error)
                return answer(*args)

        return guarded

    def _aguarded(
        self, primitive: Callable[..., Awaitable[Any]], answer: Callable[..., Any]
    ) -> Callable[..., Awaitable[Any]]:
        @wraps(primitive)
        async def guarded(*args: Any) -> Any:
            try:
                return await primitive(*args)
            except BackendUnavailable as error:
                self._report(error)
                return answer(*args)

        return guarded
