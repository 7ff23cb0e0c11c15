"""What `import cachemw` brings, and what it leaves for later."""

from __future__ import annotations

import subprocess
import sys
import warnings

import pytest

import cachemw
from cachemw import busting, errors


@pytest.mark.parametrize("name", cachemw.__all__)
def test_every_public_name_is_there_and_listed(name: str) -> None:
    assert getattr(cachemw, name) is not None
    assert name in dir(cachemw)


@pytest.mark.parametrize("name", errors.__all__)
def test_every_error_can_be_caught_by_a_public_name(name: str) -> None:
    assert getattr(cachemw, name) is getattr(errors, name)


def test_a_warning_can_be_filtered_by_a_public_name() -> None:
    with warnings.catch_warnings(record=True) as seen:
        warnings.simplefilter("always")
        warnings.filterwarnings("ignore", category=cachemw.StaticVersionWarning)
        warnings.warn("a time stamp", busting.StaticVersionWarning, stacklevel=1)
    assert seen == []


def test_what_reads_static_files_is_imported_when_it_is_asked_for() -> None:
    done = run(
        "-c",
        "import cachemw, sys\n"
        "print([name for name in sys.modules if 'busting' in name])\n"
        "print(cachemw.static_url.__module__, cachemw.busting.__name__)\n"
        "from cachemw import *\n"
        "print(StaticFolder.__name__)",
    )
    assert done.stdout.split("\n") == ["[]", "cachemw.busting cachemw.busting", "StaticFolder", ""], done.stderr


def test_the_module_can_be_had_as_an_attribute_too() -> None:
    done = run("-c", "import cachemw; print(cachemw.busting.version_flask.__name__)")
    assert done.stdout == "version_flask\n", done.stderr


@pytest.mark.parametrize(
    "package",
    ["flask", "starlette", "werkzeug", "jinja2", "redis", "sqlalchemy", "django", "prometheus_client", "opentelemetry"],
)
def test_no_framework_and_no_client_is_imported_before_it_is_needed(package: str) -> None:
    done = run("-c", f"import cachemw, sys; print({package!r} in sys.modules)")
    assert done.stdout == "False\n", done.stderr


def test_what_there_is_not_is_an_attribute_error() -> None:
    with pytest.raises(AttributeError, match="module 'cachemw' has no attribute 'CacheMiddlewear'"):
        _ = cachemw.CacheMiddlewear  # type: ignore[attr-defined]


def run(*arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run([sys.executable, *arguments], capture_output=True, text=True, timeout=60)
