"""A connection to a memcached server for one thread at a time: a payload goes out, its reply comes back.

Rule 1: a reply has one deadline, however its bytes drip.
Rule 2: after anything but a complete reply, and nothing beyond it, the connection is to be closed.

pymemcache makes the connection (addresses, TLS, keep-alive); the payloads and replies pass over its socket directly.
"""

from __future__ import annotations

import socket
from collections.abc import Callable
from select import POLLIN, poll
from time import monotonic
from typing import Any, Final

from pymemcache.client.base import Client  # type: ignore[import-untyped]

from cachemw.backends._memcached.replies import Reply, WireError
from cachemw.backends._sending import send_at_once

__all__ = ["Link"]

#: Bytes read at a time.
_CHUNK: Final = 65_536
#: Of a reply that comes in pieces, the socket's time-out is set anew only if it is off by more than this part of it.
_TOLERANCE: Final = 0.1


class Link:
    """One connection. client: pymemcache's, connected; timeout: its seconds."""

    __slots__ = ("_client", "_patience", "_receive", "_socket", "_timeout", "readable")

    def __init__(self, client: Client) -> None:
        self._client = client
        self._timeout: float = client.timeout
        self._patience = self._timeout  # the socket's time-out
        self._socket: socket.socket = client.sock
        self._receive = self._socket.recv
        looks = poll()
        looks.register(self._socket, POLLIN)
        #: With 0: is there anything to read, be it the connection's end? Not to be used again then.
        self.readable = looks.poll

    def ask(self, payload: bytes, make: Callable[..., Reply], given: tuple[Any, ...]) -> Any:
        """Send the payload; the content of the reply that `make(*given)` expects. Raises: WireError, OSError."""
        sent = send_at_once(self._socket, payload)
        deadline = monotonic() + self._timeout
        reply = make(*given)
        if sent == len(payload):
            data = self._receive(_CHUNK)
            at, complete = reply.take(data, 0)
            if complete and at == len(data):
                return reply.content
            stream = bytearray(data)
        else:
            self._wait_until(deadline)
            self._socket.sendall(memoryview(payload)[sent:])
            stream, at, complete = bytearray(), 0, False
        while not complete:
            del stream[:at]
            stream += self._more(deadline)
            at, complete = reply.take(stream, 0)
        if at < len(stream):
            raise WireError("answered more than it was asked")
        self._be_patient(self._timeout)
        return reply.content

    def _more(self, deadline: float) -> bytes:
        self._wait_until(deadline)
        data: bytes = self._receive(_CHUNK)
        if not data:
            raise WireError("closed the connection")
        return data

    def _wait_until(self, deadline: float) -> None:
        left = deadline - monotonic()
        if left <= 0:
            raise TimeoutError("the reply did not end in time")
        if abs(left - self._patience) > _TOLERANCE * left:  # each time is a system call
            self._be_patient(left)

    def _be_patient(self, seconds: float) -> None:
        if self._patience != seconds:
            self._socket.settimeout(seconds)
            self._patience = seconds

    def close(self) -> None:
        """Close it now."""
        self._client.close()
