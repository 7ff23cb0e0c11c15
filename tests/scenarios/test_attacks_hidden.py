"""What a middleware between the halves takes out of a request it has made use of: a login, a session, a tenant.

The inner half sees the request without it, and so would its key; the page that comes of it is somebody's all the same.
"""

from __future__ import annotations

import random
from collections.abc import Callable
from io import BytesIO
from itertools import count
from typing import Any

import pytest

from cachemw import Hooks, Policy, asgi, get_language, get_timezone, wsgi
from cachemw.backends.locmem import LocMemCache
from tests.scenarios.conftest import Asked, Script, Site
from tests.scenarios.test_attacks_shells import ask_asgi, ask_wsgi, environ_of
from tests.scenarios.test_halves_hooks_locale import halves

names = count()

POLICIES = [Policy(), Policy.django(), Policy.rfc9111()]


def between(site: Site, change: Callable[[Any], Any]) -> tuple[Callable[[Any], Any], list[Any]]:
    """A middleware that changes each request; and what it was told last."""
    told: list[Any] = []

    def around(app: Any) -> Any:
        def changed(environ: Any, start_response: Any) -> Any:
            environ = dict(environ)
            told[:] = [change(environ)]
            return app(environ, start_response)

        async def changed_in_task(scope: Any, receive: Any, send: Any) -> None:
            scope = {**scope, "headers": list(scope["headers"])}
            told[:] = [change(scope)]
            await app(scope, receive, send)

        return changed if site.interface == "wsgi" else changed_in_task

    return around, told


def through(site: Site, change: Callable[[Any], Any], says: list[tuple[str, str]], policy: Policy) -> None:
    """Halves around a middleware that changes a request, and an application to which it tells what it has changed."""
    around, told = between(site, change)
    halves(site, around, policy=policy)
    site.respond = lambda asked: Script(fields=says, body=f"for {told[0]}".encode())


def taking(name: str) -> Callable[[Any], str]:
    def take(request: Any) -> str:
        if "headers" not in request:
            return str(request.pop("HTTP_" + name.upper().replace("-", "_"), "nobody"))
        raw = name.lower().encode()
        found = b", ".join(value for field, value in request["headers"] if field == raw) or b"nobody"
        request["headers"][:] = [field for field in request["headers"] if field[0] != raw]
        return found.decode()

    return take


CASES = [
    ("Cookie", [], Policy()),
    *[("Cookie", [("Vary", "Cookie"), ("Cache-Control", "max-age=60")], policy) for policy in POLICIES],
    *[("Authorization", [("Cache-Control", "max-age=60")], policy) for policy in POLICIES],
    *[("X-API-Key", [("Cache-Control", "max-age=60")], policy) for policy in POLICIES],
    *[("Accept-Language", [("Vary", "Accept-Language, Accept"), ("Cache-Control", "max-age=60")], p) for p in POLICIES],
]


@pytest.mark.parametrize(("name", "says", "policy"), CASES)
def test_a_field_that_was_taken_out_tells_visitors_apart(
    site: Site, name: str, says: list[tuple[str, str]], policy: Policy
) -> None:
    through(site, taking(name), says, policy)
    for _ in range(3):
        for who in ("session=alice", "session=bob", ""):
            assert site.get("/", {name: who} if who else {}).body == f"for {who or 'nobody'}".encode()
    guarded = not says or (name == "Authorization" and policy.authorization != "vary")
    assert len(site.calls) == (7 if guarded else 3)


def test_a_field_that_came_in_is_not_one_that_was_put_there(site: Site) -> None:
    """Nobody gets another's page by swapping what is taken out with what is left."""

    def swap(request: Any) -> str:
        if "headers" in request:
            request["headers"][:] = [(n, v[::-1] if n == b"x-tenant" else v) for n, v in request["headers"]]
            return str(dict(request["headers"])[b"x-tenant"].decode())
        request["HTTP_X_TENANT"] = request["HTTP_X_TENANT"][::-1]
        return str(request["HTTP_X_TENANT"])

    through(site, swap, [("Vary", "X-Tenant"), ("Cache-Control", "max-age=60")], Policy.rfc9111())
    for _ in range(2):
        for tenant in ("ab", "ba"):
            assert site.get("/", {"X-Tenant": tenant}).body == f"for {tenant[::-1]}".encode()
    assert len(site.calls) == 2


def host(request: Any) -> str:
    if "headers" in request:
        came = dict(request["headers"])[b"host"].decode()
        request["headers"][:] = [(n, b"internal" if n == b"host" else v) for n, v in request["headers"]]
        return str(came)
    came, request["HTTP_HOST"] = request["HTTP_HOST"], "internal"
    return str(came)


