"""Copying: the body of an answer is copied as it passes, and stored when it is whole.

Rule 1: only a body that ended as it should is stored. If more comes after all, what was stored is removed.
"""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from types import MappingProxyType
from typing import TYPE_CHECKING

from cachemw._relay_carriers import ThreadRelay
from cachemw._wsgi.noticed import Witness
from cachemw.rfc9111.messages import Record

if TYPE_CHECKING:
    from _typeshed.wsgi import WSGIEnvironment

__all__ = ["Copying"]


class Copying(ThreadRelay):
    """The part of a passage that copies and stores the body."""

    environ: WSGIEnvironment

    # What holds until something else is known: attributes of the class, so that a passage sets only a few.
    place: Mapping[str, str] = MappingProxyType({})  # variables of the path, as the server gave them
    _witness: Witness | None = None
    _copy: list[bytes] | None = None  # the body so far; None: it is not stored
    _copied = 0  # octets
    _length = -1  # octets of the whole body, where the application states them
    _made = False  # its record is made
    _stored: Sequence[tuple[str, Record, float | None]] = ()  # written to the store before the body has ended
    _finished = False
    _broken = False

    def _abandon(self) -> None:
        """Something is wrong with this answer: do not store it; remove it if it is stored already."""
        self._broken = True
        self.exchange.abandoned()
        self.exchange.drops = (*self.exchange.drops, *[key for key, _, _ in self._stored])
        self._stored = ()

    def _keep(self, chunk: bytes) -> None:
        """Copy a part of the body; a body that is too long to be stored, or than it said, is given up."""
        if self._copy is None:
            return
        self._copied += len(chunk)
        too_long = self._copied > self.exchange.engine.policy.max_body or (self._made and chunk)
        if too_long or type(chunk) is not bytes:
            self._copy = None
            self.exchange.cannot_copy()
            self._abandon()
            self._land()
        else:
            self._copy.append(chunk)

    def _make(self) -> None:
        """Make the record: the body has its full length. Requests that wait for it get it now.

        It is stored when the body has ended; now if the store is local memory, where nobody has to wait for it. For
        some clients, such as test clients, never read on after the last byte and never close.
        """
        assert self._copy is not None
        self._made = True
        exchange = self.exchange
        body = b"".join(self._copy)
        assert self._witness is not None
        self._witness.tell(exchange)  # what the application has read while it made the body
        records = exchange.completed(body, time.time())
        if exchange.engine.pages.inline:
            self._stored = exchange.writes
            self._commit(records)
        else:
            self._land(records)

    def _complete(self) -> None:
        """Store the body: it has ended, and its last byte has been sent."""
        if self._finished:
            return
        self._finished = True
        if self._copy is not None and not self._made:
            self._make()
        self._copy = None
        if not self._stored:
            self._commit()

    def _commit(self, records: Mapping[str, Record | None] | None = None) -> None:
        """Write to the store; then end the flight, with these records for the requests that still wait."""
        exchange = self.exchange
        try:
            committing = self._committing()
            if committing is not None:
                exchange.engine.pages.run(*committing)
        finally:
            self._end_flight(records)
        if exchange.refresh and self.place:
            exchange.refresh = False
            self._middleware.refresh({**self.environ, **self.place}, exchange)
