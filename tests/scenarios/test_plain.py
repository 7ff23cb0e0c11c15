"""Most hits are answered without an exchange: in the same words, and in the same cases, as an exchange answers them."""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from cachemw import Hooks, Policy, asgi, purge, wsgi
from cachemw.activation import KEY as LOCALE
from cachemw.activation import Locale
from cachemw.backends.base import BaseCache
from cachemw.backends.filebased import FileBasedCache
from cachemw.backends.locmem import LocMemCache
from cachemw.exchange.state import EXCHANGE
from cachemw.pages import Pages
from cachemw.rfc9111.messages import Record
from tests.scenarios.conftest import START, Answer, Asked, Clock, Script, Site

PRESETS: dict[str, Policy] = {
    "default": Policy(cache_status_key=True),
    "django": Policy.django(),
    "rfc9111": Policy.rfc9111(),
    "directives": Policy(request_directives=True, conditions=False, cache_status=None),
    "normalized": Policy(normalize_vary=True, sort_query=True, revalidate=False, ranges=False),
    "open": Policy(authorization="vary", session_cookies=(), keyed_fields=("x-requested-with",)),
    "wide": Policy(
        store_partial=True, store_unusable=True, freshen_by_head=True, ignore_query=("b",), stale_if_error=9
    ),
}
PAGES: dict[str, list[tuple[str, str]]] = {
    "silent": [],
    "said": [("Cache-Control", "max-age=20"), ("ETag", '"1"')],
    "stale": [("Cache-Control", "max-age=4, stale-if-error=8"), ("ETag", 'W/"2"')],
    "varies": [("Vary", "Accept-Language"), ("Last-Modified", "Thu, 14 Jan 2027 00:00:00 GMT")],
    "cookies": [("Vary", "Cookie, Accept-Language"), ("Cache-Control", "s-maxage=9"), ("ETag", '"4"')],
    "tagged": [("Cache-Tag", "news"), ("Cache-Control", "max-age=60")],
    "labelled": [("Cache-Tag", "news, old"), ("Cache-Control", "max-age=60"), ("Vary", "Cookie"), ("ETag", '"5"')],
    "checked": [("Cache-Control", "no-cache"), ("ETag", '"6"')],
    "aged": [("Age", "30"), ("Cache-Control", "max-age=40")],
    "query": [("No-Vary-Search", 'params=("a")'), ("Cache-Control", "max-age=15")],
    "part": [("Content-Range", "bytes 0-3/8"), ("Cache-Control", "max-age=30"), ("ETag", '"9"')],
    "twice": [("ETag", '"1"'), ("ETag", '"2"'), ("Cache-Control", "public, max-age=30")],
}
FIELDS: list[tuple[str, str]] = [
    ("Accept-Language", "de"),
    ("Accept-Language", "en"),
    ("Cookie", "theme=dark"),
    ("Cookie", "session=abc"),
    ("If-None-Match", '"1"'),
    ("If-None-Match", '"4", "6"'),
    ("If-None-Match", 'W/"5"'),
    ("If-None-Match", "*"),
    ("If-None-Match", "none"),
    ("If-Modified-Since", "Fri, 15 Jan 2027 00:00:00 GMT"),
    ("Range", "bytes=0-3"),
    ("Cache-Control", "max-age=2"),
    ("Cache-Control", "no-cache"),
    ("Authorization", "Basic YTpi"),
    ("X-Requested-With", "XMLHttpRequest"),
    ("If-Match", '"1"'),
    ("Upgrade", "h2c"),
    ("Content-Length", "0"),
    ("Content-Length", "3"),
    ("Host", "EXAMPLE.org:80"),
    ("X-Forwarded-Host", "example.net"),
]
#: What somebody around the cache has found out of a request, or made of it.
FOUND = ["user", "nobody", "session", "language", "mount", "path", "cache"]


class Around:
    """What is around the cache: it knows more of a visitor than the request says, who asks for that by a field."""

    def __init__(self, cache: Any, interface: str) -> None:
        self.caching = cache.caching
        self._cache = cache
        self._wsgi = interface == "wsgi"

    def __call__(self, surroundings: dict[str, Any], *rest: Any) -> Any:
        surroundings = {**surroundings}
        if self._wsgi:
            found = surroundings.pop("HTTP_X_FOUND", "")
        else:
            fields = surroundings["headers"]
            found = dict(fields).get(b"x-found", b"").decode()
            surroundings["headers"] = [field for field in fields if field[0] != b"x-found"]
        self._find(found, surroundings)
        return self._cache(surroundings, *rest)

    def _find(self, found: str, surroundings: dict[str, Any]) -> None:
        if found == "language":
            locale = surroundings[LOCALE] = Locale()
            locale.language, locale.entered = "de", 1
        elif found == "cache":  # whose response has left: it is of another request
            exchange = surroundings[EXCHANGE] = self.caching.exchange(
                asgi.ASGIRequest({"headers": [], "method": "GET"})
            )
            exchange.over = True
        elif found:
            more: dict[str, tuple[str, Any]] = {
                "user": ("REMOTE_USER", "ann") if self._wsgi else ("user", SimpleNamespace(is_authenticated=True)),
                "nobody": ("REMOTE_USER", "") if self._wsgi else ("state", {"user": None}),
                "session": ("SSL_CLIENT_S_DN", "CN=ann") if self._wsgi else ("session", {"cart": 1}),
                "mount": ("SCRIPT_NAME" if self._wsgi else "root_path", "/said"),
                "path": ("PATH_INFO" if self._wsgi else "path", "/said"),
            }
            surroundings |= [more[found]]


