"""DummyCache: the whole interface, and nothing is ever stored. For development, and to switch a cache off."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, ClassVar

from cachemw.backends.base import Entry, InlineCache

__all__ = ["DummyCache"]


class DummyCache(InlineCache):
    """Stores nothing; keys are checked and defaults called as elsewhere. Values need not be serializable."""

    shared: ClassVar[bool] = False
    keeps: ClassVar[bool] = False
    by_reference: ClassVar[bool] = True
    option_names: ClassVar[frozenset[str] | None] = None  # the options of the cache that it stands in for

    def _encode(self, key: str, value: Any) -> Any:
        return value

    def _get(self, keys: Sequence[str]) -> dict[str, Any]:
        return {}

    def _set(self, entries: Sequence[Entry]) -> list[str]:
        return []

    def _add(self, key: str, value: Any, timeout: float | None) -> bool:
        return True

    def _touch(self, key: str, timeout: float | None) -> bool:
        return False

    def _delete(self, keys: Sequence[str]) -> int:
        return 0

    def _incr(self, key: str, delta: int) -> int:
        raise KeyError(key)

    def _clear(self) -> None:
        pass
