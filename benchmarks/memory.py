"""`memory`: resident bytes for a page of 4 KB, of fifty thousand pages."""

from __future__ import annotations

from typing import Final

from benchmarks.report import Cell, Goal, Table
from benchmarks.subjects import SUBJECTS
from benchmarks.surroundings import MissingSubjectError, Stores, Worker

__all__ = ["goals", "measure", "table"]

_NAMES: Final = (
    "dict-bodies",
    "dict-pages",
    "cachemw-wsgi-locmem",
    "cachemw-asgi-locmem",
    "proto-wsgi-full",
    "proto-asgi-full",
    "django-wsgi-locmem",
    "flask-caching-locmem",
    "asgi-caches-locmem",
    "starlette-caches-locmem",
    "aiocache-locmem",
    "cashews-locmem",
    "fastapi-cache2-locmem",
)


def measure(stores: Stores, *, pages: int) -> tuple[dict[str, float], dict[str, str]]:
    """Bytes by subject, and why the others have none. One process after the other: memory is not a matter of rounds."""
    found: dict[str, float] = {}
    missing: dict[str, str] = {}
    for name in _NAMES:
        try:
            with Worker(SUBJECTS[name], stores) as worker:
                found[name] = worker.ask("memory", kind="p", requests=pages)
        except MissingSubjectError as reason:
            missing[name] = str(reason)
    return found, missing


def table(found: dict[str, float]) -> Table:
    rows: list[list[Cell]] = [
        [name, size, size / found["dict-bodies"], size / found["dict-pages"]] for name, size in found.items()
    ]
    return Table("Memory: resident bytes per page of 4 KB", ["subject", "bytes", "x bodies", "x pages"], rows)


def goals(found: dict[str, float]) -> list[Goal]:
    """Against a dictionary of headers and bodies, and against one that keeps no headers at all."""
    goals = []
    for interface in ("wsgi", "asgi"):
        own = found.get(f"cachemw-{interface}-locmem")
        for base in ("dict-pages", "dict-bodies"):
            ratio = own / found[base] if own else None
            goals.append(Goal(f"{interface} page in local memory, x {base}", ratio, 1.2))
    return goals
