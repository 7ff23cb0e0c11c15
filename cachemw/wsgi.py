"""The middlewares for WSGI (PEP 3333): I/O only. What is to be done, `cachemw.exchange` says.

    UpdateCacheMiddleware      outermost: stores what leaves the stack, patches its headers
    FetchFromCacheMiddleware   innermost: answers from the cache
    CacheMiddleware            both at one place

Middlewares between the two halves may change what the key depends on (language, `Vary`, cookies): update first, fetch
last, as before hooks run in order and after hooks in reverse (`cachemw.hooks`).
"""

from __future__ import annotations

import time
from collections.abc import Callable, Collection, Iterable, Mapping
from functools import lru_cache
from typing import TYPE_CHECKING, Any, Final

from cachemw._wsgi.hooked import Hooked
from cachemw._wsgi.passage import Passage
from cachemw._wsgi.replies import send_answer, send_stored
from cachemw._wsgi.request import EXCHANGE, SSL_CLIENT, WSGIRequest, sanitised, variable
from cachemw.activation import KEY as LOCALE
from cachemw.activation import Locale
from cachemw.caching import CachingMiddleware, Line
from cachemw.calling import is_async
from cachemw.errors import ImproperlyConfigured
from cachemw.exchange import Exchange
from cachemw.exchange.plain import LookedUp, answer, ask
from cachemw.flights import ThreadRefresher
from cachemw.locale import WSGILocaleMiddleware as LocaleMiddleware
from cachemw.locale import WSGITimezoneMiddleware as TimezoneMiddleware

if TYPE_CHECKING:
    from _typeshed.wsgi import StartResponse, WSGIApplication, WSGIEnvironment

__all__ = [
    "CacheMiddleware",
    "FetchFromCacheMiddleware",
    "LocaleMiddleware",
    "TimezoneMiddleware",
    "UpdateCacheMiddleware",
    "WSGIRequest",
]

_NO_BODY: Final = (None, "", "0")


@lru_cache(64)
def _variables(special: frozenset[str]) -> tuple[Mapping[str, str], frozenset[str]]:
    """The names of these fields by their variables, and the variables whose very presence tells something."""
    names = {variable(name): name for name in special} | {"REMOTE_USER": "authorization"}  # as good as its field
    if "client-cert" in special:
        names[SSL_CLIENT] = "client-cert"
    return names, frozenset(names) - {"CONTENT_LENGTH"}


def _special(environ: WSGIEnvironment, names: Mapping[str, str], telling: frozenset[str]) -> Collection[str]:
    """The fields that the request carries of those in `names`; nothing if there are none that tell something."""
    if telling.isdisjoint(environ) and environ.get("CONTENT_LENGTH") in _NO_BODY:
        return ()
    return [names[variable] for variable in names.keys() & environ.keys()]


