"""FastAPI: the decorators for path operations, which return plain values, and `Depends(page(60))`.

    @app.get("/items/{item_id}")
    @cache_page(60)
    async def item(item_id: int) -> Item: ...

Response models, dependencies and the OpenAPI document are what they are without. Dependencies run before a stored page
is looked up, so those that check a login guard it; what they set (headers, cookies) goes to the client and is not
stored. A site-wide `CacheMiddleware` looks up before all of them: under it, a page for some clients only has to vary on
what they are known by.

`Depends(page(60))` does the same, for a route, a router or the application, with or without a site-wide
`CacheMiddleware`. With `APIRouter(route_class=CachedRoute)` it is put in its place when the route is made, else at the
route's first request. `await apurge(request, request.url_for("item", item_id=7))` removes what is stored.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any, TypeVar, Unpack, cast, get_args

from anyio import from_thread
from fastapi import Request, Response, params, routing
from fastapi.dependencies.utils import get_typed_signature

from cachemw import views
from cachemw._forks import Forkable
from cachemw._views.asgi import READ, ViewPassage, open_page, open_page_in_thread
from cachemw._views.kinds import PAGE, ViewDecorator, describe
from cachemw._views.page import EXCHANGE, Page, Tags, noticing
from cachemw.asgi import ASGIRequest, CacheMiddleware
from cachemw.backends.base import BaseCache
from cachemw.headers import Directives
from cachemw.integrations._fastapi_operations import PARAMETERS, Given, Operation, response_of, route_of
from cachemw.integrations.starlette import apurge, lifespan, purge
from cachemw.rfc9111.messages import Fields

__all__ = [
    "CacheMiddleware",
    "CachedRoute",
    "PageDependency",
    "apurge",
    "cache_control",
    "cache_page",
    "conditional",
    "lifespan",
    "never_cache",
    "page",
    "purge",
    "vary_on_cookie",
    "vary_on_headers",
]

OperationT = TypeVar("OperationT", bound=Callable[..., Any])

# -- cache_page -------------------------------------------------------------------------------------------------------


def cache_page(
    timeout: float, *, cache: str | BaseCache | None = None, key_prefix: str | None = None, tags: Tags = ()
) -> Callable[[OperationT], OperationT]:
    """Store what the path operation answers for `timeout` seconds; see `cachemw.cache_page`.

    It stands directly below the route. `tags` as a function gets the operation's arguments, by name.
    """
    options: Any = {"timeout": timeout, "cache": cache, "key_prefix": key_prefix, "tags": tags}
    Page(**options)  # errors belong to the line where it is written

    def decorate(operation: OperationT) -> OperationT:
        page = Page(**options)
        page.name = describe(operation)
        return _cached(page, operation)

    return decorate


def _cached(page: Page, function: OperationT) -> OperationT:
    operation = Operation("cache_page", function)

    async def answer(*args: Any, **kwargs: Any) -> Any:
        request, response = operation.taken(kwargs)
        own = operation.own(kwargs)
        if page.join(outer := request.scope.get(EXCHANGE), args, own):
            with noticing(request, READ, outer):
                return await operation.call(*args, **kwargs)
        passage, given = await open_page(page, request, args, own), Given(response)
        if not isinstance(passage, ViewPassage):
            return given.merged(passage)
        try:
            with passage.current():
                value = await operation.call(*args, **kwargs)
            return given.merged(await passage.keep(await response_of(value, request, given.taken(), function)))
        except BaseException as error:
            return given.merged(await passage.stand_in_for(error))

    def answer_in_thread(*args: Any, **kwargs: Any) -> Any:
        request, response = operation.taken(kwargs)
        own = operation.own(kwargs)
        if page.join(outer := request.scope.get(EXCHANGE), args, own):
            with noticing(request, READ, outer):
                return operation.call(*args, **kwargs)
        passage, given = open_page_in_thread(page, request, args, own), Given(response)
        if not isinstance(passage, ViewPassage):
            return given.merged(passage)
        try:
            with passage.current():
                value = operation.call(*args, **kwargs)
            made = from_thread.run(response_of, value, request, given.taken(), function)
            return given.merged(from_thread.run(passage.keep, made))
        except BaseException as error:
            return given.merged(from_thread.run(passage.stand_in_for, error))

    wrapper = operation.wrapped(answer if operation.is_async else answer_in_thread)
    setattr(wrapper, PAGE, page)
    return cast(OperationT, wrapper)


# -- what headers say -------------------------------------------------------------------------------------------------


def _patching(decorator: ViewDecorator) -> Callable[[OperationT], OperationT]:
    """The decorator for operations that patches the same headers as one for views."""
    patching = cast(views.Patching, decorator)

    def decorate(function: OperationT) -> OperationT:
        operation = Operation(patching.name, function)
        patching.check(function)

        def patched(response: Response, value: Any) -> Any:
            patching.patch(value if isinstance(value, Response) else response)
            return value

        async def answer(*args: Any, **kwargs: Any) -> Any:
            _, response = operation.taken(kwargs)
            return patched(response, await operation.call(*args, **kwargs))

        def answer_in_thread(*args: Any, **kwargs: Any) -> Any:
            _, response = operation.taken(kwargs)
            return patched(response, operation.call(*args, **kwargs))

        return cast(OperationT, operation.wrapped(answer if operation.is_async else answer_in_thread))

    return decorate


def cache_control(
    *, extensions: Mapping[str, str | int | bool] | None = None, **directives: Unpack[Directives]
) -> Callable[[OperationT], OperationT]:
    """Add directives to Cache-Control; see `cachemw.cache_control`."""
    return _patching(views.cache_control(extensions=extensions, **directives))


def vary_on_headers(*names: str) -> Callable[[OperationT], OperationT]:
    """Name request fields in Vary; see `cachemw.vary_on_headers`."""
    return _patching(views.vary_on_headers(*names))


def never_cache(operation: OperationT) -> OperationT:
    """Tell every cache not to keep what the operation answers."""
    return _patching(views.never_cache)(operation)


def vary_on_cookie(operation: OperationT) -> OperationT:
    """The answer is another one for each value of Cookie."""
    return _patching(views.vary_on_cookie)(operation)


def conditional(
    *, etag: views.ETagFunction | None = None, last_modified: views.LastModifiedFunction | None = None
) -> Callable[[OperationT], OperationT]:
    """Answer 304 or 412 without calling the operation; see `cachemw.conditional`.

    The functions get the operation's arguments, by name.
    """
    condition = views.conditional(etag=etag, last_modified=last_modified)

    def decorate(function: OperationT) -> OperationT:
        operation = Operation(condition.name, function)
        condition.check(function)

        async def answer(*args: Any, **kwargs: Any) -> Any:
            taken, response = operation.taken(kwargs)
            request = ASGIRequest(taken.scope)
            fields = await condition.avalidators(*args, **operation.own(kwargs))
            short = views.short_answer(request, fields, Response)
            return short or _validated(request, await operation.call(*args, **kwargs), response, fields)

        def answer_in_thread(*args: Any, **kwargs: Any) -> Any:
            taken, response = operation.taken(kwargs)
            request = ASGIRequest(taken.scope)
            fields = condition.validators(*args, **operation.own(kwargs))
            short = views.short_answer(request, fields, Response)
            return short or _validated(request, operation.call(*args, **kwargs), response, fields)

        return cast(OperationT, operation.wrapped(answer if operation.is_async else answer_in_thread))

    return decorate


def _validated(request: ASGIRequest, value: Any, response: Response, fields: Fields) -> Any:
    views.validated(request, value if isinstance(value, Response) else response, fields)
    return value


# -- Depends(page(60)) ------------------------------------------------------------------------------------------------


class PageDependency:
    """See `page`."""

    def __init__(self, page: Page) -> None:
        self.page = page
        setattr(self, PAGE, page)

    async def __call__(self, request: Request) -> None:
        """Tell the site-wide cache; where there is none, have the operation cached by itself."""
        route = request.scope.get("route")
        if self.page.join(request.scope.get(EXCHANGE), (), request.path_params):
            return
        if not isinstance(route, CachedRoute) or self.page not in route.pages:
            self._take_over(route_of(request.scope).dependant)

    def _take_over(self, dependant: Any) -> None:
        """Put the page around the operation. FastAPI looks at what is set here when all dependencies have run, so it
        counts from this request on; a decorator's `cache_page` counts more, and the last dependency most of them."""
        with _taking_over.lock:
            if hasattr(dependant.call, PAGE):
                return
            found = [one.call for one in dependant.dependencies if isinstance(one.call, PageDependency)]
            dependant.call = _cached((found or [self])[-1].page, dependant.call)
            request, response = PARAMETERS
            dependant.request_param_name = dependant.request_param_name or request
            dependant.response_param_name = dependant.response_param_name or response


