"""The command line."""

from __future__ import annotations

import os
import re
import socket
import sqlite3
import subprocess
import sys
from collections.abc import Sequence
from contextlib import closing
from pathlib import Path
from typing import Any

import click
import pytest
from click.testing import CliRunner, Result
from flask import Flask
from werkzeug.test import Client

from cachemw import Caches, cache_page, connect, wsgi
from cachemw.backends.base import BaseCache
from cachemw.cli import main
from cachemw.integrations.flask import CacheMW
from tests.servers import mariadb_url, postgresql_url, shared, start_mariadb, start_postgresql
from tests.serving import ROOT

DB = "cachemw.backends.db.DatabaseCache"


@pytest.fixture
def url(tmp_path: Path) -> str:
    return f"sqlite:///{tmp_path / 'cache.sqlite3'}"


def run(caches: dict[str, Any], *arguments: str) -> Result:
    result = CliRunner().invoke(main, arguments, obj=Caches({"CACHES": caches}))
    assert result.exception is None or isinstance(result.exception, SystemExit), result.output
    return result


def tables(path: Path) -> Sequence[str]:
    with sqlite3.connect(path) as connection:
        found = [name for (name,) in connection.execute("SELECT name FROM sqlite_master WHERE type = 'table'")]
    connection.close()
    return sorted(found)


def test_the_tables_of_all_database_caches_are_created(url: str, tmp_path: Path) -> None:
    caches = {
        "default": {"BACKEND": DB, "LOCATION": url},
        "second": {"BACKEND": DB, "LOCATION": "my second table", "OPTIONS": {"write": url}},
        "memory": {"BACKEND": "cachemw.backends.locmem.LocMemCache"},
        "dummy": {"BACKEND": "cachemw.backends.dummy.DummyCache"},
    }
    result = run(caches, "createcachetable")
    assert result.exit_code == 0
    assert result.output == "Cache table 'cachemw' created.\nCache table 'my second table' created.\n"
    assert tables(tmp_path / "cache.sqlite3") == ["cachemw", "my second table"]


def test_an_existing_table_is_left_alone(url: str) -> None:
    caches = Caches({"CACHES": {"default": {"BACKEND": DB, "LOCATION": url}}})
    caches["default"].set("key", "kept")
    for _ in range(2):
        result = CliRunner().invoke(main, ["createcachetable"], obj=caches)
        assert (result.exit_code, result.output) == (0, "Cache table 'cachemw' already exists.\n")
    assert caches["default"].get("key") == "kept"
    caches.close_all()


def test_a_dry_run_prints_the_sql_and_changes_nothing(url: str, tmp_path: Path) -> None:
    caches = {"default": {"BACKEND": DB, "LOCATION": url, "OPTIONS": {"table": "my cache"}}}
    result = run(caches, "createcachetable", "--dry-run")
    assert result.exit_code == 0
    assert list(tmp_path.iterdir()) == []
    with sqlite3.connect(tmp_path / "other.sqlite3") as connection:
        connection.executescript(result.output)
    connection.close()
    assert tables(tmp_path / "other.sqlite3") == ["my cache"]


def test_tables_may_be_named(url: str, tmp_path: Path) -> None:
    caches = {"default": {"BACKEND": DB, "LOCATION": url}, "memory": "locmem://"}
    result = run(caches, "createcachetable", "first", "second one")
    assert result.exit_code == 0
    assert tables(tmp_path / "cache.sqlite3") == ["first", "second one"]


def test_with_several_databases_one_must_be_chosen(url: str, tmp_path: Path) -> None:
    caches = {
        "default": {"BACKEND": DB, "LOCATION": url},
        "other": {"BACKEND": DB, "LOCATION": f"sqlite:///{tmp_path / 'other.sqlite3'}"},
        "memory": "locmem://",
    }
    result = run(caches, "createcachetable", "named")
    assert result.exit_code == 2
    assert "--cache" in result.output
    assert "default, other" in result.output
    assert run(caches, "createcachetable", "--cache", "other", "named").exit_code == 0
    assert tables(tmp_path / "other.sqlite3") == ["named"]
    assert run(caches, "createcachetable", "--cache", "other").exit_code == 0
    assert tables(tmp_path / "other.sqlite3") == ["cachemw", "named"]
    assert not (tmp_path / "cache.sqlite3").exists()
    result = run(caches, "createcachetable", "--cache", "memory")
    assert result.exit_code == 2
    assert "LocMemCache" in result.output


