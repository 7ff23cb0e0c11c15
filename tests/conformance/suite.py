"""The suite: the npm package `http-cache-tests` (cache-tests.fyi), installed outside the repository and run headless.

The package is one edition behind the suite's repository; what the newer one adds is in test_newer_suite.py.
"""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final, Literal

__all__ = ["VERSION", "Outcome", "Test", "catalogue", "install", "judge", "origin", "results", "start", "start_alone"]

VERSION: Final = "0.4.5"

#: Runs the tests named in the environment, five at a time.
_ALONE: Final = """
import fetch from 'node-fetch'
import { runTests, getResults } from './client/runner.mjs'
import suites from './tests/index.mjs'
const wanted = new Set(process.env.TESTS.split(' '))
const chosen = suites.map(suite => ({ tests: suite.tests.filter(test => wanted.has(test.id)) }))
runTests(chosen, fetch, false, process.env.BASE, 5).then(() => console.log(JSON.stringify(getResults())))
"""

Outcome = Literal["pass", "fail", "setup", "dependency", "untested"]

#: Prints every test that runs against a shared cache, with its kind and what it depends on.
_CATALOGUE: Final = """
import suites from './tests/index.mjs'
const tests = []
for (const suite of suites) {
  for (const test of suite.tests) {
    if (test.browser_only === true) continue
    tests.push({ id: test.id, suite: suite.id, kind: test.kind || 'required', depends_on: test.depends_on || [] })
  }
}
console.log(JSON.stringify(tests))
"""


@dataclass(frozen=True, kw_only=True, slots=True)
class Test:
    """One test of the suite. `kind` is "required", "optimal" or "check" (of which neither answer is wrong)."""

    id: str
    suite: str
    kind: Literal["required", "optimal", "check"]
    depends_on: tuple[str, ...] = field(default=())


def install(folder: Path | None = None) -> Path:
    """The package's own folder; fetched by npm on first use into the user's cache folder."""
    if folder is None:
        caches = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
        folder = caches / "cachemw" / f"http-cache-tests-{VERSION}"
    package = folder / "node_modules" / "http-cache-tests"
    if (package / "cli.mjs").is_file():
        return package
    if shutil.which("npm") is None or shutil.which("node") is None:
        raise SystemExit("The conformance run needs node and npm (Debian: apt-get install nodejs npm).")
    folder.mkdir(parents=True, exist_ok=True)
    options = ["--ignore-scripts", "--no-audit", "--no-fund", "--silent", "--prefix", str(folder)]
    subprocess.run(["npm", "install", *options, f"http-cache-tests@{VERSION}"], check=True, timeout=300)
    return package


def catalogue(package: Path) -> tuple[Test, ...]:
    """Every test that applies to a shared cache, in the suite's order.

    Without those of Surrogate-Control, which is no standard; the suite's own index leaves them out, too.
    """
    command = ["node", "--no-warnings", "--input-type=module", "--eval", _CATALOGUE]
    answer = subprocess.run(command, cwd=package, check=True, capture_output=True, text=True, timeout=60)
    return tuple(Test(**test | {"depends_on": tuple(test["depends_on"])}) for test in json.loads(answer.stdout))


def _environment(**options: str) -> dict[str, str]:
    """The suite reads npm's own variables; it needs `id` to be there and empty to run everything."""
    environment = dict(os.environ, npm_package_config_id="")
    for name, value in options.items():
        environment[f"npm_config_{name}"] = value
    environment.setdefault("npm_config_id", "")
    return environment


@contextmanager
def origin(package: Path) -> Iterator[int]:
    """The suite's own origin server; yields its port on 127.0.0.1."""
    with tempfile.TemporaryDirectory() as folder:
        process = subprocess.Popen(
            ["node", "--no-warnings", "server/server.mjs"],
            cwd=package,
            env=_environment(protocol="http", port="0", pidfile=str(Path(folder) / "server.pid")),
            stdout=subprocess.PIPE,
            text=True,
        )
        try:
            assert process.stdout is not None
            # the server's remarks on requests that it did not expect must not fill the pipe: they are few
            listening = re.search(r":(\d+)/", process.stdout.readline())
            if listening is None:
                raise RuntimeError("The suite's origin server did not start.")
            yield int(listening[1])
        finally:
            process.terminate()
            process.communicate(timeout=10)


def start(package: Path, port: int, *, only: str = "") -> subprocess.Popen[str]:
    """The suite's client against 127.0.0.1:`port`; `only` is one test's id, whose exchange is then shown."""
    return subprocess.Popen(
        ["node", "--no-warnings", "cli.mjs"],
        cwd=package,
        env=_environment(base=f"http://127.0.0.1:{port}", id=only),
        stdout=subprocess.PIPE,
        text=True,
    )


def start_alone(package: Path, port: int, names: list[str]) -> subprocess.Popen[str]:
    """The suite's client for these tests only, few at a time."""
    return subprocess.Popen(
        ["node", "--no-warnings", "--input-type=module", "--eval", _ALONE],
        cwd=package,
        env=os.environ | {"TESTS": " ".join(names), "BASE": f"http://127.0.0.1:{port}"},
        stdout=subprocess.PIPE,
        text=True,
    )


def results(process: subprocess.Popen[str], *, timeout: float = 180) -> dict[str, Any]:
    """What the client found: `True`, or the kind of failure and its message, by test id. Bounded by `timeout` s."""
    try:
        output, _ = process.communicate(timeout=timeout)
    except subprocess.TimeoutExpired:
        process.kill()
        process.communicate()
        raise
    found: dict[str, Any] = json.loads(output[output.index("{") :])
    return found


def judge(tests: tuple[Test, ...], found: Mapping[str, Any]) -> dict[str, Outcome]:
    """One word per test, as cache-tests.fyi counts: a test whose dependency failed says nothing."""
    by_id = {test.id: test for test in tests}
    judged: dict[str, Outcome] = {}

    def outcome(test: Test) -> Outcome:
        if test.id not in judged:
            judged[test.id] = _outcome(test)
        return judged[test.id]

    def _outcome(test: Test) -> Outcome:
        result = found.get(test.id)
        if result is None:
            return "untested"
        if any(outcome(by_id[name]) != "pass" for name in test.depends_on):
            return "dependency"
        if result is True:
            return "pass"
        return "setup" if result[0] == "Setup" else "fail"

    for test in tests:
        outcome(test)
    return judged
