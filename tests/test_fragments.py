"""Fragments in Python, Mako and Django's templates: their keys, their times, and what happens when nobody renders."""

from __future__ import annotations

import asyncio
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextvars import copy_context
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from mako.template import Template  # type: ignore[import-untyped]
from markupsafe import Markup

import cachemw.fragments
from cachemw import Caches, ImproperlyConfigured, InvalidCacheBackendError, caches
from cachemw._memoize import stores
from cachemw.backends.locmem import LocMemCache
from cachemw.fragments import Part, fragment, make_template_fragment_key
from tests.memoize_tools import Clock, FailingCache

MANY = 20


@pytest.fixture(autouse=True)
def _empty() -> Iterator[None]:
    yield
    caches["default"].clear()


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    return Clock(monkeypatch)


class Renderer:
    """Counts."""

    def __init__(self) -> None:
        self.count = 0

    def __call__(self, *args: Any) -> str:
        self.count += 1
        return f"rendered {self.count}"


@pytest.fixture
def render() -> Renderer:
    return Renderer()


# -- keys (F1 of Django's, and what is wrong with them there) ---------------------------------------------------------


def test_a_key_is_readable_and_the_name_literal() -> None:
    key = make_template_fragment_key("sidebar", ["x"])
    assert key.startswith("template.cache.sidebar.")
    assert len(key) == len("template.cache.sidebar.") + 32


def test_nothing_to_vary_on_is_written_in_any_way() -> None:
    bare = make_template_fragment_key("sidebar")
    assert bare == make_template_fragment_key("sidebar", None) == make_template_fragment_key("sidebar", [])
    assert bare == make_template_fragment_key("sidebar", iter(()))


@pytest.mark.parametrize(
    ("one", "other"),
    [
        (["a:b"], ["a", "b"]),
        ([1], ["1"]),
        ([True], ["True"]),
        ([True], [1]),
        ([None], []),
        ([None], ["None"]),
        ([""], []),
        ([["a", "b"]], ["a", "b"]),
        ([1.0], [1]),
    ],
)
def test_what_differs_has_another_key(one: Any, other: Any) -> None:
    assert make_template_fragment_key("a", one) != make_template_fragment_key("a", other)


WORDS = st.text(max_size=5)


@given(WORDS.filter(bool), st.lists(WORDS, max_size=3), WORDS.filter(bool), st.lists(WORDS, max_size=3))
def test_names_and_arguments_never_run_into_one_another(
    name: str, arguments: list[str], other: str, others: list[str]
) -> None:
    one, two = make_template_fragment_key(name, arguments), make_template_fragment_key(other, others)
    assert (one == two) == ((name, arguments) == (other, others))


@pytest.mark.parametrize("name", ["side bar", "größe", "x" * 300, "a\nb", "a.b", "{% x %}"])
def test_any_name_makes_a_key_for_any_store(name: str) -> None:
    key = make_template_fragment_key(name, ["ä" * 10_000])
    assert key.isascii()
    assert key.isprintable()
    assert " " not in key
    assert len(key) < 200
    assert key != make_template_fragment_key(f"{name} ", ["ä" * 10_000])


@pytest.mark.parametrize("name", ["", None, 5, b"sidebar"])
def test_a_name_is_a_text(name: Any) -> None:
    with pytest.raises(TypeError, match="name is a string"):
        make_template_fragment_key(name)


@pytest.mark.parametrize("vary_on", ["user", b"user", 5])
def test_what_it_varies_on_is_a_list(vary_on: Any) -> None:
    """A text would be taken for its letters."""
    with pytest.raises(TypeError, match=r"vary_on is .*; allowed: a list"):
        make_template_fragment_key("sidebar", vary_on)


def test_a_user_that_prints_as_another_is_refused() -> None:
    class User:
        def __str__(self) -> str:
            return "Kim"

    with pytest.raises(TypeError, match=r"'sidebar' cannot vary on its argument 2: a .*User has no key.*user\.id"):
        make_template_fragment_key("sidebar", ["de", User()])


# -- with -------------------------------------------------------------------------------------------------------------


