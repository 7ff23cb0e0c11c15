"""Users: where applications and the middlewares around them leave whom they have let in."""

from __future__ import annotations

from typing import Any, Final

__all__ = ["USERS", "is_user"]

#: By what names they do so, for views to ask `flask.g` or Starlette's `request.state`.
USERS: Final = frozenset({"user", "current_user", "user_id"})


def is_user(user: Any) -> bool:
    """Is this, which somebody has left where users are left, one who was let in?"""
    try:
        return bool(user) and bool(getattr(user, "is_authenticated", True))
    except Exception:  # somebody else's: who is not to be asked may be anybody
        return True
