"""Static folders: versions that follow the content, URLs that carry them, names that never lead out."""

from __future__ import annotations

import hashlib
import json
import logging
import os
import warnings
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from cachemw import ImproperlyConfigured
from cachemw.busting import StaticFolder, StaticVersionWarning

STYLE = b"body { color: red }"


def version(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()[:12]


def aged(path: Path, content: bytes | None = None, *, seconds: int = 1_000_000_000) -> Path:
    """A file that was written long ago."""
    if content is not None:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content)
    os.utime(path, (seconds, seconds))
    return path


class Later:
    """A clock that is far ahead of the files' times, or beside them."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.ahead = 0.0
        import time

        real = time.time
        monkeypatch.setattr("cachemw._busting.folder.time.time", lambda: real() + self.ahead)


@pytest.fixture
def later(monkeypatch: pytest.MonkeyPatch) -> Later:
    return Later(monkeypatch)


@pytest.fixture
def root(tmp_path: Path) -> Path:
    root = tmp_path / "static"
    root.mkdir()
    (root / "style.css").write_bytes(STYLE)
    return root


@pytest.fixture
def reads(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The files that were hashed, one by one."""
    found: list[str] = []
    digest = hashlib.file_digest

    def counted(file: object, *arguments: object) -> object:
        found.append(os.path.basename(file.name))  # type: ignore[attr-defined]
        return digest(file, *arguments)  # type: ignore[arg-type]

    monkeypatch.setattr("cachemw._busting.folder.hashlib.file_digest", counted)
    return found


# -- URLs -----------------------------------------------------------------------------------------------------------


def test_the_url_carries_twelve_hex_digits_of_the_contents_sha_256(root: Path) -> None:
    assert StaticFolder(root)("style.css") == f"/static/style.css?v={version(STYLE)}"


def test_files_in_folders_and_with_unusual_names_have_urls(root: Path) -> None:
    for name, quoted in [
        ("css/a.css", "css/a.css"),
        ("a b.css", "a%20b.css"),
        ("50%.css", "50%25.css"),
        ("what?.css", "what%3F.css"),
        ("#1.css", "%231.css"),
        ("grün.css", "gr%C3%BCn.css"),
        (os.fsdecode(b"latin-\xe9.css"), "latin-%E9.css"),
    ]:
        aged(root / name, name.encode("utf-8", "surrogateescape"))
        content = name.encode("utf-8", "surrogateescape")
        assert StaticFolder(root)(name) == f"/static/{quoted}?v={version(content)}"


def test_the_files_may_be_on_another_host(root: Path) -> None:
    url = StaticFolder(root, url="https://cdn.example/site")("style.css")
    assert url == f"https://cdn.example/site/style.css?v={version(STYLE)}"


def test_a_version_by_hand_wins_and_none_leaves_it_out(root: Path) -> None:
    static_url = StaticFolder(root)
    assert static_url("style.css", v="7") == "/static/style.css?v=7"
    assert static_url("style.css", v=7) == "/static/style.css?v=7"
    assert static_url("style.css", v="a b&c") == "/static/style.css?v=a%20b%26c"
    assert static_url("style.css", v=None) == "/static/style.css"


@pytest.mark.parametrize(
    "stamp", ["1700000000", 1700000000, "1700000000123", "1700000000.5", 20240131, "202401311259", "20240131125959"]
)
def test_a_time_stamp_as_version_warns(root: Path, stamp: object) -> None:
    with pytest.warns(StaticVersionWarning, match=r"style\.css.*time stamp"):
        assert StaticFolder(root)("style.css", v=stamp) == f"/static/style.css?v={stamp}"


@pytest.mark.parametrize("v", ["7", "1.2.3", "12345678", "99999999999", "170000000000"])
def test_other_versions_do_not_warn(root: Path, v: str) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert StaticFolder(root)("style.css", v=v).endswith(f"?v={v}")


