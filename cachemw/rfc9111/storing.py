"""Storing (RFC 9111 §3): which responses may be stored, for how long, and which of their fields.

Rule 1: what a request carries (credentials, a session, a range) can only refuse; it never makes a response storable.
Rule 2: a lifetime given from outside (`timeout`) overrides what a response says about time, not what it forbids.
Rule 3: the reason of a refusal is a short token, which `Cache-Status` shows and the tests read.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from functools import lru_cache
from http import HTTPStatus
from typing import Final

from cachemw.rfc9111.cautions import has_measurements, has_nonce, is_polled
from cachemw.rfc9111.fields import CacheControl, has_bad_octets, parse_cache_control, parse_list, parse_vary
from cachemw.rfc9111.freshness import control, explicit_lifetime, forbids_stale, heuristic_lifetime
from cachemw.rfc9111.invalidation import own_target, same_origin_target
from cachemw.rfc9111.messages import Fields, Head
from cachemw.rfc9111.policy import Policy
from cachemw.rfc9111.requests import Request
from cachemw.rfc9111.session_cookies import has_session_cookie

__all__ = [
    "NO_PAGE",
    "Storing",
    "has_session",
    "judge",
    "may_store",
    "needs_vary_authorization",
    "nominated",
    "request_control",
    "shares_credentials",
    "stale_window",
    "stated",
    "storable_fields",
    "unshared",
    "unstorable_names",
]


@dataclass(frozen=True, slots=True)
class Storing:
    """Whether a response may be stored, and as what.

    ok         it may be stored
    reason     why not, as a short token ("no-store", "set-cookie", …); "" when ok
    lifetime   freshness lifetime in seconds, counted from its birth
    chosen     this cache chose the lifetime: the response states none, and nobody gave one for it
    validate   it must be validated before every use
    keep       for how many seconds it is still of use after it has become stale
    """

    ok: bool
    reason: str
    lifetime: float
    chosen: bool
    validate: bool
    keep: float


_storing: Final = lru_cache(maxsize=256)(Storing)  # few different ones, and a frozen dataclass costs 1 µs to make


def _refused(reason: str) -> Storing:
    return _storing(False, reason, 0.0, False, False, 0.0)


_NOTHING: Final = CacheControl()

#: Answers to a client's own conditions or range, which are not pages (RFC 9110 §15.4.5, §15.5.13, §15.5.17).
NO_PAGE: Final = frozenset({304, 412, 416})
#: Status codes whose meaning this cache knows (the IANA registry, as the standard library has it).
_UNDERSTOOD: Final = frozenset(map(int, HTTPStatus))

#: Fields of one connection or one hop (RFC 9110 §7.6.1, RFC 9111 §3.1), and `Age`, which every hit computes.
_NEVER_STORED: Final = frozenset(
    {
        "age",
        "connection",
        "keep-alive",
        "proxy-authenticate",
        "proxy-authentication-info",
        "proxy-authorization",
        "proxy-connection",
        "te",
        "trailer",
        "transfer-encoding",
        "upgrade",
    }
)
_NEVER_SHARED: Final = _NEVER_STORED | {"set-cookie", "set-cookie2"}


def may_store(
    request: Request,
    head: Head,
    policy: Policy,
    *,
    seconds: float,
    timeout: float | None,
    now: float,
    method: str | None = None,
    named: bool = False,
    plain: bool = False,
    judged: Storing | None = None,
) -> Storing:
    """May this response be stored as the answer to further requests (RFC 9111 §3)?

    seconds   the lifetime if the response states none
    timeout   a lifetime given by a view or a rule, which beats the response's own; 0: do not store; None: not given
    method    the method to judge by, if it is not that of the request
    named     the timeout was given for this status by name; a view's timeout is for `policy.statuses` only
    plain     the request is known to be a GET or HEAD without Range, Authorization or directives
    judged    what `judge` says about the response, if that is known already
    """
    asked = method or request.method
    if (not plain or head.status == 206) and (reason := _unanswerable(asked, request, head, policy, now)):
        return _refused(reason)
    decision = judged or judge(head, policy, seconds=seconds, timeout=timeout, now=now, named=named)
    if not decision.ok:
        return decision
    reason = unshared(request, head, policy, chosen=decision.chosen, plain=plain)
    return _refused(reason) if reason else decision


def unshared(request: Request, head: Head, policy: Policy, *, chosen: bool, plain: bool = False) -> str:
    """Why the answer to this request, or a 304 to it, is for nobody else; "" if nothing says so.

    chosen    this cache chose the lifetime
    plain     see `may_store`
    """
    if (request.user or (not plain and request.told("authorization"))) and not _may_answer_credentials(
        request, head, policy
    ):
        return "authorization"
    if chosen:
        if has_session(request, policy) and "cookie" not in nominated(head):
            return "session"
        if not policy.django_rules and has_nonce(head):
            return "nonce"
        if not policy.django_rules and has_measurements(head):
            return "metrics"
        if not policy.django_rules and is_polled(request):
            return "polling"
    return ""


def _unanswerable(method: str, request: Request, head: Head, policy: Policy, now: float) -> str:
    """Why this request's answer cannot be given to others; "" if nothing in the request says so."""
    if method not in ("GET", "HEAD") and not (policy.store_post and _answers_get(method, request, head, policy, now)):
        return "method"
    if (request.lines("range") or head.status == 206) and not _is_part_or_page(method, request, head, policy):
        return "partial"
    return "no-store" if policy.request_directives and "no-store" in request_control(request) else ""


