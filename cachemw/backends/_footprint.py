"""How much memory a value takes."""

from __future__ import annotations

import sys
from typing import Any, Final

__all__ = ["footprint"]

_FLAT: Final = frozenset({str, bytes, int, float, bool, type(None)})
_OWN_SIZE: Final[Any] = object.__sizeof__

#: The slots of the types seen, by type; as many as the program has types of values.
_slots: dict[type, tuple[str, ...]] = {}


def _slot_names(kind: type) -> tuple[str, ...]:
    names: list[str] = []
    for base in kind.__mro__:
        slots = base.__dict__.get("__slots__", ())
        names.extend([slots] if isinstance(slots, str) else slots)
    return tuple(names)


def footprint(value: Any, depth: int = 6) -> int:
    """Bytes that `value` takes with what it holds, to a depth; a type that defines `__sizeof__` speaks for itself.

    What several values share is counted with each of them: the sum errs on the side of the limit.
    """
    kind = type(value)
    size = sys.getsizeof(value)
    if kind in _FLAT or depth == 0:
        return size
    if isinstance(value, tuple | list | set | frozenset):
        return size + sum(footprint(one, depth - 1) for one in value)
    if isinstance(value, dict):
        return size + sum(footprint(name, depth - 1) + footprint(one, depth - 1) for name, one in value.items())
    if kind.__sizeof__ is not _OWN_SIZE:
        return size
    if kind not in _slots:
        _slots[kind] = _slot_names(kind)
    held = [getattr(value, name, None) for name in _slots[kind]]
    return size + sum(footprint(one, depth - 1) for one in (*held, *getattr(value, "__dict__", {}).values()))
