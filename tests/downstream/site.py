"""One site as a Flask and as a Starlette application, behind the cache with its defaults.

Every body says how often its page was made, for which language and which cookies. `/asked?of=/path` says what has
arrived at the cache for this path, a list of the fields of each request; `/under-way` how many answers are not over.
"""

from __future__ import annotations

import json
from collections import Counter, defaultdict
from collections.abc import Awaitable, Callable, Iterable, Mapping
from dataclasses import dataclass
from email.utils import formatdate
from time import time
from typing import Any, Final
from urllib.parse import parse_qs

from flask import Flask, Response, request
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import PlainTextResponse
from starlette.routing import Route
from werkzeug.wsgi import ClosingIterator

from cachemw import CacheMiddleware, cache_control, cache_page, never_cache, vary_on_cookie, vary_on_headers
from cachemw.headers import patch_response_headers
from cachemw.purging import apurge, purge

__all__ = ["asgi_app", "wsgi_app"]

minute: Final = cache_control(public=True, max_age=60)


def expires_in_a_minute() -> dict[str, str]:
    return {"Expires": formatdate(time() + 60, usegmt=True)}


def patched() -> dict[str, str]:
    headers: dict[str, str] = {}
    patch_response_headers(headers, 60)
    return headers


def nothing() -> dict[str, str]:
    return {}


@dataclass(frozen=True)
class Page:
    """decorators: of its view, the outermost first; fields: what its responses have by themselves."""

    decorators: tuple[Any, ...] = ()
    fields: Callable[[], Mapping[str, str]] = nothing
    status: int = 200

    def decorate(self, view: Any) -> Any:
        for decorator in reversed(self.decorators):
            view = decorator(view)
        return view


def having(*decorators: Any, **fields: str) -> Page:
    pairs = {name.replace("_", "-"): value for name, value in fields.items()}
    return Page(decorators, lambda: pairs)


PAGES: Final = {
    "silent": having(),
    "minute": having(minute),
    "chosen": having(cache_page(60)),
    "longer-here": having(cache_page(3600), minute),
    "expires": Page(fields=expires_in_a_minute),
    "patched": Page(fields=patched),
    "s-maxage": having(cache_control(s_maxage=60, max_age=10)),
    "browsers-ask": having(cache_control(public=True, s_maxage=60, max_age=0)),
    "must-revalidate": having(cache_control(public=True, max_age=60, must_revalidate=True), ETag='"v1"'),
    "proxy-revalidate": having(cache_control(public=True, max_age=60, proxy_revalidate=True), ETag='"v1"'),
    "revalidate-in-background": having(cache_control(public=True, max_age=60, stale_while_revalidate=30)),
    "never": having(never_cache),
    "never-after-all": having(never_cache, CDN_Cache_Control="max-age=60", Surrogate_Control="max-age=60"),
    "private": having(cache_control(private=True, max_age=60)),
    "private-field": having(cache_control(private=["X-Name"], max_age=60), X_Name="Ada"),
    "no-store": having(cache_control(no_store=True)),
    "no-cache": having(cache_control(no_cache=True), ETag='"v1"'),
    "at-once": having(cache_control(max_age=0)),
    "language": having(minute, vary_on_headers("Accept-Language")),
    "cookie": having(minute, vary_on_cookie),
    "anything": having(minute, Vary="*"),
    "cdn-alone": having(CDN_Cache_Control="max-age=60", Cache_Control="no-cache"),
    "cdn-longer": having(minute, CDN_Cache_Control="max-age=3600", ETag='"v1"'),
    "cdn-shorter": having(cache_control(public=True, max_age=3600), CDN_Cache_Control="max-age=60"),
    "news": having(minute, Surrogate_Key="news front"),
    "newsletter": having(minute, Surrogate_Key="newsletter"),
    "tagged": having(minute, Cache_Tag="news,front"),
    "sets-cookie": having(minute, Set_Cookie="session=secret"),
    "sets-cookie-unasked": having(Set_Cookie="session=secret"),
    "for-members": having(cache_control(max_age=60)),
    "from-further-in": having(minute, Cache_Status="origin; hit"),
    "missing": Page(status=404),
}

