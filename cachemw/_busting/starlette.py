"""Mounts of Starlette's `StaticFiles` whose URLs have versions. Imported only by `version_starlette`."""

from __future__ import annotations

from functools import partial
from typing import Any
from urllib.parse import quote

from starlette.datastructures import URLPath
from starlette.routing import Mount, Router
from starlette.staticfiles import StaticFiles

from cachemw._busting.folder import StaticFolder
from cachemw._busting.shells import ASGIStatic, found_in_mount

__all__ = ["VersionedMount", "version_mounts"]


class VersionedMount(Mount):
    """A mount of static files that replaces the application's own."""

    def __init__(self, mount: Mount, files: StaticFiles, *, fixed: bool) -> None:
        self.folder = StaticFolder(*files.all_directories, fixed=fixed, follow_symlinks=files.follow_symlink)
        app = ASGIStatic(mount.app, find=partial(found_in_mount, self.folder))
        super().__init__(mount.path, app, name=mount.name)

    def url_path_for(self, name: str, /, **params: Any) -> URLPath:
        """Starlette's URL, with the version of the file, or with the hashed name that a build has made."""
        if name != self.name or not isinstance(params.get("path"), str):
            return super().url_path_for(name, **params)
        given = {"v": params.pop("v")} if "v" in params else {}
        params["path"], version = self.folder.reference(params["path"].lstrip("/"), **given)
        url = super().url_path_for(name, **params)
        return url if version is None else URLPath(f"{url}?v={quote(version)}", host=url.host)


def version_mounts(router: Router, *, fixed: bool) -> int:
    """Replace each mount of `StaticFiles`, at any depth, by a `VersionedMount`. Returns: how many there were."""
    count = 0
    for place, route in enumerate(router.routes):
        files = getattr(route, "_base_app", getattr(route, "app", None))  # below the middlewares of the mount
        if isinstance(route, Mount) and isinstance(files, StaticFiles):
            router.routes[place] = VersionedMount(route, files, fixed=fixed)
            count += 1
        elif isinstance(inner := getattr(files, "router", files), Router):
            count += version_mounts(inner, fixed=fixed)
    return count
