"""The decorators on Flask's views, with and without a cache around the site."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from flask import (
    Flask,
    Response,
    abort,
    jsonify,
    make_response,
    request,
    send_file,
    session,
    stream_with_context,
    url_for,
)
from flask.views import MethodView, View

import cachemw
from cachemw import (
    ImproperlyConfigured,
    Policy,
    cache_control,
    cache_page,
    caches,
    conditional,
    never_cache,
    vary_on_cookie,
    vary_on_headers,
    wsgi,
)
from cachemw.backends.locmem import LocMemCache
from cachemw.integrations.flask import CacheMW
from tests.integrations.conftest import Counter
from tests.scenarios.conftest import Clock


@pytest.fixture
def app() -> Flask:
    app = Flask(__name__)
    app.secret_key = "not secret at all"
    app.testing = True
    return app


def trace(response: Any) -> str:
    return str(response.headers.get("Cache-Status", ""))


def is_hit(response: Any) -> bool:
    return "; hit" in trace(response)


# -- whose page it is -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("site", [None, True, False])
def test_a_page_that_read_the_cookies_is_another_one_for_each(app: Flask, page: Counter, site: bool | None) -> None:
    """What stands around it may have read them, as Flask does for the session: that says nothing of the page."""

    @app.before_request
    def read_them() -> None:
        assert request.cookies["who"]

    @app.get("/greeting")
    @cache_page(60, cache=None if site is not None else LocMemCache("cookies"))
    def greeting() -> str:
        return f"hello {request.cookies['who']} {page()}"

    @app.get("/leaflet")
    @cache_page(60, cache=None if site is not None else LocMemCache("cookies"))
    def leaflet() -> str:
        return page()

    if site is not None:
        CacheMW(app, cache=LocMemCache(f"cookies {site}"), site=site, inside=True)
    anne, bob = app.test_client(), app.test_client()
    for who, one in (("Anne", anne), ("Bob", bob)):
        one.set_cookie("who", who)
        greetings = [one.get("/greeting") for _ in range(2)]
        assert greetings[0].text == greetings[1].text
        assert greetings[0].text.startswith(f"hello {who}")
        assert greetings[1].headers["Vary"] == "Cookie"
    assert anne.get("/leaflet").text == bob.get("/leaflet").text
    assert "Vary" not in anne.get("/leaflet").headers


def test_a_stream_may_read_the_cookies_while_it_is_sent(app: Flask, page: Counter) -> None:
    closed: list[str] = []

    @app.get("/<int:late>")
    @cache_page(60, cache=LocMemCache("streams of cookies"))
    def stream(late: int) -> Response:
        def parts() -> Iterator[str]:
            try:
                yield page()
                yield f" for {request.cookies['who']}" if late else ""
            finally:
                closed.append("closed")

        return Response(stream_with_context(parts()))

    for who in ("Anne", "Bob"):
        visitor = app.test_client()
        visitor.set_cookie("who", who)
        assert visitor.get("/1").text.endswith(f" for {who}")
        assert visitor.get("/0").text == "page 2"
    assert len(closed) == 3


# -- what a view may return -------------------------------------------------------------------------------------------

VALUES: dict[str, Callable[[str], Any]] = {
    "text": lambda page: page,
    "bytes": lambda page: page.encode(),
    "dict": lambda page: {"page": page},
    "list": lambda page: [page],
    "tuple of text and status": lambda page: (page, 200),
    "tuple of text and headers": lambda page: (page, {"X-Page": page}),
    "tuple of all three": lambda page: (page, 200, [("X-Page", page)]),
    "response": lambda page: Response(page, mimetype="text/plain"),
    "made response": lambda page: make_response(page),
    "json": lambda page: jsonify(page=page),
    "WSGI application": lambda page: lambda environ, start: (start("200 OK", [("X-Page", page)]), [page.encode()])[1],
}


@pytest.mark.parametrize("kind", VALUES)
def test_whatever_a_view_may_return_is_stored(app: Flask, page: Counter, kind: str) -> None:
    @app.get("/")
    @cache_page(60)
    def view() -> Any:
        return VALUES[kind](page())

    client = app.test_client()
    first, second = client.get("/", buffered=True), client.get("/", buffered=True)
    assert page.calls == 1
    assert is_hit(second)
    assert (first.data, first.status) == (second.data, second.status)
    assert first.headers.get("X-Page") == second.headers.get("X-Page")
    assert first.mimetype == second.mimetype
    assert first.headers["Cache-Control"] == second.headers["Cache-Control"] == "max-age=60"
    assert "Expires" in second.headers


def test_a_stream_stays_one_and_is_stored_at_its_end(app: Flask, page: Counter) -> None:
    @app.get("/")
    @cache_page(60)
    def view() -> Any:
        text = page()
        return (part for part in (text, " and ", "more"))

    client = app.test_client()
    response = client.get("/")
    parts = response.iter_encoded()
    assert next(parts) == b"page 1"
    assert list(parts) == [b" and ", b"more"]
    response.close()
    hit = client.get("/")
    assert is_hit(hit)
    assert hit.data == b"page 1 and more"
    assert hit.content_length == len(hit.data)


def test_a_stream_that_is_left_is_not_stored(app: Flask, page: Counter) -> None:
    closed = []

    def parts() -> Iterator[str]:
        try:
            yield page()
            yield "more"
        finally:
            closed.append(True)

    @app.get("/")
    @cache_page(60)
    def view() -> Any:
        return parts()

    client = app.test_client()
    response = client.get("/")
    next(response.iter_encoded())
    response.close()
    assert closed == [True]
    assert client.get("/", buffered=True).data == b"page 2more"


def test_a_stream_that_breaks_off_is_not_stored(app: Flask, page: Counter) -> None:
    @app.get("/")
    @cache_page(60)
    def view() -> Any:
        def parts() -> Iterator[str]:
            yield page()
            if page.calls == 1:
                raise OSError("the disk is gone")

        return parts()

    client = app.test_client()
    with pytest.raises(OSError, match="the disk is gone"):
        client.get("/", buffered=True)
    assert client.get("/", buffered=True).data == b"page 2"


def test_a_file_is_sent_as_it_is(app: Flask, page: Counter, tmp_path: Any) -> None:
    file = tmp_path / "report.txt"
    file.write_text("the report")

    @app.get("/")
    @cache_page(60)
    def view() -> Any:
        page()
        return send_file(file, max_age=60)

    client = app.test_client()
    miss, hit = client.get("/", buffered=True), client.get("/", buffered=True)
    assert miss.data == hit.data == b"the report"
    assert miss.headers["ETag"] == hit.headers["ETag"]
    assert is_hit(hit)


def test_a_file_that_the_server_sends_itself_is_not_stored(app: Flask, page: Counter, tmp_path: Any) -> None:
    file = tmp_path / "report.txt"
    file.write_text("the report")

    class FileWrapper:
        """What a server recognises, and sends without reading it."""

        def __init__(self, file: Any, size: int = 8192) -> None:
            self.file = file

        def __iter__(self) -> Iterator[bytes]:
            yield self.file.read()

        def close(self) -> None:
            self.file.close()

    @app.get("/")
    @cache_page(60)
    def view() -> Any:
        page()
        return send_file(file, max_age=60)

    for _ in range(2):
        response = app.test_client().get("/", environ_overrides={"wsgi.file_wrapper": FileWrapper}, buffered=True)
        assert response.data == b"the report"
    assert page.calls == 2


def test_the_response_is_of_the_applications_own_class(app: Flask, page: Counter) -> None:
    class Special(Response):
        def shout(self) -> str:
            return self.get_data(as_text=True).upper()

    app.response_class = Special
    heard = []

    @app.after_request
    def listen(response: Any) -> Any:
        heard.append(response.shout())
        return response

    app.add_url_rule("/", view_func=cache_page(60)(lambda: page()))
    client = app.test_client()
    client.get("/")
    client.get("/")
    assert heard == ["PAGE 1", "PAGE 1"]


# -- where the decorator stands ---------------------------------------------------------------------------------------


def test_in_the_table_of_routes(app: Flask, page: Counter) -> None:
    def view(number: int) -> str:
        return f"{number}: {page()}"

    app.add_url_rule("/a/<int:number>", view_func=cache_page(900)(view))
    client = app.test_client()
    assert client.get("/a/1").text == client.get("/a/1").text == "1: page 1"
    assert client.get("/a/2").text == "2: page 2"
    with app.test_request_context():
        assert url_for("view", number=1) == "/a/1"


def test_on_a_class_of_views(app: Flask, page: Counter) -> None:
    @cache_page(60)
    @vary_on_headers("X-Kind")
    class Entries(MethodView):
        def get(self) -> str:
            return page()

        def post(self) -> str:
            return "noted"

    app.add_url_rule("/", view_func=Entries.as_view("entries"))
    client = app.test_client()
    assert client.get("/").headers["Vary"] == "X-Kind"
    assert is_hit(client.get("/"))
    assert not is_hit(client.get("/", headers={"X-Kind": "other"}))
    assert client.post("/").text == "noted"
    assert client.get("/").text == "page 3"  # the change has invalidated every variant


def test_on_one_method_of_a_class_and_on_a_function_made_of_one(app: Flask, page: Counter) -> None:
    class One(MethodView):
        @cache_page(60)
        def get(self, name: str) -> str:
            return name + page()

    class Two(View):
        def dispatch_request(self) -> str:
            return page()

    app.add_url_rule("/one/<name>", view_func=One.as_view("one"))
    app.add_url_rule("/two", view_func=cache_page(60)(Two.as_view("two")))
    client = app.test_client()
    assert client.get("/one/a").text == client.get("/one/a").text == "apage 1"
    assert client.get("/two").text == client.get("/two").text == "page 2"


def test_a_subclass_does_not_hand_its_decorators_to_its_parent() -> None:
    class Parent(MethodView):
        pass

    @cache_page(60)
    class Child(Parent):
        pass

    assert not Parent.decorators
    assert len(Child.decorators) == 1


def test_a_coroutine_view_of_flasks(app: Flask, page: Counter) -> None:
    loops = set()

    @app.get("/<name>")
    @cache_page(60)
    @cache_control(public=True)
    async def view(name: str) -> str:
        await asyncio.sleep(0)
        loops.add(asyncio.get_running_loop())
        return f"{request.path} {name} {page()}"

    client = app.test_client()
    assert client.get("/a").text == client.get("/a").text == "/a a page 1"
    assert len(loops) == 1
    assert client.get("/b").headers["Cache-Control"] == "public, max-age=60"


def test_an_error_of_a_coroutine_view_is_flasks(app: Flask) -> None:
    @app.get("/")
    @cache_page(60)
    async def view() -> str:
        abort(418)

    assert app.test_client().get("/").status_code == 418


def test_a_whole_application_and_a_mounted_one(app: Flask, page: Counter) -> None:
    app.add_url_rule("/x", view_func=lambda: page())
    cached = cache_page(60)(app)
    from werkzeug.middleware.dispatcher import DispatcherMiddleware
    from werkzeug.test import Client

    site = Client(DispatcherMiddleware(lambda e, s: (s("404 Not Found", []), [b""])[1], {"/shop": cached}))
    assert site.get("/shop/x", buffered=True).text == "page 1"
    assert is_hit(site.get("/shop/x", buffered=True))
    assert Client(cached).get("/x", buffered=True).text == "page 2"  # another URL


def test_applications_under_the_sites_own_cache(app: Flask, page: Counter, store: LocMemCache, clock: Clock) -> None:
    from werkzeug.test import Client

    app.add_url_rule("/", view_func=lambda: page())
    client = Client(wsgi.CacheMiddleware(cache_page(10)(app), cache=store, seconds=600))
    assert client.get("/", buffered=True).headers["Cache-Status"].count("cachemw") == 1
    clock.advance(9)
    assert is_hit(client.get("/", buffered=True))
    clock.advance(2)
    assert not is_hit(client.get("/", buffered=True))


def test_a_coroutine_view_under_the_sites_own_cache(app: Flask, page: Counter, store: LocMemCache) -> None:
    @app.get("/")
    @cache_page(10)
    async def view() -> str:
        return page()

    CacheMW(app, cache=store)
    client = app.test_client()
    assert client.get("/", buffered=True).headers["Cache-Control"] == "max-age=10"
    assert is_hit(client.get("/", buffered=True))


def test_a_plain_function_that_is_an_application(page: Counter) -> None:
    from werkzeug.test import Client

    @cache_page(60)
    @cache_control(public=True)
    def application(environ: Any, start_response: Any) -> Any:
        start_response("200 OK", [("Content-Type", "text/plain")])
        return [page().encode()]

    client = Client(application)
    assert client.get("/", buffered=True).headers["Cache-Control"] == "public, max-age=60"
    assert is_hit(client.get("/", buffered=True))


# -- how long ---------------------------------------------------------------------------------------------------------


def test_the_timeout_beats_max_age(app: Flask, page: Counter, clock: Clock) -> None:
    @app.get("/")
    @cache_page(60)
    @cache_control(max_age=5)
    def view() -> str:
        return page()

    client = app.test_client()
    assert client.get("/").headers["Cache-Control"] == "max-age=5"
    clock.advance(59)
    assert client.get("/").headers["Age"] == "59"
    clock.advance(2)
    assert client.get("/").text == "page 2"


@pytest.mark.parametrize(
    "directives", [{"no_store": True}, {"private": True}, {"no_cache": True}], ids=["no-store", "private", "no-cache"]
)
def test_what_forbids_storing_beats_the_timeout(app: Flask, page: Counter, directives: Any) -> None:
    @app.get("/")
    @cache_page(60)
    @cache_control(**directives)
    def view() -> str:
        return page()

    client = app.test_client()
    assert [client.get("/").text, client.get("/").text] == ["page 1", "page 2"]


def test_never_cache_beats_the_timeout(app: Flask, page: Counter) -> None:
    app.add_url_rule("/", view_func=cache_page(60)(never_cache(lambda: page())))
    client = app.test_client()
    client.get("/")
    response = client.get("/")
    assert response.text == "page 2"
    assert set(response.headers["Cache-Control"].split(", ")) == {
        "max-age=0",
        "no-cache",
        "no-store",
        "must-revalidate",
        "private",
    }


def test_a_timeout_of_zero_stores_nothing(app: Flask, page: Counter) -> None:
    app.add_url_rule("/", view_func=cache_page(0)(lambda: page()))
    client = app.test_client()
    assert [client.get("/").text, client.get("/").text] == ["page 1", "page 2"]


def test_an_error_is_neither_stored_nor_hidden(app: Flask, page: Counter) -> None:
    @app.get("/")
    @cache_page(60)
    def view() -> Any:
        page()
        abort(404)

    client = app.test_client()
    assert [client.get("/").status_code, client.get("/").status_code] == [404, 404]
    assert page.calls == 2


def test_a_stale_page_stands_in_for_a_view_that_fails(app: Flask, page: Counter, clock: Clock) -> None:
    @app.get("/")
    @cache_page(60)
    @cache_control(stale_if_error=300)
    def view() -> str:
        if page() != "page 1":
            raise OSError("the database is gone")
        return "well"

    client = app.test_client()
    assert client.get("/").text == "well"
    clock.advance(61)
    assert client.get("/").text == "well"
    clock.advance(1000)
    with pytest.raises(OSError, match="the database is gone"):
        client.get("/")


def test_a_stale_page_is_refreshed_in_the_background_for_nobody_in_particular(
    app: Flask, page: Counter, clock: Clock
) -> None:
    refreshed = threading.Event()
    seen = []

    @app.before_request
    def look() -> None:
        seen.append(request.headers.get("Cookie"))

    @app.get("/<name>")
    @cache_page(60)
    @cache_control(stale_while_revalidate=300)
    def view(name: str) -> str:
        if page.calls == 1:
            refreshed.set()
        return f"{name} {page()}"

    client = app.test_client()
    client.set_cookie("who", "me")
    client.get("/a")
    clock.advance(61)
    assert client.get("/a").text == "a page 1"
    assert refreshed.wait(5)
    assert seen == ["who=me", "who=me", None]


# -- whose page it is -------------------------------------------------------------------------------------------------


def test_a_page_that_read_the_session_is_for_this_cookie_alone(app: Flask, page: Counter) -> None:
    @app.get("/login/<name>")
    def login(name: str) -> str:
        session["name"] = name
        return "welcome"

    @app.get("/")
    @cache_page(60)
    def view() -> str:
        return f"{session.get('name')} {page()}"

    anne, bob, stranger = app.test_client(), app.test_client(), app.test_client()
    anne.get("/login/Anne")
    bob.get("/login/Bob")
    assert anne.get("/").text == anne.get("/").text == "Anne page 1"
    assert bob.get("/").text == "Bob page 2"
    assert stranger.get("/").text == "None page 3"
    assert "Cookie" in anne.get("/").headers["Vary"]


def test_a_page_that_did_not_read_the_session_is_for_all(app: Flask, page: Counter) -> None:
    app.add_url_rule("/", view_func=cache_page(60)(lambda: page()))
    anne, stranger = app.test_client(), app.test_client()
    anne.set_cookie("session", "something")
    assert anne.get("/").text == stranger.get("/").text == "page 1"
    assert "Vary" not in stranger.get("/").headers


def test_a_page_that_changed_the_session_is_not_stored(app: Flask, page: Counter) -> None:
    """Its form has the visitor's own token, and the next newcomer has no cookie either."""

    @app.get("/")
    @cache_page(60)
    def view() -> str:
        session["token"] = page()
        return f"token {session['token']}"

    answers = [app.test_client().get("/") for _ in range(2)]
    assert [answer.text for answer in answers] == ["token page 1", "token page 2"]
    assert answers[0].headers["Cache-Status"].endswith("; detail=set-cookie")


