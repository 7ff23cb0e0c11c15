"""What a run found: aligned tables, goals with pass or miss, a JSON file and plots in benchmarks/results/."""

from __future__ import annotations

import json
import platform
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Final

__all__ = ["RESULTS", "Cell", "Goal", "Table", "figure", "write"]

RESULTS: Final = Path(__file__).with_name("results")

Cell = float | str | None


@dataclass(frozen=True, slots=True)
class Goal:
    """A measured ratio or difference and what it must not exceed (`at_least`: fall below)."""

    name: str
    measured: float | None
    limit: float
    at_least: bool = False

    @property
    def met(self) -> bool | None:
        """None where it could not be measured."""
        if self.measured is None:
            return None
        return self.measured >= self.limit if self.at_least else self.measured <= self.limit

    def __str__(self) -> str:
        verdict = {True: "pass", False: "MISS", None: "not measured"}[self.met]
        return f"{self.name:44} {figure(self.measured):>8} {'>=' if self.at_least else '<='} {self.limit:<6g} {verdict}"


def figure(value: Cell) -> str:
    """Three significant digits, as the tables have them."""
    if value is None:
        return "-"
    if isinstance(value, str):
        return value
    if abs(value) >= 1000:
        return f"{value:,.0f}"
    return f"{value:.3g}" if abs(value) >= 0.01 or not value else f"{value:.4f}"


@dataclass(frozen=True, slots=True)
class Table:
    """Rows of figures under a title."""

    title: str
    columns: Sequence[str]
    rows: Sequence[Sequence[Cell]]

    def __str__(self) -> str:
        cells = [list(self.columns), *([figure(cell) for cell in row] for row in self.rows)]
        widths = [max(len(row[column]) for row in cells) for column in range(len(self.columns))]
        lines = [
            "  ".join(
                text.ljust(width) if column == 0 else text.rjust(width)
                for column, (text, width) in enumerate(zip(row, widths, strict=True))
            )
            for row in cells
        ]
        return "\n".join([self.title, lines[0], "-" * len(lines[0]), *lines[1:]])


def write(name: str, table: Table, goals: Sequence[Goal], missing: dict[str, str], raw: Any) -> Path:
    """Print a section and keep it as results/NAME.json; returns the file."""
    print(f"\n{table}")
    for goal in goals:
        print(goal)
    for subject, reason in missing.items():
        print(f"not measured: {subject}: {reason}")
    RESULTS.mkdir(exist_ok=True)
    path = RESULTS / f"{name}.json"
    content = {
        "measured": datetime.now(UTC).isoformat(timespec="seconds"),
        "python": platform.python_version(),
        "machine": platform.platform(),
        "table": asdict(table),
        "goals": [asdict(goal) | {"met": goal.met} for goal in goals],
        "missing": missing,
        "raw": raw,
    }
    path.write_text(json.dumps(content, indent=1))
    return path
