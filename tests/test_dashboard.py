"""The dashboard: who sees it, what it shows, what it purges, and for whom it does not. On WSGI and on ASGI."""

from __future__ import annotations

import asyncio
import base64
import hashlib
import itertools
import re
import threading
from collections.abc import Callable
from dataclasses import dataclass, field
from html.parser import HTMLParser
from typing import Any
from urllib.parse import urlencode

import pytest
from starlette.requests import Request as ASGIRequest
from werkzeug import Request as WSGIRequest
from werkzeug import Response as WerkzeugResponse
from werkzeug.test import Client, EnvironBuilder, run_wsgi_app

from cachemw import CacheMiddleware, ImproperlyConfigured, Metrics, ObservingMiddleware
from cachemw.backends.locmem import LocMemCache
from cachemw.dashboard import Dashboard
from cachemw.dashboard._page import _octets, _percent, _seconds, _span

HIT = "cachemw; hit; ttl=60"
MISS = "cachemw; fwd=uri-miss; fwd-status=200; stored; ttl=60"
FORM = "application/x-www-form-urlencoded"
VOID = {"meta", "input", "br", "!doctype"}
_numbers = itertools.count()


@dataclass
class Answer:
    """What a visitor of the dashboard got."""

    status: int
    fields: list[tuple[str, str]]
    body: bytes

    @property
    def text(self) -> str:
        return self.body.decode()

    @property
    def told(self) -> str:
        found = re.search(r'<p class="told \w+" role="status">(.*?)</p>', self.text)
        return found[1] if found else ""

    def __getitem__(self, name: str) -> str:
        (value,) = [value for key, value in self.fields if key.lower() == name.lower()]
        return value

    @property
    def token(self) -> str:
        found = re.search(r'name="token" value="([^"]*)"', self.text)
        assert found is not None
        return found[1]


@dataclass
class Visitor:
    """A browser: it keeps the page's cookie, and sends the page's form."""

    dashboard: Dashboard
    interface: str
    fields: dict[str, str] = field(default_factory=lambda: {"Host": "localhost"})
    scheme: str = "http"

    def ask(self, method: str = "GET", body: bytes = b"", **fields: str) -> Answer:
        said = {**self.fields, **{name.replace("_", "-"): value for name, value in fields.items()}}
        answer = self._wsgi(method, body, said) if self.interface == "wsgi" else self._asgi(method, body, said)
        cookies = [value for name, value in answer.fields if name.lower() == "set-cookie"]
        if cookies:
            self.fields["Cookie"] = cookies[0].partition(";")[0]
        return answer

    def send(self, _form: dict[str, str] | None = None, _kind: str = FORM, **fields: str) -> Answer:
        """Look at the page, fill in the form, send it."""
        form = {"token": self.ask().token, **(_form or {})}
        return self.ask("POST", urlencode(form).encode(), Content_Type=_kind, **fields)

    def _wsgi(self, method: str, body: bytes, fields: dict[str, str]) -> Answer:
        builder = EnvironBuilder(method=method, headers=list(fields.items()), data=body or None)
        builder.url_scheme = self.scheme
        environ = {**builder.get_environ(), "CONTENT_TYPE": fields.get("Content-Type", "")}
        environ["HTTP_HOST"] = fields["Host"]
        result, status, headers = run_wsgi_app(self.dashboard.wsgi, environ, buffered=True)
        return Answer(int(status[:3]), list(headers), b"".join(result))

    def _asgi(self, method: str, body: bytes, fields: dict[str, str]) -> Answer:
        scope = {
            "type": "http",
            "method": method,
            "scheme": self.scheme,
            "path": "/",
            "query_string": b"",
            "headers": [(name.lower().encode(), value.encode("latin-1")) for name, value in fields.items()],
        }
        pieces = [body[:7], body[7:]]
        answer = Answer(0, [], b"")

        async def receive() -> dict[str, Any]:
            return {"type": "http.request", "body": pieces.pop(0), "more_body": bool(pieces)}

        async def send(message: Any) -> None:
            if message["type"] == "http.response.start":
                answer.status = message["status"]
                answer.fields = [(name.decode(), value.decode()) for name, value in message["headers"]]
            else:
                answer.body += message["body"]

        asyncio.run(self.dashboard.asgi(scope, receive, send))
        return answer


@dataclass
class Site:
    """A site with pages that are all different, its cache, and its dashboard."""

    cached: Any
    metrics: Metrics
    visitor: Visitor
    made: threading.Event  # a page was made

    def page(self, path: str = "/page") -> str:
        return Client(ObservingMiddleware(self.cached, metrics=self.metrics)).get(path, buffered=True).text


