"""Which memcached server has a key, what is an address, and what stands on the wire: all without a server."""

from __future__ import annotations

import math
import random
import time
from collections import Counter
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cachemw.backends._memcached.ring import Address, Node, Ring, parse_location
from cachemw.backends._memcached.wire import INTEGER, WRAP, expiry, flagged, from_wire, time_left, total
from cachemw.errors import BackendUnavailable, ImproperlyConfigured

ADDRESSES: list[Address] = [("10.0.0.1", 11211), ("10.0.0.2", 11211), ("10.0.0.3", 11211)]
KEYS = [f":1:key-{number}" for number in range(3000)]
DOWN = BackendUnavailable("down")


class Clock:
    now = 0.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def ring(clock: Clock) -> Ring:
    return Ring(ADDRESSES, clock=clock)


def places(ring: Ring, keys: list[str] = KEYS, *, write: bool = False) -> dict[str, str]:
    return {key: node.name for node, share in ring.shares(keys, str, write=write) for key in share}


# -- addresses ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("location", "addresses"),
    [
        ("localhost", [("localhost", 11211)]),
        ("10.0.0.1:11212", [("10.0.0.1", 11212)]),
        ("a:1;b:2", [("a", 1), ("b", 2)]),
        ("a:1, b:2", [("a", 1), ("b", 2)]),
        (["a", "b:2"], [("a", 11211), ("b", 2)]),
        (("a", "b"), [("a", 11211), ("b", 11211)]),
        ("[::1]", [("::1", 11211)]),
        ("[::1]:11212", [("::1", 11212)]),
        ("[fe80::1%eth0]:1", [("fe80::1%eth0", 1)]),
        ("unix:/run/memcached.sock", ["/run/memcached.sock"]),
        ("/run/memcached.sock", ["/run/memcached.sock"]),
        (["unix:/a", "/b", "c"], ["/a", "/b", ("c", 11211)]),
    ],
)
def test_locations_as_django_writes_them(location: Any, addresses: list[Address]) -> None:
    assert parse_location(location) == addresses


@pytest.mark.parametrize(
    "location",
    [
        "",
        [],
        ["a", ""],
        "a;",
        "::1",
        "a:port",
        "a:0",
        "a:65536",
        "a:1:2",
        "unix:run/socket",
        "a b",
        [("a", 1)],
        7,
        None,
    ],
)
def test_a_wrong_location_is_named(location: Any) -> None:
    with pytest.raises(ImproperlyConfigured, match="LOCATION"):
        parse_location(location)


def test_a_server_twice_is_a_mistake() -> None:
    with pytest.raises(ImproperlyConfigured, match="each server once"):
        parse_location("a;b;a:11211")


# -- places ---------------------------------------------------------------------------------------------------------


def test_the_order_of_the_servers_does_not_matter() -> None:
    expected = places(Ring(ADDRESSES))
    for seed in range(5):
        shuffled = random.Random(seed).sample(ADDRESSES, 3)
        assert places(Ring(shuffled)) == expected


def test_places_do_not_change_between_releases() -> None:
    assert [Ring(ADDRESSES).home(key).name for key in ("a", ":1:user:7", "{tag}x", "ü")] == [
        "10.0.0.2:11211",
        "10.0.0.2:11211",
        "10.0.0.1:11211",
        "10.0.0.3:11211",
    ]


@pytest.mark.parametrize("form", [":1:user:{}", "site:2:{}", ":1:view-{:04}-x", ":1:{{{:032x}}}abc"])
def test_every_server_gets_its_share(ring: Ring, form: str) -> None:
    shares = Counter(places(ring, [form.format(number) for number in range(6000)]).values())
    assert min(shares.values()) > 6000 / 3 * 0.8
    assert max(shares.values()) < 6000 / 3 * 1.25


def test_another_server_moves_only_its_own_share() -> None:
    before, after = places(Ring(ADDRESSES)), places(Ring([*ADDRESSES, ("10.0.0.4", 11211)]))
    moved = [key for key in KEYS if before[key] != after[key]]
    assert {after[key] for key in moved} == {"10.0.0.4:11211"}
    assert len(moved) < len(KEYS) * 0.35


def test_what_stands_in_braces_chooses_the_place(ring: Ring) -> None:
    for tag in range(50):
        assert len({ring.home(f"site:{v}:{{tag{tag}}}{rest}") for v in range(3) for rest in ("", "x", "}{y}")}) == 1
    # without anything in them, or without an end, braces are nothing special
    for form in ("{{}}{}", "{{{}", "{}{{", "}}{}{{"):
        assert len({ring.home(form.format(number)) for number in range(100)}) == 3


