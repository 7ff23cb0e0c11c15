"""The exchange driven by hand: no shell, no store, no clock. In the documented order, and in every other."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cachemw import Policy
from cachemw._times import SLOWEST
from cachemw.engine import Engine
from cachemw.exchange import Exchange, Step
from cachemw.rfc9111.dates import format_date
from cachemw.rfc9111.keys import head_key, lease_key, mark_key, primary_key, tag_key, tag_keys
from cachemw.rfc9111.messages import Fields, Head, HitForMiss, Mark, Record, StoredResponse, VaryIndex
from cachemw.rfc9111.requests import Request
from cachemw.rules import Rule

NOW = 1_800_000_000.0
PAGE = Request(host="a")
OF = Engine(Policy()).resource(PAGE)
Store = dict[str, Any]


def head_of(*fields: tuple[str, str], status: int = 200) -> Head:
    return Head(status, fields)


def request_of(method: str = "GET", *fields: tuple[str, str], path: str = "/", query: str = "") -> Request:
    return Request(method, host="a", path=path, query=query, fields=fields)


def stored(*fields: tuple[str, str], key: str = primary_key(OF), **given: Any) -> StoredResponse:
    parts: dict[str, Any] = {
        "status": 200,
        "body": b"stored",
        "born": NOW,
        "lifetime": 60.0,
        "began": NOW,
        "fields": fields,
    }
    return StoredResponse(key=key, **{**parts, **given})


def special(engine: Engine, request: Request) -> list[str]:
    return [name for name in engine.special if request.lines(name)]


def look_up(engine: Engine, store: Store, request: Request = PAGE, now: float = NOW, **given: Any) -> Exchange[Engine]:
    """An exchange that has been told all it wanted to know."""
    exchange = Exchange(engine)
    for name, value in given.items():
        setattr(exchange, name, value)
    exchange.begin(request, now, special(engine, request))
    for _ in range(9):
        if not exchange.wants:
            return exchange
        exchange.found([store.get(key) for key in exchange.wants])
    raise AssertionError("it never has enough")


def settle(exchange: Exchange[Engine], store: Store) -> None:
    """What a shell does to the store in the end."""
    for key, record, _ in exchange.writes:
        store[key] = record
    for key in exchange.drops:
        store.pop(key, None)


def fetch(
    engine: Engine, store: Store, head: Head, body: bytes = b"page", request: Request = PAGE, now: float = NOW
) -> Exchange[Engine]:
    """A passage that ends with the application's answer, stored if it may be."""
    exchange = look_up(engine, store, request, now)
    assert not exchange.settled
    assert exchange.answered(head, now) is Step.RELAY
    exchange.leaving(head, now)
    if exchange.keep:
        exchange.completed(body, now)
    settle(exchange, store)
    return exchange


@pytest.mark.parametrize(("status", "alone"), [(304, False), (412, False), (416, False), (500, True), (999, True)])
def test_an_answer_to_a_client_s_own_conditions_says_nothing_of_the_page(status: int, alone: bool) -> None:
    """Else whoever sends `If-None-Match: *` has every visitor of a crowd call the application."""
    engine = Engine(Policy())
    fetch(engine, {}, head_of(status=status), request=request_of("GET", ("If-None-Match", "*")))
    assert (look_up(engine, {}).flight is None) is alone


# -- the documented order -------------------------------------------------------------------------------------------


def test_a_miss_and_a_hit() -> None:
    engine = Engine(Policy())
    store: Store = {}
    exchange = Exchange(engine)
    exchange.begin(PAGE, NOW)
    assert exchange.wants == (primary_key(OF), mark_key(OF))
    exchange.found([None, None])
    assert not exchange.wants
    assert not exchange.settled
    assert exchange.flight == primary_key(OF)
    assert exchange.answered(head_of(), NOW) is Step.RELAY
    left = exchange.leaving(head_of(), NOW)
    assert ("Cache-Control", "max-age=600") in left
    assert dict(left)["Cache-Status"] == "cachemw; fwd=uri-miss; fwd-status=200; stored; ttl=600"
    assert exchange.keep
    records = exchange.completed(b"page", NOW)
    assert list(records) == [primary_key(OF)]
    ((key, record, timeout),) = exchange.writes
    assert (key, timeout, exchange.guard) == (primary_key(OF), 600, (mark_key(OF), "", exchange.began))
    settle(exchange, store)
    again = look_up(engine, store, now=NOW + 9)
    assert again.hit is record
    assert again.extra == (("Age", "9"), ("Cache-Status", "cachemw; hit; ttl=591"))


@pytest.mark.parametrize(
    "other",
    [Request(host="b"), Request(host="a", path="/b"), Request(host="a", query="b"), Request(host="a", mount="/b"),
     Request(host="a", scheme="https")],
)  # fmt: skip
def test_what_was_learnt_of_one_page_is_nothing_of_another(other: Request) -> None:
    engine = Engine(Policy())
    store: Store = {}
    fetch(engine, store, head_of())
    assert look_up(engine, store).hit is not None
    assert look_up(engine, store, other).hit is None


@pytest.mark.parametrize(("policy", "one"), [(Policy(), False), (Policy.rfc9111(), True)])
def test_fields_that_mean_the_same_are_one_variant_where_the_policy_says(policy: Policy, one: bool) -> None:
    """RFC 9111 §4.1: white space, and lines combined, where that changes nothing of the meaning."""
    engine = Engine(policy)
    store: Store = {}
    fetch(engine, store, head_of(AGE, ("Vary", "Foo")), request=request_of("GET", ("Foo", "1,2")))
    assert look_up(engine, store, request_of("GET", ("Foo", "1,2"))).hit is not None
    assert (look_up(engine, store, request_of("GET", ("Foo", "1 , 2"))).hit is not None) is one
    assert look_up(engine, store, request_of("GET", ("Foo", "2,1"))).hit is None


@pytest.mark.parametrize("distant", [True, False])
def test_a_known_page_takes_one_look_up(distant: bool) -> None:
    """Where that is a round trip, it asks for all that a miss would have to know besides."""
    engine = Engine(Policy(), shared=True, distant=distant)
    store: Store = {}
    fields = ("Vary", "Accept"), ("Cache-Tag", "t")
    fetch(engine, store, head_of(*fields))
    for _ in range(3):
        look_up(engine, store, now=NOW + 5)
    exchange = Exchange(engine)
    exchange.begin(PAGE, NOW + 5)
    index = store[primary_key(OF)]
    needed = {index.key, *[k for k in store if "\0V" in k], *tag_keys("", ["t"])}
    assert set(exchange.wants) == (needed | {mark_key(OF)} if distant else needed)
    exchange.found([store.get(key) for key in exchange.wants])
    assert exchange.hit is not None
    assert exchange.wants == ()