@pytest.fixture(params=["wsgi", "asgi"])
def make(request: pytest.FixtureRequest) -> Callable[..., Site]:
    """Make a site; `cache` is its store."""
    counts, event = itertools.count(), threading.Event()

    def app(environ: Any, start_response: Any) -> list[bytes]:
        start_response("200 OK", [("Cache-Control", "max-age=60, stale-while-revalidate=60"), ("Cache-Tag", "news")])
        event.set()
        return [b"%d" % next(counts)]

    def made(cache: Any = None, **options: Any) -> Site:
        metrics = Metrics()
        cached = CacheMiddleware(app, cache=cache or LocMemCache(f"dashboard-{next(_numbers)}"))
        dashboard = Dashboard(metrics, cached, **{"allow": lambda request: True, **options})
        return Site(cached, metrics, Visitor(dashboard, request.param), event)

    return made


@pytest.fixture
def site(make: Callable[..., Site]) -> Site:
    return make()


# -- who may --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("allow", [None, True, "everybody"])
def test_without_a_function_that_lets_somebody_in_there_is_no_dashboard(allow: Any) -> None:
    with pytest.raises(
        ImproperlyConfigured, match=r"allow is .*; allowed: a function of the request .* such as allow="
    ):
        Dashboard(Metrics(), allow=allow)


def test_other_objects_as_metrics_and_as_caching_are_refused() -> None:
    with pytest.raises(ImproperlyConfigured, match=r"metrics is .*; allowed: a cachemw\.Metrics"):
        Dashboard(object(), allow=lambda request: True)  # type: ignore[arg-type]
    with pytest.raises(TypeError, match="caching='redis://'"):
        Dashboard(Metrics(), "redis://", allow=lambda request: True)  # type: ignore[arg-type]


@pytest.mark.parametrize("no", [False, None, 0, ""])
def test_who_is_not_let_in_sees_nothing_and_purges_nothing(make: Callable[..., Site], no: Any) -> None:
    operator = make()
    first = operator.page()
    token = operator.visitor.ask().token
    stranger = Visitor(
        Dashboard(operator.metrics, operator.cached, allow=lambda request: no), operator.visitor.interface
    )
    stranger.fields = dict(operator.visitor.fields)
    form = urlencode({"token": token, "url": "http://localhost/page"}).encode()
    for answer in (stranger.ask(), stranger.ask("POST", form, Content_Type=FORM), stranger.ask("PUT")):
        assert (answer.status, answer.text, answer["Cache-Control"]) == (403, "Forbidden\n", "no-store")
        assert not [name for name, _ in answer.fields if name == "Set-Cookie"]
    assert operator.page() == first


def test_the_function_is_given_the_request_of_the_interface(make: Callable[..., Site]) -> None:
    seen: list[Any] = []

    def allow(request: Any) -> bool:
        seen.append(request)
        return request.headers["x-who"] == "operator"  # type: ignore[no-any-return]

    site = make(allow=allow)
    assert site.visitor.ask(X_Who="operator").status == 200
    assert site.visitor.ask(X_Who="somebody").status == 403
    assert {type(one) for one in seen} == {WSGIRequest if site.visitor.interface == "wsgi" else ASGIRequest}


async def nobody(request: Any) -> bool:
    return False


@pytest.mark.parametrize("allow", [nobody, lambda request: nobody(request), lambda request: Later()])
def test_an_async_function_is_awaited_and_never_taken_for_a_yes(make: Callable[..., Site], allow: Any) -> None:
    site = make(allow=allow)
    if site.visitor.interface == "asgi":
        assert site.visitor.ask().status == 403
        return
    with pytest.raises(ImproperlyConfigured, match="and the application is WSGI"):
        site.visitor.ask()


@pytest.mark.parametrize("answer", ["alice", 1, [False], Site.page, WerkzeugResponse("Please log in", 302)], ids=repr)
def test_what_is_merely_true_is_no_yes(make: Callable[..., Site], answer: Any) -> None:
    """A method that nobody called, a user who may be anybody, the page of a login."""
    site = make(allow=lambda request: answer)
    with pytest.raises(ImproperlyConfigured, match=r"allow returned .*; allowed: True, or False for everybody else\."):
        site.visitor.ask()


class Later:
    """An awaitable that is no coroutine."""

    def __await__(self) -> Any:
        yield from ()
        return False


# -- what it shows --------------------------------------------------------------------------------------------------


