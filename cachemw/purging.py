"""Purging: remove stored responses by URL or by tag (hard), or make them stale (soft).

A purge wins every race: it also removes a response whose request began before the purge and which is stored after it.

* a URL: the purge writes the URL's mark, then removes its primary key, and with it all variants. A writer stores its
  record, then reads the mark; if the mark has changed since the request began, the writer removes the record.
* a tag: the purge writes the time under the tag's mark. A record holds its tags and the time when its request began; it
  is used only if that is after the last purge of each tag. Hard and soft purges have different marks.

There is no index of URLs or tags, so nothing grows for ever.
"""

from __future__ import annotations

import re
import time
from collections.abc import Iterable, Sequence
from contextlib import suppress
from typing import Any, Final
from urllib.parse import quote, unquote_to_bytes, urlsplit

from cachemw._caching_here import site_here
from cachemw._values import shown
from cachemw.caching import Caching, HasCaching, Line, cachings_of
from cachemw.pages import Kind, Pages
from cachemw.rfc9111.fields import parse_tags
from cachemw.rfc9111.keys import quote_path, tag_key
from cachemw.rfc9111.requests import Request

__all__ = ["apurge", "listed", "purge"]

_USUAL_PORT: Final = {"http": ":80", "https": ":443"}
_HAS_PORT: Final = re.compile(r":[0-9]*$").search


def purge(
    *urls: str,
    tags: Iterable[str] | None = None,
    soft: bool = False,
    caching: Caching | HasCaching | None = None,
    mounts: Sequence[str] = (),
) -> int:
    """Remove the stored pages of these absolute URLs, in all variants, and all pages with one of these tags.

        purge("https://example.org/news", tags=["article-7"])

    urls     absolute; scheme and host as the application sees them: behind a proxy that ends TLS the scheme is "http",
             unless the server, or a middleware around the cache, reads X-Forwarded-Proto
    soft     do not remove the pages, make them stale: they are then validated, or served while a new page is fetched,
             as the policy allows
    caching  whose pages: a middleware, or its `caching`; None: those of the current Flask application, if it has the
             extension, else those of all middlewares of this process and of the store that the environment names
    mounts   paths where the application is mounted, if not at "/"; those that this process has seen are known

    Returns: the number of records and tags touched. It is 0 if the store does not answer: the purge is then repeated
    before this process reads from the store again.

    Raises: ValueError for a URL that is not absolute, and for a tag that no page can have; TypeError for an object that
    is not a string, and without URLs and tags.
    """
    total = 0
    for pages, kind, of, at in _plan(urls, tags, soft, caching, mounts):
        total += pages.remove(kind, of, at)
    return total


async def apurge(
    *urls: str,
    tags: Iterable[str] | None = None,
    soft: bool = False,
    caching: Caching | HasCaching | None = None,
    mounts: Sequence[str] = (),
) -> int:
    """`purge` without blocking the event loop."""
    total = 0
    for pages, kind, of, at in _plan(urls, tags, soft, caching, mounts):
        total += await pages.aremove(kind, of, at)
    return total


def listed(tags: Iterable[str] | None) -> Any:
    """The tags as a tuple, to be used for several caches; a text is left for `purge` to refuse."""
    return tags if tags is None or isinstance(tags, str) else tuple(tags)


Plan = Iterable[tuple[Pages, Kind, Sequence[str], float]]


