"""Update: the outer half. It decides whether and where the leaving response is stored, and with which fields."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Final
from urllib.parse import unquote_to_bytes

from cachemw._engine_tokens import token
from cachemw._times import INDEX_TIMEOUT, LONGEST, SLOWEST
from cachemw.exchange.doubts import Doubts
from cachemw.exchange.heads import (
    is_complete,
    patched,
    stated_length,
    varying_on,
    varying_once,
    without_cookies,
)
from cachemw.exchange.state import EngineT
from cachemw.rfc9111 import keys
from cachemw.rfc9111.fields import parse_no_vary_search, parse_tags
from cachemw.rfc9111.freshness import born, targeted_control
from cachemw.rfc9111.invalidation import invalidates, is_unsafe, target_uris
from cachemw.rfc9111.messages import Fields, Head, Mark, Record, StoredResponse, VaryIndex
from cachemw.rfc9111.partial import whole
from cachemw.rfc9111.requests import Request
from cachemw.rfc9111.shapes import kept_places
from cachemw.rfc9111.storing import (
    NO_PAGE,
    Storing,
    judge,
    may_store,
    needs_vary_authorization,
    nominated,
    storable_fields,
)
from cachemw.rfc9111.validation import without_lifetime

__all__ = ["Update"]

#: Reasons that lie in the answer itself: the next answer for this URL will probably not be stored either.
_LASTING: Final = frozenset(
    {
        "event-stream",
        "hooks",
        "metrics",
        "no-cache",
        "no-lifetime",
        "no-store",
        "nonce",
        "polling",
        "private",
        "rule",
        "set-cookie",
        "status",
        "too-large",
        "vary-star",
    }
)
#: Reasons that lie in who asks.
_OF_ONE: Final = frozenset({"authorization", "hooks", "session", "set-cookie"})
_PAGE_METHODS: Final = ("GET", "HEAD")
#: The most names in one `VaryIndex`: each slows every look-up down, and no honest page has so many.
_MOST_NAMES: Final = 64


class Update(Doubts[EngineT]):
    """Decides about the response that leaves the stack."""

    def leaving(self, head: Head, now: float) -> Fields:
        """Take the head as it leaves the stack; returns its fields as the client gets them.

        `keep` says whether the body is to be copied.
        """
        self.over = True
        if not self.forward or self.hit is not None or self.reply is not None:
            return self._said_once(head)  # it passed the middlewares between the halves when it was stored
        self.forward_status = self.forward_status or head.status
        if self.outer is not None:
            self._hear_view()
            self._say_on()
        request, engine = self.request, self.engine
        policy = engine.policy
        page = request.method in _PAGE_METHODS
        if not page and is_unsafe(request.method):
            if policy.invalidate and invalidates(request.method, head.status):
                self.purges = self._targets(head)
            self.wants = () if self.of is None else (keys.mark_key(self.of),)
        if self.of is None or self.never:
            return self._marked(self._unchosen(head) if page else head)
        if self.candidates and not self._obey_rules(head.status, head.value("content-type")):
            return self._refuse("rule", self._unchosen(head))
        if self._strips:
            head, self._cookies = without_cookies(head)  # only this client gets them
        given, head = head, self._told_apart(head, now, page)
        self._verdict = verdict = engine.shapes.verdict(head, self.timeout, self._named)
        self._storing = storing = may_store(
            request,
            head,
            policy,
            seconds=engine.seconds,
            timeout=self.timeout,
            now=now,
            named=self._named,
            plain=page and self.plain,
            judged=None if verdict is None else verdict.storing,
        )
        if not storing.ok:
            return self._refuse(storing.reason, self._as_django_tells(given, head, now))
        if (reason := self._obstacle(head, storing.chosen or self.chosen_within)) is not None:
            return self._refuse(reason, given if reason == "set-cookie" else head)
        if storing.chosen and self.outer is not None:
            self.outer.chosen_within = True
        told = self._told(storing, head, now)
        self.length = length = stated_length(head)
        if not engine.keeps:
            return self._refuse("dummy", told)
        if length is not None and length > policy.max_body:
            self.undecided = False
            return self._refuse("too-large", told)
        self.keep = True
        if engine.search or "no-vary-search" in head.layout.where:
            self._heed_search(head)
        self._born = since = born(head, request_time=self.now, response_time=now)
        mark = self.known.get(keys.mark_key(self.of))
        if type(mark) is Mark and mark.is_unread:
            self.detail = self.detail or "store"
        elif self.keep:
            self.stored_ttl = int(storing.lifetime) - (int(now - since) if now > since else 0)  # as a hit says it now
        return self._marked(told)

    def _told_apart(self, head: Head, now: float, page: bool) -> Head:
        """The head, with Vary naming all that is known to decide about the page."""
        request, policy = self.request, self.engine.policy
        if policy.authorization == "vary" and needs_vary_authorization(request, head, policy):
            head = varying_on(("authorization",), head)
        if page and (reads := self._reads_of(head, now)):
            head = varying_on(reads, head)
        return varying_on(("cookie",), head) if request.session == "read" else head

    def _told(self, storing: Storing, head: Head, now: float) -> Head:
        """The head as it leaves: with the lifetime that was chosen, unless the body may still forbid that."""
        left = untold = head
        if self.engine.policy.patch and self._is_to_be_told(storing, head):
            left = patched(head, storing.lifetime, now)
        elif self.chosen_within:
            untold = self._unchosen(head)
        self._left = left
        if left is untold or not self._may_show(storing, head):
            return left
        if self.request.method != "HEAD":
            self.undecided, self._untold = True, untold
        return untold

    def _unchosen(self, head: Head) -> Head:
        """The head without the lifetime that a cache further in has chosen, which knew less about who asks."""
        policy = self.engine.policy
        if not self.chosen_within or not policy.patch or policy.django_rules:
            return head
        if targeted_control(head, policy) is not None:  # then the other one has added nothing
            return head
        return Head(head.status, without_lifetime(head), head.reason)

    def _is_to_be_told(self, storing: Storing, head: Head) -> bool:
        """Is the lifetime to be added? The response states none, and Cache-Control and Expires count for it.

        Beside a targeted field, they are for other caches (RFC 9213 §2.2). Hooks may have let this visitor in by a
        cookie, and nothing further out runs them: then only somebody who knows them can say for how long.
        """
        if self.timeout is not None or self.engine.policy.django_rules:
            return True
        if not storing.chosen or (self.hooked and self._cookies_untold(head)):
            return False
        return targeted_control(head, self.engine.policy) is None

    def seen(self, body: bytes) -> Fields:
        """Take the whole body before the head of an `undecided` response leaves; returns the fields to send."""
        storing, head, untold = self._storing, self._left, self._untold
        assert storing is not None
        assert head is not None
        assert untold is not None
        self.undecided = False
        found, shown = self._found_since(storing, head), self._shown_by(body, storing, head)
        if found or shown:
            self._give_up(found or shown, lasting=bool(shown))
            self.keep = False
        if found or shown or self.never:
            return self._marked(untold)
        self._seen = body
        return self._marked(head)

    def _said_once(self, head: Head) -> Fields:
        """The fields of a stored response, without those that the middlewares in between have added a second time.

        Browsers refuse a page with `Access-Control-Allow-Origin: *, *`.
        """
        render, reply = self.request.render, self.reply
        stored = reply.fields if reply is not None else render(self.hit.fields if self.hit is not None else ())
        left = render(head.fields)
        if left == (*stored, *self.extra):
            return head.fields
        spare = Counter(stored)
        fields = []
        for field, native in zip(head.fields, left, strict=True):
            if native in spare:
                spare[native] -= 1
            if spare[native] >= 0:
                fields.append(field)
        return varying_once(tuple(fields))

    def unpurged(self, records: Sequence[Record | None]) -> None:
        """Take the marks that `wants` names, as read before this response's own `purges`.

        The response is abandoned if a mark has changed since the request began: the page has been purged since.
        """
        for mark, record in zip(self.wants, records, strict=True):
            before = self.known.get(mark)
            if record is not None and (type(before) is not Mark or type(record) is not Mark or before != record):
                self.abandoned()
        if not self.purges:
            self.purged(records)

    def purged(self, records: Sequence[Record | None]) -> None:
        """Take the marks as read after the `purges`: a later purge changes them again."""
        self.known = {**self.known, **dict(zip(self.wants, records, strict=True))}
        self.wants = ()

    def _as_django_tells(self, given: Head, varying: Head, now: float) -> Head:
        """The head of a response that is not stored: unchanged; under Django's policy a 304 gets the page's fields."""
        policy = self.engine.policy
        if not policy.django_rules or given.status != 304:
            return given
        page = Head(200, varying.fields)
        storing = judge(page, policy, seconds=self.engine.seconds, timeout=self.timeout, now=now)
        return patched(varying, storing.lifetime, now) if storing.ok else given

    def _refuse(self, reason: str, head: Head) -> Fields:
        self.detail = self.detail or reason
        if reason in _LASTING and head.status not in NO_PAGE:  # those are about this client's conditions or range
            self._pass_by()
        return self._marked(self._unchosen(head) if reason in _OF_ONE else head)

    def completed(self, body: bytes, now: float) -> Mapping[str, Record | None]:
        """Take the whole body of a kept response; returns the records that waiting requests may use at once."""
        storing, head, engine, of = self._storing, self._left, self.engine, self.of
        assert storing is not None
        assert head is not None
        assert of is not None
        if not self.keep:
            return {}  # the inner half saw the body break off; a middleware in between has hidden that
        if found := self._found_since(storing, head):
            return self._give_up(found)
        policy = engine.policy
        size = len(body)
        sound = size == self.length and head.status == 200  # as most are
        if size > policy.max_body or not (sound or is_complete(head, body, self.request.method)):
            return self._give_up("incomplete", lasting=True)
        if body != self._seen and (shown := self._shown_by(body, storing, head)):
            return self._give_up(shown, lasting=True)
        if now - self.began > SLOWEST:
            return self._give_up("late")
        where = head.layout.where
        tags = self._tags_of(head) if "cache-tag" in where or "surrogate-key" in where else self.tags
        key, index = self._place(head, tags)
        if key is None:
            return self._give_up("variants", lasting=True)
        record = StoredResponse(
            key=key,
            status=head.status,
            reason=head.reason,
            fields=self._fields_to_store(head, body),
            body=body if self.request.method != "HEAD" else b"",
            born=self._born,
            lifetime=storing.lifetime,
            began=self.began,
            chosen=storing.chosen or self.chosen_within,
            validate=storing.validate,
            tags=tags,
        )
        if head.status == 206:
            record = whole(record)
        timeout = min(max(record.born + storing.lifetime - now, 0.0) + storing.keep, LONGEST)
        if timeout <= 0:
            return {}
        if index is None:
            self._write([(key, record, timeout)])
            return {key: record}
        self._write([(index.key, index, max(timeout, INDEX_TIMEOUT)), (key, record, timeout)])
        return {index.key: index, key: record}

    def _give_up(self, detail: str, *, lasting: bool = False) -> Mapping[str, Record | None]:
        """Do not store the response after all. lasting: the next answer will probably not be stored either."""
        self.stored_ttl = None
        self.detail = detail
        if lasting:
            self._pass_by()
        return {}

    def _fields_to_store(self, head: Head, body: bytes) -> Fields:
        """The fields to store, with the length of the body, so that a hit needs no chunked coding; not for HEAD."""
        verdict, engine = self._verdict, self.engine
        if verdict is None:
            fields = engine.shared_pairs(Head(head.status, storable_fields(head, engine.policy)))
        else:
            fields = engine.shared_pairs(head, kept_places(head.layout, verdict.dropped))
        if head.status == 204 or "content-length" in head.layout.where or self.request.method == "HEAD":
            return fields
        return (*fields, ("Content-Length", str(len(body))))

    def _place(self, head: Head, tags: tuple[str, ...]) -> tuple[str | None, VaryIndex | None]:
        """The key of the response that is to be stored, and the `VaryIndex` to write with it, if one is needed.

        An index that has all names that are needed is not written again: that could restore what a purge has just
        removed. New names make a new index, and so new variants. A response that names fewer is one variant among
        others: visitors who have an older variant get that until it is stale, although RFC 9111 §4 prefers the most
        recent of all that match. Otherwise, a page that names Cookie only to its members would lose all variants
        whenever somebody else asks.
        """
        engine, of = self.engine, self.of
        assert of is not None
        names = nominated(head) if self._verdict is None else self._verdict.nominated
        if engine.properties or self.distinctions:
            names = self._names(names)
        primary = self.primary if self.request.method != "HEAD" else keys.head_key(of)
        index = self._index if self._index is not None and self._index.key == primary else None
        if index is None and not names:
            return primary, None
        if index is not None and set(names) <= set(index.names):
            variant = self._secondary(index)
            return (variant if self._make_room(variant) else None), None
        if index is not None:
            names = tuple(dict.fromkeys(index.names + names))
        if len(names) > _MOST_NAMES:
            return None, None
        index = VaryIndex(primary, names, token(), tags=tags)
        return self._secondary(index), index

    def _heed_search(self, head: Head) -> None:
        """Move the response to the key where requests will look for it, as its No-Vary-Search says.

        The marks of that key were not read when the request began: see `unpurged`.
        """
        before, engine = self.of, self.engine
        if before is None or not engine.policy.no_vary_search:
            return
        if not engine.hear(self.request, parse_no_vary_search(head.lines("no-vary-search"))):
            return
        of = engine.resource(self.request, self.ignore)
        if of == before:
            return
        if is_unsafe(self.request.method):
            self.keep = False  # the answer to a POST, which purges one key: it is not for the other key's URLs
        else:
            self.of, self.primary, self._index = of, keys.primary_key(of), None
            self.wants = (keys.mark_key(of), keys.mark_key(before))

    def _make_room(self, variant: str) -> bool:
        """Drop other variants for this one, if there are too many; False: it may not be stored."""
        assert self.of is not None
        assert self._storing is not None
        until = self.now + self._storing.lifetime
        gone = self.engine.make_room(self.of, variant, self.now, until, distinct=bool(self.distinctions))
        if gone:
            self.drops = (*self.drops, *gone)
        return gone is not None

    def _tags_of(self, head: Head) -> tuple[str, ...]:
        own = parse_tags(head.lines("cache-tag"), head.lines("surrogate-key"))
        return tuple(dict.fromkeys(own + self.tags))

    def _targets(self, head: Head) -> list[tuple[Request, tuple[str, ...]]]:
        """What a successful unsafe request invalidates (RFC 9111 §4.4)."""
        request = self.request
        found = [(request, self.ignore)]
        for target in target_uris(request, head):
            written, _, query = target.partition("?")
            for path in (written, keys.quote_path(unquote_to_bytes(written).decode("latin-1"))):  # as WSGI tells it
                mount = request.mount if path.startswith(request.mount) else ""
                rest = path[len(mount) :]
                other = Request(scheme=request.scheme, host=request.host, mount=mount, path=rest, query=query)
                found.append((other, () if self.ignored is None else self.ignored(other)))
        return found

    def _marked(self, head: Head) -> Fields:
        """The fields, with our member of Cache-Status behind those of the caches before us."""
        return head.fields + self._cookies + self._status_fields()
