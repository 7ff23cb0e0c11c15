"""Calling what the site has written: hooks in their order, and functions that may be plain or async.

Rule 1: on WSGI everything is a plain function. On ASGI an `async def` runs on the event loop and a plain `def` in a
        worker thread, as Starlette does with endpoints: it may block, and must not stop the other requests.
Rule 2: what a before or an after hook raises is the application's error; a teardown hook stops nothing.
"""

from __future__ import annotations

import inspect
import logging
from collections.abc import Callable
from contextvars import copy_context
from functools import partial
from typing import Any, Final, NamedTuple

from cachemw.errors import ImproperlyConfigured

__all__ = [
    "Hook",
    "HookPlan",
    "arun_after",
    "arun_before",
    "arun_teardown",
    "call",
    "check_hook",
    "is_async",
    "refuse_async",
    "run_after",
    "run_before",
    "run_teardown",
]

logger = logging.getLogger("cachemw.hooks")

_UNSET: Final = object()

Hook = Callable[[Any], Any]


class HookPlan(NamedTuple):
    """The hooks of one request, each tuple in the order in which they run."""

    before: tuple[Hook, ...]
    after: tuple[Hook, ...]
    teardown: tuple[Hook, ...]

    @property
    def matters(self) -> bool:
        """Do any of them decide about the answer, or change it?"""
        return bool(self.before or self.after)


def run_before(plan: HookPlan, request: Any) -> Any | None:
    """Run the before hooks until one returns a response, and return that, or None. What a hook raises, is raised."""
    for hook in plan.before:
        response = hook(request)
        if response is not None:
            _refuse_awaitable(hook, response)
            return response
    return None


def run_after(plan: HookPlan, request: Any, response: Any) -> Any:
    """Pass the response through the after hooks, and return what it has become. What a hook raises, is raised."""
    for hook in plan.after:
        replacement = hook(response)
        if replacement is not None:
            _refuse_awaitable(hook, replacement)
            response = replacement
    return response


def run_teardown(plan: HookPlan, error: BaseException | None) -> None:
    """Run every teardown hook. An exception of one is logged; what is no `Exception` is raised after the last."""
    leaving: BaseException | None = None
    for hook in plan.teardown:
        try:
            _refuse_awaitable(hook, hook(error))
        except Exception:
            logger.exception("The teardown hook %s failed.", _name(hook))
        except BaseException as stop:  # SystemExit, KeyboardInterrupt, gevent's timeouts
            leaving = leaving or stop
    if leaving is not None:
        raise leaving


async def arun_before(plan: HookPlan, request: Any) -> Any | None:
    """`run_before` for ASGI: coroutine functions and plain ones, mixed."""
    for hook in plan.before:
        response = await call(hook, request)
        if response is not None:
            return response
    return None


async def arun_after(plan: HookPlan, request: Any, response: Any) -> Any:
    """`run_after` for ASGI: coroutine functions and plain ones, mixed."""
    for hook in plan.after:
        replacement = await call(hook, response)
        if replacement is not None:
            response = replacement
    return response


async def arun_teardown(plan: HookPlan, error: BaseException | None) -> None:
    """`run_teardown` for ASGI; runs to its end when the request's task is cancelled, and lets it be cancelled then."""
    from anyio import CancelScope

    leaving: BaseException | None = None
    for hook in plan.teardown:
        try:
            with CancelScope(shield=True):
                await call(hook, error)
        except Exception:
            logger.exception("The teardown hook %s failed.", _name(hook))
        except BaseException as stop:  # asyncio's own cancellation does not respect the shield
            leaving = leaving or stop
    if leaving is not None:
        raise leaving


async def call(function: Callable[..., Any], *args: Any) -> Any:
    """Call a function of the site's from the event loop: a coroutine function here, a plain one in a worker thread.

    This is Starlette's rule for endpoints: a plain function may block, and then must not stop the other requests. What
    it sets in a `ContextVar` holds for the rest of the request, as if it had run here.
    """
    if is_async(function):
        return await function(*args)
    from anyio.to_thread import run_sync

    context = copy_context()
    result = await run_sync(context.run, function, *args)
    for variable, value in context.items():
        if variable.get(_UNSET) is not value:
            variable.set(value)
    return await result if inspect.isawaitable(result) else result


def is_async(function: Callable[..., Any]) -> bool:
    """Whether calling it gives a coroutine: an `async def`, an object whose call is one, a `partial` of either."""
    while isinstance(function, partial):
        function = function.func
    return inspect.iscoroutinefunction(function) or inspect.iscoroutinefunction(type(function).__call__)


def check_hook(hook: Any, kind: str, *, sync_only: bool) -> None:
    """Raises: TypeError for what is no hook of this kind; ImproperlyConfigured for an async one if `sync_only`."""
    if not callable(hook) or inspect.isgeneratorfunction(hook) or inspect.isasyncgenfunction(hook):
        raise TypeError(f"A {kind} hook is a function, or an async one for ASGI; got {hook!r}.")
    if sync_only:
        refuse_async(hook, kind)


def refuse_async(hook: Hook, kind: str) -> None:
    """Raises: ImproperlyConfigured for an async one, which a WSGI application cannot await."""
    if is_async(hook):
        raise ImproperlyConfigured(
            f"The {kind} hook {_name(hook)} is async, and the application is WSGI: write it as a plain function."
        )


def _refuse_awaitable(hook: Hook, result: Any) -> None:
    """A plain function that returns a coroutine has passed `refuse_async`; as a response it would be nonsense."""
    if inspect.isawaitable(result):
        if inspect.iscoroutine(result):
            result.close()
        raise TypeError(f"The hook {_name(hook)} returned an awaitable, and the application is WSGI.")


def _name(hook: Hook) -> str:
    while isinstance(hook, partial):
        hook = hook.func
    return f"{hook.__module__}.{getattr(hook, '__qualname__', type(hook).__qualname__)}"
