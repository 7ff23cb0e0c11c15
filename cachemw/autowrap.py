"""Any application, WSGI or ASGI, cached through the environment alone: `app` is the one that CACHEMW_APP names.

    CACHEMW_APP=shop:app CACHEMW_SECONDS=60 gunicorn cachemw.autowrap:app
    CACHEMW_APP=shop:app CACHEMW_URL=redis://localhost:6379/0 uvicorn cachemw.autowrap:app

CACHEMW_APP is "module:name"; the name may have dots, and "module:make_app()" calls a factory without arguments. All
other settings are those of `cachemw.Settings`; CACHEMW_RULES says per path what is cached for how long.

CACHEMW_METRICS is "prometheus" or "opentelemetry", or both, separated by a comma: `cachemw.Metrics` of all requests are
then in the default registry of `prometheus_client`, which the application serves, or in OpenTelemetry's global meter.

Importing this module imports the application. Raises: ImproperlyConfigured, which names CACHEMW_APP or CACHEMW_METRICS.
"""

from __future__ import annotations

import inspect
import os
from collections.abc import Mapping
from functools import reduce
from importlib import import_module
from typing import Any, Final

from cachemw._values import members, refuse
from cachemw.errors import ImproperlyConfigured
from cachemw.middleware import CacheMiddleware, interface_of
from cachemw.observing import Metrics, ObservingMiddleware

__all__ = ["app", "application", "observed"]

_NAME: Final = "CACHEMW_APP"
_METRICS: Final = "CACHEMW_METRICS"
_ALLOWED: Final = "module:name, such as shop:app, or module:make_app() for a function that makes the application"


def application(environ: Mapping[str, str]) -> Any:
    """The application that CACHEMW_APP names, as it is. Raises: ImproperlyConfigured; what importing it raises."""
    place = environ.get(_NAME, "").strip()
    if not place:
        raise ImproperlyConfigured(f"{_NAME} is not set; allowed: {_ALLOWED}")
    module, _, name = place.partition(":")
    path = name.removesuffix("()")
    if not all(part.isidentifier() for part in (*module.split("."), *path.split("."))):
        raise refuse(_NAME, place, _ALLOWED)
    found = _imported(place, module)
    try:
        made = reduce(getattr, path.split("."), found)
        if path != name:
            inspect.signature(made).bind()
    except (AttributeError, TypeError, ValueError) as error:  # the last two: it takes arguments
        raise ImproperlyConfigured(f"{_NAME} is {place!r}: {error}; allowed: {_ALLOWED}") from None
    if path != name:
        made = made()  # what this raises is the application's own
    try:
        interface_of(made)
    except ImproperlyConfigured as error:
        if path == name and inspect.isfunction(made) and not inspect.signature(made).parameters:
            raise ImproperlyConfigured(f"{_NAME} is {place!r}, a function; did you mean '{place}()'?") from None
        raise ImproperlyConfigured(f"{_NAME} is {place!r}: {error} Allowed: {_ALLOWED}") from None
    return made


def _imported(place: str, module: str) -> Any:
    try:
        return import_module(module)
    except ModuleNotFoundError as error:
        if error.name is None or not f"{module}.".startswith(f"{error.name}."):
            raise  # the module is there, and lacks one that it imports itself
        raise ImproperlyConfigured(f"{_NAME} is {place!r}: there is no module {error.name!r} on the path") from None


def observed(app: Any, environ: Mapping[str, str]) -> Any:
    """The application within what CACHEMW_METRICS asks for. Raises: ImproperlyConfigured."""
    chosen = members(_METRICS, environ.get(_METRICS, "none"))
    if unknown := set(chosen) - {"prometheus", "opentelemetry"}:
        raise refuse(_METRICS, min(unknown), "prometheus, opentelemetry, or both, separated by a comma")
    if not chosen:
        return app
    metrics = Metrics()
    if "prometheus" in chosen:
        collector = metrics.prometheus()
        from prometheus_client import REGISTRY

        REGISTRY.register(collector)
    if "opentelemetry" in chosen:
        metrics.opentelemetry()
    return ObservingMiddleware(app, metrics=metrics)


app: Any = observed(CacheMiddleware(application(os.environ)), os.environ)
