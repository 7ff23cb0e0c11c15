"""Cautions: what looks made for one response or one moment, if nobody has said how long it stays good.

Rule: nothing here is a rule of HTTP. Whoever says how long a page is fresh knows better.
"""

from __future__ import annotations

import re
from typing import Final

from cachemw.rfc9111.messages import Head
from cachemw.rfc9111.requests import Request
from cachemw.rfc9111.syntax import OWS

__all__ = ["has_measurements", "has_nonce", "is_polled"]

_POLICIES: Final = ("content-security-policy", "content-security-policy-report-only")
#: In the query of clients of Engine.IO, on which Socket.IO is built: the version of the protocol.
_ENGINE_IO: Final = re.compile(r"(?:^|&)EIO=[0-9]+(?:&|$)")


def has_nonce(head: Head) -> bool:
    """Does the page allow scripts by a number that nobody can guess (CSP 3 §7.1: a new one for each response)?"""
    where = head.layout.where
    return any("'nonce-" in value.lower() for name in _POLICIES if name in where for value in head.lines(name))


def has_measurements(head: Head) -> bool:
    """Is it what Prometheus asks for, in either of its formats: the state of a process at this moment?"""
    kind, _, parameters = (head.value("content-type") or "").lower().partition(";")
    kind = kind.strip(OWS)
    return kind == "application/openmetrics-text" or (kind == "text/plain" and "version=" in parameters)


def is_polled(request: Request) -> bool:
    """Does Socket.IO ask for new messages, or for a connection of its own?

    Most clients make each such URL a new one, which nobody asks for again; some do not.
    """
    return "EIO=" in request.query and _ENGINE_IO.search(request.query) is not None
