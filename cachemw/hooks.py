"""Hooks: functions of the site that run before, after and at the teardown of HTTP requests, of all or of some paths.

The order is Flask's:

* before: first the hooks for all requests, then those of the outer scope, then of the inner one, each in the order of
  registration. The first hook that returns a response ends the chain: the cache and the application are not called.
* after: the reverse order. They run for hits, for misses, and for the responses of before hooks.
* teardown: the reverse order. They always run, with the exception that the application raised, or None.

The two halves of the cache follow the same rule: what is registered first sees the request first and the response last.
`UpdateCacheMiddleware` comes first, so that it sees the response after all others have changed it.
`FetchFromCacheMiddleware` comes last, so that it sees the request after all others have changed it.

Rule 1: no I/O, no clock, and no import of a framework: the middlewares make the requests and responses.
Rule 2: a request costs only the hooks that apply to it: `Hooks.plan` is a look-up.
Rule 3: another spelling of the path does not get around a hook (see `cachemw.paths`).
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, MutableSequence
from dataclasses import dataclass
from itertools import chain
from threading import RLock
from typing import Any, Final, TypeVar, overload

from cachemw._forks import Forkable
from cachemw.calling import Hook, HookPlan, check_hook, refuse_async
from cachemw.errors import ImproperlyConfigured
from cachemw.paths import decoded, spellings

__all__ = ["HookScope", "Hooks"]

HookT = TypeVar("HookT", bound=Hook)

#: How many paths have their plans remembered, and the longest of these: an attacker's paths must not fill the memory.
_MEMO_PATHS: Final = 1024
_MEMO_LENGTH: Final = 256


@dataclass(frozen=True, slots=True)
class HookScope:
    """The hooks for the paths below a prefix. Made by `Hooks.scope` or `HookScope.scope`.

    prefix  the whole prefix, with those of the outer scopes: "/api/v1"
    name    the dotted name, as in Flask: "api.v1"
    """

    hooks: Hooks
    prefix: str
    name: str

    def scope(self, prefix: str, *, name: str) -> HookScope:
        """A scope inside of this one: "/v1" inside of "/api" has the prefix "/api/v1" and the name "api.v1"."""
        return self.hooks._add_scope(self, prefix, name)

    def before_request(self, hook: HookT) -> HookT:
        """Run `hook(request)` before each request of this scope; if it returns a response, that is the answer."""
        self.hooks.before_request_funcs[self.name].append(hook)
        return hook

    def after_request(self, hook: HookT) -> HookT:
        """Run `hook(response)` after each request of this scope; it returns a response, or None for no change."""
        self.hooks.after_request_funcs[self.name].append(hook)
        return hook

    def teardown_request(self, hook: HookT) -> HookT:
        """Run `hook(error)` at the end of each request of this scope; `error` is an exception or None."""
        self.hooks.teardown_request_funcs[self.name].append(hook)
        return hook


class Hooks(Forkable):
    """The hooks of a site: for all requests, and for the paths below a prefix.

        hooks = Hooks()

        @hooks.before_request
        def login(request): ...

        api = hooks.scope("/api", name="api")

        @api.after_request
        def timing(response): ...

        app = CacheMiddleware(app, hooks=hooks)

    On WSGI hooks are plain functions and get werkzeug's `Request` and `Response`. On ASGI they get Starlette's; an
    `async def` runs on the event loop, a plain `def` in a worker thread, as Starlette runs endpoints: it may block, and
    the values that it sets in a `ContextVar` hold for the rest of the request. Write fast hooks for ASGI with
    `async def`. WebSockets are opened without hooks: check a login where the WebSocket is accepted.

    An after hook may change the status and the fields of its response. On WSGI the response has its body, too. On ASGI
    the body does not exist yet, and setting it is an error: to send another body, return another response.

    `before_request_funcs`, `after_request_funcs` and `teardown_request_funcs` hold the registered functions by the name
    of the scope, and under None for all requests. They may be read and extended, as in Flask. Raises: KeyError for the
    name of a scope that does not exist.

    Hooks may be registered at any time and from any thread, and run for requests that begin later.
    """

    def __init__(self) -> None:
        super().__init__()
        self._scopes: dict[str, HookScope] = {}
        self.sync_only = False
        self._compiled: _Compiled | None = None  # None: to be compiled by the next request
        self.before_request_funcs = _Register(self, "before_request")
        self.after_request_funcs = _Register(self, "after_request")
        self.teardown_request_funcs = _Register(self, "teardown_request")
        self._registers = (self.before_request_funcs, self.after_request_funcs, self.teardown_request_funcs)

    def _reset(self) -> None:
        self._lock = RLock()

    def before_request(self, hook: HookT) -> HookT:
        """Run `hook(request)` before each request; if it returns a response, that is the answer."""
        self.before_request_funcs[None].append(hook)
        return hook

    def after_request(self, hook: HookT) -> HookT:
        """Run `hook(response)` after each request; it returns a response, or None for no change."""
        self.after_request_funcs[None].append(hook)
        return hook

    def teardown_request(self, hook: HookT) -> HookT:
        """Run `hook(error)` at the end of each request; `error` is an exception or None."""
        self.teardown_request_funcs[None].append(hook)
        return hook

    def scope(self, prefix: str, *, name: str) -> HookScope:
        """The part of the site below a path, like a Flask blueprint; register hooks on the result.

        prefix  a literal path: "/api" means "/api" and "/api/…", not "/apix". It is compared with the path that the
                application routes: below the mount (WSGI `SCRIPT_NAME`, ASGI `root_path`), case-sensitive
        name    the key in `before_request_funcs` and the others

        Raises: ImproperlyConfigured for a prefix that is no literal path, and for a name that exists or has a dot.
        """
        return self._add_scope(None, prefix, name)

    def check(self, *, async_allowed: bool) -> None:
        """Refuse coroutine functions, now and when hooks are registered later, unless `async_allowed`.

        Each middleware calls this when it is made. Raises: ImproperlyConfigured, which names the function.
        """
        if async_allowed:
            return
        with self._lock:
            for register in self._registers:
                for hook in chain.from_iterable(register.values()):
                    refuse_async(hook, register.kind)
            self.sync_only = True

    def plan(self, path: str) -> HookPlan | None:
        """The hooks that apply to a request for `path`; None if there are none.

        path: below the mount, raw or decoded. A scope applies if any spelling of the path is below its prefix.
        """
        compiled = self._compiled or self._compile()
        if not compiled.scopes:
            return compiled.everywhere
        memo = compiled.memo
        if path in memo:
            return memo[path]
        plan = compiled.plan(path)
        if len(path) <= _MEMO_LENGTH:
            if len(memo) >= _MEMO_PATHS:
                compiled.memo = memo = {}
            memo[path] = plan
        return plan

    def _add_scope(self, outer: HookScope | None, prefix: str, name: str) -> HookScope:
        prefix = _literal(prefix)
        if not isinstance(name, str) or not name or "." in name:
            raise ImproperlyConfigured(f"The name of a scope is a string without dots, as in Flask; got {name!r}.")
        if outer is not None:
            prefix, name = outer.prefix + prefix, f"{outer.name}.{name}"
        with self._lock:
            if name in self._scopes:
                taken = self._scopes[name].prefix or "/"
                raise ImproperlyConfigured(f"There is a scope {name!r} already, for {taken!r}: choose another name.")
            scope = self._scopes[name] = HookScope(self, prefix, name)
            for register in self._registers:
                register.lists[name] = _Functions(self, register.kind)
        return scope

    def _compile(self) -> _Compiled:
        with self._lock:
            # Of the prefixes of one path, the shorter one is the outer one. Sorting is stable.
            scopes = sorted(self._scopes.values(), key=lambda scope: len(scope.prefix))
            layers = [(scope.prefix, self._layer(scope.name)) for scope in scopes]
            compiled = _Compiled(self._layer(None), [(prefix, layer) for prefix, layer in layers if any(layer)])
            self._compiled = compiled
            return compiled

    def _layer(self, name: str | None) -> HookPlan:
        """The hooks registered under `name`, all in the order of registration."""
        return HookPlan(*(tuple(register[name]) for register in self._registers))


class _Compiled:
    """The registered hooks, prepared for requests; made anew after each registration."""

    __slots__ = ("everywhere", "layer", "memo", "scopes")

    def __init__(self, layer: HookPlan, scopes: list[tuple[str, HookPlan]]) -> None:
        self.layer = layer
        self.scopes = scopes
        self.everywhere = _in_running_order([layer])
        self.memo: dict[str, HookPlan | None] = {}

    def plan(self, path: str) -> HookPlan | None:
        texts = [text.rstrip("/") + "/" for text in spellings(path)]
        inside = [layer for prefix, layer in self.scopes if any(text.startswith(prefix + "/") for text in texts)]
        return _in_running_order([self.layer, *inside])


def _in_running_order(layers: Iterable[HookPlan]) -> HookPlan | None:
    before, after, teardown = (tuple(chain.from_iterable(kind)) for kind in zip(*layers, strict=True))
    if before or after or teardown:
        return HookPlan(before, after[::-1], teardown[::-1])
    return None


class _Functions(MutableSequence[Hook]):
    """The functions registered under one name: a list that checks its members, and tells `Hooks` when it changes."""

    def __init__(self, hooks: Hooks, kind: str) -> None:
        self._hooks = hooks
        self._kind = kind
        self._items: list[Hook] = []

    @overload
    def __getitem__(self, index: int) -> Hook: ...
    @overload
    def __getitem__(self, index: slice) -> list[Hook]: ...
    def __getitem__(self, index: int | slice) -> Hook | list[Hook]:
        return self._items[index]

    def __setitem__(self, index: Any, value: Any) -> None:
        self._change(list.__setitem__, index, value)

    def __delitem__(self, index: int | slice) -> None:
        self._change(list.__delitem__, index)

    def insert(self, index: int, value: Hook) -> None:
        self._change(list.insert, index, value)

    def _change(self, change: Callable[..., None], *args: Any) -> None:
        with self._hooks._lock:
            items = self._items.copy()
            change(items, *args)
            for hook in items:
                check_hook(hook, self._kind, sync_only=self._hooks.sync_only)
            self._items = items
            self._hooks._compiled = None

    def __len__(self) -> int:
        return len(self._items)

    def __eq__(self, other: object) -> bool:
        return self._items == (other._items if isinstance(other, _Functions) else other)

    def __repr__(self) -> str:
        return repr(self._items)


class _Register(Mapping[str | None, _Functions]):
    """The functions of one kind by the name of the scope, None for all requests. Only `Hooks.scope` adds names."""

    def __init__(self, hooks: Hooks, kind: str) -> None:
        self.kind = kind
        self.lists: dict[str | None, _Functions] = {None: _Functions(hooks, kind)}

    def __getitem__(self, name: str | None) -> _Functions:
        try:
            return self.lists[name]
        except KeyError:
            known = ", ".join(repr(other) for other in self.lists)
            raise KeyError(
                f"No scope is named {name!r} (there are: {known}); make it with Hooks.scope first."
            ) from None

    def __setitem__(self, name: str | None, functions: Iterable[Hook]) -> None:
        self[name][:] = functions

    def setdefault(self, name: str | None, default: Iterable[Hook] = ()) -> _Functions:
        """The functions of `name`, so that Flask's `setdefault(name, []).append(…)` works; each scope has its list."""
        return self[name]

    def __iter__(self) -> Iterator[str | None]:
        return iter(self.lists)

    def __len__(self) -> int:
        return len(self.lists)

    def __repr__(self) -> str:
        return repr(self.lists)


def _literal(prefix: str) -> str:
    """The prefix, decoded and without a slash at its end. Raises: ImproperlyConfigured if it is no literal path."""
    path = decoded(prefix) if isinstance(prefix, str) else ""
    if path and (path[0] != "/" or spellings(path.rstrip("/"))[-1] != path.rstrip("/") or set(path) & set("<>{}*?#")):
        path = ""
    if not path:
        raise ImproperlyConfigured(f"The prefix of a scope is a literal path such as '/api'; got {prefix!r}.")
    return path.rstrip("/")
