"""Memoized functions: which calls share a result, for how long, and what is refused where it is written."""

from __future__ import annotations

import asyncio
import copy
import functools
import inspect
import logging
import os
import pickle
import random
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, Final

import pytest

from cachemw import ImproperlyConfigured, InvalidCacheBackendError, cache, caches
from cachemw.backends.dummy import DummyCache
from cachemw.backends.locmem import LocMemCache
from cachemw.memoize import AsyncMemoized, Memoized, cached
from tests.memoize_tools import Clock, FailingCache, Memoize, memoizing

STORE: Final = LocMemCache("memoize")


@pytest.fixture(autouse=True)
def _empty() -> Iterator[None]:
    yield
    STORE.clear()
    caches["default"].clear()


@pytest.fixture(params=["sync", "async"])
def memoize(request: pytest.FixtureRequest) -> Iterator[Memoize]:
    with asyncio.Runner() as runner:
        yield functools.partial(memoizing(request.param, runner), cache=STORE)


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    return Clock(monkeypatch)


def test_inspection_takes_it_for_what_it_decorates() -> None:
    @cached(60, cache=STORE)
    def plain(a: int, b: int = 2, *, c: int = 3) -> int:
        return a + b + c

    @cached(60, cache=STORE)
    async def coroutine(a: int) -> int:
        return a

    class Shop:
        @cached(60, cache=STORE)
        async def stock(self, article: int) -> int:
            return article

    assert inspect.iscoroutinefunction(coroutine)
    assert inspect.iscoroutinefunction(Shop().stock)
    assert not inspect.iscoroutinefunction(plain)
    assert str(inspect.signature(plain)) == "(a: 'int', b: 'int' = 2, *, c: 'int' = 3) -> 'int'"
    assert str(inspect.signature(Shop().stock)) == "(article: 'int') -> 'int'"


def test_class_methods_of_classes_made_in_functions_are_kept_apart() -> None:
    """Two of one name are no one class, and nothing but the process knows which is which."""

    def make(rate: int) -> Any:
        class Shop:
            factor = rate

            @classmethod
            @cached(60, cache=STORE)
            def above(cls, price: int) -> tuple[int, float]:
                return price * cls.factor, random.random()

            @cached(60, cache=STORE)
            @classmethod
            def below(cls, price: int) -> tuple[int, float]:
                return price * cls.factor, random.random()

        return Shop

    two, three = make(2), make(3)
    for name in ("above", "below"):
        first = getattr(two, name)(10)
        assert first[0] == 20
        assert getattr(three, name)(10)[0] == 30
        assert getattr(two, name)(10) == getattr(two(), name)(10) == first
        forget = getattr(two, name).invalidate
        if name == "above" and sys.version_info >= (3, 13):  # a classmethod then tells what it wraps of no class
            forget = functools.partial(forget, two)
        assert forget(10)
        assert getattr(two, name)(10) != first


# -- which calls are the same -----------------------------------------------------------------------------------------


def test_a_call_is_known_by_its_bound_arguments(memoize: Memoize) -> None:
    calls: list[Any] = []

    def price(article: int, currency: str = "EUR", *, net: bool = False) -> str:
        calls.append((article, currency, net))
        return f"{article} {currency} {net}"

    memoized = memoize(price)
    same = [
        memoized(7),
        memoized(article=7),
        memoized(7, "EUR"),
        memoized(currency="EUR", article=7),
        memoized(7, net=False),
    ]
    assert set(same) == {"7 EUR False"}
    assert calls == [(7, "EUR", False)]
    assert memoized(7, net=True) == "7 EUR True"
    assert memoized(7, "USD") == "7 USD False"
    assert len(calls) == 3


def test_positions_and_names_that_a_function_gathers_are_part_of_the_call(memoize: Memoize) -> None:
    def gather(first: Any, /, *rest: Any, **named: Any) -> Any:
        return [first, list(rest), sorted(named)]

    memoized = memoize(gather)
    assert memoized(1, 2, 3) == [1, [2, 3], []]
    assert memoized(1, (2, 3)) == [1, [(2, 3)], []]
    assert memoized(1, a=1, first=2) == [1, [], ["a", "first"]]
    assert memoized.cache_key(1, a=1, b=2) == memoized.cache_key(1, b=2, a=1)
    keys = [memoized.cache_key(*args, **kwargs) for args, kwargs in [
        ((1, 2, 3), {}), ((1, (2, 3)), {}), ((1, 2), {}), ((1,), {}), ((1,), {"a": 2}), ((1, {"a": 2}), {}),
    ]]  # fmt: skip
    assert len(set(keys)) == len(keys)


