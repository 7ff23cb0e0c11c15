"""What field values say, read slowly and plainly: the oracle's own reading, which shares no code with the cache.

Where HTTP lets a recipient choose, the reading is the most permissive one that it allows: the oracle asks whether a
response was permitted, not whether another cache would have sent it.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from datetime import UTC, datetime

__all__ = [
    "Pairs",
    "combined",
    "content_range",
    "delta",
    "directives",
    "entity_tag",
    "entity_tags",
    "equivalent",
    "http_date",
    "lines",
    "members",
    "targeted",
]

Pairs = Sequence[tuple[str, str]]

_TOKEN = r"[!#$%&'*+\-.^_`|~0-9A-Za-z]+"
_QUOTED = r'"(?:[^"\\]|\\.)*"'


def lines(fields: Pairs, name: str) -> list[str]:
    """The lines of a field, in order."""
    return [value.strip(" \t") for key, value in fields if key.lower() == name]


def combined(fields: Pairs, name: str) -> str | None:
    """RFC 9110 §5.3: the lines of a field as one."""
    found = lines(fields, name)
    return ", ".join(found) if found else None


def members(found: Iterable[str]) -> list[str]:
    """RFC 9110 §5.6.1: the members of a list, quoted strings being whole; a quote that never ends ends the list."""
    pieces = (re.findall(rf'(?:[^",]|{_QUOTED})+|"[^"]*\Z', line) for line in found)
    return [piece.strip(" \t") for one in pieces for piece in one if piece.strip(" \t")]


def directives(found: Iterable[str]) -> list[tuple[str, str | None]]:
    """RFC 9111 §5.2: names in lower case and arguments; what is malformed keeps its name and has a useless argument."""
    told: list[tuple[str, str | None]] = []
    for member in members(found):
        match = re.fullmatch(rf"({_TOKEN})(?:=({_TOKEN}|{_QUOTED})?)?", member, re.DOTALL)
        if match is None:
            if name := re.match(rf"(max-age|s-maxage)(?!{_TOKEN})", member, re.IGNORECASE):
                told.append((name[1].lower(), "malformed"))
            continue
        argument = match[2]
        if argument and argument.startswith('"'):
            argument = re.sub(r"\\(.)", r"\1", argument[1:-1])
        told.append((match[1].lower(), argument))
    return told


def delta(text: str | None) -> int | None:
    """RFC 9111 §1.2.2: a number of seconds; one too large is 2^31."""
    return min(int(text), 2**31) if text and len(text) < 4000 and re.fullmatch("[0-9]+", text) else None


def http_date(text: str, now: float) -> float | None:
    """RFC 9110 §5.6.7: one of three forms."""
    imf = r"[A-Z][a-z]{2}, \d\d [A-Z][a-z]{2} \d{4} \d\d:\d\d:\d\d GMT"
    asctime = r"[A-Z][a-z]{2} [A-Z][a-z]{2} [ \d]\d \d\d:\d\d:\d\d \d{4}"
    rfc850 = r"[A-Z][a-z]+day, \d\d-[A-Z][a-z]{2}-\d\d \d\d:\d\d:\d\d GMT"
    for form, spelling in ((imf, "%a, %d %b %Y %H:%M:%S GMT"), (asctime, "%a %b %d %H:%M:%S %Y")):
        if re.fullmatch(form, text):
            return _timestamp(text, spelling)
    if not re.fullmatch(rfc850, text):
        return None
    moment = _timestamp(text.split(", ")[1], "%d-%b-%y %H:%M:%S GMT")
    if moment is None:
        return None
    while moment > now + 50 * 365.25 * 86400:  # "more than 50 years in the future"
        moment -= 100 * 365.25 * 86400
    return moment


def _timestamp(text: str, spelling: str) -> float | None:
    try:
        return datetime.strptime(text, spelling).replace(tzinfo=UTC).timestamp()
    except ValueError:
        return None


def entity_tag(text: str | None) -> tuple[bool, str] | None:
    """RFC 9110 §8.8.3: (weak, opaque text)."""
    match = re.fullmatch(r'(W/)?"([^"\x00-\x20\x7f]*)"', text or "")
    return (match[1] is not None, match[2]) if match else None


def entity_tags(text: str) -> list[tuple[bool, str]] | str | None:
    """Those of If-Match or If-None-Match, "*", or None for a malformed list."""
    if text == "*":
        return "*"
    found = [entity_tag(one.strip()) for one in re.findall(r'(?:[^",]|"[^"]*")+|"', text) if one.strip()]
    return [tag for tag in found if tag is not None] if found and None not in found else None


def content_range(text: str | None) -> tuple[int, int, int | None] | None:
    """RFC 9110 §14.4: (first, last, length of the whole)."""
    match = re.fullmatch(r"bytes (\d+)-(\d+)/(\d+|\*)", text or "")
    return (int(match[1]), int(match[2]), None if match[3] == "*" else int(match[3])) if match else None


def targeted(found: Sequence[str]) -> list[tuple[str, str | None]] | None:
    """RFC 9213 §2.1: the directives of a structured dictionary; None if it is none, or is empty."""
    key, number, text = r"[a-z*][a-z0-9_\-.*]*", r"-?\d{1,15}(?:\.\d{1,3})?", r'"(?:[ !#-\[\]-~]|\\["\\])*"'
    value = rf"(?:{number}|{text}|[A-Za-z*]{_TOKEN[:-1]}*|\?[01])"
    told: dict[str, str | None] = {}
    rest = ", ".join(found).strip(" ")
    while rest:
        match = re.match(rf"({key})(?:=({value}))?(?:;\s*{key}(?:={value})?)*[ \t]*(?:,[ \t]*(?=.)|\Z)", rest)
        if match is None:
            return None
        told.pop(match[1], None)  # the last one of a name counts
        told[match[1]] = match[2]
        rest = rest[match.end() :]
    return list(told.items()) or None


def equivalent(one: str, other: str, said: str | None) -> bool:
    """Are two queries one under this No-Vary-Search? Of the values that the stories use."""
    if one == other:
        return True
    both = [[(pair.split("=")[0], pair) for pair in query.split("&") if pair] for query in (one, other)]
    match said:
        case "params":
            return True
        case 'params=("a")':
            both = [[pair for pair in pairs if pair[0] != "a"] for pairs in both]
        case 'params, except=("a")':
            both = [[pair for pair in pairs if pair[0] == "a"] for pairs in both]
        case "key-order":
            both = [sorted(pairs) for pairs in both]
    return both[0] == both[1]
