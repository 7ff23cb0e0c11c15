"""Random stories: an origin with a will of its own, which keeps to the rules, and clients who ask it for all sorts."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Iterator
from dataclasses import dataclass, field
from datetime import UTC, datetime
from random import Random
from typing import Any

from cachemw import Policy, purge
from cachemw.backends.base import BaseCache
from tests.scenarios.conftest import Answer, Clock, Script, Site
from tests.scenarios.conftest import Asked as Reached
from tests.scenarios.oracle import Answered, Asked, Call, Event, Oracle, Purge
from tests.scenarios.readings import Pairs, combined, entity_tag, entity_tags
from tests.servers import until

__all__ = ["Story", "tell"]

DAY = 86400
HOSTS = ["example.org"] * 9 + ["other.example"]
TARGETS = ["/a", "/a", "/a", "/b", "/b", "/a?a=1", "/a?a=2", "/a?b=1&a=1"]

#: Lines of Cache-Control, each tuple a response's.
CONTROLS: list[tuple[str, ...]] = [
    *[("public, max-age=5",), ("max-age=5, must-revalidate",), ("s-maxage=5",)] * 2,
    *[("max-age=60",), ("max-age=5",), ("public, max-age=3600",), ("max-age=20, s-maxage=10",), ()] * 3,
    *[("max-age=5, stale-while-revalidate=30",), ("max-age=5, stale-if-error=60",), ("no-cache",)] * 2,
    ("public",),
    ("no-cache, max-age=60",),
    ("no-store",),
    ("private",),
    ("PRIVATE, max-age=60",),
    ("max-age=60", "private"),
    ("max-age=60", "No-Store"),
    ("max-age=0",),
    ("max-age=0, must-revalidate",),
    ("max-age=5, must-revalidate",),
    ("max-age=5, stale-while-revalidate=30, stale-if-error=60, must-revalidate",),
    ("proxy-revalidate, max-age=5, stale-if-error=100",),
    ("s-maxage=5, stale-while-revalidate=100",),
    ("s-maxage=0, max-age=60",),
    ("max-age=0, stale-while-revalidate=30",),
    ('private="X-A", max-age=60',),
    ('no-cache="x-a, X-Odd", max-age=60',),
    ('no-cache=""', "max-age=60"),
    ('max-age="60"',),
    ("max-age=60, max-age=5",),
    ("max-age=5", "max-age=60"),
    ("max-age=-1",),
    ("max-age=1.5",),
    ("max-age=60s",),
    ("max-age=60;",),
    ("max-age = 60",),
    ("max-age",),
    ("max-age=, public",),
    ("Max-Age=0060",),
    ("max-age=99999999999",),
    ("max-age=2147483648",),
    ("s-maxage=x, max-age=60",),
    ('ext="max-age=600, no-store", max-age=5',),
    ('ext="a\\", private", max-age=60',),
    (", ,max-age=20,,",),
    ("must-understand, no-store, max-age=60",),
    ("must-understand, max-age=60",),
    ("immutable, max-age=60",),
    ("no-transform,max-age=30",),
    ("max-age=60 , public  ,immutable",),
    ("'max-age=60'",),
]
TARGETED: list[tuple[str, ...]] = [
    ("max-age=30",),
    ("max-age=0",),
    ("max-age=30, stale-while-revalidate=60",),
    ("private",),
    ("no-store",),
    ("no-cache",),
    ("max-age=5", "max-age=40"),
    ("MAX-AGE=30",),
    ('max-age="30"',),
    ("max-age=30;x=1, must-revalidate",),
    ("&&&",),
    ("",),
    ("max-age=1.5",),
    ("max-age=-5",),
    ("ext",),
]
NO_DATES = [
    "0",
    "-1",
    "",
    "never",
    "Thu, 01 Jan 2032 00:00:00",
    "Thu, 01 Jan 2032 00:00:00 UTC",
    "1 Jan 2032 00:00:00 GMT",
]
AGES: list[tuple[str, ...]] = [
    ("0",),
    ("3",),
    ("100",),
    ("3, 500",),
    ("3", "500"),
    ("500", "3"),
    ("-1",),
    ("x",),
    ("1.5",),
    ("2147483648",),
    ("99999999999999",),
    (" 4 ",),
    ("4;a=b",),
]
VARIES: list[tuple[str, ...]] = [
    *[("X-A",), ("x-a",), ("Accept-Language",)] * 2,
    ("X-A, X-B",),
    ("X-B", "X-A"),
    ("Cookie",),
    ("Authorization",),
    ("*",),
    ("X-A, *",),
    (", X-A ,",),
    ("Accept-Encoding",),
]
SEARCHES = ["params", 'params=("a")', 'params, except=("a")', "key-order", "params=(a", "nonsense"]
STATUSES = [203, 204, 207, 299, 300, 301, 302, 307, 308, 400, 404, 410, 500, 501, 502, 503, 504, 599]
ASKED_CONTROLS = [
    "no-cache",
    "no-store",
    "max-age=0",
    "max-age=3",
    "max-age=100",
    "max-stale",
    "max-stale=10",
    "min-fresh=3",
    "min-fresh=1000",
    "only-if-cached",
    "max-age=3, max-stale=100",
    "No-Cache",
    'max-age="3"',
    "max-age=x",
    "no-transform",
]
LANGUAGES = ["de", "en", "de, en", "de,en", "EN", "en;q=0.5, de", "d e", "DE, en ; q=0.5"]
RANGES = [
    "bytes=0-4",
    "bytes=5-",
    "bytes=-7",
    "bytes=0-",
    "bytes=10-19",
    "bytes=999-",
    "bytes=-0",
    "bytes=0-1,4-5",
    "x=1-2",
    "bytes=5-1",
]
UNSAFE = ["POST", "PUT", "DELETE", "PATCH", "M-SEARCH", "get"]
STEPS = [0, 0, 0.2, 0.7, 1, 2, 4, 6, 11, 25, 31, 59, 61, 120, 700, 5000, DAY, 10 * DAY]


def http_date(moment: float) -> str:
    """IMF-fixdate."""
    return datetime.fromtimestamp(int(moment), UTC).strftime("%a, %d %b %Y %H:%M:%S GMT")


def other_date(moment: float, dice: Random) -> str:
    """One of the obsolete forms."""
    spelling = dice.choice(["%A, %d-%b-%y %H:%M:%S GMT", "%a %b %e %H:%M:%S %Y"])
    return datetime.fromtimestamp(int(moment), UTC).strftime(spelling)


@dataclass
class Temper:
    """How the origin mostly answers for one path."""

    control: tuple[str, ...]
    vary: tuple[str, ...]
    tags: str
    modified: bool
    dated: str
    status: int
    size: int
    other: str
    steady: float  # how often it does as before


@dataclass
class Page:
    """A representation: octets that say whose they are, since when, under which tag."""

    version: int
    since: float
    size: int

    @property
    def body(self) -> bytes:
        return b"".join(b"<%d.%d>" % (self.version, place) for place in range(self.size))


class Origin:
    """It may answer as oddly as it likes, but what it says is true: one strong entity-tag is one body."""

    def __init__(self, dice: Random, clock: Clock) -> None:
        self.dice = dice
        self.clock = clock
        self.tempers: dict[str, Temper] = {}
        self.pages: dict[tuple[str, ...], Page] = {}
        self.versions = 0
        self.heads = 0
        self.lock = threading.Lock()

    def answer(self, method: str, host: str, target: str, fields: dict[str, str]) -> Script:
        """The response to a request that reached it."""
        dice = self.dice
        temper = self.tempers.setdefault(target.partition("?")[0], self._temper())
        if dice.random() < 0.03:
            return Script(early=ConnectionError("the origin is down"))
        self.heads += 1
        if threading.current_thread() is threading.main_thread() and not is_refresh():
            self.clock.advance(dice.choice([0, 0, 0, 0, 0.3, 2]))
        if method not in ("GET", "HEAD"):
            return self._changed(method, host, target, temper)
        page = self._page(host, target, fields, temper)
        status = temper.status if dice.random() < temper.steady else dice.choice([200, 200, *STATUSES])
        shown = self._fields(temper, page) + self._validators(temper, page)
        if status != 200:
            return Script(status, untyped(shown) if status == 204 else shown, b"" if status == 204 else page.body)
        return self._conditional(method, fields, temper, page, shown)

    def _temper(self) -> Temper:
        dice = self.dice
        return Temper(
            control=dice.choice(CONTROLS),
            vary=dice.choice(VARIES) if dice.random() < 0.4 else (),
            tags=dice.choice(["strong", "strong", "weak", "none", "none", "odd"]),
            modified=dice.random() < 0.5,
            dated=dice.choice(["right", "right", "right", "none", "none", "slow", "fast", "odd", "two"]),
            status=dice.choice([200] * 8 + STATUSES) if dice.random() < 0.5 else 200,
            size=dice.choice([1, 4, 8]),
            other=dice.choice(["", "", "", "expires", "age", "targeted", "cookie", "search", "hop", "pragma"]),
            steady=dice.choice([0.6, 0.9, 1.0]),
        )

    def _page(self, host: str, target: str, fields: dict[str, str], temper: Temper) -> Page:
        """The representation of the moment: one for each value of each field that any page varies on."""
        told = [fields.get(name, "-") for name in ("x-a", "x-b", "accept-language", "accept-encoding")]
        told += [fields.get(name, "-") for name in ("cookie", "authorization")]
        which = (host, target, *told)
        page = self.pages.get(which)
        if page is None or self.dice.random() < 0.25:
            self.versions += 1
            since = self.clock.now - self.dice.choice([0, 0, 5, 100, 10 * DAY])
            page = self.pages[which] = Page(self.versions, since, temper.size)
        return page

    def _validators(self, temper: Temper, page: Page) -> list[tuple[str, str]]:
        fields = []
        if temper.tags == "strong":
            fields.append(("ETag", f'"v{page.version}"'))
        elif temper.tags == "weak":
            fields.append(("ETag", f'W/"v{page.version // 3}"'))
        elif temper.tags == "odd":
            fields.append(("ETag", f"v{page.version}"))
        if temper.modified:
            fields.append(("Last-Modified", http_date(page.since)))
        return fields

    def _fields(self, temper: Temper, page: Page) -> list[tuple[str, str]]:
        dice = self.dice
        steady = dice.random() < temper.steady
        control = temper.control if steady else dice.choice(CONTROLS)
        vary = temper.vary if dice.random() < (1 + temper.steady) / 2 else dice.choice([(), *VARIES])
        other = temper.other if steady else dice.choice(["", "expires", "age", "cookie", "hop", "location"])
        fields = [("Content-Type", "text/plain"), ("X-Head", f"{self.heads}"), ("X-Odd", f"odd {self.heads}")]
        fields += [("Cache-Control", line) for line in control] + [("Vary", line) for line in vary]
        if dice.random() < 0.3:
            fields.append(("X-A", f"a {self.heads}"))
        fields += self._dates(temper.dated)
        if other == "expires":
            fields += [("Expires", line) for line in self._expires()]
        elif other == "age":
            fields += [("Age", line) for line in dice.choice(AGES)]
        elif other == "targeted":
            fields += [("CDN-Cache-Control", line) for line in dice.choice(TARGETED)]
        elif other == "cookie":
            fields.append(("Set-Cookie", f"seen={self.heads}"))
        elif other == "search":
            fields.append(("No-Vary-Search", dice.choice(SEARCHES[:4] * 3 + SEARCHES)))
        elif other == "hop":
            fields += [("X-Hop", "secret"), ("Connection", dice.choice(["X-Hop", "close, x-hop", "x-a,,X-HOP"]))]
        elif other == "pragma":
            fields.append(("Pragma", "no-cache"))
        elif other == "location":
            fields.append(("Content-Location", "/b"))
        dice.shuffle(fields)
        return fields

    def _expires(self) -> list[str]:
        dice, now = self.dice, self.clock.now
        until = http_date(now + dice.choice([-5, 0, 1, 10, 60, 3600]))
        odd = [[dice.choice(NO_DATES)], [other_date(now + 30, dice)], [until, http_date(now + 900)]]
        return dice.choice([[until]] * 4 + odd)

    def _dates(self, kind: str) -> list[tuple[str, str]]:
        now = self.clock.now
        told = {
            "right": [http_date(now)],
            "slow": [http_date(now - 30)],
            "fast": [http_date(now + 30)],
            "odd": [self.dice.choice([*NO_DATES[:-1], other_date(now, self.dice)])],
            "two": [http_date(now), http_date(now - 100)],
            "none": [],
        }
        return [("Date", line) for line in told[kind]]

    def _conditional(
        self, method: str, fields: dict[str, str], temper: Temper, page: Page, shown: list[tuple[str, str]]
    ) -> Script:
        """RFC 9110 §13.2.2, as an origin may do it: to obey no condition is allowed, too."""
        dice = self.dice
        own = entity_tag(combined(shown, "etag"))
        tags = entity_tags(fields["if-none-match"]) if "if-none-match" in fields else None
        obeys = dice.random() < 0.9
        if tags == "*" or (isinstance(tags, list) and own is not None and own[1] in [tag for _, tag in tags]):
            if obeys:
                return self._not_modified(shown)
        elif obeys and tags is None and temper.modified and self._is_as_old(fields, shown):
            return self._not_modified(shown)
        if dice.random() < 0.01:
            return self._not_modified(shown)  # though nobody has asked
        if obeys and method == "GET" and "range" in fields and self._is_unchanged(fields, shown, own):
            return self._part(fields["range"], page, shown)
        said = dice.random()
        extra = (
            [("Content-Length", str(len(page.body) + (said < 0.02)))] if said < 0.4 else []
        )  # sometimes it breaks off
        if method == "GET" and dice.random() < 0.03:
            return Script(200, shown, [page.body[:5], page.body[5:]], ConnectionError("the origin breaks off"))
        return Script(200, shown + extra, page.body)

    def _is_as_old(self, fields: dict[str, str], shown: Pairs) -> bool:
        asked = "if-none-match" not in fields and fields.get("if-modified-since")
        return bool(asked) and asked == combined(shown, "last-modified")

    def _is_unchanged(self, fields: dict[str, str], shown: Pairs, own: tuple[bool, str] | None) -> bool:
        told = fields.get("if-range")
        return told is None or (own is not None and not own[0] and entity_tag(told) == own)

    def _not_modified(self, shown: list[tuple[str, str]]) -> Script:
        """It need not say all again."""
        left_out = self.dice.sample(["cache-control", "vary", "date", "x-odd", "last-modified", "etag"], 3)
        if self.dice.random() < 0.5:
            left_out = []
        return Script(304, [pair for pair in untyped(shown) if pair[0].lower() not in left_out])

    def _part(self, told: str, page: Page, shown: list[tuple[str, str]]) -> Script:
        length = len(page.body)
        first, dash, last = told.removeprefix("bytes=").partition("-")
        if not dash or not (first + last).isdigit() or not told.startswith("bytes="):
            return Script(200, shown, page.body)
        start = int(first) if first else max(0, length - int(last))
        end = min(int(last), length - 1) if first and last else length - 1
        if start > end:
            if first and last and int(last) < start < length:
                return Script(200, shown, page.body)
            return Script(416, [*shown, ("Content-Range", f"bytes */{length}")], b"")
        whole = length if self.dice.random() < 0.8 else "*"
        return Script(206, [*shown, ("Content-Range", f"bytes {start}-{end}/{whole}")], page.body[start : end + 1])

    def _changed(self, method: str, host: str, target: str, temper: Temper) -> Script:
        """What an unsafe method is answered; what it has changed has changed by now."""
        dice = self.dice
        status = dice.choice([200, 200, 201, 204, 303, 302, 400, 403, 404, 500, 503])
        if method in ("OPTIONS", "TRACE"):
            status = 200
        fields = [("Content-Type", "text/plain"), ("X-Head", f"{self.heads}")]
        if dice.random() < 0.5:
            fields += [("Cache-Control", line) for line in dice.choice(CONTROLS)]
        place = dice.choice([target, "/a", "/b", f"http://{host}/a", "http://elsewhere.example/b", "b", ""])
        if dice.random() < 0.5:
            fields.append((dice.choice(["Location", "Content-Location"]), place))
        if status < 400 and method not in ("OPTIONS", "TRACE"):
            self.versions += 1
            self.pages = {which: page for which, page in self.pages.items() if which[1] != target}
        if status == 204:
            return Script(status, untyped(fields), b"")
        return Script(status, fields, b"changed %d" % self.versions)


def untyped(fields: Pairs) -> list[tuple[str, str]]:
    """Without the type of a content that there is none of."""
    return [pair for pair in fields if pair[0] != "Content-Type"]


def is_refresh() -> bool:
    """Is this a refresh in the background, which nobody waits for?"""
    try:
        task = asyncio.current_task()
    except RuntimeError:
        return False
    return task is not None and task.get_name() == "cachemw-refresh"


@dataclass
class Story:
    """What has happened so far, and what was not permitted of it."""

    site: Site
    strict: bool
    dice: Random
    origin: Origin
    history: list[Event] = field(default_factory=list)
    asker: Asked | None = None
    began: float = 0
    told: list[str] = field(default_factory=list)  # for whoever has to understand it
    complaints: list[str] = field(default_factory=list)
    answers: int = 0
    hits: int = 0

    def __post_init__(self) -> None:
        self.site.respond = self._respond
        self.main = threading.get_ident()

    def _respond(self, reached: Reached) -> Script:
        foreground = threading.get_ident() == self.main and not is_refresh()
        asked_at = self.began if foreground else self.site.clock.now
        target = f"{reached.path}?{reached.query}" if reached.query else reached.path
        host = reached.fields.get("host", "")
        with self.origin.lock:
            script = self.origin.answer(reached.method, host, target, reached.fields)
            fields = [pair for pair in reached.fields.items() if pair[0] != "host"]
            body = b"" if reached.method == "HEAD" or script.status in (204, 304) else b"".join(script.chunks)
            status = 0 if script.early else script.status
            length = combined(script.fields, "content-length")
            call = Call(
                Asked(reached.method, host, target, fields),
                asked_at,
                self.site.clock.now,
                status,
                script.fields,
                body,
                script.error is None and (reached.method == "HEAD" or length in (None, str(len(body)))),
                self.asker if foreground else None,
            )
            self.history.append(call)
            said = [pair for pair in script.fields if pair[0] not in ("Content-Type", "X-Odd")]
            self.told.append(
                f"    {'' if foreground else 'refresh '}reached {reached.method} {target} {dict(fields)} -> "
                f"{status} {said} {body[:12]!r}"
            )
        return script

    def ask(self, asked: Asked) -> Answer:
        """One exchange, judged."""
        since = len(self.history)
        self.asker, self.began = asked, self.site.clock.now
        self.told.append(f"{self.began - 1.8e9:.1f}: {asked.method} {asked.host}{asked.target} {dict(asked.fields)}")
        answer = self.site.request(asked.method, asked.target, [("Host", asked.host), *asked.fields])
        middleware = self.site.middleware
        if self.site.interface == "wsgi" and len(middleware.refresher):
            until(lambda: len(middleware.refresher) == 0, "the refresh is over")
        self.told.append(f"  got {answer.status} {answer.fields} {answer.body[:12]!r} {answer.error or ''}")
        self.answers += 1
        self.hits += answer.hit
        foreground = [call for call in self.history[since:] if isinstance(call, Call) and call.asker is not None]
        if answer.error is not None and foreground and foreground[-1].status == 0:
            return answer
        got = Answered(answer.status, answer.fields, answer.body, answer.error is not None)
        oracle = Oracle(strict=self.strict)
        now = foreground[-1].at if foreground else self.began
        self.complaints += oracle.judge(self.history, since, asked, got, now)
        self.complaints += oracle.missed(self.history, since, asked, got, now)
        return answer

    def purge(self, host: str, target: str, *, soft: bool) -> None:
        self.told.append(f"{self.site.clock.now - 1.8e9:.1f}: purge {host}{target} soft={soft}")
        purge(f"http://{host}{target}", soft=soft, caching=self.site.middleware)
        self.history.append(Purge(host, target, soft))


def wanted(dice: Random, last: Answer | None, favourite: str) -> Iterator[tuple[str, str]]:
    """The fields of a request. favourite: what this story's clients like most."""
    likes = {
        "Authorization": ["Basic YTpi"],
        "Cookie": ["sessionid=1", "seen=2"],
        "Cache-Control": ASKED_CONTROLS,
        "Range": RANGES,
        "If-None-Match": [(last and last["etag"]) or '"v1"'],
    }
    if favourite in likes and dice.random() < 0.5:
        yield favourite, dice.choice(likes[favourite])
        return
    for name, values in (("X-A", ["1", "2", ""]), ("X-B", ["1", "2"]), ("Accept-Language", LANGUAGES)):
        if dice.random() < 0.25:
            yield name, dice.choice(values)
    rare = dice.random()
    if rare < 0.05:
        yield "Authorization", dice.choice(["Basic YTpi", "Bearer x"])
    elif rare < 0.12:
        yield "Cookie", dice.choice(["sessionid=1", "seen=2", "a=b; sessionid=2", "seen=2,3", "seen=2, 3"])
    elif rare < 0.22:
        yield "Cache-Control", dice.choice(ASKED_CONTROLS)
    elif rare < 0.24:
        yield "Pragma", "no-cache"
    yield from conditions(dice, last)


