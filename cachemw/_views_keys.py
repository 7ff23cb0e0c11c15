"""The key under which a page is stored, for those who look at the store themselves (Django's two functions).

Learning is in two steps, as everywhere in the cache: at the URL's primary key stands the `VaryIndex` with the names of
the request fields that the response varies on, and from those names follows the page's own key.
"""

from __future__ import annotations

import secrets
from collections.abc import Mapping
from typing import Any

from cachemw import activation
from cachemw._caching_here import site_here
from cachemw._views_page import EXCHANGE
from cachemw.asgi import ASGIRequest
from cachemw.backends.base import BaseCache
from cachemw.caching import Caching, Line
from cachemw.engine import variant_key
from cachemw.headers import lines_of
from cachemw.rfc9111.fields import parse_vary
from cachemw.rfc9111.keys import head_key, override_part, primary_key
from cachemw.rfc9111.messages import Request, StoredResponse, VaryIndex
from cachemw.wsgi import WSGIRequest

__all__ = ["find", "learn"]


def find(request: Any, *, key_prefix: str | None, method: str, cache: str | BaseCache | None) -> str | None:
    """See `cachemw.headers.get_cache_key`."""
    line, asked, properties = _opened(request, key_prefix, cache)
    of = line.resource(asked)
    primaries = (primary_key(of), head_key(of)) if method == "HEAD" else (primary_key(of),)
    for primary, record in zip(primaries, line.pages.lookup(primaries), strict=True):
        if isinstance(record, VaryIndex):
            return variant_key(of, record, asked, properties.__getitem__, line.policy.normalize_vary)
        if isinstance(record, StoredResponse):
            return primary
    return None


def learn(
    request: Any, response: Any, *, timeout: float | None, key_prefix: str | None, cache: str | BaseCache | None
) -> str:
    """See `cachemw.headers.learn_cache_key`."""
    line, asked, properties = _opened(request, key_prefix, cache)
    of = line.resource(asked)
    primary = primary_key(of)  # what HEAD learns serves GET, too
    names = parse_vary(lines_of(response, "Vary"))
    if line.i18n:
        names = tuple(name for name in names if name != "accept-language")
    names += (*line.properties, *((":overrides",) if properties[":overrides"] else ()))
    (record,) = line.pages.lookup((primary,))
    if isinstance(record, StoredResponse) and not names:
        return primary
    if not (isinstance(record, VaryIndex) and set(names) <= set(record.names)):
        if isinstance(record, VaryIndex):
            names = tuple(dict.fromkeys(record.names + names))
        record = VaryIndex(primary, names, secrets.token_hex(8))
        line.pages.run(line.pages.commit([(primary, record, timeout or line.seconds)]), False)
    return variant_key(of, record, asked, properties.__getitem__, line.policy.normalize_vary)


def _opened(request: Any, key_prefix: str | None, cache: Any) -> tuple[Line, Request, Mapping[str, str | None]]:
    asked, state = _request(request)
    line = _line(state.get(EXCHANGE), key_prefix, cache)
    locale = state.get(activation.KEY)
    language, timezone = activation.get_language(), activation.get_timezone()
    if locale is not None:
        language, timezone = locale.language, locale.timezone
    language = getattr(request, "LANGUAGE_CODE", language)
    overrides = override_part(asked, line.policy.keyed_fields)
    return line, asked, {":language": language, ":timezone": timezone, ":overrides": overrides}


def _line(exchange: Any, key_prefix: str | None, cache: Any) -> Line:
    """The cache that the request came through; or that of the site here; or the environment's."""
    if exchange is not None and cache is None and key_prefix is None:
        line: Line = exchange.engine
        return line
    site = site_here()
    if site is None:
        return Caching(cache=cache, key_prefix=key_prefix, rules=()).line
    of: Caching = site.caching
    if cache is None:
        cache = of.line.pages.cache
    elif isinstance(cache, str) and "://" not in cache:
        cache = of.caches[cache]
    return Caching(
        cache=cache,
        policy=of.policy,
        key_prefix=of.key_prefix if key_prefix is None else key_prefix,
        rules=(),
        settings=of.settings,
    ).line


def _request(request: Any) -> tuple[Request, Mapping[str, Any]]:
    """The request as the rules see it, and the `environ` or `scope` that it is made of."""
    for name in ("environ", "scope", "META"):
        request = getattr(request, name, request)
    if isinstance(request, Mapping) and "REQUEST_METHOD" in request:
        return WSGIRequest(dict(request)), request
    if isinstance(request, Mapping) and "headers" in request and "path" in request:
        return ASGIRequest(dict(request)), request
    raise TypeError(f"A request, a WSGI environ or an ASGI scope is expected; got {request!r}.")
