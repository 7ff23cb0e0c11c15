"""Every example, run as its first lines say, does what they say."""

from __future__ import annotations

import os
import re
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx
import pytest

from cachemw.testing import BackendContract
from examples.demo import explain
from examples.own_backend import DictCache
from tests.servers import Server, shared, start_redis
from tests.serving import ASGI_SERVERS, ROOT, SERVERS, WSGI_SERVERS, run_example, serve

BERLIN = "de-DE,de;q=0.9"


@contextmanager
def visiting(server: Server) -> Iterator[httpx.Client]:
    """A visitor of a running site; the site ends with the visit."""
    with server, httpx.Client(base_url=f"http://{server.address}", timeout=20, trust_env=False) as client:
        yield client


@pytest.fixture
def visitor(request: pytest.FixtureRequest) -> Iterator[httpx.Client]:
    """A visitor of the example that the test names."""
    with visiting(run_example(request.param)) as client:
        yield client


def example(name: str) -> pytest.MarkDecorator:
    return pytest.mark.parametrize("visitor", [name], indirect=True)


def hit(response: httpx.Response) -> bool:
    return "; hit" in response.headers.get("cache-status", "")


def stored(response: httpx.Response) -> bool:
    return "; stored" in response.headers.get("cache-status", "")


# -- the two sites -----------------------------------------------------------------------------------------------------


@pytest.fixture(params=SERVERS)
def board(request: pytest.FixtureRequest) -> Iterator[httpx.Client]:
    """A visitor of the notice board, under each server."""
    app = "examples.flask_site:app" if request.param in WSGI_SERVERS else "examples.starlette_site:app"
    with visiting(serve(request.param, app)) as client:
        yield client


def test_the_board_is_read_once_for_everybody_and_each_language_is_a_page_of_its_own(board: httpx.Client) -> None:
    cold, hot = board.get("/"), board.get("/", headers={"Accept-Language": "en-GB"})
    german = board.get("/", headers={"Accept-Language": BERLIN})
    german_again = board.get("/", headers={"Accept-Language": "de"})
    assert [stored(cold), hit(hot), stored(german), hit(german_again)] == [True] * 4
    assert hot.text == cold.text
    assert "The board" in hot.text
    assert "Das Brett" in german_again.text
    assert german.headers["content-language"] == "de"


def test_who_posts_sees_the_new_notice_and_so_does_everybody(board: httpx.Client) -> None:
    board.get("/")
    board.get("/", headers={"Accept-Language": "de"})
    posted = board.post("/", data={"text": "The <tide> is out."}, follow_redirects=True)
    assert "The &lt;tide&gt; is out." in posted.text
    assert "The &lt;tide&gt; is out." in board.get("/", headers={"Accept-Language": "de"}).text


def test_one_visitors_page_and_cookie_never_reach_another(board: httpx.Client) -> None:
    board.post("/you", data={"name": "Ada"})
    mine = board.get("/you")
    assert "Ada" in mine.text
    assert not stored(mine)
    board.cookies.clear()
    theirs = board.get("/you")
    assert "Ada" not in theirs.text
    public = board.get("/")
    assert "set-cookie" not in public.headers
    assert hit(board.get("/", headers={"Cookie": "session=whose.ever"}))  # the page says that it is for everybody


def test_language_and_time_zone_that_a_visitor_chose_are_in_the_key(board: httpx.Client) -> None:
    board.get("/")
    chosen = board.post("/choose", data={"language": "de", "timezone": "Asia/Tokyo"})
    assert chosen.status_code == 303
    tokyo, again = board.get("/"), board.get("/")
    assert "Das Brett" in tokyo.text
    assert "<option selected>Asia/Tokyo</option>" in tokyo.text
    assert stored(tokyo)
    assert hit(again)
    board.cookies.clear()
    assert "The board" in board.get("/").text


def test_the_timing_field_is_of_this_request_and_not_of_the_stored_one(board: httpx.Client) -> None:
    cold, hot = board.get("/"), board.get("/")
    slow, fast = (float(re.findall(r"dur=([0-9.]+)", one.headers["server-timing"])[0]) for one in (cold, hot))
    assert fast < slow >= 300
    assert 'desc="hit; ttl=' in hot.headers["server-timing"]


def test_a_browser_that_has_the_page_is_answered_304() -> None:
    with visiting(serve("waitress", "examples.flask_site:app")) as visitor:
        etag = visitor.get("/").headers["etag"]
        answer = visitor.get("/", headers={"If-None-Match": etag})
    assert answer.status_code == 304
    assert answer.content == b""


