"""Pages of the file store that are too large to be remembered: a body goes from file to client in pieces."""

from __future__ import annotations

import asyncio
import os
import time
import tracemalloc
from collections.abc import Callable, Iterable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any
from wsgiref.util import FileWrapper, setup_testing_defaults
from wsgiref.validate import validator

import pytest
from starlette.applications import Starlette
from starlette.middleware.base import BaseHTTPMiddleware
from starlette.middleware.gzip import GZipMiddleware
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from cachemw import Hooks, asgi, cache_page, purge, wsgi
from cachemw._codec_compression import Compression
from cachemw.backends import filebased
from cachemw.backends._file.entry import Reference
from cachemw.backends._file.large import FiledBody
from cachemw.backends._file.pages import clock
from cachemw.backends.filebased import FileBasedCache
from cachemw.backends.locmem import LocMemCache
from cachemw.codec import Apart, Codec
from cachemw.locale import ASGITimezoneMiddleware, WSGITimezoneMiddleware
from cachemw.rfc9111.messages import StoredResponse
from tests.backends.file_store import bodies
from tests.servers import until

SIZE = 4 * 1024 * 1024
BODY = os.urandom(SIZE)
FIELDS = [("Content-Type", "application/pdf"), ("Cache-Control", "max-age=600"), ("ETag", '"large"')]
MINUTE = 60 * 10**9  # nanoseconds
#: Bytes of Python's memory that an answer may take: a few blocks, and what it is made of.
LITTLE = SIZE // 4


class Client:
    """Asks for the page by one interface; keeps what it gets, or, where it looks at memory, one block at a time."""

    def __init__(self, interface: str, cache: FileBasedCache) -> None:
        self.calls = 0
        self.interface = interface
        self.cache = cache
        self.wsgi = wsgi.CacheMiddleware(self._wsgi_app, cache=cache)
        self.asgi = asgi.CacheMiddleware(self._asgi_app, cache=cache)
        self.environ: dict[str, Any] = {}
        self.extensions: dict[str, Any] | None = None
        self.messages: list[Any] = []  # of the last response

    def _wsgi_app(self, environ: Any, start_response: Any) -> Iterable[bytes]:
        self.calls += 1
        start_response("200 OK", FIELDS)
        return [BODY]

    async def _asgi_app(self, scope: Any, receive: Any, send: Any) -> None:
        self.calls += 1
        fields = [(name.lower().encode(), value.encode()) for name, value in FIELDS]
        await send({"type": "http.response.start", "status": 200, "headers": fields})
        await send({"type": "http.response.body", "body": BODY})

    def get(self, keep: Callable[[bytes], object], method: str = "GET", **fields: str) -> tuple[int, dict[str, str]]:
        if self.interface == "wsgi":
            return self._get_by_wsgi(keep, method, fields)
        return asyncio.run(self._get_by_asgi(keep, method, fields))

    def body(self, **fields: str) -> bytes:
        pieces: list[bytes] = []
        self.get(pieces.append, **fields)
        return b"".join(pieces)

    def _get_by_wsgi(
        self, keep: Callable[[bytes], object], method: str, fields: dict[str, str]
    ) -> tuple[int, dict[str, str]]:
        environ: dict[str, Any] = {"REQUEST_METHOD": method, "QUERY_STRING": "", **self.environ}
        environ |= {f"HTTP_{name.upper()}": value for name, value in fields.items()}
        setup_testing_defaults(environ)
        started: list[Any] = []

        def start_response(status: str, headers: Any, exc_info: Any = None) -> Any:
            started[:] = [int(status[:3]), {name.lower(): value for name, value in headers}]
            return keep

        result: Any = validator(self.wsgi)(environ, start_response)
        for block in result:
            keep(block)
        result.close()
        return started[0], started[1]

    async def _get_by_asgi(
        self, keep: Callable[[bytes], object], method: str, fields: dict[str, str]
    ) -> tuple[int, dict[str, str]]:
        headers = [(b"host", b"127.0.0.1")]
        headers += [(name.replace("_", "-").encode(), value.encode()) for name, value in fields.items()]
        scope: dict[str, Any] = {
            "type": "http",
            "method": method,
            "scheme": "http",
            "path": "/",
            "raw_path": b"/",
            "query_string": b"",
            "root_path": "",
            "headers": headers,
        }
        if self.extensions is not None:
            scope["extensions"] = self.extensions
        self.messages = []
        started: list[Any] = []
        ended = []

        requests = [{"type": "http.request", "body": b"", "more_body": False}]

        async def receive() -> Any:
            if not requests:
                await asyncio.get_running_loop().create_future()
            return requests.pop()

        async def send(message: Any) -> None:
            self.messages.append({name: said for name, said in message.items() if name != "body"})
            if message["type"] == "http.response.start":
                started[:] = [message["status"], {n.decode(): v.decode() for n, v in message["headers"]}]
            elif message["type"] == "http.response.pathsend":
                keep(Path(message["path"]).read_bytes())
                ended.append(True)
            else:
                keep(message.get("body", b""))
                ended.append(not message.get("more_body", False))

        await self.asgi(scope, receive, send)
        assert ended[-1]
        assert not any(ended[:-1])
        return started[0], started[1]


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[FileBasedCache]:
    """A minute has gone by since anything was written."""
    monkeypatch.setattr(filebased, "clock", lambda: clock() + MINUTE)
    cache = FileBasedCache(tmp_path / "cache", {})
    yield cache
    cache.close()


