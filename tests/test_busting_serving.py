"""What responses with static files tell caches, on both interfaces, where any application serves the files.

Each scenario runs against a WSGI application (under `wsgiref.validate`) and an ASGI one that serve files as frameworks
do: an ETag of time and size, 304, ranges.
"""

from __future__ import annotations

import asyncio
import hashlib
import os
from collections.abc import Callable, Iterable, Iterator, Mapping
from io import BytesIO
from pathlib import Path
from typing import Any
from wsgiref.validate import validator

import pytest
from starlette.staticfiles import StaticFiles
from werkzeug.exceptions import HTTPException
from werkzeug.utils import send_from_directory
from werkzeug.wrappers import Request, Response

from cachemw import CacheMiddleware, ImproperlyConfigured
from cachemw.backends.locmem import LocMemCache
from cachemw.busting import StaticFolder, StaticMiddleware

STYLE = b"body { color: red }" * 20
V = hashlib.sha256(STYLE).hexdigest()[:12]
IMMUTABLE = "public, max-age=31536000, immutable"
SHORT = "public, max-age=60"

Answer = tuple[int, dict[str, str], bytes]
Change = Callable[[dict[str, str]], None]


class Site:
    """An application that serves a folder; `fields` go over the framework's own, `opening` runs as it is opened."""

    def __init__(self, interface: str, root: Path) -> None:
        self.interface = interface
        self.root = root
        self.fields: dict[str, str | None] = {}
        self.arriving: Callable[[], None] = lambda: None
        self.opening: Callable[[], None] = lambda: None
        self.seen: list[dict[str, str]] = []
        self.folder = StaticFolder(root)
        self.wrap: Callable[[Any], Any] = lambda app: app
        self.mount = ""

    def get(self, path: str, method: str = "GET", **fields: str) -> Answer:
        query = path.partition("?")[2]
        names = {name.replace("_", "-"): value for name, value in fields.items()}
        run = self._wsgi if self.interface == "wsgi" else self._asgi
        return run(method, path.partition("?")[0], query, names)

    def _changed(self, headers: Any) -> None:
        for name, value in self.fields.items():
            if value is None:
                headers.pop(name, None) if self.interface == "wsgi" else headers.__delitem__(name)
            else:
                headers[name] = value

    def _wsgi(self, method: str, path: str, query: str, fields: Mapping[str, str]) -> Answer:
        def serve(environ: Any, start_response: Any) -> Iterable[bytes]:
            request = Request(environ)
            self.seen.append({name.lower(): value for name, value in request.headers.items()})
            self.arriving()
            try:
                response = send_from_directory(self.root, request.path.removeprefix("/static/"), environ)
            except HTTPException as error:
                response = Response(status=error.code)
            self.opening()
            self._changed(response.headers)
            return response(environ, start_response)

        environ = {
            "REQUEST_METHOD": method,
            "SCRIPT_NAME": self.mount,
            "PATH_INFO": path.encode("utf-8", "surrogateescape").decode("latin-1"),
            "QUERY_STRING": query,
            "SERVER_NAME": "localhost",
            "SERVER_PORT": "80",
            "SERVER_PROTOCOL": "HTTP/1.1",
            "wsgi.version": (1, 0),
            "wsgi.url_scheme": "http",
            "wsgi.input": BytesIO(),
            "wsgi.errors": BytesIO(),
            "wsgi.multithread": False,
            "wsgi.multiprocess": False,
            "wsgi.run_once": False,
        }
        environ["wsgi.errors"] = _Errors()
        environ |= {f"HTTP_{name.upper().replace('-', '_')}": value for name, value in fields.items()}
        started: list[Any] = []
        app = validator(self.wrap(StaticMiddleware(validator(serve), self.folder)))

        def start_response(status: str, headers: Any, exc_info: Any = None) -> Callable[[bytes], object]:
            started[:] = [int(status[:3]), {name.lower(): value for name, value in headers}]
            return lambda data: None

        result = app(environ, start_response)
        try:
            body = b"".join(result)
        finally:
            result.close()  # type: ignore[attr-defined]
        return started[0], started[1], body

    def _asgi(self, method: str, path: str, query: str, fields: Mapping[str, str]) -> Answer:
        files = StaticFiles(directory=self.root)

        async def serve(scope: Any, receive: Any, send: Any) -> None:
            self.seen.append({name.decode(): value.decode() for name, value in scope["headers"]})
            self.arriving()

            async def changed(message: Any) -> None:
                if message["type"] == "http.response.start":
                    from starlette.datastructures import MutableHeaders

                    self._changed(MutableHeaders(raw=message["headers"]))
                else:
                    self.opening()
                await send(message)

            inner = {**scope, "root_path": self.mount + "/static"}
            try:
                await files(inner, receive, changed)
            except Exception as error:
                if getattr(error, "status_code", None) is None:
                    raise
                await send({"type": "http.response.start", "status": error.status_code, "headers": []})  # type: ignore[attr-defined]
                await send({"type": "http.response.body", "body": b""})

        scope = {
            "type": "http",
            "asgi": {"version": "3.0"},
            "http_version": "1.1",
            "scheme": "http",
            "method": method,
            "root_path": self.mount,
            "path": self.mount + path,
            "raw_path": (self.mount + path).encode("utf-8", "surrogateescape"),
            "query_string": query.encode(),
            "headers": [(name.lower().encode(), value.encode()) for name, value in fields.items()],
            "server": ("localhost", 80),
        }
        messages: list[Any] = []

        asked: list[bool] = []

        async def receive() -> Any:
            if asked:
                await asyncio.Event().wait()  # this client does not leave
            asked.append(True)
            return {"type": "http.request", "body": b"", "more_body": False}

        async def send(message: Any) -> None:
            messages.append(message)

        asyncio.run(self.wrap(StaticMiddleware(serve, self.folder))(scope, receive, send))
        assert [message["type"] for message in messages].count("http.response.start") == 1
        assert not messages[-1].get("more_body")
        headers = {name.decode(): value.decode() for name, value in messages[0]["headers"]}
        return messages[0]["status"], headers, b"".join(message["body"] for message in messages[1:])


