"""Days of a site in seconds: all kinds of requests, again and again. Whatever is left behind each time shows here."""

from __future__ import annotations

import asyncio
import gc
import os
import random
import threading
from collections import Counter
from collections.abc import Callable, Iterable
from io import BytesIO
from typing import Any

import pytest

from cachemw import asgi, purge, wsgi
from cachemw.backends.locmem import LocMemCache
from tests.garbage import collect
from tests.servers import until

ROUND = 1500  # requests
FIELDS: dict[str, list[tuple[str, str]]] = {
    "page": [],
    "stale": [("Cache-Control", "max-age=5, stale-while-revalidate=60"), ("Age", "10")],
    "private": [("Cache-Control", "private")],
    "varies": [("Vary", "Accept-Language")],
    "tagged": [("Cache-Tag", "news")],
    "asks": [("ETag", '"1"'), ("Cache-Control", "max-age=0")],
    "whole": [("No-Vary-Search", 'params=("a")')],
    "cookie": [("Set-Cookie", "name=value")],
    "breaks": [],
    "fails": [],
}
PATHS = [f"/{kind}/{number}" for kind in FIELDS for number in range(8)]


class BrokenError(Exception):
    """What the application raises, in the midst of a page or before."""


class GoneError(OSError):
    """What some servers raise when the client has left."""


def fields_of(path: str) -> list[tuple[str, str]]:
    if path.startswith("/fails"):
        raise BrokenError
    return [("Content-Type", "text/plain"), *FIELDS[path.split("/")[1]]]


def wsgi_app(environ: dict[str, Any], start_response: Any) -> Iterable[bytes]:
    path = environ["PATH_INFO"]
    start_response("200 OK", fields_of(path))
    for number in range(3):
        if number == 2 and path.startswith("/breaks"):
            raise BrokenError
        yield b"part"


async def asgi_app(scope: Any, receive: Any, send: Any) -> None:
    headers = [(name.lower().encode(), value.encode()) for name, value in fields_of(scope["path"])]
    await send({"type": "http.response.start", "status": 200, "headers": headers})
    for number in range(3):
        await asyncio.sleep(0)
        if number == 2 and scope["path"].startswith("/breaks"):
            raise BrokenError
        await send({"type": "http.response.body", "body": b"part", "more_body": number < 2})


class Visitors:
    """They ask for whatever comes to their minds. `leaves`: after so many messages, or parts of the body."""

    def __init__(self, site: Any) -> None:
        self.site = site
        self.dice = random.Random(1)

    def round(self) -> None:
        """A crowd of them, and purges meanwhile; nothing is under way any more then."""
        raise NotImplementedError

    def request(self) -> tuple[str, str, str, dict[str, str], int]:
        dice = self.dice
        fields = {"Host": dice.choice(["example.org", "www.example.org"])}
        for name, values in (
            ("Accept-Language", ("de", "en")),
            ("If-None-Match", ('"1"', '"2"', "*")),
            ("Range", ("bytes=0-3", "bytes=9-")),
            ("Cookie", ("session=1", "other=2")),
            ("Cache-Control", ("no-cache", "only-if-cached")),
        ):
            if dice.random() < 0.1:
                fields[name] = dice.choice(values)
        method = dice.choices(["GET", "HEAD", "POST", "OPTIONS"], [90, 5, 4, 1])[0]
        leaves = dice.randrange(3) if dice.random() < 0.1 else 99
        return method, dice.choice(PATHS), dice.choice(["", "", "a=1", "b=2"]), fields, leaves


class Threads(Visitors):
    def visit(self) -> None:
        method, path, query, fields, leaves = self.request()
        environ = {f"HTTP_{name.upper().replace('-', '_')}": value for name, value in fields.items()}
        environ |= {"REQUEST_METHOD": method, "PATH_INFO": path, "QUERY_STRING": query, "wsgi.url_scheme": "http"}
        answer: Any = ()
        try:
            answer = self.site({**environ, "wsgi.input": BytesIO()}, lambda *_: lambda data: None)
            for number, _ in enumerate(answer):
                if number == leaves:
                    break
        except BrokenError:
            pass
        finally:
            if hasattr(answer, "close"):
                answer.close()

    def round(self) -> None:
        for number in range(ROUND):
            self.visit()
            if number % 100 == 0:
                purge(f"http://example.org/page/{number // 100 % 8}", tags=["news"], caching=self.site.caching)
        until(lambda: len(self.site.refresher) == 0, "the last refresh is over")


class Tasks(Visitors):
    async def visit(self) -> None:
        method, path, query, fields, leaves = self.request()
        left = leaves

        async def receive() -> Any:
            await asyncio.sleep(0)
            return {"type": "http.request", "body": b"", "more_body": False}

        async def send(message: Any) -> None:
            nonlocal left
            left -= 1
            if left < 0:
                raise GoneError

        headers = [(name.lower().encode(), value.encode()) for name, value in fields.items()]
        scope = {"type": "http", "method": method, "path": path, "raw_path": path.encode(), "scheme": "http"}
        scope |= {"query_string": query.encode(), "headers": headers}
        task = asyncio.ensure_future(self.site(scope, receive, send))
        if leaves == 1:  # other servers cancel the request
            await asyncio.sleep(0)
            task.cancel()
        await asyncio.wait([task])
        if not task.cancelled():
            assert isinstance(task.exception(), BrokenError | GoneError | None)

    async def some(self, number: int) -> None:
        for _ in range(ROUND // 5):
            await self.visit()
        purge(f"http://example.org/page/{number}", tags=["news"], caching=self.site.caching)

    async def all(self) -> None:
        await asyncio.gather(*(self.some(number) for number in range(5)))
        while refreshes := asyncio.all_tasks() - {asyncio.current_task()}:
            await asyncio.wait(refreshes)

    def round(self) -> None:
        asyncio.run(self.all())


CASES: dict[str, Callable[[LocMemCache], Visitors]] = {
    "wsgi": lambda cache: Threads(wsgi.CacheMiddleware(wsgi_app, cache=cache)),
    "asgi": lambda cache: Tasks(asgi.CacheMiddleware(asgi_app, cache=cache)),
}


def held() -> tuple[Counter[str], int, int]:
    """The objects by type, the threads, the open files."""
    collect()
    objects = Counter(type(one).__name__ for one in gc.get_objects())
    return objects, threading.active_count(), len(os.listdir("/proc/self/fd"))


@pytest.mark.parametrize("interface", CASES)
def test_nothing_grows_with_the_number_of_requests(interface: str) -> None:
    cache = LocMemCache(f"soak-{interface}", {"OPTIONS": {"MAX_ENTRIES": 1000}})
    visitors = CASES[interface](cache)

    def after(rounds: int) -> tuple[Counter[str], int, int]:
        for _ in range(rounds):
            visitors.round()
        cache.clear()
        return held()

    objects, threads, files = after(5)  # by now they have asked for all that there is
    objects_then, threads_then, files_then = after(5)
    assert objects_then.total() - objects.total() < ROUND / 15, (objects_then - objects).most_common(5)
    assert threads_then <= threads
    assert files_then <= files