def test_the_figures_of_the_process(site: Site) -> None:
    for _ in range(4):
        site.page()
    text = site.visitor.ask().text
    assert re.findall(r'<p class="figure">(.*?)</p>', text) == ["75.0\u202f%"] * 3
    assert "3 of 4 look-ups" in text
    assert "this minute: 4 requests, 3 from the cache" in text
    rows = re.findall(
        r'<span class="outcome">(.*?)</span>.*?"number">(.*?)</td><td class="number">(.*?)</td>', text, re.S
    )
    assert rows == [("hit", "75.0\u202f%", "3"), ("miss", "25.0\u202f%", "1")]
    assert re.search(r'LocMemCache <span class="means">dashboard-\d+</span><span class="reasons">.*?works</span>', text)
    held = site.cached.caching.line.pages.cache._store
    assert f'<td class="number">{len(held.entries)}</td>' in text


def test_before_the_first_request(site: Site) -> None:
    text = site.visitor.ask().text
    assert "No request has come yet." in text
    assert re.findall(r'<p class="figure">(.*?)</p>', text) == ["\u2013"] * 3


def test_why_pages_are_not_stored_and_which_cache_says_so(site: Site) -> None:
    for line, times in ((f"{MISS}; detail=no-store", 3), (f"{MISS}; detail=private", 1), ("shop; fwd=miss", 2)):
        for _ in range(times):
            site.metrics.observe(line, 0.1, 1)
    assert '<span class="reasons">cachemw: no-store 3 \u00b7 shop 2 \u00b7 cachemw: private 1</span>' in (
        site.visitor.ask().text
    )


class Nested(HTMLParser):
    """Is every element closed where it should be, and nothing there that could run, or load anything?"""

    def __init__(self) -> None:
        super().__init__()
        self.open: list[str] = []
        self.seen: set[str] = set()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.seen.add(tag)
        names = {name for name, _ in attrs}
        assert not {name for name in names if name.startswith("on")} | (names & {"src", "style", "srcset"})
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        assert tag in {"rect"}

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag


HOSTILE = '"><script>alert(1)</script>'


def test_whatever_others_call_themselves_is_escaped(make: Callable[..., Site]) -> None:
    site = make(cache=LocMemCache(HOSTILE), title=HOSTILE)
    quoted = HOSTILE.replace('"', '\\"')
    site.metrics.observe(f'"{quoted}"; fwd=miss; detail="{quoted}"', 0.1, 1)
    site.metrics.observe(HIT, 0.1, 1)
    site.visitor.fields["Host"] = HOSTILE
    answer = site.visitor.send({"url": HOSTILE, "tag": HOSTILE})
    parser = Nested()
    parser.feed(answer.text)
    assert parser.open == []
    assert not parser.seen & {"script", "img", "link", "iframe", "object"}
    assert answer.text.count("alert(1)") >= 6


def test_the_page_says_that_nothing_may_run_or_be_loaded_or_keep_it(site: Site) -> None:
    answer = site.visitor.ask()
    style = re.search(r"<style>(.*?)</style>", answer.text, re.S)
    assert style is not None
    sha = base64.b64encode(hashlib.sha256(style[1].encode()).digest()).decode()
    assert answer["Content-Security-Policy"] == (
        f"default-src 'none'; style-src 'sha256-{sha}'; form-action 'self'; base-uri 'none'; frame-ancestors 'none'"
    )
    assert answer["Cache-Control"] == "no-store"
    assert answer["X-Content-Type-Options"] == "nosniff"
    assert answer["Content-Length"] == str(len(answer.body))


@pytest.mark.parametrize(("scheme", "secure"), [("http", False), ("https", True)])
def test_the_cookie_is_for_the_browser_and_this_page_alone(site: Site, scheme: str, secure: bool) -> None:
    site.visitor.scheme = scheme
    cookie = site.visitor.ask()["Set-Cookie"]
    assert "; HttpOnly; SameSite=Strict" in cookie
    assert cookie.endswith("; Secure") is secure


def test_the_page_is_never_stored_even_inside_of_a_cache() -> None:
    metrics = Metrics()
    dashboard = Dashboard(metrics, allow=lambda request: request.headers.get("x-who") == "operator")
    around = Client(CacheMiddleware(dashboard.wsgi, cache=LocMemCache("around the dashboard"), seconds=600))
    assert around.get("/", headers={"X-Who": "operator"}, buffered=True).status_code == 200
    assert around.get("/", buffered=True).status_code == 403
    assert around.get("/", headers={"X-Who": "operator"}, buffered=True).status_code == 200


