"""Wire: a TCP proxy before a server that does to the replies what networks and broken servers do to them."""

from __future__ import annotations

import contextlib
import random
import socket
import socketserver
import threading
from typing import Any, Literal, Self

__all__ = ["Fault", "Wire"]

#: pass; slow: each reply half a second late; cut: it ends in its middle, and the connection too; garbage: random bytes
#: in its place; silent: none comes
Fault = Literal["pass", "slow", "cut", "garbage", "silent"]

DELAY = 0.5  # seconds


class Wire:
    """Listens on a port of its own and passes on what comes to `target`; `fault` may change at any time.

    `turns` counts how often a client spoke after it had been spoken to: the round trips of one that waits for replies.
    """

    def __init__(self, target: tuple[str, int]) -> None:
        self.fault: Fault = "pass"
        self.turns = 0
        self._answered = True
        self._target = target
        self._ending = threading.Event()
        self._sockets: list[socket.socket] = []
        wire = self

        class Handler(socketserver.BaseRequestHandler):
            def handle(self) -> None:
                wire._carry(self.request)

        class Listener(socketserver.ThreadingTCPServer):
            daemon_threads = True
            allow_reuse_address = True
            request_queue_size = 128

            def handle_error(self, request: Any, client_address: Any) -> None:
                """Connections break here all the time."""

        self._listener = Listener(("127.0.0.1", 0), Handler)
        self.port = int(self._listener.server_address[1])
        self.address = f"127.0.0.1:{self.port}"
        self._thread = threading.Thread(target=self._listener.serve_forever, kwargs={"poll_interval": 0.01})

    def _carry(self, client: socket.socket) -> None:
        with socket.create_connection(self._target, timeout=5) as server:
            server.settimeout(None)
            for one in (client, server):
                one.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
                self._sockets.append(one)
            asking = threading.Thread(target=self._pump, args=(client, server), daemon=True)
            asking.start()
            with contextlib.suppress(OSError):
                while data := server.recv(65536):
                    if not self._reply(client, data):
                        break
            for one in (client, server):
                with contextlib.suppress(OSError):
                    one.shutdown(socket.SHUT_RDWR)
            asking.join()

    def _pump(self, source: socket.socket, target: socket.socket) -> None:
        with contextlib.suppress(OSError):
            while data := source.recv(65536):
                self.turns += self._answered
                self._answered = False
                target.sendall(data)
        with contextlib.suppress(OSError):
            target.shutdown(socket.SHUT_WR)

    def _reply(self, client: socket.socket, data: bytes) -> bool:
        """Send a reply as the fault has it; False if that ends the connection."""
        fault = self.fault
        self._answered = True
        if fault == "silent":
            return True
        if fault == "slow":
            self._ending.wait(DELAY)
        elif fault == "cut":
            client.sendall(data[: len(data) // 2])
            return False
        elif fault == "garbage":
            data = random.Random(len(data)).randbytes(max(len(data), 16))
        client.sendall(data)
        return True

    def hang_up(self) -> None:
        """Close all connections."""
        for one in self._sockets:
            with contextlib.suppress(OSError):
                one.shutdown(socket.SHUT_RDWR)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *exc_info: object) -> None:
        self._ending.set()
        self._listener.shutdown()
        self.hang_up()
        self._listener.server_close()
        self._thread.join()
