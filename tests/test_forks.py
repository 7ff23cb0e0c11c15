"""A process that forks while another of its threads is at work (gunicorn --preload): nothing holds its child up.

What stores and flights do about it is tested with them.
"""

from __future__ import annotations

import os
import signal
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from types import SimpleNamespace
from typing import Any

from flask import Flask

from cachemw import Hooks
from cachemw._views.page import Page
from cachemw.busting import version_flask
from cachemw.integrations.fastapi import page as fastapi_page
from cachemw.integrations.flask import CacheMW

#: Does something in the midst of which it calls what it is given.
Work = Callable[[Callable[[], object]], object]


class Held(dict[str, Any]):
    """Whoever looks through it is held up."""

    def __init__(self, content: dict[str, Any], hold: Callable[[], object]) -> None:
        super().__init__(content)
        self._hold = hold

    def __iter__(self) -> Iterator[str]:
        self._hold()
        return super().__iter__()

    def values(self) -> Any:
        self._hold()
        return super().values()


def assert_the_child_is_free(work: Work) -> None:
    begun, finish = threading.Event(), threading.Event()

    def hold() -> None:
        begun.set()
        assert finish.wait(10)

    with ThreadPoolExecutor(1) as pool:
        other = pool.submit(work, hold)
        assert begun.wait(10)
        child = os.fork()
        if not child:  # pytest must not go on in here
            signal.signal(signal.SIGALRM, signal.SIG_DFL)
            signal.alarm(5)
            try:
                work(lambda: None)
                os._exit(0)
            finally:
                os._exit(1)
        status = os.waitpid(child, 0)[1]
        finish.set()
        other.result(10)
    assert os.waitstatus_to_exitcode(status) == 0


def test_a_page_of_a_view_that_is_opened() -> None:
    page = Page(60, cache=None, key_prefix=None, tags=())
    assert_the_child_is_free(lambda hold: page.open(lambda **options: hold() or object()))


def test_an_application_of_flask_before_its_first_request() -> None:
    app = Flask("x")
    CacheMW(app, static=False)
    assert_the_child_is_free(lambda hold: _first_request(app, hold))


def test_an_application_of_flask_that_learns_where_its_files_are() -> None:
    app = Flask("x")
    version_flask(app)
    assert_the_child_is_free(lambda hold: _first_request(app, hold))


def _first_request(app: Flask, hold: Callable[[], object]) -> object:
    app.view_functions = Held(app.view_functions, hold)
    return app.test_client().get("/")


def test_hooks_that_are_put_in_order() -> None:
    hooks = Hooks()

    def plan(hold: Callable[[], object]) -> object:
        hooks._scopes = Held(hooks._scopes, hold)
        return hooks.plan("/")

    assert_the_child_is_free(plan)


def test_an_operation_of_fastapi_that_gets_its_page() -> None:
    dependency = fastapi_page(60)

    def take_over(hold: Callable[[], object]) -> None:
        operation = SimpleNamespace(call=lambda: None, request_param_name=None, response_param_name=None)
        operation.dependencies = Held({}, hold)
        dependency._take_over(operation)

    assert_the_child_is_free(take_over)
