"""Middlewares between the halves, hooks around them, languages in the key."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from itertools import count
from typing import Any

import pytest

from cachemw import Hooks, ImproperlyConfigured, Settings, activate_language, asgi, wsgi
from cachemw.backends.locmem import LocMemCache
from cachemw.locale import ASGILocaleMiddleware, WSGILocaleMiddleware
from cachemw.rfc9111.fields import format_date
from tests.scenarios.conftest import START, Answer, Asked, Script, Site

names = count()


def halves(site: Site, between: Callable[[Any], Any] = lambda app: app, **options: Any) -> None:
    """Update outermost, `between` in the middle, Fetch innermost."""
    cache = LocMemCache(f"halves-{next(names)}")
    module: Any = wsgi if site.interface == "wsgi" else asgi

    def around(app: Any, interface: str) -> Any:
        inner = module.FetchFromCacheMiddleware(app, cache=cache, **options)
        return module.UpdateCacheMiddleware(between(inner), cache=cache, **options)

    site.build(around=around)


def test_the_two_halves_work_as_one(site: Site) -> None:
    halves(site)
    assert "stored" in site.get().trace
    assert site.get().hit
    site.request("POST")
    assert not site.get().hit


def test_the_inner_half_alone_stores_nothing(site: Site) -> None:
    module: Any = wsgi if site.interface == "wsgi" else asgi
    site.build(around=lambda app, interface: module.FetchFromCacheMiddleware(app, cache=LocMemCache("alone")))
    for _ in range(2):
        assert not site.get().hit
    assert len(site.calls) == 2


def test_the_outer_half_alone_stores_nothing(site: Site) -> None:
    module: Any = wsgi if site.interface == "wsgi" else asgi
    site.build(around=lambda app, interface: module.UpdateCacheMiddleware(app, cache=LocMemCache("alone")))
    for _ in range(2):
        assert not site.get().hit
    assert len(site.calls) == 2


def test_a_middleware_between_them_may_forbid_storing(site: Site) -> None:
    """What the outer half sees is what counts: a session middleware's cookie, say."""

    def with_cookie(app: Any) -> Any:
        if site.interface == "wsgi":

            def wrapped(environ: Any, start_response: Any) -> Any:
                def start(status: str, headers: Any, exc_info: Any = None) -> Any:
                    return start_response(status, [*headers, ("Set-Cookie", "session=1")])

                return app(environ, start)

            return wrapped

        async def awrapped(scope: Any, receive: Any, send: Any) -> None:
            async def asend(message: Any) -> None:
                if message["type"] == "http.response.start":
                    message = {**message, "headers": [*message["headers"], (b"set-cookie", b"session=1")]}
                await send(message)

            await app(scope, receive, asend)

        return awrapped

    halves(site, with_cookie)
    for _ in range(2):
        assert not site.get().hit


def localized(site: Site, **settings: Any) -> None:
    kind: Any = WSGILocaleMiddleware if site.interface == "wsgi" else ASGILocaleMiddleware
    halves(site, lambda app: kind(app, languages=["en", "de"]), settings=Settings(use_i18n=True, **settings))


def test_each_language_has_its_page(site: Site) -> None:
    localized(site)
    site.respond = lambda asked: Script(body=asked.fields.get("accept-language", "-").encode())
    for language in ("de", "en", "de", "en"):
        answer = site.get("/", {"Accept-Language": language})
        assert answer.body == language.encode()
        assert answer["content-language"] == language
    assert len(site.calls) == 2
    assert site.get("/", {"Accept-Language": "de-AT, fr;q=0.5"}).hit


def test_an_application_that_chooses_its_language_itself(site: Site) -> None:
    """The page is stored under the language that the application activated; it is never another one's page."""
    halves(site, settings=Settings(use_i18n=True))

    def respond(asked: Asked) -> Script:
        language = asked.fields.get("x-language", "en")
        activate_language(language)
        return Script(body=language.encode())

    site.respond = respond
    for language in ("de", "en", "fr", "de"):
        assert site.get("/", {"X-Language": language}).body == language.encode()


