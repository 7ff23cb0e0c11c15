"""Stores with one mistake each, of those that authors of stores make, under the contract that has to notice it.

`test_contract_notices.py` runs this file; by itself nothing collects it.
"""

from __future__ import annotations

import itertools
import os
import threading
from collections import UserDict
from collections.abc import Callable, Sequence
from typing import Any, ClassVar, Final

import pytest

from cachemw.backends.base import BaseCache, Entry, Value
from cachemw.errors import BackendUnavailable
from cachemw.testing import BackendContract
from cachemw.testing._face import MakeCache
from tests.backends.test_contract_base import DictCache

_names = itertools.count()


class Sound(DictCache):
    """Makes none of the mistakes."""


class Eternal(DictCache):
    def _set(self, entries: Sequence[Entry]) -> list[str]:
        return super()._set([(key, value, None) for key, value, _ in entries])


class AddsOverWhatIsThere(DictCache):
    def _add(self, key: str, value: Any, timeout: float | None) -> bool:
        return not self._set([(key, value, timeout)])


class LooksThenAdds(DictCache):
    def _add(self, key: str, value: Any, timeout: float | None) -> bool:
        if self._alive(key) is not None:
            return False
        _others_have_their_turn()
        return not self._set([(key, value, timeout)])


class ReadsThenCounts(DictCache):
    def _incr(self, key: str, delta: int) -> int:
        total: int = self._data[key][0] + delta  # type: ignore[operator]
        _others_have_their_turn()
        self._data[key] = (total, self._data[key][1])
        return total


class CountsBeyond64Bits(DictCache):
    def _incr(self, key: str, delta: int) -> int:
        found = self._alive(key)
        if found is None:
            raise KeyError(key)
        total: int = found[0] + delta  # type: ignore[operator]
        self._data[key] = (total, found[1])
        return total


class TouchesAir(DictCache):
    def _touch(self, key: str, timeout: float | None) -> bool:
        super()._touch(key, timeout)
        return True


class DeletesWhatItWasAskedTo(DictCache):
    def _delete(self, keys: Sequence[str]) -> int:
        super()._delete(keys)
        return len(keys)


class TakesNothingForMissing(DictCache):
    def _get(self, keys: Sequence[str]) -> dict[str, Value]:
        return {key: value for key, value in super()._get(keys).items() if value}


class ForgetsToClear(DictCache):
    def _clear(self) -> None:
        for key in list(self._data):
            if "{" not in key:  # a value, no page
                del self._data[key]


class HasAnotherHalf(DictCache):
    async def _aget(self, keys: Sequence[str]) -> dict[str, Any]:
        return {key: value for key, value in (await super()._aget(keys)).items() if key in self._mine}

    async def _aset(self, entries: Sequence[Entry]) -> list[str]:
        self._mine.update(key for key, _, _ in entries)
        return await super()._aset(entries)

    _mine: ClassVar[set[str]] = set()


class AnswersTheQuestionBefore(DictCache):
    """As a connection that has somebody's reply left on it."""

    _before: dict[str, Value] | None = None

    def _get(self, keys: Sequence[str]) -> dict[str, Value]:
        before, self._before = self._before, super()._get(keys)
        answer = self._before if before is None else before
        return dict(zip(keys, answer.values(), strict=False))


class ReadsALateReplica(DictCache):
    def _set(self, entries: Sequence[Entry]) -> list[str]:
        self._replica = dict(self._data)
        return super()._set(entries)

    _replica: dict[str, Any] = {}  # noqa: RUF012

    def _get(self, keys: Sequence[str]) -> dict[str, Value]:
        return {key: self._replica[key][0] for key in keys if key in self._replica}


class _Folding(UserDict[str, Any]):
    """A table whose keys are as alike as a collation finds them."""

    def __init__(self, fold: Callable[[str], str]) -> None:
        self._fold = fold
        super().__init__()

    def __setitem__(self, key: str, item: Any) -> None:
        super().__setitem__(self._fold(key), item)

    def __getitem__(self, key: str) -> Any:
        return super().__getitem__(self._fold(key))

    def __contains__(self, key: object) -> bool:
        return super().__contains__(self._fold(str(key)))


