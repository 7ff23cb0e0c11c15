"""The Jinja tag, in plain and in async environments: what it shares, how it escapes, and what is wrong when parsed."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
from jinja2 import (
    DictLoader,
    Environment,
    FileSystemBytecodeCache,
    TemplateSyntaxError,
    UndefinedError,
    select_autoescape,
)
from jinja2.nativetypes import NativeEnvironment
from jinja2.sandbox import SandboxedEnvironment

from cachemw import Caches, ImproperlyConfigured, InvalidCacheBackendError, caches
from cachemw.backends.locmem import LocMemCache
from cachemw.backends.registry import Caches as Registry
from cachemw.fragments import CacheExtension, make_template_fragment_key
from tests.memoize_tools import Clock, FailingCache

LOCMEM = "cachemw.backends.locmem.LocMemCache"


@pytest.fixture
def known() -> Iterator[Caches]:
    """Stores of the test's own."""
    known = Caches(
        {"CACHES": {name: {"BACKEND": LOCMEM, "LOCATION": f"jinja-{name}"} for name in ("default", "other")}}
    )
    yield known
    for store in known.all():
        store.clear()


class Pages:
    """Templates by name, rendered in one of Jinja's two ways; `{{ count() }}` counts what is really rendered."""

    def __init__(self, known: Caches | None, *, is_async: bool, environment: type[Environment] = Environment) -> None:
        self.templates: dict[str, str] = {}
        self.environment = environment(
            loader=DictLoader(self.templates),
            extensions=["cachemw.fragments.CacheExtension"],
            autoescape=select_autoescape(),
            enable_async=is_async,
        )
        self.environment.cachemw_caches = known  # type: ignore[attr-defined]
        self.environment.globals["count"] = self._count
        self.count = 0

    def _count(self) -> int:
        self.count += 1
        return self.count

    def render(self, source: str, /, _name: str = "page.html", **context: Any) -> str:
        self.templates[_name] = source
        template = self.environment.get_template(_name)
        if self.environment.is_async:
            return asyncio.run(template.render_async(**context))
        return template.render(**context)


@pytest.fixture(params=["plain", "async"])
def pages(request: pytest.FixtureRequest, known: Caches) -> Pages:
    return Pages(known, is_async=request.param == "async")


# -- Django's tag -----------------------------------------------------------------------------------------------------


def test_a_fragment_is_rendered_once(pages: Pages) -> None:
    source = "<{% cache 500 sidebar %}{{ count() }}{% endcache %}>"
    assert pages.render(source) == "<1>"
    assert pages.render(source) == "<1>"


def test_other_templates_share_what_has_the_same_name_and_arguments(pages: Pages) -> None:
    pages.render("{% cache 500 sidebar 'x' 1 %}{{ count() }}{% endcache %}")
    assert pages.render("<p>{% cache 60 sidebar 'x', 1 %}{{ count() }}{% endcache %}", "other.html") == "<p>1"
    assert pages.render("{% cache 500 sidebar 'x' %}{{ count() }}{% endcache %}", "less.html") == "2"


@pytest.mark.parametrize(
    ("source", "vary_on"),
    [
        ("{% cache 500 sidebar user.id %}", [7]),
        ("{% cache 500 sidebar user.id user.name|upper %}", [7, "KIM"]),
        ("{% cache 500 sidebar user.id, user.name ~ '!' %}", [7, "Kim!"]),
        ("{% cache 500, sidebar, language(), [1, 2], {'a': none} %}", ["de", [1, 2], {"a": None}]),
        ("{% cache 500 'sidebar' user.id - 1 %}", [6]),
        ("{% cache 500 sidebar 'a', 'b' %}", ["a", "b"]),
        ("{% cache 500 sidebar (user.id if user else none) %}", [7]),
        ("{% cache 500 sidebar user.id, -1 %}", [7, -1]),
        ("{% cache 500 sidebar none %}", [None]),
        ("{% cache 500 sidebar %}", []),
        ("{% cache 400 + 100 sidebar user['id'] %}", [7]),
        ("{% cache timeout sidebar %}", []),
        ("{% cache none sidebar %}", []),
        ("{% cache '500' sidebar %}", []),
        ("{%- cache 500 sidebar using='default' -%}", []),
        ("{% cache 500 sidebar user.id, using='def' ~ 'ault' %}", [7]),
        ("{% cache 500 sidebar, using=alias %}", []),
    ],
)
def test_arguments_are_expressions(pages: Pages, known: Caches, source: str, vary_on: list[Any]) -> None:
    pages.render(
        f"{source}x{{% endcache %}}",
        user={"id": 7, "name": "Kim"},
        language=lambda: "de",
        timeout=500,
        alias="default",
    )
    assert known["default"].delete(make_template_fragment_key("sidebar", vary_on)) is True


