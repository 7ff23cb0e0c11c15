"""Whom caches downstream show a page: everybody, those who ask alike, or nobody else."""

from __future__ import annotations

import pytest

from tests.downstream.conftest import Front


@pytest.mark.parametrize("name", ["never", "never-after-all", "private", "no-store", "no-cache"])
def test_what_is_for_one_is_made_for_each(front: Front, name: str) -> None:
    page = front.page(name)
    assert [front.get(page).text for _ in range(3)] == ["1 - -", "2 - -", "3 - -"]


def test_never_cache_says_so_in_every_field_that_counts_somewhere(front: Front) -> None:
    answer = front.get(front.page("never-after-all"))
    assert answer.headers["cdn-cache-control"] == answer.headers["surrogate-control"] == "no-store"


def test_a_field_that_is_for_one_is_stored_nowhere(front: Front) -> None:
    """`private="X-Name"` withholds the field here; caches that do not know the form take it for the whole page."""
    page = front.page("private-field")
    answers = [front.get(page) for _ in range(3)]
    assert [answer.headers.get("x-name") for answer in answers] == ["Ada", None, None]
    assert len(front.asked(page)) == 3


def test_languages_are_pages_of_their_own(front: Front) -> None:
    page = front.page("language")
    answers = [front.get(page, Accept_Language=language).text for language in ("de", "fr", "de", "fr")]
    assert answers == ["1 de -", "2 fr -", "1 de -", "2 fr -"]
    assert front.get(page).text == "3 - -"
    assert len(front.asked(page)) == 3


def test_a_page_that_depends_on_cookies_is_another_for_each(front: Front) -> None:
    page = front.page("cookie")
    ada, bob = "session=ada", "session=bob"
    assert [front.get(page, Cookie=cookie).text for cookie in (ada, bob, ada)] == [
        "1 - session=ada",
        "2 - session=bob",
        "1 - session=ada",
    ]
    assert front.get(page).text == "3 - -"


def test_a_page_that_depends_on_anything_is_made_for_each(front: Front) -> None:
    page = front.page("anything")
    assert [front.get(page).text for _ in range(3)] == ["1 - -", "2 - -", "3 - -"]


@pytest.mark.parametrize("name", ["sets-cookie", "sets-cookie-unasked"])
def test_no_cookie_is_set_twice(front: Front, name: str) -> None:
    page = front.page(name)
    answers = [front.get(page) for _ in range(3)]
    assert [answer.text for answer in answers] == ["1 - -", "2 - -", "3 - -"]
    assert all(answer.headers.get_list("set-cookie") == ["session=secret"] for answer in answers)


def test_what_was_made_for_a_session_is_shown_to_nobody_else(front: Front) -> None:
    page = front.page("silent")
    assert front.get(page, Cookie="session=ada").text == "1 - session=ada"
    assert front.get(page, Cookie="session=bob").text == "2 - session=bob"
    assert front.get(page).text == "3 - -"


def test_a_session_is_not_shown_what_was_made_for_those_without_one(front: Front) -> None:
    page = front.page("silent")
    assert [front.get(page).text for _ in range(2)] == ["1 - -", "1 - -"]
    assert front.get(page, Cookie="session=ada").text == "2 - session=ada"
    assert front.get(page).text == "1 - -"


def test_what_was_made_for_a_member_is_shown_to_nobody_else(front: Front) -> None:
    page = front.page("for-members")
    assert front.get(page, Authorization="Basic YWRh").text == "1 - -"
    assert front.get(page, Authorization="Basic Ym9i").text == "2 - -"
    assert front.get(page).text == "3 - -"


def test_sites_with_different_names_have_pages_of_their_own(front: Front) -> None:
    page = front.page("minute")
    answers = [front.get(page, Host=host).text for host in ("a.example", "b.example", "a.example")]
    assert answers == ["1 - -", "2 - -", "1 - -"]


def test_a_token_that_a_page_repeats_is_shown_to_nobody_else(front: Front) -> None:
    """Nobody said for how long the page may be kept, and no name of a cookie says that it is of a session."""
    page = front.page("silent")
    ada, bob = (f"csrftoken={name * 7}" for name in ("ada", "bob"))
    assert [front.get(page, Cookie=cookie).text for cookie in (ada, bob)] == [f"1 - {ada}", f"2 - {bob}"]
    assert [front.get(page).text for _ in range(2)] == ["3 - -", "3 - -"]
