"""Breaker and Recovery: a store that fails is left alone, and somebody else than a visitor asks whether it is back.

Rule 1: an outage costs a request one look at a flag; none waits to find out whether it is over.
Rule 2: while it lasts, one attempt a second, by a thread that ends when nobody is interested any more.
Rule 3: one log record per breaker and minute, however often it fails.
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Sequence
from typing import Final

from cachemw._forks import Forkable
from cachemw._threads import begin

__all__ = ["PERIOD", "Breaker", "Recovery"]

log = logging.getLogger("cachemw")

FAILURES: Final = 5  # in a row; then the breaker opens
SLOW: Final = 0.05  # seconds; a failure that took longer (a time-out) opens it at once
PERIOD: Final = 1.0  # seconds from one attempt to the next
PATIENCE: Final = 1.0  # seconds that an attempt may be overdue before a request makes it: threads may not run (uWSGI)
WINDOW: Final = 60.0  # seconds; one log record per breaker and window


class Breaker(Forkable):
    """Open while a store fails: requests then pass it by.

    name: what fails, and users: who does without it, for the log. `asked` are the keys that it failed for: a cluster
    may lack some of them only.
    """

    def __init__(self, name: str, users: str = "pages") -> None:
        self.name = name
        self.users = users
        self.open = False
        self.opened = 0.0  # when it last did, by `time.time`
        self.failures = 0
        self.asked: Sequence[str] = ()
        self._next_log = 0.0
        self._unlogged = 0
        self._logged = False  # the log has said that it fails, and not yet that it works again
        super().__init__()

    def _reset(self) -> None:
        self._lock = threading.Lock()

    def succeeded(self) -> None:
        """The store answered."""
        if not self.failures and not self.open:
            return
        with self._lock:
            was_open, self.open, self.failures = self.open, False, 0
            told = was_open and self._logged
            self._logged = self._logged and not told
        if told:
            log.warning("%s works again", self.name)

    def failed(self, error: BaseException, began: float, asked: Sequence[str] = (), *, blameless: bool = False) -> None:
        """The store did not answer, or refused; `began` is when it was asked (`time.monotonic`), `asked` for what.

        blameless: what it was asked is at fault, unless that took long; it is logged, and the breaker stays as it is.
        """
        now = time.monotonic()
        with self._lock:
            self._unlogged += 1
            self.asked = asked
            if now - began > SLOW or not blameless:
                self.failures += 1
                if not self.open and (self.failures >= FAILURES or now - began > SLOW):
                    self.open, self.opened = True, time.time()
            if now < self._next_log:
                return
            self._next_log = now + WINDOW
            self._logged = True
            count, self._unlogged = self._unlogged, 0
        report = "%s fails (%d times since the last report); %s do without: %r"
        log.warning(report, self.name, count, self.users, error)


class Recovery(Forkable):
    """Makes attempts, one a second, while somebody is interested.

    attempt: does what has to be done before the store is used again, as far as that is possible now. It returns
    whether it has to be called again even if nobody asks, and does not raise.
    """

    def __init__(self, attempt: Callable[[], bool]) -> None:
        self._attempt = attempt
        self._next = 0.0
        self._asked = False
        super().__init__()

    def _reset(self) -> None:
        self._lock = threading.Lock()  # who holds it sets or unsets the thread
        self._at_work = threading.Lock()  # who holds it makes the attempt
        self._thread: threading.Thread | None = None

    def wanted(self, *, may_block: bool = False) -> None:
        """There is something to attempt. may_block: the caller may make the attempt if no thread does."""
        self._asked = True
        if self._thread is None:
            self._start()
        if may_block and time.monotonic() > self._next + PATIENCE:
            self._try()

    def _start(self) -> None:
        thread = threading.Thread(target=self._run, name="cachemw-recovery", daemon=True)
        with self._lock:
            if self._thread is not None:
                return
            self._thread = thread
            last, self._next = self._next, max(self._next, time.monotonic())
        # Not under the lock: under gunicorn's --preload gevent comes late, the lock is one of threads, and who starts
        # the thread, a greenlet by then, lets others run, of whom the next one would stop the process.
        try:
            begin(thread)
        except RuntimeError:  # no thread is to be had, or the interpreter shuts down
            self._thread, self._next = None, last

    def _run(self) -> None:
        while True:
            time.sleep(max(0.0, self._next - time.monotonic()))
            self._asked = False
            more = self._try()
            with self._lock:
                if not more and not self._asked:
                    self._thread = None
                    return

    def _try(self) -> bool:
        if not self._at_work.acquire(blocking=False):
            return True
        try:
            self._next = time.monotonic() + PERIOD
            return self._attempt()
        finally:
            self._at_work.release()
