"""A site whose pages tell their version, behind the page cache, in this process: what its visitors get is checked.

A page's body is "<path> <version>". POST makes the next version; who asks after it was answered may get no older one.
"""

from __future__ import annotations

import asyncio
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from io import BytesIO
from typing import Any, Self

from cachemw import Policy, asgi, wsgi
from cachemw.backends.base import BaseCache
from tests.servers import START_TIMEOUT, until

__all__ = ["BACK", "LATE", "Answer", "Call", "Load", "Site", "percentile"]

LATE = 0.05  # seconds in the store; what a breaker calls slow
BACK = 2.0  # seconds until a store that is back is used again
_TRIES = 10  # to see what a machine that is busy shows only now and then
INTERFACES = ("wsgi", "asgi")


@dataclass
class Answer:
    """What a visitor got."""

    status: int
    fields: dict[str, str]
    body: bytes
    seconds: float

    @property
    def hit(self) -> bool:
        return "; hit" in self.fields.get("cache-status", "")

    @property
    def version(self) -> int:
        return int(self.body.rpartition(b" ")[2])


@dataclass
class Call:
    """One call of the store: by whom (a thread's or a task's name), how long it took, and its failure."""

    name: str
    by: str
    at: float
    seconds: float
    error: BaseException | None

    @property
    def late(self) -> bool:
        return self.error is not None and self.seconds > LATE


_CALLS = (
    "read_decoded",
    "read_latest",
    "write_records",
    "drop_records",
    "add_record",
    "add_and_read",
    "commit_records",
)


