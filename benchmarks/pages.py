"""`pages`: µs of a hit, a miss and a 304 behind every subject, in rounds of short batches in shuffled order."""

from __future__ import annotations

import random
import sys
from collections import defaultdict
from contextlib import ExitStack
from dataclasses import dataclass, field
from statistics import median
from typing import Final

from benchmarks.report import Goal, Table
from benchmarks.subjects import SUBJECTS, Subject
from benchmarks.surroundings import MissingSubjectError, Stores, Worker, redis_calls

__all__ = ["Pages", "measure"]

Operation = tuple[str, str]  # what, kind of the page (traffic.KINDS)

OPERATIONS: Final[tuple[Operation, ...]] = (
    ("hit", "s"),
    ("hit", "m"),
    ("hit", "l"),
    ("miss", "s"),
    ("miss", "m"),
    ("not_modified", "s"),
)
_BATCH: Final = 15e-3  # seconds: long against the timer, short against the machine's other work
_MISSES: Final = 100  # a batch of misses; what they store stays below every subject's limit
_COLUMNS: Final = {
    ("hit", "s"): "1 KB",
    ("hit", "m"): "32 KB",
    ("hit", "l"): "1 MB",
    ("miss", "s"): "miss 1 KB",
    ("miss", "m"): "miss 32 KB",
    ("not_modified", "s"): "304",
}


@dataclass
class Pages:
    """µs by subject and operation, one for each round (the rounds' order is the same everywhere)."""

    times: dict[str, dict[Operation, list[float]]] = field(default_factory=lambda: defaultdict(dict))
    trips: dict[str, float] = field(default_factory=dict)
    missing: dict[str, str] = field(default_factory=dict)

    def median(self, name: str, operation: Operation) -> float | None:
        times = self.times.get(name, {}).get(operation)
        return median(times) if times else None

    def ratio(self, name: str, other: str, operation: Operation, base: Operation | None = None) -> float | None:
        """The median of the ratios within each round."""
        above, below = self.times.get(name, {}).get(operation), self.times.get(other, {}).get(base or operation)
        return median(a / b for a, b in zip(above, below, strict=True)) if above and below else None

    def difference(self, name: str, other: str, operation: Operation, base: Operation | None = None) -> float | None:
        """The median of the differences within each round, in µs."""
        above, below = self.times.get(name, {}).get(operation), self.times.get(other, {}).get(base or operation)
        return median(a - b for a, b in zip(above, below, strict=True)) if above and below else None

    def best_peer(self, interface: str, store: str, operation: Operation) -> str | None:
        """The fastest peer of the same interface over the same store."""
        timed = [
            (self.median(subject.name, operation) or float("inf"), subject.name)
            for subject in SUBJECTS.values()
            if (subject.kind, subject.interface, subject.store) == ("peer", interface, store)
            and operation in self.times.get(subject.name, {})
        ]
        return min(timed)[1] if timed else None


def measure(subjects: list[Subject], stores: Stores, *, rounds: int, kinds: str) -> Pages:
    """Every subject in its own process, all of them alive at once; each round runs every batch once."""
    pages = Pages()
    operations = [operation for operation in OPERATIONS if operation[1] in kinds]
    with ExitStack() as stack:
        batches: list[tuple[Worker, Operation, int]] = []
        for subject in subjects:
            try:
                worker = stack.enter_context(Worker(subject, stores))
                batches += [(worker, *sized) for sized in _calibrate(worker, operations)]
                if subject.store == "redis" and stores.redis is not None:
                    pages.trips[subject.name] = _trips(worker, stores.redis)
            except MissingSubjectError as reason:
                pages.missing[subject.name] = str(reason)
                batches = [batch for batch in batches if batch[0].subject is not subject]
        for number in range(rounds):
            print(f"\rround {number + 1} of {rounds}", end="", file=sys.stderr, flush=True)
            random.shuffle(batches)
            for worker, operation, requests in batches:
                _batch(pages, worker, operation, requests)
        print(file=sys.stderr)
    return pages


def _batch(pages: Pages, worker: Worker, operation: Operation, requests: int) -> None:
    name = worker.subject.name
    if name in pages.missing:
        return
    try:
        taken = worker.ask(operation[0], kind=operation[1], requests=requests)
    except MissingSubjectError as reason:
        pages.missing[name] = f"{operation[0]}: {reason}"
        pages.times.pop(name, None)
    else:
        pages.times[name].setdefault(operation, []).append(taken)


