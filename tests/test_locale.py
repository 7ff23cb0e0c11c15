"""Language and time zone: who is chosen, who gets to know, and what is left behind."""

from __future__ import annotations

import asyncio
import contextvars
import threading
import time
from collections.abc import Callable, Iterable, Iterator
from datetime import timedelta, timezone, tzinfo
from typing import Any
from wsgiref.util import FileWrapper, setup_testing_defaults
from wsgiref.validate import validator
from zoneinfo import ZoneInfo

import anyio.to_thread
import httpx
import pytest
from hypothesis import given
from hypothesis import strategies as st
from starlette.applications import Starlette
from starlette.requests import HTTPConnection, Request
from starlette.responses import PlainTextResponse
from starlette.routing import Route

from cachemw import Settings, locale
from cachemw.activation import (
    KEY,
    Locale,
    activate_language,
    activate_timezone,
    deactivate_language,
    deactivate_timezone,
    enter,
    get_language,
    get_timezone,
    leave,
)
from cachemw.asgi import CacheMiddleware, FetchFromCacheMiddleware, UpdateCacheMiddleware
from cachemw.backends.locmem import LocMemCache
from cachemw.errors import ImproperlyConfigured
from cachemw.locale import (
    ASGILocaleMiddleware,
    ASGITimezoneMiddleware,
    WSGILocaleMiddleware,
    WSGITimezoneMiddleware,
)
from cachemw.negotiation import Cookie, Languages

LANGUAGES = ["en", "de", "pt-BR", "zh-Hans"]


@pytest.fixture(autouse=True)
def _own_context() -> Iterator[None]:
    """What a test activates without a request ends with the test."""
    token = enter({})
    yield
    leave(token)


# -- negotiation --------------------------------------------------------------------------------------------------

# RFC 4647 §3.4: "In the lookup scheme, the language range is progressively truncated from the end until a matching
# language tag is located. Single letter or digit subtags (including both the letter 'x' … ) are removed at the same
# time as their closest trailing subtag."
ACCEPTED = [
    ("", "en"),
    ("de", "de"),
    ("DE", "de"),
    ("de-AT", "de"),
    ("de-AT-1996", "de"),
    ("de-x-private", "de"),
    ("de-a-b-c", "de"),
    ("pt-br", "pt-BR"),
    ("fr, de", "de"),
    ("fr", "en"),
    ("en;q=0.5, de;q=0.8", "de"),
    ("en;q=0.8, de;q=0.8", "en"),  # equal weights: as written
    ("de;q=0.8, en;q=0.8", "de"),
    ("en;q=0.001,de;q=0.002", "de"),
    ("de ; q=0.1 , en\t;\tq=0.2", "en"),
    ("de;Q=1.000, en", "de"),
    # a more special language is better than the default, and worse than any lookup
    ("pt", "pt-BR"),
    ("zh", "zh-Hans"),
    ("pt, de;q=0.1", "de"),
    ("zh-TW", "en"),
    # "*" does not say which
    ("*", "en"),
    ("*, de;q=0.1", "de"),
    ("fr, *;q=0.5", "en"),
    # q=0: not acceptable (RFC 9110 §12.4.2); the most special range counts
    ("de;q=0", "en"),
    ("en;q=0", "de"),
    ("en;q=0, *", "de"),
    ("en;q=0, de;q=0", "pt-BR"),
    ("de-AT, de;q=0", "en"),
    ("pt;q=0, pt-BR", "pt-BR"),
    ("pt, pt-BR;q=0", "en"),
    ("*;q=0", "en"),
    ("*;q=0, de", "de"),
    ("en;q=0, pt, pt-BR;q=0, de;q=0.0", "zh-Hans"),
    # what is no range is not there
    ("de;q=2", "en"),
    ("de;q=0.1234", "en"),
    ("de;q=", "en"),
    ("de;level=1", "en"),
    ("de_AT", "en"),
    ("1de", "en"),
    ("-, ;;, de", "de"),
    ("déutsch, de", "de"),
    ("abcdefghi, de", "de"),
    ("de\xa0", "en"),
]


@pytest.mark.parametrize(("field", "language"), ACCEPTED)
def test_accept_language_by_lookup(field: str, language: str) -> None:
    languages = Languages(LANGUAGES)
    assert languages.accepted(field) == language
    assert languages.accepted(field) == language  # and from memory


def test_only_the_beginning_of_a_long_field_counts() -> None:
    languages = Languages(LANGUAGES)
    assert languages.accepted("fr," * 300 + "de") == "de"
    assert languages.accepted("fr," * 400 + "de") == "en"
    assert languages.accepted("de," + "x" * 60_000) == "de"
    assert languages.accepted("d" * 60_000) == "en"


