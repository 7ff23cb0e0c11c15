"""Policy: what a cache decides where the rules leave it a choice, as one frozen value with three presets.

Each option states its default, its meaning and its source once, for readers, for `help(Policy)` and for the manual.
`Policy()` is the safe default for a site behind this cache, `Policy.django()` follows Django 5.2 to the letter,
`Policy.rfc9111()` is a strict general-purpose shared cache.
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

    Times are in seconds, sizes in bytes. A § without an RFC is a section of RFC 9111.

    Raises: ImproperlyConfigured for a wrong value; TypeError for an unknown option.
    """

    seconds: float | None = _option(
        None, "the lifetime of a response that states none; None: the settings' `seconds`", "What may be stored"
    )
    statuses: frozenset[int] = _option(
        frozenset({200}), "statuses that are stored even if the response does not say for how long (Django: 200)"
    )
    explicit_statuses: bool = _option(True, "also store any other final status if the response says for how long")
    heuristic_fraction: float = _option(
        0.0,
        "the lifetime of a response that states none, as a fraction of the time since its Last-Modified (§4.2.2 "
        "suggests 0.1); 0: no heuristics",
    )
    heuristic_max: float = _option(86400, "the longest heuristic lifetime (Apache's CacheMaxExpire: a day)")
    targeted: tuple[str, ...] = _option(
        ("cdn-cache-control",), "fields that replace Cache-Control; the first one present counts (RFC 9213)"
    )
    freshness: tuple[str, ...] = _option(
        ("s-maxage", "max-age", "expires"), "what states a lifetime; the first one present counts"
    )
    set_cookie: Literal["refuse", "strip", "store"] = _option(
        "refuse",
        "a response with Set-Cookie: refuse to store it, strip the cookies from the stored copy, or store it with them",
    )
    authorization: Literal["rfc9111", "vary"] = _option(
        "rfc9111",
        "answers to requests with Authorization: stored if §3.5 allows it, or with `Vary: Authorization` (Django)",
    )
    session_cookies: tuple[str, ...] = _option(
        SESSION_COOKIES,
        "requests with one of these cookies share only pages that state a lifetime or vary on Cookie; a trailing "
        '"*" matches any ending, a leading one any beginning',
    )
    store_unusable: bool = _option(
        False, "store what has to be validated at once: `no-cache`, `max-age=0`, no lifetime at all"
    )
    store_partial: bool = _option(False, "store 206 parts and combine them (§3.3, §3.4)")
    store_post: bool = _option(
        False, "store a POST response that says it is what GET of its URL returns (RFC 9110 §9.3.3)"
    )
    must_understand: bool = _option(True, "obey must-understand (§5.2.2.3)")
    max_body: int = _option(8 * 1024 * 1024, "a larger body is passed on and not stored")
    max_variants: int = _option(100, "how many variants of a URL are stored; a further one replaces another")
    keep: float = _option(3600, "how long a stale response with a validator is kept for validation")

    keyed_fields: tuple[str, ...] = _option(
        KEYED_FIELDS, "fields that are part of the key wherever a request carries one", "Keys"
    )
    ignore_query: tuple[str, ...] = _option(
        (), 'query parameters left out of the key; a trailing "*" matches any ending'
    )
    sort_query: bool = _option(False, "query parameters in any order are the same page")
    no_vary_search: bool = _option(True, "obey the response's No-Vary-Search")
    normalize_vary: bool = _option(
        False, "compare the fields that Vary names after normalising case, space and order where allowed"
    )

    request_directives: bool = _option(False, "obey the request's Cache-Control and Pragma (§5.2.1)", "Reuse")
    stale_while_revalidate: float = _option(
        0, "how long a stale page is served while a new one is fetched, unless the response says (RFC 5861 §3)"
    )
    stale_if_error: float = _option(
        0, "how long a stale page is served instead of an error, unless the response says (RFC 5861 §4)"
    )
    grace: float = _option(0, "how long a stale page is served while another request fetches a new one (Varnish: 10)")
    disconnected: bool = _option(
        False, "serve a stale page if the application fails, even without stale-if-error (§4.2.4)"
    )
    conditions: bool = _option(True, "answer the client's If-None-Match and If-Modified-Since from the store")
    ranges: bool = _option(True, "answer Range requests from complete stored responses")
    revalidate: bool = _option(
        True, "validate stale pages: ask the application with If-None-Match or If-Modified-Since"
    )
    freshen_by_head: bool = _option(False, "let a HEAD response update or invalidate a stored GET (§4.3.5)")
    invalidate: bool = _option(
        True, "a successful unsafe request (POST, PUT, DELETE, …) removes what is stored for its URL (§4.4)"
    )

    patch: bool = _option(
        True,
        "add Expires and Cache-Control: max-age if this cache chose the lifetime (Django)",
        "Towards the client",
    )
    cache_status: str | None = _option("cachemw", "this cache's name in Cache-Status (RFC 9211); None: no such field")
    cache_status_key: bool = _option(
        False, "add the key to Cache-Status; only for debugging, as it may hold what a client should not see"
    )

    collapse: bool = _option(True, "call the application once for concurrent misses on one key", "Concurrent misses")
    collapse_timeout: float = _option(
        30, "how long a request waits for another's answer before it calls the application itself"
    )
    lease: float = _option(10, "how long a miss in one process keeps other processes waiting; 0: not at all")
    hit_for_miss: float = _option(
        10, "after an answer that is not stored, how long requests for its URL do not wait for each other"
    )

    django_rules: bool = _option(
        False,
        "what else Django 5.2 does: a response's Pragma is ignored; nothing is served stale; max-age and Expires are "
        "added even if the response states a lifetime; a 304 from the application gets the fields of its page",
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
    if get_origin(kind) in (tuple, frozenset):
        value = _added(_words(name, value, _DEFAULTS[option]), _DEFAULTS[option])
    if get_origin(kind) is frozenset:
        if not isinstance(value, Sequence | AbstractSet) or isinstance(value, bytes):
            raise refuse(name, value, "status codes, such as {200, 404}; as text, separated by commas")
        return frozenset(integer(name, one, minimum=100, maximum=599) for one in value)
    return (_SPECIAL.get(option) or _READERS[get_origin(kind) or kind])(name, value)


def _words(name: str, value: Any, default: Collection[object]) -> Any:
    """The members of a list in a text. An empty text is a slip where that would switch off what is on by default."""
    if not isinstance(value, str):
        return value
    if default and not value.strip(", \t\r\n"):
        raise refuse(name, value, "words separated by commas, or none for an empty list; leave it out for the default")
    return members(name, value)


def _added(value: Any, default: Collection[object]) -> Any:
    """The members of a list; in addition to those of the default, if one has a "+" in front."""
    if not default or not isinstance(value, Sequence):
        return value
    if not any(isinstance(one, str) and one.startswith("+") for one in value):
        return value
    more = [one.removeprefix("+").strip() if isinstance(one, str) else one for one in value]
    return tuple(dict.fromkeys((*default, *[one for one in more if one != ""])))


def _seconds(name: str, value: Any) -> float:
    return number(name, value, minimum=0)


def _fraction(name: str, value: Any) -> float:
    return number(name, value, minimum=0, maximum=1)


def _wait(name: str, value: Any) -> float:
    """Seconds to hand to a thread, a timer or a store, none of which can wait for ever."""
    return number(name, value, minimum=0, maximum=LONGEST_WAIT)


def _cache_name(name: str, value: Any) -> str:
    """RFC 9211 §2: the name is a token of RFC 9651, which begins with a letter."""
    if not isinstance(value, str) or not is_token(value) or not value[0].isalpha():
        raise refuse(name, value, "a token that begins with a letter, such as the name of this machine, or none")
    return value


def _field_names(name: str, value: Any) -> tuple[str, ...]:
    names = members(name, value)
    if not all(map(is_token, names)):
        raise refuse(name, value, "names of fields, such as X-Api-Key")
    return tuple(one.lower() for one in names)


def _cookie_names(name: str, value: Any) -> tuple[str, ...]:
    """Names that are matched at one end at most: what would match nothing must not pass for a guard."""
    names = members(name, value)
    for one in names:
        if "*" in one[1:-1] or (len(one) > 1 and one[0] == one[-1] == "*"):
            raise refuse(name, value, 'names of cookies, such as session, with "*" at one end at most')
    return names


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
    "session_cookies": _cookie_names,
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
