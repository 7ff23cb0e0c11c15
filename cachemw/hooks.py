"""Hooks: functions of the site that run before, after and at the teardown of every HTTP request, or of a part of them.

The order is Flask's, and it is the order of the whole stack:

* before: for all requests first, then the outer scope, then the inner one, in the order of registration. The first
  hook that returns a response ends the chain; neither the cache nor the application is asked.
* after: the reverse. The innermost scope first, hooks for all requests last, the last registered first. They run for
  hits, misses and responses of a before hook alike.
* teardown: the reverse too, always, with the exception that the application raised, or None.

The two halves of the cache obey the same rule: what is registered first sees the request first and the response last.
So `UpdateCacheMiddleware` comes first, because it has to see the response after everybody changed it, and
`FetchFromCacheMiddleware` comes last, because it has to see the request after everybody changed it. "Update first,
fetch last" is nothing but "after runs in reverse".

Rule 1: no I/O, no clock, and no import of a framework: what a request and a response are is the shell's business.
Rule 2: a request pays for the hooks that apply to it and for nothing else: `Hooks.plan` is a look-up.
Rule 3: a hook that guards cannot be walked around by another spelling of the path (see `cachemw.paths`).
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

#: Paths whose plans are remembered, and the longest of them: 1000 paths of an attacker must not fill the memory.
_MEMO_PATHS: Final = 1024
_MEMO_LENGTH: Final = 256


@dataclass(frozen=True, slots=True)
class HookScope:
    """A part of the site, by path prefix, whose hooks run for it alone. Made by `Hooks.scope` or `HookScope.scope`.

    `prefix` is the whole prefix, those of the outer scopes included; `name` is the dotted name as in Flask ("api.v1").
    """

    hooks: Hooks
    prefix: str
    name: str

    def scope(self, prefix: str, *, name: str) -> HookScope:
        """A scope within this one; "/v1" within "/api" is "/api/v1", and its name is "api.v1"."""
        return self.hooks._add_scope(self, prefix, name)

    def before_request(self, hook: HookT) -> HookT:
        """Run `hook(request)` before each request of this scope; a response that it returns is the answer."""
        self.hooks.before_request_funcs[self.name].append(hook)
        return hook

    def after_request(self, hook: HookT) -> HookT:
        """Run `hook(response)` after each request of this scope; it returns the response, another one, or None."""
        self.hooks.after_request_funcs[self.name].append(hook)
        return hook

    def teardown_request(self, hook: HookT) -> HookT:
        """Run `hook(error)` at the end of each request of this scope, `error` being an exception or None."""
        self.hooks.teardown_request_funcs[self.name].append(hook)
        return hook


class Hooks(Forkable):
    """The hooks of a site: for all requests, and for the scopes of it.

        hooks = Hooks()

        @hooks.before_request
        def login(request): ...

        api = hooks.scope("/api", name="api")

        @api.after_request
        def timing(response): ...

    On WSGI hooks are plain functions and get werkzeug's `Request` and `Response`. On ASGI they get Starlette's; an
    `async def` runs on the event loop, a plain `def` in a worker thread, as Starlette does with endpoints: it may
    block, and what it sets in a `ContextVar` holds for the rest of the request. A cheap hook for ASGI is written with
    `async def`. A WebSocket is opened without any hook: a login is to be checked where it is accepted, too.

    The response of an after hook has status and fields that may be changed. On WSGI it has its body, too; on ASGI that
    is not there yet, and to set it is an error: a hook that has another body returns another response.

    `before_request_funcs`, `after_request_funcs` and `teardown_request_funcs` hold what is registered, by name of
    scope and under None for all requests; they may be read and extended, as in Flask. A name that no scope has is a
    `KeyError`: a guard must not wait for a scope that never comes.

    Hooks may be registered at any time and from any thread; requests that began before do not see them.
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
        """Run `hook(request)` before each request; a response that it returns is the answer."""
        self.before_request_funcs[None].append(hook)
        return hook

    def after_request(self, hook: HookT) -> HookT:
        """Run `hook(response)` after each request; it returns the response, another one, or None for no change."""
        self.after_request_funcs[None].append(hook)
        return hook

    def teardown_request(self, hook: HookT) -> HookT:
        """Run `hook(error)` at the end of each request, `error` being an exception or None."""
        self.teardown_request_funcs[None].append(hook)
        return hook

    def scope(self, prefix: str, *, name: str) -> HookScope:
        """The part of the site below the path `prefix`, as a Flask blueprint has it; register hooks on the result.

        "/api" is "/api" and all of "/api/…", not "/apix". The path is the one that the application routes by: without
        the mount (WSGI `SCRIPT_NAME`, ASGI `root_path`), without the query, case-sensitive. `name` is the key in
        `before_request_funcs` and the others. Raises `ImproperlyConfigured` for a prefix that is no literal path and
        for a name that is taken or contains a dot.
        """
        return self._add_scope(None, prefix, name)

    def check(self, *, async_allowed: bool) -> None:
        """Called by a shell when it is made: with False, coroutine functions are an error, now and from now on.

        Raises `ImproperlyConfigured`, naming the function.
        """
        if async_allowed:
            return
        with self._lock:
            for register in self._registers:
                for hook in chain.from_iterable(register.values()):
                    refuse_async(hook, register.kind)
            self.sync_only = True

    def plan(self, path: str) -> HookPlan | None:
        """The hooks that apply to a request for `path`, or None if there are none.

        `path` is the path below the mount, raw or decoded: a scope applies if any spelling of the path is in it.
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
            raise ImproperlyConfigured(f"The name of a scope is a text without dots, as in Flask; got {name!r}.")
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
            # The prefixes of one path are prefixes of each other: the shorter is the outer one. Sorting is stable.
            scopes = sorted(self._scopes.values(), key=lambda scope: len(scope.prefix))
            layers = [(scope.prefix, self._layer(scope.name)) for scope in scopes]
            compiled = _Compiled(self._layer(None), [(prefix, layer) for prefix, layer in layers if any(layer)])
            self._compiled = compiled
            return compiled

    def _layer(self, name: str | None) -> HookPlan:
        """The hooks registered under `name`, all in the order of registration."""
        return HookPlan(*(tuple(register[name]) for register in self._registers))


class _Compiled:
    """What is registered, as requests need it. Made anew after every registration, so it is never out of date."""

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
    """The functions registered under one name: a list that checks what comes in, and tells when it has changed."""

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
    """The functions of one kind by name of scope, None standing for all requests. Only scopes make new names."""

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
        """The functions of `name`: every scope has its list, so that Flask's idiom for extending it works."""
        return self[name]

    def __iter__(self) -> Iterator[str | None]:
        return iter(self.lists)

    def __len__(self) -> int:
        return len(self.lists)

    def __repr__(self) -> str:
        return repr(self.lists)


def _literal(prefix: str) -> str:
    """`prefix` decoded, without the slash at its end."""
    path = decoded(prefix) if isinstance(prefix, str) else ""
    if path and (path[0] != "/" or spellings(path.rstrip("/"))[-1] != path.rstrip("/") or set(path) & set("<>{}*?#")):
        path = ""
    if not path:
        raise ImproperlyConfigured(f"The prefix of a scope is a literal path such as '/api'; got {prefix!r}.")
    return path.rstrip("/")
