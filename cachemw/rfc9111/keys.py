"""Cache keys (RFC 9111 §2, §4.1): which requests may share a stored response.

Rule 1: a key is a sequence of framed parts, "<length>:<part>"; no two different sequences give one string.
Rule 2: parts are the server's own bytes; nothing is decoded, folded, shortened or left out unless the operator asks.
Rule 3: every key is RESOURCE, a NUL, and what is meant of that resource. A RESOURCE never contains NUL, so a store
        that spreads its keys over machines can route all keys of one URL by that first part.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from typing import Final
from urllib.parse import quote

from cachemw.rfc9111.fields import mark_forwarded, parse_list
from cachemw.rfc9111.no_vary_search import parameter_name
from cachemw.rfc9111.requests import CREDENTIALS, Request
from cachemw.rfc9111.syntax import MAX_FIELD, QUOTED, TCHAR

__all__ = [
    "MARK",
    "PRIMARY",
    "canonical_query",
    "head_key",
    "keyed_part",
    "lease_key",
    "mark_key",
    "namespace",
    "normalized",
    "primary_key",
    "quote_path",
    "resource",
    "secondary_key",
    "tag_key",
    "tag_keys",
]

#: Fields whose members have weights (RFC 9110 §12.5), so that their order means nothing.
_PREFERENCES = frozenset({"accept", "accept-charset", "accept-encoding", "accept-language"})
_PREFERENCE = re.compile(rf"([{TCHAR}/]++)((?:[ \t]*;[ \t]*[{TCHAR}]++=(?:[{TCHAR}]++|{QUOTED}))*)", re.DOTALL)
_PARAMETER = re.compile(rf"([{TCHAR}]++)=([{TCHAR}]++|{QUOTED})", re.DOTALL)
#: Fields that are not lists (RFC 9110 §10.1, RFC 6265 §4.2.1): a comma in them separates nothing.
_NO_LISTS = frozenset({*CREDENTIALS, "content-type", "from", "host", "origin", "referer", "user-agent"})
_EMPTY_MEMBER = re.compile(r"(?:\A|,)[ \t]*(?=,|\Z)")

#: What a path may contain as it is (RFC 3986 §3.3 `pchar` and "/"); `quote_path` encodes everything else.
_PATH_SAFE = "/:@!$&'()*+,;=~-._"


def _frame(parts: Iterable[str]) -> str:
    return "".join([f"{len(part)}:{part}" for part in parts])


def quote_path(path: str) -> str:
    """The percent-encoded form of a decoded latin-1 path (WSGI's PATH_INFO), as a URL spells it.

    It is injective, so two different paths never become one; for usual URLs it is what the client sent. A path that is
    not latin-1, from a middleware that does not know PEP 3333, is marked by something that no URL can contain: "%u".
    """
    try:
        return quote(path.encode("latin-1"), safe=_PATH_SAFE)
    except UnicodeEncodeError:
        return "%u" + quote(path.encode("utf-8", "surrogatepass"), safe=_PATH_SAFE)


def namespace(*parts: str) -> str:
    """The first part of every key of one cache: its store's prefix and version, the middleware's key prefix."""
    return _frame(parts)


def resource(space: str, scheme: str, host: str, mount: str, path: str, query: str) -> str:
    """The part that all keys of one URL share; `space` comes from `namespace`."""
    return f"{space}{len(scheme)}:{scheme}{len(host)}:{host}{len(mount)}:{mount}{len(path)}:{path}{len(query)}:{query}"


def keyed_part(request: Request, names: Sequence[str]) -> str:
    """The fields of a request that the policy has in the key: by them it may override its URL, or say who the user is.

    "" if it has none of them.

    They select a variant, as the fields in `Vary` do, so a purge of the URL reaches every page that they led to.

    All lines count, in order, even an empty one: to an application it is not the same as an absent one. Of `Forwarded`
    (RFC 7239) only host and proto count: `for` differs with every client.
    """
    parts: list[str] = []
    for name in names:
        for line in request.told(name):
            value = mark_forwarded(line) if name == "forwarded" else line
            if value or name != "forwarded":
                parts += (name, value)
    return _frame(parts)


def canonical_query(query: str, ignore: Sequence[str], sort: bool) -> str:
    """The query without the parameters named in `ignore` (a trailing "*" matches any ending), sorted if asked.

    Parameters are ignored by the spelling of their names, and keep their spelling. Sorting keeps the order of equal
    names, however they are spelled: "a=1&%61=2" is not "%61=2&a=1". A query with ";" stays as it is: only the
    application knows whether that separates parameters (CVE-2021-23336).
    """
    if not query or ";" in query:
        return query
    parameters = query.split("&")
    if ignore:
        exact = {name for name in ignore if not name.endswith("*")}
        prefixes = tuple(name[:-1] for name in ignore if name.endswith("*"))
        parameters = [p for p in parameters if (n := p.partition("=")[0]) not in exact and not n.startswith(prefixes)]
    if sort:
        parameters.sort(key=parameter_name)
    return "&".join(parameters)


def normalized(name: str, lines: Sequence[str]) -> Sequence[str]:
    """The lines of a nominated field in a form that other spellings of the same value share (RFC 9111 §4.1).

    Lines are combined, and white space between members is dropped. If RFC 9110 §12.5 says what a member means, empty
    members, case and the order of members are dropped, too, unless one of them is malformed. Of any other field, nobody
    knows whether it is a list: an application may choose by an empty member, and one stranger's choice must not become
    everybody's. A field that is known not to be a list stays as it is, and so does one longer than 8 KiB.
    """
    if name in _NO_LISTS or sum(map(len, lines)) > MAX_FIELD:
        return lines
    combined, members = ", ".join(lines), parse_list(lines)
    if name not in _PREFERENCES:
        return (combined if _EMPTY_MEMBER.search(combined) else ", ".join(members),)
    preferences = [_preference(member) for member in members]
    return (combined if None in preferences else ", ".join(sorted(filter(None, preferences))),)


def _preference(member: str) -> str | None:
    """A range and its parameters in one spelling; None for a malformed one. A value keeps its case (§8.3.1)."""
    match = _PREFERENCE.fullmatch(member)
    if match is None:
        return None
    parameters = [f";{key.lower()}={value}" for key, value in _PARAMETER.findall(match[2])]
    return match[1].lower() + "".join(parameters)


#: The part after the resource in the key of its response, and in that of its mark; for code that makes many of them.
PRIMARY: Final = "\0G"
MARK: Final = "\0M"


def primary_key(of: str) -> str:
    """The place of the response to GET, or of the `VaryIndex` that leads to its variants."""
    return of + PRIMARY


def head_key(of: str) -> str:
    """The place of a response to HEAD; never used to answer GET."""
    return of + "\0H"


def mark_key(of: str) -> str:
    """Where a purge of the resource leaves its mark."""
    return of + MARK


def lease_key(of: str) -> str:
    """Where the leader of a miss tells other processes that it is at work."""
    return of + "\0L"


def tag_key(space: str, tag: str, *, soft: bool = False) -> str:
    """Where a purge of a tag leaves its mark. No resource begins like this: a scheme's length is never 0.

    A soft purge has a mark of its own: if two purges at once read and wrote one mark, the hard one could get lost.
    """
    return f"{space}0:{len(tag)}:{tag}\0{'S' if soft else 'T'}"


def tag_keys(space: str, tags: Iterable[str]) -> list[str]:
    """All marks that a response with these tags has to be compared with."""
    return [tag_key(space, tag, soft=soft) for tag in tags for soft in (False, True)]


def secondary_key(of: str, generation: str, values: Iterable[Sequence[str]]) -> str:
    """The place of the variant that these lines of the nominated fields select (RFC 9111 §4.1).

    `generation` belongs to the `VaryIndex` and binds values to names. A field without lines, with one empty line, and
    with two lines are three different things.
    """
    key = f"{of}\0V{generation}"
    for lines in values:
        if len(lines) == 1:  # as nearly all have
            (line,) = lines
            key += f"1:{len(line)}:{line};"
        else:
            key += "".join([f"{len(lines)}", *[f":{len(line)}:{line}" for line in lines], ";"])
    return key
