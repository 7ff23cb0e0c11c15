"""The cache table and the statements on it, for each kind of database. No connection is used here.

Rule 1: every operation is one statement, and atomic in it: `add` replaces an expired row, `touch` revives none, `incr`
leaves the expiry alone.
Rule 2: the table is an ordinary one with the value last: SQLite without rowid is 20 times slower with large values.
Rule 3: the rows that expire are found by an index. SQLite spends as much on it as on all else when a row is stored
again, so there the index is on `due`, which is left alone then: it is never later than the expiry, but may be earlier.
Who looks for what has expired looks at what is due, and puts off what lives on.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from functools import cached_property
from typing import Any, Final

from sqlalchemy import (
    BigInteger,
    Column,
    ColumnElement,
    Delete,
    Double,
    Executable,
    Index,
    Insert,
    LargeBinary,
    MetaData,
    Select,
    Table,
    Text,
    and_,
    bindparam,
    cast,
    column,
    delete,
    func,
    or_,
    select,
    union_all,
    update,
    values,
)
from sqlalchemy.dialects import mysql, postgresql, sqlite
from sqlalchemy.engine import Dialect
from sqlalchemy.schema import CreateIndex, CreateTable, ExecutableDDLElement
from sqlalchemy.sql.elements import quoted_name

from cachemw._values import refuse
from cachemw.backends._db.keys import KEY_SIZE, ColumnKey, column_key, column_keys, text_key, text_keys

__all__ = ["DEFAULT_TABLE", "KEYS_AT_ONCE", "Statements", "make_table"]

#: Where no name is given.
DEFAULT_TABLE: Final = "cachemw"
#: Keys in one statement, at most.
KEYS_AT_ONCE: Final = 500

_WORD: Final = r"[A-Za-z_][A-Za-z0-9_]*(?: [A-Za-z0-9_]+)*"
_NAME: Final = re.compile(rf"(?:({_WORD})\.)?({_WORD})")
_INDEX_SUFFIX: Final = "_expires"
#: PostgreSQL's limit of 63 bytes, less the suffix of the index.
_NAME_LENGTH: Final = 63 - len(_INDEX_SUFFIX)

_MIN_INT64: Final = -(2**63)
_MAX_INT64: Final = 2**63 - 1


def make_table(name: object, *, due: bool = False) -> Table:
    """The table of this name ("table" or "schema.table"; blanks within are allowed). It is quoted in every statement.

    due: has it that column (rule 3)? Raises: ImproperlyConfigured if the name is no identifier.
    """
    match = _NAME.fullmatch(name) if isinstance(name, str) else None
    if match is None or len(match[2]) > _NAME_LENGTH:
        allowed = (
            f"at most {_NAME_LENGTH} letters, digits, underscores and single blanks, after a schema and a dot or not"
        )
        raise refuse("The cache's table name", name, allowed)
    key = LargeBinary().with_variant(mysql.VARBINARY(KEY_SIZE), "mysql", "mariadb").with_variant(Text(), "sqlite")
    times = [Column("expires", Double, nullable=True)]  # seconds since the epoch; NULL: never
    if due:
        times.append(Column("due", Double, nullable=True))  # the same; NULL: there is nothing to look at
    return Table(
        quoted_name(match[2], quote=True),
        MetaData(schema=match[1] and quoted_name(match[1], quote=True)),
        Column("cache_key", key, primary_key=True),
        *times,
        Column("number", BigInteger, nullable=True),  # the value, if it is an integer that can be counted
        Column("value", LargeBinary().with_variant(mysql.LONGBLOB(), "mysql", "mariadb"), nullable=True),
        Index(quoted_name(match[2] + _INDEX_SUFFIX, quote=True), times[-1]),
        mysql_engine="InnoDB",
        mariadb_engine="InnoDB",
    )


class Statements:
    """What is executed, for one table and one kind of database ("sqlite", "postgresql", "mysql" or "mariadb").

    The parameters are `key`, `keys`, `now` (seconds since the epoch), `expires` (the same, or None), `number`, `value`,
    `until` (a new expiry), those of `addends`, `limit`. With `how_many`, there are so many
    parameters `key_0`, `key_1`, … instead of `keys`: for who prepares statements.
    """

    def __init__(self, table: Table, kind: str, *, how_many: int | None = None) -> None:
        self.table = table
        self.kind = kind
        #: What makes keys in the table of made ones.
        self.column_key: Callable[[str], ColumnKey] = text_key if kind == "sqlite" else column_key
        self.column_keys: Callable[[Sequence[str]], Sequence[ColumnKey]]
        self.column_keys = text_keys if kind == "sqlite" else column_keys
        self._key = table.c.cache_key
        self._expires = table.c.expires
        self._due: Any = table.c.get("due")
        self._indexed = self._expires if self._due is None else self._due
        self._stored = func.coalesce(table.c.number, table.c.value)
        row = [self._key, table.c.number, table.c.value]
        self._row = select(*row, self._expires) if kind == "sqlite" else select(*row)
        self._how_many = how_many or 0
        self._each_key = [bindparam(f"key_{number}", type_=LargeBinary) for number in range(self._how_many)]
        self._in_keys = self._key.in_(bindparam("keys", expanding=True) if how_many is None else self._each_key)
        self._is_key = self._key == bindparam("key")
        self._is_live = or_(self._expires.is_(None), self._expires > bindparam("now"))

    @property
    def counts_by_last_id(self) -> bool:
        """Does the server lack `RETURNING`? Then `incr` and `add` answer through LAST_INSERT_ID()."""
        return self.kind in ("mysql", "mariadb")

    @cached_property
    def get(self) -> Executable:
        """Rows (key, number, value; of SQLite also expires) of the live ones of `keys`."""
        return self._row.where(self._in_keys, self._is_live)

    @cached_property
    def get_few(self) -> Executable:
        """The rows of `get`, where SQLite is quicker with it: with a few keys, and twenty times with large values.

        The parameters stand in the order key, now, key, now, …
        """
        return union_all(*[self._row.where(self._key == key, self._is_live) for key in self._each_key])

    @cached_property
    def get_row(self) -> Executable:
        """One row (number, value) if the key is there, alive: quicker than `get`, as drivers take time for columns."""
        return select(self.table.c.number, self.table.c.value).where(self._is_key, self._is_live)

    @cached_property
    def get_one(self) -> Executable:
        """One row (number or value) if the key is there, for SQLite. The parameters stand in the order key, now."""
        return select(self._stored).where(self._is_key, self._is_live)

    @cached_property
    def get_values(self) -> Executable:
        """One row (number or value; NULL if there is none alive) for each of the keys, in their order, for SQLite.

        It then sorts no keys, and copies none. The parameters stand in the order of the keys, now.
        """
        wanted = values(column("wanted", LargeBinary), name="wanted").data([(key,) for key in self._each_key]).cte()
        found = wanted.outerjoin(self.table, and_(self._key == wanted.c.wanted, self._is_live))
        return select(self._stored).select_from(found)

    @cached_property
    def peek(self) -> Executable:
        """One row (number, expires) if the key is there, alive; its value is not read."""
        return select(self.table.c.number, self._expires).where(self._is_key, self._is_live)

    @cached_property
    def set(self) -> Executable:
        """Store one row, or replace it. With `due`, the parameters stand in the order of the columns."""
        return self._insert(lambda new, old: new)

    @cached_property
    def set_again(self) -> Executable:
        """Store `how_many` values as `set` does, but leave `due` alone: where it would be too late, the whole row is.

        The parameters stand in the order key, expires, expires, value, once for each row.
        """
        return self._again("value")

    @cached_property
    def set_number_again(self) -> Executable:
        """The same with numbers."""
        return self._again("number")

    def _again(self, stored: str) -> Insert:
        names = ("cache_key", "expires", "due", stored)
        rows: list[dict[str, Any]]
        rows = [{name: bindparam(f"{name}_{number}") for name in names} for number in range(self._how_many)]
        statement = sqlite.insert(self.table).values(rows)
        new = statement.excluded
        changes = {name: new[name] for name in ("number", "value", "expires")}
        in_time = or_(self._due <= new.expires, new.expires.is_(None))
        return statement.on_conflict_do_update(index_elements=[self._key], set_=changes, where=in_time)

    @cached_property
    def add(self) -> Executable:
        """Store one row, or replace it if it is expired; see `counts_by_last_id` for how to tell."""
        is_expired = self._expires <= bindparam("now")
        if not self.counts_by_last_id:
            return self._insert(lambda new, old: new, where=is_expired)
        # MySQL's upsert knows no WHERE, so that each column is given its new or its old value; `expires` comes last, as
        # the assignments see each other's results. A refusal leaves 1 as the connection's last insert id.
        return self._insert(
            lambda new, old: func.if_(
                is_expired, new, func.if_(func.last_insert_id(1) == 1, old, old) if old is self._expires else old
            )
        )

    def _insert(self, choose: Callable[[Any, Any], Any], where: Any = None) -> Insert:
        columns = [self.table.c.number, self.table.c.value, self._expires]
        row: dict[str, Any] = {
            "cache_key": bindparam("key"),
            **{column.name: bindparam(column.name) for column in columns},
        }
        if self._due is not None:
            row["due"] = bindparam("expires")
            if where is None:  # else it is an expired row's, and not too late for any new one
                columns.append(self._due)
        if self.counts_by_last_id:
            new = mysql.insert(self.table).values(row)
            return new.on_duplicate_key_update([(c.name, choose(new.inserted[c.name], c)) for c in columns])
        insert = postgresql.insert if self.kind == "postgresql" else sqlite.insert
        statement = insert(self.table).values(row)
        changes = {column.name: choose(statement.excluded[column.name], column) for column in columns}
        return statement.on_conflict_do_update(index_elements=[self._key], set_=changes, where=where)

    @cached_property
    def touch(self) -> Executable:
        """Give a live row a new expiry."""
        until: Any = bindparam("until")
        changes = {"expires": until} if self._due is None else {"expires": until, "due": until}
        return update(self.table).where(self._is_key, self._is_live).values(changes)

    @cached_property
    def incr(self) -> Executable:
        """Add to a live number between `low` and `high`; one row with the sum, or see `counts_by_last_id`."""
        number = self.table.c.number
        in_range = number.between(bindparam("low"), bindparam("high"))
        statement = update(self.table).where(self._is_key, self._is_live, in_range)
        # by halves, as a difference between two numbers of 64 bits may have 65
        total = number + bindparam("half", type_=BigInteger) + bindparam("rest", type_=BigInteger)
        if self.counts_by_last_id:
            # LAST_INSERT_ID() is unsigned: the cast makes a negative sum one again
            return statement.values(number=cast(func.last_insert_id(total), BigInteger))
        return statement.values(number=total).returning(number)

    @staticmethod
    def addends(delta: int) -> dict[str, int]:
        """The parameters of `incr` that add `delta` (of up to 64 bits and a sign) where the sum has 64 bits."""
        return {
            "half": delta // 2,
            "rest": delta - delta // 2,
            "low": max(_MIN_INT64, _MIN_INT64 - delta),
            "high": min(_MAX_INT64, _MAX_INT64 - delta),
        }

    @cached_property
    def delete(self) -> Executable:
        """Remove the live ones of `keys`; the others are left to the cull, lest they be counted."""
        return delete(self.table).where(self._in_keys, self._is_live)

    @cached_property
    def clear(self) -> Executable:
        """Remove all rows."""
        return delete(self.table)

    @cached_property
    def count(self) -> Executable:
        """One row: how many rows there are, and how many of `keys` are among them."""
        known = select(func.count()).where(self._in_keys).scalar_subquery()
        return select(select(func.count()).select_from(self.table).scalar_subquery(), known)

    @cached_property
    def drop_expired(self) -> Executable:
        """Remove up to `limit` expired rows; with `due`, from among so many that are due first."""
        now: Any = bindparam("now")
        if self._due is None:
            return self._drop(select(self._key).where(self._expires <= now))
        return self._drop(select(self._key).where(self._due <= now).order_by(self._due)).where(self._expires <= now)

    @cached_property
    def drop_first(self) -> Delete:
        """Remove the `limit` rows that expire (or are due) first, which with one timeout for all are the oldest."""
        return self._drop(self._first)

    @cached_property
    def drop_any(self) -> Executable:
        """Remove up to `limit` rows that never expire."""
        return self._drop(select(self._key).where(self._indexed.is_(None)))

    @cached_property
    def drop_due(self) -> Executable:
        """Of the `limit` rows that are due first, remove those that expire then: nothing else does so earlier."""
        return self.drop_first.where(self._due.is_not_distinct_from(self._expires))

    @cached_property
    def put_off(self) -> Executable:
        """Of the `limit` rows that are due first, `until` then, make those due when they expire that are so earlier."""
        first = self._first.where(self._due <= bindparam("until"))
        is_early = self._due.is_distinct_from(self._expires)
        return update(self.table).where(self._limited(first), is_early).values(due=self._expires)

    @property
    def _first(self) -> Select[Any]:
        return select(self._key).where(self._indexed.is_not(None)).order_by(self._indexed)

    def _drop(self, victims: Select[Any]) -> Delete:
        return delete(self.table).where(self._limited(victims))

    def _limited(self, keys: Select[Any]) -> ColumnElement[bool]:
        """Is the row one of the first `limit` of these?"""
        limited = keys.limit(bindparam("limit", type_=BigInteger))
        if self.kind == "postgresql":
            limited = limited.with_for_update(skip_locked=True)
        # once more around it, as MySQL takes no LIMIT in the subquery of IN
        chosen = limited.subquery()
        return self._key.in_(select(chosen.c.cache_key))

    def create(self, dialect: Dialect) -> list[str]:
        """The statements that make the table and its index, if they are not there."""
        create_table = CreateTable(self.table, if_not_exists=True)
        # MySQL has no IF NOT EXISTS for an index
        indexes = [CreateIndex(index, if_not_exists=not self.counts_by_last_id) for index in self.table.indexes]
        makers: list[ExecutableDDLElement] = [create_table, *indexes]
        return [str(maker.compile(dialect=dialect)).strip() for maker in makers]
