"""The build: static files under hashed names, with rewritten references, a manifest, and compressed twins.

Rule 1: a hashed name changes when the file changes, or any file that it refers to, directly or not. Files that import
        each other in a circle work, too.
Rule 2: nothing is written if a reference leads nowhere; each file appears whole, by renaming; the manifest comes last.
Rule 3: nothing is removed: pages that were sent before still find the files that they name.
"""

from __future__ import annotations

import filecmp
import gzip
import hashlib
import os
import posixpath
import re
import shutil
import tempfile
from collections.abc import Callable, Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from functools import partial
from importlib import import_module
from pathlib import Path
from typing import Any, Final, NamedTuple
from urllib.parse import unquote

from cachemw._busting.folder import MANIFEST, VERSION_LENGTH, Manifest, inside
from cachemw._busting.references import Reference, may_refer, references, rewritten
from cachemw._busting.twins import COMPRESSIONS
from cachemw.errors import ImproperlyConfigured

__all__ = ["Built", "Problem", "build"]

_COMPRESSED: Final = re.compile(
    r"\.(?:7z|apng|avif|br|bz2|flac|gif|gz|heic|jpe?g|jxl|m4[av]|mkv|mov|mp[34]|og[agv]|opus|pdf|png|rar|tgz|web[mp]|woff2?"
    r"|xz|zip|zst)$",
    re.IGNORECASE,
)
_LEFT_OUT: Final = re.compile(rf"(?:^|/)\.(?!well-known/)[^/]*|~$|(?:^|/){re.escape(MANIFEST)}$")
_IGNORED: Final = dict.fromkeys(map(ord, "\t\r\n"))  # by browsers, in URLs
_ELSEWHERE: Final = re.compile(r"[A-Za-z][A-Za-z0-9+.-]*:|/|[?#]|\Z")  # another scheme or folder, or no path at all
_SUFFIX: Final = re.compile(r"[?#].*", re.DOTALL)
_SMALL: Final = 256  # octets; a smaller file fits in the packet with the header fields
_WORTH: Final = 0.95  # of its size; a twin that saves less is not worth the look-ups


#: By file, the references to other files, in order, and the names of these files.
Links = dict[str, list[tuple[Reference, str]]]


class Problem(NamedTuple):
    """A reference that leads nowhere, or a file that may not be published."""

    file: str
    line: int
    what: str

    def __str__(self) -> str:
        return f"{self.file}:{self.line}: {self.what}" if self.line else f"{self.file}: {self.what}"


@dataclass(frozen=True, kw_only=True)
class Built:
    """The result of a build.

    files      hashed names by name
    problems   see `Problem`
    rewritten  the number of files with rewritten references
    sizes      by coding, the octets of the files with a twin, and the octets of their twins
    """

    files: Mapping[str, str]
    problems: Sequence[Problem]
    rewritten: int = 0
    sizes: Mapping[str, tuple[int, int]] = field(default_factory=dict)


def build(
    sources: Iterable[str | os.PathLike[str]],
    target: str | os.PathLike[str],
    *,
    url: str = "/static/",
    compress: Iterable[str] | None = None,
    missing_ok: bool = False,
) -> Built:
    """Write static files from source folders to a target folder, under hashed names, ready to be served.

        build(["static"], "public", url="/static/")

    sources     folders; of two files with one name, the first is taken
    target      folder; created if it does not exist
    url         where the target is served; references that begin with it are rewritten, too
    compress    some of gzip, br and zstd; None: those that are installed
    missing_ok  write even if references lead nowhere; those references stay as they are

    Each file is written twice: unchanged under its own name; and under a name with the hash of its content, with the
    hashed names in url(…), @import, source maps and imports of modules. With problems nothing is written, unless
    `missing_ok`; missing source maps are no problem.

    Raises: ImproperlyConfigured for a folder, coding or package that does not exist; TypeError for one folder in place
    of a list.
    """
    roots, out = _checked_folders(sources, target)
    encoders = _encoders(compress)
    files, problems = _collect(roots)
    links, missing = _links(files, url)
    problems += missing
    if problems and not missing_ok:
        return Built(files={}, problems=problems)
    hashed = {name: _with_version(name, version) for name, version in _versions(files, links).items()}
    for name, path in files.items():
        _write(out / name, path)
        places = [(reference, posixpath.basename(hashed[file])) for reference, file in links[name]]
        _write(out / hashed[name], rewritten(path.read_bytes(), places) if places else path)
    sizes = _compress(out, [*files, *hashed.values()], encoders)
    _write_manifest(out, hashed)
    return Built(files=hashed, problems=problems, rewritten=sum(map(bool, links.values())), sizes=sizes)


