"""Outcomes: what the caches did for a request, read from the response's own `Cache-Status` (RFC 9211).

Rule 1: the last member counts: it is that of the cache nearest to the visitor (RFC 9211 §2).
Rule 2: a field that is no structured list is not there (RFC 9651 §4.2).
"""

from __future__ import annotations

from collections import UserString
from typing import Any, Final, NamedTuple

from cachemw.rfc9111.syntax import MAX_FIELD

__all__ = ["ABORTED", "ANSWERED", "HITS", "LOOKUPS", "MISSES", "OUTCOMES", "Outcome", "outcome_of"]

#: Every outcome, and what it means.
OUTCOMES: Final = {
    "hit": "from the store, fresh",
    "not-modified": "304: the visitor has the stored page already",
    "stale": "from the store, stale",
    "collapsed": "waited for another visitor's request, and got its page",
    "stale-if-error": "from the store, because the application failed",
    "validated": "the application said that the stored page has not changed",
    "miss": "from the application",
    "store-error": "from the application, because the store failed",
    "bypass": "not looked up",
    "none": "no Cache-Status: did not come through a cache",
    "aborted": "no response: the application raised an error, or the visitor left",
}

#: At once from the store; with those who waited, all for whom the application was not asked; and the other look-ups.
HITS: Final = frozenset({"hit", "not-modified", "stale"})
ANSWERED: Final = HITS | {"collapsed"}
MISSES: Final = frozenset({"stale-if-error", "validated", "miss", "store-error"})
LOOKUPS: Final = ANSWERED | MISSES

_WORDS: Final = (str, UserString)  # Strings and Tokens, as `http_sf` gives them
_LONGEST: Final = 64  # characters of a name: what another cache calls itself may be anything


class Outcome(NamedTuple):
    """What a cache did: its name, one of `OUTCOMES`, and why, if it was not a plain one."""

    cache: str
    name: str
    reason: str


_NONE: Final = Outcome("", "none", "")
ABORTED: Final = Outcome("", "aborted", "")


def outcome_of(line: str | None, not_modified: bool = False) -> Outcome:
    """The outcome that the last line of Cache-Status tells; not_modified: of a response with status 304."""
    if line is None or len(line) > MAX_FIELD:
        return _NONE
    import http_sf  # here, as wherever it is needed: the package is pure Python

    try:
        members: Any = http_sf.parse(line.encode("latin-1"), tltype="list")
    except (http_sf.StructuredFieldError, UnicodeEncodeError):
        return _NONE
    if not members:
        return _NONE
    cache, says = members[-1]
    if not isinstance(cache, _WORDS):
        return _NONE
    name, reason = _read(says, not_modified)
    return Outcome(str(cache)[:_LONGEST], name, reason[:_LONGEST])


def _read(says: dict[str, Any], not_modified: bool) -> tuple[str, str]:
    detail, forward = _word(says, "detail"), _word(says, "fwd")
    hit, ttl = says.get("hit") is True, says.get("ttl")
    # RFC 9211 §2.6: not sent on, but answered with what another request has fetched
    if says.get("collapsed") is True and (hit or "fwd-status" not in says):
        return "collapsed", ""
    if hit:
        if not_modified:
            return "not-modified", ""
        return ("stale" if isinstance(ttl, int) and ttl <= 0 else "hit"), ""
    if detail == "store":
        return "store-error", ""
    if forward in ("bypass", "method"):
        return "bypass", detail or forward
    if forward == "stale" and says.get("fwd-status") == 304:
        return "validated", ""
    if isinstance(ttl, int) and ttl <= 0 and "stored" not in says:  # neither a new response nor a hit: RFC 5861 §4
        return "stale-if-error", ""
    return "miss", detail


def _word(says: dict[str, Any], name: str) -> str:
    """A parameter that is a String or a Token; empty if it is not, or is not there."""
    value = says.get(name, "")
    return str(value) if isinstance(value, _WORDS) else ""
