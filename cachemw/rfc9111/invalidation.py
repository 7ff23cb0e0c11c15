"""Invalidation (RFC 9111 §4.4): which requests change resources, and which resources they change.

Rule 1: a method that is not known to be safe is unsafe (RFC 9110 §9.2.1 lets a cache know only what is registered).
Rule 2: only a success invalidates: a refused request must not work as a purge button.
Rule 3: only URIs of the same origin: an application does not speak for others.
"""

from __future__ import annotations

import re
from typing import Final
from urllib.parse import quote

from cachemw.rfc9111.messages import Head
from cachemw.rfc9111.requests import Request

__all__ = ["invalidates", "is_unsafe", "own_target", "same_origin_target", "target_uris"]

#: The methods that the IANA registry calls safe. Names are case-sensitive: "get" is an unknown method.
_SAFE: Final = frozenset({"GET", "HEAD", "OPTIONS", "TRACE", "PROPFIND", "REPORT", "SEARCH", "QUERY"})

_PORTS: Final = {"http": "80", "https": "443"}
_REFERENCE: Final = re.compile(r"(?:([A-Za-z][A-Za-z0-9+.\-]*+):)?(?://([^/?#]*+))?([^?#]*+)(?:\?([^#]*+))?", re.DOTALL)
_WRITTEN: Final = "%/:?@!$&'()*+,;=~[]"  # what a URI may contain as it is, besides letters, digits, "-", "." and "_"
_MAX_REFERENCE: Final = 8192  # characters; a longer one names nothing that a client could ask for


def is_unsafe(method: str) -> bool:
    """May a request with this method change something (RFC 9110 §9.2.1)? Unknown methods may."""
    return method not in _SAFE


def invalidates(method: str, status: int) -> bool:
    """Does this answer invalidate what is stored for its URI? RFC 9111 §4.4: 2xx or 3xx to an unsafe method."""
    return 200 <= status < 400 and is_unsafe(method)


def target_uris(request: Request, head: Head) -> tuple[str, ...]:
    """The raw targets, "/path?query", that Location and Content-Location name on the request's own origin.

    Each once, in order; mounts and queries are part of them, fragments are not.
    """
    references = (*head.lines("location"), *head.lines("content-location"))
    targets = (same_origin_target(request, reference) for reference in references)
    return tuple(dict.fromkeys(target for target in targets if target is not None))


def own_target(request: Request) -> str:
    """The request's own raw target, "/path?query"."""
    path = request.mount + request.path or "/"
    return f"{path}?{request.query}" if request.query else path


def same_origin_target(request: Request, reference: str) -> str | None:
    """The raw target that a URI reference means for this request (RFC 3986 §5.2); None if of another origin."""
    reference = reference.strip(" \t")
    match = _REFERENCE.match(reference)
    if match is None or len(reference) > _MAX_REFERENCE:
        return None
    scheme, authority, path, query = match.groups()
    if scheme is not None and (authority is None or scheme.lower() != request.scheme):
        return None  # mailto:…, https: on an http site, and "http:path", which RFC 3986 §5.2.2 takes as absolute
    if authority is not None and _origin(authority, request.scheme) != _origin(request.host, request.scheme):
        return None
    base = request.mount + request.path
    if authority is None and not path:
        path, query = base, request.query if query is None else query
    elif authority is None and not path.startswith("/"):
        path = base[: base.rfind("/") + 1] + path
    if not path.startswith("/"):
        path = "/" + path
    path = _without_dot_segments(_quoted(path))
    return f"{path}?{_quoted(query)}" if query else path


def _quoted(text: str) -> str:
    """The form in which the client will ask for it. What is not latin-1 cannot be sent at all, and so names nothing."""
    return quote(text, safe=_WRITTEN, encoding="latin-1", errors="xmlcharrefreplace")


def _origin(authority: str, scheme: str) -> str:
    """Host and port in one spelling; one with userinfo stays different from every Host."""
    authority = authority.lower()
    host, colon, port = authority.rpartition(":")
    return host if colon and port in ("", _PORTS.get(scheme)) else authority


def _without_dot_segments(path: str) -> str:
    """RFC 3986 §5.2.4, for an absolute path."""
    if "/." not in path:
        return path
    segments: list[str] = []
    *given, last = path.split("/")[1:]
    for segment in given:
        if segment == "..":
            del segments[-1:]
        elif segment != ".":
            segments.append(segment)
    if last == "..":
        del segments[-1:]
    segments.append("" if last in (".", "..") else last)
    return "/" + "/".join(segments)