def in_with(render: Callable[[], str], *args: Any, **kwargs: Any) -> str:
    with fragment(*args, **kwargs) as part:
        if part.missing:
            part.body = render()
    return part.body


async def in_async_with(render: Callable[[], str], *args: Any, **kwargs: Any) -> str:
    async with fragment(*args, **kwargs) as part:
        if part.missing:
            part.body = render()
    return part.body


def in_loop(render: Callable[[], str], *args: Any, **kwargs: Any) -> str:
    return asyncio.run(in_async_with(render, *args, **kwargs))


def decorated(render: Callable[[], str], *args: Any, **kwargs: Any) -> str:
    return fragment(*args, **kwargs)(lambda: render())()


def async_decorated(render: Callable[[], str], *args: Any, **kwargs: Any) -> str:
    @fragment(*args, **kwargs)
    async def rendered() -> str:
        return render()

    return asyncio.run(rendered())


Use = Callable[..., str]


@pytest.fixture(params=[in_with, in_loop, decorated, async_decorated])
def use(request: pytest.FixtureRequest) -> Any:
    return request.param


def test_a_fragment_is_rendered_once_for_what_it_varies_on(use: Use, render: Renderer) -> None:
    assert use(render, "sidebar", [1], 500) == "rendered 1"
    assert use(render, "sidebar", [1], 500) == "rendered 1"
    assert use(render, "sidebar", (1,), 500) == "rendered 1"
    assert use(render, "sidebar", ["1"], 500) == "rendered 2"
    assert use(render, "footer", [1], 500) == "rendered 3"


def test_delete_invalidates_a_fragment(use: Use, render: Renderer) -> None:
    use(render, "sidebar", [1], 500)
    assert caches["default"].get(make_template_fragment_key("sidebar", [1])) == "rendered 1"
    assert caches["default"].delete(make_template_fragment_key("sidebar", [1])) is True
    assert use(render, "sidebar", [1], 500) == "rendered 2"


@pytest.mark.parametrize(("timeout", "lives"), [({"timeout": 500}, 500), ({}, 300), ({"timeout": "20"}, 20)])
def test_a_fragment_has_a_timeout(use: Use, render: Renderer, clock: Clock, timeout: Any, lives: float) -> None:
    use(render, "sidebar", **timeout)
    clock.move(lives - 1)
    assert use(render, "sidebar", **timeout) == "rendered 1"
    clock.move(2)
    assert use(render, "sidebar", **timeout) == "rendered 2"


def test_none_is_for_ever_and_nothing_is_never(use: Use, render: Renderer, clock: Clock) -> None:
    use(render, "sidebar", None, None)
    clock.move(1e9)
    assert use(render, "sidebar", None, None) == "rendered 1"
    for timeout in (0, -1, "0"):
        use(render, "footer", None, timeout)
    assert use(render, "footer", None, 0) == "rendered 5"
    assert not caches["default"].has_key(make_template_fragment_key("footer"))


def test_an_empty_fragment_is_a_fragment(use: Use) -> None:
    bodies = ["", "again"]
    assert use(lambda: bodies.pop(0), "empty") == ""
    assert use(lambda: bodies.pop(0), "empty") == ""


def test_markup_stays_markup_and_text_text(use: Use) -> None:
    """On a hit as on a miss: else a template would escape it, or, worse, would not."""
    for body in (Markup("<b>"), "<b>"):
        for _ in range(2):
            found = use(lambda body=body: body, "kind", [type(body).__name__])
            assert found == "<b>"
            assert type(found) is type(body)


@pytest.mark.parametrize("serializer", ["json", "msgpack", "pickle"])
def test_every_serializer_keeps_fragments(use: Use, serializer: str) -> None:
    store = LocMemCache(f"fragments-{serializer}", {"SERIALIZER": serializer})
    for body in (Markup("<b>ä"), "<b>ä"):
        store.clear()
        bodies = iter([body])
        for _ in range(2):
            found = use(bodies.__next__, "kind", using=store)
            assert (found, type(found)) == (body, type(body))
    store.clear()


