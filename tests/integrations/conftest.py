"""What the tests of the integrations share: empty stores, a frozen clock, and a count of the views' calls."""

from __future__ import annotations

import asyncio
import itertools
from collections.abc import Iterator
from typing import Any

import httpx
import pytest

from cachemw import caches
from cachemw.backends.locmem import LocMemCache
from tests.scenarios.conftest import Clock

_numbers = itertools.count()


class Counter:
    """How often views were called: each call makes another page."""

    def __init__(self) -> None:
        self.calls = 0

    def __call__(self) -> str:
        self.calls += 1
        return f"page {self.calls}"


class Visitor:
    """Asks an ASGI application on one event loop; after each answer it waits for what goes on in the background."""

    def __init__(self, app: Any) -> None:
        self._app = app

    def get(self, *paths: str, **fields: str) -> list[httpx.Response]:
        """The answers, one after another."""
        return asyncio.run(self._get(paths, {name.replace("_", "-"): value for name, value in fields.items()}))

    async def _get(self, paths: tuple[str, ...], headers: dict[str, str]) -> list[httpx.Response]:
        transport = httpx.ASGITransport(app=self._app, client=("127.0.0.1", 1))
        answers = []
        async with httpx.AsyncClient(transport=transport, base_url="http://site", headers=headers) as client:
            for path in paths:
                answers.append(await client.get(path))
                if going_on := [task for task in asyncio.all_tasks() if task.get_name() == "cachemw-refresh"]:
                    await asyncio.wait(going_on)
        return answers


@pytest.fixture(autouse=True)
def _empty_default() -> Iterator[None]:
    """Views that are told of no cache use the default one of the process."""
    caches["default"].clear()
    yield
    caches["default"].clear()


@pytest.fixture
def store() -> LocMemCache:
    """A store of the test's own."""
    return LocMemCache(f"integration-{next(_numbers)}", {})


@pytest.fixture
def page() -> Counter:
    return Counter()


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    """The time of the cache, which passes only when a test says so."""
    clock = Clock()
    monkeypatch.setattr("cachemw.wsgi.time.time", clock)
    return clock
