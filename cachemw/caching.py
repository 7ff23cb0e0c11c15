"""Caching: what one middleware works with, put together from its arguments and the settings. Shared by both shells."""

from __future__ import annotations

import inspect
import itertools
import logging
import os
import weakref
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Mapping, MutableMapping, Sequence
from dataclasses import fields
from typing import Any, Final, Protocol, TypedDict, TypeVar, Unpack

from cachemw._caching_here import site_here
from cachemw._caching_sessions import config_of, knowing_sessions
from cachemw._values import number, refuse, shown, text
from cachemw.backends.base import BaseCache
from cachemw.backends.registry import Caches, caches, resolve
from cachemw.engine import Engine
from cachemw.errors import ImproperlyConfigured
from cachemw.exchange import Exchange
from cachemw.exchange.state import BEFORE, EXCHANGE
from cachemw.flights import Flights
from cachemw.hooks import Hooks
from cachemw.pages import Pages
from cachemw.rfc9111.keys import namespace
from cachemw.rfc9111.messages import Record
from cachemw.rfc9111.policy import Policy
from cachemw.rfc9111.requests import Request
from cachemw.rules import Rule, Rules
from cachemw.settings import Settings

__all__ = [
    "Caching",
    "CachingMiddleware",
    "HasCaching",
    "Line",
    "Options",
    "cachings_of",
    "log",
    "pages_of",
    "settings_of",
    "showing_options_of",
    "with_cookies_of",
]

log = logging.getLogger("cachemw")

_PAGE_METHODS: Final = ("GET", "HEAD")
_UNSHOWN: Final = ("settings.caches", "settings.secret")  # in no message


def settings_of(given: Settings | Mapping[str, Any] | None) -> Settings:
    """The settings that somebody passed, in whatever shape; None: the environment's. Raises: ImproperlyConfigured."""
    if given is None:
        return Settings.from_environ()
    if isinstance(given, Settings):
        return given
    if isinstance(given, Mapping):
        return Settings.from_mapping(given)
    raise refuse("settings", given, "a Settings, a mapping in Django's shape, or None for the environment's")


def pages_of(cache: BaseCache) -> Pages:
    """The pages of a store, which last as long as it: one breaker and one memory for all who use it in this process."""
    pages: Pages | None = cache.page_cache
    if pages is None:  # the first of those who do this at once; without a lock, which a fork might catch in use
        pages = vars(cache).setdefault("page_cache", Pages(cache))
    return pages


class Line(Engine):
    """An engine with its store and its flights: what an exchange needs from beginning to end."""

    def __init__(self, pages: Pages, policy: Policy, **options: Any) -> None:
        distant = pages.shared and not pages.cache.near
        super().__init__(policy, shared=pages.shared, distant=distant, common=pages.common, **options)
        self.pages = pages
        self.keeps = pages.cache.keeps
        self.flights: Flights[Record | None] = Flights()

    @property
    def purges(self) -> int:
        """How many purges this process has begun."""
        return self.pages.purges


class Options(TypedDict, total=False):
    """The options of the cache's middlewares, for who hands them on: `**options: Unpack[Options]`."""

    cache: str | BaseCache | None
    policy: Policy | None
    seconds: float | None
    key_prefix: str | None
    rules: Iterable[Rule | Mapping[str, Any]] | None
    hooks: Hooks | None
    settings: Settings | Mapping[str, Any] | None


def with_cookies_of(config: Mapping[str, Any], options: Options) -> Options:
    """The options, with a policy that knows the session cookies that an application's config names."""
    settings, given = settings_of(options.get("settings")), options.get("policy")
    policy = settings.policy() if given is None else given
    if not isinstance(policy, Policy):
        return options  # `Caching` refuses it
    known = knowing_sessions(policy, config)
    if known is policy:
        return options
    seconds = options.get("seconds")
    seconds = settings.lifetime(given) if seconds is None else seconds  # not those of a policy that nobody has given
    return {**options, "settings": settings, "policy": known, "seconds": seconds}


F = TypeVar("F", bound=Callable[..., Any])


def showing_options_of(kind: type) -> Callable[[F], F]:
    """Let `help` and `inspect.signature` show a class's arguments in the place of the `**options` handed on to it."""

    def shown(function: F) -> F:
        own = inspect.signature(function)
        *first, _ = own.parameters.values()
        handed = [one for name, one in inspect.signature(kind).parameters.items() if name not in own.parameters]
        vars(function)["__signature__"] = own.replace(parameters=[*first, *handed])
        return function

    return shown


