"""Metrics: how outcomes are read, what is counted under threads and forks, and what Prometheus and OpenTelemetry get.

The stories of a cache that is observed, on both interfaces: tests/scenarios/test_observing.py.
"""

from __future__ import annotations

import asyncio
import gc
import os
import re
import sys
import threading
from collections.abc import Iterator
from io import BytesIO
from pathlib import Path
from typing import Any
from wsgiref.util import FileWrapper, setup_testing_defaults

import pytest
from hypothesis import given
from hypothesis import strategies as st
from opentelemetry.sdk.metrics import MeterProvider
from opentelemetry.sdk.metrics.export import InMemoryMetricReader
from prometheus_client import CollectorRegistry, generate_latest
from prometheus_client.parser import text_string_to_metric_families

from cachemw import ImproperlyConfigured, Metrics, ObservingMiddleware
from cachemw._observing.outcomes import outcome_of
from cachemw.observing import BUCKETS, OUTCOMES, Figures, Outcome

HIT = "cachemw; hit; ttl=60"
MISS = "cachemw; fwd=uri-miss; fwd-status=200; stored; ttl=60"


class Clock:
    """Seconds, which pass only when a test says so."""

    def __init__(self) -> None:
        self.now = 7200.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def metrics(clock: Clock) -> Metrics:
    return Metrics(clock=clock)


# -- outcomes ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("line", "outcome"),
    [
        (HIT, ("cachemw", "hit", "")),
        ("cachemw; hit; ttl=0", ("cachemw", "stale", "")),
        ("cachemw; hit; ttl=-3", ("cachemw", "stale", "")),
        ("cachemw; hit", ("cachemw", "hit", "")),
        ("cachemw; hit; ttl=5; collapsed", ("cachemw", "collapsed", "")),
        ("cachemw; fwd=uri-miss; fwd-status=200; stored; ttl=5; collapsed", ("cachemw", "miss", "")),
        ("other; fwd=uri-miss; collapsed", ("other", "collapsed", "")),
        (MISS, ("cachemw", "miss", "")),
        ("cachemw; fwd=uri-miss; fwd-status=200; detail=no-store", ("cachemw", "miss", "no-store")),
        ("cachemw; fwd=stale; fwd-status=304; stored", ("cachemw", "validated", "")),
        ("cachemw; fwd=stale; fwd-status=200; stored", ("cachemw", "miss", "")),
        ("cachemw; fwd=uri-miss; fwd-status=200; detail=store", ("cachemw", "store-error", "")),
        ("cachemw; fwd=method; fwd-status=200", ("cachemw", "bypass", "method")),
        ("cachemw; fwd=bypass; detail=guarded", ("cachemw", "bypass", "guarded")),
        ("origin; hit, cachemw; fwd=uri-miss; stored", ("cachemw", "miss", "")),
        ('"a cache"; hit; key="a, b; hit"', ("a cache", "hit", "")),
        ("cachemw; hit=?0; fwd=uri-miss", ("cachemw", "miss", "")),
        ("cachemw; hit=yes", ("cachemw", "miss", "")),
        ("cachemw", ("cachemw", "miss", "")),
        ("cachemw; hit; ttl=often", ("cachemw", "hit", "")),
        (f"{'x' * 100}; detail={'y' * 100}", ("x" * 64, "miss", "y" * 64)),
        (None, ("", "none", "")),
        ("", ("", "none", "")),
        ("cachemw; fwd=stale; fwd-status=500; ttl=-10", ("cachemw", "stale-if-error", "")),
        ("cachemw; fwd=stale; ttl=-10", ("cachemw", "stale-if-error", "")),
        ("cachemw; fwd=uri-miss; fwd-status=200; stored; ttl=0", ("cachemw", "miss", "")),
        ("cachemw; fwd=5; detail=:YWJj:", ("cachemw", "miss", "")),
        (":YWJj:; hit", ("", "none", "")),
        ("cachemw hit", ("", "none", "")),
        ("cachemw; hit,", ("", "none", "")),
        ("(cachemw); hit", ("", "none", "")),
        ("cachemw; hit; detail=é", ("", "none", "")),
        ("cachemw; hit; detail=€", ("", "none", "")),
        (f"cachemw; hit; key={'x' * 9000}", ("", "none", "")),
    ],
)
def test_an_outcome_is_what_the_last_member_says(line: str | None, outcome: tuple[str, str, str]) -> None:
    assert outcome_of(line) == outcome