@pytest.mark.parametrize("outcome", ["miss", "hit", "short"])
def test_hooks_run_around_misses_hits_and_short_circuits(site: Site, outcome: str) -> None:
    hooks = Hooks()
    ran: list[str] = []
    site.build(hooks=hooks)
    if outcome == "hit":
        site.get()

    @hooks.before_request
    def first(request: Any) -> Any:
        ran.append(f"before {request.method}")
        if outcome == "short":
            from starlette.responses import Response as AResponse
            from werkzeug.wrappers import Response

            return Response("denied", 403) if site.interface == "wsgi" else AResponse("denied", 403)
        return None

    @hooks.before_request
    def second(request: Any) -> None:
        ran.append("before 2")

    @hooks.after_request
    def patch(response: Any) -> Any:
        ran.append(f"after {response.status_code}")
        response.headers["X-Patched"] = "yes"
        return response

    @hooks.after_request
    def inner(response: Any) -> None:
        ran.append("after inner")

    @hooks.teardown_request
    def close(error: BaseException | None) -> None:
        ran.append(f"teardown {error}")

    answer = site.get()
    assert answer["x-patched"] == "yes"
    assert answer.status == (403 if outcome == "short" else 200)
    assert answer.hit is (outcome == "hit")
    before = ["before GET"] if outcome == "short" else ["before GET", "before 2"]
    assert ran == [*before, "after inner", f"after {answer.status}", "teardown None"]


def test_a_before_hook_that_returns_no_response_is_told_so(site: Site) -> None:
    hooks = Hooks()
    site.build(hooks=hooks)
    after: list[Any] = []
    hooks.after_request(after.append)
    hooks.before_request(lambda request: "denied")
    error = site.get().error
    assert isinstance(error, TypeError)
    assert "before_request hook returned 'denied'; allowed" in str(error)
    assert after == []


def test_an_after_hook_that_returns_no_response_is_told_so(site: Site) -> None:
    hooks = Hooks()
    site.build(hooks=hooks)
    hooks.after_request(lambda response: "changed")
    error = site.get().error
    assert isinstance(error, TypeError)
    assert "after_request hook returned 'changed'; allowed" in str(error)


def test_a_login_check_guards_cached_pages_too(site: Site) -> None:
    hooks = Hooks()
    site.build(hooks=hooks)
    site.get("/admin/x")

    @hooks.scope("/admin", name="admin").before_request
    def login(request: Any) -> Any:
        from starlette.responses import Response as AResponse
        from werkzeug.wrappers import Response

        if "cookie" not in request.headers:
            return Response("log in", 401) if site.interface == "wsgi" else AResponse("log in", 401)
        return None

    assert site.get("/admin/x").status == 401
    assert site.get("/admin/x", {"Cookie": "theme=1"}).hit
    assert site.get("/administration").status == 200


def test_what_after_hooks_do_is_not_stored(site: Site) -> None:
    hooks = Hooks()
    site.build(hooks=hooks)
    count = 0

    @hooks.after_request
    def cookie(response: Any) -> Any:
        nonlocal count
        count += 1
        response.set_cookie("visit", str(count))
        return response

    assert site.get()["set-cookie"] == "visit=1; Path=/" + ("" if site.interface == "wsgi" else "; SameSite=lax")
    second = site.get()
    assert second.hit
    assert len(second.lines("set-cookie")) == 1
    assert "visit=2" in second.lines("set-cookie")[0]


def test_teardown_gets_the_application_s_exception(site: Site) -> None:
    hooks = Hooks()
    site.build(hooks=hooks)
    errors: list[BaseException | None] = []
    hooks.teardown_request(errors.append)
    for script in (Script(early=LookupError("early")), Script(body=[b"a"], error=LookupError("late"))):
        site.answers(script)
        assert isinstance(site.get(f"/{script.early}").error, LookupError)
    assert [type(error) for error in errors] == [LookupError, LookupError]


def test_teardown_runs_when_the_client_leaves(site: Site) -> None:
    hooks = Hooks()
    site.build(hooks=hooks).page([b"a", b"b", b"c"])
    torn: list[BaseException | None] = []
    hooks.teardown_request(torn.append)
    site.get(stop_after=1)
    assert len(torn) == 1


