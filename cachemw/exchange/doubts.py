"""Doubts: whose page it is, as far as the application was seen to find out, and does not say itself."""

from __future__ import annotations

from typing import Final

from cachemw.exchange.state import EngineT, State
from cachemw.rfc9111.echoes import shows_cookie
from cachemw.rfc9111.fields import valid_host
from cachemw.rfc9111.freshness import control, explicit_lifetime
from cachemw.rfc9111.messages import Head
from cachemw.rfc9111.requests import CAME_IN
from cachemw.rfc9111.storing import Storing, has_session, nominated, shares_credentials

__all__ = ["Doubts"]

#: Fields that say nothing about who asks.
_ACCEPTED: Final = frozenset({"accept", "accept-charset", "accept-encoding", "accept-language", "origin", "user-agent"})


class Doubts(State[EngineT]):
    """What was read, by whom, and what the body shows: for what is stored, and for what a 304 says about it."""

    def _obstacle(self, head: Head, chosen: bool) -> str | None:
        """Why this response is not stored, or stored again, although its own fields allow it; None: it is.

        chosen: a cache has chosen its lifetime.
        """
        request, policy = self.request, self.engine.policy
        if chosen and (self.hooks_within or (self.outer is not None and self.outer.hooks_within > self.hooks_around)):
            return "hooks"  # a hit would not run them
        if self.chosen_within and has_session(request, policy) and "cookie" not in nominated(head):
            return "session"  # the cache that chose the lifetime may have other session cookies
        if self.identified and not self._tells_users_apart(head):
            return "authorization"
        if request.session == "changed":
            return "set-cookie"  # a middleware further out will set it
        if (left_out := request.left_out) and not set(left_out).isdisjoint(nominated(head)):
            return "session"  # other data of the refresh may identify the client
        if not self._is_known_host():
            return "host"
        if (disguised := request.disguised) and not disguised.isdisjoint((*nominated(head), *policy.keyed_fields)):
            return "field"  # the disguised field is not in the key
        return None

    def _is_known_host(self) -> bool:
        """Is there at most one Host field, with a valid host (RFC 9112 §3.2)?"""
        lines = self.request.lines("host")
        return not lines or (len(lines) == 1 and valid_host(lines[0]))

    def _reads_of(self, head: Head, now: float) -> tuple[str, ...]:
        """The fields that the page depends on, as known in other ways than by its Vary."""
        reads = (*self.request.declared, *self.reads)
        if self.timeout is not None:  # a session is not looked for
            return (*reads, "cookie") if self.request.handed_on else reads
        if self.suspected and explicit_lifetime(head, self.engine.policy, now) is None:
            return (*reads, *self.suspected)
        return reads

    def _tells_users_apart(self, head: Head) -> bool:
        """Does the response say what tells users apart, or that it does not matter?"""
        policy = self.engine.policy
        if policy.authorization == "vary" or shares_credentials(control(head, policy)):
            return True
        return not _ACCEPTED.issuperset(nominated(head))

    def _reads_more(self, storing: Storing, head: Head) -> bool:
        """Was a field read while the body was made that Vary, which had already left, does not name?"""
        reads = (*self.reads, *self.suspected) if storing.chosen else self.reads
        return bool(reads) and not set(reads).issubset(nominated(head))

    def _may_show(self, storing: Storing, head: Head) -> bool:
        """May the body still show that the page is for one visitor?

        Then a lifetime that nobody asked for must not go out first: caches further out would keep what this one does
        not.
        """
        if self.engine.policy.django_rules:
            return False
        return bool(self.nonce) or ((storing.chosen or self.chosen_within) and bool(self._cookies_untold(head)))

    def _cookies_untold(self, head: Head) -> list[str]:
        """The cookies of this client about which Vary says nothing: those it sent, and those that a rule strips."""
        lines = [value.partition(";")[0] for _, value in self._cookies]
        if "cookie" not in nominated(head):
            lines += [line for line in self.request.told("cookie") if line != CAME_IN]
        return lines

    def _found_since(self, storing: Storing, head: Head) -> str:
        """What was found out while the body was made, and keeps the page from being stored; "" for nothing."""
        session = self.request.session
        if session == "changed" or (session == "read" and "cookie" not in nominated(head)):
            return "session"
        return "late" if self._reads_more(storing, head) else ""

    def _shown_by(self, body: bytes, storing: Storing, head: Head) -> str:
        """What in the body keeps the page from being stored; "" for nothing."""
        if self.nonce and self.nonce in body:
            return "nonce"
        if (storing.chosen or self.chosen_within) and self._shows_cookie(head, body):
            return "session"
        return ""

    def _shows_cookie(self, head: Head, body: bytes) -> bool:
        """Does the page repeat what only this visitor has in a cookie, without saying so in Vary?"""
        policy = self.engine.policy
        lines = () if policy.django_rules else self._cookies_untold(head)
        return bool(lines) and shows_cookie(lines, head, body, most=policy.max_body)
