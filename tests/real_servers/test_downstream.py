"""nginx and Varnish in front of a site, configured as the manual says: what the fields tell them is what they do."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest

from tests.manual import blocks
from tests.servers import free_port, new_directory, require, start
from tests.serving import ROOT, serve

PAGE = {block.title or block.kind: block.text for block in blocks(ROOT / "docs" / "downstream.md")}


@pytest.fixture
def origin(tmp_path: Path) -> Iterator[int]:
    """The port of the manual's site."""
    (tmp_path / "site_app.py").write_text(PAGE["site_app.py"])
    with serve("gunicorn", "site_app:app", path=tmp_path) as server:
        yield server.port


def client(port: int) -> httpx.Client:
    return httpx.Client(base_url=f"http://127.0.0.1:{port}", timeout=10, trust_env=False)


@pytest.fixture
def nginx(origin: int) -> Iterator[httpx.Client]:
    """A visitor of the site, through nginx."""
    port, directory = free_port(), new_directory()
    config = (
        PAGE["nginx"].replace("127.0.0.1:8080", f"127.0.0.1:{port}").replace("127.0.0.1:8000", f"127.0.0.1:{origin}")
    )
    temporary = "".join(
        f"{kind}_temp_path {directory}/{kind};\n" for kind in ("client_body", "proxy", "fastcgi", "uwsgi", "scgi")
    )
    (directory / "nginx.conf").write_text(
        f"daemon off; master_process off; pid {directory}/pid; error_log stderr; events {{}}\n"
        f"http {{ access_log off; {temporary} {config} }}"
    )
    argv = [require("nginx"), "-p", str(directory), "-c", str(directory / "nginx.conf")]
    with start(argv, port=port, directory=directory), client(port) as visitor:
        yield visitor


@pytest.fixture
def varnish(origin: int) -> Iterator[httpx.Client]:
    """A visitor of the site, through Varnish."""
    port, directory = free_port(), new_directory()
    (directory / "site.vcl").write_text(PAGE["vcl"].replace('"8000"', f'"{origin}"'))
    argv = [
        *(require("varnishd"), "-F", "-j", "none", "-a", f"127.0.0.1:{port}", "-f", str(directory / "site.vcl")),
        *("-n", str(directory / "work"), "-s", "malloc,16m", "-p", "vcc_allow_inline_c=off"),
    ]
    with start(argv, port=port, directory=directory), client(port) as visitor:
        yield visitor


@pytest.fixture(params=["nginx", "varnish"])
def front(request: pytest.FixtureRequest) -> httpx.Client:
    """A visitor through either."""
    visitor = request.getfixturevalue(request.param)
    assert isinstance(visitor, httpx.Client)
    return visitor


def from_front(response: httpx.Response) -> bool:
    """Whether the cache in front answered by itself."""
    last = response.headers["cache-status"].split(", ")[-1]
    return last in ("nginx; hit", "varnish; hit")


@pytest.mark.parametrize("path", ["/minute", "/silent"])
def test_a_page_with_a_lifetime_is_kept_in_front(front: httpx.Client, path: str) -> None:
    first, second = front.get(path), front.get(path)
    assert (first.text, second.text) == ("number 1\n", "number 1\n")
    assert [from_front(first), from_front(second)] == [False, True]
    assert "cachemw; fwd=uri-miss" in second.headers["cache-status"]


def test_never_cache_is_obeyed_in_front(front: httpx.Client) -> None:
    answers = [front.get("/nowhere") for _ in range(3)]
    assert [answer.text for answer in answers] == ["number 1\n", "number 2\n", "number 3\n"]
    assert not any(map(from_front, answers))


def test_cdn_cache_control_keeps_a_page_here_and_not_in_front(front: httpx.Client) -> None:
    answers = [front.get("/here-alone") for _ in range(3)]
    assert {answer.text for answer in answers} == {"number 1\n"}
    assert not any(map(from_front, answers))
    assert "cachemw; hit" in answers[-1].headers["cache-status"]


def test_vary_makes_variants_in_front(front: httpx.Client) -> None:
    def ask(language: str) -> httpx.Response:
        return front.get("/language", headers={"Accept-Language": language})

    assert [ask(language).text for language in ("de", "en", "de", "en")] == ["de\n", "en\n", "de\n", "en\n"]
    assert from_front(ask("de"))
    assert from_front(ask("en"))


def test_varnish_counts_the_age_that_a_page_has_here(varnish: httpx.Client, origin: int) -> None:
    with client(origin) as at_origin:
        host = {"Host": "harbour.example"}
        at_origin.get("/minute", headers=host)
        age = int(at_origin.get("/minute", headers=host).headers["age"])
        assert int(varnish.get("/minute", headers=host).headers["age"]) >= age
    assert varnish.get("/minute", headers=host).text == "number 1\n"


def test_who_has_the_page_is_told_so_through_both_caches(front: httpx.Client) -> None:
    modified = front.get("/dated").headers["last-modified"]
    assert front.get("/dated", headers={"If-Modified-Since": modified}).status_code == 304
