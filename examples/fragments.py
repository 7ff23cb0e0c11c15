"""Parts of a page, each kept for as long as it is good: a list for everybody, a basket for each visitor.

    python -m examples.fragments         then http://127.0.0.1:8000/?visitor=Ada

The page itself is never stored: it is another one for each visitor and each second. What costs something in it is.
"""

from __future__ import annotations

import time
from typing import Any

from flask import Flask, redirect, render_template, request, url_for

from cachemw import cache
from cachemw.fragments import CacheExtension, fragment, make_template_fragment_key
from cachemw.memoize import cached

__all__ = ["app", "asked"]

app = Flask(__name__)
app.jinja_env.add_extension(CacheExtension)

baskets: dict[str, list[str]] = {}
asked: list[str] = []  # what was computed, in order


def articles() -> list[tuple[str, str]]:
    """A slow query; the template asks for it once in ten minutes."""
    asked.append("articles")
    time.sleep(0.3)
    return [(name, price(name)) for name in ("Lamp oil", "Oar, blue", "Rope")]


@cached(3600)
def price(name: str) -> str:
    """A value that other pages want, too: kept by the arguments."""
    asked.append(f"price of {name}")
    return f"{len(name) * 3}.50"


def basket(visitor: str) -> str:
    """What a visitor has chosen."""
    asked.append(f"basket of {visitor}")
    return ", ".join(baskets.get(visitor, [])) or "nothing"


@app.get("/")
def shop() -> str:
    """The page; see `templates/shop.html`."""
    visitor = request.args.get("visitor", "stranger")
    return render_template("shop.html", visitor=visitor, articles=articles, basket=basket)


@app.post("/basket")
def choose() -> Any:
    """A fragment is invalidated by its key."""
    visitor = request.form["visitor"]
    baskets.setdefault(visitor, []).append(request.form["article"])
    cache.delete(make_template_fragment_key("basket", [visitor]))
    return redirect(url_for("shop", visitor=visitor), 303)


@app.get("/top.txt")
def top() -> str:
    """The same without a template language."""
    with fragment("top", [request.args.get("count", "3")], 60) as part:
        if part.missing:
            part.body = "\n".join(name for name, _ in articles()[: int(request.args.get("count", "3"))])
    return f"{part.body}\n"


if __name__ == "__main__":
    from examples.serving import run

    run(app)