class Caching:
    """What one middleware caches pages with: its `caching`. Arguments and errors: those of `cachemw.CacheMiddleware`.

    `purge` and `page_failures` take one; a script that has no middleware makes its own: `Caching(cache="redis://…")`.
    """

    def __init__(
        self,
        *,
        cache: str | BaseCache | None = None,
        policy: Policy | None = None,
        seconds: float | None = None,
        key_prefix: str | None = None,
        rules: Iterable[Rule | Mapping[str, Any]] | None = None,
        hooks: Hooks | None = None,
        settings: Settings | Mapping[str, Any] | None = None,
    ) -> None:
        self.settings = settings = settings_of(settings)
        self.policy = settings.policy() if policy is None else policy
        if not isinstance(self.policy, Policy):
            raise refuse("policy", policy, "a Policy, such as Policy() or Policy.rfc9111()")
        if hooks is not None and not isinstance(hooks, Hooks):
            raise refuse("hooks", hooks, "a cachemw.Hooks with the hooks registered on it")
        self.seconds = settings.lifetime(policy) if seconds is None else number("seconds", seconds, minimum=0)
        self.key_prefix = settings.key_prefix if key_prefix is None else text("key_prefix", key_prefix)
        rules = settings.rules if rules is None else rules
        self.rules = rules if isinstance(rules, Rules) or rules is None else Rules(rules)
        if self.rules is not None and not len(self.rules):
            self.rules = None
        self.hooks = hooks
        if settings.caches is None:
            caches.reread()
        self.caches = caches if settings.caches is None else Caches(settings)
        self._lines: dict[str | None, Line] = {}
        if cache is None:
            self.line = self._open(settings.alias, "alias (CACHEMW_ALIAS, CACHE_MIDDLEWARE_ALIAS)")
        else:
            self.line = self._open(cache, "cache")
        self._lines[None] = self.line
        for rule in self.rules or ():
            if rule.cache is not None:
                self._lines[rule.cache] = self._open(rule.cache, "cache of a rule")

    def _open(self, cache: str | BaseCache, name: str) -> Line:
        pages = pages_of(resolve(name, cache, self.caches))
        for line in self._lines.values():
            if line.pages is pages:
                return line
        settings = self.settings
        return Line(
            pages,
            self.policy,
            seconds=self.seconds,
            space=namespace(self.key_prefix),
            i18n=settings.use_i18n,
            tz=settings.use_tz,
            skew=settings.clock_skew,
        )

    @property
    def lines(self) -> tuple[Line, ...]:
        """All lines, one for each store: the default one first, then those that rules name."""
        return tuple(dict.fromkeys(self._lines.values()))

    @property
    def stores(self) -> tuple[Pages, ...]:
        """The pages of all lines."""
        return tuple(line.pages for line in self.lines)

    def ignored(self, request: Request) -> tuple[str, ...]:
        """The query parameters that a rule leaves out of the key of this URL's pages."""
        rule = None if self.rules is None else Rules.for_lookup(self.rules.for_request("GET", request.route))
        return () if rule is None else rule.ignore_query

    @property
    def told(self) -> dict[str, Any]:
        """What holds, option by option; those of policy and settings each by itself."""
        cache = self.line.pages.cache
        told: dict[str, Any] = {"seconds": self.seconds, "key_prefix": self.key_prefix, "rules": self.rules}
        told["cache"] = f"{cache!r}, KEY_PREFIX {cache.key_prefix!r}, VERSION {cache.version!r}"
        for name, values in (("policy", self.policy), ("settings", self.settings)):
            told |= {f"{name}.{one.name}": getattr(values, one.name) for one in fields(values)}
        return told

    def exchange(self, request: Request) -> Exchange[Line]:
        """A new exchange for this request, on the line that the rules choose."""
        if self.rules is None:
            return Exchange(self.line)
        candidates = self.rules.for_request(request.method, request.route)
        rule = Rules.for_lookup(candidates)
        line = self._lines[rule.cache] if rule is not None else self.line
        exchange = Exchange(line)
        exchange.candidates = candidates
        if rule is not None:
            exchange.never = rule.never
            exchange.ignore = rule.ignore_query
        if request.method not in _PAGE_METHODS:
            exchange.ignore = self.ignored(request)  # what it invalidates has the keys of GET
            exchange.ignored = self.ignored
        return exchange


class HasCaching(Protocol):
    """A middleware, or a site's state: what says in its `caching` what pages are cached with."""

    @property
    def caching(self) -> Caching:
        """What the pages are cached with."""


#: What the middlewares of this process cache with, in the order in which they were made.
_at_work: weakref.WeakValueDictionary[int, Caching] = weakref.WeakValueDictionary()
_numbers = itertools.count()


