"""The dashboard in a real browser: it purges, loads nothing, and fits a narrow screen in both colour schemes."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from itertools import count
from typing import Any, Literal

import pytest
from playwright.sync_api import Page
from werkzeug.middleware.dispatcher import DispatcherMiddleware
from werkzeug.serving import make_server

from cachemw import CacheMiddleware, Metrics, ObservingMiddleware
from cachemw.backends.locmem import LocMemCache
from cachemw.dashboard import Dashboard


@pytest.fixture
def address() -> Iterator[str]:
    """A site whose pages are all different, with its dashboard at /cache/."""
    numbers, metrics = count(1), Metrics()

    def app(environ: Any, start_response: Any) -> list[bytes]:
        start_response("200 OK", [("Content-Type", "text/plain"), ("Cache-Control", "s-maxage=60")])
        return [b"page %d" % next(numbers)]

    cached = CacheMiddleware(app, cache=LocMemCache("in a browser"))
    dashboard = Dashboard(metrics, cached, allow=lambda request: True)
    site: Any = DispatcherMiddleware(ObservingMiddleware(cached, metrics=metrics), {"/cache": dashboard.wsgi})
    server = make_server("127.0.0.1", 0, site, threaded=True)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    yield f"http://127.0.0.1:{server.port}"
    server.shutdown()
    thread.join()
    server.server_close()


def test_an_operator_looks_and_purges(page: Page, address: str) -> None:
    said: list[str] = []
    page.on("console", lambda message: said.append(message.text))
    asked: list[str] = []

    def text() -> str:
        page.goto(f"{address}/page")
        return page.inner_text("body")

    first = text()
    assert text() == first
    page.on("request", lambda request: asked.append(request.url))
    page.goto(f"{address}/cache/")
    page.get_by_role("img", name="Requests by minute").wait_for()
    assert page.get_by_text("50.0", exact=False).count() >= 1
    page.get_by_label("URL").fill(f"{address}/page")
    page.get_by_role("button", name="Purge").click()
    page.get_by_role("status").get_by_text(f"Purged: {address}/page.").wait_for()
    assert set(asked) == {f"{address}/cache/"}
    assert said == []
    assert text() != first


def test_the_page_fits_and_follows_the_colour_scheme(page: Page, address: str) -> None:
    grounds = []
    schemes: list[Literal["light", "dark"]] = ["light", "dark"]
    for scheme in schemes:
        page.emulate_media(color_scheme=scheme)
        for width in (400, 1200):
            page.set_viewport_size({"width": width, "height": 900})
            page.goto(f"{address}/cache/")
            assert page.evaluate("document.documentElement.scrollWidth") <= width
        grounds.append(page.evaluate("getComputedStyle(document.body).backgroundColor"))
    assert grounds == ["rgb(244, 246, 248)", "rgb(14, 19, 25)"]
