"""Sending over a socket that has a time-out, without the look whether it can be sent to."""

from __future__ import annotations

import os
import socket

__all__ = ["send_at_once"]


def send_at_once(connection: socket.socket, payload: bytes) -> int:
    """Send as much as fits into the socket's buffer; how many bytes that were. Raises: OSError.

    A socket with a time-out polls before it sends: a system call that a connection with all its replies can spare.
    """
    if type(connection) is not socket.socket:  # TLS
        return connection.send(payload)
    try:
        return os.write(connection.fileno(), payload)
    except BlockingIOError:
        return 0
