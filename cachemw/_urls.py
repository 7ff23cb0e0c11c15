"""A store in one URL: "redis://host:6379/0?timeout=300&key_prefix=site" as one entry of `CACHES`.

Rule 1: a URL that cannot be understood is an `ImproperlyConfigured` without its password.
Rule 2: a scheme with dots is the path of a store's class; what its URL says is for that class to understand.
The schemes of django-environ and django-cache-url are understood too.
"""

from __future__ import annotations

from collections.abc import Callable
from difflib import get_close_matches
from typing import Any, Final
from urllib.parse import parse_qsl, unquote, urlencode

from cachemw._codec_compression import Compression
from cachemw._values import number, refuse, without_password
from cachemw.errors import ImproperlyConfigured

__all__ = ["cache_from_url"]

_BACKENDS: Final = "cachemw.backends."

#: What the query says of the cache itself; everything else is an option.
_OWN: Final = {
    "timeout": "TIMEOUT",
    "key_prefix": "KEY_PREFIX",
    "prefix": "KEY_PREFIX",  # django-cache-url
    "version": "VERSION",
    "key_function": "KEY_FUNCTION",
    "serializer": "SERIALIZER",
    "secret": "SECRET",
}

#: The options of a database cache; what else is in its query is SQLAlchemy's, and stays in the URL.
_DATABASE_OPTIONS: Final = frozenset(
    {
        "table",
        "read",
        "write",
        "max_entries",
        "cull_frequency",
        "create",
        "deadline",
        "pool_size",
        "inline_reads",
        "fail_open",
        *Compression().options,
    }
)

_REDIS: Final = {
    "redis": "redis",
    "rediss": "rediss",
    "unix": "unix",
    "redis+sentinel": "redis+sentinel",
    "rediss+sentinel": "rediss+sentinel",
    "redis+cluster": "redis+cluster",
    "rediss+cluster": "rediss+cluster",
    "valkey": "redis",
    "valkeys": "rediss",
    "rediscache": "redis",
    "redis-cache": "redis",
    "hiredis": "redis",
    "hirediss": "rediss",
    "redis+socket": "unix",
}

Config = dict[str, Any]


def _locmem(scheme: str, rest: str, options: Config) -> Config:
    return {"BACKEND": _BACKENDS + "locmem.LocMemCache", "LOCATION": unquote(rest)}


def _dummy(scheme: str, rest: str, options: Config) -> Config:
    return {"BACKEND": _BACKENDS + "dummy.DummyCache", "LOCATION": unquote(rest)}


def _file(scheme: str, rest: str, options: Config) -> Config:
    if not rest.startswith("/"):
        raise refuse(
            "the directory", without_password(rest), f"an absolute one, with three slashes: {scheme}:///var/cache/site"
        )
    return {"BACKEND": _BACKENDS + "filebased.FileBasedCache", "LOCATION": unquote(rest)}


def _redis(scheme: str, rest: str, options: Config) -> Config:
    return {"BACKEND": _BACKENDS + "redis.RedisCache", "LOCATION": f"{_REDIS[scheme]}://{rest}"}


def _memcached(scheme: str, rest: str, options: Config) -> Config:
    credentials, at, hosts = rest.rpartition("@")
    if at:
        username, _, password = credentials.partition(":")
        options.update(username=unquote(username), password=unquote(password))
    servers = [
        "unix:" + unquote(server.removeprefix("unix:")) if server.startswith(("/", "unix:")) else server.rstrip("/")
        for server in hosts.replace(";", ",").split(",")
        if server
    ]
    if not servers:
        raise refuse("the list of servers", hosts, f"{scheme}://host:11211,host2:11211 or {scheme}:///path/of/socket")
    client = "PyLibMCCache" if "pylibmc" in scheme else "PyMemcacheCache"
    return {"BACKEND": f"{_BACKENDS}memcached.{client}", "LOCATION": servers}


def _database(scheme: str, rest: str, options: Config) -> Config:
    """dbcache://table?url=…: Django finds the database in its own settings; here the URL has to name it."""
    url = options.pop("url", None)
    if not url:
        raise refuse(
            "the database",
            without_password(f"{scheme}://{rest}"),
            "db+sqlite:///file?table=…, db+postgresql://user@host/name?table=…",
        )
    if rest:
        options.setdefault("table", unquote(rest.rstrip("/")))
    return {"BACKEND": _BACKENDS + "db.DatabaseCache", "LOCATION": url}