@given(st.text() | st.text("chedfw -;=,()\"'ith01"), st.booleans())
def test_no_field_is_an_error(line: str, not_modified: bool) -> None:
    assert outcome_of(line, not_modified).name in OUTCOMES


def test_the_manual_names_every_outcome() -> None:
    text = (Path(__file__).parent.parent / "docs" / "observe.md").read_text()
    assert re.findall(r"^\| `([a-z-]+)` \|", text, re.M) == list(OUTCOMES)


# -- figures ----------------------------------------------------------------------------------------------------------


def test_percentiles_are_reckoned_within_a_bucket(metrics: Metrics) -> None:
    for seconds in [0.02] * 50 + [0.2] * 49 + [60.0]:
        metrics.observe(MISS, seconds, 10)
    misses = metrics.snapshot().misses
    assert misses.percentile(50) == pytest.approx(0.025)
    assert misses.percentile(75) == pytest.approx(0.1 + 0.15 * 25 / 49)
    assert misses.percentile(99) == pytest.approx(0.25)
    assert misses.percentile(100) == BUCKETS[-1]
    assert misses.percentile(0) == pytest.approx(0.01)
    assert misses.mean == pytest.approx((50 * 0.02 + 49 * 0.2 + 60) / 100)
    with pytest.raises(ValueError, match="from 0 to 100, not 101"):
        misses.percentile(101)


def test_a_time_on_a_bound_belongs_below_it(metrics: Metrics) -> None:
    metrics.observe(MISS, BUCKETS[3], 0)
    assert metrics.snapshot().misses.buckets[3] == 1


def test_of_nothing_there_is_neither_ratio_nor_percentile(metrics: Metrics) -> None:
    seen = metrics.snapshot()
    assert (seen.hit_ratio, seen.hits.percentile(50), seen.hits.mean, seen.requests) == (None, None, None, 0)
    assert seen.hits == Figures()


def test_each_cache_has_figures_of_its_own(metrics: Metrics) -> None:
    for line in (HIT, MISS, "shop; hit; ttl=5"):
        metrics.observe(line, 0.0, 1)
    seen = metrics.snapshot()
    assert (seen.requests, seen.of("shop").requests, seen.of("shop").hit_ratio) == (3, 1, 1.0)
    assert seen.of("cachemw").hit_ratio == 0.5
    assert seen.of("nobody").hit_ratio is None


def test_a_snapshot_does_not_change(metrics: Metrics) -> None:
    metrics.observe(HIT, 0.0, 1)
    before = metrics.snapshot()
    metrics.observe(HIT, 0.0, 1)
    assert (before.requests, metrics.snapshot().requests) == (1, 2)
    with pytest.raises(TypeError):
        before.series[Outcome("", "hit", "")] = Figures()  # type: ignore[index]
    with pytest.raises(TypeError):
        before.outcomes["hit"] = 7  # type: ignore[index]


def test_the_last_hour_is_told_by_minutes(metrics: Metrics, clock: Clock) -> None:
    metrics.observe(MISS, 0.0, 1)
    clock.now += 59 * 60
    metrics.observe(HIT, 0.0, 1)
    metrics.observe("cachemw; fwd=method", 0.0, 1)
    minutes = metrics.snapshot().minutes
    assert len(minutes) == 60
    assert (minutes[0], minutes[30], minutes[-1]) == ((1, 0, 1), (0, 0, 0), (2, 1, 1))
    clock.now += 60
    metrics.observe(HIT, 0.0, 1)
    assert metrics.snapshot().minutes[0] == (0, 0, 0)
    assert metrics.snapshot().minutes[-2:] == ((2, 1, 1), (1, 1, 1))
    clock.now += 86_400
    assert not any(minute.requests for minute in metrics.snapshot().minutes)


