"""One request's passage through the cache: told what happened, says what to do. No I/O, no clock, no threads.

The order of the calls (`Fetch` and `Update` are the two halves; `CacheMiddleware` plays both):

    exchange = Exchange(engine)
    exchange.begin(request, now)            Fetch
    while exchange.wants:                   Fetch    look these keys up, in one go
        exchange.found(records)
    exchange.hit, exchange.reply            Fetch    send it, with `extra`, instead of calling the application: a stored
                                                     response as it is, or something made of one
    exchange.flight                         Fetch    else: wait for the leader of this key, then `again(now)`
    exchange.conditions                     Fetch    else: fields to put into the request instead of its own conditions
    exchange.answered(head, now)            Fetch    the application's head; the `Step` to take: relay it, send `reply`
                                                     in its place, or call again without conditions
    exchange.failed(now)                    Fetch    the application raised; True: `reply` is to be sent instead
    exchange.leaving(head, now)             Update   the head as it leaves the stack; returns it patched;
                                                     `keep` says whether the body is to be copied aside
    exchange.completed(body, now)           Update   the whole body of a kept response
    exchange.abandoned()                    Update   the body did not end as it should
    exchange.writes, drops, purges          both     what to do to the store afterwards

Whatever the passage, `trace` says in RFC 9211's words what happened.
"""

from __future__ import annotations

import enum
import secrets
from collections.abc import Mapping, Sequence
from types import MappingProxyType
from typing import Any, Final, Generic, TypeVar

from cachemw.engine import Engine, Learnt, bounded, variant_key
from cachemw.rfc9111 import keys
from cachemw.rfc9111.fields import (
    CacheControl,
    dump_cache_control,
    format_date,
    parse_no_vary_search,
    parse_tags,
    parse_vary,
    valid_host,
)
from cachemw.rfc9111.freshness import born, current_age
from cachemw.rfc9111.invalidation import invalidates, is_unsafe, target_uris
from cachemw.rfc9111.messages import Fields, Head, HitForMiss, Mark, Record, Request, StoredResponse, VaryIndex
from cachemw.rfc9111.partial import serves, slice_of, whole
from cachemw.rfc9111.reuse import Reuse, may_reuse, may_serve_in_grace, may_serve_stale_on_error, only_if_cached
from cachemw.rfc9111.storing import Storing, has_session_cookie, may_store, storable_fields
from cachemw.rfc9111.validation import (
    answer_conditions,
    conditions,
    freshen,
    freshen_by_head,
    not_modified_fields,
    partial_fields,
    select_range,
    unsatisfied_fields,
)
from cachemw.rules import Rule, Rules

__all__ = ["Exchange", "Reply", "Step"]

#: Fields of a refusal without a body; PEP 3333's validator wants the type all the same.
_EMPTY: Final = (("Content-Type", "text/plain; charset=utf-8"), ("Content-Length", "0"))

_UNKNOWN: Final[Any] = object()
_NOTHING: Final[Mapping[str, Record | None]] = MappingProxyType({})

#: Reasons not to store that lie in the answer itself: the next one to this URL will hardly be stored either.
_LASTING: Final = frozenset({"no-store", "private", "set-cookie", "vary-star", "no-cache", "no-lifetime", "status"})

#: How long a `VaryIndex` stays, at least: it is small, and with it go all variants.
_INDEX_TIMEOUT: Final = 86_400.0
_LONGEST: Final = 365 * 86_400.0  # no response is kept longer; the mark of a purged tag has to outlive it


EngineT = TypeVar("EngineT", bound=Engine)


class Step(enum.Enum):
    """What to do with the application's answer."""

    RELAY = "relay"
    REPLY = "reply"  # send `reply` in its place
    RETRY = "retry"  # it does not fit what is stored: drop it, and call the application without our conditions


class Reply:
    """A response made of a stored one: a 304, a part, a refusal."""

    __slots__ = ("body", "fields", "reason", "status")

    def __init__(self, status: int, fields: Fields, body: bytes = b"", reason: str = "") -> None:
        self.status = status
        self.fields = fields
        self.body = body
        self.reason = reason


