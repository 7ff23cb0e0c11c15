# mypy: disable-error-code="import-untyped"
"""Django: the stores behind its CACHES, the page cache as its middleware, pages shared with Flask and Starlette."""

from __future__ import annotations

import asyncio
import os
import subprocess
import sys
import threading
import warnings
from collections.abc import AsyncIterator, Callable, Iterator
from typing import Any
from wsgiref.util import FileWrapper

import django
import pytest
from asgiref.sync import async_to_sync
from django.conf import settings as django_settings
from django.test import override_settings

from tests.integrations.conftest import Counter
from tests.scenarios.conftest import Clock
from tests.servers import shared, start_memcached

django_settings.configure(
    ALLOWED_HOSTS=["*"],
    DEBUG=False,
    ROOT_URLCONF="tests.integrations.test_django",
    SECRET_KEY="not secret at all",
    SESSION_ENGINE="django.contrib.sessions.backends.signed_cookies",
    LANGUAGES=[("en-us", "English"), ("de", "German"), ("pt-br", "Portuguese")],
    CACHES={"default": {"BACKEND": "cachemw.integrations.django.LocMemCache", "LOCATION": "django"}},
)
django.setup()

from django.core.cache import CacheKeyWarning, caches  # noqa: E402
from django.core.cache.backends.base import DEFAULT_TIMEOUT, InvalidCacheKey  # noqa: E402
from django.core.signals import request_finished  # noqa: E402
from django.http import FileResponse, HttpRequest, HttpResponse, StreamingHttpResponse  # noqa: E402
from django.template import engines  # noqa: E402
from django.template.response import TemplateResponse  # noqa: E402
from django.test import AsyncClient, AsyncRequestFactory, Client, RequestFactory  # noqa: E402
from django.test.utils import override_script_prefix  # noqa: E402
from django.urls import path, reverse  # noqa: E402
from django.utils import timezone, translation  # noqa: E402

from cachemw import (  # noqa: E402
    Caches,
    ImproperlyConfigured,
    InvalidCacheBackendError,
    asgi,
    cache_control,
    cache_page,
    conditional,
    never_cache,
    vary_on_headers,
    wsgi,
)
from cachemw.backends.base import BaseCache  # noqa: E402
from cachemw.backends.locmem import LocMemCache  # noqa: E402
from cachemw.headers import get_cache_key, learn_cache_key  # noqa: E402
from cachemw.integrations import django as integration  # noqa: E402
from cachemw.testing._concurrency import in_processes  # noqa: E402

View = Callable[..., Any]
urlpatterns: list[Any] = []


@pytest.fixture(params=["wsgi", "asgi"])
def interface(request: pytest.FixtureRequest) -> str:
    return str(request.param)


class Visitor:
    """A test client of either interface."""

    def __init__(self, interface: str) -> None:
        self.interface = interface
        self.client: Any = Client(HTTP_HOST="testserver") if interface == "wsgi" else AsyncClient()

    def get(self, path: str = "/", method: str = "get", **headers: str) -> Any:
        return self.ask(method, path, headers)

    def ask(self, method: str, path: str, headers: dict[str, str], **data: Any) -> Any:
        call = getattr(self.client, method)
        response = (
            call(path, headers=headers, **data)
            if self.interface == "wsgi"
            else async_to_sync(call)(path, headers=headers, **data)
        )
        body = self._streamed(response) if response.streaming else response.content
        response.text_seen = body.decode()
        return response

    @staticmethod
    def _streamed(response: Any) -> bytes:
        if not response.is_async:
            return b"".join(response.streaming_content)

        async def gather() -> bytes:
            return b"".join([part async for part in response.streaming_content])

        return asyncio.run(gather())


BOTH = ["cachemw.integrations.django.CacheMiddleware"]
HALVES = [
    "cachemw.integrations.django.UpdateCacheMiddleware",
    "django.contrib.sessions.middleware.SessionMiddleware",
    "django.middleware.locale.LocaleMiddleware",
    "django.middleware.common.CommonMiddleware",
    "cachemw.integrations.django.FetchFromCacheMiddleware",
]


@pytest.fixture(params=["both at one place", "halves"])
def middleware(request: pytest.FixtureRequest) -> list[str]:
    return BOTH if request.param == "both at one place" else HALVES


class Site:
    """A Django site with one view."""

    def __init__(self, interface: str) -> None:
        self.interface = interface

    def view(self, function: View, route: str = "") -> None:
        urlpatterns.append(path(route, self.of_kind(function)))

    def of_kind(self, function: View) -> View:
        """A coroutine view on ASGI."""
        if self.interface == "wsgi":
            return function

        async def view(request: Any, *args: Any, **kwargs: Any) -> Any:
            await asyncio.sleep(0)
            return function(request, *args, **kwargs)

        return view

    def visitor(self) -> Visitor:
        return Visitor(self.interface)


@pytest.fixture
def site(interface: str) -> Iterator[Site]:
    from django.urls import clear_url_caches

    urlpatterns.clear()
    clear_url_caches()
    caches["default"].clear()
    yield Site(interface)
    urlpatterns.clear()
    clear_url_caches()


@pytest.fixture
def django_pages(middleware: list[str]) -> Iterator[None]:
    with override_settings(MIDDLEWARE=middleware):
        yield


def is_hit(response: Any) -> bool:
    return "; hit" in response.headers.get("Cache-Status", "")


# -- the stores -------------------------------------------------------------------------------------------------------


def test_djangos_cache_is_one_of_ours() -> None:
    cache = caches["default"]
    cache.set("a", {"b": 1}, 60)
    assert cache.get("a") == {"b": 1}
    assert cache.get_or_set("c", lambda: 5, DEFAULT_TIMEOUT) == 5
    assert cache.incr("c") == 6
    assert sorted(cache.get_many(["a", "c", "d"])) == ["a", "c"]
    assert cache.add("a", 1) is False
    assert cache.touch("a", DEFAULT_TIMEOUT) is True
    assert "a" in cache
    cache.delete_many(["a", "c"])
    assert cache.get("a", "nothing") == "nothing"
    assert isinstance(cache, LocMemCache)


def test_in_a_task() -> None:
    async def use() -> Any:
        cache = caches["default"]
        await cache.aset("a", 1, DEFAULT_TIMEOUT)
        await cache.aclose()
        return await cache.aget("a")

    assert asyncio.run(use()) == 1


def test_threads_share_one_store_and_the_end_of_a_request_closes_nothing(tmp_path: Any) -> None:
    closed = []

    class Noted(LocMemCache):
        def _close(self) -> None:
            closed.append(self)

    kind = integration.django_cache(Noted)
    one, same = kind("shared", {"TIMEOUT": 5}), kind("shared", {"TIMEOUT": 5})
    other, third = kind("shared", {"TIMEOUT": 6}), kind("else", {"TIMEOUT": 5})
    assert one is same
    assert len({id(one), id(other), id(third)}) == 3
    seen = []
    thread = threading.Thread(target=lambda: seen.append(caches["default"]))
    thread.start()
    thread.join()
    assert seen == [caches["default"]]
    one.close()
    request_finished.send(sender=None)
    assert closed == []
    assert (kind.__name__, kind.__doc__) == ("Noted", Noted.__doc__)


