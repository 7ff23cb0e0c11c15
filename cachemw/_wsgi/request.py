"""WSGIRequest: a request read from its environment, and the environments that are made of one."""

from __future__ import annotations

import re
from collections.abc import Hashable, Iterator, Sequence
from functools import lru_cache
from io import BytesIO
from typing import TYPE_CHECKING, Any, Final

from cachemw.exchange.state import EXCHANGE, LEFT_OUT
from cachemw.rfc9111.keys import quote_path
from cachemw.rfc9111.messages import Fields
from cachemw.rfc9111.requests import CREDENTIALS, UnreadRequest

if TYPE_CHECKING:
    from _typeshed.wsgi import WSGIEnvironment

    from cachemw.exchange import Exchange

__all__ = ["CALL", "EXCHANGE", "SSL_CLIENT", "WSGIRequest", "sanitised", "variable", "watch_input", "with_conditions"]

#: The subject of the client's certificate, as Apache, uWSGI and cheroot tell it.
SSL_CLIENT: Final = "SSL_CLIENT_S_DN"
#: What answers a request that brings that along; it has to be fit for background refreshes, too.
CALL: Final = "cachemw.call"
_PLAIN_PATH = re.compile(r"[A-Za-z0-9/:@!$&'()*+,;=~\-._]*").fullmatch
_CONDITIONS: Final = frozenset(
    {
        "HTTP_IF_MODIFIED_SINCE",
        "HTTP_IF_NONE_MATCH",
        "HTTP_IF_RANGE",
        "HTTP_RANGE",
    }
)
_PERSONAL: Final = _CONDITIONS | {
    "HTTP_IF_MATCH",
    "HTTP_IF_UNMODIFIED_SINCE",
    "CONTENT_LENGTH",
    "CONTENT_TYPE",
    "HTTP_AUTHORIZATION",
    "HTTP_CACHE_CONTROL",
    "HTTP_COOKIE",
    "HTTP_EXPECT",
    "HTTP_PRAGMA",
    "HTTP_PROXY_AUTHORIZATION",
    "HTTP_TRANSFER_ENCODING",
    "HTTP_UPGRADE",
    "REMOTE_IDENT",
    "REMOTE_USER",
    "AUTH_TYPE",
}
#: What PEP 3333 has a server say. Others tell more, such as the visitor's socket.
_SERVERS_OWN: Final = frozenset(
    {
        CALL,
        "wsgi.errors",
        "wsgi.multiprocess",
        "wsgi.multithread",
        "wsgi.run_once",
        "wsgi.url_scheme",
        "wsgi.version",
    }
)


@lru_cache(1024)
def variable(name: str) -> str:
    """The variable in the environment that holds the field."""
    name = name.upper().replace("-", "_")
    return name if name in ("CONTENT_TYPE", "CONTENT_LENGTH") else f"HTTP_{name}"


