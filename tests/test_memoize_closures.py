"""Closures: whose values a memoized function has, when the same lines make several of it."""

from __future__ import annotations

import functools
import logging
import os
import subprocess
import sys
import types
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import pytest

from cachemw.backends.filebased import FileBasedCache
from cachemw.backends.locmem import LocMemCache
from cachemw.memoize import Memoized, cached

STORE: Final = LocMemCache("closures")


@pytest.fixture(autouse=True)
def _empty() -> Iterator[None]:
    yield
    STORE.clear()


@dataclass
class Client:
    """What has no key: it may be equal to another, and cannot be hashed."""

    tenant: str

    def get(self, article: int) -> str:
        return f"{self.tenant}: {article}"


def by_object(tenant: str) -> Callable[[int], str]:
    client = Client(tenant)
    return lambda article: client.get(article)


def by_method(tenant: str) -> Callable[[int], str]:
    get = Client(tenant).get
    return lambda article: get(article)


def by_partial(tenant: str) -> Callable[[int], str]:
    get = functools.partial(Client.get, Client(tenant))
    return lambda article: get(article)


def by_dictionary(tenant: str) -> Callable[[int], str]:
    prices = {1: f"{tenant}: 1"}
    return lambda article: prices[article]


def by_a_list_within(tenant: str) -> Callable[[int], str]:
    prices: tuple[str, list[str]] = ("prices", [])
    prices[1].append(f"{tenant}: 1")
    return lambda article: prices[1][0]


def by_text(tenant: str) -> Callable[[int], str]:
    return lambda article: f"{tenant}: {article}"


def by_helper(tenant: str) -> Callable[[int], str]:
    def client() -> Client:
        return Client(tenant)

    return lambda article: client().get(article)


def by_default_of_a_helper(tenant: str) -> Callable[[int], str]:
    def get(article: int, *, client: Client = Client(tenant)) -> str:  # noqa: B008
        return client.get(article)

    return lambda article: get(article)


def by_class(tenant: str) -> Callable[[int], str]:
    class Local:
        name = tenant

    return lambda article: f"{Local.name}: {article}"


def by_wrapper(tenant: str) -> Callable[[int], str]:
    client = Client(tenant)

    def logged(function: Callable[[int], str]) -> Callable[[int], str]:
        @functools.wraps(function)
        def wrapper(article: int) -> str:
            return function(article)

        return wrapper

    @logged
    def price(article: int) -> str:
        return client.get(article)

    return price


def by_memoized(tenant: str) -> Callable[[int], str]:
    client = Client(tenant)

    @cached(60, cache=STORE)
    def price(article: int) -> str:
        return client.get(article)

    return lambda article: price(article)


class Shop:
    """A method whose object counts by its tenant."""

    def __init__(self, tenant: str) -> None:
        self.tenant = tenant

    @cached(60, cache=STORE, key=lambda self, article: (self.tenant, article))
    def price(self, article: int) -> str:
        return f"{self.tenant}: {article}"


def by_memoized_method(tenant: str) -> Callable[[int], str]:
    price: Callable[[int], str] = Shop(tenant).price
    return lambda article: price(article)


def by_what_is_bound_later(tenant: str) -> Callable[[int], str]:
    def price(article: int) -> str:
        return client.get(article)

    memoized = cached(60, cache=STORE)(price)
    with pytest.raises(NameError, match="client"):
        memoized(1)
    client = Client(tenant)
    return memoized


def by_what_is_bound_anew(tenant: str) -> Callable[[int], str]:
    name = "nobody"

    @cached(60, cache=STORE)
    def price(article: int) -> str:
        return f"{name}: {article}"

    price(1)
    name = tenant
    return price


def by_what_a_helper_has_bound_anew(tenant: str) -> Callable[[int], str]:
    name: Any = None

    def client() -> Client:
        return Client(name)

    @cached(60, cache=STORE)
    def price(article: int) -> str:
        return client().get(article)

    price(1)
    name = tenant
    return price