def test_a_page_that_is_learnt_of_takes_no_other_page_s_place() -> None:
    engine = Engine(Policy())
    store: Store = {}
    asked = [request_of(path=path) for path in ("/a", "/b", "/c")]
    for request in asked:
        fetch(engine, store, head_of(("Vary", "Accept")), request=request)
        look_up(engine, store, request)
    for request in asked:
        exchange = Exchange(engine)
        exchange.begin(request, NOW)
        exchange.found([store.get(key) for key in exchange.wants])
        assert exchange.hit is not None, "one look-up asks for the index and its variant"


@pytest.mark.parametrize("tag", ["t", "other"])
def test_a_variant_is_looked_up_together_with_the_tags_of_the_first(tag: str) -> None:
    """Which are most likely its own; if not, they are looked up once more, and then known."""
    store: Store = {}
    second = request_of("GET", ("Accept", "text/html"))
    fetch(Engine(Policy()), store, head_of(("Vary", "Accept"), ("Cache-Tag", "t")))
    before = set(store)
    fetch(Engine(Policy()), store, head_of(("Vary", "Accept"), ("Cache-Tag", tag)), request=second)
    (variant,) = store.keys() - before
    engine = Engine(Policy())
    exchange = Exchange(engine)
    exchange.begin(second, NOW + 5)
    wanted = []
    while exchange.wants:
        wanted.append(set(exchange.wants))
        exchange.found([store.get(key) for key in exchange.wants])
    assert exchange.hit is store[variant]
    assert wanted[1] == {variant, *tag_keys("", ["t"])}
    assert len(wanted) == (2 if tag == "t" else 3)
    again = Exchange(engine)
    again.begin(second, NOW + 6)
    again.found([store.get(key) for key in again.wants])
    assert again.hit is store[variant]
    for key in tag_keys("", [tag]):
        store[key] = Mark(key, "purged", NOW + 7)
    assert look_up(Engine(Policy()), store, second, NOW + 8).hit is None


def test_a_shared_engine_asks_for_leases() -> None:
    exchange = look_up(Engine(Policy(), shared=True), {})
    assert exchange.flight is not None
    assert exchange.lease == lease_key(exchange.flight)


def test_a_stale_page_is_asked_about_and_renewed() -> None:
    engine, page = Engine(Policy()), stored(("ETag", '"1"'), ("Cache-Control", "max-age=60"))
    store: Store = {page.key: page}
    exchange = look_up(engine, store, now=NOW + 100)
    assert exchange.conditions == (("If-None-Match", '"1"'),)
    assert exchange.answered(head_of(("ETag", '"1"'), status=304), NOW + 101) is Step.REPLY
    assert exchange.hit is not None
    assert exchange.hit.fresh_until == NOW + 160 + 0
    settle(exchange, store)
    assert look_up(engine, store, now=NOW + 150).hit is not None


@pytest.mark.parametrize(
    ("answer", "kept"),
    [
        ((("Cache-Control", "max-age=60"),), 60 - 1 + 3600),
        ((("Cache-Control", "max-age=9"),), 9 - 1 + 3600),
        ((("Cache-Control", "no-store"),), None),
        ((("Cache-Control", "private"),), None),
        ((("Set-Cookie", "a=b"),), 60 - 1 + 3600),  # which is this client's alone
        ((("Vary", "Accept"),), None),  # where it stands, everybody would get it
        ((("Vary", "*"),), None),
        ((("No-Vary-Search", "params"),), None),
    ],
)
def test_a_304_that_forbids_to_store_the_page_there_removes_it(answer: Fields, kept: float | None) -> None:
    """RFC 9111 §4.3.4: the stored response is updated with its fields, and is then what they say."""
    page = stored(("ETag", '"1"'), ("Cache-Control", "max-age=60"))
    exchange = look_up(Engine(Policy()), {page.key: page}, now=NOW + 100)
    head = head_of(("ETag", '"1"'), ("Date", format_date(NOW + 100)), *answer, status=304)
    assert exchange.answered(head, NOW + 101) is Step.REPLY
    assert [(key, timeout) for key, _, timeout in exchange.writes] == ([] if kept is None else [(page.key, kept)])
    for _, record, _ in exchange.writes:
        assert isinstance(record, StoredResponse)
        assert not record.head.lines("set-cookie")
        assert record.began >= NOW + 100  # a purge before that was of the page as it was
    assert tuple(exchange.drops) == ((page.key,) if kept is None else ())


@pytest.mark.parametrize(
    ("answer", "hooks", "drops"),
    [((), 0, False), ((("Content-Security-Policy", "'nonce-1'"),), 0, True), ((), 1, True)],
)
def test_a_304_to_a_user_leaves_the_page_as_it_was(answer: Fields, hooks: int, drops: bool) -> None:
    """Unless it says of the page itself that nobody else may have it."""
    page = stored(("ETag", '"1"'), chosen=True)
    exchange = look_up(Engine(Policy()), {page.key: page}, now=NOW + 1000)
    exchange.identified = True
    exchange.hooks_within = hooks
    assert exchange.answered(head_of(("ETag", '"1"'), *answer, status=304), NOW + 1000) is Step.REPLY
    assert not exchange.writes
    assert tuple(exchange.drops) == ((page.key,) if drops else ())


class _Told(Request):
    """A request of which the framework tells more than its fields do."""

    session = "read"
    declared = ("x-theme",)
    handed_on = True


