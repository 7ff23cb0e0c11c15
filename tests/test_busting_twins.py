"""The compressed twins that a build has made go out to who understands them, on both interfaces."""

from __future__ import annotations

import asyncio
import gzip
import os
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any
from wsgiref.util import FileWrapper

import flask
import pytest
from brotli import decompress  # type: ignore[import-untyped]
from starlette.applications import Starlette
from starlette.routing import Mount
from starlette.staticfiles import StaticFiles
from starlette.testclient import TestClient

from cachemw._busting.twins import Twin, chosen_twin
from cachemw.backends.locmem import LocMemCache
from cachemw.busting import StaticFolder, StaticMiddleware, build, version_starlette
from cachemw.integrations.flask import CacheMW
from tests.test_busting_serving import IMMUTABLE, SHORT, STYLE, Site, V, call

HASHED = f"style.{V}.css"


@pytest.fixture
def root(tmp_path: Path) -> Path:
    source = tmp_path / "source"
    source.mkdir()
    (source / "style.css").write_bytes(STYLE)
    (source / "small.css").write_bytes(b"p {}")
    assert not build([source], tmp_path / "static").problems
    return tmp_path / "static"


@pytest.fixture(params=["wsgi", "asgi"])
def site(request: pytest.FixtureRequest, root: Path) -> Site:
    return Site(request.param, root)


# -- which ------------------------------------------------------------------------------------------------------------

TWINS = (Twin("br", "x.br", 70), Twin("zstd", "x.zst", 80), Twin("gzip", "x.gz", 90))


@pytest.mark.parametrize(
    ("lines", "coding"),
    [
        (["gzip, deflate, br, zstd"], "br"),
        (["gzip", "deflate"], "gzip"),
        (["deflate", "zstd, gzip"], "zstd"),
        (["GZIP"], "gzip"),
        (["x-gzip"], "gzip"),
        (["br;q=0.5, gzip;q=0.8"], "gzip"),
        (["br;q=0, *"], "zstd"),
        (["*;q=0.1"], "br"),
        (["gzip ; Q=0.5"], "gzip"),
        (["gzip, identity"], "gzip"),
        (["gzip;q=0.5, identity;q=0.5"], "gzip"),
        (["gzip;q=9"], None),
        (["gzip;q=1.9"], "gzip"),
        (["gzip;q=0.5, identity"], None),
        (["gzip;q=0"], None),
        (["gzip;q=0.000, *;q=0"], None),
        (["identity"], None),
        (["deflate"], None),
        (["gzip;q=x"], None),
        (["gzip;level=9"], None),
        (["g zip"], None),
        ([",;=,,"], None),
        ([""], None),
        ([], None),
        (["a" * 5000 + ", gzip"], None),
    ],
)
def test_the_best_of_what_the_client_understands(lines: list[str], coding: str | None) -> None:
    chosen = chosen_twin(TWINS, lines)
    assert (chosen and chosen.coding) == coding


def test_a_file_without_twins_is_sent_itself() -> None:
    assert chosen_twin((), ["gzip, br"]) is None


# -- what goes out ----------------------------------------------------------------------------------------------------


def test_a_client_gets_the_twin_that_it_understands(site: Site) -> None:
    for coding, read in [("gzip", gzip.decompress), ("br", decompress)]:
        status, headers, body = site.get(f"/static/{HASHED}", accept_encoding=coding)
        assert (status, read(body)) == (200, STYLE)
        assert headers["content-encoding"] == coding
        assert headers["content-length"] == str(len(body))
        assert headers["content-type"].startswith("text/css")
        assert (headers["cache-control"], headers["vary"]) == (IMMUTABLE, "Accept-Encoding")
        assert headers["etag"] == f'W/"{V}"'
        assert "accept-ranges" not in headers


def test_a_client_that_understands_none_gets_the_file(site: Site) -> None:
    for fields in ({}, {"accept_encoding": "identity"}, {"accept_encoding": "gzip;q=0"}):
        _, headers, body = site.get(f"/static/{HASHED}", **fields)
        assert body == STYLE
        assert "content-encoding" not in headers
        assert (headers["vary"], headers["etag"]) == ("Accept-Encoding", f'"{V}"')


