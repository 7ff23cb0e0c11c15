"""The servers that the tests start."""

from __future__ import annotations

import os
import re
import shutil
import socket
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from tests import servers
from tests.servers import (
    HOST,
    OPTIONAL,
    Server,
    free_port,
    require,
    require_ipv6,
    start,
    start_memcached,
    start_redis,
)
from tests.serving import ROOT


def test_what_another_has_on_the_port_is_not_the_server_that_was_started() -> None:
    """Two runs of the tests on one machine, say, which would write into each other's stores."""
    port = free_port()
    with socket.create_server((HOST, port)), pytest.raises(RuntimeError, match="ended with status 0"):
        start([sys.executable, "-c", "pass"], port=port)


@pytest.mark.parametrize("starter", [start_memcached, start_redis])
def test_a_server_that_was_killed_can_be_started_again(starter: Callable[[], Server]) -> None:
    with starter() as server:
        server.kill()
        server.start()
        assert server.process is not None
        assert server.process.poll() is None


def test_what_a_machine_lacks_is_a_counted_skip_or_a_failure(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*args: object, **kwargs: object) -> None:
        raise OSError("Address family not supported by protocol")

    monkeypatch.setattr(socket, "create_server", refuse)
    monkeypatch.setattr(shutil, "which", lambda program, path: None)
    lacking: list[Callable[[], str]] = [lambda: require("no-such-server"), require_ipv6]
    for wanted in ("", "postgres"):
        monkeypatch.setattr(servers, "REQUIRED", wanted)
        for one in lacking:
            with pytest.raises(pytest.skip.Exception, match=r"is not installed: apt-get|nothing can listen on ::1"):
                one()
    for wanted in ("all", "ipv6,no-such-server"):
        monkeypatch.setattr(servers, "REQUIRED", wanted)
        for one in lacking:
            with pytest.raises(pytest.fail.Exception, match=f"CACHEMW_TEST_REQUIRE={wanted}"):
                one()
    monkeypatch.setattr(servers, "REQUIRED", "all")
    for optional in OPTIONAL:
        with pytest.raises(pytest.skip.Exception):
            require(optional)


def test_what_fails_under_a_server_has_a_second_chance_and_nothing_else_has(tmp_path: Path) -> None:
    """By what a test has asked for, wherever it stands: a fault that comes and goes is one to be seen elsewhere."""
    (tmp_path / "conftest.py").write_text("from tests.conftest import *\n")
    (tmp_path / "test_chances.py").write_text("""
from collections import Counter

import pytest
from tests.servers import free_port, shared, start_memcached

tries = Counter()

@pytest.fixture
def place():
    return shared(start_memcached).address

@pytest.fixture(scope="module")
def kept_place():
    return shared(start_memcached).address

@pytest.fixture(scope="session")
def lasting_place():
    return shared(start_memcached).address

def fails_once(name):
    tries[name] += 1
    assert tries[name] > 1

def test_alone():
    fails_once("alone")

def test_started():
    with start_memcached():
        fails_once("started")

def test_shared():
    shared(start_memcached)
    fails_once("shared")

def test_fixture(place):
    fails_once("fixture")

def test_fixture_of_the_module(kept_place):
    fails_once("module")

def test_the_same_again(kept_place):
    fails_once("again")

def test_fixture_of_the_session(lasting_place):
    fails_once("session")

def test_the_same_here(lasting_place):
    fails_once("here")

def test_twice():
    shared(start_memcached)
    assert False

def test_alone_afterwards():
    free_port()
    fails_once("afterwards")
""")
    options = ("-q", "-rfR", "-p", "no:cacheprovider", "--import-mode=importlib", "--tb=no")
    done = subprocess.run(
        [sys.executable, "-m", "pytest", *options, str(tmp_path)],
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": str(ROOT), "CACHEMW_TEST_REQUIRE": servers.REQUIRED},
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    told = {kind: set(re.findall(rf"^{kind} \S*::test_(\w+)", done.stdout, re.M)) for kind in ("FAILED", "RERUN")}
    again = {"started", "shared", "fixture", "fixture_of_the_module", "fixture_of_the_session"}
    again |= {"the_same_again", "the_same_here"}
    assert told == {"FAILED": {"alone", "alone_afterwards", "twice"}, "RERUN": again | {"twice"}}, done.stdout
