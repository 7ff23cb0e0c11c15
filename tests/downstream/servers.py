"""nginx and Varnish with the configurations that the manual gives, a site behind them, and one clock for all three.

Time passes only when a test says so: the clock (`clock.c`) is preloaded into every server.
"""

from __future__ import annotations

import mmap
import re
import shutil
import subprocess
from collections.abc import Mapping
from pathlib import Path
from typing import Final, Self

from tests.manual import blocks
from tests.servers import Server, free_port, new_directory, require, start
from tests.serving import ROOT, WSGI_SERVERS, serve

__all__ = ["DOWNSTREAM", "Clock", "start_nginx", "start_site", "start_varnish"]

MANUAL: Final = ROOT / "docs" / "downstream.md"
DOWNSTREAM: Final = ("nginx", "varnish")

#: Around what the manual shows of nginx: nothing of it is outside of the server's own directory.
_NGINX: Final = """
daemon off;
master_process off;
pid nginx.pid;
events {{ worker_connections 256; }}
http {{
    access_log off;
    client_body_temp_path body;
    proxy_temp_path proxy;
    fastcgi_temp_path fastcgi;
    uwsgi_temp_path uwsgi;
    scgi_temp_path scgi;
    {shown}
}}
"""


class Clock:
    """The time of the servers that were started with its `environ`, which a test advances."""

    def __init__(self) -> None:
        self._directory = new_directory()
        library, now = self._directory / "clock.so", self._directory / "now"
        source = Path(__file__).with_name("clock.c")
        subprocess.run(
            [require("cc"), "-shared", "-fPIC", "-O2", "-Wall", "-Wextra", "-Werror", "-o", library, source], check=True
        )
        now.write_bytes(bytes(8))
        with now.open("r+b") as file:
            self._now = mmap.mmap(file.fileno(), 8)
        self.environ: Mapping[str, str] = {"LD_PRELOAD": str(library), "TEST_CLOCK": str(now)}

    def advance(self, seconds: float) -> None:
        """So many seconds pass, for all servers at once."""
        ahead = int.from_bytes(self._now[:], "little") + round(seconds * 1e9)
        self._now[:] = ahead.to_bytes(8, "little")

    def stop(self) -> None:
        """Remove its directory; the servers have ended."""
        self._now.close()
        shutil.rmtree(self._directory)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc_info: object) -> None:
        self.stop()


def _shown(kind: str, ports: Mapping[str, int]) -> str:
    """What the manual shows of this kind, with our ports in place of its own."""
    (text,) = (block.text for block in blocks(MANUAL) if block.kind == kind)
    return re.sub(rf"\b({'|'.join(ports)})\b", lambda port: str(ports[port[0]]), text)


def start_site(kind: str, clock: Clock) -> Server:
    """The site of `tests.downstream.site` under the server `kind`."""
    app = f"tests.downstream.site:{'wsgi' if kind in WSGI_SERVERS else 'asgi'}_app"
    # uvicorn's own Date is up to a second old, by a clock that does not jump
    return serve(kind, app, environ={**clock.environ, "UVICORN_DATE_HEADER": "false"})


def start_nginx(site: Server, clock: Clock) -> Server:
    """nginx before the site."""
    program, port, directory = require("nginx"), free_port(), new_directory()
    (directory / "nginx.conf").write_text(_NGINX.format(shown=_shown("nginx", {"8080": port, "8000": site.port})))
    argv = [program, "-p", str(directory), "-c", "nginx.conf", "-e", "stderr"]
    return start(argv, port=port, directory=directory, environ=clock.environ)


def start_varnish(site: Server, clock: Clock) -> Server:
    """Varnish before the site."""
    program, port, directory = require("varnishd"), free_port(), new_directory()
    (directory / "site.vcl").write_text(_shown("vcl", {"8000": site.port}))
    argv = [program, "-F", "-j", "none", "-n", str(directory / "run"), "-f", str(directory / "site.vcl")]
    argv += ["-a", f"127.0.0.1:{port}", "-T", "none", "-s", "malloc,16m", "-p", "thread_pools=1"]
    return start(argv, port=port, directory=directory, environ=clock.environ)
