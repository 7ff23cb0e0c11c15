"""Cautions: what is for one response or one moment by its looks, where nobody has said for how long it is good.

Rule: nothing here is a rule of HTTP. Who says how long a page is fresh knows better.
"""

from __future__ import annotations

from typing import Final

from cachemw.rfc9111.messages import Head
from cachemw.rfc9111.syntax import OWS

__all__ = ["has_measurements", "has_nonce"]

_POLICIES: Final = ("content-security-policy", "content-security-policy-report-only")


def has_nonce(head: Head) -> bool:
    """Does the page allow scripts by a number that is to be guessed by nobody (CSP 3 §7.1: one for each response)?"""
    where = head.layout.where
    return any("'nonce-" in value.lower() for name in _POLICIES if name in where for value in head.lines(name))


def has_measurements(head: Head) -> bool:
    """Is it what Prometheus asks for, in either of its formats: the state of a process now?"""
    kind, _, parameters = (head.value("content-type") or "").lower().partition(";")
    kind = kind.strip(OWS)
    return kind == "application/openmetrics-text" or (kind == "text/plain" and "version=" in parameters)
