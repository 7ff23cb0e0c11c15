"""What the config of an application, and its other extensions, mean for its cache."""

from __future__ import annotations

import os
from typing import Final

from flask import Flask

from cachemw.caching import log

__all__ = ["BY_BABEL", "chosen_by_babel", "mind_flask_caching"]

#: By setting: its names in `app.config` (the last one in the environment, too), and the selector of Flask-Babel.
BY_BABEL: Final = {
    "use_i18n": (("USE_I18N", "CACHEMW_USE_I18N"), "locale_selector"),
    "use_tz": (("USE_TZ", "CACHEMW_USE_TZ"), "timezone_selector"),
}


def chosen_by_babel(app: Flask) -> list[str]:
    """The settings that are on because Flask-Babel chooses for each request, and config and environment are silent."""
    babel = app.extensions.get("babel")
    return [
        setting
        for setting, (names, selector) in BY_BABEL.items()
        if getattr(babel, selector, None) is not None
        and app.config.keys().isdisjoint(names)
        and os.environ.keys().isdisjoint((names[-1], f"{names[-1]}_FILE"))
    ]


def mind_flask_caching(app: Flask) -> None:
    """Warn that CACHE_TYPE, left over from Flask-Caching, has no effect; not if Flask-Caching is in use, too."""
    if (
        "CACHE_TYPE" in app.config
        and "cache" not in app.extensions
        and os.environ.keys().isdisjoint(("CACHEMW_URL", "CACHEMW_URL_FILE"))
    ):
        log.warning(
            "CACHE_TYPE in app.config is a setting of Flask-Caching, which cachemw does not read: pages are in local "
            "memory. CACHEMW_URL names a store."
        )
