"""What is counted of requests, and that nothing else changes: each story on WSGI and on ASGI."""

from __future__ import annotations

from typing import Any

import pytest

from cachemw import CacheMiddleware, Metrics, ObservingMiddleware, Policy
from cachemw.backends.locmem import LocMemCache
from cachemw.observing import Snapshot
from tests.scenarios.conftest import Answer, Clock, Script, Site

SAYS = {"Cache-Control": "max-age=60", "ETag": '"a"'}


class Failing(LocMemCache):
    """A store that does not answer."""

    def read_records(self, keys: Any) -> Any:
        raise OSError("nobody there")


class Observed:
    """A site, its cache observed. The metrics have a clock of their own: what an answer takes is up to the story."""

    def __init__(self, site: Site) -> None:
        self.site = site
        self.now = Clock()
        self.metrics = Metrics(clock=self.now)
        self.build()

    def build(self, *, hide: bool = False, cache: Any = None, **options: Any) -> None:
        store = cache or LocMemCache(f"observed-{id(self)}")

        def around(app: Any, _: str) -> Any:
            return ObservingMiddleware(CacheMiddleware(app, cache=store, **options), metrics=self.metrics, hide=hide)

        self.site.build(around=around)

    def answer_after(self, seconds: float, script: Script) -> None:
        def respond(_: Any) -> Script:
            self.now.advance(seconds)
            return script

        self.site.respond = respond

    @property
    def seen(self) -> Snapshot:
        return self.metrics.snapshot()


@pytest.fixture
def observed(site: Site) -> Observed:
    return Observed(site)


def test_a_miss_and_its_hits(observed: Observed) -> None:
    observed.answer_after(0.3, Script(fields=list(SAYS.items()), body=b"12345"))
    for _ in range(4):
        assert observed.site.get().body == b"12345"
    seen = observed.seen
    assert dict(seen.outcomes) == {"miss": 1, "hit": 3}
    assert seen.hit_ratio == 0.75
    assert (seen.misses.requests, seen.misses.octets) == (1, 5)
    assert seen.misses.seconds == pytest.approx(0.3)
    assert (seen.hits.requests, seen.hits.octets, seen.hits.seconds) == (3, 15, 0.0)
    assert [outcome.cache for outcome in seen.series] == ["cachemw", "cachemw"]


def test_a_304_is_a_hit_without_a_body(observed: Observed) -> None:
    observed.site.page(cache_control="max-age=60", etag='"a"')
    observed.site.get()
    assert observed.site.get("/", {"If-None-Match": '"a"'}).status == 304
    assert dict(observed.seen.outcomes) == {"miss": 1, "not-modified": 1}
    assert observed.seen.hit_ratio == 0.5
    assert observed.seen.figures("not-modified").octets == 0


def test_a_304_of_the_application_is_none_of_the_store(observed: Observed) -> None:
    observed.site.answers(Script(304, [("ETag", '"a"')]))
    observed.site.get("/", {"If-None-Match": '"a"'})
    assert dict(observed.seen.outcomes) == {"miss": 1}


def test_a_page_that_is_stale_and_one_that_was_validated(observed: Observed) -> None:
    observed.site.page(cache_control="max-age=60, stale-while-revalidate=60", etag='"a"')
    observed.site.get()
    observed.site.clock.advance(70)
    observed.site.get()
    assert dict(observed.seen.outcomes) == {"miss": 1, "stale": 1}
    observed.site.clock.advance(400)
    observed.site.answers(Script(304, [("ETag", '"a"')]))
    assert observed.site.get().status == 200
    assert observed.seen.outcomes["validated"] == 1
    assert observed.seen.hits.requests == 1


def test_a_stale_page_in_place_of_an_error_is_no_hit(observed: Observed) -> None:
    observed.site.page(cache_control="max-age=60, stale-if-error=600")
    observed.site.get()
    observed.site.clock.advance(70)
    observed.site.answers(Script(503))
    assert observed.site.get().status == 200
    observed.site.answers(Script(early=RuntimeError("down")))
    assert observed.site.get().status == 200
    assert dict(observed.seen.outcomes) == {"miss": 1, "stale-if-error": 2}
    assert observed.seen.hit_ratio == 0
    assert observed.seen.misses.requests == 3


