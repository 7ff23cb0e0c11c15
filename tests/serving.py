"""The servers that people run, with an application of `module:app`; started and stopped like all in `tests.servers`.

`Gates` lets a test hold an application back inside another process, and know that it is held back.
"""

from __future__ import annotations

import os
import socket
import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Final, Self

from tests.servers import Server, free_port, new_directory, start

__all__ = ["ASGI_SERVERS", "ROOT", "SERVERS", "WSGI_SERVERS", "Gates", "run_example", "serve"]

ROOT: Final = Path(__file__).parent.parent


def _gunicorn(app: str, port: int, workers: str, *options: str) -> Sequence[str]:
    argv = ("gunicorn", "--bind", f"127.0.0.1:{port}", "--graceful-timeout", "1", "--worker-tmp-dir", "/dev/shm")
    return *argv, "--worker-class", workers, *options, app


#: How each is started. Threads are as many as a small production site has.
_COMMANDS: Final[Mapping[str, Callable[[str, int], Sequence[str]]]] = {
    "gunicorn": lambda app, port: _gunicorn(app, port, "gthread", "--threads", "32"),
    "gevent": lambda app, port: _gunicorn(app, port, "gevent"),
    "waitress": lambda app, port: (
        *("waitress", "--threads", "32", "--connection-limit", "1000", "--listen", f"127.0.0.1:{port}", app),
    ),
    "uvicorn": lambda app, port: ("uvicorn", "--port", str(port), "--timeout-graceful-shutdown", "1", app),
    "hypercorn": lambda app, port: ("hypercorn", "--bind", f"127.0.0.1:{port}", "--graceful-timeout", "1", app),
    "granian": lambda app, port: ("granian", "--interface", "asgi", "--host", "127.0.0.1", "--port", str(port), app),
}
WSGI_SERVERS: Final = ("gunicorn", "waitress")
ASGI_SERVERS: Final = ("uvicorn", "hypercorn")
SERVERS: Final = (*WSGI_SERVERS, *ASGI_SERVERS)


def serve(kind: str, app: str, *, environ: Mapping[str, str] | None = None, path: Path = ROOT) -> Server:
    """Start the server `kind` with `app` ("module:name", found below `path`); it accepts connections then."""
    port = free_port()
    return start(
        [sys.executable, "-m", *_COMMANDS[kind](app, port)],
        port=port,
        environ={"PYTHONPATH": os.pathsep.join([str(path), str(ROOT)]), **(environ or {})},
    )


def run_example(name: str, *, environ: Mapping[str, str] | None = None) -> Server:
    """Run an example by its one command, `python -m examples.<name>`, on a free port; a warning fails it."""
    port = free_port()
    variables = {"PYTHONPATH": str(ROOT), "PORT": str(port), **(environ or {})}
    return start([sys.executable, "-W", "error", "-m", f"examples.{name}"], port=port, environ=variables)


class Gates:
    """Places in an application where it waits for a test: sockets, which tell each side that the other is there.

    The application's side is `tests.real_servers.gates`. A gate that was never shut is open.
    """

    def __init__(self) -> None:
        self.directory = new_directory()
        self._gates: dict[str, socket.socket] = {}
        self._waiting: dict[str, list[socket.socket]] = {}

    def shut(self, name: str) -> None:
        """Whoever comes to this gate from now on waits."""
        gate = self._gates[name] = socket.socket(socket.AF_UNIX)
        gate.bind(str(self.directory / name))
        gate.listen(256)
        gate.settimeout(10)
        self._waiting[name] = []

    def await_arrivals(self, name: str, count: int = 1) -> None:
        """Return when so many more have come to the gate; they wait there."""
        for _ in range(count):
            self._waiting[name].append(self._gates[name].accept()[0])

    def await_departure(self, name: str) -> None:
        """Return when one who waits has given up: its task was cancelled."""
        waiting = self._waiting[name].pop()
        waiting.settimeout(10)
        with waiting:
            waiting.recv(1)

    def open(self, name: str) -> None:
        """Let those who wait, and all who come, pass."""
        (self.directory / name).unlink()
        for waiting in (self._gates.pop(name), *self._waiting.pop(name)):
            waiting.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc_info: object) -> None:
        for name in list(self._gates):
            self.open(name)
        self.directory.rmdir()
