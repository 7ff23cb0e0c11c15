"""Random stories, and an oracle that says of every answer in them whether HTTP permits it.

`CACHEMW_STORIES=20000 pytest tests/scenarios/test_oracle.py` tells more of them.
"""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from cachemw.backends.filebased import FileBasedCache
from tests.scenarios.conftest import START, Clock
from tests.scenarios.oracle import Answered, Asked, Call, Event, Oracle, Purge
from tests.scenarios.stories import http_date, tell

STORIES = int(os.environ.get("CACHEMW_STORIES", "90"))


@pytest.mark.parametrize("strict", [True, False], ids=["rfc9111", "default"])
@pytest.mark.parametrize("interface", ["wsgi", "asgi"])
def test_every_answer_is_permitted(interface: str, strict: bool, clock: Clock) -> None:
    hits = 0
    for seed in range(STORIES):
        clock.now = START
        story = tell(seed, interface, clock, strict=strict, twins=seed % 5 == 0)
        assert not story.complaints, "\n".join([f"story {seed}", *story.told, *story.complaints])
        hits += story.hits
        story.site.cache.clear()
    assert hits > STORIES


@pytest.mark.parametrize("strict", [True, False], ids=["rfc9111", "default"])
@pytest.mark.parametrize("interface", ["wsgi", "asgi"])
def test_every_answer_is_permitted_of_two_caches_that_keep_their_pages_in_files(
    interface: str, strict: bool, clock: Clock, tmp_path: Path
) -> None:
    for seed in range(STORIES // 5):
        clock.now = START
        cache = FileBasedCache(str(tmp_path / f"{seed}"))
        story = tell(f"files {seed}", interface, clock, strict=strict, cache=cache, twins=True)
        assert not story.complaints, "\n".join([f"story {seed}", *story.told, *story.complaints])


# -- the oracle itself: it has to object ------------------------------------------------------------------------------

PAGE = b"page"
FRESH = (("X-Head", "1"), ("ETag", '"1"'), ("Cache-Control", "max-age=60"))
GET = Asked("GET", "example.org", "/")
HIT = ("Cache-Status", "cachemw; hit")


def asking(*fields: tuple[str, str], method: str = "GET", target: str = "/") -> Asked:
    return Asked(method, "example.org", target, fields)


def stored(*fields: tuple[str, str], asked: Asked = GET, status: int = 200, body: bytes = PAGE, at: float = 0) -> Call:
    return Call(asked, at, at, status, fields, body, asker=asked)


def complaints(
    *history: Event,
    asked: Asked = GET,
    fields: tuple[tuple[str, str], ...] = (*FRESH, ("Age", "10")),
    status: int = 200,
    body: bytes = PAGE,
    strict: bool = True,
) -> list[str]:
    """Of an answer ten seconds later, for which nobody was asked."""
    return Oracle(strict=strict).judge(history, len(history), asked, Answered(status, (*fields, HIT), body), 10)


def test_the_oracle_permits_a_fresh_page() -> None:
    assert not complaints(stored(*FRESH))
    assert not complaints(stored(*FRESH), strict=False)
    assert not complaints(stored(*FRESH), asked=asking(("If-None-Match", 'W/"1"')), status=304, body=b"")
    part = (*FRESH, ("Age", "10"), ("Content-Range", "bytes 1-2/4"))
    assert not complaints(stored(*FRESH), asked=asking(("Range", "bytes=1-2")), status=206, fields=part, body=b"ag")


OURS = asking(("If-None-Match", '"1"'))
LATE = (FRESH[0], ("Cache-Control", "max-age=5"))
OBJECTIONS: dict[str, tuple[list[Event], dict[str, object]]] = {
    "nothing that it could be made of": ([], {}),
    "§4.2: not fresh": ([stored(*LATE)], {"fields": (*LATE, ("Age", "10"))}),
    "§4.2.3: Age is 10": ([stored(*FRESH, at=-40)], {}),
    "§4.1": ([stored(*FRESH, ("Vary", "X-A"), asked=asking(("X-A", "1")))], {"fields": (*FRESH, ("Vary", "X-A"))}),
    "§4: it is of /": ([stored(*FRESH)], {"asked": asking(target="/other")}),
    "§4: HEAD": ([stored(*FRESH, asked=asking(method="HEAD"))], {}),
    "§5.2.2.5": ([stored(*FRESH, ("Cache-Control", "no-store"))], {}),
    "§5.2.2.7": ([stored(*FRESH, ("Cache-Control", "Private"))], {}),
    "§3.5": ([stored(*FRESH, asked=asking(("Authorization", "Basic YTpi")))], {}),
    "§5.2.1.5": ([stored(*FRESH, asked=asking(("Cache-Control", "no-store")))], {}),
    "§4.4": ([stored(*FRESH), stored(("X-Head", "2"), asked=asking(method="PUT"))], {}),
    "it was purged": ([stored(*FRESH), Purge("example.org", "/", soft=False)], {}),
    "softly purged": ([stored(*FRESH), Purge("example.org", "/", soft=True)], {}),
    "§4.3.4": ([stored(*FRESH), Call(OURS, 5, 5, 304, (("X-Head", "2"),), asker=GET)], {}),
    "x-hop": (
        [stored(*FRESH, ("Connection", "X-Hop"), ("X-Hop", "a"))],
        {"fields": (*FRESH, ("X-Hop", "a"), ("Age", "10"))},
    ),
    "other octets": ([stored(*FRESH)], {"body": b"pagf"}),
    "it has a body": ([stored(*FRESH)], {"asked": asking(method="HEAD")}),
    "it sets a cookie": ([stored(*FRESH, ("Set-Cookie", "a=b"))], {"strict": False}),
    "does not answer POST": ([stored(*FRESH)], {"asked": asking(method="POST")}),
    "304, where [200]": ([stored(*FRESH)], {"asked": asking(("If-None-Match", '"2"')), "status": 304, "body": b""}),
    "200, where [304]": ([stored(*FRESH)], {"asked": asking(("If-None-Match", "*"))}),
    "206, where [200]": (
        [stored(*FRESH)],
        {"asked": asking(("Range", "bytes=1-2"), ("If-Range", 'W/"1"')), "status": 206, "body": b"ag"},
    ),
}


@pytest.mark.parametrize("objection", OBJECTIONS)
def test_the_oracle_objects(objection: str) -> None:
    history, answer = OBJECTIONS[objection]
    found = complaints(*history, **answer)  # type: ignore[arg-type]
    assert any(objection in one for one in found), found


def test_the_oracle_wants_a_plainly_fresh_page_to_be_reused() -> None:
    again = stored(*FRESH, at=10)
    missed = Oracle(strict=True).missed([stored(*FRESH), again], 1, GET, Answered(200, FRESH, PAGE), 10)
    assert missed
    late = Oracle(strict=True).missed([stored(*FRESH, at=-60), again], 1, GET, Answered(200, FRESH, PAGE), 10)
    assert not late


def test_the_oracle_reads_expires_against_date() -> None:
    fields = (("X-Head", "1"), ("Expires", http_date(START + 5)), ("Date", http_date(START - 100)))
    oracle = Oracle(strict=True)
    assert oracle.lifetime(fields, 200, START) == (105, False)
    assert oracle.ages(oracle.stored([stored(*fields, at=START)])[0], START + 1) == [101]
