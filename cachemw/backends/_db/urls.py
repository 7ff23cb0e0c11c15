"""Which databases, and which table: what LOCATION and OPTIONS say."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from sqlalchemy import URL, make_url
from sqlalchemy.exc import ArgumentError

from cachemw._values import members, refuse, without_password
from cachemw.backends._db.engines import DRIVERS
from cachemw.backends._db.schema import DEFAULT_TABLE

__all__ = ["kind_of", "replica_urls", "table_and_url", "url_of"]


def table_and_url(location: object, options: Mapping[str, Any]) -> tuple[object, URL]:
    """The table's name and the primary's URL: LOCATION is either, as in Django or as a URL."""
    write, table = options.get("write"), options.get("table")
    is_url = isinstance(location, str) and "://" in location
    if table is None:
        table = DEFAULT_TABLE if is_url else location or DEFAULT_TABLE
    if write is not None:
        return table, url_of("OPTIONS['write']", write)
    if not is_url:
        raise refuse("LOCATION", location, "the database's URL; or a table's name, with the URL in OPTIONS['write']")
    return table, url_of("LOCATION", location)


def url_of(name: str, given: object) -> URL:
    """The URL that the setting `name` gives, of a kind of database and a driver that are known."""
    allowed = "sqlite:////path/of/file, postgresql://user:password@host/database, mysql://…, mariadb://…"
    text = given.removeprefix("db+") if isinstance(given, str) else ""
    try:
        url = make_url(text)
        kind, driver = kind_of(url), url.get_driver_name() if "+" in url.drivername else None
    except (ArgumentError, ValueError):
        raise refuse(name, without_password(text) or given, allowed) from None
    drivers = ("pysqlite",) if kind == "sqlite" else DRIVERS[kind][:2] if kind in DRIVERS else ()
    if not drivers or (driver is not None and driver not in drivers):
        raise refuse(name, without_password(text), allowed)
    return url


def kind_of(url: URL) -> str:
    """What stands before the driver: "sqlite", "postgresql", "mysql" or "mariadb", if it is known."""
    kind = url.drivername.partition("+")[0]
    return "postgresql" if kind == "postgres" else kind


def replica_urls(given: object) -> list[URL]:
    """The URLs that OPTIONS["read"] gives: none, one, or several."""
    urls = () if given is None else (given,) if isinstance(given, str) else members("OPTIONS['read']", given)
    return [url_of("OPTIONS['read']", url) for url in urls]
