"""`serve`: requests per second and the server's CPU per request, over sockets: uvicorn, gunicorn's gthread, nginx.

`wrk -t1 -c16` sends the browser's request for a page that is stored. The CPU of a request is the steadier figure of the
two: load generator and server share the machine. gunicorn hands the interpreter from thread to thread for each request
and varies by a factor of two between runs, so that goals are held to uvicorn's figures.
"""

from __future__ import annotations

import os
import random
import re
import shutil
import struct
import subprocess
import sys
from collections import defaultdict
from collections.abc import Iterator
from contextlib import ExitStack, closing, contextmanager
from dataclasses import dataclass, field
from http.client import HTTPConnection, HTTPException
from pathlib import Path
from statistics import median
from typing import Final

from benchmarks.report import Cell, Goal, Table
from benchmarks.subjects import SUBJECTS, Subject
from benchmarks.surroundings import ENVIRONMENT, ROOT, MissingSubjectError, Stores, free_port, peers_python, wait_for
from benchmarks.traffic import KINDS, REQUEST_FIELDS

__all__ = ["Serve", "goals", "measure", "table"]

_NAMES: Final = (
    "bare-asgi",
    "proto-asgi-full",
    "proto-asgi-rawredis",
    "cachemw-asgi-locmem",
    "cachemw-asgi-redis",
    "cachemw-asgi-tiered",
    "asgi-caches-locmem",
    "starlette-caches-locmem",
    "aiocache-locmem",
    "aiocache-redis",
    "fastapi-cache2-locmem",
    "django-asgi-locmem",
    "bare-wsgi",
    "proto-wsgi-full",
    "cachemw-wsgi-locmem",
    "cachemw-wsgi-redis",
    "flask-caching-locmem",
    "flask-caching-redis",
    "django-wsgi-locmem",
)
NGINX: Final = "nginx proxy_cache"

_NGINX: Final = """
daemon off; pid {folder}/nginx.pid; error_log stderr crit; worker_processes 1;
events {{ worker_connections 256; }}
http {{
  access_log off; client_body_temp_path {folder}/body; proxy_temp_path {folder}/proxy;
  fastcgi_temp_path {folder}/fastcgi; uwsgi_temp_path {folder}/uwsgi; scgi_temp_path {folder}/scgi;
  proxy_cache_path {folder}/cache keys_zone=pages:10m;
  server {{
    listen 127.0.0.1:{port};
    location / {{ proxy_pass http://127.0.0.1:{upstream}; proxy_cache pages; }}
  }}
}}
"""


@dataclass(frozen=True, slots=True)
class _Server:
    """A running server: where it listens, which processes work for it, and how often it called the application."""

    name: str
    port: int
    process: int
    counter: Path

    def cpu(self) -> float:
        """Seconds of CPU so far, of the process and its children."""
        return sum(_cpu(process) for process in (self.process, *_children(self.process)))

    def calls(self) -> int:
        """Calls of the application so far."""
        return int(struct.unpack("q", self.counter.read_bytes())[0])


@dataclass
class Serve:
    """Requests per second and µs of CPU per request, by subject and kind of page, one for each round."""

    rates: dict[tuple[str, str], list[float]] = field(default_factory=lambda: defaultdict(list))
    cpu: dict[tuple[str, str], list[float]] = field(default_factory=lambda: defaultdict(list))
    p99: dict[tuple[str, str], list[float]] = field(default_factory=lambda: defaultdict(list))
    missing: dict[str, str] = field(default_factory=dict)


def _children(process: int) -> list[int]:
    listed = Path(f"/proc/{process}/task/{process}/children")
    return [int(child) for child in listed.read_text().split()]


def _cpu(process: int) -> float:
    fields = Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


@contextmanager
def _process(command: list[str], environment: dict[str, str]) -> Iterator[subprocess.Popen[str]]:
    process = subprocess.Popen(
        command,
        cwd=ROOT,
        env=os.environ | environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
    )
    try:
        yield process
    finally:
        process.terminate()
        try:
            process.communicate(timeout=5)
        except subprocess.TimeoutExpired:
            process.kill()
            process.communicate()