def test_the_name_is_taken_literally(pages: Pages, known: Caches) -> None:
    pages.render("{% cache 500 sidebar %}x{% endcache %}", sidebar="elsewhere")
    pages.render("{% cache 500 'side-bar ü' %}x{% endcache %}")
    assert known["default"].delete(make_template_fragment_key("sidebar"))
    assert known["default"].delete(make_template_fragment_key("side-bar ü"))


def test_the_timeout_is_an_expression(pages: Pages, monkeypatch: pytest.MonkeyPatch) -> None:
    clock = Clock(monkeypatch)
    source = "{% cache timeout sidebar %}{{ count() }}{% endcache %}"
    assert pages.render(source, timeout=500) == "1"
    clock.move(499)
    assert pages.render(source, timeout=500) == "1"
    clock.move(2)
    assert pages.render(source, timeout=None) == "2"
    clock.move(1e9)
    assert pages.render(source, timeout="20") == "2"
    assert [pages.render(source, timeout=timeout) for timeout in (0, -1, 0)] == ["3", "4", "5"]
    assert pages.render(source, timeout=20) == "2"


def test_delete_invalidates(pages: Pages, known: Caches) -> None:
    source = "{% cache 500 sidebar user %}{{ count() }}{% endcache %}"
    pages.render(source, user=1)
    pages.render(source, user=2)
    assert known["default"].delete(make_template_fragment_key("sidebar", [1])) is True
    assert [pages.render(source, user=user) for user in (1, 2)] == ["3", "2"]


# -- stores -----------------------------------------------------------------------------------------------------------


def test_using_names_the_store(pages: Pages, known: Caches) -> None:
    pages.render("{% cache 500 sidebar using='other' %}x{% endcache %}")
    assert known["other"].delete(make_template_fragment_key("sidebar"))
    assert not known["default"].has_key(make_template_fragment_key("sidebar"))


def test_fragments_have_a_store_of_their_own_if_it_is_configured(pages: Pages) -> None:
    own = Caches(
        {"CACHES": {name: {"BACKEND": LOCMEM, "LOCATION": name} for name in ("default", "template_fragments")}}
    )
    pages.environment.cachemw_caches = own  # type: ignore[attr-defined]
    pages.render("{% cache 500 sidebar %}x{% endcache %}")
    assert own["template_fragments"].delete(make_template_fragment_key("sidebar"))


def test_without_stores_of_its_own_an_environment_has_the_processs() -> None:
    pages = Pages(None, is_async=False)
    assert pages.render("{% cache 500 sidebar %}{{ count() }}{% endcache %}") == "1"
    assert caches["default"].delete(make_template_fragment_key("sidebar"))


def test_in_flask_they_are_the_applications(monkeypatch: pytest.MonkeyPatch) -> None:
    from flask import Flask, render_template_string

    from cachemw.integrations.flask import CacheMW

    app = Flask("shop")
    app.config["CACHES"] = {"default": {"BACKEND": LOCMEM, "LOCATION": "jinja-flask"}}
    app.config["CACHES"]["template_fragments"] = {"BACKEND": LOCMEM, "LOCATION": "jinja-flask-fragments"}
    app.jinja_env.add_extension(CacheExtension)
    CacheMW(app, site=False)
    users = iter(["<kim>", "nobody"])

    @app.get("/")
    def page() -> str:
        return render_template_string("{% cache 500 sidebar %}{{ user }}{% endcache %}", user=next(users))

    client = app.test_client()
    assert [client.get("/").text, client.get("/").text] == ["&lt;kim&gt;", "&lt;kim&gt;"]
    assert LocMemCache("jinja-flask-fragments").delete(make_template_fragment_key("sidebar"))


def test_starlettes_templates() -> None:
    from starlette.requests import Request
    from starlette.templating import Jinja2Templates

    from cachemw.integrations.starlette import with_fragments

    templates = with_fragments(
        Jinja2Templates(env=Environment(loader=DictLoader({"a": "{% cache 5 a %}{{ n }}{% endcache %}"})))
    )
    request = Request({"type": "http", "method": "GET", "path": "/", "headers": []})
    bodies = [templates.TemplateResponse(request, "a", {"n": n}).body for n in (1, 2)]
    assert bodies == [b"1", b"1"]
    assert caches["default"].delete(make_template_fragment_key("a"))


