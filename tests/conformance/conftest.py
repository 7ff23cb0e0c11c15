"""The site of the scenarios: a scripted origin, a frozen clock, on WSGI and on ASGI."""

from __future__ import annotations

from tests.scenarios.conftest import clock, site

__all__ = ["clock", "site"]