def test_a_local_tier_before_another_of_these_stores(tmp_path: Any) -> None:
    files = {"BACKEND": "cachemw.integrations.django.FileBasedCache", "LOCATION": str(tmp_path)}
    tier = {"BACKEND": "cachemw.integrations.django.TieredCache", "OPTIONS": {"shared": files}}
    with override_settings(CACHES={"default": tier, "behind": files}):
        in_time = threading.Thread(target=lambda: caches["default"].set("key", "value"), daemon=True)
        in_time.start()
        in_time.join(10)
        assert not in_time.is_alive()
        assert caches["default"].get("key") == caches["behind"].get("key") == "value"


def test_a_child_of_fork_has_stores_though_another_thread_was_making_one() -> None:
    kind = integration.__getattr__("LocMemCache")
    holding, done = threading.Event(), threading.Event()

    def hold() -> None:
        with type(kind)._lock:
            holding.set()
            done.wait(30)

    thread = threading.Thread(target=hold)
    thread.start()
    holding.wait(30)
    try:
        assert in_processes(2, lambda number: kind("of the child", {}).make_key("key")) == [":1:key"] * 2
    finally:
        done.set()
        thread.join()


def test_keys_are_checked_as_django_does() -> None:
    with pytest.warns(CacheKeyWarning, match="characters that will cause errors if used with memcached") as caught:
        caches["default"].set("a key", 1)
    assert [one.filename for one in caught] == [__file__]
    with pytest.warns(CacheKeyWarning, match="longer than 250"):
        caches["default"].get("k" * 251)
    tiered = integration.__getattr__("TieredCache")("", {"OPTIONS": {"shared": "redis://127.0.0.1:1"}})
    with pytest.warns(CacheKeyWarning, match="longer than 250"):
        tiered.make_and_validate_key("k" * 251)
    strict = integration.__getattr__("PyMemcacheCache")("127.0.0.1:1", {})
    with pytest.raises(InvalidCacheKey), warnings.catch_warnings():
        strict.get("a key")


@pytest.mark.parametrize("key", ["é" * 200, "\ud800"], ids=["too many bytes", "no UTF-8"])
@pytest.mark.parametrize("name", ["PyMemcacheCache", "PyLibMCCache"])
def test_what_a_visitor_writes_into_a_key_takes_no_memcached_server_away(name: str, key: str) -> None:
    """The server would refuse it, and count as one that does not answer, for everybody."""
    cache = integration.__getattr__(name)(f"127.0.0.1:{shared(start_memcached).port}", {})
    for call in (cache.get, cache.delete, cache.incr, lambda bad: cache.get_many(["good", bad])):
        with pytest.raises(InvalidCacheKey):
            call(key)
    cache.set("good", 1)
    assert cache.get("good") == 1
    BaseCache.close(cache)


def test_a_prefix_that_memcached_refuses_and_ascii_alone() -> None:
    kind = integration.__getattr__("PyMemcacheCache")
    with pytest.raises(ImproperlyConfigured, match="KEY_PREFIX"):
        kind("127.0.0.1:1", {"KEY_PREFIX": "é" * 100})
    with pytest.raises(InvalidCacheKey, match="not ASCII"):
        kind("127.0.0.1:1", {"OPTIONS": {"allow_unicode_keys": False}}).get("é")


def test_a_stores_own_rule_for_keys_holds() -> None:
    class Liberal(LocMemCache):
        def validate_key(self, key: str) -> None:
            """Takes everything."""

    key = "some key with spaces" * 15
    cache = integration.django_cache(Liberal)("liberal", {})
    cache.set(key, "a value")
    assert cache.get(key) == "a value"


def test_every_store_of_ours_has_its_name_here() -> None:
    for name in ("DummyCache", "FileBasedCache", "LocMemCache", "PyMemcacheCache", "RedisCache", "DatabaseCache"):
        backend = getattr(integration, name)
        assert issubclass(backend, BaseCache)
        assert backend is getattr(integration, name)
    with pytest.raises(AttributeError, match="no attribute 'NoCache'"):
        _ = integration.NoCache


def test_options_prefix_version_and_key_function_are_djangos() -> None:
    config = {
        "BACKEND": "cachemw.integrations.django.LocMemCache",
        "LOCATION": "django-options",
        "KEY_PREFIX": "p",
        "VERSION": 2,
        "KEY_FUNCTION": "tests.integrations.test_django.reversed_key",
        "OPTIONS": {"MAX_ENTRIES": 10},
    }
    with override_settings(CACHES={"default": config}):
        cache = caches["default"]
        assert cache.make_key("abc") == "cba-2-p"
        cache.set("abc", 1)
        assert cache.get("abc") == 1
        assert cache.get("abc", version=3) is None


def reversed_key(key: str, key_prefix: str, version: Any) -> str:
    return f"{key[::-1]}-{version}-{key_prefix}"


def test_djangos_sessions_in_a_store_of_ours() -> None:
    from django.contrib.sessions.backends.cache import SessionStore

    session = SessionStore()
    session["name"] = "Anne"
    session.save()
    assert SessionStore(session.session_key)["name"] == "Anne"


def test_a_middleware_shares_the_store_of_djangos_cache() -> None:
    with override_settings(MIDDLEWARE=BOTH):
        handler = integration.CacheMiddleware(lambda request: HttpResponse())
    assert handler.caching.line.pages.cache is caches["default"]


def test_no_setting_of_anybody_elses_is_read(monkeypatch: pytest.MonkeyPatch) -> None:
    """Django 6.1 warns whoever reads EMAIL_BACKEND, an error where warnings are."""
    read: set[str] = set()

    class Watched:
        def __getattr__(self, name: str) -> Any:
            read.add(name)
            return getattr(django_settings, name)

        def __dir__(self) -> list[str]:
            return dir(django_settings)

    monkeypatch.setattr("cachemw.integrations._django_settings.django_settings", Watched())
    integration.CacheMiddleware(lambda request: HttpResponse())
    assert {"CACHES", "LANGUAGE_CODE", "CACHE_MIDDLEWARE_SECONDS"} <= read
    assert not [name for name in read if name.startswith(("EMAIL", "SECRET", "DATABASES"))]


