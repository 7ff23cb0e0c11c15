"""WSGI's own ways (PEP 3333): write(), exc_info, late starts, files, close. The stories are in scenarios/."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterable, Iterator
from contextlib import suppress
from io import BytesIO
from itertools import count
from pathlib import Path
from typing import Any
from wsgiref.util import FileWrapper, setup_testing_defaults

import pytest

from cachemw import ImproperlyConfigured, Policy, wsgi
from cachemw.backends.filebased import FileBasedCache
from cachemw.backends.locmem import LocMemCache

Start = Callable[..., Callable[[bytes], object]]


class Server:
    """A WSGI server for one request; it keeps what it got, in order."""

    def __init__(self, app: Any, path: str = "/", **variables: Any) -> None:
        environ: dict[str, Any] = {}
        setup_testing_defaults(environ)
        environ.update({"PATH_INFO": path, "wsgi.file_wrapper": FileWrapper, **variables})
        self.events: list[Any] = []
        self.status = ""
        self.headers: list[tuple[str, str]] = []
        self.body = b""
        self.error: Any = None
        self.result: Any = app(environ, self.start)
        self.environ = environ

    def start(self, status: str, headers: list[tuple[str, str]], exc_info: Any = None) -> Callable[[bytes], object]:
        if exc_info and self.body:
            raise exc_info[1]
        self.events.append(status)
        self.status, self.headers, self.error = status, headers, exc_info
        return self.write

    def write(self, data: bytes) -> None:
        self.events.append(data)
        self.body += data

    def finish(self) -> Server:
        for chunk in self.result:
            if chunk:
                assert self.status, "start_response comes before the first byte"
            self.events.append(chunk)
            self.body += chunk
        getattr(self.result, "close", lambda: None)()
        return self

    @property
    def trace(self) -> str:
        return next((value for name, value in self.headers if name == "Cache-Status"), "")


names = count()


def cached(app: Any, **options: Any) -> Any:
    return wsgi.CacheMiddleware(app, cache=LocMemCache(f"wsgi-{next(names)}"), **options)


def test_a_page_is_stored_with_its_last_byte_for_a_client_that_never_closes(tmp_path: Path) -> None:
    """In a store that is waited for, too, and though nobody knew that it was the last one."""

    def app(environ: Any, start_response: Start) -> Iterator[bytes]:
        start_response("200 OK", [])
        yield b"pa"
        yield b"ge"

    visits = []
    for told in ("stored", "hit"):  # of another process, say: nothing but the store is common to both
        visits.append(Server(wsgi.CacheMiddleware(app, cache=FileBasedCache(str(tmp_path), {}))))
        assert b"".join(visits[-1].result) == b"page"
        assert f"; {told}" in visits[-1].trace


@pytest.mark.parametrize("control", ["private", "max-age=60"])
@pytest.mark.parametrize(
    ("status", "fields", "body", "length"),
    [
        ("200 OK", [], [b"a page"], "6"),
        ("404 Not Found", [], (b"a ", b"page"), "6"),
        ("200 OK", [], [], "0"),
        ("200 OK", [("content-length", "6")], [b"a page"], "6"),
        ("200 OK", [], iter([b"a page"]), None),
        ("204 No Content", [], [], None),
        ("304 Not Modified", [], [], None),
    ],
)
def test_the_length_of_a_body_in_one_piece_is_told(
    control: str, status: str, fields: list[tuple[str, str]], body: Any, length: str | None
) -> None:
    """A server says it itself where `len()` of the body is 1 (PEP 3333), and a body that is relayed has no `len()`."""

    def app(environ: Any, start_response: Start) -> Iterable[bytes]:
        start_response(status, [*fields, ("Cache-Control", control)])
        return body  # type: ignore[no-any-return]

    told = [value for name, value in Server(cached(app)).finish().headers if name.lower() == "content-length"]
    assert told == ([] if length is None else [length])
    assert "Content-Length" not in dict(Server(cached(app), REQUEST_METHOD="HEAD").headers)


@pytest.mark.parametrize("stored", ["GET", "HEAD"])
def test_of_the_body_that_head_is_not_sent_a_hit_tells_no_length(stored: str) -> None:
    """A server says the length of a body in one piece itself (PEP 3333): of one that is empty, 0."""

    def app(environ: Any, start_response: Start) -> Iterable[bytes]:
        start_response("200 OK", [("Cache-Control", "max-age=60")])
        return [] if environ["REQUEST_METHOD"] == "HEAD" else [b"page"]

    site = cached(app)
    Server(site, REQUEST_METHOD=stored).finish()
    hit = Server(site, REQUEST_METHOD="HEAD")
    assert "; hit" in hit.trace
    assert not len(hit.result)


def test_write_is_relayed_and_kept() -> None:
    def app(environ: Any, start_response: Start) -> Iterable[bytes]:
        write = start_response("200 OK", [("Content-Type", "text/plain")])
        write(b"one ")
        write(b"two ")
        return [b"three"]

    middleware = cached(app)
    first = Server(middleware).finish()
    assert first.body == b"one two three"
    assert first.events[1] == b"one "  # nothing waits for the end
    second = Server(middleware).finish()
    assert "hit" in second.trace
    assert second.body == b"one two three"


@pytest.mark.parametrize("evicted", [False, True])
def test_what_is_written_is_refreshed_too(monkeypatch: pytest.MonkeyPatch, evicted: bool) -> None:
    """In the background, where no client takes it."""
    now = 1_800_000_000.0
    monkeypatch.setattr("cachemw.wsgi.time.time", lambda: now)
    calls = count(1)

    def app(environ: Any, start_response: Start) -> Iterable[bytes]:
        start = [("Content-Type", "text/plain"), ("Cache-Control", "max-age=10, stale-while-revalidate=60")]
        write = start_response("200 OK", start)
        write(b"version ")
        write(b"%d, " % next(calls))
        return [b"whole"]

    middleware = cached(app)
    assert Server(middleware).finish().body == b"version 1, whole"
    now += 20
    refreshes: list[Callable[[], None]] = []
    monkeypatch.setattr(middleware.refresher, "start", lambda key, refresh, path: refreshes.append(refresh))
    assert Server(middleware).finish().body == b"version 1, whole"
    if evicted:  # before the refresh has its turn
        middleware.caching.line.pages.cache.clear()
    (refresh,) = refreshes
    refresh()
    fresh = Server(middleware).finish()
    assert "hit" in fresh.trace
    assert fresh.body == b"version 2, whole"


def test_a_second_start_response_replaces_the_first_before_the_body() -> None:
    def app(environ: Any, start_response: Start) -> Iterable[bytes]:
        start_response("200 OK", [("Content-Type", "text/plain")])
        try:
            raise LookupError("late")
        except LookupError:
            start_response("500 Oops", [("Content-Type", "text/plain")], sys.exc_info())
        return [b"error"]

    middleware = cached(app)
    told = []
    for _ in range(2):
        server = Server(middleware).finish()
        assert server.status == "500 Oops"
        assert "hit" not in server.trace
        told.append(server.error)
    assert [kind for kind, _, _ in told] == [LookupError] * 2  # whoever logs errors further out is told of them


def test_an_error_after_the_first_byte_is_the_server_s() -> None:
    def app(environ: Any, start_response: Start) -> Iterator[bytes]:
        start_response("200 OK", [("Content-Type", "text/plain")])
        yield b"half"
        try:
            raise LookupError("late")
        except LookupError:
            start_response("500 Oops", [("Content-Type", "text/plain")], sys.exc_info())
        yield b"never"

    middleware = cached(app)
    server = Server(middleware)
    with pytest.raises(LookupError):
        server.finish()
    server.result.close()
    assert "hit" not in Server(middleware).trace


def test_an_error_after_the_first_byte_leaves_no_page_though_the_application_hides_it() -> None:
    def app(environ: Any, start_response: Start) -> Iterator[bytes]:
        start_response("200 OK", [("Content-Type", "text/plain")])
        yield b"half"
        try:
            raise LookupError("late")
        except LookupError:
            with suppress(LookupError):
                start_response("500 Oops", [("Content-Type", "text/plain")], sys.exc_info())
        yield b" and an apology"

    middleware = cached(app)
    for _ in range(2):
        server = Server(middleware).finish()
        assert server.body == b"half and an apology"
        assert "hit" not in server.trace


@pytest.mark.parametrize("read", [[], [b"half"]])
@pytest.mark.parametrize("error", [ValueError, SystemExit, KeyboardInterrupt])
def test_who_reads_on_after_an_error_has_not_read_a_whole_page(error: type[BaseException], read: list[bytes]) -> None:
    """As somebody may who catches what a worker's time-out raises."""

    def app(environ: Any, start_response: Start) -> Iterator[bytes]:
        start_response("200 OK", [("Content-Type", "text/plain")])
        yield from read
        raise error

    middleware = cached(app)
    server = Server(middleware)
    with pytest.raises(error):
        server.finish()
    server.finish()
    assert not middleware.caching.line.flights
    assert "hit" not in Server(middleware).trace


