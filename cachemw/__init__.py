"""HTTP caching for any WSGI or ASGI application: Django's cache framework, and a shared cache that obeys RFC 9111."""

from importlib import import_module
from typing import TYPE_CHECKING, Any, Final

from cachemw.activation import (
    activate_language,
    activate_timezone,
    deactivate_language,
    deactivate_timezone,
    get_language,
    get_timezone,
)
from cachemw.backends.base import BaseCache
from cachemw.backends.registry import Caches, cache, caches, connect
from cachemw.caching import Caching
from cachemw.errors import (
    BackendUnavailable,
    CacheError,
    CacheKeyWarning,
    ImproperlyConfigured,
    InvalidCacheBackendError,
    InvalidCacheKey,
    SerializationError,
    UnserializableValue,
)
from cachemw.fragments import fragment, make_template_fragment_key
from cachemw.headers import (
    add_never_cache_headers,
    get_cache_key,
    get_max_age,
    has_vary_header,
    learn_cache_key,
    patch_cache_control,
    patch_response_headers,
    patch_vary_headers,
)
from cachemw.hooks import Hooks
from cachemw.memoize import cached
from cachemw.middleware import (
    CacheMiddleware,
    FetchFromCacheMiddleware,
    LocaleMiddleware,
    TimezoneMiddleware,
    UpdateCacheMiddleware,
)
from cachemw.observing import Metrics, ObservingMiddleware, page_failures
from cachemw.purging import apurge, purge
from cachemw.rfc9111.policy import Policy
from cachemw.rules import Rule, Rules
from cachemw.settings import Settings
from cachemw.views import cache_control, cache_page, conditional, never_cache, vary_on_cookie, vary_on_headers

if TYPE_CHECKING:
    from cachemw.busting import StaticFolder, StaticMiddleware, StaticVersionWarning, static_url

__version__ = "0.1.0"

__all__ = [
    "BackendUnavailable",
    "BaseCache",
    "CacheError",
    "CacheKeyWarning",
    "CacheMiddleware",
    "Caches",
    "Caching",
    "FetchFromCacheMiddleware",
    "Hooks",
    "ImproperlyConfigured",
    "InvalidCacheBackendError",
    "InvalidCacheKey",
    "LocaleMiddleware",
    "Metrics",
    "ObservingMiddleware",
    "Policy",
    "Rule",
    "Rules",
    "SerializationError",
    "Settings",
    "StaticFolder",
    "StaticMiddleware",
    "StaticVersionWarning",
    "TimezoneMiddleware",
    "UnserializableValue",
    "UpdateCacheMiddleware",
    "activate_language",
    "activate_timezone",
    "add_never_cache_headers",
    "apurge",
    "cache",
    "cache_control",
    "cache_page",
    "cached",
    "caches",
    "conditional",
    "connect",
    "deactivate_language",
    "deactivate_timezone",
    "fragment",
    "get_cache_key",
    "get_language",
    "get_max_age",
    "get_timezone",
    "has_vary_header",
    "learn_cache_key",
    "make_template_fragment_key",
    "never_cache",
    "page_failures",
    "patch_cache_control",
    "patch_response_headers",
    "patch_vary_headers",
    "purge",
    "static_url",
    "vary_on_cookie",
    "vary_on_headers",
]

#: Of a module that reads and writes static files: imported when one of them is first asked for.
_LATE: Final = frozenset({"StaticFolder", "StaticMiddleware", "StaticVersionWarning", "static_url"})


if not TYPE_CHECKING:  # to a type checker, a module with this function has every name

    def __getattr__(name: str) -> Any:
        if name == "busting" or name in _LATE:
            busting = import_module("cachemw.busting")
            return busting if name == "busting" else getattr(busting, name)
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
