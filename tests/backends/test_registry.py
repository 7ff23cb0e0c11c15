"""Aliases, the default cache, and stores from URLs."""

from __future__ import annotations

import asyncio
import gc
import json
import os
import subprocess
import sys
import threading
import weakref
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from cachemw import CacheMiddleware, Caching, caching
from cachemw._memoize.stores import keeper_of
from cachemw._values import imported
from cachemw.backends import registry
from cachemw.backends.base import BaseCache, BlockingCache, InlineCache
from cachemw.backends.dummy import DummyCache
from cachemw.backends.locmem import LocMemCache
from cachemw.backends.registry import Caches, connect, make_cache
from cachemw.errors import BackendUnavailable, ImproperlyConfigured, InvalidCacheBackendError
from cachemw.settings import Settings
from cachemw.testing._concurrency import in_processes, in_threads

LOCMEM = "cachemw.backends.locmem.LocMemCache"


class Closing(LocMemCache):
    """Counts its closings, and may fail to close."""

    closed = 0
    error: Exception | None = None

    def close(self) -> None:
        self.closed += 1
        if self.error is not None:
            raise self.error

    async def aclose(self) -> None:
        self.close()


def three() -> Caches:
    return Caches(
        {
            "CACHES": {
                "default": {"BACKEND": Closing, "LOCATION": "registry default", "KEY_PREFIX": "site"},
                "second": {"BACKEND": Closing, "LOCATION": "registry second"},
                "third": {"BACKEND": Closing, "LOCATION": "registry third"},
            }
        }
    )


@pytest.mark.parametrize(
    "stores",
    [
        {"default": {"BACKEND": "cachemw.backends.dummy.DummyCache"}, "pages": "locmem://bare"},
        {"pages": {"BACKEND": LOCMEM, "LOCATION": "bare"}},
    ],
)
def test_the_stores_may_be_given_as_they_stand_under_caches(stores: dict[str, Any]) -> None:
    caches = Caches(stores)
    assert list(caches) == list(stores)
    assert isinstance(caches["pages"], LocMemCache)
    assert caches["pages"].location == "bare"


def test_a_mapping_of_settings_that_names_no_store_has_the_one_in_memory() -> None:
    for settings in ({}, {"SERVER_NAME": "example.org"}, {"CACHES": {"default": {"BACKEND": LOCMEM}}}):
        assert isinstance(Caches(settings)["default"], LocMemCache)


def test_what_are_no_settings_is_refused() -> None:
    with pytest.raises(ImproperlyConfigured, match="settings is 1; allowed: a Settings, a mapping in Django's shape"):
        Caches(1)["default"]  # type: ignore[arg-type]


def test_an_alias_beside_something_that_is_no_store_is_refused() -> None:
    with pytest.raises(ImproperlyConfigured, match="CACHES is"):
        Caches({"default": {"BACKEND": LOCMEM}, "CACHEMW_SECONDS": 5})["default"]


