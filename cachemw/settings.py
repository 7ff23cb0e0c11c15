"""Settings: everything that can be set, in one frozen value; from arguments, a mapping, or the environment.

Rule 1: a wrong value is one `ImproperlyConfigured` with the name as it was given, the value, and what is allowed.
Rule 2: only `from_environ` reads the environment, and only when the caller asks for it.

The documentation of each setting is in the `metadata` of `dataclasses.fields(Settings)`: `doc`, `unit`, and `names`,
its keys in a mapping (the first one is its variable in the environment, too).
"""

from __future__ import annotations

import dataclasses
import difflib
import itertools
import logging
import os
import re
from collections.abc import Callable, Mapping, Sequence
from collections.abc import Set as AbstractSet
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, Literal, Self

from cachemw import _settings_values as readers
from cachemw._values import ReadOnly, boolean, text
from cachemw.errors import ImproperlyConfigured
from cachemw.rfc9111.policy import Policy
from cachemw.rfc9111.policy_options import PolicyOptions
from cachemw.rules import Rule

__all__ = ["Settings"]

_log = logging.getLogger("cachemw")

_SECONDS: Final = 600.0  # Django's
_MAPPINGS: Final = frozenset({"policy_options", "caches"})
_PREFIX: Final = readers.PREFIX
_DJANGO: Final = "CACHE_MIDDLEWARE_"

#: Names that users of other caches may write, and what they mean here.
_MEANT: Final = {
    **dict.fromkeys(("CACHEMW_DEFAULT_TIMEOUT", "CACHEMW_TIMEOUT", "CACHEMW_TTL"), "CACHEMW_SECONDS"),
    **dict.fromkeys(("CACHEMW_BACKEND", "CACHEMW_LOCATION", "CACHEMW_REDIS_URL", "CACHEMW_STORE"), "CACHEMW_URL"),
    **dict.fromkeys(("CACHEMW_DISABLED", "CACHEMW_ENABLED"), "CACHEMW_URL=dummy://"),
    "CACHEMW_PREFIX": "CACHEMW_KEY_PREFIX",
}

#: Reads one value, given its name for errors.
Reader = Callable[[str, Any], Any]


def _setting(doc: str, read: Reader, *names: str, unit: str = "", **how: Any) -> Any:
    return field(metadata={"doc": doc, "unit": unit, "names": names, "read": read}, **how)


