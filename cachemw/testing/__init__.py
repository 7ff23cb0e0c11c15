"""The contract of a store, as tests: subclass `BackendContract` to test your own backend.

    class TestMyCache(BackendContract):
        @pytest.fixture
        def make_cache(self):
            return lambda **params: MyCache("its location", params)

`make_cache(**params)` returns a cache, always on the same store, with Django's params (KEY_PREFIX="a", VERSION=2, …).
Each test clears the store first, and runs with the synchronous and with the asynchronous methods. If your store cannot
do everything, set the class attributes of `Contract`. To see values in failures, let pytest rewrite the assertions:
`pytest.register_assert_rewrite("cachemw.testing")` in your `conftest.py`.
"""

from __future__ import annotations

from cachemw.testing._concurrency import ConcurrencyContract
from cachemw.testing._counting import CountingContract
from cachemw.testing._face import Contract, Face
from cachemw.testing._keys import KeyContract
from cachemw.testing._pages import PageContract
from cachemw.testing._serializers import SerializerContract
from cachemw.testing._timeouts import TimeoutContract
from cachemw.testing._values import ValueContract

__all__ = ["BackendContract", "Contract", "Face"]


class BackendContract(
    ValueContract,
    TimeoutContract,
    CountingContract,
    KeyContract,
    SerializerContract,
    PageContract,
    ConcurrencyContract,
):
    """All tests of the contract: subclass it, with a fixture `make_cache` that returns your cache."""
