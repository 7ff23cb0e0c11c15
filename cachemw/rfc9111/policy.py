"""Policy: what a cache decides where the rules leave it a choice, as one frozen value with three presets.

Every option says its default, what it means and where it comes from: to readers, to `help(Policy)` and to the manual.
`Policy()` is the safe default for a site behind this cache, `Policy.django()` Django 5.2 to the letter,
`Policy.rfc9111()` a strict general-purpose shared cache.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Sequence
from collections.abc import Set as AbstractSet
from dataclasses import dataclass, field, fields
from inspect import Parameter, Signature, cleandoc, signature
from textwrap import fill
from typing import TYPE_CHECKING, Any, Final, Literal, Self, TypeVar, Unpack, get_args, get_origin, get_type_hints

from cachemw._values import LONGEST_WAIT, boolean, integer, members, number, refuse
from cachemw.rfc9111.policy_names import KEYED_FIELDS, SESSION_COOKIES
from cachemw.rfc9111.policy_options import PolicyOptions
from cachemw.rfc9111.syntax import is_token

__all__ = ["Policy", "read_option"]

OptionT = TypeVar("OptionT")


def _option(default: OptionT, doc: str, section: str = "") -> OptionT:
    """A field that says what it means; `section` is the heading of what begins with it."""
    return field(default=default, metadata={"doc": doc, "section": section})


@dataclass(frozen=True, kw_only=True, slots=True)
class Policy:
    """The choices that the rules of HTTP leave to a cache. Each option may be left out.

        Policy(grace=10, stale_if_error=3600)
        Policy.rfc9111(max_body=2**20)

    Times are in seconds, sizes in bytes; a § without another RFC is one of RFC 9111.

    Raises: ImproperlyConfigured for a wrong value; TypeError for an unknown option.
    """

    seconds: float | None = _option(
        None, "lifetime chosen where the response says nothing; None: the settings' `seconds`", "What may be stored"
    )
    statuses: frozenset[int] = _option(
        frozenset({200}), "statuses that are stored where the response does not say for how long (Django: 200)"
    )
    explicit_statuses: bool = _option(True, "any other final status is stored when the response says how long")
    heuristic_fraction: float = _option(
        0.0,
        "lifetime of a response that states none, as a part of the age of its Last-Modified (§4.2.2 suggests 0.1); "
        "0: no heuristics",
    )
    heuristic_max: float = _option(86400, "the longest heuristic lifetime (Apache's CacheMaxExpire: a day)")
    targeted: tuple[str, ...] = _option(
        ("cdn-cache-control",), "fields that count instead of Cache-Control, the first one there wins (RFC 9213)"
    )
    freshness: tuple[str, ...] = _option(
        ("s-maxage", "max-age", "expires"), "what states a lifetime; the first one there wins"
    )
    set_cookie: Literal["refuse", "strip", "store"] = _option(
        "refuse",
        "a response with Set-Cookie: refuse to store it, strip the stored one of its cookies, or store it with them",
    )
    authorization: Literal["rfc9111", "vary"] = _option(
        "rfc9111",
        "answers to requests with Authorization: stored where §3.5 allows it, or with `Vary: Authorization` (Django)",
    )
    session_cookies: tuple[str, ...] = _option(
        SESSION_COOKIES,
        'requests with one share only pages that state a lifetime or vary on Cookie; a trailing "*" matches any rest',
    )
    store_unusable: bool = _option(
        False, "store what needs validation at once: `no-cache`, `max-age=0`, no freshness at all"
    )
    store_partial: bool = _option(False, "store 206 parts and combine them (§3.3, §3.4)")
    store_post: bool = _option(
        False, "store a POST answer that says it is what GET of this URL gives (RFC 9110 §9.3.3)"
    )
    must_understand: bool = _option(True, "obey must-understand (§5.2.2.3)")
    max_body: int = _option(8 * 1024 * 1024, "a larger body is relayed and not stored")
    max_variants: int = _option(100, "variants of one URL; for a further one some other goes")
    keep: float = _option(3600, "how long a stale response with a validator is kept for validation")

    keyed_fields: tuple[str, ...] = _option(
        KEYED_FIELDS, "fields that are part of the key wherever a request carries one", "Keys"
    )
    ignore_query: tuple[str, ...] = _option((), 'parameter names left out of the key; a trailing "*" matches any rest')
    sort_query: bool = _option(False, "parameters in any order are one page")
    no_vary_search: bool = _option(True, "obey No-Vary-Search responses")
    normalize_vary: bool = _option(
        False, "compare nominated fields after normalising case, space and order where allowed"
    )

    request_directives: bool = _option(False, "obey the request's Cache-Control and Pragma (§5.2.1)", "Reuse")
    stale_while_revalidate: float = _option(
        0, "how long a stale page is sent while it is fetched anew, where the response does not say (RFC 5861 §3)"
    )
    stale_if_error: float = _option(
        0, "how long a stale page stands in for an error, where the response does not say (RFC 5861 §4)"
    )
    grace: float = _option(0, "how long a stale page is sent while another request fetches it (Varnish: 10)")
    disconnected: bool = _option(False, "send a stale page if the application fails, without stale-if-error (§4.2.4)")
    conditions: bool = _option(True, "answer the client's own If-None-Match and If-Modified-Since")
    ranges: bool = _option(True, "answer Range from complete stored responses")
    revalidate: bool = _option(True, "add If-None-Match/If-Modified-Since towards the application")
    freshen_by_head: bool = _option(False, "HEAD responses update or invalidate stored GETs (§4.3.5)")
    invalidate: bool = _option(True, "unsafe methods invalidate (§4.4)")

    patch: bool = _option(
        True,
        "add Expires and Cache-Control: max-age where this cache chose the lifetime (Django)",
        "Towards the client",
    )
    cache_status: str | None = _option("cachemw", "name of this cache in Cache-Status (RFC 9211); None: no such field")
    cache_status_key: bool = _option(False, "tell the key too; for debugging, it may hold what a client should not see")

    collapse: bool = _option(True, "one call of the application for concurrent misses on one key", "Concurrent misses")
    collapse_timeout: float = _option(
        30, "how long a follower waits for the leader before it calls the application itself"
    )
    lease: float = _option(10, "how long the leader of a miss keeps other processes waiting; 0: no lease in the store")
    hit_for_miss: float = _option(10, "how long an uncacheable answer keeps requests for its URL from waiting")

    django_rules: bool = _option(
        False,
        "what Django 5.2 does besides: a response's Pragma is ignored; nothing is sent stale; max-age and Expires are "
        "added where the response states a lifetime, too; a 304 of the application gets the fields of its page",
        "Django",
    )

    if TYPE_CHECKING:

        def __init__(self, **options: Unpack[PolicyOptions]) -> None: ...

    def __post_init__(self) -> None:
        for one in fields(self):
            value = getattr(self, one.name)
            if value is not one.default:
                object.__setattr__(self, one.name, read_option(one.name, one.name, value))

    @classmethod
    def rfc9111(cls, **options: Unpack[PolicyOptions]) -> Self:
        """A strict general-purpose shared cache: heuristics, request directives, every cacheable status."""
        preset = PolicyOptions(
            seconds=0,
            statuses=frozenset({200, 203, 204, 206, 300, 301, 308, 404, 405, 410, 414, 501}),  # RFC 9110 §15.1
            heuristic_fraction=0.1,
            set_cookie="store",
            session_cookies=(),
            store_unusable=True,
            store_partial=True,
            store_post=True,
            keep=86400,
            normalize_vary=True,
            request_directives=True,
            disconnected=True,
            freshen_by_head=True,
            patch=False,
        )
        return cls(**(preset | options))

    @classmethod
    def django(cls, **options: Unpack[PolicyOptions]) -> Self:
        """Django 5.2's cache middleware: 200 only, `max-age` only, no validation, no invalidation, no collapsing."""
        preset = PolicyOptions(
            explicit_statuses=False,
            targeted=(),
            freshness=("max-age",),
            set_cookie="store",
            authorization="vary",
            session_cookies=(),
            must_understand=False,
            keep=0,
            no_vary_search=False,
            conditions=False,
            ranges=False,
            revalidate=False,
            invalidate=False,
            cache_status=None,
            collapse=False,
            lease=0,
            hit_for_miss=0,
            django_rules=True,
        )
        return cls(**(preset | options))


