"""Random applications, visitors who each have secrets, and what of it a shared cache may show to whom.

An application reads some of what a request brings along, tells it in its page, and says something, true or not, in
Vary and Cache-Control. Every secret has its owner's name in it, so a leak is found by a search for names.
"""

from __future__ import annotations

import hashlib
import random
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from http.cookies import CookieError, SimpleCookie
from typing import Final

from django.http.cookie import parse_cookie as django_cookies  # type: ignore[import-untyped]
from starlette.requests import cookie_parser as starlette_cookies
from werkzeug.sansio.http import parse_cookie as werkzeug_cookies

Fields = list[tuple[str, str]]

NAMES: Final = ("alice", "bobby", "carol")
NOBODY: Final = "nobody"
KEYED: Final = ("X-API-Key", "X-Forwarded-Host", "X-Token", "Remote-User", "X-HTTP-Method-Override")
COOKIES: Final = ("session", "sessionid", "PHPSESSID", "access_token_cookie", "__Host-sessionid", "auth_tkt")
LONG_AGO: Final = "Wed, 01 Jan 2020 00:00:00 GMT"

#: What a page may read of a request, and the field by which Vary can tell of it; None: it is always part of the key.
READS: Final[Mapping[str, str | None]] = {
    "session": "Cookie",
    "theme": "Cookie",
    "authorization": "Authorization",
    "language": "Accept-Language",
    "tenant": "X-Tenant",
    "keyed": None,
    "query": None,
    "host": None,
    "user": "",  # nothing can tell of that
}


def spelt(rng: random.Random, word: str) -> str:
    return "".join(letter.upper() if rng.random() < 0.4 else letter for letter in word)


def restriction(rng: random.Random) -> Fields:
    """What keeps a page from being shared, in a spelling that a sloppy parser does not see through."""
    if rng.random() < 0.3:
        star = rng.choice(["*", " *\t", "Cookie, *", "\t*\t,x", ", *", "Accept,*,B", "a b", "\xa0*", "Cookie;*"])
        return [("Vary", "Accept-Encoding"), ("vary", star), ("Cache-Control", "public, max-age=60")]
    word = spelt(rng, rng.choice(["private", "no-store", "no-cache"]))
    around = [
        "{}",
        "\t{} ",
        "{};max-age=60",
        "{} max-age=60",
        "max-age=60,,{}",
        "x;{}",
        "x {}",
        "{}=",
        '{}=""',
        'x="60", {}',
    ]
    around += ['x="a, b",{}', 'x="a\\", b", {}', 'x="open, {}', '{}, x="open']
    said = rng.choice(["", "public, max-age=60, ", "s-maxage=60,"]) + rng.choice(around).format(word)
    return [("CACHE-CONTROL", said)] if rng.random() < 0.7 else [("Cache-Control", "public"), ("cache-control", said)]


STATEMENTS: Final = {
    "silent": [],
    "explicit": ["max-age=60", "MAX-AGE=60, x=1", "max-age=5, stale-while-revalidate=600, stale-if-error=600"],
    "public": ["public, max-age=60", "s-maxage=60, max-age=0", "max-age=60, Must-Revalidate"],
}


@dataclass(eq=False)
class Page:
    """One page of an application.

    reads, varies   what it tells of a request, and which of that Vary names
    says            how it speaks of its lifetime: "silent", "explicit", "public" or "restricted"
    """

    reads: frozenset[str]
    varies: frozenset[str]
    says: str
    fields: Fields
    cookie: str
    cookies: Callable[[str], Mapping[str, str]]
    told_in: str
    tagged: bool
    sets_cookie: bool
    pieces: int
    version: dict[tuple[str, str], int] = field(default_factory=dict)  # by host and query

    @property
    def is_honest(self) -> bool:
        """Does it say all that it depends on?"""
        names = {READS[one] for one in self.varies}
        return all(READS[one] is None or READS[one] in names for one in self.reads)

    def may_share(self, secret: str, preset: str) -> bool:
        """Has the application itself said, rightly or not, that others may be shown this secret of a visitor's?"""
        if self.says == "restricted" or secret == "keyed" or READS.get(secret) in {READS[v] for v in self.varies}:
            return False
        if secret == "user":
            return self.says == "public" or preset == "django"
        if secret == "authorization":
            return self.says == "public"
        if secret == "set":  # Django stores cookies, RFC 9111 where a response is explicit
            return preset == "django" or (preset == "rfc9111" and self.says != "silent")
        return self.says != "silent" or preset != "default"


def simple_cookies(text: str) -> Mapping[str, str]:
    try:
        return {name: one.value for name, one in SimpleCookie(text).items()}
    except CookieError:
        return {}


def as_utf8(parse: Callable[[str], Mapping[str, str]]) -> Callable[[str], Mapping[str, str]]:
    return lambda text: parse(text.encode("latin-1").decode("utf-8", "replace"))