def test_a_request_counts_in_the_minute_of_its_answer_not_in_that_of_the_next_look(
    metrics: Metrics, clock: Clock
) -> None:
    metrics.observe(HIT, 0.0, 1)
    clock.now += 10 * 60
    assert metrics.snapshot().minutes[-11] == (1, 1, 1)


def test_fields_that_are_all_different_are_not_all_remembered(metrics: Metrics) -> None:
    """As with `cache_status_key`, or where a cache further in tells of the visitor."""
    for number in range(2500):
        metrics.observe(f'cachemw; hit; key="{number}"', 0.0, 1)
    for number in range(256):
        metrics.observe(f'cachemw; hit; key="{number:300}"', 0.0, 1, True)
    assert dict(metrics.snapshot().outcomes) == {"hit": 2500, "not-modified": 256}
    assert sum(map(len, metrics._known)) <= 2048


def test_what_others_call_themselves_does_not_fill_the_memory(metrics: Metrics) -> None:
    for number in range(1000):
        metrics.observe(f"cache-{number}; hit", 0.0, 1)
    seen = metrics.snapshot()
    assert len(seen.series) == 257
    assert seen.of("other").requests == 744
    assert seen.requests == 1000


# -- threads, forks, finalizers ---------------------------------------------------------------------------------------


def test_no_request_of_many_threads_is_lost() -> None:
    metrics = Metrics()
    switching = sys.getswitchinterval()
    sys.setswitchinterval(1e-5)
    looks: list[int] = []

    def visit() -> None:
        for _ in range(1500):
            metrics.observe(HIT, 0.001, 2)

    try:
        threads = [threading.Thread(target=visit) for _ in range(4)]
        for thread in threads:
            thread.start()
        while any(thread.is_alive() for thread in threads):
            looks.append(metrics.snapshot().requests)
            threads[0].join(0.001)
        for thread in threads:
            thread.join()
    finally:
        sys.setswitchinterval(switching)
    seen = metrics.snapshot()
    assert (seen.requests, seen.hits.octets, sum(seen.hits.buckets)) == (6000, 12_000, 6000)
    assert looks == sorted(looks)


def test_a_request_that_ends_in_a_finalizer_while_others_are_counted_waits_for_nobody(metrics: Metrics) -> None:
    """The collector may close an abandoned response at any time, also in the thread that counts."""
    with metrics._lock:
        for _ in range(1000):
            metrics.observe(HIT, 0.0, 1)
    assert metrics.snapshot().requests == 1000


def test_the_child_of_a_fork_begins_at_zero(metrics: Metrics) -> None:
    metrics.observe(HIT, 0.0, 1)
    metrics._lock.acquire()  # by a thread that is not in the child
    child = os.fork()
    if not child:
        os._exit(metrics.snapshot().requests)
    metrics._lock.release()
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
    assert metrics.snapshot().requests == 1


# -- what passes ------------------------------------------------------------------------------------------------------


def environ_of(**variables: Any) -> dict[str, Any]:
    environ: dict[str, Any] = {}
    setup_testing_defaults(environ)
    return {**environ, **variables}


def ask(app: Any, environ: dict[str, Any] | None = None) -> tuple[Any, list[Any]]:
    """The result of a WSGI application as it is, and what was said to start_response or written."""
    said: list[Any] = []

    def start_response(status: str, headers: Any, exc_info: Any = None) -> Any:
        said.append((status, headers))
        return said.append

    return app(environ or environ_of(), start_response), said


