"""The command line: `cachemw COMMAND`, and the same commands as `flask cachemw COMMAND`.

Rule 1: the commands work on the caches of the environment (CACHEMW_URL, CACHEMW_URL_<ALIAS>), or on a `cachemw.Caches`
        that the program around them passes as click's `obj`.
Rule 2: an error of cachemw is one line and exit status 1, never a traceback.

Each command is a function below; those of another module are added with `main.add_command`.
"""

from __future__ import annotations

import time
from collections.abc import Iterable
from typing import Any, Final, Protocol, runtime_checkable

import click

from cachemw import purging
from cachemw._busting.command import static
from cachemw._engine_tokens import token
from cachemw.backends.base import BaseCache
from cachemw.backends.dummy import DummyCache
from cachemw.backends.registry import Caches
from cachemw.backends.registry import caches as process_caches
from cachemw.caching import Caching
from cachemw.errors import BackendUnavailable, CacheError
from cachemw.settings import Settings

__all__ = ["CACHINGS", "main"]

#: The name in click's `meta` for the `Caching` objects of the program around the commands: `purge` purges their pages.
CACHINGS: Final = "cachemw.cachings"


class _Commands(click.Group):
    def invoke(self, ctx: click.Context) -> Any:
        try:
            return super().invoke(ctx)
        except CacheError as error:
            raise click.ClickException(str(error)) from error


def _caches(ctx: click.Context) -> Caches:
    return ctx.find_object(Caches) or process_caches


def _is_its_own(cache: BaseCache) -> bool:
    """Is the store in the memory of this process, so that it has no pages of the site?"""
    return not cache.shared and not isinstance(cache, DummyCache)


def _not_shared(caches: Iterable[BaseCache]) -> click.ClickException:
    return click.ClickException(
        f"{', '.join(map(repr, caches))}: a command cannot reach the memory of another process; set CACHEMW_URL, or "
        "CACHES, to a store that the processes of the site share"
    )


@click.group(cls=_Commands)
@click.version_option(package_name="cachemw")
def main() -> None:
    """Look after the caches of CACHEMW_URL and CACHEMW_URL_<ALIAS>."""


main.add_command(static)


@runtime_checkable
class _HasTable(Protocol):
    """A cache that keeps its entries in a table: `cachemw.backends.db.DatabaseCache`, or a class like it."""

    table: str

    def has_table(self) -> bool: ...

    def create_table(self, *, dry_run: bool = False) -> list[str]: ...

    def for_table(self, name: str) -> _HasTable: ...

    def close(self) -> None: ...


@main.command(short_help="Create the tables of database caches.")
@click.argument("tables", metavar="[TABLE]...", nargs=-1)
@click.option("--cache", "alias", metavar="ALIAS", help="Only this cache; with TABLE: the cache in whose database.")
@click.option("--dry-run", is_flag=True, help="Print the SQL and change nothing.")
@click.pass_context
def createcachetable(ctx: click.Context, tables: tuple[str, ...], alias: str | None, dry_run: bool) -> None:
    """Create the tables that the database caches need, or the TABLEs named, in the same database.

    A table that exists is left alone.
    """
    found = _database_caches(_caches(ctx), alias)
    if tables:
        if len(found) != 1:
            whose = f"say with --cache whose: {', '.join(found)}" if found else "no database cache is configured"
            raise click.UsageError(f"a TABLE is made in the database of a cache: {whose}")
        stores = [one.for_table(table) for one in found.values() for table in tables]
    else:
        stores = list(found.values())
        if not stores:
            click.echo("No database cache is configured: nothing to do.")
    for store in stores:
        _create(store, dry_run=dry_run)
        store.close()


def _database_caches(caches: Caches, alias: str | None) -> dict[str, _HasTable]:
    found = {name: caches[name] for name in (caches if alias is None else (alias,))}
    kept: dict[str, _HasTable] = {name: cache for name, cache in found.items() if isinstance(cache, _HasTable)}
    if alias is not None and not kept:
        raise click.UsageError(f"the cache {alias!r} is a {type(found[alias]).__name__}, which has no table")
    return kept


def _create(store: _HasTable, *, dry_run: bool) -> None:
    if store.has_table():
        click.echo(f"Cache table '{store.table}' already exists.")
        return
    statements = store.create_table(dry_run=dry_run)
    if dry_run:
        for statement in statements:
            click.echo(f"{statement};")
    else:
        click.echo(f"Cache table '{store.table}' created.")