@pytest.mark.parametrize(
    ("entry", "message"),
    [
        ({"OPTIONS": 1}, "OPTIONS is '…'; allowed: a mapping"),
        ({"OPTIONS": "password=hidden"}, "OPTIONS is '…'; allowed: a mapping"),
        ({"TIMEOUT": 1, "timeout": 2}, "TIMEOUT is given twice, in upper and in lower case"),
        ({"LOCATON": "x"}, r"An unknown setting .* is 'LOCATON'; did you mean 'LOCATION'\? Allowed: BACKEND"),
        ({"KEY_PREFIX": b"site"}, "KEY_PREFIX is b'site'; allowed: a string or a number"),
        ({"KEY_PREFIX": "\udcff"}, r"KEY_PREFIX is '\\udcff'; allowed: a string that UTF-8 can encode"),
        ({"VERSION": "\udcff"}, r"VERSION is '\\udcff'; allowed: a string that UTF-8 can encode"),
        ({"VERSION": [1]}, r"VERSION is \[1\]; allowed: a string or a number"),
        ({"SECRET": " "}, "SECRET is '…'; allowed: a string that is not empty"),
        ({"SERIALIZER": "yaml"}, "SERIALIZER is 'yaml'; allowed: json, msgpack, pickle"),
        ({"KEY_FUNCTION": len}, "KEY_FUNCTION is <built-in function len>; allowed: a callable .key, key_prefix, vers"),
    ],
)
@pytest.mark.parametrize(
    "store",
    [
        {"BACKEND": LOCMEM},
        {"BACKEND": "cachemw.backends.redis.RedisCache", "LOCATION": "redis://127.0.0.1:1"},
        {"BACKEND": "cachemw.backends.tiered.TieredCache", "LOCATION": "redis://127.0.0.1:1"},
    ],
)
def test_an_entry_that_cannot_be_used_says_of_what_and_why(
    store: dict[str, Any], entry: dict[str, Any], message: str
) -> None:
    with pytest.raises(ImproperlyConfigured, match=rf"^CACHES\['default'\]: {message}"):
        Caches({"CACHES": {"default": {**store, **entry}}})["default"]


def test_the_names_in_an_entry_may_be_in_lower_case(tmp_path: Path) -> None:
    cache = make_cache(
        {"backend": "cachemw.backends.filebased.FileBasedCache", "location": str(tmp_path), "timeout": 5}
    )
    assert (cache.location, cache.default_timeout) == (str(tmp_path), 5)


def test_a_location_of_none_is_none(tmp_path: Path) -> None:
    """As `os.environ.get("…")` may give it."""
    assert repr(make_cache({"BACKEND": LOCMEM, "LOCATION": None})) == "<LocMemCache>"
    with pytest.raises(ImproperlyConfigured, match="allowed: the absolute path of a directory"):
        make_cache({"BACKEND": "cachemw.backends.filebased.FileBasedCache", "LOCATION": None})


def test_a_location_is_all_that_a_store_needs(tmp_path: Path) -> None:
    for name, location in (
        ("locmem.LocMemCache", "alone"),
        ("filebased.FileBasedCache", str(tmp_path / "alone")),
        ("db.DatabaseCache", f"sqlite:///{tmp_path}/alone.db"),
        ("redis.RedisCache", "redis://localhost"),
        ("memcached.PyMemcacheCache", "localhost"),
        ("memcached.PyLibMCCache", "localhost"),
        ("tiered.TieredCache", "redis://localhost"),
        ("dummy.DummyCache", ""),
    ):
        kind = imported("BACKEND", f"cachemw.backends.{name}")
        assert kind(location).default_timeout == 300
        assert kind(location, {"TIMEOUT": 60}).default_timeout == 60


def test_an_alias_is_one_instance_for_all_threads_and_event_loops() -> None:
    caches = three()

    def ask(number: int) -> BaseCache:
        async def main() -> BaseCache:
            return caches["default"]

        return caches["default"] if number % 2 else asyncio.run(main())

    assert {id(cache) for cache in in_threads(8, ask)} == {id(caches["default"])}
    assert caches["default"] is not caches["second"]
    assert caches["default"].make_key("key") == "site:1:key"


def test_threads_that_are_first_to_ask_make_one_instance() -> None:
    made: list[int] = []
    everybody_waits = threading.Event()

    class Slow(LocMemCache):
        def __init__(self, location: Any, params: Any) -> None:
            made.append(1)
            everybody_waits.wait(0.05)
            super().__init__(location, params)

    caches = Caches({"CACHES": {"default": {"BACKEND": Slow}}})
    assert len({id(cache) for cache in in_threads(8, lambda number: caches["default"])}) == 1
    assert made == [1]