def cachings_of(given: Caching | HasCaching | None) -> Sequence[Caching]:
    """Whose pages are meant by who names a middleware or its `caching`, or, by None, all that there are here.

    None: those of the Flask application whose context this is, if it has our extension; else those of all middlewares
    of this process, and of the store that the environment names; of what it has by default if there is neither.
    Raises: TypeError for what is neither.
    """
    if given is not None:
        caching = getattr(given, "caching", given)
        if not isinstance(caching, Caching):
            raise TypeError(f"caching={shown(given)}: a middleware or its `caching` is expected")
        return [caching]
    site = site_here()
    if site is not None:
        cachings: Sequence[Caching] = site.cachings
        return cachings
    found = [caching for one in _at_work.valuerefs() if (caching := one()) is not None]
    if not found or Settings.from_environ(os.environ).caches is not None:
        found.append(Caching())
    return found


class CachingMiddleware(ABC):
    """What every middleware has in common, whatever its interface: its arguments, and the halves that it plays.

    The arguments after `app` are those of `Caching`.
    """

    #: Does it answer from the cache? The outer half does not.
    fetches = True
    #: Does it store? The inner half does not.
    updates = True
    _is_told = False
    _async_hooks = False
    #: Where plain requests are answered without an exchange; None where something else has its say in each.
    _plain_line: Line | None
    _partner: Caching | None = None  # what the half around this one works with, once the two have been compared

    @showing_options_of(Caching)
    def __init__(self, app: Any, **options: Unpack[Options]) -> None:
        self.app = app
        if unknown := options.keys() - Options.__annotations__.keys():
            allowed = ", ".join(Options.__annotations__)
            raise TypeError(f"{type(self).__name__} has no option {min(unknown)!r}; allowed: {allowed}")
        self.caching = self._made(**options)
        self.hooks = self.caching.hooks
        if self.hooks is not None:
            self.hooks.check(async_allowed=self._async_hooks)
        _at_work[next(_numbers)] = self.caching
        line = self.caching.line
        alone = self.fetches and self.updates and self.hooks is None and self.caching.rules is None
        self._plain_line = line if alone and not line.properties else None
        self._given = [name for name, value in options.items() if value is not None]
        self._prepare()

    def _made(self, **options: Unpack[Options]) -> Caching:
        """What it works with. A middleware for both halves also knows the application's own session cookies."""
        if self.fetches and self.updates:
            options = with_cookies_of(config_of(self.app), options)
        return Caching(**options)

    def _exchange_of(self, request: Request, surroundings: MutableMapping[str, Any]) -> Exchange[Line]:
        """The exchange that takes the request up: that of the half around this one, or its own.

        surroundings: the environment or the scope that the request is read from.
        """
        outer = surroundings.get(EXCHANGE)
        # what is over is of another request, made before in the same surroundings
        if outer is not None and outer.over and outer.outer_half is None:
            del surroundings[EXCHANGE]
            outer = None
        if self.hooks is not None:
            request.before = surroundings.pop(BEFORE, None)
        exchange: Exchange[Line]
        if self.updates or outer is None or not outer.admit(request):
            exchange = self.caching.exchange(request)
            exchange.outer = outer
            if outer is not None and self.updates:
                request.first.before = outer.request
        else:
            exchange = outer
            if outer.outer_half.caching is not self._partner:
                self._agree(outer.outer_half.caching)
        return exchange

    def _agree(self, outer: Caching) -> None:
        """See that this half was told nothing that the one around it, by which both go, does not do.

        Raises: ImproperlyConfigured.
        """
        theirs = outer.told
        for name, ours in self.caching.told.items():
            if name.partition(".")[0] in self._given and ours != theirs[name]:
                values = "" if name in _UNSHOWN else f" ({shown(ours)} and {shown(theirs[name])})"
                raise ImproperlyConfigured(
                    f"{name}: {type(self).__name__} was told something else than the outer half of the cache, around "
                    f"it{values}; tell both the same, or leave it out of the inner one"
                )
        self._partner = outer

    def _mind_the_outer_half(self, exchange: Exchange[Line]) -> None:
        """Say once that this is an inner half without an outer one, which alone stores: left out, or further in."""
        if not (self.updates or self._is_told) and exchange.outer_half is None and exchange.outer is None:
            self._is_told = True
            log.warning("%s has no UpdateCacheMiddleware around it: it stores nothing.", type(self).__name__)

    @abstractmethod
    def _prepare(self) -> None:
        """Make what this interface needs besides."""

    @abstractmethod
    def refresh(self, surroundings: Any, exchange: Exchange[Line]) -> None:
        """Fetch this page again in the background, by a request made of the server's environment or scope."""
