"""Cache busting: URLs of static files that contain the version of the content, so that caches keep them for ever.

    static_url("style.css")                      # /static/style.css?v=2c26b46b68ff
    version_flask(app)                           # Flask's own url_for, in application and blueprints
    version_starlette(app)                       # Starlette's and FastAPI's
    version_jinja(environment, folder)           # templates of anything else, with folder = StaticFolder("static")
    app = StaticMiddleware(app, folder)          # around the application that serves the files: sets Cache-Control

The URL of a file changes when its content does. A response to a URL with the current version therefore has
`Cache-Control: public, max-age=31536000, immutable`: no browser asks for it again. A response to a URL with another
version is stored for a minute (during a deploy, only some servers have the new files). `cachemw static build` writes
files with hashed names instead, for web servers that serve files by themselves.
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
    """The URL of a static file, with the version of its content.

        static_url("style.css")             # /static/style.css?v=2c26b46b68ff

    name    the path of the file in the folder
    folder  a `StaticFolder`, or a directory that is served at /static/; None: the static folder of the current Flask
            application, else the directory "static" in the working directory
    v       a version by hand; None: no version; left out: the version of the content

    Raises: ImproperlyConfigured, with the name, if there is no such file or if it is outside of the folder.
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
    """Set Cache-Control on static files that a WSGI or ASGI application serves, by the version in their URLs.

        app = StaticMiddleware(app, StaticFolder("static", url="/static/"))

    It changes only responses below the URL of a folder. A URL that leads out of the folder is answered with 404. It
    stands inside of the page cache. Flask and Starlette do not need it: see `version_flask`, `version_starlette`.

    Raises: ImproperlyConfigured without a folder, and if `app` is neither a WSGI nor an ASGI application.
    """
    if not folders or not all(isinstance(folder, StaticFolder) for folder in folders):
        raise ImproperlyConfigured("StaticMiddleware(app, folder, …) takes one StaticFolder or several.")
    return ASGIStatic(app, *folders) if interface_of(app) == "asgi" else WSGIStatic(app, *folders)
