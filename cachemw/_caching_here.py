"""Which site is at work here, for functions that are told of none. Nothing is imported for the question."""

from __future__ import annotations

import sys
from typing import Any

__all__ = ["project_of", "site_here"]


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
