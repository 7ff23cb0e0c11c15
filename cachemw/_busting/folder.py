"""A folder of static files: the file for a name, its version, and the URL with that version.

Rule 1: a name never leads out of the folder: not by `..`, an absolute path, NUL, a backslash or a symbolic link.
Rule 2: the version of a file is a hash of its content. It is remembered with the file's times, size and inode; but not
        if the file was changed a moment ago: a second change could have the same time stamp.
Rule 3: `fixed` fixes the URLs that are made. At each request the file is compared with the version in the URL.
"""

from __future__ import annotations

import difflib
import hashlib
import json
import logging
import os
import re
import time
import warnings
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final, NamedTuple
from urllib.parse import SplitResult, parse_qsl, quote, urlsplit

from cachemw._busting.twins import Twin, twins_of
from cachemw._values import refuse
from cachemw.errors import ImproperlyConfigured

__all__ = [
    "CHOSEN",
    "MANIFEST",
    "VERSION_LENGTH",
    "Asked",
    "Manifest",
    "StaticFolder",
    "StaticVersionWarning",
    "inside",
]

log = logging.getLogger("cachemw")

#: The file that `cachemw static build` writes beside the others.
MANIFEST: Final = "static-manifest.json"
VERSION_LENGTH: Final = 12  # hex digits of SHA-256: 48 bits tell apart the versions of one file
_RACY: Final = 2.0  # seconds; FAT has the coarsest time stamps
_HASHED: Final = re.compile(r"\.([0-9a-f]{12})(?:\.[^./]+)?$")
_TIME_STAMP: Final = re.compile(
    r"1[0-9]{9}(?:[0-9]{3})?(?:\.[0-9]+)?|(?:19|20)[0-9]{2}[01][0-9][0-3][0-9](?:[0-9]{4,6})?"
)
CHOSEN: Final[Any] = object()  # no version is given by hand


class StaticVersionWarning(UserWarning):
    """A version given by hand looks like a time: it may change without the file, or stay when the file changes."""


class _Known(NamedTuple):
    """The version of a file and its `signature` then; `settled`: each later change would change the signature."""

    signature: tuple[int, ...]
    version: str
    settled: bool


class _Located(NamedTuple):
    """The path of the file for a name; None: there is none. `refused`: the name leads out of the folder."""

    path: str | None = None
    refused: bool = False


class Asked(NamedTuple):
    """A request for a static file.

    version   of the file now; None: there is no such file
    named     the URL names a version
    current   that version is the file's
    refused   the URL leads out of the folder; the answer is 404
    size      of the file, in octets; a response with the file is recognised by it and by `modified`
    modified  seconds since the epoch
    twins     the compressed copies of the file
    """

    name: str
    version: str | None = None
    named: bool = False
    current: bool = False
    refused: bool = False
    size: int = 0
    modified: int = 0
    twins: tuple[Twin, ...] = ()


class Manifest(NamedTuple):
    """The result of a build: `files` maps names to hashed names, `contents` maps hashed names to versions."""

    files: Mapping[str, str]
    contents: Mapping[str, str]

    @classmethod
    def read(cls, path: str | os.PathLike[str]) -> Manifest:
        """Read the file. Raises: ImproperlyConfigured if it is not the manifest of a build."""
        try:
            data = json.loads(Path(path).read_text(encoding="utf-8"))
            found = cls(data["files"], data["contents"])
            if data["format"] != 1 or not all(_is_texts(part) for part in found):
                raise ValueError("unknown format")
        except (OSError, ValueError, KeyError, TypeError, RecursionError) as error:
            raise ImproperlyConfigured(
                f"{os.fspath(path)} cannot be read as the manifest of a static build: {error!r}. Build it again."
            ) from error
        return found

    def dump(self) -> str:
        """The file's text."""
        return json.dumps({"format": 1, **self._asdict()}, indent=1, sort_keys=True) + "\n"


def _is_texts(part: Any) -> bool:
    return isinstance(part, dict) and all(isinstance(value, str) for value in part.values())