@pytest.mark.usefixtures("django_pages")
@pytest.mark.parametrize("came_through", [True, False])
def test_the_key_of_a_page_is_that_of_the_projects_middlewares(site: Site, came_through: bool) -> None:
    """Django's `get_cache_key(request)`: what it says is in the store, is there, by the project's own settings."""
    asked: list[Any] = []

    def page(request: Any) -> HttpResponse:
        asked.append(request)
        return HttpResponse("page", headers={"Vary": "X-A"})

    site.view(page)
    wanted: dict[str, Any] = {"Accept-Language": "pt-br", "X-A": "1"}
    with override_settings(CACHE_MIDDLEWARE_KEY_PREFIX="p", TIME_ZONE="America/Chicago"):
        visitor = site.visitor()
        visitor.get("/?a=1", **wanted)
        assert is_hit(visitor.get("/?a=1", **wanted))
        (request,) = asked
        if not came_through:
            made: Any = RequestFactory() if site.interface == "wsgi" else AsyncRequestFactory()
            request = made.get("/?a=1", headers={"Host": "testserver", **wanted})
            request.LANGUAGE_CODE = getattr(asked[0], "LANGUAGE_CODE", "en-us")
        key = get_cache_key(request)
        assert key is not None
        (record,) = caches["default"].read_records([key])
        assert record.head.status == 200
        assert learn_cache_key(request, HttpResponse(headers={"Vary": "X-A"})) == key
        assert get_cache_key(request, key_prefix="another") is None
        assert get_cache_key(RequestFactory().get("/other")) is None


def test_a_foreign_backend_cannot_hold_pages() -> None:
    config = {"default": {"BACKEND": "tests.integrations.test_django.Foreign"}}
    with (
        override_settings(CACHES=config),
        pytest.raises(InvalidCacheBackendError, match=r"a subclass of BaseCache.* name it in CACHE_MIDDLEWARE_ALIAS"),
    ):
        integration.CacheMiddleware(lambda request: HttpResponse())
    config["pages"] = {"BACKEND": "cachemw.integrations.django.LocMemCache", "LOCATION": "beside a foreign one"}
    with override_settings(CACHES=config, CACHE_MIDDLEWARE_ALIAS="pages"):
        handler = integration.CacheMiddleware(lambda request: HttpResponse())
    assert handler.caching.line.pages.cache.location == "beside a foreign one"


def test_an_unknown_alias_for_the_pages_is_named_with_its_setting() -> None:
    with (
        override_settings(CACHE_MIDDLEWARE_ALIAS="typo"),
        pytest.raises(InvalidCacheBackendError, match=r"CACHE_MIDDLEWARE_ALIAS is 'typo'.*'typo' doesn't exist"),
    ):
        integration.CacheMiddleware(lambda request: HttpResponse())


class Foreign:
    """A cache of somebody else's."""


# -- the page cache ---------------------------------------------------------------------------------------------------


@pytest.mark.usefixtures("django_pages")
def test_a_site_is_cached_by_djangos_own_settings(site: Site, page: Counter) -> None:
    site.view(lambda request: HttpResponse(page()))
    with override_settings(CACHE_MIDDLEWARE_SECONDS=30, CACHE_MIDDLEWARE_KEY_PREFIX="p"):
        visitor = site.visitor()
        first, second = visitor.get(), visitor.get()
    assert first.text_seen == second.text_seen == "page 1"
    assert first.headers["Cache-Control"] == second.headers["Cache-Control"] == "max-age=30"
    assert second.headers["Age"] == "0"
    assert second.headers["Content-Type"] == first.headers["Content-Type"]
    assert site.visitor().get().text_seen == "page 2"  # another prefix


@pytest.mark.usefixtures("django_pages")
def test_a_large_page_comes_whole_from_the_file_store(site: Site, page: Counter, tmp_path: Any) -> None:
    """Django's response holds it, whatever the server could send by itself."""
    files = {"default": {"BACKEND": "cachemw.integrations.django.FileBasedCache", "LOCATION": str(tmp_path)}}
    large = "x" * (3 * 2**20)
    site.view(lambda request: HttpResponse(page() + large))
    with override_settings(CACHES=files):
        visitor = site.visitor()
        if site.interface == "asgi":
            scope = visitor.client._base_scope
            pathsend: dict[str, Any] = {"extensions": {"http.response.pathsend": {}}}
            visitor.client._base_scope = lambda **request: {**scope(**request), **pathsend}
        else:
            visitor.client.defaults["wsgi.file_wrapper"] = FileWrapper
        pages = [visitor.get() for _ in range(4)]
    assert {one.text_seen for one in pages} == {f"page 1{large}"}
    assert [is_hit(one) for one in pages] == [False, True, True, True]


@pytest.mark.usefixtures("django_pages")
def test_queries_methods_and_errors(site: Site, page: Counter) -> None:
    def view(request: HttpRequest) -> HttpResponse:
        if request.GET.get("status"):
            return HttpResponse(page(), status=int(request.GET["status"]))
        return HttpResponse(page())

    site.view(view)
    visitor = site.visitor()
    assert visitor.get("/?a=1").text_seen == visitor.get("/?a=1").text_seen == "page 1"
    assert visitor.get("/?a=2").text_seen == "page 2"
    assert visitor.get("/?a=1", method="head").headers["Content-Length"] == "6"
    assert visitor.get("/?status=503").text_seen != visitor.get("/?status=503").text_seen
    calls = page.calls
    visitor.ask("post", "/?a=1", {})
    assert visitor.get("/?a=1").text_seen == f"page {calls + 2}"
    assert visitor.get("/missing").status_code == 404


@pytest.mark.usefixtures("django_pages")
def test_cookies_are_not_stored_and_reach_their_client(site: Site, page: Counter) -> None:
    def view(request: HttpRequest) -> HttpResponse:
        response = HttpResponse(page())
        response.set_cookie("who", page())
        response.set_cookie("other", "x")
        return response

    site.view(view)
    visitor = site.visitor()
    answers = [visitor.get(), site.visitor().get()]
    assert [answer.cookies["who"].value for answer in answers] == ["page 2", "page 4"]
    assert all(answer.cookies["other"].value == "x" for answer in answers)


def test_a_session_is_never_shown_to_a_stranger(site: Site, page: Counter) -> None:
    def login(request: Any, name: str) -> HttpResponse:
        request.session["name"] = name
        return HttpResponse("welcome")

    site.view(login, "login/<name>")
    site.view(lambda request: HttpResponse(f"{request.session.get('name')} {page()}"))
    with override_settings(MIDDLEWARE=HALVES):
        anne, bob, stranger = (site.visitor() for _ in range(3))
        for name, one in (("Anne", anne), ("Bob", bob)):
            assert "detail=set-cookie" in one.get(f"/login/{name}").headers["Cache-Status"]
            assert one.get().text_seen == one.get().text_seen
            assert one.get().text_seen.startswith(name)
        assert stranger.get().text_seen == "None page 3"


def test_djangos_session_cookie_is_known_by_the_name_it_has(site: Site, page: Counter) -> None:
    site.view(lambda request: HttpResponse(page()))
    with override_settings(MIDDLEWARE=BOTH, SESSION_COOKIE_NAME="biscuit"):
        known = site.visitor()
        known.client.cookies["biscuit"] = "abc"
        assert known.get().text_seen != known.get().text_seen
        with override_settings(CACHEMW_SESSION_COOKIES=()):
            known = site.visitor()
            known.client.cookies["biscuit"] = "abc"
            assert known.get().text_seen == known.get().text_seen