def test_without_a_database_cache_there_is_nothing_to_do() -> None:
    result = run({"default": "locmem://"}, "createcachetable")
    assert (result.exit_code, result.output) == (0, "No database cache is configured: nothing to do.\n")
    result = run({"default": "locmem://"}, "createcachetable", "named")
    assert result.exit_code == 2
    assert "a TABLE is made in the database of a cache: no database cache is configured" in result.output


@pytest.mark.parametrize(
    ("caches", "arguments", "message"),
    [
        ({"default": {"BACKEND": DB, "LOCATION": "no url"}}, ["createcachetable"], "LOCATION is 'no url'"),
        ({"default": "locmem://"}, ["createcachetable", "--cache", "nowhere"], "'nowhere' doesn't exist; allowed: d"),
        ({"default": "locmem://"}, ["clear", "--yes", "default", "nowhere"], "'nowhere' doesn't exist; allowed: d"),
        ({"default": "locmem://", "pages": "locmem://"}, ["clear", "nowhere"], "allowed: default, pages"),
        ({"default": "db+sqlite:////no/such/directory/x"}, ["createcachetable"], "unable to open database file"),
        ({"default": "db+sqlite:////tmp/x?table=a;b"}, ["createcachetable"], "table name is 'a;b'"),
    ],
)  # fmt: skip
def test_an_error_is_one_line(caches: dict[str, Any], arguments: list[str], message: str) -> None:
    result = run(caches, *arguments)
    assert result.exit_code == 1
    assert message in result.output
    assert result.output.startswith("Error: ")
    assert len(result.output.splitlines()) == 1


def test_the_caches_are_those_of_the_environment(monkeypatch: pytest.MonkeyPatch, url: str, tmp_path: Path) -> None:
    monkeypatch.setenv("CACHEMW_URL", f"db+{url}?table=from+the+environment")
    monkeypatch.setattr("cachemw.cli.process_caches", Caches())
    result = CliRunner().invoke(main, ["createcachetable"])
    assert (result.exit_code, result.output) == (0, "Cache table 'from the environment' created.\n")
    assert tables(tmp_path / "cache.sqlite3") == ["from the environment"]


@pytest.mark.parametrize("server", ["postgresql", "mariadb"])
def test_servers_have_their_tables_created(server: str) -> None:
    url = postgresql_url(shared(start_postgresql)) if server == "postgresql" else mariadb_url(shared(start_mariadb))
    name = f"cli {server}"
    caches = Caches({"CACHES": {"default": {"BACKEND": DB, "LOCATION": url, "OPTIONS": {"deadline": 5}}}})
    arguments = ["createcachetable", name]
    outputs = [
        CliRunner().invoke(main, arguments, obj=caches, catch_exceptions=False).output
        for arguments in ([*arguments, "--dry-run"], arguments, arguments, [*arguments, "--dry-run"])
    ]
    assert outputs[0].startswith("CREATE TABLE")
    assert outputs[1:] == [
        f"Cache table '{name}' created.\n",
        f"Cache table '{name}' already exists.\n",
        f"Cache table '{name}' already exists.\n",
    ]
    caches.close_all()


def test_clear_removes_what_is_in_the_named_caches(tmp_path: Path) -> None:
    caches = Caches({"CACHES": {name: f"file://{tmp_path}/{name}" for name in ("a", "b", "c")}})
    for name in caches:
        caches[name].set("key", name)
    unsure = CliRunner().invoke(main, ["clear", "a"], obj=caches, input="n\n")
    assert unsure.exit_code == 1
    assert caches["a"].get("key") == "a"
    sure = CliRunner().invoke(main, ["clear", "a", "b"], obj=caches, input="y\n")
    assert sure.exit_code == 0
    assert sure.output.endswith("Cleared: a, b\n")
    assert [caches[name].get("key") for name in caches] == [None, None, "c"]
    assert CliRunner().invoke(main, ["clear", "--yes", "c"], obj=caches).exit_code == 0
    assert caches["c"].get("key") is None
    assert CliRunner().invoke(main, ["clear", "--yes"], obj=caches).exit_code == 2


