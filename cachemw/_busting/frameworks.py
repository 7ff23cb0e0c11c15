"""Adds versions to the URLs of static files that Flask, Starlette and Jinja build, and headers where these serve them.

Rule 1: templates need no change. They may give a version by hand, `v=…`, or none, `v=None`.
Rule 2: the framework still serves the files: guards, hooks and sessions work as before.
"""

from __future__ import annotations

import functools
import os
import threading
from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING, Any, Final

from cachemw._busting.folder import StaticFolder
from cachemw._busting.shells import WSGIPassage, WSGIStatic
from cachemw._forks import Forkable
from cachemw.errors import ImproperlyConfigured

if TYPE_CHECKING:
    from _typeshed.wsgi import StartResponse, WSGIEnvironment
    from flask import Flask
    from jinja2 import Environment
    from starlette.applications import Starlette

__all__ = ["FlaskVersions", "version_flask", "version_jinja", "version_starlette"]

_EXTENSION: Final = "cachemw.static"


def _given(values: dict[str, Any]) -> dict[str, Any]:
    return {"v": values["v"]} if "v" in values else {}


# -- Flask ----------------------------------------------------------------------------------------------------------


def version_flask(app: Flask, *, fixed: bool | None = None, follow_symlinks: bool = False) -> None:
    """Add versions to the URLs of static files of a Flask application and of its blueprints, also of later ones.

        version_flask(app)
        url_for("static", filename="style.css")     # /static/style.css?v=2c26b46b68ff

    `CacheMW(app)` does this by itself; call it for an application without the extension, or to give options.

    fixed, follow_symlinks  see `StaticFolder`; `fixed` left out: the opposite of `app.debug`

    Raises: ImproperlyConfigured if it is called twice for an application.
    """
    FlaskVersions.of(app).ask(fixed, follow_symlinks)