def test_the_fields_of_strangers_do_not_fill_the_memory() -> None:
    languages = Languages(LANGUAGES)
    for number in range(3000):
        assert languages.accepted(f"de, x{number}") == "de"
    assert 0 < len(languages._memo) <= 1024


@given(st.text(max_size=80) | st.text(alphabet="deptBRzh-*,;q=0.1 ", max_size=60))
def test_any_field_gets_one_of_the_languages(field: str) -> None:
    assert Languages(LANGUAGES, "de").accepted(field) in LANGUAGES
    assert Languages(LANGUAGES).best_for(field) in (*LANGUAGES, None)


def test_languages_as_django_lists_them() -> None:
    languages = Languages([("en", "English"), ("de", "Deutsch")], "de")
    assert (languages.tags, languages.default) == (("en", "de"), "de")


@pytest.mark.parametrize("languages", ["en", [], [""], ["en_GB"], ["en", None], ["a\r\nb"], [("e n", "English")]])
def test_languages_are_a_list_of_tags(languages: Any) -> None:
    with pytest.raises(ImproperlyConfigured, match="languages: a list of tags"):
        Languages(languages)


@pytest.mark.parametrize("default", ["fr", "", 7])
def test_the_default_is_one_of_the_languages(default: Any) -> None:
    assert Languages(LANGUAGES, "PT-br").default == "pt-BR"
    with pytest.raises(ImproperlyConfigured, match="is not one of the languages en, de, pt-BR, zh-Hans"):
        Languages(LANGUAGES, default)


def test_a_default_more_special_than_a_language_stands_for_that_one() -> None:
    assert Languages(LANGUAGES, "de-AT").default == "de"


