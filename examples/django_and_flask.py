"""A Django and a Flask application that share a Redis store: its values, and its pages.

    CACHEMW_URL=redis://127.0.0.1:6379/0 python -m examples.django_and_flask

It needs Django, `pip install ".[demo,django]"`, and a Redis server.
Django answers /news, Flask everything else, as behind a proxy while a site moves from one to the other. Each may as
well be served alone (`examples.django_and_flask:django_app`, `…:flask_app`): a page that one of them has stored, the
other one answers from the store under the same host, and purges.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable
from datetime import UTC, datetime
from typing import Any

import django  # type: ignore[import-untyped]
from django.conf import settings  # type: ignore[import-untyped]
from django.core.cache import cache as django_cache  # type: ignore[import-untyped]
from django.core.wsgi import get_wsgi_application  # type: ignore[import-untyped]
from django.http import HttpRequest, HttpResponse  # type: ignore[import-untyped]
from django.urls import path  # type: ignore[import-untyped]
from flask import Flask

from cachemw import cache_page
from cachemw.integrations.flask import CacheMW

__all__ = ["app", "django_app", "flask_app"]

URL = os.environ.get("CACHEMW_URL", "redis://127.0.0.1:6379/0")
PREFIX = "django_and_flask"

# -- Django ------------------------------------------------------------------------------------------------------------

settings.configure(
    SECRET_KEY="only an example",
    ALLOWED_HOSTS=["*"],
    ROOT_URLCONF=__name__,
    USE_I18N=False,  # language and time zone are parts of a page's key, or not, in both applications
    USE_TZ=False,
    CACHES={"default": {"BACKEND": "cachemw.integrations.django.RedisCache", "LOCATION": URL, "KEY_PREFIX": PREFIX}},
    MIDDLEWARE=[
        "cachemw.integrations.django.UpdateCacheMiddleware",
        "django.middleware.common.CommonMiddleware",
        "cachemw.integrations.django.FetchFromCacheMiddleware",
    ],
)
django.setup()


@cache_page(600)
def news(request: HttpRequest) -> HttpResponse:
    """A page of Django's; how often it was made is counted in the store."""
    django_cache.add("news-made", 0, timeout=None)
    count = django_cache.incr("news-made")
    return HttpResponse(f"Django made the news at {datetime.now(UTC):%H:%M:%S.%f}, number {count}.\n".encode())


urlpatterns = [path("news", news)]
django_app: Any = get_wsgi_application()

# -- Flask -------------------------------------------------------------------------------------------------------------

flask_app = Flask(__name__)
flask_app.config["CACHES"] = settings.CACHES  # the very same: Django's names are understood
site_cache = CacheMW(flask_app)


@flask_app.get("/")
@cache_page(5)
def index() -> str:
    """What Django has put into the store."""
    return f"How often Django made the news: {site_cache.caches['default'].get('news-made', 0)}\n"


@flask_app.post("/refresh")
def refresh() -> str:
    """Flask purges the page that Django has stored."""
    return f"purged: {site_cache.purge('/news')}\n"


def app(environ: dict[str, Any], start_response: Callable[..., Any]) -> Iterable[bytes]:
    """Both, as a proxy would put them behind one host."""
    chosen: Any = django_app if environ["PATH_INFO"] == "/news" else flask_app
    return chosen(environ, start_response)  # type: ignore[no-any-return]


if __name__ == "__main__":
    from examples.serving import run

    run(app, "/news")
