"""Partial responses (RFC 9111 §3.3, §3.4): 206 as a stored response, ranges out of it, and parts made one.

A part is a `StoredResponse` of status 206 with its Content-Range, at the key where the whole would stand. It is
judged by `may_store`, `may_reuse`, `conditions` and `freshen` like any other. The order of the calls:

    may_store(request, head, …)                a 206 is stored as `whole(StoredResponse(…))`: a 200 if it is all
    span = serves(stored, request)             a part was found: the octets of it that answer the request,
        slice_of(stored, span)                 sent as a 206 if `may_reuse` agrees; None: it does not hold them
    missing(stored, request)                   then: fields that take the place of the request's Range and If-Range,
                                               so that the application sends only what is not there; () if it cannot
    combine(stored, head, body, …)             its 206 to those: the longer part, or the whole, to store and to serve
                                               from. None: the two do not belong together; the client did not ask for
                                               that part, so ask the application again with the request's own fields
    an answer that is no 206                   stands for itself (200: the whole, stored in place of the part)

Rule 1: parts are joined only under one strong entity-tag; a date cannot tell two representations of one second apart.
Rule 2: a part whose body is not as long as its Content-Range says holds nothing.
"""

from __future__ import annotations

from http import HTTPStatus

from cachemw.rfc9111.fields import ByteRange, parse_content_range
from cachemw.rfc9111.messages import Fields, Head, StoredResponse
from cachemw.rfc9111.policy import Policy
from cachemw.rfc9111.requests import Request
from cachemw.rfc9111.validation import (
    Answered,
    entity_tag,
    if_range_holds,
    partial_fields,
    renewed,
    single_range,
)

__all__ = ["combine", "missing", "part_of", "serves", "slice_of", "whole"]

Part = tuple[int, int, int | None]


def part_of(stored: StoredResponse) -> Part | None:
    """Which octets a stored 206 holds: (first, last, length of the whole or None); None if it is not a sound part."""
    return _part(stored.head, bytes(stored.body)) if stored.status == 206 else None


def _part(head: Head, body: bytes) -> Part | None:
    lines = head.lines("content-range")
    part = parse_content_range(lines[0]) if len(lines) == 1 else None
    return part if part is not None and part[1] - part[0] + 1 == len(body) else None


def serves(stored: StoredResponse, request: Request) -> tuple[int, int] | None:
    """The octets, (first, last) of the whole, that answer this request's range and are all in the stored part."""
    part = part_of(stored)
    asked = single_range(request)
    if part is None or asked is None or not if_range_holds(request, stored.head, stored.born):
        return None
    first, last = _resolved(asked, part[2]) or (0, None)
    return (first, last) if last is not None and part[0] <= first and last <= part[1] else None


def _resolved(asked: ByteRange, length: int | None) -> tuple[int, int | None] | None:
    """The range as positions, as far as the length of the whole is known; None if it cannot be satisfied or located."""
    first, last = asked
    if length is None:
        return None if first is None else (first, last)
    if first is None:
        return (max(0, length - last), length - 1) if last else None
    return (first, length - 1 if last is None else min(last, length - 1)) if first < length else None


def slice_of(stored: StoredResponse, span: tuple[int, int]) -> tuple[Fields, bytes]:
    """Fields and body of the 206 that sends what `serves` found in a stored part."""
    part = part_of(stored)
    start, length = (part[0], part[2]) if part is not None else (0, len(stored.body))
    first, last = span
    return partial_fields(stored.fields, first, last, length), stored.body[first - start : last - start + 1]


def missing(stored: StoredResponse, request: Request) -> Fields:
    """The Range, and If-Range, that ask the application for what the stored part lacks of this request's answer.

    () if nothing is saved: there is no part, nothing is lacking, there is a hole between the two, or the request's own
    conditions have to reach the application. A part without a strong entity-tag only helps a request for the whole, and
    only with an application that answers with the whole or now gives the tag; otherwise `combine` does not join it.
    """
    part = part_of(stored)
    wanted = _wanted(request, stored, part[2]) if part is not None else None
    if part is None or wanted is None:
        return ()
    first, last = wanted
    if part[0] <= first <= part[1] + 1 and (last is None or last > part[1]):
        open_end = last is None or last + 1 == part[2]
        lacking = f"bytes={part[1] + 1}-" if open_end else f"bytes={part[1] + 1}-{last}"
    elif last is not None and first < part[0] <= last + 1 and last <= part[1]:
        lacking = f"bytes={first}-{part[0] - 1}"
    else:
        return ()
    tag = entity_tag(stored.head)
    if tag is not None and not tag.weak:
        return (("Range", lacking), ("If-Range", str(tag)))
    return () if request.lines("range") else (("Range", lacking),)


def _wanted(request: Request, stored: StoredResponse, length: int | None) -> tuple[int, int | None] | None:
    """The positions that a GET asks for, the whole without Range; None if that cannot be told."""
    if request.method != "GET" or not if_range_holds(request, stored.head, stored.born):
        return None
    if not request.lines("range"):
        return 0, None if length is None else length - 1
    asked = single_range(request)
    return None if asked is None else _resolved(asked, length)


def combine(
    stored: StoredResponse, head: Head, body: bytes, policy: Policy, answered: Answered
) -> StoredResponse | None:
    """One response made of a stored part and a new 206 (RFC 9111 §3.4): a longer part, or the whole as a 200.

    None if they do not belong together: different entity-tags or none that is strong, different lengths, another
    coding, a hole between them, or octets that differ where they overlap. Its fields are the stored ones, updated by
    the new ones.
    """
    old, new = part_of(stored), _part(head, body) if head.status == 206 else None
    if old is None or new is None or not _are_of_one(stored.head, head):
        return None
    if old[2] is not None and new[2] is not None and old[2] != new[2]:
        return None
    if new[0] > old[1] + 1 or old[0] > new[1] + 1:
        return None
    joined = _joined(bytes(stored.body), old[0], body, new[0])
    length = old[2] if new[2] is None else new[2]
    first = min(old[0], new[0])
    last = first + len(joined or b"") - 1
    if joined is None or (length is not None and last >= length):
        return None
    updated = renewed(stored, head, policy, answered)
    return whole(_with_body(updated, 206, joined, partial_fields(updated.fields, first, last, length)))


def _are_of_one(stored: Head, head: Head) -> bool:
    own, tag = entity_tag(stored), entity_tag(head)
    if own is None or tag is None or not own.matches_strongly(tag):
        return False
    return stored.lines("content-encoding") == head.lines("content-encoding")


def _joined(old: bytes, old_first: int, new: bytes, new_first: int) -> bytes | None:
    """Two overlapping or adjacent pieces as one; None if they contradict each other."""
    if new_first < old_first:
        old, old_first, new, new_first = new, new_first, old, old_first
    start = new_first - old_first
    if old[start : start + len(new)] != new[: len(old) - start]:
        return None
    return old + new[len(old) - start :]


def whole(stored: StoredResponse) -> StoredResponse:
    """The response itself; or, if it is a 206 with all octets of the whole, the 200 that it amounts to."""
    part = part_of(stored)
    if part is None or part[0] != 0 or part[1] + 1 != part[2]:
        return stored
    fields = tuple(f for f in stored.fields if f[0].lower() not in ("content-length", "content-range"))
    return _with_body(stored, 200, bytes(stored.body), (*fields, ("Content-Length", str(len(stored.body)))))


def _with_body(stored: StoredResponse, status: int, body: bytes, fields: Fields) -> StoredResponse:
    return stored.replace(status=status, reason=HTTPStatus(status).phrase, body=body, fields=fields)
