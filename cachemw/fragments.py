"""Fragments: parts of pages, kept by a name and by the values that they vary on.

    {% cache 500 sidebar user.id %} … {% endcache %}                Jinja, with `CacheExtension`

    with fragment("sidebar", [user.id], 500) as part:               Python, Mako (`% with …`); `async with` as well
        if part.missing:
            part.body = render_sidebar(user)
    page += part.body

    @fragment("sidebar", lambda user: [user.id], 500)               functions that return text: Django's template tags
    def sidebar(user): ...

    cache.delete(make_template_fragment_key("sidebar", [user.id]))  invalidates it

A fragment is in the store "template_fragments" if it is configured, else in "default"; `using` names another store.

Rule 1: different values never share a fragment: ["a:b"] and ["a", "b"] are two, so are 1 and "1" (in Django they are
        one). An object that has no value of its own is refused: two users may print alike.
Rule 2: HTML stays HTML and text stays text. The text of a template without autoescaping never gets, unescaped, into a
        template with it.
Rule 3: if the store does not answer, the fragment is rendered.
"""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable, Iterable
from contextlib import closing
from types import TracebackType
from typing import TYPE_CHECKING, Any, Final, TypeVar, cast

from markupsafe import Markup

from cachemw._memoize.keys import digest, frame, label
from cachemw._memoize.passage import Ended, Failed, Held, Made, Passage, Recipe
from cachemw._memoize.stores import check_store, store_of
from cachemw._values import number
from cachemw.backends.base import DEFAULT_TIMEOUT, BaseCache
from cachemw.calling import is_async

if TYPE_CHECKING:
    from cachemw._fragments_jinja import CacheExtension

__all__ = ["CacheExtension", "Fragment", "Part", "fragment", "make_template_fragment_key"]

F = TypeVar("F", bound=Callable[..., Any])

#: The alias of the store for fragments, as in Django.
ALIAS: Final = "template_fragments"


if not TYPE_CHECKING:  # to a type checker, a module with this function has every name

    def __getattr__(name: str) -> Any:
        if name == "CacheExtension":  # Jinja is not required
            try:
                from cachemw._fragments_jinja import CacheExtension
            except ModuleNotFoundError as error:
                raise ImportError(
                    f"CacheExtension needs the package {error.name}: pip install 'cachemw[jinja]'"
                ) from error
            return CacheExtension
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def make_template_fragment_key(fragment_name: str, vary_on: Iterable[Any] | None = None) -> str:
    """The key of a fragment in its store.

        cache.delete(make_template_fragment_key("sidebar", [user.id]))

    vary_on  the values that stand after the name in the tag, in this order: None, strings, numbers, dates, UUIDs,
             enums, and lists, tuples, sets and dictionaries of them. None in place of the list: there are no values

    Raises: TypeError for another object; use what identifies it, such as user.id.
    """
    if not isinstance(fragment_name, str) or not fragment_name:
        raise TypeError(f"A fragment's name is a string that is not empty; got {fragment_name!r}.")
    if isinstance(vary_on, str | bytes) or not isinstance(vary_on, Iterable | None):
        raise TypeError(f"Fragment {fragment_name!r}: vary_on is {vary_on!r}; allowed: a list of values, or None.")
    frames = []
    for number_, value in enumerate(() if vary_on is None else vary_on, 1):
        try:
            frames.append(frame(value))
        except TypeError as error:
            raise TypeError(
                f"Fragment {fragment_name!r} cannot vary on its argument {number_}: {error}. Vary on what identifies "
                "it, such as user.id."
            ) from None
    return f"template.cache.{label(fragment_name)}.{digest(frame(fragment_name), *frames)}"


# -- as they are stored: text as text, HTML as {"html": text} ---------------------------------------------------------


def _pack(body: str, cost: float) -> Any:
    if not isinstance(body, str):
        raise TypeError(f"The body of a fragment is a string; got {body!r}.")
    return {"html": str(body)} if hasattr(body, "__html__") else str(body)


def _unpack_html(stored: Any) -> Held | None:
    match stored:
        case {"html": str() as text}:
            return Held(Markup(text))  # noqa: S704  it was Markup when it was stored
    return None


def _unpack_text(stored: Any) -> Held | None:
    return Held(stored) if isinstance(stored, str) else None


def _unpack_either(stored: Any) -> Held | None:
    return _unpack_text(stored) or _unpack_html(stored)


def recipe(name: str, timeout: Any, *, html: bool | None) -> Recipe | None:
    """How a fragment is kept, as HTML, as text, or as either (None); None: it is not.

    Raises: ImproperlyConfigured for a timeout that is none.
    """
    if timeout is not None and timeout is not DEFAULT_TIMEOUT:
        timeout = number(f"The timeout of the fragment {name!r}", timeout)
        if timeout <= 0:
            return None
    unpack = _unpack_either if html is None else _unpack_html if html else _unpack_text
    return Recipe(name=f"fragment {name!r}", timeout=timeout, pack=_pack, unpack=unpack)


# -- in Python --------------------------------------------------------------------------------------------------------


