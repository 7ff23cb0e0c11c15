"""Relay: what the passages of both interfaces have in common: how a miss waits for another's answer.

Waiting is written once, as a generator: it yields what is to be done, a method and its arguments, and is sent the
result. Threads and event loops carry that out, each in its own way.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Generator, Mapping, Sequence
from typing import Any, ClassVar, Final, TypeVar

from cachemw.caching import Caching, CachingMiddleware, Line
from cachemw.exchange import Exchange
from cachemw.flights import Flight
from cachemw.pages import Procedure
from cachemw.rfc9111.messages import Record

__all__ = ["Boarding", "Relay"]

T = TypeVar("T")

#: Seconds before its end in which a lease may be over already: memcached counts whole ones.
LEASE_DOUBT: Final = 2.0
LEASE_POLL: Final = 0.02  # seconds between two looks for the answer that another process fetches

#: Yields a method and its arguments.
Boarding = Generator[tuple[Callable[..., Any], tuple[Any, ...]], Any, T]


class Relay:
    """One miss. The methods that block, or are awaited, are the carriers' (`cachemw._relay_carriers`)."""

    exchange: Exchange[Line]
    _middleware: CachingMiddleware
    _flight: Flight[Record | None] | None = None  # that this passage leads
    _lease: str | None = None
    _lease_lasts = 0.0  # until then, by `time.monotonic`

    _wait_for: ClassVar[Callable[..., Any]]  # (flight): has it landed in time?
    _look_up: ClassVar[Callable[..., Any]]  # (keys): their records
    _take_lease: ClassVar[Callable[..., Any]]  # (key, seconds, keys): is it ours, and the records of the keys
    _drop_lease: ClassVar[Callable[..., Any]]  # (key)
    _pause: ClassVar[Callable[..., Any]]  # (seconds)
    _purge: ClassVar[Callable[..., Any]]  # (pages, resources)

    @property
    def caching(self) -> Caching:
        """What the middleware works with whose passage this is."""
        return self._middleware.caching

    @property
    def _holder(self) -> Relay:
        """The passage that lands the flight and drops the lease: of the half that stores, where they stand apart."""
        return self if self._middleware.updates else self.exchange.outer_half or self

    def _land(self, records: Mapping[str, Record | None] | None = None) -> None:
        """Release who waits: with records that they may use, or, without any, to go on by themselves."""
        holder = self._holder
        flight = holder._flight
        if flight is None:
            return
        if records:
            flight.land(records)
        elif holder is self:
            self._end_flight()

    def _lead_at_once(self) -> bool:
        """Lead the flight, as most do: nobody else asks for the page at this moment; False if it is not our turn.

        It is always where nobody stores the answer: an inner half without an outer one.
        """
        exchange = self.exchange
        holder = self if self._middleware.updates else exchange.outer_half
        if exchange.flight is None or holder is None:
            return True
        if exchange.lease is not None:
            return False
        flight, leads = exchange.engine.flights.join(exchange.flight)
        if leads:
            holder._flight = flight
        return leads

    def _hand_over(self) -> None:
        """It is for the client to go on: it is given a piece of the answer, or to send its request to the end."""
        if self._flight is not None:
            self._flight.sending_since = time.monotonic()

    def _go_on(self) -> None:
        """The client has done so."""
        if self._flight is not None:
            self._flight.sending_since = 0.0

    def _desert(self) -> None:
        """The client has left before the answer was there: one of those who wait for it is to fetch it."""
        flight = self._holder._flight
        if flight is not None:
            flight.deserted = True

    def _committing(self) -> tuple[Procedure[bool], bool, Sequence[str]] | None:
        """What is to be done to the store at the end, for `Pages.run`; None for nothing, or nothing more."""
        exchange = self.exchange
        lease, self._lease = self._lease, None
        drops = exchange.drops if lease is None else (*exchange.drops, lease)  # the next one may fetch
        if not (exchange.writes or drops):
            return None
        held = lease if lease is not None and time.monotonic() < self._lease_lasts else None
        procedure = exchange.engine.pages.commit(exchange.writes, drops, exchange.guard, held)
        exchange.writes = exchange.drops = ()
        return procedure, False, drops

    def _end_flight(self, records: Mapping[str, Record | None] | None = None) -> None:
        """What others wait for is in the store, or will never be."""
        flight = self._flight
        if flight is not None:
            flight.end(records or {})
            self._flight = None  # now only: whatever interrupts this, it is done again

    def __del__(self) -> None:
        """An answer that nobody read and nobody closed, or a task that was forgotten: at least nobody waits for it."""
        if self._flight is not None:
            self._flight.end()

    def _minding_purges(self) -> Boarding[None]:
        """Remove what this answer invalidates; and is what is to be stored of it still what nobody has purged?"""
        exchange = self.exchange
        if exchange.keep and exchange.wants:
            exchange.unpurged((yield self._look_up, (exchange.wants,)))
        if exchange.purges:
            for line in self._middleware.caching.lines:  # a rule may keep the pages elsewhere for GET alone
                of = [of for request, ignore in exchange.purges for of in line.resources(request, ignore)]
                yield self._purge, (line.pages, list(dict.fromkeys(of)))
            if exchange.keep and exchange.wants:
                exchange.purged((yield self._look_up, (exchange.wants,)))

    def _boarding(self) -> Boarding[None]:
        """Until it is this request's turn to fetch the page, or it has it. Where `_lead_at_once` said no."""
        exchange = self.exchange
        flights = exchange.engine.flights
        waited: set[str] = set()
        until: float | None = None
        while not exchange.settled and exchange.flight is not None and exchange.flight not in waited:
            waited.add(exchange.flight)
            flight, leads = flights.join(exchange.flight)
            if leads:
                self._holder._flight = flight
                if exchange.lease is None or (yield from self._leading(exchange.lease)):
                    return
            elif not exchange.serve_in_grace():
                until = until or time.monotonic() + exchange.engine.policy.collapse_timeout
                if not (yield self._wait_for, (flight,)):
                    flights.remove(flight)
                if flight.deserted and not flight.records and time.monotonic() < until:
                    waited.discard(flight.key)  # a crowd must not pay for one who left
                exchange.again(time.time())
                while wants := exchange.wants:
                    records = yield self._look_up, (wants,)
                    exchange.found(_landed(flight, wants, records))

    def _leading(self, key: str) -> Boarding[bool]:
        """Fetch for all processes; if another one does, look for its answer until it has had its time."""
        exchange = self.exchange
        if exchange.outer is not None and exchange.outer.leased:
            return True
        timeout = exchange.engine.policy.lease
        deadline = time.monotonic() + timeout
        waited = exchange.collapsed
        polled = False
        while True:
            before = exchange.known
            began = time.monotonic()
            taken, records = yield self._take_lease, (key, timeout, tuple(before))
            leads = taken is not False
            self._holder._lease = key if leads else None
            self._holder._lease_lasts = began + timeout - LEASE_DOUBT if taken else 0.0
            if polled or [*records] != [*before.values()]:  # who had the lease may have stored it since our look-up
                yield from self._look_again(dict(zip(before, records, strict=True)))
            if exchange.settled:
                if leads:
                    yield self._drop_lease, (key,)
                    self._holder._lease = None
                return False
            if leads:
                exchange.collapsed = waited
                exchange.leased = True
                if exchange.outer is not None:
                    exchange.outer.leased = True  # which the caches further in ask
                return True
            if exchange.lease is None or time.monotonic() > deadline:  # its answer was not cacheable: nobody waits
                return True
            if exchange.serve_in_grace():
                return False
            waited = polled = True
            yield self._pause, (LEASE_POLL,)

    def _look_again(self, read: Mapping[str, Record | None]) -> Boarding[None]:
        """Take the request up once more, with what was just read; only what was not read is looked up."""
        exchange = self.exchange
        exchange.again(time.time())
        while wants := exchange.wants:
            known = read.keys() >= set(wants)
            exchange.found([read[key] for key in wants] if known else (yield self._look_up, (wants,)))


def _landed(
    flight: Flight[Record | None], wants: Sequence[str], records: Sequence[Record | None]
) -> Sequence[Record | None]:
    """What was looked up, and in its place what the flight brought along."""
    brought = flight.records
    if not brought:
        return records
    return [brought.get(key) or record for key, record in zip(wants, records, strict=True)]
