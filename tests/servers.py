"""Private servers for the tests: started on free ports of 127.0.0.1, in a directory of their own, and stopped.

A test asks for what it needs: `shared(start_redis)` is one server for the whole run, `with start_redis() as server` is
one that the test may stop, kill or freeze. `require` decides what a missing program means: one counted skip, or a
failure where `CACHEMW_TEST_REQUIRE=all` (or a comma-separated list of programs) says that it must be there. "all" are
those that every Debian has. So it is with the machine's IPv6 ("ipv6").
"""

from __future__ import annotations

import atexit
import functools
import os
import pwd
import random
import shutil
import signal
import socket
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any, NoReturn, Protocol, Self, TypeVar, cast

import pytest
from redis.connection import Connection
from redis.exceptions import AuthenticationError, RedisError

__all__ = [
    "MemcachedRing",
    "RedisCluster",
    "RedisReplication",
    "RedisSentinel",
    "Server",
    "accepts",
    "free_port",
    "free_ports",
    "mariadb_url",
    "postgresql_url",
    "redis_command",
    "redis_info",
    "require",
    "require_ipv6",
    "shared",
    "start",
    "start_mariadb",
    "start_pgbouncer",
    "start_postgresql",
    "start_redis",
    "start_valkey",
    "until",
    "uses",
]

#: Taken out of the environment: the commands and sites that tests start would warn that it is no setting.
REQUIRED = os.environ.pop("CACHEMW_TEST_REQUIRE", "")

HOST = "127.0.0.1"
HOST6 = "::1"
_connect: Callable[..., Any] = Connection  # redis-py leaves it without types
START_TIMEOUT = 30.0  # seconds; PostgreSQL and MariaDB on a busy machine are slow to come up
STOP_TIMEOUT = 10.0  # seconds before SIGKILL

# Debian packages, for the message of a missing program.
PACKAGES = {
    "cc": "gcc",
    "createdb": "postgresql-client",
    "initdb": "postgresql",
    "mariadb-install-db": "mariadb-server",
    "mariadbd": "mariadb-server",
    "memcached": "memcached",
    "pg_ctl": "postgresql",
    "postgres": "postgresql",
    "redis-server": "redis-server",
    "valkey-server": "valkey-server",
    "varnishd": "varnish",
}

OPTIONAL = {"valkey-server"}


class Stoppable(Protocol):
    """Anything that `shared` can stop when the run ends."""

    def stop(self) -> None: ...


Started = TypeVar("Started", bound=Stoppable)


def require(program: str, *, also_in: Sequence[str] = ()) -> str:
    """Return the path of `program`; if it is missing, skip the test, or fail where the run requires it.

    `also_in`: further directories (glob patterns) to look in, for programs that Debian keeps out of `PATH`.
    """
    _note_use()
    extra = [str(found) for pattern in also_in for found in sorted(Path("/").glob(pattern.lstrip("/")), reverse=True)]
    path = shutil.which(
        program, path=os.pathsep.join([os.environ.get("PATH", ""), "/usr/sbin", "/usr/local/sbin", *extra])
    )
    if path is None:
        _do_without(program, f"{program} is not installed: apt-get install {PACKAGES.get(program, program)}")
    return path


def require_ipv6() -> str:
    """Return the address of this machine to itself in IPv6; without one, as `require` for the program "ipv6"."""
    try:
        socket.create_server((HOST6, 0), family=socket.AF_INET6).close()
    except OSError as error:
        _do_without("ipv6", f"nothing can listen on {HOST6}: {error}")
    return HOST6


def _do_without(name: str, message: str) -> NoReturn:
    if (REQUIRED == "all" and name not in OPTIONAL) or name in REQUIRED.split(","):
        pytest.fail(f"{message} (CACHEMW_TEST_REQUIRE={REQUIRED})")
    pytest.skip(message)


def free_ports(count: int) -> list[int]:
    """Return `count` different TCP ports of 127.0.0.1 that nobody listens on.

    They are taken from below the ephemeral range, so that no outgoing connection takes one before its server does.
    """
    found: list[int] = []
    for port in random.sample(range(20_000, 32_000), 500):
        with socket.socket() as probe:
            try:
                probe.bind((HOST, port))
            except OSError:
                continue
        found.append(port)
        if len(found) == count:
            return found
    raise RuntimeError(f"no {count} free ports between 20000 and 32000")


