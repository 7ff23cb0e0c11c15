"""A folder of static files: which file a name stands for, which version it has, which URL asks for that version.

Rule 1: a name never leads out of the folder: not by `..`, an absolute path, NUL, a backslash or a symbolic link.
Rule 2: the version of a file is its content. A version is remembered with the file's times, size and inode, and never
        trusted for a file that changed so lately that another change could bear the same time stamp.
Rule 3: `fixed` fixes the URLs that are given out; whether a file holds what a URL asks for is looked up every time.
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

#: What `cachemw static build` writes beside the files it has made.
MANIFEST: Final = "static-manifest.json"
VERSION_LENGTH: Final = 12  # hex digits of SHA-256: 48 bits tell apart the versions of one file
_RACY: Final = 2.0  # seconds; FAT has the coarsest time stamps
_HASHED: Final = re.compile(r"\.([0-9a-f]{12})(?:\.[^./]+)?$")
_TIME_STAMP: Final = re.compile(
    r"1[0-9]{9}(?:[0-9]{3})?(?:\.[0-9]+)?|(?:19|20)[0-9]{2}[01][0-9][0-3][0-9](?:[0-9]{4,6})?"
)
CHOSEN: Final[Any] = object()  # no version was given by hand


class StaticVersionWarning(UserWarning):
    """A version given by hand looks like a time: it changes when the file does not, or stays when the file changes."""


class _Known(NamedTuple):
    """The version that a file had, and how the file looked then; `settled` if any later change would show."""

    signature: tuple[int, ...]
    version: str
    settled: bool


class _Located(NamedTuple):
    """The file that a name stands for; without one, whether the name may not be asked for at all."""

    path: str | None = None
    refused: bool = False


class Asked(NamedTuple):
    """What a request asks of a static file.

    `version` is what the file holds, None if there is none; `named` whether the URL names a version at all, and
    `current` whether that is the one. `refused`: the URL leads out of the folder, and is answered with 404. By `size`
    (in octets) and `modified` (in seconds) a response with the file is known; `twins` are its compressed copies.
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
    """What a build has made: `files` from names to hashed names, `contents` from hashed names to content versions."""

    files: Mapping[str, str]
    contents: Mapping[str, str]

    @classmethod
    def read(cls, path: str | os.PathLike[str]) -> Manifest:
        """Read the file. Raises: ImproperlyConfigured if it is none of ours."""
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
    """Static files under one URL; calling it gives the URL of a file, with the version of its content.

        static_url = StaticFolder("static")
        static_url("style.css")             # /static/style.css?v=2c26b46b68ff

    `directories` are searched in this order. `url` is where the files are served: a path, or the URL of a CDN. With
    `fixed` (production) a file's URL stays what it was when it was first asked for, without a look at the file. A
    directory that `cachemw static build` made gives its hashed names instead. `follow_symlinks` also allows files that
    symbolic links lead to outside of the directories.

    Raises: ImproperlyConfigured for a directory that is not there, a wrong URL or an unreadable manifest.
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
                raise ImproperlyConfigured(f"The static folder {os.fspath(directory)!r} is no directory.")
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
        """The URL of a file by its path within the folder ("css/site.css"). A `v` by hand wins; None leaves it out.

        Raises: ImproperlyConfigured, which names the file, if there is none or if it lies outside of the folder.
        Warns: StaticVersionWarning if `v` looks like a time stamp.
        """
        if not isinstance(name, str):
            raise ImproperlyConfigured(f"The static file {name!r} is no text; give its path within the folder.")
        if not (self.fixed and name in self._given):
            located = self._locate(name)
            if located.path is None or name != "/".join(_segments(name)):
                raise ImproperlyConfigured(self._complaint(name, located))
        name, version = self.reference(name, v=v)
        return self.url + quote(os.fsencode(name), safe="/~") + ("" if version is None else f"?v={quote(version)}")

    def reference(self, name: str, *, v: Any = CHOSEN) -> tuple[str, str | None]:
        """The name and the version that a URL of this file is to carry, for frameworks that build it themselves.

        A file that is not there has no version; this is logged once: a page with a broken image is better than none.
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
        """The first 12 hex digits of the SHA-256 of what the file holds now; None if there is no such file."""
        located = self._locate(name)
        known = None if located.path is None else self._look_at(located.path)
        return None if known is None else known.version

    def asked(self, name: str, query: str) -> Asked:
        """What a request for this file with this (raw) query asks for."""
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
        """Of a folder that a build has made, the file's twins; under a hashed name they never belong to another one."""
        manifest = self.manifest()
        return twins_of(path, not_older=manifest.contents.get(name) != version) if manifest.files else ()

    def _versions_in(self, name: str) -> list[str]:
        """The version that a build has promised for this name: in its manifest, or in the name itself."""
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
        """What a build has made of this folder; read anew when it changed, unless the folder is `fixed`."""
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
    """Whether a real path lies within a directory."""
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
    """Hash the file; a hash of one that was written to meanwhile is not settled."""
    with open(path, "rb") as file:
        before = os.fstat(file.fileno())
        digest = hashlib.file_digest(file, "sha256").hexdigest()
    after = os.stat(path)
    now = time.time()
    calm = all(abs(now - moment) > _RACY for moment in (after.st_mtime, after.st_ctime))
    return _Known(_signature(after), digest[:VERSION_LENGTH], calm and _signature(before) == _signature(after))
