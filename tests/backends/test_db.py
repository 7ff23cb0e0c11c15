"""The database store beyond the contract: its settings, its table, its statements, its bound."""

from __future__ import annotations

import asyncio
import gc
import os
import re
import shlex
import sqlite3
import stat
import subprocess
import sys
import threading
import time
import warnings
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import event

import cachemw
from cachemw.backends._db import plans as db_plans
from cachemw.backends._db.calls import Call
from cachemw.backends._db.server import ServerStore
from cachemw.backends._db.sqlite import SQLiteStore
from cachemw.backends.db import DatabaseCache
from cachemw.errors import BackendUnavailable, CacheKeyWarning, ImproperlyConfigured
from cachemw.testing._concurrency import in_processes, in_threads
from tests.servers import mariadb_url, postgresql_url, shared, start_mariadb, start_postgresql

KINDS: dict[str, Callable[[Path], str]] = {
    "sqlite": lambda path: f"sqlite:///{path / 'cache.sqlite3'}",
    "postgresql": lambda path: postgresql_url(shared(start_postgresql)),
    "mariadb": lambda path: mariadb_url(shared(start_mariadb)),
}
Make = Callable[..., DatabaseCache]

ODD_KEYS = ["key", "KEY", "kéy", "key ", "key\0", "key\0x", "key\udc80", "key\ud800", "key\ufffd", "key\ufffe",
            "key\uffff", "\ufeffkey", "\U0001f511", "%s", "%(key)s", ":key", "?", "'", "\\"]  # fmt: skip


