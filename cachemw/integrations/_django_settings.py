"""What a Django project's settings say, as options of a middleware.

Rule 1: the project comes before the environment, the environment before Django's own defaults, which every project has.
"""

from __future__ import annotations

import os
from dataclasses import fields, replace
from typing import Any

from django.conf import settings as django_settings  # type: ignore[import-untyped]

from cachemw.backends.base import BaseCache
from cachemw.backends.registry import Caches
from cachemw.backends.registry import caches as process_caches
from cachemw.errors import InvalidCacheBackendError
from cachemw.settings import Settings

__all__ = ["options"]


def options() -> dict[str, Any]:
    """What the project's settings say, for a middleware."""
    settings = Settings.from_mapping(_given(), base=Settings.from_environ())
    policy = replace(settings.policy(), revalidate=False, store_partial=False)
    if policy.session_cookies:
        names = (*policy.session_cookies, django_settings.SESSION_COOKIE_NAME)
        policy = replace(policy, session_cookies=tuple(dict.fromkeys(names)))
    return {"cache": _store(settings), "policy": policy, "seconds": settings.lifetime(), "settings": settings}


def _given() -> dict[str, Any]:
    """What the project says, and Django's own defaults for what the environment does not say either."""
    told = {name.removesuffix("_FILE") for name in os.environ if name.startswith("CACHEMW_")}
    names = [one.metadata["names"] for one in fields(Settings) if one.metadata["names"][0] in told]
    if any(name.startswith("CACHEMW_URL") for name in told):
        names.append(("CACHES",))
    left_out = {name for same in names for name in same if not django_settings.is_overridden(name)}
    ours = {name for one in fields(Settings) for name in one.metadata["names"]}
    return {  # no other is even read: of some, Django warns whoever reads them that they are going away
        name: getattr(django_settings, name)
        for name in dir(django_settings)
        if name.isupper() and (name in ours or name.startswith("CACHE")) and name not in left_out
    }


def _store(settings: Settings) -> BaseCache:
    caches = process_caches if settings.caches is None else Caches(settings)
    try:
        return caches[settings.alias]
    except InvalidCacheBackendError as error:
        raise InvalidCacheBackendError(
            f"CACHE_MIDDLEWARE_ALIAS is {settings.alias!r}, which cannot hold pages: {str(error).rstrip('.')}. "
            "To keep it for everything else, add a store of cachemw's to CACHES, and name it in CACHE_MIDDLEWARE_ALIAS."
        ) from error
