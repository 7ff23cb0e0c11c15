"""Hooks without a framework: a login before, a timing header after, a connection closed at teardown, for /admin alone.

    python -m examples.hooks_site        then http://127.0.0.1:8000/, and /admin as `keeper` with the password `lamp`

The hooks stand around cache and application. So the login check guards the stored page too, and the timing header is
right on hits, which a header that is stored with the page could not be.
"""

from __future__ import annotations

import sqlite3
import time
from collections.abc import Callable, Iterable
from contextvars import ContextVar
from typing import Any

from werkzeug import Request, Response

from cachemw import CacheMiddleware, Hooks

__all__ = ["app", "closed", "hooks"]

hooks = Hooks()
admin = hooks.scope("/admin", name="admin")  # "/admin" and all below it, as a blueprint has it

began: ContextVar[float] = ContextVar("began")
connection: ContextVar[sqlite3.Connection | None] = ContextVar("connection", default=None)
closed: list[BaseException | None] = []


@hooks.before_request
def start_the_clock(request: Request) -> None:
    """For every request, also for those that the cache answers."""
    began.set(time.perf_counter())


@admin.before_request
def login(request: Request) -> Response | None:
    """The first response that a before hook returns is the answer; nobody else is asked."""
    given = request.authorization
    if given is not None and (given.username, given.password) == ("keeper", "lamp"):
        return None
    return Response("Who goes there?\n", 401, {"WWW-Authenticate": 'Basic realm="lighthouse"'})


@admin.before_request
def connect(request: Request) -> None:
    connection.set(sqlite3.connect(":memory:"))


@admin.after_request
def leave_no_trace(response: Response) -> None:
    response.headers["X-Robots-Tag"] = "noindex"


@hooks.after_request
def tell_the_time(response: Response) -> None:
    """After hooks run in reverse order: this one last."""
    response.headers["Server-Timing"] = f"total;dur={(time.perf_counter() - began.get()) * 1000:.2f}"


@admin.teardown_request
def disconnect(error: BaseException | None) -> None:
    """Always, with the exception or None, and when the client has left in the middle of the body, too."""
    opened = connection.get()
    if opened is not None:  # the login let this request in
        connection.set(None)
        opened.close()
        closed.append(error)


def site(environ: dict[str, Any], start_response: Callable[..., Any]) -> Iterable[bytes]:
    """Any WSGI application."""
    opened = connection.get()
    answer = opened.execute("select 6 * 7").fetchone()[0] if opened is not None else "no database"
    # `public` lets a shared cache store the answer to a request with credentials (RFC 9111 §3.5): here the login
    # hook asks everybody for theirs before a stored page is sent.
    fields = [("Content-Type", "text/plain; charset=utf-8"), ("Cache-Control", "public, s-maxage=60, max-age=0")]
    start_response("200 OK", fields)
    return [f"{environ['PATH_INFO']}: {answer}\n".encode()]


app = CacheMiddleware(site, hooks=hooks, key_prefix="hooks_site")


if __name__ == "__main__":
    from examples.serving import run

    run(app)
