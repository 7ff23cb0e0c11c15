"""Values of settings as people write them (numbers as text, "yes", dotted paths), read or refused in one place.

Rule 1: what cannot be read is an `ImproperlyConfigured` that names the setting, the value given and what is allowed.
"""

from __future__ import annotations

import difflib
import importlib
import math
import re
from collections.abc import Collection, Sequence
from collections.abc import Set as AbstractSet
from typing import Any, Final, NoReturn

from cachemw.errors import ImproperlyConfigured

__all__ = [
    "LONGEST_WAIT",
    "ReadOnly",
    "boolean",
    "imported",
    "integer",
    "members",
    "number",
    "refuse",
    "shown",
    "text",
    "unknown",
    "without_password",
]

_LONG: Final = 200  # characters

_TRUE: Final = frozenset({"1", "true", "yes", "on", "y", "t"})
_FALSE: Final = frozenset({"0", "false", "no", "off", "n", "f"})


class ReadOnly(dict[str, Any]):
    """A mapping within a frozen value. Raises: TypeError for whoever would change it."""

    def _refuse(self, *_: Any, **__: Any) -> NoReturn:
        raise TypeError("the mappings of settings do not change; make other settings by dataclasses.replace")

    __setitem__ = __delitem__ = __ior__ = _refuse
    clear = pop = popitem = setdefault = update = _refuse

    def __reduce__(self) -> Any:
        return type(self), (dict(self),)


def refuse(name: str, value: object, allowed: str) -> ImproperlyConfigured:
    """The error for a value that cannot be used; to be raised by the caller."""
    return ImproperlyConfigured(f"{name} is {shown(value)}; allowed: {allowed}")


def unknown(what: str, name: object, known: Collection[str]) -> ImproperlyConfigured:
    """The error for a name that is not among the known ones; to be raised by the caller."""
    near = difflib.get_close_matches(str(name), known, n=1, cutoff=0.75)
    hint = f"; did you mean {near[0]!r}? Allowed: " if near else "; allowed: "
    return ImproperlyConfigured(f"{what} is {shown(name)}{hint}{', '.join(sorted(known))}")


def shown(value: object) -> str:
    """A value as it stands in an error: a table of rules may be longer than anybody reads."""
    try:
        text = repr(value)
    except Exception:  # of an integer of thousands of digits, or an object of the user's
        text = f"a value of type {type(value).__name__}"
    return text if len(text) <= _LONG else f"{text[:_LONG]}…"


def _is_odd(value: float | str) -> bool:
    """Python reads more in a text than a person means by it: "1_0" is 10, and so are digits of other scripts."""
    return isinstance(value, str) and ("_" in value or not value.isascii())


def _range(minimum: float | None, maximum: float | None) -> str:
    if minimum is None:
        return ""
    return f" of at least {minimum:g}" if maximum is None else f" from {minimum:g} to {maximum:g}"


LONGEST_WAIT: Final = 86_400  # seconds; what is much longer no lock and no socket can be told


def number(name: str, value: object, *, minimum: float | None = None, maximum: float | None = None) -> float:
    """A finite number, also as text."""
    allowed = "a number" + _range(minimum, maximum)
    try:
        if isinstance(value, bool) or not isinstance(value, int | float | str) or _is_odd(value):
            raise ValueError
        result = float(value)
    except (ValueError, OverflowError):
        raise refuse(name, value, allowed) from None
    if not math.isfinite(result) or _is_beyond(result, minimum, maximum):
        raise refuse(name, value, allowed)
    return result


def _is_beyond(value: float, minimum: float | None, maximum: float | None) -> bool:
    return (minimum is not None and value < minimum) or (maximum is not None and value > maximum)


def integer(name: str, value: object, *, minimum: int | None = None, maximum: int | None = None) -> int:
    """A whole number, also as text."""
    allowed = "a whole number" + _range(minimum, maximum)
    try:
        if isinstance(value, bool) or not isinstance(value, int | str) or _is_odd(value):
            raise ValueError
        result = int(value)
    except ValueError:
        raise refuse(name, value, allowed) from None
    if _is_beyond(result, minimum, maximum):
        raise refuse(name, value, allowed)
    return result


def boolean(name: str, value: object) -> bool:
    """True or False, also as text: 1/0, true/false, yes/no, on/off."""
    if isinstance(value, int) and value in (0, 1):  # False and True are
        return bool(value)
    word = value.strip().lower() if isinstance(value, str) else ""
    if word in _TRUE:
        return True
    if word in _FALSE:
        return False
    raise refuse(name, value, "true or false (1/0, yes/no, on/off)")


def text(name: str, value: object) -> str:
    """A text that can be written: what an environment holds in another encoding than UTF-8 cannot."""
    if not isinstance(value, str):
        raise refuse(name, value, "a string")
    try:
        value.encode()
    except UnicodeEncodeError:
        raise refuse(name, value, "a string that UTF-8 can encode") from None
    return value


def members(name: str, value: object) -> tuple[str, ...]:
    """Several words: a sequence, or one text that separates them by commas; "none" is none of them."""
    if isinstance(value, str):
        if value.strip().lower() == "none":
            return ()
        return tuple(word for word in (part.strip() for part in value.split(",")) if word)
    if isinstance(value, Sequence | AbstractSet) and all(isinstance(word, str) for word in value):
        return tuple(sorted(value)) if isinstance(value, AbstractSet) else tuple(value)
    raise refuse(name, value, "a list of words, or words separated by commas")


def imported(name: str, path: str) -> Any:
    """What the dotted path names ("package.module.attribute").

    Raises: ImproperlyConfigured, chained to the ImportError or AttributeError.
    """
    module, _, attribute = path.rpartition(".")
    try:
        if not module:
            raise ImportError(f"{path!r} is not a dotted path")
        return getattr(importlib.import_module(module), attribute)
    except (ImportError, AttributeError) as error:
        raise ImproperlyConfigured(f"{name} is {path!r}, which cannot be imported: {error}") from error


#: Up to the last "@", as a password may hold anything: rather a host too few in a log than a password.
_CREDENTIALS: Final = re.compile(r"(?:(?<=://)|^(?!\w[\w+.-]*://)).*@", re.DOTALL)
_SECRETS: Final = re.compile(r"(?i)(?<![a-z])((?:[a-z_]*password|secret|[a-z_]*passwd)=)[^&#]*")


def without_password(text: str) -> str:
    """A URL as it may stand in messages and logs."""
    return _SECRETS.sub(r"\1***", _CREDENTIALS.sub("***@", text, count=1))
