"""Answers the routes that get most requests without the framework's routing and dependencies.

A direct handler gets the request of a matching path, and answers it or returns None. In that case
the application's route of the same path answers: it documents the route, reads every form of its
parameters, and refuses malformed ones.
"""

from __future__ import annotations

import re
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, field
from urllib.parse import parse_qsl

from starlette.requests import Request
from starlette.responses import Response
from starlette.types import ASGIApp, Receive, Scope, Send

from doorstep.errors import DoorstepError
from doorstep.http.problems import respond_to

DirectHandler = Callable[[Request], Awaitable[Response | None]]

_PARAMETER = re.compile(r"\{(\w+)\}")


@dataclass(frozen=True, slots=True)
class DirectRoute:
    """A handler for a method and a path template, such as `/track/{order_id}`.

    One that reads the body answers the request.
    """

    path: str
    handle: DirectHandler
    method: str = "GET"
    pattern: re.Pattern[str] = field(init=False, repr=False)

    def __post_init__(self) -> None:
        """Compile the template."""
        names = _PARAMETER.split(self.path)
        parts = [f"(?P<{part}>[^/]+)" if n % 2 else re.escape(part) for n, part in enumerate(names)]
        object.__setattr__(self, "pattern", re.compile("".join(parts)))


class DirectRoutes:
    """ASGI middleware, the innermost: direct routes first, then the application."""

    def __init__(self, app: ASGIApp, routes: Sequence[DirectRoute]) -> None:
        self._app = app
        self._routes = routes

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "http":
            method, path = scope["method"], scope["path"]
            for route in self._routes:
                match = route.pattern.fullmatch(path) if route.method == method else None
                if match is not None:
                    scope["route"] = route  # its path labels the metrics and the audit
                    scope["path_params"] = match.groupdict()
                    try:
                        response = await route.handle(Request(scope, receive))
                        if response is not None:
                            await response(scope, receive, send)
                            return
                    except DoorstepError as exc:
                        await respond_to(exc)(scope, receive, send)
                        return
                    break
        await self._app(scope, receive, send)


def query_of(request: Request, allowed: frozenset[str]) -> Mapping[str, str] | None:
    """Return the query's parameters. None if one is unknown, repeated or empty."""
    raw = request.scope["query_string"]
    if not raw:
        return {}
    pairs = parse_qsl(raw.decode("latin-1"), keep_blank_values=True)
    found = dict(pairs)
    usable = len(found) == len(pairs) and allowed.issuperset(found) and all(found.values())
    return found if usable else None
