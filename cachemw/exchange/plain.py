"""Plain: most requests carry nothing that could change what a stored response means for them, and find a fresh one.

The shells ask here before they make an exchange, which costs more than such a request needs.

Rule 1: an exchange would give the same answer; both judge by the same functions.
Rule 2: whatever needs a closer look is left to an exchange, with the records that were found.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from functools import lru_cache
from typing import Any, Final

from cachemw.engine import Engine
from cachemw.exchange.state import Answer, Reply, State
from cachemw.rfc9111.fields import parse_etag
from cachemw.rfc9111.keys import tag_keys
from cachemw.rfc9111.messages import Mark, Record, StoredResponse, VaryIndex
from cachemw.rfc9111.policy import Policy
from cachemw.rfc9111.requests import Request
from cachemw.rfc9111.storing import has_session
from cachemw.rfc9111.validation import answer_conditions, not_modified_fields

__all__ = ["AHEAD", "Asked", "LookedUp", "answer", "ask", "brief", "extra_of", "fresh", "is_open", "weighed"]

#: The keys to look up, and the index by which they were made, if there is one.
Asked = tuple[tuple[str, ...], VaryIndex | None]
#: The keys that were looked up, and what was found.
LookedUp = tuple[tuple[str, ...], Sequence[Record | None]]

#: Seconds by which another machine's clock may be ahead. A record from further in the future was stored under a wrong
#: clock, and nobody knows its age.
AHEAD: Final = 60

#: The fields that a client sends if it has the page already: they change nothing about the page, or make it
#: unnecessary.
_CONDITIONS: Final = frozenset({"if-none-match", "if-modified-since"})


def ask(engine: Engine, request: Request, special: Collection[str]) -> Asked | None:
    """What to look up for a plain GET of a URL that this process knows; None: leave it to an exchange.

    special: as for `Exchange.begin`.
    """
    if request.method != "GET":
        return None
    if special:
        _, plain, more = weighed(frozenset(special), engine.conditional)
        if more or not plain:
            return None
    learnt = engine.seen.get(request.identity)
    if learnt is None:
        return None
    variants = learnt.variants
    if variants is None:
        return learnt.wants, None
    return (learnt.primary, variants.select(request, _no_property), *learnt.rest), variants.index


def answer(
    engine: Engine,
    request: Request,
    special: Collection[str],
    now: float,
    asked: Asked,
    records: Sequence[Record | None],
) -> Answer | None:
    """What to send of the records that were found for what was asked; None: leave it to an exchange."""
    wants, index = asked
    record = fresh(engine, request, now, wants, records, index)
    if record is None or type(record.body) is not bytes:
        return None
    extra = extra_of(engine, request, now, record, wants[0])
    if special and (reply := brief(engine, request, now, record)) is not None:
        return reply, extra, b""
    return record, extra, record.body


def extra_of(engine: Engine, request: Request, now: float, record: StoredResponse, primary: str) -> tuple[Any, ...]:
    """The fields that go with a stored response that nobody has waited for; made once for each second of its age."""
    age = int(now - record.born)
    shown = record.shown
    if shown is None or shown[0] != age or shown[1] is not engine:
        state = State(engine)
        state.primary, state.now, state.forward = primary, now, ""
        record.shown = shown = (age, engine, request.render(state.extra_of(record)))
    return shown[2]


def _no_property(name: str) -> str | None:
    """What `State` says of a request without distinctions, for which nobody has chosen a language or time zone."""
    return "" if name == ":distinctions" else None


@lru_cache(maxsize=256)  # most requests that have any have one of a few sets
def weighed(special: frozenset[str], conditional: frozenset[str]) -> tuple[bool, bool, bool]:
    """Are there conditional fields? Only those of a client that has the page already? And are there other fields?"""
    conditions = conditional & special
    return bool(conditions), conditions <= _CONDITIONS, len(conditions) < len(special)


def fresh(
    engine: Engine,
    request: Request,
    now: float,
    wants: Sequence[str],
    records: Sequence[Record | None],
    index: VaryIndex | None,
    *,
    distinct: bool = False,
) -> StoredResponse | None:
    """The fresh response among the records of `wants` that answers a plain request as it is; None: look closer.

    distinct: the request's properties are part of the keys of its variants, besides its fields.
    """
    record = records[0]
    softened = 0.0
    if index is not None and type(record) is VaryIndex and record.generation == index.generation:
        softened = record.stale_before
        record = records[1]
    elif distinct:
        return None
    if (
        type(record) is StoredResponse
        and now < record.fresh_until
        and not (softened and engine.is_before(record, softened))
        and not (record.tags and not _is_unpurged(engine, record, wants, records))
        and ((not record.chosen and record.status != 206) or is_open(record, request, engine.policy))
        and now - record.born > -AHEAD
    ):
        return record
    return None


def _is_unpurged(
    engine: Engine, record: StoredResponse, wants: Sequence[str], records: Sequence[Record | None]
) -> bool:
    """Are the marks of all its tags among the records, and does none of them say that it was purged, hard or soft?"""
    found = dict(zip(wants, records, strict=True))
    for key in tag_keys(engine.space, record.tags):
        if key not in found:
            return False
        mark = found[key]
        if type(mark) is Mark and (engine.is_before(record, mark.hard) or engine.is_before(record, mark.soft)):
            return False
    return True


def is_open(record: StoredResponse, request: Request, policy: Policy) -> bool:
    """May a plain request be given this response as it is? Not a part, and not a page that a session must not share."""
    if record.status == 206:
        return False
    return not record.chosen or not has_session(request, policy)


def brief(engine: Engine, request: Request, now: float, record: StoredResponse) -> Reply | None:
    """The 304 for a client that has this response already, if its condition is all that matters."""
    if not engine.policy.conditions:
        return None
    if record.tag is None:
        tags = record.head.lines("etag")
        plain = record.status == 200 and len(tags) == 1 and parse_etag(tags[0]) is not None
        record.tag = tags[0] if plain else ""
    asked = request.lines("if-none-match")
    known = record.tag and len(asked) == 1 and asked[0] == record.tag
    if not known and answer_conditions(request, record.head, now) != 304:
        return None
    made = record.brief
    if made is None or made[0] is not engine:
        made = record.brief = (engine, Reply(304, request.render(not_modified_fields(record.fields))))
    reply: Reply = made[1]
    return reply
