"""What a response with a static file tells caches. Pure, except that it looks at files; `_busting.shells` has the I/O.

Rule 1: a response is immutable only if its URL names the version that the file had before and after the application
        opened it. Other responses are stored for a minute, or validated.
Rule 2: on such a URL the version is the validator. Frameworks make validators of a file's time and size. Some builds
        give all files one time; two contents of one size then have one validator, and a 304 would keep the wrong one.
Rule 3: a compressed twin is sent in place of the whole file only, with a weak entity-tag: its parts are other octets
        than those of the file, so Range and If-Range do not apply to it.
Rule 4: a response for one visitor is `private`, not `public`: with Set-Cookie, to a request with Authorization, and if
        it varies on Authorization or Cookie. Responses with `no-store`, or out of a cache (Age), are not changed.
"""

from __future__ import annotations

import os
import time
from collections.abc import Sequence
from mimetypes import guess_type
from typing import BinaryIO, Final

from cachemw._busting.folder import Asked, StaticFolder
from cachemw._busting.twins import chosen_twin
from cachemw.headers import patch_vary_headers
from cachemw.rfc9111.dates import parse_date
from cachemw.rfc9111.entity_tags import parse_etag
from cachemw.rfc9111.fields import parse_cache_control, parse_vary
from cachemw.rfc9111.messages import Field, Head
from cachemw.rfc9111.requests import Request
from cachemw.rfc9111.validation import answer_conditions, not_modified_fields

__all__ = ["SHORT", "YEAR", "Serving"]

YEAR: Final = 31_536_000  # seconds; "for ever" in RFC 8246 and for CDNs
SHORT: Final = 60  # seconds, for a file under the URL of another version: about as long as a rolling deploy

_FAILED: Final = [("Content-Type", "text/plain"), ("Content-Length", "0")]
_PARTIAL: Final = ("if-range", "range")
_VALIDATED: Final = ("if-none-match", "if-modified-since", "if-match", "if-unmodified-since")


class Serving:
    """One request for a static file, and what its response is to say."""

    def __init__(self, folder: StaticFolder, asked: Asked, request: Request) -> None:
        self._folder = folder
        self._asked = asked
        self._personal = bool(request.lines("authorization"))
        self._conditions = Request(
            request.method,
            fields=[(name, line) for name in ("if-match", "if-none-match") for line in request.lines(name)],
        )
        self._twin = chosen_twin(asked.twins, request.lines("accept-encoding"))
        self._is_head = request.method == "HEAD"
        #: The body to send in place of the application's; `close` closes it.
        self.body: BinaryIO | None = None
        #: Names of request fields that are hidden from the framework: it does not know the version, our validator.
        self.hidden: tuple[str, ...] = ()
        if asked.current:
            ranges = request.lines("if-range")
            same = len(ranges) == 1 and parse_etag(ranges[0]) == parse_etag(self._etag)
            self.hidden = (*_VALIDATED, *(("if-range",) if same or not ranges else _PARTIAL))
        if self._twin is not None:
            self.hidden += _PARTIAL

    @property
    def _etag(self) -> str:
        return f'"{self._asked.version}"'

    def leaving(self, status: int, fields: Sequence[Field]) -> tuple[int, Sequence[Field]]:
        """Status and fields for the client. Send no body with 304 and 412, else `body` if it is set."""
        self.close()
        asked, head = self._asked, Head(status, tuple(fields))
        says = parse_cache_control(head.lines("cache-control"))
        if asked.version is None or status not in (200, 206, 304) or head.lines("age") or "no-store" in says:
            return status, fields
        if self._is_another(head):
            return status, fields
        if asked.twins:
            fields = self._coded(head)
            head = Head(status, tuple(fields))
        scope = "private" if self._is_private(head) else "public"
        if not asked.named:
            says_nothing = not (head.lines("cache-control") or head.lines("expires"))
            return status, [*fields, ("Cache-Control", "no-cache")] if says_nothing else fields
        if status == 304 or not asked.current or self._folder.version(asked.name) != asked.version:
            return status, _lasting(fields, f"{scope}, max-age={SHORT}")
        lasting = _lasting(fields, f"{scope}, max-age={YEAR}, immutable", "etag")
        lasting.append(("ETag", f"W/{self._etag}" if head.lines("content-encoding") else self._etag))
        outcome = answer_conditions(self._conditions, Head(status, tuple(lasting)), time.time())
        if outcome:
            self.close()
        if outcome == 304:
            return 304, not_modified_fields(tuple(lasting))
        return (412, _FAILED) if outcome == 412 else (status, lasting)

    def _is_another(self, head: Head) -> bool:
        """Is this another response than the file, such as a login page?"""
        if head.status != 200 or head.lines("last-modified") or head.lines("content-encoding"):
            return False
        if says := head.lines("content-length"):
            return tuple(says) != (str(self._asked.size),)
        media_type = (head.value("content-type") or "").partition(";")[0].strip(" \t").lower()
        return media_type == "text/html" and guess_type(self._asked.name)[0] != media_type  # no length is stated

    def _is_the_file(self, head: Head) -> bool:
        """Does the application send the file that has the twins, by its length and its Last-Modified?"""
        is_of_size = tuple(head.lines("content-length")) == (str(self._asked.size),)
        dates = [parse_date(line, time.time()) for line in head.lines("last-modified")]
        return is_of_size and any(date is not None and abs(date - self._asked.modified) <= 1 for date in dates)

    def _coded(self, head: Head) -> list[Field]:
        """The fields of a response that exists in several codings; opens the twin for this client as `body`."""
        fields = list(head.fields)
        patch_vary_headers(fields, ["Accept-Encoding"])
        twin = self._twin
        if twin is None or head.status == 206 or head.lines("content-encoding"):
            return fields
        if head.status == 200:
            if not self._is_the_file(head):
                return fields
            try:
                self.body = open(twin.path, "rb")  # noqa: SIM115  until the body is sent
            except OSError:  # it was there a moment ago
                return fields
            size = os.fstat(self.body.fileno()).st_size
            fields = [field for field in fields if field[0].lower() not in ("content-length", "accept-ranges")]
            fields += [("Content-Encoding", twin.coding), ("Content-Length", str(size))]
            if self._is_head:
                self.close()
        return [(name, _weak(value) if name.lower() == "etag" else value) for name, value in fields]

    def close(self) -> None:
        """Close the body, sent or not."""
        if self.body is not None:
            self.body.close()
            self.body = None

    def _is_private(self, head: Head) -> bool:
        return (
            self._personal
            or bool(head.lines("set-cookie"))
            or "private" in parse_cache_control(head.lines("cache-control"))
            or not {"*", "authorization", "cookie"}.isdisjoint(parse_vary(head.lines("vary")))
        )


def _weak(etag: str) -> str:
    return etag if etag.startswith("W/") else f"W/{etag}"


def _lasting(fields: Sequence[Field], cache_control: str, *without: str) -> list[Field]:
    left_out = {"cache-control", "expires", "pragma", *without}
    return [*(field for field in fields if field[0].lower() not in left_out), ("Cache-Control", cache_control)]
