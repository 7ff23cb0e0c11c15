"""Settings by their three doors, and stores from URLs."""

from __future__ import annotations

import copy
import dataclasses
import logging
import pickle
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cachemw import settings as settings_module
from cachemw._urls import cache_from_url
from cachemw.backends.db import DatabaseCache
from cachemw.caching import Caching
from cachemw.errors import ImproperlyConfigured
from cachemw.rfc9111.policy import Policy
from cachemw.rules import Rule
from cachemw.settings import Settings

BACKENDS = "cachemw.backends."


# -- the three doors -------------------------------------------------------------------------------------------------


def test_without_anything_there_are_the_documented_defaults() -> None:
    for settings in (Settings(), Settings.from_mapping({}), Settings.from_environ({})):
        assert settings == Settings()
        assert (settings.seconds, settings.lifetime(), settings.key_prefix, settings.alias) == (
            None,
            600,
            "",
            "default",
        )
        assert (settings.use_i18n, settings.use_tz, settings.languages) == (False, False, ())
        assert settings.caches is None
        assert settings.policy() == Policy()


def test_the_three_doors_lead_to_the_same() -> None:
    by_arguments = Settings(
        seconds=30,
        key_prefix="site",
        alias="pages",
        use_i18n=True,
        use_tz=True,
        languages=("de", "en"),
        language_code="de",
        language_cookie="lang",
        time_zone="Europe/Berlin",
        clock_skew=0.5,
        preset="rfc9111",
        policy_options={"grace": 5.0},
        rules=({"path": "/a", "lifetime": 5},),
        secret=("new", "old"),
        caches={"default": "locmem://x"},
    )
    other: dict[Any, Any] = {7: "not even a text"}
    by_mapping = Settings.from_mapping(
        {
            "CACHE_MIDDLEWARE_SECONDS": 30,
            "CACHE_MIDDLEWARE_KEY_PREFIX": "site",
            "CACHE_MIDDLEWARE_ALIAS": "pages",
            "USE_I18N": True,
            "USE_TZ": True,
            "LANGUAGES": [("de", "Deutsch"), ("en", "English")],
            "LANGUAGE_CODE": "de",
            "LANGUAGE_COOKIE_NAME": "lang",
            "TIME_ZONE": "Europe/Berlin",
            "CACHEMW_CLOCK_SKEW": 0.5,
            "CACHEMW_POLICY": "rfc9111",
            "CACHEMW_GRACE": 5,
            "CACHEMW_RULES": [{"path": "/a", "lifetime": 5}],
            "CACHEMW_SECRET": ["new", "old"],
            "CACHES": {"default": {"BACKEND": BACKENDS + "locmem.LocMemCache", "LOCATION": "x", "OPTIONS": {}}},
            "SECRET_KEY": "Flask's own",
            "DEBUG": False,
            **other,
        }
    )
    by_environment = Settings.from_environ(
        {
            "CACHEMW_SECONDS": "30",
            "CACHEMW_KEY_PREFIX": "site",
            "CACHEMW_ALIAS": "pages",
            "CACHEMW_USE_I18N": "yes",
            "CACHEMW_USE_TZ": "1",
            "CACHEMW_LANGUAGES": "de, en",
            "CACHEMW_LANGUAGE_CODE": "de",
            "CACHEMW_LANGUAGE_COOKIE": "lang",
            "CACHEMW_TIME_ZONE": "Europe/Berlin",
            "CACHEMW_CLOCK_SKEW": "0.5",
            "CACHEMW_POLICY": "rfc9111",
            "CACHEMW_GRACE": "5",
            "CACHEMW_RULES": '[{"path": "/a", "lifetime": 5}]',
            "CACHEMW_SECRET": "new\nold\n",
            "CACHEMW_URL": "locmem://x",
            "PATH": "/bin",
        }
    )
    assert by_arguments == by_mapping == by_environment
    assert by_environment.policy() == Policy.rfc9111(grace=5.0)


def test_the_environment_is_read_under_our_names_only() -> None:
    assert Settings.from_environ({"USE_TZ": "1", "LANGUAGES": "x", "CACHES": "y", "TIME_ZONE": "z"}) == Settings()


def test_our_name_comes_before_djangos() -> None:
    settings = Settings.from_mapping({"CACHE_MIDDLEWARE_SECONDS": 1, "CACHEMW_SECONDS": 2})
    assert settings.seconds == 2


def test_what_a_mapping_leaves_out_comes_from_its_base() -> None:
    base = Settings.from_environ({"CACHEMW_SECONDS": "5", "CACHEMW_GRACE": "7", "CACHEMW_KEY_PREFIX": "environment"})
    settings = Settings.from_mapping({"CACHEMW_KEY_PREFIX": "code", "CACHEMW_LEASE": 0}, base=base)
    assert (settings.seconds, settings.key_prefix) == (5, "code")
    assert (settings.policy().grace, settings.policy().lease) == (7, 0)
    assert Settings.from_mapping({}, base=base) == base


