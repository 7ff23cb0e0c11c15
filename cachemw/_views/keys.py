"""The key under which a page is stored: Django's two functions, for code that reads the store itself.

As everywhere in the cache there are two steps: under the URL's primary key is the `VaryIndex`, which names the request
fields that the response varies on; the page's own key is made of their values.
"""

from __future__ import annotations

import secrets
import time
from collections.abc import Mapping
from typing import Any, Final

from cachemw import activation
from cachemw._asgi.request import ASGIRequest, octets, own_copy
from cachemw._caching_here import project_of, site_here
from cachemw._views.page import EXCHANGE
from cachemw._wsgi.request import WSGIRequest, variable
from cachemw.backends.base import BaseCache
from cachemw.caching import Caching, Line
from cachemw.exchange import Exchange
from cachemw.headers import lines_of
from cachemw.rfc9111.fields import parse_vary
from cachemw.rfc9111.keys import head_key, primary_key
from cachemw.rfc9111.messages import StoredResponse, VaryIndex
from cachemw.rfc9111.requests import Request

__all__ = ["find", "learn"]

#: Fields of a request that sends a form: they are left out, as the request is taken for a plain GET.
_OF_A_FORM: Final = frozenset(
    name
    for field in ("content-length", "expect", "transfer-encoding", "upgrade")
    for name in (variable(field), octets(field))
)


def find(request: Any, *, key_prefix: str | None, method: str, cache: str | BaseCache | None) -> str | None:
    """See `cachemw.headers.get_cache_key`."""
    exchange = _begun(request, key_prefix, cache)
    of = exchange.of
    if of is None:
        return None
    primaries = (primary_key(of), head_key(of)) if method == "HEAD" else (primary_key(of),)
    for primary, record in zip(primaries, exchange.engine.pages.lookup(primaries), strict=True):
        exchange.known = {primary: record}
        found, _, variant = exchange._variant_of(primary)
        if variant is not None:
            return variant
        if isinstance(found, StoredResponse):
            return primary
    return None


def learn(
    request: Any, response: Any, *, timeout: float | None, key_prefix: str | None, cache: str | BaseCache | None
) -> str:
    """See `cachemw.headers.learn_cache_key`."""
    exchange = _begun(request, key_prefix, cache)
    line, of = exchange.engine, exchange.of
    if of is None:
        raise ValueError("No page answers this request: it has several Host fields.")
    primary = primary_key(of)  # for HEAD, too
    names = exchange._names(parse_vary(lines_of(response, "Vary")))
    (record,) = line.pages.lookup((primary,))
    if isinstance(record, StoredResponse) and not names:
        return primary
    if not (isinstance(record, VaryIndex) and set(names) <= set(record.names)):
        if isinstance(record, VaryIndex):
            names = tuple(dict.fromkeys(record.names + names))
        record = VaryIndex(primary, names, secrets.token_hex(8))
        line.pages.run(line.pages.commit([(primary, record, line.seconds if timeout is None else timeout)]), False)
    return exchange._secondary(record)


def _begun(request: Any, key_prefix: str | None, cache: Any) -> Exchange[Line]:
    """The exchange of a GET of this URL, begun as the middlewares do. Its `of` is None if no page can answer it."""
    asked, state = _request(request)
    asked.method = "GET"
    project = project_of(request)
    if project is None:
        site, passing, locale = site_here(), state.get(EXCHANGE), state.get(activation.KEY)
    else:
        site, passing, locale = project, project.exchange or state.get(EXCHANGE), project.locale
    exchange = _exchange(asked, passing, site, key_prefix, cache)
    language, timezone = activation.get_language(), activation.get_timezone()
    if locale is not None:
        language, timezone = locale.language, locale.timezone
    exchange.language, exchange.timezone = language, timezone
    exchange.begin(asked, time.time(), [*filter(asked.lines, exchange.engine.policy.keyed_fields)])
    return exchange


def _exchange(asked: Request, passing: Any, site: Any, key_prefix: str | None, cache: Any) -> Exchange[Line]:
    """An exchange on the cache that the request came through, else on that of the site, else of the environment."""
    if passing is not None and cache is None and key_prefix is None:
        exchange: Exchange[Line] = Exchange(passing.engine)
        exchange.ignore = passing.ignore
        return exchange
    if site is None:
        caching = Caching(cache=cache, key_prefix=key_prefix)
    else:
        of: Caching = site.caching
        store = of.line.pages.cache if cache is None else cache
        if isinstance(store, str) and "://" not in store:
            store = of.caches[store]
        caching = Caching(
            cache=store,
            policy=of.policy,
            key_prefix=of.key_prefix if key_prefix is None else key_prefix,
            rules=() if of.rules is None else of.rules,
            settings=of.settings,
        )
    exchange = caching.exchange(asked)
    exchange.never = False
    if cache is not None and exchange.engine is not caching.line:  # a rule names another one
        ignore, exchange = exchange.ignore, Exchange(caching.line)
        exchange.ignore = ignore
    return exchange


def _request(request: Any) -> tuple[Request, Mapping[str, Any]]:
    """The request without its body, and the `environ` or `scope` that it is made of."""
    for name in ("environ", "scope", "META"):
        request = getattr(request, name, request)
    if isinstance(request, Mapping) and "REQUEST_METHOD" in request:
        return WSGIRequest({name: value for name, value in request.items() if name not in _OF_A_FORM}), request
    if isinstance(request, Mapping) and "headers" in request and "path" in request:
        headers = [field for field in request["headers"] if field[0].lower() not in _OF_A_FORM]
        return ASGIRequest({**own_copy(request), "headers": headers}), request
    raise TypeError(f"A request, a WSGI environ or an ASGI scope is expected; got {request!r}.")