# -- failures -------------------------------------------------------------------------------------------------------


def test_the_keys_of_one_url_are_on_one_server_unless_one_is_away(ring: Ring) -> None:
    keys = [":1:{a}b", ":1:{a}c", "{a}"]
    node = ring.lone(keys)
    assert node is not None
    assert node is ring.home(keys[0]) is ring.home("a")
    assert ring.lone([*keys, "{b}", "{c}", "{d}", "{e}"]) is None
    assert ring.lone([]) is None
    ring.failed(node, OSError())
    assert ring.lone(keys) is None
    alone = Ring([("a", 1)])
    assert alone.lone(["x", "y"]) is alone.nodes[0]


def test_the_keys_of_a_server_that_failed_go_to_the_others(ring: Ring) -> None:
    before, node = places(ring), ring.nodes[0]
    ring.failed(node, DOWN)
    after = places(ring)
    assert all(after[key] == before[key] for key in KEYS if before[key] != node.name)
    assert set(after.values()) == {other.name for other in ring.nodes[1:]}
    assert ring.present() == list(ring.nodes[1:])


def test_with_no_server_left_the_error_names_all_of_them(ring: Ring) -> None:
    for node in ring.nodes:
        ring.failed(node, BackendUnavailable(f"{node.name} refused"))
    with pytest.raises(BackendUnavailable, match=r"10\.0\.0\.1:11211 refused.*10\.0\.0\.3:11211 refused"):
        ring.shares(KEYS, str, write=False)


def test_a_server_is_asked_again_after_growing_pauses_and_by_one_caller(ring: Ring, clock: Clock) -> None:
    node = ring.nodes[1]
    for pause in (0.25, 0.5, 0.5, 0.5):
        ring.failed(node, DOWN)
        clock.now += pause - 0.01
        assert ring.returning() == []
        clock.now += 0.02
        assert ring.returning() == [node]
        assert ring.returning() == []  # the other callers go on without it
    with ring.forgetting(node):
        pass
    assert ring.returning() == ()
    ring.failed(node, DOWN)
    clock.now += 0.26
    assert ring.returning() == [node]


def test_a_caller_that_asked_and_died_does_not_keep_a_server_away(ring: Ring, clock: Clock) -> None:
    ring.failed(ring.nodes[0], DOWN)
    clock.now += 0.3
    assert ring.returning() == [ring.nodes[0]]
    clock.now += 1.1
    assert ring.returning() == [ring.nodes[0]]


def test_what_is_written_elsewhere_is_forgotten_on_return(ring: Ring) -> None:
    node = ring.nodes[0]
    own = [key for key in KEYS if ring.home(key) is node]
    ring.failed(node, DOWN)
    places(ring, own[:5], write=True)
    places(ring, own[5:9], write=False)
    with ring.forgetting(node) as keys:
        assert sorted(keys or []) == sorted(own[:5])
        assert node.failure is not None
    assert node.failure is None
    assert not node.missed


def test_a_server_that_fails_while_it_forgets_stays_away_and_remembers(ring: Ring) -> None:
    node = ring.nodes[0]
    ring.failed(node, DOWN)
    node.miss(["a", "b"])
    with ring.forgetting(node):
        raise BackendUnavailable("still down")
    assert str(node.failure) == "still down"
    with pytest.raises(KeyboardInterrupt), ring.forgetting(node):
        raise KeyboardInterrupt
    assert node.failure is not None
    with ring.forgetting(node) as keys:
        assert sorted(keys or []) == ["a", "b"]


@pytest.mark.parametrize("addresses", [ADDRESSES[:1], ADDRESSES], ids=["one", "three"])
@pytest.mark.parametrize("step", range(5))
def test_a_server_that_fails_for_another_as_it_takes_part_again_is_asked_again(
    clock: Clock, monkeypatch: pytest.MonkeyPatch, addresses: list[Address], step: int
) -> None:
    """At whichever step of its return: what is left is never a server that is away and that nobody asks."""
    ring = Ring(addresses, clock=clock)
    node = ring.nodes[0]
    ring.failed(node, DOWN)
    clock.now += 1
    assert node in ring.returning()
    steps = iter(range(10))

    def meddle() -> None:
        if next(steps, None) == step:
            ring.failed(node, DOWN)

    class Away(set[Node]):
        def discard(self, one: Any) -> None:
            meddle()
            super().discard(one)

    def change(self: Any, name: str, value: Any) -> None:
        meddle()
        object.__setattr__(self, name, value)

    ring._away = Away(ring._away)
    with ring.forgetting(node):
        for each in (Node, Ring):
            monkeypatch.setattr(each, "__setattr__", change, raising=False)
    monkeypatch.undo()
    meddle()
    for _ in range(2):  # if that failure counts, it is asked again; and there is an end to it
        clock.now += 1
        for one in ring.returning():
            with ring.forgetting(one):
                pass
    assert node.failure is None
    assert not ring.returning()
    assert ring.present() == list(ring.nodes)


