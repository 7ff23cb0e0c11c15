"""`cachemw static build`: hashed names, rewritten references, a manifest, compressed twins."""

from __future__ import annotations

import builtins
import gzip
import hashlib
import importlib
import json
import os
import re
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result

from cachemw import ImproperlyConfigured
from cachemw._busting.references import references
from cachemw.busting import Built, StaticFolder, build
from cachemw.cli import main
from tests.servers import require

HASHED = re.compile(r"\.[0-9a-f]{12}(?=\.|$)")


def version(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()[:12]


class Folder:
    """A source folder, its build, and the build's files by their names before."""

    def __init__(self, path: Path) -> None:
        self.source = path / "src"
        self.out = path / "out"
        self.source.mkdir()
        self.built = Built(files={}, problems=[])

    def write(self, **files: str | bytes) -> None:
        for name, content in files.items():
            self.put(name.replace("__", "/").replace("_", "."), content)

    def put(self, name: str, content: str | bytes) -> Path:
        path = self.source / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content.encode() if isinstance(content, str) else content)
        return path

    def build(self, **options: Any) -> dict[str, str]:
        self.built = build([self.source], self.out, **{"compress": (), **options})
        return dict(self.built.files)

    def plain(self, name: str) -> str:
        """The hashed file of this name, its references without their hashes."""
        return HASHED.sub("", (self.out / self.built.files[name]).read_text())

    def text(self, name: str) -> str:
        return (self.out / self.built.files[name]).read_text()


@pytest.fixture
def folder(tmp_path: Path) -> Folder:
    return Folder(tmp_path)


def found(name: str, content: str) -> list[str]:
    return [reference.url for reference in references(name, content.encode())]


# -- what is a reference --------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "urls"),
    [
        ("a { background: url(a.png) }", ["a.png"]),
        ("a { background: URL( 'a.png' ), Url(\n\"b.png\"\n) }", ["a.png", "b.png"]),
        ("a { background: url(a.png?x#y) }", ["a.png?x#y"]),
        (r"a { background: url(a\ b\28 1\29.png), url('it\'s.png') }", ["a b(1).png", "it's.png"]),
        (r"a { background: url('a\
b.png'), url('\0\110000\d800 x') }", ["ab.png", "���x"]),
        ("@import 'a.css'; @import \"b.css\" screen; @import url(c.css) layer(x);", ["a.css", "b.css", "c.css"]),
        ("@import/**/url( 'd.css' ) supports(display: grid);@IMPORT 'e.css';", ["d.css", "e.css"]),
        ("a { background: image-set('a.png' 1x, url(b.png) 2x type('image/png')) }", ["a.png", "b.png"]),
        ("a { b: -webkit-image-set(url('a.png') 1x) } @font-face { src: url(f.x) format('woff') }", ["a.png", "f.x"]),
        ("a { src: src('a.png') } a { background: url() , url('') }", ["a.png", ""]),
        ("/* url(a.png) @import 'b.css' */ a { content: 'url(c.png)' } /* open url(d.png)", []),
        ("a[href='url(x)'] { content: \"@import 'a'\" } @charset 'utf-8'; @namespace svg url(http://w3.org/x);", []),
        ("@namespace 'x'; a { b: url(c) }", ["c"]),
        ("a { b: myurl(x), my-url('y'), éurl(z) }", []),
        ("a { b: url(data:image/svg+xml;utf8,<svg xmlns='x'>) url(b.png) }", ["b.png"]),
        ("a { content: 'not closed\n} b { c: url(d.png) }", ["d.png"]),
        ("a { b: image-set( } c { content: 'no' } ) d { e: url(f", []),
        ("@media (min-width: 1px) { a { b: url(c.png) } } @layer x { & > a { --y: url(z.png) } }", ["c.png", "z.png"]),
        ("a{b:url(c.png)}/*# sourceMappingURL=old.map */\n/*# sourceMappingURL=a.css.map */", ["c.png", "a.css.map"]),
    ],
)  # fmt: skip
def test_what_a_stylesheet_refers_to(text: str, urls: list[str]) -> None:
    assert found("a.css", text) == urls


