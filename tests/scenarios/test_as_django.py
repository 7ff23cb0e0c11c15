# mypy: disable-error-code="import-untyped"
"""Policy.django() against Django's own middleware: the same requests and answers, at random, and all outcomes compared.

Left out is what Django is known to do wrong, and this project does not: it looks for "private" and "public" anywhere in
the text, counts ages from an Expires that is not its own, does not know the Age that a response brings along, gives one
who has credentials what was stored for nobody, and takes an answer to Range for the page.
"""

from __future__ import annotations

from random import Random
from typing import Any

import pytest
from django.conf import settings
from django.test import RequestFactory, override_settings

from cachemw import Policy
from cachemw.rfc9111.fields import format_date
from tests.scenarios.conftest import START, Script, Site

CACHE_CONTROL = (
    *["", "", "max-age=33", "max-age=0", "private", "no-store", "no-cache", "public", "public, max-age=50"],
    *["s-maxage=20", "must-revalidate, max-age=40", "max-age=900", "immutable", "s-maxage=7, max-age=4"],
    *["stale-while-revalidate=30, max-age=10", "stale-if-error=100, max-age=3", "max-age=60, public, x=y", "Max-Age=5"],
)
VARY = ("", "", "", "Accept", "Accept, X-A", "*", "Accept, *", "Cookie", "accept", "Authorization")
EXPIRES = ("", "", "", format_date(START + 100), format_date(START - 5), "0")
STATUS = (*[200] * 6, 203, 206, 301, 304, 404, 410, 500)


@pytest.fixture
def django_middleware() -> Any:
    """A view between the two halves of Django's cache; `view` is set by the test."""
    if not settings.configured:
        settings.configure(SECRET_KEY="not secret at all")
    caches = {"default": {"BACKEND": "django.core.cache.backends.locmem.LocMemCache", "LOCATION": "as Django"}}
    changed: dict[str, Any] = {"CACHES": caches, "ALLOWED_HOSTS": ["*"], "USE_I18N": False, "USE_TZ": False}
    with override_settings(**changed, CACHE_MIDDLEWARE_SECONDS=600, CACHE_MIDDLEWARE_KEY_PREFIX=""):
        from django.core.cache import cache
        from django.middleware.cache import FetchFromCacheMiddleware, UpdateCacheMiddleware

        def around(view: Any) -> Any:
            cache.clear()
            return UpdateCacheMiddleware(FetchFromCacheMiddleware(view))

        yield around


def random_response(random: Random) -> tuple[int, dict[str, str]]:
    fields = {"Content-Type": "text/plain", "Cache-Control": random.choice(CACHE_CONTROL)}
    fields |= {"Vary": random.choice(VARY), "Expires": random.choice(EXPIRES)}
    if random.random() < 0.15:
        fields["Set-Cookie"] = "c=v; Path=/"
    if random.random() < 0.15:
        fields["ETag"] = '"e"'
    return random.choice(STATUS), {name: value for name, value in fields.items() if value}


def random_requests(random: Random) -> list[tuple[float, str, str, dict[str, str]]]:
    """Pauses, methods, targets and fields. All have credentials, or none."""
    authorization = random.choice([None, None, "x", ""])
    requests: list[tuple[float, str, str, dict[str, str]]] = []
    for _ in range(5):
        fields = {} if authorization is None else {"Authorization": authorization}
        if random.random() < 0.2:
            fields["Accept"] = random.choice(["a", "b", ""])
        if random.random() < 0.2:
            fields["Cookie"] = random.choice(["sessionid=1", "a=b"])
        if random.random() < 0.15:
            fields["If-None-Match"] = '"e"'
        if random.random() < 0.1:
            fields["Cache-Control"] = "no-cache"
        method, target = random.choice([*["GET"] * 5, "HEAD", "POST"]), random.choice(["/", "/?a=1"])
        requests.append((random.choice([0, 0, 1, 30, 200, 601]), method, target, fields))
    return requests


def members(value: str | None) -> set[str]:
    return {member.strip().lower() for member in (value or "").split(",")}


@pytest.mark.parametrize("seed", range(80))
def test_what_django_does_is_done(site: Site, django_middleware: Any, seed: int) -> None:
    from django.http import HttpResponse

    random = Random(seed)
    status, fields = random_response(random)
    calls: list[Any] = []

    def view(request: Any) -> Any:
        calls.append(request)
        response = HttpResponse(b"" if status == 304 else b"page", status=status)
        for name, value in fields.items():
            if name == "Set-Cookie":
                response.set_cookie("c", "v")
            else:
                response[name] = value
        return response

    theirs, factory = django_middleware(view), RequestFactory()
    site.build(policy=Policy.django(), seconds=600)
    own = [(name, value) for name, value in fields.items() if status != 304 or name != "Content-Type"]
    site.answers(Script(status, own, b"" if status == 304 else b"page"))
    for pause, method, target, given in random_requests(random):
        site.clock.advance(pause)
        expected = theirs(factory.generic(method, target, headers=given, SERVER_NAME="example.org"))
        answer = site.request(method, target, given)
        assert (len(site.calls), answer.status) == (len(calls), expected.status_code)
        for name in ("Cache-Control", "Vary"):
            assert members(answer[name]) == members(expected.get(name)), name
        assert answer["expires"] == expected.get("Expires")
        assert "Expires" in fields or answer["age"] == expected.get("Age")
