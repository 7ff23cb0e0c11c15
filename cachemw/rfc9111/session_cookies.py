"""Session cookies: whether a request has one, by the names that a policy lists.

Rule: if the application saw a session that this module misses, one visitor's page would be shown to all. When in doubt,
it is a session.
"""

from __future__ import annotations

import re
from functools import lru_cache
from typing import Final

from cachemw.rfc9111.policy import Policy
from cachemw.rfc9111.requests import Request
from cachemw.rfc9111.syntax import OWS

__all__ = ["has_session_cookie"]

#: Application Insights and RudderStack count visits by cookies with these names, which every visitor's browser has.
_VISITS: Final = ("ai_session", "rl_session")


def has_session_cookie(request: Request, policy: Policy) -> bool:
    """Does the request have a cookie that `policy.session_cookies` names? Names are compared exactly.

    Whatever a framework might take for white space around a name, or for the end of a cookie, counts as such.
    """
    lines = request.told("cookie")
    if not lines or not policy.session_cookies:
        return False
    cookies = ";" + ";".join(lines)
    if "," in cookies or cookies.count(" ") != cookies.count("; ") or not cookies.isprintable():
        # the standard library's `http.cookies` ends one at white space, too
        cookies = cookies.encode("latin-1", "xmlcharrefreplace").translate(_ENDS).decode("ascii")
    names, common, endings = _session_names(policy.session_cookies)
    if names.search(cookies) is not None:
        return True
    return bool(endings) and common in cookies and _has_ending(cookies, endings)


#: Django reads cookies as UTF-8, and strips any Unicode white space from a name; here, each is several octets.
_ENDS: Final = bytes(ord(";") if code > 127 or chr(code) == "," or chr(code).isspace() else code for code in range(256))


#: Prefixes of names that browsers protect (RFC 6265bis §4.1.3): the same cookie, set more carefully.
_PREFIX: Final = "__(?:Host|Secure|Http|Host-Http)-"


@lru_cache(maxsize=64)
def _session_names(names: tuple[str, ...]) -> tuple[re.Pattern[str], str, tuple[str, ...]]:
    """What finds these names, in one look-up: to hash so many takes as long as to search for them."""
    return _session_pattern(names), *_session_endings(names)


def _session_pattern(names: tuple[str, ...]) -> re.Pattern[str]:
    """Finds one of the names after a ";". With one literal octet in front, `re` skips what is in between.

    Most other cookies are ruled out by their first letter, without a look at each name.
    """
    rests: dict[str, list[str]] = {}  # by the first letter
    for name in names:
        first = name[:1] if name != "*" else ""
        rest = name[len(first) :]
        rests.setdefault(first, []).append(re.escape(rest[:-1]) + "[^=;]*+" if rest.endswith("*") else re.escape(rest))
    alternatives = "|".join(f"{re.escape(first)}(?:{'|'.join(those)})" for first, those in rests.items())
    letters = "" if "" in rests else "(?=[" + "".join(sorted(map(re.escape, {*rests, "_"}))) + "])"
    return re.compile(rf";[\s\"]*+{letters}(?:{_PREFIX})?(?:{alternatives})(?=[\s\"]*+(?:[=;]|$))")


def _session_endings(names: tuple[str, ...]) -> tuple[str, tuple[str, ...]]:
    """What follows the "*" in names that begin with one, preceded by the longest string that all of these contain."""
    endings = tuple(name[1:] for name in names if name.startswith("*") and not name.endswith("*"))
    shortest = min(endings, key=len, default="")
    places = range(len(shortest) + 1)
    texts = [shortest[start:end] for start in places for end in places if start < end]
    return max((text for text in texts if all(text in one for one in endings)), key=len, default=""), endings


def _has_ending(cookies: str, endings: tuple[str, ...]) -> bool:
    names = [cookie.partition("=")[0].strip(OWS + '"') for cookie in cookies.split(";")]
    return any(name.endswith(endings) and name not in _VISITS for name in names)
