"""Hooked: one ASGI request under hooks. Before the look-up, after every response, teardown when all is over."""

from __future__ import annotations

from collections import deque
from functools import cache
from typing import Any

from cachemw._asgi.request import ASGIRequest
from cachemw._asgi.types import ASGIApp, Message, Receive, Scope, Send
from cachemw.calling import HookPlan, arun_after, arun_before, arun_teardown
from cachemw.exchange.state import BEFORE

__all__ = ["Hooked"]


class Hooked:
    """One request; `respond` is what answers it without hooks, from the cache or by the application."""

    def __init__(self, respond: ASGIApp, plan: HookPlan, scope: Scope, receive: Receive, send: Send) -> None:
        self._respond = respond
        self._plan = plan
        self._scope = scope
        self._receive = receive
        self._send = send
        self._request: Any = None
        self._replaced = False

    async def run(self) -> None:
        """Answer the request."""
        from starlette.requests import Request as StarletteRequest

        error: BaseException | None = None
        try:
            receive = _Received(self._receive)
            self._request = StarletteRequest(self._scope, receive.first)
            came = ASGIRequest(self._scope)
            came.hold()
            self._scope[BEFORE] = came
            response = await arun_before(self._plan, self._request)
            if came.method in ("GET", "HEAD") and any(message.get("body") for message in receive.kept):
                came.note_body()
            if response is None:
                await self._respond(self._scope, receive.again if receive.kept else self._receive, self._sending)
            elif not callable(response):
                raise TypeError(f"A before_request hook returned {response!r}; allowed: a Starlette Response, or None.")
            else:
                response = await self._after(response)
                await response(self._scope, self._receive, self._send)
        except BaseException as raised:
            error = raised
            raise
        finally:
            await arun_teardown(self._plan, error)

    async def _sending(self, message: Message) -> None:
        if message["type"] == "http.response.start":
            await self._send_head(message)
        elif not self._replaced:
            await self._send(message)

    async def _send_head(self, message: Message) -> None:
        """Show the head to the after hooks as a response: what they do to it is sent, or another in its place."""
        response = _head()(message["status"], list(message.get("headers", ())))
        changed = await self._after(response)
        if changed is response:
            await self._send({**message, "status": response.status_code, "headers": response.raw_headers})
        else:
            self._replaced = True
            await changed(self._scope, self._receive, self._send)

    async def _after(self, response: Any) -> Any:
        """The response that the after hooks make of this one. Raises: TypeError if it is none."""
        changed = await arun_after(self._plan, self._request, response)
        if not callable(changed):
            raise TypeError(f"An after_request hook returned {changed!r}; allowed: a Starlette Response, or None.")
        return changed


@cache
def _head() -> Any:
    """The class of responses whose body is still to come, made when Starlette is there."""
    from starlette.responses import Response

    class Head(Response):
        def __init__(self, status: int, fields: list[tuple[bytes, bytes]]) -> None:
            self.status_code = status
            self.raw_headers = fields
            self.background = None

        @property
        def body(self) -> bytes:
            return b""

        @body.setter
        def body(self, body: object) -> None:
            raise AttributeError(
                "The body of this response is still to come, and cannot be set here. To send another one, return "
                "another response from the hook."
            )

    return Head


class _Received:
    """The messages of the request. What the hooks have read of its body is there for the application once more."""

    def __init__(self, receive: Receive) -> None:
        self._receive = receive
        self.kept: deque[Message] = deque()

    async def first(self) -> Message:
        """`receive`, for the hooks."""
        message = await self._receive()
        self.kept.append(message)
        return message

    async def again(self) -> Message:
        """`receive`, for the application."""
        return self.kept.popleft() if self.kept else await self._receive()
