"""What holds for all tests."""

from __future__ import annotations

import threading
from collections.abc import Generator, Iterator
from importlib.util import find_spec
from typing import Any, Final
from weakref import WeakValueDictionary

# Its plugin would import it after the last test, and so parse it while what the faults have left is collected: where
# that is told of with a traceback, which parses too, Python 3.11 fails up to 3.11.7 (python/cpython#106905).
import hypothesis
import pytest

from cachemw import _forks, _pages_recovery, caching
from cachemw.backends import _memory
from cachemw.pages import Pages
from tests import reruns, servers

#: A machine that is busy makes no example a slow one.
hypothesis.settings.register_profile(
    "patient", hypothesis.settings(), deadline=None, suppress_health_check=[hypothesis.HealthCheck.too_slow]
)
hypothesis.settings.load_profile("patient")

#: It is C, and has to be built where there is no wheel of it.
NO_PYLIBMC: Final = find_spec("pylibmc") is None and servers.REQUIRED != "all"


def pytest_configure(config: pytest.Config) -> None:
    config.pluginmanager.register(reruns)  # as hooks of this file they would not see fixtures of the whole session


@pytest.fixture(autouse=True)
def nothing_is_owed() -> Iterator[None]:
    """What a test's store is still owed ends with the test: a dead one would be asked for as long as the tests run."""
    yield
    for one in list(_forks._all):
        if isinstance(one, _pages_recovery.Recovery) and one._thread is not None:
            pages = getattr(one._attempt, "__self__", None)
            if isinstance(pages, Pages):
                pages._owed.clear()
                pages._doubtful.clear()


@pytest.fixture(autouse=True)
def local_memory_is_empty() -> Iterator[None]:
    """It lives as long as the process: what a test leaves there would be another's, or its own that is run again."""
    yield
    for store in list(_memory._stores.values()):
        if store.entries:
            with store.lock:
                for key in list(store.entries):
                    store.take_out(key)


@pytest.fixture(autouse=True)
def middlewares_are_the_tests_own() -> Iterator[None]:
    """A purge that is told of no cache would reach those, too, that other tests have left, on servers long gone."""
    others, caching._at_work = caching._at_work, WeakValueDictionary()
    yield
    caching._at_work = others


def pytest_sessionfinish() -> None:
    """The last attempts are over before the summary: what they log has nowhere to go after it."""
    for thread in threading.enumerate():
        if thread.name == "cachemw-recovery":
            thread.join(_pages_recovery.PERIOD + 5)


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item: pytest.Item) -> Generator[None, Any, Any]:
    """What fails for want of pylibmc is skipped, as what needs a server that is missing."""
    report = yield
    if NO_PYLIBMC and report.failed and "pip install 'cachemw[pylibmc]'" in str(report.longrepr):
        report.outcome = "skipped"
        report.longrepr = (str(item.path), item.location[1] or 0, "Skipped: pylibmc is not installed")
    return report
