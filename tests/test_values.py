"""Values as people write them."""

from __future__ import annotations

from typing import Any

import pytest

from cachemw._values import boolean, imported, integer, members, number, text, without_password
from cachemw.errors import ImproperlyConfigured


@pytest.mark.parametrize(
    ("read", "value", "expected"),
    [
        (number, "1.5", 1.5),
        (number, " 7 ", 7.0),
        (number, -3, -3.0),
        (integer, "12", 12),
        (integer, -1, -1),
        (boolean, "Yes", True),
        (boolean, "off", False),
        (boolean, 0, False),
        (boolean, True, True),
        (text, "", ""),
        (members, " a, b ,,c", ("a", "b", "c")),
        (members, "", ()),
        (members, " None\n", ()),
        (members, ["b", "a"], ("b", "a")),
        (members, {"b", "a"}, ("a", "b")),
    ],
)
def test_what_can_be_read(read: Any, value: Any, expected: Any) -> None:
    assert read("NAME", value) == expected
    assert type(read("NAME", value)) is type(expected)


UNREADABLE: dict[Any, list[Any]] = {
    number: ["", "x", "1_0", "١", "nan", "inf", "-inf", 10**400, True, None, [1], b"1"],
    integer: ["", "1_0", "١", "1.5", 1.0, True, None, "0x10", [1]],
    boolean: ["", "maybe", 2, 1.0, None, []],
    text: [None, 5, b"x", ["x"], "\udcff"],
    members: [None, 5, [1], ["a", None], {"a": 1}],
}


@pytest.mark.parametrize(
    ("read", "value"),
    [(read, value) for read, values in UNREADABLE.items() for value in values],
)
def test_what_cannot_is_named_with_its_value(read: Any, value: Any) -> None:
    with pytest.raises(ImproperlyConfigured) as caught:
        read("THE_NAME", value)
    assert str(caught.value).startswith(f"THE_NAME is {value!r}; allowed: ") or len(repr(value)) > 200


def test_a_long_value_is_named_by_its_beginning() -> None:
    with pytest.raises(ImproperlyConfigured) as caught:
        number("THE_NAME", "seven" * 100_000)
    assert str(caught.value).startswith("THE_NAME is 'sevenseven")
    assert len(str(caught.value)) < 300


@pytest.mark.parametrize(("read", "limit"), [(number, {}), (integer, {"maximum": 9}), (boolean, {}), (members, {})])
def test_a_value_that_cannot_be_shown_is_named_by_its_type(read: Any, limit: dict[str, int]) -> None:
    """Of so many digits Python makes no text."""
    with pytest.raises(ImproperlyConfigured, match=r"^THE_NAME is a value of type int; allowed: "):
        read("THE_NAME", 10**5000, **limit)


def test_a_minimum_is_said() -> None:
    with pytest.raises(ImproperlyConfigured, match=r"allowed: a number of at least 0$"):
        number("N", -0.1, minimum=0)
    with pytest.raises(ImproperlyConfigured, match=r"allowed: a whole number of at least 1$"):
        integer("N", "0", minimum=1)
    assert number("N", 0, minimum=0) == 0
    assert integer("N", 1, minimum=1) == 1


def test_what_a_path_names_is_imported() -> None:
    assert imported("N", "cachemw.errors.ImproperlyConfigured") is ImproperlyConfigured
    for path in ("cachemw.errors.Nothing", "no.such.module", "single", ""):
        with pytest.raises(ImproperlyConfigured, match="N is"):
            imported("N", path)


@pytest.mark.parametrize(
    "url",
    [
        "redis://user:hidden@host:6379/0?x=1",
        "redis://:hidden@host",
        "db+postgresql://u:hidden@h1/db?password=hidden&sslmode=require",
        "a://h?secret=hidden",
        "a://h?ssl_password=hidden&b=1",
        "a://h?x=1&SECRET=hidden",
        "redis://user:hid/den?hidden#hidden@host:6379/0",
        "redis://:hidden@h1,redis://:hidden@h2",
        "redis://:hidden@h1\nredis://:hidden@h2",
        "user:hidden@host:6379",
    ],
)
def test_passwords_are_masked(url: str) -> None:
    shown = without_password(url)
    assert "hidden" not in shown
    assert "***" in shown


@pytest.mark.parametrize("url", ["redis://host:6379/0?a=b&db=1", "file:///a/b", "locmem://", "plain text"])
def test_what_is_no_password_is_shown(url: str) -> None:
    assert without_password(url) == url
