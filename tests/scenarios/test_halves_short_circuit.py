"""What is between the halves may answer without the inner one: a login check, say."""

from __future__ import annotations

from typing import Any

import pytest

from cachemw import asgi, wsgi
from cachemw.backends.locmem import LocMemCache
from tests.scenarios.conftest import Script, Site


@pytest.mark.parametrize("method", ["GET", "HEAD", "POST"])
def test_the_outer_half_relays_what_never_reached_the_inner_one(site: Site, method: str) -> None:
    module: Any = wsgi if site.interface == "wsgi" else asgi
    site.build(around=lambda app, interface: module.UpdateCacheMiddleware(app, cache=LocMemCache("short-circuit")))
    site.answers(Script(302, [("Location", "/login")], b"" if method == "HEAD" else b"log in"))
    for _ in range(2):
        answer = site.request(method)
        assert answer.error is None
        assert (answer.status, answer["location"], answer.hit) == (302, "/login", False)
