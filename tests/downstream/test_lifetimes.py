"""How long caches downstream keep a page: what the site says, and what it says of the time that has gone by already.

Where a cache ignores a field, the test of that says so and names the version that it was seen with: nginx 1.22,
Varnish 7.1.
"""

from __future__ import annotations

import pytest

from tests.downstream.conftest import Front
from tests.servers import until

#: Pages that say they live for a minute, each in its own way.
OF_A_MINUTE = ("minute", "chosen", "expires", "patched", "s-maxage", "must-revalidate", "browsers-ask")


@pytest.mark.parametrize("name", OF_A_MINUTE)
def test_a_page_of_a_minute_is_served_for_a_minute_without_asking_the_site(front: Front, name: str) -> None:
    page = front.page(name)
    assert front.get(page).text == "1 - -"
    front.advance(58)
    assert front.get(page).text == "1 - -"
    assert len(front.asked(page)) == 1
    front.advance(15)  # beyond what Varnish allows itself (default_grace: 10 s)
    assert front.get(page).text == "2 - -"
    assert len(front.asked(page)) == 2


def test_a_page_that_says_nothing_is_served_for_as_long_as_the_middleware_chose(front: Front) -> None:
    page = front.page("silent")
    assert front.get(page).headers["cache-control"] == "max-age=600"
    front.advance(598)
    assert front.get(page).text == "1 - -"
    assert len(front.asked(page)) == 1
    front.advance(15)
    assert front.get(page).text == "2 - -"


@pytest.mark.parametrize("name", ["s-maxage", "must-revalidate", "proxy-revalidate", "browsers-ask"])
def test_a_page_that_may_not_be_stale_is_not_served_a_moment_too_long(front: Front, name: str) -> None:
    page = front.page(name)
    assert front.get(page).text == "1 - -"
    front.advance(62)
    assert front.get(page).text == "2 - -"


def test_no_lifetime_is_none(front: Front) -> None:
    page = front.page("at-once")
    assert [front.get(page).text for _ in range(3)] == ["1 - -", "2 - -", "3 - -"]


def test_an_error_that_says_nothing_is_not_kept(front: Front) -> None:
    page = front.page("missing")
    answers = [front.get(page) for _ in range(3)]
    assert [(answer.status_code, answer.text) for answer in answers] == [(404, f"{n} - -") for n in (1, 2, 3)]


# -- Age ---------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["minute", "chosen", "patched", "s-maxage"])
def test_a_page_that_was_here_for_50_of_60_seconds_lives_for_10_in_varnish(varnish: Front, name: str) -> None:
    page = varnish.page(name)
    varnish.get_past_it(page)
    varnish.advance(50)
    assert varnish.get(page).headers["age"] in ("50", "51")
    varnish.advance(8)
    assert (varnish.get(page).text, len(varnish.asked(page))) == ("1 - -", 2)
    varnish.advance(14)  # 72 seconds old: its minute and Varnish's 10 seconds are over
    assert (varnish.get(page).text, len(varnish.asked(page))) == ("2 - -", 3)


@pytest.mark.parametrize("name", ["minute", "chosen", "patched", "s-maxage"])
def test_nginx_1_22_ignores_age_and_keeps_a_page_for_its_whole_lifetime_again(nginx: Front, name: str) -> None:
    page = nginx.page(name)
    nginx.get_past_it(page)
    nginx.advance(50)
    assert nginx.get(page).headers["age"] in ("50", "51")
    nginx.advance(58)
    again = nginx.get(page)
    assert (again.text, len(nginx.asked(page))) == ("1 - -", 2)
    assert again.headers["age"] in ("50", "51")  # as it came; nginx counts no Age
    nginx.advance(4)
    assert nginx.get(page).text == "2 - -"


def test_expires_alone_is_a_moment_for_nginx(nginx: Front) -> None:
    page = nginx.page("expires")
    nginx.get_past_it(page)
    nginx.advance(50)
    assert nginx.get(page).text == "1 - -"
    nginx.advance(8)
    assert (nginx.get(page).text, len(nginx.asked(page))) == ("1 - -", 2)
    nginx.advance(4)
    assert nginx.get(page).text == "2 - -"