class _Errors:
    def write(self, text: str) -> None: ...

    def writelines(self, lines: Iterable[str]) -> None: ...

    def flush(self) -> None: ...


@pytest.fixture
def root(tmp_path: Path) -> Path:
    root = tmp_path / "static"
    root.mkdir()
    (root / "style.css").write_bytes(STYLE)
    return root


@pytest.fixture(params=["wsgi", "asgi"])
def site(request: pytest.FixtureRequest, root: Path) -> Site:
    return Site(request.param, root)


# -- how long -------------------------------------------------------------------------------------------------------


def test_the_current_version_is_immutable(site: Site) -> None:
    status, headers, body = site.get(f"/static/style.css?v={V}")
    assert (status, body) == (200, STYLE)
    assert headers["cache-control"] == IMMUTABLE
    assert headers["etag"] == f'"{V}"'
    assert "expires" not in headers


def test_another_version_lives_shortly_and_is_never_immutable(site: Site) -> None:
    site.fields = {"Cache-Control": IMMUTABLE, "Expires": "Thu, 01 Jan 2037 00:00:00 GMT"}
    for version in ["0123456789ab", "", V.upper() + "x", f"{V}&v={V}", "1700000000", "%00", "%ff"]:
        status, headers, body = site.get(f"/static/style.css?v={version}")
        assert (status, body) == (200, STYLE)
        assert headers["cache-control"] == SHORT
        assert "expires" not in headers


def test_a_url_without_version_is_validated_unless_the_application_says_otherwise(site: Site) -> None:
    site.fields = {"Cache-Control": None}
    assert site.get("/static/style.css")[1]["cache-control"] == "no-cache"
    site.fields = {"Cache-Control": "max-age=5"}
    assert site.get("/static/style.css")[1]["cache-control"] == "max-age=5"
    site.fields = {"Cache-Control": None, "Expires": "Thu, 01 Jan 2037 00:00:00 GMT"}
    assert "cache-control" not in site.get("/static/style.css")[1]


def test_during_a_rolling_deploy_both_machines_are_safe(site: Site, root: Path) -> None:
    """The page of the new machine names the new version; the request for it reaches the old one."""
    new = b"body { color: blue }"
    url = f"/static/style.css?v={hashlib.sha256(new).hexdigest()[:12]}"
    assert site.get(url)[1]["cache-control"] == SHORT
    (root / "style.css").write_bytes(new)
    _, headers, body = site.get(url)
    assert (headers["cache-control"], body) == (IMMUTABLE, new)
    assert site.get(f"/static/style.css?v={V}")[1]["cache-control"] == SHORT