@pytest.fixture(params=KINDS)
def url(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    return KINDS[request.param](tmp_path)


@pytest.fixture
def make(url: str) -> Iterator[Make]:
    """Makes caches on one empty table."""
    made: list[DatabaseCache] = []

    def make_one(**options: Any) -> DatabaseCache:
        defaults = {"table": "beyond", "create": True, "deadline": 5}
        made.append(DatabaseCache(url, {"OPTIONS": {**defaults, **options}}))
        return made[-1]

    make_one().clear()
    yield make_one
    for cache in made:
        cache.close()


@pytest.fixture
def cache(make: Make) -> DatabaseCache:
    return make()


@pytest.fixture
def lite(tmp_path: Path) -> Iterator[DatabaseCache]:
    """A cache in SQLite, for what is the same in all databases."""
    cache = DatabaseCache(KINDS["sqlite"](tmp_path), {})
    yield cache
    cache.close()


@contextmanager
def statements(cache: DatabaseCache) -> Iterator[list[str]]:
    """The statements that the database is given meanwhile, the first words of them."""
    seen: list[str] = []
    store = cache._primary
    if isinstance(store, SQLiteStore):
        cache.get("connect")
        [connection] = store.connections._idle
        connection.set_trace_callback(lambda sql: seen.append(sql.split(None, 1)[0]))
        yield seen
        connection.set_trace_callback(None)
        return
    assert isinstance(store, ServerStore)

    def note(connection: Any, cursor: Any, sql: str, parameters: Any, context: Any, many: bool) -> None:
        seen.append(sql.split(None, 1)[0])

    event.listen(store._engines[0], "before_cursor_execute", note)
    yield seen
    event.remove(store._engines[0], "before_cursor_execute", note)


@contextmanager
def later(monkeypatch: pytest.MonkeyPatch, seconds: float) -> Iterator[None]:
    """So much time has passed."""
    now = time.time() + seconds
    with monkeypatch.context() as patch:
        patch.setattr(time, "time", lambda: now)
        yield


# Settings


@pytest.mark.parametrize(
    "location",
    [
        "no url",
        "",
        None,
        7,
        "oracle://host/db",
        "postgresql+psycopg2://host/db",
        "sqlite+aiosqlite:////tmp/x",
        "mysql+mysqldb://host/db",
        "://",
        "postgresql://host:port/db",
    ],
    ids=repr,
)
def test_a_location_that_is_no_usable_url_is_refused(location: Any) -> None:
    with pytest.raises(ImproperlyConfigured, match="LOCATION is"):
        DatabaseCache(location, {})


def test_a_password_is_in_no_message() -> None:
    with pytest.raises(ImproperlyConfigured) as caught:
        DatabaseCache("oracle://user:s3cret@host/db", {})
    assert "s3cret" not in str(caught.value)
    cache = DatabaseCache("postgresql://user:s3cret@127.0.0.1:1/db", {})
    with pytest.raises(BackendUnavailable) as unavailable:
        cache.get("key")
    assert "s3cret" not in str(unavailable.value)
    assert "user:***@127.0.0.1:1" in str(unavailable.value)


@pytest.mark.parametrize("location", ["sqlite://", "sqlite:///:memory:", "sqlite:///file:x?mode=memory&uri=true"])
def test_sqlite_in_memory_is_refused(location: str) -> None:
    with pytest.raises(ImproperlyConfigured, match="locmem://"):
        DatabaseCache(location, {})


@pytest.mark.parametrize(
    "options",
    [
        {"deadline": 0},
        {"deadline": "soon"},
        {"deadline": 1e300},
        {"pool_size": 0},
        {"create": "perhaps"},
        {"max_entries": "many"},
        {"cull_frequency": -1},
        {"read": "postgresql://host/db"},
        {"read": "nothing"},
        {"write": "nothing"},
        {"write": ""},
        {"table": ""},
        {"echo": True},
    ],
    ids=str,
)
def test_an_option_that_cannot_be_used_is_refused(tmp_path: Path, options: dict[str, Any]) -> None:
    with pytest.raises(ImproperlyConfigured, match=f"(?i){next(iter(options))}"):
        DatabaseCache(KINDS["sqlite"](tmp_path), {"OPTIONS": options})


@pytest.mark.parametrize(
    ("url", "said"),
    [
        ("sqlite:////tmp/x?foo=1", "'foo'; allowed: cached_statements, check_same_thread, .*uri"),
        ("sqlite:////tmp/x?check_same_thread=perhaps", "perhaps"),
        ("sqlite:////tmp/x?mode=ro", "'mode'; allowed"),
        ("sqlite:////tmp/x?timeout=5", "'timeout'; allowed"),
        ("sqlite:///file:/tmp/x?uri=true&foo=1", "'foo'; allowed: .*mode"),
        ("sqlite:////tmp/x?uri=perhaps", "perhaps"),
        ("sqlite:////tmp/x?cached_statements=few", "few"),
        ("sqlite://user:s3cret@host/x", r"user:\*\*\*@host.*allowed: sqlite:"),
        ("postgresql://user:s3cret@127.0.0.1:1/db?foo=1", "foo"),
        ("postgresql://user:p@s3cret@127.0.0.1:1/db?foo=1", "foo"),
        ("postgresql://user@127.0.0.1:1/db?sslpassword=s3cret&foo=1", "foo"),
        ("mysql://user@127.0.0.1:1/db?passwd=s3cret&foo=1", "foo"),
        ("postgresql://user:s3cret@127.0.0.1:1/db?prepare_threshold=0", "prepare_threshold"),
        ("postgresql://user:s3cret@127.0.0.1:1/db?sslrootcert=/no/such.pem", "'/no/such.pem'; allowed: a file"),
        ("mariadb://user:s3cret@127.0.0.1:1/db?foo=1", "foo"),
        ("mariadb://user:s3cret@127.0.0.1:1/db?charset=bogus", "charset=bogus"),
        ("mariadb://user:s3cret@127.0.0.1:1/db?connect_timeout=soon", "soon"),
        ("mariadb://user:s3cret@127.0.0.1:1/db?ssl_ca=/no/such.pem", "'/no/such.pem'; allowed: a file"),
        (f"mariadb://user:s3cret@127.0.0.1:1/db?ssl_ca={__file__}", "cannot be used"),
    ],
)  # fmt: skip
def test_what_a_url_says_wrong_is_said_when_the_cache_is_made(url: str, said: str) -> None:
    with pytest.raises(ImproperlyConfigured, match=said) as caught:
        DatabaseCache(url, {})
    assert "s3cret" not in str(caught.value)


def test_what_the_async_driver_alone_does_not_understand_is_said_too() -> None:
    cache = DatabaseCache("mysql://user:s3cret@127.0.0.1:1/db?bind_address=127.0.0.1", {})
    with pytest.raises(ImproperlyConfigured, match="bind_address") as caught:
        asyncio.run(cache.aget("key"))
    assert "s3cret" not in str(caught.value)
    asyncio.run(cache.aclose())  # which has nothing to close, and opens nothing


def test_what_a_url_says_right_is_understood(tmp_path: Path) -> None:
    for query in (
        "cached_statements=7",
        "check_same_thread=true&detect_types=1&isolation_level=EXCLUSIVE",  # which change nothing
    ):
        cache = DatabaseCache(f"{KINDS['sqlite'](tmp_path)}?{query}", {})
        thread = threading.Thread(target=cache.set, args=("key", query))
        thread.start()
        thread.join()
        assert cache.get("key") == query
        cache.close()
    for url in ("postgresql://127.0.0.1:1/db?sslmode=verify-full&sslrootcert=system", "mysql://h/db?charset=utf8mb4"):
        DatabaseCache(url, {}).close()


def test_an_old_sqlite_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sqlite3, "sqlite_version_info", (3, 34, 1))
    with pytest.raises(ImproperlyConfigured, match=r"3\.35 or newer"):
        DatabaseCache(KINDS["sqlite"](tmp_path), {})