def test_wrong_arguments_are_the_callers_mistake(memoize: Memoize) -> None:
    memoized = memoize(lambda a, b=1: a)
    wrongs: list[Callable[[], Any]] = [
        lambda: memoized(),
        lambda: memoized(1, 2, 3),
        lambda: memoized(1, c=2),
        lambda: memoized.invalidate(),
        lambda: memoized.cache_key(b=1),
    ]
    for wrong in wrongs:
        with pytest.raises(TypeError, match=r"<lambda>: .* argument"):
            wrong()


def test_values_that_cannot_be_hashed_are_arguments_too(memoize: Memoize) -> None:
    calls: list[Any] = []
    memoized = memoize(lambda query, tags: calls.append(query))
    memoized({"a": [1, 2], "b": {"c": {3}}}, {"x", "y"})
    memoized({"b": {"c": {3}}, "a": [1, 2]}, {"y", "x"})
    assert len(calls) == 1
    memoized({"b": {"c": {3}}, "a": [2, 1]}, {"y", "x"})
    assert len(calls) == 2


@pytest.mark.parametrize("value", [None, 0, "", b"", [], {}, False])
def test_an_empty_value_is_a_value(memoize: Memoize, value: Any) -> None:
    calls: list[int] = []

    def make() -> Any:
        calls.append(1)
        return value

    memoized = memoize(make)
    assert memoized() == value
    assert memoized() == value
    assert len(calls) == 1


def test_who_changes_a_result_changes_his_own(memoize: Memoize) -> None:
    memoized = memoize(lambda: {"a": [1]})
    memoized()["a"].append(2)
    memoized()["a"].append(3)
    assert memoized() == {"a": [1]}


def test_functions_of_one_name_are_told_apart() -> None:
    def times(factor: int) -> Any:
        @cached(60, cache=STORE)
        def product(number: int) -> int:
            return number * factor

        return product

    assert (times(2)(5), times(3)(5), times(2)(5)) == (10, 15, 10)
    steps: list[Callable[[int], int]] = [lambda x: x + 1, lambda x: x - 1]
    plus, minus = (cached(60, cache=STORE)(one) for one in steps)
    assert (plus(5), minus(5)) == (6, 4)
    inner = [cached(60, cache=STORE)(one) for one in (lambda: [x + 1 for x in (1,)], lambda: [x - 1 for x in (1,)])]
    assert [one() for one in inner] == [[2], [0]]


def test_a_recursive_function_makes_each_value_once() -> None:
    calls: list[int] = []

    @cached(60, cache=STORE)
    def fibonacci(n: int) -> int:
        calls.append(n)
        return n if n < 2 else fibonacci(n - 1) + fibonacci(n - 2)

    assert fibonacci(60) == 1548008755920
    assert sorted(calls) == list(range(61))


def test_another_process_finds_the_same_key(tmp_path: Path) -> None:
    (tmp_path / "shop.py").write_text(
        "from cachemw.memoize import cached\n"
        "@cached(60)\n"
        "def price(article, tags=frozenset({'a', 'b', 'c'})):\n"
        "    return article\n"
        "known = [lambda x, y={1: {'a', 'b', 'c'}}: x in {'a', 'b', 'c'} and y]\n"
        "print(price.cache_key(7), cached(60)(known[0]).cache_key(1))\n"
    )
    root = Path(__file__).parent.parent
    keys = {
        subprocess.run(
            [sys.executable, *how],
            cwd=tmp_path,
            env={**os.environ, "PYTHONHASHSEED": seed, "PYTHONPATH": str(root)},
            capture_output=True,
            text=True,
            check=True,
        ).stdout
        for how in (["-c", "import shop"],)
        for seed in ("1", "2")
    }
    assert len(keys) == 1
    assert keys.pop().startswith("memoize.shop.price.")


def test_a_key_stands_in_every_store() -> None:
    def größe(x: str) -> str:
        return x

    key = cached(60)(größe).cache_key("ä b\n" * 1000)
    assert key.isascii()
    assert key.isprintable()
    assert " " not in key
    assert len(key) < 150


# -- objects ----------------------------------------------------------------------------------------------------------