class FoldsCase(DictCache):
    def __init__(self, location: str | Sequence[str], params: Any) -> None:
        super().__init__(location, params)
        self._data = self.stores[str(location)] = _Folding(str.casefold)  # type: ignore[assignment]


class CutsKeys(DictCache):
    max_key_length = None

    def __init__(self, location: str | Sequence[str], params: Any) -> None:
        super().__init__(location, params)
        self._data = self.stores[str(location)] = _Folding(lambda key: key[:255])  # type: ignore[assignment]


class SaysThatItIsShared(DictCache):
    """And every process has its own."""

    shared = True


class HasAConnectionFromBeforeTheFork(DictCache):
    shared = True

    def __init__(self, location: str | Sequence[str], params: Any) -> None:
        super().__init__(location, params)
        self._process = os.getpid()

    def _add(self, key: str, value: Any, timeout: float | None) -> bool:
        if os.getpid() != self._process:
            raise BackendUnavailable("the connection is another process's")
        return super()._add(key, value, timeout)


class TellsEverybodyOfOneFailure(DictCache):
    _failure: Exception | None = None

    def get_or_set(self, key: Any, default: Any, *args: Any, **options: Any) -> Any:
        with self._lock:
            if self._failure is not None:
                raise self._failure
            try:
                return super().get_or_set(key, default, *args, **options)
            except Exception as error:
                self._failure = error
                raise


class KeepsFailuresToItself(DictCache):
    def get_or_set(self, key: Any, default: Any, *args: Any, **options: Any) -> Any:
        try:
            return super().get_or_set(key, default, *args, **options)
        except ZeroDivisionError:
            return None


class CannotTellTimeouts(DictCache):
    def _timeout_left(self, key: str) -> float | None:
        return BaseCache._timeout_left(self, key)


def _others_have_their_turn() -> None:
    threading.Event().wait(0.002)


#: Who makes the mistake, and which test of the contract tells.
FLAWS: Final[dict[type[DictCache], str]] = {
    Eternal: "test_records_expire",
    AddsOverWhatIsThere: "test_add_stores_only_what_is_absent",
    LooksThenAdds: "test_one_of_many_adding_threads_wins",
    ReadsThenCounts: "test_no_increment_of_many_threads_is_lost",
    CountsBeyond64Bits: "test_beyond_64_bits_is_an_overflow_error_and_changes_nothing",
    TouchesAir: "test_touch_says_whether_there_was_something",
    DeletesWhatItWasAskedTo: "test_dropping_says_how_many_there_were",
    TakesNothingForMissing: "test_a_value_comes_back_as_it_was",
    ForgetsToClear: "test_clear_takes_the_pages_too",
    HasAnotherHalf: "test_both_halves_see_the_same",
    AnswersTheQuestionBefore: "test_get_many_gives_what_is_there_by_the_callers_keys",
    ReadsALateReplica: "test_the_latest_is_what_was_just_written",
    FoldsCase: "test_keys_differ_by_case_accents_and_trailing_characters",
    CutsKeys: "test_a_key_of_ten_thousand_characters_works_or_is_one_clear_error",
    SaysThatItIsShared: "test_processes_share_a_store",
    HasAConnectionFromBeforeTheFork: "test_processes_share_a_store",
    TellsEverybodyOfOneFailure: "test_a_default_that_fails_is_every_callers_own",
    KeepsFailuresToItself: "test_a_default_that_fails_is_every_callers_own",
    CannotTellTimeouts: "test_another_version_keeps_the_timeout",
}


class TestSound(BackendContract):
    kind: ClassVar[type[DictCache]] = Sound
    now = 1000.0

    @pytest.fixture
    def make_cache(self) -> MakeCache:
        name, lock = f"flawed {next(_names)}", threading.RLock()

        def make(**params: Any) -> BaseCache:
            cache = self.kind(name, params)
            cache._lock = lock
            cache.clock = lambda: self.now
            return cache

        return make

    def pass_time(self, seconds: float) -> None:
        self.now += seconds


for _flaw in FLAWS:
    globals()[f"Test{_flaw.__name__}"] = type(f"Test{_flaw.__name__}", (TestSound,), {"kind": _flaw})


class TestOneThatSaysWhatItCannotDo(TestSound):
    kind = CannotTellTimeouts
    tells_timeout = False


class TestWithoutAStore(BackendContract):
    """Its author forgot the fixture."""
