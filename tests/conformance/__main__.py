"""`python -m tests.conformance`: the suite against both policies on both interfaces, compared with expected.toml.

Exit status 1 if any test's outcome differs from the table, in either direction. `--show ID` runs one test and prints
its exchange; `--policy none` runs against the gateway alone.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tomllib
from collections import Counter
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from itertools import product
from pathlib import Path
from typing import Any, Final

from tests.conformance.serve import POLICIES
from tests.conformance.suite import (
    VERSION,
    Outcome,
    Test,
    catalogue,
    install,
    judge,
    origin,
    results,
    start,
    start_alone,
)

__all__ = ["Expected", "differences", "read_expected", "summary"]

INTERFACES: Final = ("wsgi", "asgi")
TABLE: Final = Path(__file__).with_name("expected.toml")

_AGAIN: Final = 20  # tests that are run once more; where more than these differ, it is not the machine

Configuration = tuple[str, str]  # policy, interface
Expected = dict[tuple[str, str, str], Outcome]  # by policy, interface, test; "pass" where absent


def read_expected(text: str) -> Expected:
    """The committed table: who deviates from "pass", where, and why. Every deviation needs a reason."""
    expected: Expected = {}
    for group in tomllib.loads(text)["deviation"]:
        if not group["reason"].strip():
            raise ValueError(f"a deviation without its reason: {group['tests']}")
        for policy, interface, name in product(
            group.get("policies", POLICIES), group.get("interfaces", INTERFACES), group["tests"]
        ):
            if (policy, interface, name) in expected:
                raise ValueError(f"two deviations for {name} ({policy}, {interface})")
            expected[policy, interface, name] = group["outcome"]
    return expected


def differences(
    expected: Expected, configuration: Configuration, judged: Mapping[str, Outcome]
) -> list[tuple[str, Outcome, Outcome]]:
    """(test, expected outcome, outcome) wherever the two are not the same; a test that is gone differs too."""
    found = [
        (name, expected.get((*configuration, name), "pass"), outcome)
        for name, outcome in judged.items()
        if expected.get((*configuration, name), "pass") != outcome
    ]
    gone: list[tuple[str, Outcome, Outcome]] = [
        (name, outcome, "untested")
        for (policy, interface, name), outcome in expected.items()
        if (policy, interface) == configuration and name not in judged
    ]
    return found + gone


def summary(tests: tuple[Test, ...], judged: Mapping[str, Outcome]) -> str:
    """ "required 157/157, optimal 86/86, checks 43 yes of 86"."""
    totals = Counter(test.kind for test in tests)
    passed = Counter(test.kind for test in tests if judged[test.id] == "pass")
    return (
        f"required {passed['required']:3}/{totals['required']}   optimal {passed['optimal']:3}/{totals['optimal']}   "
        f"checks {passed['check']:3} yes of {totals['check']}"
    )


@contextmanager
def served(interface: str, policy: str, origin_port: int) -> Iterator[int]:
    """A real server with the gateway behind the cache; yields its port."""
    process = subprocess.Popen(
        [sys.executable, "-m", "tests.conformance.serve", interface, policy, str(origin_port)],
        stdout=subprocess.PIPE,
        text=True,
    )
    try:
        assert process.stdout is not None
        line = process.stdout.readline()
        if not line:
            raise SystemExit(f"The {interface} server with the policy {policy!r} did not start.")
        yield int(line)
    finally:
        process.terminate()
        process.communicate(timeout=10)


def measure(
    package: Path, configurations: list[Configuration], tests: tuple[Test, ...], expected: Expected
) -> dict[Configuration, tuple[dict[str, Outcome], dict[str, Any]]]:
    """Outcomes and raw results of every configuration.

    The suite has lifetimes of two seconds, which a busy machine lets pass between two requests. So configurations run
    one after the other, and what differs from the table is asked once more, without a hundred other tests beside it.
    """
    measured = {}
    for policy, interface in configurations:
        with origin(package) as origin_port, served(interface, policy, origin_port) as port:
            found = results(start(package, port))
            judged = judge(tests, found)
            if unexpected := [name for name, *_ in differences(expected, (policy, interface), judged) if name in found]:
                found |= results(start_alone(package, port, unexpected[:_AGAIN]))
                judged = judge(tests, found)
        measured[policy, interface] = judged, found
    return measured


def show(package: Path, policy: str, interface: str, name: str) -> None:
    with origin(package) as origin_port, served(interface, policy, origin_port) as port:
        print(start(package, port, only=name).communicate(timeout=60)[0])


def main(argv: list[str]) -> int:
    options = argparse.ArgumentParser(prog="python -m tests.conformance", description=__doc__)
    options.add_argument("--policy", action="append", choices=[*POLICIES, "none"], help="default: both")
    options.add_argument("--interface", action="append", choices=INTERFACES, help="default: both")
    options.add_argument("--show", metavar="ID", help="run one test and print what was sent and received")
    options.add_argument("--json", type=Path, help="write every outcome and message to this file")
    given = options.parse_args(argv)
    configurations = list(product(given.policy or POLICIES, given.interface or INTERFACES))
    package = install()
    if given.show:
        for policy, interface in configurations:
            show(package, policy, interface, given.show)
        return 0
    tests = catalogue(package)
    expected = read_expected(TABLE.read_text())
    measured = measure(package, configurations, tests, expected)
    print(f"http-cache-tests {VERSION}: {len(tests)} tests")
    wrong = 0
    for configuration, (judged, _) in measured.items():
        print(f"  {configuration[0]:8} {configuration[1]:5} {summary(tests, judged)}")
    for configuration, (judged, found) in measured.items():
        for name, wanted, outcome in differences(expected, configuration, judged):
            wrong += 1
            message = found.get(name)
            detail = f": {message[1]}" if isinstance(message, list) else ""
            print(f"DIFFERS {'/'.join(configuration)} {name}: expected {wanted}, was {outcome}{detail}")
    if given.json:
        rows = {
            "/".join(configuration): {name: [outcome, found.get(name)] for name, outcome in judged.items()}
            for configuration, (judged, found) in measured.items()
        }
        given.json.write_text(json.dumps(rows, indent=1))
    print("as expected" if not wrong else f"{wrong} differences from {TABLE.name}")
    return bool(wrong)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