_SCHEMES: Final[dict[str, Callable[[str, str, Config], Config]]] = {
    "locmem": _locmem,
    "locmemcache": _locmem,
    "dummy": _dummy,
    "dummycache": _dummy,
    "file": _file,
    "filecache": _file,
    "db": _database,
    "dbcache": _database,
    **dict.fromkeys(_REDIS, _redis),
    **dict.fromkeys(
        (
            "memcached",
            "memcache",
            "pymemcache",
            "pymemcached",
            "memcached+pymemcache",
            "memcached+pylibmc",
            "pylibmc",
            "djangopylibmc",
        ),
        _memcached,
    ),
}


def cache_from_url(url: str) -> Config:
    """The entry of `CACHES` that a URL describes: BACKEND, LOCATION, maybe TIMEOUT and the like, OPTIONS.

    Raises: ImproperlyConfigured.
    """
    if not isinstance(url, str):
        raise refuse("the URL", url, "a string, such as " + ", ".join(_EXAMPLES))
    written, separator, rest = url.strip().partition("://")
    scheme = written.lower()
    rest, _, query = rest.partition("?")
    try:
        if not separator:
            raise refuse("the URL", without_password(url), "scheme://…, such as " + ", ".join(_EXAMPLES))
        if scheme.startswith("tiered+"):
            return _tiered(url.strip()[len("tiered+") :])
        own, options = _query(query)
        if scheme.startswith("db+"):
            config = _sqlalchemy(scheme[3:], rest, options)
        elif scheme in _SCHEMES:
            config = _SCHEMES[scheme](scheme, rest, options)
        elif "." in scheme and all(map(str.isidentifier, written.split("."))):
            config = {"BACKEND": written, "LOCATION": rest}
        else:
            raise _unknown(scheme)
    except ImproperlyConfigured as error:
        raise ImproperlyConfigured(f"Cache URL {without_password(url)!r}: {error}") from error.__cause__
    return {**config, **own, "OPTIONS": options}


def _unknown(scheme: str) -> ImproperlyConfigured:
    """The error for a scheme of nobody's; it names those of ours, and not how others write them."""
    database = scheme.partition("+")[0] in ("mariadb", "mysql", "postgres", "postgresql", "sqlite")
    near = [f"db+{scheme}"] if database else get_close_matches(scheme, _OURS, 1)
    hint = f"did you mean {near[0]!r}? Allowed" if near else "allowed"
    return ImproperlyConfigured(f"the scheme is {scheme!r}; {hint}: {', '.join(_OURS)}")


_OURS: Final = (
    *("locmem", "file", "db+postgresql", "db+mysql", "db+mariadb", "db+sqlite", "redis", "rediss", "unix", "valkey"),
    *("redis+sentinel", "redis+cluster", "memcached", "memcached+pylibmc", "tiered+…", "dummy", "package.Class"),
)
_EXAMPLES: Final = ("locmem://", "redis://localhost:6379/0", "memcached://localhost:11211", "file:///var/cache/site")


def _query(query: str) -> tuple[Config, Config]:
    """What is the cache's own, and its options; all of them text, but "none"."""
    own: Config = {}
    options: Config = {}
    for name, text in parse_qsl(query, keep_blank_values=True):
        if "@" in name:
            raise ImproperlyConfigured("a parameter has an @; in a password, write ? as %3F")
        name = name.lower()
        value = None if text.lower() == "none" else text
        target, key = (own, _OWN[name]) if name in _OWN else (options, name)
        if key in target:
            raise refuse("the parameter", name, "once")
        target[key] = value
    if own.get("TIMEOUT") is not None:
        number("timeout", own["TIMEOUT"])  # here it is still known by which name it was given
    if str(own.get("VERSION", "")).isdecimal():
        own["VERSION"] = int(own["VERSION"])
    return own, options


def _sqlalchemy(scheme: str, rest: str, options: Config) -> Config:
    theirs = {name: options.pop(name) for name in list(options) if name not in _DATABASE_OPTIONS}
    query = (
        f"?{urlencode({name: 'none' if value is None else value for name, value in theirs.items()})}" if theirs else ""
    )
    return {"BACKEND": _BACKENDS + "db.DatabaseCache", "LOCATION": f"{scheme}://{rest}{query}"}


def _tiered(url: str) -> Config:
    """A local tier before the store of `url`; the options that begin with "local_" are the tier's."""
    shared = cache_from_url(url)
    options = shared["OPTIONS"]
    local = {name: options.pop(name) for name in list(options) if name.startswith("local_")}
    own = {name: value for name, value in shared.items() if name not in ("BACKEND", "LOCATION", "OPTIONS")}
    return {"BACKEND": _BACKENDS + "tiered.TieredCache", "LOCATION": "", **own, "OPTIONS": {"shared": shared, **local}}
