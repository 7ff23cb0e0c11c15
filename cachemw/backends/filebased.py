"""FileBasedCache: entries as files of a local directory, bounded, for the processes of one machine.

Rule 1: reading is open, read, close; it takes no lock and writes nothing, but for removing what is expired or damaged.
Of a page that is read over and over the file is only looked at (`_file.pages`); of a large one the body is left to
whoever sends it (`_file.large`).
Rule 2: a value is replaced by renaming a complete file over it; readers have the old one or the new one, whole.
Rule 3: what changes an entry in view of what is there (`add`, `incr`, `touch`, `delete`) holds its shard's lock, and
so does `set`, lest one of those undo it.

A set costs a new file and a rename, some 80 µs, a get some 6 µs; for many small values SQLite is the better store.
Not for NFS, which has no such locks; nor for Windows.
"""

from __future__ import annotations

import errno
import os
import stat
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager, suppress
from typing import Any, ClassVar, Final

from cachemw._values import boolean, integer, refuse
from cachemw.backends._file import entry
from cachemw.backends._file.entry import Filed
from cachemw.backends._file.files import open_for_reading
from cachemw.backends._file.large import UNVERIFIED, Bodies, NewBody, Signature, signature
from cachemw.backends._file.pages import DecodedPages, clock
from cachemw.backends._file.reading import SPOILED, file_size, live_header, peek, read_entry, read_live, rewrite
from cachemw.backends._file.shards import Place, Shards
from cachemw.backends._file.sweep import Sweeper
from cachemw.backends._file.usage import make_directories
from cachemw.backends._quick import QuickReads
from cachemw.backends._records import Decode, payloads
from cachemw.backends.base import BlockingCache, Entry
from cachemw.codec import Apart
from cachemw.errors import BackendUnavailable

__all__ = ["FileBasedCache"]

#: Entries, where MAX_ENTRIES does not say.
_MAX_ENTRIES: Final = 100_000
#: Bytes, where MAX_BYTES does not say.
_MAX_BYTES: Final = 2**30
#: Bytes above which the body of a page has a file of its own.
_LARGE: Final = 2 * 2**20
_INT64: Final = range(-(2**63), 2**63)