@pytest.mark.parametrize(
    ("url", "module", "package"),
    [
        ("postgresql://host/db", "psycopg", r"cachemw\[postgresql\]"),
        ("mysql://host/db", "pymysql", r"cachemw\[mysql\]"),
    ],
)
def test_a_missing_driver_is_named_with_its_package(
    monkeypatch: pytest.MonkeyPatch, url: str, module: str, package: str
) -> None:
    monkeypatch.setitem(sys.modules, module, None)
    with pytest.raises(ImproperlyConfigured, match=package):
        DatabaseCache(url, {})


@pytest.mark.parametrize("name", ["cachemw", "my cache", "a b c", "_x9", "x" * 55, "main.cache"])
def test_a_tables_name_may_have_blanks_and_a_schema(tmp_path: Path, name: str) -> None:
    cache = DatabaseCache(KINDS["sqlite"](tmp_path), {"OPTIONS": {"table": name}})
    cache.set_many({"a": 1, "b": [2]})
    assert cache.get_many(["a", "b"]) == {"a": 1, "b": [2]}
    assert cache.incr("a") == 2
    assert cache.has_table() is True
    assert cache.table == name
    cache.close()


@pytest.mark.parametrize(
    "name",
    [
        "x;DROP TABLE y", 'quo"te', "tick`", "9lives", " x", "x ", "a  b", "a.b.c", ".x", "x.", "é", "x" * 56, "nul\0",
        "a\n", "", 7, 0, False,
    ],
    ids=repr,
)  # fmt: skip
def test_a_tables_name_that_is_no_identifier_is_refused(tmp_path: Path, name: Any) -> None:
    with pytest.raises(ImproperlyConfigured, match="table name"):
        DatabaseCache(KINDS["sqlite"](tmp_path), {"OPTIONS": {"table": name}})


def test_the_location_may_be_the_tables_name_as_in_django(tmp_path: Path) -> None:
    url = KINDS["sqlite"](tmp_path)
    cache = DatabaseCache("my_cache_table", {"OPTIONS": {"write": url}})
    cache.set("key", 1)
    assert cache.table == "my_cache_table"
    other = DatabaseCache(url, {"OPTIONS": {"table": "my_cache_table"}})
    assert other.get("key") == 1
    assert DatabaseCache("", {"OPTIONS": {"write": f"db+{url}"}}).table == "cachemw"
    for one in (cache, other):
        one.close()


def test_a_url_opens_one(tmp_path: Path) -> None:
    cache = cachemw.connect(f"db+{KINDS['sqlite'](tmp_path)}?table=of+a+url&max_entries=7&timeout=60")
    assert isinstance(cache, DatabaseCache)
    cache.set("key", 1)
    assert (cache.table, cache._plans.max_entries, cache.default_timeout) == ("of a url", 7, 60)
    cache.close()


# The table


def drop(cache: DatabaseCache) -> None:
    """Remove the table from a server, which other tests use too."""
    if isinstance(store := cache._primary, ServerStore):
        with store._engines[0].connect() as connection:
            store._statements.table.drop(connection)