def _checked_folders(
    sources: Iterable[str | os.PathLike[str]], target: str | os.PathLike[str]
) -> tuple[list[Path], Path]:
    if isinstance(sources, str | os.PathLike):  # a text is an iterable, of its characters
        raise TypeError(f"The sources are a list of directories; got {sources!r}: write [{sources!r}].")
    out = Path(target).resolve()
    roots = [Path(source) for source in sources]
    for root in roots:
        if not root.is_dir():
            raise ImproperlyConfigured(f"The source {str(root)!r} is not a directory.")
        if inside(str(out), str(root)) or inside(str(root.resolve()), str(out)):
            raise ImproperlyConfigured(f"The target {str(out)!r} and the source {str(root)!r} lie in one another.")
    return roots, out


# -- reading --------------------------------------------------------------------------------------------------------


def _collect(roots: list[Path]) -> tuple[dict[str, Path], list[Problem]]:
    files: dict[str, Path] = {}
    problems: list[Problem] = []
    for root in roots:
        for folder, folders, names in os.walk(root):
            folders[:] = sorted(one for one in folders if not one.startswith(".") or one == ".well-known")
            links = [one for one in folders if Path(folder, one).is_symlink()]
            for file in sorted([*names, *links]):
                path = Path(folder, file)
                name = path.relative_to(root).as_posix()
                if _LEFT_OUT.search(name) or name in files:
                    continue
                if not inside(os.path.realpath(path), str(root)):
                    problems.append(Problem(name, 0, "is a symbolic link that leads out of the folder"))
                elif path.is_file():
                    files[name] = path
                else:
                    problems.append(Problem(name, 0, "is not a file, or is a symbolic link to a folder"))
    for name in [one for one in files if one.endswith(tuple(COMPRESSIONS.values())) and _stem(one) in files]:
        del files[name]  # a twin from elsewhere may be of another content: we make our own
    return files, problems


def _stem(name: str) -> str:
    return posixpath.splitext(name)[0]


def _links(files: Mapping[str, Path], url: str) -> tuple[Links, list[Problem]]:
    """The links of all files; and the references that lead nowhere."""
    links: Links = {}
    problems: list[Problem] = []
    for name, path in files.items():
        links[name] = []
        for reference in references(name, path.read_bytes()) if may_refer(name) else ():
            target = _target(name, reference, url)
            if target is None:
                continue
            if target in files:
                links[name].append((reference, target))
            elif reference.kind != "map":
                problems.append(Problem(name, reference.line, f"{reference.url!r} is not there"))
    return links, problems


def _target(name: str, reference: Reference, url: str) -> str | None:
    """The file that a reference names; outside of the folder it begins with `..`. None: it names none of our files."""
    base = url.rstrip("/") + "/"
    asked = reference.url.strip().translate(_IGNORED)
    if reference.kind == "module" and not asked.startswith(("./", "../", base)):
        return None  # a bare specifier, for the page's import map
    if asked.startswith(base):
        asked, folder = asked[len(base) :], ""
    else:
        folder = posixpath.dirname(name)
    if _ELSEWHERE.match(asked):
        return None
    return posixpath.normpath(posixpath.join(folder, unquote(_SUFFIX.sub("", asked))))


# -- naming ---------------------------------------------------------------------------------------------------------


def _versions(files: Mapping[str, Path], links: Links) -> dict[str, str]:
    """The version of each file; for a file without references it is that of `StaticFolder.version`."""
    digests = {name: _digest(path) for name, path in files.items()}
    versions = {}
    for name, digest in digests.items():
        reached = _reached(name, links)
        if reached:
            framed = [f"{len(os.fsencode(one))}:".encode() + os.fsencode(one) + digests[one] for one in sorted(reached)]
            digest = hashlib.sha256(b"".join([digest, *framed])).digest()
        versions[name] = digest.hex()[:VERSION_LENGTH]
    return versions


def _digest(path: Path) -> bytes:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").digest()


