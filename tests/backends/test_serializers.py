"""Serializers and seals by themselves. What they mean for stores is in the contract."""

from __future__ import annotations

import pickle
from collections import Counter
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cachemw.backends._keys import default_key_func, key_function, validate
from cachemw.backends.serializers import JSONSerializer, PickleSerializer, Seal, make_serializer, secrets_from
from cachemw.errors import ImproperlyConfigured, SerializationError

plain = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(2**63), 2**64 - 1)
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(), inner, max_size=4),
    max_leaves=10,
)


@given(plain)
@pytest.mark.parametrize("name", ["pickle", "json", "msgpack"])
def test_what_goes_in_comes_out_and_never_looks_like_a_number(name: str, value: Any) -> None:
    serializer = make_serializer(name)
    data = serializer.dumps(value)
    assert serializer.loads(data) == value
    with pytest.raises(ValueError, match="invalid literal"):
        int(data)


@given(st.binary(max_size=20))
def test_bytes_of_a_users_serializer_come_back_whatever_they_are(data: bytes) -> None:
    class Raw:
        def dumps(self, value: Any) -> bytes:
            return bytes(value)

        def loads(self, data: bytes) -> Any:
            return data

    serializer = make_serializer(Raw)
    stored = serializer.dumps(data)
    assert serializer.loads(stored) == data
    with pytest.raises(ValueError, match=r"invalid literal|null"):
        int(stored)


def test_pickle_uses_the_highest_protocol() -> None:
    for given_ in (
        None,
        "pickle",
        PickleSerializer,
        PickleSerializer(),
        "cachemw.backends.serializers.PickleSerializer",
    ):
        assert make_serializer(given_).dumps([1])[:2] == b"\x80" + bytes([pickle.HIGHEST_PROTOCOL])


def test_only_a_whole_serializer_will_do() -> None:
    class Half:
        def dumps(self, value: Any) -> bytes:
            return b""

    for given_ in (Half, Half(), "cachemw.errors.CacheError", ""):
        with pytest.raises(ImproperlyConfigured, match="SERIALIZER"):
            make_serializer(given_)
    assert make_serializer(JSONSerializer()).loads(b"[1]") == [1]


@given(st.binary(min_size=1, max_size=80), st.text(max_size=20), st.binary(max_size=60), st.data())
def test_a_seal_opens_for_its_secret_key_and_data_alone(
    secret: bytes, key: str, data: bytes, draw: st.DataObject
) -> None:
    seal = Seal((secret,))
    sealed = seal.seal(key, data)
    assert seal.unseal(key, sealed) == data
    place = draw.draw(st.integers(0, len(sealed) - 1))
    spoiled = bytearray(sealed)
    spoiled[place] ^= draw.draw(st.integers(1, 255))
    for bad in (bytes(spoiled), sealed[:place], sealed + b"x", data, b""):
        with pytest.raises(SerializationError):
            seal.unseal(key, bad)
    with pytest.raises(SerializationError):
        seal.unseal(key + "x", sealed)
    with pytest.raises(SerializationError):
        Seal((secret + b"x",)).unseal(key, sealed)


def test_key_and_data_do_not_run_into_each_other() -> None:
    seal = Seal((b"secret",))
    assert seal.seal("ab", b"c")[:17] != seal.seal("a", b"bc")[:17]


def test_the_first_secret_signs_and_all_verify() -> None:
    old, both, new = Seal((b"old",)), Seal((b"new", b"old")), Seal((b"new",))
    assert both.unseal("key", old.seal("key", b"data")) == b"data"
    assert new.unseal("key", both.seal("key", b"data")) == b"data"


def test_secrets_are_texts_or_bytes_one_or_several() -> None:
    assert secrets_from(None) == ()
    assert secrets_from("é") == ("é".encode(),)
    assert secrets_from(b"raw") == (b"raw",)
    assert secrets_from(["new", b"old"]) == (b"new", b"old")
    for bad in ("", b"", [], [None], {"a": 1}, 5):
        with pytest.raises(ImproperlyConfigured, match="SECRET is '…'") as caught:
            secrets_from(bad)
        assert "old" not in str(caught.value)


def test_nothing_is_unpickled_before_its_seal_was_checked(monkeypatch: pytest.MonkeyPatch) -> None:
    from cachemw.backends.base import InlineCache
    from tests.backends.test_contract_base import DictCache

    loaded: Counter[str] = Counter()

    class Bomb:
        def __reduce__(self) -> Any:
            return (loaded.update, (["executed"],))

    cache = DictCache("bomb", {"SECRET": "a secret"})
    assert not isinstance(cache, InlineCache)
    made = cache.make_key("key")
    for prefix in (b"", b"\x02", b"\x02" + bytes(16)):
        cache._set([(made, prefix + pickle.dumps(["x"]), None)])
        monkeypatch.setattr(cache, "_loads", lambda data: loaded.update(["loaded"]))
        assert cache.get("key", "default") == "default"
    assert not loaded


def test_a_key_function_is_none_a_callable_or_a_path() -> None:
    assert key_function(None) is default_key_func
    assert key_function(max) is max
    assert key_function("cachemw.backends._keys.default_key_func") is default_key_func
    for bad in ("cachemw.errors", "cachemw.errors.__name__", 3):
        with pytest.raises(ImproperlyConfigured, match="KEY_FUNCTION"):
            key_function(bad)


@pytest.mark.filterwarnings("error")
def test_a_sound_key_passes() -> None:
    validate("k" * 250, strict=True, limit=250)
    validate("ключ", strict=False, limit=None)
    validate("non\xa0breaking", strict=True, limit=250)
