"""Who has a second chance: tests under real servers or with a browser, those that hold disks to deadlines; no other.

Now and then a machine is too busy to start a server, or stops one for longer than a deadline allows: what fails there
runs once more, and the summary names it as a rerun. What fails twice has failed. Whether a test was under a server is
known when it has run, by what it has asked `tests.servers` for, wherever it stands.

A plugin of pytest, which `tests.conftest` registers.
"""

from __future__ import annotations

from collections.abc import Generator
from typing import Any, Final

import pytest

from tests import servers

#: Where processes wait for one another's locks, and disks fail, under deadlines.
_DISKS: Final = ("tests/faults/", "tests/backends/test_db", "tests/backends/test_filebased")

#: The fixtures of several tests that a server was started for: where they are to be seen, and their names.
_serving: Final[set[tuple[str, str]]] = set()


class UnderServers:
    """Is true of a test that was, or was held to the deadlines of a disk."""

    def __init__(self, item: pytest.Item) -> None:
        self._item = item
        self._before = servers.uses()

    def begin(self) -> None:
        """From here on it is this test that asks for servers."""
        self._before = servers.uses()

    def __bool__(self) -> bool:
        names = getattr(self._item, "fixturenames", ())
        shared = any(name in names and self._item.nodeid.startswith(base) for base, name in _serving)
        return shared or self._item.nodeid.startswith(_DISKS) or servers.uses() > self._before


_UNDER_SERVERS: Final = pytest.StashKey[UnderServers]()


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    for item in items:
        item.stash[_UNDER_SERVERS] = condition = UnderServers(item)
        if not config.getoption("usepdb") and item.get_closest_marker("flaky") is None:  # who looks for it wants it now
            item.add_marker(pytest.mark.flaky(reruns=1, condition=condition))


@pytest.hookimpl(tryfirst=True)
def pytest_runtest_setup(item: pytest.Item) -> None:
    item.stash[_UNDER_SERVERS].begin()


@pytest.hookimpl(wrapper=True)
def pytest_fixture_setup(fixturedef: pytest.FixtureDef[Any]) -> Generator[None, Any, Any]:
    """Tests that come later are under the server, too, that a fixture of several was set up with."""
    before = servers.uses()
    try:
        return (yield)
    finally:
        if fixturedef.scope != "function" and servers.uses() > before:
            _serving.add((fixturedef.baseid, fixturedef.argname))
