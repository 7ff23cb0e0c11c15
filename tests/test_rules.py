"""The table of rules: what matches, what wins, and what is refused."""

from __future__ import annotations

import json
import re
from typing import Any

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from cachemw.errors import ImproperlyConfigured
from cachemw.rules import Rule, Rules
from cachemw.settings import Settings

# (pattern, path, whether it matches)
PATHS = [
    ("/", "/", True),
    ("/", "/about", False),  # the home page, not the whole site
    ("/about", "/about", True),
    ("/about", "/about/", False),
    ("/about", "/About", False),
    ("/blog/*", "/blog/2024/post", True),
    ("/blog/*", "/blog/", True),
    ("/blog/*", "/blog", True),
    ("/blog/*", "/blogs", False),
    ("/blog/*", "/x/blog/1", False),
    ("/*", "/", True),
    ("/*", "/any/thing", True),
    ("*", "*", True),
    ("*.css", "/static/site.css", True),
    ("*.css", "/static/site.css/", False),
    ("/a*a", "/a", False),  # the same letter cannot be both ends
    ("/a*a", "/aa", True),
    ("/a*b*c", "/a-b-c", True),
    ("/a*b*c", "/a-c-b", False),
    ("/a*bb*b", "/abb", False),
    ("/a*bb*b", "/abbb", True),
    ("/*/edit/*", "/users/7/edit", True),
    ("/a.b", "/axb", False),  # a point is a point
    ("/[a]*", "/a", False),
    ("^/user/[0-9]+$", "/user/12", True),
    ("^/user/[0-9]+$", "/user/me", False),
    (re.compile(r"\.(css|js)$"), "/static/a.js", True),
    (re.compile(r"\.(css|js)$"), "/static/a.py", False),
    # patterns are of decoded paths, however the server spells them
    ("/café", "/caf%C3%A9", True),
    ("/café", "/café", True),
    ("/café", "/café".encode().decode("latin-1"), True),
    ("/a b", "/a%20b", True),
]


@pytest.mark.parametrize("given", ["/x", b"/x", {"path": "/x"}, 3])
def test_what_is_no_list_of_rules_is_refused(given: Any) -> None:
    with pytest.raises(ImproperlyConfigured, match="rules: a list of rules is expected; got "):
        Rules(given)


@pytest.mark.parametrize(("pattern", "path", "matches"), PATHS)
def test_a_pattern_is_a_path_a_glob_or_a_regular_expression(pattern: Any, path: str, matches: bool) -> None:
    assert Rule(pattern, lifetime=60).matches_request("GET", path) is matches
    assert Rule(pattern, never=True).matches_request("GET", path) is matches


@pytest.mark.parametrize(
    "path", ["/account/../static/a.css", "/account/..%2Fstatic/a.css", "/account%2f%2e%2e%2fstatic/a.css"]
)
def test_a_path_that_can_be_read_in_two_ways_gets_no_lifetime(path: str) -> None:
    """Web cache deception: the cache reads "/static/a.css", and the application answers with the account."""
    assert Rules([Rule("/static/*", lifetime=60)]).for_request("GET", path) is None


@pytest.mark.parametrize(
    "path", ["/%61ccount/me", "//account/me", "/./account/me", "/x/../account/me", "/account%2Fme", "/account/../x"]
)
def test_never_holds_for_every_spelling(path: str) -> None:
    rule = Rule("/account/*", never=True)
    assert Rules([rule, Rule(lifetime=60)]).for_request("GET", path) == (rule,)


@given(st.text(alphabet="/.%2fea*", max_size=30), st.sampled_from(["/a/*", "*a", "/e*.e*/", "^/(a|e)+$"]))
def test_any_path_is_matched_without_an_error(path: str, pattern: str) -> None:
    lifetime, never = Rule(pattern, lifetime=1), Rule(pattern, never=True)
    assert never.matches_request("GET", path) or not lifetime.matches_request("GET", path)