def _answers_get(method: str, request: Request, head: Head, policy: Policy, now: float) -> bool:
    """Is this answer to POST also the answer to GET of the URL?

    RFC 9110 §9.3.3: "explicit freshness information" and a Content-Location with "the same value as the POST's target
    URI".
    """
    location = head.lines("content-location")
    return (
        method == "POST"
        and head.status == 200
        and len(location) == 1
        and same_origin_target(request, location[0]) == own_target(request)
        and explicit_lifetime(head, policy, now) is not None
    )


def _is_part_or_page(method: str, request: Request, head: Head, policy: Policy) -> bool:
    """Is the answer to a request with Range a part of the page that says which, or the page as a whole?

    Without `store_partial`, neither is stored: a 200 to a Range may be a part from a careless application.
    """
    ranges = len(head.lines("content-range"))
    if head.status == 206:
        return policy.store_partial and method == "GET" and ranges == 1 and bool(request.lines("range"))
    return policy.store_partial and ranges == 0


def _may_answer_credentials(request: Request, head: Head, policy: Policy) -> bool:
    """May the answer to a request with Authorization be stored: by RFC 9111 §3.5, or because it varies on it?"""
    if policy.authorization == "vary":
        return not needs_vary_authorization(request, head, policy)
    return shares_credentials(control(head, policy))


def judge(
    head: Head, policy: Policy, *, seconds: float, timeout: float | None, now: float, named: bool = False
) -> Storing:
    """The part of `may_store` that depends on the response alone; its arguments are the same.

    If the timeout is not for this status, the response is stored for as long as it says itself: if a view is cached for
    an hour, its errors are not.
    """
    status = head.status
    if not 200 <= status <= 599 or status in NO_PAGE:
        return _refused("status")
    if not _is_sound(head):
        return _refused("field")
    directives = control(head, policy)
    varies_on = nominated(head)
    if "*" in varies_on:
        return _refused("vary-star")
    if reason := _forbidden(head, directives, varies_on, policy):
        return _refused(reason)
    lifetime, chosen, reason = _lifetime(head, policy, seconds, timeout, now, named)
    if reason:
        return _refused(reason)
    validate = "no-cache" in directives and not directives.field_names("no-cache")
    validator = bool(head.lines("etag") or head.lines("last-modified"))
    stale = stale_window(directives, policy)
    if (validate or lifetime <= 0) and not (policy.store_unusable and validator):
        if validate:
            return _refused("no-cache")
        if not (stale and _asks_for_stale(directives)):
            return _refused("no-lifetime")
    keep = max(stale, policy.keep) if validator and policy.revalidate else stale
    return _storing(True, "", lifetime, chosen, validate, keep)


def _is_sound(head: Head) -> bool:
    """Will the next reader read the same fields, with no octet ending one where it should not?"""
    return head.layout.sound and not has_bad_octets(head.reason + "".join([value for _, value in head.fields]))


def _forbidden(head: Head, directives: CacheControl, varies_on: Iterable[str], policy: Policy) -> str:
    """Why this response cannot be stored, whatever its lifetime; "" if nothing forbids it."""
    if directives:
        if policy.must_understand and "must-understand" in directives:  # §5.2.2.3: it then overrides no-store
            if head.status not in _UNDERSTOOD:
                return "status"
        elif "no-store" in directives:
            return "no-store"
        if "private" in directives and not directives.field_names("private"):
            return "private"
    if _sets_cookies(head, directives):
        if policy.set_cookie == "refuse":
            return "set-cookie"
        if policy.set_cookie == "store" and "cookie" in varies_on:
            return "set-cookie"  # every newcomer, who has no cookie yet, would get the first one's (Django)
    if (head.value("content-type") or "").partition(";")[0].strip(" \t").lower() == "text/event-stream":
        return "event-stream"  # events of the first listener are no answer to the next, who must not wait for it
    return ""


def _sets_cookies(head: Head, directives: CacheControl) -> bool:
    """Does it set cookies that would be stored with it?"""
    return bool(head.lines("set-cookie")) and "set-cookie" not in _withheld(directives)


def _withheld(directives: CacheControl) -> tuple[str, ...]:
    """The fields that `private="…"` and `no-cache="…"` keep out of the stored response (§5.2.2.4, §5.2.2.7)."""
    return directives.field_names("private") + directives.field_names("no-cache")