@contextmanager
def _served(subject: Subject, stores: Stores) -> Iterator[_Server]:
    python = peers_python() if subject.kind == "peer" else sys.executable
    url = stores.url(subject)
    counter = stores.folder / f"{subject.name}.calls"
    counter.write_bytes(bytes(8))
    if subject.interface == "asgi":
        command = [python, "-m", "benchmarks.served", subject.name, url, str(counter)]
        with _process(command, ENVIRONMENT) as process:
            assert process.stdout is not None
            line = process.stdout.readline()
            if not line:
                raise MissingSubjectError(f"uvicorn ended with status {process.wait()}")
            port = int(line)
            wait_for(port)
            yield _Server(subject.name, port, process.pid, counter)
        return
    port = free_port()
    factory = f"benchmarks.served:application({subject.name!r}, {url!r}, {str(counter)!r})"
    command = [python, "-m", "gunicorn", "--worker-class", "gthread", "--threads", "2", "--bind", f"127.0.0.1:{port}"]
    with _process([*command, "--keep-alive", "60", "--log-level", "critical", factory], ENVIRONMENT) as process:
        try:
            wait_for(port)
        except OSError as error:
            raise MissingSubjectError(f"gunicorn did not start: {error}") from None
        yield _Server(subject.name, port, process.pid, counter)


@contextmanager
def _nginx(upstream: _Server, stores: Stores) -> Iterator[_Server]:
    program = shutil.which("nginx") or shutil.which("nginx", path="/usr/sbin")
    if program is None:
        raise MissingSubjectError("nginx is not installed")
    folder = stores.folder / "nginx"
    folder.mkdir()
    folder.chmod(0o755)
    stores.folder.chmod(0o755)  # nginx's worker runs as another user
    port = free_port()
    configuration = folder / "nginx.conf"
    configuration.write_text(_NGINX.format(folder=folder, port=port, upstream=upstream.port))
    with _process([program, "-c", str(configuration), "-p", str(folder)], {}) as process:
        try:
            wait_for(port)
        except OSError as error:
            raise MissingSubjectError(f"nginx did not start: {error}") from None
        yield _Server(NGINX, port, process.pid, upstream.counter)


def _warm(port: int, path: str) -> None:
    """Have the page stored, and every lazily made thing made."""
    with closing(HTTPConnection("127.0.0.1", port, timeout=10)) as connection:
        for _ in range(20):
            connection.request("GET", path, headers=dict(REQUEST_FIELDS))
            connection.getresponse().read()


def _wrk(server: _Server, path: str, seconds: int) -> tuple[int, float, float]:
    """Requests answered with 2xx, seconds, p99 in ms."""
    # wrk adds a Host of its own unless it finds one in this spelling
    headers = [part for name, value in REQUEST_FIELDS for part in ("-H", f"{name.title()}: {value}")]
    command = ["wrk", "-t1", "-c16", f"-d{seconds}s", "--latency", *headers, f"http://127.0.0.1:{server.port}{path}"]
    run = subprocess.run(command, check=False, capture_output=True, text=True, timeout=60)
    said = run.stdout
    wrong = [line.strip() for line in said.splitlines() if "Non-2xx" in line or "Socket errors" in line]
    if run.returncode or wrong:
        raise MissingSubjectError(f"wrk ended with {run.returncode}: {wrong}")
    done = re.search(r"(\d+) requests in ([\d.]+)(m?s)", said)
    slow = re.search(r"99%\s+([\d.]+)(us|ms|s)", said)
    assert done is not None
    assert slow is not None
    unit = {"us": 1e-3, "ms": 1.0, "s": 1e3}[slow[2]]
    return int(done[1]), float(done[2]) * (1e-3 if done[3] == "ms" else 1), float(slow[1]) * unit


