"""Hearing of every change of a Redis server's keys: CLIENT TRACKING in broadcast mode, on a connection of its own.

Rule 1: whoever listens may trust what he keeps only while `ready` is true: it is false before the first and after the
last moment in which every change is heard of, and `on_flush` is called between the two.
Rule 2: silence is no proof: a server that says nothing for a second is asked for a sign of life.
One daemon thread per process; it starts with the first `start` after a fork too.
"""

from __future__ import annotations

import contextlib
import socket
import threading
import weakref
from collections.abc import Callable
from typing import Any, Final

from cachemw._threads import begin
from cachemw.backends._redis.wire import CLIENT_ERRORS, INCOMPLETE, PushNotification, ReplyError, new_reader, pack
from cachemw.errors import BackendUnavailable

__all__ = ["Invalidations"]

#: Seconds of silence after which the server is asked whether it is there.
_HEARTBEAT: Final = 1.0

#: Seconds between two attempts to connect.
_PAUSE: Final = 0.25

_PING: Final = pack(("PING",))

_BUFFER_SIZE: Final = 65536


class _UnsupportedError(Exception):
    """The server knows no tracking, or does not allow it."""


class Invalidations:
    """Listens for changes of keys.

    connect: gives a connection of redis-py's, connected, to the leader.
    prefix: what the keys begin with; empty: all keys.
    on_keys: called with the keys that changed (as text); on_flush: all may have changed. Both in the thread; methods,
        which are kept weakly: the thread ends when their object is gone.
    timeout: seconds for a sign of life.
    """

    def __init__(
        self,
        connect: Callable[[], Any],
        prefix: str,
        *,
        on_keys: Callable[[list[str]], None],
        on_flush: Callable[[], None],
        timeout: float,
    ) -> None:
        #: Is every change heard of?
        self.ready = False
        #: Does the server know how to tell? None: not yet known.
        self.supported: bool | None = None
        self._connect = connect
        self._subscription = pack(("CLIENT", "TRACKING", "ON", "BCAST", *(("PREFIX", prefix) if prefix else ())))
        self._on_keys = weakref.WeakMethod(on_keys)
        self._on_flush = weakref.WeakMethod(on_flush)
        self._timeout = timeout
        # reentrant: a finalizer or a signal handler may use the cache at any point of this thread's own work
        self._lock = threading.RLock()
        self._thread: threading.Thread | None = None
        self._ending = threading.Event()
        self._socket: socket.socket | None = None

    def start(self) -> None:
        """Begin to listen, unless that was done; `ready` says when."""
        if self._thread is not None or self.supported is False:
            return
        ending = threading.Event()
        thread = threading.Thread(target=self._run, args=(ending,), name="cachemw-redis-invalidations", daemon=True)
        with self._lock:
            if self._thread is None:
                self._thread, self._ending = thread, ending
                try:
                    begin(thread)
                except RuntimeError:  # no thread is to be had, or the interpreter shuts down
                    self._thread = None

    def end(self) -> None:
        """Their object is gone: let the thread see it. Takes no lock: the garbage collector calls this anywhere."""
        self._hang_up()

    def stop(self) -> None:
        """End the thread, and wait until it has; `start` begins anew."""
        with self._lock:
            thread, self._thread = self._thread, None
            self._ending.set()
        if thread is not None:
            while thread.is_alive():  # it may not have had a connection to close yet
                self._hang_up()
                thread.join(_PAUSE)

    def forget(self) -> None:
        """After a fork: the thread and its connection are the parent's."""
        self.ready = False
        self._lock = threading.RLock()
        self._thread = None
        self._socket = None

    def _run(self, ending: threading.Event) -> None:
        while not ending.is_set() and self._on_flush() is not None:
            try:
                self._listen(ending)
            except _UnsupportedError:
                self.supported = False
                return
            except (*CLIENT_ERRORS, BackendUnavailable):
                ending.wait(_PAUSE)

    def _listen(self, ending: threading.Event) -> None:
        connection = self._connect()
        try:
            if connection.get_protocol() != 3:
                raise _UnsupportedError("messages come in RESP3 only")
            self._socket = connection._sock
            self._follow(connection._sock, ending)
        finally:
            self._socket = None
            self.ready = False
            self._tell_all_changed()
            connection.disconnect()

    def _follow(self, channel: socket.socket, ending: threading.Event) -> None:
        reader: Any = new_reader()  # typed without the buffers that it takes
        buffer = bytearray(_BUFFER_SIZE)
        asked = True
        channel.settimeout(self._timeout)
        channel.sendall(self._subscription)
        while not ending.is_set():
            try:
                size = channel.recv_into(buffer)
            except TimeoutError:
                if asked:
                    raise
                asked = True
                channel.settimeout(self._timeout)
                channel.sendall(_PING)
                continue
            if not size:
                raise ConnectionResetError("the server closed the connection")
            if asked:
                asked = False
                channel.settimeout(_HEARTBEAT)
            reader.feed(buffer, 0, size)
            while (reply := reader.gets()) is not INCOMPLETE:
                self._hear(reply)

    def _hear(self, reply: Any) -> None:
        if type(reply) is ReplyError:
            if str(reply).startswith(("LOADING", "MASTERDOWN")):
                raise ConnectionResetError(str(reply))
            raise _UnsupportedError(str(reply))
        if type(reply) is not PushNotification:
            if not self.ready:  # the OK to the subscription; later ones are signs of life
                self._tell_all_changed()
                self.supported = self.ready = True
        elif reply[0] == b"invalidate":
            if reply[1] is None:  # FLUSHALL
                self._tell_all_changed()
            elif (on_keys := self._on_keys()) is not None:
                on_keys([key.decode(errors="replace") for key in reply[1]])

    def _tell_all_changed(self) -> None:
        if (on_flush := self._on_flush()) is not None:
            on_flush()

    def _hang_up(self) -> None:
        if (channel := self._socket) is not None:
            with contextlib.suppress(OSError):
                channel.shutdown(socket.SHUT_RDWR)
