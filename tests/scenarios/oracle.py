"""An oracle: told all that reached one origin and what one client was answered, it says whether that was permitted.

It reads RFC 9111 (with RFC 5861, 9110, 9213) slowly and plainly, shares no code with the cache, and knows nothing of
how that works: from the history it works out every stored response that there could be, and asks of each whether the
answer may have been made of it. Every response of the origin says in `X-Head` which one it is.

`Policy.rfc9111()` is held to the RFCs (`strict`); `Policy()` to what DESIGN says besides: only a 200 is given a
lifetime, of 600 seconds, where it states none; `Set-Cookie`, `no-cache`, 206 and answers to POST or to Range are not
stored; a page whose lifetime was chosen is kept apart from session cookies; a request's Cache-Control means nothing.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from math import inf

from tests.scenarios.readings import (
    Pairs,
    combined,
    content_range,
    delta,
    directives,
    entity_tag,
    entity_tags,
    equivalent,
    http_date,
    lines,
    members,
    targeted,
)

__all__ = ["Answered", "Asked", "Call", "Event", "Oracle", "Purge"]

SAFE = ("GET", "HEAD", "OPTIONS", "TRACE")
HEURISTIC = (200, 203, 204, 206, 300, 301, 308, 404, 405, 410, 414, 501)  # RFC 9110 §15.1
UNKNOWN = (299, 599)
ERRORS = (500, 502, 503, 504)  # RFC 5861 §4
ONE_HOP = (  # RFC 9111 §3.1, RFC 9110 §7.6.1
    "connection",
    "keep-alive",
    "proxy-authenticate",
    "proxy-authentication-info",
    "proxy-authorization",
    "proxy-connection",
    "te",
    "trailer",
    "transfer-encoding",
    "upgrade",
)
#: What describes the stored octets, which an answer without content does not change (RFC 9111 §3.2).
OF_THE_BODY = ("content-encoding", "content-length", "content-md5", "content-digest", "content-range", "content-type")
IN_304 = ("content-location", "date", "etag", "vary", "cache-control", "expires")  # RFC 9110 §15.4.5
#: What makes a request or a response too intricate for `missed`.
UNPLAIN = (
    *("range", "if-none-match", "if-modified-since", "if-match", "if-unmodified-since"),
    *("cache-control", "pragma", "authorization", "cookie"),
)
UNPLAIN_ANSWER = ("age", "expires", "set-cookie", "cdn-cache-control", "no-vary-search", "pragma")
PLAIN = {"max-age=60": 60, "public, max-age=3600": 3600, "immutable, max-age=60": 60}
CONDITIONS = ("if-none-match", "if-modified-since", "range", "if-range")


@dataclass(frozen=True)
class Asked:
    """A request. `target` is "/path?query"."""

    method: str
    host: str
    target: str
    fields: Pairs = ()

    @property
    def path(self) -> str:
        return self.target.partition("?")[0]

    @property
    def query(self) -> str:
        return self.target.partition("?")[2]

    def same_url(self, other: Asked, said: str | None = None) -> bool:
        """RFC 9111 §2, and what a No-Vary-Search said."""
        return (self.host, self.path) == (other.host, other.path) and equivalent(self.query, other.query, said)


@dataclass(frozen=True)
class Answered:
    """A response as the client got it. `broken`: it ended with an error."""

    status: int
    fields: Pairs
    body: bytes
    broken: bool = False


@dataclass(frozen=True)
class Call:
    """A request as it reached the origin, and the response; status 0: none, the origin failed.

    asked: when it was made, or, if one before it was in vain, when that was: an age may be taken for higher than it is.
    asker: the request of the client on whose behalf it was made; None for a refresh in the background.
    """

    request: Asked
    asked: float
    at: float
    status: int
    fields: Pairs
    body: bytes = b""
    whole: bool = True
    asker: Asked | None = None


@dataclass(frozen=True)
class Purge:
    """The operator wanted this URL gone, or validated."""

    host: str
    target: str
    soft: bool


Event = Call | Purge


@dataclass
class Stored:
    """A response that a cache may have stored, as updated by all that spoke of it since."""

    call: Call  # the last one that told its fields
    origin: Call  # the one that brought its content
    status: int
    fields: Pairs
    body: bytes
    first: int = 0
    length: int | None = None  # of the whole; None: as long as the body
    part: bool = False
    refused: list[str] = field(default_factory=list)  # why it may not be stored
    before: list[str] = field(default_factory=list)  # why what it was made of may not be used even for a validation
    gone: str = ""  # why it may not be used any more without a validation
    purged: bool = False
    soft: bool = False

    @property
    def head(self) -> str | None:
        return combined(self.call.fields, "x-head")


class Oracle:
    """What may be answered, under `Policy.rfc9111()` (strict) or `Policy()`."""

    def __init__(self, *, strict: bool, seconds: float = 600) -> None:
        self.strict = strict
        self.seconds = seconds

    # -- what a response says ---------------------------------------------------------------------------------------

    def control(self, fields: Pairs) -> list[tuple[str, str | None]]:
        """The directives that count (RFC 9213 §2.2: of the targeted field, if it is valid and says anything)."""
        return self.targeted(fields) or directives(lines(fields, "cache-control"))

    @staticmethod
    def targeted(fields: Pairs) -> list[tuple[str, str | None]] | None:
        told = targeted(lines(fields, "cdn-cache-control"))
        deltas = ("max-age", "s-maxage", "stale-while-revalidate", "stale-if-error")
        if told is None or any(name in deltas and not (value or "").lstrip("-").isdigit() for name, value in told):
            return None
        return [(name, value and value.strip('"')) for name, value in told]

    def has(self, fields: Pairs, *names: str) -> bool:
        """Is one of these directives there, speaking of the whole response?"""
        return any(name in names and not self.qualifies(name, argument) for name, argument in self.control(fields))

    @staticmethod
    def qualifies(name: str, argument: str | None) -> bool:
        """Does the directive speak only of the fields that it lists (RFC 9111 §5.2.2.4, §5.2.2.7)?"""
        return name in ("private", "no-cache") and bool(argument and members([argument]))

    def withheld(self, fields: Pairs) -> set[str]:
        """The fields that `private="…"` and `no-cache="…"` keep from further clients."""
        told = [argument or "" for name, argument in self.control(fields) if self.qualifies(name, argument)]
        return {name.lower() for name in members(told)}

    def stated(self, fields: Pairs, at: float) -> float | None:
        """RFC 9111 §4.2.1: the lifetime that a response states; of several, "the first occurrence"."""
        aimed = self.targeted(fields)
        control = self.control(fields)
        for name in ("s-maxage", "max-age"):
            for directive, argument in control:
                if directive == name:
                    return delta(argument) or 0
        expires = lines(fields, "expires")
        if aimed is not None or not expires:
            return None
        until = http_date(expires[0], at)
        since = self.dated(fields, at)
        return 0 if until is None else max(until - moment for moment in since)

    @staticmethod
    def dated(fields: Pairs, at: float) -> list[float]:
        """What Date may be taken to say; where it says nothing, the response is of the time of its receipt."""
        told = [http_date(line, at) for line in lines(fields, "date")]
        if len(told) == 1 and told[0] is not None:
            return [told[0]]
        return [at, *[moment for moment in told if moment is not None]]

    def lifetime(self, fields: Pairs, status: int, at: float) -> tuple[float, bool]:
        """The longest lifetime that may be taken for that of a response, and whether the cache has chosen it."""
        stated = self.stated(fields, at)
        if stated is not None:
            return stated, False
        if not self.strict:
            return (self.seconds if status == 200 else 0), True
        modified = [http_date(line, at) for line in lines(fields, "last-modified")]
        if len(modified) != 1 or modified[0] is None:
            return 0, True
        if status not in HEURISTIC and not self.has(fields, "public"):
            return 0, True
        return min(max(0.0, max(self.dated(fields, at)) - modified[0]) * 0.1, 86400), True

    def ages(self, stored: Stored, now: float) -> list[float]:
        """RFC 9111 §4.2.3: what the current age of a response may be, to the letter of its fields."""
        call = stored.call
        told = lines(call.fields, "age")
        age_value = delta(told[0].split(",")[0].strip(" \t")) or 0 if told else 0
        corrected = age_value + call.at - call.asked
        initial = [max(0.0, call.at - date, corrected) for date in self.dated(call.fields, call.at)]
        return [one + now - call.at for one in initial]

    def kept(self, fields: Pairs) -> list[tuple[str, str]]:
        """RFC 9111 §3.1: what is stored of the fields."""
        dropped = {*ONE_HOP, "age", *map(str.lower, members(lines(fields, "connection"))), *self.withheld(fields)}
        dropped |= set() if self.strict else {"set-cookie"}
        return [(name, value) for name, value in fields if name.lower() not in dropped]

    # -- §3: storing ------------------------------------------------------------------------------------------------

    def refusals(self, request: Asked, status: int, fields: Pairs, at: float, *, whole: bool = True) -> list[str]:
        """Why a response may not be stored, or not be used for anybody else."""
        stated = self.stated(fields, at)
        lifetime, chosen = self.lifetime(fields, status, at)
        found = list(self._refused_request(request, status, fields, stated))
        if not whole:
            found.append("§3.3: it was not complete")
        if not 200 <= status <= 599 or status in (304, 412, 416):
            found.append("§3: it is no page")
        understood = self.has(fields, "must-understand") and status not in UNKNOWN
        if self.has(fields, "must-understand") and status in UNKNOWN:
            found.append("§5.2.2.3: its status is not understood")
        if self.has(fields, "no-store") and not understood:
            found.append("§5.2.2.5: no-store")
        if self.has(fields, "private"):
            found.append("§5.2.2.7: private")
        if "*" in members(lines(fields, "vary")):
            found.append("§4.1: it varies on anything")
        if lines(fields, "set-cookie") and "set-cookie" not in self.withheld(fields) and (not self.strict or chosen):
            found.append("it sets a cookie")
        if not self.strict and self.has(fields, "no-cache"):
            found.append("Policy(): no-cache is not stored")
        if self.strict and stated is None and status not in HEURISTIC and not self.has(fields, "public"):
            found.append("§3: nothing makes it storable")
        if not self.strict and chosen and lifetime <= 0:
            found.append("Policy(): its status needs a lifetime")
        return found

    def _refused_request(self, request: Asked, status: int, fields: Pairs, stated: float | None) -> Iterator[str]:
        if request.method == "POST" and self.strict:
            itself = ("", request.target, request.target.removeprefix("/"), f"http://{request.host}{request.target}")
            here = combined(fields, "content-location") in itself
            if not (here and stated is not None and status == 200):
                yield "RFC 9110 §9.3.3: the answer to POST is not what GET gives"
        elif request.method not in ("GET", "HEAD"):
            yield "§3: the method"
        if combined(request.fields, "authorization") is not None and not self.has(
            fields, "public", "s-maxage", "must-revalidate"
        ):
            yield "§3.5: it answered a request with Authorization"
        if self.strict and any(name == "no-store" for name, _ in directives(lines(request.fields, "cache-control"))):
            yield "§5.2.1.5: the request said no-store"
        if status == 206 and content_range(combined(fields, "content-range")) is None:
            yield "§3.3: it does not say which part it is"
        if not self.strict and (status == 206 or lines(request.fields, "range")):
            yield "Policy(): parts are not stored"
        if not self.strict and stated is None and self.is_of_a_session(request, fields):
            yield "Policy(): it answered a request with a session"

    @staticmethod
    def is_of_a_session(request: Asked, fields: Pairs) -> bool:
        """The stories' session cookie, of which the page does not say that it depends on it."""
        nominated = [name.lower() for name in members(lines(fields, "vary"))]
        return "sessionid=" in (combined(request.fields, "cookie") or "") and "cookie" not in nominated

    # -- the history ------------------------------------------------------------------------------------------------

    def stored(self, history: Sequence[Event]) -> list[Stored]:
        """All that a cache may have stored by now, with what became of it."""
        found: list[Stored] = []
        for event in history:
            if isinstance(event, Purge):
                for one in found:
                    if (one.origin.request.host, one.origin.request.target) == (event.host, event.target):
                        one.soft = True
                        one.purged = one.purged or not event.soft
            elif event.status:
                self._learn(found, event)
        return found

    def _learn(self, found: list[Stored], call: Call) -> None:
        request, fields = call.request, call.fields
        if request.method not in SAFE and 200 <= call.status < 400:
            self._invalidate(found, call)
        known = [one for one in found if one.origin.request.same_url(request, self._said(one))]
        if call.status == 304:
            for one in known:
                self._validate(found, one, call)
            return
        refused = self.refusals(request, call.status, fields, call.at, whole=call.whole)
        new = Stored(call, call, call.status, self.kept(fields), call.body, refused=refused)
        if call.status == 206 and (part := content_range(combined(fields, "content-range"))) is not None:
            new.first, new.length, new.part = part[0], part[2], not (part[0] == 0 and part[1] + 1 == part[2])
            new.status = 206 if new.part else 200
            found.extend(self._joined(one, new) for one in known if self._are_of_one(one, new))
        if self.strict and request.method == "HEAD" and call.status == 200:
            for one in known:
                if one.origin.request.method != "HEAD" and self._tells_of(one, call):
                    found.append(self._updated(one, call))
        found.append(new)

    def _said(self, one: Stored) -> str | None:
        return combined(one.fields, "no-vary-search")

    def _invalidate(self, found: list[Stored], call: Call) -> None:
        """RFC 9111 §4.4: the target URI, and those of the same origin that the answer names."""
        host, targets = call.request.host, [call.request.target]
        for name in ("location", "content-location"):
            for line in lines(call.fields, name):
                path = line.removeprefix(f"http://{host}")
                targets += [path] if path.startswith("/") and not path.startswith("//") else []
        for one in found:
            if one.origin.request.host == host and one.origin.request.target in targets:
                one.gone = one.gone or f"§4.4: {call.request.method} {call.request.target} has changed it"

    def _validate(self, found: list[Stored], one: Stored, call: Call) -> None:
        """RFC 9111 §4.3.4: what a 304 makes of a stored response."""
        sent, asker = call.request.fields, call.asker
        tag, modified = entity_tag(combined(one.fields, "etag")), combined(one.fields, "last-modified")
        tags = entity_tags(combined(sent, "if-none-match") or "")
        named = isinstance(tags, list) and tag in tags
        if not named and not (tags is None and modified and combined(sent, "if-modified-since") == modified):
            return
        new, told = entity_tag(combined(call.fields, "etag")), combined(call.fields, "last-modified")
        if new is not None and (tag is None or new[1] != tag[1] or (tag[0] and not new[0])):
            return
        if new is None and told is not None and modified is not None and told != modified:
            return
        found.append(self._updated(one, call))
        own = asker is not None and all(combined(asker.fields, n) == combined(sent, n) for n in CONDITIONS[:2])
        unstored = self.strict and any(name == "no-store" for name, _ in directives(lines(sent, "cache-control")))
        if not own and not unstored and selected(one, call.request) and one.origin.request.method == "GET":
            one.gone = one.gone or "§4.3.4: a 304 has updated it"

    def _tells_of(self, one: Stored, call: Call) -> bool:
        """RFC 9111 §4.3.5: does this answer to HEAD speak of the stored response?"""
        told = [name for name in ("etag", "last-modified", "content-length") if lines(call.fields, name)]
        own = [(name, value) for name, value in one.fields if name.lower() != "content-length"]
        own.append(("content-length", f"{len(one.body)}"))
        return bool(told) and all(combined(call.fields, name) == combined(own, name) for name in told)

    def _updated(self, one: Stored, call: Call) -> Stored:
        """RFC 9111 §3.2, under the fields of a 304 or of an answer to HEAD."""
        dropped = {*OF_THE_BODY, "etag"} if lines(one.fields, "etag") else {*OF_THE_BODY}
        new = [(name, value) for name, value in self.kept(call.fields) if name.lower() not in dropped]
        names = {name.lower() for name, _ in new} | ({"date"} if not lines(call.fields, "date") else set())
        fields = self.kept([*[pair for pair in one.fields if pair[0].lower() not in names], *new])
        asked = replace(call.request, method=one.origin.request.method)
        refused = self.refusals(asked, one.status, fields, call.at) + [r for r in one.refused if "complete" in r]
        before = one.before + one.refused + (["it was purged"] if one.purged else [])
        if not selected(one, call.request):
            before.append("§4.1: the 304 speaks of another variant")
        _, chosen = self.lifetime(one.fields, one.status, one.call.at)
        if not self.strict and chosen and self.is_of_a_session(call.request, one.fields):
            before.append("Policy(): whose lifetime was chosen is not for a session")
        return replace(one, call=call, fields=fields, refused=refused, before=before, gone="", purged=False, soft=False)

    def _are_of_one(self, one: Stored, new: Stored) -> bool:
        """RFC 9111 §3.4: only under one strong entity-tag, and without a hole."""
        own, tag = entity_tag(combined(one.fields, "etag")), entity_tag(combined(new.fields, "etag"))
        touching = new.first <= one.first + len(one.body) and one.first <= new.first + len(new.body)
        return own is not None and own == tag and not own[0] and touching and one.status in (200, 206)

    def _joined(self, one: Stored, new: Stored) -> Stored:
        both = self._updated(one, new.call)
        first = min(one.first, new.first)
        octets = {one.first + place: octet for place, octet in enumerate(one.body)}
        octets |= {new.first + place: octet for place, octet in enumerate(new.body)}
        both.first, both.body = first, bytes(octets[place] for place in sorted(octets))
        both.length = one.length if one.part and new.length is None else new.length
        both.part = not (first == 0 and len(both.body) == both.length)
        both.status = 206 if both.part else 200
        return both

    # -- the judgement ----------------------------------------------------------------------------------------------

    def judge(self, history: Sequence[Event], since: int, asked: Asked, answer: Answered, now: float) -> list[str]:
        """Why this answer, at `now`, was not permitted; `history[since:]` came of this very request. []: it was."""
        head = combined(answer.fields, "x-head")
        calls = [event for event in history[since:] if isinstance(event, Call) and event.asker is not None]
        hit = "; hit" in (lines(answer.fields, "cache-status") or [""])[-1]
        if answer.broken:
            broke = any(not call.whole or not call.status for call in calls)
            return [] if broke else ["the answer breaks off, and no answer of the origin did"]
        attempts: list[list[str]] = []
        for call in calls:
            if head is not None and combined(call.fields, "x-head") == head:
                attempts.append(self._relayed(call, asked, answer, hit=hit))
        if head is None and answer.status == 504 and not answer.body:
            attempts.append(self._refused_to_ask(asked, calls))
        for one in self.stored([*history[:since], *calls]):
            if head is None and answer.status not in (412, 416):
                continue
            if head is None or one.head == head:
                ours = any(one.call is call for call in calls)
                attempts.append(list(self._reused(one, asked, answer, now, ours, calls, hit)))
        return min(attempts, key=len) if attempts else [f"nothing that it could be made of: head {head}"]

    def missed(self, history: Sequence[Event], since: int, asked: Asked, answer: Answered, now: float) -> list[str]:
        """Was this the second of two plain requests, and the first had brought a page that is plainly fresh still?"""
        calls = [event for event in history[since:] if isinstance(event, Call) and event.asker is not None]
        if not calls or asked.method != "GET" or any(lines(asked.fields, name) for name in UNPLAIN):
            return []
        before = [event for event in history[:since] if isinstance(event, Call)]
        if not before or before[-1] is not history[since - 1] or not before[-1].status:
            return []
        call = before[-1]
        same = call.request.method == "GET" and call.request.same_url(asked) and call.request.query == asked.query
        if not same or call.asker is None or call.asker.fields != asked.fields or call.status != 200:
            return []
        if any(lines(call.fields, name) for name in UNPLAIN_ANSWER) or not call.whole:
            return []
        control = lines(call.fields, "cache-control")
        vary = members(lines(call.fields, "vary"))
        if vary and now - before[0].at > 80_000:  # what names the fields is kept for a day
            return []
        if len(control) == 1 and control[0] in PLAIN and "*" not in vary and now - call.asked < PLAIN[control[0]] - 31:
            return [f"it should have been reused: {combined(answer.fields, 'cache-status')}"]
        return []

    def _refused_to_ask(self, asked: Asked, calls: Sequence[Call]) -> list[str]:
        wanted = any(name == "only-if-cached" for name, _ in directives(lines(asked.fields, "cache-control")))
        return [] if self.strict and wanted and not calls else ["504, and nobody said only-if-cached"]

    def _relayed(self, call: Call, asked: Asked, answer: Answered, *, hit: bool) -> list[str]:
        """Was the origin's answer to this very request passed on as it was?"""
        found = [] if not hit else ["Cache-Status says hit, and the origin was asked"]
        if call.request.method != asked.method or not call.request.same_url(asked):
            found.append(f"{asked.method} {asked.target} was asked as {call.request.method} {call.request.target}")
        if call.status != answer.status or call.body != answer.body:
            found.append(f"not what the origin sent: {answer.status} {answer.body[:30]!r} for {call.status}")
        for name in {name.lower() for name, _ in asked.fields} - {*CONDITIONS, "host"}:
            if combined(call.request.fields, name) != combined(asked.fields, name):
                found.append(f"the origin was not told {name}")
        for status, conditions in ((304, CONDITIONS[:2]), (206, ("range",)), (416, ("range",))):
            sent = [(name, value) for name in conditions if (value := combined(call.request.fields, name)) is not None]
            own = any(combined(asked.fields, name) == value for name, value in sent)
            if call.status == status and sent and not own:
                found.append(f"a {status} to conditions that were not the client's")
        patched = () if self.strict or self.stated(call.fields, call.at) is not None else ("cache-control", "expires")
        names = {name.lower() for name, _ in (*call.fields, *answer.fields)} - {*patched, "cache-status"}
        for name in names:
            if lines(call.fields, name) != lines(answer.fields, name):
                found.append(f"{name} is {lines(answer.fields, name)}, was {lines(call.fields, name)}")
        return found

    def _reused(
        self, one: Stored, asked: Asked, answer: Answered, now: float, validated: bool, calls: Sequence[Call], hit: bool
    ) -> Iterator[str]:
        """Why the answer may not have been made of this stored response."""
        if asked.method not in ("GET", "HEAD") or (asked.method == "GET" and one.origin.request.method == "HEAD"):
            yield f"§4: {one.origin.request.method} does not answer {asked.method}"
        if not validated and not one.origin.request.same_url(asked, self._said(one)):
            yield f"§4: it is of {one.origin.request.target}"
        yield from one.before
        if not validated:
            yield from one.refused
            if one.gone:
                yield one.gone
            if one.purged:
                yield "it was purged"
        if not validated and not selected(one, asked):
            yield "§4.1: the nominated fields do not match"
        _, chosen = self.lifetime(one.fields, one.status, one.call.at)
        if not validated and not self.strict and chosen and self.is_of_a_session(asked, one.fields):
            yield "Policy(): whose lifetime was chosen is not for a session"
        if not validated and not self._is_fresh(one, asked, now):
            yield from self._stale(one, asked, now, calls)
        yield from self._aged(one, answer, now)
        yield from self._conditional(one, asked, answer)
        if answer.status not in (412, 416):
            yield from self._fields(one, answer, validated=validated, chosen=chosen)
        if hit and calls:
            yield "Cache-Status says hit, and the origin was asked"
        if not hit and not calls:
            yield "Cache-Status says no hit, and nobody was asked"

    def _is_fresh(self, one: Stored, asked: Asked, now: float) -> bool:
        """RFC 9111 §4.2, and what the request wants besides (§5.2.1)."""
        lifetime, _ = self.lifetime(one.fields, one.status, one.call.at)
        fresh = not one.soft and not self.has(one.fields, "no-cache")
        return any(fresh and age < lifetime and self._is_wanted(asked, age, lifetime) for age in self.ages(one, now))

    def _is_wanted(self, asked: Asked, age: float, lifetime: float) -> bool:
        if not self.strict:
            return True
        for name, argument in wishes(asked):
            if name == "no-cache" or (name == "max-age" and age > (delta(argument) or 0)):
                return False
            if name == "min-fresh" and lifetime - age < (delta(argument) or 0):
                return False
        return True

    def _stale(self, one: Stored, asked: Asked, now: float, calls: Sequence[Call]) -> Iterator[str]:
        """RFC 9111 §4.2.4, RFC 5861: why it may not be sent stale."""
        control = self.control(one.fields)
        lifetime, _ = self.lifetime(one.fields, one.status, one.call.at)
        age = min(self.ages(one, now))
        if self.has(one.fields, "must-revalidate", "proxy-revalidate", "s-maxage", "no-cache"):
            yield f"§4.2.4: stale ({age} of {lifetime}), which it forbids"
            return
        failed = any(call.status in (*ERRORS, 0) for call in calls)
        cut_off = any(call.status in (502, 504, 0) for call in calls)
        if failed and (self._within(control, "stale-if-error", age - lifetime) or (self.strict and cut_off)):
            return
        wanted = wishes(asked) if self.strict else []
        names = {name for name, _ in wanted}
        given_up = [(delta(argument) or 0) if argument else inf for name, argument in wanted if name == "max-stale"]
        young = all(age <= (delta(argument) or 0) for name, argument in wanted if name == "max-age")
        if given_up and age - lifetime <= given_up[0] and young and "no-cache" not in names:
            return
        meanwhile = not calls and self._within(control, "stale-while-revalidate", age - lifetime)
        if meanwhile and not names & {"no-cache", "max-age", "min-fresh"}:
            return
        yield f"§4.2: not fresh: {age} of {lifetime}{', softly purged' * one.soft}"

    @staticmethod
    def _within(control: Sequence[tuple[str, str | None]], name: str, staleness: float) -> bool:
        return any(told == name and staleness <= (delta(argument) or 0) for told, argument in control)

    def _aged(self, one: Stored, answer: Answered, now: float) -> Iterator[str]:
        """RFC 9111 §5.1: one Age, which says the truth to a second."""
        told = lines(answer.fields, "age")
        if answer.status in (412, 416) and not told:
            return
        said = delta(told[0]) if len(told) == 1 else None
        if said is None:
            yield f"§5.1: Age is {told}"
        elif not any(abs(said - min(age, 2**31)) <= 1 or said >= 2**31 <= age for age in self.ages(one, now)):
            yield f"§4.2.3: Age is {said}, in truth {self.ages(one, now)}"

    def _conditional(self, one: Stored, asked: Asked, answer: Answered) -> Iterator[str]:
        """RFC 9110 §13.2.2 and §14.2: is this what the client's own conditions and range make of the response?"""
        allowed = outcomes(one, asked)
        if answer.status not in allowed:
            yield f"RFC 9110 §13.2.2: {answer.status}, where {sorted(allowed)} would be right"
            return
        span = allowed[answer.status]
        if answer.status == 206 and span is not None:
            first, last = span
            whole = one.length if one.part else len(one.body)
            if combined(answer.fields, "content-range") != f"bytes {first}-{last}/{'*' if whole is None else whole}":
                yield f"RFC 9110 §14.4: Content-Range is {combined(answer.fields, 'content-range')}"
            if answer.body != one.body[first - one.first : last - one.first + 1]:
                yield f"RFC 9110 §15.3.7: other octets, {answer.body[:30]!r}"
        elif answer.status == 416:
            if combined(answer.fields, "content-range") != f"bytes */{len(one.body)}":
                yield f"RFC 9110 §15.5.17: Content-Range is {combined(answer.fields, 'content-range')}"
        elif answer.status == one.status and asked.method == "GET" and answer.body != one.body:
            yield f"other octets: {answer.body[:30]!r}, stored are {one.body[:30]!r}"
        if answer.body and (asked.method == "HEAD" or answer.status in (304, 412, 416)):
            yield "RFC 9110 §9.3.2, §15.4.5: it has a body"
        told = lines(answer.fields, "content-length")
        sent = str(len(one.body if asked.method == "HEAD" and answer.status == one.status else answer.body))
        if told and told != [sent] and answer.status not in (204, 304) and one.origin.request.method != "HEAD":
            yield f"RFC 9110 §8.6: Content-Length is {told} for {sent} octets"

    def _fields(self, one: Stored, answer: Answered, *, validated: bool, chosen: bool) -> Iterator[str]:
        """RFC 9111 §3.1, §3.2: are its fields those of the stored response?"""
        free = {"age", "cache-status", "content-length", "content-range"}
        free |= {"cache-control", "expires"} if chosen and not self.strict else set()
        free |= set() if lines(one.fields, "date") else {"date"}
        free |= {"set-cookie"} if validated else set()  # the cookies of this very answer are this client's
        for name in {name.lower() for name, _ in (*one.fields, *answer.fields)} - free:
            told = combined(answer.fields, name)
            if told is None and answer.status == 304 and name not in IN_304:
                continue
            if told != combined(one.fields, name):
                yield f"{name} is {told}, stored is {combined(one.fields, name)}"


