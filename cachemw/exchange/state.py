"""State: what is known about one request on its way through the cache, and the account of it in RFC 9211's words."""

from __future__ import annotations

import enum
from collections.abc import Callable, Mapping, Sequence
from functools import lru_cache
from types import MappingProxyType
from typing import Any, Final, Generic, TypeVar

from cachemw.engine import Engine, variant_key
from cachemw.rfc9111.bodies import Body
from cachemw.rfc9111.fields import NoVarySearch, parse_no_vary_search
from cachemw.rfc9111.keys import MARK
from cachemw.rfc9111.messages import Fields, Head, HitForMiss, Mark, Record, StoredResponse, VaryIndex
from cachemw.rfc9111.requests import Request
from cachemw.rfc9111.reuse import age
from cachemw.rfc9111.shapes import Verdict
from cachemw.rfc9111.storing import Storing
from cachemw.rules import Rule, Rules

__all__ = [
    "BEFORE",
    "EXCHANGE",
    "LEFT_OUT",
    "NOTHING",
    "Answer",
    "EngineT",
    "Reply",
    "State",
    "Step",
]

#: The place of a request's exchange in its `environ` or `scope`, and of `Request.left_out` in those of a refresh.
EXCHANGE: Final = "cachemw.exchange"
LEFT_OUT: Final = "cachemw.left_out"
#: The place of a request as it came in, on its way from the before hooks, which may change it, to the look-up.
BEFORE: Final = "cachemw.before"

#: Nothing has been looked up yet.
NOTHING: Final[Mapping[str, Record | None]] = MappingProxyType({})

EngineT = TypeVar("EngineT", bound=Engine)


class Step(enum.Enum):
    """What to do with the application's answer."""

    RELAY = "relay"
    REPLY = "reply"  # send `reply` in its place
    HOLD = "hold"  # it is a part: read its whole body and hand it to `combined`
    RETRY = "retry"  # it does not fit what is stored: drop it, and call the application without our conditions


class Reply:
    """A response made of a stored one: a 304, a part, a refusal. `fields` are as the interface wants them."""

    __slots__ = ("body", "fields", "reason", "status")

    def __init__(self, status: int, fields: tuple[Any, ...], body: bytes = b"", reason: str = "") -> None:
        self.status = status
        self.fields = fields
        self.body = body
        self.reason = reason

    @property
    def raw(self) -> tuple[Any, ...]:
        """The fields: a stored response has both forms, a reply is made for one interface."""
        return self.fields


#: What is sent, the fields that go with it, as the interface wants them, and the body.
Answer = tuple[StoredResponse | Reply, tuple[Any, ...], Body]


