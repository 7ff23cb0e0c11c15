"""Reuse (RFC 9111 §4): may a stored response be sent for this request, now?

Rule 1: "may it be stored", "may it be reused" and "what is in the key" are separate. Here everything is asked anew.
Rule 2: a guarded response does not exist for the request: neither as fresh nor as stale nor as a source of conditions.
Rule 3: staleness counts from the end of freshness. What forbids stale use (§4.2.4) forbids it on every occasion.
"""

from __future__ import annotations

import enum
from typing import Final

from cachemw.rfc9111.fields import CacheControl
from cachemw.rfc9111.freshness import control, current_age, forbids_stale
from cachemw.rfc9111.messages import Head, StoredResponse
from cachemw.rfc9111.policy import Policy
from cachemw.rfc9111.requests import CREDENTIALS, Request
from cachemw.rfc9111.storing import has_session, nominated, request_control, shares_credentials, stated

__all__ = [
    "Reuse",
    "age",
    "may_reuse",
    "may_serve_in_grace",
    "may_serve_stale",
    "may_serve_stale_on_error",
    "may_serve_stale_while_revalidating",
    "must_validate",
    "only_if_cached",
]

#: What RFC 5861 §4 calls an error.
_ERRORS: Final = frozenset({500, 502, 503, 504})
#: What a gateway answers if it cannot reach the application: as good as no answer (RFC 9111 §4.2.4, "disconnected").
_DISCONNECTED: Final = frozenset({None, 502, 504})


class Reuse(enum.Enum):
    """What to do with the stored response that a request selects."""

    FRESH = "fresh"  # send it
    STALE = "stale"  # send it, and fetch a new one in the background
    VALIDATE = "validate"  # ask the application, with conditions if the response has validators
    GUARDED = "guarded"  # ask the application as if nothing were stored: this request may not share the response


def may_reuse(request: Request, stored: StoredResponse, policy: Policy, now: float, *, softened: bool = False) -> Reuse:
    """What may be done with a stored response whose key matches this request.

    softened says that a soft purge came after it was stored: it then counts as stale, however young it is.
    """
    if (stored.chosen and has_session(request, policy) and "cookie" not in nominated(stored.head)) or (
        _has_credentials(request, policy) and not _is_for_credentials(stored.head, policy)
    ):
        return Reuse.GUARDED
    if request.known and _would_read_session(request, stored.head, policy):
        return Reuse.GUARDED
    fresh = now < stored.fresh_until and not softened
    if policy.request_directives and (asked := request_control(request)):
        verdict = _as_asked(asked, stored, policy, now, fresh=fresh)
    elif fresh:
        return Reuse.FRESH
    else:
        verdict = Reuse.STALE if may_serve_stale_while_revalidating(stored, policy, now) else Reuse.VALIDATE
    return Reuse.VALIDATE if verdict is Reuse.STALE and _is_personal(request, stored.head) else verdict


def _would_read_session(request: Request, head: Head, policy: Policy) -> bool:
    """May the client have a session, kept further out, that is read unnoticed? The stored page was made without one."""
    if request.session != "read" or not policy.session_cookies or shares_credentials(control(head, policy)):
        return False
    return "cookie" not in nominated(head)


def _is_personal(request: Request, head: Head) -> bool:
    """Did the client's identity select it? A background refresh, which is nobody's, would fetch another page."""
    names = nominated(head)
    return any(name in names and request.told(name) for name in CREDENTIALS)


def must_validate(
    request: Request, stored: StoredResponse, policy: Policy, now: float, *, softened: bool = False
) -> bool:
    """Must the application confirm the stored response before it answers this request (§4)?

    A request may not validate what it is guarded from: see `may_reuse`.
    """
    return may_reuse(request, stored, policy, now, softened=softened) is Reuse.VALIDATE


def age(stored: StoredResponse, now: float) -> int:
    """What `Age` says of a stored response that is sent now (§5.1), in whole seconds."""
    return int(current_age(stored, now))