def _reached(name: str, links: Links) -> set[str]:
    """All files that a file refers to, directly or through others."""
    reached: set[str] = set()
    waiting = [name]
    while waiting:
        new = {file for _, file in links[waiting.pop()]} - reached
        reached |= new
        waiting += new
    return reached


def _with_version(name: str, version: str) -> str:
    folder, file = posixpath.split(name)
    stem, end = posixpath.splitext(file)
    return posixpath.join(folder, f"{stem}.{version}{end}")


# -- writing --------------------------------------------------------------------------------------------------------


def _write(path: Path, content: bytes | Path) -> None:
    """Write a file that appears whole; a file that has this content already is not touched."""
    if path.is_file() and _same(path, content):
        return
    path.parent.mkdir(parents=True, exist_ok=True)
    descriptor, temporary = tempfile.mkstemp(dir=path.parent, prefix=".", suffix="~")
    try:
        with os.fdopen(descriptor, "wb") as file:
            if isinstance(content, bytes):
                file.write(content)
            else:
                with content.open("rb") as source:
                    shutil.copyfileobj(source, file)
        os.chmod(temporary, 0o644)  # another account may serve it
        os.replace(temporary, path)
    except BaseException:
        os.unlink(temporary)
        raise


def _same(path: Path, content: bytes | Path) -> bool:
    return path.read_bytes() == content if isinstance(content, bytes) else filecmp.cmp(path, content, shallow=False)


def _write_manifest(out: Path, hashed: Mapping[str, str]) -> None:
    path = out / MANIFEST
    before = Manifest.read(path).contents if path.is_file() else {}
    contents = {name: version for name, version in before.items() if (out / name).is_file()}
    contents |= {name: _digest(out / name).hex()[:VERSION_LENGTH] for name in hashed.values()}
    _write(path, Manifest(hashed, contents).dump().encode("ascii"))


Encoder = Callable[[bytes], bytes]


def _encoders(wanted: Iterable[str] | None) -> dict[str, Encoder]:
    if wanted is None:
        return {coding: encoder for coding in COMPRESSIONS if (encoder := _encoder(coding)) is not None}
    encoders = {}
    for coding in wanted:
        if coding not in COMPRESSIONS:
            raise ImproperlyConfigured(f"There is no compression {coding!r}; allowed: {', '.join(COMPRESSIONS)}.")
        encoder = _encoder(coding)
        if encoder is None:
            raise ImproperlyConfigured(f"The package for {coding} is not installed: pip install 'cachemw[static]'")
        encoders[coding] = encoder
    return encoders


def _encoder(coding: str) -> Encoder | None:
    """An encoder with the strongest setting. The same content gives the same octets."""
    if coding == "gzip":
        return partial(gzip.compress, compresslevel=9, mtime=0)
    if coding == "br":
        brotli = _imported("brotli")
        return None if brotli is None else partial(brotli.compress, quality=11)
    zstd = _imported("compression.zstd") or _imported("backports.zstd")
    return None if zstd is None else partial(zstd.compress, level=19)


def _imported(module: str) -> Any:
    try:
        return import_module(module)
    except ImportError:
        return None


def _compress(out: Path, names: Sequence[str], encoders: Mapping[str, Encoder]) -> dict[str, tuple[int, int]]:
    """Write the twins. A twin that saves too little is not written, and an old one is removed."""
    jobs = [(out / name, coding) for name in names for coding in encoders]
    saved: dict[str, tuple[int, int]] = dict.fromkeys(encoders, (0, 0))

    def work(job: tuple[Path, str]) -> tuple[int, int]:
        path, coding = job
        twin = path.with_name(path.name + COMPRESSIONS[coding])
        if not _COMPRESSED.search(path.name) and (size := path.stat().st_size) >= _SMALL:
            small = encoders[coding](path.read_bytes())
            if len(small) <= size * _WORTH:
                _write(twin, small)
                return size, len(small)
        twin.unlink(missing_ok=True)
        return 0, 0

    with ThreadPoolExecutor(os.cpu_count()) as pool:  # the encoders release the interpreter's lock
        for (_, coding), sizes in zip(jobs, pool.map(work, jobs), strict=True):
            saved[coding] = (saved[coding][0] + sizes[0], saved[coding][1] + sizes[1])
    return saved
