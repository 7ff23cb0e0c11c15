"""How the examples are served: waitress for WSGI, uvicorn for ASGI, on one port of this machine."""

from __future__ import annotations

import os
import socket
import threading
from typing import Any

import uvicorn
from waitress.server import create_server

from cachemw.middleware import interface_of

__all__ = ["listen", "run", "serve_asgi", "serve_wsgi"]


def listen(port: int = 0) -> socket.socket:
    """A socket of 127.0.0.1 that holds requests back until its server has started; 0 is any free port."""
    return socket.create_server(("127.0.0.1", port), backlog=128)


def serve_wsgi(app: Any, listening: socket.socket) -> threading.Thread:
    """Serve with waitress in a thread that ends with the process."""
    server = create_server(app, sockets=[listening], threads=32)
    thread = threading.Thread(target=server.run, daemon=True)
    thread.start()
    return thread


def serve_asgi(app: Any, listening: socket.socket) -> threading.Thread:
    """Serve with uvicorn in a thread that ends with the process."""
    server = uvicorn.Server(uvicorn.Config(app, log_level="warning"))
    thread = threading.Thread(target=server.run, args=([listening],), daemon=True)
    thread.start()
    return thread


def run(app: Any, path: str = "/") -> None:
    """Serve an application of either kind until Ctrl-C, on port 8000 or the one that PORT names.

    path    of the page to begin with, whose address is printed
    """
    port = int(os.environ.get("PORT", "8000"))
    try:
        listening = listen(port)
    except OSError as error:
        reason = f"Port {port} cannot be had: {error.strerror}."
        raise SystemExit(f"{reason} PORT=8001 before the command takes another one.") from None
    print(f"http://127.0.0.1:{listening.getsockname()[1]}{path}", flush=True)
    serve = serve_asgi if interface_of(app) == "asgi" else serve_wsgi
    try:
        serve(app, listening).join()
    except KeyboardInterrupt:
        print()
