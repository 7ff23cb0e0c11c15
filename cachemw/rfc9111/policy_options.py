"""What `Policy` and its presets take: each option's type as an argument, where its value has a narrower one."""

from __future__ import annotations

from collections.abc import Sequence
from collections.abc import Set as AbstractSet
from typing import Literal, TypedDict

__all__ = ["PolicyOptions"]

Numbers = Sequence[int] | AbstractSet[int]
Words = Sequence[str] | AbstractSet[str]  # a text separates them by commas


class PolicyOptions(TypedDict, total=False):
    """The options of a `Policy`, for who hands them on: `**options: Unpack[PolicyOptions]`."""

    seconds: float | None
    statuses: Numbers
    explicit_statuses: bool
    heuristic_fraction: float
    heuristic_max: float
    targeted: Words
    freshness: Words
    set_cookie: Literal["refuse", "strip", "store"]
    authorization: Literal["rfc9111", "vary"]
    session_cookies: Words
    store_unusable: bool
    store_partial: bool
    store_post: bool
    must_understand: bool
    max_body: int
    max_variants: int
    keep: float
    keyed_fields: Words
    ignore_query: Words
    sort_query: bool
    no_vary_search: bool
    normalize_vary: bool
    request_directives: bool
    stale_while_revalidate: float
    stale_if_error: float
    grace: float
    disconnected: bool
    conditions: bool
    ranges: bool
    revalidate: bool
    freshen_by_head: bool
    invalidate: bool
    patch: bool
    cache_status: str | None
    cache_status_key: bool
    collapse: bool
    collapse_timeout: float
    lease: float
    hit_for_miss: float
    django_rules: bool
