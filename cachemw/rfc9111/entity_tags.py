"""Entity-tags: ETag, If-Match, If-None-Match, If-Range (RFC 9110 §8.8.3, §13.1)."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Final, Literal, NamedTuple

from cachemw.rfc9111.syntax import OWS

__all__ = ["ETag", "parse_entity_tags", "parse_etag"]

_MAX_TAGS: Final = 1024  # nobody keeps a longer list of tags; the condition is then ignored

_ETAG: Final = r'(W/)?"([\x21\x23-\x7e\x80-\xff]*+)"'  # no escapes: a backslash is a character like any other
_ONE: Final = re.compile(_ETAG)
_LIST: Final = re.compile(rf"[ \t,]*+(?:{_ETAG}[ \t]*+(?:,[ \t,]*+|\Z))+")


class ETag(NamedTuple):
    """An entity-tag: `tag` is the opaque text without its quotes."""

    weak: bool
    tag: str

    def __str__(self) -> str:
        return f'W/"{self.tag}"' if self.weak else f'"{self.tag}"'

    def matches_strongly(self, other: ETag) -> bool:
        """RFC 9110 §8.8.3.2: "both are not weak and their opaque-tags match character-by-character"."""
        return not self.weak and not other.weak and self.tag == other.tag

    def matches_weakly(self, other: ETag) -> bool:
        """RFC 9110 §8.8.3.2: "their opaque-tags match character-by-character", weak or not."""
        return self.tag == other.tag


def parse_etag(text: str) -> ETag | None:
    """One entity-tag, or None if it is not one (unquoted, `w/` in lower case, …)."""
    match = _ONE.fullmatch(text.strip(OWS))
    return ETag(match[1] is not None, match[2]) if match else None


def parse_entity_tags(lines: Sequence[str]) -> tuple[ETag, ...] | Literal["*"] | None:
    """The entity-tags of If-Match or If-None-Match, "*" for any; None if the field is absent or malformed anywhere."""
    text = ", ".join(lines)
    if text.strip(OWS) == "*":
        return "*"
    if text.count('"') > 2 * _MAX_TAGS or not _LIST.fullmatch(text):
        return None
    return tuple(ETag(bool(weak), tag) for weak, tag in _ONE.findall(text))
