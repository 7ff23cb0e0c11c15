"""Decoded pages of the file store: while a page's file is the one that was read, it is neither read nor decoded again.

Rule 1: the file is looked at for every request: one that is gone, another, or written to is noticed at once, whichever
process did it. What identifies it is its inode, its size and when its status last changed (`st_ctime`, which no program
can set).
Rule 2: of a page whose body has a file of its own, all but the body is remembered.
Rule 3: nothing is remembered of a file that changed so lately that another change could bear the same time: file
systems keep time in ticks, on Linux of up to 10 ms, on some disks of up to 2 s.
"""

from __future__ import annotations

import os
import time
from typing import Any, Final, NamedTuple

from cachemw._codec_recent import Recent
from cachemw.backends._file.entry import Reference
from cachemw.backends._file.large import Bodies, FiledBody, Signature, signature
from cachemw.backends._footprint import footprint
from cachemw.backends._records import Decode

__all__ = ["DecodedPages", "clock"]

#: Bytes of decoded pages that a process keeps, about.
_SIZE: Final = 8 * 1024 * 1024
#: Nanoseconds that a file has to have been as it is (rule 3).
_SETTLED: Final = 2_500_000_000


class _Page(NamedTuple):
    path: str
    signature: Signature
    expires: float
    decode: Decode
    record: Any
    body: Reference | None  # where it has a file of its own; the record then has none


def clock() -> int:
    """The time by which the kernel dates files, in nanoseconds; not `time.time`, which tests hold still."""
    return time.clock_gettime_ns(time.CLOCK_REALTIME)


class DecodedPages:
    """What this process remembers of the pages that it reads over and over, by their full keys.

    What `decode` makes of an `Apart` has a `body` and `replace`.
    """

    def __init__(self, bodies: Bodies) -> None:
        self._bodies = bodies
        self._recent: Recent[_Page] = Recent(_SIZE)
        self._known = self._recent.known

    def get(self, key: str, now: float, decode: Decode) -> Any:
        """The record of a live page whose file is as it was; None if that is not known. Raises: OSError."""
        page = self._known.get(key)
        if page is None:
            return None
        path, stands, expires, by, record, reference = page
        if expires > now and by is decode:
            try:
                if signature(os.lstat(path)) == stands:
                    if reference is None:
                        return record
                    body = self._bodies.open(path, stands, reference, wait=False)
                    if isinstance(body, FiledBody):
                        return record.replace(body=body)
            except FileNotFoundError:
                pass
        self._recent.forget(key)
        return None

    def learn(
        self,
        key: str,
        path: str,
        began: int,
        status: os.stat_result,
        expires: float,
        decode: Decode,
        record: Any,
        body: Reference | None,
    ) -> None:
        """Remember what was read from a file, the second time that it is.

        began: `clock()` before `status` was asked for, which was before the file was read.
        body: where it has a file of its own.
        """
        stands = signature(status)
        if began - status.st_ctime_ns > _SETTLED and self._recent.note(key, stands):
            known = record if body is None else record.replace(body=b"")
            page = _Page(path, stands, expires, decode, known, body)
            self._recent.keep(key, page, footprint(page))
