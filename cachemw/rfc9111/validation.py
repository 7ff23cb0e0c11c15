"""Validation (RFC 9111 §4.3), both ways: our conditions towards the application, and the client's towards us.

Rule 1: a stored response is updated only by an answer about the same representation.
Rule 2: what describes the stored body stays as it was stored, whatever an answer without a body says.
Rule 3: the client's conditions and ranges are compared with a complete stored 200, for GET and HEAD alone.
"""

from __future__ import annotations

from collections.abc import Sequence, Set
from dataclasses import dataclass
from typing import Final, Literal

from cachemw.rfc9111.fields import (
    ByteRange,
    CacheControl,
    ETag,
    dump_cache_control,
    format_date,
    parse_date,
    parse_entity_tags,
    parse_etag,
    parse_range,
    parse_tags,
)
from cachemw.rfc9111.freshness import born, explicit_lifetime, heuristic_lifetime, moment, targeted_control
from cachemw.rfc9111.messages import Fields, Head, StoredResponse
from cachemw.rfc9111.policy import Policy
from cachemw.rfc9111.requests import Request
from cachemw.rfc9111.storing import judge, storable_fields

__all__ = [
    "Answered",
    "answer_conditions",
    "conditions",
    "content_range",
    "entity_tag",
    "freshen",
    "freshen_by_head",
    "if_range_holds",
    "not_modified_fields",
    "partial_fields",
    "renewed",
    "select_range",
    "single_range",
    "unsatisfied_fields",
    "validators",
    "without_lifetime",
]

#: What describes the stored body: RFC 9111 §3.2 exempts Content-Length by name, and "fields that the cached response
#: depends upon". A 304 has no body, so a Content-Digest or Content-MD5 in it does not describe ours.
_OF_THE_BODY: Final = frozenset(
    {"content-digest", "content-encoding", "content-length", "content-md5", "content-range", "content-type"}
)
#: Not in a 304: "representation metadata other than the above listed fields" (RFC 9110 §15.4.5).
_NOT_IN_304: Final = _OF_THE_BODY | {"content-language"}


@dataclass(frozen=True, kw_only=True, slots=True)
class Answered:
    """When the answer that updates a stored response was requested and came, and what may state its lifetime.

    request_time, response_time  in seconds since the epoch (RFC 9111 §4.2.3)
    seconds, timeout, named      see `judge`
    """

    request_time: float
    response_time: float
    seconds: float
    timeout: float | None = None
    named: bool = False


def entity_tag(head: Head) -> ETag | None:
    """The response's entity-tag; None if it has none, a malformed one, or two."""
    lines = head.lines("etag")
    return parse_etag(lines[0]) if len(lines) == 1 else None


def validators(head: Head, now: float) -> tuple[ETag | None, int | None]:
    """What tells one version of a response from another (RFC 9110 §8.8): entity-tag, and Last-Modified in seconds.

    None for each that is missing, malformed or given twice. now: for two-digit years.
    """
    return entity_tag(head), moment(head, "last-modified", now)


def conditions(stored: StoredResponse) -> Fields:
    """The fields that ask the application whether the stored response still holds (RFC 9111 §4.3.1); () for none."""
    head = stored.head
    found: list[tuple[str, str]] = []
    tag, modified = validators(head, stored.born)
    if tag is not None:
        found.append(("If-None-Match", str(tag)))
    if modified is not None:
        found.append(("If-Modified-Since", head.lines("last-modified")[0]))  # verbatim: some servers compare the text
    return tuple(found)


def freshen(stored: StoredResponse, head: Head, policy: Policy, answered: Answered) -> StoredResponse | None:
    """The stored response as a 304 to our `conditions` updates it (RFC 9111 §4.3.4).

    None if the 304 is about another representation: then ask the application again, without conditions. A result of
    lifetime 0 that has to be validated may be sent, but `may_store` says whether it may be stored.
    """
    if not _corresponds(stored.head, head):
        return None
    return renewed(stored, head, policy, answered)


def _corresponds(old: Head, new: Head) -> bool:
    """Does the 304 select this stored response (RFC 9111 §4.3.4)? Without any validator it does: we asked for one."""
    if new.lines("etag"):
        tag, own = entity_tag(new), entity_tag(old)
        if tag is None or own is None:
            return new.lines("etag") == old.lines("etag")
        return tag.matches_weakly(own) if tag.weak else tag.matches_strongly(own)
    dates = new.lines("last-modified"), old.lines("last-modified")
    return not all(dates) or dates[0] == dates[1]


