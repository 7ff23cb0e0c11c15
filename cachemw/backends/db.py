"""DatabaseCache: entries as rows of a table in SQLite, PostgreSQL, MySQL or MariaDB.

Rule 1: what an operation does stands in `_db.plans`; here it is driven by threads or by an event loop.
Rule 2: a replica answers reads, the primary does all else, and the reads that no replica answers. A replica that lags
shows what was there a moment ago, purged pages included; what decides over a purge is read from the primary.
Rule 3: SQLite is quicker than a plan; what a page's hit and miss are made of is asked of it directly.
"""

from __future__ import annotations

import time
from collections.abc import Iterable, Mapping, Sequence
from contextlib import suppress
from itertools import chain
from typing import Any, ClassVar, Final, TypeVar

from sqlalchemy import URL

from cachemw._values import LONGEST_WAIT, boolean, integer, number, refuse
from cachemw.backends._db.calls import Call, MissingTable, Outcome, Store, ValueTooLarge
from cachemw.backends._db.keys import ColumnKey, text_key, text_keys
from cachemw.backends._db.plans import MAX_DELTA, Plan, Plans, adrive, drive
from cachemw.backends._db.replicas import Replicas
from cachemw.backends._db.schema import KEYS_AT_ONCE, Statements, make_table
from cachemw.backends._db.server import ServerStore
from cachemw.backends._db.sql import NewRow, row_of
from cachemw.backends._db.sqlite import Row, SQLiteStore
from cachemw.backends._db.urls import kind_of, replica_urls, table_and_url
from cachemw.backends._quick import QuickReads
from cachemw.backends._records import Decode
from cachemw.backends.base import BaseCache, Entry, offload
from cachemw.errors import BackendUnavailable

__all__ = ["DatabaseCache"]

T = TypeVar("T")

_MAX_ENTRIES: Final = 100_000
#: Seconds that a visitor may be kept waiting to discover that a server hangs.
_DEADLINE: Final = 0.1
#: Seconds for SQLite's one writer to finish, or to move the log into the file: that is work, no fault.
_LOCK_DEADLINE: Final = 0.25