def wishes(asked: Asked) -> list[tuple[str, str | None]]:
    """The request's directives; without any, what Pragma says in their place (RFC 9111 §5.4)."""
    return directives(lines(asked.fields, "cache-control") or lines(asked.fields, "pragma"))


def selected(one: Stored, asked: Asked) -> bool:
    """RFC 9111 §4.1: do all nominated fields match, up to what normalising may do to them?"""
    names = [name.lower() for name in members(lines(one.fields, "vary"))]
    return "*" not in names and all(normal(one.call.request, name) == normal(asked, name) for name in names)


def normal(asked: Asked, name: str) -> list[str] | None:
    """The field in one of the spellings that mean the same, of the values that the stories use."""
    text = combined(asked.fields, name)
    if text is None or name in ("authorization", "cookie"):
        return None if text is None else [text]
    found = members(lines(asked.fields, name))
    if not name.startswith("accept"):
        return found
    pieces = [[piece.strip(" \t").lower() for piece in one.split(";")] for one in found]
    malformed = any(" " in piece for one in pieces for piece in one)
    return [text] if malformed else sorted(";".join(one) for one in pieces)


def outcomes(one: Stored, asked: Asked) -> dict[int, tuple[int, int] | None]:
    """The statuses that the client's conditions and range permit for this stored response; for 206 the octets too."""
    own = entity_tag(combined(one.fields, "etag"))
    allowed: dict[int, tuple[int, int] | None] = {}
    modified = moment_of(one.fields, "last-modified", one.call.at)
    if one.status == 200:
        until = moment_of(asked.fields, "if-unmodified-since", one.call.at)
        if (match := combined(asked.fields, "if-match")) is not None:
            tags = entity_tags(match)
            if tags != "*" and not (own is not None and not own[0] and own in (tags or [])):
                allowed[412] = None  # "a cache or intermediary MAY ignore If-Match" (RFC 9110 §13.1.1)
        elif until is not None and modified is not None and modified > until:
            allowed[412] = None
    if one.status == 200 or one.part:
        verdict = not_modified(one, asked, own, modified)
        if verdict is not False:
            allowed[304] = None
        if verdict is True and not one.part:
            return allowed
    if one.part or (one.status == 200 and asked.method == "GET" and lines(asked.fields, "range")):
        span = ranged(one, asked, own)
        if span is not None:
            allowed[206] = span
        elif one.status == 200 and span is None and unsatisfiable(one, asked):
            allowed[416] = None
    if not one.part:
        allowed[one.status] = None
    return allowed


