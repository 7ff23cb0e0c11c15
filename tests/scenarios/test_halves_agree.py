"""Both halves go by what the outer one was told: an inner one that was told something else is an error, and no page."""

from __future__ import annotations

import re
from typing import Any

import pytest

from cachemw import ImproperlyConfigured, Policy, Rule, Settings, asgi, connect, wsgi
from cachemw.backends.locmem import LocMemCache
from tests.scenarios.conftest import Site


def with_halves(site: Site, outer: dict[str, Any], inner: dict[str, Any]) -> Site:
    module: Any = wsgi if site.interface == "wsgi" else asgi

    def around(app: Any, interface: str) -> Any:
        return module.UpdateCacheMiddleware(module.FetchFromCacheMiddleware(app, **inner), **outer)

    return site.build(around=around)


@pytest.mark.parametrize(
    ("outer", "inner", "named"),
    [
        ({}, {"rules": [Rule("/*", never=True)]}, r"rules: .*FetchFromCacheMiddleware.*never=True"),
        ({"rules": [Rule("/a")]}, {"rules": [{"path": "/b"}]}, "rules: "),
        ({"seconds": 50}, {"seconds": 1}, r"seconds: .*\(1\.0 and 50\.0\)"),
        ({}, {"key_prefix": "mine"}, r"key_prefix: .*\('mine' and ''\)"),
        ({"cache": "locmem://agree"}, {"cache": "locmem://other"}, r"cache: .*LocMemCache other.*LocMemCache agree"),
        ({"cache": "locmem://agree"}, {"cache": "locmem://agree?key_prefix=x"}, r"cache: .*KEY_PREFIX 'x'"),
        ({"policy": Policy()}, {"policy": Policy.rfc9111()}, r"policy\.seconds: "),
        ({}, {"policy": Policy(grace=10)}, r"policy\.grace: .*\(10\.0 and 0\)"),
        ({}, {"settings": Settings(use_i18n=True)}, r"settings\.use_i18n: "),
        ({"settings": {"CACHEMW_SECRET": "hidden"}}, {"settings": {}}, r"settings\.secret: [^(]*$"),
    ],
)
def test_an_inner_half_that_was_told_something_else_is_an_error(
    site: Site, outer: dict[str, Any], inner: dict[str, Any], named: str
) -> None:
    with_halves(site, outer, inner)
    for _ in range(2):  # each time: it is not forgotten after the first
        error = site.get("/").error
        assert isinstance(error, ImproperlyConfigured)
        assert re.search(named, str(error)), error
        assert "hidden" not in str(error)
    assert not site.calls


STORE = LocMemCache("agree")


@pytest.mark.parametrize(
    ("outer", "inner"),
    [
        ({}, {}),
        ({"seconds": 50, "policy": Policy(), "rules": [Rule("/a")], "key_prefix": "x"}, {}),
        ({"seconds": 50, "key_prefix": "x"}, {"seconds": "50", "key_prefix": "x"}),
        ({"rules": [Rule("/a"), Rule("/b", never=True)]}, {"rules": ({"path": "/a"}, {"path": "/b", "never": True})}),
        ({"rules": []}, {"rules": ()}),
        ({"policy": Policy(statuses={200})}, {"policy": Policy()}),
        ({"settings": Settings(seconds=5)}, {"settings": {"CACHEMW_SECONDS": 5}}),
        ({"settings": Settings(seconds=5), "seconds": 7}, {"settings": Settings(seconds=5)}),
        ({"cache": STORE}, {"cache": STORE}),
        ({"cache": "locmem://agree"}, {"cache": connect("locmem://agree")}),
    ],
)
def test_halves_that_were_told_the_same_in_other_words_agree(
    site: Site, outer: dict[str, Any], inner: dict[str, Any]
) -> None:
    outer = {"cache": "locmem://agree", **outer}
    STORE.clear()
    with_halves(site, outer, inner)
    first, second = site.get("/"), site.get("/")
    assert second.hit
    assert (second.body, len(site.calls)) == (first.body, 1)


def test_they_are_compared_once(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    with_halves(site, {"cache": STORE}, {"cache": STORE})
    site.get("/once")
    monkeypatch.setattr("cachemw.caching.Caching.told", None)
    assert site.get("/once").hit


def test_what_the_environment_says_is_said_to_both(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CACHEMW_SECONDS", "77")
    monkeypatch.setenv("CACHEMW_URL", "locmem://agree-environ")
    with_halves(site, {}, {"settings": None, "cache": None})
    assert site.get("/")["Cache-Control"] == "max-age=77"


def test_an_inner_half_without_an_outer_one_goes_by_what_it_was_told(site: Site) -> None:
    module: Any = wsgi if site.interface == "wsgi" else asgi
    site.build(around=lambda app, interface: module.FetchFromCacheMiddleware(app, cache=STORE, key_prefix="alone"))
    assert site.get("/").status == 200


def test_an_inner_half_without_an_outer_one_says_so_once(site: Site, caplog: pytest.LogCaptureFixture) -> None:
    module: Any = wsgi if site.interface == "wsgi" else asgi
    for around in (
        lambda app, interface: module.FetchFromCacheMiddleware(app, cache=site.cache),
        lambda app, interface: module.FetchFromCacheMiddleware(module.UpdateCacheMiddleware(app), cache=site.cache),
    ):
        caplog.clear()
        site.build(around=around)
        for _ in range(2):
            assert site.get("/").body == b"page"
        told = [record.message for record in caplog.records]
        assert told == ["FetchFromCacheMiddleware has no UpdateCacheMiddleware around it: it stores nothing."]
    caplog.clear()
    site.build().get("/")
    with_halves(site, {"cache": site.cache}, {}).get("/other")
    assert not caplog.records