asked: Final[dict[str, list[dict[str, str]]]] = defaultdict(list)
under_way: Final[set[object]] = set()


def told(path: str, query: str) -> str | None:
    """The answer to a question of the test's own."""
    if path == "/asked":
        return json.dumps(asked[parse_qs(query)["of"][0]])
    return json.dumps(len(under_way)) if path == "/under-way" else None


# -- Flask -------------------------------------------------------------------------------------------------------------


def flask_site() -> Flask:
    app = Flask(__name__)
    made: Counter[str] = Counter()

    def add(name: str, page: Page) -> None:
        def view() -> Response:
            made[request.full_path] += 1
            ours, theirs = made[request.full_path], request.headers
            text = f"{ours} {theirs.get('Accept-Language', '-')} {theirs.get('Cookie', '-')}"
            return Response(text, page.status, dict(page.fields()), content_type="text/plain")

        app.add_url_rule(f"/{name}", name, page.decorate(view), methods=["GET", "POST"])

    for name, page in PAGES.items():
        add(name, page)

    @app.post("/purge")
    def purge_tag() -> str:
        return str(purge(tags=[request.args["tag"]], caching=wsgi_cache.caching))

    return app


def wsgi_app(environ: Any, start_response: Any) -> Iterable[bytes]:
    """The site behind the cache, with a note of what arrives there."""
    path, query = environ["PATH_INFO"], environ["QUERY_STRING"]
    answer = told(path, query)
    if answer is not None:
        start_response("200 OK", [("Content-Type", "application/json")])
        return [answer.encode()]
    fields = {name[5:].lower().replace("_", "-"): value for name, value in environ.items() if name[:5] == "HTTP_"}
    asked[f"{path}?{query}"].append(fields)
    mark = object()
    under_way.add(mark)
    return ClosingIterator(wsgi_cache(environ, start_response), lambda: under_way.remove(mark))


# -- Starlette ---------------------------------------------------------------------------------------------------------


def starlette_site() -> Starlette:
    made: Counter[str] = Counter()

    def route(name: str, page: Page) -> Route:
        async def view(request: Request) -> PlainTextResponse:
            key, theirs = f"{request.url.path}?{request.url.query}", request.headers
            made[key] += 1
            text = f"{made[key]} {theirs.get('Accept-Language', '-')} {theirs.get('Cookie', '-')}"
            return PlainTextResponse(text, page.status, dict(page.fields()))

        return Route(f"/{name}", page.decorate(view), methods=["GET", "POST"])

    async def purge_tag(request: Request) -> PlainTextResponse:
        return PlainTextResponse(str(await apurge(tags=[request.query_params["tag"]], caching=asgi_cache.caching)))

    routes = [route(name, page) for name, page in PAGES.items()]
    return Starlette(routes=[*routes, Route("/purge", purge_tag, methods=["POST"])])


async def asgi_app(scope: Any, receive: Any, send: Callable[[Any], Awaitable[None]]) -> None:
    """The site behind the cache, with a note of what arrives there."""
    if scope["type"] != "http":
        await asgi_cache(scope, receive, send)
        return
    path, query = scope["path"], scope["query_string"].decode()
    answer = told(path, query)
    if answer is not None:
        await PlainTextResponse(answer)(scope, receive, send)
        return
    asked[f"{path}?{query}"].append({name.decode(): value.decode() for name, value in scope["headers"]})
    mark = object()
    under_way.add(mark)
    try:
        await asgi_cache(scope, receive, send)
    finally:
        under_way.remove(mark)


wsgi_cache: Any = CacheMiddleware(flask_site().wsgi_app, cache="locmem://downstream-wsgi")
asgi_cache: Any = CacheMiddleware(starlette_site(), cache="locmem://downstream-asgi")