@dataclass(frozen=True, kw_only=True)
class Settings:
    """The settings of the middlewares and the caches. Every argument may be left out.

        settings = Settings(seconds=60, key_prefix="shop", caches={"default": "redis://localhost:6379/0"})
        app = CacheMiddleware(app, settings=settings)

    The meaning, the unit and the other names of each argument: docs/settings.md, and the `metadata` of
    `dataclasses.fields(Settings)`.

    Raises: ImproperlyConfigured for a wrong value.
    """

    seconds: float | None = _setting(
        "how long a page is fresh if its response does not say, in seconds; left out: as the policy says, else 600",
        readers.seconds, "CACHEMW_SECONDS", "CACHE_MIDDLEWARE_SECONDS", default=None,
    )  # fmt: skip
    key_prefix: str = _setting(
        "part of every page's key; separates sites that share a store", text,
        "CACHEMW_KEY_PREFIX", "CACHE_MIDDLEWARE_KEY_PREFIX", default="",
    )  # fmt: skip
    alias: str = _setting(
        "the alias of the store for pages", readers.word, "CACHEMW_ALIAS", "CACHE_MIDDLEWARE_ALIAS", default="default"
    )
    use_i18n: bool = _setting(
        "pages differ by the active language (Django: on)", boolean, "CACHEMW_USE_I18N", "USE_I18N", default=False
    )
    use_tz: bool = _setting(
        "pages differ by the active time zone (Django: on)", boolean, "CACHEMW_USE_TZ", "USE_TZ", default=False
    )
    languages: tuple[str, ...] = _setting(
        "the site's languages, as tags (Django: pairs of tag and name)", readers.languages,
        "CACHEMW_LANGUAGES", "LANGUAGES", default=(),
    )  # fmt: skip
    language_code: str | None = _setting(
        "the language of visitors who ask for none of them; left out: the first", readers.language,
        "CACHEMW_LANGUAGE_CODE", "LANGUAGE_CODE", default=None,
    )  # fmt: skip
    language_cookie: str = _setting(
        "the cookie that chooses a language (Django's)", readers.cookie,
        "CACHEMW_LANGUAGE_COOKIE", "LANGUAGE_COOKIE_NAME", default="django_language",
    )  # fmt: skip
    time_zone: str = _setting(
        "the time zone if none is chosen", readers.zone, "CACHEMW_TIME_ZONE", "TIME_ZONE", default="UTC"
    )
    clock_skew: float = _setting(
        "how far apart the clocks of machines that share a store may be", readers.seconds,
        "CACHEMW_CLOCK_SKEW", unit="seconds", default=1.0,
    )  # fmt: skip
    preset: Literal["default", "django", "rfc9111"] = _setting(
        "the Policy to start from: `default`, `django` or `rfc9111`", readers.preset,
        "CACHEMW_POLICY", default="default",
    )  # fmt: skip
    policy_options: Mapping[str, Any] = _setting(
        "options of Policy that differ from the preset; each is also a variable CACHEMW_<NAME>", readers.options,
        "CACHEMW_POLICY_OPTIONS", default_factory=ReadOnly,
    )  # fmt: skip
    rules: tuple[Rule, ...] | None = _setting(
        "the table of rules: `Rule` values, mappings, or JSON", readers.rules, "CACHEMW_RULES", default=None
    )
    caches: Mapping[str, Any] | None = _setting(
        "the stores by alias, as in Django's CACHES or as URLs; left out: the process-wide `cachemw.caches`, which"
        " reads CACHEMW_URL and CACHEMW_URL_<ALIAS>", readers.caches, "CACHES", default=None, repr=False,
    )  # fmt: skip
    secret: tuple[str, ...] | None = _setting(
        "authenticates what every store holds that has no SECRET of its own; several secrets: one a line, the newest"
        " first",
        readers.secret, "CACHEMW_SECRET", default=None, repr=False,
    )  # fmt: skip

    if TYPE_CHECKING:

        def __init__(
            self,
            *,
            seconds: float | None = None,
            key_prefix: str = "",
            alias: str = "default",
            use_i18n: bool = False,
            use_tz: bool = False,
            languages: Sequence[str | tuple[str, Any]] | AbstractSet[str] = (),
            language_code: str | None = None,
            language_cookie: str = "django_language",
            time_zone: str = "UTC",
            clock_skew: float = 1.0,
            preset: Literal["default", "django", "rfc9111"] = "default",
            policy_options: PolicyOptions | Mapping[str, Any] = ...,
            rules: Sequence[Rule | Mapping[str, Any]] | str | None = None,
            caches: Mapping[str, Mapping[str, Any] | str] | None = None,
            secret: str | Sequence[str] | None = None,
        ) -> None: ...

    def __post_init__(self) -> None:
        for one in dataclasses.fields(self):
            value = getattr(self, one.name)
            if value is not one.default:
                object.__setattr__(self, one.name, one.metadata["read"](one.name, value))

    def __hash__(self) -> int:
        """The hash of all but `caches`, whose OPTIONS may hold values without a hash."""
        values = [getattr(self, one.name) for one in dataclasses.fields(self) if one.name not in _MAPPINGS]
        return hash((*values, frozenset(self.policy_options.items())))

    def policy(self) -> Policy:
        """The policy that `preset` and `policy_options` describe."""
        return readers.PRESETS[self.preset](**self.policy_options)

    def lifetime(self, policy: Policy | None = None) -> float:
        """How long a page is fresh if its response does not say, in seconds: the first that is set, else 600.

        With a `policy`: its `seconds`, then those of these settings. Without: those of these settings, then those of
        their own policy.
        """
        said = self.policy().seconds if policy is None else policy.seconds
        chosen = (self.seconds, said) if policy is None else (said, self.seconds)
        return next((seconds for seconds in chosen if seconds is not None), _SECONDS)

    @classmethod
    def from_mapping(cls, mapping: Mapping[str, Any], *, base: Self | None = None) -> Self:
        """The settings in a mapping: Django's settings, Flask's `app.config`, or the like. Other keys are ignored.

            Settings.from_mapping(app.config, base=Settings.from_environ())

        base: the settings for everything that the mapping leaves out; None: the defaults.

        Raises: ImproperlyConfigured for a wrong value, and for a key that is almost the name of a setting.
        """
        values = _known(mapping)
        if unknown := _strange(mapping):
            raise ImproperlyConfigured(
                f"{' and '.join(unknown)}: not a setting of cachemw. Remove it; {_advice(unknown[0])}"
            )
        if base is None:
            return cls(**values)
        if "policy_options" in values:
            values["policy_options"] = {**base.policy_options, **values["policy_options"]}
        return dataclasses.replace(base, **values)

    @classmethod
    def from_environ(cls, environ: Mapping[str, str] | None = None) -> Self:
        """The settings in the environment: CACHEMW_<NAME>, or CACHEMW_<NAME>_FILE with the path of a file.

        environ: a mapping in place of the environment; None: the environment of the process. `caches` is then None: the
        process-wide `cachemw.caches` reads the URLs of stores by itself.

        Raises: ImproperlyConfigured for a wrong value, and for a name that is almost the name of a setting.
        """
        given = os.environ if environ is None else environ
        mapping = _with_files({name: given[name] for name in given if name.startswith(_PREFIX)})
        try:
            settings = cls(**_known(mapping))
        except ImproperlyConfigured as error:
            file = re.split(r"\W", str(error), maxsplit=1)[0] + "_FILE"  # each begins with the setting's name
            if file not in given:
                raise
            raise ImproperlyConfigured(f"{error} ({file} is {given[file]!r})") from error
        for name in _strange(mapping):  # no error: what is in an environment may be somebody else's
            if not _KUBERNETES.fullmatch(name):
                _warn_of(name)
        return dataclasses.replace(settings, caches=None) if environ is None else settings


