"""One page in two languages and any time zone, for the whole world: ASGI without a framework.

    python -m examples.languages         then http://127.0.0.1:8000/en/ and http://127.0.0.1:8000/de/

The language comes from the path, else from a cookie, else from Accept-Language, else it is the first one; the time zone
comes from a function of the request, else from a cookie. Both are parts of the key, so that each page is stored once
for each of them, however many different Accept-Language fields there are in the world.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from datetime import UTC, datetime
from typing import Any
from zoneinfo import ZoneInfo

from cachemw import (
    FetchFromCacheMiddleware,
    LocaleMiddleware,
    Settings,
    TimezoneMiddleware,
    UpdateCacheMiddleware,
    get_language,
    get_timezone,
)

__all__ = ["app"]

GREETINGS = {"en": "Good day! In {zone} it is {time}.", "de": "Guten Tag! In {zone} ist es {time}."}


async def site(scope: Any, receive: Any, send: Callable[[Any], Awaitable[None]]) -> None:
    """The page, in what is active for this request."""
    if scope["type"] != "http":
        return
    language, zone = get_language() or "en", get_timezone() or "UTC"
    time = datetime.now(UTC).astimezone(ZoneInfo(zone)).strftime("%H:%M:%S")
    headers = [(b"content-type", b"text/plain; charset=utf-8")]
    await send({"type": "http.response.start", "status": 200, "headers": headers})
    await send({"type": "http.response.body", "body": f"{GREETINGS[language].format(zone=zone, time=time)}\n".encode()})


async def choose_zone(request: Any) -> str | None:
    """What a proxy or a profile knows of the visitor; None leaves it to the cookie."""
    known: str | None = request.headers.get("x-time-zone")
    return known


# Update first, fetch last: what is between the two may choose what the page depends on.
settings = Settings(seconds=60, use_i18n=True, use_tz=True, key_prefix="languages")
app: Any = FetchFromCacheMiddleware(site, settings=settings)
app = TimezoneMiddleware(app, choose=choose_zone)
app = LocaleMiddleware(app, languages=["en", "de"], path_prefix="strip")
app = UpdateCacheMiddleware(app, settings=settings)


if __name__ == "__main__":
    from examples.serving import run

    run(app)