@given(st.lists(st.text(alphabet="ab/", max_size=3), min_size=2, max_size=5), st.text(alphabet="ab/", max_size=12))
@example(["/", ""], "/")
def test_a_glob_is_the_regular_expression_that_it_looks_like(parts: list[str], path: str) -> None:
    pattern = "/" + "*".join(parts)
    expression = ".*".join(map(re.escape, ("/" + parts[0], *parts[1:])))
    folder = path.rstrip("/") + "/" if pattern.endswith("/*") and not path.endswith("/") else path
    expected = any(re.fullmatch(expression, text) for text in (path, folder))
    if "//" not in path:
        assert Rule(pattern, lifetime=1).matches_request("GET", path) is expected


def test_a_hostile_path_is_matched_in_linear_time() -> None:
    """Backtracking would take longer than the age of the universe."""
    rule = Rule("/" + "a*" * 40 + "b", never=True)
    assert not rule.matches_request("GET", "/" + "a" * 60_000 + "c")


# -- requests -----------------------------------------------------------------------------------------------------


def test_a_rule_for_get_is_a_rule_for_head() -> None:
    rule = Rule(methods=("get",), lifetime=60)
    assert rule.methods == ("GET",)
    assert rule.matches_request("HEAD", "/")
    assert not rule.matches_request("POST", "/")
    assert not Rule(methods=("POST",)).matches_request("HEAD", "/")
    assert Rule().matches_request("BREW", "/")


def test_the_first_rule_that_does_not_ask_for_the_response_is_the_last_candidate() -> None:
    missing = Rule("/blog/*", statuses=("4xx",), lifetime=10)
    images = Rule(content_types=("image/*",), lifetime=86400)
    blog = Rule("/blog/*", lifetime=600, cache="pages", ignore_query=("utm_*",))
    rest = Rule(lifetime=60)
    rules = Rules([missing, images, blog, rest])
    assert rules.for_request("GET", "/blog/1") == (missing, images, blog)
    assert rules.for_request("GET", "/") == (images, rest)
    assert rules.for_request("GET", "/") == (images, rest)  # and from memory

    assert Rules.for_lookup(rules.for_request("GET", "/blog/1")) is blog
    assert Rules.for_lookup((missing, images)) is None
    assert Rules.for_lookup(None) is None
    assert Rules.for_lookup(()) is None


def test_where_no_rule_can_match_there_is_nothing_to_do() -> None:
    assert Rules().for_request("GET", "/") is None
    assert Rules([Rule("/blog/*", lifetime=1)]).for_request("GET", "/") is None
    assert Rules([Rule(methods=("GET",), lifetime=1)]).for_request("POST", "/") is None


def test_the_paths_of_strangers_do_not_fill_the_memory() -> None:
    rules = Rules([Rule("/blog/*", lifetime=1)])
    for number in range(3000):
        assert rules.for_request("GET", f"/blog/{number}")
    assert rules.for_request("GET", "/blog/" + "x" * 10_000)
    assert rules.for_request("X" * 10_000, "/blog/")
    assert 0 < len(rules._memo) <= 1024
    assert max(len(method) + len(path) for method, path in rules._memo) <= 256


# -- responses ----------------------------------------------------------------------------------------------------

RESPONSES: list[tuple[dict[str, Any], int, str | None, bool]] = [
    ({}, 200, None, True),
    ({"statuses": 404}, 404, "text/html", True),
    ({"statuses": [404, 410]}, 410, "text/html", True),
    ({"statuses": [404]}, 200, "text/html", False),
    ({"statuses": "4xx"}, 410, "text/html", True),
    ({"statuses": "4xx"}, 500, "text/html", False),
    ({"content_types": "text/html"}, 200, "text/html", True),
    ({"content_types": "Text/HTML"}, 200, "TEXT/html ; charset=utf-8", True),
    ({"content_types": "text/html"}, 200, "text/html-x", False),
    ({"content_types": "text/*"}, 200, "text/css", True),
    ({"content_types": "text/*"}, 200, "application/text", False),
    ({"content_types": "text/*"}, 200, "text", True),
    ({"content_types": "text/*"}, 200, None, False),
    ({"content_types": "text/*"}, 200, "", False),
    ({"content_types": ["image/png", "text/*"], "statuses": [200]}, 200, "image/png", True),
    ({"content_types": ["image/png", "text/*"], "statuses": [200]}, 203, "image/png", False),
]


