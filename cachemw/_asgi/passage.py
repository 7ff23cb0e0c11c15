"""Passage: one call of an ASGI application, relayed as it comes and copied aside. I/O only.

Rule 1: the server gets every message as the application sent it, in its order, and none is held back; but for a head
        that states the length of its body, which may wait for the first part of that, for a moment.
Rule 2: only a body that ended as it should, and that the client was there for, is stored.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Coroutine, Mapping, Sequence
from types import MappingProxyType
from typing import Any, Final, cast

from cachemw._asgi.replies import no_body, send_stored
from cachemw._asgi.request import EXCHANGE, ASGIRequest, decoded, encoded, with_conditions
from cachemw._asgi.types import Message, Receive, Scope, Send
from cachemw._asgi.waiting import Waiting
from cachemw._relay_carriers import TaskRelay
from cachemw.activation import KEY as LOCALE
from cachemw.activation import enter, is_awaited, leave
from cachemw.caching import CachingMiddleware, Line, log
from cachemw.exchange import Exchange, Step
from cachemw.flights import LED, lead
from cachemw.rfc9111.messages import Fields, Head

__all__ = ["Passage"]

_LISTS: Final = (list, tuple)
#: What passes and is no part of the response that is stored: a 103, which comes before it (RFC 9110 §15.2, RFC 8297),
#: and what a template was rendered with, for a test client.
_NO_PART: Final = ("http.response.early_hint", "http.response.debug")

_writing: set[asyncio.Task[Any]] = set()  # the event loop alone would let them be collected


def _renewed(headers: Sequence[Any], before: Fields, after: Fields) -> list[Any]:
    """The header list that says `after` where it said `before`; what was there stays as the application wrote it."""
    count = len(before)
    if after[:count] != before:
        headers, count = (), 0
    return [*headers, *[encoded(*field) for field in after[count:]]]


async def _finish(work: Coroutine[Any, Any, object]) -> None:
    """Finish even if the request is cancelled: a write without its second look at the purge's mark could outlive it."""
    task = asyncio.ensure_future(work)
    _writing.add(task)
    task.add_done_callback(_writing.discard)
    await asyncio.shield(task)