def test_an_unknown_alias_does_not_exist() -> None:
    caches = three()
    with pytest.raises(
        InvalidCacheBackendError, match=r"^The connection 'nowhere' doesn't exist; allowed: default, second, third;"
    ):
        caches["nowhere"]
    assert "nowhere" not in caches
    assert "second" in caches
    assert list(caches) == ["default", "second", "third"]


@pytest.mark.parametrize("backend", ["cachemw.backends.base.BaseCache", BlockingCache, InlineCache])
def test_what_several_stores_have_in_common_is_no_store(backend: Any) -> None:
    with pytest.raises(InvalidCacheBackendError, match=r"not a store by itself: it has no .*_get"):
        _ = Caches({"default": {"BACKEND": backend}})["default"]


def test_what_the_memcached_stores_have_in_common_is_no_store() -> None:
    with pytest.raises(InvalidCacheBackendError, match=r"not a store by itself: it has no .*; allowed: "):
        make_cache({"BACKEND": "cachemw.backends.memcached.MemcachedCache", "LOCATION": "127.0.0.1:11211"})


@pytest.mark.parametrize(
    ("path", "message"),
    [
        ("no.such.module.Cache", "Could not find backend 'no.such.module.Cache': No module named 'no'"),
        ("cachemw.backends.locmem.Nothing", "Could not find backend 'cachemw.backends.locmem.Nothing': module"),
        (
            "Cache",
            "Could not find backend 'Cache': that is not a dotted path, such as 'cachemw.backends.redis.RedisCache'; ",
        ),
        ("redis://:pass@host.org", "Could not find backend 'redis://***@host.org': that is not a dotted path"),
        ("shop.stores:Cache", "Could not find backend 'shop.stores:Cache': that is not a dotted path"),
        ("cachemw.errors.CacheError", "BACKEND is 'cachemw.errors.CacheError'; allowed: a subclass of BaseCache"),
        (None, "BACKEND is None; allowed"),
        (dict, "BACKEND is <class 'dict'>; allowed"),
    ],
)
def test_a_backend_that_cannot_be_found_is_an_error_at_first_use(path: Any, message: str) -> None:
    caches = Caches({"CACHES": {"default": {"BACKEND": path}}})
    assert "default" in caches
    with pytest.raises(InvalidCacheBackendError) as caught:
        caches["default"]
    assert str(caught.value).startswith(message)


@pytest.mark.parametrize(
    "use",
    [
        "from cachemw import connect; connect('db+sqlite:///cache.sqlite')",
        "from django.core.cache import cache; cache.get('a')",
    ],
)
def test_without_its_packages_the_database_store_says_what_to_install(use: str) -> None:
    program = (
        "import sys; sys.modules['sqlalchemy'] = None\n"
        "from cachemw import InvalidCacheBackendError\n"
        "from django.conf import settings\n"
        "settings.configure(CACHES={'default': {'BACKEND': 'cachemw.integrations.django.DatabaseCache'}})\n"
        f"try: {use}\n"
        "except InvalidCacheBackendError as error: print(error)"
    )
    root = Path(registry.__file__).parent.parent.parent
    done = subprocess.run([sys.executable, "-c", program], cwd=root, capture_output=True, text=True, check=True)
    assert done.stdout.startswith("DatabaseCache needs the package sqlalchemy: pip install 'cachemw[sql]'")


def test_a_failed_alias_can_be_asked_for_again() -> None:
    caches = Caches({"CACHES": {"default": {"BACKEND": LOCMEM, "OPTIONS": {"MAX_ENTRIES": "x"}}}})
    for _ in range(2):
        with pytest.raises(ImproperlyConfigured, match="MAX_ENTRIES"):
            caches["default"]
    assert caches.all(initialized_only=True) == []


def test_all_gives_every_cache_or_those_in_use() -> None:
    caches = three()
    assert caches.all(initialized_only=True) == []
    second = caches["second"]
    assert caches.all(initialized_only=True) == [second]
    assert len(caches.all()) == 3
    assert len(caches.all(initialized_only=True)) == 3