class Shop:
    """Methods of every kind."""

    def __init__(self, number: int) -> None:
        self.number = number
        self.calls: list[Any] = []

    @cached(60, cache=STORE, key=lambda self, article, currency="EUR": (self.number, article, currency))
    def price(self, article: int, currency: str = "EUR") -> str:
        """What it costs."""
        self.calls.append(article)
        return f"{self.number}: {article} {currency}"

    @cached(60, cache=STORE, key=lambda self, article: (self.number, article))
    async def stock(self, article: int) -> int:
        self.calls.append(article)
        return article * 10

    @cached(60, cache=STORE)
    @classmethod
    def made(cls, number: int) -> tuple[str, int, float]:
        return cls.__name__, number, random.random()

    @classmethod
    @cached(60, cache=STORE)
    def built(cls, number: int) -> tuple[str, int, float]:
        return cls.__name__, number, random.random()

    @cached(60, cache=STORE)
    @staticmethod
    def tax(price: int) -> tuple[int, float]:
        return price // 5, random.random()

    @staticmethod
    @cached(60, cache=STORE)
    def duty(price: int) -> tuple[int, float]:
        return price // 2, random.random()

    @property
    @cached(60, cache=STORE, key=lambda self: self.number)
    def name(self) -> str:
        self.calls.append("name")
        return f"shop {self.number}"

    @cached(60, cache=STORE)
    def forgotten(self, article: int) -> int:
        return article


class OtherShop(Shop):
    """Has class methods with results of its own."""


def test_methods_are_known_by_what_their_key_says() -> None:
    one, same, other = Shop(1), Shop(1), Shop(2)
    unbound: Any = Shop
    assert [one.price(7), same.price(article=7, currency="EUR"), other.price(7)] == ["1: 7 EUR", "1: 7 EUR", "2: 7 EUR"]
    assert (one.calls, same.calls, other.calls) == ([7], [], [7])
    assert one.price.cache_key(7) == unbound.price.cache_key(same, 7) != other.price.cache_key(7)
    assert same.price.invalidate(7) is True
    assert same.price.invalidate(7) is False
    assert (one.price(7), one.calls, other.price(7), other.calls) == ("1: 7 EUR", [7, 7], "2: 7 EUR", [7])
    assert one.price.refresh(7) == "1: 7 EUR"
    assert one.calls == [7, 7, 7]
    assert (one.name, same.name, one.calls[3:], same.calls) == ("shop 1", "shop 1", ["name"], [])


def test_coroutine_methods_are_awaited_with_all_their_attributes() -> None:
    async def main() -> None:
        shop, same = Shop(5), Shop(5)
        assert await shop.stock(1) == await same.stock(article=1) == 10
        assert await shop.stock.invalidate(1) is True
        assert await same.stock(1) == 10
        assert await same.stock.refresh(1) == 10
        assert (shop.calls, same.calls) == ([1], [1, 1])

    asyncio.run(main())


def test_class_and_static_methods_in_either_order_of_decorators() -> None:
    for method in (Shop.made, Shop.built):
        assert method(1) == method(number=1)
        assert method(1) != method(2)
    for method, of_class in ((OtherShop.made, Shop.made), (OtherShop.built, Shop.built)):
        assert method(1)[0] == "OtherShop"
        assert of_class(1)[0] == "Shop"
    assert Shop(1).made(1) == Shop.made(1)
    assert Shop.made.invalidate(1) is True
    assert Shop.made.invalidate(1) is False
    assert OtherShop.made.invalidate(1) is True
    static: Any = Shop  # type checkers take the first argument of a memoized static method for its object
    assert static.tax(10) == static(1).tax(price=10)
    assert static.tax.invalidate(10) is True
    assert static.duty(10) == static(1).duty(10)
    assert static.duty.invalidate(10) is True


def test_an_object_without_a_key_is_refused_with_what_to_do() -> None:
    with pytest.raises(
        TypeError,
        match=r"Shop.forgotten: its argument 'self' cannot be part of a key: a .*Shop has no key\. Say what counts of "
        r"it, as in cached\(…, key=lambda self, article: self\.id\)",
    ):
        Shop(1).forgotten(7)

    with pytest.raises(TypeError, match=r"key=lambda a, /, \*b, c, \*\*d: c\.id\)"):
        cached(60)(lambda a=1, /, *b, c, **d: a)(c=object())

    with pytest.raises(TypeError, match=r"its argument 'user' cannot be part of a key: a builtins\.object has no key"):
        cached(60)(lambda number, user: number)(1, [object()])

    memoized = cached(60, key=lambda value: value)(lambda value: value)
    with pytest.raises(TypeError, match=r"key= of .*<lambda> returned what cannot be a key: a builtins.object has no"):
        memoized([object()])