@main.command(short_help="Remove stored pages by URL or by tag.")
@click.argument("urls", metavar="[URL]...", nargs=-1)
@click.option("--tag", "tags", metavar="TAG", multiple=True, help="Purge what has this tag; may be repeated.")
@click.option("--soft", is_flag=True, help="Make pages stale: they are validated, or served one last time.")
@click.option("--mount", "mounts", metavar="PATH", multiple=True, help="Where the application is mounted, if not at /.")
@click.option("--cache", "alias", metavar="ALIAS", help="The cache that holds the pages, if not that of the settings.")
@click.pass_context
def purge(
    ctx: click.Context,
    urls: tuple[str, ...],
    tags: tuple[str, ...],
    soft: bool,
    mounts: tuple[str, ...],
    alias: str | None,
) -> None:
    """Remove the stored pages of absolute URLs, in all variants, and those with a tag."""
    if not urls and not tags:
        raise click.UsageError("nothing to purge: give absolute URLs, or --tag TAG, or both")
    cachings, count = _cachings(ctx, alias), 0
    for caching in cachings:
        try:
            count += purging.purge(*urls, tags=tags, soft=soft, caching=caching, mounts=mounts)
        except ValueError as error:
            raise click.UsageError(str(error)) from error
    stores = dict.fromkeys(pages for caching in cachings for pages in caching.stores)
    silent = [repr(pages.cache) for pages in stores if pages.owes]  # this process ends, and cannot repeat the purge
    for pages in stores:
        pages.cache.close()
    if silent:
        raise click.ClickException(f"{', '.join(silent)} did not answer: nobody has been told of this purge")
    if own := [pages.cache for pages in stores if _is_its_own(pages.cache)]:
        raise _not_shared(own)
    click.echo(f"Purged: {count}")


def _cachings(ctx: click.Context, alias: str | None) -> list[Caching]:
    """The `Caching` objects of the program around the commands, else one for the store of the environment."""
    if alias is None and CACHINGS in ctx.meta:
        return list(ctx.meta[CACHINGS])
    return [Caching(cache=_caches(ctx)[alias or Settings.from_environ().alias])]


@main.command(short_help="Say whether the caches answer.")
@click.pass_context
def check(ctx: click.Context) -> None:
    """Say what pages are cached with, and whether each cache answers. If one does not, the exit status is 1."""
    cachings = _cachings(ctx, None)
    for caching in cachings:
        click.echo(f"Pages: {caching.line.pages.cache!r}, for {caching.line.seconds:g} s unless they say for how long")
    stores = dict.fromkeys([*_caches(ctx).all(), *(pages.cache for one in cachings for pages in one.stores)])
    answers = [_answers(store) for store in stores]
    if not all(answers):
        raise click.ClickException("a cache does not answer; the site runs without it")


def _answers(store: BaseCache) -> bool:
    """Add, read and delete an entry, and print how it went. Does the store answer?"""
    key, began = f"cachemw.check.{token()}", time.perf_counter()
    try:
        if not store.add(key, 1, 10):
            raise BackendUnavailable("it does not keep what it is given")
        store.get(key)
        store.delete(key)
    except CacheError as error:
        click.echo(f"{store!r} does not answer: {error}")
        return False
    finally:
        store.close()
    click.echo(f"{store!r} answers, three calls in {(time.perf_counter() - began) * 1000:.1f} ms")
    return True


@main.command()
@click.argument("aliases", metavar="ALIAS...", nargs=-1, required=True)
@click.option("--yes", is_flag=True, help="Do not ask.")
@click.pass_context
def clear(ctx: click.Context, aliases: tuple[str, ...], yes: bool) -> None:
    """Remove all entries of the caches named."""
    caches = _caches(ctx)
    named = [caches[alias] for alias in aliases]  # all errors come before the question, and before anything is removed
    if own := [cache for cache in named if _is_its_own(cache)]:
        raise _not_shared(own)
    if not yes:
        click.confirm("Remove every entry of these caches?", abort=True)
    for cache in named:
        cache.clear()
        cache.close()
    click.echo(f"Cleared: {', '.join(aliases)}")