def test_a_file_that_is_replaced_between_the_look_and_the_opening_is_not_immutable(site: Site, root: Path) -> None:
    def replace() -> None:
        (root / "new").write_bytes(b"new" * len(STYLE))
        (root / "new").replace(root / "style.css")

    site.arriving = replace
    _, headers, body = site.get(f"/static/style.css?v={V}")
    assert body != STYLE
    assert headers["cache-control"] == SHORT


def test_a_file_that_is_replaced_while_it_is_opened_is_not_immutable(site: Site, root: Path) -> None:
    """Starlette sends the head before it opens the file; the head waits for it."""
    site.opening = lambda: (root / "style.css").unlink()
    assert site.get(f"/static/style.css?v={V}")[1]["cache-control"] == SHORT


def test_a_hashed_name_is_immutable(site: Site, root: Path) -> None:
    (root / f"style.{V}.css").write_bytes(STYLE)
    (root / "other.0123456789ab.css").write_bytes(STYLE)
    assert site.get(f"/static/style.{V}.css")[1]["cache-control"] == IMMUTABLE
    assert "immutable" not in site.get("/static/other.0123456789ab.css")[1]["cache-control"]


def test_head_says_what_get_does(site: Site) -> None:
    status, headers, body = site.get(f"/static/style.css?v={V}", "HEAD")
    assert (status, headers["cache-control"], body) == (200, IMMUTABLE, b"")


def test_a_missing_file_is_not_kept(site: Site) -> None:
    status, headers, _ = site.get(f"/static/none.css?v={V}")
    assert status == 404
    assert "cache-control" not in headers


def test_what_is_not_below_the_folders_url_is_left_alone(site: Site) -> None:
    site.fields = {"Cache-Control": "max-age=1"}
    for path in [f"/staticstyle.css?v={V}", f"/other/style.css?v={V}", f"/?v={V}"]:
        assert "immutable" not in site.get(path)[1].get("cache-control", "")


def test_other_methods_are_left_alone(site: Site) -> None:
    if site.interface == "wsgi":
        assert "immutable" not in site.get(f"/static/style.css?v={V}", "POST")[1]["cache-control"]
    else:
        assert site.get(f"/static/style.css?v={V}", "POST")[0] == 405


def test_the_folder_may_be_below_a_mount(site: Site) -> None:
    site.mount = "/shop"
    site.folder = StaticFolder(site.root, url="/shop/static")
    assert site.folder("style.css") == f"/shop/static/style.css?v={V}"
    assert site.get(f"/static/style.css?v={V}")[1]["cache-control"] == IMMUTABLE


def test_of_two_folders_the_one_with_the_longer_url_counts(root: Path, tmp_path: Path) -> None:
    inner = tmp_path / "inner"
    inner.mkdir()
    (inner / "a.css").write_bytes(b"inner")
    app = StaticMiddleware(
        send_nothing, StaticFolder(root), StaticFolder(inner, url="/static/inner/"), StaticFolder(inner, url="/in/")
    )
    version = hashlib.sha256(b"inner").hexdigest()[:12]
    for path in ("/static/inner/a.css", "/in/a.css"):
        assert call(app, path, f"v={version}")[1]["Cache-Control"] == IMMUTABLE
    assert call(app, "/static/a.css", f"v={version}")[1] == {}


def send_nothing(environ: Any, start_response: Any) -> Iterable[bytes]:
    start_response("200 OK", [])
    return []


def call(app: Any, path: str, query: str = "", **environ: Any) -> tuple[str, dict[str, str], bytes]:
    started: list[Any] = []

    def start_response(status: str, headers: Any, exc_info: Any = None) -> Callable[[bytes], object]:
        started[:] = [status, dict(headers)]
        return lambda data: started.append(data)

    environ = {"REQUEST_METHOD": "GET", "PATH_INFO": path, "QUERY_STRING": query, **environ}
    result = app(environ, start_response)
    body = b"".join(result)
    getattr(result, "close", lambda: None)()
    return started[0], started[1], b"".join([*started[2:], body])


