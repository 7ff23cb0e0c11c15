"""Single endpoints of a Starlette application, cached: functions, a class, a mount.

    python -m examples.views_starlette       then http://127.0.0.1:8000/, /greeting, /clock, /archive/1999

`curl -X POST http://127.0.0.1:8000/refresh` removes the greeting.
"""

from __future__ import annotations

from datetime import UTC, datetime

from starlette.applications import Starlette
from starlette.endpoints import HTTPEndpoint
from starlette.requests import Request
from starlette.responses import PlainTextResponse
from starlette.routing import Mount, Route

from cachemw.integrations.starlette import apurge, cache_control, cache_page, lifespan, never_cache, vary_on_headers

__all__ = ["app"]


def now() -> str:
    return datetime.now(UTC).isoformat()


async def index(request: Request) -> PlainTextResponse:
    return PlainTextResponse(f"made at {now()}\n")


@cache_page(60, tags=["greetings"])
@vary_on_headers("Accept-Language")
async def greeting(request: Request) -> PlainTextResponse:
    """One page for each value of Accept-Language."""
    german = request.headers.get("accept-language", "").startswith("de")
    return PlainTextResponse("Guten Tag\n" if german else "Good day\n")


@cache_control(private=True, max_age=30)
async def account(request: Request) -> PlainTextResponse:
    """The visitor's browser may keep it, nobody else."""
    return PlainTextResponse(f"yours alone, made at {now()}\n")


@never_cache
async def refresh(request: Request) -> PlainTextResponse:
    """Purges by tag."""
    await apurge(request, tags=["greetings"])
    return PlainTextResponse("purged\n")


@cache_page(10)
class Clock(HTTPEndpoint):
    """A class of endpoints."""

    async def get(self, request: Request) -> PlainTextResponse:
        return PlainTextResponse(f"made at {now()}\n")


archive = Starlette(routes=[Route("/{year:int}", index)])

app = Starlette(
    routes=[
        Route("/", cache_page(60)(index)),  # in the route table: the view itself knows nothing of it
        Route("/greeting", greeting),
        Route("/account", account),
        Route("/refresh", refresh, methods=["POST"]),
        Route("/clock", Clock),
        Mount("/archive", cache_page(86400)(archive)),
    ],
    lifespan=lifespan(),  # closes the stores at shutdown
)


if __name__ == "__main__":
    from examples.serving import run

    run(app)