def test_varnish_7_1_subtracts_age_from_expires_too_and_so_asks_early(varnish: Front) -> None:
    page = varnish.page("expires")
    varnish.get_past_it(page)
    varnish.advance(50)
    assert [varnish.get(page).text for _ in range(2)] == ["1 - -", "1 - -"]
    assert len(varnish.asked(page)) == 3


def test_a_page_that_lives_longer_here_is_asked_for_here_and_not_made_anew(front: Front) -> None:
    """`cache_page(3600)` around max-age=60: after a minute it is too old for Varnish, and never for this cache."""
    page = front.page("longer-here")
    assert front.get(page).headers["cache-control"] == "public, max-age=60"
    front.advance(75)
    assert [front.get(page).text for _ in range(3)] == ["1 - -"] * 3
    assert len(front.asked(page)) == {"nginx": 2, "varnish": 4}[front.name]


# -- validation --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["must-revalidate", "proxy-revalidate"])
def test_an_old_page_is_validated_with_the_store_and_lives_anew(front: Front, name: str) -> None:
    page = front.page(name)
    assert front.get(page).text == "1 - -"
    front.advance(75)
    assert front.get_past_it(page).text == "2 - -"  # stored here, with the same ETag
    front.get(front.page(name))  # what comes in wakes the thread of Varnish that throws out what is over
    validated = front.get(page)
    assert (validated.status_code, validated.text) == (200, "1 - -")  # the body did not travel
    assert front.asked(page)[-1]["if-none-match"] == '"v1"'
    front.advance(58)
    assert (front.get(page).text, len(front.asked(page))) == ("1 - -", 3)
    front.advance(4)
    front.get(page)
    assert len(front.asked(page)) == 4


def test_a_page_is_validated_though_the_site_would_make_another(front: Front) -> None:
    """As long as it is fresh here, this cache answers 304; the application is not called."""
    page = front.page("cdn-longer")
    front.get(page)
    front.advance(75)
    assert front.get(page).text == "1 - -"
    assert front.asked(page)[-1]["if-none-match"] == '"v1"'
    assert front.get_past_it(page).text == "1 - -"


def test_a_client_that_has_the_page_is_told_so_from_downstream(front: Front) -> None:
    page = front.page("must-revalidate")
    front.get(page)
    answer = front.get(page, If_None_Match='"v1"')
    assert (answer.status_code, answer.text) == (304, "")
    assert len(front.asked(page)) == 1


def test_stale_while_revalidate_is_served_at_once_and_fetched_behind_it(front: Front) -> None:
    page = front.page("revalidate-in-background")
    front.get(page)
    front.advance(85)
    until(lambda: front.get_past_it(page).text == "2 - -", "this cache, which has it stale too, has the new page")
    assert front.get(page).text == "1 - -"
    until(lambda: front.get(page).text == "2 - -", "the cache downstream has the new page")


def test_stale_while_revalidate_ends(front: Front) -> None:
    page = front.page("revalidate-in-background")
    front.get(page)
    front.advance(92)
    assert front.get(page).text == "2 - -"


# -- CDN-Cache-Control -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("name", "theirs", "ours"), [("cdn-longer", 60, 3600), ("cdn-shorter", 3600, 60)])
def test_nginx_1_22_and_varnish_7_1_know_no_cdn_cache_control(front: Front, name: str, theirs: int, ours: int) -> None:
    page = front.page(name)
    assert front.get(page).headers["cdn-cache-control"] == f"max-age={ours}"
    front.advance(min(theirs, ours) + 15)
    front.get(page)
    assert len(front.asked(page)) == (2 if theirs < ours else 1)
    assert front.get_past_it(page).text == ("1 - -" if theirs < ours else "2 - -")


def test_for_cdns_alone_is_stored_here_and_nowhere_that_does_not_know_the_field(front: Front) -> None:
    page = front.page("cdn-alone")
    assert [front.get(page).text for _ in range(3)] == ["1 - -"] * 3
    assert len(front.asked(page)) == 3
    front.advance(62)
    assert front.get(page).text == "2 - -"