def test_the_process_environment_leaves_its_caches_to_the_process_wide_ones(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CACHEMW_URL", "locmem://x")
    monkeypatch.setenv("CACHEMW_SECONDS", "9")
    settings = Settings.from_environ()
    assert (settings.seconds, settings.caches) == (9, None)


def test_none_in_a_mapping_is_as_if_it_were_not_there() -> None:
    assert Settings.from_mapping({"CACHES": None, "CACHEMW_RULES": None, "CACHEMW_SECRET": None}) == Settings()


def test_settings_do_not_change() -> None:
    with pytest.raises(dataclasses.FrozenInstanceError):
        Settings().seconds = 5  # type: ignore[misc]


CHANGES: dict[str, Callable[[Any], Any]] = {
    "update": lambda held: held.update(a=1),
    "set": lambda held: held.__setitem__("a", 1),
    "setdefault": lambda held: held.setdefault("a", 1),
    "ior": lambda held: held.__ior__({"a": 1}),
    "del": lambda held: held.__delitem__(next(iter(held), "a")),
    "pop": lambda held: held.pop("a", None),
    "popitem": lambda held: held.popitem(),
    "clear": lambda held: held.clear(),
}


@pytest.mark.parametrize("change", CHANGES.values(), ids=CHANGES)
def test_what_settings_hold_does_not_change_either(change: Callable[[Any], Any]) -> None:
    given: dict[str, Any] = {"default": {"BACKEND": "x", "TIMEOUT": 5}}
    settings = Settings(policy_options={"grace": 5}, caches=given)
    given["default"]["TIMEOUT"] = 6
    given["other"] = "locmem://"
    assert settings.caches == {"default": {"BACKEND": "x", "TIMEOUT": 5}}
    for held in (settings.policy_options, settings.caches, settings.caches["default"], Settings().policy_options):
        with pytest.raises(TypeError, match="do not change"):
            change(held)
    assert settings.policy() == Policy(grace=5)


def test_settings_are_values() -> None:
    one, other = (Settings(policy_options={"grace": 5}, caches={"a": {"OPTIONS": {"b": [1]}}}) for _ in range(2))
    assert len({one, other, Settings()}) == 2
    for again in (pickle.loads(pickle.dumps(one)), copy.deepcopy(one), dataclasses.replace(one)):
        assert again == one
        assert hash(again) == hash(one)
    assert dataclasses.asdict(one)["policy_options"] == {"grace": 5.0}


def test_no_secret_is_shown() -> None:
    settings = Settings(secret=("hidden",), caches={"default": "redis://u:hidden@host"})
    assert "hidden" not in repr(settings)


def test_every_field_is_documented_and_has_a_name_in_the_environment() -> None:
    for one in dataclasses.fields(Settings):
        assert one.metadata["doc"], one.name
        assert one.metadata["names"], one.name
        if one.name != "caches":
            assert one.metadata["names"][0].startswith("CACHEMW_"), one.name
        if isinstance(one.default, float):
            assert one.metadata["unit"] == "seconds", one.name


# -- values that cannot be used --------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "value", "allowed"),
    [
        ("CACHEMW_SECONDS", "soon", "a number of at least 0"),
        ("CACHEMW_SECONDS", "-1", "a number of at least 0"),
        ("CACHEMW_SECONDS", "nan", "a number of at least 0"),
        ("CACHEMW_USE_I18N", "perhaps", "true or false"),
        ("CACHEMW_ALIAS", " ", "a string that is not empty"),
        ("CACHEMW_POLICY", "strict", "default, django, rfc9111"),
        ("CACHEMW_CLOCK_SKEW", "", "a number of at least 0"),
        ("CACHEMW_RULES", '{"path": "/"}', "a list of rules"),
        ("CACHEMW_RULES", '"text"', "a list of rules"),
        ("CACHEMW_RULES", '[{"path": "/", "nevr": true}]', "did you mean 'never'?"),
        ("CACHEMW_POLICY_OPTIONS", "grace=3", "is 'grace=3', which is not JSON"),
        ("CACHEMW_RULES", "[" * 100_000, "[[[…, which is not JSON"),
        ("CACHEMW_RULES", '[{"path": "/", "never": true, "never": false}]', "'never' stands there twice"),
        ("CACHEMW_POLICY_OPTIONS", '{"grace": 1, "grace": 2}', "'grace' stands there twice"),
        ("CACHEMW_POLICY_OPTIONS", "[3]", "a mapping"),
        ("CACHEMW_LANGUAGES", "en,d e", "en or pt-BR"),
        ("CACHEMW_LANGUAGE_CODE", "e\rn", "en or pt-BR"),
        ("CACHEMW_TIME_ZONE", "Mars/Base", "UTC or Europe/Berlin"),
        ("CACHEMW_CACHE_STATUS", "a b; hit", "a token"),
        ("CACHEMW_GRACE", "long", "a number of at least 0"),
        ("CACHEMW_MAX_BODY", "8M", "a whole number of at least 0"),
        ("CACHEMW_MAX_BODY", "-1", "a whole number of at least 0"),
        ("CACHEMW_COLLAPSE", "x", "true or false"),
        ("CACHEMW_SET_COOKIE", "maybe", "refuse, strip, store"),
        ("CACHEMW_STATUSES", "200,abc", "a whole number"),
        ("CACHEMW_STATUSES", "20", "a whole number from 100 to 599"),
        ("CACHEMW_STATUSES", "200,2000", "a whole number from 100 to 599"),
        ("CACHEMW_COLLAPSE_TIMEOUT", "1e20", "a number from 0 to 86400"),  # what no lock could be told to wait
        ("CACHEMW_LEASE", "1e20", "a number from 0 to 86400"),
        ("CACHEMW_HEURISTIC_FRACTION", "10", "a number from 0 to 1"),  # no percentage
        ("CACHEMW_HIT_FOR_MISS", "86401", "a number from 0 to 86400"),
        ("CACHEMW_LANGUAGE_COOKIE", "lang=de", "the name of a cookie"),
        ("CACHEMW_LANGUAGE_COOKIE", "my language", "the name of a cookie"),
    ],
)
def test_a_bad_variable_is_named_with_its_value_and_what_is_allowed(name: str, value: str, allowed: str) -> None:
    with pytest.raises(ImproperlyConfigured) as caught:
        Settings.from_environ({name: value})
    message = str(caught.value)
    assert name in message
    assert allowed in message


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("seconds", "x"),
        ("seconds", True),
        ("key_prefix", 5),
        ("key_prefix", None),
        ("key_prefix", "\udcff"),
        ("alias", ""),
        ("use_tz", "never"),
        ("languages", 5),
        ("languages", [("de", "Deutsch", "x")]),
        ("language_code", ""),
        ("preset", "other"),
        ("preset", ["default"]),
        ("policy_options", ["grace"]),
        ("rules", 5),
        ("caches", ["locmem://"]),
        ("caches", {"default": 5}),
        ("caches", {5: {}}),
        ("secret", ""),
        ("secret", ["a", ""]),
        ("secret", " \t"),
        ("secret", ["a", " "]),
        ("secret", 5),
    ],
)
def test_a_bad_argument_is_named(field: str, value: Any) -> None:
    with pytest.raises(ImproperlyConfigured, match=f"^{field} is"):
        Settings(**{field: value})


