"""Answers a request that a stop of the process cuts short."""

from __future__ import annotations

import asyncio

from starlette.types import ASGIApp, Message, Receive, Scope, Send

from doorstep.errors import Unavailable
from doorstep.http.problems import problem_response


class Stopping(Unavailable):
    """The service is stopping."""


class AnswerWhenCutShort:
    """ASGI application: 503 for a request that uvicorn cancels.

    uvicorn cancels what has not ended some seconds after a stop began, and answers 500 by itself.
    A response that has begun is cut off.
    """

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        has_begun = False

        async def note_begin(message: Message) -> None:
            nonlocal has_begun
            has_begun = True
            await send(message)

        try:
            await self._app(scope, receive, note_begin)
        except asyncio.CancelledError:
            if has_begun:
                raise
            await problem_response(Stopping())(scope, receive, send)