class Exchange(Generic[EngineT]):
    """One request and its answer. See the module's docstring for the order of the calls."""

    # What an exchange holds until something else is known: attributes of the class, so that a hit sets only a few.
    wants: tuple[str, ...] = ()
    hit: StoredResponse | None = None
    reply: Reply | None = None
    extra: tuple[Any, ...] = ()  # fields that go with `hit` or `reply`, as the interface wants them
    flight: str | None = None
    lease: str | None = None
    conditions: Fields | None = None
    refresh = False  # the reply is stale: fetch the page again in the background
    keep = False
    began = 0.0
    writes: Sequence[tuple[str, Record, float | None]] = ()
    drops: Sequence[str] = ()
    purges: Sequence[str] = ()  # resources whose every record is to be purged
    guard: tuple[str, str] | None = None  # after the writes: (mark key, its token when the request began)
    collapsed = False

    # What a view or a rule asks for; read when the response leaves.
    timeout: float | None = None
    tags: tuple[str, ...] = ()
    never = False
    ignore: tuple[str, ...] = ()  # query parameters that a rule leaves out of the key
    refreshing = False  # a background refresh: a stale response is no answer to it

    # The request's properties that may be part of the key; the shell fills them in.
    language: str | None = None
    timezone: str | None = None

    known: Mapping[str, Record | None] = _NOTHING
    request: Request
    now: float
    of: str | None = None  # the resource; None: this request is not looked up
    overrides = ""  # what the policy's `keyed_fields` add to the key
    forward = "miss"  # RFC 9211 `fwd`
    forward_status = 0
    stored_ttl: float | None = None
    detail = ""
    stale: StoredResponse | None = None
    candidates: Sequence[Rule] | None = None  # the rules that may apply to the response
    _named = False  # the lifetime comes from a rule that names the status
    _learnt = False  # this process knew the URL
    _index: VaryIndex | None = None
    _variant = ""
    _collapsible: str | None = None  # the key that others may wait for
    _selected: tuple[StoredResponse | None, bool] = (None, False)
    _storing: Storing | None = None
    _left: Head | None = None

    def __init__(self, engine: EngineT) -> None:
        self.engine = engine

    # -- Fetch: look up ---------------------------------------------------------------------------------------------

    def begin(self, request: Request, now: float, *, plain: bool = False) -> None:
        """Take up a request as the application will see it.

        plain says that it carries none of `engine.special`; the shell finds that out faster than a rule could.
        """
        self.request = request
        self.now = now
        self.plain = plain
        if request.method != "GET" and request.method != "HEAD":
            self.forward = "method"
            return
        if self.never:
            self.forward = "bypass"
            return
        engine = self.engine
        if not plain:
            if not self._is_cacheable_request():
                self.forward = "bypass"
                return
            self.overrides = keys.override_part(request, engine.policy.keyed_fields)
            self.plain = not any(request.lines(name) for name in engine.conditional)
        learnt = engine.seen.get(request.identity) if not self.ignore else None
        self._learnt = learnt is not None
        if learnt is None:
            of = engine.resource(request, self.ignore)
            learnt = engine.learnt.get(of)
            if learnt is None:
                self.of = of
                self.primary = of + "\0G"
                self._ask(None)
                return
        self.of = learnt.of
        self.primary = learnt.primary
        self._ask(learnt)

    def _is_cacheable_request(self) -> bool:
        """A body, a second Host or a protocol switch make a request one for the application alone."""
        request = self.request
        if request.lines("transfer-encoding") or request.lines("upgrade") or request.lines("expect"):
            return False
        if any(length.strip(" \t") not in ("", "0") for length in request.lines("content-length")):
            return False
        return len(request.lines("host")) < 2

    def _ask(self, learnt: Learnt | None) -> None:
        """Ask for everything that this process knows the answer will need: one look-up is one round trip."""
        if learnt is None:
            self.wants = (self.primary, f"{self.of}\0M") if self.engine.shared else (self.primary,)
        elif learnt.index is None:
            self.wants = learnt.wants
        else:
            self._index = learnt.index
            self._variant = learnt.secondary(self.request, self._property)
            self.wants = (learnt.primary, self._variant, *learnt.rest)
        if self.request.method == "HEAD":
            self.wants += (f"{self.of}\0H",)

    def found(self, records: Sequence[Record | None]) -> None:
        """What the store held for each of `wants`, in their order; None for nothing."""
        if self.plain and not self.known:
            record = records[0]
            index = self._index
            softened = 0.0
            if index is not None and type(record) is VaryIndex and record.generation == index.generation:
                softened = record.stale_before
                record = records[1]
            elif self.overrides:
                record = None
            if (
                type(record) is StoredResponse
                and self.now < record.fresh_until
                and record.began >= softened
                and not record.tags
                and record.status != 206
                and (not record.chosen or not has_session_cookie(self.request, self.engine.policy))
            ):
                self._hit(record)
                return
        self.known = {**self.known, **dict(zip(self.wants, records, strict=True))}
        self._resolve()

    def _is_open(self, record: StoredResponse) -> bool:
        """Is a plain request given this response as it is: no part, and no page that a session must not share?"""
        if record.status == 206:
            return False
        return not record.chosen or not has_session_cookie(self.request, self.engine.policy)

    def _hit(self, record: StoredResponse) -> None:
        """The short way: a plain request and a fresh response."""
        engine = self.engine
        self.wants = ()
        self.forward = ""
        self.hit = record
        age = int(self.now - record.born)
        shown = record.shown
        if shown is not None and shown[0] == age and shown[1] is engine:
            self.extra = shown[2]
        else:
            self.extra = self.request.render(self._extra(record))
            record.shown = (age, engine, self.extra)
        if not self._learnt:
            self._learn_url()

    def _learn_url(self) -> None:
        """The next request to this URL finds its keys made."""
        if not self.ignore:
            assert self.of is not None
            bounded(self.engine.seen)[self.request.identity] = self.engine.remember(self.of)

    def _resolve(self) -> None:
        """From what is known: ask for more (`wants`), reply, or decide that the application has to be called."""
        self.wants = ()
        if (wanted := self._missing()) is not None:
            self.wants = wanted
            return
        record, softened = self._selected
        if record is None:
            self._forward("vary-miss" if self._index is not None else "uri-miss")
            return
        if self.plain and self.now < record.fresh_until and not softened and self._is_open(record):
            self._hit(record)
        else:
            self._judge(record, softened)

    def _missing(self) -> tuple[str, ...] | None:
        """Select the stored response among what is known; keys that have to be looked up first, or None."""
        of = self.of
        assert of is not None
        record, softened, wanted = self._variant_of(self.primary)
        if wanted is None and type(record) is not StoredResponse and self.request.method == "HEAD":
            self.primary = keys.head_key(of)  # what HEAD was answered is for HEAD alone
            record, softened, wanted = self._variant_of(self.primary)
        if wanted is not None:
            return (wanted,)
        if type(record) is HitForMiss:
            self.engine.pass_by(record.key, self.now)
        if type(record) is not StoredResponse:
            self._selected = (None, False)
            return None
        if record.tags:
            return self._check_tags(record, softened)
        self._selected = (record, softened)
        return None

    def _variant_of(self, primary: str) -> tuple[Record | None, bool, str | None]:
        """The record that this primary key leads to, whether a soft purge made it stale, and a key to look up first."""
        of = self.of
        assert of is not None
        record = self.known[primary]
        if type(record) is VaryIndex:
            index = record
            if self._index is None or self._index.generation != index.generation:
                self._variant = self._learn(index)
            self._index = index
            record = self.known.get(self._variant, _UNKNOWN)
            if record is _UNKNOWN:
                return None, False, self._variant
            return record, type(record) is StoredResponse and record.began < index.stale_before, None
        if self._index is not None and self._index.key == primary:  # what was learnt is out of date
            self._index = None
            self.engine.remember(of).index = None
        if self.overrides and type(record) is StoredResponse:
            return None, False, None  # it answered a request without these fields
        return record, False, None

    def _check_tags(self, record: StoredResponse, softened: bool) -> tuple[str, ...] | None:
        """A record that began before the last purge of one of its tags is gone, or stale if the purge was soft."""
        engine = self.engine
        marks = [keys.tag_key(engine.space, tag) for tag in record.tags]
        unknown = tuple(key for key in marks if key not in self.known)
        if unknown:
            assert self.of is not None
            self._remember(engine.remember(self.of, record.tags))
            return unknown
        began = record.began - engine.skew
        for key in marks:
            mark = self.known[key]
            if type(mark) is Mark:
                if began <= mark.hard:
                    self._selected = (None, False)
                    return None
                softened = softened or began <= mark.soft
        self._selected = (record, softened)
        return None

    def _learn(self, index: VaryIndex) -> str:
        """Remember where the variants of this URL are; the key of the one that this request selects."""
        assert self.of is not None
        if index.key != keys.primary_key(self.of):
            return self._secondary(index)
        learnt = self.engine.remember(self.of)
        learnt.vary(index, self.request)
        return learnt.secondary(self.request, self._property)

    def _remember(self, learnt: Learnt) -> None:
        """Put a new memory of this URL in the place of the old one."""
        if self._index is not None and self._index.key == learnt.primary:
            learnt.vary(self._index, self.request)
        self.engine.seen.pop(self.request.identity, None)

    def _secondary(self, index: VaryIndex) -> str:
        """The key of the variant that this request selects."""
        assert self.of is not None
        return variant_key(self.of, index, self.request, self._property, self.engine.policy.normalize_vary)

    def _property(self, name: str) -> str | None:
        return {":language": self.language, ":timezone": self.timezone, ":overrides": self.overrides}[name]

    # -- Fetch: decide ----------------------------------------------------------------------------------------------

    def _judge(self, record: StoredResponse, softened: bool) -> None:
        if record.status == 206 and serves(record, self.request) is None:
            self._forward("partial")
            return
        verdict = may_reuse(self.request, record, self.engine.policy, self.now, softened=softened)
        if verdict is Reuse.FRESH or (verdict is Reuse.STALE and not self.refreshing):
            self.refresh = verdict is Reuse.STALE
            self._serve(record)
        elif verdict is Reuse.GUARDED:
            self._forward("bypass", "guarded")
        else:
            self.stale = record
            self._forward("stale" if self.now >= record.fresh_until or softened else "request")

    def _serve(self, record: StoredResponse) -> None:
        """Answer with a stored response, under the client's own conditions and range."""
        self.forward = ""
        self.extra = self.request.render(self._extra(record))
        if self.plain:
            self.hit = record
        else:
            self.reply = self._shaped(record, record.head)
            self.hit = record if self.reply is None else None

    def _shaped(self, record: StoredResponse, head: Head) -> Reply | None:
        """What the client's conditions and range make of the response; None: it is to be sent as it is."""
        policy, request, body = self.engine.policy, self.request, record.body
        status = answer_conditions(request, head, self.now) if policy.conditions else 0
        if status == 304:
            return Reply(304, not_modified_fields(record.fields))
        if status == 412:
            return Reply(412, _EMPTY)
        if not policy.ranges:
            return None
        if record.status == 206:
            span = serves(record, request)
            assert span is not None  # `_judge` has asked
            return Reply(206, *slice_of(record, span))
        chosen = select_range(request, head, len(body))
        if chosen is None:
            return None
        if chosen == "unsatisfiable":
            return Reply(416, (_EMPTY[0], *unsatisfied_fields(len(body))))
        first, last = chosen
        return Reply(206, partial_fields(record.fields, first, last, len(body)), body[first : last + 1])

    def _forward(self, forward: str, detail: str = "") -> None:
        """The application has to be called: with which conditions, and may others wait for its answer?"""
        self.forward, self.detail = forward, detail
        request, policy, of = self.request, self.engine.policy, self.of
        assert of is not None
        mark = of + "\0M"
        if mark not in self.known:  # only a miss has to know of purges that come while it lasts
            self.wants = (mark,)
            return
        if policy.request_directives and only_if_cached(request, policy):
            self.reply = Reply(504, _EMPTY)
            self.extra = request.render(self._status_fields())
            return
        self.began = self.engine.stamp(self.now)
        if self.stale is not None and policy.revalidate:
            self.conditions = conditions(self.stale) or None
        if policy.collapse and self._may_wait():
            key = self._variant if self._index is not None else self.primary
            if self.engine.passing.get(key, 0.0) <= self.now:
                # with the mark's token: who comes after a purge must not wait for what began before it
                self.flight = key + self._token()
                self._collapsible = key
                if self.engine.shared and policy.lease > 0:
                    self.lease = keys.lease_key(self.flight)

    def _token(self) -> str:
        """The token that the last purge of this URL left."""
        mark = self.known.get(f"{self.of}\0M")
        return mark.token if type(mark) is Mark else ""

    def _may_wait(self) -> bool:
        """Only a request whose answer others may share waits for another's."""
        request = self.request
        if request.method != "GET" or self.forward == "bypass":
            return False
        if not self.plain and (request.lines("authorization") or request.lines("range")):
            return False
        return not has_session_cookie(request, self.engine.policy)

    def in_grace(self) -> bool:
        """Somebody else fetches this page already: True if `reply`, the stale one, may be sent meanwhile."""
        stale = self.stale
        if stale is None or not may_serve_in_grace(stale, self.engine.policy, self.now):
            return False
        self._serve(stale)
        return True

    def again(self, now: float) -> None:
        """The flight that was waited for has landed: look once more, and do not wait a second time."""
        self.now = now
        self.collapsed = True
        self.known = _NOTHING
        self.stale = None
        self.flight = self.lease = self.conditions = None
        assert self.of is not None
        self._index = None
        self._ask(self.engine.learnt.get(self.of))

    # -- Fetch: the application's answer ----------------------------------------------------------------------------

    def answered(self, head: Head, now: float) -> Step:
        """The application's head, before anything of it left."""
        self.forward_status = head.status
        stale = self.stale
        if stale is None:
            return Step.RELAY
        if head.status == 304 and self.conditions is not None:
            return self._validated(stale, head, now)
        if head.status >= 500 and may_serve_stale_on_error(stale, self.engine.policy, now, status=head.status):
            self._serve_instead(stale, now)
            return Step.REPLY
        if self.request.method == "HEAD" and self.engine.policy.freshen_by_head and head.status < 500:
            self._told_by_head(stale, head, now)
        return Step.RELAY

    def failed(self, now: float) -> bool:
        """The application raised before its head left: True if `reply`, a stale response, stands in for it."""
        if self.stale is not None and may_serve_stale_on_error(self.stale, self.engine.policy, now, status=None):
            self._serve_instead(self.stale, now)
            return True
        return False

    def _validated(self, stale: StoredResponse, head: Head, now: float) -> Step:
        """A 304 to our own conditions (RFC 9111 §4.3.3)."""
        fresh = freshen(stale, head, self.engine.policy, **self._moment(now))
        if fresh is None:
            self.stale = self.conditions = None
            return Step.RETRY
        self._renew(fresh, now)
        self._serve_instead(fresh, now)
        return Step.REPLY

    def _told_by_head(self, stale: StoredResponse, head: Head, now: float) -> None:
        """What HEAD was answered updates the stored answer to GET, or says that it is another by now (§4.3.5)."""
        fresh = freshen_by_head(stale, head, self.engine.policy, **self._moment(now))
        if fresh is None:
            self.drops = (stale.key,)
        else:
            self._renew(fresh, now)

    def _moment(self, now: float) -> dict[str, Any]:
        return {
            "request_time": self.now,
            "response_time": now,
            "seconds": self.engine.seconds,
            "timeout": self.timeout,
        }

    def _renew(self, fresh: StoredResponse, now: float) -> None:
        """Store a validated response again, or drop it if its new fields forbid storing."""
        engine = self.engine
        storing = may_store(
            Request(fields=()), fresh.head, engine.policy, seconds=engine.seconds, timeout=self.timeout, now=now
        )
        if storing.ok:
            fresh.began = self.began
            left = fresh.born + fresh.lifetime - now
            self.stored_ttl = left
            self._write([(fresh.key, fresh, min(max(left, 0.0) + storing.keep, _LONGEST))])
        else:
            self.drops = (fresh.key,)

    def _serve_instead(self, record: StoredResponse, now: float) -> None:
        forward, self.now = self.forward, now
        self._serve(record)
        self.forward = forward
        self.extra = self.request.render(self._extra(record))

    # -- Update -----------------------------------------------------------------------------------------------------

    def leaving(self, head: Head, now: float) -> Head:
        """The head as it leaves the stack; returns it as the client gets it. `keep`: the body is to be copied aside."""
        if not self.forward:  # a hit went through the middlewares between the halves
            return head
        self.forward_status = self.forward_status or head.status
        request, engine = self.request, self.engine
        policy = engine.policy
        if is_unsafe(request.method):
            if policy.invalidate and invalidates(request.method, head.status):
                self.purges = self._targets(head)
            if not policy.store_post:
                return self._marked(head)
            self.of = engine.resource(request)
            self.primary = keys.primary_key(self.of)
        rule = Rules.for_response(self.candidates, head.status, head.value("content-type"))
        if self.of is None or self.never or (rule is not None and rule.never):
            return self._marked(head)
        if rule is not None:
            self.tags += rule.tags
            if self.timeout is None and rule.lifetime is not None:
                self.timeout = rule.lifetime
                self._named = bool(rule.statuses)
        if policy.authorization == "vary":
            head = _varying_on_authorization(request, head)
        storing = may_store(
            request, head, policy, seconds=engine.seconds, timeout=self.timeout, now=now, named=self._named
        )
        self._storing = storing
        if not storing.ok:
            if policy.django_rules and head.status == 304:  # Django patches it, too
                head = _patched(head, engine.seconds if self.timeout is None else self.timeout, now)
            return self._refuse(storing.reason, head)
        if not self._is_known_host():
            return self._refuse("host", head)
        if policy.patch and (storing.chosen or self.timeout is not None):
            head = _patched(head, storing.lifetime, now)
        length = head.value("content-length")
        if length is not None and length.isdecimal() and len(length) < 20 and int(length) > policy.max_body:
            return self._refuse("too-large", head)
        self.keep = True
        self._left = head
        self._response_time = now
        self.stored_ttl = storing.lifetime - (now - born(head, request_time=self.now, response_time=now))
        return self._marked(head)

    def _refuse(self, reason: str, head: Head) -> Head:
        self.detail = self.detail or reason
        if self._collapsible is not None and reason in _LASTING:
            key, engine = self._collapsible, self.engine
            engine.pass_by(key, self.now)
            if self.lease is not None and self.known.get(key) is None:
                self._write([(key, HitForMiss(key), engine.policy.hit_for_miss)])
        return self._marked(head)

    def _is_known_host(self) -> bool:
        """No page is stored under a Host that is none, nor under two (RFC 9112 §3.2)."""
        lines = self.request.lines("host")
        return not lines or (len(lines) == 1 and valid_host(lines[0]))

    def completed(self, body: bytes, now: float) -> Mapping[str, Record | None]:
        """The whole body of a kept response; returns the records that waiting requests may use at once."""
        storing, head, engine, of = self._storing, self._left, self.engine, self.of
        assert storing is not None
        assert head is not None
        assert of is not None
        policy = engine.policy
        if len(body) > policy.max_body or not _is_complete(head, body, self.request.method):
            self.stored_ttl = None
            self.detail = "incomplete"
            return {}
        key, index = self._place(head)
        if key is None:
            self.detail = "variants"
            return {}
        record = whole(
            StoredResponse(
                key=key,
                status=head.status,
                reason=head.reason,
                fields=_sized(storable_fields(head, policy), head.status, body),
                body=body,
                born=born(head, request_time=self.now, response_time=self._response_time),
                lifetime=storing.lifetime,
                began=self.began,
                chosen=storing.chosen,
                validate=storing.validate,
                tags=self._tags_of(head),
            )
        )
        timeout = min(max(record.born + storing.lifetime - now, 0.0) + storing.keep, _LONGEST)
        if timeout <= 0:
            return {}
        writes: list[tuple[str, Record, float | None]] = []
        if index is not None:
            writes.append((index.key, index, max(timeout, _INDEX_TIMEOUT)))
        writes.append((key, record, timeout))
        self._write(writes)
        return self.records

    def abandoned(self) -> None:
        """The body broke off, the client left, or something failed: nothing of it is stored."""
        self.keep = False
        self.stored_ttl = None

    def _write(self, writes: Sequence[tuple[str, Record, float | None]]) -> None:
        self.writes = [*self.writes, *writes]
        self.guard = (f"{self.of}\0M", self._token())

    def _place(self, head: Head) -> tuple[str | None, VaryIndex | None]:
        """The key of the response that is to be stored, and the `VaryIndex` to write with it, if one is needed.

        A writer that found an index with all the names it needs leaves that index alone: were it written again, it
        could bring back what a purge has just removed. New names make a new index, and with it new variants.
        """
        engine, of = self.engine, self.of
        assert of is not None
        if self._search_is_news(head):
            return None, None
        names = parse_vary(head.lines("vary"))
        if engine.i18n and self.language is not None:  # the key has what Accept-Language decided, if anybody chose
            names = tuple(name for name in names if name != "accept-language")
        names += engine.properties
        if self.overrides:
            names += (":overrides",)
        primary = self.primary if self.request.method != "HEAD" else keys.head_key(of)
        index = self._index if self._index is not None and self._index.key == primary else None
        if index is None and not names:
            return primary, None
        if index is not None and set(names) <= set(index.names):
            variant = self._secondary(index)
            return (variant if self._has_room(variant) else None), None
        if index is not None:
            names = tuple(dict.fromkeys(index.names + names))
        index = VaryIndex(primary, names, secrets.token_hex(8))
        variant = self._secondary(index)
        engine.remember(of).variants.clear()
        self._has_room(variant)
        return variant, index

    def _search_is_news(self, head: Head) -> bool:
        """The first response with this No-Vary-Search is not stored: its URL's key is another from now on."""
        lines = head.lines("no-vary-search")
        if not lines or not self.engine.policy.no_vary_search:
            return False
        search = parse_no_vary_search(lines)
        if search is None:
            return False
        searches = self.engine.search
        bare = keys.resource(self.engine.space, self.request, "")
        if searches.get(bare) == search:
            return False
        bounded(searches)[bare] = search
        self.engine.seen.clear()
        return self.engine.resource(self.request) != self.of

    def _has_room(self, variant: str) -> bool:
        """Variants of one URL are bounded: whoever sends new field values all day fills no store."""
        assert self.of is not None
        variants = self.engine.remember(self.of).variants
        if variant not in variants and len(variants) >= self.engine.policy.max_variants:
            for key in [key for key, expires in variants.items() if expires <= self.now]:
                del variants[key]
            if len(variants) >= self.engine.policy.max_variants:
                return False
        assert self._storing is not None
        variants[variant] = self.now + self._storing.lifetime
        return True

    def _tags_of(self, head: Head) -> tuple[str, ...]:
        own = parse_tags(head.lines("cache-tag"), head.lines("surrogate-key"))
        return tuple(dict.fromkeys(own + self.tags)) if self.tags else own

    def _targets(self, head: Head) -> list[str]:
        """The resources that a successful unsafe request invalidates (RFC 9111 §4.4)."""
        request, engine = self.request, self.engine
        found = [engine.resource(request)]
        for target in target_uris(request, head):
            path, _, query = target.partition("?")
            mount = request.mount if path.startswith(request.mount) else ""
            other = Request(scheme=request.scheme, host=request.host, mount=mount, path=path[len(mount) :], query=query)
            found.append(engine.resource(other))
        return list(dict.fromkeys(found))

    # -- what happened ----------------------------------------------------------------------------------------------

    @property
    def settled(self) -> bool:
        """There is something to send instead of calling the application."""
        return self.hit is not None or self.reply is not None

    @property
    def records(self) -> dict[str, Record | None]:
        """What waiting requests may use at once: what was just validated or stored."""
        return {key: record for key, record, _ in self.writes}

    def cannot_copy(self) -> None:
        """The body will pass by unseen (a file handed to the server): this response is not stored."""
        self.never = True

    @property
    def trace(self) -> str:
        """This passage as a member of `Cache-Status` (RFC 9211 §2)."""
        policy = self.engine.policy
        parts = [policy.cache_status or "cachemw"]
        if not self.forward:
            parts.append("hit")
        else:
            parts.append(f"fwd={self.forward}")
            if self.forward_status:
                parts.append(f"fwd-status={self.forward_status}")
            if self.writes or self.keep:
                parts.append("stored")
        if self.stored_ttl is not None:
            parts.append(f"ttl={int(self.stored_ttl)}")
        if self.collapsed:
            parts.append("collapsed")
        if policy.cache_status_key and self.of is not None:
            parts.append(f"key={_quoted(self.primary)}")
        if self.detail:
            parts.append(f"detail={self.detail}")
        return "; ".join(parts)

    def _status_fields(self) -> Fields:
        return () if self.engine.policy.cache_status is None else (("Cache-Status", self.trace),)

    def _marked(self, head: Head) -> Head:
        """The head with our member of Cache-Status behind those of the caches before us."""
        fields = self._status_fields()
        return Head(head.status, head.fields + fields, head.reason) if fields else head

    def _extra(self, record: StoredResponse) -> Fields:
        """What a stored response gets on its way out: its age, and what the cache did."""
        age = max(0, int(current_age(record, self.now)))
        if self.stored_ttl is None:
            self.stored_ttl = int(record.lifetime) - age
        return (("Age", str(age)), *self._status_fields())


