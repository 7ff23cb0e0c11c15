"""Starlette: the middlewares, the decorators of endpoints, closing at shutdown, and fragments in templates.

app = Starlette(
    routes=[Route("/news", cache_page(900)(news))],
    middleware=[Middleware(CacheMiddleware, cache="redis://localhost:6379/0", seconds=60)],
    lifespan=lifespan(),
)
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import AbstractAsyncContextManager, asynccontextmanager, nullcontext
from typing import TYPE_CHECKING, Any

from cachemw._views_kinds import PAGE
from cachemw._views_page import Page
from cachemw.asgi import CacheMiddleware, FetchFromCacheMiddleware, UpdateCacheMiddleware
from cachemw.backends.base import BaseCache
from cachemw.backends.registry import Caches
from cachemw.backends.registry import caches as process_caches
from cachemw.caching import Caching
from cachemw.locale import ASGILocaleMiddleware as LocaleMiddleware
from cachemw.locale import ASGITimezoneMiddleware as TimezoneMiddleware
from cachemw.views import cache_control, cache_page, conditional, never_cache, vary_on_cookie, vary_on_headers

if TYPE_CHECKING:
    from starlette.templating import Jinja2Templates

__all__ = [
    "CacheMiddleware",
    "FetchFromCacheMiddleware",
    "LocaleMiddleware",
    "TimezoneMiddleware",
    "UpdateCacheMiddleware",
    "cache_control",
    "cache_page",
    "conditional",
    "lifespan",
    "never_cache",
    "vary_on_cookie",
    "vary_on_headers",
    "with_fragments",
]

Lifespan = Callable[[Any], AbstractAsyncContextManager[Any]]


def lifespan(inner: Lifespan | None = None, *, caches: Caches | None = None) -> Lifespan:
    """A lifespan around the application's own: checks its views at start-up, closes the stores at shutdown.

    Closed are the stores of the application's middlewares and views, and those in use of `caches` (None: the
    process's), after the application's own shutdown. Raises, at start-up: ImproperlyConfigured for a view whose cache
    has an unknown alias.
    """

    @asynccontextmanager
    async def around(app: Any) -> AsyncIterator[Any]:
        pages = list(_pages(getattr(app, "routes", ())))
        for page in pages:
            page.check()
        try:
            async with inner(app) if inner is not None else nullcontext() as state:
                yield state
        finally:
            stores = [store for caching in _cachings(app, pages) for store in _stores(caching)]
            stores += (process_caches if caches is None else caches).all(initialized_only=True)
            for store in {id(store): store for store in stores}.values():
                await store.aclose()

    return around


def _pages(routes: Any) -> Iterator[Page]:
    """The pages of all views below these routes."""
    for route in routes or ():
        for view in (getattr(route, "endpoint", None), getattr(route, "app", None)):
            page = getattr(view, PAGE, None)
            if isinstance(page, Page):
                yield page
                break
        yield from _pages(getattr(route, "routes", None))
        yield from _pages(getattr(getattr(route, "original_router", None), "routes", None))  # FastAPI's include_router


def _cachings(app: Any, pages: list[Page]) -> Iterator[Caching]:
    """What middlewares around the application, and its views, cache with."""
    layer = getattr(app, "middleware_stack", None)
    while layer is not None:
        caching = getattr(layer, "caching", None)
        if isinstance(caching, Caching):
            yield caching
        layer = getattr(layer, "app", None)
    for page in pages:
        yield from page.cachings()


def _stores(caching: Caching) -> list[BaseCache]:
    return [line.pages.cache for line in caching.lines]


def with_fragments(templates: Jinja2Templates) -> Jinja2Templates:
    """Give templates the `{% cache 500 sidebar %}` tag of `cachemw.fragments`; returns them."""
    templates.env.add_extension("cachemw.fragments.CacheExtension")
    return templates
