"""Django's header helpers, for the responses of any framework.

Every function takes a response with `.headers`, or the headers themselves: those of werkzeug, Starlette or Django, a
list of pairs (of bytes too, as in ASGI), or any mapping. The case of names does not matter.

Rule 1: headers that an application has written never raise an error, however wrong they are. The caller's arguments are
        checked, and a wrong one is an error.
Rule 2: directives are read by the cache's own parser, never by substring, and written as RFC 9111 §5.2 says.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Mapping
from difflib import get_close_matches
from typing import TYPE_CHECKING, Any, Final, TypedDict, Unpack

from cachemw._caching_here import site_here
from cachemw.rfc9111.fields import (
    CacheControl,
    dump_cache_control,
    format_date,
    is_token,
    merge_vary,
    parse_cache_control,
    parse_delta_seconds,
    parse_list,
)
from cachemw.settings import Settings

if TYPE_CHECKING:
    from cachemw.backends.base import BaseCache

__all__ = [
    "Directives",
    "RawFields",
    "add_never_cache_headers",
    "check_directives",
    "get_cache_key",
    "get_max_age",
    "has_vary_header",
    "learn_cache_key",
    "lines_of",
    "patch_cache_control",
    "patch_response_headers",
    "patch_vary_headers",
]


class Directives(TypedDict, total=False):
    """The response directives of the IANA registry of cache directives, as keywords.

    False removes a directive, None leaves it as it is. Seconds are whole numbers, 0 or more.
    """

    immutable: bool | None  # RFC 8246
    max_age: int | bool | None  # seconds, RFC 9111 §5.2.2.1
    must_revalidate: bool | None  # §5.2.2.2
    must_understand: bool | None  # §5.2.2.3
    no_cache: bool | str | Iterable[str] | None  # True, or the names of fields, §5.2.2.4
    no_store: bool | None  # §5.2.2.5
    no_transform: bool | None  # §5.2.2.6
    private: bool | str | Iterable[str] | None  # True, or the names of fields, §5.2.2.7
    proxy_revalidate: bool | None  # §5.2.2.8
    public: bool | None  # §5.2.2.9
    s_maxage: int | bool | None  # seconds, §5.2.2.10
    stale_if_error: int | bool | None  # seconds, RFC 5861 §4
    stale_while_revalidate: int | bool | None  # seconds, RFC 5861 §3


def patch_cache_control(
    headers: Any, *, extensions: Mapping[str, str | int | bool] | None = None, **directives: Unpack[Directives]
) -> None:
    """Add directives to the Cache-Control field; its other directives stay.

        patch_cache_control(response, max_age=60, stale_while_revalidate=30)

    headers     a response, or its headers
    directives  keywords, see `Directives`; False removes a directive, None leaves it as it is
    extensions  directives outside of the IANA registry, by their names in the field: {"edge-ttl": 60}

    `public` and `private` replace each other. Of two values of `max-age` the smaller one stays. Names of fields are
    added to those that `no-cache` and `private` have; without names these two mean the whole response, which stays so.
    Any other directive gets the new value.

    Raises: TypeError for an unknown directive and for a value of a wrong type, ValueError for a value out of range.
    """
    checked = check_directives(directives, extensions)
    present = parse_cache_control(lines_of(headers, "Cache-Control"))
    arguments: dict[str, list[str | None]] = {}
    for name, argument in present.directives:
        arguments.setdefault(name, []).append(argument)
    for name, value in checked:
        _apply(arguments, name, value)
    patched = CacheControl((name, argument) for name, given in arguments.items() for argument in given)
    _set(headers, "Cache-Control", dump_cache_control(patched))


def _apply(arguments: dict[str, list[str | None]], name: str, value: str | tuple[str, ...] | bool) -> None:
    if value is False:
        arguments.pop(name, None)
        return
    present = CacheControl((name, argument) for argument in arguments.get(name, ()))
    if isinstance(value, tuple):
        if name in present and not present.field_names(name):
            return  # it means the whole response already
        names = {field.lower(): field for argument in arguments.get(name, ()) for field in parse_list([argument or ""])}
        names |= {field.lower(): field for field in value if field.lower() not in names}
        arguments[name] = [", ".join(names.values())]
        return
    if name == "max-age":
        value = str(min([int(value), *_seconds(arguments.get(name, ()))]))
    elif name == "private":
        arguments.pop("public", None)
    elif name == "public" and None in arguments.get("private", ()):
        del arguments["private"]
    arguments[name] = [None if value is True else value]


def _seconds(arguments: Iterable[str | None]) -> list[int]:
    found = (parse_delta_seconds(argument) for argument in arguments if argument is not None)
    return [seconds for seconds in found if seconds is not None]


def get_max_age(headers: Any) -> int | None:
    """`max-age` of Cache-Control in seconds, the smallest of several; None if there is no valid one."""
    present = parse_cache_control(lines_of(headers, "Cache-Control"))
    return min(_seconds(argument for name, argument in present.directives if name == "max-age"), default=None)


def patch_response_headers(headers: Any, cache_timeout: float | None = None, *, now: float | None = None) -> None:
    """Tell caches to store the response for `cache_timeout` seconds, by Expires and `max-age`.

        patch_response_headers(response, 60)

    headers        a response, or its headers
    cache_timeout  seconds, a negative number counts as 0; None: the `seconds` of the current Flask application, if it
                   has the extension, else of the environment
    now            seconds since the epoch, from which Expires is counted; None: the current time

    An Expires that is there stays, and so does a smaller `max-age`.
    """
    if cache_timeout is None:
        site = site_here()
        cache_timeout = Settings.from_environ().lifetime() if site is None else site.caching.seconds
    timeout = max(0, int(cache_timeout))
    if not lines_of(headers, "Expires"):
        _set(headers, "Expires", format_date((time.time() if now is None else now) + timeout))
    patch_cache_control(headers, max_age=timeout)


def add_never_cache_headers(headers: Any, *, now: float | None = None) -> None:
    """Tell every cache not to store the response: the browser's, those on the way, and this one.

    A response that has CDN-Cache-Control or Surrogate-Control gets `no-store` there, too: some caches read these fields
    and not Cache-Control (RFC 9213 §2.2). `now`: see `patch_response_headers`.
    """
    patch_response_headers(headers, 0, now=now)
    patch_cache_control(headers, no_cache=True, no_store=True, must_revalidate=True, private=True)
    for targeted in ("CDN-Cache-Control", "Surrogate-Control"):
        if lines_of(headers, targeted):
            _set(headers, targeted, "no-store")


# -- Vary ---------------------------------------------------------------------------------------------------------


def patch_vary_headers(headers: Any, names: Iterable[str]) -> None:
    """Add names of request fields to Vary, unless it has them already, or has "*".

        patch_vary_headers(response, ["Accept-Language", "Cookie"])

    Raises: TypeError for a string in place of a list, ValueError for a name that no field can have.
    """
    if isinstance(names, str):
        raise TypeError(f"Vary takes a list of names; got {names!r}: write [{names!r}].")
    names = list(names)
    for name in names:
        if not isinstance(name, str) or not is_token(name):
            raise ValueError(f"Vary takes names of request fields; got {name!r}.")
    lines = lines_of(headers, "Vary")
    if lines or names:
        _set(headers, "Vary", merge_vary(lines, names))


def has_vary_header(headers: Any, name: str) -> bool:
    """Does Vary have this name, in any case? "*" does not count as other names."""
    return name.lower() in (member.lower() for member in parse_list(lines_of(headers, "Vary")))


# -- page keys ----------------------------------------------------------------------------------------------------


def get_cache_key(
    request: Any, key_prefix: str | None = None, method: str = "GET", cache: str | BaseCache | None = None
) -> str | None:
    """The key of the stored page for a request; None if no response for its URL is known.

    The store has the record under `cache.page_key(key)`.

    request     of any framework, or a WSGI environ or an ASGI scope. It is taken for a GET without a body: after a form
                was sent, the key is that of the page at the form's URL
    key_prefix  left out: see below
    method      "GET" or "HEAD"
    cache       an alias, a URL, or a store; left out: see below

    If `key_prefix` and `cache` are both left out, they are those of the cache that the request came through. One that
    is left out is that of the Django project (for its requests, with the integration), of the current Flask application
    (with the extension), else of the environment.

    The key depends on scheme, host, path and query, on the fields that Vary names, and on language and time zone where
    these are part of keys.
    """
    from cachemw._views.keys import find  # late: that module imports this one

    return find(request, key_prefix=key_prefix, method=method, cache=cache)


def learn_cache_key(
    request: Any,
    response: Any,
    cache_timeout: float | None = None,
    key_prefix: str | None = None,
    cache: str | BaseCache | None = None,
) -> str:
    """Store the names of the fields that a response varies on, and return the key of its page.

    The middlewares do this by themselves.

    response       of any framework, or its headers
    cache_timeout  seconds that the names are stored; None: the `seconds` of the cache
    request, key_prefix, cache: as for `get_cache_key`

    Raises: ValueError for a request with several Host fields, which no page answers.
    """
    from cachemw._views.keys import learn

    return learn(request, response, timeout=cache_timeout, key_prefix=key_prefix, cache=cache)


# -- what a caller may ask for --------------------------------------------------------------------------------------

_FLAGS: Final = (
    "immutable",
    "must-revalidate",
    "must-understand",
    "no-store",
    "no-transform",
    "proxy-revalidate",
    "public",
)
_SECONDS: Final = ("max-age", "s-maxage", "stale-if-error", "stale-while-revalidate")
_FIELD_NAMES: Final = ("no-cache", "private")
_REQUEST_ONLY: Final = ("max-stale", "min-fresh", "only-if-cached")  # RFC 9111 §5.2.1
_KNOWN: Final = (*_FLAGS, *_SECONDS, *_FIELD_NAMES)

Checked = tuple[tuple[str, str | tuple[str, ...] | bool], ...]


def check_directives(
    directives: Mapping[str, Any], extensions: Mapping[str, str | int | bool] | None = None
) -> Checked:
    """The directives by their names in the field, with their arguments as texts. Raises: as `patch_cache_control`."""
    checked: dict[str, str | tuple[str, ...] | bool] = {}
    for keyword, value in directives.items():
        name = keyword.lower().replace("_", "-")
        if value is not None:
            checked[name] = _check(name, value)
    for name, value in (extensions or {}).items():
        checked[name.lower()] = _check_extension(name, value)
    if checked.get("private") is True and checked.get("public") is True:
        raise ValueError("Cache-Control: public and private exclude each other.")
    return tuple(checked.items())


def _check(name: str, value: Any) -> str | tuple[str, ...] | bool:
    if name not in _KNOWN:
        raise TypeError(_unknown(name))
    if value is False:
        return False
    if name in _SECONDS:
        return _check_seconds(name, value)
    if value is True:
        return True
    if name in _FLAGS:
        raise TypeError(f"Cache-Control: {name} is True or False; got {value!r}.")
    return _check_field_names(name, value)


def _unknown(name: str) -> str:
    if name in _REQUEST_ONLY:
        return f"Cache-Control: {name} is a directive of requests; a response cannot carry it."
    near = get_close_matches(name, _KNOWN, 3, 0.5)
    hint = f"; did you mean {' or '.join(near)}?" if near else "."
    return f"Cache-Control: unknown directive {name!r}{hint} Pass other directives in `extensions`."


def _check_seconds(name: str, value: Any) -> str:
    if isinstance(value, bool) or not isinstance(value, int):
        raise TypeError(f"Cache-Control: {name} is a whole number of seconds; got {value!r}.")
    if value < 0:
        raise ValueError(f"Cache-Control: {name} is 0 seconds or more; got {value!r}.")
    return str(int(value))


def _check_field_names(name: str, value: Any) -> tuple[str, ...]:
    names = parse_list([value]) if isinstance(value, str) else list(value) if isinstance(value, Iterable) else []
    if not names or not all(isinstance(field, str) and is_token(field) for field in names):
        raise TypeError(f"Cache-Control: {name} is True, False, or names of response fields; got {value!r}.")
    return tuple(names)


def _check_extension(name: str, value: Any) -> str | bool:
    if not isinstance(name, str) or not is_token(name):
        raise ValueError(f"Cache-Control: {name!r} cannot be the name of a directive.")
    if name.lower() in _KNOWN:
        raise TypeError(f"Cache-Control: {name} is a standard directive; pass it as a keyword.")
    if isinstance(value, bool):
        return value
    if not isinstance(value, str | int):
        raise TypeError(f"Cache-Control: the extension {name} is a string, a number, True or False; got {value!r}.")
    text = str(value)
    if not all(" " <= character <= "~" for character in text):
        raise ValueError(f"Cache-Control: the extension {name} is printable ASCII; got {value!r}.")
    return text


# -- any kind of headers ------------------------------------------------------------------------------------------


class RawFields(list[tuple[bytes, bytes]]):
    """The fields of an ASGI response: pairs of bytes, which an empty list does not show."""


def _headers(target: Any) -> Any:
    return getattr(target, "headers", target)


def lines_of(target: Any, name: str) -> list[str]:
    """The lines of a field, of any kind of headers."""
    headers = _headers(target)
    if isinstance(headers, list | tuple):
        return [_text(value) for key, value in headers if _text(key).lower() == name.lower()]
    for getter in ("getlist", "get_list", "get_all"):  # werkzeug and Starlette, httpx, wsgiref
        read: Callable[[str], list[str]] | None = getattr(headers, getter, None)
        if read is not None:
            return list(read(name) or ())
    return [str(headers[key]) for key in headers if key.lower() == name.lower()]


def _set(target: Any, name: str, value: str) -> None:
    """Make `value` the only line of the field, in the place of the first."""
    headers = _headers(target)
    if isinstance(headers, list):
        _set_pair(headers, name, value)
    elif isinstance(headers, dict):
        for key in [key for key in headers if key.lower() == name.lower()]:
            del headers[key]
        headers[name] = value
    else:
        headers[name] = value


def _set_pair(headers: list[Any], name: str, value: str) -> None:
    places = [place for place, (key, _) in enumerate(headers) if _text(key).lower() == name.lower()]
    for place in reversed(places[1:]):
        del headers[place]
    pair: tuple[Any, Any] = (name, value)
    if isinstance(headers, RawFields) or (headers and isinstance(headers[0][0], bytes)):
        pair = name.lower().encode("latin-1"), value.encode("latin-1")
    if places:
        headers[places[0]] = pair
    else:
        headers.append(pair)


def _text(value: str | bytes) -> str:
    return value.decode("latin-1") if isinstance(value, bytes) else value
