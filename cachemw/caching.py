"""Caching: what one middleware works with, made from its arguments and the settings. Both interfaces use it."""

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
from cachemw.calling import HookPlan
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
    """The settings, given as `Settings` or as a mapping; None: the environment's. Raises: ImproperlyConfigured."""
    if given is None:
        return Settings.from_environ()
    if isinstance(given, Settings):
        return given
    if isinstance(given, Mapping):
        return Settings.from_mapping(given)
    raise refuse("settings", given, "a Settings, a mapping in Django's shape, or None for the environment's")


def pages_of(cache: BaseCache) -> Pages:
    """The pages of a store: one object for all its users in this process, with one breaker and one memory."""
    pages: Pages | None = cache.page_cache
    if pages is None:  # of several threads, the first one's object stays; a lock might be held during a fork
        pages = vars(cache).setdefault("page_cache", Pages(cache))
    return pages


class Line(Engine):
    """An engine with its store and its flights: all that an exchange needs."""

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
    """The options of the cache's middlewares, for functions that pass them on: `**options: Unpack[Options]`."""

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
    """Let `help` and `inspect.signature` show the arguments of a class in place of a function's `**options`."""

    def shown(function: F) -> F:
        own = inspect.signature(function)
        *first, _ = own.parameters.values()
        handed = [one for name, one in inspect.signature(kind).parameters.items() if name not in own.parameters]
        vars(function)["__signature__"] = own.replace(parameters=[*first, *handed])
        return function

    return shown


class Caching:
    """What a middleware caches pages with: store, policy, rules and settings. It is the middleware's `caching`.

        purge("https://example.org/news", caching=Caching(cache="redis://localhost:6379/0"))

    A script without a middleware makes one for `purge` and `page_failures`. Arguments and errors: those of
    `CacheMiddleware`, but for `app`.
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
        """All lines, one for each store: first the default one, then those that rules name."""
        return tuple(dict.fromkeys(self._lines.values()))

    @property
    def stores(self) -> tuple[Pages, ...]:
        """The pages of all lines."""
        return tuple(line.pages for line in self.lines)

    def ignored(self, request: Request) -> tuple[str, ...]:
        """The names of query parameters that a rule leaves out of the keys of this URL."""
        rule = None if self.rules is None else Rules.for_lookup(self.rules.for_request("GET", request.route))
        return () if rule is None else rule.ignore_query

    @property
    def told(self) -> dict[str, Any]:
        """The value of each option by its name, such as "seconds" or "policy.grace"."""
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
    """An object with a `caching`: a middleware, or the state of a site."""

    @property
    def caching(self) -> Caching:
        """What the pages are cached with."""


#: The `caching` of each middleware of this process, in the order in which they were made.
_at_work: weakref.WeakValueDictionary[int, Caching] = weakref.WeakValueDictionary()
_numbers = itertools.count()


def cachings_of(given: Caching | HasCaching | None) -> Sequence[Caching]:
    """The `Caching` objects that are meant by a middleware, by its `caching`, or by None.

    None means: those of the current Flask application, if it has the extension; else those of all middlewares of this
    process, and one for the store that the environment names; without either, one for the default store.

    Raises: TypeError for anything else.
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
    """The common base of all middlewares: their arguments (`app`, and those of `Caching`), and their halves."""

    #: Does it answer from the cache? The outer half does not.
    fetches = True
    #: Does it store? The inner half does not.
    updates = True
    _is_told = False
    _async_hooks = False
    #: The line on which plain requests are answered without an exchange, unless one, or a `Locale`, came with them.
    #: None: every request needs an exchange.
    _plain_line: Line | None
    _partner: Caching | None = None  # of the outer half, once its options have been compared with ours

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
        """The exchange of the request: the outer half's, or a new one.

        surroundings: the environ or the scope of the request.
        """
        outer = surroundings.get(EXCHANGE)
        # an exchange that is over belongs to an earlier request with the same environ or scope
        if outer is not None and outer.over and outer.outer_half is None:
            del surroundings[EXCHANGE]
            outer = None
        if self.hooks is not None:
            request.before = surroundings.pop(BEFORE, None)
        exchange: Exchange[Line]
        if self.updates or outer is None or not outer.admit(request):
            exchange = self.caching.exchange(request)
            exchange.outer = outer
            if outer is not None:
                exchange.hooks_around = outer.hooks_within
                if self.updates:
                    request.first.before = outer.request
        else:
            exchange = outer
            if outer.outer_half.caching is not self._partner:
                self._agree(outer.outer_half.caching)
        if self.hooks is not None:
            plan = self.hooks.plan(request.route)
            exchange.hooked = plan is not None and plan.matters
        return exchange

    def _plan(self, path: str, surroundings: MutableMapping[str, Any]) -> HookPlan | None:
        """The hooks for this path; another cache around this one is told of them, as it runs none."""
        plan = None if self.hooks is None else self.hooks.plan(path)
        if plan is not None and plan.matters and self.updates and (outer := surroundings.get(EXCHANGE)) is not None:
            outer.hooks_within += 1
        return plan

    def _agree(self, outer: Caching) -> None:
        """Check that each option given to this half is the same as the outer half's, which holds for both.

        Raises: ImproperlyConfigured.
        """
        theirs = outer.told
        for name, ours in self.caching.told.items():
            if name.partition(".")[0] in self._given and ours != theirs[name]:
                values = "" if name in _UNSHOWN else f" ({shown(ours)} and {shown(theirs[name])})"
                raise ImproperlyConfigured(
                    f"{name}: {type(self).__name__} was given another value than the outer half of the cache, around "
                    f"it{values}; give both the same, or leave it out of the inner one"
                )
        self._partner = outer

    def _mind_the_outer_half(self, exchange: Exchange[Line]) -> None:
        """Log once that this inner half has no outer half around it: then nothing is stored."""
        if not (self.updates or self._is_told) and exchange.outer_half is None and exchange.outer is None:
            self._is_told = True
            log.warning("%s has no UpdateCacheMiddleware around it: it stores nothing.", type(self).__name__)

    @abstractmethod
    def _prepare(self) -> None:
        """Make what only this interface needs."""

    @abstractmethod
    def refresh(self, surroundings: Any, exchange: Exchange[Line]) -> None:
        """Fetch this page again in the background, by a request made from the server's environ or scope."""
