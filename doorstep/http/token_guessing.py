"""Limits guessed tokens, for both APIs.

Every 401 counts against the client's address, whose next ones become 429 once they are too many. A
good token is never refused for others' guesses.
"""

from __future__ import annotations

from starlette.types import ASGIApp, Message, Receive, Scope, Send

from doorstep.errors import TooManyRequests
from doorstep.http.guarded_protocol import request_scope
from doorstep.http.problems import problem_response
from doorstep.http.rate_limit import RateLimiter

BAD_TOKENS_PER_S = 1.0  # sustained, from one address
BURST_BAD_TOKENS = 60  # a fleet behind one address whose tokens were all rotated


class TokenGuessing:
    """ASGI middleware: limit 401s per address, and name the request for `note_good_token`."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app
        self._bad_tokens = RateLimiter(BAD_TOKENS_PER_S, BURST_BAD_TOKENS)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        names = {name for name, _ in scope["headers"]}
        has_token = b"authorization" in names or b"cookie" in names
        refusal: TooManyRequests | None = None

        async def send_counted(message: Message) -> None:
            nonlocal refusal
            is_head = message["type"] == "http.response.start"
            if is_head and message["status"] == 401 and has_token:
                refusal = self._refusal(scope)
            if refusal is None:
                await send(message)
            elif is_head:
                await problem_response(refusal)(scope, receive, send)

        reset_token = request_scope.set(scope)
        try:
            await self._app(scope, receive, send_counted)
        finally:
            request_scope.reset(reset_token)

    def _refusal(self, scope: Scope) -> TooManyRequests | None:
        client = scope.get("client")
        try:
            self._bad_tokens.take(client[0] if client else "unknown")
        except TooManyRequests as exc:
            return exc
        return None
