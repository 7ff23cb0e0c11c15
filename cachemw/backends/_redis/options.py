"""LOCATION and OPTIONS of a Redis cache, read or refused: where the servers are, and how to speak to them.

Rule 1: what is not understood is an `ImproperlyConfigured`; a password never stands in a message.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Final, Literal, NoReturn
from urllib.parse import unquote, urlsplit

from redis.connection import parse_url

from cachemw._values import LONGEST_WAIT, boolean, imported, integer, number, refuse, unknown
from cachemw.errors import ImproperlyConfigured

__all__ = ["OPTION_NAMES", "Address", "Deployment", "Settings", "read_deployment", "without_passwords"]

#: Host and port, or the path of a unix socket.
Address = tuple[str, int] | str

#: Seconds for a whole call, and for making a connection.
TIMEOUT: Final = 0.1
CONNECT_TIMEOUT: Final = 0.25

_TLS_OPTIONS: Final = frozenset(
    f"ssl_{name}"
    for name in (
        *("ca_certs", "ca_data", "ca_path", "cert_reqs", "certfile", "check_hostname", "ciphers"),
        *("exclude_verify_flags", "include_verify_flags", "keyfile", "min_version", "password"),
    )
)
_CONNECTION_OPTIONS: Final = _TLS_OPTIONS | {
    *("client_name", "credential_provider", "db", "parser_class", "password", "protocol", "retry_on_timeout"),
    *("socket_connect_timeout", "socket_keepalive", "socket_keepalive_options", "socket_read_size", "socket_timeout"),
    *("ssl", "username"),
}
OPTION_NAMES: Final = _CONNECTION_OPTIONS | {"max_connections", "pool_class", "sentinel_kwargs", "serializer"}

#: redis-py leaves it without types.
_parse_url: Callable[[str], dict[str, Any]] = parse_url

_NEXT_URL: Final = re.compile(r"([,;]\s*)(?=\w[\w+]*://)")

_SCHEMES: Final = (
    "redis://, rediss://, unix://, redis+sentinel://, rediss+sentinel://, redis+cluster://, rediss+cluster://"
)


@dataclass(frozen=True, kw_only=True)
class Settings:
    """How to speak to one server.

    connection: keyword arguments of redis-py's connections, beside the address and the timeouts.
    timeout, connect_timeout: seconds for a whole call, and for making a connection.
    max_connections: most connections to the server (threads wait for one); None: at most one per thread.
    """

    timeout: float = TIMEOUT
    connect_timeout: float = CONNECT_TIMEOUT
    tls: bool = False
    max_connections: int | None = None
    connection: Mapping[str, Any] = field(default_factory=dict, repr=False)


@dataclass(frozen=True, kw_only=True)
class Deployment:
    """Which servers there are: the leader before its replicas, or the Sentinels, or some nodes of a Cluster."""

    kind: Literal["replicas", "sentinel", "cluster"]
    servers: Sequence[tuple[Address, Settings]]
    settings: Settings
    service: str = ""
    sentinel_settings: Settings = field(default_factory=Settings)
    pool_class: Any = None


def read_deployment(location: str | Sequence[str], options: Mapping[str, Any]) -> Deployment:
    """What LOCATION (a URL, several in a list or separated by `;` or `,`) and OPTIONS describe."""
    pool_class = options.get("pool_class")
    if isinstance(pool_class, str):
        pool_class = imported("OPTIONS['pool_class']", pool_class)
    urls = _urls(location)
    scheme, plus, kind = urls[0].partition("://")[0].partition("+")
    if not plus:
        servers = [_server(url, options) for url in urls]
        return Deployment(kind="replicas", servers=servers, settings=servers[0][1], pool_class=pool_class)
    if scheme not in ("redis", "rediss") or kind not in ("sentinel", "cluster") or len(urls) > 1:
        _refuse_location(urls[0])
    if pool_class is not None:
        raise refuse(
            "OPTIONS['pool_class']", pool_class, f"nothing with {scheme}+{kind}://, which keeps its own connections"
        )
    return _several(urls[0], scheme, kind, options)


def _urls(location: str | Sequence[str]) -> list[str]:
    """The URLs; in one text, a `,` or `;` separates them where a scheme follows (h1,h2 are hosts of one URL)."""
    if not isinstance(location, str):
        urls = [str(url).strip() for url in location]
    else:
        urls = []
        for part in location.replace(";", ",").split(","):
            if "://" in part or not urls:
                urls.append(part.strip())
            else:
                urls[-1] += f",{part.strip()}"
    if not urls or not all("://" in url for url in urls):
        raise refuse("LOCATION", without_passwords(location), f"one or several URLs of {_SCHEMES}")
    return urls


def _refuse_location(url: str) -> NoReturn:
    raise refuse("LOCATION", _without_password(url), f"a URL of {_SCHEMES}") from None  # urllib's may have a password


def without_passwords(location: str | Sequence[str]) -> str | list[str]:
    """LOCATION as it may stand in a log."""
    if not isinstance(location, str):
        return [_without_password(str(url)) for url in location]
    urls_and_separators = _NEXT_URL.split(location)
    urls_and_separators[::2] = map(_without_password, urls_and_separators[::2])
    return "".join(urls_and_separators)


def _without_password(url: str) -> str:
    """A password may hold anything: rather a host too few in a log than the rest of a password."""
    scheme, separator, rest = url.partition("://") if "://" in url else ("", "", url)
    place, _, query = rest.partition("?")
    if "@" in query:
        return f"{scheme}{separator}***"
    _, at, hosts = place.rpartition("@")
    return f"{scheme}{separator}***@{hosts}" if at else f"{scheme}{separator}{place}"


def _server(url: str, options: Mapping[str, Any]) -> tuple[Address, Settings]:
    """One server of a redis://, rediss:// or unix:// URL; OPTIONS come before the URL's own query."""
    try:
        given = _parse_url(url)
    except ValueError:
        _refuse_location(url)
    given.pop("connection_class", None)
    path, host, port = given.pop("path", None), given.pop("host", "localhost"), given.pop("port", 6379)
    if url.startswith("unix://"):
        if not path:
            _refuse_location(url)
        address: Address = path
    else:
        address = (host, port)
        database = unquote(urlsplit(url).path).strip("/")
        if database and not database.isdecimal():  # redis-py takes "abc" for database 0, and "3/4" for 34
            raise refuse("LOCATION", _without_password(url), "the number of a database as its path, or none")
    return address, _settings({"ssl": url.startswith("rediss://"), **given, **options})


