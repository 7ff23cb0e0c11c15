"""A store on the network that is away, hangs, is slow or talks nonsense: no visitor notices more than a miss."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Iterator
from typing import Final

import pytest

from tests.backends.file_store import in_child
from tests.faults.site import BACK, INTERFACES, Load, Site
from tests.faults.stores import NETWORKED, open_networked
from tests.faults.wire import Fault, Wire
from tests.servers import Server

pytestmark = [
    # a connection that breaks while it is being made is closed by whoever collects it
    pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning"),
]


#: Seconds by which the slowest hundredth of the answers may be later than the bare application's.
UNNOTICED: Final = 0.002


@pytest.fixture(scope="module", params=NETWORKED)
def store(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture(scope="module")
def mortal(store: str) -> Iterator[Server]:
    """A server of this module's own, which its tests kill."""
    with NETWORKED[store][0]() as server:
        yield server


@pytest.fixture
def server(mortal: Server) -> Server:
    """The same, up again if a test that failed has left it dead."""
    assert mortal.process is not None
    return mortal if mortal.process.poll() is None else mortal.start()


@pytest.fixture(params=INTERFACES)
def interface(request: pytest.FixtureRequest) -> str:
    return str(request.param)


def test_a_store_that_is_absent_at_first_is_used_when_it_comes(store: str, server: Server, interface: str) -> None:
    server.kill()
    with Site(interface, open_networked(store, server.address)) as site:
        for _ in range(20):
            assert not site.get("/").hit
        assert len([call for call in site.calls if call.error]) <= 12  # then the breakers are open
        assert sum(call.late for call in site.calls) <= 2
        server.start()
        site.until_hit("/", within=BACK)


def go_without(load: Load) -> None:
    """The visitors notice nothing, as hardly anybody asks the store any more."""
    load.await_answers(100)
    answers, calls = len(load.answers), len(load.site.calls)
    load.await_unnoticed(UNNOTICED)
    assert len(load.site.calls) - calls <= (len(load.answers) - answers) / 100


def test_a_store_killed_and_restarted_under_load(store: str, server: Server, interface: str) -> None:
    with Site(interface, open_networked(store, server.address)) as site, site.load() as load:
        load.await_hits(50, within=10)
        server.kill()
        go_without(load)
        server.start()
        load.await_hits(1)
        load.await_hits(20, within=5)
    assert max(load.late().values(), default=0) <= 2


def test_a_store_that_is_stopped_under_load(store: str, server: Server, interface: str) -> None:
    with Site(interface, open_networked(store, server.address)) as site, site.load() as load:
        load.await_hits(50, within=10)
        server.pause()
        try:
            go_without(load)
        finally:
            server.resume()
        load.await_hits(1)
        load.await_hits(20, within=5)
    assert max(load.late().values()) <= 2
    waits = sorted(call.seconds for call in site.calls if call.late)
    assert waits[len(waits) // 2] < 0.15  # a deadline of 0.1, on a busy machine


@pytest.mark.parametrize("fault", ["silent", "slow", "cut", "garbage"])
def test_a_fault_on_the_wire_under_load(store: str, server: Server, interface: str, fault: Fault) -> None:
    with (
        Wire((server.host, server.port)) as wire,
        Site(interface, open_networked(store, wire.address)) as site,
        site.load() as load,
    ):
        load.await_hits(50, within=10)
        wire.fault = fault
        go_without(load)
        wire.fault = "pass"
        load.await_hits(1, within=2.5 if fault == "slow" else 2.0)  # replies that are on their way are late still
        load.await_hits(20, within=5)
    assert max(load.late().values(), default=0) <= 2


def test_cancelled_visitors_leave_neither_wrong_pages_nor_leases(store: str, server: Server) -> None:
    with Site("asgi", open_networked(store, server.address, patient=True)) as site:

        async def hurry() -> None:
            for number in range(300):
                path = f"/{number % 7}"
                task = asyncio.create_task(site.aask("POST" if number % 10 == 0 else "GET", path))
                for _ in range(number % 23):
                    await asyncio.sleep(0)
                task.cancel()
                await asyncio.gather(task, return_exceptions=True)
                if number % 10 == 0:  # whether it was made or not, nobody may be shown what was before
                    site.published[path] = site.versions[path]

        assert site.loop is not None
        asyncio.run_coroutine_threadsafe(hurry(), site.loop).result(30)
        for number in range(7):
            assert site.get(f"/{number}").seconds < 1
            site.until_hit(f"/{number}")
        assert site.pages.counts["store-error"] == 0


def test_a_process_forked_after_use_goes_on_by_itself(store: str, server: Server, interface: str) -> None:
    with Site(interface, open_networked(store, server.address, patient=True)) as site:
        site.get("/")
        site.until_hit("/")

        def visit(which: Site) -> None:
            for number in range(20):
                which.get("/")
                which.get(f"/{number}")
                which.until_hit(f"/{number}")
            assert which.pages.counts["store-error"] == 0

        def visit_there() -> None:
            with Site(interface, site.cache) as own:  # an event loop of its own
                visit(own)

        child = threading.Thread(target=in_child, args=(visit_there,))
        child.start()
        visit(site)
        child.join()
