"""The middlewares around an application that serves static files, for WSGI and ASGI: I/O only; `Serving` decides.

Rule: the application serves the file, with its guards, hooks and ranges. The middlewares change fields, leave out a
      body that the client has, or send its compressed twin; for a URL that leads out of the folder they answer 404.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Iterator
from http import HTTPStatus
from typing import TYPE_CHECKING, Any, BinaryIO, Final

import anyio.to_thread

from cachemw._asgi.request import decoded, encoded
from cachemw._asgi.types import ASGIApp, Message, Scope, Send
from cachemw._busting.folder import StaticFolder
from cachemw._busting.serving import Serving
from cachemw._wsgi.request import variable
from cachemw.asgi import ASGIRequest
from cachemw.paths import below
from cachemw.wsgi import WSGIRequest

if TYPE_CHECKING:
    from _typeshed.wsgi import StartResponse, WSGIApplication, WSGIEnvironment

__all__ = ["ASGIStatic", "WSGIPassage", "WSGIStatic", "found_in_mount"]

#: The folder that the request is for, and the name in it.
Found = tuple[StaticFolder, str]

_CHUNK: Final = 65_536  # octets that are read of a file at a time
_NOT_FOUND: Final = b"Not Found"
_TEXT: Final = "text/plain; charset=utf-8"


def _found(folders: tuple[StaticFolder, ...], path: str) -> Found | None:
    """The folder whose URL the path begins with (of several, the longest), and the rest of the path."""
    best = max((one for one in folders if path.startswith(one.prefix)), key=lambda one: len(one.prefix), default=None)
    return None if best is None else (best, path[len(best.prefix) :])


# -- WSGI -----------------------------------------------------------------------------------------------------------


class WSGIStatic:
    """A WSGI application whose responses with static files say how long caches may store them.

    Without folders, the application itself says which file a request is for, by `WSGIPassage.board`.
    """

    def __init__(self, app: WSGIApplication, *folders: StaticFolder) -> None:
        self.app = app
        self.folders = folders

    def __call__(self, environ: WSGIEnvironment, start_response: StartResponse) -> Iterable[bytes]:
        if environ["REQUEST_METHOD"] not in ("GET", "HEAD"):
            return self.app(environ, start_response)
        passage = environ[WSGIPassage.KEY] = WSGIPassage(start_response)
        if self.folders:
            raw = environ.get("SCRIPT_NAME", "") + environ.get("PATH_INFO", "")
            found = _found(self.folders, os.fsdecode(raw.encode("latin-1", "replace")))
            if found is not None and not passage.board(environ, *found):
                start_response("404 Not Found", [("Content-Type", _TEXT), ("Content-Length", str(len(_NOT_FOUND)))])
                return [_NOT_FOUND] if environ["REQUEST_METHOD"] == "GET" else []
        try:
            return passage.body(self.app(environ, passage.start_response))
        except BaseException:
            passage.close()
            raise


class WSGIPassage:
    """One request on its way through a `WSGIStatic`; in the environment under `KEY`."""

    KEY: Final = "cachemw.static"

    def __init__(self, start_response: StartResponse) -> None:
        self._server = start_response
        self._serving: Serving | None = None
        self._hidden: dict[str, Any] = {}
        self._environ: WSGIEnvironment = {}
        self._started = False
        self.replaced = False  # another body, or none, is sent in place of the application's

    def board(self, environ: WSGIEnvironment, folder: StaticFolder, name: str) -> bool:
        """Say that the request is for this file of the folder; False: it leads out of the folder, so refuse it."""
        asked = folder.asked(name, environ.get("QUERY_STRING", ""))
        self._serving = Serving(folder, asked, WSGIRequest(environ))
        self._environ = environ
        for field in self._serving.hidden:
            name_there = variable(field)
            if name_there in environ:
                self._hidden[name_there] = environ.pop(name_there)
        return not asked.refused

    def start_response(
        self, status: str, headers: list[tuple[str, str]], exc_info: Any = None, /
    ) -> Callable[[bytes], object]:
        """PEP 3333's `start_response`; the fields that were hidden from the application are put back before."""
        self._started = True
        self._environ.update(self._hidden)
        self._hidden = {}
        self.replaced = False
        if self._serving is not None:
            code, fields = self._serving.leaving(int(status[:3]), headers)
            if code != int(status[:3]):
                status, self.replaced = f"{code} {HTTPStatus(code).phrase}", True
            self.replaced = self.replaced or self._serving.body is not None
            headers = list(fields)
        write = self._server(status, headers, exc_info) if exc_info else self._server(status, headers)
        return (lambda data: None) if self.replaced else write

    def body(self, result: Iterable[bytes]) -> Iterable[bytes]:
        """The body for the server: the application's own iterable, if it is known to be the right one."""
        if self._started and not self.replaced:
            return result
        if not self._started and self._serving is None:
            return result
        body, wrapper = _WSGIBody(result, self), self._environ.get("wsgi.file_wrapper")
        if self._started and wrapper is not None and self._serving is not None and self._serving.body is not None:
            return wrapper(_WSGIFile(self._serving.body, body), _CHUNK)  # type: ignore[no-any-return]
        return body

    def chunks(self) -> Iterator[bytes]:
        """The body that replaces the application's."""
        body = self._serving and self._serving.body
        while body and (chunk := body.read(_CHUNK)):
            yield chunk

    def close(self) -> None:
        """The request is over."""
        if self._serving is not None:
            self._serving.close()