@pytest.mark.parametrize(
    ("text", "urls"),
    [
        ("import './a.js'; import b from './b.js'; import * as c from \"./c.js\"", ["./a.js", "./b.js", "./c.js"]),
        ("import d, { e as f } from './d.js'; export * from './e.js'", ["./d.js", "./e.js"]),
        ("export { g } from './f.js'; export * as h from './g.js'; export { i }", ["./f.js", "./g.js"]),
        ("await import('./a.js'); import(/* why */ `./b.js`)", ["./a.js", "./b.js"]),
        ("import(// why\n'./a.js', { with: {} }); import(x, './b.js')", ["./a.js"]),
        ("import j from './j.json' with { type: 'json' }; export default import('./k.js')", ["./j.json", "./k.js"]),
        ("import{a}from'./a.js';import'./b.js';export*from'./c.js'", ["./a.js", "./b.js", "./c.js"]),
        ("import(name); import(`./${name}.js`); import('./a' + '.js'); import('\\u002e/a.js')", []),
        ("// import './a.js'\n/* import './b.js' */ const s = 'import \"./c.js\"', t = `import './d.js'`", []),
        ("const r = /import '.\\/a.js'/; if (x) /'/.test(y); z = a / b / import('./c.js') / d", ["./c.js"]),
        ("`${import('./a.js')} import('./b.js')`", ["./a.js"]),
        ("import.meta.url; x.import('./a.js'); const y = { import: './b.js' }", []),
        ("console.log(1)\n//# sourceMappingURL=old.map\n//# sourceMappingURL=a.js.map\n", ["a.js.map"]),
        ("export const a = 1; const s = '//# sourceMappingURL=no.map'", []),
        ("import './a.js'; syntax error ]] {", ["./a.js"]),
    ],
)  # fmt: skip
@pytest.mark.parametrize("name", ["a.js", "a.mjs"])
def test_what_a_script_refers_to(name: str, text: str, urls: list[str]) -> None:
    assert found(name, text) == urls


@pytest.mark.parametrize(
    "text",
    ["url(" * 40_000, "'" * 100_000, "/*" * 100_000, "@x " * 50_000, "a(" * 60_000, "\\" * 99_999, "url(\\" * 30_000],
)  # fmt: skip
def test_a_hostile_stylesheet_is_read_in_linear_time(text: str) -> None:
    began = time.process_time()  # other processes may take theirs
    references("a.css", text.encode())
    assert time.process_time() - began < 2


# -- rewriting ------------------------------------------------------------------------------------------------------


def test_references_name_the_hashed_files_and_all_else_stays(folder: Folder) -> None:
    folder.put("img/a b.png", b"picture")
    folder.put("base.css", "b{}")
    text = "@import url('../base.css') screen;\r\na{b:url(../img/a%20b.png?x#y)} /* \xff é */"
    folder.put("css/site.css", text.encode("latin-1"))
    names = folder.build()
    result = (folder.out / names["css/site.css"]).read_bytes()
    picture, base = version(b"picture"), version(b"b{}")
    expected = f"@import url('../base.{base}.css') screen;\r\na{{b:url(../img/a%20b.{picture}.png?x#y)}} /* \xff é */"
    assert result == expected.encode("latin-1")
    assert (folder.out / "css/site.css").read_bytes() == text.encode("latin-1")
    assert names["img/a b.png"] == f"img/a b.{picture}.png"
    assert folder.built.rewritten == 1


def test_awkward_names_are_written_as_the_language_wants_them(folder: Folder) -> None:
    folder.put("it's (1) & 50%.png", b"1")
    folder.write(a_css=r"a{b:url(it\'s\ \(1\)\ &\ 50%25.png), url('it\'s (1) & 50%25.png')}")
    folder.build()
    urls = found("a.css", folder.text("a.css"))
    name = f"it%27s%20%281%29%20%26%2050%25.{version(b'1')}.png"
    assert urls == [name, name]


