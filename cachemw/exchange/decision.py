"""Decision: reply from what is stored, or call the application; and what its answer means for what is stored."""

from __future__ import annotations

from typing import Final

from cachemw._times import LONGEST
from cachemw.exchange.doubts import Doubts
from cachemw.exchange.heads import varying_on, without_cookies
from cachemw.exchange.plain import brief
from cachemw.exchange.state import EngineT, Reply, Step
from cachemw.rfc9111 import keys
from cachemw.rfc9111.messages import Fields, Head, StoredResponse
from cachemw.rfc9111.partial import combine, missing, serves, slice_of
from cachemw.rfc9111.reuse import Reuse, age, may_reuse, may_serve_in_grace, may_serve_stale_on_error, only_if_cached
from cachemw.rfc9111.storing import has_session, judge, nominated, request_control, unshared
from cachemw.rfc9111.validation import (
    Answered,
    answer_conditions,
    conditions,
    freshen,
    freshen_by_head,
    not_modified_fields,
    partial_fields,
    select_range,
    unsatisfied_fields,
)

__all__ = ["Decision"]

#: Fields of a refusal without a body; PEP 3333's validator wants the type anyway.
_EMPTY: Final = (("Content-Type", "text/plain; charset=utf-8"), ("Content-Length", "0"))

#: Reasons not to share a page that are in the page itself; the others are in who asks for it.
_OF_ALL: Final = frozenset({"hooks", "metrics", "nonce", "polling"})

#: Answers to HEAD that say something about the page. Others are about this request, or about HEAD itself, and must not
#: work as a purge button (§4.3.5).
_OF_THE_PAGE: Final = frozenset({200, 404, 410})


