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
    """A lifespan that checks the views at start-up and closes the stores at shutdown, around the application's own.

        app = Starlette(routes=routes, lifespan=lifespan())

    inner   the application's own lifespan; None: there is none
    caches  the `Caches` to close besides the stores of middlewares and views; None: those of the process

    Background fetches of the views are cancelled before the application's own shutdown; stores are closed after it.

    Raises: TypeError for a wrong `inner`; at start-up ImproperlyConfigured for a view whose cache is an unknown alias.
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
            stores = [line.pages.cache for caching in cachings for line in caching.lines]
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
    """The functions that FastAPI calls before the operation; one may be `Depends(page(60))`."""
    for one in getattr(getattr(route, "dependant", None), "dependencies", ()):
        yield one.call
    for one in getattr(router, "dependencies", ()):
        yield one.dependency


def _around(app: Any) -> Iterator[Caching]:
    """The `caching` of each middleware around an application, and of its own."""
    layer = app
    while layer is not None:
        caching = getattr(layer, "caching", None)
        if isinstance(caching, Caching):
            yield caching
        layer = layer.middleware_stack if hasattr(layer, "middleware_stack") else getattr(layer, "app", None)


# -- purging ----------------------------------------------------------------------------------------------------------


def purge(of: Any, *urls: Any, tags: Iterable[str] | None = None, soft: bool = False) -> int:
    """Remove stored pages of an application by URL, as `request.url_for` gives it, or by tag.

        purge(request, request.url_for("news"))

    of    the application, or a request to it: the pages of its middlewares and of its views
    urls  absolute, as strings or as Starlette's `URL`; with a request also paths, which get its host

    See `cachemw.purge` for the other arguments. Raises: ValueError for a URL whose host is not known.
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
    """The `Caching` objects of the application, the absolute URLs, and the paths where its pages may be mounted."""
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
    """The routes of the application inside of its middlewares; its middleware stack is built now if it is not yet."""
    while not hasattr(app, "routes") and hasattr(app, "app"):
        app = app.app
    if getattr(app, "middleware_stack", app) is None:
        app.middleware_stack = app.build_middleware_stack()
    return getattr(app, "routes", ())


def _mounts(routes: Any, root: str, path: str) -> Iterator[str]:
    """The mounts, as in keys, of the views that a path may lead to."""
    for route in routes or ():
        if not isinstance(route, Mount):
            continue
        scope = {"type": "http", "method": "GET", "path": path, "root_path": root, "path_params": {}}
        match, child = route.matches(scope)
        if match is not Match.NONE and (any(_pages(route.routes)) or isinstance(getattr(route.app, PAGE, None), Page)):
            yield child["root_path"]
            yield from _mounts(route.routes, child["root_path"], path)


def with_fragments(templates: Jinja2Templates) -> Jinja2Templates:
    """Add the tag `{% cache 500 sidebar %}` to templates (see `cachemw.fragments`). Returns: the templates."""
    templates.env.add_extension("cachemw.fragments.CacheExtension")
    return templates