@pytest.mark.parametrize("kind", [WSGILocaleMiddleware, ASGILocaleMiddleware])
def test_languages_that_are_not_passed_are_those_of_the_settings(kind: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    settings = {
        "LANGUAGES": [("en", "English"), ("de", "German")],
        "LANGUAGE_CODE": "de-at",
        "LANGUAGE_COOKIE_NAME": "l",
    }
    choice = kind(None, settings=settings)._choice
    assert (choice.languages.tags, choice.languages.default, choice.cookie.name) == (("en", "de"), "de", "l")
    assert kind(None, settings=settings, cookie=None)._choice.cookie is None
    assert kind(None, settings=settings, default="en")._choice.languages.default == "en"
    passed = kind(None, settings=settings, languages=["fr", "it"])._choice
    assert (passed.languages.default, passed.cookie.name) == ("fr", "l")
    assert kind(None, languages=["fr"], cookie=None)._choice.cookie is None
    with pytest.raises(ImproperlyConfigured, match=r"languages: .* set CACHEMW_LANGUAGES"):
        kind(None)
    monkeypatch.setenv("CACHEMW_LANGUAGES", "pt-BR, de")
    monkeypatch.setenv("CACHEMW_LANGUAGE_COOKIE", "lang")
    choice = kind(None)._choice
    assert (choice.languages.tags, choice.languages.default, choice.cookie.name) == (("pt-BR", "de"), "pt-BR", "lang")


@pytest.mark.parametrize("kind", [WSGITimezoneMiddleware, ASGITimezoneMiddleware])
def test_a_default_zone_that_is_not_passed_is_that_of_the_settings(kind: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    assert kind(None, settings={"TIME_ZONE": "Europe/Berlin"})._choice.default == "Europe/Berlin"
    assert kind(None, settings={"TIME_ZONE": "Europe/Berlin"}, default="Asia/Tokyo")._choice.default == "Asia/Tokyo"
    monkeypatch.setenv("CACHEMW_TIME_ZONE", "Asia/Tokyo")
    assert kind(None)._choice.default == "Asia/Tokyo"


COOKIES = [
    ("", None),
    ("lang=de", "de"),
    ("a=1; lang=de; b=2", "de"),
    ("a=1;lang=de", "de"),
    ("a=1;\tlang=de ", "de"),
    ('lang="de"', "de"),
    ("lang=Europe%2FBerlin", "Europe/Berlin"),
    ("lang=", ""),
    ("lang", None),
    ("xlang=de", None),
    ("lang2=de", None),
    ("x=lang=de", None),
    ("x= lang=de", None),
    ("lang=de; lang=en", "de"),  # the first: browsers send the most special path first
    ("LANG=de", None),
    ("lang=%", "%"),
]


@pytest.mark.parametrize(("field", "value"), COOKIES)
def test_one_cookie_is_read(field: str, value: str | None) -> None:
    assert Cookie("lang").value(field) == value


def test_a_hostile_cookie_field_is_read_in_linear_time() -> None:
    """64 KiB at quadratic cost would be minutes; these are milliseconds."""
    began = time.process_time()
    for piece in (";", "; ", " ", "lang", ";\t lang", "lang="):
        Cookie("lang").value("x" + piece * (65_536 // len(piece)))
    assert time.process_time() - began < 2


@pytest.mark.parametrize("name", ["", "a b", "a=b", None, "ü"])
def test_the_name_of_a_cookie_is_a_token(name: Any) -> None:
    with pytest.raises(ImproperlyConfigured, match="cannot be the name of a cookie"):
        Cookie(name)


# -- activation ---------------------------------------------------------------------------------------------------


def test_an_application_activates_what_it_has_chosen() -> None:
    assert get_language() is None
    assert get_timezone() is None
    activate_language("pt_BR")  # Babel's spelling
    activate_timezone("Europe/Berlin")
    assert (get_language(), get_timezone()) == ("pt-BR", "Europe/Berlin")
    activate_timezone(ZoneInfo("Asia/Tokyo"))
    assert get_timezone() == "Asia/Tokyo"
    activate_timezone(timezone(timedelta(hours=2)))
    assert get_timezone() == "UTC+02:00"
    deactivate_language()
    assert (get_language(), get_timezone()) == (None, "UTC+02:00")
    deactivate_timezone()
    assert get_timezone() is None


@pytest.mark.parametrize("tag", ["", "de AT", "deutschsprachig", "d\r\n", "*", None, 7, "-de"])
def test_what_is_no_language_tag_is_refused(tag: Any) -> None:
    with pytest.raises(ValueError, match="is not a language tag"):
        activate_language(tag)
    assert get_language() is None


@pytest.mark.parametrize("zone", ["", "Mars/Olympus", "/etc/passwd", "../UTC", "Europe", "UTC\0", "x" * 5000, None, 7])
def test_what_is_no_zone_is_refused(zone: Any) -> None:
    with pytest.raises(ValueError, match="is not a time zone"):
        activate_timezone(zone)
    assert get_timezone() is None


def test_without_a_request_a_choice_stays_in_its_context() -> None:
    def alone() -> tuple[str | None, str | None]:
        assert get_language() is get_timezone() is None
        activate_language("de")
        activate_timezone("UTC")
        return get_language(), get_timezone()

    assert contextvars.Context().run(alone) == ("de", "UTC")
    assert get_language() is None


def test_the_outer_half_sees_what_another_thread_or_context_activates() -> None:
    environ: dict[str, Any] = {}
    token = enter(environ)
    context = contextvars.copy_context()
    thread = threading.Thread(target=context.run, args=(activate_language, "de"))
    thread.start()
    thread.join()
    assert environ[KEY].language == "de"
    assert get_language() == "de"
    leave(token)
    assert get_language() is None


def test_entering_twice_is_one_locale() -> None:
    environ: dict[str, Any] = {}
    outer = enter(environ)
    locale = environ[KEY]
    inner = enter(environ)
    assert environ[KEY] is locale
    activate_language("de")
    leave(inner)
    assert get_language() == "de"
    leave(outer)
    assert get_language() is None


def test_what_is_left_in_another_context_is_over_in_this_one_too() -> None:
    """Where a server closes the body in another thread than it called the application in."""
    entered = enter({})
    activate_language("de")
    contextvars.Context().run(leave, entered)
    assert get_language() is None


def test_of_two_within_one_another_either_may_end_first() -> None:
    outer = enter({})
    activate_language("de")
    inner = enter({})
    leave(outer)
    leave(inner)
    assert get_language() is None


def test_one_locale_is_over_when_all_who_entered_it_have_left() -> None:
    environ: dict[str, Any] = {}
    outer = enter(environ)
    activate_language("de")
    contextvars.Context().run(lambda: leave(enter(environ)))
    assert get_language() == "de"
    leave(outer)
    assert get_language() is None


# -- one request on WSGI and on ASGI ------------------------------------------------------------------------------

Fields = list[tuple[str, str]]


class Answer:
    """What came out, and what the application saw."""

    def __init__(self) -> None:
        self.fields: Fields = []
        self.seen: dict[str, Any] = {}

    def values(self, name: str) -> list[str]:
        return [value for key, value in self.fields if key.lower() == name]

    @property
    def vary(self) -> str:
        return ", ".join(self.values("vary"))


View = Callable[[], Fields]


def plain() -> Fields:
    """A view that leaves everything to the middleware."""
    return [("Content-Type", "text/plain")]


def wsgi(
    path: str,
    request: Fields,
    view: View,
    make: Callable[..., Any] | None = None,
    *,
    mount: str = "",
    state: Locale | None = None,
    **options: Any,
) -> Answer:
    """One request through a WSGI middleware, under wsgiref's validator."""
    answer = Answer()

    def app(environ: dict[str, Any], start_response: Callable[..., Any]) -> list[bytes]:
        fields = view()
        answer.seen = {
            "language": get_language(),
            "timezone": get_timezone(),
            "mount": environ["SCRIPT_NAME"],
            "path": environ["PATH_INFO"],
        }
        start_response("200 OK", fields)
        return [b"page"]

    environ: dict[str, Any] = {"SCRIPT_NAME": mount, "PATH_INFO": path, "QUERY_STRING": ""}
    for name, value in request:
        key = "HTTP_" + name.upper().replace("-", "_")
        joint = "; " if name == "cookie" else ", "
        environ[key] = f"{environ[key]}{joint}{value}" if key in environ else value
    if state is not None:
        environ[KEY] = state
    setup_testing_defaults(environ)

    def start_response(status: str, fields: Fields, exc_info: Any = None) -> Callable[[bytes], object]:
        answer.fields = fields
        return lambda data: None

    middleware = (make or WSGILocaleMiddleware)(validator(app), **options)
    body = validator(middleware)(environ, start_response)
    assert b"".join(body) == b"page"
    body.close()  # type: ignore[attr-defined]
    assert get_language() is None
    assert get_timezone() is None
    return answer


def asgi(
    path: str,
    request: Fields,
    view: View,
    make: Callable[..., Any] | None = None,
    *,
    mount: str = "",
    state: Locale | None = None,
    **options: Any,
) -> Answer:
    """One request through an ASGI middleware."""
    answer = Answer()

    async def app(scope: Any, receive: Any, send: Any) -> None:
        fields = view()
        root = scope["root_path"]
        assert scope["path"].startswith(root)
        answer.seen = {
            "language": get_language(),
            "timezone": get_timezone(),
            "mount": root,
            "path": scope["path"][len(root) :] or "/",
        }
        raw = [(name.lower().encode("latin-1"), value.encode("latin-1")) for name, value in fields]
        await send({"type": "http.response.start", "status": 200, "headers": raw})
        await send({"type": "http.response.body", "body": b"page"})

    scope: dict[str, Any] = {"type": "http", "method": "GET", "root_path": mount, "path": mount + path}
    scope["headers"] = [(name.encode(), value.encode("latin-1")) for name, value in request]
    if state is not None:
        scope[KEY] = state
    before = {**scope, KEY: scope.get(KEY)}

    async def send(message: Any) -> None:
        if message["type"] == "http.response.start":
            assert all(name == name.lower() for name, _ in message["headers"])
            answer.fields = [(name.decode("latin-1"), value.decode("latin-1")) for name, value in message["headers"]]

    async def run() -> None:
        await (make or ASGILocaleMiddleware)(app, **options)(scope, None, send)  # type: ignore[arg-type]
        assert get_language() is None
        assert get_timezone() is None

    asyncio.run(run())
    assert {**scope, KEY: before[KEY]} == before  # a scope belongs to whoever made it
    return answer


LOCALES = pytest.mark.parametrize("ask", [wsgi, asgi])
ZONES = pytest.mark.parametrize(
    ("ask", "make"), [(wsgi, WSGITimezoneMiddleware), (asgi, ASGITimezoneMiddleware)], ids=["wsgi", "asgi"]
)

# -- LocaleMiddleware ---------------------------------------------------------------------------------------------

CHOICES: list[tuple[str, Fields, str]] = [
    ("/", [], "en"),
    ("/", [("accept-language", "de-AT, en;q=0.5")], "de"),
    ("/", [("accept-language", "en;q=0.5"), ("accept-language", "de")], "de"),  # two lines
    ("/", [("cookie", "django_language=pt-br"), ("accept-language", "de")], "pt-BR"),
    ("/", [("cookie", "a=1"), ("cookie", "django_language=pt-BR")], "pt-BR"),  # HTTP/2 may send two lines
    ("/", [("cookie", "django_language=de-AT"), ("accept-language", "en")], "de"),
    ("/", [("cookie", "django_language=fr"), ("accept-language", "de")], "de"),
    ("/", [("cookie", "django_language="), ("accept-language", "de")], "de"),
    ("/", [("cookie", "django_language=../../x\x00"), ("accept-language", "de")], "de"),
    ("/zh-hans/a", [("cookie", "django_language=de"), ("accept-language", "de")], "zh-Hans"),
    ("/de", [("accept-language", "en")], "de"),
    ("/de/", [], "de"),
    ("/design", [], "en"),
    ("/de-AT/a", [], "en"),  # no language of this site
    ("/x/de", [], "en"),
    ("", [], "en"),
]


@LOCALES
@pytest.mark.parametrize(("path", "request_fields", "language"), CHOICES)
def test_path_then_cookie_then_accept_language_then_default(
    ask: Any, path: str, request_fields: Fields, language: str
) -> None:
    answer = ask(path or "/", request_fields, plain, languages=LANGUAGES, path_prefix="keep")
    assert answer.seen["language"] == language
    assert answer.seen["path"] == (path or "/")
    assert answer.values("content-language") == [language]


@LOCALES
def test_without_the_option_a_path_says_nothing(ask: Any) -> None:
    answer = ask("/de/a", [], plain, languages=LANGUAGES)
    assert (answer.seen["language"], answer.seen["path"]) == ("en", "/de/a")


@LOCALES
@pytest.mark.parametrize(
    ("mount", "path", "inner_mount", "inner_path"),
    [
        ("", "/de/a/b", "/de", "/a/b"),
        ("", "/de/", "/de", "/"),
        ("", "/de", "/de", "/"),
        ("", "/DE/a", "/DE", "/a"),
        ("/site", "/de/a", "/site/de", "/a"),
        ("/de", "/a", "/de", "/a"),  # the mount is not the application's path
        ("/de", "/en/a", "/de/en", "/a"),
        ("", "/fr/a", "", "/fr/a"),
    ],
)
def test_a_stripped_language_becomes_part_of_the_mount(
    ask: Any, mount: str, path: str, inner_mount: str, inner_path: str
) -> None:
    answer = ask(path, [], plain, languages=LANGUAGES, path_prefix="strip", mount=mount)
    assert (answer.seen["mount"], answer.seen["path"]) == (inner_mount, inner_path)


@LOCALES
def test_where_the_path_decides_nothing_varies(ask: Any) -> None:
    assert ask("/de/a", [], plain, languages=LANGUAGES, path_prefix="keep").vary == ""
    assert ask("/a", [], plain, languages=LANGUAGES, path_prefix="keep").vary == "Accept-Language, Cookie"


@LOCALES
def test_what_decides_is_named_in_vary_unless_the_key_has_it(ask: Any) -> None:
    assert ask("/", [], plain, languages=LANGUAGES).vary == "Accept-Language, Cookie"
    assert ask("/", [], plain, languages=LANGUAGES, cookie=None).vary == "Accept-Language"
    assert ask("/", [], plain, languages=["en"]).vary == ""
    keyed = Locale()
    keyed.keyed = (":language",)
    assert ask("/", [], plain, languages=LANGUAGES, state=keyed).vary == "Accept-Language"
    assert keyed.language == "en"
    keyed.keyed = (":timezone",)
    assert ask("/", [], plain, languages=LANGUAGES, state=keyed).vary == "Accept-Language, Cookie"


@LOCALES
def test_what_the_application_says_stays(ask: Any) -> None:
    def view() -> Fields:
        return [("VARY", "Origin"), ("content-LANGUAGE", "fr"), ("Vary", "cookie"), ("X-Latin", "\xe9"), *plain()]

    answer = ask("/", [], view, languages=LANGUAGES)
    assert answer.vary == "Origin, cookie, Accept-Language"
    assert len(answer.values("vary")) == 1
    assert answer.values("content-language") == ["fr"]
    assert answer.values("x-latin") == ["\xe9"]


@LOCALES
def test_what_the_application_activates_counts_for_the_response_and_for_the_cache(ask: Any) -> None:
    def view() -> Fields:
        activate_language("pt-BR")
        activate_timezone("Asia/Tokyo")
        return plain()

    state = Locale()
    answer = ask("/", [("accept-language", "de")], view, languages=LANGUAGES, state=state)
    assert answer.values("content-language") == ["pt-BR"]
    assert (state.language, state.timezone) == ("pt-BR", "Asia/Tokyo")


@LOCALES
def test_an_application_may_take_the_choice_back(ask: Any) -> None:
    def view() -> Fields:
        deactivate_language()
        return plain()

    assert ask("/", [], view, languages=LANGUAGES).values("content-language") == []


@LOCALES
def test_an_application_that_raises_leaves_nothing_behind(ask: Any) -> None:
    def view() -> Fields:
        raise RuntimeError("page")

    with pytest.raises(RuntimeError, match="page"):
        ask("/", [], view, languages=LANGUAGES)
    assert get_language() is None


@pytest.mark.parametrize("make", [WSGILocaleMiddleware, ASGILocaleMiddleware])
@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"languages": []}, "languages: a list of tags"),
        ({"languages": ["en"], "default": "de"}, "default: 'de' is not one of"),
        ({"languages": ["en"], "cookie": "a b"}, "cookie: 'a b'"),
        ({"languages": ["en"], "path_prefix": True}, "path_prefix: True is neither 'keep' nor 'strip' nor None"),
    ],
)
def test_a_wrong_option_is_an_error_before_the_first_request(make: Any, options: Any, message: str) -> None:
    with pytest.raises(ImproperlyConfigured, match=message):
        make(lambda *args: None, **options)


