"""FastAPI's path operations: how a decorator gets the request, and how FastAPI makes a response of a value.

Rule: FastAPI itself makes the response, by a route that we make of its class; its code is not repeated here.
"""

from __future__ import annotations

import functools
import inspect
from collections.abc import Awaitable, Callable, Mapping
from typing import Any, Final

from fastapi import Request, Response, WebSocket, routing
from fastapi.dependencies.utils import get_typed_signature

from cachemw._views.kinds import describe
from cachemw.calling import is_async

__all__ = ["PARAMETERS", "Given", "Operation", "response_of", "route_of"]

#: Parameters that FastAPI fills in for us; they are not in the OpenAPI document.
PARAMETERS: Final[Mapping[str, type]] = {"cachemw_request": Request, "cachemw_response": Response}


class Operation:
    """A path operation whose decorator gets the request, and the response that dependencies change.

    FastAPI fills in one parameter of each kind: the operation's own one is used if there is one, else one is added.
    """

    def __init__(self, name: str, operation: Any) -> None:
        if not callable(operation) or isinstance(operation, type):
            raise TypeError(f"{name} decorates a path operation, which is a function; got {operation!r}.")
        if inspect.isgeneratorfunction(operation) or inspect.isasyncgenfunction(operation):
            raise TypeError(f"{name}: {describe(operation)} is a generator; return a StreamingResponse from it.")
        self.call: Callable[..., Any] = operation
        self.is_async = is_async(operation)
        self._signature = inspect.signature(operation)
        typed = get_typed_signature(operation).parameters
        if _parameter_of(WebSocket, typed):
            raise TypeError(f"{name}: {describe(operation)} answers a WebSocket, which is not a page.")
        self._decorator = name
        self._names = [_parameter_of(kind, typed) or name for name, kind in PARAMETERS.items()]
        self._added = [name for name in self._names if name not in typed]

    def taken(self, kwargs: dict[str, Any]) -> tuple[Request, Response]:
        """The request and the response; they are removed from `kwargs` if the operation does not have them itself.

        Raises: TypeError if the caller is not FastAPI, such as a test of the function alone.
        """
        if not kwargs.keys() >= set(self._names):
            raise TypeError(
                f"{self._decorator}: {describe(self.call)} was not called by FastAPI, which hands it the request. Ask "
                "the application, or call what was decorated: its __wrapped__."
            )
        request, response = (kwargs[name] for name in self._names)
        for name in self._added:
            del kwargs[name]
        return request, response

    def own(self, kwargs: Mapping[str, Any]) -> dict[str, Any]:
        """The operation's own arguments, without those that decorators below this one have added."""
        return {name: value for name, value in kwargs.items() if name not in PARAMETERS}

    def wrapped(self, wrapper: Any) -> Any:
        """The wrapper with the operation's name, and its signature with the two parameters."""
        wrapper = functools.wraps(self.call)(wrapper)
        parameters = dict(self._signature.parameters)
        rest = parameters.popitem() if _takes_any(parameters) else None
        for name in self._added:
            parameters[name] = inspect.Parameter(name, inspect.Parameter.KEYWORD_ONLY, annotation=PARAMETERS[name])
        parameters.update([rest] if rest else [])
        wrapper.__signature__ = self._signature.replace(parameters=list(parameters.values()))
        return wrapper


def _parameter_of(kind: type, parameters: Mapping[str, inspect.Parameter]) -> str | None:
    """The last parameter of this kind, which is the one that FastAPI fills in."""
    found = None
    for name, parameter in parameters.items():
        if isinstance(parameter.annotation, type) and issubclass(parameter.annotation, kind):
            found = name
    return found


def _takes_any(parameters: Mapping[str, inspect.Parameter]) -> bool:
    return any(one.kind is inspect.Parameter.VAR_KEYWORD for one in parameters.values())


# -- its value --------------------------------------------------------------------------------------------------------


class Given:
    """The response that FastAPI gives dependencies and operation to change; it tells apart what each of them set.

    What dependencies set is for this client, and never stored: at a hit they run and set it again.
    """

    def __init__(self, response: Response) -> None:
        self._response = response
        self._before = list(response.headers.raw)

    def taken(self) -> tuple[int | None, list[tuple[bytes, bytes]]]:
        """The status and the fields that the operation itself has set."""
        raw, before = list(self._response.headers.raw), self._before
        if raw[: len(before)] == before:
            return self._response.status_code, raw[len(before) :]
        self._before = []  # the operation has changed what a dependency had set
        return self._response.status_code, raw

    def merged(self, response: Response) -> Response:
        """The response with the fields that the dependencies have set, as FastAPI does for plain values."""
        response.headers.raw.extend(self._before)
        return response


_VALUE: Final = "cachemw.value"
_GIVER: Final = "cachemw_giver"  # on the route, which cannot be hashed


async def response_of(
    value: Any, request: Request, given: tuple[int | None, list[tuple[bytes, bytes]]], function: Any
) -> Response:
    """The response that FastAPI makes of an operation's value, by the handler of a route that only returns it."""
    if isinstance(value, Response):
        return value
    route = route_of(request.scope)
    handler: Callable[[Request], Awaitable[Response]] | None = getattr(route, _GIVER, None)
    if handler is None:
        handler = _giver(route, function)
        setattr(route, _GIVER, handler)
    request.scope[_VALUE] = value, given
    try:
        return await handler(request)
    finally:
        del request.scope[_VALUE]


def route_of(scope: Any) -> Any:
    """The route as `include_router` has included it, which may change its response class."""
    included = getattr(routing, "_get_scope_effective_route_context", None)
    return (included and included(scope)) or scope["route"]


#: The attributes of a route, and parameters of `APIRoute`, by which a value becomes a response.
_SERIALISING: Final = (
    "response_class",
    "response_model",
    "response_model_by_alias",
    "response_model_exclude",
    "response_model_exclude_defaults",
    "response_model_exclude_none",
    "response_model_exclude_unset",
    "response_model_include",
    "status_code",
)


def _giver(route: Any, function: Any) -> Callable[[Request], Awaitable[Response]]:
    """The handler of a route that serialises as the given one, without dependencies and without a body."""

    async def give(request: Request, response: Response) -> Any:
        value, (status, fields) = request.scope[_VALUE]
        response.status_code = status
        response.headers.raw.extend(fields)
        return value

    signature = inspect.signature(give, eval_str=True)
    give = functools.wraps(function)(give)  # errors about the value name the operation
    give.__signature__ = signature  # type: ignore[attr-defined]
    options = {name: getattr(route, name) for name in _SERIALISING}
    return routing.APIRoute(route.path, give, **options).get_route_handler()