def make_page(rng: random.Random) -> Page:
    reads = frozenset(one for one in READS if rng.random() < (0.5 if one == "session" else 0.25))
    honesty = rng.choice([1.0, 1.0, 0.2])
    varies = frozenset(one for one in reads if READS[one] and rng.random() < honesty)
    says = rng.choice(["silent"] * 4 + ["explicit", "explicit", "public", "restricted"])
    fields = restriction(rng) if says == "restricted" else []
    if says in STATEMENTS and (statements := STATEMENTS[says]):
        fields.append(("Cache-Control", rng.choice(statements)))
    if names := sorted({spelt(rng, READS[one] or "") for one in varies}):
        separated = [("Vary", rng.choice([", ", " ,\t", ","]).join(names))]
        fields += rng.choice([separated, [("vary", name) for name in names]])
    return Page(
        reads,
        varies,
        says,
        fields,
        cookie=rng.choice(COOKIES),
        cookies=rng.choice([simple_cookies, starlette_cookies, as_utf8(django_cookies), as_utf8(werkzeug_cookies)]),
        told_in=rng.choice(["X-Told", "", "Location"]),
        tagged=rng.random() < 0.4,
        sets_cookie=rng.random() < 0.15,
        pieces=rng.randrange(4),
    )


@dataclass
class Asked:
    """A request, by whom it is, as the application gets it."""

    who: str
    method: str
    path: str
    query: str
    fields: Fields
    user: str | None = None

    def value(self, name: str, *, underscores: bool = False) -> str:
        """All lines of a field; with underscores as an application of WSGI reads them behind an adapter."""
        lines = [(key.lower(), value) for key, value in self.fields]
        return ",".join(v for key, v in lines if (key.replace("_", "-") if underscores else key) == name)


def ask(rng: random.Random, pages: Mapping[str, Page], tags: list[str]) -> Asked:
    """A request of somebody's: for the most part an ordinary one."""
    who = rng.choice([*NAMES, NOBODY, NOBODY])
    path = rng.choice(list(pages))
    asked = Asked(who, rng.choice(["GET"] * 12 + ["HEAD"] * 2 + ["POST"]), path, rng.choice(["", "", "a=1"]), [])
    asked.fields.append(("Host", rng.choice(["example.org"] * 12 + ["EXAMPLE.org", "example.org:80", "a b"])))
    if who != NOBODY:
        _tell(rng, asked, pages[path].cookie)
    elif rng.random() < 0.3:
        asked.fields.append(("Cookie", rng.choice(["theme=dark", "_ga=1; theme=light"])))
    for name, values in (("Accept-Language", ["en", "de", ""]), ("X-Tenant", ["1", "en", ""])):
        if rng.random() < 0.2:
            asked.fields.append((name, rng.choice(values)))
    odd: Fields = [("x_tenant", "evil"), ("X-Tenant", "3"), ("Upgrade", "websocket"), ("Cache-Control", "max-stale")]
    odd += [("Range", "bytes=2-9"), ("If-Modified-Since", LONG_AGO), ("If-None-Match", rng.choice(tags or ["*"]))]
    if rng.random() < 0.3:
        asked.fields.append(rng.choice(odd))
    rng.shuffle(asked.fields)
    return asked


def _tell(rng: random.Random, asked: Asked, cookie: str) -> None:
    """Have the visitor say who it is, in one way or several."""
    who = asked.who
    if rng.random() < 0.5:
        own = f"{cookie}={who}~session"
        space = "\u2003".encode().decode("latin-1")
        lines = [
            own,
            f"a=b;{own}",
            f"a=b, {own}",
            f"a=b\t{own}",
            f'a="x; {own}',
            f"a=b;\x85{own}",
            f"a=b; {space}{own}",
        ]
        lines += [f"=;{own}", f"{cookie} = {who}~session", f"theme=dark; {own}", f"a=b\x1f{own}"]
        asked.fields.append(("Cookie", own if rng.random() < 0.4 else rng.choice(lines)))
    if rng.random() < 0.2:
        scheme = rng.choice(["Bearer ", "bearer\t", ""])
        asked.fields.append((spelt(rng, "authorization"), f"{scheme}{who}~authorization"))
    if rng.random() < 0.2:
        name = rng.choice(KEYED)
        asked.fields.append((name.replace("-", "_") if rng.random() < 0.1 else name, f"{who}~keyed"))
    if rng.random() < 0.1:
        asked.user = f"{who}~user"


def answer(page: Page, asked: Asked) -> tuple[int, Fields, bytes]:
    """What the application answers: it tells all that it reads."""
    jar = page.cookies("; ".join(value for name, value in asked.fields if name.lower() == "cookie"))
    host = asked.value("host")
    read = {
        "session": jar.get(page.cookie, ""),
        "theme": jar.get("theme", ""),
        "authorization": asked.value("authorization"),
        "language": asked.value("accept-language"),
        "tenant": asked.value("x-tenant", underscores=True),
        "keyed": "&".join(asked.value(name.lower(), underscores=True) for name in KEYED),
        "query": asked.query,
        "host": host,
        "user": asked.user or "",
    }
    told = "; ".join(
        [f"{asked.path} {page.version.get((host, asked.query), 0)}", *[read[one] for one in sorted(page.reads)]]
    )
    body = told.encode("latin-1", "replace")
    fields = [("Content-Type", "text/plain"), *page.fields]
    if page.told_in:
        fields.append((page.told_in, body.decode("latin-1").translate(dict.fromkeys(range(32), "."))))
    if page.sets_cookie:
        fields.append(("Set-Cookie", f"{page.cookie}={asked.who}~set"))
    if page.tagged:
        tag = f'"{hashlib.blake2b(body, digest_size=8).hexdigest()}"'
        fields.append(("ETag", tag))
        if asked.method in ("GET", "HEAD") and tag in asked.value("if-none-match"):
            return 304, fields[1:], b""
    return 200, fields, body
