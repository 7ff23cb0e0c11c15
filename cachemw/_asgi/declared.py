"""What a route of FastAPI or Litestar says that it reads: the parameters of its function, and of what that depends on.

Rule: neither is imported. What does not look like their routes declares nothing.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dis import get_instructions
from functools import lru_cache
from types import CodeType
from typing import Any, Final

from cachemw.rfc9111.syntax import is_token

__all__ = ["declared", "is_handed_on"]

#: Fields that make no other page, or that have rules of their own in every cache.
_BESIDES: Final = frozenset(
    {
        "authorization",
        "cache-control",
        "content-length",
        "content-type",
        "host",
        "if-match",
        "if-modified-since",
        "if-none-match",
        "if-range",
        "if-unmodified-since",
        "pragma",
        "range",
        "traceparent",
        "tracestate",
        "x-correlation-id",
        "x-request-id",
    }
)


#: What of a request says where it goes, not who sends it.
_IMPERSONAL: Final = frozenset({"app", "base_url", "method", "path_params", "query_params", "url", "url_for"})


def declared(scope: Mapping[str, Any]) -> tuple[str, ...]:
    """The request fields that the route in the scope depends on, in lower case, each once."""
    dependant = _dependant(scope)
    handler: Any = scope.get("route_handler")
    if hasattr(dependant, "header_params"):
        fields = _fields(dependant)
    elif hasattr(handler, "resolve_layered_parameters"):
        fields = _fields_of_litestar(handler, handler.resolve_dependencies())
    else:
        return ()
    names = dict.fromkeys([name.lower() for name in fields])
    return tuple([name for name in names if name not in _BESIDES and is_token(name)])


def is_handed_on(scope: Mapping[str, Any]) -> bool:
    """Does something that FastAPI's operation depends on take the request itself, whose cookies it may then read?"""
    return _is_handed_on(_dependant(scope))


def _dependant(scope: Mapping[str, Any]) -> Any:
    here = scope.get("fastapi")
    included = here.get("effective_route_context") if isinstance(here, Mapping) else None
    return getattr(included or scope.get("route"), "dependant", None)


def _is_handed_on(dependant: Any) -> bool:
    return any(
        (_asks_for_more(one) or _is_handed_on(one))
        and not type(one.call).__module__.startswith(("fastapi.security.", "cachemw."))  # which say what they read
        for one in getattr(dependant, "dependencies", ())
    )


def _asks_for_more(dependant: Any) -> bool:
    """Does it take the request, and may ask that for more than `_IMPERSONAL`? For `request.app.state` it does not."""
    code = getattr(dependant.call, "__code__", None)
    names = (dependant.request_param_name, dependant.http_connection_param_name)
    return any(name and not (isinstance(code, CodeType) and _is_impersonal(code, name)) for name in names)


@lru_cache(1024)
def _is_impersonal(code: CodeType, name: str) -> bool:
    """Is all that a function does with this parameter to take what is `_IMPERSONAL` of it?"""
    if name not in code.co_varnames[: code.co_argcount + code.co_kwonlyargcount]:  # it takes what there is: a decorator
        return False
    loaded = False
    for instruction in get_instructions(code):
        given = instruction.argval
        if loaded and not (instruction.opname in ("LOAD_ATTR", "LOAD_METHOD") and given in _IMPERSONAL):
            return False
        names = given if type(given) is tuple else (given,)  # Python 3.13 loads two by one instruction
        loaded = instruction.opname.startswith("LOAD_FAST") and names[-1] == name
        if names.count(name) > loaded:  # bound anew, or shared with a function within
            return False
    return True


def _fields_of_litestar(handler: Any, dependencies: Mapping[str, Any]) -> Iterator[str]:
    above = handler.resolve_layered_parameters()  # by controllers, routers and the application
    yield from _fields_of_parameters(above, {})
    yield from _fields_of_parameters(handler.parsed_fn_signature.parameters, dependencies)


def _fields_of_parameters(parameters: Mapping[str, Any], dependencies: Mapping[str, Any]) -> Iterator[str]:
    for name, parameter in parameters.items():
        definition = parameter.kwarg_definition
        place = getattr(definition, "param_type", None)  # older versions have the two below alone
        if place == "header" or getattr(definition, "header", None):
            yield getattr(definition, "header", None) or definition.name or name
        elif place == "cookie" or getattr(definition, "cookie", None):
            yield "cookie"
        elif name in dependencies:
            rest = {other: one for other, one in dependencies.items() if other != name}
            yield from _fields_of_parameters(dependencies[name].parsed_fn_signature.parameters, rest)


def _fields(dependant: Any) -> Iterator[str]:
    for field in dependant.header_params:
        yield from _names(field)
    if dependant.cookie_params:
        yield "cookie"
    scheme: Any = getattr(dependant.call, "model", None)  # of the APIKeyHeader and APIKeyCookie of `fastapi.security`
    place = getattr(getattr(scheme, "in_", None), "value", None)
    if place == "header":
        yield scheme.name
    elif place == "cookie":
        yield "cookie"
    for dependency in dependant.dependencies:
        yield from _fields(dependency)


def _names(field: Any) -> Iterator[str]:
    """A header, or those in a model of headers."""
    members = getattr(field.field_info.annotation, "model_fields", None)
    if members is None:
        yield field.alias
        return
    for name, member in members.items():
        yield member.alias or name.replace("_", "-")
