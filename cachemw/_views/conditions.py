"""A client's conditions on a view whose validators are known before it is called (RFC 9110 §13)."""

from __future__ import annotations

import time
from datetime import UTC, datetime
from typing import Any, Final

from cachemw.rfc9111.fields import format_date, parse_entity_tags, parse_etag
from cachemw.rfc9111.messages import Fields, Head
from cachemw.rfc9111.requests import Request
from cachemw.rfc9111.validation import answer_conditions

__all__ = ["short_answer", "validated", "validators_of"]

_UNSAFE_CONDITIONS: Final = ("if-match", "if-none-match", "if-unmodified-since")


def validators_of(etag: Any, last_modified: Any) -> Fields:
    """ETag and Last-Modified as fields. Raises: ValueError for a text that cannot be an entity-tag."""
    fields: list[tuple[str, str]] = []
    if etag is not None:
        text = etag if parse_etag(etag) is not None else f'"{etag}"'
        if parse_etag(text) is None:
            raise ValueError(f"conditional: {etag!r} cannot be an entity-tag: visible ASCII without quotes can.")
        fields.append(("ETag", text))
    if last_modified is not None:
        if isinstance(last_modified, datetime):
            last_modified = last_modified.replace(tzinfo=last_modified.tzinfo or UTC).timestamp()
        fields.append(("Last-Modified", format_date(last_modified)))
    return tuple(fields)


def short_answer(request: Request, fields: Fields, make: Any) -> Any | None:
    """The 304 or 412 response to a request for a resource with these validators; None: call the view."""
    status = _status(request, Head(200, fields), time.time())
    if not status:
        return None
    response = make(None, status)
    if status == 304:
        del response.headers["Content-Type"]
        validated(request, response, fields)
    return response


def _status(request: Request, head: Head, now: float) -> int:
    """304, 412 or 0. GET and HEAD have the rules of the cache; for other methods a condition that fails is a 412."""
    if not head.fields:  # nothing exists, and "*" matches what exists (RFC 9110 §13.1.1, §13.1.2)
        return 412 if parse_entity_tags(request.lines("if-match")) else 0
    if request.method in ("GET", "HEAD"):
        return answer_conditions(request, head, now)
    as_get = Request("GET", fields=[(n, v) for n in _UNSAFE_CONDITIONS for v in request.lines(n)])
    return 412 if answer_conditions(as_get, head, now) else 0


def validated(request: Request, response: Any, fields: Fields) -> Any:
    """The response, with the validators that it does not have yet.

    A response to PUT and the like gets none: they belong to the former state of the resource (RFC 9110 §9.3.4).
    """
    if request.method in ("GET", "HEAD"):
        for name, value in fields:
            if name not in response.headers:
                response.headers[name] = value
    return response