@pytest.fixture(params=["wsgi", "asgi"])
def client(request: pytest.FixtureRequest, cache: FileBasedCache) -> Client:
    """Who has asked for the page so often that all but its body is remembered."""
    client = Client(request.param, cache)
    for _ in range(4):
        assert client.body() == BODY
    assert client.calls == 1
    return client


def _peak(work: Callable[[], object]) -> int:
    """Bytes that Python takes meanwhile, at most."""
    tracemalloc.start()
    try:
        work()
        return tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()


def _opened(cache: FileBasedCache) -> list[str]:
    """The files of the cache that this process has open."""
    found = []
    for name in os.listdir("/proc/self/fd"):
        with suppress(FileNotFoundError):  # that of the listing itself
            found.append(os.readlink(f"/proc/self/fd/{name}"))
    return [path for path in found if path.startswith(str(cache.location))]


def _until_all_is_closed(cache: FileBasedCache) -> None:
    until(lambda: not _opened(cache), "the thread that has read lets go of the file, too")


def test_its_body_is_never_in_memory(client: Client) -> None:
    assert client.body() == BODY
    assert _peak(lambda: client.get(len)) < LITTLE
    status, fields = client.get(len)
    assert (status, fields["content-length"], fields["etag"]) == (200, str(SIZE), '"large"')
    assert fields["cache-status"].startswith("cachemw; hit")
    _until_all_is_closed(client.cache)
    assert client.calls == 1


def test_of_a_part_only_that_is_read(client: Client) -> None:
    assert client.body(range="bytes=1000000-1000009") == BODY[1_000_000:1_000_010]
    assert client.body(range="bytes=-5") == BODY[-5:]
    assert _peak(lambda: client.get(len, range="bytes=100-199")) < LITTLE // 10


def test_nothing_of_it_is_read_where_it_is_not_sent(client: Client) -> None:
    for method, fields, expected in (("HEAD", {}, 200), ("GET", {"if_none_match": '"large"'}, 304)):
        if client.interface == "asgi":
            fields = {name.replace("_", "-"): value for name, value in fields.items()}
        pieces: list[bytes] = []
        status, _ = client.get(pieces.append, method, **fields)
        assert (status, b"".join(pieces)) == (expected, b"")
    _until_all_is_closed(client.cache)
    assert client.calls == 1


def test_a_page_that_is_replaced_while_it_is_sent_is_sent_whole(client: Client) -> None:
    pieces: list[bytes] = []

    def keep(block: bytes) -> None:
        if not pieces:
            assert len(_opened(client.cache)) == 1
            client.cache.clear()
        pieces.append(block)

    client.get(keep)
    assert b"".join(pieces) == BODY
    assert client.calls == 1
    assert client.body() == BODY, "which the application has made anew"
    assert client.calls == 2