class WSGIRequest(UnreadRequest):
    """A request read from its environment, field by field as the rules ask for them."""

    __slots__ = ("environ",)

    def __init__(self, environ: WSGIEnvironment) -> None:
        self.environ = environ
        self.before = None
        self.method = environ["REQUEST_METHOD"]

    def hold(self) -> None:
        self.environ = self.environ.copy()

    @property
    def url(self) -> tuple[str, str, str, str, str]:
        """Scheme, host, mount, path and query."""
        get = self.environ.get
        host = get("HTTP_HOST")
        if host is None:
            host = f"{get('SERVER_NAME', '')}:{get('SERVER_PORT', '')}"
        mount, path = get("SCRIPT_NAME", ""), get("PATH_INFO", "")
        if not _PLAIN_PATH(mount):
            mount = quote_path(mount)
        if not _PLAIN_PATH(path):
            path = quote_path(path)
        return get("wsgi.url_scheme", "http"), host, mount, path, get("QUERY_STRING", "")

    @property
    def known(self) -> bool:
        """May the environment tell more of the client than the fields do?"""
        return "REMOTE_USER" in self.environ

    @property
    def said_of_user(self) -> bool | None:
        """Has the server authenticated the client (RFC 3875 §4.1.11)? Then it may have kept Authorization to itself."""
        return True if self.environ.get("REMOTE_USER") else None

    @property
    def left_out(self) -> tuple[str, ...]:
        left_out: tuple[str, ...] = self.environ.get(LEFT_OUT, ())
        return left_out

    @property
    def identity(self) -> Hashable:
        """The variables that make the URL, as they are."""
        get = self.environ.get
        host = get("HTTP_HOST")
        return (
            host if host is not None else (get("SERVER_NAME"), get("SERVER_PORT")),
            get("PATH_INFO"),
            get("QUERY_STRING"),
            get("SCRIPT_NAME"),
            get("wsgi.url_scheme"),
        )

    @staticmethod
    def native(names: Sequence[str]) -> tuple[str, ...]:
        """The variables of these fields: all that `lines` reads for them."""
        return (*map(variable, names), *((SSL_CLIENT,) if "client-cert" in names else ()))

    def selection(self, native: tuple[str, ...]) -> Hashable:
        """The values of these variables."""
        get = self.environ.get
        return get(native[0]) if len(native) == 1 else tuple(map(get, native))

    def lines(self, name: str) -> Sequence[str]:
        """The field as the server gave it: WSGI has combined its lines already.

        A certificate that the server has read itself counts as one that a proxy tells of (RFC 9440), and as a second
        line, which no client can send.
        """
        value = self.environ.get(variable(name))
        if name == "client-cert" and (subject := self.environ.get(SSL_CLIENT)):
            return value or "", subject
        if value is None or (value == "" and name in ("content-type", "content-length")):
            return ()
        return (value,)


def watch_input(environ: WSGIEnvironment, exchange: Exchange[Any]) -> None:
    """Have no answer stored to a GET with a body: HTTP/2 does not announce one, and the answer may depend on it."""
    if exchange.request.method in ("GET", "HEAD") and "wsgi.input" in environ:
        environ["wsgi.input"] = _WatchedInput(environ["wsgi.input"], exchange)


class _WatchedInput:
    """A `wsgi.input` that tells the exchange when something was read of it."""

    def __init__(self, given: Any, exchange: Exchange[Any]) -> None:
        self._given = given
        self._exchange = exchange

    def _seen(self, data: Any) -> Any:
        if data:
            self._exchange.never = True
            self._exchange.abandoned()
        return data

    def read(self, *size: int) -> Any:
        return self._seen(self._given.read(*size))

    def readline(self, *size: int) -> Any:
        return self._seen(self._given.readline(*size))

    def readlines(self, *hint: int) -> Any:
        return self._seen(self._given.readlines(*hint))

    def __iter__(self) -> Iterator[Any]:
        return map(self._seen, self._given)

    def __getattr__(self, name: str) -> Any:
        given = getattr(self._given, name)
        if name not in ("peek", "read1", "readall", "readinto", "readinto1"):  # no part of PEP 3333; files have them
            return given
        return lambda *arguments: self._seen(given(*arguments))


def sanitised(environ: WSGIEnvironment) -> WSGIEnvironment:
    """The environment of a GET for nobody in particular: no credentials, conditions, range or body (safety rule 15).

    Nor what middlewares further out have found or opened for the visitor: of names with a dot the server's own alone.
    What else they have left in it, who knew the client, stays: see `Request.left_out`.
    """
    plain = {
        name: value
        for name, value in environ.items()
        if (name in _SERVERS_OWN if "." in name else type(value) is str and name not in _PERSONAL)
        and not name.startswith("SSL_CLIENT_")
    }
    plain.update({"REQUEST_METHOD": "GET", "wsgi.input": BytesIO(), "CONTENT_LENGTH": "0"})
    plain[LEFT_OUT] = tuple(name for name in CREDENTIALS if variable(name) in environ)
    return plain


def with_conditions(environ: WSGIEnvironment, conditions: Fields) -> WSGIEnvironment:
    """The environment with our conditions in place of those of the client's that we answer ourselves.

    If-Match and If-Unmodified-Since are the application's to evaluate (RFC 9111 §4.3.2).
    """
    environ = {name: value for name, value in environ.items() if name not in _CONDITIONS}
    for name, value in conditions:
        environ[variable(name.lower())] = value
    return environ