@pytest.mark.parametrize("kind", ASGI_SERVERS)
def test_the_log_is_stored_when_it_is_complete_and_events_never(kind: str) -> None:
    with visiting(serve(kind, "examples.starlette_site:app")) as visitor:
        assert visitor.get("/log").text == visitor.get("/log").text
        with visitor.stream("GET", "/events") as events:
            assert next(events.iter_lines()).startswith("data: ")
            assert "event-stream" in events.headers["cache-status"]


def test_an_example_whose_port_is_taken_says_how_to_take_another() -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        environ = {**os.environ, "PORT": str(port)}
        command = [sys.executable, "-m", "examples.own_backend"]
        ran = subprocess.run(command, cwd=ROOT, env=environ, capture_output=True, text=True, timeout=60)
    assert ran.returncode == 1
    assert ran.stderr.startswith(f"Port {port} cannot be had: ")
    assert ran.stderr.endswith(" PORT=8001 before the command takes another one.\n")


@example("cache_busting")
def test_a_button_changes_the_stylesheet_and_its_url(visitor: httpx.Client) -> None:
    before = re.findall(r"/static/style\.css\?v=\w+", visitor.get("/").text)[0]
    assert "immutable" in visitor.get(before).headers["cache-control"]
    after = visitor.post("/", data={"paint": "Plum"}, follow_redirects=True).text
    assert before not in after
    assert "#7a4069" in visitor.get(re.findall(r"/static/style\.css\?v=\w+", after)[0]).text


def test_the_demo_says_in_words_what_the_cache_did() -> None:
    ran = subprocess.run(
        [sys.executable, "-m", "examples.demo", "--once"], cwd=ROOT, capture_output=True, text=True, timeout=60
    )
    assert ran.returncode == 0, ran.stderr
    assert ran.stderr == ""
    flask = [line.split(maxsplit=4) for line in ran.stdout.splitlines() if line.startswith("  flask")]
    assert [" ".join(words[1:4]) for words in flask[:6]] == [
        *("GET / 200", "GET / 200", "GET / 200", "GET / 304", "POST / 303", "GET / 200")
    ]
    said = [words[4].partition("ms")[2].partition(";")[0].strip() for words in flask]
    assert said[:4] == ["miss", "hit", "miss, another variant is stored", "hit, the browser has it already"]
    assert "queries: 1" in ran.stdout
    assert ran.stdout.count("shared with whoever came first") >= 1
    assert "first byte after" in ran.stdout


@pytest.mark.parametrize(
    ("field", "status", "words"),
    [
        (None, 200, "not the cache's business"),
        ("origin; hit, cachemw; fwd=uri-miss; fwd-status=200; stored; ttl=59", 200, "miss; stored for 59 s"),
        ("cachemw; hit; ttl=-3", 200, "hit; stale, being fetched again"),
        ("cachemw; fwd=stale; fwd-status=304; stored; ttl=60", 200, "stale; stored for 60 s"),
        ("cachemw; fwd=method; fwd-status=500", 500, "passed on"),
        ("cachemw; fwd=bypass; detail=guarded", 200, "passed by; not stored: guarded"),
        ("cachemw; fwd=uri-miss; fwd-status=404", 404, "miss; not stored"),
        (
            "cachemw; fwd=uri-miss; fwd-status=304; detail=status",
            304,
            "miss; the application says that the browser has it already",
        ),
    ],
)
def test_a_cache_status_in_words(field: str | None, status: int, words: str) -> None:
    assert explain(field, status)[1] == words


# -- single views ------------------------------------------------------------------------------------------------------


@example("views_flask")
def test_single_views_of_flask(visitor: httpx.Client) -> None:
    assert visitor.get("/").text == visitor.get("/").text
    assert visitor.get("/clock").text == visitor.get("/clock").text
    assert visitor.get("/archive/1999").text == visitor.get("/archive/1999").text != visitor.get("/archive/1998").text
    assert visitor.get("/account").text != visitor.get("/account").text

    first = visitor.get("/entries/1")
    modified = first.headers["last-modified"]
    assert visitor.get("/entries/1").text == first.text
    assert visitor.get("/entries/1", headers={"If-Modified-Since": modified}).status_code == 304
    index, other = visitor.get("/").text, visitor.get("/entries/2").text
    assert visitor.post("/entries/1", content=b"Storm").text == "changed\n"
    assert visitor.get("/entries/1").text.startswith("Storm")
    assert visitor.get("/entries/2").text == other
    assert visitor.get("/").text != index
    assert visitor.get("/entries/9").status_code == 404

    assert visitor.get("/greeting", headers={"Accept-Language": "de"}).text == "Guten Tag\n"
    assert visitor.get("/greeting", headers={"Accept-Language": "en"}).text == "Good day\n"
    mine, theirs = (visitor.get("/basket", headers={"Cookie": f"session={who}"}) for who in ("me", "you"))
    assert mine.text != theirs.text
    assert visitor.get("/basket", headers={"Cookie": "session=me"}).text == mine.text


