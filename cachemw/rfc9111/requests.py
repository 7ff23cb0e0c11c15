"""Requests: what the rules ask about a request, as the application sees it and as it came in.

Rule 1: text is latin-1 `str`, exactly as the server gave it; field lines keep their order and their spelling.
Rule 2: a middleware may have made use of what it removed from a request, so it still tells requests apart.
"""

from __future__ import annotations

from collections.abc import Hashable, Iterable, Sequence
from typing import Any, Final

from cachemw.rfc9111.messages import Field, Fields

__all__ = ["CAME_IN", "CREDENTIALS", "Request", "UnreadRequest"]

#: The fields by which a client says who it is; a background refresh, which is in nobody's name, goes without them.
CREDENTIALS: Final = ("authorization", "cookie", "proxy-authorization")

#: Separates the lines of a field as the application sees it from those that came in; no line is like it.
CAME_IN: Final = "\0"

_NONE: Final[tuple[str, ...]] = ()


def _index(fields: Iterable[Field]) -> dict[str, tuple[str, ...]]:
    """Field lines by lower-case name, in order."""
    index: dict[str, tuple[str, ...]] = {}
    for name, value in fields:
        name = name.lower()
        index[name] = (*index[name], value) if name in index else (value,)
    return index


class Request:
    """A request as the application sees it. The shells subclass it to read the server's own form lazily.

    `path` and `query` are the raw (percent-encoded) ones, `mount` the raw part of the path that mounts the
    application (WSGI `SCRIPT_NAME`, ASGI `root_path`); `host` is the `Host` field, `scheme` is in lower case. `before`
    is the request as a cache further out has it, or the outer half of this one, where they stand apart.
    """

    __slots__ = ("_lines", "before", "host", "method", "mount", "path", "query", "scheme")

    def __init__(
        self,
        method: str = "GET",
        *,
        scheme: str = "http",
        host: str = "localhost",
        mount: str = "",
        path: str = "/",
        query: str = "",
        fields: Iterable[Field] = (),
    ) -> None:
        self.method = method
        self.scheme = scheme
        self.host = host
        self.mount = mount
        self.path = path
        self.query = query
        self.before: Request | None = None
        self._lines = _index(fields)

    @property
    def first(self) -> Request:
        """The request as it came in."""
        request = self
        while request.before is not None:
            request = request.before
        return request

    @property
    def moved(self) -> str:
        """The URL that came in, if it is another one than the application sees; else ""."""
        before = self.first
        if before is self or before.identity == self.identity:
            return ""
        came, here = [(url[0], url[1], url[2] + url[3], url[4]) for url in (before.url, self.url)]
        return "" if came == here else "".join([f"{len(part)}:{part}" for part in came])

    @property
    def rewritten(self) -> str:
        """The path that something between the server and the cache has put in the place of the raw one; "" for none."""
        return ""

    @property
    def user(self) -> bool:
        """Has something further out authenticated the client, by Authorization or otherwise?"""
        said = self.said_of_user
        if said is None:
            return self.before is not None and self.before.user
        return said

    @property
    def said_of_user(self) -> bool | None:
        """The same, judged only by what came with this request; None if nothing was said."""
        return None

    @property
    def session(self) -> str:
        """What is known about a session kept further out: "" (it is empty), "held", "read" or "changed"."""
        return ""

    @property
    def declared(self) -> tuple[str, ...]:
        """Fields that the application says its answer depends on, in other ways than by `Vary`."""
        return _NONE

    @property
    def handed_on(self) -> bool:
        """May something have read the cookies before the view was called, without having been seen to do so?"""
        return False

    @property
    def disguised(self) -> frozenset[str]:
        """Fields that it may be taken to have, although it spells them "x_host" instead of "x-host"."""
        return frozenset()

    @property
    def left_out(self) -> tuple[str, ...]:
        """For a background refresh: which of `CREDENTIALS` the original request had."""
        return _NONE

    @property
    def known(self) -> bool:
        """May the server, or a middleware further out, have identified the client? Every hit asks, so it is cheap."""
        return False

    def lines(self, name: str) -> Sequence[str]:
        """All lines of the field `name` (lower case), in order; empty if the request does not have it."""
        return self._lines.get(name, _NONE)

    def told(self, name: str) -> Sequence[str]:
        """All lines of the field that anything has read: those that the application sees, and those that came in.

        A middleware between the halves has made use of what it removes from a request, such as a login or a session.
        """
        lines, before = self.lines(name), self.before
        if before is None or tuple(came := before.told(name)) == tuple(lines):
            return lines
        return (*lines, CAME_IN, *came)

    @property
    def url(self) -> tuple[str, str, str, str, str]:
        """Scheme, host, mount, path and query."""
        return (self.scheme, self.host, self.mount, self.path, self.query)

    @property
    def route(self) -> str:
        """The path that the application routes by, raw or decoded: without its mount."""
        return self.path

    def hold(self) -> None:
        """Keep URL and fields as they are: the application may change what they are read from."""

    def note_body(self) -> None:
        """Something further out has read a body of this GET or HEAD: what it then did may depend on it.

        So it counts as another request: with a method that no request has.
        """
        self.method = ""

    # The following are keys of memories: cheap to make, and equal only if the cache keys made of them would be.

    @property
    def identity(self) -> Hashable:
        """Everything that tells this request's URL from others."""
        return self.url

    @staticmethod
    def native(names: Sequence[str]) -> tuple[Any, ...]:
        """The names of fields as `selection` wants them."""
        return tuple(names)

    def selection(self, native: tuple[Any, ...]) -> Hashable:
        """Everything that tells the values of these fields from others."""
        return tuple([tuple(self.lines(name)) for name in native])

    def told_selection(self, native: tuple[Any, ...]) -> Hashable:
        """The same, for all lines that anything has read; see `told`."""
        own, before = self.selection(native), self.before
        if before is None or (came := before.told_selection(native)) == own:
            return own
        return CAME_IN, own, came

    def render(self, fields: Fields) -> tuple[Any, ...]:
        """Fields as the interface of this request wants them."""
        return fields


class UnreadRequest(Request):
    """A request in the server's own form; a subclass sets `method`, and says in `url` how the parts are read.

    They are read when a rule asks for them; a page that was seen before needs none.
    """

    __slots__ = ()

    @property
    def scheme(self) -> str:  # type: ignore[override]
        return self.url[0]

    @property
    def host(self) -> str:  # type: ignore[override]
        return self.url[1]

    @property
    def mount(self) -> str:  # type: ignore[override]
        return self.url[2]

    @property
    def path(self) -> str:  # type: ignore[override]
        return self.url[3]

    @property
    def query(self) -> str:  # type: ignore[override]
        return self.url[4]