@pytest.mark.parametrize("foreign", [5, None, ["<b>"], {"html": 5}, {"text": "x"}, b"x"])
def test_what_is_no_fragment_is_replaced(use: Use, render: Renderer, foreign: Any) -> None:
    caches["default"].set(make_template_fragment_key("sidebar"), foreign)
    assert use(render, "sidebar") == "rendered 1"
    assert use(render, "sidebar") == "rendered 1"


def test_an_error_is_the_pages_and_nothing_is_stored(use: Use, render: Renderer) -> None:
    def fails() -> str:
        raise LookupError("no such article")

    with pytest.raises(LookupError, match="no such article"):
        use(fails, "sidebar")
    assert use(render, "sidebar") == "rendered 1"


def test_a_body_is_a_text(use: Use, render: Renderer) -> None:
    with pytest.raises(TypeError, match=r"body of a fragment is a string; got b'x'"):
        use(lambda: b"x", "sidebar")
    assert use(render, "sidebar") == "rendered 1"


def test_a_fragment_that_nobody_rendered_is_missing_still(render: Renderer) -> None:
    with fragment("sidebar") as part:
        assert part.missing
    with pytest.raises(AttributeError, match=r"set part\.body"):
        part.body  # noqa: B018
    assert in_with(render, "sidebar") == "rendered 1"


def test_a_part_prints_as_its_body(render: Renderer) -> None:
    in_with(render, "sidebar")
    with fragment("sidebar") as part:
        assert f"<p>{part}</p>" == "<p>rendered 1</p>"
        assert not part.missing


def test_a_fragment_is_entered_once() -> None:
    """A second time, maybe of another thread, would share the state of the first."""
    sidebar = fragment("sidebar")
    with sidebar as part:
        part.body = "x"
    with pytest.raises(RuntimeError, match="call fragment"), sidebar:
        pass


# -- decorators -------------------------------------------------------------------------------------------------------


def test_a_function_says_what_its_text_varies_on() -> None:
    calls: list[Any] = []

    @fragment("greeting", lambda user, language="de": [user["id"], language], 500)
    def greeting(user: dict[str, Any], language: str = "de") -> str:
        """Greets."""
        calls.append(user["id"])
        return f"{language} {user['id']}"

    assert greeting({"id": 1}) == greeting({"id": 1, "name": "x"}) == greeting({"id": 1}, language="de") == "de 1"
    assert greeting({"id": 1}, "en") == "en 1"
    assert greeting({"id": 2}) == "de 2"
    assert calls == [1, 1, 2]
    assert caches["default"].delete(make_template_fragment_key("greeting", [1, "de"]))
    assert (greeting.__name__, greeting.__doc__) == ("greeting", "Greets.")


def test_methods_are_decorated_as_functions_are() -> None:
    class Shop:
        def __init__(self, number: int) -> None:
            self.number = number

        @fragment("shop", lambda self: [self.number])
        def card(self) -> str:
            return f"{self.number} {id(self)}"

        @fragment("ashop", lambda self: [self.number])
        async def acard(self) -> str:
            return f"{self.number} {id(self)}"

    one, same, other = Shop(1), Shop(1), Shop(2)
    assert one.card() == same.card() != other.card()
    assert asyncio.run(one.acard()) == asyncio.run(same.acard()) != asyncio.run(other.acard())


def test_a_function_with_parameters_has_to_say_what_counts() -> None:
    """Else everybody would have the first one's."""
    with pytest.raises(TypeError, match=r"'sidebar': .*<lambda> has parameters\. Say what its text varies on"):
        fragment("sidebar")(lambda user: user)
    assert fragment("sidebar", [])(lambda user: user)("first") == "first"


def test_what_is_no_function_is_refused() -> None:
    for wrong in (5, Part):
        with pytest.raises(TypeError, match="decorates a function that returns text"):
            fragment("sidebar")(wrong)  # type: ignore[type-var]