def _explain_options() -> Iterator[str]:
    """What `help` says of the options."""
    yield cleandoc(Policy.__doc__ or "")  # none under python -OO
    for one in fields(Policy):
        if one.metadata["section"]:
            yield f"\n{one.metadata['section']}:\n"
        yield fill(one.metadata["doc"], 120, initial_indent=f"{one.name:<24}", subsequent_indent=" " * 24)


def _show_options(preset: Any) -> None:
    """Let `help` and `inspect.signature` show a preset's options, with its own defaults."""
    values, cls = preset(), Parameter("cls", Parameter.POSITIONAL_ONLY)
    options = [one.replace(default=getattr(values, name)) for name, one in signature(Policy).parameters.items()]
    vars(preset.__func__)["__signature__"] = Signature([cls, *options], return_annotation="Policy")


def read_option(name: str, option: str, value: Any) -> Any:
    """The value of one option, also as people write it in variables; `name` is what an error calls it.

    Raises: ImproperlyConfigured.
    """
    kind = _TYPES[option]
    if type(None) in get_args(kind):
        if value is None or (isinstance(value, str) and value.strip().lower() in ("", "none")):
            return None
        kind = next(one for one in get_args(kind) if one is not type(None))
    if get_origin(kind) is Literal:
        if not isinstance(value, str) or value not in get_args(kind):
            raise refuse(name, value, ", ".join(get_args(kind)))
        return value
    if get_origin(kind) in (tuple, frozenset) and isinstance(value, str):
        value = _words(name, value, _DEFAULTS[option])
    if get_origin(kind) is frozenset:
        if not isinstance(value, Sequence | AbstractSet) or isinstance(value, bytes):
            raise refuse(name, value, "whole numbers, separated by commas")
        return frozenset(integer(name, one, minimum=100, maximum=599) for one in value)
    return (_SPECIAL.get(option) or _READERS[get_origin(kind) or kind])(name, value)