def test_references_outside_of_the_folder_stay(folder: Folder) -> None:
    text = (
        "a{b:url(https://x/a.png) url(//x/a.png) url(/other/a.png) url(data:image/png;base64,AA==) url(#a) url(?x)"
        " url() url(about:blank) url('http://[') url(' https://y/z.png')}@import 'https://x/a.css';"
    )
    folder.put("a.css", text)
    folder.put("a.js", "import 'react'; import 'https://x/a.js'; import('lodash/fp'); import '/other/x.js'")
    names = folder.build()
    assert folder.text("a.css") == text
    assert names["a.css"] == f"a.{version(text.encode())}.css"
    assert folder.built.rewritten == 0


@pytest.mark.parametrize("url", ["/static/", "/static", "https://cdn.example/s/"])
def test_references_by_the_folders_own_url_are_rewritten(folder: Folder, url: str) -> None:
    base = url.rstrip("/")
    folder.write(a_css=f"a{{b:url({base}/img/a.png?x)}}", b_js=f"import '{base}/c.js'", c_js="1")
    folder.put("img/a.png", b"1")
    folder.build(url=url)
    assert folder.text("a.css") == f"a{{b:url({base}/img/a.{version(b'1')}.png?x)}}"
    assert folder.text("b.js") == f"import '{base}/c.{version(b'1')}.js'"


def test_white_space_that_browsers_ignore_in_urls_is_ignored(folder: Folder) -> None:
    folder.write(a_css="a{b:url(' b.png ')}", c_js="import(`./d\n.js`)", d_js="1", b_png=b"1")
    folder.build()
    assert folder.text("a.css") == f"a{{b:url('b.{version(b'1')}.png')}}"
    assert folder.text("c.js") == f"import(`./d.{version(b'1')}.js`)"


def test_source_maps_are_rewritten_and_may_be_missing(folder: Folder) -> None:
    folder.write(a_css="a{}\n/*# sourceMappingURL=a.css.map */", b_js="1\n//# sourceMappingURL=b.js.map")
    folder.put("a.css.map", "{}")
    folder.build()
    assert folder.text("a.css") == f"a{{}}\n/*# sourceMappingURL=a.css.{version(b'{}')}.map */"
    assert folder.text("b.js") == "1\n//# sourceMappingURL=b.js.map"
    assert folder.built.problems == []


def test_a_change_far_away_changes_every_name_on_the_way(folder: Folder) -> None:
    folder.write(a_js="import './b.js'", b_js="import './c.js'", c_js="1", d_js="2")
    before = folder.build()
    folder.write(c_js="3")
    after = folder.build()
    assert {name for name in before if before[name] != after[name]} == {"a.js", "b.js", "c.js"}
    assert (folder.out / before["a.js"]).is_file(), "pages that were sent out before still find it"


def test_modules_that_import_each_other_in_a_circle_have_names(folder: Folder) -> None:
    folder.write(
        a_js="import './b.js'; import './a.js'", b_js="import './c.js'", c_js="import './a.js'", d_js="import './a.js'"
    )
    before = folder.build()
    assert folder.plain("a.js") == "import './b.js'; import './a.js'"
    assert f"./{before['b.js']}" in folder.text("a.js")
    assert f"./{before['a.js']}" in folder.text("c.js")
    folder.write(c_js="import './a.js'; 1")
    after = folder.build()
    assert all(before[name] != after[name] for name in before)


def test_names_of_files_are_part_of_what_is_hashed(folder: Folder) -> None:
    """Otherwise two files that were renamed into each other would keep the importer's name."""
    folder.write(a_js="import './b.js'; import './c.js'", b_js="1", c_js="2")
    before = folder.build()["a.js"]
    folder.write(b_js="2", c_js="1")
    assert folder.build()["a.js"] != before


def test_a_long_chain_is_no_recursion(folder: Folder) -> None:
    for number in range(1500):
        folder.put(f"{number}.css", f"@import '{number + 1}.css'" if number < 1499 else "a{}")
    assert len(folder.build()) == 1500


