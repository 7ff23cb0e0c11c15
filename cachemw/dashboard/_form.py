"""The form that purges: what was sent, and whether it was sent by the page itself.

Rule 1: a form counts only with the token that the page has put into it and into a cookie (a "double submit": another
        site can make a browser send a form and the cookies, but cannot read or set the cookie).
Rule 2: what the browser says of the sender comes first: Sec-Fetch-Site, else Origin, has to be of this very host.
"""

from __future__ import annotations

import re
import secrets
from dataclasses import dataclass
from typing import Final, NamedTuple
from urllib.parse import parse_qsl

__all__ = ["COOKIE", "LONGEST", "Asked", "Form", "Told", "made_token", "read_form"]

COOKIE: Final = "cachemw_dashboard"
LONGEST: Final = 16 * 1024  # octets of a form; a URL and a tag have far fewer
_FIELDS: Final = 16
_TYPE: Final = "application/x-www-form-urlencoded"
_TOKEN: Final = re.compile(r"[\w-]{43}", re.ASCII)


class Asked(NamedTuple):
    """A request for the page."""

    method: str
    scheme: str
    host: str
    cookie: str
    content_type: str
    origin: str
    fetch_site: str

    @property
    def token(self) -> str:
        """The token in the cookie; empty if there is none that we could have made."""
        pairs = (part.strip().partition("=") for part in self.cookie.split(";"))
        return next((value for name, _, value in pairs if name == COOKIE and _TOKEN.fullmatch(value)), "")

    @property
    def is_from_elsewhere(self) -> bool:
        """Does the browser say that another site's page has sent this?"""
        if self.fetch_site:
            return self.fetch_site != "same-origin"
        return bool(self.origin) and self.origin.partition("://")[2].lower() != self.host.lower()


class Told(NamedTuple):
    """What the page says of a form."""

    text: str
    status: int = 200  # of the answer that says so


@dataclass(frozen=True)
class Form:
    """What is to be purged."""

    url: str = ""
    tag: str = ""
    soft: bool = False


def made_token() -> str:
    """A new token."""
    return secrets.token_urlsafe(32)


def read_form(asked: Asked, body: bytes | None) -> Form | Told:
    """The form, or what is wrong with it. body: None if it is longer than `LONGEST`."""
    if asked.is_from_elsewhere:
        return Told("Refused: the form was sent by another site.", 403)
    if body is None or asked.content_type.partition(";")[0].strip().lower() != _TYPE:
        return Told("Refused: this is not the form of this page.", 400)
    try:
        fields = dict(parse_qsl(body.decode("ascii"), keep_blank_values=True, errors="strict", max_num_fields=_FIELDS))
    except ValueError:  # UnicodeDecodeError is one
        return Told("Refused: the form cannot be read.", 400)
    token = asked.token
    if not token or not secrets.compare_digest(token.encode(), fields.get("token", "").encode()):
        return Told("The form was out of date. Nothing was purged: please send it again.", 400)
    form = Form(fields.get("url", "").strip(), fields.get("tag", "").strip(), fields.get("how") == "soft")
    if not form.url and not form.tag:
        return Told("Say which URL to purge, or which tag.", 400)
    return form
