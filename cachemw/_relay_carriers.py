"""Carriers: how threads and tasks carry out what a relay has to have done while a miss waits. I/O only."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Sequence

from cachemw._relay import Boarding, Relay
from cachemw.flights import Flight
from cachemw.pages import Pages
from cachemw.rfc9111.messages import Record

__all__ = ["TaskRelay", "ThreadRelay"]


class ThreadRelay(Relay):
    """A miss whose thread blocks."""

    def _carry_out(self, steps: Boarding[None]) -> None:
        result = None
        while True:
            try:
                method, arguments = steps.send(result)
            except StopIteration:
                return
            result = method(*arguments)

    def _wait_for(self, flight: Flight[Record | None]) -> bool:
        return flight.wait(self.exchange.engine.policy.collapse_timeout)

    def _look_up(self, keys: Sequence[str]) -> Sequence[Record | None]:
        return self.exchange.engine.pages.lookup(keys)

    def _take_lease(self, key: str, seconds: float, keys: Sequence[str]) -> tuple[bool | None, Sequence[Record | None]]:
        return self.exchange.engine.pages.lease(key, seconds, keys)

    def _drop_lease(self, key: str) -> None:
        pages = self.exchange.engine.pages
        pages.run(pages.drop_lease(key), None, (key,))

    def _purge(self, pages: Pages, resources: Sequence[str]) -> None:
        pages.run_purge(resources)

    def _pause(self, seconds: float) -> None:
        time.sleep(seconds)


class TaskRelay(Relay):
    """A miss whose task is suspended."""

    async def _carry_out(self, steps: Boarding[None]) -> None:
        result = None
        while True:
            try:
                method, arguments = steps.send(result)
            except StopIteration:
                return
            result = await method(*arguments)

    async def _wait_for(self, flight: Flight[Record | None]) -> bool:
        return await flight.await_landing(self.exchange.engine.policy.collapse_timeout)

    async def _look_up(self, keys: Sequence[str]) -> Sequence[Record | None]:
        pages = self.exchange.engine.pages
        return pages.lookup(keys) if pages.immediate else await pages.alookup(keys)

    async def _take_lease(
        self, key: str, seconds: float, keys: Sequence[str]
    ) -> tuple[bool | None, Sequence[Record | None]]:
        return await self.exchange.engine.pages.alease(key, seconds, keys)

    async def _drop_lease(self, key: str) -> None:
        pages = self.exchange.engine.pages
        await pages.arun(pages.drop_lease(key), None, (key,))

    async def _purge(self, pages: Pages, resources: Sequence[str]) -> None:
        await pages.arun_purge(resources)

    async def _pause(self, seconds: float) -> None:
        await asyncio.sleep(seconds)
