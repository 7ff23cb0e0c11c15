"""A page of megabytes in the file store, as a WSGI and as an ASGI application; a minute after it was stored."""

from __future__ import annotations

import os
from collections.abc import Iterable
from typing import Any, Final

from cachemw import asgi, wsgi
from cachemw.backends import filebased
from cachemw.backends._file.pages import clock
from cachemw.backends.filebased import FileBasedCache

__all__ = ["BODY", "asgi_app", "wsgi_app"]

BODY: Final = b"".join(b"%07d\n" % number for number in range(500_000))  # 4 MB
_MINUTE: Final = 60 * 10**9  # nanoseconds


def _wsgi(environ: Any, start_response: Any) -> Iterable[bytes]:
    start_response("200 OK", [("Content-Type", "text/plain")])
    return [BODY]


async def _asgi(scope: Any, receive: Any, send: Any) -> None:
    await send({"type": "http.response.start", "status": 200, "headers": [(b"content-type", b"text/plain")]})
    await send({"type": "http.response.body", "body": BODY})


if "LARGE_PAGES" in os.environ:  # in the server's process
    # only what has been as it is for a while is remembered
    vars(filebased).update(clock=lambda: clock() + _MINUTE)
    _cache = FileBasedCache(os.environ["LARGE_PAGES"])
    wsgi_app = wsgi.CacheMiddleware(_wsgi, cache=_cache)
    asgi_app = asgi.CacheMiddleware(_asgi, cache=_cache)