def test_what_was_too_small_to_compress_is_one_for_all(site: Site) -> None:
    _, headers, body = site.get("/static/small.css", accept_encoding="gzip")
    assert (body, "vary" in headers) == (b"p {}", False)


def test_head_says_what_get_does_of_a_twin(site: Site) -> None:
    got = site.get(f"/static/{HASHED}", accept_encoding="gzip")
    assert site.get(f"/static/{HASHED}", "HEAD", accept_encoding="gzip") == (200, got[1], b"")


def test_a_client_that_has_a_twin_gets_304(site: Site) -> None:
    for etag in (f'W/"{V}"', f'"{V}"'):
        status, headers, body = site.get(f"/static/{HASHED}", accept_encoding="gzip", if_none_match=etag)
        assert (status, body, headers["vary"]) == (304, b"", "Accept-Encoding")
        assert "content-length" not in headers


def test_under_its_own_name_a_file_has_twins_and_the_frameworks_validators(site: Site) -> None:
    _, headers, body = site.get("/static/style.css", accept_encoding="gzip")
    assert gzip.decompress(body) == STYLE
    assert (headers["cache-control"], headers["vary"]) == ("no-cache", "Accept-Encoding")
    assert headers["etag"].startswith('W/"')
    status, again, _ = site.get("/static/style.css", accept_encoding="gzip", if_none_match=headers["etag"])
    assert (status, again["etag"], again["vary"]) == (304, headers["etag"], "Accept-Encoding")


def test_under_another_version_it_lives_shortly(site: Site) -> None:
    _, headers, body = site.get("/static/style.css?v=0123456789ab", accept_encoding="gzip")
    assert (headers["cache-control"], gzip.decompress(body)) == (SHORT, STYLE)


def test_a_part_is_never_cut_out_of_a_twin(site: Site) -> None:
    """Who has the beginning of the twin must not get the end of the file."""
    status, headers, body = site.get(
        f"/static/{HASHED}", accept_encoding="gzip", range="bytes=4-", if_range=site.get(f"/static/{HASHED}")[1]["etag"]
    )
    assert (status, gzip.decompress(body)) == (200, STYLE)
    status, headers, body = site.get(f"/static/{HASHED}", accept_encoding="identity", range="bytes=4-")
    assert (status, body, headers["vary"]) == (206, STYLE[4:], "Accept-Encoding")


# -- what does not ----------------------------------------------------------------------------------------------------


def test_without_a_build_a_compressed_file_is_a_file_of_its_own(site: Site, root: Path) -> None:
    (root / "static-manifest.json").unlink()
    _, headers, body = site.get(f"/static/{HASHED}", accept_encoding="gzip")
    assert (body, "vary" in headers) == (STYLE, False)


def test_a_twin_of_what_the_file_held_before_is_left_alone(site: Site, root: Path) -> None:
    (root / "style.css").write_bytes(STYLE + b"\n")
    later = os.stat(root / "style.css.gz").st_mtime + 10
    os.utime(root / "style.css", (later, later))
    _, headers, body = site.get("/static/style.css", accept_encoding="gzip")
    assert (body, "content-encoding" in headers) == (STYLE + b"\n", False)


def test_under_a_hashed_name_times_do_not_matter(site: Site, root: Path) -> None:
    later = os.stat(root / f"{HASHED}.gz").st_mtime + 10
    os.utime(root / HASHED, (later, later))
    assert site.get(f"/static/{HASHED}", accept_encoding="gzip")[1]["content-encoding"] == "gzip"


def test_a_twin_that_is_a_link_is_left_alone(site: Site, root: Path) -> None:
    (root.parent / "secret").write_bytes(gzip.compress(b"secret"))
    (root / f"{HASHED}.gz").unlink()
    (root / f"{HASHED}.gz").symlink_to(root.parent / "secret")
    assert site.get(f"/static/{HASHED}", accept_encoding="gzip")[2] == STYLE


def test_a_twin_that_goes_away_meanwhile_costs_nothing(site: Site, root: Path) -> None:
    site.arriving = lambda: (root / f"{HASHED}.gz").unlink()
    _, headers, body = site.get(f"/static/{HASHED}", accept_encoding="gzip")
    assert (body, headers["cache-control"], headers["vary"]) == (STYLE, IMMUTABLE, "Accept-Encoding")