def respond(asked: Asked) -> Script:
    kind = asked.path.strip("/")
    seen = f"{kind} {asked.fields.get('accept-language', '')} {asked.fields.get('cookie', '')}"
    return Script(206 if kind == "part" else 200, PAGES[kind], b"four" if kind == "part" else seen.encode())


def play(sites: Sequence[Site], clock: Clock, seed: int, looked: list[Any]) -> list[tuple[Answer, int]]:
    """What a random story has come to on these sites, with the look-ups that it took; one seed is one story."""
    rng, told = random.Random(seed), []
    kinds, some = rng.sample(list(PAGES), 3), rng.sample(FIELDS, 9)
    found = [("X-Found", one) for one in rng.sample(FOUND, 2)]
    for _ in range(200):
        what, kind, site = rng.random(), rng.choice(kinds), rng.choice(sites)
        if what < 0.12:
            clock.advance(rng.choice([0.3, 0.3, 1, 5, 12, -0.5]))
        elif what < 0.14:
            purge(tags=["news"], soft=rng.random() < 0.5, caching=site.middleware)
        elif what < 0.16:
            purge(f"http://example.org/{kind}", soft=rng.random() < 0.5, caching=site.middleware)
        else:
            method = rng.choice(["GET"] * 20 + ["HEAD", "HEAD", "POST", "get"])
            fields = dict(rng.sample([*some, *found], rng.choice([0, 0, 0, 1, 1, 2])))
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


@pytest.mark.parametrize(
    ("store", "interfaces"),
    [
        ("locmem", ["wsgi"]),
        ("locmem", ["asgi"]),
        ("files", ["wsgi"]),
        ("files", ["asgi"]),
        ("locmem", ["wsgi", "asgi"]),
    ],
)
@pytest.mark.parametrize("preset", PRESETS)
def test_who_is_answered_without_an_exchange_sees_no_difference(
    preset: str, store: str, interfaces: list[str], clock: Clock, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    short: list[Any] = []
    modules: dict[str, Any] = {"wsgi": wsgi, "asgi": asgi}

    def counting(answer: Callable[..., Any]) -> Callable[..., Any]:
        def counted(*arguments: Any) -> Any:
            found = answer(*arguments)
            short.append(found)
            return found

        return counted

    for module in modules.values():
        monkeypatch.setattr(module, "answer", counting(module.answer))
    looked = watched(monkeypatch)
    stories = {}
    seeds = 2 if store == "files" else 4
    for seed in range(seeds):
        started = clock.now
        for name, hooks in (("short", None), ("long", Hooks())):  # which are none, but might have their say
            place = f"plain-{preset}-{'-'.join(interfaces)}-{seed}-{name}"
            cache: BaseCache = LocMemCache(place) if store == "locmem" else FileBasedCache(str(tmp_path / place))
            options: dict[str, Any] = {"cache": cache, "policy": PRESETS[preset], "hooks": hooks}

            def around(app: Any, interface: str, options: dict[str, Any] = options) -> Any:
                return Around(modules[interface].CacheMiddleware(app, **options), interface)

            sites = [Site(interface, clock).build(cache=cache, around=around) for interface in interfaces]
            for site in sites:
                site.respond = respond
            asked = len(short)
            clock.now = started
            stories[name] = play(sites, clock, seed, looked), [len(site.calls) for site in sites]
            assert hooks is None or len(short) == asked
        assert stories["short"] == stories["long"], seed
    assert sum(found is not None for found in short) > 20 * seeds


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


class Moody(FileBasedCache):
    """A store of somebody's own, with an error in what it keeps in memory, or in what it reads."""

    fails = ""

    def known(self, keys: Sequence[str], decode: Any) -> list[Any] | None:
        if self.fails == "known":
            raise RuntimeError(self.fails)
        return super().known(keys, decode)

    def read_decoded(self, keys: Sequence[str], decode: Any) -> list[Any]:
        if self.fails == "read":
            raise RuntimeError(self.fails)
        return super().read_decoded(keys, decode)

    async def aread_decoded(self, keys: Sequence[str], decode: Any) -> list[Any]:
        if self.fails == "read":
            raise RuntimeError(self.fails)
        return await super().aread_decoded(keys, decode)


@pytest.mark.parametrize("fails", ["known", "read"])
def test_whatever_a_store_raises_the_application_answers(fails: str, site: Site, tmp_path: Path) -> None:
    cache = Moody(str(tmp_path))
    site.build(cache=cache).page(cache_control="max-age=60")
    site.get("/"), site.get("/")
    cache.fails = fails
    answer = site.get("/")
    assert (answer.status, answer.body, answer.error) == (200, b"page", None)
    cache.fails = ""
    assert site.get("/").hit
