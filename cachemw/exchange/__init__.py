"""One request's passage through the cache: it is told what happened and says what to do. No I/O, clock or threads.

Chance is allowed where two passages that meet have to be told apart; it comes from `cachemw._engine_tokens` alone.

The order of the calls (`Fetch` and `Update` are the two halves; `CacheMiddleware` plays both):

    exchange = Exchange(engine)
    exchange.begin(request, now)            Fetch
    exchange.resume(looked_up)              Fetch    what `cachemw.exchange.plain` has looked up, if anything
    while exchange.wants:                   Fetch    look these keys up, in one go
        exchange.found(records)
    exchange.hit, exchange.reply            Fetch    send it (`answer`), instead of calling the application: a stored
                                                     response as it is, or something made of one
    exchange.flight                         Fetch    else: wait for the leader of this key, then `again(now)`
    exchange.conditions                     Fetch    else: fields to put into the request instead of its own conditions
    exchange.answered(head, now)            Fetch    the application's head; the `Step` to take: relay it, send `reply`
                                                     in its place, call again without conditions, or hold it back
    exchange.combined(head, body, now)      Fetch    a held response, whole: the `Step` to take
    exchange.serve_on_error(now)            Fetch    the application raised; True: `reply` is to be sent instead
    exchange.leaving(head, now)             Update   the head as it leaves the stack; returns its fields, patched;
                                                     `keep` says whether the body is to be copied aside
    exchange.undecided                      Update   the fields are without the lifetime that was chosen, as the body
                                                     may show that the page is for one visitor; if it is there already:
    exchange.seen(body)                     Update   the whole body; returns the fields as they leave now
    exchange.unpurged(records)              Update   what `wants` holds, before `purges`, if `keep` and there are any
    exchange.purged(records)                Update   the same after `purges`
    exchange.completed(body, now)           Update   the whole body of a kept response
    exchange.abandoned()                    Update   the body did not end as it should
    exchange.writes, drops, purges          both     what to do to the store afterwards

Whatever the passage, `trace` says in RFC 9211's words what happened.
"""

from __future__ import annotations

from cachemw.exchange.fetch import Fetch
from cachemw.exchange.state import EngineT, Reply, Step
from cachemw.exchange.update import Update

__all__ = ["Exchange", "Reply", "Step"]


class Exchange(Fetch[EngineT], Update[EngineT]):
    """One request and its answer. See the module's docstring for the order of the calls."""