def test_a_page_that_a_guard_sends_in_place_of_a_file_is_not_kept_for_ever(root: Path) -> None:
    """WSGI leaves it to the server to say how long it is."""

    def guard(environ: Any, start_response: Any) -> Iterable[bytes]:
        start_response("200 OK", [("Content-Type", "text/HTML; charset=utf-8")])
        return [b"log in"]

    (root / "page.html").write_bytes(b"a page")
    app = StaticMiddleware(guard, StaticFolder(root))
    assert "Cache-Control" not in call(app, "/static/style.css", f"v={V}")[1]
    version = hashlib.sha256(b"a page").hexdigest()[:12]
    assert call(app, "/static/page.html", f"v={version}")[1]["Cache-Control"] == IMMUTABLE


# -- for whom -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("response", "request_fields"),
    [
        ({"Set-Cookie": "session=1"}, {}),
        ({"Vary": "Accept-Encoding, cookie"}, {}),
        ({"Vary": "Authorization"}, {}),
        ({"Vary": "*"}, {}),
        ({"Cache-Control": "PRIVATE, max-age=1"}, {}),
        ({}, {"authorization": "Basic eDp5"}),
    ],
)
def test_what_is_for_one_visitor_is_never_public(
    site: Site, response: dict[str, str | None], request_fields: dict[str, str]
) -> None:
    site.fields = response
    current = site.get(f"/static/style.css?v={V}", **request_fields)[1]["cache-control"]
    assert current == "private, max-age=31536000, immutable"
    assert site.get("/static/style.css?v=7", **request_fields)[1]["cache-control"] == "private, max-age=60"


def test_no_store_is_left_alone(site: Site) -> None:
    site.fields = {"Cache-Control": "No-Store"}
    assert site.get(f"/static/style.css?v={V}")[1]["cache-control"] == "No-Store"
    assert site.get("/static/style.css?v=7")[1]["cache-control"] == "No-Store"


def test_other_visitors_cookies_do_not_make_a_file_private(site: Site) -> None:
    assert site.get(f"/static/style.css?v={V}", cookie="a=b")[1]["cache-control"] == IMMUTABLE


def test_what_comes_out_of_a_cache_is_not_called_immutable(site: Site) -> None:
    """It was stored before the file changed: nobody knows whether it is what the URL names."""
    site.fields = {"Age": "10", "Cache-Control": "max-age=600"}
    assert site.get(f"/static/style.css?v={V}")[1]["cache-control"] == "max-age=600"
    assert site.get("/static/style.css?v=7")[1]["cache-control"] == "max-age=600"


def test_inside_of_the_page_cache_the_stored_file_says_what_it_said(site: Site) -> None:
    cache = LocMemCache(f"busting-{site.interface}", {})
    site.wrap = lambda app: CacheMiddleware(app, cache=cache)
    first, second = (site.get(f"/static/style.css?v={V}") for _ in range(2))
    assert len(site.seen) == 1
    assert "age" in second[1]
    assert first[1]["cache-control"] == second[1]["cache-control"] == IMMUTABLE
    assert site.get(f"/static/style.css?v={V}", if_none_match=f'"{V}"')[0] == 304
    assert len(site.seen) == 1


# -- conditions and ranges ------------------------------------------------------------------------------------------


def test_a_client_that_has_the_version_gets_304(site: Site) -> None:
    for tags in [f'"{V}"', f'W/"{V}"', f'"a", "{V}"', "*"]:
        status, headers, body = site.get(f"/static/style.css?v={V}", if_none_match=tags)
        assert (status, body) == (304, b"")
        assert headers["cache-control"] == IMMUTABLE
        assert headers["etag"] == f'"{V}"'
        assert "content-length" not in headers
        assert "content-type" not in headers


def test_a_large_file_is_relayed_in_pieces_and_left_out_whole(site: Site, root: Path) -> None:
    large = os.urandom(300_000)
    (root / "film").write_bytes(large)
    version = hashlib.sha256(large).hexdigest()[:12]
    assert site.get(f"/static/film?v={version}")[2] == large
    assert site.get(f"/static/film?v={version}", if_none_match=f'"{version}"')[0::2] == (304, b"")


