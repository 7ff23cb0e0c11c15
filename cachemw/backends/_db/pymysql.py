"""PyMySQL's connections, made in 2 ms instead of 20.

Where no TLS is asked for PyMySQL takes what the server offers, and checks no certificate. Nevertheless it reads all the
authorities that the machine trusts, for each connection anew, and no other thread of the process runs meanwhile.
"""

from __future__ import annotations

from ssl import SSLContext
from typing import Any, ClassVar

from pymysql.connections import Connection  # type: ignore[import-untyped]

__all__ = ["QuickConnection"]


class QuickConnection(Connection):  # type: ignore[misc]  # it has no types
    """A connection; those for which no TLS is asked share what it would need."""

    _shared: ClassVar[SSLContext | None] = None

    def _create_ssl_ctx(self, sslp: Any) -> Any:
        if sslp:  # certificates of the user's, who may replace them
            return super()._create_ssl_ctx(sslp)
        if QuickConnection._shared is None:
            QuickConnection._shared = super()._create_ssl_ctx(sslp)
        return QuickConnection._shared
