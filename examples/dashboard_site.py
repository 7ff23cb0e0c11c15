"""A Flask site whose operator sees what the cache does, and purges: its pages take a while, and change on every call.

python -m examples.dashboard_site     then http://127.0.0.1:8000/, and /cache as `keeper` with the password `lamp`
"""

from __future__ import annotations

import time
from typing import Any

from flask import Flask, Response, request

from cachemw import CacheMiddleware, Metrics, ObservingMiddleware
from cachemw.dashboard import Dashboard

__all__ = ["app"]

app = Flask(__name__)
metrics = Metrics()


@app.get("/")
@app.get("/lamp/<int:number>")
def lamp(number: int = 0) -> Response:
    """Fresh for a minute here; browsers ask each time, so that they see what was purged."""
    time.sleep(0.2)
    text = f'<title>Lamp {number}</title>Lamp {number} at {time.strftime("%X")}. <a href="/lamp/{number + 1}">Next</a>'
    return Response(text, headers={"Cache-Control": "s-maxage=60, max-age=0", "Cache-Tag": "lamps"})


def is_keeper(visitor: Any) -> bool:
    """Is this a request of the operator? A site asks its own login here."""
    given = visitor.authorization
    return given is not None and (given.username, given.password) == ("keeper", "lamp")


dashboard = Dashboard(metrics, allow=is_keeper, title="Lighthouse")


@app.route("/cache", methods=["GET", "POST"])
def cache() -> Any:
    """Ask for the password. The dashboard itself says 403 to everybody else."""
    if not is_keeper(request):
        return Response("Who goes there?\n", 401, {"WWW-Authenticate": 'Basic realm="lighthouse"'})
    return dashboard.wsgi


app.wsgi_app = ObservingMiddleware(  # type: ignore[method-assign]
    CacheMiddleware(app.wsgi_app, key_prefix="dashboard_site"), metrics=metrics
)


if __name__ == "__main__":
    from examples.serving import run

    run(app)