@pytest.mark.parametrize("half", ["sync", "async"])
def test_closing_closes_those_in_use_and_only_those_and_all_of_them(half: str) -> None:
    caches = three()
    first, second = caches["default"], caches["second"]
    assert isinstance(first, Closing)
    assert isinstance(second, Closing)

    def close() -> None:
        if half == "sync":
            caches.close_all()
        else:
            asyncio.run(caches.aclose_all())

    close()
    assert (first.closed, second.closed) == (1, 1)
    assert len(caches.all(initialized_only=True)) == 2
    first.error = BackendUnavailable("gone")
    with pytest.raises(BackendUnavailable):
        close()
    assert (first.closed, second.closed) == (2, 2)
    assert caches["default"] is first


def test_without_settings_there_is_local_memory() -> None:
    assert isinstance(Caches({})["default"], LocMemCache)
    assert isinstance(Caches(Settings())["default"], LocMemCache)
    assert list(Caches(Settings())) == ["default"]


def test_the_environment_is_read_at_first_use(monkeypatch: pytest.MonkeyPatch) -> None:
    caches = Caches()
    monkeypatch.setenv("CACHEMW_URL", "locmem://from-environment?timeout=7")
    monkeypatch.setenv("CACHEMW_URL_OFF", "dummy://")
    monkeypatch.setenv("CACHEMW_SECRET", "a secret")
    assert caches["default"].location == "from-environment"
    assert caches["default"].default_timeout == 7
    assert caches["default"].secrets == (b"a secret",)
    assert isinstance(caches["off"], DummyCache)