def _several(url: str, scheme: str, kind: Any, options: Mapping[str, Any]) -> Deployment:
    """redis+sentinel://[user:password@]h1[:port],h2/service[/db] and redis+cluster://[user:password@]h1[:port],h2."""
    rest = url.partition("://")[2]
    place = re.split("[/?#]", rest, maxsplit=1)[0]
    credentials, _, hosts = place.rpartition("@")
    parts = urlsplit(f"//h{rest[len(place) :]}")  # one host: Python 3.14 refuses [::1] after another one
    username, _, password = credentials.partition(":")
    given: dict[str, Any] = {"ssl": scheme == "rediss"}
    if credentials:
        given |= {"username": unquote(username) or None, "password": unquote(password) or None}
    given |= {name: value for name, value in _parse_url(f"redis://h?{parts.query}").items() if name != "host"}
    given |= options
    addresses = [_address(host, 26379 if kind == "sentinel" else 6379, url) for host in hosts.split(",")]
    service = ""
    if kind == "sentinel":
        service, _, db = parts.path.strip("/").partition("/")
        service = unquote(service or str(given.pop("service", "")))
        if db:
            given.setdefault("db", db)
        if not service:
            raise refuse("LOCATION", _without_password(url), "redis+sentinel://host1,host2/service")
    elif parts.path.strip("/") or integer("OPTIONS['db']", given.get("db", 0)):
        raise refuse(
            "LOCATION", _without_password(url), "redis+cluster://host1,host2 without a path: a Cluster has one database"
        )
    settings = _settings(given)
    of_nodes = settings if kind == "cluster" else _sentinel_settings(options, settings)
    return Deployment(
        kind=kind,
        servers=[(address, of_nodes) for address in addresses],
        settings=settings,
        service=service,
        sentinel_settings=of_nodes,
    )


def _address(text: str, default_port: int, url: str) -> Address:
    try:
        parts = urlsplit(f"//{text.strip()}")
        host, port = parts.hostname, parts.port or default_port
    except ValueError:
        _refuse_location(url)
    if not host:
        _refuse_location(url)
    return host, port


def _sentinel_settings(options: Mapping[str, Any], settings: Settings) -> Settings:
    """Sentinels have passwords of their own (`sentinel_kwargs`) and no databases; the servers' timeouts and TLS."""
    given = options.get("sentinel_kwargs") or {}
    if not isinstance(given, Mapping):
        raise refuse("OPTIONS['sentinel_kwargs']", given, "a dictionary of connection options")
    same = {name: value for name, value in settings.connection.items() if name.startswith(("ssl_", "socket_", "retry"))}
    own = _settings({"ssl": settings.tls, **given})
    return replace(settings, tls=own.tls, max_connections=None, connection={**same, **own.connection})


def _settings(given: Mapping[str, Any]) -> Settings:
    """Connection options, checked, as `Settings`."""
    if strange := sorted(given.keys() - OPTION_NAMES):
        raise unknown("An unknown option of RedisCache", strange[0], OPTION_NAMES)
    tls = boolean("OPTIONS['ssl']", given.get("ssl", False))
    connection = {name: given[name] for name in sorted(given.keys() & _CONNECTION_OPTIONS - {"ssl"})}
    if tls_only := sorted(connection.keys() & _TLS_OPTIONS) if not tls else ():
        raise ImproperlyConfigured(f"OPTIONS[{tls_only[0]!r}] needs TLS; allowed with rediss:// or ssl=True")
    timeout = number("OPTIONS['socket_timeout']", connection.pop("socket_timeout", TIMEOUT))
    connect = number("OPTIONS['socket_connect_timeout']", connection.pop("socket_connect_timeout", CONNECT_TIMEOUT))
    for name, seconds in (("socket_timeout", timeout), ("socket_connect_timeout", connect)):
        if not 0 < seconds <= LONGEST_WAIT:
            raise refuse(f"OPTIONS[{name!r}]", seconds, f"seconds > 0 and <= {LONGEST_WAIT}: no call may wait for ever")
    if "db" in connection:
        connection["db"] = integer("OPTIONS['db']", connection["db"], minimum=0)
    if "protocol" in connection and str(connection["protocol"]) not in ("2", "3"):
        raise refuse("OPTIONS['protocol']", connection["protocol"], "2 or 3")
    connection["protocol"] = int(connection.get("protocol", 3))
    for name in ("retry_on_timeout", "socket_keepalive", "ssl_check_hostname"):
        if name in connection:
            connection[name] = boolean(f"OPTIONS[{name!r}]", connection[name])
    if isinstance(parser := connection.get("parser_class"), str):
        connection["parser_class"] = imported("OPTIONS['parser_class']", parser)
    limit = given.get("max_connections")
    return Settings(
        timeout=timeout,
        connect_timeout=connect,
        tls=tls,
        max_connections=None if limit is None else integer("OPTIONS['max_connections']", limit, minimum=1),
        connection=connection,
    )
