"""The middlewares under one name for both interfaces: the application's own signature says which of them it speaks."""

from __future__ import annotations

import inspect
from typing import Any, Literal

from cachemw import asgi, locale, wsgi
from cachemw.errors import ImproperlyConfigured

__all__ = [
    "CacheMiddleware",
    "FetchFromCacheMiddleware",
    "LocaleMiddleware",
    "TimezoneMiddleware",
    "UpdateCacheMiddleware",
    "interface_of",
]


def interface_of(app: Any) -> Literal["asgi", "wsgi"]:
    """Which interface an application speaks: a coroutine function, or a callable of three arguments, speaks ASGI.

    Raises: ImproperlyConfigured if it is no application of either kind.
    """
    called = app if inspect.isroutine(app) else getattr(app, "__call__", None)  # noqa: B004  to look at it
    if inspect.iscoroutinefunction(inspect.unwrap(app)) or inspect.iscoroutinefunction(called):
        return "asgi"
    if callable(app) and not inspect.isclass(app):
        for beneath in (True, False):  # what a decorator wraps, then what it has made of that (werkzeug's responders)
            if _takes(app, 2, beneath):
                return "wsgi"
            if _takes(app, 3, beneath):
                return "asgi"
    raise ImproperlyConfigured(
        f"{app!r} is no WSGI application (environ, start_response) and no ASGI application (scope, receive, send). "
        "If it is one after all, take the middleware from cachemw.wsgi or cachemw.asgi."
    )


def _takes(app: Any, count: int, beneath: bool) -> bool:
    try:
        inspect.signature(app, follow_wrapped=beneath).bind(*[None] * count)
    except TypeError:
        return False
    except ValueError:  # a builtin without a signature
        return count == 2
    return True


class _Either:
    """A name that stands for a class of `cachemw.wsgi` and one of `cachemw.asgi`; calling it makes one of them."""

    def __new__(cls, app: Any, **options: Any) -> Any:
        chosen = cls._asgi if interface_of(app) == "asgi" else cls._wsgi
        return chosen(app, **options)

    _wsgi: Any
    _asgi: Any


class CacheMiddleware(_Either):
    """Serve a WSGI or ASGI application's pages from a cache.

        app = CacheMiddleware(app, cache="redis://localhost:6379/0", seconds=60)

    cache       an alias, a URL, or a store; left out: the settings' alias
    policy      what to do where the rules of HTTP leave it open; left out: the settings'
    seconds     lifetime where a response states none; left out: the policy's, then the settings' (600)
    key_prefix  a part of every key; left out: the settings'
    rules       a table of `Rule`; left out: the settings'
    hooks       a `Hooks`, around the cache
    settings    a `Settings`, or a mapping in Django's shape (Flask's `app.config`); left out: the environment's

    Raises: ImproperlyConfigured, before the first request, for a wrong setting, for an async hook around a WSGI
    application, and if `app` speaks neither interface.
    """

    _wsgi, _asgi = wsgi.CacheMiddleware, asgi.CacheMiddleware


class UpdateCacheMiddleware(_Either):
    """The outer half of the cache, around the middlewares that change what a page depends on.

    Options and errors: those of `CacheMiddleware`; both halves have to be told the same.
    """

    _wsgi, _asgi = wsgi.UpdateCacheMiddleware, asgi.UpdateCacheMiddleware


class FetchFromCacheMiddleware(_Either):
    """The inner half of the cache, inside the middlewares that change what a page depends on.

    Options and errors: those of `CacheMiddleware`; both halves have to be told the same.
    """

    _wsgi, _asgi = wsgi.FetchFromCacheMiddleware, asgi.FetchFromCacheMiddleware


class LocaleMiddleware(_Either):
    """Choose the language of each request, between the two halves of the cache.

    Options: see `cachemw.locale.WSGILocaleMiddleware`. Raises: ImproperlyConfigured, as that does, or if `app` speaks
    neither interface.
    """

    _wsgi, _asgi = locale.WSGILocaleMiddleware, locale.ASGILocaleMiddleware


class TimezoneMiddleware(_Either):
    """Choose the time zone of each request, between the two halves of the cache.

    Options: see `cachemw.locale.WSGITimezoneMiddleware`. Raises: ImproperlyConfigured, as that does, or if `app` speaks
    neither interface.
    """

    _wsgi, _asgi = locale.WSGITimezoneMiddleware, locale.ASGITimezoneMiddleware