def _calibrate(worker: Worker, operations: list[Operation]) -> list[tuple[Operation, int]]:
    """How many requests make a batch, after warming up; operations that the subject does not have are left out."""
    found = []
    for operation in operations:
        what, kind = operation
        if what == "not_modified" and worker.subject.kind == "bare":
            continue
        requests = 10
        worker.ask(what, kind=kind, requests=requests)
        taken = worker.ask(what, kind=kind, requests=requests)
        if taken is not None:
            wanted = max(5, min(5000, int(_BATCH / (taken * 1e-6))))
            found.append((operation, min(wanted, _MISSES) if what == "miss" else wanted))
    return found


def _trips(worker: Worker, port: int) -> float:
    """Commands that the Redis server processed for one hit; the measurement's own INFO is left out."""
    before = redis_calls(port)
    worker.ask("hit", kind="s", requests=100)
    return (redis_calls(port) - before - 1) / 100


def table(pages: Pages) -> Table:
    """Aligned medians, with the ratios to the bare application and to the best peer."""
    rows = []
    for subject in SUBJECTS.values():
        if subject.name not in pages.times:
            continue
        hit = ("hit", "s")
        bare = f"bare-{subject.interface}"
        peer = pages.best_peer(subject.interface, subject.store, hit) if subject.kind == "own" else None
        cells: list[float | str | None] = [subject.name]
        cells += [pages.median(subject.name, operation) for operation in _COLUMNS]
        cells += [pages.ratio(subject.name, bare, hit), pages.ratio(subject.name, peer, hit) if peer else None]
        cells += [pages.trips.get(subject.name)]
        rows.append(cells)
    return Table("Pages: µs, median", ["subject", *_COLUMNS.values(), "x bare", "x best peer", "commands"], rows)


def goals(pages: Pages) -> list[Goal]:
    """What a hit, a miss and a 304 must not cost more than."""
    small, large, miss, validated = ("hit", "s"), ("hit", "l"), ("miss", "s"), ("not_modified", "s")
    found: list[Goal] = []
    for interface, bare, proto, peer in (("asgi", 9.0, 2.0, 0.17), ("wsgi", 12.0, 2.2, 0.045)):
        own, over, lower = f"cachemw-{interface}-locmem", f"bare-{interface}", f"proto-{interface}-full"
        best = pages.best_peer(interface, "locmem", small)
        found += [
            Goal(f"{interface} hit, locmem, x bare", pages.ratio(own, over, small), bare),
            Goal(f"{interface} hit, locmem, x prototype", pages.ratio(own, lower, small), proto),
            Goal(f"{interface} hit, locmem, x best peer", pages.ratio(own, best, small) if best else None, peer),
            Goal(f"{interface} hit, locmem, 1 MB over 1 KB", pages.ratio(own, own, large, small), 1.1),
            Goal(f"{interface} miss, locmem, µs over bare", pages.difference(own, over, miss), 12.0),
            Goal(f"{interface} 304, locmem, µs over a hit", pages.difference(own, own, validated, small), 1.5),
        ]
    for interface, peer in (("asgi", 0.38), ("wsgi", 0.2)):
        own, lower = f"cachemw-{interface}-redis", f"proto-{interface}-rawredis"
        best = pages.best_peer(interface, "redis", small)
        found += [
            Goal(f"{interface} hit, redis, x prototype", pages.ratio(own, lower, small), 1.35),
            Goal(f"{interface} hit, redis, x best peer", pages.ratio(own, best, small) if best else None, peer),
            Goal(f"{interface} hit, redis, round trips", pages.trips.get(own), 1.0),
            Goal(f"{interface} miss, redis, x prototype", pages.ratio(own, lower, miss), 1.5),
        ]
    for store, limit in (("memcached", 1.35), ("file", 1.5), ("sqlite", 1.5)):
        own, lower = f"cachemw-wsgi-{store}", f"proto-wsgi-{store}"
        best = pages.best_peer("wsgi", store, small)
        found += [
            Goal(f"wsgi hit, {store}, x prototype", pages.ratio(own, lower, small), limit),
            Goal(f"wsgi hit, {store}, 1 MB, x prototype", pages.ratio(own, lower, large), limit),
        ]
        if best:
            found.append(Goal(f"wsgi hit, {store}, x best peer", pages.ratio(own, best, small), 0.25))
    for interface, limit in (("asgi", 2.0), ("wsgi", 2.2)):
        own, lower = f"cachemw-{interface}-tiered", f"proto-{interface}-full"
        found.append(Goal(f"{interface} hit, tiered, x prototype in memory", pages.ratio(own, lower, small), limit))
    return found