def test_calling_start_response_twice_is_an_error() -> None:
    def app(environ: Any, start_response: Start) -> Iterable[bytes]:
        start_response("200 OK", [])
        start_response("200 OK", [])
        return []

    with pytest.raises(AssertionError, match="twice"):
        Server(cached(app))


def test_a_generator_starts_late() -> None:
    def app(environ: Any, start_response: Start) -> Iterator[bytes]:
        yield b""
        start_response("200 OK", [("Content-Type", "text/plain")])
        yield b"page"

    middleware = cached(app)
    assert Server(middleware).finish().body == b"page"
    assert "hit" in Server(middleware).finish().trace


def test_an_empty_generator_has_its_head() -> None:
    def app(environ: Any, start_response: Start) -> Iterator[bytes]:
        start_response("200 OK", [("Content-Type", "text/plain")])
        yield from ()

    middleware = cached(app)
    assert Server(middleware).finish().status == "200 OK"
    assert "hit" in Server(middleware).finish().trace


def test_a_file_goes_to_the_server_as_it_is() -> None:
    def app(environ: Any, start_response: Start) -> Iterable[bytes]:
        start_response("200 OK", [("Content-Type", "text/plain")])
        wrapped: Iterable[bytes] = environ["wsgi.file_wrapper"](BytesIO(b"file"))
        return wrapped

    middleware = cached(app)
    for _ in range(2):
        server = Server(middleware)
        assert isinstance(server.result, FileWrapper)
        assert server.finish().body == b"file"
        assert server.trace == "cachemw; fwd=uri-miss; fwd-status=200; detail=passed-on"
    assert len(middleware.caching.line.flights) == 0


