"""Every command and every block of Python in the README and the manual is run, and what is generated is up to date."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path
from urllib.parse import unquote

import pytest

from docs.generate import PAGES
from tests.manual import blocks
from tests.servers import Server, free_port, memcached_command, redis_command, shared, start_memcached, start_redis
from tests.serving import ROOT

MANUAL = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]


def _redis() -> Server:
    """One for the manual alone: each page finds it empty."""
    return start_redis()


def _memcached() -> Server:
    return start_memcached()


#: Warnings about what others import: Starlette's test client, Pyramid's WebOb and its pkg_resources.
THEIRS = [
    *("-W", "ignore:Using `httpx` with"),
    *("-W", "ignore:'cgi' is deprecated"),
    *("-W", "ignore:pkg_resources is deprecated"),
    *("-W", "ignore:Deprecated call to `pkg_resources"),
]


@pytest.mark.flaky(reruns=1)  # under real servers, which are not this process's
@pytest.mark.parametrize("page", MANUAL, ids=lambda page: page.name)
def test_every_block_of_a_page_runs(page: Path) -> None:
    ports = {"8000": str(free_port())}
    text = page.read_text()
    if "6379" in text:
        redis_command(shared(_redis), "FLUSHALL")
        ports["6379"] = str(shared(_redis).port)
    if "11211" in text:
        memcached_command(shared(_memcached), b"flush_all")
        ports["11211"] = str(shared(_memcached).port)
    ran = subprocess.run(
        [
            *(sys.executable, "-W", "error", *THEIRS, "-m", "tests.manual", str(page)),
            *(f"{theirs}={ours}" for theirs, ours in ports.items()),
        ],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert ran.returncode == 0, ran.stdout + ran.stderr


@pytest.mark.parametrize("page", MANUAL, ids=lambda page: page.name)
def test_every_block_says_what_it_holds(page: Path) -> None:
    kinds = {block.kind for block in blocks(page)}
    assert kinds <= {"python", "pycon", "shell", "json", "nginx", "vcl", "text", "jinja", "html", "ini"}


@pytest.mark.parametrize("page", MANUAL, ids=lambda page: page.name)
def test_a_reader_sees_the_name_of_each_file(page: Path) -> None:
    """Where the page is rendered, what stands behind a fence's first word is not."""
    for block in blocks(page):
        assert block.title is None or block.text.startswith(f"# {block.title}\n"), block.title


@pytest.mark.parametrize("page", sorted(PAGES))
def test_what_is_generated_is_up_to_date(page: str) -> None:
    assert (ROOT / "docs" / page).read_text() == PAGES[page](), "python -m docs.generate"


@pytest.mark.parametrize("page", MANUAL, ids=lambda page: page.name)
def test_no_link_leads_nowhere(page: Path) -> None:
    for target in re.findall(r"\]\(([^)\s]+)\)", page.read_text()):
        path, _, anchor = target.partition("#")
        if "://" in path:
            continue
        to = page if not path else page.parent / unquote(path)
        assert to.exists(), target
        if anchor:
            headings = re.findall(r"^#+ (.*)$", to.read_text(), re.M)
            slugs = {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}
            assert anchor in slugs, target


def test_every_page_is_reached_from_the_index() -> None:
    index = (ROOT / "docs" / "index.md").read_text()
    assert all(f"]({page.name})" in index for page in MANUAL if page.name not in ("README.md", "index.md"))