@pytest.mark.parametrize(("options", "status", "content_type", "matches"), RESPONSES)
def test_a_rule_may_ask_for_status_and_media_type(
    options: dict[str, Any], status: int, content_type: str | None, matches: bool
) -> None:
    rule = Rule(**options)
    assert rule.matches_response(status, content_type) is matches
    assert rule.conditional is bool(options)


@pytest.mark.parametrize(
    "path", ["/account/a.css", "/account/a.CSS", "/account%2Fa%2ecss", "/account;a.js", "/me%00.png"]
)
@pytest.mark.parametrize("content_type", ["text/html; charset=utf-8", "Application/JSON", "application/xhtml+xml"])
def test_a_page_does_not_become_a_file_by_its_name(path: str, content_type: str) -> None:
    """Web cache deception: somebody is sent to "/account/a.css", and it is answered with the account."""
    by_name = Rule(re.compile(r"\.(css|js|png)$", re.IGNORECASE), lifetime=86400)
    assert by_name.matches_request("GET", path)
    assert not by_name.matches_response(200, content_type, path)
    assert not Rule(lifetime=86400, set_cookie="strip").matches_response(200, content_type, path)
    assert Rule(never=True).matches_response(200, content_type, path)
    assert Rule(content_types=content_type.partition(";")[0], lifetime=60).matches_response(200, content_type, path)


@pytest.mark.parametrize(
    ("status", "content_type", "path"),
    [
        (200, "text/css", "/a.css"),
        (200, None, "/a.css"),
        (200, "application/json", "/a.js.map"),
        (200, "text/html", "/css"),
        (200, "text/html", "/a.css.html"),
        (200, "text/html", "/a.css/"),
        (404, "text/html", "/a.css"),  # an error is nobody's
        (301, "text/html", "/a.css"),
    ],
)
def test_a_file_and_a_page_are_told_apart(status: int, content_type: str | None, path: str) -> None:
    assert Rule(lifetime=60).matches_response(status, content_type, path)


def test_the_first_rule_that_matches_the_response_wins() -> None:
    missing, pages, rest = (
        Rule(statuses=(404,), lifetime=1),
        Rule(content_types=("text/html",), lifetime=2),
        Rule(lifetime=3),
    )
    candidates = (missing, pages, rest)
    assert Rules.for_response(candidates, 404, "text/html") is missing
    assert Rules.for_response(candidates, 200, "text/html") is pages
    assert Rules.for_response(candidates, 200, "image/png") is rest
    assert Rules.for_response((missing,), 200, "image/png") is None
    assert Rules.for_response(None, 200, "image/png") is None


# -- the table ----------------------------------------------------------------------------------------------------


def from_environment(text: str) -> Any:
    return Settings.from_environ({"CACHEMW_RULES": text}).rules


def test_rules_come_from_json_and_mappings_as_well() -> None:
    rows = [
        {"path": "/account/*", "never": True},
        {"path": "*.css", "methods": ["GET"], "lifetime": 86400, "tags": ["static"], "ignore_query": ["v"]},
    ]
    rules = Rules(from_environment(json.dumps(rows)))
    assert rules == Rules(rows) == Rules([Rule(**row) for row in rows])  # type: ignore[arg-type]
    assert hash(rules) == hash(Rules(rows))
    assert rules != rows
    assert len(rules) == 2
    assert rules[0].never
    assert rules[1:] == (Rule("*.css", methods=("GET",), lifetime=86400, tags=("static",), ignore_query=("v",)),)
    assert repr(rules).startswith("Rules([Rule(path='/account/*'")


@pytest.mark.parametrize("text", ["{", "[1,", "[" * 100_000, '[{"path": "/", "never": true, "never": false}]'])
def test_what_is_no_json_names_the_variable(text: str) -> None:
    with pytest.raises(ImproperlyConfigured, match=r"CACHEMW_RULES is .*, which is not JSON: "):
        from_environment(text)


@pytest.mark.parametrize("text", ['{"path": "/"}', '"/"', "7", "null"])
def test_a_table_is_a_list(text: str) -> None:
    with pytest.raises(ImproperlyConfigured, match=r"CACHEMW_RULES is .*; allowed: a list of rules, also as JSON"):
        from_environment(text)


