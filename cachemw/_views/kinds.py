"""The kinds of views that a decorator may be put on: functions, coroutine functions, classes, whole applications.

Rule 1: a decorated view is of the same kind: a coroutine function stays one, and so does a class or an application.
Rule 2: an object that cannot be a view is an error when it is decorated; the message names the view, its file and the
        way out.
Rule 3: a call tells whether a plain function is a view or an application: both may have two parameters.
"""

from __future__ import annotations

import functools
import inspect
import sys
from abc import ABC, abstractmethod
from collections.abc import Awaitable, Callable, Iterable
from typing import Any, Final, TypeVar, cast

from cachemw.calling import is_async
from cachemw.errors import ImproperlyConfigured
from cachemw.middleware import interface_of

__all__ = ["PAGE", "ASGIApplication", "Call", "ViewDecorator", "ViewT", "WSGIApplication", "describe", "in_flask"]

ViewT = TypeVar("ViewT", bound=Callable[..., Any])

#: The attribute of a view with `cache_page` that holds its page; decorators with `functools.wraps` copy it.
PAGE: Final = "__cachemw_page__"


def describe(view: Any) -> str:
    """The view's name, file and line, for errors."""
    while isinstance(view, functools.partial):
        view = view.func
    plain = inspect.unwrap(view) if callable(view) else view
    name = getattr(plain, "__qualname__", None)
    if name is None:
        return repr(view)
    code = getattr(plain, "__code__", None)
    place = f" ({code.co_filename}:{code.co_firstlineno})" if code is not None else ""
    return f"{plain.__module__}.{name}{place}"


def in_flask() -> bool:
    """Is there a current request of Flask's? Flask is not imported for that."""
    flask = sys.modules.get("flask")
    return flask is not None and bool(flask.has_request_context())


