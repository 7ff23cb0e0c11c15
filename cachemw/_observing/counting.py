"""Counting: how often there was which outcome, how long it took, and how much was sent.

Rule 1: a request takes no lock. It leaves its record in a queue, an operation that the interpreter makes atomic. Of the
        requests that find the queue long, one counts what is in it, and the others go on.
Rule 2: whoever asks for the figures gets all records that were left before.
Rule 3: memory is bounded, whatever other caches on the way call themselves.
Rule 4: the child of a fork begins at zero.
"""

from __future__ import annotations

import threading
import time
from bisect import bisect_left
from collections import deque
from collections.abc import Callable
from types import MappingProxyType
from typing import TYPE_CHECKING, Final

from cachemw._forks import Forkable
from cachemw._observing.figures import BUCKETS, HOUR, Figures, Minute, Snapshot
from cachemw._observing.outcomes import ANSWERED, LOOKUPS, Outcome, outcome_of

if TYPE_CHECKING:
    from opentelemetry.metrics import Meter
    from prometheus_client.registry import Collector

__all__ = ["Metrics"]

_MANY: Final = 256  # records; counting so many takes a tenth of a millisecond
_SERIES: Final = 256  # what a site has of its own are some twenty
_SHORT: Final = 256  # characters of a field that is worth remembering
_KNOWN: Final = 2048  # fields; pages of one lifetime have as many different ones as that has seconds


class _Series:
    """The sums of one outcome."""

    __slots__ = ("answered", "buckets", "looked_up", "octets", "requests", "seconds")

    def __init__(self, outcome: str) -> None:
        self.answered = outcome in ANSWERED
        self.looked_up = outcome in LOOKUPS
        self.requests = 0
        self.octets = 0
        self.seconds = 0.0
        self.buckets = [0] * (len(BUCKETS) + 1)


#: The Cache-Status of a response, is it a 304, when it was over, the seconds until its head, the octets of its body.
_Record = tuple[str | Outcome | None, bool, float, float, int]


class Metrics(Forkable):
    """Counts requests by what the cache did for them, with their seconds and octets, in this process.

        metrics = Metrics()
        app = ObservingMiddleware(CacheMiddleware(app), metrics=metrics)
        metrics.snapshot().hit_ratio

    An `ObservingMiddleware` feeds it; several may feed one. `snapshot` gives the figures; `prometheus` and
    `opentelemetry` hand them to those libraries. It may be used by any number of threads and tasks; after a fork the
    child's begins at zero.

    clock: a function without arguments that returns seconds; left out: `time.monotonic`
    """

    def __init__(self, *, clock: Callable[[], float] = time.monotonic) -> None:
        self.clock = clock
        super().__init__()

    def _reset(self) -> None:
        self._began = time.time()
        self._lock = threading.Lock()
        self._queue: deque[_Record] = deque()
        self._series: dict[Outcome, _Series] = {}
        #: By what was said in Cache-Status: of 304s the second.
        self._known: tuple[dict[str | Outcome | None, _Series], ...] = ({}, {})
        self._minutes: dict[float, list[int]] = {}

    def observe(
        self,
        cache_status: str | Outcome | None,
        seconds: float,
        octets: int,
        not_modified: bool = False,
        at: float | None = None,
    ) -> None:
        """Count one response, as `ObservingMiddleware` does.

        cache_status  the last line of its Cache-Status, or an `Outcome`; None: there is no such field
        seconds       from the request to the response's status and fields
        octets        of the body that were sent
        not_modified  its status is 304
        at            when, by `clock`; None: now
        """
        queue = self._queue
        queue.append((cache_status, not_modified, self.clock() if at is None else at, seconds, octets))
        if len(queue) >= _MANY:
            self._relieve()

    def _relieve(self) -> None:
        """Count what is in the queue, if nobody does. It may be this very thread, where a finalizer ends a request."""
        if self._lock.acquire(blocking=False):
            try:
                self._count()
            finally:
                self._lock.release()

    def _count(self) -> None:
        """Count what is in the queue now, with the lock held."""
        queue, known, minute, sums = self._queue, self._known, None, [0, 0, 0]
        for _ in range(len(queue)):
            status, not_modified, at, seconds, octets = queue.popleft()
            series = known[not_modified].get(status) or self._learn(status, not_modified)
            series.requests += 1
            series.octets += octets
            series.seconds += seconds
            series.buckets[bisect_left(BUCKETS, seconds)] += 1
            if at // 60 != minute:
                minute = at // 60
                sums = self._sums(minute)
            sums[0] += 1
            sums[1] += series.answered
            sums[2] += series.looked_up

    def _learn(self, status: str | Outcome | None, not_modified: bool) -> _Series:
        """The series for a Cache-Status that is not known yet; several share one if there are too many."""
        outcome = status if isinstance(status, Outcome) else outcome_of(status, not_modified)
        if outcome not in self._series and len(self._series) >= _SERIES:
            outcome = Outcome("other", outcome.name, "")
        series = self._series.setdefault(outcome, _Series(outcome.name))
        known = self._known[not_modified]
        if len(known) >= _KNOWN:
            known.clear()
        if status is None or len(status) <= _SHORT:
            known[status] = series
        return series

    def _sums(self, minute: float) -> list[int]:
        """The sums of a minute, by its number; those that have passed the hour are forgotten."""
        sums = self._minutes.get(minute)
        if sums is None:
            sums = self._minutes[minute] = [0, 0, 0]
            for old in [one for one in self._minutes if one <= minute - HOUR]:
                del self._minutes[old]
        return sums

    def snapshot(self) -> Snapshot:
        """The figures since the start of this process, as a value that does not change."""
        with self._lock:
            self._count()
            now = self.clock() // 60
            minutes = tuple(Minute(*self._minutes.get(now - back, (0, 0, 0))) for back in reversed(range(HOUR)))
            series = {
                outcome: Figures(one.requests, one.octets, one.seconds, tuple(one.buckets))
                for outcome, one in self._series.items()
            }
        return Snapshot(since=self._began, series=MappingProxyType(series), minutes=minutes)

    def prometheus(self) -> Collector:
        """A collector for `prometheus_client`: `REGISTRY.register(metrics.prometheus())`.

        It has `cachemw_requests_total` and `cachemw_response_bytes_total` (counters), and
        `cachemw_request_duration_seconds` (a histogram of the time until a response's status and fields), each with the
        labels `cache` and `outcome`, the first also with `reason`.

        Raises: ImproperlyConfigured without `prometheus_client`, which the extra `prometheus` installs.
        """
        from cachemw._observing.exports import collector

        return collector(self)

    def opentelemetry(self, meter: Meter | None = None) -> None:
        """Have an OpenTelemetry meter observe the figures; without one, that of the global provider.

        There are `cachemw.requests`, `cachemw.response.size` (octets) and `cachemw.request.duration` (seconds, summed),
        observable counters with the attributes `cache` and `outcome`, the first also with `reason`.

        Raises: ImproperlyConfigured without `opentelemetry`, which the extra `opentelemetry` installs.
        """
        from cachemw._observing.exports import instrument

        instrument(self, meter)