def test_the_rewritten_modules_run(folder: Folder) -> None:
    """By Node, from the hashed names alone."""
    folder.put(
        "main.mjs", "import { b } from './lib/b.mjs'; const { c } = await import('./lib/c.mjs'); console.log(b + c)"
    )
    folder.put("lib/b.mjs", "import { d } from '../d.mjs'; export const b = 1 + d; export function f() { return 1 }")
    folder.put("lib/c.mjs", "export * from './e.mjs'")
    folder.put("lib/e.mjs", "export const c = 100")
    folder.put("d.mjs", "import { f } from './lib/b.mjs'; export const d = f() * 10")
    names = folder.build()
    for name in names:
        (folder.out / name).unlink()
    done = subprocess.run([require("node"), folder.out / names["main.mjs"]], capture_output=True, text=True, check=True)
    assert done.stdout == "111\n"


# -- problems -------------------------------------------------------------------------------------------------------


def test_a_reference_that_leads_nowhere_is_told_with_its_line_and_nothing_is_written(folder: Folder) -> None:
    folder.write(a_css="a{}\nb{c:url(gone.png)}", b_js="import './gone.js'", c_css="@import '../../secret.css'")
    (folder.source.parent.parent / "secret.css").write_text("secret")
    assert folder.build() == {}
    assert [str(problem) for problem in folder.built.problems] == [
        "a.css:2: 'gone.png' is not there",
        "b.js:1: './gone.js' is not there",
        "c.css:1: '../../secret.css' is not there",
    ]
    assert not folder.out.exists()
    folder.build(missing_ok=True)
    assert folder.text("a.css") == "a{}\nb{c:url(gone.png)}"


def test_links_out_of_the_folder_are_never_published(folder: Folder) -> None:
    secret = folder.source.parent / "secret"
    secret.mkdir()
    (secret / "key.css").write_text("secret")
    (folder.source / "link.css").symlink_to(secret / "key.css")
    (folder.source / "dir").symlink_to(secret)
    folder.put("own/a.css", "a{}")
    (folder.source / "inner.css").symlink_to("own/a.css")
    (folder.source / "again").symlink_to("own")
    (folder.source / "broken").symlink_to("nowhere")
    assert folder.build() == {}
    assert [str(problem) for problem in folder.built.problems] == [
        "again: is not a file, or is a symbolic link to a folder",
        "broken: is not a file, or is a symbolic link to a folder",
        "dir: is a symbolic link that leads out of the folder",
        "link.css: is a symbolic link that leads out of the folder",
    ]
    assert sorted(folder.build(missing_ok=True)) == ["inner.css", "own/a.css"]
    assert "secret" not in "".join(path.read_text() for path in folder.out.rglob("*.css"))


def test_what_is_no_static_file_is_left_out(folder: Folder) -> None:
    for name in [".env", ".git/config", "a.css~", "x/.DS_Store", "static-manifest.json", ".well-known/security.txt"]:
        folder.put(name, "x")
    folder.write(site_css="a{}", site_css_gz=b"by somebody else", other_gz=b"of its own")
    assert sorted(folder.build()) == [".well-known/security.txt", "other.gz", "site.css"]


def test_folders_that_cannot_be_are_errors(folder: Folder) -> None:
    with pytest.raises(ImproperlyConfigured, match="is not a directory"):
        build([folder.source / "none"], folder.out)
    for target in [folder.source, folder.source / "build", folder.source.parent]:
        with pytest.raises(ImproperlyConfigured, match="lie in one another"):
            build([folder.source], target)
    for alone in (folder.source, str(folder.source)):
        with pytest.raises(TypeError, match="The sources are a list of directories"):
            build(alone, folder.out)  # type: ignore[arg-type,unused-ignore]


def test_of_two_sources_the_first_wins(folder: Folder, tmp_path: Path) -> None:
    folder.write(a_css="first{}")
    (tmp_path / "second").mkdir()
    (tmp_path / "second" / "a.css").write_text("second{}")
    (tmp_path / "second" / "b.css").write_text("@import 'a.css'")
    built = build([folder.source, tmp_path / "second"], folder.out)
    assert (folder.out / built.files["a.css"]).read_text() == "first{}"
    assert built.files["a.css"] in (folder.out / built.files["b.css"]).read_text()