def test_options_of_the_policy_and_rules_are_json_in_the_environment() -> None:
    settings = Settings.from_environ(
        {
            "CACHEMW_POLICY_OPTIONS": '{"grace": 3}',
            "CACHEMW_KEEP": "7",
            "CACHEMW_RULES": '[{"path": "/", "never": true}]',
        }
    )
    assert settings.policy() == Policy(grace=3, keep=7)
    assert settings.rules == (Rule("/", never=True),)


def test_without_a_database_of_time_zones_none_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("cachemw._settings_values.available_timezones", set)
    assert Settings(time_zone="Europe/Berlin").time_zone == "Europe/Berlin"


def test_rules_that_are_no_json_are_one_clear_error() -> None:
    with pytest.raises(ImproperlyConfigured, match=r"CACHEMW_RULES is 'path=/', which is not JSON: Expecting value"):
        Settings.from_environ({"CACHEMW_RULES": "path=/"})


def test_an_unknown_option_of_the_policy_is_named() -> None:
    with pytest.raises(
        ImproperlyConfigured, match="an unknown option of Policy is 'gracious'; allowed: authorization, ca"
    ):
        Settings(policy_options={"gracious": 1})
    with pytest.raises(ImproperlyConfigured, match=r"option of Policy is 'grase'; did you mean 'grace'\? Allowed"):
        Settings(policy_options={"grase": 1})
    with pytest.raises(ImproperlyConfigured, match="an unknown option of Policy is 5; allowed"):
        Settings(policy_options={5: 1})  # type: ignore[dict-item]
    for option in ("django_rules", "seconds"):
        with pytest.raises(ImproperlyConfigured, match=f"an unknown option of Policy is '{option}'"):
            Settings(policy_options={option: 1})


