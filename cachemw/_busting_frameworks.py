"""Where Flask, Starlette and Jinja build URLs of static files and serve them: each is given the version there.

Rule 1: templates stay as they are, and a `v` that they give wins; `v=None` leaves it out.
Rule 2: the framework goes on serving the files: guards, hooks and sessions work as before.
"""

from __future__ import annotations

import os
from collections.abc import Iterable
from typing import TYPE_CHECKING, Any, Final

from cachemw._busting_folder import StaticFolder
from cachemw._busting_shells import WSGIPassage, WSGIStatic
from cachemw.errors import ImproperlyConfigured

if TYPE_CHECKING:
    from flask import Flask
    from jinja2 import Environment
    from starlette.applications import Starlette

__all__ = ["version_flask", "version_jinja", "version_starlette"]

_EXTENSION: Final = "cachemw.static"


def _given(values: dict[str, Any]) -> dict[str, Any]:
    return {"v": values["v"]} if "v" in values else {}


# -- Flask ----------------------------------------------------------------------------------------------------------


def version_flask(app: Flask, *, fixed: bool | None = None, follow_symlinks: bool = False) -> None:
    """Give the static files of a Flask application and of its blueprints, also of later ones, URLs with versions.

        version_flask(app)
        url_for("static", filename="style.css")     # /static/style.css?v=2c26b46b68ff

    `fixed`: see `StaticFolder`; left out, it is the opposite of `app.debug`. Raises: ImproperlyConfigured the second
    time.
    """
    if _EXTENSION in app.extensions:
        raise ImproperlyConfigured("version_flask was called for this application already; once is enough.")
    app.extensions[_EXTENSION] = versions = _FlaskVersions(app, fixed, follow_symlinks)
    app.url_defaults(versions.complete)
    app.before_request(versions.board)
    app.wsgi_app = WSGIStatic(app.wsgi_app)  # type: ignore[method-assign]


class _FlaskVersions:
    """The static folders of one application, by the endpoints that serve them."""

    def __init__(self, app: Flask, fixed: bool | None, follow_symlinks: bool) -> None:
        self._app = app
        self._fixed = fixed
        self._follow_symlinks = follow_symlinks
        self._folders: dict[str, StaticFolder] = {}

    def _folder(self, endpoint: str | None) -> StaticFolder | None:
        """The folder that this endpoint serves; None for other endpoints, and for a folder that is not there."""
        if endpoint is None or not (endpoint == "static" or endpoint.endswith(".static")):
            return None
        if endpoint not in self._folders:
            owner = self._app if endpoint == "static" else self._app.blueprints.get(endpoint.removesuffix(".static"))
            if owner is None or owner.static_folder is None or not os.path.isdir(owner.static_folder):
                return None
            fixed = not self._app.debug if self._fixed is None else self._fixed
            self._folders[endpoint] = StaticFolder(
                owner.static_folder, fixed=fixed, follow_symlinks=self._follow_symlinks
            )
        return self._folders[endpoint]

    def complete(self, endpoint: str, values: dict[str, Any]) -> None:
        """Flask's `url_defaults`: the version of the file, and its hashed name where a build has made one."""
        folder, name = self._folder(endpoint), values.get("filename")
        if folder is not None and isinstance(name, str):
            values["filename"], values["v"] = folder.reference(name, **_given(values))

    def board(self) -> None:
        """Flask's `before_request`: say which file the request is for."""
        from flask import abort, request

        folder, name = self._folder(request.endpoint), (request.view_args or {}).get("filename")
        passage = request.environ.get(WSGIPassage.KEY)
        if folder is not None and passage is not None and not passage.board(request.environ, folder, name):
            abort(404)


# -- Starlette and FastAPI ------------------------------------------------------------------------------------------


def version_starlette(app: Starlette, *, fixed: bool | None = None) -> None:
    """Give the static files of a Starlette or FastAPI application URLs with versions: of all mounted `StaticFiles`.

        app.mount("/static", StaticFiles(directory="static"), name="static")
        version_starlette(app)
        request.url_for("static", path="style.css")     # http://example.org/static/style.css?v=2c26b46b68ff

    To be called when everything is mounted. `fixed`: see `StaticFolder`; left out, it is the opposite of `app.debug`.
    Raises: ImproperlyConfigured if there is no `StaticFiles` to give a version, or for a directory that is not there.
    """
    from cachemw._busting_starlette import version_mounts

    if not version_mounts(app.router, fixed=not app.debug if fixed is None else fixed):
        raise ImproperlyConfigured(
            "The application mounts no StaticFiles yet (or they have versions already): call version_starlette after "
            'app.mount("/static", StaticFiles(directory="static"), name="static").'
        )


# -- Jinja ----------------------------------------------------------------------------------------------------------


def version_jinja(env: Environment, folder: StaticFolder, *, endpoint: str = "static") -> None:
    """Give templates of a plain Jinja environment `static_url(name)`, and `url_for("static", filename=…)` or `path=…`.

    A `url_for` that the environment has already goes on answering for every other endpoint. Raises: LookupError in the
    template for an endpoint that nothing answers for.
    """
    other: Any = env.globals.get("url_for")

    def url_for(name: str, /, **values: Any) -> Any:
        if name == endpoint:
            path = values.get("filename", values.get("path"))
            if isinstance(path, str) and not set(values) - {"filename", "path", "v"}:
                return folder(path, **_given(values))
        if other is None:
            raise LookupError(f"url_for knows {endpoint!r} with a filename, and not {name!r} with {_names(values)}")
        return other(name, **values)

    env.globals["static_url"] = folder
    env.globals["url_for"] = url_for


def _names(values: Iterable[str]) -> str:
    return ", ".join(values) or "nothing"
