"""No-Vary-Search (draft-ietf-httpbis-no-vary-search)."""

from __future__ import annotations

from collections import Counter
from urllib.parse import parse_qsl, quote

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from cachemw.rfc9111.fields import NoVarySearch, parse_no_vary_search

PIECES = st.sampled_from(["a", "b", "%61", "utm", "é", "%C3%A9", "+", "%20", "&", "&", "=", "1", "2", "%", "%FF", ";"])
QUERIES = st.lists(PIECES, max_size=12).map("".join)
VARIANCES = st.builds(
    NoVarySearch,
    ignored=st.frozensets(st.sampled_from(["a", "utm", " ", "é"])),
    any_order=st.booleans(),
) | st.builds(NoVarySearch, only=st.frozensets(st.sampled_from(["a", "b", "é", "\ufffd"])), any_order=st.booleans())


@pytest.mark.parametrize(
    ("lines", "variance"),
    [
        (["key-order"], NoVarySearch(any_order=True)),
        (["key-order=?1"], NoVarySearch(any_order=True)),
        (["params"], NoVarySearch(only=frozenset())),
        (["params=?1"], NoVarySearch(only=frozenset())),
        (['params=("a" "b")'], NoVarySearch(ignored=frozenset({"a", "b"}))),
        (['params, except=("x")'], NoVarySearch(only=frozenset({"x"}))),
        (["params, except=()"], NoVarySearch(only=frozenset())),
        (['params, key-order, except=("x")'], NoVarySearch(only=frozenset({"x"}), any_order=True)),
        (['params=("a")', "key-order"], NoVarySearch(ignored=frozenset({"a"}), any_order=True)),
        (['params=("%C3%A9+%E6%B0%97")'], NoVarySearch(ignored=frozenset({"é 気"}))),
        (['params=("a");x=1, unknown=5'], NoVarySearch(ignored=frozenset({"a"}))),
        # says that all matters
        ([], None),
        ([""], None),
        (["unknown-key"], None),
        (["params=?0"], None),
        (["params=()"], None),
        (["key-order=?0"], None),
        # malformed: the draft's own examples
        (['key-order="not a boolean"'], None),
        (['params="not a boolean or inner list"'], None),
        (["params=(not-a-string)"], None),
        (['params=("a"), except=("x")'], None),
        (["params=(), except=()"], None),
        (['params=?0, except=("x")'], None),
        (["params, except=(not-a-string)"], None),
        (['params, except="not an inner list"'], None),
        (["params, except=?1"], None),
        (['except=("x")'], None),
        (["except=()"], None),
        # and others
        (['key-order, params=("a" 1)'], None),
        (['key-order, params="a"'], None),
        (["key-order, params=1"], None),
        (["key-order=1"], None),
        (['Params=("a")'], None),
        (['params=("é")'], None),
        (['params=("a"), &'], None),
        (['params=("a" "%E9")'], None),  # would name every name in broken UTF-8
        (['params, except=("%FF")'], None),
        (['params=("' + "a" * 8192 + '")'], None),
    ],
)
def test_parsing(lines: list[str], variance: NoVarySearch | None) -> None:
    assert parse_no_vary_search(lines) == variance


@pytest.mark.parametrize(
    ("field", "query", "canonical"),
    [
        ('params=("utm")', "", ""),
        ('params=("utm")', "a=1&utm=2&b=3", "a=1&b=3"),
        ('params=("utm")', "utm", ""),
        ('params=("utm")', "%75tm=1&utm=2&a=%41", "a=%41"),
        ('params=("utm")', "Utm=1&utm2=1&=utm", "Utm=1&utm2=1&=utm"),
        ('params=("utm")', "a=1&&b=2&", "a=1&b=2"),
        ('params=("utm")', "b=1&a=2&b=3", "b=1&a=2&b=3"),
        ('params=("")', "=1&a=2", "a=2"),
        ('params=("%C3%A9+%E6%B0%97")', "é 気=1&a".encode().decode("latin-1"), "a"),
        ('params=("%C3%A9+%E6%B0%97")', "%C3%A9%20%E6%B0%97=1&a", "a"),
        ('params=("%C3%A9+%E6%B0%97")', "%C3%A9+%E6%B0%97=1&a", "a"),
        ('params=("a+b")', "a+b=1&a%20b=2&a=3", "a=3"),
        ('params=("%C3%A9")', "\xe9=1&%E9=2", "\xe9=1&%E9=2"),  # another encoding is another name
        ("params", "a=1&b=2", ""),
        ('params, except=("a")', "b=1&a=2&%61=3&c", "a=2&%61=3"),
        ("key-order", "b=1&a=2&b=0&a=1", "a=2&a=1&b=1&b=0"),  # of one name, the order counts
        ('key-order, params=("a")', "c=1&b=2&a=3", "b=2&c=1"),
        # an application that separates by ";" would see `admin=1` disappear
        ('params=("utm")', "utm=1;admin=1", "utm=1;admin=1"),
        ("key-order", "x;a=1&a=2", "x;a=1&a=2"),
    ],
)
def test_what_of_a_query_distinguishes_pages(field: str, query: str, canonical: str) -> None:
    variance = parse_no_vary_search([field])
    assert variance is not None
    assert variance.canonical(query) == canonical
    assert variance.canonical(canonical) == canonical


def test_a_query_beyond_all_measure_stays_as_it_is() -> None:
    variance = NoVarySearch(ignored=frozenset({"a"}))
    assert variance.canonical("a=1&" * 2048) == ""
    assert variance.canonical("a=1&" * 2048 + "b") == "a=1&" * 2048 + "b"


def equivalent_by_the_draft(variance: NoVarySearch, one: str, two: str) -> bool:
    """ "Equivalent modulo search variance", on the decoded parameters."""

    def parameters(query: str) -> list[tuple[str, str]]:
        decoded = parse_qsl(quote(query.encode("latin-1"), safe="%&=;+"), keep_blank_values=True)
        if variance.only is not None:
            decoded = [pair for pair in decoded if pair[0] in variance.only]
        decoded = [pair for pair in decoded if pair[0] not in variance.ignored]
        return sorted(decoded, key=lambda pair: pair[0]) if variance.any_order else decoded

    return parameters(one) == parameters(two)


@given(VARIANCES, QUERIES, QUERIES)
@example(NoVarySearch(any_order=True), "b=1&a=2", "a=2&b=1")
@example(NoVarySearch(any_order=True), "%FF=1&\xe9=2", "\xe9=2&%FF=1")  # one name, "\ufffd", once decoded
def test_one_canonical_form_means_equivalent_queries(variance: NoVarySearch, one: str, two: str) -> None:
    if variance.canonical(one) == variance.canonical(two):
        assert equivalent_by_the_draft(variance, one, two)
    assert equivalent_by_the_draft(variance, one, variance.canonical(one))


@given(st.lists(st.sampled_from(["params", "except", "key-order", "=", "(", ")", '"a"', "?0", "?1", ",", " ", "1"])))
def test_parsing_never_raises(words: list[str]) -> None:
    variance = parse_no_vary_search(["".join(words)])
    assert variance is None or variance != NoVarySearch()


@given(VARIANCES, st.text())
def test_any_query_has_a_canonical_form(variance: NoVarySearch, query: str) -> None:
    canonical = variance.canonical(query)
    assert variance.canonical(canonical) == canonical
    assert Counter(canonical) <= Counter(query)
