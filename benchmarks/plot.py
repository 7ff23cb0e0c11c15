"""Pictures of a run; left out, with a word, where matplotlib is not installed."""

from __future__ import annotations

import sys
from typing import Any, Final

from benchmarks.pages import Pages
from benchmarks.report import RESULTS, figure
from benchmarks.subjects import SUBJECTS

__all__ = ["pages"]

_COLOURS: Final = {"bare": "#9a9a9a", "prototype": "#d8b365", "own": "#01665e", "peer": "#8c510a"}
_LABELS: Final = {"bare": "application alone", "prototype": "lower bound", "own": "cachemw", "peer": "peers"}


def _axes(width: float, height: float) -> tuple[Any, Any] | None:
    try:
        import matplotlib
    except ImportError:
        print("no plot: matplotlib is not installed (pip install cachemw[bench])", file=sys.stderr)
        return None
    matplotlib.use("Agg")
    from matplotlib import pyplot

    return pyplot.subplots(figsize=(width, height), layout="constrained")


def pages(found: Pages) -> None:
    """µs of a hit at 1 KB, one bar a subject, on a logarithmic scale: results/pages.png."""
    operation = ("hit", "s")
    timed = [(SUBJECTS[name], found.median(name, operation)) for name in found.times]
    bars = sorted(((subject, time) for subject, time in timed if time), key=lambda bar: -bar[1])
    drawn = _axes(9, 1.2 + 0.26 * len(bars))
    if drawn is None or not bars:
        return
    canvas, axes = drawn
    for row, (subject, time) in enumerate(bars):
        axes.barh(row, time, color=_COLOURS[subject.kind], height=0.72)
        axes.text(time * 1.06, row, f"{figure(time)} µs", va="center", fontsize=8)
    axes.set_yticks(range(len(bars)), [subject.name for subject, _ in bars], fontsize=8)
    axes.set_xscale("log")
    axes.set_xlim(0.1, max(time for _, time in bars) * 3)
    axes.set_ylim(-0.6, len(bars) - 0.4)
    axes.set_xlabel("µs for a hit of 1 KB in process, median (logarithmic)")
    axes.spines[["top", "right"]].set_visible(False)
    kinds = {subject.kind for subject, _ in bars}
    handles = [axes.barh(0, 0, color=_COLOURS[kind], label=label) for kind, label in _LABELS.items() if kind in kinds]
    axes.legend(handles=handles, loc="upper right", fontsize=8, frameon=False)
    canvas.savefig(RESULTS / "pages.png", dpi=130)
