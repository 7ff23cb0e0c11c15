"""`cachemw.autowrap:app`: what CACHEMW_APP and CACHEMW_METRICS may say, and what it says when they are wrong."""

from __future__ import annotations

import importlib
import logging
import sys
from pathlib import Path
from typing import Any

import prometheus_client
import pytest
from opentelemetry.sdk.metrics import MeterProvider
from opentelemetry.sdk.metrics.export import InMemoryMetricReader
from werkzeug.test import Client

from cachemw import ImproperlyConfigured, Settings
from cachemw.wsgi import CacheMiddleware

SHOP = """
calls = []

def app(environ, start_response):
    calls.append(environ["PATH_INFO"])
    start_response("200 OK", [("Content-Type", "text/plain")])
    return [str(len(calls)).encode()]

def make_app():
    return app

class Site:
    app = staticmethod(app)

async def asgi_app(scope, receive, send):
    await send({"type": "http.response.start", "status": 200, "headers": []})
"""


@pytest.fixture
def shop(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, request: pytest.FixtureRequest) -> str:
    """A module with applications, on the path under a name of its own."""
    name = f"shop_{abs(hash(request.node.nodeid))}"
    (tmp_path / f"{name}.py").write_text(SHOP)
    (tmp_path / "broken_shop.py").write_text("import no_such_library")
    monkeypatch.syspath_prepend(tmp_path)
    return name


def wrapped(monkeypatch: pytest.MonkeyPatch, place: str | None, **settings: str) -> Any:
    """What a server imports when the environment says this."""
    for variable, value in {"CACHEMW_APP": place, **settings}.items():
        if value is None:
            monkeypatch.delenv(variable, raising=False)
        else:
            monkeypatch.setenv(variable, value)
    sys.modules.pop("cachemw.autowrap", None)
    return importlib.import_module("cachemw.autowrap").app


@pytest.mark.parametrize("name", ["app", "make_app()", "Site.app"])
def test_the_application_named_is_cached_as_the_environment_says(
    shop: str, name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    app = wrapped(monkeypatch, f"{shop}:{name}", CACHEMW_SECONDS="7", CACHEMW_KEY_PREFIX=f"{shop}{name}")
    client = Client(app)
    cold, hot = client.get("/", buffered=True), client.get("/", buffered=True)
    assert (cold.text, hot.text) == ("1", "1")
    assert hot.headers["Cache-Control"] == "max-age=7"


def test_an_asgi_application_gets_the_middleware_of_its_kind(shop: str, monkeypatch: pytest.MonkeyPatch) -> None:
    assert type(wrapped(monkeypatch, f"{shop}:asgi_app")).__module__ == "cachemw.asgi"


@pytest.mark.parametrize(
    ("place", "message"),
    [
        (None, "CACHEMW_APP is not set; allowed: module:name"),
        (" ", "CACHEMW_APP is not set"),
        ("shop", "CACHEMW_APP is 'shop'; allowed: module:name"),
        (":app", "allowed: module:name"),
        ("shop:", "allowed: module:name"),
        ("shop:make_app(1)", "allowed: module:name"),
        ("shop app:app", "allowed: module:name"),
        ("no_such_module:app", "there is no module 'no_such_module' on the path"),
        ("json.no_such:app", "there is no module 'json.no_such' on the path"),
        ("json:no_such_app", "module 'json' has no attribute 'no_such_app'"),
        ("json:dumps.app", "CACHEMW_APP is 'json:dumps.app'"),
        ("json:dumps()", "CACHEMW_APP is 'json:dumps()': missing a required argument: 'obj'; allowed: module:name"),
        ("json:__name__()", "CACHEMW_APP is 'json:__name__()': 'json' is not a callable object"),
        ("json:__name__", "CACHEMW_APP is 'json:__name__': 'json' is neither a WSGI application"),
        ("os:getcwd()", "nor an ASGI application"),
    ],
)
def test_a_wrong_name_is_one_clear_error(place: str | None, message: str, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(ImproperlyConfigured) as caught:
        wrapped(monkeypatch, place)
    assert message in str(caught.value)


def test_a_factory_without_its_brackets_is_told_of_them(shop: str, monkeypatch: pytest.MonkeyPatch) -> None:
    meant = rf"^CACHEMW_APP is '{shop}:make_app', a function; did you mean '{shop}:make_app\(\)'\?$"
    with pytest.raises(ImproperlyConfigured, match=meant):
        wrapped(monkeypatch, f"{shop}:make_app")


def test_what_the_applications_own_module_lacks_is_its_own_error(shop: str, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(ModuleNotFoundError, match="no_such_library"):
        wrapped(monkeypatch, "broken_shop:app")


def test_the_name_of_the_application_is_no_unknown_setting(
    shop: str, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.INFO, "cachemw"):
        wrapped(monkeypatch, f"{shop}:app")
    assert "CACHEMW_APP" not in caplog.text


# -- CACHEMW_METRICS --------------------------------------------------------------------------------------------------


def test_prometheus_finds_the_metrics_in_its_own_registry(shop: str, monkeypatch: pytest.MonkeyPatch) -> None:
    registry = prometheus_client.CollectorRegistry()
    monkeypatch.setattr(prometheus_client, "REGISTRY", registry)
    app = wrapped(monkeypatch, f"{shop}:app", CACHEMW_METRICS="prometheus", CACHEMW_KEY_PREFIX=shop)
    for _ in range(2):
        Client(app).get("/", buffered=True)
    labels = {"cache": "cachemw", "outcome": "hit", "reason": ""}
    assert registry.get_sample_value("cachemw_requests_total", labels) == 1


def test_opentelemetry_observes_the_metrics_by_its_global_meter(shop: str, monkeypatch: pytest.MonkeyPatch) -> None:
    reader = InMemoryMetricReader()
    provider = MeterProvider([reader])
    monkeypatch.setattr("opentelemetry.metrics.get_meter", provider.get_meter)
    app = wrapped(monkeypatch, f"{shop}:app", CACHEMW_METRICS="opentelemetry", CACHEMW_KEY_PREFIX=shop)
    Client(app).get("/", buffered=True)
    data: Any = reader.get_metrics_data()
    provider.shutdown()
    names = [metric.name for metric in data.resource_metrics[0].scope_metrics[0].metrics]
    assert "cachemw.requests" in names


def test_without_the_variable_nothing_is_counted(shop: str, monkeypatch: pytest.MonkeyPatch) -> None:
    app = wrapped(monkeypatch, f"{shop}:app", CACHEMW_METRICS="")
    assert isinstance(app, CacheMiddleware)


def test_another_way_to_count_is_refused(shop: str, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(ImproperlyConfigured, match="CACHEMW_METRICS is '1'; allowed: prometheus, opentelemetry, or"):
        wrapped(monkeypatch, f"{shop}:app", CACHEMW_METRICS="1")


def test_the_variable_is_no_mistake_elsewhere(caplog: pytest.LogCaptureFixture) -> None:
    assert Settings.from_environ({"CACHEMW_METRICS": "prometheus"}) == Settings.from_environ({})
    assert not caplog.records
