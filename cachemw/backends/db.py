"""DatabaseCache: entries as rows of a table in SQLite, PostgreSQL, MySQL or MariaDB.

Rule 1: each operation is one statement, which is atomic (`_db_schema`); what takes several steps is written once, as a
plan that yields calls, and driven by threads or by an event loop.
Rule 2: the bound is looked at after a part of it was written, never with every write; the expired rows go first, then
those that expire first.
Rule 3: a replica answers reads, the primary does all else. A replica that lags shows what was there a moment ago,
purged pages included.
"""

from __future__ import annotations

import random
import time
from collections.abc import Generator, Iterable, Mapping, Sequence
from operator import itemgetter
from typing import Any, ClassVar, Final, TypeVar

from sqlalchemy import URL, make_url
from sqlalchemy.exc import ArgumentError

from cachemw._values import boolean, integer, members, number, refuse, without_password
from cachemw.backends._db_calls import Call, MissingTable, Outcome, Store, ValueTooLarge
from cachemw.backends._db_schema import DEFAULT_TABLE, Statements, column_key, make_table
from cachemw.backends._db_server import DRIVERS, ServerStore
from cachemw.backends._db_sqlite import SQLiteStore
from cachemw.backends._quick import QuickReads
from cachemw.backends.base import BaseCache, Entry, offload
from cachemw.errors import BackendUnavailable

__all__ = ["DatabaseCache"]

T = TypeVar("T")
#: Steps of an operation: yields calls, is sent their outcomes or thrown their errors, returns the answer.
Plan = Generator[Call, Outcome, T]

_MAX_ENTRIES: Final = 100_000
#: The rows are counted after this part of MAX_ENTRIES was written, but at least once in so many writes.
_PART: Final = 64
_MAX_PART: Final = 1000
#: Rows to remove in one statement, and in one go: a cull must not hold up the write that comes upon it.
_CULL_STEP: Final = 1000
_CULL_LIMIT: Final = 5000
#: Keys in one statement.
_KEYS_AT_ONCE: Final = 500
_INT64: Final = range(-(2**63), 2**63)
#: The largest number whose halves have 64 bits.
_MAX_DELTA: Final = 2**64 - 2