_OPTIONS: Final = _PREFIX + "POLICY_OPTIONS"
_URL: Final = _PREFIX + "URL"
#: Variables that Kubernetes sets in each container for a service "cachemw", or "cachemw-redis".
_KUBERNETES: Final = re.compile(r"CACHEMW_(\w+_)?(SERVICE_HOST|SERVICE_PORT(_\w+)?|PORT(_\d+_[A-Z]+(_[A-Z]+)?)?)")
_AUTOWRAP: Final = frozenset({_PREFIX + "APP", _PREFIX + "METRICS"})  # for that module: no settings, but no mistakes


@cache
def _warn_of(name: str) -> None:
    """Warn once for each name: the environment is read by every middleware, and by some functions at each call."""
    _log.warning("%s is not a setting of cachemw, and does nothing; %s", name, _advice(name))


def _advice(name: str) -> str:
    return f"did you mean {_MEANT[name]}?" if name in _MEANT else "docs/settings.md lists all settings."


def _known(mapping: Mapping[str, Any]) -> dict[str, Any]:
    """The values of the fields that are in a mapping."""
    values: dict[str, Any] = {}
    for one in dataclasses.fields(Settings):
        name = next((name for name in one.metadata["names"] if name in mapping), None)
        if name is not None:
            values[one.name] = one.metadata["read"](name, mapping[name])
    options = {
        option: readers.option(name, option, mapping[name])
        for name, option in readers.POLICY_NAMES.items()
        if name in mapping
    }
    if options:
        together = values.get("policy_options", {})
        if twice := next((option for option in options if option in together), None):
            raise _both(f"{_PREFIX}{twice.upper()}", f"{_OPTIONS}[{twice!r}]")
        values["policy_options"] = {**together, **options}
    if urls := _urls(mapping):
        if values.get("caches") is not None:
            raise _both("CACHES", next(iter(urls.values()))[0])
        values["caches"] = {alias: readers.cache(name, url) for alias, (name, url) in urls.items()}
    return values


def _both(one: str, other: str) -> ImproperlyConfigured:
    """The error for a setting that is given by two names; the caller raises it."""
    return ImproperlyConfigured(f"{one} and {other} are both given; leave one out")


def _urls(mapping: Mapping[str, Any]) -> dict[str, tuple[str, Any]]:
    """By alias: the name of the setting, and the URL."""
    urls: dict[str, tuple[str, Any]] = {}
    for name in mapping:
        if (alias := _alias_of(name)) is not None:
            if alias in urls:
                raise _both(urls[alias][0], name)
            urls[alias] = name, mapping[name]
    return urls


def _alias_of(name: Any) -> str | None:
    """The alias, in lower case, of CACHEMW_URL_<ALIAS>; "default" of CACHEMW_URL; None of other names."""
    if name == _URL:
        return "default"
    if not isinstance(name, str) or not name.startswith(_URL + "_"):
        return None
    return name[len(_URL) + 1 :].lower() or None


def _strange(mapping: Mapping[str, Any]) -> list[str]:
    """The unknown names with our prefix. Raises: ImproperlyConfigured for one that is nearly a known name."""
    names = {one.name: one.metadata["names"] for one in dataclasses.fields(Settings)}
    for name in mapping:
        if name in names:  # an argument of `Settings`: as a key it would have no effect
            raise ImproperlyConfigured(f"{name!r} is not a key of a mapping; did you mean {names[name][0]!r}?")
    known = {_URL, *_AUTOWRAP, *readers.POLICY_NAMES, *itertools.chain.from_iterable(names.values())}
    strange = [
        name
        for name in mapping
        if isinstance(name, str)
        and name.startswith((_PREFIX, _DJANGO))
        and name not in known
        and _alias_of(name) is None
    ]
    for name in strange:
        if near := difflib.get_close_matches(name, known, n=1, cutoff=0.88):
            raise ImproperlyConfigured(f"{name} is not a setting; did you mean {near[0]}?")
    return [name for name in strange if name.startswith(_PREFIX)]


def _with_files(environ: Mapping[str, str]) -> dict[str, str]:
    """The environment, with the contents of the files that <NAME>_FILE variables name, without the last line end."""
    values = dict(environ)
    for name in environ:
        if not name.endswith("_FILE"):
            continue
        target = name.removesuffix("_FILE")
        if target in environ:
            raise _both(target, name)
        del values[name]
        try:
            values[target] = Path(environ[name]).read_text(encoding="utf-8-sig").rstrip("\r\n")
        except (OSError, ValueError) as error:
            raise ImproperlyConfigured(f"{name} is {environ[name]!r}, which cannot be read: {error}") from error
    return values
