"""What a browser really asks for, keeps and shows."""

from __future__ import annotations

from typing import Any

from playwright.sync_api import Page

from tests.browser.conftest import Site

BRICK, OCEAN = "rgb(181, 71, 47)", "rgb(31, 111, 139)"


def colour(page: Page) -> str:
    return str(page.locator("header").evaluate("header => getComputedStyle(header).backgroundColor"))


def origins(page: Page) -> dict[str, str]:
    """What the page itself tells of its files."""
    page.wait_for_function("document.querySelectorAll('#fetched tbody tr').length >= 4")
    rows = page.locator("#fetched tbody tr").all()
    cells = [row.locator("td").all_text_contents() for row in rows]
    return {name.rpartition("/")[2].partition("?")[0]: origin for name, origin in cells}


def network_log(page: Page) -> list[dict[str, Any]]:
    """The browser's own log of what came over the network, with the status that came."""
    log: list[dict[str, Any]] = []
    session = page.context.new_cdp_session(page)
    session.on("Network.responseReceivedExtraInfo", lambda entry: log.append(entry))
    session.send("Network.enable")
    return log


def test_an_edited_stylesheet_shows_at_once_and_the_script_is_not_asked_for_again(page: Page, site: Site) -> None:
    page.goto(site.address)
    assert colour(page) == BRICK
    style = site.folder / "style.css"
    style.write_text(style.read_text().replace("#b5472f", "#1f6f8b"))
    page.reload()
    assert colour(page) == OCEAN
    page.reload()
    page.goto(f"{site.address}/notes")
    page.goto(site.address)
    assert colour(page) == OCEAN
    assert origins(page)["style.css"] == origins(page)["script.js"] == "kept"
    styles = site.requests("/static/style.css")
    assert [one.status for one in styles] == [200, 200]
    assert len({one.url for one in styles}) == 2
    assert [one.status for one in site.requests("/static/script.js")] == [200]


def test_what_has_no_version_is_validated_with_304(page: Page, site: Site) -> None:
    """The module that the script imports and the page itself; the browser's log says so too."""
    log = network_log(page)
    page.goto(site.address)
    origins(page)
    page.goto(f"{site.address}/notes")
    page.goto(site.address)
    assert origins(page) == {
        "style.css": "kept",
        "script.js": "kept",
        "origin.js": "validated",
        "paper.svg": "validated",
    }
    assert [one.status for one in site.requests("/")] == [200, 304]
    assert 304 in {one.status for one in site.requests("/static/origin.js")}
    assert [entry["statusCode"] for entry in log].count(304) >= 2
    assert not any(one.status >= 400 for one in site.log)


def test_a_button_paints_and_back_and_forward_stay_painted(page: Page, site: Site) -> None:
    page.goto(site.address)
    page.goto(f"{site.address}/notes")
    page.go_back()
    page.get_by_role("button", name="Ocean").click()
    page.wait_for_load_state()
    assert colour(page) == OCEAN
    page.go_back()
    assert colour(page) == OCEAN
    page.go_forward()
    assert colour(page) == OCEAN


def write_and_go_back(page: Page, site: Site) -> None:
    page.goto(f"{site.address}/notes")
    page.goto(site.address)
    page.goto(f"{site.address}/notes")
    page.get_by_label("Note").get_by_placeholder("A note").fill("First!")
    page.get_by_role("button", name="Pin it").click()
    page.get_by_text("First!").wait_for()
    seen = [page.url]
    for step in [page.go_back] * 3 + [page.go_forward] * 3:
        step()
        seen.append(page.url)
        if page.url.endswith("/notes"):
            page.get_by_text("First!").wait_for(timeout=5000)
    assert sum(url.endswith("/notes") for url in seen) >= 4
    assert [one.status for one in site.requests("/notes", "POST")] == [303]


def test_back_and_forward_after_a_post_never_show_the_old_page(page: Page, site: Site) -> None:
    write_and_go_back(page, site)


def test_nor_does_a_browser_that_remembers_the_pages_that_it_left(remembering_page: Page, site: Site) -> None:
    write_and_go_back(remembering_page, site)


def test_the_page_cache_answers_304_to_a_browser_that_has_the_page(page: Page, site: Site) -> None:
    page.goto(f"{site.address}/notes")
    page.goto(site.address)
    again = page.goto(f"{site.address}/notes")
    assert again is not None
    assert "hit" in again.headers["cache-status"]
    assert [one.status for one in site.requests("/notes")] == [200, 304]