def test_a_missing_table_is_an_error_that_says_what_to_run(make: Make) -> None:
    cache = make(create=False, table="not there")
    for operation in (lambda: cache.get("key"), lambda: cache.get_many("ab"), lambda: cache.set("key", 1)):
        with pytest.raises(BackendUnavailable, match=r"'not there' is not there.*run `.*`.*create=1"):
            operation()
    assert cache.has_table() is False


def test_what_a_missing_table_says_to_run_makes_it(make: Make, url: str) -> None:
    cache = make(create=False, table="typed in")
    with pytest.raises(BackendUnavailable) as caught:
        cache.get("key")
    [command] = re.findall("`(.*)`", str(caught.value))
    assert "secret" not in command
    setting, *words = shlex.split(command.replace("***", "secret"))
    name, _, value = setting.partition("=")
    done = subprocess.run([sys.executable, "-m", *words], env={**os.environ, name: value}, capture_output=True)
    assert (done.stdout, done.returncode) == (b"Cache table 'typed in' created.\n", 0), done.stderr
    cache.set("key", 1)
    assert cache.get("key") == 1
    drop(cache)


def test_sqlite_makes_its_table_unless_told_not_to(tmp_path: Path) -> None:
    url = KINDS["sqlite"](tmp_path)
    careful = DatabaseCache(url, {"OPTIONS": {"create": "no"}})
    with pytest.raises(BackendUnavailable, match="createcachetable"):
        careful.get("key")
    willing = DatabaseCache(url, {})
    assert willing.get("key") is None
    assert careful.get("key") is None
    for cache in (careful, willing):
        cache.close()


def test_the_table_can_be_made_and_the_sql_be_seen(make: Make, url: str) -> None:
    cache = make(create=False, table="made on demand")
    sql = cache.create_table(dry_run=True)
    assert [statement.split()[:2] for statement in sql] == [["CREATE", "TABLE"], ["CREATE", "INDEX"]]
    assert all("made on demand" in statement for statement in sql)
    assert cache.has_table() is False
    assert cache.create_table() == sql
    cache.set("key", "kept")
    if not url.startswith("mariadb"):
        cache.create_table()
    assert cache.has_table() is True
    assert cache.get("key") == "kept"
    other = cache.for_table("another one")
    assert (other.table, other.has_table()) == ("another one", False)
    other.close()
    drop(cache)


def test_the_same_cache_in_another_table_has_the_same_settings(tmp_path: Path) -> None:
    params = {"KEY_PREFIX": "shop", "Timeout": 7, "SECRET": "s3cret", "options": {"fail_open": True, "max_entries": 9}}
    cache = DatabaseCache(KINDS["sqlite"](tmp_path), params)
    other = cache.for_table("another one")
    assert (other.table, other.key_prefix, other.default_timeout) == ("another one", "shop", 7)
    assert (other.secrets, other._plans.max_entries) == (cache.secrets, 9)
    other.create_table()
    other.set("key", "value")
    assert (other.get("key"), cache.get("key")) == ("value", None)
    (tmp_path / "broken.sqlite3").write_bytes(b"no database" * 1000)
    broken = DatabaseCache(f"sqlite:///{tmp_path}/broken.sqlite3", params).for_table("another one")
    assert broken.get("key") is None
    for one in (cache, other, broken):
        one.close()


def test_a_table_that_cannot_be_made_is_backend_unavailable(make: Make) -> None:
    cache = make(table="nowhere.cache")
    with pytest.raises(BackendUnavailable, match="nowhere"):
        cache.set("key", 1)
    with pytest.raises(BackendUnavailable, match="nowhere"):
        cache.create_table()


def test_asking_for_a_table_makes_no_file(tmp_path: Path) -> None:
    cache = DatabaseCache(KINDS["sqlite"](tmp_path), {})
    assert cache.has_table() is False
    assert list(tmp_path.iterdir()) == []


def test_many_that_make_the_table_at_once_get_on(make: Make, url: str) -> None:
    def use(number: int) -> bool:
        cache = make(table="made by many")
        try:
            cache.set(f"key{number}", number)
            return bool(cache.get(f"key{number}") == number)
        finally:
            cache.close()

    try:
        assert in_processes(4, use) == [True] * 4
        assert in_threads(4, use) == [True] * 4
    finally:
        drop(make(table="made by many"))