def test_a_validator_of_time_and_size_does_not_keep_the_wrong_content_for_a_year(site: Site, root: Path) -> None:
    """Where a build clamps the times of files, two contents of one size have the same ETag and Last-Modified."""
    os.utime(root / "style.css", (1, 1))
    _, headers, _ = site.get("/static/style.css?v=0123456789ab")  # the old content, under the URL of the new
    (root / "new").write_bytes(STYLE.replace(b"red", b"tan"))
    os.utime(root / "new", (1, 1))
    (root / "new").replace(root / "style.css")
    url = f"/static/style.css?v={hashlib.sha256(STYLE.replace(b'red', b'tan')).hexdigest()[:12]}"
    for fields in [
        {"if-none-match": headers["etag"]},
        {"if-modified-since": headers["last-modified"]},
        {"if-range": headers["etag"], "range": "bytes=0-9"},
        {"if-range": headers["last-modified"], "range": "bytes=0-9"},
    ]:
        status, answered, body = site.get(url, **fields)
        assert (status, answered["cache-control"], body) == (200, IMMUTABLE, STYLE.replace(b"red", b"tan"))


def test_without_the_version_the_frameworks_own_conditions_hold(site: Site) -> None:
    for url, lifetime in [("/static/style.css?v=7", SHORT), ("/static/style.css", "no-cache")]:
        etag = site.get(url)[1]["etag"]
        status, headers, body = site.get(url, if_none_match=etag)
        assert (status, body) == (304, b"")
        assert headers["cache-control"] == lifetime


def test_a_part_of_the_current_version_is_immutable_too(site: Site) -> None:
    for fields in [{}, {"if_range": f'"{V}"'}]:
        status, headers, body = site.get(f"/static/style.css?v={V}", range="bytes=5-9", **fields)
        assert (status, body) == (206, STYLE[5:10])
        assert headers["cache-control"] == IMMUTABLE
        assert headers["etag"] == f'"{V}"'
    assert site.get(f"/static/style.css?v={V}", range="bytes=5-9", if_range=f'W/"{V}"')[0] == 200


def test_a_precondition_that_fails_is_412(site: Site) -> None:
    assert site.get(f"/static/style.css?v={V}", if_match=f'"{V}"')[0] == 200
    status, headers, body = site.get(f"/static/style.css?v={V}", if_match='"other"')
    assert (status, body) == (412, b"")
    assert "immutable" not in headers.get("cache-control", "")


def test_an_encoded_body_has_a_weak_tag(site: Site) -> None:
    site.fields = {"Content-Encoding": "x-none"}
    assert site.get(f"/static/style.css?v={V}")[1]["etag"] == f'W/"{V}"'
    assert site.get(f"/static/style.css?v={V}", if_none_match=f'"{V}"')[0] == 304


def test_the_application_sees_no_conditions_and_those_around_it_do(site: Site) -> None:
    outside: list[Any] = []

    def look(environ: Any, start_response: Any) -> Any:
        inner = StaticMiddleware(send_nothing, site.folder)
        result = inner(environ, start_response)
        outside.append(environ.get("HTTP_IF_NONE_MATCH"))
        return result

    site.get(f"/static/style.css?v={V}", if_none_match='"x"', if_modified_since="x", accept="a/b")
    assert site.seen[-1]["accept"] == "a/b"
    assert not {"if-none-match", "if-modified-since"} & set(site.seen[-1])
    call(look, "/static/style.css", f"v={V}", HTTP_IF_NONE_MATCH='"x"')
    assert outside == ['"x"']


# -- names that lead out --------------------------------------------------------------------------------------------


@pytest.mark.parametrize("method", ["GET", "HEAD"])
@pytest.mark.parametrize(
    "path",
    ["../secret", "x/../../secret", "/etc/passwd", "style.css\0", "\0", "link", "out/secret", "..\\secret", "//link"],
)
def test_a_url_that_leads_out_is_not_found(site: Site, root: Path, path: str, method: str) -> None:
    (root.parent / "secret").write_text("secret")
    (root / "link").symlink_to(root.parent / "secret")
    (root / "out").symlink_to(root.parent)
    status, headers, body = site.get(f"/static/{path}?v={V}", method)
    assert status == 404
    assert body == (b"Not Found" if method == "GET" else b"")
    assert site.seen == []
    assert "cache-control" not in headers


def test_a_name_that_is_no_utf_8_is_a_name(site: Site, root: Path) -> None:
    (root / os.fsdecode(b"\xe9.css")).write_bytes(STYLE)
    status, headers, _ = site.get(f"/static/{os.fsdecode(bytes([0xE9]))}.css?v={V}")
    if site.interface == "wsgi":  # werkzeug reads such a path with replacement characters
        assert status == 404
    else:
        assert headers["cache-control"] == IMMUTABLE


# -- applications of all kinds --------------------------------------------------------------------------------------