@pytest.mark.parametrize(
    ("method", "fields", "reason"), [("POST", {}, "method"), ("GET", {"Upgrade": "websocket"}, "bypass")]
)
def test_what_is_not_looked_up_is_in_no_ratio(
    observed: Observed, method: str, fields: dict[str, str], reason: str
) -> None:
    observed.site.request(method, "/", fields)
    assert list(observed.seen.series) == [("cachemw", "bypass", reason)]
    assert observed.seen.hit_ratio is None


def test_a_page_that_is_not_stored_says_why(observed: Observed) -> None:
    observed.site.page(set_cookie="a=b")
    observed.site.get()
    assert list(observed.seen.series) == [("cachemw", "miss", "set-cookie")]


def test_a_store_that_fails(observed: Observed) -> None:
    observed.build(cache=Failing("failing"))
    assert observed.site.get().status == 200
    assert dict(observed.seen.outcomes) == {"store-error": 1}
    assert observed.seen.hit_ratio == 0


def test_a_site_that_has_switched_the_field_off(observed: Observed) -> None:
    observed.build(policy=Policy(cache_status=None))
    observed.site.get()
    assert dict(observed.seen.outcomes) == {"none": 1}
    assert observed.seen.hit_ratio is None


def test_the_field_can_be_hidden_from_visitors(observed: Observed) -> None:
    observed.build(hide=True)
    observed.site.page(cache_control="max-age=60", cache_status="nginx; hit")
    answers: list[Answer] = [observed.site.get(), observed.site.get()]
    assert [answer["Cache-Status"] for answer in answers] == [None, None]
    assert [answer["Cache-Control"] for answer in answers] == ["max-age=60"] * 2
    assert dict(observed.seen.outcomes) == {"miss": 1, "hit": 1}


def test_of_several_caches_the_nearest_to_the_visitor_counts(observed: Observed) -> None:
    observed.build(policy=Policy(cache_status="front"))
    observed.site.page(cache_control="no-store", cache_status="origin; hit; ttl=5")
    observed.site.get()
    assert [(outcome.cache, outcome.name) for outcome in observed.seen.series] == [("front", "miss")]


def test_head_has_no_octets(observed: Observed) -> None:
    observed.site.page(b"12345", cache_control="max-age=60")
    observed.site.get()
    observed.site.request("HEAD")
    assert observed.seen.hits.requests == 1
    assert observed.seen.hits.octets == 0


def test_a_body_that_comes_in_pieces_is_counted_to_where_the_visitor_left(observed: Observed) -> None:
    observed.site.answers(Script(body=[b"123", b"45", b"6"]))
    assert observed.site.get().body == b"123456"
    assert observed.seen.misses.octets == 6
    observed.site.get("/other", stop_after=1)
    assert observed.seen.misses.octets == 9
    assert observed.seen.requests == 2


def test_the_time_is_that_until_the_head_however_slow_the_body_is(observed: Observed) -> None:
    site = observed.site
    observed.answer_after(0.2, Script(body=[b"1", b"2"]))
    site.get()
    assert observed.seen.misses.mean == pytest.approx(0.2)


def test_an_application_that_fails_before_its_head_and_one_that_fails_after(observed: Observed) -> None:
    observed.site.answers(Script(early=RuntimeError("before")), Script(body=[b"123", b"4"], error=ValueError("after")))
    assert isinstance(observed.site.get().error, RuntimeError)
    assert dict(observed.seen.outcomes) == {"aborted": 1}
    answer = observed.site.get()
    assert (answer.body, type(answer.error)) == (b"1234", ValueError)
    assert observed.seen.outcomes["miss"] == 1
    assert observed.seen.hit_ratio == 0
    assert observed.seen.requests == 2