def test_a_file_of_the_same_name_that_is_another_one_is_read(client: Client, tmp_path: Path) -> None:
    (file,) = bodies(tmp_path / "cache")
    file.unlink()
    file.write_bytes(b"?" + BODY[1:])  # a byte of the body has gone wrong
    assert client.body() == BODY
    assert client.calls == 2


def test_a_server_is_given_it_as_a_file(cache: FileBasedCache) -> None:
    """PEP 3333: it may be read in whatever way is best for the server."""
    client = Client("wsgi", cache)
    for _ in range(4):
        client.body()
    environ: dict[str, Any] = {"wsgi.file_wrapper": FileWrapper}
    setup_testing_defaults(environ)
    result: Any = client.wsgi(environ, lambda *_: len)
    assert isinstance(result, FileWrapper)
    assert result.filelike.read(10) == BODY[:10]
    assert result.filelike.read() == BODY[10:]
    result.close()
    assert result.filelike.read() == b""


def test_what_stands_between_server_and_cache_is_given_its_pieces(cache: FileBasedCache) -> None:
    """A middleware between the halves could not do anything with what is the server's."""
    client = Client("wsgi", cache)
    told: list[Any] = []

    def between(app: Any) -> Any:
        def passing(environ: Any, start_response: Any) -> Any:
            told.append(app(environ, start_response))
            return told[-1]

        return passing

    inner = WSGITimezoneMiddleware(wsgi.FetchFromCacheMiddleware(client._wsgi_app, cache=cache), cookie="tz")
    client.wsgi = wsgi.UpdateCacheMiddleware(between(inner), cache=cache)  # type: ignore[assignment]
    client.environ = {"wsgi.file_wrapper": FileWrapper}
    for _ in range(5):
        assert client.body() == BODY
    assert client.calls == 1
    assert not any(isinstance(result, FileWrapper) for result in told)


def test_a_large_page_is_stored_again_when_it_is_validated(cache: FileBasedCache) -> None:
    """What has no body in memory is as good a page as any where the rules make another one of it."""
    client = Client("wsgi", cache)
    for _ in range(4):
        client.body()
    pages = client.wsgi.caching.line.pages
    (primary,) = [learnt.primary for learnt in client.wsgi.caching.line.learnt.values()]
    (record,) = pages.lookup((primary,))
    assert not isinstance(record.body, bytes)  # type: ignore[union-attr]
    pages.run(pages.commit([(primary, record.replace(lifetime=1200.0), 1200.0)]), None)  # type: ignore[union-attr]
    assert client.body() == BODY
    assert client.calls == 1


@pytest.mark.usefixtures("cache")
def test_with_a_secret_nothing_is_sent_that_was_not_verified_just_now(tmp_path: Path) -> None:
    cache = FileBasedCache(tmp_path / "signed", {"SECRET": "s" * 32})
    client = Client("wsgi", cache)
    for _ in range(4):
        assert client.body() == BODY
    (primary,) = [learnt.primary for learnt in client.wsgi.caching.line.learnt.values()]
    (record,) = client.wsgi.caching.line.pages.lookup((primary,))
    assert isinstance(record.body, bytes)  # type: ignore[union-attr]
    cache.close()


def test_a_body_that_ends_too_early_breaks_off(tmp_path: Path) -> None:
    file = tmp_path / "file"
    file.write_bytes(b"0123456789")
    body = FiledBody(os.open(file, os.O_RDONLY), str(file), Reference("00" * 16, 100, 0))
    assert body[2:8] == b"234567"
    with pytest.raises(OSError, match="ended at 10 of 100 bytes"):
        bytes(body)


# The body's file, sent by its path


PATHSEND: dict[str, Any] = {"http.response.pathsend": {}}


@pytest.fixture
def by_path(cache: FileBasedCache) -> Client:
    """A client of a server that sends files by their paths."""
    client = Client("asgi", cache)
    client.extensions = PATHSEND
    assert client.body() == BODY
    return client


def _kinds(client: Client) -> list[str]:
    return [message["type"].removeprefix("http.response.") for message in client.messages]