@example("views_starlette")
def test_single_endpoints_of_starlette(visitor: httpx.Client) -> None:
    for path in ("/", "/clock", "/archive/1999"):
        assert visitor.get(path).text == visitor.get(path).text
    assert visitor.get("/account").text != visitor.get("/account").text
    assert visitor.get("/greeting", headers={"Accept-Language": "de"}).text == "Guten Tag\n"
    assert visitor.get("/greeting").text == "Good day\n"
    assert hit(visitor.get("/greeting"))
    visitor.post("/refresh")
    assert not hit(visitor.get("/greeting"))


@example("views_fastapi")
def test_single_path_operations_of_fastapi(visitor: httpx.Client) -> None:
    cold, hot = visitor.get("/weather/Kiel"), visitor.get("/weather/Kiel")
    assert cold.json() == hot.json()
    assert cold.json()["unit"] == "Celsius"
    assert visitor.post("/weather/Kiel").json() == {"place": "Kiel"}
    assert visitor.get("/weather/Kiel").json() != cold.json()
    assert visitor.get("/archive/1999").json() == visitor.get("/archive/1999").json()
    assert [visitor.get("/unit", headers={"X-Unit": unit}).json()["unit"] for unit in "CFC"] == ["C", "F", "C"]
    parameters = visitor.get("/openapi.json").json()["paths"]["/weather/{place}"]["get"]["parameters"]
    assert [one["name"] for one in parameters] == ["place"]


@example("fragments")
def test_parts_of_a_page_are_kept_and_invalidated_one_by_one(visitor: httpx.Client) -> None:
    started = time.perf_counter()
    assert "In your basket: nothing." in visitor.get("/?visitor=Ada").text
    slow = time.perf_counter()
    again = visitor.get("/?visitor=Bob").text
    fast = time.perf_counter()
    assert fast - slow < slow - started > 0.3
    assert "Good day, Bob." in again
    assert "Oar, blue" in again
    chosen = visitor.post("/basket", data={"visitor": "Ada", "article": "<rope>"}, follow_redirects=True)
    assert "In your basket: &lt;rope&gt;." in chosen.text
    assert "In your basket: nothing." in visitor.get("/?visitor=Bob").text
    assert visitor.get("/top.txt?count=1").text == "Lamp oil\n"
    assert visitor.get("/top.txt?count=2").text == "Lamp oil\nOar, blue\n"


# -- around the application --------------------------------------------------------------------------------------------


@example("dashboard_site")
def test_the_operator_alone_sees_what_the_cache_does_and_purges(visitor: httpx.Client) -> None:
    keeper = ("keeper", "lamp")
    assert not hit(visitor.get("/lamp/7"))
    assert hit(visitor.get("/lamp/7"))
    assert visitor.get("/cache").status_code == visitor.post("/cache").status_code == 401
    page = visitor.get("/cache", auth=keeper)
    assert "50.0\u202f%" in page.text
    token = page.text.partition('name="token" value="')[2].partition('"')[0]
    purged = visitor.post("/cache", auth=keeper, data={"token": token, "tag": "lamps"})
    assert "Purged: the tag lamps." in purged.text
    assert not hit(visitor.get("/lamp/7"))


@example("hooks_site")
def test_the_login_guards_stored_pages_and_the_timing_is_of_each_request(visitor: httpx.Client) -> None:
    keeper = ("keeper", "lamp")
    for _ in range(2):
        refused = visitor.get("/admin")
        assert refused.status_code == 401
        assert refused.headers["x-robots-tag"] == "noindex"
        assert visitor.get("/admin", auth=keeper).text == "/admin: 42\n"
    assert visitor.get("/%61dmin/").status_code == 401
    assert hit(visitor.get("/admin", auth=keeper))
    open_page = visitor.get("/administration")
    assert open_page.text == "/administration: no database\n"
    assert "x-robots-tag" not in open_page.headers
    assert "server-timing" in visitor.get("/administration").headers


def test_the_connection_is_closed_at_teardown_also_after_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    from werkzeug.test import Client

    from examples import hooks_site

    def failing(environ: Any, start_response: Any) -> Any:
        raise RuntimeError("no oil")

    client = Client(hooks_site.app)
    hooks_site.closed.clear()
    client.get("/admin/fine", auth=("keeper", "lamp"), buffered=True)
    client.get("/admin/fine", buffered=True)  # refused: nothing was opened
    monkeypatch.setattr(hooks_site.app, "app", failing)
    with pytest.raises(RuntimeError):
        client.get("/admin/fails", auth=("keeper", "lamp"))
    assert [type(error) for error in hooks_site.closed] == [type(None), RuntimeError]