def free_port() -> int:
    """Return one TCP port of 127.0.0.1 that nobody listens on."""
    return free_ports(1)[0]


def accepts(address: tuple[str, int] | str) -> bool:
    """Whether something accepts connections at (host, port), or at a unix socket's path."""
    family = socket.AF_UNIX if isinstance(address, str) else socket.AF_INET
    with socket.socket(family) as client:
        client.settimeout(1)
        try:
            client.connect(address)
        except OSError:
            return False
    return True


def until(condition: Callable[[], bool], what: str, timeout: float = START_TIMEOUT) -> None:
    """Return as soon as `condition()` is true, looking every 10 ms; fail after `timeout` seconds.

    For the state of another process, which has no event that this one could wait on.
    """
    deadline = time.monotonic() + timeout
    while not condition():
        if time.monotonic() > deadline:
            raise TimeoutError(f"after {timeout:g} s still waiting until {what}")
        time.sleep(0.01)


_uses = 0


def _note_use() -> None:
    global _uses
    _uses += 1


def uses() -> int:
    """How often this process has asked for a server, or for another program, so far; see `tests.reruns`."""
    return _uses


class Server:
    """A running server process; a context manager that stops it.

    Attributes: `host`, `port`, `directory` (its own, removed at the end), `process`.
    """

    def __init__(
        self,
        argv: Sequence[str],
        *,
        port: int,
        ready: Callable[[Server], bool],
        directory: Path,
        user: str | None,
        environ: Mapping[str, str] | None,
        stop_signal: signal.Signals,
    ) -> None:
        self.argv = list(argv)
        self.host = HOST
        self.port = port
        self.directory = directory
        self.process: subprocess.Popen[bytes] | None = None
        self._ready = ready
        self._user = user
        self._environ = environ
        self._stop_signal = stop_signal

    @property
    def address(self) -> str:
        """`host:port`."""
        return f"{self.host}:{self.port}"

    @property
    def log(self) -> str:
        """All that the server has printed."""
        return (self.directory / "server.log").read_text(errors="replace")

    def start(self) -> Self:
        """Start the process (again) on the same port and directory, and return when it serves."""
        _note_use()
        argv = self.argv
        if setpriv := shutil.which("setpriv"):  # the server dies with this process, however that ends
            argv = [setpriv, "--pdeathsig", "KILL", *argv]
        with open(self.directory / "server.log", "ab") as log:
            self.process = subprocess.Popen(
                argv,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                cwd=self.directory,
                env=None if self._environ is None else {**os.environ, **self._environ},
                user=self._user,
                group=None if self._user is None else pwd.getpwnam(self._user).pw_gid,
                extra_groups=None if self._user is None else [],
            )
        until(self._is_ready, f"{self.argv[0]} serves at {self.address}")
        return self

    def _is_ready(self) -> bool:
        assert self.process is not None
        if (status := self.process.poll()) is not None:
            raise RuntimeError(f"{self.argv[0]} ended with status {status}:\n{self.log}")
        return self._ready(self) and self._listens()

    def _listens(self) -> bool:
        """Is it this one that is ready? Another run of the tests may have taken the port while nobody was there."""
        assert self.process is not None
        port = f":{self.port:04X}"
        rows = [row.split() for name in ("tcp", "tcp6") for row in Path(f"/proc/net/{name}").read_text().splitlines()]
        sockets = {f"socket:[{row[9]}]" for row in rows if row[1].endswith(port) and row[3] == "0A"}
        if not sockets:  # nobody has the port: what is ready has a unix socket alone
            return True
        return any(not sockets.isdisjoint(_open_files(pid)) for pid in (self.process.pid, *_children(self.process.pid)))

    def pause(self) -> None:
        """Freeze it and its processes (SIGSTOP): it keeps its connections and answers nobody."""
        self._signal(signal.SIGSTOP)
        assert self.process is not None
        os.waitid(os.P_PID, self.process.pid, os.WSTOPPED)  # until then it may still answer
        self._signal_children(signal.SIGSTOP)

    def resume(self) -> None:
        """Thaw it (SIGCONT)."""
        self._signal_children(signal.SIGCONT)
        self._signal(signal.SIGCONT)

    def kill(self) -> None:
        """End it and its processes without warning (SIGKILL); `start` brings it back."""
        assert self.process is not None
        children = _children(self.process.pid) if self.process.poll() is None else []
        self._signal(signal.SIGKILL)
        self.process.wait()
        for child in children:  # a process of PostgreSQL answers until it notices that it is an orphan
            with suppress(ProcessLookupError):
                os.kill(child, signal.SIGKILL)

    def stop(self) -> None:
        """End it in its own way, frozen or not, and remove its directory."""
        if self.process is not None and self.process.poll() is None:
            self._signal(self._stop_signal)
            self._signal(signal.SIGCONT)
            try:
                self.process.wait(STOP_TIMEOUT)
            except subprocess.TimeoutExpired:
                self.kill()
        shutil.rmtree(self.directory, ignore_errors=True)

    def _signal(self, number: signal.Signals) -> None:
        assert self.process is not None
        self.process.send_signal(number)

    def _signal_children(self, number: signal.Signals) -> None:
        """PostgreSQL has a process for each connection."""
        assert self.process is not None
        for child in _children(self.process.pid):
            os.kill(child, number)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc_info: object) -> None:
        self.stop()


