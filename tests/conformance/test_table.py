"""The comparison of a run with the committed table."""

from __future__ import annotations

import pytest

from tests.conformance.__main__ import TABLE, differences, read_expected, summary
from tests.conformance.suite import Test as Case
from tests.conformance.suite import judge

CASES = (
    Case(id="base", suite="s", kind="required"),
    Case(id="above", suite="s", kind="optimal", depends_on=("base",)),
    Case(id="top", suite="s", kind="check", depends_on=("above",)),
)


def deviation(**changes: object) -> str:
    fields = {"reason": "because", "outcome": "fail", "tests": ["base"]} | changes
    return "[[deviation]]\n" + "\n".join(f"{name} = {value!r}" for name, value in fields.items())


def test_a_test_says_nothing_where_one_that_it_builds_on_failed() -> None:
    judged = judge(CASES, {"base": ["Assertion", "no"], "above": True, "top": True})
    assert judged == {"base": "fail", "above": "dependency", "top": "dependency"}


def test_what_could_not_be_set_up_or_was_not_run_is_told_apart() -> None:
    judged = judge(CASES, {"base": True, "above": ["Setup", "retry"]})
    assert judged == {"base": "pass", "above": "setup", "top": "untested"}


def test_differences_are_found_in_either_direction() -> None:
    expected = read_expected(deviation(policies=["rfc9111"]))
    here = ("rfc9111", "wsgi")
    assert differences(expected, here, {"base": "fail", "above": "pass"}) == []
    assert differences(expected, here, {"base": "pass", "above": "pass"}) == [("base", "fail", "pass")]
    assert differences(expected, here, {"base": "fail", "above": "setup"}) == [("above", "pass", "setup")]
    assert differences(expected, ("default", "wsgi"), {"base": "fail"}) == [("base", "pass", "fail")]


def test_a_deviation_of_a_test_that_is_gone_is_a_difference() -> None:
    expected = read_expected(deviation(policies=["rfc9111"], interfaces=["asgi"]))
    assert differences(expected, ("rfc9111", "asgi"), {"above": "pass"}) == [("base", "fail", "untested")]


def test_every_deviation_has_one_reason() -> None:
    with pytest.raises(ValueError, match="without its reason"):
        read_expected(deviation(reason=" "))
    with pytest.raises(ValueError, match=r"two deviations for base \(rfc9111, wsgi\)"):
        read_expected(deviation() + "\n" + deviation(outcome="setup"))


def test_the_committed_table_is_read() -> None:
    assert read_expected(TABLE.read_text())["default", "wsgi", "stale-close"] == "fail"


def test_the_summary_counts_by_kind() -> None:
    judged = judge(CASES, {"base": True, "above": True, "top": ["Assertion", "no"]})
    assert summary(CASES, judged).split() == ["required", "1/1", "optimal", "1/1", "checks", "0", "yes", "of", "1"]