def test_a_memory_that_only_the_command_itself_sees_is_not_said_to_be_cleared(tmp_path: Path) -> None:
    """The site's processes have one each, which no command reaches."""
    caches = Caches({"CACHES": {"a": f"file://{tmp_path}/a", "own": "locmem://clear-own", "nothing": "dummy://"}})
    for name in caches:
        caches[name].set("key", name)
    result = CliRunner().invoke(main, ["clear", "--yes", "a", "own"], obj=caches)
    assert result.exit_code == 1
    assert result.output == (
        "Error: <LocMemCache clear-own>: a command cannot reach the memory of another process; set CACHEMW_URL, or "
        "CACHES, to a store that the processes of the site share\n"
    )
    assert [caches[name].get("key") for name in caches] == ["a", "own", None]
    result = CliRunner().invoke(main, ["clear", "--yes", "a", "nothing"], obj=caches)
    assert (result.exit_code, result.output) == (0, "Cleared: a, nothing\n")


def test_the_group_can_be_mounted_under_another(url: str, tmp_path: Path) -> None:
    caches = Caches({"CACHES": {"default": f"db+{url}"}})

    @click.group()
    @click.pass_context
    def flask(ctx: click.Context) -> None:
        ctx.obj = caches

    flask.add_command(main, "cachemw")
    result = CliRunner().invoke(flask, ["cachemw", "createcachetable"])
    assert (result.exit_code, result.output) == (0, "Cache table 'cachemw' created.\n")


def test_every_command_says_what_it_is_for() -> None:
    for name, command in main.commands.items():
        result = CliRunner().invoke(main, [name, "--help"])
        assert result.exit_code == 0
        assert command.get_short_help_str()


def test_python_runs_it_by_its_module_too(tmp_path: Path) -> None:
    """Where the script is not on the path: in a container that copies the packages only, say."""
    arguments = (sys.executable, "-m", "cachemw", "createcachetable", "--dry-run")
    environ = {**os.environ, "PYTHONPATH": str(ROOT), "CACHEMW_URL": f"db+sqlite:///{tmp_path / 'cache'}"}
    ran = subprocess.run(arguments, env=environ, capture_output=True, text=True, timeout=60, check=False)
    assert (ran.returncode, ran.stderr) == (0, "")
    assert "CREATE TABLE" in ran.stdout
    assert not (tmp_path / "cache").exists()
    unknown = subprocess.run((*arguments[:3], "nonsense"), env=environ, stderr=subprocess.PIPE, text=True, check=False)
    assert "Usage: python -m cachemw" in unknown.stderr


# -- check ------------------------------------------------------------------------------------------------------------

LOCMEM = "cachemw.backends.locmem.LocMemCache"
DOWN = "redis://127.0.0.1:1/0"


