"""Host, and the part of Forwarded that may stand in for it (RFC 3986 §3.2, RFC 7239)."""

from __future__ import annotations

import re
from functools import lru_cache
from ipaddress import AddressValueError, IPv6Address
from typing import Final

from cachemw.rfc9111.syntax import MAX_FIELD, OWS, TCHAR

__all__ = ["mark_forwarded", "valid_host"]

_MAX_HOST: Final = 255 + len(":65535")  # RFC 3986 §3.2.2: no name in the DNS has more than 255 characters

_HOST: Final = re.compile(
    r"(?:\[([0-9A-Fa-f:.]++)\]|(?:[A-Za-z0-9\-._~!$&'()*+;=]++|%[0-9A-Fa-f]{2})+)(?::([0-9]{0,5}))?", re.ASCII
)
# Stricter than RFC 7239 on purpose: no separator inside a quoted string, where a careless parser would see it.
_PAIR: Final = re.compile(rf'([{TCHAR}]++)=(?:([{TCHAR}]++)|"([^"\\;,=]*+)")')


def valid_host(text: str) -> bool:
    """Whether a Host field is a host with or without port, and nothing else (no user, list, path, empty name)."""
    return len(text) <= _MAX_HOST and _valid_host(text)


@lru_cache(maxsize=256)
def _valid_host(text: str) -> bool:
    match = _HOST.fullmatch(text)
    if not match or int(match[2] or "0") > 65535:
        return False
    return match[1] is None or _is_ipv6(match[1])


def _is_ipv6(text: str) -> bool:
    try:
        IPv6Address(text)
    except AddressValueError:
        return False
    return True


def mark_forwarded(value: str) -> str:
    """The part of a Forwarded field that names hosts and schemes, in one spelling, for keys.

    Two fields have the same mark only if each of their elements, counted from either end, has the same `host` and
    `proto` parameters. "" if there are none at all. A field that is not plainly well-formed, or is longer than 8 KiB,
    is its own mark.
    """
    if len(value) > MAX_FIELD:
        return value
    elements: list[str] = []
    for element in value.split(","):
        pairs: list[str] = []
        for text in element.split(";"):
            if not (text := text.strip(OWS)):
                continue
            match = _PAIR.fullmatch(text)
            if not match:
                return value
            name = match[1].lower()
            if name in ("host", "proto"):
                pairs.append(f'{name}="{match[2] or match[3] or ""}"')
        elements.append(";".join(sorted(pairs, key=lambda pair: pair.partition("=")[0])))
    return ",".join(elements) if any(elements) else ""