class Down(LocMemCache):
    """A store that answers nothing while it is down."""

    down = False

    def read_records(self, keys: Any) -> Any:
        if self.down:
            raise OSError("nobody there")
        return super().read_records(keys)

    def drop_records(self, keys: Any) -> Any:
        if self.down:
            raise OSError("nobody there")
        return super().drop_records(keys)

    def commit_records(self, *arguments: Any) -> Any:
        if self.down:
            raise OSError("nobody there")
        return super().commit_records(*arguments)


def test_a_store_that_fails_says_since_when(make: Callable[..., Site]) -> None:
    store = Down("down")
    site = make(cache=store)
    store.down = True
    for number in range(6):
        site.page(f"/{number}")
    text = site.visitor.ask().text
    assert re.search(r"reading fails since \d\d:\d\d:\d\d UTC \(0 min\)", text)
    assert "failures so far: store-error " in text
    answer = site.visitor.send({"url": "http://localhost/page"})
    assert answer.status == 503
    assert answer.told.startswith("A store does not answer: http://localhost/page is purged before")
    assert "a purge waits until it answers" in answer.text


def test_a_head_and_other_methods(site: Site) -> None:
    assert (site.visitor.ask("HEAD").status, site.visitor.ask("HEAD").body) == (200, b"")
    refused = site.visitor.ask("DELETE")
    assert (refused.status, refused["Allow"]) == (405, "GET, HEAD, POST")


@pytest.mark.parametrize(
    ("shown", "text"),
    [
        (_percent(0.99999), "99.9\u202f%"),
        (_percent(1.0), "100\u202f%"),
        (_percent(0.0), "0\u202f%"),
        (_octets(999), "999\u202fB"),
        (_octets(1500), "1.5\u202fkB"),
        (_octets(7_300_000_000_000_000), "7300\u202fTB"),
        (_seconds(0.000_021_4), "21.4\u202f\u00b5s"),
        (_seconds(0.5), "500\u202fms"),
        (_seconds(4000.0), "4000\u202fs"),
        (_span(59), "0 min"),
        (_span(-5), "0 min"),
        (_span(3 * 3600 + 60), "3 h 1 min"),
        (_span(50 * 3600), "2 d 2 h"),
    ],
)
def test_numbers_as_people_read_them(shown: str, text: str) -> None:
    assert shown == text


# -- what it purges -------------------------------------------------------------------------------------------------


def test_a_page_is_purged_by_its_url(site: Site) -> None:
    first = site.page()
    answer = site.visitor.send({"url": " http://localhost/page "})
    assert (answer.status, answer.told) == (200, "Purged: http://localhost/page.")
    assert site.page() != first
    assert site.visitor.send({"url": "http://localhost/nothing"}).told == (
        "Nothing was stored for http://localhost/nothing."
    )


def test_pages_are_purged_by_a_tag_and_by_both_at_once(site: Site) -> None:
    first = site.page()
    assert site.visitor.send({"tag": "news", "how": "hard"}).told == "Purged: the tag news."
    second = site.page()
    assert second != first
    answer = site.visitor.send({"tag": "news", "url": "http://localhost/page"})
    assert answer.told == "Purged: http://localhost/page and the tag news."
    assert site.page() != second


def test_a_soft_purge_makes_pages_stale(site: Site) -> None:
    first = site.page()
    assert site.visitor.send({"tag": "news", "how": "soft"}).told == "Made stale: the tag news."
    site.made.clear()
    assert site.page() == first
    assert site.made.wait(5), "nobody has fetched a new one in the background"


def test_what_cannot_be_purged_is_told_and_stays_in_the_form(site: Site) -> None:
    answer = site.visitor.send({"url": "/page", "how": "soft"})
    assert answer.status == 400
    assert "give the absolute URL" in answer.told
    assert 'name="url" value="/page"' in answer.text
    assert 'value="soft" checked' in answer.text
    assert site.visitor.send({"url": " ", "tag": ""}).told == "Say which URL to purge, or which tag."


def test_reading_the_page_purges_nothing_whatever_is_in_its_url(site: Site) -> None:
    first = site.page()
    token = site.visitor.ask().token
    form = urlencode({"token": token, "url": "http://localhost/page"}).encode()
    for method in ("GET", "HEAD"):
        site.visitor.ask(method, form, Content_Type=FORM)
    assert site.page() == first


OUT_OF_DATE = "The form was out of date. Nothing was purged: please send it again."
ELSEWHERE = "Refused: the form was sent by another site."