class DatabaseCache(BaseCache):
    """Entries as rows of a table.

    location: a SQLAlchemy URL: `sqlite:////path/of/file`, `postgresql://user:password@host/database`,
        `mysql://…`, `mariadb://…`. Or, as in Django, the name of the table; OPTIONS then says which database.
    OPTIONS: `table` (default "cachemw"; "schema.table", blanks allowed), `write` (URL of the primary, default:
        LOCATION), `read` (URL of a replica, or several), `max_entries` (default 100 000), `cull_frequency` (default 3),
        `create` (make the table when it is missing; default: for SQLite), `deadline` (seconds for a call, default 0.1;
        for another process's write in SQLite, default 0.25), `pool_size` (connections of a process, default 10),
        `inline_reads` (SQLite: tasks read on the event loop while that is quick; default True).

    Drivers: sqlite3; psycopg for both halves; PyMySQL and, for the async half, asyncmy. The async half of SQLite works
    in threads, but for quick reads. `max_entries` may be exceeded by 2 % for each process.

    Raises: ImproperlyConfigured for a wrong URL, table or option; InvalidCacheBackendError if a driver is missing.
    """

    option_names: ClassVar[frozenset[str] | None] = frozenset(
        {"table", "read", "write", "max_entries", "cull_frequency", "create", "deadline", "pool_size", "inline_reads"}
    )

    def __init__(self, location: str | Sequence[str], params: Mapping[str, Any] | None = None) -> None:
        super().__init__(location, params)
        self._params = {str(name).upper(): value for name, value in (params or {}).items()}
        options = self.options
        table, primary = table_and_url(location, options)
        max_entries, frequency = self._cull_options(max_entries=_MAX_ENTRIES)
        kind = kind_of(primary)
        self._statements = Statements(make_table(table, due=kind == "sqlite"), kind)
        deadline = options.get("deadline", _LOCK_DEADLINE if kind == "sqlite" else _DEADLINE)
        self._deadline = number("OPTIONS['deadline']", deadline, minimum=0.001, maximum=LONGEST_WAIT)
        self._pool_size = integer("OPTIONS['pool_size']", options.get("pool_size", 10), minimum=1)
        self._create = boolean("OPTIONS['create']", options.get("create", kind == "sqlite"))
        self._primary = self._store(primary)
        self._replicas = Replicas([self._store(url) for url in replica_urls(options.get("read"))])
        self._plans = Plans(self._statements, max_entries=max_entries, frequency=frequency)
        lone = None if self._replicas.stores else self._primary
        #: Asked directly (rule 3), where there is no choice.
        self._sqlite = lone if isinstance(lone, SQLiteStore) else None
        self.near = self._sqlite is not None
        self._reads = QuickReads(allowed=boolean("OPTIONS['inline_reads']", options.get("inline_reads", True)))

    def _store(self, url: URL) -> Store:
        if kind_of(url) != self._statements.kind:
            raise refuse("OPTIONS['read']", url.drivername, f"the kind of the primary, {self._statements.kind}")
        if self._statements.kind == "sqlite":
            return SQLiteStore(url, self._statements, timeout=self._deadline)
        return ServerStore(url, self._statements, timeout=self._deadline, pool_size=self._pool_size)

    # -- the table -----------------------------------------------------------------------------------------------

    @property
    def table(self) -> str:
        """The table's name, with its schema if it has one."""
        return self._statements.table.fullname

    def has_table(self) -> bool:
        """Is the table there? Raises: BackendUnavailable."""
        return self._primary.has_table()

    def for_table(self, name: str) -> DatabaseCache:
        """The same cache in another table. Raises: ImproperlyConfigured if that is no table's name."""
        options = {**self.options, **self.compression.options, "fail_open": self._fail_open is not None, "table": name}
        return type(self)(self.location, {**self._params, "OPTIONS": options})

    def create_table(self, *, dry_run: bool = False) -> list[str]:
        """Make the table and its index, or only say how (`dry_run`); returns the SQL. Raises: BackendUnavailable."""
        if not dry_run:
            self._primary.create()
        return self._primary.ddl()

    # -- driving them --------------------------------------------------------------------------------------------

    def _drive(self, plan: Plan[T]) -> T:
        return drive(plan, self._run)

    async def _adrive(self, plan: Plan[T]) -> T:
        return await adrive(plan, self._arun)

    def _run(self, call: Call) -> Outcome:
        if call.reads:
            for replica in self._replicas.candidates(self._deadline / 2):
                try:
                    outcome = replica.store.run(call)
                except BackendUnavailable:
                    replica.failed()
                else:
                    replica.answered()
                    return outcome
        try:
            return self._primary.run(call)
        except MissingTable:
            if not self._create:
                raise
        self._primary.create()
        return self._primary.run(call)

    async def _arun(self, call: Call) -> Outcome:
        if call.reads:
            for replica in self._replicas.candidates(self._deadline / 2):
                try:
                    outcome = await replica.store.arun(call)
                except BackendUnavailable:
                    replica.failed()
                else:
                    replica.answered()
                    return outcome
        try:
            return await self._primary.arun(call)
        except MissingTable:
            if not self._create:
                raise
        await offload(self._primary.create)
        return await self._primary.arun(call)

    # -- primitives ----------------------------------------------------------------------------------------------

    def get(self, key: Any, default: Any = None, version: Any = None) -> Any:
        if self._sqlite is not None and self._fail_open is None:
            made = self.make_and_validate_key(key, version)
            try:
                rows = self._sqlite.get_one(text_key(made), time.time())
            except MissingTable:
                pass  # the plan makes it
            else:
                return self._decode(made, rows[0][0], default) if rows else default
        return super().get(key, default, version)

    def get_many(self, keys: Iterable[Any], version: Any = None) -> dict[Any, Any]:
        given = list(keys)
        if self._sqlite is not None and self._fail_open is None and 0 < len(given) <= KEYS_AT_ONCE:
            made = self._made_each(given, version)
            with suppress(MissingTable):  # the plan makes it
                rows = self._sqlite.values(text_keys(made), time.time())
                return self._all_found(given, made, _in_place(made, rows))
        return super().get_many(given, version)

    def _get(self, keys: Sequence[str]) -> dict[str, Any]:
        sqlite = self._sqlite
        if sqlite is not None:
            try:
                if len(keys) == 1:
                    rows = sqlite.get_one(text_key(keys[0]), time.time())
                    return {keys[0]: rows[0][0]} if rows else {}
                if 0 < len(keys) <= KEYS_AT_ONCE:
                    return _present(keys, sqlite.values(text_keys(keys), time.time()))
            except MissingTable:
                pass  # the plan makes it
        return self._drive(self._plans.get(keys))

    async def _aget(self, keys: Sequence[str]) -> dict[str, Any]:
        sqlite = self._sqlite
        if sqlite is not None and 0 < len(keys) <= KEYS_AT_ONCE:
            now = time.time()
            try:
                if len(keys) == 1:
                    key = text_key(keys[0])
                    rows = await self._reads.run(sqlite.get_one, key, now, at_once=sqlite.get_one_at_once)
                    return {keys[0]: rows[0][0]} if rows else {}
                rows = await self._reads.run(sqlite.values, text_keys(keys), now, at_once=sqlite.values_at_once)
                return _present(keys, rows)
            except MissingTable:
                pass  # the plan makes it
        return await self._adrive(self._plans.get(keys))

    def _get_latest(self, keys: Sequence[str]) -> dict[str, Any]:
        return self._drive(self._plans.get(keys, latest=True)) if self._replicas.stores else self._get(keys)

    async def _aget_latest(self, keys: Sequence[str]) -> dict[str, Any]:
        if self._replicas.stores:
            return await self._adrive(self._plans.get(keys, latest=True))
        return await self._aget(keys)

    def _set(self, entries: Sequence[Entry]) -> list[str]:
        if self._sqlite is not None:
            try:
                self._sqlite.set(self._rows(entries, time.time()))
                return []
            except (MissingTable, ValueTooLarge):
                pass  # the plan makes the one, and finds the other
        return self._drive(self._plans.set(entries))

    def _rows(self, entries: Sequence[Entry], now: float) -> list[NewRow]:
        """What SQLite is to store, for which there is room."""
        rows = [row_of(entry, now) for entry in entries]
        if not self._plans.take_room(len(rows)):
            self._drive(self._plans.look_for_room([row[0] for row in rows]))
        return rows

    async def _aset(self, entries: Sequence[Entry]) -> list[str]:
        if self._sqlite is not None:
            return await offload(self._set, entries)
        return await self._adrive(self._plans.set(entries))

    def _add(self, key: str, value: Any, timeout: float | None) -> bool:
        return self._drive(self._plans.add((key, value, timeout)))

    async def _aadd(self, key: str, value: Any, timeout: float | None) -> bool:
        return await self._adrive(self._plans.add((key, value, timeout)))

    def _touch(self, key: str, timeout: float | None) -> bool:
        return self._drive(self._plans.touch(key, timeout))

    async def _atouch(self, key: str, timeout: float | None) -> bool:
        return await self._adrive(self._plans.touch(key, timeout))

    def _delete(self, keys: Sequence[str]) -> int:
        return self._drive(self._plans.delete(keys))

    async def _adelete(self, keys: Sequence[str]) -> int:
        return await self._adrive(self._plans.delete(keys))

    def _incr(self, key: str, delta: int) -> int:
        if self._sqlite is not None and abs(delta) <= MAX_DELTA:
            with suppress(MissingTable):  # the plan makes it
                total = self._sqlite.incr(text_key(key), time.time(), delta)
                if total is not None:
                    return total
        return self._drive(self._plans.incr(key, delta))

    async def _aincr(self, key: str, delta: int) -> int:
        return await self._adrive(self._plans.incr(key, delta))

    def _has(self, key: str) -> bool:
        return self._drive(self._plans.peek(key)) is not None

    async def _ahas(self, key: str) -> bool:
        return await self._adrive(self._plans.peek(key)) is not None

    def _timeout_left(self, key: str) -> float | None:
        return self._left(self._drive(self._plans.peek(key, latest=True)))

    async def _atimeout_left(self, key: str) -> float | None:
        return self._left(await self._adrive(self._plans.peek(key, latest=True)))

    @staticmethod
    def _left(row: Sequence[Any] | None) -> float | None:
        if row is None:
            return 0.0
        return None if row[1] is None else float(row[1] - time.time())

    def _clear(self) -> None:
        self._drive(self._plans.clear())

    async def _aclear(self) -> None:
        await self._adrive(self._plans.clear())

    def _close(self) -> None:
        for store in (self._primary, *self._replicas.stores):
            store.close()

    async def _aclose(self) -> None:
        for store in (self._primary, *self._replicas.stores):
            await store.aclose()

    # -- pages ---------------------------------------------------------------------------------------------------

    def _columns(self, keys: Sequence[str]) -> Sequence[ColumnKey]:
        prefix = self._page_prefix  # a page's key in a store without limits
        return text_keys([prefix + key for key in keys])

    def read_decoded(self, keys: Sequence[str], decode: Decode) -> list[Any]:
        """The records that `decode(key, payload)` makes of the payloads, None where there is none: a page's hit.

        What is asked for often in SQLite is remembered until somebody writes. Raises: BackendUnavailable.
        """
        if self._sqlite is not None and 0 < len(keys) <= KEYS_AT_ONCE:
            try:
                return self._sqlite.pages(keys, self._columns, time.time(), decode)
            except MissingTable:
                pass  # the plan makes it
        return super().read_decoded(keys, decode)

    async def aread_decoded(self, keys: Sequence[str], decode: Decode) -> list[Any]:
        """See `read_decoded`."""
        sqlite = self._sqlite
        if sqlite is not None and 0 < len(keys) <= KEYS_AT_ONCE:
            arguments = keys, self._columns, time.time(), decode
            try:
                return await self._reads.run(sqlite.pages, *arguments, at_once=sqlite.pages_at_once)
            except MissingTable:
                pass  # the plan makes it
        return await super().aread_decoded(keys, decode)

    def read_records(self, keys: Sequence[str]) -> list[Any]:
        """See `BaseCache.read_records`."""
        if self._sqlite is not None and 0 < len(keys) <= KEYS_AT_ONCE:
            columns = self._columns(keys)
            try:
                return _values(columns, self._sqlite.get(columns, time.time()))
            except MissingTable:
                pass  # the plan makes it
        return super().read_records(keys)

    async def aread_records(self, keys: Sequence[str]) -> list[Any]:
        """See `read_records`."""
        sqlite = self._sqlite
        if sqlite is not None and 0 < len(keys) <= KEYS_AT_ONCE:
            columns = self._columns(keys)
            try:
                rows = await self._reads.run(sqlite.get, columns, time.time(), at_once=sqlite.get_at_once)
                return _values(columns, rows)
            except MissingTable:
                pass  # the plan makes it
        return await super().aread_records(keys)

    def commit_records(
        self, records: Sequence[tuple[str, Any, float | None]], latest: Sequence[str], drops: Sequence[str]
    ) -> tuple[list[str], list[Any]]:
        """See `BaseCache.commit_records`; SQLite does it in one transaction."""
        sqlite = self._sqlite
        _, entries, ended = self._page_entries(records)
        if sqlite is not None and entries and not ended and max(len(latest), len(drops)) <= KEYS_AT_ONCE:
            now = time.time()
            rows = self._rows(entries, now)
            try:
                columns = self._columns(latest)
                return [], _values(columns, sqlite.commit(rows, columns, self._columns(drops), now))
            except (MissingTable, ValueTooLarge):
                pass  # step by step, the one is made and the other found
        return super().commit_records(records, latest, drops)

    async def acommit_records(
        self, records: Sequence[tuple[str, Any, float | None]], latest: Sequence[str], drops: Sequence[str]
    ) -> tuple[list[str], list[Any]]:
        """See `commit_records`."""
        if self._sqlite is not None:
            return await offload(self.commit_records, records, latest, drops)
        return await super().acommit_records(records, latest, drops)

    async def aadd_and_read(
        self, key: str, payload: Any, timeout: float | None, latest: Sequence[str]
    ) -> tuple[bool, list[Any]]:
        """See `BaseCache.add_and_read`."""
        if self._sqlite is not None:
            return await offload(self.add_and_read, key, payload, timeout, latest)
        return await super().aadd_and_read(key, payload, timeout, latest)


def _in_place(keys: Sequence[str], rows: Sequence[tuple[Any]]) -> list[Any]:
    """What is stored under each of the keys, from the rows of `get_values`, which may be more."""
    return [*chain.from_iterable(rows)][: len(keys)]


def _present(keys: Sequence[str], rows: Sequence[tuple[Any]]) -> dict[str, Any]:
    """What is stored of the keys."""
    return {key: value for key, value in zip(keys, _in_place(keys, rows), strict=True) if value is not None}


def _values(columns: Sequence[ColumnKey], rows: Sequence[Row]) -> list[Any]:
    """The values in the order of the columns, None where there is none, or a number."""
    found = {key: value for key, _, value, _ in rows}
    return [found.get(column) for column in columns]