def test_two_functions_with_equal_keys_do_not_meet() -> None:
    def name(user: Any) -> str:
        return f"name {user}"

    def mail(user: Any) -> str:
        return f"mail {user}"

    one, two = (cached(60, cache=STORE, key=str)(function) for function in (name, mail))
    assert (one(1), two(1)) == ("name 1", "mail 1")
    with_key, without = (cached(60, cache=STORE, key=key)(name) for key in (lambda user: user, None))
    assert with_key.cache_key(1) != without.cache_key(1)


# -- it stays what it was ---------------------------------------------------------------------------------------------


@cached(60, cache=STORE)
def module_level(number: int, factor: int = 2) -> int:
    """Doubles."""
    return number * factor


@cached(60, cache=STORE)
async def amodule_level(number: int) -> int:
    return number * 2


def test_a_memoized_function_looks_like_the_function() -> None:
    assert isinstance(module_level, Memoized)
    assert isinstance(amodule_level, AsyncMemoized)
    assert (module_level.__name__, module_level.__doc__, module_level.__module__) == (
        "module_level",
        "Doubles.",
        __name__,
    )
    assert str(inspect.signature(module_level)) == "(number: 'int', factor: 'int' = 2) -> 'int'"
    assert repr(module_level) == f"<memoized {__name__}.module_level>"
    price: Any = Shop(1).price
    assert (price.__name__, price.__doc__) == ("price", "What it costs.")
    assert list(inspect.signature(price).parameters) == ["article", "currency"]
    assert inspect.iscoroutinefunction(amodule_level.__call__)


def test_a_memoized_function_is_copied_and_pickled_by_its_name() -> None:
    assert pickle.loads(pickle.dumps(module_level)) is module_level
    assert copy.deepcopy(module_level) is module_level
    shop = pickle.loads(pickle.dumps(Shop(9).price))
    assert shop(1) == "9: 1 EUR"


def test_a_bound_method_stays_bound_wherever_it_is_kept() -> None:
    class Register:
        price: Any = Shop(3).price

    assert Register().price(1) == "3: 1 EUR"


# -- time -------------------------------------------------------------------------------------------------------------


def test_a_result_is_kept_for_its_timeout(memoize: Memoize, clock: Clock) -> None:
    calls: list[int] = []
    memoized = memoize(lambda: calls.append(1), 60)
    memoized()
    clock.move(59.9)
    memoized()
    assert len(calls) == 1
    clock.move(0.2)
    memoized()
    assert len(calls) == 2


@pytest.mark.parametrize("timeout", [None, float("inf")])
def test_none_keeps_a_result_for_ever(memoize: Memoize, clock: Clock, timeout: float | None) -> None:
    calls: list[int] = []
    memoized = memoize(lambda: calls.append(1), timeout, stale=60)
    memoized()
    clock.move(1e9)
    memoized()
    assert len(calls) == 1


@pytest.mark.parametrize("timeout", [0, -1])
def test_no_timeout_at_all_calls_every_time_and_asks_no_store(memoize: Memoize, timeout: int) -> None:
    store = FailingCache("never")
    calls: list[int] = []
    memoized = memoize(lambda: calls.append(1), timeout, cache=store)
    memoized()
    memoized()
    assert len(calls) == 2
    assert store.asked == 0


def test_an_error_is_the_callers_and_is_not_kept(memoize: Memoize) -> None:
    errors: list[Exception] = [ValueError("first"), KeyError("second")]

    def flaky() -> str:
        if errors:
            raise errors.pop(0)
        return "well"

    memoized = memoize(flaky)
    with pytest.raises(ValueError, match="first") as caught:
        memoized()
    assert any(entry.name == "flaky" for entry in caught.traceback)
    with pytest.raises(KeyError, match="second"):
        memoized()
    assert memoized() == "well"


def test_a_function_that_ends_an_iteration_does_so() -> None:
    @cached(60, cache=STORE)
    def first(values: list[int]) -> int:
        return next(iter(values))

    assert first([1]) == 1
    with pytest.raises(StopIteration):
        first([])


