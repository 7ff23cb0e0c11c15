"""A site behind nginx and behind Varnish, under a server of WSGI and one of ASGI; time passes for all at once."""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

import httpx
import pytest

from tests.downstream.servers import DOWNSTREAM, Clock, start_nginx, start_site, start_varnish
from tests.servers import Server, until

HOST = "example.org"


@dataclass
class Front:
    """One cache downstream, the site behind it, and the clock of both.

    name   "nginx" or "varnish"
    """

    name: str
    server: Server
    site: Server
    clock: Clock
    client: httpx.Client
    _numbers: Iterator[int] = field(default_factory=itertools.count)

    def page(self, name: str) -> str:
        """The path of a page that nobody has asked for yet."""
        return f"/{name}?{self.name}-{next(self._numbers)}"

    def get(self, path: str, **fields: str) -> httpx.Response:
        """Ask the cache downstream; `fields` are the request's."""
        return self.request("GET", self.server, path, **fields)

    def get_past_it(self, path: str, **fields: str) -> httpx.Response:
        """Ask the site itself, as another cache downstream would."""
        return self.request("GET", self.site, path, **fields)

    def request(self, method: str, server: Server, path: str, **fields: str) -> httpx.Response:
        """Send a request for this path to the cache downstream or to the site."""
        headers = {"Host": HOST, **{name.replace("_", "-"): value for name, value in fields.items()}}
        self.client.cookies.clear()
        return self.client.request(method, f"http://{server.address}{path}", headers=headers)

    def asked(self, path: str) -> list[dict[str, Any]]:
        """The requests for this path that have arrived at the site: their fields, in lower case."""
        answer = self.client.get(f"http://{self.site.address}/asked", params={"of": path})
        requests: list[dict[str, Any]] = answer.json()
        return requests

    def advance(self, seconds: int) -> None:
        """So much time passes, as soon as the site has done all that it does once an answer has left."""
        idle = f"http://{self.site.address}/under-way"
        until(lambda: self.client.get(idle).text == "0", "the site is idle")
        self.clock.advance(seconds)


@pytest.fixture(scope="session")
def clock() -> Iterator[Clock]:
    with Clock() as clock:
        yield clock


@pytest.fixture(scope="session", params=["waitress", "uvicorn"])
def site(request: pytest.FixtureRequest, clock: Clock) -> Iterator[Server]:
    with start_site(request.param, clock) as site:
        yield site


@pytest.fixture(scope="session")
def client() -> Iterator[httpx.Client]:
    # a connection for each request: servers close those that were idle for long, and time jumps
    with httpx.Client(timeout=10, trust_env=False, limits=httpx.Limits(max_keepalive_connections=0)) as client:
        yield client


@pytest.fixture(scope="session")
def nginx_server(site: Server, clock: Clock) -> Iterator[Server]:
    with start_nginx(site, clock) as server:
        yield server


@pytest.fixture(scope="session")
def varnish_server(site: Server, clock: Clock) -> Iterator[Server]:
    with start_varnish(site, clock) as server:
        yield server


@pytest.fixture(scope="session")
def nginx(nginx_server: Server, site: Server, clock: Clock, client: httpx.Client) -> Front:
    """The site behind nginx."""
    return Front("nginx", nginx_server, site, clock, client)


@pytest.fixture(scope="session")
def varnish(varnish_server: Server, site: Server, clock: Clock, client: httpx.Client) -> Front:
    """The site behind Varnish."""
    return Front("varnish", varnish_server, site, clock, client)


@pytest.fixture(scope="session", params=DOWNSTREAM)
def front(request: pytest.FixtureRequest, site: Server) -> Front:
    """The site behind each of the two."""
    front: Front = request.getfixturevalue(request.param)
    return front