def test_an_extension_added_later_keeps_the_environments_stores(known: Caches) -> None:
    environment = Environment()
    environment.extend(cachemw_caches=known)
    environment.add_extension(CacheExtension)
    environment.from_string("{% cache 500 sidebar %}x{% endcache %}").render()
    assert known["default"].delete(make_template_fragment_key("sidebar"))


def test_a_store_that_fails_leaves_the_page_whole(pages: Pages, caplog: pytest.LogCaptureFixture) -> None:
    class Failing(Registry):
        store = FailingCache("jinja-fails")

        def __getitem__(self, alias: str) -> FailingCache:
            return self.store

    Failing.store.fail()
    pages.environment.cachemw_caches = Failing({})  # type: ignore[attr-defined]
    source = "[{% for i in range(10) %}{% cache 500 row i %}{{ i }}{% endcache %}{% endfor %}]"
    assert pages.render(source) == "[0123456789]"
    assert pages.render(source) == "[0123456789]"
    assert Failing.store.asked == 5
    assert len(caplog.records) == 1


# -- escaping ---------------------------------------------------------------------------------------------------------


def test_what_was_escaped_once_is_not_escaped_again(pages: Pages) -> None:
    source = "{% cache 500 sidebar %}<b>{{ user }}</b>{% endcache %}"
    assert pages.render(source, user="<kim>") == "<b>&lt;kim&gt;</b>"
    assert pages.render(source, user="not asked") == "<b>&lt;kim&gt;</b>"
    assert pages.render(f"{{% set kept %}}{source}{{% endset %}}{{{{ kept }}}}", "b.html") == "<b>&lt;kim&gt;</b>"
    assert pages.render(f"{{% macro m() %}}{source}{{% endmacro %}}{{{{ m() }}}}", "c.html") == "<b>&lt;kim&gt;</b>"


def test_what_a_text_template_made_never_gets_into_html(pages: Pages) -> None:
    """A mail may share a fragment's name with a page; its user's name is not escaped."""
    source = "{% cache 500 greeting 7 %}Hello {{ user }}{% endcache %}"
    attack = "<script>steal()</script>"
    assert pages.render(source, "mail.txt", user=attack) == f"Hello {attack}"
    assert pages.render(source, "mail.txt", user="not asked") == f"Hello {attack}"
    assert pages.render(source, "page.html", user=attack) == "Hello &lt;script&gt;steal()&lt;/script&gt;"
    assert pages.render(source, "page.html", user="not asked") == "Hello &lt;script&gt;steal()&lt;/script&gt;"
    assert pages.render(source, "mail.txt", user="Kim") == "Hello Kim"


def test_autoescaping_may_change_within_a_template(pages: Pages) -> None:
    source = (
        "{% autoescape flag %}{% cache 500 name %}{{ user }}{% endcache %}{% endautoescape %}"
        "{% autoescape not flag %}{% cache 500 name %}{{ user }}{% endcache %}{% endautoescape %}"
    )
    for flag, page in ((True, "&lt;x&gt;<x>"), (False, "<x>&lt;x&gt;")):
        assert pages.render(source, user="<x>", flag=flag) == page


def test_a_text_put_into_the_store_by_hand_is_not_trusted_as_html(pages: Pages, known: Caches) -> None:
    known["default"].set(make_template_fragment_key("sidebar"), "<script>")
    assert pages.render("{% cache 500 sidebar %}{{ count() }}{% endcache %}") == "1"


# -- where the tag may stand, and what may stand in it ----------------------------------------------------------------


def test_fragments_stand_in_loops_blocks_macros_and_one_another(pages: Pages) -> None:
    pages.templates["base.html"] = "<{% block body %}base{% endblock %}>"
    pages.templates["row.html"] = "({{ row }})"
    source = """\
{%- extends "base.html" %}
{% cache 500 nowhere %}what is outside of blocks is not shown{% endcache %}
{% macro cell(text) %}{% cache 500 cell text %}{{ text }}{{ count() }}{% endcache %}{% endmacro %}
{% block body -%}
{% cache 500 outer %}{{ super() }}
{%- for row in rows %}{% cache 500 inner row %}{{ loop.index }}{% include "row.html" %}{{ cell(row) }}{% endcache %}
{%- endfor %}{% block nested %}.{% endblock %}{% endcache %}
{%- endblock %}"""
    assert pages.render(source, rows=["a", "b"]) == "<base1(a)a12(b)b2.>"
    assert pages.render(source, rows=[]) == "<base1(a)a12(b)b2.>"