class Site:
    """The application and its visitors. `calls` are the visitors' calls of the store, `made` counts the application's.

    An ASGI site has an event loop in a thread of its own.
    """

    def __init__(self, interface: str, cache: BaseCache, **options: Any) -> None:
        self.interface = interface
        self.cache = cache
        self.versions: Counter[str] = Counter()
        self.published: Counter[str] = Counter()  # the versions whose POST was answered
        self.made: Counter[str] = Counter()
        self.fields: dict[str, list[tuple[str, str]]] = {}
        self.bodies: dict[str, bytes] = {}
        self.calls: list[Call] = []
        self.asked: set[str] = set()  # the keys that were looked up, dropped or written
        self.before: Callable[[str], None] = lambda path: None  # what the application does first
        module: Any = wsgi if interface == "wsgi" else asgi
        self.bare: Any = self._wsgi if interface == "wsgi" else self._asgi
        options.setdefault("policy", Policy())
        self.app = module.CacheMiddleware(self.bare, cache=cache, **options)
        self.line = self.app.caching.line
        self.pages = self.line.pages
        for name in _CALLS:
            self._watch(name)
        self.loop: asyncio.AbstractEventLoop | None = None
        if interface == "asgi":
            self.loop = asyncio.new_event_loop()
            self._thread = threading.Thread(target=self.loop.run_forever, name="event loop")
            self._thread.start()

    def _watch(self, name: str) -> None:
        for full in (name, f"a{name}"):
            method = getattr(self.cache, full, None)
            if method is not None:
                setattr(self.cache, full, self._awatched(name, method) if full != name else self._watched(name, method))

    def _watched(self, name: str, method: Callable[..., Any]) -> Callable[..., Any]:
        def watched(*args: Any) -> Any:
            self._note_keys(args[0])
            with self._noted(name, threading.current_thread().name):
                return method(*args)

        return watched

    def _awatched(self, name: str, method: Callable[..., Any]) -> Callable[..., Any]:
        async def watched(*args: Any) -> Any:
            task = asyncio.current_task()
            self._note_keys(args[0])
            with self._noted(name, task.get_name() if task else ""):
                return await method(*args)

        return watched

    def _note_keys(self, asked: Any) -> None:
        self.asked.update(
            [asked] if isinstance(asked, str) else [one if isinstance(one, str) else one[0] for one in asked]
        )

    @contextmanager
    def _noted(self, name: str, by: str) -> Iterator[None]:
        began, failure = time.monotonic(), None
        try:
            yield
        except BaseException as error:
            failure = error
            raise
        finally:
            # a call that another one is made of has been noted with the same failure
            noted = failure is not None and any(call.error is failure for call in self.calls[-20:])
            if by != "cachemw-recovery" and not noted:
                self.calls.append(Call(name, by, began, time.monotonic() - began, failure))

    # -- the application ---------------------------------------------------------------------------------------------

    def _answer(self, method: str, path: str) -> tuple[list[tuple[str, str]], bytes]:
        if method == "POST":
            self.versions[path] += 1
        else:
            self.made[path] += 1
        body = self.bodies.get(path, path.encode()) + b" %d" % self.versions[path]
        if method == "GET":
            self.before(path)
        return [("Content-Type", "text/plain"), *self.fields.get(path, ())], body

    def _wsgi(self, environ: dict[str, Any], start_response: Callable[..., Any]) -> Iterable[bytes]:
        fields, body = self._answer(environ["REQUEST_METHOD"], environ["PATH_INFO"])
        start_response("200 OK", fields)
        return [body]

    async def _asgi(self, scope: Any, receive: Any, send: Any) -> None:
        fields, body = self._answer(scope["method"], scope["path"])
        headers = [(name.lower().encode(), value.encode()) for name, value in fields]
        await send({"type": "http.response.start", "status": 200, "headers": headers})
        await send({"type": "http.response.body", "body": body})

    # -- visitors ----------------------------------------------------------------------------------------------------

    def get(self, path: str = "/", fields: Mapping[str, str] | None = None, *, app: Any = None) -> Answer:
        """Ask for a page."""
        return self.ask("GET", path, fields, app=app)

    def post(self, path: str = "/") -> Answer:
        """Make the next version of a page."""
        return self.ask("POST", path)

    def ask(self, method: str, path: str, fields: Mapping[str, str] | None = None, *, app: Any = None) -> Answer:
        """Send a request and check what comes back."""
        least = self.published[path]
        answer = self._ask(method, path, fields or {}, app or self.app)
        return self.checked(method, path, answer, least)

    async def aask(self, method: str, path: str, *, app: Any = None) -> Answer:
        """The same on the site's event loop."""
        least = self.published[path]
        return self.checked(method, path, await self._ask_asgi(method, path, {}, app or self.app), least)

    def checked(self, method: str, path: str, answer: Answer, least: int) -> Answer:
        """No failed answer, no other page, none that is older than what was there before it was asked for."""
        assert answer.status == 200
        prefix = self.bodies.get(path, path.encode()) + b" "
        assert answer.body.startswith(prefix), (path, answer.body[:100])
        assert least <= answer.version, f"{path}: version {answer.version} after {least}; {answer.fields}"
        if method == "POST":
            self.published[path] = answer.version
        return answer

    def _ask(self, method: str, path: str, fields: Mapping[str, str], app: Any) -> Answer:
        if self.loop is None:
            return self._ask_wsgi(method, path, fields, app)
        return asyncio.run_coroutine_threadsafe(self._ask_asgi(method, path, fields, app), self.loop).result(30)

    def _ask_wsgi(self, method: str, path: str, fields: Mapping[str, str], app: Any) -> Answer:
        environ = {
            "REQUEST_METHOD": method,
            "SCRIPT_NAME": "",
            "PATH_INFO": path,
            "QUERY_STRING": "",
            "SERVER_NAME": "testserver",
            "SERVER_PORT": "80",
            "SERVER_PROTOCOL": "HTTP/1.1",
            "HTTP_HOST": "example.org",
            "wsgi.url_scheme": "http",
            "wsgi.input": BytesIO(),
            **{f"HTTP_{name.upper().replace('-', '_')}": value for name, value in fields.items()},
        }
        head: list[Any] = []
        began = time.monotonic()
        result = app(environ, lambda status, headers, exc_info=None: head.extend((status, headers)))
        body = b"".join(result)
        seconds = time.monotonic() - began
        if hasattr(result, "close"):
            result.close()
        return Answer(int(head[0][:3]), {name.lower(): value for name, value in head[1]}, body, seconds)

    async def _ask_asgi(self, method: str, path: str, fields: Mapping[str, str], app: Any) -> Answer:
        headers = [(b"host", b"example.org"), *((n.lower().encode(), v.encode()) for n, v in fields.items())]
        scope = {
            "type": "http",
            "method": method,
            "scheme": "http",
            "path": path,
            "raw_path": path.encode(),
            "query_string": b"",
            "root_path": "",
            "headers": headers,
            "server": ("testserver", 80),
        }
        answer = Answer(0, {}, b"", 0.0)
        began = time.monotonic()

        async def receive() -> dict[str, Any]:
            return {"type": "http.request", "body": b"", "more_body": False}

        async def send(message: Mapping[str, Any]) -> None:
            if message["type"] == "http.response.start":
                answer.status = message["status"]
                answer.fields = {name.decode(): value.decode() for name, value in message["headers"]}
            else:
                answer.body += message.get("body", b"")
                if not message.get("more_body"):
                    answer.seconds = time.monotonic() - began

        await app(scope, receive, send)
        return answer

    def until_hit(self, path: str = "/", within: float = START_TIMEOUT) -> float:
        """Ask until the answer comes from the cache; how long that took, in seconds.

        within: what is promised of a store that is back (docs/stores.md); else, the patience with a busy machine.
        """
        began = time.monotonic()
        until(lambda: self.get(path).hit, f"{path} is a hit", within)
        return time.monotonic() - began

    @contextmanager
    def load(self, workers: int = 4, paths: int = 20) -> Iterator[Load]:
        """Visitors who ask all the time, and one who makes new versions; at the end all is checked."""
        load = Load(self, [f"/page/{number}" for number in range(paths)])
        with load.running(workers):
            yield load
        load.check()

    def close(self) -> None:
        """Close the cache, and the event loop."""
        if self.loop is not None:
            asyncio.run_coroutine_threadsafe(self.cache.aclose(), self.loop).result(10)
            self.loop.call_soon_threadsafe(self.loop.stop)
            self._thread.join()
            self.loop.close()
        self.cache.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc_info: object) -> None:
        self.close()


