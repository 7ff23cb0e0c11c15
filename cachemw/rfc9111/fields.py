"""The fields that a cache reads and writes, as pairs of parse and dump.

Rule 1: a bad field counts as absent or as the most restrictive value; nothing here raises.
Rule 2: everything is linear: a hostile field of 64 KiB costs less than 5 ms.
The larger fields have their own files; import all of them from here.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from functools import lru_cache
from typing import Final

from cachemw.rfc9111.cache_control import CacheControl, dump_cache_control, parse_cache_control, parse_targeted
from cachemw.rfc9111.dates import format_date, parse_date
from cachemw.rfc9111.entity_tags import ETag, parse_entity_tags, parse_etag
from cachemw.rfc9111.hosts import mark_forwarded, valid_host
from cachemw.rfc9111.no_vary_search import NoVarySearch, parse_no_vary_search
from cachemw.rfc9111.ranges import ByteRange, parse_content_range, parse_range
from cachemw.rfc9111.syntax import MAX_DELTA, OWS, has_bad_octets, is_token, parse_delta_seconds, parse_list

__all__ = [
    "MAX_DELTA",
    "ByteRange",
    "CacheControl",
    "ETag",
    "NoVarySearch",
    "dump_cache_control",
    "format_date",
    "has_bad_octets",
    "is_tag",
    "is_token",
    "mark_forwarded",
    "merge_vary",
    "parse_age",
    "parse_cache_control",
    "parse_content_range",
    "parse_date",
    "parse_delta_seconds",
    "parse_entity_tags",
    "parse_etag",
    "parse_list",
    "parse_no_vary_search",
    "parse_range",
    "parse_tags",
    "parse_targeted",
    "parse_vary",
    "valid_host",
]

_MAX_TAGS: Final = 128
_MAX_TAG: Final = 1024  # characters (Cloudflare and Fastly: 1024)
_TAG: Final = re.compile(rf"[!-+\--~]{{1,{_MAX_TAG}}}").fullmatch


def parse_vary(lines: Sequence[str]) -> tuple[str, ...]:
    """The field names of Vary, in lower case, each once, in order; ("*",) if any member is "*" or no field name."""
    pieces = [piece for line in lines for piece in line.lower().split(",")]
    names = dict.fromkeys([name for piece in pieces if (name := piece.strip(OWS))])
    return ("*",) if "*" in names or not all(map(is_token, names)) else tuple(names)


def merge_vary(lines: Iterable[str], names: Iterable[str] = ()) -> str:
    """The value of a Vary field that has these lines, with `names` added; each member once, as it is spelt first."""
    return _merge_vary(tuple(lines), tuple(names))


@lru_cache(maxsize=256)  # an application has few different ones, and sends them in every response
def _merge_vary(lines: tuple[str, ...], names: tuple[str, ...]) -> str:
    members: dict[str, str] = {}
    for name in (*parse_list(lines), *names):
        members.setdefault(name.lower(), name)
    return "*" if "*" in members else ", ".join(members.values())


def parse_age(lines: Sequence[str]) -> int | None:
    """Seconds of Age, at most `MAX_DELTA`; None if it is absent or not a number.

    RFC 9111 §5.1: of a list, a cache "SHOULD use the first member of the field value, discarding subsequent ones".
    """
    return parse_delta_seconds(lines[0].partition(",")[0].strip(OWS)) if lines else None


def parse_tags(cache_tag_lines: Sequence[str], surrogate_key_lines: Sequence[str]) -> tuple[str, ...]:
    """The tags by which a response can be purged: Cache-Tag by commas (Cloudflare), Surrogate-Key by spaces (Fastly).

    Each once, in order. Only the first 128 tags count, and only those of at most 1024 characters.
    """
    tags = [piece.strip(OWS) for line in cache_tag_lines for piece in line.split(",")]
    tags += [tag for line in surrogate_key_lines for tag in line.replace("\t", " ").split(" ")]
    return tuple(tag for tag in dict.fromkeys(tags) if 0 < len(tag) <= _MAX_TAG)[:_MAX_TAGS]


def is_tag(text: str) -> bool:
    """Can both fields carry it as one tag? At most 1024 characters, visible ASCII without commas.

    What only one of them can carry, such as a blank in Cache-Tag, is a tag of the page, too.
    """
    return _TAG(text) is not None