class FileBasedCache(BlockingCache):
    """Entries as files, in 1024 directories below LOCATION.

    location: an absolute path (a string or `Path`) on a local file system; created with mode 0700 if it is missing.
    OPTIONS: `max_entries` (default 100 000), `max_bytes` (of the files; default 1 GiB, None: no bound) and
        `cull_frequency` (default 3: a third of the entries goes when the store is full, the expired and then the
        oldest first; 0: all of them). With several processes the bounds may be exceeded by 1 % for each.
        `inline_reads` (default True): tasks read on the event loop as long as that is quick, else in threads.

    Raises: ImproperlyConfigured if the directory is relative, or cannot be created or written; and if everybody may
        write to it and no SECRET is set, since its files are unpickled.
    """

    near = True
    option_names: ClassVar[frozenset[str] | None] = frozenset(
        {"max_entries", "max_bytes", "cull_frequency", "inline_reads"}
    )

    def __init__(
        self, location: str | os.PathLike[str] | Sequence[str], params: Mapping[str, Any] | None = None
    ) -> None:
        directory = _directory(location)
        super().__init__(directory, params)
        if self._seal is None and os.stat(directory).st_mode & stat.S_IWOTH:
            raise refuse(
                "LOCATION", directory, "a directory that not everybody may write to (chmod o-w), or set SECRET"
            )
        max_entries, frequency = self._cull_options(max_entries=_MAX_ENTRIES)
        given = self.options.get("max_bytes", _MAX_BYTES)
        self._max_bytes = None if given is None else integer("MAX_BYTES", given, minimum=1)
        self._reads = QuickReads(allowed=boolean("OPTIONS['inline_reads']", self.options.get("inline_reads", True)))
        self._mapped = _Mapped(directory)
        self._bodies = Bodies()
        self._decoded = DecodedPages(self._bodies)
        if not self.secrets:  # what is signed is verified as a whole, each time, by whoever has read it
            vars(self)["bodies_apart"] = _LARGE
        self._shards = Shards(directory)
        self._sweeper = Sweeper(self._shards, max_entries=max_entries, max_bytes=self._max_bytes, frequency=frequency)

    # -- reading -------------------------------------------------------------------------------------------------

    def _get(self, keys: Sequence[str]) -> dict[str, Any]:
        with self._mapped:
            return self._read_all(keys, verify=True)

    async def _aget(self, keys: Sequence[str]) -> dict[str, Any]:
        return await self._reads.run(self._get, keys)

    def read_records(self, keys: Sequence[str]) -> list[Any]:
        """See `BaseCache.read_records`. A page has a checksum of its own, so that the file's is not worked out."""
        made = [self.page_key(key) for key in keys]
        with self._mapped:
            found = self._read_all(made, verify=False)
        return payloads(made, found)

    async def aread_records(self, keys: Sequence[str]) -> list[Any]:
        """See `read_records`."""
        return await self._reads.run(self.read_records, keys)

    def read_decoded(self, keys: Sequence[str], decode: Decode) -> list[Any]:
        """The records that `decode(key, payload)` makes of the payloads, None where there is none: a page's hit.

        What is asked for often is remembered, and only its file looked at. Raises: BackendUnavailable.
        """
        now = time.time()
        known = self._decoded.get
        with self._mapped:
            return [known(key, now, decode) or self._decode_page(key, now, decode) for key in keys]

    async def aread_decoded(self, keys: Sequence[str], decode: Decode) -> list[Any]:
        """See `read_decoded`."""
        return await self._reads.run(self.read_decoded, keys, decode, at_once=self._read_quickly)

    def _read_quickly(self, keys: Sequence[str], decode: Decode) -> list[Any] | None:
        """`read_decoded`, unless a large body is to be read for that: its first time in this process."""
        now = time.time()
        known = self._decoded.get
        found = []
        with self._mapped:
            for key in keys:
                record = known(key, now, decode) or self._decode_page(key, now, decode, wait=False)
                if record is UNVERIFIED:
                    return None
                found.append(record)
        return found

    def _decode_page(self, key: str, now: float, decode: Decode, *, wait: bool = True) -> Any:
        """A page's record from its file; UNVERIFIED if that takes a wait, and none is allowed."""
        place = self._shards.place(self.page_key(key))
        began = clock()
        descriptor = open_for_reading(place.path)
        if descriptor is None:
            return None
        try:
            status = os.fstat(descriptor)
            found = read_live(descriptor, place, now, verify=False)
        finally:
            os.close(descriptor)
        if found is None:
            return None
        if found is SPOILED:
            payload = self._read_again(place, now, verify=False)
            return None if payload is None or type(payload) is int else decode(key, payload)
        payload, expires = found
        reference = None
        if type(payload) is Filed:
            reference = payload.reference
            payload = self._with_body(place, payload, signature(status), wait=wait)
            if payload is UNVERIFIED:
                return UNVERIFIED
        record = None if type(payload) is int else decode(key, payload)
        if record is not None:
            self._decoded.learn(key, place.path, began, status, expires, decode, record, reference)
        return record

    def _with_body(self, place: Place, value: Filed, stands: Signature | None = None, *, wait: bool = True) -> Any:
        """A page with its body, as `Bodies.open`. What lacks its body is of no use to anybody: it is removed."""
        body = self._bodies.open(place.path, stands, value.reference, wait=wait)
        if body is None and (newer := self._read_bodiless(place, value)) is not None:
            value, body = newer, self._bodies.open(place.path, None, newer.reference, wait=wait)
        return UNVERIFIED if body is UNVERIFIED else Apart(value.page, body)

    def _read_bodiless(self, place: Place, value: Filed) -> Filed | None:
        """Look once more at an entry whose body was not there; it is removed, unless another is there by now: that."""
        with suppress(TimeoutError, FileNotFoundError), self._shards.locked(place.shard, wait=False) as directory:
            found = read_entry(place, time.time(), verify=False)
            if found == value:
                self._shards.remove_entry(directory, place)
            elif type(found) is Filed:
                return found
        return None

    def _has(self, key: str) -> bool:
        with self._mapped:
            return peek(self._shards.place(key), time.time()) is not None

    def _timeout_left(self, key: str) -> float | None:
        now = time.time()
        with self._mapped:
            header = peek(self._shards.place(key), now)
        if header is None:
            return 0.0
        return None if header.expires == entry.FOREVER else header.expires - now

    def _read_all(self, keys: Sequence[str], *, verify: bool) -> dict[str, Any]:
        now = time.time()
        found: dict[str, Any] = {}
        for key in keys:
            place = self._shards.place(key)
            value = read_entry(place, now, verify=verify)
            if value is SPOILED:
                value = self._read_again(place, now, verify=verify)
            elif type(value) is Filed:
                value = self._with_body(place, value)
            if value is not None:
                found[key] = value
        return found

    def _read_again(self, place: Place, now: float, *, verify: bool) -> Any:
        """Look at an expired or damaged entry once more, under the lock, and remove it if it still is.

        It may have been replaced since, or its header may have been caught half written. Where another has the lock
        nothing is removed: a reader does not wait.
        """
        try:
            with self._shards.locked(place.shard, wait=False) as directory:
                value = read_entry(place, now, verify=verify)
                if value is SPOILED:
                    self._shards.remove_entry(directory, place)
        except (TimeoutError, FileNotFoundError):
            value = read_entry(place, now, verify=verify)
        return self._with_body(place, value) if type(value) is Filed else None if value is SPOILED else value

    # -- writing -------------------------------------------------------------------------------------------------

    def _set(self, entries: Sequence[Entry]) -> list[str]:
        with self._mapped:
            return [key for key, value, timeout in entries if not self._store(key, value, timeout)]

    def _add(self, key: str, value: Any, timeout: float | None) -> bool:
        with self._mapped:
            place = self._shards.place(key)
            return peek(place, time.time()) is None and self._store(key, value, timeout, replace=False)

    def _store(self, key: str, value: Any, timeout: float | None, *, replace: bool = True) -> bool:
        """Store one entry (unless there is one that lives, if not `replace`); was it stored?"""
        place = self._shards.place(key)
        number, data = (value, b"") if type(value) is int else (None, value)
        body = None
        if type(value) is Apart:
            body = NewBody(value.body)
            data = entry.pack_filed(Filed(body.reference, value.payload))
        expires = entry.FOREVER if timeout is None else time.time() + timeout
        crc = entry.checksum(data)
        head = entry.pack(place.key, expires=expires, number=number, size=len(data), crc=crc, is_filed=body is not None)
        size = len(head) + len(data) + (0 if body is None else body.reference.size)
        if self._max_bytes is not None and size > self._max_bytes:
            if replace:
                self._remove_one(place)
            return False
        old = file_size(place.path)
        culled = self._sweeper.admit(entries=1 if old is None else 0, size=size - (old or 0))
        if culled and old is not None and file_size(place.path) is None:  # what it was to replace is gone
            self._sweeper.admit(entries=1, size=size)
        if culled and body is not None and not self._sweeper.recount(0, size):  # what is in use stays for a while
            if replace:
                self._remove_one(place)
            return False
        try:
            return self._write(place, (head, data), body, over=old is not None, replace=replace)
        except FileNotFoundError:  # the directory was removed while we wrote there: once more, in a new one
            return self._write(place, (head, data), body, over=False, replace=replace)
        except OSError as error:
            if error.errno in (errno.ENOSPC, errno.EDQUOT):
                self._sweeper.cull(disk_full=True)  # too late for this entry, but the next one finds room
            raise

    def _write(
        self, place: Place, parts: tuple[bytes, bytes], body: NewBody | None, *, over: bool, replace: bool
    ) -> bool:
        shards = self._shards
        temporaries: list[str] = []
        with shards.opened(place.shard, create=True) as directory:
            try:
                if body is not None:
                    temporaries.append(body.create(shards, directory))
                temporaries.append(shards.create(directory, parts, allocate=over))
                with shards.lock(directory):
                    if replace or peek(place, time.time()) is None:
                        size = len(parts[0]) + len(parts[1])
                        filed = None if body is None else (temporaries[0], body.reference)
                        shards.publish(directory, temporaries[-1], place, size, filed)
                        return True
            except BaseException:
                shards.remove(directory, *temporaries)
                raise
            shards.remove(directory, *temporaries)
        return False

    def _touch(self, key: str, timeout: float | None) -> bool:
        now = time.time()
        with self._mapped, self._updating(key, now) as (descriptor, place, header):
            if header is not None:
                expires = entry.FOREVER if timeout is None else now + timeout
                rewrite(descriptor, place, header._replace(expires=expires))
            return header is not None

    def _incr(self, key: str, delta: int) -> int:
        with self._mapped, self._updating(key, time.time()) as (descriptor, place, header):
            if header is None:
                raise KeyError(key)
            if header.number is None:
                raise TypeError(f"the value of {key!r} is not an integer")
            total = header.number + delta
            if total not in _INT64:
                raise OverflowError(f"{total} has more than 64 bits")
            rewrite(descriptor, place, header._replace(number=total))
            return total

    @contextmanager
    def _updating(self, key: str, now: float) -> Iterator[tuple[int, Place, entry.Header | None]]:
        """The open file of a live entry and its header, to be rewritten while its shard's lock is held."""
        place = self._shards.place(key)
        with ExitStack() as stack:
            descriptor = None
            with suppress(FileNotFoundError):  # there is no such shard
                stack.enter_context(self._shards.locked(place.shard))
                descriptor = open_for_reading(place.path, update=True)
            if descriptor is None:
                yield -1, place, None
            else:
                stack.callback(os.close, descriptor)
                yield descriptor, place, live_header(descriptor, place, now)

    def _delete(self, keys: Sequence[str]) -> int:
        with self._mapped:
            return sum(self._remove_one(self._shards.place(key)) for key in keys)

    def _remove_one(self, place: Place) -> bool:
        """Remove an entry; was it there, alive?"""
        with suppress(FileNotFoundError), self._shards.locked(place.shard) as directory:
            header = peek(place, time.time())
            self._shards.remove_entry(directory, place, has_body=header is None or header.is_filed)
            return header is not None
        return False

    def _clear(self) -> None:
        with self._mapped:
            for shard in self._shards.existing():
                with suppress(FileNotFoundError), self._shards.locked(shard) as directory:
                    self._shards.scan(directory, shard, entry.FOREVER)


