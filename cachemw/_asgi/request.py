"""ASGIRequest: a request read from its scope, and the scopes that are made of one."""

from __future__ import annotations

from collections.abc import Hashable, Mapping, Sequence
from functools import lru_cache
from typing import Any, Final
from urllib.parse import unquote

from cachemw._asgi.declared import declared, is_handed_on
from cachemw._asgi.types import Scope
from cachemw._users import USERS, is_user
from cachemw.activation import KEY as LOCALE
from cachemw.engine import bounded
from cachemw.exchange.state import EXCHANGE, LEFT_OUT
from cachemw.paths import below
from cachemw.rfc9111.keys import quote_path
from cachemw.rfc9111.messages import Field, Fields
from cachemw.rfc9111.requests import CREDENTIALS, UnreadRequest

__all__ = [
    "EXCHANGE",
    "ASGIRequest",
    "decoded",
    "encoded",
    "octets",
    "own_copy",
    "sanitised",
    "with_conditions",
]

_CONDITIONS: Final = frozenset({b"if-modified-since", b"if-none-match", b"if-range", b"range"})
_PERSONAL: Final = _CONDITIONS | {
    b"if-match",
    b"if-unmodified-since",
    b"authorization",
    b"cache-control",
    b"content-length",
    b"content-type",
    b"cookie",
    b"expect",
    b"pragma",
    b"proxy-authorization",
    b"transfer-encoding",
    b"upgrade",
}


_SHORT: Final = 160  # octets of a field; longer ones are hardly ever those of the next response
_MOST: Final = 2_048
_fields: Final[dict[tuple[bytes, bytes], Field]] = {}  # decoded before


@lru_cache(1024)
def octets(name: str) -> bytes:
    """The name of a field as scopes have it, if it is in lower case."""
    return name.encode("latin-1", "replace")


class ASGIRequest(UnreadRequest):
    """A request read from its scope, field by field as the rules ask for them."""

    __slots__ = ("_fields", "_held", "_url", "headers", "scope")

    def __init__(self, scope: Scope) -> None:
        self.scope = scope
        fields = scope["headers"]
        #: the last line of each field; all a hit needs, unless some field has several
        self.headers: dict[bytes, bytes] = dict(fields)
        if b"host" not in self.headers:  # perhaps because it is "Host": a server that breaks ASGI's rule hides nothing
            fields = [(name.lower(), value) for name, value in fields]
            self.headers = dict(fields)
        self._fields = fields
        self._url: tuple[str, str, str, str, str] | None = None
        self._held: Hashable = None
        self.before = None
        self.method = scope["method"]

    def hold(self) -> None:
        self._fields = tuple(self._fields)
        self._url = self.url  # at the latest
        self._held = self.identity

    @property
    def url(self) -> tuple[str, str, str, str, str]:
        """Scheme, host, mount, path and query."""
        url = self._url
        if url is None:
            url = self._url = self._read_url()
        return url

    def _read_url(self) -> tuple[str, str, str, str, str]:
        scope = self.scope
        host = self.headers.get(b"host")
        raw = scope.get("raw_path")
        path = scope["path"].encode("utf-8", "surrogatepass").decode("latin-1") if raw is None else ""
        # the path contains the mount already (ASGI: "root_path"), but where a server or a framework did otherwise
        mount = scope.get("root_path") or ""
        return (
            scope.get("scheme") or "http",
            _server(scope) if host is None else host.decode("latin-1"),
            "" if below(mount, scope["path"]) != scope["path"] else mount,
            quote_path(path) if raw is None else raw.decode("latin-1"),
            scope.get("query_string", b"").decode("latin-1"),
        )

    @property
    def route(self) -> str:
        """The path below `root_path`."""
        return below(self.scope.get("root_path", ""), self.scope["path"])

    @property
    def rewritten(self) -> str:
        """The path that the application routes by, if it is not what the client sent: somebody has chosen it."""
        scope = self.scope
        raw, path = scope.get("raw_path"), scope["path"]
        if raw is None or unquote(raw.decode("latin-1")) in (path, scope.get("root_path", "") + path):
            return ""
        return quote_path(path.encode("utf-8", "surrogatepass").decode("latin-1"))

    @property
    def declared(self) -> tuple[str, ...]:
        """The fields that the route reads, where it says so."""
        return declared(self.scope)

    @property
    def handed_on(self) -> bool:
        """Has a dependency of FastAPI's had the request itself? It asks for users by cookies, more often than not."""
        return is_handed_on(self.scope)

    @property
    def disguised(self) -> frozenset[str]:
        """The fields that a WSGI application further in reads in others: in its environment "-" and "_" are one."""
        names = self.headers
        if b"_" not in b"".join(names):
            return frozenset()
        return frozenset([name.decode("latin-1").replace("_", "-") for name in names if b"_" in name])

    @property
    def known(self) -> bool:
        """May the scope tell more of the client than the fields do?"""
        scope = self.scope
        state = scope.get("state")
        return "session" in scope or "user" in scope or (type(state) is dict and not USERS.isdisjoint(state))

    @property
    def said_of_user(self) -> bool | None:
        """Has Starlette's AuthenticationMiddleware, or one like it, found a user? Many leave theirs in the state."""
        try:
            user = _user_of(self.scope)
        except Exception:  # the application's object cannot say whether it is empty
            return True
        return None if user is None else is_user(user)

    @property
    def session(self) -> str:
        """What is in the session of Starlette's SessionMiddleware, or one like it, and what became of it.

        One that holds something and does not say whether it was read is taken to have been.
        """
        session = self.scope.get("session")
        if session is None:
            return ""
        try:
            if getattr(session, "modified", False) is True:
                return "changed"
            accessed = getattr(session, "accessed", None)
            if accessed is True:
                return "read"
            if not session:
                return ""
            return "read" if accessed is None else "held"
        except Exception:  # not loaded yet, perhaps
            return "held"

    @property
    def left_out(self) -> tuple[str, ...]:
        left_out: tuple[str, ...] = self.scope.get(LEFT_OUT, ())
        return left_out

    @property
    def identity(self) -> Hashable:
        """What the scope says of the URL, as it is."""
        if self._held is not None:
            return self._held
        get = self.scope.get
        host = self.headers.get(b"host")
        return (
            host if host is not None else _server(self.scope),
            get("raw_path"),
            self.scope["path"],
            get("query_string"),
            get("root_path"),
            get("scheme"),
        )

    @staticmethod
    def native(names: Sequence[str]) -> tuple[bytes, ...]:
        """These names as bytes."""
        return tuple(map(octets, names))

    def selection(self, native: tuple[bytes, ...]) -> Hashable:
        """The values of these fields; all lines of one that has several."""
        headers = self.headers
        if len(headers) != len(self._fields):
            return tuple([tuple([v for n, v in self._fields if n == name]) for name in native])
        return headers.get(native[0]) if len(native) == 1 else tuple(map(headers.get, native))

    def lines(self, name: str) -> Sequence[str]:
        """All lines of the field, in order."""
        raw = octets(name)
        headers = self.headers
        if raw not in headers:
            return ()
        if len(headers) == len(self._fields):
            return (headers[raw].decode("latin-1"),)
        return [value.decode("latin-1") for field, value in self._fields if field == raw]

    def render(self, fields: Fields) -> tuple[Any, ...]:
        """Pairs of bytes, the names in lower case."""
        return tuple([encoded(name, value) for name, value in fields])


