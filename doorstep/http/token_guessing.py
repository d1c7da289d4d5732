"""Tells good tokens from guessed ones, for both APIs.

A request with a token that is answered by anything but 401, 404 or 429 shows a good token: its
connection stops to count as unauthenticated. Every 401 counts against the client's address, whose
next ones become 429 once they are too many. A good token is never refused for others' guesses.
"""

from __future__ import annotations

from starlette.types import ASGIApp, Message, Receive, Scope, Send

from doorstep.errors import TooManyRequests
from doorstep.http.guarded_protocol import mark_authenticated
from doorstep.http.problems import problem_response
from doorstep.http.rate_limit import RateLimiter

BAD_TOKENS_PER_S = 1.0  # sustained, from one address
BURST_BAD_TOKENS = 60  # a fleet behind one address whose tokens were all rotated
_UNPROVEN = frozenset({401, 404, 429})


class TokenGuessing:
    """ASGI middleware: limit 401s per address, and mark connections with a good token."""

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
            if message["type"] == "http.response.start":
                if message["status"] == 401 and has_token:
                    refusal = self._refusal(scope)
                elif has_token and message["status"] not in _UNPROVEN:
                    mark_authenticated(scope)
            if refusal is None:
                await send(message)
            elif message["type"] == "http.response.start":
                await problem_response(refusal)(scope, receive, send)

        await self._app(scope, receive, send_counted)

    def _refusal(self, scope: Scope) -> TooManyRequests | None:
        client = scope.get("client")
        try:
            self._bad_tokens.take(client[0] if client else "unknown")
        except TooManyRequests as exc:
            return exc
        return None