@pytest.mark.parametrize(
    ("given_", "meant"),
    [
        ("CACHEMW_SECOND", "CACHEMW_SECONDS"),
        ("CACHEMW_MAXBODY", "CACHEMW_MAX_BODY"),
        ("CACHEMW_KEYPREFIX", "CACHEMW_KEY_PREFIX"),
        ("CACHEMW_URL_", "CACHEMW_URL"),
    ],
)
def test_a_misspelt_name_is_an_error_that_knows_better(given_: str, meant: str) -> None:
    with pytest.raises(ImproperlyConfigured, match=f"{given_} is not a setting; did you mean {meant}?"):
        Settings.from_environ({given_: "1"})
    with pytest.raises(ImproperlyConfigured, match="did you mean"):
        Settings.from_mapping({given_: "1"})


@pytest.mark.parametrize("name", ["CACHEMW_TIMEOUT", "CACHEMW_REDIS_URL", "CACHEMW_SECRET_KEY"])
def test_a_strange_name_of_ours_does_nothing_and_a_warning_says_so(name: str, caplog: pytest.LogCaptureFixture) -> None:
    settings_module._warn_of.cache_clear()
    with caplog.at_level(logging.WARNING, "cachemw"):
        for _ in range(3):  # it is read for every response that `patch_response_headers` is given
            assert Settings.from_environ({name: "60"}) == Settings()
    assert caplog.text.count(f"{name} is not a setting of cachemw") == 1


@pytest.mark.parametrize(
    ("name", "advice"),
    [
        ("CACHEMW_TIMEOUT", "did you mean CACHEMW_SECONDS?"),
        ("CACHEMW_REDIS_URL", "did you mean CACHEMW_URL?"),
        ("CACHEMW_ENABLED", "did you mean CACHEMW_URL=dummy://?"),
        ("CACHEMW_SECRET_KEY", "docs/settings.md lists all settings."),
    ],
)
def test_who_knows_other_caches_is_told_what_it_is_called_here(
    name: str, advice: str, caplog: pytest.LogCaptureFixture
) -> None:
    settings_module._warn_of.cache_clear()
    with caplog.at_level(logging.WARNING, "cachemw"):
        Settings.from_environ({name: "60"})
    with pytest.raises(ImproperlyConfigured) as caught:
        Settings.from_mapping({name: 60})
    assert caplog.messages == [f"{name} is not a setting of cachemw, and does nothing; {advice}"]
    assert str(caught.value) == f"{name}: not a setting of cachemw. Remove it; {advice}"


def test_one_store_in_the_place_of_the_stores_by_alias_is_told_apart() -> None:
    meant = re.escape('CACHES describes one store; did you mean {"default": {"BACKEND": …}}?')
    with pytest.raises(ImproperlyConfigured, match=f"^{meant}$"):
        Settings.from_mapping({"CACHES": {"BACKEND": "cachemw.backends.redis.RedisCache", "LOCATION": "redis://x"}})


def test_what_kubernetes_tells_of_a_service_of_our_name_is_no_news(caplog: pytest.LogCaptureFixture) -> None:
    names = (
        "SERVICE_HOST",
        "SERVICE_PORT_HTTP",
        "PORT",
        "PORT_80_TCP",
        "PORT_80_TCP_ADDR",
        "REDIS_PORT_6379_TCP_PROTO",
    )
    with caplog.at_level(logging.INFO, "cachemw"):
        assert Settings.from_environ({f"CACHEMW_{name}": "tcp://10.0.0.1:80" for name in names}) == Settings()
    assert caplog.text == ""


def test_a_misspelt_name_of_djangos_is_an_error_too() -> None:
    with pytest.raises(ImproperlyConfigured, match="CACHE_MIDDLEWARE_SECOND is not a setting; did you mean CACHE_MI"):
        Settings.from_mapping({"CACHE_MIDDLEWARE_SECOND": 60})
    assert Settings.from_mapping({"CACHE_MIDDLEWARE_ANONYMOUS_ONLY": True}) == Settings()  # Django's, and long gone


def test_in_a_mapping_a_strange_name_of_ours_is_an_error() -> None:
    """Whoever writes it there means this project."""
    with pytest.raises(ImproperlyConfigured, match=r"^CACHEMW_SOMETHING and CACHEMW_ANYTHING: not a setting"):
        Settings.from_mapping({"CACHEMW_SOMETHING": 1, "DEBUG": True, "CACHEMW_ANYTHING": 2})


# -- Policy's options ------------------------------------------------------------------------------------------------


