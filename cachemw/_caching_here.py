"""Which site is at work here, for functions that are told of none. Nothing is imported for the question."""

from __future__ import annotations

import sys
from typing import Any

__all__ = ["site_here"]


def site_here() -> Any:
    """The state of our extension (a `FlaskSite`) in the Flask application of this context; None without one."""
    flask = sys.modules.get("flask")
    if flask is None or not flask.has_app_context():
        return None
    return flask.current_app.extensions.get("cachemw")