def test_only_a_decorator_can_ask_what_it_varies_on() -> None:
    sidebar = fragment("sidebar", lambda user: [user])
    with pytest.raises(TypeError, match="vary_on is a function, which only a decorator can call"), sidebar:
        pass


# -- stores -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("using", "alias"),
    [(None, "template_fragments"), ("other", "other"), ("default", "default")],
)
def test_the_store_is_the_one_for_fragments_or_the_one_that_is_named(
    use: Use, render: Renderer, monkeypatch: pytest.MonkeyPatch, using: str | None, alias: str
) -> None:
    known = Caches(
        {
            "CACHES": {
                name: {"BACKEND": "cachemw.backends.locmem.LocMemCache", "LOCATION": f"fragments-{name}"}
                for name in ("default", "template_fragments", "other")
            }
        }
    )
    monkeypatch.setattr(stores, "caches", known)
    use(render, "sidebar", using=using)
    assert [name for name in known if known[name].delete(make_template_fragment_key("sidebar"))] == [alias]


def test_a_store_may_be_a_url(use: Use, render: Renderer) -> None:
    use(render, "sidebar", using="locmem://fragments-url")
    assert LocMemCache("fragments-url").delete(make_template_fragment_key("sidebar"))


def test_mistakes_in_the_program_are_raised(use: Use, render: Renderer) -> None:
    with pytest.raises(InvalidCacheBackendError, match="'nowhere' doesn't exist; allowed: default"):
        use(render, "sidebar", using="nowhere")
    with pytest.raises(ImproperlyConfigured, match="fragment: using is 5"):
        use(render, "sidebar", using=5)
    for timeout in ("soon", True, float("nan"), [5]):
        with pytest.raises(ImproperlyConfigured, match="timeout of the fragment 'sidebar' is"):
            use(render, "sidebar", timeout=timeout)
    assert render.count == 0


def test_a_store_that_fails_costs_the_saving_and_not_the_page(
    use: Use, render: Renderer, caplog: pytest.LogCaptureFixture
) -> None:
    store = FailingCache("fragments-fail")
    store.fail()
    assert [use(render, "sidebar", using=store) for _ in range(20)][-1] == "rendered 20"
    assert len(caplog.records) == 1
    assert "FailingCache fragments-fail" in caplog.text
    assert store.asked <= 6


# -- many at once -----------------------------------------------------------------------------------------------------


def test_of_many_threads_one_renders() -> None:
    begun, finish = threading.Event(), threading.Event()
    count: list[int] = []

    def render() -> str:
        count.append(1)
        begun.set()
        assert finish.wait(10)
        return "rendered"

    with ThreadPoolExecutor(MANY) as pool:
        first = pool.submit(in_with, render, "sidebar")
        assert begun.wait(10)
        others = [pool.submit(in_with, render, "sidebar") for _ in range(MANY - 1)]
        finish.set()
        assert {one.result(10) for one in [first, *others]} == {"rendered"}
    assert len(count) == 1


def test_of_many_tasks_one_renders() -> None:
    async def main() -> None:
        begun, finish = asyncio.Event(), asyncio.Event()
        count: list[int] = []

        async def page() -> str:
            async with fragment("sidebar", ["x"], 60) as part:
                if part.missing:
                    count.append(1)
                    begun.set()
                    await finish.wait()
                    part.body = "rendered"
            return part.body

        tasks = [asyncio.create_task(page()) for _ in range(MANY)]
        await begun.wait()
        finish.set()
        assert await asyncio.gather(*tasks) == ["rendered"] * MANY
        assert len(count) == 1

    asyncio.run(main())


@pytest.mark.parametrize("error", [KeyboardInterrupt, GeneratorExit])
def test_who_leaves_while_rendering_leaves_no_one_waiting(render: Renderer, error: type[BaseException]) -> None:
    def leave() -> str:
        with fragment("sidebar") as part:
            part.body = "half"
            raise error
        return part.body

    with pytest.raises(error):
        leave()
    assert in_with(render, "sidebar") == "rendered 1"


