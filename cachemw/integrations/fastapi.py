"""FastAPI: the decorators for path operations, and `Depends(page(60))`.

    @app.get("/items/{item_id}")
    @cache_page(60)
    async def item(item_id: int) -> Item: ...

Response models, dependencies and the OpenAPI document do not change. Dependencies run before a stored page is looked
up, so a login check guards it; the headers and cookies that they set go to the client and are not stored. A site-wide
`CacheMiddleware` looks up before all dependencies: under it, a page for some clients only has to vary on the fields
that identify them.

`Depends(page(60))` does the same for a route, a router or the application, with or without a site-wide
`CacheMiddleware`. With `APIRouter(route_class=CachedRoute)` it takes effect when the route is made, else at the route's
first request. `await apurge(request, request.url_for("item", item_id=7))` removes a stored page.
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
from cachemw._views.conditions import short_answer, validated
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
    """Store the responses of a path operation for `timeout` seconds; see `cachemw.cache_page`.

        @app.get("/items/{item_id}")
        @cache_page(60)
        async def item(item_id: int) -> Item: ...

    It stands directly below the route. A function as `tags` gets the operation's arguments by name.
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
    """A decorator for operations, made of the one for views."""
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
    """Add names of request fields to Vary; see `cachemw.vary_on_headers`."""
    return _patching(views.vary_on_headers(*names))


def never_cache(operation: OperationT) -> OperationT:
    """Tell every cache not to store the operation's responses; see `cachemw.never_cache`."""
    return _patching(views.never_cache)(operation)


def vary_on_cookie(operation: OperationT) -> OperationT:
    """Add Cookie to Vary: each value of the Cookie field has a page of its own; see `cachemw.vary_on_cookie`."""
    return _patching(views.vary_on_cookie)(operation)


def conditional(
    *, etag: views.ETagFunction | None = None, last_modified: views.LastModifiedFunction | None = None
) -> Callable[[OperationT], OperationT]:
    """Answer 304 or 412 without calling the operation; see `cachemw.conditional`.

    The functions get the operation's arguments by name.
    """
    condition = views.conditional(etag=etag, last_modified=last_modified)

    def decorate(function: OperationT) -> OperationT:
        operation = Operation(condition.name, function)
        condition.check(function)

        async def answer(*args: Any, **kwargs: Any) -> Any:
            taken, response = operation.taken(kwargs)
            request = ASGIRequest(taken.scope)
            fields = await condition.avalidators(*args, **operation.own(kwargs))
            short = short_answer(request, fields, Response)
            return short or _validated(request, await operation.call(*args, **kwargs), response, fields)

        def answer_in_thread(*args: Any, **kwargs: Any) -> Any:
            taken, response = operation.taken(kwargs)
            request = ASGIRequest(taken.scope)
            fields = condition.validators(*args, **operation.own(kwargs))
            short = short_answer(request, fields, Response)
            return short or _validated(request, operation.call(*args, **kwargs), response, fields)

        return cast(OperationT, operation.wrapped(answer if operation.is_async else answer_in_thread))

    return decorate


def _validated(request: ASGIRequest, value: Any, response: Response, fields: Fields) -> Any:
    validated(request, value if isinstance(value, Response) else response, fields)
    return value


# -- Depends(page(60)) ------------------------------------------------------------------------------------------------


class PageDependency:
    """See `page`."""

    def __init__(self, page: Page) -> None:
        self.page = page
        setattr(self, PAGE, page)

    async def __call__(self, request: Request) -> None:
        """Tell the site-wide cache; without one, put a cache around the operation."""
        route = request.scope.get("route")
        if self.page.join(request.scope.get(EXCHANGE), (), request.path_params):
            return
        if not isinstance(route, CachedRoute) or self.page not in route.pages:
            self._take_over(route_of(request.scope).dependant)

    def _take_over(self, dependant: Any) -> None:
        """Put the page around the operation, from this request on: FastAPI reads `dependant` after all dependencies.

        A `cache_page` on the operation comes before it; of several dependencies the last one holds.
        """
        with _taking_over.lock:
            if hasattr(dependant.call, PAGE):
                return
            found = [one.call for one in dependant.dependencies if isinstance(one.call, PageDependency)]
            dependant.call = _cached((found or [self])[-1].page, dependant.call)
            request, response = PARAMETERS
            dependant.request_param_name = dependant.request_param_name or request
            dependant.response_param_name = dependant.response_param_name or response


class _TakingOver(Forkable):
    """The lock for putting a page around an operation."""

    def _reset(self) -> None:
        self.lock = threading.Lock()


_taking_over = _TakingOver()


def page(
    timeout: float, *, cache: str | BaseCache | None = None, key_prefix: str | None = None, tags: Tags = ()
) -> PageDependency:
    """A dependency that stores the response for `timeout` seconds; see `cache_page`.

        @app.get("/items/{item_id}", dependencies=[Depends(page(60))])

    A function as `tags` gets the operation's arguments; under a site-wide cache, the parameters of the path.
    """
    page = Page(timeout, cache=cache, key_prefix=key_prefix, tags=tags)
    page.name = f"Depends(page({timeout:g}))"
    return PageDependency(page)


class CachedRoute(routing.APIRoute):
    """A route whose `Depends(page(60))` takes effect when the route is made.

        router = APIRouter(route_class=CachedRoute)

    Of several such dependencies the last one holds; those in the operation's signature come last.
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
    """The dependencies in the operation's signature, in defaults or annotations."""
    for parameter in get_typed_signature(endpoint).parameters.values():
        for one in (parameter.default, *get_args(parameter.annotation)):
            if isinstance(one, params.Depends):
                yield one
