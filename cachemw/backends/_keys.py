"""Keys: what the caller says, what the store is given, and what a store can take."""

from __future__ import annotations

import inspect
import re
import sys
import warnings
from collections.abc import Callable
from hashlib import blake2b
from typing import Any, Final

from cachemw._values import imported, refuse
from cachemw.errors import CacheKeyWarning, ImproperlyConfigured, InvalidCacheKey

__all__ = [
    "MEMCACHED_LENGTH",
    "KeyFunction",
    "default_key_func",
    "key_function",
    "key_made_by",
    "page_digest",
    "page_prefix",
    "validate",
]

#: (key, key_prefix, version) -> the key in the store
KeyFunction = Callable[[Any, str, Any], str]

#: memcached's limit, by which Django warns for every store.
MEMCACHED_LENGTH: Final = 250
_HERE: Final = (__name__.rpartition(".")[0] + ".", "cachemw.integrations.")
_CONTROL: Final = re.compile(r"[\x00-\x20\x7f]")
#: Characters that `page_digest` makes.
_DIGEST_LENGTH: Final = 66


def default_key_func(key: Any, key_prefix: str, version: Any) -> str:
    """Django's: "prefix:version:key"."""
    return f"{key_prefix}:{version}:{key}"


def key_function(given: object) -> KeyFunction:
    """The function that the setting `KEY_FUNCTION` describes: None, a callable, a dotted path."""
    if given is None:
        return default_key_func
    function: Any = imported("KEY_FUNCTION", given) if isinstance(given, str) else given
    if not callable(function) or not _takes_a_key(function):
        raise refuse("KEY_FUNCTION", given, "a callable (key, key_prefix, version) -> str, or the dotted path of one")
    checked: KeyFunction = function
    return checked


def _takes_a_key(function: Callable[..., Any]) -> bool:
    try:
        inspect.signature(function).bind("key", "prefix", 1)
    except TypeError:
        return False
    except ValueError:  # one that is written in C may tell nothing of its parameters
        return True
    return True


def key_made_by(function: KeyFunction, key: Any, key_prefix: str, version: Any) -> str:
    """What a KEY_FUNCTION makes of a key. Raises: ImproperlyConfigured if that is no text."""
    made = function(key, key_prefix, version)
    if not isinstance(made, str):
        raise refuse(f"The key that KEY_FUNCTION makes of {key!r}", made, "a string")
    return made


def _complaint(key: str) -> str | None:
    if len(key) > MEMCACHED_LENGTH:
        return f"Cache key will cause errors if used with memcached: {key!r} (longer than {MEMCACHED_LENGTH})"
    if _CONTROL.search(key):
        return f"Cache key contains characters that will cause errors if used with memcached: {key!r}"
    return None


def _callers_level() -> int:
    """How far up the stack whoever called the cache stands; `decr`, `get_or_set` and others ask further operations."""
    level, frame = 2, sys._getframe(1)
    while frame.f_back is not None and frame.f_globals.get("__name__", "").startswith(_HERE):
        level, frame = level + 1, frame.f_back
    return level - 1


def validate(key: str, *, strict: bool, limit: int | None, warning: type[CacheKeyWarning] = CacheKeyWarning) -> None:
    """Complain about a made key as Django does: a warning, or InvalidCacheKey where the store cannot take it."""
    complaint = _complaint(key)
    if complaint is not None and strict:
        raise InvalidCacheKey(complaint)
    if limit is not None and len(key) > limit:
        raise InvalidCacheKey(
            f"The store takes keys of at most {limit} characters, and this one has {len(key)}: {key!r}"
        )
    if complaint is not None:
        warnings.warn(complaint, warning, stacklevel=_callers_level())


def page_prefix(key_prefix: str, version: Any, *, strict: bool, limit: int | None) -> str:
    """What stands before every page's key. Raises: ImproperlyConfigured if the store could not take it."""
    prefix = f"{key_prefix}:{version}:"
    if strict and _CONTROL.search(prefix):
        raise refuse("KEY_PREFIX", key_prefix, "no white space or control characters in this store")
    if limit is not None and len(prefix) + _DIGEST_LENGTH > limit:
        raise ImproperlyConfigured(
            f"KEY_PREFIX {key_prefix!r} is too long: this store takes keys of at most {limit} characters"
        )
    return prefix


def _digest(text: str) -> str:
    return blake2b(text.encode("utf-8", "surrogatepass"), digest_size=16).hexdigest()


def page_digest(key: str) -> str:
    """The page key "RESOURCE\\x00REST" in 66 characters, RESOURCE's part in braces.

    Redis Cluster and the memcached ring place a key by what stands in braces: all keys of one URL are neighbours.
    """
    resource, _, rest = key.partition("\x00")
    return f"{{{_digest(resource)}}}{_digest(rest)}"