def test_content_sees_what_is_around_it_and_changes_nothing(pages: Pages) -> None:
    source = (
        "{% set x = 1 %}{% for y in [2] %}{% cache 500 s %}{% set x = 3 %}{{ x }}{{ y }}{{ z }}{% endcache %}"
        "{{ x }}{% endfor %}"
    )
    assert pages.render(source, z=4) == "3241"
    assert pages.render(source, z=5) == "3241"


def test_a_template_may_be_streamed(pages: Pages) -> None:
    pages.templates["page.html"] = "a{% cache 500 sidebar %}{{ count() }}{% endcache %}b"
    template = pages.environment.get_template("page.html")

    async def pieces() -> str:
        return "".join([piece async for piece in template.generate_async()])

    for _ in range(2):
        whole = asyncio.run(pieces()) if pages.environment.is_async else "".join(template.generate())
        assert whole == "a1b"


def test_sandboxed_and_native_environments(known: Caches) -> None:
    for environment in (SandboxedEnvironment, NativeEnvironment):
        for is_async in (False, True):
            known["default"].clear()
            pages = Pages(known, is_async=is_async, environment=environment)
            source = "{% cache 500 sidebar %}{{ count() }}{% endcache %}"
            assert [str(pages.render(source, "page.txt")) for _ in range(2)] == ["1", "1"]


def test_compiled_templates_are_kept(known: Caches, tmp_path: Any) -> None:
    """From the second environment on the tag is not parsed."""
    for _ in range(2):
        pages = Pages(known, is_async=False)
        pages.environment.bytecode_cache = FileSystemBytecodeCache(str(tmp_path))
        assert pages.render("{% cache 500 a %}{% cache 500 b %}{{ count() }}{% endcache %}{% endcache %}") == "1"
    assert list(tmp_path.iterdir())


# -- async ------------------------------------------------------------------------------------------------------------


def test_an_async_environment_awaits_its_store_and_what_it_renders(known: Caches) -> None:
    """While one page waits for its fragment, the loop goes on; of many pages one renders."""

    class OnlyAsync(LocMemCache):
        def get(self, *args: Any, **kwargs: Any) -> Any:
            raise AssertionError("blocked the loop")

        set_many = set = get

        async def aget(self, key: Any, default: Any = None, version: Any = None) -> Any:
            await asyncio.sleep(0)
            return LocMemCache.get(self, key, default, version)

    class Own(Registry):
        store = OnlyAsync("jinja-async")

        def __getitem__(self, alias: str) -> LocMemCache:
            return self.store

    pages = Pages(Own({}), is_async=True)
    pages.templates["page.html"] = "{% cache 500 sidebar %}{{ slow() }}{{ count() }}{% endcache %}"

    async def main() -> None:
        begun, finish = asyncio.Event(), asyncio.Event()

        async def slow() -> str:
            begun.set()
            await finish.wait()
            return "slow"

        template = pages.environment.get_template("page.html")
        tasks = [asyncio.create_task(template.render_async(slow=slow)) for _ in range(20)]
        await begun.wait()
        finish.set()
        assert await asyncio.gather(*tasks) == ["slow1"] * 20

    asyncio.run(main())
    Own.store.clear()


def test_of_many_threads_one_renders(known: Caches) -> None:
    pages = Pages(known, is_async=False)
    pages.templates["page.html"] = "{% cache 500 sidebar %}{{ slow() }}{{ count() }}{% endcache %}"
    template = pages.environment.get_template("page.html")
    begun, finish = threading.Event(), threading.Event()

    def slow() -> str:
        begun.set()
        assert finish.wait(10)
        return "slow"

    with ThreadPoolExecutor(8) as pool:
        first = pool.submit(template.render, slow=slow)
        assert begun.wait(10)
        others = [pool.submit(template.render, slow=slow) for _ in range(7)]
        finish.set()
        assert {one.result(10) for one in [first, *others]} == {"slow1"}


def test_an_error_in_a_fragment_is_the_pages(pages: Pages) -> None:
    source = "{% cache 500 sidebar %}{{ 1 // zero }}{% endcache %}"
    with pytest.raises(ZeroDivisionError):
        pages.render(source, zero=0)
    assert pages.render(source, zero=1) == "1"


