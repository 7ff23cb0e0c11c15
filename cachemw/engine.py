"""The engine: the configuration of one cache, compiled for the path of a hit, and what this process has learnt.

What it has learnt makes look-ups cheaper and never decides anything: it may be lost at any time, and other processes
lack it.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable, Iterable, Sequence
from typing import Final, TypeVar

from cachemw._engine_common import Common
from cachemw._engine_tokens import any_of
from cachemw.rfc9111 import keys
from cachemw.rfc9111.fields import NoVarySearch
from cachemw.rfc9111.messages import Field, Fields, Head, StoredResponse, VaryIndex
from cachemw.rfc9111.policy import Policy
from cachemw.rfc9111.requests import CAME_IN, Request
from cachemw.rfc9111.shapes import Shapes

__all__ = ["Engine", "Learnt", "Variants", "bounded", "variant_key"]

K = TypeVar("K")
V = TypeVar("V")

_LEARNT: Final = 16_384  # URLs about which a process remembers what it learnt
_LONGEST: Final = 1_024  # characters of a remembered key: a longer one is a stranger's, and made anew each time
_PAIRS: Final = 2_048  # fields that several pages have in common
#: Fields that hardly any two pages have in common.
_OWN: Final = frozenset(
    {"content-length", "content-location", "date", "etag", "expires", "last-modified", "link", "location", "set-cookie"}
)
_MOUNTS: Final = 64  # paths at which one application is mounted
_SAID: Final = 7  # older No-Vary-Search rules kept for each path; an honest site hardly ever changes its own

#: Request fields that can change what a stored response means for this request. A request with none of them (and with
#: none of the policy's keyed fields) is plain: if there is a fresh response, it is the answer.
_CONDITIONAL: Final = frozenset(
    {
        "authorization",
        "content-length",
        "expect",
        "if-match",
        "if-modified-since",
        "if-none-match",
        "if-range",
        "if-unmodified-since",
        "range",
        "transfer-encoding",
        "upgrade",
    }
)


def bounded(memory: dict[K, V], size: int = _LEARNT) -> dict[K, V]:
    """The memory, with room for one more: it is emptied when it is full.

    Dropping only the oldest would cost more: a dictionary that has lost its first members is slow to find its first
    one.
    """
    if len(memory) >= size:
        memory.clear()
    return memory


class Learnt:
    """What a process remembers about one URL, so that the next look-up asks for all it needs at once.

    primary   its primary key; `rest` are the keys of the other marks that a look-up needs
    variants  where its variants are, if it has any
    room      what counts them: each secondary key, or the hash of a long one -> when its record expires, and whether
              it exists because of the request's distinctions
    """

    __slots__ = ("of", "primary", "rest", "room", "variants", "wants")

    def __init__(self, of: str, rest: tuple[str, ...]) -> None:
        self.of = of
        self.primary = keys.primary_key(of)
        self.rest = rest
        self.wants = (self.primary, *rest)
        self.variants: Variants | None = None
        self.room: dict[str | int, tuple[float, bool]] = {}


class Variants:
    """Where the variants of one URL are. It never changes, so a thread that holds one is not led to another's variants.

    memory   secondary keys made before, of all URLs, by generation and selection: one limit for what strangers send
    """

    __slots__ = ("_memory", "_native", "_normalize", "_properties", "index", "of")

    def __init__(
        self, of: str, index: VaryIndex, request: Request, memory: dict[Hashable, str], *, normalize: bool
    ) -> None:
        self.of = of
        self.index = index
        self._memory = memory
        self._normalize = normalize
        self._native = request.native([name for name in index.names if name[:1] != ":"])
        self._properties = tuple([name for name in index.names if name[:1] == ":"])

    def select(self, request: Request, properties: Callable[[str], str | None]) -> str:
        """The key of the variant that this request selects; `properties` has the values of what is not a field."""
        index, native = self.index, self._native
        values = request.selection(native) if request.before is None else request.told_selection(native)
        selection: Hashable = (index.generation, values)
        if self._properties:
            selection = (selection, *map(properties, self._properties))
        key = self._memory.get(selection)
        if key is None:
            key = variant_key(self.of, index, request, properties, self._normalize)
            if len(key) <= _LONGEST and not (self._normalize and len(repr(selection)) > _LONGEST):
                bounded(self._memory)[selection] = key
        return key


def variant_key(
    of: str, index: VaryIndex, request: Request, properties: Callable[[str], str | None], normalize: bool
) -> str:
    """The key of the variant that a request selects; `properties` has the values of names that begin with ":"."""
    values: list[Sequence[str]] = []
    for name in index.names:
        if name[:1] == ":":
            value = properties(name)
            values.append(() if value is None else (value,))
        else:
            lines = request.lines(name)
            values.append(keys.normalized(name, lines) if normalize and lines else lines)
            if request.before is not None and tuple(came := request.before.told(name)) != tuple(lines):
                values += [(CAME_IN,), keys.normalized(name, came) if normalize and came else came]
    return keys.secondary_key(of, index.generation, values)


class Engine:
    """The configuration of one cache, compiled, and what this process has learnt about its pages.

    policy   the choices; `seconds` is the lifetime if a response states none (RFC 9111 leaves it to the cache)
    space    first part of every key: see `keys.namespace`
    i18n, tz language and time zone are part of the key
    shared   other processes see the store: their clocks may differ by `skew` seconds
    distant  a look-up is a round trip, so it also asks for everything that a miss would need
    common   what the engines of the same store share; None: this is the only one
    keeps    False: nothing is ever stored, and nobody waits for it
    """

    keeps = True

    def __init__(
        self,
        policy: Policy,
        *,
        seconds: float = 600,
        space: str = "",
        i18n: bool = False,
        tz: bool = False,
        shared: bool = False,
        distant: bool = False,
        skew: float = 1.0,
        common: Common | None = None,
    ) -> None:
        self.policy = policy
        self.seconds = seconds
        self.space = space
        self.i18n = i18n
        self.shared = shared
        self.distant = distant
        self.skew = skew if shared else 0.0
        self.properties = (*((":language",) if i18n else ()), *((":timezone",) if tz else ()))
        self.conditional = _CONDITIONAL | {"cache-control", "pragma"} if policy.request_directives else _CONDITIONAL
        self.special = self.conditional | set(policy.keyed_fields)
        self.simple_query = not (policy.ignore_query or policy.sort_query)
        self.learnt: dict[str, Learnt] = {}  # by resource
        self.seen: dict[Hashable, Learnt] = {}  # the same, by `Request.identity`, of what was found
        self.passing: dict[int, float] = {}  # hash of a key -> until when nobody waits for the answer (hit-for-miss)
        self.selections: dict[Hashable, str] = {}  # secondary keys made before
        self.shapes = Shapes(policy, seconds)
        self.common = common = Common() if common is None else common
        common.join(self)
        self.search = common.search if policy.no_vary_search else {}
        self.mounts = common.mounts.setdefault(space, set())
        self._pairs: dict[Field, Field] = {}
        self._counted = 0  # variants, since all rooms were last empty

    def remember(self, of: str, tags: Sequence[str] = ()) -> Learnt:
        """The memory of this URL, made if there is none or if it did not know of these tags."""
        learnt = self.learnt.get(of)
        if learnt is None or tags:
            rest = keys.tag_keys(self.space, tags)
            if self.distant:  # a miss has to know this mark
                rest.append(keys.mark_key(of))
            fresh = Learnt(of, tuple(rest))
            if learnt is not None:
                fresh.room, fresh.variants = learnt.room, learnt.variants
            if len(of) <= _LONGEST:
                bounded(self.learnt)[of] = fresh
            learnt = fresh
        return learnt

    def see(self, request: Request, of: str) -> None:
        """Remember the request's URL, so that the next request to it finds its keys ready."""
        if len(of) <= _LONGEST and len(request.query) <= _LONGEST:  # the key may leave something of it out
            bounded(self.seen)[request.identity] = self.remember(of)

    def vary(self, of: str, index: VaryIndex, request: Request) -> Variants:
        """Remember where the variants of this URL are."""
        found = Variants(of, index, request, self.selections, normalize=self.policy.normalize_vary)
        learnt = self.remember(of)
        if learnt.variants is None or learnt.variants.index.generation != index.generation:
            learnt.room = {}  # variants of another generation take no room any more
        learnt.variants = found
        return found

    def make_room(self, of: str, variant: str, now: float, until: float, *, distinct: bool) -> Sequence[str] | None:
        """Count a variant of this URL that is stored `until` then. Returns those that it replaces; None: do not store
        it.

        The number of variants of a URL is limited, so that nobody can fill the store by sending new field values all
        day. The one that is replaced is chosen by chance: if the newest were refused, a stranger who came first could
        keep a page from being stored at all; if the oldest were replaced, many visitors in turn would find nothing.
        Variants that exist because of a request's distinctions are replaced first, and replace no others; nor does one
        with a long key, which is not remembered. The variant that came with the index is not in the memory, but it
        counts.
        """
        room, most = self.remember(of).room, self.policy.max_variants - 1
        name = variant if len(variant) <= _LONGEST else hash(variant)
        gone: list[str] = []
        if name not in room and len(room) >= most:
            for other, (expires, _) in list(room.items()):  # other threads change it meanwhile
                if expires <= now:
                    room.pop(other, None)
            while len(room) >= most:
                victims = [other for other, (_, led) in list(room.items()) if led]
                if not victims and not distinct:
                    victims = list(room)
                if not victims or name != variant:
                    return None
                victim = any_of(victims)
                room.pop(victim, None)
                if type(victim) is str:
                    gone.append(victim)
        if name not in room:
            self._counted += 1
            if self._counted > _LEARNT:  # this memory is bounded, too: it is emptied when it is full
                self._counted = 1
                for learnt in list(self.learnt.values()):
                    learnt.room = {}
        room[name] = until, distinct
        return gone

    @property
    def purges(self) -> int:
        """How many purges of its pages this process has begun; an engine without a store knows of none."""
        return 0

    def is_before(self, record: StoredResponse, moment: float) -> bool:
        """Could the record be older than a purge at this moment, by another machine's clock?"""
        return record.began - self.skew <= moment

    def stamp(self, now: float) -> float:
        """`now`, but later than every earlier stamp: what began before a purge must differ from what began after it."""
        return self.common.stamp(now)

    def shared_pairs(self, head: Head, places: Iterable[int] | None = None) -> Fields:
        """The head's fields, or those in these places; pairs that stand on many pages are one object.

        That saves a third of what a page's fields take.
        """
        pairs, fields, names = self._pairs, head.fields, head.layout.names
        if places is None:
            places = range(len(fields))
        return tuple([fields[i] if names[i] in _OWN else pairs.get(fields[i]) or self._pair(fields[i]) for i in places])

    def _pair(self, field: Field) -> Field:
        """A field that no page has had so far."""
        if len(field[0]) + len(field[1]) > _LONGEST:
            return field
        return bounded(self._pairs, _PAIRS).setdefault(field, field)

    def hear(self, request: Request, search: NoVarySearch | None) -> bool:
        """Remember what a response says about the query (None: all of it matters); False if that was known."""
        bare = keys.resource(self.space, *request.url[:4], "")
        before = self.search.get(bare)
        if len(bare) > _LONGEST or before == search:
            return False
        if before is not None:  # what was stored under it stays, and is found again if a response states it again
            said = [one for one in self.common.said.get(bare, ()) if one != before]
            bounded(self.common.said)[bare] = (*said[-_SAID:], before)
        if search is None:
            self.search.pop(bare, None)  # another thread may have heard it, too
        else:
            bounded(self.search)[bare] = search
        self.common.unsee()
        return True

    def pass_by(self, key: str, now: float) -> None:
        """For a while, let nobody wait for another's answer on this key (hit-for-miss)."""
        bounded(self.passing)[hash(key)] = now + self.policy.hit_for_miss

    def passes_by(self, key: str, now: float) -> bool:
        """Was a recent answer on this key of use only to its own client?"""
        return self.passing.get(hash(key), 0.0) > now

    def resource(self, request: Request, ignore: tuple[str, ...] = ()) -> str:
        """The part that all keys of this request's URL share."""
        return self.locate(request, ignore)[0]

    def resources(self, request: Request, ignore: tuple[str, ...] = ()) -> list[str]:
        """Every resource that this URL may have had, whatever was known about parameters that do not matter.

        A purge has to reach pages that were stored before a rule or a response said so, or by a process that does not
        know it.
        """
        scheme, host, mount, path, query = request.url
        policy, bare = self.policy, keys.resource(self.space, scheme, host, mount, path, "")
        search, said = self.common.search.get(bare), self.common.said.get(bare, ())
        queries = [query]
        queries += [keys.canonical_query(query, policy.ignore_query + more, policy.sort_query) for more in ((), ignore)]
        queries += [one.canonical(query) for one in (search, *said) if one is not None for query in queries.copy()]
        return [keys.resource(self.space, scheme, host, mount, path, query) for query in dict.fromkeys(queries)]

    def locate(self, request: Request, ignore: tuple[str, ...] = ()) -> tuple[str, NoVarySearch | None]:
        """The resource, and what a response said about the query, if that changed the resource."""
        scheme, host, mount, path, query = request.url
        if query and (ignore or not self.simple_query):
            policy = self.policy
            query = keys.canonical_query(query, policy.ignore_query + ignore, policy.sort_query)
        search = None
        if query and self.search:
            search = self.search.get(keys.resource(self.space, scheme, host, mount, path, ""))
            if search is not None:
                given, query = query, search.canonical(query)
                search = None if query == given else search
        if mount and mount not in self.mounts and len(self.mounts) < _MOUNTS:
            self.mounts.add(mount)
        return keys.resource(self.space, scheme, host, mount, path, query), search