def test_a_file_that_cannot_be_closed_goes_through() -> None:
    class Endless:
        def __init__(self) -> None:
            self.read = BytesIO(b"file").read

    def app(environ: Any, start_response: Start) -> Iterable[bytes]:
        start_response("200 OK", [("Content-Type", "text/plain")])
        wrapped: Iterable[bytes] = environ["wsgi.file_wrapper"](Endless())
        return wrapped

    middleware = cached(app)
    for _ in range(2):
        server = Server(middleware).finish()
        assert server.body == b"file"
        assert "hit" not in server.trace
    assert len(middleware.caching.line.flights) == 0


class Later:
    """An application that is a generator: it answers when the first part of its body is asked for.

    answers: (status, fields, body), one after the other; the last one for ever.
    """

    def __init__(self, *answers: tuple[str, dict[str, str], list[bytes]]) -> None:
        self.answers = list(answers)
        self.asked: list[dict[str, Any]] = []

    def __call__(self, environ: dict[str, Any], start_response: Start) -> Iterator[bytes]:
        self.asked.append(environ)
        status, fields, body = self.answers.pop(0) if len(self.answers) > 1 else self.answers[0]
        start_response(status, list(fields.items()))
        yield from body


@pytest.fixture
def later(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """Seconds that have passed since the first request; to be set."""
    passed = [0.0]
    monkeypatch.setattr("cachemw.wsgi.time.time", lambda: 1_800_000_000.0 + passed[0])
    return passed


LATER = {"Content-Type": "text/plain", "ETag": '"1"', "Cache-Control": "max-age=10, stale-if-error=60"}


@pytest.mark.parametrize(
    ("status", "body"),
    [("304 Not Modified", []), ("500 Oops", []), ("500 Oops", [b"err", b"or"]), ("503 Busy", [b"", b"busy"])],
)
def test_what_stands_in_for_an_answer_that_comes_late(later: list[float], status: str, body: list[bytes]) -> None:
    app = Later(("200 OK", LATER, [b"pa", b"ge"]), (status, LATER if status[0] == "3" else {}, body))
    middleware = cached(app)
    assert Server(middleware).finish().body == b"page"
    later[0] = 20.0
    server = Server(middleware).finish()
    assert (server.status[:3], server.body) == ("200", b"page")
    assert server.events.count(b"page") == len(server.events) - 1
    assert len(app.asked) == 2


def test_a_late_answer_that_does_not_fit_is_asked_for_again(later: list[float]) -> None:
    """RFC 9111 §4.3.3: a 304 to a condition that the client has not made, and that no stored page bears out."""
    app = Later(
        ("200 OK", LATER, [b"old"]), ("304 Not Modified", {**LATER, "ETag": '"2"'}, []), ("200 OK", LATER, [b"new"])
    )
    middleware = cached(app)
    Server(middleware).finish()
    later[0] = 20.0
    assert Server(middleware).finish().body == b"new"
    assert "HTTP_IF_NONE_MATCH" in app.asked[1]
    assert "HTTP_IF_NONE_MATCH" not in app.asked[2]
    assert Server(middleware).finish().body == b"new"
    assert len(app.asked) == 3


def test_what_is_written_and_not_stored_is_relayed() -> None:
    def app(environ: Any, start_response: Start) -> Iterable[bytes]:
        write = start_response("200 OK", [("Content-Type", "text/plain"), ("Cache-Control", "private")])
        write(b"one ")
        write(b"two ")
        return [b"three"]

    middleware = cached(app)
    for _ in range(2):
        server = Server(middleware).finish()
        assert server.body == b"one two three"
        assert server.events[1:3] == [b"one ", b"two "]


def test_the_application_s_close_is_called_once_whatever_happens() -> None:
    class Body:
        closed = 0

        def __iter__(self) -> Iterator[bytes]:
            return iter([b"a", b"b"])

        def close(self) -> None:
            self.closed += 1

    body = Body()

    def app(environ: Any, start_response: Start) -> Iterable[bytes]:
        start_response("200 OK", [("Content-Type", "text/plain")])
        return body

    middleware = cached(app)
    server = Server(middleware)
    next(server.result)
    server.result.close()
    server.result.close()
    assert body.closed == 1
    assert "hit" not in Server(middleware).finish().trace
    assert "hit" in Server(middleware).finish().trace


def test_a_close_that_fails_is_seen_and_stores_nothing_half() -> None:
    class Body(list[bytes]):
        def close(self) -> None:
            raise RuntimeError("cannot close")

    def app(environ: Any, start_response: Start) -> Iterable[bytes]:
        start_response("200 OK", [("Content-Type", "text/plain")])
        return Body([b"a"])

    middleware = cached(app)
    server = Server(middleware)
    for _ in server.result:
        pass
    with pytest.raises(RuntimeError, match="cannot close"):
        server.result.close()
    assert len(middleware.caching.line.flights) == 0


@pytest.mark.parametrize("variables", [{"REQUEST_METHOD": "HEAD"}])
def test_a_server_need_not_read_the_body_of_head(variables: Any) -> None:
    def app(environ: Any, start_response: Start) -> Iterable[bytes]:
        start_response("200 OK", [("Content-Type", "text/plain"), ("Content-Length", "4")])
        return []

    middleware = cached(app)
    Server(middleware, **variables).result.close()
    assert "hit" in Server(middleware, **variables).trace


def test_a_request_without_a_host_is_known_by_its_server() -> None:
    def app(environ: Any, start_response: Start) -> Iterable[bytes]:
        start_response("200 OK", [("Content-Type", "text/plain")])
        return [environ["SERVER_NAME"].encode()]

    middleware = cached(app)

    def ask(name: str) -> Server:
        environ: dict[str, Any] = {}
        setup_testing_defaults(environ)
        del environ["HTTP_HOST"]
        server = Server.__new__(Server)
        server.events, server.status, server.headers, server.body = [], "", [], b""
        server.result = middleware({**environ, "SERVER_NAME": name}, server.start)
        return server.finish()

    assert [ask("a").body, ask("b").body, ask("a").body] == [b"a", b"b", b"a"]
    assert "hit" in ask("b").trace


def test_whom_the_server_has_authenticated_is_somebody() -> None:
    """Apache keeps the field Authorization to itself and says `REMOTE_USER` instead."""

    def app(environ: Any, start_response: Any) -> Iterable[bytes]:
        start_response("200 OK", [("Content-Type", "text/plain")])
        return [f"hello {environ.get('REMOTE_USER', '')}".encode()]

    site = cached(app)
    for name in ("alice", "bob"):
        assert Server(site, REMOTE_USER=name).finish().body == f"hello {name}".encode()
    assert Server(site).finish().body == Server(site, REMOTE_USER="").finish().body == b"hello "
    assert Server(site, REMOTE_USER="alice").finish().body == b"hello alice"


@pytest.mark.parametrize("policy", [Policy(), Policy(keyed_fields=()), Policy.django()])
@pytest.mark.parametrize("says", ["", "public, max-age=60"])
def test_a_page_for_the_owner_of_a_certificate_is_for_nobody_else(says: str, policy: Policy) -> None:
    def app(environ: Any, start_response: Any) -> Iterable[bytes]:
        fields = [("Content-Type", "text/plain"), *([("Cache-Control", says)] if says else [])]
        start_response("200 OK", fields if policy.keyed_fields else [*fields, ("Vary", "Client-Cert")])
        return [f"hello {environ.get('SSL_CLIENT_S_DN', '')}".encode()]

    site = cached(app, policy=policy)
    for name in ("CN=alice", "CN=bob", ""):
        known = {"SSL_CLIENT_S_DN": name} if name else {}
        answers = [Server(site, **known).finish() for _ in range(2)]
        assert [answer.body.decode() for answer in answers] == [f"hello {name}"] * 2
        assert "Age" in dict(answers[1].headers)
        forged = Server(site, HTTP_CLIENT_CERT="CN=alice", **known).finish()
        assert forged.body.decode() == f"hello {name}"


@pytest.mark.parametrize("says", ["max-age=60", "public, max-age=60"])
def test_who_is_known_shares_pages_that_are_public(monkeypatch: pytest.MonkeyPatch, says: str) -> None:
    """As with Authorization, a user gets no page of nobody's, and does not tell the application's answer to all."""

    def app(environ: Any, start_response: Any) -> Iterable[bytes]:
        user = environ.get("REMOTE_USER", "")
        fields = [("Cache-Control", says), ("ETag", '"1"'), ("X-Hello", user)]
        status = "304 Not Modified" if "HTTP_IF_NONE_MATCH" in environ else "200 OK"
        start_response(status, fields)
        return [] if status[:3] == "304" else [b"hello " + user.encode()]

    def hello(**variables: str) -> str:
        answer = Server(site, **variables).finish()
        return f"{dict(answer.headers)['X-Hello']}: {answer.body.decode()}"

    site, now, public = cached(app), 1_800_000_000.0, says.startswith("public")
    monkeypatch.setattr("cachemw.wsgi.time.time", lambda: now)
    assert hello() == ": hello "
    assert hello(REMOTE_USER="alice") == (": hello " if public else "alice: hello alice")
    now += 61
    assert hello(REMOTE_USER="alice") == ("alice: hello " if public else "alice: hello alice")
    assert hello() == ("alice: hello " if public else ": hello ")


def test_the_mount_is_part_of_the_key_and_a_purge_finds_it() -> None:
    from cachemw import purge

    def app(environ: Any, start_response: Start) -> Iterable[bytes]:
        start_response("200 OK", [("Content-Type", "text/plain")])
        return [environ["SCRIPT_NAME"].encode() + b"|" + environ["PATH_INFO"].encode()]

    middleware = cached(app)
    assert Server(middleware, "/b", SCRIPT_NAME="/a").finish().body == b"/a|/b"
    assert Server(middleware, "/a/b", SCRIPT_NAME="").finish().body == b"|/a/b"
    assert Server(middleware, "/b", SCRIPT_NAME="/a").finish().body == b"/a|/b"
    assert purge("http://127.0.0.1/a/b", caching=middleware.caching) == 2
    assert "hit" not in Server(middleware, "/b", SCRIPT_NAME="/a").finish().trace


def test_a_stale_page_in_place_of_a_generator_that_fails(monkeypatch: pytest.MonkeyPatch) -> None:
    fail = False

    def app(environ: Any, start_response: Start) -> Iterator[bytes]:
        if fail:
            raise RuntimeError("down")
        start_response("200 OK", [("Content-Type", "text/plain"), ("Cache-Control", "max-age=1")])
        yield b"page"

    middleware = cached(app, policy=Policy(stale_if_error=60))
    Server(middleware).finish()
    monkeypatch.setattr("cachemw.wsgi.time.time", lambda: 2e9)
    import time

    middleware.caching.line.pages.cache._clock = time.monotonic
    for item in middleware.caching.line.pages.cache._store.entries.values():
        item.value.born = 2e9 - 30
        item.value.fresh_until = 2e9 - 29
        item.expires = float("inf")
    fail = True
    server = Server(middleware).finish()
    assert server.body == b"page"
    assert server.status == "200 OK"


def test_a_client_that_asks_again_before_it_has_read_gets_the_same_page() -> None:
    """Flask's test client gives an answer back when it has the head, and its body when somebody looks at it."""
    from flask import Flask

    app = Flask(__name__)
    calls = 0

    @app.get("/")
    def page() -> str:
        nonlocal calls
        calls += 1
        return f"page {calls}"

    app.wsgi_app = cached(app.wsgi_app)  # type: ignore[method-assign]
    client = app.test_client()
    first, second = client.get("/"), client.get("/")
    third = client.get("/")
    assert (first.text, second.text, third.text) == ("page 1", "page 1", "page 1")
    assert client.get("/").headers["Cache-Status"].startswith("cachemw; hit")
    assert calls == 1


def test_a_thread_never_waits_for_itself() -> None:
    def app(environ: Any, start_response: Start) -> Iterator[bytes]:
        start_response("200 OK", [("Content-Type", "text/plain")])
        yield b"a"
        yield b"b"

    middleware = cached(app)
    unread = Server(middleware)
    next(unread.result)
    assert Server(middleware).finish().body == b"ab"
    del unread
    assert "hit" in Server(middleware).finish().trace


@pytest.mark.parametrize("chunks", [[b"abcd", b"e"], [b"abcd", RuntimeError("late")]])
def test_a_body_that_goes_on_after_its_length_is_not_stored(chunks: list[Any]) -> None:
    def app(environ: Any, start_response: Start) -> Iterator[bytes]:
        start_response("200 OK", [("Content-Type", "text/plain"), ("Content-Length", "4")])
        for chunk in chunks:
            if isinstance(chunk, Exception):
                raise chunk
            yield chunk

    middleware = cached(app)
    for _ in range(2):
        server = Server(middleware)
        try:
            server.finish()
        except RuntimeError:
            server.result.close()
        assert "hit" not in server.trace
    assert len(middleware.caching.line.flights) == 0


@pytest.mark.parametrize("fields", [[], [("Content-Length", "4")]], ids=["a list", "its length stated"])
def test_a_client_that_does_not_read_on_after_the_last_byte(fields: list[tuple[str, str]]) -> None:
    """So do test clients: they take the first chunk, and neither ask for a second nor close."""
    calls: list[str] = []

    def app(environ: Any, start_response: Start) -> Iterable[bytes]:
        calls.append(environ["PATH_INFO"])
        start_response("200 OK", fields)
        return [b"page"] if not fields else iter([b"page"])

    middleware = cached(app)
    unread = Server(middleware)
    assert next(iter(unread.result)) == b"page"
    assert Server(middleware).finish().body == b"page"
    assert len(calls) == 1
    assert unread.finish().body == b""  # what came late changes nothing
    assert "hit" in Server(middleware).finish().trace


@pytest.mark.parametrize("chunks", [[b"a" * 8], [b"aaaa", b"aaaa"], [b"aaaa", bytearray(b"a")]])
@pytest.mark.parametrize("stated", [False, True], ids=["a list", "its length stated"])
def test_a_body_that_is_not_kept_is_relayed_to_its_end(chunks: list[Any], stated: bool) -> None:
    """Too long, or of something that is no `bytes`: the length is reached all the same."""
    length = sum(map(len, chunks))

    def app(environ: Any, start_response: Start) -> Iterable[bytes]:
        start_response("200 OK", [("Content-Length", str(length))] if stated else [])
        return iter(chunks) if stated else chunks

    middleware = cached(app, policy=Policy(max_body=7))
    for _ in range(2):
        server = Server(middleware).finish()
        assert len(server.body) == length
        assert "hit" not in server.trace


@pytest.mark.parametrize("kind", [wsgi.CacheMiddleware, wsgi.UpdateCacheMiddleware, wsgi.FetchFromCacheMiddleware])
def test_an_asynchronous_application_is_refused_at_start_up(kind: Any) -> None:
    async def app(scope: Any, receive: Any, send: Any) -> None:
        """Never called."""

    class Application:
        async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
            """Never called."""

    for wrong in (app, Application()):
        with pytest.raises(ImproperlyConfigured, match=r"is asynchronous.*cachemw\.asgi"):
            kind(wrong)
