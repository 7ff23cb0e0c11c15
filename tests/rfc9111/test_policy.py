"""The options of a policy: each is checked where it is written, and read as it was meant."""

from __future__ import annotations

import inspect
import re
import subprocess
import sys
from dataclasses import fields
from typing import Any

import pytest

from cachemw.errors import ImproperlyConfigured
from cachemw.rfc9111.keys import keyed_part
from cachemw.rfc9111.policy import Policy
from cachemw.rfc9111.requests import Request
from cachemw.settings import Settings

#: By which clients choose a page, and by which they or a proxy say who they are.
KEYED = """
Forwarded X-Forwarded-Host X-Forwarded-Port X-Forwarded-Prefix X-Forwarded-Proto X-Forwarded-Protocol
X-Forwarded-Scheme X-Forwarded-Server X-Forwarded-SSL X-Host X-HTTP-Host-Override X-HTTP-Method
X-HTTP-Method-Override X-Method-Override X-Original-Host X-Original-URL X-Rewrite-URL X-Script-Name X-URL-Scheme
Front-End-Https API-Key X-Access-Token X-API-Key X-Auth-Token X-Key X-Token CF-Access-Authenticated-User-Email
Client-Cert Remote-User Tailscale-User-Login X-Amzn-Oidc-Identity X-Auth-Request-Email X-Auth-Request-User
X-Authentik-Username X-Forwarded-Client-Cert X-Forwarded-Email X-Forwarded-User X-Goog-Authenticated-User-Email
X-MS-Client-Principal-Id X-Remote-User X-WebAuth-User
X-Forwarded-Path X-Forwarded-URI X-Original-URI X-Scheme Apikey Ocp-Apim-Subscription-Key Private-Token Token
X-Authorization X-Id-Token X-RapidAPI-Key X-Session-Id X-Session-Token CF-Access-Jwt-Assertion SSL-Client-Cert
SSL-Client-Subject-DN X-Amzn-Mtls-Clientcert X-Amzn-Mtls-Clientcert-Leaf X-Amzn-Mtls-Clientcert-Subject
X-Apigateway-Api-Userinfo X-ARR-ClientCert X-Auth-Email X-Auth-User X-Auth-Username X-Authenticated-User
X-Authenticated-Userid X-Client-Cert X-Consumer-Id X-Consumer-Username X-Endpoint-API-UserInfo X-JWT-Assertion
X-MS-Client-Principal X-Pomerium-Claim-Email X-SSL-Client-Cert X-SSL-Client-S-DN X-User X-User-Id X-Username
X-Vouch-User
Auth-Token Authentication X-Access-Key X-API-Token X-ApiKey X-Auth X-Auth-Key X-Goog-API-Key X-JWT X-JWT-Token
X-Account-Id X-Org-Id X-Organization-Id X-Tenant-Id X-Workspace-Id
HX-Request Origin Turbo-Frame X-Inertia X-PJAX X-Requested-With X-Up-Target
HX-Boosted HX-History-Restore-Request HX-Target HX-Trigger HX-Trigger-Name X-Inertia-Partial-Component
X-Inertia-Partial-Data X-Inertia-Partial-Except X-Inertia-Reset X-PJAX-Container X-Up-Context X-Up-Mode
Authentication-Token
"""


@pytest.mark.parametrize(
    ("option", "value", "allowed"),
    [
        ("seconds", -1, "a number of at least 0"),
        ("grace", "x", "a number of at least 0"),
        ("keep", float("nan"), "a number of at least 0"),
        ("heuristic_fraction", True, "a number"),
        ("max_body", -5, "a whole number of at least 0"),
        ("max_variants", 1.5, "a whole number"),
        ("statuses", [20], "a whole number from 100 to 599"),
        ("statuses", 200, "status codes, such as {200, 404}"),
        ("set_cookie", "maybe", "refuse, strip, store"),
        ("authorization", None, "rfc9111, vary"),
        ("collapse", 2, "true or false"),
        ("session_cookies", 5, "a list of words"),
        ("session_cookies", ["id", "*session*"], '"*" at one end at most'),
        ("session_cookies", "shop*session", '"*" at one end at most'),
        ("session_cookies", ["**"], '"*" at one end at most'),
        ("freshness", ["expire"], "s-maxage, max-age, expires"),
        ("targeted", ["a b"], "names of fields"),
        ("cache_status", "a b", "a token"),
        ("cache_status", "1", "begins with a letter"),
        ("cache_status", 5, "a token"),
    ],
)
@pytest.mark.parametrize("make", [Policy, Policy.django, Policy.rfc9111])
def test_a_value_that_cannot_be_used_is_named(make: Any, option: str, value: Any, allowed: str) -> None:
    with pytest.raises(ImproperlyConfigured, match=f"^{option} is") as caught:
        make(**{option: value})
    assert allowed in str(caught.value)


