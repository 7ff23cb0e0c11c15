"""The middlewares, one name for both interfaces: the application's signature tells whether it is WSGI or ASGI."""

from __future__ import annotations

import inspect
from collections.abc import Awaitable, Callable, Iterable, Mapping
from datetime import tzinfo
from types import EllipsisType
from typing import Any, Literal, TypedDict, Unpack, overload

from cachemw import asgi, locale, wsgi
from cachemw.caching import Options, showing_options_of
from cachemw.errors import ImproperlyConfigured
from cachemw.settings import Settings

__all__ = [
    "ASGI",
    "WSGI",
    "CacheMiddleware",
    "FetchFromCacheMiddleware",
    "LocaleMiddleware",
    "LocaleOptions",
    "TimezoneMiddleware",
    "TimezoneOptions",
    "UpdateCacheMiddleware",
    "interface_of",
]


def interface_of(app: Any) -> Literal["asgi", "wsgi"]:
    """The interface of an application: "asgi" for a coroutine function or three arguments, "wsgi" for two.

    Where more are optional, the names of PEP 3333 tell: Zope's application takes some that servers do not give.

    Raises: ImproperlyConfigured if it is no application, and if its signature allows both: a wrong guess would fail at
    the first request.
    """
    called = app if inspect.isroutine(app) else getattr(app, "__call__", None)  # noqa: B004  to look at it
    if inspect.iscoroutinefunction(inspect.unwrap(app)) or inspect.iscoroutinefunction(called):
        return "asgi"
    numbers = [] if not callable(app) or inspect.isclass(app) else [_numbers(app, beneath) for beneath in (True, False)]
    for taken in numbers:  # the wrapped function first, then the wrapper
        if len(taken) == 1:
            return "wsgi" if 2 in taken else "asgi"
    if any(numbers) and tuple(inspect.signature(app).parameters)[:2] == ("environ", "start_response"):
        return "wsgi"
    if any(numbers) and (not numbers[0] or getattr(app, "__module__", None) == "wsgiref.validate"):
        return "wsgi"  # takes any number: one of werkzeug's responders (around a function of one), or the validator
    advice = "take the middleware from cachemw.wsgi or cachemw.asgi."
    if any(numbers):
        raise ImproperlyConfigured(
            f"{app!r} may be a WSGI application (environ, start_response) and an ASGI application (scope, receive, "
            f"send): by its signature it takes the arguments of both; {advice}"
        )
    if getattr(app, "__module__", "").startswith("django."):
        advice = "in Django's MIDDLEWARE, name those of cachemw.integrations.django."
    else:
        advice = f"If it is one after all, {advice}"
    raise ImproperlyConfigured(
        f"{app!r} is neither a WSGI application (environ, start_response) nor an ASGI application (scope, receive, "
        f"send). {advice[0].upper()}{advice[1:]}"
    )


def _numbers(app: Any, beneath: bool) -> set[int]:
    """The numbers of arguments, of 2 and 3, with which it can be called."""
    return {count for count in (2, 3) if _takes(app, count, beneath)}


def _takes(app: Any, count: int, beneath: bool) -> bool:
    try:
        inspect.signature(app, follow_wrapped=beneath).bind(*[None] * count)
    except TypeError:
        return False
    except ValueError:  # a builtin without a signature
        return count == 2
    return True


#: Frameworks annotate their applications too differently to require more than the number of arguments.
WSGI = Callable[[Any, Any], Any]
ASGI = Callable[[Any, Any, Any], Awaitable[Any]]


class LocaleOptions(TypedDict, total=False):
    """The options of `LocaleMiddleware`."""

    languages: Iterable[str | tuple[str, str]] | None
    default: str | None
    cookie: str | EllipsisType | None
    path_prefix: Literal["keep", "strip"] | None
    settings: Settings | Mapping[str, Any] | None


class TimezoneOptions(TypedDict, total=False):
    """The options of `TimezoneMiddleware`; around an ASGI application `choose` may be a coroutine function."""

    choose: Callable[[Any], str | tzinfo | Awaitable[str | tzinfo | None] | None] | None
    cookie: str | None
    default: str | None
    settings: Settings | Mapping[str, Any] | None


def _around(app: Any, around_asgi: type, around_wsgi: type, options: Mapping[str, Any]) -> Any:
    return (around_asgi if interface_of(app) == "asgi" else around_wsgi)(app, **options)


