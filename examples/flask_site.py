"""A Flask site with its pages cached: a slow query, sessions, two languages, and a form that invalidates the page.

    python -m examples.flask_site            then http://127.0.0.1:8000/

The cache's two halves stand around what chooses language and time zone, which are part of the key. `CACHEMW_URL`
chooses another store than the local memory, such as redis://localhost:6379/0.
"""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

from flask import Flask, Response, make_response, redirect, render_template, request, session

from cachemw import (
    FetchFromCacheMiddleware,
    LocaleMiddleware,
    Settings,
    TimezoneMiddleware,
    UpdateCacheMiddleware,
    get_language,
    get_timezone,
    patch_cache_control,
)
from examples.notices import LANGUAGES, TIMEZONES, Board, shown_time, texts
from examples.timing import wsgi_timing

__all__ = ["app", "board"]

app = Flask(__name__)
app.secret_key = "only an example"
board = Board()


def page(template: str, **values: Any) -> Response:
    """The page in the visitor's language, with an entity-tag, so that a browser that has it is answered 304."""
    words = texts()
    response = make_response(
        render_template(
            template,
            t=words,
            here=request.path,
            pages=[("/", words["board"]), ("/you", words["you"])],
            language=get_language(),
            languages=LANGUAGES,
            timezone=get_timezone(),
            timezones=TIMEZONES,
            made=shown_time(datetime.now(UTC)),
            shown_time=shown_time,
            **values,
        )
    )
    response.add_etag()
    return response


@app.get("/")
def show_board() -> Response:
    """Caches that we can purge keep the page for a minute; browsers, which we cannot, ask each time."""
    response = page("board.html", notices=board.read())
    patch_cache_control(response, public=True, s_maxage=60, max_age=0)
    return response


@app.post("/")
def post_notice() -> Any:
    """A POST that succeeds invalidates what is stored for its URL (RFC 9111 §4.4), in every language."""
    board.add(request.form["text"])
    return redirect("/", 303)


@app.route("/you", methods=["GET", "POST"])
def you() -> Any:
    """A page for one visitor. Flask adds `Vary: Cookie` as soon as the session is looked at."""
    if request.method == "POST":
        session["name"] = request.form["name"][:40]
        return redirect("/you", 303)
    session["visits"] = session.get("visits", 0) + 1
    response = page("you.html", name=session.get("name"), visits=session["visits"])
    patch_cache_control(response, private=True, max_age=0)
    return response


@app.post("/choose")
def choose() -> Any:
    """The switch of language and time zone: two cookies, which the middlewares read."""
    response = redirect("/", 303)
    response.set_cookie("language", request.form["language"], samesite="Lax")
    response.set_cookie("timezone", request.form["timezone"], samesite="Lax")
    return response


settings = Settings.from_mapping({"USE_I18N": True, "USE_TZ": True}, base=Settings.from_environ())
site: Any = FetchFromCacheMiddleware(app.wsgi_app, settings=settings, key_prefix="flask")
site = TimezoneMiddleware(site)
site = LocaleMiddleware(site, languages=LANGUAGES, cookie="language")
site = UpdateCacheMiddleware(site, settings=settings, key_prefix="flask", hooks=wsgi_timing())
app.wsgi_app = site  # type: ignore[method-assign]


if __name__ == "__main__":
    from examples.serving import run

    run(app)