def _has_credentials(request: Request, policy: Policy) -> bool:
    """Does it have Authorization, or has something further out read it? For Django, an empty one does not count."""
    lines = request.told("authorization")
    return any(lines) if policy.authorization == "vary" else bool(lines) or request.user


def _is_for_credentials(head: Head, policy: Policy) -> bool:
    """May a request with Authorization be given this response? Only if it could be stored from one (RFC 9111 §3.5).

    The RFC limits only storing. But an application shows anonymous visitors something else than users, unless it says
    so.
    """
    if policy.authorization == "vary" and "authorization" in nominated(head):
        return True
    return shares_credentials(control(head, policy))


def _as_asked(asked: CacheControl, stored: StoredResponse, policy: Policy, now: float, *, fresh: bool) -> Reuse:
    """The request's own directives (RFC 9111 §5.2.1); a number that cannot be read counts as 0."""
    if "no-cache" in asked:
        return Reuse.VALIDATE
    old = current_age(stored, now)
    if "max-age" in asked:
        max_age = asked.seconds("max-age") or 0
        if old > max_age or not max_age:
            return Reuse.VALIDATE
    if "min-fresh" in asked and stored.lifetime - old < (asked.seconds("min-fresh") or 0):
        return Reuse.VALIDATE
    if fresh:
        return Reuse.FRESH
    if "max-stale" in asked:
        argument = asked.get("max-stale")
        if may_serve_stale(stored, policy) and (
            argument is None or _staleness(stored, now) <= (asked.seconds("max-stale") or 0)
        ):
            return Reuse.STALE
    elif "max-age" not in asked and may_serve_stale_while_revalidating(stored, policy, now):
        return Reuse.STALE  # with max-age, the client "does not wish to receive a stale response" (§5.2.1.1)
    return Reuse.VALIDATE


def _staleness(stored: StoredResponse, now: float) -> float:
    return now - stored.born - stored.lifetime


def may_serve_stale(stored: StoredResponse, policy: Policy) -> bool:
    """May it be sent stale at all, or does something forbid that (RFC 9111 §4.2.4)?"""
    return not (stored.validate or policy.django_rules or forbids_stale(control(stored.head, policy)))


def _is_within(stored: StoredResponse, policy: Policy, now: float, name: str, default: float) -> bool:
    """Is the response within the window of staleness that it states for `name`, or else that of the policy?"""
    if stored.validate or policy.django_rules:
        return False
    directives = control(stored.head, policy)
    window = stated(directives, name, default)
    return window > 0 and _staleness(stored, now) <= window and not forbids_stale(directives)


def may_serve_stale_while_revalidating(stored: StoredResponse, policy: Policy, now: float) -> bool:
    """May it be sent now while a new one is fetched in the background (RFC 5861 §3)?"""
    return _is_within(stored, policy, now, "stale-while-revalidate", policy.stale_while_revalidate)


def may_serve_stale_on_error(stored: StoredResponse, policy: Policy, now: float, *, status: int | None) -> bool:
    """May it be sent instead of an error of the application (RFC 5861 §4; RFC 9111 §4.2.4)?

    status is that of the answer; None if there was none, because the application raised or cannot be reached. Do not
    ask about a response that is guarded from the request.
    """
    if policy.disconnected and status in _DISCONNECTED and may_serve_stale(stored, policy):
        return True
    if status is not None and status not in _ERRORS:
        return False
    return _is_within(stored, policy, now, "stale-if-error", policy.stale_if_error)


def may_serve_in_grace(stored: StoredResponse, policy: Policy, now: float) -> bool:
    """May it be sent while another request is already fetching the page (`policy.grace`)?"""
    return may_serve_stale(stored, policy) and policy.grace > 0 and _staleness(stored, now) <= policy.grace


def only_if_cached(request: Request, policy: Policy) -> bool:
    """Does the client want only an answer from this cache, or else a 504 (RFC 9111 §5.2.1.7)?"""
    return policy.request_directives and "only-if-cached" in request_control(request)
