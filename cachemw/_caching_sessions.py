"""The names that a Flask or Quart application gives to the cookies by which it knows its visitors."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any, Final

from cachemw.rfc9111.policy import Policy

__all__ = ["config_of", "knowing_sessions"]

#: Where Flask, Flask-Login, Flask-JWT-Extended and Quart-Auth have them in an application's config.
_NAMES: Final = ("SESSION_COOKIE_NAME", "REMEMBER_COOKIE_NAME", "JWT_ACCESS_COOKIE_NAME", "QUART_AUTH_COOKIE_NAME")


def config_of(app: Any) -> Mapping[str, Any]:
    """The config of an application, given as such or as its `wsgi_app` or `asgi_app`; {} of any other."""
    config = getattr(getattr(app, "__self__", app), "config", None)
    return config if isinstance(config, Mapping) else {}


def knowing_sessions(policy: Policy, config: Mapping[str, Any]) -> Policy:
    """The policy, with these names among its session cookies; the same one if it knows them, or has no such cookies."""
    names = [config[key] for key in _NAMES if isinstance(config.get(key), str) and config[key]]
    if not policy.session_cookies or set(names) <= set(policy.session_cookies):
        return policy
    return replace(policy, session_cookies=tuple(dict.fromkeys((*policy.session_cookies, *names))))