@pytest.mark.parametrize(
    ("fields", "told"),
    [
        ({"Sec_Fetch_Site": "cross-site"}, ELSEWHERE),
        ({"Sec_Fetch_Site": "same-site"}, ELSEWHERE),
        ({"Sec_Fetch_Site": "none"}, ELSEWHERE),
        ({"Sec_Fetch_Site": "cross-site", "Origin": "http://localhost"}, ELSEWHERE),
        ({"Origin": "http://evil.example"}, ELSEWHERE),
        ({"Origin": "http://localhost.evil.example"}, ELSEWHERE),
        ({"Origin": "http://localhost:81"}, ELSEWHERE),
        ({"Origin": "null"}, ELSEWHERE),
        ({"Origin": "http://["}, ELSEWHERE),
        ({"Cookie": ""}, OUT_OF_DATE),
        ({"Cookie": f"cachemw_dashboard={'a' * 43}"}, OUT_OF_DATE),
        ({"Cookie": "cachemw_dashboard="}, OUT_OF_DATE),
        ({"_kind": "text/plain"}, "Refused: this is not the form of this page."),
        ({"_kind": "multipart/form-data; boundary=x"}, "Refused: this is not the form of this page."),
        ({"_kind": ""}, "Refused: this is not the form of this page."),
    ],
)
def test_a_form_that_another_site_has_sent_does_nothing(site: Site, fields: dict[str, str], told: str) -> None:
    first = site.page()
    answer = site.visitor.send({"url": "http://localhost/page"}, **fields)
    assert (answer.told, answer.status) == (told, 403 if told == ELSEWHERE else 400)
    assert site.page() == first


@pytest.mark.parametrize(
    "fields",
    [
        {"Sec_Fetch_Site": "same-origin", "Origin": "null"},
        {"Origin": "http://LOCALHOST"},
        {"_kind": f"{FORM.upper()}; charset=utf-8"},
    ],
)
def test_a_form_of_the_page_itself_counts(site: Site, fields: dict[str, str]) -> None:
    first = site.page()
    assert site.visitor.send({"url": "http://localhost/page"}, **fields).status == 200
    assert site.page() != first


@pytest.mark.parametrize("token", ["", "x", "é", "a" * 43])
def test_a_form_without_the_token_of_the_cookie_does_nothing(site: Site, token: str) -> None:
    first = site.page()
    assert site.visitor.send({"url": "http://localhost/page", "token": token}).told == OUT_OF_DATE
    assert site.page() == first


def test_an_empty_token_is_none_even_if_both_are(site: Site) -> None:
    site.visitor.ask()
    answer = site.visitor.ask("POST", b"url=http://localhost/page&token=", Content_Type=FORM, Cookie="a=b")
    assert answer.told == OUT_OF_DATE


@pytest.mark.parametrize(
    "body",
    [b"\xff=1", b"url=%ff%fe", b"&".join([b"a=b"] * 40), b"url=" + b"x" * 20_000],
    ids=["octets", "no utf-8", "many", "long"],
)
def test_what_cannot_be_read_does_nothing(site: Site, body: bytes) -> None:
    answer = site.visitor.ask("POST", body, Content_Type=FORM)
    assert answer.status == 400
    assert answer.told.startswith("Refused: ")


def test_a_token_is_kept_for_other_tabs_and_a_forged_one_is_replaced(site: Site) -> None:
    first = site.visitor.ask()
    assert site.visitor.ask().token == first.token
    site.visitor.fields["Cookie"] = f"other=1; {site.visitor.fields['Cookie']}; bad"
    assert site.visitor.ask().token == first.token
    site.visitor.fields["Cookie"] = 'cachemw_dashboard="><b>'
    assert site.visitor.ask().token not in ("", first.token, '"><b>')


# -- ASGI alone -----------------------------------------------------------------------------------------------------


def asgi(messages: list[Any], **scope: Any) -> list[Any]:
    """What the dashboard sends."""
    dashboard, sent = Dashboard(Metrics(), allow=lambda request: True), []

    async def receive() -> Any:
        return messages.pop(0)

    async def send(message: Any) -> None:
        sent.append(message)

    asyncio.run(dashboard.asgi({"headers": [], "path": "/", "query_string": b"", **scope}, receive, send))
    return sent


def test_a_websocket_is_closed_and_the_lifespan_of_others_left_alone() -> None:
    assert asgi([], type="websocket") == [{"type": "websocket.close"}]
    assert asgi([], type="lifespan") == []


def test_a_visitor_who_leaves_while_sending_is_no_error() -> None:
    assert asgi([{"type": "http.disconnect"}], type="http", method="POST") == []