def test_a_new_sqlite_file_is_for_its_owner_alone(tmp_path: Path) -> None:
    old = os.umask(0o022)
    try:
        cache = DatabaseCache(KINDS["sqlite"](tmp_path), {})
        cache.set("key", 1)
        modes = {path.name: stat.S_IMODE(path.stat().st_mode) for path in tmp_path.iterdir()}
        cache.close()
    finally:
        os.umask(old)
    assert modes == dict.fromkeys(["cache.sqlite3", "cache.sqlite3-wal", "cache.sqlite3-shm"], 0o600)


def test_a_cache_in_sqlite_that_is_dropped_leaves_nothing_open_and_warns_of_nothing(tmp_path: Path) -> None:
    def use() -> None:
        cache = DatabaseCache(KINDS["sqlite"](tmp_path), {})
        cache.set("key", 1)
        assert in_threads(3, lambda number: cache.get("key")) == [1] * 3

    def in_use() -> list[str]:
        return [name for name in map(os.path.realpath, Path("/proc/self/fd").iterdir()) if str(tmp_path) in name]

    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        use()
        gc.collect()
    assert [str(one.message) for one in caught] == []
    assert in_use() == []


def test_sqlite_may_be_a_uri(tmp_path: Path) -> None:
    cache = DatabaseCache(f"sqlite:///file:{tmp_path / 'x.sqlite3'}?cache=private&uri=true", {})
    assert cache.has_table() is False
    cache.set("key", 1)
    assert cache.get("key") == 1
    cache.close()


# Statements


@pytest.mark.parametrize(
    "operation",
    [
        "get(absent)", "get(key)", "get_many(many)", "has_key(key)", "set(key)", "add(absent)", "add(key)",
        "touch(key)", "incr(count)", "delete(key)", "delete_many(many)",
    ],
)  # fmt: skip
def test_every_operation_is_one_statement(cache: DatabaseCache, operation: str) -> None:
    many = [f"key{number}" for number in range(100)]
    cache.set_many({"key": "value", "count": 1, **dict.fromkeys(many, "value")})
    work: dict[str, Callable[[], Any]] = {
        "get(absent)": lambda: cache.get("absent"),
        "get(key)": lambda: cache.get("key"),
        "get_many(many)": lambda: cache.get_many(many),
        "has_key(key)": lambda: cache.has_key("key"),
        "set(key)": lambda: cache.set("key", 2),
        "add(absent)": lambda: cache.add("absent", 2),
        "add(key)": lambda: cache.add("key", 2),
        "touch(key)": lambda: cache.touch("key"),
        "incr(count)": lambda: cache.incr("count"),
        "delete(key)": lambda: cache.delete("key"),
        "delete_many(many)": lambda: cache.delete_many(many),
    }
    with statements(cache) as seen:
        work[operation]()
    assert len(seen) == 1, seen


def test_rows_are_counted_once_in_many_writes(make: Make) -> None:
    cache = make(max_entries=64_000)
    with statements(cache) as seen:
        for number in range(300):
            cache.set(f"key{number % 10}", number)
    looks = ["DELETE", "UPDATE", "SELECT"] if isinstance(cache._primary, SQLiteStore) else ["DELETE", "SELECT"]
    assert seen == [*looks, *["INSERT"] * 300]


def test_many_are_stored_at_once_or_not_at_all(lite: DatabaseCache) -> None:
    lite.set("a", "old")
    store = lite._primary
    with pytest.raises(BackendUnavailable):
        store.run(Call("set", [
            {"key": b":1:a", "expires": None, "number": 1, "value": None},
            {"key": None, "expires": None, "number": 1, "value": None},
        ]))  # fmt: skip
    assert lite.get("a") == "old"


# Keys and values