# -- TimezoneMiddleware -------------------------------------------------------------------------------------------

ZONE_CHOICES: list[tuple[Fields, dict[str, Any], str]] = [
    ([], {}, "UTC"),
    ([], {"default": "Asia/Tokyo"}, "Asia/Tokyo"),
    ([("cookie", "timezone=Europe/Berlin")], {}, "Europe/Berlin"),
    ([("cookie", "timezone=Europe%2FBerlin")], {}, "Europe/Berlin"),
    ([("cookie", "timezone=Mars/Olympus")], {}, "UTC"),
    ([("cookie", "timezone=../../etc/passwd")], {}, "UTC"),
    ([("cookie", "timezone=europe/berlin")], {}, "UTC"),  # one zone, one spelling, one page
    ([("cookie", "tz=Europe/Berlin")], {"cookie": "tz"}, "Europe/Berlin"),
    ([("cookie", "timezone=Europe/Berlin")], {"cookie": None}, "UTC"),
    ([("x-zone", "Asia/Tokyo")], {"choose": lambda request: request.headers["x-zone"]}, "Asia/Tokyo"),
    ([("x-zone", "Asia/Tokyo")], {"choose": lambda request: ZoneInfo(request.headers["x-zone"])}, "Asia/Tokyo"),
    ([("cookie", "timezone=Europe/Berlin")], {"choose": lambda request: "Asia/Tokyo"}, "Asia/Tokyo"),
    ([("cookie", "timezone=Europe/Berlin")], {"choose": lambda request: None}, "Europe/Berlin"),
    ([("cookie", "timezone=Europe/Berlin")], {"choose": lambda request: "Mars"}, "Europe/Berlin"),
    ([], {"choose": lambda request: 7}, "UTC"),
    ([], {"choose": lambda request: [], "cookie": None}, "UTC"),
]


