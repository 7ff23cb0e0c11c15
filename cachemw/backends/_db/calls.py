"""What passes between the database cache, which knows the rules, and the stores, which know the connections."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple, Protocol
from urllib.parse import quote

from sqlalchemy import URL, Table

from cachemw.errors import BackendUnavailable

__all__ = ["Call", "MissingTable", "Outcome", "Store", "ValueTooLarge", "shown_url"]


class Call(NamedTuple):
    """One statement to execute: its name in `Statements`, and its parameters, or several sets of them.

    reads: a replica may answer. patient: it may take long (clearing, culling).
    """

    statement: str
    parameters: Mapping[str, Any] | Sequence[Mapping[str, Any]]
    reads: bool = False
    patient: bool = False


class Outcome(NamedTuple):
    """What came of it: the rows, how many rows were found or changed, and MySQL's LAST_INSERT_ID()."""

    rows: Sequence[Sequence[Any]] = ()
    changed: int = 0
    last_id: int = 0


def shown_url(url: URL) -> str:
    """The URL as it may stand in messages; of a password with a bare "@" the rest is in the host."""
    if url.host is not None and "@" in url.host:
        url = url.set(host=url.host.rpartition("@")[2])
    secrets = [name for name in url.query if name.lower().endswith(("password", "passwd"))]
    return url.update_query_dict(dict.fromkeys(secrets, "hidden")).render_as_string(hide_password=True)


class MissingTable(BackendUnavailable):
    """The cache's table is not there: what to type."""

    def __init__(self, table: Table, url: URL) -> None:
        name, place = table.fullname, shown_url(url)
        place += f"{'&' if url.query else '?'}table={quote(name)}"
        super().__init__(
            f"The table {name!r} is not there, and nothing is cached until it is: run "
            f"`CACHEMW_URL='db+{place}' cachemw createcachetable` once, or add create=1 to the URL (OPTIONS: create)"
        )


class ValueTooLarge(BackendUnavailable):
    """The database does not take a value of this size."""


class Store(Protocol):
    """Executes calls. Raises BackendUnavailable, and nothing else, for whatever the database or the network does."""

    def run(self, call: Call) -> Outcome:
        """Execute; each set of parameters takes effect at once, or not at all."""

    async def arun(self, call: Call) -> Outcome:
        """The same without blocking the event loop."""

    def has_table(self) -> bool:
        """Is the cache's table there?"""

    def ddl(self) -> list[str]:
        """The SQL that makes the table."""

    def create(self) -> None:
        """Make the table, unless it is there."""

    def close(self) -> None:
        """Close the connections; others are opened when needed."""

    async def aclose(self) -> None:
        """The same, and those of this event loop."""
