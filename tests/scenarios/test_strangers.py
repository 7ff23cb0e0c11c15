"""Whatever an application does, no visitor sees another one's secret, and an honest one's pages are as it gives them.

Each seed is another application and another policy, asked by many visitors, one after the other and all at once.
"""

from __future__ import annotations

import asyncio
import random
import sys
import threading
from collections.abc import Iterable, Iterator
from io import BytesIO
from typing import Any

import pytest

from cachemw import Policy, asgi, wsgi
from cachemw.backends.locmem import LocMemCache
from tests.scenarios.conftest import Answer, Clock
from tests.scenarios.strangers import NAMES, Asked, Page, answer, ask, make_page

PRESETS: dict[str, Any] = {"default": Policy, "django": Policy.django, "rfc9111": Policy.rfc9111}
SECRETS = ("session", "authorization", "keyed", "user", "set")
SPOILT = "; ".join(f"{name}~keyed" for name in NAMES)  # what is written over buffers that were given away


class Stranger:
    """A site, its visitors, and a judge of what they are shown."""

    def __init__(self, seed: int, interface: str, clock: Clock) -> None:
        self.seed = seed
        self.rng = rng = random.Random(seed)
        self.clock = clock
        self.preset = rng.choice(["default", "default", "django", "rfc9111"])
        own = {"grace": 30, "stale_while_revalidate": 30, "stale_if_error": 30, "request_directives": True}
        options = {name: value for name, value in own.items() if self.preset == "default" and rng.random() < 0.3}
        options |= {name: value for name, value in {"max_variants": 2, "lease": 0}.items() if rng.random() < 0.2}
        self.pages = {f"/{number}": make_page(rng) for number in range(3)}
        self.tags: list[str] = []
        self.hits = 0
        module: Any = wsgi if interface == "wsgi" else asgi
        app: Any = self.wsgi if interface == "wsgi" else self.asgi
        shared: dict[str, Any] = {
            "cache": LocMemCache(f"strangers-{seed}-{interface}"),
            "policy": PRESETS[self.preset](**options),
        }
        if rng.random() < 0.3:
            self.app = module.UpdateCacheMiddleware(module.FetchFromCacheMiddleware(app, **shared), **shared)
        elif rng.random() < 0.3:
            self.app = module.CacheMiddleware(module.CacheMiddleware(app, **shared, key_prefix="inner"), **shared)
        else:
            self.app = module.CacheMiddleware(app, **shared)

    # -- the application ----------------------------------------------------------------------------------------

    def respond(self, asked: Asked) -> tuple[Page, int, list[tuple[str, str]], list[bytes]]:
        page = self.pages[asked.path]
        if asked.method == "POST" and self.preset != "django":  # which does not invalidate
            place = (asked.value("host"), asked.query)
            page.version[place] = page.version.get(place, 0) + 1
        status, fields, body = answer(page, asked)
        if asked.method == "HEAD":
            body = b""
        return page, status, fields, [body] if page.pieces == 0 else [body[:3], body[3:9], body[9:]]

    def wsgi(self, environ: dict[str, Any], start_response: Any) -> Iterable[bytes]:
        fields = [(name[5:].replace("_", "-"), value) for name, value in environ.items() if name[:5] == "HTTP_"]
        who, user = environ.get("test.who", "refresh"), environ.get("REMOTE_USER")
        asked = Asked(who, environ["REQUEST_METHOD"], environ["PATH_INFO"], environ["QUERY_STRING"], fields, user)
        page, status, fields, chunks = self.respond(asked)
        write = start_response(f"{status} Scripted", fields)
        fields.append(("X-Spoilt", SPOILT))
        if page.pieces == 1:
            write(chunks.pop(0))
        return chunks if page.pieces < 3 else (chunk for chunk in chunks)

    async def asgi(self, scope: Any, receive: Any, send: Any) -> None:
        fields = [(name.decode("latin-1"), value.decode("latin-1")) for name, value in scope["headers"]]
        who, user = scope.get("test.who", "refresh"), scope.get("user")
        asked = Asked(who, scope["method"], scope["path"], scope["query_string"].decode(), fields, user and user.name)
        page, status, fields, chunks = self.respond(asked)
        await self.pause()
        headers = [(name.lower().encode("latin-1"), value.encode("latin-1")) for name, value in fields]
        await send({"type": "http.response.start", "status": status, "headers": headers})
        headers.append((b"x-spoilt", SPOILT.encode()))
        for chunk in chunks:
            await self.pause()
            buffer = bytearray(chunk)
            message = {"type": "http.response.body", "body": buffer if page.pieces == 2 else chunk, "more_body": True}
            await send(message)
            buffer[:] = SPOILT.encode()
            message["body"] = bytes(buffer)
        await send({"type": "http.response.body", "body": memoryview(b"")})

    async def pause(self) -> None:
        for _ in range(self.rng.randrange(3)):
            await asyncio.sleep(0)

    # -- the visitors -------------------------------------------------------------------------------------------

    def ask_wsgi(self, asked: Asked) -> Answer:
        environ: dict[str, Any] = {
            "REQUEST_METHOD": asked.method,
            "PATH_INFO": asked.path,
            "QUERY_STRING": asked.query,
            "wsgi.input": BytesIO(),
            "test.who": asked.who,
        }
        for name, value in asked.fields:
            name = "HTTP_" + name.upper().replace("-", "_")
            environ[name] = f"{environ[name]},{value}" if name in environ else value
        if asked.user is not None:
            environ["REMOTE_USER"] = asked.user
        got = Answer(0, [], b"")

        def start_response(status: str, headers: list[tuple[str, str]], exc_info: Any = None) -> Any:
            got.status, got.fields = int(status[:3]), list(headers)
            headers.append(("X-Spoilt", SPOILT))
            return lambda data: setattr(got, "body", got.body + data)

        result = self.app(environ, start_response)
        for chunk in result:
            got.body += chunk
        getattr(result, "close", lambda: None)()
        return got

    async def ask_asgi(self, asked: Asked) -> Answer:
        scope: dict[str, Any] = {
            "type": "http",
            "method": asked.method,
            "path": asked.path,
            "query_string": asked.query.encode(),
            "headers": [(name.lower().encode(), value.encode("latin-1")) for name, value in asked.fields],
            "test.who": asked.who,
        }
        if asked.user is not None:
            scope["user"] = type("User", (), {"name": asked.user})
        got = Answer(0, [], b"")

        async def receive() -> dict[str, Any]:
            return {"type": "http.request", "body": b""}

        async def send(message: Any) -> None:
            if message["type"] == "http.response.start":
                got.status = message["status"]
                got.fields = [(n.decode("latin-1"), v.decode("latin-1")) for n, v in message["headers"]]
                message["headers"].append((b"x-spoilt", SPOILT.encode()))
            else:
                got.body += message.get("body", b"")

        await self.app(scope, receive, send)
        return got

    # -- the judge ----------------------------------------------------------------------------------------------

    def judge(self, asked: Asked, got: Answer, *, as_wsgi: bool) -> None:
        page = self.pages[asked.path]
        self.hits += bool(got.lines("age"))
        self.tags = [*self.tags, *got.lines("etag")][-8:]
        shown = "\n".join(f"{name}: {value}" for name, value in got.fields) + "\n" + got.body.decode("latin-1")
        seen = {(name, secret) for name in NAMES for secret in SECRETS if f"{name}~{secret}" in shown}
        leaks = [
            (name, secret) for name, secret in seen if name != asked.who and not page.may_share(secret, self.preset)
        ]
        assert not leaks, (self.seed, asked, page, shown)
        hidden = not as_wsgi and any("_" in name for name, _ in asked.fields)  # from the cache alone, which says so
        if page.is_honest and asked.method in ("GET", "HEAD") and not hidden:
            self.compare(asked, got, page, as_wsgi=as_wsgi)

    def compare(self, asked: Asked, got: Answer, page: Page, *, as_wsgi: bool) -> None:
        """Is it what the application gives for this request without its conditions and its range?"""
        left_out = ("if-none-match", "if-modified-since", "range")
        fields = [(n, v) for n, v in asked.fields if n.lower() not in left_out]
        if as_wsgi:
            fields = [(name.replace("_", "-"), value) for name, value in fields]
        _, given, body = answer(page, Asked(asked.who, "GET", asked.path, asked.query, fields, asked.user))
        if got.status == 200:
            assert got.body == (body if asked.method == "GET" else b""), (self.seed, asked, page, got)
            told = {value for name, value in given if name in ("X-Told", "Location", "ETag")}
            assert told <= {value for _, value in got.fields}, (self.seed, asked, page, got)
            if self.preset == "default" and page.sets_cookie:
                assert got.lines("set-cookie") == [f"{page.cookie}={asked.who}~set"], (self.seed, asked, page, got)
        elif got.status == 206:
            assert got.body == body[2:10], (self.seed, asked, page, got)
        elif got.status == 304:
            known = dict(given).get("ETag", "none")
            assert asked.value("if-none-match") in (known, "*"), (self.seed, asked, page, got)
        else:
            assert got.status == 416, (self.seed, asked, page, got)


