"""The house: imports run one way, and each floor knows only what it may."""

from __future__ import annotations

import ast
import re
import tomllib
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent / "cachemw"

#: From the ground up. A module may import, at any place in its file, from its own floor and from those below it.
FLOORS = [
    ["errors", "_values", "_times", "_forks", "_threads", "_users", "calling"],
    ["rfc9111"],
    ["paths", "codec", "engine", "exchange", "hooks", "rules", "activation", "negotiation", "_urls"],
    ["settings"],
    ["backends"],
    ["flights", "pages", "caching", "headers"],
    ["_relay"],
    ["_relay_carriers"],
    ["locale", "wsgi", "asgi", "purging"],
    ["middleware"],
    ["views", "fragments", "memoize", "busting", "observing", "testing"],
    ["cli", "dashboard"],
    ["integrations"],
    ["autowrap", "__main__"],
]


#: Django has these two functions among its header helpers, and so have we; they are imported late.
EXCEPTIONS = {("cachemw.headers", "cachemw._views.keys")}


def imports(file: Path) -> set[str]:
    """The modules of cachemw that a file imports, wherever in it."""
    found: set[str] = set()
    for node in ast.walk(ast.parse(file.read_text())):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            found |= {node.module} | {f"{node.module}.{alias.name}" for alias in node.names}
    return {name for name in found if name.partition(".")[0] == "cachemw"}


def floor_of(module: str) -> int | None:
    parts = module.split(".")
    for number, names in enumerate(FLOORS):
        if len(parts) > 1 and any(parts[1] == name or parts[1].startswith(f"_{name}") for name in names):
            return number
    return None


FILES = sorted(ROOT.rglob("*.py"))
MODULES = {
    ".".join(("cachemw", *f.relative_to(ROOT).with_suffix("").parts)).removesuffix(".__init__"): f for f in FILES
}


@pytest.mark.parametrize("module", sorted(set(MODULES) - {"cachemw"}))
def test_imports_run_one_way(module: str) -> None:
    floor = floor_of(module)
    assert floor is not None, f"{module} has no floor in the house yet"
    for imported in imports(MODULES[module]):
        if any(module == above and imported.startswith(below) for above, below in EXCEPTIONS):
            continue
        other = floor_of(imported)
        assert other is None or other <= floor, f"{module} imports {imported}, which stands above it"


def _belongs_to(module: str, shell: str) -> bool:
    return module.split(".")[1] in {shell, f"_{shell}"}


@pytest.mark.parametrize("module", sorted(name for name in MODULES if "." in name))
def test_the_shells_never_import_each_other(module: str) -> None:
    for shell, other in (("wsgi", "asgi"), ("asgi", "wsgi")):
        if _belongs_to(module, shell):
            assert not [name for name in imports(MODULES[module]) if "." in name and _belongs_to(name, other)]


@pytest.mark.parametrize("module", sorted(name for name in MODULES if name.startswith("cachemw.backends")))
def test_stores_know_nothing_of_http(module: str) -> None:
    """But for settings and errors they stand alone; the tiered store holds decoded pages without looking into them."""
    allowed = ("errors", "settings", "backends", "codec", "_codec_", "_urls", "_values", "_forks", "_threads")
    others = {name.partition(".")[2] for name in imports(MODULES[module])} - {""}
    assert not [name for name in others if not name.startswith(allowed)]


STDLIB_ONLY = sorted(
    name
    for name in MODULES
    if name.startswith(("cachemw.rfc9111", "cachemw.exchange", "cachemw.engine", "cachemw._engine"))
)

#: Chance alone has a module, which hears of a fork, too: no two processes make the same tokens.
CHANCE = {"cachemw._engine_tokens": {"os", "random"}}


@pytest.mark.parametrize("module", STDLIB_ONLY)
def test_the_rules_are_pure(module: str) -> None:
    """No I/O, clock, logging or framework; `http_sf` is the one library, imported where a structured field is read."""
    import sys

    forbidden = {"time", "logging", "os", "io", "socket", "asyncio", "threading", "random", "secrets", "uuid"}
    forbidden -= CHANCE.get(module, set())
    for node in ast.walk(ast.parse(MODULES[module].read_text())):
        names: list[str] = []
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom) and node.module:
            names = [node.module]
            if node.module == "time" and {alias.name for alias in node.names} == {"gmtime"}:
                continue  # arithmetic, not a clock
        for name in names:
            top = name.partition(".")[0]
            assert top in {"cachemw", "http_sf"} or top in sys.stdlib_module_names, f"{module} imports {name}"
            assert top not in forbidden, f"{module} imports {name}"


@pytest.mark.parametrize("module", ["cachemw.wsgi", "cachemw.asgi"])
def test_frameworks_are_imported_only_where_a_person_is_handed_one(module: str) -> None:
    for node in ast.parse(MODULES[module].read_text()).body:
        if isinstance(node, ast.Import | ast.ImportFrom):
            names = [alias.name for alias in node.names] if isinstance(node, ast.Import) else [node.module or ""]
            assert not any(name.partition(".")[0] in {"werkzeug", "starlette"} for name in names)


def test_the_extra_all_is_all_that_a_site_may_need() -> None:
    project = tomllib.loads((ROOT.parent / "pyproject.toml").read_text())["project"]
    (requirement,) = (extras := project["optional-dependencies"]).pop("all")
    told = set(re.findall(r"\w+", requirement.partition("[")[2]))
    assert told | {"sql", "pylibmc"} == set(extras) - {"demo", "dev", "bench"}  # the one is within two others


def texts(file: Path) -> list[str]:
    """The strings of a file, as they are written in it; what an f-string computes is an `x`."""
    found: list[str] = []
    for node in ast.walk(ast.parse(file.read_text())):
        if isinstance(node, ast.JoinedStr):
            pieces = [piece.value if isinstance(piece, ast.Constant) else "x" for piece in node.values]
            found.append("".join(map(str, pieces)))
        elif isinstance(node, ast.Constant) and isinstance(node.value, str | bytes):
            found.append(node.value if isinstance(node.value, str) else node.value.decode("latin-1"))
    return found


@pytest.mark.parametrize("file", FILES, ids=lambda f: str(f.relative_to(ROOT)))
def test_no_pattern_repeats_a_group_possessively(file: Path) -> None:
    """Python before 3.11.5 would find what does not match: `foo="bar, private` would not be private (gh-106052)."""
    for text in texts(file):
        outline = re.sub(r"\\.|\[\^?\]?(?:\\.|[^\]\\])*\]", "x", text, flags=re.DOTALL)  # no escapes, no classes
        assert not re.search(r"(?<!\()\)(?:[*+?]|\{[0-9,]+\})\+|\(\?>", outline), text  # but in "()*+", an alphabet


@pytest.mark.parametrize("file", FILES, ids=lambda f: str(f.relative_to(ROOT)))
def test_files_stay_small_and_say_what_they_are(file: Path) -> None:
    text = file.read_text()
    assert ast.get_docstring(ast.parse(text)) or not text.strip(), "a file begins with its law"
    assert len(text.splitlines()) <= 700, "there are two files in this one"
