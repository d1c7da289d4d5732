"""Limits guessed tokens, for both APIs.

Every 401 counts against the client's address, whose next ones become 429 once they are too many. A
good token is never refused for others' guesses.

On the paths of phone apps the 401 stays, and comes late instead: a 429 would block an app's queue.
"""

from __future__ import annotations

import asyncio
from collections.abc import Collection

from starlette.types import ASGIApp, Message, Receive, Scope, Send

from doorstep.errors import TooManyRequests
from doorstep.http.guarded_protocol import request_scope
from doorstep.http.problems import problem_response
from doorstep.http.rate_limit import RateLimiter

BAD_TOKENS_PER_S = 1.0  # sustained, from one address
BURST_BAD_TOKENS = 60  # a fleet behind one address whose tokens were all rotated
DELAY_S = 3.0  # below the time-outs of phone apps, 10 s and more


class TokenGuessing:
    """ASGI middleware: limit 401s per address, and name the request for `note_good_token`.

    On `delayed_paths`, whose token may stand in the address or the body, a 401 over the limit is
    delayed.
    """

    def __init__(self, app: ASGIApp, delayed_paths: Collection[str] = ()) -> None:
        self._app = app
        self._delayed_paths = frozenset(delayed_paths)
        self._bad_tokens = RateLimiter(BAD_TOKENS_PER_S, BURST_BAD_TOKENS)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        names = {name for name, _ in scope["headers"]}
        is_delayed = scope["path"] in self._delayed_paths
        has_token = b"authorization" in names or b"cookie" in names or is_delayed
        refusal: TooManyRequests | None = None

        async def send_counted(message: Message) -> None:
            nonlocal refusal
            is_head = message["type"] == "http.response.start"
            if is_head and message["status"] == 401 and has_token:
                refusal = self._refusal(scope)
                if refusal is not None and is_delayed:
                    await asyncio.sleep(DELAY_S)
                    refusal = None
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
