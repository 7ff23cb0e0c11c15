"""One subject under a real server.

`python -m benchmarks.served NAME URL COUNTER` serves an ASGI subject under uvicorn and prints its port; gunicorn loads
`benchmarks.served:application(NAME, URL, COUNTER)`. COUNTER is a file of eight bytes, shared with whoever measures: the
number of times the application was called.
"""

from __future__ import annotations

import logging
import mmap
import socket
import struct
import sys
from pathlib import Path
from typing import Any

from benchmarks.drivers import AsgiDriver
from benchmarks.subjects import SUBJECTS
from benchmarks.traffic import Origin

__all__ = ["application"]


class _SharedOrigin(Origin):
    """An origin whose calls another process can read."""

    def __init__(self, counter: Path) -> None:
        super().__init__()
        with counter.open("r+b") as file:
            self._shared = mmap.mmap(file.fileno(), 8)

    def _content(self, kind: str) -> bytes:
        struct.pack_into("q", self._shared, 0, self.calls)
        return super()._content(kind)


def application(name: str, url: str, counter: str) -> Any:
    """The subject's application."""
    logging.disable(logging.CRITICAL)
    return SUBJECTS[name].build(_SharedOrigin(Path(counter)), url).app


def main(name: str, url: str, counter: str) -> None:
    import uvicorn

    driver = SUBJECTS[name].build(_SharedOrigin(Path(counter)), url)
    assert isinstance(driver, AsgiDriver)
    logging.disable(logging.CRITICAL)
    # the protocol named, for asyncio sets TCP_NODELAY only on sockets that say they are TCP
    listener = socket.socket(socket.AF_INET, socket.SOCK_STREAM, socket.IPPROTO_TCP)
    listener.bind(("127.0.0.1", 0))
    listener.listen(512)
    print(listener.getsockname()[1], flush=True)
    config = uvicorn.Config(driver.app, http="httptools", loop="asyncio", lifespan="off", access_log=False)
    driver.loop.run_until_complete(uvicorn.Server(config).serve(sockets=[listener]))


if __name__ == "__main__":
    main(*sys.argv[1:])
