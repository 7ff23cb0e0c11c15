"""Spellings: the texts under which one request path may reach the application.

A path prefix that guards (a login check before a scope, a rule "never") must not be walked around by writing the path
in another way: servers decode percent-encoding, some frameworks merge slashes or resolve dot segments, and WSGI
carries UTF-8 as latin-1. Keys never use this module: they are made of the path exactly as it came.
"""

from __future__ import annotations

import posixpath
from urllib.parse import unquote_to_bytes

__all__ = ["below", "decoded", "readings", "spellings"]


def decoded(path: str) -> str:
    """`path` as Unicode text, whether it was percent-encoded, WSGI's latin-1 or decoded before; never raises."""
    if "%" in path:
        path = unquote_to_bytes(path).decode("utf-8", "replace")
    if path.isascii():
        return path
    try:
        return path.encode("latin-1").decode("utf-8")  # PEP 3333: bytes in the clothes of latin-1
    except UnicodeError:
        return path


def below(mount: str, path: str) -> str:
    """The path without the mount that it begins with: ASGI has `root_path` in `path`, though not every server does."""
    mount = mount.rstrip("/")
    return path[len(mount) :] if mount and (path + "/").startswith(mount + "/") else path


def readings(path: str) -> tuple[str, ...]:
    """What an application may read in the path: decoded, and with slashes merged and dot segments resolved."""
    if _is_plain(path):
        return (path,)
    text = decoded(path)
    resolved = _resolved(text)
    return (text,) if text == resolved else (text, resolved)


def spellings(path: str) -> tuple[str, ...]:
    """The readings of the path, and the path as it came; each text once."""
    if _is_plain(path):
        return (path,)
    return tuple(dict.fromkeys((*readings(path), path)))


def _is_plain(path: str) -> bool:
    return "%" not in path and "//" not in path and "/." not in path and path.isascii()


def _resolved(path: str) -> str:
    slash = "/" if path.endswith(("/", "/.", "/..")) else ""
    return (posixpath.normpath("/" + path.lstrip("/")) + slash).replace("//", "/")
