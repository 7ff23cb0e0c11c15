"""Serializers, and the secret that authenticates what they made."""

from __future__ import annotations

import base64
import enum
import json
from typing import Any

import pytest

from cachemw.errors import ImproperlyConfigured, SerializationError
from cachemw.testing._face import Connect, Contract

__all__ = ["SerializerContract"]


class Base64JSON:
    """A serializer of the user's own."""

    def dumps(self, value: Any) -> bytes:
        return base64.b64encode(json.dumps(value).encode())

    def loads(self, data: bytes) -> Any:
        return json.loads(base64.b64decode(data))


class Level(enum.IntEnum):
    """An int whose JSON looks like a number."""

    HIGH = 50


SERIALIZERS: dict[str, Any] = {
    "pickle": "pickle",
    "json": "json",
    "msgpack": "msgpack",
    "class": Base64JSON,
    "object": Base64JSON(),
    "path": "cachemw.testing._serializers.Base64JSON",
    "module": json,
    "module's path": "cachemw.testing._serializers.json",
}
SECRETS: dict[str, Any] = {"open": None, "sealed": "a secret", "rotated": ["a newer secret", "a secret"]}


class SerializerContract(Contract):
    @pytest.mark.parametrize("secret", SECRETS)
    @pytest.mark.parametrize("serializer", SERIALIZERS)
    def test_every_serializer_keeps_plain_values(self, connect: Connect, serializer: str, secret: str) -> None:
        cache = connect(SERIALIZER=SERIALIZERS[serializer], SECRET=SECRETS[secret])
        values = {
            "text": "ünïcödé",
            "digits": "7",
            "empty": "",
            "int": 7,
            "negative": -7,
            "bool": True,
            "float": 1.5,
            "none": None,
            "list": [1, "two", [3.0]],
            "dict": {"a": {"b": None}},
        }
        assert cache.set_many(values) == []
        found = cache.get_many(values)
        assert found == values
        assert {name: type(value) for name, value in found.items()} == {
            name: type(value) for name, value in values.items()
        }
        assert cache.get_or_set("made", lambda: {"x": 1}) == {"x": 1}
        assert cache.incr("int") == 8
        assert cache.incr_version("dict") == 2
        assert cache.get("dict", version=2) == {"a": {"b": None}}
        for key in ("digits", "bool", "float", "none"):
            with pytest.raises(TypeError):
                cache.incr(key)

    @pytest.mark.parametrize("serializer", SERIALIZERS)
    def test_what_looks_like_a_number_is_not_counted(self, connect: Connect, serializer: str) -> None:
        cache = connect(SERIALIZER=SERIALIZERS[serializer])
        cache.set_many({"enum": Level.HIGH, "large": 2**63 + 1})
        assert cache.get("enum") == 50
        assert cache.get("large") == 2**63 + 1
        with pytest.raises(TypeError):
            cache.incr("enum")
        with pytest.raises(TypeError):
            cache.incr("large")

    @pytest.mark.parametrize("serializer", ["json", "msgpack", "class"])
    def test_what_a_serializer_cannot_take_raises_and_names_the_key(self, connect: Connect, serializer: str) -> None:
        cache = connect(SERIALIZER=SERIALIZERS[serializer])
        with pytest.raises(SerializationError, match="spoiled") as caught:
            cache.set("spoiled", object())
        assert isinstance(caught.value, TypeError)
        assert "spoiled" not in cache

    @pytest.mark.parametrize("serializer", ["no", "nowhere.at.all", 7, object()], ids=repr)
    def test_what_is_no_serializer_is_refused(self, connect: Connect, serializer: Any) -> None:
        with pytest.raises(ImproperlyConfigured, match="SERIALIZER"):
            connect(SERIALIZER=serializer)

    @pytest.mark.parametrize("secret", ["", [], [""], 7, ["a", 7]], ids=repr)
    def test_what_is_no_secret_is_refused_and_not_shown(self, connect: Connect, secret: Any) -> None:
        with pytest.raises(ImproperlyConfigured, match="SECRET is '…'"):
            connect(SECRET=secret)

    def test_a_secret_authenticates_what_other_processes_could_have_written(self, connect: Connect) -> None:
        unsealed, sealed, other = connect(), connect(SECRET=SECRETS["sealed"]), connect(SECRET=["another"])
        if sealed.cache.by_reference:
            return
        unsealed.set("forged", ["value"])
        other.set("foreign", ["value"])
        sealed.set_many({"mine": ["value"], "count": 7})
        stored = sealed._get((sealed.cache.make_key("mine"),))[sealed.cache.make_key("mine")]
        moved, damaged, cut = (sealed.cache.make_key(name) for name in ("moved", "damaged", "cut"))
        sealed._set(
            ((moved, stored, None), (damaged, stored[:-1] + bytes([stored[-1] ^ 1]), None), (cut, stored[:9], None))
        )
        for key in ("forged", "foreign", "moved", "damaged", "cut"):
            assert sealed.get(key, "default") == "default"
            assert sealed.get_many([key]) == {}
            with pytest.raises(ValueError, match=key):
                sealed.incr_version(key)
        assert sealed.get_many(["mine", "count"]) == {"mine": ["value"], "count": 7}

    def test_a_secret_can_be_rotated(self, connect: Connect) -> None:
        old, both, new = connect(SECRET=["old"]), connect(SECRET=["new", "old"]), connect(SECRET=["new"])
        if old.cache.by_reference:
            return
        old.set("before", ["value"])
        assert both.get("before") == ["value"]
        both.set("after", ["value"])
        assert new.get("after") == ["value"]
        assert old.get("after") is None
        assert new.get("before", "default") == "default"

    def test_a_damaged_value_is_a_miss_and_is_made_anew(
        self, connect: Connect, caplog: pytest.LogCaptureFixture
    ) -> None:
        cache = connect()
        if cache.cache.by_reference:
            return
        made = cache.cache.make_key("garbage")
        cache.set_many({"whole": ["value"], "count": 5})
        for garbage in (b"\x80garbage", b"", b"\x80\x05.", b"\xff" * 100):
            cache._set(((made, garbage, None),))
            assert cache.get("garbage", "default") == "default"
            assert cache.get_many(["whole", "garbage", "count"]) == {"whole": ["value"], "count": 5}
            assert cache.get_or_set("garbage", lambda: "mended") == "mended"
            assert cache.get("garbage") == "mended"
        assert [made in line for line in caplog.messages] == [True]  # once a minute, with its key