def test_every_option_of_the_policy_can_be_given_as_text() -> None:
    for one in dataclasses.fields(Policy):
        if one.name in ("seconds", "django_rules"):
            continue
        value = getattr(Policy(), one.name)
        if isinstance(value, frozenset):
            text = ",".join(map(str, value))
        elif isinstance(value, tuple):
            text = ", ".join(value)
        else:
            text = str(value)
        settings = Settings.from_environ({f"CACHEMW_{one.name.upper()}": text})
        assert getattr(settings.policy(), one.name) == value, one.name
        assert Settings(policy_options={one.name: value}).policy() == Policy()


def test_an_option_may_be_none_where_the_policy_says_so() -> None:
    for text in ("", "none", "None"):
        assert Settings.from_environ({"CACHEMW_CACHE_STATUS": text}).policy().cache_status is None
    assert Settings.from_environ({"CACHEMW_CACHE_STATUS": "edge"}).policy().cache_status == "edge"
    assert Settings(policy_options={"cache_status": None}).policy().cache_status is None


@pytest.mark.parametrize("value", [5, {"200": 1}, None])
def test_statuses_are_numbers(value: Any) -> None:
    with pytest.raises(ImproperlyConfigured, match="statuses"):
        Settings(policy_options={"statuses": value})


def test_options_change_the_preset() -> None:
    settings = Settings.from_environ({"CACHEMW_POLICY": "django", "CACHEMW_CONDITIONS": "on"})
    assert settings.policy() == Policy.django(conditions=True)


# -- files -----------------------------------------------------------------------------------------------------------


def test_a_variable_may_name_a_file(tmp_path: Path) -> None:
    secret, url, other = tmp_path / "secret", tmp_path / "url", tmp_path / "other"
    secret.write_text("new secret\nold secret\n")
    url.write_text("redis://:password@host/0\r\n")
    other.write_text("dummy://")
    settings = Settings.from_environ(
        {"CACHEMW_SECRET_FILE": str(secret), "CACHEMW_URL_FILE": str(url), "CACHEMW_URL_OTHER_FILE": str(other)}
    )
    assert settings.secret == ("new secret", "old secret")
    assert settings.caches is not None
    assert settings.caches["default"]["LOCATION"] == "redis://:password@host/0"
    assert set(settings.caches) == {"default", "other"}


def test_a_file_that_cannot_be_read_is_named(tmp_path: Path) -> None:
    (tmp_path / "binary").write_bytes(b"\xff\xfe")
    for path in (tmp_path / "missing", tmp_path, tmp_path / "binary", "nul\x00"):
        with pytest.raises(ImproperlyConfigured, match=r"CACHEMW_SECRET_FILE is .*cannot be read"):
            Settings.from_environ({"CACHEMW_SECRET_FILE": str(path)})


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("SECONDS", "soon"),
        ("SECRET", ""),
        ("URL", "what://host"),
        ("URL_PAGES", ""),
        ("RULES", '[{"pth": 1}]'),
        ("GRACE", "\n"),
    ],
)
def test_a_wrong_value_in_a_file_names_the_file(tmp_path: Path, name: str, content: str) -> None:
    path = tmp_path / "value"
    path.write_text(content)
    with pytest.raises(ImproperlyConfigured, match=rf"^CACHEMW_{name}\b.* \(CACHEMW_{name}_FILE is '{path}'\)$"):
        Settings.from_environ({f"CACHEMW_{name}_FILE": str(path)})


def test_a_value_and_its_file_together_are_an_error(tmp_path: Path) -> None:
    with pytest.raises(ImproperlyConfigured, match="CACHEMW_SECRET and CACHEMW_SECRET_FILE are both given"):
        Settings.from_environ({"CACHEMW_SECRET": "a", "CACHEMW_SECRET_FILE": str(tmp_path)})


def test_what_editors_add_to_a_file_is_no_part_of_the_value(tmp_path: Path) -> None:
    for name, content in (("SECONDS", "60\r\n"), ("SECRET", "one\r\n \r\ntwo\r\n\r\n"), ("KEY_PREFIX", "shop\n")):
        (tmp_path / name).write_bytes(b"\xef\xbb\xbf" + content.encode())  # a byte order mark
    settings = Settings.from_environ({f"CACHEMW_{one.name}_FILE": str(one) for one in tmp_path.iterdir()})
    assert settings == Settings(seconds=60, secret=("one", "two"), key_prefix="shop")


def test_a_secret_ends_where_its_line_ends(tmp_path: Path) -> None:
    """Python sees the end of a line in more characters than a person does."""
    assert Settings(secret="a\x1cb\u2028c\x85d").secret == ("a\x1cb\u2028c\x85d",)