@pytest.mark.parametrize(
    ("named", "timeout", "stays"),
    [("Cookie, X-Theme", None, True), ("Cookie, X-Theme", 60, True), ("X-Theme", None, False), ("Cookie", 60, False)],
)
def test_a_page_that_is_validated_varies_on_what_its_new_answer_was_made_of(
    named: str, timeout: float | None, stays: bool
) -> None:
    engine, store = Engine(Policy()), dict[str, Any]()
    fetch(engine, store, head_of(("ETag", '"1"'), ("Cache-Control", "max-age=60"), ("Vary", named)))
    exchange = look_up(engine, store, _Told(host="a"), NOW + 100, timeout=timeout)
    assert exchange.answered(head_of(("ETag", '"1"'), ("Vary", "Accept"), status=304), NOW + 100) is Step.REPLY
    assert not exchange.writes  # it varies on more by now
    exchange = look_up(engine, store, _Told(host="a"), NOW + 100, timeout=timeout)
    assert exchange.answered(head_of(("ETag", '"1"'), status=304), NOW + 100) is Step.REPLY
    assert bool(exchange.writes) is stays
    assert exchange.hit is not None
    assert set(exchange.hit.head.lines("vary")[0].split(", ")) == {"Cookie", "X-Theme"}


def test_an_answer_to_a_question_that_nobody_asked_is_asked_again() -> None:
    page = stored(("ETag", '"1"'), ("Cache-Control", "max-age=60"))
    exchange = look_up(Engine(Policy()), {page.key: page}, now=NOW + 100)
    assert exchange.answered(head_of(("ETag", '"2"'), status=304), NOW + 101) is Step.RETRY
    assert exchange.conditions is None
    assert exchange.answered(head_of(), NOW + 102) is Step.RELAY
    exchange.leaving(head_of(), NOW + 102)
    assert exchange.completed(b"new", NOW + 102)


def test_a_client_s_own_304_passes_and_is_not_stored() -> None:
    exchange = look_up(Engine(Policy()), {}, request_of("GET", ("If-None-Match", '"1"')))
    assert exchange.answered(head_of(status=304), NOW) is Step.RELAY
    exchange.leaving(head_of(status=304), NOW)
    assert not exchange.keep


@pytest.mark.parametrize("how", ["raises", "answers 500"])
def test_a_stale_page_stands_in(how: str) -> None:
    page = stored(("Cache-Control", "max-age=60, stale-if-error=600"))
    exchange = look_up(Engine(Policy()), {page.key: page}, now=NOW + 100)
    if how == "raises":
        assert exchange.serve_on_error(NOW + 100)
    else:
        assert exchange.answered(head_of(status=500), NOW + 100) is Step.REPLY
    assert exchange.hit is page
    assert "fwd=stale" in exchange.trace
    assert not exchange.serve_on_error(NOW + 10_000)


def test_whoever_waited_looks_again_once() -> None:
    engine = Engine(Policy())
    store: Store = {}
    follower = look_up(engine, store)
    fetch(engine, store, head_of())
    follower.again(NOW + 1)
    while follower.wants:
        follower.found([store.get(key) for key in follower.wants])
    assert follower.hit is not None
    assert dict(follower.extra)["Cache-Status"] == "cachemw; hit; ttl=599; collapsed"
    for _ in range(2):  # who comes later has waited for nobody
        assert dict(look_up(engine, store, now=NOW + 1).extra)["Cache-Status"] == "cachemw; hit; ttl=599"


def test_in_grace_a_follower_need_not_wait() -> None:
    page = stored(("Cache-Control", "max-age=60"))
    exchange = look_up(Engine(Policy(grace=30)), {page.key: page}, now=NOW + 70)
    assert exchange.serve_in_grace()
    assert exchange.hit is page
    assert not look_up(Engine(Policy(grace=5)), {page.key: page}, now=NOW + 70).serve_in_grace()


def test_after_an_uncacheable_answer_nobody_waits() -> None:
    engine = Engine(Policy(hit_for_miss=10), shared=True)
    store: Store = {}
    exchange = fetch(engine, store, head_of(("Cache-Control", "private")))
    assert exchange.trace == "cachemw; fwd=uri-miss; fwd-status=200; detail=private"  # not "stored": a mark was
    assert isinstance(store[primary_key(OF)], HitForMiss)
    assert look_up(engine, store, now=NOW + 9).flight is None
    assert look_up(Engine(Policy(), shared=True), store, now=NOW + 9).flight is None, "another process is told"
    store.clear()
    assert look_up(engine, store, now=NOW + 20).flight is not None


LASTING: list[tuple[str, Head]] = [
    ("event-stream", head_of(("Content-Type", "text/event-stream"))),
    ("no-cache", head_of(("Cache-Control", "no-cache"))),
    ("no-lifetime", head_of(("Cache-Control", "max-age=0"))),
    ("no-store", head_of(("Cache-Control", "no-store"))),
    ("private", head_of(("Cache-Control", "private"))),
    ("set-cookie", head_of(("Set-Cookie", "a=b"))),
    ("status", head_of(status=500)),
    ("too-large", head_of(("Content-Length", "9000000"))),
    ("vary-star", head_of(("Vary", "*"))),
]


@pytest.mark.parametrize(("reason", "head"), LASTING, ids=[reason for reason, _ in LASTING])
def test_what_lies_in_the_answer_itself_has_nobody_wait_for_the_next_one(reason: str, head: Head) -> None:
    """Else each of a crowd would have it when the one before it has: one after the other."""
    engine = Engine(Policy())
    assert f"detail={reason}" in fetch(engine, {}, head).trace
    assert look_up(engine, {}, now=NOW + 1).flight is None


def test_what_lies_in_the_request_has_others_wait() -> None:
    engine = Engine(Policy())
    fetch(engine, {}, head_of(("Cache-Control", "max-age=60")), request=request_of("GET", LOGIN))
    assert look_up(engine, {}, now=NOW + 1).flight is not None


@pytest.mark.parametrize(("of_the_view", "lifetime"), [(None, 60), (30.0, 30)])
def test_a_lifetime_that_a_view_gave_comes_before_that_of_a_rule(of_the_view: float | None, lifetime: float) -> None:
    exchange = look_up(Engine(Policy()), {}, timeout=of_the_view, candidates=(Rule(lifetime=60),))
    exchange.leaving(head_of(), NOW)
    (record,) = exchange.completed(b"page", NOW).values()
    assert isinstance(record, StoredResponse)
    assert record.lifetime == lifetime


def test_what_a_view_never_wants_stored_is_passed_by() -> None:
    exchange = look_up(Engine(Policy()), {primary_key(OF): stored()}, never=True)
    assert exchange.hit is None
    assert exchange.trace == "cachemw; fwd=bypass"


def purged_by(exchange: Exchange[Engine]) -> list[str]:
    return list(dict.fromkeys(of for one, ignore in exchange.purges for of in exchange.engine.resources(one, ignore)))