@overload
def CacheMiddleware(app: ASGI, **options: Unpack[Options]) -> asgi.CacheMiddleware: ...
@overload
def CacheMiddleware(app: WSGI, **options: Unpack[Options]) -> wsgi.CacheMiddleware: ...
@showing_options_of(wsgi.CacheMiddleware)
def CacheMiddleware(app: Any, **options: Any) -> Any:
    """Serve the pages of a WSGI or ASGI application from a cache.

        app = CacheMiddleware(app, cache="redis://localhost:6379/0", seconds=60)

    cache       an alias, a URL, or a store; left out: the alias in the settings
    policy      a `Policy`; left out: the settings' own
    seconds     how long a page is fresh if its response does not say, in seconds; left out: the `seconds` of `policy`,
                of the settings, or of their policy, the first that is set, else 600
    key_prefix  a string that is part of every key; left out: the settings' own
    rules       a list of `Rule`; left out: the settings' own
    hooks       a `Hooks`; its functions run around the cache
    settings    a `Settings`, or a mapping in Django's shape (such as Flask's `app.config`); left out: read from the
                environment

    Returns: a `cachemw.wsgi.CacheMiddleware` or a `cachemw.asgi.CacheMiddleware`, an application of the same interface.
    `purge` and `page_failures` take it as `caching`.

    Raises: ImproperlyConfigured for a wrong setting, for an async hook around a WSGI application, and if the signature
    of `app` fits neither interface, or both; TypeError for an unknown option.
    """
    return _around(app, asgi.CacheMiddleware, wsgi.CacheMiddleware, options)


@overload
def UpdateCacheMiddleware(app: ASGI, **options: Unpack[Options]) -> asgi.UpdateCacheMiddleware: ...
@overload
def UpdateCacheMiddleware(app: WSGI, **options: Unpack[Options]) -> wsgi.UpdateCacheMiddleware: ...
@showing_options_of(wsgi.UpdateCacheMiddleware)
def UpdateCacheMiddleware(app: Any, **options: Any) -> Any:
    """The outer half of the cache: it stores pages, after all middlewares inside of it have changed them.

        app = UpdateCacheMiddleware(SessionMiddleware(FetchFromCacheMiddleware(app)))

    Options, returns and errors: those of `CacheMiddleware`. The options given here hold for both halves.
    """
    return _around(app, asgi.UpdateCacheMiddleware, wsgi.UpdateCacheMiddleware, options)


@overload
def FetchFromCacheMiddleware(app: ASGI, **options: Unpack[Options]) -> asgi.FetchFromCacheMiddleware: ...
@overload
def FetchFromCacheMiddleware(app: WSGI, **options: Unpack[Options]) -> wsgi.FetchFromCacheMiddleware: ...
@showing_options_of(wsgi.FetchFromCacheMiddleware)
def FetchFromCacheMiddleware(app: Any, **options: Any) -> Any:
    """The inner half of the cache: it answers from the cache, after all middlewares around it have seen the request.

    It stands inside of an `UpdateCacheMiddleware`; see there. Give it no options, or the same as the outer half; only
    the `hooks` may differ. Raises: as `CacheMiddleware`; ImproperlyConfigured at the first request if another option is
    given than to the outer half.
    """
    return _around(app, asgi.FetchFromCacheMiddleware, wsgi.FetchFromCacheMiddleware, options)


@overload
def LocaleMiddleware(app: ASGI, **options: Unpack[LocaleOptions]) -> locale.ASGILocaleMiddleware: ...
@overload
def LocaleMiddleware(app: WSGI, **options: Unpack[LocaleOptions]) -> locale.WSGILocaleMiddleware: ...
@showing_options_of(locale.WSGILocaleMiddleware)
def LocaleMiddleware(app: Any, **options: Any) -> Any:
    """Choose the language of each request; it stands between the two halves of the cache.

    Options: see `cachemw.locale.WSGILocaleMiddleware`. Raises: ImproperlyConfigured as that does, and as
    `CacheMiddleware` does for `app`.
    """
    return _around(app, locale.ASGILocaleMiddleware, locale.WSGILocaleMiddleware, options)


@overload
def TimezoneMiddleware(app: ASGI, **options: Unpack[TimezoneOptions]) -> locale.ASGITimezoneMiddleware: ...
@overload
def TimezoneMiddleware(app: WSGI, **options: Unpack[TimezoneOptions]) -> locale.WSGITimezoneMiddleware: ...
@showing_options_of(locale.WSGITimezoneMiddleware)
def TimezoneMiddleware(app: Any, **options: Any) -> Any:
    """Choose the time zone of each request; it stands between the two halves of the cache.

    Options: see `cachemw.locale.WSGITimezoneMiddleware`. Raises: ImproperlyConfigured as that does, and as
    `CacheMiddleware` does for `app`.
    """
    return _around(app, locale.ASGITimezoneMiddleware, locale.WSGITimezoneMiddleware, options)