def test_an_application_that_starts_late_is_followed(root: Path) -> None:
    closed = []

    def late(environ: Any, start_response: Any) -> Iterator[bytes]:
        try:
            start_response("200 OK", [("Content-Type", "text/css")])
            yield b"bo"
            yield b"dy"
        finally:
            closed.append(True)

    app = StaticMiddleware(late, StaticFolder(root))
    status, headers, body = call(app, "/static/style.css", f"v={V}")
    assert (status, headers["Cache-Control"], body) == ("200 OK", IMMUTABLE, b"body")
    assert call(app, "/static/style.css", f"v={V}", HTTP_IF_NONE_MATCH="*")[0::2] == ("304 Not Modified", b"")
    assert call(app, "/elsewhere")[2] == b"body"
    assert closed == [True] * 3


def test_an_application_that_writes_is_followed(root: Path) -> None:
    def writing(environ: Any, start_response: Any) -> Iterable[bytes]:
        start_response("200 OK", [])(b"body")
        return []

    app = StaticMiddleware(writing, StaticFolder(root))
    assert call(app, "/static/style.css", f"v={V}")[2] == b"body"
    assert call(app, "/static/style.css", f"v={V}", HTTP_IF_NONE_MATCH="*")[2] == b""


def test_an_error_after_the_head_replaces_it(root: Path) -> None:
    def failing(environ: Any, start_response: Any) -> Iterable[bytes]:
        start_response("200 OK", [])
        start_response("500 Oops", [("X", "y")], (ValueError, ValueError(), None))
        return [b"error"]

    app = StaticMiddleware(failing, StaticFolder(root))
    answer = call(app, "/static/style.css", f"v={V}", HTTP_IF_NONE_MATCH="*")
    assert answer == ("500 Oops", {"X": "y"}, b"error")


def test_a_body_that_is_sent_by_the_server_itself_is_left_to_it(root: Path) -> None:
    body = object()

    def wrapping(environ: Any, start_response: Any) -> Any:
        start_response("200 OK", [])
        return body

    app: Any = StaticMiddleware(wrapping, StaticFolder(root))
    environ = {"REQUEST_METHOD": "GET", "PATH_INFO": "/static/style.css", "QUERY_STRING": f"v={V}"}
    assert app(environ, lambda *arguments: None) is body


def test_websockets_lifespan_and_other_messages_pass(root: Path) -> None:
    seen: list[Any] = []

    async def app(scope: Any, receive: Any, send: Any) -> None:
        if scope["type"] == "http":
            await send({"type": "http.response.start", "status": 200})
            await send({"type": "http.response.pathsend", "path": "x"})
        else:
            await send(scope["type"])

    async def send(message: Any) -> None:
        seen.append(message)

    wrapped = StaticMiddleware(app, StaticFolder(root))
    asyncio.run(wrapped({"type": "lifespan"}, None, send))
    asyncio.run(wrapped({"type": "websocket", "path": "/static/style.css"}, None, send))
    scope = {
        "type": "http",
        "method": "GET",
        "path": "/static/style.css",
        "headers": [],
        "query_string": f"v={V}".encode(),
    }
    asyncio.run(wrapped(scope, None, send))
    assert seen[:2] == ["lifespan", "websocket"]
    assert dict(seen[2]["headers"])[b"cache-control"] == IMMUTABLE.encode()
    assert seen[3] == {"type": "http.response.pathsend", "path": "x"}


def test_an_application_that_fails_after_its_head_has_sent_none(root: Path) -> None:
    """The server can still answer 500."""
    sent: list[Any] = []

    async def app(scope: Any, receive: Any, send: Any) -> None:
        await send({"type": "http.response.start", "status": 200, "headers": []})
        raise OSError("the file went away")

    async def send(message: Any) -> None:
        sent.append(message)

    scope = {"type": "http", "method": "GET", "path": "/static/style.css", "headers": []}
    with pytest.raises(OSError, match="went away"):
        asyncio.run(StaticMiddleware(app, StaticFolder(root))(scope, None, send))
    assert sent == []


@pytest.mark.parametrize("folders", [[], ["static"], [None]])
def test_a_middleware_without_folders_is_an_error(folders: list[Any]) -> None:
    with pytest.raises(ImproperlyConfigured, match="StaticFolder"):
        StaticMiddleware(send_nothing, *folders)