def _children(pid: int) -> list[int]:
    return list(map(int, Path(f"/proc/{pid}/task/{pid}/children").read_text().split()))


def _open_files(pid: int) -> set[str]:
    found = set()
    with suppress(OSError):  # it has ended
        for file in Path(f"/proc/{pid}/fd").iterdir():
            with suppress(OSError):  # closed meanwhile
                found.add(os.readlink(file))
    return found


def start(
    argv: Sequence[str],
    *,
    port: int,
    ready: Callable[[Server], bool] | None = None,
    directory: Path | None = None,
    user: str | None = None,
    environ: Mapping[str, str] | None = None,
    stop_signal: signal.Signals = signal.SIGTERM,
) -> Server:
    """Start a server in the foreground and return when `ready` says so (default: its port accepts connections).

    `directory` is its working directory (default: a new one); `user` runs it and owns that (PostgreSQL refuses root).
    """
    directory = directory or new_directory(user)
    server = Server(
        argv,
        port=port,
        ready=ready or (lambda server: accepts((server.host, server.port))),
        directory=directory,
        user=user,
        environ=environ,
        stop_signal=stop_signal,
    )
    try:
        return server.start()
    except BaseException:
        server.stop()
        raise


def new_directory(user: str | None = None) -> Path:
    """Make a new temporary directory of mode 0700, owned by `user` if that is given."""
    directory = Path(tempfile.mkdtemp(prefix="cachemw-test-"))
    if user is not None:
        shutil.chown(directory, user, pwd.getpwnam(user).pw_gid)
    return directory


_shared: dict[Callable[[], Any], Any] = {}


def shared(starter: Callable[[], Started]) -> Started:
    """Return what `starter()` starts, the same one for the whole run; it is stopped when the run ends."""
    _note_use()
    if starter not in _shared:
        _shared[starter] = starter()
        atexit.register(_shared[starter].stop)
    return cast(Started, _shared[starter])


# Redis


def redis_command(server: Server, *words: str | int | bytes) -> object:
    """Send one command over a new connection and return the reply as RESP2 has it: str, int, None, nested lists."""
    connection = _connect(host=server.host, port=server.port, socket_timeout=5, decode_responses=True, protocol=2)
    try:
        connection.send_command(*words)
        return connection.read_response()
    finally:
        connection.disconnect()


def redis_info(server: Server, section: str = "default") -> dict[str, str]:
    """Return the lines of INFO (of one section) by name."""
    lines = str(redis_command(server, "INFO", section)).splitlines()
    return dict(line.split(":", 1) for line in lines if ":" in line)


def _redis_answers(server: Server) -> bool:
    try:
        redis_command(server, "PING")
    except AuthenticationError:
        return True
    except RedisError:
        return False
    return True


