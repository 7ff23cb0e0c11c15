"""Page: the options of `cache_page`, and the cache of the view: the site-wide one, or one of its own.

Rule 1: a page is stored once. Under a site-wide middleware with the same cache and key prefix, the view only tells it
        the timeout; a middleware with another cache is told not to store the page.
Rule 2: the middlewares decide whether a page is stored; this file decides only in which cache.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import replace
from types import MappingProxyType
from typing import Any, Final, Protocol, TypeVar

from cachemw._memoize.stores import check_store
from cachemw._values import number, text
from cachemw.backends.base import BaseCache
from cachemw.backends.registry import cache as default_cache
from cachemw.backends.registry import caches, resolve
from cachemw.caching import Caching
from cachemw.errors import CacheError, ImproperlyConfigured
from cachemw.exchange import Exchange
from cachemw.exchange.state import EXCHANGE
from cachemw.rfc9111.fields import is_tag
from cachemw.rfc9111.keys import namespace
from cachemw.settings import Settings

__all__ = ["EXCHANGE", "Page", "Site", "Tags", "noticing"]

#: The names by which a page can be purged: texts, or a function of the view's arguments that returns them.
Tags = Iterable[str] | Callable[..., Iterable[str]]

MiddlewareT = TypeVar("MiddlewareT")

_NO_KEYWORDS: Final[Mapping[str, Any]] = MappingProxyType({})


class Site(Protocol):
    """A site whose settings hold for the pages of its views: a Flask application with the extension."""

    @property
    def caching(self) -> Caching: ...

    @property
    def middlewares(self) -> dict[Page, Any]:
        """By page, the middlewares of views that the cache around the site does not store; purges reach them, too."""


@contextmanager
def noticing(request: Any, fields: Mapping[str, str], exchange: Any) -> Iterator[None]:
    """Notice which request fields a view reads, such as Cookie: its page then varies on them.

    fields: the names of the fields, by the attribute in which the framework's request keeps what it has parsed of them.
    """
    kept = vars(request)
    before = [field for name, field in fields.items() if kept.pop(name, None) is not None]
    exchange.suspected = (*exchange.suspected, *before)
    try:
        yield
    finally:
        read = [field for name, field in fields.items() if name in kept]
        exchange.reads = tuple(dict.fromkeys((*exchange.reads, *read)))


class Page:
    """The options of `cache_page`: a timeout in seconds, the cache, the key prefix, and the tags of the pages.

    Raises: ImproperlyConfigured for a wrong timeout, cache or key prefix; TypeError and ValueError for wrong tags;
    TypeError if the view itself is given as the timeout.
    """

    def __init__(self, timeout: float, *, cache: str | BaseCache | None, key_prefix: str | None, tags: Tags) -> None:
        if callable(timeout):
            raise TypeError(f"cache_page: the timeout is a number of seconds; got {timeout!r}. Write cache_page(60).")
        self.timeout = number("cache_page: timeout", timeout, minimum=0)
        self.name = "a view"  # for errors
        self._cache = check_store("cache_page: cache", cache)
        self._key_prefix = None if key_prefix is None else text("cache_page: key_prefix", key_prefix)
        self._tags = tags if callable(tags) else _checked(tags)

    #: The middleware that caches the page alone, without a site; None as long as that was not needed.
    alone: Any = None

    @property
    def needs_arguments(self) -> bool:
        """Are the tags made of the view's arguments?"""
        return callable(self._tags)

    @property
    def is_apart(self) -> bool:
        """Have the pages a cache or a key prefix of their own?"""
        return self._cache is not None or self._key_prefix is not None

    def tell(
        self, exchange: Exchange[Any], args: tuple[Any, ...] = (), kwargs: Mapping[str, Any] = _NO_KEYWORDS
    ) -> None:
        """Tell the exchange how long its response may be stored, and its tags."""
        exchange.timeout = self.timeout
        exchange.tags += _checked(self._tags(*args, **kwargs)) if callable(self._tags) else self._tags

    def join(
        self,
        exchange: Exchange[Any] | None,
        args: tuple[Any, ...] = (),
        kwargs: Mapping[str, Any] = _NO_KEYWORDS,
        *,
        site: Site | None = None,
    ) -> bool:
        """Leave the page to this exchange, if its cache is that of the page; else tell it not to store the page.

        Returns: whether the page is left to the exchange.
        """
        if exchange is None:
            return False
        line = exchange.engine
        if self._cache is not None and line.pages.cache is not self._store(site):
            exchange.timeout = 0
            return False
        if self._key_prefix is not None and line.space != namespace(self._key_prefix):
            exchange.timeout = 0
            return False
        self.tell(exchange, args, kwargs)
        return True

    def open(self, make: Callable[..., MiddlewareT], site: Site | None = None) -> MiddlewareT:
        """The middleware for this page alone: one for each site, made when it is first needed.

        make: `wsgi.CacheMiddleware`, or what takes its options. Raises: ImproperlyConfigured, with the view's name.
        """
        middleware: MiddlewareT | None = self.alone if site is None else site.middlewares.get(self)
        if middleware is None:
            made = make(**self._options(site))
            if site is None:  # of several threads, the first one's object stays; a lock might be held during a fork
                middleware = vars(self).setdefault("alone", made)
            else:
                middleware = site.middlewares.setdefault(self, made)
        return middleware

    def _options(self, site: Site | None) -> dict[str, Any]:
        settings = Settings.from_environ() if site is None else site.caching.settings
        policy = settings.policy() if site is None else site.caching.policy
        prefix = self._key_prefix
        if prefix is None:
            prefix = settings.key_prefix if site is None else site.caching.key_prefix
        return {
            "cache": self._store(site),
            # the view gets the client's own conditions and range, and answers them as without a cache
            "policy": replace(policy, revalidate=False, store_partial=False),
            "key_prefix": prefix,
            "rules": (),
            "settings": settings,
        }

    def _store(self, site: Site | None) -> BaseCache:
        cache = self._cache
        if site is not None and cache is None:
            return site.caching.line.pages.cache
        if cache is None:
            cache = Settings.from_environ().alias
        if site is not None and cache is default_cache:  # a site may have a default of its own
            cache = "default"
        try:
            return resolve("cache", cache, caches if site is None else site.caching.caches)
        except CacheError as error:
            raise ImproperlyConfigured(f"cache_page on {self.name}: {error}") from error

    def check(self, site: Site | None = None) -> None:
        """Raise at start-up the error of the first request, if there is one. Raises: ImproperlyConfigured."""
        self._store(site)


def _checked(tags: Any) -> tuple[str, ...]:
    if isinstance(tags, str) or not isinstance(tags, Iterable):
        raise TypeError(f"cache_page: tags are a list of strings, or a function that returns one; got {tags!r}.")
    checked = tuple(str(tag) for tag in tags)
    for tag in checked:
        if not is_tag(tag):
            raise ValueError(f"cache_page: a tag is a string without spaces and commas; got {tag!r}.")
    return checked
