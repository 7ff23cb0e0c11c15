"""The servers that the tests start."""

from __future__ import annotations

import socket
import sys
from collections.abc import Callable

import pytest

from tests.servers import HOST, Server, free_port, start, start_memcached, start_redis


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
