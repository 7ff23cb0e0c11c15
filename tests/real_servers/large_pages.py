"""A page of megabytes in the file store, as a WSGI and as an ASGI application; a minute after it was stored.

At "/read" they say how many bytes of bodies Python has read; the rest went from the file to the client without it.
"""

from __future__ import annotations

import os
from collections.abc import Iterable
from typing import Any, Final

from cachemw import asgi, wsgi
from cachemw.backends import filebased
from cachemw.backends._file import large
from cachemw.backends._file.large import FiledBody
from cachemw.backends._file.pages import clock
from cachemw.backends.filebased import FileBasedCache

__all__ = ["BODY", "asgi_app", "wsgi_app"]

BODY: Final = b"".join(b"%07d\n" % number for number in range(500_000))  # 4 MB
_MINUTE: Final = 60 * 10**9  # nanoseconds
_read = [0]  # bytes


def _wsgi(environ: Any, start_response: Any) -> Iterable[bytes]:
    start_response("200 OK", [("Content-Type", "text/plain"), ("Cache-Control", _cache_control(environ["PATH_INFO"]))])
    return [BODY if environ["PATH_INFO"] == "/" else b"%d" % _read[0]]


async def _asgi(scope: Any, receive: Any, send: Any) -> None:
    fields = [(b"content-type", b"text/plain"), (b"cache-control", _cache_control(scope["path"]).encode())]
    await send({"type": "http.response.start", "status": 200, "headers": fields})
    await send({"type": "http.response.body", "body": BODY if scope["path"] == "/" else b"%d" % _read[0]})


def _cache_control(path: str) -> str:
    return "max-age=600" if path == "/" else "no-store"


class _CountedBody(FiledBody):
    def __getitem__(self, part: slice) -> bytes:
        data = super().__getitem__(part)
        _read[0] += len(data)
        return data


if "LARGE_PAGES" in os.environ:  # in the server's process
    # only what has been as it is for a while is remembered
    vars(filebased).update(clock=lambda: clock() + _MINUTE)
    vars(large).update(FiledBody=_CountedBody)
    _cache = FileBasedCache(os.environ["LARGE_PAGES"])
    wsgi_app = wsgi.CacheMiddleware(_wsgi, cache=_cache)
    asgi_app = asgi.CacheMiddleware(_asgi, cache=_cache)