def conditions(dice: Random, last: Answer | None) -> Iterator[tuple[str, str]]:
    tag = (last and last["etag"]) or dice.choice(['"v1"', 'W/"v0"', '"v2"'])
    modified = (last and last["last-modified"]) or http_date(1.8e9 - 5)
    kind = dice.random()
    if kind < 0.08:
        yield (
            "If-None-Match",
            dice.choice([tag, tag, f'"x", {tag}', "*", "W/" + tag, "v1", '"x"', tag.removeprefix("W/")]),
        )
        if dice.random() < 0.3:
            yield "If-Modified-Since", modified
    elif kind < 0.13:
        yield "If-Modified-Since", dice.choice([modified, modified, http_date(1.8e9 + DAY), "0", http_date(0)])
    elif kind < 0.15:
        yield dice.choice(
            [("If-Match", tag), ("If-Match", '"x"'), ("If-Unmodified-Since", http_date(0)), ("If-Match", "*")]
        )
    if dice.random() < 0.12:
        yield "Range", dice.choice(RANGES)
        if dice.random() < 0.4:
            yield "If-Range", dice.choice([tag, modified, '"x"', "odd"])


def tell(
    seed: object,
    interface: str,
    clock: Clock,
    *,
    strict: bool,
    cache: BaseCache | None = None,
    steps: int = 14,
    twins: bool = False,
) -> Story:
    """A whole story; it ends early where something was not permitted."""
    dice = Random(f"{seed}")
    site = Site(interface, clock)
    options: dict[str, Any] = {"policy": Policy.rfc9111() if strict else Policy()}
    if cache is not None:
        options["cache"] = cache
    middlewares = [site.build(**options).middleware]
    if twins:
        middlewares.append(site.build(**{**options, "cache": site.cache}).middleware)
    story = Story(site, strict, dice, Origin(Random(f"origin {seed}"), clock))
    last: dict[str, Answer] = {}
    noise = dice.choice([0, 0.2, 0.5, 1])
    favourite = dice.choice(["", "Authorization", "Cookie", "Cache-Control", "Range", "If-None-Match"])
    waits = dice.choice([STEPS, STEPS[:8], STEPS[4:13]])
    hosts, targets = HOSTS, TARGETS
    if dice.random() < 0.7:
        hosts, targets = HOSTS[:1], dice.sample(TARGETS, dice.choice([1, 2, 3]))
    try:
        for _ in range(steps):
            site.middleware = dice.choice(middlewares)
            clock.advance(dice.choice(waits) if dice.random() < 0.7 else 0)
            host, target, kind = dice.choice(hosts), dice.choice(targets), dice.random()
            if kind < 0.06:
                story.purge(host, target, soft=dice.random() < 0.5)
                continue
            method = "GET" if kind < 0.8 else "HEAD" if kind < 0.9 else dice.choice([*UNSAFE, "OPTIONS"])
            fields = tuple(wanted(dice, last.get(target), favourite)) if dice.random() < noise else ()
            last[target] = story.ask(Asked(method, host, target, fields))
            if story.complaints:
                break
    finally:
        clock.now = max(clock.now, 0)
    return story
