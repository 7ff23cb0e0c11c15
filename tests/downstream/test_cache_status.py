"""Cache-Status: each cache on the way adds its member behind those of the caches before it (RFC 9211 §2)."""

from __future__ import annotations

from tests.downstream.conftest import Front


def chain(front: Front, path: str, **fields: str) -> list[str]:
    """The members, without what they say of time and of statuses."""
    answer = front.get(path, **fields)
    members = ", ".join(answer.headers.get_list("cache-status")).split(", ")
    return ["; ".join(member.split("; ")[:2]) for member in members]


def test_a_page_that_nobody_has(front: Front) -> None:
    assert chain(front, front.page("minute")) == ["cachemw; fwd=uri-miss", f"{front.name}; fwd=miss"]


def test_a_page_that_is_here(front: Front) -> None:
    page = front.page("minute")
    front.get_past_it(page)
    assert chain(front, page) == ["cachemw; hit", f"{front.name}; fwd=miss"]


def test_a_page_that_is_downstream_says_what_was_done_here_when_it_was_fetched(front: Front) -> None:
    page = front.page("minute")
    front.get(page)
    assert chain(front, page) == ["cachemw; fwd=uri-miss", f"{front.name}; hit"]


def test_caches_further_in_come_first(front: Front) -> None:
    page = front.page("from-further-in")
    assert chain(front, page) == ["origin; hit", "cachemw; fwd=uri-miss", f"{front.name}; fwd=miss"]
    assert chain(front, page) == ["origin; hit", "cachemw; fwd=uri-miss", f"{front.name}; hit"]


def test_a_request_with_credentials_passes_by(front: Front) -> None:
    page = front.page("for-members")
    bypass = f"{front.name}; fwd=bypass"
    assert chain(front, page, Authorization="Basic YWRh") == ["cachemw; fwd=uri-miss", bypass]