@pytest.mark.filterwarnings("ignore::cachemw.errors.CacheKeyWarning")
def test_long_keys_stay_apart(cache: DatabaseCache) -> None:
    keys = ["k" * length for length in (200, 250, 251, 252, 253, 254, 255, 300, 10_000)]
    keys += ["ё" * 126, "ё" * 127, "ё" * 128, "ё" * 5000, "k" * 9_999 + "x"]
    cache.set_many({key: number for number, key in enumerate(keys)})
    assert cache.get_many(keys) == {key: number for number, key in enumerate(keys)}
    for number, key in enumerate(keys):
        assert cache.incr(key) == number + 1
        assert cache.delete(key) is True


@pytest.mark.filterwarnings("ignore::cachemw.errors.CacheKeyWarning")
def test_a_key_that_looks_like_a_cut_one_is_another(cache: DatabaseCache) -> None:
    from cachemw.backends._db.keys import column_key

    long = "k" * 1000
    cut = column_key(cache.make_key(long)).decode()
    assert cut.startswith(":1:kkk")
    cache.set(long, "mine")
    assert cache.get(cut.removeprefix(":1:")) is None


@pytest.mark.filterwarnings("ignore::cachemw.errors.CacheKeyWarning")
def test_keys_are_compared_byte_by_byte(cache: DatabaseCache) -> None:
    cache.set_many({key: number for number, key in enumerate(ODD_KEYS)})
    assert cache.get_many(ODD_KEYS) == {key: number for number, key in enumerate(ODD_KEYS)}
    assert [cache.get(key) for key in ODD_KEYS] == list(range(len(ODD_KEYS)))


@pytest.mark.filterwarnings("ignore::cachemw.errors.CacheKeyWarning")
@pytest.mark.parametrize("encoding", ["UTF-8", "UTF-16le", "UTF-16be"])
def test_a_file_that_keeps_text_in_utf_16_keeps_the_same_keys_apart(tmp_path: Path, encoding: str) -> None:
    """In one of UTF-16 SQLite makes one character of several that no text should have."""
    with closing(sqlite3.connect(tmp_path / "cache.sqlite3")) as connection:
        connection.execute(f"PRAGMA encoding = '{encoding}'")
        connection.execute("CREATE TABLE another (name TEXT)")
    with closing(DatabaseCache(KINDS["sqlite"](tmp_path), {})) as cache:
        for number, key in enumerate(ODD_KEYS):
            cache.set(key, number)
        assert [cache.get(key) for key in ODD_KEYS] == list(range(len(ODD_KEYS)))
        for key in ODD_KEYS:
            cache.commit_records([(key, key.encode("utf-8", "surrogatepass"), None)], (), ())
        pages = cache.read_records(ODD_KEYS)
        assert [page.decode("utf-8", "surrogatepass") for page in pages] == ODD_KEYS


@pytest.mark.filterwarnings("ignore::cachemw.errors.CacheKeyWarning")
@pytest.mark.parametrize("reads", ["a replica", "the primary"])
def test_keys_of_all_kinds_may_be_stored_together(tmp_path: Path, reads: str) -> None:
    url = KINDS["sqlite"](tmp_path)
    with closing(DatabaseCache(url, {"OPTIONS": {"read": [url] if reads == "a replica" else []}})) as cache:
        data = dict.fromkeys(["key", "k" * 300, *ODD_KEYS], 1)
        for table in ("missing", "there", "dropped"):
            if table == "dropped":
                with closing(sqlite3.connect(tmp_path / "cache.sqlite3")) as connection:
                    connection.execute("DROP TABLE cachemw")
            assert cache.set_many(data) == []
            assert cache.get_many(data) == data


def test_a_key_that_memcached_refuses_warns(lite: DatabaseCache) -> None:
    with pytest.warns(CacheKeyWarning, match="longer than 250"):
        lite.set("k" * 300, 1)


def test_large_values_come_back_whole(cache: DatabaseCache) -> None:
    values = {f"key{power}": os.urandom(2**power) for power in (0, 10, 16, 20, 22)}
    assert cache.set_many(values) == []
    assert cache.get_many(values) == values
    assert cache.add("new", values["key22"]) is True
    assert cache.get("new") == values["key22"]


def test_a_thousand_keys_at_once(cache: DatabaseCache) -> None:
    data = {f"key{number}": number for number in range(1200)}
    assert cache.set_many(data) == []
    assert cache.get_many(data) == data
    assert cache.drop_records(["no", "pages"]) == 0
    cache.delete_many(list(data)[:1100])
    assert len(cache.get_many(data)) == 100


