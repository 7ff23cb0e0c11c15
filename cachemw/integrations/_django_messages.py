"""Django's requests and responses: what the cache reads of them, and how a stored response becomes one of Django's."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

from django.http import HttpResponse  # type: ignore[import-untyped]
from django.utils import timezone, translation  # type: ignore[import-untyped]
from django.utils.functional import LazyObject  # type: ignore[import-untyped]

from cachemw._asgi.request import decoded
from cachemw._users import is_user
from cachemw.activation import KEY as LOCALE
from cachemw.activation import Locale
from cachemw.asgi import Message
from cachemw.headers import patch_vary_headers

__all__ = [
    "environ_of",
    "fields_of",
    "from_messages",
    "mind_visitor",
    "patched",
    "set_fields",
    "stored_response",
    "tell_locale",
]


def environ_of(request: Any) -> dict[str, Any]:
    """The WSGI environment of a request; made from its scope where an ASGI request meets synchronous middlewares."""
    scope = getattr(request, "scope", None)
    if scope is None:
        return dict(request.META)
    path = request.META["PATH_INFO"].encode().decode("latin-1")
    return {**request.META, "PATH_INFO": path, "wsgi.url_scheme": scope.get("scheme", "http")}


def tell_locale(request: Any, state: Any) -> None:
    """Write the active language and time zone into `state`, the request's environment or scope.

    Django's LocaleMiddleware leaves the language in the request.
    """
    locale = state.get(LOCALE)
    if locale is None:
        locale = state[LOCALE] = Locale()
    code = getattr(request, "LANGUAGE_CODE", None) or translation.get_language()
    locale.language = None if code is None else _tag(code)
    locale.timezone = timezone.get_current_timezone_name()


def mind_visitor(request: Any, response: Any, exchange: Any) -> None:
    """Tell the exchange, and Vary, what the page has of its visitor: session, messages, CSRF token, nonce, user.

    The middlewares of these may stand outside of the cache, and would say so after the page is stored.
    """
    session, messages = getattr(request, "session", None), getattr(request, "_messages", None)
    if getattr(session, "modified", False) or request.META.get("CSRF_COOKIE_NEEDS_UPDATE"):
        exchange.never, exchange.detail = True, "set-cookie"
    user = vars(request).get("user")
    if not isinstance(user, LazyObject) and is_user(user):  # a lazy user reads the session, which then varies on Cookie
        exchange.identified = True
    if getattr(request, "_csp_nonce", None):  # it is in the page, and allowed in this one response only
        exchange.never, exchange.detail = True, "nonce"
    if "accepted_types" in vars(request):
        patch_vary_headers(response, ["Accept"])
    if getattr(messages, "added_new", False) or getattr(messages, "_loaded_data", None):
        exchange.never, exchange.detail = True, "session"
    if getattr(session, "accessed", False) or (
        session is not None and response.streaming
    ):  # a stream may still read it
        patch_vary_headers(response, ["Cookie"])


def _tag(code: str) -> str:
    """A language code of Django's in the usual case (RFC 5646 §2.1.1): "pt-BR" for "pt-br", "zh-Hans" for "zh-hans"."""
    first, *rest = code.replace("_", "-").split("-")
    sizes = {2: str.upper, 4: str.title}
    return "-".join((first.lower(), *(sizes.get(len(part), str.lower)(part) for part in rest)))


def fields_of(response: Any) -> list[tuple[str, str]]:
    """The fields of Django's response, its cookies too."""
    cookies = (("Set-Cookie", cookie.output(header="").strip()) for cookie in response.cookies.values())
    return [*response.items(), *cookies]


def set_fields(response: Any, fields: Iterable[tuple[str, str]]) -> None:
    """Replace the fields of the response; its cookies stay, which Django keeps elsewhere."""
    combined: dict[str, tuple[str, str]] = {}
    for name, value in fields:
        known = combined.get(name.lower())
        combined[name.lower()] = (name, value if known is None else f"{known[1]}, {value}")
    combined.pop("set-cookie", None)
    for name in list(response.headers):
        if name.lower() not in combined:
            del response.headers[name]
    for name, value in combined.values():
        response.headers[name] = value


def patched(response: Any, fields: Iterable[tuple[str, str]], body: Any) -> Any:
    """The view's response with the fields that left the cache; its body is read through `body`, the cache's."""
    set_fields(response, fields)
    if response.streaming and not response.is_async:
        response.streaming_content = body
        return response
    if not response.streaming:
        for _ in body:  # so that the cache gets its copy
            pass
    getattr(body, "close", bool)()
    return response


def stored_response(status: int, reason: str, fields: Sequence[tuple[str, str]], content: bytes) -> HttpResponse:
    """A stored response as a response of Django's."""
    response = HttpResponse(content, status=status, reason=reason or None)
    set_fields(response, fields)
    for name, value in fields:
        if name.lower() == "set-cookie":
            response.cookies.load(value)
    return response


def from_messages(sent: list[Message]) -> HttpResponse:
    """The response that these ASGI messages are."""
    start, *parts = sent
    return stored_response(
        start["status"], "", decoded(start["headers"]), b"".join(one.get("body", b"") for one in parts)
    )