def test_a_content_hash_that_looks_like_a_time_stamp_does_not_warn(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    static_url = StaticFolder(root)
    monkeypatch.setattr(static_url, "version", lambda name: "202401311259")
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        static_url("style.css", v="202401311259")


def test_a_missing_file_is_an_error_that_names_it_and_what_was_meant(root: Path) -> None:
    with pytest.raises(ImproperlyConfigured, match=r"no static file 'styel\.css' in .*; did you mean 'style\.css'"):
        StaticFolder(root)("styel.css")
    with pytest.raises(ImproperlyConfigured, match=r"no static file 'zzz' in .*static\."):
        StaticFolder(root)("zzz")
    (root / "css").mkdir()
    with pytest.raises(ImproperlyConfigured, match=r"no static file 'css'"):
        StaticFolder(root)("css")
    with pytest.raises(ImproperlyConfigured, match=r"is to be written 'style\.css'"):
        StaticFolder(root)("./style.css")
    missing: Any = None
    with pytest.raises(ImproperlyConfigured, match=r"The static file None is not a string; give its path"):
        StaticFolder(root)(missing)


@pytest.mark.parametrize(
    "name",
    ["../secret", "css/../../secret", "/etc/passwd", "//etc/passwd", "style.css\0", "..\\secret", "link", "out/x"],
)
def test_a_name_that_leads_out_is_an_error_that_names_it(root: Path, name: str) -> None:
    (root.parent / "secret").write_text("secret")
    (root.parent / "elsewhere").mkdir()
    (root.parent / "elsewhere" / "x").write_text("secret")
    (root / "link").symlink_to(root.parent / "secret")
    (root / "out").symlink_to(root.parent / "elsewhere")
    with pytest.raises(ImproperlyConfigured) as error:
        StaticFolder(root)(name)
    assert repr(name) in str(error.value)
    assert "outside of" in str(error.value)
    assert StaticFolder(root).version(name) is None


def test_links_within_the_folder_and_allowed_ones_have_versions(root: Path) -> None:
    (root / "inner.css").symlink_to("style.css")
    (root.parent / "shared.css").write_bytes(b"shared")
    (root / "outer.css").symlink_to(root.parent / "shared.css")
    (root / "broken.css").symlink_to("nowhere")
    assert StaticFolder(root).version("inner.css") == version(STYLE)
    assert StaticFolder(root).version("outer.css") is None
    assert StaticFolder(root, follow_symlinks=True).version("outer.css") == version(b"shared")
    assert StaticFolder(root, follow_symlinks=True).version("broken.css") is None


def test_a_folder_whose_name_begins_like_another_is_not_inside_it(root: Path) -> None:
    (root.parent / "static-private").mkdir()
    (root.parent / "static-private" / "key").write_text("secret")
    (root / "key").symlink_to(root.parent / "static-private" / "key")
    assert StaticFolder(root).version("key") is None


def test_the_folder_itself_may_be_a_link_that_a_deployment_moves(root: Path) -> None:
    new = aged(root.parent / "new" / "style.css", b"new").parent
    current = root.parent / "current"
    current.symlink_to(root)
    static_url = StaticFolder(current)
    assert static_url.version("style.css") == version(STYLE)
    current.unlink()
    current.symlink_to(new)
    assert static_url.version("style.css") == version(b"new")


@pytest.mark.parametrize("name", ["x" * 5000, "a/" * 3000, "\ud800", "style.css/x", "", ".", "a\nb"])
def test_names_that_no_file_system_takes_are_missing_files(root: Path, name: str) -> None:
    assert StaticFolder(root).version(name) is None


@settings(max_examples=200, suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)
@given(name=st.text(st.sampled_from("abs./\\\0%:~ \n*ü"), max_size=20))
def test_no_name_ever_leads_out(root: Path, name: str) -> None:
    secret = root.parent / "a"
    secret.write_text("secret")
    inner = root / "a"
    inner.write_text("public")
    if not (root / "s").is_symlink():
        (root / "s").symlink_to(root.parent)
    assert StaticFolder(root).version(name) in (None, version(b"public"))


def test_several_directories_are_searched_in_order(root: Path) -> None:
    second = aged(root.parent / "second" / "style.css", b"second").parent
    aged(second / "own.css", b"own")
    folder = StaticFolder(root, second)
    assert folder.version("style.css") == version(STYLE)
    assert folder.version("own.css") == version(b"own")
    with pytest.raises(ImproperlyConfigured, match=r"static and .*second"):
        folder("none")


def test_wrong_arguments_are_errors_that_say_so(root: Path) -> None:
    with pytest.raises(ImproperlyConfigured, match="needs the directory"):
        StaticFolder()
    with pytest.raises(ImproperlyConfigured, match=r"'.*style\.css' is not a directory"):
        StaticFolder(root / "style.css")
    urls: list[Any] = ["static/", "", "/static/?x", "/static/#x", "http://[x/", None, 5]
    for url in urls:
        with pytest.raises(ImproperlyConfigured, match="url is"):
            StaticFolder(root, url=url)
    assert repr(StaticFolder(root)) == f"StaticFolder({str(root)!r}, url='/static/')"


def test_a_folder_of_many_files_is_not_searched_for_ever(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("cachemw._busting.folder.os.walk", lambda top: ((top, [], ["a"] * 1000) for _ in iter(int, 1)))
    with pytest.raises(ImproperlyConfigured, match="no static file 'b'"):
        StaticFolder(root)("b")


# -- when a file changes --------------------------------------------------------------------------------------------


def test_a_file_is_read_once(root: Path, reads: list[str], later: Later) -> None:
    later.ahead = 60
    static_url = StaticFolder(root)
    assert len({static_url("style.css") for _ in range(10)}) == 1
    assert reads == ["style.css"]


def test_an_edited_file_has_another_version(root: Path, reads: list[str], later: Later) -> None:
    later.ahead = 60
    static_url = StaticFolder(root)
    before = static_url("style.css")
    aged(root / "style.css", b"body { color: blue }")
    assert static_url("style.css") != before
    assert reads == ["style.css"] * 2


def test_an_edit_of_the_same_size_with_the_same_times_is_seen(root: Path, later: Later) -> None:
    """As a deployment writes files whose times are clamped: only inode and change time tell."""
    aged(root / "style.css", b"red")
    later.ahead = 60
    static_url = StaticFolder(root)
    assert static_url.version("style.css") == version(b"red")
    aged(root / "new", b"tan")
    (root / "new").replace(root / "style.css")
    assert static_url.version("style.css") == version(b"tan")


def test_a_file_that_was_written_a_moment_ago_is_not_trusted(root: Path, reads: list[str], later: Later) -> None:
    """Two edits within one tick of the file system's clock have the same times."""
    static_url = StaticFolder(root)
    for _ in range(3):
        static_url("style.css")
    assert len(reads) == 3
    later.ahead = 60
    for _ in range(3):
        static_url("style.css")
    assert len(reads) == 4


def test_a_file_that_is_written_to_while_it_is_read_is_not_trusted(
    root: Path, monkeypatch: pytest.MonkeyPatch, later: Later
) -> None:
    later.ahead = 60
    digest = hashlib.file_digest

    def meddled(file: object, *arguments: object) -> object:
        found = digest(file, *arguments)  # type: ignore[arg-type]
        (root / "style.css").write_bytes(b"longer than it was before")
        return found

    static_url = StaticFolder(root)
    with monkeypatch.context() as patch:
        patch.setattr("cachemw._busting.folder.hashlib.file_digest", meddled)
        assert static_url.version("style.css") == version(STYLE)
    assert static_url.version("style.css") == version(b"longer than it was before")


def test_a_file_that_goes_away_while_it_is_looked_at_has_no_version(
    root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def gone(path: object) -> object:
        raise FileNotFoundError(path)

    monkeypatch.setattr("cachemw._busting.folder._hash", gone)
    assert StaticFolder(root).version("style.css") is None


def test_fixed_urls_stay_and_cost_no_look_at_the_file(root: Path) -> None:
    static_url = StaticFolder(root, fixed=True)
    before = static_url("style.css")
    (root / "style.css").write_bytes(b"changed")
    assert static_url("style.css") == before
    (root / "style.css").unlink()
    assert static_url("style.css") == before


def test_a_fixed_folder_still_knows_what_a_file_holds_now(root: Path) -> None:
    """Files are replaced before the old process is: its pages name the old version, which the file no longer holds."""
    static_url = StaticFolder(root, fixed=True)
    static_url("style.css")
    query = f"v={version(STYLE)}"
    assert static_url.asked("style.css", query).current
    (root / "style.css").write_bytes(b"changed")
    assert not static_url.asked("style.css", query).current
    assert static_url.asked("style.css", f"v={version(b'changed')}").current


def test_a_missing_file_is_logged_once_where_the_framework_makes_the_url(
    root: Path, caplog: pytest.LogCaptureFixture
) -> None:
    folder = StaticFolder(root, fixed=True)
    with caplog.at_level(logging.WARNING, "cachemw"):
        for _ in range(3):
            assert folder.reference("styel.css") == ("styel.css", None)
    assert [record.getMessage() for record in caplog.records] == [
        f"There is no static file 'styel.css' in {root}; did you mean 'style.css'?"
    ]
    (root / "styel.css").write_bytes(b"now")
    assert folder.reference("styel.css") == ("styel.css", version(b"now"))


def test_names_from_visitors_do_not_fill_the_memory(root: Path) -> None:
    folder = StaticFolder(root)
    for number in range(1500):
        folder.reference(f"{number}.css")
        folder.asked(f"{number}.css", "v=1")
    assert len(folder._missed) == 1000
    assert not folder._known


# -- what a request asks for ----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("query", "named", "current"),
    [
        ("", False, False),
        ("x=1", False, False),
        ("v=HASH", True, True),
        ("x=1&v=HASH", True, True),
        ("v=%48ASH", True, False),
        ("v=", True, False),
        ("v", True, False),
        ("v=hash", True, False),
        ("v=HASH0", True, False),
        ("v=HASH&v=HASH", True, False),
        ("v=HASH&v=1", True, False),
        ("V=HASH", False, False),
        ("v=1700000000", True, False),
        ("&&;=%zz&" * 1000, False, False),
    ],
)
def test_one_v_that_is_the_version_asks_for_what_is_there(root: Path, query: str, named: bool, current: bool) -> None:
    asked = StaticFolder(root).asked("style.css", query.replace("HASH", version(STYLE)))
    assert (asked.version, asked.named, asked.current, asked.refused) == (version(STYLE), named, current, False)


# -- with a build ---------------------------------------------------------------------------------------------------


def manifest(root: Path, **data: object) -> Path:
    data = {"format": 1, "files": {}, "contents": {}, **data}
    return aged(root / "static-manifest.json", json.dumps(data).encode())


def test_a_build_gives_hashed_names(root: Path) -> None:
    hashed = f"style.{version(STYLE)}.css"
    aged(root / hashed, STYLE)
    manifest(root, files={"style.css": hashed})
    static_url = StaticFolder(root)
    assert static_url("style.css") == f"/static/{hashed}"
    assert static_url("style.css", v="7") == "/static/style.css?v=7"
    aged(root / "later.css", b"later")
    assert static_url("later.css") == f"/static/later.css?v={version(b'later')}"


def test_a_hashed_name_asks_for_the_content_that_it_promises(root: Path) -> None:
    ours, theirs = f"style.{version(STYLE)}.css", "theirs.0123456789ab.css"
    aged(root / ours, STYLE)
    aged(root / theirs, b"theirs")
    aged(root / f"folder.{version(b'in it')}.d" / "x.css", b"in it")
    aged(root / f"plain.{version(b'plain')}", b"plain")
    folder = StaticFolder(root)
    assert folder.asked(ours, "").current
    assert folder.asked(f"plain.{version(b'plain')}", "").current
    assert not folder.asked(theirs, "").named
    assert not folder.asked(f"folder.{version(b'in it')}.d/x.css", "").named
    assert not folder.asked(ours, "v=7").current
    manifest(root, contents={theirs: version(b"theirs"), ours: "0" * 12})
    assert folder.asked(theirs, "").current
    assert not folder.asked(ours, "").named


def test_a_new_build_is_seen_unless_the_folder_is_fixed(root: Path) -> None:
    for name in ("a.css", "b.css"):
        aged(root / name, name.encode())
    manifest(root, files={"style.css": "a.css"})
    open_folder, fixed = StaticFolder(root), StaticFolder(root, fixed=True)
    assert open_folder("style.css") == fixed("style.css") == "/static/a.css"
    manifest(root, files={"style.css": "b.css"}, contents={})
    assert open_folder("style.css") == "/static/b.css"
    assert fixed("style.css") == "/static/a.css"
    (root / "static-manifest.json").unlink()
    assert open_folder("style.css") == f"/static/style.css?v={version(STYLE)}"
    (root / "style.css").unlink()
    assert fixed("style.css") == "/static/a.css"


@pytest.mark.parametrize(
    "text",
    [
        b"",
        b"[]",
        b"{}",
        b'{"format": 2, "files": {}, "contents": {}}',
        b'{"format": 1, "files": [], "contents": {}}',
        b'{"format": 1, "files": {"a": 1}, "contents": {}}',
        b"\xff",
        b"[" * 100_000,
    ],
)
def test_an_unreadable_manifest_is_an_error_that_names_it(root: Path, text: bytes) -> None:
    aged(root / "static-manifest.json", text)
    with pytest.raises(ImproperlyConfigured, match=r"static-manifest\.json cannot be read"):
        StaticFolder(root)


@pytest.mark.parametrize("target", ["gone.css", "../secret", "/etc/passwd"])
def test_a_manifest_that_names_what_is_not_there_is_an_error(root: Path, target: str) -> None:
    (root.parent / "secret").write_text("secret")
    manifest(root, files={"style.css": target})
    with pytest.raises(ImproperlyConfigured, match=r"for 'style\.css', which is not there"):
        StaticFolder(root)
