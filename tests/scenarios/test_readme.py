"""The README's table "How it decides", line by line: each line names a test here, and no line is without one."""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any

import pytest

from cachemw import Policy, Rule
from cachemw.backends.redis import RedisCache
from tests.scenarios.conftest import Script, Site
from tests.scenarios.test_collapsing import Tasks, Threads
from tests.serving import ROOT

SESSION = {"Cookie": "session=somebody"}
LOGIN = {"Authorization": "Basic c29tZWJvZHk6"}

Line = Callable[[Site], None]
LINES: dict[str, Line] = {}


def line(matter: str) -> Callable[[Line], Line]:
    """A line of the table, by its first cell."""

    def note(test: Line) -> Line:
        LINES[matter] = test
        return test

    return note


def is_kept(site: Site, first: Any = (), second: Any = (), **page: Any) -> bool:
    """Is the answer to the first request that to the second one, too? Of a site with an empty store."""
    site.build(policy=site.middleware.caching.policy, rules=site.middleware.caching.rules)
    site.page(**page).get(fields=first)
    return site.get(fields=second).hit


@line("stored")
def statuses(site: Site) -> None:
    assert is_kept(site)
    site.build().request("HEAD")
    assert site.request("HEAD").hit
    for status in (203, 301, 404, 500):
        assert not is_kept(site, status=status)
        assert is_kept(site, status=status, cache_control="max-age=60")


@line("how long")
def lifetimes(site: Site) -> None:
    fields: dict[str, Any] = {"expires": "Fri, 15 Jan 2027 08:00:09 GMT"}  # in nine seconds
    directives = {"max-age=8": 8, "max-age=8, s-maxage=7": 7}
    site.build(seconds=10).page()
    assert site.get().trace.endswith("ttl=10")
    assert site.build().page().get().trace.endswith("ttl=600")
    assert site.build().page(**fields).get().trace.endswith("ttl=9")
    for said, ttl in directives.items():
        fields["cache_control"] = said
        assert site.build().page(**fields).get().trace.endswith(f"ttl={ttl}")
    fields["cdn_cache_control"] = "max-age=6"
    assert site.build().page(**fields).get().trace.endswith("ttl=6")
    assert site.build(rules=[Rule("/", lifetime=5)]).page(**fields).get().trace.endswith("ttl=5")


@line("never stored")
def never(site: Site) -> None:
    site.build(rules=[Rule("/", lifetime=60)])
    for said in ("no-store", "private", "no-cache", "max-age=60, No-Store"):
        assert not is_kept(site, cache_control=said)
    assert not is_kept(site, vary="*")
    assert not is_kept(site, set_cookie="a=b", cache_control="public, max-age=60")
    assert not is_kept(site, content_type="text/event-stream")
    site.build().answers(Script(body=[b"half"], error=OSError("broken off")), Script())
    site.get()
    assert not site.get().hit


@line("variants of one page")
def variants(site: Site) -> None:
    site.respond = lambda asked: Script(fields=[("Vary", "X-A")], body=asked.fields["x-a"].encode())
    answers = [site.get(fields={"X-A": value}) for value in "1212"]
    assert [answer.body for answer in answers] == [b"1", b"2", b"1", b"2"]
    assert [answer.hit for answer in answers] == [False, False, True, True]


@line("visitors with a session")
def sessions(site: Site) -> None:
    assert not is_kept(site, SESSION, SESSION)
    assert not is_kept(site, {}, SESSION)
    assert not is_kept(site, SESSION, {})
    assert is_kept(site, SESSION, {}, cache_control="max-age=60")
    assert is_kept(site, SESSION, SESSION, vary="Cookie")
    assert not is_kept(site, SESSION, {"Cookie": "session=another"}, vary="Cookie")


@line("requests with `Authorization`")
def credentials(site: Site) -> None:
    assert not is_kept(site, LOGIN, LOGIN, cache_control="max-age=60")
    for said in ("public", "s-maxage=60", "max-age=60, must-revalidate"):
        assert is_kept(site, LOGIN, LOGIN, cache_control=said)


@line("a browser that has the page")
def conditions(site: Site) -> None:
    site.page(b"0123456789", etag='"v1"').get()
    assert site.get(fields={"If-None-Match": '"v1"'}).status == 304
    part = site.get(fields={"Range": "bytes=2-4"})
    assert (part.status, part.body) == (206, b"234")
    head = site.request("HEAD")
    assert (head.status, head.body, head["content-length"]) == (200, b"", "10")
    assert len(site.calls) == 1


@line("many requests for a page that is not stored")
def crowds(site: Site) -> None:
    crowd = (Threads if site.interface == "wsgi" else Tasks)(5, Policy())
    crowd.run(lambda number: ([], b"page"))
    assert crowd.bodies == [b"page"] * 5
    assert crowd.calls == 1


@line("after a successful `POST`, `PUT`, `DELETE`")
def invalidation(site: Site) -> None:
    for method in ("POST", "PUT", "DELETE"):
        site.build().page(vary="X-A")
        for value in "12":
            site.get(fields={"X-A": value})
        site.request(method)
        assert not any(site.get(fields={"X-A": value}).hit for value in "12")


@line("stale pages")
def staleness(site: Site) -> None:
    down = Script(early=OSError("the application is down"))
    for said, policy, shown in [
        ("max-age=1", Policy(), False),
        ("max-age=1, stale-if-error=60", Policy(), True),
        ("max-age=1", Policy(stale_if_error=60), True),
        ("max-age=1, must-revalidate", Policy(stale_if_error=60), False),
    ]:
        site.build(policy=policy).answers(Script(fields=[("Cache-Control", said)]), down).get()
        site.clock.advance(30)
        assert (site.get().body == b"page") is shown
    site.build().page(cache_control="max-age=1, stale-while-revalidate=60").get()
    site.clock.advance(30)
    assert site.get().hit


@line("the store is down")
def outages(site: Site) -> None:
    site.build(cache=RedisCache("redis://127.0.0.1:1", {}))
    assert [site.get().body for _ in range(3)] == [b"page"] * 3
    assert len(site.calls) == 3


@pytest.mark.parametrize("matter", LINES)
def test_a_line_of_the_table_is_true(site: Site, matter: str) -> None:
    LINES[matter](site)


def test_every_line_of_the_table_has_a_test() -> None:
    table = (ROOT / "README.md").read_text().partition("## How it decides")[2].partition("\n## ")[0]
    assert re.findall(r"^\| (.*?) \|", table, re.M)[2:] == list(LINES)
