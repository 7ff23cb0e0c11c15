"""Exports: the figures for Prometheus and for OpenTelemetry, where their packages are installed.

Both ask for the figures when they are read: nothing is done for them at a request.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from itertools import accumulate
from typing import TYPE_CHECKING, Any, Final

from cachemw._observing.figures import BUCKETS, Figures, Snapshot
from cachemw.errors import ImproperlyConfigured

if TYPE_CHECKING:
    from opentelemetry.metrics import CallbackOptions, Meter, Observation
    from prometheus_client.metrics_core import Metric
    from prometheus_client.registry import Collector

    from cachemw._observing.counting import Metrics

__all__ = ["collector", "instrument"]

_REQUESTS: Final = "Requests by what the cache did for them."
_OCTETS: Final = "Octets of response bodies sent."
_SECONDS: Final = "Seconds from a request to the status and the fields of its response."
_BOUNDS: Final = (*map(str, BUCKETS), "+Inf")


def _missing(package: str, extra: str) -> ImproperlyConfigured:
    return ImproperlyConfigured(f"{package} is not installed: pip install 'cachemw[{extra}]'")


def _by_outcome(snapshot: Snapshot) -> dict[tuple[str, str], Figures]:
    """The figures by cache and outcome, whatever the reasons."""
    sums: dict[tuple[str, str], Figures] = {}
    for (cache, name, _), one in snapshot.series.items():
        sums[cache, name] = sums.get((cache, name), Figures()) + one
    return sums


def collector(metrics: Metrics) -> Collector:
    """See `Metrics.prometheus`."""
    try:
        from prometheus_client.core import CounterMetricFamily, HistogramMetricFamily
        from prometheus_client.registry import Collector
    except ModuleNotFoundError:
        raise _missing("prometheus_client", "prometheus") from None

    class MetricsCollector(Collector):
        def describe(self) -> Iterable[Metric]:
            return ()  # the names are known, and need no figures

        def collect(self) -> Iterator[Metric]:
            snapshot = metrics.snapshot()
            requests = CounterMetricFamily("cachemw_requests", _REQUESTS, labels=["cache", "outcome", "reason"])
            for outcome, one in snapshot.series.items():
                requests.add_metric(outcome, one.requests)
            octets = CounterMetricFamily("cachemw_response_bytes", _OCTETS, labels=["cache", "outcome"])
            seconds = HistogramMetricFamily("cachemw_request_duration_seconds", _SECONDS, labels=["cache", "outcome"])
            for labels, one in _by_outcome(snapshot).items():
                octets.add_metric(labels, one.octets)
                buckets = [(bound, float(count)) for bound, count in zip(_BOUNDS, accumulate(one.buckets), strict=True)]
                seconds.add_metric(labels, buckets, one.seconds)
            yield from (requests, octets, seconds)

    return MetricsCollector()


def instrument(metrics: Metrics, meter: Meter | None) -> None:
    """See `Metrics.opentelemetry`."""
    try:
        from opentelemetry.metrics import Observation, get_meter
    except ModuleNotFoundError:
        raise _missing("opentelemetry", "opentelemetry") from None

    def observing(value: Callable[[Figures], float]) -> list[Callable[[CallbackOptions], Iterable[Observation]]]:
        def observe(_: CallbackOptions) -> Iterable[Observation]:
            for (cache, name), one in _by_outcome(metrics.snapshot()).items():
                yield Observation(value(one), {"cache": cache, "outcome": name})

        return [observe]

    def requests(_: CallbackOptions) -> Iterable[Observation]:
        for outcome, one in metrics.snapshot().series.items():
            attributes: dict[str, Any] = dict(zip(("cache", "outcome", "reason"), outcome, strict=True))
            yield Observation(one.requests, attributes)

    meter = get_meter("cachemw") if meter is None else meter
    counter = meter.create_observable_counter
    counter("cachemw.requests", [requests], "{request}", _REQUESTS)
    counter("cachemw.response.size", observing(lambda one: one.octets), "By", _OCTETS)
    counter("cachemw.request.duration", observing(lambda one: one.seconds), "s", _SECONDS)