def test_a_server_that_missed_too_much_is_emptied(ring: Ring) -> None:
    node = ring.nodes[0]
    ring.failed(node, DOWN)
    node.miss(f"key{number}" for number in range(10_001))
    node.miss(["one more"])
    with ring.forgetting(node) as keys:
        assert keys is None
        raise BackendUnavailable("not yet")
    with ring.forgetting(node) as keys:
        assert keys is None
    with ring.forgetting(node) as keys:
        assert keys == []


def test_a_key_written_while_the_server_forgets_is_forgotten_next(ring: Ring) -> None:
    node = ring.nodes[0]
    ring.failed(node, DOWN)
    with ring.forgetting(node):
        places(ring, [key for key in KEYS if ring.home(key) is node][:1], write=True)
    assert node.missed


def test_a_server_that_is_back_while_a_write_looks_gets_the_write(ring: Ring) -> None:
    node = ring.nodes[0]
    key = next(key for key in KEYS if ring.home(key) is node)

    class Returning(Node):
        __slots__ = ()

        def miss(self, keys: Any) -> None:
            super().miss(keys)
            self.failure = None

    ring.failed(node, DOWN)
    node.__class__ = Returning
    assert places(ring, [key], write=True) == {key: node.name}


# -- the wire -------------------------------------------------------------------------------------------------------


@given(st.integers(-(2**63), 2**63 - 1) | st.binary())
def test_values_come_back_from_the_wire(value: int | bytes) -> None:
    data, flags = flagged(value)
    assert from_wire(data, flags) == value
    assert type(from_wire(data + b"  " * (flags == INTEGER), flags)) is type(value)


@pytest.mark.parametrize(
    "data", [b"", b" ", b"-5", b"1.5", b"18446744073709551616", b"9" * 30, b"\xb2", b"abc", b"1 2"]
)
def test_what_another_program_flagged_as_an_integer_stays_bytes(data: bytes) -> None:
    assert from_wire(data, INTEGER) == data


@given(st.integers(-(2**63), 2**63 - 1), st.integers(-(2**66), 2**66) | st.integers(-3, 3))
def test_the_server_adds_without_a_sign_and_the_sum_has_one(number: int, delta: int) -> None:
    before = int(flagged(number)[0])
    after = (before + delta % WRAP) % 2**64  # what `incr` does
    if -(2**63) <= number + delta < 2**63:
        assert total(after, delta) == number + delta
    else:
        assert total(after, delta) is None
        assert (after + -delta % WRAP) % 2**64 == before


@pytest.mark.parametrize(
    ("timeout", "seconds"),
    [(None, 0), (0.001, 1), (0.5, 1), (1, 1), (1.001, 2), (300, 300), (2592000, 2592000), (1e-300, 1)],
)
def test_timeouts_up_to_30_days_are_whole_seconds_and_never_for_ever(timeout: float | None, seconds: int) -> None:
    assert expiry(timeout) == seconds


def test_longer_timeouts_are_points_in_time(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(time, "time", lambda: 1_700_000_000.5)
    assert expiry(2592000.5) == 1_702_592_001
    assert expiry(31_536_000) == 1_731_536_001
    assert expiry(1e9) == 2**31 - 1
    assert expiry(math.inf) == 2**31 - 1


@pytest.mark.parametrize("now", [-5.0, 0.0, 3600.0])
def test_a_clock_that_was_never_set_tells_memcached_no_point_in_time(
    monkeypatch: pytest.MonkeyPatch, now: float
) -> None:
    """It would be long past there: the mark of a purge would be gone before anybody had seen it."""
    monkeypatch.setattr(time, "time", lambda: now)
    assert expiry(31_536_000) == expiry(math.inf) == 2_592_000
    assert expiry(60) == 60


def test_the_time_that_an_entry_has_left() -> None:
    assert time_left(b"HD t30") == 30
    assert time_left(b"HD t-1") is None
    assert time_left(b"HD t0") == 1  # in its last second; 0 would mean that it is gone
    assert time_left(b"EN") == 0
    for line in (b"ERROR", b"CLIENT_ERROR bad command line format"):
        with pytest.raises(LookupError):
            time_left(line)