class DatabaseCache(BaseCache):
    """Entries as rows of a table.

    location: a SQLAlchemy URL: `sqlite:////path/of/file`, `postgresql://user:password@host/database`,
        `mysql://…`, `mariadb://…`. Or, as in Django, the name of the table; OPTIONS then says which database.
    OPTIONS: `table` (default "cachemw"; "schema.table", blanks allowed), `write` (URL of the primary, default:
        LOCATION), `read` (URL of a replica, or several), `max_entries` (default 100 000), `cull_frequency` (default 3),
        `create` (make the table when it is missing; default: for SQLite), `deadline` (seconds for a call, and for
        another process's write in SQLite; default 0.25), `pool_size` (connections of a process, default 10),
        `inline_reads` (SQLite: tasks read on the event loop while that is quick; default True).

    Drivers: sqlite3; psycopg for both halves; PyMySQL and, for the async half, asyncmy. The async half of SQLite works
    in threads, but for quick reads. The bound may be exceeded by 2 % for each process.

    Raises: ImproperlyConfigured.
    """

    option_names: ClassVar[frozenset[str] | None] = frozenset(
        {"table", "read", "write", "max_entries", "cull_frequency", "create", "deadline", "pool_size", "inline_reads"}
    )

    def __init__(self, location: str | Sequence[str], params: Mapping[str, Any] | None = None) -> None:
        super().__init__(location, params)
        options = self.options
        table, primary = _table_and_url(location, options)
        self._max_entries, self._frequency = self._cull_options(max_entries=_MAX_ENTRIES)
        self._deadline = number("OPTIONS['deadline']", options.get("deadline", 0.25), minimum=0.001)
        self._pool_size = integer("OPTIONS['pool_size']", options.get("pool_size", 10), minimum=1)
        self._statements = Statements(make_table(table), _kind(primary))
        self._create = boolean("OPTIONS['create']", options.get("create", self._statements.kind == "sqlite"))
        self._primary = self._store(primary)
        self._readers = [self._store(_url("OPTIONS['read']", url)) for url in _replicas(options.get("read"))]
        #: SQLite's short way to a few rows: a plan takes longer than SQLite itself.
        self._sqlite = self._primary if isinstance(self._primary, SQLiteStore) and not self._readers else None
        self._reads = QuickReads(allowed=boolean("OPTIONS['inline_reads']", options.get("inline_reads", True)))
        #: Rows that may be written until they are counted again; threads that race here only count once more.
        self._room = 0

    def _store(self, url: URL) -> Store:
        if _kind(url) != self._statements.kind:
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
        """A cache in another table of the same database. Raises: ImproperlyConfigured if that is no table's name."""
        return type(self)(self.location, {"OPTIONS": {**self.options, "table": name}})

    def create_table(self, *, dry_run: bool = False) -> list[str]:
        """Make the table and its index, or only say how (`dry_run`); returns the SQL. Raises: BackendUnavailable."""
        if not dry_run:
            self._primary.create()
        return self._primary.ddl()

    # -- plans ---------------------------------------------------------------------------------------------------

    def _plan_get(self, keys: Sequence[str]) -> Plan[dict[str, Any]]:
        found: dict[str, Any] = {}
        for part in _parts(keys):
            by_column = {column_key(key): key for key in part}
            outcome = yield Call("get", {"keys": list(by_column), "now": time.time()}, reads=True)
            found.update(_by_key(by_column, outcome.rows))
        return found

    def _plan_peek(self, key: str) -> Plan[Sequence[Any] | None]:
        """(number, expiry) of a live row."""
        outcome = yield Call("peek", {"key": column_key(key), "now": time.time()}, reads=True)
        return outcome.rows[0] if outcome.rows else None

    def _plan_set(self, entries: Sequence[Entry]) -> Plan[list[str]]:
        now = time.time()
        # in order of keys, so that two writers of the same rows do not wait for one another
        rows = sorted([_row(entry, now) for entry in entries], key=itemgetter("key"))
        yield from self._make_room([row["key"] for row in rows])
        try:
            yield Call("set", rows[0] if len(rows) == 1 else rows)
        except ValueTooLarge:
            if len(entries) == 1:
                yield from self._plan_delete([entries[0][0]])
                return [entries[0][0]]
            failed = []
            for entry in entries:
                failed += yield from self._plan_set([entry])
            return failed
        return []

    def _plan_add(self, entry: Entry) -> Plan[bool]:
        now = time.time()
        row = _row(entry, now)
        yield from self._make_room([row["key"]])
        outcome = yield Call("add", {**row, "now": now})
        return outcome.last_id == 0 if self._statements.counts_by_last_id else outcome.changed > 0

    def _plan_touch(self, key: str, timeout: float | None) -> Plan[bool]:
        now = time.time()
        until = None if timeout is None else now + timeout
        outcome = yield Call("touch", {"key": column_key(key), "now": now, "until": until})
        return outcome.changed > 0

    def _plan_delete(self, keys: Sequence[str]) -> Plan[int]:
        deleted = 0
        for part in _parts(keys):
            columns = [column_key(key) for key in part]
            deleted += (yield Call("delete", {"keys": columns, "now": time.time()})).changed
        return deleted

    def _plan_incr(self, key: str, delta: int) -> Plan[int]:
        while True:  # again only if the row changed between two statements
            here = {"key": column_key(key), "now": time.time()}
            if abs(delta) <= _MAX_DELTA:
                outcome = yield Call("incr", {**here, **Statements.addends(delta)})
                if outcome.rows:
                    return int(outcome.rows[0][0])
                if outcome.changed > 0 and self._statements.counts_by_last_id:
                    return _signed(outcome.last_id)
            rows = (yield Call("peek", here)).rows
            if not rows:
                raise KeyError(key)
            if rows[0][0] is None:
                raise TypeError(f"the value of {key!r} is no integer")
            if abs(delta) > _MAX_DELTA or rows[0][0] + delta not in _INT64:
                raise OverflowError(f"{rows[0][0]} + {delta} has more than 64 bits")

    def _plan_clear(self) -> Plan[None]:
        yield Call("clear", {}, patient=True)

    def _make_room(self, keys: list[bytes]) -> Plan[None]:
        """Cull, if it is time to look and these keys would be too many. A cull that fails is left to a later write."""
        self._room -= len(keys)
        if self._room >= 0:
            return
        self._room = min(max(self._max_entries, 0) // _PART, _MAX_PART)
        try:
            yield Call("drop_expired", {"now": time.time(), "limit": _CULL_STEP})
            total, known = (yield Call("count", {"keys": keys[:_KEYS_AT_ONCE]})).rows[0]
            left = self._max_entries - total - (len(keys) - known)
            if left < 0:
                yield from self._cull(total, -left)
            self._room = min(self._room, max(left, 0))
        except MissingTable:
            raise
        except BackendUnavailable:
            return

    def _cull(self, total: int, excess: int) -> Plan[None]:
        if self._frequency == 0:
            yield from self._plan_clear()
            return
        wanted = min(max(total // self._frequency, excess), _CULL_LIMIT)
        while wanted > 0:
            limit = {"limit": min(wanted, _CULL_STEP)}
            dropped = (yield Call("drop_first", limit)).changed or (yield Call("drop_any", limit)).changed
            if dropped <= 0:
                return
            wanted -= dropped

    # -- driving them --------------------------------------------------------------------------------------------

    def _drive(self, plan: Plan[T]) -> T:
        try:
            call = next(plan)
            while True:
                try:
                    outcome = self._run(call)
                except BackendUnavailable as error:
                    call = plan.throw(error)
                else:
                    call = plan.send(outcome)
        except StopIteration as stop:
            return stop.value  # type: ignore[no-any-return]

    async def _adrive(self, plan: Plan[T]) -> T:
        try:
            call = next(plan)
            while True:
                try:
                    outcome = await self._arun(call)
                except BackendUnavailable as error:
                    call = plan.throw(error)
                else:
                    call = plan.send(outcome)
        except StopIteration as stop:
            return stop.value  # type: ignore[no-any-return]

    def _run(self, call: Call) -> Outcome:
        store = self._store_for(call)
        try:
            return store.run(call)
        except MissingTable:
            if not self._create:
                raise
        self._primary.create()
        return store.run(call)

    async def _arun(self, call: Call) -> Outcome:
        store = self._store_for(call)
        try:
            return await store.arun(call)
        except MissingTable:
            if not self._create:
                raise
        await offload(self._primary.create)
        return await store.arun(call)

    def _store_for(self, call: Call) -> Store:
        # random: spreads the load, guards no secret
        return random.choice(self._readers) if call.reads and self._readers else self._primary  # noqa: S311

    # -- primitives ----------------------------------------------------------------------------------------------

    def _get(self, keys: Sequence[str]) -> dict[str, Any]:
        if self._sqlite is not None and 0 < len(keys) <= _KEYS_AT_ONCE:
            by_column = {column_key(key): key for key in keys}
            try:
                return _by_key(by_column, self._sqlite.get(tuple(by_column), time.time()))
            except MissingTable:
                pass  # the plan makes it
        return self._drive(self._plan_get(keys))

    async def _aget(self, keys: Sequence[str]) -> dict[str, Any]:
        sqlite = self._sqlite
        if sqlite is not None and 0 < len(keys) <= _KEYS_AT_ONCE:
            by_column = {column_key(key): key for key in keys}
            try:
                rows = await self._reads.run(sqlite.get, tuple(by_column), time.time(), at_once=sqlite.get_at_once)
                return _by_key(by_column, rows)
            except MissingTable:
                pass  # the plan makes it
        return await self._adrive(self._plan_get(keys))

    def _set(self, entries: Sequence[Entry]) -> list[str]:
        return self._drive(self._plan_set(entries))

    async def _aset(self, entries: Sequence[Entry]) -> list[str]:
        return await self._adrive(self._plan_set(entries))

    def _add(self, key: str, value: Any, timeout: float | None) -> bool:
        return self._drive(self._plan_add((key, value, timeout)))

    async def _aadd(self, key: str, value: Any, timeout: float | None) -> bool:
        return await self._adrive(self._plan_add((key, value, timeout)))

    def _touch(self, key: str, timeout: float | None) -> bool:
        return self._drive(self._plan_touch(key, timeout))

    async def _atouch(self, key: str, timeout: float | None) -> bool:
        return await self._adrive(self._plan_touch(key, timeout))

    def _delete(self, keys: Sequence[str]) -> int:
        return self._drive(self._plan_delete(keys))

    async def _adelete(self, keys: Sequence[str]) -> int:
        return await self._adrive(self._plan_delete(keys))

    def _incr(self, key: str, delta: int) -> int:
        return self._drive(self._plan_incr(key, delta))

    async def _aincr(self, key: str, delta: int) -> int:
        return await self._adrive(self._plan_incr(key, delta))

    def _has(self, key: str) -> bool:
        return self._drive(self._plan_peek(key)) is not None

    async def _ahas(self, key: str) -> bool:
        return await self._adrive(self._plan_peek(key)) is not None

    def _timeout_left(self, key: str) -> float | None:
        return self._left(self._drive(self._plan_peek(key)))

    async def _atimeout_left(self, key: str) -> float | None:
        return self._left(await self._adrive(self._plan_peek(key)))

    def _left(self, row: Sequence[Any] | None) -> float | None:
        if row is None:
            return self.default_timeout
        return None if row[1] is None else float(row[1] - time.time())

    def _clear(self) -> None:
        self._drive(self._plan_clear())

    async def _aclear(self) -> None:
        await self._adrive(self._plan_clear())

    def _close(self) -> None:
        for store in (self._primary, *self._readers):
            store.close()

    async def _aclose(self) -> None:
        for store in (self._primary, *self._readers):
            await store.aclose()


def _table_and_url(location: object, options: Mapping[str, Any]) -> tuple[object, URL]:
    """The table's name and the primary's URL: LOCATION is either, as in Django or as a URL."""
    write, table = options.get("write"), options.get("table")
    if isinstance(location, str) and "://" in location:
        return table or DEFAULT_TABLE, _url("OPTIONS['write']", write) if write else _url("LOCATION", location)
    if not write:
        raise refuse("LOCATION", location, "the database's URL; or a table's name, with the URL in OPTIONS['write']")
    return table or location or DEFAULT_TABLE, _url("OPTIONS['write']", write)


def _url(name: str, given: object) -> URL:
    allowed = "sqlite:////path/of/file, postgresql://user:password@host/database, mysql://…, mariadb://…"
    text = given.removeprefix("db+") if isinstance(given, str) else ""
    try:
        url = make_url(text)
        kind, driver = _kind(url), url.get_driver_name() if "+" in url.drivername else None
    except (ArgumentError, ValueError):
        raise refuse(name, without_password(text) or given, allowed) from None
    drivers = ("pysqlite",) if kind == "sqlite" else DRIVERS[kind][:2] if kind in DRIVERS else ()
    if not drivers or (driver is not None and driver not in drivers):
        raise refuse(name, without_password(text), allowed)
    return url


def _kind(url: URL) -> str:
    kind = url.drivername.partition("+")[0]
    return "postgresql" if kind == "postgres" else kind


def _replicas(given: object) -> Sequence[str]:
    return () if given is None else (given,) if isinstance(given, str) else members("OPTIONS['read']", given)


def _by_key(keys: Mapping[bytes, str], rows: Iterable[Sequence[Any]]) -> dict[str, Any]:
    """Rows (key, number, value) as what is stored under the made keys, which are given by column."""
    return {keys[key]: value if counted is None else counted for key, counted, value in rows}


def _parts(keys: Sequence[str]) -> list[Sequence[str]]:
    return [keys[start : start + _KEYS_AT_ONCE] for start in range(0, len(keys), _KEYS_AT_ONCE)]


def _row(entry: Entry, now: float) -> dict[str, Any]:
    key, value, timeout = entry
    counted = value if type(value) is int else None
    return {
        "key": column_key(key),
        "expires": None if timeout is None else now + timeout,
        "number": counted,
        "value": value if counted is None else None,
    }


def _signed(unsigned: int) -> int:
    """MySQL's LAST_INSERT_ID() of 64 bits, as the number that it was."""
    return unsigned - 2**64 if unsigned >= 2**63 else unsigned