def moment_of(fields: Pairs, name: str, now: float) -> float | None:
    told = lines(fields, name)
    return http_date(told[0], now) if len(told) == 1 else None


def not_modified(one: Stored, asked: Asked, own: tuple[bool, str] | None, modified: float | None) -> bool | None:
    """Do If-None-Match, or else If-Modified-Since, say that the client has it? None: they may be read both ways."""
    told = combined(asked.fields, "if-none-match")
    if told is not None:
        tags = entity_tags(told)
        if tags is None:
            return None
        return isinstance(tags, str) or (own is not None and own[1] in [tag for _, tag in tags])
    since = moment_of(asked.fields, "if-modified-since", one.call.at)
    if since is None:
        return False
    if modified is None:
        return None  # §4.3.2: "a cache SHOULD use the Date field value", or the time of receipt
    return modified <= since


def asked_range(asked: Asked) -> tuple[int | None, int | None] | None:
    told = lines(asked.fields, "range")
    first, dash, last = told[0].removeprefix("bytes=").partition("-") if len(told) == 1 else ("", "", "")
    if not dash or not told[0].startswith("bytes=") or not (first + last).isdigit():
        return None
    return (int(first) if first else None), (int(last) if last else None)


def unsatisfiable(one: Stored, asked: Asked) -> bool:
    wanted = asked_range(asked)
    if wanted is None or not in_range_still(one, asked, entity_tag(combined(one.fields, "etag"))):
        return False
    return wanted[1] == 0 if wanted[0] is None else wanted[0] >= len(one.body)


