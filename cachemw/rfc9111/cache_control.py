"""Cache-Control, and the targeted fields with the same meaning (RFC 9111 §5.2, RFC 9213).

Rule: when in doubt, restrictive. What cannot be read never makes a response live longer, and a directive that forbids
something is found even if its neighbours are malformed (`private; max-age=60`, `no-store max-age=60`).
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Sequence
from functools import lru_cache
from typing import Final, final

from cachemw.rfc9111.syntax import (
    MAX_FIELD,
    OWS,
    QUOTED,
    TCHAR,
    is_token,
    parse_delta_seconds,
    parse_dictionary,
    without_bad_octets,
)

__all__ = ["CacheControl", "dump_cache_control", "parse_cache_control", "parse_targeted"]

Directive = tuple[str, str | None]

_REFUSING: Final = frozenset({"no-store", "private", "no-cache"})
_FORBIDDING: Final = _REFUSING | {"must-revalidate", "proxy-revalidate"}
_DELTAS: Final = frozenset({"max-age", "s-maxage", "stale-while-revalidate", "stale-if-error"})
_FIELD_NAMES: Final = frozenset({"no-cache", "private"})  # their arguments are written as quoted strings

_MEMBER: Final = re.compile(
    rf"""[ \t,]*+(?:
        ([{TCHAR}]++)(?:=([{TCHAR}]++|{QUOTED}))?(?=[ \t]*+(?:,|\Z))  # a directive
        |([^,]*+)                                                     # anything else
    )""",
    re.DOTALL | re.VERBOSE,
)
_TOKEN: Final = re.compile(rf"[{TCHAR}]++")
_ESCAPE: Final = re.compile(r"\\(.)", re.DOTALL)


@final
class CacheControl:
    """The directives of a Cache-Control field: names in lower case, arguments unquoted. It never changes.

    Iteration gives each name once, in order. A CacheControl without directives is false.
    """

    __slots__ = ("_arguments",)

    def __init__(self, directives: Iterable[Directive] = ()) -> None:
        arguments: dict[str, list[str | None]] = {}
        for name, argument in directives:
            if name in arguments:
                arguments[name].append(argument)
            else:
                arguments[name] = [argument]
        self._arguments = arguments

    def __contains__(self, name: str) -> bool:
        return name in self._arguments

    def __iter__(self) -> Iterator[str]:
        return iter(self._arguments)

    def __bool__(self) -> bool:
        return bool(self._arguments)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, CacheControl) and tuple(self.directives) == tuple(other.directives)

    def __hash__(self) -> int:
        return hash(tuple(self.directives))

    def __repr__(self) -> str:
        return f"<CacheControl {dump_cache_control(self)}>"

    @property
    def directives(self) -> Iterator[Directive]:
        """All (name, argument) pairs; repeated ones stand together."""
        return ((name, argument) for name, arguments in self._arguments.items() for argument in arguments)

    def get(self, name: str) -> str | None:
        """The argument of `name`, the first of several; None if it is absent or stands without one anywhere."""
        arguments = self._arguments.get(name)
        return None if arguments is None or None in arguments else arguments[0]

    def seconds(self, name: str) -> int | None:
        """The argument of `name` in seconds, the smallest of several; None if it is absent or has no argument.

        An argument that is not delta-seconds counts as 0: RFC 9111 §4.2.1 encourages caches "to consider responses that
        have invalid freshness information … to be stale".
        """
        arguments = self._arguments.get(name)
        if arguments is None:
            return None
        given = [parse_delta_seconds(argument) or 0 for argument in arguments if argument is not None]
        return min(given) if given else None

    def field_names(self, name: str) -> tuple[str, ...]:
        """The fields, in lower case, to which `no-cache="…"` or `private="…"` limits itself (RFC 9111 §5.2.2.4).

        () if the directive is absent, has no argument or a malformed one, or stands without argument elsewhere: if
        present, it then speaks of the whole response.
        """
        names: dict[str, None] = {}
        for argument in self._arguments.get(name, ()):
            members = [member for piece in (argument or "").split(",") if (member := piece.strip(OWS))]
            if not members or not all(map(is_token, members)):
                return ()
            names.update(dict.fromkeys(map(str.lower, members)))
        return tuple(names)


def parse_cache_control(lines: Sequence[str]) -> CacheControl:
    """The directives of all lines of a Cache-Control field (RFC 9111 §5.2); more than 8 KiB count as `no-store`."""
    if len(lines) == 1 and len(lines[0]) <= 256:
        return _parse_short(lines[0])  # the whole field of nearly every response
    if sum(map(len, lines)) > MAX_FIELD:
        return _NO_STORE
    return CacheControl(directive for line in lines for directive in _parse_line(line))


_NO_STORE: Final = CacheControl([("no-store", None)])


@lru_cache(maxsize=512)
def _parse_short(line: str) -> CacheControl:
    return CacheControl(_parse_line(line))


def _parse_line(line: str) -> Iterator[Directive]:
    for name, argument, other in _MEMBER.findall(without_bad_octets(line)):
        if not name:
            yield from _salvage(other.rstrip(OWS).lower())
        elif argument[:1] == '"':
            yield name.lower(), _ESCAPE.sub(r"\1", argument[1:-1])
        else:
            yield name.lower(), argument or None


def _salvage(member: str) -> Iterator[Directive]:
    """What a malformed member still says: the directive that it begins with, and all in it that forbid something.

    The argument begins with the first character that does not belong (`=60;`, ` =60`), so it is never valid.
    """
    if name := _TOKEN.match(member):
        yield name.group(), member[name.end() :]
    for word in _TOKEN.findall(member):
        if word in _FORBIDDING:
            yield word, None


def dump_cache_control(cache_control: CacheControl) -> str:
    """The field value; quoted only where the argument has to be (RFC 9111 §5.2.2.1: `max-age` must not be)."""
    return ", ".join(
        name if argument is None else f"{name}={_dump_argument(name, argument)}"
        for name, argument in cache_control.directives
    )


def _dump_argument(name: str, argument: str) -> str:
    if is_token(argument) and name not in _FIELD_NAMES:
        return argument
    escaped = without_bad_octets(argument).replace("\\", "\\\\").replace('"', '\\"')
    return f'"{escaped}"'


def parse_targeted(lines: Sequence[str]) -> CacheControl | None:
    """The directives of a targeted field such as CDN-Cache-Control (RFC 9213); None: ignore the field.

    A field that is not a structured dictionary, or whose lifetime is not an integer, is ignored (RFC 9213 §2.1: "SHOULD
    NOT consume values that violate these inferred constraints"). But if it names `no-store`, `private` or `no-cache`,
    it counts as `no-store`: ignoring it would mean storing, and nothing ever obliges a cache to store.
    A negative lifetime counts as 0, as in Cache-Control. `?0` is only believed of directives that allow something.
    """
    members = parse_dictionary(lines)
    if members is None or any(type(value) is not int for name, value in members.items() if name in _DELTAS):
        words = _TOKEN.findall(",".join(lines).lower())
        return None if _REFUSING.isdisjoint(words) else _NO_STORE
    told = CacheControl(
        (name, None if isinstance(value, bool | list) else str(value))
        for name, value in members.items()
        if value is not False or name in _FORBIDDING
    )
    return told or None