def test_a_cancelled_page_leaves_no_one_waiting(render: Renderer) -> None:
    async def main() -> None:
        begun = asyncio.Event()

        async def page() -> None:
            async with fragment("sidebar") as part:
                assert part.missing
                begun.set()
                await asyncio.Event().wait()

        task = asyncio.create_task(page())
        await begun.wait()
        follower = asyncio.create_task(in_async_with(render, "sidebar"))
        await asyncio.sleep(0)
        task.cancel()
        assert await follower == "rendered 1"

    asyncio.run(main())


def test_a_stream_may_render_a_fragment_in_several_contexts(render: Renderer) -> None:
    """As Starlette runs a plain generator: each piece in a thread, in a copy of the context."""

    def stream() -> Iterator[str]:
        yield "<html>"
        with fragment("sidebar") as part:
            yield "<nav>"
            part.body = render()
        yield part.body

    pieces = stream()
    with ThreadPoolExecutor(1) as pool:
        read = [pool.submit(copy_context().run, next, pieces).result(10) for _ in range(3)]
    assert read == ["<html>", "<nav>", "rendered 1"]
    assert in_with(render, "sidebar") == "rendered 1"


def test_fragments_nest(use: Use, render: Renderer) -> None:
    def outer() -> str:
        return f"[{in_with(render, 'inner')}]"

    assert use(outer, "outer") == "[rendered 1]"
    assert in_with(render, "inner") == "rendered 1"
    caches["default"].delete(make_template_fragment_key("outer"))
    assert use(outer, "outer") == "[rendered 1]"


def test_a_fragment_within_itself_is_rendered_again(render: Renderer) -> None:
    assert in_with(lambda: in_with(render, "sidebar"), "sidebar") == "rendered 1"


# -- other template languages -----------------------------------------------------------------------------------------


def test_mako(render: Renderer) -> None:
    template = Template(
        """\\
<%! from cachemw.fragments import fragment %>\\
<%def name="sidebar()">Hello ${render(user)} &amp;</%def>\\
% with fragment("sidebar", [user], 500) as part:
% if part.missing:
<% part.body = capture(sidebar) %>\\
% endif
% endwith
${part.body | n}""",
        default_filters=["h"],
    )
    assert template.render(user=1, render=render) == "Hello rendered 1 &amp;"
    assert template.render(user=1, render=render) == "Hello rendered 1 &amp;"
    assert template.render(user=2, render=render) == "Hello rendered 2 &amp;"


def test_django(render: Renderer) -> None:
    """A simple tag that returns safe text: it is safe on a hit too, and Django does not escape it."""
    from django.template import Context, Engine, Library  # type: ignore[import-untyped]
    from django.utils.safestring import mark_safe  # type: ignore[import-untyped]

    library = Library()

    @fragment("sidebar", lambda user: [user], 500)
    def sidebar(user: int) -> Any:
        return mark_safe(f"<b>{user}: {render()}</b>")

    library.simple_tag(sidebar)

    engine = Engine()
    engine.template_libraries["shop"] = library
    template = engine.from_string("{% load shop %}{% sidebar user %}")
    page = [template.render(Context({"user": user})) for user in (1, 1, 2)]
    assert page == ["<b>1: rendered 1</b>", "<b>1: rendered 1</b>", "<b>2: rendered 2</b>"]


def test_without_jinja_the_rest_is_there() -> None:
    program = (
        "import sys; sys.modules['jinja2'] = None\n"
        "from cachemw.fragments import fragment\n"
        "with fragment('x') as part: part.body = 'rendered'\n"
        "print(part.body)\n"
        "try: from cachemw.fragments import CacheExtension\n"
        "except ImportError as error: print(error)"
    )
    root = Path(cachemw.fragments.__file__).parent.parent
    done = subprocess.run([sys.executable, "-c", program], cwd=root, capture_output=True, text=True, check=True)
    assert done.stdout.splitlines() == [
        "rendered",
        "CacheExtension needs the package jinja2: pip install 'cachemw[jinja]'",
    ]
    with pytest.raises(AttributeError, match="no attribute 'Nothing'"):
        cachemw.fragments.Nothing  # type: ignore[attr-defined]  # noqa: B018