class _WSGIBody:
    """The body of an application that has not called start_response yet, or the body that replaces it."""

    def __init__(self, result: Iterable[bytes], passage: WSGIPassage) -> None:
        self._result = result
        self._passage = passage

    def __iter__(self) -> Iterator[bytes]:
        if not self._passage.replaced:
            for chunk in self._result:
                if self._passage.replaced:
                    break
                yield chunk
        yield from self._passage.chunks()

    def close(self) -> None:
        try:
            close = getattr(self._result, "close", None)
            if close is not None:
                close()
        finally:
            self._passage.close()


class _WSGIFile:
    """A file that the server may send by `sendfile`; closing it closes the application's body, too."""

    def __init__(self, file: BinaryIO, body: _WSGIBody) -> None:
        self._file = file
        self.close = body.close

    def __getattr__(self, name: str) -> Any:
        return getattr(self._file, name)


# -- ASGI -----------------------------------------------------------------------------------------------------------


def found_in_mount(folder: StaticFolder, scope: Scope) -> Found:
    """The file that a request below a mount is for."""
    return folder, below(scope.get("root_path", ""), scope["path"]).removeprefix("/")


class ASGIStatic:
    """An ASGI application whose responses with static files say how long caches may store them.

    find: a function from a scope to folder and name, None for other requests; left out: by the URLs of the folders.
    """

    def __init__(
        self, app: ASGIApp, *folders: StaticFolder, find: Callable[[Scope], Found | None] | None = None
    ) -> None:
        self.app = app
        self.folders = folders
        self._find = find or self._find_by_url

    def _find_by_url(self, scope: Scope) -> Found | None:
        mount = scope.get("root_path", "").rstrip("/")
        return _found(self.folders, mount + below(mount, scope["path"]))

    # `Any`: each framework has its own types for these three
    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        found = self._find(scope) if scope["type"] == "http" and scope["method"] in ("GET", "HEAD") else None
        if found is None:
            await self.app(scope, receive, send)
            return
        folder, name = found
        query = scope.get("query_string", b"").decode("latin-1")
        asked = await anyio.to_thread.run_sync(folder.asked, name, query)
        if asked.refused:
            await _refuse(scope, send)
            return
        serving = Serving(folder, asked, ASGIRequest(scope))
        hidden = {field.encode() for field in serving.hidden}
        if hidden:
            scope = {**scope, "headers": [pair for pair in scope["headers"] if pair[0].lower() not in hidden]}
        try:
            await self.app(scope, receive, _ASGISending(serving, send))
        finally:
            serving.close()


async def _refuse(scope: Scope, send: Send) -> None:
    headers = [(b"content-type", _TEXT.encode()), (b"content-length", str(len(_NOT_FOUND)).encode())]
    await send({"type": "http.response.start", "status": 404, "headers": headers})
    await send({"type": "http.response.body", "body": _NOT_FOUND if scope["method"] == "GET" else b""})


class _ASGISending:
    """Sends one response: the head with the first part of the body, when the application has opened the file."""

    def __init__(self, serving: Serving, send: Send) -> None:
        self._serving = serving
        self._send = send
        self._start: Message | None = None
        self._replaced = False

    async def __call__(self, message: Message) -> None:
        if message["type"] == "http.response.start":
            self._start = message
            return
        if self._start is not None and message["type"].startswith("http.response."):
            start, self._start = self._start, None
            await self._send_head(start)
        if not self._replaced:
            await self._send(message)

    async def _send_head(self, start: Message) -> None:
        fields = decoded(start.get("headers", ()))
        status, left = await anyio.to_thread.run_sync(self._serving.leaving, start["status"], fields)
        await self._send({**start, "status": status, "headers": [encoded(*field) for field in left]})
        body = self._serving.body
        if status != start["status"] or body is not None:
            self._replaced = True
            while body is not None and (chunk := await anyio.to_thread.run_sync(body.read, _CHUNK)):
                await self._send({"type": "http.response.body", "body": chunk, "more_body": True})
            await self._send({"type": "http.response.body", "body": b""})