def test_a_stale_result_stands_in_for_a_call_that_fails(
    memoize: Memoize, clock: Clock, caplog: pytest.LogCaptureFixture
) -> None:
    down = False
    calls: list[int] = []

    def rate() -> int:
        calls.append(1)
        if down:
            raise ConnectionError("no rates today")
        return len(calls)

    memoized = memoize(rate, 60, stale=600)
    assert memoized() == 1
    down = True
    clock.move(61)
    with caplog.at_level(logging.WARNING, "cachemw"):
        assert memoized() == 1
    assert "rate failed; its last value stands in" in caplog.text
    assert "no rates today" in caplog.text
    assert len(calls) == 2
    down = False
    assert memoized() == 3
    assert memoized() == 3
    down = True
    clock.move(661)
    with pytest.raises(ConnectionError):
        memoized()


@pytest.mark.parametrize("stale", [0, 10])
def test_a_result_that_is_too_old_does_not_stand_in(memoize: Memoize, clock: Clock, stale: float) -> None:
    """Also from a store whose clock is behind, and still has it."""
    values = [1, 2]
    memoized = memoize(lambda: values.pop(0), 60, stale=stale)
    assert memoized() == 1
    key = memoized.cache_key()
    stored = STORE.get(key)
    clock.move(61 + stale)
    STORE.set(key, stored)
    assert memoized() == 2
    STORE.set(key, stored)
    with pytest.raises(IndexError):
        memoized()