class StaticFolder:
    """Static files under one URL. Calling it gives the URL of a file, with the version of its content.

        static_url = StaticFolder("static")
        static_url("style.css")             # /static/style.css?v=2c26b46b68ff

    directories      searched in this order
    url              where the files are served: a path, or the URL of a CDN
    fixed            for production: the URL of a file is made once, and the file is not looked at again for it
    follow_symlinks  allow symbolic links to files outside of the directories

    In a directory that `cachemw static build` has made, URLs have the hashed names in place of `?v=`.

    Raises: ImproperlyConfigured for a directory that does not exist, a wrong URL or an unreadable manifest.
    """

    def __init__(
        self,
        *directories: str | os.PathLike[str],
        url: str = "/static/",
        fixed: bool = False,
        follow_symlinks: bool = False,
    ) -> None:
        if not directories:
            raise ImproperlyConfigured("StaticFolder needs the directory of the static files.")
        for directory in directories:
            if not os.path.isdir(directory):
                raise ImproperlyConfigured(f"The static folder {os.fspath(directory)!r} is not a directory.")
        parts = _split(url)
        if parts is None or parts.query or parts.fragment or not (parts.path.startswith("/") or parts.netloc):
            raise refuse("url", url, "a path (/static/) or the URL of a folder (https://cdn.example/static/)")
        self.directories = tuple(os.path.abspath(directory) for directory in directories)
        self.url = url.rstrip("/") + "/"
        self.prefix = parts.path.rstrip("/") + "/"
        self.fixed = fixed
        self.follow_symlinks = follow_symlinks
        self._known: dict[str, _Known] = {}
        self._given: dict[str, tuple[str, str | None]] = {}
        self._missed: set[str] = set()
        self._manifest: tuple[object, Manifest] = (None, Manifest({}, {}))
        self.manifest()

    def __repr__(self) -> str:
        return f"StaticFolder({', '.join(map(repr, self.directories))}, url={self.url!r})"

    # -- URLs -------------------------------------------------------------------------------------------------------

    def __call__(self, name: str, *, v: Any = CHOSEN) -> str:
        """The URL of a file. name: its path in the folder, "css/site.css"; v: a version by hand, None: no version.

        Raises: ImproperlyConfigured, with the name, if there is no such file or if it is outside of the folder.
        Warns: StaticVersionWarning if `v` looks like a time stamp.
        """
        if not isinstance(name, str):
            raise ImproperlyConfigured(f"The static file {name!r} is not a string; give its path within the folder.")
        if not (self.fixed and name in self._given):
            located = self._locate(name)
            if located.path is None or name != "/".join(_segments(name)):
                raise ImproperlyConfigured(self._complaint(name, located))
        name, version = self.reference(name, v=v)
        return self.url + quote(os.fsencode(name), safe="/~") + ("" if version is None else f"?v={quote(version)}")

    def reference(self, name: str, *, v: Any = CHOSEN) -> tuple[str, str | None]:
        """The name and the version for the URL of this file, for frameworks that build URLs themselves.

        A file that does not exist has no version, and is logged once: a broken image is better than a broken page.
        """
        if v is not CHOSEN:
            if v is not None and _TIME_STAMP.fullmatch(str(v)) and str(v) != self.version(name):
                warnings.warn(
                    f"The version of static file {name!r} is {v!r}, which looks like a time stamp: caches keep the old "
                    "content for a year if the file changes and it does not. Leave it out: the content has a version.",
                    StaticVersionWarning,
                    stacklevel=3,
                )
            return name, None if v is None else str(v)
        if self.fixed and (given := self._given.get(name)) is not None:
            return given
        hashed = self.manifest().files.get(name)
        found = (hashed, None) if hashed is not None else (name, self.version(name))
        if found[0] == name and found[1] is None:
            self._miss(name)
        elif self.fixed:
            found = self._given.setdefault(name, found)
        return found

    def _miss(self, name: str) -> None:
        if name not in self._missed and len(self._missed) < 1000:  # names may come from visitors
            self._missed.add(name)
            log.warning("%s", self._complaint(name, self._locate(name)))

    def _complaint(self, name: str, located: _Located) -> str:
        where = " and ".join(self.directories)
        if located.refused:
            return f"The static file {name!r} lies outside of {where}; give its path within the folder."
        if located.path is not None:
            return f"The static file {name!r} is to be written {'/'.join(_segments(name))!r}."
        near = difflib.get_close_matches(name, self._names(), 1)
        hint = f"; did you mean {near[0]!r}?" if near else "."
        return f"There is no static file {name!r} in {where}{hint}"

    def _names(self) -> list[str]:
        found: list[str] = []
        for directory in self.directories:
            for root, _, files in os.walk(directory):
                found += [os.path.relpath(os.path.join(root, file), directory).replace(os.sep, "/") for file in files]
                if len(found) > 5000:
                    return found
        return found

    # -- files ------------------------------------------------------------------------------------------------------

    def version(self, name: str) -> str | None:
        """The first 12 hex digits of the SHA-256 of the file's content now; None if there is no such file."""
        located = self._locate(name)
        known = None if located.path is None else self._look_at(located.path)
        return None if known is None else known.version

    def asked(self, name: str, query: str) -> Asked:
        """The request for this file with this raw query."""
        located = self._locate(name)
        known = None if located.path is None else self._look_at(located.path)
        if located.path is None or known is None:
            return Asked(name, refused=located.refused)
        version, (modified, size, *_) = known.version, known.signature
        asked = Asked(name, version, size=size, modified=modified // 10**9)
        asked = asked._replace(twins=self._twins(name, located.path, version))
        given = [value for key, value in parse_qsl(query, keep_blank_values=True) if key == "v"]
        if not given:
            given = self._versions_in(name)
            if given != [version]:
                return asked
        return asked._replace(named=True, current=given == [version])

    def _twins(self, name: str, path: str, version: str) -> tuple[Twin, ...]:
        """The file's twins, if a build has made the folder. Twins of a hashed name always belong to this content."""
        manifest = self.manifest()
        return twins_of(path, not_older=manifest.contents.get(name) != version) if manifest.files else ()

    def _versions_in(self, name: str) -> list[str]:
        """The version that a build has given this name, in the manifest or in the name itself."""
        if (content := self.manifest().contents.get(name)) is not None:
            return [content]
        return [found[1]] if (found := _HASHED.search(name)) else []

    def _locate(self, name: str) -> _Located:
        segments = _segments(name)
        if name.startswith("/") or ".." in segments or "\0" in name or "\\" in name:
            return _Located(refused=True)
        for directory in self.directories:
            path = os.path.join(directory, *segments)
            if not os.path.exists(path):  # also a name that the file system does not take
                continue
            real = os.path.realpath(path)
            if not self.follow_symlinks and not inside(real, directory):
                return _Located(refused=True)
            if os.path.isfile(real):
                return _Located(real)
        return _Located()

    def _look_at(self, path: str) -> _Known | None:
        known = self._known.get(path)
        try:
            if known is None or not known.settled or known.signature != _signature(os.stat(path)):
                known = self._known[path] = _hash(path)
        except OSError:
            return None
        return known

    def manifest(self) -> Manifest:
        """The manifest of the folder; read again when it has changed, unless the folder is `fixed`."""
        signature, manifest = self._manifest
        if self.fixed and signature is not None:
            return manifest
        for directory in self.directories:
            path = os.path.join(directory, MANIFEST)
            if os.path.isfile(path):
                present = _signature(os.stat(path))
                if present != signature:
                    self._manifest = (present, self._checked(path))
                return self._manifest[1]
        self._manifest = ("none", Manifest({}, {}))
        return self._manifest[1]

    def _checked(self, path: str) -> Manifest:
        manifest = Manifest.read(path)
        for name, hashed in manifest.files.items():
            if self._locate(hashed).path is None:
                raise ImproperlyConfigured(f"{path} names {hashed!r} for {name!r}, which is not there. Build it again.")
        return manifest


def inside(path: str, directory: str) -> bool:
    """Is this real path inside of the directory?"""
    root = os.path.realpath(directory)
    return path == root or path.startswith(root.rstrip(os.sep) + os.sep)


def _split(url: object) -> SplitResult | None:
    try:
        return urlsplit(url) if isinstance(url, str) else None
    except ValueError:  # of brackets that are no address
        return None


def _segments(name: str) -> list[str]:
    return [segment for segment in name.split("/") if segment not in ("", ".")]


def _signature(status: os.stat_result) -> tuple[int, ...]:
    return status.st_mtime_ns, status.st_size, status.st_ino, status.st_ctime_ns


def _hash(path: str) -> _Known:
    """Hash the file; the result is not settled if the file was written meanwhile."""
    with open(path, "rb") as file:
        before = os.fstat(file.fileno())
        digest = hashlib.file_digest(file, "sha256").hexdigest()
    after = os.stat(path)
    now = time.time()
    calm = all(abs(now - moment) > _RACY for moment in (after.st_mtime, after.st_ctime))
    return _Known(_signature(after), digest[:VERSION_LENGTH], calm and _signature(before) == _signature(after))
