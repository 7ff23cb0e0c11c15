"""Where the microseconds go: a sampler, which unlike a tracer does not make what calls much look slow."""

from __future__ import annotations

import os
import signal
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from types import FrameType
from typing import Final

__all__ = ["Samples", "sample"]

_INTERVAL: Final = 1e-3  # seconds of CPU between two samples
_OURS: Final = "cachemw" + os.sep
_HERE: Final = os.path.dirname(os.path.dirname(os.path.abspath(__file__))) + os.sep


@dataclass
class Samples:
    """How often each function was running itself (`own`), or itself or what it called (`inclusive`)."""

    own: Counter[str] = field(default_factory=Counter)
    inclusive: Counter[str] = field(default_factory=Counter)
    total: int = 0

    def report(self, per_request: float, *, rows: int = 32) -> str:
        """µs of a request by function, the largest inclusive share first, given what a request takes."""
        unit = per_request / max(1, self.total)
        lines = [f"{self.total} samples, {per_request:.1f} µs a request", "inclusive     own  function"]
        shown = [(name, count) for name, count in self.inclusive.most_common() if name.startswith(_OURS)]
        for name, count in shown[:rows]:
            lines.append(f"{count * unit:9.2f} {self.own[name] * unit:7.2f}  {name}")
        lines.append("              by own time")
        lines += [f"          {count * unit:7.2f}  {name}" for name, count in self.own.most_common(rows // 2)]
        return "\n".join(lines)


def sample(work: Callable[[], object]) -> Samples:
    """Do the work, looking every millisecond of CPU at where it is."""
    samples = Samples()

    def look(signum: int, frame: FrameType | None) -> None:
        if frame is None:
            return
        samples.total += 1
        samples.own[_name(frame)] += 1
        seen = set()
        while frame is not None:
            seen.add(_name(frame))
            frame = frame.f_back
        samples.inclusive.update(seen)

    before = signal.signal(signal.SIGPROF, look)
    signal.setitimer(signal.ITIMER_PROF, _INTERVAL, _INTERVAL)
    try:
        work()
    finally:
        signal.setitimer(signal.ITIMER_PROF, 0)
        signal.signal(signal.SIGPROF, before)
    return samples


def _name(frame: FrameType) -> str:
    code = frame.f_code
    place = code.co_filename.removeprefix(_HERE)
    for root in ("site-packages", "python3"):
        place = place.rpartition(f"{os.sep}{root}")[2]
    return f"{place}:{code.co_firstlineno} {code.co_qualname}"