def test_what_the_application_has_encoded_itself_stays_so(site: Site) -> None:
    site.fields = {"Content-Encoding": "x-none"}
    _, headers, body = site.get(f"/static/{HASHED}", accept_encoding="gzip")
    assert (headers["content-encoding"], body) == ("x-none", STYLE)


@pytest.mark.parametrize("field", ["Last-Modified", "Content-Length"])
def test_what_may_be_another_file_is_not_replaced(site: Site, field: str) -> None:
    site.fields = {field: "Thu, 01 Jan 1970 00:00:00 GMT" if field == "Last-Modified" else None}
    _, headers, body = site.get(f"/static/{HASHED}", accept_encoding="gzip")
    assert (body, "content-encoding" in headers) == (STYLE, False)


def test_no_store_has_no_twin(site: Site) -> None:
    site.fields = {"Cache-Control": "no-store"}
    assert "content-encoding" not in site.get(f"/static/{HASHED}", accept_encoding="gzip")[1]


@pytest.mark.parametrize("encoding", ["gzip", "identity"])
def test_the_page_of_a_guard_that_answers_200_is_not_the_file(root: Path, encoding: str) -> None:
    def guard(environ: Any, start_response: Any) -> Iterable[bytes]:
        start_response("200 OK", [("Content-Type", "text/html"), ("Content-Length", "14")])
        return [b"Who are you?!\n"]

    app = StaticMiddleware(guard, StaticFolder(root))
    status, headers, body = call(app, f"/static/{HASHED}", HTTP_ACCEPT_ENCODING=encoding)
    assert (status, body) == ("200 OK", b"Who are you?!\n")
    assert "Cache-Control" not in headers


# -- applications of all kinds ----------------------------------------------------------------------------------------


def fields_of(root: Path) -> list[tuple[str, str]]:
    from wsgiref.handlers import format_date_time

    status = os.stat(root / HASHED)
    return [("Content-Length", str(status.st_size)), ("Last-Modified", format_date_time(status.st_mtime))]


def open_files() -> set[str]:
    return {
        os.readlink(f"/proc/self/fd/{one}")
        for one in os.listdir("/proc/self/fd")
        if os.path.exists(f"/proc/self/fd/{one}")
    }


def test_an_application_that_starts_late_or_writes_gives_way_to_the_twin(root: Path) -> None:
    closed = []

    def late(environ: Any, start_response: Any) -> Iterator[bytes]:
        try:
            start_response("200 OK", fields_of(root))(b"")
            yield STYLE[:5]
            yield STYLE[5:]
        finally:
            closed.append(True)

    def writes(environ: Any, start_response: Any) -> Iterable[bytes]:
        start_response("200 OK", fields_of(root))(STYLE)
        return []

    def empty(environ: Any, start_response: Any) -> Iterator[bytes]:
        start_response("200 OK", fields_of(root))
        yield from ()

    for app in (late, writes, empty):
        wrapped = StaticMiddleware(app, StaticFolder(root))
        assert gzip.decompress(call(wrapped, f"/static/{HASHED}", HTTP_ACCEPT_ENCODING="gzip")[2]) == STYLE
    assert closed == [True]


def test_a_server_that_sends_files_by_itself_is_given_the_twin(root: Path) -> None:
    closed = []

    class Body:
        def __iter__(self) -> Iterator[bytes]:
            raise AssertionError("the file itself is not read")

        def close(self) -> None:
            closed.append(True)

    def app(environ: Any, start_response: Any) -> Iterable[bytes]:
        start_response("200 OK", fields_of(root))
        return Body()

    wrapped: Any = StaticMiddleware(app, StaticFolder(root))
    fields: dict[str, Any] = {"HTTP_ACCEPT_ENCODING": "gzip", "wsgi.file_wrapper": FileWrapper}
    environ = {"REQUEST_METHOD": "GET", "PATH_INFO": f"/static/{HASHED}", **fields}
    result = wrapped(environ, lambda status, headers: None)
    assert isinstance(result, FileWrapper)
    assert os.path.samefile(os.readlink(f"/proc/self/fd/{result.filelike.fileno()}"), root / f"{HASHED}.gz")
    assert gzip.decompress(b"".join(result)) == STYLE
    result.close()
    assert closed == [True]
    assert result.filelike.closed
    assert call(wrapped, f"/static/{HASHED}", HTTP_IF_NONE_MATCH="*", **fields)[0::2] == ("304 Not Modified", b"")


