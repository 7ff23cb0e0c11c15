"""What removes a page from the caches downstream: a ban by tag in Varnish, time in nginx."""

from __future__ import annotations

import pytest

from tests.downstream.conftest import Front


@pytest.fixture
def pages(varnish: Front) -> dict[str, str]:
    """Three pages, two of them with the tag "news", stored everywhere."""
    pages = {name: varnish.page(name) for name in ("news", "newsletter", "minute")}
    assert all(varnish.get(page).text == "1 - -" for page in pages.values())
    return pages


def shown(front: Front, pages: dict[str, str]) -> dict[str, str]:
    return {name: front.get(page).text[0] for name, page in pages.items()}


def test_a_ban_by_surrogate_key_removes_the_pages_that_have_it(varnish: Front, pages: dict[str, str]) -> None:
    assert varnish.request("POST", varnish.site, "/purge?tag=news").text == "1"
    assert shown(varnish, pages) == {"news": "1", "newsletter": "1", "minute": "1"}  # Varnish has it still
    assert varnish.request("BAN", varnish.server, "/", Surrogate_Key="news").status_code == 200
    assert shown(varnish, pages) == {"news": "2", "newsletter": "1", "minute": "1"}


def test_a_page_from_our_store_has_its_tags_still(varnish: Front) -> None:
    page = varnish.page("news")
    varnish.get_past_it(page)
    assert varnish.get(page).headers["surrogate-key"] == "news front"
    varnish.request("POST", varnish.site, "/purge?tag=front")
    varnish.request("BAN", varnish.server, "/", Surrogate_Key="front")
    assert varnish.get(page).text == "2 - -"


def test_who_purges_downstream_first_may_get_the_old_page_again(varnish: Front, pages: dict[str, str]) -> None:
    varnish.request("BAN", varnish.server, "/", Surrogate_Key="news")
    assert shown(varnish, pages)["news"] == "1"  # from this cache
    varnish.request("POST", varnish.site, "/purge?tag=news")
    assert shown(varnish, pages)["news"] == "1"


@pytest.mark.parametrize("tag", ["", ".*", "news|minute", "x && req.url ~ ."])
def test_a_ban_names_one_tag_and_is_no_expression(varnish: Front, pages: dict[str, str], tag: str) -> None:
    assert varnish.request("BAN", varnish.server, "/", Surrogate_Key=tag).status_code == 403
    asked = {name: len(varnish.asked(page)) for name, page in pages.items()}
    shown(varnish, pages)
    assert {name: len(varnish.asked(page)) for name, page in pages.items()} == asked


def test_nginx_hears_of_no_purge(nginx: Front) -> None:
    page = nginx.page("news")
    nginx.get(page)
    nginx.request("POST", nginx.site, "/purge?tag=news")
    assert nginx.get_past_it(page).text == "2 - -"
    assert nginx.get(page).text == "1 - -"
    nginx.advance(62)
    assert nginx.get(page).text == "3 - -"


def test_a_change_is_seen_here_at_once_and_downstream_when_the_page_ends(front: Front) -> None:
    """nginx 1.22 and Varnish 7.1 pass POST on and keep what they have (RFC 9111 §4.4 would remove it)."""
    page = front.page("minute")
    assert front.get(page).text == "1 - -"
    assert front.request("POST", front.server, page).text == "2 - -"
    assert front.get(page).text == "1 - -"
    assert front.get_past_it(page).text == "3 - -"