def test_a_dear_result_is_renewed_a_little_early_by_chance(
    memoize: Memoize, clock: Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    """XFetch: with a draw of 1 - e⁻¹ a call of 2 seconds is renewed from 2 seconds before its time on."""
    calls: list[int] = []

    def report() -> int:
        calls.append(1)
        clock.move(2)
        return len(calls)

    monkeypatch.setattr(random, "random", lambda: 1 - 2.718281828459045**-1)
    eager, lazy, never = (memoize(report, 60, beta=beta, key=lambda beta=beta: beta) for beta in (2, 1, 0))
    assert (eager(), lazy(), never()) == (1, 2, 3)  # made until 62, 64 and 66
    clock.move(51.5)  # 57.5
    assert (eager(), lazy(), never()) == (1, 2, 3)
    clock.move(1)  # 58.5: 3.5 seconds are left to the first, 5.5 to the second
    assert (eager(), lazy(), never()) == (4, 2, 3)
    clock.move(2)  # 62.5 with what the call took: 1.5 are left to the second
    assert (eager(), lazy(), never()) == (4, 5, 3)


def test_an_early_renewal_that_fails_costs_nothing(
    memoize: Memoize, clock: Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    calls: list[int] = []

    def report() -> int:
        calls.append(1)
        clock.move(5)
        if len(calls) > 1:
            raise ConnectionError
        return 1

    memoized = memoize(report, 60)
    monkeypatch.setattr(random, "random", lambda: 0.999)
    assert memoized() == 1
    clock.move(50)
    assert memoized() == 1
    assert len(calls) == 2


# -- invalidate and refresh -------------------------------------------------------------------------------------------


def test_invalidate_forgets_one_call_of_all(memoize: Memoize) -> None:
    calls: list[int] = []
    memoized = memoize(lambda number, factor=2: calls.append(number))
    memoized(1)
    memoized(2)
    assert memoized.invalidate(factor=2, number=1) is True
    assert memoized.invalidate(1) is False
    memoized(2)
    memoized(1)
    assert calls == [1, 2, 1]
    assert STORE.delete(memoized.cache_key(2)) is True
    memoized(2)
    assert calls == [1, 2, 1, 2]


def test_refresh_replaces_a_result_and_an_error_leaves_it(memoize: Memoize) -> None:
    values: list[Any] = [1, 2, ValueError("no third")]

    def take() -> int:
        value = values.pop(0)
        if isinstance(value, Exception):
            raise value
        return int(value)

    memoized = memoize(take)
    assert memoized() == 1
    assert memoized.refresh() == 2
    assert memoized() == 2
    with pytest.raises(ValueError, match="no third"):
        memoized.refresh()
    assert memoized() == 2


@pytest.mark.parametrize("how", ["invalidate", "refresh"])
def test_a_call_under_way_does_not_outlive_a_change(how: str) -> None:
    """What it has read may be what was before."""
    rows = ["old"]

    @cached(60, cache=STORE)
    def read() -> str:
        row = rows[0]
        if row == "old":
            rows[0] = "new"
            getattr(read, how)()
        return row

    assert read() == "old"
    assert read() == "new"
    assert read.invalidate() is True


@pytest.mark.parametrize("how", ["invalidate", "refresh"])
def test_a_coroutine_under_way_does_not_outlive_a_change(how: str) -> None:
    rows = ["old"]

    @cached(60, cache=STORE)
    async def read() -> str:
        row = rows[0]
        if row == "old":
            rows[0] = "new"
            await getattr(read, how)()
        return row

    async def main() -> None:
        assert await read() == "old"
        assert await read() == "new"
        assert await read.invalidate() is True

    asyncio.run(main())


# -- stores -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("serializer", ["pickle", "json", "msgpack"])
def test_every_serializer_keeps_results(memoize: Memoize, serializer: str, clock: Clock) -> None:
    store = LocMemCache(f"memoize-{serializer}", {"SERIALIZER": serializer, "SECRET": "s"})
    calls: list[int] = []

    def make(x: int) -> Any:
        calls.append(x)
        return {"a": [x, None, 1.5, "ä"]}

    for timeout in (60, None):
        memoized = memoize(make, timeout, cache=store, stale=60)
        store.clear()
        calls.clear()
        assert memoized(1) == memoized(1) == {"a": [1, None, 1.5, "ä"]}
        assert calls == [1]
    store.clear()


@pytest.mark.parametrize(
    "foreign",
    ["text", 5, None, [], [1], [1, 2], [1, "later", 3], [1, 2, None], {"value": 1}, [1, None, "cheap"], [1, 2, 3, 4]],
)
def test_what_is_nothing_of_ours_is_replaced(memoize: Memoize, foreign: Any) -> None:
    memoized = memoize(lambda: "mine")
    STORE.set(memoized.cache_key(), foreign)
    assert memoized() == "mine"
    assert memoized() == "mine"


def test_a_store_is_named_by_alias_url_or_itself() -> None:
    calls: list[int] = []
    for named in (None, "default", cache):
        memoized = cached(60, cache=named)(lambda: calls.append(1))
        memoized()
        memoized()
        assert caches["default"].delete(memoized.cache_key())
    assert len(calls) == 3
    by_url = cached(60, cache="locmem://memoize-url?key_prefix=p")(lambda: calls.append(1))
    by_url()
    assert LocMemCache("memoize-url", {"KEY_PREFIX": "p"}).delete(by_url.cache_key())


def test_an_alias_that_is_not_configured_is_a_mistake(memoize: Memoize) -> None:
    memoized = memoize(lambda: 1, cache="nowhere")
    for call in (memoized, memoized.invalidate, memoized.refresh):
        with pytest.raises(InvalidCacheBackendError, match="'nowhere' doesn't exist; allowed: default"):
            call()


def test_in_flask_the_application_has_the_stores() -> None:
    from flask import Flask

    from cachemw.integrations.flask import CacheMW

    app = Flask("shop")
    location = {"BACKEND": "cachemw.backends.locmem.LocMemCache", "LOCATION": "of-the-app"}
    app.config["CACHES"] = {"default": location, "slow": location}
    CacheMW(app)
    memoized = cached(60, cache="slow")(lambda: 1)
    with app.app_context():
        memoized()
    assert LocMemCache("of-the-app").delete(memoized.cache_key())
    plain = cached(60)(lambda: 1)
    with Flask("other").app_context():
        plain()
    assert caches["default"].has_key(plain.cache_key())


@pytest.mark.parametrize("below", [False, True], ids=["by itself", "below another decorator"])
def test_a_view_of_flask_is_refused_because_what_it_reads_is_no_argument(below: bool) -> None:
    from flask import Flask, request

    app = Flask("greetings")
    app.testing = True

    @cached(60)
    def greet() -> str:
        return f"Good day, {request.args['name']}"

    app.add_url_rule("/", "greet", functools.wraps(greet)(lambda: greet()) if below else greet)
    with pytest.raises(TypeError, match=r"greet is a view, .* Write @cache_page\(60\)"):
        app.test_client().get("/?name=Ada")


def test_a_view_of_flask_may_say_what_counts_and_call_what_is_kept() -> None:
    from flask import Flask, request

    app = Flask("greetings")
    app.testing = True
    calls: list[str] = []

    @cached(60)
    def article(name: str) -> str:
        calls.append(name)
        return f"{name} costs 3"

    @app.get("/keyed")
    @cached(60, key=lambda: request.args["name"])
    def keyed() -> str:
        return article(request.args["name"])

    app.add_url_rule("/plain", "plain", lambda: article(request.args["name"]))
    visitor = app.test_client()
    pages = [
        visitor.get(f"/{path}?name={name}").text for path in ("keyed", "plain") for name in ("lamp", "oar", "lamp")
    ]
    assert pages == ["lamp costs 3", "oar costs 3", "lamp costs 3"] * 2
    assert calls == ["lamp", "oar"]
    with pytest.raises(TypeError, match="missing a required argument"), app.test_request_context("/nowhere"):
        article()  # type: ignore[call-arg]


def test_a_view_of_quart_is_refused_too() -> None:
    import quart

    app = quart.Quart("greetings")
    app.testing = True

    @app.get("/")
    @cached(60)
    async def greet() -> str:
        return quart.request.args["name"]

    async def visit() -> str:
        answer = await app.test_client().get("/?name=Ada")
        return await answer.get_data(as_text=True)

    assert "greet is a view" in asyncio.run(visit())


def test_a_dummy_store_keeps_nothing(memoize: Memoize) -> None:
    calls: list[int] = []
    memoized = memoize(lambda: calls.append(1), cache=DummyCache("", {}))
    memoized()
    memoized()
    assert len(calls) == 2
    assert memoized.invalidate() is False


# -- what is refused where it is written ------------------------------------------------------------------------------


def numbers() -> Iterator[int]:
    yield 1


async def anumbers() -> Any:
    yield 1


class Callee:
    def __call__(self) -> int:
        return 1

    def method(self) -> int:
        return 1


@pytest.mark.parametrize(
    ("function", "message"),
    [
        (numbers, r"numbers is a generator, which can be read only once\. Return a list"),
        (anumbers, "anumbers is a generator"),
        (staticmethod(numbers), "numbers is a generator"),
        (Callee, "neither"),
        (Callee(), "neither"),
        (Callee().method, "neither"),
        (property(lambda self: 1), r"below @property"),
        (functools.partial(numbers), "neither"),
        (module_level, "neither"),
        (len, "neither"),
        (60, "neither"),
        (None, "neither"),
    ],
)
def test_what_is_no_function_is_refused(function: Any, message: str) -> None:
    with pytest.raises(TypeError, match=message):
        cached(60)(function)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"timeout": len}, r"a number of seconds, or None; got <built-in function len>\. Write @cached\(60\)"),
        ({"timeout": 60, "key": "user"}, "key is 'user'; allowed: a plain function"),
        ({"timeout": 60, "key": amodule_level}, "allowed: a plain function"),
    ],
)
def test_wrong_options_are_refused(options: dict[str, Any], message: str) -> None:
    with pytest.raises(TypeError, match=message):
        cached(**options)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"timeout": "soon"}, "cached: timeout is 'soon'; allowed: a number"),
        ({"timeout": True}, "timeout is True"),
        ({"timeout": [60]}, r"timeout is \[60\]"),
        ({"timeout": float("nan")}, "timeout is nan"),
        ({"timeout": 60, "stale": -1}, "stale is -1; allowed: a number of at least 0"),
        ({"timeout": 60, "stale": None}, "stale is None"),
        ({"timeout": 60, "beta": float("inf")}, "beta is inf"),
    ],
)
def test_wrong_numbers_are_refused(options: dict[str, Any], message: str) -> None:
    with pytest.raises(ImproperlyConfigured, match=message):
        cached(**options)


@pytest.mark.parametrize(("named", "message"), [(5, "cached: cache is 5; allowed: the alias"), ("no://where", "no://")])
def test_what_names_no_store_is_refused(named: Any, message: str) -> None:
    with pytest.raises(ImproperlyConfigured, match=message):
        cached(60, cache=named)


def test_the_types_of_a_function_are_kept() -> None:
    """For type checkers; they run over this file too."""
    number: int = module_level(1, factor=3)
    text: str = Shop(1).price(1)
    assert (number, text) == (3, "1: 1 EUR")
    check: Callable[[int], str] = Shop(1).price
    assert check(1) == text
    gone: bool = Shop(1).price.invalidate(1)
    assert gone