@example("languages")
def test_a_page_is_stored_once_for_each_language_and_zone(visitor: httpx.Client) -> None:
    english, german = visitor.get("/en/"), visitor.get("/de/")
    assert english.text.startswith("Good day! In UTC")
    assert german.text.startswith("Guten Tag! In UTC")
    assert visitor.get("/", headers={"Accept-Language": BERLIN}).text.startswith("Guten Tag!")
    assert hit(visitor.get("/", headers={"Accept-Language": "fr, de;q=0.1"}))
    tokyo = visitor.get("/en/", headers={"X-Time-Zone": "Asia/Tokyo"})
    assert tokyo.text.startswith("Good day! In Asia/Tokyo")
    assert visitor.get("/en/", headers={"Cookie": "timezone=Asia/Tokyo"}).text == tokyo.text
    assert visitor.get("/en/", headers={"X-Time-Zone": "No/Where"}).text == english.text


@pytest.mark.parametrize(
    ("kind", "app"), [(kind, f"{'wsgi' if kind in WSGI_SERVERS else 'asgi'}_app") for kind in SERVERS]
)
def test_any_application_is_wrapped_by_the_environment_alone(kind: str, app: str, tmp_path: Path) -> None:
    environ = {
        "CACHEMW_APP": f"examples.plain:{app}",
        "CACHEMW_URL": f"file://{tmp_path}/pages",
        "CACHEMW_SECONDS": "77",
        "CACHEMW_RULES": '[{"path": "/now", "never": true}]',
    }
    with visiting(serve(kind, "examples.from_environment:app", environ=environ)) as visitor:
        cold = visitor.get("/")
        assert cold.headers["cache-control"] == "max-age=77"
        assert visitor.get("/").text == cold.text
        assert visitor.get("/now").text != visitor.get("/now").text
    with visiting(serve(kind, "cachemw.autowrap:app", environ=environ)) as visitor:
        assert visitor.get("/", headers={"Host": cold.request.url.netloc.decode()}).text == cold.text  # from the disk


def test_django_and_flask_answer_from_each_others_pages_in_redis() -> None:
    redis = shared(start_redis)
    environ = {"CACHEMW_URL": f"redis://{redis.address}/7"}
    host = {"Host": "harbour.example"}
    with (
        visiting(serve("gunicorn", "examples.django_and_flask:django_app", environ=environ)) as at_django,
        visiting(serve("gunicorn", "examples.django_and_flask:flask_app", environ=environ)) as at_flask,
    ):
        news = at_django.get("/news", headers=host)
        assert stored(news)
        assert at_flask.get("/news", headers=host).text == news.text  # of which Flask has no view
        assert at_flask.get("/", headers=host).text == "How often Django made the news: 1\n"
        assert at_flask.post("/refresh", headers=host).text == "purged: 1\n"
        newer = at_django.get("/news", headers=host)
        assert newer.text.endswith("number 2.\n")
        assert at_flask.get("/news", headers=host).text == newer.text


@pytest.fixture
def redis_url(monkeypatch: pytest.MonkeyPatch) -> None:
    """The store of what is run by the test."""
    monkeypatch.setenv("CACHEMW_URL", f"redis://{shared(start_redis).address}/8")


@pytest.mark.usefixtures("redis_url")
@example("django_and_flask")
def test_django_and_flask_behind_one_host(visitor: httpx.Client) -> None:
    assert visitor.get("/news").text == visitor.get("/news").text
    assert visitor.get("/").text == "How often Django made the news: 1\n"
    visitor.post("/refresh")
    assert visitor.get("/news").text.endswith("number 2.\n")


# -- a store of one's own ----------------------------------------------------------------------------------------------


class TestOwnBackend(BackendContract):
    """The example's store keeps the contract of all stores."""

    @pytest.fixture
    def make_cache(self, request: pytest.FixtureRequest) -> Any:
        return lambda **params: DictCache(request.node.name, params)


def test_the_example_store_has_a_limit() -> None:
    cache = DictCache("limit", {"OPTIONS": {"limit": 2}})
    cache.set_many({"a": 1, "b": 2, "c": 3})
    assert cache.get_many("abc") == {"b": 2, "c": 3}


@example("own_backend")
def test_pages_in_a_store_of_ones_own(visitor: httpx.Client) -> None:
    assert visitor.get("/").text == visitor.get("/").text


# -- types ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "command", [["mypy", "--strict"], ["pyright", "--pythonpath", sys.executable]], ids=["mypy", "pyright"]
)
def test_whoever_checks_types_has_nothing_to_say_of_the_examples(command: list[str]) -> None:
    command = [sys.executable, "-m", *command, "examples"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stdout + done.stderr