def in_range_still(one: Stored, asked: Asked, own: tuple[bool, str] | None) -> bool:
    """RFC 9110 §13.1.5: If-Range, by a strong comparison."""
    told = combined(asked.fields, "if-range")
    if told is None:
        return True
    if (tag := entity_tag(told)) is not None:
        return own is not None and own == tag and not tag[0]
    modified, since = combined(one.fields, "last-modified"), moment_of(one.fields, "last-modified", one.call.at)
    dates = [moment_of(one.fields, "date", one.call.at)] if lines(one.fields, "date") else [one.call.at]
    return modified == told and since is not None and any(date is not None and date >= since + 1 for date in dates)


def ranged(one: Stored, asked: Asked, own: tuple[bool, str] | None) -> tuple[int, int] | None:
    """The octets, (first, last), that are to be sent of the whole; None: there is no range to obey."""
    wanted = asked_range(asked)
    length = one.length if one.part else len(one.body)
    if wanted is None or asked.method != "GET" or not in_range_still(one, asked, own):
        return None
    first, last = wanted
    if first is None:
        if length is None or not last:
            return None
        first, last = max(0, length - last), length - 1
    elif last is None or (length is not None and last >= length):
        if length is None:
            return None
        last = length - 1
    if last < first or first < one.first or last >= one.first + len(one.body):
        return None
    return first, last
