"""Hostile fields cost no more than their length: safety against requests made to keep a processor busy."""

from __future__ import annotations

import time
from collections.abc import Callable
from itertools import pairwise

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
from cachemw.rfc9111.keys import normalized
from cachemw.rfc9111.messages import Layout
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
    "normalized": lambda text: normalized("accept", [text]),
    "age": lambda text: parse_age([text]),
    "date": lambda text: parse_date(text, 0),
    "etag": parse_etag,
    "entity-tags": lambda text: parse_entity_tags([text]),
    "range": parse_range,
    "content-range": parse_content_range,
    "no-vary-search": lambda text: parse_no_vary_search([text]),
    "canonical query": NoVarySearch(ignored=frozenset({"a"}), any_order=True).canonical,
    "tags": lambda text: parse_tags([text], [text]),
    "host": valid_host,
    "forwarded": mark_forwarded,
}


def processor_time(parse: Callable[[str], object], text: str) -> float:
    """Seconds of the processor, the least of three."""
    times = [time.process_time()]
    for _ in range(3):
        parse(text)
        times.append(time.process_time())
    return min(after - before for before, after in pairwise(times))


@pytest.mark.parametrize("name", PARSERS)
@pytest.mark.parametrize("length", [MAX_FIELD, 8 * MAX_FIELD])
def test_a_field_of_eight_times_the_length_costs_about_eight_times_as_much(name: str, length: int) -> None:
    """24 times is allowed, and what 5 ms do; a parser of quadratic cost takes 64 times as long (30 ms, 2 s)."""
    for prefix in PREFIXES:
        for repeated in REPEATED:
            text = (prefix + repeated * length)[:length]
            spent = processor_time(PARSERS[name], text)
            if spent > 0.005:
                assert spent < 24 * processor_time(PARSERS[name], text[: length // 8]) + 0.005, f"{prefix}{repeated}…"


def test_many_lines_of_one_field_cost_what_they_are() -> None:
    def layout(names: str) -> Layout:
        return Layout(names)

    many = "a" * MAX_FIELD * 2
    spent = processor_time(layout, many)
    assert spent < 24 * processor_time(layout, many[: len(many) // 8]) + 0.005
