"""A choice of one request is never that of the next one in the same thread or task, whatever went wrong."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import httpx
import pytest
from flask import Flask, request, stream_with_context
from werkzeug.test import Client

from cachemw import (
    FetchFromCacheMiddleware,
    Settings,
    UpdateCacheMiddleware,
    activate_language,
    activate_timezone,
    asgi,
    cache_page,
    deactivate_language,
    deactivate_timezone,
    get_language,
    get_timezone,
    wsgi,
)
from cachemw.integrations.flask import CacheMW

GREETINGS = {None: "Hello", "de": "Hallo", "fr": "Bonjour"}


def choose(arguments: Any) -> None:
    """Activates where the visitor has asked for something, and only there."""
    if "l" in arguments:
        activate_language(arguments["l"])
    if "tz" in arguments:
        activate_timezone(arguments["tz"])


def greeting() -> str:
    return f"{GREETINGS[get_language()]} {get_timezone()}"


@pytest.fixture
def name(request: pytest.FixtureRequest) -> str:
    return f"locmem://{abs(hash(request.node.name))}"


def alone(app: Flask, name: str) -> Any:
    return app


def extended(app: Flask, name: str) -> Any:
    CacheMW(app, cache=f"{name}-site")
    return app


def surrounded(app: Flask, name: str) -> Any:
    return wsgi.CacheMiddleware(app, cache=f"{name}-site")


def without_keys(app: Flask, name: str) -> Any:
    return wsgi.CacheMiddleware(app, cache=f"{name}-site", settings=Settings())


def between_halves(app: Flask, name: str) -> Any:
    return UpdateCacheMiddleware(FetchFromCacheMiddleware(app, cache=name), cache=name)


@pytest.mark.parametrize("around", [alone, extended, surrounded, without_keys, between_halves])
def test_in_flask(around: Callable[[Flask, str], Any], name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CACHEMW_USE_I18N", "1")
    monkeypatch.setenv("CACHEMW_USE_TZ", "1")
    app = Flask(__name__)
    app.before_request(lambda: choose(request.args))

    @app.get("/")
    @cache_page(60, cache=name)
    def home() -> str:
        return greeting()

    @app.get("/within")
    @cache_page(60, cache=name)
    def within() -> str:
        activate_language("fr")
        return greeting()

    @app.get("/plain")
    def plain() -> str:
        return greeting()

    @app.get("/broken")
    def broken() -> str:
        raise ArithmeticError

    @app.get("/stream")
    @cache_page(60, cache=name)
    def stream() -> Any:
        return app.response_class(stream_with_context(greeting() for _ in range(2)))

    app.config["PROPAGATE_EXCEPTIONS"] = False
    visitor = Client(around(app, name))
    for path in ("/plain?l=de&tz=Asia/Tokyo", "/stream?l=de&tz=Asia/Tokyo", "/broken?l=de&tz=UTC", "/within"):
        visitor.get(path, buffered=True)
        assert visitor.get("/plain", buffered=True).text == "Hello None", path
        assert visitor.get("/", buffered=True).text == "Hello None", path
        assert (get_language(), get_timezone()) == (None, None)
    assert visitor.get("/?l=de", buffered=True).text == "Hallo None"
    assert visitor.get("/?tz=UTC", buffered=True).text == "Hello UTC"
    assert visitor.get("/stream?l=fr", buffered=True).text == "Bonjour None" * 2
    assert visitor.get("/", buffered=True).text == "Hello None"


def test_what_the_process_has_chosen_is_no_visitors_choice(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where a script activates a language, and then serves."""
    monkeypatch.setenv("CACHEMW_USE_I18N", "1")
    app = Flask(__name__)

    @app.get("/")
    @cache_page(60, cache=name)
    def home() -> str:
        return greeting()

    def serve() -> tuple[str, str | None]:
        activate_language("de")
        return app.test_client().get("/").text, get_language()

    def end() -> tuple[str | None, str | None]:
        deactivate_language()
        deactivate_timezone()
        return get_language(), get_timezone()

    with ThreadPoolExecutor(1) as thread:
        assert thread.submit(serve).result() == ("Hello None", "de")
        assert thread.submit(end).result() == (None, None)


def site(environ: Any, start_response: Any) -> list[bytes]:
    choose(dict(pair.split("=") for pair in environ["QUERY_STRING"].split("&") if pair))
    if environ["PATH_INFO"] == "/broken":
        raise ArithmeticError
    start_response("200 OK", [("Content-Type", "text/plain")])
    return [greeting().encode()]


async def asite(scope: Any, receive: Any, send: Any) -> None:
    choose(dict(pair.split("=") for pair in scope["query_string"].decode().split("&") if pair))
    if scope["path"] == "/broken":
        raise ArithmeticError
    await send({"type": "http.response.start", "status": 200, "headers": [(b"content-type", b"text/plain")]})
    await send({"type": "http.response.body", "body": greeting().encode()})


@pytest.mark.parametrize("settings", [Settings(), Settings(use_i18n=True, use_tz=True)])
def test_in_any_application(settings: Settings, name: str) -> None:
    visitor = Client(wsgi.CacheMiddleware(site, cache=name, settings=settings))
    visitor.get("/?l=de&tz=UTC", buffered=True)
    with pytest.raises(ArithmeticError):
        visitor.get("/broken?l=de&tz=UTC")
    assert visitor.get("/", buffered=True).text == "Hello None"

    async def visit() -> str:
        transport = httpx.ASGITransport(asgi.CacheMiddleware(asite, cache=f"{name}-a", settings=settings))
        async with httpx.AsyncClient(transport=transport, base_url="http://site") as client:
            await client.get("/?l=de&tz=UTC")
            with pytest.raises(ArithmeticError):
                await client.get("/broken?l=de&tz=UTC")
            return (await client.get("/")).text

    assert asyncio.run(visit()) == "Hello None"
