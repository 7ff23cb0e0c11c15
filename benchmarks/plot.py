"""Pictures of a run; left out, with a word, where matplotlib is not installed."""

from __future__ import annotations

import sys
from typing import Any, Final

from benchmarks.pages import Pages
from benchmarks.report import RESULTS, figure
from benchmarks.subjects import SUBJECTS

__all__ = ["pages"]

_COLOURS: Final = {"bare": "#9a9a9a", "prototype": "#d8b365", "own": "#01665e", "peer": "#8c510a"}
_LABELS: Final = {
    "bare": "the application alone",
    "prototype": "a prototype of the bare decision",
    "own": "cachemw",
    "peer": "other libraries",
}


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
    """µs of a hit at 1 KB, a point a subject, as bars have no length on a logarithmic scale: results/pages.png."""
    operation = ("hit", "s")
    timed = [(SUBJECTS[name], found.median(name, operation)) for name in found.times]
    points = sorted(((subject, time) for subject, time in timed if time), key=lambda point: -point[1])
    drawn = _axes(9, 1.5 + 0.26 * len(points))
    if drawn is None or not points:
        return
    canvas, axes = drawn
    for kind, label in _LABELS.items():
        own = [(time, row) for row, (subject, time) in enumerate(points) if subject.kind == kind]
        if own:
            axes.scatter(*zip(*own, strict=True), color=_COLOURS[kind], s=36, label=label, zorder=2)
    for row, (_, time) in enumerate(points):
        axes.text(time * 1.15, row, f"{figure(time)} µs", va="center", fontsize=8)
    axes.set_yticks(range(len(points)), [subject.name for subject, _ in points], fontsize=8)
    axes.set_xscale("log")
    axes.xaxis.set_major_formatter("{x:g}")
    axes.set_xlim(min(time for _, time in points) / 2, max(time for _, time in points) * 4)
    axes.set_ylim(-0.6, len(points) - 0.4)
    axes.set_xlabel("µs for a hit of 1 KB in process, median of the rounds (logarithmic scale; less is better)")
    axes.grid(axis="y", color="#e6e6e6", linewidth=0.8, zorder=0)
    axes.set_axisbelow(True)
    axes.spines[["top", "right"]].set_visible(False)
    axes.legend(loc="lower center", bbox_to_anchor=(0.5, 1), ncols=4, fontsize=8, frameon=False)
    canvas.savefig(RESULTS / "pages.png", dpi=130)