def test_a_list_is_passed_on_as_it_is(metrics: Metrics) -> None:
    body = [b"12", b"3"]

    def app(environ: Any, start_response: Any) -> list[bytes]:
        start_response("200 OK", [("cache-status", HIT)])
        return body

    assert ask(ObservingMiddleware(app, metrics=metrics))[0] is body
    assert metrics.snapshot().figures("hit").octets == 3


@pytest.mark.parametrize(("length", "octets"), [("7", 7), ("²", 0), ("", 0), ("9" * 5000, 0)])
def test_a_file_is_handed_to_the_server_as_it_is(metrics: Metrics, length: str, octets: int) -> None:
    file = FileWrapper(BytesIO(b"content"))

    def app(environ: Any, start_response: Any) -> FileWrapper:
        start_response("200 OK", [("Content-Type", "text/plain"), ("Content-Length", length)])
        return file

    observed = ObservingMiddleware(app, metrics=metrics)
    assert ask(observed, environ_of(**{"wsgi.file_wrapper": FileWrapper}))[0] is file
    assert metrics.snapshot().figures("none").octets == octets


def test_what_is_written_counts_and_a_second_head_replaces_the_first(metrics: Metrics) -> None:
    def app(environ: Any, start_response: Any) -> Iterator[bytes]:
        start_response("200 OK", [("Cache-Status", HIT)])
        try:
            raise OSError
        except OSError:
            write = start_response("500 Oh", [("Cache-Status", MISS)], sys.exc_info())
        write(b"123")
        yield b"45"

    body, said = ask(ObservingMiddleware(app, metrics=metrics))
    assert list(body) == [b"45"]
    body.close()
    body.close()
    assert said[-1] == b"123"
    assert dict(metrics.snapshot().outcomes) == {"miss": 1}
    assert metrics.snapshot().misses.octets == 5


def test_a_body_that_was_never_begun_is_an_answer_that_never_came(metrics: Metrics) -> None:
    closed = []

    class Body:
        def __iter__(self) -> Iterator[bytes]:
            raise AssertionError

        def close(self) -> None:
            closed.append(True)
            raise OSError("disk")

    body, _ = ask(ObservingMiddleware(lambda environ, start_response: Body(), metrics=metrics))
    with pytest.raises(OSError, match="disk"):
        body.close()
    assert closed == [True]
    assert dict(metrics.snapshot().outcomes) == {"aborted": 1}


def test_a_body_counts_when_it_has_ended_and_is_not_closed_yet(metrics: Metrics) -> None:
    def app(environ: Any, start_response: Any) -> Iterator[bytes]:
        start_response("200 OK", [("Cache-Status", HIT)])
        return iter([b"12", b"3"])

    body, _ = ask(ObservingMiddleware(app, metrics=metrics))
    assert metrics.snapshot().requests == 0
    assert b"".join(body) == b"123"
    assert metrics.snapshot().hits.octets == 3
    body.close()
    assert metrics.snapshot().requests == 1


def test_a_body_that_is_dropped_unread_counts_too(metrics: Metrics) -> None:
    def app(environ: Any, start_response: Any) -> Iterator[bytes]:
        start_response("200 OK", [("Cache-Status", HIT)])
        return iter([b"12"])

    body, _ = ask(ObservingMiddleware(app, metrics=metrics))
    del body
    gc.collect()
    assert metrics.snapshot().hits.requests == 1


def test_what_another_middleware_adds_further_out_is_not_ours(metrics: Metrics) -> None:
    """The list belongs to whoever gets it (PEP 3333), before the body is over."""

    def app(environ: Any, start_response: Any) -> Iterator[bytes]:
        start_response("200 OK", [("Cache-Status", HIT)])
        return iter([b""])

    body, said = ask(ObservingMiddleware(app, metrics=metrics))
    said[0][1].append(("Cache-Status", MISS))
    body.close()
    assert dict(metrics.snapshot().outcomes) == {"hit": 1}