def _user_of(scope: Scope) -> Any:
    user, state = scope.get("user"), scope.get("state")
    if user is None and type(state) is dict and not USERS.isdisjoint(state):
        return next((state[name] for name in sorted(USERS) if state.get(name)), None)
    return user


def _server(scope: Scope) -> str:
    server = scope.get("server")
    return f"{server[0]}:{server[1]}" if server else ""


def encoded(name: str, value: str) -> tuple[bytes, bytes]:
    """The field as messages have it."""
    return name.lower().encode("latin-1"), value.encode("latin-1")


def decoded(headers: Sequence[Sequence[bytes]]) -> Fields:
    """The fields as text. Those that many responses have in common are one object each."""
    try:
        return tuple([_fields.get(pair) or _decoded(pair) for pair in headers])  # type: ignore[call-overload, arg-type]
    except TypeError:  # some send lists
        return tuple([(name.decode("latin-1"), value.decode("latin-1")) for name, value in headers])


def _decoded(pair: tuple[bytes, bytes]) -> Field:
    name, value = pair
    field = (name.decode("latin-1"), value.decode("latin-1"))
    if len(name) + len(value) <= _SHORT:
        bounded(_fields, _MOST)[pair] = field
    return field


def own_copy(scope: Mapping[str, Any]) -> Scope:
    """A copy of the scope; its query string as bytes, which in Django's test client is text."""
    query = scope.get("query_string", b"")
    return {**scope, "query_string": query.encode() if isinstance(query, str) else query}


def with_conditions(scope: Scope, conditions: Fields) -> Scope:
    """The scope with our conditions in place of those of the client's that we answer ourselves.

    If-Match and If-Unmodified-Since are the application's to evaluate (RFC 9111 §4.3.2).
    """
    kept = [field for field in scope["headers"] if field[0].lower() not in _CONDITIONS]
    return {**scope, "headers": kept + [encoded(*field) for field in conditions]}


def sanitised(scope: Scope) -> Scope:
    """The scope of a GET for nobody in particular: no credentials, conditions, range or body (safety rule 15).

    What somebody further out has left in it, who knew the client, stays: see `Request.left_out`.
    """
    plain = {name: value for name, value in scope.items() if name not in ("extensions", "user", "auth", "session")}
    plain.pop(EXCHANGE, None)
    plain.pop(LOCALE, None)
    plain["method"] = "GET"
    carried = {name.lower() for name, _ in scope["headers"]}
    plain[LEFT_OUT] = tuple(name for name in CREDENTIALS if octets(name) in carried)
    plain["headers"] = [field for field in scope["headers"] if field[0].lower() not in _PERSONAL]
    if type(state := plain.get("state")) is dict:
        plain["state"] = {name: value for name, value in state.items() if name not in USERS}
    return plain
