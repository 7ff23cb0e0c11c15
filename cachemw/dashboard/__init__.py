"""The dashboard: one page for operators, which shows what the cache of this process does, and purges.

    dashboard = Dashboard(metrics, allow=lambda request: request.session.get("user") == "operator")
    Mount("/cache", dashboard.asgi)                                                  # Starlette, FastAPI
    app.wsgi_app = DispatcherMiddleware(app.wsgi_app, {"/cache": dashboard.wsgi})    # Werkzeug

Rule 1: nobody sees or does anything whom the site's own `allow` has not let in; there is no default.
Rule 2: it changes something only by POST, and only for its own form (see `_form`).
Rule 3: everything that is shown is escaped. The page has no scripts, loads nothing, and is stored nowhere.
"""

from __future__ import annotations

import inspect
import os
from collections.abc import Awaitable, Callable, Iterable
from http import HTTPStatus
from typing import TYPE_CHECKING, Any, Final, NamedTuple

from cachemw._values import refuse
from cachemw.caching import Caching, HasCaching, cachings_of
from cachemw.calling import call, is_async
from cachemw.dashboard._form import COOKIE, LONGEST, Asked, Form, Told, made_token, read_form
from cachemw.dashboard._page import page
from cachemw.dashboard._stores import states_of
from cachemw.dashboard._style import HASH
from cachemw.errors import ImproperlyConfigured
from cachemw.observing import Metrics
from cachemw.purging import apurge, purge

if TYPE_CHECKING:
    from _typeshed.wsgi import StartResponse, WSGIEnvironment

__all__ = ["Dashboard"]

_POLICY: Final = f"default-src 'none'; style-src '{HASH}'; form-action 'self'; base-uri 'none'; frame-ancestors 'none'"
_FIELDS: Final = (
    ("Cache-Control", "no-store"),
    ("Content-Security-Policy", _POLICY),
    ("Referrer-Policy", "same-origin"),  # "no-referrer" would have the browser say that the form comes from nowhere
    ("X-Content-Type-Options", "nosniff"),
    ("X-Robots-Tag", "noindex"),
)
_ALLOW: Final = (
    "a function of the request that says who may see the page and purge, such as "
    "allow=lambda request: request.session.get('user') == 'operator'; without one, everybody could"
)


class _Answer(NamedTuple):
    status: int
    fields: list[tuple[str, str]]
    body: bytes