def test_any_number_of_keys_takes_few_statements(lite: DatabaseCache) -> None:
    numbers = [*range(1, 130), 160, 161, 319, 320, 321, 499, 500, 501, 1003]
    for number in numbers:
        data = {f"{number}-{each}": each for each in range(number)}
        assert lite.set_many(data) == []
        assert lite.get_many([*data, "absent"]) == data
        assert lite.read_records(list(data)) == [None] * number
        assert lite._delete([lite.make_key(key) for key in [*data, "absent"]]) == number
        assert lite.get_many(data) == {}
    assert isinstance(store := lite._primary, SQLiteStore)
    assert store._sql.prepared.cache_info().currsize <= 128, "what a connection of Python's keeps"


def test_what_is_expired_is_neither_counted_nor_revived(cache: DatabaseCache, monkeypatch: pytest.MonkeyPatch) -> None:
    cache.set_many({"a": 1, "b": 2, "c": 3, "d": 4}, 50)
    cache.set("lasting", 5, None)
    with later(monkeypatch, 60):
        assert cache.get_many(["a", "b", "lasting"]) == {"lasting": 5}
        assert cache.touch("a") is False
        assert cache.get("a") is None
        with pytest.raises(ValueError, match="not found"):
            cache.incr("b")
        assert cache.delete("c") is False
        assert cache.add("d", 6, None) is True
        assert cache.add("lasting", 6) is False
    assert cache.get("d") == 6
    assert cache.incr("d") == 7


def test_a_count_that_appears_in_the_middle_is_added_to(lite: DatabaseCache, monkeypatch: pytest.MonkeyPatch) -> None:
    lite.set("warm", 1)
    store = lite._primary
    run = store.run

    def run_late(call: Call) -> Any:
        if call.statement == "peek" and "count" not in lite:
            monkeypatch.setattr(store, "run", run)
            lite.set("count", 41)
        return run(call)

    monkeypatch.setattr(store, "run", lambda call: run_late(call) if call.statement == "peek" else run(call))
    monkeypatch.setattr(type(lite), "__contains__", lambda self, key: False)
    assert lite.incr("count") == 42


def test_a_missing_table_is_made_on_an_event_loop_too(make: Make) -> None:
    async def main() -> None:
        cache = make(table="made on a loop")
        assert await cache.aget("key") is None
        await cache.aset("key", 1)
        assert await cache.aget("key") == 1
        await cache.aclose()
        careful = make(table="not there", create=False)
        with pytest.raises(BackendUnavailable, match="createcachetable"):
            await careful.aget("key")
        await careful.aclose()

    asyncio.run(main())
    drop(make(table="made on a loop"))


def test_a_race_for_an_expired_row_has_one_winner(cache: DatabaseCache, monkeypatch: pytest.MonkeyPatch) -> None:
    cache.set("key", "old", 50)
    with later(monkeypatch, 60):
        won = in_threads(6, lambda number: cache.add("key", number))
        assert won.count(True) == 1
        assert cache.get("key") == won.index(True)


def test_what_is_added_may_have_more_than_64_bits_where_the_sum_has_not(cache: DatabaseCache) -> None:
    cache.set("count", -(2**63))
    assert cache.incr("count", 2**64 - 2) == 2**63 - 2
    assert cache.decr("count", 2**63) == -2
    assert cache.incr("count", 2**63) == 2**63 - 2
    assert cache.decr("count", 2**64 - 2) == -(2**63)
    for delta in (2**64, 2**200, -1, -(2**64), -(2**200)):
        with pytest.raises(OverflowError):
            cache.incr("count", delta)
    assert cache.get("count") == -(2**63)


# The bound


def held(cache: DatabaseCache) -> int:
    """Rows in the table, expired ones too."""
    store = cache._primary
    return int(store.run(Call("count", {"keys": [b""]})).rows[0][0])


@pytest.mark.parametrize(("frequency", "left"), [(3, 29), (2, 19), (0, 19), (1, 19), (100, 30)])
def test_a_full_store_drops_one_in_so_many(make: Make, frequency: int, left: int) -> None:
    cache = make(max_entries=30, cull_frequency=frequency)
    for number in range(49):
        cache.set(f"key{number}", number)
    assert held(cache) == left
    assert cache.get("key48") == 48