def query(request: Any) -> str:
    name = "QUERY_STRING" if "QUERY_STRING" in request else "query_string"
    came = request[name]
    request[name] = came[:0]
    return str(came if name == "QUERY_STRING" else came.decode())


def path(request: Any) -> str:
    if "raw_path" in request:
        request["raw_path"], came = b"/", request["path"]
        request["path"] = "/"
        return str(came)
    came, request["PATH_INFO"] = request["PATH_INFO"], "/"
    return str(came)


@pytest.mark.parametrize("policy", POLICIES)
@pytest.mark.parametrize(
    ("change", "one", "other"),
    [
        (host, ("/", {"Host": "a.example"}), ("/", {"Host": "b.example"})),
        (query, ("/?token=alice", {}), ("/?token=bob", {})),
        (path, ("/alice", {}), ("/bob", {})),
    ],
)
def test_a_url_that_was_shortened_is_the_one_that_came_in(
    site: Site, change: Callable[[Any], str], one: Any, other: Any, policy: Policy
) -> None:
    through(site, change, [("Cache-Control", "max-age=60")], policy)
    first, second = site.get(*one).body, site.get(*other).body
    assert first != second
    assert site.get(*one).body == first
    assert site.get(*other).body == second
    assert len(site.calls) == 2


@pytest.mark.parametrize("name", ["Cookie", "Authorization", "X-API-Key"])
@pytest.mark.parametrize("with_halves", [True, False])
def test_a_cache_within_another_one_knows_what_that_one_does(site: Site, name: str, with_halves: bool) -> None:
    """The inner one alone could know nothing of it; the outer one has seen it."""
    module: Any = wsgi if site.interface == "wsgi" else asgi
    taken, told = between(site, taking(name))
    untouched, _ = between(site, lambda request: None)

    def cached(app: Any, around: Callable[[Any], Any] = untouched) -> Any:
        cache = LocMemCache(f"hidden-{next(names)}")
        if not with_halves:
            return module.CacheMiddleware(around(app), cache=cache)
        return module.UpdateCacheMiddleware(around(module.FetchFromCacheMiddleware(app, cache=cache)), cache=cache)

    site.build(around=lambda app, interface: cached(untouched(cached(untouched(cached(app)))), taken))
    site.respond = lambda asked: Script(body=f"for {told[0]}".encode())
    for _ in range(2):
        for who in ("session=alice", "session=bob", "session=carol"):
            assert site.get("/", {name: who}).body == f"for {who}".encode()
        assert site.get().body == b"for nobody"
    assert len(site.calls) == (4 if name == "X-API-Key" else 7)


def test_a_cache_around_one_that_guards_no_sessions_guards_them(site: Site) -> None:
    module: Any = wsgi if site.interface == "wsgi" else asgi

    def around(app: Any, interface: str) -> Any:
        within = module.CacheMiddleware(
            app, cache=LocMemCache(f"hidden-{next(names)}"), policy=Policy(session_cookies=("mine",))
        )
        return module.CacheMiddleware(within, cache=LocMemCache(f"hidden-{next(names)}"))

    site.build(around=around)
    site.page(b"a page")
    assert "detail=session" in site.get("/", {"Cookie": "session=alice"}).trace
    assert "stored" in site.get().trace


def test_a_mount_is_no_change() -> None:
    """A dispatcher, or the language at the start of a path: the same URL in other pieces, and the key that it had."""
    came = wsgi.WSGIRequest(environ_of("/shop/cart"))
    mounted = wsgi.WSGIRequest({**environ_of("/cart"), "SCRIPT_NAME": "/shop"})
    other = wsgi.WSGIRequest(environ_of("/cart"))
    assert came.moved == mounted.moved == ""
    mounted.before = other.before = came
    assert mounted.moved == ""
    assert other.moved != ""


@pytest.mark.parametrize("policy", POLICIES)
def test_head_that_was_asked_for_as_get_leaves_no_empty_page(site: Site, policy: Policy) -> None:
    def around(app: Any) -> Any:
        def bodiless(environ: Any, start_response: Any) -> Any:
            result = app({**environ, "REQUEST_METHOD": "GET"}, start_response)
            if environ["REQUEST_METHOD"] != "HEAD":
                return result
            with_close = BytesIO()
            with_close.close = result.close  # type: ignore[method-assign]
            return with_close

        async def bodiless_in_task(scope: Any, receive: Any, send: Any) -> None:
            async def sending(message: Any) -> None:
                await send({**message, "body": b""} if scope["method"] == "HEAD" and "body" in message else message)

            await app({**scope, "method": "GET"}, receive, sending)

        return bodiless if site.interface == "wsgi" else bodiless_in_task

    halves(site, around, policy=policy)
    site.page(b"a page", cache_control="max-age=60")
    assert site.request("HEAD").body == b""
    assert site.get().body == b"a page"
    assert site.get().body == b"a page"
    assert [asked.method for asked in site.calls] == ["GET", "GET"]