def test_an_application_that_fails_leaves_no_file_open(root: Path) -> None:
    def fails(environ: Any, start_response: Any) -> Iterable[bytes]:
        start_response("200 OK", fields_of(root))
        raise OSError("gone")

    async def fails_too(scope: Any, receive: Any, send: Any) -> None:
        headers = [(name.lower().encode(), value.encode()) for name, value in fields_of(root)]
        await send({"type": "http.response.start", "status": 200, "headers": headers})
        await send({"type": "http.response.body", "body": b"", "more_body": True})
        raise OSError("gone")

    async def refuses(message: Any) -> None:
        raise OSError("gone")

    for path in (f"/static/{HASHED}", "/elsewhere"):
        with pytest.raises(OSError, match="gone"):
            call(StaticMiddleware(fails, StaticFolder(root)), path, HTTP_ACCEPT_ENCODING="gzip")
    scope = {
        "type": "http",
        "method": "GET",
        "path": f"/static/{HASHED}",
        "headers": [(b"accept-encoding", b"gzip")],
    }
    with pytest.raises(OSError, match="gone"):
        asyncio.run(StaticMiddleware(fails_too, StaticFolder(root))(scope, None, refuses))
    assert not [name for name in open_files() if name.endswith(".gz")]


def test_an_error_after_the_head_of_a_twin_replaces_it(root: Path) -> None:
    def changes_its_mind(environ: Any, start_response: Any) -> Iterable[bytes]:
        start_response("200 OK", fields_of(root))
        try:
            raise OSError("gone")
        except OSError as error:
            start_response("500 Oh", [], (type(error), error, None))
        return [b"sorry"]

    app = StaticMiddleware(changes_its_mind, StaticFolder(root))
    assert call(app, f"/static/{HASHED}", HTTP_ACCEPT_ENCODING="gzip")[0::2] == ("500 Oh", b"sorry")
    assert not [name for name in open_files() if name.endswith(".gz")]


def test_flask_sends_twins_and_its_guards_guard_them(root: Path) -> None:
    app = flask.Flask("site", static_folder=str(root), static_url_path="/static")
    CacheMW(app, cache=LocMemCache("twins-flask", {}))

    @app.before_request
    def guard() -> str | None:
        return None if "X-Member" in flask.request.headers else "who are you?"

    client = app.test_client()
    with app.test_request_context():
        url = flask.url_for("static", filename="style.css")
    fields = {"Accept-Encoding": "gzip", "X-Member": "1"}
    assert client.get(url, headers={"Accept-Encoding": "gzip"}, buffered=True).text == "who are you?"
    for _ in range(2):  # the second is of the page cache, if it keeps files
        response = client.get(url + "?x", headers=fields, buffered=True)
        assert (response.headers["Content-Encoding"], gzip.decompress(response.data)) == ("gzip", STYLE)
        assert client.get(url + "?x", headers={"X-Member": "1"}, buffered=True).data == STYLE


@pytest.mark.parametrize("pathsend", [False, True])
def test_starlette_sends_twins(root: Path, pathsend: bool) -> None:
    app: Any = Starlette(routes=[Mount("/static", StaticFiles(directory=root), name="static")])
    version_starlette(app)
    url = app.url_path_for("static", path="style.css")
    site: Callable[..., Any] = app

    async def server(scope: Any, receive: Any, send: Any) -> None:
        if pathsend and scope["type"] == "http":
            scope["extensions"] = {**scope.get("extensions", {}), "http.response.pathsend": {}}
        await site(scope, receive, send)

    response = TestClient(server).get(url, headers={"Accept-Encoding": "gzip"})
    assert (response.headers["content-encoding"], response.content) == ("gzip", STYLE)
    assert response.headers["cache-control"] == IMMUTABLE