def test_unsafe_requests_are_not_looked_up_and_purge() -> None:
    exchange = look_up(Engine(Policy()), {}, request_of("POST"))
    exchange.leaving(head_of(("Location", "/b"), ("Content-Location", "//elsewhere/c")), NOW)
    assert purged_by(exchange) == [OF, Engine(Policy()).resource(request_of(path="/b"))]
    assert not exchange.keep
    refused = look_up(Engine(Policy()), {}, request_of("POST"))
    refused.leaving(head_of(status=403), NOW)
    assert refused.purges == ()


def test_a_stored_post_is_guarded_by_the_mark_that_its_own_purge_left() -> None:
    exchange = look_up(Engine(Policy.rfc9111()), {}, request_of("POST"))
    exchange.leaving(head_of(("Content-Location", "/"), ("Cache-Control", "max-age=60")), NOW)
    assert purged_by(exchange) == [OF]
    assert exchange.wants == (mark_key(OF),)
    exchange.unpurged([None])
    exchange.purged([Mark(mark_key(OF), "own")])
    assert exchange.completed(b"page", NOW)
    assert exchange.guard == (mark_key(OF), "own", exchange.began)


def test_who_waited_finds_the_page_where_its_first_answer_has_put_it() -> None:
    engine = Engine(Policy())
    store: Store = {}
    asked = request_of(query="utm=1")
    before = mark_key(engine.resource(asked))
    leader, follower = look_up(engine, store, asked), look_up(engine, store, asked)
    assert leader.flight == follower.flight
    leader.answered(head := head_of(("No-Vary-Search", "params")), NOW)
    leader.leaving(head, NOW)
    assert leader.wants == (mark_key(OF), before)
    leader.unpurged([None, None])
    leader.completed(b"page", NOW)
    assert leader.guard == (mark_key(OF), "", leader.began)
    settle(leader, store)
    follower.again(NOW)
    while follower.wants:
        follower.found([store.get(key) for key in follower.wants])
    assert follower.hit is not None
    assert follower.hit.body == b"page"


def test_who_waited_is_not_given_a_page_that_answers_another_query() -> None:
    engine = Engine(Policy())
    store: Store = {}
    follower = look_up(engine, store, request_of(query="utm=1"))
    fetch(engine, store, head_of(("No-Vary-Search", "params")), request=request_of(query="other=1"))
    store = {primary_key(OF): stored()}  # of another process, which knows nothing of what was said here
    follower.again(NOW)
    while follower.wants:
        follower.found([store.get(key) for key in follower.wants])
    assert not follower.settled


def test_parts_are_completed() -> None:
    engine = Engine(Policy.rfc9111())
    store: Store = {}
    fields = ("ETag", '"1"'), ("Cache-Control", "max-age=60")
    asked = request_of("GET", ("Range", "bytes=0-2"))
    fetch(engine, store, head_of(*fields, ("Content-Range", "bytes 0-2/6"), status=206), b"abc", asked)
    part = look_up(engine, store, asked)
    assert part.reply is not None
    assert (part.reply.status, part.reply.body) == (206, b"abc")
    exchange = look_up(engine, store)
    assert exchange.conditions == (("Range", "bytes=3-"), ("If-Range", '"1"'))
    rest = head_of(*fields, ("Content-Range", "bytes 3-5/6"), status=206)
    assert exchange.answered(rest, NOW) is Step.HOLD
    assert exchange.combined(rest, b"def", NOW) is Step.REPLY
    settle(exchange, store)
    whole = look_up(engine, store)
    assert whole.hit is not None
    assert whole.hit.body == b"abcdef"


def test_nothing_is_asked_for_to_complete_a_part_that_is_gone() -> None:
    part = stored(("ETag", '"1"'), ("Content-Range", "bytes 0-2/6"), status=206, body=b"abc")
    exchange = look_up(Engine(Policy.rfc9111()), {part.key: part})
    assert exchange.conditions is not None
    exchange.again(NOW)
    while exchange.wants:
        exchange.found([None] * len(exchange.wants))
    assert exchange.conditions is None


@pytest.mark.parametrize(
    ("head", "body", "step"),
    [
        (head_of(("ETag", '"2"'), ("Content-Range", "bytes 3-5/6"), status=206), b"xyz", Step.RETRY),
        (head_of(("ETag", '"1"'), ("Content-Range", "bytes 3-4/6"), status=206), b"de", Step.RETRY),
    ],
    ids=["of another representation", "too little"],
)
def test_parts_that_do_not_complete_are_asked_for_again(head: Head, body: bytes, step: Step) -> None:
    engine = Engine(Policy.rfc9111())
    part = stored(("ETag", '"1"'), ("Content-Range", "bytes 0-2/6"), status=206, body=b"abc")
    exchange = look_up(engine, {part.key: part})
    assert exchange.answered(head, NOW) is Step.HOLD
    assert exchange.combined(head, body, NOW) is step
    assert exchange.conditions is None
    assert exchange.answered(head_of(), NOW) is Step.RELAY


@pytest.mark.parametrize("status", [400, 416])
def test_an_error_in_place_of_a_part_is_asked_about_without_our_range(status: int) -> None:
    part = stored(("ETag", '"1"'), ("Content-Range", "bytes 0-2/6"), status=206, body=b"abc")
    exchange = look_up(Engine(Policy.rfc9111()), {part.key: part})
    assert exchange.answered(head_of(status=status), NOW) is Step.RETRY


def test_head_renews_or_removes_the_stored_page() -> None:
    engine = Engine(Policy.rfc9111())
    page = stored(("ETag", '"1"'), ("Cache-Control", "max-age=60"))
    store: Store = {page.key: page}
    same = fetch(
        engine, store, head_of(("ETag", '"1"'), ("Cache-Control", "max-age=60")), b"", request_of("HEAD"), NOW + 100
    )
    assert page.key in same.records
    assert look_up(engine, store, now=NOW + 120).hit is not None
    other = fetch(engine, store, head_of(("ETag", '"2"')), b"", request_of("HEAD"), NOW + 300)
    assert other.drops == (page.key,)
    assert page.key not in store


def test_only_if_cached_is_refused_without_a_call() -> None:
    exchange = look_up(Engine(Policy.rfc9111()), {}, request_of("GET", ("Cache-Control", "only-if-cached")))
    assert exchange.reply is not None
    assert exchange.reply.status == 504


