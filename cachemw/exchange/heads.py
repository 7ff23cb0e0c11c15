"""Heads of responses as they leave and as they are stored: pure functions that return a new `Head`, or read one."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

from cachemw.rfc9111.fields import CacheControl, dump_cache_control, format_date, merge_vary, parse_list
from cachemw.rfc9111.messages import Fields, Head
from cachemw.rfc9111.storing import nominated

__all__ = ["is_complete", "patched", "stated_length", "varying_on", "varying_once", "without_cookies"]

_COOKIES: Final = ("set-cookie", "set-cookie2")


def without_cookies(head: Head) -> tuple[Head, Fields]:
    """The head without its cookies, and the cookies."""
    cookies = tuple(field for field in head.fields if field[0].lower() in _COOKIES)
    return Head(head.status, tuple(field for field in head.fields if field not in cookies), head.reason), cookies


def patched(head: Head, lifetime: float, now: float) -> Head:
    """The head with Expires and `max-age` for a lifetime, in seconds, that this cache chose (as Django does).

    A smaller `max-age` stays, and so does an Expires. A new Expires states the whole lifetime, even beside a smaller
    `max-age`: nginx stores no response whose Expires has passed.
    """
    seconds = int(lifetime)
    fields, where = head.fields, head.layout.where
    value = f"max-age={seconds}"
    if "cache-control" in where:
        control = head.cache_control
        stated = control.seconds("max-age")
        age = seconds if stated is None else min(seconds, stated)
        kept = (directive for directive in control.directives if directive[0] != "max-age")
        value = dump_cache_control(CacheControl((*kept, ("max-age", str(age)))))
        fields = tuple(field for field in fields if field[0].lower() != "cache-control")
    if "expires" not in where:
        fields += (("Expires", format_date(now + seconds)),)
    return Head(head.status, (*fields, ("Cache-Control", value)), head.reason)


def varying_on(names: Sequence[str], head: Head) -> Head:
    """The head, with these names of request fields in Vary."""
    nominates = nominated(head)
    more = [name.title() for name in names if name not in nominates]
    if not more or "*" in nominates:
        return head
    return Head(head.status, _with_vary(head.fields, merge_vary(head.lines("vary"), more)), head.reason)


def varying_once(fields: Fields) -> Fields:
    """The fields, with no name twice in Vary."""
    lines = [value for name, value in fields if name.lower() == "vary"]
    once = merge_vary(lines)
    return fields if len(parse_list([once])) == len(parse_list(lines)) else _with_vary(fields, once)


def _with_vary(fields: Fields, value: str) -> Fields:
    return (*[field for field in fields if field[0].lower() != "vary"], ("Vary", value))


def stated_length(head: Head) -> int | None:
    """The length that the response states for its body, in octets; None if it states none, or not clearly."""
    places = head.layout.where.get("content-length", ())
    if len(places) != 1:
        return None
    length = head.fields[places[0]][1]
    return int(length) if length.isascii() and length.isdecimal() and len(length) < 20 else None


def is_complete(head: Head, body: bytes, method: str) -> bool:
    """Is the body as long as the response says (RFC 9112 §8)?"""
    if head.status in (204, 205) and body:
        return False  # a client would take it for the beginning of the next response
    lines = head.lines("content-length")
    length = str(len(body))
    if not lines or method == "HEAD" or lines == (length,):
        return True
    return all(line.strip(" \t") == length for line in lines)