def asgi(app: Any, scope: Any, fails: bool = False) -> list[Any]:
    """What an ASGI application sends."""
    sent: list[Any] = []

    async def send(message: Any) -> None:
        if fails and message["type"] == "http.response.body":
            raise OSError("the visitor has left")
        sent.append(message)

    asyncio.run(app(scope, None, send))
    return sent


@pytest.mark.parametrize("kind", ["websocket", "lifespan"])
def test_websockets_and_the_lifespan_pass_uncounted(metrics: Metrics, kind: str) -> None:
    async def app(scope: Any, receive: Any, send: Any) -> None:
        await send({"type": f"{kind}.accept"})

    assert asgi(ObservingMiddleware(app, metrics=metrics), {"type": kind}) == [{"type": f"{kind}.accept"}]
    assert metrics.snapshot().requests == 0


async def sends(scope: Any, receive: Any, send: Any) -> None:
    """The messages in the scope."""
    for message in scope["messages"]:
        await send(message)


def test_headers_that_can_be_read_once_are_passed_on(metrics: Metrics) -> None:
    headers = [(b"content-length", b"7"), (b"Cache-Status", HIT.encode())]
    start = {"type": "http.response.start", "status": 200, "headers": iter(headers)}
    path = {"type": "http.response.pathsend", "path": "/a"}
    scope = {"type": "http", "method": "GET", "messages": [start, path]}
    sent = asgi(ObservingMiddleware(sends, metrics=metrics), scope)
    assert sent == [{**start, "headers": headers}, path]
    assert metrics.snapshot().hits.octets == 7


def test_other_messages_and_missing_parts_are_passed_on(metrics: Metrics) -> None:
    messages: list[dict[str, Any]] = [
        {"type": "http.response.early_hint", "links": []},
        {"type": "http.response.start", "status": 200},
        {"type": "http.response.body"},
    ]
    scope = {"type": "http", "method": "GET", "messages": messages}
    sent = asgi(ObservingMiddleware(sends, metrics=metrics), scope)
    assert [message["type"] for message in sent] == [message["type"] for message in messages]
    assert dict(metrics.snapshot().outcomes) == {"none": 1}


def test_a_visitor_who_leaves_during_the_body_had_a_head(metrics: Metrics) -> None:
    messages = [
        {"type": "http.response.start", "status": 200, "headers": [(b"cache-status", MISS.encode())]},
        {"type": "http.response.body", "body": b"123"},
    ]
    scope = {"type": "http", "method": "GET", "messages": messages}
    with pytest.raises(OSError, match="left"):
        asgi(ObservingMiddleware(sends, metrics=metrics), scope, fails=True)
    assert metrics.snapshot().misses.requests == 1
    assert metrics.snapshot().misses.octets == 0


def test_a_task_that_is_cancelled_counts_once(metrics: Metrics) -> None:
    async def app(scope: Any, receive: Any, send: Any) -> None:
        asyncio.current_task().cancel()  # type: ignore[union-attr]
        await asyncio.Event().wait()

    with pytest.raises(asyncio.CancelledError):
        asgi(ObservingMiddleware(app, metrics=metrics), {"type": "http", "method": "GET"})
    assert dict(metrics.snapshot().outcomes) == {"aborted": 1}


def test_without_metrics_there_are_new_ones() -> None:
    def app(environ: Any, start_response: Any) -> list[bytes]:
        start_response("200 OK", [("Cache-Status", HIT)])
        return []

    observed = ObservingMiddleware(app)
    ask(observed)
    assert observed.metrics.snapshot().requests == 1


def test_other_objects_as_metrics_are_refused() -> None:
    with pytest.raises(ImproperlyConfigured, match=r"metrics is 'yes'; allowed: a cachemw\.Metrics"):
        ObservingMiddleware(sends, metrics="yes")  # type: ignore[call-overload]


# -- exports ----------------------------------------------------------------------------------------------------------


