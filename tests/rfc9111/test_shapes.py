"""What is said of a shape is what the rules say of each response that has it."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cachemw.rfc9111.messages import Fields, Head
from cachemw.rfc9111.policy import Policy
from cachemw.rfc9111.shapes import Shapes
from cachemw.rfc9111.storing import judge, nominated, unstorable_names

POLICIES = [Policy(), Policy.django(), Policy.rfc9111(), Policy(set_cookie="store"), Policy(set_cookie="strip")]
NOW = 1_700_000_000.0

FIELDS: list[tuple[str, list[str]]] = [
    ("Age", ["10"]),
    ("CDN-Cache-Control", ["max-age=7", "no-store", "broken;;"]),
    ("Cache-Control", ["max-age=60", "no-store", 'private="x-a", max-age=5', "no-cache", "s-maxage=0", "public"]),
    ("Cache-Status", ["cachemw; hit", "other; fwd=miss"]),
    ("Connection", ["close", "x-a", "keep-alive, X-B"]),
    ("Content-Type", ["text/html", "text/event-stream", "text/plain; charset=utf-8"]),
    ("Date", ["Tue, 14 Nov 2023 22:13:20 GMT"]),
    ("ETag", ['"a"', '"b"']),
    ("Expires", ["0", "Tue, 14 Nov 2023 23:13:20 GMT"]),
    ("Last-Modified", ["Mon, 13 Nov 2023 22:13:20 GMT", "never"]),
    ("Pragma", ["no-cache"]),
    ("Set-Cookie", ["a=1", "b=2"]),
    ("Vary", ["*", "Accept", "accept-encoding, Cookie"]),
    ("X-A", ["1", "2"]),
    ("X-B", ["a\nb", "c"]),
]
field = st.one_of([st.tuples(st.sampled_from([n, n.lower()]), st.sampled_from(v)) for n, v in FIELDS])
heads = st.builds(
    lambda status, fields: Head(status, tuple(fields), "OK"),
    st.sampled_from([200, 203, 206, 301, 404, 500, 599]),
    st.lists(field, max_size=6),
)


@pytest.mark.parametrize("policy", POLICIES, ids=["default", "django", "rfc9111", "cookies kept", "cookies stripped"])
@given(
    responses=st.lists(heads, min_size=1, max_size=6), timeout=st.sampled_from([None, 0.0, 30.0]), named=st.booleans()
)
def test_a_verdict_is_what_the_rules_say_of_the_response_itself(
    policy: Policy, responses: list[Head], timeout: float | None, named: bool
) -> None:
    shapes = Shapes(policy, 600)
    for head in responses * 2:
        verdict = shapes.verdict(head, timeout, named)
        if verdict is not None:
            asked = judge(head, policy, seconds=600, timeout=timeout, now=NOW, named=named)
            assert verdict.storing == asked
            assert verdict.nominated == nominated(head)
            assert verdict.dropped == unstorable_names(head, policy)


class _Watched(Head):
    """A response that notes which of its fields are read, and by what."""

    def __init__(self, status: int, fields: Fields) -> None:
        super().__init__(status, fields)
        self.read: set[str] = set()

    def lines(self, name: str) -> tuple[str, ...]:
        self.read.add(name)
        return super().lines(name)


@pytest.mark.parametrize("policy", POLICIES, ids=["default", "django", "rfc9111", "cookies kept", "cookies stripped"])
@given(fields=st.lists(field, max_size=6), timeout=st.sampled_from([None, 30.0]))
def test_no_rule_reads_a_field_that_is_not_in_the_shape(
    policy: Policy, fields: list[tuple[str, str]], timeout: float | None
) -> None:
    head = _Watched(200, tuple(fields))
    if Shapes(policy, 600).verdict(head, timeout, False) is None:
        return
    head.read.clear()
    judge(head, policy, seconds=600, timeout=timeout, now=NOW)
    nominated(head)
    unstorable_names(head, policy)
    by_value = {"cache-control", "connection", "content-type", "pragma", "vary", *policy.targeted}
    present = {"etag", "last-modified", "set-cookie"}
    absent = {"expires"}
    assert head.read <= by_value | present | absent


@pytest.mark.parametrize(
    ("policy", "fields"),
    [
        (Policy(), (("Expires", "Tue, 14 Nov 2023 23:13:20 GMT"),)),
        (Policy(), (("Cache-Status", "other; hit"),)),
        (Policy(), (("X-A", "a\r\nSet-Cookie: b=c"),)),
        (Policy.rfc9111(), (("Last-Modified", "Mon, 13 Nov 2023 22:13:20 GMT"),)),
    ],
    ids=["a date", "a cache before us", "an octet that ends the field", "a heuristic"],
)
def test_what_has_to_be_asked_of_the_response_alone(policy: Policy, fields: Fields) -> None:
    assert Shapes(policy, 600).verdict(Head(200, fields), None, False) is None


def test_what_pages_do_not_share_makes_no_new_shape() -> None:
    shapes = Shapes(Policy(), 600)
    verdicts = {
        id(shapes.verdict(Head(200, (("ETag", f'"{n}"'), ("X-Page", str(n)), ("Set-Cookie", f"n={n}"))), None, False))
        for n in range(50)
    }
    assert len(verdicts) == 1


def test_values_that_never_come_again_take_no_room_for_ever() -> None:
    shapes = Shapes(Policy(), 600)
    for n in range(1000):
        verdict = shapes.verdict(Head(200, (("Cache-Control", f"max-age={n + 1}"),)), None, False)
        assert verdict is not None
        assert verdict.storing.lifetime == n + 1
    assert len(shapes) <= 256


def test_names_that_never_come_again_take_no_room_for_ever() -> None:
    shapes = Shapes(Policy(), 600)
    for n in range(1000):
        verdict = shapes.verdict(Head(200, ((f"X-Page-{n}", "1"), ("Cache-Control", "max-age=5"))), None, False)
        assert verdict is not None
        assert verdict.storing.lifetime == 5
    assert len(shapes._read) <= 256
