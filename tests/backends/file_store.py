"""What the tests of the file store share: where an entry's file is, and a life beside the tests'."""

from __future__ import annotations

import os
import pwd
import sys
import traceback
from collections.abc import Callable
from pathlib import Path
from typing import Any

from cachemw.backends.filebased import FileBasedCache


def open_to_others(directory: Path) -> Path:
    """The directory, to which an unprivileged process of the tests can come by now."""
    for path in (directory, *directory.parents):
        if path.owner() == Path.home().owner() and path != Path("/"):
            path.chmod(path.stat().st_mode | 0o011)
    return directory


def entry(cache: FileBasedCache, key: str) -> Path:
    """The file of a key of the low-level API."""
    return Path(cache._shards.place(cache.make_key(key)).path)


def entries(directory: Path) -> list[Path]:
    """The files of all entries."""
    return sorted(path for path in directory.glob("*/*/*.cmw") if len(path.stem) == 40)


def bodies(directory: Path) -> list[Path]:
    """The files of large pages' bodies."""
    return sorted(directory.glob("*/*/*.cmw-body"))


def temporaries(directory: Path) -> list[Path]:
    """The files that were not finished."""
    return sorted(directory.glob("*/*/.*.cmw-new"))


def state(directory: Path) -> dict[str, bytes]:
    """Every file below a directory, links as such."""
    return {
        str(path): os.readlink(path).encode() if path.is_symlink() else path.read_bytes()
        for path in sorted(directory.rglob("*"))
        if path.is_symlink() or path.is_file()
    }


def in_child(work: Callable[[], Any], *, user: str | None = None) -> None:
    """Do the work in a forked process (as `user`, where this process may); an error there is one here."""
    child = os.fork()
    if child == 0:
        status = 1
        try:
            if user is not None and os.geteuid() == 0:
                account = pwd.getpwnam(user)
                os.setgroups([])
                os.setgid(account.pw_gid)
                os.setuid(account.pw_uid)
            work()
            status = 0
        except BaseException:
            traceback.print_exc()
        finally:
            sys.stderr.flush()
            os._exit(status)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0, "see the child's traceback"