def start_redis(
    *options: str,
    port: int | None = None,
    program: str = "redis-server",
    environ: Mapping[str, str] | None = None,
) -> Server:
    """Start one redis-server that keeps nothing on disk; `options` as on its command line (`--maxmemory`, `8mb`)."""
    program = require(program)
    port = port or free_port()
    argv = [
        program,
        "--port",
        str(port),
        "--bind",
        HOST,
        "--save",
        "",
        "--appendonly",
        "no",
        "--shutdown-timeout",
        "0",
        *options,
    ]
    return start(argv, port=port, ready=_redis_answers, environ=environ)


def start_valkey() -> Server:
    """Start one valkey-server in the same way."""
    return start_redis(program="valkey-server")


def _is_linked(replica: Server) -> bool:
    return redis_info(replica, "replication").get("master_link_status") == "up"


class _Several:
    """Several servers that are started and stopped as one."""

    servers: list[Server]

    def stop(self) -> None:
        for server in self.servers:
            server.stop()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc_info: object) -> None:
        self.stop()

    def __iter__(self) -> Iterator[Server]:
        return iter(self.servers)


class RedisReplication(_Several):
    """A leader and its replicas."""

    def __init__(self, replicas: int) -> None:
        self.leader = start_redis("--repl-diskless-sync-delay", "0")
        self.servers = [self.leader]
        try:
            for _ in range(replicas):
                self.servers.append(start_redis("--replicaof", HOST, str(self.leader.port)))
            self.replicas = self.servers[1:]
            for replica in self.replicas:
                until(functools.partial(_is_linked, replica), "the replica has its leader's data")
        except BaseException:
            self.stop()
            raise

    @property
    def location(self) -> list[str]:
        """URLs, the leader's first."""
        return [f"redis://{server.address}/0" for server in self.servers]


class RedisSentinel(RedisReplication):
    """A leader, its replicas, and three Sentinels that watch them under the name `service`."""

    service = "cachemw"

    def __init__(self) -> None:
        super().__init__(replicas=1)
        self.sentinels: list[Server] = []
        try:
            for _ in range(3):
                self.sentinels.append(self._start_sentinel())
            self.servers += self.sentinels
            until(self._is_complete, "the sentinels know each other and the replica")
        except BaseException:
            self.stop()
            raise

    @property
    def url(self) -> str:
        """`redis+sentinel://` URL of the service."""
        return f"redis+sentinel://{','.join(sentinel.address for sentinel in self.sentinels)}/{self.service}"

    def _start_sentinel(self) -> Server:
        port, directory = free_port(), new_directory()
        configuration = directory / "sentinel.conf"
        configuration.write_text(
            f"port {port}\nbind {HOST}\ndir {directory}\n"
            f"sentinel monitor {self.service} {HOST} {self.leader.port} 2\n"
            f"sentinel down-after-milliseconds {self.service} 500\n"
            f"sentinel failover-timeout {self.service} 3000\n"
        )
        argv = [require("redis-server"), str(configuration), "--sentinel"]
        return start(argv, port=port, directory=directory, ready=_redis_answers)

    def _is_complete(self) -> bool:
        for sentinel in self.sentinels:
            reply = redis_command(sentinel, "SENTINEL", "MASTER", self.service)
            assert isinstance(reply, list)
            facts = dict(zip(reply[::2], reply[1::2], strict=True))
            if (facts["num-other-sentinels"], facts["num-slaves"]) != ("2", "1"):
                return False
        return True