def _lifetime(
    head: Head, policy: Policy, seconds: float, timeout: float | None, now: float, named: bool
) -> tuple[float, bool, str]:
    """The freshness lifetime in seconds, whether this cache chose it, and the reason if there can be none."""
    if timeout is not None and timeout <= 0:
        return 0.0, False, "no-lifetime"
    listed = head.status in policy.statuses
    if timeout is not None and (listed or named):
        return timeout, False, ""
    explicit = explicit_lifetime(head, policy, now)
    if explicit is not None:
        return explicit, False, "" if listed or policy.explicit_statuses else "status"
    heuristic = heuristic_lifetime(head, policy, now)
    guessed = heuristic is not None or seconds <= 0
    if guessed and policy.set_cookie == "store" and _sets_cookies(head, control(head, policy)):
        return 0.0, True, "set-cookie"  # nobody has said that other visitors should get it
    if heuristic is not None:
        return heuristic, True, ""
    return seconds, True, "" if listed else "status"


def stale_window(directives: CacheControl, policy: Policy) -> float:
    """For how many seconds after it became stale a response may still be sent, for any reason."""
    if policy.django_rules or (directives and forbids_stale(directives)):
        return 0.0
    return max(
        stated(directives, "stale-while-revalidate", policy.stale_while_revalidate),
        stated(directives, "stale-if-error", policy.stale_if_error),
        policy.grace,
        policy.keep if policy.disconnected else 0.0,
    )


def stated(directives: CacheControl, name: str, default: float) -> float:
    """The seconds that the directive states, 0 if they cannot be read; `default` if it is not there."""
    return (directives.seconds(name) or 0) if name in directives else default


def _asks_for_stale(directives: CacheControl) -> bool:
    """RFC 5861: `max-age=0, stale-while-revalidate=60` asks to be stored, though never to be fresh."""
    return bool(directives.seconds("stale-while-revalidate") or directives.seconds("stale-if-error"))


def request_control(request: Request) -> CacheControl:
    """The request's Cache-Control; without one, what `Pragma` says in its place (RFC 9111 §5.4)."""
    lines = request.lines("cache-control") or request.lines("pragma")
    return parse_cache_control(lines) if lines else _NOTHING


def shares_credentials(directives: CacheControl) -> bool:
    """May a response be shared between requests with and without Authorization (RFC 9111 §3.5)?"""
    return "public" in directives or "s-maxage" in directives or "must-revalidate" in directives


def needs_vary_authorization(request: Request, head: Head, policy: Policy) -> bool:
    """Must `Vary` get `Authorization` before this response may be stored (Django's way, `authorization="vary"`)?

    Django adds it if the request has credentials and the response is not `public`.
    """
    return (
        policy.authorization == "vary"
        and any(request.told("authorization"))
        and "public" not in control(head, policy)
        and "authorization" not in nominated(head)
    )


def has_session(request: Request, policy: Policy) -> bool:
    """May the application know who asks, by a session cookie or by something further out?"""
    if not policy.session_cookies:
        return False
    return has_session_cookie(request, policy) or (request.known and (request.user or request.session != ""))


def nominated(head: Head) -> tuple[str, ...]:
    """The request fields that `Vary` names (RFC 9111 §4.1), in lower case; ("*",) if nobody can know."""
    lines = head.lines("vary")
    return _parse_vary(tuple(lines)) if lines else ()


_parse_vary: Final = lru_cache(maxsize=64)(parse_vary)  # a site has few different ones


def storable_fields(head: Head, policy: Policy) -> Fields:
    """The fields to store, in the order and spelling of the application (RFC 9111 §3.1).

    Left out: fields of the connection and those that `Connection` nominates, `Age`, cookies unless the policy stores
    them, what `private="…"` or `no-cache="…"` withhold, and this cache's own member of `Cache-Status`.
    """
    dropped = unstorable_names(head, policy)
    fields = tuple([field for field in head.fields if field[0].lower() not in dropped])
    if policy.cache_status is not None and head.lines("cache-status"):
        return tuple(field for field in fields if not _is_own_status(field, policy.cache_status))
    return fields


def unstorable_names(head: Head, policy: Policy) -> frozenset[str]:
    """The names of fields, in lower case, that are not stored with this response, whether or not it has them."""
    dropped = _NEVER_STORED if policy.set_cookie == "store" else _NEVER_SHARED
    if connection := head.lines("connection"):
        dropped = dropped.union(map(str.lower, parse_list(connection)))
    directives = control(head, policy)
    if directives and (withheld := _withheld(directives)):
        dropped = dropped.union(withheld)
    return dropped


def _is_own_status(field: tuple[str, str], name: str) -> bool:
    return field[0].lower() == "cache-status" and field[1].partition(";")[0].strip(' \t"') == name