class _TakingOver(Forkable):
    """Held by who puts a page around an operation."""

    def _reset(self) -> None:
        self.lock = threading.Lock()


_taking_over = _TakingOver()


def page(
    timeout: float, *, cache: str | BaseCache | None = None, key_prefix: str | None = None, tags: Tags = ()
) -> PageDependency:
    """A dependency that has the answer stored for `timeout` seconds: `Depends(page(60))`; see `cache_page`.

    `tags` as a function gets the path's parameters under a site-wide cache, the operation's arguments otherwise.
    """
    page = Page(timeout, cache=cache, key_prefix=key_prefix, tags=tags)
    page.name = f"Depends(page({timeout:g}))"
    return PageDependency(page)


class CachedRoute(routing.APIRoute):
    """A route that knows its `Depends(page(60))` from the start; the last one counts, the operation's own most.

    router = APIRouter(route_class=CachedRoute)
    """

    def __init__(
        self,
        path: str,
        endpoint: Callable[..., Any],
        *,
        dependencies: Sequence[params.Depends] | None = None,
        **rest: Any,
    ) -> None:
        found = [*_page_dependencies(dependencies or ()), *_page_dependencies(_depends(endpoint))]
        self.pages = [one.page for one in found]
        if found:
            endpoint = _cached(found[-1].page, endpoint)
        super().__init__(path, endpoint, dependencies=dependencies, **rest)


def _page_dependencies(dependencies: Iterable[params.Depends]) -> Iterator[PageDependency]:
    for one in dependencies:
        if isinstance(one.dependency, PageDependency):
            yield one.dependency


def _depends(endpoint: Any) -> Iterator[params.Depends]:
    """What the operation's parameters depend on, by their defaults or annotations."""
    for parameter in get_typed_signature(endpoint).parameters.values():
        for one in (parameter.default, *get_args(parameter.annotation)):
            if isinstance(one, params.Depends):
                yield one