def test_a_row_is_an_object() -> None:
    with pytest.raises(ImproperlyConfigured, match=r"rules\[1\]: a rule is an object with the names path, methods"):
        Rules([Rule(), "/blog/*"])  # type: ignore[list-item]


def test_a_misspelt_name_is_told_the_right_one() -> None:
    with pytest.raises(
        ImproperlyConfigured, match=r"RULES\[0\]: unknown name 'lifetme'; did you mean 'lifetime'\? All"
    ):
        from_environment('[{"lifetme": 3}]')
    with pytest.raises(ImproperlyConfigured, match=r"unknown name '_matches'"):
        Rules([{"_matches": 3}])
    with pytest.raises(ImproperlyConfigured, match=r"unknown name 7\. Allowed: path"):
        Rules([{7: 3}])  # type: ignore[dict-item]


WRONG: list[tuple[dict[str, Any], str]] = [
    ({"path": "blog"}, "path: 'blog' begins neither with '/' or '\\*'"),
    ({"path": ""}, "path: '' begins"),
    ({"path": None}, "path: None begins"),
    ({"path": re.compile(b"/")}, "path: re.compile"),
    ({"path": "^/("}, r"path: '\^/\(' is not a regular expression: missing \)"),
    ({"path": "/a?page=1"}, "has a query"),
    ({"methods": "GET,POST"}, "methods: 'GET,POST' is not a method"),
    ({"methods": [None]}, "methods: None is not a method"),
    ({"statuses": [99]}, "statuses: 99 is not a number from 100 to 599"),
    ({"statuses": True}, "statuses: True is not"),
    ({"statuses": "6xx"}, "statuses: '6xx' is not"),
    ({"statuses": "200"}, "statuses: '200' is not"),
    ({"content_types": "html"}, "content_types: 'html' is not a media type"),
    ({"content_types": "text/html; charset=utf-8"}, "is not a media type without parameters"),
    ({"content_types": "*/*"}, "content_types"),
    ({"lifetime": -1}, "lifetime is -1; allowed: a number of at least 0"),
    ({"lifetime": "soon"}, "lifetime is 'soon'"),
    ({"lifetime": True}, "lifetime is True"),
    ({"lifetime": float("nan")}, "lifetime is nan"),
    ({"lifetime": float("inf")}, "lifetime is inf"),
    ({"lifetime": 10**400}, "lifetime is 1000"),
    ({"cache": ""}, "cache: '' is not the alias"),
    ({"cache": 1}, "cache: 1 is not the alias"),
    ({"tags": "a,b"}, "tags: 'a,b' is not a string without spaces and commas"),
    ({"tags": "a b"}, "tags: 'a b'"),
    ({"tags": "a\r\nb"}, "tags"),
    ({"tags": "x" * 1025}, "at most 1024"),
    ({"ignore_query": "a=b"}, "ignore_query: 'a=b' is not a parameter's name"),
    ({"ignore_query": "*x"}, "ignore_query: '\\*x'"),
    ({"never": "yes"}, "never: 'yes' is neither true nor false"),
    ({"never": True, "lifetime": 60}, "a page that is never stored has no lifetime"),
    ({"never": True, "set_cookie": "strip"}, "a page that is never stored has no lifetime"),
    ({"set_cookie": "store"}, "set_cookie: 'store' is not 'strip'"),
    ({"set_cookie": True}, "set_cookie: True is not 'strip'"),
    ({"statuses": 404, "cache": "pages"}, "put them in a rule of their own"),
    ({"content_types": "image/*", "ignore_query": "v"}, "put them in a rule of their own"),
]


@pytest.mark.parametrize(("options", "message"), WRONG)
def test_a_value_that_cannot_be_meant_is_one_clear_error(options: dict[str, Any], message: str) -> None:
    with pytest.raises(ImproperlyConfigured, match=message):
        Rule(**options)
    with pytest.raises(ImproperlyConfigured, match=r"^CACHEMW_RULES\[0\]: "):
        Rules([options], source="CACHEMW_RULES")


def test_a_lifetime_of_zero_and_a_star_of_parameters_are_meant() -> None:
    rule = Rule(lifetime=0, ignore_query=("*",))
    assert (rule.lifetime, rule.ignore_query) == (0, ("*",))
    assert Rule(never=True, lifetime=0).never