def test_a_bound_below_zero_still_stores_the_new_entry(make: Make) -> None:
    cache = make(max_entries=-1)
    cache.set("key", "value")
    assert cache.get("key") == "value"


def test_overwriting_and_refused_adding_drop_nothing(make: Make) -> None:
    cache = make(max_entries=9)
    cache.set_many({f"key{number}": number for number in range(9)})
    for _ in range(2):
        cache.set_many({f"key{number}": number for number in range(9)})
        for number in range(9):
            cache.set(f"key{number}", number)
            assert cache.add(f"key{number}", 0) is False
    assert held(cache) == 9


def test_the_expired_go_first_then_those_that_expire_first(make: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    cache = make(max_entries=30)
    for number in range(30):
        timeout = 50 if number in (7, 9) else None if number in (3, 4) else 1000 - number
        cache.set(f"key{number}", number, timeout)
    with later(monkeypatch, 60):
        cache.set("new", 1, 5000)
        assert held(cache) == 29
        cache.set("newer", 1, 5000)
        cache.set("newest", 1, 5000)
        gone = {number for number in range(30) if f"key{number}" not in cache}
    assert gone == {7, 9, *range(20, 30)}


def test_entries_that_never_expire_go_last_but_go(make: Make) -> None:
    cache = make(max_entries=9)
    for number in range(9):
        cache.set(f"key{number}", number, None)
    cache.set("new", 1, 100)
    assert held(cache) == 7
    assert cache.get("new") == 1


def test_more_at_once_than_fit_are_cut_down_later(make: Make) -> None:
    cache = make(max_entries=50)
    cache.set_many({f"key{number}": number for number in range(700)})
    cache.set("new", 1)
    assert held(cache) <= 50
    assert cache.get("new") == 1


def test_a_cull_that_takes_long_is_gone_on_with_later(make: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(db_plans, "_CULL_TIME", 0)
    cache = make(max_entries=2500, cull_frequency=1)
    cache.set_many({f"key{number}": number for number in range(2500)})
    cache.set("new", 1)
    assert 2501 - held(cache) == (200 if isinstance(cache._primary, SQLiteStore) else 1000), "one step at least"
    assert cache.get("new") == 1


def test_a_cull_goes_on_until_there_is_room_for_what_is_stored(make: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(db_plans, "_CULL_TIME", 0)
    cache = make(max_entries=1000)
    for turn in range(4):
        cache.set_many({f"{turn}-{number}": number for number in range(3000)})
        assert held(cache) <= 4000, "however much comes at once"
    assert cache.get("3-2999") == 2999


def test_other_processes_rows_count(make: Make) -> None:
    cache, other = make(max_entries=30), make(max_entries=30)
    for number in range(40):
        (cache if number % 2 else other).set(f"key{number}", number)
        assert held(cache) <= 30


# Replicas


def test_replicas_read_and_the_primary_does_all_else(tmp_path: Path) -> None:
    urls = [f"sqlite:///{tmp_path / name}" for name in ("primary", "one", "two")]
    primary, one, two = (DatabaseCache(url, {}) for url in urls)
    one.set_many({"key": "replica's", "count": 10})
    two.set_many({"key": "replica's", "count": 10})
    cache = DatabaseCache(urls[0], {"OPTIONS": {"read": urls[1:]}})
    cache.set_many({"key": "primary's", "count": 1})
    for _ in range(5):
        assert cache.get("key") == "replica's"
        assert cache.get_many(["key"]) == {"key": "replica's"}
    assert cache.incr("count") == 2
    assert cache.add("key", 1) is False
    assert cache.touch("key") is True
    assert cache.delete("key") is True
    assert cache.has_key("key") is True
    cache.clear()
    assert primary.get("count") is None
    assert one.get("count") == two.get("count") == 10
    by_table = DatabaseCache("cachemw", {"OPTIONS": {"write": urls[0], "read": urls[1]}})
    assert by_table.get("key") == "replica's"
    for each in (primary, one, two, cache, by_table):
        each.close()