@dataclass
class Load:
    """Visitors of a site. `answers` are (answer, how long the bare application took just then)."""

    site: Site
    paths: list[str]
    answers: list[tuple[Answer, float]] = field(default_factory=list)
    errors: list[BaseException] = field(default_factory=list)
    workers: list[str] = field(default_factory=list)
    _end: threading.Event = field(default_factory=threading.Event)

    @contextmanager
    def running(self, workers: int) -> Iterator[None]:
        self.workers = [f"visitor {number}" for number in range(workers)]
        jobs: list[tuple[str, str]] = [(name, "GET") for name in self.workers] + [("author", "POST")]
        if self.site.loop is None:
            threads = [threading.Thread(target=self._visit, args=job, name=job[0]) for job in jobs]
            for thread in threads:
                thread.start()
            join: Callable[[], Any] = lambda: list(map(threading.Thread.join, threads))  # noqa: E731
        else:
            gathered = asyncio.run_coroutine_threadsafe(self._avisit_all(jobs), self.site.loop)
            join = lambda: gathered.result(30)  # noqa: E731
        try:
            yield
        finally:
            self._end.set()
            join()

    def _visit(self, name: str, method: str) -> None:
        site, number = self.site, 0
        try:
            while not self._end.wait(0.002 if method == "GET" else 0.02):
                number += 1
                path = self.paths[(number * 7 + len(name)) % len(self.paths)]
                bare = site.get(path, app=site.bare).seconds if method == "GET" else 0.0
                self.answers.append((site.ask(method, path), bare))
        except BaseException as error:
            self.errors.append(error)

    async def _avisit_all(self, jobs: list[tuple[str, str]]) -> None:
        tasks = [asyncio.create_task(self._avisit(name, method), name=name) for name, method in jobs]
        await asyncio.gather(*tasks)

    async def _avisit(self, name: str, method: str) -> None:
        site, number = self.site, 0
        try:
            while not self._end.is_set():
                await asyncio.sleep(0.002 if method == "GET" else 0.02)  # visitors think
                number += 1
                path = self.paths[(number * 7 + int(name[-1:] if name[-1:].isdigit() else 0)) % len(self.paths)]
                bare = (await site.aask("GET", path, app=site.bare)).seconds if method == "GET" else 0.0
                self.answers.append((await site.aask(method, path), bare))
        except BaseException as error:
            self.errors.append(error)

    # -- what the test waits for -------------------------------------------------------------------------------------

    def await_answers(self, count: int) -> None:
        """Return when so many more were given."""
        enough = len(self.answers) + count
        until(lambda: bool(self.errors) or len(self.answers) >= enough, f"{count} more answers are given", 20)

    def await_hits(self, count: int, within: float = BACK) -> None:
        """Return when so many more came from the cache."""
        seen = len(self.answers)

        def hits() -> int:
            return sum(answer.hit for answer, _ in self.answers[seen:])

        until(lambda: bool(self.errors) or hits() >= count, f"{count} more hits are served", within)

    def check(self) -> None:
        """No failed answer, no wrong body."""
        if self.errors:
            raise self.errors[0]

    # -- what an outage costs ----------------------------------------------------------------------------------------

    def late(self) -> Counter[str]:
        """By worker, how many answers waited for a store that did not answer in time."""
        return Counter(call.by for call in self.site.calls if call.late)

    def await_unnoticed(self, bound: float) -> None:
        """Return when of 400 answers the slowest hundredth was less than `bound` seconds slower than the bare site's.

        A machine that is busy delays them too, but not each time; what they wait for is a store's fault each time.
        """
        for _ in range(_TRIES):
            seen = len(self.answers)
            self.await_answers(400)
            self.check()
            if (delay := _delay(self.answers[seen:])) < bound:
                return
        raise AssertionError(f"the slowest are {delay:.4f} s late, each of {_TRIES} times; allowed: {bound}")


def _delay(answers: list[tuple[Answer, float]]) -> float:
    during = [(answer.seconds, bare) for answer, bare in answers if bare]
    assert len(during) >= 100, len(during)
    return percentile([seconds for seconds, _ in during], 99) - percentile([bare for _, bare in during], 99)


def percentile(values: list[float], part: int) -> float:
    """The value that `part` percent of them do not exceed."""
    return sorted(values)[max(0, -(-len(values) * part // 100) - 1)]
