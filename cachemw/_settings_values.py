"""Reads the value of each setting, given as an argument or as a text.

Rule 1: a wrong value is an `ImproperlyConfigured` that begins with the given name of the setting, and shows no secret.
"""

from __future__ import annotations

import dataclasses
import json
import re
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Final
from zoneinfo import available_timezones

from cachemw._urls import cache_from_url
from cachemw._values import ReadOnly, members, number, refuse, shown, unknown
from cachemw.errors import ImproperlyConfigured
from cachemw.negotiation import LANGUAGE_TAG, tag_of
from cachemw.rfc9111.policy import Policy, read_option
from cachemw.rules import Rule, Rules

__all__ = [
    "POLICY_NAMES",
    "PREFIX",
    "PRESETS",
    "cache",
    "caches",
    "cookie",
    "language",
    "languages",
    "option",
    "options",
    "preset",
    "rules",
    "seconds",
    "secret",
    "word",
    "zone",
]

PREFIX: Final = "CACHEMW_"

#: The options of Policy by the names of their settings. `seconds` is a setting itself; `django_rules` is for a preset.
POLICY_NAMES: Final = {
    PREFIX + one.name.upper(): one.name
    for one in dataclasses.fields(Policy)
    if one.name not in ("seconds", "django_rules")
}

PRESETS: Final[dict[str, Callable[..., Policy]]] = {
    "default": Policy,
    "django": Policy.django,
    "rfc9111": Policy.rfc9111,
}


def seconds(name: str, value: Any) -> float:
    return number(name, value, minimum=0)


def word(name: str, value: Any) -> str:
    if not isinstance(value, str) or not value.strip():
        raise refuse(name, value, "a string that is not empty")
    return value.strip()


def cookie(name: str, value: Any) -> str:
    found = word(name, value)
    if not found.isprintable() or not set(found).isdisjoint(' ";,='):
        raise refuse(name, value, "the name of a cookie")
    return found


def preset(name: str, value: Any) -> str:
    if not isinstance(value, str) or value not in PRESETS:
        raise refuse(name, value, ", ".join(PRESETS))
    return value


def languages(name: str, value: Any) -> tuple[str, ...]:
    """Tags, or Django's pairs of tag and name."""
    if isinstance(value, list | tuple):
        value = list(map(tag_of, value))
    return tuple(language(name, one) for one in members(name, value))


def language(name: str, value: Any) -> str:
    tag = word(name, value)
    if not LANGUAGE_TAG.fullmatch(tag):
        raise refuse(name, value, "language tags such as en or pt-BR")
    return tag


def zone(name: str, value: Any) -> str:
    found = word(name, value)
    zones = available_timezones()
    if zones and found not in zones:  # without a database nothing is known; TimezoneMiddleware says what to install
        raise refuse(name, value, "a time zone such as UTC or Europe/Berlin")
    return found


def caches(name: str, value: Any) -> Mapping[str, Any] | None:
    if value is None:
        return None
    if not isinstance(value, Mapping) or not all(
        isinstance(alias, str) and isinstance(config, Mapping | str) for alias, config in value.items()
    ):
        raise refuse(name, "…", 'a mapping from alias to {"BACKEND": …, "LOCATION": …} or to a URL')
    if isinstance(value.get("BACKEND"), str):
        raise ImproperlyConfigured(f'{name} describes one store; did you mean {{"default": {{"BACKEND": …}}}}?')
    return ReadOnly(
        (alias, ReadOnly(cache(f"{name}[{alias!r}]", config) if isinstance(config, str) else config))
        for alias, config in value.items()
    )


def rules(name: str, value: Any) -> tuple[Rule, ...] | None:
    if value is None:
        return None
    value = _from_json(name, value)
    if isinstance(value, Mapping | str) or not isinstance(value, Sequence):
        raise refuse(name, value, "a list of rules, also as JSON")
    return tuple(Rules(value, source=name))


def _from_json(name: str, value: Any) -> Any:
    """The list or mapping in a text, which a variable of the environment has to be; other values as they are."""
    if not isinstance(value, str):
        return value
    try:
        return json.loads(value, object_pairs_hook=_once_each)
    except (ValueError, RecursionError) as error:
        raise ImproperlyConfigured(f"{name} is {shown(value)}, which is not JSON: {error}") from None


def _once_each(members: list[tuple[str, Any]]) -> dict[str, Any]:
    """A JSON object, in which no name stands twice: Python would drop the first value."""
    names = [name for name, _ in members]
    if twice := next((name for name in names if names.count(name) > 1), None):
        raise ValueError(f"{twice!r} stands there twice")
    return dict(members)


def secret(name: str, value: Any) -> tuple[str, ...] | None:
    """One secret or several; a text may have one in each line, as in a file."""
    if value is None:
        return None
    if isinstance(value, str):
        value = [line for line in re.split(r"\r?\n", value) if line.strip()]
    if isinstance(value, Sequence) and value and all(isinstance(one, str) and one.strip() for one in value):
        return tuple(value)
    raise refuse(name, "…", "a string that is not empty, or a list of such strings, the newest first")


def options(name: str, value: Any) -> Mapping[str, Any]:
    value = _from_json(name, value)
    if not isinstance(value, Mapping):
        raise refuse(name, value, "a mapping from the names of Policy's options to their values, also as JSON")
    return ReadOnly((given, option(f"{name}[{given!r}]", given, one)) for given, one in value.items())


def option(name: str, option: str, value: Any) -> Any:
    """One option of Policy, by its type."""
    if not isinstance(option, str) or PREFIX + option.upper() not in POLICY_NAMES:
        raise unknown("an unknown option of Policy", option, POLICY_NAMES.values())
    return read_option(name, option, value)


def cache(name: str, url: Any) -> dict[str, Any]:
    """The entry of CACHES that a URL describes."""
    if not isinstance(url, str):
        raise refuse(name, "…", "the URL of a store, as text")
    try:
        return cache_from_url(url)
    except ImproperlyConfigured as error:
        raise ImproperlyConfigured(f"{name}: {error}") from error