def _plan(
    urls: Sequence[str],
    tags: Iterable[str] | None,
    soft: bool,
    caching: Caching | HasCaching | None,
    mounts: Sequence[str],
) -> Plan:
    """What to remove from which store, and the time of the purge. A store of several middlewares is purged once."""
    if tags is None:
        if not urls:
            raise TypeError("nothing to purge: give absolute URLs, or tags=[…], or both")
        tags = ()
    if isinstance(tags, str):
        raise TypeError(f"tags={tags!r}: a list of tags is expected, such as [{tags!r}]")
    if isinstance(mounts, str):
        raise TypeError(f"mounts={mounts!r}: a list of paths is expected, such as [{mounts!r}]")
    cachings = cachings_of(caching)
    if caching is None and (site := site_here()) is not None:
        mounts = (*mounts, *site.mounts)
    tags, mounts = [_tag(tag) for tag in tags], [_decoded(mount).rstrip("/") for mount in mounts]
    requests = [request for url in urls for request in _requests(url)]
    found: dict[Pages, tuple[dict[str, None], dict[str, None]]] = {}
    for one in cachings:
        for line in one.lines:
            resources, marks = found.setdefault(line.pages, ({}, {}))
            resources |= {of: None for request in requests for of in _resources(one, line, request, mounts)}
            marks |= {tag_key(line.space, tag, soft=soft): None for tag in tags}
    for pages, (resources, marks) in found.items():
        now = pages.common.stamp(time.time())
        yield pages, "soften" if soft else "purge", list(resources), now
        yield pages, "soften tag" if soft else "purge tag", list(marks), now


def _tag(given: object) -> str:
    """The tag as a text; numbers are allowed, as for the tags of pages."""
    tag = "" if given is None or isinstance(given, bytes) else str(given)
    if tag not in parse_tags([tag], [tag]):
        raise ValueError(
            f"cannot purge the tag {shown(given)}: no page can have it; a tag is a string of at most 1024 characters, "
            "one of the members of Cache-Tag or Surrogate-Key"
        )
    return tag


def _requests(url: str) -> list[Request]:
    """The requests that may have been made for this URL, as WSGI servers and as ASGI servers describe them."""
    if not isinstance(url, str):
        raise TypeError(f"cannot purge {url!r}: a URL is a string")
    try:
        parts = urlsplit(url)
    except ValueError as error:
        raise ValueError(f"cannot purge {url!r}: {error}") from None
    if not parts.scheme or not parts.netloc:
        raise ValueError(f"cannot purge {url!r}: give the absolute URL, such as 'https://example.org/page?id=1'")
    scheme, path = parts.scheme.lower(), parts.path or "/"
    decoded = _decoded(path)
    spelt = path if path.isascii() else quote_path(path.encode().decode("latin-1"))
    query = "".join([c if c.isascii() else quote(c) for c in parts.query])
    return [
        Request(scheme=scheme, host=host, path=path, query=query)
        for host in _hosts(scheme, parts.netloc.rpartition("@")[2])
        for path in dict.fromkeys((spelt, decoded))
    ]


def _decoded(path: str) -> str:
    """The path as WSGI servers give it: decoded."""
    return quote_path(unquote_to_bytes(path).decode("latin-1"))


def _hosts(scheme: str, host: str) -> Iterable[str]:
    """The spellings that Host may have: browsers send lower case, ASCII, and no default port.

    Proxies may add the port (nginx's `$host:$server_port`), and so do WSGI servers for a request without Host.
    """
    usual = _USUAL_PORT.get(scheme, "")
    hosts = [host, host.lower()]
    hosts += [name.removesuffix(usual) for name in hosts]
    if not host.isascii():
        with suppress(UnicodeError):  # no name that the DNS could have
            hosts += [name.encode("idna").decode("ascii") for name in hosts]
    hosts += [f"{name}{usual}" for name in hosts if not _HAS_PORT(name)]
    return dict.fromkeys(hosts)


def _resources(caching: Caching, line: Line, request: Request, mounts: Sequence[str]) -> list[str]:
    found = line.resources(request, caching.ignored(request))
    for mount in (*mounts, *sorted(line.mounts)):
        if mount and request.path.startswith(mount):
            below = Request(
                scheme=request.scheme,
                host=request.host,
                mount=mount,
                path=request.path[len(mount) :],
                query=request.query,
            )
            found += line.resources(below, caching.ignored(below))
    return found