def test_the_key_is_told_when_asked_and_cannot_break_out() -> None:
    engine = Engine(Policy(cache_status_key=True))
    exchange = look_up(engine, {}, request_of(query='"; hit; \\ \x07é'))
    told = exchange.trace.partition("key=")[2]
    assert told[0] == told[-1] == '"'
    assert told.isascii()
    assert told.isprintable()
    assert '\\"; hit; \\\\ ?' in told


def test_a_request_that_is_not_looked_up_has_no_key_to_tell() -> None:
    assert "key=" not in look_up(Engine(Policy(cache_status_key=True)), {}, request_of("OPTIONS")).trace


# -- in other orders ------------------------------------------------------------------------------------------------


def test_the_outer_half_alone_relays() -> None:
    exchange = Exchange(Engine(Policy()))
    exchange.request = PAGE
    head = exchange.leaving(head_of(), NOW)
    assert head == (("Cache-Status", "cachemw; fwd=miss; fwd-status=200"),)
    assert not exchange.keep
    assert (exchange.writes, exchange.drops, exchange.purges) == ((), (), ())


def test_the_inner_half_alone_stores_nothing() -> None:
    exchange = look_up(Engine(Policy()), {})
    exchange.answered(head_of(), NOW)
    assert (exchange.writes, exchange.drops, exchange.keep) == ((), (), False)


@pytest.mark.parametrize("when", ["before the answer", "after the head", "after the body"])
def test_an_abandoned_body_leaves_nothing(when: str) -> None:
    exchange = look_up(Engine(Policy()), {})
    if when == "before the answer":
        exchange.abandoned()
        return
    exchange.leaving(head_of(), NOW)
    if when == "after the body":
        exchange.completed(b"page", NOW)
    exchange.abandoned()
    assert not exchange.keep
    assert not exchange.writes
    assert "stored" not in exchange.trace


@pytest.mark.parametrize(
    ("session", "vary", "keeps"),
    [("", "", True), ("held", "", True), ("read", "", False), ("read", "Cookie", True), ("changed", "Cookie", False)],
)
def test_a_session_that_was_used_while_the_body_was_made(session: str, vary: str, keeps: bool) -> None:
    """A template reads it when the head has long been sent."""
    kind = type("Asked", (Request,), {"session": ""})
    exchange = look_up(Engine(Policy()), {}, kind(host="a"))
    exchange.leaving(head_of(*([("Vary", vary)] if vary else [])), NOW)
    assert exchange.keep
    kind.session = session  # type: ignore[attr-defined]
    assert bool(exchange.completed(b"for one visitor", NOW)) is keeps
    assert bool(exchange.writes) is keeps
    assert (exchange.stored_ttl is not None) is keeps


def test_a_page_that_took_longer_than_a_mark_lasts_is_not_stored_and_promises_no_lifetime() -> None:
    """A purge meanwhile may have left a mark that is gone by now."""
    exchange = look_up(Engine(Policy()), {})
    exchange.leaving(head_of(), NOW)
    assert exchange.keep
    assert not exchange.completed(b"page", NOW + SLOWEST + 1)
    assert not exchange.writes
    assert (exchange.detail, exchange.stored_ttl) == ("late", None)


def test_what_an_application_declares_to_read_is_added_to_what_it_says() -> None:
    kind = type("Asked", (Request,), {"declared": ("accept-language", "accept")})
    exchange = look_up(Engine(Policy()), {}, kind(host="a"))
    left = exchange.leaving(head_of(("Vary", "Accept")), NOW)
    assert [value for name, value in left if name == "Vary"] == ["Accept, Accept-Language"]


def test_a_body_that_is_longer_than_the_policy_admits_is_not_stored() -> None:
    for size in (4, 5):
        store: Store = {}
        exchange = fetch(Engine(Policy(max_body=4)), store, head_of(), b"x" * size)
        assert (exchange.detail == "incomplete") is (size > 4)
        assert bool(store) is (size <= 4)


def test_what_cannot_be_seen_is_not_stored() -> None:
    exchange = look_up(Engine(Policy()), {})
    exchange.cannot_copy()
    exchange.leaving(head_of(), NOW)
    assert not exchange.keep


def test_a_body_must_not_come_before_its_head() -> None:
    exchange = look_up(Engine(Policy()), {})
    with pytest.raises(AssertionError):
        exchange.completed(b"page", NOW)
    with pytest.raises(AssertionError):
        exchange.combined(head_of(), b"", NOW)


def test_answers_must_be_as_many_as_questions() -> None:
    exchange = Exchange(Engine(Policy()))
    exchange.begin(PAGE, NOW)
    with pytest.raises(ValueError, match="shorter"):
        exchange.found([None])


def test_a_failure_without_a_stale_page_is_the_application_s() -> None:
    assert not look_up(Engine(Policy()), {}).serve_on_error(NOW)
    assert not look_up(Engine(Policy()), {}, request_of("POST")).serve_on_error(NOW)


def test_a_reply_is_never_stored_by_the_outer_half() -> None:
    page = stored(("ETag", '"1"'), ("Cache-Control", "max-age=600"), chosen=True)
    exchange = look_up(Engine(Policy()), {page.key: page}, now=NOW + 100)
    exchange.answered(head_of(("ETag", '"1"'), status=304), NOW + 100)
    writes = exchange.writes
    head = head_of(("ETag", '"1"'), ("Cache-Control", "max-age=600"))
    assert exchange.leaving(head, NOW + 100) == head.fields
    assert (exchange.keep, exchange.writes) == (False, writes)


# -- records that nobody expects ------------------------------------------------------------------------------------

INDEX = VaryIndex(primary_key(OF), ("accept",), "g")
ODD: list[Record | object | None] = [
    None,
    stored(),
    stored(validate=True),
    stored(lifetime=0.0),
    stored(status=206, body=b"abc"),
    stored(("Content-Range", "bytes 0-2/9"), status=206, body=b"abc"),
    stored(tags=("t",)),
    stored(born=NOW + 1e9),
    INDEX,
    INDEX._replace(names=()),
    INDEX._replace(names=("",)),
    INDEX._replace(names=("*",)),
    INDEX._replace(names=(":language", ":timezone", ":distinctions")),
    INDEX._replace(names=(":of a later version",)),
    INDEX._replace(key=head_key(OF)),
    INDEX._replace(stale_before=NOW + 1),
    HitForMiss(primary_key(OF)),
    Mark(mark_key(OF), "token"),
    Mark(tag_key("", "t"), "", hard=NOW + 1),
    Mark(tag_key("", "t", soft=True), "", soft=NOW + 1),
    object(),
    b"bytes",
]