def test_a_server_is_told_the_path_of_the_body(by_path: Client, tmp_path: Path) -> None:
    for _ in range(4):
        assert by_path.body() == BODY
        assert _kinds(by_path) == ["start", "pathsend"]
        (file,) = bodies(tmp_path / "cache")
        assert by_path.messages[-1] == {"type": "http.response.pathsend", "path": str(file)}
    status, fields = by_path.get(len)
    assert (status, fields["content-length"]) == (200, str(SIZE))
    assert fields["cache-status"].startswith("cachemw; hit")
    assert by_path.calls == 1


@pytest.mark.parametrize("extensions", [None, {}, {"http.response.push": {}}], ids=str)
def test_no_other_server_is(by_path: Client, extensions: dict[str, Any] | None) -> None:
    by_path.extensions = extensions
    assert by_path.body() == BODY
    assert "pathsend" not in _kinds(by_path)
    assert by_path.calls == 1


def test_nor_is_one_that_sends_no_whole_body(by_path: Client) -> None:
    assert by_path.body(range="bytes=10-19") == BODY[10:20]
    assert _kinds(by_path) == ["start", "body"]
    for method, fields, expected in (("HEAD", {}, 200), ("GET", {"if_none_match": '"large"'}, 304)):
        assert by_path.get(len, method, **fields)[0] == expected
        assert _kinds(by_path) == ["start", "body"]


def test_the_first_hit_of_a_process_takes_no_memory_either(client: Client, tmp_path: Path) -> None:
    other = Client(client.interface, FileBasedCache(tmp_path / "cache", {}))
    assert _peak(lambda: other.get(len)) < LITTLE
    assert other.calls == 0


