"""No-Vary-Search: which query parameters do not distinguish pages (draft-ietf-httpbis-no-vary-search)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any
from urllib.parse import unquote_to_bytes

from cachemw.rfc9111.syntax import MAX_FIELD, parse_dictionary

__all__ = ["NoVarySearch", "parameter_name", "parse_no_vary_search"]


@dataclass(frozen=True, slots=True, kw_only=True)
class NoVarySearch:
    """What does not matter in a query. Names of parameters are decoded."""

    ignored: frozenset[str] = frozenset()  # these do not matter
    only: frozenset[str] | None = None  # not None: only these matter
    any_order: bool = False  # parameters of different names may come in any order

    def canonical(self, query: str) -> str:
        """The part of a raw query that still distinguishes pages, with its parameters spelled as they were.

        Two queries with the same canonical form are equivalent by the draft. Some equivalent ones have different forms
        (`a=%41` and `a=A`), which costs a miss but shows no wrong page. A query of more than 8 KiB stays as it is. So
        does one with ";": some applications still separate parameters by it, and would see one that is hidden behind an
        ignored name (CVE-2021-23336).
        """
        if len(query) > MAX_FIELD or ";" in query:
            return query
        parameters = [(parameter_name(parameter), parameter) for parameter in query.split("&") if parameter]
        kept = [(name, parameter) for name, parameter in parameters if self._matters(name)]
        if self.any_order:
            kept.sort(key=lambda pair: pair[0])  # stable: parameters of one name keep their order
        return "&".join(parameter for _, parameter in kept)

    def _matters(self, name: str) -> bool:
        return name not in self.ignored if self.only is None else name in self.only


def parameter_name(parameter: str) -> str:
    """The name of `name=value`, decoded by the rules of application/x-www-form-urlencoded."""
    name = parameter.partition("=")[0]
    return name if name.isascii() and "%" not in name and "+" not in name else _decode(name)


def _decode(name: str) -> str:
    octets = name.replace("+", " ").encode("latin-1", "backslashreplace")
    return unquote_to_bytes(octets).decode("utf-8", "replace")


def parse_no_vary_search(lines: Sequence[str]) -> NoVarySearch | None:
    """What a No-Vary-Search field says does not matter; None if it is absent or malformed, or if all matters."""
    members = parse_dictionary(lines)
    if members is None:
        return None
    any_order = members.get("key-order", False)
    params = members.get("params", False)
    if not isinstance(any_order, bool) or ("except" in members and params is not True):
        return None
    ignored: frozenset[str] | None = frozenset()
    only: frozenset[str] | None = None
    if params is True:
        ignored, only = None, _names(members.get("except", []))
    elif params is not False:
        ignored = _names(params)
    if ignored is None and only is None:
        return None
    found = NoVarySearch(ignored=ignored or frozenset(), only=only, any_order=any_order)
    return None if found == NoVarySearch() else found


def _names(value: Any) -> frozenset[str] | None:
    """The decoded names of an inner list of strings; None if it is something else.

    A name in broken UTF-8 is refused: decoded, it would equal every other such name.
    """
    if not isinstance(value, list) or not all(type(item) is str for item in value):
        return None
    names = frozenset(map(_decode, value))
    return None if any("\ufffd" in name for name in names) else names
