"""Starlette: the middlewares, the decorators of endpoints, purging, closing at shutdown, and fragments in templates.

app = Starlette(
    routes=[Route("/news", cache_page(900)(news), name="news")],
    middleware=[Middleware(CacheMiddleware, cache="redis://localhost:6379/0", seconds=60)],
    lifespan=lifespan(),
)

await apurge(request, request.url_for("news"))      # when something has changed
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Iterable, Iterator
from contextlib import AbstractAsyncContextManager, asynccontextmanager, nullcontext
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

from starlette.applications import Starlette
from starlette.datastructures import URL
from starlette.routing import Match, Mount

from cachemw import purging
from cachemw._views.asgi import make_middleware
from cachemw._views.kinds import PAGE
from cachemw._views.page import Page
from cachemw.asgi import CacheMiddleware, FetchFromCacheMiddleware, UpdateCacheMiddleware
from cachemw.backends.base import BaseCache
from cachemw.backends.registry import Caches
from cachemw.backends.registry import caches as process_caches
from cachemw.caching import Caching, cachings_of
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
    "apurge",
    "cache_control",
    "cache_page",
    "conditional",
    "lifespan",
    "never_cache",
    "purge",
    "vary_on_cookie",
    "vary_on_headers",
    "with_fragments",
]

Lifespan = Callable[[Any], AbstractAsyncContextManager[Any]]


def lifespan(inner: Lifespan | None = None, *, caches: Caches | None = None) -> Lifespan:
    """A lifespan around the application's own: checks its views at start-up, closes the stores at shutdown.

    Before the application's own shutdown, what its views fetch in the background is given up. After it, the stores of
    its middlewares and views are closed, and those in use of `caches` (None: the process's). Raises, at start-up:
    ImproperlyConfigured for a view whose cache has an unknown alias.
    """
    if inner is not None and not callable(inner):
        raise TypeError(f"lifespan takes the application's own lifespan, a function of the application; got {inner!r}.")
    if isinstance(inner, Starlette):
        raise TypeError("lifespan is called where it is handed to the application: Starlette(lifespan=lifespan()).")

    @asynccontextmanager
    async def around(app: Any) -> AsyncIterator[Any]:
        pages = _all_pages(getattr(app, "routes", ()))
        for page in pages:
            page.check()
        try:
            async with inner(app) if inner is not None else nullcontext() as state:
                try:
                    yield state
                finally:
                    await asyncio.gather(*(page.alone.refresher.aclose() for page in pages if page.alone is not None))
        finally:
            cachings = [*_around(app), *(page.alone.caching for page in pages if page.alone is not None)]
            stores = [store for caching in cachings for store in _stores(caching)]
            stores += (process_caches if caches is None else caches).all(initialized_only=True)
            for store in {id(store): store for store in stores}.values():
                await store.aclose()

    return around


def _all_pages(routes: Any) -> list[Page]:
    return list(dict.fromkeys(_pages(routes)))


def _pages(routes: Any) -> Iterator[Page]:
    """The pages of all views below these routes."""
    for route in routes or ():
        router = getattr(route, "original_router", None)  # FastAPI's include_router
        for view in (getattr(route, "endpoint", None), getattr(route, "app", None), *_dependencies(route, router)):
            page = getattr(view, PAGE, None)
            if isinstance(page, Page):
                yield page
        yield from _pages(getattr(route, "routes", None))
        yield from _pages(getattr(router, "routes", None))


def _dependencies(route: Any, router: Any) -> Iterator[Any]:
    """What FastAPI calls before the operation, one of which may be `Depends(page(60))`."""
    for one in getattr(getattr(route, "dependant", None), "dependencies", ()):
        yield one.call
    for one in getattr(router, "dependencies", ()):
        yield one.dependency


def _around(app: Any) -> Iterator[Caching]:
    """What middlewares around an application, and its own, cache with."""
    layer = app
    while layer is not None:
        caching = getattr(layer, "caching", None)
        if isinstance(caching, Caching):
            yield caching
        layer = layer.middleware_stack if hasattr(layer, "middleware_stack") else getattr(layer, "app", None)


def _stores(caching: Caching) -> list[BaseCache]:
    return [line.pages.cache for line in caching.lines]


# -- purging ----------------------------------------------------------------------------------------------------------


def purge(of: Any, *urls: Any, tags: Iterable[str] | None = None, soft: bool = False) -> int:
    """Remove stored pages of an application by URL, as `request.url_for` gives it, or by tag.

    of      the application, or a request to it: the pages of its middlewares and of its views
    urls    absolute, texts or Starlette's `URL`; below a request also paths, of the host that was asked

    See `cachemw.purge` for the rest. Raises: ValueError for a URL whose host is not known.
    """
    cachings, absolute, mounts = _plan(of, urls)
    tags = purging.listed(tags)
    return sum(purging.purge(*absolute, tags=tags, soft=soft, caching=one, mounts=mounts) for one in cachings)


async def apurge(of: Any, *urls: Any, tags: Iterable[str] | None = None, soft: bool = False) -> int:
    """`purge` for coroutines."""
    cachings, absolute, mounts = _plan(of, urls)
    tags, total = purging.listed(tags), 0
    for one in cachings:
        total += await purging.apurge(*absolute, tags=tags, soft=soft, caching=one, mounts=mounts)
    return total


def _plan(of: Any, urls: Iterable[Any]) -> tuple[list[Caching], list[str], list[str]]:
    """What the application caches with, the absolute URLs, and where its pages may be mounted."""
    if isinstance(of, str | URL):
        raise TypeError(f"cannot purge of {str(of)!r}: the request, or the application, comes first, then the URLs")
    scope = getattr(of, "scope", None)
    app = of if scope is None else scope["app"]
    base = "" if scope is None else str(of.base_url.replace(path="", query=""))
    absolute = [base + url if (url := str(one)).startswith("/") else url for one in urls]
    routes = _routes(app)
    pages = _all_pages(routes)
    cachings = list(_around(app)) or list(cachings_of(None))
    cachings += [page.open(make_middleware).caching for page in pages if page.is_apart]
    root = "" if scope is None else scope.get("app_root_path", scope.get("root_path", ""))
    mounts = [root, *(mount for url in absolute for mount in _mounts(routes, root, urlsplit(url).path))]
    return cachings, absolute, [mount for mount in mounts if mount]


def _routes(app: Any) -> Any:
    """Of the application within the middlewares that may be around it; its own stack is made now if it is not yet."""
    while not hasattr(app, "routes") and hasattr(app, "app"):
        app = app.app
    if getattr(app, "middleware_stack", app) is None:
        app.middleware_stack = app.build_middleware_stack()
    return getattr(app, "routes", ())


def _mounts(routes: Any, root: str, path: str) -> Iterator[str]:
    """Where the views that a path may lead to are mounted, as their keys know it."""
    for route in routes or ():
        if not isinstance(route, Mount):
            continue
        scope = {"type": "http", "method": "GET", "path": path, "root_path": root, "path_params": {}}
        match, child = route.matches(scope)
        if match is not Match.NONE and (any(_pages(route.routes)) or isinstance(getattr(route.app, PAGE, None), Page)):
            yield child["root_path"]
            yield from _mounts(route.routes, child["root_path"], path)


def with_fragments(templates: Jinja2Templates) -> Jinja2Templates:
    """Give templates the `{% cache 500 sidebar %}` tag of `cachemw.fragments`; returns them."""
    templates.env.add_extension("cachemw.fragments.CacheExtension")
    return templates