@ZONES
@pytest.mark.parametrize(("request_fields", "options", "zone"), ZONE_CHOICES)
def test_function_then_cookie_then_default(
    ask: Any, make: Any, request_fields: Fields, options: dict[str, Any], zone: str
) -> None:
    answer = ask("/", request_fields, plain, make, **options)
    assert answer.seen["timezone"] == zone
    assert answer.values("content-language") == []


@ZONES
def test_the_zone_of_a_cookie_is_named_in_vary_unless_the_key_has_it(ask: Any, make: Any) -> None:
    assert ask("/", [], plain, make).vary == "Cookie"
    assert ask("/", [], plain, make, cookie=None).vary == ""
    assert ask("/", [], plain, make, cookie=None, choose=lambda request: None).vary == "Cookie"
    keyed = Locale()
    keyed.keyed = (":language", ":timezone")
    assert ask("/", [], plain, make, state=keyed).vary == ""
    assert keyed.timezone == "UTC"


@ZONES
def test_a_wrong_zone_or_function_is_an_error_before_the_first_request(
    ask: Any, make: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(ImproperlyConfigured, match="default: 'Mars' is not a time zone such as"):
        make(None, default="Mars")
    with pytest.raises(ImproperlyConfigured, match="choose: 'Mars' is not a function"):
        make(None, choose="Mars")
    monkeypatch.setattr("cachemw.negotiation.available_timezones", set)
    with pytest.raises(ImproperlyConfigured, match="'UTC' is not found: install tzdata"):
        make(None)


async def choose_async(request: HTTPConnection) -> tzinfo:
    return ZoneInfo(request.headers["x-zone"])


def test_the_function_may_be_async_on_asgi_and_not_on_wsgi() -> None:
    answer = asgi("/", [("x-zone", "Asia/Tokyo")], plain, ASGITimezoneMiddleware, choose=choose_async)
    assert answer.seen["timezone"] == "Asia/Tokyo"
    with pytest.raises(ImproperlyConfigured, match=r"choose_async.*is async, and the application is WSGI"):
        WSGITimezoneMiddleware(lambda *args: [], choose=choose_async)


# -- WSGI alone ---------------------------------------------------------------------------------------------------


def call_wsgi(body: Callable[[], Iterable[bytes]], **environ: Any) -> Iterable[bytes]:
    def app(environ: dict[str, Any], start_response: Callable[..., Any]) -> Iterable[bytes]:
        start_response("200 OK", [])
        return body()

    setup_testing_defaults(environ)
    return WSGILocaleMiddleware(app, languages=["de", "en"])(environ, lambda *args: None)


def test_a_body_in_the_making_has_its_language_until_it_is_closed() -> None:
    closed: list[str | None] = []

    def generate() -> Iterator[bytes]:
        try:
            yield f"one {get_language()}".encode()
            yield f"two {get_language()}".encode()
        finally:
            closed.append(get_language())

    body: Any = call_wsgi(generate)
    assert list(body) == [b"one de", b"two de"]
    assert get_language() == "de"
    body.close()
    assert closed == ["de"]
    assert get_language() is None
    body.close()  # a second time does no harm
    assert get_language() is None


def test_an_application_that_starts_late_has_its_fields_patched_and_its_language() -> None:
    started: list[Any] = []

    def app(environ: dict[str, Any], start_response: Callable[..., Any]) -> Iterator[bytes]:
        start_response("200 OK", [])
        yield str(get_language()).encode()

    environ: dict[str, Any] = {}
    setup_testing_defaults(environ)
    middleware = WSGILocaleMiddleware(app, languages=["de"])
    assert list(middleware(environ, lambda *args: started.append(args))) == [b"de"]
    assert started == [("200 OK", [("Content-Language", "de")])]


def test_a_body_that_fails_in_close_leaves_nothing_behind() -> None:
    class Body(list[bytes]):
        def close(self) -> None:
            raise OSError("gone")

    class Wrapped:
        def __iter__(self) -> Iterator[bytes]:
            return iter([b""])

        def close(self) -> None:
            raise OSError("gone")

    body: Any = call_wsgi(Wrapped)
    with pytest.raises(OSError, match="gone"):
        body.close()
    assert get_language() is None
    listed = Body()
    assert call_wsgi(lambda: listed) is listed  # its close() stays the server's to call


def test_a_body_without_close_is_closed_all_the_same() -> None:
    body: Any = call_wsgi(lambda: iter([b"page"]))
    assert list(body) == [b"page"]
    body.close()
    assert get_language() is None


def test_the_servers_file_wrapper_stays_what_it_is() -> None:
    import io

    wrapped = FileWrapper(io.BytesIO(b"file"))
    assert call_wsgi(lambda: wrapped, **{"wsgi.file_wrapper": FileWrapper}) is wrapped
    assert get_language() is None
    body: Any = call_wsgi(lambda: wrapped, **{"wsgi.file_wrapper": lambda file: wrapped})  # no type to know it by
    assert body is not wrapped
    assert list(body) == [b"file"]
    body.close()


def test_exc_info_and_write_pass() -> None:
    calls: list[Any] = []

    def app(environ: dict[str, Any], start_response: Callable[..., Any]) -> list[bytes]:
        start_response("500 Oops", [("Vary", "A")], ("type", "value", "traceback"))("written")
        return []

    def start_response(*args: Any) -> Callable[[str], None]:
        calls.append(args)
        return calls.append

    environ: dict[str, Any] = {}
    setup_testing_defaults(environ)
    WSGITimezoneMiddleware(app, cookie=None)(environ, start_response)
    assert calls == [("500 Oops", [("Vary", "A")], ("type", "value", "traceback")), "written"]


def test_one_visitors_choice_is_not_the_next_ones_on_the_same_thread() -> None:
    def app(environ: dict[str, Any], start_response: Callable[..., Any]) -> list[bytes]:
        start_response("200 OK", [])
        if environ["PATH_INFO"] == "/switch":
            activate_language("de")
        return [str(get_language()).encode()]

    middleware = WSGILocaleMiddleware(app, languages=["en", "de"])
    bodies: list[bytes] = []
    for path in ("/", "/switch", "/"):
        environ: dict[str, Any] = {"PATH_INFO": path}
        setup_testing_defaults(environ)
        bodies += middleware(environ, lambda *args: None)
    assert bodies == [b"en", b"de", b"en"]


def test_the_function_cannot_take_the_body_away_from_the_application() -> None:
    def choose(request: Any) -> str | None:
        with pytest.raises(RuntimeError):
            request.get_data()
        return None

    assert wsgi("/", [], plain, WSGITimezoneMiddleware, choose=choose).seen["timezone"] == "UTC"


# -- ASGI alone ---------------------------------------------------------------------------------------------------


def test_an_endpoint_in_a_worker_thread_is_in_the_requests_locale() -> None:
    def endpoint(request: Request) -> PlainTextResponse:  # Starlette runs it in a thread
        was = get_language()
        activate_language("pt-BR")
        return PlainTextResponse(f"{was} {request.url_for('page')}")

    app = Starlette(routes=[Route("/page", endpoint, name="page")])
    middleware = ASGILocaleMiddleware(app, languages=LANGUAGES, path_prefix="strip")

    async def get() -> httpx.Response:
        async with httpx.AsyncClient(transport=httpx.ASGITransport(middleware), base_url="http://site") as client:
            return await client.get("/de/page")

    response = asyncio.run(get())
    assert response.text == "de http://site/de/page"
    assert response.headers["content-language"] == "pt-BR"


def test_lifespan_passes_and_a_websocket_has_its_language() -> None:
    seen: list[Any] = []

    async def app(scope: Any, receive: Any, send: Any) -> None:
        seen.append((scope["type"], get_language(), await anyio.to_thread.run_sync(get_language)))
        await send({"type": f"{scope['type']}.accept"})

    sent: list[Any] = []

    async def send(message: Any) -> None:
        sent.append(message)

    async def run() -> None:
        middleware = ASGILocaleMiddleware(app, languages=["de"])
        await middleware({"type": "lifespan"}, None, send)  # type: ignore[arg-type]
        scope = {"type": "websocket", "path": "/", "headers": []}
        await middleware(scope, None, send)  # type: ignore[arg-type]

    asyncio.run(run())
    assert seen == [("lifespan", None, None), ("websocket", "de", "de")]
    assert sent == [{"type": "lifespan.accept"}, {"type": "websocket.accept"}]


def test_a_server_that_leaves_the_mount_out_of_the_path_is_understood() -> None:
    seen: dict[str, Any] = {}

    async def app(scope: Any, receive: Any, send: Any) -> None:
        seen.update(scope)
        await send({"type": "http.response.start", "status": 204})

    sent: list[Any] = []

    async def send(message: Any) -> None:
        sent.append(message)

    scope = {"type": "http", "path": "/de/a", "root_path": "/site", "headers": []}
    middleware = ASGILocaleMiddleware(app, languages=["en", "de"], path_prefix="strip")
    asyncio.run(middleware(scope, None, send))  # type: ignore[arg-type]
    assert (seen["root_path"], seen["path"]) == ("/site/de", "/site/de/a")
    assert sent[0]["headers"] == [(b"content-language", b"de")]


@pytest.mark.parametrize("chooses", [True, False])
def test_with_the_language_in_the_key_nobody_gets_a_page_in_anothers_language(chooses: bool) -> None:
    """Also where an application reads Accept-Language by itself and tells nobody."""
    calls: list[str] = []

    async def app(scope: Any, receive: Any, send: Any) -> None:
        asked = dict(scope["headers"])[b"accept-language"].decode()
        calls.append(asked)
        if chooses:
            activate_language(asked[:2])
        fields = [(b"vary", b"Accept-Language"), (b"cache-control", b"max-age=60")]
        await send({"type": "http.response.start", "status": 200, "headers": fields})
        await send({"type": "http.response.body", "body": asked[:2].encode()})

    async def get(asked: str) -> str:
        async with httpx.AsyncClient(transport=httpx.ASGITransport(site), base_url="http://site") as client:
            return (await client.get("/", headers={"accept-language": asked})).text

    settings = Settings(use_i18n=True)
    site: Any = CacheMiddleware(app, cache=LocMemCache(f"languages-{chooses}"), settings=settings)
    if chooses:
        inner = FetchFromCacheMiddleware(app, cache=LocMemCache("languages-halves"), settings=settings)
        chosen = ASGILocaleMiddleware(inner, languages=["en", "de"])
        site = UpdateCacheMiddleware(chosen, cache=LocMemCache("languages-halves"), settings=settings)
    asked = ["en", "de", "en", "de", "de-AT"]
    assert [asyncio.run(get(field)) for field in asked] == ["en", "de", "en", "de", "de"]
    # by the chosen language "de-AT" and "de" are one page; by the field itself they are two
    assert calls == (["en", "de"] if chooses else ["en", "de", "de-AT"])


def test_the_names_are_all_there() -> None:
    assert all(hasattr(locale, name) for name in locale.__all__)
