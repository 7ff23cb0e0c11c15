"""`stampede`: 200 requests at once for a page that nobody has, from an application that takes 200 ms."""

from __future__ import annotations

from contextlib import ExitStack
from typing import Any, Final

from benchmarks.report import Cell, Goal, Table
from benchmarks.subjects import Subject
from benchmarks.surroundings import MissingSubjectError, Stores, Worker

__all__ = ["REQUESTS", "goals", "measure", "table"]

REQUESTS: Final = 200
_DELAY: Final = 0.2  # seconds
_PROCESSES: Final = 4

Found = dict[str, dict[str, float]]


def measure(subjects: list[Subject], stores: Stores, *, runs: int) -> tuple[Found, dict[str, str]]:
    """The worst of `runs`, by subject; those over a shared store also with the requests spread over four processes."""
    found: Found = {}
    missing: dict[str, str] = {}
    for subject in subjects:
        if subject.kind in ("bare", "prototype"):
            continue
        for processes in (1, _PROCESSES) if subject.store in ("redis", "memcached") else (1,):
            name = subject.name if processes == 1 else f"{subject.name} ({processes} processes)"
            try:
                with ExitStack() as stack:
                    workers = [stack.enter_context(Worker(subject, stores)) for _ in range(processes)]
                    for worker in workers:
                        worker.ask("prepare_for_crowd")
                    found[name] = _worst(_run(workers, f"{processes}-{run}-{subject.name}") for run in range(runs))
            except MissingSubjectError as reason:
                missing[name] = str(reason)
    return found, missing


def _run(workers: list[Worker], page: str) -> dict[str, float]:
    for worker in workers:
        worker.tell("stampede", requests=REQUESTS // len(workers), delay=_DELAY, page=page)
    answers = [worker.answer() for worker in workers]
    return {
        "calls": sum(answer["calls"] for answer in answers),
        "failures": sum(answer["failures"] for answer in answers),
        "seconds": max(answer["seconds"] for answer in answers),
    }


def _worst(runs: Any) -> dict[str, float]:
    found = list(runs)
    return {key: max(run[key] for run in found) for key in found[0]}


def table(found: Found) -> Table:
    rows: list[list[Cell]] = [
        [name, row["calls"], row["failures"], row["seconds"] * 1000] for name, row in found.items()
    ]
    title = f"Stampede: {REQUESTS} requests at once for a cold page, application {_DELAY * 1000:.0f} ms, worst run"
    return Table(title, ["subject", "calls", "failures", "ms"], rows)


def goals(found: Found) -> list[Goal]:
    """One call of the application, no failure, and at most 60 ms more than the application takes."""
    goals = []
    for name, row in found.items():
        if name.startswith("cachemw"):
            goals += [
                Goal(f"{name}: calls", row["calls"], 1),
                Goal(f"{name}: failures", row["failures"], 0),
                Goal(f"{name}: ms", row["seconds"] * 1000, (_DELAY + 0.06) * 1000),
            ]
    return goals
