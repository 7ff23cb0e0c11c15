"""LOCATION and OPTIONS of a Redis cache: what is understood, and how the rest is refused."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import redis

from cachemw.backends._redis.options import Deployment, read_deployment, without_passwords
from cachemw.backends.redis import RedisCache
from cachemw.errors import ImproperlyConfigured


def read(location: Any, **options: Any) -> Deployment:
    return read_deployment(location, options)


class TestLocation:
    @pytest.mark.parametrize(
        ("location", "addresses"),
        [
            ("redis://h", [("h", 6379)]),
            ("redis://h:1/0", [("h", 1)]),
            ("redis://[::1]:1", [("::1", 1)]),
            ("unix:///a/b?db=1", ["/a/b"]),
            ("unix:///a%20b", ["/a b"]),
            (["redis://a", "redis://b:2"], [("a", 6379), ("b", 2)]),
            ("redis://a,redis://b:2", [("a", 6379), ("b", 2)]),
            ("redis://a;redis://b:2", [("a", 6379), ("b", 2)]),
            (("redis://a", "unix:///b"), [("a", 6379), "/b"]),
        ],
    )
    def test_a_leader_and_replicas(self, location: Any, addresses: list[Any]) -> None:
        deployment = read(location)
        assert deployment.kind == "replicas"
        assert [address for address, _ in deployment.servers] == addresses

    def test_each_server_has_its_own_credentials_and_database(self) -> None:
        first, second = (settings for _, settings in read("redis://u:p%2C@a/1;rediss://b/2?socket_timeout=3").servers)
        assert (first.connection["username"], first.connection["password"], first.connection["db"]) == ("u", "p,", 1)
        assert (first.tls, first.timeout) == (False, 0.1)
        assert "password" not in second.connection
        assert (second.tls, second.timeout, second.connection["db"]) == (True, 3.0, 2)

    def test_sentinels(self) -> None:
        deployment = read("redis+sentinel://u:p%40@a,b:1,[::1]/my%20service/3", sentinel_kwargs={"password": "s"})
        assert deployment.kind == "sentinel"
        assert [address for address, _ in deployment.servers] == [("a", 26379), ("b", 1), ("::1", 26379)]
        assert deployment.service == "my service"
        assert deployment.settings.connection["password"] == "p@"
        assert deployment.settings.connection["db"] == 3
        (_, sentinel), *_ = deployment.servers
        assert sentinel.connection["password"] == "s"
        assert "db" not in sentinel.connection
        assert "username" not in sentinel.connection

    def test_the_sentinels_speak_tls_when_the_servers_do(self) -> None:
        deployment = read("rediss+sentinel://a/service", ssl_ca_certs="/ca.pem")
        (_, sentinel), *_ = deployment.servers
        assert sentinel.tls
        assert sentinel.connection["ssl_ca_certs"] == "/ca.pem"
        deployment = read("rediss+sentinel://a/service", sentinel_kwargs={"ssl": False})
        assert not deployment.servers[0][1].tls
        assert deployment.settings.tls

    def test_clusters(self) -> None:
        deployment = read("rediss+cluster://:p@a,b:1?socket_timeout=2")
        assert deployment.kind == "cluster"
        assert [address for address, _ in deployment.servers] == [("a", 6379), ("b", 1)]
        settings = deployment.settings
        assert (settings.tls, settings.timeout, settings.connection["password"]) == (True, 2.0, "p")

    def test_a_cluster_of_ipv6_addresses(self) -> None:
        deployment = read("redis+cluster://u:[%2F@[::1],[::2]:1,a,[::3]")
        assert [address for address, _ in deployment.servers] == [("::1", 6379), ("::2", 1), ("a", 6379), ("::3", 6379)]
        assert deployment.settings.connection["password"] == "[/"

    @pytest.mark.parametrize(
        "location",
        [
            "",
            [],
            "h:6379",
            "http://h",
            "redis+proxy://h",
            "redis+sentinel://[::1/service",
            "redis+cluster://[::1",
            "memcached+cluster://h",
            "redis://h:port",
            "redis://h/cache",
            "redis://h/3/4",
            "rediss://h/-1",
            "redis://h?socket_timeout=soon",
            "unix://",
            "redis+sentinel://h",
            "redis+sentinel:///service",
            "redis+sentinel://h:x/service",
            "redis+cluster://a,,b",
            "redis+cluster://a/1",
            "redis+cluster://a?db=1",
            ["redis+cluster://a", "redis+cluster://b"],
            ["redis://a", "b"],
        ],
    )
    def test_what_is_no_location_is_refused(self, location: Any) -> None:
        with pytest.raises(ImproperlyConfigured, match="LOCATION") as caught:
            RedisCache(location, {})
        assert "redis" in str(caught.value)

    def test_no_message_and_no_log_has_a_password(self) -> None:
        for location in (
            "redis+proxy://u:secret@h?password=secret",
            "redis://u:secret@h:port",
            "redis+cluster://:secret@h/1",
            "redis://u:se/secret@h",
            "redis://u:secret/more@h",
            "redis+cluster://u:secret/more@h",
            "redis://u:secret?secret@h:port",
            "redis://u:a://secret@h:port",
            "u:secret@h",
            "redis+sentinel://h?password=a@secret",
            "redis://a,redis://u:a,secret@h:port",
        ):
            with pytest.raises(ImproperlyConfigured) as caught:
                RedisCache(location, {})
            assert "secret" not in "".join(map(str, _shown_by_a_traceback(caught.value)))
        assert without_passwords("redis://u:s@a?password=s;redis://:s@b/1") == "redis://***@a;redis://***@b/1"
        assert without_passwords(["redis://u:s@a", "redis://b"]) == ["redis://***@a", "redis://b"]
        assert "secret" not in repr(read("redis://u:secret@h"))


def _shown_by_a_traceback(error: BaseException | None) -> list[BaseException]:
    """An error, and all behind it that a log has, too."""
    shown: list[BaseException] = []
    while error is not None:
        shown.append(error)
        error = error.__cause__ or (None if error.__suppress_context__ else error.__context__)
    return shown


class TestOptions:
    def test_the_defaults_never_wait_long_and_never_ask_twice(self) -> None:
        settings = read("redis://h").settings
        assert (settings.timeout, settings.connect_timeout) == (0.1, 0.25)
        (node,) = RedisCache("redis://h", {})._routes.nodes()
        assert node._connection().retry.get_retries() == 0
        assert settings.connection["protocol"] == 3

    def test_text_is_understood_as_from_a_url(self) -> None:
        settings = read(
            "redis://h",
            socket_timeout="0.5",
            db="2",
            max_connections="4",
            protocol="2",
            socket_keepalive="no",
        ).settings
        assert (settings.timeout, settings.max_connections) == (0.5, 4)
        assert settings.connection["db"] == 2
        assert settings.connection["protocol"] == 2
        assert settings.connection["socket_keepalive"] is False

    def test_options_come_before_the_urls_own(self) -> None:
        assert read("redis://h/1?socket_timeout=3", db=2, socket_timeout=4).settings.connection["db"] == 2

    @pytest.mark.parametrize(
        ("name", "value"),
        [
            ("socket_timeout", None),
            ("socket_timeout", 0),
            ("socket_timeout", "soon"),
            ("socket_timeout", "1e20"),
            ("socket_connect_timeout", 1e20),
            ("socket_connect_timeout", -1),
            ("db", "first"),
            ("db", -1),
            ("max_connections", 0),
            ("protocol", 4),
            ("ssl", "perhaps"),
            ("retry_on_timeout", "perhaps"),
            ("parser_class", "no.such.Parser"),
            ("pool_class", "no.such.Pool"),
            ("ssl_ca_certs", "/ca.pem"),
            ("sentinel_kwargs", "password"),
        ],
    )
    def test_a_bad_value_is_named(self, name: str, value: Any) -> None:
        location = "redis+sentinel://h/service" if name == "sentinel_kwargs" else "redis://h"
        with pytest.raises(ImproperlyConfigured, match=name) as caught:
            RedisCache(location, {"OPTIONS": {name: value}})
        assert "allowed" in str(caught.value) or "imported" in str(caught.value)

    def test_an_unknown_option_is_named_with_those_there_are(self) -> None:
        for location, options in (
            ("redis://h", {"sokcet_timeout": 1}),
            ("redis://h?sokcet_timeout=1", {}),
            ("redis+sentinel://h/service", {"sentinel_kwargs": {"sokcet_timeout": 1}}),
        ):
            with pytest.raises(ImproperlyConfigured, match=r"sokcet_timeout.*socket_timeout"):
                RedisCache(location, {"OPTIONS": options})

    @pytest.mark.parametrize("name", ["ssl_ca_certs", "ssl_ca_path", "ssl_certfile", "ssl_keyfile"])
    def test_a_file_that_is_not_there_is_named_when_the_cache_is_made(self, name: str) -> None:
        options = {name: "/no/such.pem"}
        for location, given in (
            ("rediss://h", options),
            (f"rediss://h?{name}=/no/such.pem", {}),
            ("rediss+cluster://h", options),
            ("redis+sentinel://h/service", {"sentinel_kwargs": {"ssl": True, **options}}),
        ):
            with pytest.raises(ImproperlyConfigured, match=rf"OPTIONS\['{name}'\] is '/no/such.pem'; allowed"):
                RedisCache(location, {"OPTIONS": given})
        for file in (__file__, Path(__file__), None):
            RedisCache("rediss://h", {"OPTIONS": {name: file}})

    def test_what_redis_py_refuses_is_refused_when_the_cache_is_made(self) -> None:
        with pytest.raises(ImproperlyConfigured, match="does not fit /a"):
            RedisCache("unix:///a", {"OPTIONS": {"socket_keepalive": True}})
        with pytest.raises(ImproperlyConfigured, match="credential_provider"):
            RedisCache("redis://u:p@h", {"OPTIONS": {"credential_provider": object()}})

    def test_classes_may_be_dotted_paths(self) -> None:
        path = "redis.connection.DefaultParser"
        assert (
            read("redis://h", parser_class=path).settings.connection["parser_class"] is redis.connection.DefaultParser
        )
        assert read("redis://h", pool_class="redis.ConnectionPool").pool_class is redis.ConnectionPool

    @pytest.mark.parametrize("location", ["redis+sentinel://h/service", "redis+cluster://h"])
    def test_a_pool_class_is_for_single_servers(self, location: str) -> None:
        with pytest.raises(ImproperlyConfigured, match="pool_class"):
            RedisCache(location, {"OPTIONS": {"pool_class": redis.ConnectionPool}})

    def test_the_serializer_may_stand_in_options_as_in_django(self) -> None:
        assert RedisCache("redis://h", {"OPTIONS": {"serializer": "json"}})._encode("key", [1]) == b"[1]"
        assert RedisCache("redis://h", {"OPTIONS": {"SERIALIZER": "json"}})._encode("key", [1]) == b"[1]"