def test_a_page_that_is_purged_when_its_path_is_to_be_told_comes_in_pieces(
    by_path: Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = FiledBody.path

    def purged(body: FiledBody) -> str | None:
        by_path.cache.clear()
        return path(body)

    monkeypatch.setattr(FiledBody, "path", purged)
    assert by_path.body() == BODY
    assert set(_kinds(by_path)) == {"start", "body"}
    assert by_path.calls == 1


def test_middlewares_around_the_cache_pass_the_path_on(by_path: Client) -> None:
    cached = by_path.asgi
    hooks = Hooks()
    seen: list[int] = []

    @hooks.after_request
    def note(response: Response) -> Response:
        seen.append(response.status_code)
        return response

    class Base(BaseHTTPMiddleware):
        async def dispatch(self, request: Any, call_next: Any) -> Any:
            return await call_next(request)

    timed = ASGITimezoneMiddleware(cached, cookie="tz")
    hooked = asgi.CacheMiddleware(by_path._asgi_app, cache=by_path.cache, hooks=hooks)
    for around in (GZipMiddleware(cached), Base(cached), timed, hooked):
        by_path.asgi = around  # type: ignore[assignment]
        for _ in range(2):  # in a time zone it is another page
            assert by_path.body(accept_encoding="gzip") == BODY
        assert "pathsend" in _kinds(by_path)
    assert seen == [200, 200]


def test_the_path_passes_the_outer_half(cache: FileBasedCache) -> None:
    client = Client("asgi", cache)
    client.extensions = PATHSEND
    inner = asgi.FetchFromCacheMiddleware(client._asgi_app, cache=cache)
    client.asgi = asgi.UpdateCacheMiddleware(inner, cache=cache)  # type: ignore[assignment]
    for number in range(4):
        assert client.body() == BODY
        assert ("pathsend" in _kinds(client)) == (number > 0)
    assert client.calls == 1


def test_another_cache_around_this_one_is_given_the_pieces(by_path: Client) -> None:
    """Of a path it could store nothing."""
    by_path.asgi = asgi.CacheMiddleware(by_path.asgi, cache=LocMemCache("around", {}))
    for _ in range(2):
        assert by_path.body() == BODY
        assert "pathsend" not in _kinds(by_path)
    assert by_path.get(len)[1]["cache-status"].count("hit") == 1, "its own"
    assert by_path.calls == 1


@pytest.mark.parametrize("fails", [False, True], ids=["looked up", "in the place of an error"])
def test_a_view_has_the_body_of_its_page(tmp_path: Path, fails: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    """What it returns is a response of the framework's, whatever the server takes."""
    files = FileBasedCache(tmp_path / "cache", {})
    calls: list[Request] = []
    monkeypatch.setattr(FiledBody, "path", lambda body: body._file)  # also of those that are read under a lease

    @cache_page(10, cache=files)
    async def view(request: Request) -> Response:
        calls.append(request)
        if len(calls) > 1:
            raise RuntimeError("the view fails")
        return Response(BODY, headers={"Cache-Control": "stale-if-error=600"})

    client = Client("asgi", files)
    client.extensions = PATHSEND
    client.asgi = Starlette(routes=[Route("/", view)])  # type: ignore[assignment]
    assert client.body() == BODY
    if fails:
        later = time.time() + 60
        monkeypatch.setattr(time, "time", lambda: later)
    for number in range(3):
        assert client.body() == BODY
        assert len(calls) == (number + 2 if fails else 1)


# Faults, as a visitor sees them


@pytest.mark.parametrize("fault", ["deleted", "cut", "changed"])
def test_a_page_that_lost_its_body_is_made_anew(client: Client, tmp_path: Path, fault: str) -> None:
    (file,) = bodies(tmp_path / "cache")
    match fault:
        case "deleted":
            file.unlink()
        case "cut":
            os.truncate(file, SIZE // 2)
        case "changed":
            with file.open("r+b") as open_file:
                open_file.write(b"?" * 10)
    pages = getattr(client, client.interface).caching.line.pages
    assert client.body() == BODY
    assert client.calls == 2
    assert pages.failures["body"] == 1
    assert client.body() == BODY
    assert client.calls == 2


def test_a_soft_purge_leaves_the_body_where_it_is(cache: FileBasedCache, tmp_path: Path) -> None:
    """The page is stored again as a stale one; when it was validated, once more."""
    client = Client("wsgi", cache)
    client.body()
    (file,) = bodies(tmp_path / "cache")
    inode = file.stat().st_ino
    purge("http://127.0.0.1/", soft=True, caching=client.wsgi.caching)
    inodes = {one.stat().st_ino for one in bodies(tmp_path / "cache")}
    assert inodes == {inode}
    assert client.body() == BODY
    assert client.calls == 2, "it was stale"


def test_a_signed_store_reads_nothing_whose_body_was_not_signed(tmp_path: Path) -> None:
    """Whoever may write to the directory could put any body in a page's place."""
    client = Client("wsgi", FileBasedCache(tmp_path / "cache", {}))
    assert client.body() == BODY
    signed = Client("wsgi", FileBasedCache(tmp_path / "cache", {"SECRET": "s" * 32}))
    assert signed.body() == BODY
    assert signed.calls == 1
    assert signed.wsgi.caching.line.pages.failures["secret"] > 0


def test_a_head_without_its_body_is_no_page(tmp_path: Path) -> None:
    """Nor is a body whose head does not speak of it; so an older version of this package would see it."""
    codec = Codec()
    record = StoredResponse(key="k", status=200, body=BODY, born=0.0, lifetime=1.0, began=0.0, fields=())
    apart = codec.encode_apart(record, above=SIZE - 1)
    assert isinstance(apart, Apart)
    assert codec.decode("k", apart).body is BODY  # type: ignore[union-attr]
    whole = codec.encode_apart(record, above=SIZE)
    assert isinstance(whole, bytes)
    for payload in (apart.payload, Apart(apart.payload, None), Apart(apart.payload, BODY[1:]), Apart(whole, BODY)):
        assert codec.decode("k", payload) is None
    assert codec.refused == {"body": 4}
    assert Codec([b"secret"]).decode("k", apart) is None
    assert isinstance(Codec([b"secret"]).encode_apart(record, above=1), bytes)


def test_what_can_be_compressed_is_and_what_cannot_has_its_file(tmp_path: Path) -> None:
    codec = Codec(compression=Compression(compress="zlib"))
    record = StoredResponse(key="k", status=200, body=b"a" * SIZE, born=0.0, lifetime=1.0, began=0.0, fields=())
    assert isinstance(codec.encode_apart(record, above=SIZE // 2), bytes)
    assert isinstance(codec.encode_apart(record.replace(body=BODY), above=SIZE // 2), Apart)