# -- what is said twice ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("environ", "both"),
    [
        ({"CACHEMW_GRACE": "1", "CACHEMW_POLICY_OPTIONS": '{"grace": 2}'}, "CACHEMW_GRACE and CACHEMW_POLICY_OPTIONS"),
        ({"CACHEMW_URL": "locmem://a", "CACHEMW_URL_DEFAULT": "locmem://b"}, "CACHEMW_URL and CACHEMW_URL_DEFAULT"),
        ({"CACHEMW_URL_A": "locmem://a", "CACHEMW_URL_a": "locmem://b"}, "CACHEMW_URL_A and CACHEMW_URL_a"),
    ],
)
def test_one_thing_by_two_names_is_an_error(environ: dict[str, str], both: str) -> None:
    with pytest.raises(ImproperlyConfigured, match=rf"{both}.* are both given; leave one out"):
        Settings.from_environ(environ)


# -- caches ----------------------------------------------------------------------------------------------------------


def test_an_alias_is_what_follows_the_name_in_lower_case() -> None:
    settings = Settings.from_environ({"CACHEMW_URL": "locmem://a", "CACHEMW_URL_TEMPLATE_FRAGMENTS": "locmem://b"})
    assert settings.caches is not None
    assert {alias: config["LOCATION"] for alias, config in settings.caches.items()} == {
        "default": "a",
        "template_fragments": "b",
    }


def test_caches_and_urls_together_are_an_error() -> None:
    with pytest.raises(ImproperlyConfigured, match="CACHES and CACHEMW_URL are both given"):
        Settings.from_mapping({"CACHES": {"default": "locmem://"}, "CACHEMW_URL": "locmem://"})


def test_a_bad_url_names_its_variable_and_no_password() -> None:
    for url in (
        "what://u:hidden@host",
        "u:hidden@host",
        "file://u:hidden@host/x",
        "dbcache://u:hidden@host",
        "redis://u:a?hidden@host:1/0",
    ):
        environ = {"CACHEMW_URL_PAGES": url}
        with pytest.raises(ImproperlyConfigured, match=r"^CACHEMW_URL_PAGES: Cache URL") as caught:
            Settings.from_environ(environ)
        assert "hidden" not in str(caught.value)
    with pytest.raises(ImproperlyConfigured, match=r"CACHEMW_URL is '…'"):
        Settings.from_mapping({"CACHEMW_URL": 5})