def crowds(site: Stranger, number: int) -> Iterator[list[Asked]]:
    """Those who ask at the same time; whoever changes a page is alone."""
    for _ in range(number):
        crowd = [ask(site.rng, site.pages, site.tags) for _ in range(site.rng.choice([1, 1, 1, 5]))]
        if len(crowd) > 1:
            for one in crowd:
                one.method = "GET" if one.method == "POST" else one.method
                one.path, one.query = crowd[0].path, crowd[0].query
        yield crowd
        site.clock.advance(site.rng.choice([0, 0, 0, 1, 7, 61, 700]))


@pytest.fixture
def often_interrupted() -> Iterator[None]:
    """Threads take turns as often as they can."""
    before = sys.getswitchinterval()
    sys.setswitchinterval(1e-5)
    yield
    sys.setswitchinterval(before)


@pytest.mark.parametrize("first", range(0, 60, 20))
def test_strangers_in_threads(clock: Clock, first: int, often_interrupted: None) -> None:
    hits = 0
    for seed in range(first, first + 20):
        site = Stranger(seed, "wsgi", clock)
        for crowd in crowds(site, 80):
            answers: list[Any] = [None] * len(crowd)

            def come(place: int, asked: Asked, site: Stranger = site, answers: list[Any] = answers) -> None:
                answers[place] = site.ask_wsgi(asked)

            threads = [threading.Thread(target=come, args=pair) for pair in enumerate(crowd)]
            for thread in threads:
                thread.start()
            for thread in threads + [one for one in threading.enumerate() if one.name == "cachemw-refresh"]:
                thread.join(20)
            for asked, got in zip(crowd, answers, strict=True):
                site.judge(asked, got, as_wsgi=True)
        hits += site.hits
    assert hits > 300


@pytest.mark.parametrize("first", range(0, 60, 20))
def test_strangers_in_tasks(clock: Clock, first: int) -> None:
    hits = 0
    for seed in range(first, first + 20):
        site = Stranger(seed, "asgi", clock)

        async def come(site: Stranger = site) -> None:
            for crowd in crowds(site, 80):
                answers = await asyncio.gather(*map(site.ask_asgi, crowd))
                for _ in range(10):  # background refreshes
                    await asyncio.sleep(0)
                for asked, got in zip(crowd, answers, strict=True):
                    site.judge(asked, got, as_wsgi=False)

        asyncio.run(come())
        hits += site.hits
    assert hits > 300
