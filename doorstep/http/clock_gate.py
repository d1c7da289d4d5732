"""Refuses requests that change something while the server's clock is not trusted."""

from __future__ import annotations

from starlette.types import ASGIApp, Receive, Scope, Send

from doorstep.clock_guard import ClockGuard
from doorstep.errors import ClockStepped
from doorstep.http.problems import respond_to

READS = frozenset({"GET", "HEAD", "OPTIONS"})


class ClockGate:
    """ASGI middleware: 503 with Retry-After for all but reads. They do not depend on the clock."""

    def __init__(self, app: ASGIApp, clock: ClockGuard) -> None:
        self._app = app
        self._clock = clock

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        changes = scope["type"] == "http" and scope["method"] not in READS
        if changes and not self._clock.is_trusted():
            await respond_to(ClockStepped())(scope, receive, send)
        else:
            await self._app(scope, receive, send)
