"""One server process of the run: `python -m tests.conformance.serve INTERFACE POLICY ORIGIN_PORT`.

Prints its port and serves until it is told to stop. waitress and uvicorn with httptools are the servers that alter
least: both keep the application's Date (gunicorn replaces it), field lines, and unknown methods and statuses.
"""

from __future__ import annotations

import asyncio
import logging
import socket
import sys
from typing import Any

import uvicorn
from uvicorn.protocols.http import httptools_impl
from waitress.channel import HTTPChannel
from waitress.server import create_server
from waitress.task import WSGITask

from cachemw import asgi, wsgi
from cachemw.rfc9111.policy import Policy
from tests.conformance.proxy import asgi_gateway, wsgi_gateway

__all__ = ["POLICIES", "application"]

#: What a run is made of; "none" is the gateway alone, to see what the servers themselves do.
POLICIES = ("rfc9111", "default")


def application(interface: str, policy: str, origin_port: int) -> Any:
    """The gateway, wrapped in the cache under test."""
    gateway: Any = wsgi_gateway(origin_port) if interface == "wsgi" else asgi_gateway(origin_port)
    if policy == "none":
        return gateway
    options: dict[str, Any] = {"cache": "locmem://", "policy": Policy.rfc9111()}
    if policy == "default":
        # The lifetime that the default policy gives to a page which states none is off: the suite counts its reuse as
        # a fault (freshness-none) and asks nothing further of such a cache, for nearly every test builds on that one.
        options |= {"policy": Policy(), "seconds": 0}
    return wsgi.CacheMiddleware(gateway, **options) if interface == "wsgi" else asgi.CacheMiddleware(gateway, **options)


class _Task(WSGITask):
    """waitress chunks what has no Content-Length, and so ends a HEAD with a chunk: a body where none may be."""

    request: Any

    @property
    def has_body(self) -> bool:
        sized = any(name.lower() == "content-length" for name, _ in self.response_headers)
        return bool(super().has_body) and (sized or self.request.command != "HEAD")


class _Channel(HTTPChannel):
    task_class = _Task


def main(interface: str, policy: str, origin_port: str) -> None:
    app = application(interface, policy, int(origin_port))
    # the protocol named, for asyncio sets TCP_NODELAY only on sockets that say they are TCP
    listener = socket.socket(socket.AF_INET, socket.SOCK_STREAM, socket.IPPROTO_TCP)
    listener.bind(("127.0.0.1", 0))
    listener.listen(512)
    print(listener.getsockname()[1], flush=True)
    if interface == "wsgi":
        logging.getLogger("waitress").setLevel(logging.ERROR)  # it remarks on every request that waits for a thread
        server: Any = create_server(app, sockets=[listener], threads=16, connection_limit=1000, ident="")
        server.channel_class = _Channel
        server.run()
    else:
        # uvicorn ends at 599; the suite's origin answers 999 where it expected a conditional request
        httptools_impl.STATUS_LINE[999] = b"HTTP/1.1 999 304 Not Generated\r\n"
        config = uvicorn.Config(
            app, http="httptools", lifespan="off", date_header=False, server_header=False, log_level="critical"
        )
        asyncio.run(uvicorn.Server(config).serve(sockets=[listener]))


if __name__ == "__main__":
    main(*sys.argv[1:])
