"""`stores`: µs of the low-level operations, against the bare client of each store and against the peers."""

from __future__ import annotations

import random
import sys
from collections import defaultdict
from contextlib import ExitStack
from statistics import median
from typing import Final

from benchmarks.report import Cell, Goal, Table
from benchmarks.store_subjects import CLIENTS
from benchmarks.surroundings import MissingSubjectError, Stores, Worker

__all__ = ["goals", "measure", "table"]

OPERATIONS: Final = ("get", "set", "get_many", "set_many", "incr")
_BATCH: Final = 15e-3  # seconds

Times = dict[str, dict[str, list[float]]]


def measure(stores: Stores, *, rounds: int, only: str | None) -> tuple[Times, dict[str, str]]:
    """µs by subject and operation, one for each round."""
    times: Times = defaultdict(dict)
    missing: dict[str, str] = {}
    parts = only.split(",") if only else [""]
    with ExitStack() as stack:
        batches: list[tuple[Worker, str, int]] = []
        for subject in (subject for subject in CLIENTS.values() if any(part in subject.name for part in parts)):
            try:
                worker = stack.enter_context(Worker(subject, stores, module="benchmarks.store_worker"))
                for operation in OPERATIONS:
                    worker.ask("run", operation=operation, times=3)
                    taken = worker.ask("run", operation=operation, times=10)
                    if taken is not None:
                        batches.append((worker, operation, max(3, min(5000, int(_BATCH / (taken * 1e-6))))))
            except MissingSubjectError as reason:
                missing[subject.name] = str(reason)
                batches = [batch for batch in batches if batch[0].subject is not subject]
        for number in range(rounds):
            print(f"\rround {number + 1} of {rounds}", end="", file=sys.stderr, flush=True)
            random.shuffle(batches)
            for worker, operation, count in batches:
                if worker.subject.name in missing:
                    continue
                try:
                    taken = worker.ask("run", operation=operation, times=count)
                    times[worker.subject.name].setdefault(operation, []).append(taken)
                except MissingSubjectError as reason:
                    missing[worker.subject.name] = f"{operation}: {reason}"
                    times.pop(worker.subject.name, None)
        print(file=sys.stderr)
    return times, missing


def _ratio(times: Times, name: str, operation: str, other: str | None = None) -> float | None:
    """To the store's bare client, the median of the ratios within each round."""
    other = other or next(subject.name for subject in CLIENTS.values() if subject.store == CLIENTS[name].store)
    above, below = times.get(name, {}).get(operation), times.get(other, {}).get(operation)
    return median(a / b for a, b in zip(above, below, strict=True)) if above and below else None


def table(times: Times) -> Table:
    rows: list[list[Cell]] = []
    for name, subject in CLIENTS.items():
        if name not in times:
            continue
        row: list[Cell] = [name, subject.store]
        for operation in OPERATIONS:
            taken = times[name].get(operation)
            row += [median(taken) if taken else None, _ratio(times, name, operation)]
        rows.append(row)
    columns = ["subject", "store"]
    for operation in OPERATIONS:
        columns += [operation, "x raw"]
    return Table("Low-level API: µs, median; x raw: to the store's bare client", columns, rows)


def goals(times: Times) -> list[Goal]:
    """Limits of the ratio to the bare client, and for immutable values in local memory of the time itself."""
    limits = {
        "cachemw-locmem": {"get": 1.4, "set": 1.6},
        "cachemw-redis": {"get": 0.8, "set": 0.8, "get_many": 1.8, "set_many": 0.45, "incr": 1.3},
        "cachemw-pymemcache": {"get": 1.3, "set": 1.3, "get_many": 1.8, "set_many": 1.3, "incr": 1.3},
        "cachemw-sqlite": {"get": 1.8, "set": 1.3, "get_many": 2.5, "set_many": 1.5, "incr": 1.3},
    }
    found = [
        Goal(f"{name} {operation}, x raw", _ratio(times, name, operation), limit)
        for name, by_operation in limits.items()
        for operation, limit in by_operation.items()
    ]
    for operation in ("get", "set"):
        found.append(
            Goal(
                f"cachemw-redis-async {operation}, x redis-py async",
                _ratio(times, "cachemw-redis-async", operation, "raw-redis-py-async"),
                0.8,
            )
        )
    text = times.get("cachemw-locmem-text", {}).get("get")
    found.append(Goal("cachemw-locmem get of an immutable value, µs", median(text) if text else None, 1.0))
    for name, subject in CLIENTS.items():
        if subject.kind == "own" and name in times:
            found += _faster_than_peers(times, name)
    return found


def _faster_than_peers(times: Times, name: str) -> list[Goal]:
    """An async client is held against the async peers, a sync one against the sync ones."""
    found = []
    for operation in OPERATIONS:
        peers = [
            (median(times[peer.name][operation]), peer.name)
            for peer in CLIENTS.values()
            if peer.kind == "peer"
            and peer.store == CLIENTS[name].store
            and operation in times.get(peer.name, {})
            and peer.asynchronous == CLIENTS[name].asynchronous
            and not peer.by_reference
        ]
        if peers:
            best = min(peers)[1]
            found.append(Goal(f"{name} {operation}, x {best}", _ratio(times, name, operation, best), 1.0))
    return found
