"""Several processes on one store: one call of the application for all of them, and what becomes of one that dies."""

from __future__ import annotations

import os
import signal
import socket
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, closing, contextmanager
from http.client import HTTPResponse
from pathlib import Path

import pytest

from cachemw.backends.db import DatabaseCache
from cachemw.backends.redis import RedisCache
from tests.faults.site import INTERFACES, Site
from tests.servers import (
    Server,
    mariadb_url,
    postgresql_url,
    redis_command,
    redis_info,
    shared,
    start_mariadb,
    start_postgresql,
    start_redis,
)
from tests.serving import Gates, serve

WORKERS = 4
CROWD = 200


@contextmanager
def serving(interface: str, calls: Path, store: str, gates: Gates) -> Iterator[list[Server]]:
    """As many servers with one process each: one server with several lets any of them take all connections."""
    calls.touch()
    kind, app = {"wsgi": ("gunicorn", "wsgi_app"), "asgi": ("uvicorn", "asgi_app")}[interface]
    environ = {"CALLS": str(calls), "STORE": store, "GATES": str(gates.directory)}
    with ExitStack() as stack, ThreadPoolExecutor() as starters:
        started = [starters.submit(serve, kind, f"tests.faults.workers:{app}", environ=environ) for _ in range(WORKERS)]
        yield [stack.enter_context(one.result()) for one in started]


def ask(server: Server, path: str) -> socket.socket:
    connection = socket.create_connection((server.host, server.port), timeout=20)
    connection.sendall(f"GET {path} HTTP/1.1\r\nHost: example.org\r\nConnection: close\r\n\r\n".encode())
    return connection


def answer(connection: socket.socket) -> bytes:
    """The body; gunicorn may take seconds to close a connection after its last byte."""
    with connection, closing(HTTPResponse(connection)) as response:
        response.begin()
        assert response.status == 200
        return response.read()


def lines(calls: Path, path: str) -> list[str]:
    return [line for line in calls.read_text().splitlines() if line.endswith(f" {path}")]


@pytest.fixture(params=INTERFACES)
def interface(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture
def store() -> str:
    """Redis, empty; with time enough for the processes of a busy machine."""
    server = shared(start_redis)
    redis_command(server, "FLUSHALL")
    return f"redis://{server.address}/0?socket_timeout=5&socket_connect_timeout=5"


@pytest.fixture(params=["redis", "sqlite", "postgresql", "mariadb"])
def cold(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """An empty store to which nobody is connected; the databases have the deadlines that they have by themselves."""
    if request.param == "redis":
        return str(request.getfixturevalue("store"))
    if request.param == "sqlite":
        return f"db+sqlite:///{tmp_path}/cache.sqlite"
    url = (
        postgresql_url(shared(start_postgresql))
        if request.param == "postgresql"
        else mariadb_url(shared(start_mariadb))
    )
    with closing(DatabaseCache(url, {"OPTIONS": {"table": "cold", "create": True, "deadline": 10}})) as cache:
        cache.clear()
    return f"db+{url}?table=cold"


def test_two_hundred_cold_requests_to_four_processes_are_one_call(interface: str, cold: str, tmp_path: Path) -> None:
    calls = tmp_path / "calls"
    with Gates() as gates, serving(interface, calls, cold, gates) as servers:
        gates.shut("cold")
        crowd = [ask(servers[number % WORKERS], "/cold") for number in range(CROWD)]
        gates.await_arrivals("cold")
        gates.open("cold")
        bodies = {answer(connection) for connection in crowd}
        assert len(bodies) == 1
        assert len(lines(calls, "/cold")) == 1
        late = {answer(ask(server, "/cold")) for server in servers}
        assert late == bodies


def test_a_process_killed_while_it_makes_a_page_keeps_the_others_waiting_no_longer_than_the_lease(
    interface: str, store: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("LEASE", "1")
    calls = tmp_path / "calls"
    with Gates() as gates, serving(interface, calls, store, gates) as servers:
        gates.shut("cold")
        first = ask(servers[0], "/cold")
        gates.await_arrivals("cold")
        os.kill(int(lines(calls, "/cold")[0].split()[0]), signal.SIGKILL)
        with first:
            assert first.recv(65536) == b""
        gates.open("cold")
        assert answer(ask(servers[1], "/cold"))
        assert len(lines(calls, "/cold")) == 2


def test_a_process_forked_after_use_has_connections_and_a_breaker_of_its_own(interface: str, store: str) -> None:
    with Site(interface, RedisCache(store.partition("?")[0], {"OPTIONS": {"socket_timeout": 5}})) as site:
        site.get("/")
        site.until_hit("/")
        before = int(redis_info(shared(start_redis), "stats")["total_connections_received"])
        child = os.fork()
        if child == 0:
            status = 1
            try:
                with Site(interface, site.cache) as own:  # an event loop of its own
                    fine = own.get("/").hit and own.post("/").version == 1
                    status = 0 if fine and own.pages.counts["store-error"] == 0 else 2
            finally:
                os._exit(status)
        assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
        assert site.get("/").version == 0
        site.until_hit("/")
        assert site.pages.counts["store-error"] == 0
        after = int(redis_info(shared(start_redis), "stats")["total_connections_received"])
        assert after > before + 1