def _round(found: Serve, server: _Server, kind: str, seconds: int) -> None:
    path = f"/{kind}/{server.name.replace(' ', '-')}"
    _warm(server.port, path)
    calls, cpu = server.calls(), server.cpu()
    requests, taken, p99 = _wrk(server, path, seconds)
    used = server.cpu() - cpu
    if not server.name.startswith("bare-") and server.calls() != calls:
        raise MissingSubjectError(f"{server.calls() - calls} of {requests} requests reached the application")
    found.rates[server.name, kind].append(requests / taken)
    found.cpu[server.name, kind].append(used / requests * 1e6)
    found.p99[server.name, kind].append(p99)


def measure(names: list[str], stores: Stores, *, rounds: int, seconds: int, kinds: str) -> Serve:
    """Every subject under its server, all of them up at once; each round measures every one of them once."""
    found = Serve()
    if shutil.which("wrk") is None:
        found.missing = dict.fromkeys(_NAMES, "wrk is not installed")
        return found
    with ExitStack() as stack:
        servers: list[_Server] = []
        for name in (name for name in _NAMES if name in names):
            try:
                servers.append(stack.enter_context(_served(SUBJECTS[name], stores)))
            except MissingSubjectError as reason:
                found.missing[name] = str(reason)
        for upstream in [server for server in servers if server.name == "bare-asgi"]:
            try:
                servers.append(stack.enter_context(_nginx(upstream, stores)))
            except MissingSubjectError as reason:
                found.missing[NGINX] = str(reason)
        for number in range(rounds):
            print(f"\rround {number + 1} of {rounds}", end="", file=sys.stderr, flush=True)
            runs = [(server, kind) for server in servers for kind in kinds if server.name not in found.missing]
            random.shuffle(runs)
            for server, kind in runs:
                try:
                    _round(found, server, kind, seconds)
                except (MissingSubjectError, HTTPException, OSError) as reason:
                    found.missing[server.name] = str(reason)
        print(file=sys.stderr)
    return found


def _ratio(times: dict[tuple[str, str], list[float]], name: str, other: str, kind: str) -> float | None:
    """The median of the ratios within each round."""
    above, below = times.get((name, kind)), times.get((other, kind))
    return median(a / b for a, b in zip(above, below, strict=False)) if above and below else None


def table(found: Serve) -> Table:
    rows: list[list[Cell]] = []
    for name, kind in found.rates:
        if name in found.missing:
            continue
        bare = "bare-asgi" if name == NGINX else f"bare-{SUBJECTS[name].interface}"
        rows.append(
            [
                f"{name}, {KINDS[kind] // 1024} KB",
                median(found.rates[name, kind]),
                _ratio(found.rates, name, bare, kind),
                median(found.cpu[name, kind]),
                _ratio(found.cpu, name, bare, kind),
                median(found.p99[name, kind]),
            ]
        )
    order = [*_NAMES, NGINX]
    rows.sort(key=lambda row: (str(row[0]).rpartition(", ")[2] != "1 KB", order.index(str(row[0]).rpartition(", ")[0])))
    columns = ["subject", "req/s", "of bare", "CPU µs", "x bare", "p99 ms"]
    return Table("Over sockets: wrk -t1 -c16, median of the rounds", columns, rows)


def goals(found: Serve) -> list[Goal]:
    """Under uvicorn, where the figures hold still."""
    own = "cachemw-asgi-locmem"
    return [
        Goal("uvicorn, locmem: req/s of bare", _ratio(found.rates, own, "bare-asgi", "s"), 0.80, at_least=True),
        Goal("uvicorn, locmem: req/s of nginx", _ratio(found.rates, own, NGINX, "s"), 0.45, at_least=True),
        Goal("uvicorn, locmem: CPU x bare", _ratio(found.cpu, own, "bare-asgi", "s"), 1.30),
        Goal("uvicorn, redis: CPU x bare", _ratio(found.cpu, "cachemw-asgi-redis", "bare-asgi", "s"), 1.95),
    ]
