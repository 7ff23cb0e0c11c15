"""Which site is at work here, for functions that are told of none. Nothing is imported for the question."""

from __future__ import annotations

import inspect
import sys
from collections.abc import Callable
from typing import Any

__all__ = ["is_view_here", "project_of", "site_here"]


def site_here() -> Any:
    """The state of our extension (a `FlaskSite`) in the Flask application of this context; None without one."""
    flask = sys.modules.get("flask")
    if flask is None or not flask.has_app_context():
        return None
    return flask.current_app.extensions.get("cachemw")


def project_of(request: Any) -> Any:
    """What our integration tells of a request of a Django project that has it (a `Project`); None of any other."""
    integration = sys.modules.get("cachemw.integrations.django")
    return None if integration is None else integration.project_of(request)


def is_view_here(function: Callable[..., Any]) -> bool:
    """Is this function, below its decorators, the view that answers the request of Flask or Quart of this context?"""
    for name in ("flask", "quart"):
        framework = sys.modules.get(name)
        if framework is not None and framework.has_request_context():
            view = framework.current_app.view_functions.get(framework.request.endpoint)
            return view is not None and inspect.unwrap(view) is function
    return False