# -- writing --------------------------------------------------------------------------------------------------------


def test_static_folders_read_the_build(folder: Folder) -> None:
    folder.write(a_css="@import 'b.css'", b_css="b{}")
    names = folder.build()
    static_url = StaticFolder(folder.out)
    assert static_url("a.css") == f"/static/{names['a.css']}"
    for name in names.values():
        assert static_url.asked(name, "").current
    folder.write(b_css="new{}")
    newer = folder.build()
    assert newer["a.css"] != names["a.css"]
    for name in [*names.values(), *newer.values()]:  # the pages of the build before are still out there
        assert static_url.asked(name, "").current
    (folder.out / newer["a.css"]).write_text("meddled{}")
    assert not static_url.asked(newer["a.css"], "").current
    (folder.out / names["b.css"]).unlink()
    folder.build()
    assert names["b.css"] not in json.loads((folder.out / "static-manifest.json").read_text())["contents"]


def test_a_second_build_leaves_what_has_not_changed(folder: Folder) -> None:
    folder.write(a_css="@import 'b.css'; " * 50, b_css="b{}")
    folder.build(compress=["gzip"])
    before = {path: path.stat().st_ino for path in folder.out.rglob("*")}
    folder.build(compress=["gzip"])
    assert {path: path.stat().st_ino for path in folder.out.rglob("*")} == before


def test_others_may_read_the_files(folder: Folder) -> None:
    folder.put("a.css", "a{}").chmod(0o600)
    folder.build()
    assert {path.stat().st_mode & 0o777 for path in folder.out.iterdir()} == {0o644}


