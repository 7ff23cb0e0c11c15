"""A page whose stylesheet is edited while it runs: the new colour shows at once, the script is never asked for again.

    python -m examples.cache_busting        then http://127.0.0.1:8000/

It serves a copy of `cache_busting_static`; edit the copy, or press the buttons. The second page is a board of notes
that comes out of the cache until somebody writes one.
"""

from __future__ import annotations

import re
import shutil
import tempfile
from pathlib import Path

from flask import Flask, make_response, redirect, render_template_string, request, url_for
from werkzeug.wrappers import Response

from cachemw import CacheMiddleware
from cachemw.busting import version_flask
from examples.serving import run

STATIC = Path(__file__).with_name("cache_busting_static")
PAINTS = {"Brick": "#b5472f", "Ocean": "#1f6f8b", "Moss": "#4d7c3a", "Plum": "#7a4069"}

PAGE = """<!doctype html>
<html lang="en">
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>{{ title }}</title>
<link rel="icon" href="data:,">
<link rel="stylesheet" href="{{ url_for('static', filename='style.css') }}">
<script type="module" src="{{ url_for('static', filename='script.js') }}"></script>
<header>
  <nav>
    {% for view, name in [("paint", "Paint"), ("notes", "Notes")] %}
    <a href="{{ url_for(view) }}" {{ "aria-current=page" if request.endpoint == view }}>{{ name }}</a>
    {% endfor %}
  </nav>
  <h1>{{ title }}</h1>
  <p>{{ lead }}</p>
</header>
<main>{% block main %}{% endblock %}</main>
</html>"""

PAINT = """{% extends page %}{% block main %}
<form method="post" aria-label="Paint">
  {% for name, paint in paints.items() %}
  <button name="paint" value="{{ name }}" style="--swatch: {{ paint }}">{{ name }}</button>
  {% endfor %}
</form>
<p>A button writes the colour into <code>{{ folder }}/style.css</code>. So may you, with an editor; then reload.</p>
<h2>Where your browser has its files from</h2>
<table id="fetched"><thead><tr><th>File</th><th>From</th></tr></thead><tbody></tbody></table>
{% endblock %}"""

NOTES = """{% extends page %}{% block main %}
<form method="post" aria-label="Note">
  <input name="text" placeholder="A note for everybody" aria-label="Note" maxlength="200" required>
  <button>Pin it</button>
</form>
<ol>{% for note in notes|reverse %}<li>{{ note }}</li>{% else %}<li>Nothing yet.</li>{% endfor %}</ol>
{% endblock %}"""


def create_app(folder: Path) -> Flask:
    """The site, with the static files of `folder`, whose stylesheet the buttons change."""
    app = Flask(__name__, static_folder=str(folder), static_url_path="/static")
    app.debug = True  # files are looked at again; in production a file's URL is fixed when it is first asked for
    version_flask(app)
    app.wsgi_app = CacheMiddleware(app.wsgi_app, cache=f"locmem://{folder.name}", seconds=60)  # type: ignore[method-assign]
    board: list[str] = []

    def page(template: str, cache_control: str, **values: object) -> Response:
        with_page = app.jinja_env.from_string(PAGE)
        response = make_response(render_template_string(template, page=with_page, **values))
        response.headers["Cache-Control"] = cache_control
        response.add_etag()
        return response.make_conditional(request)  # 304 to a browser that has this very page

    @app.get("/")
    def paint() -> Response:
        lead = "The stylesheet's URL carries the hash of its content. Change the one, and the other changes with it."
        # the page that names the versions is asked for every time; the files that it names are not
        return page(PAINT, "no-cache", title="Fresh paint", lead=lead, paints=PAINTS, folder=folder)

    @app.post("/")
    def repaint() -> Response:
        style = folder / "style.css"
        colour = PAINTS.get(request.form.get("paint", ""), PAINTS["Brick"])
        changed = folder / "style.css.new"
        changed.write_text(re.sub(r"--paint: [^;]*;", f"--paint: {colour};", style.read_text(), count=1))
        changed.replace(style)
        return redirect(url_for("paint"), 303)

    @app.get("/notes")
    def notes() -> Response:
        lead = "Everybody gets this page out of the cache, until somebody pins a note."
        return page(NOTES, "max-age=0, s-maxage=60", title="Notes on the wall", lead=lead, notes=board)

    @app.post("/notes")
    def pin() -> Response:
        if text := request.form.get("text", "").strip():
            board.append(text[:200])
            del board[:-20]
        return redirect(url_for("notes"), 303)

    return app


if __name__ == "__main__":
    with tempfile.TemporaryDirectory() as directory:
        copy = Path(shutil.copytree(STATIC, Path(directory, "static")))
        print(f"Shows the files of {copy}; edit style.css and reload. Ctrl-C ends it.")
        run(create_app(copy))
