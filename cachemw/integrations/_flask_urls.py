"""The absolute URLs for a purge in Flask: as `url_for` gives them, with the hosts that visitors may have used."""

from __future__ import annotations

from collections.abc import Sequence
from urllib.parse import urlsplit

from flask import Flask, has_request_context, request

from cachemw.wsgi import WSGIRequest

__all__ = ["absolute", "mounts"]


def absolute(urls: Sequence[str], app: Flask) -> list[str]:
    """The URLs with the hosts under which the pages may be stored.

    Raises: ValueError if no host is known, and for a text that is no URL of `url_for`.
    """
    found: list[str] = []
    for url in urls:
        parts = urlsplit(url)
        if parts.scheme:
            found.append(url)
        elif not url.startswith("/"):
            raise ValueError(f"cannot purge {url!r}: a path begins with '/', as url_for writes it.")
        else:
            found += [f"{scheme}:{url if parts.netloc else f'//{host}{url}'}" for scheme, host in _hosts(url, app)]
    return found


def _hosts(url: str, app: Flask) -> list[tuple[str, str]]:
    """Scheme and host of the current request, before and after ProxyFix; without a request the configured ones."""
    if has_request_context():
        environ = request.environ
        seen = [WSGIRequest(environ)]
        original = environ.get("werkzeug.proxy_fix.orig")
        if original is not None:
            seen.append(WSGIRequest({**environ, **{name: value for name, value in original.items() if value}}))
        return list(dict.fromkeys((one.scheme, one.host) for one in seen))
    host = app.config.get("SERVER_NAME")
    if not host:
        raise ValueError(
            f"cannot purge {url!r}: outside of a request, give the absolute URL (url_for(..., _external=True)), or set "
            "SERVER_NAME."
        )
    return [(app.config.get("PREFERRED_URL_SCHEME") or "http", host)]


def mounts(app: Flask) -> tuple[str, ...]:
    """The path where the application is mounted, if not at "/"."""
    root = request.script_root if has_request_context() else app.config.get("APPLICATION_ROOT") or ""
    return (root.rstrip("/"),) if root.rstrip("/") else ()
