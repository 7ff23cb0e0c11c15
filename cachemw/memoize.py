"""Memoize: keep what a function returned in a cache, by the arguments of the call.

    @cached(300)
    def price(article: int, currency: str = "EUR") -> Decimal: ...

    price(7); price(article=7); price(7, "EUR")         the function runs once
    price.invalidate(7)                                 it runs at the next call
    price.refresh(7)                                    it runs now

It decorates functions, methods, class methods and static methods, plain and async; `invalidate` and `refresh` of an
async function are awaited. None is kept like any value. An exception is not kept: the caller gets it, and the next call
tries again.

Rule 1: a key is made of everything that the result may depend on and that can be known: the function, its bound
        arguments with defaults applied, and the variables that it is closed over. Two results never share a key.
Rule 2: an argument that cannot be part of a key (an object of the application's, say) is an error with advice. A
        function that is closed over such an object shares its values with no other function. `key=` is the way out.
Rule 3: if the cache does not answer, the function is called; only `invalidate` raises an error then.
"""

from __future__ import annotations

import functools
import inspect
import logging
import math
import time
from collections.abc import Callable, Coroutine
from types import CodeType, FunctionType
from typing import Any, Final, Generic, ParamSpec, Protocol, Self, TypeVar, cast, overload

from cachemw._caching_here import is_view_here
from cachemw._memoize.closures import Closure, Decorated, code_frame, has_no_key, has_own_globals, named
from cachemw._memoize.keys import digest, frame, label
from cachemw._memoize.passage import MARK_TIMEOUT, Held, Passage, Recipe, mark_of, new_mark, passage, remade
from cachemw._memoize.stores import check_store, store_of
from cachemw._values import number
from cachemw.backends.base import BaseCache
from cachemw.calling import is_async

__all__ = ["AsyncMemoized", "Memoized", "cached"]

P = ParamSpec("P")
Q = ParamSpec("Q")
R = TypeVar("R")
T = TypeVar("T")
T_contra = TypeVar("T_contra", contravariant=True)
R_co = TypeVar("R_co", covariant=True)

#: Called with the function's arguments; returns the value, or a tuple of values, that the key is made of.
KeyFunction = Callable[..., Any]

log = logging.getLogger("cachemw")

_POSITIONAL: Final = (inspect.Parameter.POSITIONAL_ONLY, inspect.Parameter.POSITIONAL_OR_KEYWORD)