class _Mapped:
    """The one place where the disk's errors become BackendUnavailable."""

    def __init__(self, directory: str) -> None:
        self._directory = directory

    def __enter__(self) -> None:
        return None

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: object) -> None:
        if isinstance(error, OSError):
            raise BackendUnavailable(f"The cache directory {self._directory!r} does not work: {error}") from error


def _directory(location: object) -> str:
    """LOCATION as the absolute path of a directory that exists and can be written."""
    allowed = "the absolute path of a directory that this process may create, read and write"
    if not isinstance(location, str | os.PathLike):
        raise refuse("LOCATION", location, allowed)
    path = os.fspath(location)
    if not isinstance(path, str) or not os.path.isabs(path) or "\0" in path:
        raise refuse("LOCATION", location, allowed)
    path = os.path.normpath(path)
    if not path.strip("/"):  # a URL without its path, most likely: nothing of ours belongs there
        raise refuse("LOCATION", path, "the path of a directory of the cache's own, not the root directory")
    try:
        make_directories(path)
    except OSError as error:
        raise refuse("LOCATION", path, f"{allowed} ({error})") from error
    if not os.path.isdir(path) or not os.access(path, os.R_OK | os.W_OK | os.X_OK):
        raise refuse("LOCATION", path, allowed)
    return path
