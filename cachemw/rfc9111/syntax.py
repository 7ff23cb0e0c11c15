"""What all field values are made of: tokens, lists, delta-seconds, structured dictionaries (RFC 9110 §5.6, RFC 9651).

Every parser of this package is total (a bad field is "not there", nothing raises) and linear in its input.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Any, Final

__all__ = [
    "MAX_DELTA",
    "MAX_FIELD",
    "OWS",
    "QUOTED",
    "TCHAR",
    "has_bad_octets",
    "is_token",
    "parse_delta_seconds",
    "parse_dictionary",
    "parse_list",
    "without_bad_octets",
]

MAX_DELTA: Final = 2**31  # what too large a delta-seconds counts as, in seconds (RFC 9111 §1.2.2)
OWS: Final = " \t"  # optional white space; `str.strip()` alone would take \x85 and \xa0 with it (RFC 9110 §5.6.3)
TCHAR: Final = r"!#$%&'*+\-.^_`|~0-9A-Za-z"  # the inside of a character class (RFC 9110 §5.6.2)

#: A quoted string (RFC 9110 §5.6.4), under `re.DOTALL`. Groups are nowhere repeated possessively, single characters
#: alone: where a group's last repeat fails halfway, Python before 3.11.5 takes in what it began with (gh-106052).
QUOTED: Final = r'"[^"\\]*+(?:\\.[^"\\]*+)*"'

#: A longer value is not parsed any more; each parser says what it counts as. Servers take up to 64 KiB of fields, no
#: honest field has as much, and http-sf alone takes up to 0.4 µs for each character.
MAX_FIELD: Final = 8192  # characters (Apache's LimitRequestFieldSize: 8190)

_TOKEN: Final = re.compile(rf"[{TCHAR}]++")
_CLOSED: Final = re.compile(rf'(?:[^"]++|{QUOTED})*', re.DOTALL)
_PIECE: Final = re.compile(rf'(?:[^",]++|{QUOTED})+', re.DOTALL)
_BAD_OCTETS: Final = str.maketrans("\r\n\0", "   ")


def is_token(text: str) -> bool:
    """Whether `text` is a token (RFC 9110 §5.6.2)."""
    return _TOKEN.fullmatch(text) is not None


def has_bad_octets(value: str) -> bool:
    """Whether a field value has CR, LF or NUL in it, which no field may carry (RFC 9110 §5.5)."""
    return "\n" in value or "\r" in value or "\0" in value


def without_bad_octets(value: str) -> str:
    """The value with a space for each CR, LF and NUL, as RFC 9110 §5.5 wants them read."""
    return value.translate(_BAD_OCTETS) if has_bad_octets(value) else value


def parse_delta_seconds(text: str) -> int | None:
    """A non-negative number of seconds (RFC 9111 §1.2.2), at most `MAX_DELTA`; None if it is not ASCII digits only."""
    if not (text.isascii() and text.isdigit()):
        return None
    digits = text.lstrip("0")
    return min(int(digits or "0"), MAX_DELTA) if len(digits) <= 10 else MAX_DELTA


def parse_list(lines: Sequence[str]) -> list[str]:
    """The members of a comma-separated list over all lines of a field (RFC 9110 §5.6.1), as they are written.

    Commas inside quoted strings do not separate; optional white space is trimmed, and empty members are dropped. If a
    quote is not closed on its line, quotes mean nothing from there on, so it hides nothing.
    """
    pieces = [piece for line in lines for piece in (_split_quoted(line) if '"' in line else line.split(","))]
    return [member for piece in pieces if (member := piece.strip(OWS))]


def _split_quoted(line: str) -> list[str]:
    """The line cut at its commas outside quoted strings, some empty pieces left out."""
    unclosed = _CLOSED.sub("", line, count=1)  # what begins with a quote that is never closed
    closed = line.removesuffix(unclosed)
    pieces, rest = _PIECE.findall(closed), unclosed.split(",")
    if pieces and not closed.endswith(","):
        rest[0] = pieces.pop() + rest[0]
    return pieces + rest


def parse_dictionary(lines: Sequence[str]) -> dict[str, Any] | None:
    """The members of a structured dictionary over all lines, without their parameters (RFC 9651 §4.2.2).

    Values are as `http_sf` gives them, an inner list as a list of bare items. None if the field is absent, empty,
    longer than 8 KiB or not a structured dictionary: such a field must be ignored as a whole (RFC 9651 §4.2).
    """
    text = ", ".join(lines)
    if not text or len(text) > MAX_FIELD or not text.isascii():
        return None
    import http_sf  # here, because few responses carry such a field, and the package is pure Python

    try:
        members: Any = http_sf.parse(text.encode("ascii"), tltype="dictionary")
    except http_sf.StructuredFieldError:
        return None
    return {name: _bare(value) for name, (value, _) in members.items()} or None


def _bare(value: Any) -> Any:
    return [item for item, _ in value] if isinstance(value, list) else value