def test_languages_and_time_zones_are_part_of_the_key(site: Site, page: Counter) -> None:
    def view(request: HttpRequest) -> HttpResponse:
        return HttpResponse(f"{translation.get_language()} {timezone.get_current_timezone_name()} {page()}")

    site.view(view)
    with override_settings(MIDDLEWARE=HALVES, USE_I18N=True):
        visitor = site.visitor()
        for language in ("de", "en-us", "pt-br"):
            first, second = (visitor.get(**{"Accept-Language": language}) for _ in range(2))
            assert first.text_seen == second.text_seen
            assert first.text_seen.startswith(language)
            assert is_hit(second)
        assert is_hit(visitor.get(**{"Accept-Language": "de-AT, de;q=0.9"}))
        with timezone.override("Europe/Berlin"):
            if site.interface == "wsgi":  # the test client's own thread
                assert visitor.get(**{"Accept-Language": "de"}).text_seen == "de Europe/Berlin page 4"


LOCALE = "django.middleware.locale.LocaleMiddleware"


@pytest.mark.parametrize("order", [[*BOTH, LOCALE], [HALVES[0], HALVES[-1], LOCALE], [LOCALE, *BOTH]])
def test_a_page_is_not_looked_up_before_its_language_is_chosen(
    site: Site, page: Counter, order: list[str], caplog: pytest.LogCaptureFixture
) -> None:
    site.view(lambda request: HttpResponse(f"{translation.get_language()} {page()}"))
    early = order[-1] == LOCALE
    with override_settings(MIDDLEWARE=order, USE_I18N=True):
        visitor = site.visitor()
        answers = [visitor.get(**{"Accept-Language": language}) for language in ("en-us", "de", "en-us", "de")]
        assert [answer.text_seen[:2] for answer in answers] == ["en", "de", "en", "de"]
        assert is_hit(answers[-1]) is not early
        assert answers[0].headers["Cache-Status"].endswith("detail=language") is early
    assert [record.levelname for record in caplog.records if LOCALE[-16:] in record.message] == ["ERROR"] * early


def test_without_languages_in_the_key_its_order_does_not_matter(site: Site, page: Counter) -> None:
    site.view(lambda request: HttpResponse(page()))
    with override_settings(MIDDLEWARE=[*BOTH, LOCALE], USE_I18N=False):
        visitor = site.visitor()
        assert visitor.get().text_seen == visitor.get().text_seen


def test_what_was_chosen_by_what_a_client_accepts_is_for_who_accepts_it(site: Site, page: Counter) -> None:
    def view(request: Any) -> HttpResponse:
        return HttpResponse(f"{'text' if request.accepts('text/plain') else 'data'} {page()}")

    site.view(view)
    with override_settings(MIDDLEWARE=BOTH):
        visitor = site.visitor()
        for _ in range(2):
            assert visitor.get(Accept="text/plain").text_seen == "text page 1"
            assert visitor.get(Accept="application/json").text_seen == "data page 2"


def test_a_user_who_is_known_by_something_else_than_the_session(site: Site, page: Counter) -> None:
    """Django REST framework sets whom it has found, by a token in a cookie of its own or in a field."""

    def view(request: Any) -> HttpResponse:
        request.user = User(is_authenticated=bool(request.headers.get("X-Member")))
        return HttpResponse(f"hello {request.headers.get('X-Member')}", headers=says)

    class User:
        def __init__(self, is_authenticated: bool) -> None:
            self.is_authenticated = is_authenticated

    says: dict[str, str] = {}
    site.view(view)
    with override_settings(MIDDLEWARE=BOTH):
        visitor = site.visitor()
        for name in ("Anne", "Bob"):
            response = visitor.get(**{"X-Member": name})
            assert response.text_seen == f"hello {name}"
            assert response.headers["Cache-Status"].endswith("detail=authorization")
        assert visitor.get().text_seen == "hello None"
        assert is_hit(visitor.get())
        says["Vary"] = "X-Member"
        assert [visitor.get("/?varies", **{"X-Member": "Anne"}).text_seen for _ in range(2)] == ["hello Anne"] * 2
        assert is_hit(visitor.get("/?varies", **{"X-Member": "Anne"}))


class Forgetful:
    """A user who cannot be asked: the database is gone."""

    @property
    def is_authenticated(self) -> bool:
        raise ConnectionError("gone")


@pytest.mark.parametrize("user", ["Anne", Forgetful()])
def test_a_user_of_another_kind_is_one(site: Site, page: Counter, user: object) -> None:
    """A middleware of one's own may set a name, or what has nothing in common with Django's users."""

    def view(request: Any) -> HttpResponse:
        request.user = user
        return HttpResponse(page())

    site.view(view)
    with override_settings(MIDDLEWARE=BOTH):
        for number in (1, 2):
            response = site.visitor().get()
            assert (response.status_code, response.text_seen) == (200, f"page {number}")
            assert response.headers["Cache-Status"].endswith("detail=authorization")


def test_a_number_used_once_is_not_used_again(site: Site, page: Counter) -> None:
    """django-csp, in a few lines: it makes one where a page asks for it, and allows that further out."""

    def view(request: Any) -> HttpResponse:
        request._csp_nonce = page()
        return HttpResponse(request._csp_nonce, headers={"Cache-Control": "max-age=60"})

    site.view(view)
    with override_settings(MIDDLEWARE=BOTH):
        answers = [site.visitor().get() for _ in range(2)]
        assert [answer.text_seen for answer in answers] == ["page 1", "page 2"]
        assert answers[1].headers["Cache-Status"].endswith("detail=nonce")


INSIDE = [
    "django.contrib.sessions.middleware.SessionMiddleware",
    "django.middleware.csrf.CsrfViewMiddleware",
    "cachemw.integrations.django.CacheMiddleware",
]


def test_a_session_that_is_further_out_than_the_cache_is_not_shown_either(site: Site, page: Counter) -> None:
    def login(request: Any, name: str) -> HttpResponse:
        request.session["name"] = name
        return HttpResponse("welcome", headers={"Cache-Control": "max-age=60"})

    def home(request: Any) -> HttpResponse:
        return HttpResponse(f"{request.session.get('name')} {page()}", headers={"Cache-Control": "max-age=60"})

    site.view(login, "login/<name>")
    site.view(home)
    with override_settings(MIDDLEWARE=INSIDE):
        anne, bob, stranger = (site.visitor() for _ in range(3))
        for name, one in (("Anne", anne), ("Bob", bob)):
            assert one.get(f"/login/{name}").cookies
            assert one.get().text_seen.startswith(name)
            assert one.get().text_seen.startswith(name)
        assert stranger.get().text_seen.startswith("None")
        assert page.calls == 3


def test_a_form_with_its_token_is_not_stored(site: Site, page: Counter) -> None:
    from django.middleware.csrf import get_token

    site.view(lambda request: HttpResponse(get_token(request) + page(), headers={"Cache-Control": "max-age=60"}))
    with override_settings(MIDDLEWARE=INSIDE):
        visitor = site.visitor()
        assert visitor.get().text_seen != visitor.get().text_seen
        assert site.visitor().get().text_seen.endswith("page 3")


