"""What an application's config, and the extensions beside ours, say that concerns its cache."""

from __future__ import annotations

import os
from dataclasses import replace
from typing import Final

from flask import Flask

from cachemw.caching import log
from cachemw.rfc9111.policy import Policy

__all__ = ["BY_BABEL", "chosen_by_babel", "knowing_sessions", "mind_flask_caching"]

#: Where Flask, Flask-Login and Flask-JWT-Extended have the names of the cookies that make a session.
_SESSION_COOKIES: Final = ("SESSION_COOKIE_NAME", "REMEMBER_COOKIE_NAME", "JWT_ACCESS_COOKIE_NAME")


def knowing_sessions(policy: Policy, app: Flask) -> Policy:
    """The policy with the names that this application gave to its session's cookies."""
    names = [app.config[key] for key in _SESSION_COOKIES if app.config.get(key)]
    if not isinstance(policy, Policy):
        return policy  # for `Caching` to refuse
    if not policy.session_cookies or set(names) <= set(policy.session_cookies):
        return policy
    return replace(policy, session_cookies=tuple(dict.fromkeys((*policy.session_cookies, *names))))


#: By setting: its names in `app.config`, the last one in the environment too; and who chooses, in Flask-Babel's words.
BY_BABEL: Final = {
    "use_i18n": (("USE_I18N", "CACHEMW_USE_I18N"), "locale_selector"),
    "use_tz": (("USE_TZ", "CACHEMW_USE_TZ"), "timezone_selector"),
}


def chosen_by_babel(app: Flask) -> list[str]:
    """The settings that are on because Flask-Babel chooses for each request, and nobody has said otherwise."""
    babel = app.extensions.get("babel")
    return [
        setting
        for setting, (names, selector) in BY_BABEL.items()
        if getattr(babel, selector, None) is not None
        and app.config.keys().isdisjoint(names)
        and os.environ.keys().isdisjoint((names[-1], f"{names[-1]}_FILE"))
    ]


def mind_flask_caching(app: Flask) -> None:
    """Say that settings which are left over from Flask-Caching, unless that is at work too, name no store here."""
    if (
        "CACHE_TYPE" in app.config
        and "cache" not in app.extensions
        and os.environ.keys().isdisjoint(("CACHEMW_URL", "CACHEMW_URL_FILE"))
    ):
        log.warning(
            "CACHE_TYPE in app.config is a setting of Flask-Caching, which cachemw does not read: pages are in local "
            "memory. CACHEMW_URL names a store."
        )
