"""The Jinja tag `{% cache timeout name args… using="alias" %}…{% endcache %}`, Django's.

Rule 1: a mistake that the parser can see is a TemplateSyntaxError with its line.
Rule 2: in an async environment the store and the content are awaited.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any, Final, NoReturn

from jinja2 import Environment, Undefined, UndefinedError, nodes, pass_eval_context
from jinja2.ext import Extension
from jinja2.parser import Parser

from cachemw._memoize.passage import Passage
from cachemw._memoize.stores import store_of
from cachemw._values import number
from cachemw.backends.base import BaseCache
from cachemw.backends.registry import Caches
from cachemw.errors import ImproperlyConfigured, InvalidCacheBackendError
from cachemw.fragments import ALIAS, make_template_fragment_key, recipe

__all__ = ["CacheExtension"]

_HINT: Final = "Write {% cache 500 sidebar user.id %}"

#: The tokens that an argument can begin with. Another token after the name belongs to the name, which is then wrong.
_BEGINNINGS: Final = frozenset(
    {"block_end", "comma", "float", "integer", "lbrace", "lbracket", "lparen", "name", "string"}
)


class CacheExtension(Extension):
    """The Jinja extension with the tag `{% cache 500 sidebar user.name %}`.

    `environment.cachemw_caches` holds the stores by alias; None: those of the Flask application, else of the process.

    timeout  seconds, an expression; None: for ever; 0: always rendered
    name     a word or a string in quotes, taken literally
    args     expressions; the fragment varies on their values; commas between them are allowed
    using    an expression: the alias of the store

    Raises: UndefinedError for an undefined argument, which would give all visitors the same fragment.
    """

    tags = {"cache"}  # noqa: RUF012  as jinja2 declares it

    def __init__(self, environment: Environment) -> None:
        super().__init__(environment)
        environment.extend(cachemw_caches=getattr(environment, "cachemw_caches", None))

    def parse(self, parser: Parser) -> list[nodes.Node]:
        """A macro with the tag's content, and a call that gets the macro. Not one of Jinja's call blocks: in a template
        with `extends`, these would be rendered outside of blocks."""
        lineno = next(parser.stream).lineno
        call = _Call(self, parser, lineno)
        body = parser.parse_statements(("name:endcache",), drop_needle=True)
        name = f"_cachemw_{parser.free_identifier().name}"
        arguments: list[nodes.Expr] = [nodes.Const(call.name), nodes.List(call.vary_on), call.timeout, call.using]
        rendered = self.call_method("_render", [*arguments, nodes.Name(name, "load")])
        return [
            nodes.Macro(name, [], [], body).set_lineno(lineno),
            nodes.Output([rendered]).set_lineno(lineno),
        ]

    def store(self, using: Any) -> BaseCache:
        """The store of this alias. Raises: InvalidCacheBackendError."""
        known: Caches | None = self.environment.cachemw_caches  # type: ignore[attr-defined]
        return store_of(using, known, ALIAS)

    @pass_eval_context
    def _render(
        self, context: nodes.EvalContext, name: str, vary_on: list[Any], timeout: Any, using: Any, body: Any
    ) -> Any:
        """The fragment; in an async environment, an awaitable of it."""
        for what, value in (("timeout", timeout), ("using", using), *enumerate(vary_on, 1)):
            if isinstance(value, Undefined):
                raise UndefinedError(
                    f"{{% cache %}}: of the fragment {name!r}, "
                    f"{what if isinstance(what, str) else f'argument {what}'} is undefined. If it may be, give it a "
                    "default, as in user.id|default(none)."
                )
        how = recipe(name, timeout, html=bool(context.autoescape))
        key = make_template_fragment_key(name, vary_on)
        cache = self.store(using)
        if how is None:
            return body()
        passage = Passage(cache, key, how)
        if self.environment.is_async:
            return passage.arun(partial(_atext, body))
        return passage.run(lambda: _text(body()))


def _text(body: Any) -> str:
    """The rendered text; native environments may return a number."""
    return body if isinstance(body, str) else str(body)


async def _atext(body: Callable[[], Any]) -> str:
    return _text(await body())


class _Call:
    """The content of the tag. Raises: TemplateSyntaxError."""

    def __init__(self, extension: CacheExtension, parser: Parser, lineno: int) -> None:
        self._extension = extension
        self._parser = parser
        self._lineno = lineno
        self.timeout = self._timeout()
        self.name = self._name()
        self.vary_on: list[nodes.Expr] = []
        self.using: nodes.Expr = nodes.Const(None)
        stream = parser.stream
        while stream.current.type != "block_end":
            separated = stream.skip_if("comma")
            if self._at_keyword():
                self.using = self._using()
            else:
                self.vary_on.append(self._argument(separated))

    def _fail(self, message: str) -> NoReturn:
        self._parser.fail(f"{{% cache %}} {message}. {_HINT}", self._lineno)

    def _at_keyword(self) -> bool:
        stream = self._parser.stream
        return stream.current.type == "name" and stream.look().type == "assign"

    def _timeout(self) -> nodes.Expr:
        if self._parser.stream.current.type == "block_end" or self._at_keyword():
            self._fail("needs a timeout and a name")
        timeout = self._parser.parse_expression()
        if isinstance(timeout, nodes.Const) and timeout.value is not None:
            try:
                number("its timeout", timeout.value)
            except ImproperlyConfigured as error:
                self._fail(f"cannot be: {error} of seconds, or None for ever")
        return timeout

    def _name(self) -> str:
        stream = self._parser.stream
        stream.skip_if("comma")
        if stream.current.type not in ("name", "string") or self._at_keyword():
            self._fail("needs a name after its timeout, a word or a string in quotes")
        name: str = next(stream).value
        if not name or stream.current.type not in _BEGINNINGS:
            self._fail("has a name that is not a word: put it in quotes")
        return name

    def _argument(self, separated: bool) -> nodes.Expr:
        stream = self._parser.stream
        if stream.current.type == "string" and stream.look().type == "string":
            self._fail("has two strings side by side, which Jinja takes for one: put a comma between them")
        if not separated and stream.current.type not in _BEGINNINGS:
            self._fail(f"cannot be read from {stream.current.value!r} on")
        return self._parser.parse_expression()

    def _using(self) -> nodes.Expr:
        stream = self._parser.stream
        if (keyword := next(stream).value) != "using":
            self._fail(f"knows no {keyword}=, only using=")
        next(stream)
        using = self._parser.parse_expression()
        if stream.current.type != "block_end":
            self._fail("takes using= as the last of its arguments")
        if isinstance(using, nodes.Const):
            try:
                self._extension.store(using.value)
            except InvalidCacheBackendError as error:
                self._fail(f"cannot use that: {error}")
        return using