def test_a_wrong_environment_is_named_at_first_use(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CACHEMW_URL", "nosuch://user:hidden@host")
    with pytest.raises(ImproperlyConfigured, match="CACHEMW_URL") as caught:
        Caches()["default"]
    assert "hidden" not in str(caught.value)


def test_a_class_that_the_environment_names(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CACHEMW_URL", f"{__name__}.Closing://shelf?timeout=7&max_entries=9")
    monkeypatch.setitem(sys.modules, __name__, sys.modules[Closing.__module__])
    store = Caches()["default"]
    assert type(store) is Closing
    assert (store.location, store.default_timeout) == ("shelf", 7)
    store.set("a", 1)
    assert store.get("a") == 1


@pytest.mark.parametrize(
    "url",
    ["no_such_package.Store://u:hidden@h", f"{__name__}.Missing://", "os.path.join://", "collections.OrderedDict://"],
)
def test_a_class_that_is_none_is_named_with_its_variable(monkeypatch: pytest.MonkeyPatch, url: str) -> None:
    monkeypatch.setenv("CACHEMW_URL_PAGES", url)
    with pytest.raises(InvalidCacheBackendError, match=r"^CACHEMW_URL_PAGES: ") as caught:
        Caches()["pages"]
    assert url.partition("://")[0] in str(caught.value)
    assert "hidden" not in str(caught.value)


def test_the_environment_is_reread_for_whoever_asks(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CACHEMW_URL", "locmem://first")
    monkeypatch.setenv("CACHEMW_URL_STAYS", "locmem://stays")
    caches, given = Caches(), Caches({"default": "locmem://given"})
    caches.reread()  # nothing was read yet
    first, stays, own = caches["default"], caches["stays"], given["default"]
    caches.reread()
    assert caches["default"] is first
    monkeypatch.setenv("CACHEMW_URL", "locmem://second")
    assert caches["default"] is first
    caches.reread()
    given.reread()
    assert caches["default"].location == "second"
    assert caches["stays"] is stays
    assert given["default"] is own
    monkeypatch.delenv("CACHEMW_URL_STAYS")
    caches.reread()
    with pytest.raises(InvalidCacheBackendError, match="'stays' doesn't exist"):
        caches["stays"]


def test_a_middleware_takes_the_store_that_the_environment_names_now(monkeypatch: pytest.MonkeyPatch) -> None:
    def app(environ: Any, start_response: Any) -> list[bytes]:
        return []  # never called

    monkeypatch.setattr(caching, "caches", Caches())
    for name in ("one", "two"):
        monkeypatch.setenv("CACHEMW_URL", f"locmem://environment-{name}")
        assert CacheMiddleware(app).caching.line.pages.cache.location == f"environment-{name}"


def test_the_secret_of_the_settings_is_for_caches_without_one() -> None:
    caches = Caches(
        Settings(
            secret="for all",
            caches={
                "own": {"BACKEND": LOCMEM, "SECRET": "own"},
                "lower": {"BACKEND": LOCMEM, "secret": "own"},
                "none": {"BACKEND": LOCMEM},
                "url": "locmem://x",
            },
        )
    )
    assert caches["own"].secrets == caches["lower"].secrets == (b"own",)
    assert caches["none"].secrets == (b"for all",)
    assert caches["url"].secrets == (b"for all",)


def test_a_secret_may_be_any_octets_of_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(os.environb, b"CACHEMW_SECRET", b"\xff\xfe octets")
    sealed = Caches()["default"]
    sealed.set("a", [1])
    assert sealed.get("a") == [1]


def test_djangos_own_paths_mean_their_counterparts() -> None:
    cache = make_cache(
        {
            "BACKEND": "django.core.cache.backends.locmem.LocMemCache",
            "LOCATION": "unique-snowflake",
            "TIMEOUT": 60,
            "OPTIONS": {"MAX_ENTRIES": 1000},
        }
    )
    assert type(cache) is LocMemCache
    assert isinstance(make_cache({"BACKEND": "django.core.cache.backends.dummy.DummyCache"}), DummyCache)
    with pytest.raises(InvalidCacheBackendError, match=r"cachemw\.backends\.locmem\.Nothing"):
        make_cache({"BACKEND": "django.core.cache.backends.locmem.Nothing"})


def test_connect_opens_a_store_of_its_own() -> None:
    one, two = connect("locmem://connected"), connect("locmem://connected?version=2")
    assert one is not two
    one.set("key", 1)
    assert two.get("key", version=1) == 1
    with pytest.raises(ImproperlyConfigured, match="scheme"):
        connect("localhost:6379")


def test_what_is_opened_by_its_url_is_one_store_for_as_long_as_somebody_has_it() -> None:
    url = f"{__name__}.Closing://opened"
    with ThreadPoolExecutor(8) as threads:
        first, *others = threads.map(registry.opened, [url] * 8)
    assert all(one is first for one in others)
    mine = connect(url)
    assert mine is not first
    mine.close()
    assert first.closed == 0  # type: ignore[attr-defined]
    assert registry.opened(f"{url}?version=2") is not first
    gone = weakref.ref(first)
    del first, others
    gc.collect()
    assert gone() is None
    assert isinstance(registry.opened(url), Closing)


def test_a_child_of_fork_opens_stores_though_another_thread_was_opening_one() -> None:
    def child(number: int) -> bool:
        return registry.opened("locmem://of the child") is registry.opened("locmem://of the child")

    with registry._opening:
        assert in_processes(2, child) == [True, True]


def test_a_store_is_named_in_one_way_wherever_it_is_named() -> None:
    known = three()
    store = LocMemCache("given")
    assert registry.resolve("cache", store, known) is store
    assert registry.resolve("cache", "second", known) is known["second"]
    by_url = registry.resolve("cache", "locmem://resolved", known)
    assert by_url is registry.resolve("cache", "locmem://resolved", registry.caches)
    assert registry.resolve("cache", registry.cache, known) is registry.caches["default"] is not known["default"]
    with pytest.raises(
        InvalidCacheBackendError,
        match=r"^a rule's cache is 'typo': The connection 'typo' doesn't exist; allowed: .* A URL names",
    ):
        registry.resolve("a rule's cache", "typo", known)
    with pytest.raises(ImproperlyConfigured, match=r"^cache is 5; allowed: the alias of a configured cache, a URL"):
        registry.resolve("cache", 5, known)
    with pytest.raises(InvalidCacheBackendError, match=r"^Could not find backend 'nowhere'"):
        registry.resolve("cache", "wrong", Caches({"CACHES": {"wrong": {"BACKEND": "nowhere"}, "default": "dummy://"}}))


def test_what_goes_by_the_name_of_the_default_cache_is_one_with_it(monkeypatch: pytest.MonkeyPatch) -> None:
    """Not a second store with pages, a breaker and flights of its own, which nobody else joins."""
    monkeypatch.setattr(registry, "caches", three())
    store = registry.caches["default"]
    assert keeper_of(registry.cache) is keeper_of(store)
    assert Caching(cache=registry.cache).line.pages.cache is store


def test_the_default_cache_is_looked_up_at_each_use(monkeypatch: pytest.MonkeyPatch) -> None:
    for turn in range(2):
        caches = Caches({"CACHES": {"default": {"BACKEND": LOCMEM, "LOCATION": f"default {turn}"}}})
        monkeypatch.setattr(registry, "caches", caches)
        assert "key" not in registry.cache
        registry.cache.set("key", turn)
        assert "key" in registry.cache
        assert caches["default"].get("key") == turn
        assert isinstance(registry.cache, LocMemCache)
        assert repr(registry.cache) == f"<LocMemCache default {turn}>"
        registry.cache.default_timeout = 5
        assert caches["default"].default_timeout == 5


def test_the_default_cache_stands_for_its_alias() -> None:
    """In a process of its own: `cachemw.caches` is made once."""
    script = """
import json, warnings
warnings.simplefilter("error")
from cachemw.backends import registry
from cachemw.backends.base import BaseCache
assert registry.caches.all(initialized_only=True) == []
cache = registry.cache
assert registry.caches.all(initialized_only=True) == []
cache.set("key", [1])
cache.key_func = lambda key, prefix, version: "made-" + key
print(json.dumps([
    cache.get("key"), "key" in cache, isinstance(cache, BaseCache), registry.caches["default"].make_key("a"),
    repr(cache), cache.version, {cache: 1}[cache],
]))
"""
    environment = {"CACHEMW_URL": "locmem://proxied?version=4", "PYTHONPATH": os.pathsep.join(sys.path)}
    output = subprocess.run([sys.executable, "-c", script], env=environment, capture_output=True, text=True, check=True)
    assert json.loads(output.stdout) == [None, False, True, "made-a", "<LocMemCache proxied>", 4, 1]


def test_a_fork_while_another_thread_makes_a_cache_leaves_no_held_lock() -> None:
    caches = three()
    holding, done = threading.Event(), threading.Event()

    def hold() -> None:
        with caches._lock:
            holding.set()
            done.wait(30)

    thread = threading.Thread(target=hold)
    thread.start()
    holding.wait(30)
    try:
        assert in_processes(2, lambda number: caches["second"].make_key("key")) == [":1:key"] * 2
    finally:
        done.set()
        thread.join()


@pytest.mark.parametrize("names", [("size",), ["size"], {"size"}, frozenset({"size"})])
def test_a_store_of_one_s_own_names_its_options_in_any_collection(names: Any) -> None:
    class OwnCache(LocMemCache):
        option_names = names

        def __init__(self, location: str, params: dict[str, Any]) -> None:
            super().__init__(location, params)
            self.size = self.options["size"]

    assert OwnCache("", {"OPTIONS": {"SIZE": 3}}).size == 3
    with pytest.raises(ImproperlyConfigured, match="unknown option of OwnCache is 'length'; allowed: fail_open, size"):
        OwnCache("", {"OPTIONS": {"length": 3}})
