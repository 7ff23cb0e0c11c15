"""Hostile fields cost no more than their length: safety against requests made to keep a processor busy."""

from __future__ import annotations

import time
from collections.abc import Callable

import pytest

from cachemw.rfc9111.fields import (
    NoVarySearch,
    dump_cache_control,
    mark_forwarded,
    parse_age,
    parse_cache_control,
    parse_content_range,
    parse_date,
    parse_delta_seconds,
    parse_entity_tags,
    parse_etag,
    parse_list,
    parse_no_vary_search,
    parse_range,
    parse_tags,
    parse_targeted,
    parse_vary,
    valid_host,
)
from cachemw.rfc9111.syntax import MAX_FIELD

REPEATED = ["a", "9", "é", " ", "\t", "\0", '"', "\\", ",", ";", "=", "-", "&", "%", "[", "("]
REPEATED += ['",', '\\"', '"\\', ", ", " ,", "a,", "a=b,", "a b,", "no-store ", 'a="\\",', '="\\', 'a=" ', '"a\\"']
REPEATED += ["max-age=1,", 'private="a",', 'W/"a",', '"",', "0-0,", "%41&", "+&", "host=a;", "host=a,", '("a" ', "a=:"]
PREFIXES = ["", '"', 'a="', "bytes=", 'params=("', "host="]


def everything_of(line: str) -> None:
    cache_control = parse_cache_control([line])
    dump_cache_control(cache_control)
    for name in ("max-age", "private", "a"):
        cache_control.get(name)
        cache_control.seconds(name)
        cache_control.field_names(name)


PARSERS: dict[str, Callable[[str], object]] = {
    "cache-control": everything_of,
    "targeted": lambda text: parse_targeted([text]),
    "list": lambda text: parse_list([text]),
    "delta-seconds": parse_delta_seconds,
    "vary": lambda text: parse_vary([text]),
    "age": lambda text: parse_age([text]),
    "date": lambda text: parse_date(text, 0),
    "etag": parse_etag,
    "entity-tags": lambda text: parse_entity_tags([text]),
    "range": parse_range,
    "content-range": parse_content_range,
    "no-vary-search": lambda text: parse_no_vary_search([text]),
    "canonical query": NoVarySearch(ignored=frozenset({b"a"}), any_order=True).canonical,
    "tags": lambda text: parse_tags([text], [text]),
    "host": valid_host,
    "forwarded": mark_forwarded,
}


def processor_time(parse: Callable[[str], object], text: str) -> float:
    start = time.process_time()
    parse(text)
    return time.process_time() - start


@pytest.mark.parametrize("name", PARSERS)
@pytest.mark.parametrize("length", [MAX_FIELD, 65536])
def test_a_hostile_field_costs_little(name: str, length: int) -> None:
    """Each takes less than 5 ms; ten times as much is allowed here, where a quadratic parser takes 100 and more."""
    for prefix in PREFIXES:
        for repeated in REPEATED:
            text = (prefix + repeated * length)[:length]
            spent = min(processor_time(PARSERS[name], text) for _ in range(2))
            assert spent < 0.05, f"{prefix}{repeated}{repeated}…"