class Dashboard:
    """A page that shows an operator what the cache of this process does, and on which pages can be purged.

        dashboard = Dashboard(metrics, allow=lambda request: request.session.get("user") == "operator")

    metrics  the `Metrics` of an `ObservingMiddleware`
    caching  whose stores are shown and purged: a middleware, or its `caching`; left out: as for `purge`
    allow    a function of the request (werkzeug's `Request` on WSGI, Starlette's on ASGI, where it may be async) that
             returns True for those who see the page and purge; everybody else gets 403
    title    the heading of the page

    `wsgi` and `asgi` are the applications, to be mounted by the site at any path; a view of Flask may return
    `dashboard.wsgi`. Each process shows its own figures.

    Raises: ImproperlyConfigured without `allow`, and for other objects as `metrics`; TypeError for others as `caching`.
    """

    def __init__(
        self,
        metrics: Metrics,
        caching: Caching | HasCaching | None = None,
        *,
        allow: Callable[[Any], bool | Awaitable[bool]] | None = None,
        title: str = "Cache",
    ) -> None:
        if not isinstance(metrics, Metrics):
            raise refuse("metrics", metrics, "a cachemw.Metrics")
        if not callable(allow):
            raise refuse("allow", allow, _ALLOW)
        if caching is not None:
            cachings_of(caching)
        self.metrics = metrics
        self.caching = caching
        self.allow = allow
        self.title = title

    # -- WSGI -------------------------------------------------------------------------------------------------------

    def wsgi(self, environ: WSGIEnvironment, start_response: StartResponse) -> Iterable[bytes]:
        """The dashboard as a WSGI application."""
        from werkzeug import Request

        request = Request(environ)
        asked = _asked(request.method, request.scheme, request.headers.get)
        answer = self._answer_wsgi(request, asked)
        status = HTTPStatus(answer.status)
        start_response(f"{status.value} {status.phrase}", answer.fields)
        return [b"" if asked.method == "HEAD" else answer.body]

    def _answer_wsgi(self, request: Any, asked: Asked) -> _Answer:
        if is_async(self.allow):
            raise ImproperlyConfigured(f"allow is {self.allow!r}, and the application is WSGI: write a plain function.")
        allowed = self.allow(request)
        if inspect.isawaitable(allowed):
            if inspect.iscoroutine(allowed):
                allowed.close()
            raise ImproperlyConfigured("allow returned an awaitable, and the application is WSGI.")
        if refused := _refused(asked, allowed=_is_yes(allowed)):
            return refused
        if asked.method != "POST":
            return self._page(asked)
        form = read_form(asked, _body(request))
        if isinstance(form, Told):
            return self._page(asked, form)
        try:
            count = purge(*_urls(form), tags=_tags(form), soft=form.soft, caching=self.caching)
        except ValueError as error:
            return self._page(asked, Told(str(error), 400), form)
        return self._page(asked, self._purged(form, count))

    # -- ASGI -------------------------------------------------------------------------------------------------------

    # `Any`: each framework has its own types for these three
    async def asgi(self, scope: Any, receive: Any, send: Any) -> None:
        """The dashboard as an ASGI application."""
        if scope["type"] != "http":
            if scope["type"] == "websocket":
                await send({"type": "websocket.close"})
            return
        from starlette.requests import ClientDisconnect, Request

        request = Request(scope, receive)
        asked = _asked(scope["method"], scope.get("scheme", "http"), request.headers.get)
        try:
            answer = await self._answer_asgi(request, asked)
        except ClientDisconnect:
            return
        headers = [(name.lower().encode("latin-1"), value.encode("latin-1")) for name, value in answer.fields]
        await send({"type": "http.response.start", "status": answer.status, "headers": headers})
        await send({"type": "http.response.body", "body": b"" if asked.method == "HEAD" else answer.body})

    async def _answer_asgi(self, request: Any, asked: Asked) -> _Answer:
        if refused := _refused(asked, allowed=_is_yes(await call(self.allow, request))):
            return refused
        if asked.method != "POST":
            return self._page(asked)
        form = read_form(asked, await _abody(request))
        if isinstance(form, Told):
            return self._page(asked, form)
        try:
            count = await apurge(*_urls(form), tags=_tags(form), soft=form.soft, caching=self.caching)
        except ValueError as error:
            return self._page(asked, Told(str(error), 400), form)
        return self._page(asked, self._purged(form, count))

    # -- the page ---------------------------------------------------------------------------------------------------

    def _purged(self, form: Form, count: int) -> Told:
        what = " and ".join([*_urls(form), *(f"the tag {tag}" for tag in _tags(form) or ())])
        if any(pages.owes for one in cachings_of(self.caching) for pages in one.stores):
            return Told(f"A store does not answer: {what} is purged before this process reads from it again.", 503)
        if not count:
            return Told(f"Nothing was stored for {what}.")
        return Told(f"{'Made stale' if form.soft else 'Purged'}: {what}.")

    def _page(self, asked: Asked, told: Told | None = None, form: Form | None = None) -> _Answer:
        token = asked.token or made_token()
        text = page(
            self.title,
            self.metrics.snapshot(),
            states_of(cachings_of(self.caching)),
            token=token,
            example=f"{asked.scheme}://{asked.host}/page",
            process=os.getpid(),
            told=told,
            form=form,
        )
        secure = "; Secure" if asked.scheme == "https" else ""
        cookie = ("Set-Cookie", f"{COOKIE}={token}; HttpOnly; SameSite=Strict{secure}")
        return _answer(200 if told is None else told.status, text, "text/html; charset=utf-8", cookie)


def _answer(status: int, text: str, content_type: str, *more: tuple[str, str]) -> _Answer:
    body = text.encode("utf-8", "replace")
    about = [("Content-Type", content_type), ("Content-Length", str(len(body)))]
    return _Answer(status, [*about, *_FIELDS, *more], body)


def _asked(method: str, scheme: str, field: Callable[[str, str], str]) -> Asked:
    names = ("host", "cookie", "content-type", "origin", "sec-fetch-site")
    host, cookie, content_type, origin, fetch_site = (field(name, "") for name in names)
    return Asked(method, scheme, host, cookie, content_type, origin, fetch_site)


def _is_yes(answer: Any) -> bool:
    """Does `allow` let somebody in? A method that was not called, or a page that refuses, is true and no yes.

    Raises: ImproperlyConfigured for such an answer.
    """
    if answer is not True and answer:
        raise ImproperlyConfigured(f"allow returned {answer!r}; allowed: True, or False for everybody else.")
    return answer is True


def _refused(asked: Asked, *, allowed: bool) -> _Answer | None:
    """What is said to those who are not let in, and to what is no request for a page."""
    if not allowed:
        return _answer(403, "Forbidden\n", "text/plain; charset=utf-8")
    if asked.method not in ("GET", "HEAD", "POST"):
        return _answer(405, "Method Not Allowed\n", "text/plain; charset=utf-8", ("Allow", "GET, HEAD, POST"))
    return None


def _body(request: Any) -> bytes | None:
    """The body of a werkzeug request; None: it is longer than any form."""
    from werkzeug.exceptions import RequestEntityTooLarge

    request.max_content_length = LONGEST
    try:
        body: bytes = request.get_data(cache=False)
    except RequestEntityTooLarge:
        return None
    return body


async def _abody(request: Any) -> bytes | None:
    """The same of a Starlette request."""
    body = b""
    async for chunk in request.stream():
        body += chunk
        if len(body) > LONGEST:
            return None
    return body


def _urls(form: Form) -> tuple[str, ...]:
    return (form.url,) if form.url else ()


def _tags(form: Form) -> tuple[str, ...] | None:
    return (form.tag,) if form.tag else None