class Decision(Doubts[EngineT]):
    """The part of the fetching half that decides once it knows the stored response, or that there is none."""

    def _judge(self, record: StoredResponse, softened: bool) -> None:
        if record.status == 206 and serves(record, self.request) is None:
            self._lacking = missing(record, self.request)
            self.stale = record if self._lacking else None
            self._forward("partial")
            return
        verdict = may_reuse(self.request, record, self.engine.policy, self.now, softened=softened)
        if verdict is Reuse.FRESH or (verdict is Reuse.STALE and not self.refreshing):
            self.refresh = verdict is Reuse.STALE
            if self.refresh and softened:  # however long it would have been fresh
                self.stored_ttl = min(0, int(record.lifetime) - age(record, self.now))
            self._serve(record)
        elif verdict is Reuse.GUARDED:
            self._forward("bypass", "guarded")
        else:
            self.stale = record
            self._forward("stale" if self.now >= record.fresh_until or softened else "request")

    def _serve(self, record: StoredResponse) -> None:
        """Answer with a stored response, under the client's own conditions and range."""
        self.forward = ""
        self.extra = self.request.render(self.extra_of(record))
        if not self.plain:
            self._tell_outer(record)
            self.reply = self._shaped(record, record.head)
        elif self.conditional:
            self.reply = self._briefly(record)
        self.hit = record if self.reply is None else None

    def _tell_outer(self, record: StoredResponse) -> None:
        """Tell a cache around this one that the lifetime is our choice, also if the reply is only made of it."""
        if record.chosen and self.outer is not None:
            self.outer.chosen_within = True

    def _briefly(self, record: StoredResponse) -> Reply | None:
        reply = brief(self.engine, self.request, self.now, record)
        if reply is not None:
            self._tell_outer(record)
        return reply

    def _shaped(self, record: StoredResponse, head: Head) -> Reply | None:
        """What the client's conditions and range make of the response; None: send it as it is."""
        policy, request, body = self.engine.policy, self.request, record.body
        status = answer_conditions(request, head, self.now) if policy.conditions else 0
        if status == 304:
            return Reply(304, request.render(not_modified_fields(record.fields)))
        if status == 412:
            return Reply(412, request.render(_EMPTY))
        if not policy.ranges:
            return None
        if record.status == 206:
            span = serves(record, request)
            assert span is not None  # `_judge` has asked
            fields, part = slice_of(record, span)
            return Reply(206, request.render(fields), part)
        chosen = select_range(request, head, len(body), record.born)
        if chosen is None:
            return None
        if chosen == "unsatisfiable":
            return Reply(416, request.render((_EMPTY[0], *unsatisfied_fields(len(body)))))
        first, last = chosen
        fields = partial_fields(record.fields, first, last, len(body))
        return Reply(206, request.render(fields), body[first : last + 1])

    def _forward(self, forward: str, detail: str = "") -> None:
        """The application has to be called: with which conditions, and may others wait for its answer?"""
        self.forward, self.detail = forward, detail
        request, policy, of = self.request, self.engine.policy, self.of
        assert of is not None
        mark = of + keys.MARK
        if mark not in self.known:  # only a miss has to know about purges that come while it lasts
            self.wants = (mark,)
            return
        if policy.request_directives and only_if_cached(request, policy):
            self.reply = Reply(504, request.render(_EMPTY))
            self.extra = request.render(self._status_fields())
            return
        self.began = self.engine.stamp(self.now)
        if self._lacking:
            self.conditions = self._lacking
        elif self.stale is not None and policy.revalidate:
            self.conditions = conditions(self.stale) or None
        if policy.collapse and self.engine.keeps and self._may_wait():
            key = self._variant if self._index is not None else self.primary
            if not (self.engine.passing and self.engine.passes_by(key, self.now)):
                # Whoever comes after a purge must not wait for a call that began before it. The mark's token shows
                # other processes' purges; the count shows our own as well, since the store may have been down and not
                # taken the mark.
                told = key + self._token(mark)
                purges = self.engine.purges
                self.flight = f"{told}\0{purges}" if purges else told
                self._collapsible = key
                if self.engine.shared and policy.lease > 0:
                    self.lease = keys.lease_key(told)

    def _may_wait(self) -> bool:
        """Only a request whose answer others may share waits for another's."""
        request = self.request
        if request.method != "GET" or self.forward == "bypass":
            return False
        if not self.plain and (request.user or request.told("authorization") or request.lines("range")):
            return False
        return not has_session(request, self.engine.policy)

    def serve_in_grace(self) -> bool:
        """Another request is fetching this page: answer with the stale one meanwhile, if that may be done. Was it?"""
        stale = self.stale
        if stale is None or self._lacking or not may_serve_in_grace(stale, self.engine.policy, self.now):
            return False
        self._serve(stale)
        return True

    # -- the application's answer -----------------------------------------------------------------------------------

    def answered(self, head: Head, now: float) -> Step:
        """Take the application's head, before any of it has left."""
        self.forward_status = head.status
        self._hear_view()
        stale = self.stale
        if stale is None:
            return Step.RELAY
        if self._lacking:
            return self._part_answered(head)
        if head.status == 304 and self.conditions is not None:
            return self._validated(stale, head, now)
        if head.status >= 500 and may_serve_stale_on_error(stale, self.engine.policy, now, status=head.status):
            self._serve_instead(stale, now)
            return Step.REPLY
        if self.request.method == "HEAD" and self.engine.policy.freshen_by_head and head.status in _OF_THE_PAGE:
            self._told_by_head(stale, head, now)
        return Step.RELAY

    def _part_answered(self, head: Head) -> Step:
        """The answer to the request for what a stored part lacks (RFC 9111 §3.4)."""
        if head.status == 206:
            return Step.HOLD
        self.stale = self.conditions = None
        return Step.RELAY if head.status < 400 else Step.RETRY

    def combined(self, head: Head, body: bytes, now: float) -> Step:
        """Take the whole body of a response that was held: reply with both parts as one, or call again."""
        stale = self.stale
        assert stale is not None
        fresh = combine(stale, self._as_stored(head, stale), body, self.engine.policy, self._answered(now))
        if fresh is None or (fresh.status == 206 and serves(fresh, self.request) is None):
            self.stale = self.conditions = None
            return Step.RETRY
        self._serve_instead(self._renew(fresh, now), now, without_cookies(head)[1])
        return Step.REPLY

    def serve_on_error(self, now: float) -> bool:
        """The application raised before its head left: serve a stale response instead, if that may be done. Was it?"""
        stale = self.stale
        if stale is None or self._lacking or not may_serve_stale_on_error(stale, self.engine.policy, now, status=None):
            return False
        self._serve_instead(stale, now)
        return True

    def _validated(self, stale: StoredResponse, head: Head, now: float) -> Step:
        """A 304 to our own conditions (RFC 9111 §4.3.3)."""
        given = self.timeout, self.tags, self._named, self._strips
        cookies = without_cookies(head)[1]
        head = self._as_stored(head, stale)
        if self.candidates:
            self._obey_rules(stale.status, stale.head.value("content-type"))
        fresh = freshen(stale, head, self.engine.policy, self._answered(now))
        if fresh is None:
            self.stale = self.conditions = None
            self.timeout, self.tags, self._named, self._strips = given  # the next answer may have another rule
            return Step.RETRY
        self._serve_instead(self._renew(fresh, now), now, cookies)
        return Step.REPLY

    def _told_by_head(self, stale: StoredResponse, head: Head, now: float) -> None:
        """Let the answer to HEAD update the stored answer to GET, or show that the page has changed (§4.3.5)."""
        fresh = freshen_by_head(stale, self._as_stored(head, stale), self.engine.policy, self._answered(now))
        if fresh is not None:
            self._renew(fresh, now)
        elif self._obstacle(head, stale.chosen) is None:  # else it may be another page for this client alone
            self.drops = (stale.key,)

    def _as_stored(self, head: Head, stale: StoredResponse) -> Head:
        """The head of an answer that updates a stored response: without cookies, if a rule strips them."""
        rule = self._rule_for(stale.status, stale.head.value("content-type"))
        return without_cookies(head)[0] if rule is not None and rule.set_cookie == "strip" else head

    def _answered(self, now: float) -> Answered:
        """What an answer that came now says for the update of what is stored."""
        return Answered(
            request_time=self.now,
            response_time=now,
            seconds=self.engine.seconds,
            timeout=self.timeout,
            named=self._named,
        )

    def _renew(self, validated: StoredResponse, now: float) -> StoredResponse:
        """Store a validated response again, or drop it if its new fields forbid storing; returns it as it is now.

        What is wrong with this client alone leaves the stored response as it was: a 304 is no purge button.
        """
        engine = self.engine
        policy = engine.policy
        chosen = validated.chosen or self.chosen_within
        fields = self._varying(validated.head, chosen).fields
        fresh = validated.replace(fields=fields, chosen=chosen, began=self.began)
        if policy.request_directives and "no-store" in request_control(self.request):
            return fresh  # §5.2.1.5: nothing of "any response to it" is stored; what was stored before stays
        storing = judge(fresh.head, policy, seconds=engine.seconds, timeout=self.timeout, now=now, named=self._named)
        unfit = unshared(self.request, fresh.head, policy, chosen=fresh.chosen) or self._obstacle(fresh.head, chosen)
        if not storing.ok or unfit in _OF_ALL or not self._stands_right(fresh.head):
            self.drops = (fresh.key,)
        elif not unfit:
            left = fresh.born + fresh.lifetime - now
            self.stored_ttl = left
            self._write([(fresh.key, fresh, min(max(left, 0.0) + storing.keep, LONGEST))])
        return fresh

    def _varying(self, head: Head, chosen: bool) -> Head:
        """The head, with Vary naming what was read of the request for the answer that updates it."""
        request = self.request
        reads = (*request.declared, *self.reads, *(self.suspected if chosen else ()))
        if request.session == "read" or (self.timeout is not None and request.handed_on):
            reads += ("cookie",)
        return varying_on(reads, head)

    def _stands_right(self, head: Head) -> bool:
        """Does the validated response still belong under this key? Not if Vary or No-Vary-Search say something new."""
        assert self.stale is not None
        before = self.stale.head
        known = self._index.names if self._index is not None else self._names(nominated(before))
        if not set(known).issuperset(self._names(nominated(head))):
            return False
        return head.lines("no-vary-search") == before.lines("no-vary-search")

    def _serve_instead(self, record: StoredResponse, now: float, cookies: Fields = ()) -> None:
        """cookies: those that the application set for this client in the answer that the record replaces."""
        forward, self.now = self.forward, now
        self._serve(record)
        self.forward = forward
        own = tuple(cookie for cookie in cookies if cookie not in record.fields)
        self.extra = self.request.render((*own, *self.extra_of(record)))
