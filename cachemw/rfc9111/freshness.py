"""Freshness (RFC 9111 §4.2): how long a response says it may be used, and how old it is.

Rule 1: ages and lifetimes are seconds, moments are seconds since the epoch. What cannot be read counts as stale.
Rule 2: a valid targeted field (RFC 9213) switches `Cache-Control`, `Expires` and `Pragma` off completely.
Rule 3: a lifetime does not depend on ages. All that is known about the age at arrival goes into `born`.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache
from typing import Final

from cachemw.rfc9111.fields import CacheControl, parse_age, parse_cache_control, parse_date, parse_targeted
from cachemw.rfc9111.messages import Head, StoredResponse
from cachemw.rfc9111.policy import Policy

__all__ = [
    "born",
    "control",
    "corrected_initial_age",
    "current_age",
    "explicit_lifetime",
    "forbids_stale",
    "freshness_lifetime",
    "heuristic_lifetime",
    "moment",
    "targeted_control",
]

_NO_CACHE: Final = CacheControl((("no-cache", None),))


def targeted_control(head: Head, policy: Policy) -> CacheControl | None:
    """The directives of the first valid, non-empty field among `policy.targeted` (RFC 9213 §2.2), or None."""
    for name in policy.targeted:
        lines = head.lines(name)
        if lines and (directives := _parse_targeted(tuple(lines))):
            return directives
    return None


@lru_cache(maxsize=64)  # a structured field takes some 20 µs to read, and a site has few different ones
def _parse_targeted(lines: tuple[str, ...]) -> CacheControl | None:
    return parse_targeted(lines)


def control(head: Head, policy: Policy) -> CacheControl:
    """The response directives that count for this cache: those of a targeted field, else those of `Cache-Control`.

    `Pragma: no-cache` counts if a response has no Cache-Control. RFC 9111 §5.4 leaves its meaning open; whoever sends
    it alone does not want the page shared.
    """
    if (directives := targeted_control(head, policy)) is not None:
        return directives
    directives = head.cache_control
    if directives or policy.django_rules:
        return directives
    return _NO_CACHE if _says_no_cache(head.lines("pragma")) else directives


def _says_no_cache(pragma: Sequence[str]) -> bool:
    return bool(pragma) and "no-cache" in parse_cache_control(pragma)


def freshness_lifetime(head: Head, policy: Policy, now: float) -> float | None:
    """The freshness lifetime of a response (RFC 9111 §4.2.1), in seconds: the one that it states, else by heuristics.

    None if neither gives one, and this cache may choose it.
    """
    stated = explicit_lifetime(head, policy, now)
    return heuristic_lifetime(head, policy, now) if stated is None else stated


def explicit_lifetime(head: Head, policy: Policy, now: float) -> float | None:
    """The freshness lifetime that the response itself states (RFC 9111 §4.2.1), in seconds; None if it states none.

    The first member of `policy.freshness` that is present decides. One that cannot be read means 0 (stale).
    """
    targeted = targeted_control(head, policy)
    directives = head.cache_control if targeted is None else targeted
    for name in policy.freshness:
        if name in directives:
            return directives.seconds(name) or 0
        if name == "expires" and targeted is None and head.lines("expires"):
            return _lifetime_by_expires(head, now)
    return None


def _lifetime_by_expires(head: Head, now: float) -> float:
    """Expires minus Date, or minus the moment of arrival without a usable Date. Two lines of Expires are not valid."""
    expires = moment(head, "expires", now)
    if expires is None:
        return 0
    date = moment(head, "date", now)
    return max(0, expires - (now if date is None else date))


def heuristic_lifetime(head: Head, policy: Policy, now: float) -> float | None:
    """A fraction of the time since `Last-Modified` (RFC 9111 §4.2.2), in seconds, if no lifetime is stated.

    None if heuristics are off, if the status is neither in `policy.statuses` nor the response `public`, or if it does
    not say when it was modified.
    """
    if policy.heuristic_fraction <= 0:
        return None
    if head.status not in policy.statuses and "public" not in control(head, policy):
        return None
    modified = moment(head, "last-modified", now)
    if modified is None:
        return None
    date = moment(head, "date", now)
    unchanged = (now if date is None else date) - modified
    return min(max(0.0, unchanged * policy.heuristic_fraction), policy.heuristic_max)


def moment(head: Head, name: str, now: float) -> int | None:
    """The HTTP-date of a field with a single, valid line, in seconds since the epoch; else None."""
    lines = head.lines(name)
    return parse_date(lines[0], now) if len(lines) == 1 else None


def corrected_initial_age(head: Head, *, request_time: float, response_time: float) -> float:
    """How old the response was on arrival (RFC 9111 §4.2.3), in seconds, by the larger of Age and Date."""
    response_delay = max(0.0, response_time - request_time)
    date = moment(head, "date", response_time)
    apparent_age = 0.0 if date is None else response_time - date
    return max(0.0, apparent_age, (parse_age(head.lines("age")) or 0) + response_delay)


def born(head: Head, *, request_time: float, response_time: float) -> float:
    """The moment at which the age of the response was 0."""
    where = head.layout.where
    if "age" not in where and "date" not in where:
        return min(request_time, response_time)
    return response_time - corrected_initial_age(head, request_time=request_time, response_time=response_time)


def current_age(stored: StoredResponse, now: float) -> float:
    """The age of a stored response (RFC 9111 §4.2.3), in seconds; 0 if the clock was set back to before its birth."""
    return max(0.0, now - stored.born)


def forbids_stale(directives: CacheControl) -> bool:
    """Do these directives forbid using a stale response without validation (RFC 9111 §4.2.4)?

    `s-maxage` does: it "incorporates the semantics of the proxy-revalidate response directive" (§5.2.2.10).
    """
    return (
        "must-revalidate" in directives
        or "s-maxage" in directives
        or "proxy-revalidate" in directives
        or ("no-cache" in directives and not directives.field_names("no-cache"))
    )