@given(st.data())
def test_whatever_stands_under_a_key_the_exchange_goes_on(data: st.DataObject) -> None:
    """Wrong kinds, wrong keys, leftovers of other versions: at worst a miss, and the answer is stored and found."""
    policy = data.draw(st.sampled_from([Policy(), Policy.rfc9111(), Policy.django()]))
    engine = Engine(policy, i18n=data.draw(st.booleans()), shared=data.draw(st.booleans()))
    fields: Fields = data.draw(
        st.sampled_from([(), (("x-forwarded-host", "b"),), (("range", "bytes=0-0"),), (("authorization", "x"),)])
    )
    for method in data.draw(st.lists(st.sampled_from(["GET", "HEAD"]), min_size=1, max_size=3)):
        exchange = Exchange(engine)
        request = request_of(method, *fields)
        exchange.begin(request, NOW, special(engine, request))
        rounds = 0
        while exchange.wants:
            exchange.found([data.draw(st.sampled_from(ODD)) for _ in exchange.wants])  # type: ignore[misc]
            rounds += 1
            assert rounds < 9
        if exchange.settled:
            assert exchange.trace.startswith("cachemw; hit") or exchange.reply is not None or not policy.cache_status
            continue
        step = exchange.answered(head_of(("Vary", "Accept"), ("Cache-Control", "max-age=9")), NOW)
        assert step in (Step.RELAY, Step.RETRY)
        exchange.leaving(head_of(("Vary", "Accept"), ("Cache-Control", "max-age=9")), NOW)
        if exchange.keep:
            exchange.completed(b"page", NOW)


@pytest.mark.parametrize(
    ("mark", "hit"),
    [
        (None, True),
        (Mark(tag_key("", "t"), "", hard=NOW - 1), True),
        (Mark(tag_key("", "t"), "", hard=NOW), False),
        (Mark(tag_key("", "t"), "", hard=NOW + 1), False),
        (Mark(tag_key("", "t"), "", soft=NOW), False),
        (Mark(tag_key("", "t", soft=True), "", soft=NOW - 1), True),
        (Mark(tag_key("", "t", soft=True), "", soft=NOW), False),
        (Mark(tag_key("", "u", soft=True), "", soft=NOW), False),
        (HitForMiss(tag_key("", "t")), True),
    ],
)
def test_marks_of_tags(mark: Record | None, hit: bool) -> None:
    page = stored(tags=("t", "u"))
    exchange = look_up(Engine(Policy()), {page.key: page} | ({} if mark is None else {mark.key: mark}))
    assert (exchange.hit is page) is hit


@pytest.mark.parametrize("learnt", [False, True])
@pytest.mark.parametrize(
    ("shared", "ago", "hit"),
    [(False, 0.0, False), (False, 0.001, True), (True, 0.001, False), (True, 1.0, False), (True, 1.001, True)],
)
def test_a_soft_purge_allows_for_the_clocks_of_other_machines(
    shared: bool, ago: float, hit: bool, learnt: bool
) -> None:
    """Of a URL that varies as of a tag: the page began so long after the purge, if both clocks were right."""
    engine = Engine(Policy(), shared=shared, skew=1.0)
    varying: Store = {}
    fetch(engine, varying, head_of(("Vary", "Accept")))
    index = varying[primary_key(OF)]._replace(stale_before=NOW - ago)
    (key,) = varying.keys() - {index.key}
    engine = engine if learnt else Engine(Policy(), shared=shared, skew=1.0)
    page = stored(key=key)
    assert (look_up(engine, {index.key: index, key: page}).hit is page) is hit
    mark = Mark(tag_key("", "t", soft=True), "", soft=NOW - ago)
    page = stored(tags=("t",))
    assert (look_up(Engine(Policy(), shared=shared, skew=1.0), {page.key: page, mark.key: mark}).hit is page) is hit


def test_a_mark_that_changed_between_two_look_ups() -> None:
    """Who waited for a lease asks for the mark anew, and is guarded by the new one."""
    engine = Engine(Policy(), shared=True)
    exchange = look_up(engine, {mark_key(OF): Mark(mark_key(OF), "one")})
    first = exchange.flight
    exchange.again(NOW + 1)
    while exchange.wants:
        exchange.found([Mark(mark_key(OF), "two") if key == mark_key(OF) else None for key in exchange.wants])
    assert exchange.flight != first, "who comes after a purge does not wait for what began before it"
    exchange.leaving(head_of(), NOW + 1)
    exchange.completed(b"page", NOW + 1)
    assert exchange.guard == (mark_key(OF), "two", exchange.began)


def test_an_index_without_its_variant_is_a_miss_that_fills_it() -> None:
    engine, store = Engine(Policy()), {INDEX.key: INDEX}
    exchange = fetch(engine, store, head_of(("Vary", "Accept")))
    assert "fwd=vary-miss" in exchange.trace
    assert store[INDEX.key] is INDEX, "an index that is there is left alone: it might have been purged meanwhile"
    assert look_up(engine, store).hit is not None


def test_a_page_in_place_of_the_index_that_was_learnt() -> None:
    engine = Engine(Policy())
    store: Store = {}
    fetch(engine, store, head_of(("Vary", "Accept")))
    assert look_up(engine, store).hit is not None
    store[primary_key(OF)] = page = stored()
    assert look_up(engine, store).hit is page
    store[primary_key(OF)] = None
    exchange = look_up(engine, store)
    assert "uri-miss" in exchange.trace
    assert exchange.flight == primary_key(OF)


def test_an_index_of_head_is_no_index_of_get() -> None:
    engine = Engine(Policy())
    store: Store = {}
    varying = head_of(("Vary", "Accept"), ("Cache-Control", "max-age=60"))
    fetch(engine, store, varying, b"", request_of("HEAD"))
    assert isinstance(store[head_key(OF)], VaryIndex)
    assert not look_up(engine, store).settled
    fetch(engine, store, varying)
    assert store[head_key(OF)].generation != store[primary_key(OF)].generation
    hit = look_up(engine, store).hit
    assert hit is not None
    assert hit.body == b"page"
    other = look_up(engine, store, request_of("HEAD", ("Accept", "other")))
    assert not other.settled