def freshen_by_head(stored: StoredResponse, head: Head, policy: Policy, answered: Answered) -> StoredResponse | None:
    """The stored answer to GET as a 200 to HEAD updates it (RFC 9111 §4.3.5); None: invalidate it.

    The ETag, Last-Modified and Content-Length that HEAD gives have to be the stored ones. If it gives none of them,
    nothing says that the body is still the same.
    """
    old = stored.head
    told = [name for name in ("etag", "last-modified", "content-length") if head.lines(name)]
    for name in told:
        known = (str(len(stored.body)),) if name == "content-length" else old.lines(name)
        if tuple(line.strip(" \t") for line in head.lines(name)) != tuple(known):
            return None
    if not told or stored.status != 200 or head.status != 200:
        return None
    return renewed(stored, head, policy, answered)


def renewed(stored: StoredResponse, head: Head, policy: Policy, answered: Answered) -> StoredResponse:
    """The stored body under the updated fields (RFC 9111 §3.2), with age and lifetime counted anew."""
    seconds, timeout, now = answered.seconds, answered.timeout, answered.response_time
    stated = explicit_lifetime(head, policy, now)
    # A lifetime that we chose may be among the stored fields as ours; that does not make it theirs. Beside a targeted
    # field, which switches them off, Cache-Control and Expires are theirs.
    ours = stored.chosen and policy.patch and targeted_control(stored.head, policy) is None
    spoken = stated is not None or targeted_control(head, policy) is not None
    told = without_lifetime(stored.head) if ours and spoken else stored.fields
    merged = Head(stored.status, _updated(told, head, policy, now), stored.reason)
    rechosen = ours and timeout is None and not spoken
    if rechosen and explicit_lifetime(merged, policy, now) is not None:
        guess = heuristic_lifetime(merged, policy, now)
        timeout = seconds if guess is None else guess
        merged = Head(stored.status, _with_expires(merged, head, now + timeout), stored.reason)
    storing = judge(merged, policy, seconds=seconds, timeout=timeout, now=now, named=answered.named)
    return stored.replace(
        fields=storable_fields(merged, policy),
        born=born(head, request_time=answered.request_time, response_time=now),
        lifetime=storing.lifetime,
        began=answered.request_time,
        chosen=storing.ok and (storing.chosen or rechosen),
        validate=storing.validate or not storing.ok,
        tags=tuple(dict.fromkeys(stored.tags + parse_tags(head.lines("cache-tag"), head.lines("surrogate-key")))),
    )


def without_lifetime(head: Head) -> Fields:
    """The fields without a lifetime that a cache has chosen: what is stated or found out now comes before it."""
    fields = tuple(field for field in head.fields if field[0].lower() not in ("cache-control", "expires"))
    left = CacheControl(directive for directive in head.cache_control.directives if directive[0] != "max-age")
    return (*fields, ("Cache-Control", dump_cache_control(left))) if left else fields


def _updated(stored: Fields, head: Head, policy: Policy, response_time: float) -> Fields:
    """The stored fields, with all lines of each replaced by those of the new head, except what has to stay."""
    kept: Set[str] = _OF_THE_BODY
    if any(name.lower() == "etag" for name, _ in stored):
        kept |= {"etag"}  # it matches; a weak spelling of it would lose the strong one
    new = tuple(field for field in storable_fields(head, policy) if field[0].lower() not in kept)
    names = {name.lower() for name, _ in new}
    if "date" not in names and any(name.lower() == "date" for name, _ in stored):
        new += (("Date", format_date(response_time)),)  # RFC 9110 §6.6.1: received without one, so the time of receipt
        names.add("date")
    return tuple(field for field in stored if field[0].lower() not in names) + new


def _with_expires(merged: Head, head: Head, expires: float) -> Fields:
    """The fields with our own Expires, if there is one, moved to the end of the new lifetime."""
    ours = not head.lines("expires")
    return tuple((n, format_date(expires)) if ours and n.lower() == "expires" else (n, v) for n, v in merged.fields)


def answer_conditions(request: Request, head: Head, now: float) -> Literal[0, 304, 412]:
    """What the client's own conditions make of a stored response (RFC 9110 §13.2.2): 0: send it; or 304, or 412."""
    if head.status != 200 or request.method not in ("GET", "HEAD"):
        return 0
    if request.lines("if-match"):
        if not _matches(request.lines("if-match"), head, strongly=True):
            return 412
    elif (until := _date_of(request, "if-unmodified-since", now)) is not None:
        modified = moment(head, "last-modified", now)
        if modified is not None and modified > until:
            return 412
    if request.lines("if-none-match"):
        return 304 if _matches(request.lines("if-none-match"), head, strongly=False) else 0
    since = _date_of(request, "if-modified-since", now)
    if since is None:
        return 0
    # RFC 9111 §4.3.2: without Last-Modified, "a cache SHOULD use the Date field value"
    modified = moment(head, "last-modified" if head.lines("last-modified") else "date", now)
    return 304 if modified is not None and modified <= since else 0