def test_async_hooks_are_for_asgi(site: Site) -> None:
    hooks = Hooks()

    @hooks.before_request
    async def check(request: Any) -> None:
        await asyncio.sleep(0)

    if site.interface == "wsgi":
        with pytest.raises((TypeError, ImproperlyConfigured), match="check"):
            site.build(hooks=hooks)
    else:
        assert site.build(hooks=hooks).get().status == 200


def test_rules_from_outside(site: Site) -> None:
    from cachemw import Rule, purge

    rules = [
        Rule("/never/*", never=True),
        Rule("/long/*", lifetime=1000, tags=("long",), ignore_query=("utm_*",)),
        Rule("/html/*", content_types=("image/*",), never=True),
        Rule("/errors/*", statuses=("4xx",), lifetime=50),
    ]
    site.build(rules=rules, seconds=10)
    for _ in range(2):
        assert not site.get("/never/x").hit
    site.get("/long/x?utm_a=1")
    site.clock.advance(900)
    assert site.get("/long/x?utm_a=2").hit
    assert purge(tags=["long"], caching=site.middleware.caching) == 1
    assert not site.get("/long/x").hit
    site.answers(Script(fields=[("Content-Type", "image/png")]))
    for _ in range(2):
        assert not site.get("/html/x").hit
    site.answers(Script(404))
    site.get("/errors/x")
    site.clock.advance(40)
    assert site.get("/errors/x").hit


def test_cache_status_tells_the_key_only_when_asked(site: Site) -> None:
    from cachemw import Policy

    assert "key=" not in site.get().trace
    site.build(policy=Policy(cache_status_key=True, cache_status="edge"))
    assert site.get().trace.startswith("edge; fwd=uri-miss; fwd-status=200; stored; ttl=600; key=")
    assert "; hit; ttl=600; key=" in site.get().trace
    site.build(policy=Policy(cache_status=None))
    assert site.get()["cache-status"] is None


def test_a_miss_and_a_hit_in_the_same_moment_tell_the_same_ttl(site: Site) -> None:
    def respond(asked: Asked) -> Script:
        site.clock.advance(0.4)
        return Script()

    site.respond = respond
    assert site.get().trace.endswith("; stored; ttl=600")
    assert site.get().trace.endswith("; hit; ttl=600")
    site.clock.advance(0.7)
    assert site.get().trace.endswith("; hit; ttl=599")


def test_django_s_policy_is_django_s(site: Site) -> None:
    from cachemw import Policy

    site.build(policy=Policy.django())
    site.page(cache_control="s-maxage=5", etag='"1"')
    site.get()
    site.clock.advance(100)
    assert isinstance(answer := site.get("/", {"If-None-Match": '"1"', "Range": "bytes=0-0"}), Answer)
    assert (answer.status, answer.body) == (200, b"page")
    assert answer["age"] == "100"
    assert len(site.calls) == 1
    site.request("POST")
    site.get()
    assert len(site.calls) == 2


@pytest.mark.parametrize(
    ("said", "control", "expires"),
    [
        ({}, "max-age=600", 600),
        ({"cache_control": "max-age=33"}, "max-age=33", 33),
        ({"cache_control": "max-age=33, public"}, "public, max-age=33", 33),
        ({"cache_control": "max-age=33", "expires": format_date(START + 5)}, "max-age=33", 5),
        ({"expires": format_date(START + 5)}, "max-age=600", 5),
    ],
)
def test_django_tells_every_lifetime_twice(site: Site, said: dict[str, Any], control: str, expires: int) -> None:
    from cachemw import Policy

    site.build(policy=Policy.django())
    site.page(**said)
    for _ in range(2):
        answer = site.get()
        assert answer["cache-control"] == control
        assert answer["expires"] == format_date(START + expires)
    assert len(site.calls) == 1


def test_rules_speak_of_the_path_below_the_mount(clock: Any) -> None:
    from cachemw import Rule

    site = Site("asgi", clock)
    site.build(rules=[Rule("/account/*", never=True)])
    inner = site.middleware

    async def mounted(scope: Any, receive: Any, send: Any) -> None:
        path = "/site" + scope["path"]
        await inner({**scope, "root_path": "/site", "path": path, "raw_path": path.encode()}, receive, send)

    site.middleware = mounted
    for _ in range(2):
        assert not site.get("/account/1").hit
    site.get("/news")
    assert site.get("/news").hit
