"""A request that ends at any step whatever: cancelled there, or with a store that fails or a client that leaves."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from itertools import count
from typing import Any

import pytest

from cachemw import Policy, asgi
from tests.scenarios.conftest import Clock, clock
from tests.scenarios.test_attacks_shells import Sent, Shared, flights_of, no_body, scope_of

__all__ = ["clock"]

names = count()

HOST = (b"host", b"example.org")
POLICIES = {
    "part": Policy.rfc9111(seconds=60),
    "post": Policy.rfc9111(seconds=60),
    "error": Policy(seconds=60, stale_if_error=600),
}
#: Requests that may have come before: what is stored when the one comes that ends too early.
STALE = ("validated", "changed", "error")


class Stepping(Shared):
    """A store on another machine, for tasks: `step` is awaited before and after each call."""

    near = False
    step: Callable[[], Awaitable[None]]


def _stepping(name: str) -> Any:
    async def call(self: Stepping, *arguments: Any) -> Any:
        await self.step()
        result = getattr(self, name)(*arguments)
        await self.step()
        return result

    return call


for _name in ("read_records", "write_records", "read_latest", "drop_records", "commit_records", "add_and_read"):
    setattr(Stepping, f"a{_name}", _stepping(_name))


class Story:
    """A page whose content is a number, told step by step; what happens at one of them, `ending` says."""

    def __init__(self, kind: str, split: bool, ending: str, last: int) -> None:
        self.kind, self.ending, self.last = kind, ending, last
        self.content = self.steps = 0
        self.task: asyncio.Task[Any] | None = None  # the one that ends at a step
        cache, policy = Stepping(f"steps-{next(names)}"), POLICIES.get(kind, Policy(seconds=60))
        cache.step = self.step
        if split:
            inner: Any = asgi.FetchFromCacheMiddleware(self.app, cache=cache, policy=policy)
            self.middleware: Any = asgi.UpdateCacheMiddleware(inner, cache=cache, policy=policy)
        else:
            self.middleware = asgi.CacheMiddleware(self.app, cache=cache, policy=policy)

    async def step(self) -> None:
        if self.task is not None:
            self.steps += 1
            if self.steps == self.last and self.ending == "cancelled":
                self.task.cancel()
            elif self.steps == self.last:
                raise OSError("the connection is gone")
        await asyncio.sleep(0)

    async def app(self, scope: Any, receive: Any, send: Any) -> None:
        asked = dict(scope["headers"])
        tag, body, status = b'"%d"' % self.content, b"page%d" % self.content, 200
        fields = [(b"etag", tag), (b"cache-control", b"max-age=60"), (b"content-location", b"/")]
        if self.kind == "variant":
            fields.append((b"vary", b"accept"))
        if self.kind == "error" and self.task is not None:
            raise ValueError("broken")
        if asked.get(b"if-none-match") == tag:
            status, body = 304, b""
        elif self.kind == "part" and b"range" in asked:
            first, _, last = asked[b"range"].decode().removeprefix("bytes=").partition("-")
            status, body = 206, body[int(first) : int(last or 4) + 1]
            fields.append((b"content-range", f"bytes {first}-{last or 4}/5".encode()))
        await self.step()
        await send({"type": "http.response.start", "status": status, "headers": fields})
        await send({"type": "http.response.body", "body": body[:2], "more_body": True})
        await send({"type": "http.response.body", "body": body[2:]})
        await self.step()

    async def ask(self, method: str = "GET", *fields: tuple[bytes, bytes]) -> tuple[int, bytes]:
        sent = Sent()

        async def send(message: Any) -> None:
            await self.step()
            sent.append(message)

        await self.middleware(scope_of(method=method, headers=[HOST, *fields]), no_body, send)
        return sent[0]["status"], sent.body

    async def tell(self, clock: Clock) -> bool:
        """Whether the step was reached."""
        if self.kind in STALE:
            await self.ask()
            clock.advance(61)
        if self.kind == "part":
            await self.ask("GET", (b"range", b"bytes=0-1"))
        if self.kind == "changed":
            self.content = 1
        self.task = asyncio.create_task(self.ask("POST" if self.kind == "post" else "GET"))
        answers = await asyncio.gather(self.task, self.ask(), return_exceptions=True)
        self.task = None
        for answer in answers:
            assert isinstance(answer, asyncio.CancelledError | OSError | ValueError) or answer == self.right
        for _ in range(50):  # what is written though the request was cancelled
            await asyncio.sleep(0)
        assert flights_of(self.middleware) == 0
        for _ in range(2):
            async with asyncio.timeout(5):  # less than a lease
                assert await self.ask() == self.right
        return self.steps >= self.last

    @property
    def right(self) -> tuple[int, bytes]:
        return 200, b"page%d" % self.content


@pytest.mark.parametrize("ending", ["cancelled", "failed"])
@pytest.mark.parametrize("split", [False, True], ids=["whole", "halves"])
@pytest.mark.parametrize("kind", ["new", "variant", "validated", "changed", "error", "part", "post"])
def test_whatever_step_a_request_ends_at_the_others_get_the_page(
    clock: Clock, kind: str, split: bool, ending: str
) -> None:
    steps = count(1)
    while asyncio.run(Story(kind, split, ending, next(steps)).tell(clock)):
        pass
    assert next(steps) > 10