@pytest.mark.parametrize("kept_in", ["cookie", "session", "fallback"])
def test_a_message_to_one_visitor_is_not_shown_to_all(site: Site, page: Counter, kept_in: str) -> None:
    """That it was read, and which are left, its middleware says further out than the cache: too late."""
    from django.contrib import messages

    def order(request: Any) -> HttpResponse:
        messages.info(request, f"Thank you, {request.GET['name']}!")
        return HttpResponse(f"ordered {page()}", headers={"Cache-Control": "max-age=60"})

    def home(request: Any) -> HttpResponse:
        shown = " ".join(map(str, messages.get_messages(request)))
        return HttpResponse(f"{shown} {page()}", headers={"Cache-Control": "max-age=60"})

    site.view(order, "order")
    site.view(home)
    middleware = [*INSIDE[:2], "django.contrib.messages.middleware.MessageMiddleware", INSIDE[2]]
    storage = f"django.contrib.messages.storage.{kept_in}.{kept_in.title()}Storage"
    with override_settings(MIDDLEWARE=middleware, MESSAGE_STORAGE=storage):
        anne, bob, stranger = (site.visitor() for _ in range(3))
        for name, one in (("Anne", anne), ("Bob", bob)):
            assert one.get(f"/order?name={name}").text_seen.startswith("ordered")
            assert one.get(f"/order?name={name}").text_seen == f"ordered page {page.calls}"
            assert f"Thank you, {name}! Thank you, {name}! page" in one.get().text_seen
        assert "Thank you" not in stranger.get().text_seen
        assert stranger.get().text_seen == f" page {page.calls}"  # where there is none, it is a page for all
        calls = page.calls
        assert (stranger.get().text_seen, page.calls) == (f" page {calls}", calls)


def test_a_policy_that_stores_cookies(site: Site, page: Counter) -> None:
    """Django's own way; each cookie stays a field of its own."""

    def view(request: HttpRequest) -> HttpResponse:
        response = HttpResponse(page())
        response.set_cookie("one", "1")
        response.set_cookie("two", "2", httponly=True)
        return response

    site.view(view)
    with override_settings(MIDDLEWARE=BOTH, CACHEMW_SET_COOKIE="store"):
        visitor = site.visitor()
        visitor.get()
        hit = visitor.get()
    assert is_hit(hit)
    assert {name: cookie.value for name, cookie in hit.cookies.items()} == {"one": "1", "two": "2"}
    assert hit.cookies["two"]["httponly"]
    assert "Set-Cookie" not in hit.headers


@pytest.mark.usefixtures("django_pages")
def test_a_stream_is_stored_at_its_end(site: Site, page: Counter) -> None:
    def parts() -> Iterator[str]:
        yield page()
        yield " and more"

    async def parts_in_task() -> AsyncIterator[str]:
        for part in parts():
            yield part

    site.view(lambda request: StreamingHttpResponse(parts() if site.interface == "wsgi" else parts_in_task()))
    visitor = site.visitor()
    first = visitor.get()
    assert first.streaming
    first.close()
    assert first.text_seen == visitor.get().text_seen == "page 1 and more"
    assert is_hit(visitor.get())


@pytest.mark.usefixtures("django_pages")
def test_a_stream_of_the_other_kind_passes_and_is_not_stored(site: Site, page: Counter) -> None:
    """A plain iterator under ASGI, an asynchronous one under WSGI: Django warns of both, and serves them."""

    def parts() -> Iterator[str]:
        yield page()

    async def parts_in_task() -> AsyncIterator[str]:
        yield page()

    site.view(lambda request: StreamingHttpResponse(parts_in_task() if site.interface == "wsgi" else parts()))
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="StreamingHttpResponse must consume")
        for expected in ("page 1", "page 2"):
            response = site.visitor().get()
            assert response.text_seen == expected
            assert "detail=passed-on" in response.headers["Cache-Status"]
            assert "stored" not in response.headers["Cache-Status"]
            response.close()


def test_a_stream_that_is_left_is_not_stored(page: Counter) -> None:
    site = Site("wsgi")
    urlpatterns.clear()
    caches["default"].clear()

    def parts() -> Iterator[str]:
        yield page()
        yield "more"

    site.view(lambda request: StreamingHttpResponse(parts()))
    with override_settings(MIDDLEWARE=BOTH):
        response = Client().get("/")
        assert next(iter(response.streaming_content)) == b"page 1"
        response.close()
        again = Client().get("/")
        assert not is_hit(again)
        again.close()
    urlpatterns.clear()


def test_a_stream_of_tasks_that_is_left_is_not_stored(page: Counter) -> None:
    urlpatterns.clear()
    caches["default"].clear()

    async def parts() -> AsyncIterator[str]:
        yield page()
        yield "more"

    async def view(request: HttpRequest) -> StreamingHttpResponse:
        return StreamingHttpResponse(parts())

    urlpatterns.append(path("", view))

    async def leave() -> bool:
        response = await AsyncClient().get("/")
        stream = response.streaming_content
        assert await anext(stream) == b"page 1"
        await stream.aclose()
        return is_hit(await AsyncClient().get("/"))

    with override_settings(MIDDLEWARE=BOTH):
        assert asyncio.run(leave()) is False
    urlpatterns.clear()


@pytest.mark.usefixtures("django_pages")
def test_a_file_and_a_template(site: Site, page: Counter, tmp_path: Any) -> None:
    file = tmp_path / "report.txt"
    file.write_text("the report")
    with override_settings(TEMPLATES=[{"BACKEND": "django.template.backends.django.DjangoTemplates"}]):
        template = engines["django"].from_string("{{ page }}")
        site.view(lambda request: TemplateResponse(request, template, {"page": page()}))
        if site.interface == "wsgi":
            site.view(lambda request: FileResponse(file.open("rb")), "file")
        visitor = site.visitor()
        assert visitor.get().text_seen == visitor.get().text_seen == "page 1"
        if site.interface == "wsgi":
            first = visitor.get("/file")
            first.close()
            assert first.text_seen == visitor.get("/file").text_seen == "the report"
            assert is_hit(visitor.get("/file"))


@pytest.mark.usefixtures("django_pages")
def test_conditions_are_answered_from_the_store_and_by_the_view(site: Site, page: Counter, clock: Clock) -> None:
    def view(request: HttpRequest) -> HttpResponse:
        if request.headers.get("If-None-Match") == '"v1"':
            return HttpResponse(status=304)
        return HttpResponse(page(), headers={"ETag": '"v1"'})

    site.view(view)
    visitor = site.visitor()
    assert visitor.get(**{"If-None-Match": '"v1"'}).status_code == 304  # the view's; not stored
    assert visitor.get().text_seen == "page 1"
    response = visitor.get(**{"If-None-Match": '"v1"'})
    assert (response.status_code, response.text_seen) == (304, "")
    assert is_hit(response)
    clock.advance(601)
    assert visitor.get(**{"If-None-Match": '"v0"'}).text_seen == "page 2"


