"""The key under which a page is stored, for those who look at the store themselves (Django's two functions).

Learning is in two steps, as everywhere in the cache: at the URL's primary key stands the `VaryIndex` with the names of
the request fields that the response varies on, and from those names follows the page's own key.
"""

from __future__ import annotations

import secrets
import time
from collections.abc import Mapping
from typing import Any, Final

from cachemw import activation
from cachemw._asgi.request import ASGIRequest, octets
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

#: What a form has that was sent to the URL, and the page there does not hang on: the request is taken for a plain GET.
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
    primary = primary_key(of)  # what HEAD learns serves GET, too
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
    """The passage of a GET of this URL, as the middlewares begin it: what its key is made of is decided there.

    Where no page answers it, its `of` is None.
    """
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
    """On the cache that the request came through; or on that of the site; or on the environment's."""
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
    """The request as the rules see it, but for its body, and the `environ` or `scope` that it is made of."""
    for name in ("environ", "scope", "META"):
        request = getattr(request, name, request)
    if isinstance(request, Mapping) and "REQUEST_METHOD" in request:
        return WSGIRequest({name: value for name, value in request.items() if name not in _OF_A_FORM}), request
    if isinstance(request, Mapping) and "headers" in request and "path" in request:
        scope = dict(request)
        scope["headers"] = [field for field in request["headers"] if field[0].lower() not in _OF_A_FORM]
        if isinstance(scope.get("query_string"), str):  # as Django's own test client has it
            scope["query_string"] = scope["query_string"].encode()
        return ASGIRequest(scope), request
    raise TypeError(f"A request, a WSGI environ or an ASGI scope is expected; got {request!r}.")
