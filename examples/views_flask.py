"""Single views of a Flask application, cached: functions, a class, a blueprint, and what caches downstream are told.

    python -m examples.views_flask           then http://127.0.0.1:8000/, /entries/1, /clock, /archive/1999

`curl -d Storm http://127.0.0.1:8000/entries/1` changes an entry, and removes what is stored of it.
"""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime
from typing import Any, ClassVar

from flask import Blueprint, Flask, Response, abort, request, session, url_for
from flask.views import MethodView

from cachemw import cache_control, cache_page, conditional, never_cache, vary_on_cookie, vary_on_headers
from cachemw.integrations.flask import CacheMW

__all__ = ["app", "site_cache"]

app = Flask(__name__)
app.secret_key = "only an example"
app.config["CACHEMW_KEY_PREFIX"] = "views_flask"

site_cache = CacheMW(app, site=False)  # not the whole site: only what asks for it
entries = {1: ("Fog", datetime(2026, 3, 1, tzinfo=UTC)), 2: ("Ice", datetime(2026, 3, 2, tzinfo=UTC))}


def now() -> str:
    return datetime.now(UTC).isoformat()


@app.get("/")
@cache_page(60)
def index() -> str:
    """Stored for a minute, for everybody."""
    return f"made at {now()}\n"


@app.get("/entries/<int:number>")
@cache_page(3600, tags=lambda number: [f"entry-{number}"])
@cache_control(public=True, max_age=0)
@conditional(last_modified=lambda number: entries[number][1] if number in entries else None)
def entry(number: int) -> str:
    """Stored for an hour or until the entry changes; a browser asks each time, and is answered 304."""
    if number not in entries:
        abort(404)
    return f"{entries[number][0]}, made at {now()}\n"


@app.post("/entries/<int:number>")
@never_cache
def change(number: int) -> str:
    """What has changed is purged by its tag, and the list of all by its URL."""
    entries[number] = request.get_data(as_text=True), datetime.now(UTC)
    site_cache.purge(url_for("index"), tags=[f"entry-{number}"])
    return "changed\n"


@app.get("/greeting")
@cache_page(60)
@vary_on_headers("Accept-Language")
def greeting() -> str:
    """One page for each language that a request may ask for."""
    return "Guten Tag\n" if request.accept_languages.best_match(["en", "de"]) == "de" else "Good day\n"


@app.get("/basket")
@cache_page(60)
@vary_on_cookie
def basket() -> str:
    """One page for each visitor."""
    return f"{session.get('items', 0)} items, made at {now()}\n"


@app.get("/account")
@cache_control(private=True, max_age=30)
def account() -> Response:
    """The visitor's browser may keep it, nobody else."""
    return Response(f"yours alone, made at {now()}\n")


class Clock(MethodView):
    """A class of views: decorators of all its methods."""

    decorators: ClassVar[list[Callable[..., Any]]] = [cache_page(10)]

    def get(self) -> str:
        return f"made at {now()}\n"


app.add_url_rule("/clock", view_func=Clock.as_view("clock"))

archive = Blueprint("archive", __name__, url_prefix="/archive")


@archive.get("/<int:year>")
def year(year: int) -> str:
    return f"{year}, made at {now()}\n"


app.register_blueprint(site_cache.blueprint(archive, timeout=86400))


if __name__ == "__main__":
    from examples.serving import run

    run(app)
