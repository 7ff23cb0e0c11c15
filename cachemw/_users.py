"""Users: where applications, and the middlewares around them, leave the user who has logged in."""

from __future__ import annotations

from typing import Any, Final

__all__ = ["USERS", "is_user"]

#: The names under which they do, in `flask.g` or in Starlette's `request.state`.
USERS: Final = frozenset({"user", "current_user", "user_id"})


def is_user(user: Any) -> bool:
    """Is this the user of a client who has logged in? In doubt, yes: the page is then not stored for others."""
    try:
        return user is not None and bool(getattr(user, "is_authenticated", True))
    except Exception:  # the object is the application's, and may need a database that is gone
        return True