# -- what is wrong ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("tag", "message"),
    [
        ("{% cache %}", "needs a timeout and a name"),
        ("{% cache using='other' %}", "needs a timeout and a name"),
        ("{% cache 500 %}", "needs a name after its timeout, a word or a string in quotes"),
        ("{% cache 500 using='other' %}", "needs a name after its timeout"),
        ("{% cache 500 7 %}", "needs a name after its timeout"),
        ("{% cache 500 (name) %}", "needs a name after its timeout"),
        ("{% cache 500 '' %}", "a name that is not a word: put it in quotes"),
        ("{% cache 500 side-bar %}", "a name that is not a word: put it in quotes"),
        ("{% cache 500 side.bar %}", "a name that is not a word: put it in quotes"),
        ("{% cache 500 side|bar %}", "a name that is not a word: put it in quotes"),
        ("{% cache 'soon' sidebar %}", "its timeout is 'soon'; allowed: a number of seconds, or None for ever"),
        ("{% cache true sidebar %}", "its timeout is True"),
        ("{% cache 500 sidebar 'a' 'b' %}", "two strings side by side, which Jinja takes for one: put a comma"),
        ("{% cache 500 sidebar user ~ 'a' = 3 %}", "cannot be read from '=' on"),
        ("{% cache 500 sidebar key='x' %}", "knows no key=, only using="),
        ("{% cache 500 sidebar using='other' user %}", "takes using= as the last"),
        ("{% cache 500 sidebar using='other', user %}", "takes using= as the last"),
        (
            "{% cache 500 sidebar using='nowhere' %}",
            "cannot use that: The connection 'nowhere' doesn't exist; allowed: default",
        ),
        ("{% cache 500 sidebar using=5 %}", "cannot use that: The connection '5' doesn't exist"),
        ("{% cache 500 sidebar user, %}", "unexpected 'end of statement block'"),
    ],
)
def test_a_wrong_call_is_an_error_at_parse_time_with_its_line(pages: Pages, tag: str, message: str) -> None:
    pages.templates["wrong.html"] = f"first\nsecond\n{tag}\nx{{% endcache %}}"
    with pytest.raises(TemplateSyntaxError) as caught:
        pages.environment.get_template("wrong.html")
    assert message in str(caught.value)
    assert (caught.value.lineno, caught.value.name) == (3, "wrong.html")


def test_a_fragment_without_an_end_is_an_error_with_its_line(pages: Pages) -> None:
    pages.templates["wrong.html"] = "first\n{% cache 500 sidebar %}"
    with pytest.raises(TemplateSyntaxError, match="endcache") as caught:
        pages.environment.get_template("wrong.html")
    assert caught.value.lineno == 2


@pytest.mark.parametrize(
    ("tag", "message"),
    [
        ("{% cache 500 sidebar usr %}", "of the fragment 'sidebar', argument 1 is undefined"),
        ("{% cache 500 sidebar 1 user.nmae %}", "argument 2 is undefined. If it may be, give it a default"),
        ("{% cache tmeout sidebar %}", "timeout is undefined"),
        ("{% cache 500 sidebar using=alais %}", "using is undefined"),
    ],
)
def test_a_mistyped_argument_does_not_make_all_users_one(pages: Pages, tag: str, message: str) -> None:
    with pytest.raises(UndefinedError, match=message):
        pages.render(f"{tag}x{{% endcache %}}", user={"name": "Kim"})


def test_an_argument_that_may_be_undefined_has_a_default(pages: Pages, known: Caches) -> None:
    pages.render("{% cache 500 sidebar user.id|default(none) %}x{% endcache %}", user={})
    assert known["default"].delete(make_template_fragment_key("sidebar", [None]))


@pytest.mark.parametrize(
    ("tag", "error", "message"),
    [
        ("{% cache 500 sidebar user %}", TypeError, "'sidebar' cannot vary on its argument 1: a .* has no key"),
        ("{% cache 500 sidebar [nobody] %}", TypeError, "cannot vary on its argument 1: a .*Undefined has no key"),
        ("{% cache user sidebar %}", ImproperlyConfigured, "timeout of the fragment 'sidebar' is"),
        ("{% cache 500 sidebar using=alias %}", InvalidCacheBackendError, "'nowhere' doesn't exist; allowed: default"),
        ("{% cache 0 sidebar using=alias %}", InvalidCacheBackendError, "'nowhere' doesn't exist; allowed: default"),
    ],
)
def test_what_is_wrong_only_when_it_is_rendered_says_what(
    pages: Pages, tag: str, error: type[Exception], message: str
) -> None:
    with pytest.raises(error, match=message):
        pages.render(f"{tag}x{{% endcache %}}", user=object(), alias="nowhere")
