"""The servers that the tests start."""

from __future__ import annotations

import shutil
import socket
import sys
from collections.abc import Callable

import pytest

from tests import servers
from tests.servers import (
    HOST,
    OPTIONAL,
    Server,
    free_port,
    require,
    require_ipv6,
    start,
    start_memcached,
    start_redis,
)


def test_what_another_has_on_the_port_is_not_the_server_that_was_started() -> None:
    """Two runs of the tests on one machine, say, which would write into each other's stores."""
    port = free_port()
    with socket.create_server((HOST, port)), pytest.raises(RuntimeError, match="ended with status 0"):
        start([sys.executable, "-c", "pass"], port=port)


@pytest.mark.parametrize("starter", [start_memcached, start_redis])
def test_a_server_that_was_killed_can_be_started_again(starter: Callable[[], Server]) -> None:
    with starter() as server:
        server.kill()
        server.start()
        assert server.process is not None
        assert server.process.poll() is None


def test_what_a_machine_lacks_is_a_counted_skip_or_a_failure(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*args: object, **kwargs: object) -> None:
        raise OSError("Address family not supported by protocol")

    monkeypatch.setattr(socket, "create_server", refuse)
    monkeypatch.setattr(shutil, "which", lambda program, path: None)
    lacking: list[Callable[[], str]] = [lambda: require("no-such-server"), require_ipv6]
    for wanted in ("", "postgres"):
        monkeypatch.setattr(servers, "REQUIRED", wanted)
        for one in lacking:
            with pytest.raises(pytest.skip.Exception, match=r"is not installed: apt-get|nothing can listen on ::1"):
                one()
    for wanted in ("all", "ipv6,no-such-server"):
        monkeypatch.setattr(servers, "REQUIRED", wanted)
        for one in lacking:
            with pytest.raises(pytest.fail.Exception, match=f"CACHEMW_TEST_REQUIRE={wanted}"):
                one()
    monkeypatch.setattr(servers, "REQUIRED", "all")
    for optional in OPTIONAL:
        with pytest.raises(pytest.skip.Exception):
            require(optional)
