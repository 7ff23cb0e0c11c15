"""A real browser: Debian's Chromium, headless, with a new profile for every test; and the example site for it."""

from __future__ import annotations

import shutil
import threading
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

import pytest
from playwright.sync_api import BrowserContext, Page, sync_playwright
from werkzeug.serving import make_server

from examples.cache_busting import STATIC, create_app
from tests.servers import require

ARGUMENTS = [
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
]


class Logged(NamedTuple):
    """One request as the server saw it."""

    method: str
    url: str
    status: int


@dataclass
class Site:
    """The example, served, with its log."""

    folder: Path
    address: str = ""
    log: list[Logged] = field(default_factory=list)

    def requests(self, path: str, method: str = "GET") -> list[Logged]:
        """Those for this path, whatever their query."""
        return [one for one in self.log if one.method == method and one.url.partition("?")[0] == path]

    def logging(self, app: Any) -> Callable[[Any, Any], Iterable[bytes]]:
        """The application, with a log of what it answers."""

        def logged(environ: Any, start_response: Any) -> Iterable[bytes]:
            def start(status: str, headers: Any, exc_info: Any = None) -> Any:
                query = environ["QUERY_STRING"]
                url = environ["PATH_INFO"] + (f"?{query}" if query else "")
                self.log.append(Logged(environ["REQUEST_METHOD"], url, int(status[:3])))
                return start_response(status, headers, exc_info)

            result: Iterable[bytes] = app(environ, start)
            return result

        return logged


@pytest.fixture
def site(tmp_path: Path) -> Iterator[Site]:
    """The example on a port of its own."""
    site = Site(Path(shutil.copytree(STATIC, tmp_path / f"static-{tmp_path.name}")))
    server = make_server("127.0.0.1", 0, site.logging(create_app(site.folder)), threaded=True)
    site.address = f"http://127.0.0.1:{server.port}"
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    yield site
    server.shutdown()
    thread.join()
    server.server_close()


def _context(profile: Path, *, without: list[str]) -> Iterator[BrowserContext]:
    with sync_playwright() as playwright:
        context = playwright.chromium.launch_persistent_context(
            profile,
            executable_path=require("chromium"),
            headless=True,
            args=ARGUMENTS,
            ignore_default_args=without,
            viewport={"width": 1100, "height": 900},
        )
        yield context
        context.close()


@pytest.fixture
def page(tmp_path: Path) -> Iterator[Page]:
    """A tab of a browser without a memory of pages that were left: each step back loads the page."""
    for context in _context(tmp_path / "profile", without=[]):
        yield context.pages[0]


@pytest.fixture
def remembering_page(tmp_path: Path) -> Iterator[Page]:
    """A tab of a browser as people use it, which keeps pages that were left as they were (bfcache)."""
    for context in _context(tmp_path / "profile", without=["--disable-back-forward-cache"]):
        yield context.pages[0]
