"""What type checkers, `help` and editors know of the public names: the right is let pass, each mistake is found."""

from __future__ import annotations

import ast
import dataclasses
import inspect
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

import cachemw
from cachemw import CacheMiddleware, Policy, Rule, Settings, asgi, locale, wsgi
from cachemw.caching import Caching, Options
from cachemw.middleware import LocaleOptions, TimezoneOptions
from cachemw.rfc9111.policy_options import PolicyOptions

HERE = Path(__file__).parent

#: Each line is a mistake.
WRONG = """
CacheMiddleware(wsgi_app, secondz=3)
CacheMiddleware(asgi_app, secondz=3)
CacheMiddleware(wsgi_app, seconds="60")
CacheMiddleware(asgi_app, policy="rfc9111")
CacheMiddleware("not an application")
UpdateCacheMiddleware(wsgi_app, cache=3)
FetchFromCacheMiddleware(asgi_app, hooks=print)
LocaleMiddleware(wsgi_app, language=["de"])
TimezoneMiddleware(asgi_app, default=0)
wsgi.CacheMiddleware(wsgi_app, cache=3)
asgi.CacheMiddleware(asgi_app, policy="x")
Policy(statuses=200)
Policy.django(conditionz=True)
Policy.rfc9111(grace="long")
Rule("/x", never="no")
Rule("/x", method="GET")
Settings(secondz=60)
Settings(languages=3)
Settings(preset="varnish")
page_failures("default")
purge("http://localhost/", caching="default")
view("one")
price("one")
price(1, 2)
price.invalidate("one")
Shop().price("one")
Shop.price(1)
Shop.below("one")
Shop().above("one")
Shop.plain("one")
Shop().plainer("one")
sidebar(1)
cache_page("sixty")
cached("sixty")
cache_control(max_aeg=5)
patch_cache_control([], max_age="five")
connect(5)
cachemw.cache_pages(60)
cachemw.fragments.fragmet("sidebar")
"""


@pytest.mark.parametrize(
    "command",
    [["mypy", "--strict", "--follow-imports=silent"], ["pyright", "--pythonpath", sys.executable]],
    ids=["mypy", "pyright"],
)
def test_the_right_is_let_pass_and_each_mistake_is_found(command: list[str], tmp_path: Path) -> None:
    right, wrong = HERE / "right.py", tmp_path / "wrong.py"
    text = right.read_text()
    wrong.write_text(text + WRONG)
    done = subprocess.run(
        [sys.executable, "-m", *command, str(right), str(wrong)],
        cwd=HERE.parents[1],
        capture_output=True,
        text=True,
        timeout=300,
    )
    said = done.stdout + done.stderr
    assert "right.py" not in said, said
    found = {int(line) for line in re.findall(r"wrong\.py:(\d+):.*error", said)}
    first = text.count("\n") + 2
    assert found == set(range(first, first + len(WRONG.split("\n")) - 2)), said


def test_the_right_has_every_public_name() -> None:
    used = {one.id for one in ast.walk(ast.parse((HERE / "right.py").read_text())) if isinstance(one, ast.Name)}
    errors = {name for name in cachemw.__all__ if isinstance(getattr(cachemw, name), type) and _is_raised(name)}
    assert set(cachemw.__all__) - used == errors


def _is_raised(name: str) -> bool:
    return issubclass(getattr(cachemw, name), Exception)


# -- what is written twice, once for the checkers --------------------------------------------------------------------


@pytest.mark.parametrize(
    ("written", "meant"),
    [
        (Options, Caching),
        (Options, wsgi.CacheMiddleware),
        (Options, asgi.FetchFromCacheMiddleware),
        (PolicyOptions, Policy),
        (LocaleOptions, locale.WSGILocaleMiddleware),
        (LocaleOptions, locale.ASGILocaleMiddleware),
        (TimezoneOptions, locale.WSGITimezoneMiddleware),
        (TimezoneOptions, locale.ASGITimezoneMiddleware),
    ],
)
def test_the_options_are_those_of_the_class(written: Any, meant: Any) -> None:
    assert set(written.__annotations__) == set(inspect.signature(meant).parameters) - {"app"}


@pytest.mark.parametrize("kind", [Rule, Settings])
def test_the_arguments_for_the_checkers_are_those_of_the_class(kind: type) -> None:
    source = ast.parse(inspect.getsource(inspect.getmodule(kind) or pytest))
    (init,) = [
        one
        for defined in source.body
        if isinstance(defined, ast.ClassDef) and defined.name == kind.__name__
        for block in defined.body
        if isinstance(block, ast.If)
        for one in block.body
        if isinstance(one, ast.FunctionDef)
    ]
    written = [argument.arg for argument in (*init.args.args, *init.args.kwonlyargs)]
    fields: Any = dataclasses.fields(kind)
    assert written == ["self", *(one.name for one in fields if one.init)]


# -- what `help` and editors show ------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["CacheMiddleware", "UpdateCacheMiddleware", "FetchFromCacheMiddleware"])
def test_the_middlewares_show_their_options(name: str) -> None:
    shown = inspect.signature(getattr(cachemw, name))
    assert list(shown.parameters) == ["app", *Options.__annotations__]
    assert all(one.default is None for one in shown.parameters.values() if one.name != "app")


def test_the_middlewares_between_the_halves_show_theirs() -> None:
    assert list(inspect.signature(cachemw.LocaleMiddleware).parameters) == ["app", *LocaleOptions.__annotations__]
    assert list(inspect.signature(cachemw.TimezoneMiddleware).parameters) == ["app", *TimezoneOptions.__annotations__]


@pytest.mark.parametrize("preset", [Policy.django, Policy.rfc9111])
def test_the_presets_show_their_options_with_their_own_defaults(preset: Any) -> None:
    shown = inspect.signature(preset).parameters
    assert {name: one.default for name, one in shown.items()} == dataclasses.asdict(preset())


def test_an_option_that_there_is_not_is_an_error_when_the_middleware_is_made() -> None:
    wrong: Any = {"secondz": 3}
    with pytest.raises(TypeError, match="secondz"):
        CacheMiddleware(lambda environ, start_response: [], **wrong)
    with pytest.raises(TypeError, match="secondz"):
        Policy.django(**wrong)


# -- what the wider types admit works --------------------------------------------------------------------------------


def test_whatever_holds_several_is_taken() -> None:
    assert Policy(statuses=range(200, 202)).statuses == {200, 201}
    assert Policy(ignore_query={"b": 1, "a": 1}.keys()).ignore_query == ("a", "b")
    assert Policy(statuses={200: "OK"}.keys()).statuses == {200}
    assert Rule("/x", methods="get", statuses=404).methods == ("GET",)


@pytest.mark.parametrize("statuses", [b"200", 200, {200: "OK"}, iter([200])])
def test_statuses_that_are_none_are_refused(statuses: Any) -> None:
    with pytest.raises(cachemw.ImproperlyConfigured, match="statuses"):
        Policy(statuses=statuses)
