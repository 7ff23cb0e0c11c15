"""The errors of cachemw: each says whose fault it is, and what to do.

Client libraries' exceptions are mapped to these once, at the edge of a backend. The low-level API raises them;
the page cache turns every `BackendUnavailable` into a miss (see `cachemw.pages`).
"""

from __future__ import annotations

from pickle import PicklingError

__all__ = [
    "BackendUnavailable",
    "CacheError",
    "CacheKeyWarning",
    "ImproperlyConfigured",
    "InvalidCacheBackendError",
    "InvalidCacheKey",
    "SerializationError",
    "UnserializableValue",
]


class CacheError(Exception):
    """Any error that cachemw itself raises."""


class ImproperlyConfigured(CacheError, ValueError):
    """A setting is wrong; the message names it, the value given and what is allowed."""


class InvalidCacheBackendError(ImproperlyConfigured):
    """A cache alias is not configured, or its backend cannot be imported."""


class InvalidCacheKey(CacheError, ValueError):
    """The store cannot take this key; choose a shorter one, without white space or control characters."""


class SerializationError(CacheError, ValueError):
    """A value cannot be turned into bytes, or bytes into a value: damaged, foreign, or not sealed by the secret."""


class UnserializableValue(SerializationError, PicklingError, TypeError):
    """This value cannot be stored; the message names its key. It is what pickle and Django raise, too."""


class BackendUnavailable(CacheError):
    """The store did not answer, or refused: the network, the server or the disk is at fault, not the caller."""


class CacheKeyWarning(RuntimeWarning):
    """This key works here and would not on memcached (Django's warning of the same name)."""