def test_a_lone_cookie_is_a_list_of_one() -> None:
    """Taken letter by letter it would guard no session at all."""
    assert Policy(session_cookies="session").session_cookies == ("session",)


@pytest.mark.parametrize("option", ["session_cookies", "keyed_fields", "targeted", "freshness"])
def test_a_guard_is_switched_off_by_a_word_and_by_no_slip(option: str) -> None:
    """`CACHEMW_SESSION_COOKIES=` in a file of variables means that nobody has filled it in."""
    name = f"CACHEMW_{option.upper()}"
    for text in ("", " ", ", ,"):
        with pytest.raises(ImproperlyConfigured, match=f"^{name} is {text!r}; allowed: .* none for an empty list"):
            Settings.from_environ({name: text})
        with pytest.raises(ImproperlyConfigured, match=f"^{option} is"):
            Policy(**{option: text})  # type: ignore[arg-type]
    assert getattr(Settings.from_environ({name: " None "}).policy(), option) == ()
    assert getattr(Policy(**{option: ()}), option) == ()  # type: ignore[arg-type]


@pytest.mark.parametrize("given", ["+basket, membership", " + basket,+membership", ["+basket", "membership"]])
def test_a_list_may_be_added_to(given: Any) -> None:
    """Who lists the cookie of one extension must not have all others go unguarded."""
    names = (*Policy().session_cookies, "basket", "membership")
    assert Policy(session_cookies=given).session_cookies == names
    assert Policy(session_cookies=names).session_cookies == names
    mapped = {"CACHEMW_SESSION_COOKIES": given, "CACHEMW_STATUSES": "+404", "CACHEMW_KEYED_FIELDS": "+X-Tenant"}
    policy = Settings.from_mapping(mapped).policy()
    assert policy.session_cookies == names
    assert policy.statuses == {200, 404}
    assert policy.keyed_fields == (*Policy().keyed_fields, "x-tenant")


def test_an_empty_list_that_is_the_default_may_be_given_as_such() -> None:
    for name in ("STATUSES", "LANGUAGES"):
        settings = Settings.from_environ({f"CACHEMW_{name}": "none"})
        assert (settings.languages, settings.policy().statuses) == ((), frozenset(() if name == "STATUSES" else (200,)))
    for text in ("", "none"):
        assert Settings.from_environ({"CACHEMW_IGNORE_QUERY": text}).policy() == Policy()


@pytest.mark.parametrize("name", KEYED.split())
@pytest.mark.parametrize("policy", [Policy(), Policy.rfc9111(), Policy.django()], ids=["default", "rfc9111", "django"])
def test_what_pages_hang_on_and_nobody_says_in_vary_is_part_of_every_policys_keys(policy: Policy, name: str) -> None:
    one, other = (keyed_part(Request(fields=[(name, f"host={who}")]), policy.keyed_fields) for who in "ab")
    assert one != other
    assert "" not in (one, other)


def test_names_of_fields_are_in_lower_case_as_the_rules_look_them_up() -> None:
    policy = Policy(keyed_fields=("X-Site",), targeted=("My-Cache-Control",))
    assert (policy.keyed_fields, policy.targeted) == (("x-site",), ("my-cache-control",))


def test_a_list_of_statuses_is_a_set() -> None:
    assert Policy(statuses=[200, 404]) == Policy(statuses=frozenset({404, 200}))


def test_no_name_means_no_field() -> None:
    assert Policy(cache_status="none").cache_status is None


def test_an_option_that_there_is_not_is_a_type_error() -> None:
    with pytest.raises(TypeError, match="graze"):
        Policy.rfc9111(graze=5)  # type: ignore[call-arg]


def test_help_explains_every_option() -> None:
    told = inspect.getdoc(Policy) or ""
    for one in fields(Policy):
        assert re.search(rf"^{one.name} +\S.*\S$", told, re.M), one.name
    assert "\nReuse:\n" in told


def test_without_docstrings_there_are_policies_all_the_same() -> None:
    done = subprocess.run(
        [sys.executable, "-OO", "-c", "from cachemw.rfc9111.policy import Policy; print(Policy().keep)"],
        capture_output=True,
        text=True,
        check=False,
    )
    assert (done.stdout, done.stderr) == ("3600\n", "")