class _Function:
    """A decorated function: its name, its signature, and how its values are kept."""

    def __init__(
        self,
        function: FunctionType,
        binds: str,
        key: KeyFunction | None,
        cache: str | BaseCache | None,
        **times: Any,
    ) -> None:
        self.call = function
        self.name = f"{function.__module__}.{function.__qualname__}"
        self.binds = binds
        self.cache = cache
        self._key = key
        self._signature = inspect.signature(function)
        self.recipe = Recipe(name=self.name, pack=self._pack, unpack=_unpack, marked=True, **times)
        self.is_kept = self.recipe.timeout is None or self.recipe.timeout > 0
        parameters = self._signature.parameters.values()
        self._parameters = tuple(one.name for one in parameters)
        self._defaults = tuple(one.default for one in parameters if one.default is not one.empty)
        self._is_simple = all(one.kind in _POSITIONAL for one in parameters)
        self._label = label(f"memoize.{self.name}")
        self._prefix = frame((self.name, self._parameters, key is not None)) + _told_apart(self.name, function, key)
        is_closed = function.__closure__ is not None or has_own_globals(function)
        self._closure = Closure(function, keyed=key is not None) if is_closed else None
        self._warned = False

    def key(self, args: tuple[Any, ...], kwargs: dict[str, Any]) -> str:
        """The key of a call. Raises: TypeError for wrong arguments, and for one that cannot be part of a key."""
        if self._key is None:
            values = self._bound(args, kwargs)
            if values and isinstance(values[0], type):  # as class methods are given
                values = (named(values[0]), *values[1:])
            try:
                frames = [frame(value) for value in values]
            except TypeError as error:
                raise TypeError(self._refusal(values, error)) from None
        else:
            bound = self._bind(args, kwargs)
            said = self._key(*bound.args, **bound.kwargs)
            try:
                frames = [frame(said)]
            except TypeError as error:
                raise TypeError(f"key= of {self.name} returned what cannot be a key: {error}.") from None
        around = b"" if self._closure is None else self._closure.frame()
        return f"{self._label}.{digest(self._prefix, around, *frames)}"

    def _bound(self, args: tuple[Any, ...], kwargs: dict[str, Any]) -> tuple[Any, ...]:
        """The arguments in the order of the parameters."""
        missing = len(self._parameters) - len(args)
        if self._is_simple and not kwargs and 0 <= missing <= len(self._defaults):  # as `bind`, in a tenth of the time
            return args + self._defaults[len(self._defaults) - missing :]
        return tuple(self._bind(args, kwargs).arguments.values())

    def _bind(self, args: tuple[Any, ...], kwargs: dict[str, Any]) -> inspect.BoundArguments:
        try:
            bound = self._signature.bind(*args, **kwargs)
        except TypeError as error:
            raise TypeError(f"{self.name}: {error}") from None
        bound.apply_defaults()
        return bound

    def _refusal(self, values: tuple[Any, ...], error: TypeError) -> str:
        bare = [one.replace(annotation=one.empty, default=one.empty) for one in self._signature.parameters.values()]
        name = next(name for name, value in zip(self._parameters, values, strict=True) if has_no_key(value))
        return (
            f"{self.name}: its argument {name!r} cannot be part of a key: {error}. Say what counts of it, as in "
            f"cached(…, key=lambda {str(inspect.Signature(bare))[1:-1]}: {name}.id)."
        )

    def made(self, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        """Call the function. Raises: TypeError for a view of Flask's: it reads the request, which is no argument."""
        if self._key is None and is_view_here(self.call):
            raise TypeError(
                f"cached: {self.name} is a view, and what it read of this request it would show to everybody. Write "
                "@cache_page(60), which keeps the page; or key=, which says what counts."
            )
        return self.call(*args, **kwargs)

    def store(self) -> BaseCache:
        """The store of its values. Raises: InvalidCacheBackendError for an alias that is not configured."""
        cache = store_of(self.cache, None)
        if self._closure is not None and self._closure.own is not None and cache.shared and not self._warned:
            self._warned = True
            variable, why = self._closure.own
            log.warning(
                "%s is closed over %r (%s), so its values are its own: no other process finds them, and invalidate "
                "reaches none there. Say what counts with key=, or pass %r as an argument.",
                *(self.name, variable, why, variable),
            )
        return cache

    def _pack(self, value: Any, cost: float) -> list[Any]:
        timeout = self.recipe.timeout
        return [value, None if timeout is None else time.time() + timeout, cost]


#: By name, the code of the first function (and of its `key`) that was decorated under it.
_first: Final[dict[str, tuple[CodeType, CodeType | None]]] = {}


def _told_apart(name: str, function: FunctionType, key: KeyFunction | None) -> bytes:
    """What distinguishes a function from others with its name: two lambdas, or two "def _()" in one module."""
    codes = function.__code__, getattr(key, "__code__", None)
    if "<" not in name and function.__module__ != "__main__" and _first.setdefault(name, codes) == codes:
        return b""
    return b"".join(code_frame(code) for code in codes if code is not None)


def _unpack(stored: Any) -> Held | None:
    match stored:
        case [value, None, int() | float()]:
            return Held(value)
        case [value, int() | float() as fresh_until, int() | float() as cost]:
            return Held(value, fresh_until, cost)
    return None


# -- the decorated ----------------------------------------------------------------------------------------------------


class _Bindable(Decorated, Generic[P, R]):
    """A function, or a method with its object: both have the same attributes."""

    __name__: str
    __qualname__: str

    def __init__(self, function: _Function) -> None:
        self._function = function
        self._bound: tuple[Any, ...] = ()
        functools.update_wrapper(cast(Any, self), function.call)
        # With these attributes `inspect` reports it as a function, and an async one as a coroutine function.
        self.__code__ = function.call.__code__
        self.__defaults__ = function.call.__defaults__
        self.__kwdefaults__ = function.call.__kwdefaults__

    def cache_key(self, /, *args: P.args, **kwargs: P.kwargs) -> str:
        """The key of the result for these arguments. Raises: TypeError if one of them cannot be part of a key."""
        return self._function.key((*self._bound, *args), kwargs)

    def made_of(self) -> tuple[FunctionType, tuple[Any, ...]]:
        return self._function.call, self._bound

    def _prepared(self, begin: Any, args: Any, kwargs: Any) -> tuple[Passage, Callable[[], Any]]:
        """The passage for these arguments, and the call that makes the value."""
        function = self._function
        given = (*self._bound, *args)
        key = function.key(given, kwargs)
        return Passage(function.store(), key, function.recipe, begin), lambda: function.made(given, kwargs)

    def _bind(self, instance: Any, owner: Any) -> Self:
        binds = self._function.binds
        first = owner if binds == "class" else instance
        if first is None or not binds or self._bound:
            return self
        bound = object.__new__(type(self))
        method = self._function.call.__get__(first)
        bound.__dict__.update(self.__dict__, _bound=(first,), __wrapped__=method)
        return bound

    def __reduce__(self) -> Any:
        """Pickled by name, as functions and methods are."""
        return (getattr, (self._bound[0], self.__name__)) if self._bound else self.__qualname__

    def __repr__(self) -> str:
        return f"<memoized {self._function.name}>"


class _Method(Protocol[T_contra, Q, R_co]):
    """For type checkers: it shows them the first parameter of a method."""

    def __call__(self, first: T_contra, /, *args: Q.args, **kwargs: Q.kwargs) -> R_co: ...


class Memoized(_Bindable[P, R]):
    """A function whose results are kept; see `cached`."""

    def __call__(self, /, *args: P.args, **kwargs: P.kwargs) -> R:
        """The result for these arguments, of this call or of an earlier one."""
        if not self._function.is_kept:
            return cast(R, self._function.call(*self._bound, *args, **kwargs))
        prepared, call = self._prepared(passage, args, kwargs)
        return cast(R, prepared.run(call))

    def refresh(self, /, *args: P.args, **kwargs: P.kwargs) -> R:
        """Call the function now and keep the result; results of calls that began earlier are not kept."""
        prepared, call = self._prepared(remade, args, kwargs)
        return cast(R, prepared.run(call))

    def invalidate(self, /, *args: P.args, **kwargs: P.kwargs) -> bool:
        """Remove the result for these arguments; results of calls that began earlier are not kept. Was there one?

        Raises: BackendUnavailable if the store does not answer.
        """
        key = self.cache_key(*args, **kwargs)
        cache = self._function.store()
        cache.set(mark_of(key), new_mark(), MARK_TIMEOUT)
        return cache.delete(key)

    # The first parameter tells the kind: the class for a class method, the object for a method.
    @overload
    def __get__(self: _Method[T, Q, R], instance: object, owner: T) -> Memoized[Q, R]: ...
    @overload
    def __get__(self: _Method[T, Q, R], instance: T, owner: type) -> Memoized[Q, R]: ...
    @overload
    def __get__(self, instance: object, owner: type) -> Self: ...
    def __get__(self, instance: Any, owner: Any = None) -> Any:
        return self._bind(instance, owner)


class AsyncMemoized(_Bindable[P, R]):
    """A coroutine function whose results are kept; see `cached`."""

    async def __call__(self, /, *args: P.args, **kwargs: P.kwargs) -> R:
        """The result for these arguments, of this call or of an earlier one."""
        if not self._function.is_kept:
            return cast(R, await self._function.call(*self._bound, *args, **kwargs))
        prepared, call = self._prepared(passage, args, kwargs)
        return cast(R, await prepared.arun(call))

    async def refresh(self, /, *args: P.args, **kwargs: P.kwargs) -> R:
        """Call the function now and keep the result; results of calls that began earlier are not kept."""
        prepared, call = self._prepared(remade, args, kwargs)
        return cast(R, await prepared.arun(call))

    async def invalidate(self, /, *args: P.args, **kwargs: P.kwargs) -> bool:
        """Remove the result for these arguments; results of calls that began earlier are not kept. Was there one?

        Raises: BackendUnavailable if the store does not answer.
        """
        key = self.cache_key(*args, **kwargs)
        cache = self._function.store()
        await cache.aset(mark_of(key), new_mark(), MARK_TIMEOUT)
        return await cache.adelete(key)

    # The first parameter tells the kind: the class for a class method, the object for a method.
    @overload
    def __get__(self: _Method[T, Q, Coroutine[Any, Any, R]], instance: object, owner: T) -> AsyncMemoized[Q, R]: ...
    @overload
    def __get__(self: _Method[T, Q, Coroutine[Any, Any, R]], instance: T, owner: type) -> AsyncMemoized[Q, R]: ...
    @overload
    def __get__(self, instance: object, owner: type) -> Self: ...
    def __get__(self, instance: Any, owner: Any = None) -> Any:
        return self._bind(instance, owner)


# -- the decorator ----------------------------------------------------------------------------------------------------


class Cached:
    """The decorator that `cached` returns."""

    def __init__(self, **options: Any) -> None:
        self._options = options

    @overload
    def __call__(  # type: ignore[overload-overlap]  # a coroutine function is a function too
        self, function: Callable[P, Coroutine[Any, Any, R]]
    ) -> AsyncMemoized[P, R]: ...
    @overload
    def __call__(self, function: Callable[P, R]) -> Memoized[P, R]: ...
    def __call__(self, function: Any) -> Any:
        binds = "instance"
        if isinstance(function, staticmethod | classmethod):
            binds = "class" if isinstance(function, classmethod) else ""
            function = function.__func__
        if not inspect.isfunction(function):  # of a method with its object, only the class would be known
            raise TypeError(
                f"cached decorates a function or a method; {function!r} is neither. Write @cached(seconds) directly "
                "above its def (and below @property)."
            )
        if inspect.isgeneratorfunction(function) or inspect.isasyncgenfunction(function):
            raise TypeError(
                f"cached: {function.__module__}.{function.__qualname__} is a generator, which can be read only once. "
                "Return a list from it."
            )
        known = _Function(function, binds, **self._options)
        return AsyncMemoized(known) if is_async(function) else Memoized(known)


def cached(
    timeout: float | None,
    *,
    key: KeyFunction | None = None,
    cache: str | BaseCache | None = None,
    stale: float = 0,
    beta: float = 1.0,
) -> Cached:
    """Keep what a function returns, by the arguments of the call.

        @cached(300)
        def price(article: int, currency: str = "EUR") -> Decimal: ...

        price.invalidate(7)

    timeout  seconds that a result is kept; None: for ever; 0 or less: not kept
    key      a function with the same arguments; the key is made of what it returns (several values in a tuple), not of
             the arguments; None: of all arguments
    cache    alias, URL or store; None: "default", of the current Flask application, else of the process
    stale    seconds after the timeout during which the old result is returned if a new call fails
    beta     how early a result may be renewed before its timeout: by chance, about `beta` times the duration of the
             call, so that one of many processes renews it; 0: never (XFetch, Vattani et al. 2015)

    The decorated function has the methods `invalidate(…)`, `refresh(…)` and `cache_key(…)`, which take its arguments.
    The first two are awaited if the function is async.

    Arguments can be None, numbers, strings, bytes, dates, decimals, UUIDs, paths, enums; lists, tuples, dicts and
    sets of them; and classes and functions that can be imported. For other objects give `key`; for a method it gets
    the object first: `key=lambda self, day: (self.id, day)`.

    Variables of an outer function that the function uses are part of the key, too. If one of them cannot be (a client),
    or may change (a list), the results are for this function in this process only; with `key`, such variables are left
    out. Global variables are never part of the key.

    Of many callers in a process at the same time, one calls the function and the others wait. A result comes back as
    the cache's serializer restores it: with "json" a tuple becomes a list. A result that cannot be stored is returned
    all the same, and logged.

    Raises: TypeError for anything but a function, for a generator, and for a wrong `key`; ImproperlyConfigured
    for other wrong options. A call raises TypeError if an argument cannot be part of a key, and if the function is a
    view of Flask or Quart without `key`; InvalidCacheBackendError for an alias that is not configured.
    """
    if callable(timeout):
        raise TypeError(f"cached: the timeout is a number of seconds, or None; got {timeout!r}. Write @cached(60).")
    if key is not None and (not callable(key) or is_async(key)):
        raise TypeError(f"cached: key is {key!r}; allowed: a plain function of the decorated function's arguments")
    return Cached(
        key=key,
        cache=check_store("cached: cache", cache),
        timeout=None if timeout is None or timeout == math.inf else number("cached: timeout", timeout),
        stale=number("cached: stale", stale, minimum=0),
        beta=number("cached: beta", beta, minimum=0),
    )