def test_check_says_what_pages_are_cached_with_and_which_caches_answer(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CACHEMW_SECONDS", "60")
    caches = {"default": {"BACKEND": LOCMEM, "LOCATION": "checked"}, "none": "dummy://"}
    result = run(caches, "check")
    assert result.exit_code == 0
    pages, first, second = result.output.splitlines()
    assert pages == "Pages: <LocMemCache checked>, for 60 s unless they say for how long"
    assert re.fullmatch(r"<LocMemCache checked> answers, three calls in \d+\.\d ms", first)
    assert second.startswith("<DummyCache> answers")


@pytest.mark.parametrize("down", [DOWN, f"{DOWN}?fail_open=1"])
def test_check_fails_where_one_cache_does_not_answer_and_tries_the_others(down: str) -> None:
    result = run({"default": down, "other": "locmem://checked"}, "check")
    assert result.exit_code == 1
    lines = result.output.splitlines()
    assert lines[1].startswith(f"<RedisCache {DOWN}> does not answer: ")
    assert lines[2].startswith("<LocMemCache checked> answers")
    assert lines[3] == "Error: a cache does not answer; the site runs without it"


def test_check_tries_the_stores_of_an_application() -> None:
    app = Flask("checked")
    app.config["CACHEMW_URL"] = "locmem://checked"
    CacheMW(app, site=False)
    app.add_url_rule("/", "page", cache_page(60, cache=DOWN)(lambda: "page"))
    result = app.test_cli_runner().invoke(args=["cachemw", "check"])
    assert result.exit_code == 1
    assert "<LocMemCache checked> answers" in result.output
    assert f"<RedisCache {DOWN}> does not answer" in result.output


# -- purge ------------------------------------------------------------------------------------------------------------


def _site(store: BaseCache, *tags: str) -> Client:
    def page(environ: Any, start_response: Any) -> Any:
        start_response("200 OK", [("Content-Type", "text/plain"), ("Cache-Tag", ", ".join(tags))])
        return [b"page"]

    return Client(wsgi.CacheMiddleware(page, cache=store))


def _is_hit(site: Client, path: str) -> bool:
    return "; hit" in site.get(path, buffered=True).headers["Cache-Status"]


def test_purge_removes_pages_by_url_and_by_tag(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("CACHEMW_CLOCK_SKEW", "0")  # else for a second no page with the tag is used
    caches = Caches({"CACHES": {"default": f"file://{tmp_path}/default", "other": f"file://{tmp_path}/other"}})
    site, other = _site(caches["default"], "news"), _site(caches["other"], "news")

    def purge(*arguments: str) -> Result:
        for one in (site, other):
            for path in ("/a", "/b"):
                one.get(path, buffered=True)
        return CliRunner().invoke(main, ["purge", *arguments], obj=caches)

    result = purge("http://localhost/a")
    assert (result.exit_code, result.output) == (0, "Purged: 1\n")
    assert (_is_hit(site, "/a"), _is_hit(site, "/b"), _is_hit(other, "/a")) == (False, True, True)
    assert purge("--tag", "news", "--tag", "sport").output == "Purged: 2\n"
    assert not _is_hit(site, "/b")
    assert purge("--cache", "other", "http://localhost/a", "http://localhost/b").output == "Purged: 2\n"
    assert _is_hit(site, "/a")
    assert purge("--soft", "http://localhost/a").output == "Purged: 1\n"
    assert "fwd=stale" in site.get("/a", buffered=True).headers["Cache-Status"]
    monkeypatch.setenv("CACHEMW_ALIAS", "other")
    assert purge("http://localhost/a").exit_code == 0
    assert not _is_hit(other, "/a")


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ([], "nothing to purge: give absolute URLs, or --tag TAG, or both"),
        (["/a"], "give the absolute URL"),
        (["--tag", ""], "cannot purge the tag ''"),
        (["--cache", "nowhere", "--tag", "news"], "'nowhere' doesn't exist"),
    ],
)
def test_purge_says_what_it_needs(arguments: list[str], said: str) -> None:
    result = CliRunner().invoke(main, ["purge", *arguments], obj=Caches({"CACHES": {"default": "locmem://"}}))
    assert result.exit_code != 0
    assert said in result.output


def test_a_purge_that_the_store_does_not_hear_of_is_an_error() -> None:
    with closing(socket.socket()) as nobody:
        nobody.bind(("127.0.0.1", 0))
        caches = Caches({"CACHES": {"default": f"redis://127.0.0.1:{nobody.getsockname()[1]}/0"}})
        result = CliRunner().invoke(main, ["purge", "http://localhost/"], obj=caches)
    assert result.exit_code == 1
    assert "did not answer" in result.output