class _Middleware(CachingMiddleware):
    """What the three of this interface have in common."""

    app: WSGIApplication

    def _prepare(self) -> None:
        if is_async(self.app):
            raise ImproperlyConfigured(
                f"{self.app!r} is asynchronous, which no WSGI application is. If it is an ASGI application, take the "
                "middleware from cachemw or cachemw.asgi."
            )
        self.refresher = ThreadRefresher()
        self._told = _variables(self.caching.line.special)

    def __call__(self, environ: WSGIEnvironment, start_response: StartResponse) -> Iterable[bytes]:
        if self.hooks is not None:
            return self._hooked(self._respond, environ, start_response)
        request, now = WSGIRequest(environ), time.time()
        line, looked_up = self._plain_line, None
        if line is not None and EXCHANGE not in environ and LOCALE not in environ:
            special = _special(environ, *self._told)
            asked = ask(line, request, special)
            if asked is not None:
                records = line.pages.lookup(asked[0])
                answered = answer(line, request, special, now, asked, records)
                if answered is not None:
                    return send_answer(answered, start_response)
                looked_up = asked[0], records
        return self._answer(request, now, looked_up, start_response)

    def _hooked(
        self, respond: WSGIApplication, environ: WSGIEnvironment, start_response: StartResponse
    ) -> Iterable[bytes]:
        """Answer under the hooks for this path."""
        plan = self._plan(environ.get("PATH_INFO", ""), environ)
        if plan is None:
            return respond(environ, start_response)
        return Hooked(respond, plan, environ, start_response).run()

    def _respond(self, environ: WSGIEnvironment, start_response: StartResponse) -> Iterable[bytes]:
        return self._answer(WSGIRequest(environ), time.time(), None, start_response)

    def _answer(
        self, request: WSGIRequest, now: float, looked_up: LookedUp | None, start_response: StartResponse
    ) -> Iterable[bytes]:
        """Answer by an exchange; `looked_up` is what was by now."""
        environ = request.environ
        exchange = self._exchange_of(request, environ)
        if not self.fetches:
            exchange.request = request  # whatever is in between may answer without the inner half
            environ[EXCHANGE] = exchange
            passage = Passage(self, environ, start_response, exchange)
            passage.place = {name: environ.get(name, "") for name in ("SCRIPT_NAME", "PATH_INFO", "QUERY_STRING")}
            exchange.outer_half = passage
            return passage.call()
        self.begin(exchange, request, now, looked_up)
        if exchange.hit is None and exchange.reply is None:
            self._mind_the_outer_half(exchange)
            return Passage(self, environ, start_response, exchange).board()
        if exchange.refresh and self.updates:
            self.refresh(environ, exchange)
        return send_stored(exchange, start_response)

    def begin(
        self, exchange: Exchange[Line], request: WSGIRequest, now: float, looked_up: LookedUp | None = None
    ) -> None:
        """Look the request up; `looked_up` is what was by now."""
        locale = request.environ.get(LOCALE)
        if locale is not None:
            exchange.speak(locale)
        names, telling = self._told if self.updates else _variables(exchange.engine.special)
        special = _special(request.environ, names, telling)
        before = request.before
        while type(before) is WSGIRequest:
            special = {*special, *_special(before.environ, names, telling)}
            before = before.before
        exchange.begin(request, now, special)
        if looked_up is not None:
            exchange.resume(looked_up)
        lookup = exchange.engine.pages.lookup
        while exchange.wants:
            exchange.found(lookup(exchange.wants))

    def refresh(self, environ: WSGIEnvironment, exchange: Exchange[Line]) -> None:
        """Fetch the page again in the background, for nobody in particular.

        Where the halves stand apart, this is the outer one's work: what is in between has its say about the new page.
        """
        plain = sanitised(environ)
        if exchange.engine.properties:
            plain[LOCALE] = Locale.of(exchange.language, exchange.timezone)

        def work() -> None:
            _drain(self._hooked(self._refreshing, plain, _no_start))

        self.refresher.start(exchange.primary, work, plain.get("PATH_INFO", ""))

    def _refreshing(self, environ: WSGIEnvironment, start_response: StartResponse) -> Iterable[bytes]:
        request = WSGIRequest(environ)
        exchange = self._exchange_of(request, environ)
        exchange.refreshing = True
        passage = Passage(self, environ, start_response, exchange)
        if self.fetches:
            self.begin(exchange, request, time.time())
            return passage.board()
        exchange.request = request
        exchange.outer_half = passage
        environ[EXCHANGE] = exchange
        return passage.call()


class CacheMiddleware(_Middleware):
    """Serve an application's pages from a cache: both halves at one place.

        app.wsgi_app = CacheMiddleware(app.wsgi_app, cache="redis://localhost:6379/0", seconds=60)

    Options and errors: see `cachemw.CacheMiddleware`. With the application alone, the default cache and the
    environment's settings are used.
    """


class UpdateCacheMiddleware(_Middleware):
    """The outer half: stores what leaves the stack, and patches its headers. Use it with `FetchFromCacheMiddleware`."""

    fetches = False


class FetchFromCacheMiddleware(_Middleware):
    """The inner half: answers from the cache. It stores nothing without an `UpdateCacheMiddleware` around it."""

    updates = False


def _no_start(status: str, headers: list[tuple[str, str]], exc_info: Any = None, /) -> Callable[[bytes], object]:
    return _no_write


def _no_write(data: bytes) -> None:
    return None


def _drain(result: Iterable[bytes]) -> None:
    try:
        for _ in result:
            pass
    finally:
        getattr(result, "close", lambda: None)()