class Part:
    """A fragment inside of its `with` block. If `missing` is true, it is not stored: render it and set `body`."""

    __slots__ = ("_body", "missing")

    def __init__(self, body: str | None) -> None:
        self._body = body
        self.missing = body is None

    @property
    def body(self) -> str:
        """The fragment's text; `Markup` if it was set to `Markup`. Raises: AttributeError if it is not set."""
        if self._body is None:
            raise AttributeError("The fragment is missing: render it, and set part.body, where part.missing is true.")
        return self._body

    @body.setter
    def body(self, body: str) -> None:
        if not isinstance(body, str):
            raise TypeError(f"The body of a fragment is a string; got {body!r}.")
        self._body = body

    def __str__(self) -> str:
        return self.body


class Fragment:
    """See `fragment`. As a context manager it is used once; as a decorator it is used at every call."""

    def __init__(self, name: str, vary_on: Any, timeout: Any, using: str | BaseCache | None) -> None:
        self._key = None if callable(vary_on) else make_template_fragment_key(name, vary_on)
        self.name = name
        self._vary_on: Any = vary_on
        self._recipe = recipe(name, timeout, html=None)
        self._using = check_store("fragment: using", using)
        self._passage: Passage | None = None
        self._part = Part(None)
        self._entered = False

    # -- a context manager ---------------------------------------------------------------------------------------

    def __enter__(self) -> Part:
        passage = self._begin()
        return self._begun(None if passage is None else passage.proceed())

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, _: TracebackType | None) -> None:
        if self._passage is not None:
            with closing(self._passage.steps):
                if (answer := self._answer(error)) is not None:
                    self._passage.proceed(answer)

    async def __aenter__(self) -> Part:
        passage = self._begin()
        return self._begun(None if passage is None else await passage.aproceed())

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, _: TracebackType | None
    ) -> None:
        if self._passage is not None:
            with closing(self._passage.steps):
                if (answer := self._answer(error)) is not None:
                    await self._passage.aproceed(answer)

    def _begin(self) -> Passage | None:
        if self._key is None:
            raise TypeError(f"fragment {self.name!r}: vary_on is a function, which only a decorator can call.")
        if self._entered:
            raise RuntimeError(f"fragment {self.name!r} was entered before: call fragment(…) for each use.")
        self._entered = True
        if self._recipe is not None:
            self._passage = self._passage_of(self._key, self._recipe)
        return self._passage

    def _begun(self, end: Ended | None) -> Part:
        self._part = Part(None if end is None else end.answer)
        return self._part

    def _answer(self, error: BaseException | None) -> Made | Failed | None:
        """What became of the body; None: it was not set, or the thread or task that had to render it was stopped."""
        if error is None:
            return None if self._part._body is None else Made(self._part._body, 0.0)
        return Failed(error) if isinstance(error, Exception) else None

    def _passage_of(self, key: str, recipe: Recipe) -> Passage:
        return Passage(store_of(self._using, None, ALIAS), key, recipe)

    # -- a decorator ---------------------------------------------------------------------------------------------

    def __call__(self, function: F) -> F:
        if not callable(function) or isinstance(function, type):
            raise TypeError(f"fragment {self.name!r} decorates a function that returns text; got {function!r}.")
        if self._vary_on is None and inspect.signature(function).parameters:
            raise TypeError(
                f"fragment {self.name!r}: {function.__qualname__} has parameters. Say what its text varies on, as in "
                'fragment("sidebar", lambda user: [user.id], 500), or [] if on none of them.'
            )
        return cast(F, self._coroutine(function) if is_async(function) else self._function(function))

    def _function(self, function: Callable[..., Any]) -> Callable[..., Any]:
        @functools.wraps(function)
        def rendered(*args: Any, **kwargs: Any) -> Any:
            if self._recipe is None:
                return function(*args, **kwargs)
            key = self._key or make_template_fragment_key(self.name, self._vary_on(*args, **kwargs))
            return self._passage_of(key, self._recipe).run(lambda: function(*args, **kwargs))

        return rendered

    def _coroutine(self, function: Callable[..., Any]) -> Callable[..., Any]:
        @functools.wraps(function)
        async def rendered(*args: Any, **kwargs: Any) -> Any:
            if self._recipe is None:
                return await function(*args, **kwargs)
            key = self._key or make_template_fragment_key(self.name, self._vary_on(*args, **kwargs))
            return await self._passage_of(key, self._recipe).arun(lambda: function(*args, **kwargs))

        return rendered


def fragment(
    name: str,
    vary_on: Iterable[Any] | Callable[..., Iterable[Any]] | None = None,
    timeout: float | None = DEFAULT_TIMEOUT,
    *,
    using: str | BaseCache | None = None,
) -> Fragment:
    """A fragment of a page: a context manager (`with`, `async with`), or a decorator of functions that return text.

        with fragment("sidebar", [user.id], 500) as part:
            if part.missing:
                part.body = render_sidebar(user)
        page += part.body

    name     a string; the key is made of it and of `vary_on` (see `make_template_fragment_key`)
    vary_on  a list of values; for a decorator also a function of the decorated function's arguments that returns the
             list, which is required if that function has parameters
    timeout  seconds; None: for ever; 0 or less: always rendered; left out: the store's TIMEOUT
    using    alias, URL or store; None: "template_fragments" if it is configured, else "default"

    `with` gives a `Part`. Of many threads or tasks in a process that miss a fragment at the same time, one renders it.

    Raises: TypeError for a value that cannot be part of a key; ImproperlyConfigured for a wrong timeout or URL. When it
    is used: InvalidCacheBackendError for an alias that is not configured.
    """
    return Fragment(name, vary_on, timeout, using)
