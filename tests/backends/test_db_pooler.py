"""PostgreSQL behind a pooler, which hands each statement to whichever of the server's processes is free."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator

import pytest
from sqlalchemy import make_url

from cachemw.backends.db import DatabaseCache
from tests.servers import Server, postgresql_url, shared, start_pgbouncer, start_postgresql

#: More often than a driver does a statement before it has the server remember it.
OFTEN = 10


@pytest.fixture(params=["transaction", "statement"])
def pooler(request: pytest.FixtureRequest) -> Iterator[Server]:
    with start_pgbouncer(shared(start_postgresql), pool_mode=request.param) as server:
        yield server


def _open(pooler: Server) -> DatabaseCache:
    url = make_url(postgresql_url(shared(start_postgresql))).set(host=pooler.host, port=pooler.port)
    options = {"table": "pooled", "create": True, "deadline": 5}
    return DatabaseCache(url.render_as_string(hide_password=False), {"OPTIONS": options})


@pytest.mark.parametrize("half", ["sync", "async"])
def test_nobody_does_what_a_statement_of_anothers_meant(pooler: Server, half: str) -> None:
    """Two processes of a site: what the server remembers of the one's has the names of the other's statements."""
    one, other = _open(pooler), _open(pooler)
    one.clear()
    one.set("key", "value")
    one.set("counter", 1)

    async def use() -> None:
        for _ in range(OFTEN):
            assert await one.aget("key") == "value"
        for _ in range(OFTEN):
            await other.adelete("another")
        for _ in range(OFTEN):
            await one.aincr("counter")
        for cache in (one, other):
            assert await cache.aget_many(["key", "counter"]) == {"key": "value", "counter": 1 + OFTEN}
            await cache.aclose()

    if half == "async":
        asyncio.run(use())
        return
    for _ in range(OFTEN):
        assert one.get("key") == "value"
    for _ in range(OFTEN):
        other.delete("another")
    for _ in range(OFTEN):
        one.incr("counter")
    for cache in (one, other):
        assert cache.get_many(["key", "counter"]) == {"key": "value", "counter": 1 + OFTEN}
        cache.close()


def test_without_a_pooler_the_server_remembers_statements() -> None:
    """Which saves it the planning."""
    cache = DatabaseCache(postgresql_url(shared(start_postgresql)), {"OPTIONS": {"create": True, "deadline": 5}})
    for _ in range(OFTEN):
        cache.get("key")
    with cache._primary._engines[False].connect() as connection:  # type: ignore[attr-defined]
        assert connection.exec_driver_sql("SELECT count(*) FROM pg_prepared_statements").scalar() == 1
    cache.close()
