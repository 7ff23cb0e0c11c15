"""No-Vary-Search: which query parameters do not distinguish pages (draft-ietf-httpbis-no-vary-search)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any
from urllib.parse import unquote_to_bytes

from cachemw.rfc9111.syntax import MAX_FIELD, parse_dictionary

__all__ = ["NoVarySearch", "parse_no_vary_search"]


@dataclass(frozen=True, slots=True, kw_only=True)
class NoVarySearch:
    """What of a query does not matter. Names are the decoded octets of the parameters' names."""

    ignored: frozenset[bytes] = frozenset()  # these do not matter
    only: frozenset[bytes] | None = None  # not None: nothing matters but these
    any_order: bool = False  # parameters of different names may come in any order

    def canonical(self, query: str) -> str:
        """The part of a raw query that still distinguishes pages, its parameters spelt as they were.

        Two queries with the same canonical form are equivalent by the draft; not every two equivalent ones have the
        same (`a=%41` and `a=A` do not), which costs a miss and no wrong page. A query of more than 8 KiB stays as it
        is, and so does one with ";": some applications still separate parameters by it, and see one hidden behind an
        ignored name (CVE-2021-23336).
        """
        if len(query) > MAX_FIELD or ";" in query:
            return query
        parameters = [(_name(parameter), parameter) for parameter in query.split("&") if parameter]
        kept = [(name, parameter) for name, parameter in parameters if self._matters(name)]
        if self.any_order:
            # Stable: parameters of one name keep their order. Names in broken UTF-8 are one name to the draft.
            kept.sort(key=lambda pair: pair[0].decode("utf-8", "replace"))
        return "&".join(parameter for _, parameter in kept)

    def _matters(self, name: bytes) -> bool:
        return name not in self.ignored if self.only is None else name in self.only


def _name(parameter: str) -> bytes:
    """The decoded name of `name=value`, by the rules of application/x-www-form-urlencoded."""
    name = parameter.partition("=")[0].encode("latin-1", "backslashreplace")
    return unquote_to_bytes(name.replace(b"+", b" ")) if b"%" in name or b"+" in name else name


def parse_no_vary_search(lines: Sequence[str]) -> NoVarySearch | None:
    """What a No-Vary-Search field says does not matter; None if it is absent, malformed, or says that all matters."""
    members = parse_dictionary(lines)
    if members is None:
        return None
    any_order = members.get("key-order", False)
    params = members.get("params", False)
    if not isinstance(any_order, bool) or ("except" in members and params is not True):
        return None
    ignored: frozenset[bytes] | None = frozenset()
    only: frozenset[bytes] | None = None
    if params is True:
        ignored, only = None, _names(members.get("except", []))
    elif params is not False:
        ignored = _names(params)
    if ignored is None and only is None:
        return None
    found = NoVarySearch(ignored=ignored or frozenset(), only=only, any_order=any_order)
    return None if found == NoVarySearch() else found


def _names(value: Any) -> frozenset[bytes] | None:
    """The decoded names of an inner list of strings; None if it is something else."""
    if not isinstance(value, list) or not all(type(item) is str for item in value):
        return None
    return frozenset(map(_name_of_key, value))


def _name_of_key(key: str) -> bytes:
    return unquote_to_bytes(key.replace("+", " "))