class RedisCluster(_Several):
    """Three leaders that share the 16384 slots, and a replica of each.

    node_timeout: milliseconds after which a silent leader is replaced; on a busy machine a short one loses live ones.
    """

    def __init__(self, node_timeout: int = 15_000) -> None:
        self.servers = []
        try:
            for port, bus in zip(*[iter(free_ports(12))] * 2, strict=True):
                options = [
                    "--cluster-enabled",
                    "yes",
                    "--cluster-port",
                    str(bus),
                    "--cluster-node-timeout",
                    str(node_timeout),
                ]
                self.servers.append(start_redis(*options, "--repl-diskless-sync-delay", "0", port=port))
            self.leaders, self.replicas = self.servers[:3], self.servers[3:]
            self._join()
        except BaseException:
            self.stop()
            raise

    def _join(self) -> None:
        first = self.leaders[0]
        for server, low, high in zip(self.leaders, (0, 5461, 10923), (5460, 10922, 16383), strict=True):
            redis_command(server, "CLUSTER", "ADDSLOTSRANGE", low, high)
        for epoch, server in enumerate(self.servers, 1):
            redis_command(server, "CLUSTER", "SET-CONFIG-EPOCH", epoch)
            bus = server.argv[server.argv.index("--cluster-port") + 1]
            redis_command(first, "CLUSTER", "MEET", HOST, server.port, bus)
        until(lambda: all(self._knows_all(server) for server in self.servers), "the nodes know each other")
        for leader, replica in zip(self.leaders, self.replicas, strict=True):
            redis_command(replica, "CLUSTER", "REPLICATE", self.node_id(leader))
        until(lambda: all(self.is_whole(server) for server in self.servers), "the cluster is whole")

    @staticmethod
    def node_id(server: Server) -> str:
        """The id that `server` has in the cluster."""
        return str(redis_command(server, "CLUSTER", "MYID"))

    def _knows_all(self, server: Server) -> bool:
        return "cluster_known_nodes:6" in str(redis_command(server, "CLUSTER", "INFO"))

    def is_whole(self, server: Server) -> bool:
        """Does `server` see all slots served, and has it its leader's data?"""
        facts = str(redis_command(server, "CLUSTER", "INFO"))
        linked = server in self.leaders or _is_linked(server)
        return "cluster_state:ok" in facts and "cluster_size:3" in facts and linked

    @property
    def url(self) -> str:
        """`redis+cluster://` URL that names the leaders."""
        return "redis+cluster://" + ",".join(server.address for server in self.leaders)


# Databases


def postgresql_url(server: Server, database: str = "cachemw") -> str:
    """The SQLAlchemy URL of a database of a server that `start_postgresql` started."""
    return f"postgresql://cachemw@{server.address}/{database}"


def mariadb_url(server: Server, database: str = "cachemw") -> str:
    """The SQLAlchemy URL of a database of a server that `start_mariadb` started."""
    return f"mariadb://cachemw:secret@{server.address}/{database}"


def _unprivileged() -> str | None:
    """Whom to run a server as that refuses root."""
    return "nobody" if os.geteuid() == 0 else None


def _run_in(directory: Path, user: str | None, *argv: str) -> None:
    done = subprocess.run(
        argv,
        cwd=directory,
        user=user,
        group=None if user is None else pwd.getpwnam(user).pw_gid,
        extra_groups=None if user is None else [],
        capture_output=True,
        text=True,
        check=False,
    )
    if done.returncode != 0:
        raise RuntimeError(f"{argv[0]} ended with status {done.returncode}:\n{done.stdout}{done.stderr}")


def start_postgresql(*options: str) -> Server:
    """Start a PostgreSQL without durability; its one role and one database are both "cachemw".

    `options` as on its command line (`-c`, `max_connections=5`).
    """
    programs = ["/usr/lib/postgresql/*/bin"]
    user, port = _unprivileged(), free_port()
    directory = new_directory(user)
    data = str(directory / "data")
    argv = [require("postgres", also_in=programs), "-D", data, "-p", str(port), "-h", HOST, "-k", str(directory), "-F"]
    initdb = [
        require("initdb", also_in=programs),
        "-D",
        data,
        "-U",
        "cachemw",
        "-A",
        "trust",
        "-E",
        "UTF8",
        "--no-sync",
    ]
    createdb = [require("createdb", also_in=programs), "-h", HOST, "-p", str(port), "-U", "cachemw", "cachemw"]

    def ready(server: Server) -> bool:
        return "ready to accept connections" in server.log and accepts((HOST, port))

    try:
        _run_in(directory, user, *initdb)
        # SIGINT: it does not wait for its clients to leave
        server = start(
            [*argv, *options], port=port, ready=ready, directory=directory, user=user, stop_signal=signal.SIGINT
        )
        _run_in(directory, user, *createdb)
    except BaseException:
        shutil.rmtree(directory, ignore_errors=True)
        raise
    return server


