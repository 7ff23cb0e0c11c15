"""ASGI's own ways: other scopes, unknown messages, disconnects. The stories are in scenarios/."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from itertools import count
from typing import Any

import pytest

from cachemw import asgi
from cachemw._asgi.passage import Passage
from cachemw._asgi.replies import discard
from cachemw.backends.locmem import LocMemCache
from cachemw.flights import Flight

names = count()


def cached(app: Any, **options: Any) -> Any:
    return asgi.CacheMiddleware(app, cache=LocMemCache(f"asgi-{next(names)}"), **options)


def scope(**parts: Any) -> dict[str, Any]:
    given = {"type": "http", "method": "GET", "path": "/", "query_string": b"", "headers": [(b"host", b"a")]}
    return {**given, **parts}


async def silence() -> dict[str, Any]:
    return {"type": "http.request", "body": b"", "more_body": False}


def ask(app: Any, receive: Callable[[], Any] = silence, **parts: Any) -> list[dict[str, Any]]:
    """All messages of one request."""
    sent: list[dict[str, Any]] = []

    async def send(message: dict[str, Any]) -> None:
        sent.append(message)

    async def run() -> None:
        await app(scope(**parts), receive, send)

    asyncio.run(run())
    return sent


def trace(sent: list[dict[str, Any]]) -> str:
    return str(dict(sent[0]["headers"]).get(b"cache-status", b""), "latin-1")


def app_of(*messages: dict[str, Any]) -> Any:
    async def app(scope: Any, receive: Any, send: Any) -> None:
        for message in messages:
            await send(message)

    return app


START = {"type": "http.response.start", "status": 200, "headers": [(b"content-type", b"text/plain")]}
END = {"type": "http.response.body", "body": b"page"}


@pytest.mark.parametrize("kind", ["websocket", "lifespan", "something.new"])
def test_other_scopes_pass_untouched(kind: str) -> None:
    message = {"type": f"{kind}.whatever"}
    assert ask(cached(app_of(message)), type=kind) == [message]


@pytest.mark.parametrize(
    "messages",
    [
        [START, {"type": "http.response.pathsend", "path": "/etc/hostname"}],
        [START, {"type": "http.response.zerocopysend", "file": 1}, END],
        [{**START, "trailers": True}, END, {"type": "http.response.trailers", "headers": []}],
        [{"type": "http.response.push", "path": "/a", "headers": []}, START, END],
        [START, {"type": "http.response.unheard_of"}, END],
        [START, {**END, "more_body": True}],
        [START],
    ],
)
def test_what_is_not_a_whole_plain_body_passes_and_is_not_stored(messages: list[dict[str, Any]]) -> None:
    middleware = cached(app_of(*messages))
    for _ in range(2):
        sent = ask(middleware)
        assert [message["type"] for message in sent] == [message["type"] for message in messages]
        assert not any("hit" in dict(m.get("headers", [])).get(b"cache-status", b"").decode() for m in sent)
    assert len(middleware.caching.line.flights) == 0


class Stop(BaseException):
    """As a time-out may be one."""


@pytest.mark.parametrize("error", [ValueError, asyncio.CancelledError, Stop])
@pytest.mark.parametrize("length", [True, False])
def test_a_body_that_somebody_ends_in_a_finally_clause_has_broken_off(error: type[BaseException], length: bool) -> None:
    """Unless it is as long as it was to be."""

    async def app(scope: Any, receive: Any, send: Any) -> None:
        await send({**START, "headers": [(b"content-length", b"4")] if length else []})
        try:
            await send({**END, "more_body": True})
            raise error
        finally:
            await send({**END, "body": b""})

    middleware = cached(app)

    async def main() -> None:
        with pytest.raises(error):
            await middleware(scope(), silence, discard)

    asyncio.run(main())
    assert len(middleware.caching.line.flights) == 0
    middleware.app = app_of(START, END)
    assert ("hit" in trace(ask(middleware))) is length


def test_an_application_that_sees_the_client_leave_stores_nothing() -> None:
    async def app(scope: Any, receive: Any, send: Any) -> None:
        await send(START)
        await receive()
        await send(END)

    async def gone() -> dict[str, Any]:
        return {"type": "http.disconnect"}

    middleware = cached(app)
    ask(middleware, gone)
    assert "hit" not in trace(ask(middleware))
    assert "hit" in trace(ask(middleware))


@pytest.mark.parametrize(
    ("one", "other", "same"),
    [
        ({"path": "/a"}, {"path": "/a", "raw_path": b"/a"}, True),
        ({"path": "/ä"}, {"path": "/ä", "raw_path": b"/%C3%A4"}, True),
        ({"path": "/a", "raw_path": b"/%61"}, {"path": "/a", "raw_path": b"/a"}, False),
        ({"headers": []}, {"headers": [], "server": ("a", 80)}, False),
        ({"headers": [], "server": ("a", 80)}, {"headers": [], "server": ("b", 80)}, False),
        ({"scheme": "http"}, {"scheme": "https"}, False),
        ({"path": "/m/a", "root_path": "/m"}, {"path": "/m/a"}, True),
        ({"path": "/a", "root_path": "/m"}, {"path": "/a"}, False),
    ],
)
def test_which_scopes_are_one_page(one: Any, other: Any, same: bool) -> None:
    middleware = cached(app_of(START, END))
    ask(middleware, **one)
    assert ("hit" in trace(ask(middleware, **one))) is True
    assert ("hit" in trace(ask(middleware, **other))) is same


def test_a_header_list_of_ours_is_never_the_stored_one() -> None:
    middleware = cached(app_of(START, END))
    ask(middleware)
    hit = ask(middleware)
    hit[0]["headers"].append((b"x-evil", b"1"))
    assert (b"x-evil", b"1") not in ask(middleware)[0]["headers"]


def test_a_request_that_is_forgotten_while_it_gets_ready_holds_nobody_up(monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupted(self: Any) -> None:
        raise KeyboardInterrupt

    middleware = cached(app_of(START, END))
    with monkeypatch.context() as patch:
        patch.setattr(Passage, "call", interrupted)
        with pytest.raises(KeyboardInterrupt):
            middleware(scope(), silence, discard).send(None)
    assert len(middleware.caching.line.flights) == 0


def test_a_flight_whose_end_was_interrupted_ends_all_the_same(monkeypatch: pytest.MonkeyPatch) -> None:
    middleware = cached(app_of(START, END))
    end, ends = Flight.end, []

    def interrupted(self: Any, *records: Any) -> None:
        ends.append(self)
        if len(ends) == 1:
            raise KeyboardInterrupt
        end(self, *records)

    monkeypatch.setattr(Flight, "end", interrupted)
    with pytest.raises(KeyboardInterrupt):
        middleware(scope(), silence, discard).send(None)
    assert len(middleware.caching.line.flights) == 0


def test_shutdown_ends_refreshes() -> None:
    async def story() -> None:
        middleware = cached(app_of({"type": "lifespan.shutdown.complete"}))
        never = asyncio.Event()
        assert middleware.refresher.start("key", never.wait)
        assert not middleware.refresher.start("key", never.wait)
        sent: list[Any] = []

        async def send(message: Any) -> None:
            assert len(middleware.refresher) == 0
            sent.append(message)

        await middleware({"type": "lifespan"}, silence, send)
        assert len(sent) == 1

    asyncio.run(story())


def test_a_refresh_has_the_state_of_the_lifespan_and_nothing_that_was_found_for_the_visitor(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    clock = [1_800_000_000.0]
    monkeypatch.setattr("time.time", lambda: clock[0])
    lasting: dict[str, Any] = {"database": "the pool"}
    states: list[Any] = []
    head = {**START, "headers": [(b"cache-control", b"max-age=10, stale-while-revalidate=100")]}

    async def app(scope: Any, receive: Any, send: Any) -> None:
        if scope["type"] == "lifespan":
            scope["state"]["mailer"] = "made at the start"
            return
        states.append(dict(scope["state"]))
        await send(head)
        await send(END)

    middleware = cached(app)

    async def run() -> None:
        await middleware({"type": "lifespan", "state": lasting}, silence, discard)
        for _ in range(2):
            await middleware(scope(state={**lasting, "who": "alice"}), silence, discard)
            clock[0] += 11
        await asyncio.gather(*middleware.refresher._tasks)

    asyncio.run(run())
    visitor, refresh = states
    assert visitor["who"] == "alice"
    assert refresh == {"database": "the pool", "mailer": "made at the start"}
    assert lasting == refresh


def test_a_server_on_another_event_loop_is_told_so_at_its_start() -> None:
    """Trio, for one: what waits there has to be trio's own."""
    sent: list[Any] = []

    async def send(message: Any) -> None:
        sent.append(message)

    async def receive() -> dict[str, Any]:
        return {"type": "lifespan.startup"}

    starting = cached(app_of({"type": "lifespan.startup.complete"}))({"type": "lifespan"}, receive, send)
    with pytest.raises(StopIteration):
        starting.send(None)
    [message] = sent
    assert message["type"] == "lifespan.startup.failed"
    assert "asyncio" in message["message"]


def test_a_lone_start_out_of_order_is_the_server_s_business() -> None:
    middleware = cached(app_of(END))
    assert ask(middleware) == [END]
