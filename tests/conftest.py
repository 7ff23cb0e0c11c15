"""What holds for all tests."""

from __future__ import annotations

import pytest

#: Tests that start servers, browsers and processes of their own. Now and then a machine is too busy to start one, or
#: stops one for longer than a deadline allows: what fails there runs once more, and the summary counts it as a rerun.
#: What fails twice has failed. Everything else has one chance.
REAL = {
    "backends",
    "browser",
    "downstream",
    "faults",
    "integrations",
    "real_servers",
    "test_docs.py",
    "test_examples.py",
}


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        if REAL.intersection(item.path.parts):
            item.add_marker(pytest.mark.flaky(reruns=1))