class Passage(TaskRelay):
    """One call of the application: relays its messages and copies aside the body that is kept."""

    # What holds until something else is known: attributes of the class, so that a passage sets only a few.
    place: Mapping[str, Any] = MappingProxyType({})  # what the scope said of the path, before anybody else had it
    _sends_files = True  # `send` is the server's
    _asked = False  # the request has come to its end
    _started = False  # a head was sent
    _replaced = False  # a reply of ours was sent: what the application sends is dropped
    _retry = False  # the same, because the application is to be called once more
    _complete = False
    _held: Head | None = None  # of a part that is read whole before anything of it is sent
    _ahead: bytes | None = None  # the whole body, where it is known before the head
    _waits = True  # a head may wait for the first part of the body
    _waiting: Waiting | None = None  # a head that does
    _copy: list[bytes] | None = None  # the body so far, where it is kept
    _copied = 0
    _unsure: Sequence[str] = ()  # the keys of a record whose body nobody has said the length of

    def __init__(
        self, middleware: CachingMiddleware, scope: Scope, receive: Receive, send: Send, exchange: Exchange[Line]
    ) -> None:
        self.scope = scope
        self.exchange = exchange
        self._middleware = middleware
        self._receive = receive
        self._send = send

    # -- waiting ----------------------------------------------------------------------------------------------------

    async def board(self) -> None:
        """Wait for whoever fetches this page already, or fetch it."""
        exchange = self.exchange
        try:
            at_once = self._lead_at_once()
            if not at_once:
                await self._carry_out(self._boarding())
        except BaseException:
            await self._settle()
            raise
        if at_once or not exchange.settled:
            await self.call()
            return
        self._land(exchange.known)
        self._land()  # nothing is left to be written that others would have to have from the flight
        await send_stored(exchange, self._send, as_file=self._sends_files)

    # -- the application --------------------------------------------------------------------------------------------

    async def call(self) -> None:
        """Call the application and relay what it sends."""
        exchange = self.exchange
        scope = self.scope
        request = cast(ASGIRequest, exchange.request)  # its scope is where the application tells more of the client
        token = None
        led = lead(self._holder._flight)
        try:
            request.hold()
            scope.setdefault(EXCHANGE, exchange)
            if is_awaited(exchange.engine.properties):
                token = enter(scope)
                scope[LOCALE].keyed = exchange.engine.properties
            if exchange.conditions is not None:
                scope = request.scope = with_conditions(scope, exchange.conditions)
            await self._middleware.app(scope, self._receiving, self._sending)
            if self._retry:  # what came does not fit what is stored (RFC 9111 §4.3.3)
                self._retry = False
                self._receive = no_body()
                request.scope = self.scope
                await self._middleware.app(self.scope, self._receiving, self._sending)
            if self._waiting is not None:
                await self._send_waiting()
        except Exception as error:
            self._copy = None
            self._give_up_waiting()
            exchange.abandoned()
            if self._started or self._replaced or not exchange.serve_on_error(time.time()):
                self._doubt()
                raise
            log.error("The application failed; a stale response stands in for it.", exc_info=error)
            await self._replace()
        except BaseException:
            self._give_up_waiting()
            self._doubt()
            self._desert()
            raise
        finally:
            LED.set(led)
            if token is not None:
                leave(token)
            if not self._complete:
                exchange.abandoned()
            await self._settle()

    def _doubt(self) -> None:
        """After an error: somebody in between may have ended what broke off, as if it were whole."""
        self.exchange.drops = (*self.exchange.drops, *self._unsure)

    async def _receiving(self) -> Message:
        if self._asked:
            message = await self._receive()
        else:  # HTTP/2: nothing says whether a body comes, and when
            self._hand_over()
            message = await self._receive()
            self._go_on()
            self._asked = not message.get("more_body", False)
        if message["type"] == "http.disconnect":
            if not self._complete:
                self.exchange.never = True  # whatever the application sends from now on, it sends to nobody
                self._desert()
                self._drop()
        elif message.get("body") and self.exchange.request.method in ("GET", "HEAD"):
            self.exchange.never = True  # HTTP/2 does not announce a body, and the answer may depend on it
            self._drop()
        return message

    async def _sending(self, message: Message) -> None:
        if self._replaced or self._retry:
            return
        kind = message["type"]
        if self._waiting is not None:
            await self._send_waiting(message.get("body", b"") if kind == "http.response.body" else None)
        if kind == "http.response.body":
            await self._send_body(message)
        elif kind == "http.response.start":
            await self._send_head(message)
        elif kind in _NO_PART:
            await self._send(message)
        else:  # a file, a push, trailers, or something we do not know: it passes, and nothing is stored
            self.exchange.cannot_copy()
            self._drop()
            if self._held is not None:  # what completes a stored part is to be had in messages, or not at all
                self._held, self._retry = None, True
                return
            await self._send(message)

    async def _send_head(self, message: Message) -> None:
        exchange = self.exchange
        if self._started:  # the server will say that this is one head too many
            exchange.cannot_copy()
            self._drop()
            await self._send(message)
            return
        headers = message.get("headers", ())
        if not isinstance(headers, _LISTS):  # any iterable is allowed, also one that can be read once
            message = {**message, "headers": (headers := list(headers))}
        given = Head(message["status"], decoded(headers))
        now = time.time()
        middleware = self._middleware
        if message.get("trailers"):
            exchange.cannot_copy()
        if middleware.fetches and exchange.stale is not None:
            step = exchange.answered(given, now)
            if step is Step.HOLD:
                self._held = given
                self._copy, self._copied = [], 0
                return
            if step is Step.REPLY:
                await self._replace()
                return
            if step is Step.RETRY:
                self._retry = True
                return
        fields = given.fields
        if middleware.updates:
            locale = self.scope.get(LOCALE)
            if locale is not None:
                exchange.language, exchange.timezone = locale.language, locale.timezone
            fields = exchange.leaving(given, now)
            if exchange.purges or exchange.wants:
                await self._carry_out(self._minding_purges())
            if exchange.undecided:
                if self._ahead is not None:
                    fields = exchange.seen(self._ahead)
                elif exchange.length is not None and self._waits:
                    # a list of its own: the application may go on with that one
                    message = {**message, "headers": [*headers]}
                    self._waiting = Waiting(message, given.fields, fields, self._depart)
                    return
        await self._depart(message, given.fields, fields)

    async def _send_waiting(self, part: bytes | None = None) -> None:
        """Send the head that waits. part: the first of the body, perhaps the whole; None: none came."""
        waiting, self._waiting = self._waiting, None
        assert waiting is not None
        if part is not None and len(part) == self.exchange.length:
            await waiting.end(self.exchange.seen(bytes(part)))
        else:
            await waiting.end()

    def _give_up_waiting(self) -> None:
        waiting, self._waiting = self._waiting, None
        if waiting is not None:
            waiting.give_up()

    async def _depart(self, message: Message, given: Fields, fields: Fields) -> None:
        """Send the head, with these fields. given: as the application gave them."""
        if self.exchange.keep:
            self._copy, self._copied = [], 0
        elif self._middleware.updates:
            self._land()
        self._started = True
        if fields is not given:
            message = {**message, "headers": _renewed(message.get("headers", ()), given, fields)}
        self._hand_over()
        await self._send(message)
        self._go_on()

    async def _replace(self) -> None:
        """Send the exchange's reply instead of what the application gave."""
        self._replaced = self._complete = True
        self._land(self.exchange.records)
        await send_stored(self.exchange, self._send, as_file=self._sends_files)
        await self._settle()  # the application may go on for long, and everybody would validate again until then

    async def _send_body(self, message: Message) -> None:
        if self._copy is not None:
            chunk = message.get("body", b"")
            self._copied += len(chunk)
            if self._copied > self.exchange.engine.policy.max_body:
                self.exchange.cannot_copy()
                self._drop()
            else:
                self._copy.append(bytes(chunk))
        if self._held is not None:
            if not message.get("more_body", False):
                await self._release(self._held)
            return
        if message.get("more_body", False):
            try:
                self._hand_over()
                await self._send(message)
                self._go_on()
            except BaseException:  # whoever sends it again sends it twice, to us alone
                self._desert()
                self._drop()
                raise
            return
        if not self._started or self._complete:  # out of order: the server will say so
            await self._send(message)
            return
        if self._copy is not None:
            exchange = self.exchange
            self._land(exchange.completed(b"".join(self._copy), time.time()))
            self._copy = None
            if exchange.length is None:
                self._unsure = [key for key, _, _ in exchange.writes]
        self._complete = True
        await self._send(message)
        await self._settle()

    async def _release(self, head: Head) -> None:
        """The part that completes a stored one has come."""
        self._held = None
        body, self._copy = self._copy, None
        if body is not None and self.exchange.combined(head, b"".join(body), time.time()) is Step.REPLY:
            await self._replace()
        else:
            self._retry = True

    def _drop(self) -> None:
        """Nothing of this response is stored; whoever waits for it goes on alone."""
        self._copy = None
        self.exchange.abandoned()
        self._land()

    async def _settle(self) -> None:
        """Do what is left to do: the client has had its last byte. Until then, who asks gets it from the flight."""
        exchange = self.exchange
        try:
            committing = self._committing()
            if committing is not None:
                pages = exchange.engine.pages
                if pages.immediate:
                    pages.run(*committing)
                else:
                    await _finish(pages.arun(*committing))
        finally:
            self._end_flight()
            if exchange.outer_half is self:
                exchange.outer_half = None  # no cycle for the garbage collector
            if exchange.refresh and self.place:
                exchange.refresh = False
                self._middleware.refresh({**self.scope, **self.place}, exchange)
