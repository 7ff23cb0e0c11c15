"""Fetch: the inner half. It decides which records may answer this request, and which of them does."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from typing import Any, Final

from cachemw.activation import Locale
from cachemw.engine import Learnt
from cachemw.exchange.decision import Decision
from cachemw.exchange.plain import AHEAD, LookedUp, extra_of, fresh, is_open, weighed
from cachemw.exchange.state import NOTHING, EngineT
from cachemw.rfc9111 import keys
from cachemw.rfc9111.messages import HitForMiss, Mark, Record, StoredResponse, VaryIndex
from cachemw.rfc9111.requests import Request

__all__ = ["Fetch"]

_UNKNOWN: Final[Any] = object()

#: The properties that an index may name. An index that names another one was written by a later version.
_PROPERTIES: Final = frozenset({":language", ":distinctions", ":timezone"})


def _may_be_for_a_page(request: Request) -> bool:
    if request.lines("transfer-encoding") or request.lines("upgrade") or request.lines("expect"):
        return False
    if any(length.strip(" \t") not in ("", "0") for length in request.lines("content-length")):
        return False
    return len(request.lines("host")) < 2


class Fetch(Decision[EngineT]):
    """Looks a request up: it says which keys it wants, and gets the records that the store has under them."""

    def speak(self, locale: Locale) -> None:
        """Take up the language and the time zone that were chosen before the look-up.

        If a middleware around this cache has chosen one, it is part of the key here even if the settings do not say so:
        what that middleware then adds to Vary does not pass through here.
        """
        self.language, self.timezone = locale.language, locale.timezone
        if not locale.entered or self.outer_half is not None:
            return
        for name in (":language", ":timezone"):
            value = self._property(name)
            if value is not None and name not in self.engine.properties:
                self.distinctions += f"{name}:{len(value)}:{value}"

    def begin(self, request: Request, now: float, special: Collection[str] = ()) -> None:
        """Take up a request as the application will see it.

        special: which fields of `engine.special` it carries; "host" if some field has several lines; "authorization" if
        somebody further out has checked that. The shell finds this out faster than a rule could.
        """
        self.request = request
        self.now = now
        self.plain = True
        if request.before is not None:
            if request.first.method != request.method:
                self.never = True  # a middleware made GET of HEAD, whose page has no body, or of POST, which has one
            elif moved := request.moved:
                self.distinctions += f"from:{moved}"
        if request.method != "GET" and request.method != "HEAD":
            self.forward = "method"
            if request.method == "POST" and self.engine.policy.store_post and not self.never:
                self._expect_page()
            return
        if self.never:
            self.forward = "bypass"
            return
        engine = self.engine
        if special:
            self.conditional, self.plain, more = weighed(frozenset(special), engine.conditional)
            if (more or not self.plain) and not self._is_cacheable_request():
                self.forward = "bypass"
                return
            if more:
                self.distinctions += keys.keyed_part(request, engine.policy.keyed_fields)
        learnt = engine.seen.get(request.identity) if not self.ignore else None
        self._learnt = learnt is not None
        if learnt is None:
            if request.rewritten:
                self._note_rewriting()
            of, self._search = engine.locate(request, self.ignore)
            if self._search is not None:
                self.plain = False
            learnt = engine.learnt.get(of)
            if learnt is None:
                self.of = of
                self.primary = of + keys.PRIMARY
                self._ask(None)
                return
        self.of = learnt.of
        self.primary = learnt.primary
        self._ask(learnt)

    def _note_rewriting(self) -> None:
        """The path is not the one in the URL: whoever changed it may have known more than the URL says."""
        self.distinctions += f"path:{self.request.rewritten}"
        self._rewritten = True

    def _expect_page(self) -> None:
        """Prepare for a POST whose answer may be stored as the page: its mark will tell of purges meanwhile."""
        self.plain = False
        self.of = self.engine.resource(self.request, self.ignore)
        self.primary = keys.primary_key(self.of)
        self.distinctions += keys.keyed_part(self.request, self.engine.policy.keyed_fields)
        if self.request.rewritten:
            self._note_rewriting()
        self.began = self.engine.stamp(self.now)
        self.wants = (keys.mark_key(self.of),)

    def _is_cacheable_request(self) -> bool:
        """Could the answer be a page? Not with a body, a second Host or a protocol switch in the request."""
        return all(map(_may_be_for_a_page, (self.request, self.request.first)))

    def _ask(self, learnt: Learnt | None) -> None:
        """Ask for everything that the answer will need, as far as this process knows: one look-up is one round trip."""
        if learnt is None:
            self.wants = (self.primary, f"{self.of}{keys.MARK}")  # most likely a miss, which needs the mark
        elif (variants := learnt.variants) is None:
            self.wants = learnt.wants
        else:
            self._index = variants.index
            self._variant = variants.select(self.request, self._property)
            self.wants = (learnt.primary, self._variant, *learnt.rest)
        if self.request.method == "HEAD":
            assert self.of is not None
            self.wants += (keys.head_key(self.of),)

    def resume(self, looked_up: LookedUp) -> None:
        """Take what was looked up before there was an exchange, if that is what this one wants."""
        wants, records = looked_up
        if self.wants == wants:
            self.found(records)

    def found(self, records: Sequence[Record | None]) -> None:
        """Take what the store has for each of `wants`, in their order; None for nothing."""
        if self.plain and not self.known:
            distinct = bool(self.distinctions or self.engine.properties)
            index = self._index
            if index is not None and distinct and not self._leads(index):
                index = None
            record = fresh(self.engine, self.request, self.now, self.wants, records, index, distinct=distinct)
            if record is not None:
                self._serve_fresh(record)
                return
        found = dict(zip(self.wants, records, strict=True))
        if not self.known and self._index is None and not any(records) and self.request.method == "GET":
            self.known, self.wants = found, ()
            self._forward("uri-miss")
            return
        self.known = {**self.known, **found}
        self._resolve()

    def _serve_fresh(self, record: StoredResponse) -> None:
        """Answer the short way: a plain request, and a fresh response."""
        self.wants = ()
        self.forward = ""
        if not self.conditional or (reply := self._briefly(record)) is None:
            self.hit = record
        else:
            self.reply = reply
        if self.collapsed:
            self.extra = self.request.render(self.extra_of(record))
        else:
            self.extra = extra_of(self.engine, self.request, self.now, record, self.primary)
        if not self._learnt:
            self._learn_url()

    def _learn_url(self) -> None:
        """The next request to this URL finds its keys made."""
        if not self.ignore and not self._rewritten:
            assert self.of is not None
            self.engine.see(self.request, self.of)

    def _resolve(self) -> None:
        """Use what is known: ask for more (`wants`), reply, or decide that the application has to be called."""
        self.wants = ()
        if self.forward == "method":
            return
        if (wanted := self._missing()) is not None:
            self.wants = wanted
            return
        record, softened = self._selected
        if record is None:
            self._forward("vary-miss" if self._index is not None else "uri-miss")
            return
        unborn = record.born > self.now + AHEAD
        stale = softened or unborn or self.now >= record.fresh_until
        if self.plain and not stale and is_open(record, self.request, self.engine.policy):
            self._serve_fresh(record)
        else:
            self._judge(record, softened or unborn)

    def _missing(self) -> tuple[str, ...] | None:
        """Select the stored response among what is known. Returns keys that have to be looked up first, or None."""
        of = self.of
        assert of is not None
        record, softened, wanted = self._variant_of(self.primary)
        if wanted is None and type(record) is not StoredResponse and self.request.method == "HEAD":
            self.primary = keys.head_key(of)  # an answer to HEAD is for HEAD alone
            record, softened, wanted = self._variant_of(self.primary)
        if wanted is not None:
            return (wanted, *self._likely_marks())
        if type(record) is HitForMiss:
            self.engine.pass_by(record.key, self.now)
        if type(record) is not StoredResponse or not self._says_so(record.head):
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
            if not all(name in _PROPERTIES if name[:1] == ":" else name for name in index.names):
                self._index = None
                return None, False, None
            if not self._leads(index):
                self._index, self._variant = index, primary
                return None, False, None
            if self._index is None or self._index.generation != index.generation:
                self._variant = self._learn(index)
            self._index = index
            record = self.known.get(self._variant, _UNKNOWN)
            if record is _UNKNOWN:
                return None, False, self._variant
            return record, type(record) is StoredResponse and self.engine.is_before(record, index.stale_before), None
        if self._index is not None and self._index.key == primary:  # what was learnt is out of date
            self._index = None
            self.engine.remember(of).variants = None
        if type(record) is StoredResponse and (self.distinctions or self.engine.properties):
            return None, False, None  # its request lacked these fields, or was answered before they were in the key
        return record, False, None

    def _likely_marks(self) -> list[str]:
        """The marks that the variant will probably need: one round trip less."""
        if self._index is None or not self._index.tags or self.of is None:
            return []
        self.engine.remember(self.of, self._index.tags)
        marks = keys.tag_keys(self.engine.space, self._index.tags)
        return [key for key in marks if key not in self.known]

    def _leads(self, index: VaryIndex) -> bool:
        """Do its variants also differ by everything that this request has besides its fields?"""
        if self.distinctions and ":distinctions" not in index.names:
            return False
        return all(name in index.names for name in self.engine.properties)

    def _check_tags(self, record: StoredResponse, softened: bool) -> tuple[str, ...] | None:
        """A record that began before the last purge of one of its tags is gone, or stale if the purge was soft."""
        engine = self.engine
        marks = keys.tag_keys(engine.space, record.tags)
        unknown = tuple(key for key in marks if key not in self.known)
        if unknown:
            assert self.of is not None
            engine.remember(self.of, record.tags)
            engine.seen.pop(self.request.identity, None)  # it has the old one
            return unknown
        for key in marks:
            mark = self.known[key]
            if type(mark) is Mark:
                if self.engine.is_before(record, mark.hard):
                    self._selected = (None, False)
                    return None
                softened = softened or self.engine.is_before(record, mark.soft)
        self._selected = (record, softened)
        return None

    def _learn(self, index: VaryIndex) -> str:
        """Remember where the variants of this URL are; returns the key of the one that this request selects."""
        assert self.of is not None
        if index.key != keys.primary_key(self.of):
            return self._secondary(index)
        return self.engine.vary(self.of, index, self.request).select(self.request, self._property)

    def again(self, now: float) -> None:
        """The flight that was waited for has landed: look again, and do not wait a second time."""
        self.now = now
        self.collapsed = True
        self.known = NOTHING
        self.stale = None
        self._lacking = ()
        self.flight = self.lease = self.conditions = None
        self._index = None
        self.of, self._search = self.engine.locate(self.request, self.ignore)  # the answer may say more about the query
        self.primary = keys.primary_key(self.of)
        self.plain = self.plain and self._search is None
        self._ask(self.engine.learnt.get(self.of))