def test_a_stream_may_read_the_session_while_it_is_sent(app: Flask, page: Counter) -> None:
    @app.get("/login/<name>")
    def login(name: str) -> str:
        session["name"] = name
        return "welcome"

    @app.get("/")
    @cache_page(60)
    def view() -> Any:
        def parts() -> Iterator[str]:
            yield f"{session.get('name')} {page()}"

        return stream_with_context(parts())

    anne, bob = app.test_client(), app.test_client()
    for name, one in (("Anne", anne), ("Bob", bob)):
        one.get(f"/login/{name}")
        assert one.get("/", buffered=True).text.startswith(name)
        assert one.get("/", buffered=True).text.startswith(name)
    assert page.calls == 2


def test_a_cookie_of_the_views_is_not_stored(app: Flask, page: Counter) -> None:
    @app.get("/")
    @cache_page(60)
    def view() -> Any:
        response = make_response(page())
        response.set_cookie("who", page())
        return response

    client = app.test_client()
    client.get("/")
    assert client.get("/").text == "page 3"


def test_vary_on_cookie(app: Flask, page: Counter) -> None:
    app.add_url_rule("/", view_func=cache_page(60)(vary_on_cookie(lambda: page())))
    one, other = app.test_client(), app.test_client()
    one.set_cookie("who", "one")
    assert one.get("/").text == one.get("/").text == "page 1"
    assert other.get("/").text == "page 2"