def test_a_build_that_fails_leaves_no_half_files_and_the_old_manifest(
    folder: Folder, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder.write(a_css="a{}")
    folder.build()
    manifest = (folder.out / "static-manifest.json").read_bytes()
    folder.write(a_css="b{}")

    def full(*arguments: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "replace", full)
    with pytest.raises(OSError, match="No space"):
        folder.build()
    assert (folder.out / "static-manifest.json").read_bytes() == manifest
    assert not [path for path in folder.out.iterdir() if path.name.endswith("~")]


# -- compression ----------------------------------------------------------------------------------------------------


def decoders() -> dict[str, Callable[[bytes], bytes]]:
    br = importlib.import_module("brotli")
    zstd = importlib.import_module("compression.zstd" if sys.version_info >= (3, 14) else "backports.zstd")
    return {".gz": gzip.decompress, ".br": br.decompress, ".zst": zstd.decompress}


def test_twins_hold_the_same_in_less(folder: Folder) -> None:
    text = "a { color: red } " * 100
    folder.write(a_css=text, small_css="a{}", picture_png=text, random_bin=os.urandom(2000))
    names = folder.build(compress=None)
    for name in ("a.css", names["a.css"]):
        for end, decode in decoders().items():
            twin = folder.out / (name + end)
            assert decode(twin.read_bytes()).decode() == text
            assert twin.stat().st_size < len(text) / 5
    twins = [path.name for path in folder.out.iterdir() if path.suffix in decoders()]
    assert len(twins) == 6, "not of what is small, compressed already, or random"
    assert set(folder.built.sizes) == {"gzip", "br", "zstd"}
    for before, after in folder.built.sizes.values():
        assert before == 2 * len(text) > after > 0


def test_a_twin_that_no_longer_holds_the_same_goes(folder: Folder) -> None:
    folder.write(a_css="a { color: red } " * 100)
    folder.build(compress=["gzip"])
    assert (folder.out / "a.css.gz").is_file()
    folder.write(a_css="a{}")
    folder.build(compress=["gzip"])
    assert not (folder.out / "a.css.gz").exists()


def without(monkeypatch: pytest.MonkeyPatch, *packages: str) -> None:
    """As if these packages were not installed."""
    real_import, real_module = builtins.__import__, importlib.import_module

    def no_import(name: str, *arguments: Any, **keywords: Any) -> Any:
        if name in packages:
            raise ModuleNotFoundError(f"No module named {name!r}", name=name)
        return real_import(name, *arguments, **keywords)

    def no_module(name: str, package: str | None = None) -> Any:
        if name in packages:
            raise ModuleNotFoundError(f"No module named {name!r}", name=name)
        return real_module(name, package)

    monkeypatch.setattr(builtins, "__import__", no_import)
    monkeypatch.setattr("cachemw._busting.build.import_module", no_module)


def test_a_coding_whose_package_is_missing_is_left_out_unless_it_is_asked_for(
    folder: Folder, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder.write(a_css="a { color: red } " * 100)
    without(monkeypatch, "brotli", "backports.zstd", "compression.zstd")
    folder.build(compress=None)
    assert set(folder.built.sizes) == {"gzip"}
    for coding in ("br", "zstd"):
        with pytest.raises(ImproperlyConfigured, match=rf"{coding} is not installed: pip install 'cachemw\[static\]'"):
            folder.build(compress=[coding])
    with pytest.raises(ImproperlyConfigured, match="no compression 'deflate'; allowed: gzip, br, zstd"):
        folder.build(compress=["deflate"])


def test_scripts_with_imports_need_their_parser(folder: Folder, monkeypatch: pytest.MonkeyPatch) -> None:
    from cachemw._busting import references as busting_references

    busting_references._grammar.cache_clear()
    without(monkeypatch, "tree_sitter_javascript")
    folder.write(plain_js="alert(1)")
    assert folder.build()
    folder.write(a_js="import './plain.js'")
    with pytest.raises(ImproperlyConfigured, match=r"^a\.js may import other files, and tree_sitter_javascript is not"):
        folder.build()


# -- the command ----------------------------------------------------------------------------------------------------


def run(*arguments: object) -> Result:
    return CliRunner().invoke(main, ["static", "build", *map(str, arguments)])


def test_the_command_tells_what_it_did(folder: Folder) -> None:
    folder.write(a_css="@import 'b.css';" + "a { color: red } " * 100, b_css="b{}")
    result = run(folder.source, "--to", folder.out, "--compress", "gzip, br")
    assert result.exit_code == 0
    lines = result.output.splitlines()
    assert lines[0] == f"2 files, 1 of them rewritten: {folder.out}/static-manifest.json"
    assert re.fullmatch(r" gzip +3,4\d\d -> \d+ bytes \(\d %\)", lines[1])
    assert lines[2].startswith("   br ")
    assert len(lines) == 3
    assert StaticFolder(folder.out)("a.css").startswith("/static/a.")


def test_the_command_can_count_to_one(folder: Folder) -> None:
    folder.write(a_css="b{}")
    assert run(folder.source, "--to", folder.out).output.startswith("1 file, 0 of them rewritten: ")


def test_the_command_tells_of_every_problem(folder: Folder) -> None:
    folder.write(a_css="@import 'gone.css'; a{b:url(gone.png)}")
    result = run(folder.source, "--to", folder.out)
    assert result.exit_code == 1
    assert result.output.splitlines() == [
        "a.css:1: 'gone.css' is not there",
        "a.css:1: 'gone.png' is not there",
        "Error: problems: 2; nothing was written. --missing-ok leaves out what they name.",
    ]
    assert run(folder.source, "--to", folder.out, "--missing-ok").exit_code == 0


def test_the_command_takes_the_url_and_refuses_nonsense(folder: Folder) -> None:
    folder.write(a_css="a{b:url(/assets/b.png)}", b_png=b"1")
    assert run(folder.source, "--to", folder.out, "--url", "/assets/", "--compress", "").exit_code == 0
    assert version(b"1") in next(folder.out.glob("a.*.css")).read_text()
    assert run(folder.source).exit_code == 2
    assert run("--to", folder.out).exit_code == 2
    nonsense = run(folder.source, "--to", folder.source)
    assert (nonsense.exit_code, len(nonsense.output.splitlines())) == (1, 1)