def command(environ: dict[str, str], *arguments: str) -> tuple[int, str, str]:
    """Status, output and errors of `cachemw`, as a process of its own."""
    ran = subprocess.run(
        (sys.executable, "-m", "cachemw", *arguments),
        env={**os.environ, "PYTHONPATH": str(ROOT), **environ},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    return ran.returncode, ran.stdout, ran.stderr


def test_the_command_purges_and_clears_what_another_process_has_stored(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("CACHEMW_CLOCK_SKEW", "0")
    url = f"file://{tmp_path}/pages"
    site, environ = _site(connect(url), "news"), {"CACHEMW_URL": url}
    for arguments, said in (
        ("purge http://localhost/a", "Purged: 1\n"),
        ("purge --tag news", "Purged: 1\n"),
        ("clear --yes default", "Cleared: default\n"),
    ):
        site.get("/a", buffered=True)
        assert _is_hit(site, "/a")
        assert command(environ, *arguments.split()) == (0, said, "")
        assert not _is_hit(site, "/a")


def test_the_command_does_not_claim_to_reach_the_memory_of_the_site() -> None:
    environ = {"CACHEMW_URL": "locmem://pages"}
    for arguments in (
        ("purge", "http://localhost/a"),
        ("purge", "--tag", "news"),
        ("clear", "--yes", "default"),
    ):
        status, output, errors = command(environ, *arguments)
        assert (status, output) == (1, "")
        assert "<LocMemCache pages>: a command cannot reach the memory" in errors
        assert "set CACHEMW_URL" in errors
    assert command(environ, "purge", "/a")[0] == 2  # what is wrong with the call comes first
    assert command({"CACHEMW_URL": "dummy://"}, "purge", "--tag", "news") == (0, "Purged: 1\n", "")


def test_a_purge_reaches_what_it_can_and_says_what_it_could_not(tmp_path: Path) -> None:
    """A view keeps its pages in local memory, beside a site that has a store for all processes."""
    app = Flask("site")
    app.config["CACHES"] = {"default": f"file://{tmp_path}/pages", "near": "locmem://purge-near"}
    app.add_url_rule("/near", endpoint="near", view_func=cache_page(60, cache="near")(lambda: "page"))
    app.add_url_rule("/", view_func=lambda: "page")
    CacheMW(app)
    visitor = app.test_client()
    visitor.get("/", buffered=True)
    assert _is_hit(visitor, "/")
    result = app.test_cli_runner().invoke(args=["cachemw", "purge", "http://localhost/"])
    assert result.exit_code == 1
    assert "<LocMemCache purge-near>: a command cannot reach the memory" in result.output
    assert "Purged" not in result.output
    assert not _is_hit(visitor, "/")


def test_a_purge_goes_on_to_the_next_store_where_one_does_not_answer(tmp_path: Path) -> None:
    app = Flask("site")
    with closing(socket.socket()) as nobody:
        nobody.bind(("127.0.0.1", 0))
        down = f"redis://127.0.0.1:{nobody.getsockname()[1]}/0"
        app.config["CACHES"] = {"default": down, "files": f"file://{tmp_path}/pages"}
        app.add_url_rule("/files", endpoint="files", view_func=cache_page(60, cache="files")(lambda: "page"))
        CacheMW(app)
        visitor = app.test_client()
        visitor.get("/files", buffered=True)
        assert _is_hit(visitor, "/files")
        result = app.test_cli_runner().invoke(args=["cachemw", "purge", "http://localhost/files"])
        assert result.exit_code == 1
        assert "did not answer" in result.output
        assert not _is_hit(visitor, "/files")


def test_purge_under_flask_is_of_the_applications_pages(tmp_path: Path) -> None:
    app = Flask("site")
    app.config["CACHES"] = {"default": f"file://{tmp_path}/pages"}
    app.config["CACHEMW_KEY_PREFIX"] = "site"
    CacheMW(app)
    app.add_url_rule("/", view_func=lambda: "page")
    visitor = app.test_client()
    visitor.get("/", buffered=True)
    assert _is_hit(visitor, "/")
    result = app.test_cli_runner().invoke(args=["cachemw", "purge", "http://localhost/"])
    assert (result.exit_code, result.output) == (0, "Purged: 1\n")
    assert not _is_hit(visitor, "/")
