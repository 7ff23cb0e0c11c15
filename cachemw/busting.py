"""Cache busting: URLs of static files that carry the version of their content, and are kept for ever.

    static_url("style.css")                      # /static/style.css?v=2c26b46b68ff
    version_flask(app)                           # Flask's own url_for, in application and blueprints
    version_starlette(app)                       # Starlette's and FastAPI's
    version_jinja(environment, folder)           # templates of anything else, with folder = StaticFolder("static")
    app = StaticMiddleware(app, folder)          # whatever serves the files: says how long they may be kept

The URL of a file changes when its content does. So a response to a URL that names the version of what the file holds
carries `Cache-Control: public, max-age=31536000, immutable`: no browser asks for it again. A response to a URL that
names another version (one server of several has the new files already) lives for a minute. `cachemw static build`
writes hashed names instead, for servers that hand out files by themselves.
"""

from __future__ import annotations

import os
import sys
from functools import lru_cache
from typing import Any, overload

from cachemw._busting.build import Built, Problem, build
from cachemw._busting.folder import CHOSEN, StaticFolder, StaticVersionWarning
from cachemw._busting.frameworks import FlaskVersions, version_flask, version_jinja, version_starlette
from cachemw._busting.shells import ASGIStatic, WSGIStatic
from cachemw.errors import ImproperlyConfigured
from cachemw.middleware import ASGI, WSGI, interface_of

__all__ = [
    "Built",
    "Problem",
    "StaticFolder",
    "StaticMiddleware",
    "StaticVersionWarning",
    "build",
    "static_url",
    "version_flask",
    "version_jinja",
    "version_starlette",
]


def static_url(name: str, *, folder: StaticFolder | str | os.PathLike[str] | None = None, v: Any = CHOSEN) -> str:
    """The URL of a static file by its path within the folder, with the version of its content.

        static_url("style.css")             # /static/style.css?v=2c26b46b68ff

    folder  a `StaticFolder`, or a directory that is served at /static/; None: the static folder of the current Flask
            application, elsewhere the directory "static" of the working directory
    v       a version by hand, which wins; None leaves it out

    Raises: ImproperlyConfigured, which names the file, if there is none or if it lies outside of the folder.
    Warns: StaticVersionWarning if `v` looks like a time stamp.
    """
    if folder is None:
        flask = sys.modules.get("flask")
        if flask is not None and flask.has_app_context():
            return FlaskVersions.of(flask.current_app._get_current_object()).url(name, v)
        folder = "static"
    if not isinstance(folder, StaticFolder):
        folder = _folder_at(os.path.abspath(folder))
    return folder(name, v=v)


@lru_cache
def _folder_at(directory: str) -> StaticFolder:
    return StaticFolder(directory)


@overload
def StaticMiddleware(app: ASGI, *folders: StaticFolder) -> ASGIStatic: ...
@overload
def StaticMiddleware(app: WSGI, *folders: StaticFolder) -> WSGIStatic: ...
def StaticMiddleware(app: Any, *folders: StaticFolder) -> Any:
    """Say of static files how long they may be kept, where any WSGI or ASGI application serves them.

        app = StaticMiddleware(app, StaticFolder("static", url="/static/"))

    Requests below a folder's URL are looked at, all others pass untouched; a URL that leads out of its folder is a 404.
    Put it inside of the cache of pages. Flask and Starlette need no more than `version_flask`, `version_starlette`.

    Raises: ImproperlyConfigured if `app` speaks neither interface, or there is no folder.
    """
    if not folders or not all(isinstance(folder, StaticFolder) for folder in folders):
        raise ImproperlyConfigured("StaticMiddleware(app, folder, …) takes one StaticFolder or several.")
    return ASGIStatic(app, *folders) if interface_of(app) == "asgi" else WSGIStatic(app, *folders)