def _quoted(text: str) -> str:
    """A structured field string (RFC 9651 §3.3.3); what it cannot hold becomes "?"."""
    safe = "".join(c if " " <= c <= "~" else "?" for c in text)
    return '"' + safe.replace("\\", "\\\\").replace('"', '\\"') + '"'


def _patched(head: Head, lifetime: float, now: float) -> Head:
    """Expires and Cache-Control: max-age for a lifetime that this cache chose, merged with what is there (Django)."""
    seconds = int(lifetime)
    control = head.cache_control
    stated = control.seconds("max-age")
    fields = tuple(field for field in head.fields if field[0].lower() != "cache-control")
    if not head.lines("expires"):
        fields += (("Expires", format_date(now + seconds)),)
    age = seconds if stated is None else min(seconds, stated)
    kept = (directive for directive in control.directives if directive[0] != "max-age")
    value = f"max-age={age}" if not control else dump_cache_control(CacheControl((*kept, ("max-age", str(age)))))
    return Head(head.status, (*fields, ("Cache-Control", value)), head.reason)


def _varying_on_authorization(request: Request, head: Head) -> Head:
    """Django's way with credentials: the answer to a request with Authorization varies on it, unless it is public."""
    names = parse_vary(head.lines("vary"))
    if not request.value("authorization") or "public" in head.cache_control or "authorization" in names or "*" in names:
        return head
    vary = ", ".join((*head.lines("vary"), "Authorization"))
    kept = tuple(field for field in head.fields if field[0].lower() != "vary")
    return Head(head.status, (*kept, ("Vary", vary)), head.reason)


def _is_complete(head: Head, body: bytes, method: str) -> bool:
    """Is the body as long as the response says (RFC 9112 §8)?"""
    lines = head.lines("content-length")
    if not lines or method == "HEAD":
        return True
    return all(line.strip(" \t") == str(len(body)) for line in lines)


def _sized(fields: Fields, status: int, body: bytes) -> Fields:
    """A stored body's length is known, so a hit says it, and needs no chunks."""
    if status in (204, 304) or any(name.lower() == "content-length" for name, _ in fields):
        return fields
    return (*fields, ("Content-Length", str(len(body))))
