"""Where stylesheets and scripts name other files: the places, as bytes, so that the rest of a file stays as it is.

Rule 1: only what a browser would follow is found: nothing in comments and strings, nothing put together at run time.
Rule 2: a specifier is written back as it was but for the name of the file: same folder, query and fragment.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from functools import lru_cache
from typing import Any, Final, Literal, NamedTuple
from urllib.parse import quote

from cachemw.errors import ImproperlyConfigured

__all__ = ["Reference", "may_refer", "references", "rewritten"]

Kind = Literal["css", "module", "map"]

_PATH: Final = re.compile(r"\A([^?#]*+)(.*)\Z", re.DOTALL)  # and the query and fragment after it


class Reference(NamedTuple):
    """One place that names a file: the octets from `start` to `end` are the URL as it is written there."""

    start: int
    end: int
    url: str  # without the escapes of the language
    line: int
    kind: Kind


def may_refer(name: str) -> bool:
    """Whether it is a stylesheet (.css) or a script (.js, .mjs)."""
    return name.endswith((".css", ".js", ".mjs"))


def references(name: str, content: bytes) -> list[Reference]:
    """What a stylesheet or a script refers to, in order.

    Raises: ImproperlyConfigured if the parser for scripts is not installed and a script has imports.
    """
    if name.endswith(".css"):
        return sorted([*_in_stylesheet(content), *_map_of(_CSS_MAP, content)])
    return sorted([*_in_script(name, content), *_map_of(_JS_MAP, content)])


def rewritten(content: bytes, places: list[tuple[Reference, str]]) -> bytes:
    """The content with another file name at each of the references, which are in order."""
    pieces, done = [], 0
    for reference, file in places:
        path, suffix = _PATH.findall(reference.url)[0]
        url = path[: path.rfind("/") + 1] + quote(file) + suffix
        if reference.kind == "css":
            url = re.sub(r"""["'()\\\s]""", lambda match: f"\\{ord(match[0]):x} ", url)
        pieces += [content[done : reference.start], url.encode("utf-8", "surrogateescape")]
        done = reference.end
    return b"".join([*pieces, content[done:]])


def _at(content: bytes, start: int, end: int, kind: Kind) -> Reference:
    raw = content[start:end].decode("utf-8", "surrogateescape")
    return Reference(start, end, _unescaped(raw) if kind == "css" else raw, content.count(b"\n", 0, start) + 1, kind)


# -- source maps ----------------------------------------------------------------------------------------------------

_CSS_MAP: Final = re.compile(rb"/\*[#@][ \t]*sourceMappingURL=([^\s*]+)[ \t]*\*/")
_JS_MAP: Final = re.compile(rb"^[ \t]*//[#@][ \t]*sourceMappingURL=(\S+)[ \t]*$", re.MULTILINE)


def _map_of(pattern: re.Pattern[bytes], content: bytes) -> Iterator[Reference]:
    """The source map: the last one that is named counts (ECMA-426 §11.1.2)."""
    for last in [*pattern.finditer(content)][-1:]:
        yield _at(content, *last.span(1), "map")


# -- stylesheets (CSS Syntax Level 3 §4) ----------------------------------------------------------------------------

_CSS_TOKEN: Final = re.compile(
    rb"""
      /\*.*?(?:\*/|\Z)                                                  # a comment, perhaps without an end
    | (?P<string>"[^"\\\n\r\f]*+(?:\\.[^"\\\n\r\f]*+)*"|'[^'\\\n\r\f]*+(?:\\.[^'\\\n\r\f]*+)*')
    | (?<![\w\x80-\xff\\-])url\(\s*+(?:
          (?P<bare>(?:[^"'()\\\s]++|\\(?:[0-9a-f]{1,6}+\s?+|[^0-9a-f]))+)\s*+\)           # url(picture.png)
        | (?!["'])[^)\\]*+(?:\\.[^)\\]*+)*\)?                           # one that is none: ends at its parenthesis
      )
    | (?P<open>[\w\x80-\xff-]*+)\(
    | (?P<close>\))
    | @(?P<at>[\w-]++)
    | (?P<end>[;{}])
    | [\w\x80-\xff-]++ | \\. | \s++ | (?P<other>.)
    """,
    re.DOTALL | re.IGNORECASE | re.VERBOSE,
)
_CSS_ESCAPE: Final = re.compile(r"\\(?:([0-9a-fA-F]{1,6})(?:\r\n|[ \t\r\n\f])?|\r\n|[\n\r\f]|(.))", re.DOTALL)
_URL_FUNCTIONS: Final = frozenset({b"url", b"src", b"image-set", b"-webkit-image-set"})


def _in_stylesheet(content: bytes) -> Iterator[Reference]:
    functions: list[bytes] = []
    rule = b""  # the at-rule whose first component is yet to come, or @namespace up to its end
    for token in _CSS_TOKEN.finditer(content):
        kind = token.lastgroup
        if kind is None:
            continue
        if kind in ("string", "bare"):
            start, end = token.span(kind)
            wanted = kind == "bare" or (functions[-1:] and functions[-1] in _URL_FUNCTIONS) or rule == b"import"
            if wanted and rule != b"namespace":  # which is a name, though it looks like a URL
                yield _at(content, start + (kind == "string"), end - (kind == "string"), "css")
        elif kind == "open":
            functions.append(token["open"].lower())
            continue  # @import url("…")
        elif kind == "close":
            del functions[-1:]
        elif kind == "end":
            functions.clear()
        rule = token["at"].lower() if kind == "at" else rule if rule == b"namespace" and kind != "end" else b""


def _unescaped(text: str) -> str:
    def one(match: re.Match[str]) -> str:
        if match[1] is None:
            return match[2] or ""
        code = int(match[1], 16)
        return chr(code) if 0 < code < 0x110000 and not 0xD800 <= code < 0xE000 else "�"

    return _CSS_ESCAPE.sub(one, text) if "\\" in text else text


# -- scripts --------------------------------------------------------------------------------------------------------

_IMPORTS: Final = """
(import_statement source: (string) @specifier)
(export_statement source: (string) @specifier)
(call_expression function: (import) arguments: (arguments . [(string) (template_string)] @specifier))
(call_expression function: (import) arguments: (arguments . (comment)+ . [(string) (template_string)] @specifier))
"""


def _in_script(name: str, content: bytes) -> Iterator[Reference]:
    if b"import" not in content and b"export" not in content:
        return
    parser, cursor = _javascript(name)
    for node in cursor(parser.parse(content).root_node):
        if not any(child.type in ("template_substitution", "escape_sequence") for child in node.children):
            yield _at(content, node.start_byte + 1, node.end_byte - 1, "module")


def _javascript(name: str) -> tuple[Any, Any]:
    try:
        return _grammar()
    except ImportError as error:
        raise ImproperlyConfigured(
            f"{name} may import other files, and {error.name} is not installed to find out: "
            "pip install 'cachemw[static]'"
        ) from error


@lru_cache(1)
def _grammar() -> tuple[Any, Any]:
    """The parser, and a function from a node to the specifiers below it. A real parser: whether `/` begins a regular
    expression, and where a template ends, cannot be told by patterns."""
    import tree_sitter_javascript
    from tree_sitter import Language, Parser, Query, QueryCursor

    language = Language(tree_sitter_javascript.language())
    query = Query(language, _IMPORTS)
    return Parser(language), lambda node: QueryCursor(query).captures(node).get("specifier", [])
