"""A Starlette site with its pages cached: what `flask_site` does, async, and two endpoints that stream.

    python -m examples.starlette_site        then http://127.0.0.1:8000/

`/log` streams a text that ends, line by line: it reaches the client as it is made, and is stored when it is complete.
`/events` is a stream of server-sent events that never ends: it passes the cache by.
"""

from __future__ import annotations

import asyncio
import math
import time
from collections.abc import AsyncIterator
from datetime import UTC, datetime
from typing import Any
from urllib.parse import parse_qs

from starlette.applications import Starlette
from starlette.middleware import Middleware
from starlette.middleware.sessions import SessionMiddleware
from starlette.requests import Request
from starlette.responses import RedirectResponse, Response, StreamingResponse
from starlette.routing import Mount, Route
from starlette.staticfiles import StaticFiles
from starlette.templating import Jinja2Templates

from cachemw import (
    FetchFromCacheMiddleware,
    LocaleMiddleware,
    Settings,
    TimezoneMiddleware,
    UpdateCacheMiddleware,
    get_language,
    get_timezone,
    patch_cache_control,
)
from examples.notices import FOLDER, LANGUAGES, TIMEZONES, Board, shown_time, texts
from examples.timing import asgi_timing

__all__ = ["app", "board"]

board = Board()
templates = Jinja2Templates(FOLDER / "templates")


def page(request: Request, template: str, **values: Any) -> Response:
    """The page in the visitor's language."""
    words = texts()
    return templates.TemplateResponse(
        request,
        template,
        {
            "t": words,
            "here": request.url.path,
            "pages": [("/", words["board"]), ("/you", words["you"]), ("/tide", words["tide"])],
            "language": get_language(),
            "languages": LANGUAGES,
            "timezone": get_timezone(),
            "timezones": TIMEZONES,
            "made": shown_time(datetime.now(UTC)),
            "shown_time": shown_time,
            **values,
        },
    )


async def form(request: Request) -> dict[str, str]:
    """The fields of a form without files."""
    return {name: values[0] for name, values in parse_qs((await request.body()).decode()).items()}


async def show_board(request: Request) -> Response:
    """Caches that we can purge keep the page for a minute; browsers, which we cannot, ask each time."""
    response = page(request, "board.html", notices=await board.aread())
    patch_cache_control(response, public=True, s_maxage=60, max_age=0)
    return response


async def post_notice(request: Request) -> Response:
    """A POST that succeeds invalidates what is stored for its URL (RFC 9111 §4.4), in every language."""
    board.add((await form(request))["text"])
    return RedirectResponse("/", 303)


async def you(request: Request) -> Response:
    """A page for one visitor."""
    if request.method == "POST":
        request.session["name"] = (await form(request))["name"][:40]
        return RedirectResponse("/you", 303)
    visits = request.session["visits"] = request.session.get("visits", 0) + 1
    response = page(request, "you.html", name=request.session.get("name"), visits=visits)
    patch_cache_control(response, private=True, max_age=0)
    return response


async def choose(request: Request) -> Response:
    """The switch of language and time zone: two cookies, which the middlewares read."""
    chosen = await form(request)
    response = RedirectResponse("/", 303)
    response.set_cookie("language", chosen["language"])
    response.set_cookie("timezone", chosen["timezone"])
    return response


async def tide(request: Request) -> Response:
    """The page that listens to `/events`. It says nothing of caching: the cache keeps it for `CACHEMW_SECONDS`."""
    return page(request, "tide.html")


async def log(request: Request) -> Response:
    """Ten lines, one every 0.1 seconds."""

    async def lines() -> AsyncIterator[str]:
        for number in range(1, 11):
            yield f"{number:2}  {datetime.now(UTC):%H:%M:%S.%f} the lighthouse turns\n"
            await asyncio.sleep(0.1)

    return StreamingResponse(lines(), media_type="text/plain")


async def events(request: Request) -> Response:
    """The height of the tide in metres, five times a second."""

    async def levels() -> AsyncIterator[str]:
        while True:
            yield f"data: {1 + math.sin(time.time()):.3f}\n\n"
            await asyncio.sleep(0.2)

    return StreamingResponse(levels(), media_type="text/event-stream")


settings = Settings.from_mapping({"USE_I18N": True, "USE_TZ": True}, base=Settings.from_environ())
app = Starlette(
    routes=[
        Route("/", show_board),
        Route("/", post_notice, methods=["POST"]),
        Route("/you", you, methods=["GET", "POST"]),
        Route("/choose", choose, methods=["POST"]),
        Route("/tide", tide),
        Route("/log", log),
        Route("/events", events),
        Mount("/static", StaticFiles(directory=FOLDER / "static")),
    ],
    middleware=[
        Middleware(UpdateCacheMiddleware, settings=settings, key_prefix="starlette", hooks=asgi_timing()),
        Middleware(LocaleMiddleware, languages=LANGUAGES, cookie="language"),
        Middleware(TimezoneMiddleware),
        Middleware(SessionMiddleware, secret_key="only an example"),
        Middleware(FetchFromCacheMiddleware, settings=settings, key_prefix="starlette"),
    ],
)


if __name__ == "__main__":
    from examples.serving import run

    run(app)