def _matches(lines: Sequence[str], head: Head, *, strongly: bool) -> bool:
    """Does If-Match (strongly) or If-None-Match (weakly) name the response? A malformed one asks for nothing."""
    own = entity_tag(head)
    if own is not None and not strongly and len(lines) == 1 and lines[0] == head.lines("etag")[0]:
        return True  # what nearly every browser sends: the ETag as it got it
    tags = parse_entity_tags(lines)
    if tags is None:
        return strongly
    if tags == "*":
        return True
    if own is None:
        return False
    return any(own.matches_strongly(tag) if strongly else own.matches_weakly(tag) for tag in tags)


def _date_of(request: Request, name: str, now: float) -> int | None:
    lines = request.lines(name)
    return parse_date(lines[0].strip(" \t"), now) if len(lines) == 1 else None


def not_modified_fields(fields: Fields) -> Fields:
    """The fields of a 200 that a 304 in its place has, too (RFC 9110 §15.4.5).

    What describes the content goes, and Last-Modified if there is an entity-tag; everything else stays.
    """
    names = {name.lower() for name, _ in fields}
    left_out = _NOT_IN_304 | {"last-modified"} if "etag" in names else _NOT_IN_304
    return tuple(field for field in fields if field[0].lower() not in left_out)


# -- ranges (RFC 9110 §14) ------------------------------------------------------------------------------------------


def select_range(
    request: Request, head: Head, length: int, received: float | None = None
) -> tuple[int, int] | Literal["unsatisfiable"] | None:
    """The part of a stored 200 of `length` octets that a request asks for: (first, last), both included.

    received: when it came, in seconds since the epoch; see `if_range_holds`.

    None: there is no range to obey, so send the whole (also for several ranges, which RFC 9110 §14.2 allows to ignore).
    Ask only if `answer_conditions` had nothing to say.
    """
    asked = single_range(request) if head.status == 200 else None
    if asked is None or not if_range_holds(request, head, received):
        return None
    first, last = asked
    if first is None:
        if not last:
            return "unsatisfiable"
        return (max(0, length - last), length - 1) if length else None  # all of nothing is not a part of it
    if first >= length:
        return "unsatisfiable"
    return first, length - 1 if last is None else min(last, length - 1)


def single_range(request: Request) -> ByteRange | None:
    """The one byte range of a GET request; None if it has none, several, or one that cannot be read."""
    lines = request.lines("range")
    if request.method != "GET" or len(lines) != 1:
        return None
    ranges = parse_range(lines[0])
    return ranges[0] if ranges is not None and len(ranges) == 1 else None


def if_range_holds(request: Request, head: Head, received: float | None = None) -> bool:
    """Is the client's part of this very representation (RFC 9110 §13.1.5)? Without If-Range it is.

    An entity-tag is compared strongly. A date has to be Last-Modified to the letter, and a strong validator (§8.8.2.2):
    the response says that it was made at least a second later. If it has no Date, which the server is supposed to add,
    the time of receipt counts (§6.6.1).
    """
    lines = request.lines("if-range")
    if not lines:
        return True
    if len(lines) != 1:
        return False
    if (tag := parse_etag(lines[0])) is not None:
        own = entity_tag(head)
        return own is not None and own.matches_strongly(tag)
    date, modified = head.lines("date"), head.lines("last-modified")
    if len(date) > 1 or len(modified) != 1 or modified[0].strip(" \t") != lines[0].strip(" \t"):
        return False
    made = parse_date(date[0], 0) if date else received
    changed = parse_date(modified[0], 0)
    return made is not None and changed is not None and made >= changed + 1


def content_range(first: int, last: int, length: int | None) -> str:
    """The value of Content-Range; `length` is that of the whole, None if unknown."""
    return f"bytes {first}-{last}/{'*' if length is None else length}"


def partial_fields(fields: Fields, first: int, last: int, length: int | None) -> Fields:
    """The fields of the 206 that is a part of a response with these fields (RFC 9110 §15.3.7)."""
    replaced = ("content-length", "content-range", "content-digest", "content-md5")
    return (
        *(field for field in fields if field[0].lower() not in replaced),
        ("Content-Range", content_range(first, last, length)),
        ("Content-Length", str(last - first + 1)),
    )


def unsatisfied_fields(length: int) -> Fields:
    """The fields of a 416 for a representation of `length` octets (RFC 9110 §15.5.17)."""
    return (("Content-Range", f"bytes */{length}"), ("Content-Length", "0"))
