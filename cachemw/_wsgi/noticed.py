"""What an application was seen to read of a request: frameworks keep what they have parsed where others can see it.

Rule 1: who has looked at what a client accepts has chosen by it: the page varies on that.
Rule 2: whom an extension of Flask's has let in is a user, as one who sent credentials.
Rule 3: who has looked at its cookies, or at what browser it is, may have counted visitors, no more: such a page varies
        on it where nobody has said for how long it is everybody's.
"""

from __future__ import annotations

import sys
from collections.abc import Mapping, MutableMapping
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, Final

from cachemw._users import USERS, is_user

if TYPE_CHECKING:
    from cachemw.exchange import Exchange

__all__ = ["COOKIES_WATCHED", "Witness", "forget_others"]

#: Where Werkzeug's request, the last one made of an environment, is to be found.
_WERKZEUG: Final = "werkzeug.request"
#: Where Werkzeug's request keeps what it has parsed of which field.
_NEGOTIATED: Final[Mapping[str, str]] = MappingProxyType(
    {"accept_charsets": "accept-charset", "accept_languages": "accept-language", "accept_mimetypes": "accept"}
)
#: Set where a request had forgotten its cookies after Flask had opened the session, which reads them always.
COOKIES_WATCHED: Final = "cachemw.cookies_watched"
#: Where Bottle, py4web's fork of it, and WebOb with Pyramid keep cookies that they have parsed, and Beaker its session.
_PARSED: Final = ("bottle.request.cookies", "ombott.request.cookies", "webob._parsed_cookies")
_BEAKER: Final = "beaker.session"
#: Where Flask-JWT-Extended, Flask-HTTPAuth and before functions of one's own leave whom they have found, in `g`.
_USERS: Final = USERS | {"_jwt_extended_jwt", "flask_httpauth_user"}


def forget_others(environ: MutableMapping[str, Any]) -> None:
    """Forget what somebody further out has read: it is not by what this application chooses."""
    for name in (*_PARSED, _WERKZEUG):
        environ.pop(name, None)


class Witness:
    """Has seen an application begin its response; holds on to what it will take out of its environment when it ends."""

    __slots__ = ("_environ", "_identified", "_request", "_watched")

    def __init__(self, environ: Mapping[str, Any]) -> None:
        self._environ = environ
        self._request = environ.get(_WERKZEUG)
        self._identified = self._request is not None and _is_identified()
        self._watched = COOKIES_WATCHED in environ or not _opens_session(self._request)

    def tell(self, exchange: Exchange[Any]) -> None:
        """Tell the exchange what the application has read by now."""
        suspected = ["cookie"] if self._has_read_cookies() else []
        if self._request is not None:
            kept = getattr(self._request, "__dict__", ())
            suspected += ["user-agent"] if "user_agent" in kept else []
            if reads := [field for name, field in _NEGOTIATED.items() if name in kept]:
                exchange.reads = tuple(dict.fromkeys((*exchange.reads, *reads)))
            exchange.identified = exchange.identified or self._identified
            # by which Flask-Talisman allows scripts, further out, and this time alone
            nonce = getattr(self._request, "csp_nonce", None)
            exchange.nonce = nonce.encode() if isinstance(nonce, str) else b""
        if suspected:
            exchange.suspected = tuple(dict.fromkeys((*exchange.suspected, *suspected)))

    def _has_read_cookies(self) -> bool:
        environ = self._environ
        if not environ.keys().isdisjoint(_PARSED) or (_BEAKER in environ and _was_read(environ[_BEAKER])):
            return True
        return self._watched and "cookies" in getattr(self._request, "__dict__", ())


def _was_read(session: Any) -> bool:
    """Beaker's session, of a middleware further in, says so."""
    accessed = getattr(session, "accessed", None)
    try:
        return callable(accessed) and bool(accessed())
    except Exception:  # somebody else's: it may have been
        return True


def _opens_session(request: Any) -> bool:
    """May Flask have read the cookies of this request by itself, whatever the page is, to open the session?"""
    if "flask" not in sys.modules:
        return False
    from flask import Request, current_app, has_request_context
    from flask.sessions import SecureCookieSessionInterface

    if not isinstance(request, Request):
        return False
    if not has_request_context() or type(current_app.session_interface) is not SecureCookieSessionInterface:
        return True
    return bool(current_app.secret_key)


def _is_identified() -> bool:
    """Has an extension of Flask's found a user, by more than the session, which varies on Cookie by itself?"""
    if "flask" not in sys.modules:
        return False
    from flask import g, has_request_context, session

    if not has_request_context():
        return False
    try:
        if any(is_user(user) for name in _USERS if (user := g.get(name))):
            return True
        return is_user(g.get("_login_user")) and "_user_id" not in session
    except Exception:  # the session is the application's, too
        return True