def test_a_before_function_guards_hits_and_an_after_function_sees_them(app: Flask, page: Counter) -> None:
    @app.before_request
    def guard() -> Any:
        return None if request.headers.get("X-Key") == "right" else ("no", 403)

    @app.after_request
    def count(response: Response) -> Response:
        response.headers.add("X-After", "1")
        return response

    app.add_url_rule("/", view_func=cache_page(60)(lambda: page()))
    client = app.test_client()
    right = {"X-Key": "right"}
    assert client.get("/", headers=right).text == client.get("/", headers=right).text == "page 1"
    assert client.get("/").status_code == 403
    assert client.get("/", headers=right).headers.getlist("X-After") == ["1"]  # it was not stored with the page


def test_the_query_and_the_host_are_part_of_the_key(app: Flask, page: Counter) -> None:
    app.add_url_rule("/", view_func=cache_page(60)(lambda: page()))
    client = app.test_client()
    urls = ["/", "/?a=1", "/?a=2", "http://other.example/"]
    assert len({client.get(url).text for url in urls}) == 4
    assert all(is_hit(client.get(url)) for url in urls)


def test_head_is_answered_from_what_get_stored(app: Flask, page: Counter) -> None:
    app.add_url_rule("/", view_func=cache_page(60)(lambda: page()))
    client = app.test_client()
    client.get("/")
    response = client.head("/")
    assert is_hit(response)
    assert response.data == b""
    assert response.headers["Content-Length"] == "6"


