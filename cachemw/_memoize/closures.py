"""The variables that a memoized function is closed over, as a part of the keys of its values.

Rule 1: they count like arguments, by their values at each call; so do those of the functions that they hold.
Rule 2: if a variable cannot be part of a key, or may change unseen (an object of the application's, a list, a counter),
        the function does not share its values: not with another function from the same lines, nor with another process.
        So the client of one tenant is never taken for that of another.
"""

from __future__ import annotations

import dis
import sys
import weakref
from abc import ABC, abstractmethod
from types import CellType, CodeType, FunctionType, ModuleType
from typing import Any, Final
from uuid import uuid4

from cachemw._memoize.keys import frame, reference

__all__ = ["Closure", "Decorated", "code_frame", "has_no_key", "has_own_globals", "named"]

_UNBOUND: Final = object()


class Decorated(ABC):
    """An object in place of a function, or of a method with its object."""

    @abstractmethod
    def made_of(self) -> tuple[FunctionType, tuple[Any, ...]]:
        """The function, and the arguments that it is bound to."""


class Closure:
    """The variables that a function is closed over.

    keyed: the function has a `key=`, so variables that cannot be part of a key are left out.
    """

    def __init__(self, function: FunctionType, *, keyed: bool) -> None:
        self._function = function
        self._keyed = keyed
        self._seen: list[tuple[CellType, Any]] | None = None
        self._own = frame(("of one process", uuid4().hex))
        self._frame = b""
        #: Why the function does not share its values: the name of a variable, and what is wrong with it.
        self.own: tuple[str, str] | None = None

    def frame(self) -> bytes:
        """Bytes that distinguish the function from others that the same lines have made."""
        if self._seen is None:
            self._frame, self._seen = self._look()
        for cell, content in self._seen:
            if _content(cell) is not content:
                self._frame, self._seen = self._look()
                break
        return self._frame

    def _look(self) -> tuple[bytes, list[tuple[CellType, Any]]]:
        look = _Look(self._keyed)
        try:
            return look.function(self._function, ()), look.seen
        except (_NoKey, TypeError, RecursionError) as error:  # RecursionError: values nested too deeply
            self.own = self.own or (getattr(error, "name", ""), str(error))
            return self._own, []


class _NoKey(Exception):
    """A variable holds an object that cannot be part of a key."""

    def __init__(self, message: str, *, name: str = "") -> None:
        super().__init__(message)
        self.name = name


class _Look:
    """One look at the variables of a function, and of the functions that they hold."""

    def __init__(self, keyed: bool) -> None:
        self._keyed = keyed
        self.seen: list[tuple[CellType, Any]] = []

    def function(self, function: FunctionType, within: tuple[FunctionType, ...]) -> bytes:
        within = (*within, function)
        if not self._keyed and has_own_globals(function):
            raise _NoKey("a module which is not the one of its name", name=function.__module__)
        code = function.__code__
        assigned = _assigned(code)
        frames = []
        for name, cell in zip(code.co_freevars, function.__closure__ or (), strict=True):
            content = _content(cell)
            try:
                if name in assigned:
                    raise _NoKey("which functions assign to")
                self.seen.append((cell, content))
                frames.append(frame(name) + self._value(content, within))
            except _NoKey as error:
                if not self._keyed:
                    error.name = error.name or name
                    raise
        return frame(b"".join(frames))

    def _value(self, value: Any, within: tuple[FunctionType, ...]) -> bytes:
        if value is _UNBOUND:
            return frame("not bound yet")
        if isinstance(value, type):
            return frame(named(value))
        if isinstance(value, ModuleType):
            return frame(("module", value.__name__))
        if isinstance(value, FunctionType | Decorated):
            try:
                return reference(value)
            except TypeError:
                return self._nameless(value, within)
        try:
            framed = frame(value)
        except TypeError as error:
            raise _NoKey(str(error)) from None
        try:
            hash(value)
        except TypeError:
            raise _NoKey(f"a {type(value).__name__}, which may change") from None
        return framed

    def _nameless(self, value: FunctionType | Decorated, within: tuple[FunctionType, ...]) -> bytes:
        """The frame of a function that cannot be imported: its code, defaults and variables."""
        function, bound = (value, ()) if isinstance(value, FunctionType) else value.made_of()
        if function.__dict__.keys() - {"__wrapped__"}:  # the wrapped function is in one of its variables
            raise _NoKey(f"the function {function.__qualname__}, which has attributes that may change")
        if function in within:  # functions that call each other, or themselves
            return frame(("again", within.index(function)))
        given = (*bound, *(function.__defaults__ or ()), *(function.__kwdefaults__ or {}).values())
        frames = [frame((function.__module__, function.__qualname__)), code_frame(function.__code__)]
        frames += [self._value(one, within) for one in given]
        return frame(b"".join(frames) + self.function(function, within))


def _content(cell: CellType) -> Any:
    try:
        return cell.cell_contents
    except ValueError:
        return _UNBOUND


def has_own_globals(function: FunctionType) -> bool:
    """Was the function made by `exec`, with other global variables than those of its module?"""
    module = sys.modules.get(function.__module__)
    return module is None or vars(module) is not function.__globals__


def _assigned(code: CodeType) -> set[str]:
    """The variables of outer functions that a function, or one inside of it, assigns to (`nonlocal`)."""
    names = {
        str(step.argval)
        for step in (dis.get_instructions(code) if code.co_freevars else ())
        if step.opname in ("STORE_DEREF", "DELETE_DEREF")
    }
    for one in code.co_consts:
        if isinstance(one, CodeType):
            names |= _assigned(one)
    return names.intersection(code.co_freevars)


def code_frame(code: CodeType) -> bytes:
    """A function's code, without its place in a file."""
    constants = [code_frame(one) if isinstance(one, CodeType) else one for one in code.co_consts]
    return frame((code.co_code, code.co_names, constants))


#: Names, in this process, for classes that cannot be imported.
_local_classes: weakref.WeakKeyDictionary[type, str] = weakref.WeakKeyDictionary()


def named(owner: type) -> Any:
    """The class itself; for a class that cannot be imported, a name that is unique to this process."""
    return ("of one process", _local_classes.setdefault(owner, uuid4().hex)) if has_no_key(owner) else owner


def has_no_key(value: Any) -> bool:
    """Is the value one that cannot be part of a key?"""
    try:
        frame(value)
    except TypeError:
        return True
    return False
