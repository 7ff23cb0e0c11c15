"""Writes the pages of the manual that are made from the code: `python -m docs.generate`. A test says when to."""

from __future__ import annotations

import dataclasses
import inspect
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from importlib import import_module
from pathlib import Path
from types import ModuleType
from typing import Any, Final

import click

import cachemw
from cachemw import CacheError, Policy, Settings
from cachemw.backends.base import BaseCache
from cachemw.cli import main as command_line

__all__ = ["PAGES", "main"]

_INTRO: Final = """\
# Settings

This page is generated from the code.

There are three ways to set each setting: an argument of `Settings`, a key of a mapping (Flask's `app.config`, or
Django's settings, whose own names work, too), and an environment variable. Code wins over the environment, the
environment over the default. In a mapping, a name that begins with `CACHEMW_` wins over Django's.

A value that cannot be used raises one `ImproperlyConfigured`, before the first request, which names the setting, the
value and what is allowed. So do a name that is almost one of these, and a setting that is given twice. Any other
variable that begins with `CACHEMW_` does nothing, and the log says so.

```python
from cachemw import Policy, Settings

in_code = Settings(seconds=60, key_prefix="shop", policy_options={"grace": 10})
in_a_mapping = Settings.from_mapping(
    {"CACHE_MIDDLEWARE_SECONDS": 60, "CACHE_MIDDLEWARE_KEY_PREFIX": "shop", "CACHEMW_GRACE": 10}
)
in_the_environment = Settings.from_environ(
    {"CACHEMW_SECONDS": "60", "CACHEMW_KEY_PREFIX": "shop", "CACHEMW_GRACE": "10"}
)

assert in_code == in_a_mapping == in_the_environment
assert in_code.policy() == Policy(grace=10)
```

The middlewares read the environment by themselves. Settings from elsewhere are their argument `settings`, as in
`CacheMiddleware(app, settings=in_code)`; Flask's extension reads `app.config`.

The value of any variable may be in a file instead, as containers get their secrets: `CACHEMW_SECRET_FILE` and
`CACHEMW_URL_FILE` name the file. Separate the members of a list by commas; `none` is an empty list. For yes, write `1`,
`true`, `yes` or `on`; for no, `0`, `false`, `no` or `off`.

## The cache and its keys
"""

_STORES: Final = """\

`CACHEMW_URL` is the URL of the store `default`, `CACHEMW_URL_<ALIAS>` that of another one; see
[Choose a store](stores.md).

## What is stored, and for how long

A `Policy` says what to do where the rules of HTTP leave a choice. Its options are arguments of `Policy(…)` and items of
`policy_options`. Each of them but `django_rules` is also an environment variable and a key of a mapping: `CACHEMW_` and
its name in upper case, such as `CACHEMW_STALE_IF_ERROR`. In code, a policy is the argument `policy` of a middleware or
an extension: `CacheMiddleware(app, policy=Policy(stale_if_error=3600))`.

Start from one of three policies: `Policy()`; `Policy.django()`, which does as Django 5.2 does; `Policy.rfc9111()`, a
strict general-purpose shared cache. `CACHEMW_POLICY` chooses one by `default`, `django` or `rfc9111`. Times are in
seconds, sizes in bytes. A § without an RFC is a section of RFC 9111.
"""


def settings_page() -> str:
    """Every setting and every option of a policy, with its default and what it means."""
    return _INTRO + _table(_SETTINGS_HEAD, _settings_rows()) + _STORES + "".join(_policy_tables()) + _lists()


_SETTINGS_HEAD: Final = ("Environment, or Django", "`Settings(…)`", "Default", "Meaning")


def _settings_rows() -> Iterator[Sequence[str]]:
    for one in dataclasses.fields(Settings):
        names = sorted(one.metadata["names"], key=lambda name: not name.startswith("CACHEMW_"))
        default = one.default if one.default_factory is dataclasses.MISSING else one.default_factory()
        unit = f", in {one.metadata['unit']}" if one.metadata["unit"] else ""
        yield (
            "<br>".join(f"`{name}`" for name in names),
            f"`{one.name}`",
            _value(default),
            re.sub(r"CACHEMW_\w*<\w+>", r"`\g<0>`", one.metadata["doc"]) + unit,
        )


def _policy_tables() -> Iterator[str]:
    default, django, rfc9111 = Policy(), Policy.django(), Policy.rfc9111()
    rows: list[Sequence[str]] = []
    for one in dataclasses.fields(Policy):
        if section := one.metadata["section"]:
            if rows:
                yield _table(_POLICY_HEAD, rows)
                rows = []
            yield f"\n### {section}\n"
        values = [getattr(policy, one.name) for policy in (default, django, rfc9111)]
        others = ["" if value == values[0] else _value(value) or "none" for value in values[1:]]
        rows.append((f"`{one.name}`", _value(values[0]), *others, one.metadata["doc"]))
    yield _table(_POLICY_HEAD, rows)


_POLICY_HEAD: Final = ("Option", "Default", "`django()`", "`rfc9111()`", "Meaning")


