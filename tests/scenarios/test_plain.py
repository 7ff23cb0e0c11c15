"""Most hits are answered without an exchange: in the same words, and in the same cases, as an exchange answers them."""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest

from cachemw import Hooks, Policy, purge
from cachemw.backends.base import BaseCache
from cachemw.backends.filebased import FileBasedCache
from cachemw.backends.locmem import LocMemCache
from cachemw.pages import Pages
from cachemw.rfc9111.messages import Record
from tests.scenarios.conftest import START, Answer, Asked, Clock, Script, Site

PRESETS: dict[str, Policy] = {
    "default": Policy(cache_status_key=True),
    "django": Policy.django(),
    "rfc9111": Policy.rfc9111(),
    "directives": Policy(request_directives=True, conditions=False),
    "normalized": Policy(normalize_vary=True, sort_query=True, revalidate=False),
}
PAGES: dict[str, list[tuple[str, str]]] = {
    "silent": [],
    "said": [("Cache-Control", "max-age=20"), ("ETag", '"1"')],
    "stale": [("Cache-Control", "max-age=4, stale-if-error=8"), ("ETag", 'W/"2"')],
    "varies": [("Vary", "Accept-Language"), ("Last-Modified", "Thu, 14 Jan 2027 00:00:00 GMT")],
    "cookies": [("Vary", "Cookie, Accept-Language"), ("Cache-Control", "s-maxage=9"), ("ETag", '"4"')],
    "tagged": [("Cache-Tag", "news"), ("Cache-Control", "max-age=60")],
    "checked": [("Cache-Control", "no-cache"), ("ETag", '"6"')],
    "aged": [("Age", "30"), ("Cache-Control", "max-age=40")],
    "query": [("No-Vary-Search", 'params=("a")'), ("Cache-Control", "max-age=15")],
    "part": [("Content-Range", "bytes 0-3/8"), ("Cache-Control", "max-age=30"), ("ETag", '"9"')],
}
FIELDS: list[tuple[str, str]] = [
    ("Accept-Language", "de"),
    ("Accept-Language", "en"),
    ("Cookie", "theme=dark"),
    ("Cookie", "session=abc"),
    ("If-None-Match", '"1"'),
    ("If-None-Match", '"4", "6"'),
    ("If-None-Match", "*"),
    ("If-Modified-Since", "Fri, 15 Jan 2027 00:00:00 GMT"),
    ("Range", "bytes=0-3"),
    ("Cache-Control", "max-age=2"),
    ("Cache-Control", "no-cache"),
    ("Authorization", "Basic YTpi"),
    ("X-Requested-With", "XMLHttpRequest"),
    ("If-Match", '"1"'),
    ("Upgrade", "h2c"),
    ("X-Forwarded-Host", "example.net"),
]


def respond(asked: Asked) -> Script:
    kind = asked.path.strip("/")
    seen = f"{kind} {asked.fields.get('accept-language', '')} {asked.fields.get('cookie', '')}"
    return Script(206 if kind == "part" else 200, PAGES[kind], b"four" if kind == "part" else seen.encode())


def play(site: Site, clock: Clock, seed: int, looked: list[Any]) -> list[tuple[Answer, int]]:
    """What a random story has come to on this site, and the look-ups that it took; the same seed is the same story."""
    rng, told = random.Random(seed), []
    kinds = rng.sample(list(PAGES), 3)
    for _ in range(200):
        what, kind = rng.random(), rng.choice(kinds)
        if what < 0.12:
            clock.advance(rng.choice([0.3, 0.3, 1, 5, 12]))
        elif what < 0.14:
            purge(tags=["news"], soft=rng.random() < 0.5, caching=site.middleware)
        elif what < 0.16:
            purge(f"http://example.org/{kind}", soft=rng.random() < 0.5, caching=site.middleware)
        else:
            method = rng.choice(["GET"] * 20 + ["HEAD", "HEAD", "POST"])
            fields = dict(rng.sample(FIELDS, rng.choice([0, 0, 0, 1, 1, 2])))
            query = rng.choice(["", "", "", "?a=1", "?b=1&a=2"])
            before = len(looked)
            told.append((site.request(method, f"/{kind}{query}", fields), len(looked) - before))
    return told


def watched(monkeypatch: pytest.MonkeyPatch) -> list[Any]:
    """The look-ups that are made from now on, each of which is a round trip where the store is elsewhere."""
    looked: list[Any] = []
    lookup, alookup = Pages.lookup, Pages.alookup

    def looking(pages: Pages, keys: Sequence[str]) -> Sequence[Record | None]:
        looked.append(keys)
        return lookup(pages, keys)

    async def alooking(pages: Pages, keys: Sequence[str]) -> Sequence[Record | None]:
        looked.append(keys)
        return await alookup(pages, keys)

    monkeypatch.setattr(Pages, "lookup", looking)
    monkeypatch.setattr(Pages, "alookup", alooking)
    return looked


@pytest.mark.parametrize("store", ["locmem", "files"])
@pytest.mark.parametrize("preset", PRESETS)
def test_who_is_answered_without_an_exchange_sees_no_difference(
    preset: str, store: str, site: Site, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    short: list[Any] = []
    module = f"cachemw.{site.interface}"
    answer: Callable[..., Any] = __import__(module, fromlist=["answer"]).answer

    def counted(*arguments: Any) -> Any:
        found = answer(*arguments)
        short.append(found)
        return found

    monkeypatch.setattr(f"{module}.answer", counted)
    looked = watched(monkeypatch)
    stories = {}
    for seed in range(8 if store == "locmem" else 3):
        started = site.clock.now
        for name, hooks in (("short", None), ("long", Hooks())):  # which are none, but might have their say
            place = f"plain-{preset}-{site.interface}-{seed}-{name}"
            cache: BaseCache = LocMemCache(place) if store == "locmem" else FileBasedCache(str(tmp_path / place))
            site.build(cache=cache, policy=PRESETS[preset], hooks=hooks).respond = respond
            asked = len(short)
            site.clock.now = started
            stories[name] = play(site, site.clock, seed, looked), len(site.calls)
            site.calls.clear()
            assert hooks is None or len(short) == asked
        assert stories["short"] == stories["long"], seed
    assert sum(found is not None for found in short) > (150 if store == "locmem" else 50)


@pytest.mark.parametrize("hooks", [None, Hooks()], ids=["short", "long"])
def test_each_hit_tells_its_own_age(hooks: Hooks | None, site: Site) -> None:
    site.build(policy=Policy(cache_status_key=True), hooks=hooks).page(cache_control="max-age=9")
    key = site.get("/").trace.partition("; key=")[2]
    assert key
    for age in (0, 0, 1, 1, 2, 5, 8):
        site.clock.now = START + age + 0.5
        answer = site.get("/")
        assert (answer["age"], answer.trace) == (str(age), f"cachemw; hit; ttl={9 - age}; key={key}")
        revalidated = site.get("/", {"If-Modified-Since": "Fri, 15 Jan 2027 09:00:00 GMT"})
        assert revalidated["age"] == str(age)
    assert len(site.calls) == 1


def test_who_has_come_by_another_name_once_costs_nobody_a_second_look_up(
    site: Site, monkeypatch: pytest.MonkeyPatch
) -> None:
    site.page(cache_control="max-age=60")
    site.get("/", {"X-Forwarded-Host": "example.net"})
    site.get("/"), site.get("/")
    looked = watched(monkeypatch)
    assert site.get("/").hit
    assert len(looked) == 1