def test_a_client_that_has_the_page_gets_304(app: Flask, page: Counter) -> None:
    @app.get("/")
    @cache_page(60)
    def view() -> Any:
        response = make_response(page())
        response.set_etag("v1")
        return response

    client = app.test_client()
    client.get("/")
    response = client.get("/", headers={"If-None-Match": '"v1"'})
    assert (response.status_code, response.data) == (304, b"")
    assert "Content-Type" not in response.headers
    assert page.calls == 1


# -- in which cache ---------------------------------------------------------------------------------------------------


def test_a_view_with_a_store_of_its_own(app: Flask, page: Counter, store: LocMemCache) -> None:
    app.add_url_rule("/", view_func=cache_page(60, cache=store)(lambda: page()))
    client = app.test_client()
    client.get("/")
    assert is_hit(client.get("/"))
    store.clear()
    assert not is_hit(client.get("/"))


def test_a_store_by_url_and_a_key_prefix_tell_views_apart(app: Flask, page: Counter) -> None:
    for prefix in ("a", "b"):
        view = cache_page(60, cache="locmem://flask-views", key_prefix=prefix)(lambda: page())
        one = Flask(prefix)
        one.add_url_rule("/", view_func=view)
        assert not is_hit(one.test_client().get("/"))
        assert is_hit(one.test_client().get("/"))