def by_what_a_function_assigns(tenant: str) -> Callable[[int], str]:
    name = None

    @cached(60, cache=STORE)
    def price(article: int) -> str:
        def log_in() -> None:
            nonlocal name
            name = tenants.pop()

        if name is None:
            log_in()
        return f"{name}: {article}"

    tenants = [tenant]
    return price


def by_attribute(tenant: str) -> Callable[[int], str]:
    def get(article: int) -> str:
        return f"{vars(get)['tenant']}: {article}"

    vars(get)["tenant"] = tenant
    return lambda article: get(article)


def by_globals(tenant: str) -> Callable[[int], str]:
    """As a file of settings that is read for each tenant."""
    module: dict[str, Any] = {"__name__": "settings_of_tenant", "tenant": tenant}
    exec("def price(article): return f'{tenant}: {article}'", module)
    price: Callable[[int], str] = module["price"]
    return price


def by_globals_of_a_helper(tenant: str) -> Callable[[int], str]:
    price = by_globals(tenant)
    return lambda article: price(article)


def by_a_long_chain(tenant: str) -> Callable[[int], str]:
    def link(function: Callable[[int], str]) -> Callable[[int], str]:
        return lambda article: function(article)

    price: Callable[[int], str] = lambda article: f"{tenant}: {article}"  # noqa: E731
    for _ in range(sys.getrecursionlimit() - 200):
        price = link(price)
    return price


WAYS = [
    by_attribute,
    by_globals,
    by_globals_of_a_helper,
    by_a_long_chain,
    by_object,
    by_method,
    by_partial,
    by_dictionary,
    by_a_list_within,
    by_text,
    by_helper,
    by_default_of_a_helper,
    by_class,
    by_wrapper,
    by_memoized,
    by_memoized_method,
    by_what_is_bound_later,
    by_what_is_bound_anew,
    by_what_a_helper_has_bound_anew,
    by_what_a_function_assigns,
]


@pytest.mark.parametrize("way", WAYS)
def test_a_tenant_never_gets_what_was_kept_for_another(way: Callable[[str], Callable[[int], str]]) -> None:
    made = [way(tenant) for tenant in ("alice", "bob")]
    memoized = [one if isinstance(one, Memoized) else cached(60, cache=STORE)(one) for one in made]
    for _ in range(2):
        assert [price(1) for price in memoized] == ["alice: 1", "bob: 1"]


def test_a_function_of_its_own_keeps_its_values_and_forgets_them() -> None:
    calls: list[int] = []
    count = 0

    @cached(60, cache=STORE)
    def double(number: int) -> int:
        nonlocal count
        count += 1
        calls.append(number)
        return number * 2

    assert (double(1), double(1), double(2)) == (2, 2, 4)
    assert (calls, count) == ([1, 2], 2)
    assert double.invalidate(1)
    assert (double(1), calls, count) == (2, [1, 2, 1], 3)


def test_what_is_constant_makes_one_function_of_two() -> None:
    def make(factor: int, scale: Callable[[int], int], log: Any) -> Any:
        import json

        @cached(60, cache=STORE)
        def product(number: int) -> tuple[Any, ...]:
            return number * factor * scale(1), json.dumps(number), later, log

        later = frozenset({"a"})
        return product

    def scale_by(factor: int) -> Callable[[int], int]:
        return lambda number: number * factor

    one, same, other = make(2, scale_by(3), len), make(2, scale_by(3), len), make(2, scale_by(4), len)
    assert one.cache_key(1) == same.cache_key(1) != other.cache_key(1)
    assert one(1) == same(1) == (6, "1", frozenset({"a"}), len)
    assert other(1)[0] == 8


