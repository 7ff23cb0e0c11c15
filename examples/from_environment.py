"""Any application, WSGI or ASGI, cached through environment variables alone.

    CACHEMW_APP=examples.plain:wsgi_app CACHEMW_SECONDS=5 python -m examples.from_environment

makes the page of http://127.0.0.1:8000/ anew every five seconds. Under a server of your own, where `shop:app` is an
application that knows nothing of any cache:

    CACHEMW_APP=shop:app CACHEMW_URL=redis://localhost:6379/0 gunicorn cachemw.autowrap:app
    CACHEMW_APP=shop:app CACHEMW_RULES='[{"path": "/cart/*", "never": true}]' uvicorn cachemw.autowrap:app
"""

from __future__ import annotations

from cachemw.autowrap import app

__all__ = ["app"]

if __name__ == "__main__":
    from examples.serving import run

    run(app)
