"""Byte ranges: Range and Content-Range (RFC 9110 §14)."""

from __future__ import annotations

import re
from typing import Final

from cachemw.rfc9111.syntax import OWS

__all__ = ["ByteRange", "parse_content_range", "parse_range"]

#: (first, last) counted from 0, both included; (first, None): to the end; (None, n): the last n octets.
ByteRange = tuple[int | None, int | None]

_MAX_RANGES: Final = 200  # more are an attack, which RFC 9110 §14.2 allows to ignore (Apache's MaxRanges: 200)
_MAX_DIGITS: Final = 18  # no body has 10**18 octets; `int()` must not get numbers of any length

_RANGE: Final = re.compile(r"([0-9]*+)-([0-9]*+)")
_CONTENT_RANGE: Final = re.compile(r"bytes ([0-9]{1,18})-([0-9]{1,18})/(?:([0-9]{1,18})|\*)", re.IGNORECASE | re.ASCII)


def parse_range(text: str) -> tuple[ByteRange, ...] | None:
    """The ranges of a Range field in bytes, not yet compared with a length (RFC 9110 §14.1.2).

    None if the field is malformed, has another unit, or asks for more than 200 ranges: such a field is ignored.
    """
    unit, _, specs = text.strip(OWS).partition("=")
    if unit.lower() != "bytes":
        return None
    ranges: list[ByteRange] = []
    for spec in specs.split(",", _MAX_RANGES - 1):
        if not (spec := spec.strip(OWS)):
            continue
        match = _RANGE.fullmatch(spec)
        if not match:
            return None
        first, last = _position(match[1]), _position(match[2])
        if last is None if first is None else last is not None and last < first:
            return None
        ranges.append((first, last))
    return tuple(ranges) or None


def _position(digits: str) -> int | None:
    if not digits:
        return None
    digits = digits.lstrip("0") or "0"
    return int(digits) if len(digits) <= _MAX_DIGITS else 10**_MAX_DIGITS


def parse_content_range(text: str) -> tuple[int, int, int | None] | None:
    """(first, last, complete length or None if unknown) of a Content-Range in bytes (RFC 9110 §14.4).

    None if it is malformed, inconsistent, of another unit, or that of a 416 (`bytes */1234`).
    """
    match = _CONTENT_RANGE.fullmatch(text.strip(OWS))
    if not match:
        return None
    first, last = int(match[1]), int(match[2])
    complete = int(match[3]) if match[3] else None
    if last < first or (complete is not None and complete <= last):
        return None
    return first, last, complete