@pytest.mark.parametrize("moved", [-100_000.0, -1.0, 0.0, 1.0, 1e6])
def test_a_clock_that_jumps_tells_no_negative_age(moved: float) -> None:
    page = stored(("Cache-Control", "max-age=60"))
    exchange = look_up(Engine(Policy()), {page.key: page}, now=NOW + moved)
    if exchange.hit is not None:
        age, status = exchange.extra
        assert int(age[1]) >= 0
        assert "ttl=-" not in status[1]


@pytest.mark.parametrize(("back", "hit"), [(1.0, True), (86_400.0, False)])
def test_a_page_from_the_future_is_no_fresh_one(back: float, hit: bool) -> None:
    """The clock was a day ahead when it was stored: its age is unknown, and it must not stay for a day too long."""
    for fields in ((), (("If-None-Match", '"1"'),), (("Range", "bytes=0-0"),)):
        page = stored(("ETag", '"1"'))
        exchange = look_up(Engine(Policy()), {page.key: page}, request_of("GET", *fields), now=NOW - back)
        assert exchange.settled is hit


def test_stamps_never_go_back() -> None:
    engine = Engine(Policy())
    stamps = [engine.stamp(now) for now in (NOW, NOW, NOW - 100, NOW + 1, NOW + 1)]
    assert stamps == sorted(set(stamps))


# -- what is learnt -------------------------------------------------------------------------------------------------


def test_what_was_learnt_of_one_index_is_not_used_with_another() -> None:
    """Another thread learns a new index between two steps of this one: names and values belong together."""
    engine = Engine(Policy())
    store: Store = {}
    fetch(engine, store, head_of(("Vary", "Accept")))
    look_up(engine, store)
    held = engine.learnt[OF].variants
    assert held is not None
    newer = held.index._replace(names=("accept", "cookie"), generation="newer")
    engine.vary(OF, newer, PAGE)
    bob = request_of("GET", ("cookie", "bob"))
    selected = held.select(bob, lambda name: None)
    newest = engine.learnt[OF].variants
    assert newest is not None
    assert newest.select(bob, lambda name: None) != selected
    assert held.select(request_of(), lambda name: None) == selected, "of the old names alone"
    assert newest.select(request_of(), lambda name: None) != newest.select(bob, lambda name: None)


def test_two_that_learn_of_the_variants_at_once_share_their_room() -> None:
    """Else whoever sends two new field values at a time fills the store."""
    store: Store = {}
    head = head_of(("Vary", "Accept"))
    fetch(Engine(Policy()), store, head)  # by another process
    engine = Engine(Policy(max_variants=2))
    both = Exchange(engine), Exchange(engine)
    for number, exchange in enumerate(both):
        exchange.begin(request_of("GET", ("accept", f"type/{number}")), NOW)
    for exchange in both:
        while exchange.wants:
            exchange.found([store.get(key) for key in exchange.wants])
        exchange.answered(head, NOW)
        exchange.leaving(head, NOW)
        exchange.completed(b"page", NOW)
    first, second = both
    assert not first.drops
    assert list(second.drops) == [key for key, _, _ in first.writes], "which has to make room"


def test_memories_are_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("cachemw.engine._LEARNT", 4)
    monkeypatch.setattr("cachemw.engine.bounded.__defaults__", (4,))
    monkeypatch.setattr("cachemw.engine._PAIRS", 4)
    engine = Engine(Policy())
    store: Store = {}
    for number in range(40):
        request = request_of("GET", ("accept", str(number)), path=f"/{number}")
        head = head_of(("Vary", "Accept"), ("X", str(number)), ("No-Vary-Search", f'params=("{number}")'))
        fetch(engine, store, head, request=request)
        fetch(engine, store, head_of(("Cache-Control", "private")), request=request_of(path=f"/private/{number}"))
        look_up(engine, store, request)
        look_up(engine, store, request)
    sizes = [len(getattr(engine, name)) for name in ("learnt", "seen", "passing", "selections", "search", "_pairs")]
    assert max(sizes) <= 8
    assert min(sizes) > 0


def test_what_is_known_of_the_variants_of_all_pages_is_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    """As many as there may be of each page are too many of all of them."""
    monkeypatch.setattr("cachemw.engine._LEARNT", 4)
    engine = Engine(Policy())
    store: Store = {}
    for path in ("/a", "/b", "/c"):
        for number in range(4):
            request = request_of("GET", ("accept", str(number)), path=path)
            fetch(engine, store, head_of(("Vary", "Accept")), request=request)
    assert sum(len(learnt.room) for learnt in engine.learnt.values()) <= 4


# -- the presets, line by line --------------------------------------------------------------------------------------

SESSION = ("Cookie", "sessionid=1")
LOGIN = ("Authorization", "Basic eA==")
AGE = ("Cache-Control", "max-age=60")

