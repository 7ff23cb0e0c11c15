"""Figures: what was counted, as values that do not change."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property, reduce
from itertools import accumulate
from operator import add
from types import MappingProxyType
from typing import Final, NamedTuple, Self

from cachemw._observing.outcomes import ANSWERED, HITS, LOOKUPS, MISSES, Outcome

__all__ = ["BUCKETS", "HOUR", "Figures", "Minute", "Snapshot"]

#: Upper bounds, in seconds: a hit from memory takes some ten microseconds, a page of a slow application seconds.
BUCKETS: Final = (
    *(0.000_005, 0.000_01, 0.000_025, 0.000_05, 0.000_1, 0.000_25, 0.000_5, 0.001, 0.002_5),
    *(0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0),
)
HOUR: Final = 60  # minutes


@dataclass(frozen=True)
class Figures:
    """Sums over some responses.

    requests  how many
    octets    of their bodies
    seconds   from each request to its response's status and fields, summed
    buckets   how many took at most as long as each of `BUCKETS`, and longer than the one before; last, how many longer
    """

    requests: int = 0
    octets: int = 0
    seconds: float = 0.0
    buckets: tuple[int, ...] = (0,) * (len(BUCKETS) + 1)

    def __add__(self, other: Figures) -> Figures:
        return Figures(
            self.requests + other.requests,
            self.octets + other.octets,
            self.seconds + other.seconds,
            tuple(map(add, self.buckets, other.buckets)),
        )

    @property
    def mean(self) -> float | None:
        """The mean of the seconds; None without requests."""
        return self.seconds / self.requests if self.requests else None

    def percentile(self, percent: float) -> float | None:
        """The seconds that so many percent of the responses took at most; None without requests.

        It is reckoned within a bucket, as Prometheus' `histogram_quantile` does; where it is beyond the last bound, it
        is that bound. Raises: ValueError for less than 0 and more than 100.
        """
        if not 0 <= percent <= 100:
            raise ValueError(f"a percentile is from 0 to 100, not {percent!r}")
        if not self.requests:
            return None
        rank, lower = self.requests * percent / 100, 0.0
        for bound, count, total in zip(BUCKETS, self.buckets, accumulate(self.buckets), strict=False):
            if count and total >= rank:
                return lower + (bound - lower) * max(0.0, rank - total + count) / count
            lower = bound
        return lower


class Minute(NamedTuple):
    """A minute of the last hour: all requests, those answered without the application, and those looked up."""

    requests: int
    hits: int
    lookups: int


@dataclass(frozen=True, kw_only=True)
class Snapshot:
    """What a `Metrics` had counted when it was asked.

    since    when it began to count, by `time.time`
    series   `Figures` by outcome: a tuple of the cache's name, the outcome, and the reason
    minutes  the last 60 minutes, each a tuple of requests, hits and look-ups; the present one is the last
    """

    since: float
    series: Mapping[Outcome, Figures]
    minutes: tuple[Minute, ...]

    def of(self, cache: str) -> Self:
        """The same for the responses of one cache, by its name in Cache-Status; the minutes are those of all."""
        series = {outcome: one for outcome, one in self.series.items() if outcome.cache == cache}
        return type(self)(since=self.since, series=MappingProxyType(series), minutes=self.minutes)

    def figures(self, *outcomes: str) -> Figures:
        """The sums over these outcomes; without any, over all."""
        chosen = (one for outcome, one in self.series.items() if not outcomes or outcome.name in outcomes)
        return reduce(add, chosen, Figures())

    @cached_property
    def outcomes(self) -> Mapping[str, int]:
        """How many requests there were, by outcome."""
        return MappingProxyType({name: self.figures(name).requests for _, name, _ in self.series})

    @property
    def requests(self) -> int:
        """How many requests there were."""
        return self.figures().requests

    @property
    def hit_ratio(self) -> float | None:
        """The share of look-ups for which the application was not asked, from 0 to 1; None if there were none."""
        looked_up = self.figures(*LOOKUPS).requests
        return self.figures(*ANSWERED).requests / looked_up if looked_up else None

    @property
    def hits(self) -> Figures:
        """Of the responses that came from the store at once: `hit`, `not-modified` and `stale`."""
        return self.figures(*HITS)

    @property
    def misses(self) -> Figures:
        """Of those for which the application was asked: `miss`, `validated`, `stale-if-error` and `store-error`."""
        return self.figures(*MISSES)
