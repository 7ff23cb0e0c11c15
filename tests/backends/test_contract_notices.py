"""The contract of all stores notices what is wrong with one: it is for authors of stores to rely on."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from xml.etree import ElementTree

import pytest

from tests.backends import flawed_stores
from tests.backends.flawed_stores import FLAWS
from tests.serving import ROOT

Outcomes = Mapping[tuple[str, str], str]


@pytest.fixture(scope="module")
def outcomes(tmp_path_factory: pytest.TempPathFactory) -> Outcomes:
    """How each test ended on each store, by their names: what went wrong, or nothing."""
    report = tmp_path_factory.mktemp("contract") / "report.xml"
    path, told = Path(flawed_stores.__file__), sorted(set(FLAWS.values()))
    wanted = [f"{path}::Test{flaw.__name__}::{test}" for flaw, test in FLAWS.items()]
    wanted += [f"{path}::{kind}::{test}" for kind in ("TestSound", "TestOneThatSaysWhatItCannotDo") for test in told]
    wanted.append(f"{path}::TestWithoutAStore::test_none_is_a_value")
    options = ("-q", "-p", "no:cacheprovider", "--noconftest", f"--junitxml={report}")
    ran = subprocess.run([sys.executable, "-m", "pytest", *options, *wanted], cwd=ROOT, timeout=120, check=False)
    assert ran.returncode == pytest.ExitCode.TESTS_FAILED
    found: dict[tuple[str, str], str] = {}
    for case in ElementTree.parse(report).iter("testcase"):
        kind, test = case.attrib["classname"].rpartition(".")[2], case.attrib["name"].partition("[")[0]
        found[kind, test] = found.get((kind, test), "") + "".join(end.text or "" for end in case)
    return found


@pytest.mark.parametrize(("flaw", "test"), FLAWS.items(), ids=[flaw.__name__ for flaw in FLAWS])
def test_a_mistake_is_noticed(outcomes: Outcomes, flaw: type, test: str) -> None:
    assert outcomes[f"Test{flaw.__name__}", test]


@pytest.mark.parametrize("kind", ["TestSound", "TestOneThatSaysWhatItCannotDo"])
def test_where_there_is_none_none_is_noticed(outcomes: Outcomes, kind: str) -> None:
    told = {test: how for (one, test), how in outcomes.items() if one == kind}
    assert told == dict.fromkeys(FLAWS.values(), "")


def test_an_error_in_a_process_of_its_own_is_shown(outcomes: Outcomes) -> None:
    shown = outcomes["TestHasAConnectionFromBeforeTheFork", "test_processes_share_a_store"]
    assert "the connection is another process's" in shown


def test_who_names_no_store_is_told_how(outcomes: Outcomes) -> None:
    assert "a fixture `make_cache`" in outcomes["TestWithoutAStore", "test_none_is_a_value"]