def _words(name: str, text: str, default: Collection[object]) -> tuple[str, ...]:
    """The members of a list in a text. An empty text is a slip where that would switch off what is on by default."""
    if default and not text.strip(", \t\r\n"):
        raise refuse(name, text, "words separated by commas; none for an empty list; left out, it has its default")
    return members(name, text)


def _seconds(name: str, value: Any) -> float:
    return number(name, value, minimum=0)


def _fraction(name: str, value: Any) -> float:
    return number(name, value, minimum=0, maximum=1)


def _wait(name: str, value: Any) -> float:
    """Seconds that a thread, a timer or a store is told; none of them counts for ever."""
    return number(name, value, minimum=0, maximum=LONGEST_WAIT)


def _cache_name(name: str, value: Any) -> str:
    """RFC 9211 §2: the name is a token of RFC 9651, which begins with a letter."""
    if not isinstance(value, str) or not is_token(value) or not value[0].isalpha():
        raise refuse(name, value, "a token that begins with a letter, such as the name of this machine, or none")
    return value


def _field_names(name: str, value: Any) -> tuple[str, ...]:
    names = members(name, value)
    if not all(map(is_token, names)):
        raise refuse(name, value, "names of fields")
    return tuple(one.lower() for one in names)


def _freshness(name: str, value: Any) -> tuple[str, ...]:
    names = _field_names(name, value)
    if not set(names) <= {"s-maxage", "max-age", "expires"}:
        raise refuse(name, value, "s-maxage, max-age, expires")
    return names


_TYPES: Final = get_type_hints(Policy)
_DEFAULTS: Final[dict[str, Any]] = {one.name: one.default for one in fields(Policy)}
_SPECIAL: Final[dict[str, Callable[[str, Any], Any]]] = {
    "cache_status": _cache_name,
    "collapse_timeout": _wait,
    "freshness": _freshness,
    "heuristic_fraction": _fraction,
    "hit_for_miss": _wait,
    "keyed_fields": _field_names,
    "lease": _wait,
    "targeted": _field_names,
}
_READERS: Final[dict[Any, Callable[[str, Any], Any]]] = {
    bool: boolean,
    float: _seconds,
    int: lambda name, value: integer(name, value, minimum=0),
    tuple: members,
}
Policy.__doc__ = "\n".join(_explain_options())
for _preset in (Policy.django, Policy.rfc9111):
    _show_options(_preset)
