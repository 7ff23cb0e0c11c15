"""Runs a page of the manual as a reader would: each block of code after the one before it, in one empty directory.

    python -m tests.manual docs/flask.md [PORT=OTHER …]

Blocks by the word after the fence:

    python   run, in one namespace for the page; with title="shop.py" it is written to that file, too, and imported
    pycon    a session with its answers, compared by doctest ("..." stands for anything)
    shell    each line run by bash: a server is started in the background and lives until the page ends, `make` and `pip
             install` are looked up instead of run
    json, nginx, text and so on: looked at by nobody here

The ports of the page (8000, 6379, …) become those of the test's own servers.
"""

from __future__ import annotations

import doctest
import os
import re
import shlex
import subprocess
import sys
import tempfile
import tomllib
import traceback
from collections.abc import Iterator, Mapping
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import Any, Final

from tests.servers import Server, accepts, start

__all__ = ["Block", "blocks", "main"]

ROOT: Final = Path(__file__).parent.parent
SERVERS: Final = frozenset({"granian", "gunicorn", "waitress-serve", "uvicorn", "hypercorn"})
RUN: Final = frozenset({"python", "pycon", "shell"})

_FENCE: Final = re.compile(r"^```(?P<kind>\w+)(?: title=\"(?P<title>[^\"]+)\")?\n(?P<text>.*?)^```$", re.M | re.S)


@dataclass(frozen=True)
class Block:
    """One fenced block: its kind, its text, the line of the page on which the text begins, and a file's name."""

    kind: str
    text: str
    line: int
    title: str | None


def blocks(page: Path) -> list[Block]:
    """The fenced blocks of a page, in order. Raises: ValueError for a fence that says not what it holds."""
    text = page.read_text()
    found = [
        Block(match["kind"], match["text"], text.count("\n", 0, match.start()) + 2, match["title"])
        for match in _FENCE.finditer(text)
    ]
    if len(found) * 2 != len(re.findall(r"^ *```", text, re.M)):
        raise ValueError(f"{page}: a fence is left open, indented, or does not say what it holds")
    return found


class Page:
    """A page under way."""

    def __init__(self, path: Path, ports: Mapping[str, str]) -> None:
        self.path = path
        self.ports = ports
        self.namespace: dict[str, Any] = {"__name__": path.stem}
        self.server: Server | None = None
        self.directory = Path.cwd()

    def run(self, block: Block) -> None:
        """Run one block. Raises: whatever it raises, and AssertionError where its answers are others."""
        text = re.sub(rf"\b({'|'.join(self.ports)})\b", lambda port: self.ports[port[0]], block.text)
        {"python": self._python, "pycon": self._session, "shell": self._shell}[block.kind](text, block)

    def _python(self, text: str, block: Block) -> None:
        code = compile("\n" * (block.line - 1) + text, str(self.path), "exec", dont_inherit=True)
        if block.title is None:
            exec(code, self.namespace)
            return
        (self.directory / block.title).write_text(text)
        if block.title.endswith(".py"):
            module = ModuleType(block.title.removesuffix(".py"))
            sys.modules[module.__name__] = module
            exec(code, module.__dict__)
            self.namespace |= {name: value for name, value in vars(module).items() if not name.startswith("__")}

    def _session(self, text: str, block: Block) -> None:
        test = doctest.DocTestParser().get_doctest(text, self.namespace, str(self.path), str(self.path), block.line - 1)
        test.globs = self.namespace
        flags = doctest.ELLIPSIS | doctest.NORMALIZE_WHITESPACE | doctest.IGNORE_EXCEPTION_DETAIL
        said: list[str] = []
        runner = doctest.DocTestRunner(optionflags=flags, verbose=False)
        runner.run(test, out=said.append, clear_globs=False)
        if runner.summarize(verbose=False).failed:
            raise AssertionError("".join(said))

    def _shell(self, text: str, block: Block) -> None:
        for command in _commands(text):
            words = [word for word in shlex.split(command, comments=True) if not re.match(r"[A-Z_]+=", word)]
            if not words:
                continue
            if words[0] == "make":
                assert re.search(rf"^{words[1]}:", (ROOT / "Makefile").read_text(), re.M), command
            elif words[:2] == ["pip", "install"]:
                _check_extras(words[2:])
            elif words[0] in SERVERS:
                self._serve(command)
            else:
                ran = subprocess.run(["bash", "-c", command], cwd=self.directory, capture_output=True, text=True)
                assert ran.returncode == 0, f"{command}\n{ran.stdout}{ran.stderr}"
                self.namespace["output"] = ran.stdout

    def _serve(self, command: str) -> None:
        self.end()
        port = int(self.ports["8000"])
        self.server = start(
            ["bash", "-c", f"exec env {command}"],
            port=port,
            ready=lambda server: accepts((server.host, port)),
            environ={"PYTHONPATH": f"{self.directory}:{ROOT}"},
            directory=self.directory,
        )

    def end(self) -> None:
        """End the server that the page has started."""
        if self.server is not None and self.server.process is not None:
            self.server.process.terminate()
            self.server.process.wait(10)
            self.server = None


def _commands(text: str) -> Iterator[str]:
    """The commands, each with the lines that continue it."""
    yield from (line for line in text.replace("\\\n", " ").splitlines() if line.strip())


def _check_extras(words: list[str]) -> None:
    """Every extra that the manual names is one that the project has."""
    known = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["optional-dependencies"]
    for word in words:
        for extra in re.findall(r"^\.\[(.*)\]$", word):
            assert set(extra.split(",")) <= set(known), word


def main(arguments: list[str]) -> int:
    """Run the page that is named first; 1 if a block fails."""
    page = Path(arguments[0]).resolve()
    ports = dict(one.split("=") for one in arguments[1:])
    os.environ["PATH"] = f"{Path(sys.executable).parent}:{os.environ['PATH']}"
    os.environ["PYTHONPATH"] = str(ROOT)
    with ExitStack() as stack:
        scratch = stack.enter_context(tempfile.TemporaryDirectory(prefix="cachemw-manual-"))
        os.chdir(scratch)
        stack.callback(os.chdir, "/")
        sys.path.insert(0, scratch)
        running = Page(page, ports)
        stack.callback(running.end)
        for block in blocks(page):
            if block.kind in RUN:
                try:
                    running.run(block)
                except BaseException:
                    print(f"{page}, line {block.line}:", file=sys.stderr)
                    traceback.print_exc()
                    return 1
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