URLS: list[tuple[str, str, Any, dict[str, Any], dict[str, Any]]] = [
    ("locmem://", "locmem.LocMemCache", "", {}, {}),
    ("locmem://name", "locmem.LocMemCache", "name", {}, {}),
    ("locmemcache://a%20name?max_entries=5", "locmem.LocMemCache", "a name", {}, {"max_entries": "5"}),
    ("LOCMEM://?MAX_ENTRIES=5&max_bytes=none", "locmem.LocMemCache", "", {}, {"max_entries": "5", "max_bytes": None}),
    ("dummy://", "dummy.DummyCache", "", {}, {}),
    ("dummycache://", "dummy.DummyCache", "", {}, {}),
    ("file:///var/cache/a%20site", "filebased.FileBasedCache", "/var/cache/a site", {}, {}),
    ("filecache:///tmp/x?timeout=60", "filebased.FileBasedCache", "/tmp/x", {"TIMEOUT": "60"}, {}),
    (
        "redis://user:p%40ss@host:6379/0?timeout=300&key_prefix=site&version=2&socket_timeout=0.5",
        "redis.RedisCache",
        "redis://user:p%40ss@host:6379/0",
        {"TIMEOUT": "300", "KEY_PREFIX": "site", "VERSION": 2},
        {"socket_timeout": "0.5"},
    ),
    ("redis://h1,redis://h2", "redis.RedisCache", "redis://h1,redis://h2", {}, {}),
    ("rediss://host", "redis.RedisCache", "rediss://host", {}, {}),
    ("rediscache://host/1", "redis.RedisCache", "redis://host/1", {}, {}),
    ("redis-cache://host/1", "redis.RedisCache", "redis://host/1", {}, {}),
    ("hiredis://host", "redis.RedisCache", "redis://host", {}, {}),
    ("valkeys://host", "redis.RedisCache", "rediss://host", {}, {}),
    ("unix:///run/redis.sock?db=1", "redis.RedisCache", "unix:///run/redis.sock", {}, {"db": "1"}),
    ("redis+socket:///run/redis.sock", "redis.RedisCache", "unix:///run/redis.sock", {}, {}),
    ("redis+sentinel://h1:26379,h2/service", "redis.RedisCache", "redis+sentinel://h1:26379,h2/service", {}, {}),
    ("redis+cluster://h1,h2:7001", "redis.RedisCache", "redis+cluster://h1,h2:7001", {}, {}),
    ("memcached://h1:11211,h2:11212", "memcached.PyMemcacheCache", ["h1:11211", "h2:11212"], {}, {}),
    ("memcached://h1;h2/", "memcached.PyMemcacheCache", ["h1", "h2"], {}, {}),
    ("memcache://[::1]:11211,[::2]", "memcached.PyMemcacheCache", ["[::1]:11211", "[::2]"], {}, {}),
    ("pymemcache:///run/m%20c.sock", "memcached.PyMemcacheCache", ["unix:/run/m c.sock"], {}, {}),
    ("memcached://unix:/a,unix:/b", "memcached.PyMemcacheCache", ["unix:/a", "unix:/b"], {}, {}),
    (
        "memcached+pylibmc://user:p%40ss@h1?binary=1",
        "memcached.PyLibMCCache",
        ["h1"],
        {},
        {"binary": "1", "username": "user", "password": "p@ss"},
    ),
    ("pylibmc://h1", "memcached.PyLibMCCache", ["h1"], {}, {}),
    ("db+sqlite:////tmp/c.db?table=my+cache", "db.DatabaseCache", "sqlite:////tmp/c.db", {}, {"table": "my cache"}),
    (
        "db+postgresql+psycopg://u:p%40w@h/n?sslmode=require&max_entries=9&timeout=none",
        "db.DatabaseCache",
        "postgresql+psycopg://u:p%40w@h/n?sslmode=require",
        {"TIMEOUT": None},
        {"max_entries": "9"},
    ),
    ("dbcache://my_table?url=sqlite:///c.db", "db.DatabaseCache", "sqlite:///c.db", {}, {"table": "my_table"}),
    ("db://?url=sqlite:///c.db&table=t", "db.DatabaseCache", "sqlite:///c.db", {}, {"table": "t"}),
    ("locmem://?secret=a%26b&serializer=json", "locmem.LocMemCache", "", {"SECRET": "a&b", "SERIALIZER": "json"}, {}),
    (
        "locmem://?prefix=p&key_function=a.b.c",
        "locmem.LocMemCache",
        "",
        {"KEY_PREFIX": "p", "KEY_FUNCTION": "a.b.c"},
        {},
    ),
    ("locmem://?version=draft", "locmem.LocMemCache", "", {"VERSION": "draft"}, {}),
    (" locmem://x \n", "locmem.LocMemCache", "x", {}, {}),
]
OWN = [
    ("shop.stores.Cupboard://", "", {}, {}),
    ("shop.stores.Cupboard://top/left?timeout=5&shelves=3", "top/left", {"TIMEOUT": "5"}, {"shelves": "3"}),
    ("shop.stores.Cupboard://redis://u:p%40w@h:6379/0", "redis://u:p%40w@h:6379/0", {}, {}),
]


@pytest.mark.parametrize(("url", "backend", "location", "own", "options"), URLS, ids=[row[0] for row in URLS])
def test_a_url_is_one_entry_of_caches(url: str, backend: str, location: Any, own: Any, options: Any) -> None:
    assert cache_from_url(url) == {"BACKEND": BACKENDS + backend, "LOCATION": location, **own, "OPTIONS": options}


@pytest.mark.parametrize(("url", "location", "own", "options"), OWN, ids=[row[0] for row in OWN])
def test_a_scheme_may_be_the_path_of_a_class(url: str, location: str, own: Any, options: Any) -> None:
    config = {"BACKEND": "shop.stores.Cupboard", "LOCATION": location, **own, "OPTIONS": options}
    assert cache_from_url(url) == config
    shared = cache_from_url(f"tiered+{url}")["OPTIONS"]["shared"]
    assert shared == config


@pytest.mark.parametrize(
    ("name", "meant"), [("seconds", "CACHEMW_SECONDS"), ("caches", "CACHES"), ("preset", "CACHEMW_POLICY")]
)
def test_the_name_of_an_argument_is_no_key_of_a_mapping(name: str, meant: str) -> None:
    with pytest.raises(ImproperlyConfigured, match=f"^'{name}' is not a key of a mapping; did you mean '{meant}'"):
        Settings.from_mapping({name: 60})


def test_a_databases_own_options_are_told_from_sqlalchemys() -> None:
    names = DatabaseCache.option_names
    assert names is not None
    query = "&".join(f"{name}=1" for name in sorted(names | {"fail_open"}))
    config = cache_from_url(f"db+postgresql://h/n?{query}&sslmode=require")
    assert set(config["OPTIONS"]) == names | {"fail_open"}
    assert config["LOCATION"] == "postgresql://h/n?sslmode=require"