def test_a_stale_page_stands_in_for_a_site_that_fails(site: Site, page: Counter, clock: Clock) -> None:
    def view(request: HttpRequest) -> HttpResponse:
        if page() != "page 1":
            raise OSError("the database is gone")
        return HttpResponse("well", headers={"Cache-Control": "max-age=60, stale-if-error=300", "X-A": "1"})

    site.view(view)
    with override_settings(MIDDLEWARE=BOTH):
        visitor = site.visitor()
        visitor.client.raise_request_exception = False
        assert visitor.get().text_seen == "well"
        clock.advance(61)
        response = visitor.get()
        assert (response.status_code, response.text_seen, response.headers["X-A"]) == (200, "well", "1")
        clock.advance(1000)
        assert visitor.get().status_code == 500


def test_a_stale_page_is_refreshed_in_the_background_for_nobody_in_particular(page: Counter, clock: Clock) -> None:
    urlpatterns.clear()
    caches["default"].clear()
    refreshed = threading.Event()
    seen = []

    def view(request: HttpRequest) -> HttpResponse:
        seen.append(request.COOKIES.get("who"))
        if page.calls:
            refreshed.set()
        return HttpResponse(page(), headers={"Cache-Control": "max-age=60, stale-while-revalidate=300"})

    urlpatterns.append(path("", view))
    with override_settings(MIDDLEWARE=BOTH):
        visitor = Visitor("wsgi")
        visitor.client.cookies["who"] = "me"
        visitor.get()
        clock.advance(61)
        assert visitor.get().text_seen == "page 1"
        assert refreshed.wait(5)
    assert seen == ["me", None]
    urlpatterns.clear()


async def visited(client: Any, times: int) -> list[str]:
    """The page, so often; after each answer it is waited for what goes on in the background."""
    texts = []
    for _ in range(times):
        response = await client.get("/?a=1")
        body = b"".join([part async for part in response]) if response.streaming else response.content
        texts.append(body.decode())
        if going_on := [task for task in asyncio.all_tasks() if task.get_name() == "cachemw-refresh"]:
            await asyncio.wait(going_on)
    return texts


@pytest.mark.parametrize(
    ("middleware", "streams"),
    [(BOTH, False), (BOTH, True), (HALVES, False)],
    ids=["one place", "one place, a stream", "halves"],
)
def test_a_stale_page_is_refreshed_by_a_task(page: Counter, clock: Clock, middleware: list[str], streams: bool) -> None:
    urlpatterns.clear()
    caches["default"].clear()
    seen: list[Any] = []

    async def view(request: HttpRequest) -> Any:
        seen.append((request.GET["a"], request.COOKIES.get("who")))
        if page() == "page 3":
            raise OSError("the database is gone")
        fields = {"Cache-Control": "max-age=60, stale-while-revalidate=300"}

        async def parts() -> AsyncIterator[bytes]:
            yield f"page {page.calls}".encode()

        return (
            StreamingHttpResponse(parts(), headers=fields)
            if streams
            else HttpResponse(await anext(parts()), headers=fields)
        )

    urlpatterns.append(path("", view))
    with override_settings(MIDDLEWARE=middleware, USE_I18N=False):
        client = AsyncClient(raise_request_exception=False)
        client.cookies["who"] = "me"
        assert asyncio.run(visited(client, 2)) == ["page 1"] * 2
        clock.advance(61)
        assert asyncio.run(visited(client, 2)) == ["page 1", "page 2"]
        clock.advance(61)  # the next refresh fails, the one after it does not
        assert asyncio.run(visited(client, 3)) == ["page 2", "page 2", "page 4"]
    assert seen[:2] == [("1", "me"), ("1", None)]
    urlpatterns.clear()


