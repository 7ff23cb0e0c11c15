"""Decoded pages of the file store: while a page's file is the one that was read, it is neither read nor decoded again.

Rule 1: the file is looked at for every request: one that is gone, another, or written to is noticed at once, whichever
process did it. What identifies it is its inode, its size and when its status last changed (`st_ctime`, which no program
can set).
Rule 2: of a page that is too large to be remembered, all but its body is; that is read from the file as it is sent.
Rule 3: nothing is remembered of a file that changed so lately that another change could bear the same time: file
systems keep time in ticks, on Linux of up to 10 ms, on some disks of up to 2 s.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from typing import Any, Final, NamedTuple

from cachemw._codec_recent import Recent
from cachemw.backends._file.large import FiledBody
from cachemw.backends._file.shards import open_for_reading
from cachemw.backends._footprint import footprint

__all__ = ["Decode", "DecodedPages", "clock"]

#: (key, payload) -> the record, None if the payload is damaged. One with a `body`, a `place` of that in the payload and
#: `replace` may be given another body, see `cachemw.rfc9111.bodies`.
Decode = Callable[[str, Any], Any]

#: Bytes of decoded pages that a process keeps, about.
_SIZE: Final = 8 * 1024 * 1024
#: Nanoseconds that a file has to have been as it is (rule 3).
_SETTLED: Final = 2_500_000_000


class _Page(NamedTuple):
    path: str
    signature: tuple[int, int, int]
    expires: float
    decode: Decode
    record: Any
    body: tuple[int, int] | None = None  # where it is in the file, and its length; None: in the record


def clock() -> int:
    """The time by which the kernel dates files, in nanoseconds; not `time.time`, which tests hold still."""
    return time.clock_gettime_ns(time.CLOCK_REALTIME)


def _signature(status: os.stat_result) -> tuple[int, int, int]:
    return status.st_ino, status.st_ctime_ns, status.st_size


class DecodedPages:
    """What this process remembers of the pages that it reads over and over, by their full keys.

    in_pieces: may large bodies be read as they are sent? Not where nobody trusts what has not been verified just now.
    """

    def __init__(self, *, in_pieces: bool) -> None:
        self._in_pieces = in_pieces
        self._recent: Recent[_Page] = Recent(_SIZE)
        self._known = self._recent.known

    def get(self, key: str, now: float, decode: Decode) -> Any:
        """The record of a live page whose file is as it was; None if that is not known. Raises: OSError."""
        page = self._known.get(key)
        if page is None:
            return None
        path, signature, expires, by, record, body = page
        if expires > now and by is decode:
            if body is not None:
                record = _opened(page, *body)
                if record is not None:
                    return record
            else:
                try:
                    if _signature(os.lstat(path)) == signature:
                        return record
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
        offset: int,
    ) -> None:
        """Remember what was read from a file, the second time that it is.

        began: `clock()` before `status` was asked for, which was before the file was read.
        offset: of the payload in the file.
        """
        signature = _signature(status)
        if began - status.st_ctime_ns > _SETTLED and self._recent.note(key, signature):
            page = _Page(path, signature, expires, decode, record)
            large = self._in_pieces and not self._recent.takes(footprint(page))
            if large and getattr(record, "place", None) is not None:
                body = offset + record.place, len(record.body)
                page = page._replace(record=record.replace(body=b""), body=body)
            self._recent.keep(key, page, footprint(page))


def _opened(page: _Page, offset: int, size: int) -> Any:
    """The record with its body as it stands in the file, for one response; None if that is another file by now."""
    descriptor = open_for_reading(page.path)
    if descriptor is None:
        return None
    body = FiledBody(descriptor, offset, size)  # who closes it
    return page.record.replace(body=body) if _signature(os.fstat(descriptor)) == page.signature else None