def test_a_tier_stands_before_any_store() -> None:
    config = cache_from_url("tiered+redis://host/0?timeout=60&key_prefix=a&local_timeout=2&socket_timeout=1")
    assert config["BACKEND"] == BACKENDS + "tiered.TieredCache"
    assert config["TIMEOUT"] == "60"
    assert config["KEY_PREFIX"] == "a"
    assert config["OPTIONS"]["local_timeout"] == "2"
    assert config["OPTIONS"]["shared"] == cache_from_url("redis://host/0?timeout=60&key_prefix=a&socket_timeout=1")


@pytest.mark.parametrize(
    ("url", "message"),
    [
        ("", "the URL is ''"),
        ("localhost:6379", "the URL is"),
        ("http://host", "the scheme is 'http'; allowed: locmem, file, db+postgresql"),
        ("uwsgicache://", "the scheme is 'uwsgicache'"),
        ("redsi://u:hidden@h", "the scheme is 'redsi'; did you mean 'redis'? Allowed: locmem"),
        ("postgresql://u:hidden@h/n", "the scheme is 'postgresql'; did you mean 'db+postgresql'? Allowed: locmem"),
        ("mysql+pymysql://u:hidden@h/n", "did you mean 'db+mysql+pymysql'?"),
        ("file://relative/path", "the directory is 'relative/path'; allowed: an absolute one"),
        ("file://", "the directory is ''"),
        ("memcached://", "the list of servers is"),
        ("memcached://user:hidden@", "the list of servers is"),
        ("dbcache://my_table", "the database is 'dbcache://my_table'"),
        ("locmem://?timeout=soon", "timeout is 'soon'; allowed: a number"),
        ("locmem://?timeout=1&timeout=2", "the parameter is 'timeout'; allowed: once"),
        ("locmem://?prefix=1&key_prefix=2", "the parameter is"),
        ("tiered+nothing://x", "the scheme is 'nothing'"),
        ("tiered+", "the URL is"),
        ("redis+what://u:hidden@h", "the scheme is 'redis+what'"),
        ("shop.my-store://u:hidden@h", "the scheme is 'shop.my-store'"),
        ("shop..Store://u:hidden@h", "the scheme is 'shop..store'"),
        (".Store://", "the scheme is '.store'"),
        (5, "the URL is 5; allowed: a string"),
        (None, "the URL is None; allowed: a string"),
    ],
)
def test_a_url_that_cannot_be_understood_is_one_clear_error(url: Any, message: str) -> None:
    with pytest.raises(ImproperlyConfigured) as caught:
        cache_from_url(url)
    assert message in str(caught.value)
    assert "hidden" not in str(caught.value)


@given(
    st.text(max_size=60)
    | st.builds("{}://{}?{}".format, st.sampled_from(["redis", "memcached", "db+x", "file"]), st.text(), st.text())
)
def test_any_text_is_a_store_or_one_clear_error(text: str) -> None:
    try:
        config = cache_from_url(text)
    except ImproperlyConfigured:
        return
    assert config["BACKEND"].startswith(BACKENDS) or config["BACKEND"] == text.strip().partition("://")[0]
    assert isinstance(config["OPTIONS"], dict)


# -- the lifetime of a page whose response says nothing ---------------------------------------------------------------


@pytest.mark.parametrize("seconds", [0, 599, 600, 601])
@pytest.mark.parametrize("preset", ["default", "django", "rfc9111"])
def test_what_is_said_for_the_site_comes_before_the_presets_lifetime(preset: Any, seconds: float) -> None:
    """Also where it happens to be what holds without it."""
    environ = {"CACHEMW_POLICY": preset, "CACHEMW_SECONDS": str(seconds)}
    for settings in (Settings(preset=preset, seconds=seconds), Settings.from_environ(environ)):
        assert Caching(settings=settings).seconds == settings.lifetime() == seconds


def test_what_is_not_said_is_the_policys_or_ten_minutes() -> None:
    assert Caching(settings=Settings()).seconds == 600
    assert Caching(settings=Settings(preset="rfc9111")).seconds == 0
    assert Caching(settings=Settings(), policy=Policy(seconds=5)).seconds == 5


def test_what_is_given_to_the_middleware_comes_first() -> None:
    settings = Settings(seconds=600, preset="rfc9111")
    assert Caching(settings=settings, policy=Policy(seconds=5)).seconds == 5
    assert Caching(settings=settings, policy=Policy()).seconds == 600
    assert Caching(settings=settings, policy=Policy(seconds=5), seconds=0).seconds == 0


def test_a_mapping_may_say_the_usual_lifetime_over_another_base() -> None:
    base = Settings.from_environ({"CACHEMW_SECONDS": "5"})
    assert Settings.from_mapping({"CACHE_MIDDLEWARE_SECONDS": 600}, base=base).lifetime() == 600
    assert Settings.from_mapping({}, base=base).lifetime() == 5