class State(Generic[EngineT]):
    """What both halves of the cache know about one request and its answer."""

    # The initial values are attributes of the class, so that a hit sets only a few.
    wants: tuple[str, ...] = ()
    hit: StoredResponse | None = None
    reply: Reply | None = None
    extra: tuple[Any, ...] = ()  # fields that go with `hit` or `reply`, as the interface wants them
    flight: str | None = None
    lease: str | None = None
    conditions: Fields | None = None
    refresh = False  # the reply is stale: fetch the page again in the background
    keep = False
    undecided = False  # may the lifetime that this cache chose go out? The body has to tell
    length: int | None = None  # of the body that is kept, if the application states it
    began = 0.0
    writes: Sequence[tuple[str, Record, float | None]] = ()
    drops: Sequence[str] = ()
    # requests whose records are all to be purged, with the query parameters that a rule leaves out of their keys
    purges: Sequence[tuple[Request, tuple[str, ...]]] = ()
    guard: tuple[str, str, float] | None = None  # after the writes: (mark key, its token when the request began, then)
    collapsed = False

    # What a view or a rule asks for; read when the response leaves.
    timeout: float | None = None
    tags: tuple[str, ...] = ()
    never = False
    hooked = False  # hooks of the site run before each look-up, or change each answer
    hooks_within = 0  # caches further in that run hooks of their own, as far as they told this one
    hooks_around = 0  # how many the outer one knew of when this request came here
    reads: tuple[str, ...] = ()  # the fields that a view was seen to read
    suspected: tuple[str, ...] = ()  # more of them, which count if the response states no lifetime
    identified = False  # somebody has identified the user, as credentials do
    nonce = b""  # a number made for this response alone, in case the body has it
    chosen_within = False  # a cache further in has chosen the lifetime, and written it into the response
    ignore: tuple[str, ...] = ()  # query parameters that a rule leaves out of the key
    ignored: Callable[[Request], tuple[str, ...]] | None = None  # the same for another URL, which this may invalidate
    refreshing = False  # a background refresh: a stale response does not answer it

    outer: Any = None  # the exchange of another cache, around this one
    over = False  # the head has left: what a view asks for now comes too late
    leased = False  # other processes wait for this answer
    outer_half: Any = (
        None  # if the halves stand apart: the passage of the outer one, which ends what the inner one begins
    )

    # The request's properties that may be part of the key; the shell fills them in.
    language: str | None = None
    timezone: str | None = None

    known: Mapping[str, Record | None] = NOTHING
    request: Request
    now: float
    plain = False  # the request carries nothing that could change what a stored response means for it
    conditional = False  # except, maybe, If-None-Match or If-Modified-Since
    primary = ""  # the primary key
    of: str | None = None  # the resource; None: this request is not looked up
    distinctions = ""  # what sets it apart from others to its URL: the policy's `keyed_fields`, and earlier choices
    forward = "miss"  # RFC 9211 `fwd`
    forward_status = 0
    stored_ttl: float | None = None
    detail = ""
    stale: StoredResponse | None = None
    candidates: Sequence[Rule] | None = None  # the rules that may apply to the response
    _lacking: Fields = ()  # what the application is asked for to complete a stored part
    _named = False  # the lifetime comes from a rule that names the status
    _strips = False  # a rule has the page stored without its cookies
    _cookies: Fields = ()  # these
    _taken = False  # the inner half has taken it up, if the halves stand apart
    _learnt = False  # this process knew the URL
    _rewritten = False  # the path is not the one in the URL
    _index: VaryIndex | None = None
    _variant = ""
    _search: NoVarySearch | None = None  # what another response said about the query; this key follows from it
    _collapsible: str | None = None  # the key that others may wait for
    _selected: tuple[StoredResponse | None, bool] = (None, False)
    _verdict: Verdict | None = None  # what the rules say of all responses like this one
    _storing: Storing | None = None
    _left: Head | None = None  # as it is stored
    _untold: Head | None = None  # the same without a lifetime of ours
    _seen: bytes | None = None  # the body, where it was seen before the head has left, and showed nothing

    def __init__(self, engine: EngineT) -> None:
        self.engine = engine

    def _secondary(self, index: VaryIndex) -> str:
        """The key of the variant that this request selects."""
        assert self.of is not None
        return variant_key(self.of, index, self.request, self._property, self.engine.policy.normalize_vary)

    def _names(self, names: tuple[str, ...]) -> tuple[str, ...]:
        """All that selected a response: the fields that it nominates, and the properties in the key."""
        engine = self.engine
        if engine.i18n and self.language is not None:  # the key has what Accept-Language decided, if anybody chose
            names = tuple(name for name in names if name != "accept-language")
        if self.distinctions:
            return (*names, *engine.properties, ":distinctions")
        return names + engine.properties

    def _says_so(self, head: Head) -> bool:
        """Does this response itself say about the query what another one said, and what led the request to its key?"""
        return self._search is None or parse_no_vary_search(head.lines("no-vary-search")) == self._search

    def _property(self, name: str) -> str | None:
        return {":language": self.language, ":timezone": self.timezone, ":distinctions": self.distinctions}[name]

    def _token(self, mark: str) -> str:
        """The token that the last purge left in this mark."""
        found = self.known.get(mark)
        return found.token if type(found) is Mark else ""

    def _write(self, writes: list[tuple[str, Record, float | None]]) -> None:
        self.writes = [*self.writes, *writes] if self.writes else writes
        mark = f"{self.of}{MARK}"
        self.guard = (mark, self._token(mark), self.began)

    def abandoned(self) -> None:
        """The body broke off, the client left, or something failed: nothing of it is stored."""
        if self.keep:
            self.keep = False
            self.stored_ttl = None
            self.writes = ()

    def _hear_view(self) -> None:
        """Take over what a view asked for: it speaks to the outermost of the caches around it."""
        outer = self.outer
        if outer is not None:
            self.timeout = outer.timeout if self.timeout is None else self.timeout
            self.tags += outer.tags
            self.reads += outer.reads
            self.suspected += outer.suspected
            self.never = self.never or outer.never
            self.identified = self.identified or outer.identified
            self.chosen_within = self.chosen_within or outer.chosen_within  # a third cache, still further in, told it

    def _say_on(self) -> None:
        """Tell the cache around this one what is known about a page: it may store what this one refuses."""
        outer = self.outer
        outer.tags = tuple(dict.fromkeys(self.tags))
        outer.reads, outer.suspected = self.reads, self.suspected
        outer.hooks_within += self.hooks_within
        outer.identified, outer.chosen_within = self.identified, self.chosen_within

    def _obey_rules(self, status: int, content_type: str | None) -> bool:
        """Take lifetime and tags from the rule for this response, unless a view gave them; False: it is not stored."""
        rule = self._rule_for(status, content_type)
        if rule is None:
            return True
        self.tags += rule.tags
        if self.timeout is None and rule.lifetime is not None:
            self.timeout = rule.lifetime
            self._named = bool(rule.statuses)
        self._strips = rule.set_cookie == "strip"
        return not rule.never

    def _rule_for(self, status: int, content_type: str | None) -> Rule | None:
        candidates = self.candidates
        return Rules.for_response(candidates, status, content_type, self.request.route) if candidates else None

    @property
    def settled(self) -> bool:
        """There is something to send instead of calling the application."""
        return self.hit is not None or self.reply is not None

    @property
    def answer(self) -> Answer:
        """What to send instead of calling the application."""
        hit = self.hit
        if hit is None:
            assert self.reply is not None
            return self.reply, self.extra, self.reply.body
        if hit.chosen and self.outer is not None:
            self.outer.chosen_within = True
        return hit, self.extra, hit.body if self.request.method == "GET" else b""

    @property
    def records(self) -> dict[str, Record | None]:
        """What waiting requests may use at once: what was just validated or stored."""
        return {key: record for key, record, _ in self.writes}

    def admit(self, request: Request) -> bool:
        """Let the inner half take up this request here, if an outer half waits for it; False if not. It does so once.

        If something in between calls the inner half twice, the response is made of two requests, and no key can say
        which: it is not stored.
        """
        if self.outer_half is None:
            return False
        if self._taken:
            self.never = True
            self.abandoned()
            return False
        self._taken = True
        request.first.before = self.request
        return True

    def cannot_copy(self) -> None:
        """The body passes by unseen (a file handed to the server): this response is not stored."""
        self.never = True
        self.detail = self.detail or "passed-on"
        self._pass_by()

    def _pass_by(self) -> None:
        """For a while, let nobody wait for an answer like this one (hit-for-miss)."""
        key, engine = self._collapsible, self.engine
        if key is not None:
            engine.pass_by(key, self.now)
            if self.lease is not None and self.known.get(key) is None:
                self._write([(key, HitForMiss(key), engine.policy.hit_for_miss)])

    @property
    def trace(self) -> str:
        """This passage as a member of `Cache-Status` (RFC 9211 §2)."""
        policy = self.engine.policy
        stored = self.detail != "store" and (
            self.keep or any(not isinstance(record, HitForMiss) for _, record, _ in self.writes)
        )
        account = _account(
            policy.cache_status or "cachemw",
            self.forward,
            self.forward_status,
            bool(self.forward) and stored,
            None if self.stored_ttl is None else int(self.stored_ttl),
            self.collapsed,
        )
        if policy.cache_status_key and self.primary:
            account += f"; key={_quoted(self.primary)}"
        return f"{account}; detail={self.detail}" if self.detail else account

    def _status_fields(self) -> Fields:
        return () if self.engine.policy.cache_status is None else (("Cache-Status", self.trace),)

    def extra_of(self, record: StoredResponse) -> Fields:
        """What a stored response gets on its way out: its age, and what the cache did."""
        old = age(record, self.now)
        if self.stored_ttl is None:
            self.stored_ttl = int(record.lifetime) - old
        return (("Age", str(old)), *self._status_fields())


@lru_cache(maxsize=512)  # most requests of a site have few different ones
def _account(name: str, forward: str, status: int, stored: bool, ttl: int | None, collapsed: bool) -> str:
    parts = [name]
    if not forward:
        parts.append("hit")
    else:
        parts.append(f"fwd={forward}")
        if status:
            parts.append(f"fwd-status={status}")
        if stored:
            parts.append("stored")
    if ttl is not None:
        parts.append(f"ttl={ttl}")
    if collapsed:
        parts.append("collapsed")
    return "; ".join(parts)


def _quoted(text: str) -> str:
    """A structured field string (RFC 9651 §3.3.3); what it cannot hold becomes "?"."""
    safe = "".join(c if " " <= c <= "~" else "?" for c in text)
    return '"' + safe.replace("\\", "\\\\").replace('"', '\\"') + '"'