def _lists() -> str:
    """The two defaults that are too long for a table."""
    policy = Policy()
    cookies = ", ".join(f"`{name}`" for name in policy.session_cookies)
    fields = ", ".join(f"`{name}`" for name in policy.keyed_fields)
    return f"""
## Session cookies

The cookies that mean a session. `session_cookies` replaces this list; with a "+" in front, as in
`CACHEMW_SESSION_COOKIES="+basket, membership"`, it adds to the list, which is what most sites need.
"*" at the end of a name matches any ending, at its start any beginning: {cookies}.

## Keyed fields

The fields that are part of the key whenever a request has one. `keyed_fields` replaces this list, or adds to it, like
`session_cookies`. By the first of them a request may override its host, scheme, path or method; by the next, a script
asks for a part of a page, or from another site; by the others, the request or a proxy says who the user is: {fields}.
"""


def _value(value: Any) -> str:
    if value is None or value == "" or value == () or value == {}:
        return ""
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, frozenset):
        return ", ".join(str(one) for one in sorted(value))
    if isinstance(value, tuple):
        return ", ".join(f"`{one}`" for one in value) if len(value) < 5 else "see below"
    return f"{value:g}" if isinstance(value, float) else str(value)


def _table(head: Sequence[str], rows: Iterator[Sequence[str]] | list[Sequence[str]]) -> str:
    lines = [head, ["---"] * len(head), *rows]
    return "\n" + "".join(f"| {' | '.join(cell.replace('|', chr(92) + '|') for cell in line)} |\n" for line in lines)


_REFERENCE: Final = """\
# Reference

This page is generated from the code: every public name, in one sentence. `help(name)` in Python says the rest:
arguments, units, errors. For the URLs of stores, see [Choose a store](stores.md).
"""

#: Modules with public names, and the stores.
_MODULES: Final = ("flask", "starlette", "fastapi", "django")
_PARTS: Final = ("observing", "dashboard", "fragments", "memoize", "busting", "testing")
_STORES_OF: Final = {
    "locmem": "LocMemCache",
    "filebased": "FileBasedCache",
    "db": "DatabaseCache",
    "redis": "RedisCache",
    "memcached": "PyMemcacheCache PyLibMCCache",
    "tiered": "TieredCache",
    "dummy": "DummyCache",
}


def reference_page() -> str:
    """Every public name, the options of the stores, the errors and the commands."""
    told = {id(getattr(cachemw, name)) for name in cachemw.__all__}
    text = _REFERENCE + "\n## `cachemw`\n" + _table(("Name", ""), _names(cachemw, set()))
    for name in (*(f"integrations.{one}" for one in _MODULES), *_PARTS):
        module = import_module(f"cachemw.{name}")
        text += f"\n## `cachemw.{name}`\n" + _table(("Name", ""), _names(module, told))
    text += "\n## Errors\n" + _table(("Error", "is also", "when"), _errors())
    return text + "\n## Options of the stores\n" + "".join(_store_sections()) + "\n## Commands\n" + _commands()


def _names(module: ModuleType, told: set[int]) -> Iterator[Sequence[str]]:
    for name in sorted(module.__all__, key=str.lower):
        one = getattr(module, name)
        if not (isinstance(one, type) and issubclass(one, Exception)) and id(one) not in told:
            yield f"`{name}`", _INSTANCES.get(name) or _sentence(one)


#: What `help` tells of as of its class.
_INSTANCES: Final = {"cache": "The store `default` of this process.", "caches": "The stores of this process, by alias."}


def _sentence(one: Any) -> str:
    return (inspect.getdoc(one) or "").partition("\n\n")[0].replace("\n", " ")


def _errors() -> Iterator[Sequence[str]]:
    errors = [getattr(cachemw, name) for name in cachemw.__all__]
    for one in errors:
        if isinstance(one, type) and issubclass(one, Exception):
            bases = [base.__name__ for base in one.__bases__ if one is not CacheError]
            yield f"`{one.__name__}`", ", ".join(f"`{base}`" for base in bases), _sentence(one)


def _store_sections() -> Iterator[str]:
    yield f"\nOf every store:\n\n```text\n{inspect.getdoc(BaseCache)}\n```\n"
    for module, names in _STORES_OF.items():
        for name in names.split():
            kind = getattr(import_module(f"cachemw.backends.{module}"), name)
            options = ", ".join(f"`{option}`" for option in sorted(kind.option_names or ()))
            yield f"\n### `cachemw.backends.{module}.{name}`\n\n"
            yield f"{options}\n\n" if options else ""
            yield "```text\n" + "\n\n".join(_option_texts(kind)) + "\n```\n"


def _option_texts(kind: type[BaseCache]) -> Iterator[str]:
    """What the store's class says, and what a base class of several stores says of their options."""
    yield inspect.getdoc(kind) or ""
    for base in kind.__mro__[1:]:
        if base is not BaseCache and "OPTIONS" in (base.__doc__ or ""):
            yield inspect.getdoc(base) or ""


def _commands() -> str:
    return _table(("Command", ""), _command_rows(command_line, "cachemw"))


def _command_rows(group: click.Group, path: str) -> Iterator[Sequence[str]]:
    for name, command in group.commands.items():
        if isinstance(command, click.Group):
            yield from _command_rows(command, f"{path} {name}")
            continue
        text = " ".join((command.help or "").split())
        options = [one for one in command.params if isinstance(one, click.Option)]
        yield f"`{path} {name}`", " ".join([text, *(f"`{one.opts[0]}`: {one.help}" for one in options)])


PAGES: Final[Mapping[str, Callable[[], str]]] = {"settings.md": settings_page, "reference.md": reference_page}


def main() -> None:
    """Write them."""
    for name, make in PAGES.items():
        (Path(__file__).parent / name).write_text(make())


if __name__ == "__main__":
    main()