def test_a_refresh_by_a_task_that_hangs_is_given_up(
    page: Counter, clock: Clock, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    urlpatterns.clear()
    caches["default"].clear()
    monkeypatch.setattr("cachemw.flights._REFRESH", 0.05)

    async def view(request: HttpRequest) -> HttpResponse:
        if page() == "page 2":
            await asyncio.Event().wait()
        return HttpResponse(f"{page.calls}", headers={"Cache-Control": "max-age=60, stale-while-revalidate=300"})

    urlpatterns.append(path("", view))
    with override_settings(MIDDLEWARE=BOTH):
        client = AsyncClient()
        asyncio.run(visited(client, 1))
        clock.advance(61)
        assert asyncio.run(visited(client, 3)) == ["1", "1", "3"]
    assert "The background refresh of / failed." in caplog.text
    urlpatterns.clear()


def test_an_error_that_no_handler_turns_into_a_response(page: Counter) -> None:
    """A middleware chain of one's own, say."""

    async def failing(request: Any) -> HttpResponse:
        raise OSError("the database is gone")

    from django.test import AsyncRequestFactory, RequestFactory

    def failing_plainly(request: Any) -> HttpResponse:
        raise OSError("the database is gone")

    for _ in range(2):
        with pytest.raises(OSError, match="the database is gone"):
            asyncio.run(integration.CacheMiddleware(failing)(AsyncRequestFactory().get("/failing")))
        with pytest.raises(OSError, match="the database is gone"):
            integration.CacheMiddleware(failing_plainly)(RequestFactory().get("/failing"))


def test_a_stale_page_stands_in_for_an_exception_too(page: Counter, clock: Clock) -> None:
    from django.test import AsyncRequestFactory, RequestFactory

    caches["default"].clear()

    def answer(request: Any) -> HttpResponse:
        if page() not in ("page 1", "page 3"):
            raise OSError("the database is gone")
        return HttpResponse("well", headers={"Cache-Control": "max-age=60, stale-if-error=300"})

    async def answer_in_task(request: Any) -> HttpResponse:
        return answer(request)

    plain, in_tasks = integration.CacheMiddleware(answer), integration.CacheMiddleware(answer_in_task)

    def ask_plainly() -> Any:
        return plain(RequestFactory().get("/plain"))

    def ask_in_task() -> Any:
        return asyncio.run(in_tasks(AsyncRequestFactory().get("/in-task")))

    for ask in (ask_plainly, ask_in_task):
        assert ask().content == b"well"
        clock.advance(61)
        assert ask().content == b"well"
    assert page.calls == 4


def test_a_query_as_servers_give_it_and_as_djangos_test_client_does(page: Counter) -> None:
    from django.test import AsyncRequestFactory

    caches["default"].clear()

    async def answer(request: Any) -> HttpResponse:
        return HttpResponse(page())

    middleware = integration.CacheMiddleware(answer)
    of_client, of_server = (AsyncRequestFactory().get("/query?a=1") for _ in range(2))
    of_server.scope["query_string"] = b"a=1"
    assert [asyncio.run(middleware(one)).content for one in (of_client, of_server)] == [b"page 1"] * 2


def test_a_plain_chain_under_asgi(page: Counter) -> None:
    from django.test import AsyncRequestFactory

    caches["default"].clear()
    middleware = integration.CacheMiddleware(lambda request: HttpResponse(page()))
    answers = [middleware(AsyncRequestFactory().get("/caf%C3%A9")) for _ in range(2)]
    assert [answer.content for answer in answers] == [b"page 1", b"page 1"]


def test_those_who_wait_get_the_page_of_the_one_who_fetches_it(page: Counter) -> None:
    """And a client that only wants a 304 gets that."""
    from django.test import AsyncRequestFactory

    caches["default"].clear()
    asking = 0
    everybody = asyncio.Event()

    async def answer(request: HttpRequest) -> HttpResponse:
        await everybody.wait()
        return HttpResponse(page(), headers={"ETag": '"1"'})

    middleware = integration.CacheMiddleware(answer)

    async def visit(number: int) -> tuple[int, bytes]:
        nonlocal asking
        asking += 1
        if asking == 20:  # who comes now waits in line before the view goes on
            everybody.set()
        headers = {"If-None-Match": '"1"'} if number % 2 else {}
        response = await middleware(AsyncRequestFactory().get("/", headers=headers))
        return response.status_code, response.content

    async def crowd() -> list[tuple[int, bytes]]:
        return await asyncio.gather(*(visit(number) for number in range(20)))

    assert asyncio.run(crowd()) == [(200, b"page 1"), (304, b"")] * 10
    assert page.calls == 1


def test_concurrent_misses_call_the_view_once(page: Counter) -> None:
    urlpatterns.clear()
    caches["default"].clear()

    asking: list[None] = []
    everybody = asyncio.Event()

    async def view(request: HttpRequest) -> HttpResponse:
        await everybody.wait()
        return HttpResponse(page())

    urlpatterns.append(path("", view))

    async def visit() -> bytes:
        asking.append(None)
        if len(asking) == 20:
            everybody.set()
        body: bytes = (await AsyncClient().get("/")).content
        return body

    async def crowd() -> set[bytes]:
        return set(await asyncio.gather(*(visit() for _ in range(20))))

    with override_settings(MIDDLEWARE=BOTH):
        assert asyncio.run(crowd()) == {b"page 1"}
    urlpatterns.clear()


# -- decorators on Django's views -------------------------------------------------------------------------------------


@pytest.mark.usefixtures("django_pages")
def test_decorators_on_djangos_views(site: Site, page: Counter, clock: Clock) -> None:
    def answer(request: HttpRequest) -> HttpResponse:
        return HttpResponse(page())

    urlpatterns.append(path("", cache_page(60)(vary_on_headers("X-Kind")(site.of_kind(answer)))))
    urlpatterns.append(path("public", cache_control(public=True)(site.of_kind(answer))))
    urlpatterns.append(path("never", never_cache(site.of_kind(answer))))
    visitor = site.visitor()
    response = visitor.get()
    assert response.headers["Cache-Control"] == "max-age=60"
    assert response.headers["Vary"].startswith("X-Kind")
    assert is_hit(visitor.get())
    assert not is_hit(visitor.get(**{"X-Kind": "a"}))
    assert "public" in visitor.get("/public").headers["Cache-Control"]
    assert visitor.get("/never").text_seen != visitor.get("/never").text_seen


def test_without_the_middleware_cache_page_says_what_to_do(site: Site) -> None:
    urlpatterns.append(path("", cache_page(60)(site.of_kind(lambda request: HttpResponse()))))
    with (
        override_settings(MIDDLEWARE=[]),
        pytest.raises(
            TypeError, match=r"in Django, it only says .* Put 'cachemw\.integrations\.django\.CacheMiddleware' into"
        ),
    ):
        site.visitor().get()


@pytest.mark.usefixtures("django_pages")
def test_cache_page_may_name_the_store_and_the_prefix_of_the_middleware(site: Site, page: Counter) -> None:
    decorator = cache_page(60, cache="default", key_prefix="p")
    urlpatterns.append(path("", decorator(site.of_kind(lambda request: HttpResponse(page())))))
    with override_settings(CACHE_MIDDLEWARE_KEY_PREFIX="p"):
        assert site.visitor().get().headers["Cache-Control"] == "max-age=60"
        assert is_hit(site.visitor().get())


@pytest.mark.usefixtures("django_pages")
@pytest.mark.parametrize("apart", [{"cache": "other"}, {"key_prefix": "p"}], ids=str)
def test_a_page_apart_from_the_middlewares_is_refused_with_what_to_do(site: Site, apart: dict[str, str]) -> None:
    urlpatterns.append(path("", cache_page(60, **apart)(site.of_kind(lambda request: HttpResponse()))))
    backend = "cachemw.integrations.django.LocMemCache"
    both = {name: {"BACKEND": backend, "LOCATION": f"apart {name}"} for name in ("default", "other")}
    with override_settings(CACHES=both), pytest.raises(TypeError, match="leave out cache and key_prefix here"):
        site.visitor().get()


@pytest.mark.usefixtures("django_pages")
def test_single_views_alone(site: Site, page: Counter) -> None:
    view = site.of_kind(lambda request: HttpResponse(page()))
    urlpatterns.extend([path("", cache_page(60)(view)), path("other", view)])
    with override_settings(CACHE_MIDDLEWARE_SECONDS=0):
        visitor = site.visitor()
        assert [is_hit(visitor.get(url)) for url in ("/", "/", "/other", "/other")] == [False, True, False, False]


def test_conditional_is_for_other_frameworks(site: Site) -> None:
    urlpatterns.append(path("", conditional(etag=lambda request: "x")(site.of_kind(lambda request: HttpResponse()))))
    with (
        override_settings(MIDDLEWARE=[]),
        pytest.raises(TypeError, match="without a request of Flask's or Starlette's"),
    ):
        site.visitor().get()


# -- sharing ----------------------------------------------------------------------------------------------------------


def test_a_django_site_shares_its_pages_with_flask_and_starlette(site: Site, page: Counter) -> None:
    """The same store, prefix and switches, under one host: each answers from the others' pages."""
    from flask import Flask
    from starlette.applications import Starlette
    from starlette.responses import PlainTextResponse
    from starlette.routing import Route
    from starlette.testclient import TestClient

    from cachemw.integrations.flask import CacheMW

    config = {"default": {"BACKEND": "cachemw.backends.locmem.LocMemCache", "LOCATION": "django-shared"}}
    Caches({"CACHES": config})["default"].clear()
    site.view(lambda request, number: HttpResponse(f"django {page()}"), "news/<int:number>")

    flask = Flask("shared")
    flask.config.update(CACHES=config, CACHEMW_SECONDS=60)
    flask.add_url_rule("/news/<int:number>", view_func=lambda number: f"flask {page()}")
    cachemw = CacheMW(flask)

    async def news(request: Any) -> PlainTextResponse:
        return PlainTextResponse(f"starlette {page()}")

    starlette = asgi.CacheMiddleware(
        Starlette(routes=[Route("/news/{number}", news)]), cache=Caches({"CACHES": config})["default"]
    )
    with override_settings(MIDDLEWARE=BOTH, CACHES=config, USE_I18N=False, USE_TZ=False):
        visitor = site.visitor()

        def of_django(number: int) -> str:
            return str(visitor.get(f"/news/{number}").text_seen)

        def of_flask(number: int) -> str:
            return flask.test_client().get(f"/news/{number}", base_url="http://testserver", buffered=True).text

        def of_starlette(number: int) -> str:
            return str(TestClient(starlette).get(f"/news/{number}").text)

        everybody = (of_django, of_flask, of_starlette)
        for number, first in enumerate(everybody):
            made = first(number)
            assert [one(number) for one in everybody] == [made] * 3
        with flask.test_request_context(base_url="http://testserver"):
            assert cachemw.purge("/news/0") > 0
        assert visitor.get("/news/0").text_seen == "django page 4"


@pytest.mark.parametrize("prefix", ["", "/mounted"])
def test_purging_what_the_project_has_stored(site: Site, page: Counter, prefix: str) -> None:
    """From a view, by URL; from anywhere, by tag."""

    def change(request: HttpRequest) -> HttpResponse:
        return HttpResponse(str(integration.purge(request.build_absolute_uri(reverse("page")))))

    urlpatterns.append(
        path("", site.of_kind(lambda request: HttpResponse(page(), headers={"Cache-Tag": "news"})), name="page")
    )
    urlpatterns.append(path("change", change))
    of_site = override_settings(MIDDLEWARE=BOTH, CACHE_MIDDLEWARE_KEY_PREFIX="site", FORCE_SCRIPT_NAME=prefix or None)
    with of_site, override_script_prefix(f"{prefix}/"):  # the handlers set it, the test client does not
        visitor = site.visitor()
        visitor.get()
        assert is_hit(visitor.get())
        assert int(visitor.get("/change").text_seen) > 0
        assert not is_hit(visitor.get())
        assert is_hit(visitor.get())
        assert asyncio.run(integration.apurge(tags=["news"])) > 0
        assert not is_hit(visitor.get())
    with override_settings(CACHES={"default": {"BACKEND": "cachemw.backends.locmem.LocMemCache", "LOCATION": "else"}}):
        assert integration.purge("http://testserver/") == 0  # of another project, with a store of its own


def test_around_djangos_own_handlers(page: Counter) -> None:
    """Without any code of Django's or ours in its settings."""
    from django.core.handlers.asgi import ASGIHandler
    from django.core.handlers.wsgi import WSGIHandler
    from starlette.testclient import TestClient
    from werkzeug.test import Client as WSGIClient

    urlpatterns.clear()
    urlpatterns.append(path("", lambda request: HttpResponse(page())))
    with override_settings(MIDDLEWARE=[]):
        in_threads = WSGIClient(wsgi.CacheMiddleware(WSGIHandler(), cache="locmem://around-django"))
        assert in_threads.get("/", buffered=True).text == in_threads.get("/", buffered=True).text == "page 1"
        in_tasks = TestClient(asgi.CacheMiddleware(ASGIHandler(), cache="locmem://around-django-asgi"))
        assert in_tasks.get("/").text == in_tasks.get("/").text == "page 2"
    urlpatterns.clear()


@pytest.mark.parametrize("interface", ["wsgi", "asgi"])
@pytest.mark.parametrize("middlewares", [BOTH, [*BOTH, *BOTH]], ids=["one", "two"])
@pytest.mark.parametrize("knows", ["user", "_csp_nonce"])
def test_a_cache_around_the_project_does_not_store_what_that_of_the_project_refuses(
    interface: str, middlewares: list[str], knows: str
) -> None:
    from django.core.handlers.asgi import ASGIHandler
    from django.core.handlers.wsgi import WSGIHandler
    from starlette.testclient import TestClient
    from werkzeug.test import Client as WSGIClient

    def view(request: HttpRequest) -> HttpResponse:
        card = request.headers.get("X-Door-Card")
        if card is not None:
            setattr(request, knows, card)
        return HttpResponse(f"for {card}")

    urlpatterns.clear()
    urlpatterns.append(path("", view))
    around = f"locmem://around-{interface}-{len(middlewares)}-{knows}"
    with override_settings(MIDDLEWARE=middlewares):
        client: Any = (
            WSGIClient(wsgi.CacheMiddleware(WSGIHandler(), cache=around), use_cookies=False)
            if interface == "wsgi"
            else TestClient(asgi.CacheMiddleware(ASGIHandler(), cache=around))
        )
        assert client.get("/", headers={"X-Door-Card": "alice"}).text == "for alice"
        assert client.get("/").text == "for None"
        assert client.get("/", headers={"Cookie": "session=bobby", "X-Door-Card": "bobby"}).text == "for bobby"
    urlpatterns.clear()


@pytest.mark.parametrize(
    ("project", "found"),
    [
        ("", "60.0 <LocMemCache environment> (':timezone',) environment"),
        ("CACHE_MIDDLEWARE_SECONDS=30, USE_I18N=True", "30.0 <LocMemCache environment> (':language', ':timezone')"),
        (
            "CACHES={'default': {'BACKEND': 'cachemw.backends.locmem.LocMemCache', 'LOCATION': 'project'}}",
            "<LocMemCache p",
        ),
        ("CACHE_MIDDLEWARE_KEY_PREFIX='project'", "project"),
        ("CACHE_MIDDLEWARE_SECONDS=600, CACHEMW_POLICY='rfc9111'", "600.0 <LocMemCache environment>"),
        ("CACHEMW_POLICY='rfc9111'", "60.0 <LocMemCache environment>"),
    ],
)
def test_the_environment_comes_after_the_project_and_before_djangos_defaults(project: str, found: str) -> None:
    """Every project has a CACHE_MIDDLEWARE_SECONDS, a USE_I18N and CACHES, whether it says so or not."""
    code = f"""
from django.conf import settings
settings.configure(SECRET_KEY='x', {project})
from cachemw.integrations.django import CacheMiddleware
caching = CacheMiddleware(lambda request: None).caching
print(caching.seconds, caching.line.pages.cache, caching.line.properties, caching.key_prefix)
"""
    told = {"SECONDS": "60", "URL": "locmem://environment", "USE_I18N": "0", "KEY_PREFIX": "environment"}
    environ = {**os.environ, **{f"CACHEMW_{name}": value for name, value in told.items()}, "CACHES": "somebody's own"}
    ran = subprocess.run([sys.executable, "-c", code], env=environ, capture_output=True, text=True, timeout=60)
    assert found in ran.stdout, ran.stderr


def test_the_core_needs_no_django() -> None:
    code = "import sys; sys.modules['django'] = None; import cachemw; cachemw.cache_page(60)(lambda: None)"
    assert subprocess.run([sys.executable, "-c", code], timeout=60).returncode == 0