def test_functions_that_call_each_other_share_with_those_made_again() -> None:
    def make() -> tuple[Any, Any]:
        @cached(60, cache=STORE)
        def even(n: int) -> bool:
            return n == 0 or odd(n - 1)

        @cached(60, cache=STORE)
        def odd(n: int) -> bool:
            return n != 0 and even(n - 1)

        return even, odd

    (even, odd), (again, _) = make(), make()
    assert (even(10), odd(10)) == (True, False)
    assert even.cache_key(3) == again.cache_key(3) != odd.cache_key(3)


def test_a_key_may_say_that_what_it_is_closed_over_does_not_count() -> None:
    def make(client: Client, unit: str) -> Any:
        @cached(60, cache=STORE, key=lambda article: (client.tenant, article))
        def price(article: int) -> str:
            return f"{client.get(article)} {unit}"

        return price

    one, same = (make(Client("alice"), "EUR") for _ in range(2))
    assert one.cache_key(1) == same.cache_key(1)
    assert (
        len({make(*of).cache_key(1) for of in ((Client("bob"), "EUR"), (Client("bob"), "USD"))} | {one.cache_key(1)})
        == 3
    )


def test_only_where_others_use_the_store_is_said_that_they_do_not_share(
    caplog: pytest.LogCaptureFixture, tmp_path: Path
) -> None:
    def make(client: Client, store: Any) -> Any:
        @cached(60, cache=store)
        def price(article: int) -> str:
            return client.get(article)

        return price

    with caplog.at_level(logging.WARNING, "cachemw"):
        make(Client("alice"), STORE)(1)
        assert not caplog.records
        shared = make(Client("alice"), FileBasedCache(str(tmp_path)))
        assert shared(1) == shared(2)[:-1] + "1"
    (record,) = caplog.records
    assert "make.<locals>.price is closed over 'client' (a tests.test_memoize_closures.Client has no key)" in (
        record.getMessage()
    )


def test_functions_of_one_name_in_one_module_are_told_apart(monkeypatch: pytest.MonkeyPatch) -> None:
    """As `def _():` under a decorator that registers it."""
    module = types.ModuleType("views_of_one_name")
    monkeypatch.setitem(sys.modules, module.__name__, module)
    vars(module).update(cached=cached, store=STORE)
    source = "@cached(60, cache=store)\ndef _(article):\n    return {!r}\n"
    made: list[Any] = []
    for text in ("news", "sport", "news"):
        exec(source.format(text), vars(module))
        made.append(vars(module)["_"])
    assert [one(1) for one in made] == ["news", "sport", "news"]
    assert made[0].cache_key(1) == made[2].cache_key(1)


def test_two_keys_of_one_function_are_two_functions() -> None:
    module: dict[str, Any] = {"__name__": "accounts"}
    exec("def balance(user): return user", module)
    of_user, of_firm = (
        cached(60, cache=STORE, key=key)(module["balance"])
        for key in (lambda user: user["id"], lambda user: user["firm"])
    )
    assert of_user({"id": 5, "firm": 7}) == {"id": 5, "firm": 7}
    assert of_firm({"id": 8, "firm": 5}) == {"id": 8, "firm": 5}


def test_another_process_finds_what_is_closed_over_constants_and_no_other(tmp_path: Path) -> None:
    (tmp_path / "shops.py").write_text(
        "from cachemw.memoize import cached\n"
        "def make(rate, client=None):\n"
        "    @cached(60)\n"
        "    def shared(article): return article * rate\n"
        "    @cached(60)\n"
        "    def own(article): return client\n"
        "    return shared, own\n"
        "for one in make(frozenset({'a', 'b', 'c'}), object()): print(one.cache_key(7))\n"
    )
    root = Path(__file__).parent.parent
    shared, own = zip(
        *(
            subprocess.run(
                [sys.executable, "-c", "import shops"],
                cwd=tmp_path,
                env={**os.environ, "PYTHONHASHSEED": seed, "PYTHONPATH": str(root)},
                capture_output=True,
                text=True,
                check=True,
            ).stdout.split()
            for seed in ("1", "2")
        ),
        strict=True,
    )
    assert shared[0] == shared[1]
    assert own[0] != own[1]