@pytest.fixture
def fed(metrics: Metrics) -> Metrics:
    """Three requests: a hit, a miss, and one that is not stored."""
    metrics.observe(HIT, 0.000_02, 10)
    metrics.observe(MISS, 0.03, 20)
    metrics.observe("cachemw; fwd=uri-miss; fwd-status=200; detail=no-store", 100.0, 30)
    return metrics


def test_prometheus_gets_counters_and_a_histogram(fed: Metrics) -> None:
    registry = CollectorRegistry()
    registry.register(fed.prometheus())
    text = generate_latest(registry).decode()
    families = {family.name: family for family in text_string_to_metric_families(text)}
    assert set(families) == {"cachemw_requests", "cachemw_response_bytes", "cachemw_request_duration_seconds"}
    value = registry.get_sample_value
    miss = {"cache": "cachemw", "outcome": "miss"}
    assert value("cachemw_requests_total", {**miss, "reason": "no-store"}) == 1
    assert value("cachemw_requests_total", {"cache": "cachemw", "outcome": "hit", "reason": ""}) == 1
    assert value("cachemw_response_bytes_total", miss) == 50
    name = "cachemw_request_duration_seconds"
    assert value(f"{name}_count", miss) == 2
    assert value(f"{name}_sum", miss) == pytest.approx(100.03)
    assert [value(f"{name}_bucket", {**miss, "le": bound}) for bound in ("0.025", "0.05", "10.0", "+Inf")] == [
        *(0, 1, 1, 2)
    ]
    fed.observe(HIT, 0.0, 1)
    assert value("cachemw_requests_total", {"cache": "cachemw", "outcome": "hit", "reason": ""}) == 2


def test_opentelemetry_observes_what_was_counted(fed: Metrics) -> None:
    reader = InMemoryMetricReader()
    provider = MeterProvider([reader])
    fed.opentelemetry(provider.get_meter("test"))
    data: Any = reader.get_metrics_data()
    seen = {
        (metric.name, metric.unit): {tuple(point.attributes.values()): point.value for point in metric.data.data_points}
        for metric in data.resource_metrics[0].scope_metrics[0].metrics
    }
    provider.shutdown()
    assert seen == {
        ("cachemw.requests", "{request}"): {
            ("cachemw", "hit", ""): 1,
            ("cachemw", "miss", ""): 1,
            ("cachemw", "miss", "no-store"): 1,
        },
        ("cachemw.response.size", "By"): {("cachemw", "hit"): 10, ("cachemw", "miss"): 50},
        ("cachemw.request.duration", "s"): {
            ("cachemw", "hit"): pytest.approx(0.000_02),
            ("cachemw", "miss"): pytest.approx(100.03),
        },
    }


def test_without_a_meter_the_global_one_is_taken(fed: Metrics, monkeypatch: pytest.MonkeyPatch) -> None:
    reader = InMemoryMetricReader()
    provider = MeterProvider([reader])
    monkeypatch.setattr("opentelemetry.metrics.get_meter", provider.get_meter)
    fed.opentelemetry()
    data: Any = reader.get_metrics_data()
    assert data.resource_metrics[0].scope_metrics[0].scope.name == "cachemw"
    provider.shutdown()


@pytest.mark.parametrize(
    ("export", "package", "extra"),
    [
        (Metrics.prometheus, "prometheus_client", "prometheus"),
        (Metrics.opentelemetry, "opentelemetry", "opentelemetry"),
    ],
)
def test_a_package_that_is_not_there_is_one_error_that_names_the_extra(
    metrics: Metrics, export: Any, package: str, extra: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in [name for name in sys.modules if name.partition(".")[0] == package]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setattr(sys, "path", [])
    monkeypatch.setattr(sys, "path_importer_cache", {})
    with pytest.raises(ImproperlyConfigured, match=rf"{package} is not installed: pip install 'cachemw\[{extra}\]'"):
        export(metrics)