def test_the_default_cache_of_a_site_with_stores_of_its_own_is_the_sites(app: Flask, page: Counter) -> None:
    """The process may have another one, of which the site knows nothing."""
    app.config["CACHES"] = {"default": "locmem://the site's own default"}
    app.add_url_rule("/", view_func=cache_page(10, cache=cachemw.cache)(lambda: page()))
    extension = CacheMW(app)
    client = app.test_client()
    client.get("/", buffered=True)
    answer = client.get("/", buffered=True)
    assert is_hit(answer)
    assert trace(answer).count("cachemw") == 1
    assert "ttl=10" in trace(answer)
    cachemw.cache.clear()
    assert is_hit(client.get("/", buffered=True))
    with app.app_context():
        extension.caches["default"].clear()
    assert not is_hit(client.get("/", buffered=True))


def test_under_the_sites_own_cache_a_view_only_says_how_long(
    app: Flask, page: Counter, store: LocMemCache, clock: Clock
) -> None:
    app.add_url_rule("/short", view_func=cache_page(10)(lambda: page()))
    app.add_url_rule("/same", endpoint="same", view_func=cache_page(10, cache=store)(lambda: page()))
    app.add_url_rule("/long", endpoint="long", view_func=lambda: page())
    written = []
    put, store.write_records = store.write_records, lambda records: written.append(records) or put(records)  # type: ignore[func-returns-value, method-assign]
    CacheMW(app, cache=store, seconds=600)
    client = app.test_client()
    for path in ("/short", "/same", "/long"):
        assert trace(client.get(path, buffered=True)).count("cachemw") == 1
        assert is_hit(client.get(path, buffered=True))
    assert len(written) == 3
    clock.advance(11)
    assert [is_hit(client.get(path, buffered=True)) for path in ("/short", "/same", "/long")] == [False, False, True]


