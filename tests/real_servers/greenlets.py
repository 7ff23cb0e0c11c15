"""Greenlets at a site behind the cache, many of whom gevent's time-outs meet somewhere; prints what came of it.

`python -m tests.real_servers.greenlets early|late URL`: gevent replaces threads and sockets before the cache is
imported, or, as under gunicorn's `--preload`, in a fork of a process that has used it.
"""

from __future__ import annotations

import sys

if __name__ == "__main__" and sys.argv[1] == "early":
    from gevent import monkey  # type: ignore[import-untyped]

    monkey.patch_all()

import json
import os
import random
import time
import traceback
from collections import Counter
from collections.abc import Iterable
from io import BytesIO
from typing import Any, Final

from cachemw import CacheMiddleware

__all__: list[str] = []

VISITORS: Final = 50
PAGES: Final = [f"/{kind}/{number}" for kind in ("page", "stale", "stream", "private") for number in range(20)]
_FIELDS: Final = {
    "stale": [("Cache-Control", "max-age=5, stale-while-revalidate=60"), ("Age", "10")],
    "private": [("Cache-Control", "private")],
}


def application(environ: dict[str, Any], start_response: Any) -> Iterable[bytes]:
    path = environ["PATH_INFO"]
    time.sleep(random.random() / 100)
    start_response("200 OK", [("Content-Type", "text/plain"), *_FIELDS.get(path.split("/")[1], ())])
    for _ in range(3):
        yield f"{path}\n".encode() * 200
        time.sleep(0)


def ask(site: Any, path: str) -> tuple[str, bytes]:
    """What Cache-Status says, and the body."""
    said: list[str] = []
    environ = {"REQUEST_METHOD": "GET", "PATH_INFO": path, "HTTP_HOST": "example.org", "wsgi.url_scheme": "http"}
    environ |= {"wsgi.input": BytesIO(), "wsgi.errors": sys.stderr}  # type: ignore[dict-item]
    answer = site(environ, lambda status, headers, exc_info=None: said.append(dict(headers)["Cache-Status"]))
    try:
        body = b"".join(answer)
    finally:
        if hasattr(answer, "close"):
            answer.close()
    return said[0], body


def main(when: str, url: str) -> None:
    site: Any = CacheMiddleware(application, cache=url)
    if when == "late":
        ask(site, "/before/the/fork")
        child = os.fork()
        if child:
            sys.exit(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]))
        from gevent import monkey

        monkey.patch_all()

    import gevent

    if when == "late":
        gevent.reinit()
    outcomes: Counter[str] = Counter()

    def visit(seed: int) -> None:
        dice = random.Random(seed)
        for _ in range(30):
            path = dice.choice(PAGES)
            seconds = dice.random() / 50 if dice.random() < 0.2 else 30.0
            try:
                with gevent.Timeout(seconds):
                    _, body = ask(site, path)
            except gevent.Timeout:
                outcomes["interrupted" if seconds < 1 else "hung"] += 1
            except Exception:
                traceback.print_exc()
                outcomes["failed"] += 1
            else:
                outcomes["right" if set(body.decode().split()) == {path} else "wrong"] += 1

    visitors = [gevent.spawn(visit, seed) for seed in range(VISITORS)]
    gevent.joinall(visitors[VISITORS // 10 :])
    gevent.killall(visitors)
    for path in PAGES[:20]:
        ask(site, path)
        outcomes["hit"] += "; hit" in ask(site, path)[0]
    print(json.dumps(outcomes))


if __name__ == "__main__":
    main(*sys.argv[1:])
