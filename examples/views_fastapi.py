"""Single path operations of a FastAPI application, cached; response models and the OpenAPI document stay as they are.

    python -m examples.views_fastapi         then http://127.0.0.1:8000/weather/Kiel, and /docs

It needs FastAPI: pip install ".[demo,fastapi]".
"""

from __future__ import annotations

import asyncio
from datetime import UTC, datetime
from typing import Annotated

from fastapi import APIRouter, Depends, FastAPI, Header, Request
from pydantic import BaseModel

from cachemw.integrations.fastapi import CachedRoute, apurge, cache_page, lifespan, never_cache, page, vary_on_headers

__all__ = ["app"]

app = FastAPI(title="Weather", lifespan=lifespan())


class Weather(BaseModel):
    """What is known of a place."""

    place: str
    made: datetime
    unit: str = "Celsius"


@app.get("/weather/{place}")
@cache_page(60, tags=lambda place: [f"weather-{place}"])
async def weather(place: str) -> Weather:
    """A slow question, asked once a minute for each place."""
    await asyncio.sleep(0.3)
    return Weather(place=place, made=datetime.now(UTC))


@app.get("/unit")
@cache_page(3600)
@vary_on_headers("X-Unit")
async def unit(x_unit: Annotated[str, Header()] = "Celsius") -> dict[str, str]:
    """Another answer for each value of a field."""
    return {"unit": x_unit}


@app.post("/weather/{place}")
@never_cache
async def measured(request: Request, place: str) -> dict[str, str]:
    """A new measurement: what is stored of this place is out of date."""
    await apurge(request, tags=[f"weather-{place}"])
    return {"place": place}


archive = APIRouter(prefix="/archive", route_class=CachedRoute, dependencies=[Depends(page(86400))])


@archive.get("/{year}")
async def year(year: int) -> Weather:
    """All of a router, by a dependency."""
    return Weather(place=f"anywhere in {year}", made=datetime.now(UTC))


app.include_router(archive)


if __name__ == "__main__":
    from examples.serving import run

    run(app, "/weather/Kiel")
