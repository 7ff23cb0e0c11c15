"""What a client makes in its own time, within ours: no option of its own covers the look-up of a name, for one."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import Future
from ipaddress import ip_address
from threading import Thread
from typing import Any, Final, TypeVar

from cachemw._threads import begin

__all__ = ["PARTS", "await_result", "is_looked_up", "within"]

T = TypeVar("T")

#: A time limit is waited for in so many parts.
PARTS: Final = 8


def is_looked_up(host: str) -> bool:
    """Is it a name that a server of names is asked for, and no address?"""
    try:
        ip_address(host)
    except ValueError:
        return host != "localhost"
    return False


def within(seconds: float, make: Callable[[], T], end: Callable[[T], object]) -> T:
    """What `make` makes in a thread of its own; should that take longer, its `end` comes when it is made.

    Raises: what `make` raises; TimeoutError; OSError if no thread is to be had.
    """
    future: Future[T] = Future()

    def work() -> None:
        try:
            made = make()
        except BaseException as error:
            if future.set_running_or_notify_cancel():
                future.set_exception(error)
        else:
            if future.set_running_or_notify_cancel():
                future.set_result(made)
            else:
                end(made)  # too late

    try:
        begin(Thread(target=work, daemon=True, name="cachemw-connect"))
    except RuntimeError as error:  # no thread is to be had, or the interpreter shuts down
        raise OSError(f"no connection: {error}") from error
    try:
        result: T = await_result(future, seconds)
        return result
    except BaseException as error:  # a signal's handler and a greenlet's time-out may raise anything
        late = isinstance(error, TimeoutError)
        if future.cancel():
            if late:
                raise TimeoutError(f"no connection within {seconds:g} s") from None
            raise
        if late:  # just in time, or its own
            return future.result()
        if future.exception() is None:
            end(future.result())
        raise


def await_result(future: Future[Any], seconds: float) -> Any:
    """What another thread makes. Raises: TimeoutError; a part of the time counts once, however late that is noticed."""
    for _ in range(PARTS - 1):
        try:
            return future.result(seconds / PARTS)
        except TimeoutError:
            if future.done():
                break  # its own
    return future.result(seconds / PARTS)