# request's fields, status, response's fields -> lifetime in seconds with which each policy stores it, None: it does not
TABLE: list[tuple[str, tuple[tuple[str, str], ...], int, Fields, tuple[float | None, float | None, float | None]]] = [
    # stored: GET, 200; other statuses when the response itself says how long
    ("a page that says nothing", (), 200, (), (600, 600, None)),
    ("an error that says nothing", (), 404, (), (None, None, None)),
    ("an error that says how long", (), 404, (AGE,), (60, None, 60)),
    ("a redirect that says how long", (), 302, (AGE,), (60, None, 60)),
    ("not modified", (), 304, (AGE,), (None, None, None)),
    # lifetime: targeted > s-maxage > max-age > Expires > the middleware's
    ("max-age", (), 200, (AGE,), (60, 60, 60)),
    ("s-maxage", (), 200, (("Cache-Control", "max-age=60, s-maxage=30"),), (30, 60, 30)),
    ("targeted", (), 200, (("CDN-Cache-Control", "max-age=9"), AGE), (9, 60, 9)),
    ("Expires", (), 200, (("Expires", "Fri, 15 Jan 2027 08:01:00 GMT"),), (60, 600, 60)),
    ("max-age=0", (), 200, (("Cache-Control", "max-age=0"),), (None, None, None)),
    ("private", (), 200, (("Cache-Control", "Private, max-age=60"),), (None, None, None)),
    ("no-store", (), 200, (("Cache-Control", "NO-STORE"),), (None, None, None)),
    ("Vary: *", (), 200, (("Vary", " *"), AGE), (None, None, None)),
    ("no-cache", (), 200, (("Cache-Control", "no-cache, max-age=60"),), (None, None, None)),
    # Set-Cookie
    ("Set-Cookie", (), 200, (("Set-Cookie", "a=b"), AGE), (None, 60, 60)),
    ("Set-Cookie that varies", (), 200, (("Set-Cookie", "a=b"), ("Vary", "Cookie"), AGE), (None, None, None)),
    # credentials
    ("Authorization", (LOGIN,), 200, (AGE,), (None, 60, None)),
    ("Authorization, public", (LOGIN,), 200, (("Cache-Control", "public, max-age=60"),), (60, 60, 60)),
    ("Authorization, s-maxage", (LOGIN,), 200, (("Cache-Control", "s-maxage=60"),), (60, 600, 60)),
    (
        "Authorization, must-revalidate",
        (LOGIN,),
        200,
        (("Cache-Control", "max-age=60, must-revalidate"),),
        (60, 60, 60),
    ),
    # session cookies
    ("a session", (SESSION,), 200, (), (None, 600, None)),
    ("a session, max-age", (SESSION,), 200, (AGE,), (60, 60, 60)),
    ("a session that varies", (SESSION,), 200, (("Vary", "Cookie"),), (600, 600, None)),
    ("another cookie", (("Cookie", "theme=dark"),), 200, (), (600, 600, None)),
    # the request's own Cache-Control
    ("a reload", (("Cache-Control", "no-cache"),), 200, (AGE,), (60, 60, 60)),
    ("no-store asked for", (("Cache-Control", "no-store"),), 200, (AGE,), (60, 60, None)),
    # what is no plain GET
    ("a range", (("Range", "bytes=0-0"),), 206, (("Content-Range", "bytes 0-0/9"), AGE), (None, None, 60)),
    ("a body", (("Content-Length", "3"),), 200, (AGE,), (None, None, None)),
    ("an upgrade", (("Upgrade", "websocket"),), 200, (AGE,), (None, None, None)),
    ("two hosts", (("Host", "a"), ("Host", "b")), 200, (AGE,), (None, None, None)),
    ("no host at all", (("Host", "a b"),), 200, (AGE,), (None, None, None)),
    ("events", (), 200, (("Content-Type", "text/event-stream"), AGE), (None, None, None)),
    ("a line too many", (), 200, (("X", "a\r\nSet-Cookie: b"), AGE), (None, None, None)),
    ("heuristics", (), 200, (("Last-Modified", "Fri, 15 Jan 2027 07:50:00 GMT"),), (600, 600, 60)),
]
PRESETS = (Policy(), Policy.django(), Policy.rfc9111())


@pytest.mark.parametrize(
    ("fields", "status", "answer", "lifetimes"), [row[1:] for row in TABLE], ids=[r[0] for r in TABLE]
)
def test_what_each_preset_stores(
    fields: Iterable[tuple[str, str]], status: int, answer: Fields, lifetimes: tuple[float | None, ...]
) -> None:
    got: list[float | None] = []
    for policy in PRESETS:
        engine = Engine(policy, seconds=600 if policy.seconds is None else policy.seconds)
        store: Store = {}
        request = request_of("GET", *fields)
        given = [*special(engine, request), *(["host"] if len(request.lines("host")) > 1 else [])]
        exchange = Exchange(engine)
        exchange.begin(request, NOW, given)
        while exchange.wants:
            exchange.found([store.get(key) for key in exchange.wants])
        exchange.leaving(Head(status, answer), NOW)
        if exchange.keep:
            exchange.completed(b"x", NOW)
        pages = [record for _, record, _ in exchange.writes if isinstance(record, StoredResponse) and record.lifetime]
        got.append(pages[0].lifetime if pages and not pages[0].validate else None)
    assert tuple(got) == lifetimes


@pytest.mark.parametrize(
    ("fields", "page", "served"),
    [
        ((), stored(), (True, True, True)),
        ((SESSION,), stored(), (True, True, True)),
        ((SESSION,), stored(chosen=True), (False, True, True)),
        ((SESSION,), stored(("Vary", "Cookie"), chosen=True), (True, True, True)),
        ((LOGIN,), stored(), (False, False, False)),
        ((LOGIN,), stored(("Cache-Control", "public")), (True, True, True)),
        ((("Cache-Control", "no-cache"),), stored(), (True, True, False)),
        ((("Pragma", "no-cache"),), stored(), (True, True, False)),
        ((("Cache-Control", "max-age=0"),), stored(), (True, True, False)),
        ((), stored(lifetime=-1.0), (False, False, False)),
        ((), stored(("Cache-Control", "stale-while-revalidate=9"), lifetime=-1.0), (True, False, True)),
        ((), stored(("Cache-Control", "s-maxage=1, stale-while-revalidate=9"), lifetime=-1.0), (False, False, False)),
        ((), stored(validate=True), (False, False, False)),
    ],
)
def test_to_whom_each_preset_gives_a_page(
    fields: tuple[tuple[str, str], ...], page: StoredResponse, served: tuple[bool, ...]
) -> None:
    got = [look_up(Engine(policy), {page.key: page}, request_of("GET", *fields)).hit is page for policy in PRESETS]
    assert tuple(got) == served


@pytest.mark.parametrize("policy", PRESETS, ids=["default", "django", "rfc9111"])
@pytest.mark.parametrize(
    ("fields", "status"),
    [(("If-None-Match", '"1"'), 304), (("Range", "bytes=0-0"), 206), (("Range", "bytes=99-"), 416)],
)
def test_conditions_and_ranges_are_not_django_s(policy: Policy, fields: tuple[str, str], status: int) -> None:
    page = stored(("ETag", '"1"'))
    exchange = look_up(Engine(policy), {page.key: page}, request_of("GET", fields))
    if policy.django_rules:
        assert exchange.hit is page
    else:
        assert exchange.reply is not None
        assert exchange.reply.status == status


def test_an_engine_may_go_while_the_others_of_its_store_are_told_of_a_query() -> None:
    """Middlewares come and go at any time, and so do their engines."""
    first = Engine(Policy(no_vary_search=True))
    others = [Engine(Policy(), common=first.common)]

    class Seen(dict[Any, Any]):
        def clear(self) -> None:
            others.clear()
            super().clear()

    first.seen = Seen(page=None)
    first.common.unsee()
    assert not others
    assert not first.seen
