"""What the subjects need around them: the peers' own environment, private store servers, processes."""

from __future__ import annotations

import json
import os
import shutil
import socket
import subprocess
import sys
import tempfile
import venv
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final, Self

from benchmarks.store_subjects import StoreSubject
from benchmarks.subjects import SUBJECTS, Subject

__all__ = ["ENVIRONMENT", "MissingSubjectError", "Stores", "Worker", "peers_python", "redis_calls", "stores"]

ROOT: Final = Path(__file__).parent.parent
_PEERS: Final = ROOT / "build" / "peers"
_REQUIREMENTS: Final = Path(__file__).with_name("peers.txt")

#: glibc's default thresholds make a body of 1 MB cost 50 or 850 µs by luck: its memory may be mapped anew each time.
#: Hash seeds are fixed so that dictionaries behave alike in every process.
ENVIRONMENT: Final = {
    "MALLOC_MMAP_THRESHOLD_": "33554432",
    "MALLOC_TRIM_THRESHOLD_": "134217728",
    "PYTHONHASHSEED": "0",
}


class MissingSubjectError(Exception):
    """A subject cannot be measured here; the message says why. It is reported, never left out silently."""


def peers_python() -> str:
    """The interpreter of the peers' environment, made from peers.txt on first use."""
    python = _PEERS / "bin" / "python"
    stamp = _PEERS / "peers.txt"
    wanted = _REQUIREMENTS.read_text()
    if not stamp.is_file() or stamp.read_text() != wanted:
        print("installing the peers into build/peers …", file=sys.stderr)
        venv.create(_PEERS, with_pip=True)
        pip = [str(python), "-m", "pip", "install", "--quiet", "--disable-pip-version-check"]
        if subprocess.run([*pip, "-r", str(_REQUIREMENTS)], check=False).returncode:
            for line in filter(None, wanted.splitlines()):  # one that cannot be had must not take the others along
                subprocess.run([*pip, line], check=False)
        stamp.write_text(wanted)
    return str(python)


class Stores:
    """Private servers on free ports, and a folder; what is not installed is None."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.redis: int | None = None
        self.memcached: int | None = None
        self.processes: list[subprocess.Popen[bytes]] = []

    def url(self, subject: Subject | StoreSubject) -> str:
        """The subject's store URL with ports and folder filled in."""
        for server in ("redis", "memcached"):
            if f"{{{server}}}" in subject.url and getattr(self, server) is None:
                raise MissingSubjectError(f"{server} is not installed")
        folder = self.folder / subject.name
        folder.mkdir(exist_ok=True)
        return subject.url.format(redis=self.redis, memcached=self.memcached, folder=folder)

    def start(self) -> None:
        quiet = {"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}
        if shutil.which("redis-server"):
            self.redis = free_port()
            command = ["redis-server", "--port", str(self.redis), "--bind", "127.0.0.1", "--save", "", "--dir"]
            self.processes.append(subprocess.Popen([*command, str(self.folder)], **quiet))  # type: ignore[call-overload]
            wait_for(self.redis)
        if shutil.which("memcached"):
            self.memcached = free_port()
            command = ["memcached", "-p", str(self.memcached), "-l", "127.0.0.1", "-U", "0", "-m", "256", "-I", "4m"]
            command += ["-u", "nobody"] if os.geteuid() == 0 else []
            self.processes.append(subprocess.Popen(command, **quiet))  # type: ignore[call-overload]
            wait_for(self.memcached)

    def stop(self) -> None:
        for process in self.processes:
            process.terminate()
        for process in self.processes:
            process.wait(10)


def free_port() -> int:
    """A port of 127.0.0.1 that nobody listens on at this moment."""
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        port: int = listener.getsockname()[1]
        return port


def wait_for(port: int, *, seconds: float = 10) -> None:
    """Return when a server accepts connections on the port."""
    from time import monotonic, sleep

    deadline = monotonic() + seconds
    while True:
        try:
            socket.create_connection(("127.0.0.1", port), timeout=1).close()
        except OSError:
            if monotonic() > deadline:
                raise
            sleep(0.02)
        else:
            return


@contextmanager
def stores() -> Iterator[Stores]:
    """Redis and memcached, where installed, and a temporary folder, for as long as the context lasts."""
    with tempfile.TemporaryDirectory(prefix="bench") as folder:
        found = Stores(Path(folder))
        try:
            found.start()
            yield found
        finally:
            found.stop()


def redis_calls(port: int) -> int:
    """Commands that the Redis server has processed."""
    with socket.create_connection(("127.0.0.1", port), timeout=5) as connection:
        connection.sendall(b"INFO stats\r\n")
        reply = b""
        while b"total_commands_processed" not in reply or not reply.endswith(b"\r\n"):
            reply += connection.recv(65536)
    return int(reply.partition(b"total_commands_processed:")[2].partition(b"\r\n")[0])


class Worker:
    """A subject's process; `ask` sends it one command and waits for the answer."""

    def __init__(self, subject: Subject | StoreSubject, stores: Stores, *, module: str = "benchmarks.worker") -> None:
        python = peers_python() if subject.kind == "peer" else sys.executable
        self.subject = subject
        self._process = subprocess.Popen(
            [python, "-m", module, subject.name, stores.url(subject)],
            cwd=ROOT,
            env=os.environ | ENVIRONMENT,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            text=True,
        )

    def ask(self, do: str, **arguments: Any) -> Any:
        """The command's value; `MissingSubjectError` with the worker's own words if it failed."""
        self.tell(do, **arguments)
        return self.answer()

    def tell(self, do: str, **arguments: Any) -> None:
        """Send a command; its value is fetched by `answer`."""
        assert self._process.stdin is not None
        try:
            self._process.stdin.write(json.dumps({"do": do, **arguments}) + "\n")
            self._process.stdin.flush()
        except BrokenPipeError:
            raise MissingSubjectError(f"the process ended with status {self._process.wait()}") from None

    def answer(self) -> Any:
        """The value of the command sent last."""
        assert self._process.stdout is not None
        line = self._process.stdout.readline()
        if not line:
            raise MissingSubjectError(f"the process ended with status {self._process.wait()}")
        answer = json.loads(line)
        if "error" in answer:
            raise MissingSubjectError(answer["error"])
        return answer["value"]

    def close(self) -> None:
        self._process.kill()
        self._process.communicate()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def chosen(pattern: str | None) -> list[Subject]:
    """The subjects whose name contains one of the comma-separated parts; all without a pattern."""
    parts = pattern.split(",") if pattern else [""]
    return [
        subject
        for subject in SUBJECTS.values()
        if subject.kind != "limit" and any(part in subject.name for part in parts)
    ]