def test_under_the_sites_cache_a_view_in_another_one_is_stored_there_alone(
    app: Flask, page: Counter, store: LocMemCache
) -> None:
    own = LocMemCache(f"own-{store.location}", {})
    own.clear()
    app.add_url_rule("/", view_func=cache_page(60, cache=own)(lambda: page()))
    app.add_url_rule("/prefix", endpoint="prefix", view_func=cache_page(60, key_prefix="own")(lambda: page()))
    CacheMW(app, cache=store)
    client = app.test_client()
    for path in ("/", "/prefix"):
        client.get(path, buffered=True)
        assert is_hit(client.get(path, buffered=True))
        assert page.calls == (1 if path == "/" else 2)
    own.clear()
    client.get("/", buffered=True)
    assert page.calls == 3


def test_one_cache_page_within_another_stores_once(
    app: Flask, page: Counter, store: LocMemCache, clock: Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(caches["default"], "write_records", None)
    app.add_url_rule("/", view_func=cache_page(600, cache=store)(cache_page(10)(lambda: page())))
    client = app.test_client()
    client.get("/")
    clock.advance(11)
    assert client.get("/").text == "page 2"  # the inner one knows the page best
    assert page.calls == 2


def test_concurrent_misses_call_the_view_once(app: Flask, page: Counter, store: LocMemCache) -> None:
    begun, go = threading.Event(), threading.Event()

    @app.get("/")
    @cache_page(60, cache=store)
    def view() -> str:
        begun.set()
        assert go.wait(5)
        return page()

    texts: list[str] = []
    threads = [threading.Thread(target=lambda: texts.append(app.test_client().get("/").text)) for _ in range(8)]
    for thread in threads:
        thread.start()
    assert begun.wait(5)
    go.set()
    for thread in threads:
        thread.join(5)
    assert texts == ["page 1"] * 8
    assert page.calls == 1


def test_an_unknown_alias_names_the_view_and_what_there_is(app: Flask, page: Counter) -> None:
    @app.get("/")
    @cache_page(60, cache="pages")
    def news() -> str:
        return page()

    with pytest.raises(ImproperlyConfigured, match=r"news .*test_flask_views.py:\d+.*'pages'.*allowed: default;"):
        app.test_client().get("/")


def test_tags_of_the_views_arguments(app: Flask, page: Counter) -> None:
    cachemw = CacheMW(app, site=False)

    @app.get("/<int:number>")
    @cache_page(60, tags=lambda number: [f"entry:{number}", "entries"])
    def entry(number: int) -> str:
        return page()

    client = app.test_client()
    client.get("/1")
    client.get("/2")
    with app.app_context():
        assert cachemw.purge(tags=["entry:1"]) > 0
    assert [is_hit(client.get("/1")), is_hit(client.get("/2"))] == [False, True]


def test_in_djangos_way_no_conditions_are_answered(app: Flask, page: Counter, store: LocMemCache) -> None:
    """A view takes its site's policy over."""
    CacheMW(app, site=False, policy=Policy.django(), cache=store)
    app.add_url_rule("/", view_func=cache_page(60)(lambda: (page(), {"ETag": '"v1"'})))
    client = app.test_client()
    client.get("/")
    response = client.get("/", headers={"If-None-Match": '"v1"'})
    assert (response.status_code, response.text, trace(response)) == (200, "page 1", "")


# -- conditional ------------------------------------------------------------------------------------------------------


def test_conditional_answers_without_the_view(app: Flask, page: Counter) -> None:
    @app.get("/<name>")
    @conditional(etag=lambda name: f"{name}-1", last_modified=lambda name: 1_700_000_000)
    def view(name: str) -> str:
        return page()

    client = app.test_client()
    response = client.get("/a")
    assert response.headers["ETag"] == '"a-1"'
    assert response.headers["Last-Modified"] == "Tue, 14 Nov 2023 22:13:20 GMT"
    response = client.get("/a", headers={"If-None-Match": '"a-1"'})
    assert (response.status_code, response.headers["ETag"], page.calls) == (304, '"a-1"', 1)
    assert "Content-Type" not in response.headers
    assert client.get("/a", headers={"If-None-Match": '"b-1"'}).status_code == 200
    since = {"If-Modified-Since": "Tue, 14 Nov 2023 22:13:20 GMT"}
    assert client.get("/a", headers=since).status_code == 304


def test_conditional_guards_against_lost_updates(app: Flask, page: Counter) -> None:
    @app.route("/", methods=["PUT"])
    @conditional(etag=lambda: "v2", last_modified=lambda: None)
    def view() -> str:
        return page()

    client = app.test_client()
    assert client.put("/", headers={"If-Match": '"v1"'}).status_code == 412
    assert client.put("/", headers={"If-None-Match": "*"}).status_code == 412
    assert page.calls == 0
    done = client.put("/", headers={"If-Match": '"v2"'})
    assert done.status_code == client.put("/").status_code == 200
    assert "ETag" not in done.headers  # which would be of what was there before
    assert page.calls == 2


@pytest.mark.parametrize("method", ["GET", "PUT"])
@pytest.mark.parametrize("functions", [("etag",), ("etag", "last_modified")], ids="+".join)
def test_conditional_lets_be_made_what_is_not_there_yet(
    app: Flask, page: Counter, functions: tuple[str, ...], method: str
) -> None:
    nothing: dict[str, Any] = dict.fromkeys(functions, lambda: None)
    app.add_url_rule("/", view_func=conditional(**nothing)(lambda: page()), methods=["GET", "PUT"])
    client = app.test_client()
    for match in ("*", '"v1"'):
        assert client.open("/", method=method, headers={"If-Match": match}).status_code == 412
    assert page.calls == 0
    for fields in ({"If-None-Match": "*"}, {"If-None-Match": '"v1"'}, {}):
        assert client.open("/", method=method, headers=fields).status_code == 200
    assert page.calls == 3


def test_conditional_within_cache_page_and_without_validators(app: Flask, page: Counter) -> None:
    @app.get("/")
    @cache_page(60)
    @conditional(etag=lambda: None)
    def view() -> str:
        return page()

    client = app.test_client()
    assert client.get("/").text == client.get("/").text == "page 1"
    assert "ETag" not in client.get("/").headers


def test_the_views_own_validators_stay(app: Flask) -> None:
    app.add_url_rule("/", view_func=conditional(etag=lambda: "v1")(lambda: ("x", {"ETag": '"own"'})))
    assert app.test_client().get("/").headers["ETag"] == '"own"'
