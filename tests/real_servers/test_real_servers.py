"""Flask under gunicorn, in threads and in greenlets, and waitress; Starlette under uvicorn, hypercorn and granian.

Nothing here waits for time to pass: gates (`tests.serving.Gates`) say where the application is.
"""

from __future__ import annotations

import socket
import struct
import time
from collections.abc import Iterator
from dataclasses import dataclass
from http.client import HTTPResponse, IncompleteRead, RemoteDisconnected
from pathlib import Path

import httpx
import pytest

from tests.real_servers.large_pages import BODY
from tests.servers import Server, until
from tests.serving import ASGI_SERVERS, WSGI_SERVERS, Gates, serve

CROWD = 200

WSGI = (*WSGI_SERVERS, "gevent")
ASGI = (*ASGI_SERVERS, "granian")


@dataclass
class Site:
    """A running site, and the gates in it."""

    server: Server
    gates: Gates
    client: httpx.Client

    def get(self, path: str) -> httpx.Response:
        return self.client.get(path)

    def calls(self, path: str) -> int:
        """How often the application was called for this path."""
        return int(self.client.get("/calls", params={"of": path}).text)

    def connect(self, path: str) -> socket.socket:
        """A connection of its own on which this path was asked for."""
        connection = socket.create_connection((self.server.host, self.server.port), timeout=10)
        connection.sendall(f"GET {path} HTTP/1.1\r\nHost: {self.server.address}\r\n\r\n".encode())
        return connection


def until_text(connection: socket.socket, text: bytes) -> bytes:
    """What has arrived when this text has; fails if it does not come while the application is held back."""
    received = b""
    while text not in received:
        more = connection.recv(65536)
        assert more, received
        received += more
    return received


def body_of(connection: socket.socket) -> bytes:
    """The body of the response, as far as it comes; the connection is closed then."""
    with connection, HTTPResponse(connection) as response:
        response.begin()
        try:
            return response.read()
        except IncompleteRead as error:
            return error.partial


def broken_body_of(connection: socket.socket) -> bytes:
    """The same of one that breaks off; granian may notice that before it has sent any of the response."""
    try:
        return body_of(connection)
    except RemoteDisconnected:
        return b""


def reset(connection: socket.socket) -> None:
    """Leave without a good-bye: the server's next bytes are refused."""
    connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    connection.close()


@pytest.fixture(params=[*WSGI, *ASGI], scope="module")
def kind(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture
def site(kind: str) -> Iterator[Site]:
    app = f"tests.real_servers.sites:{'wsgi' if kind in WSGI else 'asgi'}_app"
    with (
        Gates() as gates,
        serve(kind, app, environ={"GATES": str(gates.directory)}) as server,
        httpx.Client(base_url=f"http://{server.address}", timeout=10, trust_env=False) as client,
    ):
        yield Site(server, gates, client)


def test_a_page_is_made_once_and_its_head_is_complete(site: Site) -> None:
    cold, hot = site.get("/page"), site.get("/page")
    assert (cold.text, hot.text) == ("1 page", "1 page")
    assert "; hit" in hot.headers["cache-status"]
    assert hot.headers["age"] == "0"
    assert hot.headers["content-length"] == "6"
    assert len(hot.headers.get_list("date")) == 1
    assert site.calls("/page") == 1


def test_the_first_chunk_arrives_before_the_last_is_made(site: Site) -> None:
    site.gates.shut("stream")
    with site.connect("/stream") as connection:
        until_text(connection, b"1 first\n")
        site.gates.await_arrivals("stream")
        site.gates.open("stream")
        until_text(connection, b"1 last\n")
    assert site.get("/stream").text == "1 first\n1 last\n"
    assert site.calls("/stream") == 1


def test_server_sent_events_arrive_one_by_one_and_are_never_stored(site: Site) -> None:
    site.gates.shut("events")
    with site.connect("/events") as connection:
        until_text(connection, b"data: 1\n\n")
        site.gates.open("events")
        until_text(connection, b"data: 2\n\n")
    assert site.get("/events").text == "2 data: 1\n\n2 data: 2\n\n"


def test_a_client_that_leaves_in_the_middle_leaves_nothing_stored(site: Site, kind: str) -> None:
    site.gates.shut("large")
    connection = site.connect("/large")
    until_text(connection, b"1 first\n")
    site.gates.await_arrivals("large")
    reset(connection)
    if kind in ASGI:
        site.gates.await_departure("large")  # a WSGI application is not told; it sees that nobody takes its bytes
    site.gates.open("large")
    assert site.get("/large").text.startswith("2 first\n")


@pytest.mark.parametrize(("path", "sent"), [("/short", b"only this"), ("/breaks", b"first\n")])
def test_a_body_that_is_not_whole_is_not_stored(site: Site, path: str, sent: bytes) -> None:
    for call in (b"1 ", b"2 "):
        assert (call + sent).startswith(broken_body_of(site.connect(path)))
    assert site.calls(path) == 2


def test_a_crowd_that_finds_nothing_stored_calls_the_application_once(site: Site) -> None:
    site.gates.shut("cold")
    crowd = [site.connect("/cold") for _ in range(CROWD)]
    site.gates.await_arrivals("cold")
    site.gates.open("cold")
    assert {body_of(connection) for connection in crowd} == {b"1 cold"}
    assert site.calls("/cold") == 1


def test_a_crowd_before_a_private_page_is_not_made_to_queue(site: Site) -> None:
    site.gates.shut("private")
    crowd = [site.connect("/private") for _ in range(20)]
    site.gates.await_arrivals("private", 20)  # all of them are inside of the application at the same time
    site.gates.open("private")
    assert len({body_of(connection) for connection in crowd}) == 20


def test_shutting_down_does_not_wait_for_a_background_refresh(site: Site) -> None:
    assert site.get("/stale").text == "1 stale"
    site.gates.shut("stale")
    assert site.get("/stale").text == "1 stale"  # stale, and fetched again behind our back
    site.gates.await_arrivals("stale")
    site.client.close()
    began = time.monotonic()
    site.server.stop()
    assert time.monotonic() - began < 4


def test_a_page_of_megabytes_comes_from_its_file_whole_and_in_parts(kind: str, tmp_path: Path) -> None:
    app = f"tests.real_servers.large_pages:{'wsgi' if kind in WSGI else 'asgi'}_app"
    with (
        serve(kind, app, environ={"LARGE_PAGES": str(tmp_path / "cache")}) as server,
        httpx.Client(base_url=f"http://{server.address}", timeout=10, trust_env=False) as client,
    ):
        first = client.get("/")
        assert first.content == BODY
        assert "; hit" not in first.headers["cache-status"]
        # it is stored when its last byte has left: who asks at once may be given it on the way there
        until(lambda: "; hit" in client.get("/").headers["cache-status"], "the page is stored")
        for _ in range(5):  # remembered from the third time on, over one connection
            whole = client.get("/")
            assert whole.content == BODY
            assert "; hit" in whole.headers["cache-status"]
            assert whole.headers["content-length"] == str(len(BODY))
        part = client.get("/", headers={"Range": "bytes=8000-8015"})
        assert (part.status_code, part.text) == (206, "0001000\n0001001\n")
        assert client.head("/").headers["content-length"] == str(len(BODY))

        def read() -> int:
            return int(client.get("/read").text)

        # first it is read as a whole, to see that it is what was stored
        until(lambda: client.get("/").content == BODY and read() >= len(BODY), "the store has taken the page")
        before = read()
        assert client.get("/").content == BODY
        itself = kind in ("gunicorn", "granian")
        assert read() - before == (0 if itself else len(BODY)), "some servers send the file by themselves"