@pytest.mark.parametrize(("method", "length"), [("POST", None), ("GET", "4")])
def test_a_body_that_was_read_on_the_way_poisons_no_page(site: Site, method: str, length: str | None) -> None:
    """A form that is turned into a request for a page, or a GET with a body that the application is not shown."""
    poison = [True]

    def change(request: Any) -> str:
        if "headers" in request:
            request["method"] = "GET"
            request["headers"][:] = [field for field in request["headers"] if field[0] != b"content-length"]
        else:
            request["REQUEST_METHOD"] = "GET"
            request.pop("CONTENT_LENGTH", None)
        return "evil" if poison.pop() else "all"

    through(site, change, [("Cache-Control", "max-age=60")], Policy.rfc9111())
    poison[:] = [False, True]
    assert site.request(method, "/", {"Content-Length": length} if length else {}).body == b"for evil"
    assert site.get().body == b"for all"


def test_a_user_whom_the_server_has_found_is_known_though_the_application_is_not_told(site: Site) -> None:
    def change(request: Any) -> str:
        who = request.pop("user" if "headers" in request else "REMOTE_USER", None)
        return str(who or "nobody")

    through(site, change, [("Cache-Control", "max-age=60")], Policy())
    inner = site.middleware

    def found(environ: Any, start_response: Any) -> Any:
        return inner({**environ, "REMOTE_USER": environ.pop("HTTP_X_ASKS", "")}, start_response)

    async def found_in_task(scope: Any, receive: Any, send: Any) -> None:
        who = dict(scope["headers"]).get(b"x-asks")
        await inner(scope if who is None else {**scope, "user": who.decode()}, receive, send)

    site.middleware = found if site.interface == "wsgi" else found_in_task
    for _ in range(2):
        assert site.get("/", {"X-Asks": "alice"}).body == b"for alice"
        assert site.get().body == b"for nobody"
    assert len(site.calls) == 3


@pytest.mark.parametrize("policy", POLICIES)
@pytest.mark.parametrize("around_it", [True, False], ids=["another cache around", "alone"])
def test_what_was_chosen_around_a_cache_is_in_its_key_though_nobody_said_so(
    site: Site, around_it: bool, policy: Policy
) -> None:
    """The middlewares in the wrong order, without `use_i18n` and `use_tz`: this cache does not see what Vary says."""
    module: Any = wsgi if site.interface == "wsgi" else asgi

    def around(app: Any, interface: str) -> Any:
        cached = module.CacheMiddleware(app, cache=LocMemCache(f"hidden-{next(names)}"), policy=policy)
        chosen = module.TimezoneMiddleware(module.LocaleMiddleware(cached, languages=["en", "de"]), default="UTC")
        if not around_it:
            return chosen
        return module.CacheMiddleware(chosen, cache=LocMemCache(f"hidden-{next(names)}"), policy=policy)

    site.build(around=around)
    site.respond = lambda asked: Script(
        fields=[("Cache-Control", "max-age=60")], body=f"{get_language()} {get_timezone()}".encode()
    )
    for _ in range(2):
        assert site.get("/", {"Accept-Language": "de"}).body == b"de UTC"
        assert site.get("/", {"Cookie": "timezone=Asia/Tokyo"}).body == b"en Asia/Tokyo"
        assert site.get("/", {"Accept-Language": "en"}).body == b"en UTC"
    assert len(site.calls) == 3


@pytest.mark.parametrize("with_halves", [True, False])
@pytest.mark.parametrize("name", ["Cookie", "Authorization", "X-API-Key"])
def test_what_a_hook_takes_out_of_a_request_was_in_it(site: Site, name: str, with_halves: bool) -> None:
    hooks, told = Hooks(), [""]
    take = taking(name)

    @hooks.before_request
    def log_in(request: Any) -> None:
        told[:] = [take(request.environ if site.interface == "wsgi" else request.scope)]

    if with_halves:
        module: Any = wsgi if site.interface == "wsgi" else asgi
        cache = LocMemCache(f"hidden-{next(names)}")

        def around(app: Any, interface: str) -> Any:
            return module.UpdateCacheMiddleware(
                module.FetchFromCacheMiddleware(app, cache=cache), cache=cache, hooks=hooks
            )

        site.build(around=around)
    else:
        site.build(hooks=hooks)
    site.respond = lambda asked: Script(body=f"for {told[0]}".encode())
    for _ in range(2):
        for who in ("session=alice", "session=bob", "session=carol"):
            assert site.get("/", {name: who}).body == f"for {who}".encode()
        assert site.get().body == b"for nobody"
    assert len(site.calls) == (4 if name == "X-API-Key" else 7)