def start_pgbouncer(postgresql: Server, *, pool_mode: str) -> Server:
    """Start a PgBouncer before a PostgreSQL: one connection for all, by the "transaction" or by the "statement"."""
    user, port = _unprivileged(), free_port()
    directory = new_directory(user)
    configuration = directory / "pgbouncer.ini"
    configuration.write_text(f"""
[databases]
cachemw = host={postgresql.host} port={postgresql.port} dbname=cachemw user=cachemw
[pgbouncer]
listen_addr = {HOST}
listen_port = {port}
unix_socket_dir =
auth_type = any
pool_mode = {pool_mode}
default_pool_size = 1
""")
    configuration.chmod(0o644)
    argv = [require("pgbouncer"), str(configuration)]
    return start(argv, port=port, directory=directory, user=user)


def start_mariadb(*options: str) -> Server:
    """Start a MariaDB without durability; one account (cachemw:secret) and one database, "cachemw".

    `options` as on its command line (`--max-allowed-packet=1M`).
    """
    user, port = _unprivileged(), free_port()
    directory = new_directory(user)
    data, setup = f"--datadir={directory / 'data'}", directory / "setup.sql"
    setup.write_text(
        "CREATE DATABASE IF NOT EXISTS cachemw;\n"
        f"CREATE USER IF NOT EXISTS cachemw@'{HOST}' IDENTIFIED BY 'secret';\n"
        f"GRANT ALL ON *.* TO cachemw@'{HOST}';\n"
    )
    setup.chmod(0o644)
    install = [require("mariadb-install-db"), "--no-defaults", data, "--skip-test-db"]
    argv = [require("mariadbd"), "--no-defaults", data, f"--port={port}", f"--bind-address={HOST}"]
    argv += [f"--socket={directory / 'socket'}", f"--init-file={setup}", "--skip-name-resolve"]
    argv += ["--innodb-flush-log-at-trx-commit=0", "--innodb-buffer-pool-size=32M"]
    try:
        _run_in(directory, user, *install)
        return start([*argv, *options], port=port, directory=directory, user=user)
    except BaseException:
        shutil.rmtree(directory, ignore_errors=True)
        raise


# Memcached


def memcached_command(server: Server, command: bytes, end: bytes = b"\r\n") -> bytes:
    """Send one line (or more) over a new connection and return the reply up to and with `end`."""
    with socket.create_connection((server.host, server.port), timeout=5) as client:
        client.sendall(command + b"\r\n")
        reply = b""
        while not reply.endswith(end):
            piece = client.recv(65536)
            if not piece:
                raise ConnectionError(f"memcached at {server.address} hung up after {reply!r}")
            reply += piece
    return reply


def memcached_stats(server: Server) -> dict[str, str]:
    """Return the lines of `stats` by name (`cmd_get`, `total_connections`, …); this is itself one connection."""
    lines = memcached_command(server, b"stats", b"END\r\n").decode().splitlines()
    return dict(line.split(" ", 2)[1:] for line in lines[:-1])


def _memcached_answers(server: Server) -> bool:
    try:
        return memcached_command(server, b"version").startswith(b"VERSION")
    except OSError:
        return False


def start_memcached(*options: str, port: int | None = None, environ: Mapping[str, str] | None = None) -> Server:
    """Start one memcached; `options` as on its command line (`-m`, `8`, `-I`, `2m`)."""
    program = require("memcached")
    port = port or free_port()
    argv = [program, "-l", HOST, "-p", str(port), "-U", "0", "-t", "2", *options]
    if os.geteuid() == 0:
        argv += ["-u", "root"]  # it refuses to be root by accident
    ready = None if "-S" in options else _memcached_answers  # with SASL it understands the binary protocol alone
    return start(argv, port=port, ready=ready, environ=environ)


class MemcachedRing(_Several):
    """Three memcached servers."""

    def __init__(self) -> None:
        self.servers = []
        try:
            for _ in range(3):
                self.servers.append(start_memcached())
        except BaseException:
            self.stop()
            raise

    @property
    def location(self) -> list[str]:
        """`host:port` of each."""
        return [server.address for server in self.servers]