class Call:
    """One call of a view.

    request   Starlette's or Django's request, if it is an argument of the view; None in Flask
    """

    __slots__ = ("args", "kwargs", "request", "view")

    def __init__(self, view: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        self.view = view
        self.args = args
        self.kwargs = kwargs
        self.request = _request_in((*args[:2], *kwargs.values()))

    def __call__(self) -> Any:
        return self.view(*self.args, **self.kwargs)

    @property
    def starlette(self) -> Any:
        """The request if it is Starlette's; else None."""
        return self.request if hasattr(self.request, "receive") else None

    def response(self, result: Any, decorator: str) -> Any:
        """The response with headers that the view's result is. Raises: TypeError, which names decorator and view."""
        if self.request is None and in_flask():
            from flask import current_app

            return current_app.make_response(result)
        if hasattr(result, "headers"):
            return result
        raise TypeError(
            f"{decorator}: the view {describe(self.view)} returned {result!r}, which has no headers. Return a "
            "response; in FastAPI, take the decorator from cachemw.integrations.fastapi."
        )


def _request_in(values: Iterable[Any]) -> Any | None:
    kinds = tuple(
        getattr(module, name)
        for module, name in (
            (sys.modules.get("starlette.requests"), "Request"),
            (sys.modules.get("django.http"), "HttpRequest"),
        )
        if module is not None
    )
    return next((value for value in values if isinstance(value, kinds)), None)


class ASGIApplication:
    """A decorated ASGI application; an object, because Starlette's routes take functions for views."""

    def __init__(self, call: Callable[[Any, Any, Any], Awaitable[None]], app: Any) -> None:
        self._call = call
        self._app = app

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        if scope["type"] == "http":
            await self._call(scope, receive, send)
        else:
            await self._app(scope, receive, send)


class WSGIApplication:
    """A decorated WSGI application."""

    def __init__(self, call: Callable[[Any, Any], Iterable[bytes]]) -> None:
        self._call = call

    def __call__(self, environ: Any, start_response: Any) -> Iterable[bytes]:
        return self._call(environ, start_response)


class ViewDecorator(ABC):
    """A decorator of views. A subclass defines what it does around a call, and around an application."""

    name = ""

    @abstractmethod
    def around(self, call: Call) -> Any:
        """Answer a call of a plain view."""

    @abstractmethod
    async def around_async(self, call: Call) -> Any:
        """Answer a call of a coroutine view."""

    @abstractmethod
    async def asgi(self, app: Any, scope: Any, receive: Any, send: Any) -> None:
        """Answer a request to an ASGI application."""

    @abstractmethod
    def wsgi(self, app: Any, environ: Any, start_response: Any) -> Iterable[bytes]:
        """Answer a request to a WSGI application."""

    def check(self, view: Any) -> None:  # noqa: B027  most decorators may stand on any view
        """Raise for a view that this decorator cannot stand on, for reasons of its own."""

    def check_whole(self, view: Any) -> None:  # noqa: B027
        """Raise for an application, or a class that is one, that this decorator cannot stand on."""

    def mark(self, decorated: Any) -> None:  # noqa: B027
        """Set attributes of the decorated view."""

    def __call__(self, view: ViewT) -> ViewT:
        self.check(view)
        decorated = self._decorated(view)
        self.mark(decorated)
        return cast(ViewT, decorated)

    def _decorated(self, view: Any) -> Any:
        if not callable(view) or isinstance(view, staticmethod | classmethod):
            raise TypeError(f"{self.name} decorates a view; got {view!r}. Put it directly on the function.")
        if isinstance(view, type):
            return self._class(view)
        if inspect.isasyncgenfunction(view):
            raise TypeError(
                f"{self.name}: {describe(view)} is an async generator; return a streaming response from it."
            )
        if not inspect.isroutine(view) and not isinstance(view, functools.partial):
            try:
                return self._application(view, interface_of(view))
            except ImproperlyConfigured:  # an object that is called as a view
                pass
        return self._coroutine(view) if is_async(view) else self._function(view)

    def _application(self, app: Any, interface: str) -> ASGIApplication | WSGIApplication:
        self.check_whole(app)
        if interface == "asgi":
            return ASGIApplication(functools.partial(self.asgi, app), app)
        return WSGIApplication(functools.partial(self.wsgi, app))

    def _function(self, view: Callable[..., Any]) -> Callable[..., Any]:
        @functools.wraps(view)
        def wrapper(*args: Any, **kwargs: Any) -> Any:
            if not kwargs and args and isinstance(args[0], dict):
                if len(args) == 2 and "REQUEST_METHOD" in args[0]:
                    return self.wsgi(view, *args)
                if len(args) == 3 and "type" in args[0]:
                    return self.asgi(view, *args)
            return self.around(Call(view, args, kwargs))

        return wrapper

    def _coroutine(self, view: Callable[..., Any]) -> Callable[..., Any]:
        @functools.wraps(view)
        async def wrapper(*args: Any, **kwargs: Any) -> Any:
            if len(args) == 3 and not kwargs and isinstance(args[0], dict) and "type" in args[0]:
                await ASGIApplication(functools.partial(self.asgi, view), view)(*args)
                return None
            return await self.around_async(Call(view, args, kwargs))

        return wrapper

    def _class(self, view: Any) -> type:
        flask, starlette = sys.modules.get("flask.views"), sys.modules.get("starlette.endpoints")
        if flask is not None and issubclass(view, flask.View):
            view.decorators = [*view.decorators, self]
            return cast(type, view)
        if starlette is not None and issubclass(view, starlette.HTTPEndpoint):
            return self._endpoint(view)
        raise TypeError(
            f"{self.name}: {describe(view)} is not a class-based view; a Flask View or a Starlette HTTPEndpoint is. "
            "Decorate the function, or the method, that returns the response."
        )

    def _endpoint(self, view: Any) -> type:
        """A subclass of the endpoint, an application too, with the decorator around its dispatch."""
        self.check_whole(view)
        decorator = self

        async def app(scope: Any, receive: Any, send: Any) -> None:
            await view(scope, receive, send)

        async def dispatch(self: Any) -> None:
            await decorator.asgi(app, self.scope, self.receive, self.send)

        names = {name: getattr(view, name) for name in ("__module__", "__qualname__", "__doc__")}
        return type(view.__name__, (view,), {**names, "dispatch": dispatch})