class FlaskVersions(Forkable):
    """The static folders of one application, by the endpoints that serve them."""

    @classmethod
    def of(cls, app: Flask) -> FlaskVersions:
        """The folders of this application. The application is not changed before `install`."""
        versions: FlaskVersions | None = app.extensions.get(_EXTENSION)
        return app.extensions.setdefault(_EXTENSION, cls(app)) if versions is None else versions

    def __init__(self, app: Flask) -> None:
        self._app = app
        self._fixed: bool | None = None
        self._follow_symlinks = False
        self._asked = False
        self._installed = False
        self._folders: dict[str, StaticFolder] = {}
        self._prefixes: tuple[str, ...] | None = None
        super().__init__()

    def _reset(self) -> None:
        self._lock = threading.Lock()

    def ask(self, fixed: bool | None, follow_symlinks: bool) -> None:
        """Install with these options, also if the extension has installed already without them."""
        if self._asked:
            raise ImproperlyConfigured("version_flask was called for this application already; once is enough.")
        self._asked, self._fixed, self._follow_symlinks = True, fixed, follow_symlinks
        self._folders.clear()
        self.install()

    def install(self) -> None:
        """Add versions to Flask's `url_for`, and headers to its static files."""
        if not self._installed:
            self._installed = True
            self._app.url_defaults(self._complete)
            self._inner = self._app.wsgi_app
            self._static = WSGIStatic(self._inner)
            self._app.wsgi_app = self._serve  # type: ignore[method-assign]

    def url(self, name: str, v: Any) -> str:
        """The URL of a file in the application's own folder, installed or not.

        Raises: ImproperlyConfigured, with the name, if there is no such file.
        """
        from flask import has_request_context, url_for

        folder = self._folder("static")
        if folder is None:
            raise ImproperlyConfigured(f"{self._app!r} has no static folder that could hold {name!r}.")
        url = folder(name, v=v)
        if not has_request_context():
            return url
        file, version = folder.reference(name, v=v)
        return url_for("static", filename=file, v=version)  # below the mount of the application

    def _folder(self, endpoint: str) -> StaticFolder | None:
        """The folder that this endpoint serves; None for other endpoints, and if the folder does not exist."""
        if not _is_static(endpoint):
            return None
        if endpoint not in self._folders:
            owner = self._app if endpoint == "static" else self._app.blueprints.get(endpoint.removesuffix(".static"))
            if owner is None or owner.static_folder is None or not os.path.isdir(owner.static_folder):
                return None
            self._folders[endpoint] = StaticFolder(
                owner.static_folder,
                url=owner.static_url_path or "/static/",
                fixed=not self._app.debug if self._fixed is None else self._fixed,
                follow_symlinks=self._follow_symlinks,
            )
        return self._folders[endpoint]

    def _complete(self, endpoint: str, values: dict[str, Any]) -> None:
        """Flask's `url_defaults`: the version of the file, and its hashed name where a build has made one."""
        folder, name = self._folder(endpoint), values.get("filename")
        if folder is not None and isinstance(name, str):
            values["filename"], values["v"] = folder.reference(name, **_given(values))

    def _serve(self, environ: WSGIEnvironment, start_response: StartResponse) -> Iterable[bytes]:
        """The application, with the static middleware around it for paths that may be static files."""
        if self._prefixes is None:
            with self._lock:
                if self._prefixes is None:
                    self._prefixes = self._prepared()
        app = self._static if environ.get("PATH_INFO", "").startswith(self._prefixes) else self._inner
        return app(environ, start_response)

    def _prepared(self) -> tuple[str, ...]:
        """Before the first request, when all blueprints are registered: wrap the views that serve static files.

        The before functions run outside of the wrappers: their answers are no files. Returns the beginnings of the
        views' paths.
        """
        views = self._app.view_functions
        for endpoint in filter(_is_static, [*views]):
            views[endpoint] = self._boarding(endpoint, views[endpoint])
        rules = (rule for rule in self._app.url_map.iter_rules() if _is_static(rule.endpoint))
        return tuple({rule.rule.partition("<")[0].encode().decode("latin-1") for rule in rules})

    def _boarding(self, endpoint: str, view: Callable[..., Any]) -> Callable[..., Any]:
        from flask import abort, request

        @functools.wraps(view)
        def serve(**values: Any) -> Any:
            folder, passage = self._folder(endpoint), request.environ.get(WSGIPassage.KEY)
            if folder is None or passage is None:
                return view(**values)
            if not passage.board(request.environ, folder, values.get("filename", "")):
                abort(404)
            return view(**values)

        return serve


def _is_static(endpoint: str) -> bool:
    return endpoint == "static" or endpoint.endswith(".static")


# -- Starlette and FastAPI ------------------------------------------------------------------------------------------


def version_starlette(app: Starlette, *, fixed: bool | None = None) -> None:
    """Add versions to the URLs of all `StaticFiles` that a Starlette or FastAPI application mounts.

        app.mount("/static", StaticFiles(directory="static"), name="static")
        version_starlette(app)
        request.url_for("static", path="style.css")     # http://example.org/static/style.css?v=2c26b46b68ff

    Call it when everything is mounted. fixed: see `StaticFolder`; left out: the opposite of `app.debug`.

    Raises: ImproperlyConfigured if no `StaticFiles` without versions is mounted, and for a directory that does not
    exist.
    """
    from cachemw._busting.starlette import version_mounts

    if not version_mounts(app.router, fixed=not app.debug if fixed is None else fixed):
        raise ImproperlyConfigured(
            "The application mounts no StaticFiles yet (or they have versions already): call version_starlette after "
            'app.mount("/static", StaticFiles(directory="static"), name="static").'
        )


# -- Jinja ----------------------------------------------------------------------------------------------------------


def version_jinja(env: Environment, folder: StaticFolder, *, endpoint: str = "static") -> None:
    """Give the templates of a Jinja environment `static_url(name)`, and `url_for("static", filename=…)` or `path=…`.

    folder    the `StaticFolder` with the files
    endpoint  the first argument of `url_for` that means the folder

    If the environment has a `url_for`, it is called for other endpoints. Raises, in the template: LookupError for an
    unknown endpoint.
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
