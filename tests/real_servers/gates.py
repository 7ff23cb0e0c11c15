"""The application's side of `tests.serving.Gates`: wait where a test has shut a gate."""

from __future__ import annotations

import asyncio
import os
import socket
from contextlib import suppress

__all__ = ["apass_gate", "pass_gate"]


def _path(name: str) -> str:
    return f"{os.environ['GATES']}/{name}"


def pass_gate(name: str) -> None:
    """Wait in this thread until the test opens the gate, if it is shut."""
    with socket.socket(socket.AF_UNIX) as gate, suppress(OSError):  # no such gate, or it was opened on our way in
        gate.connect(_path(name))
        gate.recv(1)


async def apass_gate(name: str) -> None:
    """Wait in this task; it may be cancelled."""
    with suppress(OSError):
        reader, writer = await asyncio.open_unix_connection(_path(name))
        try:
            await reader.read()
        finally:
            writer.close()