@pytest.mark.parametrize("announced", [True, False], ids=["with a length", "without, as HTTP/2 allows"])
def test_a_body_that_a_hook_has_read_poisons_no_page(site: Site, announced: bool) -> None:
    hooks, read = Hooks(), [b""]
    if site.interface == "wsgi":

        @hooks.before_request
        def reads(request: Any) -> None:
            read[:] = [request.environ["wsgi.input"].read()]

    else:

        @hooks.before_request
        async def reads_in_task(request: Any) -> None:
            read[:] = [await request.body()]

    def wsgi_app(environ: Any, start_response: Any) -> Any:
        start_response("200 OK", [("Content-Type", "text/plain")])
        return [b"a hook saw " + read[0]]

    async def asgi_app(scope: Any, receive: Any, send: Any) -> None:
        await send({"type": "http.response.start", "status": 200, "headers": []})
        await send({"type": "http.response.body", "body": b"a hook saw " + read[0]})

    cache = LocMemCache(f"hidden-{next(names)}")
    length = "6" if announced else ""
    if site.interface == "wsgi":
        site.middleware = wsgi.CacheMiddleware(wsgi_app, cache=cache, hooks=hooks)
    else:
        site.middleware = asgi.CacheMiddleware(asgi_app, cache=cache, hooks=hooks)

    def ask(body: bytes) -> bytes:
        if site.interface == "wsgi":
            variables: dict[str, Any] = {"wsgi.input": BytesIO(body), "CONTENT_LENGTH": length if body else ""}
            return ask_wsgi(site.middleware, **variables)[2]

        async def receive() -> Any:
            return {"type": "http.request", "body": body, "more_body": False}

        announcement = [(b"content-length", length.encode())] if body and announced else []
        return ask_asgi(site.middleware, receive, headers=[(b"host", b"example.org"), *announcement]).body

    assert ask(b"poison") == b"a hook saw poison"
    assert ask(b"") == b"a hook saw "
    assert ask(b"") == b"a hook saw "


@pytest.mark.parametrize("seed", range(40))
def test_no_stack_of_caches_and_guards_shows_one_visitor_what_another_was_shown(site: Site, seed: int) -> None:
    """Caches and halves around one another in any order, and between them whatever reads a field and takes it out."""
    rng, told = random.Random(seed), list[str]()
    fields = ["Cookie", "Authorization", "X-API-Key", "Remote-User"]
    policy = rng.choice([Policy(), Policy(grace=30), Policy.rfc9111(), Policy.django()])
    says = [] if policy.session_cookies else [("Vary", "Cookie"), ("Cache-Control", "max-age=60")]
    module: Any = wsgi if site.interface == "wsgi" else asgi

    def cached(app: Any, depth: int) -> Any:
        cache = LocMemCache(f"hidden-{next(names)}")
        if rng.random() < 0.3:
            return module.CacheMiddleware(guarded(app, depth), cache=cache, policy=policy)
        inner = module.FetchFromCacheMiddleware(guarded(app, depth), cache=cache, policy=policy)
        return module.UpdateCacheMiddleware(guarded(inner, depth), cache=cache, policy=policy)

    def guarded(app: Any, depth: int) -> Any:
        if depth and rng.random() < 0.5:
            app = cached(app, depth - 1)
        if rng.random() < 0.5:
            take = taking(rng.choice(fields))
            app = between(site, lambda request: told.append(take(request)))[0](app)
        return app

    def respond(asked: Asked) -> Script:
        left = [asked.fields.get(name.lower(), "nobody") for name in fields]
        return Script(fields=says, body=" ".join([*told, *left]).encode())

    site.build(around=lambda app, interface: cached(app, 2))
    site.respond = respond
    for _ in range(40):
        told.clear()
        who = rng.choice(["alice", "bobby", "carol", ""])
        asks = {name: f"session={who}" if name == "Cookie" else who for name in rng.sample(fields, rng.randrange(3))}
        body = site.get("/", asks if who else {}).body
        assert [name for name in (b"alice", b"bobby", b"carol") if name in body and name.decode() != who] == []
        assert (who.encode() in body) is bool(asks and who) or not who
        site.clock.advance(rng.choice([0, 1, 30]))
