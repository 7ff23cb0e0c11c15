"""One subject in a process of its own, told by lines of JSON what to measure: `python -m benchmarks.worker NAME`.

hit           requests for one page that is stored; fails unless each was answered without the application
miss          requests for pages not seen before; fails unless each reached the application
not_modified  requests with the ETag of the hit; null unless they were answered with 304
memory        resident bytes of a page
stampede      many requests for one cold page at once
profile       where the time of one of the first three goes
"""

from __future__ import annotations

import gc
import json
import logging
import resource
import sys
import warnings
from collections.abc import Callable
from itertools import count
from typing import Any

from benchmarks.drivers import Driver, Received
from benchmarks.sampling import sample
from benchmarks.subjects import SUBJECTS
from benchmarks.traffic import KINDS, Origin

__all__ = ["Bench", "answer"]


class Bench:
    """A built subject, and the proofs."""

    def __init__(self, name: str, url: str) -> None:
        self.name = name  # part of every path: subjects share servers, not pages
        self.bare = SUBJECTS[name].kind == "bare"
        self.origin = Origin()
        self.driver: Driver = SUBJECTS[name].build(self.origin, url)
        self.names = count()
        self.stored: dict[str, Received] = {}

    def prepare(self, kind: str) -> Received:
        """Have the page stored, and see that the second request is answered without the application."""
        if kind not in self.stored:
            path = f"/{kind}/{self.name}"
            self.driver.run([path])
            calls = self.origin.calls
            _, hit = self.driver.run([path])
            if not self.bare and self.origin.calls != calls:
                raise RuntimeError("the second request is no hit")
            if hit.status != 200 or len(hit.body) < KINDS[kind]:
                raise RuntimeError(f"the second request was answered {hit.status} with {len(hit.body)} bytes")
            self.stored[kind] = hit
            gc.collect()
            gc.freeze()
        return self.stored[kind]

    def hit(self, kind: str, requests: int) -> float:
        """µs of a hit."""
        expected = self.prepare(kind)
        calls = self.origin.calls
        seconds, received = self.driver.run([f"/{kind}/{self.name}"] * requests)
        if not self.bare and self.origin.calls != calls:
            raise RuntimeError(f"{self.origin.calls - calls} of {requests} hits were none")
        if received.body != expected.body:
            raise RuntimeError("the hit's body is not the page")
        return seconds / requests * 1e6

    def miss(self, kind: str, requests: int) -> float:
        """µs of a miss, the application included."""
        expected = self.prepare(kind)
        paths = [f"/{kind}/{self.name}-{next(self.names)}" for _ in range(requests)]
        calls = self.origin.calls
        seconds, received = self.driver.run(paths)
        if self.origin.calls != calls + requests:
            raise RuntimeError(f"{requests} misses called the application {self.origin.calls - calls} times")
        if received.body != expected.body:
            raise RuntimeError("the miss's body is not the page")
        return seconds / requests * 1e6

    def not_modified(self, kind: str, requests: int) -> float | None:
        """µs of a 304 from the cache; None where the subject answers 200, or asks the application."""
        expected = self.prepare(kind)
        condition = [("if-none-match", expected.value("etag") or '"none"')]
        calls = self.origin.calls
        seconds, received = self.driver.run([f"/{kind}/{self.name}"] * requests, condition)
        if received.status != 304 or self.origin.calls != calls:
            return None
        return seconds / requests * 1e6

    def profile(self, kind: str, requests: int, operation: str) -> str:
        """Where the time of a hit, a miss or a 304 goes, by function."""
        operate: Callable[[str, int], float | None] = getattr(self, operation)
        taken = operate(kind, requests)
        if taken is None:
            raise RuntimeError(f"no {operation}")
        return sample(lambda: operate(kind, requests * 4)).report(taken)

    def memory(self, kind: str, requests: int) -> float:
        """Resident bytes for each of `requests` further pages, none of whose bodies and fields are shared objects."""
        self.origin.distinct = True
        paths = [f"/{kind}/{self.name}-{number:06}" for number in range(requests)]
        self.driver.run([f"/{kind}/{self.name}-warm{number}" for number in range(100)])
        gc.collect()
        before = _resident()
        self.driver.run(paths)
        gc.collect()
        resident = _resident() - before
        calls = self.origin.calls
        self.driver.run(paths[::100])
        if self.origin.calls != calls:
            raise RuntimeError(f"{self.origin.calls - calls} of {len(paths[::100])} pages were no longer stored")
        return resident / requests

    def prepare_for_crowd(self) -> None:
        """Import and connect what a first request does."""
        self.driver.run([f"/s/{self.name}-warm"])

    def stampede(self, requests: int, delay: float, page: str) -> dict[str, float]:
        """`requests` for one cold page at once, from an application that takes `delay` seconds."""
        self.origin.delay = delay
        calls = self.origin.calls
        seconds, answers = self.driver.together(f"/s/{page}", requests)
        self.origin.delay = 0.0
        good = sum(
            isinstance(answer, Received) and answer.status == 200 and len(answer.body) >= KINDS["s"]
            for answer in answers
        )
        return {"calls": self.origin.calls - calls, "failures": requests - good, "seconds": seconds}


def _resident() -> int:
    with open("/proc/self/statm") as file:
        return int(file.read().split()[1]) * resource.getpagesize()


def answer(make: Callable[[], Any]) -> None:
    """Do what the lines of standard input ask of the bench that `make` builds at the first of them."""
    warnings.simplefilter("ignore")
    logging.disable(logging.CRITICAL)
    answers, sys.stdout = sys.stdout, sys.stderr
    bench: Any = None
    for line in sys.stdin:
        command: dict[str, Any] = json.loads(line)
        try:
            bench = bench or make()
            reply = {"value": getattr(bench, command.pop("do"))(**command)}
        except Exception as error:  # the whole table must not fall with one subject: it is reported by name
            reply = {"error": f"{type(error).__name__}: {error}"}
        answers.write(json.dumps(reply) + "\n")
        answers.flush()


if __name__ == "__main__":
    answer(lambda: Bench(*sys.argv[1:]))
