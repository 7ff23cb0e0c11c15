"""The decorators and extensions under the servers that people run, with crowds, streams and several processes."""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import httpx
import pytest

from tests.serving import serve

FLASK = """
import threading
from flask import Flask, session, url_for
from cachemw import cache_page
from cachemw.integrations.flask import CacheMW

app = Flask(__name__)
app.secret_key = "not secret at all"
cachemw = CacheMW(app, site=False)
calls = []
gate = threading.Event()

@app.get("/")
@cache_page(60)
def home():
    calls.append(1)
    return f"page {len(calls)}"

@app.get("/async")
@cache_page(60)
async def in_task():
    calls.append(1)
    return f"page {len(calls)}"

@app.get("/slow")
@cache_page(60)
def slow():
    calls.append(1)
    gate.wait(10)
    return f"page {len(calls)}"

@app.get("/stream")
@cache_page(60)
def stream():
    calls.append(1)
    def parts():
        yield f"first {len(calls)}\\n"
        gate.wait(10)
        yield "last"
    return parts()

@app.get("/name")
@cache_page(60)
def name():
    calls.append(1)
    return f"{session.get('name')} {len(calls)}"

@app.get("/login/<name>")
def login(name):
    session["name"] = name
    return "welcome"

@app.get("/open")
def open_gate():
    gate.set()
    return "open"

@app.get("/calls")
def count():
    return str(len(calls))

@app.post("/")
def change():
    return str(cachemw.purge(url_for("home")))
"""

STARLETTE = """
import asyncio
import threading
from starlette.applications import Starlette
from starlette.middleware import Middleware
from starlette.middleware.sessions import SessionMiddleware
from starlette.responses import PlainTextResponse, StreamingResponse
from starlette.routing import Route
from cachemw import apurge, cache_page
from cachemw.integrations.starlette import lifespan

calls = []
gate = threading.Event()

def home(request):
    calls.append(1)
    return PlainTextResponse(f"page {len(calls)}")

async def in_task(request):
    return home(request)

def slow(request):
    calls.append(1)
    gate.wait(10)
    return PlainTextResponse(f"page {len(calls)}")

async def stream(request):
    calls.append(1)
    async def parts():
        yield f"first {len(calls)}\\n"
        await asyncio.to_thread(gate.wait, 10)
        yield "last"
    return StreamingResponse(parts())

async def name(request):
    calls.append(1)
    return PlainTextResponse(f"{request.session.get('name')} {len(calls)}")

async def login(request):
    request.session["name"] = request.path_params["name"]
    return PlainTextResponse("welcome")

async def open_gate(request):
    gate.set()
    return PlainTextResponse("open")

async def count(request):
    return PlainTextResponse(str(len(calls)))

async def change(request):
    return PlainTextResponse(str(await apurge(str(request.base_url))))

app = Starlette(
    lifespan=lifespan(),
    middleware=[Middleware(SessionMiddleware, secret_key="not secret at all")],
    routes=[
        Route("/", cache_page(60)(home)),
        Route("/", change, methods=["POST"]),
        Route("/async", cache_page(60)(in_task)),
        Route("/slow", cache_page(60)(slow)),
        Route("/stream", cache_page(60)(stream)),
        Route("/name", cache_page(60)(name)),
        Route("/login/{name}", login),
        Route("/open", open_gate),
        Route("/calls", count),
    ],
)
"""

SITES = {"gunicorn": FLASK, "uvicorn": STARLETTE}


@pytest.fixture(params=SITES)
def site(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[httpx.Client]:
    (tmp_path / "site_of_test.py").write_text(SITES[request.param])
    with (
        serve(request.param, "site_of_test:app", path=tmp_path) as server,
        httpx.Client(base_url=f"http://{server.address}", trust_env=False, timeout=20) as client,
    ):
        yield client


def is_hit(response: httpx.Response) -> bool:
    return "; hit" in response.headers.get("Cache-Status", "")


def test_views_are_stored_and_purged(site: httpx.Client) -> None:
    for path, expected in (("/", "page 1"), ("/async", "page 2")):
        assert site.get(path).text == site.get(path).text == expected
        assert is_hit(site.head(path))
    assert int(site.post("/").text) > 0
    assert site.get("/").text == "page 3"
    assert is_hit(site.get("/async"))


def test_a_crowd_calls_the_view_once(site: httpx.Client) -> None:
    """More of them than the server has threads."""

    def ask() -> str:
        return httpx.get(f"{site.base_url}/slow", trust_env=False, timeout=20).text

    with ThreadPoolExecutor(60) as crowd:
        answers = [crowd.submit(ask) for _ in range(30)]
        assert site.get("/open").text == "open"
        answers += [crowd.submit(ask) for _ in range(30)]
        assert {answer.result(20) for answer in answers} == {"page 1"}
    assert site.get("/calls").text == "1"


def test_the_first_part_of_a_stream_comes_before_the_last_is_made(site: httpx.Client) -> None:
    with site.stream("GET", "/stream") as response:
        parts = response.iter_lines()
        assert next(parts) == "first 1"
        assert httpx.get(f"{site.base_url}/open", trust_env=False).text == "open"  # until now, it waits
        assert next(parts) == "last"
    assert is_hit(site.get("/stream"))


def test_a_session_is_never_shown_to_a_stranger(site: httpx.Client) -> None:
    address = str(site.base_url)
    with (
        httpx.Client(base_url=address, trust_env=False) as anne,
        httpx.Client(base_url=address, trust_env=False) as bob,
    ):
        anne.get("/login/Anne")
        bob.get("/login/Bob")
        assert anne.get("/name").text == anne.get("/name").text == "Anne 1"
        assert bob.get("/name").text == "Bob 2"
    assert site.get("/name").text == "None 3"
